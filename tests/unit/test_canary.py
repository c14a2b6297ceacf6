"""The canary's judge: four verdicts with reasons, alarms that block, a ladder that waits, and data that are refused."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.choices import Gate, Rung
from features.objective import Objective
from models import evaluation
from models.logged import LoggedDecisions
from validation import canary, guardrails
from validation.canary import Verdict
from validation.canary_gate import CanaryGate, bound_increments, build_gate
from validation.canary_log import CanaryDataError, CanaryLog, group_by_unit

Floats = NDArray[np.float64]

LADDER = (Rung(share=0.1, min_decisions=500), Rung(share=0.5, min_decisions=500))
GATE = CanaryGate(reward_low=0.0, reward_high=1.0, ladder=LADDER, max_rises={"failure": 0.05}, max_decisions=20_000)
START = np.datetime64("2026-03-01T00:00:00", "us")


def draw_log(
    n: int, *, lift: float = 0.0, success: float = 0.8, share: float | Floats = 0.5, seed: int = 0, loss: float = 0.0
) -> CanaryLog:
    """Two destinations; the policies differ on half the decisions, the challenger's choice succeeds ``lift`` more often.

    ``loss`` is the share of the challenger's decisions that never arrive. The reward model says ``success`` of all.
    """
    rng = np.random.default_rng(seed)
    shares = np.broadcast_to(np.asarray(share, dtype=np.float64), n)
    differs, challenger = rng.uniform(size=n) < 0.5, rng.uniform(size=n) < shares
    reward = (rng.uniform(size=n) < success + lift * (differs & challenger)).astype(np.float64)
    weight = np.where(challenger, 1.0 / shares, -1.0 / (1.0 - shares))
    arrived = ~(challenger & (rng.uniform(size=n) < loss))
    log = CanaryLog(
        decided_at=START + np.arange(n) * np.timedelta64(1, "s"),
        unit=np.arange(n),
        share=shares.copy(),
        is_challenger=challenger,
        increment=np.where(differs, weight * (reward - success), 0.0),
        disagrees=differs,
        harms={"failure": 1.0 - reward},
    )
    return take(log, arrived)


def take(log: CanaryLog, kept: NDArray[np.bool_] | slice) -> CanaryLog:
    plain = {name: column for name, column in vars(log).items() if name != "harms" and column is not None}
    columns: dict[str, Any] = {name: column[kept] for name, column in plain.items()}
    return CanaryLog(**columns, harms={name: harm[kept] for name, harm in log.harms.items()})


def judge(log: CanaryLog, **changes: Any) -> Verdict:
    return canary.judge(log, dataclasses.replace(GATE, **changes))


def test_a_better_challenger_is_promoted_with_its_numbers() -> None:
    verdict = judge(draw_log(4_000, lift=0.15))
    assert verdict.state == "promote"
    assert "the gain is above" in verdict.reasons[0]
    assert 0.0 < verdict.lower < verdict.estimate < verdict.upper
    assert verdict.estimate == pytest.approx(0.075, abs=0.03)
    assert verdict.e_value >= 20
    assert verdict.n_decisions == verdict.n_units == 4_000
    assert verdict.n_disagreements == pytest.approx(2_000, abs=150)


def test_a_worse_challenger_is_rolled_back() -> None:
    verdict = judge(draw_log(4_000, lift=-0.15), max_rises={})
    assert verdict.state == "rollback"
    assert "the gain is below" in verdict.reasons[0]
    assert verdict.upper < 0.0
    assert verdict.harm_e_value >= 20


def test_no_difference_is_inconclusive_and_says_how_many_more_until_it_is_withdrawn() -> None:
    log = draw_log(20_000, seed=1)
    early = judge(take(log, slice(2_000)))
    assert early.state == "inconclusive"
    assert early.lower < 0.0 < early.upper
    late = judge(log)
    assert late.state == "rollback"
    assert late.reasons[0] == "withdrawn: 20,000 decisions did not suffice"


def test_a_gain_not_proven_yet_says_about_how_many_more() -> None:
    log = draw_log(20_000, lift=0.1)
    verdict = judge(take(log, slice(300)))
    assert verdict.state == "inconclusive"
    assert verdict.needs_about_n_more is not None
    assert f"needs about {verdict.needs_about_n_more:,} more" in verdict.reasons[0]
    assert judge(take(log, slice(300 + 4 * verdict.needs_about_n_more))).state == "promote"


def test_a_passed_deadline_withdraws_what_is_not_proven() -> None:
    assert canary.judge(draw_log(300), GATE, is_expired=True).reasons[0] == "withdrawn: the deadline has passed"
    assert canary.judge(draw_log(0), GATE, is_expired=True).state == "rollback"
    assert canary.judge(draw_log(4_000, lift=0.15), GATE, is_expired=True).state == "promote"


def test_without_decisions_or_without_differences_there_are_no_data() -> None:
    nothing = judge(draw_log(0))
    assert nothing.state == "no_data"
    assert np.isnan(nothing.estimate)
    log = draw_log(1_000)
    alike = dataclasses.replace(log, increment=np.zeros(1_000), disagrees=np.zeros(1_000, bool))
    assert judge(alike).state == "no_data"


def test_a_proof_waits_for_the_least_number_of_decisions() -> None:
    log = take(draw_log(4_000, lift=0.2, success=0.5, seed=3), slice(1_000))
    assert "proven at unit 1,000" in judge(log, min_decisions=1_000).reasons[0]
    assert judge(log, min_decisions=1_001).state == "inconclusive"


def test_no_worse_by_the_margin_is_enough_where_a_margin_is_given() -> None:
    log = draw_log(8_000)
    assert judge(log).state == "inconclusive"
    assert judge(log, margin=0.1).state == "promote"


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 500), st.integers(1, 2_000), st.sampled_from([-0.2, 0.0, 0.2]))
def test_a_verdict_on_the_gain_does_not_change_with_later_data(seed: int, cut: int, lift: float) -> None:
    log = draw_log(2_000, lift=lift, seed=seed)
    early, late = judge(take(log, slice(cut)), max_rises={}), judge(log, max_rises={})
    if early.state in ("promote", "rollback"):
        assert late.state == early.state
        assert late.reasons[0] == early.reasons[0]
    assert late.lower >= early.lower - 1e-5
    assert late.upper <= early.upper + 1e-5


def test_decisions_past_the_last_counted_one_change_nothing() -> None:
    log = draw_log(6_000, lift=0.03, seed=2)
    assert judge(log, max_decisions=3_000) == judge(take(log, slice(3_000)), max_decisions=3_000)


def test_of_a_gain_and_a_loss_the_one_proven_first_decides() -> None:
    good, bad = draw_log(4_000, lift=0.2), draw_log(4_000, lift=-0.2, seed=1)
    for first, second, state in ((good, bad, "promote"), (bad, good, "rollback")):
        turned = np.concatenate([first.increment[:600], second.increment[600:]])
        verdict = judge(dataclasses.replace(good, increment=turned), max_rises={})
        assert verdict.state == state
        assert min(verdict.e_value, verdict.harm_e_value) > 20


def test_a_rise_of_failures_rolls_back_whatever_the_gain_says() -> None:
    log = draw_log(4_000, lift=0.15)
    failing = {"failure": np.where(log.is_challenger, 0.3, 0.1)}
    verdict = judge(dataclasses.replace(log, harms=failing))
    assert verdict.state == "rollback"
    assert "guardrail: failure rises by more than 0.05" in verdict.reasons[0]
    assert judge(dataclasses.replace(log, harms={"failure": np.full(4_000, 0.3)})).state == "promote"


def test_a_rare_failure_is_found_soon_even_on_a_small_canary() -> None:
    rng = np.random.default_rng(4)
    log = draw_log(3_000, share=0.1, seed=4)
    failed = rng.uniform(size=3_000) < np.where(log.is_challenger, 0.25, 0.02)
    assert judge(dataclasses.replace(log, harms={"failure": failed.astype(np.float64)})).state == "rollback"


def test_the_rise_of_a_harm_is_measured_without_bias() -> None:
    """Enumerate arms and harms of three decisions: whatever came before, each shows the true rise on average."""
    share, rates = 0.25, (0.1, 0.4)
    expected = np.zeros(3)
    for path in np.ndindex(*([2] * 6)):
        arm, harm = np.array(path[:3], dtype=bool), np.array(path[3:], dtype=np.float64)
        rate = np.where(arm, rates[1], rates[0])
        probability = np.where(arm, share, 1 - share).prod() * np.where(harm, rate, 1 - rate).prod()
        keyed = dataclasses.replace(draw_log(3), share=np.full(3, share), is_challenger=arm)
        expected += probability * guardrails.measure_rise(group_by_unit(keyed, 1, 100), harm, 1).total
    assert expected == pytest.approx([0.3] * 3)


def test_a_rare_harm_has_narrow_bounds() -> None:
    log = draw_log(1_000, share=0.1)
    rise = guardrails.measure_rise(group_by_unit(log, 1, 10_000), np.zeros(1_000), 1)
    assert rise.low[0] == -5.0
    assert rise.low[-1] == pytest.approx(-1 / 0.9, abs=0.01)


def test_p11_a_lost_part_of_an_arm_blocks_promotion_and_alerts() -> None:
    log = draw_log(10_000, lift=0.2, loss=0.2)
    verdict = judge(log)
    assert verdict.state == "inconclusive"
    assert "sample ratio" in verdict.alerts[0]
    assert "cannot be compared" in verdict.reasons[0]
    assert verdict.needs_about_n_more is None
    assert canary.judge(log, GATE, is_expired=True).state == "rollback"


def test_one_sequence_spans_the_rungs() -> None:
    share = np.repeat([0.1, 0.5], [1_000, 3_000])
    log = draw_log(4_000, lift=0.12, share=share, seed=6)
    assert judge(log).state == "promote"
    assert judge(log).e_value > judge(take(log, slice(1_000, None))).e_value * 0.5


def test_a_rung_is_climbed_after_its_dwell_unless_something_is_wrong() -> None:
    calm = draw_log(500, share=0.1)
    verdict = judge(calm)
    assert canary.next_rung(verdict, calm, GATE, 0) == 1
    assert canary.next_rung(verdict, take(calm, slice(499)), GATE, 0) == 0
    assert canary.next_rung(verdict, calm, GATE, 1) == 1  # the dwell counts at the rung's own share, and it is the last
    for state in ("rollback", "promote"):
        assert canary.next_rung(dataclasses.replace(verdict, state=state), calm, GATE, 0) == 0
    assert canary.next_rung(dataclasses.replace(verdict, alerts=("sample ratio",)), calm, GATE, 0) == 0


def test_decisions_of_a_unit_are_summed_and_only_so_many_count() -> None:
    log = draw_log(6)
    keyed = dataclasses.replace(
        log, unit=np.array([9, 4, 9, 9, 4, 7]), is_challenger=np.array([1, 0, 1, 1, 0, 1], bool)
    )
    grouping = group_by_unit(keyed, 2, 100)
    assert grouping.kept.tolist() == [0, 1, 2, 4, 5]
    assert grouping.size.tolist() == [2.0, 2.0, 1.0]  # in the order of their last: 9, 4, 7
    assert grouping.is_challenger.tolist() == [True, False, True]
    assert grouping.sum_by_unit(np.array([1.0, 10.0, 2.0, 99.0, 20.0, 5.0])).tolist() == [3.0, 30.0, 5.0]
    assert group_by_unit(keyed, 2, 4).kept.tolist() == [0, 1, 2, 4]
    assert group_by_unit(keyed, 2, 3).size.tolist() == [2.0]


def test_decisions_that_share_a_unit_prove_less_than_as_many_apart() -> None:
    log = draw_log(4_000, lift=0.15, seed=3)
    unit = np.arange(4_000) // 4
    arm = log.is_challenger[unit * 4]
    weight = np.where(arm, 2.0, -2.0)
    keyed = dataclasses.replace(
        log, unit=unit, is_challenger=arm, increment=np.where(log.disagrees, weight * 0.15 * arm, 0.0)
    )
    apart = judge(dataclasses.replace(keyed, unit=np.arange(4_000)))
    together = judge(keyed, max_unit_size=4)
    assert together.n_units == 1_000
    assert together.n_decisions == 4_000
    assert together.estimate == pytest.approx(apart.estimate)
    assert 0.0 < together.lower < apart.lower


SIMPLEX = st.lists(st.floats(0.0, 1.0), min_size=3, max_size=3).filter(lambda raw: sum(raw) > 0.01)


@settings(deadline=None)
@given(SIMPLEX, SIMPLEX, st.floats(0.01, 0.99), st.integers(0, 2), st.data())
def test_the_bounds_hold_for_any_two_policies(
    one: list[float], other: list[float], share: float, chosen: int, data: st.DataObject
) -> None:
    gate = dataclasses.replace(GATE, reward_low=-1.0, reward_high=2.0, value_low=-0.5, value_high=1.5)
    q = np.array(data.draw(st.lists(st.floats(-0.5, 1.5), min_size=3, max_size=3)))
    reward = data.draw(st.floats(-1.0, 2.0))
    challenger, champion = np.array(one) / sum(one), np.array(other) / sum(other)
    propensity = (1 - share) * champion[chosen] + share * challenger[chosen]
    if propensity == 0.0:
        return
    log = LoggedDecisions(
        offsets=np.array([0, 3]),
        chosen=np.array([chosen]),
        propensity=np.array([min(propensity, 1.0)]),
        reward=np.array([reward]),
    )
    low, high = bound_increments(np.array([share]), gate)
    assert low[0] - 1e-9 <= evaluation.increments(log, challenger, champion, q)[0] <= high[0] + 1e-9


def test_the_worst_of_a_sure_challenger_reaches_within_the_models_range_of_the_bound() -> None:
    """The bound is no larger than it must be: a certain challenger that earns nothing where all was expected."""
    low, _ = bound_increments(np.array([0.1]), GATE)
    assert low[0] == pytest.approx(-11.0)  # the worst is -10: -1 / share
    narrow = dataclasses.replace(GATE, value_low=0.4, value_high=0.6)
    assert bound_increments(np.array([0.5]), narrow)[0][0] == pytest.approx(-1.4)
    lopsided = dataclasses.replace(GATE, value_low=0.7, value_high=0.9)
    low, high = bound_increments(np.array([0.1]), lopsided)
    assert (low[0], high[0]) == pytest.approx((-9.2, 3.2))


def test_the_gate_of_a_stream_follows_its_configuration() -> None:
    gate = build_gate(Gate(alpha=0.01, margin=0.5), Objective(low=-720.0, high=60.0), value_high=0.0)
    assert (gate.alpha, gate.margin, gate.reward_low, gate.reward_high) == (0.01, 0.5, -720.0, 60.0)
    assert gate.value_bounds == (-720.0, 0.0)
    assert gate.max_rises == {"failure": 0.05, "unanswered": 0.05}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: {"increment": np.full(log.n_decisions, np.nan)}, "increment must be finite, got nan at 0"),
        (lambda log: {"increment": np.full(log.n_decisions, 4.0)}, r"increment 4 of decision 0 lies outside .*-3, 3"),
        (lambda log: {"share": np.full(log.n_decisions, 0.2)}, "share must be a rung's"),
        (lambda log: {"share": np.full(log.n_decisions, 1.0)}, r"share must lie in \(0, 1\), got 1.0"),
        (lambda log: {"decided_at": log.decided_at[::-1].copy()}, "decided_at must never fall"),
        (lambda log: {"unit": np.zeros(log.n_decisions, np.int64)}, "share and arm must be the same"),
        (lambda _: {"harms": {}}, "guardrails without data: failure"),
        (lambda log: {"harms": {"failure": np.full(log.n_decisions, 2.0)}}, "must lie in .0, 1., got 2.0"),
        (lambda _: {"disagrees": np.zeros(1, bool)}, "disagrees must number 100, got 1"),
    ],
)
def test_data_that_cannot_carry_a_verdict_are_refused_by_name(
    change: Callable[[CanaryLog], dict[str, Any]], message: str
) -> None:
    log = draw_log(100)
    with pytest.raises(CanaryDataError, match=message):
        judge(dataclasses.replace(log, **change(log)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward_high": 0.0}, "bounds must nest"),
        ({"value_high": 1.5}, "bounds must nest"),
        ({"ladder": (Rung(share=1.0),)}, r"share must lie in \(0, 1\), got .1.0"),
        ({"ladder": ()}, "share must lie"),
        ({"alpha": 0.0}, "alpha must lie"),
        ({"margin": 1.0}, "margin must lie"),
        ({"min_decisions": 0}, "min_decisions must lie"),
        ({"max_unit_size": 0}, "max_unit_size must be at least 1, got 0"),
        ({"max_rises": {"failure": 2.0}}, "got 2.0"),
    ],
)
def test_a_gate_that_cannot_judge_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GATE, **change)


def test_one_broken_rule_ends_it_however_good_the_challenger_is() -> None:
    verdict = canary.judge(draw_log(4_000, lift=0.15), GATE, n_violations=1)
    assert (verdict.state, verdict.reasons[0]) == ("rollback", "policy: 1 decisions went where the rules forbid")


def silent(log: CanaryLog, *, in_arm: bool, share: float = 0.3) -> CanaryLog:
    """Let a share of one arm's outcomes never come."""
    lost = (log.is_challenger == in_arm) & (np.random.default_rng(5).uniform(size=log.n_decisions) < share)
    return dataclasses.replace(log, harms={**log.harms, "unanswered": lost.astype(np.float64)})


@pytest.mark.parametrize(("in_arm", "name"), [(True, "challenger"), (False, "champion")])
def test_p05_an_arm_whose_outcomes_go_missing_blocks_every_promotion(in_arm: bool, name: str) -> None:  # noqa: FBT001 - a parameter of the test
    verdict = judge(silent(draw_log(4_000, lift=0.15), in_arm=in_arm))
    assert verdict.state == "inconclusive"
    assert verdict.alerts[0].startswith(f"outcomes go missing in the {name}'s arm")
    assert verdict.needs_about_n_more is None


def test_p04_an_arm_whose_outcomes_come_late_blocks_every_promotion() -> None:
    log = silent(draw_log(4_000, lift=0.15), in_arm=True)
    late = dataclasses.replace(log, harms={"failure": log.harms["failure"], "late": log.harms["unanswered"]})
    verdict = judge(late)
    assert verdict.state == "inconclusive"
    assert verdict.alerts[0].startswith("outcomes come late in the challenger's arm")


def test_outcomes_that_go_missing_alike_block_nothing() -> None:
    log = draw_log(4_000, lift=0.15)
    lost = np.random.default_rng(5).uniform(size=4_000) < 0.3
    assert judge(dataclasses.replace(log, harms={**log.harms, "unanswered": lost * 1.0})).state == "promote"


def test_how_long_it_takes_follows_from_the_pace_of_the_last_day() -> None:
    log = draw_log(4_000, lift=0.06)
    slow = START + np.arange(4_000) * np.timedelta64(36, "s")
    early = take(dataclasses.replace(log, decided_at=slow), slice(3_000))
    verdict = judge(early, alpha=1e-9)
    assert verdict.state == "inconclusive"
    assert verdict.needs_about_n_more is not None
    assert verdict.needs_about_hours_more == pytest.approx(verdict.needs_about_n_more / 100.0, rel=0.01)
    assert "hours at the last day's pace" in verdict.reasons[0]


def test_every_guardrail_of_the_configuration_is_in_the_gate() -> None:
    plain = build_gate(Gate(), Objective())
    assert set(plain.max_rises) == {"failure", "unanswered"}
    full = build_gate(Gate(cost_limit_usd=2.0, max_cost_rise_share=0.1), Objective(sla_latency_ms=100.0))
    assert full.max_rises == {"failure": 0.05, "unanswered": 0.05, "slow": 0.05, "cost": 0.1}
