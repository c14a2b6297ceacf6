"""The shim keeps account of what its routers use: per decision, over a restart, not for what was never decided."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features import config
from features.clock import ReplayClock
from features.cloudevents import CloudEvent, DecisionRequest
from models.router import Scores
from models.tariff import PricedLimit, PriceList, Tariff
from serving import inventory
from serving.answer import Answer
from serving.debts import Debts
from serving.memory import DecisionMemory
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.shim import Shim
from serving.view import Model, ReleaseView, StreamView

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { epsilon = 0.1 }

[[streams.orders.limits]]
destination = "b"
share = 0.25
pace_events = 20

[destinations]
a = {}
b = {}
""")
)
LIMIT = PLAN.streams["orders"].stream.limits[0]


class FavouringB:
    """Thinks twice as much of b."""

    feature_set = PLAN.streams["orders"].features.version

    def score(self, numbers: NDArray[np.float64], categories: Sequence[Sequence[str | None]]) -> Scores:
        assert len(numbers) == len(categories)
        return Scores(np.array([0.4, 0.8]), {})


class Releases:
    """One router on one stream."""

    def __init__(self, share_of_b: float = 0.25) -> None:
        limit = config.LimitDefinition(destination="b", share=share_of_b, pace_events=20)
        priced = PricedLimit(limit=limit, price=0.4, step=0.1, most=1.0)
        tariff = Tariff(PriceList(limits=(priced,), temperature=0.05, fitted={}), ())
        champion = Model("c0ffee", FavouringB(), tariff=tariff)
        self.view = ReleaseView(streams={"orders": StreamView(mode="on", champion=champion)})

    def report_fault(self, digest: str, reason: str) -> None:
        raise AssertionError(f"{digest}: {reason}")

    def rejections(self) -> dict[str, str]:
        return {}


def shim(folder: Path, releases: Releases | None = None) -> Shim:
    return Shim(
        plan=PLAN,
        clock=ReplayClock(at=AT),
        releases=releases or Releases(),
        overrides=OverrideJournal(folder / "overrides.journal"),
        recorder=Recorder(folder / "spool"),
        memory=DecisionMemory(1_000),
        debts=Debts(folder / "debts.json"),
    )


def ask(of: Shim, *numbers: int) -> list[Answer]:
    events = [CloudEvent(specversion="1.0", id=f"e{n}", source="/shop", type="shop.order") for n in numbers]
    answers = of.decide([DecisionRequest(event=event) for event in events], AT)
    assert all(isinstance(answer, Answer) for answer in answers)
    return answers  # type: ignore[return-value] # as asserted


def owed(of: Shim) -> float:
    return float(of.debts.of("orders")["c0ffee"][0])


def test_every_decision_is_charged_once_and_paces_the_next_of_its_batch(tmp_path: Path) -> None:
    of = shim(tmp_path)
    answers = ask(of, *range(400))
    n_at_b = sum(answer.destinations[0] == "b" for answer in answers)
    assert owed(of) == pytest.approx(n_at_b - 0.25 * 400)
    assert n_at_b == pytest.approx(100, abs=12)  # unpaced, both would tie: 200
    before = owed(of)
    assert {answer.repeated for answer in ask(of, *range(10))} == {True}
    assert owed(of) == before


def test_what_is_owed_outlives_a_restart_and_the_status_tells_it(tmp_path: Path) -> None:
    of = shim(tmp_path)
    ask(of, *range(40))
    of.debts.save()
    again = shim(tmp_path)
    assert owed(again) == owed(of) != 0.0
    status = inventory.status(again, AT)
    assert status["streams"]["orders"]["owed"] == {"champion": {"share of b": owed(of)}}
    assert status["problems"] == []


def test_nothing_is_owed_for_what_the_disk_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of = shim(tmp_path)
    ask(of, 1)
    before = owed(of)

    def refuse(*_: bytes) -> list[int]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(of.recorder, "append", refuse)
    assert {answer.logged for answer in ask(of, 2, 3, 4)} == {False}
    assert owed(of) == before


def test_a_router_approved_with_other_limits_than_the_configured_is_a_problem(tmp_path: Path) -> None:
    said = inventory.problems(shim(tmp_path, Releases(share_of_b=0.5)))
    assert said == ["limits: champion of orders was approved with other limits on share of b: retrain it"]
    assert LIMIT.at_most == 0.25
