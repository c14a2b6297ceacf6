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
from collections.abc import Callable, Iterator
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
        self.arguments: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "serving", *self.arguments]
        self.process = subprocess.Popen(command, cwd=REPOSITORY, env=self.environment)
        give_up_at = time.monotonic() + 60
        while time.monotonic() < give_up_at:
            assert self.process.poll() is None, "the shim ended before it served"
            with contextlib.suppress(OSError, HTTPException):
                if self.ask("GET", "/health/ready")[0] == 200:
                    return
            time.sleep(0.02)
        pytest.fail("the shim never got ready")

    def ask(
        self, method: str, path: str, document: Any = None, *, raw: bool = False, **headers: str
    ) -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        body = None if document is None else json.dumps(document)
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content and not raw else None

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


def test_a_draining_shim_finishes_what_is_on_its_way_and_ends_connections_well(shim: Shim) -> None:
    assert shim.process
    body = json.dumps({"event": event("e1")}).encode()
    head = b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with contextlib.ExitStack() as open_ones:
        idle, busy = (
            open_ones.enter_context(socket.create_connection(("127.0.0.1", shim.port), timeout=20)) for _ in range(2)
        )
        idle.sendall(b"GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert idle.recv(4_096).startswith(b"HTTP/1.1 200")
        busy.sendall(head % len(body) + body[:10])
        while shim.ask("GET", "/metrics", raw=True)[0] != 200:  # so that the head has been read
            pass
        shim.process.send_signal(signal.SIGTERM)
        assert idle.recv(4_096) == b""
        busy.sendall(body[10:])
        told = busy.recv(65_536)
        assert told.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in told
        assert busy.recv(1) == b""
    assert shim.process.wait(timeout=30) == 0
    assert [record.event_id for record in shim.records() if isinstance(record, Decision)] == ["e1"]


def test_a_port_that_is_taken_is_said_in_a_line(shim: Shim) -> None:
    for arguments in ((), ("--workers", "2")):
        command = [sys.executable, "-m", "serving", *arguments]
        done = subprocess.run(
            command, cwd=REPOSITORY, env=shim.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f"TURNOUT_PORT {shim.port} cannot be listened on" in done.stderr


class Workers(Shim):
    """Two workers on one port."""

    def __init__(self, folder: Path, **environment: str) -> None:
        super().__init__(folder, **environment)
        self.arguments = ("--workers", "2")

    def pids(self) -> list[int]:
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(child) for child in children]

    def await_all(self) -> None:
        """Wait until a connection to each worker was answered: each has a socket of its own on the port."""
        give_up_at = time.monotonic() + 60
        while time.monotonic() < give_up_at:
            paths = [Path(f"/proc/{pid}/net/tcp").read_text() for pid in self.pids()]
            if len(paths) == 2 and paths[0].count(f":{self.port:04X} 00000000:0000 0A") == 2:
                return
            time.sleep(0.02)
        pytest.fail("not all workers listen")


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    started = Workers(tmp_path)
    started.start()
    started.await_all()
    yield started
    if started.process and started.process.poll() is None:
        started.end(signal.SIGTERM)


def until(condition: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_at, "it never came about"
        time.sleep(0.02)


def test_workers_share_a_port_and_hear_what_the_others_decided_and_were_told(workers: Workers) -> None:
    def ask_all() -> list[str]:
        return [workers.ask("POST", "/v1/decisions", {"event": event(f"e{n}")})[1]["decision_id"] for n in range(30)]

    first = ask_all()
    prefixes = {path.name.rpartition("-")[0] for path in spool.segments(workers.folder / "home" / "spool")}
    assert prefixes == {"shim", "shim1"}, "both took part"
    until(lambda: all(workers.ask("GET", "/status")[1]["remembered_decisions"] == 30 for _ in range(10)))
    assert ask_all() == first
    assert workers.ask("POST", "/v1/overrides", {"kind": "stop", "actor": "ada", "reason": "drill"})[1]["saved"]
    until(lambda: all(len(workers.ask("GET", "/v1/overrides")[1]) == 1 for _ in range(10)))
    assert workers.ask("DELETE", "/v1/overrides?kind=stop")[1]["cleared"]["actor"] == "ada"
    until(lambda: not any(workers.ask("GET", "/v1/overrides")[1] for _ in range(10)))


def test_a_worker_that_dies_is_replaced_and_all_drain_together(workers: Workers) -> None:
    before = workers.pids()
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(workers.pids()) - set(before)) == 1)
    workers.await_all()
    assert workers.ask("GET", "/health/ready")[0] == 200
    left = workers.pids()
    assert workers.end(signal.SIGTERM) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_workers_do_not_outlive_a_supervisor_that_is_killed(workers: Workers) -> None:
    left = workers.pids()
    workers.end(signal.SIGKILL)
    until(lambda: not any(is_running(pid) for pid in left))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_frames_over_a_socket_reach_the_same_shim_and_its_file_is_its_owners(tmp_path: Path) -> None:
    shim = Shim(tmp_path, TURNOUT_SOCKET=str(tmp_path / "s"), TURNOUT_TOKEN="t")
    shim.start()
    try:
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(tmp_path / "s"))
            content = b"POST /v1/decisions\n" + json.dumps({"event": event("e1")}).encode()
            connection.sendall(len(content).to_bytes(4, "big") + content)
            told = connection.recv(65_536)
        assert int.from_bytes(told[4:6], "big") == 200
        assert json.loads(told[6:])["decision_id"]
        assert shim.ask("GET", "/status")[0] == 401
    finally:
        shim.end(signal.SIGTERM)


@pytest.mark.parametrize("durable", ["batch", "async"])
def test_every_durability_writes_what_was_accepted_before_it_ends(tmp_path: Path, durable: str) -> None:
    shim = Shim(tmp_path, TURNOUT_DURABLE=durable)
    shim.start()
    for number in range(20):
        assert shim.ask("POST", "/v1/decisions", {"event": event(f"e{number}")})[0] == 200
    assert shim.end(signal.SIGTERM) == 0
    assert len(shim.records()) == 20


def test_s15_s16_thousands_of_requests_leave_memory_descriptors_and_threads_as_they_were(shim: Shim) -> None:
    def size() -> tuple[float, int, int]:
        assert shim.process
        folder = Path(f"/proc/{shim.process.pid}")
        return (
            resident_mb(shim.process.pid),
            len(list((folder / "fd").iterdir())),
            len(list((folder / "task").iterdir())),
        )

    asyncio.run(ask_over_one_connection(shim.port, 2_000))
    before = size()
    for _ in range(4):
        asyncio.run(ask_over_one_connection(shim.port, 2_000))
    shim.ask("GET", "/health/ready")
    after = size()
    assert after[0] - before[0] < 5
    assert after[1] <= before[1] + 1  # a connection may be closing still
    assert after[2] == before[2]


def test_a_stop_holds_with_everything_else_down_and_through_a_kill(shim: Shim) -> None:
    stop = {"kind": "stop", "actor": "ada", "reason": "drill"}
    assert shim.ask("POST", "/v1/overrides", stop)[1]["saved"]
    assert shim.ask("POST", "/v1/decisions", {"event": event("e1")})[1]["reason"] == "override: stopped by ada: drill"
    shim.end(signal.SIGKILL)
    shim.start()
    assert shim.ask("POST", "/v1/decisions", {"event": event("e2")})[1]["reason"] == "override: stopped by ada: drill"
    assert shim.ask("DELETE", "/v1/overrides?kind=stop")[1]["cleared"]["actor"] == "ada"
    assert shim.ask("POST", "/v1/decisions", {"event": event("e3")})[1]["reason"] == "static: mode off"


def test_s02_a_huge_body_is_refused_before_it_is_sent(shim: Shim) -> None:
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


def test_s13_i09_ten_kills_under_load_lose_nothing_that_was_accepted(shim: Shim) -> None:
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
