"""The one clock: decision times, windows, evidence age and cool-downs all read it, so that time can be replayed."""

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Anything that tells the present instant."""

    def now(self) -> datetime:
        """Return the present instant, aware and in UTC."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> datetime:
        """Return the machine's present instant in UTC."""
        return datetime.now(UTC)


@dataclass(kw_only=True)
class ReplayClock:
    """Time that its owner moves: for replaying outcomes of the past and for tests.

    Requests in flight carry slightly different instants, so the clock keeps the latest: it never runs backwards.
    """

    at: datetime
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def now(self) -> datetime:
        """Return the replayed instant."""
        return self.at

    def advance(self, at: datetime) -> None:
        """Move to ``at`` unless the clock is already past it."""
        with self._lock:
            self.at = max(self.at, utc(at))


def utc(instant: datetime) -> datetime:
    """Return ``instant`` in UTC.

    Raises
    ------
    ValueError
        If it is naive: an instant without a zone is a guess.
    """
    if instant.tzinfo is None:
        raise ValueError(f"instants must carry a zone, got {instant.isoformat()}")
    return instant.astimezone(UTC)
