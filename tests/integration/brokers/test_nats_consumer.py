"""A canary for queue consumers: two of them, redelivery, a crash before the acknowledgement; the shares stay, and so does every decision."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features import config, ingestion, jetstream
from features.message_queue import Queue
from features.randomness import uniform
from features.records import Decision
from features.vector import CategoryColumn
from features.warehouse import Warehouse
from models import fit
from models.releases import bundle, transitions
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving.plan import Plan

REPOSITORY = Path(__file__).resolve().parents[3]
BY = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
SHARE = 0.3
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { epsilon = 0.1 }
features = { numbers = { weight = "event.weight" } }

[destinations]
a = {}
b = {}
"""
PLAN = Plan.of(config.parse(CONFIGURATION))
CONSUMER = """
import asyncio, os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from features import config
from features.jetstream import Message
from features.records import Outcome
from serving.asking import Asker
from serving.consumer import Consumer
from serving.plan import Plan

url, toml, log, dies_at = sys.argv[1:]
n_acknowledged = 0
acknowledge = Message.ack

async def ack(message):
    global n_acknowledged
    n_acknowledged += 1
    if n_acknowledged == int(dies_at):
        os.kill(os.getpid(), signal.SIGKILL)
    await acknowledge(message)

Message.ack = ack

async def dispatch(event, answer):
    line = f"{event.id} {answer.decision_id} {answer.destinations[0]}\\n".encode()
    with open(log, "ab", buffering=0) as file:
        file.write(line)
    await asyncio.sleep(0.002)
    return Outcome(decision_id=answer.decision_id, served=answer.destinations[0], success=True,
                   observed_at=datetime.now(UTC))

async def main():
    asker = Asker(plan=Plan.of(config.load(Path(toml))))
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    consumer = Consumer(url=url, asker=asker, dispatch=dispatch, ack_wait_seconds=2.0, n_at_once=16,
                        deadline_seconds=float(os.environ["DEADLINE_SECONDS"]))
    await consumer.run(stopping)

asyncio.run(main())
"""


def train(folder: Path, *, favours: str) -> str:
    """Train a router that prefers one destination and return its bundle's digest."""
    random = np.random.default_rng(5)
    codes = random.integers(0, 2, 1_200)
    success = random.random(1_200) < np.where(codes == "ab".index(favours), 0.9, 0.1)
    examples = fit.Examples(
        number_names=("weight",),
        category_names=("destination",),
        numbers=random.normal(size=(1_200, 1)),
        categories=[CategoryColumn(codes, ("a", "b"))],
        success=success.astype(float),
        latency_ms=np.full(1_200, np.nan),
        cost_usd=np.full(1_200, np.nan),
        propensity=np.full(1_200, 0.5),
    )
    of = PLAN.streams["orders"]
    subject = fit.Subject(
        stream="orders",
        feature_set=of.features.version,
        objective=of.stream.objective,
        destinations=of.stream.destinations,
        settings=msgspec.structs.replace(of.stream.training, rounds=10, threads=1),
        trained={},
    )
    fit.train(examples, folder, subject)
    return bundle.seal(folder, kind="router")


def release_canary(home: Path, work: Path) -> str:
    """Give ``home`` a champion that prefers a, and a canary that prefers b; return the canary's digest."""
    store, ledger = Store(home / "store"), Ledger(home / "ledger")
    digests = {}
    for favours in "ab":
        digests[favours] = train(work / favours, favours=favours)
        store.put(work / favours)

    def append(make: Callable[[Any], Any]) -> None:
        history = ledger.history()
        ledger.append(make(history), expected_head=history.hash)

    append(lambda _: transitions.genesis(streams={"orders": "off"}, by=BY))
    append(lambda past: transitions.start_canary(past, stream="orders", digest=digests["a"], share=0.5, by=BY))
    append(lambda past: transitions.promote(past, stream="orders", by=BY))
    append(lambda past: transitions.start_canary(past, stream="orders", digest=digests["b"], share=SHARE, by=BY))
    return digests["b"]


@pytest.fixture
def toml(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "turnout.toml"
    path.write_text(CONFIGURATION)
    yield path
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o700)  # releases are read-only, and pytest tidies up


class Consumers:
    """Consumers in processes of their own, and what they dispatched."""

    def __init__(self, url: str, toml: Path, *, deadline_seconds: float = 10.0) -> None:
        self.log = toml.parent / "dispatched"
        self.log.touch()
        self._arguments = (url, str(toml), str(self.log))
        self._environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "DEADLINE_SECONDS": str(deadline_seconds)}

    def start(self, *, dies_at: int = 0) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", CONSUMER, *self._arguments, str(dies_at)]
        return subprocess.Popen(command, env=self._environment)

    def dispatched(self) -> dict[str, list[tuple[str, str]]]:
        """Return, per event, the decision and destination of each dispatch."""
        found = defaultdict(list)
        for line in self.log.read_text().splitlines():
            event, decision, destination = line.split()
            found[event].append((decision, destination))
        return found


def publish(url: str, payloads: Sequence[bytes]) -> None:
    async def publish_all() -> None:
        connection = await jetstream.connect(url, name="test", patience_seconds=30)
        await jetstream.ensure(connection)
        for payload in payloads:
            await jetstream.publish(connection, "turnout.events.orders", payload)
        await connection.close()

    asyncio.run(publish_all())


def waiting(url: str, stream: str = "TURNOUT_EVENTS", durable: str = "turnout-dispatch") -> int:
    with Queue(url, stream, durable=durable) as queue:
        return queue.n_waiting()


def event(identity: str, kind: str = "shop.order") -> bytes:
    fields = {"specversion": "1.0", "id": identity, "source": "/shop", "type": kind, "data": {"weight": 2}}
    return json.dumps(fields).encode()


def until(holds: Callable[[], bool], *, seconds: float = 90.0) -> None:
    give_up_at = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.1)


def end(*consumers: subprocess.Popen[bytes]) -> None:
    for consumer in consumers:
        consumer.send_signal(signal.SIGTERM)
    assert [consumer.wait(timeout=30) for consumer in consumers] == [0] * len(consumers)


def test_two_consumers_a_crash_before_the_acknowledgement_and_the_canary_keeps_its_share(
    nats_server: Any, start_shim: Callable[..., Any], toml: Path, tmp_path: Path
) -> None:
    challenger = release_canary(tmp_path / "shim" / "home", tmp_path)
    shim = start_shim(configuration=CONFIGURATION)
    n_events = 300
    publish(nats_server.url, [event(f"e{n}") for n in range(n_events)])
    consumers = Consumers(nats_server.url, toml)
    crashing = [consumers.start(dies_at=30), consumers.start(dies_at=25)]
    assert [consumer.wait(timeout=60) for consumer in crashing] == [-signal.SIGKILL] * 2
    steady, third = consumers.start(), consumers.start()
    until(lambda: waiting(nats_server.url) == 0)
    end(steady, third)

    dispatched = consumers.dispatched()
    assert len(dispatched) == n_events
    repeated = [told for told in dispatched.values() if len(told) > 1]
    assert repeated, "some event came again"
    assert all(len(set(told)) == 1 for told in dispatched.values()), "and got the decision it had"
    decisions = [record for record in shim.records() if isinstance(record, Decision)]
    assert len(decisions) == n_events
    arms = {decision.event_id: decision.arm for decision in decisions}
    drawn = {name for name in arms if uniform("arm", challenger, "orders", f"/shop/{name}") < SHARE}
    assert {name for name, arm in arms.items() if arm == "challenger"} == drawn
    assert {decision.decision_id: decision.assigned for decision in decisions} == {
        told[0][0]: told[0][1] for told in dispatched.values()
    }

    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    sources = [shim.home / "spool", f"{nats_server.url}/TURNOUT_OUTCOMES"]
    report = ingestion.ingest(warehouse, sources, config.parse(CONFIGURATION), now=datetime.now(UTC))
    assert (report.n_decisions, report.n_outcomes) == (n_events, n_events)
    assert waiting(nats_server.url, "TURNOUT_OUTCOMES", "turnout-ingest") == 0


def test_without_a_shim_events_go_on_and_their_decisions_reach_the_warehouse(
    nats_server: Any, toml: Path, tmp_path: Path
) -> None:
    publish(nats_server.url, [event(f"e{n}") for n in range(20)])
    consumers = Consumers(nats_server.url, toml, deadline_seconds=0.3)
    consumer = consumers.start()
    until(lambda: waiting(nats_server.url) == 0)
    end(consumer)
    assert {told[0][1] for told in consumers.dispatched().values()} == {"a"}
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    source = f"{nats_server.url}/TURNOUT_OUTCOMES"
    report = ingestion.ingest(warehouse, [source], config.parse(CONFIGURATION), now=datetime.now(UTC))
    assert (report.n_decisions, report.n_outcomes, report.quarantined) == (20, 20, {})


def test_what_cannot_be_asked_about_is_set_aside_and_holds_nobody_up(
    nats_server: Any, start_shim: Callable[..., Any], toml: Path
) -> None:
    start_shim(configuration=CONFIGURATION)
    publish(nats_server.url, [b"\x00", event("e1", "unheard"), event("e2")])
    consumers = Consumers(nats_server.url, toml)
    consumer = consumers.start()
    until(lambda: waiting(nats_server.url) == 0)
    end(consumer)
    assert list(consumers.dispatched()) == ["e2"]
    assert waiting(nats_server.url, "TURNOUT_REFUSED", "test") == 2


def test_i18_the_broker_goes_away_under_load_and_every_event_is_served_all_the_same(
    nats_server: Any, start_shim: Callable[..., Any], toml: Path
) -> None:
    start_shim(configuration=CONFIGURATION)
    publish(nats_server.url, [event(f"e{n}") for n in range(150)])
    consumers = Consumers(nats_server.url, toml)
    consumer = consumers.start()
    for n_served in (20, 60):
        until(lambda n_served=n_served: len(consumers.dispatched()) >= n_served)
        nats_server.kill()
        time.sleep(0.2)
        nats_server.start()
    until(lambda: len(consumers.dispatched()) == 150)
    until(lambda: waiting(nats_server.url) == 0)
    end(consumer)
    assert all(len({destination for _, destination in told}) == 1 for told in consumers.dispatched().values())


def test_s13_the_shim_is_killed_again_and_again_and_every_event_goes_somewhere_and_is_accounted_for(
    nats_server: Any, start_shim: Callable[..., Any], toml: Path, tmp_path: Path
) -> None:
    shim = start_shim(configuration=CONFIGURATION)
    consumers = Consumers(nats_server.url, toml, deadline_seconds=0.5)
    running = [consumers.start(), consumers.start()]
    n_events = 0
    for _ in range(4):
        publish(nats_server.url, [event(f"e{n_events + n}") for n in range(60)])
        n_events += 60
        until(lambda: len(consumers.dispatched()) > n_events - 40)  # noqa: B023 - it is asked within this round
        shim.end(signal.SIGKILL)
        publish(nats_server.url, [event(f"e{n_events + n}") for n in range(20)])
        n_events += 20
        until(lambda: len(consumers.dispatched()) > n_events - 10)  # noqa: B023 - as above
        shim.start()
    until(lambda: waiting(nats_server.url) == 0)
    end(*running)
    dispatched = consumers.dispatched()
    assert len(dispatched) == n_events
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    sources = [shim.home / "spool", f"{nats_server.url}/TURNOUT_OUTCOMES"]
    ingestion.ingest(warehouse, sources, config.parse(CONFIGURATION), now=datetime.now(UTC))
    with warehouse.transaction() as session:
        known = {
            table: set(session._connection.table(table).to_arrow_table()["decision_id"].to_pylist())
            for table in ("decisions", "outcomes")
        }
    carried_out = {decision for told in dispatched.values() for decision, _ in told}
    assert carried_out <= known["decisions"]
    assert carried_out == known["outcomes"]
