"""Betting: wealth that a fair game cannot grow, limits that invert it, and verdicts that later data cannot take back."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import betting
from models.betting import FRACTIONS, Units

Floats = NDArray[np.float64]

TOTALS = st.lists(st.floats(-1.0, 2.0), min_size=1, max_size=40)


def units(*totals: float, low: float = -1.0, high: float = 2.0) -> Units:
    n = len(totals)
    return Units(total=np.array(totals), size=np.ones(n), low=np.full(n, low), high=np.full(n, high))


def noisy(mean: float, n: int, seed: int = 0, low: float = -4.0, high: float = 4.0) -> Units:
    """Zero for most, a rare large win or loss for some: what a small canary shows."""
    rng = np.random.default_rng(seed)
    win = rng.uniform(size=n) < 0.5 + mean / (2 * 0.2 * 4.0)
    totals = np.where(rng.uniform(size=n) < 0.2, np.where(win, 4.0, -4.0), 0.0)
    return units(*totals, low=low, high=high)


@settings(deadline=None)
@given(TOTALS, st.floats(-0.5, 1.5))
def test_the_wealth_is_the_mean_over_plain_bets(totals: list[float], mean: float) -> None:
    plain = [1.0] * len(FRACTIONS)
    for total in totals:
        plain = [
            wealth * (1.0 + fraction * (total - mean) / (mean + 1.0))
            for wealth, fraction in zip(plain, FRACTIONS, strict=True)
        ]
    assert math.exp(betting.log_wealth(units(*totals), mean)[-1]) == pytest.approx(math.fsum(plain) / len(plain))


@settings(deadline=None)
@given(st.floats(-0.9, 1.9), st.lists(st.tuples(st.floats(0.0, 1.0), st.floats(-3.0, -1.0)), min_size=1, max_size=4))
def test_a_fair_game_leaves_the_expected_wealth_at_one(mean: float, rounds: list[tuple[float, float]]) -> None:
    """Enumerate every path of two-valued fair observations whose bounds change from round to round."""
    expected = 0.0
    low = np.array([bound for _, bound in rounds])
    wide = Units(total=np.zeros(len(rounds)), size=np.ones(len(rounds)), low=low, high=np.full(len(rounds), 9.0))
    for path in np.ndindex(*([2] * len(rounds))):
        outcome = np.array(path, dtype=np.float64)
        depth = np.array([spread for spread, _ in rounds]) * (mean - low)  # how far down; as far up, evenly
        total = mean + depth * (2 * outcome - 1)
        played = Units(total=total, size=wide.size, low=low, high=np.maximum(wide.high, total))
        expected += math.exp(betting.log_wealth(played, mean)[-1]) / 2 ** len(rounds)
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_the_worst_observation_leaves_something_to_bet_with() -> None:
    wealth = betting.log_wealth(units(*[-1.0] * 50), 0.0)
    assert np.isfinite(wealth).all()


@settings(deadline=None)
@given(TOTALS, st.integers(1, 40))
def test_later_data_never_change_an_earlier_verdict(totals: list[float], cut: int) -> None:
    whole, part = betting.log_wealth(units(*totals), 0.0), betting.log_wealth(units(*totals[:cut]), 0.0)
    assert whole[:cut] == pytest.approx(part, abs=1e-12)
    early = betting.first_crossing(part, 0.3)
    if early is not None:
        assert betting.first_crossing(whole, 0.3) == early
    assert betting.e_value(whole) >= betting.e_value(part) * (1 - 1e-12)


@settings(deadline=None)
@given(TOTALS, st.floats(-0.9, 1.9), st.floats(-0.9, 1.9))
def test_the_more_is_doubted_the_less_is_won(totals: list[float], one: float, other: float) -> None:
    low, high = sorted([one, other])
    assert (betting.log_wealth(units(*totals), high) <= betting.log_wealth(units(*totals), low) + 1e-9).all()


def test_the_limits_invert_the_test_and_close_in_on_the_mean() -> None:
    shown = noisy(0.1, 20_000, seed=1)
    lower, upper = betting.lower_limit(shown, 0.05), betting.upper_limit(shown, 0.05)
    assert lower < 0.1 < upper
    assert upper - lower < 0.15
    threshold = math.log(1 / 0.05)
    assert betting.log_wealth(shown, lower).max() >= threshold
    assert betting.log_wealth(shown, lower + 1e-4).max() < threshold
    assert betting.log_wealth(shown.mirrored(), -upper).max() >= threshold


def test_the_running_limits_only_ever_tighten() -> None:
    shown = noisy(0.1, 3_000)
    limits = [betting.lower_limit(units(*shown.total[:n], low=-4.0, high=4.0), 0.05) for n in range(100, 3_001, 100)]
    assert limits == sorted(limits)


def test_each_side_bets_against_its_own_bound() -> None:
    shown = units(1.0, -0.5, 0.25, low=-1.0, high=5.0)
    turned = units(-1.0, 0.5, -0.25, low=-5.0, high=1.0)
    assert betting.log_wealth(shown.mirrored(), 0.0).tolist() == betting.log_wealth(turned, 0.0).tolist()


def test_a_larger_bound_above_costs_the_proof_of_a_gain_nothing() -> None:
    shown = noisy(0.1, 500)
    wide = Units(total=shown.total, size=shown.size, low=shown.low, high=shown.high * 1e6)
    assert betting.log_wealth(wide, 0.0).tolist() == betting.log_wealth(shown, 0.0).tolist()


def test_a_unit_of_many_decisions_is_a_mean_per_decision() -> None:
    """Every decision gains exactly 0.5: whatever the sizes of the units, the limits hold 0.5 and exclude 0."""
    size = np.tile([1.0, 2.0, 3.0, 4.0], 100)
    shown = Units(total=0.5 * size, size=size, low=np.full(400, -1.0), high=np.full(400, 1.0), max_size=4)
    assert 0.4 < betting.lower_limit(shown, 0.05) < 0.5 < betting.upper_limit(shown, 0.05) < 0.6


def test_the_projection_is_about_right() -> None:
    shown = noisy(0.1, 60_000)
    crossed = betting.first_crossing(betting.log_wealth(shown, 0.0), 1e-6)
    assert crossed is not None
    half = units(*shown.total[: crossed // 2], low=-4.0, high=4.0)
    more = betting.n_units_to_come(half, 0.0, 1e-6)
    assert more is not None
    assert 0.25 < more / (crossed - crossed // 2) < 4.0
    assert betting.n_units_to_come(noisy(-0.2, 2_000), 0.0, 0.05) is None
    assert betting.n_units_to_come(units(), 0.0, 0.05) is None


def test_without_units_nothing_is_known() -> None:
    assert betting.lower_limit(units(), 0.05) == -math.inf
    assert betting.upper_limit(units(), 0.05) == math.inf
    assert betting.e_value(betting.log_wealth(units(), 0.0)) == 1.0


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=9))
def test_arms_that_keep_their_share_leave_the_expected_ratio_wealth_at_one(shares: list[float]) -> None:
    share = np.array(shares)
    expected = 0.0
    for path in np.ndindex(*([2] * len(shares))):
        arm = np.array(path, dtype=bool)
        probability = np.where(arm, share, 1 - share).prod()
        expected += probability * math.exp(betting.sample_ratio_log_wealth(arm, share)[-1])
    assert expected == pytest.approx(1.0, abs=1e-9)


def test_a_lost_tenth_of_an_arm_is_found() -> None:
    rng = np.random.default_rng(3)
    arm = rng.uniform(size=40_000) < 0.5
    kept = ~(arm & (rng.uniform(size=40_000) < 0.1))
    share = np.full(40_000, 0.5)
    assert betting.first_crossing(betting.sample_ratio_log_wealth(arm, share), 0.001) is None
    assert betting.first_crossing(betting.sample_ratio_log_wealth(arm[kept], share[kept]), 0.001) is not None


def test_what_voids_the_guarantee_is_refused_with_its_value() -> None:
    one = np.ones(1)
    for message, columns in {
        "unit 0 shows 3": {"total": 3 * one},
        "unit 0 shows -2": {"total": -2 * one},
        "total must be finite, got nan": {"total": np.nan * one},
        "sizes must lie in .1, 1., got 2": {"size": 2 * one},
        "low must have shape": {"low": np.ones(2)},
    }.items():
        with pytest.raises(ValueError, match=message):
            Units(**{"total": one, "size": one, "low": -one, "high": 2 * one} | columns)
    with pytest.raises(ValueError, match="above every lower bound"):
        betting.log_wealth(units(0.0), -1.0)
