"""What a canary showed: closed decisions in order of time, and their sums per unit of randomisation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]
Instants = NDArray[np.datetime64]


LATE = "late"  # among the harms: the outcome came in the second half of its window, or not at all


class CanaryDataError(ValueError):
    """Canary data that no verdict may rest on: names the column, the decision and the rule."""


@dataclass(frozen=True, kw_only=True)
class CanaryLog:
    """n decisions whose reward window has closed, in order of ``decided_at``; all of a unit's or none.

    Everything goes by the *assigned* arm and destination: fallback, failover and client timeouts stay with it.

    Attributes
    ----------
    decided_at : datetime64[n]
        Instants, never falling.
    unit : int64[n]
        Decisions whose arm was drawn together (one event, one key or one time slice) carry the same number.
    share : float64[n]
        Probability of the challenger's arm, in (0, 1), fixed before the unit and the same throughout it.
    is_challenger : bool[n]
        The arm that was drawn.
    increment : float64[n]
        DR difference in units of the reward (`models.evaluation.increments`) of the distributions that the two arms
        really drew from, as logged: of others, greedy ones say, the bounds do not hold.
    disagrees : bool[n]
        Whether the two prefer different destinations.
    harms : float64[n] by name
        What the guardrails watch, each in [0, 1]: 1 for a failure, say.
    rung_share : float64[n] or None
        The share of the rung at which each was decided, where that is another than the unit's (`validation.redraw`).

    Raises
    ------
    CanaryDataError
        If a column breaks these rules.
    """

    decided_at: Instants
    unit: Integers
    share: Floats
    is_challenger: Mask
    increment: Floats
    disagrees: Mask
    harms: Mapping[str, Floats] = field(default_factory=dict)
    rung_share: Floats | None = None

    def __post_init__(self) -> None:
        """Refuse what would void a verdict."""
        columns = vars(self) | {f"harms[{name}]": harm for name, harm in self.harms.items()}
        del columns["harms"]
        if self.rung_share is None:
            del columns["rung_share"]
        for name, column in columns.items():
            if len(column) != self.n_decisions:
                raise CanaryDataError(f"{name} must number {self.n_decisions}, got {len(column)}")
        _check("increment must be finite", np.isfinite(self.increment), self.increment)
        _check("share must lie in (0, 1)", (self.share > 0.0) & (self.share < 1.0), self.share)
        if self.n_decisions:
            _check("decided_at must never fall", self.decided_at[1:] >= self.decided_at[:-1], self.decided_at[1:])
        for name, harm in self.harms.items():
            _check(f"harms[{name}] must lie in [0, 1]", (harm >= 0.0) & (harm <= 1.0), harm)

    @property
    def n_decisions(self) -> int:
        """How many decisions there are."""
        return len(self.unit)

    @property
    def on_rung(self) -> Floats:
        """The share of the rung at which each was decided, float64[n]."""
        return self.share if self.rung_share is None else self.rung_share


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """Which decisions count, and the units they belong to, in the order in which the units were complete.

    Attributes
    ----------
    kept : int64[n_kept]
        The decisions that count, in order of time.
    member : int64[n_kept]
        For each, its unit's place.
    size, share : float64[n_units]
        Decisions that count, and the challenger's probability, of each unit.
    is_challenger : bool[n_units]
        The arm of each unit.
    is_full : bool
        Whether there were as many decisions as may be counted.
    """

    kept: Integers
    member: Integers
    size: Floats
    share: Floats
    is_challenger: Mask
    is_full: bool

    def sum_by_unit(self, column: Floats) -> Floats:
        """Return the sum over each unit of a column of the log, float64[n_units]."""
        return np.bincount(self.member, column[self.kept], len(self.size)).astype(np.float64, copy=False)


def group_by_unit(log: CanaryLog, max_size: int, max_decisions: int) -> Grouping:
    """Group the decisions of ``log`` by unit, until ``max_decisions`` are counted.

    Of a unit only the first ``max_size`` decisions count, a rule that looks at no outcome: without it the sum of a
    unit would have no bound. A unit stands where the last decision that counts of it stands.

    Raises
    ------
    CanaryDataError
        If a unit changes its share or its arm: its decisions were not drawn together.
    """
    _, first, inverse = np.unique(log.unit, return_index=True, return_inverse=True)
    same = (log.share == log.share[first][inverse]) & (log.is_challenger == log.is_challenger[first][inverse])
    _check("share and arm must be the same throughout a unit", same, log.unit)
    kept = np.flatnonzero(_rank_within(inverse) < max_size)
    last = np.zeros(len(first), np.int64)
    np.maximum.at(last, inverse[kept], kept)
    order = np.argsort(last)
    place = np.empty(len(first), np.int64)
    place[order] = np.arange(len(first))
    size = np.bincount(place[inverse[kept]], minlength=len(first))
    n_units = int(np.searchsorted(np.cumsum(size), max_decisions, side="right"))
    kept = kept[place[inverse[kept]] < n_units]
    return Grouping(
        kept=kept,
        member=place[inverse[kept]],
        size=size[:n_units].astype(np.float64),
        share=log.share[first][order][:n_units],
        is_challenger=log.is_challenger[first][order][:n_units],
        is_full=int(size.sum()) >= max_decisions,
    )


def _rank_within(group: Integers) -> Integers:
    """Return how many earlier elements share each element's group, int64[n]."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], group[order])
    rank = np.empty(len(group), np.int64)
    rank[order] = np.arange(len(group)) - starts
    return rank


def _check(rule: str, holds: Mask, column: NDArray[np.generic]) -> None:
    if not holds.all():
        at = int(np.argmin(holds))
        raise CanaryDataError(f"{rule}, got {column[at]} at {at}")
