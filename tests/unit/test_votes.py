"""Votes of leaves: counted as their formula says, alike in every leaf, in the units of what was learned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from models import votes

Floats = NDArray[np.float64]

SHAPE = (4, 3)  # destinations, leaves
SUMS = st_numpy.arrays(np.float64, SHAPE, elements=st.floats(-50.0, 50.0).map(lambda each: round(each, 3)))
WEIGHTS = st_numpy.arrays(np.float64, SHAPE, elements=st.sampled_from([0.0, 1.0, 2.0, 5.0]))


def naive(total: Floats, weight: Floats, tie: float) -> Floats:
    """Count pair by pair."""
    counted = np.zeros(total.shape)
    for leaf in range(total.shape[1]):
        there = [place for place in range(len(total)) if weight[place, leaf]]
        for one in there:
            for other in set(there) - {one}:
                gap = total[one, leaf] / weight[one, leaf] - total[other, leaf] / weight[other, leaf]
                counted[one, leaf] += gap / (abs(gap) + tie) / 2.0 / (len(total) - 1)
    return counted


def single(*leaves: list[float]) -> list[list[votes.LeafSums]]:
    """Return the sums of one tree, of whose ``leaves`` each holds one outcome of every destination."""
    return [[(np.array(of_one), np.ones(len(leaves)))] for of_one in zip(*leaves, strict=True)]


def means_of(sums: list[list[votes.LeafSums]]) -> list[list[Floats]]:
    return [[total / weight for total, weight in trees] for trees in sums]


@given(SUMS, WEIGHTS)
def test_a_vote_is_the_mean_over_all_pairs(total: Floats, weight: Floats) -> None:
    counted = votes.count(total, weight, 0.1)
    assert_allclose(counted, naive(total, weight, 0.1), atol=1e-12)
    assert_allclose(counted.sum(axis=0), 0.0, atol=1e-12)
    assert np.abs(counted).max() <= 0.5


def test_without_outcomes_in_a_leaf_a_destination_neither_votes_nor_is_voted_on() -> None:
    counted = votes.count(np.array([[1.0], [0.0], [9.0]]), np.array([[1.0], [1.0], [0.0]]), 1e-9)
    assert_allclose(counted[:, 0], [0.25, -0.25, 0.0], atol=1e-6)


def test_a_difference_of_a_tie_is_half_a_vote() -> None:
    counted = votes.count(np.array([[0.3], [0.1]]), np.ones((2, 1)), 0.2)
    assert_allclose(counted[:, 0], [0.25, -0.25])


def test_one_expensive_leaf_does_not_outweigh_two_cheap_ones() -> None:
    sums = single([1.0, 0.0], [1.0, 0.0], [-99.0, 0.0])
    means, cast = means_of(sums), votes.cast(sums, means_of(sums), 1e-6)
    assert means[0][0].mean() < means[1][0].mean()
    assert cast[0][0].mean() > cast[1][0].mean()


def test_votes_keep_the_level_of_a_leaf_and_the_units_of_the_outcomes() -> None:
    sums = single([1.0, 0.0, 4.0], [0.2, 0.9, 0.1], [3.0, 3.0, 3.0])
    cast = np.array(votes.cast(sums, means_of(sums), 0.1))[:, 0]
    assert_allclose(cast.mean(axis=0), np.array(means_of(sums))[:, 0].mean(axis=0))
    tenfold = [[(10.0 * total, weight) for total, weight in trees] for trees in sums]
    assert_allclose(np.array(votes.cast(tenfold, means_of(tenfold), 1.0))[:, 0], 10.0 * cast)


def test_where_all_leaves_differ_alike_votes_are_the_means() -> None:
    sums = single([2.0, 1.0], [4.0, 5.0])
    assert_allclose(votes.cast(sums, means_of(sums), 0.3), means_of(sums))


@pytest.mark.parametrize("tie", [0.0, 0.1])
def test_where_nobody_differs_a_vote_says_the_mean(tie: float) -> None:
    sums = single([0.5, 0.5], [0.1, 0.1])
    assert_allclose(votes.cast(sums, means_of(sums), tie), means_of(sums))
