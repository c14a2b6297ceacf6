"""Lines come out whole or bounded, and always with the place from which to go on."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features import lines


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE_BYTES", 16)
    monkeypatch.setattr(lines, "KEPT_BYTES", 4)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_lines_and_their_newlines_make_up_the_file(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("lines") / "any"
    path.write_bytes(content)
    read = list(lines.read(path))
    assert [line.start for line in read] == [0, *(line.end for line in read)][: len(read)]
    assert (read[-1].end if read else 0) == len(content)
    assert [line.raw for line in read] == _split(content)


def _split(content: bytes) -> list[bytes]:
    parts = content.split(b"\n")
    return [part.removesuffix(b"\r") for part in parts[:-1]] + [parts[-1]] * bool(parts[-1])


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda raw: b"\n" not in raw), min_size=1))
def test_reading_goes_on_from_the_end_of_any_line(tmp_path_factory: pytest.TempPathFactory, raws: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("lines") / "any"
    path.write_bytes(b"\n".join(raws))
    read = list(lines.read(path))
    for number, line in enumerate(read):
        assert list(lines.read(path, start=line.end)) == read[number + 1 :]


@pytest.mark.usefixtures("small_limit")
def test_a_line_that_is_too_long_keeps_its_beginning_its_length_and_its_digest(tmp_path: Path) -> None:
    path = tmp_path / "long"
    long = b"x" * 100
    path.write_bytes(b"a\n" + long + b"\nb\n")
    first, second, third = lines.read(path)
    assert (first.raw, third.raw) == (b"a", b"b")
    assert second.too_long
    assert second.raw == b"xxxx"
    assert second.n_bytes == 101
    assert second.digest == hashlib.sha256(long + b"\n").hexdigest()


@pytest.mark.usefixtures("small_limit")
def test_a_line_as_long_as_the_limit_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "edge"
    path.write_bytes(b"x" * 16 + b"\n")
    (line,) = lines.read(path)
    assert not line.too_long
    assert line.raw == b"x" * 16


def test_a_last_line_without_newline_says_so(tmp_path: Path) -> None:
    path = tmp_path / "torn"
    path.write_bytes(b"whole\ntorn")
    assert [line.ended for line in lines.read(path)] == [True, False]


@pytest.mark.usefixtures("small_limit")
def test_joined_lines_are_bounded_too(tmp_path: Path) -> None:
    path = tmp_path / "quoted"
    path.write_bytes(b"0123456789\n0123456789\n")
    joined = lines.join(list(lines.read(path)))
    assert joined.too_long
    assert (joined.start, joined.end, joined.n_bytes) == (0, 22, 22)
    assert joined.raw == b"0123"
