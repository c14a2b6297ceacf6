"""Which classifier a decision was read with: the one in force for the log, its own for every router, none where it fails."""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
import pytest
from numpy.typing import NDArray

from features import config
from features import content as contents
from features.content import Content
from features.records import Candidate, Decision, Event
from models.router import Scores
from serving import decider
from serving.case import Question
from serving.decider import Decided
from serving.plan import Plan, StreamPlan
from serving.view import Classifier, Model, StreamView

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
CONFIGURATION = """
[destinations]
a = {}
b = {}

[classifiers.requests]
labels = "labels.csv"

[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
exploration = { epsilon = 0.0 }
text_field = "message"
content = "requests"
features = { numbers = { sure = "content.confidence" }, categories = { about = "content.class" } }
"""


class FakeReader:
    """Gives every text the same class, or fails."""

    classes = ("bill", "table")
    n_components = 0
    attributes: tuple[str, ...] = ()

    def __init__(self, label: str, confidence: float, error: Exception | None = None) -> None:
        self._said = Content(
            label=label,
            confidence=confidence,
            probabilities=np.array([confidence, 1 - confidence]),
            columns=contents.columns_of(self.classes),
        )
        self._error = error

    def read(self, event: Event) -> Content | None:
        if self._error:
            raise self._error
        return self._said if event.text else None


class FakeRouter:
    """Prefers b where the vectors say that they are of ``about``, and remembers them."""

    def __init__(self, about: str | None) -> None:
        self.feature_set = plan().features.version
        self.seen: list[tuple[float, str | None]] = []
        self._about = about

    def score(self, numbers: NDArray[np.float64], categories: Sequence[Sequence[str | None]]) -> Scores:
        self.seen.append((float(numbers[0, 0]), categories[0][0]))
        return Scores(np.array([0.5, 1.0 if categories[0][0] == self._about else 0.0]), {})


@functools.cache
def plan() -> StreamPlan:
    return Plan.of(config.parse(CONFIGURATION)).streams["orders"]


OLD, NEW = Classifier("old", FakeReader("bill", 0.75)), Classifier("new", FakeReader("table", 0.5))


def decide(view: StreamView, text: str | None = "the table") -> Decided:
    event = Event(id="e", source="/shop", type="shop.order", stream="orders", text=text)
    asked = Question(event=event, candidates=tuple(Candidate(destination=name) for name in "ab"))
    return decider.decide(asked, plan(), view, None, at=AT, decision_id="d", revision="r")


def logged(decision: Decision) -> tuple[float | None, str | None]:
    return decision.numbers[0][0], decision.categories[0][0]


def test_the_log_holds_the_answers_of_the_classifier_in_force_and_its_digest() -> None:
    decision = decide(StreamView(mode="off", classifier=NEW)).decision
    assert (logged(decision), decision.content) == ((0.5, "table"), "new")


def test_a_router_that_pins_the_classifier_in_force_reads_what_is_logged() -> None:
    router = FakeRouter("table")
    decision = decide(StreamView(mode="on", champion=Model("r", router, NEW), classifier=NEW)).decision
    assert router.seen == [logged(decision)] == [(0.5, "table")]
    assert decision.assigned == "b"


def test_every_router_reads_its_own_classifier_and_the_log_the_one_in_force() -> None:
    champion, challenger, shadow = FakeRouter("bill"), FakeRouter("table"), FakeRouter(None)
    view = StreamView(
        mode="canary",
        champion=Model("r1", champion, OLD),
        challenger=Model("r2", challenger, NEW),
        challenger_share=0.5,
        shadow=Model("r3", shadow),
        classifier=NEW,
    )
    decision = decide(view).decision
    assert champion.seen == [(0.75, "bill")]
    assert challenger.seen == [(0.5, "table")] == [logged(decision)]
    ((sure, about),) = shadow.seen
    assert np.isnan(sure)
    assert about is None
    assert decision.content == "new"
    assert decision.policies["champion"] == decision.policies["challenger"] == (0.0, 1.0)


def test_a_pinned_classifier_reads_where_none_is_in_force() -> None:
    router = FakeRouter("bill")
    decision = decide(StreamView(mode="on", champion=Model("r", router, OLD))).decision
    assert router.seen == [(0.75, "bill")]
    assert (logged(decision), decision.content) == ((None, None), None)


@pytest.mark.parametrize("text", [None, ""])
def test_an_event_without_text_is_decided_with_its_content_missing(text: str | None) -> None:
    view = StreamView(mode="on", champion=Model("r", FakeRouter(None), NEW), classifier=NEW)
    decided = decide(view, text)
    assert (logged(decided.decision), decided.decision.content) == ((None, None), "new")
    assert decided.decision.assigned == "b"
    assert decided.decision.reason == "champion: highest expected value"
    assert decided.faults == ()


def test_a_classifier_that_fails_costs_the_event_its_content_alone_and_is_named() -> None:
    broken = Classifier("new", FakeReader("bill", 0.9, error=RuntimeError("oops")))
    router = FakeRouter(None)
    decided = decide(StreamView(mode="on", champion=Model("r", router, broken), classifier=broken))
    assert decided.decision.assigned == "b"
    assert (logged(decided.decision), decided.decision.content) == ((None, None), None)
    assert decided.decision.reason == (
        "champion: highest expected value; without content: classifier raised RuntimeError: oops"
    )
    assert [(fault.digest, fault.raised) for fault in decided.faults] == [("new", True)]


def test_a_pinned_classifier_that_fails_is_named_and_does_not_touch_the_log() -> None:
    broken = Classifier("old", FakeReader("bill", 0.9, error=RuntimeError("oops")))
    decided = decide(StreamView(mode="on", champion=Model("r", FakeRouter(None), broken), classifier=NEW))
    assert (logged(decided.decision), decided.decision.content) == ((0.5, "table"), "new")
    assert decided.decision.assigned == "b"
    assert decided.decision.reason.endswith("; without content: classifier raised RuntimeError: oops")
    assert [fault.digest for fault in decided.faults] == ["old"]


def test_without_a_classifier_goes_every_router_that_pins_it() -> None:
    view = StreamView(
        mode="canary",
        champion=Model("r1", FakeRouter(None), OLD),
        challenger=Model("r2", FakeRouter(None), NEW),
        challenger_share=0.5,
        previous=Model("r0", FakeRouter(None)),
        classifier=NEW,
    )
    left = view.without({"new"})
    assert (left.champion, left.challenger, left.classifier) == (view.champion, None, None)
    assert view.without({"old"}).champion == view.previous
