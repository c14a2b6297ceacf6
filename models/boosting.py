"""Trains LightGBM on rows that are binned once: every head, fold and destination reads the same bins."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.choices import Training
from features.scratch import ROWS_AT_ONCE
from models import binning
from models.card import HeadName
from models.encoding import EncodedRows

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

Fitted = Sequence[lightgbm.Booster]
N_SHARED_ROWS = 10_000  # with fewer, threads wait for each other longer than they work


class Trainer:
    """Encoded rows, binned, and the settings that all boosters on them share.

    The same rows, labels, settings and number of threads give the same bytes.
    """

    def __init__(
        self, rows: EncodedRows, number_names: Sequence[str], category_names: Sequence[str], settings: Training
    ) -> None:
        """Bin ``rows``, which are not kept."""
        self.settings = settings
        self._data = binning.bin_rows(rows, number_names, category_names, _bin_parameters(settings))
        self._n_rows = len(rows)

    def fit(
        self, name: HeadName, labels: Floats, weight: Floats, *, rows: Integers, rounds: int, number: int = 0
    ) -> lightgbm.Booster:
        """Return booster ``number`` of a head, fitted on ``rows``; ``labels`` and ``weight`` are float64[n]."""
        data = self._data if len(rows) == self._n_rows else self._data.subset(np.sort(rows).tolist()).construct()
        at = np.sort(rows)
        data.set_label(labels[at])
        data.set_weight(weight[at])
        chosen = parameters(name, self.settings, seed=self.settings.seed + number)
        if len(rows) < N_SHARED_ROWS:
            chosen["num_threads"] = 1
        return lightgbm.train(chosen, data, num_boost_round=rounds)

    def fit_projections(
        self, labels: Iterable[Floats], weight: Floats, rows: Integers, chosen: Mapping[str, Any], *, seed: int
    ) -> lightgbm.Booster:
        """Return a booster with a tree for each of ``labels`` (float64[n]), none of which knows of the others.

        ``rows`` (rising) are fitted on, with LightGBM's parameters ``chosen``. Each tree fits its label from zero: what
        the trees before it say is not subtracted.
        """
        data = self._data.subset(rows.tolist()).construct()
        seeds = dict.fromkeys(("bagging_seed", "feature_fraction_seed", "extra_seed"), seed)
        threads = 1 if len(rows) < N_SHARED_ROWS else self.settings.threads
        fixed = {"objective": "none", "learning_rate": 1.0, "deterministic": True, "num_threads": threads}
        booster = lightgbm.Booster({**_bin_parameters(self.settings), **fixed, **seeds, **chosen}, data)
        curvature = weight[rows]
        for label in labels:
            booster.update(fobj=_from_zero(label[rows], curvature))
        return booster

    def fit_all(
        self, name: HeadName, labels: Floats, weight: Floats, *, rows: Integers, rounds: int
    ) -> list[lightgbm.Booster]:
        """Return the ``n_boosters`` boosters of a head that are averaged."""
        return [
            self.fit(name, labels, weight, rows=rows, rounds=rounds, number=number)
            for number in range(self.settings.n_boosters)
        ]


def _from_zero(label: Floats, weight: Floats) -> Callable[[Floats, lightgbm.Dataset], tuple[Floats, Floats]]:
    """Return the gradient and curvature of the weighted square of ``label``, whatever has been predicted so far."""
    return lambda _predicted, _data: (-label * weight, weight)


def predict(boosters: Fitted, matrix: Floats, *, rounds: int, threads: int) -> Floats:
    """Return the mean prediction of ``boosters`` after their first ``rounds``, float64[n]."""
    total = np.zeros(len(matrix))
    for booster in boosters:
        total += booster.predict(matrix, num_iteration=rounds, num_threads=threads)
    return total / len(boosters)


def predict_rows(booster: lightgbm.Booster, rows: EncodedRows, at: Integers, *, rounds: int, threads: int) -> Floats:
    """Return what ``booster`` predicts of the rows ``at``, float64[n_at], some at a time."""
    pieces = (at[start : start + ROWS_AT_ONCE] for start in range(0, len(at), ROWS_AT_ONCE))
    return np.concatenate([predict([booster], rows.take(some), rounds=rounds, threads=threads) for some in pieces])


def rows_by_destination(destination: Integers, known: Integers, n_least: int) -> Mapping[int, Integers]:
    """Return, by code, the ``known`` rows of every destination that has at least ``n_least`` of them."""
    codes, counts = np.unique(destination[known], return_counts=True)
    enough = (int(code) for code, count in zip(codes, counts, strict=True) if code >= 0 and count >= n_least)
    return {code: known[destination[known] == code] for code in enough}


def _bin_parameters(settings: Training) -> dict[str, Any]:
    return {
        "max_bin": settings.max_bin,
        "feature_pre_filter": False,  # what splits nothing in all rows may split the rows of one destination
        "data_random_seed": settings.seed,
        "num_threads": settings.threads,
        "force_row_wise": True,  # the choice between layouts is timed, so it must not be left to the library
        "verbosity": -1,
    }


def parameters(name: HeadName, settings: Training, *, seed: int) -> dict[str, Any]:
    """Return LightGBM's parameters for a booster of a head."""
    return {
        **_bin_parameters(settings),
        "objective": "binary" if name == "success_probability" else "regression",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1 if settings.row_share < 1 else 0,
        "lambda_l2": settings.l2,
        "cat_smooth": settings.category_smoothing,
        "bagging_seed": seed,
        "feature_fraction_seed": seed,
        "deterministic": True,
    }
