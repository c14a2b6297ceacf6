"""Whoever has the current release may wait for the next: until it comes, or long enough, and never in another's way."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from features import config
from features.clock import ReplayClock
from models.releases import transitions
from models.releases.ledger import Ledger
from models.releases.transitions import Attribution
from serving.exchange import Exchange
from serving.handler import Handler
from serving.limits import Limits
from serving.lobby import Lobby
from serving.memory import DecisionMemory
from serving.messages import Request, Response
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.settings import Settings
from serving.shim import Shim
from serving.view import ReleaseView, StreamView

PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a"]
objective = { success = 1.0 }
[destinations.a]
""")
)
CURRENT = "/v1/models/router/current"


def view(generation: int) -> ReleaseView:
    return ReleaseView(generation=generation, streams={"orders": StreamView(mode="off", generation=generation)})


@dataclass
class Releases:
    view: ReleaseView

    def rejections(self) -> dict[str, str]:
        return {}


class Caller:
    """A connection that notes what it was answered."""

    def __init__(self) -> None:
        self.gone = False
        self.told: list[tuple[int, Any]] = []

    def deliver(self, response: Response, _: Request | None) -> None:
        self.told.append((response.status, json.loads(response.body)["generation"] if response.body else None))


class Desk:
    """An exchange in front of a real handler, with two callers."""

    def __init__(self, folder: Path) -> None:
        self.releases = Releases(view(1))
        shim = Shim(
            plan=PLAN,
            clock=ReplayClock(at=datetime(2026, 11, 24, 12, tzinfo=UTC)),
            releases=self.releases,  # type: ignore[arg-type]  # no model can fail here
            overrides=OverrideJournal(folder / "overrides.journal"),
            recorder=Recorder(folder / "spool"),
            memory=DecisionMemory(1_000),
        )
        self.handler = Handler(shim, Settings(home=folder, config_path=folder))
        self.exchange = Exchange(self.handler, shim, Limits())
        self.caller, self.other = Caller(), Caller()

    @property
    def tag(self) -> str:
        return dict(self.handler.handle(Request("GET", CURRENT)).headers)["etag"]

    def ask(self, caller: Caller, seconds: str = "30", tag: str = "") -> None:
        self.exchange.submit(caller, Request("GET", CURRENT, f"wait={seconds}", {"if-none-match": tag or self.tag}))
        self.exchange.settle()


def at_desk(folder: Path, act: Callable[[Desk], Awaitable[None]]) -> None:
    async def run() -> None:
        await act(Desk(folder))

    asyncio.run(run())


def test_the_next_release_is_told_of_when_it_is_served(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller)
        desk.exchange.look()
        assert desk.caller.told == []
        desk.releases.view = view(2)
        desk.exchange.look()
        assert desk.caller.told == [(200, 2)]

    at_desk(tmp_path, act)


def test_what_the_caller_does_not_have_is_told_at_once(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller, tag='"other"')
        assert desk.caller.told == [(200, 1)]

    at_desk(tmp_path, act)


def test_after_the_time_asked_for_nothing_has_changed(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller, seconds="0.01")
        await asyncio.sleep(0.02)
        desk.exchange.look()
        assert desk.caller.told == [(304, None)]

    at_desk(tmp_path, act)


def test_another_request_of_the_connection_ends_the_waiting_and_is_answered_after_it(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller)
        desk.ask(desk.other)
        desk.exchange.submit(desk.caller, Request("GET", CURRENT))
        desk.exchange.settle()
        assert desk.caller.told == [(304, None), (200, 1)]
        assert desk.other.told == []

    at_desk(tmp_path, act)


def test_who_asks_more_in_the_same_breath_is_answered_in_order_and_does_not_wait(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        waits = Request("GET", CURRENT, "wait=30", {"if-none-match": desk.tag})
        for request in (waits, Request("GET", CURRENT), waits):
            desk.exchange.submit(desk.caller, request)
        desk.exchange.settle()
        assert desk.caller.told == [(304, None), (200, 1)], "the last waits: nothing was asked after it"

    at_desk(tmp_path, act)


def test_a_shim_that_drains_keeps_nobody_waiting(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller)
        desk.handler.draining = True
        desk.exchange.look()
        desk.ask(desk.other)
        assert desk.caller.told == desk.other.told == [(304, None)]

    at_desk(tmp_path, act)


def test_who_waits_is_not_in_flight(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        desk.ask(desk.caller)
        assert desk.exchange.n_in_flight == 0

    at_desk(tmp_path, act)


def test_who_is_gone_is_forgotten() -> None:
    caller = Caller()
    lobby: Lobby[Caller, str] = Lobby(ReleaseView)
    lobby.seat(caller, "waiting", until=9.0)
    caller.gone = True
    assert list(lobby.leave(0.0)) == []
    assert len(lobby) == 0


@pytest.mark.parametrize("seconds", ["-1", "61", "nan", "inf", "soon"])
def test_a_wait_of_no_sensible_length_is_refused(tmp_path: Path, seconds: str) -> None:
    async def act(desk: Desk) -> None:
        response = desk.handler.handle(Request("GET", CURRENT, f"wait={seconds}"))
        assert response.status == 422
        assert json.loads(response.body)["path"] == "wait"
        assert seconds in json.loads(response.body)["detail"]

    at_desk(tmp_path, act)


def test_who_has_the_whole_ledger_waits_until_another_release_is_served(tmp_path: Path) -> None:
    async def act(desk: Desk) -> None:
        ledger = Ledger(tmp_path / "ledger")
        tag = dict(desk.handler.handle(Request("GET", "/v1/ledger")).headers)["etag"]
        asked = Request("GET", "/v1/ledger", "after=0&wait=30", {"if-none-match": tag})
        desk.exchange.submit(desk.caller, asked)
        desk.exchange.settle()
        by = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
        ledger.append(transitions.genesis(streams={"orders": "off"}, by=by), expected_head="")
        desk.exchange.look()
        assert desk.caller.told == []
        desk.releases.view = view(1)
        desk.exchange.look()
        assert desk.caller.told == [(200, 1)]

    at_desk(tmp_path, act)
