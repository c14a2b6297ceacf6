"""LightGBM's text as trees: what a scorer of another make than LightGBM's needs to know of a model, or why it cannot have it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import numpy as np

Missing = Literal["none", "zero", "nan"]
LinkName = Literal["identity", "sigmoid", "exponential", "square", "softplus"]

# LightGBM compares with this float, so that 1e-35 itself, a double, is zero.
ZERO_THRESHOLD: Final = float(np.float32(1e-35))

_CATEGORICAL_BIT, _DEFAULT_LEFT_BIT, _MISSING_SHIFT = 1, 2, 2  # of a decision type, from LightGBM's tree.h
_MISSING: Final[tuple[Missing, ...]] = ("none", "zero", "nan")
_WORD_BITS = 32
# By LightGBM's name of the objective; those of one output per row alone.
_LINKS: Final[Mapping[str, LinkName]] = {
    **dict.fromkeys(("regression", "regression_l1", "huber", "fair", "quantile", "mape"), "identity"),
    **dict.fromkeys(("lambdarank", "rank_xendcg"), "identity"),
    **dict.fromkeys(("poisson", "gamma", "tweedie"), "exponential"),
    **dict.fromkeys(("binary", "cross_entropy"), "sigmoid"),
    "cross_entropy_lambda": "softplus",
}


class UnsupportedModelError(ValueError):
    """A model that only LightGBM itself can score: names what of it."""


@dataclass(frozen=True, kw_only=True)
class Link:
    """What becomes of a raw score: it is divided by ``divisor``, then ``name`` is applied, a sigmoid with ``parameter``."""

    name: LinkName = "identity"
    parameter: float = 1.0
    divisor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Split:
    """One decision. A row goes left where its ``feature`` is at most ``threshold``, or in ``categories`` where there are such.

    ``leaves`` are the places, in the order from left to right, of the first leaf below it, of the first on its right,
    and of the first after it.
    """

    feature: int
    leaves: tuple[int, int, int]
    threshold: float = 0.0
    missing: Missing = "none"
    default_left: bool = False
    categories: frozenset[int] | None = None

    def goes_left_at_zero(self) -> bool:
        """Tell where a number goes that is as good as zero."""
        return self.default_left if self.missing == "zero" else self.threshold >= 0.0

    def goes_left_at_nan(self) -> bool:
        """Tell where NaN goes; a model that saw none in training reads it as zero."""
        return self.default_left if self.missing == "nan" else self.goes_left_at_zero()


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree: its splits in any order, and its leaves' values from left to right."""

    values: tuple[float, ...]
    splits: tuple[Split, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Forest:
    """All trees of a model, in the order in which their values are added, and what becomes of the sum."""

    n_features: int
    trees: tuple[Tree, ...]
    link: Link = field(default_factory=Link)


def parse(text: str) -> Forest:
    """Return the trees of ``text``, a model that LightGBM has written.

    Raises
    ------
    UnsupportedModelError
        If it has several outputs, linear trees, or an objective that is not known here.
    ValueError, LookupError
        If it is no such text.
    """
    blocks = text.partition("end of trees")[0].split("\nTree=")
    header = _pairs(blocks[0])
    for name in ("num_class", "num_tree_per_iteration"):
        if header.get(name) != "1":
            raise UnsupportedModelError(f"{name} must be 1, got {header.get(name)}")
    trees = tuple(_tree(_pairs(block)) for block in blocks[1:])
    divisor = float(len(trees)) if "average_output" in blocks[0].splitlines() and trees else 1.0
    return Forest(n_features=int(header["max_feature_idx"]) + 1, trees=trees, link=_link(header, divisor))


def _pairs(block: str) -> dict[str, str]:
    return {key: value for key, found, value in (line.partition("=") for line in block.splitlines()) if found}


def _link(header: Mapping[str, str], divisor: float) -> Link:
    objective = header.get("objective")
    if objective is None:  # the caller's own: LightGBM leaves the sum as it is
        return Link(divisor=divisor)
    name, *options = objective.split()
    link, parameter = _LINKS.get(name), 1.0
    for option in options:
        key, _, value = option.partition(":")
        if (name, key) == ("binary", "sigmoid"):
            parameter = float(value)
        elif name in ("regression", "regression_l1") and option == "sqrt":
            link = "square"
        elif not value:
            raise UnsupportedModelError(f"objective {name} has the option {option!r}, which is not known here")
    if link is None:
        raise UnsupportedModelError(f"objective {name!r} is not known here")
    return Link(name=link, parameter=parameter, divisor=divisor)


def _tree(fields: Mapping[str, str]) -> Tree:
    if fields.get("is_linear", "0") != "0":
        raise UnsupportedModelError("a tree has linear leaves")
    values = tuple(map(float, fields["leaf_value"].split()))
    if int(fields["num_leaves"]) == 1:
        return Tree(values=(values[0],))
    nodes = _Nodes.of(fields)
    order: list[int] = []
    splits = tuple(nodes.split(node, leaves) for node, leaves in _spans(nodes, order))
    return Tree(values=tuple(values[leaf] for leaf in order), splits=splits)


@dataclass(frozen=True, kw_only=True)
class _Nodes:
    """The splits of one tree, column by column as the text has them."""

    features: list[int]
    thresholds: list[float]
    decisions: list[int]
    left: list[int]
    right: list[int]
    bounds: list[int]
    words: list[int]

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> Self:
        return cls(
            features=_integers(fields["split_feature"]),
            thresholds=[float(word) for word in fields["threshold"].split()],
            decisions=_integers(fields["decision_type"]),
            left=_integers(fields["left_child"]),
            right=_integers(fields["right_child"]),
            bounds=_integers(fields.get("cat_boundaries", "")),
            words=_integers(fields.get("cat_threshold", "")),
        )

    def split(self, node: int, leaves: tuple[int, int, int]) -> Split:
        decision, feature, threshold = self.decisions[node], self.features[node], self.thresholds[node]
        if decision & _CATEGORICAL_BIT:
            return Split(feature=feature, leaves=leaves, categories=self._categories(int(threshold)))
        return Split(
            feature=feature,
            leaves=leaves,
            threshold=threshold,
            missing=_MISSING[decision >> _MISSING_SHIFT & 0x3],
            default_left=bool(decision & _DEFAULT_LEFT_BIT),
        )

    def _categories(self, index: int) -> frozenset[int]:
        words = self.words[self.bounds[index] : self.bounds[index + 1]]
        bits = range(_WORD_BITS)
        return frozenset(
            place * _WORD_BITS + bit for place, word in enumerate(words) for bit in bits if word >> bit & 1
        )


def _spans(nodes: _Nodes, order: list[int]) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield every node's leaves, as `Split` has them, and append the numbers of the leaves to ``order`` from left to right.

    Without recursion: a tree of many leaves may be as deep as it has nodes.
    """
    begin: dict[int, int] = {}
    middle: dict[int, int] = {}
    ahead = [(0, "enter")]
    while ahead:
        node, step = ahead.pop()
        if node < 0:
            order.append(~node)
        elif step == "enter":
            begin[node] = len(order)
            ahead += [(node, "leave"), (nodes.right[node], "enter"), (node, "between"), (nodes.left[node], "enter")]
        elif step == "between":
            middle[node] = len(order)
        else:
            yield node, (begin[node], middle[node], len(order))


def _integers(text: str) -> list[int]:
    return [int(word) for word in text.split()]
