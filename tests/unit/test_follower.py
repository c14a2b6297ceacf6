import time
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
from serving import served
from serving.follower import MAX_FAULTS, Follower
from serving.plan import Plan, StreamPlan
from serving.shelf import RejectedError, Shelf
from serving.view import ForecastView, Model

A, B, C = ("a" * 64, "b" * 64, "c" * 64)
BY = Attribution(actor="ada", reason="drill", at=datetime(2026, 11, 24, tzinfo=UTC))
STREAM = """
[streams.{name}]
types = ["{name}"]
destinations = ["x"]
objective = {{ success = 1.0 }}
"""
PLAN = Plan.of(config.parse(STREAM.format(name="orders") + STREAM.format(name="refunds") + "[destinations.x]"))


class FakeShelf(Shelf):
    """Loads anything, but for what a test calls broken."""

    def __init__(self, broken: set[str] | None = None) -> None:
        self.broken = broken or set()
        self.loaded: list[str] = []
        self.kept: set[str] = set()

    def router(self, digest: str, plan: StreamPlan) -> Model:  # noqa: ARG002 - the shelf's signature
        self.loaded.append(digest)
        if digest in self.broken:
            raise RejectedError(f"{digest[:12]}: broken")
        return Model(digest, None)  # type: ignore[arg-type] # nothing is scored here

    def forecast(self, digest: str) -> ForecastView:
        if digest in self.broken:
            raise RejectedError(f"{digest[:12]}: broken")
        return ForecastView(digest=digest, at="", series={})

    def keep_only(self, digests: object) -> None:
        self.kept = set(digests)  # type: ignore[call-overload]


class Release:
    """A ledger to write to, and followers of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(root / "ledger")
        self.append(lambda _: transitions.genesis(streams={"orders": "observe", "refunds": "off"}, by=BY))

    def append(self, make: Callable[[History], Entry]) -> None:
        history = self.ledger.history()
        self.ledger.append(make(history), expected_head=history.hash)

    def canary(self, digest: str, stream: str = "orders", share: float = 0.1) -> None:
        self.append(lambda h: transitions.start_canary(h, stream=stream, digest=digest, share=share, by=BY))

    def promote(self, digest: str, stream: str = "orders") -> None:
        self.canary(digest, stream)
        self.append(lambda history: transitions.promote(history, stream=stream, by=BY))

    def follower(self, shelf: FakeShelf | None = None, ledger: Ledger | None = None) -> Follower:
        return Follower(
            plan=PLAN,
            ledger=ledger or self.ledger,
            shelf=shelf or FakeShelf(),
            state_path=self.root / "shim" / "served.json",
        )

    @property
    def generation(self) -> int:
        return self.ledger.history().generation


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path)


def champion(follower: Follower, stream: str = "orders") -> str | None:
    model = follower.view.streams[stream].champion
    return model.digest if model else None


def test_what_the_ledger_releases_is_served(release: Release) -> None:
    follower = release.follower()
    assert follower.view.streams == {}
    release.promote(A)
    release.canary(B, share=0.25)
    release.append(lambda history: transitions.release_model(history, name="forecaster", digest=C, by=BY))
    follower.poll()
    view = follower.view.streams["orders"]
    assert (view.mode, view.generation, champion(follower)) == ("canary", release.generation, A)
    assert view.challenger
    assert (view.challenger.digest, view.challenger_share) == (B, 0.25)
    assert follower.view.forecast
    assert follower.view.forecast.digest == C
    assert follower.view.head == release.ledger.history().hash
    assert follower.rejections() == {}


def test_a_model_that_is_served_already_is_not_loaded_again(release: Release) -> None:
    shelf = FakeShelf()
    follower = release.follower(shelf)
    release.promote(A)
    follower.poll()
    release.promote(B)
    follower.poll()
    release.append(lambda history: transitions.rollback(history, stream="orders", by=BY))
    follower.poll()
    follower.poll()
    assert shelf.loaded == [A, B]
    assert champion(follower) == A
    assert shelf.kept == {A, B}


def test_s17_a_broken_release_leaves_the_last_good_one_and_is_remembered(release: Release) -> None:
    follower = release.follower(FakeShelf({B}))
    release.promote(A)
    follower.poll()
    good = follower.view.streams["orders"]
    release.promote(B)
    follower.poll()
    assert follower.view.streams["orders"] == good
    assert follower.rejections() == {"orders": f"generation {release.generation}: {B[:12]}: broken"}
    release.promote(C)
    follower.poll()
    assert (champion(follower), follower.rejections()) == (C, {})


def test_what_was_rejected_is_tried_again_later_and_not_at_every_poll(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = FakeShelf({A})
    follower = release.follower(shelf)
    release.promote(A)
    follower.poll()
    follower.poll()
    assert shelf.loaded == [A]
    shelf.broken.clear()
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3_600)
    follower.poll()
    assert (champion(follower), follower.rejections()) == (A, {})


def test_a_broken_stream_holds_no_other_back(release: Release) -> None:
    follower = release.follower(FakeShelf({B}))
    release.promote(A)
    follower.poll()
    release.canary(B)
    release.promote(C, stream="refunds")
    follower.poll()
    assert champion(follower) == A
    assert champion(follower, "refunds") == C


def test_a_revoked_champion_goes_even_where_its_successor_cannot_be_loaded(release: Release) -> None:
    release.promote(A)
    release.promote(B)
    follower = release.follower(FakeShelf({A}))
    follower.poll()
    assert champion(follower) == B
    release.append(lambda history: transitions.revoke(history, digest=B, by=BY))
    follower.poll()
    assert "broken" in follower.rejections()["orders"]
    again = release.follower(FakeShelf({A}), ledger=Ledger(release.root / "nowhere"))
    again.restore()
    assert champion(follower) is champion(again) is None


def test_a_revoked_forecast_goes_even_where_the_one_before_cannot_be_loaded(release: Release) -> None:
    shelf = FakeShelf()
    follower = release.follower(shelf)
    for digest in (A, B):
        release.append(
            lambda history, to=digest: transitions.release_model(history, name="forecaster", digest=to, by=BY)
        )
        follower.poll()
    shelf.broken.add(A)
    release.append(lambda history: transitions.revoke(history, digest=B, by=BY))
    follower.poll()
    assert follower.view.forecast is None
    assert follower.rejections() == {"forecaster": f"{A[:12]}: broken"}


def test_a_lower_generation_is_refused_also_after_a_restart(release: Release, tmp_path: Path) -> None:
    release.promote(A)
    follower = release.follower()
    follower.poll()
    older = Release(tmp_path / "older")
    for known in (release.follower(ledger=older.ledger), follower):
        known._ledger = older.ledger
        known.restore()
        known.poll()
        assert champion(known) == A
        assert known.rejections() == {"ledger": "generation 1 is below 3, which was served"}


def test_another_history_of_the_same_length_is_refused(release: Release, tmp_path: Path) -> None:
    release.promote(A)
    follower = release.follower()
    follower.poll()
    other = Release(tmp_path / "other")
    other.promote(B)
    follower._ledger = other.ledger
    follower.poll()
    assert champion(follower) == A
    assert "another hash" in follower.rejections()["ledger"]


def test_a_restored_ledger_is_followed_above_the_gap(release: Release, tmp_path: Path) -> None:
    release.promote(A)
    follower = release.follower()
    follower.poll()
    state = served.read(tmp_path / "shim" / "served.json")
    older = Release(tmp_path / "older")
    above = (state.generation, state.head)
    older.ledger.restore(transitions.restore(older.ledger.history(), above=above, lost=state.entry, by=BY), above=above)
    follower._ledger = older.ledger
    follower.poll()
    assert (champion(follower), follower.rejections(), follower.view.generation) == (A, {}, 4)


def test_s07_the_last_good_release_is_served_again_with_the_ledger_gone(release: Release, tmp_path: Path) -> None:
    release.promote(A)
    release.canary(B, share=0.5)
    release.follower().poll()
    follower = release.follower(ledger=Ledger(tmp_path / "nowhere"))
    follower.restore()
    before = follower.view
    follower.poll()
    assert follower.view == before
    assert champion(follower) == A
    assert before.streams["orders"].challenger_share == 0.5
    assert follower.rejections() == {"ledger": "holds nothing; keeping generation 4"}


def test_s17_a_damaged_head_keeps_what_is_served(release: Release) -> None:
    release.promote(A)
    follower = release.follower()
    follower.poll()
    release.canary(B)
    newest = max((release.root / "ledger").glob("*.json"))
    newest.chmod(0o600)
    newest.write_bytes(b"{")
    follower.poll()
    assert champion(follower) == A
    assert "damaged" in follower.rejections()["ledger"]


def test_s08_a_broken_champion_at_the_start_gives_way_to_the_one_before_then_to_none(release: Release) -> None:
    release.promote(A)
    follower = release.follower()
    follower.poll()
    release.promote(B)
    follower.poll()
    for broken, expected in (({B}, A), ({A}, B), ({A, B}, None)):
        again = release.follower(FakeShelf(broken))
        again.restore()
        assert champion(again) == expected
        assert "broken" in again.rejections()["orders"]
        assert again.view.generation == 5


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff", b'{"generation": "x"}'])
def test_s08_a_damaged_state_file_starts_from_the_static_routes(
    release: Release, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "shim" / "served.json"
    path.parent.mkdir()
    path.write_bytes(content)
    follower = release.follower()
    follower.restore()
    assert follower.view.streams == {}
    assert "cannot be read" in follower.rejections()["state"]
    release.promote(A)
    follower.poll()
    assert champion(follower) == A


def test_s09_a_model_that_keeps_raising_is_condemned_and_stays_so(release: Release) -> None:
    follower = release.follower()
    release.promote(A)
    follower.poll()
    release.promote(B)
    follower.poll()
    for _ in range(MAX_FAULTS):
        assert champion(follower) == B
        follower.report_fault(B, "champion raised ZeroDivisionError: oops")
    assert champion(follower) == A
    again = release.follower()
    again.restore()
    again.poll()
    for known in (follower, again):
        assert champion(known) == A
        assert "oops" in known.rejections()[f"condemned {B[:12]}"]
    release.promote(C)
    again.poll()
    assert champion(again) == C


def test_a_condemned_canary_holds_nothing_else_back(release: Release) -> None:
    follower = release.follower()
    release.promote(A)
    release.canary(B)
    follower.poll()
    for _ in range(MAX_FAULTS):
        follower.report_fault(B, "challenger raised ZeroDivisionError: oops")
    release.append(lambda history: transitions.advance_canary(history, stream="orders", share=0.5, by=BY))
    follower.poll()
    view = follower.view.streams["orders"]
    assert (champion(follower), view.challenger, view.generation) == (A, None, release.generation)


def test_a_condemned_model_without_a_predecessor_leaves_the_static_routes(release: Release) -> None:
    follower = release.follower()
    release.promote(A)
    follower.poll()
    for _ in range(MAX_FAULTS):
        follower.report_fault(A, "oops")
    follower.poll()
    assert champion(follower) is None


def test_the_thread_follows_and_stops(release: Release) -> None:
    follower = release.follower()
    follower.start()
    release.promote(A)
    give_up_at = time.monotonic() + 60
    while release.generation != follower.view.generation and time.monotonic() < give_up_at:
        follower.wake()
        time.sleep(0.01)
    follower.stop()
    assert champion(follower) == A
    assert follower._thread
    assert not follower._thread.is_alive()
