"""A bundle as a tar: the same bytes for the same bundle, and nothing but plain files comes out of one."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from tarfile import TarInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.releases import bundle
from models.releases.bundle import BundleError, Limits, TooLargeError
from serving import parcel


def seal(folder: Path) -> str:
    folder.mkdir()
    (folder / "model.txt").write_text("tree\n" * 200)
    (folder / "card.json").write_text("{}")
    return bundle.seal(folder, kind="router")


@pytest.fixture
def packed(tmp_path: Path) -> bytes:
    digest = seal(tmp_path / "router")
    return parcel.pack(tmp_path / "router", bundle.verify(tmp_path / "router", digest))


@pytest.fixture
def incoming(tmp_path: Path) -> Path:
    (tmp_path / "deep" / "incoming").mkdir(parents=True)
    return tmp_path / "deep" / "incoming"


def tar(*members: tuple[TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return written.getvalue()


def member(name: str = "model.txt", **fields: object) -> TarInfo:
    made = TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def test_what_was_packed_is_the_bundle_again(packed: bytes, incoming: Path, tmp_path: Path) -> None:
    parcel.unpack(io.BytesIO(packed), incoming)
    assert bundle.verify(incoming, bundle.read_digest(tmp_path / "router")).kind == "router"


def test_the_same_bundle_gives_the_same_bytes_wherever_it_lies(packed: bytes, tmp_path: Path) -> None:
    digest = seal(tmp_path / "again")
    (tmp_path / "again" / "model.txt").chmod(0o600)
    assert parcel.pack(tmp_path / "again", bundle.verify(tmp_path / "again", digest)) == packed
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        members = archive.getmembers()
    assert [each.name for each in members] == ["card.json", "manifest.json", "model.txt"]
    assert {(each.mode, each.mtime, each.uid, each.gid, each.uname) for each in members} == {(0o444, 0, 0, 0, "")}


@pytest.mark.parametrize(
    "bad",
    [
        member("../model.txt"),
        member("/model.txt"),
        member("a/model.txt"),
        member(".."),
        member(".hidden.txt"),
        member("model.pickle"),
        member("model"),
        member(type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member(type=tarfile.LNKTYPE, linkname="card.json"),
        member(type=tarfile.DIRTYPE),
        member(type=tarfile.CHRTYPE),
        member(type=tarfile.BLKTYPE),
        member(type=tarfile.FIFOTYPE),
        member(type=tarfile.CONTTYPE),
        member(type=tarfile.GNUTYPE_SPARSE),
        member(type=tarfile.XHDTYPE),
    ],
    ids=lambda bad: f"{bad.name} {bad.type!r}",
)
def test_nothing_but_a_plain_file_of_a_plain_name_is_written(bad: TarInfo, incoming: Path) -> None:
    with pytest.raises(BundleError, match="expected"):
        parcel.unpack(io.BytesIO(tar((bad, b""), (member("later.txt"), b"x"))), incoming)
    assert list(incoming.iterdir()) == []
    assert [path.name for path in incoming.parent.iterdir()] == ["incoming"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_beside_the_header_is_not_heard(form: int, incoming: Path) -> None:
    with pytest.raises(BundleError, match="expected a plain file"):
        parcel.unpack(io.BytesIO(tar((member("x" * 120 + ".txt"), b""), form=form)), incoming)


def test_a_name_that_comes_twice_is_refused_and_the_first_stays(incoming: Path) -> None:
    with pytest.raises(BundleError, match="each name once"):
        parcel.unpack(io.BytesIO(tar((member(), b"one"), (member(), b"two"))), incoming)
    assert (incoming / "model.txt").read_bytes() == b"one"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(max_files=1), "at most 1 files"),
        (Limits(max_file_bytes=10), "at most"),
        (Limits(max_total_bytes=12), "at most 12 bytes"),
    ],
)
def test_more_than_the_limits_is_refused_before_it_is_written(limits: Limits, words: str, incoming: Path) -> None:
    members = [(member(f"{number}.txt"), b"x" * size) for number, size in enumerate((5, 5, 11))]
    with pytest.raises(TooLargeError, match=words):
        parcel.unpack(io.BytesIO(tar(*members)), incoming, limits=limits)
    assert not (incoming / "2.txt").exists()


def test_a_size_is_believed_of_no_header_before_the_bytes_are_there(incoming: Path) -> None:
    big = member()
    big.size = parcel.LIMITS.max_file_bytes
    with pytest.raises(BundleError, match="cut short"):
        parcel.unpack(io.BytesIO(big.tobuf(tarfile.USTAR_FORMAT)), incoming)


def test_a_size_below_nothing_is_refused(incoming: Path) -> None:
    back = member()
    back.size = -1_024
    with pytest.raises(BundleError, match="expected"):
        parcel.unpack(io.BytesIO(back.tobuf(tarfile.GNU_FORMAT)), incoming)


def test_wherever_a_tar_ends_too_early_it_is_said(packed: bytes, tmp_path: Path) -> None:
    end = len(packed.rstrip(b"\0"))
    for n_bytes in (0, 1, 511, 512, 514, 1_024, end - 1, end + 1):
        folder = tmp_path / f"at-{n_bytes}"
        folder.mkdir()
        with pytest.raises(BundleError, match="cut short"):
            parcel.unpack(io.BytesIO(packed[:n_bytes]), folder)


@given(st.binary(max_size=4_096))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(BundleError):
        parcel.unpack(io.BytesIO(b"x" + data), Path("nowhere"))


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda folder, of: parcel.pack(folder, of, limits=Limits(max_total_bytes=100)), "at most 100 bytes to send"),
        (parcel.pack, "fits into a tar's header"),
    ],
)
def test_what_cannot_be_sent_is_said(act: Callable[..., bytes], words: str, tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / ("x" * 120 + ".txt")).write_text("x" * 200)
    manifest = bundle.verify(tmp_path / "router", bundle.seal(tmp_path / "router", kind="router"))
    with pytest.raises(BundleError, match=words):
        act(tmp_path / "router", manifest)
