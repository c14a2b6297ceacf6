"""From feature vectors to the matrix a booster reads: numbers as they are, categories as codes in the card's order."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.vector import CategoryColumn

Floats = NDArray[np.float64]
MISSING = float("nan")
_ROWS_AT_ONCE = 65_536
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

    def columns(
        self, numbers: Floats, categories: Sequence[CategoryColumn], rows: NDArray[np.int64] | None = None
    ) -> Floats:
        """Return the same matrix for a whole log, one `CategoryColumn` per category; or for these ``rows`` of it."""
        n_rows, n_numbers = len(numbers) if rows is None else len(rows), numbers.shape[1]
        matrix = np.empty((n_rows, n_numbers + len(self._codes)))
        for at in (slice(start, start + _ROWS_AT_ONCE) for start in range(0, n_rows, _ROWS_AT_ONCE)):
            matrix[at, :n_numbers] = numbers[at if rows is None else rows[at]]  # a whole copy would double the memory
        for column, (category, codes) in enumerate(zip(categories, self._codes, strict=True)):
            known = np.array([codes.get(value, MISSING) for value in category.values] + [MISSING])
            wanted = category.codes if rows is None else category.codes[rows]
            matrix[:, n_numbers + column] = known[wanted]  # -1 reads the last: missing
        return matrix
