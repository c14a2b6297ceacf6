"""From spooled decisions to a judged canary, on the tiny world, through the real warehouse."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from features import history, ingestion, log_table
from features.config import Configuration
from features.decision_log import DecisionLog
from features.records import Decision, Outcome
from features.warehouse import Warehouse
from models import comparison, evidence, fit
from models.evidence import Circumstances
from models.fit import Subject
from models.releases import bundle
from models.router import Router
from serving.view import Model, StreamView
from validation import canary, canary_gate, canary_table, gate

Play = Callable[..., list[tuple[Decision, Outcome]]]
N_DECISIONS = 1_500


def ingest(home: Path, configuration: Configuration, told: Iterable[tuple[Decision, Outcome]]) -> Warehouse:
    told = list(told)
    home.mkdir(parents=True, exist_ok=True)
    for name, records in (("decisions", (d for d, _ in told)), ("outcomes", (o for _, o in told))):
        (home / f"{name}.jsonl").write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in records))
    warehouse = Warehouse(home / "warehouse.duckdb")
    report = ingestion.ingest(warehouse, [home], configuration, now=told[-1][1].observed_at)
    assert report.n_decisions == report.n_outcomes == len(told)
    return warehouse


def rewards(warehouse: Warehouse, configuration: Configuration, **window: object) -> pa.Table:
    return history.rewards(warehouse, "orders", objective=configuration.streams["orders"].objective, **window)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, tiny: Configuration, play: Play) -> DecisionLog:
    told = play(tiny, N_DECISIONS)
    warehouse = ingest(tmp_path_factory.mktemp("past"), tiny, told)
    table = rewards(warehouse, tiny, as_of=told[-1][1].observed_at)
    return log_table.from_table(table, tiny.streams["orders"].features, cluster_by="decision")


def train(log: DecisionLog, configuration: Configuration, folder: Path) -> Router:
    stream = configuration.streams["orders"]
    subject = Subject(
        stream="orders",
        feature_set=stream.features.version,
        objective=stream.objective,
        destinations=stream.destinations,
        settings=stream.training,
        trained={},
    )
    return fit.learn(log, stream.features, folder, subject)


@pytest.fixture(scope="module")
def challenger(tmp_path_factory: pytest.TempPathFactory, log: DecisionLog, tiny: Configuration) -> Router:
    return train(log, tiny, tmp_path_factory.mktemp("router"))


def test_the_log_comes_back_as_it_was_decided(log: DecisionLog, tiny: Configuration, play: Play) -> None:
    told = play(tiny, N_DECISIONS)
    assert log.n_decisions == N_DECISIONS
    assert log.decision_id.tolist() == [decision.decision_id for decision, _ in told]
    np.testing.assert_array_equal(log.propensity, [decision.propensity for decision, _ in told])
    np.testing.assert_array_equal(log.success, [float(bool(outcome.success)) for _, outcome in told])
    np.testing.assert_array_equal(log.numbers, np.concatenate([np.array(d.numbers, dtype=np.float64) for d, _ in told]))
    chosen = [log.destination.values[code] for code in log.destination.codes[log.chosen]]
    assert chosen == [decision.assigned for decision, _ in told]


def test_a_part_of_the_log_is_the_log_of_that_part(log: DecisionLog) -> None:
    kept = np.arange(log.n_decisions) % 3 == 0
    part = log.take(kept)
    np.testing.assert_array_equal(part.propensity, log.propensity[kept])
    np.testing.assert_array_equal(part.numbers[part.chosen], log.numbers[log.chosen[kept]])
    np.testing.assert_array_equal(part.policies["static"][part.chosen], log.policies["static"][log.chosen[kept]])


def test_the_holdout_is_later_and_cuts_no_cluster(log: DecisionLog) -> None:
    early, late = log.split(0.3)
    assert early.decided_at.max() < late.decided_at.min()
    assert late.n_decisions == pytest.approx(0.3 * log.n_decisions, abs=2)


def test_the_counterfactual_estimate_holds_the_true_gain_and_the_gate_passes(
    log: DecisionLog, tiny: Configuration, tmp_path: Path
) -> None:
    early, late = log.split(0.3)
    candidate = train(early, tiny, tmp_path / "router")
    compared = comparison.compare(late, candidate, None)
    difference = compared.difference["reward"]
    assert isinstance(difference, comparison.Estimate)
    true_gain = 0.5 * (0.95 - 0.7)  # the bank for the smaller half of the amounts, the card for the rest
    assert difference.low < true_gain < difference.high
    verdict = gate.judge(compared, tiny.streams["orders"].gate)
    assert verdict.state == "passed"
    circumstances = Circumstances(
        stream="orders",
        candidate_digest=bundle.seal(tmp_path / "router", kind="router"),
        champion_digest=None,
        baseline_generation=0,
        policy_revision=tiny.revision,
        created_at="2026-01-02T00:00:00+00:00",
        data={"note": "<b>not markup</b>"},
        batch={},
    )
    digest = evidence.write(tmp_path / "evidence", compared, verdict, candidate.card, circumstances)
    assert len(digest) == 64
    page = (tmp_path / "evidence" / evidence.PAGE_FILE).read_text()
    assert "<b>not markup</b>" not in page
    assert "PASSED" in evidence.summary(compared, verdict, circumstances)
    assert "| pooled |" in (tmp_path / "evidence" / evidence.CARD_FILE).read_text()


def test_a_candidate_that_is_the_champion_differs_by_nothing(log: DecisionLog, challenger: Router) -> None:
    compared = comparison.compare(log, challenger, challenger)
    assert compared.disagreement_rate == 0.0
    difference = compared.difference["reward"]
    assert isinstance(difference, comparison.Estimate)
    assert (difference.low, difference.value, difference.high) == (0.0, 0.0, 0.0)


def test_a_good_canary_is_promoted_on_its_live_outcomes(
    tiny: Configuration, play: Play, challenger: Router, tmp_path: Path
) -> None:
    view = StreamView(mode="canary", generation=3, challenger=Model("c" * 64, challenger), challenger_share=0.25)
    told = play(tiny, 4_000, view=view, seed=1)
    warehouse = ingest(tmp_path, tiny, told)
    stream = tiny.streams["orders"]
    judging = canary_gate.build_gate(stream.gate, stream.objective)
    table = rewards(warehouse, tiny, as_of=told[-1][1].observed_at)
    canary_log = canary_table.canary_log(canary_table.closed_prefix(table, "c" * 64), stream, (0.0, 1.0))
    assert canary_log.is_challenger.mean() == pytest.approx(0.25, abs=0.03)
    verdict = canary.judge(canary_log, judging)
    assert verdict.state == "promote", verdict.reasons
    champion = 0.75 * 0.7 + 0.25 * 0.575  # the card, with a floor of .25 under the bank, which succeeds in .575 overall
    best = 0.5 * 0.95 + 0.5 * 0.7
    true_gain = 0.95 * best + 0.025 * 0.7 + 0.025 * 0.575 - champion
    assert verdict.lower < true_gain < verdict.upper


def test_only_decisions_before_the_first_open_window_are_counted(
    tiny: Configuration, play: Play, challenger: Router, tmp_path: Path
) -> None:
    view = StreamView(mode="canary", generation=3, challenger=Model("c" * 64, challenger), challenger_share=0.25)
    told = play(tiny, 100, view=view, seed=2)
    late = msgspec.structs.replace(told[80][1], observed_at=told[-1][1].observed_at + timedelta(minutes=30))
    told[80] = (told[80][0], late)
    warehouse = ingest(tmp_path, tiny, [*told[:80], *told[81:], told[80]])
    table = rewards(warehouse, tiny, as_of=told[-1][1].observed_at)
    assert canary_table.closed_prefix(table, "c" * 64).num_rows == 80
    empty = canary_table.canary_log(canary_table.closed_prefix(table, "d" * 64), tiny.streams["orders"], (0.0, 1.0))
    assert empty.n_decisions == 0
    judging = canary_gate.build_gate(tiny.streams["orders"].gate, tiny.streams["orders"].objective)
    assert canary.judge(empty, judging).state == "no_data"
