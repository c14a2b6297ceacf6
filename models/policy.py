"""From predicted values to a choice: eligible mask, values, distribution, draw; one arithmetic for shim and evaluation.

Every function comes in two forms that agree: for one decision (``values`` and ``eligible`` over its candidates, in plain
floats: for so few, numpy's calls would take longer than their work), and for a log (arrays; ``values`` of the eligible
rows alone, decision i at rows ``offsets[i]:offsets[i + 1]``). Ties go to the candidate
that comes first, unless a budget draws between them: ``values`` are then net of prices, and ``greedy`` is the distribution
that `models.budget` makes of them.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, chain

import numpy as np
from numpy.typing import NDArray

from features.choices import Exploration

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Distribution = tuple[float, ...]

_SUM_TOLERANCE = 1e-9  # what is passed in may have travelled as JSON; what is returned sums to 1 within 1e-12


class PolicyError(ValueError):
    """A choice that cannot be made; the caller falls back to the static order."""


class UnusableValuesError(PolicyError):
    """A predicted value is NaN or infinite: the model cannot be trusted on this decision."""


class NothingEligibleError(PolicyError):
    """No candidate is eligible."""


def greedy(values: Sequence[float], eligible: Sequence[bool]) -> Distribution:
    """Return the distribution, one probability per candidate, that is sure of the best eligible candidate.

    Raises
    ------
    UnusableValuesError
        If the value of an eligible candidate is NaN or infinite; so do all functions of values here.
    NothingEligibleError
        If nothing is eligible; so do all functions of a mask here.
    """
    return _certain(_best(values, eligible), len(values))


def epsilon_floor(values: Sequence[float], eligible: Sequence[bool], epsilon: float) -> Distribution:
    """Return the greedy distribution over a floor of ``epsilon / n_eligible``."""
    return floor(greedy(values, eligible), eligible, epsilon)


def squarecb(values: Sequence[float], eligible: Sequence[bool], gamma: float, value_range: float) -> Distribution:
    """Return the distribution of SquareCB: the nearer a value is to the best, the more often its candidate is tried.

    ``p(a) = 1 / (k + gamma * (v(best) - v(a)) / value_range)`` for each of the k eligible but the best, which takes the
    rest. ``value_range`` (high - low of the reward) makes gamma free of units. Misleads when predictions are wrong by
    more than their gaps: it explores by what the model believes. Source: Foster and Rakhlin, "Beyond UCB: optimal and
    efficient contextual bandits with regression oracles", 2020.
    """
    _check_squarecb(gamma, value_range)
    best, n_eligible = _best(values, eligible), _count(eligible)
    highest = values[best]
    spread = [
        1.0 / (n_eligible + gamma * ((highest - value) / value_range)) if may else 0.0
        for value, may in zip(values, eligible, strict=True)
    ]
    spread[best] = 0.0
    spread[best] = 1.0 - float(np.sum(spread))  # added in pairs, as a log's
    return tuple(spread)


def static(order: Iterable[int], eligible: Sequence[bool]) -> Distribution:
    """Return the distribution that is sure of the first eligible index in ``order``; indices it leaves out come last."""
    for index in chain(order, range(len(eligible))):
        if eligible[index]:
            return _certain(index, len(eligible))
    raise NothingEligibleError(f"none of {len(eligible)} candidates is eligible")


def floor(distribution: Sequence[float], eligible: Sequence[bool], epsilon: float) -> Distribution:
    """Return ``(1 - epsilon) * distribution + epsilon / n_eligible`` over the eligible."""
    _check_share("epsilon", epsilon)
    kept, least = 1.0 - epsilon, epsilon / _count(eligible)
    return tuple([kept * share + (least if may else 0.0) for share, may in zip(distribution, eligible, strict=True)])


def explore(
    values: Sequence[float],
    eligible: Sequence[bool],
    exploration: Exploration,
    value_range: float,
    greedy: Sequence[float] | None = None,
) -> Distribution:
    """Return the distribution a stream's ``exploration`` asks for; every eligible candidate has the floor's probability.

    ``none`` has no floor: its log supports no claim about other choices; nor does a decision that its exploration budget
    leaves at ``greedy`` (see `afford_log`).
    """
    if greedy is not None or exploration.is_bounded:
        offsets, rows = np.array([0, _count(eligible)]), np.array(eligible, np.bool_)
        kept = None if greedy is None else np.array(greedy)[rows]
        spread = np.zeros(len(values))
        spread[rows] = explore_log(np.array(values)[rows], offsets, exploration, value_range, kept)
        return tuple(spread.tolist())
    if exploration.kind == "none":
        return _certain(_best(values, eligible), len(values))
    if exploration.kind == "epsilon":
        return epsilon_floor(values, eligible, exploration.epsilon)
    return floor(squarecb(values, eligible, exploration.gamma, value_range), eligible, exploration.epsilon)


def mixture(distributions: Sequence[Sequence[float]], shares: Sequence[float]) -> Distribution:
    """Return the distribution of drawing a policy by ``shares`` and then a candidate by that policy's own.

    Raises
    ------
    PolicyError
        If a share lies outside [0, 1] or the shares do not sum to 1.
    """
    for share in shares:
        _check_share("share", share)
    if abs(sum(shares) - 1.0) > _SUM_TOLERANCE:
        raise PolicyError(f"shares must sum to 1, got {list(shares)}")
    mixed = [0.0] * len(distributions[0])
    for distribution, share in zip(distributions, shares, strict=True):
        mixed = [so_far + share * each for so_far, each in zip(mixed, distribution, strict=True)]
    return tuple(mixed)


def choose(distribution: Sequence[float], u: float) -> int:
    """Return the index that the uniform draw ``u`` in [0, 1) selects, by inverting the cumulative distribution.

    A candidate of probability 0 is never selected, whatever the rounding of the sum.

    Raises
    ------
    PolicyError
        If ``u`` lies outside [0, 1), or ``distribution`` has a negative or NaN entry or does not sum to 1.
    """
    if not 0.0 <= u < 1.0:
        raise PolicyError(f"a draw lies in [0, 1), got {u}")
    cumulative = list(accumulate(distribution))
    if not (abs(cumulative[-1] - 1.0) <= _SUM_TOLERANCE and min(distribution) >= 0.0):
        raise PolicyError(f"a distribution is nonnegative and sums to 1, got {list(distribution)}")
    index = bisect_right(cumulative, u)  # the first whose cumulative probability exceeds u
    return index if index < len(cumulative) else max(i for i, share in enumerate(distribution) if share)


def greedy_log(values: Floats, offsets: Integers) -> Floats:
    """Return `greedy` of every decision of a log, float64[n_rows]."""
    certain: Floats = np.zeros(len(values))
    certain[_best_rows(values, offsets)] = 1.0
    return certain


def epsilon_floor_log(values: Floats, offsets: Integers, epsilon: float) -> Floats:
    """Return `epsilon_floor` of every decision of a log, float64[n_rows]."""
    return floor_log(greedy_log(values, offsets), offsets, epsilon)


def squarecb_log(
    values: Floats, offsets: Integers, gamma: float, value_range: float, greedy: Floats | None = None
) -> Floats:
    """Return `squarecb` of every decision of a log, float64[n_rows]; the rest goes as ``greedy`` says, else to the best."""
    _check_squarecb(gamma, value_range)
    best, n_eligible = _best_rows(values, offsets), np.diff(offsets)
    gaps = (np.repeat(values[best], n_eligible) - values) / value_range
    spread: Floats = 1.0 / (np.repeat(n_eligible, n_eligible) + gamma * gaps)
    if greedy is None:
        spread[best] = 0.0
        spread[best] = 1.0 - np.add.reduceat(spread, offsets[:-1])
        return spread
    rest = np.maximum(1.0 - np.add.reduceat(spread, offsets[:-1]), 0.0)
    return spread + np.repeat(rest, n_eligible) * greedy


def floor_log(distribution: Floats, offsets: Integers, epsilon: float) -> Floats:
    """Return `floor` of every decision of a log, float64[n_rows]."""
    _check_share("epsilon", epsilon)
    n_eligible = np.diff(offsets)
    return (1.0 - epsilon) * distribution + np.repeat(epsilon / n_eligible, n_eligible)


def explore_log(
    values: Floats, offsets: Integers, exploration: Exploration, value_range: float, greedy: Floats | None = None
) -> Floats:
    """Return `explore` of every decision of a log, float64[n_rows]."""
    allowance = exploration.allowance(value_range)
    if exploration.kind == "none" or allowance == 0.0:
        return greedy_log(values, offsets) if greedy is None else greedy
    best = greedy_log(values, offsets) if greedy is None else greedy
    exploring = best
    if exploration.kind == "squarecb":
        exploring = squarecb_log(values, offsets, exploration.gamma, value_range, greedy)
    exploring = floor_log(exploring, offsets, exploration.epsilon)
    if not exploration.is_bounded:
        return exploring
    return afford_log(best, exploring, values, offsets, allowance, exploration.min_propensity)


def afford_log(
    greedy: Floats,
    exploring: Floats,
    values: Floats,
    offsets: Integers,
    allowance: float | None,
    min_propensity: float,
) -> Floats:
    """Return, per decision of a log, as much of ``exploring`` as costs at most ``allowance`` of expected value, float64[n_rows].

    With g = ``greedy``, e = ``exploring``, m = ``min_propensity`` and k eligible, the distribution is
    ``(1 - k m) ((1 - w) g + w e) + m`` with the largest w in [0, 1] of an expected loss against g within the allowance
    (None: w = 1), by the model's own values, that is as right as they are. Where m alone costs more, it is g: not explored.

    Raises
    ------
    PolicyError
        If ``min_propensity`` is more than an even share of a decision's eligible.
    """
    n_eligible, starts = np.diff(offsets), offsets[:-1]
    left = 1.0 - n_eligible * min_propensity
    if len(left) and left.min() < -_SUM_TOLERANCE:
        raise PolicyError(f"min_propensity {min_propensity:g} cannot be kept by {int(n_eligible.max())} candidates")
    left = np.maximum(left, 0.0)
    if allowance is None:
        share, is_affordable = np.ones(len(left)), np.ones(len(left), np.bool_)
    else:
        worth = np.add.reduceat(greedy * values, starts)
        gaps = np.repeat(worth, n_eligible) - values
        remains = allowance - min_propensity * np.add.reduceat(gaps, starts)
        loss = left * np.add.reduceat(exploring * gaps, starts)
        is_affordable = remains >= 0.0
        share = np.divide(remains, loss, out=np.ones_like(loss), where=is_affordable & (loss > remains))
    w, kept = np.repeat(share, n_eligible), np.repeat(left, n_eligible)
    mixed = kept * ((1.0 - w) * greedy + w * exploring) + min_propensity
    return np.where(np.repeat(is_affordable, n_eligible), mixed, greedy)


def _certain(index: int, n_candidates: int) -> Distribution:
    return (0.0,) * index + (1.0,) + (0.0,) * (n_candidates - index - 1)


def check(values: Sequence[float], eligible: Sequence[bool]) -> None:
    """Raise `NothingEligibleError` or `UnusableValuesError` where no choice can be made."""
    _best(values, eligible)


def _best(values: Sequence[float], eligible: Sequence[bool]) -> int:
    best, highest = -1, -math.inf
    for index, (value, may) in enumerate(zip(values, eligible, strict=True)):
        if may:
            if not math.isfinite(value):
                raise UnusableValuesError(f"values of eligible candidates must be finite, got {value}")
            if value > highest:
                best, highest = index, value
    if best < 0:
        raise NothingEligibleError(f"none of {len(eligible)} candidates is eligible")
    return best


def _best_rows(values: Floats, offsets: Integers) -> Integers:
    """Return the row of each decision's best candidate, int64[n]."""
    if (np.diff(offsets) <= 0).any():
        raise NothingEligibleError(f"decision {int(np.argmax(np.diff(offsets) <= 0))} has no eligible row")
    _check_values(values)
    if not len(values):
        return np.zeros(0, np.int64)
    starts = offsets[:-1]
    is_best = values == np.repeat(np.maximum.reduceat(values, starts), np.diff(offsets))
    return np.minimum.reduceat(np.where(is_best, np.arange(len(values)), len(values)), starts)


def _count(eligible: Sequence[bool]) -> int:
    n_eligible = sum(eligible)
    if not n_eligible:
        raise NothingEligibleError(f"none of {len(eligible)} candidates is eligible")
    return n_eligible


def _check_values(values: Floats) -> None:
    if not np.isfinite(values).all():
        raise UnusableValuesError(
            f"values of eligible candidates must be finite, got {values[~np.isfinite(values)][0]}"
        )


def _check_share(name: str, share: float) -> None:
    if not 0.0 <= share <= 1.0:
        raise PolicyError(f"{name} must lie in [0, 1], got {share}")


def _check_squarecb(gamma: float, value_range: float) -> None:
    if not (gamma > 0.0 and value_range > 0.0):
        raise PolicyError(f"gamma and value_range must be positive, got gamma={gamma}, value_range={value_range}")
