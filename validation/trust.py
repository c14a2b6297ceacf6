"""May an approved version be released? What was approved must be what was judged, still true, and approved by the right person."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self

from features import clock

PREFIX = "turnout."
ANONYMOUS = "unverified"  # pressed in the pages of an MLflow that knows no users
STATIC = "static"  # the baseline of a candidate that was judged against the static routes


@dataclass(frozen=True, kw_only=True)
class Approval:
    """What the tags of an approved version say. Tags are claims: `refusals` holds each against the bytes and the ledger."""

    kind: str
    stream: str
    digest: str
    evidence: str
    evidence_at: str
    baseline: str
    verdict: str
    author: str
    approver: str
    registered_by: str = ""

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self:
        """Read the tags ``turnout.*``; what is absent reads as empty, which no check accepts."""
        return cls(**{name: tags.get(PREFIX + name, "") for name in cls.__dataclass_fields__})

    def tags(self) -> dict[str, str]:
        """Return the tags that say this; empty ones are left out."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {PREFIX + name: value for name, value in values.items() if value}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was found: digests of the bytes as downloaded, what is live, what is revoked, the rules and the instant.

    ``rejected`` is the rejection that stands in the ledger, in words; "" where there is none.
    """

    digest: str
    evidence: str
    baseline: str
    revoked: Collection[str]
    max_age: timedelta
    two_person: bool
    now: datetime
    rejected: str = ""


def refusals(approval: Approval, facts: Facts) -> tuple[str, ...]:
    """Return every reason not to release the version; none means that it may be."""
    checks = {
        f"its bytes hash to {facts.digest or 'no bundle'}, approved was {approval.digest}": facts.digest
        != approval.digest,
        f"its evidence hashes to {facts.evidence or 'nothing'}, approved was {approval.evidence}": (
            facts.evidence != approval.evidence
        ),
        f"the offline gate said {approval.verdict or 'nothing'}": approval.verdict != "passed",
        f"it was judged against {approval.baseline or 'nothing'}, live is {facts.baseline}": (
            approval.baseline != facts.baseline
        ),
        "nobody approved it": not approval.approver,
        f"{approval.digest} is revoked": approval.digest in facts.revoked,
        facts.rejected: bool(facts.rejected),
        f"{approval.approver} is its author, and this stream wants two people": (
            facts.two_person
            and _person(approval.approver) in map(_person, filter(None, (approval.author, approval.registered_by)))
        ),
        "this stream wants two people, and nobody can tell who approved it": (
            facts.two_person and approval.approver == ANONYMOUS
        ),
    }
    found = [reason for reason, holds in checks.items() if holds]
    return (*found, *_age(approval.evidence_at, facts))


def _person(actor: str) -> str:
    """Return who an actor says to be, whether or not anybody verified it."""
    return actor.removeprefix("unverified:")


def _age(evidence_at: str, facts: Facts) -> tuple[str, ...]:
    try:
        age = facts.now - clock.utc(datetime.fromisoformat(evidence_at))
    except ValueError:
        return (f"the age of its evidence cannot be told from {evidence_at!r}",)
    if age > facts.max_age:
        return (f"its evidence is {age} old, at most {facts.max_age} is allowed",)
    if age < timedelta(0):
        return (f"its evidence is from the future: {evidence_at}",)
    return ()
