"""Writes trees that another library has grown as LightGBM's text, beside those of a booster: what serves them need know of no second kind."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_END = "end of trees"
_SIZES = "tree_sizes="  # of the trees as they were; without them LightGBM finds each by its heading
_MISSING_IS_NAN, _DEFAULT_LEFT = 8, 2  # of a decision type, from LightGBM's tree.h


@dataclass(frozen=True, kw_only=True)
class Grown:
    """One tree over m nodes, the root first: arrays of length m, of which a leaf reads ``value`` and ``count`` alone.

    A row goes to ``left`` where the column ``feature`` is at most ``threshold``, else to ``right``; where it is NaN, to
    the left if ``nan_left``. A leaf's ``left`` is -1. ``count`` is how many rows a node was grown on.
    """

    feature: Integers
    threshold: Floats
    left: Integers
    right: Integers
    nan_left: NDArray[np.bool_]
    value: Floats
    count: Integers

    @classmethod
    def of(cls, tree: Any, columns: Integers, value: Floats) -> "Grown":
        """Return a tree of scikit-learn's, grown on these ``columns`` of the matrix, whose nodes hold ``value``.

        Scikit-learn compares what is rounded to 32 bits: a row may fall to the other side where it differs from a
        threshold by less than that.
        """
        return cls(
            feature=columns[np.maximum(tree.feature, 0)],
            threshold=tree.threshold,
            left=tree.children_left,
            right=tree.children_right,
            nan_left=tree.missing_go_to_left.astype(np.bool_),
            value=value,
            count=tree.n_node_samples,
        )


def add(text: str, trees: Sequence[Grown]) -> str:
    """Return ``text``, a booster of LightGBM's, with ``trees`` after its own: a booster adds up what its trees say."""
    head, end, tail = text.partition(_END)
    lines = [line for line in head.rstrip("\n").split("\n") if not line.startswith(_SIZES)]
    first = sum(line.startswith("Tree=") for line in lines)
    blocks = (f"Tree={first + place}\n{_block(tree)}\n\n" for place, tree in enumerate(trees))
    return "\n".join(lines) + f"\n\n\n{''.join(blocks)}{end}{tail}"


def _block(tree: Grown) -> str:
    is_leaf = tree.left < 0
    splits, leaves = np.flatnonzero(~is_leaf), np.flatnonzero(is_leaf)
    number = np.empty(len(is_leaf), np.int64)  # splits are counted from 0, leaves from -1 downwards
    number[splits], number[leaves] = np.arange(len(splits)), ~np.arange(len(leaves))
    fields: dict[str, Iterable[int] | Iterable[float]] = {
        "split_feature": tree.feature[splits].tolist(),
        "split_gain": [0] * len(splits),
        "threshold": tree.threshold[splits].tolist(),
        "decision_type": (_MISSING_IS_NAN + _DEFAULT_LEFT * tree.nan_left[splits]).tolist(),
        "left_child": number[tree.left[splits]].tolist(),
        "right_child": number[tree.right[splits]].tolist(),
        "leaf_value": tree.value[leaves].tolist(),
        "leaf_weight": tree.count[leaves].tolist(),
        "leaf_count": tree.count[leaves].tolist(),
        "internal_value": tree.value[splits].tolist(),
        "internal_weight": tree.count[splits].tolist(),
        "internal_count": tree.count[splits].tolist(),
    }
    lines = (f"{name}={' '.join(map(repr, values))}" for name, values in fields.items())
    return "\n".join((f"num_leaves={len(leaves)}", "num_cat=0", *lines, "is_linear=0", "shrinkage=1"))
