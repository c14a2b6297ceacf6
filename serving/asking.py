"""The part of a client that no transport changes: what to ask, whether to believe the answer, and what to do without one."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec

from features import cloudevents
from features.clock import Clock, SystemClock
from features.cloudevents import CloudEvent, DecisionRequest, TextTypeError, UnknownTypeError
from features.records import Candidate, Decision
from serving import answer, decider, identity
from serving.answer import Answer
from serving.case import FeatureRangeError, NoEligibleDestinationError, Question
from serving.last_table import LastTable
from serving.plan import Plan, StreamPlan

MAX_UNREPORTED = 1_000
_ANSWERS = msgspec.json.Decoder(Answer)


class NoAnswerError(Exception):
    """The shim did not answer as it should; says how."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A question on its way: ``body`` is what to send to ``POST /v1/decisions`` or ``turnout.decide``."""

    plan: StreamPlan
    question: Question
    decision_id: str
    body: bytes


@dataclass(kw_only=True)
class Asker:
    """Asks under ``plan``, which is compiled from the shim's own configuration; for one thread.

    ``unreported`` holds the decisions that were made without the shim, for whoever can to report them; past
    ``MAX_UNREPORTED`` the oldest are forgotten, and counted.
    """

    plan: Plan
    clock: Clock = field(default_factory=SystemClock)
    table: LastTable = field(default_factory=LastTable)
    unreported: deque[Decision] = field(default_factory=deque, repr=False)
    n_forgotten: int = 0

    def prepare(self, cloud_event: CloudEvent, candidates: Sequence[Candidate] | None = None) -> Asked | Answer:
        """Return what to ask, or the refusal of an event that no stream takes. The decision id is the client's own."""
        try:
            event = cloudevents.event_of(cloud_event, self.plan.configuration)
        except (UnknownTypeError, TextTypeError) as error:
            return self._refusal(cloud_event.type, "", f"refused: {error}")
        plan = self.plan.streams[event.stream]
        mark = identity.fingerprint(event.stream, event.source, event.id)
        decision_id = identity.decision_id(self.clock.now(), mark)
        offered = tuple(candidates or (Candidate(destination=name) for name in plan.stream.destinations))
        request = DecisionRequest(event=cloud_event, candidates=offered, decision_id=decision_id)
        question = Question(event=event, candidates=offered)
        return Asked(plan=plan, question=question, decision_id=decision_id, body=msgspec.json.encode(request))

    def read(self, asked: Asked, content: bytes) -> Answer:
        """Return the shim's answer without what the policy forbids: a wrong shim must not lead past it.

        Raises
        ------
        NoAnswerError
            If it is none, or nothing of it is allowed.
        """
        try:
            told = _ANSWERS.decode(content)
        except (msgspec.MsgspecError, RecursionError, ValueError) as error:
            raise NoAnswerError(str(error)) from None
        plan, event, offered = asked.plan, asked.question.event, asked.question.candidates
        allowed = {candidate.destination for candidate in offered} - plan.excluded(event, offered).keys()
        allowed.add(plan.stream.refusal or "")
        destinations = tuple(name for name in told.destinations if name in allowed)
        if not destinations:
            raise NoAnswerError(f"the shim named no destination that the policy allows: {told.destinations}")
        if told.logged:
            self.table.learn(plan.name, plan.static_order(event), destinations[0])
        return msgspec.structs.replace(told, destinations=destinations)

    def fall_back(self, asked: Asked, why: str) -> Answer:
        """Return where the event should go without the shim: by the last table, else by the static routes; never raises."""
        plan, event = asked.plan, asked.question.event
        order = self.table.order(plan.name, plan.static_order(event))
        told = f"the shim did not answer: {why}"
        try:
            decision = decider.decide_statically(
                asked.question,
                plan,
                at=self.clock.now(),
                decision_id=asked.decision_id,
                revision=self.plan.revision,
                reason=f"last table: {told}" if order else told,
                first=order,
            )
        except (NoEligibleDestinationError, FeatureRangeError, ValueError) as error:
            return self._refusal(plan.name, asked.decision_id, f"refused: {error}")
        if len(self.unreported) >= MAX_UNREPORTED:
            self.unreported.popleft()
            self.n_forgotten += 1
        self.unreported.append(decision)
        return answer.of(decision, (*order, *plan.static_order(event)), logged=False)

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
