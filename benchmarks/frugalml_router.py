"""The one place where FrugalML's benchmark fits the product's router: forms, cross-fitting, and predictions."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.frugalml_events import Events
from features.choices import Training
from features.objective import Objective
from models import fit, logged

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SUCCESS = Objective(success=1.0)
TO_GO = Objective(success=0.0, cost_usd=1.0, low=-10.0, high=0.0)


class Learned(NamedTuple):
    """What is predicted of training events by routers that did not see them, and of test events by one that saw all of training."""

    train: Floats
    test: Floats


def settings(*, leaves: int, rounds: int, learning_rate: float = 0.05, n_boosters: int = 1) -> Training:
    """Return how a router is fitted here."""
    return Training(
        min_decisions=50,
        rounds=rounds,
        n_boosters=n_boosters,
        learning_rate=learning_rate,
        leaves=leaves,
        min_leaf=30,
        row_share=0.5,
        max_bin=63,
        threads=1,
    )


ONE_EACH = settings(leaves=3, rounds=150)
POOLED = settings(leaves=15, rounds=150)
SECOND = (settings(leaves=6, rounds=60, learning_rate=0.08), settings(leaves=12, rounds=100, learning_rate=0.08))
FIRST = SECOND[:1]  # costs to go are smooth in the few attributes known before paying


def score(
    learned: fit.Examples, asked: Sequence[fit.Examples], objective: Objective, how: Training, names: tuple[str, ...]
) -> list[Floats]:
    """Fit the product's router and return its values of each of ``asked``; labels of one class are worth themselves."""
    known = learned.success[~np.isnan(learned.success)]
    if objective.success and known.size and known.min() == known.max():
        return [np.full(len(each.numbers), known[0]) for each in asked]
    with tempfile.TemporaryDirectory() as folder:
        subject = fit.Subject(
            stream="events",
            feature_set="frugalml",
            objective=objective,
            destinations=names,
            settings=how,
            trained={},
        )
        router = fit.train(learned, Path(folder), subject)
    return [router.score_log(each.numbers, each.categories).value for each in asked]


def predict(train: Events, test: Events) -> Floats:
    """Return the predicted success of each destination for the test events, float64[n_test, k], before any paid call.

    The mean of one router for all destinations and one for each.
    """
    n, k = test.correct.shape
    everything = np.arange(k)
    forms: tuple[tuple[list[Integers], Training], ...] = (
        ([everything], POOLED),
        ([np.array([number]) for number in range(k)], ONE_EACH),
    )
    predicted = np.zeros((n, k))
    for groups, how in forms:
        for group in groups:
            row, place = np.nonzero(~np.isnan(train.correct[:, group]))
            number = group[place]
            learned = train.examples(number, row, success=train.correct[row, number])
            asked = [test.examples(np.full(n, each), np.arange(n)) for each in group]
            predicted[:, group] += np.column_stack(score(learned, asked, SUCCESS, how, train.destinations))
    return predicted / len(forms)


def predict_out_of_fold(train: Events, n_folds: int, seed: int) -> Floats:
    """Return `predict` for every training event by routers that did not see it."""
    fold = logged.folds(np.arange(len(train.correct)), n_folds, seed)
    predicted = np.empty_like(train.correct)
    for number in range(n_folds):
        predicted[fold == number] = predict(train.take(fold != number), train.take(fold == number))
    return predicted


def learn(
    train: Events,
    test: Events,
    labels: Floats,
    *,
    destination: int,
    fold: Integers,
    answered: Sequence[int] = (),
    objective: Objective = SUCCESS,
) -> Learned:
    """Learn one destination's ``labels`` (float64[n_train]), successes or costs to go, from what is known once ``answered`` did."""

    def examples(events: Events, row: Integers) -> fit.Examples:
        return events.examples(np.full(len(row), destination), row, answered=answered)

    def fitted(row: Integers, asked: fit.Examples) -> Floats:
        success, cost = (labels[row], None) if objective.success else (None, labels[row])
        number = np.full(len(row), destination)
        learned = train.examples(number, row, answered=answered, success=success, cost=cost)
        forms = SECOND if answered else FIRST
        values: Floats = np.mean(
            [score(learned, [asked], objective, how, train.destinations)[0] for how in forms], axis=0
        )
        return values

    out_of_fold = np.empty(len(labels))
    for number in np.unique(fold):
        held = np.flatnonzero(fold == number)
        out_of_fold[held] = fitted(np.flatnonzero(fold != number), examples(train, held))
    return Learned(
        train=out_of_fold,
        test=fitted(np.arange(len(labels)), examples(test, np.arange(len(test.correct)))),
    )
