"""Measures routing under a budget on real outcomes of paid services: ``python -m benchmarks.frugalml``; its last line is JSON.

Every event was sent to every provider, so that a policy's accuracy is an exact mean. A free local model answers first;
its label, its confidence and the speaker are known, and at most one paid call follows. The form of the router and the
first price come from inside the training half; on the test half the price is paced by what was spent before.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.frugalml_events import Events, read_events
from benchmarks.frugalml_report import Run, add_rows, summarise, versions
from features.config import Training
from features.objective import Objective
from models import budget, fit, logged
from models.budget import Limit
from models.policy import choose

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "frugalml"
NO_DATA = 2  # exit code
SEEDS = (1, 5, 10)  # those of the FixBase results
TUNING_EVENTS = 6_000  # of the training half: enough to tell the forms apart, and to price a budget
N_FOLDS = 3
PACE_EVENTS = 50  # spending is looked at as often, and a debt of 50 events' budgets multiplies the price by e
CURVE_SHARES = np.linspace(0.05, 1.0, 20)  # of the best single provider's price
OBJECTIVE = Objective(success=1.0)


@dataclass(frozen=True, kw_only=True)
class Form:
    """A way to fit: one router for all destinations, or one for each."""

    name: str
    is_pooled: bool
    settings: Training


def _settings(leaves: int, rounds: int, max_bin: int) -> Training:
    return Training(
        min_decisions=50,
        rounds=rounds,
        n_boosters=3,
        leaves=leaves,
        min_leaf=30,
        row_share=0.5,
        max_bin=max_bin,
        threads=1,
    )


FORMS = (
    Form(name="each, 3 leaves", is_pooled=False, settings=_settings(3, 150, 31)),
    Form(name="each, 8 leaves", is_pooled=False, settings=_settings(8, 100, 255)),
    Form(name="pooled, 15 leaves", is_pooled=True, settings=_settings(15, 150, 63)),
)


def predict(train: Events, test: Events, form: Form, seed: int) -> Floats:
    """Return the predicted success of each destination for the test events, float64[n_test, k], by the product's router."""
    n_destinations = len(train.destinations)
    groups = [np.arange(n_destinations)] if form.is_pooled else [np.array([number]) for number in range(n_destinations)]
    predicted = np.empty((len(test.confidence), n_destinations))
    for group in groups:
        row, place = np.nonzero(~np.isnan(train.correct[:, group]))
        with tempfile.TemporaryDirectory() as folder:
            subject = fit.Subject(
                stream="events",
                feature_set="frugalml",
                objective=OBJECTIVE,
                destinations=train.destinations,
                settings=form.settings,
                trained={"seed_of_split": seed},
            )
            router = fit.train(train.examples(group[place], row), Path(folder), subject)
        for number in group:
            asked = test.examples(np.full(len(predicted), number), np.arange(len(predicted)))
            predicted[:, number] = router.score_log(asked.numbers, asked.categories).value
    return predicted


def choose_form(train: Events, seed: int) -> tuple[Form, Floats]:
    """Return the form of the least out-of-fold log loss on the revealed outcomes, and its out-of-fold predictions."""
    fold = logged.folds(np.arange(len(train.confidence)), N_FOLDS, seed)
    predictions, losses = [], []
    for form in FORMS:
        predicted = np.empty_like(train.correct)
        for number in range(N_FOLDS):
            predicted[fold == number] = predict(train.take(fold != number), train.take(fold == number), form, seed)
        likelihood = np.where(train.correct == 1.0, predicted, 1.0 - predicted)[~np.isnan(train.correct)]
        predictions.append(predicted)
        losses.append(-np.log(np.clip(likelihood, 1e-9, 1.0)).mean())
    best = int(np.argmin(losses))
    return FORMS[best], predictions[best]


def route(prices: budget.Prices, predicted: Floats, events: Events, seed: int) -> tuple[float, float]:
    """Return accuracy and mean spend of events routed one after another, the price paced by what was spent."""
    use, draws = events.price[np.newaxis, np.newaxis], np.random.default_rng(seed).random(len(predicted))
    limit, debt = prices.limits[0].per_event, np.zeros(1)
    chosen = np.empty(len(predicted), np.int64)
    for start in range(0, len(predicted), PACE_EVENTS):
        block = slice(start, start + PACE_EVENTS)
        likely = prices.paced(debt, PACE_EVENTS).distribution(predicted[block], use)
        chosen[block] = [choose(each, draw) for each, draw in zip(likely, draws[block], strict=True)]
        debt += (events.price[chosen[block]] - limit).sum()
    accuracy = events.correct[np.arange(len(chosen)), chosen].mean()
    return float(accuracy), float(events.price[chosen].mean() + events.base)


def run(events: Events, budgets: Sequence[float], seed: int, *, bandit: bool) -> Run:
    """Split, choose a form, fit, price and route; ``bandit`` reveals one outcome per training event, drawn evenly."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(events.confidence))
    train, test = events.take(order[: len(order) // 2]), events.take(order[len(order) // 2 :])
    best = int(train.correct.mean(axis=0).argmax())
    if bandit:
        revealed = rng.integers(0, len(train.price), len(train.confidence))
        train.correct[np.arange(len(train.price)) != revealed[:, np.newaxis]] = np.nan
    form, out_of_fold = choose_form(train.take(np.arange(min(len(train.confidence), TUNING_EVENTS))), seed)
    predicted, use = predict(train, test, form, seed), events.price[np.newaxis, np.newaxis]
    measured = []
    for usd in (*budgets, *(CURVE_SHARES * events.price[best])):
        limit = Limit(resource="USD per 10,000 events", per_event=max(usd - events.base, 0.0))
        measured.append(route(budget.fit(out_of_fold, use, [limit]), predicted, test, seed))
    return Run(
        budgets=np.array(measured[: len(budgets)]),
        curve=np.array(measured[len(budgets) :]),
        best_single=float(test.correct[:, best].mean()),
        form=form.name,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if there are no data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frugalml", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of the sets, prices and FixBase results"
    )
    parser.add_argument("--sets", nargs="*", help="only these sets")
    given = parser.parse_args(arguments)
    peer_file = given.data / "frugalml_fixbase_rerun.csv"
    peer = pd.read_csv(peer_file) if peer_file.exists() else pd.DataFrame({"dataset": []})
    found = {name: read_events(given.data, name) for name in given.sets or peer["dataset"].unique()}
    present = {name: events for name, events in found.items() if events is not None}
    if not present:
        print(f"no set of {peer_file.name} in {given.data}", file=sys.stderr)
        return NO_DATA
    report(present, peer)
    return 0


def report(present: dict[str, Events], peer: pd.DataFrame) -> None:
    """Run every set in both settings, and print the table and the object."""
    table = Table(title=f"One paid call at most, seeds {SEEDS}, halves at random", caption=versions())
    headings = (
        "set",
        "test",
        "USD/10k",
        "spend",
        "full",
        "FixBase",
        "difference, 95 %",
        "bandit",
        "saving",
        "form",
        "s",
    )
    for heading in headings:
        table.add_column(heading)
    summary: dict[str, dict[str, dict[str, object]]] = {"sets": {}, "bandit": {}}
    fixbase: dict[str, dict[str, float]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("routing", total=2 * len(SEEDS) * len(present))
        for name, events in present.items():
            of_set = peer[peer["dataset"] == name]
            theirs = {
                float(usd): of_set["accuracy"][of_set["budget_usd_per_10k"] == usd].to_numpy()
                for usd in of_set["budget_usd_per_10k"].unique()
            }
            budgets, started = sorted(theirs), time.perf_counter()
            runs: dict[str, list[Run]] = {"sets": [], "bandit": []}
            for setting, kept in runs.items():
                for seed in SEEDS:
                    kept.append(run(events, budgets, seed, bandit=setting == "bandit"))
                    progress.advance(bar)
            price = float(events.price[events.correct.mean(axis=0).argmax()])
            for setting, kept in runs.items():
                summary[setting][name] = summarise(kept, budgets, price)
            fixbase[name] = {f"{usd:g}": round(float(theirs[usd].mean()), 5) for usd in budgets}
            seconds = time.perf_counter() - started
            add_rows(table, name, events, runs, theirs, price, seconds)
    Console(width=170).print(table)
    savings = [float(str(each["saving_at_best_single"])) for each in summary["sets"].values()]
    print(json.dumps({**summary, "fixbase": fixbase, "mean_saving": round(float(np.mean(savings)), 4)}))


if __name__ == "__main__":
    sys.exit(main())
