"""What a shim last answered, as a table to route by while it does not: per stream and static route, who came first how often."""

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

N_REMEMBERED = 64  # answers per route: one that was explored must not outweigh the others
MAX_ROUTES = 1_024
MAX_AGE_SECONDS = 600.0  # an older table knows no more than the static routes

_Route = tuple[str, tuple[str, ...]]


@dataclass(kw_only=True)
class LastTable:
    """Bounded, and forgotten once it is old. A route is a stream with the order its static routes give."""

    max_age_seconds: float = MAX_AGE_SECONDS
    now_seconds: Callable[[], float] = time.monotonic
    _firsts: dict[_Route, deque[str]] = field(default_factory=dict)
    _learned_at: float = 0.0

    @property
    def usable(self) -> bool:
        """Whether anything was learned lately."""
        return bool(self._firsts) and self.now_seconds() - self._learned_at <= self.max_age_seconds

    def learn(self, stream: str, static_order: tuple[str, ...], destination: str) -> None:
        """Note that ``destination`` came first in an answer."""
        route = (stream, static_order)
        firsts = self._firsts.pop(route, None) or deque(maxlen=N_REMEMBERED)
        self._firsts[route] = firsts  # so that the first is the one not heard of for longest
        if len(self._firsts) > MAX_ROUTES:
            del self._firsts[next(iter(self._firsts))]
        firsts.append(destination)
        self._learned_at = self.now_seconds()

    def order(self, stream: str, static_order: tuple[str, ...]) -> tuple[str, ...]:
        """Return who came first, the most frequent before the others, between equals the one first in the static routes; empty if nothing is known."""
        firsts = self._firsts.get((stream, static_order))
        if firsts is None or not self.usable:
            return ()
        places = {name: place for place, name in reversed(list(enumerate(static_order)))}
        counts = Counter(firsts)
        return tuple(sorted(counts, key=lambda name: (-counts[name], places.get(name, len(places)), name)))
