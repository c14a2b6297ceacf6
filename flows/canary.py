"""The live canary of a stream: looked at, it climbs, wins, waits or is withdrawn."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from features import history, log_table
from flows import examination
from flows.wiring import Wiring
from models import intervals
from models.card import read_card
from models.releases import transitions
from models.releases.entry import Entry
from validation import canary, canary_gate, canary_table
from validation.canary import Verdict
from validation.canary_gate import CanaryGate
from validation.canary_log import CanaryLog
from validation.load_shift import LoadShift

COMPLIANCE_CONFIDENCE = 0.95
_DAY = timedelta(hours=24)
_ENDS: Mapping[str, Callable[..., Entry]] = {"promote": transitions.promote, "rollback": transitions.withdraw}


class LadderError(ValueError):
    """A ladder that was changed under a live canary: names the stream and the share."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a live canary; of ``n_audited`` decisions in its arm ``n_violations`` broke the policy.

    ``loads`` tell, by the challenger's share, what each destination would get: of every rung, and of 1, its promotion.
    """

    log: CanaryLog
    gate: CanaryGate
    verdict: Verdict
    n_audited: int
    n_violations: int
    loads: Mapping[float, tuple[LoadShift, ...]]

    def overload(self, share: float) -> tuple[str, ...]:
        """Say which destinations cannot take what the challenger's ``share`` (1 once it is promoted) would send them."""
        return tuple(str(shift) for shift in self.loads.get(share, ()) if shift.verdict == "beyond")

    @property
    def compliance(self) -> str:
        """What the audit bears out, exactly."""
        limit = intervals.rate_limit(self.n_violations, self.n_audited, COMPLIANCE_CONFIDENCE)
        return (
            f"{self.n_violations:,} of {self.n_audited:,} audited decisions broke the policy: "
            f"at least {1.0 - limit:.3%} comply ({COMPLIANCE_CONFIDENCE:.0%}, exact)"
        )


def look(wired: Wiring, stream: str) -> Look:
    """Judge the live canary of ``stream`` on all that is closed by now."""
    configured, canary_digest = wired.configuration.streams[stream], wired.canary(stream)
    since = wired.standing_since(stream, "canary", canary_digest)  # an earlier try of the same bytes is another canary
    began_at = None if since is None else since.entry.at
    rewards = history.rewards(
        wired.warehouse,
        stream,
        objective=configured.objective,
        as_of=wired.now,
        since=began_at,
    )
    card = read_card(wired.store.path(canary_digest))
    bounds = (card.value_low, card.value_high)
    log = canary_table.canary_log(canary_table.closed_prefix(rewards, canary_digest), configured, bounds)
    gate = canary_gate.build_gate(
        configured.gate,
        configured.objective,
        value_low=bounds[0],
        value_high=bounds[1],
        max_unit_size=configured.gate.max_key_decisions if configured.sticky else 1,
    )
    n_violations = _count_violations(wired, stream, canary_digest, began_at)
    n_audited = canary_table.count_arm(rewards, canary_digest) + n_violations
    deadline = timedelta(hours=configured.gate.deadline_hours)
    is_expired = began_at is not None and wired.now - began_at > deadline
    verdict = canary.judge(log, gate, is_expired=is_expired, n_violations=n_violations)
    loads = _loads(wired, stream, rewards, canary_digest)
    return Look(log=log, gate=gate, verdict=verdict, n_audited=n_audited, n_violations=n_violations, loads=loads)


def act(wired: Wiring, stream: str, seen: Look, *, dry_run: bool) -> dict[str, Any]:
    """Do what the verdict says: promote, withdraw, climb a rung, or wait.

    A gate in ``dry_run`` only tells; one that is ``disabled`` promotes whatever the verdict is. While the stream is paused
    nothing climbs and nothing wins; what harms is withdrawn. Nor does anything climb or win that would send a destination
    more than it can take: a canary does not show what its whole load will do.

    Raises
    ------
    LadderError
        If the canary's share is on no rung any more.
    """
    live, verdict, mode = wired.live(stream), seen.verdict, wired.configuration.streams[stream].gate.mode
    report = {"stream": stream, "canary": live.canary, **asdict(verdict), "share": live.canary_share, "gate": mode}
    report |= {"compliance": seen.compliance, "generation": wired.generation}
    step = _next_step(stream, live.canary_share, seen, is_disabled=mode == "disabled")
    if step is None or dry_run or mode == "dry_run":
        return report
    if hold := _find_hold(wired, stream, seen, step):
        return {**report, **hold}
    said = {"verdict": verdict.state, "e_value": f"{verdict.e_value:.6g}", "n_decisions": str(verdict.n_decisions)}
    why: dict[str, Any] = {"stream": stream, "reason": step.reason, "evidence": said}
    generation = wired.append(step.transition, **why, **step.choices)
    return {**report, "state": step.state, **step.choices, "generation": generation}


@dataclass(frozen=True, kw_only=True)
class _Step:
    """What a look leads to: its name in the report, the transition with its choices, and why."""

    state: str
    transition: Callable[..., Entry]
    reason: str
    choices: Mapping[str, Any] = field(default_factory=dict)


def _next_step(stream: str, share: float, seen: Look, *, is_disabled: bool) -> _Step | None:
    if is_disabled:
        reason = "the gate is disabled: promoted unproven"
        return _Step(state="promote", transition=transitions.promote, reason=reason)
    verdict, reason = seen.verdict, "; ".join(seen.verdict.reasons)
    if (end := _ENDS.get(verdict.state)) is not None:
        return _Step(state=verdict.state, transition=end, reason=reason)
    following = _following(stream, share, seen)
    if following is None:
        return None
    return _Step(state="advanced", transition=transitions.advance_canary, reason=reason, choices={"share": following})


def _find_hold(wired: Wiring, stream: str, seen: Look, step: _Step) -> dict[str, Any]:
    """Return what keeps a step from being taken, if anything; nothing keeps harm from being withdrawn."""
    if step.state == "rollback":
        return {}
    if (held := wired.ledger.history().paused.get(stream)) is not None:
        return {"state": "paused", "paused": held.said_by}
    overload = seen.overload(step.choices.get("share", 1.0))
    return {"state": "held", "overload": overload} if overload else {}


def _loads(wired: Wiring, stream: str, rewards: pa.Table, challenger: str) -> dict[float, tuple[LoadShift, ...]]:
    """Return, by share, what the last day's events would have sent where; nothing where no capacity is known to hold it to."""
    configured = wired.configuration.streams[stream]
    lately = pc.greater(rewards["decided_at"], pa.scalar(wired.now - _DAY, rewards.schema.field("decided_at").type))
    took_part = pc.and_(pc.equal(rewards["challenger"], challenger), rewards["explored"])
    recent = rewards.filter(pc.and_(lately, took_part))
    if not recent.num_rows or not examination.capacities(wired):
        return {}
    log = log_table.from_table(recent, configured.features, cluster_by="decision")
    today, full = log.policies.get("champion", log.policies["static"]), log.policies["challenger"]
    traffic = examination.events_per_hour(wired, stream, log)
    shares = [*(rung.share for rung in configured.gate.ladder), 1.0]
    targets = {share: (1.0 - share) * today + share * full for share in shares}
    return {share: examination.measure_load(wired, log, target, today, traffic) for share, target in targets.items()}


def _count_violations(wired: Wiring, stream: str, challenger: str, since: datetime | None) -> int:
    """Count the challenger's decisions that went where the rules forbid: an outcome does not undo them, nor a window."""
    broken = (made for made in history.violations(wired.warehouse) if (made.stream, made.arm) == (stream, "challenger"))
    return sum(made.challenger == challenger and (since is None or made.decided_at >= since) for made in broken)


def _following(stream: str, share: float, seen: Look) -> float | None:
    """Return the share that the canary climbs to now, None where it stays."""
    shares = [rung.share for rung in seen.gate.ladder]
    if share not in shares:
        raise LadderError(f"streams.{stream}.gate.ladder has no rung of {share:g}, the live canary's share")
    following = shares[canary.next_rung(seen.verdict, seen.log, seen.gate, shares.index(share))]
    return None if following == share else following


def cools_until(wired: Wiring, stream: str) -> datetime | None:
    """Return until when no canary of ``stream`` may begin, since one was just withdrawn or a champion rolled back."""
    ended_at, before = None, None
    for recorded in wired.ledger.entries():
        release = recorded.entry.streams.get(stream)
        if recorded.entry.action in ("withdraw", "rollback") and release != before:
            ended_at = recorded.entry.at
        before = release
    if ended_at is None:
        return None
    until = ended_at + timedelta(hours=wired.configuration.streams[stream].gate.cooldown_hours)
    return until if until > wired.now else None
