"""How far two samples of one column lie apart: bins, shares, PSI and Jensen-Shannon distance, and what chance alone gives.

    PSI = sum over k of (q_k - p_k) ln(q_k / p_k)                                   Siddiqi, Credit Risk Scorecards, 2006
    JS  = sqrt(H((p + q) / 2) - (H(p) + H(q)) / 2), H in bits, in [0, 1]            Lin, IEEE Trans. Inf. Theory, 1991

p_k and q_k are the shares of the reference's n and of the recent m rows in each of B bins. Without any drift, and with
independent rows, PSI / (1/n + 1/m) is near chi-squared with B - 1 degrees of freedom, so that PSI is about
(B - 1) (1/n + 1/m) by chance (Yurdakul, "Statistical properties of population stability index", 2018): a fixed limit
rings for small samples and sleeps for large ones. Rows that share fate say less than their number: the mean design
effect d of the shares takes the place of 1 in d/n (Rao and Scott, JASA, 1981, with Satterthwaite's degrees of freedom),
and F that of chi-squared, as d is itself estimated from few clusters. Misleads where bins are nearly empty in both samples (shares are smoothed by half a row per
bin), and where neighbouring clusters depend on each other.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import fdtri

from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MAX_VALUES = 20  # of a category that are told apart, the reference's most frequent; the rest are one
N_BINS = 10  # as is usual for PSI
_HALF_ROW = 0.5  # Jeffreys' prior: no share is 0, so that every logarithm is finite


@dataclass(frozen=True, kw_only=True)
class Binned:
    """One sample: its rows per bin, how many rows say as much as one independent row (1 or more), and its free bins.

    ``design_effect`` is the mean, ``n_free`` the effective number of Rao and Scott's generalised design effects: fate
    that is shared in a few of the bins moves PSI as if there were only those.
    """

    counts: Floats
    design_effect: float
    n_free: float

    @classmethod
    def of(cls, bins: Integers, n_bins: int, cluster: Integers) -> Self:
        """Count ``bins`` (int64[n]); rows with one ``cluster`` share fate."""
        counts = np.bincount(bins, minlength=n_bins).astype(np.float64)
        design_effect, n_free = _design_effects(bins, counts, cluster)
        return cls(counts=counts, design_effect=design_effect, n_free=n_free)

    @property
    def shares(self) -> Floats:
        """The smoothed share of each bin."""
        smoothed: Floats = (self.counts + _HALF_ROW) / (self.counts + _HALF_ROW).sum()
        return smoothed


def bin_numbers(reference: Floats, recent: Floats) -> tuple[Integers, Integers, int]:
    """Return both samples' bins and how many there are: quantiles of the reference, what lies below it, missing last."""
    known = reference[~np.isnan(reference)]
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, N_BINS + 1)[:-1])) if known.size else np.zeros(1)
    if (known == edges[0]).mean() < 1 / N_BINS if known.size else False:
        edges = edges[1:]  # the least value is no atom: it needs no bin of its own
    else:
        edges = np.concatenate(([np.nextafter(edges[0], -np.inf)], edges))

    def place(values: Floats) -> Integers:
        return np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="left"))

    return place(reference), place(recent), len(edges) + 2


def bin_categories(reference: CategoryColumn, recent: CategoryColumn) -> tuple[Integers, Integers, int]:
    """Return both samples' bins: the reference's most frequent values, all others as one, missing last."""
    counts = np.bincount(reference.codes[reference.codes >= 0], minlength=len(reference.values))
    kept = [reference.values[code] for code in np.argsort(-counts, kind="stable")[:MAX_VALUES]]
    places = {value: place for place, value in enumerate(kept)}

    def place(column: CategoryColumn) -> Integers:
        table = np.array([*(places.get(value, len(kept)) for value in column.values), len(kept) + 1])
        return table[column.codes]  # -1 reads the last: missing

    return place(reference), place(recent), len(kept) + 2


def psi(p: Floats, q: Floats) -> float:
    """Return the population stability index of two distributions over the same bins, none of them empty."""
    return float(((q - p) * np.log(q / p)).sum())


def js_distance(p: Floats, q: Floats) -> float:
    """Return the Jensen-Shannon distance of two distributions over the same bins, in [0, 1]."""
    divergence = _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2
    return float(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def expected_psi(reference: Binned, recent: Binned) -> float:
    """Return what PSI is in the mean where nothing drifts."""
    effect = max(reference.design_effect, recent.design_effect)  # a sample of few clusters may not show its own
    return (len(reference.counts) - 1) * effect * float(1 / reference.counts.sum() + 1 / recent.counts.sum())


def critical_psi(reference: Binned, recent: Binned, alpha: float, n_clusters: int) -> float:
    """Return what PSI exceeds with probability ``alpha`` where nothing drifts; ``n_clusters`` of the smaller sample."""
    quantile = float(fdtri(min(reference.n_free, recent.n_free), max(n_clusters - 1, 1), 1.0 - alpha))
    return expected_psi(reference, recent) * quantile


def drop_empty(reference: Integers, recent: Integers, n_bins: int) -> tuple[Integers, Integers, int]:
    """Return the same bins without those that neither sample has a row in; at least two are kept."""
    used = np.union1d(reference, recent)
    if len(used) < 2:  # noqa: PLR2004  # nothing varies: one free bin, or there is no distribution of PSI
        return np.zeros_like(reference), np.zeros_like(recent), min(n_bins, 2)
    return np.searchsorted(used, reference), np.searchsorted(used, recent), len(used)


def _entropy(shares: Floats) -> float:
    positive = shares[shares > 0]
    return -float((positive * np.log2(positive)).sum())


def _design_effects(bins: Integers, counts: Floats, cluster: Integers) -> tuple[float, float]:
    """Return the mean and the effective number of the generalised design effects, the eigenvalues of n D^-1/2 V D^-1/2."""
    place = np.unique(cluster, return_inverse=True)[1]
    n_rows, n_clusters, n_bins = len(bins), int(place.max()) + 1, len(counts)
    if n_clusters < 2:  # noqa: PLR2004  # one cluster says nothing of how clusters differ
        return float(n_rows), 1.0
    if n_clusters == n_rows:
        return 1.0, n_bins - 1.0
    each = np.bincount(place * n_bins + bins, minlength=n_clusters * n_bins).reshape(n_clusters, n_bins)
    residual = each - np.outer(each.sum(axis=1), counts / n_rows)
    scaled = residual / np.sqrt(counts + _HALF_ROW)
    effects = n_clusters / (n_clusters - 1) * (scaled.T @ scaled)
    total, squared = float(np.trace(effects)), float(np.square(effects).sum())
    if not squared:
        return 1.0, n_bins - 1.0
    return max(1.0, total / (n_bins - 1)), float(np.clip(total**2 / squared, 1.0, n_bins - 1.0))
