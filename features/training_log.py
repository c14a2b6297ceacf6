"""The log of a stream as training reads it, in bounded memory: whole where candidates are compared, else what was revealed.

Logged vectors are all candidates', so a long log is mostly rows that no fit reads. It is read some decisions at a time, in
order of time: all candidates of the holdout and of the sample on which forms compete, the revealed ones alone of the rest.
The vectors, and the names that only a report reads, lie on the disk (`features.scratch`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import decision_log, history, log_table, scratch
from features.config import Stream
from features.decision_log import DecisionLog, Revealed
from features.definitions import FeatureDefinitions
from features.history import TrainingRows
from features.vector import CategoryColumn
from features.warehouse import Source

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

WHOLE_AT_ONCE = 10_000  # decisions with all their candidates
REVEALED_AT_ONCE = 25_000  # with a candidate each, or few; fewer are dear, since the file is read in larger pieces


@dataclass(frozen=True, kw_only=True)
class TrainingLog:
    """``training`` holds the revealed rows alone, ``holdout`` the later part whole.

    ``sample`` is all candidates of some of ``training``, None where no forms compete. Policies as logged are the holdout's
    alone: nothing is fitted on them.
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
    return history.training_rows(
        source,
        stream,
        objective=configured.objective,
        feature_set=configured.features.version,
        content=content,
        as_of=as_of,
        names=tuple(name for name in history.PLAIN if name != "arm_unit" or configured.cluster == "key"),
    )


def read(source: Source, configured: Stream, rows: TrainingRows) -> TrainingLog:
    """Read the log that ``rows`` (of `read_plain`, from the same source with the same choices) lists.

    Raises
    ------
    ValueError
        If there are no rows, or nothing is left to train on beside the holdout.
    """
    table, settings = rows.table, configured.training
    if not table.num_rows:
        raise ValueError("no closed decisions")
    cluster = log_table.clusters(table, configured.cluster, configured.features.zone)
    decided_at = table["decided_at"].cast(pa.timestamp("us")).to_numpy()
    late = decision_log.later_part(decided_at, cluster, settings.holdout_share)
    early = np.flatnonzero(~late)
    sampled = np.zeros(len(late), np.bool_)
    sampled[early] = decision_log.random_place(cluster[early], settings.seed) < settings.contest_decisions
    reader = _Reader(source, table, cluster, configured.features)
    training, sample = reader.revealed(early, sampled)
    holdout = reader.whole(np.flatnonzero(late))
    give_back()
    return TrainingLog(training=training, sample=sample, holdout=holdout)


def give_back() -> None:
    """Give back to the system what Arrow keeps of tables that nobody holds any more: as much as they were."""
    pa.default_memory_pool().release_unused()


@dataclass(frozen=True)
class _Reader:
    """Reads the candidates of the decisions in a ``table`` that rises in time; ``cluster`` says which of them share fate."""

    source: Source
    table: pa.Table
    cluster: Integers
    features: FeatureDefinitions

    def revealed(self, places: Integers, sampled: Mask) -> tuple[DecisionLog, DecisionLog | None]:
        """Return the rows of ``places`` whose outcome is known, and all rows of those of them that are ``sampled``."""
        known, whole = self._pieces(), self._pieces()
        for at in _windows(places, REVEALED_AT_ONCE):
            log = self._window(at, whole=sampled[at])
            if sampled[at].any():
                whole.add(log.take(sampled[at]))
            known.add(log.revealed_alone())
            del log  # else it stands beside the next window
        return known.joined(), whole.joined() if whole else None

    def whole(self, places: Integers) -> DecisionLog:
        """Return all rows of ``places``, with the policies that took part."""
        names = (*history.CANDIDATES, *history.POLICIES)
        everything = np.ones(min(WHOLE_AT_ONCE, len(places)), np.bool_)
        pieces = self._pieces()
        for at in _windows(places, WHOLE_AT_ONCE):
            pieces.add(self._window(at, whole=everything[: len(at)], names=names))
        return pieces.joined()

    def _pieces(self) -> "_Pieces":
        return _Pieces(self.features, pc.max(pc.utf8_length(self.table["decision_id"])).as_py())

    def _window(self, at: Integers, *, whole: Mask, names: Sequence[str] = history.CANDIDATES) -> DecisionLog:
        give_back()
        found = history.add_candidates(self.source, self.table.take(pa.array(at)), whole=whole, names=names)
        return replace(log_table.from_table(found, self.features, cluster_by="decision"), cluster=self.cluster[at])


def _windows(places: Integers, n_at_once: int) -> Iterator[Integers]:
    """Yield ``places`` some at a time; what lies near in time lies near on the disk."""
    return (places[start : start + n_at_once] for start in range(0, len(places), n_at_once))


class _Pieces:
    """Logs that follow each other: their vectors and names are on the disk from when they are added, the rest is kept."""

    def __init__(self, features: FeatureDefinitions, n_characters: int) -> None:
        self._vectors = scratch.Rows(len(features.numbers))
        self._names = scratch.Rows(dtype=f"U{n_characters}")
        self._parts: list[DecisionLog] = []

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, log: DecisionLog) -> None:
        """Put the next log behind the others."""
        self._vectors.append(log.numbers)
        self._names.append(log.decision_id)
        self._parts.append(replace(log, numbers=log.numbers[:0].copy(), decision_id=log.decision_id[:0].copy()))

    def joined(self) -> DecisionLog:
        """Return all of them as one log."""
        return replace(_concatenate(self._parts), numbers=self._vectors.table(), decision_id=self._names.table())


def _concatenate(parts: Sequence[DecisionLog]) -> DecisionLog:
    """Return the logs one after the other, but for vectors and names."""
    if len(parts) == 1:
        return parts[0]
    n_rows = [int(part.offsets[-1]) for part in parts]
    starts = np.concatenate(([0], np.cumsum(n_rows)))
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=False)]
    plain = ("decided_at", "cluster", "propensity", "reward", "success", "latency_ms", "cost_usd", "timed_out")
    return replace(
        parts[0],
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in plain},
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


def _join_policies(parts: Sequence[DecisionLog], n_rows: Sequence[int]) -> dict[str, Floats]:
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
