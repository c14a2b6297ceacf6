"""Readers: one interface over spools, JSON Lines, CloudEvents, CSV and Parquet; a row that cannot be read comes out as such."""

import codecs
import csv
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct

from features import decoding, lines, spool
from features.decoding import BrokenRowError, Decoded
from features.lines import Line
from features.records import Record

DEFAULT_BATCH_ROWS = 5_000
BATCH_BYTES = 64 * 1024 * 1024  # rows of megabytes must not add up to gigabytes
MAX_ARRAY_BYTES = 256 * 1024 * 1024  # an array of CloudEvents has to be held whole to be read at all


class RawRow(Struct, frozen=True, kw_only=True):
    """One row of a source: its record, or the ``rule`` that it breaks, in which ``field``, and the ``error`` in words.

    ``position`` is the row's byte offset; in Parquet and in a JSON array, its number. Of a row that is too long ``raw`` is only
    the beginning, ``n_bytes`` its whole length and ``digest`` the SHA-256 of the whole. A ``whole_source`` row stands for a
    file that cannot be read at all. ``extras`` are the fields that no record has, as JSON by name.
    """

    source: str
    position: int
    raw: bytes
    n_bytes: int
    digest: str | None = None
    record: Record | None = None
    rule: str | None = None
    field: str | None = None
    error: str | None = None
    whole_source: bool = False
    extras: dict[str, bytes] = {}


class Batch(NamedTuple):
    """Rows in the order of their source, and the position from which the reading goes on."""

    rows: list[RawRow]
    end: int


_Numbered = Iterator[tuple[RawRow, int]]


def read(path: Path, *, start: int = 0, batch_rows: int = DEFAULT_BATCH_ROWS) -> Generator[Batch, None, None]:
    """Yield the rows of ``path`` from position ``start`` in bounded batches.

    Raises
    ------
    ValueError
        If the suffix names no format that is known.
    OSError
        If the file is not there or may not be read.
    """
    if (reader := _READERS.get(path.suffix)) is None:
        raise ValueError(f"{path}: no reader for {path.suffix!r}, only for {', '.join(sorted(_READERS))}")
    if batch_rows < 1:
        raise ValueError(f"batch_rows must be at least 1, got {batch_rows}")
    rows: list[RawRow] = []
    n_bytes = 0
    end = start
    for read_row, end in reader(path, start):
        rows.append(read_row)
        n_bytes += len(read_row.raw)
        if len(rows) >= batch_rows or n_bytes >= BATCH_BYTES:
            yield Batch(rows, end)
            rows, n_bytes = [], 0
    if rows:
        yield Batch(rows, end)


def expand(sources: Sequence[Path]) -> list[Path]:
    """Return the files of ``sources``: a folder stands for every file in it that has a reader, oldest spool segment first.

    Raises
    ------
    FileNotFoundError
        Naming a source that is not there.
    """
    files: list[Path] = []
    for source in sources:
        if source.is_dir():
            files += spool.segments(source)
            others = _READERS.keys() - {spool.SUFFIX}
            files += sorted(path for path in source.iterdir() if path.suffix in others and path.is_file())
        elif source.exists():
            files.append(source)
        else:
            raise FileNotFoundError(f"source {str(source)!r} is not there")
    return list(dict.fromkeys(files))


def grows(path: Path) -> bool:
    """Tell whether ``path`` is a file that its writer only appends to, so that a position in it stays good."""
    return path.suffix == spool.SUFFIX


def counts_bytes(path: Path) -> bool:
    """Tell whether positions in ``path`` are byte offsets, rather than numbers of rows."""
    return path.suffix not in (".json", ".parquet")


def row(source: Path | str, line: Line, decode: Callable[[], Decoded]) -> RawRow:
    """Return ``line`` as a row of ``source``: with the record that ``decode`` makes of it, or the rule that it breaks."""
    place: dict[str, Any] = {"position": line.start, "raw": line.raw, "n_bytes": line.n_bytes}
    try:
        if line.too_long:
            raise BrokenRowError("too_long", f"{line.n_bytes} bytes, the limit is {lines.MAX_LINE_BYTES}")  # noqa: TRY301 - one way out for all that is broken
        record, extras = decode()
    except BrokenRowError as error:
        broken: dict[str, Any] = {"digest": line.digest, "rule": error.rule, "field": error.field, "error": str(error)}
        return RawRow(source=str(source), **place, **broken)
    return RawRow(source=str(source), **place, record=record, extras=extras)


def _whole(source: Path, error: BrokenRowError, raw: bytes = b"") -> RawRow:
    """Return the row that stands for a source of which no row can be read."""
    return RawRow(
        source=str(source),
        position=0,
        raw=raw[: lines.KEPT_BYTES],
        n_bytes=source.stat().st_size,
        rule=error.rule,
        field=error.field,
        error=str(error),
        whole_source=True,
    )


def _read_spool(path: Path, start: int) -> _Numbered:
    for line in lines.read(path, start=start):
        if not line.ended:
            return  # its writer may still be at it
        yield row(path, line, partial(_decode_spooled, line.raw)), line.end


def _decode_spooled(raw: bytes) -> Decoded:
    payload = spool.decode_line(raw)
    if payload is None:
        raise BrokenRowError("bad_checksum", "the line is not what was written: its checksum does not hold")
    return decoding.decode_json(payload)


def _read_json_lines(path: Path, start: int) -> _Numbered:
    for line in lines.read(path, start=start):
        if line.raw.strip():
            yield row(path, line, partial(decoding.decode_json, line.raw)), line.end


def _read_json_array(path: Path, start: int) -> _Numbered:
    if path.stat().st_size > MAX_ARRAY_BYTES:
        rule = f"an array may take {MAX_ARRAY_BYTES} bytes: use JSON Lines for more"
        yield _whole(path, BrokenRowError("too_long", rule)), start
        return
    text = path.read_bytes()
    try:
        elements = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        yield _whole(path, BrokenRowError("bad_json", f"not an array of JSON: {error}"), text), start
        return
    for number, element in enumerate(map(bytes, elements[start:]), start=start):
        line = Line(number, number + 1, element, len(element), None, ended=True)
        yield row(path, line, partial(decoding.decode_json, element)), line.end


def _read_csv(path: Path, start: int) -> _Numbered:
    header_line = next(_csv_lines(path, 0), None)
    if header_line is None:
        return
    try:
        header = _csv_cells(header_line.raw.removeprefix(codecs.BOM_UTF8))
        kind = decoding.kind_of(frozenset(header))
    except BrokenRowError as error:
        yield _whole(path, error, header_line.raw), start
        return
    for line in _csv_lines(path, max(start, header_line.end)):
        if line.raw.strip():
            yield row(path, line, partial(_decode_csv, line.raw, header, kind)), line.end


def _csv_lines(path: Path, start: int) -> Iterator[Line]:
    """Yield logical lines: a quoted cell may hold newlines, so lines are joined until the quotes are even."""
    parts: list[Line] = []
    in_quotes = False
    for line in lines.read(path, start=start):
        parts.append(line)
        in_quotes ^= bool(line.raw.count(b'"') % 2)
        if not in_quotes or line.too_long or line.end - parts[0].start > lines.MAX_LINE_BYTES:
            yield lines.join(parts)
            parts, in_quotes = [], False
    if parts:
        yield lines.join(parts)


def _csv_cells(raw: bytes) -> list[str]:
    try:
        return next(csv.reader([raw.decode("utf-8")], strict=True))
    except UnicodeDecodeError as error:
        raise BrokenRowError("not_utf8", str(error)) from None
    except csv.Error as error:
        raise BrokenRowError("bad_csv", str(error)) from None


def _decode_csv(raw: bytes, header: list[str], kind: type[Record]) -> Decoded:
    cells = _csv_cells(raw)
    if len(cells) != len(header):
        raise BrokenRowError("bad_csv", f"the header names {len(header)} cells, the row has {len(cells)}")
    return decoding.convert_cells({name: cell or None for name, cell in zip(header, cells, strict=True)}, kind)


def _read_parquet(path: Path, start: int) -> _Numbered:
    number = start
    try:
        with pq.ParquetFile(path) as file:
            kind = decoding.kind_of(frozenset(file.schema_arrow.names))
            for cells in _parquet_rows(file.iter_batches(batch_size=1_024), start):
                raw = msgspec.json.encode(cells, enc_hook=str)
                line = Line(number, number + 1, raw, len(raw), None, ended=True)
                yield row(path, line, partial(decoding.convert_cells, cells, kind)), line.end
                number += 1
    except BrokenRowError as error:
        yield _whole(path, error), number
    except (pa.ArrowException, UnicodeDecodeError) as error:
        yield _whole(path, BrokenRowError("bad_parquet", str(error))), number


def _parquet_rows(batches: Iterable[pa.RecordBatch], start: int) -> Iterator[dict[str, Any]]:
    for batch in batches:
        if start < batch.num_rows:
            yield from batch.slice(start).to_pylist()
        start = max(0, start - batch.num_rows)


_READERS: Mapping[str, Callable[[Path, int], _Numbered]] = {
    spool.SUFFIX: _read_spool,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json_array,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
