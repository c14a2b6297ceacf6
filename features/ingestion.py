"""Ingest: from spools, files and streams into the warehouse in bounded batches; running twice equals running once."""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from features import merging, message_reader, readers
from features.config import Configuration
from features.merging import Merged, Progress
from features.message_reader import Address
from features.readers import Batch, RawRow
from features.warehouse import Warehouse

BATCH_ROWS = 10_000  # one transaction each: smaller ones spend more on opening and closing, larger ones more memory
DRIFT_SHARE = 0.2
DRIFT_MIN_ROWS = 100

Reason = tuple[str, str | None]  # the rule broken, and the field to blame


@dataclass(frozen=True, kw_only=True)
class IngestProgress:
    """How far ingest has come, after each batch: bytes of all sources behind it, and rows read."""

    source: str
    n_rows: int
    done_share: float


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What one ingest came to.

    ``quarantined`` counts rows by reason, ``rule`` or ``rule (field)``; ``extra_fields`` counts rows by a field that no
    record has (kept beside the record). ``refusal`` says which sources were not what they should be; None if all were.
    """

    n_read: int = 0
    n_decisions: int = 0
    n_outcomes: int = 0
    n_duplicates: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    extra_fields: Mapping[str, int] = field(default_factory=dict)
    refusal: str | None = None
    seconds: float = 0.0


@dataclass(kw_only=True)
class _Tally:
    """What has been counted so far, over all sources."""

    n_rows: int = 0
    merged: Merged = field(default_factory=Merged)
    refusals: list[str] = field(default_factory=list)

    def add(self, merged: Merged) -> None:
        total = self.merged
        total.n_decisions += merged.n_decisions
        total.n_outcomes += merged.n_outcomes
        total.n_duplicates += merged.n_duplicates
        total.quarantined += merged.quarantined
        total.extra_fields += merged.extra_fields


def ingest(
    warehouse: Warehouse,
    sources: Sequence[Path | str],
    configuration: Configuration,
    *,
    now: datetime,
    batch_rows: int = BATCH_ROWS,
    on_progress: Callable[[IngestProgress], None] = lambda _: None,
) -> IngestReport:
    """Bring what ``sources`` (files, folders of them, streams' addresses) hold into the warehouse, each from where it was left.

    Every batch and its source's new position are one transaction: killed at any point, the next run goes on from the
    last whole batch; messages are acknowledged once they are stored, and files come before streams. Rows that break a rule go to quarantine; a source where more than ``DRIFT_SHARE`` of the rows read,
    and these at least ``DRIFT_MIN_ROWS``, break the same one has drifted: the report's refusal names the field.

    Raises
    ------
    FileNotFoundError, ValueError
        If a source is not there, or of a format that no reader knows.
    WarehouseError
        If the warehouse is locked, damaged or full; batches already committed stay.
    BrokerError
        If a stream's broker is away; likewise.
    """
    began = time.monotonic()
    tally = _Tally()
    addresses = [Address.parse(source) for source in sources if message_reader.is_address(source)]
    files = readers.expand([Path(source) for source in sources if not message_reader.is_address(source)])
    sizes = {path: path.stat().st_size for path in files}
    behind, total = 0, sum(sizes.values()) or 1
    for path in files:
        for end in _ingest_file(warehouse, path, configuration, tally, now=now, batch_rows=batch_rows):
            ahead = min(end, sizes[path]) if readers.counts_bytes(path) else 0
            done = IngestProgress(source=str(path), n_rows=tally.n_rows, done_share=(behind + ahead) / total)
            on_progress(done)
        behind += sizes[path]
        on_progress(IngestProgress(source=str(path), n_rows=tally.n_rows, done_share=behind / total))
    for address in addresses:
        for _ in _ingest_stream(warehouse, address, configuration, tally, now=now, batch_rows=batch_rows):
            on_progress(IngestProgress(source=address.source, n_rows=tally.n_rows, done_share=behind / total))
    return IngestReport(
        n_read=tally.n_rows,
        n_decisions=tally.merged.n_decisions,
        n_outcomes=tally.merged.n_outcomes,
        n_duplicates=tally.merged.n_duplicates,
        quarantined={_spoken(reason): count for reason, count in tally.merged.quarantined.most_common()},
        extra_fields=dict(tally.merged.extra_fields.most_common()),
        refusal="; ".join(tally.refusals) or None,
        seconds=time.monotonic() - began,
    )


def _ingest_file(
    warehouse: Warehouse,
    path: Path,
    configuration: Configuration,
    tally: _Tally,
    *,
    now: datetime,
    batch_rows: int,
) -> Iterator[int]:
    """Merge a file batch by batch, yielding the position reached after each."""
    path = path.resolve()
    progress = _resume(warehouse, str(path), path)
    batches = readers.read(path, start=progress.position, batch_rows=batch_rows)
    return _merge_all(warehouse, batches, configuration, tally, source=str(path), progress=progress, now=now)


def _ingest_stream(
    warehouse: Warehouse,
    address: Address,
    configuration: Configuration,
    tally: _Tally,
    *,
    now: datetime,
    batch_rows: int,
) -> Iterator[int]:
    """Merge what waits in a stream, as above. The broker knows where to go on; the position is there to be read."""
    progress = merging.read_progress(warehouse, address.source) or Progress("", 0, 0)
    batches = message_reader.read(address, batch_rows=batch_rows)
    return _merge_all(warehouse, batches, configuration, tally, source=address.source, progress=progress, now=now)


def _merge_all(
    warehouse: Warehouse,
    batches: Generator[Batch, None, None],
    configuration: Configuration,
    tally: _Tally,
    *,
    source: str,
    progress: Progress,
    now: datetime,
) -> Iterator[int]:
    n_read, broken = 0, Counter[Reason]()
    with closing(batches):  # so that a stream hears at once of what was not stored
        for batch in batches:
            n_read += len(batch.rows)
            progress = progress._replace(position=batch.end, n_rows=progress.n_rows + len(batch.rows))
            merged = merging.merge(warehouse, batch.rows, configuration, source=source, progress=progress, now=now)
            broken += merged.quarantined
            tally.n_rows += len(batch.rows)
            tally.add(merged)
            tally.refusals += _unreadable(batch.rows)
            yield batch.end
    tally.refusals += _drifted(source, n_read, broken)


def _resume(warehouse: Warehouse, source: str, path: Path) -> Progress:
    """Return where to go on: a file that only grows from its position, another from there only if it is the same."""
    digest = "" if readers.grows(path) else _digest(path)
    known = merging.read_progress(warehouse, source)
    if known is None or known.digest != digest or (not digest and path.stat().st_size < known.position):
        return Progress(digest, 0, 0)
    return known


def _unreadable(rows: Sequence[RawRow]) -> list[str]:
    return [f"{row.source} cannot be read: {row.error}" for row in rows if row.whole_source]


def _drifted(source: str, n_read: int, broken: Counter[Reason]) -> list[str]:
    if n_read < DRIFT_MIN_ROWS:
        return []
    return [
        f"{source}: {count} of {n_read} rows break {_spoken(reason)}"
        for reason, count in broken.most_common()
        if count > DRIFT_SHARE * n_read
    ]


def _spoken(reason: Reason) -> str:
    rule, blamed = reason
    return f"{rule} ({blamed})" if blamed else rule


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
