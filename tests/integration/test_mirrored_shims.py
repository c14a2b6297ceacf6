"""A shim on another machine: two real shims, of which one has nothing but the other's address."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features import config
from features.vector import CategoryColumn
from models import fit
from models.releases import bundle, transitions
from models.releases.entry import Entry
from models.releases.history import History
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[2]
BY = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { epsilon = 0.1 }
features = { numbers = { weight = "event.weight", depth = "state.queue_depth" } }

[destinations]
a = {}
b = {}
"""
TOKEN = "only-to-read"


class Machine:
    """A shim in processes of its own, on a machine that shares nothing with another."""

    def __init__(self, folder: Path, **environment: str) -> None:
        folder.mkdir()
        (folder / "turnout.toml").write_text(CONFIGURATION)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.home = folder / "home"
        self.ledger, self.store = Ledger(self.home / "ledger"), Store(self.home / "store")
        self.log = folder / "log"
        self.arguments: tuple[str, ...] = ()
        self.environment = os.environ | {
            "TURNOUT_HOME": str(self.home),
            "TURNOUT_CONFIG": str(folder / "turnout.toml"),
            "TURNOUT_PORT": str(self.port),
            "TURNOUT_POLL_SECONDS": "0.1",
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, "-m", "serving", *self.arguments]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=REPOSITORY, env=self.environment, stderr=log)
        self.wait_until(lambda: self.ask("/health/live")[0] == 200)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(timeout=60)

    def ask(self, path: str, document: Any = None, *, token: str = "") -> tuple[int, Any]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
        try:
            connection.request("POST" if document else "GET", path, json.dumps(document) if document else None, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read() or b"null")
        finally:
            connection.close()

    def decide(self, identity: str) -> dict[str, Any]:
        event = {"specversion": "1.0", "id": identity, "source": "/shop", "type": "shop.order", "data": {"weight": 1.0}}
        status, told = self.ask("/v1/decisions", {"event": event})
        assert status == 200, told
        return dict(told)

    def served(self) -> tuple[int, str | None]:
        _, status = self.ask("/status")
        return status["generation"], status["streams"]["orders"]["champion"]

    def problems(self) -> str:
        return " ".join(self.ask("/status")[1]["problems"])

    def wait_until(self, holds: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + 90
        while time.monotonic() < give_up_at:
            assert self.process is None or self.process.poll() is None, "the shim ended"
            try:
                if holds():
                    return
            except (OSError, HTTPException):
                pass
            time.sleep(0.05)
        pytest.fail(f"it never came true: {self.ask('/status')}, {self.log.read_text()}")

    def append(self, make: Callable[[History], Entry]) -> None:
        history = self.ledger.history()
        self.ledger.append(make(history), expected_head=history.hash)

    def promote(self, digest: str) -> tuple[int, str]:
        self.append(lambda history: transitions.start_canary(history, stream="orders", digest=digest, share=0.5, by=BY))
        self.append(lambda history: transitions.promote(history, stream="orders", by=BY))
        return self.ledger.history().generation, digest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of two sealed routers, ``a`` and ``b``."""
    root, of = tmp_path_factory.mktemp("trained"), Plan.of(config.parse(CONFIGURATION)).streams["orders"]
    random = np.random.default_rng(5)
    for favours in "ab":
        codes = random.integers(0, 2, 1_200)
        success = random.random(1_200) < np.where(codes == "ab".index(favours), 0.9, 0.1)
        examples = fit.Examples(
            number_names=("weight", "depth"),
            category_names=("destination",),
            numbers=random.normal(size=(1_200, 2)),
            categories=[CategoryColumn(codes, ("a", "b"))],
            success=success.astype(float),
            latency_ms=np.full(1_200, np.nan),
            cost_usd=np.full(1_200, np.nan),
            propensity=np.full(1_200, 0.5),
        )
        settings = msgspec.structs.replace(of.stream.training, rounds=10, threads=1)
        subject = fit.Subject(
            stream="orders",
            feature_set=of.features.version,
            objective=of.stream.objective,
            destinations=of.stream.destinations,
            settings=settings,
            trained={},
        )
        fit.train(examples, root / favours, subject)
        bundle.seal(root / favours, kind="router")
    return root


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[list[Machine]]:
    """A list whose machines are switched off in the end."""
    made: list[Machine] = []
    yield made
    for machine in made:
        machine.end(signal.SIGKILL)
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o700)


@pytest.fixture
def upstream(machines: list[Machine], tmp_path: Path) -> Machine:
    """Return a shim whose pipeline has a ledger of one generation."""
    machines.append(Machine(tmp_path / "upstream"))
    machines[-1].append(lambda _: transitions.genesis(streams={"orders": "off"}, by=BY))
    machines[-1].start()
    return machines[-1]


@pytest.fixture
def far(machines: list[Machine], upstream: Machine, tmp_path: Path) -> Machine:
    """Return a shim on another machine, not started yet."""
    machines.append(Machine(tmp_path / "far", TURNOUT_UPSTREAM=upstream.url))
    return machines[-1]


def test_a_far_shim_serves_what_the_near_one_does_and_goes_on_alone(
    upstream: Machine, far: Machine, trained: Path
) -> None:
    first = upstream.promote(upstream.store.put(trained / "a"))
    far.start()
    far.wait_until(lambda: far.served() == first)
    assert far.decide("e1")["digest"] == first[1]
    assert far.problems() == ""
    assert far.ledger.verify().hash == upstream.ledger.history().hash

    second = upstream.promote(upstream.store.put(trained / "b"))
    far.wait_until(lambda: far.served() == second)
    assert far.decide("e2")["digest"] == second[1]

    upstream.end()
    far.wait_until(lambda: f"mirror: {upstream.url}: " in far.problems())
    assert far.decide("e3")["digest"] == second[1]
    far.end(signal.SIGKILL)
    far.start()
    assert (far.served(), far.decide("e4")["digest"]) == (second, second[1])
    assert far.decide("e3")["repeated"]

    upstream.append(lambda history: transitions.rollback(history, stream="orders", by=BY))
    upstream.start()
    far.wait_until(lambda: far.served() == (upstream.ledger.history().generation, first[1]))
    far.wait_until(lambda: far.problems() == "")


def test_a_forked_upstream_is_refused_aloud_and_the_last_good_release_stays(
    upstream: Machine, far: Machine, trained: Path
) -> None:
    first = upstream.promote(upstream.store.put(trained / "a"))
    far.start()
    far.wait_until(lambda: far.served() == first)
    files = {path.name: path.read_bytes() for path in (far.home / "ledger").glob("*.json")}
    upstream.end()
    shutil.rmtree(upstream.home / "ledger")
    shutil.rmtree(upstream.home / "shim")
    other = Attribution(actor="eve", reason="drill", at=BY.at)
    upstream.append(lambda _: transitions.genesis(streams={"orders": "off"}, by=other))
    upstream.start()
    far.wait_until(lambda: "its ledger was cut short: it ends at generation 1, the copy at 3" in far.problems())
    for digest in (upstream.store.put(trained / "b"), first[1]):
        upstream.promote(digest)
    far.wait_until(lambda: "its ledger is another one, or forked: at generation 3" in far.problems())
    assert (far.served(), far.decide("e1")["digest"]) == (first, first[1])
    assert {path.name: path.read_bytes() for path in (far.home / "ledger").glob("*.json")} == files
    assert "nothing is copied" in far.log.read_text()


def test_tokens_are_asked_for_and_never_written_down(
    machines: list[Machine], upstream: Machine, far: Machine, trained: Path
) -> None:
    upstream.end()
    upstream.environment["TURNOUT_TOKEN_READ"] = TOKEN
    upstream.start()
    first = upstream.promote(upstream.store.put(trained / "a"))
    assert upstream.ask(f"/v1/bundles/{first[1]}")[0] == 401
    assert upstream.ask("/v1/ledger")[0] == 401
    far.start()
    far.wait_until(lambda: "status 401" in far.problems())
    far.end()
    far.environment["TURNOUT_UPSTREAM_TOKEN"] = TOKEN
    far.start()
    far.wait_until(lambda: far.served() == first)
    upstream.end()
    far.wait_until(lambda: "mirror: " in far.problems())
    assert TOKEN not in far.problems() + far.log.read_text() + upstream.log.read_text()
    assert len(machines) == 2


def test_a_pipelines_own_home_is_no_target(upstream: Machine, far: Machine, trained: Path) -> None:
    upstream.promote(upstream.store.put(trained / "a"))
    far.append(lambda _: transitions.genesis(streams={"orders": "off"}, by=BY))
    far.start()
    far.wait_until(lambda: "mirror: here: the ledger, at generation 1, was written here" in far.problems())
    assert far.decide("e1")["reason"] == "static: mode off"
    assert far.ledger.generations() == (1,)


def test_of_several_workers_one_copies_and_all_serve(upstream: Machine, far: Machine, trained: Path) -> None:
    first = upstream.promote(upstream.store.put(trained / "a"))
    far.arguments = ("--workers", "2")
    far.start()
    states = (far.home / "shim" / "served.json", far.home / "shim" / "worker-1" / "served.json")
    far.wait_until(lambda: all(path.exists() and first[1] in path.read_text() for path in states))
    assert far.ledger.verify().generation == first[0]
    assert far.process is not None
    children = Path(f"/proc/{far.process.pid}/task/{far.process.pid}/children").read_text().split()
    lock = (far.home / "shim" / "mirror" / "lock").stat().st_ino
    holders = [line for line in Path("/proc/locks").read_text().splitlines() if f":{lock} " in line]
    (holder,) = {line.split()[4] for line in holders}
    assert holder in children
    os.kill(int(holder), signal.SIGKILL)
    second = upstream.promote(upstream.store.put(trained / "b"))
    far.wait_until(lambda: all(second[1] in path.read_text() for path in states))
