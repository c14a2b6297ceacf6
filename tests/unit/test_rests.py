"""Where there is no room: who is told so hears it at once, rests, and is then before those who come later."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from serving.exchange import Exchange
from serving.limits import Limits
from serving.messages import Request, Response
from serving.problems import Problem
from serving.protocol import HttpProtocol
from tests.unit.exchange_steps import IdleShim

ASKED = b"GET /a HTTP/1.1\r\nhost: x\r\n\r\n"


class Handler:
    """Answers everything with 200; each takes as long as ``seconds`` say, by the clock of the test, and the first in ``waits`` may wait."""

    draining = False

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = 0.0
        self.waits: list[float] = []

    def handle(self, _: Request) -> Response:
        self.now += self.seconds
        return Response(200, b"", wait_seconds=self.waits.pop() if self.waits else 0.0)

    def open(self, _: Request) -> tuple[Callable[[Request, str], Response], str]:
        return lambda request, _: self.handle(request), ""

    def form_of(self, _: Request) -> None:
        return None

    def refuse(self, problem: Problem) -> Response:
        return Response(problem.status, b"")


class Wire:
    """A connection: what it was told, and whether what it sends is read."""

    def __init__(self, exchange: Exchange) -> None:
        self.told: list[int] = []
        self.reading = True
        self.unread = b""
        self.protocol = HttpProtocol(exchange, set())
        self.protocol.connection_made(self)  # type: ignore[arg-type]  # of the same shape

    def ask(self) -> None:
        if self.reading:
            self.protocol.data_received(ASKED)
        else:
            self.unread += ASKED

    def write(self, data: bytes) -> None:
        self.told.append(int(data.split()[1]))

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        unread, self.unread = self.unread, b""
        if unread:
            asyncio.get_running_loop().call_soon(self.protocol.data_received, unread)


@dataclass
class Desk:
    """A server without a socket, which knows the head that is asked with."""

    limits: Limits
    handler: Handler = field(default_factory=Handler)

    def __post_init__(self) -> None:
        self.exchange = Exchange(self.handler, IdleShim(), self.limits)  # type: ignore[arg-type]  # of the same shape

    async def connect(self, n: int) -> list[Wire]:
        wires = [Wire(self.exchange) for _ in range(n)]
        for wire in wires[:2]:
            wire.ask()
            await asyncio.sleep(0.02)
            assert wire.told.pop() == 200
        return wires


def at_desk(limits: Limits, act: Callable[[Desk], Awaitable[None]]) -> None:
    async def run() -> None:
        await act(Desk(limits))

    asyncio.run(run())


def test_s11_who_has_rested_is_before_whoever_comes_later() -> None:
    async def act(desk: Desk) -> None:
        first, second, third, fourth = await desk.connect(4)
        for wire in (first, second, third):
            wire.ask()
        await asyncio.sleep(0)
        assert third.told == [503]
        third.ask()
        await asyncio.sleep(0)
        assert first.told == second.told == [200]
        assert not desk.exchange.n_in_flight
        for wire in (fourth, first):
            wire.ask()
        await asyncio.sleep(0)
        assert fourth.told == [200]
        assert first.told == [200, 503], "the fourth, and the one that rests, are as many as may be in flight"
        await asyncio.sleep(0.05)
        assert third.told == [503, 200]
        first.ask()
        await asyncio.sleep(0.05)
        assert first.told == [200, 503, 200]
        desk.exchange.n_bodies = 2
        first.ask()
        await asyncio.sleep(0)
        assert first.told == [200, 503, 200, 503], "a rest is for one request"
        desk.exchange.n_bodies = 0

    at_desk(Limits(max_in_flight=2), act)


def test_s11_who_has_rested_and_finds_no_room_rests_on_and_hears_it_no_second_time() -> None:
    async def act(desk: Desk) -> None:
        first, second = await desk.connect(2)
        desk.exchange.n_bodies = 1
        first.ask()
        await asyncio.sleep(0)
        assert first.told == [503]
        desk.exchange.n_bodies = 0
        await asyncio.sleep(0.02)  # its rest is over before it asks again
        assert first.reading
        second.ask()
        first.ask()
        await asyncio.sleep(0.02)
        assert second.told == [200]
        assert first.told == [503, 200]

    at_desk(Limits(max_in_flight=1), act)


def test_s11_those_who_rest_do_not_keep_each_other_from_being_answered() -> None:
    async def act(desk: Desk) -> None:
        wires = await desk.connect(9)
        for wire in wires:
            wire.ask()
        await asyncio.sleep(0)
        assert [wire.told for wire in wires] == [[200]] + [[503]] * 8
        for wire in wires[1:]:
            wire.ask()
        await asyncio.sleep(0.1)
        assert [wire.told for wire in wires] == [[200]] + [[503, 200]] * 8

    at_desk(Limits(max_in_flight=1), act)


def test_s11_a_refusal_waits_for_no_request_of_others() -> None:
    async def act(desk: Desk) -> None:
        wires = await desk.connect(5)
        for wire in wires:
            wire.ask()
        await asyncio.sleep(0)
        assert [wire.told for wire in wires] == [[200], [], [], [], [503]]
        await asyncio.sleep(0.02)
        assert [wire.told for wire in wires] == [[200]] * 4 + [[503]]

    at_desk(Limits(max_in_flight=4, turn_requests=1), act)


def test_s11_a_turn_begins_nothing_after_two_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(desk: Desk) -> None:
        wires = await desk.connect(12)
        monkeypatch.setattr(time, "perf_counter", lambda: desk.handler.now)
        for seconds, n_told in ((0.0007, 3), (0.01, 1), (0.0, 12)):
            desk.handler.seconds = seconds
            for wire in wires:
                wire.told.clear()
                wire.ask()
            await asyncio.sleep(0)
            assert sum(map(len, (wire.told for wire in wires))) == n_told
            await asyncio.sleep(0.02)
            assert [wire.told for wire in wires] == [[200]] * 12

    at_desk(Limits(), act)


def test_s11_one_who_waits_for_a_release_makes_no_turn_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(desk: Desk) -> None:
        wires = await desk.connect(6)
        monkeypatch.setattr(time, "perf_counter", lambda: desk.handler.now)
        desk.handler.seconds, desk.handler.waits = 0.0007, [5.0]
        for wire in wires:
            wire.ask()
        await asyncio.sleep(0)
        assert [len(wire.told) for wire in wires] == [0, 1, 1, 0, 0, 0]
        await asyncio.sleep(0.02)
        assert [len(wire.told) for wire in wires] == [0, 1, 1, 1, 1, 1]

    at_desk(Limits(), act)
