"""The demo: the whole loop on a year of real flights, from an empty folder to the table in the README."""

import csv
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from features import decision_log, history
from flows import settings as environment
from flows.forecast import forecast, read_loads
from flows.ingest import ingest
from flows.promote import promote, release
from flows.retrain import retrain
from flows.stack import Stack
from flows.wiring import Wiring, wire
from models import backtest, policy
from models.forecaster import Forecaster
from scenarios.flights import configuration, past, report, world
from scenarios.flights.broker import Broker
from scenarios.flights.configuration import STREAM
from scenarios.flights.parcels import Parcels, instants
from scenarios.flights.replay import Replay
from scenarios.flights.tally import Choice
from scenarios.flights.world import World

FAST_AIRPORTS = 12
LADDER_DECISIONS = {False: 150, True: 60}  # by fast: at the least, on each rung
LOOK_EVERY = timedelta(hours=6)  # while a canary is live
N_LIVE_DAYS = 121  # the last has no day after it
CARE_EVERY = timedelta(days=14)  # ingest and a fresh forecast, once the canary is settled


@dataclass(kw_only=True)
class Stopwatch:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to the step ``name``."""
        begun = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - begun


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for on the command line."""

    home: Path
    fast: bool = False
    wait: bool = False
    approver: str = "demo reviewer"
    json_path: Path | None = None
    keep: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the demo: what it plays with, and how the time went."""

    options: Options
    whole: World
    text: str
    stack: Stack
    watch: Stopwatch
    progress: Progress

    def play(self) -> dict[str, Any]:
        """Play the whole loop and return the report."""
        past_world = self.whole.between(world.HISTORY_BEGINS_AT, world.LIVE_BEGINS_AT)
        live_world = self.whole.between(world.LIVE_BEGINS_AT, world.YEAR_ENDS_AT)
        begins_at = instants(live_world.ready_at[:1])[0]
        with self.watch.step("history"):
            self._ingest([str(path) for path in self._write_past(past_world)], begins_at)
        with self.watch.step("forecast"):
            self._approve("forecaster", forecast(_iso(begins_at)))
            release("forecaster", _iso(begins_at))
        with self.watch.step("retrain"):
            self._approve("router", retrain(STREAM, _iso(begins_at)))
        with self.watch.step("promote"):
            promote(STREAM, _iso(begins_at))
        replay = Replay(parcels=Parcels(live_world), broker=Broker(url=self.stack.urls["shim"]))
        promotion = self._replay(replay)
        with self.watch.step("tally"):
            return self._report(live_world, replay, promotion)

    def _write_past(self, past_world: World) -> list[Path]:
        task = self.progress.add_task("deciding January to August", total=past_world.n_events)
        folder = self.options.home / "past"
        return past.write(past_world, self.text, folder, on_progress=lambda n: self.progress.advance(task, n))

    def _replay(self, replay: Replay) -> dict[str, Any]:
        """Play the live part; look after the canary while there is one, and after the warehouse now and then."""
        task = self.progress.add_task("September to December", total=replay.parcels.world.n_events)
        promotion: dict[str, Any] = {}
        next_look = replay.parcels.ready_at[0] + LOOK_EVERY
        hours = replay.hours()
        while True:
            with self.watch.step("replay"):
                at, n_parcels = next(hours, (None, 0))
            if at is None:
                break
            self.progress.advance(task, n_parcels)
            if at >= next_look:
                with self.watch.step("promote"):
                    promotion, settled = self._care(at, promotion)
                next_look = at + (CARE_EVERY if settled else LOOK_EVERY)
        with self.watch.step("replay"):
            last = replay.finish()
        with self.watch.step("ingest"):
            self._ingest([str(self.wired.settings.spool_path)], last)
        return promotion

    def _care(self, at: datetime, promotion: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Ingest, look at the canary if one is live, else refresh the forecast; return what was found and whether it is settled."""
        self._ingest([str(self.wired.settings.spool_path)], at)
        if self.wired.live(STREAM).canary is not None:
            promotion = promote(STREAM, _iso(at))
        else:
            forecast(_iso(at), refresh=True)
        return promotion, self.wired.live(STREAM).canary is None

    def _ingest(self, sources: list[str], at: datetime) -> None:
        ingest(sources, as_of=_iso(at))

    def _approve(self, model: str, made: Mapping[str, Any]) -> None:
        """Approve a registered candidate under the name given, or wait for a person to press the button."""
        if made["state"] != "registered":
            raise RuntimeError(f"the {model} was not registered: {made['state']}: {made['reasons']}")
        registry = self.wired.registry
        if not self.options.wait:
            candidate = registry.version(f"{model}-candidate", made["version"])
            registry.approve(candidate, target=model, actor=self.options.approver, reason="approved in the demo")
            return
        page = f"{self.stack.urls['mlflow']}/#/models/{model}-candidate/versions/{made['version']}"
        self.progress.console.print(f"waiting: open {page} and press Promote model, to {model}")
        while not registry.versions(model):
            time.sleep(2.0)

    @property
    def wired(self) -> Wiring:
        """The wiring of this process, by the machine's clock."""
        return wire()

    def _report(self, live_world: World, replay: Replay, promotion: Mapping[str, Any]) -> dict[str, Any]:
        choices = {
            "static": live_world.static_choice(),
            "earliest": live_world.earliest_choice(),
            "champion": champion_choices(self.wired, live_world),
            "as_served": replay.assigned,
            "oracle": live_world.best_choice(),
        }
        return {
            **report.policies(live_world, choices),
            "promotion": {
                "verdict": promotion["state"],
                "decisions": promotion["n_decisions"],
                "generation": promotion["generation"],
            },
            "lost_records": count_lost(self.wired, replay),
            "forecast": judge_forecast(self.wired),
            "seconds": self.watch.seconds,
        }


def champion_choices(wired: Wiring, live_world: World) -> Choice:
    """Return, per event, the greedy choice of the release that was live when it was decided, from the decision log."""
    configured = wired.configuration.streams[STREAM]
    table = history.rewards(wired.warehouse, STREAM, objective=configured.objective, as_of=wired.now)
    table = table.filter(
        pc.greater_equal(
            table["decided_at"],
            pa.scalar(live_world.ready_at[0].astype("datetime64[us]")).cast(table["decided_at"].type),
        )
    )
    log = decision_log.from_table(table, configured.features, cluster_by=configured.cluster)
    led = log.policies.get("champion", np.full(int(log.offsets[-1]), np.nan))
    live = policy.greedy_log(np.where(np.isnan(led), log.policies["static"], led), log.offsets)
    place = np.flatnonzero(live) - log.offsets[:-1]
    places = dict(zip(table["event_id"].to_pylist(), place.tolist(), strict=True))
    parcels = Parcels(live_world)
    return np.array([int(live_world.offsets[i]) + places[parcels.name(i)] for i in range(live_world.n_events)])


def count_lost(wired: Wiring, replay: Replay) -> int:
    """Return how many accepted decisions and reported outcomes the warehouse does not have."""
    configured = wired.configuration.streams[STREAM]
    table = history.rewards(wired.warehouse, STREAM, objective=configured.objective, as_of=wired.now)
    known = set(table["decision_id"].to_pylist())
    with_outcome = set(table.filter(pc.equal(table["status"], "observed"))["decision_id"].to_pylist())
    accepted = set(replay.decision_ids)
    return len(accepted - known) + len(accepted - with_outcome)


def judge_forecast(wired: Wiring) -> dict[str, float]:
    """Return how the released forecaster, forecasting every day of the live part, would have done."""
    digest = wired.released("forecaster")
    forecaster = Forecaster.load(wired.store.path(digest or ""))
    panel = read_loads(wired)
    first = instants(np.array([world.LIVE_BEGINS_AT]))[0]
    origins = [first + timedelta(days=day) for day in range(N_LIVE_DAYS)]
    zone = forecaster.card.config.zone
    found = backtest.evaluate(forecaster.forecast, panel, origins, zone=zone)
    return {
        "wape": found.wape,
        "wape_last_week": found.wape_last_week,
        "p10_p90_coverage": found.p10_p90_coverage,
        "n_series_hours": found.n,
    }


def main(options: Options) -> dict[str, Any]:
    """Run the demo in ``options.home``, emptied first, and return its report."""
    console, watch = Console(), Stopwatch()
    shutil.rmtree(options.home, ignore_errors=True)
    options.home.mkdir(parents=True)
    _set_environment(options.home)
    with watch.step("world"):
        whole = world.load()
        whole = whole.of_airports(FAST_AIRPORTS) if options.fast else whole
        text = configuration.text(whole, ladder_decisions=LADDER_DECISIONS[options.fast])
        (options.home / "turnout.toml").write_text(text, encoding="utf-8")
        _write_departures(whole, options.home / "departures.csv")
    with watch.step("stack"):
        stack = Stack(environment.read(), components=("mlflow", "prefect", "shim"), replay=True)
        stack.__enter__()
    with stack, Progress(console=console) as progress:
        told = Stage(options=options, whole=whole, text=text, stack=stack, watch=watch, progress=progress).play()
    report.show(told, console)
    if options.json_path is not None:
        options.json_path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    return told


def _set_environment(home: Path) -> None:
    """Point this process, and all that it starts, to the demo's home."""
    os.environ["TURNOUT_HOME"] = str(home.absolute())
    os.environ["TURNOUT_CONFIG"] = str((home / "turnout.toml").absolute())
    os.environ["TURNOUT_REPLAY"] = "1"


def _write_departures(whole: World, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("series", "hour", "load"))
        for origin, counts in whole.departures.items():
            hours = np.datetime_as_string(whole.hours.astype("datetime64[s]"))
            writer.writerows((origin, hour, count) for hour, count in zip(hours, counts.tolist(), strict=True))


def _iso(at: datetime) -> str:
    return at.isoformat()
