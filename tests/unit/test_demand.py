from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.lags import Lags
from features.panel import Panel
from models import demand

AT = datetime(2013, 11, 4, 5, tzinfo=UTC)  # midnight in New York, a day after the clocks went back
START = np.datetime64("2013-10-21T04", "h")  # midnight there, in summer time
N_HOURS = 14 * 24 + 1


def clock_panel() -> Panel:
    """Loads that tell their own New York clock time: 100 * weekday + hour."""
    hours = [datetime(2013, 10, 21, 4, tzinfo=UTC) + timedelta(hours=hour) for hour in range(N_HOURS)]
    summer_ends = datetime(2013, 11, 3, 6, tzinfo=UTC)
    local = [hour - timedelta(hours=4 if hour < summer_ends else 5) for hour in hours]
    load = np.array([[100.0 * hour.weekday() + hour.hour for hour in local]])
    return Panel(series=("a",), start=START, load=load)


def test_last_week_and_last_day_keep_to_the_wall_clock() -> None:
    week = demand.last_week(clock_panel(), AT, zone="America/New_York")
    day = demand.last_day(clock_panel(), AT, zone="America/New_York")
    assert week.tolist() == [float(hour) for hour in range(24)]  # a Monday
    assert day.tolist() == [600.0 + hour for hour in range(24)]  # Sunday


def test_in_utc_the_same_baseline_is_an_hour_off_after_the_change() -> None:
    assert demand.last_week(clock_panel(), AT)[:3].tolist() == [1.0, 2.0, 3.0]


def test_the_last_known_value_is_carried_on() -> None:
    load = clock_panel().load.copy()
    load[0, -2:] = np.nan
    panel = Panel(series=("a",), start=START, load=load)
    assert demand.last_value(panel, AT, horizon_hours=3).tolist() == [load[0, -3]] * 3


def test_missing_hours_fall_back_to_the_day_then_the_mean_then_zero() -> None:
    load = np.full((3, 8 * 24), np.nan)
    load[0, 24:48] = 3.0  # last week's hours are those of the day 7 days before
    load[0, 48] = 9.0
    load[1, -24] = 7.0
    panel = Panel(series=("a", "b", "c"), start=START, load=load)
    at = datetime(2013, 10, 29, 4, tzinfo=UTC)
    week = demand.last_week(panel, at, horizon_hours=2).reshape(3, 2)
    assert week.tolist() == [[3.0, 3.0], [7.0, 7.0], [0.0, 0.0]]
    assert demand.last_week(panel, at + timedelta(hours=24), horizon_hours=2)[1] == pytest.approx(81 / 25)


loads = st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1e300)), max_size=60)


@settings(deadline=None)
@given(loads=st.lists(loads, min_size=1, max_size=3), gone=st.integers(-50, 900), horizon_hours=st.integers(1, 48))
def test_no_baseline_is_ever_missing_or_negative(loads: list[list[float]], gone: int, horizon_hours: int) -> None:
    width = max(len(load) for load in loads)
    dense = np.full((len(loads), width), np.nan)
    for row, load in zip(dense, loads, strict=True):
        row[: len(load)] = np.array(load) / width  # sums stay finite
    panel = Panel(series=tuple("abc"[: len(loads)]), start=START, load=dense)
    at = datetime(2013, 10, 21, 4, tzinfo=UTC) + timedelta(hours=width + gone)
    wanted = demand.targets(panel, at, horizon_hours)
    lags = Lags(wanted.known, horizon_hours=horizon_hours, zone="Europe/Berlin", holidays="none")
    band = demand.fallback(wanted, lags)
    points = [
        demand.last_week(panel, at, horizon_hours=horizon_hours, zone="Europe/Berlin"),
        demand.last_day(panel, at, horizon_hours=horizon_hours),
        demand.last_value(panel, at, horizon_hours=horizon_hours),
    ]
    assert np.array_equal(points[0], band[:, 1])
    for column in (*band.T, *points):
        assert column.shape == (len(loads) * horizon_hours,)
        assert np.isfinite(column).all()
        assert (column >= 0).all()
    assert (np.diff(band, axis=1) >= 0).all()


def test_a_constant_has_no_width_and_three_points_have_their_range() -> None:
    panel = Panel(series=("a", "b"), start=START, load=np.array([[4.0] * 3, [1.0, 2.0, 9.0]]))
    wanted = demand.targets(panel, datetime(2013, 10, 21, 7, tzinfo=UTC), 1)
    band = demand.fallback(wanted, Lags(wanted.known, horizon_hours=1, zone="UTC", holidays="none"))
    np.testing.assert_allclose(band, [[4, 4, 4], [1.2, 4, 7.6]])


def test_a_forecast_gives_one_series_and_its_columns() -> None:
    flags = np.array([True, False])
    hour = np.array([START, START])
    one = np.arange(2.0)
    forecast = demand.Forecast(series=np.array(["a", "b"]), hour=hour, p10=one, p50=one, p90=one, from_model=flags)
    assert forecast.of("b").p50.tolist() == [1.0]
    assert forecast.of("z").p50.tolist() == []
    assert list(forecast.columns()) == ["series", "hour", "p10", "p50", "p90", "from_model"]
