"""Which form of a router is chosen, by what it would have earned on decisions it had not seen."""

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from features.choices import Training
from features.decision_log import DecisionLog, Revealed
from features.definitions import FeatureDefinitions
from features.objective import Objective
from features.vector import CategoryColumn
from models import contest, fit, router
from models.examples import Examples
from models.fit import Subject

SHOPS = ("east", "north", "west")
FEATURES = FeatureDefinitions(numbers={"x": "event.x", "y": "event.y"}, categories={"shop": "destination.name"})
SUCCESS = Objective(success=1.0)
SETTINGS = Training(min_decisions=50, rounds=60, leaves=4, min_leaf=20, threads=1, latency_quantiles=())


def log_of(
    n: int,
    *,
    seed: int = 0,
    propensity: float | None = None,
    probes: bool = False,
    noise: bool = False,
) -> DecisionLog:
    """Three shops, each good where another combination of two numbers is high; one is drawn evenly and revealed."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, (2, n))
    chance = 0.5 + 0.45 * np.column_stack([np.tanh(4 * x), np.tanh(4 * y), np.tanh(-4 * x)])
    chance = np.full((n, 3), 0.5) if noise else chance
    success = (rng.uniform(size=(n, 3)) < chance).astype(np.float64)
    shop = rng.integers(3, size=n)
    row = np.arange(3 * n)
    unknown = np.full(n, np.nan)
    revealed = None
    if probes:
        others = row[row != np.repeat(3 * np.arange(n) + shop, 3)]
        revealed = Revealed(
            row=others,
            probability=np.ones(len(others)),
            success=success.ravel()[others],
            latency_ms=np.full(len(others), np.nan),
            cost_usd=np.full(len(others), np.nan),
            timed_out=np.zeros(len(others), np.bool_),
        )
    return DecisionLog(
        decision_id=np.array([str(i) for i in range(n)], dtype=object),
        decided_at=np.datetime64("2026-01-01T00:00", "us") + np.arange(n),
        cluster=np.arange(n),
        offsets=3 * np.arange(n + 1),
        chosen=3 * np.arange(n) + shop,
        propensity=np.full(n, propensity or (1.0 if probes else 1 / 3)),
        reward=success[np.arange(n), shop],
        success=success[np.arange(n), shop],
        latency_ms=unknown,
        cost_usd=unknown,
        numbers=np.repeat(np.column_stack([x, y]), 3, axis=0),
        categories=[CategoryColumn(row % 3, SHOPS)],
        destination=CategoryColumn(row % 3, SHOPS),
        policies={},
        timed_out=np.zeros(n, np.bool_),
        probes=revealed,
    )


def subject(settings: Training = SETTINGS, objective: Objective = SUCCESS) -> Subject:
    return Subject(
        stream="orders", feature_set="f1", objective=objective, destinations=SHOPS, settings=settings, trained={}
    )


def test_boosters_of_a_destination_s_own_win_where_destinations_have_nothing_in_common() -> None:
    choice = contest.hold(log_of(3_000), FEATURES, SUCCESS, SETTINGS)
    assert choice.contest is not None
    assert choice.contest.chosen in ("own", "blend")
    assert choice.own_share > 0
    forms = choice.contest.forms
    assert set(forms) == {"pooled", "own", "blend"}
    assert forms["own"].value > forms["pooled"].value + 0.01
    assert all(each.low < each.value < each.high for each in forms.values())


def test_trees_that_destinations_share_learn_more_from_few_events(tmp_path: Path) -> None:
    """Thirty irrelevant numbers hide the two that tell; one tree for all destinations finds them from a few hundred events."""
    hidden = FeatureDefinitions(
        numbers={"x": "event.x", "y": "event.y", **{f"n{i}": f"event.n{i}" for i in range(30)}},
        categories={"shop": "destination.name"},
    )

    def noisy(n: int, seed: int) -> DecisionLog:
        log = log_of(n, seed=seed, probes=True)
        noise = np.repeat(np.random.default_rng(seed + 100).uniform(-1, 1, (n, 30)), 3, axis=0)
        return dataclasses.replace(log, numbers=np.hstack([log.numbers, noise]))

    settings = msgspec.structs.replace(SETTINGS, forms=("shared",), contest_decisions=0, min_own_outcomes=50)
    made = fit.learn(noisy(300, 0), hidden, tmp_path, subject(settings))
    head = made.card.heads["success_probability"]
    assert set(head.own) == set(SHOPS)
    assert head.own_share == 1.0
    unseen = noisy(3_000, 1)
    said = made.score_log(unseen.numbers, unseen.categories).heads["success_probability"]
    assert 0.0 <= said.min() < said.max() <= 1.0
    truth = 0.5 + 0.45 * np.column_stack(
        [np.tanh(4 * unseen.numbers[::3, 0]), np.tanh(4 * unseen.numbers[::3, 1]), np.tanh(-4 * unseen.numbers[::3, 0])]
    )
    assert np.corrcoef(said, truth.ravel())[0, 1] > 0.8
    earned = truth[np.arange(3_000), said.reshape(-1, 3).argmax(axis=1)].mean()
    assert earned > 0.74  # a choice blind to the event earns .5, the best .86


@pytest.mark.parametrize(("least", "prior"), [(2.0, 0.1), (40.0, 0.1), (2.0, 1e9)])
def test_leaves_of_shared_trees_hold_as_many_events_and_shrink_as_far_as_asked(
    tmp_path: Path, least: float, prior: float
) -> None:
    log = log_of(300, probes=True)
    settings = msgspec.structs.replace(
        SETTINGS,
        forms=("shared",),
        contest_decisions=0,
        min_own_outcomes=50,
        shared_min_events=least,
        shared_prior=prior,
        n_boosters=2,
    )
    made = fit.learn(log, FEATURES, tmp_path, subject(settings))
    files = made.card.heads["success_probability"].own[SHOPS[0]]
    first, _, second, _ = ((tmp_path / file).read_text() for file in files)  # a kind of tree and the other, twice
    assert first != second
    counts = [
        int(count)
        for file in files
        for line in (tmp_path / file).read_text().splitlines()
        if line.startswith("leaf_count=")
        for count in line.partition("=")[2].split()
    ]
    assert 1.0 <= min(counts) / (least * len(SHOPS)) < 1.5
    said = made.score_log(log.numbers, log.categories).heads["success_probability"].reshape(-1, len(SHOPS))
    spread = said.max(axis=0) - said.min(axis=0)
    assert (spread < 1e-3).all() if prior > 1 else (spread > 0.3).all()


def test_outcomes_of_one_decision_are_of_one_event() -> None:
    log = log_of(50, probes=True)
    row = log.revealed().row
    assert len(row) == 150
    np.testing.assert_array_equal(Examples.of(log, FEATURES).event, row // 3)
    kept = np.arange(50) % 4 > 0
    np.testing.assert_array_equal(Examples.of(log, FEATURES, kept).event, row[kept[row // 3]] // 3)
    assert Examples.of(log, FEATURES).n_compared_events == 50
    assert Examples.of(log_of(50), FEATURES).n_compared_events == 0


def test_votes_change_what_leaves_hold_and_no_tree(tmp_path: Path) -> None:
    log = log_of(300, probes=True)
    told: dict[str, list[str]] = {}
    for leaves in ("means", "votes"):
        settings = msgspec.structs.replace(
            SETTINGS, forms=("shared",), contest_decisions=0, min_own_outcomes=50, shared_leaves=leaves
        )
        (folder := tmp_path / leaves).mkdir()
        made = fit.learn(log, FEATURES, folder, subject(settings))
        told[leaves] = (folder / made.card.heads["success_probability"].own[SHOPS[0]][0]).read_text().splitlines()
        said = made.score_log(log.numbers, log.categories).value.reshape(-1, len(SHOPS))
        truth = np.column_stack([log.numbers[::3, 0], log.numbers[::3, 1], -log.numbers[::3, 0]])
        assert (said.argmax(axis=1) == truth.argmax(axis=1)).mean() > 0.7
    changed = {one.partition("=")[0] for one, other in zip(*told.values(), strict=True) if one != other}
    assert changed - {"tree_sizes"} == {"leaf_value"}


def test_the_value_of_a_form_holds_the_truth() -> None:
    """The oracle earns E[max], about .86 here; a router close to it must not be said to earn more."""
    choice = contest.hold(log_of(3_000), FEATURES, SUCCESS, SETTINGS)
    assert choice.contest is not None
    best = choice.contest.forms[choice.contest.chosen]
    assert 0.7 < best.low < best.high < 0.95


def test_where_every_outcome_is_revealed_the_value_is_exact() -> None:
    full, one = log_of(1_500, probes=True), log_of(1_500)
    exact = contest.hold(full, FEATURES, SUCCESS, SETTINGS).contest
    estimated = contest.hold(one, FEATURES, SUCCESS, SETTINGS).contest
    assert exact is not None
    assert estimated is not None
    width = {name: c.forms[c.chosen].high - c.forms[c.chosen].low for name, c in (("full", exact), ("one", estimated))}
    assert width["full"] < 0.7 * width["one"]


def test_more_outcomes_per_event_make_a_better_router(tmp_path: Path) -> None:
    unseen = log_of(4_000, seed=9, probes=True)
    truth = unseen.revealed()
    success = np.empty(3 * unseen.n_decisions)
    success[truth.row] = truth.success

    def earned(made: router.Router) -> float:
        value = made.score_log(unseen.numbers, unseen.categories).value.reshape(-1, 3)
        return float(success.reshape(-1, 3)[np.arange(len(value)), value.argmax(axis=1)].mean())

    one = fit.learn(log_of(400), FEATURES, tmp_path / "one", subject())
    full = fit.learn(log_of(400, probes=True), FEATURES, tmp_path / "full", subject())
    assert full.card.trained["n_examples"] == 3 * int(one.card.trained["n_examples"])
    assert earned(full) > earned(one) + 0.01


def test_a_log_that_cannot_tell_takes_the_first_form_and_says_why() -> None:
    thin = log_of(400)
    rare = dataclasses.replace(thin, propensity=np.where(np.arange(400) < 40, 1e-4, 1.0))
    choice = contest.hold(rare, FEATURES, SUCCESS, SETTINGS)
    assert choice.contest is not None
    assert choice.contest.chosen == "pooled"
    assert "with the weight of" in choice.contest.refusal
    few = contest.hold(log_of(20), FEATURES, SUCCESS, SETTINGS)
    assert few.contest is not None
    assert "20 outcomes are too few" in few.contest.refusal


def test_a_new_destination_is_scored_from_its_features_whatever_the_form(tmp_path: Path) -> None:
    own = msgspec.structs.replace(SETTINGS, forms=("own",))
    made = fit.learn(log_of(2_000), FEATURES, tmp_path, subject(own))
    head = made.card.heads["success_probability"]
    assert set(head.own) == set(SHOPS)
    numbers = np.array([[0.9, 0.9], [0.9, 0.9]])
    scored = made.score(numbers, [["east"], ["south"]]).heads["success_probability"]
    assert scored[0] > 0.8
    assert 0.0 < scored[1] < 1.0
    everywhere = made.predict_heads(made.encode_log(numbers, [CategoryColumn(np.array([-1, -1]), SHOPS)]))
    assert scored[1] == everywhere["success_probability"][1]  # an unknown destination and a missing one are alike


def test_probabilities_are_calibrated_on_rows_not_fitted_on(tmp_path: Path) -> None:
    greedy = msgspec.structs.replace(SETTINGS, rounds=400, leaves=31, min_leaf=5)  # far too sure of itself
    unseen = log_of(6_000, seed=5)

    def gap(made: router.Router) -> float:
        said = made.score_log(unseen.numbers, unseen.categories).heads["success_probability"][unseen.chosen]
        bins = np.array_split(np.argsort(said), 10)
        return float(np.mean([abs(said[b].mean() - unseen.success[b].mean()) for b in bins]))

    scaled = fit.learn(log_of(1_200), FEATURES, tmp_path / "scaled", subject(greedy))
    raw_settings = msgspec.structs.replace(greedy, contest_decisions=0)
    raw = fit.learn(log_of(1_200), FEATURES, tmp_path / "raw", subject(raw_settings))
    assert scaled.card.heads["success_probability"].scaling is not None
    assert gap(scaled) < 0.6 * gap(raw)


def test_a_long_log_is_sampled_and_calibrated_on_what_was_kept_from_the_fit(tmp_path: Path) -> None:
    short = msgspec.structs.replace(SETTINGS, contest_decisions=500)
    made = fit.learn(log_of(6_000), FEATURES, tmp_path, subject(short))
    assert made.card.contest is not None
    assert made.card.contest.n_decisions == 500
    assert made.card.trained["n_examples"] == 5_700
    assert made.card.heads["success_probability"].scaling is not None
    router.probe(tmp_path)


def test_the_same_log_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        fit.learn(log_of(600), FEATURES, tmp_path / name, subject())
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two").iterdir())
    assert all((tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes() for name in names)


def test_timeouts_are_lower_bounds_not_latencies(tmp_path: Path) -> None:
    """Latencies are log-normal around a known median; a limit that two fifths pass cuts them."""
    rng = np.random.default_rng(3)
    log = log_of(4_000)
    truth = np.exp(np.log(1_000.0) + 0.5 * log.numbers[log.chosen, 0] + 0.8 * rng.normal(size=log.n_decisions))
    limit = rng.uniform(700.0, 3_000.0, log.n_decisions)
    cut = dataclasses.replace(log, latency_ms=np.minimum(truth, limit), timed_out=truth > limit)
    assert 0.25 < cut.timed_out.mean() < 0.5
    objective = Objective(success=1.0, sla=0.5, sla_latency_ms=2_000.0, low=-0.5)
    settings = msgspec.structs.replace(SETTINGS, latency_quantiles=(0.5, 0.75))
    made = fit.learn(cut, FEATURES, tmp_path / "cut", subject(settings, objective))
    asked = np.array([[0.0, 0.0]]), [["east"]]
    heads = made.score(*asked).heads
    assert set(made.card.outputs) == set(heads)
    assert heads["latency_p50_ms"][0] == pytest.approx(1_000.0, rel=0.12)
    assert heads["latency_p75_ms"][0] == pytest.approx(1_000.0 * np.exp(0.8 * 0.674), rel=0.15)
    assert heads["over_sla"][0] == pytest.approx(0.193, abs=0.06)  # P(0.8 z > log 2)
    ignored = dataclasses.replace(cut, timed_out=np.zeros(cut.n_decisions, np.bool_))
    naive = fit.learn(ignored, FEATURES, tmp_path / "naive", subject(settings, objective)).score(*asked).heads
    assert naive["latency_p75_ms"][0] < 0.85 * heads["latency_p75_ms"][0]


def test_the_value_of_an_objective_with_a_limit_reads_the_risk_of_exceeding_it(tmp_path: Path) -> None:
    log = log_of(1_000)
    log = dataclasses.replace(log, latency_ms=np.exp(6.0 + np.random.default_rng(0).normal(size=1_000)))
    objective = Objective(success=1.0, sla=0.5, sla_latency_ms=400.0, low=-0.5)
    scores = fit.learn(log, FEATURES, tmp_path, subject(objective=objective)).score(np.zeros((1, 2)), [["east"]])
    assert 0.2 < scores.heads["over_sla"][0] < 0.8
    expected = scores.heads["success_probability"][0] - 0.5 * scores.heads["over_sla"][0]
    assert scores.value[0] == pytest.approx(expected)
