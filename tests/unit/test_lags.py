from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.lags import COLUMNS, DAYS_AGO, HISTORY_HOURS, LEVEL_HOURS, SCALE_HOURS, Lags
from features.panel import Panel

FIRST = datetime(2013, 1, 15, tzinfo=UTC)  # the panel reaches past the clock change of 10 March
N_HOURS = 75 * 24
ZONE = "America/New_York"


def panel_of(seed: int = 3) -> Panel:
    random = np.random.default_rng(seed)
    load = random.poisson(8.0, (2, N_HOURS)).astype(float)
    load[random.random(load.shape) < 0.1] = np.nan
    return Panel(series=("a", "b"), start=np.datetime64(FIRST.replace(tzinfo=None), "h"), load=load)


def lags_of(panel: Panel) -> Lags:
    return Lags(panel, horizon_hours=24, zone=ZONE, holidays="us")


def slow_lag(panel: Panel, series: int, origin: int, step: int, days: int) -> float:
    target = (FIRST + timedelta(hours=origin + step)).astimezone(ZoneInfo(ZONE))
    before = FIRST + timedelta(hours=origin + step - 24 * days)
    shift = target.utcoffset() - before.astimezone(ZoneInfo(ZONE)).utcoffset()
    column = int((before + shift - FIRST) / timedelta(hours=1))
    return float(panel.load[series, column]) if 0 <= column <= origin else float("nan")


def slow_level(panel: Panel, series: int, origin: int, n_hours: int) -> float:
    known = [load for load in panel.load[series, max(0, origin + 1 - n_hours) : origin + 1] if not np.isnan(load)]
    return sum(known) / len(known) if known else float("nan")


def slow_usual(series: int, origin: int, step: int) -> float:
    means = []
    for all_days in ((1, 2, 3, 4, 5, 6, 7), (7, 14, 21, 28)):
        lags = [slow_lag(PANEL, series, origin, step, days) for days in all_days]
        if known := [load for load in lags if not np.isnan(load)]:
            means.append(np.mean(known))
    return float(np.mean(means)) if means else slow_level(PANEL, series, origin, SCALE_HOURS)


PANEL = panel_of()
LAGS = lags_of(PANEL)
rows = st.tuples(st.integers(0, 1), st.integers(24, N_HOURS - 25), st.integers(1, 24))


@settings(deadline=None)
@given(row=rows)
def test_every_lag_and_level_is_that_of_a_slow_loop_over_clock_times(row: tuple[int, int, int]) -> None:
    series, origin, step = row
    matrix, scale = LAGS.rows(np.array([series]), np.array([origin]), np.array([step]))
    found = dict(zip(COLUMNS[1:], matrix[0] * scale[0], strict=True))
    np.testing.assert_allclose(scale, slow_level(PANEL, series, origin, SCALE_HOURS))
    for days in DAYS_AGO:
        np.testing.assert_allclose(found[f"lag_{days}d"], slow_lag(PANEL, series, origin, step, days))
    for hours in LEVEL_HOURS:
        np.testing.assert_allclose(found[f"level_{hours}h"], slow_level(PANEL, series, origin, hours))
        week_ago = slow_level(PANEL, series, origin - 168, hours) if origin >= 168 else float("nan")
        np.testing.assert_allclose(found[f"level_{hours}h_week_ago"], week_ago)
    weeks = [slow_lag(PANEL, series, origin, step, days) for days in (7, 14, 21, 28)]
    if known := [load for load in weeks if not np.isnan(load)]:
        summary = [found[name] for name in ("mean_weeks", "low_weeks", "high_weeks")]
        np.testing.assert_allclose(summary, [np.mean(known), min(known), max(known)])
    np.testing.assert_allclose(found["usual"], slow_usual(series, origin, step), rtol=1e-6)


@settings(deadline=None)
@given(row=rows, seed=st.integers(0, 99))
def test_t06_a_row_does_not_move_when_later_hours_change(row: tuple[int, int, int], seed: int) -> None:
    series, origin, step = (np.array([part]) for part in row)
    changed = PANEL.load.copy()
    changed[:, row[1] + 1 :] = np.random.default_rng(seed).poisson(1_000, changed[:, row[1] + 1 :].shape)
    later = Panel(series=PANEL.series, start=PANEL.start, load=changed)
    before, after = LAGS.rows(series, origin, step), lags_of(later).rows(series, origin, step)
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("at", [datetime(2013, 3, 9, 17, tzinfo=UTC), datetime(2013, 3, 20, 5, tzinfo=UTC)])
def test_a_panel_cut_to_its_history_gives_the_rows_of_the_whole(at: datetime) -> None:
    cut = PANEL.until(at, last_hours=HISTORY_HOURS)
    step = np.arange(1, 25)
    ones = np.ones(24, dtype=np.int64)
    origin = int((at - FIRST) / timedelta(hours=1)) - 1
    whole = LAGS.rows(ones, ones * origin, step)
    part = lags_of(cut).rows(ones, ones * (cut.n_hours - 1), step)
    np.testing.assert_allclose(part[0], whole[0], rtol=1e-12)
    np.testing.assert_allclose(part[1], whole[1], rtol=1e-12)


def test_the_calendar_is_the_targets() -> None:
    origin = int((datetime(2013, 2, 17, 12, tzinfo=UTC) - FIRST) / timedelta(hours=1))
    matrix, _ = LAGS.rows(np.zeros(24, np.int64), np.full(24, origin), np.arange(1, 25))
    found = dict(zip(COLUMNS[1:], matrix.T, strict=True))
    assert found["step"].tolist() == list(range(1, 25))
    assert found["hour"].tolist() == [(12 + step - 5) % 24 for step in range(1, 25)]
    assert found["weekday"].tolist() == [6] * 16 + [0] * 8  # Sunday in New York until 05:00 UTC


@pytest.mark.parametrize(
    ("load", "usable"),
    [
        (np.full(N_HOURS, 4.0), False),
        (np.zeros(N_HOURS), False),
        (np.full(N_HOURS, np.nan), False),
        (np.where(np.arange(N_HOURS) < N_HOURS - 300, np.nan, np.arange(N_HOURS) % 5.0), False),
        (np.where(np.arange(N_HOURS) < N_HOURS - 340, np.nan, np.arange(N_HOURS) % 5.0), True),
    ],
)
def test_a_flat_empty_or_short_series_is_not_for_a_model(load: np.ndarray, *, usable: bool) -> None:
    panel = Panel(series=("a",), start=PANEL.start, load=load[None, :])
    assert lags_of(panel).usable(np.array([0]), np.array([N_HOURS - 1]), 336).tolist() == [usable]
