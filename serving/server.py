"""Runs the shim: wires its parts from the settings and serves them until it is told to stop."""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import uvloop

from features import config
from features.clock import Clock, ReplayClock, SystemClock
from models.releases.ledger import Ledger
from models.releases.replica import Replica
from models.releases.store import Store
from serving import memory
from serving.asgi import Application
from serving.debts import Debts
from serving.exchange import Exchange
from serving.follower import Follower
from serving.frames import FrameProtocol
from serving.handler import Handler
from serving.mirror import Mirror
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.protocol import HttpProtocol
from serving.recorder import Recorder
from serving.settings import Settings, SettingsError
from serving.shelf import Shelf
from serving.shim import Shim
from serving.upstream import Upstream

if TYPE_CHECKING:
    from serving.nats_service import NatsService

_BACKLOG = 2_048
_N_ACCEPTORS = 16  # libuv accepts one connection per handle and turn of its loop, and a flood makes turns long
_GRACE_SECONDS = 0.1  # for requests that were on their way when the shim was told to stop
_SPARE_DESCRIPTORS = 64
_SWITCH_SECONDS = 0.0002  # that a thread which takes a release may keep an answer waiting
_THE_PAST = datetime(1970, 1, 1, tzinfo=UTC)  # where replayed time starts: any request moves it on
_LOGGER = logging.getLogger("turnout.shim")


@dataclass(frozen=True, kw_only=True)
class Parts:
    """A shim that is wired, warm and serves its last good release, whatever will carry its requests."""

    settings: Settings
    shim: Shim
    follower: Follower
    handler: Handler
    mirror: Mirror | None = None

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Follow the ledger, and copy it where it is another shim's, while entered; leave everything written down."""
        self.follower.start()
        if self.mirror is not None:
            self.mirror.start()
        yield
        if self.mirror is not None:
            self.mirror.stop()
        self.follower.stop()
        self.shim.debts.save()
        self.shim.recorder.close()


def wire(settings: Settings) -> Parts:
    """Return the parts of a shim; nothing listens yet.

    Raises
    ------
    ConfigurationError
        If the configuration cannot be used.
    """
    plan = Plan.of(config.load(settings.config_path))
    clock: Clock = ReplayClock(at=_THE_PAST) if settings.replay else SystemClock()
    follower = Follower(
        plan=plan,
        ledger=Ledger(settings.ledger_path),
        shelf=Shelf(settings.state_path, Store(settings.store_path)),
        state_path=settings.state_path / "served.json",
        poll_seconds=settings.poll_seconds,
    )
    mirror = _mirror(settings, follower.wake)
    shim = Shim(
        plan=plan,
        clock=clock,
        releases=follower,
        overrides=OverrideJournal(settings.overrides_path),
        recorder=Recorder(settings.spool_path, prefix=settings.spool_prefix, fsync=settings.fsync),
        memory=memory.of_capacity(settings.memory_decisions),
        debts=Debts(settings.state_path / "debts.json"),
        mirror=mirror,
        live_folder=settings.home / "shim" / "live",
        worker=settings.worker,
    )
    shim.warm()
    follower.restore()
    return Parts(settings=settings, shim=shim, follower=follower, handler=Handler(shim, settings), mirror=mirror)


def build(settings: Settings) -> Application:
    """Return the shim as an ASGI application, for those who host it elsewhere; it writes each answer's record before it.

    Raises
    ------
    ConfigurationError
        If the configuration cannot be used.
    """
    parts = wire(settings)
    limits = settings.limits
    return Application(
        handler=parts.handler,
        lifespan=parts.living,
        max_body_bytes=limits.max_body_bytes,
        body_seconds=limits.body_seconds,
        max_in_flight=limits.max_in_flight,
    )


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight finish.

    Raises
    ------
    ConfigurationError
        If the configuration cannot be used.
    """
    memory.keep_little()
    sys.setswitchinterval(_SWITCH_SECONDS)
    parts = wire(settings)
    _allow_connections(settings.limits.max_connections)
    gc.collect()
    gc.freeze()  # what stands now stands for good: looking through it again would cost milliseconds of somebody's answer
    uvloop.run(_serve(parts))


async def _serve(parts: Parts) -> None:
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if parts.settings.shared_port:
        loop.add_reader(sys.stdin.fileno(), stopping.set)  # the supervisor is gone
    async with parts.living():
        listener = Listener(parts)
        await listener.open()
        watching = loop.create_task(listener.watch())
        await stopping.wait()
        parts.handler.draining = True
        await listener.drain()
        watching.cancel()


class Listener:
    """The sockets of one worker and the connections on them."""

    def __init__(self, parts: Parts) -> None:
        """Prepare to serve ``parts``."""
        self._parts = parts
        self._settings = settings = parts.settings
        self._exchange = Exchange(
            parts.handler, parts.shim, settings.limits, settings.durable, settings.busy_poll_us / 1e6
        )
        self._connections: set[HttpProtocol] = set()
        self._frames: set[FrameProtocol] = set()
        self._servers: list[asyncio.Server] = []
        self._nats = _nats_service(self._exchange, self._settings.nats_url, parts.follower.wake)

    async def open(self) -> None:
        """Listen; several workers share one port."""
        loop, settings = asyncio.get_running_loop(), self._settings
        server = await loop.create_server(
            self._accept, settings.host, settings.port, backlog=_BACKLOG, reuse_port=settings.shared_port or None
        )
        self._servers.append(server)
        for bound in server.sockets:
            for _ in range(_N_ACCEPTORS - 1):
                same = socket.fromfd(bound.fileno(), bound.family, socket.SOCK_STREAM)
                self._servers.append(await loop.create_server(self._accept, sock=same, backlog=_BACKLOG))
        if (path := settings.socket_path) is not None:
            path = path.with_name(f"{path.name}.{settings.worker}") if settings.worker else path
            self._servers.append(
                await loop.create_unix_server(lambda: FrameProtocol(self._exchange, self._frames), sock=_bind(path))
            )
        if self._nats is not None:
            self._nats.start()

    async def watch(self) -> None:
        """Look at the clocks of all connections, and at what other workers did, for as long as the task lives."""
        loop, limits = asyncio.get_running_loop(), self._settings.limits
        while True:
            await asyncio.sleep(limits.look_seconds)
            try:
                self._exchange.replies.tick()
                now = loop.time()
                for connection in [c for c in self._connections if c.deadline < now]:
                    connection.expire()
                self._exchange.look()
                if self._settings.shared_port:
                    self._parts.shim.catch_up()
            except Exception:  # what nobody thought of must not end the watch
                _LOGGER.exception("a look at the connections failed")

    async def drain(self) -> None:
        """Accept no more, answer what is on its way, close; what has not ended within the limit is cut."""
        loop = asyncio.get_running_loop()
        for server in self._servers:
            server.close()
        leaving = (
            None if self._nats is None else loop.create_task(self._nats.drain(self._settings.limits.drain_seconds))
        )
        give_up_at = loop.time() + self._settings.limits.drain_seconds
        await asyncio.sleep(_GRACE_SECONDS)
        self._exchange.look()
        while (open_ones := self._connected()) and loop.time() < give_up_at:
            for connection in open_ones:
                connection.drain()
            await asyncio.sleep(0.02)
        if leaving is not None:
            await leaving
        self._exchange.close()
        for left in self._connected():
            left.abort()
        await asyncio.sleep(0)

    def _accept(self) -> HttpProtocol:
        return HttpProtocol(self._exchange, self._connections)

    def _connected(self) -> list[HttpProtocol | FrameProtocol]:
        return [*self._connections, *self._frames]


def _mirror(settings: Settings, wake: Callable[[], None]) -> Mirror | None:
    """Return what copies another shim's releases, None where none is named."""
    if settings.upstream_url is None:
        return None
    return Mirror(
        source=Upstream(url=settings.upstream_url, token=settings.upstream_token),
        ledger=Replica(settings.ledger_path),
        store=Store(settings.store_path),
        folder=settings.mirror_path,
        wake=wake,
        poll_seconds=settings.poll_seconds,
    )


def _nats_service(exchange: Exchange, url: str | None, wake: Callable[[], None]) -> "NatsService | None":
    """Return what answers over NATS, None where no broker is named.

    Raises
    ------
    SettingsError
        If NATS' client is not installed.
    """
    if url is None:
        return None
    try:
        from serving.nats_service import NatsService  # noqa: PLC0415 - an extra, which most shims do without
    except ModuleNotFoundError as error:
        raise SettingsError(f"TURNOUT_NATS_URL is set, and {error.name} is not installed: turnout[nats]") from None
    return NatsService(exchange, url, wake=wake)


def _bind(path: os.PathLike[str]) -> socket.socket:
    """Return a socket at ``path`` that its owner alone may use; one that a dead shim left behind is replaced."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - as above
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        bound.bind(os.fspath(path))
    finally:
        os.umask(before)
    return bound


def _allow_connections(n_connections: int) -> None:
    """Raise the limit on open files as far as it goes: by default it is often below the limit on connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = n_connections + _SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
