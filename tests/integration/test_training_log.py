"""The log read window by window is the log read at once."""

import mmap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features import history, ingestion, log_table, training_log
from features.config import Configuration
from features.decision_log import DecisionLog
from features.records import Decision, Outcome
from features.training_log import TrainingLog
from features.warehouse import Warehouse
from models import fit
from models.fit import Subject

Play = Callable[..., list[tuple[Decision, Outcome]]]
N_DECISIONS = 700
PLAIN = ("decided_at", "cluster", "offsets", "chosen", "propensity", "reward", "success", "latency_ms", "cost_usd")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tiny: Configuration, play: Play) -> tuple[Warehouse, Outcome]:
    """Orders with outcomes, every third with a probe of the other destination, the latest first: as logs may come."""
    home = tmp_path_factory.mktemp("stored")
    told = play(tiny, N_DECISIONS)
    records: list[Decision | Outcome] = [record for pair in told for record in pair]
    for decision, outcome in told[::3]:
        other = "bank" if decision.assigned == "card" else "card"
        records.append(msgspec.structs.replace(outcome, served=other, probe=True, success=True))
    (home / "records.jsonl").write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records[::-1]))
    warehouse = Warehouse(home / "warehouse.duckdb")
    ingestion.ingest(warehouse, [home], tiny, now=told[-1][1].observed_at)
    return warehouse, told[-1][1]


def read(stored: tuple[Warehouse, Outcome], tiny: Configuration) -> TrainingLog:
    warehouse, last = stored
    orders, at = tiny.streams["orders"], last.observed_at
    rows = training_log.read_plain(warehouse, "orders", orders, as_of=at)
    assert not {"numbers", "categories", "policies"} & set(rows.table.column_names)
    return training_log.read(warehouse, orders, rows)


def whole(stored: tuple[Warehouse, Outcome], tiny: Configuration) -> DecisionLog:
    warehouse, last = stored
    orders = tiny.streams["orders"]
    table = history.training_rows(
        warehouse,
        "orders",
        objective=orders.objective,
        feature_set=orders.features.version,
        as_of=last.observed_at,
    ).table
    return log_table.from_table(table, orders.features, cluster_by=orders.cluster)


def same(found: DecisionLog, expected: DecisionLog) -> None:
    for name in ("decision_id", "decided_at", "cluster", "offsets", "chosen", "propensity", "reward", "timed_out"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.numbers, expected.numbers)
    for mine, other in zip([*found.categories, found.destination], [*expected.categories, expected.destination]):  # noqa: B905 - one length
        assert [mine.values[c] for c in mine.codes] == [other.values[c] for c in other.codes]
    np.testing.assert_array_equal(found.policies["static"], expected.policies["static"])
    np.testing.assert_array_equal(found.revealed().row, expected.revealed().row)
    np.testing.assert_array_equal(found.revealed().success, expected.revealed().success)


@pytest.mark.parametrize("window", [37, 1_000_000])
def test_windows_change_nothing(
    stored: tuple[Warehouse, Outcome], tiny: Configuration, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(training_log, "WHOLE_AT_ONCE", window)
    monkeypatch.setattr(training_log, "REVEALED_AT_ONCE", window)
    found = read(stored, tiny)
    early, late = whole(stored, tiny).split(tiny.streams["orders"].training.holdout_share)
    same(found.holdout, late)
    assert found.sample is not None
    assert not found.sample.policies
    same(replace(found.sample, policies=early.policies), early)
    known = early.revealed_alone()
    assert not found.training.policies
    same(replace(found.training, policies=known.policies), known)


def test_what_is_read_without_vectors_is_what_is_read_with_them(
    stored: tuple[Warehouse, Outcome], tiny: Configuration
) -> None:
    warehouse, last = stored
    orders = tiny.streams["orders"]
    read = partial(history.rewards, warehouse, "orders", objective=orders.objective, as_of=last.observed_at)
    plain, everything = read(names=history.PLAIN), read()
    assert plain.column_names == [*history.PLAIN, "reward"]
    assert plain.equals(everything.select(plain.column_names))


def test_decisions_of_one_unit_share_fate_in_a_log_read_in_windows(
    stored: tuple[Warehouse, Outcome], tiny: Configuration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_log, "REVEALED_AT_ONCE", 37)
    warehouse, last = stored
    orders = msgspec.structs.replace(tiny.streams["orders"], cluster="key")
    rows = training_log.read_plain(warehouse, "orders", orders, as_of=last.observed_at)
    log = training_log.read(warehouse, orders, rows)
    unit_of = dict(zip(rows.table["decision_id"].to_pylist(), rows.table["arm_unit"].to_pylist(), strict=True))
    parts = [log.training, log.holdout]
    clusters = np.concatenate([part.cluster for part in parts]).tolist()
    units = [unit_of[name] for part in parts for name in part.decision_id]
    assert len(set(zip(clusters, units, strict=True))) == len(set(clusters)) == len(set(units))


def test_a_fit_is_given_the_rows_whose_outcome_is_known(stored: tuple[Warehouse, Outcome], tiny: Configuration) -> None:
    log = read(stored, tiny).training
    n_probed = len(log.revealed().row) - log.n_decisions
    assert n_probed
    assert len(log.numbers) == log.n_decisions + n_probed
    np.testing.assert_array_equal(np.sort(log.revealed().row), np.arange(len(log.numbers)))
    np.testing.assert_array_equal(log.decision_of(log.chosen), np.arange(log.n_decisions))


def test_a_long_log_gives_a_sample_of_whole_clusters(stored: tuple[Warehouse, Outcome], tiny: Configuration) -> None:
    warehouse, last = stored
    orders = tiny.streams["orders"]
    short = msgspec.structs.replace(orders, training=msgspec.structs.replace(orders.training, contest_decisions=50))
    rows = training_log.read_plain(warehouse, "orders", short, as_of=last.observed_at)
    log = training_log.read(warehouse, short, rows)
    assert log.sample is not None
    assert log.sample.n_decisions == 50
    assert set(log.sample.decision_id) < set(log.training.decision_id)
    assert not set(log.sample.decision_id) & set(log.holdout.decision_id)
    assert (np.diff(log.sample.offsets) == 2).all()


def test_vectors_and_names_lie_on_the_disk_and_little_else_is_kept(
    stored: tuple[Warehouse, Outcome], tiny: Configuration
) -> None:
    log = read(stored, tiny)
    for part in (log.training, log.sample, log.holdout):
        assert part is not None
        assert isinstance(part.numbers.base, mmap.mmap)
        assert isinstance(part.decision_id.base, mmap.mmap)
        told = [getattr(part, name) for name in PLAIN]
        told += [column.codes for column in (*part.categories, part.destination)]
        n_cells = part.n_decisions * len(PLAIN) + len(part.numbers) * (1 + len(part.categories))
        assert all(array.base is None or array.base.nbytes == array.nbytes for array in told)  # no window is held
        assert sum(array.nbytes for array in told) <= 8 * (n_cells + 1)


def test_a_router_learns_the_same_bytes_from_the_disk_as_from_memory(
    stored: tuple[Warehouse, Outcome], tiny: Configuration, tmp_path: Path
) -> None:
    orders = tiny.streams["orders"]
    subject = Subject(
        stream="orders",
        feature_set=orders.features.version,
        objective=orders.objective,
        destinations=orders.destinations,
        settings=msgspec.structs.replace(orders.training, contest_decisions=300, min_decisions=50, rounds=10),
        trained={},
    )
    training = read(stored, tiny).training
    for name, log in (("disk", training), ("memory", replace(training, numbers=np.array(training.numbers)))):
        fit.learn(log, orders.features, tmp_path / name, subject)
    files = sorted(path.name for path in (tmp_path / "disk").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "memory").iterdir())
    for name in files:
        assert (tmp_path / "disk" / name).read_bytes() == (tmp_path / "memory" / name).read_bytes()


def test_an_empty_log_is_refused(tmp_path: Path, tiny: Configuration, stored: tuple[Warehouse, Outcome]) -> None:
    empty, orders, at = Warehouse(tmp_path / "empty.duckdb"), tiny.streams["orders"], stored[1].observed_at
    rows = training_log.read_plain(empty, "orders", orders, as_of=at)
    with pytest.raises(ValueError, match="no closed decisions"):
        training_log.read(empty, orders, rows)
