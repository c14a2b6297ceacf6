"""uvicorn's HTTP protocol with what it lacks: a limit on the time and the size of a request's head."""

from asyncio import TimerHandle
from asyncio.transports import BaseTransport

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
MAX_HEAD_BYTES = 64 * 1024


class PatientProtocol(HttpToolsProtocol):
    """Cuts a connection whose request head is slower than ``HEAD_SECONDS`` or longer than ``MAX_HEAD_BYTES``."""

    _head_timer: TimerHandle | None = None
    _n_head_bytes: int = 0

    def connection_made(self, transport: BaseTransport) -> None:
        """Start waiting for the first head."""
        super().connection_made(transport)  # type: ignore[arg-type] # asyncio says BaseTransport, uvicorn Transport
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Count the head's bytes; a body's are counted by the application."""
        if self._head_timer is not None:
            self._n_head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._n_head_bytes > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_message_begin(self) -> None:
        """Start waiting for this request's head."""
        super().on_message_begin()
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting for what cannot come."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._n_head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._cut)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _cut(self) -> None:
        self._head_timer = None
        self.transport.abort()
