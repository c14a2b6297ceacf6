"""The ledger on disk: one winner per generation, every flipped bit found, nothing refused without its rule."""

import shutil
import threading
from collections.abc import Callable
from datetime import timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.releases import entry as entries
from models.releases import transitions
from models.releases.canonical import NotCanonicalError
from models.releases.entry import Entry, StreamRelease
from models.releases.history import History
from models.releases.ledger import FAILPOINTS, DamagedLedgerError, Ledger, LedgerConflictError
from models.releases.refusal import RuleBrokenError
from models.releases.transitions import Attribution
from tests.unit.ledger_steps import AT, BY, A, B, C, append, forecaster, genesis


class DiedError(Exception):
    """Stands for a crash at a failpoint."""


def test_a_ledger_that_is_not_there_is_empty(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "absent")
    assert ledger.head() is None
    assert ledger.generations() == ()
    assert ledger.sweep() == ()
    assert ledger.verify() == ledger.history() == History()
    assert not (tmp_path / "absent").exists()


def test_what_was_appended_reads_back_and_the_head_is_the_newest(ledger: Ledger, tmp_path: Path) -> None:
    head = ledger.head()
    assert head is not None
    assert head.hash == ledger.history().hash == ledger.verify().hash
    assert head.entry.action == "release"
    assert head.entry.streams == {"flights": StreamRelease(mode="on", champion=A)}
    assert head.entry.models == {"forecaster": C}
    assert [recorded.entry.generation for recorded in ledger.entries()] == [1, 2, 3, 4]
    assert sorted(path.name for path in (tmp_path / "ledger").glob("*")) == [
        ".lock", "00000001.json", "00000002.json", "00000003.json", "00000004.json",
    ]  # fmt: skip
    assert (tmp_path / "ledger" / "00000004.json").stat().st_mode & 0o777 == 0o444


def test_each_generation_names_the_hash_of_the_file_before(ledger: Ledger, tmp_path: Path) -> None:
    previous = ""
    for recorded in ledger.entries():
        assert recorded.entry.previous == previous
        data = (tmp_path / "ledger" / f"{recorded.entry.generation:08d}.json").read_bytes()
        previous = entries.decode(data).hash
    assert previous == ledger.history().hash


def test_the_loser_of_a_head_is_told_who_won_and_with_what(ledger: Ledger) -> None:
    seen = ledger.history()
    ledger.append(forecaster(seen, A, actor="grace"), expected_head=seen.hash)
    with pytest.raises(LedgerConflictError, match=r"'grace' made generation 5 \(release\)") as lost:
        ledger.append(forecaster(seen, B), expected_head=seen.hash)
    assert (lost.value.generation, lost.value.actor, lost.value.action) == (5, "grace", "release")


def test_the_loser_is_told_who_took_its_generation_though_the_head_has_moved_on(ledger: Ledger) -> None:
    seen = ledger.history()
    ledger.append(forecaster(seen, A, actor="grace"), expected_head=seen.hash)
    append(ledger, lambda past: forecaster(past, B, actor="linus"))
    with pytest.raises(LedgerConflictError, match=r"'grace' made generation 5 \(release\)"):
        ledger.append(forecaster(seen, B), expected_head=seen.hash)


def test_the_loser_of_the_link_is_told_as_well(ledger: Ledger, tmp_path: Path) -> None:
    seen = ledger.history()

    def overtake(point: str) -> None:
        if point == "append:written":
            ledger.append(forecaster(seen, A, actor="grace"), expected_head=seen.hash)

    slow = Ledger(tmp_path / "ledger", failpoint=overtake)
    with pytest.raises(LedgerConflictError, match=r"'grace' made generation 5 \(release\)"):
        slow.append(forecaster(seen, B), expected_head=seen.hash)
    assert ledger.verify().models == {"forecaster": A}
    assert ledger.sweep() == ()


def test_an_expected_head_that_never_was_is_a_conflict(ledger: Ledger, tmp_path: Path) -> None:
    history = ledger.history()
    with pytest.raises(LedgerConflictError, match="'ada' made generation 4"):
        ledger.append(forecaster(history, A), expected_head=B)
    with pytest.raises(LedgerConflictError, match="the ledger is empty"):
        Ledger(tmp_path / "other").append(genesis(history), expected_head=B)


def change(entry: Entry, **fields: object) -> Entry:
    return msgspec.structs.replace(entry, **fields)


def on_flights(release: StreamRelease, **fields: object) -> Callable[[Entry], Entry]:
    return lambda entry: change(entry, streams={"flights": release}, **fields)


def fields(**changed: object) -> Callable[[Entry], Entry]:
    return lambda entry: change(entry, **changed)


LED_BY_B = StreamRelease(mode="on", champion=B)
SAME = {"forecaster": C}
BROKEN: dict[str, tuple[str, Callable[[Entry], Entry]]] = {
    "a generation that is taken": ("generation", fields(generation=4)),
    "a generation that is skipped": ("generation", fields(generation=6)),
    "another predecessor": ("previous", fields(previous=B)),
    "an instant in another zone": ("instant", fields(at=AT.astimezone(timezone(timedelta(hours=1))))),
    "an instant without a zone": ("instant", fields(at=AT.replace(tzinfo=None))),
    "a share above one": ("share", on_flights(StreamRelease(mode="canary", canary=B, canary_share=1.5))),
    "a share below nothing": ("share", on_flights(StreamRelease(mode="canary", canary=B, canary_share=-0.1))),
    "a share that is no number": ("share", on_flights(StreamRelease(mode="canary", canary=B, canary_share=float("nan")))),
    "a share without a canary": ("share", on_flights(StreamRelease(mode="on", champion=A, canary_share=0.5))),
    "the mode canary without one": ("mode", on_flights(StreamRelease(mode="canary", champion=A))),
    "a canary in another mode": ("mode", on_flights(StreamRelease(mode="on", champion=A, canary=B))),
    "on without a champion": ("mode", on_flights(StreamRelease(mode="on"))),
    "an unknown mode": ("shape", on_flights(StreamRelease(mode="fast"))),  # type: ignore[arg-type]
    "a digest that is none": ("shape", on_flights(StreamRelease(mode="on", champion="latest"))),
    "no actor": ("shape", fields(actor="")),
    "no reason": ("shape", fields(reason="")),
    "half a character": ("shape", fields(reason="\ud800")),
    "what is no JSON": ("shape", fields(evidence={"report": object()})),
    "more than a file may hold": ("shape", fields(evidence={"report": "x" * 2_000_000})),
    "the champion as its own canary": ("champion", on_flights(StreamRelease(mode="canary", champion=A, canary=A))),
    "a champion from nowhere": ("champion", on_flights(LED_BY_B, action="rollback", models=SAME)),
    "a champion from nowhere by revoking": ("champion", on_flights(LED_BY_B, action="revoke", revoked=(A,))),
    "a promotion without a canary": ("champion", on_flights(LED_BY_B, action="promote", models=SAME)),
    "a champion that changes under a release": ("action", on_flights(LED_BY_B, models=SAME)),
    "a champion that changes under a canary": (
        "action", on_flights(StreamRelease(mode="canary", champion=B, canary=C), action="canary", models=SAME)),
    "something revoked": ("revoked", fields(action="revoke", revoked=(A,))),
    "a revocation by another action": ("revoked", fields(revoked=("d" * 64,))),
    "a revocation given twice": ("revoked", fields(action="revoke", revoked=("d" * 64, "d" * 64))),
    "a revocation of nothing": ("revoked", fields(action="revoke", models=SAME)),
    "a second genesis": ("action", fields(action="genesis", streams={}, models={})),
    "a stream that disappears": ("action", fields(streams={})),
    "two changes at once": ("action", on_flights(StreamRelease(mode="off", champion=A))),
    "a mode and a model at once": ("action", on_flights(StreamRelease(mode="off", champion=A), action="mode")),
    "a mode that changes nothing": ("action", fields(action="mode", models=SAME)),
    "a restore by the front door": ("action", fields(action="restore")),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_an_entry_that_breaks_a_rule_is_refused_by_its_name(ledger: Ledger, name: str) -> None:
    rule, spoil = BROKEN[name]
    history = ledger.history()
    with pytest.raises(RuleBrokenError) as refused:
        ledger.append(spoil(forecaster(history, B)), expected_head=history.hash)
    assert refused.value.rule == rule
    assert ledger.history() == history
    assert ledger.sweep() == ()


def test_a_ledger_begins_with_genesis_that_releases_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for entry in (
        change(genesis(History()), action="mode"),
        change(genesis(History()), streams={"flights": StreamRelease(mode="on", champion=A)}),
        change(genesis(History()), models={"forecaster": A}),
        change(genesis(History()), revoked=(A,)),
    ):
        with pytest.raises(RuleBrokenError):
            ledger.append(entry, expected_head="")
    assert ledger.head() is None


def test_a_clock_that_stepped_back_never_stands_in_the_way_of_a_rollback(ledger: Ledger) -> None:
    by = Attribution(actor="ada", reason="it fails", at=AT - timedelta(hours=1))
    append(ledger, lambda past: transitions.rollback(past, stream="flights", to=None, by=by))
    assert ledger.verify().stream("flights").champion is None


@pytest.mark.parametrize("point", FAILPOINTS)
def test_an_append_that_dies_anywhere_is_recorded_or_not_there_and_can_be_done_again(
    ledger: Ledger, tmp_path: Path, point: str
) -> None:
    before = ledger.history()

    def die(at: str) -> None:
        if at == point:
            raise DiedError

    with pytest.raises(DiedError):
        Ledger(tmp_path / "ledger", failpoint=die).append(forecaster(before, A), expected_head=before.hash)
    recorded = point in ("append:linked", "append:unlinked")
    assert ledger.verify().generation == before.generation + recorded
    append(ledger, lambda past: forecaster(past, B))
    assert ledger.verify().models == {"forecaster": B}


def test_leftovers_and_strangers_are_passed_over_and_leftovers_swept(ledger: Ledger, tmp_path: Path) -> None:
    root, history = tmp_path / "ledger", ledger.history()
    for name in (".append-1-dead", "00000009.json.tmp", "9.json", "notes.txt", "00000009.JSON"):
        (root / name).write_bytes(b'{"generation":9')
    assert ledger.verify() == history
    assert ledger.sweep() == (".append-1-dead",)
    assert (root / "notes.txt").exists()


def test_every_flipped_bit_of_an_entrys_file_is_found(golden: Path) -> None:
    data = (golden / "00000004.json").read_bytes()
    for offset in range(len(data)):
        for bit in range(8):
            flipped = bytearray(data)
            flipped[offset] ^= 1 << bit
            with pytest.raises(NotCanonicalError):
                entries.decode(bytes(flipped))


@given(st.data())
def test_verify_names_the_generation_of_a_flipped_byte(
    golden: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("flip") / "ledger"
    shutil.copytree(golden, root)
    generation = data.draw(st.integers(1, 4))
    path = root / f"{generation:08d}.json"
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(DamagedLedgerError) as damaged:
        Ledger(root).verify()
    assert damaged.value.generation == generation


@pytest.mark.parametrize("content", [b"", b"{", b"null", b"[" * 100_000, b"\xff", b" " * 3_000_000])
def test_a_garbage_head_is_an_error_that_names_it_and_those_before_stay_readable(
    ledger: Ledger, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "ledger" / "00000004.json"
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(DamagedLedgerError, match="generation 4") as damaged:
        ledger.head()
    assert damaged.value.generation == 4
    assert ledger.read(ledger.generations()[-2]).entry.action == "promote"
    with pytest.raises(DamagedLedgerError):
        append(ledger, forecaster)


def rewrite(root: Path, generation: int, spoil: Callable[[Entry], Entry], *, onto: int | None = None) -> None:
    """Forge a generation as one with the right to write could: checksum right, content not."""
    path = root / f"{generation:08d}.json"
    entry = spoil(entries.decode(path.read_bytes()).entry)
    path.unlink()
    (root / f"{onto or generation:08d}.json").write_bytes(entries.encode(entry))


def test_a_forged_chain_is_found_at_its_first_wrong_generation(ledger: Ledger, tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    rewrite(root, 2, lambda entry: change(entry, actor="mallory"))
    for look in (ledger.verify, ledger.history):
        with pytest.raises(DamagedLedgerError, match=r"generation 3 .*'previous'"):
            look()


def test_a_generation_that_is_missing_or_under_another_name_is_found(ledger: Ledger, tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    rewrite(root, 4, lambda entry: entry, onto=5)
    with pytest.raises(DamagedLedgerError, match=r"generation 5 .*says generation 4"):
        ledger.head()
    (root / "00000005.json").unlink()
    (root / "00000002.json").unlink()
    with pytest.raises(DamagedLedgerError, match=r"generation 3 .*'generation'"):
        ledger.verify()


def test_a_rule_broken_behind_the_ledgers_back_is_found_by_verify(ledger: Ledger, tmp_path: Path) -> None:
    rewrite(
        tmp_path / "ledger", 4, lambda entry: change(entry, streams={"flights": StreamRelease(mode="on", champion=B)})
    )
    with pytest.raises(DamagedLedgerError, match=r"generation 4 .*'action'"):
        ledger.verify()


def test_a_ledger_whose_end_was_cut_off_disagrees_with_what_the_shims_served(ledger: Ledger, tmp_path: Path) -> None:
    head = ledger.history()
    assert ledger.verify(served=[(4, head.hash)]).generation == 4
    (tmp_path / "ledger" / "00000004.json").unlink()
    assert ledger.verify().generation == 3
    with pytest.raises(DamagedLedgerError, match=f"generation 4 .*a shim served it as {head.hash}"):
        ledger.verify(served=[(4, head.hash)])


def test_a_ledger_restored_from_a_backup_continues_above_what_the_shims_served(ledger: Ledger, tmp_path: Path) -> None:
    root = tmp_path / "ledger"
    append(ledger, lambda past: forecaster(past, B))
    lost = ledger.head()
    assert lost is not None
    for generation in (4, 5):
        (root / f"{generation:08d}.json").unlink()
    above = (5, lost.hash)
    history = ledger.history()
    entry = transitions.restore(history, above=above, lost=lost.entry, by=BY)
    with pytest.raises(ValueError, match="must continue above"):
        ledger.restore(entry, above=(6, lost.hash))
    ledger.restore(entry, above=above)
    assert ledger.generations() == (1, 2, 3, 6)
    assert ledger.verify(served=[above, (4, A)]).models == {"forecaster": B}
    with pytest.raises(DamagedLedgerError):
        ledger.verify(served=[(7, A)])
    with pytest.raises(LedgerConflictError, match=r"generation 6 \(restore\)"):
        ledger.append(forecaster(history, A), expected_head=history.hash)
    append(ledger, lambda past: forecaster(past, A))
    assert ledger.verify().generation == 7


def test_two_restores_above_different_generations_cannot_fork_the_chain(ledger: Ledger) -> None:
    history = ledger.history()
    first, second = (transitions.restore(history, above=(above, B), by=BY) for above in (20, 30))
    ledger.restore(first, above=(20, B))
    with pytest.raises(LedgerConflictError, match=r"generation 21 \(restore\)"):
        ledger.restore(second, above=(30, B))
    assert ledger.verify().generation == 21


def test_a_restore_waits_for_an_append_under_way_and_is_then_told(ledger: Ledger, tmp_path: Path) -> None:
    history = ledger.history()
    told: list[LedgerConflictError] = []

    def restore() -> None:
        try:
            ledger.restore(transitions.restore(history, above=(20, B), by=BY), above=(20, B))
        except LedgerConflictError as error:
            told.append(error)

    restorer = threading.Thread(target=restore)

    def restore_meanwhile(point: str) -> None:
        if point == "append:written":
            restorer.start()
            restorer.join(0.05)
            assert restorer.is_alive()

    slow = Ledger(tmp_path / "ledger", failpoint=restore_meanwhile)
    slow.append(forecaster(history, A), expected_head=history.hash)
    restorer.join()
    assert [error.generation for error in told] == [5]
    assert ledger.verify().generation == 5
