"""The bundle: sealed the same everywhere, and refused for one byte, one file or one link that is not as it was sealed."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.releases import bundle
from models.releases.bundle import (
    MANIFEST_FILE,
    BundleError,
    FileMismatchError,
    ForeignFileError,
    Limits,
    ManifestError,
    MissingFileError,
    TooLargeError,
)

FILES = {"success.txt": b"tree\nversion=v4\n", "card.json": b'{"kind":"router"}', "table.csv": "ü,1\n".encode()}
PIN = "c" * 64


def write(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    folder.mkdir()
    for name, data in (files or FILES).items():
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def sealed(tmp_path: Path) -> tuple[Path, str]:
    folder = write(tmp_path / "router")
    return folder, bundle.seal(folder, kind="router", pins={"classifier": PIN})


def forge(folder: Path, manifest: dict[str, object]) -> str:
    """Write a manifest that its digest is right about, as one with the right to write could."""
    data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    (folder / MANIFEST_FILE).write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def test_the_manifest_names_kind_files_and_pins_and_its_hash_is_the_digest(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    data = (folder / MANIFEST_FILE).read_bytes()
    assert digest == hashlib.sha256(data).hexdigest() == bundle.read_digest(folder)
    files = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    assert json.loads(data) == {"schema": 1, "kind": "router", "files": files, "pins": {"classifier": PIN}}
    assert bundle.verify(folder, digest).pins == {"classifier": PIN}


def test_sealing_is_deterministic_wherever_and_however_often(tmp_path: Path) -> None:
    first = write(tmp_path / "first")
    second = write(tmp_path / "second", dict(reversed(FILES.items())))
    pins = {"a": "a" * 64, "b": "b" * 64}
    digest = bundle.seal(first, kind="router", pins=pins)
    assert bundle.seal(first, kind="router", pins=pins) == digest
    assert bundle.seal(second, kind="router", pins=dict(reversed(pins.items()))) == digest
    assert bundle.seal(second, kind="forecaster", pins=pins) != digest


@given(st.data())
def test_every_flipped_byte_is_refused_by_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = write(tmp_path_factory.mktemp("flip") / "router")
    digest = bundle.seal(folder, kind="router")
    name = data.draw(st.sampled_from([*FILES, MANIFEST_FILE]))
    content = bytearray((folder / name).read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    (folder / name).write_bytes(content)
    with pytest.raises(BundleError) as refused:
        bundle.verify(folder, digest)
    assert refused.value.file == name


def test_same_length_tampering_names_both_digests(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    tampered = FILES["success.txt"].replace(b"v4", b"v5")
    (folder / "success.txt").write_bytes(tampered)
    with pytest.raises(FileMismatchError) as refused:
        bundle.verify(folder, digest)
    assert refused.value.expected == f"SHA-256 {hashlib.sha256(FILES['success.txt']).hexdigest()}"
    assert refused.value.found == f"SHA-256 {hashlib.sha256(tampered).hexdigest()}"


def test_a_truncated_file_is_refused(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    (folder / "success.txt").write_bytes(FILES["success.txt"][:-4])
    with pytest.raises(FileMismatchError, match=r"success\.txt"):
        bundle.verify(folder, digest)


def test_a_missing_and_an_extra_file_are_refused(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    (folder / "extra.json").write_bytes(b"{}")
    with pytest.raises(ForeignFileError, match=r"extra\.json: expected only files of the manifest"):
        bundle.verify(folder, digest)
    (folder / "extra.json").unlink()
    (folder / "card.json").unlink()
    with pytest.raises(MissingFileError, match=r"card\.json"):
        bundle.verify(folder, digest)


def test_another_digest_and_a_folder_that_was_never_sealed_are_refused(sealed: tuple[Path, str]) -> None:
    folder, digest = sealed
    with pytest.raises(ManifestError, match=f"expected SHA-256 {'0' * 64}, found SHA-256 {digest}"):
        bundle.verify(folder, "0" * 64)
    (folder / MANIFEST_FILE).unlink()
    with pytest.raises(ManifestError, match="never sealed"):
        bundle.verify(folder, digest)


@pytest.mark.parametrize(
    "name", ["model.pkl", "model.joblib", "model.npy", "run.py", ".hidden.txt", "no_suffix", "ü.txt"]
)
def test_other_suffixes_and_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "router", {**FILES, name: b"x"})
    with pytest.raises(ForeignFileError, match=r"suffix|name"):
        bundle.seal(folder, kind="router")


@pytest.mark.parametrize(
    "content", [pickle.dumps({"a": 1}), b"tree\0", b"\xff\xfe", b"PK\x03\x04\x00", "ü".encode()[:1]]
)
def test_a_pickle_or_other_bytes_under_a_text_files_name_are_refused(tmp_path: Path, content: bytes) -> None:
    folder = write(tmp_path / "router", {"model.txt": content})
    with pytest.raises(ForeignFileError, match=r"model\.txt: expected .*text"):
        bundle.seal(folder, kind="router")


@pytest.mark.parametrize(
    "content", [b"", b"\x80\x04K\x01.", b"PK\x03\x04", b"turnout leaf masks 2\n\0\0\0", b"\0" * 64]
)
def test_a_pickle_or_other_bytes_under_a_tables_name_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.masks").write_bytes(content)
    with pytest.raises(ForeignFileError, match=r"model\.masks: expected tables of numbers"):
        bundle.seal(tmp_path, kind="router")


def test_tables_are_sealed_and_an_edit_in_them_is_found(tmp_path: Path) -> None:
    path = tmp_path / "model.masks"
    path.write_bytes(bundle.TABLES_MAGIC + bytes(range(256)) * 8_192)  # longer than one reading
    digest = bundle.seal(tmp_path, kind="router")
    assert "model.masks" in bundle.verify(tmp_path, digest).files
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(FileMismatchError, match=r"model\.masks"):
        bundle.verify(tmp_path, digest)


def test_text_that_is_cut_by_the_read_buffer_is_still_text(tmp_path: Path) -> None:
    folder = write(tmp_path / "router", {"model.txt": b"x" + "ü".encode() * (1 << 20)})
    assert bundle.verify(folder, bundle.seal(folder, kind="router"))


def test_links_folders_and_special_files_are_refused_unopened(sealed: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = sealed
    (tmp_path / "card.json").write_bytes(FILES["card.json"])
    (folder / "card.json").unlink()
    (folder / "card.json").symlink_to(tmp_path / "card.json")
    with pytest.raises(ForeignFileError, match="symbolic link"):
        bundle.verify(folder, digest)
    (folder / "card.json").unlink()
    (folder / "card.json").mkdir()
    with pytest.raises(ForeignFileError, match="a folder"):
        bundle.verify(folder, digest)
    (folder / "card.json").rmdir()
    os.mkfifo(folder / "card.json")
    with pytest.raises(ForeignFileError, match="special"):
        bundle.verify(folder, digest)


def test_a_link_that_takes_a_files_place_after_the_look_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_bytes(b"tree")
    (tmp_path / "model.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(OSError, match="symbolic links"):
        bundle._hash_file(tmp_path / "model.txt", Limits())


def test_a_linked_and_an_absent_folder_are_refused(sealed: tuple[Path, str], tmp_path: Path) -> None:
    folder, digest = sealed
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", tmp_path / "absent"):
        with pytest.raises(ForeignFileError, match="expected a folder"):
            bundle.verify(path, digest)


@pytest.mark.parametrize("name", ["../card.json", "/etc/passwd.txt", "a/b.json", "..", MANIFEST_FILE, "card.json\n"])
def test_a_forged_manifest_cannot_reach_outside_its_folder(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "router", {"card.json": b"{}"})
    sha256 = hashlib.sha256(b"{}").hexdigest()
    digest = forge(folder, {"files": {name: sha256}, "kind": "router", "pins": {}, "schema": 1})
    with pytest.raises(BundleError):
        bundle.verify(folder, digest)


@pytest.mark.parametrize(
    "manifest",
    [
        {"files": {}, "kind": "router", "pins": {}, "schema": 1},
        {"files": {"card.json": "0"}, "kind": "router", "pins": {}, "schema": 1},
        {"files": {"card.json": "0" * 64}, "kind": "router", "pins": {}, "schema": 2},
        {"files": {"card.json": "0" * 64}, "kind": "router", "pins": {}, "schema": 1, "z": 1},
        {"files": {"card.json": "0" * 64}, "kind": "router", "pins": {"a": "x"}, "schema": 1},
    ],
)
def test_a_malformed_manifest_is_refused_though_its_digest_is_right(
    tmp_path: Path, manifest: dict[str, object]
) -> None:
    folder = write(tmp_path / "router", {"card.json": b"{}"})
    with pytest.raises(ManifestError):
        bundle.verify(folder, forge(folder, manifest))


def test_a_manifest_with_a_file_given_twice_is_refused(sealed: tuple[Path, str]) -> None:
    folder, _ = sealed
    data = (folder / MANIFEST_FILE).read_bytes().replace(b'"files":{', b'"files":{"card.json":"' + b"0" * 64 + b'",')
    (folder / MANIFEST_FILE).write_bytes(data)
    with pytest.raises(ManifestError, match="canonical"):
        bundle.verify(folder, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    ("kind", "pins"), [("Router", {}), ("", {}), ("router", {"a": "short"}), ("router", {"A/b": PIN})]
)
def test_a_malformed_kind_or_pin_is_not_sealed(tmp_path: Path, kind: str, pins: dict[str, str]) -> None:
    folder = write(tmp_path / "router")
    with pytest.raises(ManifestError):
        bundle.seal(folder, kind=kind, pins=pins)
    assert not (folder / MANIFEST_FILE).exists()


def test_an_empty_folder_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    with pytest.raises(MissingFileError, match="at least one file"):
        bundle.seal(tmp_path / "router", kind="router")


@pytest.mark.parametrize(
    ("limits", "what"),
    [
        (Limits(max_file_bytes=15), "at most 15 bytes"),
        (Limits(max_total_bytes=30), "at most 30 bytes"),
        (Limits(max_files=1), "at most 1 files"),
    ],
)
def test_what_is_too_large_is_refused(tmp_path: Path, limits: Limits, what: str) -> None:
    with pytest.raises(TooLargeError, match=what):
        bundle.seal(write(tmp_path / "router"), kind="router", limits=limits)
