"""From labelled texts over a real registry to a shim that reads with them, and a router that pins what it was trained on."""

import dataclasses
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from mlflow import MlflowClient

from features import ingestion, labels
from features.clock import ReplayClock
from features.config import ConfigurationError
from features.history import TrainingRows
from features.records import Candidate, Decision, Event, Outcome
from flows import classify, promote, retrain
from flows import settings as environment
from flows.promote import REFUSED_TAG
from flows.wiring import Wiring
from models import comparison, content, scorer
from models.card import read_card
from models.comparison import OfflineVerdict
from models.registered import Version
from models.releases import bundle, transitions
from serving import decider, server
from serving.asgi import Application
from serving.case import Question
from serving.messages import Request
from serving.plan import Plan
from serving.settings import Settings
from serving.shelf import RejectedError, Shelf
from serving.view import StreamView, digest_of
from validation import gate

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

JSON = {"content-type": "application/json"}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
N_DECISIONS = 700
CONFIGURATION = """
[destinations.people]
[destinations.robot]

[classifiers.requests]
labels = "labels.csv"
out_of_scope = "oos"
attributes = ["shop"]
holdout_share = 0.25
components = 4
threads = 1

[streams.requests]
types = ["shop.request"]
destinations = ["people", "robot"]
mode = "observe"
static = { default = ["people"] }
text_field = "message"
content = "requests"

[streams.requests.objective]
success = 1.0
window_minutes = 60.0

[streams.requests.exploration]
static_epsilon = 0.5

[streams.requests.features.numbers]
sure = "content.confidence"
in_scope = "content.in_scope"
refund = "content.probability_refund"
axis = "content.component_4"

[streams.requests.features.categories]
destination = "destination.name"
about = "content.class"

[streams.requests.training]
min_decisions = 100
rounds = 30
min_leaf = 10
threads = 1
holdout_share = 0.3
"""
THINGS = ("my order", "the table", "a chair", "the invoice", "this lamp", "our sofa", "the parcel", "that book")
VERBS = {
    "refund": ("refund", "pay back", "return the money for", "reimburse"),
    "Track it": ("track", "find", "locate", "where is"),
    "oos": ("sing about", "paint", "dream of", "dance with"),
}


def text_of(label: str, rng: np.random.Generator) -> str:
    return f"{rng.choice(['please', 'now', 'could you'])} {rng.choice(VERBS[label])} {rng.choice(THINGS)}"


def labelled(seed: int = 0, n_each: int = 60) -> str:
    rng = np.random.default_rng(seed)
    rows = {f"{text_of(label, rng)},{label},{shop}" for label in VERBS for shop in ("no", "se") for _ in range(n_each)}
    return "\n".join(["text,label,shop", *sorted(rows)])


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Wiring:
    home = tmp_path_factory.mktemp("home")
    (home / "turnout.toml").write_text(CONFIGURATION)
    (home / "labels.csv").write_text(labelled())
    chosen = environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})
    return Wiring(settings=chosen, clock=ReplayClock(at=BEGIN))


def register(wired: Wiring) -> Version:
    fitted = classify.fit_candidate(wired, "requests", classify.read_labels(wired, "requests"))
    verdict = classify.judge_candidate(wired, "requests", fitted)
    assert verdict.state == "passed", verdict.reasons
    number = classify.register_candidate(wired, "requests", fitted, verdict)
    return wired.registry.version(classify.CANDIDATE_MODEL, number)


def approve(wired: Wiring, candidate: Version, target: str) -> Version:
    return wired.registry.approve(candidate, target=target, actor="ada", reason="read the evidence")


def release(wired: Wiring, *, dry_run: bool = False) -> dict[str, object]:
    (newest, *_) = promote.pending_versions(wired, classify.MODEL, "")
    return promote.admit(wired, newest, dry_run=dry_run)


@pytest.fixture(scope="module")
def candidate(wired: Wiring) -> Version:
    return register(wired)


@pytest.fixture(scope="module")
def released(wired: Wiring, candidate: Version) -> str:
    approve(wired, candidate, classify.MODEL)
    assert release(wired)["state"] == "admitted"
    return candidate.tags["turnout.digest"]


def test_the_evidence_says_what_a_reviewer_asks(wired: Wiring, candidate: Version, tmp_path: Path) -> None:
    assert candidate.tags["turnout.kind"] == "classifier.requests"
    evidence = wired.registry.download(candidate, tmp_path).evidence
    assert {"report.json", "report.html", "calibration.png"} <= {path.name for path in evidence.iterdir()}
    report = json.loads((evidence / "report.json").read_text())["evaluation"]
    assert report["accuracy"] >= report["accuracy_low"] > report["majority_share"]
    assert report["out_of_scope_recall"] > 0.5
    assert report["n"] + report["n_out_of_scope"] < len(labelled().splitlines()) / 2
    assert "in-scope accuracy" in candidate.description


def test_the_same_labels_give_the_same_digest(wired: Wiring, candidate: Version) -> None:
    again = classify.fit_candidate(wired, "requests", classify.read_labels(wired, "requests"))
    assert again.digest == candidate.tags["turnout.digest"]


def test_a_classifier_that_is_not_configured_is_refused_by_name(wired: Wiring) -> None:
    with pytest.raises(ConfigurationError, match="no classifier 'request', found requests"):
        classify.read_labels(wired, "request")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"min_accuracy": 1.0}, "is below min_accuracy 1"),
        ({"min_out_of_scope_recall": 1.0}, "min_out_of_scope_recall is 1"),
    ],
)
def test_the_gate_names_what_is_missed(wired: Wiring, changes: dict[str, float], words: str) -> None:
    fitted = classify.fit_candidate(wired, "requests", classify.read_labels(wired, "requests"))
    wanted = msgspec.structs.replace(wired.configuration.classifiers["requests"], **changes)
    worse = msgspec.structs.replace(fitted.evaluation, accuracy=0.9, out_of_scope_recall=0.9)
    verdict = gate.judge_classifier(worse, wanted)
    assert verdict.state == "failed"
    assert words in verdict.reasons[0]
    none = msgspec.structs.replace(fitted.evaluation, out_of_scope_recall=None)
    said = gate.judge_classifier(none, msgspec.structs.replace(wanted, min_accuracy=0.0))
    assert said.state == ("failed" if "min_out_of_scope_recall" in changes else "passed")


def test_a_classifier_without_a_class_that_a_stream_reads_is_not_registered(wired: Wiring, candidate: Version) -> None:
    text = CONFIGURATION.replace("probability_refund", "probability_complaint")
    path = wired.settings.home / "other.toml"
    path.write_text(text)
    other = Wiring(settings=dataclasses.replace(wired.settings, config_path=path), clock=wired.clock)
    fitted = classify.fit_candidate(other, "requests", classify.read_labels(other, "requests"))
    verdict = classify.judge_candidate(other, "requests", fitted)
    assert verdict == OfflineVerdict(
        state="failed",
        reasons=("streams.requests: content.probability_complaint: no class is written 'complaint'",),
    )
    copied = approve(other, candidate, classify.MODEL)
    report = promote.admit(other, copied, dry_run=True)
    assert report["reasons"] == verdict.reasons
    MlflowClient(wired.settings.tracking_uri).delete_model_version(copied.name, str(copied.number))


def test_bytes_of_another_kind_are_not_released_as_a_classifier(wired: Wiring, candidate: Version) -> None:
    copied = approve(wired, candidate, classify.MODEL)
    wired.registry.annotate(copied, {"turnout.kind": "forecaster"})
    report = promote.admit(wired, wired.registry.version(copied.name, copied.number), dry_run=True)
    assert "it is a classifier, approved was a forecaster" in report["reasons"]
    MlflowClient(wired.settings.tracking_uri).delete_model_version(copied.name, str(copied.number))


def settings_of(wired: Wiring, home: Path) -> Settings:
    shutil.copytree(wired.settings.ledger_path, home / "ledger")
    shutil.copytree(wired.settings.store_path, home / "store")
    return Settings(home=home, config_path=wired.settings.config_path, poll_seconds=0.05)


@pytest.fixture
def shim(wired: Wiring, released: str, tmp_path: Path) -> Application:  # noqa: ARG001 - it must be released
    return server.build(settings_of(wired, tmp_path / "shim"))


def test_it_reads_what_a_shim_is_asked(wired: Wiring, released: str, tmp_path: Path) -> None:
    settings = settings_of(wired, tmp_path / "home")
    plan = Plan.of(wired.configuration).streams["requests"]
    shelf = Shelf(settings.state_path, wired.store)
    held = shelf.classifier(released, plan)
    assert shelf.classifier(released, plan) is held
    event = Event(
        id="e",
        source="s",
        type="shop.request",
        stream="requests",
        text="please refund the sofa",
        attributes={"shop": "no"},
    )
    view = StreamView(mode="observe", classifier=held)
    candidates = (Candidate(destination="people"), Candidate(destination="robot"))
    decision = decider.decide(
        Question(event=event, candidates=candidates), plan, view, None, at=BEGIN, decision_id="d", revision="r"
    ).decision
    assert decision.content == released
    assert decision.categories[0][1] == "refund"
    directly = content.load(wired.store.path(released)).read(event)
    again = plan.features.vectors(event, candidates, BEGIN, directly)
    np.testing.assert_array_equal(again.numbers, np.array(decision.numbers, dtype=np.float64))
    assert [tuple(row) for row in again.categories] == list(decision.categories)


@pytest.mark.parametrize("file", ["card.json", "linear.json", "vocabulary.json", "golden.json"])
def test_damaged_bytes_are_rejected_and_the_store_is_asked_again(
    wired: Wiring, released: str, tmp_path: Path, file: str
) -> None:
    plan = Plan.of(wired.configuration).streams["requests"]
    own = tmp_path / "state" / "bundles" / released
    Shelf(tmp_path / "state", wired.store).classifier(released, plan)
    own.chmod(0o700)
    (own / file).chmod(0o600)
    (own / file).write_bytes((own / file).read_bytes()[:-5])
    assert Shelf(tmp_path / "state", wired.store).classifier(released, plan).digest == released
    with pytest.raises(RejectedError, match="holds no release"):
        Shelf(tmp_path / "empty", type(wired.store)(tmp_path / "nothing")).classifier(released, plan)


def test_a_classifier_that_does_not_answer_its_golden_events_is_rejected(
    wired: Wiring, released: str, tmp_path: Path
) -> None:
    folder = tmp_path / "forged"
    shutil.copytree(wired.store.path(released), folder, ignore=shutil.ignore_patterns(bundle.MANIFEST_FILE))
    folder.chmod(0o700)
    golden = folder / "golden.json"
    golden.chmod(0o600)
    golden.write_text(golden.read_text().replace('"refund"', '"Track it"'))
    store = type(wired.store)(tmp_path / "store")
    digest = store.put(folder, digest=bundle.seal(folder, kind="classifier"))
    with pytest.raises(RejectedError, match="golden event"):
        Shelf(tmp_path / "state", store).classifier(digest, Plan.of(wired.configuration).streams["requests"])
    with pytest.raises(RejectedError, match="is a classifier, not a router"):
        Shelf(tmp_path / "state", store).router(digest, Plan.of(wired.configuration).streams["requests"])


def play(wired: Wiring, view: StreamView, n: int, begin: datetime, seed: int) -> list[Decision | Outcome]:
    """The robot is good at refunds and at nothing else."""
    rng, plan = np.random.default_rng(seed), Plan.of(wired.configuration)
    told: list[Decision | Outcome] = []
    for number in range(n):
        label = str(rng.choice(list(VERBS)))
        event = Event(
            id=f"{seed}-{number}",
            source="s",
            type="shop.request",
            stream="requests",
            text=text_of(label, rng) if rng.uniform() < 0.95 else None,
            attributes={"shop": "no"},
        )
        at = begin + timedelta(minutes=number)
        decision = decider.decide(
            Question(event=event, candidates=(Candidate(destination="people"), Candidate(destination="robot"))),
            plan.streams["requests"],
            view,
            None,
            at=at,
            decision_id=f"d{seed}-{number}",
            revision=plan.revision,
        ).decision
        chance = 0.6 if decision.assigned == "people" else 0.95 if label == "refund" else 0.1
        success = bool(rng.uniform() < chance)
        outcome = Outcome(
            decision_id=decision.decision_id,
            served=decision.assigned,
            observed_at=at + timedelta(minutes=5),
            success=success,
        )
        told += [decision, outcome]
    return told


def ingest(wired: Wiring, told: list[Decision | Outcome], name: str) -> None:
    log = wired.settings.home / name
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in told))
    last = told[-1]
    assert isinstance(last, Outcome)
    wired.clock.advance(last.observed_at)  # type: ignore[attr-defined]  # a ReplayClock
    ingestion.ingest(wired.warehouse, [log], wired.configuration, now=wired.now)


def view_of(wired: Wiring, folder: Path) -> StreamView:
    """What a shim serves of the ledger's head."""
    application = server.build(Settings(home=folder, config_path=wired.settings.config_path))
    follower = application.handler._shim.releases
    follower.poll()  # type: ignore[attr-defined]  # a Follower
    assert follower.rejections() == {}
    return follower.view.streams["requests"]


@pytest.fixture(scope="module")
def rows(wired: Wiring, released: str, tmp_path_factory: pytest.TempPathFactory) -> TrainingRows:
    """What may be trained on, of decisions that nothing read and of others that the released classifier did."""
    shelf = Shelf(tmp_path_factory.mktemp("state"), wired.store)
    held = shelf.classifier(released, Plan.of(wired.configuration).streams["requests"])
    ingest(wired, play(wired, StreamView(mode="observe"), 50, BEGIN, seed=1), "unread.jsonl")
    read = play(wired, StreamView(mode="observe", classifier=held), N_DECISIONS, BEGIN + timedelta(hours=2), seed=2)
    ingest(wired, read, "first.jsonl")
    return retrain.read_rows(wired, "requests", wired.snapshot())


def test_rows_that_another_classifier_or_none_has_read_are_left_out_and_counted(rows: TrainingRows) -> None:
    assert (rows.table.num_rows, rows.left_out) == (N_DECISIONS, {"other_classifier": 50})


@pytest.fixture(scope="module")
def late(wired: Wiring, rows: TrainingRows) -> Version:
    """A router that pins the first classifier is the champion; the version is a second approval of the same bytes."""
    log = retrain.read_log(wired, "requests", wired.snapshot(), rows)
    fitted = retrain.fit_candidate(wired, "requests", log)
    quality = retrain.validate_rows(wired, "requests", rows)
    compared = retrain.compare_candidate(wired, "requests", fitted)
    verdict = gate.judge(compared, wired.configuration.streams["requests"].gate)
    assert verdict.state == "passed", verdict.reasons
    number = retrain.register_candidate(wired, "requests", fitted, compared, verdict, quality)
    approved = approve(wired, wired.registry.version(retrain.CANDIDATE_MODEL, number), promote.ROUTER)
    assert promote.admit(wired, approved, dry_run=False)["state"] == "admitted"
    wired.append(transitions.promote, stream="requests", reason="test", evidence={})
    client = MlflowClient(wired.settings.tracking_uri)
    copied = client.copy_model_version(f"models:/{retrain.CANDIDATE_MODEL}/{number}", promote.ROUTER)
    return wired.registry.version(promote.ROUTER, int(copied.version))


def test_a_router_pins_the_classifier_whose_answers_it_learned_from(
    wired: Wiring, late: Version, released: str
) -> None:
    champion = wired.live("requests").champion
    assert champion == late.tags["turnout.digest"]
    assert wired.store.verify(champion).pins == {"classifier": released}
    card = read_card(wired.store.path(champion))
    assert set(card.categories["about"]) == {"Track it", "out of scope", "refund"}


@pytest.fixture(scope="module")
def other(wired: Wiring, late: Version) -> str:  # noqa: ARG001 - the first must be pinned before
    """Another classifier is released."""
    (wired.settings.home / "labels.csv").write_text(labelled(seed=7))
    second = register(wired)
    approve(wired, second, classify.MODEL)
    assert release(wired)["state"] == "admitted"
    return second.tags["turnout.digest"]


def test_a_router_that_pins_the_classifier_before_is_refused(
    wired: Wiring, late: Version, released: str, other: str
) -> None:
    words = f"it was fitted on the answers of {released}, released for the stream is {other}"
    assert words in promote.admit(wired, late, dry_run=False)["reasons"]
    assert words in wired.registry.version(late.name, late.number).tags[REFUSED_TAG]


def test_the_champion_goes_on_with_its_own_and_the_next_learns_from_the_other(
    wired: Wiring, released: str, other: str, tmp_path: Path
) -> None:
    view = view_of(wired, settings_of(wired, tmp_path / "shim").home)
    assert view.champion is not None
    assert (digest_of(view.champion.classifier), digest_of(view.classifier)) == (released, other)
    begin = wired.now + timedelta(hours=2)
    ingest(wired, play(wired, dataclasses.replace(view, mode="on"), N_DECISIONS, begin, seed=3), "second.jsonl")
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "requests", source)
    assert (rows.table.num_rows, rows.left_out) == (N_DECISIONS, {"other_classifier": N_DECISIONS + 50})
    fitted = retrain.fit_candidate(wired, "requests", retrain.read_log(wired, "requests", source, rows))
    assert bundle.verify(fitted.folder, fitted.digest).pins == {"classifier": other}
    assert set(fitted.holdout.champion) == {wired.live("requests").champion}
    compared = retrain.compare_candidate(wired, "requests", fitted)
    assert compared.n_decisions == fitted.holdout.n_decisions
    assert compared.champion == comparison.compare(fitted.holdout, fitted.router, comparison.AS_LOGGED).champion
    stranger = dataclasses.replace(fitted.holdout, champion=np.full(fitted.holdout.n_decisions, None))
    with pytest.raises(ValueError, match="took part in none of the holdout"):
        retrain.compare_candidate(wired, "requests", dataclasses.replace(fitted, holdout=stranger))


def ask(application: Application, **data: object) -> dict[str, object]:
    event = {"specversion": "1.0", "id": str(len(str(data))), "source": "s", "type": "shop.request", "data": data}
    body = json.dumps({"event": event}).encode()
    response = application.handler.handle(Request(method="POST", path="/v1/decisions", headers=JSON, body=body))
    answer: dict[str, object] = json.loads(response.body)
    return {"status": response.status, **answer}


def recall(application: Application, decision_id: object) -> dict[str, Any]:
    request = Request(method="GET", path=f"/v1/decisions/{decision_id}", headers=JSON)
    decision: dict[str, Any] = json.loads(application.handler.handle(request).body)
    return decision


def test_a_shim_answers_whatever_the_text_is(shim: Application) -> None:
    shim.handler._shim.releases.poll()  # type: ignore[attr-defined]  # a Follower
    for message in ("please refund the sofa", "", None, "x" * 10_000_000, "支付 \u0000 \U0001f600"):
        assert ask(shim, message=message)["destinations"]
    assert ask(shim)["destinations"]
    for message, kind in ((7, "int"), (["a"], "list"), ({"a": 1}, "dict")):
        refused = ask(shim, message=message)
        assert (refused["status"], refused["detail"]) == (422, f"data.message must be text, got {kind}")


def test_a_shim_in_which_nothing_of_the_classifier_is_in_c_decides_the_same(
    wired: Wiring, released: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for form in (scorer._scorer, None):
        monkeypatch.setattr(scorer, "_scorer", form)
        application = server.build(settings_of(wired, tmp_path / str(len(told))))
        application.handler._shim.releases.poll()  # type: ignore[attr-defined]  # a Follower
        messages = ("please refund the sofa", "where is it", "支付", "x" * 3_000, "the the the order")
        decisions = [recall(application, ask(application, message=message)["decision_id"]) for message in messages]
        told.append([(each["content"], each["numbers"], each["categories"]) for each in decisions])
    assert told[0] == told[1]
    assert {content for content, _, _ in told[0]} == {wired.classifier("requests") or released}
    assert len({str((numbers, categories)) for _, numbers, categories in told[0]}) > 2


def test_a_shim_whose_classifier_is_gone_says_so_and_answers(wired: Wiring, released: str, tmp_path: Path) -> None:
    settings = settings_of(wired, tmp_path / "home")
    lost = settings.store_path / (wired.classifier("requests") or released)
    lost.chmod(0o700)
    shutil.rmtree(lost)
    application = server.build(settings)
    application.handler._shim.releases.poll()  # type: ignore[attr-defined]  # a Follower
    answered = ask(application, message="please refund the sofa")
    assert answered["destinations"]
    decision = recall(application, answered["decision_id"])
    assert decision["categories"][0][1] is None
    assert "content" not in decision
    status = json.loads(application.handler.handle(Request(method="GET", path="/status")).body)
    assert any("requests: classifier" in problem and "holds no release" in problem for problem in status["problems"])


def test_a_classifier_no_better_than_the_most_frequent_class_fails(wired: Wiring) -> None:
    fitted = classify.fit_candidate(wired, "requests", classify.read_labels(wired, "requests"))
    guess = msgspec.structs.replace(fitted.evaluation, accuracy=0.85, accuracy_low=0.8, majority_share=0.8)
    verdict = gate.judge_classifier(guess, wired.configuration.classifiers["requests"])
    assert verdict.state == "failed"
    assert "which the most frequent class alone reaches" in verdict.reasons[0]


def test_labels_are_found_beside_the_configuration(wired: Wiring) -> None:
    assert isinstance(classify.read_labels(wired, "requests"), labels.Labelled)
