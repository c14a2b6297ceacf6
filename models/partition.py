"""Trees that split events by what happens at all destinations at once, with leaves of each destination's own.

Where outcomes are few, a model per destination learns the same neighbourhoods of events over and over, each from its own
rows. Here every tree is grown on random projections of the outcomes,

    label of a row = w(destination) * (y - mean y of the destination),  w ~ N(0, 1) anew for every tree,

and may split on anything but the destination; a leaf then holds, per destination, the shrunken mean of its own outcomes:

    (sum of y + prior * mean y of the destination) / (n + prior)

The mean over trees is an average over neighbours, the neighbourhood learned from all destinations: much less variance than
boosting on a thousand events, and no more than the forest knows on a hundred thousand. How many events a leaf holds at least, and the prior, are settings:
``shared_min_events``, ``shared_prior``; with ``shared_leaves: votes`` the means are only compared with each other (see
`models.votes`). Where events have outcomes at several destinations, ``shared_pair_trees`` adds trees of pairs, which tell
half of how far a destination lies from the mean of all (see `models.pairwise`). Each destination's forest is written as
LightGBM text of its own, so that nothing is new where it is served. Misleads where destinations have nothing in common.
Sources: Breiman, "Random forests", 2001; Geurts, Ernst and Wehenkel, "Extremely randomized trees", 2006; Joly, Geurts and
Wehenkel, "Random forests with random projections of the output space", 2014.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.choices import Training
from models import pairwise, tree_text, votes
from models.boosting import Fitted, Trainer
from models.encoding import EncodedRows
from models.tree_text import Grown

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_TREES = 60  # of each kind
# Found by cross-validation on four sets of a thousand instances each. Half of the trees split where it is best, half
# almost anywhere: what the two get wrong differs, and the choice is better by the mean than by either.
PARAMETERS: Mapping[str, Any] = {
    "num_leaves": 256,
    "bagging_fraction": 0.95,  # the least rows of a leaf are counted in the bag: a smaller one makes it coarser
    "bagging_freq": 1,
    "min_sum_hessian_in_leaf": 0.0,
}
KINDS: Sequence[Mapping[str, Any]] = (
    {"feature_fraction_bynode": 0.5},
    {"feature_fraction_bynode": 1.0, "extra_trees": True},
)


def grow(
    target: Floats,
    weight: Floats,
    rows_of: Mapping[int, Integers],
    matrix: EncodedRows,
    trainer: Trainer,
    destination_column: int,
    event: Integers | None = None,
) -> dict[int, Fitted]:
    """Return, by destination code, the forest that predicts ``target`` (float64[n]) there: ``n_boosters`` of each kind, to be averaged.

    ``rows_of`` gives the rows of ``matrix`` at each destination: those that are learned from.
    ``destination_column`` is the one that no tree may split on. Rows of the same ``event`` (int64[n]) are outcomes of one
    event; without it nothing is learned of pairs.
    """
    settings = trainer.settings
    outcomes = None
    if event is not None and settings.shared_pair_trees:
        outcomes = pairwise.Outcomes.of(event, target, weight, rows_of, matrix)
    rows = np.sort(np.concatenate(list(rows_of.values())))
    means = {code: float(np.average(target[own], weights=weight[own])) for code, own in rows_of.items()}
    centred = np.zeros(len(target))
    for code, own in rows_of.items():
        centred[own] = target[own] - means[code]
    contributions = [float(column != destination_column) for column in range(matrix.n_features)]
    least = max(1, round(settings.shared_min_events * len(rows_of)))
    forests: dict[int, list[lightgbm.Booster]] = {code: [] for code in rows_of}
    for number, (place, kind) in product(range(settings.n_boosters), enumerate(KINDS)):
        seed = settings.seed + number
        parameters = {**PARAMETERS, **kind, "min_data_in_leaf": least, "feature_contri": contributions}
        labels = _projections(centred, rows_of, seed)
        forest = trainer.fit_projections(labels, weight, rows, parameters, seed=seed)
        text = forest.model_to_string()
        n_leaves = [int(line.partition("=")[2]) for line in text.splitlines() if line.startswith("num_leaves=")]
        leaves = {}
        for code, own in rows_of.items():
            leaf = np.asarray(forest.predict(matrix.take(own), pred_leaf=True), np.int64).reshape(len(own), -1)
            leaves[code] = list(_leaf_sums(n_leaves, leaf, target[own], weight[own]))
        values = _leaf_values(leaves, means, settings, float(centred[rows].std()))
        pairs = {} if outcomes is None else pairwise.grow(outcomes, settings, seed * len(KINDS) + place)
        for code, mine in _beside_pairs(values, pairs).items():
            forests[code].append(_with_leaves(text, mine, pairs.get(code, ())))
    return dict(forests)


def _projections(centred: Floats, rows_of: Mapping[int, Integers], seed: int) -> Iterator[Floats]:
    """Yield the label of each tree, float64[n]."""
    rng = np.random.default_rng(seed)
    for _ in range(N_TREES):
        label = np.zeros(len(centred))
        for own in rows_of.values():
            label[own] = rng.normal() * centred[own]
        yield label


def _leaf_sums(
    n_leaves: Sequence[int], leaf: Integers, target: Floats, weight: Floats
) -> Iterator[tuple[Floats, Floats]]:
    """Yield the sum of ``target`` (float64[n]) in the leaves of each tree, and the weight that it has; ``leaf`` int64[n, n_trees] is where the rows fall."""
    for tree, size in enumerate(n_leaves):
        total = np.bincount(leaf[:, tree], weights=weight * target, minlength=size)
        n_rows = np.bincount(leaf[:, tree], weights=weight, minlength=size)
        yield np.asarray(total, np.float64), np.asarray(n_rows, np.float64)


def _leaf_values(
    sums: Mapping[int, Sequence[tuple[Floats, Floats]]], means: Mapping[int, float], settings: Training, spread: float
) -> dict[int, list[Floats]]:
    """Return, by destination code, the values of the leaves of each tree; ``spread`` is the standard deviation of what is learned."""
    prior = settings.shared_prior
    shrunk = {
        code: [(total + prior * means[code]) / (n_rows + prior) for total, n_rows in trees]
        for code, trees in sums.items()
    }
    if settings.shared_leaves == "means":
        return shrunk
    voted = votes.cast(list(sums.values()), list(shrunk.values()), votes.TIE * spread)
    return dict(zip(shrunk, voted, strict=True))


def _beside_pairs(
    values: Mapping[int, Sequence[Floats]], pairs: Mapping[int, Sequence[Grown]]
) -> dict[int, Sequence[Floats]]:
    """Return the leaves of each destination, brought nearer to the mean of all where trees of pairs tell the rest."""
    levels = [np.mean(tree, axis=0) for tree in zip(*values.values(), strict=True)]
    return {
        code: [own + pairwise.SHARE * (level - own) for level, own in zip(levels, mine, strict=True)]
        if pairs.get(code)
        else mine
        for code, mine in values.items()
    }


def _with_leaves(text: str, leaves: Iterable[Floats], beside: Sequence[Grown] = ()) -> lightgbm.Booster:
    """Return a copy of the forest whose leaves hold ``leaves``, over the number of trees (a booster adds its trees up), and ``beside`` it these trees."""
    copy = lightgbm.Booster(model_str=text)
    n_trees = copy.num_trees()
    for tree, values in enumerate(leaves):
        for number, value in enumerate((values / n_trees).tolist()):
            copy.set_leaf_output(tree, number, value)
    return lightgbm.Booster(model_str=tree_text.add(copy.model_to_string(), beside)) if beside else copy
