"""Lines of the spool that wait to be written, each with the place it will have; in one piece of memory where C was built."""

from typing import Protocol

try:
    from serving import _fast_path
except ImportError:  # no compiler at the installation
    _fast_path = None  # type: ignore[assignment]  # looked at before its use


class Held(Protocol):
    """Held lines, in the order they came; a place is where a line begins."""

    def __len__(self) -> int: ...

    def append(self, line: bytes, /) -> int:
        """Hold a line and return its place."""

    def read(self, place: int, /) -> bytes | None:
        """Return the line at a place, None where none begins there."""

    def joined(self) -> bytes:
        """Return all lines as they are to be written."""

    def items(self) -> list[tuple[int, int]]:
        """Return place and size of every line."""

    def cut(self, n: int, /) -> None:
        """Forget all lines but the first ``n``."""

    def settle(self, place: int, room: int, /) -> None:
        """Tell where the first line will lie, if none is held, and how many bytes may be held without asking."""

    def first(self) -> int:
        """Return the place of the first line, held or to come."""

    def n_bytes(self) -> int:
        """Return how many bytes are held."""

    def room(self) -> int:
        """Return how many bytes may be held in all by one who does not turn segments: the fast path."""


def none_yet() -> Held:
    """Return what holds no line yet."""
    return HeldLines() if _fast_path is None else _fast_path.HeldLines()


class HeldLines:
    """Held lines in Python."""

    def __init__(self) -> None:
        """Hold none."""
        self._lines: dict[int, bytes] = {}  # by their place
        self._place = self._n_bytes = self._room = 0

    def __len__(self) -> int:
        return len(self._lines)

    def append(self, line: bytes, /) -> int:
        """Hold a line and return its place."""
        place = self._place + self._n_bytes
        self._lines[place] = line
        self._n_bytes += len(line)
        return place

    def read(self, place: int, /) -> bytes | None:
        """Return the line at a place, None where none begins there."""
        return self._lines.get(place)

    def joined(self) -> bytes:
        """Return all lines as they are to be written."""
        return b"".join(self._lines.values())

    def items(self) -> list[tuple[int, int]]:
        """Return place and size of every line."""
        return [(place, len(line)) for place, line in self._lines.items()]

    def cut(self, n: int, /) -> None:
        """Forget all lines but the first ``n``."""
        while len(self._lines) > n:
            _, line = self._lines.popitem()
            self._n_bytes -= len(line)

    def settle(self, place: int, room: int, /) -> None:
        """Tell where the first line will lie, if none is held, and how many bytes may be held without asking."""
        if not self._lines:
            self._place = place
        self._room = max(room, 0)

    def first(self) -> int:
        """Return the place of the first line, held or to come."""
        return self._place

    def n_bytes(self) -> int:
        """Return how many bytes are held."""
        return self._n_bytes

    def room(self) -> int:
        """Return how many bytes may be held in all by one who does not turn segments: the fast path."""
        return self._room
