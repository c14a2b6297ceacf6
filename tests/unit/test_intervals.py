"""Intervals of a mean: the textbook's where its assumptions hold, wider where clusters or skew break them."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import bdtr

from models import intervals

Floats = NDArray[np.float64]

CLUSTERED = st.lists(st.tuples(st.integers(0, 6), st.floats(-5.0, 5.0)), min_size=4, max_size=60)


def columns(rows: list[tuple[int, float]]) -> tuple[Floats, NDArray[np.int64]]:
    """Return observations and clusters of which there are at least two, and some variation between them."""
    cluster, observed = np.array([name for name, _ in rows]), np.array([value for _, value in rows])
    sums = np.bincount(cluster, weights=observed - observed.mean())
    assume(len(set(cluster)) > 1 and np.abs(sums).max() > 1e-3)
    return observed, cluster


def test_each_decision_on_its_own_gives_the_textbook_interval() -> None:
    observed = np.array([1.0, 2.0, 4.0, 9.0])
    interval = intervals.mean_interval(observed, None, 0.95)
    assert interval.standard_error == pytest.approx(observed.std(ddof=1) / 2)
    assert interval.high - interval.value == pytest.approx(3.182446305 * interval.standard_error)  # t(.975, 3 df)


@given(st.integers(2, 12), st.integers(2, 9))
def test_copies_of_an_observation_in_one_cluster_add_no_certainty(n: int, copies: int) -> None:
    observed = np.random.default_rng(n).normal(size=n)
    cluster = np.repeat(np.arange(n), copies)
    alone = intervals.mean_interval(observed, None, 0.9)
    copied = intervals.mean_interval(np.repeat(observed, copies), cluster, 0.9)
    assert (copied.value, copied.low, copied.high) == pytest.approx((alone.value, alone.low, alone.high))


@given(st.lists(st.integers(1, 40), min_size=2, max_size=12))
def test_the_variance_of_unequal_clusters_has_no_bias_and_the_published_degrees_of_freedom(sizes: list[int]) -> None:
    """Where observations are independent the estimate is a quadratic form: by its matrix, as Bell and McCaffrey do."""
    n, shares = sum(sizes), np.array(sizes) / sum(sizes)
    clusters = np.repeat(np.eye(len(sizes)), sizes, axis=0)
    centred = clusters.T @ (np.eye(n) - 1.0 / n)
    form = centred / np.sqrt(1.0 - shares)[:, None] / n
    covariance = form @ form.T
    assert np.trace(covariance) == pytest.approx(1.0 / n)
    published = np.trace(covariance) ** 2 / np.square(covariance).sum()
    assert intervals.degrees_of_freedom(shares) == pytest.approx(published)
    observed, cluster = np.random.default_rng(n).normal(size=n), np.repeat(np.arange(len(sizes)), sizes)
    error = intervals.mean_interval(observed, cluster, 0.9).standard_error
    assert error**2 == pytest.approx(np.square(form @ observed).sum())


def likelihood_ratio(observed: Floats, mean: float) -> float:
    """Return Owen's -2 log R of a mean strictly between the least and the largest observation."""
    apart = observed - mean
    span = -1.0 / apart.max(), -1.0 / apart.min()
    slack = 1e-10 * (span[1] - span[0])
    multiplier = brentq(
        lambda m: float((apart / (1.0 + m * apart)).sum()), span[0] + slack, span[1] - slack, xtol=1e-14
    )
    return 2.0 * float(np.log1p(multiplier * apart).sum())


@given(st.integers(8, 200), st.integers(0, 10_000), st.floats(0.5, 3.0))
def test_the_reach_is_where_the_published_likelihood_ratio_has_fallen(n: int, seed: int, t: float) -> None:
    observed = np.random.default_rng(seed).lognormal(size=n)
    residuals = observed - observed.mean()
    reach = intervals.likelihood_reach(residuals, t) * np.linalg.norm(residuals) / n
    assume(reach < 0.95 * residuals.max())  # beyond, the outer bracket of the oracle is too coarse
    assert likelihood_ratio(residuals, reach) == pytest.approx(t**2, rel=1e-4)


@given(CLUSTERED, st.floats(0.5, 0.999))
def test_no_interval_is_narrower_than_students_on_either_side(rows: list[tuple[int, float]], confidence: float) -> None:
    observed, cluster = columns(rows)
    interval = intervals.mean_interval(observed, cluster, confidence)
    shares = np.bincount(cluster)[np.unique(cluster)] / len(cluster)
    t = intervals.stdtrit(intervals.degrees_of_freedom(shares), (1 + confidence) / 2)
    assert interval.high - interval.value >= t * interval.standard_error * (1 - 1e-9)
    assert interval.value - interval.low >= t * interval.standard_error * (1 - 1e-9)


@given(CLUSTERED, st.floats(-3.0, 3.0), st.sampled_from([-2.0, -1.0, 0.5]))
def test_the_interval_moves_and_turns_with_what_was_observed(
    rows: list[tuple[int, float]], shift: float, factor: float
) -> None:
    observed, cluster = columns(rows)
    plain = intervals.mean_interval(observed, cluster, 0.95)
    moved = intervals.mean_interval(shift + factor * observed, cluster, 0.95)
    ends = sorted([shift + factor * plain.low, shift + factor * plain.high])
    assert [moved.low, moved.high] == pytest.approx(ends, rel=1e-4, abs=1e-6)


def test_rare_failures_leave_more_room_for_worse_than_for_better() -> None:
    """Three failures in 150: Student's interval ends at 95.7 %, the exact one of a binomial at 94.3 %, this one at 94.9 %."""
    observed = np.repeat([0.0, 1.0], [3, 147])
    interval = intervals.mean_interval(observed, None, 0.95)
    textbook = 1.976 * observed.std(ddof=1) / np.sqrt(150)
    assert interval.value - interval.low > 1.25 * textbook
    assert interval.high - interval.value == pytest.approx(textbook, rel=1e-3)


def test_many_even_observations_are_left_to_student() -> None:
    observed = np.tile([0.0, 1.0], 20_000)
    interval = intervals.mean_interval(observed, None, 0.95)
    assert interval.high - interval.value == pytest.approx(1.96 * 0.5 / 200, rel=1e-3)
    assert interval.value - interval.low == interval.high - interval.value


def test_what_never_varies_has_no_width() -> None:
    interval = intervals.mean_interval(np.full(40, 0.5), np.arange(40) // 4, 0.95)
    assert (interval.low, interval.value, interval.high) == (0.5, 0.5, 0.5)


def test_2_995_audited_decisions_without_a_violation_state_three_nines() -> None:
    assert intervals.rate_limit(0, 2_995, 0.95) <= 0.001 < intervals.rate_limit(0, 2_994, 0.95)


@given(n=st.integers(1, 500), seed=st.integers(0, 500))
def test_the_limit_of_a_rate_is_where_so_few_events_become_unlikely(n: int, seed: int) -> None:
    n_events = seed % n
    limit = intervals.rate_limit(n_events, n, 0.95)
    assert bdtr(n_events, n, limit) == pytest.approx(0.05)
    assert intervals.rate_limit(n, n, 0.95) == 1.0


@pytest.mark.parametrize(("n_events", "n", "confidence"), [(-1, 5, 0.9), (6, 5, 0.9), (0, 5, 1.0)])
def test_a_rate_of_what_cannot_be_is_refused(n_events: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match="events must lie in"):
        intervals.rate_limit(n_events, n, confidence)
