"""The decision log as arrays: closed decisions of one stream, their eligible candidates, and what became of them."""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.vector import CategoryColumn, FeatureDefinitions

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
                "decision_id",
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
            numbers=self.numbers[rows],
            categories=[column.take(rows) for column in self.categories],
            destination=self.destination.take(rows),
            policies={name: column[rows] for name, column in self.policies.items()},
            champion=None if self.champion is None else self.champion[kept],
            probes=None if probes is None else replace(probes, row=place_of[probes.row]),
        )

    def split(self, holdout_share: float) -> tuple["DecisionLog", "DecisionLog"]:
        """Return the earlier and the later part, as `later_part` cuts them; raises as it does."""
        late = later_part(self.decided_at, self.cluster, holdout_share)
        return self.take(~late), self.take(late)

    def revealed_alone(self) -> "DecisionLog":
        """Return the log without the rows whose outcome it does not know: all that a fit reads, a fraction of the memory."""
        known = np.zeros(int(self.offsets[-1]), np.bool_)
        known[self.revealed().row] = True
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


def from_table(table: pa.Table, definitions: FeatureDefinitions, *, cluster_by: str) -> DecisionLog:
    """Return the rows of `history.training_rows` or (closed ones of) `history.rewards` as arrays.

    ``cluster_by`` is the stream's ``cluster``: ``decision``, ``key`` (the unit of the canary arm) or ``day`` (in the
    features' zone). Candidates that were not eligible are left out.

    Raises
    ------
    ValueError
        If the table is empty: there is nothing to make arrays of.
    """
    if not table.num_rows:
        raise ValueError("no closed decisions")
    eligible = _flat(table["eligible"]).to_numpy(zero_copy_only=False)
    destinations = category_column(_flat(table["destinations"]))
    lengths = pc.list_value_length(table["eligible"]).to_numpy()
    starts = np.concatenate(([0], np.cumsum(lengths)))
    kept_before = np.concatenate(([0], np.cumsum(eligible)))
    mask = pa.array(eligible)
    categories = _matrix(_flat(table["categories"]).filter(mask), len(definitions.categories))
    return DecisionLog(
        decision_id=table["decision_id"].to_numpy(),
        decided_at=table["decided_at"].cast(pa.timestamp("us")).to_numpy(),
        cluster=clusters(table, cluster_by, definitions.zone),
        offsets=kept_before[starts],
        chosen=kept_before[starts[:-1] + table["assigned_index"].to_numpy()],
        propensity=_floats(table["propensity"]),
        reward=_floats(table["reward"]),
        success=_floats(table["success"]),
        latency_ms=_floats(table["latency_ms"]),
        cost_usd=_floats(table["cost_usd"]),
        numbers=_floats(_matrix(_flat(table["numbers"]).filter(mask), len(definitions.numbers))).reshape(
            int(eligible.sum()), len(definitions.numbers)
        ),
        categories=[
            category_column(categories[column :: len(definitions.categories)])
            for column in range(len(definitions.categories))
        ],
        destination=destinations.take(eligible),
        champion=table["champion"].to_numpy(),
        policies=_policies(table, lengths, eligible),
        timed_out=pc.equal(table["status"], "timeout").to_numpy(),
        probes=_probes(table, destinations, starts, eligible),
    )


def _probes(
    table: pa.Table, destination: CategoryColumn, starts: Integers, eligible: NDArray[np.bool_]
) -> Revealed | None:
    """Return the probes of eligible candidates; those of others say nothing that may be acted on."""
    lists = table["probes"].combine_chunks()
    if lists.null_count == len(lists):
        return None
    told = pc.list_flatten(lists)
    decision = pc.list_parent_indices(lists).to_numpy()
    code_of = {name: code for code, name in enumerate(destination.values)}
    served = np.array([code_of.get(name, -1) for name in pc.struct_field(told, "served").to_pylist()], np.int64)
    n_candidates = np.diff(starts)
    # The pair (decision, destination) names a row: sort those of the log once, and look the probes up.
    row_key = np.repeat(np.arange(len(n_candidates)), n_candidates) * len(code_of) + destination.codes
    order = np.argsort(row_key, kind="stable")
    wanted = decision * len(code_of) + served
    place = np.minimum(np.searchsorted(row_key, wanted, sorter=order), len(order) - 1)
    row = order[place]
    known = (served >= 0) & (row_key[row] == wanted) & eligible[row]
    column = {name: _floats(pc.struct_field(told, name)) for name in ("success", "latency_ms", "cost_usd")}
    return Revealed(
        row=(np.cumsum(eligible) - 1)[row],
        probability=np.full(len(row), np.nan),
        timed_out=pc.equal(pc.struct_field(told, "status"), "timeout").to_numpy(zero_copy_only=False),
        **column,
    ).take(known)


def category_column(values: pa.Array) -> CategoryColumn:
    """Return an Arrow column of strings with each distinct value once; null is missing."""
    encoded = pc.dictionary_encode(values)
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    return CategoryColumn(codes, tuple(encoded.dictionary.to_pylist()))


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pc.list_flatten(column.combine_chunks())


def _matrix(rows: pa.Array, n_columns: int) -> pa.Array:
    """Return the cells of ``rows`` (a list each) one after the other.

    Raises
    ------
    ValueError
        If a row is not of ``n_columns``: it was logged under another feature set.
    """
    lengths = pc.list_value_length(rows)
    if len(rows) and (pc.min(lengths).as_py(), pc.max(lengths).as_py()) != (n_columns, n_columns):
        raise ValueError(f"a logged vector must have {n_columns} columns, got {pc.min(lengths)} to {pc.max(lengths)}")
    return pc.list_flatten(rows)


def _floats(column: pa.Array | pa.ChunkedArray) -> Floats:
    values = pc.fill_null(column.cast(pa.float64()), float("nan"))
    flat: Floats = values.to_numpy() if isinstance(values, pa.ChunkedArray) else values.to_numpy(zero_copy_only=False)
    return flat


def clusters(table: pa.Table, cluster_by: str, zone: str) -> Integers:
    """Return the number that decisions of ``table`` share when they share fate, int64[n]; see `from_table`."""
    if cluster_by == "decision":
        return np.arange(table.num_rows)
    if cluster_by == "key":
        return category_column(table["arm_unit"].combine_chunks()).codes
    local = pc.local_timestamp(table["decided_at"].cast(pa.timestamp("us", zone)))
    return np.asarray(local.to_numpy().astype("datetime64[D]").astype(np.int64))


def _policies(table: pa.Table, lengths: Integers, eligible: NDArray[np.bool_]) -> dict[str, Floats]:
    """Lay each logged policy's distribution along the eligible rows, NaN where it took no part."""
    logged = table["policies"].combine_chunks()
    names, lists = logged.keys, logged.items
    decision = np.repeat(np.arange(table.num_rows), np.diff(logged.offsets.to_numpy()))
    policies = {}
    for name in pc.unique(names).to_pylist():
        here = pc.equal(names, name).to_numpy(zero_copy_only=False)
        column = np.full(int(lengths.sum()), np.nan)
        took_part = np.zeros(table.num_rows, np.bool_)
        took_part[decision[here]] = True
        column[np.repeat(took_part, lengths)] = pc.list_flatten(lists.filter(pa.array(here))).to_numpy(
            zero_copy_only=False
        )
        policies[name] = column[eligible]
    return policies
