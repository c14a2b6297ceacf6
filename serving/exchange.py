"""Between the connections and the handler: requests wait their turn, bounded, and answers leave once what they rest on is written."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from serving.fast_path import Replier
from serving.handler import Handler
from serving.heads import KnownHeads
from serving.limits import Limits
from serving.lobby import Lobby
from serving.messages import Request, Response
from serving.polling import BusyPolling
from serving.problems import Problem
from serving.replies import Replies
from serving.settings import Durability
from serving.shim import Shim

_BATCH_SECONDS = 0.002  # that an answer may wait for others to be written with it
_ASYNC_SECONDS = 0.005  # that an answer may be ahead of its record
_REST_SECONDS = 0.005  # between two looks whether there is room for those who were refused
_RETRY_SECONDS = 1.0  # before a disk that refused is asked again
_LOGGER = logging.getLogger("turnout.shim")


class Connection(Protocol):
    """Where answers go; ``serving.protocol.HttpProtocol`` is one."""

    gone: bool

    def resume(self) -> None:
        """Read on, after a rest."""

    def deliver(self, response: Response, request: Request | None) -> None:
        """Send the response to the oldest request that waits; without ``request`` it was refused before it was whole."""


class Direct(Connection, Protocol):
    """A connection that takes whole replies as well."""

    def send(self, reply: bytes) -> None:
        """Send the whole reply to the oldest request that waits."""


@dataclass(slots=True)
class _Waiting:
    connection: Connection
    request: Request | None
    response: Response | None


# A request that was decided as it was read: the request itself, should it be asked again, and its reply. A plain tuple, which costs
# the least.
_Told = tuple[Direct, bytes, KnownHeads, bytes]


class Exchange:
    """Answers the requests of all connections in the order they came, a few per turn of the loop; ordinary ones as they are read.

    What the requests of a turn decided is written in one write, before any of their answers leaves (``answer``); or with
    the next turns' within two milliseconds (``batch``); or after the answers (``async``), where a crash may lose what was
    accepted in the last five milliseconds, and while the disk refuses whatever is held.

    ``n_bodies_bytes`` and ``n_bodies`` are the connections' to count: what has arrived of bodies not whole yet.
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
        self._overload = Problem(503, f"more than {limits.max_in_flight} requests are in flight")
        self._shim = shim
        self._durability: Durability = durability
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Waiting] = deque()
        self._answered: list[_Waiting] = []  # waiting for the log
        self._told: list[_Told] = []  # as well; of their connections nothing else waits that came before
        self._replier: Replier | None = None  # up to the end of the turn or the next write, which may fill a segment
        self._owed = shim.debts.snapshot()
        self._resting: deque[Connection] = deque()
        self._rest_ends = False  # a look whether there is room is due
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
        n_before = self.n_in_flight + (len(self._resting) if after_rests else 0)
        return self._overload if n_before >= self.limits.max_in_flight else None

    def rest(self, connection: Connection) -> None:
        """Let a connection for whose requests there is no room rest until there is some.

        Refusing takes time that answers need; without rests a flood of requests would get nothing but refusals.
        """
        self._resting.append(connection)
        self._look_for_room()

    def _look_for_room(self) -> None:
        if self._resting and not self._rest_ends:
            self._rest_ends = True
            self._loop.call_later(_REST_SECONDS, self._resume)

    def _resume(self) -> None:
        """Let connections read on, who rested longest first, as far as there is room for a request of each."""
        self._rest_ends = False
        for _ in range(min(len(self._resting), self.limits.max_in_flight - self.n_in_flight)):
            connection = self._resting.popleft()
            if not connection.gone:
                connection.resume()
        self._look_for_room()

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

    def reply(self, connection: Direct, data: bytes, start: int, replies: Replies) -> int:
        """Decide at once the request that begins at ``start``, if it is ordinary, and return where it ends; else ``start``.

        Of its connection nothing else may wait but such requests. `settle` must follow: the replies leave as all answers do,
        when what was decided is written.
        """
        if self.handler.draining:
            return start
        try:
            replier = self._replier = self._replier or self._shim.replier()
            told = replier and replier(data, start, replies.heads.decisions, replies.decided)
        except Exception:  # what nobody thought of must cost nobody the answer
            _LOGGER.exception("a request could not be decided as it was read")
            return start
        if not told:
            return start
        reply, end = told
        self._told.append((connection, data[start:end], replies.heads, reply))
        return end

    def look(self) -> None:
        """Answer those who waited for a release, and it came, or waited as long as they wished; to be called now and then."""
        for waiting in self._lobby.leave(self._loop.time(), everyone=self.handler.draining):
            if waiting.request is not None:
                waiting.response = self.handler.handle(waiting.request)
                self._queue.append(waiting)
        self.settle()

    def settle(self) -> None:
        """Take a turn: at once where there is but one connection, else when all sockets have been read."""
        if not (self._queue or self._told or self._answered):
            return
        if self.n_connections <= 1:
            self._turn()
            return
        if len(self._told) >= self.limits.turn_requests:
            self._commit_turn()
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def close(self) -> None:
        """Answer all that waits, write what is held, and write at once from now on."""
        while self._queue:
            self._turn()
        self._write()
        self._shim.recorder.holding = False

    def _turn(self) -> None:
        self._turn_due = False
        self._replier = None
        queue, handle, until = self._queue, self.handler.handle, time.perf_counter() + self.limits.turn_seconds
        for _ in range(min(len(queue), self.limits.turn_requests)):
            if time.perf_counter() > until:
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
            self._replier = None
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
        self._answered[:0] = [self._wait_again(told) for told in self._told]
        self._told.clear()
        for waiting in self._answered:
            if waiting.request is not None and (waiting.response is None or waiting.response.recorded):
                waiting.response = self.handler.handle(waiting.request)
        recorder.holding = True

    def _wait_again(self, told: _Told) -> _Waiting:
        connection, data, heads, _ = told
        taken = heads.take(data)
        if taken is None:  # its head is not known any more
            return _Waiting(connection, None, self.handler.refuse(Problem(503, "the decision could not be logged")))
        return _Waiting(connection, taken[0], None)

    def _release(self) -> None:
        told, self._told = self._told, []
        answered, self._answered = self._answered, []
        self._owed = self._shim.debts.snapshot()
        _deliver(told, answered)


def _deliver(told: Sequence[_Told], answered: Sequence[_Waiting]) -> None:
    for connection, _, _, reply in told:
        if not connection.gone:
            connection.send(reply)
    for waiting in answered:
        if waiting.response is not None and not waiting.connection.gone:
            waiting.connection.deliver(waiting.response, waiting.request)
