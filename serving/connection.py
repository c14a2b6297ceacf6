"""What answers are sent to, whatever carries them; ``serving.protocol.HttpProtocol`` is one."""

from collections.abc import Iterator
from typing import Protocol

from serving.messages import Request, Response


class Connection(Protocol):
    """Where answers go."""

    gone: bool

    def resume(self) -> None:
        """Read on, after a rest."""

    def deliver(self, response: Response, request: Request | None) -> None:
        """Send the response to the oldest request that waits; without ``request`` it was refused before it was whole."""


class Direct(Connection, Protocol):
    """A connection that takes whole replies as well."""

    n_told: int  # replies that it is still to be sent

    def read(self, data: bytes) -> None:
        """Read what it sent, for the whole path."""

    def send(self, reply: bytes) -> None:
        """Send replies to the oldest requests that wait."""

    def again(self, data: bytes) -> Iterator[Request | None]:
        """Yield the requests whose replies must not be sent; None for one that cannot be read any more."""

    def abort(self) -> None:
        """End the connection at once."""
