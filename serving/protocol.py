"""HTTP/1.1 for the shim: an asyncio protocol that answers in order, reads no more than is answered, and never blocks."""

import asyncio
from collections.abc import Iterator
from typing import cast

from serving.exchange import Exchange
from serving.messages import Request, Response
from serving.problems import Problem
from serving.request_reader import RequestReader
from serving.routes import PUBLIC_PATHS

_ORDINARY_BYTES = 128 * 1024  # that one connection may send before they are looked at
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class HttpProtocol(asyncio.Protocol):
    """One connection. Requests may be pipelined; each is answered in its turn, and what is wrong with one costs no other.

    What cannot be framed any more (a malformed head, a body that is too large or too slow) is answered after those before
    it, and ends the connection. ``deadline`` is when the connection has waited long enough for whatever it waits for.
    """

    def __init__(self, exchange: Exchange, connections: "set[HttpProtocol]") -> None:
        """Serve a connection yet to be made, one of ``connections``."""
        self._exchange = exchange
        self._limits = exchange.limits
        self._replies = exchange.replies
        self._heads = exchange.replies.heads
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = RequestReader(self, exchange, self._heads)
        self.gone = False
        self.deadline = 0.0
        self.n_told = 0  # replies to come before those to
        self._n_waiting = 0  # the requests that are not answered yet
        self._reading = True
        self._resting = False  # until there is room; what it asks meanwhile waits
        self._has_rested = False  # and its next request is before those of who has not
        self._backlog = b""
        self._unread = False  # the other side does not read what it is sent
        self._n_unread = 0  # how many bytes of it, when last looked at

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for the first head; one connection too many is told so and closed."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not say so
        self._transport.set_write_buffer_limits(high=self._limits.max_unread_bytes)
        self._connections.add(self)
        self._exchange.n_connections += 1
        self.wait(self._limits.head_seconds)
        if self._exchange.n_connections > self._limits.max_connections:
            self.refuse(Problem(503, f"more than {self._limits.max_connections} connections are open"))
            self._exchange.settle()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection and what it had begun."""
        self.gone = True
        self._exchange.recall(self)
        self._reader.forget_body()
        self._connections.discard(self)
        self._exchange.n_connections -= 1

    def data_received(self, data: bytes) -> None:
        """Take what was sent; what is whole is answered in this turn of the loop."""
        data = self._exchange.recall(self) + data
        if self._is_quiet() and len(data) <= _ORDINARY_BYTES:
            self._exchange.arrive(self, data)
        else:
            self.read(data)

    def read(self, data: bytes) -> None:
        """Read, for the whole path."""
        if self._reader.state == "closing":
            return  # read and thrown away, so that its sender hears why
        data = self._backlog + data
        self._backlog = b""
        if self._reader.state == "idle" and not self._reader.last:
            data = self._take_known(data)
        if self._resting and self._reader.state == "idle":
            self._backlog = data
        elif data and self._reader.state != "closing":
            self._reader.feed(data)
        self._exchange.settle()
        self._throttle()

    def eof_received(self) -> bool:
        """Keep half a connection open for as long as answers are due; what was not whole yet never will be."""
        if self._resting:
            self.resume()
        self._read_early()
        self._reader.last = True
        if self._reader.state != "idle":
            self._reader.state = "closing"
            self._reader.forget_body()
        return self._is_owed()

    def pause_writing(self) -> None:
        """Read no more of one who does not read."""
        self._unread = True
        self._n_unread = self._n_outstanding()
        self._throttle()
        self.wait(self._limits.write_seconds)

    def resume_writing(self) -> None:
        """Go on."""
        self._unread = False
        self._throttle()
        self.wait(self._limits.keep_alive_seconds if self._reader.state == "idle" else self._limits.head_seconds)

    def resume(self) -> None:
        """Read on, after a rest."""
        self._resting = False
        self._has_rested = True
        self.read(b"")
        self._throttle()  # one that is closing is read as well, so that its sender hears why

    def expire(self) -> None:
        """End a connection whose deadline has passed; one who is sending a body hears why."""
        if self._read_early():
            return  # it came in time
        if self._reader.state == "body":
            self.refuse(Problem(408, f"the body did not arrive within {self._limits.body_seconds:g} s"))
            self._exchange.settle()
        elif self._unread and self._is_catching_up():
            self.wait(self._limits.write_seconds)
        elif self._reader.state == "idle" and not self._unread and self._transport is not None:
            self._transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """End the connection once what it has begun is answered."""
        self._read_early()
        self._reader.last = True
        if self._reader.state == "idle" and not self._is_owed() and self._transport is not None:
            self._transport.close()

    def deliver(self, response: Response, request: Request | None) -> None:
        """Send the response to the oldest request that waits."""
        if self._transport is None:
            return
        self._n_waiting -= 1
        ends = self._ends()
        headless = request is not None and request.method == "HEAD"
        self._send(self._replies.encode(response, closing=ends, headless=headless), ends=ends)

    def send(self, reply: bytes) -> None:
        """Send replies to the oldest requests that wait."""
        self.n_told -= 1
        self.wait(self._limits.keep_alive_seconds)
        if self._reading and not self._reader.last and self._transport is not None:  # as good as always
            self._transport.write(reply)
            return
        self._send(reply, ends=self._ends())

    def again(self, data: bytes) -> Iterator[Request | None]:
        """Yield the requests whose replies must not be sent, and which wait anew; None for those whose head is not known any more."""
        self.n_told -= 1
        while data:
            self._n_waiting += 1
            taken = self._heads.take(data)
            if taken is None:
                yield None
                return
            request, data = taken
            yield request

    def _send(self, reply: bytes, *, ends: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(reply)
        if not ends:
            if not self._reading:
                self._n_unread = self._n_outstanding()
                self._throttle()
            return
        if self._reader.state == "closing":
            self._linger()
        else:
            self._transport.close()

    # -- what is read

    def wait(self, seconds: float) -> None:
        """Give the other side so long for what comes next."""
        self.deadline = self._loop.time() + seconds

    def invite(self) -> None:
        """Ask for a body, unless answers to earlier requests are due first."""
        if not self._is_owed() and self._transport is not None:
            self._transport.write(_CONTINUE)

    def overload(self) -> Problem | None:
        """Return why the next request should come later, None where there is room."""
        return self._exchange.overload(after_rests=not self._has_rested)

    def submit(self, request: Request, problem: Problem | None) -> None:
        """Take a whole request, and what is wrong with it."""
        self._has_rested = False
        if self._n_waiting >= self._limits.max_pipelined:
            self.refuse(Problem(503, f"more than {self._limits.max_pipelined} requests of one connection wait"))
            return
        self._n_waiting += 1
        response = None if problem is None else self._exchange.handler.refuse(problem)
        self._exchange.submit(self, request, response, is_first=self._n_waiting == 1)
        self.wait(self._limits.keep_alive_seconds)
        if problem is not None and problem.status == 503:  # noqa: PLR2004 - no room
            self._rest()

    def refuse(self, problem: Problem) -> None:
        """Answer in its turn that this request cannot be read, the last of its connection."""
        self._reader.forget_body()
        self._reader.state = "closing"
        self._reader.last = True
        self._n_waiting += 1
        self._exchange.submit(self, None, self._exchange.handler.refuse(problem))
        self.wait(self._limits.linger_seconds)

    # -- within

    def _is_quiet(self) -> bool:
        """Tell whether nothing is begun, waits or is to end: the next bytes begin a request that is next."""
        reader = self._reader
        return reader.state == "idle" and not (self._n_waiting or self._backlog or reader.last or self._resting)

    def _is_owed(self) -> bool:
        return self._n_waiting > 0 or self.n_told > 0

    def _ends(self) -> bool:
        """Tell whether the reply that is sent now is the last."""
        return self._reader.last and not self._is_owed() and self._reader.state in ("idle", "closing")

    def _read_early(self) -> bool:
        """Read what has arrived and is not decided yet; return whether there was any."""
        if early := self._exchange.recall(self):
            self.read(early)
        return bool(early)

    def _rest(self) -> None:
        """Read no more until there is room."""
        if not self._resting:
            self._resting = True
            self._exchange.rest(self)

    def _take_known(self, data: bytes) -> bytes:
        """Take the requests whose heads were parsed before, and return the rest for the parser."""
        while data and self._reader.state == "idle" and not self._resting:
            taken = self._heads.take(data)
            if taken is None:
                break
            request, rest = taken
            problem = None if request.path in PUBLIC_PATHS else self.overload()
            if problem is not None and (self._n_waiting or self._has_rested):
                self._rest()  # whoever waits for answers need not be refused to be slowed, and who has rested is told nothing new
                break
            data = rest
            if self._exchange.handler.draining:
                self._reader.last = True
            self.submit(request, problem)
        return data

    def _linger(self) -> None:
        """Close only once the other side has had time to read: what it still sends would make the kernel reset it."""
        if self._transport is None:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.wait(self._limits.linger_seconds)

    def _throttle(self) -> None:
        """Read on only from one who reads its answers, and waits for few."""
        reading = not (self._unread or self._resting) and self._n_waiting <= self._limits.turn_requests
        if self._transport is None or self.gone or reading == self._reading:
            return
        self._reading = reading
        (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _is_catching_up(self) -> bool:
        """Return whether a good part of what was outstanding has been read since last looked: a large answer takes its time."""
        before, self._n_unread = self._n_unread, self._n_outstanding()
        return self._n_unread <= before - self._limits.max_unread_bytes // 4

    def _n_outstanding(self) -> int:
        return 0 if self._transport is None else self._transport.get_write_buffer_size()
