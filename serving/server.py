"""Runs the shim: wires its parts from the settings and serves them over HTTP until it is told to stop."""

import contextlib
import gc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from types import FrameType

import uvicorn

from features import config
from features.clock import Clock, ReplayClock, SystemClock
from models.releases.ledger import Ledger
from models.releases.store import Store
from serving.asgi import Application
from serving.debts import Debts
from serving.follower import Follower
from serving.handler import Handler
from serving.memory import DecisionMemory
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.protocol import PatientProtocol
from serving.recorder import Recorder
from serving.settings import Settings
from serving.shelf import Shelf
from serving.shim import Shim

_DRAIN_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75  # longer than the minute after which brokers' pools drop an idle connection themselves
_BACKLOG = 2_048
_THE_PAST = datetime(1970, 1, 1, tzinfo=UTC)  # where replayed time starts: any request moves it on


def build(settings: Settings) -> Application:
    """Return the shim as an application, its memory warm and its last good release loaded; nothing listens yet.

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
    shim = Shim(
        plan=plan,
        clock=clock,
        releases=follower,
        overrides=OverrideJournal(settings.state_path / "overrides.journal"),
        recorder=Recorder(settings.spool_path, fsync=settings.fsync),
        memory=DecisionMemory(settings.memory_decisions),
        debts=Debts(settings.state_path / "debts.json"),
    )
    shim.warm()
    follower.restore()

    @contextlib.asynccontextmanager
    async def lifespan() -> AsyncIterator[None]:
        follower.start()
        yield
        follower.stop()
        shim.debts.save()
        shim.recorder.close()

    return Application(handler=Handler(shim, settings), lifespan=lifespan, max_body_bytes=settings.max_body_bytes)


def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight finish.

    Raises
    ------
    ConfigurationError
        If the configuration cannot be used.
    """
    application = build(settings)
    gc.collect()
    gc.freeze()  # what stands now stands for good: looking through it again would cost milliseconds of somebody's answer
    configuration = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=PatientProtocol,
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
    )
    _Server(configuration, application.handler).run()


class _Server(uvicorn.Server):
    """uvicorn, ending as if nothing had happened: a drained shim exits with 0, whatever signal asked for it."""

    def __init__(self, configuration: uvicorn.Config, handler: Handler) -> None:
        super().__init__(configuration)
        self._handler = handler

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain; uvicorn itself would raise the signal again once it is done."""
        super().handle_exit(sig, frame)
        self._captured_signals.clear()
        self._handler.draining = True
