"""What was accepted is read again, what is torn or damaged never passes for a record."""

import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import spool
from features.spool import SpoolWriter

PAYLOADS = st.lists(st.binary(max_size=30).filter(lambda payload: b"\n" not in payload), max_size=8)
ROOT = Path(__file__).parents[2]


@settings(deadline=None)
@given(PAYLOADS)
def test_what_is_appended_is_read_again_in_order(
    tmp_path_factory: pytest.TempPathFactory, payloads: list[bytes]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    writer = SpoolWriter(folder, prefix="shim", segment_bytes=40)
    for payload in payloads:
        writer.append(payload)
    writer.close()
    read = [line.payload for path in spool.segments(folder) for line in spool.read_lines(path)]
    assert read == payloads


def test_one_append_of_many_payloads_lands_in_one_segment(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, prefix="shim", segment_bytes=40)
    writer.append(b"first")
    writer.append(*[b"together"] * 5)
    writer.close()
    assert [len(list(spool.read_lines(path))) for path in spool.segments(tmp_path)] == [1, 5]


@settings(deadline=None)
@given(payload=st.binary(min_size=1, max_size=30).filter(lambda raw: b"\n" not in raw), data=st.data())
def test_a_line_with_any_bit_turned_is_never_taken_for_whole(payload: bytes, data: st.DataObject) -> None:
    line = bytearray(spool.encode_line(payload)[:-1])
    assert spool.decode_line(bytes(line)) == payload
    line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert spool.decode_line(bytes(line)) is None


def test_the_format_on_disk_is_what_the_docstring_says() -> None:
    assert spool.encode_line(b"{}") == b"%08x {}\n" % zlib.crc32(b"{}")


def test_a_damaged_line_stands_between_sound_ones(tmp_path: Path) -> None:
    path = tmp_path / "shim-00000001.spool"
    path.write_bytes(spool.encode_line(b"one") + b"garbage\n\n" + spool.encode_line(b"two"))
    assert [line.payload for line in spool.read_lines(path)] == [b"one", None, None, b"two"]


def test_i09_an_unfinished_line_is_left_and_read_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "shim-00000001.spool"
    whole = spool.encode_line(b"one") + spool.encode_line(b"two")
    path.write_bytes(whole[:-1])
    (line,) = spool.read_lines(path)
    path.write_bytes(whole)
    assert [later.payload for later in spool.read_lines(path, start=line.end)] == [b"two"]


def test_a_payload_with_a_newline_is_refused(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, prefix="shim")
    with pytest.raises(ValueError, match="a single line"):
        writer.append(b"one\ntwo")
    writer.close()
    assert spool.segments(tmp_path)[0].stat().st_size == 0


def test_every_writer_starts_a_fresh_segment(tmp_path: Path) -> None:
    (tmp_path / "shim-notanumber.spool").touch()
    for _ in range(3):
        SpoolWriter(tmp_path, prefix="shim").close()
    SpoolWriter(tmp_path, prefix="other").close()
    assert [path.name for path in spool.segments(tmp_path)] == [
        "shim-notanumber.spool",
        "other-00000001.spool",
        "shim-00000001.spool",
        "shim-00000002.spool",
        "shim-00000003.spool",
    ]


def test_segments_are_not_for_everyone_to_read(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        SpoolWriter(tmp_path, prefix="shim").close()
    finally:
        os.umask(previous)
    assert spool.segments(tmp_path)[0].stat().st_mode & 0o007 == 0


def test_with_fsync_every_append_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for fsync in (False, True):
        writer = SpoolWriter(tmp_path, prefix="shim", fsync=fsync)
        writer.append(b"one")
        writer.append(b"two")
        writer.close()
        assert len(synced) == 2 * fsync


def test_i11_a_full_disk_raises_and_the_torn_line_spoils_nothing_after_it(tmp_path: Path) -> None:
    """A limit on the file's size stands in for the disk: the kernel writes a part, then refuses."""
    code = f"""
import resource, signal, sys
from pathlib import Path
from features.spool import SpoolWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = SpoolWriter(Path(sys.argv[1]), prefix="shim")
writer.append(b"kept")
resource.setrlimit(resource.RLIMIT_FSIZE, (20, {resource.RLIM_INFINITY}))
try:
    writer.append(b"x" * 100)
except OSError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, ({resource.RLIM_INFINITY}, {resource.RLIM_INFINITY}))
writer.append(b"after")
"""
    told = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert told.stdout == "spool took 6 of 110 bytes\n"
    read = [line.payload for path in spool.segments(tmp_path) for line in spool.read_lines(path)]
    assert read == [b"kept", b"after"]
