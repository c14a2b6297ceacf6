"""Prices a router for the limits of its stream, and says what it would use of them. The pipeline's side; the shim never imports it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.choices import Exploration
from features.decision_log import DecisionLog
from features.limits import LimitDefinition
from models import budget, policy, tariff
from models.budget import BudgetError, Limit
from models.meter import Meter
from models.router import Router, Scores
from models.tariff import PricedLimit, PriceList, Tariff

Floats = NDArray[np.float64]

PRICING_SHARE = 0.3  # of the holdout, its earlier part: prices need no outcomes, and few decisions
MAX_DECISIONS = 50_000  # that prices are fitted on: the mean use of so many is known to about half a per cent


@dataclass(frozen=True, kw_only=True)
class LimitUse:
    """What is allowed of a resource per event, and what the candidate and the champion would use, as served."""

    at_most: float
    candidate: float
    champion: float


def divide(holdout: DecisionLog) -> tuple[DecisionLog, DecisionLog]:
    """Return the part of a holdout that prices are fitted on, and the later part that judges router and prices.

    Raises
    ------
    BudgetError
        If all of it shares one cluster: prices and verdict would rest on the same days or keys.
    """
    try:
        return holdout.split(1.0 - PRICING_SHARE)
    except ValueError as error:
        raise BudgetError(f"limits need a part of the holdout of their own: {error}") from None


def price(router: Router, log: DecisionLog, limits: Sequence[LimitDefinition], exploration: Exploration) -> PriceList:
    """Return the prices that keep ``limits`` on ``log``, what exploring uses included.

    ``log`` must hold decisions that the router was not trained on: of those it was, it is too sure. Its outcomes are not
    read. Of more than `MAX_DECISIONS` an even selection serves.

    Raises
    ------
    BudgetError
        Naming the limit that cannot be met and the least that any choice would use, or the feature that tells no price.
    ContractMismatchError
        If the router does not predict, or does not read, what a limit needs.
    """
    log = _thinned(log)
    card, scores = router.card, router.score_log(log.numbers, log.categories)
    _check_prices(log, limits, card.numbers)
    told = Meter(tuple(limits), card.numbers).log(log.destination, log.numbers, scores.heads)
    most = np.nanmax(told, axis=1)
    use = np.where(np.isnan(told), most[:, np.newaxis], told)
    value_range = card.objective.high - card.objective.low

    def spread(net: Floats, priced: Floats) -> Floats:
        return policy.explore_log(net, log.offsets, exploration, value_range, priced)

    asked = [Limit(resource=limit.name, per_event=limit.at_most) for limit in limits]
    found = budget.fit_log(scores.value, use, log.offsets, asked, spread)
    steps = np.zeros(len(limits)) if found.steps is None else found.steps
    return PriceList(
        limits=tuple(
            PricedLimit(limit=limit, price=float(price_), step=float(step), most=float(highest))
            for limit, price_, step, highest in zip(limits, found.prices, steps, most, strict=True)
        ),
        temperature=found.temperature,
        fitted={
            "n_decisions": log.n_decisions,
            "since": str(log.decided_at.min()),
            "until": str(log.decided_at.max()),
        },
    )


def greedy(log: DecisionLog, scores: Scores, priced: Tariff | None) -> Floats:
    """Return the greedy distribution over the log's rows, float64[n_rows]; where there are prices, at the prices."""
    if priced is None:
        return policy.greedy_log(scores.value, log.offsets)
    use = priced.meter.log(log.destination, log.numbers, scores.heads)
    return priced.prices.soften(priced.prices.net(scores.value, use), log.offsets)


def as_served(
    log: DecisionLog, scores: Scores, priced: Tariff | None, exploration: Exploration, value_range: float
) -> Floats:
    """Return the distribution that the shim would draw from, exploring and with no debt, float64[n_rows]."""
    if priced is None:
        return policy.explore_log(scores.value, log.offsets, exploration, value_range)
    use = priced.meter.log(log.destination, log.numbers, scores.heads)
    return tariff.distribution_log(scores.value, use, log.offsets, priced.prices, exploration, value_range)


def limit_use(
    log: DecisionLog, scores: Scores, priced: Tariff, candidate: Floats, champion: Floats
) -> dict[str, LimitUse]:
    """Return, per limit, what two policies (float64[n_rows]) would use per event, as ``scores`` predict it."""
    use = priced.meter.log(log.destination, log.numbers, scores.heads)
    means = [budget.mean_use_log(of_rows, use, log.n_decisions).tolist() for of_rows in (candidate, champion)]
    return {
        limit.name: LimitUse(at_most=limit.at_most, candidate=means[0][place], champion=means[1][place])
        for place, limit in enumerate(priced.meter.limits)
    }


def _thinned(log: DecisionLog) -> DecisionLog:
    if log.n_decisions <= MAX_DECISIONS:
        return log
    kept = np.zeros(log.n_decisions, np.bool_)
    kept[np.linspace(0, log.n_decisions - 1, MAX_DECISIONS).astype(np.int64)] = True
    return log.take(kept)


def _check_prices(log: DecisionLog, limits: Sequence[LimitDefinition], numbers: tuple[str, ...]) -> None:
    for limit in limits:
        if limit.price is None or limit.price not in numbers:
            continue  # the meter refuses the latter
        told = log.numbers[:, numbers.index(limit.price)]
        if np.isnan(told).all():
            raise BudgetError(f"{limit.name}: the price feature {limit.price!r} never tells a number")
        if np.nanmin(told) < 0.0:
            raise BudgetError(f"{limit.name}: the price feature {limit.price!r} falls to {np.nanmin(told):g}, below 0")
