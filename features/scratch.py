"""Tables that lie on the disk while nobody reads them: a log's vectors may be more than the memory that a fit of it takes."""

import math
import mmap
import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

Table = NDArray[Any]  # a row each along its first axis
Integers = NDArray[np.integer]

ROWS_AT_ONCE = 8_192


class Rows:
    """Rows of one ``shape`` and type, written one batch after the other to a file among the system's temporary files.

    The file has no name: the system gives its room back with the table, or with the process, however that dies.
    """

    def __init__(self, *shape: int, dtype: DTypeLike = np.float64) -> None:
        """Begin without rows; without a ``shape`` each row is a single cell."""
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._n_rows = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `table` closes it, or the end of this
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: Table) -> None:
        """Write ``rows``; a full disk is an OSError.

        Raises
        ------
        ValueError
            If they are of another shape.
        """
        if rows.shape[1:] != self._shape:
            raise ValueError(f"rows must be of shape {self._shape}, got {rows.shape[1:]}")
        self._file.write(np.ascontiguousarray(rows, self._dtype).view(np.uint8).data)
        self._n_rows += len(rows)

    def table(self) -> Table:
        """Return all rows, to be read only; nothing can be appended any more.

        What is read of it stays in memory unless it is read by `pieces`, though the system may take it back.
        """
        shape = (self._n_rows, *self._shape)
        with self._file:
            self._file.flush()
            if not math.prod(shape) * self._dtype.itemsize:
                return np.empty(shape, self._dtype)
            return np.ndarray(shape, self._dtype, mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))


def pieces(table: Table, rows: Integers | None = None) -> Iterator[tuple[slice, Table]]:
    """Yield ``table[rows]`` (all rows without any given) some at a time, each with its place, and let go of what was read.

    So a pass over a table on the disk takes the memory of a piece. One in memory alone is read the same way.
    """
    n_rows = len(table) if rows is None else len(rows)
    for start in range(0, n_rows, ROWS_AT_ONCE):
        at = slice(start, min(start + ROWS_AT_ONCE, n_rows))
        yield at, table[at] if rows is None else table[rows[at]]
        _let_go(table)


def take(table: Table, rows: Integers) -> Table:
    """Return ``table[rows]``, a copy in memory, read as `pieces` reads."""
    taken = np.empty((len(rows), *table.shape[1:]), table.dtype)
    for at, piece in pieces(table, rows):
        taken[at] = piece
    return taken


def _let_go(array: Table) -> None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
