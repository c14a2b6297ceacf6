import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models import booster
from models.booster import Booster, LightGBMError

N_FEATURES = 5
CATEGORY = 4  # its column; 0..5 are seen in training
NAMES = ("hour", "depth", "price", "errors", "destination")


def train(objective: str, **parameters: object) -> lightgbm.Booster:
    random = np.random.default_rng(7)
    matrix = random.normal(size=(1_500, N_FEATURES))
    matrix[:, CATEGORY] = random.integers(0, 6, 1_500)
    matrix[random.random(1_500) < 0.1, 1] = np.nan
    signal = matrix[:, 0] + np.isnan(matrix[:, 1]) + (matrix[:, CATEGORY] == 2)
    label = (signal > 0.5).astype(float) if objective == "binary" else np.abs(signal)
    if objective == "multiclass":
        label = np.digitize(signal, [0.0, 1.0]).astype(float)
    data = lightgbm.Dataset(matrix, label, feature_name=list(NAMES), categorical_feature=[CATEGORY])
    chosen = {"objective": objective, "verbosity": -1, "num_threads": 1, "num_leaves": 15, **parameters}
    return lightgbm.train(chosen, data, num_boost_round=30)


@pytest.fixture(scope="module")
def theirs() -> lightgbm.Booster:
    return train("binary")


@pytest.fixture(scope="module")
def ours(theirs: lightgbm.Booster) -> Booster:
    return Booster.from_text(theirs.model_to_string())


def strange_rows(n_rows: int) -> NDArray[np.float64]:
    random = np.random.default_rng(n_rows)
    matrix = random.normal(size=(n_rows, N_FEATURES)) * 10.0 ** random.integers(-40, 40, (n_rows, N_FEATURES))
    matrix[:, CATEGORY] = random.integers(-3, 40, n_rows)  # mostly categories that training never saw
    for value in (np.nan, np.inf, -np.inf):
        matrix[random.random(matrix.shape) < 0.1] = value
    return matrix


@pytest.mark.parametrize("n_rows", [1, 2, 8, 3_000])
def test_predictions_equal_lightgbms_bit_for_bit(ours: Booster, theirs: lightgbm.Booster, n_rows: int) -> None:
    rows = strange_rows(n_rows)
    expected = theirs.predict(rows, num_threads=1)
    assert ours.predict(rows).tobytes() == expected.tobytes()
    expected = theirs.predict(rows, num_threads=1, raw_score=True)
    assert ours.predict(rows, raw_score=True).tobytes() == expected.tobytes()
    expected = theirs.predict(rows, num_threads=1, pred_contrib=True)
    assert ours.contributions(rows).tobytes() == expected.tobytes()


@pytest.mark.parametrize("objective", ["regression", "poisson", "quantile", "tweedie"])
def test_every_objective_keeps_its_link(objective: str) -> None:
    theirs = train(objective)
    rows = strange_rows(200)
    ours = Booster.from_text(theirs.model_to_string())
    assert ours.predict(rows).tobytes() == theirs.predict(rows, num_threads=1).tobytes()


any_float = st.floats(allow_nan=True, allow_infinity=True, width=64)


@settings(max_examples=200, deadline=None)
@given(row=st.lists(any_float, min_size=N_FEATURES, max_size=N_FEATURES))
def test_any_row_of_floats_gives_lightgbms_prediction_and_a_probability(
    ours: Booster, theirs: lightgbm.Booster, row: list[float]
) -> None:
    predicted = ours.predict([row])
    assert predicted.tobytes() == theirs.predict(np.array([row]), num_threads=1).tobytes()
    assert 0 <= predicted[0] <= 1


def test_layouts_and_types_other_than_c_contiguous_float64_are_copied_and_left_alone(ours: Booster) -> None:
    rows = np.round(np.random.default_rng(1).normal(size=(20, N_FEATURES)) * 3)
    expected = ours.predict(rows).tobytes()
    fortran = np.asfortranarray(rows)
    wide = np.repeat(rows, 2, axis=1)
    assert ours.predict(fortran).tobytes() == expected
    assert ours.predict(wide[:, ::2]).tobytes() == expected
    assert ours.predict(rows[::-1])[::-1].tobytes() == expected
    assert ours.predict(rows.astype(np.int32)).tobytes() == expected
    assert np.array_equal(fortran, rows)


def test_the_model_describes_itself(ours: Booster, theirs: lightgbm.Booster) -> None:
    assert ours.feature_names == NAMES
    assert (ours.n_features, ours.n_trees) == (N_FEATURES, theirs.num_trees())


def test_contributions_of_a_row_sum_to_its_raw_score(ours: Booster) -> None:
    rows = strange_rows(50)
    contributions = ours.contributions(rows)
    assert contributions.shape == (50, N_FEATURES + 1)
    np.testing.assert_allclose(contributions.sum(axis=1), ours.predict(rows, raw_score=True), atol=1e-9)


def test_no_rows_give_no_predictions(ours: Booster) -> None:
    nothing = np.empty((0, N_FEATURES))
    assert ours.predict(nothing).shape == (0,)
    assert ours.contributions(nothing).shape == (0, N_FEATURES + 1)


@pytest.mark.parametrize("shape", [(3, N_FEATURES - 1), (3, N_FEATURES + 1), (N_FEATURES,), (1, 1, N_FEATURES), ()])
def test_another_shape_is_refused_with_both_shapes_named(ours: Booster, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"shape \(n, 5\), got") as refusal:
        ours.predict(np.zeros(shape))
    assert str(shape) in str(refusal.value)


def test_a_file_gives_the_same_model_as_its_text(tmp_path: Path, ours: Booster, theirs: lightgbm.Booster) -> None:
    path = tmp_path / "model.txt"
    theirs.save_model(path)
    rows = strange_rows(100)
    assert Booster.load(path).predict(rows).tobytes() == ours.predict(rows).tobytes()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.txt"):
        Booster.load(tmp_path / "absent.txt")


def test_the_library_says_what_is_wrong_with_a_text() -> None:
    with pytest.raises(LightGBMError, match="number of classes"):
        Booster.from_text("no model")


def test_a_model_of_several_outputs_is_refused() -> None:
    with pytest.raises(LightGBMError, match="one output per row, got 3"):
        Booster.from_text(train("multiclass", num_class=3).model_to_string())


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(LightGBMError, match="LightGBM must be installed"):
        booster.library_path()


def test_predictions_run_in_many_threads_at_once_and_survive_a_close(theirs: lightgbm.Booster) -> None:
    text = theirs.model_to_string()
    rows = strange_rows(64)
    expected = theirs.predict(rows, num_threads=1).tobytes()
    for _ in range(10):
        shared = Booster.from_text(text)
        with ThreadPoolExecutor(8) as pool:
            started = [pool.submit(shared.predict, rows) for _ in range(64)]
            assert all(prediction.result().tobytes() == expected for prediction in started[:32])
            shared.close()
            late = [prediction.exception() or prediction.result().tobytes() for prediction in started[32:]]
        assert all(one == expected or isinstance(one, ValueError) for one in late)


def test_a_closed_booster_says_so(theirs: lightgbm.Booster) -> None:
    closed = Booster.from_text(theirs.model_to_string())
    closed.close()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        closed.predict(np.zeros((1, N_FEATURES)))


def test_scoring_never_imports_the_python_package(tmp_path: Path, theirs: lightgbm.Booster) -> None:
    theirs.save_model(tmp_path / "model.txt")
    program = (
        "import sys; from models.booster import Booster\n"
        f"Booster.load(sys.argv[1]).predict([[0.0] * {N_FEATURES}])\n"
        "print(sorted({'lightgbm', 'pandas', 'sklearn', 'scipy'} & sys.modules.keys()))"
    )
    child = [sys.executable, "-c", program, str(tmp_path / "model.txt")]
    ran = subprocess.run(child, capture_output=True, text=True, check=True, cwd=Path(booster.__file__).parents[1])
    assert ran.stdout.strip() == "[]"
