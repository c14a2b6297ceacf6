"""What `benchmarks.ope` found: the tally of each method's estimates, a table for people, and the figures of the JSON."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from benchmarks.ope_worlds import Population
from models.evaluation import Estimate, Refusal
from models.intervals import Interval

METHODS = ("dr", "ips", "snips", "known")
# Saito, Aihara, Matsutani and Narita, Open Bandit Dataset and Pipeline, 2021, table 1: "all", random, 26 M rows.
PUBLISHED_UNIFORM_RATE = 0.0035


@dataclass(kw_only=True)
class Tally:
    """What the estimates of one method came to: one error per estimate, in units of the reward; refusals by reason."""

    errors: list[float] = field(default_factory=list)
    n_held: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, estimate: Estimate | Refusal | Interval, truth: float) -> None:
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


def table(populations: Sequence[Population], measured: Sequence[Mapping[str, Tally]], seed: int) -> Table:
    """Return a row per data set and method."""
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


def summarise(tallies: Mapping[str, Tally]) -> dict[str, dict[str, float | int]]:
    """Return the figures of the JSON, method by method."""
    return {
        method: {"coverage": round(tally.coverage, 4), "rmse": round(tally.rmse, 5), "n_logs": len(tally.errors)}
        for method, tally in tallies.items()
    }


def summarise_bandit(estimates: Mapping[str, Estimate | Refusal]) -> dict[str, object]:
    """Return the figures of the JSON: DR's interval; of a refusal only that it covers nothing."""
    said = estimates["dr"]
    if isinstance(said, Refusal):
        return {"covers": False, "low": None, "high": None, "published": PUBLISHED_UNIFORM_RATE, "refused": said.reason}
    covers = said.low <= PUBLISHED_UNIFORM_RATE <= said.high
    limits = {"low": round(said.low, 6), "high": round(said.high, 6)}
    return {"covers": covers, **limits, "published": PUBLISHED_UNIFORM_RATE}


def print_bandit(estimates: Mapping[str, Estimate | Refusal]) -> None:
    """Print a line per method."""
    print(f"Open Bandit, uniform policy from the Thompson sampling log; published {PUBLISHED_UNIFORM_RATE:.2%}:")
    for method, said in estimates.items():
        if isinstance(said, Refusal):
            print(f"  {method}: refused, {said.explanation}")
        else:
            print(
                f"  {method}: {said.value:.3%} [{said.low:.3%}, {said.high:.3%}], {said.n_decisions:,} decisions, "
                f"effective {said.effective_sample_size:.0f}, largest weight {said.max_weight:.0f}"
            )


def summarise_all(
    sets: Mapping[str, Mapping[str, Tally]], flights: Mapping[str, Tally], bandit: Mapping[str, Estimate | Refusal]
) -> dict[str, object]:
    """Return the figures of the JSON: FrugalML's ``sets`` pooled and one by one, the flights, Open Bandit."""
    return {
        "frugalml": summarise(pool(list(sets.values()))),
        "flights": summarise(flights),
        "open_bandit": summarise_bandit(bandit),
        "frugalml_sets": {name: summarise(tallies) for name, tallies in sets.items()},
    }
