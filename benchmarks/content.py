"""Measures the content classifier on CLINC150 and Banking77: ``python -m benchmarks.content``; its last line is JSON.

Hyper-parameters came from cross-validation inside CLINC150's training split; what is reported here was looked at for
no choice. An in-scope text answered "out of scope" counts as wrong.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import sklearn
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from sklearn.model_selection import train_test_split

from models import content, content_training

OUT_OF_SCOPE = "oos"
DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "text"
TEST_SHARE = 0.2
NO_DATA = 2  # exit code
# Larson et al., An Evaluation Dataset for Intent Classification and Out-of-Scope Prediction, 2019, table 2, "Full":
# in-scope accuracy and out-of-scope recall in per cent. Casanueva et al., Efficient Intent Detection, 2020, table 3.
PUBLISHED_CLINC = "SVM 91.0 / 14.5, MLP on sentence encoder 93.5 / 47.4, BERT 96.9 / 40.3"
PUBLISHED_BANKING = "BERT tuned 93.66, sentence encoders 93.36 (on the test split)"


@dataclass(frozen=True, kw_only=True)
class Task:
    """One data set, split: ``test`` is never seen in training. Rows have ``text`` and ``intent``."""

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    settings: content_training.Settings


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a trained classifier reached on the test rows; ``out_of_scope_recall`` is NaN where none are out of scope."""

    accuracy: float
    out_of_scope_recall: float
    us_per_event: float
    train_seconds: float
    megabytes: float
    contender: str


def clinc_task(train: Path, test: Path | None, settings: content_training.Settings, seed: int) -> Task | None:
    """Train on all rows and test on all of ``test``'s, or split one file: ``train`` against ``val``. None without files."""
    learn, held_out = _read(train, "clinc150*.parquet"), _read(test or train, "clinc150*.parquet")
    if learn is None or held_out is None:
        return None
    if test is None:
        marked = "split" in learn
        learn, held_out = (_part(learn, "train"), _part(learn, "val")) if marked else _hold_back(learn, seed)
    return Task(name="clinc150", train=learn, test=held_out, settings=settings)


def banking_task(train: Path, test: Path | None, settings: content_training.Settings, seed: int) -> Task | None:
    """Train on all rows and test on all of ``test``'s, or on a stratified fifth that is held back. None without files."""
    learn = _read(train, "banking77*.parquet")
    held_out = learn if test is None else _read(test, "banking77*.parquet")
    if learn is None or held_out is None:
        return None
    if test is None:
        learn, held_out = _hold_back(learn, seed)
    # Every text of Banking77 is in scope: nothing may be given up for texts that are not.
    return Task(name="banking77", train=learn, test=held_out, settings=replace(settings, max_accuracy_loss_share=0.0))


def _read(folder: Path, pattern: str) -> pd.DataFrame | None:
    """Return the labelled rows of all files, None if there are none."""
    files = sorted(folder.glob(pattern))
    if not files:
        return None
    rows = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    return rows.dropna(subset=["text", "intent"]).reset_index(drop=True)


def _hold_back(rows: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    kept, held_back = train_test_split(
        np.arange(len(rows)), test_size=TEST_SHARE, random_state=seed, stratify=rows["intent"]
    )
    return rows.iloc[np.sort(kept)], rows.iloc[np.sort(held_back)]


def _part(rows: pd.DataFrame, split: str) -> pd.DataFrame:
    """Return the rows of a split with its out-of-scope rows."""
    return rows[rows["split"].isin([split, f"{OUT_OF_SCOPE}_{split}"])]


def measure(task: Task, seed: int, console: Console) -> Measured:
    """Train in a temporary folder and score every test row once, one by one, as the shim does."""
    outside = task.train["intent"] == OUT_OF_SCOPE
    known = task.train[~outside]
    with tempfile.TemporaryDirectory() as place, Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"{task.name}: training", total=None)
        started = time.perf_counter()
        classifier = content_training.train(
            known["text"].tolist(),
            known["intent"].tolist(),
            Path(place),
            settings=task.settings,
            seed=seed,
            out_of_scope=task.train.loc[outside, "text"].tolist(),
            on_step=lambda done, total: progress.update(bar, completed=done, total=total),
        )
        train_seconds = time.perf_counter() - started
        megabytes = sum(file.stat().st_size for file in Path(place).iterdir()) / 1e6
    answers, us_each = _classify(classifier, task.test["text"].tolist())
    in_scope = (task.test["intent"] != OUT_OF_SCOPE).to_numpy()
    right = np.array(answers, dtype=object) == task.test["intent"].to_numpy(dtype=object)
    return Measured(
        accuracy=float(right[in_scope].mean()),
        out_of_scope_recall=float(right[~in_scope].mean()) if not in_scope.all() else float("nan"),
        us_per_event=float(np.median(us_each)),
        train_seconds=train_seconds,
        megabytes=megabytes,
        contender=classifier.card.contender,
    )


def _classify(classifier: content.Classifier, texts: Sequence[str]) -> tuple[list[str], list[float]]:
    answers, us_each = [], []
    for text in texts:
        started = time.perf_counter_ns()
        said = classifier.classify(text)
        us_each.append((time.perf_counter_ns() - started) / 1e3)
        answers.append(OUT_OF_SCOPE if said.label is None else said.label)
    return answers, us_each


def _table(tasks: Sequence[Task], measured: Sequence[Measured], seed: int) -> Table:
    table = Table(
        title=f"Content classification, seed {seed}",
        caption=f"Python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}",
    )
    for heading in (
        "data",
        "train",
        "test",
        "in-scope %",
        "oos recall %",
        "us/event",
        "train s",
        "MB",
        "kept",
        "published %",
    ):
        table.add_column(heading)
    for task, result in zip(tasks, measured, strict=True):
        recall = f"{100 * result.out_of_scope_recall:.1f}" if result.out_of_scope_recall >= 0 else "-"
        published = PUBLISHED_CLINC if task.name == "clinc150" else PUBLISHED_BANKING
        sizes = [f"{len(rows)} ({(rows['intent'] == OUT_OF_SCOPE).sum()} oos)" for rows in (task.train, task.test)]
        numbers = (f"{100 * result.accuracy:.1f}", recall, f"{result.us_per_event:.0f}", f"{result.train_seconds:.0f}")
        table.add_row(task.name, *sizes, *numbers, f"{result.megabytes:.1f}", result.contender, published)
    return table


def _summary(tasks: Sequence[Task], measured: Sequence[Measured]) -> dict[str, object]:
    summary: dict[str, object] = {}
    for task, result in zip(tasks, measured, strict=True):
        if task.name == "clinc150":
            recall = round(result.out_of_scope_recall, 4) if result.out_of_scope_recall >= 0 else None
            summary[task.name] = {"in_scope_accuracy": round(result.accuracy, 4), "oos_recall": recall}
        else:
            summary[task.name] = {"accuracy": round(result.accuracy, 4)}
    return {**summary, "us_per_event": round(measured[0].us_per_event, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if there are no data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.content", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the training files")
    parser.add_argument("--train", type=Path, help="the same as --data, beside --test")
    parser.add_argument(
        "--test",
        type=Path,
        help="folder of test files, all of whose rows count; without it, parts of the training files",
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    train, console = given.train or given.data, Console(stderr=True)
    settings = content_training.Settings()
    found = [clinc_task(train, given.test, settings, given.seed), banking_task(train, given.test, settings, given.seed)]
    tasks = [task for task in found if task is not None]
    if not tasks:
        print(
            f"no clinc150*.parquet or banking77*.parquet in {train}" + (f" and in {given.test}" if given.test else ""),
            file=sys.stderr,
        )
        return NO_DATA
    measured = [measure(task, given.seed, console) for task in tasks]
    Console(width=160).print(_table(tasks, measured, given.seed))
    print(json.dumps(_summary(tasks, measured)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
