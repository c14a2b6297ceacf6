"""The decision log as arrays: closed decisions of one stream, their eligible candidates, and what became of them."""

from dataclasses import dataclass, replace
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
    numbers : float64[n_rows, n_numbers]
        Number features as logged, NaN where missing.
    categories : list of CategoryColumn of n_rows
        Category features as logged.
    destination : CategoryColumn of n_rows
        Which destination each row is.
    champion : object[n]
        The digest of the champion that took part, None where none did.
    policies : float64[n_rows] by name
        Each logged policy's distribution; NaN for decisions it took no part in.
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
    champion: NDArray[np.object_]
    policies: dict[str, Floats]

    @property
    def n_decisions(self) -> int:
        """How many decisions there are."""
        return len(self.propensity)

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
                "champion",
            )
        }
        return replace(
            self,
            **columns,
            offsets=offsets,
            chosen=offsets[:-1] + place[kept],
            numbers=self.numbers[rows],
            categories=[column.take(rows) for column in self.categories],
            destination=self.destination.take(rows),
            policies={name: column[rows] for name, column in self.policies.items()},
        )

    def split(self, holdout_share: float) -> tuple["DecisionLog", "DecisionLog"]:
        """Return the earlier and the later part; no cluster is cut, the later part has at least ``holdout_share``.

        Raises
        ------
        ValueError
            If everything shares one cluster, so that no later part is independent of the earlier.
        """
        cut = self.decided_at[int(self.n_decisions * (1 - holdout_share))]
        late = self.decided_at >= cut
        late |= np.isin(self.cluster, self.cluster[late])
        if late.all():
            raise ValueError(
                f"a holdout of {holdout_share:.0%} leaves nothing to train on: all decisions share a cluster"
            )
        return self.take(~late), self.take(late)


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
    lengths = pc.list_value_length(table["eligible"]).to_numpy()
    starts = np.concatenate(([0], np.cumsum(lengths)))
    kept_before = np.concatenate(([0], np.cumsum(eligible)))
    mask = pa.array(eligible)
    categories = _matrix(_flat(table["categories"]).filter(mask), len(definitions.categories))
    return DecisionLog(
        decision_id=table["decision_id"].to_numpy(),
        decided_at=table["decided_at"].cast(pa.timestamp("us")).to_numpy(),
        cluster=_clusters(table, cluster_by, definitions.zone),
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
        destination=category_column(_flat(table["destinations"]).filter(mask)),
        champion=table["champion"].to_numpy(),
        policies=_policies(table, lengths, eligible),
    )


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


def _clusters(table: pa.Table, cluster_by: str, zone: str) -> Integers:
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
