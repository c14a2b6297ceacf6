"""Measures routing under a budget on real outcomes of paid services: ``python -m benchmarks.frugalml``; its last line is JSON.

Every event was sent to every provider, so that a policy's accuracy is an exact mean. A free local model answers first;
its label, its confidence and the speaker are known before anything is paid. Budgets allow one paid call; the saving at the
best single provider's accuracy allows up to three, each decided when the answers before it are known. Prices come from inside
the training half; under a budget they are paced on the test half by what was spent before.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks.frugalml_cascade import learn_cascade
from benchmarks.frugalml_events import Events, find_sets, read_events
from benchmarks.frugalml_measures import Policy, Run, deploy, measure
from benchmarks.frugalml_report import Summary, add_rows, start_table
from benchmarks.frugalml_router import predict, predict_out_of_fold
from models import budget, escalation
from models.budget import Limit
from models.policy import choose

Floats = NDArray[np.float64]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "frugalml"
NO_DATA = 2  # exit code
SEEDS = (1, 5, 10)  # those of the FixBase results
N_FOLDS = 3
PACE_EVENTS = 10  # as often spending is looked at
PACE_SHARE, LEAST_HORIZON = 0.25, 25.0  # a debt is to be paid back within a quarter of the events that are left
BUDGET_SHARES = (0.3, 0.5)  # of the best single provider's price, where no peer says which budgets to report
CURVE = np.geomspace(0.005, 1.5, 33)  # in successes per price of the best single provider


def route(prices: budget.Prices, predicted: Floats, events: Events, seed: int) -> tuple[float, float]:
    """Return accuracy and mean spend of events routed one after another, a debt being paid back over those that are left."""
    use, draws = events.price[np.newaxis, np.newaxis], np.random.default_rng(seed).random(len(predicted))
    limit, debt, n = prices.limits[0].per_event, np.zeros(1), len(predicted)
    chosen = np.empty(n, np.int64)
    for start in range(0, n, PACE_EVENTS):
        block = slice(start, start + PACE_EVENTS)
        horizon = max(PACE_SHARE * (n - start), LEAST_HORIZON)
        likely = prices.paced(debt, horizon).distribution(predicted[block], use)
        chosen[block] = [choose(each, draw) for each, draw in zip(likely, draws[block], strict=True)]
        debt += (events.price[chosen[block]] - limit).sum()
    accuracy = events.correct[np.arange(n), chosen].mean()
    return float(accuracy), float(events.price[chosen].mean() + events.base)


def ask_once(predicted: Floats, events: Events) -> Policy:
    """Return the policy of one paid call at most, as a function of the price."""

    def routed(price: float) -> tuple[Floats, Floats]:
        step = escalation.take(predicted, events.price, price)
        return events.correct[np.arange(len(predicted)), step.chosen], step.use

    return routed


def run(events: Events, budgets: Sequence[float], seed: int, *, bandit: bool) -> Run:
    """Split, fit, price and route; ``bandit`` reveals one outcome per training event, drawn evenly, and asks once."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(events.correct))
    train, test = events.take(order[: len(order) // 2]), events.take(order[len(order) // 2 :])
    best = train.best_single()
    if bandit:
        revealed = rng.integers(0, len(train.price), len(train.correct))
        train.correct[np.arange(len(train.price)) != revealed[:, np.newaxis]] = np.nan
    out_of_fold, predicted = predict_out_of_fold(train, N_FOLDS, seed), predict(train, test)
    met = []
    for usd in budgets:
        limit = Limit(resource="USD per 10,000 events", per_event=max(usd - events.base, 0.0))
        met.append(route(budget.fit(out_of_fold, events.price[np.newaxis, np.newaxis], [limit]), predicted, test, seed))
    ask = ask_once(predicted, test)
    once = measure(ask, test, best, CURVE)
    if bandit:
        return Run(budgets=np.array(met), once=once, chosen=once, policy="one call", deployed=None)
    inside, outside = learn_cascade(train, test, seed)
    policies = {"escalation": (inside.route, outside.route), "one call": (ask_once(out_of_fold, train), ask)}
    found = {name: measure(known, train, best, CURVE).crossing() for name, (known, _) in policies.items()}
    policy = min(found, key=lambda name: found[name].spend)
    chosen = policies[policy][1]
    return Run(
        budgets=np.array(met),
        once=once,
        chosen=measure(chosen, test, best, CURVE),
        policy=policy,
        deployed=deploy(chosen, test, best, found[policy].price),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if there are no data."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.frugalml", description=__doc__)
    parser.add_argument(
        "--data", type=Path, default=DEFAULT_DATA, help="folder of the sets, prices and FixBase results"
    )
    parser.add_argument("--sets", nargs="*", help="only these sets")
    parser.add_argument("--budgets", nargs="*", type=float, help="USD per 10,000 events, instead of the peer's budgets")
    given = parser.parse_args(arguments)
    names = [name for name in find_sets(given.data) if not given.sets or name in given.sets]
    if not names:
        print(f"no set with prices in destinations.csv and a parquet file in {given.data}", file=sys.stderr)
        return NO_DATA
    peer_file = given.data / "frugalml_fixbase_rerun.csv"
    peer = pd.read_csv(peer_file) if peer_file.exists() else pd.DataFrame({"dataset": []})
    report({name: read_events(given.data, name) for name in names}, peer, given.budgets)
    return 0


def read_peer(peer: pd.DataFrame, name: str) -> dict[float, Floats]:
    """Return FixBase's accuracies of a set, by budget; empty where the peer has no row of it."""
    of_set = peer[peer["dataset"] == name]
    budgets = of_set["budget_usd_per_10k"].to_numpy(np.float64) if len(of_set) else np.zeros(0)
    return {float(usd): of_set["accuracy"].to_numpy(np.float64)[budgets == usd] for usd in np.unique(budgets)}


def plan_budgets(events: Events, theirs: Mapping[float, Floats], given: Sequence[float] | None) -> list[float]:
    """Return the budgets to report: those given, else the peer's, else shares of the best single provider's price."""
    if given or theirs:
        return sorted(given or theirs)
    price = float(events.price[events.best_single()])
    return [float(f"{share * price:.3g}") for share in BUDGET_SHARES]


def report(present: dict[str, Events], peer: pd.DataFrame, given: Sequence[float] | None) -> None:
    """Run every set in both settings, and print the table and the object."""
    table, summary = start_table(SEEDS), Summary()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("routing", total=2 * len(SEEDS) * len(present))
        for name, events in present.items():
            theirs, started = read_peer(peer, name), time.perf_counter()
            budgets = plan_budgets(events, theirs, given)
            runs: dict[str, list[Run]] = {"sets": [], "bandit": []}
            for setting, kept in runs.items():
                for seed in SEEDS:
                    kept.append(run(events, budgets, seed, bandit=setting == "bandit"))
                    progress.advance(bar)
            n_test = len(events.correct) - len(events.correct) // 2
            summary.add(name, runs, budgets, theirs)
            add_rows(table, f"{name} ({n_test:,})", runs, budgets, theirs, time.perf_counter() - started)
    Console(width=230).print(table)
    print(json.dumps(summary.content()))


if __name__ == "__main__":
    sys.exit(main())
