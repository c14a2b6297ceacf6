"""What the shim does when it is killed, overrun, swapped under load or held by slow callers."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import loading, shim_world
from benchmarks.loading import Load, Server
from benchmarks.shim_world import World
from features import spool
from features.records import Decision, Outcome

N_CALLERS = 4
N_SLOW = 400
N_LOOKS = 10
SLOW_SECONDS = 15.0
OVERLOAD = 5.0
OVERLOAD_CONNECTIONS = 1_500
_SEED = 7


def kill(start: Callable[[], Server], spool_path: Path, *, n_kills: int) -> dict[str, int]:
    """Kill a shim under load ``n_kills`` times; return how much it had accepted, and how much of that the spool lacks."""
    accepted: set[str] = set()
    done = threading.Event()
    server = start()
    threads = [
        threading.Thread(target=_call, args=(server.port, number, accepted, done)) for number in range(N_CALLERS)
    ]
    for thread in threads:
        thread.start()
    pause = random.Random(_SEED)  # noqa: S311 - no secret
    for _ in range(n_kills):
        n_before = len(accepted)
        while len(accepted) < n_before + 20:
            time.sleep(0.005)
        time.sleep(pause.uniform(0.0, 0.1))
        server.stop(signal.SIGKILL)
        server.start()
    done.set()
    for thread in threads:
        thread.join()
    server.stop()
    return {"kills": n_kills, "accepted": len(accepted), "lost": len(accepted - _logged(spool_path))}


def swap(server: Server, world: World, load: Callable[[float, int], dict[str, Any]], *, n: int) -> dict[str, Any]:
    """Release two routers in turn ``n`` times while ``load`` runs; return the failed requests and the latency beside idle."""
    idle = load(3.0, 0)
    done = threading.Event()
    loads: list[dict[str, Any]] = []

    def keep_loading() -> None:
        while not done.is_set():
            loads.append(load(2.0, len(loads) + 1))

    thread = threading.Thread(target=keep_loading)
    thread.start()
    n_swapped = 0
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)  # it must not keep the load generator from its core
    for number in range(n):
        generation = world.release(world.digests[(number + 1) % 2])
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at:
            if json.loads(server.ask("GET", "/v1/models/router/current")[1])["generation"] >= generation:
                n_swapped += 1
                break
            time.sleep(0.02)
    done.set()
    thread.join()
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 0)
    failed = sum(told["refused"] + told["other"] + told["broken"] for told in loads)
    p99 = sorted(told["p99_us"] for told in loads)[len(loads) // 2]
    return {
        "n": n_swapped,
        "failed": failed,
        "requests": sum(t["n"] for t in loads),
        "p99_us": p99,
        "idle_p99_us": idle["p99_us"],
    }


def overrun(
    load: Load, server: Server, template: Path, *, capacity_rps: float, seconds: float, first: int
) -> dict[str, Any]:
    """Offer five times what the shim can do; return the share of its capacity that it still did, and how fast it refused.

    Events are numbered from ``first`` on.
    """
    told = load.run(
        server.port,
        template,
        seconds=seconds,
        connections=OVERLOAD_CONNECTIONS,
        rate=OVERLOAD * capacity_rps,
        first=first,
    )
    begin = time.perf_counter()
    status, _ = server.ask("GET", "/health/live")
    return {
        "offered_rps": round(OVERLOAD * capacity_rps),
        "goodput_share": round(told["rps"] / capacity_rps, 3),
        "refused": told["refused"],
        "broken": told["broken"] + told["other"],
        "refusal_p50_us": told["refusal_p50_us"],
        "refusal_p99_us": told["refusal_p99_us"],
        "recovered_s": round(time.perf_counter() - begin, 3) if status == http.client.OK else None,
    }


def soak(server: Server, load: Callable[[float], dict[str, Any]], *, seconds: float) -> dict[str, Any]:
    """Load a shim steadily for so long; return its resident memory at the beginning, ten times on the way, and its p99."""
    memory = [server.resident_mb()]
    told: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: told.append(load(seconds)))
    thread.start()
    for _ in range(N_LOOKS):
        time.sleep(seconds / N_LOOKS)
        memory.append(server.resident_mb())
    thread.join()
    (steady,) = told
    return {
        "seconds": seconds,
        "requests": steady["n"],
        "failed": steady["refused"] + steady["other"] + steady["broken"],
        "p99_us": steady["p99_us"],
        "rss_mb": [round(each, 1) for each in memory],
    }


def crawl(server: Server) -> dict[str, Any]:
    """Open connections whose heads never end; return how many are left after 15 seconds, and the slowest probe meanwhile."""
    crawlers = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(N_SLOW)]
    begin, slowest, n_green = time.monotonic(), 0.0, 0
    left = set(crawlers)
    while time.monotonic() - begin < SLOW_SECONDS:
        for one in list(left):
            try:
                one.send(b"G" if time.monotonic() - begin < 1 else b"E")
            except OSError:
                left.discard(one)
        asked = time.monotonic()
        n_green += server.ask("GET", "/health/ready")[0] == http.client.OK
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.2)
    for one in crawlers:
        one.close()
    return {
        "connections": N_SLOW,
        "left": len(left),
        "green_probes": n_green,
        "slowest_probe_ms": round(slowest * 1e3, 1),
    }


def swell(server: Server) -> dict[str, Any]:
    """Send a body of 120 MB, said to be so and chunked; return the statuses and by how much memory grew."""
    before = server.resident_mb()
    statuses = [
        _pour(server.port, b"content-length: 120000000\r\n\r\n", b"x" * 1_000_000),
        _pour(server.port, b"transfer-encoding: chunked\r\n\r\n", b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"),
    ]
    return {"statuses": statuses, "grown_mb": round(server.resident_mb() - before, 1)}


def _pour(port: int, head: bytes, chunk: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/decisions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n" + head
        )
        with contextlib.suppress(OSError):
            for _ in range(120):
                connection.sendall(chunk)
        with contextlib.suppress(OSError):
            return int(connection.recv(4_096).split(b" ")[1] or 0)
    return 0


def _call(port: int, number: int, accepted: set[str], done: threading.Event) -> None:
    """Ask and report until told to stop; note what was answered."""
    n_asked = 0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    headers = {"content-type": "application/json"}
    while not done.is_set():
        n_asked += 1
        try:
            body = json.dumps(shim_world.question(f"{number}-{n_asked}"))
            connection.request("POST", "/v1/decisions", body, headers)
            told = json.loads(connection.getresponse().read())
            if told.get("logged", True):
                accepted.add(told["decision_id"])
            report = {
                "decision_id": told["decision_id"],
                "served": "d0",
                "observed_at": "2026-01-01T00:00:00Z",
                "success": True,
            }
            connection.request("POST", "/v1/outcomes", json.dumps(report), headers)
            accepted.update(json.loads(connection.getresponse().read())["idempotency_keys"])
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            connection.close()
            time.sleep(0.01)
    connection.close()


def _logged(folder: Path) -> set[str]:
    """Return the ids of all decisions and the keys of all outcomes in the spool."""
    found = set()
    for path in spool.segments(folder):
        for line in spool.read_lines(path):
            if line.payload is None:
                continue
            record = msgspec.json.decode(line.payload, type=Decision | Outcome)
            found.add(
                record.decision_id
                if isinstance(record, Decision)
                else f"{record.decision_id}/{record.attempt}/{record.served}"
            )
    return found


def shim_server(world: World) -> Server:
    """Return a shim that serves ``world``, not started."""
    port = loading.free_port()
    environment = {**world.environment, "TURNOUT_PORT": str(port), "TURNOUT_POLL_SECONDS": "0.05"}
    return Server("shim", [sys.executable, "-m", "serving"], port, environment)


def sleeping_server(folder: Path) -> Server:
    """Return a shim with a world of its own in ``folder``, which sleeps as soon as it has answered; not started."""
    folder.mkdir()
    server = shim_server(shim_world.make(folder))
    return replace(server, name="asleep", environment={**server.environment, "TURNOUT_BUSY_POLL_US": "0"})
