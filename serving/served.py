"""What a shim must not forget of the releases it served: the highest generation, what each stream stood on, what it condemned."""

import os
from pathlib import Path

import msgspec
from msgspec import Struct

from models.releases.entry import Entry, StreamRelease


class Standing(Struct, frozen=True, kw_only=True):
    """What a stream is served as: the generation and release that were accepted for it, the champion before, the classifier."""

    generation: int
    release: StreamRelease
    previous: str | None = None
    classifier: str | None = None


class Served(Struct, frozen=True, kw_only=True):
    """The highest generation that was served, its hash and its entry, and what came of it.

    ``condemned`` maps the digests that raised too often to what they raised.
    """

    generation: int = 0
    head: str = ""
    entry: Entry | None = None
    streams: dict[str, Standing] = {}
    models: dict[str, str] = {}
    condemned: dict[str, str] = {}

    def digests(self) -> set[str]:
        """Return every digest that is served, or would be if its successor fell."""
        found = set(self.models.values())
        for standing in self.streams.values():
            release = standing.release
            others = (standing.previous, standing.classifier)
            found.update(filter(None, (release.champion, release.canary, release.shadow, *others)))
        return found


class UnreadableStateError(ValueError):
    """A state file that holds something else."""


def read(path: Path) -> Served:
    """Return what was served last; nothing, where there is no file.

    Raises
    ------
    UnreadableStateError
        If the file cannot be read.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=Served)
    except FileNotFoundError:
        return Served()
    except (OSError, msgspec.MsgspecError) as error:
        raise UnreadableStateError(f"{path.name} cannot be read: {error}") from None


def write(path: Path, served: Served) -> None:
    """Replace the file as a whole: a crash leaves the old one or the new one.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(served))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
