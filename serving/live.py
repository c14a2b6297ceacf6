"""Live state of destinations: what they, or those who watch them, report, and what their outcomes tell."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from features.choices import Live
from features.records import Candidate, DestinationState, Identifier, Outcome
from serving.live_table import LiveTable
from serving.plan import Plan

Floats = NDArray[np.float64]

STATE = ("queue_depth", "in_flight", "latency_ms", "error_rate", "price_usd")
LOOK_SECONDS = 0.1  # between two looks at what is known: each costs some 20 us a destination
_EPOCH, _SECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(seconds=1)
_REPORTED = slice(0, 2 + len(STATE))  # when, healthy, and the numbers; after these the measures
_AVERAGES = ("latency_ms", "error_rate")  # of outcomes: each a weight and a mean, and before them when


class StateReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is reported: a destination and how it is; without ``observed_at`` that is as of now."""

    destination: Identifier
    state: DestinationState


class LiveStates:
    """What is known of every destination now. Instants are the caller's: replayed time is as good as the clock's.

    ``measures`` are those that features read; no other is kept. ``version`` changes with what `states` returns.
    """

    def __init__(self, plan: Plan, *, folder: Path | None = None, worker: int = 0) -> None:
        """Know nothing yet, but what an earlier process or another worker left in ``folder``; nothing is kept without one."""
        configuration = plan.configuration
        self._chosen: Live | None = configuration.live
        self.measures = _measures(plan)
        self._places = {name: place for place, name in enumerate(configuration.destinations)}
        n_columns = _REPORTED.stop + len(self.measures) + 1 + 2 * len(_AVERAGES)
        shape = (len(self._places), n_columns)
        self._table = (
            None if self._chosen is None else LiveTable(shape, folder=folder, name=plan.revision[:12], worker=worker)
        )
        self._states: Mapping[str, DestinationState] = {}
        self._merged_at: tuple[float, datetime] | None = None
        self.version = 0

    @property
    def failure(self) -> str | None:
        """Why nothing is shared or kept, None where all is well."""
        return None if self._table is None else self._table.failure

    @property
    def is_configured(self) -> bool:
        """Whether anything can be known."""
        return self._table is not None

    @property
    def max_age_seconds(self) -> float:
        """How old a state may be to be used; without limit where live state is not configured."""
        return float("inf") if self._chosen is None else self._chosen.max_age_seconds

    def knows(self, destination: str) -> bool:
        """Tell whether the destination is configured."""
        return destination in self._places

    def report(self, reports: Sequence[StateReport], at: datetime) -> None:
        """Note how destinations, all of them known, are, unless something newer was reported; nothing is newer than ``at``."""
        if self._table is None:
            return
        for report in reports:
            state, place = report.state, self._places[report.destination]
            seconds = (min(state.observed_at or at, at) - _EPOCH) / _SECOND
            if seconds < self._table.row(place)[0]:
                continue
            numbers = [getattr(state, name) for name in STATE] + [state.measures.get(name) for name in self.measures]
            row = [seconds, float(state.healthy), *(np.nan if number is None else number for number in numbers)]
            self._table.write(place, slice(0, len(row)), row)

    def learn(self, outcomes: Sequence[Outcome], at: datetime) -> None:
        """Let outcomes count for the averages of who served them; what was never observed, or a probe, tells nothing."""
        if self._table is None or self._chosen is None:
            return
        first = _REPORTED.stop + len(self.measures)
        for outcome in outcomes:
            place = self._places.get(outcome.served)
            failed = outcome.status == "timeout" or outcome.success is False
            if place is None or outcome.probe or outcome.status not in ("observed", "timeout"):
                continue
            seconds = (at - _EPOCH) / _SECOND
            then, *averages = self._table.row(place)[first:]
            kept = 0.5 ** (max(seconds - then, 0.0) / self._chosen.half_life_seconds) if not math.isnan(then) else 0.0
            latency_ms = outcome.latency_ms if outcome.status == "observed" else None
            row = [seconds]
            for number, value in enumerate((latency_ms, float(failed))):
                weight, mean = averages[2 * number : 2 * number + 2]
                row += _average(weight * kept if kept else 0.0, mean, value)
            self._table.write(place, slice(first, None), row)

    def states(self, at: datetime) -> Mapping[str, DestinationState]:
        """Return what is known of destinations as of ``at``, dated by the oldest of it; news within `LOOK_SECONDS`."""
        if self._table is not None and not self._is_recent(at):
            self._merged_at = time.monotonic(), at
            states = self._merge(self._table.read(), (at - _EPOCH) / _SECOND)
            if states != self._states:
                self._states = states
                self.version += 1
        return self._states

    def _is_recent(self, at: datetime) -> bool:
        """Tell whether what was merged is as good as new: on the clock of the machine, and on that of whoever asks."""
        if self._merged_at is None:
            return False
        looked_at, as_of = self._merged_at
        return time.monotonic() - looked_at < LOOK_SECONDS and 0.0 <= (at - as_of) / _SECOND < LOOK_SECONDS

    def fill(self, candidates: Sequence[Candidate], at: datetime) -> tuple[Candidate, ...]:
        """Return the candidates with what is known of them: what the request says, else the live state, neither too old."""
        if self._table is None:
            return tuple(candidates)
        states = self.states(at)
        return tuple([self._with_state(candidate, states, at) for candidate in candidates])

    def _with_state(self, candidate: Candidate, states: Mapping[str, DestinationState], at: datetime) -> Candidate:
        state = candidate.state
        if state is None or self._is_stale(state, at):
            state = states.get(candidate.destination)
        return candidate if state is candidate.state else msgspec.structs.replace(candidate, state=state)

    def _is_stale(self, state: DestinationState, at: datetime) -> bool:
        observed_at = state.observed_at
        return observed_at is not None and (at - observed_at) / _SECOND > self.max_age_seconds

    def _merge(self, rows: Floats, now: float) -> dict[str, DestinationState]:
        """Return what all workers know together: of reports the newest, of averages the mean by their weights now."""
        found = {}
        for name, place in self._places.items():
            state = self._state(rows[:, place], now)
            if state is not None:
                found[name] = state
        return found

    def _state(self, rows: Floats, now: float) -> DestinationState | None:
        """Return one destination's state from every worker's row, float64[n_workers, n_columns], without what is too old."""
        first = _REPORTED.stop + len(self.measures)
        rows = rows.copy()
        for when in (0, first):
            rows[now - rows[:, when] > self.max_age_seconds, when] = np.nan
        reported_at, learned_at = rows[:, 0], rows[:, first]
        known: dict[str, float] = {}
        measures: dict[str, float | None] = {}
        instants: list[float] = []
        healthy = True
        if not np.isnan(learned_at).all():
            newest = float(np.nanmax(learned_at))
            known, instants = self._averages(rows[:, first:], newest), [newest]
        if not np.isnan(reported_at).all():
            row = rows[int(np.nanargmax(reported_at))].tolist()
            instants.append(row[0])
            healthy = bool(row[1])
            numbers = zip((*STATE, *self.measures), row[2:first], strict=True)
            told = {name: number for name, number in numbers if not math.isnan(number)}
            measures = {name: told.pop(name) for name in self.measures if name in told}
            known |= told  # who watches a destination knows better than its outcomes
        if not instants:
            return None
        observed_at = _EPOCH + timedelta(microseconds=round(min(instants) * 1e6))
        return DestinationState(observed_at=observed_at, healthy=healthy, measures=measures, **known)

    def _averages(self, rows: Floats, newest: float) -> dict[str, float]:
        half_life = self._chosen.half_life_seconds if self._chosen else 1.0
        kept = np.nan_to_num(0.5 ** ((newest - rows[:, 0]) / half_life))
        told = {}
        for number, name in enumerate(_AVERAGES):
            weights = np.nan_to_num(rows[:, 1 + 2 * number]) * kept
            if weights.sum() > 0.0:
                told[name] = float((weights * np.nan_to_num(rows[:, 2 + 2 * number])).sum() / weights.sum())
        return told


def _average(weight: float, mean: float, value: float | None) -> list[float]:
    """Return weight and mean once a value, where there is one, has joined."""
    if not weight > 0.0:  # or NaN: nothing yet
        return [0.0, np.nan] if value is None else [1.0, value]
    return [weight, mean] if value is None else [weight + 1.0, (weight * mean + value) / (weight + 1.0)]


def _measures(plan: Plan) -> tuple[str, ...]:
    """Return the names of all measures that any stream's features read."""
    streams = (of_stream.features for of_stream in plan.streams.values())
    read = {column for features in streams for column in (*features.numbers, *features.operands)}
    return tuple(sorted(name for space, name in read if space == "measure"))
