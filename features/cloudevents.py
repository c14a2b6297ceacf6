"""CloudEvents 1.0: the wire form of events in and of records out, JSON (structured) and HTTP headers (binary)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from features import clock
from features.config import Configuration
from features.records import Candidate, Decision, Event, Identifier, Record, Scalar

SPEC_VERSION = "1.0"
DECISION_TYPE = "turnout.decision"
OUTCOME_TYPE = "turnout.outcome"
_SCALARS = (float, int, str)  # a tuple, which is looked through twice as fast as a union; bool is an int
_SCALAR_TYPES = frozenset((*_SCALARS, bool, type(None)))
TIMESTAMP_RULE = "an RFC 3339 instant with its zone"


class UnknownTypeError(ValueError):
    """An event of a type that no stream claims."""


class CloudEvent(Struct, frozen=True, kw_only=True):
    """The attributes of a CloudEvent that Turnout reads; its extensions beyond these are let pass."""

    specversion: str
    id: Identifier
    source: Identifier
    type: Identifier
    time: Annotated[datetime, Meta(tz=True)] | None = None
    partitionkey: Identifier | None = None
    dataclassification: str | None = None
    data: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse another version of the specification."""
        if self.specversion != SPEC_VERSION:
            raise ValueError(f"specversion must be {SPEC_VERSION!r}, got {self.specversion!r}")


class TextTypeError(ValueError):
    """A text that is none: names its field in the event's data and the value's type."""


class DecisionRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A question: where should this event go? Without ``candidates`` every destination of its stream may serve it."""

    event: CloudEvent
    candidates: tuple[Candidate, ...] | None = None
    decision_id: Identifier | None = None


def event_of(cloud_event: CloudEvent, configuration: Configuration) -> Event:
    """Return the event that ``cloud_event`` carries: the scalars of its data are the event's attributes.

    Raises
    ------
    UnknownTypeError
        If no stream claims its type.
    TextTypeError
        If the stream's ``text_field`` holds something else than text.
    """
    stream = configuration.stream_of(cloud_event.type)
    if stream is None:
        raise UnknownTypeError(f"type: no stream is configured for {cloud_event.type!r}")
    text_field = configuration.streams[stream].text_field
    text = cloud_event.data.get(text_field) if text_field else None
    if text is not None and not isinstance(text, str):
        raise TextTypeError(f"data.{text_field} must be text, got {type(text).__name__}")
    return Event(
        id=cloud_event.id,
        source=cloud_event.source,
        type=cloud_event.type,
        stream=stream,
        time=clock.utc(cloud_event.time) if cloud_event.time else None,
        key=cloud_event.partitionkey,
        attributes=_scalars(cloud_event.data),
        text=text,
        labels=labels_of(cloud_event.dataclassification),
    )


def _scalars(data: Mapping[str, Any]) -> dict[str, Scalar]:
    if _SCALAR_TYPES.issuperset(map(type, data.values())):  # mostly, and told at once
        return dict(data)
    return {name: value for name, value in data.items() if value is None or isinstance(value, _SCALARS)}


def labels_of(classification: str | None) -> tuple[str, ...]:
    """Return the labels in an event's ``dataclassification``, which separates them by commas."""
    if classification is None:
        return ()
    return tuple(filter(None, (label.strip() for label in classification.split(","))))


def from_headers(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """Return the CloudEvent of a binary-mode HTTP message: attributes in ``ce-`` headers (lower case), data in the body.

    Raises
    ------
    msgspec.ValidationError
        Naming the attribute.
    """
    attributes: dict[str, Any] = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    attributes["data"] = msgspec.json.decode(body, type=dict[str, Any]) if body else {}
    return msgspec.convert(attributes, CloudEvent, strict=False)


def envelope(record: Record, *, source: str = "turnout") -> bytes:
    """Return ``record`` as a structured CloudEvent in JSON."""
    if isinstance(record, Decision):
        kind, identity, time = DECISION_TYPE, record.decision_id, record.decided_at
    else:
        kind, identity, time = OUTCOME_TYPE, f"{record.decision_id}/{record.attempt}", record.observed_at
    attributes = {
        "specversion": SPEC_VERSION,
        "id": identity,
        "source": source,
        "type": kind,
        "time": time,
        "data": record,
    }
    return msgspec.json.encode(attributes)
