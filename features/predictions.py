"""What a model said of the destinations that were assigned, from the log: predictions are kept with their decisions."""

from collections.abc import Mapping

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROLES = ("champion", "challenger", "shadow")

_PREDICTIONS = msgspec.json.Decoder(dict[str, dict[str, list[float]]])


def assigned_predictions(table: pa.Table, digest: str, head: str) -> Floats:
    """Return what the model ``digest`` predicted under ``head`` of each assigned destination, float64[n].

    ``table`` is as `history.rewards` gives it. In whichever role the model took part, it counts; NaN where it took part
    in none, could not score the event, or has no such head.
    """
    columns = {name: table[name].to_pylist() for name in (*ROLES, "predictions", "assigned_index")}
    predicted = np.full(table.num_rows, np.nan)
    for row, (said, assigned) in enumerate(zip(columns["predictions"], columns["assigned_index"], strict=True)):
        role = next((role for role in ROLES if columns[role][row] == digest), None)
        if said is not None and role is not None:
            predicted[row] = _at(_PREDICTIONS.decode(said), role, head, assigned)
    return predicted


def _at(said: Mapping[str, Mapping[str, list[float]]], role: str, head: str, assigned: int) -> float:
    values = said.get(role, {}).get(head)
    return float("nan") if values is None else values[assigned]
