"""The fast path against the whole one: whatever it says, the whole path says; and it says something of what is ordinary."""

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from features import config, spool
from features import content as contents
from features.clock import ReplayClock
from features.content import Content
from features.limits import LimitDefinition
from features.records import Decision, DestinationState, Event, Outcome
from models import compiling, durations, router
from models.calibration import Scaling
from models.card import CARD_FILE, Card, Head, Quantile
from models.tariff import PricedLimit, PriceList, Tariff
from serving import course_models, fast_path, held, identity, live
from serving.answer import Answer
from serving.debts import Debts
from serving.handler import Handler
from serving.live import StateReport
from serving.memory import of_capacity
from serving.messages import Request
from serving.overrides import OverrideJournal
from serving.plan import Plan
from serving.recorder import Recorder
from serving.settings import Settings
from serving.shim import Shim
from serving.view import Classifier, Model, ReleaseView, StreamView

pytestmark = pytest.mark.skipif(not fast_path.is_compiled(), reason="the fast path was not built")

AT = datetime(2026, 11, 24, 12, 30, 0, 123000, tzinfo=UTC)
JSON = {"content-type": "application/json"}
BARE = {"content-type": "application/cloudevents+json"}
DECISIONS, ANSWERS = msgspec.json.Decoder(Decision), msgspec.json.Decoder(Answer)
NAMES = ["north", "south", "east", "Øst", 'we"st']
TEXT = """
[live]
max_age_seconds = 1500.0
[classifiers.notes]
labels = "labels.csv"
[destinations.north]
attributes = { fee = 0.3, kind = "rail" }
region = "eu"
[destinations.south]
attributes = { fee = 1, fast = true }
region = "eu"
[destinations.east]
attributes = { kind = "road", fast = inf }
[destinations."Øst"]
[destinations."we\\"st"]
attributes = { fee = 2.5, kind = "r\\"ail" }

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["eu"]
[[rules]]
name = "contract \\"x\\""
label = "secret"
allow = ["south", "east"]

[streams.orders]
types = ["shop.order", "shop.return"]
destinations = ["north", "south", "east", "Øst", "we\\"st"]
static = { by = "size", routes = { big = ["east", "we\\"st"], None = ["south"], True = ["Øst"] }, default = ["north", "south"] }
text_field = "note"
content = "notes"
sticky = true
[streams.orders.objective]
success = 2.0
latency_minute = 7.3
cost_usd = 0.1
low = -1.0
high = 2.0
[streams.orders.exploration]
@KIND@
epsilon = 0.07
gamma = 3.0
static_epsilon = 0.1
[streams.orders.features]
zone = "Europe/Oslo"
[streams.orders.features.numbers]
amount = "event.amount"
items = "event.items"
hour = "time.hour"
promise = "candidate.promise"
fee = "destination.fee"
fast = "destination.fast"
depth = "state.queue_depth"
errors = "state.error_rate"
speed = "state.latency_ms"
heat = "state.heat"
well = "state.healthy"
dear = "event.amount * destination.fee"
rank = "rank(candidate.promise) + missing(state.heat)"
ill = "missing(state.healthy) - state.healthy"
late = "time.hour - time.weekday"
sure = "content.confidence"
axis = "content.component_2"
plea = "content.probability_plea * destination.fee"
[streams.orders.features.categories]
country = "event.country"
name = "destination.name"
kind = "destination.kind"
carrier = "candidate.carrier"
about = "content.class"

[streams.other]
types = ["shop.other"]
destinations = ["north", "south"]
objective = { success = 1.0 }
"""


class Reader:
    """Says something of a text, and of what else it is given, that nothing else says; of some texts nothing, and of one it fails."""

    classes = ("plea", 'quer"y', "Øde")
    n_components = 2
    attributes = ("country", "items")

    def read(self, event: Event) -> Content | None:
        if event.text is None or not event.text.strip():
            return None
        if event.text == "boom":
            raise ArithmeticError(event.text)
        facts = [event.attributes.get(name) for name in self.attributes]
        told = zlib.crc32(repr((event.text, facts)).encode()) / 2**32
        return Content(
            label=(*self.classes, None)[int(told * 4)],
            confidence=told,
            probabilities=np.array([told / 3, 1 - told, told / 7]),
            columns=contents.columns_of(self.classes),
            components=(told**2, told**3),
        )


READ = Classifier("c" * 8, Reader())


@dataclass
class Releases:
    view: ReleaseView
    faults: list[str] = field(default_factory=list)

    def report_fault(self, digest: str, reason: str) -> None:
        self.faults.append(f"{digest}: {reason}")

    def rejections(self) -> dict[str, str]:
        return {}


class NoFastPath:
    """What a shim has where no compiler was."""

    streams: frozenset[str] = frozenset()

    def follow(self, view: ReleaseView) -> None:
        """There is nothing to make of a release."""

    def answer(self, *_: object, **__: object) -> None:
        return None

    def tell(self) -> None:
        """Nothing was counted."""


def takes(shim: Shim, body: bytes, at: datetime = AT, *, is_bare: bool = False) -> bool:
    """Tell whether the fast path takes a body, without remembering, logging or charging what it decides."""
    lines = held.none_yet()
    lines.settle(0, 1 << 30)
    memory = of_capacity(10_000)
    view, before = shim.releases.view, shim.debts.snapshot()
    told = shim.fast_path.answer(view, body, at, is_bare=is_bare, memory=memory, held=lines)
    shim.debts.restore(before)
    return told is not None


@dataclass(repr=False)
class Side:
    """A shim, by whichever path."""

    handler: Handler
    shim: Shim
    spool: Path
    n_logged: int = 0

    def ask(self, body: bytes, headers: dict[str, str] = JSON) -> tuple[int, list[Any], list[Decision]]:
        """Return status, answers and what was logged, without what differs from run to run."""
        response = self.handler.handle(Request("POST", "/v1/decisions", headers=headers, body=body))
        told = json.loads(response.body)
        answers = told if isinstance(told, list) else [told]
        if response.status == 200:
            answers = [ANSWERS.decode(json.dumps(each)) if "problem" not in each else each for each in answers]
        lines = [line for path in spool.segments(self.spool) for line in spool.read_lines(path)]
        new, self.n_logged = lines[self.n_logged :], len(lines)
        assert all(line.payload is not None for line in new), "the checksums must hold"
        logged = [msgspec.structs.replace(DECISIONS.decode(line.payload or b""), latency_us=0.0) for line in new]
        return response.status, answers, logged


def side(folder: Path, plan: Plan, view: StreamView, *, is_fast: bool) -> Side:
    shim = Shim(
        plan=plan,
        clock=ReplayClock(at=AT),
        releases=Releases(ReleaseView(generation=3, streams={"orders": view})),
        overrides=OverrideJournal(folder / "overrides.journal"),
        recorder=Recorder(folder / "spool"),
        memory=of_capacity(1_000),
    )
    if not is_fast:
        shim.fast_path = NoFastPath()  # type: ignore[assignment]
    return Side(Handler(shim, Settings(home=folder, config_path=folder)), shim, folder / "spool")


KINDS = {
    "none": 'kind = "none"',
    "epsilon": 'kind = "epsilon"',
    "squarecb": 'kind = "squarecb"',
    "no budget": 'kind = "none"\nbudget = 0.1',
    "budget of nothing": 'kind = "squarecb"\nbudget = 0.0',
    "budget": 'kind = "epsilon"\nbudget = 0.03',
    "squarecb within a budget": 'kind = "squarecb"\nbudget_share = 0.012\nmin_propensity = 0.003',
    "floor": 'kind = "squarecb"\nmin_propensity = 0.01',
    "floor too dear": 'kind = "epsilon"\nbudget = 0.012\nmin_propensity = 0.009',
}


def text_of(kind: str) -> str:
    return TEXT.replace("@KIND@", KINDS[kind])


def plan_of(kind: str) -> Plan:
    return Plan.of(config.parse(text_of(kind)))


def make_router(folder: Path, plan: Plan, seed: int, *, is_plain: bool) -> router.Router:
    """Train a router on noise: two boosters to a head, with an offset.

    Unless it is plain: with calibration, the distribution of latencies and a limit for them, and destinations' own boosters.
    """
    folder.mkdir()
    of, random = plan.streams["orders"], np.random.default_rng(seed)
    orders = {
        "country": ("NO", "SE"),
        "name": tuple(NAMES),
        "kind": ("rail", "road"),
        "carrier": ("True", "7", "post"),
        "about": ("plea", 'quer"y', "out of scope"),
    }
    numbers = of.features.number_names
    n = 600
    matrix = np.concatenate((random.normal(1, 2, (n, len(numbers))), random.integers(0, 3, (n, 5))), axis=1)
    matrix[random.uniform(size=matrix.shape) < 0.1] = math.nan
    signal = np.nan_to_num(matrix[:, 0] + matrix[:, 3] - matrix[:, 6]) + random.normal(size=n)
    targets = {
        "success_probability": ("binary", (signal > 1).astype(float)),
        "latency_ms" if is_plain else "log_latency": ("regression", signal * (1_000 if is_plain else 1)),
        "cost_usd": ("regression", signal / 10),
    }
    for head, (objective, label) in targets.items():
        for number in range(2 if is_plain else 4):  # the last two are some destination's own
            data = lightgbm.Dataset(matrix, label, categorical_feature=list(range(len(numbers), len(numbers) + 5)))
            chosen = {"objective": objective, "num_leaves": 7, "verbosity": -1, "num_threads": 1, "seed": seed + number}
            lightgbm.train({**chosen, "feature_fraction": 0.6}, data, 12).save_model(folder / f"{head}_{number}.txt")
    scaling = None if is_plain else Scaling(slope=0.8, intercept=0.1)
    heads = {
        name: Head(
            files=(f"{name}_0.txt", f"{name}_1.txt"),
            low=0.0,
            high=1.0 if name == "success_probability" else 20.0 if name == "log_latency" else 9_000.0,
            scaling=scaling if name == "success_probability" else None,
            offset="promise" if name == "latency_ms" else None,
            own={} if is_plain else {"south": (f"{name}_2.txt", f"{name}_3.txt"), 'we"st': (f"{name}_3.txt",)},
            own_share={"success_probability": 0.3, "log_latency": 1.0}.get(name, 0.0),
        )
        for name in targets
    }
    if not is_plain:
        heads["latency_ms"] = Head(files=("cost_usd_0.txt",), low=0.0, high=9_000.0)
    card = Card(
        stream="orders",
        feature_set=of.features.version,
        numbers=numbers,
        categories={name: orders[name] for name in of.features.category_names},
        heads=heads,
        objective=of.stream.objective
        if is_plain
        else msgspec.structs.replace(of.stream.objective, sla=0.7, sla_latency_ms=1.5),
        destination_column=None if is_plain else "name",
        destinations=of.stream.destinations,
        value_low=-1.0,
        value_high=2.0,
        trained={},
        residuals=() if is_plain else tuple(np.linspace(-1, 1, len(durations.LEVELS)).tolist()),
        quantiles=() if is_plain else (Quantile(level=0.9, name="latency_ms_p90"),),
    )
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(card))
    compiling.compile_router(folder, card)
    return router.load(folder)


@pytest.fixture(autouse=True)
def looks_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both sides are to know the same, however fast each is asked."""
    monkeypatch.setattr(live, "LOOK_SECONDS", 0.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    folder, plan = tmp_path_factory.mktemp("routers"), plan_of("epsilon")
    made = {
        name: make_router(folder / name, plan, seed, is_plain=name != "full")
        for seed, name in enumerate(("a", "b", "full"))
    }
    return {name: Model(name * 8, loaded, classifier=READ) for name, loaded in made.items()}


def test_every_kind_of_head_is_computed_in_c(models: dict[str, Model]) -> None:
    plan = plan_of("epsilon").streams["orders"]
    for name, model in models.items():
        role = course_models.role_of("champion", model, plan, Debts())
        assert role is not None
        assert role.arithmetic is not None
        assert role.score is None
        heads = role.arithmetic.heads
        assert [bool(head.own) for head in heads] == [name == "full" and head.own_share > 0 for head in heads]
    assert [head.is_scaled for head in heads] == [True, False, False, False]
    assert role.arithmetic.limit[0] >= 0


SHARE = LimitDefinition(destination="south", share=0.2, pace_events=5)
FEES = LimitDefinition(resource="fees", per_event=0.4, price="fee", pace_events=20)
PROMISES = LimitDefinition(resource="promises", per_event=0.3, price="promise", pace_events=7)
LATENCY = LimitDefinition(resource="latency_ms", per_event=900.0)
NOTHING = LimitDefinition(destination="Øst", share=0.0)


def priced(model: Model, *limits: LimitDefinition, temperature: float) -> Model:
    """Return the model with prices, some of which are nothing until it is owed, and of which the draw is soft."""
    listed = PriceList(
        limits=tuple(
            PricedLimit(limit=limit, price=0.3 * place / (1.0 + limit.at_most), step=0.2, most=1.5)
            for place, limit in enumerate(limits)
        ),
        temperature=temperature,
        fitted={},
    )
    return replace(model, tariff=Tariff(listed, model.router.card.numbers))


def owed(of: Side) -> dict[str, list[float]]:
    """Return what models owe, those that owe nothing left out."""
    return {digest: debt.tolist() for digest, debt in of.shim.debts.of("orders").items() if debt.any()}


VIEWS: dict[str, Callable[[dict[str, Model]], StreamView]] = {
    "off": lambda _: StreamView(mode="off", classifier=READ),
    "observe": lambda m: StreamView(mode="observe", generation=1, champion=m["a"], shadow=m["full"], classifier=READ),
    "on": lambda m: StreamView(mode="on", generation=2, champion=m["a"], previous=m["b"], classifier=READ),
    "unread": lambda m: StreamView(mode="on", generation=2, champion=replace(m["a"], classifier=None)),
    "empty": lambda _: StreamView(mode="on", generation=2),
    "canary": lambda m: StreamView(
        mode="canary",
        generation=4,
        champion=m["full"],
        challenger=m["b"],
        challenger_share=0.3,
        shadow=m["a"],
        classifier=READ,
    ),
    "priced": lambda m: StreamView(
        mode="on", generation=2, champion=priced(m["a"], SHARE, FEES, temperature=0.4), classifier=READ
    ),
    "priced canary": lambda m: StreamView(
        mode="canary",
        generation=4,
        champion=priced(m["full"], LATENCY, SHARE, NOTHING, temperature=0.01),
        challenger=priced(m["b"], PROMISES, temperature=0.3),
        challenger_share=0.3,
        shadow=priced(m["a"], SHARE, temperature=0.2),
        classifier=READ,
    ),
    "priced twice": lambda m: StreamView(
        mode="on",
        generation=2,
        champion=priced(m["a"], SHARE, FEES, temperature=0.4),
        shadow=priced(m["a"], SHARE, FEES, temperature=0.4),
        classifier=READ,
    ),
    "first": lambda m: StreamView(
        mode="canary", generation=4, challenger=m["b"], challenger_share=0.4, classifier=READ
    ),
}


@pytest.fixture
def pair(tmp_path: Path, models: dict[str, Model]) -> Callable[..., tuple[Side, Side]]:
    def made(view: str, kind: str = "epsilon") -> tuple[Side, Side]:
        plan, served = plan_of(kind), VIEWS[view](models)
        return tuple(  # type: ignore[return-value]
            side(tmp_path / f"{view}-{kind}-{is_fast}", plan, served, is_fast=is_fast) for is_fast in (True, False)
        )

    return made


def request(number: int = 0, **more: Any) -> dict[str, Any]:
    """Return a request that is ordinary in every respect."""
    random = np.random.default_rng(number)
    event = {
        "specversion": "1.0",
        "id": f"e{number}",
        "source": "/shop",
        "type": "shop.order",
        "partitionkey": f"k{number % 7}",
        "time": "2026-11-24T12:00:00.5Z",
        "dataclassification": ["personal", "public , personal", "secret", ""][number % 4] if number % 3 == 0 else None,
        "data": {
            "amount": round(float(random.normal()), 3),
            "items": int(random.integers(0, 9)),
            "country": ["NO", "SE", "Åland", None][number % 4],
            "size": ["big", "small", "None"][number % 3],
            "note": ["why not", 'he said "no"\n\tÅ', None, " "][number % 4],
            "nested": {"a": [1, {"b": None}]},
        },
    }
    candidates = [
        {
            "destination": name,
            "attributes": {"promise": float(random.normal()), "carrier": [True, 7, "post", "air"][number % 4]},
            "state": {
                "queue_depth": float(random.integers(0, 5)),
                "error_rate": 0.25,
                "observed_at": f"2026-11-24T12:{(number * place * 7) % 60:02d}:00Z",
                "measures": {"heat": float(random.normal()), "cold": None},
                "healthy": bool(number % 5),
            }
            if place
            else None,
        }
        for place, name in enumerate(NAMES[:4])
    ]
    return {"event": event, "candidates": candidates, **more}


def tell(side_: Side, number: int) -> None:
    """Report states, and outcomes from which some follow; all of it ages as the numbers rise."""
    at = AT - timedelta(minutes=number % 40)
    told = DestinationState(queue_depth=number / 7, healthy=bool(number % 2), measures={"heat": number / 3})
    side_.shim.live.report([StateReport(destination=NAMES[number % 4], state=told)], at)
    outcome = Outcome(
        decision_id="d", served=NAMES[number % 3], observed_at=at, success=number % 4 > 1, latency_ms=5.0 + number
    )
    side_.shim.live.learn([outcome], at)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("view", VIEWS)
def test_it_takes_what_is_ordinary_and_decides_it_as_the_whole_path(
    view: str, kind: str, pair: Callable[..., tuple[Side, Side]]
) -> None:
    fast, whole = pair(view, kind)
    n_taken, reasons = 0, set()
    for number in range(60):
        if number % 9 == 4:
            for each in (fast, whole):
                tell(each, number)
        asked = request(number)
        if number % 4 == 1:
            del asked["candidates"]
        if number % 4 == 2:
            asked["decision_id"] = f"own-{number}"
        body = msgspec.json.encode(asked)
        taken = takes(fast.shim, body)
        n_taken += taken
        told, expected = fast.ask(body), whole.ask(body)
        assert told == expected
        assert owed(fast) == owed(whole)
        assert taken or expected[0] != 200, body
        reasons.update(decision.reason for decision in told[2] if taken)
    assert n_taken >= 50
    assert bool(owed(fast)) == view.startswith("priced")
    if view == "priced":
        assert any(reason.endswith(" value within the limits") for reason in reasons)
        assert any(reason.endswith("explored, or drawn between equals within the limits") for reason in reasons)
    if kind == "floor too dear" and view in ("on", "unread"):
        assert any(reason.endswith(", not explored") for reason in reasons)
        assert any(reason.endswith("value") for reason in reasons)


@pytest.mark.parametrize("debt", [1e9, 8.0, 1.0, -1.0, -8.0, -1e9])
@pytest.mark.parametrize("kind", ["none", "squarecb within a budget"])
def test_whatever_is_owed_a_batch_is_charged_one_after_the_other(
    kind: str, debt: float, pair: Callable[..., tuple[Side, Side]]
) -> None:
    both = pair("priced twice", kind)
    for each in both:
        each.shim.debts.set("orders", "a" * 8, np.array([debt, -debt / 3]))
    fast, whole = both
    ordinary = [each for each in map(request, range(60)) if takes(fast.shim, msgspec.json.encode(each))]
    for start in range(0, 45, 15):
        body = msgspec.json.encode(ordinary[start : start + 15])
        assert takes(fast.shim, body)
        assert fast.ask(body) == whole.ask(body)
        assert owed(fast) == owed(whole)
    assert np.abs(owed(fast)["a" * 8]).max() < 100.0  # more would move no price


def test_who_did_not_decide_owes_what_it_owed(pair: Callable[..., tuple[Side, Side]]) -> None:
    """Even more than it could come to owe: the pace of a limit may have been another when it was saved."""
    both = pair("priced canary", "epsilon")
    shadow = "a" * 8
    for each in both:
        each.shim.debts.set("orders", shadow, np.array([1e9]))
    fast, whole = both
    body = next(body for body in (msgspec.json.encode(request(n)) for n in range(60)) if takes(fast.shim, body))
    assert fast.ask(body) == whole.ask(body)
    assert owed(fast) == owed(whole)
    assert owed(fast)[shadow] == [1e9]


def count(side: Side) -> list[str]:
    """Return what a shim says of the decisions it counted."""
    told = side.handler.handle(Request("GET", "/metrics")).body.decode().splitlines()
    kept = ("turnout_decisions_total{", "turnout_decision_seconds_count")
    return sorted(line for line in told if line.startswith(kept))


def test_decisions_are_counted_found_and_known_as_the_whole_path_does_it(
    pair: Callable[..., tuple[Side, Side]], models: dict[str, Model]
) -> None:
    sides = pair("canary")
    own = [f"own-{number}" for number in range(3)] + [identity.decision_id(AT, 77)]
    own.append(identity.decision_id(AT, identity.fingerprint("orders", "/shop", f"e{20 + len(own)}")))
    told = []
    for side in sides:
        bodies = [msgspec.json.encode(request(number)) for number in range(1, 12)]
        bodies += [msgspec.json.encode(request(20 + n) | {"decision_id": name}) for n, name in enumerate(own)]
        bodies.append(msgspec.json.encode([request(number) for number in range(30, 39)]))
        heard = [side.ask(body) for body in bodies]
        side.shim.releases.view = ReleaseView(generation=4, streams={"orders": VIEWS["on"](models)})
        heard += [side.ask(msgspec.json.encode(request(number))) for number in (40, 41)]
        ids = [decision.decision_id for _, _, logged in heard for decision in logged]
        assert len(set(ids)) == len(ids) >= 20
        assert len(set(own) & set(ids)) >= 4
        assert [getattr(side.shim.decision(each), "decision_id", None) for each in ids] == ids
        assert all(side.ask(body)[2] == [] for body in bodies), "none is decided again"
        told.append(([answers for _, answers, _ in heard], count(side), len(side.shim.memory)))
    assert told[0] == told[1]
    assert any(line.startswith("turnout_decision_seconds_count 2") for line in told[0][1])


@pytest.mark.parametrize("bounds", ["", ", budget = 0.02, min_propensity = 0.0001"])
def test_squarecb_adds_as_numpy_does_for_any_number_of_candidates(tmp_path: Path, bounds: str) -> None:
    """Past eight, the order in which a distribution is added shows in its last bits."""
    names = [f"d{number}" for number in range(120)]
    text = "".join(f"[destinations.{name}]\n" for name in names)
    text += f"""
[streams.orders]
types = ["shop.order"]
destinations = {json.dumps(names)}
objective = {{ success = 1.0 }}
exploration = {{ kind = "squarecb", epsilon = 0.01, gamma = 20.0{bounds} }}
features = {{ numbers = {{ amount = "event.amount", promise = "candidate.promise" }}, categories = {{ name = "destination.name" }} }}
"""
    plan = Plan.of(config.parse(text))
    folder = tmp_path / "router"
    folder.mkdir()
    random = np.random.default_rng(0)
    matrix = np.column_stack((random.normal(size=(500, 2)), random.integers(0, 120, 500)))
    data = lightgbm.Dataset(matrix, matrix[:, 1] + random.normal(size=500), categorical_feature=[2])
    lightgbm.train({"verbosity": -1, "num_threads": 1}, data, 10).save_model(folder / "success_probability_0.txt")
    card = Card(
        stream="orders",
        feature_set=plan.streams["orders"].features.version,
        numbers=("amount", "promise"),
        categories={"name": tuple(names)},
        heads={"success_probability": Head(files=("success_probability_0.txt",), low=0.0, high=1.0)},
        objective=plan.streams["orders"].stream.objective,
        destinations=tuple(names),
        value_low=0.0,
        value_high=1.0,
        trained={},
    )
    (folder / CARD_FILE).write_bytes(msgspec.json.encode(card))
    compiling.compile_router(folder, card)
    view = StreamView(mode="on", generation=1, champion=Model("m", router.load(folder)))
    fast, whole = (side(tmp_path / str(is_fast), plan, view, is_fast=is_fast) for is_fast in (True, False))
    for number in range(1, 121):
        event = {
            "specversion": "1.0",
            "id": f"e{number}",
            "source": "/",
            "type": "shop.order",
            "data": {"amount": number},
        }
        offered = [
            {"destination": name, "attributes": {"promise": place / 7}} for place, name in enumerate(names[:number])
        ]
        body = msgspec.json.encode({"event": event, "candidates": offered})
        assert takes(fast.shim, body)
        assert fast.ask(body) == whole.ask(body)


def without(document: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """Return the document with what lies at ``path[:-1]`` and is named last taken away."""
    return changed(document, *path, remove=True)


def changed(document: dict[str, Any], *path: Any, remove: bool = False) -> dict[str, Any]:
    """Return a copy whose place at the path (the last is the value, unless it is to be removed) is another."""
    copy = json.loads(json.dumps(document))
    steps, value = (path, None) if remove else (path[:-1], path[-1])
    place = copy
    for step in steps[:-1]:
        place = place[step]
    if remove:
        del place[steps[-1]]
    else:
        place[steps[-1]] = value
    return dict(copy)


ORDINARY = request(1)
NOT_ORDINARY = {
    "no id": without(ORDINARY, "event", "id"),
    "an empty id": changed(ORDINARY, "event", "id", ""),
    "a long source": changed(ORDINARY, "event", "source", "s" * 513),
    "an escape": changed(ORDINARY, "event", "id", 'a"b'),
    "another version": changed(ORDINARY, "event", "specversion", "0.3"),
    "no version": without(ORDINARY, "event", "specversion"),
    "a type of no stream": changed(ORDINARY, "event", "type", "shop.unknown"),
    "a number for a key": changed(ORDINARY, "event", "partitionkey", 7),
    "a time without zone": changed(ORDINARY, "event", "time", "2026-11-24T12:00:00"),
    "a list for a classification": changed(ORDINARY, "event", "dataclassification", ["secret"]),
    "no data but null": changed(ORDINARY, "event", "data", None),
    "text for a number": changed(ORDINARY, "event", "data", "amount", "much"),
    "a number for a text": changed(ORDINARY, "event", "data", "note", 7),
    "a list for a text": changed(ORDINARY, "event", "data", "note", []),
    "a fraction for a category": changed(ORDINARY, "event", "data", "country", 1.5),
    "a number for the static route": changed(ORDINARY, "event", "data", "size", 3),
    "an unknown field": changed(ORDINARY, "more", 1),
    "no event": without(ORDINARY, "event"),
    "an empty decision id": changed(ORDINARY, "decision_id", ""),
    "no candidates": changed(ORDINARY, "candidates", []),
    "a candidate twice": changed(ORDINARY, "candidates", 1, "destination", "north"),
    "a candidate from nowhere": changed(ORDINARY, "candidates", 1, "destination", "nowhere"),
    "a candidate without name": without(ORDINARY, "candidates", 1, "destination"),
    "attributes that hold a list": changed(ORDINARY, "candidates", 1, "attributes", {"x": [1]}),
    "attributes that are null": changed(ORDINARY, "candidates", 1, "attributes", None),
    "an error rate above one": changed(ORDINARY, "candidates", 1, "state", "error_rate", 1.5),
    "a depth that is true": changed(ORDINARY, "candidates", 1, "state", "queue_depth", True),
    "health that is a number": changed(ORDINARY, "candidates", 1, "state", "healthy", 1),
    "a measure that is text": changed(ORDINARY, "candidates", 1, "state", "measures", {"heat": "hot"}),
    "a state that is a list": changed(ORDINARY, "candidates", 1, "state", []),
    "a day that there is not": changed(ORDINARY, "candidates", 1, "state", "observed_at", "2026-11-31T00:00:00Z"),
    "nobody healthy": changed(ORDINARY, "candidates", [{"destination": "north", "state": {"healthy": False}}]),
}


@pytest.mark.parametrize("name", NOT_ORDINARY)
def test_what_is_wrong_or_odd_in_one_place_is_left_to_the_whole_path(
    name: str, pair: Callable[..., tuple[Side, Side]]
) -> None:
    fast, whole = pair("on")
    for document, is_taken in ((ORDINARY, True), (NOT_ORDINARY[name], False)):
        body = msgspec.json.encode(document)
        assert (takes(fast.shim, body)) == is_taken
        assert fast.ask(body) == whole.ask(body)


ESCAPES = {
    "in the text": ('"why not"', r'"\"why\" \\ \/ \b\f\n\r\t \u00e9\uE000"', True),
    "in what is not read": ('"nested"', r'"more":"a\nb","nested"', True),
    "in a category": ('"country":"NO"', r'"country":"N\u004f"', False),
    "in a key": ('"note"', r'"n\u006fte"', False),
    "in a version": ('"1.0"', r'"1\u002e0"', False),
    "in a destination": ('"north"', r'"n\u006frth"', False),
    "of no kind": ('"nested"', r'"more":"\x41","nested"', False),
    "cut short": ('"nested"', r'"more":"\u00e","nested"', False),
    "at the end": ('"why not"', '"\\', False),
    "of a pair": ('"why not"', r'"\uD83D\uDE00"', False),
    "of half a pair": ('"nested"', r'"more":"\udc00","nested"', False),
    "of a zero": ('"nested"', '"more":"\\\0","nested"', False),
}


@pytest.mark.parametrize("name", ESCAPES)
def test_an_escape_is_carried_where_it_is_not_read_and_left_to_the_whole_path_elsewhere(
    name: str, pair: Callable[..., tuple[Side, Side]]
) -> None:
    fast, whole = pair("on")
    plain, escaped, is_taken = ESCAPES[name]
    body = msgspec.json.encode(request(4))
    assert plain.encode() in body
    body = body.replace(plain.encode(), escaped.encode(), 1)
    assert takes(fast.shim, body) == is_taken
    assert fast.ask(body) == whole.ask(body)


def test_a_classifier_is_asked_once_for_all_candidates_and_one_that_fails_is_told_of(
    pair: Callable[..., tuple[Side, Side]], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, whole = pair("canary")
    read, asked = Reader.read, []
    monkeypatch.setattr(Reader, "read", lambda self, event: asked.append(event.text) or read(self, event))
    body = msgspec.json.encode(request(4))
    told = fast.ask(body)
    assert asked == ["why not"]
    assert told == whole.ask(body)
    assert told[2][0].content == READ.digest
    boom = msgspec.json.encode(changed(request(8), "event", "data", "note", "boom"))
    assert not takes(fast.shim, boom)
    told = fast.ask(boom)
    assert told == whole.ask(boom)
    assert told[2][0].content is None
    faults = [side_.shim.releases.faults for side_ in (fast, whole)]  # type: ignore[attr-defined]  # a Releases
    assert faults[0] == faults[1] == ["cccccccc: classifier raised ArithmeticError: boom"]


def test_a_router_that_learned_from_another_classifier_is_left_to_the_whole_path(
    tmp_path: Path, models: dict[str, Model]
) -> None:
    other = replace(models["b"], classifier=Classifier("d" * 8, Reader()))
    for pinned, is_ordinary in ((models["b"], True), (other, False), (replace(other, classifier=None), False)):
        view = StreamView(mode="on", generation=1, champion=models["a"], shadow=pinned, classifier=READ)
        at = tmp_path / str(pinned.classifier)
        fast, whole = (side(at / str(is_fast), plan_of("none"), view, is_fast=is_fast) for is_fast in (True, False))
        body = msgspec.json.encode(request(4))
        assert takes(fast.shim, body) == is_ordinary
        assert fast.ask(body) == whole.ask(body)


def test_a_batch_is_taken_whole_or_not_at_all(pair: Callable[..., tuple[Side, Side]]) -> None:
    fast, whole = pair("on")
    ordinary = [request(number) for number in range(1, 5)]
    for batch in (
        ordinary,
        [*ordinary, request(9) | {"event": request(9)["event"] | {"type": "unknown"}}],
        ordinary * 2,
        [],
    ):
        body = msgspec.json.encode(batch)
        assert fast.ask(body) == whole.ask(body)


def test_a_request_of_too_many_parts_is_left_to_the_whole_path_and_the_next_is_taken(
    pair: Callable[..., tuple[Side, Side]],
) -> None:
    fast, whole = pair("on")
    asked = request(1)
    asked["event"]["data"]["nested"] = [1] * 300_000
    body, ordinary = msgspec.json.encode(asked), msgspec.json.encode(request(2))
    assert not takes(fast.shim, body)
    assert fast.ask(body) == whole.ask(body)
    many = msgspec.json.encode([request(number) for number in range(3, 900) if number % 5 and number % 3])
    assert takes(fast.shim, many)
    assert takes(fast.shim, ordinary)


@pytest.mark.parametrize(
    ("odd", "is_ordinary"),
    [(b"\x01", False), (b"\x1f", False), (b"\xff", False), ("å".encode(), True), (b'\\"', True), (b"\x7f", True)],
)
def test_what_is_odd_in_a_text_is_seen_wherever_it_stands(
    pair: Callable[..., tuple[Side, Side]], odd: bytes, *, is_ordinary: bool
) -> None:
    fast, whole = pair("on")
    for n_before in range(18):
        asked = request(1)
        asked["event"]["id"] = f"{odd.hex()}-{n_before}"
        asked["event"]["data"]["nested"] = "@"
        text = b"x" * n_before + odd + b" y" * (n_before % 7)
        body = msgspec.json.encode(asked).replace(b"@", text)
        assert takes(fast.shim, body) == is_ordinary
        assert fast.ask(body) == whole.ask(body)


@pytest.mark.parametrize(
    "keys",
    [
        [f"e{number}" for number in range(120)],
        [f"{number:b}" for number in range(120)],
        ["x" * n for n in range(1, 121)],
        [f"{'ab' * 10}{'ab' * n}"[-40:] + chr(97 + n % 26) * (n // 26) for n in range(100)],
    ],
)
def test_keys_that_look_alike_are_not_taken_for_one_that_stands_twice(
    pair: Callable[..., tuple[Side, Side]], keys: list[str]
) -> None:
    fast, _ = pair("on")
    asked = request(1)
    asked["event"]["data"]["nested"] = dict.fromkeys(keys, 1)
    assert takes(fast.shim, msgspec.json.encode(asked))


def test_events_alone_are_asked_for_all_destinations(pair: Callable[..., tuple[Side, Side]]) -> None:
    fast, whole = pair("canary")
    one = msgspec.json.encode(request(1)["event"])
    many = msgspec.json.encode([request(number)["event"] for number in (2, 5, 7)])
    for body in (one, many):
        assert takes(fast.shim, body, is_bare=True)
        assert fast.ask(body, BARE) == whole.ask(body, BARE)


def test_an_event_that_comes_again_keeps_its_decision(pair: Callable[..., tuple[Side, Side]]) -> None:
    fast, whole = pair("on")
    body = msgspec.json.encode(request(1))
    for side_ in (fast, whole):
        side_.ask(body)
    (_, (again,), logged), expected = fast.ask(body), whole.ask(body)
    assert again.repeated
    assert (200, [again], logged) == expected == (200, [again], [])


def test_a_model_that_raises_is_told_of_and_stood_in_for(tmp_path: Path, models: dict[str, Model]) -> None:
    class Broken(router.Router):
        def score_matrix(self, _: Any) -> Any:
            raise RuntimeError("no")

    loaded = models["full"].router
    assert isinstance(loaded, router.Router)
    view = StreamView(mode="on", generation=1, champion=Model("broken", Broken(loaded.card, loaded.boosters)))
    fast, whole = (
        side(tmp_path / str(is_fast), plan_of("epsilon"), view, is_fast=is_fast) for is_fast in (True, False)
    )
    body = msgspec.json.encode(request(1))
    told = fast.ask(body)
    assert told == whole.ask(body)
    assert "fallback" in told[1][0].reason
    assert fast.shim.releases.faults == whole.shim.releases.faults != []  # type: ignore[attr-defined]


def test_a_model_that_leads_back_into_the_shim_changes_nothing_of_what_is_under_way(
    tmp_path: Path, models: dict[str, Model]
) -> None:
    """The question asked meanwhile is another, at another time, and larger."""
    inner = msgspec.json.encode([request(number) for number in (31, 32)])

    class Curious(router.Router):
        side: Side | None = None

        def score_matrix(self, matrix: Any) -> router.Scores:
            asker, self.side = self.side, None  # once
            if asker is not None:
                assert not takes(asker.shim, inner, AT + timedelta(hours=5)), "the desk is taken"
            return super().score_matrix(matrix)

    loaded = models["full"].router
    assert isinstance(loaded, router.Router)
    curious = Curious(loaded.card, loaded.boosters)
    view = StreamView(mode="on", generation=1, champion=Model("curious", curious))
    fast, whole = (side(tmp_path / str(fast), plan_of("epsilon"), view, is_fast=fast) for fast in (True, False))
    for number in (1, 2, 5):
        curious.side = fast
        body = msgspec.json.encode([request(number), request(number + 40)])
        told = fast.ask(body)
        assert curious.side is None
        assert told == whole.ask(body)


def test_what_is_decided_while_a_model_is_asked_is_owed_as_well(tmp_path: Path, models: dict[str, Model]) -> None:
    inner, outer = (msgspec.json.encode([request(number) for number in numbers]) for numbers in ((31,), (1, 2)))

    class Curious(router.Router):
        side: Side | None = None

        def score_matrix(self, matrix: Any) -> router.Scores:
            asker, self.side = self.side, None  # once
            if asker is not None:
                asker.ask(inner)
            return super().score_matrix(matrix)

    loaded = models["full"].router
    assert isinstance(loaded, router.Router)
    curious = Curious(loaded.card, loaded.boosters)
    model = priced(Model("curious", curious), SHARE, FEES, temperature=0.4)
    view = StreamView(mode="on", generation=1, champion=model)

    def owes(name: str, body: bytes, *, is_asked_meanwhile: bool = False) -> Any:
        asked = side(tmp_path / name, plan_of("epsilon"), view, is_fast=True)
        curious.side = asked if is_asked_meanwhile else None
        asked.ask(body)
        assert curious.side is None
        return asked.shim.debts.of("orders")["curious"]

    assert takes(side(tmp_path / "fast", plan_of("epsilon"), view, is_fast=True).shim, outer)
    both = owes("both", outer, is_asked_meanwhile=True)
    assert_allclose(both, owes("inner", inner) + owes("outer", outer), atol=1e-12)


def test_replies_are_those_to_each_of_what_was_sent_also_where_a_model_leads_back(
    tmp_path: Path, models: dict[str, Model]
) -> None:
    class Curious(router.Router):
        ask: Callable[[], None]
        n_asked = 0

        def score_matrix(self, matrix: Any) -> router.Scores:
            self.n_asked += 1
            if self.n_asked == 2:
                self.ask()
            return super().score_matrix(matrix)

    loaded = models["full"].router
    assert isinstance(loaded, router.Router)
    curious = Curious(loaded.card, loaded.boosters)
    view = StreamView(mode="on", generation=1, champion=Model("curious", curious))
    shim = side(tmp_path, plan_of("epsilon"), view, is_fast=True).shim
    heads: dict[bytes, int] = {}

    def send(number: int, *, odd: bool = False) -> bytes:
        body = msgspec.json.encode(request(number))
        head = b"POST /%s%d HTTP/1.1\r\n\r\n" % (b"odd" if odd else b"", len(body))
        if not odd:
            heads[head] = len(body) << 1
        return head + body

    def reply(sent: list[bytes]) -> Any:
        lines = held.none_yet()
        lines.settle(0, 1 << 30)
        view = shim.releases.view
        return shim.fast_path.reply(view, sent, heads, b"length: ", memory=of_capacity(100), held=lines)

    def choices(replies: bytes) -> list[tuple[list[str], float]]:
        told = []
        while replies:
            size, _, left = replies.removeprefix(b"length: ").partition(b"\r\n\r\n")
            document, replies = msgspec.json.decode(left[: int(size)]), left[int(size) :]
            told.append((document["destinations"], document["propensity"]))
        return told

    sent = [send(1) + send(2), send(3, odd=True), send(4) + send(5, odd=True) + send(6), send(7)[:-1], b""]
    inner = [send(31) + send(32)]
    seen: list[Any] = []
    curious.ask = lambda: seen.append(reply(inner))
    told = reply(sent)
    assert seen == [[None]], "the desk is taken"
    assert [each and each[1] for each in told] == [len(sent[0]), None, len(send(4)), None, None]
    alone = {number: choices(reply([send(number)])[0][0]) for number in (1, 2, 4)}
    assert choices(told[0][0]) == alone[1] + alone[2]
    assert choices(told[2][0]) == alone[4]


def test_a_new_release_is_followed(pair: Callable[..., tuple[Side, Side]], models: dict[str, Model]) -> None:
    fast, whole = pair("on")
    for side_ in (fast, whole):
        side_.ask(msgspec.json.encode(request(1)))
        view = ReleaseView(generation=4, streams={"orders": VIEWS["canary"](models)})
        side_.shim.releases.view = view  # type: ignore[misc]
    body = msgspec.json.encode(request(2))
    told = fast.ask(body)
    assert told == whole.ask(body)
    assert told[1][0].mode == "canary"


names = st.sampled_from([*NAMES, "nowhere", "", "x" * 513]) | st.text(max_size=4)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["big", "post", "7", "Ø"])
    | st.text(max_size=5)
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
data = st.dictionaries(
    st.sampled_from(["amount", "items", "country", "size", "note", "more"]) | st.text(max_size=3), anything, max_size=6
)
instants = st.sampled_from(["2026-11-24T12:00:00Z", "2026-11-24T12:00:00.123456Z"]) | st.sampled_from(
    [
        "2026-11-24T13:00:00+01:00",
        "2026-02-30T12:00:00Z",
        "2026-11-24 12:00:00Z",
        "2026-11-24T24:00:00Z",
        "now",
        "2026-11-24T12:00:00",
        "0001-01-01T00:00:00Z",
    ]
)
states = st.dictionaries(
    st.sampled_from(["queue_depth", "error_rate", "price_usd", "healthy", "observed_at", "measures", "odd"]),
    scalars | instants | st.dictionaries(st.sampled_from(["heat", "x"]), scalars, max_size=2),
    max_size=4,
)
sound_states = st.fixed_dictionaries(
    {},
    optional={
        "queue_depth": st.none() | st.floats(-9, 9),
        "error_rate": st.floats(0, 1),
        "healthy": st.booleans(),
        "observed_at": st.sampled_from(["2026-11-24T12:00:00Z", "2026-11-24T12:00:00.123456Z"]),
        "measures": st.dictionaries(st.sampled_from(["heat", "x"]), st.none() | st.floats(-9, 9), max_size=2),
    },
)
candidates = st.fixed_dictionaries(
    {"destination": names},
    optional={
        "attributes": st.dictionaries(st.sampled_from(["promise", "carrier", "y"]), scalars, max_size=3),
        "state": st.none() | sound_states | states,
        "unknown": anything,
    },
)
events = st.fixed_dictionaries(
    {
        "specversion": st.sampled_from(["1.0", "1.0", "1.0", "0.3"]),
        "id": st.text(max_size=6),
        "source": st.sampled_from(["/shop", "søk"]) | st.text(max_size=3),
        "type": st.sampled_from(["shop.order", "shop.return", "shop.order", "shop.other", "else"]),
    },
    optional={
        "time": st.none() | instants,
        "partitionkey": st.none() | st.text(max_size=3),
        "dataclassification": st.none()
        | st.sampled_from(["personal", "secret, public", " ,", "public"])
        | st.text(max_size=3),
        "data": st.none() | data,
        "extension": scalars,
    },
)
requests = st.fixed_dictionaries(
    {"event": events},
    optional={
        "candidates": st.none() | st.lists(candidates, max_size=4),
        "decision_id": st.none() | st.text(max_size=4),
        "more": anything,
    },
)
# Mostly ordinary, so that the fast path is really walked; beside them what is wrong in one place or in many.
plain = st.text(
    st.characters(codec="utf-8", exclude_characters='"\\', exclude_categories=("Cc", "Cs")), min_size=1, max_size=8
)
sound_scalars = (
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e300, 1e300, allow_subnormal=False)
)
sound_requests = st.fixed_dictionaries(
    {
        "event": st.fixed_dictionaries(
            {
                "specversion": st.just("1.0"),
                "id": plain,
                "source": plain,
                "type": st.sampled_from(["shop.order", "shop.return"]),
            },
            optional={
                "time": st.sampled_from(
                    ["2026-11-24T12:00:00Z", "2024-02-29T23:59:59.123456Z", "1969-12-31T00:00:00.5Z"]
                ),
                "partitionkey": plain,
                "dataclassification": st.sampled_from(["personal", "secret, public", " ,", "public"]) | plain,
                "data": st.fixed_dictionaries(
                    {},
                    optional={
                        "amount": sound_scalars,
                        "items": sound_scalars,
                        "country": st.sampled_from(["NO", "SE", True, 7, -7, None]) | plain,
                        "size": st.none() | st.sampled_from(["big", "None", "True"]) | plain,
                        "note": st.none() | plain | st.text() | st.just("boom"),
                        "more": anything | st.text(),
                    },
                ),
            },
        )
    },
    optional={
        "candidates": st.lists(
            st.fixed_dictionaries(
                {"destination": st.sampled_from(NAMES[:4])},
                optional={
                    "attributes": st.fixed_dictionaries(
                        {},
                        optional={
                            "promise": sound_scalars,
                            "carrier": st.none() | st.sampled_from([True, 7, "post"]) | plain,
                        },
                    ),
                    "state": st.none() | sound_states,
                },
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda candidate: candidate["destination"],
        ),
        "decision_id": st.none() | plain,
    },
)
asked = sound_requests | sound_requests | sound_requests | requests
writers: list[Callable[[Any], bytes]] = [
    msgspec.json.encode,
    lambda document: json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass"),
    lambda document: json.dumps(document, indent=1).encode(),
    lambda document: msgspec.json.encode(document).replace(
        b'"destination":', b'"destination":"north","destination":', 1
    ),
    lambda document: msgspec.json.encode(document)[:-1],
    lambda document: msgspec.json.encode(document) + b"]",
    lambda document: msgspec.json.encode(document).replace(b"true", b"tru", 1),
    lambda document: msgspec.json.encode(document).replace(b"0.", b"00.", 1).replace(b"1", b"1e400", 1),
]


@settings(max_examples=500)
@given(
    document=asked | st.lists(asked, max_size=3),
    write=st.sampled_from(writers[:2]) | st.sampled_from(writers),
    view=st.sampled_from(list(VIEWS)),
    headers=st.sampled_from([JSON, BARE]),
)
def test_whatever_is_asked_both_paths_say_the_same(
    sides: Callable[[str], tuple[Side, Side]],
    document: Any,
    write: Callable[[Any], bytes],
    view: str,
    headers: dict[str, str],
) -> None:
    fast, whole = sides(view)
    if headers is BARE:
        document = [each["event"] for each in document] if isinstance(document, list) else document["event"]
    body = write(document)
    for each in (fast, whole):  # no example is to depend on another
        each.shim.memory = of_capacity(1_000)
    assert fast.ask(body, headers) == whole.ask(body, headers)
    assert owed(fast) == owed(whole)


@pytest.fixture(scope="module")
def sides(
    tmp_path_factory: pytest.TempPathFactory, models: dict[str, Model]
) -> Callable[[str], tuple[Side, Side]]:  # a function, of which little is to be printed
    folder, plan = tmp_path_factory.mktemp("sides"), plan_of("squarecb")
    made = {
        name: (
            side(folder / f"{name}-fast", plan, view(models), is_fast=True),
            side(folder / f"{name}-whole", plan, view(models), is_fast=False),
        )
        for name, view in VIEWS.items()
    }
    for each in (side_ for of_view in made.values() for side_ in of_view):
        for number in (2, 5, 7):
            tell(each, number)
    return made.__getitem__


def test_what_is_not_ordinary_has_no_course(tmp_path: Path) -> None:
    text, other = "attributes = { fee = 1, fast = true }", 'attributes = { fee = "one" }'
    assert text in TEXT
    plan = Plan.of(config.parse(text_of("epsilon").replace(text, other)))
    shim = side(tmp_path, plan, StreamView(mode="off"), is_fast=True).shim
    assert not takes(shim, msgspec.json.encode(request(1)))
    assert "orders" not in shim.fast_path.streams


def test_a_stream_of_which_no_course_can_be_made_is_decided_by_the_whole_path(tmp_path: Path) -> None:
    """An attribute beyond a double is an error of the request's, told each time, and nothing breaks on the way to it."""
    text = text_of("epsilon").replace("fee = 0.3", f"fee = {10**400}")
    plan = Plan.of(config.parse(text))
    fast, whole = (
        side(tmp_path / str(is_fast), plan, StreamView(mode="off"), is_fast=is_fast) for is_fast in (True, False)
    )
    body = msgspec.json.encode(request(1))
    for _ in range(2):
        told = fast.ask(body)
        assert told[0] == 422
        assert told == whole.ask(body)
    assert fast.shim.fast_path.streams == {"other"}


def test_an_expression_that_reads_nothing_is_ordinary(tmp_path: Path) -> None:
    text = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
objective = { success = 1.0 }
features = { numbers = { three = "1 + 2", amount = "event.amount" } }
[destinations]
a = {}
b = {}
"""
    shim = side(tmp_path, Plan.of(config.parse(text)), StreamView(mode="off"), is_fast=True)
    event = {"specversion": "1.0", "id": "1", "source": "/", "type": "shop.order", "data": {"amount": 7}}
    body = msgspec.json.encode({"event": event})
    assert takes(shim.shim, body)
    assert shim.ask(body)[2][0].numbers == ((3.0, 7.0), (3.0, 7.0))
