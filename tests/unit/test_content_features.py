"""What a text says, as features: names that any label can have, missing where nothing was read, refused where unknown."""

import re
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import config
from features import content as contents
from features.config import ConfigurationError
from features.content import Content
from features.definitions import FeatureDefinitions
from features.records import Candidate, Event
from features.vector import FeatureSet

AT = datetime(2026, 7, 1, tzinfo=UTC)
CLASSES = ("Card payment?", "refund", "card-payment", "支付")
EVENT = Event(id="e", source="s", type="t", stream="orders", text="where is my refund")
CANDIDATES = [Candidate(destination=name) for name in ("a", "b")]
NUMBERS = {
    "sure": "content.confidence",
    "in_scope": "content.in_scope",
    "refund": "content.probability_refund",
    "computed": "content.probability_refund * 2",
    "unsure": "missing(content.confidence)",
    "second": "content.component_2",
    "third": "content.component_3",
}
DEFINITIONS = FeatureDefinitions(numbers=NUMBERS, categories={"about": "content.class", "to": "destination.name"})


def said(label: str | None = "refund") -> Content:
    probabilities = np.array([0.1, 0.7, 0.0, 0.1])
    columns = contents.columns_of(CLASSES)
    return Content(label=label, confidence=0.7, probabilities=probabilities, columns=columns, components=(0.25, -0.5))


def test_every_candidate_reads_what_the_text_says() -> None:
    vectors = FeatureSet(DEFINITIONS, {}).vectors(EVENT, CANDIDATES, AT, said())
    np.testing.assert_array_equal(vectors.numbers, [[0.7, 1.0, 0.7, 1.4, 0.0, -0.5, np.nan]] * 2)
    assert vectors.categories == (("refund", "a"), ("refund", "b"))


def test_out_of_scope_is_a_value_of_its_own() -> None:
    vectors = FeatureSet(DEFINITIONS, {}).vectors(EVENT, CANDIDATES, AT, said(None))
    assert vectors.categories[0] == (contents.OUT_OF_SCOPE, "a")
    assert vectors.numbers[0, 1] == 0.0


def test_without_a_classifier_or_a_text_everything_of_it_is_missing() -> None:
    vectors = FeatureSet(DEFINITIONS, {}).vectors(EVENT, CANDIDATES, AT)
    np.testing.assert_array_equal(vectors.numbers, [[np.nan] * 4 + [1.0] + [np.nan] * 2] * 2)
    assert vectors.categories == ((None, "a"), (None, "b"))


def test_a_class_that_shares_its_slug_or_has_none_cannot_be_read() -> None:
    assert contents.columns_of(CLASSES) == {"refund": 1}
    assert contents.strangers({"probability_refund", "confidence", "class"}, CLASSES) == ()
    assert contents.strangers({"probability_card_payment", "probability_loan"}, CLASSES) == (
        "content.probability_card_payment: 2 classes are written 'card_payment'",
        "content.probability_loan: no class is written 'loan'",
    )


def test_a_component_that_the_classifier_does_not_have_is_said_to_be_missing() -> None:
    assert contents.strangers({"component_1", "component_2"}, CLASSES, 2) == ()
    assert contents.strangers({"component_3", "confidence"}, CLASSES, 2) == (
        "content.component_3: the classifier has 2 components",
    )
    assert contents.strangers({"component_1"}, CLASSES) == ("content.component_1: the classifier has 0 components",)


@given(st.text())
def test_a_slug_is_part_of_a_name_whatever_the_label(label: str) -> None:
    slug = contents.slug(label)
    assert re.fullmatch(r"([a-z0-9]+(_[a-z0-9]+)*)?", slug)
    assert contents.slug(slug) == slug
    if slug:
        assert FeatureDefinitions(numbers={"p": f"content.probability_{slug}"}).content_names == {f"probability_{slug}"}


@pytest.mark.parametrize(
    "name",
    [
        *("confidense", "probability_", "probability_Refund", "probability__refund", "probability_réfund"),
        *("component", "component_", "component_0", "component_01", "component_one", "component_٣"),
    ],
)
def test_a_name_that_no_classifier_can_give_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"numbers\.x: content\.{name} is not confidence, in_scope, component_ from 1 or probability_"
    ):
        FeatureDefinitions(numbers={"x": f"content.{name} + 1"})


@pytest.mark.parametrize("text", ["content.confidence", "content.", "content.label"])
def test_the_only_category_is_the_class(text: str) -> None:
    with pytest.raises(ValueError, match=r"categories\.x: .* is not event\.x, .* or content\.class"):
        FeatureDefinitions(categories={"x": text})


def test_definitions_that_read_no_content_keep_their_version() -> None:
    """Else every log of before would be one of another feature set."""
    assert FeatureDefinitions(numbers={"amount": "event.amount"}).version == "82b0fff5ddb9"


CONFIGURATION = """\
[destinations.a]

[classifiers.requests]
labels = "labels.csv"

[streams.orders]
types = ["shop.order"]
destinations = ["a"]
objective = { success = 1.0 }
text_field = "message"
content = "requests"
features = { numbers = { sure = "content.confidence" } }
"""


def test_a_stream_says_which_classifier_reads_it() -> None:
    read = config.parse(CONFIGURATION)
    assert read.classifiers["requests"].min_accuracy == 0.8
    orders = read.streams["orders"]
    assert orders.classifier_in({"classifier.requests": "d1", "classifier.other": "d2"}) == "d1"
    assert orders.classifier_in({"forecaster": "d3"}) is None


def test_a_stream_whose_features_read_no_content_needs_no_classifier() -> None:
    read = config.parse(CONFIGURATION.replace("content.confidence", "event.amount"))
    assert read.streams["orders"].classifier_in({"classifier.requests": "d1"}) is None


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ('content = "requests"', 'content = "request"', 11, "streams.orders.content: classifier 'request' is not"),
        ('content = "requests"\n', "", 11, "streams.orders.features: content.confidence needs content"),
        ('text_field = "message"\n', "", 10, "streams.orders.content: text_field must say which text 'requests' reads"),
        ("[classifiers.requests]", "[classifiers.Requests]", 0, "matching regex"),
        ('labels = "labels.csv"', "holdout_share = 0.1", 3, "classifiers.requests: Object missing required field"),
        (
            '"labels.csv"',
            '"labels.csv"\nholdout_share = 1.0',
            5,
            "classifiers.requests.holdout_share: Expected `float`",
        ),
    ],
)
def test_a_classifier_that_cannot_be_is_refused_by_line_and_field(old: str, new: str, line: int, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.parse(CONFIGURATION.replace(old, new))
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"turnout.toml:{line}: " if line else "turnout.toml")
