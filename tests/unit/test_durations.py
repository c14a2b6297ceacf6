"""The spread of durations under censoring, against what is known of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import durations


def test_without_censoring_every_residual_weighs_the_same() -> None:
    at, mass = durations.survival(np.array([3.0, 1.0, 2.0, 2.0]), np.zeros(4, np.bool_))
    assert at.tolist() == [1.0, 2.0, 2.0, 3.0]
    np.testing.assert_allclose(mass, 0.25)


def test_the_mass_of_a_censored_residual_moves_to_the_larger_ones() -> None:
    """Kaplan and Meier by hand: 1 event of 4 at 1; one censored at 2; 1 of 2 at 3; the last takes the rest."""
    at, mass = durations.survival(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, True, False, False]))
    assert at.tolist() == [1.0, 3.0, 4.0]
    np.testing.assert_allclose(mass, [0.25, 0.375, 0.375])


def test_the_largest_residual_takes_what_is_left_though_it_was_censored() -> None:
    at, mass = durations.survival(np.array([1.0, 5.0]), np.array([False, True]))
    assert at.tolist() == [1.0, 5.0]
    np.testing.assert_allclose(mass, [0.5, 0.5])


@given(st.lists(st.tuples(st.floats(-5, 5), st.booleans()), min_size=1, max_size=40))
def test_mass_is_a_distribution_and_quantiles_rise(pairs: list[tuple[float, bool]]) -> None:
    residual, censored = np.array([r for r, _ in pairs]), np.array([c for _, c in pairs])
    at, mass = durations.survival(residual, censored)
    assert mass.min() >= 0.0
    assert mass.sum() == pytest.approx(1.0)
    assert (np.diff(at) >= 0.0).all()
    assert (np.diff(durations.quantiles(residual, censored)) >= 0.0).all()


def test_quantiles_under_censoring_are_those_of_the_truth() -> None:
    """A third of the durations is cut at a bound that says nothing of them."""
    rng = np.random.default_rng(0)
    truth, bound = rng.normal(size=20_000), rng.normal(0.7, 1.0, size=20_000)
    seen, censored = np.minimum(truth, bound), truth > bound
    assert censored.mean() > 0.25
    found = durations.quantiles(seen, censored, np.array([0.25, 0.5, 0.9]))
    np.testing.assert_allclose(found, [-0.674, 0.0, 1.282], atol=0.05)
    naive = np.quantile(seen[~censored], 0.9)
    assert naive < 1.1  # what leaving the timeouts out would have said


def test_a_timeout_is_imputed_beyond_its_bound_and_events_stay() -> None:
    residual = np.array([-1.0, 0.0, 1.0, 2.0])
    censored = np.array([False, True, False, False])
    imputed = durations.impute(residual + 10.0, np.full(4, 10.0), residual, censored)
    assert imputed[[0, 2, 3]].tolist() == [9.0, 11.0, 12.0]
    assert imputed[1] == pytest.approx(10.0 + 1.5)  # the mean of what lies beyond 0: 1 and 2 alike


def test_a_timeout_beyond_all_that_was_seen_stays_at_its_bound() -> None:
    residual = np.array([0.0, 5.0])
    imputed = durations.impute(residual, np.zeros(2), residual, np.array([False, True]))
    assert imputed.tolist() == [0.0, 5.0]


def test_the_risk_of_exceeding_a_limit_falls_with_the_limit() -> None:
    residual = durations.quantiles(np.random.default_rng(1).normal(size=5_000), np.zeros(5_000, np.bool_))
    predicted = np.zeros(1)
    assert durations.exceedance(0.0, predicted, np.array(residual))[0] == pytest.approx(0.5, abs=0.03)
    assert durations.exceedance(1.282, predicted, np.array(residual))[0] == pytest.approx(0.1, abs=0.03)
    assert durations.exceedance(99.0, predicted, np.array(residual))[0] == 0.0
    assert durations.exceedance(-99.0, predicted, np.array(residual))[0] == 1.0
