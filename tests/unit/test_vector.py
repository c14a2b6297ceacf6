"""One function computes the vectors of all candidates; plain names and expressions agree; what is missing stays so."""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.definitions import FeatureDefinitions
from features.records import Candidate, DestinationState, Event, Scalar
from features.scope import FeatureTypeError
from features.vector import CategoryColumn, FeatureSet

AT = datetime(2026, 7, 1, 22, 30, tzinfo=UTC)  # a Wednesday, the 182nd day
DESTINATIONS: dict[str, dict[str, Scalar]] = {"card": {"fee": 0.3, "region": "eu"}, "bank": {"fee": 0.1}}
NUMBERS = st.none() | st.floats(allow_nan=False) | st.integers(-(2**60), 2**60) | st.booleans()


def _event(**attributes: Scalar) -> Event:
    return Event(id="e", source="s", type="t", stream="orders", attributes=attributes)


def _candidates(*states: DestinationState | None, **attributes: Scalar) -> list[Candidate]:
    return [
        Candidate(destination=name, attributes=attributes, state=state)
        for name, state in zip(("card", "bank", "new"), states, strict=False)
    ]


def _numbers(definitions: dict[str, str], event: Event, candidates: list[Candidate], zone: str = "UTC") -> Any:
    features = FeatureSet(FeatureDefinitions(numbers=definitions, zone=zone), DESTINATIONS)
    return features.vectors(event, candidates, AT).numbers


SPACES = {
    "event": "event.x",
    "candidate": "candidate.x",
    "state": "state.queue_depth",
    "measure": "state.x",
    "destination": "destination.fee",
    "time": "time.hour",
}


@settings(deadline=None)
@given(x=NUMBERS, depth=st.none() | st.floats(allow_nan=False), space=st.sampled_from(sorted(SPACES)))
def test_a_plain_name_and_the_expression_of_it_agree(x: float | None, depth: float | None, space: str) -> None:
    """Plain names take a way of their own; the expression is the oracle."""
    name = SPACES[space]
    state = DestinationState(queue_depth=depth, measures={"x": x})
    candidates = _candidates(state, None, state, x=x)
    numbers = _numbers({"plain": name, "computed": f"{name} + 0"}, _event(x=x), candidates)
    np.testing.assert_array_equal(numbers[:, 0], numbers[:, 1])


def test_every_space_is_read_from_where_it_belongs() -> None:
    state = DestinationState(queue_depth=7.0, error_rate=0.5, healthy=False, measures={"spread": 2.0})
    definitions = {
        "amount": "event.amount",
        "eta": "candidate.eta",
        "queue": "state.queue_depth",
        "healthy": "state.healthy",
        "spread": "state.spread",
        "fee": "destination.fee",
        "hour": "time.hour",
        "weekday": "time.weekday",
        "day": "time.day_of_year",
        "gap": "candidate.eta - min(candidate.eta)",
    }
    numbers = _numbers(definitions, _event(amount=5), _candidates(state, None, eta=3.0))
    nan = math.nan
    np.testing.assert_array_equal(
        numbers, [[5, 3, 7, 0, 2, 0.3, 22.5, 2, 182, 0], [5, 3, nan, nan, nan, 0.1, 22.5, 2, 182, 0]]
    )


def test_time_is_read_in_the_zone_of_the_features() -> None:
    numbers = _numbers({"hour": "time.hour", "weekday": "time.weekday"}, _event(), _candidates(None), zone="Asia/Tokyo")
    np.testing.assert_array_equal(numbers, [[7.5, 3.0]])


def test_what_is_not_given_or_not_finite_is_missing() -> None:
    definitions = {"absent": "event.absent", "huge": "event.huge", "divided": "event.one / event.zero"}
    numbers = _numbers(definitions, _event(huge=math.inf, one=1, zero=0), _candidates(None, None))
    assert np.isnan(numbers).all()
    assert numbers.shape == (2, 3)


@settings(deadline=None)
@given(
    st.lists(NUMBERS | st.just(math.inf), min_size=3, max_size=3), st.permutations(["event.a", "state.x", "event.b"])
)
def test_what_is_logged_is_what_was_used_and_none_where_it_is_missing(values: list[Any], order: list[str]) -> None:
    features = FeatureSet(FeatureDefinitions(numbers=dict(zip("pqr", order, strict=True))), DESTINATIONS)
    a, b, x = values
    state = DestinationState(measures={"x": x})
    vectors = features.vectors(_event(a=a, b=b), _candidates(state, None), AT)
    given = {"event.a": a, "event.b": b, "state.x": x}
    expected = [None if given[name] is None or math.isinf(given[name]) else float(given[name]) for name in order]
    assert list(vectors.logged[0]) == expected
    used = [[math.nan if cell is None else cell for cell in row] for row in vectors.logged]
    np.testing.assert_array_equal(vectors.numbers, used)


@pytest.mark.parametrize("text", ["event.amount", "event.amount * 2"])
def test_text_where_a_number_is_read_is_refused_by_name(text: str) -> None:
    with pytest.raises(FeatureTypeError, match=r"event\.amount must be a number, got 'much'"):
        _numbers({"amount": text}, _event(amount="much"), _candidates(None))


def test_categories_are_text_or_missing() -> None:
    definitions = FeatureDefinitions(
        categories={
            "to": "destination.name",
            "country": "event.country",
            "region": "destination.region",
            "kind": "candidate.kind",
        }
    )
    vectors = FeatureSet(definitions, DESTINATIONS).vectors(_event(country="NO"), _candidates(None, None, kind=7), AT)
    assert vectors.categories == (("card", "NO", "eu", "7"), ("bank", "NO", None, "7"))
    assert vectors.numbers.shape == (2, 0)


def test_an_unknown_destination_has_a_vector_too() -> None:
    (_, _, new) = _numbers({"fee": "destination.fee"}, _event(), _candidates(None, None, None))
    assert np.isnan(new).all()


def test_the_order_of_attributes_does_not_matter_and_that_of_columns_is_the_definitions() -> None:
    event, turned = _event(a=1, b=2), _event(b=2, a=1)
    definitions = {"second": "event.b", "sum": "event.a + event.b", "first": "event.a"}
    assert _numbers(definitions, event, _candidates(None)).tolist() == [[2, 3, 1]]
    assert _numbers(definitions, turned, _candidates(None)).tolist() == [[2, 3, 1]]


@settings(deadline=None)
@given(st.permutations([0, 1, 2]))
def test_candidates_may_come_in_any_order(order: list[int]) -> None:
    states = [DestinationState(queue_depth=depth) for depth in (3.0, 1.0, 2.0)]
    definitions = {"queue": "state.queue_depth", "rank": "rank(state.queue_depth)", "least": "min(state.queue_depth)"}
    candidates = _candidates(*states)
    whole = _numbers(definitions, _event(), candidates)
    np.testing.assert_array_equal(_numbers(definitions, _event(), [candidates[i] for i in order]), whole[order])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"numbers": {"x": "event.a +"}}, "numbers.x: cannot read expression"),
        ({"numbers": {"x": "time.minute"}}, "numbers.x: time.minute is not one of day_of_year, hour, weekday"),
        ({"categories": {"x": "state.queue_depth"}}, "categories.x: 'state.queue_depth' is not event.x"),
        ({"categories": {"x": "event."}}, "categories.x"),
        ({"numbers": {"x": "1"}, "categories": {"x": "event.x"}}, "either a number or a category, got both for x"),
        ({"zone": "Mars/Olympus"}, "zone: 'Mars/Olympus' is not an IANA time zone"),
        ({"number": {}}, "unknown field `number`"),
    ],
)
def test_definitions_that_cannot_be_computed_are_refused_by_column(fields: dict[str, Any], said: str) -> None:
    with pytest.raises((ValueError, msgspec.ValidationError), match=said.replace(".", r"\.")):
        msgspec.convert(fields, FeatureDefinitions)


def test_a_range_stands_for_a_number_of_each_of_its_members() -> None:
    short = {"first": "event.x", "e{2..4}_more": "event.e_{2..4} + 1", "t{10..10}": "state.t{10..10}"}
    written = {"first": "event.x"} | {f"e{n}_more": f"event.e_{n} + 1" for n in (2, 3, 4)} | {"t10": "state.t10"}
    ranged, plain = FeatureDefinitions(numbers=short), FeatureDefinitions(numbers=written)
    assert list(ranged.numbers.items()) == list(plain.numbers.items())
    assert ranged.version == plain.version
    assert msgspec.json.decode(msgspec.json.encode(ranged), type=FeatureDefinitions) == plain


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"a{1..2}": "event.a"}, r"numbers.a\{1..2\}: a range stands once in the name, and the same one in the text"),
        ({"a": "event.a{1..2}"}, "a range stands once"),
        ({"a{1..2}": "event.a{1..3}"}, "a range stands once"),
        ({"a{1..2}{1..2}": "event.a{1..2}"}, "a range stands once"),
        ({"a{2..1}": "event.a{2..1}"}, "1 to 1000 members, got 2 to 1"),
        ({"a{1..1001}": "event.a{1..1001}"}, "1 to 1000 members, got 1 to 1001"),
        ({"a2": "event.b", "a{1..2}": "event.a{1..2}"}, r"numbers.a\{1..2\}: 'a2' is a column already"),
        ({"a{1..2}": "event.a{1..2} +"}, "numbers.a1: "),
    ],
)
def test_a_range_that_cannot_be_written_out_is_refused_by_column(numbers: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureDefinitions(numbers=numbers)


def test_a_version_names_exactly_the_definitions_in_their_order() -> None:
    versions = {
        FeatureDefinitions(numbers=numbers, zone=zone).version
        for numbers in (
            {},
            {"a": "event.a", "b": "event.b"},
            {"b": "event.b", "a": "event.a"},
            {"a": "event.b", "b": "event.a"},
        )
        for zone in ("UTC", "Europe/Oslo")
    }
    assert len(versions) == 8


def test_a_category_column_is_taken_by_rows_or_by_mask() -> None:
    column = CategoryColumn(np.array([0, 1, -1, 0]), ("card", "bank"))
    assert column.take(np.array([3, 2])).codes.tolist() == [0, -1]
    assert column.take(np.array([True, False, True, False])).codes.tolist() == [0, -1]


def test_the_instant_decides_the_time_not_its_zone() -> None:
    features = FeatureSet(FeatureDefinitions(numbers={"hour": "time.hour"}), DESTINATIONS)
    there = AT.astimezone(tz=None) + timedelta(0)
    assert features.vectors(_event(), _candidates(None), there).numbers.tolist() == [[22.5]]
