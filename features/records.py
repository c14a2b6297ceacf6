"""The records that travel: event, destination state, decision, outcome. One definition, for the wire and the warehouse."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

SCHEMA_VERSION = 1

Scalar = float | int | str | bool | None
Identifier = Annotated[str, Meta(min_length=1, max_length=512)]
Probability = Annotated[float, Meta(ge=0.0, le=1.0)]
Mode = Literal["off", "observe", "canary", "on"]
Arm = Literal["static", "champion", "challenger"]
Status = Literal["observed", "censored", "timeout", "lost"]


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is to be routed: CloudEvents attributes, the stream they map to, and the content that may decide.

    ``key`` is CloudEvents' ``partitionkey``: events with one key share their canary arm. ``labels`` are the
    data-classification labels that the rules read.
    """

    id: Identifier
    source: Identifier
    type: Identifier
    stream: str
    time: datetime | None = None
    key: str | None = None
    attributes: dict[str, Scalar] = {}
    text: str | None = None
    labels: tuple[str, ...] = ()


class DestinationState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a destination is, as known at ``observed_at``; whatever is not known stays None."""

    observed_at: datetime | None = None
    queue_depth: float | None = None
    in_flight: float | None = None
    latency_ms: float | None = None
    error_rate: Probability | None = None
    price_usd: float | None = None
    healthy: bool = True
    measures: dict[str, float | None] = {}


class Candidate(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One destination that could serve the event: what it offers this event, and its state."""

    destination: Identifier
    attributes: dict[str, Scalar] = {}
    state: DestinationState | None = None


class Override(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An operator's hand on the routing of one stream, or of all (stream None)."""

    kind: Literal["stop"]
    actor: str
    reason: str
    created_at: datetime
    stream: str | None = None
    expires_at: datetime | None = None


class Decision(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="decision"):
    """What was decided, from what, by whom, and how likely each choice was.

    Lists run parallel to ``destinations`` (all candidates). ``numbers`` and ``categories`` are the feature vectors as
    used, one row per candidate, in the order of the stream's feature set. ``excluded`` names, per destination that was
    not eligible, the rule that excluded it. ``policies`` holds each policy's full distribution (zero where not
    eligible), ``mixture`` the distribution the assignment was really drawn from, and ``propensity`` its value at the
    ``assigned`` destination: after mask, canary, exploration, override and fallback. ``content`` is the digest of the
    classifier whose answer stands in the vectors, None where none was asked or it failed.

    On the wire all rows of ``numbers`` but the first may leave out their first ``n_shared`` cells, which are the first
    row's: what is the event's need not be told once per candidate. A decision that was read has whole rows, and 0.
    """

    decision_id: Identifier
    event_id: Identifier
    event_source: Identifier
    event_type: Identifier
    stream: Identifier
    decided_at: datetime
    mode: Mode
    reason: str
    assigned: Identifier
    propensity: Annotated[float, Meta(gt=0.0, le=1.0)]
    destinations: tuple[Identifier, ...]
    mixture: tuple[Probability, ...]
    policies: dict[str, tuple[Probability, ...]]
    schema: int = SCHEMA_VERSION
    event_time: datetime | None = None
    feature_set: str = ""
    numbers: tuple[tuple[float | None, ...], ...] = ()
    categories: tuple[tuple[str | None, ...], ...] = ()
    predictions: dict[str, dict[str, tuple[float, ...]]] = {}
    excluded: dict[str, str] = {}
    arm: Arm = "static"
    arm_probability: Probability = 1.0
    arm_unit: str = ""
    generation: int = 0
    champion: str | None = None
    challenger: str | None = None
    shadow: str | None = None
    policy_revision: str = ""
    override: Override | None = None
    explored: bool = True
    state_age_ms: float | None = None
    content: str | None = None
    latency_us: float = 0.0
    n_shared: Annotated[int, Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        """Give every row the cells that it shares with the first; refuse more than that has."""
        if not self.n_shared:
            return
        first = self.numbers[0] if self.numbers else ()
        if self.n_shared > len(first):
            raise ValueError(f"n_shared must be at most the {len(first)} numbers of the first row, got {self.n_shared}")
        shared = first[: self.n_shared]
        force_setattr(self, "numbers", (first, *(shared + row for row in self.numbers[1:])))
        force_setattr(self, "n_shared", 0)


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="record", tag="outcome"):
    """What became of a decision. ``served`` is the destination that really served it, the reward belongs to the one assigned.

    A ``probe`` is what another destination would have brought, found out beside the real course of things (a shadow
    call, a test on a copy): learned from, and never part of the decision's own reward.
    """

    decision_id: Identifier
    served: Identifier
    observed_at: datetime
    status: Status = "observed"
    success: bool | None = None
    latency_ms: Annotated[float, Meta(ge=0.0)] | None = None
    cost_usd: Annotated[float, Meta(ge=0.0)] | None = None
    error_class: str | None = None
    attempt: Annotated[int, Meta(ge=1)] = 1
    idempotency_key: str = ""
    probe: bool = False
    schema: int = SCHEMA_VERSION


Record = Decision | Outcome


def outcome_key(outcome: Outcome) -> str:
    """Return the key under which an outcome counts once: the reporter's own, or decision, attempt and destination."""
    return outcome.idempotency_key or f"{outcome.decision_id}/{outcome.attempt}/{outcome.served}"
