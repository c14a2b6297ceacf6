"""A broker for the replay: asks the shim over HTTP where each event should go, several at once, and reports the outcomes."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple, Self
from urllib.parse import urlsplit

RETRY_SECONDS = 0.25
GIVE_UP_SECONDS = 60.0


class Request(NamedTuple):
    """One request: the path, the body, and the replayed instant it is made at."""

    path: str
    body: bytes
    at: datetime


class RequestRefusedError(RuntimeError):
    """The shim refused a request of the replay: every one of them is meant to be valid."""


@dataclass(kw_only=True)
class Broker:
    """Sends requests over ``n_connections`` persistent connections; a shim that is away is asked again until it is back."""

    url: str
    n_connections: int = 16
    n_retries: int = 0
    _idle: "asyncio.Queue[_Connection]" = field(default_factory=asyncio.Queue, repr=False)

    async def __aenter__(self) -> Self:
        """Prepare the connections; each opens when it is first used."""
        address = urlsplit(self.url)
        for _ in range(self.n_connections):
            self._idle.put_nowait(_Connection(address.hostname or "127.0.0.1", address.port or 80))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        while not self._idle.empty():
            self._idle.get_nowait().close()

    async def send_all(self, requests: Iterable[Request]) -> Sequence[bytes]:
        """Send ``requests``, as many at once as there are connections; return the answers in their order."""
        return await asyncio.gather(*(self._send(request) for request in requests))

    async def _send(self, request: Request) -> bytes:
        connection = await self._idle.get()
        try:
            return await self._send_over(connection, request)
        finally:
            self._idle.put_nowait(connection)

    async def _send_over(self, connection: "_Connection", request: Request) -> bytes:
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        while True:
            try:
                status, body = await connection.post(request)
            except (OSError, asyncio.IncompleteReadError):
                connection.close()
                self.n_retries += 1
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if status == 503:  # noqa: PLR2004 - HTTP's "come back later"
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if status >= 300:  # noqa: PLR2004 - HTTP's first status that is no success
                raise RequestRefusedError(f"{request.path} answered {status}: {body[:500].decode(errors='replace')}")
            return body


class _Connection:
    """One keep-alive HTTP/1.1 connection, one request at a time."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, request: Request) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        head = (
            f"POST {request.path} HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
            f"turnout-time: {request.at.isoformat()}\r\ncontent-length: {len(request.body)}\r\n\r\n"
        )
        writer.write(head.encode("ascii") + request.body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status, n_body = _parse_head(answer)
        return status, await reader.readexactly(n_body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _parse_head(head: bytes) -> tuple[int, int]:
    lines = head.split(b"\r\n")
    lengths = (int(line[15:]) for line in lines if line[:15].lower() == b"content-length:")
    return int(lines[0][9:12]), next(lengths, 0)
