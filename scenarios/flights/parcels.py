"""Parcels as the broker speaks of them: the event with its candidates, and the outcome of the one that was chosen."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from features.cloudevents import SPEC_VERSION, CloudEvent
from features.records import Candidate, DestinationState, Outcome
from scenarios.flights.configuration import EVENT_TYPE
from scenarios.flights.timetable import Floats
from scenarios.flights.world import World

SOURCE = "flights/nyc"
MS_PER_MINUTE = 60_000.0


@dataclass(frozen=True)
class Parcels:
    """The parcels of a world, one by one."""

    world: World

    @cached_property
    def ready_at(self) -> list[datetime]:
        """When each parcel is ready, in UTC."""
        return instants(self.world.ready_at)

    @cached_property
    def observed_at(self) -> list[datetime]:
        """When the outcome of each pair is known, in UTC."""
        return instants(self.world.observed_at)

    @cached_property
    def _attributes(self) -> "_Rows":
        return _Rows(self.world.attributes)

    @cached_property
    def _candidate_attributes(self) -> "_Rows":
        return _Rows(self.world.candidate_attributes)

    @cached_property
    def _measures(self) -> "_Rows":
        return _Rows(self.world.measures)

    def name(self, parcel: int) -> str:
        """Return the event id of a parcel."""
        return f"{self.world.airport[parcel]}-{self.ready_at[parcel]:%Y%m%dT%H%M}"

    def event(self, parcel: int) -> CloudEvent:
        """Return the CloudEvent that says a parcel is ready."""
        airport = str(self.world.airport[parcel])
        at = self.ready_at[parcel]
        return CloudEvent(
            specversion=SPEC_VERSION,
            id=self.name(parcel),
            source=SOURCE,
            type=EVENT_TYPE,
            time=at,
            data={"airport": airport, **self._attributes[parcel]},
        )

    def candidates(self, parcel: int) -> tuple[Candidate, ...]:
        """Return who could take the parcel: what each offers, and its state as known when the parcel is ready."""
        at = self.ready_at[parcel]
        return tuple(
            Candidate(
                destination=str(self.world.destination[pair]),
                attributes=self._candidate_attributes[pair],
                state=DestinationState(observed_at=at, measures=self._measures[pair]),
            )
            for pair in self.pairs(parcel)
        )

    def pairs(self, parcel: int) -> range:
        """Return the pairs of a parcel."""
        return range(int(self.world.offsets[parcel]), int(self.world.offsets[parcel + 1]))

    def pair(self, parcel: int, destination: str) -> int:
        """Return the pair of a parcel and the destination that it was assigned."""
        return next(pair for pair in self.pairs(parcel) if self.world.destination[pair] == destination)

    def outcome(self, pair: int, decision_id: str) -> Outcome:
        """Return what became of a parcel on the flight that it was given."""
        success = bool(self.world.success[pair])
        return Outcome(
            decision_id=decision_id,
            served=str(self.world.destination[pair]),
            observed_at=self.observed_at[pair],
            success=success,
            latency_ms=float(self.world.minutes[pair]) * MS_PER_MINUTE,
            error_class=None if success else "late or never arrived",
        )

    def request(self, parcel: int) -> bytes:
        """Return the body of the question where the parcel should go."""
        return msgspec.json.encode({"event": self.event(parcel), "candidates": self.candidates(parcel)})


def instants(values: "np.ndarray[tuple[int], np.dtype[np.datetime64]]") -> list[datetime]:
    """Return datetime64 (UTC) as aware datetimes."""
    return [value.replace(tzinfo=UTC) for value in values.astype("datetime64[us]").tolist()]


class _Rows:
    """Named columns, read row by row: as dictionaries, without what is not known."""

    def __init__(self, columns: Mapping[str, Floats]) -> None:
        self._names = tuple(columns)
        self._matrix = np.column_stack(list(columns.values()))

    def __getitem__(self, row: int) -> dict[str, Any]:
        values = self._matrix[row].tolist()
        return {name: value for name, value in zip(self._names, values, strict=True) if not math.isnan(value)}
