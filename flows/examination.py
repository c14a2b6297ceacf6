"""What a reviewer is shown of a router beside the comparison: slices, cases, what the whole load would do, and drift."""

from dataclasses import asdict, dataclass, replace
from datetime import UTC

import numpy as np

from features import history
from features.decision_log import DecisionLog
from features.training_log import TrainingLog
from flows import pinning
from flows.wiring import Wiring
from models import comparison, findings, router, tariff
from models.comparison import AS_LOGGED, Champion
from models.findings import Findings
from models.router import Router
from models.tariff import Tariff
from validation import drift, load_shift
from validation.load_shift import LoadShift

_N_WORDS = 6
_HOUR = np.timedelta64(1, "h")


@dataclass(frozen=True, kw_only=True)
class Opponent:
    """What a candidate is judged against, and the part of the holdout on which it can be."""

    champion: Champion
    tariff: Tariff | None
    holdout: DecisionLog


def find_opponent(wired: Wiring, stream: str, holdout: DecisionLog) -> Opponent:
    """Return the live champion of ``stream``; None are the static routes.

    A champion that pins another classifier cannot be scored again from vectors that hold this one's answers: it is
    compared as it was logged, on the decisions that it took part in.

    Raises
    ------
    ValueError
        If there are none of those.
    """
    digest = wired.live(stream).champion
    if digest is None:
        return Opponent(champion=None, tariff=None, holdout=holdout)
    if wired.store.verify(digest).pins == pinning.pins(wired, stream):
        champion = router.load(wired.store.path(digest))
        return Opponent(champion=champion, tariff=tariff.load(wired.store.path(digest), champion.card), holdout=holdout)
    took_part = np.asarray(holdout.champion == digest)
    if not took_part.any():
        raise ValueError(f"the champion {digest} pins another classifier, and took part in none of the holdout")
    return Opponent(champion=AS_LOGGED, tariff=None, holdout=holdout.take(took_part))


def examine(wired: Wiring, stream: str, log: TrainingLog, candidate: Router, priced: Tariff | None) -> Findings:
    """Return what is found of ``candidate`` on the later part of ``log``, against what decides today."""
    opponent = find_opponent(wired, stream, log.holdout)
    baseline = comparison.champion_distribution(opponent.holdout, opponent.champion, opponent.tariff)
    found, target = findings.examine(opponent.holdout, candidate, priced, baseline)
    traffic = events_per_hour(wired, stream, opponent.holdout)
    shifts = measure_load(wired, opponent.holdout, target, baseline, traffic)
    configured = wired.configuration.streams[stream]
    silent = np.full(log.holdout.n_decisions, np.nan)  # of the candidate, calibration is judged in the comparison
    moved = drift.judge(log.training, log.holdout, silent, configured.features, configured.drift)
    return replace(
        found,
        load_shift=tuple(asdict(shift) for shift in shifts),
        load_words=tuple(str(shift) for shift in _noteworthy(shifts)),
        drift=asdict(moved),
        drift_words=moved.reasons[:_N_WORDS],
    )


def measure_load(
    wired: Wiring,
    log: DecisionLog,
    target: findings.Floats,
    baseline: findings.Floats,
    traffic: float | None,
) -> tuple[LoadShift, ...]:
    """Return what ``target`` would send where if it decided all of ``traffic`` (`events_per_hour`), beside ``baseline``."""
    return load_shift.shift_load(
        baseline,
        target,
        log.destination.codes,
        log.destination.values,
        n_decisions=log.n_decisions,
        events_per_hour=traffic,
        capacities=capacities(wired),
    )


def capacities(wired: Wiring) -> dict[str, float]:
    """Return what the destinations can take in an hour, of those that say so."""
    known = {name: of.capacity_per_hour for name, of in wired.configuration.destinations.items()}
    return {name: capacity for name, capacity in known.items() if capacity is not None}


def events_per_hour(wired: Wiring, stream: str, log: DecisionLog) -> float | None:
    """Return the stream's traffic while ``log`` was written, of whose decisions it may hold a part; None of a single instant."""
    since, until = (instant.astype("datetime64[us]").item() for instant in (log.decided_at.min(), log.decided_at.max()))
    n_decisions = history.count_decisions(
        wired.warehouse, stream, since=since.replace(tzinfo=UTC), until=until.replace(tzinfo=UTC)
    )
    span = (log.decided_at.max() - log.decided_at.min()) / _HOUR
    return n_decisions / span if span > 0 else None


def _noteworthy(shifts: tuple[LoadShift, ...]) -> tuple[LoadShift, ...]:
    """Return what is beyond its capacity first, then what grows most."""
    return tuple(sorted(shifts, key=lambda shift: shift.verdict != "beyond"))[:_N_WORDS]
