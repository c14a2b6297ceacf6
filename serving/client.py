"""A client that always answers: it asks the shim within a deadline, else goes by its last table, else by the static routes."""

import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from features.clock import Clock, SystemClock
from features.cloudevents import CloudEvent
from features.records import Candidate, Outcome
from serving.answer import Answer
from serving.asking import Asked, Asker, NoAnswerError
from serving.caller import Caller, Reply
from serving.plan import Plan

State = Literal["starting", "ready", "stale", "error"]

LONGEST_PAUSE_SECONDS = 30.0
_MAX_REPORTED = 100  # fallbacks at once
_REFUSED = range(400, 500)


class _Current(msgspec.Struct, frozen=True):
    """What is live, as far as a client needs to know."""

    generation: int


@dataclass(kw_only=True)
class Client:
    """Asks one shim; for one thread, beside that of `watch`. ``plan`` is compiled from the shim's own configuration.

    ``state``: ``starting`` before the first exchange; ``ready`` while they go well; ``stale`` once one failed and what was
    learned lately still routes; ``error`` once there are the static routes alone. ``failure`` says what was wrong last.
    """

    url: str
    plan: Plan
    token: str | None = field(default=None, repr=False)
    deadline_seconds: float = 0.25
    clock: Clock = field(default_factory=SystemClock)
    poll_seconds: float = 5.0
    failure: str = ""
    generation: int | None = None
    asker: Asker = field(init=False, repr=False)
    _heard: bool = False
    _etag: str = ""
    _closed: threading.Event = field(default_factory=threading.Event, repr=False)
    _reporting: Any = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        """Prepare; nothing connects before the first question."""
        self.asker = Asker(plan=self.plan, clock=self.clock)
        self._caller = Caller(url=self.url, token=self.token)

    @property
    def state(self) -> State:
        """How the last exchange went, and what a question would be answered from if the next one fails."""
        if not self.failure:
            return "ready" if self._heard else "starting"
        return "stale" if self.asker.table.usable else "error"

    def decide(self, cloud_event: CloudEvent, candidates: Sequence[Candidate] | None = None) -> Answer:
        """Return where the event should go, within the deadline; never raises.

        An answer of the client's own says ``logged`` false until it is reported, and has no destinations where the policy
        allows none. The decision id is the client's, so an outcome can be reported either way.
        """
        asked = self.asker.prepare(cloud_event, candidates)
        if not isinstance(asked, Asked):
            return asked
        try:
            reply = self._call(self._caller, "POST", "/v1/decisions", asked.body, expected=200)
            return self.asker.read(asked, reply.body)
        except NoAnswerError as error:
            self.failure = str(error) or type(error).__name__
            return self.asker.fall_back(asked, self.failure)

    def report(self, outcome: Outcome) -> bool:
        """Report an outcome, after the fallbacks that were not reported yet, and tell whether the shim accepted it; never raises.

        Reporting again does no harm.
        """
        try:
            self._report_fallbacks(self._caller)
            self._call(self._caller, "POST", "/v1/outcomes", msgspec.json.encode(outcome), expected=202)
        except NoAnswerError as error:
            self.failure = str(error)
            return False
        return True

    def watch(self) -> None:
        """From now on look at the shim every ``poll_seconds`` or so, in a thread of its own, until `close`.

        So the state is known before the next question, and what was decided without the shim is reported once it is back.
        """
        threading.Thread(target=self._watch, name="turnout-client", daemon=True).start()

    def close(self) -> None:
        """Close the connection, and end the watching; a later question opens another."""
        self._closed.set()
        self._caller.close()

    def _watch(self) -> None:
        caller, n_failures = Caller(url=self.url, token=self.token), 0
        while not self._closed.wait(pause_seconds(self.poll_seconds, n_failures)):
            try:
                self._look(caller)
                n_failures = 0
            except Exception as error:  # noqa: BLE001 - whatever comes, the next look must follow
                n_failures += 1
                self.failure = str(error) or type(error).__name__
        caller.close()

    def _look(self, caller: Caller) -> None:
        """Ask what is live, and report what the shim does not know yet."""
        reply = caller.call(
            "GET", "/v1/models/router/current", seconds=self.poll_seconds, headers={"if-none-match": self._etag}
        )
        if reply.status not in (200, 304, 404):
            raise NoAnswerError(_told(reply))
        if reply.status == 200:  # noqa: PLR2004 - HTTP's OK
            self.generation = msgspec.json.decode(reply.body, type=_Current).generation
            self._etag = reply.headers.get("etag", "")
        self._heard, self.failure = True, ""
        self._report_fallbacks(caller)

    def _report_fallbacks(self, caller: Caller) -> None:
        """Report what was decided without the shim. What it refuses is forgotten: it would refuse it again."""
        unreported = self.asker.unreported
        with self._reporting:
            while page := list(unreported)[:_MAX_REPORTED]:
                reply = caller.call("POST", "/v1/fallbacks", msgspec.json.encode(page), seconds=self.deadline_seconds)
                if reply.status != 202 and reply.status not in _REFUSED:  # noqa: PLR2004 - HTTP's accepted
                    raise NoAnswerError(_told(reply))
                if reply.status in _REFUSED:
                    self.asker.n_forgotten += len(page)
                for decision in page:
                    if unreported and unreported[0] is decision:
                        unreported.popleft()

    def _call(self, caller: Caller, method: str, path: str, body: bytes, *, expected: int) -> Reply:
        reply = caller.call(method, path, body, seconds=self.deadline_seconds)
        if reply.status != expected:
            raise NoAnswerError(_told(reply))
        self._heard, self.failure = True, ""
        return reply


def pause_seconds(poll_seconds: float, n_failures: int) -> float:
    """Return how long to wait before the next look: longer after failures, never long, and never in step with others."""
    pause = min(poll_seconds * 2.0 ** min(n_failures, 16), max(LONGEST_PAUSE_SECONDS, poll_seconds))
    return pause * random.uniform(0.5, 1.0)  # noqa: S311 - no secret


def _told(reply: Reply) -> str:
    return f"status {reply.status}: {reply.body[:200].decode(errors='replace')}"
