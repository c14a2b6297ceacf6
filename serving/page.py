"""A page of a ledger as one shim sends it to another: the generations past one that the asker has, as they lie on disk."""

from bisect import bisect_right
from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from models.releases.entry import Recorded
from models.releases.history import History
from models.releases.ledger import DamagedLedgerError, Ledger
from models.releases.refusal import RuleBrokenError
from models.releases.replica import check_files

MAX_ENTRIES = 64  # of one page: they are read between two decisions
MAX_BYTES = 1024 * 1024  # beyond the first entry, which is sent whatever it takes


class LedgerPage(Struct, frozen=True, kw_only=True):
    """What lies past generation ``after``, oldest first; more may follow where the last is not the head.

    ``generation`` and ``head`` are the newest generation and its hash, ``previous`` is the hash of the newest one at or
    below ``after`` ("" where there is none): whoever asks compares it with its own. The bytes of ``entries`` are those of
    the ledger's files.
    """

    after: int = 0
    generation: int = 0
    head: str = ""
    previous: str = ""
    entries: tuple[Raw, ...] = ()


class PageError(ValueError):
    """A page that is none, or does not continue the ledger it was asked for."""


def read(ledger: Ledger, after: int) -> LedgerPage:
    """Return what ``ledger`` holds past generation ``after``.

    Raises
    ------
    DamagedLedgerError
        If one of these generations, the one before or the head is not what was recorded.
    """
    generations = ledger.generations()
    if not generations:
        return LedgerPage(after=after)
    place = bisect_right(generations, after)
    head = ledger.read(generations[-1])
    return LedgerPage(
        after=after,
        generation=head.entry.generation,
        head=head.hash,
        previous=ledger.read(generations[place - 1]).hash if place else "",
        entries=tuple(map(Raw, _read_files(ledger, generations[place : place + MAX_ENTRIES]))),
    )


def parse(body: bytes) -> LedgerPage:
    """Return the page that ``body`` holds.

    Raises
    ------
    PageError
        If it holds something else.
    """
    try:
        return msgspec.json.decode(body, type=LedgerPage)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PageError(f"no page of a ledger: {error}") from None


def check(page: LedgerPage, history: History) -> tuple[tuple[bytes, ...], tuple[Recorded, ...]]:
    """Return the files of ``page`` and what they record, if they continue ``history``, which was asked beyond.

    Raises
    ------
    PageError
        If the ledger it comes from is another, was cut short or forked, or an entry is not what was recorded.
    """
    _check_place(page, history)
    files = tuple(map(bytes, page.entries))
    try:
        found = check_files(files, history)
    except (DamagedLedgerError, RuleBrokenError) as error:
        raise PageError(str(error)) from None
    last = found[-1] if found else history.head
    reached = (last.entry.generation, last.hash) if last else (0, "")
    if reached[0] >= page.generation and reached != (page.generation, page.head):
        raise PageError(
            f"its head is not what its entries end at: {page.generation} {page.head[:12]}, and {reached[0]} {reached[1][:12]}"
        )
    if not found and reached[0] < page.generation:
        raise PageError(f"its head is at generation {page.generation}, and nothing follows {reached[0]}")
    return files, found


def _check_place(page: LedgerPage, history: History) -> None:
    if page.after != history.generation:
        raise PageError(f"it answers what lies past {page.after}, asked was {history.generation}")
    if page.generation < history.generation:
        raise PageError(
            f"its ledger was cut short: it ends at generation {page.generation}, the copy at {history.generation}"
        )
    if page.previous != history.hash:
        theirs, ours = page.previous[:12] or "nothing", history.hash[:12] or "nothing"
        raise PageError(
            f"its ledger is another one, or forked: at generation {history.generation} it has {theirs}, the copy {ours}"
        )


def _read_files(ledger: Ledger, generations: Sequence[int]) -> list[bytes]:
    files: list[bytes] = []
    n_bytes = 0
    for generation in generations:
        data = ledger.read_file(generation)
        n_bytes += len(data)
        if files and n_bytes > MAX_BYTES:
            break
        files.append(data)
    return files
