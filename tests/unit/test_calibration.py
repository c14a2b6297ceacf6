"""Scaling of probabilities: it mends what is too sure of itself, and leaves alone what it cannot judge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import calibration
from models.calibration import Scaling


def _drawn(slope: float, intercept: float, n: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Return predictions whose log-odds are off by ``slope`` and ``intercept``, and what happened."""
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.02, 0.98, n)
    truth = Scaling(slope=slope, intercept=intercept).apply(predicted)
    return predicted, (rng.uniform(size=n) < truth).astype(np.float64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, 0.3), (2.0, -0.5)])
def test_the_scaling_that_the_data_were_made_with_is_found(slope: float, intercept: float) -> None:
    found = calibration.fit(*_drawn(slope, intercept))
    assert found is not None
    assert found.slope == pytest.approx(slope, rel=0.06)
    assert found.intercept == pytest.approx(intercept, abs=0.06)


def test_scaled_predictions_have_less_loss_on_rows_not_fitted_on() -> None:
    predicted, happened = _drawn(0.5, 0.0)
    found = calibration.fit(predicted[:10_000], happened[:10_000])
    assert found is not None
    late = slice(10_000, None)
    before = calibration.log_loss(predicted[late], happened[late])
    assert calibration.log_loss(found.apply(predicted[late]), happened[late]) < before - 0.01


@given(st.floats(0.05, 20.0), st.floats(-3.0, 3.0), st.lists(st.floats(0.0, 1.0), min_size=2, max_size=20))
def test_the_order_of_predictions_is_kept(slope: float, intercept: float, given_: list[float]) -> None:
    rising = np.sort(np.array(given_))
    assert (np.diff(Scaling(slope=slope, intercept=intercept).apply(rising)) >= 0.0).all()


def test_what_it_cannot_judge_is_left_alone() -> None:
    few = np.full(calibration.MIN_ROWS - 1, 0.5)
    assert calibration.fit(few, np.arange(len(few)) % 2.0) is None
    many = np.linspace(0.1, 0.9, 1_000)
    assert calibration.fit(many, np.ones(1_000)) is None
    assert calibration.fit(many, (many < 0.5).astype(np.float64)) is None  # the wrong way round


def test_predictions_that_all_say_the_same_are_moved_to_the_mean() -> None:
    happened = (np.arange(1_000) % 4 == 0).astype(np.float64)
    found = calibration.fit(np.full(1_000, 0.5), happened)
    assert found is None or found.apply(np.array([0.5]))[0] == pytest.approx(0.25, abs=0.01)
