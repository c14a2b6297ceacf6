"""Outcomes from JetStream: acknowledged once the warehouse has them, and not before; delivered twice they count once."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features import ingestion, jetstream, merging, message_reader
from features.config import Configuration
from features.jetstream import BrokerError
from features.message_queue import Queue
from features.records import Decision, Outcome
from features.warehouse import Warehouse, WarehouseError

NOW = datetime(2026, 1, 2, tzinfo=UTC)
Play = Callable[..., list[tuple[Decision, Outcome]]]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


def publish(url: str, payloads: Sequence[bytes]) -> None:
    async def publish_all() -> None:
        connection = await jetstream.connect(url, name="test", patience_seconds=30)
        await jetstream.ensure(connection)
        for payload in payloads:
            await jetstream.publish(connection, "turnout.outcomes.orders", payload)
        await connection.close()

    asyncio.run(publish_all())


def waiting(url: str) -> int:
    with Queue(url, "TURNOUT_OUTCOMES", durable=message_reader.DURABLE) as queue:
        return queue.n_waiting()


def counts(warehouse: Warehouse) -> dict[str, int]:
    with warehouse.transaction() as session:
        tables = ("decisions", "outcomes", "quarantine")
        return {table: len(session._connection.table(table)) for table in tables}


def payloads(played: Sequence[tuple[Decision, Outcome]]) -> list[bytes]:
    return [msgspec.json.encode(record) for pair in played for record in pair]


def test_a_stream_is_ingested_like_a_file_and_what_is_stored_is_gone_from_it(
    nats_server: Any, warehouse: Warehouse, tiny: Configuration, play: Play
) -> None:
    sent = payloads(play(tiny, 20))
    publish(nats_server.url, [*sent, b"\x00not json", sent[0]])
    source = f"{nats_server.url}/TURNOUT_OUTCOMES"
    report = ingestion.ingest(warehouse, [source], tiny, now=NOW, batch_rows=7)
    assert (report.n_read, report.n_decisions, report.n_outcomes, report.n_duplicates) == (42, 20, 20, 1)
    assert report.quarantined == {"bad_json": 1}
    assert counts(warehouse) == {"decisions": 20, "outcomes": 20, "quarantine": 1}
    assert merging.read_progress(warehouse, source) == merging.Progress("", 42, 42)
    assert waiting(nats_server.url) == 0
    assert ingestion.ingest(warehouse, [source], tiny, now=NOW).n_read == 0


def test_a_batch_that_was_not_stored_is_delivered_again_at_once(
    nats_server: Any, warehouse: Warehouse, tiny: Configuration, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(nats_server.url, payloads(play(tiny, 10)))
    source = f"{nats_server.url}/TURNOUT_OUTCOMES"
    with monkeypatch.context() as patched:

        def refuse(*_: object, **__: object) -> None:
            raise WarehouseError("full")

        patched.setattr(merging, "merge", refuse)
        with pytest.raises(WarehouseError, match="full"):
            ingestion.ingest(warehouse, [source], tiny, now=NOW)
    assert waiting(nats_server.url) == 20
    assert ingestion.ingest(warehouse, [source], tiny, now=NOW).n_outcomes == 10


KILLED = """
import os, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from features import config, ingestion, jetstream
from features.message_queue import Queue
from features.warehouse import Warehouse

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

Queue.acknowledge = die
source, path, text = sys.argv[1:]
ingestion.ingest(Warehouse(Path(path)), [source], config.parse(text), now=datetime(2026, 1, 2, tzinfo=UTC), batch_rows=8)
"""


def test_i10_killed_between_commit_and_acknowledgement_everything_counts_once(
    nats_server: Any, tmp_path: Path, tiny: Configuration, tiny_text: str, play: Play
) -> None:
    publish(nats_server.url, payloads(play(tiny, 10)))
    first = textwrap.dedent(KILLED).replace(
        "Queue.ack", "jetstream.Pull.open.__kwdefaults__['ack_wait_seconds'] = 1.0\nQueue.ack"
    )
    path = tmp_path / "warehouse.duckdb"
    source = f"{nats_server.url}/TURNOUT_OUTCOMES"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, "-c", first, source, str(path), tiny_text], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    warehouse = Warehouse(path)
    assert counts(warehouse)["decisions"] == 4
    assert waiting(nats_server.url) == 20
    give_up_at = datetime.now(UTC) + timedelta(seconds=60)
    n_duplicates = 0
    while waiting(nats_server.url):
        assert datetime.now(UTC) < give_up_at
        n_duplicates += ingestion.ingest(warehouse, [source], tiny, now=NOW).n_duplicates
    assert n_duplicates == 8
    assert counts(warehouse) == {"decisions": 10, "outcomes": 10, "quarantine": 0}


def test_i18_a_broker_that_goes_away_is_named_and_the_next_ingest_goes_on_where_this_one_was(
    nats_server: Any, warehouse: Warehouse, tiny: Configuration, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = payloads(play(tiny, 50))
    publish(nats_server.url, sent)
    source = f"{nats_server.url}/TURNOUT_OUTCOMES"
    monkeypatch.setattr(jetstream.Pull.open.__func__, "__kwdefaults__", {"ack_wait_seconds": 1.0})
    n_merged = 0
    merge = merging.merge

    def merge_and_break(*arguments: Any, **named: Any) -> Any:
        nonlocal n_merged
        n_merged += 1
        if n_merged == 3:
            nats_server.kill()
        return merge(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(merging, "merge", merge_and_break)
        with pytest.raises(BrokerError, match=f"127.0.0.1:{nats_server.ports.nats}"):
            ingestion.ingest(warehouse, [source], tiny, now=NOW, batch_rows=10)
    assert counts(warehouse)["decisions"] == 15  # what was stored stays, acknowledged or not
    with (
        pytest.raises(BrokerError, match="cannot be reached"),
        Queue(nats_server.url, "TURNOUT_OUTCOMES", durable="x", patience_seconds=0.5),
    ):
        pass
    nats_server.start()
    give_up_at = datetime.now(UTC) + timedelta(seconds=60)
    while waiting(nats_server.url):
        assert datetime.now(UTC) < give_up_at
        ingestion.ingest(warehouse, [source], tiny, now=NOW, batch_rows=10)
    assert counts(warehouse) == {"decisions": 50, "outcomes": 50, "quarantine": 0}


def test_no_password_reaches_the_warehouse_or_an_error() -> None:
    address = message_reader.Address.parse("nats://ann:secret@127.0.0.1:1/S")
    assert (address.url, address.stream, address.source) == (
        "nats://ann:secret@127.0.0.1:1",
        "S",
        "nats://127.0.0.1:1/S",
    )
    with (
        pytest.raises(BrokerError) as refused,
        Queue(address.url, address.stream, durable="x", patience_seconds=0.5),
    ):
        pass
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match=r"nats://HOST:PORT/STREAM, got 'nats://127.0.0.1:1'"):
        message_reader.Address.parse("nats://ann:secret@127.0.0.1:1")
