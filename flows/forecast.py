"""Forecast: the demand of the hours to come, from a forecaster that beat its baselines; registered, or refreshed once released."""

import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.csv
import pyarrow.parquet
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features.config import ConfigurationError, Forecast
from features.panel import Panel
from flows.publishing import publish
from flows.wiring import Wiring, wire
from models import backtest, forecast_table, forecaster_fit
from models.backtest import ForecastEvaluation
from models.comparison import OfflineVerdict
from models.forecaster import Forecaster, ForecasterConfig
from models.registered import unverified
from models.releases import bundle, transitions
from validation import gate
from validation.trust import STATIC, Approval

CANDIDATE_MODEL = "forecaster-candidate"
MODEL = "forecaster"


@dataclass(frozen=True, kw_only=True)
class ForecasterCandidate:
    """A fitted forecaster with its forecast, sealed: folder, digest, and how it did on days it was not fitted on."""

    folder: Path
    digest: str
    evaluation: ForecastEvaluation


def read_loads(wired: Wiring) -> Panel:
    """Return the configured loads, as known now.

    Raises
    ------
    ConfigurationError
        If no forecast is configured.
    """
    configured = _configured(wired)
    path = wired.settings.config_path.parent / configured.loads
    table = pyarrow.csv.read_csv(path) if path.suffix == ".csv" else pyarrow.parquet.read_table(path)
    hours = table["hour"].cast(pyarrow.timestamp("s")).to_numpy()
    panel = Panel.from_columns(table["series"].to_pylist(), hours, table["load"].to_numpy())
    return panel.until(wired.now)


def fit_candidate(wired: Wiring, panel: Panel) -> ForecasterCandidate:
    """Fit on all but the last days, judge on those, day by day, and forecast the hours to come with the same bytes."""
    configured = _configured(wired)
    begin = wired.now - timedelta(days=configured.holdout_days)
    settings = ForecasterConfig(zone=configured.zone, holidays=configured.holidays)
    fitted = forecaster_fit.train(panel.until(begin), settings, seed=configured.seed)
    origins = [begin + timedelta(days=day) for day in range(configured.holdout_days)]
    evaluation = backtest.evaluate(fitted.forecast, panel, origins, zone=configured.zone)
    folder = wired.workspace(f"forecaster-{wired.now:%Y%m%dT%H%M%S}")
    fitted.save(folder)
    forecast_table.save(folder, fitted.forecast(panel, at=wired.now), at=wired.now)
    return ForecasterCandidate(folder=folder, digest=bundle.seal(folder, kind=MODEL), evaluation=evaluation)


def register_candidate(wired: Wiring, candidate: ForecasterCandidate, verdict: OfflineVerdict) -> int:
    """Log bundle and evidence to MLflow and register the version with all that its release will check."""
    folder = wired.workspace(f"evidence-{candidate.digest[:12]}")
    digest = forecast_table.write_evidence(folder, candidate.folder, candidate.evaluation, verdict)
    approval = Approval(
        kind=MODEL,
        stream="",
        digest=candidate.digest,
        evidence=digest,
        evidence_at=wired.now.isoformat(),
        baseline=wired.released(MODEL) or STATIC,
        verdict=verdict.state,
        author=unverified(wired.actor),
        approver="",
    )
    return wired.registry.log_candidate(
        CANDIDATE_MODEL,
        candidate.folder,
        folder,
        metrics={name: float(value) for name, value in msgspec.to_builtins(candidate.evaluation).items()},
        params={},
        tags=approval.tags(),
        description=forecast_table.summary(candidate.evaluation, verdict),
    )


def refresh_release(wired: Wiring, panel: Panel) -> dict[str, Any]:
    """Forecast anew with the released forecaster, and release the same model with the new table.

    What a person approved is the model; its texts stay what they were, byte for byte, so a new table needs no approval.
    """
    live = wired.released(MODEL)
    if live is None:
        return {"state": "skipped", "reasons": ["no forecaster is released"]}
    folder = wired.workspace(f"forecast-{wired.now:%Y%m%dT%H%M%S}")
    shutil.rmtree(folder)
    shutil.copytree(wired.store.path(live), folder, ignore=shutil.ignore_patterns(bundle.MANIFEST_FILE))
    for path in (folder, *folder.iterdir()):
        path.chmod(0o755 if path.is_dir() else 0o644)
    forecast_table.save(folder, Forecaster.load(folder).forecast(panel, at=wired.now), at=wired.now)
    digest = wired.store.put(folder, digest=bundle.seal(folder, kind=MODEL))
    generation = wired.append(
        transitions.release_model,
        name=MODEL,
        digest=digest,
        reason="the forecast of the hours to come, by the approved forecaster",
        evidence={"refreshes": live},
    )
    return {"state": "refreshed", "digest": digest, "generation": generation}


def _configured(wired: Wiring) -> Forecast:
    if wired.configuration.forecast is None:
        raise ConfigurationError(f"{wired.settings.config_path}: forecast: no [forecast] table says what to forecast")
    return wired.configuration.forecast


_read = task(cache_policy=NO_CACHE)(read_loads)
_fit = task(cache_policy=NO_CACHE)(fit_candidate)
_register = task(retries=3, retry_delay_seconds=10, cache_policy=NO_CACHE)(register_candidate)
_refresh = task(cache_policy=NO_CACHE)(refresh_release)


@flow(name="forecast")
def forecast(as_of: str | None = None, *, refresh: bool = False) -> dict[str, Any]:
    """Fit, judge and register a demand forecaster; with ``refresh`` forecast anew with the released one instead.

    Returns a report: ``state`` is ``registered``, ``not_registered``, ``refreshed`` or ``skipped``, with the figures.
    """
    wired = wire(as_of)
    panel = _read(wired)
    if refresh:
        return publish("forecast", _refresh(wired, panel))
    candidate = _fit(wired, panel)
    verdict = gate.judge_forecaster(candidate.evaluation)
    figures = {"digest": candidate.digest, "reasons": verdict.reasons, **msgspec.to_builtins(candidate.evaluation)}
    if verdict.state != "passed":
        return publish("forecast", {"state": "not_registered", **figures})
    return publish("forecast", {"state": "registered", "version": _register(wired, candidate, verdict), **figures})
