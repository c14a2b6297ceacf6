import numpy as np
import pytest

from scenarios.flights import timetable, world
from scenarios.flights.world import World


@pytest.fixture(scope="module")
def year() -> World:
    try:
        return world.load()
    except timetable.DataMissingError as error:
        pytest.skip(str(error))


def test_the_world_has_exactly_its_known_size(year: World) -> None:
    assert (year.n_events, len(year.minutes), len(np.unique(year.destination))) == (193_683, 647_735, 35)
    assert np.count_nonzero(year.ready_at >= world.LIVE_BEGINS_AT) == 64_611
    assert np.diff(year.offsets).min() == 2


def test_the_three_rules_are_worth_what_they_are_known_to_be_worth(year: World) -> None:
    live = year.between(world.LIVE_BEGINS_AT, world.YEAR_ENDS_AT)
    choices = {"static": live.static_choice(), "earliest": live.earliest_choice(), "best": live.best_choice()}
    minutes = {name: round(float(live.minutes[choice].mean()), 1) for name, choice in choices.items()}
    failures = {name: round(float(1 - live.success[choice].mean()), 4) for name, choice in choices.items()}
    assert minutes == {"static": 269.3, "earliest": 242.1, "best": 231.5}
    assert failures == {"static": 0.0777, "earliest": 0.0804, "best": 0.0277}


def test_departures_leave_no_hour_out(year: World) -> None:
    assert (np.diff(year.hours) == np.timedelta64(60, "m")).all()
    assert sorted(year.departures) == ["EWR", "JFK", "LGA"]
    assert sum(int(series.sum()) for series in year.departures.values()) == 328_521  # flights that left in 2013


def test_plans_are_plausible_in_every_zone(year: World) -> None:
    in_the_air = year.candidate_attributes["scheduled_minutes"] - year.candidate_attributes["minutes_to_departure"]
    assert in_the_air.min() >= 50
    assert in_the_air.max() <= 700  # Honolulu


def test_a_small_world_keeps_the_shape_of_the_whole(year: World) -> None:
    small = year.of_airports(12)
    assert np.unique(small.airport).size == 12
    assert 0.05 < small.n_events / year.n_events < 0.35
    shares = [w.minutes[w.earliest_choice()].mean() / w.minutes[w.static_choice()].mean() for w in (year, small)]
    assert abs(shares[0] - shares[1]) < 0.05
