"""What each router used beyond its limits so far: the small state by which a shim paces prices, bounded, kept over a restart."""

import time
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SAVE_SECONDS = 1.0  # how much of it a crash may lose
MAX_ROUTERS = 8  # of a stream, those that decided last: more are not served at once


class _Kept(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file: by stream and digest, the debt in each limited resource, in the order of the router's prices."""

    debts: dict[str, dict[str, tuple[float, ...]]] = {}


class Debts:
    """The debts of one shim process, by stream and digest.

    Each router owes for what it decided itself: a canary does not pay for its champion. Several processes each keep their
    own file and pace their own part of the events; where every part is at the limit, so is the whole.

    ``failure`` says why the file could not be read or written; the debts are in force all the same.
    """

    failure: str | None = None

    def __init__(self, path: Path | None = None) -> None:
        """Begin with what is in ``path``, which need not exist; without one, nothing is kept."""
        self._path = path
        self._by_stream: dict[str, dict[str, Floats]] = {}
        self._saved_at = time.monotonic()
        self._unsaved = False
        if path is not None:
            self._read(path)

    def of(self, stream: str) -> Mapping[str, Floats]:
        """Return the debts of ``stream`` by digest."""
        return self._by_stream.get(stream, {})

    def set(self, stream: str, digest: str, debt: Floats) -> None:
        """Note what ``digest`` owes now; it is written within `SAVE_SECONDS` of use, and when the shim ends."""
        self.held(stream, digest, len(debt))[:] = debt
        self.note()

    def held(self, stream: str, digest: str, n_resources: int) -> Floats:
        """Return what ``digest`` owes, float64[n_resources], to be changed in place; nothing yet where it is not so many numbers."""
        debts = self._by_stream.setdefault(stream, {})
        debt = debts.pop(digest, None)  # so that the first is the one that was asked for longest ago
        debts[digest] = debt if debt is not None and debt.shape == (n_resources,) else np.zeros(n_resources)
        if len(debts) > MAX_ROUTERS:
            del debts[next(iter(debts))]
        return debts[digest]

    def note(self) -> None:
        """Hear that debts have changed: the file is replaced where that is due."""
        self._unsaved = True
        if self._path is not None and time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()

    def snapshot(self) -> dict[str, dict[str, Floats]]:
        """Return a copy for `restore`."""
        return {
            stream: {digest: debt.copy() for digest, debt in debts.items()} for stream, debts in self._by_stream.items()
        }

    def restore(self, snapshot: dict[str, dict[str, Floats]]) -> None:
        """Return to a `snapshot`: what came after it was not decided after all."""
        for stream, debts in self._by_stream.items():
            then = snapshot.get(stream, {})
            for digest, debt in debts.items():
                if digest not in then:
                    debt[:] = 0.0  # whoever holds it goes on with it
                elif then[digest].shape == debt.shape:
                    debt[:] = then[digest]
        self._unsaved = True

    def save(self) -> None:
        """Replace the file as a whole, if there is news: a crash leaves the old one or the new one."""
        self._saved_at = time.monotonic()
        if self._path is None or not self._unsaved:
            return
        kept = {
            stream: {digest: tuple(debt.tolist()) for digest, debt in debts.items()}
            for stream, debts in self._by_stream.items()
        }
        temporary = self._path.with_suffix(".tmp")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(msgspec.json.encode(_Kept(debts=kept)))
            temporary.replace(self._path)
        except OSError as error:
            self.failure = f"{self._path.name} cannot be written: {error.strerror}"
            return
        self.failure, self._unsaved = None, False

    def _read(self, path: Path) -> None:
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return
        except (OSError, msgspec.MsgspecError) as error:
            self.failure = f"{path.name} cannot be read, so nothing is owed: {error}"
            return
        self._by_stream = {
            stream: {digest: np.array(debt) for digest, debt in debts.items()} for stream, debts in kept.debts.items()
        }
