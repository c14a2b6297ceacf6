import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import msgspec
import pytest

from features import config
from features.clock import ReplayClock
from features.cloudevents import CloudEvent
from features.records import Candidate, Decision, Outcome
from serving import asking, identity
from serving.client import Client, pause_seconds
from serving.plan import Plan

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
DEADLINE_SECONDS = 0.3  # where it is to pass
PATIENCE_SECONDS = 60.0  # where it is not, however busy the machine
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


def hang(connection: socket.socket) -> None:
    """Say nothing until the client has given up."""
    connection.settimeout(PATIENCE_SECONDS)
    while connection.recv(65_536):
        pass


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"x" * 65_536)


@contextmanager
def shim(*talks: Talk, deadline_seconds: float = PATIENCE_SECONDS) -> Iterator[Client]:
    """A client of a server whose n-th connection is led by the n-th of ``talks``."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for talk in talks:
            with suppress(OSError), listener.accept()[0] as connection:
                talk(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    client = made(f"http://127.0.0.1:{listener.getsockname()[1]}", deadline_seconds)
    yield client
    client.close()
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)  # closing alone does not wake who waits in accept
    listener.close()
    thread.join(timeout=5)


def made(url: str, deadline_seconds: float = PATIENCE_SECONDS) -> Client:
    return Client(url=url, plan=PLAN, deadline_seconds=deadline_seconds, clock=ReplayClock(at=AT))


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
    with shim(talk, deadline_seconds=DEADLINE_SECONDS) as client:
        started = time.monotonic()
        told = client.decide(event())
        assert time.monotonic() - started < PATIENCE_SECONDS / 2  # a busy machine's deadline; who hangs takes longer
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


def test_without_the_shim_the_last_table_routes_within_the_policy_until_it_is_old() -> None:
    now = 0.0
    with shim(say(http(ANSWER))) as asked:
        asked.asker.table.now_seconds = lambda: now
        assert asked.decide(event()).destinations == ("b", "a")
    told = asked.decide(event())
    assert (told.destinations, told.logged, asked.state) == (("b", "a"), False, "stale")
    assert told.reason.startswith("static: last table: the shim did not answer: ")
    only_b = asked.decide(event(), [Candidate(destination="a")])
    assert only_b.destinations == ("a",)
    now = 601.0
    assert (asked.decide(event()).destinations, asked.state) == (("a", "b"), "error")


def test_an_explored_answer_does_not_outweigh_the_others() -> None:
    usual = ANSWER | {"destinations": ["a", "b"]}
    with shim(say(http(usual), http(usual), http(ANSWER))) as asked:
        for _ in range(3):
            asked.decide(event())
    assert asked.decide(event()).destinations == ("a", "b")


def requests_of(connection: socket.socket) -> tuple[str, object]:
    head, _, body = connection.recv(65_536).partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), json.loads(body)


def test_what_was_decided_without_the_shim_is_reported_before_its_outcome_and_once() -> None:
    heard: list[tuple[str, object]] = []

    def listen(connection: socket.socket) -> None:
        for status in (202, 202, 202):
            heard.append(requests_of(connection))
            connection.sendall(http({"accepted": 1}, status=status))

    with shim(say(http({}, status=503)), listen) as asked:
        told = asked.decide(event())
        outcome = Outcome(decision_id=told.decision_id, served=told.destinations[0], observed_at=AT)
        assert asked.report(outcome)
        assert asked.report(outcome)
    assert [line for line, _ in heard] == [
        "POST /v1/fallbacks HTTP/1.1",
        "POST /v1/outcomes HTTP/1.1",
        "POST /v1/outcomes HTTP/1.1",
    ]
    (made,) = msgspec.convert(heard[0][1], list[Decision])
    assert (made.decision_id, made.assigned, made.propensity, made.arm) == (told.decision_id, "a", 1.0, "static")
    assert not asked.asker.unreported


def test_what_waits_to_be_reported_is_bounded_and_what_is_refused_is_not_sent_for_ever() -> None:
    dead = made("http://127.0.0.1:9")
    for _ in range(asking.MAX_UNREPORTED + 3):
        dead.decide(event())
    assert (len(dead.asker.unreported), dead.asker.n_forgotten) == (asking.MAX_UNREPORTED, 3)
    with shim(say(http({}, status=503)), say(http({}, status=422), http({}, status=202))) as asked:
        asked.decide(event())
        assert asked.report(Outcome(decision_id="d1", served="a", observed_at=AT))
        assert (len(asked.asker.unreported), asked.asker.n_forgotten) == (0, 1)


def test_the_watch_never_ends_for_good_and_notices_that_the_shim_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.client.pause_seconds", lambda *_: 0.01)
    model = http({"name": "router", "generation": 7})
    tagged = model.replace(b"\r\n", b'\r\netag: "x"\r\n', 1)
    unchanged = b"HTTP/1.1 304 X\r\n\r\n"
    heard: list[bytes] = []

    def listen(connection: socket.socket) -> None:
        for answer in (tagged, unchanged):
            heard.append(connection.recv(65_536))
            connection.sendall(answer)

    troubles = (say(http({}, status=503)), say(b"\x00"), say(http({"generation": []})), hang)
    with shim(*troubles, *[listen] * 50) as asked:
        asked.poll_seconds = 1.0  # how long the one that hangs is waited for
        asked.watch()
        give_up_at = time.monotonic() + 60
        while asked.state != "ready" or not any(b'if-none-match: "x"' in request for request in heard):
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        assert asked.generation == 7


def test_looks_are_jittered_and_seldom_after_failures_and_never_end() -> None:
    for n_failures, longest in ((0, 5.0), (1, 10.0), (3, 30.0), (10_000, 30.0)):
        pauses = {pause_seconds(5.0, n_failures) for _ in range(50)}
        assert len(pauses) > 40
        assert longest / 2 <= min(pauses) <= max(pauses) <= longest
