"""The spool: records appended to segment files, one checksummed line each, so that what was accepted outlives the process.

A line is eight hexadecimal digits of CRC-32 over the payload, a space, the payload (one line of JSON), a newline.
"""

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SUFFIX = ".spool"
DEFAULT_SEGMENT_BYTES = 64 * 1024 * 1024


class SpoolLine(NamedTuple):
    """One line of a segment: ``payload`` is None where the checksum does not hold, ``end`` the offset after it."""

    raw: bytes
    payload: bytes | None
    end: int


class SpoolWriter:
    """Appends lines to the segments of one process.

    ``append`` hands the bytes to the operating system before it returns: they outlive ``kill -9``. With ``fsync`` they
    outlive a power cut as well. ``path`` is the open segment.
    """

    path: Path

    def __init__(
        self, folder: Path, *, prefix: str, segment_bytes: int = DEFAULT_SEGMENT_BYTES, fsync: bool = False
    ) -> None:
        """Start a fresh segment in ``folder``: what an earlier process left torn stays as it is."""
        self._folder = folder
        self._prefix = prefix
        self._segment_bytes = segment_bytes
        self._fsync = fsync
        folder.mkdir(parents=True, exist_ok=True)
        self._number = max((_number(path) for path in folder.glob(f"{prefix}-*{SUFFIX}")), default=0)
        self._descriptor = -1
        self._size = 0
        self._rotate()

    def append(self, *payloads: bytes) -> None:
        """Append ``payloads``, all or (on an error) none of them acknowledged.

        Raises
        ------
        OSError
            If the disk refuses; a part that was written is a torn line, which readers pass over.
        """
        self.append_lines(b"".join(encode_line(payload) for payload in payloads))

    def append_lines(self, lines: bytes) -> None:
        """Append whole lines in one write, as `append` does."""
        if self._size + len(lines) > self._segment_bytes and self._size:
            self._rotate()
        written = os.write(self._descriptor, lines)
        if written != len(lines):
            self._rotate()
            raise OSError(f"spool took {written} of {len(lines)} bytes")
        self._size += written
        if self._fsync:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the open segment."""
        os.close(self._descriptor)
        self._descriptor = -1

    def _rotate(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._number += 1
        self.path = self._folder / f"{self._prefix}-{self._number:08d}{SUFFIX}"
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        self._size = 0


def encode_line(payload: bytes) -> bytes:
    """Return ``payload`` as a line. A newline inside would break the file, and JSON never needs one."""
    if b"\n" in payload:
        raise ValueError("a spooled record must be a single line")
    return b"%08x %b\n" % (zlib.crc32(payload), payload)


def decode_line(raw: bytes) -> bytes | None:
    """Return the payload of a line (without its newline), or None where the checksum does not hold."""
    checksum, space, payload = raw[:8], raw[8:9], raw[9:]
    return payload if space == b" " and checksum == b"%08x" % zlib.crc32(payload) else None


def read_lines(path: Path, *, start: int = 0) -> Iterator[SpoolLine]:
    """Yield the complete lines of a segment from byte ``start``; an unfinished last line is left for the next reading."""
    with path.open("rb") as segment:
        segment.seek(start)
        end = start
        for line in segment:
            if not line.endswith(b"\n"):
                return
            end += len(line)
            yield SpoolLine(line, decode_line(line[:-1]), end)


def segments(folder: Path) -> list[Path]:
    """Return the segments of ``folder``, oldest first."""
    return sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: (_number(path), path.name))


def _number(path: Path) -> int:
    number = path.name.removesuffix(SUFFIX).rpartition("-")[2]
    return int(number) if number.isdigit() else 0
