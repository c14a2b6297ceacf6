"""The decision log as arrays: closed decisions of one stream, their eligible candidates, and what became of them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features import scratch
from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Instants = NDArray[np.datetime64]


@dataclass(frozen=True, kw_only=True)
class Revealed:
    """m revealed outcomes of a log: each is that of one row, of the assigned candidate or of one that was probed.

    ``probability`` is that with which the outcome was to be revealed: the propensity of an assignment, 1 where every
    candidate's outcome is always seen, NaN for a probe, whose reason nobody logged. ``timed_out`` says that the latency
    is a lower bound. ``success``, ``latency_ms`` and ``cost_usd`` are NaN where an outcome does not say.
    """

    row: Integers
    probability: Floats
    success: Floats
    latency_ms: Floats
    cost_usd: Floats
    timed_out: NDArray[np.bool_]

    def take(self, kept: NDArray[np.bool_] | Integers) -> "Revealed":
        """Return these outcomes (mask or indices)."""
        return Revealed(**{field.name: getattr(self, field.name)[kept] for field in fields(self)})

    def beside(self, other: "Revealed") -> "Revealed":
        """Return these outcomes and then ``other``'s."""
        names = (field.name for field in fields(self))
        return Revealed(**{name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names})


@dataclass(frozen=True, kw_only=True)
class DecisionLog:
    """n decisions in order of time; the eligible candidates of decision i are rows ``offsets[i]:offsets[i + 1]``.

    Attributes
    ----------
    decision_id, decided_at : [n]
        Identity, and the instant (datetime64[us], UTC).
    cluster : int64[n]
        Decisions that share fate carry the same number.
    chosen : int64[n]
        The row of the assigned destination.
    propensity, reward : float64[n]
        Probability of the assignment as logged; reward under the stream's objective.
    success, latency_ms, cost_usd : float64[n]
        The outcome, NaN where it does not say.
    timed_out : bool[n]
        The latency is a lower bound: nobody waited longer.
    numbers : float64[n_rows, n_numbers]
        Number features as logged, NaN where missing.
    categories : list of CategoryColumn of n_rows
        Category features as logged.
    destination : CategoryColumn of n_rows
        Which destination each row is.
    policies : float64[n_rows] by name
        Each logged policy's distribution; NaN for decisions it took no part in.
    champion : object[n] or None
        The digest of the champion that took part, None where none did; None of a log that does not say.
    probes : Revealed or None
        What candidates that were not assigned would have brought, where that is known.
    """

    decision_id: NDArray[np.object_]
    decided_at: Instants
    cluster: Integers
    offsets: Integers
    chosen: Integers
    propensity: Floats
    reward: Floats
    success: Floats
    latency_ms: Floats
    cost_usd: Floats
    numbers: Floats
    categories: list[CategoryColumn]
    destination: CategoryColumn
    policies: dict[str, Floats]
    timed_out: NDArray[np.bool_]
    champion: NDArray[np.object_] | None = None
    probes: Revealed | None = None

    @property
    def n_decisions(self) -> int:
        """How many decisions there are."""
        return len(self.propensity)

    @property
    def decision(self) -> Integers:
        """The decision of each row, int64[n_rows]."""
        return np.repeat(np.arange(self.n_decisions), np.diff(self.offsets))

    def decision_of(self, row: Integers) -> Integers:
        """Return the decisions that these rows are candidates of, int64[n]."""
        return np.searchsorted(self.offsets, row, side="right") - 1

    def revealed(self) -> Revealed:
        """Return every outcome that the log knows: of the assigned candidates in order, then of the probed ones."""
        assigned = Revealed(
            row=self.chosen,
            probability=self.propensity,
            success=self.success,
            latency_ms=self.latency_ms,
            cost_usd=self.cost_usd,
            timed_out=self.timed_out,
        )
        return assigned if self.probes is None else assigned.beside(self.probes)

    def take(self, kept: NDArray[np.bool_]) -> "DecisionLog":
        """Return the log of the ``kept`` decisions (mask, [n])."""
        n_candidates = np.diff(self.offsets)
        rows = np.repeat(kept, n_candidates)
        offsets = np.concatenate(([0], np.cumsum(n_candidates[kept])))
        place = self.chosen - self.offsets[:-1]
        columns: dict[str, Any] = {
            name: getattr(self, name)[kept]
            for name in (
                "decided_at",
                "cluster",
                "propensity",
                "reward",
                "success",
                "latency_ms",
                "cost_usd",
                "timed_out",
            )
        }
        place_of = np.cumsum(rows) - 1
        probes = None if self.probes is None else self.probes.take(rows[self.probes.row])
        return replace(
            self,
            **columns,
            offsets=offsets,
            chosen=offsets[:-1] + place[kept],
            decision_id=scratch.take(self.decision_id, np.flatnonzero(kept)),
            numbers=scratch.take(self.numbers, np.flatnonzero(rows)),
            categories=[column.take(rows) for column in self.categories],
            destination=self.destination.take(rows),
            policies={name: column[rows] for name, column in self.policies.items()},
            champion=None if self.champion is None else self.champion[kept],
            probes=None if probes is None else replace(probes, row=place_of[probes.row]),
        )

    def revealed_alone(self) -> "DecisionLog":
        """Return the log without the rows whose outcome nobody knows; itself if there are none."""
        known = np.zeros(int(self.offsets[-1]), np.bool_)
        known[self.revealed().row] = True
        if known.all():
            return self
        place_of = np.cumsum(known) - 1
        return replace(
            self,
            offsets=np.concatenate(([0], place_of + 1))[self.offsets],
            chosen=place_of[self.chosen],
            numbers=self.numbers[known],
            categories=[column.take(known) for column in self.categories],
            destination=self.destination.take(known),
            policies={name: column[known] for name, column in self.policies.items()},
            probes=None if self.probes is None else replace(self.probes, row=place_of[self.probes.row]),
        )

    def split(self, holdout_share: float) -> tuple["DecisionLog", "DecisionLog"]:
        """Return the earlier and the later part, as `later_part` cuts them; raises as it does."""
        late = later_part(self.decided_at, self.cluster, holdout_share)
        return self.take(~late), self.take(late)


def later_part(decided_at: Instants, cluster: Integers, holdout_share: float) -> NDArray[np.bool_]:
    """Return which decisions (rising in time) are the later part: no cluster is cut, it has at least ``holdout_share``.

    Raises
    ------
    ValueError
        If everything shares one cluster, so that no later part is independent of the earlier.
    """
    late = decided_at >= decided_at[int(len(decided_at) * (1 - holdout_share))]
    late |= np.isin(cluster, cluster[late])
    if late.all():
        raise ValueError(f"a holdout of {holdout_share:.0%} leaves nothing to train on: all decisions share a cluster")
    return np.asarray(late)


def random_place(cluster: Integers, seed: int) -> Integers:
    """Return the place of each decision, int64[n], when whole clusters are put in random order."""
    names, inverse = np.unique(cluster, return_inverse=True)
    rank = np.random.default_rng(seed).permutation(len(names))[inverse]
    place = np.empty(len(cluster), np.int64)
    place[np.argsort(rank, kind="stable")] = np.arange(len(cluster))
    return place
