"""Events come in as CloudEvents 1.0, structured or binary; records go out as such and come in again."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from cloudevents.core.formats.json import JSONFormat

from features import cloudevents, config
from features.cloudevents import CloudEvent, DecisionRequest, UnknownTypeError
from features.records import Decision, Outcome

AT = datetime(2026, 1, 1, tzinfo=UTC)
CONFIGURATION = config.parse("""
[destinations.card]
[streams.orders]
types = ["shop.order", "shop.reorder"]
destinations = ["card"]
text_field = "note"
objective = {}
""")
EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "order-1",
    "source": "shop",
    "type": "shop.order",
    "time": "2026-01-01T05:30:00+05:30",
    "partitionkey": "customer-7",
    "dataclassification": "personal, eu-only,,",
    "data": {"amount": 12.5, "gift": True, "coupon": None, "country": "NO", "lines": [1, 2], "note": "by door"},
    "traceparent": "an extension",
}
OUTCOME = Outcome(decision_id="d-1", served="card", observed_at=AT, success=True)
DECISION = Decision(
    decision_id="d-1",
    event_id="order-1",
    event_source="shop",
    event_type="shop.order",
    stream="orders",
    decided_at=AT,
    mode="off",
    reason="static",
    assigned="card",
    propensity=1.0,
    destinations=("card",),
    mixture=(1.0,),
    policies={},
)


def _read(**changed: Any) -> CloudEvent:
    fields = {name: value for name, value in (EVENT | changed).items() if value is not ...}
    return msgspec.json.decode(json.dumps(fields), type=CloudEvent)


def test_an_event_is_what_its_cloudevent_says() -> None:
    event = cloudevents.event_of(_read(), CONFIGURATION)
    assert (event.id, event.source, event.type, event.stream, event.key) == (
        "order-1",
        "shop",
        "shop.order",
        "orders",
        "customer-7",
    )
    assert event.time == AT
    assert event.time.tzinfo is UTC
    assert event.labels == ("personal", "eu-only")


def test_scalars_of_the_data_are_attributes_and_the_text_is_read_apart() -> None:
    event = cloudevents.event_of(_read(), CONFIGURATION)
    assert event.attributes == {"amount": 12.5, "gift": True, "coupon": None, "country": "NO", "note": "by door"}
    assert event.text == "by door"
    assert cloudevents.event_of(_read(data={"note": None}), CONFIGURATION).text is None
    assert cloudevents.event_of(_read(data={}), CONFIGURATION).text is None


@pytest.mark.parametrize(("value", "kind"), [(7, "int"), (["a"], "list"), ({"a": 1}, "dict"), (True, "bool")])
def test_a_text_that_is_none_is_refused_by_its_field(value: object, kind: str) -> None:
    with pytest.raises(cloudevents.TextTypeError, match=rf"^data\.note must be text, got {kind}$"):
        cloudevents.event_of(_read(data={"note": value}), CONFIGURATION)


def test_only_the_needed_attributes_need_be_there() -> None:
    bare = _read(time=..., partitionkey=..., dataclassification=..., data=...)
    event = cloudevents.event_of(bare, CONFIGURATION)
    assert (event.time, event.key, event.labels, event.attributes) == (None, None, (), {})


def test_a_type_that_no_stream_claims_is_refused_by_name() -> None:
    assert cloudevents.event_of(_read(type="shop.reorder"), CONFIGURATION).stream == "orders"
    with pytest.raises(UnknownTypeError, match=r"no stream is configured for 'shop\.refund'"):
        cloudevents.event_of(_read(type="shop.refund"), CONFIGURATION)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"specversion": "0.3"}, "specversion must be '1.0', got '0.3'"),
        ({"specversion": ...}, "specversion"),
        ({"id": ""}, "id"),
        ({"source": ...}, "source"),
        ({"type": 7}, "type"),
        ({"time": "2026-01-01T00:00:00"}, "time"),
        ({"data": [1]}, "data"),
    ],
)
def test_what_is_no_cloudevent_is_refused_by_attribute(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said):
        _read(**changed)


def test_binary_mode_reads_as_structured_mode_does() -> None:
    headers = {f"ce-{name}": value for name, value in EVENT.items() if name != "data"}
    body = json.dumps(EVENT["data"]).encode()
    assert cloudevents.from_headers(headers | {"content-type": "application/json"}, body) == _read()
    assert cloudevents.from_headers(headers, b"").data == {}
    with pytest.raises(msgspec.ValidationError, match="source"):
        cloudevents.from_headers({name: value for name, value in headers.items() if name != "ce-source"}, body)


@pytest.mark.parametrize(
    ("record", "identity", "kind"),
    [(DECISION, "d-1", cloudevents.DECISION_TYPE), (OUTCOME, "d-1/1", cloudevents.OUTCOME_TYPE)],
    ids=["decision", "outcome"],
)
def test_the_cloudevents_sdk_reads_our_envelopes(record: Decision | Outcome, identity: str, kind: str) -> None:
    """The oracle is the specification's own library."""
    read = JSONFormat().read(None, cloudevents.envelope(record, source="/shims/1"))
    assert (read.get_id(), read.get_type(), read.get_source()) == (identity, kind, "/shims/1")
    assert read.get_time() == AT
    assert read.get_data() == json.loads(msgspec.json.encode(record))


def test_a_request_names_what_it_does_not_know() -> None:
    request = msgspec.json.decode(json.dumps({"event": EVENT}), type=DecisionRequest)
    assert request.candidates is None
    with pytest.raises(msgspec.ValidationError, match="candidate`"):
        msgspec.json.decode(json.dumps({"event": EVENT, "candidate": []}), type=DecisionRequest)


def test_instants_with_any_zone_are_the_same_instant() -> None:
    zones = [timezone(timedelta(hours=hours)) for hours in (-11, 0, 14)]
    events = [cloudevents.event_of(_read(time=AT.astimezone(zone).isoformat()), CONFIGURATION) for zone in zones]
    assert {event.time for event in events} == {AT}
