"""What a stream's features are: an expression for each number, a name for each category, checked when they are read."""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct
from msgspec.structs import force_setattr

from features import content as contents
from features.expressions import SPACES, compile_expression, names_in
from features.records import DestinationState

STATE_FIELDS = frozenset(DestinationState.__struct_fields__) - {"observed_at", "measures"}
MAX_RANGE = 1_000
_RANGE = re.compile(r"\{(\d{1,6})\.\.(\d{1,6})\}")
TIME: Mapping[str, Callable[[datetime], float]] = {
    "hour": lambda at: at.hour + at.minute / 60,
    "weekday": lambda at: float(at.weekday()),
    "day_of_year": lambda at: float(at.timetuple().tm_yday),
}


class FeatureDefinitions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The features of a stream, by column name: expressions for numbers, names for categories.

    A category is ``event.x``, ``candidate.x``, ``destination.x``, ``destination.name``, the destination itself, or
    ``content.class``, what the stream's classifier made of the event's text.
    ``"axis_{1..3}" = "content.component_{1..3}"`` stands for three numbers, ``axis_1`` and so on, each with its own text.
    ``zone`` is the time zone in which ``time.hour``, ``time.weekday`` and ``time.day_of_year`` are read.
    """

    numbers: dict[str, str] = {}
    categories: dict[str, str] = msgspec.field(default_factory=lambda: {"destination": "destination.name"})
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Write ranges out; refuse what cannot be compiled, by the column's name."""
        if any(_RANGE.search(column + text) for column, text in self.numbers.items()):
            force_setattr(self, "numbers", _write_out(self.numbers))
        for column, text in self.numbers.items():
            _check_number(column, text)
        for column, text in self.categories.items():
            space, _, name = text.partition(".")
            of_content = (space, name) == ("content", contents.CATEGORY)
            if not of_content and (space not in (*SPACES[:2], "destination") or not name):
                raise ValueError(
                    f"categories.{column}: {text!r} is not event.x, candidate.x, destination.x or content.class"
                )
        if twice := self.numbers.keys() & self.categories.keys():
            raise ValueError(f"a column is either a number or a category, got both for {', '.join(sorted(twice))}")
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"zone: {self.zone!r} is not an IANA time zone") from None

    @property
    def version(self) -> str:
        """A name for exactly these definitions, in this order."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:12]

    @property
    def content_names(self) -> frozenset[str]:
        """What is read of the space ``content``; empty where no classifier is needed."""
        read = {name for text in self.numbers.values() for name in _content_names(text)}
        read |= {text.partition(".")[2] for text in self.categories.values() if text.startswith("content.")}
        return frozenset(read)


def _check_number(column: str, text: str) -> None:
    try:
        compile_expression(text)
    except ValueError as error:
        raise ValueError(f"numbers.{column}: {error}") from None
    for name in sorted(name for space, name in names_in(text) if space == "time" and name not in TIME):
        raise ValueError(f"numbers.{column}: time.{name} is not one of {', '.join(sorted(TIME))}")
    for name in sorted(_content_names(text)):
        if not contents.is_number(name):
            rule = "confidence, in_scope, component_ from 1 or probability_ with a class in a-z, 0-9 and single _"
            raise ValueError(f"numbers.{column}: content.{name} is not {rule}")


def _write_out(numbers: Mapping[str, str]) -> dict[str, str]:
    """Return every number by itself, in order."""
    written: dict[str, str] = {}
    for column, text in numbers.items():
        for each, its_text in _members(column, text):
            if each in written:
                raise ValueError(f"numbers.{column}: {each!r} is a column already")
            written[each] = its_text
    return written


def _members(column: str, text: str) -> Iterator[tuple[str, str]]:
    ranges = {(int(first), int(last)) for first, last in _RANGE.findall(column + text)}
    if not ranges:
        yield column, text
        return
    (first, last), *others = sorted(ranges)
    if others or len(_RANGE.findall(column)) != 1 or not _RANGE.search(text):
        raise ValueError(f"numbers.{column}: a range stands once in the name, and the same one in the text {text!r}")
    if not 0 <= last - first < MAX_RANGE:
        raise ValueError(f"numbers.{column}: a range has 1 to {MAX_RANGE} members, got {first} to {last}")
    for number in range(first, last + 1):
        yield _RANGE.sub(str(number), column), _RANGE.sub(str(number), text)


def _content_names(text: str) -> set[str]:
    return {name for space, name in names_in(text) if space == "content"}


def space_of(space: str, name: str) -> str:
    """Return the space that a name of the expressions' language is gathered from: some of ``state`` are measures."""
    return "measure" if space == "state" and name not in STATE_FIELDS else space
