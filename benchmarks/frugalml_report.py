"""What the runs on FrugalML come to, as a table to read and an object to keep."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from benchmarks.frugalml_measures import Run, mean_curve, mean_interval, welch_interval

Floats = NDArray[np.float64]
PLACES = 5
HEADINGS = (
    *("set (test)", "USD/10k", "spend", "full", "FixBase", "difference, 95 %", "bandit"),
    *("saving", "one call", "deployed: accuracy", "deployed: saving", "policies", "s"),
)


class Summary:
    """The final object, set by set."""

    def __init__(self) -> None:
        """Start with none."""
        self._sets: dict[str, Any] = {}
        self._bandit: dict[str, Any] = {}
        self._fixbase: dict[str, dict[str, float]] = {}

    def add(
        self,
        name: str,
        runs: Mapping[str, Sequence[Run]],
        budgets: Sequence[float],
        theirs: Mapping[float, Floats],
    ) -> None:
        """Add a set's runs in both settings."""
        full, bandit = runs["sets"], runs["bandit"]
        self._sets[name] = {
            "budgets": _summarise_budgets(full, budgets, theirs),
            "saving_at_best_single": _round(mean_curve([each.chosen for each in full]).saving()),
            "saving_one_call": _round(mean_curve([each.once for each in full]).saving()),
            "policies": [each.policy for each in full],
            "deployed": {
                what: dict(zip(("mean", "low", "high"), map(_round, deployed(full, what)), strict=True))
                for what in ("accuracy", "saving")
            },
        }
        self._bandit[name] = {
            "budgets": _summarise_budgets(bandit, budgets, theirs),
            "saving_one_call": _round(mean_curve([each.once for each in bandit]).saving()),
        }
        if theirs:
            self._fixbase[name] = {f"{usd:g}": _round(found.mean()) for usd, found in sorted(theirs.items())}

    def content(self) -> dict[str, Any]:
        """Return the object, with means over sets."""

        def mean(part: dict[str, Any], name: str) -> float:
            return _round(np.mean([each[name] for each in part.values()]))

        return {
            "sets": self._sets,
            "bandit": self._bandit,
            "fixbase": self._fixbase,
            "mean_saving": mean(self._sets, "saving_at_best_single"),
            "mean_saving_one_call": mean(self._sets, "saving_one_call"),
            "mean_saving_deployed": _round(
                np.mean([each["deployed"]["saving"]["mean"] for each in self._sets.values()])
            ),
            "mean_saving_bandit": mean(self._bandit, "saving_one_call"),
            "versions": versions(),
        }


def deployed(runs: Sequence[Run], what: str) -> tuple[float, float, float]:
    """Return mean, low and high of what the price chosen on the training half gave: ``accuracy`` gained or ``saving``."""
    return mean_interval([getattr(each.deployed, what) for each in runs if each.deployed is not None])


def start_table(seeds: Sequence[int]) -> Table:
    """Return the empty table."""
    title = (
        f"Budgets with one paid call, savings with up to three; seeds {', '.join(map(str, seeds))}, halves at random"
    )
    return Table(*HEADINGS, title=title, caption=versions())


def add_rows(
    table: Table,
    name: str,
    runs: Mapping[str, Sequence[Run]],
    budgets: Sequence[float],
    theirs: Mapping[float, Floats],
    seconds: float,
) -> None:
    """Add a set's rows to ``table``, one per budget; what belongs to the set stands in the first."""
    full, bandit = (np.array([each.budgets for each in runs[setting]]) for setting in ("sets", "bandit"))
    of_set = _savings_cells(runs["sets"], seconds)
    for at, usd in enumerate(budgets):
        ours, peer = full[:, at, 0], theirs.get(usd)
        cells = [name if not at else "", f"{usd:g}", f"{full[:, at, 1].mean():.3f}", f"{ours.mean():.4f}"]
        cells += ["", ""] if peer is None else [f"{peer.mean():.4f}", _differ(ours, peer)]
        table.add_row(*cells, f"{bandit[:, at, 0].mean():.4f}", *(of_set if not at else ()))


def versions() -> str:
    """Return the versions that the figures belong to."""
    return f"Python {platform.python_version()}, numpy {np.__version__}, LightGBM {lightgbm.__version__}"


def _savings_cells(runs: Sequence[Run], seconds: float) -> list[str]:
    curves = (mean_curve([each.chosen for each in runs]), mean_curve([each.once for each in runs]))
    savings = [f"{each.saving():.1%}" for each in curves]
    accuracy, saving = deployed(runs, "accuracy"), deployed(runs, "saving")
    cells = [f"{accuracy[0]:+.4f} [{accuracy[1]:+.4f}, {accuracy[2]:+.4f}]"]
    cells += [f"{saving[0]:.1%} [{saving[1]:.1%}, {saving[2]:.1%}]", " / ".join(sorted({each.policy for each in runs}))]
    return [*savings, *cells, f"{seconds:.0f}"]


def _differ(ours: Floats, theirs: Floats) -> str:
    low, high = welch_interval(ours, theirs)
    return f"{ours.mean() - theirs.mean():+.4f} [{low:+.4f}, {high:+.4f}]"


def _summarise_budgets(
    runs: Sequence[Run], budgets: Sequence[float], theirs: Mapping[float, Floats]
) -> dict[str, dict[str, Any]]:
    met = np.array([each.budgets for each in runs])
    summary = {}
    for at, usd in enumerate(budgets):
        found: dict[str, Any] = {"accuracy": _round(met[:, at, 0].mean()), "spend": _round(met[:, at, 1].mean())}
        if usd in theirs:
            found["difference_to_fixbase"] = [_round(end) for end in welch_interval(met[:, at, 0], theirs[usd])]
        summary[f"{usd:g}"] = found
    return summary


def _round(number: float | np.floating[Any]) -> float:
    return round(float(number), PLACES)
