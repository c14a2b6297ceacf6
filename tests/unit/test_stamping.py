"""What a registry that knows its users lets a version say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import stamping
from models.registered import APPROVAL_REASON_TAG, APPROVER_TAG, PREFIX, REFUSED_TAG, REGISTERED_BY_TAG, REJECTED_BY_TAG
from models.stamping import StampError

NAMES = st.sampled_from(
    [
        APPROVER_TAG,
        APPROVAL_REASON_TAG,
        REFUSED_TAG,
        REGISTERED_BY_TAG,
        REJECTED_BY_TAG,
        "turnout.digest",
        "turnout.new",
        "own",
    ]
)
TAGS = st.dictionaries(NAMES, st.sampled_from(["mallory", "forged", "x"]))


@given(TAGS, TAGS)
def test_an_approval_says_what_the_candidate_says_and_who_approved(sent: dict[str, str], held: dict[str, str]) -> None:
    said = stamping.stamp_approval("router", sent, copied_from="router-candidate", candidate_tags=held, user="bob")
    assert said[APPROVER_TAG] == "bob"
    about_the_copy = {APPROVER_TAG, APPROVAL_REASON_TAG, REFUSED_TAG, REJECTED_BY_TAG, "turnout.rejection_reason"}
    claims = {name: value for name, value in said.items() if name.startswith(PREFIX) and name not in about_the_copy}
    assert claims == {
        name: value for name, value in held.items() if name.startswith(PREFIX) and name not in about_the_copy
    }
    assert said.get("own") == sent.get("own")
    assert said.get(APPROVAL_REASON_TAG) == sent.get(APPROVAL_REASON_TAG)
    assert REFUSED_TAG not in said


@given(TAGS)
def test_a_candidate_says_who_registered_it_and_nothing_of_an_approval(sent: dict[str, str]) -> None:
    said = stamping.stamp_candidate(sent, user="ann")
    assert said[REGISTERED_BY_TAG] == "ann"
    assert not {APPROVER_TAG, APPROVAL_REASON_TAG, REFUSED_TAG, REJECTED_BY_TAG} & set(said)


@pytest.mark.parametrize("source", [None, "router", "forecaster-candidate", "mine"])
def test_only_a_candidate_of_the_model_becomes_an_approval(source: str | None) -> None:
    with pytest.raises(StampError, match=f"promoting one of router-candidate, got {source or 'no copy'}"):
        stamping.stamp_approval("router", {}, copied_from=source, candidate_tags={}, user="bob")


@pytest.mark.parametrize("model", stamping.GUARDED_MODELS)
@pytest.mark.parametrize("name", [APPROVER_TAG, REGISTERED_BY_TAG, "turnout.digest", "turnout.anything"])
def test_what_was_said_of_a_guarded_model_is_said_for_good(model: str, name: str) -> None:
    with pytest.raises(StampError, match=name):
        stamping.stamp_remark(model, name, "forged", user="mallory")
    with pytest.raises(StampError, match="stays"):
        stamping.check_removal(model, name)


def test_a_remark_is_by_who_made_it_and_other_tags_are_anybodys() -> None:
    assert stamping.stamp_remark("router", REJECTED_BY_TAG, "eve", user="bob") == "bob"
    assert stamping.stamp_remark("router", REFUSED_TAG, "old", user="promoter") == "old"
    assert stamping.stamp_remark("router", "own", "x", user="bob") == "x"
    assert stamping.stamp_remark("another", APPROVER_TAG, "x", user="bob") == "x"
    stamping.check_removal("router", "own")
    stamping.check_removal("another", APPROVER_TAG)
