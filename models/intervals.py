"""Confidence intervals of a mean whose observations may share fate: cluster-robust, and wider where the sample is skewed.

z_i are n observations in G clusters; of cluster g, ``h_g = n_g / n`` is its share and ``r_g = sum over i in g of (z_i - V)``:

    V = mean z,   se^2 = sum over g of r_g^2 / (1 - h_g) / n^2,   from V - max(t, e-) * se to V + max(t, e+) * se

t is Student's quantile with ``1 / (sum h_g^2 + (sum c_g)^2 - sum c_g^2)`` degrees of freedom, ``c_g = h_g^2 / (1 - h_g)``;
clusters of one size give the textbook interval, G - 1 degrees of freedom and all. e+ and e- are how many standard errors
empirical likelihood reaches up and down when its log ratio falls by ``t^2 / 2``: of a mean of rare failures the symmetric
interval ends too soon on the side of the long tail, where no failure has been seen yet. The short side is not drawn in,
so that no claim becomes easier than the textbook's.

Misleads when clusters depend on each other, when few of them (below about 30) have a heavy tail, and when a few
observations carry most of the sum: what was never seen widens nothing.

Sources: Bell and McCaffrey, "Bias reduction in standard errors for linear regression with multi-stage samples", Survey
Methodology, 2002 (error, degrees of freedom); Owen, "Empirical likelihood ratio confidence intervals for a single
functional", Biometrika, 1988. The wider of both on either side is a choice made on simulated logs, beside bootstrap-t,
Hall's and Johnson's corrections: those cover no better, or are far wider where the tail is heavy.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MAX_STEPS = 60  # bisection alone would do in as many; Newton takes about five
_PRECISION = 1e-6  # of a reach, relative
_NEGLIGIBLE = 0.01  # of the sum's standard error: where no cluster weighs more, the reach is within 1 % of t


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its standard error and the limits of its confidence interval."""

    value: float
    standard_error: float
    low: float
    high: float

    def holds(self, value: float, tolerance: float = 0.0) -> bool:
        """Tell whether ``value``, give or take ``tolerance``, lies inside."""
        return self.low <= value + tolerance and value - tolerance <= self.high


def rate_limit(n_events: int, n: int, confidence: float) -> float:
    """Return the exact upper limit of a rate of which ``n_events`` of ``n`` were seen: it covers at least ``confidence``.

    Without any event it is ``1 - (1 - confidence)^(1 / n)``; without a trial, 1. Source: Clopper and Pearson, "The use of
    confidence or fiducial limits illustrated in the case of the binomial", Biometrika, 1934.

    Raises
    ------
    ValueError
        If the events are not some of the trials, or the confidence lies outside (0, 1).
    """
    if not (0 <= n_events <= n and 0.0 < confidence < 1.0):
        raise ValueError(f"events must lie in [0, {n}] and confidence in (0, 1), got {n_events} and {confidence}")
    return 1.0 if n_events == n else float(betaincinv(n_events + 1, n - n_events, confidence))


def mean_interval(observed: Floats, cluster: Integers | None, confidence: float) -> Interval:
    """Return the mean of ``observed`` (float64[n]) with its interval; ``cluster`` (int64[n]) None means each on its own.

    Raises
    ------
    ValueError
        If there are fewer than two clusters, or ``confidence`` lies outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    value = float(observed.mean()) if len(observed) else 0.0
    residuals, shares = _by_cluster(observed - value, cluster)
    if len(residuals) < 2:  # noqa: PLR2004  # a variance needs two
        raise ValueError(f"an interval needs at least two clusters, got {len(residuals)}")
    error = math.sqrt((np.square(residuals) / (1.0 - shares)).sum()) / len(observed)
    freedom = len(residuals) - 1.0 if cluster is None else degrees_of_freedom(shares)
    t = float(stdtrit(freedom, (1.0 + confidence) / 2))
    down, up = max(t, likelihood_reach(-residuals, t)), max(t, likelihood_reach(residuals, t))
    return Interval(value=value, standard_error=error, low=value - down * error, high=value + up * error)


def _by_cluster(residuals: Floats, cluster: Integers | None) -> tuple[Floats, Floats]:
    """Return each cluster's sum and its share of the observations; the share, of what stands on its own, as one number."""
    if cluster is None:
        return residuals, np.array(1.0 / max(len(residuals), 1))
    numbers, sizes = np.unique(cluster, return_inverse=True, return_counts=True)[1:]
    return np.bincount(numbers, weights=residuals).astype(np.float64, copy=False), sizes / len(residuals)


def degrees_of_freedom(shares: Floats) -> float:
    """Return Bell and McCaffrey's degrees of freedom for clusters that hold these ``shares`` of the observations."""
    leverages = np.square(shares) / (1.0 - shares)
    return float(1.0 / (np.square(shares).sum() + leverages.sum() ** 2 - np.square(leverages).sum()))


def likelihood_reach(residuals: Floats, t: float) -> float:
    """Return how far up the mean may be by empirical likelihood, in standard errors; ``residuals`` (float64[G]) sum to 0.

    Of all weights p on the clusters with ``-2 sum log(G p) <= t^2`` those that raise the mean most are proportional to
    ``1 / (1 - s r_g)``: a search in s alone, between 0 and ``1 / max r``, Newton's with bisection where that leaves it.
    Where no residual stands out above the rest, t itself.
    """
    top, scale = float(residuals.max()), float(np.linalg.norm(residuals))
    if top <= _NEGLIGIBLE * scale:
        return t
    least, most = 0.0, (1.0 - 1e-12) / top
    tilt = min(t / scale, most / 2)
    for _ in range(_MAX_STEPS):
        depth, slope = _likelihood_depth(residuals, tilt)
        least, most = (tilt, most) if depth < t else (least, tilt)
        step = tilt - (depth - t) / slope if slope > 0.0 else least
        step = step if least < step < most else (least + most) / 2
        if abs(step - tilt) <= _PRECISION * tilt:
            break
        tilt = step
    weights = 1.0 / (1.0 - tilt * residuals)
    return float(residuals @ weights / weights.mean()) / scale


def _likelihood_depth(residuals: Floats, tilt: float) -> tuple[float, float]:
    """Return the root of -2 log of the likelihood ratio that this tilt costs, and its slope in the tilt."""
    weights = 1.0 / (1.0 - tilt * residuals)
    mean = float(weights.mean())
    depth = math.sqrt(max(0.0, 2.0 * (len(residuals) * math.log(mean) - float(np.log(weights).sum()))))
    tilted = residuals * weights
    slope = float(tilted @ weights) / mean - float(tilted.sum())
    return depth, slope / depth if depth else 0.0


def count_clusters(cluster: Integers | None, n_observations: int) -> int:
    """Return how many clusters there are."""
    return n_observations if cluster is None else len(np.unique(cluster))
