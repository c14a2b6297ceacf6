"""The shim that a mirror copies, asked over HTTP: every exchange has a deadline, and what is answered a size."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from models.releases.bundle import BundleError
from serving import page, parcel
from serving.page import LedgerPage, PageError

_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 30.0  # without a byte of a bundle
_PAGE_SECONDS = 30.0  # beyond what the other side is asked to wait
_BUNDLE_SECONDS = 600.0  # 32 MB in it are half a megabit a second
_MAX_PAGE_BYTES = 4 * 1024 * 1024
_MAX_REFUSAL_BYTES = 4_096
_MAX_WORDS = 300  # of a refusal that are repeated


class UpstreamError(RuntimeError):
    """An exchange that failed: names what was asked and what was wrong."""


class _Refusal(msgspec.Struct):
    """A problem document, as far as it is repeated."""

    detail: str = ""


@dataclass(kw_only=True)
class Upstream:
    """Asks the shim at ``url``; for one thread, beside that of `close`. ``token`` is one of role ``read``."""

    url: str
    token: str | None = field(default=None, repr=False)
    _tag: str = ""
    _closed: bool = False
    _socket: socket.socket | None = field(default=None, repr=False)

    def page(self, after: int, *, wait_seconds: float) -> LedgerPage | None:
        """Return what lies past generation ``after``, once something new does; None if nothing came within the time.

        Raises
        ------
        UpstreamError
            If there was no such answer.
        """
        path, seconds = f"/v1/ledger?after={after}&wait={wait_seconds:g}", wait_seconds + _PAGE_SECONDS
        headers = {"if-none-match": self._tag} if self._tag else {}
        with self._asked(path, headers, seconds=seconds, silence_seconds=seconds) as response:
            if response.status == HTTPStatus.NOT_MODIFIED:
                return None
            self._tag = ""  # until the page has been taken, whatever becomes of it
            _check_status(response)
            found = page.parse(_read(response))
            if not found.entries:
                self._tag = response.headers.get("etag", "")
            return found

    def bundle(self, digest: str, folder: Path) -> None:
        """Unpack the bundle of ``digest`` into the empty ``folder``; it is not verified yet.

        Raises
        ------
        UpstreamError
            If there was no such answer, or it was no bundle.
        """
        path = f"/v1/bundles/{digest}"
        with self._asked(path, {}, seconds=_BUNDLE_SECONDS, silence_seconds=_SILENCE_SECONDS) as response:
            _check_status(response)
            parcel.unpack(response, folder)

    def forget(self) -> None:
        """Ask for the next page as if none had come before."""
        self._tag = ""

    def close(self) -> None:
        """End the exchange under way; there are no others."""
        self._closed = True
        self._cut()

    @contextlib.contextmanager
    def _asked(
        self, path: str, headers: Mapping[str, str], *, seconds: float, silence_seconds: float
    ) -> Iterator[HTTPResponse]:
        """Yield the response, to be read before it is left; all within ``seconds``, however slowly it drips.

        Whatever goes wrong meanwhile is raised as `UpstreamError`.
        """
        connection, expired = self._connect(), threading.Event()
        watch = threading.Timer(seconds, self._expire, [expired])
        watch.daemon = True
        try:
            self._socket = connection.sock  # the connection itself lets go of it before the response is read
            connection.sock.settimeout(silence_seconds)
            watch.start()
            connection.request("GET", path, headers=self._headers(headers))
            yield connection.getresponse()
        except (OSError, HTTPException, BundleError, PageError) as error:
            why = str(error) if isinstance(error, BundleError | PageError) else f"{type(error).__name__}: {error}"
            why = f"no whole answer within {seconds:g} s" if expired.is_set() else why
            raise UpstreamError(f"GET {path}: {why}") from None
        finally:
            watch.cancel()
            self._socket = None
            connection.close()

    def _connect(self) -> HTTPConnection:
        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=_CONNECT_SECONDS)
        try:
            if self._closed:
                raise ConnectionAbortedError("the mirror has ended")
            connection.connect()
        except (OSError, ValueError) as error:  # a name may be none that can be looked up
            raise UpstreamError(f"cannot be reached: {error}") from None
        return connection

    def _headers(self, others: Mapping[str, str]) -> dict[str, str]:
        return {**others, **({"authorization": f"Bearer {self.token}"} if self.token else {})}

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        self._cut()

    def _cut(self) -> None:
        """End what is being read or waited for: its reader finds the end."""
        if (connection := self._socket) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _check_status(response: HTTPResponse) -> None:
    if response.status == HTTPStatus.OK:
        return
    said = response.read(_MAX_REFUSAL_BYTES)
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
        said = msgspec.json.decode(said, type=_Refusal).detail.encode()
    words = "".join(filter(str.isprintable, said[:_MAX_WORDS].decode(errors="replace")))
    raise PageError(f"status {response.status}: {words}")


def _read(response: HTTPResponse) -> bytes:
    body = response.read(_MAX_PAGE_BYTES + 1)
    if len(body) > _MAX_PAGE_BYTES:
        raise PageError(f"an answer of more than {_MAX_PAGE_BYTES} bytes")
    if response.length:
        raise PageError(f"the answer was cut short, {response.length} bytes before its end")
    return body
