"""What the embedded stack consists of: the commands of MLflow, Prefect, its worker, NATS and the shim, and their environments."""

import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flows.settings import Settings
from flows.supervisor import Component

HOST = "127.0.0.1"
WORK_POOL = "turnout"
GUARDED_APP = "turnout"  # the entry point of models.registry_guard
HEARTBEAT_SECONDS = 30  # the least that Prefect takes

_FOREIGN_PREFIXES = ("PREFECT_", "MLFLOW_")  # another server's address or profile must not leak into this stack
_KEPT = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}


class NotInstalledError(RuntimeError):
    """A component that an extra brings, and that is not there: names both."""


@dataclass(frozen=True, kw_only=True)
class Ports:
    """Where the stack listens on loopback; 0 takes any that is free."""

    mlflow: int = 5000
    prefect: int = 4200
    shim: int = 8100
    nats: int = 4222
    nats_monitor: int = 8222

    def url(self, name: str) -> str:
        """Return the address of a component."""
        return f"{'nats' if name == 'nats' else 'http'}://{HOST}:{getattr(self, name)}"


def inherit(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the part of a process's environment that the components may see."""
    return {k: v for k, v in environ.items() if k in _KEPT or not k.startswith(_FOREIGN_PREFIXES)}


def lone_environment(settings: Settings) -> dict[str, str]:
    """Return what a flow needs to run without any server: Prefect keeps its things under ``settings.home`` as well."""
    prefect_home = settings.home / "prefect"
    return {
        **_TELEMETRY_OFF,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "OMP_WAIT_POLICY": "passive",  # LightGBM's threads must not spin where cores are shared
        "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{prefect_home / 'prefect.db'}",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # 20 are too few where cores are busy
        "TURNOUT_CONFIG": str(settings.config_path),
        "TURNOUT_HOME": str(settings.home),
        "TURNOUT_MLFLOW_AUTH": "true" if settings.mlflow_auth else "false",
        "TURNOUT_SHIMS": ",".join(settings.shim_urls),
        **_broker_environment(settings.nats_url),
    }


def _broker_environment(url: str | None) -> dict[str, str]:
    """Return nothing where a password stands in the address: this is written down, and whoever may know it has it in their environment."""
    return {"TURNOUT_NATS_URL": url} if url and "@" not in url else {}


def flow_environment(settings: Settings, ports: Ports) -> dict[str, str]:
    """Return what a flow needs to run with the stack on ``ports``."""
    return {
        **lone_environment(settings),
        "PREFECT_API_URL": f"{ports.url('prefect')}/api",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    }


def mlflow_server(settings: Settings, ports: Ports, environ: Mapping[str, str]) -> Component:
    """Return the tracking server: one worker, no jobs, no pickles; clients write artifacts to the folder themselves.

    Where ``settings.mlflow_auth`` is set, it asks everyone for a name and a password, and stamps who approves.
    """
    home = settings.home / "mlflow"
    guarded = settings.mlflow_auth
    return Component(
        name="mlflow",
        command=(
            *(sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(ports.mlflow)),
            *("--workers", "1", "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"),
            *("--default-artifact-root", (home / "artifacts").as_uri(), "--no-serve-artifacts"),
            *("--uvicorn-opts", "--log-level warning"),
            *(("--app-name", GUARDED_APP) if guarded else ()),
        ),
        environment={
            **environ,
            **(_auth_environment(settings) if guarded else {}),
            "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        },
        health_url=f"{ports.url('mlflow')}/health",
    )


def auth_config(settings: Settings) -> str:
    """Return MLflow's basic_auth.ini: everyone who is known may read, all else is by roles."""
    database = f"sqlite:///{auth_database(settings)}".replace("%", "%%")  # a percent sign is the format's own
    lines = ("[mlflow]", "default_permission = READ", f"database_uri = {database}", "admin_username = admin")
    cache = "auth_cache_ttl_seconds = 60"  # of the one worker, which forgets at once whose password or rights changed
    return "\n".join((*lines, "grant_default_workspace_access = false", cache, ""))


def auth_database(settings: Settings) -> Path:
    """Return where MLflow keeps its users and roles."""
    return settings.home / "mlflow" / "users.db"


def auth_config_path(settings: Settings) -> Path:
    """Return where `auth_config` is written for the server to read."""
    return settings.home / "mlflow" / "basic_auth.ini"


def _auth_environment(settings: Settings) -> dict[str, str]:
    admin = settings.mlflow_admin
    told = {"MLFLOW_AUTH_ADMIN_USERNAME": admin[0], "MLFLOW_AUTH_ADMIN_PASSWORD": admin[1]} if admin else {}
    return {
        **told,
        "MLFLOW_AUTH_CONFIG_PATH": str(auth_config_path(settings)),
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "true",
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(32),  # of the one worker: it need not outlive it
    }


def prefect_server(ports: Ports, environ: Mapping[str, str]) -> Component:
    """Return Prefect's server."""
    return Component(
        name="prefect",
        command=_prefect("server", "start", "--host", HOST, "--port", str(ports.prefect)),
        environment={
            **environ,
            "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ports.url("prefect"),  # by default any page may command it
        },
        health_url=f"{ports.url('prefect')}/api/health",
    )


def prefect_worker(ports: Ports, environ: Mapping[str, str]) -> Component:
    """Return the worker that runs the flows in processes of their own; it makes the work pool if there is none."""
    return Component(
        name="worker",
        command=_prefect("worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", "turnout"),
        environment=environ,
        health_url=f"{ports.url('prefect')}/api/work_pools/{WORK_POOL}",
        grace_seconds=30.0,
    )


def nats_server(folder: Path, ports: Ports, environ: Mapping[str, str]) -> Component:
    """Return a NATS server that keeps its streams in ``folder``.

    Raises
    ------
    NotInstalledError
        If the extra that brings it is not there.
    """
    beside = os.pathsep.join((str(Path(sys.executable).parent), environ.get("PATH", os.defpath)))
    program = shutil.which("nats-server", path=beside)
    if program is None:
        raise NotInstalledError("nats-server is not installed: it comes with turnout[nats]")
    return Component(
        name="nats",
        command=(
            *(program, "-a", HOST, "-p", str(ports.nats), "-m", str(ports.nats_monitor)),
            *("-js", "-sd", str(folder)),
        ),
        environment=environ,
        health_url=f"{ports.url('nats_monitor')}/healthz",
    )


def shim(ports: Ports, environ: Mapping[str, str], *, replay: bool) -> Component:
    """Return the shim; under ``replay`` requests bring their own time."""
    return Component(
        name="shim",
        command=(sys.executable, "-m", "serving", *(["--replay"] if replay else [])),
        environment={**environ, "TURNOUT_HOST": HOST, "TURNOUT_PORT": str(ports.shim)},
        health_url=f"{ports.url('shim')}/health/live",
    )


def deploy_command(prefect_file: Path) -> tuple[str, ...]:
    """Return the command that makes the deployments of a ``prefect.yaml`` what it says."""
    return _prefect("--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file))


def _prefect(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "prefect", *arguments)
