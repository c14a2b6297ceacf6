"""A consumer of events, to run or to copy: take, ask, dispatch, publish the outcome, and acknowledge last."""

import asyncio
import contextlib
import logging
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import msgspec

from features import jetstream
from features.cloudevents import CloudEvent
from features.jetstream import Connection, Message, NatsError, Pull
from features.records import Outcome, outcome_key
from serving.answer import Answer
from serving.asking import Asked, Asker, NoAnswerError
from serving.nats_service import ADOPT, DECIDE

Dispatch = Callable[[CloudEvent, Answer], Awaitable[Outcome | None]]

LONGEST_PAUSE_SECONDS = 60.0
_EVENTS = msgspec.json.Decoder(CloudEvent)
_NO_TOKEN = re.compile(r"[^\w-]", re.ASCII)
_LOGGER = logging.getLogger("turnout.consumer")


@dataclass(kw_only=True)
class Consumer:
    """Serves the stream ``TURNOUT_EVENTS`` with as many others as have the same ``durable`` name.

    ``dispatch`` sends an event to the first of the answer's destinations that takes it, and returns what became of it, or
    None where that will be reported later. It may be called again for one event, with the same answer: after a crash, or
    where what follows it failed. What cannot be asked about at all goes to the stream ``TURNOUT_REFUSED``.
    """

    url: str
    asker: Asker
    dispatch: Dispatch
    durable: str = "turnout-dispatch"
    deadline_seconds: float = 0.25
    ack_wait_seconds: float = 30.0
    n_at_once: int = 64

    async def run(self, stopping: asyncio.Event) -> None:
        """Consume until ``stopping``; then finish what was taken. The broker may go and come back meanwhile."""
        connection = await jetstream.connect(self.url, name=self.durable)
        n_failures = 0
        pull: Pull | None = None
        while not stopping.is_set():
            try:
                pull = pull or await self._open(connection)
                messages = await pull.fetch(self.n_at_once)
                n_failures = 0
            except (NatsError, TimeoutError) as error:
                n_failures += 1
                _LOGGER.warning("no events: %s %s", type(error).__name__, error)
                await asyncio.sleep(pause_seconds(n_failures))
                if connection.is_closed:  # for good: it does not come back by itself
                    connection, pull = await jetstream.connect(self.url, name=self.durable), None
                continue
            await asyncio.gather(*(self._serve(connection, message) for message in messages))
        await connection.flush()
        await connection.close()

    async def ask(self, connection: Connection, event: CloudEvent) -> Answer:
        """Return where the event should go, within the deadline or soon after; never raises."""
        asked = self.asker.prepare(event)
        if not isinstance(asked, Asked):
            return asked
        try:
            reply = await connection.request(DECIDE, asked.body, timeout=self.deadline_seconds)
            if (reply.headers or {}).get("Nats-Service-Error-Code"):
                raise NoAnswerError(reply.data[:200].decode(errors="replace"))  # noqa: TRY301 - one way to fall back
            return self.asker.read(asked, reply.data)
        except (NoAnswerError, NatsError, TimeoutError) as error:
            return self.asker.fall_back(asked, f"{type(error).__name__}: {error}")

    async def _open(self, connection: Connection) -> Pull:
        await jetstream.ensure(connection)
        return await Pull.open(
            connection, jetstream.EVENTS.name, durable=self.durable, ack_wait_seconds=self.ack_wait_seconds
        )

    async def _serve(self, connection: Connection, message: Message) -> None:
        """Serve one event; whatever fails on the way, it comes again."""
        try:
            async with self._kept(message):
                await self._route(connection, message)
            await message.ack()
        except Exception as error:  # noqa: BLE001 - one event must not cost the others anything
            _LOGGER.warning("event %d comes again: %s: %s", jetstream.sequence(message), type(error).__name__, error)
            with contextlib.suppress(NatsError):
                await message.nak(delay=pause_seconds(jetstream.n_delivered(message)))

    async def _route(self, connection: Connection, message: Message) -> None:
        try:
            event = _EVENTS.decode(message.data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            await self._refuse(connection, message, str(error))
            return
        answer = await self.ask(connection, event)
        if not answer.destinations:
            await self._refuse(connection, message, answer.reason)
            return
        await self._report_fallbacks(connection)  # logged before it is acted on, as every decision is
        outcome = await self.dispatch(event, answer)
        if outcome is not None:
            await self._publish(connection, answer.stream, msgspec.json.encode(outcome), outcome_key(outcome))

    async def _report_fallbacks(self, connection: Connection) -> None:
        """Tell a shim of what was decided without one; where none answers, the stream of outcomes keeps it for ingest."""
        while self.asker.unreported:
            decision = self.asker.unreported.popleft()
            body = msgspec.json.encode(decision)
            try:
                reply = await connection.request(ADOPT, body, timeout=self.deadline_seconds)
                if not (reply.headers or {}).get("Nats-Service-Error-Code"):
                    continue
            except (NatsError, TimeoutError):
                pass
            await self._publish(connection, decision.stream, body, f"fallback/{decision.decision_id}")

    async def _publish(self, connection: Connection, stream: str, payload: bytes, key: str) -> None:
        await jetstream.publish(connection, f"turnout.outcomes.{_NO_TOKEN.sub('_', stream)}", payload, key=key)

    async def _refuse(self, connection: Connection, message: Message, reason: str) -> None:
        _LOGGER.warning("event %d is refused: %s", jetstream.sequence(message), reason)
        await jetstream.publish(connection, "turnout.refused.events", message.data)

    @contextlib.asynccontextmanager
    async def _kept(self, message: Message) -> AsyncIterator[None]:
        """Keep the broker from delivering ``message`` to another, however long it takes."""

        async def remind() -> None:
            while True:
                await asyncio.sleep(self.ack_wait_seconds / 3)
                with contextlib.suppress(NatsError):
                    await message.in_progress()

        reminding = asyncio.get_running_loop().create_task(remind())
        try:
            yield
        finally:
            reminding.cancel()


def pause_seconds(n_failures: int) -> float:
    """Return how long to wait after so many failures in a row, never in step with others."""
    return min(2.0 ** min(n_failures, 16) / 4, LONGEST_PAUSE_SECONDS) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
