"""Limits of an off-policy value that hold at every look at once: for a log that is judged while it grows.

An interval of `models.evaluation` is right for one look at a size fixed beforehand; looked at again and again until it
pleases, it errs far more often than it says. These limits err at all, at any of all looks, with probability
``1 - confidence`` at most, at every sample size. L and U are the limits of `models.betting`, at ``(1 - confidence) / 2``
each; w_i, q and the increments are those of `models.evaluation`, l and h the declared bounds of the reward, p the
declared floor of the propensities, R = h - l:

    IPS             l + L(w (r - l))  to  h - L(w (h - r))      w (r - l) and w (h - r) are nonnegative: no ceiling is needed
    DR              L(x) to U(x),  x = sum over a of pi(a) q(a) + w (r - q(A))        within l - R (1/p - 1) and l + R/p
    DR difference   L(x) to U(x),  x the increments                                   within -R/p and R/p

Both of IPS's limits stay true where the target puts mass that the log never shows: such mass counts as worth l below and
h above. Units that share fate count as their sum, as in the canary. Later decisions only ever tighten the limits.

When they mislead: bounds that were set after seeing the log, a target or a q that saw any of it (a cross-fitted q has
seen the later decisions), and a log that is not in order of time void the guarantee; a wrong propensity shifts the value
itself. DR's limits need each choice that the policies take to be logged with at least p. The claim is about the mean
given the past, as in `models.betting`. They are wider than a fixed-sample interval, about 1.6 times for DR at 10,000
decisions, and say next to nothing where units are large and few (days of hundreds of decisions, say).

Source: Waudby-Smith, Wu, Ramdas, Karampatziakis and Mineiro, "Anytime-valid off-policy inference for contextual bandits",
ACM/IMS Journal of Data Science, 2024; the mirrored upper limit is Karampatziakis, Mineiro and Ramdas, "Off-policy
confidence sequences", ICML 2021. Bets are a mixture over a grid, as for the canary, instead of their predictable ones.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models import betting, evaluation
from models.betting import Units
from models.evaluation import Refusal
from models.logged import LoggedDecisions, check, check_distribution

Floats = NDArray[np.float64]

# Weighted rewards spread much wider than a canary's increments: with its least fraction, 1/32, IPS's limits stop closing
# in at a few thousand decisions. Each halving costs log(1 + 1/12) of the wealth and serves four times as many decisions.
FRACTIONS = np.append(0.5 ** np.arange(12, 0, -1), 0.95)


@dataclass(frozen=True, kw_only=True)
class Declared:
    """What was known of every decision before the log began.

    Rewards lie in [``reward_low``, ``reward_high``], in their own units; every choice had at least ``min_propensity``; a
    unit (the log's cluster) has at most ``max_unit_size`` decisions.
    """

    reward_low: float
    reward_high: float
    min_propensity: float
    max_unit_size: int = 1

    def __post_init__(self) -> None:
        """Refuse bounds that bound nothing."""
        if not -np.inf < self.reward_low < self.reward_high < np.inf:
            raise ValueError(f"reward_low must be below reward_high, got {self.reward_low} and {self.reward_high}")
        if not 0.0 < self.min_propensity <= 1.0:
            raise ValueError(f"min_propensity must lie in (0, 1], got {self.min_propensity}")
        if self.max_unit_size < 1:
            raise ValueError(f"max_unit_size must be at least 1, got {self.max_unit_size}")

    @property
    def spread(self) -> float:
        """How far rewards may lie apart."""
        return self.reward_high - self.reward_low


@dataclass(frozen=True, kw_only=True)
class AnytimeInterval:
    """Limits in units of the reward that hold at this look and all others; what no bet excludes is not excluded."""

    low: float
    high: float
    confidence: float
    n_units: int


def bound_ips(
    log: LoggedDecisions, target: Floats, declared: Declared, confidence: float = 0.95
) -> AnytimeInterval | Refusal:
    """Return limits of the value of ``target`` (float64[n_rows]) by weighted rewards; ``log`` is in order of time.

    Raises
    ------
    ValueError
        If ``target`` is no distribution, or the log breaks what was ``declared``, by decision and value; so do all here.
    """
    if refusal := _refuse(log, declared, confidence):
        return refusal
    check_distribution("target", log, target)
    weights, ceiling = target[log.chosen] / log.propensity, declared.spread / declared.min_propensity
    gained = _sum_units(log, weights * (log.reward - declared.reward_low), (0.0, ceiling), declared)
    missed = _sum_units(log, weights * (declared.reward_high - log.reward), (0.0, ceiling), declared)
    alpha = (1.0 - confidence) / 2
    return AnytimeInterval(
        low=declared.reward_low + min(max(betting.lower_limit(gained, alpha, FRACTIONS), 0.0), declared.spread),
        high=declared.reward_high - min(max(betting.lower_limit(missed, alpha, FRACTIONS), 0.0), declared.spread),
        confidence=confidence,
        n_units=len(gained.total),
    )


def bound_dr(
    log: LoggedDecisions, target: Floats, q: Floats, declared: Declared, confidence: float = 0.95
) -> AnytimeInterval | Refusal:
    """Return limits of the value of ``target``, doubly robustly; ``q`` (float64[n_rows]) is clipped to the declared rewards."""
    if refusal := _refuse(log, declared, confidence):
        return refusal
    check_distribution("target", log, target)
    direct, residual = evaluation.explain(log, target, np.clip(q, declared.reward_low, declared.reward_high))
    ceiling = declared.spread / declared.min_propensity
    bounds = declared.reward_low - ceiling + declared.spread, declared.reward_low + ceiling
    units = _sum_units(log, direct + target[log.chosen] / log.propensity * residual, bounds, declared)
    return _limits(units, declared.reward_low, declared.reward_high, confidence)


def bound_difference(
    log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats, declared: Declared, confidence: float = 0.95
) -> AnytimeInterval | Refusal:
    """Return limits of what ``target`` earns beyond ``baseline``, doubly robustly; q is clipped as in `bound_dr`."""
    if refusal := _refuse(log, declared, confidence):
        return refusal
    clipped = np.clip(q, declared.reward_low, declared.reward_high)
    ceiling = declared.spread / declared.min_propensity
    increments = evaluation.increments(log, target, baseline, clipped)
    units = _sum_units(log, increments, (-ceiling, ceiling), declared)
    return _limits(units, -declared.spread, declared.spread, confidence)


def _refuse(log: LoggedDecisions, declared: Declared, confidence: float) -> Refusal | None:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if not log.has_propensities:
        return evaluation.without_propensities(log)
    rule = f"propensity must be at least the declared {declared.min_propensity:g}"
    check(rule, log.propensity >= declared.min_propensity, log.propensity)
    rule = f"reward must lie in the declared [{declared.reward_low:g}, {declared.reward_high:g}]"
    check(rule, (declared.reward_low <= log.reward) & (log.reward <= declared.reward_high), log.reward)
    return None


def _sum_units(log: LoggedDecisions, shown: Floats, bounds: tuple[float, float], declared: Declared) -> Units:
    """Return the sums of ``shown`` (float64[n]) over each unit, units in order of their first decision."""
    total, size = shown, np.ones(log.n_decisions)
    if log.cluster is not None:
        _, first, number = np.unique(log.cluster, return_index=True, return_inverse=True)
        order = np.argsort(first)
        total = np.bincount(number, weights=shown)[order].astype(np.float64, copy=False)
        size = np.bincount(number)[order].astype(np.float64)
    low, high = (np.full(len(total), bound) for bound in bounds)
    return Units(total=total, size=size, low=low, high=high, max_size=declared.max_unit_size)


def _limits(units: Units, least: float, most: float, confidence: float) -> AnytimeInterval:
    """Return the limits of the units' mean, which is known to lie between ``least`` and ``most``."""
    alpha = (1.0 - confidence) / 2
    return AnytimeInterval(
        low=min(max(betting.lower_limit(units, alpha, FRACTIONS), least), most),
        high=max(min(betting.upper_limit(units, alpha, FRACTIONS), most), least),
        confidence=confidence,
        n_units=len(units.total),
    )
