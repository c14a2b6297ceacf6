"""Live state: what was reported or follows from outcomes, of all workers together, and nothing that is too old."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import config
from features.records import Candidate, DestinationState, Outcome
from serving import live as live_states
from serving import live_table
from serving.live import LiveStates, StateReport
from serving.live_table import LiveTable
from serving.plan import Plan

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
TEXT = """
[live]
max_age_seconds = 60.0
half_life_seconds = 10.0
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
objective = { success = 1.0 }
features = { numbers = { heat = "state.heat", load = "state.cold * 2", depth = "state.queue_depth" } }
[destinations]
a = {}
b = {}
"""
PLAN = Plan.of(config.parse(TEXT))


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_states, "LOOK_SECONDS", 0.0)


def after(seconds: float) -> datetime:
    return AT + timedelta(seconds=seconds)


def report(destination: str = "a", **state: object) -> StateReport:
    return StateReport(destination=destination, state=DestinationState(**state))  # type: ignore[arg-type]


def outcome(*, success: bool = True, latency_ms: float | None = 100.0, **more: object) -> Outcome:
    fields = {"decision_id": "d", "served": "a", "observed_at": AT, "success": success, "latency_ms": latency_ms}
    return Outcome(**(fields | more))  # type: ignore[arg-type]


def test_a_report_stands_in_for_a_request_that_says_nothing() -> None:
    live = LiveStates(PLAN)
    live.report([report(queue_depth=3.0, healthy=False, measures={"heat": 7.0, "other": 1.0})], AT)
    asked = (Candidate(destination="a"), Candidate(destination="b"))
    filled = live.fill(asked, after(1))
    assert filled[0].state == DestinationState(observed_at=AT, queue_depth=3.0, healthy=False, measures={"heat": 7.0})
    assert filled[1] == asked[1]


def test_what_the_request_says_comes_first_unless_it_is_too_old() -> None:
    live = LiveStates(PLAN)
    live.report([report(queue_depth=3.0)], AT)
    fresh = Candidate(destination="a", state=DestinationState(queue_depth=9.0, observed_at=after(-10)))
    undated = Candidate(destination="a", state=DestinationState(queue_depth=9.0))
    stale = Candidate(destination="a", state=DestinationState(queue_depth=9.0, observed_at=after(-61), healthy=False))
    assert live.fill([fresh], AT) == (fresh,)
    assert live.fill([undated], AT) == (undated,)
    assert live.fill([stale], AT)[0].state == DestinationState(queue_depth=3.0, observed_at=AT)
    assert live.fill([stale], after(100))[0].state is None


def test_what_is_too_old_is_missing_each_for_itself() -> None:
    live = LiveStates(PLAN)
    live.report([report(queue_depth=3.0)], AT)
    live.learn([outcome()], after(50))
    assert live.states(after(59))["a"].queue_depth == 3.0
    later = live.states(after(61))["a"]
    assert (later.queue_depth, later.latency_ms) == (None, 100.0)
    assert live.states(after(111)) == {}


def test_averages_are_by_weights_that_halve() -> None:
    live = LiveStates(PLAN)
    told = [(0.0, 100.0, True), (10.0, 200.0, False), (10.0, 400.0, True), (25.0, 50.0, False)]
    for seconds, latency_ms, success in told:
        live.learn([outcome(success=success, latency_ms=latency_ms)], after(seconds))
    weights = np.array([0.5 ** ((25.0 - seconds) / 10.0) for seconds, *_ in told])
    state = live.states(after(25))["a"]
    assert state.latency_ms == pytest.approx(np.average([latency for _, latency, _ in told], weights=weights))
    assert state.error_rate == pytest.approx(np.average([not good for *_, good in told], weights=weights))


def test_what_was_not_observed_tells_nothing_and_a_timeout_is_a_failure_of_unknown_length() -> None:
    live = LiveStates(PLAN)
    nothing = [outcome(status="lost"), outcome(status="censored"), outcome(probe=True), outcome(served="nobody")]
    live.learn(nothing, AT)
    assert live.states(AT) == {}
    live.learn([outcome(success=False, status="timeout", latency_ms=9.0)], AT)
    assert live.states(AT)["a"] == DestinationState(observed_at=AT, error_rate=1.0)


def test_who_watches_a_destination_knows_better_than_its_outcomes() -> None:
    live = LiveStates(PLAN)
    live.learn([outcome(success=False)], AT)
    live.report([report(error_rate=0.25)], AT)
    state = live.states(AT)["a"]
    assert (state.error_rate, state.latency_ms) == (0.25, 100.0)


def test_a_report_that_is_late_changes_nothing_and_none_is_of_the_future() -> None:
    live = LiveStates(PLAN)
    live.report([report(queue_depth=1.0, observed_at=after(9_999))], AT)
    assert live.states(AT)["a"].observed_at == AT
    live.report([report(queue_depth=2.0, observed_at=after(-1))], AT)
    assert live.states(AT)["a"].queue_depth == 1.0
    live.report([report(queue_depth=3.0)], after(1))
    assert live.states(after(1))["a"].queue_depth == 3.0


def test_what_is_known_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_states, "LOOK_SECONDS", 30.0)
    live = LiveStates(PLAN)
    assert live.states(AT) == {}
    live.report([report(queue_depth=1.0)], AT)
    assert live.states(AT) == {}
    assert live.states(after(31))["a"].queue_depth == 1.0, "the clock of whoever asks counts as well"


def test_workers_know_together_what_each_was_told(tmp_path: Path) -> None:
    one, other = (LiveStates(PLAN, folder=tmp_path, worker=number) for number in (0, 1))
    one.report([report(queue_depth=1.0)], AT)
    other.report([report(queue_depth=2.0)], after(1))
    for latency_ms in (100.0, 100.0, 100.0):
        one.learn([outcome(latency_ms=latency_ms)], after(2))
    other.learn([outcome(latency_ms=500.0)], after(2))
    for live in (one, other):
        state = live.states(after(2))["a"]
        assert (state.queue_depth, state.latency_ms) == (2.0, pytest.approx(200.0))


def test_a_restart_forgets_nothing_and_another_configuration_mixes_nothing_in(tmp_path: Path) -> None:
    LiveStates(PLAN, folder=tmp_path).report([report(queue_depth=1.0)], AT)
    assert LiveStates(PLAN, folder=tmp_path).states(after(1))["a"].queue_depth == 1.0
    other = Plan.of(config.parse(TEXT.replace("[destinations]", "[destinations]\nc = {}")))
    assert LiveStates(other, folder=tmp_path).states(after(1)) == {}


def test_where_nothing_can_be_shared_it_still_holds_for_oneself(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    live = LiveStates(PLAN, folder=blocked)
    assert live.failure
    live.report([report(queue_depth=1.0)], AT)
    assert live.states(AT)["a"].queue_depth == 1.0


def test_without_live_state_configured_candidates_are_as_asked() -> None:
    live = LiveStates(
        Plan.of(
            config.parse(
                TEXT.replace("[live]", "").replace("max_age_seconds = 60.0", "").replace("half_life_seconds = 10.0", "")
            )
        )
    )
    old = Candidate(destination="a", state=DestinationState(queue_depth=1.0, observed_at=after(-9_999)))
    live.report([report(queue_depth=3.0)], AT)
    live.learn([outcome()], AT)
    assert live.fill([old, Candidate(destination="b")], AT) == (old, Candidate(destination="b"))


@given(n_steps=st.integers(0, 3))
def test_a_row_that_is_being_written_is_not_read_half(n_steps: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever died in the middle of a write, or writes for ever, leaves a missing row and never a mixed one."""
    folder = tmp_path_factory.mktemp("tables")
    writer, reader = (LiveTable((2, 3), folder=folder, name="t", worker=number) for number in (0, 1))
    writer.write(0, slice(0, 3), [1.0, 2.0, 3.0])
    writer.write(1, slice(0, 3), [4.0, 5.0, 6.0])
    interrupt(writer, n_steps)
    rows = reader.read()[1]
    assert rows[1].tolist() == [4.0, 5.0, 6.0]
    assert rows[0].tolist() in ([1.0, 2.0, 3.0], [7.0, 8.0, 9.0]) or np.isnan(rows[0]).all()
    assert n_steps not in (1, 2) or np.isnan(rows[0]).all()


def interrupt(table: LiveTable, n_steps: int) -> None:
    """Do the first steps of a write of 7, 8, 9 to row 0: the version, the row, the version."""
    steps: list[Callable[[], None]] = [
        lambda: table._own.__setitem__((0, 0), table._own[0, 0] + 1),
        lambda: table._own[0].__setitem__(slice(1, 4), [7.0, 8.0, 9.0]),
        lambda: table._own.__setitem__((0, 0), table._own[0, 0] + 1),
    ]
    for step in steps[:n_steps]:
        step()


def test_what_one_that_died_writing_left_half_is_missing_and_then_told_anew(tmp_path: Path) -> None:
    first = LiveTable((1, 3), folder=tmp_path, name="t")
    first.write(0, slice(0, 3), [1.0, 2.0, 3.0])
    interrupt(first, 2)
    again = LiveTable((1, 3), folder=tmp_path, name="t")
    assert np.isnan(again.read()[0]).all()
    again.write(0, slice(0, 3), [4.0, 5.0, 6.0])
    assert again.read()[0].tolist() == [[4.0, 5.0, 6.0]]


def test_a_file_of_another_size_is_not_mapped(tmp_path: Path) -> None:
    (tmp_path / f"t-1{live_table.SUFFIX}").write_bytes(b"short")
    table = LiveTable((1, 1), folder=tmp_path, name="t")
    assert table.read().shape == (1, 1, 1)
