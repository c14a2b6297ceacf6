import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serving import asgi
from serving.asgi import Application, Message
from serving.messages import Request, Response
from serving.problems import Problem


class FakeHandler:
    """Echoes the request's body, and refuses as the real one does."""

    draining = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        return Response(200, request.body)

    def refuse(self, problem: Problem) -> Response:
        return Response(problem.status, problem.body())


def application(**options: Any) -> Application:
    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        yield

    defaults = {"max_body_bytes": 100, "body_seconds": 0.05}
    return Application(handler=FakeHandler(), lifespan=lifespan, **(defaults | options))  # type: ignore[arg-type]


async def send_request(
    app: Application, *messages: Message, length: int | None = None, chunked: bool = False
) -> tuple[int, bytes, dict[bytes, bytes]]:
    """Send body ``messages``, then nothing more; return status, body and headers."""
    headers = [(b"host", b"localhost")]
    headers += [(b"content-length", str(length).encode())] if length is not None else []
    headers += [(b"transfer-encoding", b"chunked")] if chunked else []
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/é",
        "raw_path": b"/%C3%A9",
        "query_string": b"a=b",
        "headers": headers,
    }
    incoming, sent = list(messages), []

    async def receive() -> Message:
        return incoming.pop(0) if incoming else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


def part(body: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


def test_a_request_is_passed_on_as_it_was_sent() -> None:
    app = application()
    status, body, headers = asyncio.run(send_request(app, part(b"he", more=True), part(b"llo"), length=5))
    assert (status, body, headers[b"content-length"]) == (200, b"hello", b"5")
    (request,) = app.handler.requests  # type: ignore[attr-defined]
    assert (request.method, request.path, request.query) == ("POST", "/%C3%A9", "a=b")
    assert request.headers["host"] == "localhost"


def test_a_request_without_a_body_waits_for_none() -> None:
    assert asyncio.run(send_request(application()))[0] == 200


def test_s02_a_body_that_says_it_is_too_large_is_not_even_received() -> None:
    status, body, _ = asyncio.run(send_request(application(), length=101))
    assert (status, json.loads(body)["detail"]) == (413, "a body may hold 100 bytes")


def test_s02_a_body_without_an_end_is_cut_off() -> None:
    endless = [part(b"x" * 30, more=True) for _ in range(100)]
    assert asyncio.run(send_request(application(), *endless, chunked=True))[0] == 413


def test_s10_a_body_that_does_not_come_is_not_waited_for() -> None:
    assert asyncio.run(send_request(application(), part(b"x", more=True), length=5))[0] == 408


def test_s12_a_client_that_goes_away_costs_nothing() -> None:
    app = application()
    status, _, _ = asyncio.run(send_request(app, part(b"x", more=True), {"type": "http.disconnect"}, length=5))
    assert (status, app._n_in_flight) == (400, 0)


def test_s11_past_the_bound_on_requests_in_flight_others_are_told_to_come_back() -> None:
    app = application(max_in_flight=2)

    async def send_five() -> list[int]:
        slow = [send_request(app, part(b"x", more=True), length=5) for _ in range(5)]
        return [status for status, _, _ in await asyncio.gather(*slow)]

    assert sorted(asyncio.run(send_five())) == [408, 408, 503, 503, 503]
    assert asyncio.run(send_request(app))[0] == 200


def test_the_shim_drains_when_the_server_ends() -> None:
    app = application()
    sent: list[Message] = []
    told = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return told.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(app({"type": "lifespan"}, receive, send))
    assert [message["type"] for message in sent] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert app.handler.draining


def test_who_would_wait_for_a_release_is_answered_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi, "_LOOK_SECONDS", 0.001)
    app = application()
    answers = [Response(304, wait_seconds=30.0), Response(304, wait_seconds=30.0), Response(200, b"new")]
    app.handler.handle = lambda _: answers.pop(0)  # type: ignore[method-assign]
    assert asyncio.run(send_request(app))[:2] == (200, b"new")
