"""The loop itself, played on a stack that is up: history, forecaster, router, canary, live months, tally."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.progress import Progress

from flows.calling import call
from flows.forecast import forecast
from flows.ingest import ingest
from flows.promote import promote, release
from flows.retrain import retrain
from flows.wiring import Wiring, wire
from scenarios.flights import hindsight, past, plant, report, world
from scenarios.flights.broker import Broker
from scenarios.flights.configuration import STREAM
from scenarios.flights.parcels import Parcels, instants
from scenarios.flights.replay import Broker as Asking
from scenarios.flights.replay import Replay
from scenarios.flights.stopwatch import Stopwatch
from scenarios.flights.world import World

FOLLOW_SECONDS = 60.0
PLANTED_AFTER = timedelta(days=60)  # of the live part: by then the good one has long climbed
LATEST_OUTCOME = timedelta(days=2)  # the history's last outcomes become known after the live part has begun


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One run of the demo: what it plays with, and how the time went. Without an ``approver`` it waits for a person.

    With a ``nats_url`` the shim is asked over NATS, and the outcomes go by their stream instead of by the shim.

    ``look_every`` is how often a live canary is looked at, ``care_every`` how often the spool is ingested and the
    forecast made anew once it is settled.
    """

    home: Path
    whole: World
    text: str
    shim_url: str
    nats_url: str | None
    mlflow_url: str
    approver: str | None
    look_every: timedelta
    care_every: timedelta
    watch: Stopwatch
    progress: Progress

    def play(self) -> dict[str, Any]:
        """Play the whole loop and return the report."""
        past_world = self.whole.between(world.HISTORY_BEGINS_AT, world.LIVE_BEGINS_AT)
        live_world = self.whole.between(world.LIVE_BEGINS_AT, world.YEAR_ENDS_AT)
        begins_at = instants(live_world.ready_at[:1])[0]
        with self.watch.step("history"):
            self._ingest([str(path) for path in self._write_past(past_world)], begins_at + LATEST_OUTCOME)
        with self.watch.step("forecast"):
            self._approve("forecaster", forecast(_iso(begins_at)))
            release("forecaster", _iso(begins_at))
        with self.watch.step("retrain"):
            self._approve("router", retrain(STREAM, _iso(begins_at)))
        with self.watch.step("promote"):
            promote(STREAM, _iso(begins_at))
            self._await_shim()
        replay = Replay(parcels=Parcels(live_world), broker=self._broker())
        promotions = self._replay(replay)
        with self.watch.step("tally"):
            return self._report(live_world, replay, promotions)

    def _broker(self) -> Asking:
        if self.nats_url is None:
            return Broker(url=self.shim_url)
        from scenarios.flights.nats_broker import NatsBroker  # noqa: PLC0415 - an extra

        return NatsBroker(url=self.nats_url)

    def _write_past(self, past_world: World) -> list[Path]:
        task = self.progress.add_task("deciding January to August", total=past_world.n_events)
        folder = self.home / "past"
        return past.write(past_world, self.text, folder, on_progress=lambda n: self.progress.advance(task, n))

    def _replay(self, replay: Replay) -> dict[str, dict[str, Any]]:
        """Play the live part; look after a canary while there is one, and after the warehouse now and then.

        Returns the last report of each canary: of the ``good`` one, and of the ``planted`` one that follows it.
        """
        task = self.progress.add_task("September to December", total=replay.parcels.world.n_events)
        seen: dict[str, dict[str, Any]] = {}
        plant_at = replay.parcels.ready_at[0] + PLANTED_AFTER
        next_look = replay.parcels.ready_at[0] + self.look_every
        hours = replay.hours()
        while True:
            with self.watch.step("replay"):
                at, n_parcels = next(hours, (None, 0))
            if at is None:
                break
            self.progress.advance(task, n_parcels)
            if at >= plant_at and self._is_settled() and "planted" not in seen:
                seen["planted"] = {}
                plant.begin_canary(wire(_iso(at)))
                self._await_shim()
                next_look = at + self.look_every
            if at >= next_look:
                with self.watch.step("promote"):
                    self._care(at, seen)
                next_look = at + (self.care_every if self._is_settled() else self.look_every)
        with self.watch.step("replay"):
            last = replay.finish()
        with self.watch.step("ingest"):
            self._ingest([*self.wired.settings.outcome_sources], last)
        return seen

    def _is_settled(self) -> bool:
        return self.wired.live(STREAM).canary is None

    def _care(self, at: datetime, seen: dict[str, dict[str, Any]]) -> None:
        """Ingest, look at the canary if one is live and keep what is found, else refresh the forecast."""
        self._ingest([*self.wired.settings.outcome_sources], at)
        if self._is_settled():
            forecast(_iso(at), refresh=True)
        else:
            seen["planted" if "planted" in seen else "good"] = promote(STREAM, _iso(at))
        self._await_shim()

    def _ingest(self, sources: list[str], at: datetime) -> None:
        ingest(sources, as_of=_iso(at))

    def _approve(self, model: str, made: Mapping[str, Any]) -> None:
        """Approve a registered candidate under the name given, or wait for a person to press the button."""
        if made["state"] != "registered":
            raise RuntimeError(f"the {model} was not registered: {made['state']}: {made['reasons']}")
        registry = self.wired.registry
        if self.approver is not None:
            candidate = registry.version(f"{model}-candidate", made["version"])
            registry.approve(candidate, target=model, actor=self.approver, reason="approved in the demo")
            return
        page = f"{self.mlflow_url}/#/models/{model}-candidate/versions/{made['version']}"
        self.progress.console.print(f"waiting: open {page} and press Promote model, to {model}")
        while not registry.versions(model):
            time.sleep(2.0)

    def _await_shim(self) -> None:
        """Wait until the shim has followed the ledger: replayed hours pass faster than it polls.

        Raises
        ------
        TimeoutError
            If it does not follow.
        """
        give_up_at = time.monotonic() + FOLLOW_SECONDS
        while call("GET", f"{self.shim_url}/v1/models/router/current").document["generation"] < self.wired.generation:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"the shim does not follow to generation {self.wired.generation}")
            time.sleep(0.1)

    @property
    def wired(self) -> Wiring:
        """The wiring of this process, by the machine's clock."""
        return wire()

    def _report(self, live_world: World, replay: Replay, seen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        choices = {
            "static": live_world.static_choice(),
            "earliest": live_world.earliest_choice(),
            "champion": hindsight.champion_choices(self.wired, live_world),
            "as_served": replay.assigned,
            "oracle": live_world.best_choice(),
        }
        return {
            **report.policies(live_world, choices),
            "promotion": _tell(seen["good"]),
            "planted": _tell(seen["planted"]),
            "lost_records": hindsight.count_lost(self.wired, replay),
            "forecast": hindsight.judge_forecast(self.wired),
            "seconds": self.watch.seconds,
        }


def _tell(last: Mapping[str, Any]) -> dict[str, Any]:
    reasons = [str(reason) for reason in last["reasons"]]
    return {
        "verdict": last["state"],
        "decisions": last["n_decisions"],
        "generation": last["generation"],
        "reason": reasons[0],
    }


def _iso(at: datetime) -> str:
    return at.isoformat()
