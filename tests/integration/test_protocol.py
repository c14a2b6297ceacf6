"""The HTTP protocol on real sockets, in front of a handler that only echoes."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.exchange import Exchange
from serving.limits import Limits
from serving.messages import Request, Response
from serving.problems import Problem
from serving.protocol import HttpProtocol
from serving.replies import Replies
from tests.unit.exchange_steps import IdleShim

Talk = Callable[["Wire"], Awaitable[None]]
NARROW = Limits(max_body_bytes=1_000, max_head_bytes=2_000, max_headers=20, linger_seconds=0.1, look_seconds=0.02)


class FakeHandler:
    """Echoes a request's body, or says how large it was; refuses paths that begin with /no."""

    draining = False

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path == "/large":
            return Response(200, b"x" * 4_000_000)
        return Response(200, request.body or request.path.encode())

    def open(self, request: Request) -> tuple[Callable[[Request, str], Response], str]:
        if (problem := self.preview(request)) is not None:
            raise problem
        return lambda asked, _: self.handle(asked), ""

    def preview(self, request: Request) -> Problem | None:
        return Problem(401, "no") if request.path.startswith("/no") else None

    def form_of(self, _: Request) -> None:
        return None

    def refuse(self, problem: Problem) -> Response:
        return Response(problem.status, problem.body())


@dataclass
class Wire:
    """One connection to a server of the protocol, seen from the client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    exchange: Exchange
    handler: FakeHandler
    connections: set[HttpProtocol]
    port: int

    def send(self, content: bytes) -> None:
        self.writer.write(content)

    async def answer(self, *, headless: bool = False) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        length = 0 if headless else int(headers.get("content-length", "0"))
        return int(first.split()[1]), headers, await self.reader.readexactly(length)

    async def is_cut(self) -> bool:
        """Tell whether the other side ends the connection without a word; a reset is an end as well."""
        try:
            return await self.reader.read(1) == b""
        except ConnectionError:
            return True


def exchange(talk: Talk, limits: Limits = NARROW, *, loop: str = "uvloop") -> FakeHandler:
    """Let ``talk`` use one connection; return the handler that served it."""
    handler = FakeHandler()

    async def run() -> None:
        of = Exchange(handler, IdleShim(), limits)  # type: ignore[arg-type] # fakes of the same shape
        connections: set[HttpProtocol] = set()
        listener = await asyncio.get_running_loop().create_server(lambda: HttpProtocol(of, connections), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]

        async def watch() -> None:
            while True:
                await asyncio.sleep(limits.look_seconds)
                now = asyncio.get_running_loop().time()
                for connection in [c for c in connections if c.deadline < now]:
                    connection.expire()

        watching = asyncio.create_task(watch())
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        try:
            await asyncio.wait_for(talk(Wire(reader, writer, of, handler, connections, port)), timeout=60)
        finally:
            watching.cancel()
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            listener.close()
            for connection in connections:
                connection.abort()
            await asyncio.sleep(0.01)  # the server's end closes as well
        assert (of.n_bodies, of.n_bodies_bytes, of.n_in_flight) == (0, 0, 0)

    (uvloop.run if loop == "uvloop" else asyncio.run)(run())
    return handler


def get(path: str, *lines: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "host: x", *lines, "", ""]).encode()


def post(path: str, body: bytes, *lines: str) -> bytes:
    head = "\r\n".join([f"POST {path} HTTP/1.1", "host: x", f"content-length: {len(body)}", *lines, "", ""])
    return head.encode() + body


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_pipelined_requests_are_answered_in_their_order_however_they_are_cut(loop: str) -> None:
    async def talk(wire: Wire) -> None:
        stream = b"".join(
            post("/p", b"body %d" % n) if n % 2 else get(f"/{n}?q=1", "Authorization: t") for n in range(60)
        )
        for size in (len(stream), 7, 1_000):
            for at in range(0, len(stream), size):
                wire.send(stream[at : at + size])
                await asyncio.sleep(0)
            told = [(await wire.answer())[2] for _ in range(60)]
            assert told == [b"body %d" % n if n % 2 else b"/%d" % n for n in range(60)]

    served = exchange(talk, Limits(), loop=loop)
    assert served.requests[0].query == "q=1"
    assert dict(served.requests[0].headers) == {"host": "x", "authorization": "t"}


def test_a_known_head_waits_for_its_body() -> None:
    async def talk(wire: Wire) -> None:
        for cut in (0, -2, -4, -8):
            request = post("/2", b"body")
            for part in (request[:cut], request[cut:]) if cut else (request,):
                wire.send(part)
                await asyncio.sleep(0.01)
            assert (await wire.answer())[2] == b"body"
            assert wire.connections
            (connection,) = wire.connections
            assert len(connection._replies.heads) == 1

    exchange(talk)


@settings(max_examples=30)
@given(data=st.data())
def test_a_head_seen_before_means_what_it_meant(data: st.DataObject) -> None:
    """The same stream is answered alike by a connection that knows no head and by one that has seen them all."""
    kinds = [
        get("/1"),
        get("/1", "a: b"),
        post("/2", b"body"),
        post("/2", b"ydob"),
        post("/3", b"GET /1 HTTP/1.1\r\nhost: x\r\n\r\n"),
        b"\r\n\r\n" + get("/4"),
        b"POST /5 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\n!\r\n0\r\n\r\n",
        get("/6").replace(b"host: x\r\n", b""),
        get("/7").replace(b"GET", b"HEAD"),
    ]
    stream = data.draw(st.lists(st.sampled_from(kinds), max_size=12))
    content = b"".join(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=6)))
    pieces = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]

    async def talk(wire: Wire) -> None:
        # A byte at a time no head comes as a whole; one by one all are learnt; then they are known.
        for parts in ([content[at : at + 1] for at in range(len(content))], stream, pieces):
            for part in parts:
                wire.send(part)
                await asyncio.sleep(0 if len(part) == 1 else 0.001)
            for request in stream:
                await wire.answer(headless=request.startswith(b"HEAD"))

    served = [each._replace(opened=None) for each in exchange(talk, Limits(), loop="asyncio").requests]
    n = len(served) // 3
    assert served[:n] == served[n : 2 * n] == served[2 * n :]


def test_a_bad_request_costs_none_of_its_neighbours_anything() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/1") + get("/2", "host: y") + get("/3") + b"\x00\x01 nonsense\r\n\r\n" + get("/5"))
        told = [await wire.answer() for _ in range(4)]
        assert [status for status, _, _ in told] == [200, 400, 200, 400]
        assert [headers.get("connection") for _, headers, _ in told] == [None, None, None, "close"]
        assert json.loads(told[3][2])["title"] == "Bad Request"
        assert await wire.is_cut()

    exchange(talk)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/9.9\r\nhost: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n" + b"100\r\n" * 1 + b"x" * 256 + b"\r\n2f0\r\n" + b"x" * 800, 413),
        (get("/", *(f"a{n}: 1" for n in range(30))), 431),
        (get("/", "a: " + "x" * 5_000), 431),
        (post("/", b"x", "expect: the-worst"), 417),
        (post("/no", b"", "x: y").replace(b"length: 0", b"length: 9") + b"x" * 9, 200),
        (b"POST /no HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n", 401),
    ],
)  # fmt: skip
def test_s02_what_cannot_be_read_is_refused_before_it_is_read(sent: bytes, status: int) -> None:
    async def talk(wire: Wire) -> None:
        wire.send(sent)
        told = await wire.answer()
        assert told[0] == status
        if status != 200:
            assert told[1]["connection"] == "close"
            wire.send(get("/after"))  # its sender may still be sending: nothing of it is read
            assert await wire.is_cut()

    served = exchange(talk)
    assert len(served.requests) == (status == 200)


def test_the_body_of_a_refused_request_may_go_on_coming_and_its_sender_hears_why() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
        for _ in range(20):
            wire.send(b"x" * 10_000)
            await asyncio.sleep(0)
        assert (await wire.answer())[0] == 413
        assert wire.exchange.n_bodies_bytes == 0

    exchange(talk)


def test_a_chunked_body_is_put_together_and_its_trailers_are_not_read() -> None:
    async def talk(wire: Wire) -> None:
        head = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        for part in (head, b"3\r\nabc\r\n", b"2\r\nde\r\n", b"0\r\nhost: evil\r\n\r\n", get("/next")):
            wire.send(part)
            await asyncio.sleep(0.01)
        assert [(await wire.answer())[2] for _ in range(2)] == [b"abcde", b"/next"]

    served = exchange(talk)
    assert served.requests[0].headers["host"] == "x"


def test_a_client_that_expects_to_be_asked_for_the_body_is_asked() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert (await wire.answer())[0] == 100
        wire.send(b"ok")
        assert (await wire.answer())[2] == b"ok"
        wire.send(b"POST /no HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n")
        assert (await wire.answer())[0] == 401

    exchange(talk)


def test_a_head_request_gets_everything_but_the_body() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/seven!").replace(b"GET", b"HEAD") + get("/next"))
        status, headers, _ = await wire.answer(headless=True)
        assert (status, headers["content-length"]) == (200, "7")
        assert (await wire.answer())[2] == b"/next"

    exchange(talk)


@pytest.mark.parametrize("last", [get("/2", "connection: close"), b"GET /2 HTTP/1.0\r\n\r\n"])
def test_a_connection_ends_when_its_client_says_so_and_not_before_all_is_answered(last: bytes) -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/1") + last)
        told = [await wire.answer() for _ in range(2)]
        assert [headers.get("connection") for _, headers, _ in told] == [None, "close"]
        assert await wire.is_cut()

    exchange(talk)


def test_an_answer_does_not_end_a_connection_whose_last_request_is_still_coming() -> None:
    async def talk(wire: Wire) -> None:
        last = post("/2", b"late", "connection: close")
        wire.send(get("/1") + last[:-2])
        assert (await wire.answer())[2] == b"/1"
        wire.send(last[-2:])
        assert (await wire.answer())[2] == b"late"
        assert await wire.is_cut()

    exchange(talk)


def test_half_a_connection_is_enough_to_be_answered_on() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/1") + get("/2") + b"GET /half")
        wire.writer.write_eof()
        assert [(await wire.answer())[2] for _ in range(2)] == [b"/1", b"/2"]
        assert await wire.is_cut()

    exchange(talk)


def test_no_other_protocol_is_changed_to() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/1", "connection: upgrade", "upgrade: websocket"))
        status, headers, _ = await wire.answer()
        assert (status, headers["connection"]) == (200, "close")

    exchange(talk)


def test_s10_a_head_that_does_not_end_is_cut() -> None:
    async def talk(wire: Wire) -> None:
        async def drip() -> None:
            wire.send(b"GET / HTTP/1.1\r\n")
            while True:
                wire.send(b"x: y\r\n")
                await asyncio.sleep(0.05)

        dripping = asyncio.create_task(drip())
        assert await wire.is_cut()
        assert not dripping.done()
        dripping.cancel()

    exchange(talk, replace(NARROW, head_seconds=0.15))


def test_s10_a_connection_that_says_nothing_is_cut() -> None:
    async def talk(wire: Wire) -> None:
        assert await wire.is_cut()

    exchange(talk, replace(NARROW, head_seconds=0.15))


def test_s10_a_head_without_an_end_is_cut_by_its_size() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(b"GET / HTTP/1.1\r\nhost: x\r\na: ")
        for _ in range(400):
            wire.send(b"x" * 10)
            await asyncio.sleep(0)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            assert (await wire.answer())[0] == 431

    exchange(talk, Limits(max_head_bytes=2_000, linger_seconds=0.1, look_seconds=0.02))


def test_s10_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(post("/", b"x").replace(b"length: 1", b"length: 9"))
        assert (await wire.answer())[0] == 408
        assert await wire.is_cut()

    exchange(talk, replace(NARROW, body_seconds=0.15))


def test_s10_who_does_not_read_is_cut_and_costs_a_bounded_buffer() -> None:
    async def talk(wire: Wire) -> None:
        for _ in range(200):
            wire.send(get("/large"))
            await asyncio.sleep(0)
        while wire.connections:
            await asyncio.sleep(0.02)
        assert len(wire.handler.requests) < 100  # four megabytes each

    exchange(talk, replace(NARROW, write_seconds=0.15))


def test_an_idle_connection_between_requests_is_kept_longer_than_a_head() -> None:
    async def talk(wire: Wire) -> None:
        for _ in range(2):
            wire.send(get("/1"))  # at once: a stall before it would count as a slow head
            assert (await wire.answer())[0] == 200
            await asyncio.sleep(0.6)

    exchange(talk, replace(NARROW, head_seconds=0.5))


def test_s11_past_the_bound_on_requests_in_flight_others_are_told_to_come_back_and_probes_are_not() -> None:
    limits = Limits(max_in_flight=5, turn_requests=2, look_seconds=0.05)

    async def talk(wire: Wire) -> None:
        other = await asyncio.open_connection("127.0.0.1", wire.port)  # with two, requests wait for a turn
        wire.send(b"".join(get("/health/live" if n == 15 else f"/{n}") for n in range(20)))
        told = [(await wire.answer())[0] for _ in range(20)]
        assert told == [200] * 5 + [503] * 10 + [200] + [503] * 4
        wire.send(get("/1"))
        assert (await wire.answer())[0] == 200
        other[1].close()

    exchange(talk, limits)


@pytest.mark.parametrize("max_in_flight", [1, 2, 512])
def test_s11_who_was_refused_is_not_read_until_there_is_room_and_loses_nothing(max_in_flight: int) -> None:
    async def talk(wire: Wire) -> None:
        for known in (b"", b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n"):  # by the parser, and by known heads
            wire.send(get("/a") + known)
            assert (await wire.answer())[0] == 200
            if known:
                assert (await wire.answer())[0] == 200
            wire.exchange.n_bodies = wire.exchange.limits.max_in_flight  # others have taken all the room
            n_before = len(wire.handler.requests)
            wire.send(get("/a"))
            assert (await wire.answer())[0] == 503
            wire.send(get("/a") * 3)
            await asyncio.sleep(0.05)
            assert len(wire.handler.requests) == n_before, "neither answered nor refused"
            wire.exchange.n_bodies = 0
            assert [(await wire.answer())[0] for _ in range(3)] == [200] * 3

    exchange(talk, Limits(max_in_flight=max_in_flight))


@pytest.mark.parametrize("n_times", [1, 2])
def test_s11_one_connection_cannot_queue_without_end(n_times: int) -> None:
    async def talk(wire: Wire) -> None:
        other = await asyncio.open_connection("127.0.0.1", wire.port)
        for _ in range(n_times - 1):  # so that the head is known
            wire.send(get("/1"))
            await wire.answer()
        wire.send(get("/1") * 2_000)
        told = [await wire.answer() for _ in range(9)]
        assert [status for status, _, _ in told] == [200] * 8 + [503]
        assert told[-1][1]["connection"] == "close"
        assert await wire.is_cut()
        other[1].close()

    served = exchange(talk, Limits(max_pipelined=8, linger_seconds=0.1, look_seconds=0.02))
    assert len(served.requests) == 8 + n_times - 1


def test_s12_a_client_that_goes_away_in_the_middle_leaves_nothing_behind() -> None:
    async def talk(wire: Wire) -> None:
        for _ in range(50):
            _, writer = await asyncio.open_connection("127.0.0.1", wire.port)
            writer.write(get("/1") + post("/", b"x" * 500)[:-1])
            await asyncio.sleep(0)
            writer.transport.abort()
        while len(wire.connections) > 1:
            await asyncio.sleep(0.01)
        assert wire.exchange.n_connections == 1

    exchange(talk, Limits(look_seconds=0.05))


def test_a_connection_too_many_is_told_so() -> None:
    async def talk(wire: Wire) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503")
        writer.close()
        wire.send(get("/1"))
        assert (await wire.answer())[0] == 200

    exchange(talk, Limits(max_connections=1, linger_seconds=0.1, look_seconds=0.05))


def test_a_draining_shim_ends_connections_with_their_last_answer() -> None:
    async def talk(wire: Wire) -> None:
        wire.send(get("/1"))
        await wire.answer()
        wire.handler.draining = True
        wire.send(get("/2"))
        assert (await wire.answer())[1]["connection"] == "close"
        assert await wire.is_cut()

    exchange(talk)


def test_nobodys_input_begins_a_header_of_its_own() -> None:
    reply = Replies().encode(Response(200, b"", (("etag", "a\r\nset-cookie: x"),)))
    assert b"\r\nset-cookie" not in reply


def test_a_not_modified_has_neither_body_nor_length() -> None:
    reply: Any = Replies().encode(Response(304, b"", (("etag", '"x"'),)))
    assert reply.endswith(b"\r\n\r\n")
    assert b"content-length" not in reply


def test_s10_four_hundred_slow_heads_are_all_cut_and_a_probe_stays_green_meanwhile() -> None:
    async def talk(wire: Wire) -> None:
        async def probe() -> None:
            wire.send(get("/health/live"))
            assert (await wire.answer())[0] == 200

        await probe()  # between requests a connection may wait: that the others come takes longer than a head may
        crawlers = [await asyncio.open_connection("127.0.0.1", wire.port) for _ in range(400)]
        try:
            for _, writer in crawlers:
                writer.write(b"GET / HT")
            while len(wire.connections) > 1:
                await probe()
                await asyncio.sleep(0.01)
        finally:
            for _, writer in crawlers:
                writer.close()

    exchange(talk, replace(NARROW, head_seconds=0.5))


def test_a_large_answer_may_take_its_time_where_it_is_read_and_is_cut_where_it_is_not() -> None:
    class Pipe:
        """A transport whose reader takes what the test says."""

        n_left, is_cut = 3_000_000, False

        def get_write_buffer_size(self) -> int:
            return self.n_left

        def pause_reading(self) -> None:
            """Read no more."""

        def abort(self) -> None:
            self.is_cut = True

    async def run() -> None:
        of = Exchange(FakeHandler(), IdleShim(), NARROW)  # type: ignore[arg-type] # fakes of the same shape
        connection, pipe = HttpProtocol(of, set()), Pipe()
        connection._transport = pipe  # type: ignore[assignment]
        connection.pause_writing()
        for n_left in (2_000_000, 1_000_000):
            pipe.n_left, connection.deadline = n_left, 0.0
            connection.expire()
            assert not pipe.is_cut
            assert connection.deadline > asyncio.get_running_loop().time()
        pipe.n_left -= NARROW.max_unread_bytes // 4 - 1
        connection.expire()
        assert pipe.is_cut

    asyncio.run(run())
