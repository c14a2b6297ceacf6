"""From a source's bytes or cells to a checked record, or to the rule and the field that it breaks."""

import math
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from features.records import SCHEMA_VERSION, Decision, Outcome, Record

_AT_PATH = re.compile(r".* - at `\$\.?(?P<field>\w*)[^`]*`$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<field>\w+)`")
_LISTS = frozenset({"destinations", "mixture", "numbers", "categories"})
_MAPPINGS = frozenset({"policies", "predictions", "excluded", "override"})
_INSTANTS: Mapping[type[Record], tuple[str, ...]] = {
    Decision: ("decided_at", "event_time"),
    Outcome: ("observed_at",),
}
_KNOWN = {kind: frozenset((*kind.__struct_fields__, "record")) for kind in (Decision, Outcome)}
_REQUIRED = {
    kind: frozenset(field.name for field in msgspec.structs.fields(kind) if field.required)
    for kind in (Decision, Outcome)
}
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_RECORDS = msgspec.json.Decoder(Decision | Outcome)


class BrokenRowError(ValueError):
    """A row that is no record: names the rule it breaks, and the field where one can be blamed."""

    def __init__(self, rule: str, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.rule = rule
        self.field = field


class Decoded(NamedTuple):
    """A record, and the fields beside it that no record has, as JSON by name."""

    record: Record
    extras: dict[str, bytes]


def decode_json(payload: bytes) -> Decoded:
    """Return the record in ``payload``: a record's JSON, or a structured CloudEvent around it.

    Raises
    ------
    BrokenRowError
        Under one of the rules ``bad_json``, ``not_utf8``, ``too_deep``, ``missing_field``, ``invalid_value``,
        ``no_zone`` or ``unknown_schema``.
    """
    body: bytes | msgspec.Raw = payload
    try:
        fields = _FIELDS.decode(body)
        if "specversion" in fields:
            body = fields.get("data", msgspec.Raw(b"{}"))
            fields = _FIELDS.decode(body)
        record: Record = _RECORDS.decode(body)
    except UnicodeDecodeError as error:
        raise BrokenRowError("not_utf8", str(error)) from None
    except RecursionError:
        raise BrokenRowError("too_deep", "nested too deep to be a record") from None
    except msgspec.ValidationError as error:
        raise _broken(error) from None
    except msgspec.DecodeError as error:
        raise BrokenRowError("bad_json", str(error)) from None
    extras = {name: bytes(fields[name]) for name in fields.keys() - _KNOWN[type(record)]}
    return Decoded(_checked(record), extras)


def kind_of(columns: frozenset[str]) -> type[Record]:
    """Return which record rows with these columns are: a decision has ``assigned``, an outcome has ``served``.

    Raises
    ------
    BrokenRowError
        Under the rule ``missing_column``, naming what is missing.
    """
    kind: type[Record] | None = Decision if "assigned" in columns else Outcome if "served" in columns else None
    if kind is None:
        raise BrokenRowError("missing_column", "a decision has a column 'assigned', an outcome 'served': got neither")
    if missing := ", ".join(sorted(_REQUIRED[kind] - columns)):
        raise BrokenRowError("missing_column", f"{kind.__name__.lower()} rows lack: {missing}", missing)
    return kind


def convert_cells(cells: Mapping[str, Any], kind: type[Record]) -> Decoded:
    """Return the record in a row of a table; text stands for numbers, flags and instants, JSON text for lists.

    Raises
    ------
    BrokenRowError
        As `decode_json` does, and ``not_finite``.
    """
    known = {name: _cell(name, value) for name, value in cells.items() if name in _KNOWN[kind] and value is not None}
    try:
        record: Record = msgspec.convert(known, kind, strict=False)
    except msgspec.ValidationError as error:
        raise _broken(error) from None
    for name, value in known.items():
        if any(not math.isfinite(number) for number in _floats(getattr(record, name, value))):
            raise BrokenRowError("not_finite", f"{name} holds a number that is not finite", name)
    extras = {
        name: msgspec.json.encode(value, enc_hook=str)
        for name, value in cells.items()
        if name not in _KNOWN[kind] and value is not None
    }
    return Decoded(_checked(record), extras)


def _cell(name: str, value: Any) -> Any:
    if name not in _LISTS | _MAPPINGS:
        return value
    if isinstance(value, str):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BrokenRowError("invalid_value", f"{name} must be JSON: {error}", name) from None
    if name in _MAPPINGS:
        return _mapping(value)
    return value


def _mapping(value: Any) -> Any:
    """Columnar files hold a mapping as pairs, or as a struct with a null for each key that other rows have."""
    if isinstance(value, list) and all(isinstance(pair, tuple) for pair in value):
        value = dict(value)
    if isinstance(value, dict):
        return {key: _mapping(inner) for key, inner in value.items() if inner is not None}
    return value


def _floats(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _floats(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _floats(inner)


def _checked(record: Record) -> Record:
    if record.schema != SCHEMA_VERSION:
        raise BrokenRowError("unknown_schema", f"schema must be {SCHEMA_VERSION}, got {record.schema}", "schema")
    for field in _INSTANTS[type(record)]:
        instant: datetime | None = getattr(record, field)
        if instant is not None and instant.tzinfo is None:
            raise BrokenRowError("no_zone", f"{field} must carry a zone, got {instant.isoformat()}", field)
    return record


def _broken(error: msgspec.ValidationError) -> BrokenRowError:
    message = str(error)
    missing, located = _MISSING.match(message), _AT_PATH.match(message)
    field = (located and located["field"]) or (missing and missing["field"]) or None
    return BrokenRowError("missing_field" if missing else "invalid_value", message, field)
