"""Trees of pairs: what is gathered of an event, what its trees vote, and what becomes of it in a router."""

from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from features.choices import Training
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models import card, fit, pairwise, tree_text
from models.encoding import EncodedRows
from models.examples import Examples
from models.fit import Subject
from models.pairwise import Outcomes

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

DESTINATIONS = ("east", "north", "west")
SETTINGS = Training(
    min_decisions=50,
    rounds=20,
    threads=1,
    latency_quantiles=(),
    forms=("shared",),
    contest_decisions=0,
    min_own_outcomes=20,
    shared_pair_trees=40,
)
K = len(DESTINATIONS)


def world(n: int, seed: int = 0) -> tuple[Floats, Floats]:
    """Return events float64[n, 2] and minutes float64[n, 3]: how hard an event is counts most, its second number tells who is best."""
    rng = np.random.default_rng(seed)
    seen = rng.uniform(-1, 1, (n, 2))
    hard = rng.gamma(1.0, 10.0, n)
    return seen, hard[:, np.newaxis] + np.column_stack([np.ones(n), 1.0 + 4.0 * seen[:, 1], 4.0 + 0.0 * seen[:, 1]])


def matrix_of(seen: Floats, offer: Floats | None = None) -> EncodedRows:
    """Return the rows of every event at every destination: what is seen, what it offers, and its code."""
    n = len(seen)
    offers = np.zeros((n, K)) if offer is None else offer
    numbers = np.column_stack([np.repeat(seen, K, axis=0), offers.ravel()])
    return EncodedRows(numbers, [np.tile(np.arange(K), n)], [np.append(np.arange(float(K)), np.nan)])


def every_row(n: int, *without: tuple[int, int]) -> dict[int, Integers]:
    """Return the rows of each destination; those of ``without``, event and destination, are not known."""
    gone = {K * event + code for event, code in without}
    return {code: np.array([row for row in range(code, K * n, K) if row not in gone], np.int64) for code in range(K)}


def gather(minutes: Floats, seen: Floats, *without: tuple[int, int], offer: Floats | None = None) -> Outcomes:
    n = len(seen)
    event = np.repeat(np.arange(n), K) + 100
    return Outcomes.of(event, minutes.ravel(), np.ones(K * n), every_row(n, *without), matrix_of(seen, offer))


def votes(known: Outcomes, rows: Floats, settings: Training = SETTINGS, seed: int = 1) -> Floats:
    """Return what the trees of each destination add up to, float64[n, k]: asked of all columns of the matrix."""
    empty = lightgbm.train({"verbosity": -1, "num_leaves": 2}, lightgbm.Dataset(np.zeros((50, 4)), np.zeros(50)), 1)
    grown = pairwise.grow(known, settings, seed)
    asked = np.column_stack([rows, np.zeros((len(rows), 2))])
    text = empty.model_to_string()
    told = [lightgbm.Booster(model_str=tree_text.add(text, grown[code])).predict(asked) for code in known.codes]
    return np.column_stack(told)


def test_outcomes_of_an_event_are_gathered_where_there_are_several() -> None:
    seen, minutes = world(6)
    known = gather(minutes, seen, (0, 1), (2, 0), (2, 2), (5, 2))
    expected = np.delete(minutes, 2, axis=0)  # of which one is known
    expected[0, 1] = expected[4, 2] = np.nan
    assert known.codes == (0, 1, 2)
    assert_array_equal(known.value, expected)
    assert_array_equal(np.isnan(known.weight), np.isnan(expected))
    assert_allclose(known.seen[:, :2], np.delete(seen, 2, axis=0), rtol=1e-6)


def test_trees_read_what_is_said_of_the_event_alone() -> None:
    seen, minutes = world(8)
    seen[3, 1] = np.nan
    assert gather(minutes, seen).columns.tolist() == [0, 1, 2]  # not the destination itself
    offer = np.zeros((8, K))
    offer[5, 2] = 1.0
    assert gather(minutes, seen, offer=offer).columns.tolist() == [0, 1]
    assert gather(minutes, seen, (5, 2), offer=offer).columns.tolist() == [0, 1, 2]


def test_of_two_outcomes_at_one_destination_the_later_counts() -> None:
    seen, minutes = world(2)
    event = np.repeat([7, 7], K)
    known = Outcomes.of(event, minutes.ravel(), np.ones(2 * K), every_row(2), matrix_of(seen[[0, 0]]))
    assert_array_equal(known.value, minutes[1:])


def test_where_no_event_has_several_outcomes_nobody_votes() -> None:
    seen, minutes = world(3)
    known = gather(minutes, seen, *((event, code) for event in range(3) for code in (0, 1)))
    assert known.value.shape == (0, K)
    assert pairwise.grow(known, SETTINGS, 0) == {0: [], 1: [], 2: []}


def test_the_slope_is_what_lies_between_the_least_vote_and_the_greatest() -> None:
    seen, _ = world(4)
    assert gather(np.tile([1.0, 3.0, 5.0], (4, 1)), seen).slope() == pytest.approx(4.0)
    two = gather(np.tile([1.0, 3.0, 9.0], (4, 1)), seen, *((event, 2) for event in range(4)))
    assert two.slope() == pytest.approx(2.0)
    assert gather(np.ones((4, K)), seen).slope() == 0.0


def test_the_votes_are_the_order_of_the_destinations_in_their_units() -> None:
    seen, minutes = world(800)
    known = gather(minutes, seen)
    unseen, truth = world(500, seed=5)
    told = votes(known, unseen)
    assert (told.argmin(axis=1) == truth.argmin(axis=1)).mean() > 0.95
    assert_allclose(told.sum(axis=1), 0.0, atol=1e-9)  # what one gains another loses
    assert np.abs(told).max() <= pairwise.SHARE * known.slope() / 2.0 + 1e-9
    hours = votes(gather(60.0 * minutes, seen), unseen)
    assert_allclose(hours, 60.0 * told, atol=1e-9)
    assert_array_equal(told, votes(known, unseen))
    assert (told != votes(known, unseen, seed=2)).any()


def test_a_dear_mistake_counts_for_more_than_a_cheap_one() -> None:
    """Three events of ten are served far better by the first: that is worth the seven that it serves a little worse."""
    seen = np.zeros((200, 2))
    minutes = np.tile([1.0, 0.9, 50.0], (200, 1))
    minutes[np.arange(200) % 10 < 3, 1] = 90.0
    told = votes(gather(minutes, seen), np.zeros((1, 2)))
    assert told[0, 0] < told[0, 1]


def test_an_event_counts_by_its_weight() -> None:
    seen = np.zeros((100, 2))
    minutes = np.tile([1.0, 2.0, 3.0], (100, 1))
    minutes[:30] = [3.0, 2.0, 1.0]
    for heavy, best in ((1.0, 0), (9.0, 2)):
        weight = np.repeat(np.where(np.arange(100) < 30, heavy, 1.0), K)
        event = np.repeat(np.arange(100), K)
        known = Outcomes.of(event, minutes.ravel(), weight, every_row(100), matrix_of(seen))
        assert votes(known, np.zeros((1, 2)))[0].argmin() == best
        assert known.slope() == pytest.approx(2.0)


def test_a_tree_is_grown_on_so_many_events_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, minutes = world(200)
    monkeypatch.setattr(pairwise, "MAX_EVENTS", 150)
    trees = pairwise.grow(gather(minutes, seen), SETTINGS, 0)[0]
    assert {tree.count[0] < 120 for tree in trees} == {
        True
    }  # drawn with replacement: 150 of 200 are some 105, all some 126


def test_a_pair_of_few_events_is_not_voted_on() -> None:
    seen, minutes = world(60)
    known = gather(minutes, seen, *((event, 2) for event in range(45)))
    settings = msgspec.structs.replace(SETTINGS, min_own_outcomes=16)
    assert [len(trees) for trees in pairwise.grow(known, settings, 0).values()] == [20, 20, 0]
    settings = msgspec.structs.replace(SETTINGS, min_own_outcomes=15)
    assert [len(trees) for trees in pairwise.grow(known, settings, 0).values()] == [40, 40, 40]


def examples(seen: Floats, minutes: Floats, event: Integers | None) -> Examples:
    n = len(seen)
    return Examples(
        number_names=("x", "y"),
        category_names=("destination",),
        numbers=np.repeat(seen, K, axis=0),
        categories=[CategoryColumn(np.tile(np.arange(K), n), DESTINATIONS)],
        success=(minutes < np.median(minutes)).ravel().astype(np.float64),
        latency_ms=minutes.ravel() * MS_PER_MINUTE,
        cost_usd=np.full(K * n, np.nan),
        propensity=np.ones(K * n),
        destination_column="destination",
        event=event,
    )


def train(folder: Path, n_trees: int, *, is_told_events: bool = True) -> tuple[Path, Floats, float]:
    """Return the folder of a router that is fitted, its latencies float64[n, k] for other events, and the regret of its choice."""
    seen, minutes = world(300)
    event = np.repeat(np.arange(300), K) if is_told_events else None
    objective = Objective(success=0.0, latency_minute=1.0, low=-200.0, high=0.0)
    subject = Subject(
        stream="orders",
        feature_set="events",
        objective=objective,
        destinations=DESTINATIONS,
        settings=msgspec.structs.replace(SETTINGS, shared_pair_trees=n_trees),
        trained={},
    )
    made = fit.train(examples(seen, minutes, event), folder, subject)
    unseen, truth = world(400, seed=9)
    column = [CategoryColumn(np.tile(np.arange(K), 400), DESTINATIONS)]
    told = made.score_log(np.repeat(unseen, K, axis=0), column).heads["latency_ms"].reshape(-1, K)
    regret = truth[np.arange(400), told.argmin(axis=1)] - truth.min(axis=1)
    return folder, told / MS_PER_MINUTE, float(regret.mean())


def texts(folder: Path, head: str) -> list[str]:
    return [path.read_text() for path in sorted(folder.glob(f"{head}*.txt"))]


def test_a_router_with_pairs_chooses_better_and_expects_as_much(tmp_path: Path) -> None:
    (without, alone, regret), (with_pairs, both, less) = (train(tmp_path / str(n), n) for n in (0, 40))
    assert less < 0.7 * regret
    assert_allclose(both.mean(axis=1), alone.mean(axis=1))  # over destinations
    assert texts(with_pairs, "success") == texts(without, "success") != []  # a vote is no probability
    assert texts(with_pairs, "latency") != texts(without, "latency")


def test_pairs_need_to_know_which_outcomes_are_of_one_event(tmp_path: Path) -> None:
    untold, without = train(tmp_path / "untold", 40, is_told_events=False)[0], train(tmp_path / "without", 0)[0]
    assert texts(untold, "latency") == texts(without, "latency")
    told = train(tmp_path / "told", 40)[0]
    assert [card.read_card(each).trained.get("n_compared_events") for each in (untold, without, told)] == [0, None, 300]
