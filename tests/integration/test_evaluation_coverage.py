"""Simulated worlds whose truth is known: how often intervals hold it, gates promote in error, and how soon they find a gain.

Where the canary's policies agree the increment is 0 and, without a margin, no bet is won or lost; so only decisions on
which they differ are simulated, each at the number of the decision it would have been. A sequence that refutes at any
decision is counted: no schedule of looks can find more.
"""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binom

from features.choices import Rung
from models import anytime, betting, evaluation
from models.anytime import AnytimeInterval, Declared
from models.betting import Units
from models.evaluation import Estimate
from models.logged import LoggedDecisions
from validation.canary_gate import CanaryGate, bound_increments

Floats = NDArray[np.float64]

ALPHA = 0.05
N_RUNS = 300
N_DECISIONS = 50_000
N_EARLIER = 500  # decisions that the frozen reward model was estimated from, per destination
LADDER = tuple(Rung(share=share) for share in (0.01, 0.05, 0.1, 0.25, 0.5))
GATE = CanaryGate(reward_low=0.0, reward_high=1.0, ladder=LADDER, max_rises={})


@dataclass(frozen=True, kw_only=True)
class World:
    """The champion's destination earns ``base``, the challenger's ``base + lift``, where they differ.

    Rewards are 0 or 1, or of standard deviation ``noise`` where that is given. Each share is a rung of 1,000 decisions,
    the last one lasts.
    """

    share: float | tuple[float, ...]
    base: float
    lift: float = 0.0
    differ_rate: float = 0.1
    noise: float | None = None

    def earn(self, rng: np.random.Generator, mean: Floats) -> Floats:
        if self.noise is None:
            return (rng.uniform(size=mean.shape) < mean).astype(np.float64)
        return np.clip(rng.normal(mean, self.noise), 0.0, 1.0)

    def play(self, seed: int, n_decisions: int = N_DECISIONS, gate: CanaryGate = GATE) -> tuple[Units, Floats]:
        """Return the disagreements of one canary as units, and the number of the decision each was."""
        rng = np.random.default_rng(seed)
        at = (np.flatnonzero(rng.uniform(size=n_decisions) < self.differ_rate) + 1).astype(np.float64)
        n, values = len(at), np.array([self.base, self.base + self.lift])
        q = np.clip(self.earn(rng, np.tile(values, (N_EARLIER, 1))).mean(axis=0), *gate.value_bounds)
        rungs = np.atleast_1d(self.share)
        share = rungs[np.minimum(at // 1_000, len(rungs) - 1).astype(np.int64)]
        arm = (rng.uniform(size=n) < share).astype(np.int64)
        log = LoggedDecisions(
            offsets=np.arange(0, 2 * n + 1, 2),
            chosen=np.arange(0, 2 * n, 2) + arm,
            propensity=np.where(arm, share, 1.0 - share),
            reward=self.earn(rng, values[arm]),
        )
        gain = evaluation.increments(log, np.tile([0.0, 1.0], n), np.tile([1.0, 0.0], n), np.tile(q, n))
        low, high = bound_increments(share, gate)
        return Units(total=gain, size=np.ones(n), low=low, high=high), at


def count_to_promotion(world: World, seed: int, n_decisions: int = N_DECISIONS, gate: CanaryGate = GATE) -> float:
    """Return the number of the decision that proved the gain, infinite if none did."""
    units, at = world.play(seed, n_decisions, gate)
    crossed = betting.first_crossing(betting.log_wealth(units, 0.0), ALPHA)
    return math.inf if crossed is None else float(at[crossed])


def peeked_z_promotes(units: Units, n_looks: int = 60) -> bool:
    """Tell whether a z-test at any of evenly spaced looks finds a gain: what a gate must not do."""
    looks = np.linspace(0, len(units.total), n_looks + 1).astype(int)[1:]
    n = looks.astype(np.float64)
    sums, squares = np.cumsum(units.total)[looks - 1], np.cumsum(np.square(units.total))[looks - 1]
    error = np.sqrt(np.maximum(squares - np.square(sums) / n, 1e-12))
    return bool((sums / error > 1.645).any())


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, (0.01, 0.05, 0.25, 0.5)])
@pytest.mark.parametrize("success", [0.5, 0.85, 0.98])
def test_an_equal_challenger_is_seldom_promoted_or_found_harmful_however_often_one_looks(
    success: float, share: float | tuple[float, ...]
) -> None:
    promoted, harmful = 0, 0
    for seed in range(N_RUNS):
        units, _ = World(share=share, base=success).play(seed)
        promoted += betting.first_crossing(betting.log_wealth(units, 0.0), ALPHA) is not None
        harmful += betting.first_crossing(betting.log_wealth(units.mirrored(), 0.0), ALPHA) is not None
    assert promoted / N_RUNS <= ALPHA
    assert harmful / N_RUNS <= ALPHA


def test_the_simulation_would_see_a_gate_that_errs() -> None:
    errors = sum(peeked_z_promotes(World(share=0.1, base=0.85).play(seed)[0]) for seed in range(N_RUNS))
    assert errors / N_RUNS > 2 * ALPHA


def test_a_gain_of_a_tenth_on_a_tenth_of_decisions_is_found_by_a_canary_of_a_tenth() -> None:
    needed = [count_to_promotion(World(share=0.1, base=0.85, lift=0.1), seed) for seed in range(N_RUNS)]
    assert np.isfinite(needed).mean() >= 0.95
    assert np.median(needed) <= 15_000


def test_a_clear_continuous_gain_is_found_within_a_few_hundred_decisions() -> None:
    world = World(share=0.5, base=0.5, lift=0.04 / 0.6, differ_rate=0.6, noise=0.1)
    needed = [count_to_promotion(world, seed, n_decisions=2_000) for seed in range(N_RUNS)]
    assert np.median(needed) <= 500
    assert np.quantile(needed, 0.95) <= 800


def test_a_narrow_reward_model_makes_it_sooner() -> None:
    world = World(share=0.5, base=0.5, lift=0.04 / 0.6, differ_rate=0.6, noise=0.1)
    narrow = CanaryGate(reward_low=0.0, reward_high=1.0, ladder=LADDER, max_rises={}, value_low=0.45, value_high=0.65)
    runs = range(100)
    needed = np.median([count_to_promotion(world, seed, n_decisions=2_000, gate=narrow) for seed in runs])
    assert needed < 0.8 * np.median([count_to_promotion(world, seed, n_decisions=2_000) for seed in runs])


@pytest.mark.parametrize("lift", [-0.1, 0.05])
def test_the_limits_hold_the_true_gain_at_all_times(lift: float) -> None:
    """The sequence of disagreements has the lift for its mean: it must rarely be refuted from either side."""
    world = World(share=0.1, base=0.6, lift=lift)
    missed_below, missed_above = 0, 0
    for seed in range(N_RUNS):
        units, _ = world.play(seed)
        missed_below += betting.log_wealth(units, lift).max() >= math.log(1 / ALPHA)
        missed_above += betting.log_wealth(units.mirrored(), -lift).max() >= math.log(1 / ALPHA)
    assert missed_below / N_RUNS <= ALPHA
    assert missed_above / N_RUNS <= ALPHA


def test_arms_that_keep_their_share_rarely_alert() -> None:
    rng = np.random.default_rng(0)
    share = np.repeat([0.01, 0.05, 0.25, 0.5], 5_000)
    alerts = 0
    for _ in range(N_RUNS):
        wealth = betting.sample_ratio_log_wealth(rng.uniform(size=len(share)) < share, share)
        alerts += betting.first_crossing(wealth, ALPHA) is not None
    assert alerts / N_RUNS <= ALPHA


def draw_off_policy(seed: int, *, n_clusters: int, cluster_size: int) -> tuple[LoggedDecisions, Floats, Floats, Floats]:
    """Three candidates; a context moves their values, a shock that a cluster shares moves the worth of the third.

    Returns the log, target, baseline and a reward model that is wrong by a tenth.
    """
    rng = np.random.default_rng(seed)
    n = n_clusters * cluster_size
    context = rng.uniform(size=n)
    values = np.column_stack([0.5 * context, 0.25 + 0.2 * context, 0.3 - 0.2 * context])
    shock = np.repeat(rng.normal(0.0, 0.3, n_clusters), cluster_size)
    logging = np.where(context[:, None] < 0.5, [0.2, 0.3, 0.5], [0.5, 0.3, 0.2])
    chosen = (rng.uniform(size=(n, 1)) > np.cumsum(logging, axis=1)).sum(axis=1)
    target = np.where(context[:, None] < 0.5, [0.1, 0.1, 0.8], [0.8, 0.1, 0.1])
    log = LoggedDecisions(
        offsets=np.arange(0, 3 * n + 1, 3),
        chosen=np.arange(0, 3 * n, 3) + chosen,
        propensity=logging[np.arange(n), chosen],
        reward=values[np.arange(n), chosen] + shock * (chosen == 2) + rng.normal(0.0, 0.2, n),
        cluster=np.repeat(np.arange(n_clusters), cluster_size),
    )
    return log, target.ravel(), np.tile([0.0, 1.0, 0.0], n), (values + 0.1).ravel()


def true_value() -> tuple[float, float]:
    """Return the value of the target and its gain over the baseline, by integrating over the context."""
    context = (np.arange(200_000) + 0.5) / 200_000
    values = np.column_stack([0.5 * context, 0.25 + 0.2 * context, 0.3 - 0.2 * context])
    target = np.where(context[:, None] < 0.5, [0.1, 0.1, 0.8], [0.8, 0.1, 0.1])
    own = float((target * values).sum(axis=1).mean())
    return own, own - float(values[:, 1].mean())


@pytest.mark.parametrize(("n_clusters", "cluster_size"), [(1_000, 1), (60, 20)])
@pytest.mark.parametrize("method", ["IPS", "SNIPS", "DR", "DR difference"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(method: str, n_clusters: int, cluster_size: int) -> None:
    value, gain = true_value()
    truth = gain if method == "DR difference" else value
    held = 0
    for seed in range(N_RUNS):
        held += covers(method, truth, *draw_off_policy(seed, n_clusters=n_clusters, cluster_size=cluster_size))
    assert 0.91 <= held / N_RUNS <= 0.985


def test_intervals_that_ignore_clusters_hold_the_truth_too_seldom() -> None:
    """The contrast that shows that the clusters of the test above matter."""
    value, _ = true_value()
    held = 0
    for seed in range(N_RUNS):
        log, target, baseline, q = draw_off_policy(seed, n_clusters=60, cluster_size=20)
        apart = LoggedDecisions(offsets=log.offsets, chosen=log.chosen, propensity=log.propensity, reward=log.reward)
        held += covers("DR", value, apart, target, baseline, q)
    assert held / N_RUNS < 0.85


def covers(method: str, truth: float, log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats) -> bool:
    estimate = estimate_with(method, log, target, baseline, q)
    return estimate.low <= truth <= estimate.high


def estimate_with(method: str, log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats) -> Estimate:
    match method:
        case "IPS":
            estimate = evaluation.estimate_ips(log, target)
        case "SNIPS":
            estimate = evaluation.estimate_snips(log, target)
        case "DR":
            estimate = evaluation.estimate_dr(log, target, q)
        case _:
            estimate = evaluation.estimate_difference(log, target, baseline, q)
    assert isinstance(estimate, Estimate), estimate
    return estimate


EXPLORATION = 0.075  # of each candidate but the first
RIGHT = np.array(
    [[0.64, 0.93, 0.76, 0.71], [0.86, 0.81, 0.95, 0.67], [0.97, 0.86, 0.76, 0.81]]
)  # by context, candidate
PREFERRED = np.array([1, 2, 0])  # by context; the target's choice
N_LOOKS = 50


def draw_rare_failures(n: int, seed: int, unit_size: int = 1) -> tuple[LoggedDecisions, Floats, Floats, Floats]:
    """Return what an epsilon-greedy policy logged where answers are right or wrong, two policies, a frozen reward model.

    A unit of several decisions shares its context and its luck.
    """
    rng = np.random.default_rng(seed)
    context, luck = (np.repeat(column, unit_size)[:n] for column in (rng.integers(3, size=n), rng.uniform(size=n)))
    logging = np.array([1.0 - 3 * EXPLORATION, *[EXPLORATION] * 3])
    chosen = rng.choice(4, size=n, p=logging)
    log = LoggedDecisions(
        offsets=np.arange(0, 4 * n + 1, 4),
        chosen=np.arange(0, 4 * n, 4) + chosen,
        propensity=logging[chosen],
        reward=(luck < RIGHT[context, chosen]).astype(np.float64),
        cluster=np.arange(n) // unit_size if unit_size > 1 else None,
    )
    q = np.clip(RIGHT + np.random.default_rng(0).normal(0.0, 0.1, RIGHT.shape), 0.0, 1.0)[context]
    return log, np.eye(4)[PREFERRED[context]].ravel(), np.tile([1.0, 0.0, 0.0, 0.0], n), q.ravel()


RARE_VALUE = float(RIGHT[np.arange(3), PREFERRED].mean())
RARE_GAIN = RARE_VALUE - float(RIGHT[:, 0].mean())


@pytest.mark.parametrize("n", [1_000, 2_000])
@pytest.mark.parametrize("method", ["IPS", "SNIPS", "DR", "DR difference"])
def test_intervals_on_small_logs_of_rare_failures_hold_the_truth_where_the_textbooks_do_not(
    method: str, n: int
) -> None:
    truth, held, held_by_textbook = (RARE_GAIN if method == "DR difference" else RARE_VALUE), 0, 0
    for seed in range(2 * N_RUNS):
        estimate = estimate_with(method, *draw_rare_failures(n, seed))
        held += estimate.low <= truth <= estimate.high
        held_by_textbook += abs(estimate.value - truth) <= 1.96 * estimate.standard_error
    assert 0.935 <= held / (2 * N_RUNS) <= 0.985
    if method in {"SNIPS", "DR"}:  # the noise of the others is that of the weights, or of both policies' failures
        assert held_by_textbook / (2 * N_RUNS) < 0.93


@pytest.mark.parametrize("unit_size", [1, 4])
@pytest.mark.parametrize("method", ["IPS", "DR", "DR difference"])
def test_anytime_limits_hold_the_truth_at_every_look(method: str, unit_size: int) -> None:
    """Looks only ever tighten the limits (a unit test says so): the last ones err if those of any look did."""
    truth, missed = (RARE_GAIN if method == "DR difference" else RARE_VALUE), 0
    for seed in range(N_RUNS):
        found = bound_with(method, *draw_rare_failures(500, seed, unit_size), unit_size)
        missed += not found.low <= truth <= found.high
    assert missed <= binom.ppf(0.99, N_RUNS, ALPHA)


def test_an_interval_for_one_look_errs_too_often_when_looked_at_fifty_times() -> None:
    """The contrast that shows what the limits above are for."""
    missed = 0
    for seed in range(100):
        log, target, _, q = draw_rare_failures(4_000, seed)
        for look in np.linspace(0, 4_000, N_LOOKS + 1).astype(int)[3:]:
            head = LoggedDecisions(
                offsets=log.offsets[: look + 1],
                chosen=log.chosen[:look],
                propensity=log.propensity[:look],
                reward=log.reward[:look],
            )
            seen = evaluation.estimate_dr(
                head, target[: 4 * look], q[: 4 * look], evaluation.Limits(overlap_tolerance=1)
            )
            if isinstance(seen, Estimate) and not seen.low <= RARE_VALUE <= seen.high:
                missed += 1
                break
    assert missed / 100 > 2 * ALPHA


def bound_with(
    method: str, log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats, unit_size: int
) -> AnytimeInterval:
    declared = Declared(reward_low=0.0, reward_high=1.0, min_propensity=EXPLORATION, max_unit_size=unit_size)
    match method:
        case "IPS":
            found = anytime.bound_ips(log, target, declared)
        case "DR":
            found = anytime.bound_dr(log, target, q, declared)
        case _:
            found = anytime.bound_difference(log, target, baseline, q, declared)
    assert isinstance(found, AnytimeInterval), found
    return found
