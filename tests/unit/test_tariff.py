"""Prices beside a router: metered alike for one event and a log, and refused by name where they do not fit."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features.choices import Exploration
from features.limits import LimitDefinition
from features.objective import Objective
from features.vector import CategoryColumn
from models import budget, tariff
from models.budget import Limit, Prices
from models.card import Card, ContractMismatchError, Head
from models.meter import Meter
from models.policy import NothingEligibleError, PolicyError
from models.tariff import PricedLimit, PriceList, Tariff

Floats = NDArray[np.float64]

USD = LimitDefinition(resource="usd", per_event=0.3, price="price_usd", pace_events=50)
SHARE = LimitDefinition(destination="b", share=0.2)
COST = LimitDefinition(resource="cost_usd", per_event=0.1)
EXPLORATION = st.builds(
    Exploration,
    kind=st.sampled_from(["none", "epsilon", "squarecb"]),
    epsilon=st.floats(0.0, 0.5),
    gamma=st.floats(0.1, 100.0),
    budget=st.none() | st.floats(0.0, 0.5),
    min_propensity=st.sampled_from([0.0, 0.01, 0.1]),
)


def listed(*limits: LimitDefinition, price: float = 0.5, temperature: float = 1e-3) -> PriceList:
    priced = tuple(PricedLimit(limit=limit, price=price, step=0.05, most=2.0) for limit in limits)
    return PriceList(limits=priced, temperature=temperature, fitted={"n_decisions": 1})


def card(**changed: object) -> Card:
    made = Card(
        stream="orders",
        feature_set="f",
        numbers=("weight", "price_usd"),
        categories={},
        heads={"success_probability": Head(files=("s.txt",), low=0.0, high=1.0)},
        objective=Objective(),
        destinations=("a", "b"),
        value_low=0.0,
        value_high=1.0,
        trained={},
    )
    return msgspec.structs.replace(made, **changed)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 9) | st.just(float("nan"))), min_size=1)))
def test_a_log_is_metered_to_the_bits_of_its_events(decisions: list[list[tuple[str, float]]]) -> None:
    metering = Tariff(listed(USD, SHARE, COST), ("weight", "price_usd")).meter
    rows = [row for decision in decisions for row in decision]
    numbers = np.array([[0.0, price] for _, price in rows]).reshape(len(rows), 2)
    cost = np.arange(len(rows), dtype=np.float64)
    codes = np.array(["cab".index(name) for name, _ in rows], dtype=np.int64)
    together = metering.log(CategoryColumn(codes, ("c", "a", "b")), numbers, {"cost_usd": cost})
    offsets = np.cumsum([0] + [len(decision) for decision in decisions])
    for (start, end), decision in zip(itertools.pairwise(offsets.tolist()), decisions, strict=True):
        alone = metering.event([name for name, _ in decision], numbers[start:end], {"cost_usd": cost[start:end]})
        assert together[:, start:end].tolist() == alone.tolist()


def test_an_unknown_price_is_taken_for_the_highest_that_was_seen_and_use_is_never_negative() -> None:
    numbers = np.array([[1.0, np.nan], [1.0, 0.25], [1.0, -4.0]])
    use = Tariff(listed(USD, SHARE), ("weight", "price_usd")).meter.event(["a", "b", "c"], numbers, {})
    assert use.tolist() == [[2.0, 0.25, 0.0], [0.0, 1.0, 0.0]]


@given(
    st.lists(st.lists(st.tuples(st.floats(-2, 2), st.floats(0, 2)), min_size=1, max_size=6), min_size=1, max_size=6),
    EXPLORATION,
    st.lists(st.floats(-30, 30), min_size=2, max_size=2),
)
def test_the_log_form_agrees_with_the_single_form_bit_for_bit(
    decisions: list[list[tuple[float, float]]], exploration: Exploration, debt: list[float]
) -> None:
    prices = Tariff(listed(USD, SHARE), ("weight", "price_usd")).paced(np.array(debt))
    rows = np.array([row for decision in decisions for row in decision])
    values, use = rows[:, 0], np.stack([rows[:, 1], (rows[:, 1] > 1.0).astype(np.float64)])
    offsets = np.cumsum([0] + [len(decision) for decision in decisions])
    together = tariff.distribution_log(values, use, offsets, prices, exploration, 1.0)
    for start, end in itertools.pairwise(offsets.tolist()):
        # An ineligible candidate stands first, which the log leaves out.
        alone, net = tariff.distribution(
            [9.0, *values[start:end].tolist()],
            np.concatenate((np.zeros((2, 1)), use[:, start:end]), axis=1),
            [False] + [True] * (end - start),
            prices,
            exploration,
            1.0,
        )
        assert list(alone) == [0.0, *together[start:end].tolist()]
        assert list(net[1:]) == prices.net(values, use)[start:end].tolist()
        assert sum(alone) == pytest.approx(1.0, abs=1e-12)
        assert min(alone) >= 0.0


def test_without_exploration_the_distribution_is_that_of_the_prices() -> None:
    prices = Tariff(listed(USD), ("weight", "price_usd")).prices
    values, use = np.array([0.9, 0.5, 0.4]), np.array([[0.8, 0.0, 0.0]])
    found, net = tariff.distribution(values.tolist(), use, [True] * 3, prices, Exploration(kind="none"), 1.0)
    assert found == pytest.approx(prices.distribution(values, use[:, np.newaxis])[0], abs=1e-15)
    assert net == pytest.approx([0.5, 0.5, 0.4])
    assert found == pytest.approx([0.5, 0.5, 0.0])  # a tie within the limit is drawn


def test_a_decision_that_cannot_be_made_is_refused_by_type() -> None:
    prices = Tariff(listed(USD), ("weight", "price_usd")).prices
    with pytest.raises(NothingEligibleError):
        tariff.distribution([0.0], np.zeros((1, 1)), [False], prices, Exploration(), 1.0)
    with pytest.raises(PolicyError, match="must be finite"):
        tariff.distribution([np.nan], np.zeros((1, 1)), [True], prices, Exploration(), 1.0)


def test_a_debt_raises_its_price_a_credit_lowers_it_and_both_are_bounded() -> None:
    of = Tariff(listed(USD, SHARE), ("weight", "price_usd"))
    owed = of.settle(None, np.array([15.3, 0.2]))
    assert owed == pytest.approx([15.0, 0.0])
    assert of.paced(owed).prices == pytest.approx([0.5 * np.e, 0.5])  # 50 events' limits of .3
    assert of.paced(-owed).prices == pytest.approx([0.5 / np.e, 0.5])
    for _ in range(100):
        owed = of.settle(owed, np.array([100.0, 1.0]))
    assert owed == pytest.approx([3 * 50 * 0.3, 80.0])
    assert of.settle(np.zeros(7), np.array([0.3, 0.2])) == pytest.approx([0.0, 0.0])  # a file of another router


def test_a_resource_that_was_free_begins_to_cost_once_it_is_owed() -> None:
    limits = (Limit(resource="usd", per_event=1.0),)
    free = Prices(limits=limits, prices=np.zeros(1), temperature=0.1, steps=np.array([0.2]))
    assert free.paced(np.array([10.0]), 10.0).prices == pytest.approx([0.2 * (np.e - 1.0)])
    assert free.paced(np.array([-10.0]), 10.0).prices == pytest.approx([0.0])
    assert budget.fit(np.array([[1.0, 0.0]]), np.array([[[0.5, 0.0]]]), limits).prices.tolist() == [0.0]


def test_prices_come_back_as_they_were_written_and_none_is_no_tariff(tmp_path: Path) -> None:
    assert tariff.load(tmp_path, card()) is None
    tariff.write(tmp_path, listed(USD, SHARE))
    read = tariff.load(tmp_path, card())
    assert read is not None
    assert read.listed == listed(USD, SHARE)
    assert read.at_most.tolist() == [0.3, 0.2]


@pytest.mark.parametrize(
    ("content", "of", "words"),
    [
        (b"{}", card(), r"prices\.json cannot be read: .*limits"),
        (msgspec.json.encode(listed(USD)).replace(b'"price":0.5', b'"price":-0.5'), card(), r"`float` >= 0"),
        (msgspec.json.encode(listed(USD)), card(numbers=("weight",)), "the limit on usd reads 'price_usd'"),
        (
            msgspec.json.encode(listed(COST)),
            card(),
            "cost_usd has no price feature, and the router does not predict it",
        ),
    ],
)
def test_prices_that_do_not_fit_the_router_are_refused_by_name(
    tmp_path: Path, content: bytes, of: Card, words: str
) -> None:
    (tmp_path / tariff.PRICES_FILE).write_bytes(content)
    with pytest.raises(ContractMismatchError, match=words):
        tariff.load(tmp_path, of)


def test_a_limit_on_what_is_not_predicted_names_what_is() -> None:
    with pytest.raises(ContractMismatchError, match=r"limit on cost_usd needs .* this one predicts latency_ms"):
        Meter((COST,), ()).event(["a"], np.zeros((1, 0)), {"latency_ms": np.zeros(1)})
