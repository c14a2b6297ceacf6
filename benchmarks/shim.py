"""What an answer of the shim costs, beside a C echo and other ways to serve the same booster, all in one interleaved run.

    python -m benchmarks.shim [--quick] [--kills N] [--swaps N] [--soak SECONDS] [--peers-venv DIR]

One server per turn is under load, on one core; the load generator (C, compiled here) has the other. Each figure is the
median of its rounds. One event has 8 candidates, 30 features and 200 trees of 31 leaves; its decision is logged before the
answer leaves, with metrics on. ``--peers-venv`` names an environment with MLServer and BentoML in it, which do not share ours.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import engine, loading, nats, shim_faults, shim_peers, shim_report, shim_world
from benchmarks.loading import Load, NoCompilerError, Server
from benchmarks.shim_world import BATCH, OPEN_RATE, World
from flows import components
from serving import server as shim_process
from serving.settings import Settings

NO_COMPILER = 2
SATURATION = 32  # connections
N_INPROC = 3_000
_IDS = 1_000_000_000  # numbers apart for each turn, so that no event is asked about twice


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How long and how often is measured."""

    rounds: int
    seconds: float
    kills: int
    swaps: int
    faults: bool
    soak_seconds: float
    n_questions: int  # over NATS


@dataclass
class Bench:
    """One run: the programs, the world, and what every server was measured at."""

    load: Load
    world: World
    folder: Path
    effort: Effort
    found: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    _turns: Iterator[int] = field(default_factory=lambda: count(1))

    def measure(self, server: Server, content: bytes, **options: Any) -> dict[str, Any]:
        """Return one turn of load on a server."""
        template = self.folder / f"{server.name}.http"
        template.write_bytes(content)
        seconds = options.pop("seconds", self.effort.seconds)
        return self.load.run(server.port, template, seconds=seconds, first=next(self._turns) * _IDS, **options)

    def note(self, name: str, **figures: float) -> None:
        """Keep figures of one round."""
        for what, value in figures.items():
            self.found.setdefault(name, {}).setdefault(what, []).append(value)

    def median(self, name: str, what: str) -> float | None:
        """Return the median over the rounds, None where it was not measured."""
        values = self.found.get(name, {}).get(what)
        return round(statistics.median(values), 1) if values else None


def run_rounds(
    bench: Bench, echo: Server, bare: Server, shim: Server, asleep: Server, peers: dict[str, tuple[Server, bytes]]
) -> None:
    """Measure everything in turn, round after round; ``asleep`` is a shim that never polls."""
    one = shim_world.request("/v1/decisions", shim_world.question())
    batch = shim_world.request("/v1/decisions", [shim_world.question()] * BATCH)
    for _ in range(bench.effort.rounds):
        for server, content in ((echo, one), (bare, one), (shim, one), (asleep, one), *peers.values()):
            alone = bench.measure(server, content)
            many = bench.measure(server, content, connections=SATURATION)
            bench.note(server.name, p50_us=alone["p50_us"], rps=many["rps"])
        for server in (echo, shim):
            steady = bench.measure(server, one, connections=16, rate=OPEN_RATE)
            bench.note(server.name, p99_us=steady["p99_us"], behind=steady["behind"])
        batches = bench.measure(shim, batch, connections=2)
        bench.note("shim", batch_rps=batches["rps"] * BATCH)


def run_canary(bench: Bench, shim: Server) -> None:
    """Measure the shim while a canary is live, so that two models are scored; the champion is alone again afterwards."""
    one = shim_world.request("/v1/decisions", shim_world.question())
    _await_generation(shim, bench.world.start_canary(bench.world.digests[1], share=0.1))
    for _ in range(bench.effort.rounds):
        alone, many = bench.measure(shim, one), bench.measure(shim, one, connections=SATURATION)
        bench.note("canary", p50_us=alone["p50_us"], rps=many["rps"])
    _await_generation(shim, bench.world.withdraw())


def measure_nats(folder: Path, n_questions: int) -> dict[str, float | None]:
    """Return the median microseconds of a decision over NATS, and of a bare request-reply; nothing where NATS is not installed."""
    if find_spec("nats") is None:
        return {"p50_us": None, "bare_p50_us": None}
    folder.mkdir()
    try:
        measured = nats.measure(folder, n_questions)
    except components.NotInstalledError:
        return {"p50_us": None, "bare_p50_us": None}
    medians = {"p50_us": measured.decisions, "bare_p50_us": measured.bare}
    return {name: round(statistics.median(took), 1) for name, took in medians.items()}


def measure_overload(bench: Bench, server: Server) -> dict[str, Any]:
    """Return what five times the capacity does to a shim: of ordinary requests, and of those that are for the whole path."""
    told = {}
    for name, is_ordinary, first in (
        ("overload", True, 700_000_000_000),
        ("overload_whole_path", False, 800_000_000_000),
    ):
        asked = shim_world.request("/v1/decisions", shim_world.question(is_ordinary=is_ordinary))
        capacity_rps = bench.measure(server, asked, seconds=3, connections=32)["rps"]
        template = bench.folder / f"{name}.http"
        template.write_bytes(asked)
        told[name] = shim_faults.overrun(
            bench.load, server, template, capacity_rps=capacity_rps, seconds=10, first=first
        )
    return told


def measure_inproc(world: World, folder: Path) -> float:
    """Return the median microseconds of a decision in this process, from bytes to bytes, logged."""
    settings = Settings(home=folder / "inproc", config_path=world.config_path)
    settings.home.mkdir()
    for name in ("ledger", "store"):
        (settings.home / name).symlink_to(world.home / name)
    parts = shim_process.wire(settings)
    parts.follower.poll()
    took = []
    for body in [json.dumps(shim_world.question(f"{number:012d}")).encode() for number in range(N_INPROC)]:
        begin = time.perf_counter_ns()
        answer = parts.shim.answer(body, parts.shim.clock.now(), is_bare=False)
        took.append(time.perf_counter_ns() - begin)
        assert answer is not None  # noqa: S101 - else the fast path was not measured
    parts.shim.recorder.close()
    return round(statistics.median(took) / 1e3, 1)


def run(effort: Effort, folder: Path, peers_venv: Path | None) -> dict[str, Any]:
    """Run all of it and return what is told as JSON."""
    load = loading.compile_programs(folder)
    world = shim_world.make(folder)
    bench = Bench(load, world, folder, effort)
    inproc_us, ratios = measure_inproc(world, folder), engine.time_common(effort.rounds)
    peers, absent = shim_peers.available(world, folder, peers_venv)
    echo_port = loading.free_port()
    echo = Server("echo", [str(load.echo), str(echo_port)], echo_port, {}, health=None)
    bare_port = loading.free_port()
    bare = Server("bare", [sys.executable, "-m", "benchmarks.shim_bare", str(bare_port)], bare_port, {}, health=None)
    shim, asleep = shim_faults.shim_server(world), shim_faults.sleeping_server(folder / "asleep")
    with ExitStack() as running:
        cold_start_s = _start_cold(shim)
        running.callback(shim.stop)
        for server in (echo, bare, asleep, *(server for server, _ in peers.values())):
            server.start()
            running.callback(server.stop)
        run_rounds(bench, echo, bare, shim, asleep, peers)
        run_canary(bench, shim)
        rss_mb = round(shim.resident_mb(), 1)
        one = shim_world.request("/v1/decisions", shim_world.question())
        swaps = shim_faults.swap(
            shim,
            world,
            lambda seconds, _: bench.measure(shim, one, seconds=seconds, connections=4, rate=200),
            n=effort.swaps,
        )
        faults: dict[str, Any] = {}
        if effort.faults:
            faults = measure_overload(bench, shim)
            faults["slow_heads"] = shim_faults.crawl(shim)
            faults["huge_body"] = shim_faults.swell(shim)
        if effort.soak_seconds:
            faults["soak"] = shim_faults.soak(
                shim,
                lambda seconds: bench.measure(shim, one, seconds=seconds, connections=16, rate=OPEN_RATE),
                seconds=effort.soak_seconds,
            )
        rss_after_mb = round(shim.resident_mb(), 1)
    kills = shim_faults.kill(
        lambda: _started(shim_faults.shim_server(world)), world.home / "spool", n_kills=effort.kills
    )
    return {
        "benchmark": "shim",
        "echo_p50_us": bench.median("echo", "p50_us"),
        "echo_p99_us": bench.median("echo", "p99_us"),
        "echo_rps": bench.median("echo", "rps"),
        "bare_http": {what: bench.median("bare", what) for what in ("p50_us", "rps")},
        "asleep": {what: bench.median("asleep", what) for what in ("p50_us", "rps")},
        "engine_x_booster": ratios["8"],
        "engine_x_booster_32": ratios["32"],
        "shim": {what: bench.median("shim", what) for what in ("p50_us", "p99_us", "rps", "batch_rps")}
        | {"rss_mb": rss_mb, "rss_after_mb": rss_after_mb, "cold_start_s": round(cold_start_s, 2)},
        "peers": {
            name: {what: bench.median(server.name, what) for what in ("p50_us", "rps")}
            for name, (server, _) in peers.items()
        },
        "absent": absent,
        "inproc_us": inproc_us,
        "canary": {what: bench.median("canary", what) for what in ("p50_us", "rps")},
        "nats": measure_nats(folder / "over-nats", effort.n_questions),
        "swaps": swaps,
        "kill9": kills,
        **faults,
        "rounds": effort.rounds,
        "seconds": effort.seconds,
        "seed": shim_world.SEED,
        "python": platform.python_version(),
        "versions": {
            name: version(name) for name in ("httptools", "lightgbm", "msgspec", "numpy", "uvloop", "turnout")
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; return 0, or 2 where there is no C compiler."""
    parser = argparse.ArgumentParser(prog="benchmarks.shim", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the core of it, in under a minute")
    parser.add_argument("--kills", type=int, help="how often the shim is killed")
    parser.add_argument("--swaps", type=int, help="how many releases are swapped under load")
    parser.add_argument("--soak", type=float, default=0.0, help="seconds of steady load, to see whether memory grows")
    parser.add_argument("--peers-venv", type=Path, help="an environment with MLServer and BentoML")
    wished = parser.parse_args(arguments)
    quick = wished.quick
    effort = Effort(
        rounds=1 if quick else 5,
        seconds=1.0 if quick else 3.0,
        kills=wished.kills or (3 if quick else 100),
        swaps=wished.swaps or (3 if quick else 100),
        faults=not quick,
        soak_seconds=wished.soak,
        n_questions=500 if quick else nats.N_QUESTIONS,
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            told = run(effort, Path(folder), wished.peers_venv)
    except NoCompilerError as error:
        sys.stderr.write(f"{error}\n")
        return NO_COMPILER
    shim_report.show(told)
    print(json.dumps(told))
    return 0


def _started(server: Server) -> Server:
    server.start()
    return server


def _await_generation(shim: Server, generation: int) -> None:
    give_up_at = time.monotonic() + 30.0
    while json.loads(shim.ask("GET", "/v1/models/router/current")[1])["generation"] < generation:
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"the shim did not follow to generation {generation}")
        time.sleep(0.05)


def _start_cold(shim: Server) -> float:
    """Start the shim with its release on the shelf already; return the seconds to the first decision."""
    shim.start()  # takes the release and tries it out, which is once per digest
    _await_generation(shim, 1)
    shim.stop()
    begin = time.perf_counter()
    shim.start()
    body = json.dumps(shim_world.question("cold")).encode()
    status, told = shim.ask("POST", "/v1/decisions", body)
    assert status == 200 and json.loads(told)["digest"], told  # noqa: PLR2004, PT018, S101 - else nothing was measured
    return time.perf_counter() - begin


if __name__ == "__main__":
    sys.exit(main())
