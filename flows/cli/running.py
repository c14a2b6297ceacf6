"""``turnout up``, ``serve`` and ``status``: what runs."""

import signal
import sys
import threading
from typing import Annotated, Any

from cyclopts import Parameter

from flows.cli import telling


def up(
    *,
    mlflow_port: int = 5000,
    prefect_port: int = 4200,
    shim_port: int = 8100,
    nats: bool = False,
    nats_port: int = 4222,
    nats_monitor_port: int = 8222,
    replay: bool = False,
    dry_run: bool = False,
) -> int:
    """Start MLflow, Prefect with its worker and deployments, and the shim; stop them on SIGINT or SIGTERM.

    Parameters
    ----------
    mlflow_port, prefect_port, shim_port, nats_port, nats_monitor_port
        Where they listen on loopback; 0 takes any that is free.
    nats
        Start a NATS server as well, over which the shim answers and from which outcomes are ingested (turnout[nats]).
    replay
        Let requests to the shim bring their own time.
    dry_run
        Say what would be started, and start nothing.
    """
    from flows import settings
    from flows.components import Ports
    from flows.stack import ALL, Stack

    ports = Ports(
        mlflow=mlflow_port, prefect=prefect_port, shim=shim_port, nats=nats_port, nats_monitor=nats_monitor_port
    )
    parts = (*ALL, "nats") if nats else ALL
    stack = Stack(settings.read(), components=parts, ports=ports, replay=replay)
    if dry_run:
        telling.table(("component", "address"), stack.urls.items())
        return 0
    asked_to_stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked_to_stop.set())
    with stack:
        telling.table(("component", "address"), stack.urls.items())
        sys.stdout.flush()
        asked_to_stop.wait()
    return 0


def serve(*, port: int | None = None, workers: int = 1, replay: bool = False) -> int:
    """Run the shim, from the environment (``TURNOUT_HOME``, ``TURNOUT_CONFIG``, ``TURNOUT_HOST``, ...).

    Parameters
    ----------
    port
        Where to listen, over ``TURNOUT_PORT``.
    workers
        How many processes share the port; with one, it is this process.
    replay
        Let requests bring their own time.
    """
    from dataclasses import replace

    from serving import __main__ as shim
    from serving import settings

    chosen = settings.read()
    chosen = replace(chosen, port=chosen.port if port is None else port, replay=replay or chosen.replay)
    return shim.run(chosen, n_workers=workers)


def status(*, as_json: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """Show what runs, what the ledger says is released, and what every configured shim serves.

    Returns 1 if a shim cannot be reached or has a problem.

    Parameters
    ----------
    as_json
        Print JSON.
    """
    from flows import shims, stack
    from models.releases.ledger import Ledger

    settings = telling.attach()
    running = stack.state(settings.home)
    head = Ledger(settings.ledger_path).head()
    answers = shims.ask_all(settings, "GET", "/status")
    told: dict[str, Any] = {
        "stack": running["components"] if running else None,
        "generation": head.entry.generation if head else 0,
        "streams": {n: _released(r) for n, r in head.entry.streams.items()} if head else {},
        "models": head.entry.models if head else {},
        "shims": {answer.url: answer.document if answer.ok else answer.failure for answer in answers},
    }
    if as_json:
        telling.report(told, as_json=True)
    else:
        _show(told)
    return 0 if all(answer.ok and not answer.document["problems"] for answer in answers) else 1


def _released(release: Any) -> dict[str, Any]:
    return {"mode": release.mode, "champion": release.champion, "canary": release.canary, "share": release.canary_share}


def _show(told: dict[str, Any]) -> None:
    parts = told["stack"] or {}
    telling.table(("component", "address", "pid"), ((name, part["url"], part["pid"]) for name, part in parts.items()))
    sys.stdout.write(f"\nledger: generation {told['generation']}\n")
    telling.table(
        ("stream", "mode", "champion", "canary", "share"),
        (
            (
                name,
                release["mode"],
                (release["champion"] or "-")[:12],
                (release["canary"] or "-")[:12],
                release["share"],
            )
            for name, release in told["streams"].items()
        ),
    )
    sys.stdout.write("\n")
    for url, shim in told["shims"].items():
        if isinstance(shim, str):
            sys.stdout.write(f"shim {url}: {shim}\n")
            continue
        stops = [f"stopped: {o['stream'] or 'every stream'} by {o['actor']}: {o['reason']}" for o in shim["overrides"]]
        wrong = "; ".join([*stops, *shim["problems"]]) or "well"
        sys.stdout.write(f"shim {url}: generation {shim['generation']}, {wrong}\n")
