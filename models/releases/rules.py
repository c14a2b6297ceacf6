"""What a generation may say: the rules that refuse an entry, each by its name."""

from datetime import timedelta

from models.releases import canonical, effects
from models.releases import entry as entries
from models.releases.canonical import NotCanonicalError
from models.releases.entry import Entry, Gap, StreamRelease
from models.releases.history import History
from models.releases.refusal import refuse


def normalise(entry: Entry) -> Entry:
    """Return ``entry`` as it will read back.

    Raises
    ------
    RuleBrokenError
        ``instant`` if it is not in UTC, ``share`` if a share lies outside [0, 1], ``shape`` for all else that cannot be
        read back.
    """
    if entry.at.tzinfo is None or entry.at.utcoffset() != timedelta(0):
        refuse("instant", entry, f"at must be in UTC, got {entry.at.isoformat()}")
    for name, release in entry.streams.items():
        if not 0.0 <= release.canary_share <= 1.0:
            refuse("share", entry, f"the canary share of {name!r} must lie in [0, 1], got {release.canary_share}")
    try:
        return canonical.normalise(entry)
    except NotCanonicalError as error:
        refuse("shape", entry, str(error))


def check(entry: Entry, history: History) -> None:
    """Refuse ``entry`` unless it may follow ``history``.

    ======================  ==========================================================================================
    ``generation``          one above the head's, or above the gap that a restore closes: none is used twice
    ``previous``            the hash of the head
    ``instant``             in UTC
    ``mode``, ``share``     a canary has its digest, its share and the mode ``canary``, or none of them; ``on`` has a champion
    ``revoked``             revocations only grow, and nothing revoked is released
    ``champion``            a champion was the canary a moment ago, or stood before
    ``action``              an entry changes what its action says, and nothing else
    ``gap``                 a restore says what it continues above, others have no gap
    ======================  ==========================================================================================

    Raises
    ------
    RuleBrokenError
        For the first rule that is broken.
    """
    check_place(entry, history)
    if entry.at.utcoffset() != timedelta(0):
        refuse("instant", entry, f"at must be in UTC, got {entry.at.isoformat()}")
    for name, release in entry.streams.items():
        _check_coherent(entry, name, release)
    _check_revoked(entry, history)
    if (entry.action == "genesis") != (history.head is None) and entry.action != "restore":
        refuse("action", entry, f"a ledger begins with genesis, got {entry.action!r} after {history.generation}")
    effects.check(entry, history)


def check_place(entry: Entry, history: History) -> None:
    """Refuse ``entry`` unless it is next in the chain: its generation, its gap and its predecessor's hash.

    Raises
    ------
    RuleBrokenError
        ``gap``, ``generation`` or ``previous``.
    """
    if (entry.gap is not None) != (entry.action == "restore"):
        refuse("gap", entry, f"a restore has one and nothing else does, got {entry.gap} with {entry.action!r}")
    if entry.gap is not None:
        _check_gap(entry, entry.gap, history)
    above = entry.gap.generation if entry.gap else history.generation
    if entry.generation != above + 1:
        refuse("generation", entry, f"the next is {above + 1}")
    if entry.previous != history.hash:
        refuse("previous", entry, f"the head's hash is {history.hash!r}, the entry follows {entry.previous!r}")


def _check_gap(entry: Entry, gap: Gap, history: History) -> None:
    if gap.generation < history.generation or gap.hash == history.hash:
        refuse("gap", entry, f"nothing is lost: the head is {history.generation}, the shims served {gap.generation}")
    if gap.entry is not None:
        lost = entries.decode(entries.encode(gap.entry))
        if (lost.entry.generation, lost.hash) != (gap.generation, gap.hash):
            refuse("gap", entry, f"the lost entry is {lost.entry.generation} with hash {lost.hash}, not {gap.hash}")


def _check_coherent(entry: Entry, name: str, release: StreamRelease) -> None:
    if (release.mode == "canary") != (release.canary is not None):
        refuse("mode", entry, f"{name!r} has mode {release.mode!r} and canary {release.canary}: both or neither")
    if release.canary is None and release.canary_share:
        refuse("share", entry, f"{name!r} has no canary, and a canary share of {release.canary_share}")
    if release.mode == "on" and release.champion is None:
        refuse("mode", entry, f"{name!r} is on without a champion")
    if release.canary is not None and release.canary == release.champion:
        refuse("champion", entry, f"the canary of {name!r} is its champion already: {release.canary}")


def _check_revoked(entry: Entry, history: History) -> None:
    before, after = set(history.revoked), set(entry.revoked)
    if before - after or (after - before and entry.action not in ("revoke", "restore")):
        refuse("revoked", entry, f"revocations only grow, by a revoke: {sorted(before)} became {sorted(after)}")
    if len(after) != len(entry.revoked):
        refuse("revoked", entry, "a digest is revoked twice")
    released = {digest for release in entry.streams.values() for digest in release.digests()} | set(
        entry.models.values()
    )
    if released & after:
        refuse("revoked", entry, f"{min(released & after)} is revoked")
