"""Reading requests: JSON that is strict where the standard is lax, limits before meaning, errors with the path."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, TypeVar

import msgspec

from features import cloudevents
from features.cloudevents import CloudEvent, DecisionRequest
from features.records import Decision, Outcome
from serving.live import StateReport
from serving.problems import Problem

try:
    from serving import _keys
except ImportError:  # no compiler at the installation
    _keys = None  # type: ignore[assignment]  # looked at before its use

MAX_BATCH = 1_024
MAX_CANDIDATES = 512

T = TypeVar("T")
Form = Literal["question", "event"]  # what a body is read as

_JSON = "application/json"
_STRUCTURED = "application/cloudevents+json"
_STRUCTURED_BATCH = "application/cloudevents-batch+json"
_DECISION_REQUEST = msgspec.json.Decoder(DecisionRequest)
_DECISION_REQUESTS = msgspec.json.Decoder(list[DecisionRequest])
_CLOUD_EVENT = msgspec.json.Decoder(CloudEvent)
_CLOUD_EVENTS = msgspec.json.Decoder(list[CloudEvent])
_DECISION = msgspec.json.Decoder(Decision)
_DECISIONS = msgspec.json.Decoder(list[Decision])
_OUTCOME = msgspec.json.Decoder(Outcome)
_OUTCOMES = msgspec.json.Decoder(list[Outcome])
_STATE = msgspec.json.Decoder(StateReport)
_STATES = msgspec.json.Decoder(list[StateReport])
_ANYTHING = msgspec.json.Decoder()
_DATA = msgspec.json.Decoder(dict[str, Any])
_ENCODER = msgspec.json.Encoder()


class _OutcomeEvent(msgspec.Struct, frozen=True):
    """An outcome in a structured CloudEvent."""

    type: str
    data: Outcome


_OUTCOME_EVENT = msgspec.json.Decoder(_OutcomeEvent)
_OUTCOME_EVENTS = msgspec.json.Decoder(list[_OutcomeEvent])


def decision_requests(headers: Mapping[str, str], body: bytes) -> tuple[list[DecisionRequest], bool]:
    """Return the requests in ``body``, and whether it is a batch.

    A decision request, an array of them, or (every destination of the stream being a candidate) a bare CloudEvent:
    structured, a batch of structured ones, or binary.

    Raises
    ------
    Problem
        400, 415 or 422.
    """
    kind = media_type(headers)
    if "ce-specversion" in headers:
        return [DecisionRequest(event=_binary_event(headers, body))], False
    batch = _is_array(body)
    if kind in (_STRUCTURED, _STRUCTURED_BATCH):
        events = strict(_CLOUD_EVENTS, body) if batch else [strict(_CLOUD_EVENT, body)]
        requests = [DecisionRequest(event=event) for event in events]
    elif kind == _JSON:
        requests = strict(_DECISION_REQUESTS, body) if batch else [strict(_DECISION_REQUEST, body)]
    else:
        raise _unsupported(kind)
    check_batch(requests)
    for number, request in enumerate(requests):
        _check_candidates(request, f"$[{number}]" if batch else "$")
    return requests, batch


def outcomes(headers: Mapping[str, str], body: bytes) -> list[Outcome]:
    """Return the outcomes in ``body``: one, an array, or as CloudEvents (structured, batch or binary). Raises as above."""
    kind = media_type(headers)
    if "ce-specversion" in headers:
        reported = [strict(_OUTCOME, body)]
        _check_type(headers.get("ce-type", ""), "ce-type")
    elif kind in (_STRUCTURED, _STRUCTURED_BATCH):
        events = strict(_OUTCOME_EVENTS, body) if _is_array(body) else [strict(_OUTCOME_EVENT, body)]
        for event in events:
            _check_type(event.type, "type")
        reported = [event.data for event in events]
    elif kind == _JSON:
        reported = strict(_OUTCOMES, body) if _is_array(body) else [strict(_OUTCOME, body)]
    else:
        raise _unsupported(kind)
    check_batch(reported)
    for number, outcome in enumerate(reported):
        check_zone(outcome.observed_at, f"$[{number}].observed_at" if len(reported) > 1 else "$.observed_at")
    return reported


def fallbacks(headers: Mapping[str, str], body: bytes) -> list[Decision]:
    """Return the decisions in ``body``, one or an array, that a client made by itself: static, certain, of no release. Raises as above."""
    if (kind := media_type(headers)) != _JSON:
        raise Problem(415, f"content-type must be {_JSON}, got {kind!r}")
    made = strict(_DECISIONS, body) if _is_array(body) else [strict(_DECISION, body)]
    check_batch(made)
    for number, decision in enumerate(made):
        path = f"$[{number}]" if len(made) > 1 else "$"
        check_zone(decision.decided_at, f"{path}.decided_at")
        check_zone(decision.event_time, f"{path}.event_time")
        if (decision.arm, decision.propensity, decision.generation) != ("static", 1.0, 0):
            raise Problem(422, "a fallback is of the static arm, with propensity 1, of generation 0", path)
    return made


def states(headers: Mapping[str, str], body: bytes) -> list[StateReport]:
    """Return the states in ``body``, one or an array. Raises as above."""
    if (kind := media_type(headers)) != _JSON:
        raise Problem(415, f"content-type must be {_JSON}, got {kind!r}")
    reported = strict(_STATES, body) if _is_array(body) else [strict(_STATE, body)]
    check_batch(reported)
    for number, report in enumerate(reported):
        check_zone(report.state.observed_at, f"{f'$[{number}]' if len(reported) > 1 else '$'}.state.observed_at")
    return reported


def strict(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Return what ``decoder`` reads; duplicate keys, non-finite numbers and bottomless nesting are refused.

    Raises
    ------
    Problem
        400 for what is not JSON, 422 with the path for JSON that is not what was asked for.
    """
    try:
        decoded = decoder.decode(body)
        if _may_repeat(body):
            json.loads(body, object_pairs_hook=_refuse_duplicates)
    except msgspec.ValidationError as error:
        raise unprocessable(error) from None
    except msgspec.DecodeError as error:
        raise Problem(400, f"the body must be JSON: {error}") from None
    except RecursionError:
        raise Problem(422, "the body is nested too deeply") from None
    except ValueError as error:
        raise Problem(422, str(error)) from None
    return decoded


def unprocessable(error: msgspec.ValidationError) -> Problem:
    """Return the problem that msgspec tells of, its path apart."""
    detail, _, path = str(error).partition(" - at `")
    return Problem(422, detail, path.removesuffix("`") or "$")


def check_batch(items: Sequence[object]) -> None:
    """Refuse a batch of none or of too many."""
    if not 1 <= len(items) <= MAX_BATCH:
        raise Problem(422, f"a batch must hold 1 to {MAX_BATCH} items, got {len(items)}", "$")


def check_zone(instant: datetime | None, path: str) -> None:
    """Refuse an instant without a zone: it would be a guess."""
    if instant is not None and instant.tzinfo is None:
        raise Problem(422, f"expected {cloudevents.TIMESTAMP_RULE}, got {instant.isoformat()}", path)


def form_of(headers: Mapping[str, str]) -> Form | None:
    """Return what a body is read as whose headers say no more than that; None for an event in binary mode, or for no JSON."""
    if "ce-specversion" in headers:
        return None
    kind = media_type(headers)
    if kind == _JSON:
        return "question"
    return "event" if kind in (_STRUCTURED, _STRUCTURED_BATCH) else None


def media_type(headers: Mapping[str, str]) -> str:
    """Return the content type without its parameters, in lower case."""
    text = headers.get("content-type", "")
    return text if text == _JSON else text.partition(";")[0].strip().lower()


def _binary_event(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    if (kind := media_type(headers)) != _JSON:
        raise _unsupported(kind)
    if body:
        strict(_DATA, body)
    try:
        return cloudevents.from_headers(headers, body)
    except msgspec.ValidationError as error:
        raise unprocessable(error) from None


def _check_candidates(request: DecisionRequest, path: str) -> None:
    if request.candidates is None:
        return
    n_candidates = len(request.candidates)
    if not 1 <= n_candidates <= MAX_CANDIDATES:
        raise Problem(422, f"1 to {MAX_CANDIDATES} candidates are allowed, got {n_candidates}", f"{path}.candidates")
    names = [candidate.destination for candidate in request.candidates]
    if len(set(names)) < n_candidates:
        number = next(number for number, name in enumerate(names) if name in names[:number])
        rule = f"{names[number]!r} is a candidate already"
        raise Problem(422, rule, f"{path}.candidates[{number}].destination")
    for number, candidate in enumerate(request.candidates):
        state = candidate.state
        if state is not None and state.observed_at is not None:
            check_zone(state.observed_at, f"{path}.candidates[{number}].state.observed_at")


def _check_type(event_type: str, path: str) -> None:
    if event_type != cloudevents.OUTCOME_TYPE:
        raise Problem(422, f"an outcome's type is {cloudevents.OUTCOME_TYPE!r}, got {event_type!r}", path)


def _is_array(body: bytes) -> bool:
    first = body[:1]
    return first == b"[" or (first != b"{" and body.lstrip(b" \t\r\n")[:1] == b"[")


def _unsupported(kind: str) -> Problem:
    return Problem(415, f"content-type must be {_JSON}, {_STRUCTURED} or {_STRUCTURED_BATCH}, got {kind!r}")


def may_repeat_a_key(body: bytes) -> bool:
    """Tell in a fraction of an exact check's time that no object in valid JSON says one thing twice, or that one may.

    Written anew from what a parser keeps, the JSON has as many colons as before, unless a key was dropped. Escapes could
    hide a colon of a string from the count, so they are left to the exact check.
    """
    return b"\\" in body or _ENCODER.encode(_ANYTHING.decode(body)).count(b":") != body.count(b":")


_may_repeat = may_repeat_a_key if _keys is None else _keys.may_repeat


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that says one thing twice; parsers differ in which of the two they hear."""
    if len(pairs) != len({name for name, _ in pairs}):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
