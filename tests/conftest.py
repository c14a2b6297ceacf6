"""A tiny world that is not flights: orders are paid by card or by bank, and the bank fails for large amounts."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import hypothesis
import numpy as np
import pytest

from features import config
from features.config import Configuration
from features.records import Candidate, Decision, Event, Outcome
from serving.case import Question
from serving.decider import decide
from serving.plan import Plan
from serving.view import StreamView

# No deadline: no test may depend on how fast a machine is.
hypothesis.settings.register_profile("turnout", deadline=None, max_examples=25)
hypothesis.settings.load_profile("turnout")

TINY = """
[destinations.card]
attributes = { fee = 0.3 }
[destinations.bank]
attributes = { fee = 0.1 }

[streams.orders]
types = ["shop.order"]
destinations = ["card", "bank"]
mode = "off"
static = { default = ["card"] }

[streams.orders.objective]
success = 1.0
window_minutes = 60.0

[streams.orders.exploration]
static_epsilon = 0.5

[streams.orders.features]
numbers = { amount = "event.amount", fee = "destination.fee" }
categories = { destination = "destination.name", country = "event.country" }

[streams.orders.training]
min_decisions = 100
rounds = 30
min_leaf = 10
threads = 1
holdout_share = 0.3
"""
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def tiny() -> Configuration:
    """The tiny world's configuration."""
    return config.parse(TINY)


@pytest.fixture(scope="session")
def tiny_text() -> str:
    """The tiny world's turnout.toml."""
    return TINY


@pytest.fixture(scope="session")
def play() -> Callable[..., list[tuple[Decision, Outcome]]]:
    """A function that lets ``n`` orders be decided under a view, one a minute, and reveals what became of each; of ``n_keys`` customers in turn."""

    def played(
        configuration: Configuration,
        n: int,
        *,
        view: StreamView | None = None,
        seed: int = 0,
        begin: datetime = BEGIN,
        n_keys: int = 0,
    ) -> list[tuple[Decision, Outcome]]:
        rng = np.random.default_rng(seed)
        plan = Plan.of(configuration)
        candidates = tuple(Candidate(destination=name) for name in ("card", "bank"))
        told = []
        for number in range(n):
            at = begin + timedelta(minutes=number)
            amount = float(rng.uniform(0, 100))
            event = Event(
                id=f"order-{seed}-{number}",
                source="shop",
                type="shop.order",
                stream="orders",
                key=f"customer-{number % n_keys}" if n_keys else None,
                attributes={"amount": amount, "country": "NO" if rng.uniform() < 0.5 else "SE"},
            )
            decision = decide(
                Question(event=event, candidates=candidates),
                plan.streams["orders"],
                view or StreamView(mode="off"),
                None,
                at=at,
                decision_id=f"decision-{seed}-{number}",
                revision=plan.revision,
            ).decision
            chance = 0.7 if decision.assigned == "card" else 0.95 if amount < 50 else 0.2
            outcome = Outcome(
                decision_id=decision.decision_id,
                served=decision.assigned,
                observed_at=at + timedelta(minutes=5),
                success=bool(rng.uniform() < chance),
                latency_ms=200.0,
            )
            told.append((decision, outcome))
        return told

    return played
