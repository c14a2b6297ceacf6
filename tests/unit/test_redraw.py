"""Keys on a climbing ladder: every counted unit has a probability of its own, known before it began."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from validation.redraw import redraw


def test_a_key_of_one_rung_counts_as_it_was_drawn() -> None:
    drawn = redraw(np.array([7, 3, 7]), np.array([0.25, 0.25, 0.25]), np.array([True, False, True]))
    assert drawn.counts.all()
    assert drawn.share.tolist() == [0.25] * 3
    assert drawn.unit[0] == drawn.unit[2] != drawn.unit[1]


def test_a_key_in_the_champion_s_arm_is_drawn_again_among_those_that_are_left() -> None:
    drawn = redraw(np.zeros(2, np.int64), np.array([0.2, 0.6]), np.array([False, True]))
    assert drawn.counts.tolist() == [True, True]
    np.testing.assert_allclose(drawn.share, [0.2, 0.5])  # (.6 - .2) / (1 - .2)
    assert drawn.unit[0] != drawn.unit[1]


def test_a_key_in_the_challenger_s_arm_tells_nothing_on_a_higher_rung() -> None:
    drawn = redraw(np.zeros(3, np.int64), np.array([0.2, 0.6, 0.8]), np.array([True, True, True]))
    assert drawn.counts.tolist() == [True, False, False]


def test_a_shim_that_lags_behind_tells_nothing() -> None:
    drawn = redraw(np.zeros(3, np.int64), np.array([0.2, 0.6, 0.2]), np.array([False, False, False]))
    assert drawn.counts.tolist() == [True, True, True]  # the lower rung had begun before: its unit goes on
    late = redraw(np.zeros(2, np.int64), np.array([0.6, 0.2]), np.array([False, False]))
    assert late.counts.tolist() == [True, False]


@settings(max_examples=8)
@given(st.lists(st.floats(0.01, 0.99), min_size=1, max_size=4, unique=True), st.integers(0, 2**32 - 1))
def test_what_counts_has_the_probability_that_it_says(shares: list[float], seed: int) -> None:
    """Arms follow one uniform draw a key; over many keys the arms of counted units occur as often as their shares say."""
    ladder, n_keys = np.sort(shares), 1_000
    draw = np.random.default_rng(seed).uniform(size=n_keys)
    unit = np.tile(np.arange(n_keys), len(ladder))
    share = np.repeat(ladder, n_keys)
    arm = draw[unit] < share
    drawn = redraw(unit, share, arm)
    assert ((drawn.share > 0.0) & (drawn.share < 1.0)).all()
    surprise = (arm - drawn.share)[drawn.counts]
    error = np.sqrt((drawn.share * (1 - drawn.share))[drawn.counts].sum())
    assert abs(surprise.sum()) < 5.0 * max(error, 1.0)


def test_equal_policies_are_rarely_promoted_on_a_ladder_of_sticky_keys() -> None:
    """100 canaries of 60 keys over three rungs: without the second draw a key would carry two shares at once."""
    rng, ladder, per_rung = np.random.default_rng(4), np.array([0.05, 0.25, 0.5]), 5
    sums = []
    for _ in range(100):
        draw, effect = rng.uniform(size=60), rng.normal(0.0, 0.3, 60)
        unit = np.tile(np.repeat(np.arange(60), per_rung), 3)
        share = np.repeat(ladder, 60 * per_rung)
        arm = draw[unit] < share
        drawn = redraw(unit, share, arm)
        weight = np.where(arm, 1.0 / drawn.share, -1.0 / (1.0 - drawn.share))
        sums.append(float((weight * effect[unit])[drawn.counts].mean()))
    assert abs(np.mean(sums)) < 4.0 * np.std(sums) / np.sqrt(len(sums))
