"""The handler as a bare ASGI application: bodies bounded before they are parsed, slow senders cut, the rest passed on."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from serving.handler import Handler
from serving.messages import Request, Response
from serving.problems import Problem

_LOOK_SECONDS = 0.5  # between two looks for a release that is waited for

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@dataclass(kw_only=True)
class Application:
    """Translates between ASGI and the handler, one request at a time per connection.

    ``lifespan`` is entered before the first request and left after the last.
    """

    handler: Handler
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    max_body_bytes: int
    body_seconds: float = 10.0
    max_in_flight: int = 1_024
    _n_in_flight: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            self._n_in_flight += 1
            try:
                await _send(send, await self._respond(scope, receive), headless=scope["method"] == "HEAD")
            finally:
                self._n_in_flight -= 1

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        if self._n_in_flight > self.max_in_flight:
            return self.handler.refuse(Problem(503, f"more than {self.max_in_flight} requests are in flight"))
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        try:
            body = await self._read_body(headers, receive)
        except Problem as problem:
            return self.handler.refuse(problem)
        path = scope.get("raw_path") or scope["path"].encode()
        query = scope["query_string"].decode("latin-1")
        return await self._await_release(Request(scope["method"], path.decode("latin-1"), query, headers, body))

    async def _await_release(self, request: Request) -> Response:
        """Return the response to a request, once there is another release where it wants to wait for one."""
        response = self.handler.handle(request)
        give_up_at = asyncio.get_running_loop().time() + response.wait_seconds
        while response.wait_seconds and asyncio.get_running_loop().time() < give_up_at and not self.handler.draining:
            await asyncio.sleep(_LOOK_SECONDS)
            response = self.handler.handle(request)
        return response

    async def _read_body(self, headers: dict[str, str], receive: Receive) -> bytes:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self.max_body_bytes:
            raise self._too_large()
        if length in ("", "0") and "transfer-encoding" not in headers:
            return b""
        try:
            async with asyncio.timeout(self.body_seconds):
                return await self._receive_all(receive)
        except TimeoutError:
            raise Problem(408, f"the body did not arrive within {self.body_seconds:g} s") from None

    async def _receive_all(self, receive: Receive) -> bytes:
        chunks, n_bytes = [], 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Problem(400, "the client went away")
            chunks.append(message.get("body", b""))
            n_bytes += len(chunks[-1])
            if n_bytes > self.max_body_bytes:
                raise self._too_large()
            if not message.get("more_body", False):
                return b"".join(chunks)

    def _too_large(self) -> Problem:
        return Problem(413, f"a body may hold {self.max_body_bytes} bytes")

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        async with self.lifespan():
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.handler.draining = True
        await send({"type": "lifespan.shutdown.complete"})


async def _send(send: Send, response: Response, *, headless: bool) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers]
    if response.status != 304:  # noqa: PLR2004 - the one status here that has no body, and no length of one
        headers.append((b"content-length", str(len(response.body)).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if headless else response.body})
