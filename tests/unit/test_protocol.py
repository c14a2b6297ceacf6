import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from uvicorn import Config
from uvicorn.server import ServerState

from serving import protocol
from serving.protocol import PatientProtocol

Exchange = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def application(_: object, __: object, send: Callable[[dict[str, object]], Awaitable[None]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def exchange(talk: Exchange) -> None:
    """Let ``talk`` use one connection to a server of the protocol."""

    async def run() -> None:
        config = Config(application, lifespan="off")  # type: ignore[arg-type]
        config.load()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: PatientProtocol(config, ServerState(), {}), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            try:
                await asyncio.wait_for(talk(reader, writer), timeout=10)
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()
                await asyncio.sleep(0.01)  # the server's end closes as well

    asyncio.run(run())


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.1)


async def is_cut(reader: asyncio.StreamReader) -> bool:
    """Tell whether the other side ends the connection without a word; a reset is an end as well."""
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


def test_a_head_that_does_not_end_is_cut() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def drip() -> None:
            writer.write(b"GET / HTTP/1.1\r\n")
            for _ in range(100):
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.02)

        dripping = asyncio.create_task(drip())
        assert await is_cut(reader)
        assert not dripping.done()
        dripping.cancel()

    exchange(talk)


def test_a_connection_that_says_nothing_is_cut() -> None:
    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await is_cut(reader)

    exchange(talk)


def test_a_head_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 60)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000)
        assert await is_cut(reader)

    exchange(talk)


def test_an_idle_connection_between_requests_is_kept() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(0.15)

    exchange(talk)
