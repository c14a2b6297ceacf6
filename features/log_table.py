"""The decision log read from a table: rows of `features.history` laid out as arrays."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.decision_log import DecisionLog, Revealed
from features.definitions import FeatureDefinitions
from features.vector import CategoryColumn

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def from_table(table: pa.Table, definitions: FeatureDefinitions, *, cluster_by: str) -> DecisionLog:
    """Return the rows of `history.training_rows` or (closed ones of) `history.rewards` as arrays.

    Policies and champions are those of a table that tells them. ``cluster_by`` is the stream's ``cluster``: ``decision``, ``key`` (the unit of the canary arm) or ``day`` (in the
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
    numbers, categories = (_flat(table[name]) for name in ("numbers", "categories"))
    if not eligible.all():
        numbers, categories = (rows.filter(pa.array(eligible)) for rows in (numbers, categories))
    categories = _matrix(categories, len(definitions.categories))
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
        numbers=_floats(_matrix(numbers, len(definitions.numbers))).reshape(
            int(eligible.sum()), len(definitions.numbers)
        ),
        categories=[
            category_column(categories[column :: len(definitions.categories)])
            for column in range(len(definitions.categories))
        ],
        destination=destinations.take(eligible),
        champion=table["champion"].to_numpy() if "champion" in table.column_names else None,
        policies=_policies(table, lengths, eligible) if "policies" in table.column_names else {},
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
