"""The whole loop on the tiny world: real servers, real HTTP, the command line; a shim is killed on the way."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from flows import settings as environment
from flows.components import Ports
from flows.stack import Stack

pytestmark = pytest.mark.slow

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
N_PAST = 700
N_LIVE = 700
GATE = """
[streams.orders.gate]
min_decisions = 100
ladder = [{ share = 0.4, min_decisions = 50 }, { share = 0.6, min_decisions = 50 }]
"""


class Shop:
    """A broker with one connection at a time; it asks again until the shim is back."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self.host, self.port = address.hostname, address.port
        self.rng = np.random.default_rng(4)
        self.answers: dict[int, dict[str, Any]] = {}
        self.amounts = np.random.default_rng(5).uniform(0, 100, N_PAST + N_LIVE)

    def send(self, method: str, path: str, body: object = None, at: datetime | None = None) -> tuple[int, Any]:
        headers = {"content-type": "application/json"} | ({"turnout-time": at.isoformat()} if at else {})
        give_up = time.monotonic() + 180
        while True:
            connection = http.client.HTTPConnection(self.host or "", self.port, timeout=30)
            try:
                connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                reply = connection.getresponse()
                content = reply.read()
            except (OSError, http.client.HTTPException):
                assert time.monotonic() < give_up, "the shim did not come back"
                time.sleep(0.2)
                continue
            finally:
                connection.close()
            return reply.status, json.loads(content) if content else None

    def ask(self, number: int) -> dict[str, Any]:
        event = {
            "specversion": "1.0",
            "id": f"order-{number}",
            "source": "shop",
            "type": "shop.order",
            "data": {"amount": float(self.amounts[number]), "country": "NO" if number % 2 else "SE"},
        }
        status, answer = self.send("POST", "/v1/decisions", {"event": event}, BEGIN + timedelta(minutes=number))
        assert status == 200, answer
        return dict(answer)

    def sell(self, numbers: range) -> None:
        """Ask where each order should go and report, five minutes later, what became of it."""
        for number in numbers:
            answer = self.answers[number] = self.ask(number)
            served = answer["destinations"][0]
            chance = 0.7 if served == "card" else 0.95 if self.amounts[number] < 50 else 0.2
            at = BEGIN + timedelta(minutes=number + 5)
            outcome = {
                "record": "outcome",
                "decision_id": answer["decision_id"],
                "served": served,
                "observed_at": at.isoformat(),
                "success": bool(self.rng.uniform() < chance),
                "latency_ms": 200.0,
            }
            status, told = self.send("POST", "/v1/outcomes", outcome, at)
            assert status == 202, told


def turnout(home: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from flows.cli import main; main()", *arguments]
    variables = {**os.environ, "TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def report(home: Path, *arguments: str) -> dict[str, Any]:
    printed = turnout(home, *arguments, "--json")
    return dict(json.loads(printed[printed.index("{") :]))


def instant(number: int) -> str:
    return (BEGIN + timedelta(minutes=number + 6)).isoformat()


@contextmanager
def lone_shim(home: Path, port: int) -> Iterator[None]:
    """A shim with nothing else up."""
    variables = {
        **os.environ,
        "TURNOUT_HOME": str(home),
        "TURNOUT_CONFIG": str(home / "turnout.toml"),
        "TURNOUT_PORT": str(port),
    }
    shim = subprocess.Popen([sys.executable, "-m", "serving", "--replay"], env=variables)
    try:
        yield
    finally:
        shim.terminate()
        shim.wait(timeout=60)


def test_the_loop_closes_and_nothing_accepted_is_lost(tmp_path: Path, tiny_text: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "turnout.toml").write_text(tiny_text + GATE)
    chosen = environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})
    with Stack(
        chosen, components=("mlflow", "prefect", "shim"), ports=Ports(mlflow=0, prefect=0, shim=0), replay=True
    ) as stack:
        shop = Shop(stack.urls["shim"])

        # The past, under the static routes; half way the shim is killed, and comes back.
        shop.sell(range(N_PAST // 2))
        os.kill(stack.pid("shim"), signal.SIGKILL)
        shop.sell(range(N_PAST // 2, N_PAST))
        again = shop.ask(3)
        assert again["decision_id"] == shop.answers[3]["decision_id"]
        assert again["destinations"][0] == shop.answers[3]["destinations"][0]

        ingested = report(home, "ingest", "--as-of", instant(N_PAST))
        assert (ingested["n_decisions"], ingested["n_outcomes"]) == (N_PAST, N_PAST)
        ingested = report(home, "ingest", "--as-of", instant(N_PAST))
        assert (ingested["n_decisions"], ingested["n_outcomes"]) == (0, 0)

        # Learned, registered, approved; without the approval nothing moves.
        made = report(home, "retrain", "orders", "--as-of", instant(N_PAST))
        assert made["state"] == "registered", made
        assert report(home, "promote", "orders", "--as-of", instant(N_PAST))["state"] == "idle"
        turnout(home, "approve", str(made["version"]), "--reason", "the interval is above zero")
        assert report(home, "promote", "orders", "--as-of", instant(N_PAST))["state"] == "admitted"

        # Live: the canary wins on what it changes.
        until_served(shop, "challenger", made["digest"])
        shop.sell(range(N_PAST, N_PAST + N_LIVE))
        now = instant(N_PAST + N_LIVE)
        ingested = report(home, "ingest", "--as-of", now)
        assert (ingested["n_decisions"], ingested["n_outcomes"]) == (N_LIVE, N_LIVE)
        assert report(home, "promote", "orders", "--as-of", now, "--dry-run")["state"] == "promote"
        promoted = report(home, "promote", "orders", "--as-of", now)
        assert promoted["state"] == "promote", promoted
        assert promoted["n_decisions"] <= N_LIVE
        until_served(shop, "champion", made["digest"])
        assert "promote" in turnout(home, "history")
        turnout(home, "verify")

    # Everything else is down: the shim starts from the last good release and answers; the stop switch works.
    with lone_shim(home, urlsplit(stack.urls["shim"]).port or 0):
        answer = shop.ask(1)
        assert answer["decision_id"] == shop.answers[1]["decision_id"]
        fresh = shop.send("POST", "/v1/decisions", question("order-new"), BEGIN + timedelta(days=9))[1]
        assert fresh["digest"] == made["digest"]
        assert fresh["destinations"][0] == "bank"
        stop = {"kind": "stop", "actor": "operator", "reason": "drill"}
        assert shop.send("POST", "/v1/overrides", stop)[0] == 201
        stopped = shop.send("POST", "/v1/decisions", question("order-stopped"), BEGIN + timedelta(days=9))[1]
        assert stopped["destinations"][0] == "card"
        assert stopped["propensity"] == 1.0


def question(name: str) -> dict[str, Any]:
    """An order so small that the bank is by far the better; exploration, one in forty, does not touch these names."""
    data = {"amount": 10.0, "country": "NO"}
    return {"event": {"specversion": "1.0", "id": name, "source": "shop", "type": "shop.order", "data": data}}


def until_served(shop: Shop, role: str, digest: str) -> None:
    """Wait until the shim follows the ledger to ``digest``."""
    give_up = time.monotonic() + 180
    while True:
        _, told = shop.send("GET", "/v1/models/router/current")
        if told["streams"].get("orders", {}).get(role) == digest:
            return
        assert time.monotonic() < give_up, told
        time.sleep(0.2)
