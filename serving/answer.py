"""What a broker is told of a decision: the destinations in the order to try them, and why."""

from datetime import datetime

from msgspec import Struct

from features.records import Arm, Decision, Mode


class Answer(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where the event should go: ``destinations`` in the order to try them, the assigned one first.

    ``repeated`` marks the logged decision of an event that was asked about before; ``logged`` is false for one that the
    disk would not take: a static choice that no evaluation will know of.
    """

    decision_id: str
    stream: str
    destinations: tuple[str, ...]
    reason: str
    propensity: float
    arm: Arm
    mode: Mode
    generation: int
    digest: str | None
    decided_at: datetime
    repeated: bool = False
    logged: bool = True


def of(decision: Decision, static_order: tuple[str, ...], *, repeated: bool = False, logged: bool = True) -> Answer:
    """Return the answer that ``decision`` is; ``static_order`` gives the stream's static routes for the event."""
    digests = {"champion": decision.champion, "challenger": decision.challenger}
    return Answer(
        decision_id=decision.decision_id,
        stream=decision.stream,
        destinations=rank(decision, static_order),
        reason=decision.reason,
        propensity=decision.propensity,
        arm=decision.arm,
        mode=decision.mode,
        generation=decision.generation,
        digest=digests.get(decision.arm),
        decided_at=decision.decided_at,
        repeated=repeated,
        logged=logged,
    )


def rank(decision: Decision, static_order: tuple[str, ...]) -> tuple[str, ...]:
    """Return the eligible destinations in the order to try them.

    The assigned one comes first, then by the probability of having been assigned, by the deciding model's value, and by
    the static routes.
    """
    values = decision.predictions.get(decision.arm, {}).get("value") or (0.0,) * len(decision.destinations)
    last = len(static_order)
    places = dict(zip(reversed(static_order), reversed(range(last)), strict=True))  # of two the first counts
    names, assigned, excluded = decision.destinations, decision.assigned, decision.excluded
    wanted = [
        (name != assigned, -probability, -value, places.get(name, last), index)
        for index, (name, probability, value) in enumerate(zip(names, decision.mixture, values, strict=True))
        if name not in excluded
    ]
    wanted.sort()
    return tuple([names[index] for *_, index in wanted])
