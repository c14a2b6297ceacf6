import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import spool
from serving.recorder import Recorder

payloads = st.binary(max_size=60).filter(lambda payload: b"\n" not in payload)


def stored(folder: Path) -> list[bytes | None]:
    return [line.payload for path in spool.segments(folder) for line in spool.read_lines(path)]


@settings(max_examples=40)
@given(batches=st.lists(st.lists(payloads, min_size=1, max_size=4), max_size=12))
def test_every_place_leads_back_to_its_payload_across_segments_and_restarts(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    recorder = Recorder(folder, segment_bytes=150)
    places = [place for batch in batches for place in recorder.append(*batch)]
    written = [payload for batch in batches for payload in batch]
    assert [recorder.read(place) for place in places] == written
    recorder.close()
    assert [payload for _, payload in Recorder(folder).recent(10**9)] == written == stored(folder)


def test_recent_gives_the_newest_segments_oldest_line_first(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, segment_bytes=30)
    for number in range(10):
        recorder.append(b"payload %d" % number)
    again = Recorder(tmp_path)
    found = list(again.recent(3 * 19))
    assert [payload for _, payload in found] == [b"payload 7", b"payload 8", b"payload 9"]
    assert [again.read(place) for place, _ in found] == [payload for _, payload in found]


def test_nothing_is_written_before_the_first_record(tmp_path: Path) -> None:
    Recorder(tmp_path / "spool").close()
    assert not (tmp_path / "spool").exists()


def test_a_segment_that_is_gone_is_not_known_any_more(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    (place,) = recorder.append(b"one")
    spool.segments(tmp_path)[0].unlink()
    assert recorder.read(place) is None


def refuse(*_: object) -> int:
    raise OSError(28, "No space left on device")


def write_half(descriptor: int, lines: bytes) -> int:
    return WRITE(descriptor, lines[: len(lines) // 2])


WRITE = os.write


@pytest.mark.parametrize("broken_write", [refuse, write_half])
def test_i11_a_full_disk_costs_only_the_record_it_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_write: Callable[..., int]
) -> None:
    recorder = Recorder(tmp_path)
    (first,) = recorder.append(b"first")
    monkeypatch.setattr(os, "write", broken_write)
    for _ in range(3):
        with pytest.raises(OSError, match=r"No space|took"):
            recorder.append(b"refused")
    assert recorder.failure
    assert recorder.n_refused == 3
    monkeypatch.undo()
    (last,) = recorder.append(b"last")
    assert recorder.failure is None
    assert [recorder.read(first), recorder.read(last)] == [b"first", b"last"]
    assert [payload for payload in stored(tmp_path) if payload] == [b"first", b"last"]


def test_a_disk_that_refuses_leaves_no_heap_of_empty_segments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(tmp_path)
    monkeypatch.setattr(os, "write", refuse)
    for _ in range(50):
        with pytest.raises(OSError, match="No space"):
            recorder.append(b"refused")
    assert not spool.segments(tmp_path)


def test_what_other_writers_append_is_news_once_and_what_was_there_before_is_none(tmp_path: Path) -> None:
    other = Recorder(tmp_path, prefix="shim1")
    other.append(b"before")
    own = Recorder(tmp_path)
    assert list(own.news()) == []
    own.append(b"own")
    for payload in (b"one", b"two"):
        other.append(payload)
        ((place, news),) = own.news()
        assert news == own.read(place) == payload
    Recorder(tmp_path, prefix="shim2").append(b"three")
    assert [payload for _, payload in own.news()] == [b"three"]
    assert list(own.news()) == []


@settings(max_examples=40)
@given(groups=st.lists(st.lists(payloads, min_size=1, max_size=4), max_size=10), failing=st.sets(st.integers(0, 30)))
def test_i09_held_lines_are_read_like_written_ones_and_a_failing_disk_loses_none_that_is_kept(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[bytes]], failing: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    recorder = Recorder(folder, segment_bytes=100)
    recorder.holding = True
    n_writes = 0

    def write(descriptor: int, lines: bytes) -> int:
        nonlocal n_writes
        n_writes += 1
        return WRITE(descriptor, lines[: len(lines) // 2]) if n_writes in failing else WRITE(descriptor, lines)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "write", write)
        places: list[int] = []
        written = [payload for group in groups for payload in group]
        for group in groups:
            places += recorder.append(*group)
            assert [recorder.read(place) for place in places] == written[: len(places)]
            with suppress(OSError):
                recorder.flush(keep=True)
            assert [recorder.read(place) for place in places] == written[: len(places)]
    recorder.close()
    assert [recorder.read(place) for place in places] == written
    assert set(written) <= set(stored(folder))
