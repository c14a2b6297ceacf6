"""Measures off-policy estimates where the truth is known: ``python -m benchmarks.ope``; its last line is JSON.

On each FrugalML data set and on the flights, many logs are drawn that reveal one outcome per event, and the value of one
fixed target policy is estimated from each by IPS, SNIPS and DR: how often the nominal 95 % interval holds the truth, how
large the error is. The reward model of DR is a ridge regression fitted on the log's other folds. Logs are drawn from a
population (with replacement; on the flights whole days), and the truth is the mean over that population. "known" is the
same interval where the target itself had decided: what it lacks of 95 % there, the world took, not the estimate (a few
stormy days, say). On Open Bandit the uniform policy is estimated from what another policy logged, and held against the rate published for the full data.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks import ope_report, ope_worlds
from benchmarks.ope_report import Tally
from benchmarks.ope_worlds import Drawn, Population
from models import evaluation, logged
from models.evaluation import Estimate, Refusal
from models.intervals import mean_interval
from models.logged import LoggedDecisions
from scenarios.flights.timetable import DataMissingError

Floats = NDArray[np.float64]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NO_DATA = 2  # exit code
N_FOLDS = 5
N_EVENTS, N_DAYS = 5_000, 122  # of a log: as many days as the live months of the flights have
N_REFUSAL_LOGS = N_QUICK_LOGS = 20


def estimate_all(drawn: Drawn, seed: int) -> dict[str, Estimate | Refusal]:
    """Return the estimate of each method."""
    return {
        "dr": evaluation.estimate_dr(drawn.log, drawn.target, cross_fit(drawn, seed)),
        "ips": evaluation.estimate_ips(drawn.log, drawn.target),
        "snips": evaluation.estimate_snips(drawn.log, drawn.target),
    }


def cross_fit(drawn: Drawn, seed: int) -> Floats:
    """Return the reward model's word for every row, float64[n_rows], each fold's from the chosen rows of all the others."""
    log = drawn.log
    fold = logged.folds(np.arange(log.n_decisions) if log.cluster is None else log.cluster, N_FOLDS, seed)
    shown = drawn.features[log.chosen]
    parts = [(shown[fold == k], log.reward[fold == k]) for k in range(N_FOLDS)]
    grams = np.array([features.T @ features for features, _ in parts])
    moments = np.array([features.T @ reward for features, reward in parts])
    fold_of_row, q = np.repeat(fold, np.diff(log.offsets)), np.empty(len(drawn.features))
    for k in range(N_FOLDS):
        coefficients = ope_worlds.solve_ridge(grams.sum(axis=0) - grams[k], moments.sum(axis=0) - moments[k])
        q[fold_of_row == k] = drawn.features[fold_of_row == k] @ coefficients
    return q


def measure(population: Population, n_logs: int, seed: int, progress: Progress) -> dict[str, Tally]:
    """Draw the logs and tally what each method says of them."""
    truth, rng = population.true_value, np.random.default_rng(seed)
    tallies = {method: Tally() for method in ope_report.METHODS}
    for run in progress.track(range(n_logs), description=population.name):
        drawn = ope_worlds.draw(population, rng)
        known = mean_interval(drawn.earned, drawn.log.cluster, evaluation.DEFAULT_LIMITS.confidence)
        for method, estimate in (estimate_all(drawn, run) | {"known": known}).items():
            tallies[method].add(estimate, truth)
    return tallies


def measure_refusals(population: Population, seed: int) -> dict[str, float]:
    """Return, per planted fault, the share of logs on which every method refuses for the reason that was planted."""
    rng = np.random.default_rng(seed)
    certain = population.logging == np.repeat(
        np.maximum.reduceat(population.logging, population.offsets[:-1]), np.diff(population.offsets)
    )
    unexplored = replace(population, logging=certain.astype(np.float64))
    right: Counter[str] = Counter()
    for run in range(N_REFUSAL_LOGS):
        whole = ope_worlds.draw(population, rng)
        faulty = {
            "no propensities": replace(whole, log=_without_propensities(whole.log)),
            "too few": ope_worlds.draw(replace(population, n_drawn=evaluation.DEFAULT_LIMITS.min_decisions - 1), rng),
            "no overlap": ope_worlds.draw(unexplored, rng),
        }
        for reason, drawn in faulty.items():
            said = estimate_all(drawn, run).values()
            right[reason] += all(isinstance(word, Refusal) and word.reason == reason for word in said)
    return {reason: right[reason] / N_REFUSAL_LOGS for reason in ("no propensities", "too few", "no overlap")}


def _without_propensities(log: LoggedDecisions) -> LoggedDecisions:
    return replace(log, propensity=np.full(log.n_decisions, np.nan))


def measure_bandit(file: Path) -> dict[str, Estimate | Refusal]:
    """Return each method's estimate of the uniform policy's click rate from what Thompson sampling logged.

    Some forty clicks fit no model: DR's reward model is the rate of the other folds.
    """
    log = ope_worlds.bandit_log(file)
    n_rows = int(log.offsets[-1])
    uniform = np.repeat(1.0 / np.diff(log.offsets), np.diff(log.offsets))
    return estimate_all(Drawn(log=log, target=uniform, features=np.ones((n_rows, 1)), earned=np.empty(0)), seed=0)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ope", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that holds frugalml/ and bandit/")
    parser.add_argument("--logs", type=int, default=1_000, help="logs per data set")
    parser.add_argument("--events", type=int, default=N_EVENTS, help="of a FrugalML log")
    parser.add_argument("--days", type=int, default=N_DAYS, help="of a flights log")
    parser.add_argument(
        "--quick", action="store_true", help="20 logs, two FrugalML sets, two months of flights: seconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if data are missing."""
    given = _parse(arguments)
    console = Console(stderr=True)
    # destinations.csv beside them is not read: every right answer is worth 1, whatever its price.
    files, bandit = sorted((given.data / "frugalml").glob("*.parquet")), given.data / "bandit" / "obd_all.parquet"
    if not files or not bandit.is_file():
        print(f"no frugalml/*.parquet or no bandit/obd_all.parquet in {given.data}", file=sys.stderr)
        return NO_DATA
    try:
        with console.status("building the flights world"):
            flights = ope_worlds.flights_population(given.days, quick=given.quick)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return NO_DATA
    files, n_logs = (files[:2], N_QUICK_LOGS) if given.quick else (files, given.logs)
    answers = [ope_worlds.frugalml_population(file, given.events, given.seed) for file in files]
    with Progress(console=console, transient=True) as progress:
        measured = [measure(population, n_logs, given.seed, progress) for population in (*answers, flights)]
    refused, estimates = measure_refusals(answers[0], given.seed), measure_bandit(bandit)
    Console(width=150).print(ope_report.table((*answers, flights), measured, given.seed))
    print(f"refused for the planted reason by every method, of {N_REFUSAL_LOGS} logs each: {refused}")
    ope_report.print_bandit(estimates)
    sets = {population.name: tallies for population, tallies in zip(answers, measured[:-1], strict=True)}
    print(json.dumps({**ope_report.summarise_all(sets, measured[-1], estimates), "refused": refused}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
