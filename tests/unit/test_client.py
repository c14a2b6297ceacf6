import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import pytest

from features import config
from features.clock import ReplayClock
from features.cloudevents import CloudEvent
from features.records import Candidate, Outcome
from serving import identity
from serving.client import Client
from serving.plan import Plan

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEADLINE_SECONDS = 0.3
PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }

[destinations]
a = { region = "eu" }
b = { region = "us" }

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["us"]
""")
)
ANSWER = {
    "decision_id": "d1",
    "stream": "orders",
    "destinations": ["b", "a"],
    "reason": "champion: explored",
    "propensity": 0.1,
    "arm": "champion",
    "mode": "on",
    "generation": 3,
    "digest": "f" * 64,
    "decided_at": "2026-11-24T12:00:00Z",
}

Talk = Callable[[socket.socket], None]


def http(document: object, status: int = 200) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body)


def say(*answers: bytes) -> Talk:
    """Answer each request on a connection with the next of ``answers``, then close it."""

    def talk(connection: socket.socket) -> None:
        for answer in answers:
            connection.recv(65_536)
            connection.sendall(answer)

    return talk


def drip(connection: socket.socket) -> None:
    for byte in http(ANSWER):
        connection.sendall(bytes([byte]))
        time.sleep(0.02)


def hang(_: socket.socket) -> None:
    time.sleep(2 * DEADLINE_SECONDS)


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


@contextmanager
def shim(*talks: Talk) -> Iterator[Client]:
    """A client of a server whose n-th connection is led by the n-th of ``talks``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for talk in talks:
            with suppress(OSError), listener.accept()[0] as connection:
                talk(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client = made(f"http://127.0.0.1:{listener.getsockname()[1]}")
    yield client
    client.close()
    listener.close()
    thread.join(timeout=5)


def made(url: str) -> Client:
    return Client(url=url, plan=PLAN, deadline_seconds=DEADLINE_SECONDS, clock=ReplayClock(at=AT))


def event(**fields: object) -> CloudEvent:
    return CloudEvent(specversion="1.0", id="e1", source="/shop", type="shop.order", **fields)  # type: ignore[arg-type]


def test_the_shims_answer_is_passed_on() -> None:
    with shim(say(http(ANSWER))) as client:
        assert client.state == "starting"
        told = client.decide(event())
        assert (told.destinations, told.generation, told.logged) == (("b", "a"), 3, True)
        assert client.state == "ready"


def test_a_connection_is_kept_and_opened_again_when_the_shim_closed_it() -> None:
    with shim(say(http(ANSWER), http(ANSWER)), say(http(ANSWER))) as client:
        assert [client.decide(event()).generation for _ in range(3)] == [3, 3, 3]


@pytest.mark.parametrize(
    "talk",
    [
        hang,
        drip,
        flood,
        say(b""),
        say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
        say(b"HTTP/1.1 200 OK\r\n\r\n{}"),
        say(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n"),
        say(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n"),
        say(b"\x00" * 100_000),
        say(http({"nonsense": 1})),
        say(http(ANSWER) + b"and more"),
        say(http({"detail": "busy"}, status=503)),
        say(http(ANSWER | {"destinations": ["elsewhere"]})),
        say(b"HTTP/1.1 200 OK\r\ncontent-length: 200000\r\n\r\n" + b"[" * 200_000),
    ],
)
def test_s20_whatever_the_shim_does_an_answer_comes_within_the_deadline(talk: Talk) -> None:
    with shim(talk) as client:
        started = time.monotonic()
        told = client.decide(event())
        assert time.monotonic() - started < DEADLINE_SECONDS + 2  # the rest is for a busy machine
        assert (told.destinations, told.logged) == (("a", "b"), False)
        assert told.reason.startswith("static: the shim did not answer: ")
        assert identity.mark_of(told.decision_id) == identity.fingerprint("orders", "/shop", "e1")
        assert client.state == "error"


def test_s20_a_dead_shim_costs_neither_decision_nor_report() -> None:
    client = made("http://127.0.0.1:9")
    assert client.decide(event()).destinations == ("a", "b")
    assert not client.report(Outcome(decision_id="d1", served="a", observed_at=AT))
    assert "Refused" in client.failure


def test_the_fallback_and_the_shim_both_stay_within_the_policy() -> None:
    personal = event(dataclassification="personal")
    assert made("http://127.0.0.1:9").decide(personal).destinations == ("b",)
    with shim(say(http(ANSWER))) as client:
        assert client.decide(personal).destinations == ("b",)


def test_where_the_policy_allows_nothing_the_client_names_nothing() -> None:
    client = made("http://127.0.0.1:9")
    told = client.decide(event(dataclassification="unheard"))
    assert (told.destinations, told.reason[:8]) == ((), "refused:")
    unknown = CloudEvent(specversion="1.0", id="e", source="/s", type="unheard")
    assert client.decide(unknown).destinations == ()
    assert client.decide(event(data={"x": "y"}), [Candidate(destination="elsewhere")]).destinations == ()


def test_an_outcome_is_reported() -> None:
    with shim(say(http({"accepted": 1}, status=202), http({}, status=503))) as client:
        outcome = Outcome(decision_id="d1", served="a", observed_at=AT)
        assert client.report(outcome)
        assert not client.report(outcome)
