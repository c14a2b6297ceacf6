"""From an approval in a real registry to a canary in a real ledger, and every reason not to."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from mlflow import MlflowClient

from features import ingestion
from features.clock import ReplayClock
from features.records import Decision, Outcome
from flows import canary, promote, retrain
from flows import settings as environment
from flows.canary import LadderError
from flows.promote import REFUSED_TAG
from flows.wiring import Wiring
from models.registered import Version
from models.releases import transitions
from models.releases.ledger import LedgerConflictError
from models.releases.transitions import Attribution, TransitionError
from validation import gate
from validation.trust import ANONYMOUS

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

Play = Callable[..., list[tuple[Decision, Outcome]]]
N_DECISIONS = 700


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory, tiny_text: str, play: Play) -> Wiring:
    home = tmp_path_factory.mktemp("home")
    (home / "turnout.toml").write_text(tiny_text)
    chosen = environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})
    made = Wiring(settings=chosen, clock=ReplayClock(at=datetime(2026, 1, 1, tzinfo=UTC)))
    told = play(made.configuration, N_DECISIONS)
    made.clock.advance(told[-1][1].observed_at)  # type: ignore[attr-defined]  # a ReplayClock
    log = home / "log.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for pair in told for record in pair))
    ingestion.ingest(made.warehouse, [log], made.configuration, now=made.now)
    return made


@pytest.fixture(scope="module")
def candidate(wired: Wiring) -> Version:
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "orders", source)
    quality = retrain.validate_rows(wired, "orders", rows)
    assert quality.state == "passed", quality.failures
    fitted = retrain.fit_candidate(wired, "orders", retrain.read_log(wired, "orders", source, rows))
    compared = retrain.compare_candidate(wired, "orders", fitted)
    verdict = gate.judge(compared, wired.configuration.streams["orders"].gate)
    assert verdict.state == "passed", verdict.reasons
    number = retrain.register_candidate(wired, "orders", fitted, compared, verdict, quality)
    return wired.registry.version(retrain.CANDIDATE_MODEL, number)


def press_promote(wired: Wiring, candidate: Version) -> Version:
    """What the button on MLflow's page does: it copies the version, and knows nobody's name."""
    client = MlflowClient(wired.settings.tracking_uri)
    copied = client.copy_model_version(f"models:/{candidate.name}/{candidate.number}", promote.ROUTER)
    return wired.registry.version(promote.ROUTER, int(copied.version))


def test_the_same_log_gives_the_same_digest_with_the_tables_of_every_booster(wired: Wiring, candidate: Version) -> None:
    source = wired.snapshot()
    rows = retrain.read_rows(wired, "orders", source)
    again = retrain.fit_candidate(wired, "orders", retrain.read_log(wired, "orders", source, rows))
    assert again.digest == candidate.tags["turnout.digest"]
    boosters, tables = ({path.stem for path in again.folder.glob(kind)} for kind in ("*.txt", "*.masks"))
    assert boosters == tables != set()


def test_nothing_is_pending_before_anybody_approved(wired: Wiring, candidate: Version) -> None:
    assert candidate.tags["turnout.verdict"] == "passed"
    assert promote.pending_versions(wired, promote.ROUTER, "orders") == []


def test_a_refused_step_begins_no_ledger(wired: Wiring) -> None:
    with pytest.raises(TransitionError, match="no canary"):
        wired.append(transitions.promote, stream="orders", reason="too soon", evidence={})
    assert wired.generation == 0


def test_bytes_changed_after_the_approval_are_refused_on_the_version(wired: Wiring, candidate: Version) -> None:
    approved = press_promote(wired, candidate)
    downloaded = wired.registry.download(approved, wired.workspace("look"))
    artifacts = next((wired.settings.home / "mlflow").rglob("bundle/card.json"))
    original = artifacts.read_bytes()
    artifacts.write_bytes(original.replace(b'"seed"', b'"sEed"'))
    try:
        told = promote.admit(wired, approved, dry_run=False)
    finally:
        artifacts.write_bytes(original)
    assert told["state"] == "refused"
    assert "its bytes hash to no bundle" in told["reasons"][0]
    assert REFUSED_TAG in wired.registry.version(approved.name, approved.number).tags
    assert wired.generation == 0
    assert downloaded.bundle.exists()
    assert promote.pending_versions(wired, promote.ROUTER, "orders") == []  # it is not tried again


def test_old_evidence_is_refused(wired: Wiring, candidate: Version) -> None:
    approved = press_promote(wired, candidate)
    later = Wiring(settings=wired.settings, clock=ReplayClock(at=wired.now + timedelta(days=30)))
    told = promote.admit(later, approved, dry_run=True)
    assert told["state"] == "would_refuse"
    assert "its evidence is 30 days" in told["reasons"][0]


def test_the_button_starts_a_canary_and_says_that_nobody_knows_who_pressed_it(
    wired: Wiring, candidate: Version
) -> None:
    approved = press_promote(wired, candidate)
    told = promote.admit(wired, approved, dry_run=False)
    assert told["state"] == "admitted", told["reasons"]
    live = wired.live("orders")
    assert (live.mode, live.canary) == ("canary", candidate.tags["turnout.digest"])
    assert wired.store.verify(live.canary or "").kind == "router"
    head = wired.ledger.head()
    assert head is not None
    assert head.entry.evidence["approver"] == ANONYMOUS
    assert approved.number not in [v.number for v in promote.pending_versions(wired, promote.ROUTER, "orders")]
    promote.mirror_aliases(wired, "orders")
    mirrored = MlflowClient(wired.settings.tracking_uri).get_model_version_by_alias("router", "challenger-orders")
    assert mirrored.tags["turnout.digest"] == live.canary


def test_a_canary_without_closed_decisions_waits(wired: Wiring) -> None:
    seen = canary.look(wired, "orders")
    assert seen.verdict.state == "no_data"
    told = canary.act(wired, "orders", seen, dry_run=False)
    assert (told["state"], told["generation"]) == ("no_data", wired.generation)


def test_of_two_promoters_with_one_head_the_second_is_told(wired: Wiring) -> None:
    history = wired.ledger.history()
    by = Attribution(actor="ada", reason="first", at=wired.now)
    first = transitions.advance_canary(history, stream="orders", share=0.05, by=by)
    second = transitions.withdraw(history, stream="orders", by=by)
    wired.ledger.append(first, expected_head=history.hash)
    with pytest.raises(LedgerConflictError, match="'ada' made generation"):
        wired.ledger.append(second, expected_head=history.hash)


def test_a_share_that_is_on_no_rung_any_more_is_named(wired: Wiring) -> None:
    wired.append(transitions.advance_canary, stream="orders", share=0.77, reason="by hand", evidence={})
    with pytest.raises(LadderError, match=r"streams\.orders\.gate\.ladder has no rung of 0\.77"):
        canary.act(wired, "orders", canary.look(wired, "orders"), dry_run=True)


def test_an_approval_against_another_champion_is_refused(wired: Wiring, candidate: Version) -> None:
    wired.append(transitions.promote, stream="orders", reason="for the test", evidence={})
    approved = press_promote(wired, candidate)
    told = promote.admit(wired, approved, dry_run=True)
    assert told["state"] == "would_refuse"
    assert "it was judged against static, live is" in told["reasons"][0]
