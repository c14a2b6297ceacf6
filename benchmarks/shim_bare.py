"""The shim's HTTP alone, in front of a handler that gives the body back: ``python -m benchmarks.shim_bare PORT``."""

import asyncio
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

from serving.debts import Debts
from serving.exchange import Exchange
from serving.limits import Limits
from serving.messages import Request, Response
from serving.problems import Problem
from serving.protocol import HttpProtocol
from serving.recorder import Recorder


class Echoing:
    """Gives every body back."""

    draining = False

    def handle(self, request: Request) -> Response:
        """Return the body."""
        return Response(200, request.body)

    def open(self, _: Request) -> tuple[Callable[[Request, str], Response], str]:
        """Return what answers every request."""
        return lambda request, _: self.handle(request), ""

    def form_of(self, _: Request) -> None:
        """Return that nothing is decided."""

    def refuse(self, problem: Problem) -> Response:
        """Return the problem."""
        return Response(problem.status, problem.body())


@dataclass
class Idle:
    """A shim that never records anything."""

    recorder: Recorder
    debts: Debts = field(default_factory=Debts)

    def reply(self, *_: object) -> None:
        """Leave everything to the handler."""


async def serve(port: int) -> None:
    """Serve until killed."""
    with tempfile.TemporaryDirectory() as folder:
        idle = Idle(Recorder(Path(folder)))
        exchange = Exchange(cast("Any", Echoing()), cast("Any", idle), Limits())
        connections = set[HttpProtocol]()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: HttpProtocol(exchange, connections), "127.0.0.1", port)
        async with server:
            await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
