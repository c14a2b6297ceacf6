"""The drift verdict: silent where nothing moved, loud where something did, and short of words where the sample is."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from features.choices import Drift
from features.decision_log import DecisionLog
from features.definitions import FeatureDefinitions
from features.vector import CategoryColumn
from validation import drift

FEATURES = FeatureDefinitions(
    numbers={"amount": "event.amount", "load": "state.load", "hour": "time.hour"},
    categories={"country": "event.country"},
)
LIMITS = Drift()
N_CANDIDATES = 3


def window(
    seed: int,
    *,
    n: int = 1_000,
    per_cluster: int = 1,
    shift: float = 0.0,
    countries: tuple[float, ...] = (0.5, 0.3, 0.2),
    hour: float = 0.0,
) -> tuple[DecisionLog, np.ndarray]:
    """A window of ``n`` decisions between three candidates, and the true success probability of each assignment."""
    rng = np.random.default_rng(seed)
    cluster = np.arange(n) // per_cluster
    n_rows = n * N_CANDIDATES
    shared = rng.normal(size=cluster[-1] + 1)[cluster]
    amount = np.repeat(shift + shared * 0.3 + rng.normal(size=n), N_CANDIDATES)
    load = rng.exponential(size=n_rows)
    load[rng.uniform(size=n_rows) < 0.1] = np.nan
    country = np.repeat(rng.choice(len(countries), size=n, p=countries), N_CANDIDATES)
    offsets = np.arange(n + 1) * N_CANDIDATES
    chosen = offsets[:-1] + rng.integers(0, N_CANDIDATES, n)
    chance = 1 / (1 + np.exp(-amount[chosen]))
    nothing = np.full(n, np.nan)
    log = DecisionLog(
        decision_id=np.array([str(i) for i in range(n)], np.object_),
        decided_at=np.datetime64("2026-01-01", "us") + np.arange(n),
        cluster=cluster,
        offsets=offsets,
        chosen=chosen,
        propensity=np.full(n, 1 / N_CANDIDATES),
        reward=nothing,
        success=(rng.uniform(size=n) < chance).astype(np.float64),
        latency_ms=nothing,
        cost_usd=nothing,
        timed_out=np.zeros(n, np.bool_),
        numbers=np.column_stack([amount, load, np.full(n_rows, hour)]),
        categories=[CategoryColumn(country, ("NO", "SE", "DK", "FI"))],
        destination=CategoryColumn(np.tile(np.arange(N_CANDIDATES), n), ("a", "b", "c")),
        policies={},
    )
    return log, chance


def judge(
    recent: tuple[DecisionLog, np.ndarray],
    predict: Callable[[np.ndarray], np.ndarray] = lambda chance: chance,
    limits: Drift = LIMITS,
) -> drift.DriftVerdict:
    log, chance = recent
    return drift.judge(window(10_000, n=3_000)[0], log, predict(chance), FEATURES, limits)


def test_worlds_that_did_not_move_do_not_ring() -> None:
    strict = msgspec.structs.replace(LIMITS, psi=1e-9, calibration_gap=1e-9)  # so that chance alone is what is tested
    verdicts = [judge(window(seed), limits=strict) for seed in range(60)]
    rung = sum(any(feature.drifted for feature in verdict.features) for verdict in verdicts)
    miscalibrated = sum(bool(verdict.calibration and verdict.calibration.drifted) for verdict in verdicts)
    assert max(rung, miscalibrated) <= 4  # of 60 at .01: more has a binomial probability below .001
    assert all(judge(window(seed)).state == "stable" for seed in range(10))


def test_a_number_that_moved_is_named_with_its_figures() -> None:
    verdict = judge(window(1, shift=1.0))
    assert verdict.state == "drifted"
    assert [f.column for f in verdict.features if f.drifted] == ["amount"]
    assert verdict.features[0].column == "amount"  # the most moved comes first
    # Between normals one apart, PSI is 1 (the symmetric Kullback-Leibler divergence), less what bins lose.
    assert verdict.features[0].psi == pytest.approx(1.0, abs=0.25)
    assert verdict.reasons[0].startswith("amount: PSI ")


def test_a_new_value_of_a_category_is_drift() -> None:
    verdict = judge(window(1, countries=(0.3, 0.2, 0.1, 0.4)))
    assert [f.column for f in verdict.features if f.drifted] == ["country"]


def test_the_clock_and_ignored_columns_are_not_compared() -> None:
    moved = window(1, shift=1.0, hour=12.0)
    verdict = judge(moved, limits=msgspec.structs.replace(LIMITS, ignored=("amount",)))
    assert verdict.state == "stable"
    assert {f.column for f in verdict.features} == {"load", "country"}


def test_a_new_policy_alone_is_no_drift() -> None:
    log, chance = window(1)
    load = np.nan_to_num(log.numbers[:, 1], nan=9.0).reshape(-1, N_CANDIDATES)
    least_loaded = replace(log, chosen=log.offsets[:-1] + load.argmin(axis=1))
    assert judge((least_loaded, chance)).state == "stable"


def test_predictions_that_promise_too_much_are_calibration_drift() -> None:
    verdict = judge(window(1), lambda chance: np.clip(chance + 0.15, 0, 1))
    assert verdict.state == "drifted"
    calibration = verdict.calibration
    assert calibration is not None
    assert calibration.low < calibration.gap < calibration.high < 0
    assert calibration.predicted_rate - calibration.observed_rate == pytest.approx(-calibration.gap)
    assert not any(feature.drifted for feature in verdict.features)


def test_predictions_that_are_right_in_the_mean_and_wrong_everywhere_are_calibration_drift() -> None:
    verdict = judge(window(1, n=6_000), lambda chance: 1.0 - chance)
    calibration = verdict.calibration
    assert calibration is not None
    assert abs(calibration.gap) < 0.03
    assert calibration.certain_gap < 0.05 < calibration.certain_ece < calibration.ece
    assert verdict.state == "drifted"


def test_days_that_share_fate_widen_the_interval() -> None:
    log, _ = window(3, n=2_000)
    days = replace(log, cluster=np.arange(2_000) // 100, success=np.repeat(np.arange(20) % 2, 100).astype(np.float64))
    half = np.full(2_000, 0.5)
    wide, narrow = (judge((given, half)).calibration for given in (days, replace(days, cluster=np.arange(2_000))))
    assert wide is not None
    assert narrow is not None
    assert wide.high - wide.low > 5 * (narrow.high - narrow.low)


@pytest.mark.parametrize(("n", "per_cluster"), [(400, 1), (1_000, 200)])
def test_too_few_decisions_or_clusters_say_nothing(n: int, per_cluster: int) -> None:
    verdict = judge(window(1, n=n, per_cluster=per_cluster, shift=3.0))
    assert verdict.state == "too_few"
    assert f"{n:,} decisions in {n // per_cluster} clusters, drift needs 500 in 10" in verdict.reasons[0]


def test_an_empty_window_says_nothing() -> None:
    verdict = drift.judge(None, None, np.empty(0), FEATURES, LIMITS)
    assert (verdict.state, verdict.reasons) == ("too_few", ("the training window holds no decision",))


def test_without_predictions_calibration_says_nothing_and_features_do() -> None:
    verdict = judge(window(1), lambda chance: np.full_like(chance, np.nan))
    assert verdict.state == "stable"
    assert verdict.calibration is None
    assert verdict.reasons[-1].startswith("calibration: too few")
