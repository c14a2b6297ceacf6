"""The decision itself, as a pure pipeline: event, candidates, plan, release, override and instant in; a Decision out.

Which destination an event gets is settled in this order: the mask (stream, rules, health) first defines who is eligible;
within it a stop override beats the model and the model beats the static routes. Nothing eligible: the stream's refusal
destination, or an error.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.randomness import uniform
from features.records import Arm, Decision, Override
from models import policy
from models.policy import Distribution
from serving import proposals
from serving.case import Case, Question, frame
from serving.plan import StreamPlan
from serving.proposals import DECIDING_MODES, Proposals
from serving.reading import Fault
from serving.view import StreamView, digest_of

Floats = NDArray[np.float64]
NO_DEBTS: Mapping[str, Floats] = MappingProxyType({})


class Decided(Struct, frozen=True, kw_only=True):
    """A decision, the models that failed on the way to it, and the debt of the one that made it where that has prices.

    ``debt`` is (digest, float64[n_resources]): what the model used beyond its limits so far, this decision included.
    """

    decision: Decision
    faults: tuple[Fault, ...] = ()
    debt: tuple[str, Floats] | None = None


class _Assignment(Struct, frozen=True, kw_only=True):
    """Who was chosen, from which distribution, and why."""

    index: int
    mixture: Distribution
    reason: str
    arm: Arm = "static"
    arm_probability: float = 1.0
    arm_unit: str = ""
    override: Override | None = None
    explored: bool = True


def decide(
    question: Question,
    plan: StreamPlan,
    view: StreamView,
    stop: Override | None,
    *,
    at: datetime,
    decision_id: str,
    revision: str,
    debts: Mapping[str, Floats] = NO_DEBTS,
) -> Decided:
    """Decide where the event goes.

    Parameters
    ----------
    stop
        The stop override in force for the stream at ``at``, if any: the static routes then decide, without exploration.
    decision_id, revision
        The decision's name, and the name of the configuration that ``plan`` was compiled from.
    debts
        By digest, what each model used beyond its limits so far, as earlier decisions gave it.

    Raises
    ------
    NoEligibleDestinationError
        If nothing may serve the event.
    FeatureTypeError, FeatureRangeError
        If an attribute that a number reads is text, or beyond a float64.
    """
    case = frame(question, plan, at, view.classifier)
    if case.refused:
        proposed = Proposals.only(case, case.static())
        assignment = _certain(proposed, "refused: no destination may serve the event")
    elif stop is not None:
        proposed = Proposals.only(case, case.static())
        assignment = _certain(proposed, f"override: stopped by {stop.actor}: {stop.reason}", stop)
    else:
        proposed = proposals.of_models(case, view, debts)
        assignment = _draw(case, view, proposed)
    decision = _record(case, view, proposed, assignment, decision_id=decision_id, revision=revision)
    debt = _settle(view, proposed, assignment, debts)
    faults = (*proposed.faults.values(), *proposed.unread.values())
    return Decided(decision=decision, faults=faults, debt=debt)


def decide_statically(
    question: Question,
    plan: StreamPlan,
    *,
    at: datetime,
    decision_id: str,
    revision: str,
    reason: str,
    first: Sequence[str] = (),
) -> Decision:
    """Return the decision of the static routes alone, for ``reason``: nothing is scored and nothing drawn. Raises as `decide`.

    Those of ``first`` that may serve the event come before the static routes.
    """
    case = frame(question, plan, at)
    proposed = Proposals.only(case, case.static(first))
    assignment = _certain(proposed, f"static: {reason}")
    return _record(case, StreamView(mode="off"), proposed, assignment, decision_id=decision_id, revision=revision)


def _certain(proposed: Proposals, reason: str, override: Override | None = None) -> _Assignment:
    distribution = proposed.distributions["static"]
    index = _likeliest(distribution)
    return _Assignment(index=index, mixture=distribution, reason=reason, override=override, explored=False)


def _draw(case: Case, view: StreamView, proposed: Proposals) -> _Assignment:
    """Draw the arm, then the destination from that arm's distribution; the mixture is what both draws amount to."""
    distributions = proposed.distributions
    arm: Arm = "champion" if view.mode in DECIDING_MODES and view.champion else "static"
    mixture, probability, unit = distributions[arm], 1.0, case.unit()
    if view.mode == "canary" and view.challenger is not None:
        share = view.challenger_share
        mixture = policy.mixture([mixture, distributions["challenger"]], [1.0 - share, share])
        challenged = uniform("arm", view.challenger.digest, case.plan.name, unit) < share
        arm, probability = ("challenger", share) if challenged else (arm, 1.0 - share)
    event = case.event
    draw = uniform("action", str(view.generation), case.plan.name, event.source, event.id)
    index = policy.choose(distributions[arm], draw)
    return _Assignment(
        index=index,
        mixture=mixture,
        reason=_reason(case, arm, view, proposed, index),
        arm=arm,
        arm_probability=probability,
        arm_unit=unit,
    )


def _reason(case: Case, arm: Arm, view: StreamView, proposed: Proposals, index: int) -> str:
    if arm == "static":
        return "static: no champion" if view.mode in DECIDING_MODES else f"static: mode {view.mode}"
    if fault := proposed.faults.get(arm):
        return f"static: fallback: {fault.reason}"
    distribution, limited = proposed.distributions[arm], arm in proposed.uses
    if _likeliest(distribution) != index:
        return f"{arm}: explored, or drawn between equals within the limits" if limited else f"{arm}: explored"
    best = "highest expected value within the limits" if limited else "highest expected value"
    unexplored = case.plan.stream.exploration.is_bounded and sum(map(bool, distribution)) == 1
    return f"{arm}: {best}{', not explored' if unexplored and sum(case.eligible) > 1 else ''}"


def _likeliest(distribution: Distribution) -> int:
    return distribution.index(max(distribution))


def _settle(
    view: StreamView, proposed: Proposals, assignment: _Assignment, debts: Mapping[str, Floats]
) -> tuple[str, Floats] | None:
    """Charge the assigned candidate's use to the model whose arm it was; what the static routes use is nobody's debt."""
    use = proposed.uses.get(assignment.arm)
    model = view.champion if assignment.arm == "champion" else view.challenger
    if use is None or model is None or model.tariff is None:
        return None
    return model.digest, model.tariff.settle(debts.get(model.digest), use[:, assignment.index])


def _explain(assignment: _Assignment, proposed: Proposals) -> str:
    """Return the reason, and where the features had to do without the event's content, why."""
    return "; without content: ".join([assignment.reason, *(fault.reason for fault in proposed.unread.values())])


def _record(
    case: Case, view: StreamView, proposed: Proposals, assignment: _Assignment, *, decision_id: str, revision: str
) -> Decision:
    event = case.event
    return Decision(
        decision_id=decision_id,
        event_id=event.id,
        event_source=event.source,
        event_type=event.type,
        event_time=event.time,
        stream=case.plan.name,
        decided_at=case.at,
        mode=view.mode,
        reason=_explain(assignment, proposed),
        assigned=case.candidates[assignment.index].destination,
        propensity=assignment.mixture[assignment.index],
        destinations=tuple([candidate.destination for candidate in case.candidates]),
        mixture=assignment.mixture,
        policies=proposed.distributions,
        feature_set=case.plan.features.version,
        numbers=case.vectors.logged,
        categories=case.vectors.categories,
        predictions=proposed.predictions,
        excluded=case.excluded,
        arm=assignment.arm,
        arm_probability=assignment.arm_probability,
        arm_unit=assignment.arm_unit,
        generation=view.generation,
        champion=digest_of(view.champion),
        challenger=digest_of(view.challenger),
        shadow=digest_of(view.shadow),
        policy_revision=revision,
        override=assignment.override,
        explored=assignment.explored,
        state_age_ms=case.state_age_ms(),
        content=case.reading.digest,
    )
