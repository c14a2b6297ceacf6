"""Measures the canary's gate on simulated canaries: ``python -m benchmarks.gate``; its last line is JSON.

Error: challenger and champion choose differently and are worth the same. Drawn per event, a sequence that proves a gain
at *any* decision counts as a false promotion, which no schedule of looks can exceed; by sticky key, the canary is looked
at 60 times, keys half-way. Power: the challenger earns more where the two differ; ``found`` within 50,000 decisions,
beside the same sequence without a reward model (mixture IPS), the same sequence on the means of the arms, and a z-test on
these that is peeked at 60 times. Harm: a challenger worse on all events climbs the ladder under the product's own judge.
"""

import argparse
import itertools
import json
import math
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy.special import betaincinv

from benchmarks import canaries, harm_ladder
from benchmarks.canaries import Cell
from benchmarks.harm_ladder import Ended

CANARIES, DISAGREEMENTS, SUCCESSES = (0.01, 0.1, 0.5), (0.02, 0.1, 0.5), (0.5, 0.85, 0.98)
KEYS = (50, 200, 1_000)
LIFTS = (0.02, 0.05, 0.1)
HARM_SUCCESS, HARM_LIFT = 0.85, -0.1
BESIDE = ("mixture_ips", "arm_means", "arm_means_peeked")
UPPER_CONFIDENCE = 0.99
COMPARED_SHARE = 0.2  # of the runs: means of arms need every decision, and cost most


@dataclass(frozen=True, kw_only=True)
class Errors:
    """In how many runs of an A/A cell a gain was found that is none."""

    cell: Cell
    n_false: int
    n_runs: int

    @property
    def rate(self) -> float:
        """The share of runs."""
        return self.n_false / self.n_runs

    @property
    def upper(self) -> float:
        """The exact one-sided 99 % bound of the rate (Clopper and Pearson, 1934)."""
        if self.n_false == self.n_runs:
            return 1.0
        return float(betaincinv(self.n_false + 1, self.n_runs - self.n_false, UPPER_CONFIDENCE))


@dataclass(frozen=True, kw_only=True)
class Power:
    """Of one cell, the decisions that each method needed, run by run; infinite where it found nothing."""

    cell: Cell
    needed: dict[str, list[float]]

    def found(self, method: str) -> float:
        """Return the share of runs in which the gain was found."""
        return float(np.isfinite(self.needed[method]).mean())

    def median(self, method: str) -> int | None:
        """Return the median of decisions needed over all runs; None if fewer than half found the gain."""
        middle = float(np.median(self.needed[method]))
        return round(middle) if np.isfinite(middle) else None


def grid(keys: Sequence[int], lifts: Sequence[float]) -> list[Cell]:
    """Return every possible cell of the grid for the numbers of ``keys`` (0 is per event) and the ``lifts``."""
    cells = [
        Cell(canary=canary, disagreement=disagreement, success=success, lift=lift, n_keys=n_keys)
        for n_keys, canary, disagreement, success, lift in itertools.product(
            keys, CANARIES, DISAGREEMENTS, SUCCESSES, lifts
        )
    ]
    return [cell for cell in cells if cell.is_possible]


def measure_errors(cell: Cell, n_runs: int, rng: np.random.Generator) -> Errors:
    """Return how often an equal challenger is promoted."""
    if cell.n_keys:
        n_false = sum(canaries.play_keyed(cell, rng).errs() for _ in range(n_runs))
    else:
        n_false = sum(math.isfinite(canaries.doubly_robust(cell, rng)) for _ in range(n_runs))
    return Errors(cell=cell, n_false=n_false, n_runs=n_runs)


def measure_power(cell: Cell, n_runs: int, rng: np.random.Generator) -> Power:
    """Return how soon the gain is found, by the product's sequence and, in fewer runs, by what it stands beside."""
    n_compared = max(2, int(n_runs * COMPARED_SHARE))
    means = [canaries.arm_means(cell, rng) for _ in range(n_compared)]
    return Power(
        cell=cell,
        needed={
            "dr": [canaries.doubly_robust(cell, rng) for _ in range(n_runs)],
            "mixture_ips": [canaries.mixture_ips(cell, rng) for _ in range(n_compared)],
            "arm_means": [sequence for sequence, _ in means],
            "arm_means_peeked": [peeked for _, peeked in means],
        },
    )


def _error_table(errors: Sequence[Errors]) -> Table:
    table = Table(title="A/A: false promotions, the worst cell of nine", caption=_versions())
    for heading in ("drawn by", "canary", "worst %", "99 % upper", "mean %", "runs per cell"):
        table.add_column(heading)
    for n_keys, canary in itertools.product(dict.fromkeys(e.cell.n_keys for e in errors), CANARIES):
        group = [e for e in errors if (e.cell.n_keys, e.cell.canary) == (n_keys, canary)]
        if not group:
            continue
        worst = max(group, key=lambda e: e.rate)
        numbers = (f"{100 * worst.rate:.1f}", f"{100 * worst.upper:.1f}")
        mean = f"{100 * np.mean([e.rate for e in group]):.2f}"
        table.add_row(f"{n_keys} keys" if n_keys else "event", f"{canary:.0%}", *numbers, mean, str(worst.n_runs))
    return table


def _power_table(powers: Sequence[Power]) -> Table:
    methods = ("dr", *BESIDE)
    table = Table(title=f"Gains found within {canaries.HORIZON:,} decisions, % (median decisions)", caption=_versions())
    for heading in ("canary", "disagreement", "success", "lift", *methods):
        table.add_column(heading)
    for power in powers:
        cell = power.cell
        said = [f"{100 * power.found(method):.0f} ({power.median(method) or '-'})" for method in methods]
        table.add_row(f"{cell.canary:.0%}", f"{cell.disagreement:.0%}", f"{cell.success:g}", f"{cell.lift:+.2f}", *said)
    return table


def _versions() -> str:
    return f"Python {platform.python_version()}, numpy {np.__version__}"


def _summarise_power(power: Power) -> dict[str, Any]:
    """Return the product's figures of one cell, and the share found by each method it stands beside."""
    cell = power.cell
    return {
        "canary": cell.canary,
        "disagreement": cell.disagreement,
        "success": cell.success,
        "lift": cell.lift,
        "found": round(power.found("dr"), 4),
        "median_decisions": power.median("dr"),
        "found_beside": {name: round(power.found(name), 4) for name in BESIDE},
    }


def _summarise(errors: Sequence[Errors], powers: Sequence[Power], ends: Sequence[Ended]) -> dict[str, Any]:
    worst, equal = max(errors, key=lambda e: e.rate), [power for power in powers if not power.cell.lift]
    exposures = [end.exposure_share for end in ends]
    return {
        "aa": {
            "worst_false_promotion": round(worst.rate, 5),
            "worst_upper_99": round(worst.upper, 5),
            "runs_per_cell": worst.n_runs,
            "cells": len(errors),
            "mean_beside": {name: round(float(np.mean([p.found(name) for p in equal])), 4) for name in BESIDE},
        },
        "power": [_summarise_power(power) for power in powers if power.cell.lift > 0.0],
        "harm": {
            "stopped": round(float(np.mean([end.is_stopped for end in ends])), 4),
            "exposure": round(float(np.mean(exposures)), 5),
            "exposure_worst": round(max(exposures), 5),
            "median_decisions": round(float(np.median([end.n_decisions for end in ends]))),
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument(
        "--runs", type=int, default=100, help="per cell; 2000 for the full statement, which takes hours"
    )
    parser.add_argument("--quick", action="store_true", help="5 runs on a corner of the grid: seconds")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    n_runs, rng = 5 if given.quick else given.runs, np.random.default_rng(given.seed)
    equal, better = grid((0, *KEYS), (0.0,)), grid((0,), (0.0, *LIFTS))
    # The means of the arms do not know of disagreements: without a lift, one rate of them is enough.
    better = [cell for cell in better if cell.lift or cell.disagreement == DISAGREEMENTS[1]]
    if given.quick:
        equal, better = equal[::12], [cell for cell in better if cell.canary == cell.disagreement == DISAGREEMENTS[1]]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        errors = [measure_errors(cell, n_runs, rng) for cell in progress.track(equal, description="equal")]
        powers = [measure_power(cell, n_runs, rng) for cell in progress.track(better, description="better")]
        ends = [
            harm_ladder.climb(HARM_SUCCESS, HARM_LIFT, rng)
            for _ in progress.track(range(n_runs), description="harmful")
        ]
    console = Console(width=130)
    console.print(_error_table(errors))
    console.print(_power_table(powers))
    summary = _summarise(errors, powers, ends)
    print(f"harmful challenger, {HARM_LIFT:+.2f} on every event, {n_runs} runs: {summary['harm']}")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
