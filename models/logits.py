"""The parts that give an event its logits: a linear one and one with a hidden layer, numpy alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models import arrays
from models.arrays import Floats32
from models.text_encoder import Columns

Floats = NDArray[np.float64]

# Half precision halves the bytes sent to every shim; in memory it made the linear part five times slower.
ON_DISK = np.float16


@dataclass(frozen=True)
class Linear:
    """A linear part: ``weights`` float32[n_terms, n_columns], ``intercept`` float32[n_columns]."""

    FILE: ClassVar = "linear.json"

    weights: Floats32
    intercept: Floats32

    def score(self, columns: Columns, values: Floats32) -> Floats32:
        """Return float32[n_columns] for one sparse event."""
        scores = add_rows(values, self.weights.take(columns, axis=0))
        scores += self.intercept
        return scores

    @classmethod
    def load(cls, folder: Path, n_terms: int, n_columns: int) -> Self:
        """Return the part in ``folder``, or raise ContractMismatchError if it cannot be read or does not fit."""
        file = folder / cls.FILE
        weights, intercept = arrays.read(file, "weights", "intercept")
        arrays.expect(file, "weights", weights, (n_terms, n_columns))
        arrays.expect(file, "intercept", intercept, (n_columns,))
        return cls(weights, intercept)

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        arrays.write(folder / self.FILE, {"weights": self.weights.astype(ON_DISK), "intercept": self.intercept})


@dataclass(frozen=True)
class Neural:
    """One hidden layer of rectified units over the most frequent terms: the first ``len(hidden_weights)`` columns."""

    FILE: ClassVar = "neural.json"
    NAMES: ClassVar = ("hidden_weights", "hidden_intercept", "output_weights", "output_intercept")

    hidden_weights: Floats32
    hidden_intercept: Floats32
    output_weights: Floats32
    output_intercept: Floats32

    def score(self, columns: Columns, values: Floats32) -> Floats32:
        """Return float32[n_columns] for one sparse event."""
        (read,) = (columns < len(self.hidden_weights)).nonzero()
        hidden = add_rows(values.take(read), self.hidden_weights.take(columns.take(read), axis=0))
        hidden += self.hidden_intercept
        (active,) = np.maximum(hidden, 0.0, out=hidden).nonzero()
        scores = add_rows(hidden.take(active), self.output_weights.take(active, axis=0))
        scores += self.output_intercept
        return scores

    @classmethod
    def load(cls, folder: Path, n_terms: int, n_columns: int) -> Self:
        """Return the part in ``folder``, or raise ContractMismatchError if it cannot be read or does not fit."""
        file = folder / cls.FILE
        read = arrays.read(file, *cls.NAMES)
        n_inputs, n_hidden = min(len(read[0]), n_terms), read[1].size
        shapes = (n_inputs, n_hidden), (n_hidden,), (n_hidden, n_columns), (n_columns,)
        for name, array, shape in zip(cls.NAMES, read, shapes, strict=True):
            arrays.expect(file, name, array, shape)
        return cls(*read)

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        held = {name: getattr(self, name) for name in self.NAMES}
        arrays.write(folder / self.FILE, {**held, "hidden_weights": self.hidden_weights.astype(ON_DISK)})


def add_rows(values: Floats32, rows: Floats32) -> Floats32:
    """Return float32[n_columns]: the ``rows``, each times its value, added one after another; writes to ``rows``.

    This is the order in which C adds (models/native/sums.h); a matrix product has one of its own on every machine.
    """
    rows *= values[:, None]
    if rows.shape[1] == 1 and len(rows):  # numpy adds the rows of a single column in pairs
        return np.asarray(np.add.accumulate(rows)[-1])
    return np.asarray(np.add.reduce(rows))


def softmax(logits: Floats) -> Floats:
    """Return probabilities float64[n, n_columns], each row adding up to one."""
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = grown / grown.sum(axis=1, keepdims=True)
    return shares
