"""The benchmark of solvers, on a made scenario whose best choices, costs and yardsticks can be told by hand."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import aslib, aslib_scenarios
from benchmarks.aslib_scenarios import Scenario, ScenarioError

CUTOFF_S = 100.0


def write_world(data: Path, n: int = 200, cost_s: float | None = 1.0) -> None:
    """Write a scenario in which "left" solves small instances in 10 s, "right" large ones in 10 s, and "slow" all in 60 s."""
    rng = np.random.default_rng(0)
    size = rng.uniform(size=n)
    ids = [f"i{number:03d}" for number in range(n)]
    fold = np.arange(n) % 10 + 1
    features = {
        "instance_id": ids,
        "scenario": "TOY",
        "size": np.where(rng.uniform(size=n) < 0.05, np.nan, size),
        "noise": rng.normal(size=n),
        "constant": 1.0,
        "never_computed": np.nan,
        "fold": fold,
    }
    if cost_s is not None:
        features["feature_cost_s"] = cost_s
    pd.DataFrame(features).to_parquet(data / "TOY.features.parquet")
    rows = []
    for solver, solved, seconds in (
        ("left", size < 0.5, 10.0),
        ("right", size >= 0.5, 10.0),
        ("slow", size >= 0.0, 60.0),
    ):
        runtime = np.where(solved, seconds, CUTOFF_S)
        par10 = np.where(solved, seconds, 10 * CUTOFF_S)
        columns = {"scenario": "TOY", "instance_id": ids, "algorithm": solver, "runtime_s": runtime, "par10_s": par10}
        rows.append(pd.DataFrame({**columns, "solved": solved, "runstatus": "ok", "fold": fold}))
    pd.concat(rows).sample(frac=1.0, random_state=0).to_parquet(data / "TOY.outcomes.parquet")


def made(runtime_s: list[list[float]], *, cost_s: float = 0.0, fold: list[int] | None = None) -> Scenario:
    runtime = np.array(runtime_s)
    n, k = runtime.shape
    return Scenario(
        name="made",
        solvers=tuple("abcdef"[:k]),
        feature_names=(),
        cutoff_s=CUTOFF_S,
        runtime_s=runtime,
        solved=runtime < CUTOFF_S,
        features=np.empty((n, 0)),
        feature_cost_s=np.full(n, cost_s),
        fold=np.array(fold or range(n)),
    )


def test_features_are_paid_for_and_may_cost_the_solution() -> None:
    scenario = made([[10.0, 98.0], [10.0, 100.0]], cost_s=5.0)
    assert aslib_scenarios.charge(scenario, np.array([0, 0])).tolist() == [15.0, 15.0]
    assert aslib_scenarios.charge(scenario, np.array([1, 1])).tolist() == [1_000.0, 1_000.0]


def test_the_best_of_each_instance_is_worth_0_and_the_single_best_of_the_other_folds_1() -> None:
    # The first solver is better but in fold 0, and is the single best of every training part.
    scenario = made([[100.0, 20.0], [10.0, 50.0], [30.0, 50.0], [20.0, 100.0], [20.0, 100.0]])
    assert aslib_scenarios.best_single(scenario).tolist() == [0, 0, 0, 0, 0]
    best = scenario.par10_s[np.arange(5), [1, 0, 0, 0, 0]]
    assert aslib_scenarios.normalised(scenario, best).mean() == pytest.approx(0.0)
    assert aslib_scenarios.normalised(scenario, scenario.par10_s[:, 0]).mean() == pytest.approx(1.0)
    # PAR10 means by hand: best 20 s, single best 216 s, always the second solver 424 s.
    assert aslib_scenarios.normalised(scenario, scenario.par10_s[:, 1]).mean() == pytest.approx((424 - 20) / (216 - 20))


def test_the_single_best_does_not_see_the_fold_that_it_is_judged_on() -> None:
    # Over all instances "a" is the better; without the first fold it is "b".
    scenario = made([[1.0, 100.0], [50.0, 10.0], [50.0, 10.0]])
    assert aslib_scenarios.best_single(scenario).tolist() == [1, 0, 0]


def test_instances_that_nobody_solved_do_not_count() -> None:
    scenario = made([[10.0, 20.0], [100.0, 100.0], [10.0, 20.0]], fold=[0, 0, 1])
    assert aslib_scenarios.fold_means(scenario, scenario.par10_s[:, 0]).tolist() == [10.0, 10.0]


def test_every_fold_weighs_the_same_before_normalising() -> None:
    scenario = made([[10.0, 20.0], [40.0, 50.0], [10.0, 20.0]], fold=[0, 0, 1])
    assert aslib_scenarios.fold_means(scenario, scenario.runtime_s[:, 0]).tolist() == [25.0, 10.0]


@pytest.mark.parametrize("cost_s", [1.0, None])
def test_a_scenario_is_read_without_what_tells_nothing(tmp_path: Path, cost_s: float | None) -> None:
    write_world(tmp_path, cost_s=cost_s)
    assert aslib_scenarios.find(tmp_path) == ["TOY"]
    scenario = aslib_scenarios.read(tmp_path, "TOY")
    assert scenario.solvers == ("left", "right", "slow")
    assert scenario.feature_names == ("size", "noise")
    assert scenario.cutoff_s == CUTOFF_S
    assert scenario.feature_cost_s.tolist() == [cost_s or 0.0] * 200
    assert (scenario.runtime_s[~scenario.solved] == CUTOFF_S).all()
    assert scenario.solved.any(axis=0).all()


def test_the_cutoff_is_the_longest_run_where_all_were_solved() -> None:
    runs = pd.DataFrame({"runtime_s": [3.0, 7.0], "par10_s": [3.0, 7.0], "solved": [True, True]})
    assert aslib_scenarios.find_cutoff(runs) == 7.0


def test_a_missing_run_is_refused(tmp_path: Path) -> None:
    write_world(tmp_path)
    path = tmp_path / "TOY.outcomes.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    with pytest.raises(ScenarioError, match=r"TOY\.outcomes\.parquet: instance_id, algorithm: every solver"):
        aslib_scenarios.read(tmp_path, "TOY")


def test_missing_numbers_take_the_median_of_what_was_learned_from() -> None:
    nan = float("nan")
    learned = np.array([[1.0, nan], [3.0, nan], [8.0, nan]])
    found = aslib_scenarios.impute(learned, np.array([[nan, nan], [5.0, 6.0]]))
    assert found.tolist() == [[3.0, 0.0], [5.0, 6.0]]


def test_one_run_per_instance_and_pass_is_revealed_with_its_propensity(tmp_path: Path) -> None:
    write_world(tmp_path)
    row, solver = aslib_scenarios.revealed(200, 3, passes=10, seed=0)
    assert np.bincount(row).tolist() == [10] * 200
    assert np.bincount(solver) / 2_000 == pytest.approx(np.full(3, 1 / 3), abs=0.05)
    scenario = aslib_scenarios.read(tmp_path, "TOY")
    examples = scenario.examples(scenario.features, row, solver, 1 / 3)
    assert examples.propensity.tolist() == [1 / 3] * 2_000
    assert examples.latency_ms[~scenario.solved[row, solver]].tolist() == [100_000.0] * int(
        (examples.success == 0).sum()
    )


def test_the_router_finds_the_solver_of_each_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path)
    monkeypatch.setattr(aslib, "FOREST_TREES", 20)
    assert aslib.main(["--data", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(said["scenarios"]) == ["TOY"]
    found = said["scenarios"]["TOY"]
    # The single best needs 60 s, the best of each 10 s and nobody can do without 1 s for features: at the least .02.
    assert 0.02 <= found["npar10"] < 0.6
    assert 0.02 <= found["npar10_bandit"] < 1.0
    assert said["mean_ratio_to_forest"] == pytest.approx(found["npar10"] / found["npar10_forest"], abs=1e-3)
    assert found["npar10_best_published"] is None


def test_a_folder_without_scenarios_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aslib.main(["--data", str(tmp_path / "nowhere")]) == aslib.NO_DATA
    assert "no scenario of *.outcomes.parquet" in capsys.readouterr().err
