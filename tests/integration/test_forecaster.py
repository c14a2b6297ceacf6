import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import calendar
from features.panel import Panel
from models import demand, forecaster, forecaster_fit
from models.demand import Forecast
from models.forecaster import Forecaster, ForecasterConfig, ForecasterFormatError

START = datetime(2024, 1, 1, tzinfo=UTC)
N_DAYS = 110
ZONE = "Europe/Berlin"  # its clocks change on 31 March: after the training, before the forecasts
SMALL = ForecasterConfig(
    zone=ZONE, calibration_days=25, n_rounds=40, learning_rate=0.15, min_rows_per_leaf=20, n_threads=1
)
AT = START + timedelta(days=100, hours=9)


def busy_panel(seed: int = 5, n_days: int = N_DAYS) -> Panel:
    """Counts with a rhythm by the clocks of Berlin: a small series, one 50 times as large, and none at night."""
    random = np.random.default_rng(seed)
    hours = np.datetime64("2024-01-01T00") + np.arange(24 * n_days)
    day = np.maximum(0.0, np.sin((calendar.local_hour(hours, ZONE) - 6) / 12 * np.pi))  # zero from 18 to 6
    rate = 12 * day * np.where(calendar.weekday(calendar.local_days(hours, ZONE)) >= 5, 0.4, 1.0)
    load = np.stack([random.poisson(rate), random.poisson(50 * rate)]).astype(float)
    return Panel(series=("large", "small"), start=np.datetime64("2024-01-01T00"), load=load[::-1].copy())


@pytest.fixture(scope="module")
def panel() -> Panel:
    return busy_panel()


@pytest.fixture(scope="module")
def model(panel: Panel) -> Forecaster:
    return forecaster_fit.train(panel.until(START + timedelta(days=90)), SMALL, seed=1)


def same(one: Forecast, other: Forecast) -> bool:
    return all(one.columns()[name].tobytes() == other.columns()[name].tobytes() for name in one.columns())


def assert_sound(forecast: Forecast, n_rows: int) -> None:
    band = np.column_stack([forecast.p10, forecast.p50, forecast.p90])
    assert band.shape == (n_rows, 3)
    assert np.isfinite(band).all()
    assert (band >= 0).all()
    assert (np.diff(band, axis=1) >= 0).all()


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_forecast_is_a_day_per_series_from_the_hour_under_way(model: Forecaster, panel: Panel) -> None:
    forecast = model.forecast(panel, at=AT + timedelta(minutes=59))
    assert_sound(forecast, 48)
    assert forecast.series.tolist() == ["large"] * 24 + ["small"] * 24
    first = np.datetime64(AT.replace(tzinfo=None), "h")
    assert forecast.hour.tolist() == [*(first + np.arange(24)).tolist()] * 2
    assert forecast.from_model.all()


def test_the_rhythm_is_learned_at_every_size(model: Forecaster, panel: Panel) -> None:
    forecast = model.forecast(panel, at=START + timedelta(days=101))
    load = panel.load[:, 101 * 24 : 102 * 24].ravel()
    for name in ("large", "small"):
        rows = forecast.series == name
        error = np.abs(load[rows] - forecast.p50[rows]).sum() / load[rows].sum()
        assert error < (0.1 if name == "large" else 0.4)
        assert forecast.p90[rows][-4:].max() < 0.05 * load[rows].max()  # night


def test_hours_that_are_not_over_change_nothing(model: Forecaster, panel: Panel) -> None:
    load = panel.load.copy()
    load[:, 100 * 24 + 9 :] = 1e6
    later = Panel(series=panel.series, start=panel.start, load=load)
    assert same(model.forecast(later, at=AT), model.forecast(panel, at=AT))
    assert same(model.forecast(panel.until(AT), at=AT), model.forecast(panel, at=AT))


def test_training_reads_only_the_panel_it_is_given_and_leaves_it_alone(tmp_path: Path, panel: Panel) -> None:
    known = panel.until(START + timedelta(days=90))
    before = known.load.tobytes()
    for name in ("one", "two"):
        forecaster_fit.train(known, SMALL, seed=1).save(tmp_path / name)
    assert known.load.tobytes() == before
    assert files(tmp_path / "one") == files(tmp_path / "two")
    forecaster_fit.train(known, SMALL, seed=2).save(tmp_path / "three")
    assert files(tmp_path / "three")["p50.txt"] != files(tmp_path / "one")["p50.txt"]


def test_a_saved_forecaster_forecasts_the_same_and_saves_the_same(
    tmp_path: Path, model: Forecaster, panel: Panel
) -> None:
    model.save(tmp_path / "first")
    loaded = Forecaster.load(tmp_path / "first")
    assert loaded.card == model.card
    assert same(loaded.forecast(panel, at=AT), model.forecast(panel, at=AT))
    loaded.save(tmp_path / "second")
    assert files(tmp_path / "first") == files(tmp_path / "second")
    assert set(files(tmp_path / "first")) == {"card.json", "p10.txt", "p50.txt", "p90.txt"}


def test_a_text_with_one_byte_changed_or_cut_off_never_reaches_the_library(tmp_path: Path, model: Forecaster) -> None:
    model.save(tmp_path)
    text = (tmp_path / "p50.txt").read_bytes()
    for damaged in (text[:-100], text.replace(b"leaf_value=0", b"leaf_value=1", 1), b"\xff" + text, b""):
        (tmp_path / "p50.txt").write_bytes(damaged)
        with pytest.raises(ForecasterFormatError, match=r"p50\.txt: SHA-256"):
            Forecaster.load(tmp_path)
    (tmp_path / "p50.txt").unlink()
    with pytest.raises(FileNotFoundError):
        Forecaster.load(tmp_path)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("format", 2, "format must be 1, got 2"),
        ("columns", ["series"], "got a difference in"),
        ("digests", {"p10.txt": "0"}, "digests must name"),
        ("seed", "one", "Expected `int`"),
        ("surprise", 1, "surprise"),
        ("config", {"horizon_hours": 0}, "horizon_hours must lie in"),
    ],
)
def test_a_card_of_another_make_is_refused(
    tmp_path: Path, model: Forecaster, field: str, value: object, told: str
) -> None:
    model.save(tmp_path)
    card = json.loads((tmp_path / "card.json").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps({**card, field: value}))
    with pytest.raises(ForecasterFormatError, match=told):
        Forecaster.load(tmp_path)


def test_series_are_found_by_name_whatever_their_order(model: Forecaster, panel: Panel) -> None:
    turned = Panel(series=panel.series[::-1], start=panel.start, load=panel.load[::-1].copy())
    for name in panel.series:
        one, other = model.forecast(panel, at=AT).of(name), model.forecast(turned, at=AT).of(name)
        assert same(one, other)


def test_a_series_is_the_models_by_its_name(model: Forecaster, panel: Panel) -> None:
    renamed = Panel(series=("small", "large"), start=panel.start, load=panel.load)
    ours, other = model.forecast(panel, at=AT).of("large"), model.forecast(renamed, at=AT).of("small")
    assert not np.array_equal(ours.p90, other.p90)  # the same load: the small series is known to be noisier


def test_a_series_training_never_saw_is_forecast_from_its_history(model: Forecaster, panel: Panel) -> None:
    new = Panel(series=("new",), start=panel.start, load=panel.load[:1])
    forecast = model.forecast(new, at=AT)
    assert_sound(forecast, 24)
    assert forecast.from_model.all()


@pytest.mark.parametrize(
    "load",
    [[np.full(N_DAYS * 24, 7.0)], [[1.0, 2.0, 9.0]], np.empty((1, 0)), [np.full(N_DAYS * 24, np.nan)], [[0.0] * 900]],
    ids=["constant", "three points", "empty", "all missing", "zeros"],
)
def test_what_no_model_can_learn_gets_the_baseline(model: Forecaster, load: object) -> None:
    panel = Panel(series=("a",), start=np.datetime64("2024-01-01T00"), load=np.array(load, dtype=np.float64))
    alone = forecaster_fit.train(panel, SMALL, seed=1)
    assert "rows with history" in (alone.card.reason or "")
    for one in (alone, model):
        at = START + timedelta(hours=panel.n_hours)
        forecast = one.forecast(panel, at=at)
        assert_sound(forecast, 24)
        assert not forecast.from_model.any()
        assert np.array_equal(forecast.p50, demand.last_week(panel, at, zone=SMALL.zone))


def test_a_forecaster_without_a_model_is_saved_and_loaded_too(tmp_path: Path) -> None:
    panel = Panel(series=("a",), start=np.datetime64("2024-01-01T00"), load=np.array([[1.0, 2.0, 9.0]]))
    forecaster_fit.train(panel, SMALL, seed=1).save(tmp_path)
    loaded = Forecaster.load(tmp_path)
    assert set(files(tmp_path)) == {"card.json"}
    assert loaded.forecast(panel, at=START + timedelta(hours=3)).p50.tolist() == [4.0] * 21 + [1.0, 2.0, 9.0]


def test_gaps_leave_a_sound_forecast(model: Forecaster, panel: Panel) -> None:
    load = panel.load.copy()
    load[np.random.default_rng(1).random(load.shape) < 0.3] = np.nan
    load[0, 85 * 24 :] = np.nan
    holed = Panel(series=panel.series, start=panel.start, load=load)
    assert_sound(model.forecast(holed, at=AT), 48)
    assert_sound(model.forecast(holed, at=START + timedelta(days=400)), 48)  # nothing heard for most of a year
    trained = forecaster_fit.train(holed, SMALL, seed=1)
    assert trained.card.reason is None
    assert_sound(trained.forecast(holed, at=AT), 48)


@pytest.mark.parametrize("change", [datetime(2024, 3, 31, 1, tzinfo=UTC), datetime(2024, 10, 27, 1, tzinfo=UTC)])
def test_no_hour_is_lost_or_doubled_when_clocks_change(model: Forecaster, change: datetime) -> None:
    panel = busy_panel(n_days=330)
    for hours_before in (30, 24, 12, 1, 0, -1, -24):
        forecast = model.forecast(panel, at=change - timedelta(hours=hours_before)).of("large")
        assert_sound(forecast, 24)
        assert np.diff(forecast.hour).astype(int).tolist() == [1] * 23


any_load = st.one_of(st.just(float("nan")), st.floats(0, 1e12), st.integers(0, 50).map(float))


@settings(max_examples=60, deadline=None)
@given(pattern=st.lists(any_load, min_size=1, max_size=60), n_hours=st.integers(0, 1_200), late=st.integers(-30, 100))
def test_any_series_has_a_band_that_is_finite_ordered_and_not_negative(
    model: Forecaster, pattern: list[float], n_hours: int, late: int
) -> None:
    panel = Panel(series=("any",), start=np.datetime64("2024-01-01T00"), load=np.resize(pattern, (1, n_hours)))
    assert_sound(model.forecast(panel, at=START + timedelta(hours=n_hours + late)), 24)


def test_a_horizon_of_two_days_reads_nothing_it_cannot_know(panel: Panel) -> None:
    longer = ForecasterConfig(
        horizon_hours=48, calibration_days=25, n_rounds=10, n_leaves=7, min_rows_per_leaf=40, n_threads=1
    )
    trained = forecaster_fit.train(panel, longer, seed=1)
    assert_sound(trained.forecast(panel, at=AT), 96)


def test_a_naive_instant_is_refused(model: Forecaster, panel: Panel) -> None:
    with pytest.raises(ValueError, match="zone"):
        model.forecast(panel, at=AT.replace(tzinfo=None))


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        ({"horizon_hours": 0}, "horizon_hours must lie in"),
        ({"horizon_hours": 169}, "got 169"),
        ({"calibration_days": 0}, "calibration_days must be at least 1"),
        ({"min_known_hours": 0}, "min_known_hours must lie in"),
        ({"n_leaves": 1}, "n_leaves must be at least 2"),
        ({"learning_rate": 0.0}, "learning_rate must lie in"),
        ({"zone": "Mars/Olympus"}, "IANA time zone"),
    ],
)
def test_choices_that_forecast_nothing_are_refused_by_name(choice: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ForecasterConfig(**choice)


def test_forecasting_needs_neither_pandas_nor_lightgbms_package(tmp_path: Path, model: Forecaster) -> None:
    model.save(tmp_path)
    program = (
        "import sys; from pathlib import Path; from models.forecaster import Forecaster\n"
        "Forecaster.load(Path(sys.argv[1]))\n"
        "print(sorted({'lightgbm', 'pandas', 'sklearn', 'pyarrow', 'duckdb'} & sys.modules.keys()))"
    )
    child = [sys.executable, "-c", program, str(tmp_path)]
    ran = subprocess.run(child, capture_output=True, text=True, check=True, cwd=Path(forecaster.__file__).parents[1])
    assert ran.stdout.strip() == "[]"
