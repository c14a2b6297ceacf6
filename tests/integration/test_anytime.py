"""Limits that hold at every look: nested, inside what was declared, refused where what was declared does not hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import anytime
from models.anytime import AnytimeInterval, Declared
from models.evaluation import Refusal
from models.logged import LoggedDecisions

Floats = NDArray[np.float64]

FLOOR = 0.1
DECLARED = Declared(reward_low=-2.0, reward_high=3.0, min_propensity=FLOOR, max_unit_size=3)
METHODS = ("IPS", "DR", "DR difference")


def draw(
    n: int, seed: int, *, units: bool = False, worth: tuple[float, ...] = (0.5, 1.0, 2.0)
) -> tuple[LoggedDecisions, Floats, Floats, Floats]:
    """Return a log of three candidates with propensities from the floor up, target, baseline and a reward model."""
    rng = np.random.default_rng(seed)
    logging = rng.dirichlet(np.ones(3), n) * (1 - 3 * FLOOR) + FLOOR
    chosen = (rng.uniform(size=(n, 1)) > np.cumsum(logging, axis=1)).sum(axis=1)
    log = LoggedDecisions(
        offsets=np.arange(0, 3 * n + 1, 3),
        chosen=np.arange(0, 3 * n, 3) + chosen,
        propensity=logging[np.arange(n), chosen],
        reward=np.clip(np.array(worth)[chosen] + rng.choice([-9.0, 0.0, 9.0], n), -2.0, 3.0),
        cluster=np.arange(n) // 3 + 1_000_000 * (np.arange(n) % 2) if units else None,
    )
    policies = rng.dirichlet(np.full(3, 0.3), (2, n))
    return log, policies[0].ravel(), policies[1].ravel(), rng.uniform(-4.0, 5.0, 3 * n)


def bound(
    method: str, log: LoggedDecisions, target: Floats, baseline: Floats, q: Floats, declared: Declared = DECLARED
) -> AnytimeInterval | Refusal:
    match method:
        case "IPS":
            return anytime.bound_ips(log, target, declared)
        case "DR":
            return anytime.bound_dr(log, target, q, declared)
        case _:
            return anytime.bound_difference(log, target, baseline, q, declared)


def sure(judged: AnytimeInterval | Refusal) -> AnytimeInterval:
    assert isinstance(judged, AnytimeInterval), judged
    return judged


def head(log: LoggedDecisions, n: int) -> LoggedDecisions:
    return LoggedDecisions(
        offsets=log.offsets[: n + 1],
        chosen=log.chosen[:n],
        propensity=log.propensity[:n],
        reward=log.reward[:n],
        cluster=None if log.cluster is None else log.cluster[:n],
    )


@pytest.mark.parametrize("method", METHODS)
@given(n=st.integers(0, 60), seed=st.integers(0, 10_000), units=st.booleans())
def test_whatever_keeps_to_what_was_declared_keeps_to_the_bounds(
    method: str, n: int, seed: int, *, units: bool
) -> None:
    """Were a bound too small, the units would be refused."""
    found = sure(bound(method, *draw(n, seed, units=units)))
    least, most = (-5.0, 5.0) if method == "DR difference" else (-2.0, 3.0)
    assert least <= found.low <= found.high <= most


@pytest.mark.parametrize("units", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_later_looks_only_ever_tighten(method: str, *, units: bool) -> None:
    log, target, baseline, q = draw(900, 3, units=units)
    looks = [
        sure(bound(method, head(log, n), target[: 3 * n], baseline[: 3 * n], q[: 3 * n])) for n in range(0, 901, 90)
    ]
    assert [look.low for look in looks] == sorted(look.low for look in looks)
    assert [look.high for look in looks] == sorted((look.high for look in looks), reverse=True)
    assert looks[-1].high - looks[-1].low < 0.7 * (looks[0].high - looks[0].low)
    assert looks[-1].n_units == (600 if units else 900)


def test_without_a_decision_the_declared_bounds_are_all_that_is_known() -> None:
    limits = [sure(bound(method, *draw(0, 0))) for method in METHODS]
    assert [(found.low, found.high) for found in limits] == [(-2.0, 3.0), (-2.0, 3.0), (-5.0, 5.0)]


def test_limits_keep_closing_in_where_weights_are_large() -> None:
    """With the canary's fractions IPS's limits would stay .46 apart."""
    n, rng = 6_000, np.random.default_rng(1)
    explored = rng.uniform(size=n) < 0.05
    log = LoggedDecisions(
        offsets=np.arange(0, 2 * n + 1, 2),
        chosen=np.arange(0, 2 * n, 2) + explored,
        propensity=np.where(explored, 0.05, 0.95),
        reward=(rng.uniform(size=n) < 0.5).astype(np.float64),
    )
    declared, target = Declared(reward_low=0.0, reward_high=1.0, min_propensity=0.05), np.tile([0.0, 1.0], n)
    weighed = sure(anytime.bound_ips(log, target, declared))
    assert weighed.low < 0.5 < weighed.high
    assert weighed.high - weighed.low < 0.25
    robust = sure(anytime.bound_dr(log, target, np.full(2 * n, 0.5), declared))
    assert robust.low < 0.5 < robust.high
    assert robust.high - robust.low < 0.2


def test_turning_the_rewards_turns_the_limits() -> None:
    log, target, *_ = draw(400, 5)
    turned = LoggedDecisions(offsets=log.offsets, chosen=log.chosen, propensity=log.propensity, reward=1.0 - log.reward)
    one, other = sure(anytime.bound_ips(log, target, DECLARED)), sure(anytime.bound_ips(turned, target, DECLARED))
    assert (one.low, one.high) == pytest.approx((1.0 - other.high, 1.0 - other.low))


def test_a_reward_model_that_says_more_than_was_declared_is_taken_at_the_bound() -> None:
    log, target, baseline, q = draw(60, 4)
    for method in ("DR", "DR difference"):
        clipped = bound(method, log, target, baseline, np.clip(q, -2.0, 3.0))
        assert bound(method, log, target, baseline, q) == clipped
        assert bound(method, log, target, baseline, np.where(q > 3.0, 1e9, q)) == clipped


def test_mass_that_the_log_never_shows_counts_as_anything_at_all() -> None:
    """Half of the target's mass goes to a fourth candidate that is never chosen: half of the range stays open."""
    log, *_ = draw(8_000, 1)
    wider = LoggedDecisions(
        offsets=np.arange(0, 32_001, 4),
        chosen=log.chosen + np.arange(8_000),
        propensity=log.propensity,
        reward=log.reward,
    )
    found = sure(anytime.bound_ips(wider, np.tile([0.0, 0.0, 0.5, 0.5], 8_000), DECLARED))
    assert found.low < (1.0 - 2.0) / 2 < (1.0 + 3.0) / 2 < found.high
    assert found.high - found.low == pytest.approx(2.5, abs=0.3)


def test_a_unit_stands_where_its_first_decision_does_and_counts_once() -> None:
    log, target, *_ = draw(300, 7)
    names = np.repeat(np.arange(100)[::-1], 3)  # later units have the smaller names
    clustered = LoggedDecisions(
        offsets=log.offsets, chosen=log.chosen, propensity=log.propensity, reward=log.reward, cluster=names
    )
    risen = LoggedDecisions(
        offsets=log.offsets, chosen=log.chosen, propensity=log.propensity, reward=log.reward, cluster=-names
    )
    assert anytime.bound_ips(clustered, target, DECLARED) == anytime.bound_ips(risen, target, DECLARED)
    assert sure(anytime.bound_ips(clustered, target, DECLARED)).n_units == 100


@pytest.mark.parametrize("method", METHODS)
def test_a_log_without_propensities_supports_no_limits(method: str) -> None:
    log, target, baseline, q = draw(50, 2)
    silent = LoggedDecisions(offsets=log.offsets, chosen=log.chosen, propensity=np.full(50, np.nan), reward=log.reward)
    refusal = bound(method, silent, target, baseline, q)
    assert isinstance(refusal, Refusal)
    assert refusal.reason == "no propensities"


@pytest.mark.parametrize("method", METHODS)
def test_a_log_that_breaks_what_was_declared_is_refused_by_decision_and_value(method: str) -> None:
    log, target, baseline, q = draw(50, 2, units=True)
    log.propensity[7], log.reward[9] = 0.05, 2.5
    for message, declared in {
        r"propensity must be at least the declared 0.1, got 0.05 at 7": DECLARED,
        r"reward must lie in the declared \[-2, 2\], got .* at": Declared(
            reward_low=-2.0, reward_high=2.0, min_propensity=0.01, max_unit_size=3
        ),
        r"sizes must lie in \[1, 1\], got 1 to 2": Declared(reward_low=-2.0, reward_high=3.0, min_propensity=0.01),
    }.items():
        with pytest.raises(ValueError, match=message):
            bound(method, log, target, baseline, q, declared)


def test_what_bounds_nothing_is_refused() -> None:
    for message, wrong in {
        "reward_low must be below reward_high, got 1.0 and 1.0": {"reward_low": 1.0},
        "reward_low must be below reward_high, got 0.0 and inf": {"reward_high": np.inf},
        r"min_propensity must lie in \(0, 1\], got 0.0": {"min_propensity": 0.0},
        "max_unit_size must be at least 1, got 0": {"max_unit_size": 0},
    }.items():
        with pytest.raises(ValueError, match=message):
            Declared(**{"reward_low": 0.0, "reward_high": 1.0, "min_propensity": 0.5} | wrong)  # type: ignore[arg-type]  # wrong on purpose
    log, target, _, q = draw(10, 0)
    with pytest.raises(ValueError, match="target must sum to 1"):
        anytime.bound_ips(log, target / 2, DECLARED)
    with pytest.raises(ValueError, match=r"confidence must lie in \(0, 1\), got 1"):
        anytime.bound_dr(log, target, q, DECLARED, confidence=1)
    with pytest.raises(ValueError, match="q must be finite, got nan"):
        anytime.bound_dr(log, target, np.full(30, np.nan), DECLARED)
