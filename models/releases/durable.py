"""Writing so that what was acknowledged outlives a power cut, and excluding other processes while doing so."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

Failpoint = Callable[[str], None]

READ_ONLY_FILE = 0o444
READ_ONLY_FOLDER = 0o555
_LOCK_FILE = ".lock"


def pass_by(point: str) -> None:
    """Do nothing at ``point``: the failpoint of everyone but a test that dies there."""


def write(path: Path, data: bytes) -> None:
    """Write a new read-only file and sync it.

    Raises
    ------
    OSError
        If it exists, or the disk refuses; a part may then have been written.
    """
    with path.open("xb") as file:
        file.write(data)
        _finish(file.fileno(), file.flush)


def copy(source: Path, target: Path) -> None:
    """Copy ``source``, which must not be a symbolic link, to the new read-only file ``target`` and sync it."""
    descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as read, target.open("xb") as written:
        shutil.copyfileobj(read, written)
        _finish(written.fileno(), written.flush)


def sync_folder(folder: Path) -> None:
    """Sync the names in ``folder``: a file that was created, linked or renamed there stays after a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make ``folder`` and its parents unless they are there, and sync the names that were made."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        sync_folder(path.parent)


@contextlib.contextmanager
def lock(folder: Path, *, exclusive: bool) -> Iterator[None]:
    """Hold ``folder``'s lock, alone or with other sharers; waits for it. The system frees it when the process dies."""
    descriptor = os.open(folder / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def seize(path: Path) -> int | None:
    """Take the lock file at ``path`` and return its descriptor, which holds it until it is closed or the process dies.

    None where somebody else holds it: nothing is waited for.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o664)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def _finish(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fchmod(descriptor, READ_ONLY_FILE)
    os.fsync(descriptor)
