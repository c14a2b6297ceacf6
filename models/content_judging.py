"""Judges content classifiers on predictions made out of fold: which contender is kept, how its confidence is scaled, where scope ends."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from models.content import scope_scores
from models.content_card import Contender, Contest, Scope, Statistic
from models.logits import softmax

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_LOG_SCALE_BOUND = 7.0  # scales in [1/1100, 1100]: a perfect fit would otherwise run off to infinity
_LEAST_PROBABILITY = 1e-12  # of the truth, so that one certain error does not decide alone


@dataclass(frozen=True)
class Judged:
    """What was chosen on predictions out of fold, what every contender reached, and the chosen one's probabilities, float64[n, n_columns]."""

    contender: Contender
    linear_scale: float | None
    neural_scale: float | None
    contest: dict[Contender, Contest]
    scope: Scope
    probabilities: Floats


@dataclass(frozen=True)
class _Scaled:
    """A contender: its parts' logits, each times its scale, and the loss of every example."""

    name: Contender
    scales: tuple[float | None, float | None]
    logits: Floats
    losses: Floats


def judge(linear: Floats, neural: Floats, codes: Codes, n_classes: int, max_accuracy_loss_share: float) -> Judged:
    """Choose among the linear part, the neural part, and their pool.

    Each contender's logits are scaled to the least mean negative log likelihood, which calibrates its confidence
    (temperature scaling; Guo et al., On Calibration of Modern Neural Networks, 2017); the pool is the product of both
    parts' probabilities to two fitted powers (the logarithmic pool; Genest and Zidek, Combining Probability
    Distributions, 1986). The lowest loss wins, but a pool must beat the better part by more than one standard error of the
    paired difference, else the simpler one is kept. The scales are fitted and judged on the same rows: one or two numbers on
    thousands of rows, so the optimism is small, and with few rows it is not.

    Parameters
    ----------
    linear, neural
        float64[n, n_columns], logits of examples that the part had not seen.
    codes
        int64[n], the true column; ``n_classes`` for out of scope.
    n_classes
        The number of classes in scope.
    max_accuracy_loss_share
        The share of in-scope examples that may be answered "out of scope" though their class was right.
    """
    contenders = (
        _scale("linear", (linear,), codes),
        _scale("neural", (neural,), codes),
        _scale("pool", (linear, neural), codes),
    )
    best = min(contenders[:2], key=lambda contender: float(contender.losses.mean()))
    gained = best.losses - contenders[2].losses
    if gained.mean() > gained.std() / np.sqrt(len(gained)):
        best = contenders[2]
    in_scope = codes < n_classes
    contest = {
        contender.name: Contest(
            log_loss=float(contender.losses.mean()),
            accuracy=float((contender.logits[in_scope, :n_classes].argmax(axis=1) == codes[in_scope]).mean()),
        )
        for contender in contenders
    }
    scope = choose_scope(best.logits, codes, n_classes, max_accuracy_loss_share)
    return Judged(best.name, *best.scales, contest, scope, softmax(best.logits))


def _scale(name: Contender, parts: Sequence[Floats], codes: Codes) -> _Scaled:
    def losses(log_scales: Floats) -> Floats:
        logits = np.tensordot(np.exp(log_scales), np.stack(parts), axes=1)
        truth = softmax(logits)[np.arange(len(codes)), codes]
        return -np.log(np.maximum(truth, _LEAST_PROBABILITY))

    found = minimize(
        lambda log_scales: float(losses(log_scales).mean()),
        np.zeros(len(parts)),
        method="Nelder-Mead",
        bounds=[(-_LOG_SCALE_BOUND, _LOG_SCALE_BOUND)] * len(parts),
        options={"xatol": 1e-3, "fatol": 1e-6},
    )
    fitted = [float(scale) for scale in np.exp(found.x)]
    logits = np.tensordot(fitted, np.stack(parts), axes=1)
    scales = {"linear": (fitted[0], None), "neural": (None, fitted[0]), "pool": (fitted[0], fitted[-1])}[name]
    return _Scaled(name, scales, logits, losses(found.x))


def choose_scope(logits: Floats, codes: Codes, n_classes: int, max_accuracy_loss_share: float) -> Scope:
    """Choose the statistic and the threshold that find most examples out of scope, within the accuracy that may be lost.

    The threshold comes from the in-scope examples alone, of which there are many: the lowest scores among the right answers are given up
    until the allowed share of all in-scope examples is spent. Examples out of scope, of which there are few, only
    choose between statistics; without any it is ``evidence``.
    """
    in_scope = codes < n_classes
    probabilities = softmax(logits)
    right = in_scope & (logits[:, :n_classes].argmax(axis=1) == codes)
    statistics: tuple[Statistic, ...] = ("evidence",) if in_scope.all() else ("evidence", "probability", "margin")
    scopes = []
    for statistic in statistics:
        scores = scope_scores(statistic, logits, probabilities, n_classes)
        n_given_up = int(max_accuracy_loss_share * in_scope.sum())
        threshold = _threshold(np.sort(scores[right]), n_given_up)
        recall = None if in_scope.all() else float((scores[~in_scope] < threshold).mean())
        lost = float((scores[right] < threshold).sum() / in_scope.sum())
        scopes.append(
            Scope(statistic=statistic, threshold=threshold, accuracy_loss_share=lost, out_of_scope_recall=recall)
        )
    return max(scopes, key=lambda scope: scope.out_of_scope_recall or 0.0)


def _threshold(ascending: Floats, n_given_up: int) -> float:
    """Return the score of the first right answer that is kept; all below it are given up."""
    return float(ascending[min(n_given_up, len(ascending) - 1)]) if len(ascending) else -float(np.finfo(np.float64).max)
