"""Time comes from one place, is always aware and in UTC, and a replayed one never runs backwards."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import clock
from features.clock import ReplayClock, SystemClock

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_system_clock_is_aware_and_in_utc() -> None:
    assert SystemClock().now().tzinfo is UTC


@settings(deadline=None)
@given(st.lists(st.integers(-1_000, 1_000)))
def test_a_replayed_clock_keeps_the_latest_instant(minutes: list[int]) -> None:
    replayed = ReplayClock(at=BEGIN)
    for minute in minutes:
        replayed.advance(BEGIN + timedelta(minutes=minute))
    assert replayed.now() == BEGIN + timedelta(minutes=max([0, *minutes]))


def test_instants_of_other_zones_are_brought_to_utc() -> None:
    there = datetime(2026, 1, 1, 5, 30, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    assert clock.utc(there) == BEGIN
    assert clock.utc(there).tzinfo is UTC


def test_an_instant_without_a_zone_is_refused() -> None:
    naive = BEGIN.replace(tzinfo=None)
    with pytest.raises(ValueError, match="must carry a zone, got 2026-01-01T00:00:00"):
        clock.utc(naive)
    with pytest.raises(ValueError, match="must carry a zone"):
        ReplayClock(at=BEGIN).advance(naive)
