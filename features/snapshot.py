"""Snapshots: the warehouse as Parquet files under a manifest of digests, for readers beside its one writer."""

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from features import clock, warehouse
from features.warehouse import DamagedWarehouseError, Session, Warehouse

MANIFEST = "manifest.json"
_NAME = "%Y%m%dT%H%M%S.%fZ"


class Manifest(Struct, frozen=True, kw_only=True):
    """When a snapshot was taken, of which schema, and the SHA-256 of each of its files by name."""

    taken_at: datetime
    schema: int
    files: dict[str, str]


class Snapshot:
    """A snapshot in its folder; goes wherever `features.history` takes a source."""

    def __init__(self, folder: Path) -> None:
        """Read the manifest.

        Raises
        ------
        DamagedWarehouseError
            If there is none, or not one of this release.
        """
        self.folder = folder
        try:
            self.manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
        except (OSError, msgspec.MsgspecError) as error:
            raise DamagedWarehouseError(f"{folder} is no snapshot: {error}") from error
        if self.manifest.schema != warehouse.SCHEMA_VERSION:
            found = self.manifest.schema
            raise DamagedWarehouseError(f"{folder}: schema must be {warehouse.SCHEMA_VERSION}, found {found}")

    def transaction(self) -> AbstractContextManager[Session]:
        """Give a session over the snapshot's tables."""
        return warehouse.exported(self.folder)

    def verify(self) -> None:
        """Compare every file with its digest.

        Raises
        ------
        DamagedWarehouseError
            Naming the file that is missing or not what was written.
        """
        for name, digest in self.manifest.files.items():
            path = self.folder / name
            if not path.is_file() or _digest(path) != digest:
                raise DamagedWarehouseError(f"{path} is not the file that the manifest names")


def write(source: Warehouse, folder: Path, *, now: datetime, keep: int = 3) -> Snapshot:
    """Write a snapshot of ``source`` under ``folder``, visible only when whole; of the older ones ``keep - 1`` stay."""
    name = clock.utc(now).strftime(_NAME)
    partial = folder / f".{name}.{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        with source.transaction() as session:
            session.export(partial)
        files = {path.name: _digest(path) for path in sorted(partial.iterdir())}
        manifest = Manifest(taken_at=clock.utc(now), schema=warehouse.SCHEMA_VERSION, files=files)
        (partial / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        for path in partial.iterdir():
            _sync(path)
        final = _unused(folder, name)
        partial.rename(final)
        _sync(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for old in sorted(_finished(folder))[:-keep]:
        shutil.rmtree(old)
    return Snapshot(final)


def latest(folder: Path) -> Snapshot | None:
    """Return the newest snapshot under ``folder``, or None."""
    newest = max(_finished(folder), default=None)
    return Snapshot(newest) if newest else None


def restore(snapshot: Snapshot, target: Warehouse) -> None:
    """Fill ``target``, whose file must not exist yet, from a verified snapshot: offsets too, so that ingest goes on.

    Raises
    ------
    DamagedWarehouseError
        If the snapshot is not what was written.
    FileExistsError
        If there is a warehouse already.
    """
    snapshot.verify()
    if target.path.exists():
        raise FileExistsError(f"{target.path} is there already: a snapshot restores into a new file")
    with target.transaction() as session:
        session.load(snapshot.folder)


def _unused(folder: Path, name: str) -> Path:
    """Return the first place that is free: a replayed clock may tell the same instant twice."""
    return next(place for n in itertools.count() if not (place := folder / f"{name}-{n:04d}").exists())


def _finished(folder: Path) -> Iterator[Path]:
    """Names sort by time: every instant is written with the same digits."""
    return (path.parent for path in folder.glob(f"[0-9]*/{MANIFEST}"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
