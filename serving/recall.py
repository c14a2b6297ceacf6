"""Earlier decisions: remembered by their event and their id (`serving.memory`), read back from the spool."""

from collections.abc import Iterable
from contextlib import suppress

import msgspec
from msgspec import Struct

from features.records import Decision, Event
from serving import identity
from serving.memory import Memory
from serving.plan import StreamPlan
from serving.recorder import Recorder


class _Origin(Struct):
    """The first part of a logged decision, which says which event it was for."""

    decision_id: str
    event_id: str
    event_source: str
    stream: str


_DECISIONS = msgspec.json.Decoder(Decision)
_ORIGINS = msgspec.json.Decoder(_Origin)
# What follows the origin in a decision's JSON; no string holds it, whose quotes are escaped. Reading no further makes the
# memory warm ten times faster.
_AFTER_ORIGIN = b',"decided_at":'


def remember(memory: Memory, mark: int, decision_id: str, place: int) -> None:
    """Remember where the decision about the event of ``mark`` lies, and that it is found by its id."""
    memory.remember(mark, place)
    if not identity.tells(decision_id, mark):  # an id of the client's own making
        memory.remember(identity.fingerprint("id", decision_id), place)


def remember_all(memory: Memory, lines: Iterable[tuple[int, bytes]]) -> None:
    """Remember the decisions among ``lines`` of the spool, (place, payload) each."""
    for place, payload in lines:
        head = payload.partition(_AFTER_ORIGIN)[0]
        if len(head) == len(payload):
            continue  # an outcome
        with suppress(msgspec.MsgspecError):  # another writer's line is not ours to judge
            origin = _ORIGINS.decode(head + b"}")
            mark = identity.fingerprint(origin.stream, origin.event_source, origin.event_id)
            remember(memory, mark, origin.decision_id, place)


def remember_fallback(memory: Memory, recorder: Recorder, decision: Decision, place: int) -> None:
    """Remember what a client decided alone; an event that has a decision keeps it, and the other is found by its id."""
    mark = identity.fingerprint(decision.stream, decision.event_source, decision.event_id)
    if logged(memory, recorder, mark) is None:
        remember(memory, mark, decision.decision_id, place)
    else:
        memory.remember(identity.fingerprint("id", decision.decision_id), place)


def logged(memory: Memory, recorder: Recorder, mark: int) -> Decision | None:
    """Return the decision remembered under ``mark``, None where none is, or the spool has it no more."""
    place = memory.place(mark)
    payload = None if place is None else recorder.read(place)
    try:
        return _DECISIONS.decode(payload) if payload else None
    except msgspec.MsgspecError:
        return None


def standing(memory: Memory, recorder: Recorder, mark: int, event: Event, plan: StreamPlan) -> Decision | None:
    """Return the decision remembered for ``event``, whose mark it is, if the rules of today still allow it: policy beats memory."""
    decision = logged(memory, recorder, mark)
    if decision is None or (decision.event_id, decision.event_source, decision.stream) != (
        event.id,
        event.source,
        event.stream,
    ):
        return None
    is_allowed = decision.assigned in plan.destinations and plan.forbidden(event, decision.assigned) is None
    return decision if is_allowed or decision.assigned == plan.stream.refusal else None


def find(memory: Memory, recorder: Recorder, decision_id: str) -> Decision | None:
    """Return the decision of that id, None for one that is not remembered."""
    for mark in (identity.mark_of(decision_id), identity.fingerprint("id", decision_id)):
        decision = None if mark is None else logged(memory, recorder, mark)
        if decision is not None and decision.decision_id == decision_id:
            return decision
    return None
