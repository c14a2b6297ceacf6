"""What a policy comes to on FrugalML: curves of accuracy over spend, where they cross a provider, and what was deployed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from benchmarks.frugalml_events import Events

Floats = NDArray[np.float64]
Policy = Callable[[float], tuple[Floats, Floats]]  # from a price to each event's success and the cost of its calls

NORMAL_95 = float(stats.norm.ppf(0.975))


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Where a curve equals the best single provider: the mean spend there and the price; inf and the best price if nowhere."""

    spend: float
    price: float


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A policy at rising ``prices``: ``accuracy`` and mean ``spend``, and the best single provider on the same events."""

    prices: Floats
    accuracy: Floats
    spend: Floats
    target: float
    single_usd: float

    def crossing(self) -> Crossing:
        """Return the cheapest point at which the accuracy reaches the best single provider's, on the line between points."""
        order = np.argsort(self.spend, kind="stable")
        accuracy, spend, price = self.accuracy[order], self.spend[order], np.log(self.prices[order])
        reached = np.flatnonzero(accuracy >= self.target)
        if not reached.size:
            return Crossing(spend=float("inf"), price=float(np.exp(price[accuracy.argmax()])))
        around = slice(max(int(reached[0]) - 1, 0), int(reached[0]) + 1)
        usd, log_price = (float(np.interp(self.target, accuracy[around], each[around])) for each in (spend, price))
        return Crossing(spend=usd, price=float(np.exp(log_price)))

    def saving(self) -> float:
        """Return the share of the best single provider's price that is saved at its accuracy; 0 if it is never reached."""
        return max(1.0 - self.crossing().spend / self.single_usd, 0.0)


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A policy at the one price chosen on the training half: per-event differences to the best single provider, mean and variance of the mean.

    ``accuracy`` is the difference in accuracy, ``saving`` the share of the provider's price.
    """

    accuracy: tuple[float, float]
    saving: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one seed gave: (accuracy, spend) per budget, the curves of one call and of the policy chosen, and its deployment."""

    budgets: Floats
    once: Curve
    chosen: Curve
    policy: str
    deployed: Deployed | None


def measure(policy: Policy, events: Events, best: int, prices: Floats) -> Curve:
    """Return the policy's curve on ``events``; ``prices`` are in successes per price of the ``best`` single provider."""
    single_usd = float(events.price[best])
    scaled = prices / single_usd
    found = np.array([[each.mean() for each in policy(price)] for price in scaled])
    return Curve(
        prices=scaled,
        accuracy=found[:, 0],
        spend=found[:, 1] + events.base,
        target=float(events.correct[:, best].mean()),
        single_usd=single_usd,
    )


def deploy(policy: Policy, events: Events, best: int, price: float) -> Deployed:
    """Return what the policy does at a price that was chosen elsewhere."""
    right, usd = policy(price)
    gained, saved = right - events.correct[:, best], 1.0 - (usd + events.base) / events.price[best]
    means = [(float(each.mean()), float(each.var() / len(each))) for each in (gained, saved)]
    return Deployed(accuracy=means[0], saving=means[1])


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Return the mean of curves that go by the same shares of a price."""
    fields = ("prices", "accuracy", "spend", "target", "single_usd")
    prices, accuracy, spend, target, single_usd = (
        np.mean([getattr(each, name) for each in curves], axis=0) for name in fields
    )
    return Curve(prices=prices, accuracy=accuracy, spend=spend, target=float(target), single_usd=float(single_usd))


def mean_interval(means: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Return mean, low and high of 95 %: halves overlap, so that the mean of several is taken to be no surer than one."""
    middle, variance = np.mean(means, axis=0)
    half_width = NORMAL_95 * float(np.sqrt(variance))
    return float(middle), float(middle) - half_width, float(middle) + half_width


def welch_interval(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of means, by Welch: the peer's splits are other ones, so none pair up."""
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)
