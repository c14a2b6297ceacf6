"""What Prometheus reads of a shim: decisions by arm, faults, latency, outcomes, and what is served."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from features.records import Decision, Outcome

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS_BUCKETS = (50e-6, 100e-6, 200e-6, 500e-6, 1e-3, 2e-3, 5e-3, 10e-3, 50e-3, 0.25, 1.0)
NO_ENGINES: Mapping[tuple[str, str], str] = MappingProxyType({})


class Metrics:
    """Counters of one shim, in a registry of their own."""

    def __init__(self) -> None:
        """Start everything at zero."""
        self._registry = CollectorRegistry()
        self._decisions = self._counter("turnout_decisions", "Decisions made.", "stream", "mode", "arm")
        self._faults = self._counter(
            "turnout_model_faults", "Models that could not score an event.", "stream", "digest"
        )
        self._repeated = self._counter("turnout_repeated_decisions", "Events asked about again.", "stream")
        self._unlogged = self._counter("turnout_unlogged_decisions", "Answers the disk would not take.", "stream")
        self._outcomes = self._counter("turnout_outcomes", "Outcomes accepted.", "status")
        self._problems = self._counter("turnout_problems", "Requests answered with a problem.", "status")
        self._seconds = Histogram(
            "turnout_decision_seconds",
            "From the request to its record.",
            buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )
        self._generation = Gauge("turnout_generation", "The generation served.", registry=self._registry)
        self._degraded = Gauge("turnout_degraded", "1 while something is not as it should be.", registry=self._registry)
        self._engines = Gauge(
            "turnout_engine",
            "1 for what scores a model: c, numpy or booster.",
            ("stream", "role", "engine"),
            registry=self._registry,
        )
        self._children: dict[tuple[str, str, str], Counter] = {}

    def count_decision(self, decision: Decision) -> None:
        """Count a decision that was logged."""
        labels = (decision.stream, decision.mode, decision.arm)
        child = self._children.get(labels)
        if child is None:  # looking a child up by its labels costs as much as the rest
            child = self._children[labels] = self._decisions.labels(*labels)
        child.inc()
        self._seconds.observe(decision.latency_us / 1e6)

    def count_fault(self, stream: str, digest: str) -> None:
        """Count a model that could not score an event."""
        self._faults.labels(stream, digest[:12]).inc()

    def count_repeated(self, stream: str) -> None:
        """Count an event that was asked about again."""
        self._repeated.labels(stream).inc()

    def count_unlogged(self, stream: str) -> None:
        """Count an answer that the disk would not take."""
        self._unlogged.labels(stream).inc()

    def count_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        """Count outcomes that were accepted."""
        for outcome in outcomes:
            self._outcomes.labels(outcome.status).inc()

    def count_problem(self, status: int) -> None:
        """Count a request that was answered with a problem."""
        self._problems.labels(str(status)).inc()

    def render(self, *, generation: int, degraded: bool, engines: Mapping[tuple[str, str], str] = NO_ENGINES) -> bytes:
        """Return everything in Prometheus' text format; ``engines`` says by stream and role what scores the model."""
        self._engines.clear()
        for labels, engine in engines.items():
            self._engines.labels(*labels, engine).set(1)
        self._generation.set(generation)
        self._degraded.set(degraded)
        return generate_latest(self._registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self._registry)
