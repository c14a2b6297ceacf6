"""Off-policy estimates against Vowpal Wabbit's own estimators, on random logs."""

import numpy as np
import pytest
from estimators.bandits import base, cs, gaussian, ips, snips
from estimators.slates import pseudo_inverse
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import anytime, evaluation
from models.anytime import AnytimeInterval, Declared
from models.evaluation import Estimate, Limits, Refusal
from models.logged import LoggedDecisions

Floats = NDArray[np.float64]

LENIENT = Limits(min_decisions=2, min_clusters=2, min_effective_size=1, overlap_tolerance=1e9)
N_CANDIDATES = 3
EXACT = {"rel": 1e-9, "abs": 1e-9}


def draw_log(n: int, seed: int) -> tuple[LoggedDecisions, Floats, Floats, Floats]:
    """Return a log with rewards in [0, 1], two policies and a reward model."""
    rng = np.random.default_rng(seed)
    logging, target, baseline = rng.dirichlet(np.ones(N_CANDIDATES), (3, n)) * 0.94 + 0.02
    chosen = (rng.uniform(size=(n, 1)) > np.cumsum(logging, axis=1)).sum(axis=1)
    log = LoggedDecisions(
        offsets=np.arange(0, N_CANDIDATES * n + 1, N_CANDIDATES),
        chosen=np.arange(0, N_CANDIDATES * n, N_CANDIDATES) + chosen,
        propensity=logging[np.arange(n), chosen],
        reward=rng.uniform(size=n),
    )
    return log, target.ravel(), baseline.ravel(), rng.uniform(size=N_CANDIDATES * n)


def estimate_with(kind: base.Estimator, log: LoggedDecisions, policy: Floats, worth: Floats) -> float:
    """Return what one of Vowpal Wabbit's estimators makes of every decision, with ``worth`` (float64[n]) for its reward."""
    show(kind, log, policy, worth)
    value = kind.get()
    assert value is not None
    return value


def bound_with(kind: base.Interval, log: LoggedDecisions, policy: Floats, worth: Floats) -> tuple[float, float]:
    show(kind, log, policy, worth)
    low, high = kind.get(0.05)
    assert low is not None
    assert high is not None
    return low, high


def show(kind: base.Estimator | base.Interval, log: LoggedDecisions, policy: Floats, worth: Floats) -> None:
    for propensity, value, share in zip(log.propensity, worth, policy[log.chosen], strict=True):
        kind.add_example(float(propensity), float(value), float(share))


def sure(judged: Estimate | Refusal) -> Estimate:
    assert isinstance(judged, Estimate), judged
    return judged


@given(st.integers(2, 200), st.integers(0, 10_000))
def test_ips_and_snips_are_those_of_vowpal_wabbit(n: int, seed: int) -> None:
    log, target, *_ = draw_log(n, seed)
    assert sure(evaluation.estimate_ips(log, target, LENIENT)).value == pytest.approx(
        estimate_with(ips.Estimator(), log, target, log.reward), **EXACT
    )
    assert sure(evaluation.estimate_snips(log, target, LENIENT)).value == pytest.approx(
        estimate_with(snips.Estimator(), log, target, log.reward), **EXACT
    )


@given(st.integers(2, 200), st.integers(0, 10_000))
def test_doubly_robust_is_what_q_expects_and_its_ips_of_what_q_leaves(n: int, seed: int) -> None:
    """Its library has no doubly robust estimator; the part of it that is weighed is its IPS."""
    log, target, baseline, q = draw_log(n, seed)
    for policy, judged in (
        (target, evaluation.estimate_dr(log, target, q, LENIENT)),
        (target - baseline, evaluation.estimate_difference(log, target, baseline, q, LENIENT)),
    ):
        weighed = estimate_with(ips.Estimator(), log, policy, log.reward - q[log.chosen])
        assert sure(judged).value == pytest.approx((policy * q).sum() / n + weighed, **EXACT)


@given(st.integers(2, 200), st.integers(0, 10_000))
def test_a_slate_of_one_slot_is_a_decision(n: int, seed: int) -> None:
    log, target, *_ = draw_log(n, seed)
    slates = pseudo_inverse.Estimator()
    for propensity, reward, share in zip(log.propensity, log.reward, target[log.chosen], strict=True):
        slates.add_example([float(propensity)], float(reward), [float(share)])
    assert sure(evaluation.estimate_ips(log, target, LENIENT)).value == pytest.approx(slates.get(), **EXACT)


@given(st.integers(2, 200), st.integers(0, 10_000))
def test_standard_errors_are_those_of_its_gaussian_intervals_and_ours_are_never_shorter(n: int, seed: int) -> None:
    log, target, *_ = draw_log(n, seed)
    estimate = sure(evaluation.estimate_ips(log, target, LENIENT))
    low, high = bound_with(gaussian.Interval(), log, target, log.reward)
    assert (low + high) / 2 == pytest.approx(estimate.value, **EXACT)
    assert (high - low) / 2 / 1.959963984540054 == pytest.approx(estimate.standard_error, **EXACT)
    assert estimate.low <= low + 1e-9
    assert high - 1e-9 <= estimate.high


@pytest.mark.parametrize("seed", range(5))
def test_anytime_limits_agree_with_its_confidence_sequence_and_are_narrower(seed: int) -> None:
    log, target, *_ = draw_log(2_000, seed)
    ours = anytime.bound_ips(log, target, Declared(reward_low=0.0, reward_high=1.0, min_propensity=0.02))
    assert isinstance(ours, AnytimeInterval)
    low, high = bound_with(cs.Interval(0.0, 1.0), log, target, log.reward)
    assert max(low, ours.low) < 0.5 < min(high, ours.high)  # what every choice is worth
    assert ours.high - ours.low < high - low
