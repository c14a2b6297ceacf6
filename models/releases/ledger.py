"""The ledger: an append-only, hash-chained sequence of generations, one file each, appended to by compare-and-set.

An entry is written to a temporary file, synced, and given its generation's name by ``link(2)``, which fails if the name
is taken: of two appenders that saw the same head exactly one wins, and the other is told. No reader ever sees half an
entry. Appenders share a lock that a restore, a sweep and an adoption hold alone, since they act on more than one name.

A ledger is written by appenders or is a copy of another, never both: a mark in the folder says that it is a copy.
"""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from models.releases import durable, rules
from models.releases import entry as entries
from models.releases.canonical import NotCanonicalError
from models.releases.durable import Failpoint
from models.releases.entry import Entry, Gap, Recorded
from models.releases.history import History
from models.releases.refusal import RuleBrokenError

FAILPOINTS = ("append:checked", "append:written", "append:linked", "append:unlinked")
MAX_ENTRY_BYTES = 1024 * 1024
COPY_MARK = ".copy"  # the file that says so

_GENERATION_FILE = re.compile(r"(\d{8})\.json")
_TEMPORARY_PREFIX = ".append-"


class LedgerConflictError(RuntimeError):
    """Another entry came first: names its generation, actor and action. Read the ledger again and reconsider."""

    def __init__(self, expected_head: str, winner: Recorded | None) -> None:
        won = winner.entry if winner else None
        self.generation = won.generation if won else 0
        self.actor = won.actor if won else ""
        self.action = won.action if won else ""
        first = f"{self.actor!r} made generation {self.generation} ({self.action})" if won else "the ledger is empty"
        super().__init__(f"the head is not {expected_head or 'none'!r}: {first}")


class DamagedLedgerError(ValueError):
    """A generation that does not hold what was recorded: names it. Those before it can still be read."""

    def __init__(self, generation: int, detail: str) -> None:
        super().__init__(f"generation {generation} of the ledger is damaged: {detail}")
        self.generation = generation


class ForeignLedgerError(RuntimeError):
    """A ledger that is a copy of another where it must not be one, or the other way round."""


class Ledger:
    """The generations in the folder ``root``. Reading needs no lock and no right to write."""

    def __init__(self, root: Path, *, failpoint: Failpoint = durable.pass_by) -> None:
        """Take the folder; the first `append` makes it. ``failpoint`` is called at every one of `FAILPOINTS`."""
        self._root = root
        self._failpoint = failpoint

    def generations(self) -> tuple[int, ...]:
        """Return the numbers of all generations, rising; a restored ledger has gaps."""
        if not self._root.is_dir():
            return ()
        matches = (_GENERATION_FILE.fullmatch(path.name) for path in self._root.iterdir())
        return tuple(sorted(int(match[1]) for match in matches if match))

    def read(self, generation: int) -> Recorded:
        """Return one generation, complete in itself.

        Raises
        ------
        DamagedLedgerError
            If it is not there or not what was recorded.
        """
        return self._open(generation)[1]

    def read_file(self, generation: int) -> bytes:
        """Return the bytes of one generation as they lie there; checked, and refused, as by `read`."""
        return self._open(generation)[0]

    def head(self) -> Recorded | None:
        """Return the newest generation and its hash, None when there is none; one listing and one file are read.

        Raises
        ------
        DamagedLedgerError
            If it is not what was recorded; `generations` and `read` give those before it.
        """
        generations = self.generations()
        return self.read(generations[-1]) if generations else None

    def entries(self) -> Iterator[Recorded]:
        """Yield all generations, oldest first, as they are read."""
        for generation in self.generations():
            yield self.read(generation)

    def history(self) -> History:
        """Return what the generations add up to, after checking that each names the one before.

        Raises
        ------
        DamagedLedgerError
            Naming the first generation that does not follow.
        """
        history = History()
        for recorded in self.entries():
            try:
                rules.check_place(recorded.entry, history)
            except RuleBrokenError as error:
                raise DamagedLedgerError(recorded.entry.generation, str(error)) from None
            history = history.after(recorded)
        return history

    def verify(self, *, served: Iterable[tuple[int, str]] = ()) -> History:
        """Return the history after checking all there is to check: bytes, chain, and every rule.

        A chain cannot know that its end was cut off (a folder restored from a backup): ``served`` are the
        (generation, hash) pairs that shims persisted, and each must be here, or in a gap that a restore recorded.

        Raises
        ------
        DamagedLedgerError
            Naming the first generation that is wrong.
        """
        history = History()
        known: dict[int, str] = {}
        restores: list[tuple[int, Gap]] = []
        for recorded in self.entries():
            try:
                rules.check(recorded.entry, history)
            except RuleBrokenError as error:
                raise DamagedLedgerError(recorded.entry.generation, str(error)) from None
            if recorded.entry.gap:
                restores.append((history.generation, recorded.entry.gap))
            known[recorded.entry.generation] = recorded.hash
            history = history.after(recorded)
        for generation, digest in served:
            if known.get(generation) != digest and not _is_lost(generation, digest, restores):
                raise DamagedLedgerError(
                    generation, f"a shim served it as {digest}, here it is {known.get(generation)}"
                )
        return history

    def append(self, entry: Entry, *, expected_head: str) -> str:
        """Record ``entry`` as the next generation, durably, and return its hash.

        ``expected_head`` is the hash of the head that the entry was made from, "" for none. Killed anywhere, it leaves
        the generation recorded or not there, and at most a temporary file for `sweep`.

        Raises
        ------
        LedgerConflictError
            If the head is another by now: names the generation that came first, its actor and its action.
        RuleBrokenError
            If the entry may not follow; a restore must come by `restore`.
        ForeignLedgerError
            If the ledger is a copy of another.
        DamagedLedgerError
            If the chain does not hold.
        OSError
            If the disk refuses. Whether the entry was recorded is then for `head` to say.
        """
        return self._record(entry, expected_head, exclusive=False)

    def restore(self, entry: Entry, *, above: tuple[int, str]) -> str:
        """Record a restore, which continues above the highest (generation, hash) that any shim served.

        Raises
        ------
        ValueError
            If ``entry`` is not a restore above that generation and hash.
        LedgerConflictError, RuleBrokenError, ForeignLedgerError, DamagedLedgerError, OSError
            As `append` does.
        """
        if entry.gap is None or (entry.gap.generation, entry.gap.hash) != above:
            raise ValueError(f"the entry must continue above {above}, its gap is {entry.gap}")
        return self._record(entry, entry.previous, exclusive=True)

    @property
    def is_copy(self) -> bool:
        """Whether the ledger is a copy of another, which ``models.releases.replica`` keeps: nothing is appended to it."""
        return (self._root / COPY_MARK).exists()

    def sweep(self) -> tuple[str, ...]:
        """Remove what killed appenders left behind and return its names; waits for the appends that are under way."""
        if not self._root.is_dir():
            return ()
        with durable.lock(self._root, exclusive=True):
            leftovers = sorted(self._root.glob(f"{_TEMPORARY_PREFIX}*"))
            for leftover in leftovers:
                leftover.unlink()
        return tuple(leftover.name for leftover in leftovers)

    def _open(self, generation: int) -> tuple[bytes, Recorded]:
        try:
            with self._path(generation).open("rb") as file:
                data = file.read(MAX_ENTRY_BYTES + 1)
            recorded = entries.decode(data)
        except (OSError, NotCanonicalError) as error:
            raise DamagedLedgerError(generation, str(error)) from None
        if recorded.entry.generation != generation:
            raise DamagedLedgerError(generation, f"its entry says generation {recorded.entry.generation}")
        return data, recorded

    def _record(self, entry: Entry, expected_head: str, *, exclusive: bool) -> str:
        entry = rules.normalise(entry)
        if (entry.action == "restore") != exclusive:
            raise RuleBrokenError("action", entry.generation, f"{entry.action!r} does not come this way")
        durable.make_folder(self._root)
        with durable.lock(self._root, exclusive=exclusive):
            if self.is_copy:
                raise ForeignLedgerError(f"{entry.action!r} cannot be recorded: the ledger is a copy of another's")
            history = self.history()
            if history.hash != expected_head:
                raise LedgerConflictError(expected_head, self._winner(entry.generation, history))
            rules.check(entry, history)
            data = _encode(entry)
            self._failpoint("append:checked")
            self._publish(entry.generation, data, expected_head)
        return entries.decode(data).hash

    def _publish(self, generation: int, data: bytes, expected_head: str) -> None:
        temporary = self._root / f"{_TEMPORARY_PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            durable.write(temporary, data)
            self._failpoint("append:written")
            os.link(temporary, self._path(generation))
            self._failpoint("append:linked")
        except FileExistsError:
            raise LedgerConflictError(expected_head, self.read(generation)) from None
        finally:
            temporary.unlink(missing_ok=True)
        self._failpoint("append:unlinked")
        durable.sync_folder(self._root)

    def _winner(self, generation: int, history: History) -> Recorded | None:
        """Return what took the generation that was wanted, or else the head."""
        return self.read(generation) if self._path(generation).exists() else history.head

    def _path(self, generation: int) -> Path:
        return self._root / f"{generation:08d}.json"


def _encode(entry: Entry) -> bytes:
    data = entries.encode(entry)
    if len(data) > MAX_ENTRY_BYTES:
        raise RuleBrokenError("shape", entry.generation, f"at most {MAX_ENTRY_BYTES} bytes, got {len(data)}")
    return data


def _is_lost(generation: int, digest: str, restores: Iterable[tuple[int, Gap]]) -> bool:
    """Return whether a restore, made above a head, recorded that this generation was lost."""
    return any(
        head < generation < gap.generation or (generation, digest) == (gap.generation, gap.hash)
        for head, gap in restores
    )
