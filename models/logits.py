"""The parts that give an event its logits: a linear one and one with a hidden layer, as arrays in ``.npy`` files, numpy alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from models.router import ContractMismatchError
from models.text_terms import Columns, Floats32

Floats = NDArray[np.float64]

# Half precision halves the bytes sent to every shim; in memory it made the linear part five times slower.
ON_DISK = np.float16


@dataclass(frozen=True)
class Linear:
    """A linear part: ``weights`` float32[n_terms, n_columns], ``intercept`` float32[n_columns]."""

    FILES: ClassVar = ("linear_weights.npy", "linear_intercept.npy")

    weights: Floats32
    intercept: Floats32

    def score(self, columns: Columns, values: Floats32) -> Floats32:
        """Return float32[n_columns] for one sparse event."""
        scores: Floats32 = values @ self.weights.take(columns, axis=0) + self.intercept
        return scores

    @classmethod
    def load(cls, folder: Path, n_terms: int, n_columns: int) -> Self:
        """Return the part in ``folder``, or raise ContractMismatchError if it cannot be read or does not fit."""
        weights, intercept = (_read(folder / file) for file in cls.FILES)
        _expect(folder / cls.FILES[0], weights, (n_terms, n_columns))
        _expect(folder / cls.FILES[1], intercept, (n_columns,))
        return cls(weights, intercept)

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        _write(folder, self.FILES, (self.weights.astype(ON_DISK), self.intercept))


@dataclass(frozen=True)
class Neural:
    """One hidden layer of rectified units over the most frequent terms: the first ``len(hidden_weights)`` columns."""

    FILES: ClassVar = ("hidden_weights.npy", "hidden_intercept.npy", "output_weights.npy", "output_intercept.npy")

    hidden_weights: Floats32
    hidden_intercept: Floats32
    output_weights: Floats32
    output_intercept: Floats32

    def score(self, columns: Columns, values: Floats32) -> Floats32:
        """Return float32[n_columns] for one sparse event."""
        read = columns < len(self.hidden_weights)
        hidden = values[read] @ self.hidden_weights.take(columns[read], axis=0) + self.hidden_intercept
        scores: Floats32 = np.maximum(hidden, 0.0) @ self.output_weights + self.output_intercept
        return scores

    @classmethod
    def load(cls, folder: Path, n_terms: int, n_columns: int) -> Self:
        """Return the part in ``folder``, or raise ContractMismatchError if it cannot be read or does not fit."""
        hidden_weights, hidden_intercept, output_weights, output_intercept = (
            _read(folder / file) for file in cls.FILES
        )
        n_inputs, n_hidden = min(len(hidden_weights), n_terms), hidden_intercept.size
        _expect(folder / cls.FILES[0], hidden_weights, (n_inputs, n_hidden))
        _expect(folder / cls.FILES[1], hidden_intercept, (n_hidden,))
        _expect(folder / cls.FILES[2], output_weights, (n_hidden, n_columns))
        _expect(folder / cls.FILES[3], output_intercept, (n_columns,))
        return cls(hidden_weights, hidden_intercept, output_weights, output_intercept)

    def save(self, folder: Path) -> None:
        """Write the arrays."""
        arrays = (
            self.hidden_weights.astype(ON_DISK),
            self.hidden_intercept,
            self.output_weights,
            self.output_intercept,
        )
        _write(folder, self.FILES, arrays)


def softmax(logits: Floats) -> Floats:
    """Return probabilities float64[n, n_columns], each row adding up to one."""
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = grown / grown.sum(axis=1, keepdims=True)
    return shares


def _write(folder: Path, files: tuple[str, ...], arrays: tuple[NDArray[np.floating], ...]) -> None:
    for file, array in zip(files, arrays, strict=True):
        np.save(folder / file, array, allow_pickle=False)


def _read(file: Path) -> Floats32:
    try:
        array: NDArray[np.floating] = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ContractMismatchError(f"{file.name} cannot be read: {error}") from None
    if array.dtype not in (np.float16, np.float32) or not array.ndim or not np.isfinite(array).all():
        raise ContractMismatchError(f"{file.name} must hold finite float16 or float32 values, it holds {array.dtype}")
    return array.astype(np.float32, copy=False)


def _expect(file: Path, array: Floats32, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ContractMismatchError(f"{file.name} has the shape {array.shape}, card and vocabulary make it {shape}")
