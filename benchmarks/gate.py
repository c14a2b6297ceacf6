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
import sys
from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks import canaries, gate_report, hard_canaries, harm_ladder
from benchmarks.canaries import Cell
from benchmarks.gate_report import Errors, Power

CANARIES, DISAGREEMENTS, SUCCESSES = (0.01, 0.1, 0.5), (0.02, 0.1, 0.5), (0.5, 0.85, 0.98)
KEYS = (50, 200, 1_000)
LIFTS = (0.02, 0.05, 0.1)
HARM_SUCCESS, HARM_LIFT = 0.85, -0.1
MAX_POWER_RUNS, MAX_KEYED_RUNS, MAX_HARD_RUNS = 200, 40, 50
COMPARED_SHARE = 0.2  # of the runs of power: means of arms need every decision, and cost most


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
        n_false = sum(math.isfinite(canaries.play_keyed(cell, rng).proven_at()) for _ in range(n_runs))
    else:
        n_false = sum(math.isfinite(canaries.doubly_robust(cell, rng)) for _ in range(n_runs))
    return Errors(cell=cell, n_false=n_false, n_runs=n_runs)


def measure_power(cell: Cell, n_runs: int, rng: np.random.Generator) -> Power:
    """Return how soon the gain is found, by the product's sequence and, per event and in fewer runs, by what it stands beside."""
    if cell.n_keys:
        return Power(cell=cell, needed={"dr": [canaries.play_keyed(cell, rng).proven_at() for _ in range(n_runs)]})
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gate", description=__doc__)
    parser.add_argument("--runs", type=int, default=100, help="per A/A cell and of harm; 2000 takes some half an hour")
    parser.add_argument(
        "--keys", type=int, nargs="*", default=KEYS, help="numbers of sticky keys; none: per event alone"
    )
    parser.add_argument("--quick", action="store_true", help="5 runs on a corner of the grid: seconds")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    n_runs, rng = 5 if given.quick else given.runs, np.random.default_rng(given.seed)
    equal, better = grid((0, *given.keys), (0.0,)), grid((0,), (0.0, *LIFTS))
    # The means of the arms do not know of disagreements: without a lift, one rate of them is enough.
    better = [cell for cell in better if cell.lift or cell.disagreement == DISAGREEMENTS[1]]
    sticky = grid(given.keys, LIFTS)
    if given.quick:
        sticky = sticky[::40]
        equal, better = equal[::12], [cell for cell in better if cell.canary == cell.disagreement == DISAGREEMENTS[1]]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        errors = [measure_errors(cell, n_runs, rng) for cell in progress.track(equal, description="equal")]
        n_power = min(n_runs, MAX_POWER_RUNS)
        powers = [measure_power(cell, n_power, rng) for cell in progress.track(better, description="better")]
        n_keyed = min(n_runs, MAX_KEYED_RUNS)
        keyed = [measure_power(cell, n_keyed, rng) for cell in progress.track(sticky, description="better, sticky")]
        ends = [
            harm_ladder.climb(HARM_SUCCESS, HARM_LIFT, rng)
            for _ in progress.track(range(n_runs), description="harmful")
        ]
        n_hard = 1 if given.quick else min(n_runs, MAX_HARD_RUNS)
        hard = {
            name: hard_canaries.measure(name, n_hard, rng)
            for name in progress.track(hard_canaries.WORLDS, description="hard worlds")
        }
    console = Console(width=130)
    console.print(gate_report.error_table(errors))
    console.print(gate_report.power_table(powers))
    console.print(gate_report.hard_table(hard))
    if keyed:
        console.print(gate_report.keyed_table(keyed))
    summary = {**gate_report.summarise(errors, [*powers, *keyed], ends), "hard": hard}
    print(f"harmful challenger, {HARM_LIFT:+.2f} on every event, {n_runs} runs: {summary['harm']}")
    print(json.dumps(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
