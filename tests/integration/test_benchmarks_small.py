"""The statistical benchmarks at a small size: their last line is the JSON that is promised, and their worlds are true."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import canaries, gate, harm_ladder, ope, ope_worlds
from benchmarks.canaries import Cell
from benchmarks.gate_report import Errors
from scenarios.flights import timetable
from validation.canary_log import CanaryLog, group_by_unit


def write_frugalml(folder: Path, n: int = 1_200) -> None:
    """Three destinations in FrugalML's columns: "local" is right where it is confident, the others at a rate of theirs."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=n)
    correct = {"amazon": 0.7, "google": 0.9, "local": confidence}
    columns = {f"{name}_correct": (rng.uniform(size=n) < rate).astype(int) for name, rate in correct.items()}
    rows = pd.DataFrame({"local_label": rng.integers(3, size=n), "local_confidence": confidence, **columns})
    folder.mkdir()
    rows.to_parquet(folder / "MADEUP.parquet")


def write_bandit(folder: Path, n: int = 2_000) -> None:
    rng = np.random.default_rng(0)
    item = rng.integers(4, size=n)
    propensity = np.full(n, 0.25)
    click = (rng.uniform(size=n) < 0.02).astype(int)
    rows = pd.DataFrame({"behavior_policy": "bts", "item_id": item, "propensity_score": propensity, "click": click})
    folder.mkdir()
    rows.to_parquet(folder / "obd_all.parquet")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_frugalml(tmp_path / "frugalml")
    write_bandit(tmp_path / "bandit")
    return tmp_path


def last_line(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(text.splitlines()[-1])
    return found


def test_the_off_policy_benchmark_ends_in_its_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        timetable.data_folder()
    except timetable.DataMissingError as error:
        pytest.skip(str(error))
    assert ope.main(["--quick", "--data", str(data), "--events", "1000", "--days", "20"]) == 0
    found = last_line(capsys.readouterr().out)
    for name in ("frugalml", "flights"):
        methods = found[name]
        assert isinstance(methods, dict)
        assert set(methods) == {"dr", "ips", "snips", "known"}
        assert all(set(figures) == {"coverage", "rmse", "n_logs"} for figures in methods.values())
        assert methods["dr"]["n_logs"] == 20
        assert methods["known"]["rmse"] < methods["dr"]["rmse"] < methods["ips"]["rmse"]
    bandit = found["open_bandit"]
    assert isinstance(bandit, dict)
    assert {"covers", "low", "high", "published"} <= set(bandit)
    assert found["refused"] == {"no propensities": 1.0, "too few": 1.0, "no overlap": 1.0}


def test_without_data_it_says_so_and_leaves_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ope.main(["--data", str(tmp_path)]) == 2
    assert f"in {tmp_path}" in capsys.readouterr().err


def test_a_log_shows_the_rewards_of_its_population_and_its_value_is_found_on_the_average(data: Path) -> None:
    population = ope_worlds.frugalml_population(data / "frugalml" / "MADEUP.parquet", 1_000, seed=0)
    rng = np.random.default_rng(1)
    drawn = [ope_worlds.draw(population, rng) for _ in range(100)]
    weighed = [(d.target[d.log.chosen] / d.log.propensity * d.log.reward).mean() for d in drawn]
    assert np.mean(weighed) == pytest.approx(population.true_value, abs=4 * np.std(weighed) / 10)
    explored = np.isclose(drawn[0].log.propensity, ope_worlds.EXPLORATION / 3).mean()
    assert explored == pytest.approx(ope_worlds.EXPLORATION * 2 / 3, abs=0.05)


def test_no_decision_is_judged_by_a_reward_model_that_saw_its_fold(data: Path) -> None:
    population = ope_worlds.frugalml_population(data / "frugalml" / "MADEUP.parquet", 300, seed=0)
    drawn = ope_worlds.draw(population, np.random.default_rng(1))
    before = ope.cross_fit(drawn, seed=0)
    drawn.log.reward[0] = 1_000.0
    after = ope.cross_fit(drawn, seed=0)
    rows = slice(drawn.log.offsets[0], drawn.log.offsets[1])
    assert after[rows] == pytest.approx(before[rows])
    assert np.abs(after - before).max() > 1.0


def test_the_gate_benchmark_ends_in_its_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert gate.main(["--quick"]) == 0
    found = last_line(capsys.readouterr().out)
    assert {"aa", "power", "harm"} == set(found)
    errors, powers, harm = found["aa"], found["power"], found["harm"]
    assert isinstance(errors, dict)
    assert isinstance(powers, list)
    assert isinstance(harm, dict)
    assert {"worst_false_promotion", "worst_upper_99", "runs_per_cell", "cells"} <= set(errors)
    assert {"canary", "disagreement", "success", "lift", "found", "median_decisions"} <= set(powers[0])
    assert harm["stopped"] == 1.0
    assert harm["exposure"] <= 0.05


def test_the_grid_is_the_whole_grid() -> None:
    assert len(gate.grid((0, *gate.KEYS), (0.0,))) == 27 * 4
    assert len(gate.grid((0,), gate.LIFTS)) == 9 * (3 + 3 + 1)  # .98 can rise by .02 alone


def test_a_look_at_keys_is_what_the_product_makes_of_the_same_decisions() -> None:
    cell = Cell(canary=0.5, disagreement=0.5, success=0.5, n_keys=30)
    keyed = canaries.play_keyed(cell, np.random.default_rng(0))
    until = float(np.quantile(keyed.number, 0.3))
    key, rank = np.nonzero(keyed.number <= until)
    order = np.argsort(keyed.number[key, rank])
    key, rank = key[order], rank[order]
    n = len(key)
    log = CanaryLog(
        decided_at=np.arange(n).astype("datetime64[s]"),
        unit=key,
        share=np.full(n, cell.canary),
        is_challenger=keyed.is_challenger[key],
        increment=np.diff(keyed.gain, axis=1, prepend=0.0)[key, rank],
        disagrees=np.ones(n, bool),
    )
    grouping, units = group_by_unit(log, canaries.KEY_SIZE, n + 1), keyed.look(until)
    assert units.size == pytest.approx(grouping.size)
    assert units.total == pytest.approx(grouping.sum_by_unit(log.increment))


def test_the_simulation_would_see_a_gate_that_errs_and_a_gain_that_is_one() -> None:
    rng = np.random.default_rng(0)
    equal = Cell(canary=0.1, disagreement=0.1, success=0.85)
    assert np.mean([np.isfinite(canaries.arm_means(equal, rng)[1]) for _ in range(40)]) > 0.1
    better = Cell(canary=0.5, disagreement=0.5, success=0.5, lift=0.4, n_keys=1_000)
    assert canaries.play_keyed(better, rng).errs()
    assert canaries.doubly_robust(Cell(canary=0.5, disagreement=0.5, success=0.5, lift=0.1), rng) < 5_000


def test_a_challenger_that_does_no_harm_is_not_stopped_at_once() -> None:
    ended = harm_ladder.climb(0.5, 0.3, np.random.default_rng(0))
    assert not ended.is_stopped


def test_the_upper_bound_is_exact() -> None:
    cell = Cell(canary=0.1, disagreement=0.1, success=0.5)
    assert Errors(cell=cell, n_false=0, n_runs=100).upper == pytest.approx(1 - 0.01 ** (1 / 100))
    assert Errors(cell=cell, n_false=3, n_runs=3).upper == 1.0
