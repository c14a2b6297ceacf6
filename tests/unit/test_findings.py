"""Findings: slices find where a planted loss is, and cases are those in which the choices differ."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from features.decision_log import DecisionLog
from features.vector import CategoryColumn
from models import evidence_page, findings
from models.findings import Disagreement, Findings

N = 400


@pytest.fixture(scope="module")
def log() -> DecisionLog:
    """Two candidates each; the first earns 1 in Norway and 0 in Sweden, the second always .5; assigned by a fair coin."""
    rng = np.random.default_rng(7)
    norway, first = np.arange(N) % 2 == 0, rng.uniform(size=N) < 0.5
    reward = np.where(first, np.where(norway, 1.0, 0.0), 0.5)
    nothing = np.full(N, np.nan)
    return DecisionLog(
        decision_id=np.array([f"d{i}" for i in range(N)], dtype=object),
        decided_at=np.datetime64("2026-01-01", "us") + np.arange(N),
        cluster=np.arange(N),
        offsets=np.arange(N + 1) * 2,
        chosen=np.arange(N) * 2 + ~first,
        propensity=np.full(N, 0.5),
        reward=reward,
        success=nothing,
        latency_ms=nothing,
        cost_usd=nothing,
        timed_out=np.zeros(N, np.bool_),
        numbers=np.zeros((2 * N, 0)),
        categories=[
            CategoryColumn(np.repeat((~norway).astype(np.int64), 2), ("NO", "SE")),
            CategoryColumn(np.array([0, 1] * N), ("a", "b")),
        ],
        destination=CategoryColumn(np.array([0, 1] * N), ("a", "b")),
        policies={},
    )


FIRST, SECOND = np.array([1.0, 0.0] * N), np.array([0.0, 1.0] * N)


def test_a_slice_that_loses_is_found_and_what_differs_between_candidates_is_no_slice(log: DecisionLog) -> None:
    slices = findings.find_slices(log, ("country", "destination"), FIRST, SECOND, np.full(2 * N, 0.5))
    by_value = {(part.feature, part.value): part for part in slices}
    assert set(by_value) == {("country", "NO"), ("country", "SE")}
    assert by_value["country", "NO"].low > 0.0
    assert by_value["country", "SE"].high < 0.0
    assert [part.value for part in findings.find_regressions(slices)] == ["SE"]


def test_cases_are_decisions_in_which_the_choices_differ_from_most_gain_to_least(log: DecisionLog) -> None:
    target = SECOND.copy()
    target[: 2 * 10] = FIRST[: 2 * 10]  # differs from the second in the first ten decisions alone
    value = np.zeros(2 * N)
    value[0:20:2] = np.arange(10)
    scores: Any = SimpleNamespace(value=value)
    cases = findings.find_disagreements(log, ("country", "destination"), target, SECOND, scores)
    assert [case.decision_id for case in cases] == ["d9", "d8", "d7", "d2", "d1", "d0"]
    assert (cases[0].champion, cases[0].candidate, cases[0].candidate_value) == ("b", "a", 9.0)
    assert cases[0].features == {"country": "SE"}


def test_policies_that_agree_have_no_cases(log: DecisionLog) -> None:
    scores: Any = SimpleNamespace(value=np.zeros(2 * N))
    assert findings.find_disagreements(log, (), FIRST, FIRST, scores) == ()


def test_the_page_shows_what_came_from_outside_as_text() -> None:
    case = Disagreement(
        decision_id="<script>", at="now", champion="a", candidate="b", champion_value=0.1, candidate_value=0.9,
        assigned="a", reward=1.0, features={"country": "<b>"},
    )  # fmt: skip
    page = evidence_page.found(Findings(disagreements=(case,)))
    assert "&lt;script&gt;" in page
    assert "<b>" not in page
    assert evidence_page.found(Findings()) == ""
