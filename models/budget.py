"""Budgets per stream: a price on each limited resource, so that the mean over events stays at its limit; numpy only.

The problem is ``max E[v(a)]`` subject to ``E[r_j(a)] <= limit_j`` for each resource j. Its Lagrangian splits by event: with a
price ``l_j >= 0`` on each resource, an event takes the candidate of the largest ``v(a) - sum_j l_j r_j(a)``. Where two
candidates tie, the budget is met only by drawing between them; the draw here is
``p(a) ~ exp((v(a) - sum_j l_j r_j(a)) / temperature)``, which is sure away from ties, mixes the neighbours at them, and
makes the dual smooth, so that coordinate bisection finds its minimum. It gives up at most ``temperature * log(n_candidates)``
of value per event. Misleads when it is fitted on predictions for rows the model was trained on: those are too sure of
themselves. Sources: Everett, "Generalized Lagrange multiplier method", 1963; Nesterov, "Smooth minimization of non-smooth
functions", 2005.

Logs are ragged, as in `models.policy`: the eligible candidates of decision i are rows ``offsets[i]:offsets[i + 1]``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import elementary
from models.policy import UnusableValuesError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Spread = Callable[[Floats, Floats], Floats]  # from net values and the priced distribution to the one that is drawn from

TEMPERATURE_SHARE = 1e-4  # of the largest gap between values: what ties cost is far below what predictions are worth
STEP_SHARE = (
    0.01  # of the price at which the whole gap between values is worth the largest use: where a free resource begins
)
TOLERANCE = 1e-6  # of the limit: how exactly the fit meets it
SETTLED = 1e-4  # of the limit: the same for several resources, whose prices settle together
MAX_SWEEPS = 500  # over the resources; one resource needs one
MAX_DOUBLINGS = 60  # of a price, before its limit is called out of reach
N_HALVINGS = 80  # of a price's interval: down to the last bits of float64
MAX_PACE = 3.0  # the price moves by no more than e^3 either way, however large the debt


class BudgetError(ValueError):
    """A budget that cannot be: names the resource, its limit, and the least that any choice would use."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most ``per_event`` of a resource in the mean over events: 3e-4 USD for "3 USD per 10,000 events", .2 for "20 % to X".

    The use of the second is 1 for candidate X and 0 for the others.
    """

    resource: str
    per_event: float

    def __post_init__(self) -> None:
        """Refuse a limit that is none."""
        if not (np.isfinite(self.per_event) and self.per_event >= 0.0):
            raise BudgetError(f"{self.resource}: a limit is finite and not negative, got {self.per_event} per event")


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What a unit of each limited resource costs, in units of value: float64[n_resources] in the order of ``limits``.

    ``steps`` are the prices at which a resource begins to cost under pacing that was free, or nearly; None: it stays free.
    """

    limits: tuple[Limit, ...]
    prices: Floats
    temperature: float
    steps: Floats | None = None

    def distribution(self, values: Floats, use: Floats) -> Floats:
        """Return the probability of every candidate, float64[..., n_candidates].

        ``values`` float64[..., n_candidates], -inf where a candidate is not eligible; ``use`` float64[n_resources, ...]
        broadcasts to the same shape.
        """
        _check_values(values)
        weights = self.net(values, use) / self.temperature
        weights = elementary.exp(weights - weights.max(axis=-1, keepdims=True))
        normal: Floats = weights / weights.sum(axis=-1, keepdims=True)
        return normal

    def net(self, values: Floats, use: Floats) -> Floats:
        """Return the values less what their use costs, in the shape of ``values``; ``use`` as in `distribution`."""
        return _net(values, use, self.prices)

    def soften(self, net: Floats, offsets: Integers) -> Floats:
        """Return `distribution` of every decision of a log from its `net` values, float64[n_rows]."""
        return _soften(net, offsets, self.temperature)

    def paced(self, debt: Floats, horizon_events: float | Floats) -> "Prices":
        """Return the prices that pay back ``debt``, what was used so far beyond the limits, in units of each resource.

        A debt of ``horizon_events`` events' limits multiplies the price by e, a credit divides it: the mean over many
        events then stays at its limit though contexts drift, which prices fitted once cannot promise. A resource that
        was free begins at its step as soon as it is owed. Source: Balseiro, Lu and Mirrokni, "The best of many worlds:
        dual mirror descent for online allocation problems", 2020.
        """
        if not np.all(np.asarray(horizon_events) > 0.0):
            raise BudgetError(f"horizon_events must be positive, got {horizon_events}")
        owed = np.clip(self._owed(debt, horizon_events), -MAX_PACE, MAX_PACE)
        paced = self.prices * elementary.exp(owed)
        paced += self.extra * elementary.expm1(np.maximum(owed, 0.0))
        return Prices(limits=self.limits, prices=paced, temperature=self.temperature, steps=self.steps)

    def bounded(self, debt: Floats, horizon_events: float | Floats) -> Floats:
        """Return ``debt`` within what moves a price: more of it would only delay the return to the limit."""
        most = self.bound(horizon_events)
        return np.clip(debt, -most, most)

    @property
    def extra(self) -> Floats:
        """What a resource costs more once it is owed, by how much its step lies above its price: float64[n_resources]."""
        return np.zeros(len(self.prices)) if self.steps is None else np.maximum(self.steps - self.prices, 0.0)

    def room(self, horizon_events: float | Floats) -> Floats:
        """Return the debt that multiplies a price by e, float64[n_resources]."""
        return self._allowed() * horizon_events

    def bound(self, horizon_events: float | Floats) -> Floats:
        """Return the largest debt that still moves a price, float64[n_resources]."""
        return MAX_PACE * self._allowed() * horizon_events

    def _allowed(self) -> Floats:
        return np.array([limit.per_event for limit in self.limits])

    def _owed(self, debt: Floats, horizon_events: float | Floats) -> Floats:
        allowed = self.room(horizon_events)
        return np.divide(debt, allowed, out=np.zeros_like(allowed), where=allowed > 0.0)


def fit(values: Floats, use: Floats, limits: Sequence[Limit]) -> Prices:
    """Return the prices that keep the mean use of every resource at or below its limit, and lose least value by it.

    Parameters
    ----------
    values
        float64[n, n_candidates], predicted out of fold; -inf where a candidate is not eligible.
    use
        Expected use, float64[n_resources, n, n_candidates], or anything that broadcasts to it.
    limits
        One per resource.

    Raises
    ------
    BudgetError
        Naming a resource whose limit no choice can meet, alone or beside the others.
    UnusableValuesError
        If a value is NaN or positive infinity, or an event has no eligible candidate.
    """
    _check_values(values)
    _check_numbers(use, limits)
    eligible = np.isfinite(values)
    used = np.broadcast_to(use, (len(limits), *values.shape))
    _check_finite(used, limits)
    return fit_log(values[eligible], used[:, eligible], np.concatenate(([0], np.cumsum(eligible.sum(axis=1)))), limits)


def fit_log(
    values: Floats, use: Floats, offsets: Integers, limits: Sequence[Limit], spread: Spread | None = None
) -> Prices:
    """Return `fit` of a log: ``values`` float64[n_rows] and ``use`` float64[n_resources, n_rows] of the eligible rows alone.

    ``spread`` makes of the net values and the priced distribution the one that is really drawn from, so that what
    exploring uses counts as well. Raises as `fit`.
    """
    _check_numbers(use, limits)
    _check_finite(use, limits)
    if (np.diff(offsets) < 1).any() or not np.isfinite(values).all():
        raise UnusableValuesError("values must be finite, and every decision must have an eligible row")
    for limit, resource in zip(limits, use, strict=True):
        _check_reachable(limit, float(np.minimum.reduceat(resource, offsets[:-1]).mean()))
    gap = float(np.ptp(values)) or 1.0
    log = _Log(values, use, offsets, TEMPERATURE_SHARE * gap, spread or _as_priced)
    prices = np.zeros(len(limits))
    for _ in range(MAX_SWEEPS):
        for number, limit in enumerate(limits):
            prices[number] = _bisect(log, prices, number, limit)
        spent = log.mean_use(prices)
        if all(_is_settled(*each) for each in zip(limits, spent, prices, strict=True)):
            steps = np.array([STEP_SHARE * gap / (float(np.ptp(resource)) or 1.0) for resource in use])
            return Prices(limits=tuple(limits), prices=prices, temperature=log.temperature, steps=steps)
    worst = int(np.argmax([use_ - limit.per_event for use_, limit in zip(spent, limits, strict=True)]))
    raise BudgetError(f"{limits[worst].resource}: the limits do not go together, {spent[worst]:.6g} per event is left")


def mean_use(distribution: Floats, use: Floats) -> Floats:
    """Return the mean use per event of each resource, float64[n_resources], under float64[n, n_candidates]."""
    used: Floats = (distribution * np.broadcast_to(use, (len(use), *distribution.shape))).sum(axis=2).mean(axis=1)
    return used


def mean_use_log(distribution: Floats, use: Floats, n_decisions: int) -> Floats:
    """Return `mean_use` of a log: ``distribution`` float64[n_rows], ``use`` float64[n_resources, n_rows]."""
    return np.array([float((distribution * resource).sum()) / n_decisions for resource in use])


@dataclass(frozen=True)
class _Log:
    """What prices are fitted on."""

    values: Floats
    use: Floats
    offsets: Integers
    temperature: float
    spread: Spread

    def mean_use(self, prices: Floats) -> Floats:
        net = _net(self.values, self.use, prices)
        drawn = self.spread(net, _soften(net, self.offsets, self.temperature))
        return mean_use_log(drawn, self.use, len(self.offsets) - 1)


def _as_priced(_: Floats, priced: Floats) -> Floats:
    return priced


def _net(values: Floats, use: Floats, prices: Floats) -> Floats:
    """Subtract resource by resource: a matrix product rounds otherwise for one event than for a log."""
    for price, resource in zip(prices, use, strict=True):
        values = values - price * resource
    return values


def _soften(net: Floats, offsets: Integers, temperature: float) -> Floats:
    starts, n_eligible = offsets[:-1], np.diff(offsets)
    weights = elementary.exp((net - np.repeat(np.maximum.reduceat(net, starts), n_eligible)) / temperature)
    normal: Floats = weights / np.repeat(np.add.reduceat(weights, starts), n_eligible)
    return normal


def _is_settled(limit: Limit, spent: float, price: float) -> bool:
    """Tell whether a resource is within its limit, and at it if it has a price."""
    slack = SETTLED * max(limit.per_event, TOLERANCE)
    return spent <= limit.per_event + slack and (price == 0.0 or spent >= limit.per_event - slack)


def _bisect(log: _Log, prices: Floats, number: int, limit: Limit) -> float:
    """Return the least price of one resource, the others' given, at which its mean use is within its limit."""

    def spent_at(price: float) -> float:
        tried = prices.copy()
        tried[number] = price
        return float(log.mean_use(tried)[number])

    most = limit.per_event * (1.0 + TOLERANCE / 2) + TOLERANCE**2 / 2
    if spent_at(0.0) <= most:
        return 0.0
    low, high = 0.0, log.temperature / max(float(np.ptp(log.use[number])), np.finfo(np.float64).tiny)
    for _ in range(MAX_DOUBLINGS):
        if (spent := spent_at(high)) <= most:
            break
        low, high = high, 2.0 * high
    else:
        raise BudgetError(
            f"{limit.resource}: at most {limit.per_event} per event cannot be met beside the other limits and what "
            f"exploring uses, the least is {spent:.6g}"
        )
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        if spent >= limit.per_event * (1.0 - TOLERANCE) or not low < middle < high:
            break
        if (tried := spent_at(middle)) <= most:
            high, spent = middle, tried
        else:
            low = middle
    return high


def _check_numbers(use: Floats, limits: Sequence[Limit]) -> None:
    if not len(limits) or len(use) != len(limits):
        raise BudgetError(f"{len(limits)} limits need as many resources, got {len(use)}")


def _check_finite(use: Floats, limits: Sequence[Limit]) -> None:
    for limit, resource in zip(limits, use, strict=True):
        if not np.isfinite(resource).all():
            raise BudgetError(f"use of {limit.resource} must be finite")


def _check_reachable(limit: Limit, least: float) -> None:
    if least > limit.per_event * (1.0 + TOLERANCE):
        raise BudgetError(
            f"{limit.resource}: at most {limit.per_event} per event cannot be met, the least is {least:.6g}"
        )


def _check_values(values: Floats) -> None:
    if np.isnan(values).any() or np.isposinf(values).any() or np.isneginf(values).all(axis=-1).any():
        raise UnusableValuesError("values must be finite, or -inf for some but not all candidates of an event")
