"""When what a decision was made from became known: told beside decisions that were worked out afterwards, from files.

A shim's vectors are known by then, since they are logged as used. A decision that is made up from a history (a backfill)
may carry a field ``known_at``: an object from a column, or from what columns read (``event.x``), to the instant at which
its value was recorded. Whoever trains on it can then refuse what had not happened yet.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features import sources
from features.definitions import FeatureDefinitions
from features.warehouse import Source

Instants = NDArray[np.datetime64]

FIELD = "known_at"
_NEVER_SAID = np.datetime64("NaT")
_EXTRAS = msgspec.json.Decoder(dict[str, Any])


class KnownAtError(ValueError):
    """A ``known_at`` that cannot be read: names the decision, the column and the value."""


@dataclass(frozen=True, kw_only=True)
class KnownAt:
    """n decisions that say so, and per column when its value became known (datetime64[us], UTC, NaT where it is not said)."""

    decision_id: NDArray[np.object_]
    decided_at: Instants
    columns: Mapping[str, Instants]


def read(source: Source, stream: str, table: pa.Table, definitions: FeatureDefinitions) -> KnownAt:
    """Return what the decisions in ``table`` (as `history.training_rows` gives it) say of when they knew.

    Names that no column has or reads are left out: what no feature reads cannot mislead one.

    Raises
    ------
    KnownAtError
        If a field ``known_at`` is no object of instants with a zone.
    """
    with source.transaction() as session:
        said = session.query("known_at", stream=stream)
    said = said.filter(pc.is_in(said["decision_id"], table["decision_id"].combine_chunks()))
    names = said["decision_id"].to_pylist()
    told = [_instants(name, extras) for name, extras in zip(names, said["extras"].to_pylist(), strict=True)]
    columns: dict[str, Instants] = {}
    for key in sorted({key for instants in told for key in instants}):
        at = np.array([instants.get(key, _NEVER_SAID) for instants in told], "datetime64[us]")
        for column in _columns_of(key, definitions):
            columns[column] = np.fmax(columns[column], at) if column in columns else at  # known when its last part is
    decided_at = said["decided_at"].cast(pa.timestamp("us")).to_numpy()
    return KnownAt(decision_id=np.array(names, np.object_), decided_at=decided_at, columns=columns)


def _columns_of(key: str, definitions: FeatureDefinitions) -> list[str]:
    if key in definitions.numbers or key in definitions.categories:
        return [key]
    return list(sources.columns_reading(definitions, [key]))


def _instants(decision_id: str, extras: str) -> dict[str, np.datetime64]:
    said = _EXTRAS.decode(extras).get(FIELD, {})
    if isinstance(said, str):  # a cell of a table holds an object as text
        try:
            said = msgspec.json.decode(said)
        except msgspec.DecodeError:
            raise KnownAtError(f"decision {decision_id!r}: known_at must be an object, got {said!r}") from None
    if not isinstance(said, dict):
        raise KnownAtError(f"decision {decision_id!r}: known_at must be an object, got {said!r}")
    return {key: _instant(decision_id, key, value) for key, value in said.items() if value is not None}


def _instant(decision_id: str, key: str, value: Any) -> np.datetime64:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        at = None
    if at is None or at.tzinfo is None:
        raise KnownAtError(f"decision {decision_id!r}: known_at.{key} must be an instant with a zone, got {value!r}")
    return np.datetime64(at.astimezone(UTC).replace(tzinfo=None), "us")
