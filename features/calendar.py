"""The calendar of a demand series: wall-clock hours and holidays, from the zone's rules and nothing else."""

from collections.abc import Iterable
from datetime import UTC, date, timedelta
from functools import cache
from typing import Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
from numpy.typing import NDArray

Hours = NDArray[np.datetime64]
Integers = NDArray[np.int64]
Holidays = Literal["none", "us"]

DAYS_AROUND: Final = 3  # travel and staffing shift up to a long weekend around a holiday
_MONDAY, _THURSDAY = 0, 3
_EPOCH_WEEKDAY: Final = 3  # 1970-01-01 was a Thursday


def zone_rules(zone: str) -> ZoneInfo:
    """Return the rules of an IANA time zone, or raise ValueError naming what is none."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"zone must be an IANA time zone, got {zone!r}") from None


def utc_offset_minutes(hours: Hours, zone: str) -> Integers:
    """Return the offset of ``zone`` from UTC at each of ``hours`` (UTC, datetime64[h]), in minutes.

    Raises
    ------
    ValueError
        If ``zone`` is not an IANA time zone.
    """
    rules = zone_rules(zone)
    days, day = np.unique(hours.astype("datetime64[D]"), return_inverse=True)
    offsets, next_offsets = _offsets(days, rules), _offsets((days + np.timedelta64(1, "D")).astype(days.dtype), rules)
    found = offsets[day]
    # Clocks change on two days a year: only there is every hour looked up, which is 20 times as fast.
    changing = (offsets != next_offsets)[day]
    found[changing] = _offsets(hours[changing], rules)
    return found


def _offsets(instants: Hours, rules: ZoneInfo) -> Integers:
    utc_instants = (instant.replace(tzinfo=UTC) for instant in instants.astype("datetime64[s]").tolist())
    offsets = (instant.astimezone(rules).utcoffset() or timedelta() for instant in utc_instants)
    return np.fromiter((round(offset.total_seconds() / 60) for offset in offsets), np.int64, len(instants))


def same_wall_clock(hours: Hours, days_ago: int, zone: str) -> Hours:
    """Return the hours (UTC) at which the clocks of ``zone`` showed the same time ``days_ago`` days before.

    Across a change to or from summer time that is 23 or 25 hours for one day: people keep to clocks, not to UTC.
    """
    before = hours - np.timedelta64(24 * days_ago, "h")
    shift_minutes = utc_offset_minutes(hours, zone) - utc_offset_minutes(before, zone)
    same: Hours = before + np.rint(shift_minutes / 60).astype("timedelta64[h]")
    return same


def local_days(hours: Hours, zone: str) -> Hours:
    """Return the date in ``zone`` of each of ``hours`` (UTC), datetime64[D]."""
    return _local(hours, zone).astype("datetime64[D]")


def local_hour(hours: Hours, zone: str) -> Integers:
    """Return the hour of the day in ``zone`` of each of ``hours`` (UTC), 0 to 23."""
    return _local(hours, zone).astype("datetime64[h]").astype(np.int64) % 24


def weekday(days: Hours) -> Integers:
    """Return the weekday of each of ``days`` (datetime64[D]), Monday 0 to Sunday 6."""
    return (days.astype(np.int64) + _EPOCH_WEEKDAY) % 7


def days_from_holiday(days: Hours, holidays: Holidays) -> NDArray[np.float64]:
    """Return the signed distance of each of ``days`` to the nearest holiday: -1 is the eve, NaN past three days."""
    distance = np.full(len(days), np.nan)
    if holidays == "none" or not len(days):
        return distance
    dates = days.tolist()
    years = range(min(dates).year - 1, max(dates).year + 2)
    feasts = np.array(sorted(day for year in years for day in us_holidays(year)), "datetime64[D]")
    apart = (days[:, None] - feasts).astype(np.int64)
    nearest = apart[np.arange(len(days)), np.abs(apart).argmin(axis=1)]
    near = np.abs(nearest) <= DAYS_AROUND
    distance[near] = nearest[near]
    return distance


@cache
def us_holidays(year: int) -> tuple[date, ...]:
    """Return the six days of ``year`` on which most of the United States rests, in order."""
    november = _weekdays(year, 11, _THURSDAY)
    return (
        date(year, 1, 1),
        _weekdays(year, 5, _MONDAY)[-1],  # Memorial Day
        date(year, 7, 4),
        _weekdays(year, 9, _MONDAY)[0],  # Labor Day
        november[3],  # Thanksgiving
        date(year, 12, 25),
    )


def _weekdays(year: int, month: int, weekday_number: int) -> list[date]:
    days: Iterable[date] = (date(year, month, 1) + timedelta(days=day) for day in range(31))
    return [day for day in days if day.month == month and day.weekday() == weekday_number]


def _local(hours: Hours, zone: str) -> Hours:
    local: Hours = hours.astype("datetime64[m]") + utc_offset_minutes(hours, zone).astype("timedelta64[m]")
    return local
