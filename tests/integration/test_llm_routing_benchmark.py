"""The benchmark of routing prompts, on made sets of the same layout: the text says which model is worth asking."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest

from benchmarks import llm_prompts, llm_routing
from features.choices import Training
from models.content_fit import Settings

TOPICS = {
    "algebra": ("solve", "equation", "integer", "root", "factor", "polynomial"),
    "poetry": ("verse", "sonnet", "stanza", "rhyme", "poet", "metre"),
}
HARD = "algebra"


def write_pair(folder: Path, name: str, n: int = 500, seed: int = 0, *, subjects: bool = True) -> None:
    """Of algebra the weak model knows a tenth, of poetry as much as the strong one."""
    rng = np.random.default_rng(seed)
    subject = rng.choice(list(TOPICS), n)
    rows = {
        "event_id": [f"{name}{seed}-{row}" for row in range(n)],
        "subject": subject,
        "prompt": [f"{' '.join(rng.choice(TOPICS[topic], 4))}?\nA. this\nB. that" for topic in subject],
        "small_correct": np.where(subject == HARD, rng.uniform(size=n) < 0.1, rng.uniform(size=n) < 0.9),
        "large_correct": rng.uniform(size=n) < 0.9,
    }
    table = pd.DataFrame(rows)
    (table if subjects else table.drop(columns="subject")).to_parquet(folder / f"{name}.parquet")


def write_nine(folder: Path, name: str, n: int = 500, seed: int = 0) -> None:
    """One task, whose texts say which of two good models knows them; a third is right in half of all."""
    rng = np.random.default_rng(seed)
    topic = rng.choice(list(TOPICS), n)
    rows = {
        "event_id": [f"{name}{seed}-{row}" for row in range(n)],
        "task_name": "quiz",
        "metric": "f1_score",
        "query": [" ".join(rng.choice(TOPICS[each], 4)) for each in topic],
        "counter": np.where(topic == HARD, 0.9, 0.1),
        "writer": np.where(topic == HARD, 0.2, 0.8),
        "all-rounder": rng.choice([0.0, 1.0], n),
    }
    pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_routing, "N_GOLD", 150)
    monkeypatch.setattr(llm_routing, "CONTENT", Settings(n_epochs=4, n_hidden=8, n_components=4, n_threads=1))
    for name, form in (("ROUTER", "own"), ("ROUTER_OF_MANY", "pooled")):
        settings = Training(min_decisions=50, rounds=40, leaves=6, min_leaf=10, latency_quantiles=(), threads=1)
        monkeypatch.setattr(llm_routing, name, msgspec.structs.replace(settings, forms=(form,)))


def said_by(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, dict[str, float]]:
    assert llm_routing.main(arguments) == 0
    said: dict[str, dict[str, float]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return said


def test_calls_go_where_the_text_says_that_the_strong_model_is_worth_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path, "routellm_mmlu")
    said = said_by(capsys, "--data", str(tmp_path), "--seeds", "2")
    assert list(said) == ["mmlu_150", "mmlu_all"]
    for each in said.values():
        # The algebraic half holds the whole gap: .75 by the triangle before it, and noise.
        assert each["apgr"] == pytest.approx(0.75, abs=0.05)
        assert each["cpt50"] == pytest.approx(0.25, abs=0.1)
        assert each["cpt80"] == pytest.approx(0.4, abs=0.1)
        assert each["n_test"] == 500 - said["mmlu_all"]["n_train"]
        assert each["intervals"]["apgr"][0] < each["apgr"] < each["intervals"]["apgr"][1]  # type: ignore[index]
        assert each["peers"]["random"]["apgr"] == pytest.approx(0.5, abs=0.12)  # type: ignore[index]
    assert said["mmlu_150"]["n_train"] == 150
    assert said["mmlu_150"]["seeds"] == 2


def test_the_model_that_the_text_asks_for_beats_the_best_of_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_nine(tmp_path, "llmrouter9_train")
    nine = said_by(capsys, "--data", str(tmp_path))["nine"]
    assert nine["best_per_task"] == pytest.approx(0.5, abs=0.07)
    assert nine["score"] == pytest.approx(0.85, abs=0.05)
    assert nine["peers"]["oracle"] > nine["score"]  # type: ignore[index]


def test_a_test_set_that_nothing_was_learned_of_is_asked_all_that_was_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    write_pair(train, "routellm_mmlu")
    write_pair(test, "routellm_gsm8k_test", n=200, seed=1, subjects=False)
    write_nine(train, "llmrouter9_train")
    write_nine(test, "llmrouter9_test", n=200, seed=1)
    said = said_by(capsys, "--train", str(train), "--test", str(test), "--seeds", "1")
    assert list(said) == ["gsm8k_150", "gsm8k_all", "nine"]
    assert said["gsm8k_all"]["n_train"] == said["nine"]["n_train"] == 500
    assert said["gsm8k_all"]["n_test"] == said["nine"]["n_test"] == 200
    assert said["gsm8k_all"]["apgr"] == pytest.approx(0.75, abs=0.07)
    assert "subject means" not in said["gsm8k_all"]["peers"]  # type: ignore[operator]


def test_prompts_without_a_subject_are_told_apart_by_who_answered_them(tmp_path: Path) -> None:
    write_pair(tmp_path, "routellm_plain", subjects=False)
    (prompts,) = llm_prompts.read_prompts(tmp_path, "routellm_*.parquet").values()
    names = llm_routing.name_classes(prompts)
    assert set(names) <= {"00", "01", "10", "11"}
    assert names[0] == "".join(str(int(right)) for right in prompts.quality[0])


def test_a_split_by_ids_keeps_a_row_on_its_side_whatever_the_order(tmp_path: Path) -> None:
    write_pair(tmp_path, "routellm_mmlu", n=1_000)
    prompts = llm_prompts.read_prompts(tmp_path, "routellm_*.parquet")["mmlu"]
    table = pd.read_parquet(tmp_path / "routellm_mmlu.parquet").iloc[::-1]
    table.to_parquet(tmp_path / "routellm_mmlu.parquet")
    turned = llm_prompts.read_prompts(tmp_path, "routellm_*.parquet")["mmlu"]
    assert turned.is_held_out[::-1].tolist() == prompts.is_held_out.tolist()
    assert prompts.is_held_out.mean() == pytest.approx(0.4, abs=0.05)
    assert [llm_prompts._tenth(name) for name in "abcdefgh"] == [
        1,
        3,
        6,
        7,
        2,
        5,
        4,
        1,
    ]  # in any process, on any machine


def test_qualities_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    write_nine(tmp_path, "llmrouter9_train", n=10)
    table = pd.read_parquet(tmp_path / "llmrouter9_train.parquet")
    table.loc[3, "writer"] = 1.5
    table.to_parquet(tmp_path / "llmrouter9_train.parquet")
    with pytest.raises(
        ValueError, match=r"llmrouter9_train\.parquet: counter, writer, all-rounder must hold numbers in"
    ):
        llm_prompts.read_prompts(tmp_path, "llmrouter9_*.parquet")
    table.drop(columns=["counter", "all-rounder"]).to_parquet(tmp_path / "llmrouter9_train.parquet")
    with pytest.raises(ValueError, match="too few models"):
        llm_prompts.read_prompts(tmp_path, "llmrouter9_*.parquet")


def test_shapes_count_what_they_say() -> None:
    (shape,) = llm_prompts.measure_shapes(["Is 3 not 4?\nA. yes"])
    named = dict(zip(llm_prompts.SHAPE_NAMES, shape, strict=True))
    assert named["characters"] == pytest.approx(np.log1p(18))
    assert (named["lines"], named["questions"], named["negations"], named["longest_word"]) == (2, 1, 1, 3)
    assert named["with_digit_share"] == pytest.approx(2 / 6)
    assert named["digit_share"] == pytest.approx(2 / 18)
    assert np.isfinite(llm_prompts.measure_shapes(["", " ", "\n"])).all()


def test_a_folder_without_data_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert llm_routing.main(["--data", str(tmp_path)]) == llm_routing.NO_DATA
    assert "no routellm_*.parquet or llmrouter9_*.parquet in" in capsys.readouterr().err
