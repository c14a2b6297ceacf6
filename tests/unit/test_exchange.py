"""Answers leave once what they rest on is written, in one write per turn, in order, and a failing disk fails nobody."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.clock import ReplayClock
from features.records import Decision
from serving.exchange import Exchange
from serving.handler import Handler
from serving.limits import Limits
from serving.memory import DecisionMemory
from serving.messages import Request, Response
from serving.overrides import OverrideJournal
from serving.polling import BusyPolling
from serving.recorder import Recorder
from serving.settings import Durability, Settings
from serving.shim import Shim
from tests.unit.exchange_steps import PLAN, Releases, records, refuse

WRITE = os.write
JSON = {"content-type": "application/json"}


class Caller:
    """A connection that notes what it was answered, and what the log held at that moment."""

    def __init__(self, folder: Path) -> None:
        self.gone = False
        self.told: list[tuple[int, Any]] = []
        self.logged_then: list[int] = []
        self._folder = folder

    def deliver(self, response: Response, _: Request | None) -> None:
        self.told.append((response.status, json.loads(response.body)))
        self.logged_then.append(len(records(self._folder)))


class Desk:
    """An exchange in front of a real handler, with several connections open."""

    def __init__(self, folder: Path, durability: Durability = "answer", limits: Limits | None = None) -> None:
        self.shim = Shim(
            plan=PLAN,
            clock=ReplayClock(at=datetime(2026, 11, 24, 12, tzinfo=UTC)),
            releases=Releases(),
            overrides=OverrideJournal(folder / "overrides.journal"),
            recorder=Recorder(folder / "spool"),
            memory=DecisionMemory(1_000),
        )
        handler = Handler(self.shim, Settings(home=folder, config_path=folder))
        self.exchange = Exchange(handler, self.shim, replace(limits or Limits(), turn_seconds=60.0), durability)
        self.exchange.n_connections = 2
        self.caller = Caller(folder)

    def ask(self, number: int) -> None:
        event = {"specversion": "1.0", "id": f"e{number}", "source": "/shop", "type": "shop.order"}
        self.post("/v1/decisions", {"event": event})

    def report(self, decision_id: str) -> None:
        told = {"decision_id": decision_id, "served": "a", "observed_at": "2026-11-24T12:00:00Z", "success": True}
        self.post("/v1/outcomes", told)

    def post(self, path: str, document: Any) -> None:
        self.exchange.submit(self.caller, Request("POST", path, "", JSON, json.dumps(document).encode()))
        self.exchange.settle()


def at_desk(folder: Path, act: Callable[[Desk], Awaitable[None]], **options: Any) -> None:
    async def run() -> None:
        await act(Desk(folder, **options))

    asyncio.run(run())


def test_what_a_turn_decides_is_one_write_that_precedes_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes = []
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda fd, lines: writes.append(lines.count(b"\n")) or real_write(fd, lines))

    async def act(desk: Desk) -> None:
        for number in range(10):
            desk.ask(number)
        assert desk.caller.told == []
        while len(desk.caller.told) < 10:
            await asyncio.sleep(0)
        assert {status for status, _ in desk.caller.told} == {200}

    at_desk(tmp_path, act, limits=Limits(turn_requests=6))
    at_desk(tmp_path / "one turn", act)
    assert [n for n in writes if n] == [6, 4, 10]
    told = {record.event_id for record in records(tmp_path) if isinstance(record, Decision)}
    assert told == {f"e{number}" for number in range(10)}


@pytest.mark.parametrize("durability", ["answer", "batch"])
def test_no_answer_leaves_before_its_record_is_written(tmp_path: Path, durability: Durability) -> None:
    async def act(desk: Desk) -> None:
        for number in range(7):
            desk.ask(number)
            desk.report(f"d{number}")
        while len(desk.caller.told) < 14:
            await asyncio.sleep(0.001)
        assert set(desk.caller.logged_then) == {14}

    at_desk(tmp_path, act, durability=durability)


def test_in_batches_what_several_turns_decide_is_written_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.exchange._BATCH_SECONDS", 0.5)  # two turns take longer than 2 ms where a core is busy

    async def act(desk: Desk) -> None:
        desk.ask(1)
        await asyncio.sleep(0)
        desk.ask(2)
        await asyncio.sleep(0)
        assert (desk.caller.told, records(tmp_path)) == ([], [])
        while not desk.caller.told:
            await asyncio.sleep(0.001)
        assert desk.caller.logged_then == [2, 2]

    at_desk(tmp_path, act, durability="batch")


def test_asynchronously_the_answer_leaves_first_and_the_record_follows(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(1)
        await asyncio.sleep(0)
        assert desk.caller.logged_then == [0]
        while not records(tmp_path):
            await asyncio.sleep(0.001)
        desk.ask(2)
        await asyncio.sleep(0)
        desk.exchange.close()
        assert len(records(tmp_path)) == 2

    at_desk(tmp_path, act, durability="async")


def test_an_event_asked_twice_in_one_turn_is_decided_once(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        for _ in range(3):
            desk.ask(1)
        await asyncio.sleep(0)
        (first, second, third) = (told for _, told in desk.caller.told)
        assert second == third == first | {"repeated": True}
        assert len(records(tmp_path)) == 1

    at_desk(tmp_path, act)


@pytest.mark.parametrize("durability", ["answer", "batch"])
def test_i11_a_full_disk_turns_a_whole_turns_answers_static_and_refuses_its_outcomes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: Durability
) -> None:
    async def act(desk: Desk) -> None:
        monkeypatch.setattr(os, "write", refuse)
        desk.ask(1)
        desk.report("d1")
        desk.ask(2)
        desk.ask(1)
        while len(desk.caller.told) < 4:
            await asyncio.sleep(0.001)
        (one, told), (two, _), (three, _), (four, again) = desk.caller.told
        assert (one, two, three, four) == (200, 503, 200, 200)
        assert told["logged"] is again["logged"] is False
        monkeypatch.undo()
        desk.ask(1)
        while len(desk.caller.told) < 5:
            await asyncio.sleep(0.001)
        assert "logged" not in desk.caller.told[-1][1]
        assert "repeated" not in desk.caller.told[-1][1]
        assert len(records(tmp_path)) == 1

    at_desk(tmp_path, act, durability=durability)


def test_nothing_is_owed_twice_for_what_had_to_be_answered_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(desk: Desk) -> None:
        debts, handle = desk.shim.debts, desk.exchange.handler.handle

        def charge(request: Request) -> Response:
            debts.set("orders", "c0ffee", np.array([debts.of("orders").get("c0ffee", np.zeros(1))[0] + 1.0]))
            return handle(request)

        monkeypatch.setattr(desk.exchange.handler, "handle", charge)
        for n_charged, write in enumerate((WRITE, refuse), start=1):
            monkeypatch.setattr(os, "write", write)
            desk.ask(n_charged)
            await asyncio.sleep(0)
            assert debts.of("orders")["c0ffee"] == [n_charged]

    at_desk(tmp_path, act)


def test_i12_a_write_in_doubt_is_repeated_in_a_fresh_segment_and_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(5, "Input/output error")]

    def fail_once(_: int) -> None:
        if failures:
            raise failures.pop()

    async def act(desk: Desk) -> None:
        desk.shim.recorder = Recorder(tmp_path / "spool", fsync=True)
        desk.shim.recorder.holding = True
        monkeypatch.setattr(os, "fsync", fail_once)
        desk.ask(1)
        await asyncio.sleep(0)
        desk.ask(1)
        await asyncio.sleep(0)
        assert "logged" not in desk.caller.told[0][1]
        assert desk.caller.told[1][1] == desk.caller.told[0][1] | {"repeated": True}

    at_desk(tmp_path, act)
    written = records(tmp_path)
    assert len(written) == 2
    assert written[0] == written[1]


def test_i18_asynchronously_a_refusing_disk_is_waited_for_until_no_more_can_be_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def act(desk: Desk) -> None:
        desk.shim.recorder = Recorder(tmp_path / "spool", max_held_bytes=3_000)
        desk.shim.recorder.holding = True
        monkeypatch.setattr(os, "write", refuse)
        for number in range(20):
            desk.ask(number)
        await asyncio.sleep(0)
        logged = [told.get("logged", True) for _, told in desk.caller.told]
        n_held = sum(logged)
        assert 0 < n_held < 20
        assert logged == [True] * n_held + [False] * (20 - n_held)
        monkeypatch.undo()
        desk.ask(0)
        await asyncio.sleep(0)
        assert desk.caller.told[-1][1]["repeated"], "what is held is known"
        desk.exchange.close()
        assert len(records(tmp_path)) == n_held
        assert desk.shim.recorder.n_shed == 0

    at_desk(tmp_path, act, durability="async")


def test_s12_a_client_that_is_gone_is_not_decided_for(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(1)
        desk.caller.gone = True
        await asyncio.sleep(0)
        assert desk.exchange.n_in_flight == 0
        assert records(tmp_path) == []

    at_desk(tmp_path, act)


def test_with_one_connection_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.exchange.n_connections = 1
        desk.ask(1)
        assert desk.caller.logged_then == [1]

    at_desk(tmp_path, act)


def test_once_all_is_answered_the_sockets_are_polled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told_then = []

    async def act(desk: Desk) -> None:
        monkeypatch.setattr(BusyPolling, "begin", lambda _: told_then.append(len(desk.caller.told)))
        for number in range(10):
            desk.ask(number)
        while len(desk.caller.told) < 10:
            await asyncio.sleep(0)

    at_desk(tmp_path, act, limits=Limits(turn_requests=6))
    assert told_then == [10]
