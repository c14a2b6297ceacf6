"""The router, from fit to score: one behaviour suite."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from features.choices import Training
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models import fit, router
from models.card import CARD_FILE, ContractMismatchError
from models.fit import Examples, Subject

OBJECTIVE = Objective(success=60.0, latency_minute=1.0, low=-720.0, high=60.0)
SETTINGS = Training(min_decisions=50, rounds=80, min_leaf=5, threads=1, n_boosters=2, latency_offset="promised")
SHOPS = ("north", "south")


def examples(n_rows: int = 400, seed: int = 0) -> Examples:
    """Two shops: the south one fails in the afternoon and always takes ten minutes more than it promises."""
    rng = np.random.default_rng(seed)
    hour, promised = rng.uniform(0, 24, n_rows), rng.uniform(10, 60, n_rows)
    shop = rng.integers(0, 2, n_rows)
    fails = (shop == 1) & (hour > 12) & (rng.uniform(size=n_rows) < 0.9)
    return Examples(
        number_names=("hour", "promised"),
        category_names=("shop",),
        numbers=np.column_stack([hour, promised]),
        categories=[CategoryColumn(shop, SHOPS)],
        success=(~fails).astype(np.float64),
        latency_ms=(promised + 10.0 * shop) * MS_PER_MINUTE,
        cost_usd=np.full(n_rows, np.nan),
        propensity=np.full(n_rows, 0.5),
    )


def train(
    folder: Path, given: Examples | None = None, settings: Training = SETTINGS, objective: Objective = OBJECTIVE
) -> router.Router:
    subject = Subject(
        stream="parcels",
        feature_set="f1",
        objective=objective,
        destinations=SHOPS,
        settings=settings,
        trained={"until": "2026-01-01T00:00:00Z"},
    )
    return fit.train(examples() if given is None else given, folder, subject)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_router_learns_who_fails_when_and_who_is_late(tmp_path: Path) -> None:
    scores = train(tmp_path).score(
        np.array([[18.0, 30.0], [18.0, 30.0], [6.0, 30.0]]), [["north"], ["south"], ["south"]]
    )
    success, latency = scores.heads["success_probability"], scores.heads["latency_ms"] / MS_PER_MINUTE
    assert success[0] > 0.9
    assert success[1] < 0.4
    assert success[2] > 0.9
    assert latency == pytest.approx([30.0, 40.0, 40.0], abs=1.0)
    assert scores.value == pytest.approx(60 * success - latency)


def test_the_same_examples_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    train(tmp_path / "one")
    train(tmp_path / "two")
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    train(tmp_path / "three", settings=Training(**{**_fields(SETTINGS), "seed": 9}))
    assert digests(tmp_path / "one") != digests(tmp_path / "three")


def test_a_router_loaded_from_disk_scores_alike_event_by_event_and_whole(tmp_path: Path) -> None:
    train(tmp_path)
    loaded, given = router.load(tmp_path), examples(30, seed=5)
    whole = loaded.score_log(given.numbers, given.categories).value
    single = [loaded.score(given.numbers[[i]], [[SHOPS[given.categories[0].codes[i]]]]).value[0] for i in range(30)]
    np.testing.assert_array_equal(whole, single)


def test_an_unknown_category_and_missing_numbers_are_scored(tmp_path: Path) -> None:
    scores = train(tmp_path).score(np.array([[np.nan, np.nan]]), [["a new shop"]])
    assert np.isfinite(scores.value).all()


def test_predictions_stay_within_what_was_seen(tmp_path: Path) -> None:
    loaded = train(tmp_path)
    scores = loaded.score(np.array([[1e300, 1e300]]), [["north"]])
    assert 0.0 <= scores.heads["success_probability"][0] <= 1.0
    assert scores.heads["latency_ms"][0] <= loaded.card.heads["latency_ms"].high


def test_a_router_answers_its_golden_rows_and_a_changed_one_does_not(tmp_path: Path) -> None:
    train(tmp_path)
    router.probe(tmp_path)
    golden = json.loads((tmp_path / router.GOLDEN_FILE).read_text())
    golden["values"][3] += 1e-3
    (tmp_path / router.GOLDEN_FILE).write_text(json.dumps(golden))
    with pytest.raises(router.ProbeError, match="golden row 3"):
        router.probe(tmp_path)


def test_a_card_that_names_other_features_is_a_contract_mismatch(tmp_path: Path) -> None:
    train(tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    card["numbers"].append("extra")
    (tmp_path / CARD_FILE).write_text(json.dumps(card))
    with pytest.raises(ContractMismatchError, match="reads 3 features, the card names 4"):
        router.load(tmp_path)


def test_contributions_add_up_to_the_raw_score(tmp_path: Path) -> None:
    loaded = train(tmp_path)
    matrix = np.array([[18.0, 30.0, 1.0]])
    probability = loaded.score_matrix(matrix).heads["success_probability"][0]
    contributions = loaded.contributions(matrix)["success_probability"]
    assert contributions.shape == (1, 4)
    assert 1 / (1 + np.exp(-contributions.sum())) == pytest.approx(probability, abs=0.02)  # a mean of two boosters


def test_bad_data_are_refused_by_name(tmp_path: Path) -> None:
    good = examples()
    n_rows = len(good.success)
    infinite = good.numbers.copy()
    infinite[3, 1] = np.inf
    cases = {
        "20 outcomes are too few": examples(20),
        "success: .* of one class": dataclasses.replace(good, success=np.ones(n_rows)),
        "success: labels must be 0 or 1": dataclasses.replace(good, success=np.full(n_rows, 0.5)),
        "numbers.promised: holds infinite": dataclasses.replace(good, numbers=infinite),
        "latency_ms: .* no outcome says it": dataclasses.replace(good, latency_ms=np.full(n_rows, np.nan)),
        "propensity: holds values outside": dataclasses.replace(good, propensity=np.zeros(n_rows)),
    }
    for message, given in cases.items():
        with pytest.raises(fit.TrainingRefusedError, match=message):
            train(tmp_path, given)


def test_constant_and_duplicated_columns_change_no_choice(tmp_path: Path) -> None:
    given = examples()
    noisy = dataclasses.replace(
        given,
        number_names=(*given.number_names, "constant", "hour_again", "nothing"),
        numbers=np.column_stack(
            [given.numbers, np.full(len(given.success), 7.0), given.numbers[:, 0], np.full(len(given.success), np.nan)]
        ),
    )
    plain, other = train(tmp_path / "plain"), train(tmp_path / "noisy", noisy)
    asked = given.numbers[:50]
    for shop in SHOPS:
        one = plain.score(asked, [[shop]] * 50).heads["success_probability"]
        again = np.column_stack([asked, np.full(50, 7.0), asked[:, 0], np.full(50, np.nan)])
        np.testing.assert_allclose(other.score(again, [[shop]] * 50).heads["success_probability"], one, atol=0.05)


def test_foreign_and_infinite_labels_are_refused_by_name(tmp_path: Path) -> None:
    good = examples()
    infinite = good.latency_ms.copy()
    infinite[5] = np.inf
    cases = {
        "latency_ms: holds infinite values": dataclasses.replace(good, latency_ms=infinite),
        "propensity: holds values outside": dataclasses.replace(good, propensity=np.full(len(good.success), 1.5)),
        "0 outcomes are too few": examples(0),
    }
    for message, given in cases.items():
        with pytest.raises(fit.TrainingRefusedError, match=message):
            train(tmp_path, given)


def test_a_million_categories_stay_bounded(tmp_path: Path) -> None:
    n_rows = 5_000
    given = examples(n_rows)
    many = CategoryColumn(np.arange(n_rows), tuple(f"id-{i}" for i in range(n_rows)))
    loaded = train(tmp_path, dataclasses.replace(given, categories=[many]))
    assert len(loaded.card.categories["shop"]) == fit.MAX_CATEGORIES


def _fields(settings: Training) -> dict[str, object]:
    return {name: getattr(settings, name) for name in settings.__struct_fields__}
