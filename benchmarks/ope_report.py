"""What `benchmarks.ope` found: the tally of each method's estimates, a table for people, and the figures of the JSON."""

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.table import Table

from benchmarks.ope_worlds import Population, Published
from models.anytime import AnytimeInterval
from models.evaluation import Estimate, Refusal
from models.intervals import Interval

METHODS = ("dr", "ips", "snips", "known")
Tallies = Mapping[str, "Tally"]  # by method
Bandit = Sequence[tuple[Published, Mapping[str, Estimate | Refusal]]]


@dataclass(kw_only=True)
class Tally:
    """What the estimates of one method came to: an error and a width each, in units of the reward; refusals by reason."""

    errors: list[float] = field(default_factory=list)
    widths: list[float] = field(default_factory=list)
    n_held: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def add(self, estimate: Estimate | Refusal | Interval | AnytimeInterval, truth: float) -> None:
        """Count one estimate or refusal; anytime limits estimate nothing, they only hold."""
        if isinstance(estimate, Refusal):
            self.refused[estimate.reason] += 1
            return
        if not isinstance(estimate, AnytimeInterval):
            self.errors.append(estimate.value - truth)
        self.widths.append(estimate.high - estimate.low)
        self.n_held += estimate.low <= truth <= estimate.high

    @property
    def coverage(self) -> float | None:
        """Which share of the intervals held the truth; None without any."""
        return self.n_held / len(self.widths) if self.widths else None

    @property
    def rmse(self) -> float | None:
        """The root of the mean squared error; None without any estimate."""
        return float(np.sqrt(np.mean(np.square(self.errors)))) if self.errors else None

    @property
    def width(self) -> float | None:
        """The mean width of the intervals; None without any."""
        return float(np.mean(self.widths)) if self.widths else None


def pool(tallies: Sequence[Tallies]) -> dict[str, Tally]:
    """Return the tallies of several data sets as one."""
    return {
        method: Tally(
            errors=[error for tally in tallies for error in tally[method].errors],
            widths=[width for tally in tallies for width in tally[method].widths],
            n_held=sum(tally[method].n_held for tally in tallies),
            refused=sum((tally[method].refused for tally in tallies), Counter[str]()),
        )
        for method in METHODS
    }


def table(populations: Sequence[Population], measured: Mapping[str, Tallies], seed: int) -> Table:
    """Return a row per data set and method."""
    table = Table(
        title=f"Off-policy estimates where the truth is known, seed {seed}",
        caption=f"Python {platform.python_version()}, numpy {np.__version__}; 95 % intervals; flights in minutes of reward",
    )
    for heading in ("data", "population", "log", "truth", "method", "coverage %", "width", "rmse", "logs", "refused"):
        table.add_column(heading)
    for population in populations:
        unit = "days" if population.name == "flights" else "events"
        about = (population.name, f"{len(population.cluster):,} events", f"{population.n_drawn:,} {unit}")
        for method, tally in measured[population.name].items():
            coverage = None if tally.coverage is None else 100 * tally.coverage
            numbers = _written(coverage, ".1f"), _written(tally.width, ".4f"), _written(tally.rmse, ".4f")
            refused = str(dict(tally.refused) or "-")
            table.add_row(*about, f"{population.true_value:.4f}", method, *numbers, str(len(tally.errors)), refused)
    return table


def _written(figure: float | None, form: str) -> str:
    return "-" if figure is None else format(figure, form)


def summarise(tallies: Tallies) -> dict[str, dict[str, float | int | None]]:
    """Return the figures of the JSON, method by method."""
    return {
        method: {
            "coverage": _rounded(tally.coverage, 4),
            "rmse": _rounded(tally.rmse, 5),
            "width": _rounded(tally.width, 5),
            "n_logs": len(tally.errors),
            "n_refused": tally.refused.total(),
        }
        for method, tally in tallies.items()
    }


def _rounded(figure: float | None, digits: int) -> float | None:
    return None if figure is None else round(figure, digits)


def print_bandit(bandit: Bandit) -> None:
    """Print a line per policy and method."""
    for case, estimates in bandit:
        print(f"Open Bandit, {case.name}; published {case.rate:.2%}:")
        for method, said in estimates.items():
            if isinstance(said, Refusal):
                print(f"  {method}: refused, {said.explanation}")
            else:
                print(
                    f"  {method}: {said.value:.3%} [{said.low:.3%}, {said.high:.3%}], {said.n_decisions:,} decisions, "
                    f"effective {said.effective_sample_size:.0f}, largest weight {said.max_weight:.0f}"
                )


def summarise_bandit(case: Published, estimates: Mapping[str, Estimate | Refusal]) -> dict[str, object]:
    """Return the figures of the JSON: DR's interval; of a refusal only that it covers nothing."""
    said = estimates["dr"]
    if isinstance(said, Refusal):
        return {"covers": False, "low": None, "high": None, "published": case.rate, "refused": said.reason}
    limits = {"low": round(said.low, 6), "high": round(said.high, 6)}
    return {"covers": said.low <= case.rate <= said.high, **limits, "published": case.rate}


def summarise_all(measured: Mapping[str, Tallies]) -> dict[str, object]:
    """Return the figures of the JSON: FrugalML's sets pooled and one by one, and the flights; what was not measured is left out."""
    sets = {name: tallies for name, tallies in measured.items() if name != "flights"}
    found: dict[str, object] = {}
    if sets:
        found |= {"frugalml": summarise(pool(list(sets.values())))}
        found |= {"frugalml_sets": {name: summarise(tallies) for name, tallies in sets.items()}}
    if "flights" in measured:
        found["flights"] = summarise(measured["flights"])
    return found
