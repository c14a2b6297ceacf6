"""Ingest: what the shims spooled, and files of the user's own, into the warehouse."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from rich.console import Console
from rich.progress import Progress

from features import ingestion
from features.ingestion import IngestProgress, IngestReport
from flows.publishing import publish
from flows.wiring import Wiring, wire


class DriftedSourceError(RuntimeError):
    """Sources that are not what they should be: names them and the field. Their rows are in quarantine, none is lost."""


def ingest_sources(wired: Wiring, sources: list[str]) -> IngestReport:
    """Ingest files, folders of them and streams; without any, the shims' spool and the stream of outcomes. Shows a progress bar on a terminal."""
    wired.settings.spool_path.mkdir(parents=True, exist_ok=True)  # before the first shim has spooled anything
    wanted = sources or wired.settings.outcome_sources
    with _progress_bar() as on_progress:
        return ingestion.ingest(wired.warehouse, wanted, wired.configuration, now=wired.now, on_progress=on_progress)


def refuse_drift(report: IngestReport) -> None:
    """Raise what the report refuses.

    Raises
    ------
    DriftedSourceError
        If a source drifted.
    """
    if report.refusal is not None:
        raise DriftedSourceError(report.refusal)


@contextmanager
def _progress_bar() -> Iterator[Callable[[IngestProgress], None]]:
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        bar = progress.add_task("ingest", total=1.0)
        yield lambda done: progress.update(bar, completed=done.done_share, description=Path(done.source).name)


_ingest = task(cache_policy=NO_CACHE, retries=3, retry_delay_seconds=10)(ingest_sources)


@flow(name="ingest")
def ingest(sources: list[str] | None = None, as_of: str | None = None) -> dict[str, Any]:
    """Ingest ``sources`` (files, folders, ``nats://HOST:PORT/STREAM``; default the shims' spool and the stream of outcomes); running twice equals running once.

    Returns the report, with ``state`` ``ingested``. A drifted source fails the flow after its rows were quarantined.
    """
    report = _ingest(wire(as_of), sources or [])
    told = publish("ingest", {"state": "ingested", **asdict(report)})
    refuse_drift(report)
    return told
