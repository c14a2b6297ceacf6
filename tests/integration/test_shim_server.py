import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest

from features import config, spool
from features.cloudevents import CloudEvent
from features.records import Decision, Outcome
from serving.client import Client
from serving.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[2]
FORBIDDEN = ("prefect", "mlflow", "great_expectations", "duckdb", "pandas", "sklearn", "lightgbm", "scipy", "pyarrow")
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b", "c"]
static = { default = ["a", "b"] }
objective = { success = 1.0 }
exploration = { static_epsilon = 0.6 }
features = { numbers = { weight = "event.weight" } }

[destinations]
a = {}
b = {}
c = {}
"""


class Shim:
    """A real shim in a process of its own."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        (folder / "turnout.toml").write_text(CONFIGURATION)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.environment = os.environ | {
            "TURNOUT_HOME": str(folder / "home"),
            "TURNOUT_CONFIG": str(folder / "turnout.toml"),
            "TURNOUT_PORT": str(self.port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "serving"]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=self.environment)
        give_up_at = time.monotonic() + 60
        while time.monotonic() < give_up_at:
            assert self.process.poll() is None, "the shim ended before it served"
            with contextlib.suppress(OSError, HTTPException):
                if self.ask("GET", "/health/ready")[0] == 200:
                    return
            time.sleep(0.02)
        pytest.fail("the shim never got ready")

    def ask(self, method: str, path: str, document: Any = None, **headers: str) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content else None

    def end(self, with_signal: signal.Signals) -> int:
        assert self.process
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)

    def records(self) -> list[Decision | Outcome]:
        folder = self.folder / "home" / "spool"
        lines = [line.payload for path in spool.segments(folder) for line in spool.read_lines(path)]
        return [msgspec.json.decode(line, type=Decision | Outcome) for line in lines if line]


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[Shim]:
    started = Shim(tmp_path)
    started.start()
    yield started
    if started.process and started.process.poll() is None:
        started.end(signal.SIGKILL)


def event(identity: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": identity, "source": "/shop", "type": "shop.order", "data": {"weight": 2}}


def outcome(decision_id: str) -> dict[str, Any]:
    return {"decision_id": decision_id, "served": "a", "observed_at": "2026-11-24T12:00:00Z", "success": True}


def test_the_shim_imports_nothing_of_the_pipeline() -> None:
    program = f"import sys, serving.__main__, serving.probe, serving.client; print(*sys.modules.keys() & {FORBIDDEN})"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_an_environment_that_cannot_be_used_is_said_in_a_line(tmp_path: Path) -> None:
    shim = Shim(tmp_path, TURNOUT_HOST="0.0.0.0")  # noqa: S104 - what is refused
    command = [sys.executable, "-m", "serving"]
    done = subprocess.run(command, cwd=REPOSITORY, env=shim.environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "TURNOUT_TOKEN" in done.stderr


def test_a_terminated_shim_finishes_and_ends_well(shim: Shim) -> None:
    status, told = shim.ask("POST", "/v1/decisions", {"event": event("e1")})
    assert status == 200
    assert shim.ask("POST", "/v1/outcomes", outcome(told["decision_id"]))[0] == 202
    assert shim.end(signal.SIGTERM) == 0
    assert [type(record) for record in shim.records()] == [Decision, Outcome]


def test_a_stop_holds_with_everything_else_down_and_through_a_kill(shim: Shim) -> None:
    stop = {"kind": "stop", "actor": "ada", "reason": "drill"}
    assert shim.ask("POST", "/v1/overrides", stop)[1]["saved"]
    assert shim.ask("POST", "/v1/decisions", {"event": event("e1")})[1]["reason"] == "override: stopped by ada: drill"
    shim.end(signal.SIGKILL)
    shim.start()
    assert shim.ask("POST", "/v1/decisions", {"event": event("e2")})[1]["reason"] == "override: stopped by ada: drill"
    assert shim.ask("DELETE", "/v1/overrides?kind=stop")[1]["cleared"]["actor"] == "ada"
    assert shim.ask("POST", "/v1/decisions", {"event": event("e3")})[1]["reason"] == "static: mode off"


def test_a_huge_body_is_refused_before_it_is_sent(shim: Shim) -> None:
    assert shim.process
    before = resident_mb(shim.process.pid)
    with socket.create_connection(("127.0.0.1", shim.port), timeout=10) as connection:
        head = b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 120000000\r\n\r\n"
        connection.sendall(head)
        assert connection.recv(4_096).startswith(b"HTTP/1.1 413")
        with contextlib.suppress(OSError):
            for _ in range(120):
                connection.sendall(b"x" * 1_000_000)
    assert resident_mb(shim.process.pid) - before < 10
    assert shim.ask("GET", "/health/ready")[0] == 200


def resident_mb(process_id: int) -> float:
    pages = int(Path(f"/proc/{process_id}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def test_sixteen_at_once_asking_about_the_same_events_hear_the_same(shim: Shim) -> None:
    async def ask_all() -> list[list[tuple[str, str]]]:
        return await asyncio.gather(*(ask_over_one_connection(shim.port, 40) for _ in range(16)))

    told = asyncio.run(ask_all())
    assert all(answers == told[0] for answers in told)
    assert len(shim.records()) == 40
    assert len({destination for _, destination in told[0]}) > 1


async def ask_over_one_connection(port: int, n_events: int) -> list[tuple[str, str]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = []
    for number in range(n_events):
        body = json.dumps({"event": event(f"e{number}")}).encode()
        head = b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        writer.write(head + b"content-length: %d\r\n\r\n%b" % (len(body), body))
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.partition(b"content-length:")[2].partition(b"\r\n")[0])
        told = json.loads(await reader.readexactly(length))
        answers.append((told["decision_id"], told["destinations"][0]))
    writer.close()
    return answers


class Load:
    """Threads that ask and report until they are stopped, and what was accepted of it."""

    def __init__(self, shim: Shim, n_threads: int = 4) -> None:
        self.decided: dict[str, tuple[str, ...]] = {}  # decision id to destinations
        self.reported: Counter[str] = Counter()
        self.n_fallbacks = 0
        self._shim = shim
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(n_threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        plan = Plan.of(config.parse(CONFIGURATION))
        client = Client(url=self._shim.url, plan=plan, deadline_seconds=5.0)
        n_asked = 0
        while not self._done.is_set():
            n_asked += 1
            told = client.decide(msgspec.convert(event(f"{number}-{n_asked}"), CloudEvent))
            assert told.destinations, "the client answers always"
            if not told.logged:
                self.n_fallbacks += 1
                time.sleep(0.01)
                continue
            self.decided[told.decision_id] = told.destinations
            report = msgspec.convert(outcome(told.decision_id), Outcome)
            if client.report(report):
                self.reported[told.decision_id] += 1
        client.close()


def test_ten_kills_under_load_lose_nothing_that_was_accepted(shim: Shim) -> None:
    pause = random.Random(7)  # noqa: S311 - no secret
    with Load(shim) as load:
        for _ in range(10):
            n_before = len(load.decided)
            time.sleep(pause.uniform(0.05, 0.4))
            while len(load.decided) < n_before + 5:
                time.sleep(0.01)
            shim.end(signal.SIGKILL)
            shim.start()
    logged = shim.records()
    decisions = {record.decision_id: record for record in logged if isinstance(record, Decision)}
    outcomes = {record.decision_id for record in logged if isinstance(record, Outcome)}
    assert load.decided.keys() <= decisions.keys()
    assert load.reported.keys() <= outcomes
    assert all(decisions[name].assigned == told[0] for name, told in load.decided.items())
    assert len(decisions) == sum(isinstance(record, Decision) for record in logged), "no event was decided twice"
    assert load.n_fallbacks > 0
