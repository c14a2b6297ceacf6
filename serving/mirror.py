"""Keeps a home's ledger and store as a copy of another shim's, over HTTP, for a machine that shares no files with it."""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from models.releases import bundle, durable
from models.releases.bundle import BundleError
from models.releases.entry import Recorded
from models.releases.history import History
from models.releases.ledger import ForeignLedgerError
from models.releases.replica import Replica
from models.releases.store import AbsentReleaseError, Store
from serving import page
from serving.client import pause_seconds
from serving.offer import named_by
from serving.page import LedgerPage, PageError
from serving.upstream import UpstreamError

WAIT_SECONDS = 25.0  # that the other shim is asked to wait for something new
MAX_BEHIND = 50_000  # generations that are taken at once
_LOCK_FILE = "lock"
_INCOMING_PREFIX = "incoming-"
_LOGGER = logging.getLogger("turnout.shim")


class Source(Protocol):
    """What is copied; ``serving.upstream.Upstream`` is one."""

    url: str

    def page(self, after: int, *, wait_seconds: float) -> LedgerPage | None:
        """Return what lies past generation ``after``, None where nothing new came within the time."""

    def bundle(self, digest: str, folder: Path) -> None:
        """Unpack a bundle into the empty ``folder``."""

    def forget(self) -> None:
        """Answer the next time as if nothing had been asked before."""

    def close(self) -> None:
        """End the exchange under way."""


class Mirror:
    """Copies what ``source`` has: bundles first, then the entries that name them; nothing that is here is ever replaced.

    A thread of its own asks; of several processes with one home, the one that holds the lock in ``folder``. Who follows
    the ledger finds the copy as if a pipeline had written it. ``failure`` says what keeps it from being one, "" when all
    is well.
    """

    def __init__(
        self,
        *,
        source: Source,
        ledger: Replica,
        store: Store,
        folder: Path,
        wake: Callable[[], None],
        poll_seconds: float = 1.0,
    ) -> None:
        """Copy into ``ledger`` and ``store``, by way of ``folder``; ``wake`` is called when entries have come."""
        self.failure = ""
        self._source = source
        self._ledger = ledger
        self._store = store
        self._folder = folder
        self._wake = wake
        self._poll_seconds = poll_seconds
        self._history = History()
        self._lock: int | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Copy in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop copying; what is half there is fetched again another time."""
        self._stopping.set()
        self._source.close()
        if self._thread is not None:
            self._thread.join(timeout=1.0)

    def poll(self, *, wait_seconds: float = 0.0) -> None:
        """Copy what is new, once; ``wait_seconds`` is how long nothing new is waited for.

        Raises
        ------
        PageError, UpstreamError
            If what was answered cannot be taken: nothing of it is.
        ForeignLedgerError, DamagedLedgerError
            If the ledger here is no copy, or damaged.
        OSError
            If the disk refuses.
        """
        history = self._read_history()
        lacking = history.head is not None and any(map(self._lacks, named_by(history.head.entry)))
        files, head = self._gather(history, 0.0 if lacking else wait_seconds)
        if head is not None:  # what earlier entries name, and this one does not, nobody would ask for any more
            self._fetch_all(named_by(head.entry))
        if files:
            self._history = self._ledger.adopt(files, expected_head=history.hash)
            self._wake()

    def _run(self) -> None:
        n_failures = 0
        while not self._stopping.is_set():
            try:
                if self._seize():
                    self.poll(wait_seconds=WAIT_SECONDS)
                n_failures, self.failure = 0, ""
            except Exception as error:  # noqa: BLE001 - what nobody thought of must not end the copying
                n_failures += 1
                self._fail(error)
            self._stopping.wait(pause_seconds(self._poll_seconds, n_failures))
        if self._lock is not None:
            os.close(self._lock)

    def _fail(self, error: Exception) -> None:
        self._source.forget()
        where = self._source.url if isinstance(error, PageError | UpstreamError) else "here"
        failure = f"{where}: {str(error) or type(error).__name__}"
        if failure != self.failure and not self._stopping.is_set():
            _LOGGER.warning("nothing is copied: %s", failure)
        self.failure = failure

    def _seize(self) -> bool:
        """Return whether this is the process that copies; it clears up what a killed one left behind."""
        if self._lock is None:
            durable.make_folder(self._folder)
            self._lock = durable.seize(self._folder / _LOCK_FILE)
            if self._lock is not None:
                for leftover in self._folder.glob(f"{_INCOMING_PREFIX}*"):
                    shutil.rmtree(leftover, ignore_errors=True)
                if self._ledger.is_copy:
                    self._store.sweep()
                    self._ledger.sweep()
        return self._lock is not None

    def _read_history(self) -> History:
        """Return what the ledger here adds up to; it is read anew only where its head is another."""
        head = self._ledger.head()
        if (head.hash if head else "") != self._history.hash:
            self._source.forget()
            self._history = self._ledger.history()
        if self._history.head is not None and not self._ledger.is_copy:
            at = f"the ledger, at generation {self._history.generation}, was written here"
            raise ForeignLedgerError(f"{at}: a copy begins in an empty folder")
        return self._history

    def _gather(self, history: History, wait_seconds: float) -> tuple[list[bytes], Recorded | None]:
        """Return the files of all that is new, and the head with them."""
        files: list[bytes] = []
        while (found := self._source.page(history.generation, wait_seconds=wait_seconds)) is not None:
            more, recorded = page.check(found, history)
            files += more
            for each in recorded:
                history = history.after(each)
            if history.generation >= found.generation:
                break
            if len(files) > MAX_BEHIND:
                raise PageError(f"more than {MAX_BEHIND} generations are new, which are more than are taken")
        return files, history.head

    def _fetch_all(self, digests: Iterable[str]) -> None:
        for digest in filter(self._lacks, sorted(digests)):
            self._fetch(digest)

    def _lacks(self, digest: str) -> bool:
        try:
            self._store.path(digest)
        except AbsentReleaseError:
            return True
        return False

    def _fetch(self, digest: str) -> None:
        """Keep a bundle, after those that it pins."""
        with tempfile.TemporaryDirectory(prefix=_INCOMING_PREFIX, dir=self._folder) as incoming:
            self._source.bundle(digest, Path(incoming))
            try:
                self._fetch_all(bundle.verify(Path(incoming), digest).pins.values())
                self._store.put(Path(incoming), digest=digest)
            except BundleError as error:
                raise PageError(f"the bundle {digest[:12]}: {error}") from None
