"""A model as the fast path asks it: in C where its heads are plain, through its router where they are not."""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from features.objective import MS_PER_MINUTE, Objective
from models.engine import Tables
from models.router import Router
from serving.plan import StreamPlan
from serving.view import Model, ModelRole

# A head: its boosters' tables, its offset's column or -1, low, high, what the value gains per unit, units of the head in one.
PlainHead = tuple[tuple[Tables, ...], int, float, float, float, float]
_VALUED = ("success_probability", "latency_ms", "cost_usd")  # in the order in which the objective adds them


class Role(NamedTuple):
    """What C reads of a model, by name.

    ``outputs`` are ``value`` and the heads in JSON; ``score`` answers for a matrix, float64[n, n_features], and n all of
    them, float64[n_outputs, n]; it is None where ``heads`` say how to compute them. ``codes`` are the values of every
    category in the model's order, ``destination_codes`` each destination's own, float64[n_destinations, n_categories].
    """

    name: bytes
    outputs: tuple[bytes, ...]
    score: Callable[[memoryview, int], bytes] | None
    heads: tuple[PlainHead, ...]
    codes: tuple[tuple[bytes, ...], ...]
    destination_codes: bytes


def role_of(name: ModelRole, model: Model, plan: StreamPlan) -> Role | None:
    """Return the role of a model, None for one that the whole path must ask."""
    router = model.router
    if model.tariff is not None or router.feature_set != plan.features.version or not isinstance(router, Router):
        return None
    codes: list[dict[str | None, float]] = [
        {value: float(code) for code, value in enumerate(order)} for order in router.card.categories.values()
    ]
    heads = plain_heads(router)
    return Role(
        name=name.encode(),
        outputs=tuple(map(msgspec.json.encode, ("value", *router.card.outputs))),
        score=None if heads else _scorer(router),
        heads=heads,
        codes=tuple(tuple(value.encode() for value in order) for order in router.card.categories.values()),
        destination_codes=_destination_codes(plan, codes),
    )


def _scorer(router: Router) -> Callable[[memoryview, int], bytes]:
    def score(matrix: memoryview, n: int) -> bytes:
        scores = router.score_matrix(np.frombuffer(matrix).reshape(n, -1).copy())  # nothing keeps what C lends
        return np.concatenate([scores.value, *scores.heads.values()]).tobytes()

    return score


def plain_heads(router: Router) -> tuple[PlainHead, ...]:
    """Return a router's heads where C can do all their arithmetic to the same bits; none where one is calibrated or shared."""
    card = router.card
    heads = card.heads
    valued = [str(name) for name in heads]
    is_plain = (
        "log_latency" not in heads
        and not (card.objective.sla and card.objective.sla_latency_ms is not None)
        and valued == [name for name in _VALUED if name in valued]
        and all(head.scaling is None and not head.own for head in heads.values())
    )
    if not is_plain:
        return ()
    plain = []
    for name, head in heads.items():
        tables = [engine.compiled for engine in router.boosters[name].pooled]
        if None in tables:
            return ()
        offset = -1 if head.offset is None else card.numbers.index(head.offset)
        weight, per = _weight(card.objective, str(name))
        plain.append((tuple(form for form in tables if form), offset, head.low, head.high, weight, per))
    return tuple(plain)


def _weight(objective: Objective, head: str) -> tuple[float, float]:
    """Return what the value gains per unit of a head, and how many of its units make one that is weighed."""
    if head == "success_probability":
        return objective.success, 1.0
    return (-objective.latency_minute, MS_PER_MINUTE) if head == "latency_ms" else (-objective.cost_usd, 1.0)


def _destination_codes(plan: StreamPlan, codes: Sequence[Mapping[str | None, float]]) -> bytes:
    category = plan.features.destination_category
    cells = [
        known.get(category(destination, name), math.nan) if space == "destination" else math.nan
        for destination in plan.stream.destinations
        for (space, name), known in zip(plan.features.categories, codes, strict=True)
    ]
    return struct.pack(f"{len(cells)}d", *cells)
