"""Ordinary requests are decided as they are read: what their callers see is what the whole path would have told them."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from features import spool
from features.clock import SystemClock
from features.records import Override
from serving import exchange, fast_path, identity
from serving.exchange import Exchange
from serving.fast_path import Told
from serving.handler import Handler
from serving.limits import Limits
from serving.memory import of_capacity
from serving.messages import Request
from serving.overrides import OverrideJournal
from serving.protocol import HttpProtocol
from serving.recorder import Recorder
from serving.settings import Durability, Settings
from serving.shim import Shim
from tests.unit.exchange_steps import PLAN, Releases, records, refuse

pytestmark = pytest.mark.skipif(not fast_path.is_compiled(), reason="the fast path was not built")

WRITE = os.write


class Spied(Shim):
    """A shim that counts what it replied to at once."""

    n_direct = 0

    def reply(self, *asked: Any) -> Told:
        told = super().reply(*asked)
        self.n_direct += sum(reply.count(b"HTTP/1.1 ") for reply, _ in filter(None, told or ()))
        return told


class Wire:
    """The transport of one connection, which notes what is written to it."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = self.aborted = False

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int) -> None:
        assert high > 0

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """What is sent is read all the same."""

    resume_reading = pause_reading


@dataclass
class Caller:
    """One connection: what it sends, and the replies it got."""

    protocol: HttpProtocol
    wire: Wire = field(default_factory=Wire)

    def send(self, data: bytes) -> None:
        self.protocol.data_received(data)

    def replies(self) -> list[tuple[int, dict[str, str], Any]]:
        """Return status, headers and document of every reply so far."""
        left, told = self.wire.written, []
        while left:
            head, _, left = left.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines)
            body, left = left[: int(headers["content-length"])], left[int(headers["content-length"]) :]
            told.append((int(first.split()[1]), headers, json.loads(body)))
        return told


class Desk:
    """A server without a socket."""

    def __init__(
        self,
        folder: Path,
        durability: Durability = "answer",
        limits: Limits | None = None,
        segment_bytes: int = spool.DEFAULT_SEGMENT_BYTES,
    ) -> None:
        self.shim = Spied(
            plan=PLAN,
            clock=SystemClock(),
            releases=Releases(),
            overrides=OverrideJournal(folder / "overrides.journal"),
            recorder=Recorder(folder / "spool", segment_bytes=segment_bytes),
            memory=of_capacity(1_000),
        )
        self.handler = Handler(self.shim, Settings(home=folder, config_path=folder))
        self.limits = replace(limits or Limits(), turn_seconds=60.0)
        self.exchange = Exchange(self.handler, self.shim, self.limits, durability)

    def connect(self) -> Caller:
        caller = Caller(HttpProtocol(self.exchange, set()))
        caller.protocol.connection_made(caller.wire)  # type: ignore[arg-type]  # of the same shape
        return caller


def request(number: int, kind: str = "application/json", *, escaped: bool = False) -> bytes:
    event = {
        "specversion": "1.0",
        "id": f"e{number:02d}",
        "source": "/shop",
        "type": "shop.order",
        "data": {"weight": 2},
    }
    body = json.dumps({"event": event} if kind == "application/json" else event).encode()
    body = body.replace(b'"/shop"', b'"\\/shop"') if escaped else body
    head = (
        f"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def mark(number: int) -> int:
    return identity.fingerprint("orders", "/shop", f"e{number:02d}")


def at_desk(folder: Path, act: Callable[[Desk], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        await act(Desk(folder, **options))

    asyncio.run(run())


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_first_request_teaches_the_head_and_the_next_are_replied_to_at_once(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        caller = desk.connect()
        for number in range(10, 40):
            caller.send(request(number))
            caller.send(request(number, "application/cloudevents+json"))
        told = caller.replies()
        assert desk.shim.n_direct == 29, "one of each head is parsed; the second time an event comes it is known"
        assert [status for status, _, _ in told] == [200] * 60
        by_id = {decision.decision_id: decision for decision in records(tmp_path)}
        assert len(by_id) == 30
        for number, (first, again) in zip(range(10, 40), zip(told[::2], told[1::2], strict=True), strict=True):
            decision = by_id[first[2]["decision_id"]]
            assert decision.event_id == f"e{number:02d}"
            assert first[2]["destinations"][0] == decision.assigned
            assert again[2] == first[2] | {"repeated": True}
            assert first[1].keys() == again[1].keys()
            asked = Request(
                "POST",
                "/v1/decisions",
                "",
                {"content-type": "application/json"},
                request(number).partition(b"\r\n\r\n")[2],
            )
            assert json.loads(desk.handler.handle(asked).body) == again[2], "the whole path knows it as well"

    at_desk(tmp_path, act)


@pytest.mark.parametrize("durability", ["answer", "batch"])
def test_no_reply_leaves_before_its_record_is_written_and_a_turn_is_one_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    writes: list[int] = []
    monkeypatch.setattr(os, "write", lambda fd, lines: writes.append(lines.count(b"\n")) or WRITE(fd, lines))

    async def act(desk: Desk) -> None:
        callers = [desk.connect() for _ in range(12)]
        callers[0].send(request(0))
        await asyncio.sleep(0.02)
        writes.clear()
        for number, caller in enumerate(callers[1:], 1):
            caller.send(request(number % 10 + 10 * (number > 9)))
        sent = [caller.replies() for caller in callers[1:]]
        assert sum(map(len, sent)) == (10 if durability == "answer" else 0), "full turns wait for nobody"
        await asyncio.sleep(0.02)
        assert all(caller.replies()[-1][0] == 200 for caller in callers)
        assert desk.shim.n_direct >= 8
        assert len(records(tmp_path)) == 12

    at_desk(tmp_path, act, durability=durability, limits=Limits(turn_requests=5))
    assert max(writes) >= 5


def test_asynchronously_a_reply_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def act(desk: Desk) -> None:
        caller = desk.connect()
        caller.send(request(0))
        await asyncio.sleep(0.02)
        caller.send(request(1))
        assert [status for status, _, _ in caller.replies()] == [200, 200]
        assert len(records(tmp_path)) == 1
        monkeypatch.setattr(os, "write", refuse)
        await asyncio.sleep(0.02)
        monkeypatch.undo()
        caller.send(request(2))
        desk.exchange.close()
        assert {decision.event_id for decision in records(tmp_path)} == {"e00", "e01", "e02"}

    at_desk(tmp_path, act, durability="async")


def test_a_disk_that_refuses_has_every_request_answered_unlogged_and_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(desk: Desk) -> None:
        callers = [desk.connect() for _ in range(3)]
        callers[0].send(request(0))
        await turns()
        monkeypatch.setattr(os, "write", refuse)
        for number, caller in enumerate(callers, 1):
            caller.send(request(number))
        callers[0].send(request(4))  # while the one before it waits
        callers[0].send(request(8, escaped=True))
        await turns()
        told = [reply for caller in callers for reply in caller.replies()]
        assert [status for status, _, _ in told] == [200] * 6
        assert [document.get("logged", True) for _, _, document in told] == [True] + [False] * 5
        ids = [document["decision_id"][-12:] for _, _, document in callers[0].replies()]
        assert ids == [identity.decision_id(desk.shim.clock.now(), mark(n))[-12:] for n in (0, 1, 4, 8)]
        assert desk.shim.n_direct == 4
        monkeypatch.undo()
        for number, caller in enumerate(callers, 5):
            caller.send(request(number))
            await turns()
        assert {document.get("logged", True) for caller in callers for _, _, document in caller.replies()[-1:]} == {
            True
        }
        assert {decision.event_id for decision in records(tmp_path)} == {"e00", "e05", "e06", "e07"}
        for caller in callers:
            caller.protocol.drain()
            assert caller.wire.closed, "nothing more is owed"

    at_desk(tmp_path, act)


def test_a_request_whose_head_was_forgotten_when_the_disk_refused_is_told_to_come_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        monkeypatch.setattr(os, "write", refuse)
        caller.send(request(1))
        desk.exchange.replies.heads._known.clear()
        await turns()
        assert [status for status, _, _ in caller.replies()] == [200, 503]

    at_desk(tmp_path, act)


def test_whatever_is_more_or_less_than_one_ordinary_request_is_answered_as_ever(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        caller = desk.connect()
        caller.send(request(0))
        direct = desk.shim.n_direct
        caller.send(request(3)[:50])  # in pieces
        caller.send(request(3)[50:])
        caller.send(request(4).replace(b"shop.order", b"shop.other"))  # not configured
        caller.send(request(5, escaped=True))
        caller.send(request(6).replace(b"2}", b"x}"))  # no JSON
        assert desk.shim.n_direct == direct
        assert [status for status, _, _ in caller.replies()] == [200, 200, 422, 200, 400]
        caller.send(request(7))
        assert desk.shim.n_direct == direct + 1

    at_desk(tmp_path, act)


def test_an_override_and_a_drain_are_seen_by_the_next_request(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        caller = desk.connect()
        for number in (0, 1):
            caller.send(request(number))
        now = desk.shim.clock.now()
        stop = Override(
            kind="stop", stream=None, actor="ann", reason="fire", created_at=now, expires_at=now + timedelta(1)
        )
        desk.shim.overrides.set(stop)
        caller.send(request(2))
        assert "stopped by ann" in caller.replies()[-1][2]["reason"]
        assert desk.shim.n_direct == 1
        desk.shim.overrides.clear("stop", None, actor="ann", reason="over", at=now)
        caller.send(request(3))
        assert desk.shim.n_direct == 2
        desk.handler.draining = True
        caller.send(request(4))
        assert caller.replies()[-1][1]["connection"] == "close"
        assert caller.wire.closed

    at_desk(tmp_path, act)


def hang_up(caller: Caller, _: Desk) -> None:
    assert caller.protocol.eof_received(), "an answer is due"


def drain(caller: Caller, desk: Desk) -> None:
    desk.handler.draining = True
    caller.protocol.drain()


@pytest.mark.parametrize("end", [hang_up, drain])
def test_one_who_has_asked_is_answered_before_the_connection_ends(
    end: Callable[[Caller, Desk], None], tmp_path: Path
) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        caller.send(request(1))
        end(caller, desk)
        assert not caller.wire.closed
        await turns()
        assert [status for status, _, _ in caller.replies()] == [200, 200]
        assert caller.wire.closed

    at_desk(tmp_path, act)


def test_what_came_in_time_is_answered_and_nothing_but_requests_keeps_a_connection(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        caller.protocol.deadline = 0.0
        caller.send(b"\r\n")
        await turns()
        assert caller.protocol.deadline == 0.0
        caller.send(request(1))
        caller.protocol.expire()
        await turns()
        assert len(caller.replies()) == 2
        assert caller.protocol.deadline > 0.0
        caller.protocol.deadline = 0.0
        caller.send(request(2))
        await turns()
        assert caller.protocol.deadline > 0.0
        assert not caller.wire.closed
        caller.protocol.expire()
        assert caller.wire.closed

    at_desk(tmp_path, act)


@pytest.mark.parametrize("ending", ["drain", "eof_received"])
def test_a_reply_that_waits_for_the_log_keeps_its_connection_open_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(exchange, "_BATCH_SECONDS", 0.05)

    async def act(desk: Desk) -> None:
        caller, other = desk.connect(), desk.connect()
        caller.send(request(0))
        await asyncio.sleep(0.1)
        for number, of in enumerate((caller, other), 1):
            of.send(request(number))
        await turns()
        assert desk.exchange.n_in_flight == 2
        getattr(caller.protocol, ending)()
        assert not caller.wire.closed
        await asyncio.sleep(0.1)
        assert caller.wire.closed
        other.protocol.drain()
        assert other.wire.closed
        assert [len(of.replies()) for of in (caller, other)] == [2, 1]

    at_desk(tmp_path, act, durability="batch")


def test_what_has_arrived_when_the_server_closes_is_answered_and_written(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        caller.send(request(1))
        desk.handler.draining = True
        desk.exchange.close()
        assert [status for status, _, _ in caller.replies()] == [200, 200]
        assert [decision.event_id for decision in records(tmp_path)] == ["e00", "e01"]

    at_desk(tmp_path, act)


@pytest.mark.parametrize("n_turns", [0, 5])
def test_what_looks_like_a_request_within_a_body_is_none(tmp_path: Path, n_turns: int) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        inner = request(1)
        head, _, _ = request(2).replace(b"content-length: ", b"x-length: ").partition(b"\r\n\r\n")
        caller.send(head + b"\r\ncontent-length: %d\r\n\r\n[" % (len(inner) + 1))
        for _ in range(n_turns):
            await asyncio.sleep(0)
        caller.send(inner)
        caller.send(request(3))
        await turns()
        assert [status for status, _, _ in caller.replies()] == [200, 400, 200]
        assert [decision.event_id for decision in records(tmp_path)] == ["e00", "e03"]

    at_desk(tmp_path, act)


def test_one_whose_request_cannot_be_read_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(desk: Desk) -> None:
        callers = [desk.connect() for _ in range(3)]
        callers[0].send(request(0))
        await turns()
        monkeypatch.setattr(callers[1].protocol, "read", lambda _: 1 / 0)
        for number, caller in enumerate(callers, 1):
            caller.send(request(number, escaped=True))
        await turns()
        assert [len(caller.replies()) for caller in callers] == [2, 0, 1]
        assert [caller.wire.aborted for caller in callers] == [False, True, False]
        callers[2].send(request(4))
        await turns()
        assert len(callers[2].replies()) == 2
        assert "could not be read" in caplog.text

    at_desk(tmp_path, act)


def test_one_who_is_gone_costs_the_others_nothing(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        callers = [desk.connect() for _ in range(3)]
        callers[0].send(request(0))
        await turns()
        for number, caller in enumerate(callers, 1):
            caller.send(request(number))
        callers[1].protocol.connection_lost(None)
        await turns()
        assert [len(caller.replies()) for caller in callers] == [2, 0, 1]
        assert desk.exchange.n_in_flight == 0
        assert {decision.event_id for decision in records(tmp_path)} == {"e00", "e01", "e03"}, (
            "nothing is decided for nobody"
        )

    at_desk(tmp_path, act)


@pytest.mark.parametrize("durability", ["answer", "batch", "async"])
def test_pipelined_requests_are_replied_to_in_order_whether_they_are_ordinary_or_not(
    tmp_path: Path, durability: Durability
) -> None:
    async def act(desk: Desk) -> None:
        callers = [desk.connect(), desk.connect()]
        callers[0].send(request(0))
        await asyncio.sleep(0.02)
        odd = request(20, escaped=True)
        numbers = [*range(1, 8), 20, *range(8, 15)]
        for number_of, caller in enumerate(callers):
            sent = [odd if n == 20 else request(n + 30 * number_of) for n in numbers]
            data = b"".join(sent) + request(29 + 30 * number_of)[:40]
            caller.send(data)
            caller.send(request(29 + 30 * number_of)[40:])
        await asyncio.sleep(0.05)
        assert desk.shim.n_direct == 14, "those before the odd one; what follows it waits with it"
        told = {decision.decision_id: decision.event_id for decision in records(tmp_path)}
        for number_of, caller in enumerate(callers):
            events = [told[document["decision_id"]] for _, _, document in caller.replies()]
            expected = [0] * (number_of == 0) + [n if n == 20 else n + 30 * number_of for n in [*numbers, 29]]
            assert events == [f"e{n:02d}" for n in expected]
        callers[0].send(request(90))
        callers[0].send(request(91, escaped=True))
        callers[0].send(request(92))
        await asyncio.sleep(0.02)
        assert desk.shim.n_direct == 15, "the last may not overtake the one before it"
        told = {decision.decision_id: decision.event_id for decision in records(tmp_path)}
        assert [told[document["decision_id"]] for _, _, document in callers[0].replies()[-3:]] == ["e90", "e91", "e92"]

    at_desk(tmp_path, act, durability=durability, limits=Limits(turn_requests=4))


def test_after_a_refusing_disk_requests_are_decided_as_they_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(desk: Desk) -> None:
        caller, _ = desk.connect(), desk.connect()
        caller.send(request(0))
        await turns()
        monkeypatch.setattr(os, "write", refuse)
        caller.send(request(1))
        await turns()
        monkeypatch.undo()
        caller.send(request(2))
        await turns()
        n_direct = desk.shim.n_direct
        caller.send(request(3))
        await turns()
        assert desk.shim.n_direct == n_direct + 1
        assert [document.get("logged", True) for _, _, document in caller.replies()] == [True, False, True, True]

    at_desk(tmp_path, act)


@pytest.mark.parametrize("durability", ["answer", "batch", "async"])
def test_s11_a_flood_is_decided_as_it_is_read_and_a_full_segment_sends_none_of_it_the_whole_way(
    tmp_path: Path, durability: Durability
) -> None:
    async def act(desk: Desk) -> None:
        callers = [desk.connect() for _ in range(40)]
        callers[0].send(request(0))
        await turns()
        for number, caller in enumerate(callers[1:], 1):
            caller.send(request(number))
            assert desk.exchange.n_in_flight <= 6
        await asyncio.sleep(0.1)
        assert desk.shim.n_direct == 39
        assert [caller.replies()[-1][0] for caller in callers] == [200] * 40
        assert durability == "async" or len(spool.segments(tmp_path / "spool")) > 2
        assert len(records(tmp_path)) == 40

    at_desk(
        tmp_path,
        act,
        durability=durability,
        limits=Limits(max_in_flight=6, turn_requests=4),
        segment_bytes=6_000,
    )
