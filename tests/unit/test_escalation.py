"""Escalation: against every policy of a small world, at the ends of prices, and never worse than never asking on."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import escalation
from models.budget import BudgetError
from models.escalation import Step
from models.policy import UnusableValuesError

Floats = NDArray[np.float64]

# A free model, a cheap destination whose answer is sure or not, and a dear one. All three kinds of event are equally likely.
USE = np.array([0.0, 1.0, 4.0])
SURE = np.array([0.9, 0.5, 0.2])  # of the cheap answer, by kind
SUCCESS = {  # of free, cheap, dear; by kind
    "before": np.array([[0.6, 0.86, 0.9], [0.3, 0.65, 0.9], [0.5, 0.5, 0.7]]),
    "sure": np.array([[0.62, 0.9, 0.9], [0.3, 0.95, 0.9], [0.5, 0.9, 0.8]]),
    "unsure": np.array([[0.42, 0.5, 0.9], [0.3, 0.35, 0.9], [0.5, 0.4, 0.675]]),
}
FREE, CHEAP, DEAR = range(3)


def second(answer: str, price: float) -> Step:
    return escalation.take(SUCCESS[answer], np.array([0.0, 0.0, 4.0]), price)


def optimum_by_hand(price: float) -> tuple[float, float]:
    """Return success and use of the best of all 3 * 9 policies of each kind."""
    found = []
    for kind in range(3):
        ways = [(SUCCESS["before"][kind, first], USE[first]) for first in (FREE, DEAR)]
        for ends in product(range(3), repeat=2):
            shares = (SURE[kind], 1 - SURE[kind])
            success = sum(
                share * SUCCESS[answer][kind, end]
                for share, answer, end in zip(shares, ("sure", "unsure"), ends, strict=True)
            )
            use = 1.0 + sum(share * 4.0 * (end == DEAR) for share, end in zip(shares, ends, strict=True))
            ways.append((success, use))
        found.append(max(ways, key=lambda way: way[0] - price * way[1]))
    success, use = np.mean(found, axis=0)
    return float(success), float(use)


def by_escalation(price: float) -> tuple[float, float]:
    steps = {answer: second(answer, price) for answer in ("sure", "unsure")}
    share = {"sure": SURE, "unsure": 1 - SURE}
    to_go = sum(share[answer] * step.value for answer, step in steps.items())
    first = escalation.take(
        np.column_stack([SUCCESS["before"][:, FREE], to_go, SUCCESS["before"][:, DEAR]]), USE, price
    )
    rows = np.arange(3)
    success, use = np.zeros(3), np.zeros(3)
    for answer, step in steps.items():
        ends = [Step(chosen=np.full(3, end), use=np.zeros(3), value=np.zeros(3)) for end in range(3)]
        ends[CHEAP] = step
        way = escalation.follow(first, ends)
        truth = np.where(first.chosen == CHEAP, SUCCESS[answer][rows, way.chosen], SUCCESS["before"][rows, way.chosen])
        success += share[answer] * truth
        use += share[answer] * way.use
    return float(success.mean()), float(use.mean())


@pytest.mark.parametrize("price", [0.0, 0.01, 0.03, 0.05, 0.08, 0.12, 0.2, 0.5, 10.0])
def test_fitted_backwards_it_is_the_best_of_all_policies(price: float) -> None:
    success, use = by_escalation(price)
    best_success, best_use = optimum_by_hand(price)
    assert success - price * use == pytest.approx(best_success - price * best_use)


def test_asking_on_pays_where_the_first_answer_is_unsure_and_one_call_cannot_know() -> None:
    price = 0.05
    one_call = escalation.take(SUCCESS["before"], USE, price).value.mean()
    success, use = by_escalation(price)
    assert success - price * use > one_call + 0.02


values = st.lists(
    st.lists(st.floats(0, 1, allow_nan=False).map(lambda number: round(number, 3)), min_size=4, max_size=4),
    min_size=1,
    max_size=8,
).map(np.array)


@given(values=values, price=st.floats(0, 5), keep=st.integers(0, 3))
def test_the_value_to_go_is_never_below_keeping_the_answer(values: Floats, price: float, keep: int) -> None:
    use = np.array([3.0, 1.0, 2.0, 0.5])
    use[keep] = 0.0
    step = escalation.take(values, use, price)
    assert (step.value >= values[:, keep]).all()
    assert step.value == pytest.approx(values[np.arange(len(values)), step.chosen] - price * step.use)


@given(values=values)
def test_a_price_of_nothing_takes_the_likeliest_and_an_endless_one_keeps(values: Floats) -> None:
    use = np.array([0.0, 1.0, 2.0, 3.0])
    assert (escalation.take(values, use, 0.0).value == values.max(axis=1)).all()
    kept = escalation.take(values, use, 1e9)
    assert (kept.chosen == 0).all()
    assert (kept.use == 0.0).all()


@given(values=values, low=st.floats(0, 2), more=st.floats(0, 2))
def test_a_higher_price_never_uses_more_and_the_value_to_go_is_convex(values: Floats, low: float, more: float) -> None:
    use, high = np.array([0.0, 1.0, 2.0, 3.0]), low + more
    ends = [escalation.take(values, use, price) for price in (low, high)]
    assert (ends[1].use <= ends[0].use + 1e-9).all() or np.isclose(low, high)
    middle = escalation.take(values, use, (low + high) / 2)
    if more > 1e-6:
        chord = escalation.interpolate((low + high) / 2, np.array([low, high]), np.stack([end.value for end in ends]))
        assert (middle.value <= chord + 1e-9).all()


def test_between_prices_values_lie_on_the_chord_and_beyond_them_at_the_end() -> None:
    prices, to_go = np.array([1.0, 2.0, 4.0]), np.array([[0.9, 0.8], [0.7, 0.6], [0.5, 0.2]])
    for price, expected in ((1.0, [0.9, 0.8]), (3.0, [0.6, 0.4]), (0.0, [0.9, 0.8]), (9.0, [0.5, 0.2])):
        assert escalation.interpolate(price, prices, to_go) == pytest.approx(expected)


def test_a_tie_goes_to_the_lesser_use() -> None:
    assert escalation.take(np.array([[0.5, 0.5]]), np.array([1.0, 0.0]), 0.0).chosen.tolist() == [1]


def test_what_is_short_of_a_success_is_the_cost_to_go() -> None:
    step = escalation.take(np.array([[0.25, 0.75]]), np.array([0.0, 1.0]), 0.1)
    assert escalation.cost_to_go(step) == pytest.approx([0.35])
    assert escalation.cost_to_go(step, highest=2.0) == pytest.approx([1.35])


def test_a_candidate_that_is_not_eligible_is_not_taken() -> None:
    assert escalation.take(np.array([[-np.inf, 0.1]]), np.zeros(2), 0.0).chosen.tolist() == [1]


@pytest.mark.parametrize("price", [-0.1, np.inf, np.nan])
def test_a_price_that_is_none_is_refused(price: float) -> None:
    with pytest.raises(BudgetError, match="a price is finite and not negative"):
        escalation.take(np.zeros((1, 2)), np.zeros(2), price)


def test_values_and_use_that_say_nothing_are_refused() -> None:
    for values in (np.array([[np.nan, 0.0]]), np.array([[np.inf, 0.0]]), np.full((1, 2), -np.inf)):
        with pytest.raises(UnusableValuesError):
            escalation.take(values, np.zeros(2), 0.1)
    for use in (np.array([-1.0, 0.0]), np.array([np.nan, 0.0])):
        with pytest.raises(BudgetError, match="use must be finite and not negative"):
            escalation.take(np.zeros((1, 2)), use, 0.1)
