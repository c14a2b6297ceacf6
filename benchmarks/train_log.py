"""A long decision log for `benchmarks.train`: real flights decided by the shim's own decider, repeated year after year."""

import hashlib
import tempfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import config, ingestion, snapshot, warehouse
from features.config import Configuration
from features.snapshot import Manifest, Snapshot
from features.warehouse import Warehouse
from scenarios.flights import configuration, past, world
from scenarios.flights.parcels import instants

CONFIGURATION_FILE = "turnout.toml"
YEAR = timedelta(days=364)  # whole weeks: a day of the week stays one
CLOSED_AFTER = timedelta(days=3)  # every outcome is known by then


def configured(folder: Path) -> Configuration:
    """Return the flights' configuration as `write_year` left it in ``folder``: what a side holds is not the world's."""
    return config.parse((folder / CONFIGURATION_FILE).read_text(encoding="utf-8"))


def write_year(folder: Path, *, on_progress: Callable[[int], None]) -> Snapshot:
    """Decide January to August and take it into a warehouse; return its snapshot, and leave the configuration in ``folder``."""
    whole = world.load().between(world.HISTORY_BEGINS_AT, world.LIVE_BEGINS_AT)
    text = configuration.text(world.load(), ladder_decisions=50)
    folder.mkdir(parents=True)
    (folder / CONFIGURATION_FILE).write_text(text, encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        past.write(whole, text, Path(scratch) / "past", on_progress=on_progress)
        stored = Warehouse(Path(scratch) / "warehouse.duckdb", threads=2)
        until = instants(np.array([world.LIVE_BEGINS_AT]))[0] + CLOSED_AFTER
        ingestion.ingest(stored, [Path(scratch) / "past"], config.parse(text), now=until)
        return snapshot.write(stored, folder, now=until)


def repeat(year: Snapshot, folder: Path, n_decisions: int) -> tuple[Snapshot, datetime]:
    """Write ``n_decisions`` of ``year`` over and over, each time a year later; return it and the instant it is closed."""
    folder.mkdir(parents=True)
    decisions = pq.read_table(year.folder / "decisions.parquet")
    outcomes = pq.read_table(year.folder / "outcomes.parquet")
    order = pc.sort_indices(decisions, sort_keys=[("decided_at", "ascending")])
    decisions = decisions.take(order)
    n_years = -(-n_decisions // decisions.num_rows)
    writers = {
        "decisions": pq.ParquetWriter(folder / "decisions.parquet", decisions.schema, compression="zstd"),
        "outcomes": pq.ParquetWriter(folder / "outcomes.parquet", outcomes.schema, compression="zstd"),
    }
    for number in range(n_years):
        part = decisions.slice(0, min(decisions.num_rows, n_decisions - number * decisions.num_rows))
        writers["decisions"].write_table(_later(part, number, "decided_at", ("decision_id", "event_id")))
        writers["outcomes"].write_table(_later(outcomes, number, "observed_at", ("decision_id", "outcome_key")))
    for writer in writers.values():
        writer.close()
    for name in set(warehouse.TABLES) - set(writers):
        (folder / f"{name}.parquet").write_bytes((year.folder / f"{name}.parquet").read_bytes())
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    manifest = Manifest(taken_at=year.manifest.taken_at, schema=year.manifest.schema, files=files)
    (folder / snapshot.MANIFEST).write_bytes(msgspec.json.encode(manifest))
    (folder / CONFIGURATION_FILE).write_bytes((year.folder.parent / CONFIGURATION_FILE).read_bytes())
    return Snapshot(folder), year.manifest.taken_at + n_years * YEAR


def _later(table: pa.Table, n_years: int, instant: str, identities: tuple[str, ...]) -> pa.Table:
    shift = pa.scalar(n_years * YEAR, pa.duration("us"))
    moved = pc.add(table[instant], shift).cast(table.schema.field(instant).type)
    table = table.set_column(table.schema.get_field_index(instant), table.schema.field(instant), moved)
    for name in identities:
        fresh = pc.binary_join_element_wise(table[name], pa.scalar(str(n_years)), "-")
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), fresh)
    return table
