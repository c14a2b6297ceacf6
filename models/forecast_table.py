"""The forecast that a release carries, as the shim reads it, and the evidence beside a forecaster."""

import hashlib
import html
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
from matplotlib.figure import Figure

from models.backtest import ForecastEvaluation
from models.comparison import OfflineVerdict
from models.demand import Forecast

TABLE_FILE = "forecast.json"


def save(folder: Path, made: Forecast, *, at: datetime) -> None:
    """Write the forecast made ``at`` to ``folder``: per series its hours (UTC) and quantiles."""
    series = {}
    for name in sorted(set(made.series.tolist())):
        rows = made.of(name)
        quantiles = {quantile: np.round(getattr(rows, quantile), 6).tolist() for quantile in ("p10", "p50", "p90")}
        series[name] = {"hours": [f"{hour}:00:00Z" for hour in rows.hour], **quantiles}
    (folder / TABLE_FILE).write_bytes(msgspec.json.encode({"at": at, "series": series}, order="sorted"))


def write_evidence(folder: Path, bundle_folder: Path, evaluation: ForecastEvaluation, verdict: OfflineVerdict) -> str:
    """Write report, page and plot to ``folder``; return the SHA-256 of the report."""
    report = msgspec.json.format(msgspec.json.encode({"schema": 1, "verdict": verdict, "evaluation": evaluation}))
    (folder / "report.json").write_bytes(report)
    page = f"<!doctype html><meta charset=utf-8><title>Forecaster</title><pre>{html.escape(summary(evaluation, verdict))}</pre>"
    (folder / "report.html").write_text(page, encoding="utf-8")
    table = msgspec.json.decode((bundle_folder / TABLE_FILE).read_bytes())
    _draw(table).savefig(folder / "forecast.png", dpi=110, metadata={"Software": None})
    return hashlib.sha256(report).hexdigest()


def summary(evaluation: ForecastEvaluation, verdict: OfflineVerdict) -> str:
    """Return the version's description in Markdown."""
    lines = [
        f"**{verdict.state.upper()}** on {evaluation.n_origins} days, {evaluation.n:,} series-hours it was not fitted on.",
        "",
        "| | WAPE |",
        "|---|---|",
        f"| forecaster | {evaluation.wape:.3f} |",
        f"| same hour last week | {evaluation.wape_last_week:.3f} |",
        f"| same hour yesterday | {evaluation.wape_last_day:.3f} |",
        f"| last value | {evaluation.wape_last_value:.3f} |",
        "",
        f"The band from P10 to P90 held {evaluation.p10_p90_coverage:.1%} of the loads.",
        "",
        *(f"- {reason}" for reason in verdict.reasons),
    ]
    return "\n".join(lines)


def _draw(table: dict[str, dict[str, dict[str, list[float]]]]) -> Figure:
    figure = Figure(figsize=(7, 2.2 * len(table["series"])), layout="constrained")
    for axes, (name, rows) in zip(
        figure.subplots(len(table["series"]), squeeze=False)[:, 0], table["series"].items(), strict=True
    ):
        hours = np.arange(len(rows["p50"]))
        axes.fill_between(hours, rows["p10"], rows["p90"], alpha=0.25, lw=0)
        axes.plot(hours, rows["p50"])
        axes.set(title=name, xlabel="hours ahead", ylabel="load")
    return figure
