"""Bins a matrix that never stands whole: from a sample of its rows, then some rows at a time, to the bins of all at once.

LightGBM can be given a matrix in pieces (`lightgbm.Sequence`), but then gathers its sample as a Python object per row, which
takes more memory than many a matrix. Here the sample is gathered column by column, by the calls that LightGBM makes itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray

from models.encoding import EncodedRows

Floats = NDArray[np.float64]
Integers32 = NDArray[np.int32]

ROWS_AT_ONCE = 16_384
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
    values, places = zip(*_told(rows, drawn), strict=True)
    data._init_from_sample(list(values), list(places), len(drawn), len(rows))  # noqa: SLF001
    del values, places
    for start in range(0, len(rows), ROWS_AT_ONCE):
        data._push_rows(rows.take(slice(start, start + ROWS_AT_ONCE)))  # noqa: SLF001
    data.set_label(np.zeros(len(rows)))
    return data.set_feature_name(names)


def _told(rows: EncodedRows, drawn: Integers32) -> Iterator[tuple[Floats, Integers32]]:
    """Yield what a sample tells of each column: its cells other than zero, and their places in the sample."""
    for place in range(rows.n_features):
        column = rows.column(place, drawn)
        told = np.flatnonzero((np.abs(column) > _ZERO) | np.isnan(column)).astype(np.int32)
        yield column[told], told
