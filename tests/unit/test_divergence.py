"""PSI and Jensen-Shannon distance: by hand, by their properties, and what chance alone gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.vector import CategoryColumn
from models import divergence
from models.divergence import Binned

SHARES = st.lists(st.integers(1, 1_000), min_size=4, max_size=4).map(lambda c: np.array(c, np.float64) / sum(c))
N_RUNS = 200


def test_both_are_what_they_are_by_hand() -> None:
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    # (.25 - .5) ln(.25 / .5) + (.75 - .5) ln(.75 / .5) = .25 ln 2 + .25 ln 1.5
    assert divergence.psi(p, q) == pytest.approx(0.25 * np.log(2) + 0.25 * np.log(1.5))
    # H(.375, .625) - (1 + H(.25, .75)) / 2 = .954434 - (1 + .811278) / 2
    assert divergence.js_distance(p, q) == pytest.approx(np.sqrt(0.0487950), abs=1e-6)
    assert divergence.js_distance(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0


@given(SHARES, SHARES, st.permutations(range(4)))
def test_they_are_symmetric_bounded_zero_for_equals_and_blind_to_the_order_of_bins(
    p: np.ndarray, q: np.ndarray, order: list[int]
) -> None:
    for measure in (divergence.psi, divergence.js_distance):
        assert measure(p, p) == pytest.approx(0.0, abs=1e-7)
        assert measure(p, q) == pytest.approx(measure(q, p))
        assert measure(p[order], q[order]) == pytest.approx(measure(p, q))
        assert measure(p, q) >= 0.0
    assert divergence.js_distance(p, q) <= 1.0


def test_numbers_fall_into_the_references_quantiles_with_missing_and_what_lies_beyond_apart() -> None:
    reference = np.concatenate([np.arange(1_000.0), [np.nan] * 10])
    before, after, n_bins = divergence.bin_numbers(reference, np.array([0.0, 50.0, 999.0, 5_000.0, np.nan, -1.0]))
    counts = np.bincount(before, minlength=n_bins)
    assert n_bins == 11
    assert counts[:10].tolist() == pytest.approx([100] * 10, abs=1)
    assert counts[10] == 10
    assert after.tolist() == [0, 0, 9, 9, 10, 0]


def test_a_constant_that_moves_either_way_is_in_another_bin() -> None:
    before, after, _ = divergence.bin_numbers(np.zeros(50), np.array([-1.0, 0.0, 1.0]))
    assert len({before[0], after[0], after[2]}) == 3
    assert after[1] == before[0]


def test_categories_are_told_by_value_not_by_code_and_rare_and_new_ones_are_one() -> None:
    frequent = np.repeat(np.arange(20), 10)
    reference = CategoryColumn(np.concatenate([frequent, [20, -1]]), tuple(f"v{i}" for i in range(21)))
    before, after, n_bins = divergence.bin_categories(
        reference, CategoryColumn(np.array([0, 1, -1]), ("never seen", "v3"))
    )
    assert n_bins == 22
    assert after.tolist() == [before[200], before[30], before[201]]


def test_a_column_that_never_varies_has_not_moved() -> None:
    bins = divergence.bin_numbers(np.full(100, np.nan), np.full(50, np.nan))
    before, after, n_bins = divergence.drop_empty(*bins)
    p, q = (Binned.of(side, n_bins, np.arange(len(side))) for side in (before, after))
    assert divergence.psi(p.shares, q.shares) < divergence.critical_psi(p, q, 0.01, 50)


def simulate(seed: int, n_clusters: tuple[int, int], size: int, shared: float) -> tuple[Binned, Binned]:
    """Two samples of one world, in which rows of a cluster share a part of their value."""
    rng = np.random.default_rng(seed)
    clusters = [np.repeat(np.arange(n), size) for n in n_clusters]
    values = [
        np.sqrt(shared) * rng.normal(size=n)[c] + np.sqrt(1 - shared) * rng.normal(size=n * size)
        for n, c in zip(n_clusters, clusters, strict=True)
    ]
    before, after, n_bins = divergence.drop_empty(*divergence.bin_numbers(*values))
    return Binned.of(before, n_bins, clusters[0]), Binned.of(after, n_bins, clusters[1])


@pytest.mark.parametrize(
    ("n_clusters", "size", "shared"), [((1_000, 500), 1, 0.0), ((300, 100), 1, 0.0), ((200, 28), 50, 0.2)]
)
def test_chance_alone_exceeds_the_limit_no_oftener_than_it_may(
    n_clusters: tuple[int, int], size: int, shared: float
) -> None:
    alpha, rung, ratios = 0.05, 0, []
    for seed in range(N_RUNS):
        p, q = simulate(seed, n_clusters, size, shared)
        moved = divergence.psi(p.shares, q.shares)
        rung += moved > divergence.critical_psi(p, q, alpha, min(n_clusters))
        ratios.append(moved / divergence.expected_psi(p, q))
    assert rung <= 20  # of 200 at .05: more has a binomial probability of .001
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.15)


def test_rows_that_share_fate_would_ring_if_they_were_counted_as_independent() -> None:
    p, q = simulate(0, (200, 28), 50, 0.2)
    assert min(p.design_effect, q.design_effect) > 2.0
    assert simulate(0, (1_000, 500), 1, 0.0)[0].design_effect == 1.0
