"""The feature vectors of an event's candidates: the one function that computes them, at serving and in training alike."""

import struct
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from types import MappingProxyType
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from features.content import Content
from features.definitions import TIME, FeatureDefinitions, space_of
from features.expressions import SPACES, compile_expression, names_in
from features.layout import Layout, field_reader
from features.records import Candidate, Event, Scalar
from features.scope import EventScope, FeatureTypeError

Floats = NDArray[np.float64]
Cell = float | int | bool | str | None  # of a row that is being gathered
Categories = tuple[str | None, ...]
Attributes = Mapping[str, Scalar]

# What is the event's comes first: it is gathered once.
_NUMBER_SPACES = ("event", "time", "content", "expression", "candidate", "destination", "state", "measure")
_CATEGORY_SPACES = ("event", "content", "destination", "candidate")
_TOLD = (*SPACES, "measure", "expression")  # text is refused in this order
_NAN = float("nan")
_NOTHING: Attributes = MappingProxyType({})


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
    that computes that is ``expression`` and its text. ``operands`` is what the expressions read, ``destinations`` the
    configured attributes of each.
    """

    def __init__(self, definitions: FeatureDefinitions, destinations: Mapping[str, Attributes]) -> None:
        """Compile ``definitions``; ``destinations`` gives the configured attributes of each destination."""
        self.version = definitions.version
        self.number_names = tuple(definitions.numbers)
        self.category_names = tuple(definitions.categories)
        self.content_names = definitions.content_names
        self.destinations = destinations
        self.zone = ZoneInfo(definitions.zone)
        columns = [_place(text) for text in definitions.numbers.values()]
        self.numbers = tuple(columns)
        self.operands = _operands(text for space, text in columns if space == "expression")
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
            scope = EventScope(event, candidates, self.destinations, local, content)
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
        names, destinations = self._numbers.names, self.destinations
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
        return tuple([self.destination_category(destination, name) for name in self._categories.names["destination"]])

    def destination_category(self, destination: str, name: str) -> str | None:
        """Return what ``destination.name`` is of a destination: its own name, or an attribute as a category."""
        return destination if name == "name" else text_of(self.destinations.get(destination, _NOTHING).get(name))


def _place(text: str) -> tuple[str, str]:
    """Return the space and the name of a number that is a plain name, else ``expression``."""
    space, _, name = text.strip().partition(".")
    if space not in SPACES or not name.isidentifier():
        return "expression", text
    return space_of(space, name), name


def _operands(texts: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Return the (space, name) of all that expressions read, each once."""
    return tuple(sorted({(space_of(space, name), name) for text in texts for space, name in names_in(text) if name}))


def text_of(value: Scalar) -> str | None:
    """Return a value as the category that it is, None where it is missing."""
    return None if value is None else str(value)
