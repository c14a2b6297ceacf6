import re
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scenarios.flights import operations, rotation, timetable, world
from scenarios.flights.operations import Candidates
from scenarios.flights.timetable import Timetable
from scenarios.flights.weather import Weather, build_weather
from scenarios.flights.world import World

ZONES = {"BOS": "America/New_York", "LAX": "America/Los_Angeles", "PHX": "America/Phoenix"}
N_FLIGHTS = 60


def timetable_of(*rows: dict[str, object]) -> Timetable:
    """Build a timetable from clock times, filling in what a row does not say."""
    usual = {
        "tailnum": "N1",
        "year": 2013,
        "month": 7,
        "day": 1,
        "carrier": "UA",
        "flight": 1,
        "origin": "EWR",
        "dest": "BOS",
    }
    frame = pd.DataFrame([usual | {"dep_delay": 0.0, "arr_delay": 0.0} | row for row in rows])
    return timetable.build_timetable(frame, ZONES)


def flight(departs: int, arrives: int, **more: object) -> dict[str, object]:
    return {"sched_dep_time": departs, "sched_arr_time": arrives, **more}


def no_weather() -> Weather:
    names = ("origin", "time_hour", "temp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib")
    calm = dict.fromkeys(names, 0.0) | {"origin": "EWR", "time_hour": "2013-01-01T00:00:00Z"}
    return build_weather(pd.DataFrame([calm]))


def build(*rows: dict[str, object]) -> World:
    return world.build(timetable_of(*rows), no_weather())


def minute(text: str) -> np.datetime64:
    return np.datetime64(text, "m")


def test_an_arrival_is_the_next_time_the_airports_own_clock_shows_it() -> None:
    flights = timetable_of(
        flight(900, 1010), flight(900, 1205, dest="LAX"), flight(2300, 10, dest="BOS"), flight(900, 1130, dest="PHX")
    )
    assert flights.arrives_at.tolist() == [
        minute("2013-07-01T14:10").item(),
        minute("2013-07-01T19:05").item(),
        minute("2013-07-02T04:10").item(),
        minute("2013-07-01T18:30").item(),
    ]


def test_clocks_that_change_in_flight_are_read_as_they_stand_on_arrival() -> None:
    flights = timetable_of(flight(2330, 145, month=11, day=2), flight(100, 330, month=3, day=10))
    durations = (flights.arrives_at - flights.departs_at).astype(int)
    # In November 01:45 shows twice and the first one counts; in March the hour from 2 to 3 does not exist.
    assert durations.tolist() == [135, 90]


@pytest.mark.parametrize(
    ("arr_delay", "n_failures", "minutes"), [(60.0, 0, 190.0), (61.0, 1, 191.0), (np.nan, 1, 490.0)]
)
def test_an_outcome_is_the_time_until_it_is_known_and_a_lost_flight_is_six_hours_late(
    arr_delay: float, n_failures: int, minutes: float
) -> None:
    made = build(flight(900, 1010, arr_delay=arr_delay), flight(930, 1010, origin="JFK"))
    first = made.between(minute("2013-07-01T12:00"), minute("2013-07-01T13:00"))
    assert first.minutes[0] == minutes
    assert np.count_nonzero(~first.success) == n_failures
    assert first.observed_at[0] == first.ready_at[0] + np.timedelta64(int(minutes), "m")


def test_a_parcel_sees_each_destinations_next_flight_within_three_hours() -> None:
    made = build(
        flight(900, 1010, flight=1),
        flight(1000, 1110, flight=2),
        flight(1200, 1310, origin="JFK"),
        flight(1201, 1311, carrier="DL"),
    )
    at_nine = made.between(minute("2013-07-01T13:00"), minute("2013-07-01T14:00"))
    assert at_nine.destination.tolist() == ["UA-EWR", "UA-JFK"]
    assert at_nine.candidate_attributes["minutes_to_departure"].tolist() == [60.0, 180.0]
    assert at_nine.candidate_attributes["scheduled_minutes"].tolist() == [130.0, 250.0]


def test_no_parcel_comes_at_night_or_with_a_single_candidate() -> None:
    made = build(
        flight(500, 610),
        flight(505, 610, origin="JFK"),
        flight(1500, 1610),
        flight(2330, 30),
        flight(2331, 30, origin="JFK"),
    )
    hours = timetable.to_local(made.ready_at, timetable.NEW_YORK).astype("datetime64[h]").astype(int) % 24
    assert hours.tolist() == [21]
    assert np.diff(made.offsets).tolist() == [2]
    assert made.day.tolist() == [(np.datetime64("2013-07-01") - np.datetime64("1970-01-01")).astype(int)]


def random_flights(seed: int, n_flights: int = N_FLIGHTS) -> Timetable:
    """Return two days of flights between few places, a good part of them late, cancelled or diverted."""
    random = np.random.default_rng(seed)
    departs_at = minute("2013-07-01T09:00") + random.integers(0, 2 * 24 * 60, n_flights).astype("timedelta64[m]")
    departure_delay = np.where(random.random(n_flights) < 0.15, np.nan, random.integers(-20, 300, n_flights))
    arrival_delay = departure_delay + random.integers(-30, 60, n_flights)
    origin = random.choice(["EWR", "JFK"], n_flights)
    return Timetable(
        destination=np.char.add(random.choice(["UA-", "DL-"], n_flights), origin),
        origin=origin,
        airport=random.choice(["BOS", "LAX"], n_flights),
        number=random.integers(1, 4, n_flights),
        tail=random.choice(["", "N1", "N2", "N3"], n_flights),
        departs_at=departs_at,
        arrives_at=departs_at + random.integers(60, 400, n_flights).astype("timedelta64[m]"),
        departure_delay_minutes=departure_delay,
        arrival_delay_minutes=np.where(random.random(n_flights) < 0.1, np.nan, arrival_delay),
    )


SPANS = {"h": 60, "d": 24 * 60}
SHARED = {"": ["destination"], "origin_": ["origin"], "airport_": ["airport"], "route_": ["destination", "airport"]}
MEASURE = re.compile(r"(?P<scope>origin_|airport_|route_|)(?P<what>\w+?)(_(?P<count>\d+)(?P<unit>[hd]))?")


class Flight(NamedTuple):
    """One row of a timetable."""

    destination: str
    origin: str
    airport: str
    number: int
    departs_at: np.datetime64
    departed: bool
    departed_at: np.datetime64
    delay: float
    arrives_at: np.datetime64
    arrived: bool
    observed_at: np.datetime64
    success: bool


def rows_of(flights: Timetable) -> list[Flight]:
    renamed = {"delay": "departure_delay_minutes"}
    return [Flight(*row) for row in zip(*(getattr(flights, renamed.get(f, f)) for f in Flight._fields), strict=True)]


def minutes_between(start: np.datetime64, end: np.datetime64) -> float:
    return float((end - start).astype(int))


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else np.nan


def slow_measure(name: str, mine: Flight, flights: list[Flight], at: np.datetime64) -> float:
    """Work a measure out flight by flight, looking only at what had happened by ``at``."""
    asked = MEASURE.fullmatch(name)
    assert asked is not None, name
    near = [f for f in flights if all(getattr(f, column) == getattr(mine, column) for column in SHARED[asked["scope"]])]
    since = at - np.timedelta64(int(asked["count"] or 0) * SPANS[asked["unit"] or "h"], "m")
    left = [f for f in near if f.departed and since < f.departed_at <= at]
    due = [f for f in near if since < f.departs_at <= at]
    ended = [f for f in near if since < f.observed_at <= at]
    overdue = [f for f in near if f.departed and f.departs_at <= at < f.departed_at]
    lateness = [minutes_between(f.arrives_at, f.observed_at) for f in ended]
    caught_up = [f.delay - late if f.arrived else 0.0 for f, late in zip(ended, lateness, strict=True)]
    return {
        "departure_delay_minutes": mean([f.delay for f in left]),
        "n_departures": len(left),
        "cancelled_share": mean([float(not f.departed) for f in due]),
        "late_minutes": mean(lateness),
        "caught_up_minutes": mean(caught_up),
        "failure_rate": mean([float(not f.success) for f in ended]),
        "n_overdue": len(overdue),
        "overdue_minutes": mean([minutes_between(f.departs_at, at) for f in overdue]),
    }[asked["what"]]


def measure_all(flights: Timetable, candidates: Candidates) -> dict[str, np.ndarray]:
    return (
        operations.measure_destination(flights, candidates)
        | operations.measure_airport(flights, candidates)
        | operations.measure_flight(flights, candidates)
        | rotation.measure_rotation(flights, candidates)
    )


def candidates_of(flights: Timetable, at: np.datetime64) -> Candidates:
    rows = np.arange(len(flights.departs_at))
    return Candidates(rows, np.full(len(rows), at))


@pytest.mark.parametrize("seed", range(2))
def test_every_measure_equals_the_one_worked_out_flight_by_flight(seed: int) -> None:
    flights = random_flights(seed)
    at = minute("2013-07-02T15:00")
    candidates = candidates_of(flights, at)
    measured = operations.measure_destination(flights, candidates) | operations.measure_airport(flights, candidates)
    rows = rows_of(flights)
    for name, column in measured.items():
        expected = [slow_measure(name, mine, rows, at) for mine in rows]
        np.testing.assert_allclose(column, expected, atol=1e-9, err_msg=name)


def test_a_flights_record_is_that_of_the_latest_of_its_number_whose_end_is_known() -> None:
    flights = random_flights(5)
    at = minute("2013-07-02T20:00")
    measured = operations.measure_flight(flights, candidates_of(flights, at))
    rows = rows_of(flights)
    for row, mine in enumerate(rows):
        near = [
            f for f in rows if (f.destination, f.airport, f.number) == (mine.destination, mine.airport, mine.number)
        ]
        ended = sorted((f for f in near if f.observed_at <= at), key=lambda f: f.observed_at)[-10:]
        assert measured["flight_n_latest"][row] == len(ended)
        rate = mean([float(not f.success) for f in ended])
        np.testing.assert_allclose(measured["flight_failure_rate"][row], rate, atol=1e-9)


def test_the_aircraft_is_expected_from_the_flight_it_came_from_on_the_days_before() -> None:
    out, back = {"dest": "BOS", "flight": 1}, {"dest": "LAX", "flight": 2}
    days = [
        flight(plan, plan + 110, day=day, tailnum=f"N{day}", dep_delay=delay, arr_delay=delay, **way)
        for day in (1, 2, 3)
        for way, plan, delay in ((out, 800, 70.0 if day == 3 else 0.0), (back, 1300, 0.0))
    ]
    days[-1]["tailnum"] = "N9"  # today's own aircraft is not read: it is not known yet
    flights = timetable_of(*days)
    asked = np.array([minute(f"2013-07-03T{clock}") for clock in ("11:00", "12:30", "14:00")])
    measured = rotation.measure_rotation(flights, Candidates(np.full(3, 5), asked))
    assert measured["inbound_stage"].tolist() == [0.0, 1.0, 2.0]
    np.testing.assert_array_equal(measured["inbound_late_minutes"], [np.nan, 30.0, 70.0])
    assert measured["inbound_slack_minutes"].tolist() == [5 * 60 - 2 * 70] * 3
    assert measured["inbound_habit_share"].tolist() == [1.0] * 3
    early = np.array([minute("2013-07-01T11:00")])
    first_day = rotation.measure_rotation(flights, Candidates(np.array([1]), early))
    assert np.isnan(first_day["inbound_stage"]).all()


def altered_after(flights: Timetable, at: np.datetime64, random: np.random.Generator) -> Timetable:
    """Return another year that nobody at ``at`` could tell from this one: whatever came later came otherwise."""
    n_flights = len(flights.departs_at)
    since_plan = (at - flights.departs_at).astype(float)
    since_arrival = (at - flights.arrives_at).astype(float)
    later = random.integers(1, 500, n_flights)
    departure = np.where(flights.departed_at > at, np.maximum(since_plan, -20) + later, flights.departure_delay_minutes)
    # What had left by then, if early, had left; and a cancellation was known when the flight was due.
    open_still = (flights.departs_at > at) & (flights.departed_at > at)
    departure[open_still & (random.random(n_flights) < 0.3)] = np.nan
    arrival = np.where(flights.observed_at > at, np.maximum(since_arrival, -60) + later, flights.arrival_delay_minutes)
    lost = np.isnan(departure) | ((flights.observed_at > at) & (since_arrival < 360) & (random.random(n_flights) < 0.2))
    arrival = np.where((flights.observed_at > at) & lost, np.nan, arrival)
    tail = np.where(flights.departed_at > at, random.choice(["", "N1", "N2", "N3"], n_flights), flights.tail)
    return replace(flights, tail=tail, departure_delay_minutes=departure, arrival_delay_minutes=arrival)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), hour=st.integers(0, 60))
def test_t06_no_measure_changes_when_what_came_later_is_altered(seed: int, hour: int) -> None:
    flights = random_flights(seed)
    at = minute("2013-07-01T09:00") + np.timedelta64(hour, "h")
    altered = altered_after(flights, at, np.random.default_rng(seed))
    known, still_known = (measure_all(year, candidates_of(flights, at)) for year in (flights, altered))
    for name, column in known.items():
        np.testing.assert_allclose(still_known[name], column, atol=1e-9, err_msg=name)


def test_weather_is_known_at_the_end_of_its_hour_and_stale_after_six() -> None:
    hours = ["2013-07-01T10:00:00Z", "2013-07-01T11:00:00Z"]
    blank = {"temp": 0.0, "humid": 0.0, "wind_gust": 0.0, "precip": 0.0, "pressure": 0.0, "visib": 0.0}
    seen = build_weather(
        pd.DataFrame(
            [blank | {"origin": "EWR", "time_hour": h, "wind_speed": s} for h, s in zip(hours, (1.0, 2.0), strict=True)]
        )
    )
    asked = np.array(["10:59", "11:00", "11:59", "12:00", "17:59", "18:00"])
    at = np.array([minute(f"2013-07-01T{clock}") for clock in asked])
    wind = seen.at(np.full(len(at), "EWR"), at)["wind_mph"]
    np.testing.assert_array_equal(wind, [np.nan, 1.0, 1.0, 2.0, 2.0, np.nan])
    assert np.isnan(seen.at(np.full(1, "JFK"), at[3:4])["wind_mph"]).all()


def test_a_part_of_the_world_keeps_each_events_own_candidates() -> None:
    made = world.build(random_flights(1), no_weather())
    chosen = np.random.default_rng(0).random(made.n_events) < 0.5
    part = made.take(chosen)
    events = np.flatnonzero(chosen)
    for i, event in enumerate(events):
        here = slice(part.offsets[i], part.offsets[i + 1])
        there = slice(made.offsets[event], made.offsets[event + 1])
        assert part.airport[i] == made.airport[event]
        np.testing.assert_array_equal(part.destination[here], made.destination[there])
        np.testing.assert_array_equal(part.minutes[here], made.minutes[there])
        np.testing.assert_array_equal(
            part.candidate_attributes["scheduled_minutes"][here], made.candidate_attributes["scheduled_minutes"][there]
        )


def test_choices_fall_within_their_events_and_the_best_is_never_worse() -> None:
    made = world.build(random_flights(2), no_weather())
    for choice in (made.static_choice(), made.earliest_choice(), made.best_choice()):
        np.testing.assert_array_equal(made.event_of_pair[choice], np.arange(made.n_events))
        assert (made.minutes[made.best_choice()] <= made.minutes[choice]).all()
    for event, pair in enumerate(made.static_choice()):
        here = made.destination[made.offsets[event] : made.offsets[event + 1]].tolist()
        route = made.static_routes[str(made.airport[event])]
        assert made.destination[pair] == next(name for name in route if name in here)


def test_departures_are_counted_in_every_hour_without_gaps() -> None:
    flights = random_flights(4)
    hours, counts = operations.count_departures(flights)
    assert (np.diff(hours) == np.timedelta64(60, "m")).all()
    assert sum(int(series.sum()) for series in counts.values()) == flights.departed.sum()
    busiest = int(counts["EWR"].argmax())
    left = flights.departed_at[flights.departed & (flights.origin == "EWR")]
    assert (
        counts["EWR"][busiest] == ((left >= hours[busiest]) & (left < hours[busiest] + np.timedelta64(60, "m"))).sum()
    )
