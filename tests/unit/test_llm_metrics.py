"""RouteLLM's measures on cases that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.llm_metrics import Curve, Floats, bootstrap, call_share, draw_curve, measures, recovered_gap


def events(n: int, n_strong_only: int, n_weak_only: int = 0) -> tuple[Floats, Floats]:
    """The first events only the strong model answers, the last ones only the weak one, those between both."""
    weak, strong = np.ones(n), np.ones(n)
    weak[:n_strong_only] = 0.0
    strong[n - n_weak_only :] = 0.0
    return weak, strong


def test_a_perfect_ranking_recovers_the_gap_with_its_own_share_of_calls() -> None:
    weak, strong = events(100, 20)
    curve = draw_curve(-np.arange(100.0), weak, strong)
    np.testing.assert_allclose(curve.strong_share, np.linspace(0, 1, 11), atol=1e-12)
    np.testing.assert_allclose(curve.accuracy, [0.8, 0.9, *[1.0] * 9])
    # Triangle of half the gap over the first fifth, everything afterwards.
    assert recovered_gap(curve) == pytest.approx(0.9)
    assert call_share(curve, 0.5) == pytest.approx(0.1)
    assert call_share(curve, 0.8) == pytest.approx(0.16)


def test_the_worst_ranking_recovers_the_gap_last() -> None:
    weak, strong = events(100, 20)
    apgr, cpt50, cpt80 = measures(np.arange(100.0), weak, strong)
    assert apgr == pytest.approx(0.1)
    assert cpt50 == pytest.approx(0.9)
    assert cpt80 == pytest.approx(0.96)


def test_leaving_the_strong_model_its_errors_recovers_more_than_the_gap() -> None:
    """On 100 events the strong model alone wins 20 and loses 10: a gap of .1, of which the best ranking recovers .2."""
    weak, strong = events(100, 20, 10)
    curve = draw_curve(-np.arange(100.0), weak, strong)
    np.testing.assert_allclose(curve.accuracy, [0.8, 0.9, *[1.0] * 8, 0.9])
    # By trapezoids, in units of the gap: .05 + .15 + 7 * .2 + .15
    assert recovered_gap(curve) == pytest.approx(1.75)
    assert call_share(curve, 0.5) == pytest.approx(0.05)


def test_one_prediction_for_all_leaves_only_none_and_all() -> None:
    weak, strong = events(100, 20)
    curve = draw_curve(np.zeros(100), weak, strong)
    assert set(curve.strong_share) == {0.0, 1.0}
    assert measures(np.zeros(100), weak, strong) == pytest.approx([0.5, 0.5, 0.8])


def test_ties_at_a_threshold_are_sent_together() -> None:
    weak, strong = events(10, 5)
    curve = draw_curve(np.repeat([1.0, 0.0], 5), weak, strong)
    assert sorted(set(curve.strong_share)) == [0.0, 0.5, 1.0]
    assert recovered_gap(curve) == pytest.approx(0.75)


def test_a_curve_that_falls_back_is_crossed_where_it_first_reaches_the_target() -> None:
    curve = Curve(
        strong_share=np.array([0.0, 0.25, 0.5, 0.75, 1.0]),
        accuracy=np.array([0.0, 0.6, 0.4, 0.5, 1.0]),
        weak=0.0,
        strong=1.0,
    )
    assert call_share(curve, 0.5) == pytest.approx(0.25 * 5 / 6)
    assert call_share(curve, 0.8) == pytest.approx(0.75 + 0.25 * 0.3 / 0.5)


def test_what_is_recovered_from_the_start_costs_no_call() -> None:
    curve = Curve(strong_share=np.array([0.0, 1.0]), accuracy=np.array([0.5, 0.5]), weak=0.5, strong=0.5)
    assert call_share(curve, 0.5) == 0.0


def test_a_strong_model_that_is_not_stronger_is_refused() -> None:
    with pytest.raises(ValueError, match=r"strong must be better than weak, got 0\.5000 and 0\.5000"):
        draw_curve(np.arange(2.0), np.array([0.0, 1.0]), np.array([1.0, 0.0]))


@given(st.integers(0, 2**32 - 1))
def test_where_the_curve_rises_it_is_crossed_where_routellms_own_interpolation_crosses_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    accuracy = np.concatenate([[0.3], np.sort(rng.uniform(0.3, 0.9, 9)), [0.9]])
    curve = Curve(strong_share=np.linspace(0, 1, 11), accuracy=accuracy, weak=0.3, strong=0.9)
    for recovered in (0.2, 0.5, 0.8):
        theirs = np.interp(0.3 + recovered * 0.6, curve.accuracy, curve.strong_share)
        assert call_share(curve, recovered) == pytest.approx(float(theirs), abs=1e-6)


@given(st.integers(0, 2**32 - 1))
def test_the_measures_depend_on_the_order_of_predictions_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weak, strong = events(101, 40, 10)
    gain = rng.permutation(101).astype(np.float64)
    # 101 distinct values put every quantile on a value, so that a stretched scale sends the same events.
    np.testing.assert_allclose(measures(gain, weak, strong), measures(np.exp(gain / 20), weak, strong))


def test_an_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(0).normal(size=400)
    low, high = bootstrap(lambda rows: np.array([values[rows].mean(), 0.0]), 400, seed=1)
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.15)
    assert low[1] == high[1] == 0.0
