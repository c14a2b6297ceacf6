"""Budgets: against a linear program, on unseen events, paced, and refused by name."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog

from models import budget
from models.budget import BudgetError, Limit, Prices
from models.policy import UnusableValuesError

Floats = NDArray[np.float64]
USD = np.array([[[15.0, 5.0, 10.0, 0.0]]])


def events(n: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    return np.clip(rng.beta(6, 3, (n, 1)) + rng.normal(0, 0.15, (n, 4)) + np.array([0.05, 0.0, 0.1, -0.1]), 0, 1)


def best_value(values: Floats, use: Floats, limits: list[float]) -> float:
    """Return the mean value of the optimum over all randomised policies, by linear programming."""
    n, k = values.shape
    rows = np.broadcast_to(use, (len(limits), n, k)).reshape(len(limits), n * k) / n
    one = np.kron(np.eye(n), np.ones((1, k)))
    found = linprog(-values.ravel() / n, A_ub=rows, b_ub=limits, A_eq=one, b_eq=np.ones(n), bounds=(0, 1))
    assert found.success
    return float(-found.fun)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), limit=st.floats(0.2, 9.0), decimals=st.integers(1, 6))
def test_one_budget_is_met_exactly_and_as_well_as_a_linear_program_does(seed: int, limit: float, decimals: int) -> None:
    values = events(40, seed).round(decimals)  # one decimal: many ties, which only a draw can split
    prices = budget.fit(values, USD, [Limit(resource="usd", per_event=limit)])
    chosen = prices.distribution(values, USD)
    assert chosen.sum(axis=1) == pytest.approx(1.0)
    spent = float(budget.mean_use(chosen, USD)[0])
    assert spent <= limit * (1 + 1e-5)
    if prices.prices[0]:
        assert spent == pytest.approx(limit, rel=1e-5)
    assert (chosen * values).sum(axis=1).mean() == pytest.approx(best_value(values, USD, [limit]), abs=3e-4)


@pytest.mark.parametrize("seed", range(5))
def test_a_budget_and_a_share_hold_together(seed: int) -> None:
    values = events(60, seed)
    use = np.concatenate([USD, np.array([[[0.0, 0.0, 1.0, 0.0]]])])
    limits = [Limit(resource="usd", per_event=3.0), Limit(resource="share of c", per_event=0.1)]
    chosen = budget.fit(values, use, limits).distribution(values, use)
    assert (budget.mean_use(chosen, use) <= np.array([3.0, 0.1]) * (1 + 1e-5)).all()
    assert (chosen * values).sum(axis=1).mean() == pytest.approx(best_value(values, use, [3.0, 0.1]), abs=1e-3)


def test_a_budget_fitted_on_some_events_holds_on_others_within_two_per_cent() -> None:
    learned, unseen = events(40_000, 1), events(40_000, 2)
    prices = budget.fit(learned, USD, [Limit(resource="usd", per_event=3.0)])
    assert budget.mean_use(prices.distribution(unseen, USD), USD)[0] == pytest.approx(3.0, rel=0.02)


def test_a_budget_that_is_no_constraint_costs_nothing() -> None:
    prices = budget.fit(events(50, 0), USD, [Limit(resource="usd", per_event=20.0)])
    assert prices.prices[0] == 0.0


def test_a_limit_of_zero_leaves_the_free_candidate() -> None:
    values = events(50, 0)
    chosen = budget.fit(values, USD, [Limit(resource="usd", per_event=0.0)]).distribution(values, USD)
    assert chosen[:, 3] == pytest.approx(1.0)


def test_candidates_that_are_not_eligible_are_never_drawn() -> None:
    values = events(50, 0)
    values[:, 1] = -np.inf
    chosen = budget.fit(values, USD, [Limit(resource="usd", per_event=2.0)]).distribution(values, USD)
    assert (chosen[:, 1] == 0.0).all()


def test_pacing_holds_a_budget_when_the_events_have_changed() -> None:
    limit = 3.0
    prices = budget.fit(events(5_000, 1), USD, [Limit(resource="usd", per_event=limit)])
    changed = events(5_000, 2)
    changed[:, 3] -= 0.05
    adrift = budget.mean_use(prices.distribution(changed, USD), USD)[0]
    debt = np.zeros(1)
    for block in np.array_split(changed, 500):
        used = budget.mean_use(prices.paced(debt, 100.0).distribution(block, USD), USD)
        debt = debt + len(block) * (used - limit)
    assert adrift > 1.05 * limit
    assert limit + debt[0] / len(changed) == pytest.approx(limit, rel=0.02)


def test_budgets_that_cannot_be_met_are_refused_by_name() -> None:
    values = events(20, 0)
    paid_only = USD[..., :3]
    with pytest.raises(BudgetError, match=r"usd: at most 3.0 per event cannot be met, the least is 5"):
        budget.fit(values[:, :3], paid_only, [Limit(resource="usd", per_event=3.0)])
    opposed = np.array([[[0.0, 1.0]], [[1.0, 0.0]]])
    with pytest.raises(BudgetError, match=r"share of (a|b): "):
        budget.fit(
            values[:, :2],
            opposed,
            [Limit(resource="share of b", per_event=0.3), Limit(resource="share of a", per_event=0.3)],
        )
    with pytest.raises(BudgetError, match="usd: a limit is finite and not negative, got -1"):
        Limit(resource="usd", per_event=-1.0)
    with pytest.raises(BudgetError, match="use of usd must be finite"):
        budget.fit(values, USD * np.nan, [Limit(resource="usd", per_event=3.0)])
    with pytest.raises(BudgetError, match="2 limits need as many resources, got 1"):
        budget.fit(values, USD, [Limit(resource=name, per_event=3.0) for name in ("usd", "joule")])


def test_values_that_say_nothing_are_refused() -> None:
    prices = Prices(limits=(Limit(resource="usd", per_event=1.0),), prices=np.ones(1), temperature=0.1)
    for values in (np.array([[np.nan, 0.0, 0.0, 0.0]]), np.full((1, 4), -np.inf)):
        with pytest.raises(UnusableValuesError):
            prices.distribution(values, USD)
    with pytest.raises(BudgetError, match="horizon_events must be positive, got 0"):
        prices.paced(np.zeros(1), 0)
