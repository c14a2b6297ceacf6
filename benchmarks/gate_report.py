"""What `benchmarks.gate` found: errors and power of each cell, tables for people, and the figures of the JSON."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from benchmarks import canaries
from benchmarks.canaries import Cell
from benchmarks.harm_ladder import Ended
from models import intervals

BESIDE = ("mixture_ips", "arm_means", "arm_means_peeked")
UPPER_CONFIDENCE = 0.99


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
        return intervals.rate_limit(self.n_false, self.n_runs, UPPER_CONFIDENCE)


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


def error_table(errors: Sequence[Errors]) -> Table:
    """Return, per way of drawing and share of the canary, the worst of its cells."""
    table = Table(title="A/A: false promotions, the worst cell", caption=_versions())
    for heading in ("drawn by", "canary", "worst %", "99 % upper", "mean %", "runs per cell"):
        table.add_column(heading)
    for n_keys, canary in dict.fromkeys((e.cell.n_keys, e.cell.canary) for e in errors):
        group = [e for e in errors if (e.cell.n_keys, e.cell.canary) == (n_keys, canary)]
        worst = max(group, key=lambda e: e.rate)
        numbers = (f"{100 * worst.rate:.1f}", f"{100 * worst.upper:.1f}")
        mean = f"{100 * np.mean([e.rate for e in group]):.2f}"
        table.add_row(f"{n_keys} keys" if n_keys else "event", f"{canary:.0%}", *numbers, mean, str(worst.n_runs))
    return table


def power_table(powers: Sequence[Power]) -> Table:
    """Return, per cell, what each method found, and after how many decisions in the median."""
    methods = ("dr", *BESIDE)
    table = Table(title=f"Gains found within {canaries.HORIZON:,} decisions, % (median decisions)", caption=_versions())
    for heading in ("canary", "disagreement", "success", "lift", *methods):
        table.add_column(heading)
    for power in powers:
        cell = power.cell
        said = [f"{100 * power.found(method):.0f} ({power.median(method) or '-'})" for method in methods]
        table.add_row(f"{cell.canary:.0%}", f"{cell.disagreement:.0%}", f"{cell.success:g}", f"{cell.lift:+.2f}", *said)
    return table


def keyed_table(powers: Sequence[Power]) -> Table:
    """Return, per number of sticky keys and share, the cell in which gains are found most often."""
    table = Table(title="Gains found by sticky canaries, the best cell", caption=_versions())
    for heading in ("keys", "canary", "disagreement", "success", "lift", "found %", "median decisions", "runs"):
        table.add_column(heading)
    for n_keys, canary in dict.fromkeys((power.cell.n_keys, power.cell.canary) for power in powers):
        group = [power for power in powers if (power.cell.n_keys, power.cell.canary) == (n_keys, canary)]
        best = max(group, key=lambda power: power.found("dr"))
        cell, found = best.cell, f"{100 * best.found('dr'):.0f}"
        numbers = (f"{cell.disagreement:.0%}", f"{cell.success:g}", f"{cell.lift:+.2f}", found)
        table.add_row(
            str(n_keys), f"{canary:.0%}", *numbers, str(best.median("dr") or "-"), str(len(best.needed["dr"]))
        )
    return table


def hard_table(hard: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return, per world that is against the canary, how often an equal challenger is promoted."""
    table = Table(title="Promoted in worlds that are against a canary", caption=_versions())
    for heading in ("world", "by the product %", "99 % upper", "unguarded %", "runs"):
        table.add_column(heading)
    for name, found in hard.items():
        rates = (f"{100 * found[key]:.0f}" for key in ("promoted", "upper_99", "promoted_unguarded"))
        table.add_row(name.replace("_", " "), *rates, str(found["runs"]))
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
        "n_keys": cell.n_keys,
        "found": round(power.found("dr"), 4),
        "median_decisions": power.median("dr"),
        "runs": len(power.needed["dr"]),
        "found_beside": {name: round(power.found(name), 4) for name in BESIDE if name in power.needed},
    }


def summarise(errors: Sequence[Errors], powers: Sequence[Power], ends: Sequence[Ended]) -> dict[str, Any]:
    """Return the figures of the JSON; ``mean_beside`` is how often what stands beside the product errs on equal policies."""
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
