r"""Requests as length-prefixed frames, for callers on this machine who can do without HTTP.

A frame is its length (four bytes, big-endian, of what follows) and its content. A request's content is a line
``METHOD /path?query\n`` and the body, which is JSON; a response's is the status (two bytes, big-endian) and the body.
Requests may follow each other without waiting; responses come in their order. Whoever may open the socket has every role:
its file belongs to the shim's user alone.
"""

import asyncio
import struct
from typing import cast

from serving.exchange import Exchange
from serving.messages import Request, Response
from serving.problems import Problem
from serving.routes import PUBLIC_PATHS

_LENGTH = struct.Struct(">I")
_ANSWER = struct.Struct(">IH")
_HEADERS = {"content-type": "application/json"}


class FrameProtocol(asyncio.Protocol):
    """One connection of frames. What cannot be framed is answered, and ends it."""

    def __init__(self, exchange: Exchange, connections: "set[FrameProtocol]") -> None:
        """Serve a connection yet to be made, one of ``connections``."""
        self._exchange = exchange
        self._connections = connections
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._n_waiting = 0
        self._last = False
        self._unread = False
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not say so
        self._transport.set_write_buffer_limits(high=self._exchange.limits.max_unread_bytes)
        self._connections.add(self)
        self._exchange.n_connections += 1

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection."""
        self.gone = True
        self._connections.discard(self)
        self._exchange.n_connections -= 1

    def data_received(self, data: bytes) -> None:
        """Take every frame that is whole."""
        received = self._received
        received += data
        at = 0
        while not self._last and len(received) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(received, at)
            if length > self._exchange.limits.max_body_bytes:
                self._refuse(Problem(413, f"a frame may hold {self._exchange.limits.max_body_bytes} bytes"))
                break
            if len(received) - at < _LENGTH.size + length:
                break
            at += _LENGTH.size
            self._take(bytes(received[at : at + length]))
            at += length
        del received[:at]
        self._exchange.settle()
        self._throttle()

    def pause_writing(self) -> None:
        """Read no more of one who does not read."""
        self._unread = True
        self._throttle()

    def resume_writing(self) -> None:
        """Go on."""
        self._unread = False
        self._throttle()

    def deliver(self, response: Response, _: Request | None) -> None:
        """Send the response to the oldest request that waits."""
        if self._transport is None:
            return
        self._n_waiting -= 1
        self._transport.write(_ANSWER.pack(2 + len(response.body), response.status) + response.body)
        if self._last and not self._n_waiting:
            self._transport.close()
        else:
            self._throttle()

    def resume(self) -> None:
        """Do nothing: frames come from the machine itself, and take no rests."""

    def drain(self) -> None:
        """End the connection once what it asked is answered."""
        self._last = True
        if not self._n_waiting and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def _take(self, content: bytes) -> None:
        line, newline, body = content.partition(b"\n")
        method, space, target = line.decode("latin-1").partition(" ")
        if not newline or not space:
            self._refuse(Problem(400, "a frame begins with a line: METHOD /path"))
            return
        path, _, query = target.partition("?")
        overload = None if path in PUBLIC_PATHS else self._exchange.overload()
        response = None if overload is None else self._exchange.handler.refuse(overload)
        self._n_waiting += 1
        request = Request(method, path, query, _HEADERS, body, trusted=True)
        self._exchange.submit(self, request, response)

    def _refuse(self, problem: Problem) -> None:
        self._last = True
        self._n_waiting += 1
        self._exchange.submit(self, None, self._exchange.handler.refuse(problem))

    def _throttle(self) -> None:
        if self._transport is None or self.gone:
            return
        if self._unread or self._n_waiting > self._exchange.limits.turn_requests:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()
