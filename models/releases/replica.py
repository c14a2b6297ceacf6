"""A ledger that is a copy of another: it takes that one's files byte for byte where they continue it, and nothing else."""

from collections.abc import Iterable, Sequence

from models.releases import durable, rules
from models.releases import entry as entries
from models.releases.canonical import NotCanonicalError
from models.releases.entry import Recorded
from models.releases.history import History
from models.releases.ledger import (
    COPY_MARK,
    MAX_ENTRY_BYTES,
    DamagedLedgerError,
    ForeignLedgerError,
    Ledger,
    LedgerConflictError,
)

_COPY_TEXT = b"this ledger is a copy of another, which alone is written to\n"


class Replica(Ledger):
    """The copy in a folder; it is read as any ledger is."""

    def adopt(self, files: Sequence[bytes], *, expected_head: str) -> History:
        """Record what another ledger holds beyond ``expected_head``, byte for byte, and return what all adds up to.

        The first adoption makes an empty ledger a copy. All files are checked before the first is recorded; killed in
        between, the first of them are there, and the chain holds.

        Raises
        ------
        ForeignLedgerError
            If the ledger holds what was appended here.
        LedgerConflictError
            If the head is another.
        DamagedLedgerError, RuleBrokenError
            If a file may not follow.
        OSError
            If the disk refuses.
        """
        durable.make_folder(self._root)
        with durable.lock(self._root, exclusive=True):
            history = self.history()
            self._claim(history)
            if history.hash != expected_head:
                raise LedgerConflictError(expected_head, history.head)
            for data, recorded in zip(files, check_files(files, history), strict=True):
                self._publish(recorded.entry.generation, data, history.hash)
                history = history.after(recorded)
        return history

    def _claim(self, history: History) -> None:
        """Mark an empty ledger as a copy, before anything is in it."""
        if self.is_copy:
            return
        if history.head is not None:
            raise ForeignLedgerError(
                f"the ledger, at generation {history.generation}, was written here: a copy begins in an empty folder"
            )
        durable.write(self._root / COPY_MARK, _COPY_TEXT)
        durable.sync_folder(self._root)


def check_files(files: Iterable[bytes], history: History) -> tuple[Recorded, ...]:
    """Return what the files of generations record, if they may follow ``history`` one after the other.

    Raises
    ------
    DamagedLedgerError
        If the bytes are not what a ledger writes: names the generation that should come.
    RuleBrokenError
        If an entry may not follow.
    """
    found: list[Recorded] = []
    for data in files:
        if len(data) > MAX_ENTRY_BYTES:
            raise DamagedLedgerError(history.generation + 1, f"it takes {len(data)} bytes, at most {MAX_ENTRY_BYTES}")
        try:
            recorded = entries.decode(data)
        except NotCanonicalError as error:
            raise DamagedLedgerError(history.generation + 1, str(error)) from None
        rules.check(recorded.entry, history)
        history = history.after(recorded)
        found.append(recorded)
    return tuple(found)
