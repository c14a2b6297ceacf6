"""Fits a router's heads with LightGBM, from the outcomes of the destinations that were assigned. The pipeline's side; the shim never imports it."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import lightgbm
import msgspec
import numpy as np
from numpy.typing import NDArray

from features.config import Training
from features.decision_log import DecisionLog
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn, FeatureDefinitions
from models import router
from models.encoding import Encoder
from models.router import Card, Head, HeadName

Floats = NDArray[np.float64]
MAX_CATEGORIES = 1_000  # per column: the most frequent are kept, the rest read as missing, so that memory stays bounded
N_GOLDEN_ROWS = 32
VALUE_TAIL = 0.02  # of the predictions on each side that the reward model gives up for narrower bounds


class TrainingRefusedError(ValueError):
    """Data that no router should be fitted on: names the column and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One row per revealed outcome: the assigned candidate's vector and what became of it.

    ``numbers`` float64[n, n_numbers] in the order of ``number_names``, ``categories`` one column per name in
    ``category_names``; ``success`` 0/1, ``latency_ms`` and ``cost_usd`` float64[n], NaN where an outcome does not
    say; ``propensity`` float64[n] of the assignment.
    """

    number_names: tuple[str, ...]
    category_names: tuple[str, ...]
    numbers: Floats
    categories: Sequence[CategoryColumn]
    success: Floats
    latency_ms: Floats
    cost_usd: Floats
    propensity: Floats

    @classmethod
    def of(cls, log: DecisionLog, features: FeatureDefinitions) -> Self:
        """Return the assigned candidates' rows of ``log`` with their outcomes."""
        return cls(
            number_names=tuple(features.numbers),
            category_names=tuple(features.categories),
            numbers=log.numbers[log.chosen],
            categories=[column.take(log.chosen) for column in log.categories],
            success=log.success,
            latency_ms=log.latency_ms,
            cost_usd=log.cost_usd,
            propensity=log.propensity,
        )


def train(
    examples: Examples,
    folder: Path,
    *,
    stream: str,
    feature_set: str,
    objective: Objective,
    destinations: tuple[str, ...],
    settings: Training,
    trained: Mapping[str, str | float | int],
    limited: Collection[str] = (),
) -> router.Router:
    """Fit every head the objective weighs or a limit is on (``limited``), write the router to ``folder``, and return it as loaded from there.

    The same examples, settings and number of threads give the same bytes. Rows are weighted by the inverse propensity,
    clipped at ``settings.max_weight`` (1: not at all): the fit then leans towards choices the logging policy rarely took.

    Raises
    ------
    TrainingRefusedError
        If there are too few rows, a label has one class or is not finite, or a feature is infinite.
    """
    _check(examples, settings)
    orders = {name: _order(column) for name, column in zip(examples.category_names, examples.categories, strict=True)}
    matrix = Encoder(orders).columns(examples.numbers, examples.categories)
    weight = np.minimum(1.0 / examples.propensity, settings.max_weight)
    folder.mkdir(parents=True, exist_ok=True)
    heads: dict[HeadName, Head] = {}
    for name, labels in _labels(examples, objective, limited).items():
        offset = settings.latency_offset if name == "latency_ms" else None
        heads[name] = _fit_head(name, labels, matrix, weight, examples, settings, offset, folder)
    card = Card(
        stream=stream,
        feature_set=feature_set,
        numbers=examples.number_names,
        categories=orders,
        heads=heads,
        objective=objective,
        destinations=destinations,
        value_low=objective.low,
        value_high=objective.high,
        trained={**trained, "n_examples": len(matrix), "lightgbm": lightgbm.__version__, "seed": settings.seed},
    )
    _write_card(folder, card)
    values = objective.clip(router.load(folder).score_matrix(matrix).value)
    low, high = np.quantile(values, (VALUE_TAIL, 1.0 - VALUE_TAIL)).tolist()
    if low < high:  # a router that says the same of everything keeps the objective's own bounds
        _write_card(folder, msgspec.structs.replace(card, value_low=low, value_high=high))
    loaded = router.load(folder)
    router.save_golden(folder, loaded, _golden_rows(matrix))
    return loaded


def _write_card(folder: Path, card: Card) -> None:
    (folder / router.CARD_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(card)))


def _check(examples: Examples, settings: Training) -> None:
    n_rows = len(examples.numbers)
    if n_rows < settings.min_decisions:
        raise TrainingRefusedError(f"{n_rows} outcomes are too few, training.min_decisions is {settings.min_decisions}")
    for column, name in enumerate(examples.number_names):
        if np.isinf(examples.numbers[:, column]).any():
            raise TrainingRefusedError(f"numbers.{name}: holds infinite values")
    if not ((examples.propensity > 0) & (examples.propensity <= 1)).all():
        raise TrainingRefusedError("propensity: holds values outside (0, 1]")
    if settings.latency_offset is not None and settings.latency_offset not in examples.number_names:
        raise TrainingRefusedError(f"training.latency_offset: {settings.latency_offset!r} is not a number feature")


def _labels(examples: Examples, objective: Objective, limited: Collection[str]) -> dict[HeadName, Floats]:
    """Return the labels of each head the objective weighs; success and latency are worth knowing wherever they vary."""
    labels: dict[HeadName, Floats] = {}
    success = examples.success[~np.isnan(examples.success)]
    if not np.isin(success, (0.0, 1.0)).all():
        raise TrainingRefusedError("success: labels must be 0 or 1")
    if success.size and success.min() < success.max():
        labels["success_probability"] = examples.success
    elif objective.success:
        raise TrainingRefusedError(
            f"success: the objective weighs it, but all {success.size} outcomes are of one class"
        )
    weighed: tuple[tuple[HeadName, Floats, bool], ...] = (
        ("latency_ms", examples.latency_ms, objective.uses_latency()),
        ("cost_usd", examples.cost_usd, bool(objective.cost_usd)),
    )
    for name, values, needed in weighed:
        if not needed and name not in limited:
            continue
        if np.isnan(values).all():
            why = "the objective weighs it" if needed else "a limit is on it"
            raise TrainingRefusedError(f"{name}: {why}, but no outcome says it")
        if np.isinf(values).any():
            raise TrainingRefusedError(f"{name}: holds infinite values")
        labels[name] = values
    return labels


def _fit_head(
    name: HeadName,
    labels: Floats,
    matrix: Floats,
    weight: Floats,
    examples: Examples,
    settings: Training,
    offset: str | None,
    folder: Path,
) -> Head:
    known = ~np.isnan(labels)
    low, high = float(labels[known].min()), float(labels[known].max())
    target = labels.copy()
    if offset is not None:
        promised = matrix[:, examples.number_names.index(offset)]
        target -= np.nan_to_num(promised) * MS_PER_MINUTE
    files = []
    for number in range(settings.n_boosters):
        booster = lightgbm.train(
            _parameters(name, settings, seed=settings.seed + number),
            lightgbm.Dataset(
                matrix[known],
                target[known],
                weight=weight[known],
                feature_name=[*examples.number_names, *examples.category_names],
                categorical_feature=list(range(len(examples.number_names), matrix.shape[1])),
                free_raw_data=True,
            ),
            num_boost_round=settings.rounds,
        )
        files.append(f"{name}_{number}.txt")
        booster.save_model(folder / files[-1])
    return Head(files=tuple(files), low=low, high=high, offset=offset)


def _parameters(name: HeadName, settings: Training, *, seed: int) -> dict[str, Any]:
    return {
        "objective": "binary" if name == "success_probability" else "regression",
        "learning_rate": settings.learning_rate,
        "num_leaves": settings.leaves,
        "min_data_in_leaf": settings.min_leaf,
        "feature_fraction": settings.feature_share,
        "bagging_fraction": settings.row_share,
        "bagging_freq": 1 if settings.row_share < 1 else 0,
        "lambda_l2": settings.l2,
        "max_bin": settings.max_bin,
        "cat_smooth": settings.category_smoothing,
        "seed": seed,
        "num_threads": settings.threads,
        "deterministic": True,
        "force_row_wise": True,  # the choice between layouts is timed, so it must not be left to the library
        "verbosity": -1,
    }


def _order(column: CategoryColumn) -> tuple[str, ...]:
    """Return the values of a column in a fixed order: alphabetical among the most frequent."""
    counts = np.bincount(column.codes[column.codes >= 0], minlength=len(column.values))
    frequent = sorted(range(len(column.values)), key=lambda code: (-counts[code], column.values[code]))[:MAX_CATEGORIES]
    return tuple(sorted(column.values[code] for code in frequent if counts[code]))


def _golden_rows(matrix: Floats) -> Floats:
    """Pick rows by their own content, so that the same data give the same golden rows in any order."""
    keys = [hashlib.sha256(row.tobytes()).digest() for row in matrix[: 64 * N_GOLDEN_ROWS]]
    return matrix[sorted(range(len(keys)), key=keys.__getitem__)[:N_GOLDEN_ROWS]]
