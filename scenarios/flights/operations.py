"""How flying goes at an instant, from nothing but what had happened by then: delays, cancellations, flights overdue."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scenarios.flights.facts import Codes, Facts, code
from scenarios.flights.timetable import Floats, Instants, Timetable

HOUR = 60
DAY = 24 * HOUR
N_LATEST = 10


class Candidates(NamedTuple):
    """Flights that events may take: rows of the timetable and the instants at which they are asked about."""

    row: Codes
    at: Instants

    def of(self, groups: Codes) -> Codes:
        """Return the group of each candidate, from those of the timetable's flights."""
        return groups[self.row]


def measure_destination(flights: Timetable, candidates: Candidates) -> dict[str, Floats]:
    """Return how each candidate's destination and its origin have been doing, one value per candidate."""
    destination, origin = code(flights.destination), code(flights.origin)
    return {
        **_departures(flights, destination, candidates, "", spans=(HOUR, 3 * HOUR)),
        **_departures(flights, origin, candidates, "origin_", spans=(HOUR, 3 * HOUR)),
        **_arrivals(flights, destination, candidates, "", spans=(DAY, 30 * DAY)),
    }


def measure_airport(flights: Timetable, candidates: Candidates) -> dict[str, Floats]:
    """Return how the flights from New York to each candidate's airport have been doing, one value per candidate."""
    airport = code(flights.airport)
    return {
        **_departures(flights, airport, candidates, "airport_", spans=(3 * HOUR,)),
        **_arrivals(flights, airport, candidates, "airport_", spans=(3 * HOUR, DAY)),
    }


def measure_flight(flights: Timetable, candidates: Candidates) -> dict[str, Floats]:
    """Return how the latest flights of the same number on the same route have done, one value per candidate."""
    number = code(flights.destination, flights.airport, flights.number)
    arrivals = _arrival_facts(flights, number)
    latest = arrivals.latest(candidates.of(number), candidates.at, n_facts=N_LATEST)
    return {
        "flight_n_latest": latest.n_facts,
        "flight_late_minutes": arrivals.mean("late_minutes", latest),
        "flight_failure_rate": arrivals.mean("failure", latest),
        "n_departures_around": _planned_around(flights, candidates),
    }


def _departures(
    flights: Timetable, groups: Codes, candidates: Candidates, prefix: str, *, spans: tuple[int, ...]
) -> dict[str, Floats]:
    gone = flights.departed
    departures = Facts(groups[gone], flights.departed_at[gone], delay=flights.departure_delay_minutes[gone])
    # A cancellation is announced in this world when the flight should have left, and no sooner.
    planned = Facts(groups, flights.departs_at, cancelled=(~gone).astype(np.float64))
    asked = candidates.of(groups)
    measures = _overdue(flights, groups, candidates, prefix)
    for span in spans:
        left = departures.known(asked, candidates.at, last_minutes=span)
        due = planned.known(asked, candidates.at, last_minutes=span)
        hours = span // HOUR
        measures[f"{prefix}departure_delay_minutes_{hours}h"] = departures.mean("delay", left)
        measures[f"{prefix}n_departures_{hours}h"] = left.n_facts
        measures[f"{prefix}cancelled_share_{hours}h"] = planned.mean("cancelled", due)
    return measures


def _overdue(flights: Timetable, groups: Codes, candidates: Candidates, prefix: str) -> dict[str, Floats]:
    """Count the flights that should have left and have not, and tell by how much they are late at the least.

    Those past their time are what came due less what has left since: totals from the beginning, no search per flight.
    """
    late = flights.departed & (flights.departed_at > flights.departs_at)
    minute_of_year = (flights.departs_at - flights.departs_at.min()).astype(np.float64)
    due = Facts(groups[late], flights.departs_at[late], planned=minute_of_year[late])
    left = Facts(groups[late], flights.departed_at[late], planned=minute_of_year[late])
    asked = candidates.of(groups)
    so_far = 400 * DAY
    due_rows = due.known(asked, candidates.at, last_minutes=so_far)
    left_rows = left.known(asked, candidates.at, last_minutes=so_far)
    n_overdue = due_rows.n_facts - left_rows.n_facts
    now = (candidates.at - flights.departs_at.min()).astype(np.float64)
    planned = due.total("planned", due_rows) - left.total("planned", left_rows)
    mean_minutes = now - planned / np.where(n_overdue > 0, n_overdue, np.nan)
    return {f"{prefix}n_overdue": n_overdue, f"{prefix}overdue_minutes": mean_minutes}


def _arrivals(
    flights: Timetable, groups: Codes, candidates: Candidates, prefix: str, *, spans: tuple[int, ...]
) -> dict[str, Floats]:
    arrivals = _arrival_facts(flights, groups)
    asked = candidates.of(groups)
    measures = {}
    for span in spans:
        name = f"{span // HOUR}h" if span < DAY else f"{span // DAY}d"
        rows = arrivals.known(asked, candidates.at, last_minutes=span)
        measures[f"{prefix}late_minutes_{name}"] = arrivals.mean("late_minutes", rows)
        measures[f"{prefix}caught_up_minutes_{name}"] = arrivals.mean("caught_up_minutes", rows)
        measures[f"{prefix}failure_rate_{name}"] = arrivals.mean("failure", rows)
    return measures


def _arrival_facts(flights: Timetable, groups: Codes) -> Facts:
    """Return what became of flights, as it became known; one that never arrived is as late as its outcome says."""
    late_minutes = (flights.observed_at - flights.arrives_at).astype(np.float64)
    caught_up = np.where(flights.arrived, flights.departure_delay_minutes - late_minutes, 0.0)
    return Facts(
        groups,
        flights.observed_at,
        late_minutes=late_minutes,
        caught_up_minutes=caught_up,
        failure=(~flights.success).astype(np.float64),
    )


def _planned_around(flights: Timetable, candidates: Candidates) -> Floats:
    """How many flights are planned to leave the same origin within half an hour of the candidate, itself included."""
    origin = code(flights.origin)
    half_hour_later = flights.departs_at[candidates.row] + np.timedelta64(HOUR // 2, "m")
    planned = Facts(origin, flights.departs_at)
    return planned.known(candidates.of(origin), half_hour_later, last_minutes=HOUR).n_facts


def count_departures(flights: Timetable) -> tuple[Instants, dict[str, NDArray[np.int64]]]:
    """Return the year's hours (UTC) and, per origin, how many flights really left in each: a series without gaps."""
    left_at = flights.departed_at[flights.departed].astype("datetime64[h]")
    first, last = flights.departs_at.min().astype("datetime64[h]"), left_at.max()
    hours = np.arange(first, last + 1)
    origin = flights.origin[flights.departed]
    counts = {
        str(name): np.bincount((left_at[origin == name] - first).astype(np.int64), minlength=len(hours))
        for name in np.unique(flights.origin)
    }
    return hours.astype("datetime64[m]"), counts
