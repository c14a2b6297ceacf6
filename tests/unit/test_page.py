"""A page of a ledger: what lies there byte for byte, and nothing that does not continue what one has."""

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, structs

from models.releases import transitions
from models.releases.history import History
from models.releases.ledger import Ledger
from models.releases.transitions import Attribution
from serving import page
from serving.page import LedgerPage, PageError

BY = Attribution(actor="ada", reason="because", at=datetime(2026, 1, 1, tzinfo=UTC))


def grow(ledger: Ledger, *letters: str, actor: str = "ada") -> Ledger:
    by = Attribution(actor=actor, reason="because", at=BY.at)
    for letter in letters:
        history = ledger.history()
        if history.head is None:
            entry = transitions.genesis(streams={"orders": "observe"}, by=by)
        else:
            entry = transitions.release_model(history, name="forecaster", digest=letter * 64, by=by)
        ledger.append(entry, expected_head=history.hash)
    return ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Return a ledger of four generations."""
    return grow(Ledger(tmp_path / "ledger"), *"abcd")


def up_to(ledger: Ledger, generation: int) -> History:
    history = History()
    for recorded in ledger.entries():
        if recorded.entry.generation <= generation:
            history = history.after(recorded)
    return history


def sent(found: LedgerPage) -> LedgerPage:
    return page.parse(msgspec.json.encode(found))


def test_the_entries_arrive_byte_for_byte_as_they_lie_there(ledger: Ledger, tmp_path: Path) -> None:
    files, recorded = page.check(sent(page.read(ledger, 1)), up_to(ledger, 1))
    assert files == tuple((tmp_path / "ledger" / f"{number:08d}.json").read_bytes() for number in (2, 3, 4))
    assert [each.hash for each in recorded] == [ledger.read(number).hash for number in (2, 3, 4)]


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_page_that_continues_what_one_has_is_taken(ledger: Ledger, after: int) -> None:
    _, recorded = page.check(sent(page.read(ledger, after)), up_to(ledger, after))
    assert [each.entry.generation for each in recorded] == list(range(after + 1, 5))


def test_an_empty_ledger_is_continued_by_nothing(tmp_path: Path) -> None:
    assert page.check(sent(page.read(Ledger(tmp_path), 0)), History()) == ((), ())


def test_a_page_is_bounded_and_the_next_goes_on(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("MAX_ENTRIES", 2), ("MAX_BYTES", 1)):
        with monkeypatch.context() as patch:
            patch.setattr(page, name, value)
            history, n_pages = History(), 0
            while history.generation < 4:
                for recorded in page.check(sent(page.read(ledger, history.generation)), history)[1]:
                    history = history.after(recorded)
                n_pages += 1
        assert history.hash == ledger.history().hash
        assert n_pages == 4 // (2 if name == "MAX_ENTRIES" else 1)


def test_a_forked_ledger_is_refused_before_and_after_the_fork(ledger: Ledger, tmp_path: Path) -> None:
    other = grow(Ledger(tmp_path / "other"), "a", "b")
    grow(other, "c", "d", actor="eve")
    ours = up_to(ledger, 3)
    with pytest.raises(PageError, match="forked: at generation 3"):
        page.check(page.read(other, 3), ours)
    lying = structs.replace(page.read(other, 3), previous=ours.hash)
    with pytest.raises(PageError, match="generation 4 breaks the rule 'previous'"):
        page.check(lying, ours)


def test_a_ledger_that_was_cut_short_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    other = grow(Ledger(tmp_path / "other"), *"abc")
    with pytest.raises(PageError, match="cut short: it ends at generation 3, the copy at 4"):
        page.check(page.read(other, 4), ledger.history())
    with pytest.raises(PageError, match="cut short"):
        page.check(page.read(Ledger(tmp_path / "none"), 4), ledger.history())


def test_a_gap_is_refused(ledger: Ledger) -> None:
    whole = page.read(ledger, 1)
    with pytest.raises(PageError, match="breaks the rule 'generation': the next is 2"):
        page.check(structs.replace(whole, entries=whole.entries[1:]), up_to(ledger, 1))


def test_a_head_that_nothing_leads_to_is_refused(ledger: Ledger) -> None:
    whole = page.read(ledger, 1)
    for wrong, words in (
        (structs.replace(whole, head="0" * 64), "not what its entries end at"),
        (structs.replace(whole, generation=3), "not what its entries end at"),
        (structs.replace(whole, entries=()), "nothing follows 1"),
        (structs.replace(whole, after=2), "asked was 1"),
    ):
        with pytest.raises(PageError, match=words):
            page.check(wrong, up_to(ledger, 1))


@given(data=st.data())
def test_whatever_bit_of_an_entry_is_changed_it_is_refused(data: st.DataObject, tmp_path_factory: object) -> None:
    ledger = grow(Ledger(tmp_path_factory.mktemp("l")), "a", "b")  # type: ignore[attr-defined]
    whole = page.read(ledger, 1)
    (entry,) = map(bytes, whole.entries)
    place, bit = data.draw(st.integers(0, len(entry) - 1)), data.draw(st.integers(0, 7))
    changed = entry[:place] + bytes([entry[place] ^ 1 << bit]) + entry[place + 1 :]
    with pytest.raises(PageError, match="generation 2"):
        page.check(structs.replace(whole, entries=(Raw(changed),)), up_to(ledger, 1))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"after": "1"}', b'{"entries": [{]}', b"\xff", b"[" * 5_000]
)
def test_what_is_no_page_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(PageError, match="no page of a ledger"):
        page.parse(body)


def test_an_entry_in_another_form_of_json_is_refused(ledger: Ledger) -> None:
    whole = page.read(ledger, 3)
    spaced = Raw(json.dumps(json.loads(bytes(whole.entries[0]))).encode())
    with pytest.raises(PageError, match="generation 4 of the ledger is damaged"):
        page.check(structs.replace(whole, entries=(spaced,)), up_to(ledger, 3))
