"""How good a forecaster would have been: rolling origins over a past it had not seen, beside the baselines."""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.panel import HOUR, Panel
from models import demand
from models.demand import Forecast

Floats = NDArray[np.float64]

BAND_IS_A_POINT_BELOW = 0.05  # of the mean load: a closed night, which any forecast covers


class Forecasts(Protocol):
    """Anything that forecasts a panel at an instant: ``Forecaster.forecast``, or a choice among several."""

    def __call__(self, panel: Panel, *, at: datetime) -> Forecast:
        """Return the forecast of every series of ``panel``, whose hours are over at ``at``."""


class ForecastEvaluation(Struct, frozen=True, kw_only=True):
    """Figures over ``n`` series-hours whose load is known.

    WAPE is ``sum |load - p50| / sum load``, of the forecast and of each baseline on the same hours; NaN if all loads
    are 0. ``p10_p90_coverage`` is the share of loads within the band, ends included; ``open_coverage`` the same over the
    ``open_share`` of hours whose band is wider than a point. ``from_model_share`` is 1 unless baselines stood in.
    """

    n: int
    n_origins: int
    wape: float
    wape_last_week: float
    wape_last_day: float
    wape_last_value: float
    p10_p90_coverage: float
    below_p10_rate: float
    above_p90_rate: float
    open_coverage: float
    open_share: float
    mean_band: float
    from_model_share: float


def evaluate(
    forecasts: Forecasts, panel: Panel, origins: Sequence[datetime], *, zone: str = "UTC"
) -> ForecastEvaluation:
    """Return the figures of forecasts made at ``origins``, each given only what was known by then.

    The baselines are those of ``models.demand`` by the clocks of ``zone``, the stronger form: in UTC last week's hour is
    an hour off for a week after each change of the clocks.

    Raises
    ------
    ValueError
        If no load is known at any forecast hour.
    """
    made = [(at, forecasts(panel.until(at), at=at)) for at in origins]
    load = np.concatenate([_loads(panel, forecast) for _, forecast in made] or [np.empty(0)])
    known = ~np.isnan(load)
    if not known.any():
        raise ValueError(f"an evaluation needs known loads, got none at {len(origins)} origins")
    load = load[known]
    band = np.concatenate([_band(forecast) for _, forecast in made])[known]
    from_model = np.concatenate([forecast.from_model for _, forecast in made])[known]
    baselines = np.concatenate([_baselines(panel, at, forecast, zone) for at, forecast in made])[known]
    wapes = [_wape(load, point) for point in (band[:, 1], *baselines.T)]
    return _figures(load, band, wapes, n_origins=len(origins), from_model_share=float(from_model.mean()))


def _figures(
    load: Floats, band: Floats, wapes: Sequence[float], *, n_origins: int, from_model_share: float
) -> ForecastEvaluation:
    below, above = load < band[:, 0], load > band[:, 2]
    width = band[:, 2] - band[:, 0]
    open_hours = width > BAND_IS_A_POINT_BELOW * load.mean()
    return ForecastEvaluation(
        n=len(load),
        n_origins=n_origins,
        wape=wapes[0],
        wape_last_week=wapes[1],
        wape_last_day=wapes[2],
        wape_last_value=wapes[3],
        p10_p90_coverage=float(1 - (below | above).mean()),
        below_p10_rate=float(below.mean()),
        above_p90_rate=float(above.mean()),
        open_coverage=_share(~(below | above)[open_hours]),
        open_share=float(open_hours.mean()),
        mean_band=float(width.mean()),
        from_model_share=from_model_share,
    )


def _loads(panel: Panel, forecast: Forecast) -> Floats:
    row = {name: index for index, name in enumerate(panel.series)}
    column = ((forecast.hour - panel.start) // HOUR).astype(np.int64)
    inside = (column >= 0) & (column < panel.n_hours)
    rows = np.array([row[name] for name in forecast.series.tolist()], dtype=np.int64)
    load = np.full(len(column), np.nan)
    load[inside] = panel.load[rows[inside], column[inside]]
    return load


def _band(forecast: Forecast) -> Floats:
    return np.column_stack([forecast.p10, forecast.p50, forecast.p90])


def _baselines(panel: Panel, at: datetime, forecast: Forecast, zone: str) -> Floats:
    horizon_hours = len(forecast.hour) // len(panel.series)
    return np.column_stack(
        [
            demand.last_week(panel, at, horizon_hours=horizon_hours, zone=zone),
            demand.last_day(panel, at, horizon_hours=horizon_hours, zone=zone),
            demand.last_value(panel, at, horizon_hours=horizon_hours),
        ]
    )


def _wape(load: Floats, point: Floats) -> float:
    total = load.sum()
    return float(np.abs(load - point).sum() / total) if total else float("nan")


def _share(told: NDArray[np.bool_]) -> float:
    return float(told.mean()) if len(told) else float("nan")
