"""Lifecycle: one round of everything that goes by itself; approvals do not."""

from typing import Any

from prefect import flow

from flows.classify import MODEL as CLASSIFIER
from flows.forecast import MODEL as FORECASTER
from flows.forecast import forecast
from flows.ingest import ingest
from flows.promote import promote, release
from flows.publishing import publish
from flows.watch import watch
from flows.wiring import wire


@flow(name="lifecycle")
def lifecycle(as_of: str | None = None) -> dict[str, Any]:
    """Ingest the spool, take the next step of every promotion, keep the released forecast fresh, retrain where drift asks.

    Returns each step's state. Every step may be repeated, so a round that was killed is made up for by the next.
    """
    configuration = wire(as_of).configuration
    steps = {"ingest": ingest(as_of=as_of)["state"]}
    if configuration.classifiers:
        steps["release classifier"] = release(CLASSIFIER, as_of)["state"]
    for stream in configuration.streams:
        steps[f"promote {stream}"] = promote(stream, as_of)["state"]
    if configuration.forecast is not None:
        steps["release forecaster"] = release(FORECASTER, as_of)["state"]
        steps["forecast"] = forecast(as_of, refresh=True)["state"]
    for stream in configuration.streams:  # last: a fit is slow and may fail, the steps above must not wait for it
        steps[f"watch {stream}"] = watch(stream, as_of)["state"]
    return publish("lifecycle", {"state": "done", **steps})
