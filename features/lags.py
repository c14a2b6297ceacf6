"""What a demand forecast reads: lags by the wall clock, levels at the origin, and the calendar."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from features import calendar
from features.calendar import Holidays
from features.panel import HOUR, Panel

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

WEEK_HOURS: Final = 168
SCALE_HOURS: Final = 4 * WEEK_HOURS
LEVEL_HOURS: Final = (3, 6, 24, WEEK_HOURS)
WEEKS_AGO: Final = (7, 14, 21, 28)
DAYS_AGO: Final = (1, 2, 3, 4, 5, 6, *WEEKS_AGO)
HISTORY_HOURS: Final = 30 * 24  # no feature looks further back: four weeks, the step, and an hour of summer time
MIN_CHANGES: Final = 28  # in four weeks: a load that changes less than once a day is flat, and flat is a baseline's job
CALENDAR: Final = ("step", "hour", "weekday", "days_from_holiday", "days_from_holiday_week_ago")
COLUMNS: Final = (
    "series",
    *CALENDAR,
    *(f"lag_{days}d" for days in DAYS_AGO),
    *("usual", "mean_week", "mean_weeks", "low_weeks", "high_weeks"),
    *(f"level_{hours}h" for hours in LEVEL_HOURS),
    *(f"level_{hours}h_week_ago" for hours in LEVEL_HOURS),
)


class Lags:
    """The feature rows of one panel; a row reads nothing after its origin, whatever else the panel holds.

    ``series`` and ``origin`` index the panel's rows and columns. The origin is the last hour that is known; the target
    of a row is ``step`` hours later, 1 to ``horizon_hours``.
    """

    def __init__(self, panel: Panel, *, horizon_hours: int, zone: str, holidays: Holidays) -> None:
        hours = panel.start + np.arange(panel.n_hours + horizon_hours) * HOUR
        days = calendar.local_days(hours, zone)
        self._load = panel.load
        self._column = {ago: _columns(calendar.same_wall_clock(hours, ago, zone), panel.start) for ago in DAYS_AGO}
        self._hour = calendar.local_hour(hours, zone)
        self._weekday = calendar.weekday(days)
        self._holiday = calendar.days_from_holiday(days, holidays)
        self._holiday_week_ago = calendar.days_from_holiday(days - np.timedelta64(7, "D"), holidays)
        self._total = _running(np.nan_to_num(panel.load))
        self._known = _running((~np.isnan(panel.load)).astype(np.float64))
        changed = np.diff(panel.load, axis=1, prepend=np.nan)
        self._changes = _running((np.abs(changed) > 0).astype(np.float64))  # a change from or to NaN is none

    def lag(self, series: Integers, origin: Integers, step: Integers, days_ago: int) -> Floats:
        """Return the load at the wall-clock time of each target ``days_ago`` days before, NaN where not known."""
        column = self._column[days_ago][origin + step]
        known = (column >= 0) & (column <= origin)
        lagged: Floats = np.where(known, self._load[series, np.where(known, column, 0)], np.nan)
        return lagged

    def level(self, series: Integers, origin: Integers, n_hours: int) -> Floats:
        """Return the mean load of the ``n_hours`` that end with each origin, NaN where none of them is known."""
        total = _window(self._total, series, origin, n_hours)
        n_known = _window(self._known, series, origin, n_hours)
        return _divided(total, n_known)

    def usable(self, series: Integers, origin: Integers, min_known_hours: int) -> NDArray[np.bool_]:
        """Tell which rows have history enough for a model: in four weeks, so many known hours and a change a day."""
        n_known = _window(self._known, series, origin, SCALE_HOURS)
        n_changes = _window(self._changes, series, origin, SCALE_HOURS)
        return (n_known >= min_known_hours) & (n_changes >= MIN_CHANGES)

    def rows(self, series: Integers, origin: Integers, step: Integers) -> tuple[Floats, Floats]:
        """Return features float64[n, n_columns - 1], in the order of ``COLUMNS[1:]``, and the scale of each row.

        The scale is the mean load of the last four weeks: positive where ``usable``. Loads are divided by it, so that small,
        large and growing series look alike. ``usual`` is never NaN: the mean at this hour over the last week and over the
        last four weeks, averaged; else the scale.
        """
        lags = {days: self.lag(series, origin, step, days) for days in DAYS_AGO}
        week = np.column_stack([lags[days] for days in range(1, 8)])
        weeks = np.column_stack([lags[days] for days in WEEKS_AGO])
        scale = self.level(series, origin, SCALE_HOURS)
        means = np.column_stack([_mean(week), _mean(weeks)])
        usual = _mean(means)
        loads = [
            *lags.values(),
            np.where(np.isnan(usual), scale, usual),
            *means.T,
            np.fmin.reduce(weeks, axis=1),
            np.fmax.reduce(weeks, axis=1),
            *(self.level(series, origin, hours) for hours in LEVEL_HOURS),
            *(self.level(series, origin - WEEK_HOURS, hours) for hours in LEVEL_HOURS),
        ]
        return np.column_stack([*self._calendar(origin, step), *(load / scale for load in loads)]), scale

    def _calendar(self, origin: Integers, step: Integers) -> tuple[NDArray[np.generic], ...]:
        target = origin + step
        days = self._holiday[target], self._holiday_week_ago[target]
        return step, self._hour[target], self._weekday[target], *days


def _columns(hours: NDArray[np.datetime64], start: np.datetime64) -> Integers:
    return (hours - start).astype(np.int64)


def _running(values: Floats) -> Floats:
    return np.concatenate([np.zeros((len(values), 1)), np.cumsum(values, axis=1)], axis=1)


def _window(running: Floats, series: Integers, origin: Integers, n_hours: int) -> Floats:
    end = np.maximum(origin + 1, 0)
    inside: Floats = running[series, end] - running[series, np.maximum(end - n_hours, 0)]
    return inside


def _mean(values: Floats) -> Floats:
    n_known = (~np.isnan(values)).sum(axis=1)
    return _divided(np.nansum(values, axis=1), n_known)


def _divided(total: Floats, count: NDArray[np.float64 | np.int64]) -> Floats:
    quotient: Floats = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
    return quotient
