"""Connections whose requests found no room: they are not read until there is some."""

import asyncio
from collections import deque
from collections.abc import Callable

from serving.connection import Connection

_LOOK_SECONDS = 0.005  # between two looks whether there is room


class Rests:
    """Connections that rest, who rested longest first. ``room`` tells for how many requests there is room.

    Refusing takes time that answers need; without rests a flood of requests would get nothing but refusals.
    """

    def __init__(self, room: Callable[[], int]) -> None:
        """Begin with nobody, on the running loop."""
        self._room = room
        self._loop = asyncio.get_running_loop()
        self._resting: deque[Connection] = deque()
        self._look_due = False

    def __len__(self) -> int:
        """Return how many rest; of those that are gone some may count."""
        return len(self._resting)

    def add(self, connection: Connection) -> None:
        """Let a connection rest until there is room for a request of it and of those who rest already."""
        self._resting.append(connection)
        self._look_again()

    def _look_again(self) -> None:
        if self._resting and not self._look_due:
            self._look_due = True
            self._loop.call_later(_LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._look_due = False
        for _ in range(min(len(self._resting), self._room())):
            connection = self._resting.popleft()
            if not connection.gone:
                connection.resume()
        self._look_again()
