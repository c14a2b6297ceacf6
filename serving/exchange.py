"""Between the connections and the handler: requests wait their turn, bounded, and answers leave once what they rest on is written."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from serving.connection import Connection, Direct
from serving.fast_path import Told
from serving.handler import Handler
from serving.limits import Limits
from serving.lobby import Lobby
from serving.messages import Request, Response
from serving.polling import BusyPolling
from serving.problems import Problem
from serving.replies import Replies
from serving.rests import Rests
from serving.settings import Durability
from serving.shim import Shim

_BATCH_SECONDS = 0.002  # that an answer may wait for others to be written with it
_ASYNC_SECONDS = 0.005  # that an answer may be ahead of its record
_RETRY_SECONDS = 1.0  # before a disk that refused is asked again
_LOGGER = logging.getLogger("turnout.shim")


@dataclass(slots=True)
class _Waiting:
    connection: Connection
    request: Request | None
    response: Response | None


# Requests that are decided before they are parsed, should they be asked again, and the replies to them. A plain tuple, which costs
# the least.
_Told = tuple[Direct, bytes, bytes]


class Exchange:
    """Answers the requests of all connections in the order they came, a few per turn of the loop; ordinary ones before they are parsed.

    What the requests of a turn decided is written in one write, before any of their answers leaves (``answer``); or with
    the next turns' within two milliseconds (``batch``); or after the answers (``async``), where a crash may lose what was
    accepted in the last five milliseconds, and while the disk refuses whatever is held.

    ``n_bodies_bytes`` and ``n_bodies`` are the connections' to count: what has arrived of bodies not whole yet. ``replies``
    are what HTTP is answered with.
    """

    def __init__(
        self,
        handler: Handler,
        shim: Shim,
        limits: Limits,
        durability: Durability = "answer",
        busy_poll_seconds: float = 0.0,
    ) -> None:
        """Begin with nothing waiting; from now on the shim's recorder holds what it is given until a turn ends."""
        self.handler = handler
        self.limits = limits
        self.n_connections = 0
        self.n_bodies = 0
        self.n_bodies_bytes = 0
        self.replies = Replies()
        self._overload = Problem(503, f"more than {limits.max_in_flight} requests are in flight")
        self._shim = shim
        self._durability: Durability = durability
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._answered: list[_Waiting] = []  # waiting for the log
        self._arrived: dict[Direct, bytes] = {}  # what was sent and nobody has read yet
        self._told: list[_Told] = []  # waiting for it as well; nothing of their connections waits that came before
        self._owed = shim.debts.snapshot()
        self._rests = Rests(lambda: self.limits.max_in_flight - self.n_in_flight)
        self._turn_due = False
        self._commit: asyncio.TimerHandle | None = None
        self._polling = BusyPolling(busy_poll_seconds)
        self._lobby: Lobby[Connection, _Waiting] = Lobby(lambda: shim.releases.view)
        shim.recorder.holding = True

    @property
    def n_in_flight(self) -> int:
        """How many requests have come whole or in part and are not answered yet."""
        return len(self._queue) + len(self._told) + len(self._answered) + self.n_bodies

    def overload(self, *, after_rests: bool = False) -> Problem | None:
        """Return why the next request should come later, None where there is room.

        ``after_rests`` is for who comes after those that rest: as if a request of each of them were in flight.
        """
        n_before = self.n_in_flight + (len(self._rests) if after_rests else 0)
        return self._overload if n_before >= self.limits.max_in_flight else None

    def rest(self, connection: Connection) -> None:
        """Let a connection for whose requests there is no room rest until there is some."""
        self._rests.add(connection)

    def submit(
        self,
        connection: Connection,
        request: Request | None,
        response: Response | None = None,
        *,
        is_first: bool = False,
    ) -> None:
        """Queue a request, or in its place the ``response`` that is known already; `settle` must follow.

        Where one of the connection waits for a release, it waits no longer: answers keep the order of their requests. Where
        nothing of it waits (``is_first``), a known response waits for nobody else's requests either.
        """
        if is_first and response is not None:
            self._answered.append(_Waiting(connection, request, response))
            return
        if self._lobby and (earlier := self._lobby.call(connection)) is not None:
            self._queue.append(earlier)
        self._queue.append(_Waiting(connection, request, response))

    def arrive(self, connection: Direct, data: bytes) -> None:
        """Have the ordinary requests that ``data`` begins with decided, with those of others, once all sockets have been read.

        Of its connection nothing else may wait; it is given the rest to read.
        """
        self._arrived[connection] = data
        if len(self._arrived) >= self.limits.turn_requests:
            self._reply()
        else:
            self._come_to_turn()

    def recall(self, connection: Direct) -> bytes:
        """Return what of a connection has arrived and is not decided yet, which then is the connection's to read."""
        return self._arrived.pop(connection, b"") if self._arrived else b""

    def look(self) -> None:
        """Answer those who waited for a release, and it came, or waited as long as they wished; to be called now and then."""
        for waiting in self._lobby.leave(self._loop.time(), everyone=self.handler.draining):
            if waiting.request is not None:
                waiting.response = self.handler.handle(waiting.request)
                self._queue.append(waiting)
        self.settle()

    def settle(self) -> None:
        """Take a turn: at once where there is but one connection, else when all sockets have been read."""
        if self._queue or self._answered:
            self._come_to_turn()

    def close(self) -> None:
        """Answer all that waits, write what is held, and write at once from now on."""
        while self._queue or self._arrived:
            self._turn()
        self._write()
        self._shim.recorder.holding = False

    def _come_to_turn(self) -> None:
        if self._turn_due:
            return
        if self.n_connections <= 1:
            self._turn()
        else:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def _reply(self) -> None:
        """Decide what has arrived, in one call, and let the connections read what is not ordinary."""
        arrived, self._arrived = self._arrived, {}
        left = []
        for (connection, data), told in zip(arrived.items(), self._decide(list(arrived.values())), strict=True):
            end = 0
            if told:
                reply, end = told
                connection.n_told += 1
                self._told.append((connection, data[:end], reply))
            if end < len(data):
                left.append((connection, data[end:]))
        if self._told:
            self._commit_turn()
        for connection, data in left:
            try:
                connection.read(data)
            except Exception:  # what nobody thought of must cost nobody else the answer
                _LOGGER.exception("what a connection sent could not be read")
                connection.abort()

    def _decide(self, sent: list[bytes]) -> Sequence[tuple[bytes, int] | None]:
        told: Told = None
        if not self.handler.draining:
            try:
                told = self._shim.reply(sent, self.replies.heads.decisions, self.replies.decided)
            except Exception:  # as above
                _LOGGER.exception("requests could not be decided before they are parsed")
        return told or [None] * len(sent)

    def _turn(self) -> None:
        self._turn_due = True  # whoever reads on has a place in this turn
        try:
            if self._arrived:
                self._reply()
        finally:
            self._turn_due = False
        queue, handle, ends_at = self._queue, self.handler.handle, time.perf_counter() + self.limits.turn_seconds
        for _ in range(min(len(queue), self.limits.turn_requests)):
            if time.perf_counter() > ends_at:
                break
            waiting = queue.popleft()
            if waiting.connection.gone:
                continue
            if waiting.response is None and waiting.request is not None:
                waiting.response = handle(waiting.request)
                if waiting.response.wait_seconds and self._may_wait(waiting):
                    until = self._loop.time() + waiting.response.wait_seconds
                    self._lobby.seat(waiting.connection, waiting, until)
                    continue
            self._answered.append(waiting)
        self._commit_turn()
        if queue:
            self._turn_due = True
            self._loop.call_soon(self._turn)
        else:
            self._polling.begin()

    def _commit_turn(self) -> None:
        """Write what was decided, and let the answers go that rest on it; in which order and when, durability says."""
        is_full = len(self._told) >= self.limits.max_in_flight
        if self._durability == "answer" or is_full or not self._shim.recorder.n_held:
            self._write()
        elif self._durability == "async":
            self._release()
            self._write_within(_ASYNC_SECONDS)
        else:
            self._write_within(_BATCH_SECONDS)

    def _may_wait(self, waiting: _Waiting) -> bool:
        """Tell whether an answer may be kept for a while: not where the connection has asked something after it."""
        return not self.handler.draining and all(other.connection is not waiting.connection for other in self._queue)

    def _write_within(self, seconds: float) -> None:
        if self._commit is None:
            self._commit = self._loop.call_later(seconds, self._write)

    def _write(self) -> None:
        """Write what is held, then let the answers go that waited for it."""
        if self._commit is not None:
            self._commit.cancel()
            self._commit = None
        recorder = self._shim.recorder
        if recorder.n_held:
            try:
                recorder.flush(keep=self._durability == "async")
            except OSError:
                self._answer_again()
        self._release()

    def _answer_again(self) -> None:
        """Answer anew what rests on a log that could not be written, each on its own: a static choice needs no log."""
        if self._durability == "async":
            self._write_within(_RETRY_SECONDS)
            return
        recorder = self._shim.recorder
        self._shim.debts.restore(self._owed)
        recorder.holding = False
        self._answered[:0] = [again for told in self._told for again in self._wait_again(told)]
        self._told.clear()
        for waiting in self._answered:
            if waiting.request is not None and (waiting.response is None or waiting.response.recorded):
                waiting.response = self.handler.handle(waiting.request)
        recorder.holding = True

    def _wait_again(self, told: _Told) -> Iterator[_Waiting]:
        connection, data, _ = told
        for request in connection.again(data):
            refusal = None if request else self.handler.refuse(Problem(503, "the decision could not be logged"))
            yield _Waiting(connection, request, refusal)

    def _release(self) -> None:
        told, self._told = self._told, []
        answered, self._answered = self._answered, []
        self._owed = self._shim.debts.snapshot()
        _deliver(told, answered)


def _deliver(told: Sequence[_Told], answered: Sequence[_Waiting]) -> None:
    for connection, _, reply in told:
        if not connection.gone:
            connection.send(reply)
    for waiting in answered:
        if waiting.response is not None and not waiting.connection.gone:
            waiting.connection.deliver(waiting.response, waiting.request)
