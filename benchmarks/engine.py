"""What a score costs: LightGBM on one thread, leaf-mask tables in numpy and in C, interleaved; and whether all bits agree.

One event with its candidates per call: 30 features, 20 of the event and 10 of the candidate (2 categories on each side).
No two events are alike; the candidates' side is either as it was at the event before (``standing``, as between two reports of
a destination's state), or new with every event (``new``). ``x`` is the median of LightGBM's time over that of the C form, by
runs of 20 events that every form scores in turn.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from models import compiling, engine, trees
from models.engine import FORMS, Engine, Form
from models.leaf_masks import LeafMasks

Floats = NDArray[np.float64]
Side = Literal["standing", "new"]

N_FEATURES, N_OWN = 30, 10  # the last columns are the candidate's
CATEGORIES = (18, 19, 28, 29)
SHAPES = ((200, 31), (500, 63))
CANDIDATES = (8, 32)
SIDES: Final[tuple[Side, ...]] = ("standing", "new")
SEED = 0
_N_TRAIN = 20_000
_N_EVENTS, _RUN = 200, 20
_OBJECTIVES = ("binary", "regression", "poisson", "quantile", "tweedie", "huber", "cross_entropy", "gamma")


def world(random: np.random.Generator, n_rows: int) -> Floats:
    """Return rows of numbers, 5 % missing, with categories of 12 values, float64[n_rows, 30]."""
    matrix = random.normal(size=(n_rows, N_FEATURES))
    matrix[:, CATEGORIES] = random.integers(0, 12, (n_rows, len(CATEGORIES)))
    return np.where(random.random(matrix.shape) < 0.05, np.nan, matrix)  # noqa: PLR2004 - as said


def train(objective: str, n_trees: int, n_leaves: int, n_rows: int, seed: int) -> str:
    """Return LightGBM's text of a model whose signal lies in event, candidate and both."""
    random = np.random.default_rng(seed)
    matrix = world(random, n_rows)
    filled = np.nan_to_num(matrix)
    signal = filled[:, :3].sum(axis=1) + filled[:, 20:23].sum(axis=1) + (filled[:, 28] == filled[:, 18])
    signal += random.normal(size=n_rows)
    label = (signal > 0.0).astype(float) if objective in ("binary", "cross_entropy") else np.abs(signal) + 0.1
    data = lightgbm.Dataset(matrix, label, categorical_feature=list(CATEGORIES))
    parameters: dict[str, Any] = {"objective": objective, "num_leaves": n_leaves, "seed": seed}
    parameters |= {"verbosity": -1, "num_threads": 1, "min_data_in_leaf": 20}
    return lightgbm.train(parameters, data, num_boost_round=n_trees).model_to_string()


def events(n_events: int, n_candidates: int, side: Side) -> Sequence[Floats]:
    """Return matrices, float64[n_candidates, 30], whose event columns are the same in all rows."""
    random = np.random.default_rng(SEED + n_candidates)
    own = world(random, n_candidates)
    matrices = []
    for _ in range(n_events):
        matrix = own if side == "standing" else world(random, n_candidates)
        matrix = matrix.copy()
        matrix[:, : N_FEATURES - N_OWN] = world(random, 1)[0, : N_FEATURES - N_OWN]
        matrices.append(matrix)
    return matrices


def save(text: str, folder: Path) -> dict[Form, Engine]:
    """Return the model in every form that is to be had."""
    path = folder / "model.txt"
    path.write_text(text, encoding="utf-8")
    LeafMasks.build(trees.parse(text)).write(path.with_suffix(".masks"))
    return {form: Engine.load(path, fastest=form) for form in FORMS if form != "c" or engine.is_compiled()}


def time_us(predict: Callable[[Floats], Floats], matrices: Sequence[Floats]) -> float:
    """Return the mean time of a call in microseconds, on the processor: by the wall, a busy machine stops long calls more often."""
    started = time.process_time_ns()
    for matrix in matrices:
        predict(matrix)
    return (time.process_time_ns() - started) / len(matrices) / 1e3


def measure(forms: Mapping[Form, Engine], n_candidates: int, side: Side, n_rounds: int) -> dict[str, float]:
    """Return over all runs each form's median time per call in microseconds, and the median of LightGBM's over it."""
    matrices = events(_N_EVENTS, n_candidates, side)
    runs: list[dict[Form, float]] = []
    for turn in range(n_rounds + 1):
        for start in range(0, len(matrices), _RUN):
            run = {form: time_us(each.predict, matrices[start : start + _RUN]) for form, each in forms.items()}
            runs += [run] if turn else []  # the first round is to warm up
    told = {f"{form}_us": float(np.median([run[form] for run in runs])) for form in forms}
    ratios = {form: float(np.median([run["booster"] / run[form] for run in runs])) for form in forms}
    return told | {f"{form}_x": ratio for form, ratio in ratios.items() if form != "booster"}


def time_common(n_rounds: int) -> dict[str, float]:
    """Return how many times LightGBM's time the fastest form takes, by candidates, of the first shape with a standing side."""
    fastest: Form = "c" if engine.is_compiled() else "numpy"
    with tempfile.TemporaryDirectory() as folder:
        forms = save(train("binary", *SHAPES[0], _N_TRAIN, SEED), Path(folder))
        measured = {n: measure(forms, n, "standing", n_rounds) for n in CANDIDATES}
    return {str(n): round(told[f"{fastest}_x"], 1) for n, told in measured.items()}


def count_differing(n_rows: int, n_train: int) -> tuple[int, int]:
    """Return how many rows were scored by every form, over a model of each objective, and how many of them differ."""
    differing = 0
    each = -(-n_rows // len(_OBJECTIVES))
    for number, objective in enumerate(_OBJECTIVES):
        with tempfile.TemporaryDirectory() as folder:
            forms = save(train(objective, 100, 31, n_train, seed=number + 1), Path(folder))
            tables = LeafMasks.read(Path(folder) / "model.masks")
            for start in range(0, each, 25_000):
                rows = compiling.proof_rows(tables, min(25_000, each - start), seed=number * 1_000_003 + start)
                differing += _differing(forms, rows)
    return each * len(_OBJECTIVES), differing


def _differing(forms: Mapping[Form, Engine], rows: Floats) -> int:
    differs = np.zeros(len(rows), dtype=np.bool_)
    for raw_score in (True, False):
        said = {form: each.predict(rows, raw_score=raw_score).view(np.int64) for form, each in forms.items()}
        for form in forms:
            differs |= said[form] != said["booster"]
    return int(differs.sum())


def _ratios(measured: Mapping[tuple[int, int, Side], dict[str, float]], side: Side, form: Form) -> dict[str, float]:
    return {str(n): round(measured[SHAPES[0][0], n, side][f"{form}_x"], 1) for n in CANDIDATES}


def main() -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and rows: under a minute")
    quick = parser.parse_args().quick
    n_rounds, n_checked = (5, 40_000) if quick else (12, 1_000_000)
    table = Table(
        title=f"us of processor time per event, one thread, median of {n_rounds} rounds of {_N_EVENTS} events"
    )
    for name in ("trees", "candidates", "side", "LightGBM", "numpy", "C", "x, numpy", "x, C"):
        table.add_column(name, justify="right")
    measured: dict[tuple[int, int, Side], dict[str, float]] = {}
    for n_trees, n_leaves in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            forms = save(train("binary", n_trees, n_leaves, _N_TRAIN, SEED), Path(folder))
            for n_candidates in CANDIDATES:
                for side in SIDES:
                    told = measured[n_trees, n_candidates, side] = measure(forms, n_candidates, side, n_rounds)
                    cells = [told.get(f"{form}_us", np.nan) for form in ("booster", "numpy", "c")]
                    cells += [told.get(f"{form}_x", np.nan) for form in ("numpy", "c")]
                    shape = (f"{n_trees} x {n_leaves}", str(n_candidates), side)
                    table.add_row(*shape, *(f"{cell:.1f}" for cell in cells))
    rows_checked, rows_differing = count_differing(n_checked, _N_TRAIN // 4)
    Console().print(table)
    print(f"{rows_differing} of {rows_checked:,} rows differ in a bit; lightgbm {version('lightgbm')}, seed {SEED}")
    fastest: Form = "c" if engine.is_compiled() else "numpy"
    summary = {
        "engine_x_booster": _ratios(measured, "standing", fastest),
        "engine_x_booster_new_state": _ratios(measured, "new", fastest),
        "engine": fastest,
        "us": {"/".join(map(str, key)): {k: round(v, 2) for k, v in told.items()} for key, told in measured.items()},
        "rows_checked": rows_checked,
        "rows_differing": rows_differing,
    }
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
