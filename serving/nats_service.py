"""The handler over NATS: request-reply in a queue group, with the limits, the log and the problem documents of HTTP."""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from features import jetstream
from features.jetstream import BrokerError, Connection, Message, NatsError, Subscription
from serving.exchange import Exchange
from serving.messages import Request, Response
from serving.problems import Problem

QUEUE_GROUP = "turnout"
DECIDE = "turnout.decide"
REPORT = "turnout.outcomes"
ADOPT = "turnout.fallbacks"
_PATHS: Mapping[str, str] = {DECIDE: "/v1/decisions", REPORT: "/v1/outcomes", ADOPT: "/v1/fallbacks"}
_MAX_PENDING = 4_096  # messages held for one subject; beyond, the client drops them, and who asked hears nothing
_JSON = {"content-type": "application/json"}
_FIRST_ERROR = 400
_LOOK_SECONDS = 1.0  # between two looks at whether the connection was closed
_LOGGER = logging.getLogger("turnout.nats")


class _Reply(NamedTuple):
    """What goes back to whom."""

    subject: str
    body: bytes
    headers: dict[str, str] | None


class _Asker:
    """Where one message's answer goes; a connection in the words of `serving.exchange`."""

    __slots__ = ("_reply", "_service", "gone")

    def __init__(self, service: "NatsService", reply: str) -> None:
        self._service = service
        self._reply = reply
        self.gone = False

    def resume(self) -> None:
        """Do nothing: there is no more to read of a message."""

    def deliver(self, response: Response, _: Request | None) -> None:
        self._service.deliver(self._reply, response)


class NatsService:
    """Answers ``turnout.decide``, ``turnout.outcomes`` and ``turnout.fallbacks``; whoever is in the queue group may get the next message.

    A body is that of ``POST /v1/decisions``, ``/v1/outcomes`` or ``/v1/fallbacks``, headers (content type, ``authorization``, CloudEvents'
    ``ce-``, ``turnout-time``) mean what they mean there. An answer that is an error carries ``Nats-Service-Error-Code``
    and is a problem document.
    """

    def __init__(self, exchange: Exchange, url: str, *, wake: Callable[[], None] = lambda: None) -> None:
        """Prepare to serve ``exchange`` on the broker at ``url``; ``wake`` is called when a release is announced there."""
        self._exchange = exchange
        self._wake = wake
        self._url = url
        self._subscriptions: dict[str, Subscription] = {}
        self._connection: Connection | None = None
        self._replies: deque[_Reply] = deque()
        self._replies_wait = asyncio.Event()
        self._n_in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._n_unsettled = 0
        self._taking = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, for as long as it takes, and serve; HTTP does not wait for it."""
        self._task = asyncio.get_running_loop().create_task(self._serve())

    async def drain(self, seconds: float) -> None:
        """Leave the queue group, answer what has come, and disconnect; what takes longer than ``seconds`` is left."""
        try:
            async with asyncio.timeout(seconds):
                await self._finish()
        except (TimeoutError, NatsError, OSError) as error:
            _LOGGER.warning("draining: %s %s", type(error).__name__, error)
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            await self._connection.close()

    def deliver(self, reply: str, response: Response) -> None:
        """Queue an answer to ``reply``."""
        self._n_in_flight -= 1
        if not self._n_in_flight:
            self._idle.set()
        if not reply:
            return
        largest = self._connection.max_payload if self._connection else len(response.body)
        if len(response.body) > largest:
            told = f"the answer takes {len(response.body)} bytes, the broker passes {largest}: ask for fewer at once"
            response = self._exchange.handler.refuse(Problem(413, told))
        headers = {"Nats-Service-Error-Code": str(response.status)} if response.status >= _FIRST_ERROR else None
        self._replies.append(_Reply(reply, response.body, headers))
        if not self._taking:
            self._replies_wait.set()

    async def _serve(self) -> None:
        """Be in the group for as long as the task lives, whatever the broker does."""
        while True:
            try:
                self._connection = await jetstream.connect(self._url, name="turnout-shim")
                await self._join(self._connection)
                await self._answer(self._connection)
            except (BrokerError, NatsError, OSError) as error:
                _LOGGER.warning("not in the group: %s: %s", type(error).__name__, error)
            if self._connection is not None:  # it may be half in
                await self._connection.close()
            await asyncio.sleep(jetstream.RETRY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret

    async def _join(self, connection: Connection) -> None:
        for subject in _PATHS:
            self._subscriptions[subject] = await connection.subscribe(
                subject,
                queue=QUEUE_GROUP,
                cb=partial(self._take, subject),
                pending_msgs_limit=_MAX_PENDING,
                pending_bytes_limit=self._exchange.limits.max_bodies_bytes,
            )
        await connection.subscribe(jetstream.RELEASED, cb=self._hear, pending_msgs_limit=_MAX_PENDING)

    async def _answer(self, connection: Connection) -> None:
        """Send what was not ready when its question was taken, until the connection is closed for good."""
        while not connection.is_closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._replies_wait.wait()
            self._replies_wait.clear()
            await self._send()

    async def _hear(self, _: Message) -> None:
        """Look at the ledger now: what the message says is not believed."""
        self._wake()

    async def _take(self, subject: str, message: Message) -> None:
        """Submit a message; the last of those that came together lets them all be decided, and written in one write."""
        n_pending = self._subscriptions[subject].pending_msgs if subject in self._subscriptions else 0
        if message.reply or subject != DECIDE:  # else nobody would hear where the event should go
            self._submit(subject, message, n_pending)
        turn_full = self._n_unsettled >= self._exchange.limits.turn_requests
        if n_pending and not turn_full:
            return
        self._n_unsettled = 0
        self._taking = True
        self._exchange.settle()
        self._taking = False
        await self._send()
        if turn_full:
            await asyncio.sleep(0)  # others have sockets too

    def _submit(self, subject: str, message: Message, n_pending: int) -> None:
        self._n_in_flight += 1
        self._idle.clear()
        self._n_unsettled += 1
        problem = self._refusal(message, n_pending)
        refused = None if problem is None else self._exchange.handler.refuse(problem)
        self._exchange.submit(_Asker(self, message.reply), _request(subject, message), refused)

    def _refusal(self, message: Message, n_pending: int) -> Problem | None:
        limits = self._exchange.limits
        if len(message.data) > limits.max_body_bytes:
            return Problem(413, f"a body may hold {limits.max_body_bytes} bytes")
        if n_pending >= limits.max_in_flight:
            return Problem(503, f"more than {limits.max_in_flight} requests are in flight")
        return self._exchange.overload()

    async def _send(self) -> None:
        """Publish the answers that are ready. Past what may be held while the broker is away they are dropped: who asked asks again."""
        while self._replies and self._connection is not None:
            reply = self._replies.popleft()
            try:
                await self._connection.publish(reply.subject, reply.body, headers=reply.headers)
            except NatsError as error:
                _LOGGER.warning("an answer was not sent: %s", type(error).__name__)

    async def _finish(self) -> None:
        for subscription in self._subscriptions.values():
            await subscription.drain()
        self._exchange.settle()
        await self._idle.wait()
        await self._send()
        if self._connection is not None:
            await self._connection.flush()


def _request(subject: str, message: Message) -> Request:
    headers = _JSON
    if message.headers:
        headers = _JSON | {name.lower(): value for name, value in message.headers.items()}
        headers.pop("host", None)  # a message has none
    return Request("POST", _PATHS[subject], "", headers, message.data)
