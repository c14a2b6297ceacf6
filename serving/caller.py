"""One kept connection to a shim over HTTP, with a deadline for each exchange, whatever the other side does."""

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import urlsplit

from serving.asking import NoAnswerError

_MAX_ANSWER_BYTES = 4 * 1024 * 1024
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Reply(NamedTuple):
    """What came back: header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(kw_only=True)
class Caller:
    """Calls one shim; for one thread. The connection opens when it is first needed, and again after it was lost."""

    url: str
    token: str | None = field(default=None, repr=False)
    _socket: socket.socket | None = field(default=None, repr=False)

    def call(
        self, method: str, path: str, body: bytes = b"", *, seconds: float, headers: Mapping[str, str] = _NO_HEADERS
    ) -> Reply:
        """Exchange one request, once more on a fresh connection where the kept one had been closed, all within ``seconds``.

        Raises
        ------
        NoAnswerError
            If there was no whole answer in time.
        """
        head = self._head(method, path, len(body), headers)
        give_up_at = time.monotonic() + seconds
        try:
            return self._exchange_again(head + body, give_up_at)
        except (OSError, ValueError) as error:
            self.close()
            raise NoAnswerError(f"{type(error).__name__}: {error}") from None

    def close(self) -> None:
        """Close the connection; the next call opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _head(self, method: str, path: str, n_body: int, headers: Mapping[str, str]) -> bytes:
        host, port = self._address()
        bearer = f"authorization: Bearer {self.token}\r\n" if self.token else ""
        others = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"{method} {path} HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n{bearer}{others}"
            f"content-length: {n_body}\r\n\r\n"
        ).encode("latin-1")

    def _address(self) -> tuple[str, int]:
        address = urlsplit(self.url)
        return address.hostname or "127.0.0.1", address.port or 80

    def _exchange_again(self, request: bytes, give_up_at: float) -> Reply:
        if self._socket is None:
            return self._exchange(request, give_up_at)
        try:
            return self._exchange(request, give_up_at)
        except ConnectionError:  # the shim may have closed an idle connection; asking twice gets one decision
            self.close()
            return self._exchange(request, give_up_at)

    def _exchange(self, request: bytes, give_up_at: float) -> Reply:
        if self._socket is None:
            self._socket = socket.create_connection(self._address(), timeout=_left(give_up_at))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_left(give_up_at))
        self._socket.sendall(request)
        return _receive(self._socket, give_up_at)


def _receive(connection: socket.socket, give_up_at: float) -> Reply:
    """Return a response that gives its length, all of it before ``give_up_at``."""
    received = bytearray()
    headers: dict[str, str] = {}
    n_head, n_expected = 0, None
    while n_expected is None or len(received) < n_expected:
        connection.settimeout(_left(give_up_at))
        chunk = connection.recv(65_536)
        if not chunk:
            raise ConnectionResetError("the connection ended in the middle of an answer")
        received += chunk
        if n_expected is None and (n_head := received.find(b"\r\n\r\n") + 4) > 3:  # noqa: PLR2004 - found
            headers = _headers(bytes(received[:n_head]))
            n_expected = n_head + _n_body(int(received[9:12]), headers)
        if (n_expected or len(received)) > _MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of more than {_MAX_ANSWER_BYTES} bytes")
    if len(received) > n_expected:
        raise ValueError("an answer longer than it says")
    return Reply(int(received[9:12]), headers, bytes(received[n_head:]))


def _headers(head: bytes) -> dict[str, str]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines if line)
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _n_body(status: int, headers: Mapping[str, str]) -> int:
    if status == 304:  # noqa: PLR2004 - HTTP's answer without a body
        return 0
    length = int(headers.get("content-length", "-1"))
    if length < 0:
        raise ValueError("an answer without a valid content-length")
    return length


def _left(give_up_at: float) -> float:
    left = give_up_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left
