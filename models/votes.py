"""Leaves that vote: which destination is better than which in a leaf, every leaf with the same say.

A leaf's mean is moved most by the few events that cost most, and so is the mean over trees; a choice asks only for the
order. Within a leaf destination a is compared with every other one that has outcomes there,

    vote(a) = 1/2 mean over b of  d / (|d| + tie),   d = mean y(a) - mean y(b),

a soft Borda count between -1/2 and 1/2 (the mean over trees is that of the counts), and the leaf's value is

    mean over destinations of their shrunken means + slope * vote(a)

with the slope of least squares, over all leaves, of a destination's distance from that mean: values stay in the units of
y and about as far apart, but say less of how large a difference is. Misleads where what counts are rare, large losses,
and where many destinations that never lead push one another's votes around. Sources: Xu, Hutter, Hoos and Leyton-Brown,
"SATzilla2012: improved algorithm selection based on cost-sensitive classification models", 2012 (pairwise votes); Emerson,
"The original Borda count and partial voting", 2013.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
LeafSums = tuple[Floats, Floats]  # the sum of outcomes in each leaf of a tree, and the weight that it has

TIE = 0.05  # standard deviations of the outcomes: a difference of as much is half a vote


def cast(sums: Sequence[Sequence[LeafSums]], shrunk: Sequence[Sequence[Floats]], tie: float) -> list[list[Floats]]:
    """Return the leaves' values, by destination and tree, float64[n_leaves], as both arguments are given; ``tie`` is in units of y."""
    counted, contrasts, levels, weights = [], [], [], []
    for trees, smooth in zip(zip(*sums, strict=True), zip(*shrunk, strict=True), strict=True):
        total, weight = (np.stack(each) for each in zip(*trees, strict=True))
        counted.append(count(total, weight, tie))
        levels.append(np.mean(smooth, axis=0))
        contrasts.append(np.stack(smooth) - levels[-1])
        weights.append(weight.sum(axis=0))
    slope = _slope(counted, contrasts, weights)
    values = [level + slope * votes for level, votes in zip(levels, counted, strict=True)]
    return [[tree[place] for tree in values] for place in range(len(sums))]


def count(total: Floats, weight: Floats, tie: float) -> Floats:
    """Return the vote on each destination in each leaf of a tree, float64[n_destinations, n_leaves], of sums and weights alike.

    A destination without outcomes in a leaf neither votes there nor is voted on.
    """
    mean = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0.0)
    votes = np.zeros(total.shape)
    for other in mean:
        difference = mean - other
        size = np.abs(difference) + tie
        votes += np.divide(difference, size, out=np.zeros(total.shape), where=size > 0.0)  # NaN is never above 0
    return votes / (2.0 * max(1, len(total) - 1))


def _slope(votes: Sequence[Floats], contrasts: Sequence[Floats], weights: Sequence[Floats]) -> float:
    """Return the slope of least squares of the contrasts on the votes; 0 where nobody differs."""
    along = sum(float((weight * vote * far).sum()) for vote, far, weight in zip(votes, contrasts, weights, strict=True))
    square = sum(float((weight * vote**2).sum()) for vote, weight in zip(votes, weights, strict=True))
    return along / square if square > 0.0 else 0.0
