"""An event as it comes to be decided: who might serve it, who of them may, the features of each, and the static choice."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from msgspec import Struct

from features.records import Candidate, Event
from features.vector import Vectors
from models import policy
from models.policy import Distribution
from serving.plan import StreamPlan
from serving.reading import Reading
from serving.view import Classifier

_MILLISECOND = timedelta(milliseconds=1)


class NoEligibleDestinationError(ValueError):
    """Nothing may serve the event and the stream has no refusal destination; ``excluded`` gives each one's rule."""

    def __init__(self, stream: str, excluded: Mapping[str, str]) -> None:
        super().__init__(f"no destination of stream {stream!r} may serve the event, and it has no refusal destination")
        self.excluded = dict(excluded)


class FeatureRangeError(ValueError):
    """A number too large to be a feature."""


class Question(Struct, frozen=True, kw_only=True):
    """What is asked: an event, and who could serve it (no destination twice)."""

    event: Event
    candidates: tuple[Candidate, ...]


class Case(Struct, frozen=True, kw_only=True):
    """An event with everyone who might serve it, who of them may, and the features of each. ``refused``: nobody may.

    ``reading`` is what the classifier in force said; it stands in ``vectors``, which are logged.
    """

    event: Event
    plan: StreamPlan
    at: datetime
    candidates: tuple[Candidate, ...]
    excluded: dict[str, str]
    eligible: tuple[bool, ...]
    vectors: Vectors
    refused: bool
    reading: Reading

    def seen_by(self, classifier: Classifier | None) -> tuple[Vectors, Reading]:
        """Return vectors and reading as a router sees them that was trained on the answers of ``classifier``.

        Those are the logged ones where that classifier is in force. One that fails says nothing, here as there.
        """
        in_force = self.reading.fault.digest if self.reading.fault else self.reading.digest
        if not self.plan.features.content_names or in_force == (classifier.digest if classifier else None):
            return self.vectors, self.reading
        reading = Reading.of(self.event, classifier)
        return self.plan.features.vectors(self.event, self.candidates, self.at, reading.content), reading

    def unit(self) -> str:
        """Return what a canary's arm is drawn for: the key where the stream keeps keys together, else the event."""
        event = self.event
        return event.key if self.plan.stream.sticky and event.key is not None else f"{event.source}/{event.id}"

    def static(self, first: Sequence[str] = ()) -> Distribution:
        """Return the distribution that is sure of the static routes' choice, or of the first of ``first`` that may serve the event."""
        names = [candidate.destination for candidate in self.candidates]
        order = (names.index(name) for name in (*first, *self.plan.static_order(self.event)) if name in names)
        return policy.static(order, self.eligible)

    def state_age_ms(self) -> float | None:
        """Return the age of the oldest state that was used, None where none is dated."""
        states = [candidate.state for candidate in self.candidates if candidate.state is not None]
        observed = [state.observed_at for state in states if state.observed_at is not None]
        return (self.at - min(observed)) / _MILLISECOND if observed else None


def frame(question: Question, plan: StreamPlan, at: datetime, classifier: Classifier | None = None) -> Case:
    """Return the case that ``question`` is under ``plan`` at ``at``, read by ``classifier`` where its features ask for that.

    Raises
    ------
    NoEligibleDestinationError
        If nothing may serve the event.
    FeatureTypeError, FeatureRangeError
        If an attribute that a number reads is text, or beyond a float64.
    """
    event, candidates = question.event, question.candidates
    excluded = plan.excluded(event, candidates)
    refused = len(excluded) == len(candidates)
    if refused:
        refusal = plan.stream.refusal
        if refusal is None:
            raise NoEligibleDestinationError(plan.name, excluded)
        # The refusal destination holds events that nothing may process, so the mask does not bind it.
        if excluded.pop(refusal, None) is None:
            candidates = (*candidates, Candidate(destination=refusal))
    reading = Reading.of(event, classifier if plan.features.content_names else None)
    try:
        vectors = plan.features.vectors(event, candidates, at, reading.content)
    except OverflowError as error:
        raise FeatureRangeError(f"an attribute is beyond a 64-bit float: {error}") from None
    eligible = tuple([candidate.destination not in excluded for candidate in candidates])
    return Case(
        event=event,
        plan=plan,
        at=at,
        candidates=candidates,
        excluded=excluded,
        eligible=eligible,
        vectors=vectors,
        refused=refused,
        reading=reading,
    )
