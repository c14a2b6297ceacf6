"""Faults of a promotion: what is stale, replayed, rejected, paused, revoked, damaged or gone never reaches a stream."""

import json
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from sqlalchemy import event

from features.clock import ReplayClock
from flows import canary, promote, publishing, retrain
from flows import settings as environment
from flows.settings import Settings
from flows.wiring import Wiring
from models.registered import REFUSED_TAG, RegistryUnavailableError, Version
from models.registry import Registry
from models.releases import transitions
from models.releases.ledger import DamagedLedgerError, Ledger
from models.releases.refusal import RuleBrokenError
from models.releases.transitions import TransitionError
from validation.canary import Verdict

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's and its database's own

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def template(
    settle: Callable[[Settings], Wiring], learned: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Version]:
    """A home with a past and one registered candidate, which every test copies: migrations cost seconds."""
    home = tmp_path_factory.mktemp("template") / "home"
    wired = settle(settings_of(home))
    wired.snapshot()
    return home, learned.register(wired)


def settings_of(home: Path) -> Settings:
    return environment.read({"TURNOUT_HOME": str(home), "TURNOUT_CONFIG": str(home / "turnout.toml")})


@pytest.fixture
def wired(template: tuple[Path, Version], tmp_path: Path) -> Wiring:
    """A copy of that home; its registry's artifacts are its own."""
    home, candidate = template
    mine = tmp_path / "home"
    shutil.copytree(home, mine)
    with sqlite3.connect(mine / "mlflow" / "mlflow.db") as database:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            database.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(home), str(mine)))  # noqa: S608 - our own names
    database.close()
    at = Wiring(settings=settings_of(mine), clock=ReplayClock(at=candidate_at(candidate)), actor="promoter")
    assert candidate.tags["turnout.verdict"] == "passed"
    return at


def candidate_at(candidate: Version) -> datetime:
    return datetime.fromisoformat(candidate.tags["turnout.evidence_at"])


def press(wired: Wiring) -> Version:
    """What the button does."""
    copied = MlflowClient(wired.settings.tracking_uri).copy_model_version("models:/router-candidate/1", promote.ROUTER)
    return wired.registry.version(promote.ROUTER, int(copied.version))


def artifact(wired: Wiring, name: str) -> Path:
    return next((wired.settings.home / "mlflow").rglob(f"bundle/{name}"))


def test_the_candidates_page_says_it_all_within_two_minutes(wired: Wiring) -> None:
    candidate = wired.registry.version("router-candidate", 1)
    for part in ("**PASSED**", "95 % interval", "**Where it loses**", "**Load**", "at 100 % destination", "**Drift**"):
        assert part in candidate.description
    assert len(candidate.description) < 3_000  # two minutes, at two hundred words a minute
    assert {"turnout.gain", "turnout.disagreement", "turnout.harmed_slices", "turnout.drift"} <= set(candidate.tags)
    evidence = wired.registry.download(candidate, wired.workspace("look")).evidence
    assert {path.name for path in evidence.iterdir()} >= {
        "report.json", "report.html", "model_card.md", "calibration.png", "load.png", "difference.png",
    }  # fmt: skip
    report = json.loads((evidence / "report.json").read_text())
    assert report["findings"]["disagreements"]
    assert report["findings"]["slices"]
    assert {"snapshot_sha256"} <= set(report["circumstances"]["data"])
    assert len(report["circumstances"]["code"]) == 64
    page = (evidence / "report.html").read_text()
    assert all(
        f"<h2>{part}" in page for part in ("Load at 100 %", "Value per slice", "Cases", "Drift", "Circumstances")
    )


def test_p01_evidence_that_expired_is_refused_on_the_version_and_stays_refused(wired: Wiring) -> None:
    approved = press(wired)
    late = replace(wired, clock=ReplayClock(at=wired.now + timedelta(days=30)))
    assert promote.admit(late, approved, dry_run=False)["state"] == "refused"
    said = wired.registry.version(approved.name, approved.number)
    assert "its evidence is 30 days" in said.tags[REFUSED_TAG]
    assert said.description.startswith("**REFUSED** by the promotion of ")
    assert "its evidence is 30 days" in said.description
    assert "95 % interval" in said.description  # what the reviewer read is still there
    assert promote.pending_versions(wired, promote.ROUTER, "orders") == []


def test_p07_an_approval_pressed_twice_is_used_once(wired: Wiring) -> None:
    first, second = press(wired), press(wired)
    assert [v.number for v in promote.pending_versions(wired, promote.ROUTER, "orders")] == [
        second.number,
        first.number,
    ]
    assert promote.admit(wired, second, dry_run=False)["state"] == "admitted"
    wired.append(transitions.withdraw, stream="orders", reason="it harmed", evidence={})
    assert promote.pending_versions(wired, promote.ROUTER, "orders") == []  # the first is no second approval
    again = press(wired)
    assert [v.number for v in promote.pending_versions(wired, promote.ROUTER, "orders")] == [again.number]


def test_p09_an_approval_is_found_without_any_webhook(wired: Wiring) -> None:
    approved = press(wired)
    (found,) = promote.pending_versions(wired, promote.ROUTER, "orders")
    assert found.number == approved.number


def test_p12_what_was_revoked_is_neither_promoted_nor_rolled_back_to(wired: Wiring) -> None:
    approved = press(wired)
    digest = approved.tags["turnout.digest"]
    wired.append(transitions.revoke, digest=digest, reason="leaks", evidence={})
    assert f"{digest} is revoked" in promote.admit(wired, approved, dry_run=True)["reasons"]
    for target, words in ((digest, "is revoked"), ("0" * 64, "never was the champion")):
        with pytest.raises(RuleBrokenError, match=words):
            wired.append(transitions.rollback, stream="orders", to=target, reason="back", evidence={})


def test_p12_a_champion_that_was_revoked_is_nothing_to_roll_back_to(wired: Wiring) -> None:
    approved = press(wired)
    promote.admit(wired, approved, dry_run=False)
    wired.append(transitions.promote, stream="orders", reason="won", evidence={})
    digest = approved.tags["turnout.digest"]
    wired.append(transitions.revoke, digest=digest, reason="leaks", evidence={})
    assert wired.live("orders").champion is None
    with pytest.raises(RuleBrokenError, match=f"{digest} is revoked"):
        wired.append(transitions.rollback, stream="orders", to=digest, reason="back", evidence={})


def test_a_rejection_in_the_ledger_holds_against_any_approval(wired: Wiring) -> None:
    approved = press(wired)
    digest = approved.tags["turnout.digest"]
    wired.append(transitions.reject, digest=digest, reason="too few nights", evidence={})
    told = promote.admit(wired, approved, dry_run=False)
    assert told["reasons"] == ("it was rejected by promoter: too few nights",)
    assert "too few nights" in wired.registry.version(approved.name, approved.number).description
    wired.append(transitions.readmit, digest=digest, reason="nights were added", evidence={})
    assert promote.admit(wired, approved, dry_run=True)["state"] == "would_admit"


@pytest.mark.parametrize(
    ("verdict", "follows"), [("promote", "paused"), ("inconclusive", "paused"), ("rollback", "rollback")]
)
def test_a_paused_canary_keeps_its_share_and_can_only_be_withdrawn(
    wired: Wiring, monkeypatch: pytest.MonkeyPatch, verdict: Any, follows: str
) -> None:
    promote.admit(wired, press(wired), dry_run=False)
    seen = canary.look(wired, "orders")
    seen = replace(seen, verdict=replace(seen.verdict, state=verdict))
    monkeypatch.setattr(canary.canary, "next_rung", lambda *_: 1)  # it would climb
    wired.append(transitions.pause, stream="orders", reason="stocktaking", evidence={})
    share = wired.live("orders").canary_share
    told = canary.act(wired, "orders", seen, dry_run=False)
    assert told["state"] == follows
    if follows == "paused":
        assert told["paused"] == "promoter: stocktaking"
        assert wired.live("orders").canary_share == share
    else:
        assert wired.live("orders").canary is None


def test_no_approval_is_admitted_while_its_stream_is_paused(wired: Wiring) -> None:
    approved = press(wired)
    wired.append(transitions.pause, stream="orders", reason="stocktaking", evidence={})
    with pytest.raises(TransitionError, match="paused by promoter: stocktaking"):
        promote.admit(wired, approved, dry_run=False)
    assert REFUSED_TAG not in wired.registry.version(approved.name, approved.number).tags  # it waits


def test_r01_with_mlflow_down_nothing_is_lost_and_the_same_bytes_register_later(wired: Wiring, learned: Any) -> None:
    down = replace(wired, settings=replace(wired.settings, tracking_uri="http://127.0.0.1:9"))
    with pytest.raises(RegistryUnavailableError, match=r"127\.0\.0\.1:9"):
        learned.register(down)
    assert learned.register(wired).number == 1  # it was there already, of the same digest


@contextmanager
def silent_server(*, resets: bool) -> Iterator[str]:
    """A server that takes connections and says nothing, or cuts them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        held: list[socket.socket] = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    if resets:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        connection.close()
                    else:
                        held.append(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in held:
            connection.close()


@pytest.mark.parametrize("behaviour", ["hanging", "resetting"])
def test_r02_a_registry_that_hangs_or_cuts_is_given_up_and_asked_again_later(
    monkeypatch: pytest.MonkeyPatch, behaviour: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with silent_server(resets=behaviour == "resetting") as address:
        registry = Registry(address)
        for _ in range(2):  # it is no worse for having failed once
            with pytest.raises(RegistryUnavailableError, match="would not list the versions of router"):
                registry.versions("router")


def test_r02_the_flows_ask_the_registry_more_than_once_and_never_train_or_judge_twice() -> None:
    assert (promote._pending.retries, promote._mirror.retries, retrain._register.retries) == (3, 3, 3)
    assert (promote._admit.retries, promote._act.retries, retrain._fit.retries) == (0, 0, 0)


def test_r06_a_bundle_of_another_kind_than_was_approved_is_refused_by_both_names(wired: Wiring) -> None:
    approved = press(wired)
    wired.registry.annotate(approved, {"turnout.kind": "forecaster"})
    told = promote.admit(wired, wired.registry.version(approved.name, approved.number), dry_run=True)
    assert "it is a router, approved was a forecaster" in told["reasons"]


def test_a_refusal_stands_on_the_flows_run_with_every_reason() -> None:
    shown = publishing.as_markdown({"state": "refused", "reasons": ("nobody approved it", "its evidence is old")})
    assert "| reasons | nobody approved it; its evidence is old |" in shown


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda data: data[: len(data) // 2], "r03 truncated"),
        (lambda data: data.replace(b"tree", b"eert", 1), "r04 the same length"),
        (lambda data: b"\x80\x05" + data, "r12 a pickle's first bytes"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bytes_that_are_not_those_approved_never_reach_the_store(
    wired: Wiring, damage: Callable[[bytes], bytes], name: str
) -> None:
    approved = press(wired)
    trees = next((wired.settings.home / "mlflow").rglob("bundle/*.txt"))
    trees.write_bytes(damage(trees.read_bytes()))
    told = promote.admit(wired, approved, dry_run=False)
    assert told["state"] == "refused", name
    assert "its bytes hash to no bundle" in told["reasons"][0]
    assert wired.store.digests() == ()


def test_r12_an_unknown_file_in_an_approved_bundle_is_refused(wired: Wiring) -> None:
    approved = press(wired)
    artifact(wired, "card.json").with_name("model.pkl").write_bytes(b"\x80\x05.")
    assert "its bytes hash to no bundle" in promote.admit(wired, approved, dry_run=True)["reasons"][0]


def test_r08_a_version_that_is_deleted_while_live_keeps_serving(wired: Wiring) -> None:
    approved = press(wired)
    promote.admit(wired, approved, dry_run=False)
    MlflowClient(wired.settings.tracking_uri).delete_model_version("router", str(approved.number))
    digest = approved.tags["turnout.digest"]
    assert wired.store.verify(digest).kind == "router"
    assert canary.look(wired, "orders").verdict.state == "no_data"
    promote.mirror_aliases(wired, "orders")
    assert wired.live("orders").canary == digest


def test_r09_an_alias_set_by_hand_is_put_back_by_the_next_promotion(wired: Wiring) -> None:
    first, other = press(wired), press(wired)
    promote.admit(wired, other, dry_run=False)
    client = MlflowClient(wired.settings.tracking_uri)
    client.set_registered_model_alias("router", "champion-orders", str(first.number))
    assert wired.live("orders").champion is None
    (alert,) = promote.mirror_aliases(wired, "orders")
    assert (
        alert
        == f"the alias champion-orders names router/{first.number}: the ledger releases none, and it was taken back"
    )
    aliases = client.get_registered_model("router").aliases
    assert "champion-orders" not in aliases
    assert set(aliases) == {"challenger-orders"}


def test_r11_a_ledger_restored_from_a_backup_is_refused_by_what_a_shim_served(wired: Wiring, tmp_path: Path) -> None:
    promote.admit(wired, press(wired), dry_run=False)
    shutil.copytree(wired.settings.ledger_path, tmp_path / "backup")
    wired.append(transitions.promote, stream="orders", reason="won", evidence={})
    head = wired.ledger.head()
    assert head is not None
    with pytest.raises(DamagedLedgerError, match="a shim served it as"):
        Ledger(tmp_path / "backup").verify(served=[(head.entry.generation, head.hash)])


REGISTERING = """
import os, signal, sys
from pathlib import Path
from mlflow import MlflowClient
from models.registry import Registry
registry, point = Registry(sys.argv[1]), sys.argv[2]
original = getattr(MlflowClient, point)
def dying(self, *arguments, **more):
    if sys.argv[3] == "after":
        original(self, *arguments, **more)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(MlflowClient, point, dying)
registry.log_candidate("router-candidate", Path(sys.argv[4]), Path(sys.argv[4]), metrics={}, params={},
    tags={"turnout.digest": "d" * 64, "turnout.evidence": "e" * 64}, description="")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "moment", "n_left"),
    [
        ("create_run", "after", 1),
        ("log_artifacts", "after", 1),
        ("create_model_version", "before", 0),
        ("create_model_version", "after", 0),
    ],
)
def test_r10_a_registration_that_is_killed_leaves_only_whole_versions_and_leftovers_to_reap(
    wired: Wiring, tmp_path: Path, point: str, moment: str, n_left: int
) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "card.json").write_text("{}")
    uri = wired.settings.tracking_uri
    arguments = [sys.executable, "-W", "ignore", "-c", REGISTERING, uri, point, moment, str(folder)]
    died = subprocess.run(arguments, cwd=REPOSITORY, check=False, capture_output=True)
    assert died.returncode == -9, died.stderr
    survivor = Registry(uri)
    for version in survivor.versions("router-candidate"):
        assert survivor.download(version, tmp_path / "whole").bundle.joinpath("card.json").exists()
    reaped = survivor.reap(started_before=datetime.now(UTC) + timedelta(minutes=1))
    assert len(reaped) == n_left


def wait_less(*execution: Any) -> tuple[str, Any]:
    """MLflow lets SQLite wait 20 s for a lock in every session: let it be a tenth of one."""
    _, _, statement, parameters, *_ = execution
    return statement.replace("busy_timeout = 20000", "busy_timeout = 100"), parameters


def test_r13_a_database_that_is_locked_is_told_as_one_that_does_not_answer(
    wired: Wiring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "1")
    approved = press(wired)
    engine = wired.registry._client._get_registry_client().store.engine
    event.listen(engine, "before_cursor_execute", wait_less, retval=True)
    holder = sqlite3.connect(wired.settings.home / "mlflow" / "mlflow.db", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(RegistryUnavailableError, match="database is locked"):
            wired.registry.annotate(approved, {"turnout.note": "x"})
    finally:
        holder.rollback()
        holder.close()
    wired.registry.annotate(approved, {"turnout.note": "x"})


def test_w05_no_deployment_listens_to_events_so_that_a_forged_one_promotes_nothing(wired: Wiring) -> None:
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    assert [deployment for deployment in deployments if "triggers" in deployment] == []
    assert promote.pending_versions(wired, promote.ROUTER, "orders") == []  # nobody approved: a run finds nothing to do
    assert wired.generation == 0


def test_the_verdicts_that_move_a_canary_are_all_known() -> None:
    assert set(Verdict.__annotations__["state"].__args__) == {"promote", "rollback", "inconclusive", "no_data"}
