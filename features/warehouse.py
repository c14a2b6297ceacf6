"""The warehouse: the one door to DuckDB. Its SQL lies in ``features/sql``, one file per query, called by its name."""

import fcntl
import os
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import duckdb
import pyarrow as pa

SCHEMA_VERSION = 2
TABLES = ("decisions", "outcomes", "quarantine", "progress")
_SQL = Path(__file__).parent / "sql"
_PARAMETER = re.compile(r"\$(\w+)")
_HOLDER = re.compile(r"PID (\d+)")
_POLL_SECONDS = 0.05
# In DuckDB 1, sql() with parameters takes ten times as long over lists as execute(); in 2, execute() copies and warns.
_SQL_BINDS_FAST = int(duckdb.__version__.partition(".")[0]) >= 2  # noqa: PLR2004 - the version it says
# Nothing is fetched from anywhere: what is not in the wheel is not used.
_READ_MEMORY = "1GB"
# Enough for a million rows without vectors: sorts and joins of more go on on the disk, at twice the time.
SPARING_LIMIT = "112MB"
_CONFIG: Mapping[str, Any] = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}


class WarehouseError(RuntimeError):
    """The warehouse refused: nothing of the transaction has happened."""


class LockedWarehouseError(WarehouseError):
    """Another process holds the file."""


class DamagedWarehouseError(WarehouseError):
    """The file is no DuckDB file, or no longer a sound one."""


class SchemaVersionError(WarehouseError):
    """The file has the tables of another release, or of something else."""


class Session:
    """What may be asked within one transaction: the queries of ``features/sql`` by name, with bound parameters."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, full_limit: str | None = None) -> None:
        """Take a connection; ``full_limit`` is its memory limit where a query that failed may be asked again."""
        self._connection = connection
        self._full_limit = full_limit
        self._is_sparing = False

    def spare_memory(self, limit: str | None = SPARING_LIMIT) -> None:
        """Let what comes take little memory: one thread, since each has buffers of its own, and at most ``limit``.

        With a limit of None as much as before: whatever reads vectors may need more than is left to it. Not everything that
        DuckDB does can go on on the disk: a query that the limit is too narrow for is asked again without it. Hence the
        warehouse itself has no such limit: there a query that fails undoes its transaction.
        """
        self._connection.execute("SET threads = 1")
        if limit is not None and self._full_limit is not None:
            self._connection.execute(f"SET memory_limit = '{limit}'")
            self._is_sparing = True

    def query(self, name: str, *, columns: Sequence[str] = (), **parameters: Any) -> pa.Table:
        """Return the rows of the query ``name``; parameters that it does not read are let pass.

        With ``columns`` only those are read, of a query that ends in a ``SELECT *``.
        """
        statement, bound = _statement(name), _read_by(name, parameters)
        if columns:
            # Chosen from outside, below the query's sort, nothing is left out: vectors would be sorted that nobody reads.
            head, _, tail = statement.rpartition("SELECT *")
            statement = f"{head}SELECT {', '.join(columns)}{tail}"
        try:
            return self._ask(statement, bound)
        except duckdb.OutOfMemoryException:
            if not self._is_sparing:
                raise
        self._connection.execute(f"SET memory_limit = '{self._full_limit}'")
        self._is_sparing = False
        return self._ask(statement, bound)

    def _ask(self, statement: str, bound: Mapping[str, Any]) -> pa.Table:
        if _SQL_BINDS_FAST:
            return self._connection.sql(statement, params=bound).to_arrow_table()
        return self._connection.execute(statement, bound).to_arrow_table()

    def execute(self, name: str, **parameters: Any) -> int:
        """Run the statement ``name`` and return how many rows it changed."""
        rows = self._connection.execute(_statement(name), _read_by(name, parameters)).fetchall()
        return int(rows[0][0]) if rows else 0

    def stage(self, name: str, table: pa.Table) -> None:
        """Let queries read ``table`` under ``name``, without a copy, until the transaction ends."""
        self._connection.register(name, table)

    def export(self, folder: Path) -> None:
        """Write every table to ``folder`` as Parquet."""
        for name in TABLES:
            self._connection.table(name).write_parquet(str(folder / f"{name}.parquet"), compression="zstd")

    def load(self, folder: Path) -> None:
        """Append what `export` wrote to the tables."""
        for name in TABLES:
            self._connection.read_parquet(str(folder / f"{name}.parquet")).create_view("exported", replace=True)
            self._connection.execute(f"INSERT INTO {name} BY NAME SELECT * FROM exported")  # noqa: S608 - a name of ours
        self._connection.execute("DROP VIEW exported")


class Source(Protocol):
    """Whatever can be asked: the warehouse itself, or a snapshot beside it."""

    def transaction(self) -> AbstractContextManager[Session]:
        """Give a session for one transaction."""


class Warehouse:
    """One DuckDB file. It is open, and the lock file beside it held, only within a transaction: processes take turns."""

    def __init__(self, path: Path, *, lock_seconds: float = 30.0, threads: int = 1) -> None:
        """Name the file, which is made when absent; a transaction waits at most ``lock_seconds`` for its turn."""
        self._path = path
        self._lock_seconds = lock_seconds
        self._threads = threads

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """Open the file for one transaction: committed when the block ends, rolled back when it raises.

        Raises
        ------
        LockedWarehouseError
            If another process holds the file: names its PID.
        DamagedWarehouseError, SchemaVersionError
            If the file cannot be read, or is not of this release.
        WarehouseError
            If DuckDB refuses anything else, such as a full disk.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self._lock_seconds
        with _locked(self._path.with_name(f"{self._path.name}.lock"), deadline):
            connection = self._connect(deadline)
            try:
                connection.execute("BEGIN")
                self._prepare(connection)
                yield Session(connection)
                connection.execute("COMMIT")
            except duckdb.Error as error:
                raise self._typed(error) from error
            finally:
                connection.close()

    def _connect(self, deadline: float) -> duckdb.DuckDBPyConnection:
        while True:
            try:
                connection = duckdb.connect(str(self._path), config={**_CONFIG, "threads": self._threads})
            except duckdb.Error as error:
                if not (holder := _HOLDER.search(str(error))) and "Conflicting lock" not in str(error):
                    raise DamagedWarehouseError(self._damage(error)) from error
                if time.monotonic() >= deadline:
                    process = f"process {holder[1]}" if holder else "another process"
                    raise LockedWarehouseError(f"{self._path} is held by {process}: close it there") from error
                time.sleep(_POLL_SECONDS)
            else:
                return connection

    def _prepare(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make the tables of a fresh file, refuse those of another release."""
        connection.execute("SET TimeZone = 'UTC'")
        present = {name for (name,) in connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()}
        if not present:
            connection.execute(_statement("schema"))
            connection.execute("INSERT INTO schema_version VALUES ($version)", {"version": SCHEMA_VERSION})
            return
        versions = (
            connection.execute("SELECT version FROM schema_version").fetchall() if "schema_version" in present else []
        )
        if versions != [(SCHEMA_VERSION,)]:
            found = ", ".join(str(version) for (version,) in versions) or "none"
            raise SchemaVersionError(f"{self._path}: schema version must be {SCHEMA_VERSION}, found {found}")

    def _typed(self, error: duckdb.Error) -> WarehouseError:
        damaged = isinstance(error, duckdb.FatalException | duckdb.InternalException | duckdb.SerializationException)
        if damaged or re.search(r"corrupt|checksum|could not read enough", str(error), re.IGNORECASE):
            return DamagedWarehouseError(self._damage(error))
        return WarehouseError(f"{self._path}: {error}")

    def _damage(self, error: duckdb.Error) -> str:
        reason = str(error).partition("\n")[0]
        return f"{self._path} cannot be read: {reason}; move it away, restore the latest snapshot and ingest the spool again"


@contextmanager
def exported(folder: Path) -> Iterator[Session]:
    """Give a session over the tables that `Session.export` wrote to ``folder``: beside the writer, at any time.

    A query that needs more memory than `_READ_MEMORY` goes on on the disk, among the system's temporary files.
    """
    spills = {
        "memory_limit": _READ_MEMORY,
        "temp_directory": str(Path(tempfile.gettempdir(), f"turnout-{os.getpid()}")),
    }
    with duckdb.connect(":memory:", config={**_CONFIG, **spills}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for name in TABLES:
            connection.read_parquet(str(folder / f"{name}.parquet")).create_view(name)
        try:
            yield Session(connection, full_limit=_READ_MEMORY)
        except duckdb.Error as error:
            raise WarehouseError(f"{folder}: {error}") from error


@contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    """Hold ``path`` exclusively; the operating system lets go when the process dies, however it dies."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        while not _flock(descriptor):
            if time.monotonic() >= deadline:
                holder = os.pread(descriptor, 32, 0).decode() or "unknown"
                raise LockedWarehouseError(f"{path.with_suffix('')} is held by process {holder}")
            time.sleep(_POLL_SECONDS)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _flock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@cache
def _statement(name: str) -> str:
    return (_SQL / f"{name}.sql").read_text(encoding="utf-8")


def _read_by(name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    read = set(_PARAMETER.findall(_statement(name)))
    return {key: value for key, value in parameters.items() if key in read}
