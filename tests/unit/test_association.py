"""One column against a label: held against pairs counted one by one, and against columns whose worth is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.vector import CategoryColumn
from models import association
from models.association import Label

N = 4_000
RNG = np.random.default_rng(0)
SUCCESS = (RNG.uniform(size=N) < 0.3).astype(np.float64)
LATENCY = RNG.lognormal(size=N)


def success(values: np.ndarray = SUCCESS) -> Label:
    return Label(name="success", values=values, binary=True)


def latency(values: np.ndarray = LATENCY) -> Label:
    return Label(name="latency_ms", values=values, binary=False)


def halves(n: int = N) -> np.ndarray:
    return association.split_clusters(np.arange(n), np.random.default_rng(1))


@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=2, max_size=40))
def test_the_auc_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    told, positive = np.array([r[0] for r in rows], np.float64), np.array([r[1] for r in rows])
    if positive.all() or not positive.any():
        return
    pairs = [(a > b) + 0.5 * (a == b) for a in told[positive] for b in told[~positive]]
    expected = float(np.mean(pairs))
    assert association._auc(told, positive) == pytest.approx(max(expected, 1 - expected))


def test_a_copy_tells_all_whichever_way_round_and_however_it_is_coded() -> None:
    noise = RNG.uniform(0, 0.4, N)
    assert association.number_strength(SUCCESS + noise, success(), halves()) == 1.0
    assert association.number_strength(-SUCCESS - noise, success(), halves()) == 1.0
    coded = np.where(SUCCESS > 0, 5.0, RNG.choice([1.0, 9.0], N))  # in no order, neither up nor down
    assert association.number_strength(coded, success(), halves()) == 1.0
    assert association.number_strength(np.log(LATENCY), latency(), halves()) == pytest.approx(1.0)


def test_a_column_that_only_marks_the_extremes_of_a_latency_tells_it() -> None:
    slow = np.where(RNG.uniform(size=N) < 0.1, 60_000.0, RNG.uniform(90, 110, N))
    assert association.number_strength((slow > 1_000).astype(np.float64), latency(slow), halves()) > 0.99


def test_a_copy_that_is_there_for_some_rows_tells_all_that_it_says() -> None:
    partly = np.where(RNG.uniform(size=N) < 0.3, SUCCESS, np.nan)
    assert association.number_strength(partly, success(), halves()) == 1.0


def test_a_category_with_a_value_per_row_tells_nothing() -> None:
    each = CategoryColumn(np.arange(N), tuple(map(str, range(N))))
    assert association.category_strength(each, success(), halves()) is None
    few_rows_each = CategoryColumn(np.arange(N) // 3, tuple(map(str, range(N // 3 + 1))))
    assert association.category_strength(few_rows_each, success(), halves()) == pytest.approx(0.5, abs=0.05)


def test_a_value_that_only_names_a_shared_fate_tells_nothing() -> None:
    flight = np.repeat(np.arange(N // 20), 20)
    fate = (RNG.uniform(size=N // 20) < 0.3).astype(np.float64)[flight]
    column = CategoryColumn(flight, tuple(map(str, range(N // 20))))
    split = association.split_clusters(flight, np.random.default_rng(0))
    assert association.category_strength(column, success(fate), halves()) == 1.0  # the trap
    assert association.category_strength(column, success(fate), split) is None


def test_noise_tells_nothing_and_too_few_rows_say_nothing() -> None:
    noise = RNG.normal(size=N)
    strength = association.number_strength(noise, success(), halves())
    assert strength is not None
    assert strength < 0.55
    rare = np.zeros(N)
    rare[:20] = 1.0
    assert association.number_strength(rare, success(rare), halves()) is None
    assert association.number_strength(noise, latency(np.ones(N)), halves()) is None


def test_missing_tells_as_much_as_it_follows_the_label() -> None:
    assert association.missing_strength(SUCCESS > 0, success()) == 1.0
    assert association.missing_strength(np.zeros(N, np.bool_), success()) is None
