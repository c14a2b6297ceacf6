"""The pipeline's environment, read once per process and passed down as plain values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from features.home import Home

OUTCOME_STREAM = "TURNOUT_OUTCOMES"  # as features.jetstream names it, which only those import who have a broker


@dataclass(frozen=True, kw_only=True)
class Settings(Home):
    """Where things are. Every path lies under ``home`` unless the environment says otherwise."""

    tracking_uri: str
    shim_urls: tuple[str, ...]
    token: str | None = None
    nats_url: str | None = None

    @property
    def outcome_sources(self) -> tuple[str, ...]:
        """What ingest reads if it is told nothing: the shims' spool, and the stream of outcomes where there is a broker."""
        streams = (f"{self.nats_url.rstrip('/')}/{OUTCOME_STREAM}",) if self.nats_url else ()
        return (str(self.spool_path), *streams)

    @property
    def warehouse_path(self) -> Path:
        """The one DuckDB file."""
        return self.home / "warehouse.duckdb"

    @property
    def snapshot_path(self) -> Path:
        """Parquet snapshots for readers beside the warehouse's one writer."""
        return self.home / "snapshots"

    @property
    def watch_path(self) -> Path:
        """When drift last led to a retraining, a file per stream."""
        return self.home / "watch"

    @property
    def data_docs_path(self) -> Path:
        """Great Expectations' pages."""
        return self.home / "data_docs"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process: ``TURNOUT_HOME``, ``TURNOUT_CONFIG``, ``TURNOUT_SHIMS``, ``TURNOUT_TOKEN``, ``TURNOUT_NATS_URL``, ``MLFLOW_TRACKING_URI``."""
    home = Path(environment.get("TURNOUT_HOME", ".turnout")).absolute()
    return Settings(
        home=home,
        config_path=Path(environment.get("TURNOUT_CONFIG", "turnout.toml")).absolute(),
        tracking_uri=environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"),
        shim_urls=tuple(filter(None, environment.get("TURNOUT_SHIMS", "http://127.0.0.1:8100").split(","))),
        token=environment.get("TURNOUT_TOKEN"),
        nats_url=environment.get("TURNOUT_NATS_URL") or None,
    )
