"""The guards on a real log whose source repeats the future on every event; skipped where the data are absent."""

import os
from pathlib import Path

import pytest

from benchmarks import guards, incidents
from benchmarks.incidents import ARRIVAL_CATEGORIES, ARRIVAL_NUMBERS, PLANTED, Incidents
from validation import leakage

FOLDER = Path(os.environ.get("TURNOUT_DATA", Path(__file__).parents[3] / "shared" / "data")) / "incidents"

pytestmark = pytest.mark.skipif(
    not (FOLDER / incidents.EVENTS).is_file(),
    reason="the incident log is not there: TURNOUT_DATA names no folder of it",
)


@pytest.fixture(scope="module")
def log() -> Incidents:
    return incidents.read(FOLDER)


def test_t05_exactly_the_future_columns_are_refused_and_the_arrival_columns_are_not(log: Incidents) -> None:
    verdict = leakage.judge(log.screened(), known_at=log.known_at())
    assert set(verdict.columns) == {*PLANTED, *incidents.AFTERWARDS}
    everything = {*log.screened().numbers, *log.screened().categories}
    assert everything - set(verdict.columns) == {*ARRIVAL_CATEGORIES, *ARRIVAL_NUMBERS}


def test_t05_each_check_catches_its_own(log: Incidents) -> None:
    verdict = leakage.judge(log.screened(), known_at=log.known_at())
    caught = {name: {leak.check for leak in verdict.leaks if leak.column == name} for name in verdict.columns}
    assert (
        caught["closed_code"] == caught["resolved_by"] == {"known_at"}
    )  # codes tell a part: only their date gives them away
    assert caught["resolved_at"] == caught["closed_at"] == {"known_at", "instants"}
    assert caught["resolve_h"] == {"known_at", "latency_ms"}
    assert caught["made_sla"] == {"known_at", "success"}


def test_without_known_at_the_screen_alone_refuses_instants_and_copies_and_no_honest_column(log: Incidents) -> None:
    verdict = leakage.judge(log.screened())
    assert set(verdict.columns) == {"resolved_at", "closed_at", "made_sla", "resolve_h"}


def test_the_world_moved_between_march_and_april(log: Incidents) -> None:
    verdict = guards.judge_drift(log, guards.REFERENCE, guards.RECENT)
    assert verdict.state == "drifted"
    assert verdict.calibration is not None
    assert verdict.calibration.gap == pytest.approx(0.344, abs=0.002)
    assert verdict.calibration.certain_gap > 0.05


def test_the_benchmark_says_that_there_are_no_data(tmp_path: Path) -> None:
    assert guards.main(["--data", str(tmp_path)]) == guards.NO_DATA
