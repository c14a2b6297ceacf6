"""What is logged is what was drawn from: over masks, canary shares, exploration, budgets and limits, with debts or without."""

import functools
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import config
from features.limits import LimitDefinition
from features.records import Candidate, Decision, Event
from models import policy, tariff
from models.router import Scores
from models.tariff import PricedLimit, PriceList, Tariff
from serving import decider
from serving.case import Question
from serving.plan import Plan, StreamPlan
from serving.view import Model, StreamView

Floats = NDArray[np.float64]

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b", "c", "d"]
static = {{ default = ["a"] }}
objective = {{ success = 1.0 }}
exploration = {{ {exploration} }}
features = {{ numbers = {{ usd = "candidate.usd" }} }}

[destinations]
a = {{ region = "eu" }}
b = {{ region = "eu" }}
c = {{ region = "us" }}
d = {{ region = "us" }}

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["eu"]

[[rules]]
name = "contract"
label = "secret"
allow = ["b", "c", "d"]
"""
LIMITS = (
    LimitDefinition(resource="usd", per_event=0.3, price="usd"),
    LimitDefinition(destination="b", share=0.2),
)
USD = {"a": 1.0, "b": 0.5, "c": 0.25, "d": None}
N_DRAWS = 200

VALUES = st.lists(st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.5, 1.0]), min_size=4, max_size=4)
EXPLORATIONS = st.sampled_from(
    [
        'kind = "none"',
        "epsilon = 0.3",
        "epsilon = 0.3, budget = 0.0",
        "epsilon = 0.3, budget = 0.02",
        "epsilon = 0.3, budget_share = 0.1, min_propensity = 0.05",
        'kind = "squarecb", gamma = 5.0, epsilon = 0.1',
        'kind = "squarecb", gamma = 5.0, epsilon = 0.0, budget = 0.05',
        'kind = "squarecb", gamma = 2.0, min_propensity = 0.1, budget = 0.04',
    ]
)
PRICES = st.none() | st.tuples(
    st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.5]), st.sampled_from([1e-3, 0.2])
)


class FixedRouter:
    """Says the same values of the same candidates."""

    def __init__(self, values: Sequence[float], feature_set: str) -> None:
        self.feature_set = feature_set
        self._values = np.array(values)

    def score(self, numbers: Floats, categories: Sequence[Sequence[str | None]]) -> Scores:
        assert len(numbers) == len(categories)
        return Scores(self._values, {})


@functools.cache
def plan(exploration: str) -> StreamPlan:
    return Plan.of(config.parse(CONFIGURATION.format(exploration=exploration))).streams["orders"]


def model(digest: str, values: Sequence[float], prices: tuple[float, float, float] | None, of: StreamPlan) -> Model:
    router = FixedRouter(values, of.features.version)
    if prices is None:
        return Model(digest, router)
    priced = (
        PricedLimit(limit=limit, price=price, step=0.1, most=1.0) for limit, price in zip(LIMITS, prices, strict=False)
    )
    return Model(
        digest, router, tariff=Tariff(PriceList(limits=tuple(priced), temperature=prices[2], fitted={}), ("usd",))
    )


def draw(
    of: StreamPlan, view: StreamView, labels: tuple[str, ...], debts: dict[str, Floats], number: int
) -> decider.Decided:
    candidates = tuple(
        Candidate(destination=name, attributes={} if usd is None else {"usd": usd}) for name, usd in USD.items()
    )
    event = Event(id=f"e{number}", source="/shop", type="shop.order", stream="orders", labels=labels)
    question = Question(event=event, candidates=candidates)
    return decider.decide(question, of, view, None, at=AT, decision_id="d", revision="r", debts=debts)


def chi_square(counts: Counter[str], decision: Decision) -> tuple[float, int]:
    """Return the statistic and its degrees of freedom; candidates that are hardly ever expected are taken together."""
    observed = [counts[name] for name in decision.destinations]
    rare = [place for place, share in enumerate(decision.mixture) if share * N_DRAWS < 5.0]
    cells = [(observed[place], share * N_DRAWS) for place, share in enumerate(decision.mixture) if place not in rare]
    left = (float(sum(observed[place] for place in rare)), sum(decision.mixture[place] for place in rare) * N_DRAWS)
    if left[1] >= 5.0:
        cells.append((int(left[0]), left[1]))
    else:
        assert left[0] <= left[1] + 8.0 * math.sqrt(left[1]) + 1.0
    return sum((seen - expected) ** 2 / expected for seen, expected in cells), max(len(cells) - 1, 0)


def recomputed(decision: Decision, of: StreamPlan, role: str, held: Model, debt: Floats | None) -> Floats:
    """Return the distribution from what was logged: numbers, predictions and the debt of the moment, in the log's form."""
    eligible = np.array([name not in decision.excluded for name in decision.destinations])
    values = np.array(decision.predictions[role]["value"])[eligible]
    offsets, exploration = np.array([0, eligible.sum()]), of.stream.exploration
    full = np.zeros(len(eligible))
    if held.tariff is None:
        full[eligible] = policy.explore_log(values, offsets, exploration, 1.0)
        return full
    numbers = np.array(decision.numbers, dtype=np.float64)
    use = held.tariff.meter.event(decision.destinations, numbers, {})[:, eligible]
    full[eligible] = tariff.distribution_log(values, use, offsets, held.tariff.paced(debt), exploration, 1.0)
    return full


@settings(max_examples=40, derandomize=True, phases=[Phase.explicit, Phase.generate])  # a shrunk case says no more
@given(
    champion=st.none() | st.tuples(VALUES, PRICES),
    challenger=st.none() | st.tuples(VALUES, PRICES),
    share=st.sampled_from([0.0, 0.01, 0.3, 0.5, 1.0]),
    exploration=EXPLORATIONS,
    labels=st.lists(st.sampled_from(["personal", "secret"]), max_size=2).map(tuple),
    owed=st.tuples(st.floats(-200.0, 200.0), st.floats(-200.0, 200.0)),
)
def test_the_logged_mixture_is_what_the_assignments_come_from(
    champion: tuple[list[float], tuple[float, float, float] | None] | None,
    challenger: tuple[list[float], tuple[float, float, float] | None] | None,
    share: float,
    exploration: str,
    labels: tuple[str, ...],
    owed: tuple[float, float],
) -> None:
    of = plan(exploration)
    models = {
        role: None if made is None else model(role, *made, of)
        for role, made in (("champion", champion), ("challenger", challenger))
    }
    view = StreamView(
        mode="canary", champion=models["champion"], challenger=models["challenger"], challenger_share=share
    )
    debts = {"champion": np.array(owed), "challenger": -np.array(owed)}
    drawn = [draw(of, view, labels, debts, number) for number in range(N_DRAWS)]
    first = drawn[0].decision
    assert {each.decision.mixture for each in drawn} == {first.mixture}
    for each in drawn:
        index = each.decision.destinations.index(each.decision.assigned)
        assert each.decision.propensity == first.mixture[index] > 0.0
    statistic, freedom = chi_square(Counter(each.decision.assigned for each in drawn), first)
    assert statistic <= freedom + 6.0 * math.sqrt(2.0 * freedom) + 12.0, (first.mixture, statistic)
    for role, held in models.items():
        if held is not None:
            again = recomputed(first, of, role, held, debts[role])
            assert first.policies[role] == pytest.approx(tuple(again), abs=0.0 if held.tariff else 1e-14)
    led = np.array(first.policies["champion" if champion else "static"])
    expected = led if challenger is None else (1.0 - share) * led + share * np.array(first.policies["challenger"])
    assert first.mixture == pytest.approx(tuple(expected), abs=1e-15)


def test_each_arm_is_charged_for_what_it_decided_and_the_static_routes_for_nothing() -> None:
    of = plan('kind = "none"')
    view = StreamView(
        mode="canary",
        champion=model("old", [0.0, 0.0, 9.0, 0.0], (0.5, 0.5, 1e-3), of),
        challenger=model("new", [9.0, 0.0, 0.0, 0.0], (0.5, 0.5, 1e-3), of),
        challenger_share=0.5,
    )
    debts: dict[str, Floats] = {}
    for number in range(40):
        decided = draw(of, view, (), debts, number)
        assert decided.debt is not None
        debts |= [decided.debt]
    n_new = sum(draw(of, view, (), debts, number).decision.arm == "challenger" for number in range(40))
    assert debts["new"] == pytest.approx([n_new * (1.0 - 0.3), n_new * -0.2])
    assert debts["old"] == pytest.approx([(40 - n_new) * (0.25 - 0.3), (40 - n_new) * -0.2])
    assert draw(of, StreamView(mode="off"), (), debts, 0).debt is None
    observed = StreamView(mode="observe", champion=view.champion)
    assert draw(of, observed, (), debts, 0).debt is None


def test_the_log_says_what_was_not_explored_and_what_limits_decided() -> None:
    frugal = plan("epsilon = 0.3, budget = 0.0")
    view = StreamView(mode="on", champion=model("c", [0.1, 0.2, 0.9, 0.3], None, frugal))
    decision = draw(frugal, view, (), {}, 0).decision
    assert (decision.propensity, decision.reason) == (1.0, "champion: highest expected value, not explored")
    assert decision.mixture == (0.0, 0.0, 1.0, 0.0)
    tied = plan('kind = "none"')
    view = StreamView(mode="on", champion=model("c", [0.85, 0.0, 0.1, 0.0], (1.0, 0.0, 1e-3), tied))
    reasons = {draw(tied, view, (), {}, number).decision.reason for number in range(40)}
    assert (
        reasons
        == {
            "champion: highest expected value within the limits",
            "champion: explored, or drawn between equals within the limits",
        }
        or len(reasons) == 1
    )
    logged = draw(tied, view, (), {}, 0).decision.predictions["champion"]
    assert logged["net_value"] == pytest.approx((-0.15, -0.5, -0.15, -1.0))
    assert list(itertools.chain(logged)) == ["value", "net_value"]
