"""Whatever is no record is named by the rule that it breaks, and never raises anything else."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import cloudevents, decoding
from features.decoding import BrokenRowError
from features.records import Decision, Outcome

OUTCOME: dict[str, Any] = {
    "record": "outcome",
    "decision_id": "d-1",
    "served": "card",
    "observed_at": "2026-01-01T00:05:00Z",
    "success": True,
    "latency_ms": 120.5,
}
DECISION: dict[str, Any] = {
    "record": "decision",
    "decision_id": "d-1",
    "event_id": "e-1",
    "event_source": "shop",
    "event_type": "shop.order",
    "stream": "orders",
    "decided_at": "2026-01-01T00:00:00Z",
    "mode": "on",
    "reason": "static",
    "assigned": "card",
    "propensity": 0.75,
    "destinations": ["card", "bank"],
    "mixture": [0.75, 0.25],
    "policies": {"static": [1.0, 0.0]},
    "numbers": [[1.5, None], [2.5, 3.0]],
    "categories": [["card", None], ["bank", "NO"]],
}


def _line(record: dict[str, Any], /, **changed: Any) -> bytes:
    fields = {name: value for name, value in (record | changed).items() if value is not ...}
    return json.dumps(fields).encode()


def _rule(payload: bytes) -> tuple[str, str | None]:
    with pytest.raises(BrokenRowError) as caught:
        decoding.decode_json(payload)
    assert str(caught.value)
    return caught.value.rule, caught.value.field


@pytest.mark.parametrize(
    ("payload", "rule", "field"),
    [
        (b"", "bad_json", None),
        (b"{", "bad_json", None),
        (b"\x00\x00", "bad_json", None),
        (b'{"record": "outcome", "served": "\xff"}', "not_utf8", None),
        (b'{"record":"outcome","decision_id":"\\ud800"}', "bad_json", None),
        (b"null", "invalid_value", None),
        (b"[]", "invalid_value", None),
        (b'{"record": "outcome", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep", None),
        (_line(OUTCOME, record="parcel"), "invalid_value", "record"),
        (_line(OUTCOME, record=...), "missing_field", "record"),
        (_line(OUTCOME, observed_at=...), "missing_field", "observed_at"),
        (_line(OUTCOME, observed_at="2026-01-01T00:00:00"), "no_zone", "observed_at"),
        (_line(OUTCOME, observed_at="yesterday"), "invalid_value", "observed_at"),
        (_line(OUTCOME, latency_ms=-1), "invalid_value", "latency_ms"),
        (_line(OUTCOME, cost_usd=-0.01), "invalid_value", "cost_usd"),
        (_line(OUTCOME, latency_ms="fast"), "invalid_value", "latency_ms"),
        (_line(OUTCOME, latency_ms=float("nan")), "bad_json", None),
        (_line(OUTCOME).replace(b"120.5", b"1e999"), "invalid_value", "latency_ms"),
        (_line(OUTCOME, schema=2), "unknown_schema", "schema"),
        (_line(DECISION, propensity=...), "missing_field", "propensity"),
        (_line(DECISION, propensity=0), "invalid_value", "propensity"),
        (_line(DECISION, propensity=1.01), "invalid_value", "propensity"),
        (_line(DECISION, mixture=[2.0, -1.0]), "invalid_value", "mixture"),
        (_line(DECISION, policies={"static": [2.0, 0.0]}), "invalid_value", "policies"),
        (_line(DECISION, override={"kind": "stop"}), "missing_field", "override"),
        (_line(DECISION, event_time="2026-01-01T00:00:00"), "no_zone", "event_time"),
        (b'{"specversion": "1.0", "type": "shop.order"}', "missing_field", "record"),
        (b'{"specversion": "1.0", "data": 7}', "invalid_value", None),
    ],
)
def test_what_is_no_record_is_named_by_its_rule_and_field(payload: bytes, rule: str, field: str | None) -> None:
    assert _rule(payload) == (rule, field)


@settings(deadline=None)
@given(st.binary() | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_nothing_but_a_broken_row_is_ever_raised(payload: bytes) -> None:
    with pytest.raises(BrokenRowError):
        decoding.decode_json(payload)


def test_a_record_reads_the_same_bare_and_in_an_envelope() -> None:
    bare = decoding.decode_json(_line(DECISION)).record
    assert isinstance(bare, Decision)
    assert decoding.decode_json(cloudevents.envelope(bare)).record == bare


def test_an_envelope_is_recognised_wherever_its_version_stands() -> None:
    event = json.dumps({"data": DECISION | {"reason": "x" * 5_000}, "specversion": "1.0"}).encode()
    assert isinstance(decoding.decode_json(event).record, Decision)


def test_fields_that_no_record_has_are_kept_beside_it() -> None:
    decoded = decoding.decode_json(_line(OUTCOME, region="north", nested={"a": [1]}))
    assert decoded.extras == {"region": b'"north"', "nested": b'{"a": [1]}'}


def test_text_cells_become_the_record_that_json_gives() -> None:
    cells = {name: value if isinstance(value, str) else json.dumps(value) for name, value in DECISION.items()}
    assert decoding.convert_cells(cells, Decision).record == decoding.decode_json(_line(DECISION)).record


def test_columnar_mappings_come_as_pairs_or_as_structs_with_nulls() -> None:
    expected = decoding.decode_json(_line(DECISION)).record
    for policies in ([("static", [1.0, 0.0])], {"static": [1.0, 0.0], "champion": None}):
        assert decoding.convert_cells(DECISION | {"policies": policies}, Decision).record == expected


@pytest.mark.parametrize(
    ("changed", "rule", "field"),
    [
        ({"latency_ms": "inf"}, "not_finite", "latency_ms"),
        ({"cost_usd": float("inf")}, "not_finite", "cost_usd"),
        ({"latency_ms": float("nan")}, "invalid_value", "latency_ms"),
        ({"success": "maybe"}, "invalid_value", "success"),
        ({"observed_at": "2026-01-01 00:00:00"}, "no_zone", "observed_at"),
        ({"served": None}, "missing_field", "served"),
    ],
)
def test_cells_that_do_not_fit_are_named(changed: dict[str, Any], rule: str, field: str) -> None:
    with pytest.raises(BrokenRowError) as caught:
        decoding.convert_cells(OUTCOME | changed, Outcome)
    assert (caught.value.rule, caught.value.field) == (rule, field)


def test_a_list_cell_that_is_no_json_is_named() -> None:
    with pytest.raises(BrokenRowError, match="mixture must be JSON") as caught:
        decoding.convert_cells(DECISION | {"mixture": "0.5;0.5"}, Decision)
    assert caught.value.field == "mixture"


def test_numbers_deep_in_a_vector_must_be_finite() -> None:
    with pytest.raises(BrokenRowError, match="numbers holds a number that is not finite"):
        decoding.convert_cells(DECISION | {"numbers": [[1.0, float("nan")], [1.0, 2.0]]}, Decision)


def test_columns_tell_the_kind_of_record_or_what_is_missing() -> None:
    assert decoding.kind_of(frozenset(DECISION)) is Decision
    assert decoding.kind_of(frozenset(OUTCOME)) is Outcome
    with pytest.raises(BrokenRowError, match="neither"):
        decoding.kind_of(frozenset({"x"}))
    with pytest.raises(BrokenRowError, match="outcome rows lack: decision_id, observed_at"):
        decoding.kind_of(frozenset({"served"}))
