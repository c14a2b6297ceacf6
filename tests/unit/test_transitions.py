"""The transitions: any sequence of them is a history that the rules accept, and rolls back only to what stood before."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.records import Mode
from models.releases import entry as entries
from models.releases import history as histories
from models.releases import rules, transitions
from models.releases.entry import Entry, Gap, Recorded, StreamRelease
from models.releases.history import History
from models.releases.refusal import RuleBrokenError
from models.releases.transitions import Attribution, TransitionError

A, B, C, D = (letter * 64 for letter in "abcd")
BY = Attribution(actor="ada", reason="because", at=datetime(2026, 1, 1, tzinfo=UTC), evidence={"version": "router/3"})
STREAMS = ("flights", "orders")

Step = Callable[[History], Entry]


def record(history: History, entry: Entry) -> History:
    """Do in memory what the ledger does on disk."""
    entry = rules.normalise(entry)
    rules.check(entry, history)
    return history.after(entries.decode(entries.encode(entry)))


def play(*steps: Step) -> History:
    history = record(History(), transitions.genesis(streams={"flights": "observe"}, by=BY))
    for step in steps:
        history = record(history, step(history))
    return history


def canary(digest: str, share: float = 0.05) -> Step:
    return lambda past: transitions.start_canary(past, stream="flights", digest=digest, share=share, by=BY)


def advance(share: float) -> Step:
    return lambda past: transitions.advance_canary(past, stream="flights", share=share, by=BY)


def promote(past: History) -> Entry:
    return transitions.promote(past, stream="flights", by=BY)


def withdraw(past: History) -> Entry:
    return transitions.withdraw(past, stream="flights", by=BY)


def rollback(to: str | None = transitions.PREVIOUS) -> Step:
    return lambda past: transitions.rollback(past, stream="flights", to=to, by=BY)


def revoke(digest: str) -> Step:
    return lambda past: transitions.revoke(past, digest=digest, by=BY)


def flights(history: History) -> StreamRelease:
    return history.stream("flights")


def test_a_stream_that_shall_be_on_is_observed_until_it_has_a_champion() -> None:
    modes: dict[str, Mode] = {"a": "off", "b": "observe", "c": "canary", "d": "on"}
    history = record(History(), transitions.genesis(streams=modes, by=BY))
    assert [release.mode for release in history.streams.values()] == ["off", "observe", "observe", "observe"]


def test_a_challenger_climbs_the_ladder_and_becomes_the_champion() -> None:
    history = play(canary(A), advance(0.25), promote)
    assert flights(history) == StreamRelease(mode="on", champion=A)
    history = record(history, canary(B, 0.1)(history))
    assert flights(history) == StreamRelease(mode="canary", champion=A, canary=B, canary_share=0.1)
    assert history.head is not None
    assert history.head.entry.evidence == {"version": "router/3"}


def test_a_withdrawn_canary_leaves_the_champion_or_the_static_routes() -> None:
    assert flights(play(canary(A), withdraw)) == StreamRelease(mode="off")
    assert flights(play(canary(A), promote, canary(B), withdraw)) == StreamRelease(mode="on", champion=A)


def test_a_canary_is_paused_by_a_share_of_nothing() -> None:
    assert flights(play(canary(A), advance(0.0))) == StreamRelease(mode="canary", canary=A)


def test_rolling_back_returns_to_what_the_champion_followed_and_never_forward_again() -> None:
    history = play(canary(A), promote, canary(B), promote, canary(C), promote, rollback())
    assert flights(history).champion == B
    history = record(history, rollback()(history))
    assert flights(history).champion == A
    history = record(history, rollback()(history))
    assert flights(history) == StreamRelease(mode="off")
    with pytest.raises(TransitionError, match="already led by the static routes"):
        rollback()(history)


def test_a_champion_that_was_rolled_back_is_not_what_the_next_rollback_returns_to() -> None:
    history = play(canary(A), promote, canary(B), promote, rollback(), canary(C), promote, rollback())
    assert flights(history).champion == A


def test_rolling_back_to_a_named_digest_takes_only_what_stood_and_is_not_revoked() -> None:
    history = play(canary(A), promote, canary(B), promote, canary(C), withdraw)
    assert flights(record(history, rollback(A)(history))).champion == A
    for never in (C, D):
        with pytest.raises(RuleBrokenError, match="never was the champion") as refused:
            record(history, rollback(never)(history))
        assert refused.value.rule == "champion"
    history = record(history, revoke(A)(history))
    with pytest.raises(RuleBrokenError, match="revoked"):
        record(history, rollback(A)(history))


def test_a_digest_that_stood_on_one_stream_is_no_champion_of_another() -> None:
    history = play(canary(A), promote)
    with pytest.raises(RuleBrokenError, match="never was the champion of 'orders'"):
        record(history, transitions.rollback(history, stream="orders", to=A, by=BY))


def test_a_rollback_ends_the_canary_and_leaves_a_stopped_stream_stopped() -> None:
    history = play(canary(A), promote, canary(B), promote, canary(C), rollback())
    assert flights(history) == StreamRelease(mode="on", champion=A)
    stopped = play(
        canary(A), promote, canary(B), promote,
        lambda past: transitions.set_mode(past, stream="flights", mode="off", by=BY), rollback(),
    )  # fmt: skip
    assert flights(stopped) == StreamRelease(mode="off", champion=A)


def test_revoking_the_champion_falls_back_on_the_latest_that_is_not_revoked() -> None:
    history = play(canary(A), promote, canary(B), promote, canary(C), promote, revoke(B), canary(D), revoke(C))
    assert flights(history) == StreamRelease(mode="on", champion=A)
    assert history.revoked == (B, C)
    assert flights(record(history, revoke(A)(history))) == StreamRelease(mode="off")


def test_revoking_a_canary_or_a_shadow_ends_it() -> None:
    assert flights(play(canary(A), promote, canary(B), revoke(B))) == StreamRelease(mode="on", champion=A)
    shadowed = play(lambda past: transitions.release_shadow(past, stream="flights", digest=A, by=BY), revoke(A))
    assert flights(shadowed) == StreamRelease(mode="observe")


def test_revoking_another_model_falls_back_on_the_one_it_followed() -> None:
    def release(digest: str) -> Step:
        return lambda past: transitions.release_model(past, name="forecaster", digest=digest, by=BY)

    history = play(release(A), release(B), revoke(B))
    assert history.models == {"forecaster": A}
    assert record(history, revoke(A)(history)).models == {}


def test_what_is_revoked_can_be_released_nowhere() -> None:
    history = play(revoke(A))
    for step in (
        canary(A),
        lambda past: transitions.release_model(past, name="forecaster", digest=A, by=BY),
        lambda past: transitions.release_shadow(past, stream="flights", digest=A, by=BY),
    ):
        with pytest.raises(RuleBrokenError) as refused:
            record(history, step(history))
        assert refused.value.rule == "revoked"


def test_a_shadow_becomes_the_canary_and_is_shadow_no_more() -> None:
    history = play(lambda past: transitions.release_shadow(past, stream="orders", digest=A, by=BY))
    assert history.stream("orders") == StreamRelease(mode="observe", shadow=A)
    history = record(history, transitions.start_canary(history, stream="orders", digest=A, share=0.01, by=BY))
    assert history.stream("orders") == StreamRelease(mode="canary", canary=A, canary_share=0.01)


def test_a_mode_is_set_and_ends_the_canary() -> None:
    history = play(canary(A), promote, canary(B))
    history = record(history, transitions.set_mode(history, stream="flights", mode="observe", by=BY))
    assert flights(history) == StreamRelease(mode="observe", champion=A)


def test_steps_that_make_no_sense_are_refused_by_name() -> None:
    idle, busy = play(), play(canary(A))
    stopped = play(canary(A), promote, lambda past: transitions.set_mode(past, stream="flights", mode="off", by=BY))
    for step in (promote, withdraw, advance(0.5)):
        with pytest.raises(TransitionError, match="'flights' has no canary"):
            step(idle)
    with pytest.raises(TransitionError, match="promote or withdraw it first"):
        canary(B)(busy)
    with pytest.raises(TransitionError, match="set it on first"):
        canary(B)(stopped)
    with pytest.raises(TransitionError, match="'canary' by starting one"):
        transitions.set_mode(idle, stream="flights", mode="canary", by=BY)


def test_instants_are_taken_in_any_zone_and_kept_in_utc() -> None:
    there = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    entry = transitions.genesis(streams={}, by=Attribution(actor="ada", reason="because", at=there))
    assert entry.at == BY.at
    assert entry.at.tzinfo is UTC
    with pytest.raises(ValueError, match="must carry a zone"):
        transitions.genesis(streams={}, by=Attribution(actor="ada", reason="because", at=datetime(2026, 1, 1)))  # noqa: DTZ001


def test_a_restore_continues_above_what_a_shim_served_with_what_it_served() -> None:
    backup = play(canary(A), promote)
    ahead = record(backup, canary(B)(backup))
    for step in (promote, revoke(D), canary(C)):
        ahead = record(ahead, step(ahead))
    assert ahead.head is not None
    above = (ahead.generation, ahead.hash)
    entry = transitions.restore(backup, above=above, lost=ahead.head.entry, by=BY)
    history = record(backup, entry)
    assert history.generation == ahead.generation + 1
    assert entry.previous == backup.hash
    assert flights(history) == StreamRelease(mode="on", champion=B)
    assert history.revoked == (D,)
    assert flights(record(history, rollback()(history))).champion == A


def test_a_restore_without_the_lost_entry_keeps_the_present_champion() -> None:
    backup = play(canary(A), promote, canary(B))
    history = record(backup, transitions.restore(backup, above=(40, C), by=BY))
    assert history.generation == 41
    assert flights(history) == StreamRelease(mode="on", champion=A)
    assert history.head is not None
    assert history.head.entry.gap == Gap(generation=40, hash=C)


def test_a_restore_of_an_empty_ledger_begins_above_what_was_served() -> None:
    ahead = play(canary(A), promote)
    assert ahead.head is not None
    history = record(History(), transitions.restore(History(), above=(3, ahead.hash), lost=ahead.head.entry, by=BY))
    assert (history.generation, flights(history).champion) == (4, A)


def test_a_restore_cannot_bring_in_what_nobody_served_or_reuse_a_generation() -> None:
    backup = play(canary(A), promote)
    ahead = record(backup, canary(B)(backup))
    ahead = record(ahead, promote(ahead))
    assert ahead.head is not None
    lost = ahead.head.entry
    forged = msgspec.structs.replace(lost, streams={"flights": StreamRelease(mode="on", champion=C)})
    present = backup.head.entry if backup.head else lost
    for entry in (
        transitions.restore(backup, above=(ahead.generation, ahead.hash), lost=forged, by=BY),
        transitions.restore(backup, above=(ahead.generation + 1, ahead.hash), lost=lost, by=BY),
        transitions.restore(backup, above=(backup.generation, backup.hash), lost=present, by=BY),
        transitions.restore(backup, above=(backup.generation - 1, C), by=BY),
        msgspec.structs.replace(transitions.restore(backup, above=(9, C), by=BY), gap=None),
    ):
        with pytest.raises(RuleBrokenError) as refused:
            record(backup, entry)
        assert refused.value.rule == "gap"
    unknown = transitions.restore(backup, above=(9, C), by=BY)
    unknown = msgspec.structs.replace(unknown, streams={"flights": StreamRelease(mode="on", champion=B)})
    with pytest.raises(RuleBrokenError, match="never was the champion"):
        record(backup, unknown)


STEP = st.tuples(
    st.sampled_from(
        ["start_canary", "advance_canary", "promote", "promote", "withdraw", "rollback", "rollback_to", "set_mode",
         "release_model", "release_shadow", "revoke", "restore"]
    ),
    st.sampled_from(STREAMS),
    st.sampled_from([letter * 64 for letter in "abcdef"]),
    st.floats(0.0, 1.0),
)  # fmt: skip


_ALWAYS_ALLOWED = ("promote", "withdraw", "rollback")  # no rule may stand in the way of what makes things safe again


def propose(history: History, kind: str, stream: str, digest: str, share: float) -> Entry:
    steps: dict[str, Callable[[], Entry]] = {
        "start_canary": lambda: transitions.start_canary(history, stream=stream, digest=digest, share=share, by=BY),
        "advance_canary": lambda: transitions.advance_canary(history, stream=stream, share=share, by=BY),
        "promote": lambda: transitions.promote(history, stream=stream, by=BY),
        "withdraw": lambda: transitions.withdraw(history, stream=stream, by=BY),
        "rollback": lambda: transitions.rollback(history, stream=stream, by=BY),
        "rollback_to": lambda: transitions.rollback(history, stream=stream, to=digest, by=BY),
        "set_mode": lambda: transitions.set_mode(history, stream=stream, mode="on" if share > 0.4 else "off", by=BY),
        "release_model": lambda: transitions.release_model(history, name="forecaster", digest=digest, by=BY),
        "release_shadow": lambda: transitions.release_shadow(history, stream=stream, digest=digest, by=BY),
        "revoke": lambda: transitions.revoke(history, digest=digest, by=BY),
        "restore": lambda: transitions.restore(history, above=(history.generation + 2, digest), by=BY),
    }
    return steps[kind]()


def check_step(kind: str, stream: str, before: History, after: History) -> None:
    """Say again, in other words than the rules, what must be true of a step that was taken."""
    released = {digest for release in after.streams.values() for digest in release.digests()}
    assert not (released | set(after.models.values())) & set(after.revoked)
    assert set(before.revoked) <= set(after.revoked)
    for name, release in after.streams.items():
        assert (release.canary is not None) == (release.mode == "canary")
        assert release.canary is not None or release.canary_share == 0.0
        was = before.stream(name)
        if release.champion not in (was.champion, None):
            assert release.champion in (was.canary if kind == "promote" else None, *before.stood.get(name, ()))
        if name != stream and kind not in ("revoke", "restore"):
            assert release == was
    assert after.generation > before.generation


@given(st.lists(STEP, max_size=40))
def test_any_sequence_of_steps_is_a_history_that_the_rules_accept(steps: list[tuple[str, str, str, float]]) -> None:
    history = record(History(), transitions.genesis(streams=dict.fromkeys(STREAMS, "off"), by=BY))
    chain: list[Recorded] = [history.head] if history.head else []
    for kind, stream, digest, share in steps:
        try:
            proposed = propose(history, kind, stream, digest, share)
        except TransitionError:
            continue
        try:
            after = record(history, proposed)
        except RuleBrokenError:
            assert kind not in _ALWAYS_ALLOWED
            continue
        check_step(kind, stream, history, after)
        history = after
        chain += [history.head] if history.head else []
    assert histories.fold(chain) == history


def pause(past: History) -> Entry:
    return transitions.pause(past, stream="flights", by=BY)


def resume(past: History) -> Entry:
    return transitions.resume(past, stream="flights", by=BY)


def reject(digest: str) -> Step:
    return lambda past: transitions.reject(past, digest=digest, by=BY)


def readmit(digest: str) -> Step:
    return lambda past: transitions.readmit(past, digest=digest, by=BY)


def test_a_pause_releases_nothing_and_keeps_the_canarys_share() -> None:
    running, paused = play(canary(A, 0.25)), play(canary(A, 0.25), pause)
    assert paused.streams == running.streams
    assert set(paused.paused) == {"flights"}
    assert play(canary(A, 0.25), pause, resume).paused == {}


@pytest.mark.parametrize("step", [advance(0.5), promote, pause])
def test_a_paused_canary_neither_climbs_nor_wins(step: Step) -> None:
    with pytest.raises(TransitionError, match="'flights' was paused by ada: because"):
        step(play(canary(A), pause))


@pytest.mark.parametrize("step", [withdraw, rollback(None)])
def test_what_is_paused_can_still_be_taken_back(step: Step) -> None:
    after = play(canary(A), promote, canary(B), pause, step)
    assert after.stream("flights").canary is None
    assert set(after.paused) == {"flights"}


def test_no_canary_begins_while_its_stream_is_paused() -> None:
    with pytest.raises(TransitionError, match="paused"):
        canary(A)(play(pause))


@pytest.mark.parametrize(
    ("before", "forged", "remark", "words"),
    [
        (play(canary(A)), promote, pause, "paused"),
        (play(canary(A)), advance(0.5), pause, "paused"),
        (play(), canary(A), pause, "paused"),
        (play(), canary(A), reject(A), "was rejected"),
    ],
    ids=["a promotion", "a climb", "a beginning", "a rejected beginning"],
)
def test_the_rules_hold_against_a_step_that_was_made_before_the_remark(
    before: History, forged: Step, remark: Step, words: str
) -> None:
    late, after = forged(before), record(before, remark(before))
    late = msgspec.structs.replace(late, generation=after.generation + 1, previous=after.hash)
    with pytest.raises(RuleBrokenError, match=words):
        rules.check(late, after)


def test_only_what_is_paused_is_resumed_and_only_what_is_known_paused() -> None:
    with pytest.raises(TransitionError, match="not paused"):
        resume(play())
    with pytest.raises(TransitionError, match="knows no stream 'trains'"):
        transitions.pause(play(), stream="trains", by=BY)


def test_what_was_rejected_never_becomes_a_canary_until_it_is_readmitted() -> None:
    with pytest.raises(TransitionError, match=f"{A} was rejected by ada: because"):
        canary(A)(play(reject(A)))
    with pytest.raises(RuleBrokenError, match="was rejected"):
        play(reject(C), lambda past: transitions.release_model(past, name="forecaster", digest=C, by=BY))
    assert play(reject(A), readmit(A), canary(A)).stream("flights").canary == A


def test_what_is_in_force_is_not_rejected_but_rolled_back_or_revoked() -> None:
    with pytest.raises(TransitionError, match="is in force: roll it back, or revoke it"):
        reject(A)(play(canary(A)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"subject": msgspec.UNSET}, "have a subject"),
        ({"subject": "trains"}, "no such stream"),
        ({"streams": {"flights": StreamRelease(mode="off")}}, "releases nothing"),
        ({"action": "resume"}, "not so already"),
        ({"action": "mode"}, "have a subject and nothing else does"),
        ({"action": "reject"}, "no such stream or digest"),
    ],
)
def test_a_forged_pause_is_refused(changes: dict[str, object], words: str) -> None:
    before = play()
    with pytest.raises(RuleBrokenError, match=words):
        rules.check(msgspec.structs.replace(pause(before), **changes), before)


def test_an_entry_without_a_subject_keeps_the_bytes_that_it_had_before_there_were_any() -> None:
    assert b"subject" not in entries.encode(transitions.genesis(streams={"flights": "observe"}, by=BY))
