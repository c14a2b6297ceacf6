import asyncio
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from serving.debts import Debts
from serving.exchange import Exchange
from serving.frames import FrameProtocol
from serving.limits import Limits
from serving.messages import Request, Response
from serving.problems import Problem

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class FakeHandler:
    """Echoes."""

    draining = False

    def handle(self, request: Request) -> Response:
        assert request.trusted
        return Response(200, f"{request.method} {request.path} {request.query} ".encode() + request.body)

    def refuse(self, problem: Problem) -> Response:
        return Response(problem.status, problem.body())


class FakeShim:
    """Logs nothing."""

    debts = Debts()

    class recorder:  # noqa: N801 - stands for an attribute
        holding = False
        n_held = 0


def over_a_socket(folder: Path, talk: Talk, limits: Limits) -> None:
    async def run() -> None:
        of = Exchange(FakeHandler(), FakeShim(), limits)  # type: ignore[arg-type] # fakes of the same shape
        connections: set[FrameProtocol] = set()
        path = str(folder / "s")
        server = await asyncio.get_running_loop().create_unix_server(lambda: FrameProtocol(of, connections), path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            await asyncio.wait_for(talk(reader, writer), timeout=60)
            writer.close()
            await writer.wait_closed()
            while connections:
                await asyncio.sleep(0.001)
        assert (of.n_connections, of.n_in_flight) == (0, 0)

    asyncio.run(run())


def frame(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    length, status = struct.unpack(">IH", await reader.readexactly(6))
    return status, await reader.readexactly(length - 2)


def test_frames_are_answered_in_their_order_however_they_are_cut(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        stream = b"".join(frame(b"POST /p/%d?q\n%d" % (n, n)) for n in range(100))
        for size in (len(stream), 3):
            for at in range(0, len(stream), size):
                writer.write(stream[at : at + size])
                await asyncio.sleep(0)
            assert [await answer(reader) for _ in range(100)] == [
                (200, b"POST /p/%d q %d" % (n, n)) for n in range(100)
            ]

    over_a_socket(tmp_path, talk, Limits())


def test_what_is_no_frame_ends_the_connection_after_those_before_it(tmp_path: Path) -> None:
    for bad, status in ((frame(b"no line"), 400), (struct.pack(">I", 101), 413)):

        async def talk(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bad: bytes = bad, status: int = status
        ) -> None:
            writer.write(frame(b"GET /1\n") + bad + frame(b"GET /2\n"))
            assert [(await answer(reader))[0] for _ in range(2)] == [200, status]
            assert await reader.read() == b""

        over_a_socket(tmp_path, talk, Limits(max_body_bytes=100))


def test_s11_frames_past_the_bound_are_told_to_come_back(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frame(b"GET /%d\n" % n) for n in range(5)) + frame(b"GET /health/live\n"))
        assert [(await answer(reader))[0] for _ in range(6)] == [200, 200, 503, 503, 503, 200]

    over_a_socket(tmp_path, talk, Limits(max_in_flight=2))
