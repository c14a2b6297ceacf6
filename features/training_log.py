"""The log of a stream as training reads it, in bounded memory: whole where candidates are compared, else what was revealed.

Logged vectors are all candidates', so a long log is mostly rows that no fit reads. It is read window by window of time;
of each decision either all candidates stay (the holdout, and the sample on which forms compete) or the revealed alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features import decision_log, history, log_table
from features.config import Stream
from features.decision_log import DecisionLog, Revealed
from features.history import TrainingRows
from features.vector import CategoryColumn
from features.warehouse import Source

Integers = NDArray[np.int64]
Instants = NDArray[np.datetime64]

WINDOW_DECISIONS = 50_000  # read at once


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """``training`` holds the revealed rows alone, ``sample`` all candidates of some of it, ``holdout`` the later part whole."""

    training: DecisionLog
    sample: DecisionLog
    holdout: DecisionLog


def read_plain(
    source: Source, stream: str, configured: Stream, *, as_of: datetime, content: str | None = None
) -> TrainingRows:
    """Return what may be trained on without its vectors: enough to judge the batch and to plan the reading.

    ``content`` is the digest of the classifier whose answers the vectors must hold, None for none.
    """
    return _rows(source, stream, configured, as_of=as_of, names=history.PLAIN, content=content)


def read(
    source: Source,
    stream: str,
    configured: Stream,
    rows: TrainingRows,
    *,
    as_of: datetime,
    content: str | None = None,
) -> TrainingLog:
    """Read the log that ``rows`` (of `read_plain`, from the same source with the same choices) lists.

    Raises
    ------
    ValueError
        If there are no rows, or nothing is left to train on beside the holdout.
    """
    if not rows.table.num_rows:
        raise ValueError("no closed decisions")
    settings = configured.training
    decided_at = rows.table["decided_at"].cast(pa.timestamp("us")).to_numpy()
    cluster = log_table.clusters(rows.table, configured.cluster, configured.features.zone)
    late = decision_log.later_part(decided_at, cluster, settings.holdout_share)
    sampled = np.zeros(len(late), np.bool_)
    sampled[~late] = decision_log.random_place(cluster[~late], settings.seed) < settings.contest_decisions
    training, sample, holdout = [], [], []
    for window, at in _windows(decided_at):
        table = _rows(source, stream, configured, as_of=as_of, content=content, since=window[0], until=window[1]).table
        log = log_table.from_table(table, configured.features, cluster_by="decision")
        log = replace(log, cluster=cluster[at])
        training.append(log.take(~late[at]).revealed_alone())
        sample.append(log.take(sampled[at]))
        holdout.append(log.take(late[at]))
    return TrainingLog(training=concatenate(training), sample=concatenate(sample), holdout=concatenate(holdout))


def concatenate(parts: Sequence[DecisionLog]) -> DecisionLog:
    """Return the logs one after the other."""
    n_rows = [int(part.offsets[-1]) for part in parts]
    starts = np.concatenate(([0], np.cumsum(n_rows)))
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    plain = ("decision_id", "decided_at", "cluster", "propensity", "reward", "success", "latency_ms", "cost_usd")
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in (*plain, "timed_out", "numbers")
    }
    return DecisionLog(
        **joined,
        offsets=np.concatenate(([0], *offsets)),
        chosen=np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
        categories=[_join(columns) for columns in zip(*(part.categories for part in parts), strict=True)],
        destination=_join([part.destination for part in parts]),
        policies=_join_policies(parts, n_rows),
        champion=_join_champions(parts),
        probes=_join_probes(parts, starts),
    )


def _join(columns: Sequence[CategoryColumn]) -> CategoryColumn:
    values = {value: None for column in columns for value in column.values}
    code_of = {value: code for code, value in enumerate(values)}
    places = [np.array([*(code_of[value] for value in column.values), -1]) for column in columns]  # -1 reads the last
    codes = [place[column.codes] for place, column in zip(places, columns, strict=True)]
    return CategoryColumn(np.concatenate(codes), tuple(values))


def _join_champions(parts: Sequence[DecisionLog]) -> NDArray[np.object_] | None:
    told = [part.champion for part in parts if part.champion is not None]
    return np.concatenate(told) if len(told) == len(parts) else None


def _join_policies(parts: Sequence[DecisionLog], n_rows: Sequence[int]) -> dict[str, NDArray[np.float64]]:
    names = {name: None for part in parts for name in part.policies}
    sized = list(zip(parts, n_rows, strict=True))
    return {
        name: np.concatenate([part.policies.get(name, np.full(size, np.nan)) for part, size in sized]) for name in names
    }


def _join_probes(parts: Sequence[DecisionLog], starts: Integers) -> Revealed | None:
    probes = [
        replace(part.probes, row=part.probes.row + start)
        for part, start in zip(parts, starts, strict=False)
        if part.probes is not None
    ]
    joined = probes[0] if probes else None
    for each in probes[1:]:
        joined = each if joined is None else joined.beside(each)
    return joined


def _rows(source: Source, stream: str, configured: Stream, **window: Any) -> TrainingRows:
    return history.training_rows(
        source, stream, objective=configured.objective, feature_set=configured.features.version, **window
    )


def _windows(decided_at: Instants) -> Iterator[tuple[tuple[datetime, datetime | None], slice]]:
    """Yield windows of about `WINDOW_DECISIONS`, each with the places of its decisions; ``decided_at`` rises."""
    cuts = np.searchsorted(decided_at, np.unique(decided_at[::WINDOW_DECISIONS]))  # one instant is never cut
    for start, end in zip(cuts, [*cuts[1:], len(decided_at)], strict=True):
        until = None if end == len(decided_at) else _instant(decided_at[end])
        yield (_instant(decided_at[start]), until), slice(int(start), int(end))


def _instant(at: np.datetime64) -> datetime:
    naive: datetime = at.astype("datetime64[us]").item()
    return naive.replace(tzinfo=UTC)
