"""Measures off-policy estimates where the truth is known: ``python -m benchmarks.ope``; its last line is JSON.

On each FrugalML data set and on the flights, many logs are drawn that reveal one outcome per event, and the value of one
fixed target policy is estimated from each by IPS, SNIPS and DR: how often the nominal 95 % interval holds the truth, how
large the error is. The reward model of DR is a ridge regression fitted on the log's other folds. Logs are drawn from a
population (with replacement; on the flights whole days), and the truth is the mean over that population. On Open Bandit
the uniform policy is estimated from what another policy logged, and held against the rate published for the full data.
"""

import argparse
import json
import platform
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import ope_worlds
from benchmarks.ope_worlds import Drawn, Population
from models import evaluation, logged
from models.evaluation import Estimate, Refusal
from models.logged import LoggedDecisions
from scenarios.flights.timetable import DataMissingError

Floats = NDArray[np.float64]

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NO_DATA = 2  # exit code
N_FOLDS = 5
N_EVENTS, N_DAYS = 5_000, 122  # of a log: as many days as the live months of the flights have
N_REFUSAL_LOGS = 20
# Saito, Aihara, Matsutani and Narita, Open Bandit Dataset and Pipeline, 2021, table 1: "all", random, 26 M rows.
PUBLISHED_UNIFORM_RATE = 0.0035
METHODS = ("dr", "ips", "snips")


@dataclass(kw_only=True)
class Tally:
    """What the estimates of one method came to: one error per estimate, in units of the reward; refusals by reason."""

    errors: list[float] = field(default_factory=list)
    n_held: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, estimate: Estimate | Refusal, truth: float) -> None:
        """Count one estimate or refusal."""
        if isinstance(estimate, Refusal):
            self.refused[estimate.reason] += 1
            return
        self.errors.append(estimate.value - truth)
        self.n_held += estimate.low <= truth <= estimate.high

    @property
    def coverage(self) -> float:
        """Which share of the intervals held the truth; NaN without any."""
        return self.n_held / len(self.errors) if self.errors else float("nan")

    @property
    def rmse(self) -> float:
        """The root of the mean squared error; NaN without any estimate."""
        return float(np.sqrt(np.mean(np.square(self.errors)))) if self.errors else float("nan")


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
    tallies = {method: Tally() for method in METHODS}
    for run in progress.track(range(n_logs), description=population.name):
        for method, estimate in estimate_all(ope_worlds.draw(population, rng), run).items():
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
    return estimate_all(Drawn(log=log, target=uniform, features=np.ones((n_rows, 1))), seed=0)


def pool(tallies: Sequence[Mapping[str, Tally]]) -> dict[str, Tally]:
    """Return the tallies of several data sets as one."""
    return {
        method: Tally(
            errors=[error for tally in tallies for error in tally[method].errors],
            n_held=sum(tally[method].n_held for tally in tallies),
            refused=sum((tally[method].refused for tally in tallies), Counter[str]()),
        )
        for method in METHODS
    }


def _table(populations: Sequence[Population], measured: Sequence[Mapping[str, Tally]], seed: int) -> Table:
    table = Table(
        title=f"Off-policy estimates where the truth is known, seed {seed}",
        caption=f"Python {platform.python_version()}, numpy {np.__version__}; 95 % intervals; flights in minutes of reward",
    )
    for heading in ("data", "population", "log", "truth", "method", "coverage %", "rmse", "logs", "refused"):
        table.add_column(heading)
    for population, tallies in zip(populations, measured, strict=True):
        unit = "days" if population.name == "flights" else "events"
        about = (population.name, f"{len(population.cluster):,} events", f"{population.n_drawn:,} {unit}")
        for method, tally in tallies.items():
            numbers = (f"{100 * tally.coverage:.1f}", f"{tally.rmse:.4f}", str(len(tally.errors)))
            table.add_row(*about, f"{population.true_value:.4f}", method, *numbers, str(dict(tally.refused) or "-"))
    return table


def _summarise(tallies: Mapping[str, Tally]) -> dict[str, dict[str, float | int]]:
    return {
        method: {"coverage": round(tally.coverage, 4), "rmse": round(tally.rmse, 5), "n_logs": len(tally.errors)}
        for method, tally in tallies.items()
    }


def _summarise_bandit(estimates: Mapping[str, Estimate | Refusal]) -> dict[str, object]:
    """Return DR's interval; of a refusal only that it covers nothing."""
    said = estimates["dr"]
    if isinstance(said, Refusal):
        return {"covers": False, "low": None, "high": None, "published": PUBLISHED_UNIFORM_RATE, "refused": said.reason}
    covers = said.low <= PUBLISHED_UNIFORM_RATE <= said.high
    limits = {"low": round(said.low, 6), "high": round(said.high, 6)}
    return {"covers": covers, **limits, "published": PUBLISHED_UNIFORM_RATE}


def _print_bandit(estimates: Mapping[str, Estimate | Refusal]) -> None:
    print(f"Open Bandit, uniform policy from the Thompson sampling log; published {PUBLISHED_UNIFORM_RATE:.2%}:")
    for method, said in estimates.items():
        if isinstance(said, Refusal):
            print(f"  {method}: refused, {said.explanation}")
        else:
            print(
                f"  {method}: {said.value:.3%} [{said.low:.3%}, {said.high:.3%}], {said.n_decisions:,} decisions, "
                f"effective {said.effective_sample_size:.0f}, largest weight {said.max_weight:.0f}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code: 2 if data are missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ope", description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder that holds frugalml/ and bandit/")
    parser.add_argument("--logs", type=int, default=500, help="logs per data set")
    parser.add_argument("--events", type=int, default=N_EVENTS, help="of a FrugalML log")
    parser.add_argument("--days", type=int, default=N_DAYS, help="of a flights log")
    parser.add_argument(
        "--quick", action="store_true", help="20 logs, two FrugalML sets, two months of flights: seconds"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    console, n_logs = Console(stderr=True), 20 if given.quick else given.logs
    # destinations.csv beside them is not read: every right answer is worth 1, whatever its price.
    files, bandit = sorted((given.data / "frugalml").glob("*.parquet")), given.data / "bandit" / "obd_all.parquet"
    if not files or not bandit.is_file():
        print(f"no frugalml/*.parquet or no bandit/obd_all.parquet in {given.data}", file=sys.stderr)
        return NO_DATA
    if given.quick:
        files = files[:2]
    try:
        with console.status("building the flights world"):
            flights = ope_worlds.flights_population(given.days, quick=given.quick)
    except DataMissingError as error:
        print(error, file=sys.stderr)
        return NO_DATA
    populations = [ope_worlds.frugalml_population(file, given.events, given.seed) for file in files] + [flights]
    with Progress(console=console, transient=True) as progress:
        measured = [measure(population, n_logs, given.seed, progress) for population in populations]
    refusals, estimates = measure_refusals(populations[0], given.seed), measure_bandit(bandit)
    Console(width=150).print(_table(populations, measured, given.seed))
    print(f"refused for the planted reason by every method, of {N_REFUSAL_LOGS} logs each: {refusals}")
    _print_bandit(estimates)
    sets = {p.name: _summarise(tallies) for p, tallies in zip(populations[:-1], measured[:-1], strict=True)}
    summary = {"frugalml": _summarise(pool(measured[:-1])), "flights": _summarise(measured[-1])}
    print(
        json.dumps({**summary, "open_bandit": _summarise_bandit(estimates), "frugalml_sets": sets, "refused": refusals})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
