"""Lines of a file in bounded memory, whatever they hold and however long they are."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 4 * 1024 * 1024  # a decision over 1,000 candidates of 50 features takes about one
KEPT_BYTES = 4_096  # what is kept of a longer line: enough to see where it came from


class Line(NamedTuple):
    """A line without its newline; of one that is too long ``raw`` is the beginning and ``digest`` covers the whole."""

    start: int
    end: int
    raw: bytes
    n_bytes: int
    digest: str | None
    ended: bool

    @property
    def too_long(self) -> bool:
        """Tell whether ``raw`` is only the beginning."""
        return self.digest is not None


def read(path: Path, *, start: int = 0) -> Iterator[Line]:
    """Yield the lines of ``path`` from byte ``start``; the last one may lack its newline (``ended`` is False)."""
    with path.open("rb") as file:
        file.seek(start)
        while raw := file.readline(MAX_LINE_BYTES + 1):
            line = _line(file, start, raw)
            yield line
            start = line.end


def _line(file: BinaryIO, start: int, raw: bytes) -> Line:
    if raw.endswith(b"\n"):
        return Line(start, start + len(raw), raw[:-1].removesuffix(b"\r"), len(raw), None, ended=True)
    if len(raw) <= MAX_LINE_BYTES:
        return Line(start, start + len(raw), raw, len(raw), None, ended=False)
    n_bytes, digest, last = len(raw), hashlib.sha256(raw), raw
    while not last.endswith(b"\n") and (last := file.readline(MAX_LINE_BYTES)):
        n_bytes += len(last)
        digest.update(last)
    return Line(start, start + n_bytes, raw[:KEPT_BYTES], n_bytes, digest.hexdigest(), ended=last.endswith(b"\n"))


def join(parts: Sequence[Line]) -> Line:
    """Return neighbouring lines as one, such as a record whose quoted cell holds newlines."""
    if len(parts) == 1:
        return parts[0]
    first, last = parts[0], parts[-1]
    raw, n_bytes = b"\n".join(part.raw for part in parts), last.end - first.start
    if n_bytes <= MAX_LINE_BYTES:
        return Line(first.start, last.end, raw, n_bytes, None, ended=last.ended)
    return Line(first.start, last.end, raw[:KEPT_BYTES], n_bytes, hashlib.sha256(raw).hexdigest(), ended=last.ended)
