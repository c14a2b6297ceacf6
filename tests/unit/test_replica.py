"""A copy of a ledger: the same to the byte, and written by nobody else."""

from pathlib import Path

import pytest
from msgspec import structs

from models.releases import entry as entries
from models.releases.history import History
from models.releases.ledger import (
    MAX_ENTRY_BYTES,
    DamagedLedgerError,
    ForeignLedgerError,
    Ledger,
    LedgerConflictError,
)
from models.releases.refusal import RuleBrokenError
from models.releases.replica import Replica
from tests.unit.ledger_steps import A, B, append, canary, forecaster, genesis


def files(root: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(root.glob("*.json"))]


def test_a_copy_is_the_same_to_the_byte_and_says_that_it_is_one(golden: Path, tmp_path: Path) -> None:
    copy = Replica(tmp_path / "copy")
    assert not copy.is_copy
    copy.adopt(files(golden)[:1], expected_head="")
    history = copy.adopt(files(golden)[1:], expected_head=copy.history().hash)
    assert files(tmp_path / "copy") == files(golden)
    assert history == copy.verify() == Ledger(golden).verify()
    assert copy.is_copy
    assert not Ledger(golden).is_copy
    assert copy.sweep() == ()


def test_of_what_may_not_follow_nothing_is_adopted(golden: Path, tmp_path: Path) -> None:
    copy, whole = Replica(tmp_path / "copy"), files(golden)
    for bad in (whole[1:], [whole[0], whole[2]], [*whole, whole[-1]], [*whole[:3], whole[3][:-1]], [b"x" * 2_000_000]):
        with pytest.raises((DamagedLedgerError, RuleBrokenError)):
            copy.adopt(bad, expected_head="")
        assert copy.generations() == ()
    with pytest.raises(LedgerConflictError):
        copy.adopt(whole, expected_head=A)
    assert copy.generations() == ()


def test_an_entry_larger_than_any_that_could_be_written_is_not_adopted(tmp_path: Path) -> None:
    entry = structs.replace(genesis(History()), evidence={"note": "x" * MAX_ENTRY_BYTES})
    with pytest.raises(DamagedLedgerError, match="at most 1048576"):
        Replica(tmp_path / "copy").adopt([entries.encode(entry)], expected_head="")


def test_a_ledger_is_written_here_or_a_copy_and_never_both(ledger: Ledger, golden: Path, tmp_path: Path) -> None:
    with pytest.raises(ForeignLedgerError, match="at generation 4, was written here"):
        Replica(tmp_path / "ledger").adopt([], expected_head=ledger.history().hash)
    append(ledger, lambda history: forecaster(history, B))
    copy = Replica(tmp_path / "copy")
    copy.adopt(files(golden), expected_head="")
    for refused in (lambda history: forecaster(history, B), lambda history: canary(history, B)):
        with pytest.raises(ForeignLedgerError, match="is a copy of another's"):
            append(copy, refused)
    assert copy.generations() == (1, 2, 3, 4)
