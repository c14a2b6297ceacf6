"""A first turnout.toml from a sample of events: what was seen becomes streams, destinations and features; the rest is asked."""

import json
import keyword
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from features import config, lines
from features.cloudevents import CloudEvent, DecisionRequest
from features.definitions import STATE_FIELDS

MAX_EVENTS = 10_000  # more of a sample says nothing new about names and kinds
_MAX_CATEGORIES = 200  # of one attribute; beyond, it is an identifier or prose


class SampleError(ValueError):
    """A sample from which no configuration can be made: names the file, the line and the reason."""


@dataclass(kw_only=True)
class _Attribute:
    """What was seen of one attribute: kinds of values, and the distinct texts as long as they are few."""

    kinds: set[str] = field(default_factory=set)
    texts: set[str] = field(default_factory=set)

    def see(self, value: object) -> None:
        if isinstance(value, str):
            self.kinds.add("text")
            if len(self.texts) <= _MAX_CATEGORIES:
                self.texts.add(value)
        elif isinstance(value, bool | int | float):
            self.kinds.add("number")
        elif value is not None:
            self.kinds.add("structure")

    def objection(self, name: str) -> str | None:
        """Return why this can be no feature; None if it can."""
        if self.kinds not in ({"number"}, {"text"}):
            return f"holds {' and '.join(sorted(self.kinds)) or 'nothing'}"
        if self.kinds == {"text"}:
            many = len(self.texts) > _MAX_CATEGORIES
            return f"has more than {_MAX_CATEGORIES} values: an identifier, or prose" if many else None
        if not name.isascii() or not name.isidentifier() or keyword.iskeyword(name):
            return "is no name that an expression can read"
        return None


@dataclass(kw_only=True)
class _Stream:
    """What was seen of the events of one type; attributes by the space that expressions read them in."""

    n_events: int = 0
    destinations: dict[str, None] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    attributes: dict[str, dict[str, _Attribute]] = field(default_factory=dict)

    def see(self, request: DecisionRequest) -> None:
        self.n_events += 1
        event = request.event
        self.labels.update(filter(None, (label.strip() for label in (event.dataclassification or "").split(","))))
        self._see_all("event", event.data)
        for candidate in request.candidates or ():
            self.destinations[candidate.destination] = None
            self._see_all("candidate", candidate.attributes)
            if candidate.state is not None:
                known = {name: getattr(candidate.state, name) for name in sorted(STATE_FIELDS)}
                told = {name: value for name, value in known.items() if value is not None}
                self._see_all("state", told | candidate.state.measures)

    def _see_all(self, space: str, values: Mapping[str, Any]) -> None:
        seen = self.attributes.setdefault(space, {})
        for name, value in values.items():
            seen.setdefault(name, _Attribute()).see(value)


def draft(sample: Path, *, destinations: Sequence[str] = ()) -> str:
    """Return the text of a turnout.toml for the events in ``sample``: JSON Lines of CloudEvents or decision requests.

    Every type becomes a stream, in mode ``off``: the static routes decide until somebody sets another. Numbers and texts
    with few values become features; what was left out stands beside them as a comment. Destinations are the candidates
    that were seen; ``destinations`` is for samples that name none.

    Raises
    ------
    SampleError
        If the file cannot be read or holds no event, a line is neither, or no destination is known.
    """
    streams: dict[str, _Stream] = {}
    for request in _requests(sample):
        streams.setdefault(request.event.type, _Stream()).see(request)
    if not streams:
        raise SampleError(f"{sample}: there is no event in it")
    for event_type, stream in streams.items():
        stream.destinations |= dict.fromkeys(destinations)
        if not stream.destinations:
            raise SampleError(f"{sample}: events of type {event_type!r} name no candidates: say the destinations")
    text = _compose(streams, sample.name)
    config.parse(text, name=f"the configuration drafted from {sample}")
    return text


def write(path: Path, text: str) -> None:
    """Write a new file.

    Raises
    ------
    SampleError
        If there is one already: somebody's work is in it.
    """
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise SampleError(f"{path} exists already: it is not overwritten") from None


def _requests(sample: Path) -> Iterable[DecisionRequest]:
    try:
        for number, line in enumerate(islice(lines.read(sample), MAX_EVENTS), start=1):
            if line.raw.strip():
                yield _request(line.raw, f"{sample}:{number}")
    except OSError as error:
        raise SampleError(f"{sample}: cannot be read: {error.strerror}") from None


def _request(raw: bytes, place: str) -> DecisionRequest:
    try:
        document = msgspec.json.decode(raw, type=dict[str, Any])
        if "event" in document:
            return msgspec.convert(document, DecisionRequest)
        return DecisionRequest(event=msgspec.convert(document, CloudEvent))
    except msgspec.MsgspecError as error:
        raise SampleError(f"{place}: neither a CloudEvent nor a decision request: {error}") from None


def _compose(streams: Mapping[str, _Stream], source: str) -> str:
    names = _stream_names(streams)
    destinations = sorted({name for stream in streams.values() for name in stream.destinations})
    parts = [f"# Drafted from {_comment(source)}: read it, and correct what the sample could not say."]
    parts += [_stream_tables(names[event_type], event_type, stream) for event_type, stream in streams.items()]
    parts += [f'[destinations.{_key(name)}]\n# region = "eu"  # what residency rules read' for name in destinations]
    if labels := sorted({label for stream in streams.values() for label in stream.labels}):
        parts.append(_rule_hint(labels))
    return "\n\n".join(parts) + "\n"


def _stream_tables(name: str, event_type: str, stream: _Stream) -> str:
    table, order = f"streams.{_key(name)}", ", ".join(map(_quote, stream.destinations))
    numbers, categories, left_out = _features(stream)
    return "\n".join(
        [
            f"[{table}]  # {stream.n_events} events of the sample",
            f"types = [{_quote(event_type)}]",
            f"destinations = [{order}]",
            'mode = "off"  # the static routes decide; then observe, canary, on',
            "",
            f"[{table}.static]",
            f"default = [{order}]  # most wanted first: your present rule",
            "",
            f"[{table}.objective]",
            "success = 1.0           # what an outcome is worth: also latency_minute, cost_usd, sla",
            "window_minutes = 60.0   # how long an outcome is waited for",
            "",
            f"[{table}.exploration]",
            "static_epsilon = 0.0    # above 0, this share of events is drawn evenly: without it nothing can be learned",
            "",
            f"[{table}.features.numbers]",
            *(f"{_key(column)} = {_quote(text)}" for column, text in numbers.items()),
            *left_out,
            "",
            f"[{table}.features.categories]",
            *(f"{_key(column)} = {_quote(text)}" for column, text in categories.items()),
        ]
    )


def _features(stream: _Stream) -> tuple[dict[str, str], dict[str, str], list[str]]:
    """Return numbers and categories by column, and a comment for everything that was left out."""
    numbers = {"hour": "time.hour", "weekday": "time.weekday"}
    categories = {"destination": "destination.name"}
    left_out: list[str] = []
    for space, attributes in stream.attributes.items():
        for name, seen in sorted(attributes.items()):
            objection = seen.objection(name)
            if objection is None and space == "state" and seen.kinds == {"text"}:
                objection = "is text, and a state is measured in numbers"
            if objection is not None:
                left_out.append(f"# {space}.{_comment(name)} {objection}")
                continue
            column = name
            while column in numbers or column in categories:
                column = f"{space}_{column}"
            (numbers if seen.kinds == {"number"} else categories)[column] = f"{space}.{name}"
    return numbers, categories, left_out


def _stream_names(event_types: Iterable[str]) -> dict[str, str]:
    """Return a name for each type: its last part, or all of it where two end alike."""
    short = {event_type: event_type.rsplit(".", 1)[-1] or event_type for event_type in event_types}
    return {
        event_type: name if list(short.values()).count(name) == 1 else event_type for event_type, name in short.items()
    }


def _rule_hint(labels: Sequence[str]) -> str:
    seen = ", ".join(map(_comment, labels))
    return "\n".join(
        [
            f"# The sample carries the labels {seen}. A rule is hard: what it does not allow is never chosen.",
            "# [[rules]]",
            f"# name = {_quote('residency')}",
            f"# label = {_quote(_comment(labels[0]))}",
            '# allow_regions = ["eu"]',
        ]
    )


def _quote(text: str) -> str:
    """Return ``text`` as a TOML string, which is JSON's but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _key(name: str) -> str:
    """Return ``name`` as a TOML key: bare where that is allowed."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _quote(name)


def _comment(text: str) -> str:
    """Return ``text`` without what would end a comment, or has no place in one."""
    return "".join(character if character.isprintable() else "?" for character in text)
