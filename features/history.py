"""What the log says: rewards, rows to train on, single decisions and counts, from the warehouse or a snapshot alike."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import columns
from features.objective import Objective
from features.records import Decision, Outcome
from features.warehouse import Source

TRAINABLE = ("observed", "timeout")
PLAIN = (
    *("decision_id", "decided_at", "arm_unit", "assigned", "propensity", "feature_set", "content", "explored"),
    *("success", "latency_ms", "cost_usd", "status", "probes"),
)
CANDIDATES = ("destinations", "eligible", "assigned_index", "numbers", "categories")
POLICIES = ("policies", "champion")
_TOLD_APART_BY = ("explored", "feature_set", "content")  # all rows that may be trained on say the same
_US_PER_MINUTE = 60_000_000


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The rows that may be trained on, as `rewards` gives them, and how many were left out for which reason."""

    table: pa.Table
    left_out: Mapping[str, int]


class Counts(NamedTuple):
    """What is stored. An orphan is an outcome whose decision has not come yet."""

    n_decisions: int
    n_outcomes: int
    n_orphans: int
    n_late: int
    n_quarantined: int


def rewards(
    source: Source,
    stream: str,
    *,
    objective: Objective,
    as_of: datetime,
    since: datetime | None = None,
    until: datetime | None = None,
    names: Sequence[str] = (),
    one_in: int = 1,
) -> pa.Table:
    """Return every decision of ``stream`` made in [``since``, ``until``), with its reward as known at ``as_of``.

    The rows are in order of ``decided_at``, then ``decision_id``. ``status`` is that of the outcome that counts
    (``observed``, ``timeout``, ``lost``), else ``open`` while the window lasts, then ``censored`` or ``lost``. Of several
    outcomes within the window the one of the highest attempt counts, of one attempt the one that the assigned
    destination served. An outcome observed after the window never counts: what a gate has counted stays as it was.

    With ``names`` only those columns are read: `PLAIN` are what training must know beside the vectors, a few bytes a row.

    ``reward`` is null while open; ``lost`` and ``censored`` take the objective's default. An outcome is taken as known
    from ``observed_at`` on, whenever it was ingested, so that logs of the past can be replayed.

    Decisions whose outcomes come fast close before slower ones of the same age: end ``until`` one window before
    ``as_of`` where that would bias. Of every ``one_in`` decisions one is returned, drawn by a hash of its id.
    """
    parameters = {"stream": stream, "as_of": as_of, "since": since, "until": until, "one_in": one_in}
    window_us = int(objective.window_minutes * _US_PER_MINUTE)
    with source.transaction() as session:
        if names and set(names) <= set(PLAIN):
            session.spare_memory()
        table = session.query("rewards", columns=names, window_us=window_us, **parameters)
    still_open = pc.equal(table["status"], "open").to_numpy()
    return table.append_column("reward", pa.array(_reward(table, objective), mask=still_open))


def training_rows(
    source: Source,
    stream: str,
    *,
    objective: Objective,
    feature_set: str,
    content: str | None = None,
    as_of: datetime,
    **chosen: Any,
) -> TrainingRows:
    """Return the rows of `rewards`, with what else may be ``chosen`` of it, that may be trained on.

    Left out, each counted under the first reason that applies: ``open``, ``lost`` and ``censored`` ones,
    ``not_explored`` (an override decided), ``other_feature_set`` (vectors that cannot be compared), and
    ``other_classifier`` (vectors that hold other answers than those of the classifier ``content``, a digest; None: of none).
    """
    table = rewards(source, stream, objective=objective, as_of=as_of, **chosen)
    reason = pc.case_when(
        pc.make_struct(
            pc.invert(pc.is_in(table["status"], pa.array(TRAINABLE))),
            pc.invert(table["explored"]),
            pc.not_equal(table["feature_set"], feature_set),
            pc.not_equal(pc.fill_null(table["content"], ""), content or ""),
        ),
        table["status"],
        pa.scalar("not_explored"),
        pa.scalar("other_feature_set"),
        pa.scalar("other_classifier"),
    )
    left_out = {count["values"]: count["counts"] for count in pc.value_counts(reason.drop_null()).to_pylist()}
    kept = table.drop_columns(list(_TOLD_APART_BY)).filter(pc.is_null(reason))
    return TrainingRows(table=kept, left_out=left_out)


def add_candidates(
    source: Source, plain: pa.Table, *, whole: NDArray[np.bool_], names: Sequence[str] = CANDIDATES
) -> pa.Table:
    """Return the rows of ``plain`` (of `rewards`, by `PLAIN`, rising in time) with the columns ``names`` of their candidates.

    Listed are all candidates of a decision that is wanted ``whole`` (bool[n]), of the others those whose outcome is known.
    """
    told = plain["probes"].to_pylist()
    probed = [None if probes is None else [probe["served"] for probe in probes] for probes in told]
    planned = {
        "decision_id": plain["decision_id"],
        "planned_place": np.arange(plain.num_rows),
        "whole": whole,
        "probed": pa.array(probed, pa.list_(pa.string())),
    }
    since, until = plain["decided_at"][0].as_py(), plain["decided_at"][-1].as_py()
    with source.transaction() as session:
        session.spare_memory(limit=None)  # a second thread does not make it faster: it is one file read in order
        session.stage("planned", pa.table(planned))
        found = session.query("candidates", columns=("planned_place", *names), since=since, until=until)
    found = found.take(np.argsort(found["planned_place"].to_numpy()))
    for name in names:
        plain = plain.append_column(name, found[name])
    return plain


def count_decisions(
    source: Source, stream: str, *, since: datetime | None = None, until: datetime | None = None
) -> int:
    """Count the decisions of ``stream`` made in [``since``, ``until``)."""
    with source.transaction() as session:
        table = session.query("n_decisions", stream=stream, since=since, until=until)
    return int(table["n_decisions"][0].as_py())


def decision(source: Source, decision_id: str) -> Decision | None:
    """Return the decision, or None if it is not stored."""
    with source.transaction() as session:
        found = columns.decisions_in(session.query("decision", decision_id=decision_id))
    return found[0] if found else None


def event_decisions(source: Source, event_id: str, *, event_source: str | None = None) -> list[Decision]:
    """Return the decisions made about an event, oldest first; an id is unique within its source alone."""
    with source.transaction() as session:
        return columns.decisions_in(session.query("event_decisions", event_id=event_id, event_source=event_source))


def violations(source: Source) -> list[Decision]:
    """Return the decisions that went where their rules forbid; ingest keeps them apart, and counts them nowhere else."""
    with source.transaction() as session:
        raw = session.query("violations")["raw"].to_pylist()
    found = []
    for record in raw:
        with contextlib.suppress(msgspec.MsgspecError):  # a row that was no JSON says no more than its rule
            found.append(msgspec.json.decode(record, type=Decision))
    return found


def outcomes(source: Source, decision_id: str) -> list[Outcome]:
    """Return the outcomes reported for a decision, by attempt."""
    with source.transaction() as session:
        return columns.outcomes_in(session.query("decision_outcomes", decision_id=decision_id))


def counts(source: Source) -> Counts:
    """Count what is stored."""
    with source.transaction() as session:
        return Counts(**session.query("counts").to_pylist()[0])


def quarantine_counts(source: Source) -> dict[tuple[str, str | None], int]:
    """Count quarantined rows by the rule they break and the field to blame, the most frequent first."""
    with source.transaction() as session:
        rows = session.query("quarantine_counts").to_pylist()
    return {(row["rule"], row["field"]): row["n_rows"] for row in rows}


def _reward(table: pa.Table, objective: Objective) -> NDArray[np.float64]:
    """Apply the objective itself, so that what a reward is stands in one place; nothing counts but a real outcome."""
    real = pc.is_in(table["status"], pa.array(TRAINABLE)).to_numpy()
    value = objective.value(
        success=_floats(table["success"]),
        latency_ms=_floats(table["latency_ms"]),
        cost_usd=np.nan_to_num(_floats(table["cost_usd"])),  # no cost reported costs nothing, as in Objective.reward
    )
    return objective.clip(np.where(real, value, np.nan))


def _floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    cells: NDArray[np.float64] = pc.fill_null(column.cast(pa.float64()), float("nan")).to_numpy()
    return cells
