"""Lifecycle: one round of everything that goes by itself; approvals do not."""

from datetime import timedelta
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from features.clock import SystemClock
from flows.classify import MODEL as CLASSIFIER
from flows.demote import demote
from flows.forecast import MODEL as FORECASTER
from flows.forecast import forecast
from flows.ingest import ingest
from flows.promote import promote, release
from flows.publishing import publish
from flows.watch import watch
from flows.wiring import Wiring, wire

ABANDONED_AFTER = timedelta(hours=6)


@flow(name="lifecycle")
def lifecycle(as_of: str | None = None) -> dict[str, Any]:
    """Ingest the spool, demote what fails, take the next step of every promotion, keep the forecast fresh, retrain on drift.

    Returns each step's state. Every step may be repeated, so a round that was killed is made up for by the next. What runs
    that were killed left behind in MLflow is ended.
    """
    wired = wire(as_of)
    configuration = wired.configuration
    steps: dict[str, Any] = {"ingest": ingest(as_of=as_of)["state"]}
    for stream in configuration.streams:
        steps[f"demote {stream}"] = demote(stream, as_of)["state"]
    if configuration.classifiers:
        steps["release classifier"] = release(CLASSIFIER, as_of)["state"]
    for stream in configuration.streams:
        steps[f"promote {stream}"] = promote(stream, as_of)["state"]
    if configuration.forecast is not None:
        steps["release forecaster"] = release(FORECASTER, as_of)["state"]
        steps["forecast"] = forecast(as_of, refresh=True)["state"]
    for stream in configuration.streams:  # last: a fit is slow and may fail, the steps above must not wait for it
        steps[f"watch {stream}"] = watch(stream, as_of)["state"]
    steps["reaped"] = len(_reap(wired))
    return publish("lifecycle", {"state": "done", **steps})


def reap(wired: Wiring) -> list[str]:
    """End the MLflow runs that a killed flow left running; no flow lives as long as `ABANDONED_AFTER`."""
    return wired.registry.reap(started_before=SystemClock().now() - ABANDONED_AFTER)


_reap = task(cache_policy=NO_CACHE)(reap)
