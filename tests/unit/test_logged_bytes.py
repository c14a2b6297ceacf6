import dataclasses
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features import config
from features.clock import SystemClock
from features.cloudevents import DecisionRequest
from models import router
from models.card import CARD_FILE, Card, Head, Quantile
from models.leaf_masks import LeafMasks
from models.trees import Forest, Link, Split, Tree
from serving.debts import Debts
from serving.memory import DecisionMemory
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.shim import Shim
from serving.view import Model, ReleaseView, StreamView

GOLDEN = Path(__file__).with_name("logged_bytes.jsonl")
AT = datetime(2026, 11, 24, 12, 30, tzinfo=UTC)
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b", "c", "d"]
mode = "canary"
static = { by = "size", routes = { big = ["c"] }, default = ["a", "b"] }
objective = { success = 1.0, latency_minute = 0.1, sla = 0.2, sla_latency_ms = 900.0, low = -1.0, high = 1.0 }
exploration = { kind = "KIND", epsilon = 0.2, static_epsilon = 0.1 }
refusal = "parking"

[streams.orders.features]
zone = "Europe/Oslo"
[streams.orders.features.numbers]
weight = "event.weight"
fee = "candidate.fee"
depth = "state.queue_depth"
speed = "state.speed"
power = "destination.power"
hour = "time.hour"
each = "candidate.fee * event.weight + 1"
place = "rank(candidate.fee)"
day = "time.day_of_year"
gone = "event.gone"
[streams.orders.features.categories]
destination = "destination.name"
size = "event.size"
kind = "candidate.kind"
tier = "destination.tier"

[destinations]
a = { region = "eu", attributes = { power = 3, tier = "x" } }
b = { region = "eu", attributes = { power = 4.5 } }
c = { region = "us", attributes = { tier = "y" } }
d = { region = "us" }
parking = {}

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["eu"]
"""


@dataclass
class Fixed:
    view: ReleaseView

    def report_fault(self, digest: str, reason: str) -> None:
        raise AssertionError(digest, reason)

    def rejections(self) -> dict[str, str]:
        return {}


def forest(link: Link, *values: float) -> Forest:
    low, middle, high = values
    splits = (
        Split(feature=1, leaves=(0, 2, 3), threshold=0.4, missing="nan"),
        Split(feature=10, leaves=(0, 1, 2), categories=frozenset({0, 2})),
    )
    hours = (Split(feature=5, leaves=(0, 1, 2), threshold=12.0, missing="zero"),)
    trees = (Tree(values=(low, middle, high), splits=splits), Tree(values=(0.1, 0.3), splits=hours))
    return Forest(n_features=14, trees=trees, link=link)


def make_router(folder: Path, plan: Plan, *values: float) -> router.Router:
    folder.mkdir()
    of = plan.streams["orders"]
    LeafMasks.build(forest(Link(name="sigmoid"), *values)).write(folder / "success.masks")
    LeafMasks.build(forest(Link(), *(5.0 + value for value in values))).write(folder / "latency.masks")
    orders = {"destination": ("a", "b", "c"), "size": ("big", "small"), "kind": ("k",), "tier": ("x", "y")}
    card = Card(
        stream="orders",
        feature_set=of.features.version,
        numbers=of.features.number_names,
        categories=orders,
        heads={
            "success_probability": Head(files=("success.txt",), low=0.0, high=1.0),
            "latency_ms": Head(files=("latency.txt",), low=0.0, high=1e6, offset="fee"),
            "log_latency": Head(files=("latency.txt", "success.txt"), low=0.0, high=20.0),
        },
        objective=of.stream.objective,
        destinations=of.stream.destinations,
        value_low=-1.0,
        value_high=1.0,
        trained={},
        residuals=tuple((n - 32) / 32 for n in range(1, 64)),
        quantiles=(Quantile(level=0.9, name="latency_p90_ms"),),
    )
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(card))
    return router.load(folder)


def asked() -> list[DecisionRequest]:
    """Ask in every way that changes what is logged."""
    events: list[dict[str, Any]] = [
        {"weight": 2, "size": "small", "flag": True},
        {"weight": 0.25, "size": "big"},
        {"size": "huge", "gone": 1e308},
        {"weight": None, "gone": False},
        {"weight": 1e-36, "size": True},
    ]
    state = {"observed_at": "2026-11-24T12:29:00Z", "queue_depth": 3, "measures": {"speed": 1.5}}
    several = [
        {"destination": "b", "attributes": {"fee": 0.5, "kind": "k"}, "state": state},
        {"destination": "a", "attributes": {"fee": 1, "kind": 7}},
        {"destination": "c", "attributes": {"fee": None}, "state": {"healthy": False}},
        {"destination": "d", "attributes": {"fee": 0.25}, "state": {"queue_depth": 0.0, "measures": {"speed": None}}},
        {"destination": "e"},
    ]
    made = []
    for number in range(20):
        event = {"specversion": "1.0", "id": f"order-{number}", "source": "/shop", "type": "shop.order"}
        event |= {"time": "2026-11-24T13:00:00+01:00", "data": events[number % 5]}
        event |= {"dataclassification": "personal"} if number % 3 == 0 else {}
        event |= {"dataclassification": "secret"} if number == 7 else {}
        event |= {"partitionkey": "key"} if number % 4 == 0 else {}
        made.append({"event": event} if number % 2 else {"event": event, "candidates": several[: 1 + number // 2 % 5]})
    return msgspec.convert(made, list[DecisionRequest])


def told(folder: Path, kind: str) -> list[str]:
    # The revision names the whole configuration, defaults that are added later among it.
    plan = dataclasses.replace(Plan.of(config.parse(CONFIGURATION.replace("KIND", kind))), revision="pinned")
    champion, challenger, shadow = (
        Model(name * 64, make_router(folder / name, plan, *values))
        for name, values in (("1", (-1.0, 0.5, 2.0)), ("2", (1.0, -0.5, 0.25)), ("3", (0.0, 0.0, 0.1)))
    )
    view = StreamView(
        mode="canary", generation=9, champion=champion, challenger=challenger, challenger_share=0.4, shadow=shadow
    )
    shim = Shim(
        plan=plan,
        clock=SystemClock(),
        releases=Fixed(ReleaseView(generation=9, streams={"orders": view})),
        overrides=OverrideJournal(folder / "overrides.jsonl"),
        recorder=Recorder(folder / "spool"),
        memory=DecisionMemory(1 << 10),
        debts=Debts(),
    )
    answers = shim.decide(asked(), AT)
    logged = [payload.decode() for _, payload in shim.recorder.recent(1 << 30)]
    lines = [
        *logged,
        *(msgspec.json.encode(each).decode() if hasattr(each, "decision_id") else str(each) for each in answers),
    ]
    return [re.sub(r'"latency_us":[0-9.e+-]+', '"latency_us":0', line) for line in lines]


@pytest.mark.parametrize("kind", ["epsilon", "squarecb", "none"])
def test_what_is_logged_and_answered_is_pinned_to_the_byte(kind: str, tmp_path: Path) -> None:
    golden = dict(line.split("\t", 1) for line in GOLDEN.read_text(encoding="utf-8").splitlines())
    lines = told(tmp_path, kind)
    expected = {key: line for key, line in golden.items() if key.startswith(kind)}
    assert len(expected) == len(lines) == 40
    for number, line in enumerate(lines):
        assert rounded(line) == rounded(expected[f"{kind}-{number}"]), number


def rounded(line: str) -> str:
    """Return the line with its numbers to 12 digits: exponentials differ in the last ones between C libraries."""
    return re.sub(r"\d+\.\d+(e[+-]?\d+)?", lambda found: f"{float(found[0]):.12g}", line)
