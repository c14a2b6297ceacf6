"""The demo: the whole loop on a year of real flights, from an empty folder to the table in the README."""

import csv
import json
import os
import shutil
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.progress import Progress

from flows import settings as environment
from flows.components import Ports
from flows.stack import Name, Stack
from scenarios.flights import configuration, report, world
from scenarios.flights.stopwatch import Stopwatch
from scenarios.flights.world import World

FAST_AIRPORTS = 12
# By fast: a smaller world decides less often.
LOOK_EVERY = {False: timedelta(hours=3), True: timedelta(hours=24)}
CARE_EVERY = {False: timedelta(days=14), True: timedelta(days=60)}
LADDER_DECISIONS = {False: 50, True: 20}  # at the least, on each rung


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    home: Path
    fast: bool = False
    wait: bool = False
    approver: str = "demo reviewer"
    json_path: Path | None = None
    keep: bool = False
    broker: Literal["http", "nats"] = "http"


def main(options: Options) -> dict[str, Any]:
    """Run the demo in ``options.home``, emptied first, and return its report."""
    console, watch = Console(), Stopwatch()
    shutil.rmtree(options.home, ignore_errors=True)
    options.home.mkdir(parents=True)
    _set_environment(options.home)
    begun = time.monotonic()
    whole = world.load()
    whole = whole.of_airports(FAST_AIRPORTS) if options.fast else whole
    text = configuration.text(whole, ladder_decisions=LADDER_DECISIONS[options.fast])
    (options.home / "turnout.toml").write_text(text, encoding="utf-8")
    _write_departures(whole, options.home / "departures.csv")
    settings = environment.read()
    # Any that are free: a demo must not stumble over what runs already.
    ports = Ports(mlflow=0, prefect=0, shim=0, nats=0, nats_monitor=0)
    parts: tuple[Name, ...] = ("mlflow", "prefect", "shim", *(("nats",) if options.broker == "nats" else ()))
    with Stack(settings, components=parts, ports=ports, replay=True) as stack:
        watch.seconds["stack"] = time.monotonic() - begun
        told = _play(stack, options, whole, text, watch, console)
        report.show(told, console)
        _point_out(stack, console, keep=options.keep)
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return told


def _set_environment(home: Path) -> None:
    """Point this process, and all that it starts, to the demo's home."""
    os.environ["TURNOUT_HOME"] = str(home.absolute())
    os.environ["TURNOUT_CONFIG"] = str((home / "turnout.toml").absolute())
    os.environ["TURNOUT_REPLAY"] = "1"
    os.environ.pop("TURNOUT_NATS_URL", None)  # a broker of one's own has nothing to do with it
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "WARNING")


def _write_departures(whole: World, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("series", "hour", "load"))
        for origin, counts in whole.departures.items():
            hours = np.datetime_as_string(whole.hours.astype("datetime64[s]"))
            writer.writerows((origin, hour, count) for hour, count in zip(hours, counts.tolist(), strict=True))


def _play(
    stack: Stack, options: Options, whole: World, text: str, watch: Stopwatch, console: Console
) -> dict[str, Any]:
    os.environ.update(stack.environment)
    os.environ.pop(
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY", None
    )  # costs every flow a second; this process reports for itself
    from scenarios.flights.stage import Stage  # noqa: PLC0415 - Prefect reads its environment when it is imported

    with Progress(console=console) as progress:
        stage = Stage(
            home=options.home,
            whole=whole,
            text=text,
            shim_url=stack.urls["shim"],
            nats_url=stack.urls.get("nats"),
            mlflow_url=stack.urls["mlflow"],
            approver=None if options.wait else options.approver,
            look_every=LOOK_EVERY[options.fast],
            care_every=CARE_EVERY[options.fast],
            progress=progress,
            watch=watch,
        )
        return stage.play()


def _point_out(stack: Stack, console: Console, *, keep: bool) -> None:
    """Say where to look, and stay up while asked to."""
    home = os.environ["TURNOUT_HOME"]
    if not keep:
        console.print(f"to look at it: TURNOUT_HOME={home} TURNOUT_CONFIG={home}/turnout.toml turnout up")
        return
    for name, url in stack.urls.items():
        console.print(f"{name}: {url}")
    console.input("press Enter to stop")
