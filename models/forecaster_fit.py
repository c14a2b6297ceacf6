"""Fits and calibrates the demand forecaster with LightGBM. The pipeline's side; the shim never imports it."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import lightgbm
import numpy as np

from features.lags import COLUMNS, Floats, Integers, Lags
from features.panel import HOUR, Panel
from models.demand import QUANTILES
from models.forecaster import TEXT_NAMES, Card, Forecaster, ForecasterConfig, digest, feature_matrix, usual, widened

CALIBRATION_SHARE: Final = 0.25  # at most, of the panel's hours
# A band narrower than this share of the series' mean load is a point (a closed night): no width can be learned from it.
MIN_WIDTH_SHARE: Final = 0.05


@dataclass(frozen=True)
class _Rows:
    """Features float64[n, len(COLUMNS)], loads and scales float64[n]."""

    matrix: Floats
    load: Floats
    scale: Floats


def train(panel: Panel, config: ForecasterConfig, *, seed: int) -> Forecaster:
    """Return the forecaster of a panel: same panel, configuration and seed, same bytes.

    The model is fitted on the earlier part of the panel and calibrated on the later (``calibrate``); it is not fitted
    again on the whole, for the calibration would be another model's. No row spans the cut. With too few rows for two
    leaves, or for a calibration, the forecaster gives baselines only, and its card says why.
    """
    cut = panel.n_hours - min(24 * config.calibration_days, int(CALIBRATION_SHARE * panel.n_hours))
    lags = Lags(panel, horizon_hours=config.horizon_hours, zone=config.zone, holidays=config.holidays)
    fitted = _rows(panel, lags, config, 0, cut)
    held_out = _rows(panel, lags, config, cut, panel.n_hours)
    n_rows, n_held_out = len(fitted.load), len(held_out.load)
    if min(n_rows, n_held_out) < 2 * config.min_rows_per_leaf:
        rule = f"{2 * config.min_rows_per_leaf} rows with history to fit and as many to calibrate"
        return Forecaster(_card(panel, config, seed, (), reason=f"needs {rule}, got {n_rows} and {n_held_out}"), ())
    models = [_fit(fitted, quantile, config, seed) for quantile in QUANTILES]
    deviations = np.column_stack([model.predict(held_out.matrix, num_threads=1) for model in models])
    predicted = usual(held_out.matrix)[:, None] + deviations
    low, high = calibrate(widened(predicted, 0.0, 0.0), held_out.load / held_out.scale)
    texts = tuple(model.model_to_string() for model in models)
    counts = {"n_rows": n_rows, "n_calibration_rows": n_held_out}
    return Forecaster(_card(panel, config, seed, texts, widen_low=low, widen_high=high, **counts), texts)


def calibrate(quantiles: Floats, load: Floats) -> tuple[float, float]:
    r"""Return by how many widths P10 and P90 must move outwards for a tenth of the loads to lie past each.

    With :math:`w_i = q_{90,i} - q_{10,i}` and the scores :math:`e_i = (q_{10,i} - y_i) / w_i` (below) and
    :math:`(y_i - q_{90,i}) / w_i` (above), each offset is the :math:`\lceil .9 (n + 1) \rceil`-th smallest score; a
    negative one narrows. Rows whose band is a point are left out. ``quantiles`` float64[n, 3] in rising order and
    ``load`` float64[n] are divided by the scale, and held out from the fit. Loads of one day depend on each other, so
    the finite-sample guarantee, made for exchangeable rows, holds only about.

    Romano, Patterson and Candes, Conformalized quantile regression, 2019 (theorem 2, each tail by itself); scores by
    width: Sesia and Candes, A comparison of some conformal quantile regression methods, 2020.
    """
    width = quantiles[:, 2] - quantiles[:, 0]
    open_rows = width > MIN_WIDTH_SHARE
    n_rows = int(open_rows.sum())
    rank = int(np.ceil(QUANTILES[-1] * (n_rows + 1)))
    if rank > n_rows:
        return 0.0, 0.0
    width, load, ends = width[open_rows], load[open_rows], quantiles[open_rows]
    below, above = (ends[:, 0] - load) / width, (load - ends[:, 2]) / width
    return float(np.sort(below)[rank - 1]), float(np.sort(above)[rank - 1])


def _rows(panel: Panel, lags: Lags, config: ForecasterConfig, begin: int, end: int) -> _Rows:
    """Return the rows whose origins and targets lie in columns [begin, end) of the panel, with history and load."""
    series, origin, step = _grid(len(panel.series), begin, end, config)
    load = panel.load[series, origin + step]
    kept = lags.usable(series, origin, config.min_known_hours) & ~np.isnan(load)
    series, origin, step = series[kept], origin[kept], step[kept]
    matrix, scale = feature_matrix(lags, series, series, origin, step)
    return _Rows(matrix, load[kept], scale)


def _grid(n_series: int, begin: int, end: int, config: ForecasterConfig) -> tuple[Integers, Integers, Integers]:
    origins = np.arange(begin, max(begin, end - config.horizon_hours), config.origin_every_hours)
    steps = np.arange(1, config.horizon_hours + 1)
    series, origin, step = (axis.ravel() for axis in np.meshgrid(np.arange(n_series), origins, steps, indexing="ij"))
    return series, origin, step


def _fit(rows: _Rows, quantile: float, config: ForecasterConfig, seed: int) -> lightgbm.Booster:
    # Pinball loss scales with the load: weighting by the scale makes it the loss in units of the load.
    data = lightgbm.Dataset(
        rows.matrix,
        rows.load / rows.scale - usual(rows.matrix),
        weight=rows.scale / rows.scale.mean(),
        feature_name=list(COLUMNS),
        categorical_feature=[COLUMNS.index("series")],
    )
    parameters: dict[str, Any] = {
        "objective": "quantile",
        "alpha": quantile,
        "num_leaves": config.n_leaves,
        "min_data_in_leaf": config.min_rows_per_leaf,
        "learning_rate": config.learning_rate,
        "feature_fraction": 0.7,
        "bagging_fraction": 0.7,
        "bagging_freq": 1,
        "seed": seed,
        "num_threads": config.n_threads,
        "deterministic": True,
        "force_row_wise": True,
        "verbosity": -1,
    }
    return lightgbm.train(parameters, data, num_boost_round=config.n_rounds)


def _card(panel: Panel, config: ForecasterConfig, seed: int, texts: tuple[str, ...], **facts: Any) -> Card:
    return Card(
        config=config,
        seed=seed,
        series=panel.series,
        trained_from=_instant(panel.start),
        trained_until=_instant(panel.start + panel.n_hours * HOUR),
        digests={name: digest(text) for name, text in zip(TEXT_NAMES, texts, strict=False)},
        **{"n_rows": 0, "n_calibration_rows": 0, **facts},
    )


def _instant(hour: np.datetime64) -> datetime:
    seconds: datetime = hour.astype("datetime64[s]").item()
    return seconds.replace(tzinfo=UTC)
