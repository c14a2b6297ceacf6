"""The records as Arrow columns and back: the one place that knows how a record lies in a table."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from features.records import Decision, Outcome, Record, outcome_key

_INSTANT = pa.timestamp("us", "UTC")
_FLOATS = pa.list_(pa.float64())
_STRINGS = pa.list_(pa.string())

DECISION_COLUMNS: Mapping[str, pa.DataType] = {
    "decision_id": pa.string(),
    "event_id": pa.string(),
    "event_source": pa.string(),
    "event_type": pa.string(),
    "event_time": _INSTANT,
    "stream": pa.string(),
    "decided_at": _INSTANT,
    "mode": pa.string(),
    "reason": pa.string(),
    "assigned": pa.string(),
    "propensity": pa.float64(),
    "destinations": _STRINGS,
    "mixture": _FLOATS,
    "policies": pa.map_(pa.string(), _FLOATS),
    "feature_set": pa.string(),
    "numbers": pa.list_(_FLOATS),
    "categories": pa.list_(_STRINGS),
    "predictions": pa.string(),  # JSON: heads differ from model to model
    "excluded": pa.map_(pa.string(), pa.string()),
    "arm": pa.string(),
    "arm_probability": pa.float64(),
    "arm_unit": pa.string(),
    "generation": pa.int64(),
    "champion": pa.string(),
    "challenger": pa.string(),
    "shadow": pa.string(),
    "policy_revision": pa.string(),
    "override": pa.string(),  # JSON: few decisions have one
    "explored": pa.bool_(),
    "state_age_ms": pa.float64(),
    "content": pa.string(),
    "latency_us": pa.float64(),
    "schema": pa.int64(),
}
OUTCOME_COLUMNS: Mapping[str, pa.DataType] = {
    "decision_id": pa.string(),
    "served": pa.string(),
    "observed_at": _INSTANT,
    "status": pa.string(),
    "success": pa.bool_(),
    "latency_ms": pa.float64(),
    "cost_usd": pa.float64(),
    "error_class": pa.string(),
    "attempt": pa.int64(),
    "idempotency_key": pa.string(),
    "probe": pa.bool_(),
    "schema": pa.int64(),
}
_AS_JSON = ("predictions", "override")
_AS_MAP = ("policies", "excluded")
_CANONICAL = msgspec.json.Encoder(order="deterministic")


def decision_table(records: Sequence[Decision], **beside: Iterable[Any]) -> pa.Table:
    """Return ``records`` as columns, one row each, with further columns ``beside`` them and a ``payload_digest``."""
    columns = _columns(records, DECISION_COLUMNS)
    for name in _AS_JSON:
        columns[name] = [msgspec.json.encode(value).decode() if value else None for value in columns[name]]
    for name in _AS_MAP:
        columns[name] = [list(value.items()) for value in columns[name]]
    return _table(columns, DECISION_COLUMNS, payload_digest=map(payload_digest, records), **beside)


def outcome_table(records: Sequence[Outcome], **beside: Iterable[Any]) -> pa.Table:
    """Return ``records`` as columns, one row each, with their ``outcome_key``; see `decision_table`."""
    columns = _columns(records, OUTCOME_COLUMNS)
    keys, digests = map(outcome_key, records), map(payload_digest, records)
    return _table(columns, OUTCOME_COLUMNS, outcome_key=keys, payload_digest=digests, **beside)


def decisions_in(table: pa.Table) -> list[Decision]:
    """Return the decisions in ``table``, exactly as they were put in."""
    decisions = []
    for row in table.select(list(DECISION_COLUMNS)).to_pylist():
        for name in _AS_JSON:
            row[name] = msgspec.json.decode(row[name]) if row[name] else None
        for name in _AS_MAP:
            row[name] = dict(row[name])
        decisions.append(msgspec.convert(_given(row), Decision))
    return decisions


def outcomes_in(table: pa.Table) -> list[Outcome]:
    """Return the outcomes in ``table``, exactly as they were put in."""
    return [msgspec.convert(_given(row), Outcome) for row in table.select(list(OUTCOME_COLUMNS)).to_pylist()]


def payload_digest(record: Record) -> str:
    """Return a name for exactly what ``record`` says, whatever file, format or zone it came in."""
    instants = {
        name: getattr(record, name).astimezone(UTC)
        for name in ("decided_at", "event_time", "observed_at")
        if (instant := getattr(record, name, None)) is not None and instant.tzinfo is not UTC
    }
    canonical = msgspec.structs.replace(record, **instants) if instants else record
    return hashlib.blake2b(_CANONICAL.encode(canonical), digest_size=16).hexdigest()


def _columns(records: Sequence[Record], names: Iterable[str]) -> dict[str, Sequence[Any]]:
    names = list(names)
    if not records:
        return dict.fromkeys(names, ())
    return dict(zip(names, zip(*map(attrgetter(*names), records), strict=True), strict=True))


def _table(columns: dict[str, Sequence[Any]], types: Mapping[str, pa.DataType], **beside: Iterable[Any]) -> pa.Table:
    arrays = {name: pa.array(columns[name], kind) for name, kind in types.items()}
    further = {
        name: values if isinstance(values, pa.Array) else pa.array(list(values)) for name, values in beside.items()
    }
    return pa.table(arrays | further)


def _given(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}
