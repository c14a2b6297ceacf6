"""Requests that wait for the next release: whoever has the current one already may ask to hear of it at once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from serving.view import ReleaseView


class Guest(Protocol):
    """A connection on which something waits."""

    gone: bool


C = TypeVar("C", bound=Guest)
W = TypeVar("W")  # what waits


@dataclass(frozen=True, slots=True)
class _Seat(Generic[W]):
    waiting: W
    until: float
    seen: ReleaseView


class Lobby(Generic[C, W]):
    """Who waits, at most one per connection. ``view`` tells what is served now; times are the event loop's."""

    def __init__(self, view: Callable[[], ReleaseView]) -> None:
        """Begin empty."""
        self._view = view
        self._seats: dict[C, _Seat[W]] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, connection: C, waiting: W, until: float) -> None:
        """Let ``waiting`` wait until another release is served, at the longest ``until`` then."""
        self._seats[connection] = _Seat(waiting, until, self._view())

    def call(self, connection: C) -> W | None:
        """Return what waits on a connection, which then waits no more; None where nothing does."""
        seat = self._seats.pop(connection, None)
        return None if seat is None else seat.waiting

    def leave(self, now: float, *, everyone: bool = False) -> Iterator[W]:
        """Yield whatever has waited long enough, or for what has come; ``everyone`` ends all waiting.

        What waits on a connection that is gone is dropped.
        """
        view = self._view()
        for connection, seat in list(self._seats.items()):
            if connection.gone or everyone or seat.until <= now or seat.seen is not view:
                del self._seats[connection]
                if not connection.gone:
                    yield seat.waiting
