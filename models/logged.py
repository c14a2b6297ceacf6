"""Logged decisions as evaluation reads them: checked, ragged, and cut into folds that respect who shares fate."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_SUM_TOLERANCE = 1e-6  # distributions may have travelled as text


@dataclass(frozen=True, kw_only=True)
class LoggedDecisions:
    """n logged decisions; the eligible candidates of decision i are rows ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    offsets : int64[n + 1]
        Rising from 0; every decision has at least one row.
    chosen : int64[n]
        The row of the assigned candidate.
    propensity : float64[n]
        Its logged probability, in (0, 1]; NaN throughout for a log that kept none.
    reward : float64[n]
        What was earned, finite.
    cluster : int64[n] or None
        Decisions that share fate carry the same number; None if each is on its own.

    Raises
    ------
    ValueError
        Naming the column, the decision and the value that break these rules.
    """

    offsets: Integers
    chosen: Integers
    propensity: Floats
    reward: Floats
    cluster: Integers | None = None

    def __post_init__(self) -> None:
        """Refuse a log that is not one."""
        n = len(self.chosen)
        if len(self.offsets) != n + 1 or self.offsets[0] != 0:
            raise ValueError(f"offsets must start at 0 and number {n + 1}, got {len(self.offsets)}: {self.offsets[:1]}")
        check("offsets must rise", np.diff(self.offsets) >= 1, np.diff(self.offsets))
        for name in ("propensity", "reward", "cluster"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"{name} must number {n}, got {len(column)}")
        inside = (self.offsets[:-1] <= self.chosen) & (self.chosen < self.offsets[1:])
        check("chosen must be a row of its decision", inside, self.chosen)
        check("reward must be finite", np.isfinite(self.reward), self.reward)
        if self.has_propensities:
            check("propensity must lie in (0, 1]", (self.propensity > 0) & (self.propensity <= 1), self.propensity)

    @property
    def n_decisions(self) -> int:
        """How many decisions there are."""
        return len(self.chosen)

    @property
    def has_propensities(self) -> bool:
        """Whether the log kept any propensity; an empty one lacks none."""
        return not self.n_decisions or not np.isnan(self.propensity).all()


def find_disagreements(log: LoggedDecisions, challenger: Floats, champion: Floats) -> Mask:
    """Return for which decisions the most likely candidate differs, bool[n]; ties go to the first."""
    starts, n_rows = log.offsets[:-1], np.diff(log.offsets)

    def favourites(policy: Floats) -> Integers:
        is_best = policy == np.repeat(np.maximum.reduceat(policy, starts), n_rows)
        return np.minimum.reduceat(np.where(is_best, np.arange(len(policy)), len(policy)), starts)

    return favourites(challenger) != favourites(champion) if log.n_decisions else np.zeros(0, np.bool_)


def folds(cluster: Integers, n_folds: int, seed: int) -> Integers:
    """Return the fold of each decision, int64[n] in [0, n_folds): whole clusters at random, folds of near equal size.

    Fit q on all folds but one and predict that one: no decision is then judged by a model that saw its cluster.

    Raises
    ------
    ValueError
        If there are fewer clusters than folds, or fewer than two folds.
    """
    names, inverse, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    if not 2 <= n_folds <= len(names):  # noqa: PLR2004  # one fold leaves nothing to fit on
        raise ValueError(f"folds must number from 2 to the {len(names)} clusters, got {n_folds}")
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]  # the largest first: they decide the balance
    fold_of, filled = np.empty(len(names), np.int64), np.zeros(n_folds, np.int64)
    if sizes.min() == sizes.max():  # a million decisions on their own need no loop to be dealt in turn
        fold_of[order] = np.arange(len(names)) % n_folds
        return fold_of[inverse]
    for name in order:
        fold_of[name] = filled.argmin()
        filled[fold_of[name]] += sizes[name]
    return fold_of[inverse]


def cross_fit(log: LoggedDecisions, n_folds: int, seed: int, predict: Callable[[Mask, Mask], Floats]) -> Floats:
    """Return a reward model's word for every row, float64[n_rows], that no decision of the row's own cluster was asked for.

    ``predict(learns, judged)`` fits on the decisions ``learns`` (bool[n]) and returns a number for each of the rows
    ``judged`` (bool[n_rows]). Source: Chernozhukov et al., "Double/debiased machine learning", Econometrics Journal, 2018.

    Raises
    ------
    ValueError
        As `folds` does.
    """
    fold = folds(np.arange(log.n_decisions) if log.cluster is None else log.cluster, n_folds, seed)
    fold_of_row, predicted = np.repeat(fold, np.diff(log.offsets)), np.empty(int(log.offsets[-1]))
    for k in range(n_folds):
        predicted[fold_of_row == k] = predict(fold != k, fold_of_row == k)
    return predicted


def sum_rows(log: LoggedDecisions, column: Floats) -> Floats:
    """Return the sum of ``column`` (float64[n_rows]) over each decision's rows, float64[n]."""
    summed: Floats = np.add.reduceat(column, log.offsets[:-1]) if log.n_decisions else np.zeros(0)
    return summed


def check_distribution(name: str, log: LoggedDecisions, policy: Floats) -> None:
    """Refuse a ``policy`` (float64[n_rows]) that is no distribution over the rows of every decision; ``name`` is for the error."""
    if len(policy) != log.offsets[-1]:
        raise ValueError(f"{name} must number {log.offsets[-1]} rows, got {len(policy)}")
    check(f"{name} must be nonnegative, by row", policy >= 0.0, policy)
    sums = sum_rows(log, policy)
    check(f"{name} must sum to 1 over a decision's rows", np.abs(sums - 1.0) <= _SUM_TOLERANCE, sums)


def check(rule: str, holds: Mask, column: NDArray[np.generic]) -> None:
    """Refuse a ``column`` of which the ``rule`` does not hold everywhere, with the first value that breaks it and its place."""
    if not holds.all():
        at = int(np.argmin(holds))
        raise ValueError(f"{rule}, got {column[at]} at {at}")
