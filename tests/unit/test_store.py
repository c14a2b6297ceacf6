"""The release store: whole or not there, put twice equals once, read-only, and never what was not approved."""

import threading
from pathlib import Path

import pytest

from models.releases import bundle
from models.releases.bundle import BundleError, FileMismatchError, ForeignFileError, ManifestError
from models.releases.store import FAILPOINTS, AbsentReleaseError, Store


class DiedError(Exception):
    """Stands for a crash at a failpoint."""


def seal(folder: Path, text: str = "tree") -> str:
    folder.mkdir()
    (folder / "model.txt").write_text(text)
    return bundle.seal(folder, kind="router")


def test_what_was_put_is_found_under_its_digest_whole_and_read_only(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    store = Store(tmp_path / "deep" / "store")
    assert store.digests() == ()
    assert store.put(tmp_path / "router", digest=digest) == digest
    assert store.path(digest) == tmp_path / "deep" / "store" / digest
    assert (store.path(digest) / "model.txt").read_text() == "tree"
    assert store.verify(digest).kind == "router"
    assert store.digests() == (digest,)
    assert store.path(digest).stat().st_mode & 0o777 == 0o555
    assert {path.stat().st_mode & 0o777 for path in store.path(digest).iterdir()} == {0o444}


def test_putting_twice_equals_once(tmp_path: Path) -> None:
    seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    assert store.put(tmp_path / "router") == store.put(tmp_path / "router")
    assert len(store.digests()) == 1
    assert store.sweep() == ()


def test_other_bytes_than_the_approved_ones_are_refused(tmp_path: Path) -> None:
    approved, _ = seal(tmp_path / "router"), seal(tmp_path / "other", "eert")
    store = Store(tmp_path / "store")
    with pytest.raises(ManifestError):
        store.put(tmp_path / "other", digest=approved)
    (tmp_path / "router" / "model.txt").write_text("eert")
    with pytest.raises(FileMismatchError):
        store.put(tmp_path / "router", digest=approved)
    assert store.digests() == ()


def test_bytes_that_change_while_they_are_copied_are_refused(tmp_path: Path) -> None:
    seal(tmp_path / "router")

    def swap(point: str) -> None:
        if point == "put:opened":
            (tmp_path / "router" / "model.txt").write_text("eert")

    store = Store(tmp_path / "store", failpoint=swap)
    with pytest.raises(FileMismatchError):
        store.put(tmp_path / "router")
    assert store.digests() == ()
    assert store.sweep() == ()


def test_a_link_that_takes_a_files_place_meanwhile_is_not_followed(tmp_path: Path) -> None:
    seal(tmp_path / "router")
    (tmp_path / "secret.txt").write_text("tree")

    def swap(point: str) -> None:
        if point == "put:opened":
            (tmp_path / "router" / "model.txt").unlink()
            (tmp_path / "router" / "model.txt").symlink_to(tmp_path / "secret.txt")

    with pytest.raises(OSError, match="symbolic links"):
        Store(tmp_path / "store", failpoint=swap).put(tmp_path / "router")


@pytest.mark.parametrize("point", FAILPOINTS)
def test_a_put_that_fails_anywhere_leaves_the_release_whole_or_not_there(tmp_path: Path, point: str) -> None:
    digest = seal(tmp_path / "router")
    seen: list[str] = []

    def die(at: str) -> None:
        seen.append(at)
        if at == point:
            raise DiedError

    with pytest.raises(DiedError):
        Store(tmp_path / "store", failpoint=die).put(tmp_path / "router")
    store = Store(tmp_path / "store")
    assert store.digests() == ((digest,) if point == "put:renamed" else ())
    assert tuple(seen) == FAILPOINTS[: FAILPOINTS.index(point) + 1]
    assert store.put(tmp_path / "router") == digest
    assert store.verify(digest).kind == "router"
    assert [path.name for path in (tmp_path / "store").iterdir() if path.name.startswith(".put")] == []


def test_a_put_that_lost_the_race_is_content_with_the_winners_copy(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")

    def overtake(point: str) -> None:
        if point == "put:sealed":
            Store(tmp_path / "store").put(tmp_path / "router")

    assert Store(tmp_path / "store", failpoint=overtake).put(tmp_path / "router") == digest
    assert Store(tmp_path / "store").verify(digest)
    assert Store(tmp_path / "store").sweep() == ()


def test_a_stranger_in_a_releases_place_is_not_taken_for_a_rival(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")

    def obstruct(point: str) -> None:
        if point == "put:sealed":
            (tmp_path / "store" / digest).write_text("in the way")

    with pytest.raises(NotADirectoryError):
        Store(tmp_path / "store", failpoint=obstruct).put(tmp_path / "router")
    assert Store(tmp_path / "store").sweep() == ()


def test_many_concurrent_puts_leave_one_whole_release(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    answers: list[str] = []
    store = Store(tmp_path / "store")
    threads = [threading.Thread(target=lambda: answers.append(store.put(tmp_path / "router"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [digest] * 8
    assert store.verify(digest)
    assert {path.name for path in (tmp_path / "store").iterdir()} == {digest, ".lock"}


@pytest.mark.parametrize("digest", ["", "..", "../store", "0" * 63, "0" * 64, "G" * 64, "0" * 64 + "\n"])
def test_what_the_store_does_not_hold_is_said_to_be_absent(tmp_path: Path, digest: str) -> None:
    seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    store.put(tmp_path / "router")
    for ask in (store.path, store.verify):
        with pytest.raises(AbsentReleaseError):
            ask(digest)


def test_a_damaged_release_is_refused_and_says_so_when_put_again(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    file = store.path(store.put(tmp_path / "router")) / "model.txt"
    file.chmod(0o644)
    file.write_text("eert")
    with pytest.raises(FileMismatchError):
        store.verify(digest)
    with pytest.raises(FileMismatchError):
        store.put(tmp_path / "router")


def test_a_manifest_is_read_without_the_other_files_and_must_be_the_one_that_is_named(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    folder = store.path(store.put(tmp_path / "router"))
    whole = store.verify(digest)
    (folder / "model.txt").chmod(0o644)
    (folder / "model.txt").write_text("eert")
    assert store.manifest(digest) == whole
    (folder / bundle.MANIFEST_FILE).chmod(0o644)
    (folder / bundle.MANIFEST_FILE).write_text("{}")
    with pytest.raises(ManifestError):
        store.manifest(digest)
    with pytest.raises(AbsentReleaseError):
        store.manifest("0" * 64)


def test_a_foreign_file_in_a_release_is_refused(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    folder = store.path(store.put(tmp_path / "router"))
    folder.chmod(0o755)
    (folder / "model.pkl").write_bytes(b"x")
    with pytest.raises(ForeignFileError):
        store.verify(digest)


def test_a_sweep_removes_leftovers_even_read_only_ones_and_no_release(tmp_path: Path) -> None:
    seal(tmp_path / "router")
    store = Store(tmp_path / "store")
    assert store.sweep() == ()
    digest = store.put(tmp_path / "router")
    leftover = tmp_path / "store" / ".put-dead"
    leftover.mkdir()
    (leftover / "model.txt").write_text("tr")
    leftover.chmod(0o555)
    assert store.sweep() == (".put-dead",)
    assert store.digests() == (digest,)


def test_a_sweep_waits_for_a_put_under_way(tmp_path: Path) -> None:
    digest = seal(tmp_path / "router")
    swept: list[tuple[str, ...]] = []
    sweeper = threading.Thread(target=lambda: swept.append(Store(tmp_path / "store").sweep()))

    def sweep_meanwhile(point: str) -> None:
        if point == "put:copied":
            sweeper.start()
            sweeper.join(0.05)
            assert swept == []

    assert Store(tmp_path / "store", failpoint=sweep_meanwhile).put(tmp_path / "router") == digest
    sweeper.join()
    assert swept == [()]
    assert Store(tmp_path / "store").verify(digest)


def test_a_folder_that_is_no_bundle_is_not_put(tmp_path: Path) -> None:
    (tmp_path / "router").mkdir()
    (tmp_path / "router" / "model.txt").write_text("tree")
    with pytest.raises(BundleError, match="never sealed"):
        Store(tmp_path / "store").put(tmp_path / "router")
    assert not (tmp_path / "store").exists()
