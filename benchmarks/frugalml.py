"""Measures routing under a budget on real outcomes of paid services: ``python -m benchmarks.frugalml``; its last line is JSON.

Every event was sent to every provider, so that a policy's accuracy is an exact mean. A free local model answers first;
its label, its confidence and the speaker are known, and at most one paid call follows. The form of the router and the
first price come from inside the training half; on the test half the price is paced by what was spent before.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

from features.config import Training
from features.objective import Objective
from features.vector import CategoryColumn
from models import budget, fit, logged
from models.budget import Limit
from models.policy import choose

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "frugalml"
NO_DATA = 2  # exit code
SEEDS = (1, 5, 10)  # those of the FixBase results
LOCAL = "local"
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


@dataclass(frozen=True, kw_only=True)
class Events:
    """n events: what is known before paying, whether each of k destinations was right, and what it would have cost.

    ``correct`` is 0/1, float64[n, k], NaN where it was not revealed; ``price`` float64[k] in USD per 10,000 calls.
    Every event pays ``base``, the local model's own price, whichever destination answers.
    """

    destinations: tuple[str, ...]
    price: Floats
    base: float
    confidence: Floats
    categories: dict[str, CategoryColumn]
    correct: Floats

    def take(self, rows: Mask | NDArray[np.int64]) -> "Events":
        """Return the events of these rows (indices or mask)."""
        return Events(
            destinations=self.destinations,
            price=self.price,
            base=self.base,
            confidence=self.confidence[rows],
            categories={name: column.take(rows) for name, column in self.categories.items()},
            correct=self.correct[rows],
        )

    def examples(self, number: NDArray[np.int64], row: NDArray[np.int64]) -> fit.Examples:
        """Return the pairs of event ``row`` and destination ``number`` as the router's examples."""
        nothing = np.full(len(row), np.nan)
        return fit.Examples(
            number_names=("local_confidence", "price_usd"),
            category_names=("destination", *self.categories),
            numbers=np.column_stack([self.confidence[row], self.price[number]]),
            categories=[
                CategoryColumn(number, self.destinations),
                *(column.take(row) for column in self.categories.values()),
            ],
            success=self.correct[row, number],
            latency_ms=nothing,
            cost_usd=nothing,
            propensity=np.ones(len(row)),
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one seed gave: per budget (accuracy, spend), the same along the curve, and the form that was chosen."""

    budgets: Floats
    curve: Floats
    best_single: float
    form: str


def read_events(data: Path, name: str) -> Events | None:
    """Return the events of a set, or None if its file is absent."""
    path = data / f"{name}.parquet"
    if not path.exists():
        return None
    rows, priced = pd.read_parquet(path), pd.read_csv(data / "destinations.csv")
    priced = priced[priced["dataset"] == name]
    destinations = tuple(priced["destination"])
    listed = priced["cost_usd_per_10k"].to_numpy(np.float64)
    is_local = np.array(destinations) == LOCAL
    categories = {}
    for column in ("local_label", "speaker"):
        if column in rows:
            codes, values = pd.factorize(rows[column].astype(str), sort=True)
            categories[column] = CategoryColumn(codes.astype(np.int64), tuple(values))
    return Events(
        destinations=destinations,
        price=np.where(is_local, 0.0, listed),
        base=float(listed[is_local].sum()),
        confidence=rows["local_confidence"].to_numpy(np.float64),
        categories=categories,
        correct=rows[[f"{destination}_correct" for destination in destinations]].to_numpy(np.float64),
    )


def predict(train: Events, test: Events, form: Form, seed: int) -> Floats:
    """Return the predicted success of each destination for the test events, float64[n_test, k], by the product's router."""
    n_destinations = len(train.destinations)
    groups = [np.arange(n_destinations)] if form.is_pooled else [np.array([number]) for number in range(n_destinations)]
    predicted = np.empty((len(test.confidence), n_destinations))
    for group in groups:
        row, place = np.nonzero(~np.isnan(train.correct[:, group]))
        with tempfile.TemporaryDirectory() as folder:
            router = fit.train(
                train.examples(group[place], row),
                Path(folder),
                stream="events",
                feature_set="frugalml",
                objective=OBJECTIVE,
                destinations=train.destinations,
                settings=form.settings,
                trained={"seed_of_split": seed},
            )
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


def find_saving(runs: Sequence[Run], price: float) -> float:
    """Return the share of ``price`` saved where the mean curve first equals the best single provider; 0 if it never does."""
    accuracy, spend = np.mean([each.curve for each in runs], axis=0).T
    target = float(np.mean([each.best_single for each in runs]))
    reached = np.flatnonzero(accuracy >= target)
    if not reached.size:
        return 0.0
    at = int(reached[0])
    around = slice(max(at - 1, 0), at + 1)
    spent = float(np.interp(target, accuracy[around], spend[around]))
    return 1.0 - spent / price


def interval(ours: Floats, theirs: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of means, by Welch: the peer's splits are other ones, so none pair up."""
    found = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return float(found.low), float(found.high)


def summarise(runs: Sequence[Run], budgets: Sequence[float], price: float) -> dict[str, object]:
    """Return the part of the final object that belongs to one set in one setting."""
    accuracy, spend = np.mean([each.budgets for each in runs], axis=0).T
    return {
        "budgets": {
            f"{usd:g}": {"accuracy": round(float(right), 5), "spend": round(float(spent), 5)}
            for usd, right, spent in zip(budgets, accuracy, spend, strict=True)
        },
        "saving_at_best_single": round(find_saving(runs, price), 4),
    }


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
    table = Table(title=f"One paid call at most, seeds {SEEDS}, halves at random", caption=_versions())
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
            _add_rows(table, name, events, runs, theirs, price, seconds)
    Console(width=170).print(table)
    savings = [float(str(each["saving_at_best_single"])) for each in summary["sets"].values()]
    print(json.dumps({**summary, "fixbase": fixbase, "mean_saving": round(float(np.mean(savings)), 4)}))


def _add_rows(
    table: Table,
    name: str,
    events: Events,
    runs: dict[str, list[Run]],
    theirs: dict[float, Floats],
    price: float,
    seconds: float,
) -> None:
    n_test = len(events.confidence) - len(events.confidence) // 2
    full, bandit = (np.array([each.budgets for each in runs[setting]]) for setting in ("sets", "bandit"))
    forms = " / ".join(sorted({each.form for each in runs["sets"]}))
    for at, usd in enumerate(sorted(theirs)):
        low, high = interval(full[:, at, 0], theirs[usd])
        means = (full[:, at, 0].mean(), theirs[usd].mean())
        cells = [name, str(n_test), f"{usd:g}", f"{full[:, at, 1].mean():.3f}", *(f"{mean:.4f}" for mean in means)]
        cells += [f"{means[0] - means[1]:+.4f} [{low:+.4f}, {high:+.4f}]", f"{bandit[:, at, 0].mean():.4f}"]
        table.add_row(*cells, f"{find_saving(runs['sets'], price):.1%}", forms, f"{seconds:.0f}")


def _versions() -> str:
    return f"Python {platform.python_version()}, numpy {np.__version__}, LightGBM {lightgbm.__version__}"


if __name__ == "__main__":
    sys.exit(main())
