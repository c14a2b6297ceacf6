"""The benchmark of budgets, on a small world of the same layout: a paid expert is worth its price where the free model doubts."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import frugalml


def write_world(data: Path, n: int = 2_400) -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(size=n)
    columns = {
        "local_label": rng.integers(0, 3, n),
        "local_confidence": confidence,
        "speaker": rng.choice(["ann", "bob"], n),
        "local_correct": (rng.uniform(size=n) < confidence).astype(np.int64),
        "expert_correct": (rng.uniform(size=n) < 0.9).astype(np.int64),
        "cheap_correct": (rng.uniform(size=n) < 0.5).astype(np.int64),
    }
    pd.DataFrame(columns).to_parquet(data / "TOY.parquet")
    prices = {"expert": 10.0, "cheap": 5.0, "local": 0.01}
    pd.DataFrame({"dataset": "TOY", "destination": list(prices), "cost_usd_per_10k": list(prices.values())}).to_csv(
        data / "destinations.csv", index=False
    )
    peer = [
        {"dataset": name, "budget_usd_per_10k": 4.0, "seed": seed, "accuracy": 0.6 + seed / 1_000}
        for name in ("TOY", "ABSENT")
        for seed in frugalml.SEEDS
    ]
    pd.DataFrame(peer).to_csv(data / "frugalml_fixbase_rerun.csv", index=False)


def test_a_budget_is_spent_where_the_free_model_doubts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_world(tmp_path)
    monkeypatch.setattr(frugalml, "FORMS", frugalml.FORMS[:1])
    assert frugalml.main(["--data", str(tmp_path)]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(said["sets"]) == list(said["bandit"]) == ["TOY"]
    reached = said["sets"]["TOY"]["budgets"]["4"]
    # Buying the doubtful 40 % is worth .4 * .9 + .6 * .7 = .78; at random it would be .4 * .9 + .6 * .5 = .66.
    assert reached["accuracy"] == pytest.approx(0.78, abs=0.04)
    assert reached["spend"] == pytest.approx(4.0, rel=0.02)
    assert said["bandit"]["TOY"]["budgets"]["4"]["spend"] == pytest.approx(4.0, rel=0.02)
    assert 0.0 < said["mean_saving"] < 1.0
    assert said["fixbase"]["TOY"]["4"] == pytest.approx(0.60533)


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert frugalml.main(["--data", str(tmp_path / "nowhere")]) == frugalml.NO_DATA
    assert "no set of frugalml_fixbase_rerun.csv in" in capsys.readouterr().err
