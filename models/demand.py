"""The demand forecast as a table, and the baselines that any forecaster must beat, and falls back to."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from features.lags import HISTORY_HOURS, Floats, Integers, Lags
from features.panel import HOUR, Hours, Panel, hour_of

QUANTILES: Final = (0.1, 0.5, 0.9)
HORIZON_HOURS: Final = 24


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """One row per series and hour, in that order; every column has n rows.

    ``hour`` is the beginning of the hour, UTC, datetime64[h]; 0 <= ``p10`` <= ``p50`` <= ``p90``, in units of the load;
    ``from_model`` is false where a baseline stood in, whose band is not calibrated.
    """

    series: NDArray[np.str_]
    hour: Hours
    p10: Floats
    p50: Floats
    p90: Floats
    from_model: NDArray[np.bool_]

    def of(self, series: str) -> Self:
        """Return the rows of one series: none if it is unknown."""
        return self._rows(self.series == series)

    def columns(self) -> dict[str, NDArray[np.generic]]:
        """Return the columns by name, for a data frame, Arrow or DuckDB."""
        return dict(vars(self))

    def _rows(self, chosen: NDArray[np.bool_]) -> Self:
        return type(self)(**{name: column[chosen] for name, column in vars(self).items()})


@dataclass(frozen=True)
class Targets:
    """What is asked of a panel at an instant: every series, and the ``horizon_hours`` from the hour under way on.

    ``known`` is the panel's last 30 days before the instant; ``series``, ``origin`` and ``step`` are int64[n], as
    ``features.lags`` reads them.
    """

    known: Panel
    series: Integers
    origin: Integers
    step: Integers
    hour: Hours


def targets(panel: Panel, at: datetime, horizon_hours: int) -> Targets:
    """Return what is to be forecast at ``at``, an aware instant: hours that are not over by then are unknown."""
    known = panel.until(at, last_hours=HISTORY_HOURS)
    n_series = len(known.series)
    step = np.tile(np.arange(1, horizon_hours + 1), n_series)
    series = np.repeat(np.arange(n_series), horizon_hours)
    origin = np.full(len(step), known.n_hours - 1)
    return Targets(known, series, origin, step, hour_of(at) + (step - 1) * HOUR)


def last_week(panel: Panel, at: datetime, *, horizon_hours: int = HORIZON_HOURS, zone: str = "UTC") -> Floats:
    """Return the load a week before at the same wall-clock time, float64[n] in a forecast's order.

    Where that hour is missing: the day before, then the series' mean of 30 days, then 0. Never NaN, never negative.
    """
    return _same_hour(panel, at, (7, 1), horizon_hours, zone)


def last_day(panel: Panel, at: datetime, *, horizon_hours: int = HORIZON_HOURS, zone: str = "UTC") -> Floats:
    """Return the load a day before at the same wall-clock time; else as ``last_week``, day and week exchanged."""
    return _same_hour(panel, at, (1, 7), horizon_hours, zone)


def last_value(panel: Panel, at: datetime, *, horizon_hours: int = HORIZON_HOURS) -> Floats:
    """Return the last known load of each series for all its hours, 0 where nothing is known; float64[n]."""
    last = [_last(load[~np.isnan(load)]) for load in panel.until(at, last_hours=HISTORY_HOURS).load]
    return np.repeat(np.array(last, dtype=np.float64), horizon_hours)


def fallback(wanted: Targets, lags: Lags) -> Floats:
    """Return a band for series that no model can forecast, float64[n, 3]: P50 is ``last_week``.

    P10 and P90 are those of the known load of 30 days, widened to hold P50: a constant has no width, a series of three
    points its range. Not calibrated, never NaN, never negative.
    """
    p50 = _first_known(lags, wanted, (7, 1))
    ends = np.array([_ends(load[~np.isnan(load)]) for load in wanted.known.load]).reshape(-1, 2)[wanted.series]
    return np.column_stack([np.minimum(ends[:, 0], p50), p50, np.maximum(ends[:, 1], p50)])


def _same_hour(panel: Panel, at: datetime, days_ago: Sequence[int], horizon_hours: int, zone: str) -> Floats:
    wanted = targets(panel, at, horizon_hours)
    return _first_known(Lags(wanted.known, horizon_hours=horizon_hours, zone=zone, holidays="none"), wanted, days_ago)


def _first_known(lags: Lags, wanted: Targets, days_ago: Sequence[int]) -> Floats:
    choices = [lags.lag(wanted.series, wanted.origin, wanted.step, days) for days in days_ago]
    choices.append(lags.level(wanted.series, wanted.origin, HISTORY_HOURS))
    found = np.zeros(len(wanted.step))
    for choice in reversed(choices):
        found = np.where(np.isnan(choice), found, choice)
    return found


def _last(load: Floats) -> float:
    return float(load[-1]) if len(load) else 0.0


def _ends(load: Floats) -> tuple[float, float]:
    if not len(load):
        return 0.0, 0.0
    low, high = np.quantile(load, (QUANTILES[0], QUANTILES[-1]))
    return float(low), float(high)
