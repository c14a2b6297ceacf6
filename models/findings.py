"""What a reviewer asks after the sum: where the candidate gains and loses, and single cases in which it chooses otherwise."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.decision_log import DecisionLog
from features.vector import CategoryColumn
from models import evaluation, pricing
from models.evaluation import Refusal
from models.logged import LoggedDecisions
from models.router import Router, Scores
from models.tariff import Tariff

Floats = NDArray[np.float64]

_MIN_DECISIONS = 50  # fewer say nothing of a slice
_MAX_VALUES = 12  # of one feature, the most frequent: a key with thousands of values is no slice
_N_EXAMPLES = 6
_N_REGRESSIONS = 5


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The candidate's gain in reward on the decisions where a feature has one value; limits are 95 % and each its own."""

    feature: str
    value: str
    n_decisions: int
    difference: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """One decision in which the two choose otherwise, with what the candidate expects of both choices."""

    decision_id: str
    at: str
    champion: str
    candidate: str
    champion_value: float
    candidate_value: float
    assigned: str
    reward: float
    features: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found beside the comparison.

    ``regressions`` are the slices with the lowest gain, of those where it is below 0; ``harmed`` counts the slices whose
    whole interval is. ``load_shift`` and ``drift`` are what `validation` said, as plain values and in words.
    """

    slices: tuple[Slice, ...] = ()
    regressions: tuple[Slice, ...] = ()
    harmed: int = 0
    disagreements: tuple[Disagreement, ...] = ()
    load_shift: tuple[dict[str, Any], ...] = ()
    load_words: tuple[str, ...] = ()
    drift: dict[str, Any] = field(default_factory=dict)
    drift_words: tuple[str, ...] = ()


NOTHING_FOUND = Findings()


def find_slices(
    log: DecisionLog, categories: tuple[str, ...], target: Floats, baseline: Floats, predicted: Floats
) -> tuple[Slice, ...]:
    """Return the doubly robust gain of ``target`` over ``baseline`` on every slice that the log can judge.

    A slice is a value of a category that all candidates of a decision share. Many slices are looked at: one in twenty
    intervals misses by chance alone.
    """
    found = []
    for name, column in zip(categories, log.categories, strict=True):
        for value, members in _values(log, column):
            estimate = _difference(log, members, target, baseline, predicted)
            if not isinstance(estimate, Refusal):
                found.append(
                    Slice(
                        feature=name,
                        value=value,
                        n_decisions=int(members.sum()),
                        difference=estimate.value,
                        low=estimate.low,
                        high=estimate.high,
                    )
                )
    return tuple(found)


def find_regressions(slices: tuple[Slice, ...]) -> tuple[Slice, ...]:
    """Return the slices that lose most, worst first."""
    return tuple(sorted((s for s in slices if s.difference < 0.0), key=lambda s: s.difference)[:_N_REGRESSIONS])


def find_disagreements(
    log: DecisionLog, names: tuple[str, ...], target: Floats, baseline: Floats, scores: Scores
) -> tuple[Disagreement, ...]:
    """Return decisions in which the likeliest choices differ: those with most to gain, and those with least."""
    chosen, led = (_likeliest(policy, log.offsets) for policy in (target, baseline))
    differing = np.flatnonzero(chosen != led)
    gain = scores.value[chosen[differing]] - scores.value[led[differing]]
    order = differing[np.argsort(-gain, kind="stable")]
    half = _N_EXAMPLES // 2
    picked = order if len(order) <= _N_EXAMPLES else np.concatenate([order[:half], order[-half:]])
    return tuple(_disagreement(log, names, int(i), int(chosen[i]), int(led[i]), scores) for i in picked)


def examine(log: DecisionLog, candidate: Router, tariff: Tariff | None, baseline: Floats) -> tuple[Findings, Floats]:
    """Return slices, regressions and examples of ``candidate`` against the ``baseline``, and its greedy distribution."""
    scores = candidate.score_log(log.numbers, log.categories)
    target = pricing.greedy(log, scores, tariff)
    names = tuple(candidate.card.categories)
    predicted = candidate.card.objective.clip(scores.value)
    slices = find_slices(log, names, target, baseline, predicted)
    found = Findings(
        slices=slices,
        regressions=find_regressions(slices),
        harmed=sum(s.high < 0.0 for s in slices),
        disagreements=find_disagreements(log, names, target, baseline, scores),
    )
    return found, target


def _values(log: DecisionLog, column: CategoryColumn) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the frequent values of a column that is the same for all candidates of a decision, and whose decisions."""
    first = column.codes[log.offsets[:-1]]
    if not np.array_equal(np.repeat(first, np.diff(log.offsets)), column.codes):
        return
    counts = np.bincount(first[first >= 0], minlength=len(column.values))
    for code in np.argsort(-counts, kind="stable")[:_MAX_VALUES]:
        if counts[code] >= _MIN_DECISIONS:
            yield column.values[code], first == code


def _difference(
    log: DecisionLog, members: NDArray[np.bool_], target: Floats, baseline: Floats, predicted: Floats
) -> evaluation.Estimate | Refusal:
    n_candidates = np.diff(log.offsets)
    rows = np.repeat(members, n_candidates)
    offsets = np.concatenate(([0], np.cumsum(n_candidates[members])))
    logged = LoggedDecisions(  # not the log's own `take`: that would copy its vectors for every slice
        offsets=offsets,
        chosen=offsets[:-1] + (log.chosen - log.offsets[:-1])[members],
        propensity=log.propensity[members],
        reward=log.reward[members],
        cluster=log.cluster[members],
    )
    return evaluation.estimate_difference(logged, target[rows], baseline[rows], predicted[rows])


def _likeliest(distribution: Floats, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the row of each decision's likeliest candidate, the first of equals."""
    n_rows = np.diff(offsets)
    best = distribution == np.repeat(np.maximum.reduceat(distribution, offsets[:-1]), n_rows)
    return np.minimum.reduceat(np.where(best, np.arange(len(distribution)), len(distribution)), offsets[:-1])


def _disagreement(
    log: DecisionLog, names: tuple[str, ...], decision: int, chosen: int, led: int, scores: Scores
) -> Disagreement:
    def name(row: int) -> str:
        return str(log.destination.values[log.destination.codes[row]])

    told = {
        feature: column.values[column.codes[chosen]]
        for feature, column in zip(names, log.categories, strict=True)
        if column.codes[chosen] >= 0 and column.codes[chosen] == column.codes[led]
    }
    return Disagreement(
        decision_id=str(log.decision_id[decision]),
        at=str(log.decided_at[decision]),
        champion=name(led),
        candidate=name(chosen),
        champion_value=float(scores.value[led]),
        candidate_value=float(scores.value[chosen]),
        assigned=name(int(log.chosen[decision])),
        reward=float(log.reward[decision]),
        features=told,
    )
