"""Simulated canaries for `benchmarks.gate`: two policies that differ on some events, and what each judge makes of it.

Where the policies agree the increment is 0 and, at margin 0, no bet is won or lost; so of canaries drawn per event only
the disagreements are simulated, each at the number of the decision it would have been.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from features.choices import Rung
from models import betting, evaluation
from models.betting import Units
from models.logged import LoggedDecisions
from validation import guardrails
from validation.canary_gate import CanaryGate, bound_increments
from validation.canary_log import Grouping

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

ALPHA = 0.05
N_LOOKS = 60
HORIZON = 50_000  # decisions
MIN_DECISIONS = 200  # before a promotion: the product's default
KEY_SIZE = 20  # decisions of a sticky key that count
KEY_SPREAD = 0.1  # standard deviation, over keys, of what both destinations earn
N_EARLIER = 500  # decisions that the frozen reward model was estimated from, per destination
_ANY_LADDER = (Rung(share=0.5),)  # bounds of increments do not depend on it
_GATE = CanaryGate(reward_low=0.0, reward_high=1.0, ladder=_ANY_LADDER, max_rises={})
_Z_LIMIT = 1.645  # one-sided, alpha .05


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A canary of share ``canary``; the policies choose differently on ``disagreement`` of the events.

    There the champion's destination succeeds with probability ``success``, the challenger's with ``success + lift``;
    elsewhere both choose one that succeeds with ``success``. ``n_keys`` sticky keys of equal traffic, or 0: per event.
    """

    canary: float
    disagreement: float
    success: float
    lift: float = 0.0
    n_keys: int = 0

    @property
    def is_possible(self) -> bool:
        """Whether the challenger's success is a probability."""
        return self.success + self.lift <= 1.0 + 1e-9  # .98 + .02 passes 1 by its last bit


@dataclass(frozen=True, kw_only=True)
class Played:
    """What happened on n decisions in order: ``at`` is each one's number, from 1; ``q`` the two frozen predictions."""

    at: Integers
    is_challenger: Mask
    reward: Floats
    q: Floats
    share: float

    def increments(self, q: Floats) -> Floats:
        """Return each decision's DR difference, all of them disagreements; with ``q`` 0, its mixture-IPS difference."""
        n = len(self.at)
        log = LoggedDecisions(
            offsets=np.arange(0, 2 * n + 1, 2),
            chosen=np.arange(0, 2 * n, 2) + self.is_challenger,
            propensity=np.where(self.is_challenger, self.share, 1.0 - self.share),
            reward=self.reward,
        )
        return evaluation.increments(log, np.tile([0.0, 1.0], n), np.tile([1.0, 0.0], n), np.tile(q, n))


def play(cell: Cell, rng: np.random.Generator) -> Played:
    """Return the disagreements of a canary whose arm is drawn per event."""
    at = np.flatnonzero(rng.uniform(size=HORIZON) < cell.disagreement) + 1
    arm = rng.uniform(size=len(at)) < cell.canary
    won = rng.uniform(size=len(at)) < cell.success + cell.lift * arm
    return Played(at=at, is_challenger=arm, reward=won.astype(np.float64), q=freeze(cell, rng), share=cell.canary)


def doubly_robust(cell: Cell, rng: np.random.Generator) -> float:
    """Return the number of the decision at which the product's sequence proves a gain, infinite if it never does."""
    played = play(cell, rng)
    low, high = bound_increments(np.full(len(played.at), cell.canary), _GATE)
    return _proven_at(_apart(played.increments(played.q), low, high), played.at)


def mixture_ips(cell: Cell, rng: np.random.Generator) -> float:
    """Return the same of the sequence without a reward model: its increments are bounded more tightly, and vary more."""
    played = play(cell, rng)
    low, high = np.full(len(played.at), -1.0 / (1.0 - cell.canary)), np.full(len(played.at), 1.0 / cell.canary)
    return _proven_at(_apart(played.increments(np.zeros(2)), low, high), played.at)


def arm_means(cell: Cell, rng: np.random.Generator) -> tuple[float, float]:
    """Return when the means of the two arms, over all events, are found to differ: by the same sequence, by a peeked z-test.

    The sequence bets on the product's own difference of arms, centred by all earlier decisions.
    """
    arm = rng.uniform(size=HORIZON) < cell.canary
    lifted = cell.lift * (arm & (rng.uniform(size=HORIZON) < cell.disagreement))
    reward = (rng.uniform(size=HORIZON) < cell.success + lifted).astype(np.float64)
    each = np.arange(HORIZON)
    grouping = Grouping(
        kept=each,
        member=each,
        size=np.ones(HORIZON),
        share=np.full(HORIZON, cell.canary),
        is_challenger=arm,
        is_full=False,
    )
    return _proven_at(guardrails.measure_rise(grouping, reward, 1), each + 1), _peek(arm, reward)


@dataclass(frozen=True, kw_only=True)
class Keyed:
    """A canary by key, as far as it counts: the first `KEY_SIZE` decisions of each key.

    ``number`` (float64[n_keys, KEY_SIZE], rising) says at which decision of the stream each was, ``is_challenger``
    (bool[n_keys]) in which arm, ``gain`` (float64[n_keys, KEY_SIZE]) what the DR differences of its key then summed to.
    """

    number: Floats
    is_challenger: Mask
    gain: Floats
    share: float

    def look(self, until: float) -> Units:
        """Return the keys as far as they got by ``until``, in the order of the last decision of each."""
        size = (self.number <= until).sum(axis=1)
        seen = np.flatnonzero(size)
        last = size[seen] - 1
        order = np.argsort(self.number[seen, last])
        total = self.gain[seen, last]
        low, high = bound_increments(np.full(len(seen), self.share), _GATE)
        return Units(total=total[order], size=size[seen][order] * 1.0, low=low, high=high, max_size=KEY_SIZE)

    def proven_at(self) -> float:
        """Return the decision at which the first look, of those spread evenly over all that count, proves a gain; or infinity."""
        looks = np.linspace(0.0, min(float(self.number.max()), float(HORIZON)), N_LOOKS + 1)[1:]
        proven = (until for until in looks if self._proves(until))
        return next(proven, math.inf)

    def _proves(self, until: float) -> bool:
        return betting.first_crossing(betting.log_wealth(self.look(until), 0.0), ALPHA) is not None


def play_keyed(cell: Cell, rng: np.random.Generator) -> Keyed:
    """Return a canary whose arm is drawn per key; keys come at random and differ in what they earn at both destinations."""
    shape = (cell.n_keys, KEY_SIZE)
    number = np.cumsum(rng.exponential(cell.n_keys, shape), axis=1)
    arm = rng.uniform(size=cell.n_keys) < cell.canary
    earns = (cell.success + rng.normal(0.0, KEY_SPREAD, cell.n_keys) + cell.lift * arm)[:, None]
    differs = rng.uniform(size=shape) < cell.disagreement
    played = Played(
        at=np.arange(int(differs.sum())) + 1,
        is_challenger=np.broadcast_to(arm[:, None], shape)[differs],
        reward=(rng.uniform(size=shape) < earns)[differs].astype(np.float64),
        q=freeze(cell, rng),
        share=cell.canary,
    )
    increment = np.zeros(shape)
    increment[differs] = played.increments(played.q)
    return Keyed(number=number, is_challenger=arm, gain=np.cumsum(increment, axis=1), share=cell.canary)


def _peek(arm: Mask, reward: Floats) -> float:
    """Return the look at which a pooled one-sided z-test finds a gain, infinite if none does: what a gate must not do."""
    looks = np.linspace(0, HORIZON, N_LOOKS + 1).astype(np.int64)[1:]
    n_challenger, won = np.cumsum(arm)[looks - 1], np.cumsum(reward)[looks - 1]
    won_challenger = np.cumsum(reward * arm)[looks - 1]
    n_champion = looks - n_challenger
    both = (n_challenger > 0) & (n_champion > 0)
    n_challenger, n_champion = np.maximum(n_challenger, 1), np.maximum(n_champion, 1)
    gain = won_challenger / n_challenger - (won - won_challenger) / n_champion
    variance = (won / looks) * (1.0 - won / looks) * (1.0 / n_challenger + 1.0 / n_champion)
    found = both & (gain > _Z_LIMIT * np.sqrt(variance)) & (gain > 0.0)
    return float(looks[found.argmax()]) if found.any() else math.inf


def freeze(cell: Cell, rng: np.random.Generator) -> Floats:
    """Return what a reward model fitted on earlier decisions says of the champion's and the challenger's destination."""
    return rng.binomial(N_EARLIER, np.clip([cell.success, cell.success + cell.lift], 0.0, 1.0)) / N_EARLIER


def _apart(total: Floats, low: Floats, high: Floats) -> Units:
    return Units(total=total, size=np.ones(len(total)), low=low, high=high)


def _proven_at(units: Units, at: Integers) -> float:
    crossed = betting.first_crossing(betting.log_wealth(units, 0.0), ALPHA) if len(at) else None
    return math.inf if crossed is None else float(max(at[crossed], MIN_DECISIONS))
