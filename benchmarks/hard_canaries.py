"""Canaries of a world that is against them, for `benchmarks.gate`: outcomes late or lost, drift, and shared capacity.

Challenger and champion choose differently on half the events and are worth the same, unless it is said otherwise; the
product's own judge looks every 2,000 decisions. Each world is judged beside a gate without the part that stands against it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.choices import Gate, Rung
from features.objective import Objective
from models import intervals
from validation import canary, canary_gate
from validation.canary_log import CanaryLog

Floats = NDArray[np.float64]

N_DECISIONS, LOOK_EVERY, SHARE, SUCCESS = 20_000, 2_000, 0.1, 0.85
LATE = 2_000  # decisions that pass until a late outcome comes
LOST_SHARE = 0.1  # of the champion's outcomes
SWING = 0.3  # of the success rate, over the canary's life
HEADROOM, CONGESTION = 0.05, 0.1  # what the challenger's destination gains while idle, and loses at full load
_GATE = canary_gate.build_gate(
    Gate(ladder=(Rung(share=SHARE),), max_decisions=2 * N_DECISIONS, max_failure_rise=1.0, max_unanswered_rise=1.0),
    Objective(),
)
_BEGINS_AT = np.datetime64("2026-01-01T00:00:00", "s")


@dataclass(frozen=True, kw_only=True)
class Played:
    """All decisions of a canary, and after how many decisions each outcome was known."""

    log: CanaryLog
    known_after: NDArray[np.int64]

    def closed(self, n: int) -> CanaryLog:
        """Return what the product counts when ``n`` decisions were made: those before the first that is open."""
        is_open = self.known_after[:n] > n
        return _take(self.log, slice(int(is_open.argmax()) if is_open.any() else n))

    def arrived(self, n: int) -> CanaryLog:
        """Return whatever has come by then, as one counts who does not wait."""
        return _take(self.log, np.flatnonzero(self.known_after[:n] <= n))


def late_failures(rng: np.random.Generator) -> Played:
    """Let the challenger's failures be known late."""
    played = _play(rng)
    failed = played.log.is_challenger & (played.log.harms["failure"] > 0.0)
    return replace(played, known_after=played.known_after + LATE * failed)


def lost_outcomes(rng: np.random.Generator) -> Played:
    """Let a tenth of the champion's outcomes never come: they take the default, which is a failure."""
    return _play(rng, lost_share=LOST_SHARE)


def drift(rng: np.random.Generator) -> Played:
    """Let what both earn swing up and down together."""
    return _play(rng, success=SUCCESS - SWING / 2 + SWING / 2 * np.cos(np.linspace(0.0, 6.0 * np.pi, N_DECISIONS)))


def shared_capacity(rng: np.random.Generator) -> Played:
    """Let the challenger's destination do better while it is idle, and worse once all that it wants is sent there.

    At this share it gains ``HEADROOM - CONGESTION * SHARE``, at 100 % it loses: no canary can see that, its arms share
    the destination.
    """
    return _play(rng, lift=HEADROOM - CONGESTION * SHARE)


WORLDS: dict[str, Callable[[np.random.Generator], Played]] = {
    "late_failures": late_failures,
    "lost_outcomes": lost_outcomes,
    "drift": drift,
    "shared_capacity": shared_capacity,
}


def measure(name: str, n_runs: int, rng: np.random.Generator) -> dict[str, Any]:
    """Return how often the challenger is promoted by the product, and by a gate that does not guard against this world."""
    promoted = careless = 0
    for _ in range(n_runs):
        played = WORLDS[name](rng)
        promoted += _is_promoted(played.closed)
        unguarded = Played(
            log=replace(played.log, harms={**played.log.harms, "unanswered": np.zeros(N_DECISIONS)}),
            known_after=played.known_after,
        )
        careless += _is_promoted(unguarded.arrived)
    found: dict[str, Any] = {
        "promoted": round(promoted / n_runs, 4),
        "upper_99": round(intervals.rate_limit(promoted, n_runs, 0.99), 4),
        "promoted_unguarded": round(careless / n_runs, 4),
        "runs": n_runs,
    }
    return found | ({"gain_at_100": round(HEADROOM - CONGESTION, 4)} if name == "shared_capacity" else {})


def _is_promoted(seen: Callable[[int], CanaryLog]) -> bool:
    for n in range(LOOK_EVERY, N_DECISIONS + 1, LOOK_EVERY):
        verdict = canary.judge(seen(n), _GATE)
        if verdict.state in ("promote", "rollback"):
            return verdict.state == "promote"
    return False


def _play(
    rng: np.random.Generator, *, success: Floats | float = SUCCESS, lift: float = 0.0, lost_share: float = 0.0
) -> Played:
    n = N_DECISIONS
    arm, differs = rng.uniform(size=n) < SHARE, rng.uniform(size=n) < 0.5  # noqa: PLR2004 - half, as the module says
    won = rng.uniform(size=n) < success + lift * (arm & differs)
    lost = ~arm & (rng.uniform(size=n) < lost_share)
    reward = (won & ~lost).astype(np.float64)
    weight = np.where(arm, 1.0 / SHARE, -1.0 / (1.0 - SHARE))
    log = CanaryLog(
        decided_at=_BEGINS_AT + np.arange(n),
        unit=np.arange(n),
        share=np.full(n, SHARE),
        is_challenger=arm,
        increment=np.where(differs, weight * (reward - SUCCESS), 0.0),
        disagrees=differs,
        harms={"failure": 1.0 - reward, "unanswered": lost.astype(np.float64)},
    )
    return Played(log=log, known_after=np.arange(1, n + 1))


def _take(log: CanaryLog, kept: slice | NDArray[np.int64]) -> CanaryLog:
    columns = {name: getattr(log, name)[kept] for name in ("decided_at", "unit", "share", "is_challenger")}
    harms = {name: harm[kept] for name, harm in log.harms.items()}
    return CanaryLog(**columns, increment=log.increment[kept], disagrees=log.disagrees[kept], harms=harms)
