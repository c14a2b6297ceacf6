"""Trees of another library, as LightGBM's text: what is written says what was grown, whoever reads it."""

import lightgbm
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor

from models import trees
from models.tree_text import Grown, add

Floats = NDArray[np.float64]
COLUMNS = np.array([3, 0, 4])  # of five, that the forest reads


def booster(n_trees: int = 3) -> lightgbm.Booster:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(200, 5))
    data = lightgbm.Dataset(rows, rows[:, 0] + rows[:, 1])
    return lightgbm.train({"verbosity": -1, "num_leaves": 5, "num_threads": 1}, data, n_trees)


def forest(*, is_constant: bool = False) -> RandomForestRegressor:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, len(COLUMNS))).astype(np.float32)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    target = np.zeros(300) if is_constant else np.nan_to_num(rows[:, 0]) + (np.isnan(rows[:, 1]) | (rows[:, 2] > 0.3))
    return RandomForestRegressor(4, max_features=0.7, random_state=0).fit(rows, target)


def grown(of: RandomForestRegressor) -> list[Grown]:
    return [Grown.of(each.tree_, COLUMNS, each.tree_.value[:, 0, 0]) for each in of.estimators_]


def asked(n: int = 2_000) -> Floats:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(n, 5)).astype(np.float32).astype(np.float64)
    rows[rng.random(rows.shape) < 0.2] = np.nan
    rows[::7] = 0.0
    return rows


@pytest.mark.parametrize("is_constant", [False, True])
def test_a_booster_adds_what_the_trees_say(*, is_constant: bool) -> None:
    first, second, rows = booster(), forest(is_constant=is_constant), asked()
    both = lightgbm.Booster(model_str=add(first.model_to_string(), grown(second)))
    alone = np.sum([each.predict(rows[:, COLUMNS].astype(np.float32)) for each in second.estimators_], axis=0)
    assert both.num_trees() == 3 + 4
    assert_allclose(both.predict(rows), first.predict(rows) + alone, atol=1e-12)
    again = lightgbm.Booster(model_str=both.model_to_string())  # with the sizes of its trees
    assert_array_equal(again.predict(rows), both.predict(rows))


def test_a_value_at_a_threshold_goes_left() -> None:
    second = forest()
    rows = np.zeros((0, 5))
    for each in second.estimators_:
        node = int(np.flatnonzero(each.tree_.children_left >= 0)[0])
        row = np.zeros((1, 5))
        row[0, COLUMNS[each.tree_.feature[node]]] = np.float32(each.tree_.threshold[node])
        rows = np.concatenate([rows, row])
    first = booster(1)
    text = add(first.model_to_string(), grown(second))
    told = lightgbm.Booster(model_str=text).predict(rows) - first.predict(rows)
    assert_allclose(told, np.sum([e.predict(rows[:, COLUMNS].astype(np.float32)) for e in second.estimators_], axis=0))


def test_the_text_is_read_as_any_other() -> None:
    text = lightgbm.Booster(model_str=add(booster().model_to_string(), grown(forest()))).model_to_string()
    read = trees.parse(text)
    assert len(read.trees) == 7
    assert {split.missing for tree in read.trees[3:] for split in tree.splits} == {"nan"}
    assert {split.feature for tree in read.trees[3:] for split in tree.splits} <= set(COLUMNS.tolist())


def test_what_each_feature_contributes_adds_up() -> None:
    both, rows = lightgbm.Booster(model_str=add(booster().model_to_string(), grown(forest()))), asked(50)
    assert_allclose(both.predict(rows, pred_contrib=True).sum(axis=1), both.predict(rows), atol=1e-9)
