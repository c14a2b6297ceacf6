"""One interface over all formats; what cannot be read comes out as a row that says why, and nothing stops the rest."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features import cloudevents, columns, lines, readers, spool
from features.readers import RawRow
from features.records import Decision, Outcome, Record
from features.spool import SpoolWriter

DECISION = msgspec.json.decode(
    b'{"record":"decision","decision_id":"d-1","event_id":"e-1","event_source":"shop","event_type":"shop.order",'
    b'"stream":"orders","decided_at":"2026-01-01T00:00:00Z","mode":"on","reason":"quote \\" comma , newline \\n",'
    b'"assigned":"card","propensity":0.75,"destinations":["card","bank"],"mixture":[0.75,0.25],'
    b'"policies":{"static":[1.0,0.0]},"numbers":[[1.5,null],[2.5,3.0]],"categories":[["card",null],["bank","NO"]],'
    b'"excluded":{},"predictions":{"champion":{"value":[0.5,0.25]}},"event_time":"2025-12-31T23:59:59.5Z"}',
    type=Decision,
)
OUTCOME = msgspec.json.decode(
    b'{"record":"outcome","decision_id":"d-1","served":"card","observed_at":"2026-01-01T00:05:00Z","success":true,'
    b'"latency_ms":120.5,"cost_usd":0.01}',
    type=Outcome,
)


def _encoded(record: Record, **changed: Any) -> bytes:
    return json.dumps(msgspec.to_builtins(record) | changed).encode()


def _rows(path: Path, **options: Any) -> list[RawRow]:
    return [row for batch in readers.read(path, **options) for row in batch.rows]


def _write_spool(path: Path, records: list[Record]) -> None:
    path.write_bytes(b"".join(spool.encode_line(msgspec.json.encode(record)) for record in records))


def _write_json_lines(path: Path, records: list[Record]) -> None:
    path.write_bytes(b"\n".join(cloudevents.envelope(record) for record in records))


def _write_array(path: Path, records: list[Record]) -> None:
    path.write_bytes(b"[" + b",\n".join(cloudevents.envelope(record) for record in records) + b"]")


def _write_csv(path: Path, records: list[Record]) -> None:
    rows = [msgspec.to_builtins(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    for row in rows:
        cells = (row.get(name) for name in names)
        writer.writerow([json.dumps(cell) if isinstance(cell, list | tuple | dict) else cell for cell in cells])
    path.write_bytes(text.getvalue().encode())


def _write_parquet(path: Path, records: list[Record]) -> None:
    if isinstance(records[0], Decision):
        table = columns.decision_table([record for record in records if isinstance(record, Decision)])
    else:
        table = columns.outcome_table([record for record in records if isinstance(record, Outcome)]).drop(
            ["outcome_key"]
        )
    pq.write_table(table.drop(["payload_digest"]), path)


WRITERS = {
    ".spool": _write_spool,
    ".jsonl": _write_json_lines,
    ".ndjson": _write_json_lines,
    ".json": _write_array,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
}


def _many(record: Record, n_rows: int) -> list[Record]:
    return [msgspec.structs.replace(record, decision_id=f"d-{number}") for number in range(n_rows)]


@pytest.mark.parametrize("record", [DECISION, OUTCOME], ids=["decision", "outcome"])
@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_same_records(tmp_path: Path, suffix: str, record: Record) -> None:
    path = tmp_path / f"records{suffix}"
    WRITERS[suffix](path, _many(record, 3))
    rows = _rows(path)
    assert [row.error for row in rows] == [None] * 3
    assert [row.record for row in rows] == _many(record, 3)
    assert all(row.source == str(path) and not row.extras for row in rows)


@pytest.mark.parametrize("suffix", WRITERS)
def test_reading_goes_on_from_the_end_of_any_batch(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"records{suffix}"
    WRITERS[suffix](path, _many(DECISION, 7))
    whole = _rows(path)
    batches = list(readers.read(path, batch_rows=2))
    assert [len(batch.rows) for batch in batches] == [2, 2, 2, 1]
    for number, batch in enumerate(batches, start=1):
        assert _rows(path, start=batch.end) == whole[2 * number :]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_position_is_where_the_row_begins(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"records{suffix}"
    WRITERS[suffix](path, _many(OUTCOME, 3))
    content = path.read_bytes()
    for row in _rows(path):
        assert content[row.position :].startswith(row.raw)


def test_a_batch_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "BATCH_BYTES", 10)
    path = tmp_path / "records.jsonl"
    _write_json_lines(path, _many(OUTCOME, 3))
    assert [len(batch.rows) for batch in readers.read(path)] == [1, 1, 1]


def test_poison_lines_come_out_by_name_and_the_rest_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 1_000_000)
    path = tmp_path / "poison.jsonl"
    poison = {
        "bad_json": b"{not json",
        "not_utf8": b'{"record": "outcome", "served": "\xff\xfe"}',
        "too_deep": b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "too_long": b'{"x": "' + b"x" * 10_000_000 + b'"}',
        "missing_field": _encoded(OUTCOME).replace(b'"served"', b'"surved"'),
        "invalid_value": _encoded(DECISION, propensity=0),
        "no_zone": _encoded(OUTCOME, observed_at="2026-01-01T00:00:00"),
        "unknown_schema": _encoded(OUTCOME, schema=9),
    }
    parts = [part for raw in [b"\x00\x00", *poison.values()] for part in (raw, _encoded(OUTCOME))]
    path.write_bytes(b"\n".join(parts))
    rows = _rows(path)
    assert [row.rule for row in rows[::2]] == ["bad_json", *poison]
    assert all(row.record == OUTCOME for row in rows[1::2])
    assert rows[0].raw == b"\x00\x00"
    long = next(row for row in rows if row.rule == "too_long")
    assert (len(long.raw), long.n_bytes) == (lines.KEPT_BYTES, 10_000_010)
    assert long.digest is not None


def test_a_spooled_line_with_a_wrong_checksum_is_an_error_row(tmp_path: Path) -> None:
    path = tmp_path / "shim-00000001.spool"
    _write_spool(path, [OUTCOME, OUTCOME])
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    first, second = _rows(path)
    assert (first.rule, first.record) == ("bad_checksum", None)
    assert second.record == OUTCOME


def test_an_unfinished_spool_line_is_left_for_the_next_reading(tmp_path: Path) -> None:
    path = tmp_path / "shim-00000001.spool"
    _write_spool(path, [OUTCOME, OUTCOME])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    (batch,) = readers.read(path)
    assert len(batch.rows) == 1
    path.write_bytes(whole)
    assert [row.record for row in _rows(path, start=batch.end)] == [OUTCOME]


def test_blank_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_bytes(b"\n  \n" + _encoded(OUTCOME) + b"\r\n\n")
    assert [row.record for row in _rows(path)] == [OUTCOME]


def test_extra_columns_are_kept_beside_the_record(tmp_path: Path) -> None:
    for suffix, content in {
        ".jsonl": _encoded(OUTCOME, region="north"),
        ".csv": b"decision_id,served,observed_at,success,latency_ms,cost_usd,region\n"
        b"d-1,card,2026-01-01T00:05:00Z,True,120.5,0.01,north\n",
    }.items():
        path = tmp_path / f"extra{suffix}"
        path.write_bytes(content)
        (row,) = _rows(path)
        assert row.record == OUTCOME
        assert row.extras == {"region": b'"north"'}


def test_a_csv_without_the_needed_columns_is_refused_naming_them(tmp_path: Path) -> None:
    path = tmp_path / "drifted.csv"
    path.write_text("decision_id,served,seen_at\nd-1,card,2026-01-01T00:05:00Z\n")
    (row,) = _rows(path)
    assert row.whole_source
    assert (row.rule, row.field) == ("missing_column", "observed_at")
    assert row.error == "outcome rows lack: observed_at"


def test_a_csv_of_something_else_says_what_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    (row,) = _rows(path)
    assert row.whole_source
    assert "'assigned'" in str(row.error)


def test_broken_csv_rows_come_out_by_name(tmp_path: Path) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(
        b"\xef\xbb\xbfdecision_id,served,observed_at\r\n"
        b"d-1,card,2026-01-01T00:05:00Z\r\n"
        b"d-2,card\r\n"
        b"d-3,\xff,2026-01-01T00:05:00Z\r\n"
        b"d-4,card,\r\n"
        b'd-5,"multi\nline",2026-01-01T00:05:00Z\r\n'
        b'd-6,"open,2026-01-01T00:05:00Z\r\n'
    )
    rows = _rows(path)
    assert [row.rule for row in rows] == [None, "bad_csv", "not_utf8", "missing_field", None, "bad_csv"]
    served = rows[4].record
    assert isinstance(served, Outcome)
    assert served.served == "multi\nline"


@pytest.mark.parametrize("suffix", [".csv", ".json", ".parquet"])
def test_a_file_that_is_not_of_its_format_is_one_refused_row(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"damaged{suffix}"
    path.write_bytes(b"PAR1 \x00\xff this is nothing")
    (row,) = _rows(path)
    assert row.whole_source
    assert row.error


def test_a_cut_parquet_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.parquet"
    _write_parquet(path, _many(OUTCOME, 10))
    path.write_bytes(path.read_bytes()[:-20])
    (row,) = _rows(path)
    assert (row.whole_source, row.rule) == (True, "bad_parquet")


def test_parquet_rows_that_do_not_fit_are_named_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "typed.parquet"
    fields = {"decision_id": ["a", "b"], "served": ["card", None], "latency_ms": [float("inf"), 1.0]}
    instants = pa.array([1_767_225_600_000_000] * 2, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table(fields | {"observed_at": instants}), path)
    assert [(row.rule, row.field, row.position) for row in _rows(path)] == [
        ("not_finite", "latency_ms", 0),
        ("missing_field", "served", 1),
    ]


def test_parquet_instants_without_a_zone_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "naive.parquet"
    naive = pa.array([1_767_225_600_000_000], pa.timestamp("us"))
    pq.write_table(pa.table({"decision_id": ["a"], "served": ["card"], "observed_at": naive}), path)
    assert [row.rule for row in _rows(path)] == ["no_zone"]


@pytest.mark.parametrize("suffix", WRITERS)
def test_an_empty_file_has_no_rows_or_says_why(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"empty{suffix}"
    path.touch()
    assert all(row.whole_source for row in _rows(path))


def test_a_suffix_without_a_reader_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.touch()
    with pytest.raises(ValueError, match=r"no reader for '\.txt'"):
        list(readers.read(path))


def test_batches_hold_at_least_one_row(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    path.touch()
    with pytest.raises(ValueError, match="batch_rows must be at least 1, got 0"):
        list(readers.read(path, batch_rows=0))


def test_a_folder_stands_for_its_readable_files_oldest_segment_first(tmp_path: Path) -> None:
    for _ in range(2):
        SpoolWriter(tmp_path, prefix="shim").close()
    for name in ("b.jsonl", "a.csv", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "sub.jsonl").mkdir()
    names = [path.name for path in readers.expand([tmp_path, tmp_path / "a.csv"])]
    assert names == ["shim-00000001.spool", "shim-00000002.spool", "a.csv", "b.jsonl"]


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        readers.expand([tmp_path / "absent"])
