"""Escalation: further decisions about the same event, with the answers so far among what is known; numpy only.

An event with attributes ``s`` is sent to destination ``a``, which answers ``y``. Then either that answer is kept, or another
destination is asked; what was paid for once costs nothing again. With a price ``l >= 0`` on each unit of use ``u``, fitted
backwards:

    ``W(s, a, y) = max_b q(b | s, a, y) - l u_b``, the value to go: ``b`` runs over keeping (``u = 0``) and asking on,
    ``Q(a | s) = E[W(s, a, y) | s] - l u_a``, what the first decision maximises.

``q`` is a router whose features hold the first answer; ``E[W | s]`` is learned by a second one as a *cost to go*,
``highest - W``, since a router's cost head takes any finite number. Where a third may be asked, what asking on is worth is
such an expectation as well. One price for all stages is the Lagrangian of `models.budget`: along prices it traces the best
mean values at each mean use. ``W`` is convex in ``l``, so that between two prices for which it was learned, the chord bounds
it from above.

Misleads when ``q`` predicts rows it was trained on: the maximum picks the errors of predictions, and an event looks better
than it is, so predict out of fold; when the first answer was not logged for the destinations one wants to ask first; and
when waiting for two answers costs what the price does not say, such as latency. Sources: Murphy, "A generalization error for
Q-learning", 2005; Ernst, Geurts and Wehenkel, "Tree-based batch mode reinforcement learning", 2005; Trapeznikov and
Saligrama, "Supervised sequential classification under budget constraints", 2013.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.budget import BudgetError
from models.policy import UnusableValuesError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One decision about each of n events: ``chosen`` int64[n], its ``use`` float64[n], and its ``value`` net of the priced use."""

    chosen: Integers
    use: Floats
    value: Floats


def take(values: Floats, use: Floats, price: float) -> Step:
    """Return the candidate of the largest net value for each event; a tie goes to the lesser use, then to the first.

    The value of a step taken with the first answer known is the value to go.

    Parameters
    ----------
    values
        float64[n, n_candidates]; -inf where a candidate is not eligible.
    use
        What each would use on top of what is paid, float64[n_candidates] or float64[n, n_candidates]; 0 for keeping.
    price
        Value given up for one unit of use.

    Raises
    ------
    BudgetError
        If the price or a use is negative or not finite.
    UnusableValuesError
        If a value is NaN or positive infinity, or an event has no eligible candidate.
    """
    used = np.broadcast_to(use, values.shape)
    if not (np.isfinite(price) and price >= 0.0):
        raise BudgetError(f"a price is finite and not negative, got {price}")
    if not (np.isfinite(used).all() and (used >= 0.0).all()):
        raise BudgetError("use must be finite and not negative")
    if np.isnan(values).any() or np.isposinf(values).any() or np.isneginf(values).all(axis=1).any():
        raise UnusableValuesError("values must be finite, or -inf for some but not all candidates of an event")
    net = values - price * used
    best = net.max(axis=1, keepdims=True)
    chosen = np.where(net == best, used, np.inf).argmin(axis=1)
    return Step(chosen=chosen, use=np.take_along_axis(used, chosen[:, np.newaxis], axis=1)[:, 0], value=best[:, 0])


def cost_to_go(step: Step, highest: float = 1.0) -> Floats:
    """Return ``highest - W``, float64[n]: how far the rest of an event's way falls short of the best outcome there is.

    This is the label from which the first stage's router learns, by an objective that weighs cost alone.
    """
    to_go: Floats = highest - step.value
    return to_go


def interpolate(price: float, prices: Floats, to_go: Floats) -> Floats:
    """Return values (or costs) to go at ``price``, on the chord between the two nearest of rising ``prices``.

    ``to_go`` is float64[n_prices, ...]; beyond the ends the nearest price's values are returned.
    """
    right = int(np.clip(np.searchsorted(prices, price), 1, len(prices) - 1))
    share = float(np.clip((price - prices[right - 1]) / (prices[right] - prices[right - 1]), 0.0, 1.0))
    between: Floats = (1.0 - share) * to_go[right - 1] + share * to_go[right]
    return between


def follow(first: Step, seconds: Sequence[Step]) -> Step:
    """Return each event's whole way: the second decision that follows the first one, and the use of both.

    ``seconds[a]`` holds what would be decided about every event, were ``a`` its first destination; it may be a way itself. The value is the
    second step's less what the first would have added to it: what is left to know once the first answer is there.
    """
    rows = np.arange(len(first.chosen))
    chosen, use, value = (
        np.stack([getattr(second, name) for second in seconds])[first.chosen, rows]
        for name in ("chosen", "use", "value")
    )
    return Step(chosen=chosen, use=first.use + use, value=value)
