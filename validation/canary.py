"""The canary's judge: pure, a log of closed decisions in, a verdict with its reasons and numbers out.

The units of all rungs form one sequence, and each look judges all of it again: what was refuted stays refuted, so
looking more often costs nothing and a verdict does not depend on when it was asked for. An alarm in view, from a
guardrail or from the sample ratio, blocks a promotion whenever it rang.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from models import betting
from models.betting import Units
from validation import guardrails
from validation.canary_gate import CanaryGate, bound_increments
from validation.canary_log import CanaryDataError, CanaryLog, Grouping, group_by_unit

Floats = NDArray[np.float64]
State = Literal["promote", "rollback", "inconclusive", "no_data"]
_DAY = np.timedelta64(24, "h")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What to do with the challenger, and what that rests on.

    ``estimate``, ``lower`` and ``upper`` are the challenger's gain per decision in units of the reward (without data NaN
    and infinite); each limit holds at all times with confidence 1 - alpha, both together with 1 - 2 * alpha. ``e_value``
    is the evidence for promotion, ``harm_e_value`` for rollback; either decides at ``1 / alpha``. An open case would be
    decided by ``needs_about_n_more`` decisions if it goes on as it went, at the pace of the last day in
    ``needs_about_hours_more``; None if that cannot be said. ``alerts`` want a person.
    """

    state: State
    reasons: tuple[str, ...]
    alerts: tuple[str, ...] = ()
    n_decisions: int
    n_units: int
    n_disagreements: int
    estimate: float
    lower: float
    upper: float
    e_value: float
    harm_e_value: float
    needs_about_n_more: int | None = None
    needs_about_hours_more: float | None = None


@dataclass(frozen=True, kw_only=True)
class _Findings:
    """What the sequences say: the unit at which each claim was settled, if it was, who rang, and what is still to come."""

    violation: str
    promoted_at: int | None
    harmed_at: int | None
    breaches: tuple[str, ...]
    alerts: tuple[str, ...]
    ending: str
    n_disagreements: int
    n_more: int | None
    pace: float | None


def judge(log: CanaryLog, gate: CanaryGate, *, is_expired: bool = False, n_violations: int = 0) -> Verdict:
    """Judge the challenger on all that is closed so far.

    ``is_expired`` says that its deadline has passed, ``n_violations`` how many of its decisions broke the policy: one ends it.

    Raises
    ------
    CanaryDataError
        If an increment lies outside its declared bounds, a share is not on the ladder, or a guardrail has no data.
    """
    _check(log, gate)
    grouping = group_by_unit(log, gate.max_unit_size, gate.max_decisions)
    gain = _gain(log, grouping, gate)
    wealth = betting.log_wealth(gain, -gate.margin)
    harm_wealth = betting.log_wealth(gain.mirrored(), gate.margin)
    findings = _Findings(
        violation=f"policy: {n_violations:,} decisions went where the rules forbid" if n_violations else "",
        promoted_at=_settle(wealth, gain, gate),
        harmed_at=betting.first_crossing(harm_wealth, gate.alpha),
        breaches=guardrails.find_breaches(log, grouping, gate.max_rises, gate.alpha, gate.max_unit_size),
        alerts=(
            *guardrails.find_skew(grouping, gate.ratio_alpha),
            *guardrails.find_silence(log, grouping, gate.ratio_alpha, gate.max_unit_size),
        ),
        ending=_end(grouping, gate, is_expired=is_expired),
        n_disagreements=int(log.disagrees[grouping.kept].sum()),
        n_more=_n_decisions_to_come(gain, gate),
        pace=_pace(log),
    )
    return _report(findings, gain, gate, betting.e_value(wealth), betting.e_value(harm_wealth))


def measure_gain(log: CanaryLog, gate: CanaryGate) -> Units:
    """Return what each unit shows of the challenger's gain, in the order in which they count."""
    return _gain(log, group_by_unit(log, gate.max_unit_size, gate.max_decisions), gate)


def next_rung(verdict: Verdict, log: CanaryLog, gate: CanaryGate, rung: int) -> int:
    """Return the index of the rung that follows look and ``verdict``: one up after its dwell if nothing is wrong, else ``rung``.

    The dwell counts closed decisions at the rung's own share. No rung follows the last.
    """
    current = gate.ladder[rung]
    n_dwelt = int(np.isclose(log.on_rung, current.share).sum())
    is_calm = verdict.state in ("inconclusive", "no_data") and not verdict.alerts
    return rung + 1 if is_calm and n_dwelt >= current.min_decisions and rung + 1 < len(gate.ladder) else rung


def _check(log: CanaryLog, gate: CanaryGate) -> None:
    shares = np.array([rung.share for rung in gate.ladder])
    stray = ~np.isclose(log.on_rung[:, None], shares).any(axis=1)
    if stray.any():
        raise CanaryDataError(f"share must be a rung's, one of {shares.tolist()}, got {log.on_rung[stray][0]}")
    low, high = bound_increments(log.share, gate)
    slack = 1e-9 * (high - low)
    outside = (log.increment < low - slack) | (log.increment > high + slack)
    if outside.any():
        at = int(np.argmax(outside))
        raise CanaryDataError(
            f"increment {log.increment[at]:g} of decision {at} lies outside its bounds [{low[at]:g}, {high[at]:g}]: "
            "a reward or a prediction was not clipped, or the share is not the one that was drawn with"
        )
    if missing := sorted(set(gate.max_rises) - set(log.harms)):
        raise CanaryDataError(f"guardrails without data: {', '.join(missing)}")


def _gain(log: CanaryLog, grouping: Grouping, gate: CanaryGate) -> Units:
    low, high = bound_increments(grouping.share, gate)
    total = grouping.sum_by_unit(log.increment)
    return Units(total=total, size=grouping.size, low=low, high=high, max_size=gate.max_unit_size)


def _settle(wealth: Floats, gain: Units, gate: CanaryGate) -> int | None:
    """Return the unit at which promotion was both proven and old enough, or None."""
    crossed_at = betting.first_crossing(wealth, gate.alpha)
    grown_at = int(np.searchsorted(np.cumsum(gain.size), gate.min_decisions))
    return None if crossed_at is None or grown_at >= len(gain.size) else max(crossed_at, grown_at)


def _end(grouping: Grouping, gate: CanaryGate, *, is_expired: bool) -> str:
    """Return why no more decisions may be waited for, or nothing."""
    if grouping.is_full:
        return f"{gate.max_decisions:,} decisions did not suffice"
    return "the deadline has passed" if is_expired else ""


def _n_decisions_to_come(gain: Units, gate: CanaryGate) -> int | None:
    n_decisions = float(gain.size.sum())
    either = (
        betting.n_units_to_come(gain, -gate.margin, gate.alpha),
        betting.n_units_to_come(gain.mirrored(), gate.margin, gate.alpha),
    )
    known = [n_units for n_units in either if n_units is not None]
    if not known:
        return None
    return max(math.ceil(min(known) * n_decisions / len(gain.size)), gate.min_decisions - int(n_decisions))


def _pace(log: CanaryLog) -> float | None:
    """Return how many decisions an hour of the last day brought; None if that cannot be told."""
    if log.n_decisions < 2:  # noqa: PLR2004 - one instant has no pace
        return None
    last = log.decided_at[-1]
    recent = log.decided_at[log.decided_at > last - _DAY]
    hours = (last - recent[0]) / np.timedelta64(1, "h")
    return float((len(recent) - 1) / hours) if hours > 0.0 else None


def _report(findings: _Findings, gain: Units, gate: CanaryGate, e_value: float, harm_e_value: float) -> Verdict:
    state, reason = _conclude(findings, gate)
    lower, upper = betting.lower_limit(gain, gate.alpha), betting.upper_limit(gain, gate.alpha)
    n_decisions, is_open = int(gain.size.sum()), state == "inconclusive" and not findings.alerts
    n_more = findings.n_more if is_open else None
    estimate = float(gain.total.sum()) / n_decisions if n_decisions else math.nan
    numbers = (
        f"gain {estimate:+.4g} per decision, within ({lower:+.4g}, {upper:+.4g}) at alpha {gate.alpha:g} a side; "
        f"{n_decisions:,} decisions, preferences differ on {findings.n_disagreements:,}"
    )
    return Verdict(
        state=state,
        reasons=(reason, numbers) if n_decisions else (reason,),
        alerts=findings.alerts,
        n_decisions=n_decisions,
        n_units=len(gain.total),
        n_disagreements=findings.n_disagreements,
        estimate=estimate,
        lower=lower,
        upper=upper,
        e_value=e_value,
        harm_e_value=harm_e_value,
        needs_about_n_more=n_more,
        needs_about_hours_more=n_more / findings.pace if n_more is not None and findings.pace else None,
    )


def _conclude(findings: _Findings, gate: CanaryGate) -> tuple[State, str]:
    """Return the state and its reason."""
    if acted := _act(findings, gate):
        return acted
    if findings.alerts:
        return "inconclusive", "the arms cannot be compared: " + "; ".join(findings.alerts)
    if not findings.n_disagreements:
        return "no_data", "no closed decision on which the preferences differ"
    if findings.n_more is None:
        return "inconclusive", "the evidence points neither way yet"
    hours = f", about {findings.n_more / findings.pace:,.1f} hours at the last day's pace" if findings.pace else ""
    return (
        "inconclusive",
        f"needs about {findings.n_more:,} more decisions{hours}; {gate.max_decisions:,} at the most will be counted",
    )


def _act(findings: _Findings, gate: CanaryGate) -> tuple[State, str] | None:
    """Return what is to be done with the challenger, if anything; what protects comes before what promotes."""
    promoted_at, harmed_at = findings.promoted_at, findings.harmed_at
    if findings.violation:
        return "rollback", findings.violation
    if findings.breaches:
        return "rollback", "guardrail: " + "; ".join(findings.breaches)
    if harmed_at is not None and (promoted_at is None or harmed_at <= promoted_at):
        return "rollback", f"the gain is below {0.0 - gate.margin:g}, proven at unit {harmed_at + 1:,}"
    if promoted_at is not None and not findings.alerts:
        return "promote", f"the gain is above {0.0 - gate.margin:g}, proven at unit {promoted_at + 1:,}"
    if findings.ending:
        return "rollback", f"withdrawn: {findings.ending}"
    return None
