"""One file, one process at a time, whole or refused; and what it says of the past agrees with the objective."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import history, log_table, merging, snapshot, warehouse
from features.config import Configuration
from features.definitions import FeatureDefinitions
from features.objective import Objective
from features.readers import RawRow
from features.records import Decision, Outcome, Record
from features.snapshot import Snapshot
from features.warehouse import (
    DamagedWarehouseError,
    LockedWarehouseError,
    SchemaVersionError,
    Warehouse,
    WarehouseError,
)

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN + timedelta(days=30)
ROOT = Path(__file__).parents[2]
Play = Callable[..., list[tuple[Decision, Outcome]]]


@pytest.fixture
def store(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb", lock_seconds=0.2)


def _merge(store: Warehouse, configuration: Configuration, records: Sequence[Record], *, now: datetime = NOW) -> None:
    rows = [
        RawRow(source="memory", position=place, raw=b"raw", n_bytes=3, record=record)
        for place, record in enumerate(records)
    ]
    progress = merging.Progress("", len(rows), len(rows))
    merged = merging.merge(store, rows, configuration, source="memory", progress=progress, now=now)
    assert not merged.quarantined


@contextmanager
def _holding(code: str, *arguments: str) -> Iterator[int]:
    """Run ``code`` in a process of its own until it says that it holds, and give its PID."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process.pid
        process.communicate("\n")


IN_TRANSACTION = """
import sys
from pathlib import Path
from features.warehouse import Warehouse
with Warehouse(Path(sys.argv[1])).transaction():
    print("held", flush=True)
    sys.stdin.readline()
"""
BY_DUCKDB_ALONE = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("code", [IN_TRANSACTION, BY_DUCKDB_ALONE], ids=["ours", "foreign"])
def test_a_second_process_is_told_who_holds_the_file(store: Warehouse, code: str) -> None:
    with store.transaction():
        pass
    with _holding(code, str(store.path)) as pid, pytest.raises(LockedWarehouseError, match=f"held by process {pid}"):
        history.counts(store)
    assert history.counts(store).n_decisions == 0


def test_transactions_of_one_process_take_turns_too(store: Warehouse) -> None:
    """DuckDB itself would let them share the file."""
    with store.transaction(), pytest.raises(LockedWarehouseError, match=f"held by process {os.getpid()}"):
        history.counts(Warehouse(store.path, lock_seconds=0.1))


def test_processes_take_turns(store: Warehouse) -> None:
    patient = Warehouse(store.path, lock_seconds=30.0)
    with _holding(IN_TRANSACTION, str(store.path)) as pid:
        os.kill(pid, 9)  # the lock dies with its holder
        assert history.counts(patient).n_decisions == 0


def test_a_transaction_that_raises_leaves_nothing_behind(
    store: Warehouse, tiny: Configuration, play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warehouse.Session, "execute", _failing_at("merge_progress", warehouse.Session.execute))
    rows = [RawRow(source="memory", position=0, raw=b"", n_bytes=0, record=play(tiny, 1)[0][0])]
    with pytest.raises(RuntimeError, match="lights out"):
        merging.merge(store, rows, tiny, source="memory", progress=merging.Progress("", 1, 1), now=NOW)
    monkeypatch.undo()
    assert history.counts(store) == (0, 0, 0, 0, 0)
    assert merging.read_progress(store, "memory") is None


def _failing_at(statement: str, execute: Callable[..., int]) -> Callable[..., int]:
    def failing(session: warehouse.Session, name: str, **parameters: Any) -> int:
        if name == statement:
            raise RuntimeError("lights out")
        return execute(session, name, **parameters)

    return failing


def test_what_duckdb_refuses_comes_as_our_own_error(store: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="no_such_table"), store.transaction() as session:
        session._connection.execute("SELECT * FROM no_such_table")


@pytest.mark.parametrize("damage", [b"this is a diary, not a database" * 1_000, b"\x00" * 50_000, b"DUCK", b""])
def test_a_file_that_is_no_warehouse_is_refused(store: Warehouse, damage: bytes) -> None:
    store.path.write_bytes(damage)
    with pytest.raises(DamagedWarehouseError, match="restore the latest snapshot"):
        history.counts(store)
    assert store.path.read_bytes() == damage


@pytest.mark.parametrize("keep_share", [0.3, 0.5])
def test_a_cut_file_is_refused(store: Warehouse, tiny: Configuration, play: Play, keep_share: float) -> None:
    _merge(store, tiny, [decision for decision, _ in play(tiny, 500)])
    content = store.path.read_bytes()
    store.path.write_bytes(content[: int(len(content) * keep_share)])
    with pytest.raises(DamagedWarehouseError):
        history.rewards(store, "orders", objective=tiny.streams["orders"].objective, as_of=NOW)


def test_overwritten_blocks_are_refused(store: Warehouse, tiny: Configuration, play: Play) -> None:
    _merge(store, tiny, [decision for decision, _ in play(tiny, 500)])
    content = bytearray(store.path.read_bytes())
    for place in range(20_000, len(content), 5_000):
        content[place : place + 50] = b"\xa5" * 50
    store.path.write_bytes(content)
    with pytest.raises(DamagedWarehouseError):
        history.rewards(store, "orders", objective=tiny.streams["orders"].objective, as_of=NOW)


def test_tables_of_another_release_are_refused(store: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    history.counts(store)
    made = warehouse.SCHEMA_VERSION
    monkeypatch.setattr(warehouse, "SCHEMA_VERSION", 99)
    with pytest.raises(SchemaVersionError, match=f"schema version must be 99, found {made}"):
        history.counts(store)


def test_a_database_of_something_else_is_refused(store: Warehouse) -> None:
    with store.transaction() as session:
        session._connection.execute("DROP TABLE schema_version")
    with pytest.raises(SchemaVersionError, match="found none"):
        history.counts(store)


def _decision(number: int, *, at: datetime, **changed: Any) -> Decision:
    fields: dict[str, Any] = {
        "decision_id": f"d-{number:04}",
        "event_id": f"e-{number}",
        "event_source": "shop",
        "event_type": "shop.order",
        "stream": "orders",
        "decided_at": at,
        "mode": "on",
        "reason": "champion",
        "assigned": "bank",
        "propensity": 0.25,
        "destinations": ("card", "bank"),
        "mixture": (0.75, 0.25),
        "policies": {"static": (1.0, 0.0)},
        "feature_set": "f1",
    }
    return Decision(**fields | changed)


ONE_NUMBER = FeatureDefinitions(numbers={"x": "event.x"})
VECTORS: dict[str, Any] = {"numbers": ((1.0,), (2.0,)), "categories": (("card",), ("bank",))}


def _outcome(decision: Decision, minutes: float, **changed: Any) -> Outcome:
    fields: dict[str, Any] = {
        "decision_id": decision.decision_id,
        "served": decision.assigned,
        "observed_at": decision.decided_at + timedelta(minutes=minutes),
        "success": True,
        "latency_ms": 100.0,
    }
    return Outcome(**fields | changed)


def _status_at(store: Warehouse, minutes: float, objective: Objective) -> list[tuple[str, float | None]]:
    table = history.rewards(store, "orders", objective=objective, as_of=BEGIN + timedelta(minutes=minutes))
    return list(zip(table["status"].to_pylist(), table["reward"].to_pylist(), strict=True))


def test_a_decision_is_open_until_its_outcome_is_there_or_its_window_is_over(
    store: Warehouse, tiny: Configuration
) -> None:
    told, silent, late = (_decision(number, at=BEGIN) for number in range(3))
    _merge(store, tiny, [told, silent, late, _outcome(told, 10), _outcome(late, 61)])
    objective = Objective(default=0.5, window_minutes=60.0)
    assert history.rewards(store, "orders", objective=objective, as_of=BEGIN - timedelta(minutes=1)).num_rows == 0
    assert _status_at(store, 9, objective) == [("open", None)] * 3
    assert _status_at(store, 10, objective) == [("observed", 1.0), ("open", None), ("open", None)]
    assert _status_at(store, 60, objective) == [("observed", 1.0), ("open", None), ("open", None)]
    assert _status_at(store, 61, objective) == [("observed", 1.0), ("lost", 0.5), ("lost", 0.5)]


def test_the_outcome_of_the_highest_attempt_counts_then_that_of_the_assigned_destination(
    store: Warehouse, tiny: Configuration
) -> None:
    retried, probed, cut = (_decision(number, at=BEGIN) for number in range(3))
    outcomes = [
        _outcome(retried, 1, success=False),
        _outcome(retried, 2, attempt=2, served="card"),
        _outcome(retried, 61, attempt=3, success=False),
        _outcome(probed, 1, served="card", success=False),
        _outcome(probed, 2, latency_ms=7.0),
        _outcome(cut, 1, status="censored", success=None),
    ]
    _merge(store, tiny, [retried, probed, cut, *outcomes])
    objective = Objective(window_minutes=60.0)
    table = history.rewards(store, "orders", objective=objective, as_of=BEGIN + timedelta(minutes=30))
    assert table["status"].to_pylist() == ["observed", "observed", "open"]
    assert table["served"].to_pylist() == ["card", "bank", "bank"]
    assert table["attempt"].to_pylist() == [2, 1, 1]
    assert table["latency_ms"].to_pylist()[1] == 7.0
    assert _status_at(store, 90, objective)[2] == ("censored", 0.0)


def test_a_probe_is_listed_beside_the_decision_and_never_its_outcome(store: Warehouse, tiny: Configuration) -> None:
    probed, unanswered = (_decision(number, at=BEGIN, **VECTORS) for number in range(2))
    outcomes = [
        _outcome(probed, 2, success=False),
        _outcome(probed, 1, served="card", probe=True, latency_ms=7.0),
        _outcome(probed, 3, served="card", probe=True, attempt=2, success=False, latency_ms=8.0),
        _outcome(probed, 1, served="bank", probe=True, attempt=3),  # of the assigned: its own outcome is what counts
        _outcome(unanswered, 1, served="card", probe=True),
    ]
    _merge(store, tiny, [probed, unanswered, *outcomes])
    objective = Objective(window_minutes=60.0)
    assert _status_at(store, 30, objective) == [("observed", 0.0), ("open", None)]
    rows = history.training_rows(store, "orders", objective=objective, feature_set="f1", as_of=NOW).table
    (row,) = rows.to_pylist()
    told = {"served": "card", "status": "observed", "success": False, "latency_ms": 8.0, "cost_usd": None}
    assert row["probes"] == [told]
    log = log_table.from_table(rows, ONE_NUMBER, cluster_by="decision")
    revealed = log.revealed()
    assert [log.destination.values[log.destination.codes[at]] for at in revealed.row] == ["bank", "card"]
    assert revealed.success.tolist() == [0.0, 0.0]
    assert revealed.latency_ms.tolist() == [100.0, 8.0]
    assert np.isnan(revealed.probability).tolist() == [False, True]


def test_probes_of_candidates_that_were_not_eligible_are_not_learned_from(
    store: Warehouse, tiny: Configuration
) -> None:
    masked = {"excluded": {"card": "residency"}, "mixture": (0.0, 1.0), "propensity": 1.0}
    decision = _decision(1, at=BEGIN, **VECTORS, **masked)
    _merge(store, tiny, [decision, _outcome(decision, 1), _outcome(decision, 1, served="card", probe=True)])
    rows = history.training_rows(store, "orders", objective=Objective(), feature_set="f1", as_of=NOW).table
    log = log_table.from_table(rows, ONE_NUMBER, cluster_by="decision")
    assert len(log.revealed().row) == 1


def test_training_leaves_out_what_may_not_be_learned_from_and_counts_it(store: Warehouse, tiny: Configuration) -> None:
    decisions = [_decision(number, at=BEGIN + timedelta(minutes=number)) for number in range(6)]
    decisions[3] = msgspec.structs.replace(decisions[3], explored=False)
    decisions[4] = msgspec.structs.replace(decisions[4], feature_set="f0")
    statuses = {0: "observed", 1: "timeout", 2: "lost", 3: "observed", 4: "observed"}
    outcomes = [_outcome(decisions[number], 1, status=status) for number, status in statuses.items()]
    _merge(store, tiny, [*decisions, *outcomes])
    rows = history.training_rows(
        store, "orders", objective=Objective(), feature_set="f1", as_of=BEGIN + timedelta(minutes=10)
    )
    assert rows.table["decision_id"].to_pylist() == ["d-0000", "d-0001"]
    assert rows.left_out == {"lost": 1, "not_explored": 1, "other_feature_set": 1, "open": 1}
    part = history.training_rows(
        store,
        "orders",
        objective=Objective(),
        feature_set="f1",
        as_of=NOW,
        since=BEGIN + timedelta(minutes=1),
        until=BEGIN + timedelta(minutes=2),
    )
    assert part.table["decision_id"].to_pylist() == ["d-0001"]
    assert part.left_out == {}


def test_rows_are_laid_out_as_training_reads_them(store: Warehouse, tiny: Configuration) -> None:
    decision = _decision(
        1,
        at=BEGIN,
        destinations=("card", "bank"),
        excluded={"card": "residency"},
        mixture=(0.0, 1.0),
        propensity=1.0,
        policies={"static": (0.0, 1.0), "champion": (0.0, 1.0)},
        numbers=((1.5, None), (2.5, 3.0)),
        categories=(("card", None), ("bank", "NO")),
        predictions={"champion": {"value": (0.5, 0.25)}},
    )
    _merge(store, tiny, [decision, _outcome(decision, 1, cost_usd=0.5)])
    table = history.training_rows(store, "orders", objective=Objective(), feature_set="f1", as_of=NOW).table
    (row,) = table.to_pylist()
    assert row["eligible"] == [False, True]
    assert (row["assigned"], row["assigned_index"], row["propensity"]) == ("bank", 1, 1.0)
    assert dict(row["policies"]) == {"static": [0.0, 1.0], "champion": [0.0, 1.0]}
    assert row["numbers"] == [[1.5, None], [2.5, 3.0]]
    assert row["categories"] == [["card", None], ["bank", "NO"]]
    assert json.loads(row["predictions"]) == {"champion": {"value": [0.5, 0.25]}}
    assert row["decided_at"] == BEGIN
    assert (row["success"], row["latency_ms"], row["cost_usd"], row["reward"]) == (True, 100.0, 0.5, 1.0)


def test_rows_come_in_order_of_time_however_they_were_ingested(store: Warehouse, tiny: Configuration) -> None:
    decisions = [_decision(number, at=BEGIN + timedelta(minutes=number // 2)) for number in range(10)]
    shuffled = [decisions[place] for place in np.random.default_rng(0).permutation(10)]
    _merge(store, tiny, shuffled)
    table = history.rewards(store, "orders", objective=Objective(), as_of=NOW)
    assert table["decision_id"].to_pylist() == [decision.decision_id for decision in decisions]


OBJECTIVES = st.builds(
    Objective,
    success=st.floats(0.1, 2),
    latency_minute=st.sampled_from([0.0, 0.5]),
    cost_usd=st.sampled_from([0.0, 2.0]),
    sla=st.sampled_from([0.0, 0.3]),
    sla_latency_ms=st.just(500.0),
    low=st.just(-1.0),
    high=st.just(1.5),
    default=st.none() | st.floats(-1, 1),
)
REPORTED: st.SearchStrategy[dict[str, Any]] = st.builds(
    dict,
    status=st.sampled_from(["observed", "timeout", "lost", "censored"]),
    success=st.booleans(),
    latency_ms=st.none() | st.sampled_from([0.0, 500.0, 500.5, 90_000.0]),
    cost_usd=st.none() | st.sampled_from([0.0, 0.25, 3.0]),
)


@settings(max_examples=20, deadline=None)
@given(objective=OBJECTIVES, reported=st.lists(REPORTED, min_size=1, max_size=8))
def test_rewards_agree_with_the_objective_outcome_by_outcome(
    tmp_path_factory: pytest.TempPathFactory, tiny: Configuration, objective: Objective, reported: list[dict[str, Any]]
) -> None:
    store = Warehouse(tmp_path_factory.mktemp("rewards") / "warehouse.duckdb")
    decisions = [_decision(number, at=BEGIN) for number in range(len(reported))]
    outcomes = [_outcome(made, 1, **fields) for made, fields in zip(decisions, reported, strict=True)]
    _merge(store, tiny, [*decisions, *outcomes])
    table = history.rewards(store, "orders", objective=objective, as_of=NOW)
    expected = [
        objective.reward(outcome) if outcome.status in history.TRAINABLE else objective.lost_reward
        for outcome in outcomes
    ]
    assert table["reward"].to_pylist() == pytest.approx(expected)


def test_a_snapshot_answers_as_the_warehouse_does_while_that_is_being_written(
    store: Warehouse, tiny: Configuration, play: Play, tmp_path: Path
) -> None:
    played = play(tiny, 20)
    _merge(store, tiny, [record for pair in played for record in pair])
    asked: dict[str, Any] = {"objective": tiny.streams["orders"].objective, "as_of": NOW}
    expected = history.rewards(store, "orders", **asked)
    taken = snapshot.write(store, tmp_path / "snapshots", now=NOW)
    with store.transaction():
        assert history.rewards(taken, "orders", **asked).equals(expected)
        assert history.counts(taken) == (20, 20, 0, 0, 0)
        assert history.decision(taken, played[3][0].decision_id) == played[3][0]


def test_what_memory_was_spared_too_much_for_is_read_all_the_same(
    store: Warehouse, tiny: Configuration, play: Play, tmp_path: Path
) -> None:
    played = play(tiny, 600)
    _merge(store, tiny, [record for pair in played for record in pair])
    taken = snapshot.write(store, tmp_path / "snapshots", now=NOW)
    asked: dict[str, Any] = {
        "stream": "orders",
        "as_of": NOW,
        "since": None,
        "until": None,
        "one_in": 1,
        "window_us": 1,
    }
    expected = history.rewards(taken, "orders", objective=tiny.streams["orders"].objective, as_of=NOW)
    for source in (taken, store):
        with source.transaction() as session:
            session.spare_memory("1MB")
            found = session.query("rewards", columns=("decision_id", "numbers"), **asked)
        assert found.equals(expected.select(found.column_names))


def test_only_the_newest_snapshots_stay_and_half_written_ones_are_never_seen(store: Warehouse, tmp_path: Path) -> None:
    folder = tmp_path / "snapshots"
    assert snapshot.latest(folder) is None
    taken = [snapshot.write(store, folder, now=NOW + timedelta(seconds=n), keep=2).folder for n in range(3)]
    (folder / ".20990101T000000.000000Z.1").mkdir()
    (folder / "20990101T000000.000000Z").mkdir()
    latest = snapshot.latest(folder)
    assert latest is not None
    assert latest.folder == taken[-1]
    assert [path.exists() for path in taken] == [False, True, True]


def test_a_snapshot_that_is_not_what_was_written_is_refused(store: Warehouse, tmp_path: Path) -> None:
    taken = snapshot.write(store, tmp_path / "snapshots", now=NOW)
    taken.verify()
    with (taken.folder / "decisions.parquet").open("r+b") as file:
        file.seek(8)
        file.write(b"\x00\x01\x02")
    with pytest.raises(DamagedWarehouseError, match=r"decisions\.parquet is not the file that the manifest names"):
        taken.verify()
    with pytest.raises(DamagedWarehouseError, match="decisions"):
        snapshot.restore(taken, Warehouse(tmp_path / "restored.duckdb"))
    (taken.folder / snapshot.MANIFEST).write_text("{}")
    with pytest.raises(DamagedWarehouseError, match="is no snapshot"):
        Snapshot(taken.folder)


def test_a_lost_warehouse_is_rebuilt_from_a_snapshot_with_its_offsets(
    store: Warehouse, tiny: Configuration, play: Play, tmp_path: Path
) -> None:
    played = play(tiny, 20)
    _merge(store, tiny, [record for pair in played for record in pair])
    taken = snapshot.write(store, tmp_path / "snapshots", now=NOW)
    expected = history.rewards(store, "orders", objective=Objective(), as_of=NOW)
    with pytest.raises(FileExistsError):
        snapshot.restore(taken, store)
    shutil.move(store.path, tmp_path / "damaged.duckdb")
    snapshot.restore(taken, store)
    assert history.rewards(store, "orders", objective=Objective(), as_of=NOW).equals(expected)
    assert merging.read_progress(store, "memory") == merging.Progress("", 40, 40)
    _merge(store, tiny, [record for pair in played for record in pair])
    assert history.counts(store) == (20, 20, 0, 0, 0)


def test_what_is_not_stored_is_none(store: Warehouse) -> None:
    assert history.decision(store, "never") is None
    assert history.outcomes(store, "never") == []
