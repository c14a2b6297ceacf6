"""A stream's messages for code that does not await: taken in bounded numbers, acknowledged or given back."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

from features import jetstream
from features.jetstream import BrokerError, Connection, Message, NatsError, NotFoundError, Pull

T = TypeVar("T")

_FETCH_BYTES = 64 * 1024 * 1024  # that one fetch may bring at the most
_MAX_FETCH = 256
_HEARD_SECONDS = 10  # that the broker may take to hear of an acknowledgement


class Queue:
    """A stream's messages for code that does not await; one thread uses it, within its context."""

    def __init__(self, url: str, stream: str, *, durable: str, patience_seconds: float = 10.0) -> None:
        """Prepare; nothing is connected before the context is entered."""
        self._url, self._stream, self._durable = url, stream, durable
        self._patience_seconds = patience_seconds
        self._runner = asyncio.Runner()
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        """Connect.

        Raises
        ------
        BrokerError
            If the broker cannot be reached, or has no such stream.
        """
        try:
            self._run(self._open())
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Disconnect; what was not acknowledged will be delivered again."""
        if self._connection is not None:
            self._runner.run(self._connection.close())
        self._runner.close()

    def n_waiting(self) -> int:
        """Return how many messages wait, those included that somebody took and did not acknowledge."""
        return self._run(self._pull.n_waiting())

    def take(self, max_messages: int, max_bytes: int) -> list[Message]:
        """Return what waits, bounded; none if nothing does.

        Raises
        ------
        BrokerError
            If the broker went away.
        """
        return self._run(self._take(max_messages, max_bytes))

    def acknowledge(self, messages: Sequence[Message]) -> None:
        """Say that ``messages`` are done with for good, and wait until the broker has taken note.

        Raises
        ------
        BrokerError
            If it went away: some of them will be delivered again.
        """
        self._run(self._acknowledge(messages))

    def give_back(self, messages: Sequence[Message]) -> None:
        """Let ``messages`` be delivered again at once. Raises as `acknowledge` does; they come in any case, if later."""
        self._run(self._give_back(messages))

    async def _open(self) -> None:
        self._connection = await jetstream.connect(
            self._url, name=self._durable, patience_seconds=self._patience_seconds
        )
        await jetstream.ensure(self._connection, [topic for topic in jetstream.TOPICS if topic.name == self._stream])
        self._pull = await Pull.open(self._connection, self._stream, durable=self._durable)

    async def _take(self, max_messages: int, max_bytes: int) -> list[Message]:
        taken: list[Message] = []
        n_bytes = 0
        largest = self._connection.max_payload if self._connection else 1
        while len(taken) < max_messages and n_bytes < max_bytes:
            n_wanted = min(_MAX_FETCH, max_messages - len(taken), max(2, _FETCH_BYTES // largest))
            fetched = await self._pull.fetch(n_wanted, seconds=jetstream.FETCH_SECONDS)
            taken += fetched
            n_bytes += sum(len(message.data) for message in fetched)
            if len(fetched) < n_wanted:
                break
        return taken

    async def _acknowledge(self, messages: Sequence[Message]) -> None:
        """Acknowledge in order and let the broker confirm the last: one connection's are taken note of as they come."""
        for message in messages[:-1]:
            await message.ack()
        for message in messages[-1:]:
            await message.ack_sync(timeout=_HEARD_SECONDS)

    async def _give_back(self, messages: Sequence[Message]) -> None:
        for message in messages:
            await message.nak()
        if self._connection is not None:
            await self._connection.flush(timeout=_HEARD_SECONDS)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        except NotFoundError:
            raise BrokerError(f"{jetstream.shown(self._url)} has no stream {self._stream!r}") from None
        except (NatsError, TimeoutError, OSError) as error:
            raise BrokerError(f"{jetstream.shown(self._url)}: {type(error).__name__}: {error}") from None
