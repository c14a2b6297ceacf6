"""Confidence intervals of a mean whose observations may share fate: cluster-robust, by Student's t.

    V = mean z,   se^2 = G / (G - 1) * sum over g of (sum over i in g of (z_i - V))^2 / n^2,   V +- t(G - 1) * se

z_i are n observations in G clusters; with every observation its own cluster this is the textbook interval. Misleads when
clusters are few (below about 30 it covers too little, the more so the more their sizes differ), when clusters depend on
each other, and when a few observations carry most of the sum. Source: Cameron and Miller, "A practitioner's guide to
cluster-robust inference", Journal of Human Resources, 2015.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


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


def mean_interval(observed: Floats, cluster: Integers | None, confidence: float) -> Interval:
    """Return the mean of ``observed`` (float64[n]) with its interval; ``cluster`` (int64[n]) None means each on its own.

    Raises
    ------
    ValueError
        If there are fewer than two clusters, or ``confidence`` lies outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    n_clusters = count_clusters(cluster, len(observed))
    if n_clusters < 2:  # noqa: PLR2004  # a variance needs two
        raise ValueError(f"an interval needs at least two clusters, got {n_clusters}")
    value = float(observed.mean())
    residuals = observed - value
    sums = residuals if cluster is None else np.bincount(np.unique(cluster, return_inverse=True)[1], weights=residuals)
    error = float(np.sqrt(n_clusters / (n_clusters - 1) * np.square(sums).sum()) / len(observed))
    reach = error * float(stdtrit(n_clusters - 1, (1.0 + confidence) / 2))
    return Interval(value=value, standard_error=error, low=value - reach, high=value + reach)


def count_clusters(cluster: Integers | None, n_observations: int) -> int:
    """Return how many clusters there are."""
    return n_observations if cluster is None else len(np.unique(cluster))
