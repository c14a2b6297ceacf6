"""The pipeline's environment, read once per process and passed down as plain values."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.home import Home

OUTCOME_STREAM = "TURNOUT_OUTCOMES"  # as features.jetstream names it, which only those import who have a broker


@dataclass(frozen=True, kw_only=True)
class Settings(Home):
    """Where things are. Every path lies under ``home`` unless the environment says otherwise."""

    tracking_uri: str
    shim_urls: tuple[str, ...]
    token: str | None = None
    mlflow_auth: bool = False
    mlflow_admin: tuple[str, str] | None = field(default=None, repr=False)
    nats_url: str | None = field(default=None, repr=False)

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
    def knows_approvers(self) -> bool:
        """Whether the registry is a server that is to know its users: only there a name proves anything."""
        return self.mlflow_auth and self.tracking_uri.startswith(("http://", "https://"))

    @property
    def watch_path(self) -> Path:
        """When drift last led to a retraining, a file per stream."""
        return self.home / "watch"

    @property
    def data_docs_path(self) -> Path:
        """Great Expectations' pages."""
        return self.home / "data_docs"


def read(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process.

    ``TURNOUT_HOME``, ``TURNOUT_CONFIG``, ``TURNOUT_SHIMS``, ``TURNOUT_TOKEN``, ``TURNOUT_NATS_URL``, ``TURNOUT_MLFLOW_AUTH`` (``true``: MLflow
    knows its users) and ``MLFLOW_TRACKING_URI``; of the administrator ``MLFLOW_AUTH_ADMIN_USERNAME`` and
    ``MLFLOW_AUTH_ADMIN_PASSWORD``.

    Raises
    ------
    ValueError
        If ``TURNOUT_MLFLOW_AUTH`` is neither ``true`` nor ``false``.
    """
    home = Path(environment.get("TURNOUT_HOME", ".turnout")).absolute()
    password = environment.get("MLFLOW_AUTH_ADMIN_PASSWORD")
    return Settings(
        home=home,
        config_path=Path(environment.get("TURNOUT_CONFIG", "turnout.toml")).absolute(),
        tracking_uri=environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"),
        shim_urls=tuple(filter(None, environment.get("TURNOUT_SHIMS", "http://127.0.0.1:8100").split(","))),
        token=environment.get("TURNOUT_TOKEN"),
        nats_url=environment.get("TURNOUT_NATS_URL") or None,
        mlflow_auth=_truth(environment.get("TURNOUT_MLFLOW_AUTH", "false")),
        mlflow_admin=(environment.get("MLFLOW_AUTH_ADMIN_USERNAME", "admin"), password) if password else None,
    )


def _truth(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"TURNOUT_MLFLOW_AUTH must be true or false, got {value!r}")
    return value == "true"
