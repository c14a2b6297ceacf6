"""How well a ranking of events spends calls to a strong model: RouteLLM's measures, and bootstrap intervals."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_BINS = 10  # as RouteLLM's evaluation has it: eleven thresholds
N_RESAMPLES = 500
CONFIDENCE = 0.95


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Accuracy against the share of calls to the strong model, rising from none to all; and what either model reaches alone."""

    strong_share: Floats
    accuracy: Floats
    weak: float
    strong: float


def draw_curve(gain: Floats, weak: Floats, strong: Floats, n_bins: int = N_BINS) -> Curve:
    """Return the curve of sending the events of the highest predicted gain to the strong model; all are float64[n].

    The thresholds are the quantiles of ``gain`` at ``n_bins + 1`` equal steps; an event goes to the strong model if its
    gain is at least the threshold, and above the last one if it exceeds it (Ong et al., RouteLLM: Learning to Route LLMs
    with Preference Data, 2024, section 4 and the evaluation published with it).

    Raises
    ------
    ValueError
        If the strong model is not the better one: then there is no gap to recover.
    """
    if not strong.mean() > weak.mean():
        raise ValueError(f"strong must be better than weak, got {strong.mean():.4f} and {weak.mean():.4f}")
    thresholds = np.quantile(gain, np.linspace(0.0, 1.0, n_bins + 1))
    sent = np.vstack([gain >= thresholds[:-1, np.newaxis], gain > thresholds[-1]])[::-1]
    accuracy = np.where(sent, strong, weak).mean(axis=1)
    return Curve(
        strong_share=sent.mean(axis=1), accuracy=accuracy, weak=float(weak.mean()), strong=float(strong.mean())
    )


def recovered_gap(curve: Curve) -> float:
    """Return the average performance gap recovered (APGR): the area of the curve above the weak model, over that of always strong; random gives 1/2."""
    above = np.trapezoid(curve.accuracy - curve.weak, curve.strong_share)
    return float(above / (curve.strong - curve.weak))


def call_share(curve: Curve, recovered: float) -> float:
    """Return the call-performance threshold (CPT): the least share of strong calls that recovers ``recovered`` of the gap.

    Between two thresholds it is interpolated. Where the curve rises throughout, as it should, this is RouteLLM's own
    figure; where it falls back, theirs depends on a bisection, and this is the first crossing.
    """
    target = curve.weak + recovered * (curve.strong - curve.weak)
    at = int(np.argmax(curve.accuracy >= target - 1e-12))
    if at == 0:
        return float(curve.strong_share[0])
    around = slice(at - 1, at + 1)
    return float(np.interp(target, curve.accuracy[around], curve.strong_share[around]))


def measures(gain: Floats, weak: Floats, strong: Floats) -> Floats:
    """Return APGR, CPT(50 %) and CPT(80 %), float64[3]."""
    curve = draw_curve(gain, weak, strong)
    return np.array([recovered_gap(curve), call_share(curve, 0.5), call_share(curve, 0.8)])


def bootstrap(measure: Callable[[Integers], Floats], n: int, seed: int) -> tuple[Floats, Floats]:
    """Return the ends of the 95 % percentile intervals of ``measure``, which is given rows drawn with replacement.

    What ``measure`` compares on the same rows is compared in pairs (Efron and Tibshirani, An Introduction to the
    Bootstrap, 1993). The fit is not drawn anew: the intervals are those of the test rows alone.
    """
    rng = np.random.default_rng(seed)
    drawn = np.array([measure(rng.integers(0, n, n)) for _ in range(N_RESAMPLES)])
    low, high = np.quantile(drawn, ((1.0 - CONFIDENCE) / 2, (1.0 + CONFIDENCE) / 2), axis=0)
    return low, high
