"""A stream is read by the released classifier, or by the last good one; routers keep the one that they pin."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from features import config
from models.releases import transitions
from models.releases.entry import Entry
from models.releases.history import History
from models.releases.ledger import Ledger
from models.releases.transitions import Attribution
from serving import inventory
from serving.follower import MAX_FAULTS, Follower
from serving.plan import Plan, StreamPlan
from serving.problems import Problem
from serving.shelf import RejectedError, Shelf
from serving.view import Classifier, Model, digest_of

ROUTER, X, Y = ("a" * 64, "b" * 64, "c" * 64)
BY = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
PLAN = Plan.of(
    config.parse("""
[destinations.a]

[classifiers.requests]
labels = "labels.csv"

[streams.orders]
types = ["shop.order"]
destinations = ["a"]
objective = { success = 1.0 }
text_field = "message"
content = "requests"
features = { numbers = { sure = "content.confidence" } }

[streams.plain]
types = ["shop.plain"]
destinations = ["a"]
objective = { success = 1.0 }
""")
)


class FakeShelf(Shelf):
    """Loads anything but what is broken; every router pins X."""

    def __init__(self) -> None:
        self.broken: set[str] = set()
        self.kept: set[str] = set()

    def router(self, digest: str, plan: StreamPlan) -> Model:
        return Model(digest, None, self.classifier(X, plan))  # type: ignore[arg-type] # nothing is scored here

    def classifier(self, digest: str, plan: StreamPlan) -> Classifier:  # noqa: ARG002 - the shelf's signature
        if digest in self.broken:
            raise RejectedError(f"{digest[:12]}: broken")
        return Classifier(digest, None)  # type: ignore[arg-type] # nothing is read here

    def keep_only(self, digests: object) -> None:
        self.kept = set(digests)  # type: ignore[call-overload]


class Release:
    """A ledger to write to, and a follower of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(root / "ledger")
        self.shelf = FakeShelf()
        self.append(lambda _: transitions.genesis(streams={"orders": "observe", "plain": "off"}, by=BY))
        self.follower = self.another()

    def another(self) -> Follower:
        state = self.root / "shim" / "served.json"
        return Follower(plan=PLAN, ledger=self.ledger, shelf=self.shelf, state_path=state)

    def append(self, make: Callable[[History], Entry]) -> None:
        history = self.ledger.history()
        self.ledger.append(make(history), expected_head=history.hash)

    def classifier(self, digest: str) -> None:
        self.append(lambda h: transitions.release_model(h, name="classifier.requests", digest=digest, by=BY))
        self.follower.poll()

    def promote(self, digest: str) -> None:
        self.append(lambda h: transitions.start_canary(h, stream="orders", digest=digest, share=0.1, by=BY))
        self.append(lambda h: transitions.promote(h, stream="orders", by=BY))
        self.follower.poll()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def in_force(follower: Follower, stream: str = "orders") -> str | None:
    return digest_of(follower.view.streams[stream].classifier)


def champion(follower: Follower) -> str | None:
    return digest_of(follower.view.streams["orders"].champion)


def test_the_released_classifier_reads_the_streams_that_ask_for_it(release: Release) -> None:
    release.follower.poll()
    assert in_force(release.follower) is None
    with pytest.raises(Problem, match="no model 'classifier' is released"):
        inventory.current_model(release.follower.view, "classifier")
    release.classifier(X)
    assert (in_force(release.follower), in_force(release.follower, "plain")) == (X, None)
    told = inventory.current_model(release.follower.view, "classifier")
    assert told["streams"] == {"orders": X, "plain": None}
    assert release.follower.rejections() == {}
    assert release.shelf.kept == {X}


def test_a_new_classifier_takes_no_champion_away(release: Release) -> None:
    release.classifier(X)
    release.promote(ROUTER)
    release.classifier(Y)
    model = release.follower.view.streams["orders"].champion
    assert model is not None
    assert (in_force(release.follower), model.digest, digest_of(model.classifier)) == (Y, ROUTER, X)


def test_one_that_cannot_be_served_leaves_the_last_good_one_in_force_and_is_named(release: Release) -> None:
    release.classifier(X)
    release.shelf.broken = {Y}
    release.classifier(Y)
    assert in_force(release.follower) == X
    assert release.follower.view.generation == release.ledger.history().generation
    assert "broken" in release.follower.rejections()["orders: classifier"]
    again = release.another()
    again.restore()
    assert in_force(again) == X


def test_none_at_all_leaves_the_stream_deciding_without_content(release: Release) -> None:
    release.shelf.broken = {X}
    release.classifier(X)
    assert in_force(release.follower) is None
    assert release.follower.view.streams["orders"].mode == "observe"
    assert "broken" in release.follower.rejections()["orders: classifier"]


def test_a_router_whose_classifier_cannot_be_served_is_rejected(release: Release) -> None:
    release.shelf.broken = {X}
    release.promote(ROUTER)
    assert "broken" in release.follower.rejections()["orders"]


def test_a_restart_needs_no_ledger_to_read_on(release: Release) -> None:
    release.classifier(X)
    release.promote(ROUTER)
    again = release.another()
    again.restore()
    assert (in_force(again), champion(again)) == (X, ROUTER)
    release.shelf.broken = {X}
    damaged = release.another()
    damaged.restore()
    assert (in_force(damaged), champion(damaged)) == (None, None)
    assert "classifier: bbbbbbbbbbbb: broken" in damaged.rejections()["orders"]


def test_a_revoked_classifier_goes_with_the_routers_that_pin_it(release: Release) -> None:
    release.classifier(X)
    release.promote(ROUTER)
    release.classifier(Y)
    release.append(lambda history: transitions.revoke(history, digest=X, by=BY))
    release.follower.poll()
    assert (in_force(release.follower), champion(release.follower)) == (Y, None)


def test_a_classifier_that_keeps_raising_is_condemned_and_stays_so(release: Release) -> None:
    release.classifier(X)
    for _ in range(MAX_FAULTS):
        assert in_force(release.follower) == X
        release.follower.report_fault(X, "classifier raised ZeroDivisionError: oops")
    assert in_force(release.follower) is None
    release.promote(ROUTER)  # which pins it
    again = release.another()
    again.restore()
    for known in (release.follower, again):
        assert (in_force(known), champion(known)) == (None, None)
        assert "oops" in known.rejections()[f"condemned {X[:12]}"]
