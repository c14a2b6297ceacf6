"""The one door to NATS: connections that come back by themselves, JetStream streams, and what a consumer takes from them."""

import asyncio
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import nats
from nats.aio.client import Client as Connection
from nats.aio.msg import Msg as Message
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js.api import ConsumerConfig, DiscardPolicy, RetentionPolicy, StreamConfig
from nats.js.client import JetStreamContext
from nats.js.errors import NotFoundError

__all__ = ["Connection", "Message", "NatsError", "NotFoundError", "Subscription"]

CONNECT_SECONDS = 5.0
RETRY_SECONDS = 1.0  # in the mean between two attempts to connect
ACK_WAIT_SECONDS = 60.0  # after which what was taken and not acknowledged is delivered again
FETCH_SECONDS = 0.5
_MAX_UNACKNOWLEDGED = 50_000
_LOGGER = logging.getLogger("turnout.nats")


class BrokerError(RuntimeError):
    """A broker that does not answer, or not as it should: names it, without its password."""


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A JetStream stream: under ``work`` a message stays until it is acknowledged, else until the stream is full.

    A full stream of work refuses what is published: whoever publishes hears of it, and nothing accepted is lost.
    """

    name: str
    subjects: tuple[str, ...]
    work: bool = True
    max_bytes: int = 1024 * 1024 * 1024


EVENTS = Topic(name="TURNOUT_EVENTS", subjects=("turnout.events.>",))
OUTCOMES = Topic(name="TURNOUT_OUTCOMES", subjects=("turnout.outcomes.>",))
REFUSED = Topic(name="TURNOUT_REFUSED", subjects=("turnout.refused.>",), work=False)
TOPICS = (EVENTS, OUTCOMES, REFUSED)
RELEASED = "turnout.released"  # on which shims hear that the ledger has grown


def shown(url: str) -> str:
    """Return an address without the credentials in it."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


async def connect(url: str, *, name: str, patience_seconds: float | None = None) -> Connection:
    """Return a connection; once made it comes back by itself for as long as it takes, at an interval of its own.

    Without ``patience_seconds`` the first attempt is repeated just so.

    Raises
    ------
    BrokerError
        If there is no connection after ``patience_seconds``.
    """
    told: list[str] = []

    async def complain(error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        if told[-1:] != [text]:  # once, not at every attempt
            told[:] = [text]
            _LOGGER.warning("%s: %s", shown(url), text)

    async def rejoice() -> None:
        told.clear()
        _LOGGER.warning("%s: connected again", shown(url))

    connecting = nats.connect(
        url,
        name=name,
        error_cb=complain,
        reconnected_cb=rejoice,
        connect_timeout=CONNECT_SECONDS,
        reconnect_time_wait=RETRY_SECONDS * random.uniform(0.5, 1.5),  # noqa: S311 - many shims must not come back in step, which is no secret
        max_reconnect_attempts=-1,
    )
    try:
        return await asyncio.wait_for(connecting, patience_seconds)
    except (TimeoutError, NatsError, OSError) as error:
        why = told[-1] if told else str(error) or "no answer"
        raise BrokerError(f"{shown(url)} cannot be reached: {why}") from None


async def ensure(connection: Connection, topics: Sequence[Topic] = TOPICS) -> None:
    """Make the streams that are not there; one that is there stays as its owner made it."""
    streams = connection.jetstream()
    for topic in topics:
        try:
            await streams.stream_info(topic.name)
        except NotFoundError:
            await streams.add_stream(
                StreamConfig(
                    name=topic.name,
                    subjects=list(topic.subjects),
                    retention=RetentionPolicy.WORK_QUEUE if topic.work else RetentionPolicy.LIMITS,
                    discard=DiscardPolicy.NEW if topic.work else DiscardPolicy.OLD,
                    max_bytes=topic.max_bytes,
                )
            )


def announce(url: str, subject: str, payload: bytes, *, patience_seconds: float = 2.0) -> bool:
    """Publish to whoever listens right now, and tell whether the broker took it; never raises: it is a hint, and nothing rests on it."""

    async def publish_once() -> None:
        connection = await connect(url, name="turnout-announce", patience_seconds=patience_seconds)
        try:
            await connection.publish(subject, payload)
            await connection.flush(timeout=2)
        finally:
            await connection.close()

    try:
        asyncio.run(publish_once())
    except (BrokerError, NatsError, TimeoutError, OSError) as error:
        _LOGGER.warning("%s was not announced: %s", subject, error)
        return False
    return True


async def publish(connection: Connection, subject: str, payload: bytes, *, key: str = "") -> int:
    """Publish into a stream and return the number the message got there; ``key`` makes a repetition within two minutes none.

    Raises
    ------
    NatsError
        If the stream did not take it: it may be full, or away.
    """
    headers = {"Nats-Msg-Id": key} if key else None
    return (await connection.jetstream().publish(subject, payload, headers=headers)).seq


class Pull:
    """What one durable consumer takes from a stream; several processes of one ``durable`` share the messages."""

    def __init__(self, subscription: JetStreamContext.PullSubscription) -> None:
        """Take from ``subscription``, which `open` makes."""
        self._subscription = subscription

    @classmethod
    async def open(
        cls, connection: Connection, stream: str, *, durable: str, ack_wait_seconds: float = ACK_WAIT_SECONDS
    ) -> Self:
        """Return the consumer ``durable`` of ``stream``; it is made if it is not there."""
        config = ConsumerConfig(ack_wait=ack_wait_seconds, max_ack_pending=_MAX_UNACKNOWLEDGED)
        streams = connection.jetstream()
        return cls(await streams.pull_subscribe("", durable=durable, stream=stream, config=config))

    async def n_waiting(self) -> int:
        """Return how many messages were not delivered yet, or delivered and not acknowledged."""
        info = await self._subscription.consumer_info()
        return (info.num_pending or 0) + (info.num_ack_pending or 0)

    async def fetch(self, n_messages: int, *, seconds: float = FETCH_SECONDS) -> list[Message]:
        """Return up to ``n_messages``, as soon as there is one; none if none came in time.

        Raises
        ------
        NatsError
            If the broker is away, so that "none" cannot be told from "not heard".
        """
        try:
            return await self._subscription.fetch(n_messages, timeout=seconds)
        except TimeoutError:
            await self._subscription.consumer_info()
            return []


def sequence(message: Message) -> int:
    """Return the number of ``message`` in its stream."""
    return message.metadata.sequence.stream


def n_delivered(message: Message) -> int:
    """Return how often ``message`` was delivered, this time included."""
    return message.metadata.num_delivered or 1
