"""Leaf-mask tables: a booster compiled for scoring a few rows at once, as data; built by the publisher, read by the shim.

After QuickScorer (Lucchese, Nardini, Orlando, Perego, Tonellotto and Venturini, *QuickScorer: a fast algorithm to rank
documents with additive ensembles of regression trees*, SIGIR 2015): a leaf is a bit, and a split that a row fails takes the
bits of the leaves on its left away. Here the masks of all splits on one feature are ANDed in advance for every
interval between two thresholds (and for zero, NaN and every category), over all trees: one table row each. A row's score
needs one table row per feature, their AND, and the lowest bit left in every tree.

What it costs: (thresholds + 3) x trees x 4 or 8 bytes per feature. What it cannot hold is refused by name.

The file, little-endian: the magic line, eight int64, two float64, then the arrays of `LeafMasks` from `columns` on, each at a
multiple of 64 bytes.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from models.releases.bundle import TABLES_MAGIC as MAGIC
from models.trees import Forest, Link, LinkName, Split, UnsupportedModelError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Masks = NDArray[np.uint32] | NDArray[np.uint64]

MAX_LEAVES: Final = 64
MAX_BYTES: Final = 64 * 1024 * 1024
MAX_CATEGORY: Final = 1 << 20
BLOCK: Final = 16  # trees are padded to a multiple of it, as the C form wants them
NUMBER, CATEGORY = 0, 1  # kinds of a column
AFTER_NUMBERS: Final = 3  # rows beside one per threshold: above all of them, zero, NaN

_ALIGNMENT = 64
_HEAD = struct.Struct("<8q2d")
_LINKS: Final[tuple[LinkName, ...]] = ("identity", "sigmoid", "exponential", "square", "softplus")
_FIELDS = 5


class TableError(ValueError):
    """A file that holds no leaf-mask tables, or tables that lead outside of themselves."""


@dataclass(frozen=True, kw_only=True)
class LeafMasks:
    """The tables of one booster.

    ``columns`` int64[n_columns, 5] says of each feature that is split on: its index, its kind, where its thresholds
    (float64, rising) or its categories' rows (``lookup`` int32, by category) start, how many they are, and its first row.
    A number's rows are by the count of thresholds below it, then zero, then NaN; a category's first row is of all that no
    split knows. ``values`` float64[n_trees, width] are the leaves from left to right, NaN where there is none; ``masks``
    uint[n_rows, n_trees] with ``width`` bits each.
    """

    n_features: int
    link: Link
    columns: Integers
    thresholds: Floats
    lookup: NDArray[np.int32]
    values: Floats
    masks: Masks

    @property
    def width(self) -> int:
        """Bits of a mask."""
        return self.masks.dtype.itemsize * 8

    @property
    def link_number(self) -> int:
        """The link, as the file and the C form number it."""
        return _LINKS.index(self.link.name)

    @classmethod
    def build(cls, forest: Forest) -> Self:
        """Compile ``forest``.

        Raises
        ------
        UnsupportedModelError
            If a tree has more than 64 leaves, a feature is split on as a number and as a category, there is no tree, or
            the tables would be larger than `MAX_BYTES`.
        """
        n_leaves = max((len(tree.values) for tree in forest.trees), default=0)
        if not 1 <= n_leaves <= MAX_LEAVES:
            raise UnsupportedModelError(f"a tree must have 1 to {MAX_LEAVES} leaves, got {n_leaves}")
        width = 32 if n_leaves <= 32 else 64  # noqa: PLR2004 - the two sizes of a mask
        n_trees = -(-len(forest.trees) // BLOCK) * BLOCK
        values = np.full((n_trees, width), np.nan)
        values[:, 0] = 0.0  # what padding adds
        for place, tree in enumerate(forest.trees):
            values[place, : len(tree.values)] = tree.values
        drafts = _drafts(forest)
        n_rows = sum(draft.n_rows for draft in drafts)
        if (n_bytes := n_rows * n_trees * width // 8) > MAX_BYTES:
            raise UnsupportedModelError(f"tables must take at most {MAX_BYTES} bytes, got {n_bytes}")
        masks = np.full((n_rows, n_trees), np.iinfo(f"u{width // 8}").max, dtype=f"u{width // 8}")
        return cls(
            n_features=forest.n_features,
            link=forest.link,
            columns=_fill(drafts, masks),
            thresholds=np.array([each for draft in drafts for each in draft.thresholds], dtype=np.float64),
            lookup=np.array([each for draft in drafts for each in draft.lookup], dtype=np.int32),
            values=values,
            masks=masks,
        )

    def write(self, path: Path) -> None:
        """Write the tables to ``path``; the same tables give the same bytes."""
        counts = (
            *(self.n_features, self.width, *self.values.shape[:1], len(self.columns)),
            *(len(self.thresholds), len(self.lookup), len(self.masks), self.link_number),
        )
        with path.open("wb") as file:
            file.write(MAGIC + _HEAD.pack(*counts, self.link.parameter, self.link.divisor))
            for array in (self.columns, self.thresholds, self.lookup, self.values, self.masks):
                file.write(b"\0" * (-file.tell() % _ALIGNMENT))
                file.write(array.tobytes())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the tables in the file at ``path``, mapped: pages that are not scored with are never read.

        Raises
        ------
        TableError
            If anything in it is not as `build` and `write` would have made it, as far as scoring relies on it.
        OSError
            If it cannot be read.
        """
        size = path.stat().st_size
        if size < len(MAGIC) + _HEAD.size:
            raise TableError(f"{path.name}: expected leaf-mask tables, found {size} bytes")
        data = np.asarray(np.memmap(path, dtype=np.uint8, mode="r"))
        if data[: len(MAGIC)].tobytes() != MAGIC:
            raise TableError(f"{path.name}: expected leaf-mask tables, found another file")
        try:
            tables = cls._of(data)
            tables.check()
        except TableError as error:
            raise TableError(f"{path.name}: {error}") from None
        return tables

    @classmethod
    def _of(cls, data: NDArray[np.uint8]) -> Self:
        head = _HEAD.unpack(data[len(MAGIC) : len(MAGIC) + _HEAD.size].tobytes())
        n_features, width, n_trees, n_columns, n_thresholds, n_lookup, n_rows, link = head[:8]
        if min(head[:8]) < 0 or max(head[:8]) > MAX_BYTES or width not in (32, 64) or link >= len(_LINKS):
            raise TableError(f"expected sizes within bounds, found {head[:8]}")
        shapes: dict[str, tuple[tuple[int, ...], str]] = {
            "columns": ((n_columns, _FIELDS), "<i8"),
            "thresholds": ((n_thresholds,), "<f8"),
            "lookup": ((n_lookup,), "<i4"),
            "values": ((n_trees, width), "<f8"),
            "masks": ((n_rows, n_trees), f"<u{width // 8}"),
        }
        arrays: dict[str, Any] = {}
        offset = len(MAGIC) + _HEAD.size
        for name, (shape, kind) in shapes.items():
            offset += -offset % _ALIGNMENT
            end = offset + int(np.prod(shape)) * np.dtype(kind).itemsize
            if end > len(data):
                raise TableError(f"{name} would end at byte {end} of {len(data)}")
            arrays[name], offset = data[offset:end].view(kind).reshape(shape), end
        if offset != len(data):
            raise TableError(f"expected {offset} bytes, found {len(data)}")
        return cls(n_features=n_features, link=Link(name=_LINKS[link], parameter=head[8], divisor=head[9]), **arrays)

    def check(self) -> None:
        """Raise `TableError` where scoring would be led outside of the tables, or astray."""
        n_trees = len(self.values)
        if self.n_features < 1 or not n_trees or n_trees % BLOCK or self.masks.shape[1:] != (n_trees,):
            raise TableError(f"expected features and trees by {BLOCK}, found {self.n_features} and {n_trees}")
        if not (np.isfinite(self.link.parameter) and self.link.divisor > 0.0):
            raise TableError(f"expected a link with a finite parameter, found {self.link}")
        if not np.isfinite(self.values[:, 0]).all():
            raise TableError("expected a first leaf in every tree, found one that is no number")
        for number, column in enumerate(self.columns.tolist()):
            if not self._is_sound(*column):
                raise TableError(f"column {number} leads outside of the tables: {column}")

    def _is_sound(self, feature: int, kind: int, start: int, count: int, first: int) -> bool:
        if kind not in (NUMBER, CATEGORY) or not 0 <= feature < self.n_features or min(start, count - 1, first) < 0:
            return False
        items = self.thresholds if kind == NUMBER else self.lookup
        of_column = items[start : start + count]
        if len(of_column) != count:
            return False
        if kind == NUMBER:
            rises = not np.isnan(of_column[0]) and bool((np.diff(of_column) > 0.0).all())
            return rises and first + count + AFTER_NUMBERS <= len(self.masks)
        highest = int(of_column.max(initial=0))
        return int(of_column.min(initial=0)) >= 0 and first + highest < len(self.masks)


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """The column of one feature before it has its place: its splits, each with its tree."""

    feature: int
    splits: Sequence[tuple[int, Split]]
    thresholds: Sequence[float] = ()
    lookup: Sequence[int] = ()

    @property
    def n_rows(self) -> int:
        return max(self.lookup) + 1 if self.lookup else len(self.thresholds) + AFTER_NUMBERS

    def fill(self, rows: Masks) -> None:
        """Take from ``rows``, all ones at first, the leaves that each value's failed splits exclude."""
        place = {threshold: number for number, threshold in enumerate(self.thresholds)}
        known = {category: row for category, row in enumerate(self.lookup) if row}
        for tree, split in self.splits:
            begin, middle, _ = split.leaves
            kept = rows.dtype.type(~(((1 << middle - begin) - 1) << begin) & int(np.iinfo(rows.dtype).max))
            if split.categories is not None:
                outside = [row for category, row in known.items() if category not in split.categories]
                rows[[0, *outside], tree] &= kept
                continue
            rows[place[split.threshold] + 1 : len(place) + 1, tree] &= kept
            if not split.goes_left_at_zero():
                rows[len(place) + 1, tree] &= kept
            if not split.goes_left_at_nan():
                rows[len(place) + 2, tree] &= kept


def _drafts(forest: Forest) -> list[_Draft]:
    by_feature: dict[int, list[tuple[int, Split]]] = {}
    for number, tree in enumerate(forest.trees):
        for split in tree.splits:
            by_feature.setdefault(split.feature, []).append((number, split))
    return [_draft(feature, splits) for feature, splits in sorted(by_feature.items())]


def _draft(feature: int, splits: Sequence[tuple[int, Split]]) -> _Draft:
    categories = [split.categories for _, split in splits if split.categories is not None]
    if not categories:
        thresholds = sorted({split.threshold for _, split in splits})
        return _Draft(feature=feature, splits=splits, thresholds=thresholds)
    if len(categories) != len(splits):
        raise UnsupportedModelError(f"feature {feature} is split on as a number and as a category")
    known = frozenset[int]().union(*categories)
    if (highest := max(known, default=0)) > MAX_CATEGORY:
        raise UnsupportedModelError(f"feature {feature} has the category {highest}, which is too large")
    lookup = [0] * (highest + 1)
    for row, category in enumerate(sorted(known), start=1):
        lookup[category] = row
    return _Draft(feature=feature, splits=splits, lookup=lookup)


def _fill(drafts: Sequence[_Draft], masks: Masks) -> Integers:
    """Fill ``masks`` and return the columns."""
    columns = np.empty((len(drafts), _FIELDS), dtype=np.int64)
    n_thresholds = n_lookup = first = 0
    for number, draft in enumerate(drafts):
        kind, start, count = CATEGORY, n_lookup, len(draft.lookup)
        if not draft.lookup:
            kind, start, count = NUMBER, n_thresholds, len(draft.thresholds)
        columns[number] = (draft.feature, kind, start, count, first)
        draft.fill(masks[first : first + draft.n_rows])
        n_thresholds, n_lookup, first = (
            n_thresholds + len(draft.thresholds),
            n_lookup + len(draft.lookup),
            first + draft.n_rows,
        )
    return columns
