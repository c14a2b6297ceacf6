"""The sockets of a worker, in this process."""

import asyncio
import contextlib
import socket
from pathlib import Path

import uvloop

from serving.server import Listener, wire
from serving.settings import Settings

CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a"]
static = { default = ["a"] }
objective = { success = 1.0 }

[destinations]
a = {}
"""


def test_a_crowd_is_let_in_within_a_few_turns_of_the_loop(tmp_path: Path) -> None:
    """A turn may take tens of milliseconds in a flood, and whoever is not accepted, a probe for one, is not answered."""
    (tmp_path / "turnout.toml").write_text(CONFIGURATION)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def run() -> int:
        listener = Listener(wire(Settings(home=tmp_path, config_path=tmp_path / "turnout.toml", port=port)))
        await listener.open()
        with contextlib.ExitStack() as held:
            crowd = [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(60)]
            for caller in crowd:
                caller.sendall(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
                caller.setblocking(False)
            for _ in range(10):
                await asyncio.sleep(0)
            n_answered = 0
            for caller in crowd:
                with contextlib.suppress(BlockingIOError):
                    n_answered += caller.recv(1_000).startswith(b"HTTP/1.1 200")
        await listener.drain()
        return n_answered

    assert uvloop.run(run()) == 60
