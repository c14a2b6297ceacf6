"""What scores a booster's rows: its leaf-mask tables in C, the same tables in numpy, or LightGBM, in this order.

All three give the same bits. Tables lie beside the booster's text (``NAME.masks`` beside ``NAME.txt``); where there are
none, or the C form was not built when Turnout was installed, the next form serves.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.booster import Booster
from models.leaf_masks import CATEGORY, NUMBER, LeafMasks
from models.releases.bundle import TABLES_SUFFIX as SUFFIX
from models.trees import ZERO_THRESHOLD, Link

try:
    from models import _masks
except ImportError:  # no compiler at the installation
    _masks = None  # type: ignore[assignment]  # looked at before every use

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Form = Literal["c", "numpy", "booster"]

FORMS: Final[tuple[Form, ...]] = ("c", "numpy", "booster")  # the fastest first
_FRACTION_BITS, _EXPONENT_BIAS = 52, 1023  # of a float64: the exponent of a power of two is the place of its bit
_CHUNK_ROWS: Final = 64  # of the numpy form, so that what it gathers stays in the cache


class Tables(Protocol):
    """Leaf-mask tables in a form that scores."""

    def score(self, matrix: Floats, out: Floats, raw_score: bool, /) -> None:  # noqa: FBT001 - C takes no keywords
        """Fill ``out``, float64[n], from ``matrix``, float64[n, n_features]; both C-contiguous."""


class Engine:
    """A booster for scoring, in the fastest form that is to be had here; ``form`` says which."""

    def __init__(self, path: Path, *, n_features: int, form: Form, tables: Tables | None) -> None:
        """Score by ``tables``, or where there are none by the booster whose text is at ``path``."""
        self.path = path
        self.n_features = n_features
        self.form = form
        self._tables = tables

    @classmethod
    def load(cls, path: Path, *, fastest: Form = "c") -> Self:
        """Return the engine of the booster whose text is at ``path``, a *verified* file; ``fastest`` is tried first.

        Raises
        ------
        TableError, LightGBMError
            If the tables, or where there are none the text, cannot be read.
        """
        tables_path = path.with_suffix(SUFFIX)
        if fastest == "booster" or not tables_path.exists():
            engine = cls(path, n_features=0, form="booster", tables=None)
            engine.n_features = engine.booster.n_features
            return engine
        tables = LeafMasks.read(tables_path)
        if fastest == "c" and is_compiled():
            return cls(path, n_features=tables.n_features, form="c", tables=compile_tables(tables))
        return cls(path, n_features=tables.n_features, form="numpy", tables=NumpyMasks(tables))

    @property
    def compiled(self) -> Tables | None:
        """The tables in C; None where another form scores."""
        return self._tables if self.form == "c" else None

    @cached_property
    def booster(self) -> Booster:
        """LightGBM's own form, read when it is first asked for."""
        return Booster.load(self.path)

    def predict(self, matrix: ArrayLike, *, raw_score: bool = False) -> Floats:
        """Return one prediction per row, as `Booster.predict` does, to the same bits."""
        if self._tables is None:
            return self.booster.predict(matrix, raw_score=raw_score)
        rows = np.asarray(matrix, dtype=np.float64, order="C")
        if rows.ndim != 2 or rows.shape[1] != self.n_features:  # noqa: PLR2004 - a matrix
            raise ValueError(f"matrix must have shape (n, {self.n_features}), got {rows.shape}")
        predicted = np.empty(len(rows))
        self._tables.score(rows, predicted, raw_score)
        return predicted

    def contributions(self, matrix: ArrayLike) -> Floats:
        """Return what each feature adds to the raw score, as `Booster.contributions` does: LightGBM alone can tell."""
        return self.booster.contributions(matrix)


def is_compiled() -> bool:
    """Tell whether the C form was built when Turnout was installed."""
    return _masks is not None


def compile_tables(tables: LeafMasks) -> Tables:
    """Return ``tables`` in the C form, which checks them once more.

    Raises
    ------
    RuntimeError
        If it was not built.
    ValueError
        If the tables lead outside of themselves.
    """
    if not is_compiled():
        raise RuntimeError("the C form was not built: there was no compiler when Turnout was installed")
    return _masks.Masks(
        n_features=tables.n_features,
        n_trees=len(tables.values),
        width=tables.width,
        link=tables.link_number,
        parameter=tables.link.parameter,
        divisor=tables.link.divisor,
        columns=tables.columns,
        thresholds=tables.thresholds,
        lookup=tables.lookup,
        values=tables.values,
        masks=tables.masks,
    )


class NumpyMasks:
    """Leaf-mask tables scored by numpy."""

    def __init__(self, tables: LeafMasks) -> None:
        """Prepare ``tables``, which have been checked."""
        self._tables = tables
        numbers = tables.columns[tables.columns[:, 1] == NUMBER]
        self._categories, self._lookup = tables.columns[tables.columns[:, 1] == CATEGORY], tables.lookup
        self._number_features, self._count, self._first = numbers[:, 0], numbers[:, 3], numbers[:, 4]
        # One search finds the place of a number among the thresholds of all columns, a table those of its own below it.
        self._thresholds = np.unique(tables.thresholds)
        self._below = np.zeros((len(numbers), len(self._thresholds) + 1), dtype=np.int32)
        for place, (start, count) in enumerate(numbers[:, 2:4]):
            own = np.searchsorted(self._thresholds, tables.thresholds[start : start + count])
            self._below[place, own + 1] = 1
        self._below = self._below.cumsum(axis=1, dtype=np.int32)
        self._numbers = np.arange(len(numbers))
        self._masks, self._values = tables.masks, tables.values.ravel()
        self._last = tables.masks.dtype.type(1 << tables.width - 1)  # bad tables still name a leaf
        self._leaf_offsets = np.arange(len(tables.values)) * tables.width - _EXPONENT_BIAS

    def score(self, matrix: Floats, out: Floats, raw_score: bool, /) -> None:  # noqa: FBT001 - as the C form
        """Fill ``out``, float64[n], from ``matrix``, float64[n, n_features]."""
        for start in range(0, len(matrix), _CHUNK_ROWS):
            rows = matrix[start : start + _CHUNK_ROWS]
            out[start : start + len(rows)] = self._sums(rows)
        if not raw_score:
            out[:] = convert(out, self._tables.link)

    def _sums(self, matrix: Floats) -> Floats:
        """Return the sum of each row's leaves, added one after the other in the order of the trees."""
        rows = self._rows(matrix)
        is_shared = (rows == rows[0]).all(axis=0)  # the event's own columns: ANDed once for all candidates
        left = np.bitwise_and.reduce(self._masks.take(rows[0, is_shared], axis=0), axis=0)
        own = rows[:, ~is_shared]
        left = np.bitwise_and.reduce(self._masks.take(own, axis=0), axis=1) & left | self._last
        lowest = left & (~left + left.dtype.type(1))
        exponents = lowest.astype(np.float64).view(np.int64) >> _FRACTION_BITS
        leaves = self._values.take(exponents + self._leaf_offsets, mode="clip")
        total: Floats = np.cumsum(leaves, axis=1)[:, -1]  # a plain sum adds in another order
        return total + 0.0  # -0.0 becomes 0.0, LightGBM's beginning

    def _rows(self, matrix: Floats) -> Integers:
        """Return the table rows of every row's columns, int64[n, n_columns]."""
        cells = matrix[:, self._number_features]
        below = self._below[self._numbers, np.searchsorted(self._thresholds, cells)]
        places = np.where(np.abs(cells) <= ZERO_THRESHOLD, self._count + 1, below)
        rows = [self._first + np.where(np.isnan(cells), self._count + 2, places)]
        if len(self._categories):
            features, _, starts, counts, firsts = self._categories.T
            values = matrix[:, features]
            known = (values > -1.0) & (values < counts)
            codes = self._lookup.take(starts + np.where(known, values, 0.0).astype(np.int64))
            rows.append(firsts + np.where(known, codes, 0))
        return np.concatenate(rows, axis=1)


def convert(raw: Floats, link: Link) -> Floats:
    """Return what ``link`` makes of raw scores, by the C library's own functions: numpy's differ in the last bit."""
    scores = raw / link.divisor
    if link.name == "sigmoid":
        return 1.0 / (1.0 + _exp(-link.parameter * scores))
    if link.name == "exponential":
        return _exp(scores)
    if link.name == "square":
        return np.sign(scores) * scores * scores
    if link.name == "softplus":
        return np.array([math.log1p(each) for each in _exp(scores).tolist()])
    return scores


def _exp(exponents: Floats) -> Floats:
    return np.array([_exp_one(each) for each in exponents.tolist()])


def _exp_one(exponent: float) -> float:
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
