"""What had happened by an instant: facts in groups, each with the instant it became known, summed over spans of time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scenarios.flights.timetable import Floats, Instants

Codes = NDArray[np.int64]

EPOCH = np.datetime64("2000-01-01", "m")
SPAN_MINUTES = 1 << 32  # wider than any year: (group, minute) packs into one sortable integer


@dataclass(frozen=True)
class Rows:
    """For each question the rows [first, end) of the sorted facts that answer it."""

    first: Codes
    end: Codes

    @property
    def n_facts(self) -> Floats:
        """How many facts answer each question."""
        return (self.end - self.first).astype(np.float64)


class Facts:
    """Facts sorted by group and by the instant they became known; what became known later cannot be seen.

    Sums come from running totals, so a question costs two binary searches however many facts it spans.
    """

    def __init__(self, groups: Codes, known_at: Instants, **values: Floats) -> None:
        """Sort facts: ``groups``, ``known_at`` and each column of ``values`` run parallel."""
        keys = pack(groups, known_at)
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._totals = {name: np.concatenate(([0.0], np.cumsum(column[order]))) for name, column in values.items()}

    def known(self, groups: Codes, at: Instants, *, last_minutes: int) -> Rows:
        """Return the facts of ``groups`` that became known in the ``last_minutes`` up to and including ``at``."""
        return Rows(self._after(groups, at - np.timedelta64(last_minutes, "m")), self._after(groups, at))

    def latest(self, groups: Codes, at: Instants, *, n_facts: int) -> Rows:
        """Return the latest ``n_facts`` facts of ``groups`` known at ``at``: fewer where fewer are known."""
        end = self._after(groups, at)
        return Rows(np.maximum(end - n_facts, np.searchsorted(self._keys, groups * SPAN_MINUTES)), end)

    def total(self, name: str, rows: Rows) -> Floats:
        """Return the sum of a column over ``rows``: 0 where there are none."""
        totals = self._totals[name]
        return totals[rows.end] - totals[rows.first]

    def mean(self, name: str, rows: Rows) -> Floats:
        """Return the mean of a column over ``rows``: NaN where there are none."""
        return self.total(name, rows) / np.where(rows.n_facts > 0, rows.n_facts, np.nan)

    def nth_latest(self, name: str, rows: Rows, n: int) -> Floats:
        """Return a column's value at the ``n``-th latest of ``rows`` (1 is the latest): NaN where there are fewer.

        Exact for whole numbers; it is the step between two running totals.
        """
        position = np.where(rows.n_facts >= n, rows.end - n, 0)
        totals = np.append(self._totals[name], np.nan)  # no facts at all still have a position 0
        return np.where(rows.n_facts >= n, totals[position + 1] - totals[position], np.nan)

    def _after(self, groups: Codes, at: Instants) -> Codes:
        return np.searchsorted(self._keys, pack(groups, at), side="right")


def pack(groups: Codes, at: Instants) -> Codes:
    """Return one integer per (group, instant) that sorts by group, then time."""
    return groups * SPAN_MINUTES + (at - EPOCH).astype(np.int64)


def code(*columns: NDArray[np.generic]) -> Codes:
    """Return one integer per row: the same for rows equal in every column."""
    codes = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        names, inverse = np.unique(column, return_inverse=True)
        codes = codes * len(names) + inverse
    return codes
