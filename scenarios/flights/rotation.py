"""Where a flight's aircraft probably comes from, inferred from the days before alone, and how that flight is doing now.

Which aircraft will fly is not known before it leaves, so the day's own assignments are never read. But aircraft keep
habits: the flight that came before this one on the same aircraft on most of the last days probably does so today, and
when it left late this one will.
"""

import numpy as np
from numpy.typing import NDArray

from scenarios.flights.facts import Codes, Facts, code
from scenarios.flights.operations import HOUR, Candidates
from scenarios.flights.timetable import Floats, Timetable

N_DAYS = 5
SHORTEST_TURN_MINUTES = 2 * HOUR  # nothing flies out of New York and back in less
LONGEST_TURN_MINUTES = 14 * HOUR  # beyond it lies a night


def measure_rotation(flights: Timetable, candidates: Candidates) -> dict[str, Floats]:
    """Return how the flight before each candidate is doing, as known when it is asked; NaN when none is inferred.

    ``inbound_stage`` is 0 before that flight is due, 1 once it is due, 2 once it left, 3 once it arrived (away from
    New York); ``inbound_slack_minutes`` is the planned time for its way out, its way back and the turns.
    """
    number = code(flights.destination, flights.airport, flights.number)
    habit, habit_share = _habit(flights, number, candidates)
    row = _inbound(flights, number, habit, candidates)
    found, at = row >= 0, candidates.at
    departed_at, arrived = flights.departed_at[row], flights.arrived[row] & (flights.observed_at[row] <= at)
    left = flights.departed[row] & (departed_at <= at)
    due = flights.departs_at[row] <= at
    cancelled = due & ~flights.departed[row]
    overdue = np.where(due & ~cancelled, _between(flights.departs_at[row], at), np.nan)
    late = np.where(left, flights.departure_delay_minutes[row], overdue)
    late = np.where(arrived, flights.arrival_delay_minutes[row], late)
    there_and_back = 2.0 * _between(flights.departs_at[row], flights.arrives_at[row])
    gap = _between(flights.departs_at[row], flights.departs_at[candidates.row])
    columns = {
        "inbound_habit_share": habit_share,
        "inbound_stage": arrived.astype(np.float64) + left + due,
        "inbound_cancelled": cancelled.astype(np.float64),
        "inbound_late_minutes": late,
        "inbound_slack_minutes": gap - there_and_back,
    }
    return {name: np.where(found, column, np.nan) for name, column in columns.items()}


def _habit(flights: Timetable, number: Codes, candidates: Candidates) -> tuple[Codes, Floats]:
    """Return the flight number that most often came before, of the last days known, and its share; -1 for none."""
    flown = flights.departed & (flights.tail != "")
    before = np.full(len(number), -1, dtype=np.int64)
    later, earlier = _turns(flights, np.flatnonzero(flown))
    before[later] = number[earlier]
    pairings = Facts(number[flown], flights.departed_at[flown], before=before[flown].astype(np.float64))
    known = pairings.latest(candidates.of(number), candidates.at, n_facts=N_DAYS)
    recent = np.array([pairings.nth_latest("before", known, n) for n in range(1, N_DAYS + 1)])
    times = np.where(recent >= 0, (recent[:, None, :] == recent[None, :, :]).sum(axis=1), 0)
    most = times.argmax(axis=0)  # the latest of equals
    columns = np.arange(len(most))
    habit = np.where(times[most, columns] > 0, np.nan_to_num(recent[most, columns], nan=-1.0), -1.0)
    return habit.astype(np.int64), times[most, columns] / np.maximum(known.n_facts, 1.0)


def _turns(flights: Timetable, flown: Codes) -> tuple[Codes, Codes]:
    """Return pairs of rows (later, earlier) that one aircraft flew one after the other within a day."""
    order = flown[np.lexsort((flights.departed_at[flown], flights.tail[flown]))]
    later, earlier = order[1:], order[:-1]
    minutes = _between(flights.departs_at[earlier], flights.departs_at[later])
    turned = (minutes >= SHORTEST_TURN_MINUTES) & (minutes <= LONGEST_TURN_MINUTES)
    turned &= flights.tail[later] == flights.tail[earlier]
    return later[turned], earlier[turned]


def _inbound(flights: Timetable, number: Codes, habit: Codes, candidates: Candidates) -> Codes:
    """Return the row of today's flight by the number in ``habit``, planned early enough to be back; -1 for none."""
    planned = Facts(number, flights.departs_at, row=np.arange(len(number), dtype=np.float64))
    back_by = flights.departs_at[candidates.row] - np.timedelta64(SHORTEST_TURN_MINUTES, "m")
    rows = planned.known(habit, back_by, last_minutes=LONGEST_TURN_MINUTES - SHORTEST_TURN_MINUTES)
    return np.nan_to_num(planned.nth_latest("row", rows, 1), nan=-1.0).astype(np.int64)


def _between(start: NDArray[np.datetime64], end: NDArray[np.datetime64]) -> Floats:
    return (end - start).astype(np.float64)
