"""A mirror: bundles before the entries that name them, nothing replaced, and whatever comes the copying goes on."""

import os
import shutil
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs

from models.releases import bundle, transitions
from models.releases.ledger import ForeignLedgerError, Ledger
from models.releases.replica import Replica
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving import mirror, page
from serving.mirror import Mirror
from serving.page import LedgerPage, PageError
from serving.upstream import UpstreamError

BY = Attribution(actor="ada", reason="because", at=datetime(2026, 1, 1, tzinfo=UTC))


class Home:
    """A ledger and a store that a pipeline writes, or a mirror."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ledger = Ledger(root / "ledger")
        self.store = Store(root / "store")

    def seal(self, text: str, **pins: str) -> str:
        folder = self.root / f"made-{text}"
        folder.mkdir(parents=True)
        (folder / "model.txt").write_text(text)
        return self.store.put(folder, digest=bundle.seal(folder, kind="router", pins=pins))

    def begin(self, actor: str = "ada") -> None:
        by = Attribution(actor=actor, reason="because", at=BY.at)
        self.ledger.append(transitions.genesis(streams={"orders": "observe"}, by=by), expected_head="")

    def release(self, text: str, **pins: str) -> str:
        digest, history = self.seal(text, **pins), self.ledger.history()
        entry = transitions.release_model(history, name="forecaster", digest=digest, by=BY)
        self.ledger.append(entry, expected_head=history.hash)
        return digest


class Source:
    """The other home, as it would be asked over HTTP."""

    url = "http://up:8100"

    def __init__(self, home: Home) -> None:
        self.home = home
        self.down = False
        self.asked: list[str] = []
        self.waits: list[float] = []
        self.edit: dict[str, str] = {}  # by file: what arrives in its place
        self.before_bundle = lambda: None

    def page(self, after: int, *, wait_seconds: float) -> LedgerPage | None:
        self.waits.append(wait_seconds)
        if self.down:
            raise UpstreamError("cannot be reached: refused")
        return page.read(self.home.ledger, after)

    def bundle(self, digest: str, folder: Path) -> None:
        if self.down:
            raise UpstreamError("cannot be reached: refused")
        self.asked.append(digest)
        self.before_bundle()
        for path in self.home.store.path(digest).iterdir():
            shutil.copyfile(path, folder / path.name)
        for name, text in self.edit.items():
            (folder / name).write_text(text)

    def forget(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        self.down = True


class Pair:
    """A home and its mirror."""

    def __init__(self, root: Path) -> None:
        self.up, self.here = Home(root / "up"), Home(root / "here")
        self.copy = Replica(root / "here" / "ledger")
        self.up.begin()
        self.source = Source(self.up)
        self.woken: list[int] = []
        self.mirror = self.make()

    def make(self) -> Mirror:
        folder = self.here.root / "mirror"
        folder.mkdir(parents=True, exist_ok=True)
        return Mirror(
            source=self.source,
            ledger=self.copy,
            store=self.here.store,
            folder=folder,
            wake=lambda: self.woken.append(self.here.ledger.history().generation),
            poll_seconds=0.01,
        )

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((self.here.root / "ledger").glob("*.json"))}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    yield Pair(tmp_path)
    for folder, _, _ in os.walk(tmp_path):
        Path(folder).chmod(0o700)


def test_ledger_and_store_become_the_same_and_the_follower_is_woken(pair: Pair) -> None:
    digest = pair.up.release("a")
    pair.mirror.poll()
    assert pair.here.ledger.verify().hash == pair.up.ledger.history().hash
    assert pair.files() == {p.name: p.read_bytes() for p in (pair.up.root / "ledger").glob("*.json")}
    assert pair.here.store.verify(digest) == pair.up.store.verify(digest)
    assert pair.woken == [2]
    pair.mirror.poll()
    assert pair.woken == [2]


def test_what_the_newest_entry_names_is_there_before_any_entry_is(pair: Pair) -> None:
    pair.up.release("a")
    seen: list[int] = []
    pair.source.before_bundle = lambda: seen.append(len(pair.here.ledger.generations()))
    pair.mirror.poll()
    pair.up.release("b")
    pair.mirror.poll()
    assert seen == [0, 2]


def test_what_was_superseded_meanwhile_is_not_fetched(pair: Pair) -> None:
    pair.up.release("a")
    newest = pair.up.release("b")
    pair.mirror.poll()
    assert (pair.source.asked, pair.here.ledger.history().generation) == ([newest], 3)


def test_what_a_bundle_pins_is_fetched_before_it(pair: Pair) -> None:
    pinned = pair.up.seal("content")
    digest = pair.up.release("a", content=pinned)
    pair.mirror.poll()
    assert set(pair.here.store.digests()) == {pinned, digest}


def test_many_pages_are_one_step(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_ENTRIES", 1)
    for text in "abc":
        newest = pair.up.release(text)
    pair.mirror.poll()
    assert (pair.source.asked, pair.woken) == ([newest], [4])


def test_more_than_can_be_held_at_once_is_refused(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MAX_ENTRIES", 1)
    monkeypatch.setattr(mirror, "MAX_BEHIND", 1)
    for text in "abc":
        pair.up.release(text)
    with pytest.raises(PageError, match="more than are taken"):
        pair.mirror.poll()
    assert pair.files() == {}


@pytest.mark.parametrize("edit", [{"model.txt": "other"}, {"manifest.json": "{}"}, {"more.txt": "x"}])
def test_a_bundle_of_other_bytes_leaves_neither_bundle_nor_entry(pair: Pair, edit: dict[str, str]) -> None:
    digest = pair.up.release("a")
    pair.source.edit = edit
    with pytest.raises(PageError, match=f"the bundle {digest[:12]}: .*expected"):
        pair.mirror.poll()
    assert (pair.files(), pair.here.store.digests()) == ({}, ())
    assert list((pair.here.root / "mirror").iterdir()) == []
    pair.source.edit = {}
    pair.mirror.poll()
    assert pair.here.ledger.history().generation == 2


def test_a_forked_or_shortened_upstream_changes_nothing_here(pair: Pair, tmp_path: Path) -> None:
    pair.up.release("a")
    pair.mirror.poll()
    before = pair.files()
    forked = Home(tmp_path / "forked")
    forked.begin("eve")
    for text, words in (("", "cut short"), ("x", "forked"), ("y", "forked")):
        if text:
            forked.release(text)
        pair.source.home = forked
        with pytest.raises(PageError, match=words):
            pair.mirror.poll()
        assert (pair.files(), len(pair.here.store.digests())) == (before, 1)
    pair.source.home = pair.up
    pair.up.release("b")
    pair.mirror.poll()
    assert pair.here.ledger.verify().generation == 3


def test_a_ledger_that_others_write_is_no_target_even_where_it_is_the_same(pair: Pair) -> None:
    pair.up.release("a")
    shutil.copytree(pair.up.root / "ledger", pair.here.root / "ledger")
    before = pair.files()
    for _ in range(2):
        with pytest.raises(ForeignLedgerError, match="at generation 2, was written here"):
            pair.mirror.poll()
        pair.up.release("b" if len(pair.up.ledger.generations()) == 2 else "c")
    assert (pair.files(), pair.here.store.digests(), pair.source.asked) == (before, (), [])


def test_a_copy_takes_no_appends(pair: Pair) -> None:
    pair.mirror.poll()
    history = pair.here.ledger.history()
    entry = transitions.release_model(history, name="forecaster", digest="a" * 64, by=BY)
    with pytest.raises(ForeignLedgerError, match="'release' cannot be recorded"):
        pair.here.ledger.append(entry, expected_head=history.hash)
    assert pair.here.ledger.generations() == (1,)


def test_a_bundle_that_was_lost_here_is_fetched_again_without_waiting(pair: Pair) -> None:
    digest = pair.up.release("a")
    pair.mirror.poll(wait_seconds=9.0)
    folder = pair.here.store.path(digest)
    folder.chmod(0o700)
    shutil.rmtree(folder)
    pair.mirror.poll(wait_seconds=9.0)
    assert pair.here.store.verify(digest).kind == "router"
    pair.mirror.poll(wait_seconds=9.0)
    assert pair.source.waits == [9.0, 0.0, 9.0]


def test_a_bundle_that_is_lost_everywhere_does_not_keep_the_next_away(pair: Pair) -> None:
    lost = pair.up.release("a")
    pair.mirror.poll()
    for home in (pair.up, pair.here):
        home.store.path(lost).chmod(0o700)
        shutil.rmtree(home.store.path(lost))
    newest = pair.up.release("b")
    pair.mirror.poll()
    assert pair.here.store.digests() == (newest,)


def test_a_ledger_that_was_removed_is_copied_anew(pair: Pair) -> None:
    pair.up.release("a")
    pair.mirror.poll()
    before = pair.files()
    shutil.rmtree(pair.here.root / "ledger")
    pair.mirror.poll()
    assert pair.files() == before


def test_a_restored_upstream_is_followed_by_a_copy_that_never_had_what_was_lost(pair: Pair) -> None:
    pair.up.release("a")
    pair.mirror.poll()
    lost = Home(pair.up.root.parent / "lost")
    shutil.copytree(pair.up.root / "ledger", lost.root / "ledger")
    lost.release("b")
    head = lost.ledger.head()
    assert head is not None
    above = (head.entry.generation, head.hash)
    history = pair.up.ledger.history()
    entry = transitions.restore(history, above=above, by=BY)
    pair.up.ledger.restore(entry, above=above)
    pair.mirror.poll()
    assert pair.here.ledger.verify().generation == 4
    with_it = Pair(pair.up.root.parent / "other")
    with_it.source.home = lost
    with_it.mirror.poll()
    with_it.source.home = pair.up
    with pytest.raises(PageError, match="forked: at generation 3"):
        with_it.mirror.poll()


def test_killed_between_two_entries_the_copy_goes_on_where_it_was(pair: Pair) -> None:
    class DiedError(Exception):
        """Stands for a crash."""

    n_links = 0

    def die(point: str) -> None:
        nonlocal n_links
        n_links += point == "append:linked"
        if n_links == 2:
            raise DiedError

    for text in "ab":
        pair.up.release(text)
    whole, pair.copy = pair.copy, Replica(pair.here.root / "ledger", failpoint=die)
    with pytest.raises(DiedError):
        pair.make().poll()
    pair.copy = whole
    assert whole.verify().generation == 2
    pair.make().poll()
    assert whole.verify().hash == pair.up.ledger.history().hash


def wait_until(condition: threading.Event) -> None:
    assert condition.wait(60), "it never came true"


def test_whatever_comes_the_thread_goes_on_and_says_what_was_wrong(
    pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    failed, copied = threading.Event(), threading.Event()
    answers = iter([UpstreamError("cannot be reached"), UpstreamError("cannot be reached"), ZeroDivisionError("oops")])
    told: list[str] = []

    def asked(after: int, *, wait_seconds: float) -> LedgerPage | None:
        assert wait_seconds == mirror.WAIT_SECONDS
        told.append(pair.mirror.failure)
        if (error := next(answers, None)) is not None:
            raise error
        failed.set()
        return page.read(pair.up.ledger, after)

    pair.source.page = asked  # type: ignore[method-assign]
    pair.mirror._wake = copied.set
    pair.mirror.start()
    wait_until(failed)
    wait_until(copied)
    pair.mirror.stop()
    assert told[:4] == ["", "http://up:8100: cannot be reached", "http://up:8100: cannot be reached", "here: oops"]
    assert [record.message.count("cannot be reached") for record in caplog.records].count(1) == 1


def test_of_two_processes_with_one_home_one_copies_and_the_other_takes_over(pair: Pair) -> None:
    first, second = pair.mirror, pair.make()
    assert first._seize()
    leftover = pair.here.root / "mirror" / "incoming-x"
    leftover.mkdir()
    assert not second._seize()
    assert leftover.exists()
    assert first._lock is not None
    os.close(first._lock)
    assert second._seize()
    assert not leftover.exists()


def test_a_page_that_says_the_copy_ends_elsewhere_is_not_taken(pair: Pair) -> None:
    pair.up.release("a")
    pair.mirror.poll()
    pair.up.release("b")
    real = page.read(pair.up.ledger, 2)
    pair.source.page = lambda _, *, wait_seconds: structs.replace(real, head=f"{wait_seconds}")  # type: ignore[method-assign]
    with pytest.raises(PageError, match="not what its entries end at"):
        pair.mirror.poll()
    assert len(pair.files()) == 2
