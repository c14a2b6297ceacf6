"""The live canary of a stream: looked at, it climbs, wins, waits or is withdrawn."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from features import history
from flows.wiring import Wiring
from models import intervals
from models.card import read_card
from models.releases import transitions
from validation import canary, canary_gate, canary_table
from validation.canary import Verdict
from validation.canary_gate import CanaryGate
from validation.canary_log import CanaryLog

COMPLIANCE_CONFIDENCE = 0.95


class LadderError(ValueError):
    """A ladder that was changed under a live canary: names the stream and the share."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """One look at a live canary; of ``n_audited`` decisions in its arm ``n_violations`` broke the policy."""

    log: CanaryLog
    gate: CanaryGate
    verdict: Verdict
    n_audited: int
    n_violations: int

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
    began_at = began(wired, stream, canary_digest)
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
    return Look(log=log, gate=gate, verdict=verdict, n_audited=n_audited, n_violations=n_violations)


def act(wired: Wiring, stream: str, seen: Look, *, dry_run: bool) -> dict[str, Any]:
    """Do what the verdict says: promote, withdraw, climb a rung, or wait.

    A gate in ``dry_run`` only tells; one that is ``disabled`` promotes whatever the verdict is.

    Raises
    ------
    LadderError
        If the canary's share is on no rung any more.
    """
    live, verdict, mode = wired.live(stream), seen.verdict, wired.configuration.streams[stream].gate.mode
    report = {"stream": stream, "canary": live.canary, **asdict(verdict), "share": live.canary_share, "gate": mode}
    report |= {"compliance": seen.compliance, "generation": wired.generation}
    if mode == "disabled":
        step, what = transitions.promote, {"stream": stream, "reason": "the gate is disabled: promoted unproven"}
        return (
            report if dry_run else {**report, "state": "promote", "generation": wired.append(step, **what, evidence={})}
        )
    following = _following(stream, live.canary_share, seen)
    if dry_run or mode == "dry_run" or (verdict.state in ("inconclusive", "no_data") and following is None):
        return report
    said = {"verdict": verdict.state, "e_value": f"{verdict.e_value:.6g}", "n_decisions": str(verdict.n_decisions)}
    why: dict[str, Any] = {"stream": stream, "reason": "; ".join(verdict.reasons), "evidence": said}
    if verdict.state == "promote":
        return {**report, "generation": wired.append(transitions.promote, **why)}
    if verdict.state == "rollback":
        return {**report, "generation": wired.append(transitions.withdraw, **why)}
    generation = wired.append(transitions.advance_canary, share=following, **why)
    return {**report, "state": "advanced", "share": following, "generation": generation}


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


def began(wired: Wiring, stream: str, canary_digest: str) -> datetime | None:
    """Return when the canary that is live now began: an earlier try of the same bytes is another canary."""
    began_at = None
    for recorded in wired.ledger.entries():
        release = recorded.entry.streams.get(stream)
        if release is None or release.canary != canary_digest:
            began_at = None
        elif began_at is None:
            began_at = recorded.entry.at
    return began_at
