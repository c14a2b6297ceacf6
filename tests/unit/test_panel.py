from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.panel import Panel

FIRST = np.datetime64("2024-03-01T00", "h")
NAN = float("nan")


def test_rows_in_any_order_become_one_gap_free_table() -> None:
    panel = Panel.from_columns(["b", "a", "b"], [FIRST + 3, FIRST + 1, FIRST], [5.0, 2.0, 1.0])
    assert panel.series == ("a", "b")
    assert panel.hours.tolist() == (FIRST + np.arange(4)).tolist()
    np.testing.assert_array_equal(panel.load, [[NAN, 2, NAN, NAN], [1, NAN, NAN, 5]])


def test_counts_may_leave_out_the_hours_without_any() -> None:
    panel = Panel.from_columns(["b", "a", "b"], [FIRST + 3, FIRST + 1, FIRST], [5.0, 2.0, 1.0], gaps="zero")
    np.testing.assert_array_equal(panel.load, [[NAN, 2, 0, 0], [1, 0, 0, 5]])


def test_a_row_given_twice_counts_once_and_two_loads_for_one_hour_are_refused_by_name() -> None:
    twice = Panel.from_columns(["a", "a"], [FIRST, FIRST], [2.0, 2.0])
    np.testing.assert_array_equal(twice.load, [[2.0]])
    with pytest.raises(ValueError, match=r"one load, got 2\.0 and 3\.0 for 'a' at 2024-03-01T00"):
        Panel.from_columns(["a", "a"], [FIRST, FIRST], [2.0, 3.0])


@pytest.mark.parametrize("load", [-1.0, float("inf"), float("-inf")])
def test_a_load_that_is_none_is_refused_by_name(load: float) -> None:
    with pytest.raises(ValueError, match=rf"at least 0, got {load} for 'b' at 2024-03-01T01"):
        Panel.from_columns(["a", "b"], [FIRST, FIRST + 1], [1.0, load])


def test_an_hour_that_is_none_or_centuries_away_is_refused() -> None:
    with pytest.raises(ValueError, match="got none for series 'b'"):
        Panel.from_columns(["a", "b"], np.array(["2024-03-01T00", "NaT"], "datetime64[h]"), [1.0, 1.0])
    with pytest.raises(ValueError, match="span at most"):
        Panel.from_columns(["a", "a"], np.array(["2024-03-01T00", "9999-01-01T00"], "datetime64[h]"), [1.0, 1.0])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        Panel.from_columns(["a"], [FIRST], [1.0, 2.0])


def test_no_rows_are_a_panel_of_no_series() -> None:
    panel = Panel.from_columns([], np.array([], "datetime64[h]"), [])
    assert (panel.series, panel.n_hours) == ((), 0)


def test_only_hours_that_are_over_are_known() -> None:
    panel = Panel.from_columns(["a"] * 5, FIRST + np.arange(5), np.arange(5.0))
    at = datetime(2024, 3, 1, 2, 59, tzinfo=UTC)
    assert panel.until(at).load.tolist() == [[0.0, 1.0]]
    assert panel.until(at.astimezone(timezone(timedelta(hours=5)))).load.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match="zone"):
        panel.until(at.replace(tzinfo=None))


@settings(deadline=None)
@given(hours=st.integers(-40, 40), last_hours=st.one_of(st.none(), st.integers(1, 30)))
def test_a_cut_keeps_every_hour_at_its_place_and_fills_with_missing(hours: int, last_hours: int | None) -> None:
    panel = Panel.from_columns(["a"] * 10, FIRST + np.arange(10), np.arange(10.0))
    at = datetime(2024, 3, 1, tzinfo=UTC) + timedelta(hours=hours)
    cut = panel.until(at, last_hours=last_hours)
    assert cut.n_hours == (max(0, hours) if last_hours is None else last_hours)
    if cut.n_hours:
        assert cut.hours[-1] == FIRST + hours - 1
    expected = [float(hour) if 0 <= hour < 10 else NAN for hour in (cut.hours - FIRST).astype(int).tolist()]
    np.testing.assert_array_equal(cut.load, [expected])
