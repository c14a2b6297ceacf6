"""Sockets are polled after an answer as long as that meets requests, and a loop that meets none sleeps."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from serving import polling
from serving.polling import BusyPolling

SECONDS = 100e-6


class Loop:
    """An event loop that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def turn(self, seconds: float) -> None:
        """Let so much time pass in a turn."""
        self.now += seconds
        due, self.due = self.due, []
        for callback in due:
            callback()


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(polling.time, "perf_counter", lambda: loop.now)
    return loop


def polling_on(loop: Loop, seconds: float = SECONDS) -> BusyPolling:
    return BusyPolling(seconds, cast("asyncio.AbstractEventLoop", loop))


def miss(loop: Loop, n: int, busy: BusyPolling) -> int:
    """Let n turns answer, with nothing to meet after any, and return after how many the loop was kept awake."""
    n_polled = 0
    for _ in range(n):
        busy.begin()
        n_polled += bool(loop.due)
        loop.turn(2 * SECONDS)
    return n_polled


def test_after_an_answer_the_loop_is_kept_awake_for_the_time_set_and_no_longer(loop: Loop) -> None:
    polling_on(loop).begin()
    for _ in range(3):
        assert len(loop.due) == 1
        loop.turn(SECONDS / 4)
    loop.turn(SECONDS / 2)
    assert not loop.due


def test_a_request_that_is_met_prolongs_the_poll_without_a_second_one_beside_it(loop: Loop) -> None:
    busy = polling_on(loop)
    busy.begin()
    for _ in range(100):
        loop.turn(SECONDS / 2)
        busy.begin()
        assert len(loop.due) == 1
    loop.turn(SECONDS * 1.01)
    assert not loop.due


def test_a_loop_that_meets_nothing_sleeps_but_for_one_try_in_64(loop: Loop) -> None:
    busy = polling_on(loop)
    assert miss(loop, 6, busy) == 6
    assert miss(loop, 640, busy) == 10


def test_polling_begins_again_once_it_pays(loop: Loop) -> None:
    busy = polling_on(loop)
    miss(loop, 100, busy)
    for _ in range(64):
        busy.begin()
        loop.turn(SECONDS / 2)
    assert loop.due, "a try that came in time goes on"
    for _ in range(8):
        busy.begin()
        loop.turn(SECONDS / 2)
    loop.turn(2 * SECONDS)
    assert miss(loop, 1, busy) == 1


def test_no_seconds_is_never(loop: Loop) -> None:
    assert miss(loop, 200, polling_on(loop, 0.0)) == 0
