"""A reward is what the weights say, within the declared bounds, and named by exactly those weights."""

import math
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.objective import Objective
from features.records import Outcome

WEIGHTS = st.floats(0.0, 5.0)
OBJECTIVES = st.builds(
    Objective,
    success=st.floats(0.1, 5.0),
    latency_minute=WEIGHTS,
    cost_usd=WEIGHTS,
    sla=WEIGHTS,
    sla_latency_ms=st.floats(1.0, 1e6),
    low=st.floats(-10.0, -1.0),
    high=st.floats(0.0, 10.0),
    default=st.none() | st.floats(-1.0, 0.0),
)
OUTCOMES = st.builds(
    Outcome,
    decision_id=st.just("d"),
    served=st.just("card"),
    observed_at=st.just(datetime(2026, 1, 1, tzinfo=UTC)),
    success=st.none() | st.booleans(),
    latency_ms=st.none() | st.floats(0.0, 1e7),
    cost_usd=st.none() | st.floats(0.0, 100.0),
)


def _outcome(**fields: Any) -> Outcome:
    return Outcome(decision_id="d", served="card", observed_at=datetime(2026, 1, 1, tzinfo=UTC), **fields)


@settings(deadline=None)
@given(OBJECTIVES, OUTCOMES)
def test_a_reward_is_the_clipped_sum_of_its_parts(objective: Objective, outcome: Outcome) -> None:
    """The oracle adds the parts one by one, as the docstring says them."""
    latency_needed = objective.latency_minute > 0 or objective.sla > 0
    if outcome.success is None or (outcome.latency_ms is None and latency_needed):
        expected = objective.lost_reward
    else:
        expected = objective.success * outcome.success
        expected -= objective.latency_minute * (outcome.latency_ms or 0.0) / 60_000
        expected -= objective.cost_usd * (outcome.cost_usd or 0.0)
        if outcome.latency_ms is not None and objective.sla_latency_ms is not None:
            expected -= objective.sla * (outcome.latency_ms > objective.sla_latency_ms)
        expected = min(max(expected, objective.low), objective.high)
    assert objective.reward(outcome) == pytest.approx(expected)


@settings(deadline=None)
@given(OBJECTIVES, OUTCOMES)
def test_rewards_lie_within_the_declared_bounds(objective: Objective, outcome: Outcome) -> None:
    assert objective.low <= objective.reward(outcome) <= objective.high


@settings(deadline=None)
@given(OBJECTIVES, st.floats(0.0, 1e6), st.floats(0.0, 1e6))
def test_faster_is_never_worse(objective: Objective, one_ms: float, other_ms: float) -> None:
    fast, slow = sorted((one_ms, other_ms))
    rewards = [objective.reward(_outcome(success=True, latency_ms=latency)) for latency in (fast, slow)]
    assert rewards[0] >= rewards[1]


def test_the_limit_itself_is_within_the_sla() -> None:
    objective = Objective(sla=0.5, sla_latency_ms=500.0)
    assert objective.reward(_outcome(success=True, latency_ms=500.0)) == 1.0
    assert objective.reward(_outcome(success=True, latency_ms=500.1)) == 0.5


def test_expected_values_take_the_probability_of_exceeding_the_sla() -> None:
    objective = Objective(sla=0.5, sla_latency_ms=500.0)
    parts = {"success": np.array([0.9, 0.9]), "latency_ms": np.array([9e9, 0.0]), "cost_usd": np.zeros(2)}
    assert objective.value(**parts, over_sla=np.array([0.0, 1.0])).tolist() == pytest.approx([0.9, 0.4])


def test_parts_without_a_weight_need_not_be_known() -> None:
    unknown = np.array([math.nan])
    assert Objective().value(success=np.ones(1), latency_ms=unknown, cost_usd=unknown).tolist() == [1.0]


def test_a_lost_outcome_is_worth_the_default_or_the_worst() -> None:
    assert Objective(low=-1.0).lost_reward == -1.0
    assert Objective(low=-1.0, default=0.25).lost_reward == 0.25
    assert Objective(default=0.25).reward(_outcome()) == 0.25


def test_what_is_passed_in_is_not_changed() -> None:
    success = np.array([1.0, math.nan])
    objective = Objective()
    objective.clip(objective.value(success=success, latency_ms=success, cost_usd=success))
    np.testing.assert_array_equal(success, [1.0, math.nan])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"low": 1.0, "high": 1.0}, "low must be below high, got low=1.0, high=1.0"),
        ({"success": 0.0}, "at least one weight"),
        ({"sla": 0.5}, "sla needs sla_latency_ms"),
        ({"default": 2.0}, r"default must lie in \[0.0, 1.0\], got 2.0"),
        ({"cost_usd": -1.0}, "cost_usd"),
        ({"window_minutes": 0.0}, "window_minutes"),
        ({"sucess": 1.0}, "unknown field `sucess`"),
    ],
)
def test_an_objective_that_cannot_be_meant_is_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match=said):
        msgspec.convert(fields, Objective)


def test_a_version_names_exactly_the_weights() -> None:
    assert Objective().version == Objective(success=1.0).version
    versions = {
        Objective(**fields).version for fields in ({}, {"high": 2.0}, {"window_minutes": 5.0}, {"default": 0.0})
    }
    assert len(versions) == 4
    assert all(len(version) == 12 for version in versions)


def test_latency_matters_where_it_is_weighed() -> None:
    assert not Objective(cost_usd=1.0).uses_latency()
    assert Objective(latency_minute=1.0).uses_latency()
    assert Objective(sla=1.0, sla_latency_ms=1.0).uses_latency()
