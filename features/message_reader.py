"""Reading a JetStream stream as the other readers read files: bounded batches, and a message is done with once its batch is stored."""

import hashlib
from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, TypeGuard
from urllib.parse import urlsplit

from msgspec import Struct

from features import decoding, lines, readers
from features.lines import Line
from features.readers import Batch

if TYPE_CHECKING:
    from features.jetstream import Message

DURABLE = "turnout-ingest"


class Address(Struct, frozen=True, kw_only=True):
    """A stream on a broker, written ``nats://HOST:PORT/STREAM``; ``url`` may hold a user and password, ``source`` does not."""

    url: str
    stream: str
    source: str

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Return the address in ``text``.

        Raises
        ------
        ValueError
            If it names no stream.
        """
        parts = urlsplit(text)
        stream = parts.path.strip("/")
        bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
        if not stream or "/" in stream or not parts.hostname:
            raise ValueError(f"a stream is written nats://HOST:PORT/STREAM, got {bare.geturl()!r}")
        return cls(url=parts._replace(path="").geturl(), stream=stream, source=bare.geturl())


def is_address(source: object) -> TypeGuard[str]:
    """Tell whether ``source`` is a stream's address rather than a path."""
    return isinstance(source, str) and source.startswith(("nats://", "tls://"))


def read(address: Address, *, batch_rows: int = readers.DEFAULT_BATCH_ROWS) -> Generator[Batch, None, None]:
    """Yield what waits in the stream, in bounded batches; what comes meanwhile is the next reading's.

    Asking for the next batch acknowledges the last one: it must be stored by then. If it could not be, close the
    iterator: the batch will be delivered again, as it will after a kill. Positions are the stream's numbers.

    Raises
    ------
    BrokerError
        If the broker cannot be reached, or goes away; what was not acknowledged will be delivered again.
    """
    from features.message_queue import Queue  # noqa: PLC0415 - an extra, which those who ingest files do without

    with Queue(address.url, address.stream, durable=DURABLE) as queue:
        n_left = queue.n_waiting()
        while n_left > 0 and (messages := queue.take(min(batch_rows, n_left), readers.BATCH_BYTES)):
            n_left -= len(messages)
            try:
                yield _batch(messages, address)
            except GeneratorExit:
                queue.give_back(messages)
                raise
            queue.acknowledge(messages)


def _batch(messages: "list[Message]", address: Address) -> Batch:
    from features import jetstream  # noqa: PLC0415 - as above

    numbered = [(jetstream.sequence(message), message.data) for message in messages]
    rows = [
        readers.row(address.source, _line(number, raw), partial(decoding.decode_json, raw)) for number, raw in numbered
    ]
    return Batch(rows, max(number for number, _ in numbered))


def _line(number: int, raw: bytes) -> Line:
    """Return a message as a line, cut where a line would be."""
    if len(raw) <= lines.MAX_LINE_BYTES:
        return Line(number, number + 1, raw, len(raw), None, ended=True)
    digest = hashlib.sha256(raw).hexdigest()
    return Line(number, number + 1, raw[: lines.KEPT_BYTES], len(raw), digest, ended=True)
