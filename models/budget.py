"""Budgets per stream: a price on each limited resource, so that the mean over events stays at its limit; numpy only.

The problem is ``max E[v(a)]`` subject to ``E[r_j(a)] <= limit_j`` for each resource j. Its Lagrangian splits by event: with a
price ``l_j >= 0`` on each resource, an event takes the candidate of the largest ``v(a) - sum_j l_j r_j(a)``. Where two
candidates tie, the budget is met only by drawing between them; the draw here is
``p(a) ~ exp((v(a) - sum_j l_j r_j(a)) / temperature)``, which is sure away from ties, mixes the neighbours at them, and
makes the dual smooth, so that coordinate bisection finds its minimum. It gives up at most ``temperature * log(n_candidates)``
of value per event. Misleads when it is fitted on predictions for rows the model was trained on: those are too sure of
themselves. Sources: Everett, "Generalized Lagrange multiplier method", 1963; Nesterov, "Smooth minimization of non-smooth
functions", 2005.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.policy import UnusableValuesError

Floats = NDArray[np.float64]

TEMPERATURE_SHARE = 1e-4  # of the largest gap between values: what ties cost is far below what predictions are worth
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
    """What a unit of each limited resource costs, in units of value: float64[n_resources] in the order of ``limits``."""

    limits: tuple[Limit, ...]
    prices: Floats
    temperature: float

    def distribution(self, values: Floats, use: Floats) -> Floats:
        """Return the probability of every candidate, float64[..., n_candidates].

        ``values`` float64[..., n_candidates], -inf where a candidate is not eligible; ``use`` float64[n_resources, ...]
        broadcasts to the same shape.
        """
        _check_values(values)
        return _soften(values - np.tensordot(self.prices, use, axes=1), self.temperature)

    def paced(self, debt: Floats, horizon_events: float) -> "Prices":
        """Return the prices that pay back ``debt``, what was used so far beyond the limits, in units of each resource.

        A debt of ``horizon_events`` events' limits multiplies the price by e, a credit divides it: the mean over many
        events then stays at its limit though contexts drift, which prices fitted once cannot promise. A resource that
        was free remains free. Source: Balseiro, Lu and Mirrokni, "The best of many worlds: dual mirror descent for
        online allocation problems", 2020.
        """
        if not horizon_events > 0.0:
            raise BudgetError(f"horizon_events must be positive, got {horizon_events}")
        allowed = np.array([limit.per_event for limit in self.limits]) * horizon_events
        owed = np.divide(debt, allowed, out=np.zeros_like(allowed), where=allowed > 0.0)
        paced = self.prices * np.exp(np.clip(owed, -MAX_PACE, MAX_PACE))
        return Prices(limits=self.limits, prices=paced, temperature=self.temperature)


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
    if not len(limits) or len(use) != len(limits):
        raise BudgetError(f"{len(limits)} limits need as many resources, got {len(use)}")
    used = np.broadcast_to(use, (len(limits), *values.shape))
    if not np.isfinite(used).all():
        raise BudgetError(f"use of {limits[int(np.argwhere(~np.isfinite(used))[0][0])].resource} must be finite")
    for limit, resource in zip(limits, used, strict=True):
        _check_reachable(limit, np.where(np.isneginf(values), np.inf, resource).min(axis=1).mean())
    finite = values[np.isfinite(values)]
    temperature = TEMPERATURE_SHARE * (float(np.ptp(finite)) or 1.0)
    prices = np.zeros(len(limits))
    for _ in range(MAX_SWEEPS):
        for number, limit in enumerate(limits):
            prices[number] = _bisect(values, used, prices, number, limit, temperature)
        spent = mean_use(_soften(values - np.tensordot(prices, used, axes=1), temperature), used)
        if all(_is_settled(*each) for each in zip(limits, spent, prices, strict=True)):
            return Prices(limits=tuple(limits), prices=prices, temperature=temperature)
    worst = int(np.argmax([use_ - limit.per_event for use_, limit in zip(spent, limits, strict=True)]))
    raise BudgetError(f"{limits[worst].resource}: the limits do not go together, {spent[worst]:.6g} per event is left")


def _is_settled(limit: Limit, spent: float, price: float) -> bool:
    """Tell whether a resource is within its limit, and at it if it has a price."""
    slack = SETTLED * max(limit.per_event, TOLERANCE)
    return spent <= limit.per_event + slack and (price == 0.0 or spent >= limit.per_event - slack)


def mean_use(distribution: Floats, use: Floats) -> Floats:
    """Return the mean use per event of each resource, float64[n_resources], under float64[n, n_candidates]."""
    used: Floats = (distribution * np.broadcast_to(use, (len(use), *distribution.shape))).sum(axis=2).mean(axis=1)
    return used


def _bisect(values: Floats, used: Floats, prices: Floats, number: int, limit: Limit, temperature: float) -> float:
    """Return the least price of one resource, the others' given, at which its mean use is within its limit."""
    others = prices.copy()
    others[number] = 0.0
    net, resource = values - np.tensordot(others, used, axes=1), used[number]

    def is_within(price: float) -> bool:
        spent = (_soften(net - price * resource, temperature) * resource).sum(axis=1).mean()
        return bool(spent <= limit.per_event * (1.0 + TOLERANCE / 2) + TOLERANCE**2 / 2)

    if is_within(0.0):
        return 0.0
    low, high = 0.0, temperature / max(float(np.ptp(resource)), np.finfo(np.float64).tiny)
    for _ in range(MAX_DOUBLINGS):
        if is_within(high):
            break
        low, high = high, 2.0 * high
    else:
        raise BudgetError(
            f"{limit.resource}: no price brings it to {limit.per_event} per event beside the other limits"
        )
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        if not low < middle < high:
            break
        low, high = (low, middle) if is_within(middle) else (middle, high)
    return high


def _check_reachable(limit: Limit, least: float) -> None:
    if least > limit.per_event * (1.0 + TOLERANCE):
        raise BudgetError(
            f"{limit.resource}: at most {limit.per_event} per event cannot be met, the least is {least:.6g}"
        )


def _check_values(values: Floats) -> None:
    if np.isnan(values).any() or np.isposinf(values).any() or np.isneginf(values).all(axis=-1).any():
        raise UnusableValuesError("values must be finite, or -inf for some but not all candidates of an event")


def _soften(net: Floats, temperature: float) -> Floats:
    weights = np.exp((net - net.max(axis=-1, keepdims=True)) / temperature)
    normal: Floats = weights / weights.sum(axis=-1, keepdims=True)
    return normal
