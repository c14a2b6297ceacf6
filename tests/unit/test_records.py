"""The records as they travel: checked on the way in, small on the way out, the same after both."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from features import records
from features.records import Decision, DestinationState, Event, Outcome

AT = datetime(2026, 1, 1, tzinfo=UTC)
DECISION = Decision(
    decision_id="d-1",
    event_id="e-1",
    event_source="shop",
    event_type="shop.order",
    stream="orders",
    decided_at=AT,
    mode="on",
    reason="champion: explored",
    assigned="card",
    propensity=0.75,
    destinations=("card", "bank"),
    mixture=(0.75, 0.25),
    policies={"static": (1.0, 0.0)},
)
OUTCOME = Outcome(decision_id="d-1", served="card", observed_at=AT)


def _decode(record: Any, /, **changed: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(record) | changed), type=type(record))


@pytest.mark.parametrize("record", [DECISION, OUTCOME], ids=["decision", "outcome"])
def test_records_survive_the_wire(record: Decision | Outcome) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=Decision | Outcome) == record


def test_the_wire_carries_no_defaults() -> None:
    assert msgspec.to_builtins(OUTCOME).keys() == {"record", "decision_id", "served", "observed_at"}


@pytest.mark.parametrize(
    ("record", "changed", "path"),
    [
        (DECISION, {"propensity": 0.0}, "propensity"),
        (DECISION, {"propensity": 1.1}, "propensity"),
        (DECISION, {"mixture": [1.2, -0.2]}, "mixture"),
        (DECISION, {"arm_probability": 2.0}, "arm_probability"),
        (DECISION, {"mode": "maybe"}, "mode"),
        (DECISION, {"arm": "canary"}, "arm"),
        (DECISION, {"decision_id": ""}, "decision_id"),
        (DECISION, {"event_id": "x" * 513}, "event_id"),
        (DECISION, {"assigned": None}, "assigned"),
        (DECISION, {"record": "outcome"}, "record"),
        (OUTCOME, {"latency_ms": -0.1}, "latency_ms"),
        (OUTCOME, {"cost_usd": -0.1}, "cost_usd"),
        (OUTCOME, {"attempt": 0}, "attempt"),
        (OUTCOME, {"status": "late"}, "status"),
        (DestinationState(), {"error_rate": 1.5}, "error_rate"),
        (Event(id="e", source="s", type="t", stream="o"), {"attributes": {"a": [1]}}, "attributes"),
    ],
)
def test_values_beyond_their_range_are_refused_by_path(record: Any, changed: dict[str, Any], path: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=path):
        _decode(record, **changed)


def test_an_outcome_counts_once_per_decision_attempt_and_destination() -> None:
    keys = {
        records.outcome_key(msgspec.structs.replace(OUTCOME, **changed))
        for changed in ({}, {"attempt": 2}, {"served": "bank"}, {"decision_id": "d-2"}, {"success": True})
    }
    assert keys == {"d-1/1/card", "d-1/2/card", "d-1/1/bank", "d-2/1/card"}


def test_a_reporters_own_key_comes_first() -> None:
    assert records.outcome_key(msgspec.structs.replace(OUTCOME, idempotency_key="mine")) == "mine"


def test_records_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        OUTCOME.success = True  # type: ignore[misc]  # the point of the test


def test_what_rows_share_with_the_first_may_be_left_out_and_is_read_as_if_it_were_there() -> None:
    read = _decode(DECISION, numbers=[[1.0, None, 3.0], [4.0], [None]], n_shared=2)
    assert read.numbers == ((1.0, None, 3.0), (1.0, None, 4.0), (1.0, None, None))
    assert read == _decode(DECISION, numbers=read.numbers) == _decode(read)
    assert read.n_shared == 0


def test_all_may_be_shared() -> None:
    assert _decode(DECISION, numbers=[[1.0], []], n_shared=1).numbers == ((1.0,), (1.0,))


@pytest.mark.parametrize(("rows", "n_shared"), [([[1.0], []], 2), ([], 1), ([[1.0]], -1)])
def test_more_cannot_be_shared_than_there_is(rows: list[list[float]], n_shared: int) -> None:
    with pytest.raises(msgspec.ValidationError, match="n_shared"):
        _decode(DECISION, numbers=rows, n_shared=n_shared)
