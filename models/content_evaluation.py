"""How a classifier does on examples that it was not fitted on."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.content import OUT_OF_SCOPE
from features.labels import Labelled
from models.content import Classified, Classifier

N_BINS = 10
N_CONFUSIONS = 20
_SHOWN_CHARACTERS = 120


class Confusion(Struct, frozen=True, kw_only=True):
    """A pair that was taken for each other: how often, and the first such text, cut."""

    label: str
    answer: str
    n: int
    example: str


class ContentEvaluation(Struct, frozen=True, kw_only=True):
    """What a classifier answered on ``n`` texts in scope and ``n_out_of_scope`` others, none of which it was fitted on.

    ``accuracy`` is the share in scope that got their class ("out of scope" counts as wrong), ``accuracy_low`` the lower
    end of its 95 % interval (Wilson, 1927), ``majority_share`` what always answering the most frequent class would
    reach. ``out_of_scope_recall`` is None without such examples. ``calibration`` holds (mean confidence, share right, n)
    by tenths of the answers, ``calibration_error`` its mean gap, weighted by n. ``changed_share`` says on how many the
    released classifier answers otherwise, None where none is released.
    """

    n: int
    n_out_of_scope: int
    accuracy: float
    accuracy_low: float
    majority_share: float
    out_of_scope_recall: float | None
    calibration_error: float
    calibration: tuple[tuple[float, float, int], ...]
    changed_share: float | None
    confusions: tuple[Confusion, ...]


def evaluate(classifier: Classifier, holdout: Labelled, released: Classifier | None) -> ContentEvaluation:
    """Ask ``classifier`` about every example of ``holdout``, one by one, as the shim does."""
    said = _ask(classifier, holdout)
    answers, truth = [one.label for one in said], holdout.labels
    right = np.array([answer == label for answer, label in zip(answers, truth, strict=True)])
    in_scope = np.array([label is not None for label in truth])
    before = None if released is None else [one.label for one in _ask(released, holdout)]
    bins = _calibration(np.array([one.confidence for one in said]), right)
    return ContentEvaluation(
        n=int(in_scope.sum()),
        n_out_of_scope=int((~in_scope).sum()),
        accuracy=float(right[in_scope].mean()),
        accuracy_low=_wilson_low(int(right[in_scope].sum()), int(in_scope.sum())),
        majority_share=max(Counter(label for label in truth if label is not None).values()) / int(in_scope.sum()),
        out_of_scope_recall=None if in_scope.all() else float(right[~in_scope].mean()),
        calibration_error=sum(n * abs(confidence - share) for confidence, share, n in bins) / len(right),
        calibration=bins,
        changed_share=None
        if before is None
        else float(np.mean([a != b for a, b in zip(answers, before, strict=True)])),
        confusions=_confusions(answers, holdout),
    )


def _ask(classifier: Classifier, asked: Labelled) -> list[Classified]:
    return [classifier.classify(text, facts) for text, facts in zip(asked.texts, asked.attributes, strict=True)]


def _wilson_low(n_right: int, n: int, z: float = 1.96) -> float:
    share = n_right / n
    spread = z * np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n))
    return float((share + z * z / (2.0 * n) - spread) / (1.0 + z * z / n))


def _calibration(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[tuple[float, float, int], ...]:
    order = np.argsort(confidence, kind="stable")
    bins = zip(np.array_split(confidence[order], N_BINS), np.array_split(right[order], N_BINS), strict=True)
    return tuple((float(c.mean()), float(r.mean()), len(c)) for c, r in bins if len(c))


def _confusions(answers: Sequence[str | None], holdout: Labelled) -> tuple[Confusion, ...]:
    wrong: dict[tuple[str, str], list[str]] = {}
    for answer, label, text in zip(answers, holdout.labels, holdout.texts, strict=True):
        if answer != label:
            wrong.setdefault((label or OUT_OF_SCOPE, answer or OUT_OF_SCOPE), []).append(text)
    most = sorted(wrong.items(), key=lambda item: (-len(item[1]), item[0]))[:N_CONFUSIONS]
    return tuple(
        Confusion(label=label, answer=answer, n=len(texts), example=texts[0][:_SHOWN_CHARACTERS])
        for (label, answer), texts in most
    )
