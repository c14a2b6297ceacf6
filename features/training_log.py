"""The log of a stream as training reads it, in bounded memory: whole where candidates are compared, else what was revealed.

Logged vectors are all candidates', so a long log is mostly rows that no fit reads. It is read some decisions at a time, in
order of time: all candidates of the holdout and of the sample on which forms compete, the revealed ones alone of the rest.
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

WHOLE_AT_ONCE = 50_000  # decisions with all their candidates
REVEALED_AT_ONCE = 200_000  # with a candidate each, or few


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """``training`` holds the revealed rows alone, ``holdout`` the later part whole.

    ``sample`` is all candidates of some of ``training``, None where no forms compete.
    """

    training: DecisionLog
    sample: DecisionLog | None
    holdout: DecisionLog


def read_plain(
    source: Source, stream: str, configured: Stream, *, as_of: datetime, content: str | None = None
) -> TrainingRows:
    """Return what may be trained on without its vectors: enough to judge the batch and to plan the reading.

    ``content`` is the digest of the classifier whose answers the vectors must hold, None for none.
    """
    return _Reader(source, stream, configured, as_of, content).rows(names=history.PLAIN)


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
    plan = _Plan.of(rows.table, configured)
    late = decision_log.later_part(plan.decided_at, plan.cluster, settings.holdout_share)
    early = np.flatnonzero(~late)
    compared = early[decision_log.random_place(plan.cluster[early], settings.seed) < settings.contest_decisions]
    reader = _Reader(source, stream, configured, as_of, content)
    return TrainingLog(
        training=reader.log(plan, early, revealed_only=True),
        sample=reader.log(plan, compared) if compared.size else None,
        holdout=reader.log(plan, np.flatnonzero(late)),
    )


@dataclass(frozen=True)
class _Plan:
    """Which decisions there are, rising in time, and which of them share fate."""

    decision_id: pa.ChunkedArray
    decided_at: Instants
    cluster: Integers

    @classmethod
    def of(cls, table: pa.Table, configured: Stream) -> "_Plan":
        cluster = log_table.clusters(table, configured.cluster, configured.features.zone)
        return cls(table["decision_id"], table["decided_at"].cast(pa.timestamp("us")).to_numpy(), cluster)

    def windows(self, places: Integers, n_at_once: int) -> Iterator[tuple[Integers, dict[str, Any]]]:
        """Yield the ``places`` some at a time, each with what makes a query return just those decisions."""
        for at in (places[start : start + n_at_once] for start in range(0, len(places), n_at_once)):
            since, last = self.decided_at[at[0]], self.decided_at[at[-1]]
            n_within = np.searchsorted(self.decided_at, last, "right") - np.searchsorted(self.decided_at, since)
            among = None if n_within == len(at) else self.decision_id.take(pa.array(at)).to_pylist()
            yield at, {"since": _instant(since), "until": _instant(last + np.timedelta64(1, "us")), "among": among}


@dataclass(frozen=True)
class _Reader:
    """Asks ``source`` for the rows that may be trained on."""

    source: Source
    stream: str
    configured: Stream
    as_of: datetime
    content: str | None

    def rows(self, **chosen: Any) -> TrainingRows:
        return history.training_rows(
            self.source,
            self.stream,
            objective=self.configured.objective,
            feature_set=self.configured.features.version,
            content=self.content,
            as_of=self.as_of,
            **chosen,
        )

    def log(self, plan: _Plan, places: Integers, *, revealed_only: bool = False) -> DecisionLog:
        """Return the decisions at ``places``, with all candidates or those alone whose outcome is known."""
        parts = []
        names = history.REVEALED if revealed_only else ()
        for at, window in plan.windows(places, REVEALED_AT_ONCE if revealed_only else WHOLE_AT_ONCE):
            table = self.rows(**window, names=names, revealed_only=revealed_only).table
            log = log_table.from_table(table, self.configured.features, cluster_by="decision")
            parts.append(replace(log, cluster=plan.cluster[at]))
        return concatenate(parts)


def concatenate(parts: list[DecisionLog]) -> DecisionLog:
    """Return the logs one after the other; ``parts`` lose their vectors on the way, so that these never stand twice."""
    if len(parts) == 1:
        return parts[0]
    n_rows = [int(part.offsets[-1]) for part in parts]
    starts = np.concatenate(([0], np.cumsum(n_rows)))
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    plain = ("decision_id", "decided_at", "cluster", "propensity", "reward", "success", "latency_ms", "cost_usd")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in (*plain, "timed_out")}
    return DecisionLog(
        **joined,
        numbers=_drain(parts, starts),
        offsets=np.concatenate(([0], *offsets)),
        chosen=np.concatenate([part.chosen + start for part, start in zip(parts, starts, strict=False)]),
        categories=[_join(columns) for columns in zip(*(part.categories for part in parts), strict=True)],
        destination=_join([part.destination for part in parts]),
        policies=_join_policies(parts, n_rows),
        champion=_join_champions(parts),
        probes=_join_probes(parts, starts),
    )


def _drain(parts: list[DecisionLog], starts: Integers) -> NDArray[np.float64]:
    """Move the vectors of ``parts`` into one matrix."""
    numbers = np.empty((int(starts[-1]), parts[0].numbers.shape[1]))
    for place, part in enumerate(parts):
        numbers[starts[place] : starts[place + 1]] = part.numbers
        parts[place] = replace(part, numbers=part.numbers[:0].copy())
    return numbers


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


def _instant(at: np.datetime64) -> datetime:
    naive: datetime = at.astype("datetime64[us]").item()
    return naive.replace(tzinfo=UTC)
