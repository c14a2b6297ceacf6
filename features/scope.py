"""The names that an expression can see of one event and its candidates, as columns."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from features.content import Content
from features.definitions import STATE_FIELDS, TIME
from features.records import Candidate, Event, Scalar

Floats = NDArray[np.float64]
Attributes = Mapping[str, Scalar]


class FeatureTypeError(ValueError):
    """A value of the wrong type where a feature reads: names its path and the value."""


class EventScope:
    """The columns of an event, float64[n_candidates] each, gathered at most once; what is missing is NaN."""

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
        """Return the column of a name; raises FeatureTypeError where a value is text."""
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


def _number(value: Scalar, space: str, name: str) -> float:
    if value is None:
        return float("nan")
    if isinstance(value, str):
        raise FeatureTypeError(f"{space}.{name} must be a number, got {value!r}")
    return float(value)
