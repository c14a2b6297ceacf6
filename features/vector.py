"""The feature vectors of an event's candidates: the one function that computes them, at serving and in training alike."""

import hashlib
import struct
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features import content as contents
from features.content import Content
from features.expressions import SPACES, compile_expression, names_in
from features.layout import Layout, field_reader
from features.records import Candidate, DestinationState, Event, Scalar

Floats = NDArray[np.float64]
Cell = float | int | bool | str | None  # of a row that is being gathered
Categories = tuple[str | None, ...]
Attributes = Mapping[str, Scalar]

STATE_FIELDS = frozenset(DestinationState.__struct_fields__) - {"observed_at", "measures"}
TIME: Mapping[str, Callable[[datetime], float]] = {
    "hour": lambda at: at.hour + at.minute / 60,
    "weekday": lambda at: float(at.weekday()),
    "day_of_year": lambda at: float(at.timetuple().tm_yday),
}

# What is the event's comes first: it is gathered once.
_NUMBER_SPACES = ("event", "time", "content", "expression", "candidate", "destination", "state", "measure")
_CATEGORY_SPACES = ("event", "content", "destination", "candidate")
_TOLD = (*SPACES, "measure", "expression")  # text is refused in this order
_NAN = float("nan")
_NOTHING: Attributes = MappingProxyType({})


class FeatureTypeError(ValueError):
    """A value of the wrong type where a feature reads: names its path and the value."""


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
                    rule = "confidence, in_scope or probability_ with a class in a-z, 0-9 and single _"
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


@dataclass(frozen=True)
class Vectors:
    """Feature vectors of one event's candidates.

    ``numbers`` float64[n_candidates, n_numbers], NaN where missing; ``logged`` are the same, None where missing.
    """

    numbers: Floats
    categories: tuple[Categories, ...]
    logged: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories, each distinct value once: row i holds ``values[codes[i]]``; a code of -1 is missing."""

    codes: NDArray[np.int64]
    values: tuple[str, ...]

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> "CategoryColumn":
        """Return the column of these rows (indices or mask)."""
        return CategoryColumn(self.codes[rows], self.values)


class FeatureSet:
    """Compiled feature definitions.

    Most columns are plain names: those are gathered space by space, the event's once for all candidates. Only what computes
    goes through an expression. ``numbers`` and ``categories`` are the (space, name) of every column, in order; of a number
    that computes that is ``expression`` and its text.
    """

    def __init__(self, definitions: FeatureDefinitions, destinations: Mapping[str, Attributes]) -> None:
        """Compile ``definitions``; ``destinations`` gives the configured attributes of each destination."""
        self.version = definitions.version
        self.number_names = tuple(definitions.numbers)
        self.category_names = tuple(definitions.categories)
        self.content_names = definitions.content_names
        self._destinations = destinations
        self.zone = ZoneInfo(definitions.zone)
        columns = [_place(text) for text in definitions.numbers.values()]
        self.numbers = tuple(columns)
        self.categories = tuple([text.partition(".")[::2] for text in definitions.categories.values()])
        self._numbers = Layout.of(columns, _NUMBER_SPACES)
        self._order = None if self._numbers.is_in_order else np.array(self._numbers.order)
        self._expressions = [
            (column, compile_expression(name)) for column, (space, name) in enumerate(columns) if space == "expression"
        ]
        self._reads_time = bool(self._numbers.names["time"] or self._expressions)
        self._read_state = field_reader(self._numbers.names["state"])
        self._categories = Layout.of(self.categories, _CATEGORY_SPACES)
        self._arrange = self._categories.arranger()
        self._categories_of = {name: self._destination_categories(name) for name in destinations}

    def vectors(
        self, event: Event, candidates: Sequence[Candidate], at: datetime, content: Content | None = None
    ) -> Vectors:
        """Return the vectors of ``candidates`` for ``event`` as known at ``at``; what is not given is missing.

        ``content`` is what a classifier said of the event; None where there is no classifier or no text.

        Raises
        ------
        FeatureTypeError
            If an attribute that a number reads is text.
        """
        local = at.astimezone(self.zone) if self._reads_time else at
        numbers = self._floats(self._gather(event, candidates, local, content), len(candidates))
        if self._expressions:
            scope = _Scope(event, candidates, self._destinations, local, content)
            for column, evaluate in self._expressions:
                numbers[:, column] = evaluate(scope)
        rows: list[list[float]] = numbers.tolist()
        logged: tuple[tuple[float | None, ...], ...] = tuple(map(tuple, rows))
        if not isfinite(sum(map(sum, rows))):  # something is missing or infinite, or the sum is
            numbers[np.isinf(numbers)] = np.nan
            logged = tuple([tuple([cell if isfinite(cell) else None for cell in row]) for row in rows])
        shared = self._shared_categories(event, content)
        categories = tuple([self._own_categories(candidate, shared) for candidate in candidates])
        return Vectors(numbers, categories, logged)

    def _gather(
        self, event: Event, candidates: Sequence[Candidate], local: datetime, content: Content | None
    ) -> list[Cell]:
        """Return the cells of all candidates, one after the other, None where missing; so is what an expression computes."""
        names, destinations = self._numbers.names, self._destinations
        shared: list[Cell] = list(map(event.attributes.get, names["event"]))
        shared += [TIME[name](local) for name in names["time"]]
        shared += [None if content is None else content.number(name) for name in names["content"]]
        shared += [None for _ in names["expression"]]
        of_candidate, of_destination, measures = names["candidate"], names["destination"], names["measure"]
        unknown = [None for _ in (*names["state"], *measures)]
        cells: list[Cell] = []
        for candidate in candidates:
            cells += shared
            cells += map(candidate.attributes.get, of_candidate)
            if of_destination:
                cells += map(destinations.get(candidate.destination, _NOTHING).get, of_destination)
            state = candidate.state
            if state is None:
                cells += unknown
                continue
            cells += self._read_state(state)
            if measures:
                cells += map(state.measures.get, measures)
        return cells

    def _floats(self, cells: Sequence[Cell], n_candidates: int) -> Floats:
        """Return gathered cells as float64[n_candidates, n_numbers], in the order of the definitions; None is NaN."""
        try:
            floats = bytearray(struct.pack(f"{len(cells)}d", *cells))  # in half of an array's time
        except struct.error:  # something is missing, text, or too large
            self._refuse_text(cells)
            floats = bytearray(array("d", [_NAN if cell is None else cell for cell in cells]))  # type: ignore[type-var]  # no text is left
        numbers = np.frombuffer(floats).reshape(n_candidates, len(self.number_names))
        return numbers if self._order is None else numbers.take(self._order, axis=1)

    def _refuse_text(self, cells: Sequence[Cell]) -> None:
        """Raise for the first column that holds text, in the order of the spaces."""
        columns = self._numbers.gathered
        texts = [place for place, cell in enumerate(cells) if isinstance(cell, str)]
        if texts:
            place = min(texts, key=lambda place: _TOLD.index(columns[place % len(columns)][0]))
            space, name = columns[place % len(columns)]
            of = "state" if space == "measure" else space
            raise FeatureTypeError(f"{of}.{name} must be a number, got {cells[place]!r}")

    def _shared_categories(self, event: Event, content: Content | None) -> Categories:
        names = self._categories.names
        read = map(text_of, map(event.attributes.get, names["event"]))
        return *read, *(None if content is None else content.category() for _ in names["content"])

    def _own_categories(self, candidate: Candidate, shared: Categories) -> Categories:
        name, of_candidate = candidate.destination, self._categories.names["candidate"]
        row = shared + (self._categories_of.get(name) or self._destination_categories(name))
        if of_candidate:
            row += tuple(map(text_of, map(candidate.attributes.get, of_candidate)))
        return self._arrange(row)

    def _destination_categories(self, destination: str) -> Categories:
        attributes = self._destinations.get(destination, _NOTHING)
        names = self._categories.names["destination"]
        return tuple([destination if name == "name" else text_of(attributes.get(name)) for name in names])


def _place(text: str) -> tuple[str, str]:
    """Return the space and the name of a number that is a plain name, else ``expression``."""
    space, _, name = text.strip().partition(".")
    if space not in SPACES or not name.isidentifier():
        return "expression", text
    return space_of(space, name), name


def space_of(space: str, name: str) -> str:
    """Return the space that a name of the expressions' language is gathered from: some of ``state`` are measures."""
    return "measure" if space == "state" and name not in STATE_FIELDS else space


class _Scope:
    """The names an expression can see, each gathered at most once per event."""

    def __init__(
        self,
        event: Event,
        candidates: Sequence[Candidate],
        destinations: Mapping[str, Attributes],
        at: datetime,
        content: Content | None,
    ) -> None:
        self._event = event
        self._candidates = candidates
        self._destinations = destinations
        self._at = at
        self._content = content
        self._seen: dict[tuple[str, str], Floats] = {}

    def __call__(self, space: str, name: str) -> Floats:
        column = self._seen.get((space, name))
        if column is None:
            column = self._seen[space, name] = self._gather(space, name)
        return column

    def _gather(self, space: str, name: str) -> Floats:
        n_candidates = len(self._candidates)
        if not name:  # a constant asks only for the shape
            return np.empty(n_candidates)
        if space == "time":
            return np.full(n_candidates, TIME[name](self._at))
        if space == "content":
            return np.full(n_candidates, np.nan if self._content is None else self._content.number(name))
        if space == "event":
            return np.full(n_candidates, _number(self._event.attributes.get(name), space, name))
        values = (self._value(candidate, space, name) for candidate in self._candidates)
        return np.fromiter((_number(value, space, name) for value in values), np.float64, n_candidates)

    def _value(self, candidate: Candidate, space: str, name: str) -> Scalar:
        if space == "event":
            return self._event.attributes.get(name)
        if space == "candidate":
            return candidate.attributes.get(name)
        if space == "destination":
            return self._destinations.get(candidate.destination, {}).get(name)
        state = candidate.state
        if state is None:
            return None
        measured: Scalar = getattr(state, name) if name in STATE_FIELDS else state.measures.get(name)
        return measured


def text_of(value: Scalar) -> str | None:
    """Return a value as the category that it is, None where it is missing."""
    return None if value is None else str(value)


def _number(value: Scalar, space: str, name: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str):
        raise FeatureTypeError(f"{space}.{name} must be a number, got {value!r}")
    return float(value)
