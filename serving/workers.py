"""Several workers on one port: started, watched, started again when they die, and drained together."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from serving.settings import Settings

UNUSABLE = 2  # how a worker ends whose environment or configuration cannot be used
_LOOK_SECONDS = 0.1
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_SOUND_SECONDS = 30.0  # a worker that lived this long has no failures to its name
_MARGIN_SECONDS = 5.0  # beyond draining, before a worker is killed
_LOGGER = logging.getLogger("turnout.shim")


@dataclass(kw_only=True)
class _Worker:
    """One worker: its process, and when the next one may be started in its place."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    n_failures: int = 0


def supervise(settings: Settings, n_workers: int) -> int:
    """Run ``n_workers`` processes on one port until SIGTERM or SIGINT; return 0, or 2 where none can be run.

    The kernel spreads connections over them. Each has a spool segment, a release state and a memory of its own, hears
    within a second what the others decided and were told, and drains by itself if this process dies.

    Raises
    ------
    OSError
        If the port is taken.
    """
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with _reserve(settings.host, settings.port) as reserved:
        environment = os.environ | {"TURNOUT_PORT": str(reserved.getsockname()[1])}
        environment["TURNOUT_REPLAY"] = str(int(settings.replay))
        workers = [_Worker(number=number) for number in range(n_workers)]
        try:
            while not stopping.wait(_LOOK_SECONDS):
                if any(_look(worker, environment) == UNUSABLE for worker in workers):
                    return UNUSABLE
        finally:
            _stop(workers, settings.limits.drain_seconds + _MARGIN_SECONDS)
    return 0


def pause_seconds(n_failures: int) -> float:
    """Return how long to wait before a worker is started that failed so often in a row."""
    return min(_FIRST_PAUSE_SECONDS * 2.0 ** min(n_failures, 16), _LONGEST_PAUSE_SECONDS)


def _look(worker: _Worker, environment: dict[str, str]) -> int | None:
    """Start the worker where it does not run and its pause is over; return with what it ended, if it just did."""
    now = time.monotonic()
    if worker.process is None:
        if now >= worker.start_at:
            worker.process, worker.started_at = _start(worker.number, environment), now
        return None
    status = worker.process.poll()
    if status is None:
        return None
    worker.n_failures = 0 if now - worker.started_at > _SOUND_SECONDS else worker.n_failures + 1
    worker.start_at = now + pause_seconds(worker.n_failures)
    worker.process = None
    _LOGGER.warning("worker %d ended with %d", worker.number, status)
    return status


def _start(number: int, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "serving"]
    # Its standard input ends with this process, however that comes about: then the worker drains.
    return subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, stdin=subprocess.PIPE, env=environment | {"TURNOUT_WORKER": str(number)}
    )


def _stop(workers: list[_Worker], seconds: float) -> None:
    running = [worker.process for worker in workers if worker.process is not None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    give_up_at = time.monotonic() + seconds
    for process in running:
        try:
            process.wait(timeout=max(0.0, give_up_at - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _reserve(host: str, port: int) -> socket.socket:
    """Return a socket that holds the port for the workers: nobody else listens there, and 0 has become a number."""
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, socket.SOCK_STREAM) as alone:  # shared, a second shim would go unnoticed
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(address)
        address = alone.getsockname()
    held = socket.socket(family, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    held.bind(address)
    return held
