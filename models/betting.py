"""Tests that may be looked at at any time: wealth from betting on a bounded mean, its confidence limits, and a sample-ratio test.

Method
------
A sceptic doubts that the mean is at most ``m``. Before each observation it stakes a fraction of its wealth on "more than
m" so that even the worst observation cannot bankrupt it. If the mean is at most m the wealth is a nonnegative
supermartingale, so that it *ever* reaches ``1 / alpha`` with probability at most alpha (Ville, 1939), however often and
whenever one looks. The lower confidence limit is the smallest m that was never so refuted.

    K(t; m) = mean over f of  prod over i <= t of  1 + f * (S_i - m * n_i) / ((m - low_i) * c)

S_i is the sum of unit i over its ``n_i <= c`` decisions, each at least ``low_i``; f runs over `FRACTIONS` of the largest
safe bet, or over others: limits stop closing in once the best bet is far below the least fraction. K falls as m rises, so limits are found by bisection. Each side needs its own bound only: what is unbounded
above can still be shown to be *large*.

When it misleads: the claim is about the mean *given the past*; where that drifts, refuting "never above m" does not say
that it is above m now. A bound that depends on the unit's own context, or is set after seeing it, voids the guarantee.

Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B, 2023 (mixtures over
a grid of bets: their section 4.4; a plug-in bet, tried beside it, was faster in the median and lost in the tail).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

# The best fraction is about lift / variance, both per disagreement and in reward ranges, whatever the share and the
# rate of disagreement: from .95 (a sure thing) to 1/32 (a lift of .01 at a success rate of .5 or so).
FRACTIONS = np.array([1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 0.95])
# Odds of the challenger's arm against its share: from a loss of a twentieth of its decisions to a loss of half.
_ODDS = np.exp([-0.8, -0.4, -0.2, -0.1, -0.05, 0.05, 0.1, 0.2, 0.4, 0.8])
_BISECTIONS = 24  # a limit is exact to 2**-24 of the bounded interval
_ROUNDING = 1e-9  # relative; sums of floats may pass a bound by their last bits
_MAX_LOG_E = 700.0  # exp of more is no float


@dataclass(frozen=True, kw_only=True)
class Units:
    """n units of randomisation in order, each the sum of what its decisions showed.

    Attributes
    ----------
    total, size : float64[n]
        Sum over the unit's decisions, and how many there were: at least 1, at most ``max_size``.
    low, high : float64[n]
        Bounds of a single decision's value, known before the unit was drawn.

    Raises
    ------
    ValueError
        If a total is not finite or passes its bounds, or a size its limit.
    """

    total: Floats
    size: Floats
    low: Floats
    high: Floats
    max_size: int = 1

    def __post_init__(self) -> None:
        """Refuse what would void the guarantee."""
        columns = {"total": self.total, "size": self.size, "low": self.low, "high": self.high}
        for name, column in columns.items():
            if column.shape != self.total.shape:
                raise ValueError(f"{name} must have shape {self.total.shape}, got {column.shape}")
            if not np.isfinite(column).all():
                unit = int(np.argmin(np.isfinite(column)))
                raise ValueError(f"{name} must be finite, got {column[unit]} at unit {unit}")
        if self.total.size and not (self.size.min() >= 1 and self.size.max() <= self.max_size):
            raise ValueError(f"sizes must lie in [1, {self.max_size}], got {self.size.min():g} to {self.size.max():g}")
        slack = _ROUNDING * (self.high - self.low) * self.size
        outside = (self.total < self.low * self.size - slack) | (self.total > self.high * self.size + slack)
        if outside.any():
            unit = int(np.argmax(outside))
            raise ValueError(
                f"unit {unit} shows {self.total[unit]:g} over {self.size[unit]:g} decisions, "
                f"outside its bounds [{self.low[unit]:g}, {self.high[unit]:g}] per decision"
            )

    def first(self, n_units: int) -> "Units":
        """Return the first of the units."""
        columns = (column[:n_units] for column in (self.total, self.size, self.low, self.high))
        return Units(**dict(zip(("total", "size", "low", "high"), columns, strict=True)), max_size=self.max_size)

    def mirrored(self) -> "Units":
        """Return the units with every sign turned: what is small becomes large."""
        return Units(total=-self.total, size=self.size, low=-self.high, high=-self.low, max_size=self.max_size)


def log_wealth(units: Units, mean: float, fractions: Floats = FRACTIONS) -> Floats:
    """Return the log of the wealth against "the mean per decision is at most ``mean``" after each unit, float64[n].

    It is refuted at level alpha, for good, once this reaches ``log(1 / alpha)``; the mirrored units and mean give the
    test of "at least". Prefixes of the units give prefixes of the result.

    Raises
    ------
    ValueError
        If ``mean`` is not above every lower bound: there is nothing to bet against.
    """
    return _mix(_log_wealths(units, mean, fractions))


def lower_limit(units: Units, alpha: float, fractions: Floats = FRACTIONS) -> float:
    """Return the lower confidence limit of the mean per decision: it holds at all times at once with probability 1 - alpha.

    Without units, minus infinity.
    """
    if not len(units.total):
        return -math.inf
    low, high = float(units.low.max()), float(units.high.min())
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        if log_wealth(units, middle, fractions).max() >= -math.log(alpha):
            low = middle
        else:
            high = middle
    return low


def upper_limit(units: Units, alpha: float, fractions: Floats = FRACTIONS) -> float:
    """Return the upper confidence limit of the mean per decision; with `lower_limit` it covers with 1 - 2 * alpha."""
    return -lower_limit(units.mirrored(), alpha, fractions)


def first_crossing(log_wealths: Floats, alpha: float) -> int | None:
    """Return the index of the first unit at which the wealth reached ``1 / alpha``, or None."""
    crossed = log_wealths >= -math.log(alpha)
    return int(crossed.argmax()) if crossed.any() else None


def e_value(log_wealths: Floats) -> float:
    """Return the largest wealth so far (1 without units): under the doubted hypothesis it passes x with probability 1/x at most."""
    return math.exp(min(float(log_wealths.max(initial=0.0)), _MAX_LOG_E))


def n_units_to_come(units: Units, mean: float, alpha: float) -> int | None:
    """Return about how many more units will refute "at most ``mean``" if the best bet goes on as it went; None if it does not grow."""
    if not len(units.total):
        return None
    best = float(_log_wealths(units, mean, FRACTIONS)[:, -1].max())
    if best <= 0.0:
        return None
    missing = -math.log(alpha) + math.log(len(FRACTIONS)) - best
    return max(1, math.ceil(missing / best * len(units.total)))


def sample_ratio_log_wealth(is_challenger: Mask, share: Floats) -> Floats:
    """Return the log of the wealth against "each unit falls to the challenger with its ``share``", float64[n].

    A mixture of likelihood ratios over tilted odds: ``K(t) = mean over h of prod h**[challenger] / (1 - s + h * s)``.
    Shares may change from unit to unit, as long as they were fixed before it. Refuted means that decisions of one arm
    get lost or doubled, and that no comparison of the arms can be trusted. Source: Lindon and Malek, "Anytime-valid
    inference for multinomial count data", NeurIPS 2022 (there with a Dirichlet mixture and a fixed share).
    """
    odds = _ODDS[:, None]
    gains = np.where(is_challenger, np.log(odds), 0.0) - np.log1p(share * (odds - 1.0))
    return _mix(np.cumsum(gains, axis=1))


def _log_wealths(units: Units, mean: float, fractions: Floats) -> Floats:
    """Return the log wealth of every fraction after every unit, float64[n_fractions, n]."""
    if len(units.low) and mean <= units.low.max():
        raise ValueError(f"the mean to doubt must be above every lower bound, got {mean} and {units.low.max()}")
    payoffs = (units.total - mean * units.size) / ((mean - units.low) * units.max_size)
    return np.cumsum(np.log1p(np.outer(fractions, payoffs)), axis=1)


def _mix(log_wealths: Floats) -> Floats:
    """Return the log of the mean over the rows, float64[n]."""
    mixed: Floats = np.logaddexp.reduce(log_wealths, axis=0) - math.log(len(log_wealths))
    return mixed
