"""Instants that travel as numbers or text: which columns hold them, and when they are."""

from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Instants = NDArray[np.datetime64]

_US_PER_UNIT = (1e6, 1e3, 1.0, 1e-3)  # seconds, milliseconds, microseconds and nanoseconds since 1970
_PLAUSIBLE_US = 5 * 365 * 86_400 * 1e6  # on either side of the decision: what an event speaks of is rarely further off
_SHORTEST_TEXT = len("2026-01-01")


def read_numbers(values: Floats, decided_at: Instants) -> Instants:
    """Return ``values`` as instants (datetime64[us], NaT where missing), in the unit in which all lie near their decisions.

    All NaT if there is no such unit: then they are other numbers.
    """
    known = ~np.isnan(values)
    at = np.full(len(values), np.datetime64("NaT"), "datetime64[us]")
    decided = decided_at[known].astype("datetime64[us]").astype(np.int64)
    for us_per_unit in _US_PER_UNIT:
        told = values[known] * us_per_unit
        if told.size and (np.abs(told - decided) < _PLAUSIBLE_US).all():
            at[known] = told.astype(np.int64).astype("datetime64[us]")
            return at
    return at


def read_category(column: CategoryColumn) -> Instants:
    """Return a column of RFC 3339 texts as instants (datetime64[us], UTC, NaT where missing); all NaT if one is none."""
    nothing = np.full(len(column.codes), np.datetime64("NaT"), "datetime64[us]")
    try:
        values = [_parse(value) for value in column.values]
    except ValueError:
        return nothing
    return np.array([*values, np.datetime64("NaT")], "datetime64[us]")[column.codes]  # -1 reads the last: missing


def _parse(text: str) -> np.datetime64:
    if len(text) < _SHORTEST_TEXT or not text[:4].isdigit() or text[4] != "-":
        raise ValueError(f"{text!r} is no instant")
    at = datetime.fromisoformat(text)
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at, "us")
