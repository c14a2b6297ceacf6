"""What is registered: versions with their tags, the words of approval and rejection, and what the registry may refuse."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

BUNDLE_FOLDER = "bundle"
EVIDENCE_FOLDER = "evidence"

CANDIDATE_SUFFIX = "-candidate"
APPROVED_MODELS = ("router", "forecaster", "classifier")  # a version of one of these is an approval
CANDIDATE_MODELS = tuple(name + CANDIDATE_SUFFIX for name in APPROVED_MODELS)

PREFIX = "turnout."
DIGEST_TAG = "turnout.digest"
EVIDENCE_TAG = "turnout.evidence"
AUTHOR_TAG = "turnout.author"
REGISTERED_BY_TAG = "turnout.registered_by"
APPROVER_TAG = "turnout.approver"
APPROVAL_REASON_TAG = "turnout.approval_reason"
REFUSED_TAG = "turnout.refused"
REJECTED_BY_TAG = "turnout.rejected_by"
REJECTION_REASON_TAG = "turnout.rejection_reason"

GUARD_HEADER = "X-Turnout-Approvers"  # names the models whose approvers a server vouches for

_UNVERIFIED_PREFIX = "unverified:"
_MAX_DESCRIPTION_CHARACTERS = 5_000  # MLflow's column
_NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # what needs no quoting, neither in a filter nor in an address
_COPY_PATTERN = re.compile(rf"models:/(?P<name>{_NAME_PATTERN})/(?P<number>\d+)")


class RegistryError(RuntimeError):
    """What MLflow refused: names what was asked, and MLflow's reason."""


class RegistryUnavailableError(RegistryError):
    """MLflow, or the database behind it, did not answer: ask again later."""


class RegistryForbiddenError(RegistryError):
    """MLflow knows who asks, or does not, and refuses for that reason: asking again will not help."""


class UnguardedRegistryError(RegistryError):
    """An MLflow that should know who approves, and does not."""


class UnknownVersionError(RegistryError):
    """A model, version or artifact that is not there."""


_ERRORS: Mapping[str, type[RegistryError]] = {
    "CUSTOMER_UNAUTHORIZED": RegistryForbiddenError,
    "DEADLINE_EXCEEDED": RegistryUnavailableError,
    "INTERNAL_ERROR": RegistryUnavailableError,
    "NOT_FOUND": UnknownVersionError,
    "PERMISSION_DENIED": RegistryForbiddenError,
    "REQUEST_LIMIT_EXCEEDED": RegistryUnavailableError,
    "RESOURCE_DOES_NOT_EXIST": UnknownVersionError,
    "TEMPORARILY_UNAVAILABLE": RegistryUnavailableError,
    "UNAUTHENTICATED": RegistryForbiddenError,
}


@dataclass(frozen=True, kw_only=True)
class Version:
    """One version of a registered model, as it was when asked for. ``source`` is where its artifacts are."""

    name: str
    number: int
    tags: Mapping[str, str]
    source: str
    run_id: str
    description: str
    created_at: datetime

    @property
    def candidate(self) -> tuple[str, int] | None:
        """The name and number that this version is a copy of; None if it is no copy."""
        return copied_from(self.source)

    @property
    def refused(self) -> bool:
        """Whether a promotion looked at it and refused: the reasons stand in its tag."""
        return REFUSED_TAG in self.tags

    @property
    def page(self) -> str:
        """Its page, to be appended to the address of MLflow."""
        return f"/#/models/{self.name}/versions/{self.number}"


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """The artifacts of a version on this disk; nothing of them has been checked."""

    bundle: Path
    evidence: Path


def copied_from(source: str) -> tuple[str, int] | None:
    """Return the name and number of the version that a version with this ``source`` copies; None if it is no copy."""
    match = _COPY_PATTERN.fullmatch(source)
    return (match["name"], int(match["number"])) if match else None


def error_of(code: str) -> type[RegistryError]:
    """Return the error that MLflow's error ``code`` stands for."""
    return _ERRORS.get(code, RegistryError)


def unverified(actor: str) -> str:
    """Return how an actor is recorded whom nobody authenticated."""
    return actor if actor.startswith(_UNVERIFIED_PREFIX) else f"{_UNVERIFIED_PREFIX}{actor}"


def approval_tags(actor: str, reason: str) -> dict[str, str]:
    """Return what an approval by ``actor`` says.

    Raises
    ------
    ValueError
        If ``actor`` or ``reason`` is empty.
    """
    _check_said(actor, reason)
    return {APPROVER_TAG: unverified(actor), APPROVAL_REASON_TAG: reason}


def rejection_tags(actor: str, reason: str) -> dict[str, str]:
    """Return what a rejection by ``actor`` says; raises as `approval_tags`."""
    _check_said(actor, reason)
    return {REJECTED_BY_TAG: unverified(actor), REJECTION_REASON_TAG: reason}


def check_name(model_name: str) -> None:
    """Raise ``ValueError`` for a name that would need quoting somewhere."""
    if not re.fullmatch(_NAME_PATTERN, model_name):
        raise ValueError(f"a model name must match {_NAME_PATTERN}, got {model_name!r}")


def evidence_links(experiment_id: str, run_id: str, pages: Iterable[str]) -> str:
    """Return Markdown links to pages of the evidence: by MLflow's own way they are three clicks away."""
    artifacts = f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{EVIDENCE_FOLDER}"
    return " | ".join(f"[{page}]({artifacts}/{page})" for page in pages)


def describe(description: str, links: str) -> str:
    """Return the Markdown that a version shows, within what MLflow's column holds; ``links`` are never cut."""
    ending = f"\n\n{links}" if links else ""
    room = _MAX_DESCRIPTION_CHARACTERS - len(ending)
    if len(description) > room:
        note = "\n\n(cut here; the whole is in the evidence)"
        description = description[: room - len(note)] + note
    return description + ending


def describe_refusal(reasons: Sequence[str], at: datetime, description: str) -> str:
    """Return the description of a version that was refused ``at`` an instant: the reasons stand above all else."""
    listed = "\n".join(f"- {reason}" for reason in reasons)
    told = f"**REFUSED** by the promotion of {at:%Y-%m-%d %H:%M} UTC:\n\n{listed}\n\n---\n\n"
    return clip(told + description)


def clip(text: str) -> str:
    """Return ``text`` within what MLflow's columns hold."""
    return text if len(text) <= _MAX_DESCRIPTION_CHARACTERS else text[: _MAX_DESCRIPTION_CHARACTERS - 1] + "…"


def _check_said(actor: str, reason: str) -> None:
    if not actor.strip() or not reason.strip():
        raise ValueError(f"an actor and a reason must be given, got {actor!r} and {reason!r}")
