"""The shim's hand on the spool: appends records, knows where each one lies, reads it back, and recovers from a failing disk."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

from features import spool
from features.spool import SpoolWriter

_OFFSET_BITS = 40  # a place is the segment's index above, the line's offset below
_OFFSET_MASK = (1 << _OFFSET_BITS) - 1
_LINE_OVERHEAD = len(spool.encode_line(b""))


class Recorder:
    """Appends to the spool of one process and gives every line a place, by which it can be read again.

    ``failure`` says what the disk last refused; it is None again after the next append that succeeds.
    """

    failure: str | None = None
    n_refused: int = 0

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str = "shim",
        segment_bytes: int = spool.DEFAULT_SEGMENT_BYTES,
        fsync: bool = False,
    ) -> None:
        """Open ``folder``, which need not exist, and note its segments; nothing is written before the first append."""
        self._folder = folder
        self._prefix = prefix
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        self._paths = spool.segments(folder)
        self._writer: SpoolWriter | None = None
        self._size = 0

    def append(self, *payloads: bytes) -> list[int]:
        """Append ``payloads`` in one write and return their places.

        Raises
        ------
        OSError
            If the disk refuses: none of them counts as accepted. The next append begins a segment of its own, so that
            a torn line spoils nothing after it.
        """
        lines = [len(payload) + _LINE_OVERHEAD for payload in payloads]
        try:
            writer = self._open_writer(sum(lines))
            writer.append(*payloads)
        except OSError as error:
            self.failure = error.strerror or str(error)
            self.n_refused += len(payloads)
            self._abandon()
            raise
        self.failure = None
        base = len(self._paths) - 1 << _OFFSET_BITS
        places = [base | offset for offset in accumulate(lines[:-1], initial=self._size)]
        self._size += sum(lines)
        return places

    def read(self, place: int) -> bytes | None:
        """Return the payload at ``place``, None where the segment is gone or the line damaged."""
        path = self._paths[place >> _OFFSET_BITS]
        try:
            line = next(spool.read_lines(path, start=place & _OFFSET_MASK), None)
        except OSError:
            return None
        return line.payload if line else None

    def recent(self, max_bytes: int) -> Iterator[tuple[int, bytes]]:
        """Yield (place, payload) of the sound lines of the newest segments, at least the last ``max_bytes``, oldest line first."""
        first = len(self._paths)
        while first and max_bytes > 0:
            first -= 1
            max_bytes -= _size(self._paths[first])
        for index in range(first, len(self._paths)):
            start = 0
            try:
                for line in spool.read_lines(self._paths[index]):
                    if line.payload is not None:
                        yield index << _OFFSET_BITS | start, line.payload
                    start = line.end
            except OSError:
                continue  # ingest may tidy a segment away while we read

    def close(self) -> None:
        """Close the open segment."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open_writer(self, n_bytes: int) -> SpoolWriter:
        """Return the writer, of a fresh segment where this one has no room: segments turn here, where places are counted."""
        if self._writer is not None and self._size and self._size + n_bytes > self._segment_bytes:
            self.close()
        if self._writer is None:
            unbounded = 1 << _OFFSET_BITS
            self._writer = SpoolWriter(self._folder, prefix=self._prefix, segment_bytes=unbounded, fsync=self._fsync)
            self._paths.append(max(self._folder.glob(f"{self._prefix}-*{spool.SUFFIX}"), key=lambda path: path.name))
            self._size = 0
        return self._writer

    def _abandon(self) -> None:
        if self._writer is None:
            return
        self.close()
        if not self._paths[-1].stat().st_size:
            self._paths.pop().unlink()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
