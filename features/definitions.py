"""What a stream's features are: an expression for each number, a name for each category, checked when they are read."""

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct

from features import content as contents
from features.expressions import SPACES, compile_expression, names_in
from features.records import DestinationState

STATE_FIELDS = frozenset(DestinationState.__struct_fields__) - {"observed_at", "measures"}
TIME: Mapping[str, Callable[[datetime], float]] = {
    "hour": lambda at: at.hour + at.minute / 60,
    "weekday": lambda at: float(at.weekday()),
    "day_of_year": lambda at: float(at.timetuple().tm_yday),
}


class FeatureDefinitions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The features of a stream, by column name: expressions for numbers, names for categories.

    A category is ``event.x``, ``candidate.x``, ``destination.x``, ``destination.name``, the destination itself, or
    ``content.class``, what the stream's classifier made of the event's text.
    ``zone`` is the time zone in which ``time.hour``, ``time.weekday`` and ``time.day_of_year`` are read.
    """

    numbers: dict[str, str] = {}
    categories: dict[str, str] = msgspec.field(default_factory=lambda: {"destination": "destination.name"})
    zone: str = "UTC"

    def __post_init__(self) -> None:
        """Refuse what cannot be compiled, by the column's name."""
        for column, text in self.numbers.items():
            try:
                compile_expression(text)
            except ValueError as error:
                raise ValueError(f"numbers.{column}: {error}") from None
            for name in sorted(name for space, name in names_in(text) if space == "time" and name not in TIME):
                raise ValueError(f"numbers.{column}: time.{name} is not one of {', '.join(sorted(TIME))}")
            for name in sorted(_content_names(text)):
                if not contents.is_number(name):
                    rule = (
                        "confidence, in_scope, component_ from 1 or probability_ with a class in a-z, 0-9 and single _"
                    )
                    raise ValueError(f"numbers.{column}: content.{name} is not {rule}")
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


def _content_names(text: str) -> set[str]:
    return {name for space, name in names_in(text) if space == "content"}


def space_of(space: str, name: str) -> str:
    """Return the space that a name of the expressions' language is gathered from: some of ``state`` are measures."""
    return "measure" if space == "state" and name not in STATE_FIELDS else space
