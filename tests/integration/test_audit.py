"""The audit: which version decided an event, who approved it, on what evidence, and what else would have been done."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from features import ingestion
from features.records import Decision
from features.warehouse import Warehouse
from flows import audit
from flows import settings as environment
from flows.audit import UnknownDecisionError
from flows.cli import auditing
from flows.settings import Settings
from flows.wiring import Wiring
from models.releases import bundle, transitions
from models.releases.ledger import DamagedLedgerError

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

SAID = {"version": "router/3 of 2026-01-01", "approver": "bob", "report": "e" * 64}


@pytest.fixture(scope="module")
def digests(learned: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two releases of one router, by digest: the second says something else in its card's training notes."""
    folder = learned.parts[0].folder
    other = tmp_path_factory.mktemp("other") / "bundle"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    (other / "note.txt").write_text("another")
    return {learned.parts[0].digest: folder, bundle.seal(other, kind="router"): other}


@pytest.fixture(scope="module")
def wired(
    settle: Callable[[Settings], Wiring], digests: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Wiring:
    """A home in which the first router was promoted, then the second, and events were decided all along."""
    home = tmp_path_factory.mktemp("audited")
    made = settle(environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")}))
    first, second = digests
    for digest, folder in digests.items():
        made.store.put(folder, digest=digest)
        why: dict[str, Any] = {"stream": "orders", "reason": "approved by bob", "evidence": SAID}
        made.append(transitions.start_canary, digest=digest, share=0.1, **why)
        made.append(transitions.promote, **why)
    (plain,) = audit._find(made.warehouse, "here", event_id="order-0-1", decision_id=None, event_source=None)
    sure = {
        "static": plain.policies["static"],
        "champion": plain.policies["static"],
        "challenger": plain.policies["static"],
    }
    told = [
        change(plain, "canary", arm="challenger", generation=2, challenger=first, policies=sure),
        change(plain, "first", arm="champion", generation=3, champion=first, policies=sure),
        change(plain, "second", arm="champion", generation=5, champion=second, policies=sure),
    ]
    log = home / "more.jsonl"
    log.write_bytes(b"".join(msgspec.json.encode(decision) + b"\n" for decision in told))
    report = ingestion.ingest(made.warehouse, [log], made.configuration, now=made.now)
    assert not report.quarantined, report
    return made


def change(decision: Decision, name: str, **changes: Any) -> Decision:
    return msgspec.structs.replace(decision, decision_id=name, event_id=name, **changes)


def test_the_static_routes_answer_to_the_configuration_alone(wired: Wiring) -> None:
    (told,) = audit.audit(wired, event_id="order-0-1")
    assert told["authority"] == {
        "arm": "static", "generation": 0, "digest": "", "version": "", "approver": "", "report": "", "began": "", "promoted": "",
    }  # fmt: skip
    assert len(told["outcomes"]) == 1


def test_a_canarys_decision_names_its_version_its_approver_and_what_the_others_would_have_done(
    wired: Wiring, digests: dict[str, Path]
) -> None:
    (told,) = audit.audit(wired, decision_id="canary")
    by = told["authority"]
    assert (by["digest"], by["version"], by["approver"], by["report"]) == (
        next(iter(digests)), SAID["version"], "bob", SAID["report"],
    )  # fmt: skip
    assert by["began"].startswith("generation 2, ")
    assert by["promoted"] == ""  # that came later than the decision
    assert [a["policy"].split()[1] for a in told["would_have"]] == ["champion", "static"]


def test_a_champions_decision_says_what_the_champion_before_would_have_done(
    wired: Wiring, digests: dict[str, Path]
) -> None:
    first, second = digests
    (told,) = audit.audit(wired, event_id="second", event_source="shop")
    assert told["authority"]["digest"] == second
    assert told["authority"]["promoted"].startswith("generation 5, ")
    before, static = told["would_have"]
    assert before["policy"] == f"the champion before, {first[:12]}"
    assert before["known_from"] == "asked again, without exploration"
    assert before["destination"] in ("card", "bank")
    assert static["policy"] == "the static routes"


def test_the_first_champion_followed_the_static_routes(wired: Wiring) -> None:
    (told,) = audit.audit(wired, event_id="first")
    assert [a["policy"] for a in told["would_have"]] == ["the static routes"]


def test_what_is_not_in_the_log_is_told_by_its_name(wired: Wiring) -> None:
    with pytest.raises(UnknownDecisionError, match="no decision about event 'nobody' of 'shop' in the warehouse"):
        audit.audit(wired, event_id="nobody", event_source="shop")
    with pytest.raises(UnknownDecisionError, match="no decision about decision 'nothing'"):
        audit.audit(wired, decision_id="nothing")


def test_while_the_warehouse_is_in_use_its_latest_snapshot_answers(
    wired: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    wired.snapshot()
    impatient = Warehouse(wired.settings.warehouse_path, lock_seconds=0.2)
    monkeypatch.setitem(wired.__dict__, "warehouse", impatient)
    hold = (
        "import sys; from pathlib import Path; from features.warehouse import Warehouse\n"
        "with Warehouse(Path(sys.argv[1])).transaction(): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold, str(wired.settings.warehouse_path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        (told,) = audit.audit(wired, event_id="second")
    finally:
        holder.communicate("")
    assert told["read_from"].startswith("the snapshot of ")
    assert told["authority"]["approver"] == "bob"


def test_the_table_and_the_json_say_the_same(
    wired: Wiring, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(auditing.telling, "attach", lambda: None)
    monkeypatch.setattr("flows.wiring.wire", lambda: wired)
    assert auditing.audit("second", as_json=True) == 0
    (told,) = json.loads(capsys.readouterr().out)["decisions"]
    assert auditing.audit("second") == 0
    table = capsys.readouterr().out
    for word in (told["authority"]["approver"], told["authority"]["digest"][:12], told["assigned"], "would have"):
        assert word in table


def test_a_ledger_that_was_tampered_with_proves_nothing(wired: Wiring) -> None:
    path = wired.settings.ledger_path / "00000003.json"
    honest = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(honest.replace(b"bob", b"eve"))
    try:
        with pytest.raises(DamagedLedgerError, match="generation 3"):
            audit.audit(wired, event_id="second")
    finally:
        path.write_bytes(honest)
