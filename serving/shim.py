"""The shim's work apart from any transport: decide and log, accept outcomes, remember, say how it is."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import msgspec

from features import cloudevents
from features.clock import Clock, SystemClock
from features.cloudevents import DecisionRequest, TextTypeError, UnknownTypeError
from features.records import Candidate, Decision, Outcome, outcome_key
from features.scope import FeatureTypeError
from serving import answer, decider, identity, recall
from serving.answer import Answer
from serving.case import FeatureRangeError, NoEligibleDestinationError, Question
from serving.debts import Debts
from serving.fast_path import FastPath, Told
from serving.live import LiveStates
from serving.memory import Memory
from serving.metrics import Metrics
from serving.overrides import OverrideJournal
from serving.plan import Plan, StreamPlan
from serving.problems import Problem
from serving.recorder import Recorder
from serving.view import ReleaseView, StreamView

_WARM_BYTES = 128 * 1024 * 1024  # of the spool's tail, read at the start in about a second
_ENCODER = msgspec.json.Encoder()


class Releases(Protocol):
    """Where the shim's models come from; `serving.follower.Follower` is one."""

    @property
    def view(self) -> ReleaseView:
        """What is served now."""

    def report_fault(self, digest: str, reason: str) -> None:
        """Hear that a model raised on an event."""

    def rejections(self) -> dict[str, str]:
        """Return what of the ledger is not served, and why."""


class Copier(Protocol):
    """What keeps the releases a copy of another shim's; `serving.mirror.Mirror` is one."""

    @property
    def failure(self) -> str:
        """What keeps them from being one, "" when all is well."""


@dataclass(kw_only=True)
class Shim:
    """One shim. Its methods share one thread and never wait but for the disk."""

    plan: Plan
    clock: Clock
    releases: Releases
    overrides: OverrideJournal
    recorder: Recorder
    memory: Memory
    metrics: Metrics = field(default_factory=Metrics)
    debts: Debts = field(default_factory=Debts)
    mirror: Copier | None = None
    live_folder: Path | None = None  # where workers share what they know of destinations
    worker: int = 0
    live: LiveStates = field(init=False)
    fast_path: FastPath = field(init=False)
    _is_timely: bool = field(init=False)

    def __post_init__(self) -> None:
        """Make what follows from the plan."""
        self.live = LiveStates(self.plan, folder=self.live_folder, worker=self.worker)
        self.fast_path = FastPath(self.plan, self.live, self.metrics, self.debts)
        self._is_timely = isinstance(self.clock, SystemClock)  # no request brings a time of its own

    def warm(self) -> None:
        """Remember the decisions at the end of the spool, so that a restart forgets none of them."""
        recall.remember_all(self.memory, self.recorder.recent(_WARM_BYTES))

    def catch_up(self) -> None:
        """Hear what the other workers of this shim have decided, and been told to do, in the meantime."""
        recall.remember_all(self.memory, self.recorder.news())
        self.overrides.refresh()

    def decide(self, requests: Sequence[DecisionRequest], at: datetime) -> list[Answer | Problem]:
        """Decide where the events go, as of ``at``; the decisions are logged, in one write, before they are returned.

        Where the disk refuses, the static routes answer instead: their choice needs no log to be understood.
        """
        started_ns = time.perf_counter_ns()
        fresh: dict[int, _Fresh] = {}  # by mark: a batch may hold an event twice
        owed_before = self.debts.snapshot()
        work = [self._decide_one(request, at, fresh, started_ns) for request in requests]
        logged = not fresh or self._log(list(fresh.values()))
        if not logged:
            self.debts.restore(owed_before)
        return [self._answer(item, at, logged=logged) for item in work]

    def answer(self, body: bytes, at: datetime, *, is_bare: bool) -> bytes | None:
        """Return the answer to the requests in ``body`` as bytes, where the fast path takes them; they are logged by then.

        None is for `decide`: so it is while an override is in force or the disk refuses, and for events that were decided
        before.
        """
        recorder = self.recorder
        if not self._takes_ordinary():
            return None
        told = self.fast_path.answer(
            self.releases.view, body, at, is_bare=is_bare, memory=self.memory, held=recorder.held
        )
        if told is not None and not recorder.holding:
            try:
                recorder.flush()
            except OSError:
                return None  # what is not written is not remembered either: the whole path decides anew
        return told

    def reply(self, sent: list[bytes], heads: dict[bytes, int], head: bytes) -> Told:
        """Reply to HTTP requests as `FastPath.reply` does; the records are held: no reply may leave before the recorder is flushed."""
        recorder = self.recorder
        if not (self._is_timely and recorder.holding and self._takes_ordinary()):
            return None
        view, memory = self.releases.view, self.memory
        return self.fast_path.reply(view, sent, heads, head, memory=memory, held=recorder.held)

    def _takes_ordinary(self) -> bool:
        """Tell whether what is ordinary may be decided without a look at overrides, and its record be held."""
        if self.overrides.is_any or self.recorder.failure is not None:
            return False
        try:
            self.recorder.prepare()
        except OSError:
            return False
        return True

    def accept(self, outcomes: Sequence[Outcome]) -> list[str]:
        """Log the outcomes, all or none, and return the key under which each counts once.

        Raises
        ------
        Problem
            503 if the disk refuses: nothing was accepted, and the same report is welcome later.
        """
        try:
            self.recorder.append(*(_ENCODER.encode(outcome) for outcome in outcomes))
        except OSError as error:
            raise Problem(503, f"outcomes cannot be logged: {error.strerror or error}") from None
        self.metrics.count_outcomes(outcomes)
        self.live.learn(outcomes, self.clock.now())
        return [outcome_key(outcome) for outcome in outcomes]

    def adopt(self, decisions: Sequence[Decision]) -> int:
        """Log what clients decided while no shim answered, and return how many of them are news.

        What was logged under the same id stands: then only the answer was lost. An event that was never decided here gets
        at its next delivery what the client decided.

        Raises
        ------
        Problem
            422 for a stream that is not configured, 503 if the disk refuses: nothing was accepted.
        """
        for decision in decisions:
            if decision.stream not in self.plan.streams:
                raise Problem(422, f"no stream {decision.stream!r} is configured", "$.stream")
        by_id = {decision.decision_id: decision for decision in decisions}
        news = [decision for name, decision in by_id.items() if self.decision(name) is None]
        try:
            places = self.recorder.append(*map(_ENCODER.encode, news)) if news else []
        except OSError as error:
            raise Problem(503, f"fallbacks cannot be logged: {error.strerror or error}") from None
        for decision, place in zip(news, places, strict=True):
            self.metrics.count_adopted(decision.stream)
            recall.remember_fallback(self.memory, self.recorder, decision, place)
        return len(news)

    def decision(self, decision_id: str) -> Decision | None:
        """Return a recent decision by its id, None for one that is not remembered."""
        return recall.find(self.memory, self.recorder, decision_id)

    def _decide_one(
        self, request: DecisionRequest, at: datetime, fresh: "dict[int, _Fresh]", started_ns: int
    ) -> "_Fresh | _Repeated | Problem":
        try:
            event = cloudevents.event_of(request.event, self.plan.configuration)
        except UnknownTypeError as error:
            return Problem(422, str(error), "$.event.type")
        except TextTypeError as error:
            return Problem(422, str(error), f"$.event.{str(error).partition(' must be ')[0]}")
        plan = self.plan.streams[event.stream]
        mark = identity.fingerprint(event.stream, event.source, event.id)
        if mark in fresh:
            return fresh[mark]
        if (earlier := recall.standing(self.memory, self.recorder, mark, event, plan)) is not None:
            self.metrics.count_repeated(event.stream)
            return _Repeated(earlier, plan.static_order(event))
        question = Question(event=event, candidates=self.live.fill(_candidates(request, plan), at))
        decision = self._decide_fresh(question, plan, at, request.decision_id or identity.decision_id(at, mark))
        if isinstance(decision, Problem):
            return decision
        # Nobody else holds the decision yet: a copy of its thirty fields would only cost time.
        msgspec.structs.force_setattr(decision, "latency_us", (time.perf_counter_ns() - started_ns) / 1e3)
        fresh[mark] = _Fresh(decision, plan.static_order(event), mark, question, plan)
        return fresh[mark]

    def _decide_fresh(self, question: Question, plan: StreamPlan, at: datetime, decision_id: str) -> Decision | Problem:
        view = self.releases.view.streams.get(plan.name) or StreamView(mode=plan.stream.mode)
        stop = self.overrides.stop_for(plan.name, at)
        try:
            decided = decider.decide(
                question,
                plan,
                view,
                stop,
                at=at,
                decision_id=decision_id,
                revision=self.plan.revision,
                debts=self.debts.of(plan.name),
            )
        except NoEligibleDestinationError as error:
            return Problem(422, str(error), "$.candidates", {"excluded": error.excluded})
        except FeatureTypeError as error:
            return Problem(422, str(error), str(error).partition(" ")[0])  # it begins with the feature's name
        except FeatureRangeError as error:
            return Problem(422, str(error), "$")
        if decided.debt is not None:
            self.debts.set(plan.name, *decided.debt)
        for fault in decided.faults:
            self.metrics.count_fault(plan.name, fault.digest)
            if fault.raised:
                self.releases.report_fault(fault.digest, fault.reason)
        return decided.decision

    def _log(self, fresh: "list[_Fresh]") -> bool:
        try:
            places = self.recorder.append(*(_ENCODER.encode(item.decision) for item in fresh))
        except OSError:
            return False
        for item, place in zip(fresh, places, strict=True):
            recall.remember(self.memory, item.mark, item.decision.decision_id, place)
            self.metrics.count_decision(item.decision)
        return True

    def _answer(self, item: "_Fresh | _Repeated | Problem", at: datetime, *, logged: bool) -> Answer | Problem:
        if isinstance(item, Problem):
            return item
        if isinstance(item, _Repeated):
            return answer.of(item.decision, item.static_order, repeated=True)
        if logged:
            return answer.of(item.decision, item.static_order)
        self.metrics.count_unlogged(item.plan.name)
        decision = decider.decide_statically(
            item.question,
            item.plan,
            at=at,
            decision_id=item.decision.decision_id,
            revision=self.plan.revision,
            reason="not logged, the disk refuses",
        )
        return answer.of(decision, item.static_order, logged=False)


@dataclass
class _Fresh:
    """A decision just made, not logged yet, and what a static one in its place would need."""

    decision: Decision
    static_order: tuple[str, ...]
    mark: int
    question: Question
    plan: StreamPlan


@dataclass
class _Repeated:
    """The logged decision of an event that came again."""

    decision: Decision
    static_order: tuple[str, ...]


def _candidates(request: DecisionRequest, plan: StreamPlan) -> tuple[Candidate, ...]:
    if request.candidates is not None:
        return request.candidates
    return tuple(Candidate(destination=name) for name in plan.stream.destinations)
