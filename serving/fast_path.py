"""The fast path: ordinary requests of ordinary streams, decided from bytes to bytes by C (serving/native).

It gives what the whole path (intake, cloudevents, decider, answer) gives, or it gives nothing and the whole path is asked:
for a stream of which `serving.course` says that it is not ordinary, for a request that is wrong or says something in a way
that C does not read (an escape in a string, a key twice, an instant in another zone than UTC), for a model that fails.
"""

import logging
import math
import struct
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from features.definitions import TIME
from features.records import DestinationState
from serving.course import Course, Instants, course_of
from serving.live import STATE, LiveStates
from serving.plan import Plan, StreamPlan
from serving.view import ReleaseView, StreamView

try:
    from serving import _fast_path
except ImportError:  # no compiler at the installation
    _fast_path = None  # type: ignore[assignment]  # looked at before its use

_LOGGER = logging.getLogger("turnout.shim")
_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


# A decision that was made: what to answer, its line in the spool, the event's fingerprint, the id that the client gave the decision or
# None, what metrics count it under, and its microseconds. A plain tuple, which costs the least.
Made = tuple[bytes, bytes, int, str | None, tuple[str, str, str], float]


class FastPath:
    """The fast path of one shim, for one thread. It follows the release that it is asked to decide under.

    ``streams`` are those whose ordinary requests it takes under that release.
    """

    def __init__(self, plan: Plan, live: LiveStates) -> None:
        """Decide under ``plan`` with what is known ``live``; nothing is decided where no compiler was there at the installation."""
        self._plan = plan
        self._live = live
        self._live_version = -1
        self._courses: list[Course] = []
        self._view: ReleaseView | None = None
        self._compiled: _fast_path.FastPath | None = None
        self._instants: Instants = []
        self.streams: frozenset[str] = frozenset()

    def decide(
        self, view: ReleaseView, body: bytes, at: datetime, *, is_bare: bool
    ) -> tuple[Sequence[Made], bool] | None:
        """Decide the request, or the batch of them, that ``body`` is: what was made of it, and whether it is a batch.

        ``is_bare`` says that a request is an event alone. None is for the whole path.
        """
        self.follow(view)
        if self._compiled is None:
            return None
        times = self._times(at) if self._instants else b""
        self._tell_states(self._compiled, at)
        return self._compiled.decide(body, is_bare, _encode(at), (at - _EPOCH) // _MICROSECOND, times)

    def follow(self, view: ReleaseView) -> None:
        """Make the courses of a release, unless they are made."""
        if view is self._view:
            return
        self._view, self._compiled, self._instants = view, None, []
        self._live_version, self._courses, self.streams = -1, [], frozenset()
        if not is_compiled():
            return
        types: list[tuple[bytes, int]] = []
        for plan in self._plan.streams.values():
            course = self._course(plan, view)
            if course is not None:
                types += [(event_type.encode(), len(self._courses)) for event_type in plan.stream.types]
                self._courses.append(course)
        if self._courses:
            self._compiled = _fast_path.FastPath(tuple(self._courses), tuple(types))
        self.streams = frozenset(course.name.decode() for course in self._courses)

    def _course(self, plan: StreamPlan, view: ReleaseView) -> Course | None:
        """Return a stream's course; one for which none can be made, for whatever reason, is decided by the whole path."""
        try:
            return course_of(
                plan,
                view.streams.get(plan.name) or StreamView(mode=plan.stream.mode),
                revision=self._plan.revision,
                instants=self._instants,
                max_age_seconds=self._live.max_age_seconds,
            )
        except Exception:  # what nobody thought of must cost a stream its speed, and no event its answer
            _LOGGER.exception("no fast path for stream %r", plan.name)
            return None

    def _tell_states(self, compiled: "_fast_path.FastPath", at: datetime) -> None:
        """Tell C what is known of destinations, where that is news."""
        states = self._live.states(at)
        if self._live.version == self._live_version:
            return
        told = [
            compiled.set_live(
                place, b"".join([_row(states.get(name.decode()), course) for name in course.destinations])
            )
            for place, course in enumerate(self._courses)
        ]
        if all(told):  # else a model has led back here, and the decision under way keeps what it has
            self._live_version = self._live.version

    def _times(self, at: datetime) -> bytes:
        read = [TIME[name](at.astimezone(ZoneInfo(zone))) for zone, name in self._instants]
        return struct.pack(f"{len(read)}d", *read)


def is_compiled() -> bool:
    """Tell whether the fast path was built when Turnout was installed."""
    return _fast_path is not None


def _row(state: DestinationState | None, course: Course) -> bytes:
    """Return what C reads of a live state: whether there is one, when it was observed, health, numbers and measures."""
    n_numbers = len(STATE) + len(course.measures)
    if state is None or state.observed_at is None:
        return struct.pack(f"{3 + n_numbers}d", 0.0, 0.0, 1.0, *(math.nan for _ in range(n_numbers)))
    numbers = [getattr(state, name) for name in STATE] + [state.measures.get(name) for name in course.measures]
    observed_us = (state.observed_at - _EPOCH) // _MICROSECOND
    told = [math.nan if number is None else number for number in numbers]
    return struct.pack(f"{3 + n_numbers}d", 1.0, observed_us, state.healthy, *told)
