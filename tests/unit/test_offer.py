"""What a shim lets others copy: the ledger as it lies there, and the bundles it names, and no other."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from models.releases import bundle, transitions
from models.releases.ledger import Ledger
from models.releases.store import Store
from models.releases.transitions import Attribution
from serving import parcel
from serving.offer import Offer
from serving.problems import Problem

BY = Attribution(actor="ada", reason="because", at=datetime(2026, 1, 1, tzinfo=UTC))


@dataclass
class Home:
    root: Path

    def __post_init__(self) -> None:
        self.ledger = Ledger(self.root / "ledger")
        self.store = Store(self.root / "store")
        self.offer = Offer(self.ledger, self.store)
        self.ledger.append(transitions.genesis(streams={"orders": "observe"}, by=BY), expected_head="")

    def put(self, text: str, **pins: str) -> str:
        folder = self.root / f"made-{text}"
        folder.mkdir()
        (folder / "model.txt").write_text(text)
        return self.store.put(folder, digest=bundle.seal(folder, kind="router", pins=pins))

    def release(self, digest: str) -> None:
        history = self.ledger.history()
        if history.stream("orders").canary is None:
            entry = transitions.start_canary(history, stream="orders", digest=digest, share=0.5, by=BY)
        else:
            entry = transitions.release_model(history, name="forecaster", digest=digest, by=BY)
        self.ledger.append(entry, expected_head=history.hash)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    yield Home(tmp_path)
    for folder in tmp_path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o700)


def refused(home: Home, digest: str) -> tuple[int, str]:
    with pytest.raises(Problem) as raised:
        home.offer.bundle(digest)
    return raised.value.status, raised.value.detail


def test_only_what_the_ledger_names_is_sent_and_what_that_pins(home: Home) -> None:
    pinned = home.put("content")
    digest = home.put("a", content=pinned)
    for each in (digest, pinned):
        assert refused(home, each) == (404, f"no generation names the bundle {each!r}")
    home.release(digest)
    assert b"tar" in home.offer.bundle(digest)
    assert home.offer.bundle(pinned) != home.offer.bundle(digest)
    later = home.put("later")
    assert refused(home, later)[0] == 404
    home.release(later)
    assert home.offer.bundle(later)


@pytest.mark.parametrize("digest", ["0" * 64, "", ".", "..", "../store", "made-a", ".lock", "A" * 64])
def test_what_is_no_release_is_not_there(home: Home, digest: str) -> None:
    assert refused(home, digest)[0] == 404


def test_what_is_damaged_is_not_sent(home: Home) -> None:
    digest = home.put("a")
    home.release(digest)
    path = home.store.path(digest) / "model.txt"
    path.chmod(0o600)
    path.write_text("other")
    status, detail = refused(home, digest)
    assert status == 503
    assert "model.txt: expected SHA-256" in detail


def test_what_is_too_large_is_not_sent(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = home.put("a" * 99)
    home.release(digest)
    monkeypatch.setattr(parcel.pack, "__kwdefaults__", {"limits": bundle.Limits(max_total_bytes=10)})
    status, detail = refused(home, digest)
    assert status == 404
    assert "at most 10 bytes to send" in detail


def test_a_ledger_that_cannot_be_read_is_said_and_what_lies_past_it_is_sent(home: Home) -> None:
    for text in "abc":
        home.release(home.put(text))
    path = home.root / "ledger" / "00000002.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("ada", "eve"))
    with pytest.raises(Problem, match="generation 2 of the ledger is damaged") as raised:
        home.offer.page(0)
    assert raised.value.status == 503
    assert [json.loads(bytes(each))["entry"]["generation"] for each in home.offer.page(3).entries] == [4]
