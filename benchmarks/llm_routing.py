"""Measures routing of prompts between language models, through the product's classifier and router: ``python -m benchmarks.llm_routing``; its last line is JSON.

Two models (RouteLLM's MMLU answers): which prompts are worth a call to the strong one. Nine models: which one to ask.
Without ``--test`` four tenths of each set, by the ids of its events, are the test; every setting was chosen by
cross-validation inside the other six.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks import llm_peers, llm_report, llm_router
from benchmarks.llm_prompts import Floats, Prompts, join, read_prompts
from benchmarks.llm_router import Known
from features.choices import Training
from models.content_fit import Settings

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "llm_routing"
NO_DATA = 2  # exit code
N_GOLD = 1_500  # the paper's gold labels
N_SEEDS = 3

CONTENT = Settings(pair_span=2, max_terms=10_000, n_inputs=4_000, n_hidden=64, n_components=100, n_threads=1)
# Single answers are noise: trees that both models share, with large leaves, lose less to it than boosting one model at a time.
ROUTER = Training(
    min_decisions=50,
    rounds=1,  # of the boosters that a model without answers would be judged by: every model has answers
    n_boosters=4,
    max_bin=63,
    forms=("shared",),
    contest_decisions=0,
    min_own_outcomes=50,
    shared_min_events=20.0,
    latency_quantiles=(),
    threads=1,
)
# Within a task hardly anything tells nine models apart: what is learned stays close to the promise.
ROUTER_OF_MANY = msgspec.structs.replace(ROUTER, shared_min_events=40.0, shared_prior=40.0)


@dataclass(frozen=True, kw_only=True)
class Split:
    """One set of prompts: what is learned from, and what is tested on."""

    name: str
    train: Prompts
    test: Prompts


def find_splits(pattern: str, train: Path, test: Path | None) -> list[Split]:
    """Return a split of every set found; a set that only ``test`` has is learned from all that ``train`` has."""
    known = read_prompts(train, pattern)
    if test is None:
        return [
            Split(name=name, train=rows.take(~rows.is_held_out), test=rows.take(rows.is_held_out))
            for name, rows in known.items()
        ]
    asked = read_prompts(test, pattern) if known else {}
    return [
        Split(name=name, train=known[name] if name in known else join(list(known.values())), test=rows)
        for name, rows in asked.items()
    ]


def route(train: Prompts, test: Prompts, facts: tuple[str, ...], seed: int) -> Floats:
    """Return what the product expects of two models, float64[n_test, 2], from the texts and from ``facts`` beside them."""
    return llm_router.predict(_know(train, test, facts, seed), train.quality, train.models, ROUTER)


def route_among_many(train: Prompts, test: Prompts, seed: int) -> Floats:
    """Return what the product expects of each model, float64[n_test, k], beside the mean of its task, which is promised."""
    promised = (
        1.0 - llm_peers.predict_means(train, train, "task_name"),
        1.0 - llm_peers.predict_means(train, test, "task_name"),
    )
    known = _know(train, test, ("task_name", "metric"), seed)
    return llm_router.predict(known, train.quality, train.models, ROUTER_OF_MANY, promised)


def _know(train: Prompts, test: Prompts, facts: tuple[str, ...], seed: int) -> tuple[Known, Known]:
    content = _read(train, test, seed)
    return (
        llm_router.beside(llm_router.know_shape(train, facts), content[0]),
        llm_router.beside(llm_router.know_shape(test, facts), content[1]),
    )


@lru_cache(maxsize=1)
def _read(train: Prompts, test: Prompts, seed: int) -> tuple[Known, Known]:
    """Return what the classifier says, kept for the next method on the same prompts."""
    return llm_router.read_content(train, test, name_classes(train), CONTENT, seed)


def name_classes(prompts: Prompts) -> NDArray[np.object_]:
    """Return what the classifier learns to tell: what training prompts are about where that is said, else which models were right."""
    for fact in ("subject", "task_name"):
        if fact in prompts.facts and len(set(prompts.facts[fact])) > 1:
            return prompts.facts[fact]
    answered = ["".join("1" if each > 0.5 else "0" for each in row) for row in prompts.quality]  # noqa: PLR2004 - right or wrong
    return np.array(answered, dtype=object)


Method = Callable[[Prompts, Prompts, int], Floats]


def pair_methods(split: Split) -> dict[str, Method]:
    """Return what is compared on two models, by name: the product first; what needs a subject only where there is one."""
    methods: dict[str, Method] = {
        llm_report.PRODUCT: lambda train, test, seed: route(train, test, (), seed),
        llm_report.TFIDF: lambda train, test, _seed: llm_peers.predict_tfidf(train, test),
        "random": lambda _train, test, seed: np.random.default_rng(seed).random(test.quality.shape),
    }
    if "subject" in split.train.facts and "subject" in split.test.facts:
        methods["product, subject known"] = lambda train, test, seed: route(train, test, ("subject",), seed)
        methods["subject means"] = lambda train, test, _seed: llm_peers.predict_means(
            train, test, "subject", llm_peers.PSEUDO_PROMPTS
        )
    return methods


def nine_methods() -> dict[str, Method]:
    """Return what is compared on many models, by name: each row's greatest prediction is the model that is asked."""
    return {
        llm_report.PRODUCT: route_among_many,
        llm_report.PER_TASK: lambda train, test, _seed: llm_peers.predict_means(train, test, "task_name"),
        "best single": lambda train, test, _seed: np.tile(train.quality.mean(axis=0), (len(test.texts), 1)),
        "TF-IDF and task, ridge": lambda train, test, _seed: llm_peers.predict_ridge(train, test, "task_name"),
        "oracle": lambda _train, test, _seed: test.quality,
    }


def run(
    split: Split,
    methods: Mapping[str, Method],
    seeds: Sequence[int],
    n_learned: int | None,
    on_step: Callable[[], None],
) -> dict[str, list[Floats]]:
    """Return what each method predicts for the test prompts, per seed; ``n_learned`` rows are drawn anew for each seed, None: all are learned from."""
    predicted: dict[str, list[Floats]] = {name: [] for name in methods}
    for seed in seeds:
        drawn = np.random.default_rng(seed).permutation(len(split.train.texts))[:n_learned]
        train = split.train.take(drawn)
        for name, method in methods.items():
            predicted[name].append(method(train, split.test, seed))
            on_step()
    return predicted


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if there are no data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.llm_routing", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of routellm_*.parquet, llmrouter9_*.parquet"
    )
    parser.add_argument("--train", type=Path, help="the same as --data, beside --test")
    parser.add_argument("--test", type=Path, help="folder of test files; without it, parts of the training files")
    parser.add_argument("--seeds", type=int, default=N_SEEDS, help=f"draws of {N_GOLD:,} prompts")
    given = parser.parse_args(arguments)
    folder, seeds = given.train or given.data, range(given.seeds)
    pairs = find_splits("routellm_*.parquet", folder, given.test)
    nines = find_splits("llmrouter9_*.parquet", folder, given.test)
    if not pairs and not nines:
        places = f"{folder}" + (f" and {given.test}" if given.test else "")
        print(f"no routellm_*.parquet or llmrouter9_*.parquet in {places}", file=sys.stderr)
        return NO_DATA
    jobs = [(f"{split.name}_{label}", split, drawn, n) for split in pairs for label, drawn, n in _sizes(split, seeds)]
    reports = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        total = sum(len(pair_methods(split)) * len(drawn) for _, split, drawn, _ in jobs) + len(nines) * len(
            nine_methods()
        )
        bar = progress.add_task("routing", total=total)
        for name, split, drawn, n_learned in jobs:
            predicted = run(split, pair_methods(split), drawn, n_learned, lambda: progress.advance(bar))
            reports.append(
                llm_report.judge_pair(name, predicted, split.test.quality, n_learned or len(split.train.texts))
            )
        for split in nines:
            predicted = run(split, nine_methods(), (0,), None, lambda: progress.advance(bar))
            reports.append(llm_report.judge_many(split.name, predicted, split.test.quality, len(split.train.texts)))
    Console(width=160).print(*(each.table for each in reports))
    print(json.dumps({each.name: each.summary for each in reports}))
    return 0


def _sizes(split: Split, seeds: Sequence[int]) -> list[tuple[str, Sequence[int], int | None]]:
    """Return (name, seeds, prompts learned from): draws of the paper's number where there are as many, and all of them once."""
    gold = [(str(N_GOLD), seeds, N_GOLD)] if len(split.train.texts) > N_GOLD else []
    return [*gold, ("all", (0,), None)]


if __name__ == "__main__":
    sys.exit(main())
