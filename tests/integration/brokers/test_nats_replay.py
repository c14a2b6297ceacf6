"""The replay's broker over NATS: questions at their own instant, answers in their order, outcomes on their stream."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from features.message_queue import Queue
from features.records import Decision
from scenarios.flights.broker import Request, RequestRefusedError
from scenarios.flights.nats_broker import NatsBroker

AT = datetime(2013, 9, 1, tzinfo=UTC)


def question(number: int) -> Request:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "/shop", "type": "shop.order", "data": {"weight": 2}}
    return Request("/v1/decisions", json.dumps({"event": event}).encode(), AT + timedelta(hours=number))


def test_questions_are_answered_in_their_order_at_their_instant_and_outcomes_wait_on_their_stream(
    nats_server: Any, start_shim: Callable[..., Any]
) -> None:
    shim = start_shim(TURNOUT_REPLAY="1")

    async def replay() -> list[str]:
        async with NatsBroker(url=nats_server.url) as broker:
            answers = [json.loads(answer) for answer in await broker.send_all(question(n) for n in range(40))]
            outcomes = [
                {"decision_id": told["decision_id"], "served": "a", "observed_at": AT.isoformat()} for told in answers
            ]
            pages = [Request("/v1/outcomes", json.dumps(outcomes[i : i + 15]).encode(), AT) for i in range(0, 40, 15)]
            assert list(await broker.send_all(pages)) == [b""] * 3
            with pytest.raises(RequestRefusedError, match="/v1/decisions answered 400"):
                await broker.send_all([Request("/v1/decisions", b"{", AT)])
        return [told["decision_id"] for told in answers]

    named = asyncio.run(replay())
    logged = {record.decision_id: record for record in shim.records() if isinstance(record, Decision)}
    assert [(logged[name].event_id, logged[name].decided_at) for name in named] == [
        (f"e{n}", AT + timedelta(hours=n)) for n in range(40)
    ]
    assert not [record for record in shim.records() if not isinstance(record, Decision)]
    with Queue(nats_server.url, "TURNOUT_OUTCOMES", durable="test") as queue:
        assert queue.n_waiting() == 40


def test_a_broker_or_shim_that_is_away_is_waited_for(nats_server: Any, start_shim: Callable[..., Any]) -> None:
    async def replay() -> int:
        async with NatsBroker(url=nats_server.url) as broker:
            asking = asyncio.create_task(broker.send_all([question(1)]))
            while not broker.n_retries:
                await asyncio.sleep(0.05)
            await asyncio.to_thread(start_shim, TURNOUT_REPLAY="1")
            assert json.loads((await asking)[0])["destinations"]
            return broker.n_retries

    assert asyncio.run(replay()) > 0
