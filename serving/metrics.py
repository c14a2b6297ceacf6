"""What Prometheus reads of a shim: decisions by arm, faults, latency, outcomes, and what is served.

Counting is a dictionary's work, since it is done for every decision; Prometheus' own types are made when it asks.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from features.records import Decision, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS_BUCKETS = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.25, 1.0)

NO_ENGINES: Mapping[tuple[str, str], str] = MappingProxyType({})
NO_STREAMS: Mapping[str, bool] = MappingProxyType({})
_Tally = dict[tuple[str, ...], int]


class Metrics(Collector):
    """Counters of one shim process, for one thread."""

    def __init__(self) -> None:
        """Start everything at zero."""
        self._tallies: list[tuple[str, str, tuple[str, ...], _Tally]] = []
        self._decisions = self._tally("turnout_decisions", "Decisions made.", "stream", "mode", "arm")
        self._faults = self._tally("turnout_model_faults", "Models that could not score an event.", "stream", "digest")
        self._repeated = self._tally("turnout_repeated_decisions", "Events asked about again.", "stream")
        self._unlogged = self._tally("turnout_unlogged_decisions", "Answers the disk would not take.", "stream")
        self._adopted = self._tally(
            "turnout_adopted_decisions", "Decisions of clients that no shim answered.", "stream"
        )
        self._outcomes = self._tally("turnout_outcomes", "Outcomes accepted.", "status")
        self._problems = self._tally("turnout_problems", "Requests answered with a problem.", "status")
        self._in_bucket = [0] * (len(SECONDS_BUCKETS) + 1)
        self._seconds = 0.0
        self._gauges: dict[str, tuple[str, float]] = {}
        self._engines, self._fast = NO_ENGINES, NO_STREAMS
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def count_decision(self, decision: Decision) -> None:
        """Count a decision that was made to be logged."""
        _count(self._decisions, decision.stream, decision.mode, decision.arm)
        seconds = decision.latency_us / 1e6
        self._in_bucket[bisect_left(SECONDS_BUCKETS, seconds)] += 1
        self._seconds += seconds

    def count_many(
        self, decisions: Sequence[tuple[tuple[str, str, str], int]], in_bucket: Sequence[int], seconds: float
    ) -> None:
        """Count decisions by their stream, mode and arm, and by the bucket of their seconds, of which the sum is given."""
        for key, n in decisions:
            self._decisions[key] = self._decisions.get(key, 0) + n
        self._in_bucket = [known + n for known, n in zip(self._in_bucket, in_bucket, strict=True)]
        self._seconds += seconds

    def count_fault(self, stream: str, digest: str) -> None:
        """Count a model that could not score an event."""
        _count(self._faults, stream, digest[:12])

    def count_repeated(self, stream: str) -> None:
        """Count an event that was asked about again."""
        _count(self._repeated, stream)

    def count_unlogged(self, stream: str) -> None:
        """Count an answer that the disk would not take."""
        _count(self._unlogged, stream)

    def count_adopted(self, stream: str) -> None:
        """Count a decision that a client made by itself."""
        _count(self._adopted, stream)

    def count_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that were accepted."""
        for outcome in outcomes:
            _count(self._outcomes, outcome.status)

    def count_problem(self, status: int) -> None:
        """Count a request that was answered with a problem."""
        _count(self._problems, str(status))

    def render(
        self,
        *,
        generation: int,
        degraded: bool,
        n_refused: int = 0,
        n_shed: int = 0,
        engines: Mapping[tuple[str, str], str] = NO_ENGINES,
        fast: Mapping[str, bool] = NO_STREAMS,
    ) -> bytes:
        """Return everything in Prometheus' text format.

        ``engines`` says by stream and role what scores the model, ``fast`` by stream whether it takes the fast path.
        """
        self._engines, self._fast = engines, fast
        self._gauges = {
            "turnout_generation": ("The generation served.", generation),
            "turnout_degraded": ("1 while something is not as it should be.", float(degraded)),
            "turnout_records_refused": ("Records the disk would not take, of this process.", n_refused),
            "turnout_records_shed": ("Records accepted and then lost, of this process.", n_shed),
        }
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield everything as Prometheus' own types."""
        for name, text, labels, tally in self._tallies:
            family = CounterMetricFamily(name, text, labels=labels)
            for key, value in tally.items():
                family.add_metric(key, value)
            yield family
        seconds = HistogramMetricFamily("turnout_decision_seconds", "From the request to its record.")
        n_within, buckets = 0, []
        for bound, n in zip((*map(str, SECONDS_BUCKETS), "+Inf"), self._in_bucket, strict=True):
            n_within += n
            buckets.append((bound, n_within))
        seconds.add_metric((), buckets, self._seconds)
        yield seconds
        for name, (text, level) in self._gauges.items():
            yield GaugeMetricFamily(name, text, value=level)
        text = "1 for what scores a model: c, numpy or booster."
        scorers = GaugeMetricFamily("turnout_engine", text, labels=("stream", "role", "engine"))
        for (stream, role), engine in self._engines.items():
            scorers.add_metric((stream, role, engine), 1.0)
        yield scorers
        fast = GaugeMetricFamily(
            "turnout_fast_path", "1 where ordinary requests take the fast path.", labels=("stream",)
        )
        for stream, is_fast in self._fast.items():
            fast.add_metric((stream,), float(is_fast))
        yield fast

    def _tally(self, name: str, text: str, *labels: str) -> _Tally:
        tally: _Tally = {}
        self._tallies.append((name, text, labels, tally))
        return tally


def _count(tally: _Tally, *key: str) -> None:
    tally[key] = tally.get(key, 0) + 1
