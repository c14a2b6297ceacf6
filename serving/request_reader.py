"""Requests out of the bytes of one connection: httptools' events, bounded, and judged before a body is read."""

from typing import Protocol

import httptools

from serving.exchange import Exchange
from serving.heads import KnownHeads
from serving.limits import Limits
from serving.messages import Request
from serving.problems import Problem
from serving.routes import PUBLIC_PATHS

_SPECIAL = frozenset({"connection", "expect", "transfer-encoding", "upgrade"})
_PATIENT_BYTES = 64 * 1024  # a body up to this size is read before its request is judged


class Owner(Protocol):
    """Whose requests are read; ``serving.protocol.HttpProtocol`` is one."""

    def wait(self, seconds: float) -> None:
        """Give the other side so long for what comes next."""

    def invite(self) -> None:
        """Ask for the body."""

    def overload(self) -> Problem | None:
        """Return why the next request should come later, None where there is room."""

    def submit(self, request: Request, problem: Problem | None) -> None:
        """Take a whole request, and what is wrong with it."""

    def refuse(self, problem: Problem) -> None:
        """Answer in its turn that this request cannot be read, the last of its connection."""


class RequestReader:
    """Reads one request after the other. Its ``on_`` methods are the parser's to call.

    ``state`` is idle, then head, body, and idle again; closing, once nothing more is read. ``last`` tells that no request follows
    those that were read.
    """

    _headers: dict[str, str]
    _body: list[bytes]
    _refusal: Problem | None
    _counted: bool

    def __init__(self, owner: Owner, exchange: Exchange, heads: KnownHeads) -> None:
        """Begin with nothing read; ordinary heads are learned into ``heads``."""
        self._owner = owner
        self._exchange = exchange
        self._limits = exchange.limits
        self._heads = heads
        self._parser = httptools.HttpRequestParser(self)
        self.state = "idle"
        self.last = False
        self._begun = b""  # what the parser was given last, where a head begins with it
        self._begin()

    def feed(self, data: bytes) -> None:
        """Read what came next."""
        in_head = self.state == "head"
        self._begun = data if self.state == "idle" else b""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.last = True  # no protocol is changed to: the request was answered as it stands
            self.state = "closing"
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError as error:
            if self.last:
                self.state = "closing"  # nothing was to follow
            elif self.state != "closing":
                self._owner.refuse(Problem(400, f"not HTTP: {error}"))
        if in_head and self.state == "head":
            self._n_raw_bytes += len(data)
            if self._n_raw_bytes > self._limits.max_head_bytes:
                self._owner.refuse(_head_too_large(self._limits))

    def forget_body(self) -> None:
        """Let go of a body, whole or not."""
        if self._counted:
            self._exchange.n_bodies -= 1
            self._exchange.n_bodies_bytes -= self._n_body_bytes
            self._counted = False
        self._body = []

    def on_message_begin(self) -> None:
        """Start waiting for this request's head."""
        if self.state == "closing":
            return
        self._begin()
        self.state = "head"
        self._owner.wait(self._limits.head_seconds)

    def on_url(self, url: bytes) -> None:
        """Take the next part of the target."""
        if self.state == "closing":
            return
        self._url += url
        self._n_head_bytes += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what follows a chunked body is not read."""
        if self.state != "head":
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
        if self.state == "closing":
            return
        if self._n_headers > self._limits.max_headers or self._n_head_bytes > self._limits.max_head_bytes:
            self._owner.refuse(_head_too_large(self._limits))
            return
        parser, headers = self._parser, self._headers
        path, _, query = self._url.decode("latin-1").partition("?")
        self._request = Request(parser.get_method().decode("latin-1"), path, query, headers)
        self.last = self.last or self._exchange.handler.draining or not parser.should_keep_alive()
        if "host" not in headers and parser.get_http_version() == "1.1":
            self._refusal = Problem(400, "there must be a host header")
        self.state = "body"
        self._learn_head()
        length = headers.get("content-length")
        chunked = "transfer-encoding" in headers
        if chunked or (length is not None and length != "0"):
            self._await_body(None if chunked else int(length or 0))
        elif path not in PUBLIC_PATHS:
            self._refusal = self._refusal or self._owner.overload()

    def on_body(self, chunk: bytes) -> None:
        """Take the next part of the body, as long as it may be."""
        if self.state == "closing" or self._refusal is not None:
            return
        self._n_body_bytes += len(chunk)
        self._exchange.n_bodies_bytes += len(chunk)
        if self._n_body_bytes > self._limits.max_body_bytes:
            self._owner.refuse(_body_too_large(self._limits))
        elif self._exchange.n_bodies_bytes > self._limits.max_bodies_bytes:
            self._owner.refuse(Problem(503, "too much is being received"))
        else:
            self._body.append(chunk)

    def on_message_complete(self) -> None:
        """Hand the request over."""
        if self.state == "closing":
            return
        request = self._request
        if self._body:
            body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            request = request._replace(body=body)
        self.forget_body()
        self.state = "idle"
        self._owner.submit(request, self._refusal)

    def _learn_head(self) -> None:
        """Remember a head that asks for nothing special."""
        begun, headers = self._begun, self._headers
        self._begun = b""
        n_bytes = int(headers.get("content-length", "0"))
        special = self.last or self._refusal is not None or _SPECIAL & headers.keys() or self._parser.should_upgrade()
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
        self._owner.wait(self._limits.body_seconds)
        if n_bytes is not None and n_bytes > self._limits.max_body_bytes:
            self._owner.refuse(_body_too_large(self._limits))
            return
        expectation = self._headers.get("expect", "").lower()
        if expectation or n_bytes is None or n_bytes > _PATIENT_BYTES:
            problem = self._refusal or self._owner.overload() or self._exchange.handler.preview(self._request)
            if expectation not in ("", "100-continue"):
                problem = Problem(417, f"the expectation {expectation!r} cannot be met")
            if problem is not None:
                self._owner.refuse(problem)
                return
        if expectation:
            self._owner.invite()
        self._refusal = self._refusal or self._owner.overload()
        self._exchange.n_bodies += 1
        self._counted = True


def _head_too_large(limits: Limits) -> Problem:
    return Problem(431, f"the head may hold {limits.max_headers} headers of {limits.max_head_bytes} bytes")


def _body_too_large(limits: Limits) -> Problem:
    return Problem(413, f"a body may hold {limits.max_body_bytes} bytes")
