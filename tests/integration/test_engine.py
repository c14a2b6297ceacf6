import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import compiling, engine, trees
from models.booster import Booster
from models.compiling import UnequalTablesError
from models.engine import Engine, NumpyMasks, Tables
from models.leaf_masks import LeafMasks, TableError
from models.trees import UnsupportedModelError

Floats = NDArray[np.float64]
N_FEATURES = 7
CATEGORIES = (4, 5)
CONSTANT = 6

FASTEST = "c" if engine.is_compiled() else "numpy"
needs_c = pytest.mark.skipif(not engine.is_compiled(), reason="no compiler at the installation")


def train(parameters: dict[str, object], *, n_rows: int = 1_500, rounds: int = 25, seed: int = 7) -> str:
    """Train on numbers with zeros and gaps, categories with and without gaps, and a column that never varies."""
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(n_rows, N_FEATURES)) * [1.0, 1e-35, 10.0, 1.0, 1.0, 1.0, 1.0]
    matrix[:, 4], matrix[:, 5] = random.integers(0, 6, n_rows), random.integers(0, 90, n_rows)
    matrix[:, CONSTANT] = 3.0
    matrix[random.random(n_rows) < 0.3, 2] = 0.0
    matrix[random.random(n_rows) < 0.1, 3] = np.nan
    matrix[random.random(n_rows) < 0.1, 5] = np.nan
    signal = matrix[:, 0] + (matrix[:, 2] > 0) + np.isnan(matrix[:, 3]) + (matrix[:, 4] == 2) + (matrix[:, 5] % 7 == 1)
    signal += random.normal(size=n_rows) * 0.1
    objective = str(parameters["objective"])
    binary = objective in ("binary", "cross_entropy", "cross_entropy_lambda")
    label = (signal > 1.0).astype(float) if binary else np.abs(signal) + 0.1
    data = lightgbm.Dataset(matrix, label, categorical_feature=list(CATEGORIES), free_raw_data=False)
    chosen = {"verbosity": -1, "num_threads": 1, "num_leaves": 31, "min_data_in_leaf": 3, "seed": seed, **parameters}
    if objective == "custom":
        chosen["objective"] = lambda predicted, of: (predicted - of.get_label(), np.ones(len(predicted)))
    return lightgbm.train(chosen, data, num_boost_round=rounds).model_to_string()


def compiled(text: str) -> tuple[Booster, dict[str, Tables], LeafMasks]:
    """Return LightGBM's form of a model and every other that is to be had."""
    tables = LeafMasks.build(trees.parse(text))
    forms: dict[str, Tables] = {"numpy": NumpyMasks(tables)}
    if engine.is_compiled():
        forms["c"] = engine.compile_tables(tables)
    return Booster.from_text(text), forms, tables


def assert_equal(booster: Booster, forms: dict[str, Tables], rows: Floats) -> None:
    for raw_score in (True, False):
        expected = booster.predict(rows, raw_score=raw_score)
        for name, form in forms.items():
            said = np.empty(len(rows))
            form.score(rows, said, raw_score)
            assert np.array_equal(said, expected, equal_nan=True), name


MODELS: dict[str, dict[str, object]] = {
    "binary": {"objective": "binary"},
    "binary with its own sigmoid": {"objective": "binary", "sigmoid": 0.37},
    "regression": {"objective": "regression"},
    "square root of regression": {"objective": "regression", "reg_sqrt": True},
    "absolute error": {"objective": "regression_l1"},
    "huber": {"objective": "huber"},
    "fair": {"objective": "fair"},
    "quantile": {"objective": "quantile", "alpha": 0.9},
    "mape": {"objective": "mape"},
    "poisson": {"objective": "poisson"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "cross entropy": {"objective": "cross_entropy"},
    "cross entropy lambda": {"objective": "cross_entropy_lambda"},
    "the caller's own": {"objective": "custom"},
    "random forest": {"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "random forest of means": {"objective": "poisson", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    "dart": {"objective": "binary", "boosting": "dart"},
    "goss": {"objective": "binary", "data_sample_strategy": "goss"},
    "zero is missing": {"objective": "binary", "zero_as_missing": True},
    "nothing is missing": {"objective": "binary", "use_missing": False},
    "one category against all others": {"objective": "binary", "max_cat_to_onehot": 100},
    "many categories on a side": {"objective": "binary", "max_cat_threshold": 64, "cat_smooth": 0.1, "cat_l2": 0.1},
    "stumps": {"objective": "regression", "num_leaves": 2},
    "32 leaves": {"objective": "regression", "num_leaves": 32},
    "33 leaves": {"objective": "regression", "num_leaves": 33},
    "64 leaves": {"objective": "regression", "num_leaves": 64},
    "no leaf may be split": {"objective": "binary", "min_data_in_leaf": 5_000},
    "few bins": {"objective": "binary", "max_bin": 4},
    "linked by monotony": {"objective": "regression", "monotone_constraints": [1, 0, -1, 0, 0, 0, 0]},
    "random thresholds": {"objective": "binary", "extra_trees": True},
}


@pytest.mark.parametrize("name", MODELS)
def test_every_form_scores_to_lightgbms_bits(name: str) -> None:
    booster, forms, tables = compiled(train(MODELS[name]))
    assert_equal(booster, forms, compiling.proof_rows(tables, 4_000, seed=1))


@pytest.mark.parametrize("n_rows", [20, 60, 300])
def test_models_of_hardly_any_data_score_to_the_same_bits(n_rows: int) -> None:
    for seed in range(5):
        booster, forms, tables = compiled(train({"objective": "regression"}, n_rows=n_rows, seed=seed))
        assert_equal(booster, forms, compiling.proof_rows(tables, 500, seed=seed))


def test_one_event_with_its_candidates_scores_as_row_by_row() -> None:
    booster, forms, tables = compiled(train({"objective": "binary"}))
    random = np.random.default_rng(3)
    for n_candidates in (1, 2, 3, 4, 5, 8, 31, 32, 33, 65, 300):
        rows = compiling.proof_rows(tables, n_candidates, seed=n_candidates)
        rows[:, random.random(N_FEATURES) < 0.6] = rows[0, 0]  # the event's side
        assert_equal(booster, forms, rows)


@pytest.mark.parametrize("name", ["binary", "33 leaves"])
def test_what_is_remembered_of_destinations_changes_no_bit(name: str) -> None:
    booster, forms, tables = compiled(train(MODELS[name]))
    random = np.random.default_rng(4)
    destinations = compiling.proof_rows(tables, 300, seed=9)  # more than are remembered
    for number in range(400):
        n_candidates = int(random.integers(1, 33))
        rows = destinations[random.integers(0, 300 if number % 2 else 20, n_candidates)]
        n_event = int(random.integers(2, N_FEATURES)) if number % 50 == 0 else 5  # now and then more columns differ
        rows[:, :n_event] = compiling.proof_rows(tables, 1, seed=number)[0, :n_event]
        assert_equal(booster, forms, rows)


def test_columns_are_learned_anew_after_a_season() -> None:
    booster, forms, tables = compiled(train({"objective": "binary"}))
    events = [compiling.proof_rows(tables, 4, seed=number) for number in range(8)]
    for event in events[1:]:
        event[:, :4] = event[0, :4]
    expected = [booster.predict(event, raw_score=True) for event in events]
    for number in range(9_000):
        said = np.empty(4)
        forms[FASTEST].score(events[number and number % 8], said, True)
        assert np.array_equal(said, expected[number and number % 8])


def random_text(seed: int) -> str:
    """Write a model that no training would make: any shape of tree, kind of missing, threshold and bitset."""
    random = np.random.default_rng(seed)
    objective = random.choice(["binary sigmoid:0.5", "regression", "poisson", "regression sqrt", ""])
    head = ["tree", "version=v4", "num_class=1", "num_tree_per_iteration=1", "label_index=0", "max_feature_idx=6"]
    head += [f"objective={objective}"] if objective else []
    head += ["average_output"] if random.random() < 0.2 else []
    head += ["feature_names=a b c d e f g", "feature_infos=" + " ".join(["none"] * 7), ""]
    most = int(random.choice([2, 5, 32, 33, 64]))
    blocks = [
        random_tree(random, number, int(random.integers(1, most + 1))) for number in range(random.integers(1, 40))
    ]
    return "\n".join([*head, *blocks, "end of trees", ""])


def random_tree(random: np.random.Generator, number: int, n_leaves: int) -> str:
    lines = [f"Tree={number}", f"num_leaves={n_leaves}"]
    leaves = " ".join(repr(float(value)) for value in random.normal(size=n_leaves) * 10.0 ** random.integers(-9, 3))
    if n_leaves == 1:
        return "\n".join([*lines, "num_cat=0", f"leaf_value={leaves}", "is_linear=0", "shrinkage=1", "", ""])
    left, right = grow(random, n_leaves)
    features = random.integers(0, N_FEATURES, n_leaves - 1)
    decisions, thresholds, bounds, words = [], [], [0], []
    for feature in features:
        if feature in CATEGORIES:
            bitset = random.integers(0, 2**32, random.integers(1, 5), dtype=np.uint64)
            decisions.append(1)
            thresholds.append(str(len(bounds) - 1))
            words += map(str, bitset)
            bounds.append(len(words))
        else:
            decisions.append(int(random.integers(0, 3)) << 2 | int(random.integers(0, 2)) << 1)
            thresholds.append(
                repr(float(random.choice([0.0, 1e-36, -1e-36, 1e-35, -1.0, 1.0, random.normal(), 1e300])))
            )
    columns = {
        "num_cat": [len(bounds) - 1],
        "split_feature": features,
        "split_gain": [1] * len(features),
        "threshold": thresholds,
        "decision_type": decisions,
        "left_child": left,
        "right_child": right,
    }
    lines += [f"{name}={' '.join(map(str, column))}" for name, column in columns.items()]
    lines += [f"leaf_value={leaves}"]
    if len(bounds) > 1:
        lines += [f"cat_boundaries={' '.join(map(str, bounds))}", f"cat_threshold={' '.join(words)}"]
    return "\n".join([*lines, "is_linear=0", "shrinkage=1", "", ""])


def grow(random: np.random.Generator, n_leaves: int) -> tuple[Sequence[int], Sequence[int]]:
    """Split a leaf drawn at random until there are enough, numbered as LightGBM numbers them."""
    left, right = [], []
    parents: dict[int, tuple[list[int], int]] = {}
    for node in range(n_leaves - 1):
        leaf = int(random.integers(0, node + 1))
        if leaf in parents:
            children, place = parents[leaf]
            children[place] = node
        left.append(~leaf)
        right.append(~(node + 1))
        parents[leaf], parents[node + 1] = (left, node), (right, node)
    return left, right


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_trees_of_any_shape_and_decision_score_to_lightgbms_bits(seed: int) -> None:
    booster, forms, tables = compiled(random_text(seed))
    assert_equal(booster, forms, compiling.proof_rows(tables, 200, seed=seed))


any_float = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64)


@settings(max_examples=200)
@given(rows=st.lists(st.lists(any_float, min_size=N_FEATURES, max_size=N_FEATURES), min_size=1, max_size=9))
def test_any_floats_score_to_lightgbms_bits(rows: list[list[float]]) -> None:
    booster, forms, _ = STRANGE
    assert_equal(booster, forms, np.array(rows))


STRANGE = compiled(random_text(11))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"objective": "regression", "num_leaves": 65}, "64 leaves, got 65"),
        ({"objective": "regression", "linear_tree": True}, "linear leaves"),
        ({"objective": "multiclass", "num_class": 3}, "num_class must be 1, got 3"),
    ],
)
def test_what_the_tables_cannot_hold_is_refused_by_name(parameters: dict[str, object], words: str) -> None:
    text = train(parameters) if parameters["objective"] != "multiclass" else multiclass()
    with pytest.raises(UnsupportedModelError, match=words):
        LeafMasks.build(trees.parse(text))


def multiclass() -> str:
    random = np.random.default_rng(0)
    data = lightgbm.Dataset(random.normal(size=(300, 2)), random.integers(0, 3, 300))
    chosen = {"objective": "multiclass", "num_class": 3, "verbosity": -1, "num_threads": 1}
    return lightgbm.train(chosen, data, num_boost_round=2).model_to_string()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A booster's text with its tables beside it."""
    path = tmp_path / "model.txt"
    path.write_text(train({"objective": "binary"}))
    LeafMasks.build(trees.parse(path.read_text())).write(path.with_suffix(".masks"))
    return path


def test_an_engine_takes_the_fastest_form_that_is_there(saved: Path) -> None:
    rows = compiling.proof_rows(LeafMasks.read(saved.with_suffix(".masks")), 50, seed=0)
    expected = Booster.load(saved).predict(rows)
    forms = {fastest: Engine.load(saved, fastest=fastest) for fastest in engine.FORMS}
    for fastest, loaded in forms.items():
        assert loaded.form == (fastest if engine.is_compiled() or fastest != "c" else "numpy")
        assert np.array_equal(loaded.predict(rows), expected)
        assert np.array_equal(loaded.contributions(rows), Booster.load(saved).contributions(rows))
    saved.with_suffix(".masks").unlink()
    assert Engine.load(saved).form == "booster"


def test_tables_of_another_model_are_found_out(saved: Path) -> None:
    compiling.prove(saved)
    other = train({"objective": "binary"}, seed=8)
    LeafMasks.build(trees.parse(other)).write(saved.with_suffix(".masks"))
    with pytest.raises(UnequalTablesError, match=r"model\.masks: row \d+ is .* by LightGBM"):
        compiling.prove(saved)


@settings(max_examples=300)
@given(place=st.integers(0, 1_400), byte=st.integers(0, 255))
def test_an_edited_head_or_column_is_refused_or_scores_without_harm(place: int, byte: int) -> None:
    path = EDITED
    data = bytearray(ORIGINAL)
    data[24 + place] = byte
    path.write_bytes(data)
    try:
        tables = LeafMasks.read(path)
    except TableError:
        return
    rows = np.zeros((40, tables.n_features))
    rows[:, 0] = np.arange(40)
    for form in (NumpyMasks(tables), *([engine.compile_tables(tables)] if engine.is_compiled() else [])):
        form.score(rows, np.empty(40), True)


@pytest.fixture(scope="module", autouse=True)
def _edited(tmp_path_factory: pytest.TempPathFactory) -> None:
    global EDITED, ORIGINAL  # noqa: PLW0603 - Hypothesis refuses fixtures made anew per example
    EDITED = tmp_path_factory.mktemp("edited") / "model.masks"
    LeafMasks.build(trees.parse(random_text(5))).write(EDITED)
    ORIGINAL = EDITED.read_bytes()


EDITED, ORIGINAL = Path(), b""


@needs_c
def test_scoring_by_tables_reads_no_lightgbm(saved: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from models.engine import Engine\n"
        f"print(Engine.load(Path(sys.argv[1])).predict(np.zeros((2, {N_FEATURES}))).shape)\n"
        "print('lib_lightgbm' in Path('/proc/self/maps').read_text() if sys.platform == 'linux' else False)"
    )
    child = [sys.executable, "-c", program, str(saved)]
    ran = subprocess.run(child, capture_output=True, text=True, check=True, cwd=Path(engine.__file__).parents[1])
    assert ran.stdout.split("\n")[:2] == ["(2,)", "False"]
