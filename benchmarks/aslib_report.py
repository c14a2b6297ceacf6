"""What choosing solvers came to: nPAR10 with intervals over folds, who missed what, and the published results beside it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import sklearn
from numpy.typing import NDArray
from rich.table import Table
from scipy import stats

from benchmarks import aslib_scenarios
from benchmarks.aslib_scenarios import Scenario

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CONFIDENCE = 0.95
PUBLISHED_FOREST = "PerAlgorithmRegressor"
FOREST_SETTING = "Runtime"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What was measured on one scenario: by way of choosing, each fold's part of nPAR10, and which instances were missed.

    ``missed`` bool[n]: some solver solves the instance, the chosen one did not in time.
    """

    scenario: Scenario
    folds: Mapping[str, Floats]
    missed: Mapping[str, NDArray[np.bool_]]
    seconds: float

    @classmethod
    def of(cls, scenario: Scenario, chosen: Mapping[str, Integers], seconds: float) -> "Result":
        """Return what ``chosen`` (solver by instance) comes to on ``scenario``."""
        charged = {name: aslib_scenarios.charge(scenario, each) for name, each in chosen.items()}
        return cls(
            scenario=scenario,
            folds={name: aslib_scenarios.normalised(scenario, each) for name, each in charged.items()},
            missed={name: scenario.solvable & (each > scenario.cutoff_s) for name, each in charged.items()},
            seconds=seconds,
        )

    def npar10(self, name: str) -> float:
        """Return nPAR10 of one way of choosing."""
        return float(self.folds[name].mean())

    @property
    def ratio(self) -> float:
        """The router's nPAR10 by the forest's."""
        return self.npar10("router") / self.npar10("forest")

    @property
    def difference(self) -> tuple[float, float, float]:
        """The router's nPAR10 less the forest's, and its 95 % interval over folds: paired, by Student's t."""
        paired = self.folds["router"] - self.folds["forest"]
        if len(paired) < 2 or not paired.std():  # noqa: PLR2004 - no spread, no interval
            return float(paired.mean()), float("nan"), float("nan")
        found = stats.ttest_1samp(paired, 0.0).confidence_interval(CONFIDENCE)
        return float(paired.mean()), float(found.low), float(found.high)

    @property
    def apart(self) -> tuple[int, int]:
        """How many instances the router alone missed, and how many the forest alone."""
        router, forest = self.missed["router"], self.missed["forest"]
        return int((router & ~forest).sum()), int((forest & ~router).sum())


def read_published(path: Path) -> pd.DataFrame:
    """Return the published results (scenario, method, setting, nPAR10); none if the file is absent."""
    return pd.read_csv(path) if path.exists() else pd.DataFrame({"scenario": [], "method": [], "setting": []})


def best_published(published: pd.DataFrame, name: str) -> tuple[str, float] | None:
    """Return the published method of least nPAR10 on a scenario, with its setting."""
    found = published[published["scenario"] == name]
    if found.empty:
        return None
    best = found.sort_values("nPAR10").to_dict("records")[0]
    return f"{best['method']}, {best['setting']}", float(best["nPAR10"])


def published_forest(published: pd.DataFrame, name: str) -> float | None:
    """Return the published nPAR10 of a forest per solver on clipped runtimes."""
    is_forest = (published["method"] == PUBLISHED_FOREST) & (published["setting"] == FOREST_SETTING)
    found = published[(published["scenario"] == name) & is_forest]
    return None if found.empty else float(found["nPAR10"].iloc[0])


def tabulate(results: Sequence[Result], published: pd.DataFrame) -> Table:
    """Return the table of all scenarios."""
    table = Table(title="nPAR10 on the official folds: 0 the best solver of each instance, 1 the single best")
    table.caption = (
        f"{versions()}; missed: solvable instances not solved in time, by the router alone / the forest alone"
    )
    headings = ("scenario", "instances", "solvers", "router", "forest", "ratio", "difference, 95 %", "bandit", "missed")
    for heading in (*headings, "published forest", "best published", "s"):
        table.add_column(heading)
    for result in results:
        table.add_row(*_cells(result, published))
    return table


def _cells(result: Result, published: pd.DataFrame) -> list[str]:
    scenario, (mean, low, high), (ours, theirs) = result.scenario, result.difference, result.apart
    forest, best = published_forest(published, scenario.name), best_published(published, scenario.name)
    return [
        scenario.name,
        str(int(scenario.solvable.sum())),
        str(len(scenario.solvers)),
        *(f"{result.npar10(name):.3f}" for name in ("router", "forest")),
        f"{result.ratio:.2f}",
        f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]",
        f"{result.npar10('bandit'):.3f}",
        f"{ours} / {theirs}",
        "" if forest is None else f"{forest:.3f}",
        "" if best is None else f"{best[1]:.3f} {best[0]}",
        f"{result.seconds:.0f}",
    ]


def summarise(results: Sequence[Result], published: pd.DataFrame) -> dict[str, object]:
    """Return the final object: every scenario, the mean ratio to the forest, and the ratio of the means."""
    scenarios = {result.scenario.name: _summary(result, published) for result in results}
    router, forest = (np.mean([result.npar10(name) for result in results]) for name in ("router", "forest"))
    return {
        "scenarios": scenarios,
        "mean_ratio_to_forest": round(float(np.mean([result.ratio for result in results])), 4),
        "ratio_of_means": round(float(router / forest), 4),
        "versions": versions(),
    }


def _summary(result: Result, published: pd.DataFrame) -> dict[str, object]:
    scenario, best = result.scenario, best_published(published, result.scenario.name)
    return {
        "npar10": round(result.npar10("router"), 4),
        "npar10_forest": round(result.npar10("forest"), 4),
        "npar10_bandit": round(result.npar10("bandit"), 4),
        "difference": [None if np.isnan(each) else round(each, 4) for each in result.difference],
        "missed_by_router_alone": result.apart[0],
        "missed_by_forest_alone": result.apart[1],
        "npar10_published_forest": published_forest(published, scenario.name),
        "npar10_best_published": None if best is None else best[1],
        "n_instances": len(scenario.fold),
        "n_solvable": int(scenario.solvable.sum()),
        "n_solvers": len(scenario.solvers),
    }


def versions() -> str:
    """Return the versions that the figures belong to."""
    return (
        f"Python {platform.python_version()}, numpy {np.__version__}, LightGBM {lightgbm.__version__}, "
        f"scikit-learn {sklearn.__version__}"
    )
