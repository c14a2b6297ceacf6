"""The benchmark of budgets, on small worlds of the same layout: an expert is worth its price where the free model, or a cheap one, doubts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import frugalml
from benchmarks.frugalml_events import Events, find_sets, read_events

PRICES = {"expert": 10.0, "cheap": 1.0, "local": 0.01}


def write_world(data: Path, name: str = "TOY", n: int = 2_400) -> None:
    """Write a set: the local model's confidence says how likely it is right, and the cheap one's is 1 where it is."""
    rng = np.random.default_rng(0)
    truth, confidence, cheap = rng.integers(0, 3, n), rng.uniform(size=n), rng.uniform(size=n) < 0.7
    right = {"expert": rng.uniform(size=n) < 0.9, "cheap": cheap, "local": rng.uniform(size=n) < confidence}
    confidences = {"expert": rng.uniform(size=n), "cheap": np.where(cheap, 0.9, 0.2), "local": confidence}
    columns: dict[str, Any] = {"speaker": rng.choice(["ann", "bob"], n)}
    for destination, correct in right.items():
        columns[f"{destination}_label"] = np.where(correct, truth, (truth + 1) % 3)
        columns[f"{destination}_confidence"] = confidences[destination]
        columns[f"{destination}_correct"] = correct.astype(np.int64)
    pd.DataFrame(columns).to_parquet(data / f"{name}.parquet")
    listed = pd.DataFrame({"dataset": name, "destination": list(PRICES), "cost_usd_per_10k": list(PRICES.values())})
    path = data / "destinations.csv"
    before = [pd.read_csv(path)] if path.exists() else []
    pd.concat([*before, listed]).to_csv(path, index=False)


def write_peer(data: Path) -> None:
    peer = [
        {"dataset": name, "budget_usd_per_10k": 4.0, "seed": seed, "accuracy": 0.6 + seed / 1_000}
        for name in ("TOY", "ABSENT")
        for seed in (1, 5, 10)
    ]
    pd.DataFrame(peer).to_csv(data / "frugalml_fixbase_rerun.csv", index=False)


def run_benchmark(data: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert frugalml.main(["--data", str(data), *arguments]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return said


@pytest.fixture(autouse=True)
def two_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frugalml, "SEEDS", (1, 5))


def test_a_budget_is_spent_where_the_free_model_doubts_and_a_second_call_where_the_cheap_one_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_world(tmp_path)
    write_peer(tmp_path)
    said = run_benchmark(tmp_path, capsys)
    assert list(said["sets"]) == list(said["bandit"]) == ["TOY"]
    of_set = said["sets"]["TOY"]
    # Buying the doubtful 40 % is worth .4 * .9 + .6 * .7 = .78; with the cheap one for some of them a little more.
    assert of_set["budgets"]["4"]["accuracy"] == pytest.approx(0.79, abs=0.05)
    for setting in ("sets", "bandit"):
        assert said[setting]["TOY"]["budgets"]["4"]["spend"] == pytest.approx(4.0, rel=0.02)
    assert said["fixbase"]["TOY"]["4"] == pytest.approx(0.60533)
    # Nobody who asks once knows where the cheap one is wrong. Asking it first, and the expert only where it and the free
    # model doubt, is right in more than .9 for less than 2 USD.
    assert of_set["policies"] == ["escalation"] * 2
    assert of_set["saving_at_best_single"] > max(0.65, of_set["saving_one_call"] + 0.2)
    assert said["mean_saving"] == of_set["saving_at_best_single"]
    deployed = of_set["deployed"]
    # Around that price much changes with little, so that the training half's price does not hit the point exactly.
    assert deployed["accuracy"]["mean"] == pytest.approx(0.0, abs=0.08)
    assert deployed["accuracy"]["low"] < deployed["accuracy"]["mean"] < deployed["accuracy"]["high"]
    assert deployed["saving"]["mean"] == pytest.approx(of_set["saving_at_best_single"], abs=0.1)


def test_a_set_the_peer_never_saw_has_budgets_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_world(tmp_path, "NEW", n=600)
    write_world(tmp_path, "OTHER", n=600)
    write_peer(tmp_path)
    said = run_benchmark(tmp_path, capsys, "--sets", "NEW")
    assert list(said["sets"]) == ["NEW"]
    assert list(said["sets"]["NEW"]["budgets"]) == ["3", "5"]
    assert said["fixbase"] == {}
    assert "difference_to_fixbase" not in said["sets"]["NEW"]["budgets"]["3"]
    (tmp_path / "frugalml_fixbase_rerun.csv").unlink()
    assert list(run_benchmark(tmp_path, capsys, "--sets", "NEW", "--budgets", "2")["sets"]["NEW"]["budgets"]) == ["2"]


def test_sets_are_found_by_their_files_and_prices(tmp_path: Path) -> None:
    assert find_sets(tmp_path) == []
    write_world(tmp_path, "B", n=60)
    write_world(tmp_path, "A", n=60)
    pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "unpriced.parquet")
    assert find_sets(tmp_path) == ["A", "B"]


def test_what_is_known_before_paying_holds_no_answer_that_costs(tmp_path: Path) -> None:
    write_world(tmp_path, n=60)
    events = read_events(tmp_path, "TOY")
    before = features_of(events, ())
    assert before == {"local_confidence", "price_usd", "destination", "local_label", "speaker"}
    cheap = events.destinations.index("cheap")
    added = features_of(events, (cheap,)) - before
    assert added == {"cheap_confidence", "cheap_label", "local_agrees_cheap"}


def features_of(events: Events, answered: tuple[int, ...]) -> set[str]:
    examples = events.examples(np.zeros(5, np.int64), np.arange(5), answered=answered)
    return {*examples.number_names, *examples.category_names}


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frugalml.main(["--data", str(tmp_path / "nowhere")]) == frugalml.NO_DATA
    assert "no set with prices in destinations.csv and a parquet file in" in capsys.readouterr().err
