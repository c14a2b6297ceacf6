"""Live state in memory that the workers of a shim share: a file of each worker, which it alone writes and all map.

A row is written between two changes of its version, which is odd meanwhile; who reads a row twice alike with one even
version has read it whole (Lameter, "Effective synchronization on Linux/NUMA systems", 2005, calls this a seqlock).
"""

import mmap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUFFIX = ".live"
_TRIES = 3  # a row that is being written each time is read at the next look


class LiveTable:
    """Rows of float64 by destination, those of this worker to be written and those of all workers to be read.

    ``failure`` says why nothing is shared; this worker's own rows are in force all the same.
    """

    failure: str | None = None

    def __init__(self, shape: tuple[int, int], *, folder: Path | None = None, name: str = "", worker: int = 0) -> None:
        """Share rows of ``shape`` in ``folder`` under ``name``, which must tell apart what must not be mixed.

        Without a folder nothing is shared. Rows start with NaN, those of an earlier process of this worker are kept.
        """
        self._shape = shape[0], shape[1] + 1  # the version comes first
        self._pattern = f"{name}-*{SUFFIX}"
        self._folder = folder
        self._path = None if folder is None else folder / f"{name}-{worker}{SUFFIX}"
        self._others: dict[Path, Floats] = {}
        self._own = self._open_own()
        torn = self._own[:, 0] % 2 == 1  # an earlier process died while it wrote
        self._own[torn, 1:] = np.nan
        self._own[torn, 0] += 1

    def row(self, place: int) -> list[float]:
        """Return one of this worker's rows."""
        return list(map(float, self._own[place, 1:]))

    def write(self, row: int, columns: slice, values: Sequence[float]) -> None:
        """Write some columns of one of this worker's rows."""
        version = self._own[row, 0]
        self._own[row, 0] = version + 1
        self._own[row, 1:][columns] = values
        self._own[row, 0] = version + 2

    def read(self) -> Floats:
        """Return the rows of all workers, float64[n_workers, n_destinations, n_columns]; one that is being written is NaN."""
        self._find_others()
        return np.stack([_read_whole(rows) for rows in (self._own, *self._others.values())])

    def _open_own(self) -> Floats:
        if self._path is not None:
            try:
                return self._map(self._path, writing=True)
            except OSError as error:
                self.failure = f"{self._path.name}: {error.strerror or error}"
        return _blank(self._shape)

    def _find_others(self) -> None:
        if self._folder is None:
            return
        for path in self._folder.glob(self._pattern):
            if path != self._path and path not in self._others:
                try:
                    self._others[path] = self._map(path, writing=False)
                except (OSError, ValueError):
                    continue  # being made, or of another shape: looked at again next time

    def _map(self, path: Path, *, writing: bool) -> Floats:
        n_bytes = self._shape[0] * self._shape[1] * 8
        if writing and (not path.exists() or path.stat().st_size != n_bytes):
            path.parent.mkdir(parents=True, exist_ok=True)
            made = path.with_suffix(".new")
            made.write_bytes(_blank(self._shape).tobytes())
            made.replace(path)
        with path.open("r+b" if writing else "rb") as file:
            mapped = mmap.mmap(file.fileno(), n_bytes, access=mmap.ACCESS_WRITE if writing else mmap.ACCESS_READ)
        return np.frombuffer(mapped).reshape(self._shape)


def _blank(shape: tuple[int, int]) -> Floats:
    rows = np.full(shape, np.nan)
    rows[:, 0] = 0.0
    return rows


def _read_whole(rows: Floats) -> Floats:
    """Return the columns of the rows; NaN where a row was being written at every try."""
    before = rows.copy()
    for _ in range(_TRIES):
        after = rows.copy()
        torn = (before[:, 0] != after[:, 0]) | (after[:, 0] % 2 == 1)
        if not torn.any():
            break
        before = after
    whole = before[:, 1:].copy()
    whole[torn] = np.nan
    return whole
