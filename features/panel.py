"""The demand panel: the hourly load of several series, gap-free, with NaN where nothing is known."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from features.clock import utc

Floats = NDArray[np.float64]
Hours = NDArray[np.datetime64]
HOUR: Final = np.timedelta64(1, "h")
MAX_HOURS: Final = 24 * 366 * 20  # a stray year 9999 must not ask for 70 million hours


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Hourly load: ``load`` float64[n_series, n_hours], at least 0, NaN where missing, from the hour ``start`` (UTC) on.

    An hour is named by its beginning: the load of 10:00 is what came from 10:00 to 11:00.
    """

    series: tuple[str, ...]
    start: np.datetime64
    load: Floats

    @classmethod
    def from_columns(
        cls,
        series: Sequence[str],
        hour: ArrayLike,
        load: ArrayLike,
        *,
        gaps: Literal["missing", "zero"] = "missing",
    ) -> Self:
        """Return the panel of three columns of equal length, in any order; hours are UTC datetimes without a zone.

        A row given twice counts once. With ``gaps="zero"``, the hours after a series' first row that have no row are 0
        (counting rows by hour leaves out the hours without any), else they are missing.

        Raises
        ------
        ValueError
            If a load is negative or infinite, an hour has two different loads, is none, or lies apart from
            the others by more than 20 years; names the series, the hour and the value.
        """
        names, hours, loads = _columns(series, hour, load)
        unique, row = np.unique(names, return_inverse=True)
        start = hours.min() if len(hours) else np.datetime64(0, "h")
        column = (hours - start).astype(np.int64)
        n_hours = int(column.max()) + 1 if len(hours) else 0
        if n_hours > MAX_HOURS:
            raise ValueError(f"a panel must span at most {MAX_HOURS} hours, got {start} to {hours.max()}")
        dense = np.full((len(unique), n_hours), np.nan)
        dense[row, column] = loads
        _refuse_contradictions(names, hours, loads, dense[row, column])
        if gaps == "zero":
            first = [int(column[row == each].min()) for each in range(len(unique))]
            dense[np.isnan(dense) & (np.arange(n_hours) >= np.array(first)[:, None])] = 0.0
        return cls(series=tuple(unique.tolist()), start=start, load=dense)

    @property
    def n_hours(self) -> int:
        """The number of hours from the first to the last."""
        return int(self.load.shape[1])

    @property
    def hours(self) -> Hours:
        """The beginnings of the hours, UTC, datetime64[h]."""
        return self.start + np.arange(self.n_hours) * HOUR

    def until(self, at: datetime, *, last_hours: int | None = None) -> Self:
        """Return the panel as known at ``at``: it ends with the last hour that is over, NaN where nothing has arrived.

        With ``last_hours`` it spans exactly so many, NaN before the panel's first.

        Raises
        ------
        ValueError
            If ``at`` carries no zone.
        """
        end = int((hour_of(at) - self.start).astype(np.int64))
        begin = min(0, end) if last_hours is None else end - last_hours
        kept = self.load[:, max(begin, 0) : max(end, 0)]
        load = np.full((len(self.series), end - begin), np.nan)
        first = max(begin, 0) - begin
        load[:, first : first + kept.shape[1]] = kept
        return type(self)(series=self.series, start=self.start + begin * HOUR, load=load)


def hour_of(at: datetime) -> np.datetime64:
    """Return the hour (UTC, datetime64[h]) under way at ``at``, which must carry a zone."""
    return np.datetime64(utc(at).replace(tzinfo=None), "h")


def _columns(series: Sequence[str], hour: ArrayLike, load: ArrayLike) -> tuple[NDArray[np.str_], Hours, Floats]:
    names = np.asarray(series, dtype=np.str_)
    hours = np.asarray(hour, dtype="datetime64[h]")
    loads = np.asarray(load, dtype=np.float64)
    if not names.shape == hours.shape == loads.shape or names.ndim != 1:
        raise ValueError(f"columns must have one length, got {names.shape}, {hours.shape}, {loads.shape}")
    if np.isnat(hours).any():
        raise ValueError(f"hour must be given, got none for series {str(names[np.isnat(hours)][0])!r}")
    wrong = (loads < 0) | np.isinf(loads)
    if wrong.any():
        first = int(wrong.argmax())
        raise ValueError(
            f"load must be finite and at least 0, got {loads[first]} for {str(names[first])!r} at {hours[first]}"
        )
    return names, hours, loads


def _refuse_contradictions(names: NDArray[np.str_], hours: Hours, loads: Floats, kept: Floats) -> None:
    other = (loads != kept) & ~(np.isnan(loads) & np.isnan(kept))
    if other.any():
        at = int(other.argmax())
        raise ValueError(
            f"an hour must have one load, got {loads[at]} and {kept[at]} for {str(names[at])!r} at {hours[at]}"
        )
