"""Composes the product's classifier and router for prompts: class probabilities out of fold and the text's shape are what the router knows."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.llm_prompts import SHAPE_NAMES, Floats, Prompts, measure_shapes
from features.config import Training
from features.decision_log import DecisionLog, Revealed
from features.objective import Objective
from features.vector import CategoryColumn, FeatureDefinitions
from models import content_training, fit
from models.content import Classifier
from models.content_fit import Settings

SUCCESS = Objective(success=1.0)
_DESTINATION = "destination"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a router may know of n prompts: number columns by name, float64[n] each, and category columns."""

    numbers: Mapping[str, Floats]
    categories: Mapping[str, NDArray[np.object_]]


def know_shape(prompts: Prompts, facts: tuple[str, ...]) -> Known:
    """Return the shape of the texts, and of what is said beside them the columns ``facts``."""
    shapes = measure_shapes(prompts.texts)
    return Known(
        numbers=dict(zip(SHAPE_NAMES, shapes.T, strict=True)),
        categories={name: prompts.facts[name] for name in facts},
    )


def read_content(
    train: Prompts, test: Prompts, labels: NDArray[np.object_], settings: Settings, seed: int
) -> tuple[Known, Known]:
    """Train the classifier to tell ``labels`` from the texts, and return what it says of the training and the test prompts.

    Of the training prompts it speaks out of fold: a router that saw answers about texts the classifier had learned by
    heart would trust it too much (stacked generalization; Wolpert, 1992). A class of one example counts as the most
    frequent one: it could not be judged.
    """
    names, counts = np.unique(labels, return_counts=True)
    told = np.where(np.isin(labels, names[counts == 1]), names[counts.argmax()], labels)
    crossed: list[Floats] = []
    with tempfile.TemporaryDirectory() as folder:
        classifier = content_training.train(
            train.texts, told.tolist(), Path(folder), settings=settings, seed=seed, on_judged=crossed.append
        )
    unseen = np.array([classifier.classify(text).probabilities for text in test.texts])
    return _content(classifier, crossed[0]), _content(classifier, unseen)


def _content(classifier: Classifier, probabilities: Floats) -> Known:
    classes = np.array(classifier.card.classes, dtype=object)
    return Known(
        numbers={
            "confidence": probabilities.max(axis=1),
            **{f"probability_{number}": column for number, column in enumerate(probabilities.T)},
        },
        categories={"class": classes[probabilities.argmax(axis=1)]},
    )


def beside(first: Known, *others: Known) -> Known:
    """Return everything that is known, side by side."""
    for other in others:
        first = Known(numbers={**first.numbers, **other.numbers}, categories={**first.categories, **other.categories})
    return first


def predict(
    train: Known, quality: Floats, test: Known, models: tuple[str, ...], settings: Training, objective: Objective
) -> Floats:
    """Return what the product's router, fitted on every model's ``quality`` (float64[n, k]), expects of each model, float64[n_test, k]."""
    features = FeatureDefinitions(
        numbers={name: f"event.{name}" for name in train.numbers},
        categories={_DESTINATION: "destination.name", **{name: f"event.{name}" for name in train.categories}},
    )
    subject = fit.Subject(
        stream="prompts",
        feature_set=features.version,
        objective=objective,
        destinations=models,
        settings=settings,
        trained={"n_prompts": len(quality)},
    )
    log = _log(train, quality, models)
    asked = _log(test, np.zeros((len(next(iter(test.numbers.values()))), len(models))), models)
    with tempfile.TemporaryDirectory() as folder:
        router = fit.learn(log, features, Path(folder), subject)
        return router.score_log(asked.numbers, asked.categories).value.reshape(-1, len(models))


def _log(known: Known, quality: Floats, models: tuple[str, ...]) -> DecisionLog:
    """Return the prompts as decisions whose every outcome is revealed: the first model's as the assigned, the others' as probes."""
    n, k = quality.shape
    row, nothing = np.arange(n * k), np.full(n * k, np.nan)
    first = row[::k]
    outcomes = Revealed(
        row=row,
        probability=np.ones(n * k),
        success=quality.ravel(),
        latency_ms=nothing,
        cost_usd=1.0 - quality.ravel(),
        timed_out=np.zeros(n * k, np.bool_),
    )
    numbers = np.column_stack(list(known.numbers.values()))
    return DecisionLog(
        decision_id=np.arange(n).astype(object),
        decided_at=np.datetime64("2024-01-01", "us") + np.arange(n),
        cluster=np.arange(n),
        offsets=np.arange(0, n * k + 1, k),
        chosen=first,
        propensity=np.ones(n),
        reward=quality[:, 0],
        success=quality[:, 0],
        latency_ms=nothing[first],
        cost_usd=outcomes.cost_usd[first],
        numbers=np.repeat(numbers, k, axis=0),
        categories=[
            CategoryColumn(row % k, models),
            *(_column(values, k) for values in known.categories.values()),
        ],
        destination=CategoryColumn(row % k, models),
        policies={},
        timed_out=outcomes.timed_out[first],
        probes=outcomes.take(row % k > 0),
    )


def _column(values: NDArray[np.object_], k: int) -> CategoryColumn:
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return CategoryColumn(np.repeat(codes.astype(np.int64), k), tuple(names.tolist()))
