"""What a stream may use: at most so much of a resource per event, at most a share of its events to one destination."""

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from features.records import Identifier, Probability

_FIELDS = ("resource", "per_event", "price", "destination", "share")
PREDICTED = ("cost_usd", "latency_ms")  # what a router predicts, so that no price need be given


class LimitDefinition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One limit on the mean over events: ``per_event`` of a ``resource``, or a ``share`` of the events to a ``destination``.

    ``price`` names the number feature that says what a candidate would use of the resource (what is missing is taken for
    the most that was seen when the limit was priced); without it the resource is ``cost_usd`` or ``latency_ms``, as the
    router predicts them. ``pace_events``: a debt of as many events' limits multiplies the price by e.
    """

    resource: Identifier | None = None
    per_event: Annotated[float, Meta(ge=0.0)] | None = None
    price: str | None = None
    destination: Identifier | None = None
    share: Probability | None = None
    pace_events: Annotated[int, Meta(ge=1)] = 200

    def __post_init__(self) -> None:
        """Refuse what is neither kind of limit, or both."""
        named = [name for name in _FIELDS if getattr(self, name) is not None]
        if named not in (list(_FIELDS[:2]), list(_FIELDS[:3]), list(_FIELDS[3:])):
            raise ValueError(
                f"a limit has resource and per_event, or destination and share, got {', '.join(named) or 'neither'}"
            )
        if not math.isfinite(self.at_most):
            raise ValueError(f"per_event must be finite, got {self.per_event}")

    @property
    def name(self) -> str:
        """What is limited, in a word or three."""
        return self.resource or f"share of {self.destination}"

    @property
    def at_most(self) -> float:
        """The limit per event, in units of the resource; of a share, the share."""
        return (self.share if self.per_event is None else self.per_event) or 0.0

    @property
    def head(self) -> str | None:
        """The router's head that predicts the use; None where a feature or the destination tells it."""
        return self.resource if self.price is None else None


def check(limits: Sequence[LimitDefinition], *, destinations: Collection[str], numbers: Iterable[str]) -> None:
    """Refuse limits that lead nowhere in a stream of these destinations and number features.

    Raises
    ------
    ValueError
        Naming the limit by its place and field, and the rule that it breaks.
    """
    features, seen = set(numbers), set[str]()
    for place, limit in enumerate(limits):
        if limit.destination is not None and limit.destination not in destinations:
            raise ValueError(f"[{place}].destination: {limit.destination!r} is not a destination of the stream")
        if limit.price is not None and limit.price not in features:
            raise ValueError(f"[{place}].price: {limit.price!r} is not a number feature of the stream")
        if limit.head is not None and limit.head not in PREDICTED:
            raise ValueError(
                f"[{place}].price: {limit.head!r} is not predicted ({', '.join(PREDICTED)} are): name the number feature "
                "that carries it"
            )
        if limit.name in seen:
            raise ValueError(f"[{place}]: {limit.name!r} is limited already")
        seen.add(limit.name)
    shares = {limit.destination: limit.at_most for limit in limits if limit.destination is not None}
    if shares.keys() >= set(destinations) and sum(shares.values()) < 1.0:
        raise ValueError(
            f": the shares of all destinations sum to {sum(shares.values()):g}, every event goes somewhere"
        )
