"""Audit: which version decided an event, who approved it, on what evidence, and what would have been done without it.

One question over the log and the ledger: the warehouse, or its latest snapshot while another process holds the file.
"""

from dataclasses import asdict, dataclass
from typing import Any

import msgspec
import numpy as np

from features import history, snapshot
from features.records import Decision
from features.warehouse import LockedWarehouseError, Source
from flows.wiring import Wiring
from models import policy, router
from models.releases.entry import Entry
from models.releases.history import History, fold

_SHORT = 12


class UnknownDecisionError(LookupError):
    """An event or decision that the log does not hold: names it, and where was looked."""


@dataclass(frozen=True, kw_only=True)
class Authority:
    """By what right a policy decided: the generation in force, the version behind it, and who released it on what evidence.

    ``version`` is the registry's, ``report`` the SHA-256 of the evidence that was approved; all empty for static routes.
    """

    arm: str
    generation: int
    digest: str = ""
    version: str = ""
    approver: str = ""
    report: str = ""
    began: str = ""
    promoted: str = ""


@dataclass(frozen=True, kw_only=True)
class Alternative:
    """What another policy would have done with the same event; ``probability`` is that of its likeliest choice."""

    policy: str
    destination: str
    probability: float
    known_from: str


def audit(
    wired: Wiring, *, event_id: str | None = None, decision_id: str | None = None, event_source: str | None = None
) -> list[dict[str, Any]]:
    """Return what is known of every decision about an event, oldest first; or of one decision.

    Raises
    ------
    UnknownDecisionError
        If the log holds none.
    DamagedLedgerError
        If the chain of the ledger does not hold: it then proves nothing.
    """
    source, place = _source(wired)
    decisions = _find(source, place, event_id=event_id, decision_id=decision_id, event_source=event_source)
    entries = list(wired.ledger.entries())
    wired.ledger.history()  # raises where the chain does not hold
    told = []
    for decision in decisions:
        past = fold(recorded for recorded in entries if recorded.entry.generation <= decision.generation)
        made_by = authority(decision, [r.entry for r in entries if r.entry.generation <= decision.generation])
        told.append(
            {
                "event": decision.event_id,
                "source": decision.event_source,
                "decision": decision.decision_id,
                "stream": decision.stream,
                "at": decision.decided_at.isoformat(),
                "assigned": decision.assigned,
                "propensity": decision.propensity,
                "reason": decision.reason,
                "policy_revision": decision.policy_revision,
                "authority": asdict(made_by),
                "would_have": [asdict(a) for a in alternatives(wired, decision, past)],
                "outcomes": [msgspec.to_builtins(o) for o in history.outcomes(source, decision.decision_id)],
                "read_from": place,
            }
        )
    return told


def authority(decision: Decision, entries: list[Entry]) -> Authority:
    """Return by what right ``decision`` was made, from the generations up to the one that was in force."""
    digest = {"champion": decision.champion, "challenger": decision.challenger}.get(decision.arm)
    if digest is None:
        return Authority(arm=decision.arm, generation=decision.generation)
    began = promoted = None
    before: Any = None
    for entry in entries:
        release = entry.streams.get(decision.stream)
        if release and release.canary == digest and (before is None or before.canary != digest):
            began, promoted = entry, None
        if release and release.champion == digest and (before is None or before.champion != digest):
            promoted = entry
        before = release
    said = began.evidence if began else {}
    return Authority(
        arm=decision.arm,
        generation=decision.generation,
        digest=digest,
        version=said.get("version", ""),
        approver=said.get("approver", ""),
        report=said.get("report", ""),
        began=_told(began),
        promoted=_told(promoted),
    )


def alternatives(wired: Wiring, decision: Decision, past: History) -> list[Alternative]:
    """Return what the static routes, the champion beside a canary, or the champion before would have done.

    What the shim scored stands in the log; the champion before is asked again, with the logged vectors.
    """
    named = {"static": "the static routes", "champion": f"the champion {(decision.champion or '')[:_SHORT]}"}
    logged = [
        _alternative(named[name], decision, np.asarray(decision.policies[name]), "the log")
        for name in ("champion", "static")
        if name in decision.policies and name != decision.arm
    ]
    line = past.lines.get(decision.stream, ())
    before = line[-2] if decision.arm == "champion" and len(line) > 1 else None
    return logged if before is None else [*_rescored(wired, decision, before), *logged]


def _rescored(wired: Wiring, decision: Decision, digest: str) -> list[Alternative]:
    """Return the choice of an earlier champion, if it can be asked: its bytes are whole and it reads these vectors."""
    try:
        wired.store.verify(digest)
        earlier = router.load(wired.store.path(digest))
    except (LookupError, ValueError):
        return []
    if earlier.feature_set != decision.feature_set or not decision.numbers:
        return []
    numbers = np.array(
        [[np.nan if cell is None else cell for cell in row] for row in decision.numbers], dtype=np.float64
    )
    value = earlier.score(numbers, decision.categories).value.tolist()
    eligible = [name not in decision.excluded for name in decision.destinations]
    told = f"the champion before, {digest[:_SHORT]}"
    return [_alternative(told, decision, policy.greedy(value, eligible), "asked again, without exploration")]


def _alternative(name: str, decision: Decision, distribution: Any, known_from: str) -> Alternative:
    best = int(np.argmax(distribution))
    return Alternative(
        policy=name,
        destination=decision.destinations[best],
        probability=float(distribution[best]),
        known_from=known_from,
    )


def _find(
    source: Source, place: str, *, event_id: str | None, decision_id: str | None, event_source: str | None
) -> list[Decision]:
    if decision_id is not None:
        one = history.decision(source, decision_id)
        found = [one] if one else []
    else:
        found = history.event_decisions(source, event_id or "", event_source=event_source)
    if not found:
        what = f"decision {decision_id!r}" if decision_id is not None else f"event {event_id!r}"
        of = f" of {event_source!r}" if event_source else ""
        raise UnknownDecisionError(f"no decision about {what}{of} in {place}: was it ingested (turnout ingest)?")
    return found


def _source(wired: Wiring) -> tuple[Source, str]:
    """Return the warehouse, or the latest snapshot while another process holds it, and what to call it."""
    if not wired.settings.warehouse_path.exists():  # opening it would make an empty one
        raise UnknownDecisionError(
            f"there is no warehouse at {wired.settings.warehouse_path}: nothing was ingested yet"
        )
    try:
        with wired.warehouse.transaction():
            return wired.warehouse, "the warehouse"
    except LockedWarehouseError:
        taken = snapshot.latest(wired.settings.snapshot_path)
        if taken is None:
            raise
        return taken, f"the snapshot of {taken.manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC (the warehouse is in use)"


def _told(entry: Entry | None) -> str:
    if entry is None:
        return ""
    return f"generation {entry.generation}, {entry.at:%Y-%m-%d %H:%M} UTC, by {entry.actor}: {entry.reason}"
