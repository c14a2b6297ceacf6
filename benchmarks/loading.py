"""The load generator and the echo, compiled at run time, and servers pinned to a core of their own."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

SERVER_CORE, LOAD_CORE = 0, 1
_FLAGS = ("-O2", "-Wall")


class NoCompilerError(RuntimeError):
    """There is no C compiler to build the load generator with."""


@dataclass(frozen=True)
class Load:
    """The compiled programs."""

    load: Path
    echo: Path

    def run(
        self, port: int, template: Path, *, seconds: float, connections: int = 1, rate: float = 0.0, first: int = 0
    ) -> dict[str, Any]:
        """Return what the load generator reports; ``rate`` 0 asks again as soon as it is answered."""
        command = [str(self.load), str(port), str(template), str(connections), str(seconds), str(rate), str(first)]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - compiled above
        _pin(running.pid, LOAD_CORE)
        told, _ = running.communicate(timeout=seconds + 120)
        if running.returncode:
            raise RuntimeError(f"the load generator ended with {running.returncode}")
        return dict(json.loads(told))


def compile_programs(folder: Path) -> Load:
    """Compile both into ``folder``.

    Raises
    ------
    NoCompilerError
        If there is no ``cc``.
    """
    compiler = shutil.which("cc")
    if compiler is None:
        raise NoCompilerError("the load generator is C: install a compiler that answers to cc")
    here = Path(__file__).parent
    for name in ("load", "echo"):
        command = [compiler, *_FLAGS, "-o", str(folder / name), str(here / f"{name}.c")]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - found on the path
    return Load(folder / "load", folder / "echo")


@dataclass
class Server:
    """A server in a process of its own, on one core."""

    name: str
    command: Sequence[str]
    port: int
    environment: Mapping[str, str]
    health: str | None = "/health/live"
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None

    def start(self, *, timeout_seconds: float = 120.0) -> float:
        """Start it and return the seconds until it first answered."""
        begin = time.perf_counter()
        self.process = subprocess.Popen(  # noqa: S603 - the product's own commands, and its peers'
            self.command,
            env={**os.environ, **self.environment},
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _pin(self.process.pid, SERVER_CORE)
        while time.perf_counter() - begin < timeout_seconds:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode} before it answered")
            with contextlib.suppress(OSError, HTTPException):
                self._knock()
                return time.perf_counter() - begin
            time.sleep(0.005)
        raise RuntimeError(f"{self.name} did not answer within {timeout_seconds:g} s")

    def stop(self, number: int = 15) -> None:
        """End it, and all that it started."""
        if self.process is None or self.process.poll() is not None:
            return
        os.killpg(self.process.pid, number)
        self.process.wait(timeout=30)

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Return status and body of one request."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def resident_mb(self) -> float:
        """Return the resident memory of the process and of those it started."""
        assert self.process is not None  # noqa: S101 - it runs
        return sum(_resident_mb(pid) for pid in _family(self.process.pid))

    def _knock(self) -> None:
        if self.health is None:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        elif self.ask("GET", self.health)[0] != 200:  # noqa: PLR2004 - OK
            raise ConnectionRefusedError


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _pin(pid: int, core: int) -> None:
    """Keep a process that has just begun, and all that it will start, to one core."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(pid, {cores[core % len(cores)]})


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(found for child in children for found in _family(int(child)))]


def _resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
