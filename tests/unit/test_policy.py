"""The policy: distributions that are distributions, draws that realise them, a log form that agrees with the single one."""

import itertools
from collections.abc import Callable
from fractions import Fraction

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.choices import Exploration
from models import policy
from models.policy import NothingEligibleError, PolicyError, UnusableValuesError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

VALUE = st.floats(-3.0, 3.0) | st.sampled_from([0.0, 1.0])  # the latter makes ties common
CANDIDATES = st.lists(st.tuples(VALUE, st.booleans()), min_size=1, max_size=12).filter(
    lambda rows: any(kept for _, kept in rows)
)
EXPLORATION = st.builds(
    Exploration,
    kind=st.sampled_from(["none", "epsilon", "squarecb"]),
    epsilon=st.floats(0.0, 1.0),
    gamma=st.floats(0.01, 1e4),
)
BOUNDED = st.builds(
    Exploration,
    kind=st.sampled_from(["epsilon", "squarecb"]),
    epsilon=st.floats(0.0, 1.0),
    gamma=st.floats(0.01, 1e4),
    budget=st.none() | st.sampled_from([0.0, 1e-6]) | st.floats(0.0, 1.0),
    min_propensity=st.sampled_from([0.0, 0.001, 0.08]),
)


def arrays(rows: list[tuple[float, bool]]) -> tuple[Floats, Mask]:
    return np.array([value for value, _ in rows]), np.array([kept for _, kept in rows])


def explore(values: Floats, eligible: Mask, exploration: Exploration, value_range: float) -> Floats:
    return np.array(policy.explore(values.tolist(), eligible.tolist(), exploration, value_range))


def greedy(values: Floats, eligible: Mask) -> Floats:
    return np.array(policy.greedy(values.tolist(), eligible.tolist()))


def oracle(rows: list[tuple[float, bool]], exploration: Exploration, value_range: float) -> list[Fraction]:
    """Compute the distribution in exact arithmetic, candidate by candidate, from the published formulas."""
    kept = [index for index, (_, eligible) in enumerate(rows) if eligible]
    best = max(kept, key=lambda index: (rows[index][0], -index))
    exact = [Fraction(0)] * len(rows)
    if exploration.kind == "squarecb":
        for index in kept:
            gap = (Fraction(rows[best][0]) - Fraction(rows[index][0])) / Fraction(value_range)
            exact[index] = 1 / (len(kept) + Fraction(exploration.gamma) * gap)
        exact[best] = Fraction(0)
    exact[best] = 1 - sum(exact, Fraction(0))
    epsilon = Fraction(0) if exploration.kind == "none" else Fraction(exploration.epsilon)
    return [(1 - epsilon) * share + (epsilon / len(kept) if index in kept else 0) for index, share in enumerate(exact)]


@settings(deadline=None)
@given(CANDIDATES, EXPLORATION, st.floats(0.1, 100.0))
def test_every_distribution_equals_the_exact_oracle(
    rows: list[tuple[float, bool]], exploration: Exploration, value_range: float
) -> None:
    values, eligible = arrays(rows)
    distribution = explore(values, eligible, exploration, value_range)
    assert distribution == pytest.approx([float(share) for share in oracle(rows, exploration, value_range)], abs=1e-12)


@settings(deadline=None)
@given(CANDIDATES, EXPLORATION)
def test_a_distribution_sums_to_one_keeps_its_floor_and_leaves_the_ineligible_alone(
    rows: list[tuple[float, bool]], exploration: Exploration
) -> None:
    values, eligible = arrays(rows)
    distribution = explore(values, eligible, exploration, 1.0)
    assert abs(distribution.sum() - 1.0) <= 1e-12
    assert (distribution[~eligible] == 0.0).all()
    lowest = 0.0 if exploration.kind == "none" else exploration.epsilon / eligible.sum()
    assert (distribution[eligible] >= lowest - 1e-15).all()


@settings(deadline=None)
@given(st.lists(st.lists(VALUE, min_size=1, max_size=20), max_size=8), EXPLORATION, st.floats(0.1, 10.0))
def test_the_log_form_agrees_with_the_single_form(
    decisions: list[list[float]], exploration: Exploration, value_range: float
) -> None:
    offsets = np.cumsum([0] + [len(values) for values in decisions]).astype(np.int64)
    flat = np.array([value for values in decisions for value in values], dtype=np.float64)
    together = policy.explore_log(flat, offsets, exploration, value_range)
    for start, end in itertools.pairwise(offsets.tolist()):
        alone = explore(flat[start:end], np.ones(end - start, bool), exploration, value_range)
        if exploration.kind == "squarecb":  # numpy adds a slice in another order than an array
            assert together[start:end] == pytest.approx(alone, abs=1e-14)
        else:
            assert together[start:end].tolist() == alone.tolist()


@settings(deadline=None, max_examples=60)
@given(CANDIDATES, BOUNDED)
def test_exploring_costs_at_most_its_budget_and_keeps_the_least_propensity_or_does_not_explore(
    rows: list[tuple[float, bool]], exploration: Exploration
) -> None:
    values, eligible = arrays(rows)
    found = explore(values, eligible, exploration, 1.0)
    best = greedy(values, eligible)
    unbounded = msgspec.structs.replace(exploration, budget=None, min_propensity=0.0)
    exploring = explore(values, eligible, unbounded, 1.0)
    allowance, least = exploration.allowance(1.0), exploration.min_propensity
    assert abs(found.sum() - 1.0) <= 1e-12
    assert (found[~eligible] == 0.0).all()
    loss = float(((best - found) * np.where(eligible, values, 0.0)).sum())
    if allowance is not None:
        assert loss <= allowance + 1e-12
    if (found == best).all():
        floor_loss = least * float((values[best.argmax()] - values[eligible]).sum())
        dear = allowance is not None and (allowance == 0.0 or floor_loss > allowance)
        assert dear or exploring == pytest.approx(best, abs=1e-9) or eligible.sum() == 1
        return
    assert (found[eligible] >= least - 1e-15).all()
    if allowance is not None and loss < allowance - 1e-9:  # what is affordable is not held back
        kept = 1.0 - eligible.sum() * least
        assert found == pytest.approx(kept * exploring + least * eligible, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.lists(VALUE, min_size=1, max_size=9), max_size=8), BOUNDED, st.floats(0.1, 10.0))
def test_the_log_form_of_a_bounded_spread_agrees_bit_for_bit(
    decisions: list[list[float]], exploration: Exploration, value_range: float
) -> None:
    offsets = np.cumsum([0] + [len(values) for values in decisions]).astype(np.int64)
    flat = np.array([value for values in decisions for value in values], dtype=np.float64)
    together = policy.explore_log(flat, offsets, exploration, value_range)
    for start, end in itertools.pairwise(offsets.tolist()):
        alone = explore(flat[start:end], np.ones(end - start, bool), exploration, value_range)
        if exploration.is_bounded:
            assert together[start:end].tolist() == alone.tolist()
        else:
            assert together[start:end] == pytest.approx(alone, abs=1e-14)


def test_the_budget_mixes_the_spread_with_the_greedy_choice_by_the_largest_weight() -> None:
    values, everyone = np.array([1.0, 0.0]), np.ones(2, bool)
    exploration = Exploration(epsilon=0.4, budget=0.05)  # the whole spread would cost .2: a quarter of it is affordable
    assert explore(values, everyone, exploration, 1.0) == pytest.approx([0.95, 0.05])
    in_shares = Exploration(epsilon=0.4, budget_share=0.025)
    assert explore(values, everyone, in_shares, 2.0) == pytest.approx([0.95, 0.05])


def test_a_floor_that_the_budget_does_not_pay_for_is_not_explored_at_all() -> None:
    everyone = np.ones(2, bool)
    exploration = Exploration(epsilon=0.4, budget=0.05, min_propensity=0.1)
    assert explore(np.array([1.0, 0.0]), everyone, exploration, 1.0).tolist() == [1.0, 0.0]
    assert explore(np.array([1.0, 0.5]), everyone, exploration, 1.0) == pytest.approx([0.9, 0.1])
    with np.errstate(all="raise"):  # what is left of the budget is below 0, and the whole spread costs nothing
        dear = Exploration(epsilon=0.0, budget=0.05, min_propensity=0.1)
        assert explore(np.array([1.0, 0.0]), everyone, dear, 1.0).tolist() == [1.0, 0.0]
    near = explore(np.array([1.0, 0.9]), everyone, exploration, 1.0)
    assert near == pytest.approx([1 - 0.8 * 0.2 - 0.1, 0.8 * 0.2 + 0.1])
    with pytest.raises(PolicyError, match=r"min_propensity 0\.6 cannot be kept by 2 candidates"):
        explore(np.zeros(2), everyone, Exploration(min_propensity=0.6), 1.0)


def test_a_budget_of_nothing_is_greedy_and_sure() -> None:
    for kind in ("epsilon", "squarecb"):
        exploration = Exploration(kind=kind, budget=0.0)  # type: ignore[arg-type]
        assert explore(np.array([0.5, 0.5]), np.ones(2, bool), exploration, 1.0).tolist() == [1.0, 0.0]


def test_squarecb_leaves_the_rest_to_the_priced_choice_and_agrees_with_itself_where_that_is_sure() -> None:
    values, offsets, best = np.array([0.2, 1.0, 0.9]), np.array([0, 3]), np.array([0.0, 1.0, 0.0])
    assert policy.squarecb_log(values, offsets, 10.0, 1.0, best) == pytest.approx(
        policy.squarecb_log(values, offsets, 10.0, 1.0), abs=1e-15
    )
    tied = np.array([0.0, 0.5, 0.5])
    drawn = policy.squarecb_log(np.array([0.2, 1.0, 1.0]), offsets, 10.0, 1.0, tied)
    assert drawn[1] == drawn[2]
    assert drawn.sum() == pytest.approx(1.0)


@settings(deadline=None)
@given(CANDIDATES, EXPLORATION, st.floats(0.0, 1.0, exclude_max=True))
def test_a_draw_falls_on_the_candidate_whose_interval_holds_it(
    rows: list[tuple[float, bool]], exploration: Exploration, u: float
) -> None:
    distribution = explore(*arrays(rows), exploration, 1.0)
    chosen = policy.choose(distribution.tolist(), u)
    assert distribution[chosen] > 0.0
    assert distribution[:chosen].sum() <= u + 1e-12
    assert u <= distribution[: chosen + 1].sum() + 1e-12


def test_draws_realise_the_propensities_they_are_logged_with() -> None:
    distribution = [0.0, 0.125, 0.5, 0.0, 0.375, 0.0]
    grid = (np.arange(8_000) + 0.5) / 8_000
    drawn = np.bincount([policy.choose(distribution, u) for u in grid], minlength=6)
    assert (drawn / 8_000).tolist() == distribution


def test_the_last_draw_never_falls_on_a_candidate_of_probability_zero() -> None:
    short = [0.1] * 10 + [0.0]  # ten tenths sum to 0.9999999999999999
    assert sum(short) < 1.0
    assert policy.choose(short, np.nextafter(1.0, 0.0)) == 9
    assert policy.choose([0.0, 1.0], 0.0) == 1


def test_ties_go_to_the_first_eligible_candidate() -> None:
    values, eligible = np.array([2.0, 2.0, 2.0]), np.array([False, True, True])
    assert greedy(values, eligible).tolist() == [0.0, 1.0, 0.0]
    assert policy.greedy_log(values, np.array([0, 1, 3])).tolist() == [1.0, 1.0, 0.0]


def test_squarecb_gives_equal_values_equal_chances_and_large_gamma_is_greedy() -> None:
    everyone = [True] * 4
    assert policy.squarecb([0.0] * 4, everyone, 10.0, 1.0) == (0.25,) * 4
    keen = policy.squarecb([0.0, 1.0, 0.5, 0.2], everyone, 1e12, 1.0)
    assert keen == pytest.approx([0.0, 1.0, 0.0, 0.0], abs=1e-9)


def test_the_static_order_takes_its_first_eligible_and_then_the_order_of_the_candidates() -> None:
    assert policy.static([2, 0], [True, True, True]) == (0.0, 0.0, 1.0)
    assert policy.static([2, 0], [True, True, False]) == (1.0, 0.0, 0.0)
    assert policy.static([2], [False, True, False]) == (0.0, 1.0, 0.0)


def test_a_mixture_weighs_each_policy_by_its_share() -> None:
    mixed = policy.mixture([(1.0, 0.0), (0.25, 0.75)], [0.9, 0.1])
    assert mixed == pytest.approx([0.925, 0.075], abs=1e-15)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused_by_type_unless_it_is_not_eligible(broken: float) -> None:
    values = np.array([1.0, broken])
    with pytest.raises(UnusableValuesError, match="must be finite"):
        greedy(values, np.array([True, True]))
    with pytest.raises(UnusableValuesError, match="must be finite"):
        policy.greedy_log(values, np.array([0, 2]))
    assert greedy(values, np.array([True, False])).tolist() == [1.0, 0.0]


def test_an_empty_eligible_set_is_refused_by_type() -> None:
    nobody = [False, False]
    attempts: tuple[Callable[[], object], ...] = (
        lambda: policy.greedy([0.0, 0.0], nobody),
        lambda: policy.static([0], nobody),
        lambda: policy.floor([0.0, 0.0], nobody, 0.1),
        lambda: policy.greedy_log(np.zeros(2), np.array([0, 0, 2])),
    )
    for attempt in attempts:
        with pytest.raises(NothingEligibleError):
            attempt()


def test_impossible_shares_draws_and_distributions_are_refused_with_their_value() -> None:
    fair = (0.5, 0.5)
    attempts: dict[str, Callable[[], object]] = {
        "got 1.0": lambda: policy.choose(fair, 1.0),
        "got nan": lambda: policy.choose(fair, float("nan")),
        "sums to 1": lambda: policy.choose((0.5, 0.4), 0.1),
        "nonnegative": lambda: policy.choose((1.5, -0.5), 0.1),
        "shares must sum to 1": lambda: policy.mixture([fair, fair], [0.5, 0.6]),
        "share must lie": lambda: policy.mixture([fair, fair], [1.5, -0.5]),
        "epsilon must lie": lambda: policy.epsilon_floor((0.0, 0.0), (True, True), 1.1),
        "gamma=0": lambda: policy.squarecb((0.0, 0.0), (True, True), 0, 1.0),
        "value_range=0": lambda: policy.squarecb_log(np.zeros(2), np.array([0, 2]), 1.0, 0),
    }
    for message, attempt in attempts.items():
        with pytest.raises(PolicyError, match=message):
            attempt()
