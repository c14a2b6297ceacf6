"""A real NATS server and shims that ask it for work, each in a process of its own, to be killed and started again."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
import pytest

from features import spool
from features.records import Decision, Outcome
from flows import components
from flows.components import Ports

REPOSITORY = Path(__file__).resolve().parents[3]
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


class NatsServer:
    """One server with JetStream, on ports and a folder that outlive its processes."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
            self.ports = Ports(nats=one.getsockname()[1], nats_monitor=other.getsockname()[1])
        self.component = components.nats_server(folder, self.ports, {})
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self.ports.url("nats")

    def start(self) -> None:
        self.process = subprocess.Popen(self.component.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _await(lambda: socket.create_connection(("127.0.0.1", self.ports.nats), timeout=1).close())

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait()


class NatsShim:
    """One shim on its own home and port."""

    def __init__(self, folder: Path, url: str, configuration: str = CONFIGURATION, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "turnout.toml").write_text(configuration)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = folder / "home"
        self.environment = os.environ | {
            "TURNOUT_HOME": str(self.home),
            "TURNOUT_CONFIG": str(folder / "turnout.toml"),
            "TURNOUT_PORT": str(self.port),
            "TURNOUT_NATS_URL": url,
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "serving"], cwd=REPOSITORY, env=self.environment)
        _await(self._look)

    def end(self, with_signal: signal.Signals = signal.SIGKILL) -> int:
        assert self.process
        self.process.send_signal(with_signal)
        return self.process.wait(timeout=30)

    def records(self) -> list[Decision | Outcome]:
        lines = [line.payload for path in spool.segments(self.home / "spool") for line in spool.read_lines(path)]
        return [msgspec.json.decode(line, type=Decision | Outcome) for line in lines if line]

    def _look(self) -> None:
        assert self.process
        assert self.process.poll() is None, "the shim ended before it served"
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", "/health/ready")
        assert connection.getresponse().status == 200
        connection.close()


def _await(look: Callable[[], None]) -> None:
    give_up_at = time.monotonic() + 60
    while time.monotonic() < give_up_at:
        with contextlib.suppress(OSError, HTTPException):
            return look()
        time.sleep(0.02)
    pytest.fail("it never listened")


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def start_shim(nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[..., NatsShim]]:
    """Start shims of the server's, each called with a name and what its environment has besides."""
    shims: list[NatsShim] = []

    def started(name: str = "shim", **options: str) -> NatsShim:
        shims.append(NatsShim(tmp_path / name, nats_server.url, **options))
        shims[-1].start()
        return shims[-1]

    yield started
    for shim in shims:
        if shim.process and shim.process.poll() is None:
            shim.end()
