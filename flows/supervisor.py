"""Keeps child processes running: each in a session of its own, restarted when it dies, stopped in a given order.

A child carries a mark in its environment, made of its name and its log's place, by which `leftovers` finds what it started.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from flows import calling, leash, leftovers
from flows.calling import UnreachableError

_LOGGER = logging.getLogger("turnout.stack")
_POLL_SECONDS = 0.1
_WATCH_SECONDS = 0.5
_SETTLED_SECONDS = 60.0  # a child that lived this long is not crashing in a loop
_MAX_BACKOFF_SECONDS = 30.0
_MAX_LOG_BYTES = 16 * 1024 * 1024
_N_TAIL_LINES = 15


class ComponentError(RuntimeError):
    """A component that does not come up: names it, what happened, and the end of its log."""


@dataclass(frozen=True, kw_only=True)
class Component:
    """A command to keep running; it is ready when a GET of ``health_url`` succeeds."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    health_url: str
    grace_seconds: float = 15.0


def backoff_seconds(n_crashes: int) -> float:
    """Return how long to wait before the restart after so many crashes in a row: 1, 2, 4 seconds, 30 at most."""
    return float(min(_MAX_BACKOFF_SECONDS, 2.0 ** min(n_crashes - 1, 10)))


@dataclass(kw_only=True)
class Child:
    """A component's present process."""

    component: Component
    log_path: Path
    process: subprocess.Popen[bytes]
    started_seconds: float
    n_crashes: int = 0
    n_restarts: int = 0
    restart_seconds: float | None = field(default=None)

    @classmethod
    def start(cls, component: Component, logs: Path) -> Self:
        """Start ``component``, its output appended to ``logs``."""
        log_path = logs / f"{component.name}.log"
        process = _spawn(component, log_path)
        return cls(component=component, log_path=log_path, process=process, started_seconds=time.monotonic())

    def revive(self, now_seconds: float) -> bool:
        """Look after the process: once dead, start it again when its back-off is over; return whether it was."""
        if (code := self.process.poll()) is None:
            return False
        if self.restart_seconds is None:
            settled = now_seconds - self.started_seconds > _SETTLED_SECONDS
            self.n_crashes = 1 if settled else self.n_crashes + 1
            self.restart_seconds = now_seconds + backoff_seconds(self.n_crashes)
            _kill_group(self.process, signal.SIGKILL)  # what it left behind may hold its port
            _LOGGER.warning("%s ended with %s; see %s", self.component.name, code, self.log_path)
        if now_seconds < self.restart_seconds:
            return False
        self.process = _spawn(self.component, self.log_path)
        self.started_seconds, self.restart_seconds = now_seconds, None
        self.n_restarts += 1
        return True

    def await_ready(self, deadline_seconds: float) -> None:
        """Return once the component answers; raise `ComponentError` if it ends first, or does not by the deadline."""
        while not _answers(self.component.health_url):
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline_seconds:
                happened = "did not answer in time" if code is None else f"ended with {code}"
                raise ComponentError(f"{self.component.name} {happened}; {self.log_path} ends:\n{tail(self.log_path)}")
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End the process and all that it started: asked first, then, its grace over, killed."""
        if self.restart_seconds is None:  # else it is dead, its group was killed, and its id may be another's by now
            _kill_group(self.process, signal.SIGTERM)
            try:
                self.process.wait(self.component.grace_seconds)
            except subprocess.TimeoutExpired:
                _LOGGER.warning("%s did not stop when asked: killed", self.component.name)
            _kill_group(self.process, signal.SIGKILL)
            self.process.wait()
        leftovers.end(_mark(self.component, self.log_path), grace_seconds=self.component.grace_seconds)


class Supervisor:
    """Runs components until it is stopped; ``on_change`` is called after every restart."""

    def __init__(self, logs: Path, *, on_change: Callable[[], None] = lambda: None) -> None:
        """Keep the components' output in the folder ``logs``."""
        self.children: dict[str, Child] = {}
        self._logs = logs
        self._on_change = on_change
        self._reviving = threading.Lock()
        self._stopping, self._stopped = threading.Event(), threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self, components: Iterable[Component]) -> None:
        """Start components side by side; they come up while the caller does other things."""
        self._logs.mkdir(parents=True, exist_ok=True)
        for component in components:
            mark = _mark(component, self._logs / f"{component.name}.log")
            leftovers.end(mark, grace_seconds=component.grace_seconds)  # of one that was killed
            self.children[component.name] = Child.start(component, self._logs)

    def await_ready(self, *names: str, timeout_seconds: float = 120.0) -> None:
        """Return when the components of these names, or all, answer.

        Raises
        ------
        ComponentError
            If one ends or does not answer in time. All that runs stays for `stop` to end.
        """
        deadline = time.monotonic() + timeout_seconds
        for name in names or tuple(self.children):
            self.children[name].await_ready(deadline)

    def watch(self) -> None:
        """Restart from now on what dies."""
        self._watcher.start()

    def stop(self, order: Iterable[str]) -> None:
        """End the components one after the other, those of ``order`` first and in that order."""
        with self._reviving:
            self._stopping.set()
        for name in dict.fromkeys([*order, *self.children]):
            if name in self.children:
                self.children.pop(name).stop()
        self._stopped.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def _revive_all(self) -> bool:
        revived = [child.revive(time.monotonic()) for child in self.children.values()]
        return any(revived)

    def _watch(self) -> None:
        while not self._stopping.wait(_WATCH_SECONDS):
            with self._reviving:
                if not self._stopping.is_set() and self._revive_all():
                    self._on_change()
        self._stopped.wait()  # a child that this thread started is leashed to the thread, not to the process


def tail(log_path: Path) -> str:
    """Return the last lines of a log."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_N_TAIL_LINES:])


def _spawn(component: Component, log_path: Path) -> subprocess.Popen[bytes]:
    if log_path.exists() and log_path.stat().st_size > _MAX_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
    leashed = [sys.executable, "-IS", str(leash.__file__), str(os.getpid()), *component.command]
    with log_path.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 - our own commands, no shell
            leashed,
            env={**component.environment, leftovers.MARK: _mark(component, log_path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _mark(component: Component, log_path: Path) -> str:
    return f"{component.name}@{log_path}"


def _kill_group(process: subprocess.Popen[bytes], sig: signal.Signals) -> None:
    try:
        os.killpg(process.pid, sig)
    except ProcessLookupError:
        return  # nobody is left


def _answers(url: str) -> bool:
    try:
        return calling.call("GET", url, timeout_seconds=2.0).ok
    except UnreachableError:
        return False
