"""FrugalML with up to two paid calls: every stage a router of the product, fitted backwards from the last answer."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from benchmarks.frugalml_events import Events
from benchmarks.frugalml_router import TO_GO, learn
from models import escalation, logged
from models.escalation import Step

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

N_FOLDS = 2  # every stage is learned on the out-of-fold predictions of the next
# Of a success, for the best single provider's price: where first steps are learned.
PRICE_SHARES = np.geomspace(0.005, 1.5, 7)
HIGHEST = 1.0  # a success that cost nothing


@dataclass(frozen=True, kw_only=True)
class Half:
    """What the policy knows of n events at any price, and what it would get.

    ``second`` float64[k, n, k]: the predicted success of ending at each destination once the first has answered, -inf
    where that is no choice; ``right`` the same of what came true; ``to_go`` float64[n_prices, n, k] the predicted cost to
    go after each first call, at each of ``prices`` (value per USD).
    """

    price: Floats
    prices: Floats
    second: Floats
    right: Floats
    to_go: Floats

    def route(self, price: float) -> tuple[Floats, Floats]:
        """Return whether each event's answer was right, and what its calls cost."""
        first = escalation.take(HIGHEST - escalation.interpolate(price, self.prices, self.to_go), self.price, price)
        way = escalation.follow(first, [self.decide_next(a, price) for a in range(len(self.price))])
        return self.right[first.chosen, np.arange(len(way.chosen)), way.chosen], way.use

    def decide_next(self, first: int, price: float) -> Step:
        """Return what is decided about every event once ``first`` has answered; its answer and the local one are free."""
        use = self.price.copy()
        use[first] = 0.0
        return escalation.take(self.second[first], use, price)


def learn_cascade(train: Events, test: Events, seed: int) -> tuple[Half, Half]:
    """Return the policy's halves: the training events out of fold, and the test events."""
    fold = logged.folds(np.arange(len(train.correct)), N_FOLDS, seed)
    prices = PRICE_SHARES / train.price[train.best_single()]
    halves = tuple(_prepare(events, prices) for events in (train, test))
    last = _learn_last(train, test, fold)
    for first in train.paid:
        for end in range(len(train.destinations)):
            is_asked = end not in (first, train.local)
            right = last[first, end] if is_asked else (train.correct[:, end], test.correct[:, end])
            learned = learn(train, test, right[0], destination=end, answered=(first,), fold=fold)
            for half, values, truth in zip(halves, (learned.train, learned.test), right, strict=True):
                half.second[first, :, end], half.right[first, :, end] = values, truth
    _learn_first(train, test, fold, halves)
    return halves[0], halves[1]


def _prepare(events: Events, prices: Floats) -> Half:
    """Return a half of which nothing is known but that the local model's answer ends the way."""
    n, k = events.correct.shape
    half = Half(
        price=events.price,
        prices=prices,
        second=np.full((k, n, k), -np.inf),
        right=np.zeros((k, n, k)),
        to_go=np.empty((len(prices), n, k)),
    )
    half.second[events.local, :, events.local] = 0.0
    half.right[events.local, :, events.local] = events.correct[:, events.local]
    return half


def _learn_last(train: Events, test: Events, fold: Integers) -> dict[tuple[int, int], tuple[Floats, Floats]]:
    """Return, for each two calls, whether the answer taken in the end is right: of all those held, the likeliest."""
    right = {}
    for pair in combinations(train.paid, 2):
        held = (train.local, *pair)
        learned = [learn(train, test, train.correct[:, end], destination=end, answered=pair, fold=fold) for end in held]
        found = []
        for events, values in ((train, [each.train for each in learned]), (test, [each.test for each in learned])):
            chosen = escalation.take(np.column_stack(values), np.zeros(len(held)), 0.0).chosen
            found.append(events.correct[np.arange(len(chosen)), np.array(held)[chosen]])
        right[pair] = right[pair[::-1]] = (found[0], found[1])
    return right


def _learn_first(train: Events, test: Events, fold: Integers, halves: tuple[Half, ...]) -> None:
    """Fill in the costs to go: of the local model what it lacks of a success, of the others what they leave to do."""
    learned_half, asked_half = halves
    local = learn(train, test, train.correct[:, train.local], destination=train.local, fold=fold)
    learned_half.to_go[:, :, train.local] = HIGHEST - local.train
    asked_half.to_go[:, :, train.local] = HIGHEST - local.test
    for at, price in enumerate(learned_half.prices):
        for first in train.paid:
            labels = escalation.cost_to_go(learned_half.decide_next(first, price), HIGHEST)
            learned = learn(train, test, labels, destination=first, fold=fold, objective=TO_GO)
            learned_half.to_go[at, :, first], asked_half.to_go[at, :, first] = -learned.train, -learned.test
