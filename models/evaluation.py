"""Off-policy evaluation: what a policy would have earned on a log that another policy wrote, or why the log cannot say.

Symbols: decision i chose A_i among its eligible with logged propensity p_i and earned r_i; the target policy gives the
eligible probabilities pi(a), the baseline pi0(a); a reward model fitted on *other* decisions predicts q(a);
w_i = pi(A_i) / p_i. Every estimate is the mean of one number per decision:

    IPS             w_i r_i                                             Horvitz and Thompson, 1952
    SNIPS           sum of w_i r_i / sum of w_i                         Swaminathan and Joachims, NeurIPS 2015
    DR              sum over a of pi(a) q(a) + w_i (r_i - q(A_i))       Dudik, Langford and Li, ICML 2011
    DR difference   DR of the target - DR of the baseline, one decision at a time: 0 where the policies agree

When they mislead: a wrong propensity biases all of them (DR is saved only by a right q). Mass that the target puts where
the log never goes counts as zero in IPS, is filled with the average of the rest in SNIPS and with q's word in DR: hence
the refusals. A few large weights make every interval too narrow: hence the effective sample size. SNIPS is biased by
order 1/n. A q fitted on the decisions it is used on makes DR overconfident: hence `models.logged.cross_fit`. None of them
sees what changes when the target decides for everyone (queues that fill, say). Intervals: see `models.intervals`; they
hold for one look at a log of a size fixed beforehand. For a log that is looked at while it grows: `models.anytime`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models import intervals
from models.logged import LoggedDecisions, check_distribution, sum_rows

Floats = NDArray[np.float64]
Method = Literal["IPS", "SNIPS", "DR", "DR difference"]
Reason = Literal["no propensities", "too few", "no overlap", "no variation"]

_ROUNDING = 1e-12  # relative; equal numbers, weighed and averaged, may differ by their last bits

_SURE = 1.0 - 1e-9  # of a propensity: the shares of a mixture may sum to a little less


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a log must offer before a claim is made on it, and how sure the claim is.

    ``max_weight`` clips importance weights: less variance, and a bias towards q in DR, towards 0 in the rest. The mean
    weight must be 1 up to ``overlap_tolerance``, as far as an interval at ``overlap_confidence`` can tell.
    """

    confidence: float = 0.95
    min_decisions: int = 100
    min_clusters: int = 10
    min_effective_size: float = 50.0
    max_weight: float = float("inf")
    overlap_confidence: float = 0.999
    overlap_tolerance: float = 0.01

    def __post_init__(self) -> None:
        """Refuse limits below what the arithmetic itself needs."""
        for name, least in {"min_decisions": 2, "min_clusters": 2, "min_effective_size": 1, "max_weight": 1}.items():
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A value in units of the reward with its interval, and the figures that say how far to trust it.

    ``effective_sample_size`` is ``(sum |w|)^2 / sum w^2``, the number of equally weighted decisions that say as much;
    of a difference, w is the difference of the weights, so that it counts the decisions that speak at all.
    ``uncovered_share`` estimates the target's mass where the log never goes; ``clipped_share`` is of decisions.
    Of a difference, the uncovered share is what the target has beyond the baseline's.
    """

    method: Method
    value: float
    low: float
    high: float
    confidence: float
    standard_error: float
    n_decisions: int
    n_clusters: int
    effective_sample_size: float
    max_weight: float
    uncovered_share: float
    clipped_share: float


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a log cannot support a claim, in a sentence, with the figures it rests on."""

    reason: Reason
    explanation: str
    figures: dict[str, float]


DEFAULT_LIMITS = Limits()


def estimate_ips(log: LoggedDecisions, target: Floats, limits: Limits = DEFAULT_LIMITS) -> Estimate | Refusal:
    """Estimate the value of ``target`` (float64[n_rows]) by inverse propensity scoring.

    Raises
    ------
    ValueError
        If ``target`` is not a distribution over the rows of every decision; so do all estimates here.
    """
    check_distribution("target", log, target)
    return _estimate("IPS", log, target, limits, lambda weights: weights * log.reward)


def estimate_snips(log: LoggedDecisions, target: Floats, limits: Limits = DEFAULT_LIMITS) -> Estimate | Refusal:
    """Estimate the value of ``target`` by self-normalised IPS; its interval is that of the linearised ratio."""
    check_distribution("target", log, target)

    def linearise(weights: Floats) -> Floats:
        value = (weights * log.reward).sum() / weights.sum()
        return np.asarray(value + weights * (log.reward - value) / weights.mean())

    return _estimate("SNIPS", log, target, limits, linearise)


def estimate_dr(log: LoggedDecisions, target: Floats, q: Floats, limits: Limits = DEFAULT_LIMITS) -> Estimate | Refusal:
    """Estimate the value of ``target`` doubly robustly; ``q`` (float64[n_rows]) must not have seen this log's rewards."""
    check_distribution("target", log, target)
    direct, residual = explain(log, target, q)
    return _estimate("DR", log, target, limits, lambda weights: direct + weights * residual)


def estimate_difference(
    log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats, limits: Limits = DEFAULT_LIMITS
) -> Estimate | Refusal:
    """Estimate by how much ``target`` beats ``baseline``, doubly robustly, where they differ.

    Mass that neither can be seen to have cancels, so that overlap is asked of the difference alone.
    """
    check_distribution("target", log, target)
    check_distribution("baseline", log, baseline)
    difference = target - baseline
    direct, residual = explain(log, difference, q)
    return _estimate("DR difference", log, difference, limits, lambda weights: direct + weights * residual)


def increments(log: LoggedDecisions, challenger: Floats, champion: Floats, q: Floats) -> Floats:
    """Return each decision's share of the DR difference, float64[n], in units of the reward.

    ``x_i = sum over a of (pi_c - pi_0)(a) q(a) + (pi_c - pi_0)(A_i) / p_i * (r_i - q(A_i))``: unbiased, given the past,
    for the challenger's gain, and exactly 0 where the distributions agree. Clip q to the gate's declared bounds first.

    Raises
    ------
    ValueError
        If the log kept no propensities, or a distribution is none.
    """
    if not log.has_propensities:
        raise ValueError("increments need logged propensities, this log kept none")
    check_distribution("challenger", log, challenger)
    check_distribution("champion", log, champion)
    difference = challenger - champion
    direct, residual = explain(log, difference, q)
    return direct + difference[log.chosen] / log.propensity * residual


def explain(log: LoggedDecisions, policy: Floats, q: Floats) -> tuple[Floats, Floats]:
    """Return what q expects of ``policy`` and what it leaves unexplained of the reward, each float64[n]."""
    if len(q) != log.offsets[-1]:
        raise ValueError(f"q must number {log.offsets[-1]} rows, got {len(q)}")
    if not np.isfinite(q).all():
        raise ValueError(f"q must be finite, got {q[~np.isfinite(q)][0]} at row {int(np.argmin(np.isfinite(q)))}")
    return sum_rows(log, policy * q), log.reward - q[log.chosen]


def without_propensities(log: LoggedDecisions) -> Refusal:
    """Return the refusal of a log that kept no propensities."""
    return Refusal(
        reason="no propensities",
        explanation="the log does not say how likely each choice was, so other choices cannot be weighed",
        figures={"n_decisions": float(log.n_decisions)},
    )


def _estimate(
    method: Method, log: LoggedDecisions, share: Floats, limits: Limits, contribute: Callable[[Floats], Floats]
) -> Estimate | Refusal:
    """Weigh ``share`` (a policy, or a difference of two), then refuse or average what ``contribute`` makes of the weights."""
    n_clusters = intervals.count_clusters(log.cluster, log.n_decisions)
    if refusal := _refuse_by_size(log, n_clusters, limits):
        return refusal
    weights = share[log.chosen] / log.propensity
    expected_mean = 0.0 if method == "DR difference" else 1.0
    if share.any() and (refusal := _refuse_by_overlap(log, weights, expected_mean, limits)):
        return refusal
    if refusal := _refuse_unexplored(log, share, limits):
        return refusal
    contributions = contribute(np.clip(weights, -limits.max_weight, limits.max_weight))
    interval = intervals.mean_interval(contributions, log.cluster, limits.confidence)
    if share.any() and interval.standard_error <= _ROUNDING * abs(interval.value):
        return _without_variation(log, interval.value)
    return Estimate(
        method=method,
        value=interval.value,
        low=interval.low,
        high=interval.high,
        confidence=limits.confidence,
        standard_error=interval.standard_error,
        n_decisions=log.n_decisions,
        n_clusters=n_clusters,
        effective_sample_size=effective_size(weights),
        max_weight=float(np.abs(weights).max()),
        uncovered_share=max(0.0, expected_mean - float(weights.mean())),
        clipped_share=float((np.abs(weights) > limits.max_weight).mean()),
    )


def _refuse_by_size(log: LoggedDecisions, n_clusters: int, limits: Limits) -> Refusal | None:
    figures = {"n_decisions": float(log.n_decisions), "n_clusters": float(n_clusters)}
    if log.n_decisions and not log.has_propensities:
        return without_propensities(log)
    if log.n_decisions < limits.min_decisions or n_clusters < limits.min_clusters:
        return Refusal(
            reason="too few",
            explanation=f"{log.n_decisions} decisions in {n_clusters} independent clusters; "
            f"at least {limits.min_decisions} in {limits.min_clusters} are needed",
            figures=figures,
        )
    return None


def _refuse_unexplored(log: LoggedDecisions, share: Floats, limits: Limits) -> Refusal | None:
    """Refuse a policy that goes elsewhere where the log was sure: a propensity of 1 says so exactly, weights only on average."""
    unexplored = log.propensity >= _SURE
    elsewhere = np.where(unexplored, sum_rows(log, np.abs(share)) - np.abs(share[log.chosen]), 0.0).mean()
    if elsewhere <= limits.overlap_tolerance:
        return None
    figures = {"unexplored_share": float(unexplored.mean()), "uncovered_share": float(elsewhere)}
    return Refusal(
        reason="no overlap",
        explanation=f"the log was sure of its choice on {unexplored.mean():.1%} of the decisions (not explored), and the "
        f"policy goes elsewhere there on {elsewhere:.1%} of all",
        figures=figures,
    )


def _refuse_by_overlap(log: LoggedDecisions, weights: Floats, expected_mean: float, limits: Limits) -> Refusal | None:
    """Refuse weights that are too few to speak, or whose mean is not what full support and right propensities imply."""
    n_effective = effective_size(weights)
    mean = intervals.mean_interval(weights, log.cluster, limits.overlap_confidence)
    figures = {"mean_weight": mean.value, "mean_weight_low": mean.low, "mean_weight_high": mean.high}
    figures |= {"effective_sample_size": n_effective, "max_weight": float(np.abs(weights).max())}
    if n_effective < limits.min_effective_size:
        explanation = (
            f"the log speaks of this policy with the weight of {n_effective:.1f} decisions, "
            f"at least {limits.min_effective_size:g} are needed: it rarely did what the policy would do, or nothing differs"
        )
        return Refusal(reason="no overlap", explanation=explanation, figures=figures)
    if not mean.holds(expected_mean, limits.overlap_tolerance):
        explanation = (
            f"importance weights average {mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] where full support and right "
            f"propensities give {expected_mean:g}: the policy goes where the log never did, or the propensities are wrong"
        )
        return Refusal(reason="no overlap", explanation=explanation, figures=figures)
    return None


def _without_variation(log: LoggedDecisions, value: float) -> Refusal:
    """Return the refusal of an interval of no width: a log without a failure does not prove that there are none."""
    explanation = (
        f"{log.n_decisions} decisions all say {value:g}: a log in which nothing varies does not show how far the truth may "
        "lie, and an interval of no width would claim certainty"
    )
    return Refusal(reason="no variation", explanation=explanation, figures={"value": value})


def effective_size(weights: Floats) -> float:
    """Return ``(sum |w|)^2 / sum w^2``: how many equally weighted decisions say as much."""
    square = float(np.square(weights).sum())
    return float(np.abs(weights).sum()) ** 2 / square if square else 0.0
