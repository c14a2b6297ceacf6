"""Vectors on the disk: what is read of them is what was written, and no more of it is held than a piece."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import scratch
from features.scratch import Table

MIB = 1024 * 1024
ROWS = 32_768  # of 32 numbers: 8 MiB


def table_of(batches: Sequence[Table]) -> Table:
    rows = scratch.Rows(*batches[0].shape[1:])
    for batch in batches:
        rows.append(batch)
    assert len(rows) == sum(map(len, batches))
    return rows.table()


def resident_file_bytes() -> int:
    """Return how much of mapped files this process holds in memory."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(next(line for line in status.splitlines() if line.startswith("RssFile:")).split()[1]) * 1024


@given(
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6), n_columns=st.integers(1, 5), at_once=st.integers(1, 50)
)
def test_what_is_read_is_what_was_written(sizes: list[int], n_columns: int, at_once: int) -> None:
    rng = np.random.default_rng(sum(sizes))
    batches = [rng.choice([0.0, -0.0, np.nan, np.inf, 1.5], (size, n_columns)) for size in sizes]
    written, table = np.concatenate(batches), table_of(batches)
    assert table.tobytes() == written.tobytes()
    rows = rng.integers(0, len(written), 2 * len(written)) if len(written) else np.empty(0, np.int64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scratch, "ROWS_AT_ONCE", at_once)
        for held in (table, written):  # on the disk and in memory alike
            assert scratch.take(held, rows).tobytes() == written[rows].tobytes()
            pieces = list(scratch.pieces(held))
            assert all(len(piece) <= at_once for _, piece in pieces)
            assert b"".join(piece.tobytes() for _, piece in pieces) == written.tobytes()
            assert [row for at, _ in pieces for row in range(at.start, at.stop)] == list(range(len(written)))


def test_a_pass_over_a_table_holds_no_more_of_it_than_a_piece() -> None:
    table = table_of([np.full((ROWS, 32), float(number)) for number in range(8)])
    assert table.nbytes == 64 * MIB
    before, most = resident_file_bytes(), 0
    for _, piece in scratch.pieces(table):
        piece.sum()
        most = max(most, resident_file_bytes() - before)
    assert most < 16 * MIB
    scratch.take(table[:, :1], np.arange(len(table)))  # of a part of a table too
    assert resident_file_bytes() - before < 16 * MIB


def test_a_table_outlives_its_file_and_is_not_written_to() -> None:
    rows = scratch.Rows(2)
    rows.append(np.ones((3, 2)))
    table = rows.table()[1:]
    del rows
    assert table.sum() == 4
    with pytest.raises(ValueError, match="read-only"):
        table[0, 0] = 2.0


def test_nothing_is_left_among_the_temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch.Rows(2)  # given up before a table was made of it
    table = table_of([np.ones((3, 2))])
    assert table.sum() == 6
    assert not list(tmp_path.iterdir())
