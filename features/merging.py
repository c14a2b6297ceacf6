"""One batch of rows into the warehouse, in one transaction: rules, quarantine, merge by key, progress of the source."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from features import columns
from features.config import Configuration
from features.readers import RawRow
from features.records import Decision, Outcome
from features.warehouse import Session, Warehouse

SKEW_MINUTES = 5.0  # clocks of brokers and shims may differ by so much
MAX_LATENCY_MS = 30 * 24 * 3_600_000.0  # a month: beyond, a unit was mixed up
_US_PER_MINUTE = 60_000_000

_QUARANTINE = pa.schema(
    {
        "source": pa.string(),
        "position": pa.int64(),
        "rule": pa.string(),
        "field": pa.string(),
        "message": pa.string(),
        "raw": pa.binary(),
        "raw_bytes": pa.int64(),
        "raw_digest": pa.string(),
        "quarantined_at": pa.timestamp("us", "UTC"),
    }
)


class Progress(NamedTuple):
    """How far a source has been read. ``digest`` says which content it had; it is empty for one that only grows."""

    digest: str
    position: int
    n_rows: int


class Fault(NamedTuple):
    """The rule that a row breaks, the field to blame where there is one, and the rule in words."""

    rule: str
    field: str | None
    message: str


@dataclass(kw_only=True)
class Merged:
    """What one batch came to. ``quarantined`` counts rows by (rule, field), ``extra_fields`` rows by a field no record has."""

    n_decisions: int = 0
    n_outcomes: int = 0
    n_duplicates: int = 0
    quarantined: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    extra_fields: Counter[str] = field(default_factory=Counter)


def read_progress(warehouse: Warehouse, source: str) -> Progress | None:
    """Return how far ``source`` has been read, None if never."""
    with warehouse.transaction() as session:
        rows = session.query("progress", source=source).to_pylist()
    return Progress(**rows[0]) if rows else None


def merge(
    warehouse: Warehouse,
    rows: Sequence[RawRow],
    configuration: Configuration,
    *,
    source: str,
    progress: Progress,
    now: datetime,
) -> Merged:
    """Store ``rows`` and the ``progress`` of their ``source`` in one transaction; whatever breaks a rule goes to quarantine.

    A record whose key is stored with the same payload is a duplicate; with another payload, a conflict: the first is
    kept. So order decides between two that contradict one another, and nothing else depends on it.

    Raises
    ------
    WarehouseError
        If the transaction failed: nothing of the batch is stored, and it can be merged again.
    """
    with warehouse.transaction() as session:
        batch = _Batch(session, rows, configuration, now)
        merged = batch.merge()
        session.execute("merge_progress", source=source, now=now, **progress._asdict())
    return merged


class _Batch:
    """The rows of one batch, by their place in it."""

    def __init__(self, session: Session, rows: Sequence[RawRow], configuration: Configuration, now: datetime) -> None:
        self._session = session
        self._rows = rows
        self._now = now
        self._faults: dict[int, Fault] = {}
        self._merged = Merged()
        self._parameters: Mapping[str, Any] = {
            "now": now,
            "skew_us": int(SKEW_MINUTES * _US_PER_MINUTE),
            "max_latency_ms": MAX_LATENCY_MS,
            "known_destinations": _destinations(configuration),
        }
        session.stage("known_streams", _streams(configuration))

    def merge(self) -> Merged:
        """Merge decisions before outcomes, so that an outcome finds a decision that came with it."""
        self._take_unreadable()
        self._merged.n_decisions = self._merge_kind("decision", self._decisions())
        impossible = self._settle() if self._merged.n_decisions else []
        self._merged.n_outcomes = self._merge_kind("outcome", self._outcomes())
        quarantined = [*(self._quarantined(place, fault) for place, fault in self._faults.items()), *impossible]
        if quarantined:
            self._session.stage("quarantined", pa.Table.from_pylist(quarantined, schema=_QUARANTINE))
            self._session.execute("merge_quarantine")
        self._merged.quarantined = Counter((row["rule"], row["field"]) for row in quarantined)
        self._merged.extra_fields = Counter(name for row in self._rows for name in row.extras)
        return self._merged

    def _take_unreadable(self) -> None:
        for place, row in enumerate(self._rows):
            if row.rule is not None:
                self._faults[place] = Fault(row.rule, row.field, row.error or row.rule)

    def _merge_kind(self, kind: str, staged: pa.Table) -> int:
        """Check, merge and compare the staged rows of one kind; return how many are new."""
        if not staged.num_rows:
            return 0
        session = self._session
        session.stage(f"staged_{kind}s", staged)
        broken = self._blame(session.query(f"{kind}_rules", **self._parameters))
        valid = staged.filter(pa.array([place not in broken for place in staged["place"].to_pylist()], pa.bool_()))
        session.stage(f"valid_{kind}s", valid)
        n_new = session.execute(f"merge_{kind}s") if valid.num_rows else 0
        conflicts = self._blame(session.query(f"{kind}_conflicts")) if n_new < valid.num_rows else set()
        self._merged.n_duplicates += valid.num_rows - n_new - len(conflicts)
        return n_new

    def _blame(self, broken: pa.Table) -> set[int]:
        """Note the faults that a query found by place."""
        faults = {row.pop("place"): Fault(**row) for row in broken.to_pylist()}
        self._faults |= faults
        return set(faults)

    def _settle(self) -> list[dict[str, Any]]:
        """Judge the outcomes that waited for decisions of this batch; return those to quarantine, as its rows."""
        impossible = self._session.query("impossible_outcomes", **self._parameters).to_pylist()
        if impossible:
            self._session.execute("drop_outcomes", outcome_keys=[row["outcome_key"] for row in impossible])
        self._session.execute("settle_outcomes")
        return [
            self._quarantine_row(
                row["source"],
                row["position"],
                row["pending_raw"],
                Fault("observed_before_decided", "observed_at", row["message"]),
            )
            for row in impossible
        ]

    def _decisions(self) -> pa.Table:
        places, records = _of_kind(self._rows, Decision)
        return columns.decision_table(records, place=pa.array(places, pa.int64()), **self._beside(places))

    def _outcomes(self) -> pa.Table:
        places, records = _of_kind(self._rows, Outcome)
        own = {
            "place": pa.array(places, pa.int64()),
            "position": pa.array([self._rows[place].position for place in places], pa.int64()),
            "raw": pa.array([self._rows[place].raw for place in places], pa.binary()),
        }
        return columns.outcome_table(records, **own, **self._beside(places))

    def _beside(self, places: Sequence[int]) -> dict[str, pa.Array]:
        rows = [self._rows[place] for place in places]
        extras = [_json_text(row.extras) if row.extras else None for row in rows]
        return {
            "source": pa.array([row.source for row in rows], pa.string()),
            "extras": pa.array(extras, pa.string()),
            "ingested_at": pa.array([self._now] * len(rows), pa.timestamp("us", "UTC")),
        }

    def _quarantined(self, place: int, fault: Fault) -> dict[str, Any]:
        row = self._rows[place]
        return self._quarantine_row(row.source, row.position, row.raw, fault) | {
            "raw_bytes": row.n_bytes,
            **({"raw_digest": row.digest} if row.digest else {}),
        }

    def _quarantine_row(self, source: str, position: int, raw: bytes, fault: Fault) -> dict[str, Any]:
        return {
            "source": source,
            "position": position,
            **fault._asdict(),
            "raw": raw,
            "raw_bytes": len(raw),
            "raw_digest": hashlib.sha256(raw).hexdigest(),
            "quarantined_at": self._now,
        }


def _of_kind(rows: Iterable[RawRow], kind: type[Any]) -> tuple[list[int], list[Any]]:
    found = [(place, row.record) for place, row in enumerate(rows) if isinstance(row.record, kind)]
    return [place for place, _ in found], [record for _, record in found]


def _streams(configuration: Configuration) -> pa.Table:
    windows = [int(s.objective.window_minutes * _US_PER_MINUTE) for s in configuration.streams.values()]
    return pa.table(
        {"stream": pa.array(configuration.streams, pa.string()), "window_us": pa.array(windows, pa.int64())}
    )


def _destinations(configuration: Configuration) -> list[str]:
    refusals = (stream.refusal for stream in configuration.streams.values())
    return list(dict.fromkeys([*configuration.destinations, *filter(None, refusals)]))


def _json_text(extras: Mapping[str, bytes]) -> str:
    return msgspec.json.encode({name: msgspec.Raw(value) for name, value in sorted(extras.items())}).decode()
