"""Draws are hashes: the same for ever, even over [0, 1), and apart for keys that differ in any part."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from features.randomness import uniform

KEYS = st.lists(st.text(st.characters(exclude_categories=()), max_size=5), max_size=4)  # lone surrogates too


def test_a_draw_never_changes() -> None:
    """Golden: another value would deal the arms of every running canary anew."""
    assert uniform("arm", "digest", "orders", "shop/1") == 0.4395324966680091
    assert uniform() == 0.8931675160897388


@settings(deadline=None)
@given(KEYS)
def test_draws_lie_in_the_half_open_unit_interval(key: list[str]) -> None:
    assert 0.0 <= uniform(*key) < 1.0


@settings(deadline=None)
@given(KEYS, KEYS)
def test_draws_agree_exactly_where_keys_do(left: list[str], right: list[str]) -> None:
    assert (uniform(*left) == uniform(*right)) == (left == right)


def test_how_a_key_is_cut_into_parts_matters() -> None:
    assert len({uniform("ab", "c"), uniform("a", "bc"), uniform("abc"), uniform("abc", "")}) == 4


def test_draws_are_even() -> None:
    """Chi-square over 20 cells: the 99.99 % quantile at 19 degrees of freedom is 50.8."""
    n_draws, n_cells = 20_000, 20
    counts, _ = np.histogram([uniform("even", str(number)) for number in range(n_draws)], n_cells, (0.0, 1.0))
    expected = n_draws / n_cells
    assert ((counts - expected) ** 2 / expected).sum() < 50.8


def test_draws_of_two_keys_do_not_move_together() -> None:
    numbers = range(20_000)
    arm = np.array([uniform("arm", "a", str(number)) for number in numbers])
    other = np.array([uniform("arm", "b", str(number)) for number in numbers])
    assert abs(np.corrcoef(arm, other)[0, 1]) < 0.03  # four standard errors
