"""What a component started in sessions of their own, out of its group's reach: found by a mark in their environment.

Prefect's worker gives every flow run a session of its own; a worker that is killed leaves them running.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "TURNOUT_COMPONENT"

_PROCESSES = Path("/proc")
_POLL_SECONDS = 0.05


def end(mark: str, *, grace_seconds: float) -> None:
    """End every process that carries ``mark``: asked first, then, the grace over, killed.

    Processes are signalled by descriptor, so that a number that was given to another meanwhile does no harm. Where there
    is no ``/proc`` nothing is found.
    """
    deadline = time.monotonic() + grace_seconds
    with _carriers(mark) as found:
        for descriptor in found:
            _send(descriptor, signal.SIGTERM)
    while time.monotonic() < deadline:
        with _carriers(mark) as found:
            if not found:
                return
        time.sleep(_POLL_SECONDS)
    with _carriers(mark) as found:
        for descriptor in found:
            _send(descriptor, signal.SIGKILL)


@contextlib.contextmanager
def _carriers(mark: str) -> Iterator[list[int]]:
    """Yield descriptors of the processes that carry ``mark``; those that ended and are not yet reaped carry nothing."""
    wanted = f"{MARK}={mark}".encode()
    with contextlib.ExitStack() as opened:
        found = []
        for process in _PROCESSES.glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is another user's
                descriptor = os.pidfd_open(int(process.name))
                opened.callback(os.close, descriptor)
                if wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(descriptor)
        yield found


def _send(descriptor: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(descriptor, number)
