"""Composes the product's classifier and router for prompts: class probabilities out of fold, the text's components and its shape are what the router knows."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from benchmarks.llm_prompts import SHAPE_NAMES, Floats, Prompts, measure_shapes
from features.choices import Training
from features.decision_log import DecisionLog, Revealed
from features.definitions import FeatureDefinitions
from features.objective import MS_PER_MINUTE, Objective
from features.vector import CategoryColumn
from models import content_training, fit
from models.content import Classified
from models.content_fit import Settings

SUCCESS = Objective(success=1.0)
# Qualities between 0 and 1 are no labels of a success. What an answer falls short of counts as minutes lost, which may be
# promised: the router then learns what comes on top of the promise.
SHORTFALL = Objective(success=0.0, latency_minute=1.0, low=-1.0, high=0.0)
PROMISED = "promised"
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
    heart would trust it too much (stacked generalization; Wolpert, 1992). The texts' components read no label, and need no
    folds. A class of one example counts as the most frequent one: it could not be judged.
    """
    names, counts = np.unique(labels, return_counts=True)
    told = np.where(np.isin(labels, names[counts == 1]), names[counts.argmax()], labels)
    crossed: list[Floats] = []
    with tempfile.TemporaryDirectory() as folder:
        classifier = content_training.train(
            train.texts, told.tolist(), Path(folder), settings=settings, seed=seed, on_judged=crossed.append
        )
    learned, unseen = ([classifier.classify(text) for text in each.texts] for each in (train, test))
    return _content(crossed[0], learned), _content(np.array([said.probabilities for said in unseen]), unseen)


def _content(probabilities: Floats, said: Sequence[Classified]) -> Known:
    components = np.array([each.components for each in said])
    return Known(
        numbers={
            **{f"probability_{number}": column for number, column in enumerate(probabilities.T)},
            **{f"component_{number}": column for number, column in enumerate(components.T, start=1)},
        },
        categories={},
    )


def beside(first: Known, *others: Known) -> Known:
    """Return everything that is known, side by side."""
    for other in others:
        first = Known(numbers={**first.numbers, **other.numbers}, categories={**first.categories, **other.categories})
    return first


def predict(
    known: tuple[Known, Known],
    quality: Floats,
    models: tuple[str, ...],
    settings: Training,
    promised: tuple[Floats, Floats] | None = None,
) -> Floats:
    """Return what the product's router expects of each model, float64[n_test, k], of which only differences mean something.

    It is fitted on what is ``known`` of the training prompts (the other part is that of the test prompts) and on every
    model's ``quality``, float64[n, k]. With ``promised`` shortfalls, float64[n, k] and float64[n_test, k], the qualities
    may lie anywhere in [0, 1] and the promise is the router's offset; without, they are 0 or 1.
    """
    features = FeatureDefinitions(
        numbers={
            **({PROMISED: f"candidate.{PROMISED}"} if promised else {}),
            **{name: f"event.{name}" for name in known[0].numbers},
        },
        categories={_DESTINATION: "destination.name", **{name: f"event.{name}" for name in known[0].categories}},
    )
    subject = fit.Subject(
        stream="prompts",
        feature_set=features.version,
        objective=SHORTFALL if promised else SUCCESS,
        destinations=models,
        settings=msgspec.structs.replace(settings, latency_offset=PROMISED) if promised else settings,
        trained={"n_prompts": len(quality)},
    )
    learned, asked = (_log(each, models, promised[part] if promised else None) for part, each in enumerate(known))
    with tempfile.TemporaryDirectory() as folder:
        router = fit.learn(_reveal(learned, quality, is_success=promised is None), features, Path(folder), subject)
        return router.score_log(asked.numbers, asked.categories).value.reshape(-1, len(models))


def _log(known: Known, models: tuple[str, ...], promised: Floats | None) -> DecisionLog:
    """Return prompts as decisions of which no outcome is known; each was assigned its first model."""
    k, shared = len(models), np.column_stack(list(known.numbers.values()))
    n = len(shared)
    row, nothing = np.arange(n * k), np.full(n, np.nan)
    numbers = np.repeat(shared, k, axis=0)
    return DecisionLog(
        decision_id=np.arange(n).astype(object),
        decided_at=np.datetime64("2024-01-01", "us") + np.arange(n),
        cluster=np.arange(n),
        offsets=np.arange(0, n * k + 1, k),
        chosen=row[::k],
        propensity=np.ones(n),
        reward=nothing,
        success=nothing,
        latency_ms=nothing,
        cost_usd=nothing,
        numbers=numbers if promised is None else np.column_stack([promised.ravel(), numbers]),
        categories=[CategoryColumn(row % k, models), *(_column(values, k) for values in known.categories.values())],
        destination=CategoryColumn(row % k, models),
        policies={},
        timed_out=np.zeros(n, np.bool_),
    )


def _reveal(log: DecisionLog, quality: Floats, *, is_success: bool) -> DecisionLog:
    """Return ``log`` with every model's outcome: the first one's as the assigned, the others' as probes that were sure to be made."""
    n_rows, k = quality.size, quality.shape[1]
    unknown = np.full(n_rows, np.nan)
    outcomes = Revealed(
        row=np.arange(n_rows),
        probability=np.ones(n_rows),
        success=quality.ravel() if is_success else unknown,
        latency_ms=unknown if is_success else MS_PER_MINUTE * (1.0 - quality.ravel()),
        cost_usd=unknown,
        timed_out=np.zeros(n_rows, np.bool_),
    )
    return replace(
        log,
        reward=quality[:, 0],
        success=outcomes.success[::k],
        latency_ms=outcomes.latency_ms[::k],
        probes=outcomes.take(outcomes.row % k > 0),
    )


def _column(values: NDArray[np.object_], k: int) -> CategoryColumn:
    names, codes = np.unique(values.astype(str), return_inverse=True)
    return CategoryColumn(np.repeat(codes.astype(np.int64), k), tuple(names.tolist()))
