from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.panel import Panel
from models import backtest, demand
from models.demand import Forecast

START = datetime(2024, 1, 1, tzinfo=UTC)
ORIGINS = [START + timedelta(days=day) for day in (8, 9)]


def panel_of(load: np.ndarray) -> Panel:
    return Panel(series=("a", "b"), start=np.datetime64("2024-01-01T00"), load=load)


def flat_band(panel: Panel, *, at: datetime) -> Forecast:
    """Forecast 8, 10, 12 for two hours of each series; point bands for the second."""
    wanted = demand.targets(panel, at, 2)
    names = np.array(panel.series)[wanted.series]
    width = np.where(wanted.series == 0, 2.0, 0.0)
    middle = np.full(len(width), 10.0)
    flags = wanted.series == 0
    return Forecast(
        series=names, hour=wanted.hour, p10=middle - width, p50=middle, p90=middle + width, from_model=flags
    )


def test_figures_are_those_worked_out_by_hand() -> None:
    load = np.full((2, 10 * 24), 10.0)
    load[0, 8 * 24 : 8 * 24 + 2] = [7.0, 12.0]  # below, on the upper end
    load[0, 9 * 24 : 9 * 24 + 2] = [20.0, np.nan]  # above, unknown
    figures = backtest.evaluate(flat_band, panel_of(load), ORIGINS)
    total = 7 + 12 + 20 + 4 * 10
    assert (figures.n, figures.n_origins) == (7, 2)
    assert figures.wape == pytest.approx((3 + 2 + 10) / total)
    assert figures.wape_last_week == pytest.approx((3 + 2 + 10) / total)
    assert figures.wape_last_day == pytest.approx((3 + 2 + 13) / total)
    assert figures.wape_last_value == pytest.approx((3 + 2 + 10) / total)
    assert figures.p10_p90_coverage == pytest.approx(5 / 7)
    assert (figures.below_p10_rate, figures.above_p90_rate) == (pytest.approx(1 / 7), pytest.approx(1 / 7))
    assert (figures.open_coverage, figures.open_share) == (pytest.approx(1 / 3), pytest.approx(3 / 7))
    assert figures.mean_band == pytest.approx(12 / 7)
    assert figures.from_model_share == pytest.approx(3 / 7)


def test_a_forecaster_is_shown_only_what_was_over_at_its_origin() -> None:
    shown: list[int] = []

    def nosy(panel: Panel, *, at: datetime) -> Forecast:
        shown.append(panel.n_hours)
        return flat_band(panel, at=at)

    backtest.evaluate(nosy, panel_of(np.ones((2, 20 * 24))), ORIGINS)
    assert shown == [8 * 24, 9 * 24]


def test_the_oracle_has_no_error_and_the_baseline_has_its_own() -> None:
    panel = panel_of(np.random.default_rng(1).poisson(5.0, (2, 20 * 24)).astype(float))

    def last_week(known: Panel, *, at: datetime) -> Forecast:
        point = demand.last_week(known, at)
        wanted = demand.targets(known, at, 24)
        names, flags = np.array(known.series)[wanted.series], np.zeros(48, dtype=np.bool_)
        return Forecast(series=names, hour=wanted.hour, p10=point, p50=point, p90=point, from_model=flags)

    def oracle(known: Panel, *, at: datetime) -> Forecast:
        made = last_week(known, at=at)
        begin = int((at - START) / timedelta(hours=1))
        point = panel.load[:, begin : begin + 24].ravel()
        return Forecast(series=made.series, hour=made.hour, p10=point, p50=point, p90=point, from_model=made.from_model)

    figures = backtest.evaluate(last_week, panel, ORIGINS)
    assert figures.wape == figures.wape_last_week > 0
    assert (figures.open_share, figures.from_model_share) == (0, 0)
    assert np.isnan(figures.open_coverage)
    perfect = backtest.evaluate(oracle, panel, ORIGINS)
    assert (perfect.wape, perfect.p10_p90_coverage) == (0, 1)
    assert perfect.wape_last_week == figures.wape_last_week


def test_loads_that_are_all_zero_have_no_percentage_error() -> None:
    assert np.isnan(backtest.evaluate(flat_band, panel_of(np.zeros((2, 20 * 24))), ORIGINS).wape)


@pytest.mark.parametrize("origins", [[], [START + timedelta(days=99)]])
def test_nothing_to_compare_with_is_refused(origins: list[datetime]) -> None:
    with pytest.raises(ValueError, match=f"got none at {len(origins)} origins"):
        backtest.evaluate(flat_band, panel_of(np.ones((2, 20 * 24))), origins)
