"""HTTP/1.1 for the shim: an asyncio protocol on httptools, bounded before anything is parsed, in order, never blocking."""

import asyncio
from typing import cast

import httptools

from serving.exchange import Exchange
from serving.messages import Request, Response
from serving.problems import Problem
from serving.replies import Replies
from serving.routes import PUBLIC_PATHS

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_SPECIAL = frozenset({"connection", "expect", "transfer-encoding", "upgrade"})
_PATIENT_BYTES = 64 * 1024  # a body up to this size is read before its request is judged


class HttpProtocol(asyncio.Protocol):
    """One connection. Requests may be pipelined; each is answered in its turn, and what is wrong with one costs no other.

    What cannot be framed any more (a malformed head, a body that is too large or too slow) is answered after those before
    it, and ends the connection. ``deadline`` is when the connection has waited long enough for whatever it waits for.
    """

    _headers: dict[str, str]
    _body: list[bytes]
    _refusal: Problem | None

    def __init__(self, exchange: Exchange, replies: Replies, connections: "set[HttpProtocol]") -> None:
        """Serve a connection yet to be made, one of ``connections``."""
        self._exchange = exchange
        self._limits = exchange.limits
        self._replies = replies
        self._heads = replies.heads
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self.gone = False
        self.deadline = 0.0
        self._state = "idle"  # then head, body, and idle again; closing, once nothing more is read
        self._n_waiting = 0  # requests that are not answered yet
        self._last = False  # no request follows those that wait
        self._reading = True
        self._resting = False  # until there is room; what it asks meanwhile waits
        self._backlog = b""
        self._unread = False  # the other side does not read what it is sent
        self._n_unread = 0  # how many bytes of it, when last looked at
        self._begun = b""  # what the parser was given last, where a head begins with it
        self._begin()

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start waiting for the first head; one connection too many is told so and closed."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are, but do not say so
        self._transport.set_write_buffer_limits(high=self._limits.max_unread_bytes)
        self._connections.add(self)
        self._exchange.n_connections += 1
        self._wait(self._limits.head_seconds)
        if self._exchange.n_connections > self._limits.max_connections:
            self._refuse(Problem(503, f"more than {self._limits.max_connections} connections are open"))
            self._exchange.settle()

    def connection_lost(self, _: Exception | None) -> None:
        """Forget the connection and what it had begun."""
        self.gone = True
        self._forget_body()
        self._connections.discard(self)
        self._exchange.n_connections -= 1

    def data_received(self, data: bytes) -> None:
        """Read; what is whole is answered in this turn of the loop."""
        if self._is_quiet() and self._exchange.reply(self, data, self._replies):
            self._n_waiting += 1
            self._wait(self._limits.keep_alive_seconds)
            return
        if self._state == "closing":
            return  # read and thrown away, so that its sender hears why
        data = self._backlog + data
        self._backlog = b""
        if self._state == "idle" and not self._last:
            data = self._take_known(data)
        if self._resting and self._state == "idle":
            self._backlog = data
        elif data and self._state != "closing":
            self._parse(data)
        self._exchange.settle()
        self._throttle()

    def eof_received(self) -> bool:
        """Keep half a connection open for as long as answers are due; what was not whole yet never will be."""
        if self._resting:
            self.resume()
        self._last = True
        if self._state != "idle":
            self._state = "closing"
            self._forget_body()
        return self._n_waiting > 0

    def pause_writing(self) -> None:
        """Read no more of one who does not read."""
        self._unread = True
        self._n_unread = self._n_outstanding()
        self._throttle()
        self._wait(self._limits.write_seconds)

    def resume_writing(self) -> None:
        """Go on."""
        self._unread = False
        self._throttle()
        self._wait(self._limits.keep_alive_seconds if self._state == "idle" else self._limits.head_seconds)

    def resume(self) -> None:
        """Read on, after a rest."""
        self._resting = False
        self.data_received(b"")
        self._throttle()  # one that is closing is read as well, so that its sender hears why

    def expire(self) -> None:
        """End a connection whose deadline has passed; one who is sending a body hears why."""
        if self._state == "body":
            self._refuse(Problem(408, f"the body did not arrive within {self._limits.body_seconds:g} s"))
            self._exchange.settle()
        elif self._unread and self._is_catching_up():
            self._wait(self._limits.write_seconds)
        elif self._state == "idle" and not self._unread and self._transport is not None:
            self._transport.close()
        else:
            self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def drain(self) -> None:
        """End the connection once what it has begun is answered."""
        self._last = True
        if self._state == "idle" and not self._n_waiting and self._transport is not None:
            self._transport.close()

    def deliver(self, response: Response, request: Request | None) -> None:
        """Send the response to the oldest request that waits."""
        if self._transport is None:
            return
        self._n_waiting -= 1
        ends = self._last and not self._n_waiting and self._state in ("idle", "closing")
        headless = request is not None and request.method == "HEAD"
        self._send(self._replies.encode(response, closing=ends, headless=headless), ends=ends)

    def send(self, reply: bytes) -> None:
        """Send the whole reply to the oldest request that waits."""
        self._n_waiting -= 1
        self._send(reply, ends=self._last and not self._n_waiting and self._state in ("idle", "closing"))

    def _send(self, reply: bytes, *, ends: bool) -> None:
        if self._transport is None:
            return
        self._transport.write(reply)
        if not ends:
            if not self._reading:
                self._n_unread = self._n_outstanding()
                self._throttle()
            return
        if self._state == "closing":
            self._linger()
        else:
            self._transport.close()

    # -- the parser's events

    def on_message_begin(self) -> None:
        """Start waiting for this request's head."""
        if self._state == "closing":
            return
        self._begin()
        self._state = "head"
        self._wait(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """Take the next part of the target."""
        if self._state == "closing":
            return
        self._url += url
        self._n_head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a chunked body is not read."""
        if self._state != "head":
            return
        self._n_head_bytes += len(name) + len(value)
        key = name.lower().decode("latin-1")
        text = value.decode("latin-1")
        held = self._headers.get(key)
        if held is not None:
            if key == "host":
                self._refusal = Problem(400, "there must be one host header")
            text = f"{held}, {text}"
        self._headers[key] = text
        self._n_headers += 1

    def on_headers_complete(self) -> None:
        """Judge the head before the body is read."""
        if self._state == "closing":
            return
        if self._n_headers > self._limits.max_headers or self._n_head_bytes > self._limits.max_head_bytes:
            self._refuse(self._head_too_large())
            return
        parser, headers = self._parser, self._headers
        path, _, query = self._url.decode("latin-1").partition("?")
        self._request = Request(parser.get_method().decode("latin-1"), path, query, headers)
        self._last = self._last or self._exchange.handler.draining or not parser.should_keep_alive()
        if "host" not in headers and parser.get_http_version() == "1.1":
            self._refusal = Problem(400, "there must be a host header")
        self._state = "body"
        self._learn_head()
        length = headers.get("content-length")
        chunked = "transfer-encoding" in headers
        if chunked or (length is not None and length != "0"):
            self._await_body(None if chunked else int(length or 0))
        elif path not in PUBLIC_PATHS:
            self._refusal = self._refusal or self._exchange.overload()

    def on_body(self, chunk: bytes) -> None:
        """Take the next part of the body, as long as it may be."""
        if self._state == "closing" or self._refusal is not None:
            return
        self._n_body_bytes += len(chunk)
        self._exchange.n_bodies_bytes += len(chunk)
        if self._n_body_bytes > self._limits.max_body_bytes:
            self._refuse(self._body_too_large())
        elif self._exchange.n_bodies_bytes > self._limits.max_bodies_bytes:
            self._refuse(Problem(503, "too much is being received"))
        else:
            self._body.append(chunk)

    def on_message_complete(self) -> None:
        """Hand the request over."""
        if self._state == "closing":
            return
        request = self._request
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            request = request._replace(body=body)
        self._forget_body()
        self._state = "idle"
        self._submit(request, self._refusal)

    # -- within

    def _is_quiet(self) -> bool:
        """Tell whether nothing is begun, or waits, or is to end: the next bytes begin a request that is answered next."""
        return self._state == "idle" and not (self._n_waiting or self._backlog or self._last or self._resting)

    def _submit(self, request: Request, problem: Problem | None) -> None:
        if self._n_waiting >= self._limits.max_pipelined:
            self._refuse(Problem(503, f"more than {self._limits.max_pipelined} requests of one connection wait"))
            return
        self._n_waiting += 1
        self._exchange.submit(self, request, None if problem is None else self._exchange.handler.refuse(problem))
        self._wait(self._limits.keep_alive_seconds)
        if problem is not None and problem.status == 503:  # noqa: PLR2004 - no room
            self._rest()

    def _rest(self) -> None:
        """Read no more until there is room."""
        if not self._resting:
            self._resting = True
            self._exchange.rest(self)

    def _parse(self, data: bytes) -> None:
        in_head = self._state == "head"
        self._begun = data if self._state == "idle" else b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._last = True  # no protocol is changed to: the request was answered as it stands
            self._state = "closing"
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError as error:
            if self._last:
                self._state = "closing"  # nothing was to follow
            elif self._state != "closing":
                self._refuse(Problem(400, f"not HTTP: {error}"))
        if in_head and self._state == "head":
            self._n_raw_bytes += len(data)
            if self._n_raw_bytes > self._limits.max_head_bytes:
                self._refuse(self._head_too_large())

    def _take_known(self, data: bytes) -> bytes:
        """Take the requests whose heads were parsed before, and return the rest for the parser."""
        while data and self._state == "idle" and not self._resting:
            taken = self._heads.take(data)
            if taken is None:
                break
            request, rest = taken
            problem = None if request.path in PUBLIC_PATHS else self._exchange.overload()
            if problem is not None and self._n_waiting:
                self._rest()  # whoever waits for answers need not be refused to be slowed
                break
            data = rest
            if self._exchange.handler.draining:
                self._last = True
            self._submit(request, problem)
        return data

    def _learn_head(self) -> None:
        """Remember a head that asks for nothing special."""
        begun, headers = self._begun, self._headers
        self._begun = b""
        n_bytes = int(headers.get("content-length", "0"))
        special = self._last or self._refusal is not None or _SPECIAL & headers.keys() or self._parser.should_upgrade()
        if special or n_bytes > _PATIENT_BYTES:
            return
        handler = self._exchange.handler
        try:
            request = self._request._replace(opened=handler.open(self._request))
        except Problem:
            return  # a head that is refused is refused anew each time
        self._heads.learn(begun, request, n_bytes, form=handler.form_of(request))

    def _begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._n_headers = 0
        self._n_head_bytes = 0
        self._n_raw_bytes = 0  # of a head that came in several parts
        self._request = Request("", "")
        self._body = []
        self._n_body_bytes = 0
        self._counted = False
        self._refusal = None

    def _await_body(self, n_bytes: int | None) -> None:
        """Refuse at once a body that is too large, or that nobody may send; else ask for it and wait."""
        self._wait(self._limits.body_seconds)
        if n_bytes is not None and n_bytes > self._limits.max_body_bytes:
            self._refuse(self._body_too_large())
            return
        expectation = self._headers.get("expect", "").lower()
        if expectation or n_bytes is None or n_bytes > _PATIENT_BYTES:
            problem = self._refusal or self._exchange.overload() or self._exchange.handler.preview(self._request)
            if expectation not in ("", "100-continue"):
                problem = Problem(417, f"the expectation {expectation!r} cannot be met")
            if problem is not None:
                self._refuse(problem)
                return
        if expectation and not self._n_waiting and self._transport is not None:
            self._transport.write(_CONTINUE)
        self._refusal = self._refusal or self._exchange.overload()
        self._exchange.n_bodies += 1
        self._counted = True

    def _forget_body(self) -> None:
        if self._counted:
            self._exchange.n_bodies -= 1
            self._exchange.n_bodies_bytes -= self._n_body_bytes
            self._counted = False
        self._body = []

    def _refuse(self, problem: Problem) -> None:
        """Answer in its turn that this request cannot be read, the last of its connection."""
        self._forget_body()
        self._state = "closing"
        self._last = True
        self._n_waiting += 1
        self._exchange.submit(self, None, self._exchange.handler.refuse(problem))
        self._wait(self._limits.linger_seconds)

    def _linger(self) -> None:
        """Close only once the other side has had time to read: what it still sends would make the kernel reset it."""
        if self._transport is None:
            return
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._wait(self._limits.linger_seconds)

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

    def _wait(self, seconds: float) -> None:
        self.deadline = self._loop.time() + seconds

    def _head_too_large(self) -> Problem:
        rule = f"{self._limits.max_headers} headers of {self._limits.max_head_bytes} bytes"
        return Problem(431, f"the head may hold {rule}")

    def _body_too_large(self) -> Problem:
        return Problem(413, f"a body may hold {self._limits.max_body_bytes} bytes")
