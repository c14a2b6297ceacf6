"""Which of two destinations an event goes better at: trees for every pair of them, whose votes are counted.

Where outcomes of one event are known at several destinations (probes, shadow calls), what they have in common, how hard
the event is, falls out of their difference, and with it most of the noise. For each pair a forest learns

    sign(y(a) - y(b)), every event weighed by sqrt|y(a) - y(b)|,

and what is known of an event at a is half the mean over the others b of (share of trees for a - share for b): between
-1/2 and 1/2, a soft Borda count. It is brought to the units of y by the slope of least squares, over the events learned
from, of y's distance from the event's mean on the count of its true order. The trees read only what a pair's rows
have in common: the event. Misleads where a draw means something (0/1 successes: an event that nobody serves well is one
nobody learns from), so that it is for amounts alone. Sources: Xu, Hutter, Hoos and Leyton-Brown, "SATzilla2012: improved
algorithm selection based on cost-sensitive classification models", 2012; Breiman, "Random forests", 2001.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from features.choices import Training
from models.boosting import N_SHARED_ROWS
from models.encoding import EncodedRows
from models.tree_text import Grown

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHARE = 0.5  # of how far a destination lies from the mean of all that the votes tell; the rest is told beside them
MAX_EVENTS = 10_000  # that a tree is grown on
_LARGEST = float(np.finfo(np.float32).max)  # scikit-learn reads 32 bits


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What n events came to at k destinations, events of which one outcome is known left out.

    ``value`` and ``weight`` are float64[n, k], NaN where nobody knows, ``codes`` the k destinations'; ``seen`` is what trees
    read of each event, float32[n, m], which are ``columns`` (int64[m]) of the matrix.
    """

    codes: tuple[int, ...]
    value: Floats
    weight: Floats
    seen: NDArray[np.float32]
    columns: Integers

    @classmethod
    def of(
        cls, event: Integers, target: Floats, weight: Floats, rows_of: Mapping[int, Integers], matrix: EncodedRows
    ) -> "Outcomes":
        """Gather the outcomes ``target`` (float64[n_rows]) of the rows at each destination; of two of one event there the later one."""
        events, row = np.unique(event[np.concatenate(list(rows_of.values()))]), {}
        for code, own in rows_of.items():
            row[code] = np.full(len(events), -1)
            row[code][np.searchsorted(events, event[own])] = own
        at = np.column_stack(list(row.values()))
        several = at[(at >= 0).sum(axis=1) > 1]
        known = several >= 0
        cells, is_common = _in_common(several, matrix)
        return cls(
            codes=tuple(rows_of),
            value=np.where(known, target[several], np.nan),
            weight=np.where(known, weight[several], np.nan),
            seen=cells[:, is_common].clip(-_LARGEST, _LARGEST).astype(np.float32),
            columns=np.flatnonzero(is_common),
        )

    def slope(self) -> float:
        """Return by how much an outcome rises, in the units of y, from the least vote of an event to the greatest; 0 where nobody differs."""
        count = np.nansum(np.sign(self.value[:, :, np.newaxis] - self.value[:, np.newaxis]), axis=2)
        count /= 2.0 * np.maximum((~np.isnan(self.value)).sum(axis=1, keepdims=True) - 1, 1)
        contrast = self.value - np.nanmean(self.value, axis=1, keepdims=True)
        weighed = np.nan_to_num(self.weight) * count
        square = float((weighed * count).sum())
        return float(np.nansum(weighed * contrast)) / square if square else 0.0


def _in_common(rows: Integers, matrix: EncodedRows) -> tuple[Floats, NDArray[np.bool_]]:
    """Return what the first known of each event's ``rows`` (int64[n, k], -1 for none) reads, and in which columns all of an event's rows agree."""
    first = rows[np.arange(len(rows)), (rows >= 0).argmax(axis=1)]
    cells = matrix.take(first)
    agree = np.ones(matrix.n_features, np.bool_)
    for own in rows.T:
        there = np.flatnonzero(own >= 0)
        mine, same = matrix.take(own[there]), cells[there]
        agree &= ((mine == same) | (np.isnan(mine) & np.isnan(same))).all(axis=0)
    return cells, agree


def grow(known: Outcomes, settings: Training, seed: int) -> dict[int, list[Grown]]:
    """Return, by destination code, trees whose sum is `SHARE` of the vote on it, in the units of the outcomes.

    Each destination gets about ``settings.shared_pair_trees``, as many for each of the others, at least one. A pair of fewer than
    ``min_own_outcomes`` events that differ is not voted on.
    """
    trees: dict[int, list[Grown]] = {code: [] for code in known.codes}
    n_others = len(known.codes) - 1
    n_each = max(1, round(settings.shared_pair_trees / max(1, n_others)))
    unit = SHARE * known.slope() / (2.0 * max(1, n_others) * n_each)
    for a, b in combinations(range(len(known.codes)), 2):
        for tree, lead in _lead(known, a, b, n_each, settings, seed):
            for place, sign in ((a, 1.0), (b, -1.0)):
                trees[known.codes[place]].append(Grown.of(tree, known.columns, sign * unit * lead))
    return trees


def _lead(
    known: Outcomes, a: int, b: int, n_trees: int, settings: Training, seed: int
) -> Iterator[tuple[object, Floats]]:
    """Yield each tree of a pair, and by how much the share of its nodes' events for a exceeds that for b."""
    difference = np.nan_to_num(known.value[:, a] - known.value[:, b])
    at = np.flatnonzero(difference)
    if len(at) < settings.min_own_outcomes or not known.columns.size:
        return
    size = np.abs(difference[at])
    forest = RandomForestClassifier(
        n_trees,
        max_features="sqrt",
        min_samples_leaf=max(1, round(settings.shared_min_events / 2.0)),
        max_samples=MAX_EVENTS if len(at) > MAX_EVENTS else None,
        random_state=seed,
        n_jobs=settings.threads if len(at) >= N_SHARED_ROWS else 1,
    )
    weight = (known.weight[at, a] + known.weight[at, b]) * np.sqrt(size / size.mean())
    forest.fit(known.seen[at], difference[at] > 0.0, sample_weight=weight)
    sides: Sequence[bool] = forest.classes_.tolist()
    for grown in forest.estimators_:
        shares = grown.tree_.value[:, 0]
        yield grown.tree_, sum((1.0 if side else -1.0) * shares[:, place] for place, side in enumerate(sides))
