"""Asking another shim over HTTP: every bad answer is said, with what was asked, in bounded time and space."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import upstream
from serving.upstream import Upstream, UpstreamError

EMPTY = b'{"after":0,"generation":0,"head":"","previous":"","entries":[]}'
SECRET = "hush-hush"
DIGEST = "a" * 64


class Server:
    """Answers each connection with the next of ``answers``, byte for byte; after the last it stays silent."""

    def __init__(self, *answers: bytes, then_close: bool = True, drips: bool = False) -> None:
        self._drips = drips
        self.requests: list[bytes] = []
        self._answers = iter(answers)
        self._then_close = then_close
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            with contextlib.suppress(OSError):  # the other side may have heard enough
                self._answer(connection)
            if self._then_close:
                connection.close()

    def _answer(self, connection: socket.socket) -> None:
        self.requests.append(connection.recv(65_536))
        connection.sendall(next(self._answers, b""))
        while self._drips:
            connection.sendall(b" ")
            time.sleep(0.01)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        for each in (self._listener, *self._open):
            each.close()


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    made: list[Server] = []
    yield made
    for server in made:
        server.close()


def ok(body: bytes, *headers: bytes, status: bytes = b"200 OK", n_bytes: int | None = None) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"content-length: %d" % (len(body) if n_bytes is None else n_bytes), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def asked(servers: list[Server], *answers: bytes, then_close: bool = True) -> tuple[Upstream, Server]:
    servers.append(Server(*answers, then_close=then_close))
    return Upstream(url=servers[-1].url, token=SECRET), servers[-1]


def test_the_token_is_sent_and_the_tag_of_what_was_new_to_nobody(servers: list[Server]) -> None:
    client, server = asked(
        servers, ok(EMPTY, b'etag: "t1"'), b"HTTP/1.1 304 Not Modified\r\n\r\n", ok(EMPTY), ok(EMPTY)
    )
    found = client.page(0, wait_seconds=5.0)
    assert found is not None
    assert client.page(0, wait_seconds=5.0) is None
    client.forget()
    client.page(7, wait_seconds=0.0)
    first, second, third = (request.decode().lower() for request in server.requests)
    assert first.startswith("get /v1/ledger?after=0&wait=5 http/1.1\r\n")
    assert f"authorization: bearer {SECRET}" in first
    assert "if-none-match" not in first + third
    assert 'if-none-match: "t1"' in second
    assert third.startswith("get /v1/ledger?after=7&wait=0 ")
    assert SECRET not in repr(client)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "RemoteDisconnected"),
        (b"no http\r\n\r\n", "BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200 + b"\r\n", "HTTPException"),
        (ok(b"<html>"), "no page of a ledger"),
        (ok(b"[]"), "no page of a ledger"),
        (ok(EMPTY, n_bytes=len(EMPTY) + 5), "cut short, 5 bytes before its end"),
        (ok(b" " * (4 * 1024 * 1024 + 1)), "more than 4194304 bytes"),
        (ok(b'{"detail":"the token is not one"}', status=b"403 Forbidden"), "status 403: the token is not one"),
        (ok(b"<h1>\x1b[31m\nno" + b"x" * 9_000, status=b"502 Bad Gateway"), r"status 502: <h1>\[31mnox"),
        (ok(b"", b"location: http://elsewhere/", status=b"302 Found"), "status 302"),
    ],
)
def test_a_bad_page_is_said_with_what_was_asked(servers: list[Server], answer: bytes, words: str) -> None:
    client, _ = asked(servers, answer)
    with pytest.raises(UpstreamError, match=rf"^GET /v1/ledger\?after=3&wait=0: .*{words}") as raised:
        client.page(3, wait_seconds=0.0)
    assert len(str(raised.value)) < 500
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (ok(b"not a tar at all" * 32), "expected a member's header"),
        (ok(b""), "cut short"),
        (ok(b"", n_bytes=4_096), "cut short"),
        (ok(b'{"detail":"no generation names it"}', status=b"404 Not Found"), "status 404: no generation names it"),
    ],
)
def test_a_bad_bundle_is_said_with_what_was_asked(
    servers: list[Server], tmp_path: Path, answer: bytes, words: str
) -> None:
    client, _ = asked(servers, answer)
    with pytest.raises(UpstreamError, match=f"^GET /v1/bundles/{DIGEST}: .*{words}"):
        client.bundle(DIGEST, tmp_path)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nx: y\r\n", ok(b"{", n_bytes=100)])
def test_who_stays_silent_is_given_up(
    servers: list[Server], answer: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_PAGE_SECONDS", "_BUNDLE_SECONDS"):
        monkeypatch.setattr(upstream, name, 0.2)
    client, _ = asked(servers, answer, answer, then_close=False)
    for ask in (lambda: client.page(0, wait_seconds=0.0), lambda: client.bundle(DIGEST, tmp_path)):
        with pytest.raises(UpstreamError, match=r"no whole answer within 0\.2 s|timed out"):
            ask()


def test_who_drips_is_given_up(servers: list[Server], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "_PAGE_SECONDS", 0.3)
    servers.append(Server(b"HTTP/1.1 200 OK\r\ncontent-length: 9000\r\n\r\n", then_close=False, drips=True))
    with pytest.raises(UpstreamError, match=r"no whole answer within 0\.3 s"):
        Upstream(url=servers[-1].url).page(0, wait_seconds=0.0)


def test_closing_ends_what_is_waited_for(servers: list[Server]) -> None:
    client, server = asked(servers, then_close=False)
    threading.Timer(0.1, client.close).start()
    with pytest.raises(UpstreamError):
        client.page(0, wait_seconds=60.0)
    with pytest.raises(UpstreamError, match="ended"):
        client.page(0, wait_seconds=60.0)
    assert len(server.requests) == 1


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://a..b:80"])
def test_who_cannot_be_reached_is_said(url: str) -> None:
    with pytest.raises(UpstreamError, match="cannot be reached"):
        Upstream(url=url).page(0, wait_seconds=0.0)
