"""Records go into columns and come out as they were."""

from datetime import UTC, datetime, timedelta, timezone

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from features import columns
from features.records import Decision, Outcome, Override

NAMES = st.text(min_size=1, max_size=8)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SHARES = st.floats(0, 1)
INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive by contract
OVERRIDES = st.builds(
    Override,
    kind=st.just("stop"),
    actor=NAMES,
    reason=st.text(),
    created_at=INSTANTS,
    stream=st.none() | NAMES,
    expires_at=st.none() | INSTANTS,
)
DECISIONS = st.builds(
    Decision,
    decision_id=NAMES,
    event_id=NAMES,
    event_source=NAMES,
    event_type=NAMES,
    stream=NAMES,
    decided_at=INSTANTS,
    mode=st.sampled_from(["off", "observe", "canary", "on"]),
    reason=st.text(),
    assigned=NAMES,
    propensity=st.floats(0, 1, exclude_min=True),
    destinations=st.lists(NAMES, max_size=3).map(tuple),
    mixture=st.lists(SHARES, max_size=3).map(tuple),
    policies=st.dictionaries(NAMES, st.lists(SHARES, max_size=3).map(tuple), max_size=2),
    event_time=st.none() | INSTANTS,
    feature_set=st.text(max_size=5),
    numbers=st.lists(st.lists(st.none() | FLOATS, max_size=3).map(tuple), max_size=3).map(tuple),
    categories=st.lists(st.lists(st.none() | st.text(max_size=3), max_size=2).map(tuple), max_size=3).map(tuple),
    predictions=st.dictionaries(NAMES, st.dictionaries(NAMES, st.lists(FLOATS, max_size=2).map(tuple), max_size=2)),
    excluded=st.dictionaries(NAMES, st.text(max_size=3), max_size=2),
    generation=st.integers(0, 2**40),
    champion=st.none() | NAMES,
    override=st.none() | OVERRIDES,
    explored=st.booleans(),
    state_age_ms=st.none() | FLOATS,
)
OUTCOMES = st.builds(
    Outcome,
    decision_id=NAMES,
    served=NAMES,
    observed_at=INSTANTS,
    status=st.sampled_from(["observed", "censored", "timeout", "lost"]),
    success=st.none() | st.booleans(),
    latency_ms=st.none() | st.floats(0, 1e9),
    cost_usd=st.none() | st.floats(0, 1e9),
    error_class=st.none() | st.text(max_size=5),
    attempt=st.integers(1, 99),
    idempotency_key=st.text(max_size=5),
)
OUTCOME = Outcome(decision_id="d", served="card", observed_at=datetime(2026, 1, 1, 12, tzinfo=UTC))


@settings(deadline=None)
@given(st.lists(DECISIONS, max_size=2))
def test_decisions_come_out_as_they_went_in(decisions: list[Decision]) -> None:
    assert columns.decisions_in(columns.decision_table(decisions)) == decisions


@settings(deadline=None)
@given(st.lists(OUTCOMES, max_size=4))
def test_outcomes_come_out_as_they_went_in(outcomes: list[Outcome]) -> None:
    assert columns.outcomes_in(columns.outcome_table(outcomes)) == outcomes


@settings(deadline=None)
@given(DECISIONS | OUTCOMES)
def test_a_digest_survives_the_wire(record: Decision | Outcome) -> None:
    again = msgspec.json.decode(msgspec.json.encode(record), type=type(record))
    assert columns.payload_digest(again) == columns.payload_digest(record)


@settings(deadline=None)
@given(OUTCOMES, OUTCOMES)
def test_a_digest_names_one_content(left: Outcome, right: Outcome) -> None:
    assert (columns.payload_digest(left) == columns.payload_digest(right)) == (left == right)


def test_the_zone_an_instant_is_written_in_does_not_change_the_digest() -> None:
    elsewhere = OUTCOME.observed_at.astimezone(timezone(timedelta(hours=9)))
    assert columns.payload_digest(msgspec.structs.replace(OUTCOME, observed_at=elsewhere)) == columns.payload_digest(
        OUTCOME
    )


def test_the_order_of_a_mapping_does_not_change_the_digest() -> None:
    fields = {"decision_id": "d", "event_id": "e", "event_source": "s", "event_type": "t", "stream": "o"}
    rest = {"decided_at": OUTCOME.observed_at, "mode": "on", "reason": "", "assigned": "a", "propensity": 1.0}
    lists = {"destinations": ("a",), "mixture": (1.0,)}
    one, other = (
        Decision(**fields, **rest, **lists, policies=policies)  # type: ignore[arg-type]  # built from untyped parts
        for policies in ({"x": (1.0,), "y": (1.0,)}, {"y": (1.0,), "x": (1.0,)})
    )
    assert columns.payload_digest(one) == columns.payload_digest(other)


def test_an_outcome_carries_the_key_under_which_it_counts_once() -> None:
    table = columns.outcome_table([OUTCOME, msgspec.structs.replace(OUTCOME, idempotency_key="mine")])
    assert table["outcome_key"].to_pylist() == ["d/1/card", "mine"]
