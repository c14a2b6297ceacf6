import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.lags import Lags
from features.panel import Panel
from models import forecaster_fit
from models.forecaster import ForecasterConfig, widened

CONFIG = ForecasterConfig(calibration_days=30, min_rows_per_leaf=20, n_rounds=5, n_threads=1)


def noisy_panel(n_days: int = 100) -> Panel:
    load = np.random.default_rng(2).poisson(9.0, (2, n_days * 24)).astype(float)
    return Panel(series=("a", "b"), start=np.datetime64("2024-01-01T00"), load=load)


@pytest.mark.parametrize("narrowness", [0.3, 1.0, 2.0])
def test_each_tail_holds_a_tenth_after_calibration_however_wrong_the_band(narrowness: float) -> None:
    random = np.random.default_rng(11)
    centre, noise = random.uniform(5, 50, 8_000), random.gamma(2.0, 1.0, 8_000)  # skewed: the tails differ
    load = centre + noise * np.sqrt(centre)
    band = np.column_stack([centre + (1.68 + q * narrowness) * np.sqrt(centre) for q in (-0.8, 0.0, 0.8)])
    low, high = forecaster_fit.calibrate(band[:4_000], load[:4_000])
    moved = widened(band[4_000:], low, high)
    assert (load[4_000:] < moved[:, 0]).mean() == pytest.approx(0.1, abs=0.02)
    assert (load[4_000:] > moved[:, 2]).mean() == pytest.approx(0.1, abs=0.02)


def test_hours_whose_band_is_a_point_do_not_hide_those_that_are_missed() -> None:
    random = np.random.default_rng(4)
    day = np.tile([4.0, 5.0, 6.0], (1_000, 1))
    night = np.zeros((1_000, 3))
    load = random.normal(5.0, 4.0, 1_000)
    alone = forecaster_fit.calibrate(day, load)
    assert forecaster_fit.calibrate(np.vstack([day, night]), np.concatenate([load, np.zeros(1_000)])) == alone
    assert min(alone) > 1


def test_too_few_open_hours_move_nothing() -> None:
    band = np.tile([1.0, 2.0, 3.0], (8, 1))  # the ninth of nine scores would be needed
    assert forecaster_fit.calibrate(band, np.full(8, 99.0)) == (0.0, 0.0)
    assert forecaster_fit.calibrate(np.vstack([band, band[:1]]), np.full(9, 99.0))[1] == 48.0


three = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)


@given(quantiles=three, low=st.floats(-3, 3), high=st.floats(-3, 3))
def test_a_widened_band_is_ordered_not_negative_and_keeps_its_median(
    quantiles: list[float], low: float, high: float
) -> None:
    band = widened(np.array([quantiles]), low, high)[0]
    assert 0 <= band[0] <= band[1] <= band[2]
    assert band[1] == max(0.0, sorted(quantiles)[1])


def test_no_row_of_the_fit_reaches_into_the_calibration() -> None:
    panel = noisy_panel(n_days=130)
    cut = panel.n_hours - 30 * 24
    changed = panel.load.copy()
    changed[:, cut:] = np.random.default_rng(9).poisson(90.0, changed[:, cut:].shape)
    other = Panel(series=panel.series, start=panel.start, load=changed)
    trained = [forecaster_fit.train(each, CONFIG, seed=1).card for each in (panel, other)]
    assert trained[0].digests == trained[1].digests
    assert trained[0].widen_high < trained[1].widen_high


def test_no_row_of_the_calibration_starts_before_the_cut() -> None:
    panel = noisy_panel()
    lags = Lags(panel, horizon_hours=24, zone="UTC", holidays="none")
    cut = panel.n_hours - 30 * 24
    series, origin, step = forecaster_fit._grid(2, cut, panel.n_hours, CONFIG)
    assert origin.min() == cut
    assert (origin + step).max() < panel.n_hours
    assert set((origin % 24).tolist()) == set(range(24))
    assert len(forecaster_fit._rows(panel, lags, CONFIG, cut, panel.n_hours).load) == len(series)


def test_the_card_tells_what_was_trained_on() -> None:
    card = forecaster_fit.train(noisy_panel(), CONFIG, seed=7).card
    assert (card.trained_from.isoformat(), card.trained_until.isoformat()) == (
        *("2024-01-01T00:00:00+00:00", "2024-04-10T00:00:00+00:00"),
    )
    assert (card.seed, card.series, card.reason) == (7, ("a", "b"), None)
    assert card.n_rows > card.n_calibration_rows > 0


def test_a_short_panel_keeps_three_quarters_for_the_fit() -> None:
    card = forecaster_fit.train(noisy_panel(n_days=60), CONFIG, seed=1).card
    assert card.reason is None
    assert card.n_calibration_rows < card.n_rows


def test_too_short_a_panel_says_how_many_rows_are_missing() -> None:
    card = forecaster_fit.train(noisy_panel(n_days=16), CONFIG, seed=1).card
    assert card.reason is not None
    assert card.reason.startswith("needs 40 rows with history to fit and as many to calibrate, got 0 and ")
