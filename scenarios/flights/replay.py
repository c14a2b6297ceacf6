"""The live part of the year through the running shim: every question at its hour, every outcome once it is known."""

import asyncio
import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self

import msgspec
import numpy as np

from scenarios.flights.broker import Request
from scenarios.flights.parcels import Parcels

N_OUTCOMES_PER_REQUEST = 256
_ANSWERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)


class Broker(Protocol):
    """Who asks and reports for the replay; `scenarios.flights.broker.Broker` is one."""

    async def __aenter__(self) -> Self:
        """Prepare to send."""

    async def __aexit__(self, *_: object) -> None:
        """Send no more."""

    async def send_all(self, requests: Iterable[Request]) -> Sequence[bytes]:
        """Send ``requests``; return the answers to questions in their order."""


@dataclass(kw_only=True)
class Replay:
    """Plays parcels through a shim, hour by hour; between two hours the caller may do as it likes.

    ``assigned`` is, per parcel, the pair it was given (-1 while it was not), ``decision_ids`` the names of the decisions.
    """

    parcels: Parcels
    broker: Broker
    assigned: np.ndarray[tuple[int], np.dtype[np.int64]] = field(init=False)
    decision_ids: list[str] = field(init=False)
    n_outcomes: int = 0
    _due: list[tuple[datetime, int]] = field(default_factory=list, repr=False)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner, repr=False)

    def __post_init__(self) -> None:
        """Prepare for as many parcels as there are."""
        self.assigned = np.full(self.parcels.world.n_events, -1, np.int64)
        self.decision_ids = [""] * self.parcels.world.n_events

    def hours(self) -> Iterator[tuple[datetime, int]]:
        """Play hour after hour; yield each instant and how many parcels were asked about, after they were answered."""
        world = self.parcels.world
        starts = np.flatnonzero(np.r_[True, world.ready_at[1:] != world.ready_at[:-1]])
        self._runner.run(self.broker.__aenter__())
        for start, end in zip(starts, np.r_[starts[1:], world.n_events], strict=True):
            at = self.parcels.ready_at[int(start)]
            self._report(at)
            self._ask(range(int(start), int(end)), at)
            yield at, int(end - start)

    def finish(self) -> datetime:
        """Report the outcomes that are still to come and close the connections; return the instant of the last."""
        last = max((at for at, _ in self._due), default=self.parcels.ready_at[-1])
        self._report(last)
        self._runner.run(self.broker.__aexit__())
        self._runner.close()
        return last

    def _ask(self, parcels: range, at: datetime) -> None:
        requests = (Request("/v1/decisions", self.parcels.request(parcel), at) for parcel in parcels)
        answers = self._runner.run(self.broker.send_all(requests))
        for parcel, answer in zip(parcels, answers, strict=True):
            fields = _ANSWERS.decode(answer)
            destination = msgspec.json.decode(fields["destinations"], type=list[str])[0]
            pair = self.parcels.pair(parcel, destination)
            self.assigned[parcel] = pair
            self.decision_ids[parcel] = _TEXT.decode(fields["decision_id"])
            heapq.heappush(self._due, (self.parcels.observed_at[pair], parcel))

    def _report(self, at: datetime) -> None:
        """Report what has become known by ``at``."""
        known = []
        while self._due and self._due[0][0] <= at:
            parcel = heapq.heappop(self._due)[1]
            known.append(self.parcels.outcome(int(self.assigned[parcel]), self.decision_ids[parcel]))
        self.n_outcomes += len(known)
        pages = (known[i : i + N_OUTCOMES_PER_REQUEST] for i in range(0, len(known), N_OUTCOMES_PER_REQUEST))
        requests = [Request("/v1/outcomes", msgspec.json.encode(page), at) for page in pages]
        self._runner.run(self.broker.send_all(requests))
