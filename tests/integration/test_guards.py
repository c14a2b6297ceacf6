"""The guards in the flows: what is refused before a fit (T05, T06), and drift that leads to one retraining, not to many."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from features import history, ingestion, known_at, log_table
from features.clock import ReplayClock
from features.known_at import KnownAtError
from features.records import Decision, Outcome
from flows import retrain, watch, wiring
from flows import settings as environment
from flows.cli import telling, watching
from flows.wiring import Wiring
from models import fit
from models.fit import Subject
from models.registered import Version
from models.releases import bundle, transitions
from models.router import Router, load
from serving.view import Model, StreamView

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

Play = Callable[..., list[tuple[Decision, Outcome]]]
Told = list[tuple[Decision, Outcome]]
N = 800  # of which 560 are fitted on
HONEST = 'categories = { destination = "destination.name", country = "event.country" }'


def settle(home: Path, text: str, at: datetime) -> Wiring:
    home.mkdir(parents=True, exist_ok=True)
    (home / "turnout.toml").write_text(text)
    chosen = environment.read(
        {
            "TURNOUT_HOME": str(home),
            "TURNOUT_CONFIG": str(home / "turnout.toml"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{home}/mlflow.db",
        }
    )
    return Wiring(settings=chosen, clock=ReplayClock(at=at))


def take_in(wired: Wiring, told: Told, name: str = "log", known: dict[str, str] | None = None) -> None:
    """Ingest what was told; the first decision says of ``known`` columns when they became known."""
    lines = [msgspec.json.encode(record) for pair in told for record in pair]
    if known is not None:
        first = msgspec.json.decode(lines[0])
        lines[0] = msgspec.json.encode({**first, "known_at": known})
    path = wired.settings.home / f"{name}.jsonl"
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    wired.clock.advance(max(wired.now, told[-1][1].observed_at))  # type: ignore[attr-defined]  # a ReplayClock
    report = ingestion.ingest(wired.warehouse, [path], wired.configuration, now=wired.now)
    assert (report.n_decisions, report.n_outcomes) == (len(told), len(told))


def plant(told: Told, cells: Sequence[float | None]) -> Told:
    """Write one value per decision into the last number column of all its candidates."""
    planted = []
    for (decision, outcome), cell in zip(told, cells, strict=True):
        numbers = tuple((*row[:-1], cell) for row in decision.numbers)
        planted.append((msgspec.structs.replace(decision, numbers=numbers), outcome))
    return planted


def with_column(text: str, read: str, training: str = "") -> str:
    numbers = 'numbers = { amount = "event.amount", fee = "destination.fee"'
    assert text.count(numbers) == 1
    columned = text.replace(numbers, f'{numbers}, planted = "{read}"')
    return columned.replace("min_decisions = 100\n", f"min_decisions = 100\n{training}\n", 1)


@pytest.fixture
def began() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def run_retrain(monkeypatch: pytest.MonkeyPatch) -> Callable[[Wiring], dict[str, Any]]:
    """The flow's own body, its tasks run in place, up to the fit: what comes after is not this test's."""

    def run(wired: Wiring) -> dict[str, Any]:
        def fitted(*_: object) -> None:
            raise AssertionError("fitted")

        for name, function in {
            "wire": lambda _: wired,
            "publish": lambda _, report: report,
            "_read": retrain.read_rows,
            "_validate": lambda *_: type("Quality", (), {"state": "passed"}),
            "_load": retrain.read_log,
            "_screen": retrain.screen_log,
            "_fit": fitted,
        }.items():
            monkeypatch.setattr(retrain, name, function)
        return dict(retrain.retrain.fn("orders"))

    return run


Run = Callable[[Wiring], dict[str, Any]]


def test_t05_a_planted_copy_skips_the_retraining_and_is_named(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run
) -> None:
    wired = settle(tmp_path, with_column(tiny_text, "event.paid"), began)
    told = play(wired.configuration, N)
    take_in(wired, plant(told, [float(bool(outcome.success)) for _, outcome in told]))
    report = run_retrain(wired)
    assert (report["state"], report["stream"]) == ("skipped", "orders")
    assert report["reasons"] == ("planted: tells success alone: AUC 1.0000, at most 0.99 is to be believed",)


def test_a_column_on_the_streams_list_may_tell_what_it_does(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run
) -> None:
    text = with_column(tiny_text, "event.paid", 'leakage_allowed = ["planted"]')
    wired = settle(tmp_path, text, began)
    told = play(wired.configuration, N)
    take_in(wired, plant(told, [float(bool(outcome.success)) for _, outcome in told]))
    with pytest.raises(AssertionError, match="fitted"):
        run_retrain(wired)


def test_t05_a_post_decision_column_is_refused_by_its_instants(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run
) -> None:
    wired = settle(tmp_path, with_column(tiny_text, "event.settled_at"), began)
    told = play(wired.configuration, N)
    take_in(wired, plant(told, [(outcome.observed_at).timestamp() for _, outcome in told]))
    (reason,) = run_retrain(wired)["reasons"]
    assert reason.startswith("planted: holds an instant after the decision in 560 of 560 rows, such as decision-0-0")


def test_t05_a_column_declared_to_be_known_later_is_refused(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run
) -> None:
    text = with_column(tiny_text, "log1p(event.refund)", 'known_later = ["event.refund"]')
    wired = settle(tmp_path, text, began)
    take_in(wired, play(wired.configuration, N))
    assert run_retrain(wired)["reasons"] == ("planted: reads event.refund, which is declared to be known only later",)


def test_t05_a_backfilled_value_known_after_its_decision_is_refused(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run
) -> None:
    wired = settle(tmp_path, with_column(tiny_text, "event.score"), began)
    late, early = (began + timedelta(days=1)).isoformat(), (began - timedelta(days=1)).isoformat()
    told = plant(play(wired.configuration, N), np.random.default_rng(0).uniform(size=N).tolist())
    take_in(wired, told, known={"event.score": late, "country": early, "no feature": late})
    (reason,) = run_retrain(wired)["reasons"]
    assert reason.startswith("planted: became known after the decision in 1 of 1 rows, such as decision-0-0, decided")
    assert reason.endswith("at 2026-01-01T00:00:00.000000: 2026-01-02T00:00:00.000000")


@pytest.mark.parametrize("wrong", ["yesterday", "2026-01-02T00:00:00", 7])
def test_a_known_at_that_is_no_instant_is_refused_by_decision_column_and_value(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime, wrong: Any
) -> None:
    wired = settle(tmp_path, tiny_text, began)
    take_in(wired, play(wired.configuration, 10), known={"amount": wrong})
    rows = retrain.read_rows(wired, "orders", wired.warehouse)
    features = wired.configuration.streams["orders"].features
    with pytest.raises(KnownAtError, match=f"'decision-0-0': known_at.amount must be .* got {wrong!r}"):
        known_at.read(wired.warehouse, "orders", rows.table, features)


def test_an_honest_log_is_fitted(tmp_path: Path, tiny_text: str, play: Play, began: datetime, run_retrain: Run) -> None:
    wired = settle(tmp_path, tiny_text, began)
    take_in(wired, play(wired.configuration, N))
    with pytest.raises(AssertionError, match="fitted"):
        run_retrain(wired)


def test_t06_what_may_be_trained_on_at_an_instant_does_not_move_when_more_comes(
    tmp_path: Path, tiny_text: str, play: Play, began: datetime
) -> None:
    wired = settle(tmp_path, tiny_text, began)
    stream = wired.configuration.streams["orders"]
    told, at = play(wired.configuration, 200), began + timedelta(minutes=150)

    def known() -> history.TrainingRows:
        return history.training_rows(
            wired.warehouse, "orders", objective=stream.objective, feature_set=stream.features.version, as_of=at
        )

    take_in(wired, [pair for pair in told if pair[1].observed_at <= at], "early")
    before = known()
    corrected = [
        (
            decision,
            msgspec.structs.replace(
                outcome, success=not outcome.success, attempt=2, observed_at=at + timedelta(seconds=1)
            ),
        )
        for decision, outcome in told[:100]
    ]
    path = tmp_path / "late.jsonl"
    late = [record for pair in told if pair[1].observed_at > at for record in pair]
    path.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in [*late, *(o for _, o in corrected)]))
    wired.clock.advance(began + timedelta(days=1))  # type: ignore[attr-defined]  # a ReplayClock
    ingestion.ingest(wired.warehouse, [path], wired.configuration, now=wired.now)
    assert history.count_decisions(wired.warehouse, "orders") == 200
    assert before.table.num_rows > 100
    assert known().table.equals(before.table)


# Drift


def champion(wired: Wiring) -> tuple[str, Router]:
    """Fit a router on what was told and make it the champion, as two promotions would."""
    stream = wired.configuration.streams["orders"]
    rows = history.training_rows(
        wired.warehouse, "orders", objective=stream.objective, feature_set=stream.features.version, as_of=wired.now
    )
    log = log_table.from_table(rows.table, stream.features, cluster_by="decision")
    folder = wired.workspace("champion")
    subject = Subject(
        stream="orders",
        feature_set=stream.features.version,
        objective=stream.objective,
        destinations=stream.destinations,
        settings=stream.training,
        trained={"since": str(log.decided_at.min()), "until": str(log.decided_at.max())},
    )
    fit.learn(log, stream.features, folder, subject)
    digest = bundle.seal(folder, kind="router")
    wired.store.put(folder, digest=digest)
    why: dict[str, Any] = {"stream": "orders", "reason": "test", "evidence": {}}
    wired.append(transitions.start_canary, digest=digest, share=0.5, **why)
    wired.append(transitions.promote, **why)
    assert wired.live("orders").champion == digest
    return digest, load(wired.store.path(digest))


@pytest.fixture
def lived(tmp_path: Path, tiny_text: str, play: Play, began: datetime) -> Callable[..., Wiring]:
    """A champion, fitted on the past, that then decided 700 orders; ``changed`` alters what became of them."""

    def live(changed: Callable[[Told], Told] = lambda told: told) -> Wiring:
        wired = settle(tmp_path, tiny_text, began)
        past = play(wired.configuration, N)
        take_in(wired, past, "past")
        digest, router = champion(wired)
        view = StreamView(mode="on", generation=2, champion=Model(digest, router))
        wired.__dict__["registry"] = Candidates()
        begin = began + timedelta(minutes=N)
        told = play(wired.configuration, 700, view=view, seed=1, begin=begin)
        take_in(wired, changed(told), "live")
        return wired

    return live


class Candidates:
    """A registry that knows of candidates of the stream, by when they were judged."""

    def __init__(self, *judged_at: datetime) -> None:
        self.judged_at = judged_at

    def versions(self, model_name: str) -> list[Version]:
        assert model_name == retrain.CANDIDATE_MODEL
        return [
            Version(
                name=model_name,
                number=number,
                tags={"turnout.stream": "orders", "turnout.evidence_at": at.isoformat()},
                source="",
                run_id="",
                description="",
                created_at=at,
            )
            for number, at in enumerate(self.judged_at, start=1)
        ]


def fail_at_the_bank(told: Told) -> Told:
    """The bank begins to fail for one in three that would have been paid."""
    rng = np.random.default_rng(0)
    return [
        (d, msgspec.structs.replace(o, success=bool(o.success) and not (d.assigned == "bank" and rng.uniform() < 0.4)))
        for d, o in told
    ]


def double_the_amounts(told: Told) -> Told:
    return [
        (msgspec.structs.replace(d, numbers=tuple((2 * float(row[0] or 0), *row[1:]) for row in d.numbers)), o)
        for d, o in told
    ]


def test_a_world_that_stayed_is_stable_on_what_the_champion_logged(lived: Callable[..., Wiring]) -> None:
    verdict = watch.look(lived(), "orders")
    assert verdict.state == "stable", verdict.reasons
    assert (verdict.n_reference, verdict.n_recent) == (N, 700)
    assert verdict.calibration is not None
    assert verdict.calibration.n_decisions == 700
    assert abs(verdict.calibration.gap) < 0.05


def test_a_destination_that_begins_to_fail_is_calibration_drift(lived: Callable[..., Wiring]) -> None:
    verdict = watch.look(lived(fail_at_the_bank), "orders")
    assert verdict.state == "drifted"
    assert verdict.calibration is not None
    assert verdict.calibration.high < -0.05
    assert not any(feature.drifted for feature in verdict.features)


def test_events_that_change_are_feature_drift(lived: Callable[..., Wiring]) -> None:
    verdict = watch.look(lived(double_the_amounts), "orders")
    assert verdict.state == "drifted"
    assert [feature.column for feature in verdict.features if feature.drifted] == ["amount"]


def test_a_long_window_is_sampled_by_a_hash_the_same_each_time(lived: Callable[..., Wiring]) -> None:
    wired = lived()
    stream = wired.configuration.streams["orders"]
    sampled = msgspec.structs.replace(stream, drift=msgspec.structs.replace(stream.drift, max_decisions=400))
    wired.__dict__["configuration"] = msgspec.structs.replace(wired.configuration, streams={"orders": sampled})
    whole = (wired, "orders", datetime(2026, 1, 1, tzinfo=UTC), wired.now)
    one, two = watch._read(*whole), watch._read(*whole)
    assert 250 < one.num_rows < 500  # of 1,500 one in four, in the mean 375
    assert one.equals(two)


def test_without_a_champion_nothing_is_said(tmp_path: Path, tiny_text: str, began: datetime) -> None:
    verdict = watch.look(settle(tmp_path, tiny_text, began), "orders")
    assert (verdict.state, verdict.n_reference) == ("too_few", 0)
    assert "no champion" in verdict.reasons[0]


def test_drift_retrains_once_waits_for_the_cool_down_and_makes_up_for_a_killed_round(
    lived: Callable[..., Wiring], monkeypatch: pytest.MonkeyPatch
) -> None:
    wired, rounds = lived(fail_at_the_bank), []

    def fake_retrain(stream: str, _: str | None) -> dict[str, Any]:
        rounds.append(stream)
        if len(rounds) == 1:
            raise KeyboardInterrupt  # killed
        return {"state": "not_registered"}

    for name, function in {
        "wire": lambda _: wired,
        "publish": lambda _, report: report,
        "retrain": fake_retrain,
        "_look": watch.look,
        "_hold": watch.find_hold,
        "_note": watch.note_retrained,
    }.items():
        monkeypatch.setattr(watch, name, function)
    with pytest.raises(KeyboardInterrupt):
        watch.watch.fn("orders")
    report = watch.watch.fn("orders")
    assert (report["state"], report["retraining"]) == ("drifted", "not_registered")
    assert any("calibration" in reason for reason in report["reasons"])
    again = watch.watch.fn("orders")
    assert again["state"] == "drifted"
    assert again["retraining"].startswith("retrained at 2026-01-")
    wired.clock.advance(wired.now + timedelta(hours=169))  # type: ignore[attr-defined]  # a ReplayClock
    assert watch.watch.fn("orders")["retraining"] == "not_registered"
    assert len(rounds) == 3


def test_a_candidate_that_was_just_registered_holds_the_retraining_back(lived: Callable[..., Wiring]) -> None:
    wired = lived()
    old, new = wired.now - timedelta(hours=200), wired.now - timedelta(hours=2)
    wired.__dict__["registry"] = Candidates(old)
    assert watch.find_hold(wired, "orders") is None
    wired.__dict__["registry"] = Candidates(new, old)
    assert watch.find_hold(wired, "orders") == (
        f"retrained at {new.isoformat()}, not again before {(new + timedelta(hours=168)).isoformat()}"
    )


def test_a_canary_on_its_way_holds_the_retraining_back(lived: Callable[..., Wiring]) -> None:
    wired = lived()
    assert watch.find_hold(wired, "orders") is None
    other = wired.workspace("other")
    (other / "a.txt").write_bytes(b"1")
    digest = bundle.seal(other, kind="router")
    wired.store.put(other, digest=digest)
    wired.append(transitions.start_canary, stream="orders", digest=digest, share=0.5, reason="test", evidence={})
    assert watch.find_hold(wired, "orders") == "a canary is on its way"


def test_the_command_shows_every_feature_and_changes_nothing(
    lived: Callable[..., Wiring], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wired = lived(double_the_amounts)
    monkeypatch.setattr(wiring, "wire", lambda _: wired)
    monkeypatch.setattr(telling, "attach", lambda: wired.settings)
    before = wired.generation
    assert watching.drift("orders") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("state: drifted\nreasons: amount: PSI ")
    assert all(name in printed for name in ("amount", "fee", "destination", "country", "JS distance"))
    assert watching.drift("orders", as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["features"][0]["column"] == "amount"
    assert wired.generation == before
    assert not wired.settings.watch_path.exists()


def test_a_stream_that_does_not_want_it_is_not_looked_at(
    tmp_path: Path, tiny_text: str, began: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired = settle(tmp_path, tiny_text + "\n[streams.orders.drift]\nenabled = false\n", began)
    monkeypatch.setattr(watch, "wire", lambda _: wired)
    monkeypatch.setattr(watch, "publish", lambda _, report: report)
    assert watch.watch.fn("orders") == {"state": "off", "stream": "orders"}
