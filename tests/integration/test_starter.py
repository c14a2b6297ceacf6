"""A drafted configuration must load, say what was seen, and serve the very events that it was drafted from."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import cloudevents, config, starter
from features.cloudevents import CloudEvent, DecisionRequest
from features.records import Candidate
from features.starter import SampleError

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def event(event_type: str = "shop.order.placed", data: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": "1", "source": "shop", "type": event_type, "data": data or {}, **more}


def request(*candidates: dict[str, Any], data: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"event": event(data=data), "candidates": list(candidates)}


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return tmp_path / "sample.jsonl"


def drafted(sample: Path, *documents: dict[str, Any], destinations: tuple[str, ...] = ()) -> config.Configuration:
    sample.write_text("\n".join(map(json.dumps, documents)))
    return config.parse(starter.draft(sample, destinations=destinations))


def test_every_type_becomes_a_stream_that_is_off(sample: Path) -> None:
    found = drafted(sample, event("shop.order"), event("shop.refund"), event("bank.refund"), destinations=("a",))

    assert {name: stream.types for name, stream in found.streams.items()} == {
        "order": ("shop.order",),
        "shop.refund": ("shop.refund",),
        "bank.refund": ("bank.refund",),
    }
    assert {stream.mode for stream in found.streams.values()} == {"off"}


def test_candidates_become_destinations_and_static_routes_in_the_order_seen(sample: Path) -> None:
    found = drafted(
        sample, request({"destination": "west"}, {"destination": "east coast"}), request({"destination": "alp"})
    )

    stream = found.streams["placed"]
    assert stream.destinations == stream.static.default == ("west", "east coast", "alp")
    assert set(found.destinations) == {"west", "east coast", "alp"}


def test_attributes_become_numbers_and_categories_by_what_they_hold(sample: Path) -> None:
    candidate = {"destination": "a", "attributes": {"fee": 1.5, "kind": "air"}, "state": {"queue_depth": 3.0}}
    found = drafted(sample, request(candidate, data={"amount": 3, "gift": True, "country": "NO", "fee": 2}))

    features = found.streams["placed"].features
    assert (
        features.numbers.items()
        >= {
            "amount": "event.amount",
            "gift": "event.gift",
            "fee": "event.fee",
            "candidate_fee": "candidate.fee",
            "queue_depth": "state.queue_depth",
            "hour": "time.hour",
        }.items()
    )
    assert features.categories == {
        "destination": "destination.name",
        "country": "event.country",
        "kind": "candidate.kind",
    }


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["x", 1], "holds number and text"),
        ([None, None], "holds nothing"),
        ([{"a": 1}, {}], "holds structure"),
        ([f"id-{number}" for number in range(201)], "more than 200 values"),
    ],
)
def test_what_cannot_be_a_feature_is_left_out_with_its_reason(sample: Path, values: list[Any], reason: str) -> None:
    sample.write_text("\n".join(json.dumps(event(data={"odd": value})) for value in values))

    text = starter.draft(sample, destinations=["a"])

    assert f"# event.odd {reason}" in text or (f"# event.odd has {reason}" in text)
    stream = config.parse(text).streams["placed"]
    assert "odd" not in {*stream.features.numbers, *stream.features.categories}


def test_labels_are_pointed_out_but_no_rule_is_guessed(sample: Path) -> None:
    sample.write_text(json.dumps(event(dataclassification="eu, pii")))

    text = starter.draft(sample, destinations=["a"])

    assert "labels eu, pii" in text
    assert config.parse(text).rules == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "there is no event"),
        ("\n{}", r":2: neither a CloudEvent nor a decision request: .*specversion"),
        ("[1]", ":1: neither"),
        (json.dumps(event()), "'shop.order.placed' name no candidates"),
    ],
)
def test_a_sample_that_says_too_little_is_refused(sample: Path, content: str, message: str) -> None:
    sample.write_text(content)

    with pytest.raises(SampleError, match=message):
        starter.draft(sample)


def test_a_sample_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"absent\.jsonl: cannot be read"):
        starter.draft(tmp_path / "absent.jsonl")


def test_an_existing_configuration_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "turnout.toml"
    starter.write(path, "mine")

    with pytest.raises(SampleError, match="not overwritten"):
        starter.write(path, "yours")
    assert path.read_text() == "mine"


names = st.text(min_size=1, max_size=8)
scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False, allow_infinity=False) | names
attributes = st.dictionaries(names | st.sampled_from(["hour", "amount", "fee"]), scalars, max_size=4)
candidates = st.builds(lambda d, a: {"destination": d, "attributes": a}, names, attributes)
requests = st.builds(
    lambda t, d, c: {"event": event(t, d), "candidates": c},
    names,
    attributes,
    st.lists(candidates, min_size=1, max_size=3),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(documents=st.lists(requests, min_size=1, max_size=5))
def test_whatever_the_sample_its_own_events_can_be_served(sample: Path, documents: list[dict[str, Any]]) -> None:
    found = drafted(sample, *documents)

    for document in documents:
        asked = DecisionRequest(
            event=CloudEvent(**document["event"]),
            candidates=tuple(Candidate(**candidate) for candidate in document["candidates"]),
        )
        served = cloudevents.event_of(asked.event, found)
        vectors = found.feature_set(served.stream).vectors(served, asked.candidates or (), NOON)
        assert len(vectors.numbers) == len(document["candidates"])
