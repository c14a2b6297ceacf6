"""ASlib's scenarios: instances whose every solver was really run, read as events that any destination could have served."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.vector import CategoryColumn
from models.examples import Examples

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

OUTCOMES = ".outcomes.parquet"
FEATURES = ".features.parquet"
PENALTY = 10.0  # PAR10: an unsolved instance costs ten times the cutoff
MS_PER_SECOND = 1_000.0
_NO_FEATURES = ("instance_id", "scenario", "fold", "feature_cost_s")


class ScenarioError(ValueError):
    """Files that are no scenario: names the file, the column and what is wrong with it."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """n instances, each run by k solvers until it was solved or ``cutoff_s`` had passed.

    ``runtime_s`` float64[n, k] is the cutoff where unsolved, ``solved`` bool[n, k]; ``features`` float64[n, m], NaN where
    a feature step failed; ``feature_cost_s`` float64[n] is what computing them takes; ``fold`` int64[n] the official one.
    """

    name: str
    solvers: tuple[str, ...]
    feature_names: tuple[str, ...]
    cutoff_s: float
    runtime_s: Floats
    solved: Mask
    features: Floats
    feature_cost_s: Floats
    fold: Integers

    @property
    def par10_s(self) -> Floats:
        """Seconds of every run, those of an unsolved one ten times the cutoff: float64[n, k], no features paid for."""
        return np.where(self.solved, self.runtime_s, PENALTY * self.cutoff_s)

    @property
    def solvable(self) -> Mask:
        """Which instances some solver solved, bool[n]: the others say nothing of a choice."""
        return np.asarray(self.solved.any(axis=1))

    def examples(
        self, numbers: Floats, row: Integers, solver: Integers, propensity: float = 1.0, event: Integers | None = None
    ) -> Examples:
        """Return the runs of ``solver`` on the instances ``row`` as a router's examples; ``numbers`` float64[n, m] are read.

        A run that was stopped took the cutoff, at the least. Runs are of one ``event`` where they were made for one decision.
        """
        solved = self.solved[row, solver]
        return Examples(
            number_names=self.feature_names,
            category_names=("destination",),
            numbers=numbers[row],
            categories=[CategoryColumn(solver, self.solvers)],
            success=solved.astype(np.float64),
            latency_ms=self.runtime_s[row, solver] * MS_PER_SECOND,
            cost_usd=np.full(len(row), np.nan),
            propensity=np.full(len(row), propensity),
            timed_out=~solved,
            destination_column="destination",
            event=event,
        )


def charge(scenario: Scenario, chosen: Integers) -> Floats:
    """Return the PAR10 seconds of running solver ``chosen[i]`` on instance i after its features were computed, float64[n].

    Where both together take longer than the cutoff, the instance counts as unsolved.
    """
    at = np.arange(len(chosen))
    seconds = scenario.runtime_s[at, chosen] + scenario.feature_cost_s
    in_time = scenario.solved[at, chosen] & (seconds <= scenario.cutoff_s)
    return np.where(in_time, seconds, PENALTY * scenario.cutoff_s)


def best_single(scenario: Scenario) -> Integers:
    """Return, for every instance, the solver of least mean PAR10 on the other folds, int64[n]."""
    best = np.empty(len(scenario.fold), np.int64)
    for fold in np.unique(scenario.fold):
        best[scenario.fold == fold] = scenario.par10_s[scenario.fold != fold].mean(axis=0).argmin()
    return best


def fold_means(scenario: Scenario, seconds: Floats) -> Floats:
    """Return the mean of ``seconds`` (float64[n]) over the solvable instances of each fold, float64[n_folds]."""
    folds = (scenario.fold == fold for fold in np.unique(scenario.fold))
    return np.array([seconds[fold & scenario.solvable].mean() for fold in folds if (fold & scenario.solvable).any()])


def normalised(scenario: Scenario, seconds: Floats) -> Floats:
    """Return each fold's part of nPAR10, float64[n_folds]; their mean is (PAR10 - VBS) / (SBS - VBS) of the mean PAR10s.

    0 is the best solver of every instance (the virtual best, VBS), 1 the single best of the training folds (SBS); both
    without features to pay for. Source: Bischl et al., "ASlib: a benchmark library for algorithm selection", 2016; means
    over folds before normalising as Tornede et al., "Run2Survive", 2020.
    """
    at = np.arange(len(scenario.fold))
    virtual = fold_means(scenario, scenario.par10_s.min(axis=1))
    single = fold_means(scenario, scenario.par10_s[at, best_single(scenario)])
    return np.asarray((fold_means(scenario, seconds) - virtual) / (single.mean() - virtual.mean()))


def find(data: Path) -> list[str]:
    """Return the names of the scenarios in ``data`` that have both files, sorted."""
    names = sorted(path.name.removesuffix(OUTCOMES) for path in data.glob(f"*{OUTCOMES}"))
    return [name for name in names if (data / f"{name}{FEATURES}").exists()]


def read(data: Path, name: str) -> Scenario:
    """Read a scenario. Features that never vary, or were never computed, are left out.

    Raises
    ------
    ScenarioError
        If a run is missing, or the two files do not name the same instances.
    """
    outcomes = pd.read_parquet(data / f"{name}{OUTCOMES}").sort_values(["instance_id", "algorithm"])
    table = pd.read_parquet(data / f"{name}{FEATURES}").sort_values("instance_id").reset_index(drop=True)
    solvers = tuple(sorted(outcomes["algorithm"].unique()))
    ids = outcomes["instance_id"].to_numpy()[:: len(solvers)]
    runs = pd.MultiIndex.from_product([ids, solvers])
    if not runs.equals(pd.MultiIndex.from_frame(outcomes[["instance_id", "algorithm"]], names=[None, None])):
        raise ScenarioError(
            f"{name}{OUTCOMES}: instance_id, algorithm: every solver must have one run of every instance"
        )
    if ids.tolist() != table["instance_id"].tolist():
        raise ScenarioError(f"{name}{FEATURES}: instance_id: must hold each instance of {name}{OUTCOMES} once")
    shape = (len(ids), len(solvers))
    solved, cutoff_s = outcomes["solved"].to_numpy(bool), find_cutoff(outcomes)
    runtime_s = np.where(solved, outcomes["runtime_s"].to_numpy(np.float64).clip(max=cutoff_s), cutoff_s)
    feature_names, features = _read_features(table)
    cost = table["feature_cost_s"] if "feature_cost_s" in table else np.zeros(len(table))
    return Scenario(
        name=name,
        solvers=solvers,
        feature_names=feature_names,
        cutoff_s=cutoff_s,
        runtime_s=runtime_s.reshape(shape),
        solved=solved.reshape(shape),
        features=features,
        feature_cost_s=np.nan_to_num(np.asarray(cost, np.float64)),
        fold=outcomes["fold"].to_numpy(np.int64)[:: len(solvers)],
    )


def find_cutoff(outcomes: pd.DataFrame) -> float:
    """Return the seconds after which a run was stopped: a tenth of what an unsolved one counts, else the longest run."""
    unsolved = outcomes[~outcomes["solved"].astype(bool)]
    return float((unsolved["par10_s"] / PENALTY).max() if len(unsolved) else outcomes["runtime_s"].max())


def _read_features(table: pd.DataFrame) -> tuple[tuple[str, ...], Floats]:
    columns = [column for column in table if column not in _NO_FEATURES]
    numbers = table[columns].to_numpy(np.float64)
    numbers[np.isinf(numbers)] = np.nan
    varies = [bool(np.unique(column[~np.isnan(column)]).size > 1) for column in numbers.T]
    return tuple(str(name) for name, kept in zip(columns, varies, strict=True) if kept), numbers[:, varies]


def impute(learned: Floats, numbers: Floats) -> Floats:
    """Return ``numbers`` with what is missing replaced by the column's median in ``learned``, 0 where that has none."""
    known = ~np.isnan(learned).all(axis=0)
    median = np.zeros(learned.shape[1])
    median[known] = np.nanmedian(learned[:, known], axis=0)
    return np.where(np.isnan(numbers), median, numbers)


def revealed(n_instances: int, n_solvers: int, passes: int, seed: int) -> tuple[Integers, Integers]:
    """Return instances and the solver drawn evenly for each, int64[passes * n_instances]; every pass draws anew."""
    row = np.tile(np.arange(n_instances), passes)
    return row, np.random.default_rng(seed).integers(0, n_solvers, len(row))


def every_run(n_instances: int, n_solvers: int) -> tuple[Integers, Integers]:
    """Return every pair of instance and solver, int64[n_instances * n_solvers]."""
    return np.repeat(np.arange(n_instances), n_solvers), np.tile(np.arange(n_solvers), n_instances)
