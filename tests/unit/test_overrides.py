from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from features.records import Override
from serving.overrides import OverrideJournal

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def stop(stream: str | None = None, expires_at: datetime | None = None, **fields: object) -> Override:
    override = Override(kind="stop", actor="ada", reason="drill", created_at=AT, stream=stream, expires_at=expires_at)
    return msgspec.structs.replace(override, **fields)


def test_a_stop_is_in_force_at_once_and_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "shim" / "overrides.journal"
    assert OverrideJournal(path).set(stop("orders"))
    journal = OverrideJournal(path)
    assert journal.stop_for("orders", AT) == stop("orders")
    assert journal.stop_for("payments", AT) is None


def test_a_stop_for_all_streams_holds_for_every_one_until_it_is_cleared(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = OverrideJournal(path)
    journal.set(stop())
    journal.set(stop("orders"))
    assert journal.stop_for("payments", AT) == stop()
    assert journal.clear("stop", None, actor="bo", reason="over", at=AT) == stop()
    for known in (journal, OverrideJournal(path)):
        assert known.stop_for("payments", AT) is None
        assert known.stop_for("orders", AT) == stop("orders")
    assert journal.clear("stop", None, actor="bo", reason="again", at=AT) is None


def test_a_stop_expires(tmp_path: Path) -> None:
    journal = OverrideJournal(tmp_path / "journal")
    journal.set(stop(expires_at=AT + HOUR))
    assert journal.stop_for("orders", AT + HOUR - timedelta(microseconds=1))
    assert journal.stop_for("orders", AT + HOUR) is None
    assert journal.in_force(AT + HOUR) == []


def test_a_damaged_line_is_counted_and_the_others_hold(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = OverrideJournal(path)
    journal.set(stop("orders"))
    journal.set(stop("payments"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0].replace(b"drill", b"drull") + lines[1] + b"\x00garbage")
    again = OverrideJournal(path)
    assert again.n_damaged_lines == 2
    assert again.in_force(AT) == [stop("payments")]
    again.set(stop("refunds"))  # a line of its own, although the last one was torn
    assert OverrideJournal(path).stop_for("refunds", AT)


def test_a_stop_that_cannot_be_written_is_in_force_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "shim").write_text("a file where a folder should be")
    journal = OverrideJournal(tmp_path / "shim" / "journal")
    assert not journal.set(stop())
    assert journal.stop_for("orders", AT) == stop()
    assert journal.failure


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_torn_anywhere_spoils_no_other(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    journal = OverrideJournal(path)
    journal.set(stop("orders"))
    whole = path.stat().st_size
    journal.set(stop("payments"))
    path.write_bytes(path.read_bytes()[: whole + cut])
    again = OverrideJournal(path)
    assert again.stop_for("orders", AT)
    again.set(stop("refunds"))
    assert OverrideJournal(path).stop_for("refunds", AT)


def test_workers_of_one_journal_hear_each_other(tmp_path: Path) -> None:
    one, other = (OverrideJournal(tmp_path / "journal") for _ in range(2))
    stop = Override(kind="stop", actor="ada", reason="drill", created_at=AT)
    one.set(stop)
    assert other.in_force(AT) == []
    other.refresh()
    assert other.in_force(AT) == [stop]
    assert other.clear("stop", None, actor="bob", reason="over", at=AT) == stop
    one.refresh()
    assert one.in_force(AT) == []


def test_what_could_not_be_written_down_is_not_undone_by_reading_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = OverrideJournal(tmp_path / "journal")
    journal.set(Override(kind="stop", actor="ada", reason="drill", created_at=AT))
    monkeypatch.setattr(Path, "open", _refuse)
    journal.clear("stop", None, actor="bob", reason="over", at=AT)
    monkeypatch.undo()
    journal.refresh()
    assert journal.in_force(AT) == []


def _refuse(*_: object) -> None:
    raise OSError(28, "No space left on device")
