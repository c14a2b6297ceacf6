"""From feature vectors to the matrix a booster reads: numbers as they are, categories as codes in the card's order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features import scratch
from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
MISSING = float("nan")
EVERY = slice(None)
_KEPT_EVENTS = 128  # whose candidates' categories are kept with their codes: many events have the same ones


class Encoder:
    """Encodes categories in a fixed order. A value the order does not have is missing: LightGBM then knows it is no value it saw."""

    def __init__(self, categories: Mapping[str, Sequence[str]]) -> None:
        """Take the order of every category column, as the model's card has it."""
        self._codes = [{value: float(code) for code, value in enumerate(order)} for order in categories.values()]
        self._kept: dict[tuple[tuple[str | None, ...], ...], Floats] = {}

    def rows(self, numbers: Floats, categories: Sequence[Sequence[str | None]]) -> Floats:
        """Return float64[n, n_numbers + n_categories] for a few candidates, one list of categories per row."""
        wanted = tuple(map(tuple, categories))
        codes = self._kept.get(wanted)
        if codes is None:
            codes = self._encode(wanted)
        return np.concatenate((numbers, codes), axis=1)

    def _encode(self, categories: tuple[tuple[str | None, ...], ...]) -> Floats:
        """Return float64[n, n_categories]; it is kept where every value is of the order, so that what is kept is small."""
        found = [
            (value, codes.get(value, MISSING))  # type: ignore[arg-type]  # None is in no order
            for values in categories
            for codes, value in zip(self._codes, values, strict=True)
        ]
        matrix = np.array([code for _, code in found]).reshape(len(categories), len(self._codes))
        if all(value is None or code == code for value, code in found):  # noqa: PLR0124 - NaN
            if len(self._kept) >= _KEPT_EVENTS:
                self._kept.clear()
            self._kept[categories] = matrix
        return matrix

    def over(
        self, numbers: Floats, categories: Sequence[CategoryColumn], rows: Integers | None = None
    ) -> "EncodedRows":
        """Return the rows of a log, or these ``rows`` of it, that are encoded as they are asked for."""
        pairs = zip(categories, self._codes, strict=True)
        known = [
            np.array([codes.get(value, MISSING) for value in column.values] + [MISSING]) for column, codes in pairs
        ]
        return EncodedRows(numbers, [column.codes for column in categories], known, rows)

    def columns(self, numbers: Floats, categories: Sequence[CategoryColumn]) -> Floats:
        """Return the same matrix for a whole log, one `CategoryColumn` per category."""
        return self.over(numbers, categories).take(slice(None))


@dataclass(frozen=True)
class EncodedRows:
    """What a booster reads of a log, float64[n, n_numbers + n_categories], made in pieces: it never stands whole.

    ``numbers`` may lie on the disk (`features.scratch`): no more of them than a piece is held in memory.
    ``codes`` are each category's of the log, ``known`` what each of them is encoded as, the last for what is missing;
    ``rows`` (int64[n]) are those of the log that are meant, None for all.
    """

    numbers: Floats
    codes: Sequence[Integers]
    known: Sequence[Floats]
    rows: Integers | None = None

    def __len__(self) -> int:
        return len(self.numbers) if self.rows is None else len(self.rows)

    @property
    def n_features(self) -> int:
        """How many columns there are."""
        return int(self.numbers.shape[1]) + len(self.codes)

    def column(self, place: int, at: slice | NDArray[np.integer] = EVERY) -> Floats:
        """Return one column of the rows ``at``, float64[n_at]."""
        where, beyond = self._meant(at), place - self.numbers.shape[1]
        if beyond >= 0:
            codes: Floats = self.known[beyond][self.codes[beyond][where]]  # -1 reads the last of what is known: missing
            return codes
        cells = np.empty(len(where))
        for some, piece in scratch.pieces(self.numbers, where):
            cells[some] = piece[:, place]
        return cells

    def take(self, at: slice | NDArray[np.integer]) -> Floats:
        """Return the rows ``at``, float64[n_at, n_features]."""
        where, n_numbers = self._meant(at), self.numbers.shape[1]
        matrix = np.empty((len(where), self.n_features))
        for some, piece in scratch.pieces(self.numbers, where):
            matrix[some, :n_numbers] = piece
        for place in range(n_numbers, self.n_features):
            matrix[:, place] = self.column(place, at)
        return matrix

    def _meant(self, at: slice | NDArray[np.integer]) -> NDArray[np.integer]:
        """Return which rows of the log are those ``at``."""
        if self.rows is not None:
            return self.rows[at]
        return np.arange(len(self))[at] if isinstance(at, slice) else at
