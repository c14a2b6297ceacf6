"""Rows come in once, in any order, from any format, or land in quarantine by name; a kill loses and doubles nothing."""

import json
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import cloudevents, history, ingestion, merging, spool
from features.config import Configuration
from features.ingestion import IngestProgress, IngestReport
from features.readers import RawRow
from features.records import Decision, Outcome, Record
from features.warehouse import Warehouse

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
NOW = BEGIN + timedelta(days=1)
Play = Callable[..., list[tuple[Decision, Outcome]]]


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(tmp_path / "warehouse.duckdb")


@pytest.fixture
def bring(warehouse: Warehouse, tiny: Configuration, tmp_path: Path) -> Callable[..., IngestReport]:
    """Write records, or raw lines, to JSON Lines and ingest them."""

    def brought(rows: Sequence[Record | bytes], *, name: str = "log.jsonl", now: datetime = NOW) -> IngestReport:
        path = tmp_path / name
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else msgspec.json.encode(row) for row in rows))
        return ingestion.ingest(warehouse, [path], tiny, now=now)

    return brought


def _rows(warehouse: Warehouse, table: str, *columns: str) -> list[tuple[Any, ...]]:
    with warehouse.transaction() as session:
        found = session._connection.table(table).to_arrow_table()
    return sorted(tuple(str(row[column]) for column in columns) for row in found.to_pylist())


def _contents(warehouse: Warehouse) -> tuple[list[tuple[Any, ...]], ...]:
    """What is stored, whenever and from wherever it came."""
    return (
        _rows(warehouse, "decisions", "decision_id", "payload_digest"),
        _rows(warehouse, "outcomes", "outcome_key", "payload_digest", "late", "pending_raw"),
        _rows(warehouse, "quarantine", "rule", "field", "raw"),
    )


def _raw(record: Record, **changed: Any) -> bytes:
    return json.dumps(msgspec.to_builtins(record) | changed, default=str).encode()


def _broken_decisions(decision: Decision) -> dict[tuple[str, str | None], bytes]:
    late = NOW + timedelta(minutes=merging.SKEW_MINUTES, seconds=1)
    return {
        ("missing_field", "propensity"): _raw(decision).replace(b'"propensity"', b'"chance"'),
        ("invalid_value", "propensity"): _raw(decision, propensity=0.0),
        ("propensity_not_mixture", "propensity"): _raw(decision, propensity=decision.propensity - 2e-9),
        ("mixture_sum", "mixture"): _raw(decision, mixture=[0.25, 0.25]),
        ("unequal_lengths", "mixture"): _raw(decision, mixture=[1.0]),
        ("unequal_lengths", "policies"): _raw(decision, policies={"static": [1.0]}),
        ("unequal_lengths", "numbers"): _raw(decision, numbers=[[1.0, 2.0]]),
        ("unequal_lengths", "categories"): _raw(decision, categories=[["a"], ["a", "b"]]),
        ("unknown_assigned", "assigned"): _raw(decision, assigned="cash"),
        ("excluded_assigned", "assigned"): _raw(decision, excluded={decision.assigned: "residency"}),
        ("no_candidates", "destinations"): _raw(decision, destinations=[], mixture=[], policies={}),
        ("repeated_destination", "destinations"): _raw(decision, destinations=["card", "card"]),
        ("unknown_destination", "destinations"): _raw(decision, destinations=["card", "cash"]),
        ("unknown_stream", "stream"): _raw(decision, stream="parcels"),
        ("decided_in_future", "decided_at"): _raw(decision, decided_at=late.isoformat()),
        ("bad_latency", "latency_us"): _raw(decision, latency_us=-1.0),
        ("bad_json", None): b"{",
    }


def _broken_outcomes(decision: Decision, outcome: Outcome) -> dict[tuple[str, str | None], bytes]:
    early = decision.decided_at - timedelta(minutes=merging.SKEW_MINUTES, seconds=1)
    late = NOW + timedelta(minutes=merging.SKEW_MINUTES, seconds=1)
    return {
        ("no_success", "success"): _raw(outcome, success=None),
        ("unknown_destination", "served"): _raw(outcome, served="cash"),
        ("bad_latency", "latency_ms"): _raw(outcome, latency_ms=merging.MAX_LATENCY_MS + 1),
        ("invalid_value", "latency_ms"): _raw(outcome, latency_ms=-1.0),
        ("invalid_value", "cost_usd"): _raw(outcome, cost_usd=-1.0),
        ("observed_in_future", "observed_at"): _raw(outcome, observed_at=late.isoformat()),
        ("observed_before_decided", "observed_at"): _raw(outcome, observed_at=early.isoformat()),
        ("no_zone", "observed_at"): _raw(outcome, observed_at="2026-01-01T00:05:00"),
    }


def test_every_broken_row_lands_in_quarantine_by_name_with_its_bytes(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    broken = _broken_decisions(decision)
    broken_outcomes = _broken_outcomes(decision, outcome)
    report = bring([*broken.values(), decision, outcome, *broken_outcomes.values()])
    assert (report.n_decisions, report.n_outcomes) == (1, 1)
    quarantined = _rows(warehouse, "quarantine", "rule", "field", "raw")
    expected = [*broken.items(), *broken_outcomes.items()]
    assert quarantined == sorted((rule, str(field), str(raw)) for (rule, field), raw in expected)


def test_clocks_may_differ_within_the_limit(
    play: Play, tiny: Configuration, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    ahead = msgspec.structs.replace(decision, decided_at=NOW + timedelta(minutes=merging.SKEW_MINUTES))
    before = msgspec.structs.replace(outcome, observed_at=NOW)
    report = bring([ahead, before])
    assert (report.n_decisions, report.n_outcomes, report.quarantined) == (1, 1, {})


def test_records_that_never_were_on_a_wire_are_checked_too(
    play: Play, tiny: Configuration, warehouse: Warehouse
) -> None:
    """Structs do not check what is put into them, so the rules may not lean on the readers."""
    decision, outcome = play(tiny, 1)[0]
    nan = float("nan")
    records: list[Record] = [
        *(msgspec.structs.replace(decision, propensity=bad) for bad in (0.0, -0.5, 1.5, nan)),
        msgspec.structs.replace(decision, mixture=(nan, 1.0)),
        msgspec.structs.replace(decision, mixture=(1.5, -0.5)),
        msgspec.structs.replace(outcome, latency_ms=nan),
        msgspec.structs.replace(outcome, cost_usd=-1.0),
    ]
    rows = [
        RawRow(source="memory", position=place, raw=b"", n_bytes=0, record=record)
        for place, record in enumerate(records)
    ]
    progress = merging.Progress("", len(rows), len(rows))
    merged = merging.merge(warehouse, rows, tiny, source="memory", progress=progress, now=NOW)
    assert merged.quarantined == {
        ("bad_propensity", "propensity"): 4,
        ("mixture_sum", "mixture"): 2,
        ("bad_latency", "latency_ms"): 1,
        ("bad_cost", "cost_usd"): 1,
    }
    assert (merged.n_decisions, merged.n_outcomes) == (0, 0)


def test_ingesting_twice_equals_ingesting_once(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    rows = [record for pair in play(tiny, 20) for record in pair] + [b"{broken"]
    bring(rows)
    once = _contents(warehouse)
    again = bring(rows)
    assert again.n_read == 0
    copied = bring(rows, name="copy.jsonl")
    assert (copied.n_decisions, copied.n_outcomes, copied.n_duplicates) == (0, 0, 40)
    assert _contents(warehouse)[:2] == once[:2]
    changed = bring([*rows, b"  "])  # other bytes under the old name: read again, to the same effect
    assert changed.n_duplicates == 40
    assert _contents(warehouse)[:2] == once[:2]
    assert len(_rows(warehouse, "quarantine", "source", "position")) == 2  # one per file


def test_the_first_of_two_payloads_is_kept_and_the_second_quarantined(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    other = msgspec.structs.replace(decision, reason="another story")
    contrary = msgspec.structs.replace(outcome, success=not outcome.success)
    report = bring([decision, other, outcome, contrary, decision])
    assert (report.n_decisions, report.n_outcomes, report.n_duplicates) == (1, 1, 1)
    assert report.quarantined == {"conflict (decision_id)": 1, "conflict (outcome_key)": 1}
    assert bring([other, contrary], name="later.jsonl").quarantined == report.quarantined
    assert history.decision(warehouse, decision.decision_id) == decision
    assert history.outcomes(warehouse, decision.decision_id) == [outcome]


def test_the_same_record_in_another_zone_or_envelope_is_a_duplicate(
    play: Play, tiny: Configuration, bring: Callable[..., IngestReport]
) -> None:
    decision, _ = play(tiny, 1)[0]
    elsewhere = _raw(decision, decided_at=decision.decided_at.isoformat().replace("00:00:00+00:00", "05:30:00+05:30"))
    report = bring([decision, cloudevents.envelope(decision), elsewhere])
    assert (report.n_decisions, report.n_duplicates, report.quarantined) == (1, 2, {})


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_and_redelivery_change_nothing(
    play: Play, tiny: Configuration, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lines = _every_kind_of_line(play(tiny, 4))
    delivered = data.draw(st.permutations(lines + data.draw(st.lists(st.sampled_from(lines), max_size=6))))
    batch_rows = data.draw(st.integers(1, len(delivered)))
    seen = []
    for order in (lines, delivered):
        folder = tmp_path_factory.mktemp("order")
        warehouse = Warehouse(folder / "warehouse.duckdb")
        (folder / "log.jsonl").write_bytes(b"\n".join(order))
        ingestion.ingest(warehouse, [folder / "log.jsonl"], tiny, now=NOW, batch_rows=batch_rows)
        decisions, outcomes, quarantine = _contents(warehouse)
        seen.append((decisions, outcomes, set(quarantine)))
    assert seen[0] == seen[1]


def _every_kind_of_line(played: list[tuple[Decision, Outcome]]) -> list[bytes]:
    """Sound pairs, a retry, an orphan, a late one, one observed before its decision, and a broken one."""
    (first, outcome), (second, other), *rest = played
    early = first.decided_at - timedelta(hours=1)
    return [
        *(msgspec.json.encode(record) for pair in [(first, outcome), *rest] for record in pair),
        msgspec.json.encode(msgspec.structs.replace(outcome, attempt=2, success=True)),
        msgspec.json.encode(msgspec.structs.replace(outcome, attempt=3, observed_at=early)),
        msgspec.json.encode(second),
        msgspec.json.encode(msgspec.structs.replace(other, observed_at=second.decided_at + timedelta(hours=2))),
        msgspec.json.encode(msgspec.structs.replace(outcome, decision_id="never-made")),
        b"{broken",
    ]


def test_orphans_wait_late_ones_are_flagged_and_both_are_kept(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    (decision, outcome), (other, _) = play(tiny, 2)
    late = Outcome(
        decision_id=other.decision_id,
        served="bank",
        observed_at=other.decided_at + timedelta(minutes=60, microseconds=1),
        success=True,
    )
    bring([outcome, late])
    assert history.counts(warehouse).n_orphans == 2
    assert {row[0] for row in _rows(warehouse, "outcomes", "late")} == {"None"}
    bring([decision, other], name="decisions.jsonl")
    assert history.counts(warehouse).n_orphans == 0
    assert _rows(warehouse, "outcomes", "decision_id", "late", "pending_raw") == sorted(
        [(decision.decision_id, "False", "None"), (other.decision_id, "True", "None")]
    )


def test_an_orphan_observed_before_its_decision_is_quarantined_once_that_is_known(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    impossible = _raw(outcome, observed_at=(decision.decided_at - timedelta(hours=1)).isoformat())
    assert bring([impossible]).n_outcomes == 1
    report = bring([decision], name="decisions.jsonl")
    assert report.quarantined == {"observed_before_decided (observed_at)": 1}
    assert history.outcomes(warehouse, decision.decision_id) == []
    quarantined = _rows(warehouse, "quarantine", "rule", "raw")
    assert quarantined == [("observed_before_decided", str(impossible))]
    bring([impossible, b" "])  # the same bytes at the same place: nothing is added
    assert _rows(warehouse, "quarantine", "rule", "raw") == quarantined


def test_extra_fields_are_kept_and_counted(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    report = bring([_raw(decision, region="north"), _raw(outcome, region="north", note={"a": 1})])
    assert report.extra_fields == {"region": 2, "note": 1}
    assert _rows(warehouse, "decisions", "extras") == [('{"region":"north"}',)]
    assert _rows(warehouse, "outcomes", "extras") == [('{"note":{"a": 1},"region":"north"}',)]


def test_a_source_that_drifted_is_refused_by_field_and_its_rows_are_kept(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    pairs = play(tiny, 100)
    rows: list[Record | bytes] = [outcome for _, outcome in pairs[:79]]
    rows += [_raw(outcome, latency_ms="fast") for _, outcome in pairs[79:]]
    report = bring(rows)
    assert report.refusal is not None
    assert report.refusal.endswith("log.jsonl: 21 of 100 rows break invalid_value (latency_ms)")
    assert report.n_outcomes == 79
    assert history.quarantine_counts(warehouse) == {("invalid_value", "latency_ms"): 21}


@pytest.mark.parametrize(("n_broken", "n_rows"), [(20, 100), (99, 99)])
def test_few_broken_rows_or_few_rows_are_no_drift(
    play: Play, tiny: Configuration, bring: Callable[..., IngestReport], n_broken: int, n_rows: int
) -> None:
    outcomes = [outcome for _, outcome in play(tiny, n_rows)]
    rows = [_raw(outcome, latency_ms="fast") for outcome in outcomes[:n_broken]] + outcomes[n_broken:]
    assert bring(rows).refusal is None


def test_a_file_that_cannot_be_read_is_refused_and_the_others_are_not_held_up(
    play: Play, tiny: Configuration, warehouse: Warehouse, tmp_path: Path
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"nothing")
    (tmp_path / "b.jsonl").write_bytes(msgspec.json.encode(play(tiny, 1)[0][0]))
    report = ingestion.ingest(warehouse, [tmp_path], tiny, now=NOW)
    assert report.n_decisions == 1
    assert report.refusal is not None
    assert "a.parquet cannot be read" in report.refusal
    assert history.quarantine_counts(warehouse) == {("bad_parquet", None): 1}


def test_a_growing_spool_is_read_from_where_it_was_left(
    play: Play, tiny: Configuration, warehouse: Warehouse, tmp_path: Path
) -> None:
    path = tmp_path / "shim-00000001.spool"
    records = [record for pair in play(tiny, 3) for record in pair]
    whole = [spool.encode_line(msgspec.json.encode(record)) for record in records]
    path.write_bytes(b"".join(whole[:4]) + whole[4][:10])
    first = ingestion.ingest(warehouse, [tmp_path], tiny, now=NOW)
    path.write_bytes(b"".join(whole))
    second = ingestion.ingest(warehouse, [tmp_path], tiny, now=NOW)
    assert (first.n_read, second.n_read) == (4, 2)
    assert history.counts(warehouse)[:2] == (3, 3)
    progress = merging.read_progress(warehouse, str(path))
    assert progress == merging.Progress("", path.stat().st_size, 6)


def test_hostile_names_are_inert(
    play: Play, tiny: Configuration, warehouse: Warehouse, bring: Callable[..., IngestReport]
) -> None:
    decision, outcome = play(tiny, 1)[0]
    names = [
        "'; DROP TABLE decisions; --",
        "<script>alert(1)</script>",
        "../../etc/passwd",
        "\x1b[31mred",
        "nul\x00",
        "{0}",
    ]
    records: list[Record] = []
    for name in names:
        records.append(msgspec.structs.replace(decision, decision_id=name, event_id=name, reason=name))
        records.append(msgspec.structs.replace(outcome, decision_id=name, error_class=name, idempotency_key=name))
        records.append(msgspec.structs.replace(decision, decision_id=f"{name}!", stream=name))
    report = bring(records)
    assert (report.n_decisions, report.n_outcomes) == (len(names), len(names))
    assert report.quarantined == {"unknown_stream (stream)": len(names)}
    assert [history.decision(warehouse, name) for name in names] == records[::3]
    assert [history.outcomes(warehouse, name) for name in names] == [[record] for record in records[1::3]]


def test_progress_rises_to_the_whole(play: Play, tiny: Configuration, warehouse: Warehouse, tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.json"):
        records = [msgspec.json.encode(decision) for decision, _ in play(tiny, 10, seed=ord(name[0]))]
        text = b"[" + b",".join(records) + b"]" if name.endswith(".json") else b"\n".join(records)
        (tmp_path / name).write_bytes(text)
    seen: list[IngestProgress] = []
    ingestion.ingest(warehouse, [tmp_path], tiny, now=NOW, batch_rows=3, on_progress=seen.append)
    shares = [progress.done_share for progress in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert seen[-1].n_rows == 20


def test_sources_that_are_not_there_or_of_no_format_are_refused(
    tiny: Configuration, warehouse: Warehouse, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        ingestion.ingest(warehouse, [tmp_path / "absent"], tiny, now=NOW)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="no reader"):
        ingestion.ingest(warehouse, [tmp_path / "notes.txt"], tiny, now=NOW)


INGEST = """
    import sys
    from datetime import datetime
    from pathlib import Path
    from features import config, ingestion
    from features.warehouse import Warehouse

    home = Path(sys.argv[1])
    ingestion.ingest(
        Warehouse(home / "warehouse.duckdb"), [home / "log.jsonl"], config.load(home / "turnout.toml"),
        now=datetime.fromisoformat(sys.argv[2]), batch_rows=40,
        on_progress=lambda progress: print(progress.n_rows, flush=True),
    )
"""


def test_a_killed_ingest_loses_nothing_and_doubles_nothing(
    play: Play, tiny: Configuration, tiny_text: str, tmp_path: Path
) -> None:
    played = play(tiny, 400)
    (tmp_path / "turnout.toml").write_text(tiny_text)
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(msgspec.json.encode(record) for pair in played for record in pair))
    command = [sys.executable, "-c", textwrap.dedent(INGEST), str(tmp_path), NOW.isoformat()]
    kills = [(1, 0.0), (2, 0.004), (1, 0.02), (3, 0.05)]  # (batches told of, then seconds): somewhere in a transaction
    acknowledged = sum(_run_and_kill(command, after_lines=told, lag=lag) for told, lag in kills)
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    counts = history.counts(warehouse)
    assert counts.n_decisions + counts.n_outcomes >= acknowledged > 0
    report = ingestion.ingest(warehouse, [tmp_path / "log.jsonl"], tiny, now=NOW)
    assert report.n_duplicates == 0  # a batch and its position are one transaction
    assert history.counts(warehouse) == (400, 400, 0, 0, 0)
    assert _rows(warehouse, "decisions", "decision_id") == sorted((decision.decision_id,) for decision, _ in played)


def _run_and_kill(command: list[str], *, after_lines: int, lag: float) -> int:
    """Return how many rows the process said it had brought in before it was killed."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline() or 0) for _ in range(after_lines)]
        try:
            process.wait(timeout=lag)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
    return max(told)


INGEST_ON_A_FULL_DISK = """
    import resource, signal, sys
    from datetime import datetime
    from pathlib import Path
    from features import config, ingestion
    from features.warehouse import Warehouse, WarehouseError

    home = Path(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fill_disk(progress):
        print(progress.n_rows, flush=True)
        resource.setrlimit(resource.RLIMIT_FSIZE, (home.joinpath("warehouse.duckdb").stat().st_size, -1))

    try:
        ingestion.ingest(
            Warehouse(home / "warehouse.duckdb"), [home / "log.jsonl"], config.load(home / "turnout.toml"),
            now=datetime.fromisoformat(sys.argv[2]), batch_rows=400, on_progress=fill_disk,
        )
    except WarehouseError as error:
        print(type(error).__name__, flush=True)
"""


def test_a_full_disk_refuses_cleanly_and_the_next_ingest_resumes(
    play: Play, tiny: Configuration, tiny_text: str, tmp_path: Path
) -> None:
    """A limit on the files' size stands in for the disk."""
    played, later = play(tiny, 2_000), NOW + timedelta(days=1)
    (tmp_path / "turnout.toml").write_text(tiny_text)
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(msgspec.json.encode(record) for pair in played for record in pair))
    command = [sys.executable, "-c", textwrap.dedent(INGEST_ON_A_FULL_DISK), str(tmp_path), later.isoformat()]
    root = Path(__file__).parents[2]
    told = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split()
    assert told[-1] == "WarehouseError"
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    counts = history.counts(warehouse)
    assert counts.n_decisions + counts.n_outcomes == int(told[-2])
    report = ingestion.ingest(warehouse, [tmp_path / "log.jsonl"], tiny, now=later)
    assert report.n_duplicates == 0
    assert history.counts(warehouse)[:2] == (2_000, 2_000)
