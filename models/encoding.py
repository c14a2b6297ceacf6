"""From feature vectors to the matrix a booster reads: numbers as they are, categories as codes in the card's order."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from features.vector import CategoryColumn

Floats = NDArray[np.float64]
MISSING = float("nan")


class Encoder:
    """Encodes categories in a fixed order. A value the order does not have is missing: LightGBM then knows it is no value it saw."""

    def __init__(self, categories: Mapping[str, Sequence[str]]) -> None:
        """Take the order of every category column, as the model's card has it."""
        self._codes = [{value: float(code) for code, value in enumerate(order)} for order in categories.values()]

    def rows(self, numbers: Floats, categories: Sequence[Sequence[str | None]]) -> Floats:
        """Return float64[n, n_numbers + n_categories] for a few candidates, one list of categories per row."""
        n_numbers = numbers.shape[1]
        matrix = np.empty((len(numbers), n_numbers + len(self._codes)))
        matrix[:, :n_numbers] = numbers
        matrix[:, n_numbers:] = [
            [codes.get(value, MISSING) for codes, value in zip(self._codes, values, strict=True)]  # type: ignore[arg-type]  # None is in no order
            for values in categories
        ]
        return matrix

    def columns(self, numbers: Floats, categories: Sequence[CategoryColumn]) -> Floats:
        """Return the same matrix for a whole log, one `CategoryColumn` per category."""
        n_numbers = numbers.shape[1]
        matrix = np.empty((len(numbers), n_numbers + len(self._codes)))
        matrix[:, :n_numbers] = numbers
        for column, (category, codes) in enumerate(zip(categories, self._codes, strict=True)):
            known = np.array([codes.get(value, MISSING) for value in category.values] + [MISSING])
            matrix[:, n_numbers + column] = known[category.codes]  # -1 reads the last: missing
        return matrix
