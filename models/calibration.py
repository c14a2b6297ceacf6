"""Makes predicted probabilities mean what they say: a slope and an intercept on the log-odds.

``p' = 1 / (1 + exp(-(slope * log(p / (1 - p)) + intercept)))``, fitted to the least mean negative log likelihood on rows
that the model did not see. The order of predictions never changes (slope > 0). Misleads where the error is no straight
line in log-odds, and with few rows: two numbers need a few hundred. Source: Platt, "Probabilistic outputs for support
vector machines", 1999; Kull, Silva Filho and Flach, "Beta calibration", 2017, for where it does not suffice.
"""

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models import elementary

Floats = NDArray[np.float64]

MIN_ROWS = 200
_MIN_SLOPE, _MAX_SLOPE = 0.05, 20.0
_EDGE = 1e-6  # probabilities nearer to 0 or 1 claim more than any log can show
_STEPS = 50
_RIDGE = 1e-9  # keeps a step finite where every prediction is the same


class Scaling(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A slope and an intercept on the log-odds; the default changes nothing but the outermost probabilities."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, probability: Floats) -> Floats:
        """Return calibrated probabilities, float64 of the same shape: to the same bits as the fast path does it."""
        kept = np.clip(probability, _EDGE, 1.0 - _EDGE)
        scaled = self.slope * elementary.log(kept / (1.0 - kept)) + self.intercept
        return 0.5 + 0.5 * elementary.tanh(0.5 * scaled)


def log_odds(probability: Floats) -> Floats:
    """Return log(p / (1 - p)), with p kept from the edges."""
    kept = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return np.asarray(np.log(kept / (1.0 - kept)))


def log_loss(probability: Floats, happened: Floats) -> float:
    """Return the mean negative log likelihood of ``happened`` (0/1, float64[n])."""
    kept = np.clip(probability, _EDGE, 1.0 - _EDGE)
    return float(-np.log(np.where(happened > 0.5, kept, 1.0 - kept)).mean())  # noqa: PLR2004 - 0 or 1


def fit(probability: Floats, happened: Floats) -> Scaling | None:
    """Return the best scaling of ``probability`` by Newton's method; None where it has nothing to stand on.

    That is where there are fewer than `MIN_ROWS` rows, or only one thing happened, or the slope runs away.
    """
    if len(happened) < MIN_ROWS or happened.min() == happened.max():
        return None
    design = np.column_stack([log_odds(probability), np.ones(len(happened))])
    weights = np.array([1.0, 0.0])
    for _ in range(_STEPS):
        expected = _probability(design @ weights)
        curvature = (design.T * (expected * (1.0 - expected))) @ design + _RIDGE * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (happened - expected))
        weights += step
        if np.abs(step).max() < 1e-10:  # noqa: PLR2004 - converged to the last digits
            break
    slope, intercept = map(float, weights)
    return Scaling(slope=slope, intercept=intercept) if _MIN_SLOPE <= slope <= _MAX_SLOPE else None


def _probability(log_odds: Floats) -> Floats:
    """Return 1 / (1 + exp(-log_odds)), which as a hyperbolic tangent overflows nowhere."""
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * log_odds))
