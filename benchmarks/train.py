"""Measures what learning costs beside bare LightGBM: ``python -m benchmarks.train``; its last line is JSON.

The product's way (read the log, choose a form, fit, calibrate, evaluate on the holdout) and the same boosters fitted by
hand on the same matrix, already in memory, run in turn in processes of their own, so that peak memory is each one's: the most that the process ever had in memory
(VmHWM), less what it had when everything was imported and set up. CPU is the process's own, and says more under load.
"""

import argparse
import gc
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import lightgbm
import msgspec
import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import train_log
from features import training_log
from features.config import Stream
from features.snapshot import Snapshot
from models import boosting, comparison, compiling, fit, router
from models.booster import Booster
from models.card import read_card
from models.examples import Examples
from models.fit import Subject
from models.heads import Material
from scenarios.flights.configuration import STREAM

_KIB = 1024  # the unit in which Linux tells the peak
MATRIX_FILE, HEADS_FILE = "matrix.npy", "heads.json"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What is chosen of the training, of both sides; None is as the flights' configuration has it."""

    threads: int | None
    rounds: int | None

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        """Return what the command line says."""
        return cls(threads=given.threads, rounds=given.rounds)

    def told(self) -> dict[str, int]:
        """Return what is not None, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, or one of its two sides in a process of its own, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__)
    parser.add_argument("--rows", type=int, nargs="*", default=[250_000, 1_000_000], help="decisions in the log")
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; the median counts")
    parser.add_argument("--threads", type=int, help="of both sides; by default those of the flights' configuration")
    parser.add_argument("--rounds", type=int, help="of every booster, on both sides; memory does not depend on them")
    parser.add_argument("--data", type=Path, help="not used: the flights come from a package")
    parser.add_argument("--side", nargs=3, metavar=("NAME", "FOLDER", "AS_OF"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        name, folder, as_of = given.side
        print(json.dumps(SIDES[name](Path(folder), datetime.fromisoformat(as_of), Chosen.of(given))))
        return 0
    with tempfile.TemporaryDirectory() as scratch, Progress(console=Console(stderr=True), transient=True) as progress:
        measured = dict(_measure(Path(scratch), given.rows, given.repeats, Chosen.of(given), progress))
    Console(width=150).print(_table(measured))
    print(json.dumps({"rows": {str(n): each for n, each in measured.items()}, "seed": 0, **_versions()}))
    return 0


def learn(folder: Path, as_of: datetime, chosen: Chosen) -> dict[str, Any]:
    """Read, choose, fit, calibrate and evaluate as the retraining flow does; return seconds by stage and the peak."""
    configured = _configured(folder, chosen)
    before, seconds, watch, cpu = _forget_peak(), {}, time.perf_counter(), time.process_time()

    def lap(stage: str) -> None:
        nonlocal watch
        seconds[stage], watch = time.perf_counter() - watch, time.perf_counter()

    source = Snapshot(folder)
    rows = training_log.read_plain(source, STREAM, configured, as_of=as_of)
    log = training_log.read(source, configured, rows)
    del rows
    training_log.give_back()  # as the flow does
    lap("features")
    made = fit.learn(log.training, configured.features, folder / "router", _subject(configured), sample=log.sample)
    compiling.compile_router(folder / "router", made.card)
    lap("fit")
    comparison.compare(log.holdout, router.load(folder / "router"), None)
    lap("evaluation")
    cpu_seconds = time.process_time() - cpu
    told = {"seconds": seconds, "cpu_seconds": cpu_seconds, "bytes": _peak_bytes() - before}
    return {**told, "n_examples": made.card.trained["n_examples"]}


def bare(folder: Path, _: datetime, chosen: Chosen) -> dict[str, Any]:
    """Fit the boosters that the product chose, with LightGBM alone, on its matrix, binned once."""
    training = _configured(folder, chosen).training
    card = read_card(folder / "router")
    labels = dict(
        zip(msgspec.json.decode((folder / HEADS_FILE).read_bytes()), np.load(folder / "labels.npy"), strict=True)
    )
    before, watch = _forget_peak(), time.perf_counter()
    matrix = np.load(folder / MATRIX_FILE)
    loaded, cpu, n_numbers = time.perf_counter(), time.process_time(), len(card.numbers)
    data = lightgbm.Dataset(
        matrix,
        categorical_feature=list(range(n_numbers, matrix.shape[1])),
        params=boosting.parameters("latency_ms", training, seed=0),
    ).construct()
    for name, head in card.heads.items():
        known = np.flatnonzero(~np.isnan(labels[name]))
        parts = [(known, head.files)]
        parts += [(known[matrix[known, n_numbers] == code], files) for code, files in enumerate(head.own.values())]
        for rows, files in parts:
            mine = data if len(rows) == len(matrix) else data.subset(rows.tolist()).construct()
            mine.set_label(labels[name][rows])
            for number, file in enumerate(files):
                n_trees = Booster.load(folder / "router" / file).n_trees
                lightgbm.train(boosting.parameters(name, training, seed=number), mine, num_boost_round=n_trees)
    seconds = {"load": loaded - watch, "fit": time.perf_counter() - loaded}
    told = {"seconds": seconds, "cpu_seconds": time.process_time() - cpu, "bytes": _peak_bytes() - before}
    return {**told, "matrix_bytes": matrix.nbytes}


def keep_matrix(folder: Path, as_of: datetime, chosen: Chosen) -> dict[str, Any]:
    """Write the matrix and labels on which both sides fit."""
    configured = _configured(folder, chosen)
    source = Snapshot(folder)
    rows = training_log.read_plain(source, STREAM, configured, as_of=as_of)
    log = training_log.read(source, configured, rows).training
    material = Material.of(Examples.of(log, configured.features), configured.objective, configured.training)
    np.save(folder / MATRIX_FILE, material.matrix.take(slice(None)))
    np.save(folder / "labels.npy", np.stack(list(material.labels.values())))
    (folder / HEADS_FILE).write_bytes(msgspec.json.encode(list(material.labels)))
    return {"heads": list(material.labels)}


SIDES = {"learn": learn, "bare": bare, "keep": keep_matrix}


def _configured(folder: Path, chosen: Chosen) -> Stream:
    stream = train_log.configured(folder).streams[STREAM]
    return msgspec.structs.replace(stream, training=msgspec.structs.replace(stream.training, **chosen.told()))


def _subject(configured: Stream) -> Subject:
    return Subject(
        stream=STREAM,
        feature_set=configured.features.version,
        objective=configured.objective,
        destinations=configured.destinations,
        settings=configured.training,
        trained={},
    )


def _measure(
    scratch: Path, sizes: Sequence[int], repeats: int, chosen: Chosen, progress: Progress
) -> Iterator[tuple[int, dict[str, Any]]]:
    bar = progress.add_task("deciding flights", total=130_000)
    year = train_log.write_year(scratch / "year", on_progress=lambda n: progress.advance(bar, n))
    steps = progress.add_task("learning", total=len(sizes) * (1 + 2 * repeats))
    for n in sizes:
        folder = scratch / str(n)
        _, as_of = train_log.repeat(year, folder, n)
        _run("keep", folder, as_of, chosen)
        progress.advance(steps)
        sides: dict[str, list[dict[str, Any]]] = {"learn": [], "bare": []}
        for _ in range(repeats):
            for side, runs in sides.items():
                runs.append(_run(side, folder, as_of, chosen))
                progress.advance(steps)
        yield n, _summary(sides)


def _run(side: str, folder: Path, as_of: datetime, chosen: Chosen) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.train", "--side", side, str(folder), as_of.isoformat()]
    command += [f"--{name}={value}" for name, value in chosen.told().items()]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - our own module
    told: dict[str, Any] = msgspec.json.decode(said.splitlines()[-1])
    return told


def _summary(sides: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any]:
    stages = sides["learn"][0]["seconds"]
    seconds = {stage: float(np.median([run["seconds"][stage] for run in sides["learn"]])) for stage in stages}
    alone = float(np.median([run["seconds"]["fit"] for run in sides["bare"]]))
    cpu = {side: float(np.median([run["cpu_seconds"] for run in runs])) for side, runs in sides.items()}
    matrix = sides["bare"][0]["matrix_bytes"]
    return {
        "cpu_overhead": round(cpu["learn"] / cpu["bare"] - 1.0, 4),
        "cpu_seconds": {side: round(each, 2) for side, each in cpu.items()},
        "overhead": round(sum(seconds.values()) / alone - 1.0, 4),
        "memory_ratio": round(max(run["bytes"] for run in sides["learn"]) / matrix, 3),
        "seconds": round(sum(seconds.values()), 2),
        "stages": {stage: round(each, 2) for stage, each in seconds.items()},
        "bare_seconds": round(alone, 2),
        "bare_memory_ratio": round(max(run["bytes"] for run in sides["bare"]) / matrix, 3),
        "matrix_mb": round(matrix / 1e6, 1),
        "n_examples": sides["learn"][0]["n_examples"],
    }


def _table(measured: Mapping[int, Mapping[str, Any]]) -> Table:
    caption = ", ".join(f"{name} {version}" for name, version in _versions().items())
    table = Table(title="Learning beside bare LightGBM on the same matrix", caption=f"{caption}; seed 0")
    for heading in (
        "decisions",
        "features s",
        "fit s",
        "evaluation s",
        "bare s",
        "overhead",
        "of CPU",
        "memory",
        "bare memory",
    ):
        table.add_column(heading, justify="right")
    for n, each in measured.items():
        stages = [f"{each['stages'][name]:.1f}" for name in ("features", "fit", "evaluation")]
        ratios = [f"{each['memory_ratio']:.2f} x", f"{each['bare_memory_ratio']:.2f} x"]
        table.add_row(
            f"{n:,}",
            *stages,
            f"{each['bare_seconds']:.1f}",
            f"{each['overhead']:.0%}",
            f"{each['cpu_overhead']:.0%}",
            *ratios,
        )
    return table


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "lightgbm": lightgbm.__version__, "numpy": np.__version__}


def _forget_peak() -> int:
    """Return what this process holds now, and let its peak begin from there: what was loaded to set up is not learning's."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_bytes()


def _peak_bytes() -> int:
    """Return this process's own peak: what `resource` tells is inherited from whoever started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * _KIB


if __name__ == "__main__":
    sys.exit(main())
