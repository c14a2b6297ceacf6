"""What several suites need: a router that learned the tiny world, and a real MLflow that knows its users."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from features import ingestion
from features.clock import ReplayClock
from flows import settings as environment
from flows.components import Ports
from flows.settings import Settings
from flows.stack import Stack
from flows.wiring import Wiring
from models.registered import Version

PASSWORD = "a-long-password-1"
MEMBERS: Mapping[str, tuple[str, ...]] = {
    "trainer": ("trainer", "both"),
    "reviewer": ("bob", "both"),
    "promoter": ("promoter",),
}
N_DECISIONS = 700

Settle = Callable[[Settings], Wiring]


@dataclass(frozen=True, kw_only=True)
class Learned:
    """A router of the tiny world that passed its gate, and how to register it in the registry of a wiring."""

    parts: tuple[Any, ...]

    def register(self, wired: Wiring) -> Version:
        from flows import retrain

        number = retrain.register_candidate(wired, "orders", *self.parts)
        return wired.registry.version(retrain.CANDIDATE_MODEL, number)


@pytest.fixture(scope="session")
def settle(tiny_text: str, play: Callable[..., Any]) -> Settle:
    """A function that fills a home with the tiny world's past and returns its wiring, at the instant when all is closed."""

    def settled(chosen: Settings) -> Wiring:
        chosen.home.mkdir(parents=True, exist_ok=True)
        chosen.config_path.write_text(tiny_text)
        made = Wiring(settings=chosen, clock=ReplayClock(at=datetime(2026, 1, 1, tzinfo=UTC)), actor="trainer")
        told = play(made.configuration, N_DECISIONS)
        made.clock.advance(told[-1][1].observed_at)  # type: ignore[attr-defined]  # a ReplayClock
        log = chosen.home / "log.jsonl"
        log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for pair in told for record in pair))
        ingestion.ingest(made.warehouse, [log], made.configuration, now=made.now)
        return made

    return settled


@pytest.fixture(scope="session")
def learned(settle: Settle, tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """A candidate, fitted and judged once for all suites."""
    from flows import retrain
    from validation import gate

    home = tmp_path_factory.mktemp("learned")
    wired = settle(environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")}))
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "orders", source)
    quality = retrain.validate_rows(wired, "orders", rows)
    log = retrain.read_log(wired, "orders", source, rows)
    fitted = retrain.fit_candidate(wired, "orders", log)
    compared = retrain.compare_candidate(wired, "orders", fitted)
    verdict = gate.judge(compared, wired.configuration.streams["orders"].gate)
    assert verdict.state == "passed", verdict.reasons
    found = retrain.examine_candidate(wired, "orders", log, fitted)
    return Learned(parts=(fitted, compared, verdict, quality, found))


@contextmanager
def acting_as(user: str, password: str = PASSWORD) -> Iterator[None]:
    """Let MLflow's clients in this process be ``user`` for a while."""
    before = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")}
    os.environ |= {"MLFLOW_TRACKING_USERNAME": user, "MLFLOW_TRACKING_PASSWORD": password}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


@pytest.fixture(scope="session")
def be() -> Callable[..., Any]:
    """The context in which this process is another user."""
    return acting_as


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """The settings of a home whose MLflow runs, knows its users, and was secured."""
    from models import registry_roles

    home = tmp_path_factory.mktemp("secured")
    chosen = environment.read(
        {
            "TURNOUT_HOME": str(home),
            "TURNOUT_CONFIG": str(home / "turnout.toml"),
            "TURNOUT_SHIMS": "",
            "TURNOUT_MLFLOW_AUTH": "true",
            "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        }
    )
    with Stack(chosen, components=("mlflow",), ports=Ports(mlflow=0)) as stack, acting_as("admin"):
        passwords = {registry_roles.password_variable(user): PASSWORD for users in MEMBERS.values() for user in users}
        registry_roles.secure(stack.tracking_uri, MEMBERS, environment=passwords)  # type: ignore[arg-type]  # their keys are roles
        yield replace(stack.settings, shim_urls=())
