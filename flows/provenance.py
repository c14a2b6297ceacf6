"""From what a candidate was made: digests of the data and of the code, for the reviewer who wants to make it again."""

import hashlib
from functools import cache
from pathlib import Path

from features import snapshot
from flows.wiring import Wiring

_PACKAGES = ("features", "models", "validation", "flows")


def data(wired: Wiring) -> dict[str, str]:
    """Return when the latest snapshot was taken and the SHA-256 of its manifest, which names that of every file."""
    taken = snapshot.latest(wired.settings.snapshot_path)
    if taken is None:
        return {}
    manifest = (taken.folder / snapshot.MANIFEST).read_bytes()
    return {
        "snapshot_taken_at": taken.manifest.taken_at.isoformat(),
        "snapshot_sha256": hashlib.sha256(manifest).hexdigest(),
    }


@cache
def code() -> str:
    """Return the SHA-256 of all of the pipeline's own source: names and bytes, in order."""
    root, hasher = Path(__file__).parents[1], hashlib.sha256()
    for path in sorted(
        path for package in _PACKAGES for path in (root / package).rglob("*") if path.suffix in (".py", ".sql")
    ):
        hasher.update(f"{path.relative_to(root)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return hasher.hexdigest()
