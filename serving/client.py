"""A client that always answers: it asks the shim within a deadline, else takes the static route that the policy allows."""

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from features import cloudevents
from features.clock import Clock, SystemClock
from features.cloudevents import CloudEvent, DecisionRequest, TextTypeError, UnknownTypeError
from features.records import Candidate, Event, Outcome
from serving import answer, decider, identity
from serving.answer import Answer
from serving.case import FeatureRangeError, NoEligibleDestinationError, Question
from serving.plan import Plan, StreamPlan

State = Literal["starting", "ready", "error"]

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_ANSWERS = msgspec.json.Decoder(Answer)


class _NoAnswerError(Exception):
    """The shim did not answer as it should; says how."""


@dataclass(kw_only=True)
class Client:
    """Asks one shim; for one thread. ``plan`` is compiled from the shim's own configuration.

    ``state`` tells how the last exchange went, ``failure`` what was wrong with it.
    """

    url: str
    plan: Plan
    token: str | None = field(default=None, repr=False)
    deadline_seconds: float = 0.25
    clock: Clock = field(default_factory=SystemClock)
    state: State = "starting"
    failure: str = ""
    _socket: socket.socket | None = field(default=None, repr=False)

    def decide(self, cloud_event: CloudEvent, candidates: Sequence[Candidate] | None = None) -> Answer:
        """Return where the event should go, within the deadline; never raises.

        An answer of the client's own says ``logged`` false, and has no destinations where the policy allows none. The
        decision id is the client's, so an outcome can be reported either way.
        """
        try:
            event = cloudevents.event_of(cloud_event, self.plan.configuration)
        except (UnknownTypeError, TextTypeError) as error:
            return self._refusal(cloud_event.type, "", f"refused: {error}")
        plan = self.plan.streams[event.stream]
        mark = identity.fingerprint(event.stream, event.source, event.id)
        decision_id = identity.decision_id(self.clock.now(), mark)
        offered = tuple(candidates or (Candidate(destination=name) for name in plan.stream.destinations))
        request = DecisionRequest(event=cloud_event, candidates=offered, decision_id=decision_id)
        try:
            told = _ANSWERS.decode(self._post("/v1/decisions", msgspec.json.encode(request), expected=200))
            return self._checked(told, plan, event, offered)
        except (_NoAnswerError, msgspec.MsgspecError, RecursionError) as error:
            self.state, self.failure = "error", str(error)
            return self._fallback(plan, Question(event=event, candidates=offered), decision_id)

    def report(self, outcome: Outcome) -> bool:
        """Report an outcome and tell whether the shim accepted it; never raises. Reporting again does no harm."""
        try:
            self._post("/v1/outcomes", msgspec.json.encode(outcome), expected=202)
        except _NoAnswerError as error:
            self.state, self.failure = "error", str(error)
            return False
        return True

    def close(self) -> None:
        """Close the connection; the next question opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _checked(self, told: Answer, plan: StreamPlan, event: Event, offered: tuple[Candidate, ...]) -> Answer:
        """Return the shim's answer without what the policy forbids: a wrong shim must not lead past it."""
        allowed = {candidate.destination for candidate in offered} - plan.excluded(event, offered).keys()
        allowed.add(plan.stream.refusal or "")
        destinations = tuple(name for name in told.destinations if name in allowed)
        if not destinations:
            raise _NoAnswerError(f"the shim named no destination that the policy allows: {told.destinations}")
        return msgspec.structs.replace(told, destinations=destinations)

    def _fallback(self, plan: StreamPlan, question: Question, decision_id: str) -> Answer:
        try:
            decision = decider.decide_statically(
                question,
                plan,
                at=self.clock.now(),
                decision_id=decision_id,
                revision=self.plan.revision,
                reason=f"the shim did not answer: {self.failure}",
            )
        except (NoEligibleDestinationError, FeatureRangeError, ValueError) as error:
            return self._refusal(plan.name, decision_id, f"refused: {error}")
        return answer.of(decision, plan.static_order(question.event), logged=False)

    def _refusal(self, stream: str, decision_id: str, reason: str) -> Answer:
        return Answer(
            decision_id=decision_id,
            stream=stream,
            destinations=(),
            reason=reason,
            propensity=1.0,
            arm="static",
            mode="off",
            generation=0,
            digest=None,
            decided_at=self.clock.now(),
            logged=False,
        )

    def _post(self, path: str, body: bytes, *, expected: int) -> bytes:
        """Exchange one request, once more on a fresh connection where the kept one had been closed."""
        give_up_at = time.monotonic() + self.deadline_seconds
        try:
            status, content = self._exchange_again(path, body, give_up_at)
        except (OSError, ValueError) as error:
            self.close()
            raise _NoAnswerError(f"{type(error).__name__}: {error}") from None
        if status != expected:
            raise _NoAnswerError(f"status {status}: {content[:200].decode(errors='replace')}")
        self.state, self.failure = "ready", ""
        return content

    def _exchange_again(self, path: str, body: bytes, give_up_at: float) -> tuple[int, bytes]:
        if self._socket is None:
            return self._exchange(path, body, give_up_at)
        try:
            return self._exchange(path, body, give_up_at)
        except ConnectionError:  # the shim may have closed an idle connection; asking twice gets one decision
            self.close()
            return self._exchange(path, body, give_up_at)

    def _exchange(self, path: str, body: bytes, give_up_at: float) -> tuple[int, bytes]:
        address = urlsplit(self.url)
        host, port = address.hostname or "127.0.0.1", address.port or 80
        if self._socket is None:
            self._socket = socket.create_connection((host, port), timeout=_left(give_up_at))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        bearer = f"authorization: Bearer {self.token}\r\n" if self.token else ""
        head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n{bearer}"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._socket.settimeout(_left(give_up_at))
        self._socket.sendall(head.encode("latin-1") + body)
        return _receive(self._socket, give_up_at)


def _receive(connection: socket.socket, give_up_at: float) -> tuple[int, bytes]:
    """Return status and body of a response that gives its length, all of it before ``give_up_at``."""
    received = bytearray()
    n_expected: int | None = None
    while n_expected is None or len(received) < n_expected:
        connection.settimeout(_left(give_up_at))
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionResetError("the connection ended in the middle of an answer")
        received += chunk
        if n_expected is None and b"\r\n\r\n" in received:
            head = bytes(received).partition(b"\r\n\r\n")[0]
            n_expected = len(head) + 4 + _content_length(head)
        if (n_expected or len(received)) > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
    if len(received) > n_expected:
        raise ValueError("an answer longer than it says")
    head, _, content = bytes(received).partition(b"\r\n\r\n")
    return int(head[9:12]), content


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
            if length >= 0:
                return length
    raise ValueError("an answer without a valid content-length")


def _left(give_up_at: float) -> float:
    left = give_up_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
