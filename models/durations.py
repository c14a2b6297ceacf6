"""How long it takes, where some were not waited for: the distribution of a logarithm around its prediction, under censoring.

A duration is T = exp(mu(x) + e): the boosters learn mu, and e has one distribution for all. Where nobody waited to the end
(a timeout) only a lower bound of T is known. Two things follow from the Kaplan-Meier estimate of e (1958), which is
exact under censoring that tells nothing of e beyond x:

    imputed   mu(x) + E[e | e > bound - mu(x)]    what a timeout is learned as (Schmee and Hahn, 1979; Buckley and James, 1979)
    quantile  exp(mu(x) + quantile of e)          and so P(T > limit)

When it misleads: where the spread of e depends on x, and beyond the longest that anybody ever waited: there the last
residual seen stands for all that is larger, so that high quantiles come out too low. e must come from predictions of
rows that mu was not fitted on, else it is too narrow.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

LEVELS = np.arange(1, 64) / 64  # of the residuals' distribution, as a card keeps them


def survival(residual: Floats, censored: Mask) -> tuple[Floats, Floats]:
    """Return the residuals at which events fall, rising, and the Kaplan-Meier mass of each, which sum to 1.

    The largest residual counts as an event even where it is censored (Efron, 1967): its mass has nowhere else to go.
    """
    order = np.lexsort((censored, residual))  # an event comes before a censoring of the same size
    at, is_event = residual[order], ~censored[order]
    is_event[-1:] = True
    at_risk = np.arange(len(at), 0, -1)
    left = np.cumprod(np.where(is_event, 1.0 - 1.0 / at_risk, 1.0))
    mass: Floats = np.concatenate(([1.0], left[:-1])) - left
    return at[is_event], mass[is_event]


def quantiles(residual: Floats, censored: Mask, levels: Floats = LEVELS) -> Floats:
    """Return the residual below which a share ``levels`` of the distribution lies, float64[n_levels]."""
    at, mass = survival(residual, censored)
    return at[np.minimum(np.searchsorted(np.cumsum(mass), levels - 1e-12), len(at) - 1)]


def impute(log_bound: Floats, predicted: Floats, residual: Floats, censored: Mask) -> Floats:
    """Return ``log_bound`` with every censored one moved to what is expected beyond it, float64[n].

    ``log_bound`` float64[n] are logarithms of durations, lower bounds where ``censored``; ``predicted`` is mu of each;
    ``residual`` what they leave, in predictions of rows not fitted on.
    """
    at, mass = survival(residual, censored)
    tail_mass = np.concatenate((np.cumsum(mass[::-1])[::-1], [0.0]))
    tail_sum = np.concatenate((np.cumsum((mass * at)[::-1])[::-1], [0.0]))
    bound = log_bound - predicted
    first = np.searchsorted(at, bound, side="right")
    beyond = np.divide(tail_sum[first], tail_mass[first], out=bound.copy(), where=tail_mass[first] > 0.0)
    return np.where(censored, predicted + np.maximum(beyond, bound), log_bound)


def exceedance(log_limit: float, predicted: Floats, residual_quantiles: Floats) -> Floats:
    """Return the probability, float64[n], that a duration exceeds its limit, from quantiles of e at `LEVELS`."""
    return 1.0 - np.interp(log_limit - predicted, residual_quantiles, LEVELS, left=0.0, right=1.0)
