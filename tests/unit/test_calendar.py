from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import calendar

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia")


def hours_from(first: str, n_hours: int) -> calendar.Hours:
    return np.datetime64(first, "h") + np.arange(n_hours)


@settings(deadline=None)
@given(first=st.integers(175_320, 569_784), zone=st.sampled_from(ZONES))  # hours since 1970: 1990 to 2035
def test_wall_clock_and_date_are_those_of_the_zones_rules(first: int, zone: str) -> None:
    hours = np.datetime64(first, "h") + np.arange(80)
    local = [hour.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)) for hour in hours.astype("datetime64[s]").tolist()]
    assert calendar.local_hour(hours, zone).tolist() == [instant.hour for instant in local]
    days = calendar.local_days(hours, zone)
    assert days.tolist() == [instant.date() for instant in local]
    assert calendar.weekday(days).tolist() == [instant.weekday() for instant in local]


def test_every_hour_of_a_year_with_two_clock_changes_has_its_offset() -> None:
    hours = hours_from("2013-01-01T00", 365 * 24)
    offsets = calendar.utc_offset_minutes(hours, "America/New_York")
    summer = (hours >= np.datetime64("2013-03-10T07")) & (hours < np.datetime64("2013-11-03T06"))
    assert np.array_equal(offsets, np.where(summer, -240, -300))


@pytest.mark.parametrize(
    ("hour", "days_ago", "before"),
    [
        ("2013-11-06T17", 7, "2013-10-30T16"),  # noon in New York, winter time against summer time
        ("2013-03-12T16", 7, "2013-03-05T17"),
        ("2013-03-11T16", 1, "2013-03-10T16"),  # both in summer time
        ("2013-07-09T16", 7, "2013-07-02T16"),
    ],
)
def test_a_lag_keeps_to_the_wall_clock_across_a_clock_change(hour: str, days_ago: int, before: str) -> None:
    found = calendar.same_wall_clock(np.array([hour], "datetime64[h]"), days_ago, "America/New_York")
    assert found.tolist() == np.array([before], "datetime64[h]").tolist()


def test_holidays_of_2013_and_2026_are_those_of_the_almanac() -> None:
    assert [day.isoformat()[5:] for day in calendar.us_holidays(2013)] == [
        *("01-01", "05-27", "07-04", "09-02", "11-28", "12-25"),
    ]
    assert [day.isoformat()[5:] for day in calendar.us_holidays(2026)] == [
        *("01-01", "05-25", "07-04", "09-07", "11-26", "12-25"),
    ]


def test_the_distance_to_a_holiday_is_signed_and_reaches_over_the_new_year() -> None:
    days = np.arange(np.datetime64("2013-12-27"), np.datetime64("2014-01-06"))
    distance = calendar.days_from_holiday(days, "us")
    expected = [2, 3, -3, -2, -1, 0, 1, 2, 3, np.nan]
    np.testing.assert_array_equal(distance, expected)
    assert np.isnan(calendar.days_from_holiday(days, "none")).all()


def test_thanksgiving_is_always_the_fourth_thursday() -> None:
    for year in range(2000, 2040):
        day = calendar.us_holidays(year)[4]
        assert (day.month, day.weekday()) == (11, 3)
        assert date(year, 11, 22) <= day <= date(year, 11, 22) + timedelta(days=6)


def test_a_zone_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"IANA time zone, got 'America/Gotham'"):
        calendar.utc_offset_minutes(hours_from("2020-01-01T00", 1), "America/Gotham")
