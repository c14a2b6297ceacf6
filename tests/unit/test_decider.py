import functools
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from features import config
from features.records import Candidate, Decision, DestinationState, Event, Override
from features.scope import FeatureTypeError
from models.router import Scores
from serving import answer, decider
from serving.case import FeatureRangeError, NoEligibleDestinationError, Question
from serving.plan import NOT_A_DESTINATION, UNHEALTHY, Plan, StreamPlan
from serving.view import Model, StreamView

AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
REFUSAL = 'refusal = "parking"'
CONFIGURATION = """
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b", "c", "d"]
static = {{ by = "size", routes = {{ big = ["c"] }}, default = ["a", "b"] }}
objective = {{ success = 1.0 }}
exploration = {{ kind = "{kind}", epsilon = 0.2, static_epsilon = {static_epsilon} }}
features = {{ numbers = {{ weight = "event.weight", depth = "state.queue_depth" }} }}
sticky = {sticky}
{refusal}

[destinations]
a = {{ region = "eu" }}
b = {{ region = "eu" }}
c = {{ region = "us" }}
d = {{ region = "us" }}
parking = {{}}

[[rules]]
name = "residency"
label = "personal"
allow_regions = ["eu"]

[[rules]]
name = "contract"
label = "secret"
allow = ["b", "c"]
"""


class FakeRouter:
    """Says a fixed value per candidate, in the order asked; or fails."""

    def __init__(
        self, *values: float, feature_set: str = "", head: float = 0.5, error: Exception | None = None
    ) -> None:
        self.feature_set = feature_set or plan().features.version
        self._values = np.array(values)
        self._head = head
        self._error = error

    def score(self, numbers: NDArray[np.float64], categories: Sequence[Sequence[str | None]]) -> Scores:
        if self._error:
            raise self._error
        assert len(numbers) == len(categories)
        values = np.resize(self._values, len(numbers))
        return Scores(values, {"success_probability": np.full(len(values), self._head)})


@functools.cache
def plan(*, kind: str = "epsilon", static_epsilon: float = 0.0, sticky: bool = False, refusal: str = "") -> StreamPlan:
    text = CONFIGURATION.format(kind=kind, static_epsilon=static_epsilon, sticky=str(sticky).lower(), refusal=refusal)
    return Plan.of(config.parse(text)).streams["orders"]


def question(number: int = 0, destinations: str = "abcd", key: str | None = None, **fields: object) -> Question:
    candidates = tuple(Candidate(destination=name) for name in destinations)
    event = Event(id=f"e{number}", source="/shop", type="shop.order", stream="orders", key=key)
    return Question(event=msgspec.structs.replace(event, **fields), candidates=candidates)


def decide(
    asked: Question, view: StreamView | None = None, stop: Override | None = None, of: StreamPlan | None = None
) -> Decision:
    decided = decider.decide(
        asked, of or plan(), view or StreamView(mode="off"), stop, at=AT, decision_id="d1", revision="r1"
    )
    check(decided.decision)
    return decided.decision


def check(decision: Decision) -> None:
    """What must hold of every decision, whatever made it."""
    n_candidates = len(decision.destinations)
    index = decision.destinations.index(decision.assigned)
    assert decision.assigned not in decision.excluded
    assert decision.propensity == decision.mixture[index] > 0
    for distribution in (decision.mixture, *decision.policies.values()):
        assert len(distribution) == n_candidates
        assert math.isclose(sum(distribution), 1.0, abs_tol=1e-9)
        for destination, probability in zip(decision.destinations, distribution, strict=True):
            assert probability == 0.0 or destination not in decision.excluded
    assert decision.arm in decision.policies
    assert len(decision.numbers) == len(decision.categories) == n_candidates
    wire = msgspec.json.encode(decision)
    assert msgspec.json.decode(wire, type=Decision) == decision


def model(*values: float, digest: str = "c0ffee", error: Exception | None = None) -> Model:
    return Model(digest, FakeRouter(*values, error=error))


def stop(**fields: object) -> Override:
    return msgspec.structs.replace(Override(kind="stop", actor="ada", reason="drill", created_at=AT), **fields)


def test_without_a_model_the_static_route_decides() -> None:
    decision = decide(question())
    assert (decision.assigned, decision.propensity, decision.arm) == ("a", 1.0, "static")
    assert decision.reason == "static: mode off"
    assert decide(question(attributes={"size": "big"})).assigned == "c"


def test_the_rules_exclude_by_name_and_a_label_no_rule_mentions_forbids_everything() -> None:
    decision = decide(question(labels=("personal", "secret")))
    assert decision.excluded == {"a": "contract", "c": "residency", "d": "residency"}
    assert decision.assigned == "b"
    with pytest.raises(NoEligibleDestinationError) as caught:
        decide(question(labels=("personal", "medical")))
    assert caught.value.excluded["a"] == "no rule mentions the label 'medical'"


def test_s03_unknown_and_unhealthy_candidates_are_excluded_with_the_reason() -> None:
    candidates = (
        Candidate(destination="a", state=DestinationState(healthy=False)),
        Candidate(destination="zzz"),
        Candidate(destination="d"),
    )
    decision = decide(Question(event=question().event, candidates=candidates))
    assert decision.excluded == {"a": UNHEALTHY, "zzz": NOT_A_DESTINATION}
    assert decision.assigned == "d"


def test_nothing_eligible_goes_to_the_refusal_destination() -> None:
    of = plan(refusal=REFUSAL)
    decision = decide(question(labels=("unheard",)), StreamView(mode="on", champion=model(1, 2, 3, 4)), of=of)
    assert (decision.assigned, decision.propensity, decision.explored) == ("parking", 1.0, False)
    assert decision.destinations == ("a", "b", "c", "d", "parking")
    assert decision.reason.startswith("refused: ")


def test_a_refusal_destination_among_the_candidates_is_not_named_twice() -> None:
    asked = Question(
        event=question(labels=("unheard",)).event,
        candidates=(Candidate(destination="parking"), Candidate(destination="a")),
    )
    decision = decide(asked, of=plan(refusal=REFUSAL))
    assert (decision.assigned, decision.destinations) == ("parking", ("parking", "a"))


def test_the_champion_beats_the_static_route_and_explores_by_its_floor() -> None:
    view = StreamView(mode="on", champion=model(0.1, 0.2, 0.9, 0.3), generation=7)
    decisions = [decide(question(number), view) for number in range(200)]
    assert Counter(d.assigned for d in decisions).most_common(1)[0][0] == "c"
    assert {round(d.propensity, 12) for d in decisions} == {0.85, 0.05}
    assert {d.reason for d in decisions} == {"champion: highest expected value", "champion: explored"}
    assert {d.generation for d in decisions} == {7}


def test_exploration_none_is_sure_of_the_best() -> None:
    view = StreamView(mode="on", champion=model(0.1, 0.2, 0.9, 0.3))
    decision = decide(question(), view, of=plan(kind="none"))
    assert (decision.assigned, decision.propensity, decision.explored) == ("c", 1.0, True)


def test_the_champion_never_gets_past_the_mask() -> None:
    view = StreamView(mode="on", champion=model(0.1, 0.2, 0.9, 0.8))
    for number in range(100):
        assert decide(question(number, labels=("personal",)), view).assigned in "ab"


def test_observing_logs_what_the_models_would_do_and_leaves_the_choice_to_the_static_route() -> None:
    view = StreamView(
        mode="observe", champion=model(0, 0, 0, 1), challenger=model(0, 0, 1, 0, digest="new"), challenger_share=1.0
    )
    decision = decide(question(), view)
    assert (decision.assigned, decision.arm, decision.reason) == ("a", "static", "static: mode observe")
    assert decision.policies["challenger"] == pytest.approx((0.05, 0.05, 0.85, 0.05))
    assert decision.predictions["champion"]["success_probability"] == (0.5, 0.5, 0.5, 0.5)
    assert decision.predictions["challenger"]["value"] == (0.0, 0.0, 1.0, 0.0)


def test_off_asks_no_model() -> None:
    view = StreamView(mode="off", champion=model(error=RuntimeError("asked")))
    decided = decider.decide(question(), plan(), view, None, at=AT, decision_id="d", revision="r")
    assert not decided.faults


def test_realised_frequencies_match_the_logged_mixture_and_arms_their_share() -> None:
    view = StreamView(
        mode="canary", champion=model(0.9, 0, 0, 0), challenger=model(0, 0, 0, 0.9, digest="new"), challenger_share=0.3
    )
    n_decisions = 1_500
    decisions = [decide(question(number), view) for number in range(n_decisions)]
    counts = Counter(d.assigned for d in decisions)
    for destination, probability in zip(decisions[0].destinations, decisions[0].mixture, strict=True):
        error = math.sqrt(probability * (1 - probability) / n_decisions)
        assert abs(counts[destination] / n_decisions - probability) < 4.5 * error
    challenged = sum(d.arm == "challenger" for d in decisions) / n_decisions
    assert abs(challenged - 0.3) < 4.5 * math.sqrt(0.3 * 0.7 / n_decisions)
    assert {d.arm_probability for d in decisions} == {0.3, 0.7}
    assert len({d.arm_unit for d in decisions}) == n_decisions


def test_the_arm_and_the_action_are_drawn_independently() -> None:
    view = StreamView(
        mode="canary", champion=model(1, 0, 0, 0), challenger=model(1, 0, 0, 0, digest="new"), challenger_share=0.5
    )
    decisions = [decide(question(number), view) for number in range(3_000)]
    explored = {
        arm: np.mean([d.assigned != "a" for d in decisions if d.arm == arm]) for arm in ("champion", "challenger")
    }
    assert explored["champion"] == pytest.approx(explored["challenger"], abs=0.04)


def test_a_canary_without_a_champion_runs_against_the_static_route() -> None:
    view = StreamView(mode="canary", challenger=model(0, 0, 0, 1, digest="new"), challenger_share=0.5)
    decisions = [decide(question(number), view) for number in range(100)]
    assert {d.arm for d in decisions} == {"static", "challenger"}
    assert decisions[0].mixture == pytest.approx((0.525, 0.025, 0.025, 0.425))


def test_sticky_streams_keep_a_key_in_its_arm() -> None:
    view = StreamView(
        mode="canary", champion=model(1, 0, 0, 0), challenger=model(0, 1, 0, 0, digest="new"), challenger_share=0.5
    )
    of = plan(sticky=True)
    arms = {key: {decide(question(n, key=key), view, of=of).arm for n in range(20)} for key in map(str, range(40))}
    assert all(len(of_key) == 1 for of_key in arms.values())
    assert set.union(*arms.values()) == {"champion", "challenger"}
    assert len({decide(question(n), view, of=of).arm for n in range(40)}) == 2
    assert len({decide(question(n, key="one"), view).arm for n in range(40)}) == 2


def test_the_same_event_draws_the_same_under_one_generation_and_anew_under_another() -> None:
    def choices(generation: int) -> list[str]:
        view = StreamView(mode="on", champion=model(0, 0, 0, 0), generation=generation)
        return [decide(question(number), view).assigned for number in range(300)]

    assert choices(1) == choices(1)
    assert choices(1) != choices(2)


def test_a_stop_beats_every_model_and_is_no_exploration() -> None:
    view = StreamView(mode="on", champion=model(0, 0, 0, 1))
    decision = decide(question(), view, stop(), of=plan(static_epsilon=0.9))
    assert (decision.assigned, decision.propensity, decision.explored) == ("a", 1.0, False)
    assert decision.override == stop()
    assert decision.reason == "override: stopped by ada: drill"


def test_a_stop_never_gets_past_the_mask() -> None:
    assert decide(question(labels=("secret",)), StreamView(mode="on"), stop()).assigned == "b"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (Model("bad", FakeRouter(error=ZeroDivisionError("oops"))), "champion raised ZeroDivisionError: oops"),
        (Model("bad", FakeRouter(math.nan)), "finite"),
        (Model("bad", FakeRouter(math.inf)), "finite"),
        (Model("bad", FakeRouter(1.0, head=math.nan)), "success_probability must be one finite number per candidate"),
        (Model("bad", FakeRouter(1.0, feature_set="other")), "feature set other"),
    ],
)
def test_s19_a_model_that_fails_is_replaced_by_the_static_route_with_a_true_propensity(
    broken: Model, words: str
) -> None:
    of = plan(static_epsilon=0.4)
    view = StreamView(mode="on", champion=broken)
    decided = decider.decide(question(), of, view, None, at=AT, decision_id="d", revision="r")
    check(decided.decision)
    assert decided.decision.reason.startswith("static: fallback: ")
    assert words in decided.decision.reason
    assert decided.decision.policies["champion"] == decided.decision.mixture == pytest.approx((0.7, 0.1, 0.1, 0.1))
    (fault,) = decided.faults
    assert (fault.digest, fault.raised) == ("bad", "raised" in words)


def test_a_failing_challenger_costs_only_its_own_arm() -> None:
    view = StreamView(
        mode="canary",
        champion=model(0, 0, 0, 1),
        challenger=model(digest="new", error=RuntimeError("no")),
        challenger_share=0.5,
    )
    decisions = [decide(question(number), view) for number in range(200)]
    assert decisions[0].mixture == pytest.approx((0.525, 0.025, 0.025, 0.425))
    assert {d.arm for d in decisions} == {"champion", "challenger"}
    assert all(d.assigned == "a" and "fallback" in d.reason for d in decisions if d.arm == "challenger")


def test_a_failing_shadow_is_left_out_of_the_log() -> None:
    view = StreamView(mode="on", champion=model(1, 0, 0, 0), shadow=model(digest="s", error=RuntimeError("no")))
    decision = decide(question(), view)
    assert set(decision.policies) == {"static", "champion"}
    assert decision.shadow == "s"


def test_text_where_a_number_is_read_is_an_error_that_names_it() -> None:
    with pytest.raises(FeatureTypeError, match=r"event\.weight must be a number, got 'heavy'"):
        decide(question(attributes={"weight": "heavy"}))
    with pytest.raises(FeatureRangeError, match="beyond"):
        decide(question(attributes={"weight": 10**400}))


def test_the_age_of_the_oldest_state_is_logged() -> None:
    states = (AT - timedelta(seconds=2), AT - timedelta(seconds=5), None)
    candidates = tuple(
        Candidate(destination=name, state=DestinationState(observed_at=at, queue_depth=3))
        for name, at in zip("abc", states, strict=True)
    )
    decision = decide(Question(event=question().event, candidates=candidates))
    assert decision.state_age_ms == 5_000
    assert decision.numbers == ((None, 3.0),) * 3


def test_the_answer_lists_the_assigned_first_then_the_likeliest_then_the_most_valued() -> None:
    view = StreamView(mode="on", champion=model(0.1, 0.3, 0.9, 0.2))
    for number in range(50):
        decision = decide(question(number), view)
        rest = [name for name in "cbda" if name != decision.assigned]
        assert answer.rank(decision, ("a", "b")) == (decision.assigned, *rest)
    masked = decide(question(labels=("personal",)), view)
    assert set(answer.rank(masked, ())) == {"a", "b"}
    assert answer.rank(decide(question()), ("a", "d", "b")) == ("a", "d", "b", "c")


distribution_values = st.lists(
    st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(math.inf)), min_size=4, max_size=4
)


@given(
    champion=st.none() | distribution_values,
    challenger=st.none() | distribution_values,
    share=st.floats(0.0, 1.0),
    mode=st.sampled_from(["off", "observe", "canary", "on"]),
    kind=st.sampled_from(["none", "epsilon", "squarecb"]),
    static_epsilon=st.sampled_from([0.0, 0.3]),
    labels=st.lists(st.sampled_from(["personal", "secret", "unheard"]), max_size=2).map(tuple),
    stopped=st.booleans(),
    number=st.integers(0, 10_000),
)
def test_whatever_the_release_every_decision_is_consistent(  # noqa: PLR0917 - Hypothesis' own
    champion: list[float] | None,
    challenger: list[float] | None,
    share: float,
    mode: str,
    kind: str,
    static_epsilon: float,
    labels: tuple[str, ...],
    stopped: bool,  # noqa: FBT001 - Hypothesis' own
    number: int,
) -> None:
    of = plan(kind=kind, static_epsilon=static_epsilon, refusal=REFUSAL)
    view = StreamView(
        mode=mode,  # type: ignore[arg-type]
        champion=model(*champion) if champion else None,
        challenger=model(*challenger, digest="new") if challenger else None,
        challenger_share=share,
    )
    decision = decide(question(number, labels=labels), view, stop() if stopped else None, of=of)
    if "unheard" in labels:
        assert decision.assigned == "parking"
    assert decision.explored == (not stopped and decision.assigned != "parking")
