"""The feature vectors of an event's candidates: the one function that computes them, at serving and in training alike."""

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features import content as contents
from features.content import Content
from features.expressions import SPACES, Compiled, compile_expression, names_in
from features.records import Candidate, DestinationState, Event, Scalar

Floats = NDArray[np.float64]
Cell = float | int | bool | str | None  # of a row that is being gathered
Attributes = Mapping[str, Scalar]

STATE_FIELDS = frozenset(DestinationState.__struct_fields__) - {"observed_at", "measures"}
_TIME: Mapping[str, Callable[[datetime], float]] = {
    "hour": lambda at: at.hour + at.minute / 60,
    "weekday": lambda at: float(at.weekday()),
    "day_of_year": lambda at: float(at.timetuple().tm_yday),
}


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
            for name in sorted(name for space, name in names_in(text) if space == "time" and name not in _TIME):
                raise ValueError(f"numbers.{column}: time.{name} is not one of {', '.join(sorted(_TIME))}")
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
    """Feature vectors of one event's candidates: ``numbers`` float64[n_candidates, n_numbers], NaN where missing."""

    numbers: Floats
    categories: list[list[str | None]]


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

    Most columns are plain names: those are gathered row by row, the event's once for all. Only what computes goes through an
    expression.
    """

    def __init__(self, definitions: FeatureDefinitions, destinations: Mapping[str, Attributes]) -> None:
        """Compile ``definitions``; ``destinations`` gives the configured attributes of each destination."""
        self.version = definitions.version
        self.number_names = tuple(definitions.numbers)
        self.category_names = tuple(definitions.categories)
        self.content_names = definitions.content_names
        self._destinations = destinations
        self._zone = ZoneInfo(definitions.zone)
        self._expressions: list[tuple[int, Compiled]] = []
        plain: dict[str, list[tuple[int, str]]] = {space: [] for space in (*SPACES, "measure")}
        for column, text in enumerate(definitions.numbers.values()):
            space, _, name = text.strip().partition(".")
            if space not in SPACES or not name.isidentifier():
                self._expressions.append((column, compile_expression(text)))
            elif space == "state" and name not in STATE_FIELDS:
                plain["measure"].append((column, name))
            else:
                plain[space].append((column, name))
        self._plain = plain
        self._blank: list[Cell] = [_NAN] * len(self.number_names)
        categories = [text.partition(".")[::2] for text in definitions.categories.values()]
        places = [(place, *of) for place, of in enumerate(categories)]
        self._event_categories = [(place, name) for place, space, name in places if space == "event"]
        self._content_categories = [place for place, space, _ in places if space == "content"]
        self._own_categories = [of for of in places if of[1] not in ("event", "content")]
        self._n_categories = len(categories)

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
        local = at.astimezone(self._zone)
        numbers = self._numbers(event, candidates, local, content)
        if self._expressions:
            scope = _Scope(event, candidates, self._destinations, local, content)
            for column, evaluate in self._expressions:
                numbers[:, column] = evaluate(scope)
        if np.isinf(numbers).any():
            numbers[np.isinf(numbers)] = np.nan
        return Vectors(numbers, self._categories(event, candidates, content))

    def _numbers(
        self, event: Event, candidates: Sequence[Candidate], local: datetime, content: Content | None
    ) -> Floats:
        """Return the columns that are plain names, float64[n_candidates, n_numbers], NaN elsewhere."""
        plain, shared = self._plain, self._blank.copy()
        for column, name in plain["event"]:
            shared[column] = event.attributes.get(name, _NAN)
        for column, name in plain["time"]:
            shared[column] = _TIME[name](local)
        if content is not None:
            for column, name in plain["content"]:
                shared[column] = content.number(name)
        cells: list[Cell] = []
        for candidate in candidates:
            row = shared.copy()
            self._gather(candidate, row)
            cells += row
        return self._floats(cells).reshape(len(candidates), len(shared))

    def _gather(self, candidate: Candidate, row: list[Cell]) -> None:
        """Fill in the columns that are the candidate's own."""
        plain, state = self._plain, candidate.state
        attributes: Attributes = candidate.attributes
        for column, name in plain["candidate"]:
            row[column] = attributes.get(name, _NAN)
        if plain["destination"]:
            attributes = self._destinations.get(candidate.destination, _NOTHING)
            for column, name in plain["destination"]:
                row[column] = attributes.get(name, _NAN)
        if state is not None:
            for column, name in plain["state"]:
                row[column] = getattr(state, name)
            for column, name in plain["measure"]:
                row[column] = state.measures.get(name, _NAN)

    def _floats(self, cells: list[Cell]) -> Floats:
        """Return ``cells``, row after row, as float64[n]; None is NaN."""
        known = [_NAN if cell is None else cell for cell in cells] if None in cells else cells
        try:
            return np.frombuffer(array("d", known))  # type: ignore[type-var]  # text is what raises
        except TypeError:
            self._refuse_text(cells)
            raise

    def _refuse_text(self, cells: list[Cell]) -> None:
        """Name the first column that holds text, in the order of the spaces."""
        n_numbers = len(self.number_names)
        for space, columns in self._plain.items():
            for start in range(0, len(cells), n_numbers):
                for column, name in columns:
                    if isinstance(cell := cells[start + column], str):
                        of = "state" if space == "measure" else space
                        raise FeatureTypeError(f"{of}.{name} must be a number, got {cell!r}")

    def _categories(
        self, event: Event, candidates: Sequence[Candidate], content: Content | None
    ) -> list[list[str | None]]:
        """Return one list of categories per candidate."""
        shared: list[str | None] = [None] * self._n_categories
        for place, name in self._event_categories:
            shared[place] = _text(event.attributes.get(name))
        for place in self._content_categories:
            shared[place] = None if content is None else content.category()
        rows = []
        for candidate in candidates:
            row = shared.copy()
            for place, space, name in self._own_categories:
                if space == "candidate":
                    row[place] = _text(candidate.attributes.get(name))
                elif name == "name":
                    row[place] = candidate.destination
                else:
                    row[place] = _text(self._destinations.get(candidate.destination, _NOTHING).get(name))
            rows.append(row)
        return rows


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
            return np.full(n_candidates, _TIME[name](self._at))
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


def _text(value: Scalar) -> str | None:
    return None if value is None else str(value)


def _number(value: Scalar, space: str, name: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str):
        raise FeatureTypeError(f"{space}.{name} must be a number, got {value!r}")
    return float(value)
