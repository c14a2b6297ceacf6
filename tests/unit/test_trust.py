import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from validation import trust
from validation.trust import Approval, Facts

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
APPROVAL = Approval(
    kind="router",
    stream="parcels",
    digest="d1",
    evidence="e1",
    evidence_at="2026-03-01T10:00:00+00:00",
    baseline="static",
    verdict="passed",
    author="ada",
    approver="grace",
)
FACTS = Facts(
    digest="d1",
    evidence="e1",
    baseline="static",
    revoked=(),
    max_age=timedelta(hours=24),
    two_person=True,
    now=NOW,
)


def test_a_sound_approval_is_not_refused() -> None:
    assert trust.refusals(APPROVAL, FACTS) == ()


def test_an_approval_survives_the_journey_through_tags() -> None:
    assert Approval.from_tags({**APPROVAL.tags(), "mlflow.user": "x"}) == APPROVAL


def test_a_version_without_tags_is_refused_for_every_reason_at_once() -> None:
    assert len(trust.refusals(Approval.from_tags({}), FACTS)) >= 5


@pytest.mark.parametrize(
    ("approval", "facts", "reason"),
    [
        ({}, {"digest": "d2"}, "its bytes hash to d2, approved was d1"),
        ({}, {"digest": ""}, "its bytes hash to no bundle"),
        ({}, {"evidence": "e2"}, "its evidence hashes to e2, approved was e1"),
        ({"verdict": "failed"}, {}, "the offline gate said failed"),
        ({}, {"baseline": "d0"}, "it was judged against static, live is d0"),
        ({"approver": ""}, {}, "nobody approved it"),
        ({}, {"revoked": ("d1",)}, "d1 is revoked"),
        ({}, {"rejected": "it was rejected by eve: too few nights"}, "it was rejected by eve: too few nights"),
        ({"registered_by": "bob", "approver": "bob"}, {}, "bob is its author"),
        ({"approver": "ada"}, {}, "ada is its author"),
        ({"approver": "ada", "author": "unverified:ada"}, {}, "ada is its author"),
        ({"approver": trust.ANONYMOUS}, {}, "nobody can tell who approved it"),
        ({"evidence_at": "2026-02-01T10:00:00+00:00"}, {}, "its evidence is 28 days"),
        ({"evidence_at": "2026-03-02T10:00:00+00:00"}, {}, "its evidence is from the future"),
        ({"evidence_at": "2026-03-01T10:00:00"}, {}, "cannot be told"),
        ({"evidence_at": "yesterday"}, {}, "cannot be told from 'yesterday'"),
    ],
)
def test_what_does_not_hold_is_refused_by_name(approval: dict[str, str], facts: dict[str, object], reason: str) -> None:
    refusals = trust.refusals(dataclasses.replace(APPROVAL, **approval), dataclasses.replace(FACTS, **facts))  # type: ignore[arg-type]
    assert len(refusals) == 1
    assert reason in refusals[0]


def test_one_person_may_approve_alone_where_the_stream_allows_it() -> None:
    for approver in ("ada", trust.ANONYMOUS):
        alone = dataclasses.replace(APPROVAL, approver=approver)
        assert trust.refusals(alone, dataclasses.replace(FACTS, two_person=False)) == ()
