"""The replay's broker over NATS: asks by request-reply where each event should go, and puts the outcomes on their stream."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Self

import msgspec

from features import jetstream
from features.jetstream import Connection, NatsError
from scenarios.flights.broker import GIVE_UP_SECONDS, RETRY_SECONDS, Request, RequestRefusedError
from scenarios.flights.configuration import STREAM

ASK_SECONDS = 5.0
COME_BACK = "503"
_PAGES = msgspec.json.Decoder(list[msgspec.Raw])


@dataclass(kw_only=True)
class NatsBroker:
    """Sends as `scenarios.flights.broker.Broker` does, ``n_at_once`` questions at a time; what nobody answers is asked again."""

    url: str
    n_at_once: int = 16
    n_retries: int = 0
    _connection: Connection | None = field(default=None, repr=False)

    async def __aenter__(self) -> Self:
        """Connect, and make the streams that are not there."""
        self._connection = await jetstream.connect(self.url, name="flights", patience_seconds=GIVE_UP_SECONDS)
        await jetstream.ensure(self._connection)
        self._room = asyncio.Semaphore(self.n_at_once)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        if self._connection is not None:
            await self._connection.close()

    async def send_all(self, requests: Iterable[Request]) -> Sequence[bytes]:
        """Send ``requests``; return the answers to questions in their order, and nothing for outcomes."""
        return await asyncio.gather(*(self._send(request) for request in requests))

    async def _send(self, request: Request) -> bytes:
        async with self._room:
            if self._connection is None:
                raise RuntimeError("the broker is not entered")
            if request.path == "/v1/outcomes":
                await self._publish(self._connection, request.body)
                return b""
            return await self._ask(self._connection, request)

    async def _publish(self, connection: Connection, page: bytes) -> None:
        outcomes = _PAGES.decode(page)
        await asyncio.gather(
            *(jetstream.publish(connection, f"turnout.outcomes.{STREAM}", bytes(outcome)) for outcome in outcomes)
        )

    async def _ask(self, connection: Connection, request: Request) -> bytes:
        give_up_at = asyncio.get_running_loop().time() + GIVE_UP_SECONDS
        headers = {"turnout-time": request.at.isoformat()}
        while True:
            try:
                reply = await connection.request("turnout.decide", request.body, timeout=ASK_SECONDS, headers=headers)
            except (NatsError, TimeoutError):
                if asyncio.get_running_loop().time() > give_up_at:
                    raise
                self.n_retries += 1
                await asyncio.sleep(RETRY_SECONDS)
                continue
            code = (reply.headers or {}).get("Nats-Service-Error-Code")
            if code is None:
                return reply.data
            if code != COME_BACK:
                raise RequestRefusedError(
                    f"{request.path} answered {code}: {reply.data[:500].decode(errors='replace')}"
                )
            await asyncio.sleep(RETRY_SECONDS)
