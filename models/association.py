"""How well one column alone tells a label, on rows it was not fitted on.

A binary label is told as well as the AUC says (the probability that a success ranks above a failure, ties half; Hanley
and McNeil, 1982), taken either way round. A quantity is told as well as the larger of |Spearman's rank correlation|
and the squared correlation: ranks see through any monotone transform, squares see a column that only marks the extremes.

A column tells in two ways. A number ranks as it stands, among the rows that have it. And any column is turned into
means: of the label per value (or per quantile bin of a number), shrunken, missing a value of its own, fitted on one half
of the clusters and read on the other. So a category with a value per row tells nothing, however well it fits; and a
value met in both halves only since its rows share fate tells nothing either.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

N_BINS = 64  # fine enough that a step between bins costs about .001 of AUC or rank correlation
PRIOR_ROWS = 10.0  # that a value's mean is shrunken by: rare values say little
MIN_ROWS = 100
MIN_MINORITY = 25  # of the rarer class: a few rows are easily in perfect order
_MIN_CLUSTERS = 10  # below that, halves of clusters are too unlike each other


@dataclass(frozen=True, kw_only=True)
class Label:
    """What is to be told: float64[n], NaN where unknown; ``binary`` ones hold 0 and 1."""

    name: Literal["success", "latency_ms"]
    values: Floats
    binary: bool

    def enough(self, rows: Mask) -> bool:
        """Tell whether these rows' labels can bear a measure at all."""
        known = self.values[rows & ~np.isnan(self.values)]
        if len(known) < MIN_ROWS:
            return False
        if self.binary:
            return bool(min(known.sum(), len(known) - known.sum()) >= MIN_MINORITY)
        return bool(known.min() < known.max())

    def told_by(self, column: Floats, rows: Mask) -> float | None:
        """Return how well ``column`` (NaN: says nothing) orders the label among ``rows``, in [0, 1]; None of too few."""
        known = rows & ~np.isnan(column) & ~np.isnan(self.values)
        if not self.enough(known):
            return None
        told, label = column[known], self.values[known]
        if self.binary:
            return _auc(told, label > 0)
        return max(abs(_correlation(rankdata(told), rankdata(label))), _correlation(told, label) ** 2)


def split_clusters(cluster: Integers, rng: np.random.Generator) -> Mask:
    """Return which rows are to be fitted on, bool[n]: half of the clusters, or half of the rows where clusters are few."""
    names, place = np.unique(cluster, return_inverse=True)
    if len(names) < _MIN_CLUSTERS:
        place, names = np.arange(len(cluster)), np.arange(len(cluster))
    fitted: Mask = (rng.permutation(len(names)) < len(names) // 2)[place]
    return fitted


def number_strength(values: Floats, label: Label, fitted: Mask) -> float | None:
    """Return how well a number column tells ``label``, the better of its two ways; None where too few rows say."""
    direct = label.told_by(values, np.ones(len(values), np.bool_))
    means = _means(_quantile_bins(values, fitted), label, fitted)
    return _best(direct, label.told_by(means, ~fitted))


def category_strength(column: CategoryColumn, label: Label, fitted: Mask) -> float | None:
    """Return how well a category column tells ``label``; values that were not fitted on say nothing."""
    return label.told_by(_means(column.codes + 1, label, fitted), ~fitted)


def missing_strength(missing: Mask, label: Label) -> float | None:
    """Return how well a column tells ``label`` by being there or not; None where it always or never is."""
    if missing.all() or not missing.any():
        return None
    return label.told_by(missing.astype(np.float64), np.ones(len(missing), np.bool_))


def _quantile_bins(values: Floats, fitted: Mask) -> Integers:
    """Return each row's bin, 0 for missing."""
    known = values[fitted & ~np.isnan(values)]
    if not known.size:
        return np.zeros(len(values), np.int64)
    edges = np.unique(np.quantile(known, np.linspace(0.0, 1.0, N_BINS + 1)[1:-1]))
    return np.where(np.isnan(values), 0, np.searchsorted(edges, values) + 1)


def _means(codes: Integers, label: Label, fitted: Mask) -> Floats:
    """Return per row the shrunken mean label of its code over the fitted rows; NaN for a code that none of them has."""
    rows = fitted & ~np.isnan(label.values)
    if not rows.any():
        return np.full(len(codes), np.nan)
    size = int(codes.max()) + 1
    n = np.bincount(codes[rows], minlength=size)
    total = np.bincount(codes[rows], weights=label.values[rows], minlength=size)
    means = (total + PRIOR_ROWS * label.values[rows].mean()) / (n + PRIOR_ROWS)
    per_row: Floats = np.where(n > 0, means, np.nan)[codes]
    return per_row


def _auc(told: Floats, positive: Mask) -> float:
    n_positive = int(positive.sum())
    n_pairs = n_positive * (len(told) - n_positive)
    above = rankdata(told)[positive].sum() - n_positive * (n_positive + 1) / 2
    auc = float(above / n_pairs)
    return max(auc, 1.0 - auc)


def _correlation(one: Floats, other: Floats) -> float:
    one, other = one - one.mean(), other - other.mean()
    scale = float(np.sqrt(np.square(one).sum() * np.square(other).sum()))  # sums, not @: BLAS would take every core
    return float((one * other).sum()) / scale if scale > 0 else 0.0


def _best(*strengths: float | None) -> float | None:
    return max((strength for strength in strengths if strength is not None), default=None)
