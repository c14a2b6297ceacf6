"""Off-policy evaluation: estimates against exact sums, intervals against textbook ones, refusals where no claim can stand."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import evaluation, intervals, logged
from models.evaluation import Estimate, Limits, Refusal
from models.logged import LoggedDecisions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LENIENT = Limits(min_decisions=2, min_clusters=2, min_effective_size=1, overlap_tolerance=1e9)


def ragged(n: int, seed: int, n_values: int = 4) -> tuple[LoggedDecisions, Floats, Floats, Floats]:
    """Return a log of one to ``n_values`` candidates each, with a target, a baseline and a reward model."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(rng.integers(1, n_values + 1, n)))).astype(np.int64)
    logging = distributions(rng, offsets)
    chosen = np.array([rng.choice(np.arange(a, b), p=logging[a:b]) for a, b in itertools.pairwise(offsets)])
    log = LoggedDecisions(
        offsets=offsets,
        chosen=chosen,
        propensity=logging[chosen],
        reward=rng.normal(size=n),
        cluster=np.sort(rng.integers(0, max(2, n // 5), n)),
    )
    return log, distributions(rng, offsets), distributions(rng, offsets), rng.normal(size=offsets[-1])


def distributions(rng: np.random.Generator, offsets: Integers) -> Floats:
    raw = rng.uniform(0.2, 1.0, offsets[-1])
    shares: Floats = raw / np.repeat(np.add.reduceat(raw, offsets[:-1]), np.diff(offsets))
    return shares


def sure(judged: Estimate | Refusal) -> Estimate:
    assert isinstance(judged, Estimate), judged
    return judged


def plain_dr(log: LoggedDecisions, policy: Floats, q: Floats) -> Floats:
    """Compute DR decision by decision, as published."""
    values = []
    for i, chosen in enumerate(log.chosen):
        rows = range(log.offsets[i], log.offsets[i + 1])
        weight = policy[chosen] / log.propensity[i]
        values.append(sum(policy[a] * q[a] for a in rows) + weight * (log.reward[i] - q[chosen]))
    return np.array(values)


@settings(deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_estimates_equal_the_published_sums(n: int, seed: int) -> None:
    log, target, baseline, q = ragged(n, seed)
    assume(intervals.count_clusters(log.cluster, n) > 1)
    weights = target[log.chosen] / log.propensity
    dr = plain_dr(log, target, q)
    gain = dr - plain_dr(log, baseline, q)
    assert sure(evaluation.estimate_ips(log, target, LENIENT)).value == pytest.approx((weights * log.reward).mean())
    snips = sure(evaluation.estimate_snips(log, target, LENIENT)).value
    assert snips == pytest.approx((weights * log.reward).sum() / weights.sum())
    assert sure(evaluation.estimate_dr(log, target, q, LENIENT)).value == pytest.approx(dr.mean())
    assert evaluation.increments(log, target, baseline, q) == pytest.approx(gain, abs=1e-9)
    difference = evaluation.estimate_difference(log, target, baseline, q, LENIENT)
    if (target != baseline).any():
        assert sure(difference).value == pytest.approx(gain.mean())


def test_increments_average_to_the_true_gain_over_every_choice_and_reward() -> None:
    """Enumerate one decision exactly: whatever q says, the expectation is the true difference."""
    logging, challenger, champion = np.array([0.7, 0.2, 0.1]), np.array([0.0, 0.1, 0.9]), np.array([1.0, 0.0, 0.0])
    success, q = np.array([0.5, 0.8, 0.9]), np.array([0.1, 0.9, 0.3])
    expected = 0.0
    for chosen in range(3):
        for reward, probability in ((1.0, success[chosen]), (0.0, 1 - success[chosen])):
            log = one_decision(chosen, logging[chosen], reward)
            increment = evaluation.increments(log, challenger, champion, q)[0]
            expected += logging[chosen] * probability * increment
    assert expected == pytest.approx((challenger - champion) @ success)


def one_decision(chosen: int, propensity: float, reward: float) -> LoggedDecisions:
    return LoggedDecisions(
        offsets=np.array([0, 3]),
        chosen=np.array([chosen]),
        propensity=np.array([propensity]),
        reward=np.array([reward]),
    )


def test_increments_are_zero_where_the_policies_agree() -> None:
    log, target, baseline, q = ragged(50, 1)
    agreed = np.repeat(np.arange(50) % 2 == 0, np.diff(log.offsets))
    mixed = np.where(agreed, target, baseline)
    assert (evaluation.increments(log, mixed, target, q)[::2] == 0.0).all()


def test_policies_that_agree_everywhere_differ_by_exactly_nothing() -> None:
    log, target, _, q = ragged(200, 2)
    same = sure(evaluation.estimate_difference(log, target, target, q))
    assert (same.value, same.low, same.high, same.effective_sample_size) == (0.0, 0.0, 0.0, 0.0)


def test_a_right_reward_model_makes_dr_narrower_than_ips() -> None:
    rng = np.random.default_rng(5)
    log, target, _, _ = ragged(2_000, 5)
    q = rng.uniform(2.0, 3.0, log.offsets[-1])
    log = LoggedDecisions(
        offsets=log.offsets,
        chosen=log.chosen,
        propensity=log.propensity,
        reward=q[log.chosen] + rng.normal(0.0, 0.1, 2_000),
    )
    dr, ips = sure(evaluation.estimate_dr(log, target, q)), sure(evaluation.estimate_ips(log, target))
    assert dr.standard_error < ips.standard_error / 3
    assert abs(dr.value - ips.value) < 4 * ips.standard_error


def test_figures_say_how_far_to_trust() -> None:
    n = 400
    log, target = two_way(n, logging=0.2, target=0.8)
    estimate = sure(evaluation.estimate_ips(log, target, Limits(max_weight=2.0)))
    weights = target[log.chosen] / log.propensity
    assert estimate.max_weight == pytest.approx(4.0)
    assert estimate.effective_sample_size == pytest.approx(weights.sum() ** 2 / (weights**2).sum())
    assert estimate.clipped_share == pytest.approx((weights > 2.0).mean())
    assert estimate.value == pytest.approx((np.minimum(weights, 2.0) * log.reward).mean())
    assert estimate.n_clusters == estimate.n_decisions == n


def two_way(n: int, *, logging: float, target: float, unsupported: float = 0.0) -> tuple[LoggedDecisions, Floats]:
    """Two candidates, the first chosen with ``logging``, plus a third that is never chosen, given ``unsupported``."""
    rng = np.random.default_rng(7)
    first = rng.uniform(size=n) < logging
    log = LoggedDecisions(
        offsets=np.arange(0, 3 * n + 1, 3),
        chosen=np.arange(0, 3 * n, 3) + ~first,
        propensity=np.where(first, logging, 1 - logging),
        reward=rng.uniform(size=n),
    )
    supported = np.array([target, 1 - target, 0.0]) * (1 - unsupported)
    return log, np.tile(supported + np.array([0.0, 0.0, unsupported]), n)


def test_a_log_without_propensities_is_refused() -> None:
    log, target, baseline, q = ragged(200, 3)
    silent = LoggedDecisions(offsets=log.offsets, chosen=log.chosen, propensity=np.full(200, np.nan), reward=log.reward)
    for refusal in (
        evaluation.estimate_ips(silent, target),
        evaluation.estimate_snips(silent, target),
        evaluation.estimate_dr(silent, target, q),
        evaluation.estimate_difference(silent, target, baseline, q),
    ):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "no propensities"
    with pytest.raises(ValueError, match="kept none"):
        evaluation.increments(silent, target, baseline, q)


@pytest.mark.parametrize(("n", "n_clusters"), [(0, 0), (99, 99), (500, 9), (500, 1)])
def test_too_few_decisions_or_clusters_are_refused(n: int, n_clusters: int) -> None:
    log, target = two_way(n, logging=0.5, target=0.5)
    clustered = LoggedDecisions(
        offsets=log.offsets,
        chosen=log.chosen,
        propensity=log.propensity,
        reward=log.reward,
        cluster=np.arange(n) % max(n_clusters, 1),
    )
    refusal = evaluation.estimate_ips(clustered, target)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "too few"
    assert refusal.figures == {"n_decisions": n, "n_clusters": n_clusters}
    assert f"{n} decisions in {n_clusters} independent clusters" in refusal.explanation


def test_a_target_that_goes_where_the_log_never_went_is_refused() -> None:
    log, covered = two_way(2_000, logging=0.5, target=0.7)
    _, uncovered = two_way(2_000, logging=0.5, target=0.7, unsupported=0.2)
    q = np.full(6_000, 0.5)
    _, other = two_way(2_000, logging=0.5, target=0.2)
    assert isinstance(evaluation.estimate_dr(log, covered, q), Estimate)
    assert isinstance(evaluation.estimate_difference(log, covered, other, q), Estimate)
    for refusal in (
        evaluation.estimate_dr(log, uncovered, q),
        evaluation.estimate_snips(log, uncovered),
        evaluation.estimate_difference(log, uncovered, covered, q),
    ):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "no overlap"
        assert "the log never did" in refusal.explanation


def test_decisions_that_were_not_explored_say_nothing_of_a_policy_that_goes_elsewhere_there() -> None:
    n = 3_000
    propensity = np.where(np.arange(n) % 20 == 0, 1.0, 0.5)  # one in twenty was sure
    chosen = np.arange(0, 2 * n, 2) + np.where(propensity == 1.0, 0, np.arange(n) % 2)
    log = LoggedDecisions(offsets=np.arange(0, 2 * n + 1, 2), chosen=chosen, propensity=propensity, reward=np.ones(n))
    first, second = np.tile([1.0, 0.0], n), np.tile([0.0, 1.0], n)
    assert sure(evaluation.estimate_dr(log, first, np.zeros(2 * n))).value == pytest.approx(1.0, abs=0.06)
    for refusal in (
        evaluation.estimate_dr(log, second, np.zeros(2 * n)),
        evaluation.estimate_difference(log, second, first, np.zeros(2 * n)),
    ):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "no overlap"
        assert refusal.figures == {"unexplored_share": 0.05, "uncovered_share": 0.05}
    agreeing = np.where(np.repeat(propensity == 1.0, 2), first, second)
    assert sure(evaluation.estimate_difference(log, agreeing, first, np.zeros(2 * n))).n_decisions == n


def test_a_deterministic_log_supports_only_what_it_did() -> None:
    n = 1_000
    log = LoggedDecisions(
        offsets=np.arange(0, 2 * n + 1, 2),
        chosen=np.arange(0, 2 * n, 2),
        propensity=np.ones(n),
        reward=np.tile([0.0, 1.0], n // 2),
    )
    did, did_not = np.tile([1.0, 0.0], n), np.tile([0.0, 1.0], n)
    assert sure(evaluation.estimate_ips(log, did)).value == 0.5
    refusal = evaluation.estimate_ips(log, did_not)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "no overlap"
    assert refusal.figures["effective_sample_size"] == 0.0


@pytest.mark.parametrize("reward", [0.0, 1.0, -3.7])
def test_rewards_that_never_vary_prove_nothing_of_the_next_one(reward: float) -> None:
    log, target = two_way(1_000, logging=0.5, target=0.7)
    same = LoggedDecisions(
        offsets=log.offsets, chosen=log.chosen, propensity=log.propensity, reward=np.full(1_000, reward)
    )
    for refusal in (
        evaluation.estimate_snips(same, target),
        evaluation.estimate_dr(same, target, np.full(3_000, reward)),
        evaluation.estimate_difference(same, target, np.tile([0.5, 0.5, 0.0], 1_000), np.full(3_000, reward)),
    ):
        assert isinstance(refusal, Refusal)
        assert refusal.reason == "no variation"
        assert "1000 decisions all say" in refusal.explanation
    if reward:  # weights still vary, and IPS says so
        assert sure(evaluation.estimate_ips(same, target)).standard_error > 0.0


def test_the_policy_that_wrote_the_log_earned_what_the_log_shows() -> None:
    log, target = two_way(1_000, logging=0.3, target=0.3)
    textbook = intervals.mean_interval(log.reward, None, 0.95)
    for estimate in (evaluation.estimate_ips(log, target), evaluation.estimate_snips(log, target)):
        found = sure(estimate)
        assert (found.value, found.low, found.high) == pytest.approx((textbook.value, textbook.low, textbook.high))
        assert (found.effective_sample_size, found.max_weight) == (pytest.approx(1_000.0), pytest.approx(1.0))


def test_policies_that_hardly_differ_are_not_told_apart() -> None:
    log, same = two_way(2_000, logging=0.5, target=0.7)
    target = same.copy()
    target[: 3 * 40] = np.tile([0.2, 0.8, 0.0], 40)
    refusal = evaluation.estimate_difference(log, target, same, np.full(6_000, 0.5))
    assert isinstance(refusal, Refusal)
    assert refusal.figures["effective_sample_size"] == pytest.approx(40.0)
    assert "the weight of 40.0 decisions" in refusal.explanation


def test_wrong_propensities_are_noticed() -> None:
    log, target = two_way(2_000, logging=0.5, target=0.7)
    wrong = LoggedDecisions(offsets=log.offsets, chosen=log.chosen, propensity=log.propensity / 2, reward=log.reward)
    assert isinstance(evaluation.estimate_ips(wrong, target), Refusal)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("propensity", [0.5, 0.0], "propensity must lie in .0, 1., got 0.0 at 1"),
        ("propensity", [1.5, 0.5], "propensity must lie in .0, 1., got 1.5 at 0"),
        ("propensity", [0.5, np.nan], "propensity must lie in .0, 1., got nan at 1"),
        ("propensity", [0.5], "propensity must number 2, got 1"),
        ("reward", [np.inf, 0.0], "reward must be finite, got inf at 0"),
        ("chosen", [0, 1], "chosen must be a row of its decision, got 1 at 1"),
        ("offsets", [0, 2, 2], "offsets must rise, got 0 at 1"),
        ("offsets", [0, 2], "offsets must start at 0 and number 3"),
        ("cluster", [1], "cluster must number 2, got 1"),
    ],
)
def test_a_log_that_is_none_is_refused_by_column_and_value(column: str, value: list[float], message: str) -> None:
    columns: dict[str, Any] = {
        "offsets": np.array([0, 2, 4]),
        "chosen": np.array([0, 2]),
        "propensity": np.array([0.5, 0.5]),
        "reward": np.zeros(2),
    }
    with pytest.raises(ValueError, match=message):
        LoggedDecisions(**columns | {column: np.array(value)})


def test_policies_and_reward_models_that_are_none_are_refused() -> None:
    log, target, baseline, q = ragged(100, 4)
    for message, arguments in {
        "target must number": (target[1:], baseline, q),
        "target must be nonnegative": (target * 3 - 1.0, baseline, q),
        "baseline must sum to 1": (target, baseline * 0.9, q),
        "q must be finite, got nan at row 0": (target, baseline, np.full(len(q), np.nan)),
        "q must number": (target, baseline, q[1:]),
    }.items():
        with pytest.raises(ValueError, match=message):
            evaluation.estimate_difference(log, *arguments)
    with pytest.raises(ValueError, match="min_clusters must be at least 2, got 1"):
        Limits(min_clusters=1)
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got 1"):
        intervals.mean_interval(np.zeros(3), None, 1)
    with pytest.raises(ValueError, match="at least two clusters, got 1"):
        intervals.mean_interval(np.zeros(3), np.zeros(3, np.int64), 0.9)


def test_disagreements_are_of_the_favourites() -> None:
    log, *_ = ragged(3, 0, n_values=1)
    single = np.ones(3)
    assert logged.find_disagreements(log, single, single).tolist() == [False] * 3
    pairs = LoggedDecisions(
        offsets=np.array([0, 2, 4]), chosen=np.array([0, 2]), propensity=np.full(2, 0.5), reward=np.zeros(2)
    )
    differs = logged.find_disagreements(pairs, np.array([0.6, 0.4, 0.5, 0.5]), np.array([0.9, 0.1, 0.4, 0.6]))
    assert differs.tolist() == [False, True]


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), min_size=2, max_size=200), st.integers(2, 5), st.integers(0, 99))
def test_folds_keep_clusters_whole_and_use_every_fold(names: list[int], k: int, seed: int) -> None:
    cluster = np.array(names)
    if len(set(names)) < k:
        with pytest.raises(ValueError, match="folds must number"):
            logged.folds(cluster, k, seed)
        return
    fold = logged.folds(cluster, k, seed)
    assert set(fold.tolist()) == set(range(k))
    assert all(len(set(fold[cluster == name].tolist())) == 1 for name in set(names))
    assert fold.tolist() == logged.folds(cluster, k, seed).tolist()
    largest = max(names.count(name) for name in set(names))
    assert np.ptp(np.bincount(fold)) <= largest


@pytest.mark.parametrize("seed", range(8))
def test_a_large_cluster_does_not_upset_the_balance_of_the_folds(seed: int) -> None:
    fold = logged.folds(np.array([7, 7, 7, 7, 1, 2, 3, 4]), 2, seed)
    assert np.bincount(fold).tolist() == [4, 4]


@given(st.integers(10, 60), st.integers(2, 5), st.integers(0, 99))
def test_no_row_is_predicted_by_what_saw_its_cluster_and_none_is_left_out(n: int, k: int, seed: int) -> None:
    log, *_ = ragged(n, seed)
    assume(intervals.count_clusters(log.cluster, n) >= k)
    assert log.cluster is not None
    cluster_of_row = np.repeat(log.cluster, np.diff(log.offsets))
    seen = []

    def predict(learns: NDArray[np.bool_], judged: NDArray[np.bool_]) -> Floats:
        assert not set(log.cluster[learns]) & set(cluster_of_row[judged])  # type: ignore[index]  # asserted above
        seen.append((learns.sum(), judged.sum()))
        return np.flatnonzero(judged).astype(np.float64)

    assert logged.cross_fit(log, k, seed, predict).tolist() == list(range(log.offsets[-1]))
    assert (len(seen), sum(judged for _, judged in seen)) == (k, log.offsets[-1])
    assert sum(learnt for learnt, _ in seen) == (k - 1) * n


def test_decisions_on_their_own_are_cross_fitted_one_by_one() -> None:
    log, _ = two_way(10, logging=0.5, target=0.5)
    means = logged.cross_fit(log, 10, 0, lambda learns, judged: np.full(judged.sum(), log.reward[learns].mean()))
    assert means[::3] == pytest.approx((log.reward.sum() - log.reward) / 9)
