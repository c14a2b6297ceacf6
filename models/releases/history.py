"""What a chain of generations adds up to: the head, every champion that ever stood, and the line of succession."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from models.releases.entry import Action, Entry, Recorded, StreamRelease

Lines = Mapping[str, tuple[str, ...]]
_UNKNOWN_STREAM = StreamRelease()


@dataclass(frozen=True, kw_only=True)
class History:
    """The past that the next generation must agree with.

    ``stood`` holds per stream every champion there ever was. ``lines`` holds per stream the succession that led to the
    present champion, oldest first: a promotion adds to it, a rollback cuts it back, so that a champion which was rolled
    back is not what the next rollback returns to. ``model_lines`` is the same for the other models, by name. ``paused``
    holds the streams on which no canary begins, climbs or wins, ``rejected`` the digests that may not become a canary; each
    with the entry that says who and why.
    """

    head: Recorded | None = None
    stood: Lines = field(default_factory=dict)
    lines: Lines = field(default_factory=dict)
    model_lines: Lines = field(default_factory=dict)
    paused: Mapping[str, Entry] = field(default_factory=dict)
    rejected: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """The hash of the head, "" when nothing is recorded."""
        return self.head.hash if self.head else ""

    @property
    def generation(self) -> int:
        """The generation of the head, 0 when nothing is recorded."""
        return self.head.entry.generation if self.head else 0

    @property
    def streams(self) -> Mapping[str, StreamRelease]:
        """What each stream is released as."""
        return self.head.entry.streams if self.head else {}

    @property
    def models(self) -> Mapping[str, str]:
        """The digests of the other models."""
        return self.head.entry.models if self.head else {}

    @property
    def revoked(self) -> tuple[str, ...]:
        """The digests revoked so far."""
        return self.head.entry.revoked if self.head else ()

    def stream(self, name: str) -> StreamRelease:
        """Return what a stream is released as; one that was never mentioned is off."""
        return self.streams.get(name, _UNKNOWN_STREAM)

    def has_stood(self, stream: str, digest: str) -> bool:
        """Return whether ``digest`` was ever the champion of ``stream``."""
        return digest in self.stood.get(stream, ())

    def after(self, recorded: Recorded) -> "History":
        """Return the history with one more generation; whether it may follow is for ``rules`` to say."""
        entry = recorded.entry
        champions = {name: release.champion for name, release in entry.streams.items()}
        return History(
            head=recorded,
            stood={**self.stood, **_stood(self.stood, champions)},
            lines={**self.lines, **_succeed(self.lines, champions)},
            model_lines={**self.model_lines, **_succeed(self.model_lines, _with_removed(entry, self.model_lines))},
            paused=_toggle(self.paused, entry, on="pause", off="resume"),
            rejected=_toggle(self.rejected, entry, on="reject", off="readmit"),
        )


def fold(entries: Iterable[Recorded]) -> History:
    """Return the history that ``entries`` add up to, oldest first."""
    history = History()
    for recorded in entries:
        history = history.after(recorded)
    return history


def fallback(line: tuple[str, ...], revoked: Iterable[str]) -> str | None:
    """Return what stood before the last of ``line``, the latest that is not revoked; None when there is nothing."""
    refused = frozenset(revoked)
    return next((digest for digest in reversed(line[:-1]) if digest not in refused), None)


def _toggle(held: Mapping[str, Entry], entry: Entry, *, on: Action, off: Action) -> Mapping[str, Entry]:
    if entry.action == on:
        return {**held, str(entry.subject): entry}
    if entry.action == off:
        return {subject: kept for subject, kept in held.items() if subject != entry.subject}
    return held


def _stood(stood: Lines, champions: Mapping[str, str | None]) -> Lines:
    return {
        name: (*stood.get(name, ()), champion)
        for name, champion in champions.items()
        if champion is not None and champion not in stood.get(name, ())
    }


def _succeed(lines: Lines, present: Mapping[str, str | None]) -> Lines:
    return {name: _extend(lines.get(name, ()), digest) for name, digest in present.items()}


def _extend(line: tuple[str, ...], digest: str | None) -> tuple[str, ...]:
    if digest is None:
        return ()
    if digest in line:
        return line[: line.index(digest) + 1]
    return (*line, digest)


def _with_removed(entry: Entry, lines: Lines) -> Mapping[str, str | None]:
    return {**dict.fromkeys(lines), **entry.models}
