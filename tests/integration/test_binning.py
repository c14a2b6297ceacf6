"""A matrix that is binned in pieces is, byte for byte, the one that LightGBM bins at once."""

import tracemalloc
from pathlib import Path

import lightgbm
import numpy as np
import pytest

from features import scratch
from features.vector import CategoryColumn
from models import binning
from models.encoding import EncodedRows, Encoder

PARAMETERS = {"max_bin": 63, "feature_pre_filter": False, "data_random_seed": 3, "verbosity": -1}
SHOPS = ("east", "north", "west")


def rows_of(n: int, *, some: bool) -> EncodedRows:
    """Numbers that are dense, sparse, missing, constant, and all but zero; a category that is missing now and then."""
    rng = np.random.default_rng(0)
    dense, sparse, missing = rng.normal(size=(3, n))
    sparse[rng.random(n) < 0.9] = 0.0
    missing[rng.random(n) < 0.5] = np.nan
    numbers = np.column_stack([dense, sparse, missing, np.ones(n), rng.choice([1e-36, -1e-36, 1e-3], n)])
    shop = CategoryColumn(rng.integers(-1, 3, n), SHOPS)
    return Encoder({"shop": SHOPS}).over(numbers, [shop], np.flatnonzero(rng.random(n) < 0.7) if some else None)


@pytest.mark.parametrize("some", [False, True])
@pytest.mark.parametrize("n_sampled", [2_000, 200_000])
def test_pieces_are_binned_as_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, n_sampled: int, some: bool
) -> None:
    monkeypatch.setattr(binning, "ROWS_AT_ONCE", 1_000)
    rows, names = rows_of(5_500, some=some), ["dense", "sparse", "missing", "one", "tiny"]
    parameters = {**PARAMETERS, "bin_construct_sample_cnt": n_sampled}
    whole = lightgbm.Dataset(
        rows.take(slice(None)),
        label=np.zeros(len(rows)),
        feature_name=[*names, "shop"],
        categorical_feature=[5],
        params=dict(parameters),
    ).construct()
    whole.save_binary(tmp_path / "whole")
    binning.bin_rows(rows, names, ["shop"], parameters).save_binary(tmp_path / "pieces")
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "whole").read_bytes()


def test_vectors_on_the_disk_are_binned_in_the_memory_of_the_sample_and_a_piece() -> None:
    n_rows, n_numbers, n_sampled = 100_000, 20, 5_000
    written, rng = scratch.Rows(n_numbers), np.random.default_rng(0)
    for _ in range(10):
        written.append(rng.normal(size=(n_rows // 10, n_numbers)))
    shop = CategoryColumn(rng.integers(-1, 3, n_rows), SHOPS)
    rows = Encoder({"shop": SHOPS}).over(written.table(), [shop], np.arange(n_rows))
    parameters = {**PARAMETERS, "bin_construct_sample_cnt": n_sampled}
    tracemalloc.start()  # of what numpy holds; LightGBM's own bins are a byte a cell
    try:
        binning.bin_rows(rows, [f"x{place}" for place in range(n_numbers)], ["shop"], parameters)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    sample, piece = 12 * n_sampled * 21, 8 * scratch.ROWS_AT_ONCE * 21
    assert most < sample + 3 * piece + 16 * n_rows < rows.numbers.nbytes / 2
