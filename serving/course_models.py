"""A model as the fast path asks it: in C where all its boosters have tables there, through its router where they have not."""

import struct
from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from features.objective import MS_PER_MINUTE
from models import durations
from models.card import HeadName
from models.engine import Engine, Tables
from models.router import Router
from serving.debts import Debts
from serving.plan import StreamPlan
from serving.view import Model, ModelRole

Floats = NDArray[np.float64]

# The head that is no output itself: quantiles and the risk of exceeding a limit follow from it.
_LOGARITHM = "log_latency"
TELLERS = ("destination", "number", "output")  # of what a candidate uses, in the order by which C knows them
_WEIGHED = (
    "success_probability",
    "latency_ms",
    "cost_usd",
    "over_sla",
)  # in the order in which the objective adds them


class CompiledHead(NamedTuple):
    """A head as C computes it, by place.

    Its boosters' tables; by the code of a destination that one's own tables, or None; their share; its offset's column or
    -1; low and high; whether it is calibrated, slope and intercept; its place among the outputs, -1 for the logarithm.
    """

    pooled: tuple[Tables, ...]
    own: tuple[tuple[Tables, ...] | None, ...]
    own_share: float
    offset: int
    low: float
    high: float
    is_scaled: bool
    slope: float
    intercept: float
    output: int


class Arithmetic(NamedTuple):
    """How C gets from boosters to outputs, by name.

    ``destination`` is the column of the destination's code, -1 where none is needed. ``terms`` of the value: (output, weight, units
    of the output in one that is weighed), in the objective's order. ``spread``: (output, how far above the logarithm's head).
    ``limit``: (output or -1, logarithm of the limit), ``residuals`` and ``levels`` float64[n] the distribution around it.
    """

    heads: tuple[CompiledHead, ...]
    destination: int
    terms: tuple[tuple[int, float, float], ...]
    spread: tuple[tuple[int, float], ...]
    limit: tuple[int, float]
    residuals: bytes
    levels: bytes


class PricedTariff(NamedTuple):
    """What C reads of a model's prices, by name.

    ``limits``: (who tells the use, by its place in `TELLERS`; the place of the destination, number or output; price; what it costs
    more once it is owed; the use where none is told; the limit per event; the debt that multiplies the price by e; the
    largest debt). ``debt``, float64[n_limits], is changed where it lies.
    """

    limits: tuple[tuple[int, int, float, float, float, float, float, float], ...]
    temperature: float
    debt: Floats


class Role(NamedTuple):
    """What C reads of a model, by name.

    ``outputs`` are ``value`` and the heads in JSON; ``score`` answers for a matrix, float64[n, n_features], and n all of
    those that it tells, float64[n_told, n]; it is None where ``arithmetic`` says how to compute them. ``codes`` are the values of every
    category in the model's order, ``destination_codes`` each destination's own, float64[n_destinations, n_categories].
    Where there is a ``tariff`` the last of the outputs are the net values.
    """

    name: bytes
    outputs: tuple[bytes, ...]
    score: Callable[[memoryview, int], bytes] | None
    arithmetic: Arithmetic | None
    codes: tuple[tuple[bytes, ...], ...]
    destination_codes: bytes
    tariff: PricedTariff | None


def role_of(name: ModelRole, model: Model, plan: StreamPlan, debts: Debts) -> Role | None:
    """Return the role of a model, None for one that the whole path must ask; what it owes is among ``debts``."""
    router = model.router
    if router.feature_set != plan.features.version or not isinstance(router, Router):
        return None
    codes: list[dict[str | None, float]] = [
        {value: float(code) for code, value in enumerate(order)} for order in router.card.categories.values()
    ]
    arithmetic = arithmetic_of(router) if type(router) is Router else None  # any other scores in a way of its own
    outputs = ("value", *router.card.outputs)
    tariff = _priced(model, outputs, plan, debts)
    return Role(
        name=name.encode(),
        outputs=tuple(map(msgspec.json.encode, (*outputs, "net_value") if tariff else outputs)),
        score=None if arithmetic else _scorer(router),
        arithmetic=arithmetic,
        codes=tuple(tuple(value.encode() for value in order) for order in router.card.categories.values()),
        destination_codes=_destination_codes(plan, codes),
        tariff=tariff,
    )


def _priced(model: Model, outputs: Sequence[str], plan: StreamPlan, debts: Debts) -> PricedTariff | None:
    """Return a model's prices as C reads them, None where it has none.

    Raises
    ------
    ValueError
        If a limit reads what the stream or the router has not.
    """
    tariff = model.tariff
    if tariff is None:
        return None
    places = (plan.stream.destinations, tariff.numbers, outputs)
    limits, prices = tariff.meter.limits, tariff.prices
    told = [(limit.destination, limit.price, limit.head) for limit in limits]
    by = [next(number for number, name in enumerate(names) if name is not None) for names in told]
    at = [places[number].index(names[number] or "") for number, names in zip(by, told, strict=True)]
    numbers = (
        prices.prices,
        prices.extra,
        tariff.most,
        tariff.at_most,
        prices.room(tariff.pace_events),
        prices.bound(tariff.pace_events),
    )
    return PricedTariff(
        limits=tuple(zip(by, at, *(each.tolist() for each in numbers), strict=True)),
        temperature=prices.temperature,
        debt=debts.held(plan.name, model.digest, len(limits)),
    )


def _scorer(router: Router) -> Callable[[memoryview, int], bytes]:
    def score(matrix: memoryview, n: int) -> bytes:
        scores = router.score_matrix(np.frombuffer(matrix).reshape(n, -1).copy())  # nothing keeps what C lends
        return np.concatenate([scores.value, *scores.heads.values()]).tobytes()

    return score


def arithmetic_of(router: Router) -> Arithmetic | None:
    """Return how C computes what a router says, to the same bits; None where a booster has no tables in C, or a limit no logarithm."""
    card = router.card
    objective, limit_ms = card.objective, card.objective.sla_latency_ms
    has_logarithm = _LOGARITHM in card.heads
    compiled = [_compiled_head(router, name) for name in card.heads]
    heads = tuple(head for head in compiled if head is not None)
    if len(heads) < len(compiled) or (objective.sla and limit_ms is not None and not has_logarithm):
        return None
    places = {name: place for place, name in enumerate(card.outputs)}
    weights = (objective.success, -objective.latency_minute, -objective.cost_usd, -objective.sla)
    terms = [
        (places[name], weight, MS_PER_MINUTE if name == "latency_ms" else 1.0)
        for name, weight in zip(_WEIGHED, weights, strict=True)
        if weight and name in places
    ]
    return Arithmetic(
        heads=heads,
        destination=-1 if router.destination is None else router.destination,
        terms=tuple(terms),
        spread=tuple((places[name], above) for name, above in router.spread().items()) if has_logarithm else (),
        limit=(places.get("over_sla", -1), 0.0 if limit_ms is None else float(np.log(limit_ms))),
        residuals=np.array(card.residuals if has_logarithm else ()).tobytes(),
        levels=(durations.LEVELS if has_logarithm else np.array(())).tobytes(),
    )


def _compiled_head(router: Router, name: HeadName) -> CompiledHead | None:
    card, boosters = router.card, router.boosters[name]
    head = card.heads[name]
    shares = router.destination is not None and head.own_share > 0.0
    n_codes = 1 + max(boosters.own, default=-1) if shares else 0
    pooled = _tables(boosters.pooled)
    own = tuple(_tables(boosters.own[code]) if code in boosters.own else None for code in range(n_codes))
    if pooled is None or any(own[code] is None for code in boosters.own if shares):
        return None
    scaling = head.scaling
    return CompiledHead(
        pooled=pooled,
        own=own,
        own_share=head.own_share,
        offset=-1 if head.offset is None else card.numbers.index(head.offset),
        low=head.low,
        high=head.high,
        is_scaled=scaling is not None,
        slope=1.0 if scaling is None else scaling.slope,
        intercept=0.0 if scaling is None else scaling.intercept,
        output=-1 if name == _LOGARITHM else card.outputs.index(name),
    )


def _tables(engines: Sequence[Engine]) -> tuple[Tables, ...] | None:
    """Return the engines' tables, None where one has none in C."""
    found = [engine.compiled for engine in engines]
    return None if None in found else tuple(table for table in found if table is not None)


def _destination_codes(plan: StreamPlan, codes: Sequence[Mapping[str | None, float]]) -> bytes:
    category = plan.features.destination_category
    cells = [
        known.get(category(destination, name), nan) if space == "destination" else nan
        for destination in plan.stream.destinations
        for (space, name), known in zip(plan.features.categories, codes, strict=True)
    ]
    return struct.pack(f"{len(cells)}d", *cells)
