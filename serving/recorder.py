"""The shim's hand on the spool: appends records, knows where each one lies, reads it back, and recovers from a failing disk."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from features import spool
from features.spool import SpoolWriter
from serving import held

_OFFSET_BITS = 40  # a place is the segment's index above, the line's offset below
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_UNBOUNDED = 1 << _OFFSET_BITS
_MAX_MOVED = 100_000
_MAX_HELD_BYTES = 8 * 1024 * 1024


class Recorder:
    """Appends to the spool of one process and gives every line a place, by which it can be read again.

    While ``holding``, lines are held until `flush` writes them all in one write; else each append is a write of its own.
    ``failure`` says what the disk last refused; it is None again after the next write that succeeds. ``n_refused`` counts
    the records that were not accepted, ``n_shed`` those that were accepted and then lost, which only a caller brings about
    who answers before the flush.
    """

    failure: str | None = None
    n_refused: int = 0
    n_shed: int = 0
    holding: bool = False

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str = "shim",
        segment_bytes: int = spool.DEFAULT_SEGMENT_BYTES,
        max_held_bytes: int = _MAX_HELD_BYTES,
        fsync: bool = False,
    ) -> None:
        """Open ``folder``, which need not exist, and note its segments; nothing is written before the first append."""
        self._folder = folder
        self._prefix = prefix
        self._segment_bytes = segment_bytes
        self._max_held_bytes = max_held_bytes
        self._fsync = fsync
        self._paths = spool.segments(folder)
        self._writer: SpoolWriter | None = None
        self._index = -1  # of the open segment
        self._size = 0  # of what is written of it
        self.held = held.none_yet()
        self._moved: dict[int, int] = {}  # places of lines that a failing disk sent elsewhere
        self._ends: dict[int, int] = {}  # per segment that failed, the offset up to which it was accepted
        # Of each segment that was there: its index, and the offset up to which it is no news.
        self._followed = {path: (index, _size(path)) for index, path in enumerate(self._paths)}

    @property
    def n_held(self) -> int:
        """How many records wait for `flush`."""
        return len(self.held)

    def append(self, *payloads: bytes) -> list[int]:
        """Append ``payloads`` in one write, or hold them for the next one, and return their places.

        Raises
        ------
        OSError
            If the disk refuses, or (while holding) has refused so long that no more can be held: none of these payloads
            counts as accepted, whatever was held before stays held. A refused write ends its segment, so that a torn line
            spoils nothing after it.
        """
        return self.append_lines([spool.encode_line(payload) for payload in payloads])

    def append_lines(self, lines: Sequence[bytes]) -> list[int]:
        """Append payloads that are whole lines already, as `append` does."""
        n_before = len(self.held)
        try:
            self._make_room(sum(map(len, lines)))
            places = [self.held.append(line) for line in lines]
            if not self.holding or self.held.n_bytes() > self._max_held_bytes:
                self._write()
        except OSError as error:
            self._refuse(error, len(lines))
            self.held.cut(n_before)
            raise
        return places

    def prepare(self) -> None:
        """Let lines be held by one who does not ask for each whether a segment is open and has room: the fast path.

        Raises
        ------
        OSError
            If the disk refuses a segment.
        """
        if not self.held.room():
            self._make_room(1)

    def flush(self, *, keep: bool = False) -> None:
        """Write what is held.

        Raises
        ------
        OSError
            If the disk refuses twice, the second time in a fresh segment. Nothing of it counts as accepted, unless
            ``keep`` asks for holding it until the disk gives in.
        """
        if not self.held:
            return
        try:
            self._write()
        except OSError as error:
            if keep:
                self.failure = error.strerror or str(error)
            else:
                self._refuse(error, len(self.held))
                self.held.cut(0)
            raise

    def read(self, place: int) -> bytes | None:
        """Return the payload at ``place``, None where the segment is gone, the line damaged or never accepted."""
        line = self.held.read(place)
        if line is not None:
            return spool.decode_line(line[:-1])
        place = self._moved.get(place, place)
        index, offset = place >> _OFFSET_BITS, place & _OFFSET_MASK
        if index >= len(self._paths) or offset >= self._ends.get(index, _UNBOUNDED):
            return None
        try:
            found = next(spool.read_lines(self._paths[index], start=offset), None)
        except OSError:
            return None
        return found.payload if found else None

    def recent(self, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Yield (place, payload) of the sound lines of the newest segments, at least the last ``max_bytes``, oldest line first."""
        first = len(self._paths)
        while first and max_bytes > 0:
            first -= 1
            max_bytes -= _size(self._paths[first])
        for index in range(first, len(self._paths)):
            yield from self._follow(index, 0)

    def news(self) -> Iterator[tuple[int, bytes]]:
        """Yield (place, payload) of what other writers have appended to the folder since `recent` or `news` was last read."""
        for path in spool.segments(self._folder):
            if path.name.startswith(f"{self._prefix}-"):
                continue
            if path not in self._followed:
                self._paths.append(path)
                self._followed[path] = len(self._paths) - 1, 0
            index, start = self._followed[path]
            if _size(path) > start:
                yield from self._follow(index, start)

    def close(self) -> None:
        """Write what is held, as far as the disk takes it, and close the open segment."""
        try:
            self.flush()
        except OSError:
            self.n_shed += 1
        self._close_writer()

    def _follow(self, index: int, start: int) -> Iterator[tuple[int, bytes]]:
        path = self._paths[index]
        try:
            for line in spool.read_lines(path, start=start):
                if line.payload is not None:
                    yield index << _OFFSET_BITS | start, line.payload
                start = line.end
        except OSError:
            pass  # ingest may tidy a segment away while we read
        self._followed[path] = index, start

    def _make_room(self, n_bytes: int) -> None:
        """See that a segment is open for so many bytes more; segments turn here alone, where nothing has a place in the old one."""
        if self._writer is not None and not self.held and self._size and self._size + n_bytes > self._segment_bytes:
            self._close_writer()
        if self._writer is None:
            self._open_writer()

    def _settle(self) -> None:
        """Tell where the next line will lie, and for how many there is room: none where a segment is to be opened first.

        A segment may end above its size by what is held: a batch that is cut off by its end would be decided twice.
        """
        is_open = self._writer is not None and self._size < self._segment_bytes
        room = self._max_held_bytes if is_open else 0
        self.held.settle(self._index << _OFFSET_BITS | self._size, room)

    def _write(self) -> None:
        """Write all that is held, and again into a fresh segment where the disk refuses: whatever it then holds is in doubt."""
        lines = self.held.joined()
        try:
            self._append(lines)
        except OSError as error:
            self.failure = error.strerror or str(error)
            self._append(lines)
        self.failure = None
        self.held.cut(0)
        self._settle()

    def _append(self, lines: bytes) -> None:
        if self._writer is None:
            self._open_writer()
        assert self._writer is not None  # noqa: S101 - just opened
        base = self._index << _OFFSET_BITS | self._size
        try:
            self._writer.append_lines(lines)
        except OSError:
            self._abandon()
            raise
        self._size += len(lines)
        self._move(base)

    def _move(self, at: int) -> None:
        """Note where what is held has come to lie, if not where it was told to."""
        moved = self.held.items() if self.held.first() != at else ()
        if moved and len(self._moved) > _MAX_MOVED:
            self._moved.clear()  # forgotten, and decided anew if asked again
        for place, size in moved:
            self._moved[place] = at
            at += size

    def _open_writer(self) -> None:
        self._writer = SpoolWriter(self._folder, prefix=self._prefix, segment_bytes=_UNBOUNDED, fsync=self._fsync)
        self._paths.append(self._writer.path)
        self._index, self._size = len(self._paths) - 1, 0
        self._settle()

    def _close_writer(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
            self._settle()

    def _abandon(self) -> None:
        if self._writer is None:
            return
        self._close_writer()
        self._ends[self._index] = self._size
        if self._index == len(self._paths) - 1 and not _size(self._paths[-1]):
            self._paths.pop().unlink(missing_ok=True)
            del self._ends[self._index]

    def _refuse(self, error: OSError, n_records: int) -> None:
        self.failure = error.strerror or str(error)
        self.n_refused += n_records


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
