"""What the configuration says, compiled for deciding: per stream its features, its destinations and the rules as a mask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from features.config import Configuration, Rule, Stream
from features.records import Candidate, Event
from features.vector import FeatureSet

NOT_A_DESTINATION = "not a destination of the stream"
UNHEALTHY = "unhealthy"


@dataclass(frozen=True, kw_only=True)
class Permit:
    """A rule, compiled: what it allows of all that is configured."""

    rule: str
    allowed: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One stream, compiled. ``permits`` holds, per data-classification label, every rule that mentions it."""

    name: str
    stream: Stream
    features: FeatureSet
    destinations: frozenset[str]
    permits: Mapping[str, tuple[Permit, ...]]

    def forbidden(self, event: Event, destination: str) -> str | None:
        """Return the rule that keeps ``event`` from ``destination``, or None; a label that no rule mentions forbids all."""
        for label in event.labels:
            permits = self.permits.get(label)
            if permits is None:
                return f"no rule mentions the label {label!r}"
            for permit in permits:
                if destination not in permit.allowed:
                    return permit.rule
        return None

    def excluded(self, event: Event, candidates: Sequence[Candidate]) -> dict[str, str]:
        """Return, per candidate that must not serve ``event``, the rule that excludes it."""
        excluded = {}
        for candidate in candidates:
            name, state = candidate.destination, candidate.state
            if name not in self.destinations:
                excluded[name] = NOT_A_DESTINATION
            elif event.labels and (rule := self.forbidden(event, name)):
                excluded[name] = rule
            elif state is not None and not state.healthy:
                excluded[name] = UNHEALTHY
        return excluded

    def static_order(self, event: Event) -> tuple[str, ...]:
        """Return the destinations in the order of the static routes."""
        return self.stream.static.order(event)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A whole configuration, compiled. ``revision`` names exactly this configuration."""

    configuration: Configuration
    revision: str
    streams: Mapping[str, StreamPlan]

    @classmethod
    def of(cls, configuration: Configuration) -> Self:
        """Compile ``configuration``."""
        permits: dict[str, list[Permit]] = {}
        for rule in configuration.rules:
            permits.setdefault(rule.label, []).append(_permit(rule, configuration))
        streams = {
            name: StreamPlan(
                name=name,
                stream=stream,
                features=configuration.feature_set(name),
                destinations=frozenset(stream.destinations),
                permits={label: tuple(of_label) for label, of_label in permits.items()},
            )
            for name, stream in configuration.streams.items()
        }
        return cls(configuration=configuration, revision=configuration.revision, streams=streams)


def _permit(rule: Rule, configuration: Configuration) -> Permit:
    by_region = {
        name for name, destination in configuration.destinations.items() if destination.region in rule.allow_regions
    }
    return Permit(rule=rule.name, allowed=frozenset(by_region.union(rule.allow)))
