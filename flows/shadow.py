"""An approved router that scores a stream's events and decides none, before its canary begins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from features import history, log_table
from flows.wiring import Wiring
from models import evaluation, logged, policy
from models.card import read_card
from models.evaluation import Estimate, Refusal
from models.logged import LoggedDecisions
from models.releases import transitions
from models.releases.entry import Recorded
from validation import canary_table


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What a shadow would have done on ``n_decisions`` closed ones, and what that would have brought beside the champion."""

    n_decisions: int
    agreement_share: float
    difference: Estimate | Refusal | None


def approved(wired: Wiring, stream: str) -> Recorded | None:
    """Return the entry that made an approved router the stream's shadow, if that is what its shadow is."""
    since = wired.standing_since(stream, "shadow", wired.live(stream).shadow)
    return since if since is not None and "version" in since.entry.evidence else None


def observe(wired: Wiring, stream: str, since: Recorded) -> Observed:
    """Compare the stream's shadow with its champion on what was decided ``since`` it was released and is closed by now."""
    configured, digest = wired.configuration.streams[stream], wired.live(stream).shadow
    rewards = history.rewards(
        wired.warehouse, stream, objective=configured.objective, as_of=wired.now, since=since.entry.at
    )
    closed = rewards.filter(
        pc.and_(
            pc.and_(pc.equal(rewards["shadow"], digest), rewards["explored"]), pc.not_equal(rewards["status"], "open")
        )
    )
    if digest is None or not closed.num_rows:
        return Observed(n_decisions=0, agreement_share=float("nan"), difference=None)
    log = log_table.from_table(closed, configured.features, cluster_by=configured.cluster)
    card = read_card(wired.store.path(digest))
    champion = policy.greedy_log(log.policies.get("champion", log.policies["static"]), log.offsets)
    shadow = policy.greedy_log(log.policies["shadow"], log.offsets)
    decisions = LoggedDecisions(
        offsets=log.offsets,
        chosen=log.chosen,
        propensity=log.propensity,
        reward=configured.objective.clip(log.reward),
        cluster=log.cluster,
    )
    valued = canary_table.values(closed, log, (card.value_low, card.value_high), "shadow")
    return Observed(
        n_decisions=log.n_decisions,
        agreement_share=float(1.0 - logged.find_disagreements(decisions, shadow, champion).mean()),
        difference=evaluation.estimate_difference(decisions, shadow, champion, valued),
    )


def advance(wired: Wiring, stream: str, since: Recorded, *, dry_run: bool) -> dict[str, Any]:
    """Begin the canary of a shadow that was observed for long enough; else tell how it does."""
    seen, gate = observe(wired, stream, since), wired.configuration.streams[stream].gate
    report = {"state": "observing", "stream": stream, "shadow": wired.live(stream).shadow, **_tell(seen)}
    report |= {"shadow_decisions": gate.shadow_decisions, "generation": wired.generation}
    if dry_run or seen.n_decisions < gate.shadow_decisions:
        return report
    generation = wired.append(
        transitions.start_canary,
        stream=stream,
        digest=report["shadow"],
        share=gate.ladder[0].share,
        reason=f"{since.entry.reason}; observed on {seen.n_decisions:,} decisions",
        evidence=since.entry.evidence,
    )
    return {**report, "state": "canary_begun", "generation": generation}


def _tell(seen: Observed) -> Mapping[str, Any]:
    said: dict[str, Any] = {"n_decisions": seen.n_decisions}
    if np.isfinite(seen.agreement_share):
        said["agreement_share"] = round(seen.agreement_share, 4)
    if isinstance(seen.difference, Estimate):
        estimate = seen.difference
        said["difference"] = f"{estimate.value:+.4g} [{estimate.low:+.4g}, {estimate.high:+.4g}] per decision"
    elif seen.difference is not None:
        said["difference"] = f"not estimated: {seen.difference.explanation}"
    return said
