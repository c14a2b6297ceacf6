"""Bins a matrix that never stands whole: from a sample of its rows, then some rows at a time, to the bins of all at once.

LightGBM can be given a matrix in pieces (`lightgbm.Sequence`), but then gathers its sample as a Python object per row, which
takes more memory than many a matrix. Here the sample is gathered column by column, by the calls that LightGBM makes itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.scratch import ROWS_AT_ONCE
from models.encoding import EncodedRows

Floats = NDArray[np.float64]
Integers32 = NDArray[np.int32]

_ZERO = 1e-35  # LightGBM's: what is nearer to zero is not told of a sample


def bin_rows(
    rows: EncodedRows, number_names: Sequence[str], category_names: Sequence[str], parameters: Mapping[str, Any]
) -> lightgbm.Dataset:
    """Return ``rows`` as a data set with zeros for labels: numbers as they are, then categories as codes."""
    names = [*number_names, *category_names]
    categories = list(range(len(number_names), len(names)))
    data = lightgbm.Dataset(
        None,
        feature_name=names,
        categorical_feature=categories,
        params={**parameters, "categorical_column": categories} if categories else dict(parameters),
    )
    drawn = data._create_sample_indices(total_nrow=len(rows))  # noqa: SLF001 - as LightGBM's own construction does, so too below
    values, places = _told(rows, drawn)
    data._init_from_sample(values, places, len(drawn), len(rows))  # noqa: SLF001
    del values, places
    for start in range(0, len(rows), ROWS_AT_ONCE):
        data._push_rows(rows.take(slice(start, start + ROWS_AT_ONCE)))  # noqa: SLF001
    data.set_label(np.zeros(len(rows)))
    return data.set_feature_name(names)


def _told(rows: EncodedRows, drawn: Integers32) -> tuple[list[Floats], list[Integers32]]:
    """Return what a sample tells of each column: its cells other than zero, and their places in the sample."""
    n_drawn, columns = len(drawn), range(rows.n_features)
    values = [np.empty(n_drawn) for _ in columns]  # takes no room until it is written to
    places = [np.empty(n_drawn, np.int32) for _ in columns]
    n_told = [0] * rows.n_features
    for start in range(0, n_drawn, ROWS_AT_ONCE):
        piece = rows.take(drawn[start : start + ROWS_AT_ONCE])
        for column, cells in enumerate(piece.T):
            told = np.flatnonzero((np.abs(cells) > _ZERO) | np.isnan(cells))
            at = slice(n_told[column], n_told[column] + len(told))
            values[column][at], places[column][at] = cells[told], told + start
            n_told[column] = at.stop
    return [cells[:n] for cells, n in zip(values, n_told, strict=True)], [
        at[:n] for at, n in zip(places, n_told, strict=True)
    ]
