"""Bad data fails by name, a broken validator says that it broke, and edited checks are refused."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from features.history import TrainingRows
from validation import batch
from validation.batch import Check, Expectations

EXPECTED = Expectations(min_rows=4, destinations=("card", "bank"), max_p99_latency_ms=1_000.0, min_success_rate=0.25)
SOUND: dict[str, list[Any]] = {
    "decision_id": ["a", "b", "c", "d", "e"],
    "assigned": ["card", "bank", "card", "card", "bank"],
    "propensity": [0.5, 1.0, 0.5, 0.5, 0.5],
    "reward": [1.0, 0.0, 1.0, 0.0, 1.0],
    "success": [True, False, True, None, True],
    "latency_ms": [1.0, 2.0, 3.0, None, 1_000.0],
}
NO_CHECK = "expect_nothing_in_particular"


def _rows(left_out: Mapping[str, int] | None = None, **changed: list[Any]) -> TrainingRows:
    types = {"success": pa.bool_(), "latency_ms": pa.float64(), "propensity": pa.float64(), "reward": pa.float64()}
    columns = {name: pa.array(values, types.get(name)) for name, values in (SOUND | changed).items()}
    return TrainingRows(table=pa.table(columns), left_out=left_out or {})


def test_a_sound_batch_passes_and_its_pages_are_built(tmp_path: Path) -> None:
    folder = tmp_path / "data_docs"
    (folder / "stale").mkdir(parents=True)
    verdict = batch.judge(_rows({"lost": 1, "open": 50}), EXPECTED, docs_folder=folder)
    assert (verdict.state, verdict.failures) == ("passed", ())
    assert verdict.docs_path == folder / "index.html"
    assert "rows" in (folder / "index.html").read_text()
    assert list(folder.glob("validations/**/*.html"))
    assert not (folder / "stale").exists()


@pytest.mark.parametrize(
    ("changed", "left_out", "failure"),
    [
        ({"decision_id": ["a", "a", "c", "d", "e"]}, {}, "expected no decision twice, got 2 of 5 rows"),
        ({"propensity": [0.5, None, 0.5, 0.5, 0.5]}, {}, "expected a propensity on every row"),
        (
            {"propensity": [0.5, 0.0, 0.5, 0.5, 0.5]},
            {},
            "expected propensities in (0, 1], got 1 of 5 rows against it, such as 0",
        ),
        ({"propensity": [0.5, 1.5, 0.5, 0.5, 0.5]}, {}, "such as 1.5"),
        (
            {"assigned": ["cash", "bank", "card", "card", "bank"]},
            {},
            "only the destinations card, bank, got 1 of 5 rows against it, such as cash",
        ),
        ({"reward": [None, 0.0, 1.0, 0.0, 1.0]}, {}, "expected a reward on every row"),
        ({"success": [None, None, True, True, True]}, {}, "expected success told on 80% of the rows"),
        ({"success": [False, False, False, False, True]}, {}, "expected a success rate from 0.25 to 1, got 0.2"),
        ({"latency_ms": [1.0, 1.0, 1.0, 1.0, 1_001.0]}, {}, "99 % of the latencies from 0 to 1000 ms"),
        ({"latency_ms": [1.0, 1.0, 1.0, 1.0, -1.0]}, {}, "99 % of the latencies from 0 to 1000 ms"),
        ({}, {"lost": 1, "censored": 1}, "at most 20% of the closed decisions without an outcome, got 0.2857"),
        ({name: values[:3] for name, values in SOUND.items()}, {}, "expected at least 4 rows, got 3"),
    ],
)
def test_bad_data_fail_by_name(changed: dict[str, list[Any]], left_out: dict[str, int], failure: str) -> None:
    verdict = batch.judge(_rows(left_out, **changed), EXPECTED)
    assert verdict.state == "failed"
    assert len(verdict.failures) == 1
    assert failure in verdict.failures[0]


def test_a_batch_without_rows_fails_with_what_was_left_out() -> None:
    empty = TrainingRows(table=_rows().table.slice(0, 0), left_out={"open": 7, "lost": 2})
    verdict = batch.judge(empty, EXPECTED)
    assert verdict.state == "failed"
    assert verdict.failures == ("there are no rows; left out: 2 lost, 7 open",)


def test_latencies_may_be_unknown_altogether() -> None:
    assert batch.judge(_rows(latency_ms=[None] * 5), EXPECTED).state == "passed"


def test_an_expectation_that_cannot_be_computed_is_a_broken_validator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Great Expectations reports its own crash as a failed expectation, so the two must be told apart."""
    absent = Check("rows", "expect_column_mean_to_be_between", {"column": "absent", "min_value": 0.0}, "a mean")
    monkeypatch.setattr(batch, "checks_of", lambda _: (absent,))
    verdict = batch.judge(_rows(), EXPECTED)
    assert verdict.state == "broke"
    assert "absent" in verdict.failures[0]


def test_broken_outweighs_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Check("rows", "expect_column_mean_to_be_between", {"column": "absent", "min_value": 0.0}, "a mean")
    checks = (*batch.checks_of(EXPECTED), absent)
    monkeypatch.setattr(batch, "checks_of", lambda _: checks)
    verdict = batch.judge(_rows(decision_id=["a"] * 5), EXPECTED)
    assert verdict.state == "broke"
    assert len(verdict.failures) == 2


def test_a_validator_that_raises_is_broken_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "checks_of", lambda _: (Check("rows", NO_CHECK, {}, "nothing"),))
    verdict = batch.judge(_rows(), EXPECTED)
    assert verdict.state == "broke"
    assert "Error" in verdict.failures[0]


def test_edited_checks_are_refused_before_they_run() -> None:
    pinned = batch.digest_of(batch.checks_of(EXPECTED))
    edited = Expectations(min_rows=1, destinations=EXPECTED.destinations)
    assert batch.judge(_rows(), EXPECTED, pinned_digest=pinned).state == "passed"
    verdict = batch.judge(_rows(), edited, pinned_digest=pinned)
    assert verdict.state == "broke"
    assert pinned in verdict.failures[0]
    assert verdict.suite_digest != pinned


def test_the_door_opens_only_on_use_and_without_telemetry() -> None:
    code = """
import os, sys
from validation import batch
assert not {"great_expectations", "pandas"} & sys.modules.keys()
batch._great_expectations()
assert os.environ["GX_ANALYTICS_ENABLED"] == "false"
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=Path(__file__).parents[2])
