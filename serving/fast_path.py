"""The fast path: ordinary requests of ordinary streams, decided from bytes to bytes by C (serving/native).

It gives what the whole path (intake, cloudevents, decider, answer) gives, or it gives nothing and the whole path is asked:
for a stream of which `serving.course` says that it is not ordinary, for a request that is wrong or says something in a way
that C does not read (an escape in a string that it must understand, a key twice, an instant in another zone than UTC), for
a model that fails.
"""

import logging
import math
import struct
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import msgspec

from features.definitions import TIME
from features.records import DestinationState
from serving.course import Course, Instants, course_of
from serving.debts import Debts
from serving.held import Held
from serving.live import STATE, LiveStates
from serving.memory import Memory
from serving.metrics import SECONDS_BUCKETS, Metrics
from serving.plan import Plan, StreamPlan
from serving.view import ReleaseView, StreamView

try:
    from serving import _fast_path
except ImportError:  # no compiler at the installation
    _fast_path = None  # type: ignore[assignment]  # looked at before its use

# Of each of what connections sent, the replies to the requests it begins with, one after the other, and where these end; None of
# what begins with none that is ordinary, and None for all while nothing is decided so.
Told = Sequence[tuple[bytes, int] | None] | None

_LOGGER = logging.getLogger("turnout.shim")
_encode = msgspec.json.Encoder().encode
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class FastPath:
    """The fast path of one shim, for one thread. It follows the release that it is asked to decide under.

    ``streams`` are those whose ordinary requests it takes under that release.
    """

    def __init__(self, plan: Plan, live: LiveStates, metrics: Metrics, debts: Debts) -> None:
        """Decide under ``plan`` with what is known ``live``; nothing is decided where no compiler was there at the installation.

        ``metrics`` hear of decisions before a release is followed, and from `tell`; ``debts`` are charged as decisions are kept.
        """
        self._plan = plan
        self._live = live
        self._live_version = -1
        self._metrics = metrics
        self._debts = debts
        self._is_priced = False
        self._courses: list[Course] = []
        self._view: ReleaseView | None = None
        self._compiled: _fast_path.FastPath | None = None
        self._instants: Instants = []
        self._is_dated = True  # whether anything but the record depends on the time of a decision
        self.streams: frozenset[str] = frozenset()

    def answer(
        self, view: ReleaseView, body: bytes, at: datetime, *, is_bare: bool, memory: Memory, held: Held
    ) -> bytes | None:
        """Decide the request, or the batch of them, that ``body`` is, and return the answer; None is for the whole path.

        The decisions are in ``memory`` and their lines ``held`` then; before they are written the answer must not leave.
        ``is_bare`` says that a request is an event alone. Events that were decided before, and lines for which there is no
        room, are for the whole path.
        """
        ready = self._ready(view, memory, held)
        if ready is None:
            return None
        compiled, marks, lines = ready
        times = self._prepare(compiled, at)
        told = compiled.answer(body, is_bare, (at - _EPOCH) // _MICROSECOND, times, marks, lines)
        if self._is_priced:
            self._debts.note()
        return told

    def reply(
        self,
        view: ReleaseView,
        sent: list[bytes],
        heads: dict[bytes, int],
        head: bytes,
        *,
        memory: Memory,
        held: Held,
    ) -> Told:
        """Do as `answer` does, now, for the HTTP requests that each of ``sent`` begins with.

        ``heads`` says what is known of heads (see `serving.heads`), ``head`` is a reply's up to the length of its body.
        """
        ready = self._ready(view, memory, held)
        if ready is None:
            return None
        compiled, marks, lines = ready
        at_us, times = None, b""
        if self._is_dated:
            at_us = time.time_ns() // 1_000
            times = self._prepare(compiled, _EPOCH + at_us * _MICROSECOND)
        told = compiled.reply(marks, lines, at_us, times, sent, heads, head)
        if self._is_priced:
            self._debts.note()
        return told

    def _ready(
        self, view: ReleaseView, memory: Memory, held: Held
    ) -> "tuple[_fast_path.FastPath, _fast_path.Marks, _fast_path.HeldLines] | None":
        """Return what decides, and what keeps in C what was decided; None where anything of it is not in C."""
        if view is not self._view:
            self.follow(view)
        if (
            self._compiled is None
            or not isinstance(memory, _fast_path.Marks)
            or not isinstance(held, _fast_path.HeldLines)
        ):
            return None
        return self._compiled, memory, held

    def _prepare(self, compiled: "_fast_path.FastPath", at: datetime) -> bytes:
        self._tell_states(compiled, at)
        return self._times(at) if self._instants else b""

    def tell(self) -> None:
        """Tell the metrics what was decided since last told."""
        if self._compiled is not None:
            self._metrics.count_many(*self._compiled.take_counts())

    def follow(self, view: ReleaseView) -> None:
        """Make the courses of a release, unless they are made."""
        if view is self._view:
            return
        self.tell()
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
            self._compiled = _fast_path.FastPath(tuple(self._courses), tuple(types), SECONDS_BUCKETS)
        self.streams = frozenset(course.name.decode() for course in self._courses)
        self._is_priced = any(role.tariff for course in self._courses for role in course.roles)
        self._is_dated = bool(self._instants) or self._live.is_configured

    def _course(self, plan: StreamPlan, view: ReleaseView) -> Course | None:
        """Return a stream's course; one for which none can be made, for whatever reason, is decided by the whole path."""
        try:
            return course_of(
                plan,
                view.streams.get(plan.name) or StreamView(mode=plan.stream.mode),
                revision=self._plan.revision,
                instants=self._instants,
                max_age_seconds=self._live.max_age_seconds,
                debts=self._debts,
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
