"""FrugalML with several paid calls: every stage a router of the product, fitted backwards from the last answer."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from benchmarks.frugalml_events import Events
from benchmarks.frugalml_router import SUCCESS, TO_GO, learn
from features.objective import Objective
from models import escalation, logged
from models.escalation import Step

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Held = tuple[int, ...]  # the paid destinations that have answered, in rising order

N_CALLS = 3
N_FOLDS = 2  # every stage is learned on the out-of-fold predictions of the next
# Of a success, for the best single provider's price: where costs to go are learned.
PRICE_SHARES = np.geomspace(0.01, 0.6, 5)
HIGHEST = 1.0  # a success that cost nothing


@dataclass(frozen=True, kw_only=True)
class Half:
    """What the policy knows of n events at any price, whoever has answered.

    ``success`` float64[n, k] holds, once these have answered, the predicted success of keeping each answer, -inf where there
    is none; ``to_go`` float64[n_prices, n, k] the predicted cost to go after asking each of the others, at each of
    ``prices`` (value per USD). Answers after which nobody is asked any more are in ``success`` alone.
    """

    events: Events
    prices: Floats
    success: dict[Held, Floats] = field(default_factory=dict)
    to_go: dict[Held, Floats] = field(default_factory=dict)

    def route(self, price: float) -> tuple[Floats, Floats]:
        """Return whether each event's answer was right, and what its calls cost."""
        way = self.follow((), price)
        return self.events.correct[np.arange(len(way.chosen)), way.chosen], way.use

    def decide(self, held: Held, price: float) -> Step:
        """Return what is decided about every event once ``held`` have answered; those answers and the local one are free."""
        values, use = self.success[held], self.events.price.copy()
        use[list(held)] = 0.0
        if held in self.to_go:
            values = values.copy()
            asked = self.events.unasked(held)
            values[:, asked] = HIGHEST - escalation.interpolate(price, self.prices, self.to_go[held][:, :, asked])
        return escalation.take(values, use, price)

    def follow(self, held: Held, price: float) -> Step:
        """Return every event's whole way from there on."""
        step = self.decide(held, price)
        if held not in self.to_go:
            return step
        asked, everyone = self.events.unasked(held), range(len(self.events.price))
        return escalation.follow(
            step, [self.follow(_join(held, end), price) if end in asked else _keep(end, step) for end in everyone]
        )


def learn_cascade(train: Events, test: Events, seed: int, n_calls: int = N_CALLS) -> tuple[Half, Half]:
    """Return the policy of at most ``n_calls``: what it knows of the training events, out of fold, and of the test events."""
    fold = logged.folds(np.arange(len(train.correct)), N_FOLDS, seed)
    prices = PRICE_SHARES / train.price[train.best_single()]
    halves = Half(events=train, prices=prices), Half(events=test, prices=prices)
    most = min(n_calls, len(train.paid))
    for n_held in range(most, -1, -1):
        for held in combinations(train.paid, n_held):
            _learn_keeping(held, fold, halves)
            if n_held < most:
                _learn_asking(held, fold, halves)
    return halves


def _keep(end: int, step: Step) -> Step:
    return Step(chosen=np.full(len(step.value), end), use=np.zeros(len(step.value)), value=step.value)


def _join(held: Held, one: int) -> Held:
    return tuple(sorted((*held, one)))


def _learn_keeping(held: Held, fold: Integers, halves: tuple[Half, Half]) -> None:
    """Fill in how likely each answer held is to be right."""
    train, test = (half.events for half in halves)
    for half in halves:
        half.success[held] = np.full(half.events.correct.shape, -np.inf)
    for end in (train.local, *held):
        learned = learn(train, test, train.correct[:, end], destination=end, answered=held, fold=fold)
        for half, values in zip(halves, learned, strict=True):
            half.success[held][:, end] = values


def _learn_asking(held: Held, fold: Integers, halves: tuple[Half, Half]) -> None:
    """Fill in the cost to go after asking each of the others."""
    train, test = (half.events for half in halves)
    for half in halves:
        half.to_go[held] = np.full((len(half.prices), *half.events.correct.shape), np.nan)
    for end in train.unasked(held):
        for at, (labels, objective) in enumerate(_value_going(_join(held, end), halves[0])):
            learned = learn(train, test, labels, destination=end, answered=held, fold=fold, objective=objective)
            for half, values in zip(halves, learned, strict=True):
                half.to_go[held][at:, :, end] = -values if objective is TO_GO else HIGHEST - values


def _value_going(held: Held, known: Half) -> Iterator[tuple[Floats, Objective]]:
    """Yield what is learned of the way after ``held``, float64[n], and how: costs to go, one for each price.

    Where nobody is left to ask, the price no longer matters, and what came true is learned from: it is not biased as the
    best of several predictions is.
    """
    if held not in known.to_go:
        step = known.decide(held, 0.0)
        yield known.events.correct[np.arange(len(step.chosen)), step.chosen], SUCCESS
        return
    for price in known.prices:
        yield escalation.cost_to_go(known.decide(held, price), HIGHEST), TO_GO
