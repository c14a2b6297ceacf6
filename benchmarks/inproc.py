"""What a decision costs in process, bytes to bytes: request JSON read, decided, logged, the answer written.

One event, 8 candidates, 30 features (20 of the event, 10 of the candidate, 2 categories on each side), 200 trees of 31
leaves; with a champion alone, with one that has two limits to keep, and with a canary live; by the fast path and, beside it, by the whole one. ``unlogged`` encodes the
record and does not write it.
"""

import argparse
import cProfile
import json
import pstats
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import engine as world
from features import config
from features.clock import SystemClock
from features.limits import LimitDefinition
from models import compiling, router
from models.card import CARD_FILE, Card, Head
from models.tariff import PricedLimit, PriceList, Tariff
from serving import intake
from serving.debts import Debts
from serving.memory import of_capacity
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.shim import Shim
from serving.view import Model, ReleaseView, StreamView

N_CANDIDATES, N_TREES, N_LEAVES = 8, 200, 31
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
HEADERS = {"content-type": "application/json"}
_RUN = 20
_ENCODER = msgspec.json.Encoder()
_EVENT = [f"e{n}" for n in range(18)]
_ATTRIBUTES = [f"c{n}" for n in range(4)]
_STATE = ["queue_depth", "in_flight", "latency_ms", "error_rate"]


class NoRecorder(Recorder):
    """Takes every record for written."""

    def flush(self, *, keep: bool = False) -> None:  # noqa: ARG002 - the recorder's signature
        """Forget what is held."""
        self.held.cut(0)

    def append_lines(self, lines: Sequence[bytes]) -> list[int]:
        """Return places that nothing lies at."""
        return [0] * len(lines)


@dataclass
class Fixed:
    """A release that never changes."""

    view: ReleaseView

    def report_fault(self, digest: str, reason: str) -> None:
        """Stop the measurement: a model that fails is not what it measures."""
        raise RuntimeError(f"{digest}: {reason}")

    def rejections(self) -> dict[str, str]:
        """Return that nothing is wrong."""
        return {}


def configuration() -> config.Configuration:
    """Return a stream of eight destinations and thirty features."""
    names = [f"d{n}" for n in range(N_CANDIDATES)]
    numbers = {name: f"event.{name}" for name in _EVENT}
    numbers |= {name: f"candidate.{name}" for name in _ATTRIBUTES} | {name: f"state.{name}" for name in _STATE}
    categories = {
        "kind": "event.kind",
        "zone": "event.zone",
        "destination": "destination.name",
        "tier": "destination.tier",
    }
    stream: dict[str, Any] = {
        "types": ["shop.order"],
        "destinations": names,
        "mode": "on",
        "static": {"default": names},
        "objective": {"success": 1.0},
        "exploration": {"epsilon": 0.05},
        "features": {"numbers": numbers, "categories": categories},
    }
    destinations = {name: {"attributes": {"tier": f"t{place % 3}"}} for place, name in enumerate(names)}
    return msgspec.convert({"streams": {"orders": stream}, "destinations": destinations}, config.Configuration)


def make_router(folder: Path, plan: Plan, seed: int) -> router.Router:
    """Return a router of one head, compiled and loaded as the shim loads it."""
    folder.mkdir()
    random, of = np.random.default_rng(seed), plan.streams["orders"]
    matrix = np.concatenate((random.normal(size=(20_000, 26)), random.integers(0, 3, (20_000, 4))), axis=1)
    chance = matrix[:, 0] + matrix[:, 20] + (matrix[:, 28] == matrix[:, 26]) + random.normal(size=20_000)
    data = lightgbm.Dataset(matrix, (chance > 0.5).astype(float), categorical_feature=[26, 27, 28, 29])  # noqa: PLR2004 - the median
    parameters = {"objective": "binary", "num_leaves": N_LEAVES, "verbosity": -1, "num_threads": 1, "seed": seed}
    lightgbm.train(parameters, data, num_boost_round=N_TREES).save_model(folder / "success_probability_0.txt")
    orders = {"kind": ("a", "b", "c"), "zone": ("n", "s", "w"), "tier": ("t0", "t1", "t2")}
    card = Card(
        stream="orders",
        feature_set=of.features.version,
        numbers=of.features.number_names,
        categories={name: orders.get(name, of.stream.destinations) for name in of.features.category_names},
        heads={"success_probability": Head(files=("success_probability_0.txt",), low=0.0, high=1.0)},
        objective=of.stream.objective,
        destinations=of.stream.destinations,
        value_low=0.0,
        value_high=1.0,
        trained={},
    )
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(card))
    compiling.compile_router(folder, card)
    return router.load(folder)


def limit(model: Model, numbers: tuple[str, ...]) -> Model:
    """Return the model, which reads ``numbers``, with prices: on a number that candidates bring, and on the share of one destination."""
    limits = (
        LimitDefinition(resource="units", per_event=0.2, price=_ATTRIBUTES[0]),
        LimitDefinition(destination="d0", share=0.1),
    )
    priced = tuple(PricedLimit(limit=each, price=0.05, step=0.01, most=1.0) for each in limits)
    listed = PriceList(limits=priced, temperature=1e-4, fitted={})
    return replace(model, tariff=Tariff(listed, numbers))


def requests(n_requests: int) -> Sequence[bytes]:
    """Return as many requests, no two of them alike."""
    random = np.random.default_rng(world.SEED)

    def numbers(names: Sequence[str]) -> dict[str, float]:
        return {name: round(float(value), 4) for name, value in zip(names, random.normal(size=len(names)), strict=True)}

    def candidates() -> Iterator[dict[str, Any]]:
        for n in range(N_CANDIDATES):
            state = {name: abs(value) % 1.0 for name, value in numbers(_STATE).items()}
            yield {"destination": f"d{n}", "attributes": numbers(_ATTRIBUTES), "state": state}

    made = []
    for n in range(n_requests):
        event = {"specversion": "1.0", "id": f"order-{n}", "source": "/shop", "type": "shop.order"}
        event_data = {**numbers(_EVENT), "kind": "abc"[n % 3], "zone": "nsw"[n % 3]}
        made.append(_ENCODER.encode({"event": {**event, "data": event_data}, "candidates": list(candidates())}))
    return made


def make_shim(folder: Path, plan: Plan, view: StreamView, *, logs: bool) -> Shim:
    """Return a shim that serves ``view``."""
    return Shim(
        plan=plan,
        clock=SystemClock(),
        releases=Fixed(ReleaseView(generation=1, streams={"orders": view})),
        overrides=OverrideJournal(folder / "overrides.jsonl"),
        recorder=(Recorder if logs else NoRecorder)(folder / "spool"),
        memory=of_capacity(1 << 16),
        debts=Debts(),
    )


def decide(shim: Shim, body: bytes) -> bytes:
    """Return the answer to one request, as the handler makes it: by the fast path where that takes it."""
    told = shim.answer(body, AT, is_bare=False)
    return decide_wholly(shim, body) if told is None else told


def decide_wholly(shim: Shim, body: bytes) -> bytes:
    """Return the answer to one request by the whole path."""
    asked, _ = intake.decision_requests(HEADERS, body)
    return _ENCODER.encode(shim.decide(asked, AT)[0])


def time_us(
    decide: Callable[[Shim, bytes], bytes],
    folder: Path,
    plan: Plan,
    view: StreamView,
    bodies: Sequence[bytes],
    *,
    logs: bool,
) -> float:
    """Return the mean time per request of the best run of `_RUN` requests: what others do on the machine is not ours."""
    shim = make_shim(folder, plan, view, logs=logs)
    best = float("inf")
    for start in range(0, len(bodies), _RUN):
        run = bodies[start : start + _RUN]
        started = time.perf_counter_ns()
        for body in run:
            decide(shim, body)
        best = min(best, (time.perf_counter_ns() - started) / len(run) / 1e3)
    return best


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--profile", action="store_true", help="print where the time goes")
    chosen = parser.parse_args()
    bodies, plan = requests(500), Plan.of(configuration())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        champion, challenger = (
            Model(role * 64, make_router(folder / role, plan, seed)) for seed, role in enumerate("ab")
        )
        views = {
            "champion": StreamView(mode="on", generation=1, champion=champion),
            "limited": StreamView(
                mode="on", generation=1, champion=limit(champion, plan.streams["orders"].features.number_names)
            ),
            "canary": StreamView(
                mode="canary", generation=1, champion=champion, challenger=challenger, challenger_share=0.1
            ),
        }
        told: dict[str, float] = {}
        for turn in range(6 if chosen.quick else 40):  # interleaved
            for live, view in views.items():
                for path, decides in (("", decide), ("_wholly", decide_wholly)):
                    for logs in (False, True):
                        key = f"{live}{path}" if logs else f"{live}{path}_unlogged"
                        us = time_us(decides, folder / f"{key}-{turn}", plan, view, bodies, logs=logs)
                        told[key] = min(us, told.get(key, us))
        if chosen.profile:
            profile = cProfile.Profile()
            shim = make_shim(folder / "profiled", plan, views["champion"], logs=False)
            profile.runcall(lambda: [decide(shim, body) for body in bodies])
            pstats.Stats(profile).sort_stats("tottime").print_stats(40)
    table = Table(
        title=f"one decision in process, us, the best run of {_RUN}, {len(bodies)} requests of {len(bodies[0])} bytes"
    )
    table.add_column("live")
    for column in ("bytes to bytes, logged", "record not written"):
        table.add_column(column, justify="right")
    for live in views:
        for path, name in (("", live), ("_wholly", f"{live}, the whole path")):
            table.add_row(name, f"{told[live + path]:.1f}", f"{told[f'{live}{path}_unlogged']:.1f}")
    Console().print(table)
    print(json.dumps({"inproc_us": {key: round(us, 1) for key, us in told.items()}, "engine": champion.router.engine}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
