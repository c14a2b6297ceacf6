"""A real MLflow with its users: what a trainer, a reviewer and a promoter can do, and what none of them can forge."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from features import config
from features.clock import ReplayClock
from flows import promote
from flows.settings import Settings
from flows.wiring import Wiring
from models import registry_roles
from models.registered import (
    APPROVER_TAG,
    DIGEST_TAG,
    REFUSED_TAG,
    REGISTERED_BY_TAG,
    REJECTED_BY_TAG,
    RegistryError,
    RegistryForbiddenError,
    UnguardedRegistryError,
    Version,
)
from models.registry import Registry

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]  # MLflow's and its database's own

Be = Callable[..., AbstractContextManager[None]]
TAGS = {"turnout.digest": "d" * 64, "turnout.evidence": "e" * 64, "turnout.author": "ann", "turnout.stream": "orders"}


class Learned(Protocol):
    def register(self, wired: Wiring) -> Version: ...


@pytest.fixture
def registry(secured: Settings) -> Registry:
    return Registry(secured.tracking_uri)


@pytest.fixture
def client(secured: Settings) -> MlflowClient:
    return MlflowClient(secured.tracking_uri, registry_uri=secured.tracking_uri)


@pytest.fixture
def log(registry: Registry, be: Be, tmp_path: Path) -> Callable[..., Version]:
    """A function that registers a candidate as a user; every call another, of bytes of its own."""
    numbers = iter(range(100))

    def logged(user: str = "trainer", **tags: str) -> Version:
        bundle, evidence = (tmp_path / f"{next(numbers)}" for _ in range(2))
        for folder in (bundle, evidence):
            folder.mkdir()
            (folder / "card.json").write_text("{}")
        identity = {"turnout.evidence": f"{tmp_path.name}-{bundle.name}"}
        with be(user):
            number = registry.log_candidate(
                "router-candidate",
                bundle,
                evidence,
                metrics={},
                params={},
                tags={**TAGS, **identity, **tags},
                description="Good.",
            )
            return registry.version("router-candidate", number)

    return logged


@pytest.fixture(scope="module")
def wired(secured: Settings, settle: Callable[[Settings], Wiring]) -> Wiring:
    return settle(secured)


@pytest.fixture(scope="module")
def candidate(wired: Wiring, learned: Learned, be: Be) -> Version:
    with be("trainer"):
        return learned.register(wired)


def press_promote(client: MlflowClient, candidate: Version, tags: dict[str, str] | None = None) -> Any:
    """What the button on MLflow's page sends: the source, the run, and the tags as the page knows them."""
    return client._get_registry_client().store.create_model_version(
        "router",
        f"models:/{candidate.name}/{candidate.number}",
        candidate.run_id,
        tags=[_Tag(*pair) for pair in {**candidate.tags, **(tags or {})}.items()],
    )


class _Tag:
    def __init__(self, key: str, value: str) -> None:
        from mlflow.entities.model_registry import ModelVersionTag

        self.key, self.value = key, value
        self.to_proto = ModelVersionTag(key, value).to_proto


def test_securing_again_changes_nothing(secured: Settings, be: Be) -> None:
    with be("admin"):
        assert registry_roles.secure(secured.tracking_uri, {"trainer": ["trainer"], "reviewer": ["bob"]}) == []


def test_a_dry_run_says_what_it_would_do_and_does_nothing(secured: Settings, be: Be) -> None:
    with be("admin"):
        told = [
            registry_roles.secure(
                secured.tracking_uri,
                {"reviewer": ["carol"]},
                environment={"TURNOUT_PASSWORD_CAROL": "a-long-password-2"},
                dry_run=True,
            )
            for _ in range(2)
        ]
    assert told == [["make the user carol", "make carol a reviewer"]] * 2


def test_a_new_user_without_a_password_is_refused_by_the_name_of_the_variable(secured: Settings, be: Be) -> None:
    with be("admin"), pytest.raises(ValueError, match=r"user d\.o-e is not there: set TURNOUT_PASSWORD_D_O_E"):
        registry_roles.secure(secured.tracking_uri, {"trainer": ["d.o-e"]}, environment={})


def test_only_an_administrator_secures(secured: Settings, be: Be) -> None:
    with be("bob"), pytest.raises(RegistryForbiddenError, match="would not be secured"):
        registry_roles.secure(secured.tracking_uri, {"trainer": ["bob"]})


def test_a_database_without_users_cannot_be_secured() -> None:
    with pytest.raises(RegistryError, match="knows no users"):
        registry_roles.secure("sqlite:///mlflow.db", {})


def test_nobody_enters_with_a_wrong_password(registry: Registry, be: Be) -> None:
    with be("bob", "a-password-guessed"), pytest.raises(RegistryForbiddenError):
        registry.versions("router")


def test_p06_a_trainer_cannot_approve(
    registry: Registry, client: MlflowClient, log: Callable[..., Version], be: Be
) -> None:
    candidate = log()
    with be("trainer"):
        with pytest.raises(RegistryForbiddenError, match="would not approve"):
            registry.approve(candidate, target="router", actor="bob", reason="trust me")
        with pytest.raises(MlflowException, match=r"Permission denied|403"):
            press_promote(client, candidate)
        assert [v for v in registry.versions("router") if v.candidate == (candidate.name, candidate.number)] == []


def test_p08_whoever_approves_is_named_whatever_the_client_says(
    registry: Registry, client: MlflowClient, log: Callable[..., Version], be: Be
) -> None:
    candidate = log()
    with be("bob"):
        pressed = press_promote(client, candidate, {APPROVER_TAG: "eve", DIGEST_TAG: "f" * 64})
        said = registry.version("router", int(pressed.version))
        approved = registry.approve(candidate, target="router", actor="eve", reason="read the report")
    for version in (said, approved):
        assert version.tags[APPROVER_TAG] == "bob"
        assert version.tags[DIGEST_TAG] == candidate.tags[DIGEST_TAG]
    assert approved.tags["turnout.approval_reason"] == "read the report"


def test_p08_a_candidate_cannot_bring_its_approval_along(
    registry: Registry, log: Callable[..., Version], be: Be
) -> None:
    candidate = log(**{APPROVER_TAG: "bob", "turnout.registered_by": "carol"})
    assert APPROVER_TAG not in candidate.tags
    assert candidate.tags[REGISTERED_BY_TAG] == "trainer"
    with be("trainer"), pytest.raises(RegistryForbiddenError, match="never after"):
        registry.annotate(candidate, {APPROVER_TAG: "bob"})


@pytest.mark.parametrize("user", ["trainer", "bob", "promoter"])
def test_p08_what_an_approval_says_is_never_rewritten(
    registry: Registry, client: MlflowClient, log: Callable[..., Version], be: Be, user: str
) -> None:
    with be("bob"):
        approved = registry.approve(log(), target="router", actor="bob", reason="fine")
    with be(user):
        for tag in (APPROVER_TAG, DIGEST_TAG, "turnout.evidence", "turnout.author"):
            with pytest.raises(RegistryForbiddenError):
                registry.annotate(approved, {tag: "forged"})
            with pytest.raises(MlflowException):
                client.delete_model_version_tag("router", str(approved.number), tag)
        assert registry.version("router", approved.number).tags == approved.tags


def test_r06_a_version_that_copies_no_candidate_of_its_model_is_refused(
    client: MlflowClient, log: Callable[..., Version], be: Be
) -> None:
    candidate = log()
    with be("bob"):
        with pytest.raises(MlflowException, match="made by promoting one of router-candidate, got no copy"):
            client.create_model_version("router", candidate.source, candidate.run_id)
        with pytest.raises(
            MlflowException, match="made by promoting one of forecaster-candidate, got router-candidate"
        ):
            client.copy_model_version(f"models:/router-candidate/{candidate.number}", "forecaster")


def test_a_rejection_in_the_registry_is_by_whom_it_was_made(
    registry: Registry, log: Callable[..., Version], be: Be
) -> None:
    candidate = log()
    with be("bob"):
        registry.reject(candidate, actor="eve", reason="too few nights")
        assert registry.version(candidate.name, candidate.number).tags[REJECTED_BY_TAG] == "bob"


def test_nobody_takes_a_guarded_name(client: MlflowClient, be: Be) -> None:
    with be("trainer"):
        client.create_registered_model("mine")
        with pytest.raises(MlflowException, match="the names of guarded models stay"):
            client.rename_registered_model("mine", "router")
        with pytest.raises(MlflowException):
            client.delete_registered_model("router")


def test_r09_an_alias_set_by_hand_serves_nothing(
    wired: Wiring, client: MlflowClient, log: Callable[..., Version], be: Be
) -> None:
    with be("bob"):
        approved = wired.registry.approve(log(), target="router", actor="bob", reason="fine")
    with be("trainer"), pytest.raises(MlflowException, match=r"Permission denied|403"):
        client.set_registered_model_alias("router", "champion-orders", str(approved.number))
    with be("bob"):
        client.set_registered_model_alias("router", "champion-orders", str(approved.number))
    with be("promoter"):
        (alert,) = [told for told in promote.mirror_aliases(wired, "orders") if "champion-orders" in told]
    assert "only an administrator can take it back" in alert
    assert wired.live("orders").champion is None
    assert wired.generation == 0


def test_r05_p15_bytes_that_the_trainer_swaps_after_the_approval_are_refused_on_the_version(
    wired: Wiring, client: MlflowClient, candidate: Version, be: Be
) -> None:
    with be("bob"):
        approved = wired.registry.version("router", int(press_promote(client, candidate).version))
    with be("trainer"):
        where = wired.registry.download(candidate, wired.workspace("swap")).bundle
        original = (where / "card.json").read_bytes()
        (where / "card.json").write_bytes(original.replace(b'"seed"', b'"sEed"'))
        client.log_artifact(candidate.run_id, str(where / "card.json"), "bundle")
    with be("promoter"):
        told = promote.admit(wired, approved, dry_run=False)
        said = wired.registry.version("router", approved.number)
    with be("trainer"):
        (where / "card.json").write_bytes(original)
        client.log_artifact(candidate.run_id, str(where / "card.json"), "bundle")
    assert told["state"] == "refused"
    assert "its bytes hash to no bundle" in said.tags[REFUSED_TAG]
    assert said.description.startswith("**REFUSED**")
    assert "its bytes hash to no bundle" in said.description
    assert wired.generation == 0


def test_p14_whoever_registered_it_cannot_approve_it_where_two_people_are_wanted(
    wired: Wiring, learned: Learned, client: MlflowClient, tiny_text: str, be: Be
) -> None:
    with be("both"):  # who may train and review, and claims that another wrote it
        later = ReplayClock(at=wired.now + timedelta(minutes=1))
        mine = learned.register(Wiring(settings=wired.settings, clock=later, actor="somebody-else"))
        approved = wired.registry.version("router", int(press_promote(client, mine).version))
    strict = Wiring(settings=wired.settings, clock=later)
    strict.__dict__["configuration"] = config.parse(tiny_text + "\n[streams.orders.gate]\ntwo_person = true\n")
    with be("promoter"):
        assert promote.admit(strict, approved, dry_run=True)["reasons"] == (
            "both is its author, and this stream wants two people",
        )


def test_the_reviewers_name_reaches_the_ledger_verified(
    wired: Wiring, client: MlflowClient, candidate: Version, be: Be
) -> None:
    with be("bob"):
        approved = wired.registry.version("router", int(press_promote(client, candidate).version))
    with be("promoter"):
        told = promote.admit(wired, approved, dry_run=False)
    assert told["state"] == "admitted", told["reasons"]
    head = wired.ledger.head()
    assert head is not None
    assert head.entry.evidence["approver"] == "bob"
    assert head.entry.streams["orders"].canary == candidate.tags[DIGEST_TAG]


def test_without_the_setting_even_a_stamped_name_is_unverified(wired: Wiring, candidate: Version, be: Be) -> None:
    doubting = Wiring(settings=replace(wired.settings, mlflow_auth=False), clock=wired.clock)
    with be("bob"):
        approved = wired.registry.approve(candidate, target="router", actor="bob", reason="fine")
        assert promote.admit(doubting, approved, dry_run=True)["approver"] == "unverified:bob"
        assert promote.admit(wired, approved, dry_run=True)["approver"] == "bob"


@pytest.fixture
def plain_server() -> Iterator[str]:
    """An MLflow that answers, and stamps nothing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_server_that_should_know_its_users_and_does_not_is_told_apart(wired: Wiring, plain_server: str) -> None:
    misled = Wiring(settings=replace(wired.settings, tracking_uri=plain_server), clock=wired.clock)
    with pytest.raises(UnguardedRegistryError, match="does not stamp who approves"):
        _ = misled.vouched
