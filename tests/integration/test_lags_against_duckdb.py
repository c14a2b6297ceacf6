import duckdb
import numpy as np
import pyarrow as pa

from features.lags import COLUMNS, Lags
from features.panel import Panel

N_HOURS = 40 * 24
QUERY = """
WITH lagged AS (
    SELECT series, hour,
        lag(load, 24) OVER whole AS lag_1d,
        lag(load, 168) OVER whole AS lag_7d,
        lag(load, 672) OVER whole AS lag_28d,
        avg(load) OVER (PARTITION BY series ORDER BY hour ROWS BETWEEN 29 PRECEDING AND 6 PRECEDING) AS level_24h,
        avg(load) OVER (PARTITION BY series ORDER BY hour ROWS BETWEEN 677 PRECEDING AND 6 PRECEDING) AS scale
    FROM panel WINDOW whole AS (PARTITION BY series ORDER BY hour)
)
SELECT lag_1d, lag_7d, lag_28d, level_24h, scale FROM lagged WHERE hour >= 700 ORDER BY series, hour
"""
STEP = 6  # the query's frames end six hours before the target, at the origin


def test_lags_and_levels_are_those_of_duckdbs_window_functions() -> None:
    random = np.random.default_rng(8)
    load = random.poisson(20.0, (3, N_HOURS)).astype(float)
    load[random.random(load.shape) < 0.05] = np.nan
    panel = Panel(series=("a", "b", "c"), start=np.datetime64("2024-06-01T00"), load=load)
    series, hour = (axis.ravel() for axis in np.meshgrid(np.arange(3), np.arange(N_HOURS), indexing="ij"))
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE panel (series INTEGER, hour INTEGER, load DOUBLE)")
        connection.register("given", pa.table({"series": series, "hour": hour, "value": load.ravel()}))
        connection.execute("INSERT INTO panel SELECT series, hour, nullif(value, 'nan'::DOUBLE) FROM given")
        expected = connection.execute(QUERY).fetchnumpy()
    targets = hour >= 700
    origin = hour[targets] - STEP
    lags = Lags(panel, horizon_hours=24, zone="UTC", holidays="none")
    matrix, scale = lags.rows(series[targets], origin, np.full(len(origin), STEP))
    found = dict(zip(COLUMNS[1:], (matrix * scale[:, None]).T, strict=True)) | {"scale": scale}
    for name, column in expected.items():
        np.testing.assert_allclose(found[name], np.ma.filled(column, np.nan), rtol=1e-12)
