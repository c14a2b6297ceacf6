"""What the shim is measured on: a stream of eight destinations and thirty features, a router of 200 trees, a home to serve it from."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from features import config
from features.vector import CategoryColumn
from models import compiling, fit
from models.card import read_card
from models.releases import bundle, transitions
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving.plan import Plan

N_CANDIDATES = 8
N_EVENT_NUMBERS = 14
N_DESTINATION_NUMBERS = 14  # and two categories: thirty features
ROUNDS, LEAVES = 200, 31
N_ROWS = 20_000
SEED = 11
STREAM = "orders"
BATCH = 256
OPEN_RATE = 2_000  # requests a second
MARK = "@" * 12  # what the load generator puts a number of its own for

_DESTINATIONS = tuple(f"d{number}" for number in range(N_CANDIDATES))
_COUNTRIES = ("NO", "SE", "DK", "FI", "DE", "FR")


@dataclass(frozen=True, kw_only=True)
class World:
    """A home with two routers released in turn: the configuration, the store, and the digests."""

    home: Path
    config_path: Path
    bundles: tuple[Path, ...]
    digests: tuple[str, ...]
    matrix: list[list[float]]

    @property
    def environment(self) -> dict[str, str]:
        """What a shim needs to serve it."""
        return {"TURNOUT_HOME": str(self.home), "TURNOUT_CONFIG": str(self.config_path), "OMP_NUM_THREADS": "1"}

    def release(self, digest: str) -> int:
        """Make ``digest`` the champion and return the generation."""
        self.start_canary(digest, share=0.5)
        ledger, by = Ledger(self.home / "ledger"), _attribution()
        history = ledger.history()
        ledger.append(transitions.promote(history, stream=STREAM, by=by), expected_head=history.hash)
        return ledger.history().generation

    def start_canary(self, digest: str, *, share: float) -> int:
        """Make ``digest`` the challenger and return the generation."""
        ledger = Ledger(self.home / "ledger")
        history = ledger.history()
        canary = transitions.start_canary(history, stream=STREAM, digest=digest, share=share, by=_attribution())
        ledger.append(canary, expected_head=history.hash)
        return ledger.history().generation

    def withdraw(self) -> int:
        """End the canary and return the generation."""
        ledger = Ledger(self.home / "ledger")
        history = ledger.history()
        ended = transitions.withdraw(history, stream=STREAM, by=_attribution())
        ledger.append(ended, expected_head=history.hash)
        return ledger.history().generation


def make(folder: Path) -> World:
    """Train two routers on planted data, release the first, and return the world."""
    config_path = folder / "turnout.toml"
    config_path.write_text(configuration())
    home = folder / "home"
    store, ledger = Store(home / "store"), Ledger(home / "ledger")
    bundles, digests = [], []
    for number in range(2):
        bundles.append(folder / f"router-{number}")
        digests.append(_train(bundles[-1], seed=SEED + number))
        store.put(bundles[-1], digest=digests[-1])
    history = ledger.history()
    ledger.append(transitions.genesis(streams={STREAM: "off"}, by=_attribution()), expected_head=history.hash)
    matrix = np.random.default_rng(SEED).normal(size=(N_CANDIDATES, 28)).round(3)
    codes = [[float(row), 1.0] for row in range(N_CANDIDATES)]
    world = World(
        home=home,
        config_path=config_path,
        bundles=tuple(bundles),
        digests=tuple(digests),
        matrix=np.hstack([matrix, codes]).tolist(),
    )
    world.release(digests[0])
    return world


def _attribution() -> Attribution:
    return Attribution(actor="benchmark", reason="measured", at=datetime.now(UTC))


def configuration() -> str:
    """Return the turnout.toml."""
    numbers = [f'e{n} = "event.e{n}"' for n in range(N_EVENT_NUMBERS)]
    numbers += [f'x{n} = "destination.x{n}"' for n in range(N_DESTINATION_NUMBERS)]
    random = np.random.default_rng(SEED)
    destinations = [
        f"{name} = {{ attributes = {{ {', '.join(f'x{n} = {random.normal():.3f}' for n in range(N_DESTINATION_NUMBERS))} }} }}"
        for name in _DESTINATIONS
    ]
    names = ", ".join(f'"{name}"' for name in _DESTINATIONS)
    return "\n".join(
        [
            f"[streams.{STREAM}]",
            'types = ["shop.order"]',
            f"destinations = [{names}]",
            'static = { default = ["d0"] }',
            "objective = { success = 1.0 }",
            "exploration = { epsilon = 0.05 }",
            f"training = {{ rounds = {ROUNDS}, leaves = {LEAVES}, min_leaf = 20, threads = 1 }}",
            "[streams.orders.features]",
            f"numbers = {{ {', '.join(numbers)} }}",
            'categories = { destination = "destination.name", country = "event.country" }',
            "[destinations]",
            *destinations,
        ]
    )


def question(number: str = MARK, *, is_ordinary: bool = True) -> dict[str, Any]:
    """Return one question: an event with fifteen fields, and eight candidates by name.

    One that is not ordinary tells its time in a zone, which the fast path leaves to the whole path.
    """
    random = np.random.default_rng(SEED)
    data: dict[str, Any] = {f"e{n}": round(float(random.normal()), 2) for n in range(N_EVENT_NUMBERS)}
    data["country"] = "SE"
    event = {"specversion": "1.0", "id": number, "source": "shop", "type": "shop.order", "data": data}
    if not is_ordinary:
        event["time"] = "2026-11-24T13:00:00+01:00"
    return {"event": event, "candidates": [{"destination": name} for name in _DESTINATIONS]}


def request(path: str, document: Any, headers: Mapping[str, str] | None = None) -> bytes:
    """Return a whole HTTP request."""
    body = json.dumps(document, separators=(",", ":")).encode()
    lines = {
        "host": "localhost",
        "content-type": "application/json",
        **(headers or {}),
        "content-length": str(len(body)),
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body


def _train(folder: Path, *, seed: int) -> str:
    random = np.random.default_rng(seed)
    plan = Plan.of(config.parse(configuration())).streams[STREAM]
    numbers = random.normal(size=(N_ROWS, N_EVENT_NUMBERS + N_DESTINATION_NUMBERS))
    destination, country = random.integers(0, N_CANDIDATES, N_ROWS), random.integers(0, len(_COUNTRIES), N_ROWS)
    logit = numbers[:, 0] * np.sin(destination) + numbers[:, 3] * numbers[:, 17] + 0.3 * country - 0.5
    missing = np.full(N_ROWS, np.nan)
    examples = fit.Examples(
        number_names=plan.features.number_names,
        category_names=plan.features.category_names,
        numbers=numbers,
        categories=[CategoryColumn(destination, _DESTINATIONS), CategoryColumn(country, _COUNTRIES)],
        success=(random.random(N_ROWS) < 1 / (1 + np.exp(-logit))).astype(float),
        latency_ms=missing,
        cost_usd=missing,
        propensity=np.full(N_ROWS, 1 / N_CANDIDATES),
    )
    subject = fit.Subject(
        stream=STREAM,
        feature_set=plan.features.version,
        objective=plan.stream.objective,
        destinations=plan.stream.destinations,
        settings=msgspec.structs.replace(plan.stream.training, threads=1),
        trained={},
    )
    fit.train(examples, folder, subject)
    compiling.compile_router(folder, read_card(folder))  # as the flow that retrains does
    return bundle.seal(folder, kind="router")
