"""Vectors that lie on the disk while nobody reads them: a log's may be more than the memory that a fit of it takes."""

import mmap
import tempfile
import weakref
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]

ROWS_AT_ONCE = 16_384


class Rows:
    """Rows of ``n_columns`` numbers, written one batch after the other to a file among the system's temporary files.

    The file has no name: the system gives its room back with the table, or with the process, however that dies.
    """

    def __init__(self, n_columns: int) -> None:
        """Begin without rows."""
        self._n_columns = n_columns
        self._n_rows = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - `table` closes it, or the end of this
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._n_rows

    def append(self, rows: Floats) -> None:
        """Write ``rows``, float64[n, n_columns]; a full disk is an OSError."""
        self._file.write(np.ascontiguousarray(rows, np.float64).data)
        self._n_rows += len(rows)

    def table(self) -> Floats:
        """Return all rows, float64[n_rows, n_columns], to be read only; nothing can be appended any more.

        What is read of it stays in memory unless it is read by `pieces`, though the system may take it back.
        """
        shape = (self._n_rows, self._n_columns)
        with self._file:
            self._file.flush()
            if not self._n_rows * self._n_columns:
                return np.empty(shape)
            return np.ndarray(shape, np.float64, mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ))


def pieces(table: Floats, rows: Integers | None = None) -> Iterator[tuple[slice, Floats]]:
    """Yield ``table[rows]`` (all rows without any given) some at a time, each with its place, and let go of what was read.

    So a pass over a table on the disk takes the memory of a piece. One in memory alone is read the same way.
    """
    n_rows = len(table) if rows is None else len(rows)
    for start in range(0, n_rows, ROWS_AT_ONCE):
        at = slice(start, min(start + ROWS_AT_ONCE, n_rows))
        yield at, table[at] if rows is None else table[rows[at]]
        _let_go(table)


def take(table: Floats, rows: Integers) -> Floats:
    """Return ``table[rows]``, a copy in memory, read as `pieces` reads."""
    taken = np.empty((len(rows), table.shape[1]))
    for at, piece in pieces(table, rows):
        taken[at] = piece
    return taken


def _let_go(array: Floats) -> None:
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap):
        owner.madvise(mmap.MADV_DONTNEED)
