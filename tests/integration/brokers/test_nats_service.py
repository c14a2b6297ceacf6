"""The shim over NATS: the same answers, problems and log as over HTTP, whatever becomes of the broker or the shim."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shim_bare import Echoing, Idle
from features import jetstream
from features.jetstream import Connection, Message, NatsError
from features.records import Decision, Outcome
from models.releases import transitions
from models.releases.ledger import Ledger
from models.releases.transitions import Attribution
from serving.exchange import Exchange
from serving.limits import Limits
from serving.nats_service import NatsService
from serving.recorder import Recorder

Start = Callable[..., Any]
ASK_SECONDS = 2.0


def event(identity: str) -> dict[str, Any]:
    return {"specversion": "1.0", "id": identity, "source": "/shop", "type": "shop.order", "data": {"weight": 2}}


def outcome(decision_id: str) -> dict[str, Any]:
    return {"decision_id": decision_id, "served": "a", "observed_at": "2026-11-24T12:00:00Z", "success": True}


async def ask(
    connection: Connection, document: Any, *, subject: str = "turnout.decide", **headers: str
) -> tuple[int, Any]:
    """Ask until somebody answers: what is lost on its way is asked again."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    for _ in range(60):
        try:
            message: Message = await connection.request(subject, body, timeout=ASK_SECONDS, headers=headers or None)
        except NatsError:
            await asyncio.sleep(0.05)
            continue
        code = (message.headers or {}).get("Nats-Service-Error-Code", "200")
        return int(code), json.loads(message.data)
    pytest.fail("nobody answered")


def test_what_is_asked_and_reported_over_nats_is_answered_and_logged(nats_server: Any, start_shim: Start) -> None:
    shim = start_shim()

    async def talk() -> list[Any]:
        connection = await jetstream.connect(nats_server.url, name="test")
        one = await ask(connection, {"event": event("e1")})
        again = await ask(connection, {"event": event("e1")})
        batch = await ask(connection, [{"event": event("e2")}, {"event": event("e3") | {"type": "unheard"}}])
        bare = await ask(connection, event("e4"), **{"Content-Type": "application/cloudevents+json"})
        reported = await ask(connection, outcome(one[1]["decision_id"]), subject="turnout.outcomes")
        await connection.close()
        return [one, again, batch, bare, reported]

    one, again, batch, bare, reported = asyncio.run(talk())
    assert [status for status, _ in (one, again, batch, bare, reported)] == [200] * 5
    assert again[1] == one[1] | {"repeated": True}
    assert [sorted(set(told) & {"destinations", "problem"}) for told in batch[1]] == [["destinations"], ["problem"]]
    assert reported[1]["accepted"] == 1
    decided = [record.event_id for record in shim.records() if isinstance(record, Decision)]
    assert decided == ["e1", "e2", "e4"]
    assert sum(isinstance(record, Outcome) for record in shim.records()) == 1


def test_what_cannot_be_answered_is_a_problem_document_of_the_same_words(nats_server: Any, start_shim: Start) -> None:
    start_shim(TURNOUT_MAX_BODY_BYTES="10000")

    async def talk() -> list[Any]:
        connection = await jetstream.connect(nats_server.url, name="test")
        told = [
            await ask(connection, b"{"),
            await ask(connection, {"event": event("e1"), "candidate": []}),
            await ask(connection, b" " * 10_001),
            await ask(connection, b"[]", **{"Content-Type": "text/plain"}),
            await ask(connection, {"event": event("e1")}, **{"Turnout-Time": "2026-01-01T00:00:00Z"}),
        ]
        await connection.close()
        return told

    told = asyncio.run(talk())
    assert [status for status, _ in told] == [400, 422, 413, 415, 400]
    assert all(document["status"] == status for status, document in told)


def test_a_token_is_asked_for_over_nats_as_well(nats_server: Any, start_shim: Start) -> None:
    start_shim(TURNOUT_TOKEN_DECIDE="key")

    async def talk() -> list[int]:
        connection = await jetstream.connect(nats_server.url, name="test")
        question = {"event": event("e1")}
        key = {"Authorization": "Bearer key"}
        told = [
            await ask(connection, question),
            await ask(connection, question, **key),
            await ask(connection, outcome("d"), subject="turnout.outcomes", **key),
        ]
        await connection.close()
        return [status for status, _ in told]

    assert asyncio.run(talk()) == [401, 200, 403]


def test_several_shims_share_the_questions_and_each_is_answered_once(nats_server: Any, start_shim: Start) -> None:
    shims = [start_shim(name) for name in ("one", "two")]

    async def talk() -> list[Any]:
        connection = await jetstream.connect(nats_server.url, name="test")
        while True:  # until both are in the group
            await asyncio.gather(*(ask(connection, {"event": event(f"w{n}")}) for n in range(20)))
            if all(shim.records() for shim in shims):
                break
        told = await asyncio.gather(*(ask(connection, {"event": event(f"e{n}")}) for n in range(300)))
        await connection.close()
        return told

    told = asyncio.run(talk())
    decided = [
        {r.decision_id: r.assigned for r in shim.records() if isinstance(r, Decision) and r.event_id[0] == "e"}
        for shim in shims
    ]
    assert {document["decision_id"]: document["destinations"][0] for _, document in told} == decided[0] | decided[1]
    assert len(decided[0]) + len(decided[1]) == 300
    assert all(decided)


def test_a_draining_shim_answers_what_it_took_and_leaves_the_rest_to_others(
    nats_server: Any, start_shim: Start
) -> None:
    leaving, staying = start_shim("leaving"), start_shim("staying")

    async def talk() -> int:
        connection = await jetstream.connect(nats_server.url, name="test")
        n_unanswered = 0
        ended: asyncio.Future[int] | None = None
        for number in range(100_000):
            if ended is None and number > 200 and leaving.records():
                ended = asyncio.get_running_loop().run_in_executor(None, leaving.end, signal.SIGTERM)
            if ended is not None and ended.done():
                assert ended.result() == 0
                break
            try:
                body = json.dumps({"event": event(f"e{number}")}).encode()
                await connection.request("turnout.decide", body, timeout=30)
            except NatsError:
                n_unanswered += 1
                await asyncio.sleep(0.05)  # before the first has joined
                assert ended is None, "a question was lost in the drain"
        await connection.close()
        return n_unanswered

    asyncio.run(talk())
    assert staying.records()


def test_i18_the_broker_goes_and_comes_back_and_the_shim_serves_on(nats_server: Any, start_shim: Start) -> None:
    nats_server.kill()
    shim = start_shim()  # it starts without the broker

    async def talk() -> tuple[int, Any]:
        connection = await jetstream.connect(nats_server.url, name="test")
        told = await ask(connection, {"event": event("e1")})
        await connection.close()
        return told

    nats_server.start()
    assert asyncio.run(talk())[0] == 200
    for _ in range(2):
        nats_server.kill()
        nats_server.start()
        assert asyncio.run(talk())[1]["repeated"]
    assert len(shim.records()) == 1


def test_a_shim_that_hears_of_a_release_looks_at_the_ledger_at_once(nats_server: Any, start_shim: Start) -> None:
    shim = start_shim(TURNOUT_POLL_SECONDS="600")
    begun = transitions.genesis(
        streams={"orders": "off"}, by=Attribution(actor="ada", reason="drill", at=datetime(2026, 1, 1, tzinfo=UTC))
    )
    Ledger(shim.home / "ledger").append(begun, expected_head="")

    def generation() -> int:
        connection = HTTPConnection("127.0.0.1", shim.port, timeout=10)
        connection.request("GET", "/status")
        told = json.loads(connection.getresponse().read())
        connection.close()
        return int(told["generation"])

    assert generation() == 0
    give_up_at = time.monotonic() + 60
    while generation() == 0:  # it may not have joined yet
        assert time.monotonic() < give_up_at
        assert jetstream.announce(nats_server.url, "turnout.released", b"1")
        time.sleep(0.1)
    assert generation() == begun.generation


def test_what_cannot_be_announced_stops_nobody() -> None:
    assert not jetstream.announce("nats://127.0.0.1:9", "turnout.released", b"1", patience_seconds=0.3)


def test_a_connection_that_was_closed_for_good_is_made_anew(nats_server: Any, tmp_path: Path) -> None:
    async def talk() -> list[bytes]:
        idle = Idle(Recorder(tmp_path / "spool"))
        service = NatsService(Exchange(Echoing(), idle, Limits()), nats_server.url)  # type: ignore[arg-type]  # as far as it needs them
        service.start()
        connection = await jetstream.connect(nats_server.url, name="test")
        told = [await ask(connection, {"n": 1})]
        assert service._connection
        await service._connection.close()
        told.append(await ask(connection, {"n": 2}))
        await service.drain(5.0)
        await connection.close()
        return told

    assert asyncio.run(talk()) == [(200, {"n": 1}), (200, {"n": 2})]


@pytest.mark.parametrize("durability", ["batch", "async"])
def test_answers_leave_as_the_durability_says(nats_server: Any, start_shim: Start, durability: str) -> None:
    shim = start_shim(TURNOUT_DURABLE=durability)

    async def talk() -> list[Any]:
        connection = await jetstream.connect(nats_server.url, name="test")
        told = await asyncio.gather(*(ask(connection, {"event": event(f"e{n}")}) for n in range(100)))
        await connection.close()
        return told

    told = asyncio.run(talk())
    assert shim.end(signal.SIGTERM) == 0
    assert {document["decision_id"] for _, document in told} == {record.decision_id for record in shim.records()}


def test_a_shim_without_a_broker_does_without_its_client_and_one_with_it_says_what_brings_it() -> None:
    program = (
        "import sys, serving.__main__, serving.client; assert 'nats' not in sys.modules\n"
        "sys.modules['nats'] = None\n"
        "from serving.server import _nats_service\n"
        "_nats_service(None, 'nats://127.0.0.1:1', print)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("TURNOUT_NATS_URL is set, and nats is not installed: turnout[nats]")


def test_s11_past_the_bound_on_requests_in_flight_others_are_told_to_come_back_and_nobody_hears_nothing(
    nats_server: Any, tmp_path: Path
) -> None:
    async def talk() -> list[int]:
        idle = Idle(Recorder(tmp_path / "spool"))
        limits = Limits(max_in_flight=8)
        service = NatsService(Exchange(Echoing(), idle, limits), nats_server.url)  # type: ignore[arg-type]  # as far as it needs them
        service.start()
        connection = await jetstream.connect(nats_server.url, name="test")
        await ask(connection, {})
        statuses: list[int] = []
        give_up_at = time.monotonic() + 60
        while set(statuses) != {200, 503}:  # a busy broker may hand a thousand on so slowly that there is room for all
            assert time.monotonic() < give_up_at, Counter(statuses)
            statuses += [s for s, _ in await asyncio.gather(*(ask(connection, {"n": n}) for n in range(1_000)))]
        await service.drain(5.0)
        await connection.close()
        return statuses

    statuses = asyncio.run(talk())
    assert statuses
    assert len(statuses) % 1_000 == 0


def test_a_question_that_nobody_waits_for_holds_up_none_that_came_with_it(nats_server: Any, start_shim: Start) -> None:
    shim = start_shim()

    async def talk() -> Any:
        connection = await jetstream.connect(nats_server.url, name="test")
        await ask(connection, {"event": event("e0")})
        questions = [json.dumps({"event": event(name)}).encode() for name in ("e1", "e2")]
        asking = asyncio.create_task(connection.request("turnout.decide", questions[0], timeout=20))
        await asyncio.sleep(0)
        await connection.publish("turnout.decide", questions[1])
        told = json.loads((await asking).data)
        await connection.close()
        return told

    assert asyncio.run(talk())["destinations"]
    assert [record.event_id for record in shim.records()] == ["e0", "e1"]
