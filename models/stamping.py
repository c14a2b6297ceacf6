"""What a registry that knows its users lets a version say: who made it stands there, and nobody writes over it."""

from collections.abc import Mapping

from models.registered import (
    APPROVAL_REASON_TAG,
    APPROVED_MODELS,
    APPROVER_TAG,
    CANDIDATE_MODELS,
    CANDIDATE_SUFFIX,
    PREFIX,
    REFUSED_TAG,
    REGISTERED_BY_TAG,
    REJECTED_BY_TAG,
    REJECTION_REASON_TAG,
)

GUARDED_MODELS = (*APPROVED_MODELS, *CANDIDATE_MODELS)

_ABOUT_THE_COPY = (APPROVER_TAG, APPROVAL_REASON_TAG, REFUSED_TAG, REJECTED_BY_TAG, REJECTION_REASON_TAG)
_REMARKS = (REFUSED_TAG, REJECTED_BY_TAG, REJECTION_REASON_TAG)  # what may be said of a version that is there


class StampError(ValueError):
    """What a guarded model does not take: names the model, and the tag or the source."""


def stamp_candidate(tags: Mapping[str, str], *, user: str) -> dict[str, str]:
    """Return the tags of a new candidate: those given, without a word of any approval, and who registered it."""
    kept = {name: value for name, value in tags.items() if name not in _ABOUT_THE_COPY}
    return {**kept, REGISTERED_BY_TAG: user}


def stamp_approval(
    model: str, tags: Mapping[str, str], *, copied_from: str | None, candidate_tags: Mapping[str, str], user: str
) -> dict[str, str]:
    """Return the tags of a new version of an approved ``model``.

    All that Turnout says of it comes from the candidate as the registry holds it, and the approver is ``user``, whatever
    the client sent; the client's reason and its own tags stay.

    Raises
    ------
    StampError
        If it is no copy of a candidate of that model.
    """
    wanted = model + CANDIDATE_SUFFIX
    if copied_from != wanted:
        raise StampError(f"a version of {model} is made by promoting one of {wanted}, got {copied_from or 'no copy'}")
    own = {name: value for name, value in tags.items() if not name.startswith(PREFIX) or name == APPROVAL_REASON_TAG}
    claims = {
        name: value for name, value in candidate_tags.items() if name.startswith(PREFIX) and name not in _ABOUT_THE_COPY
    }
    return {**own, **claims, APPROVER_TAG: user}


def stamp_remark(model: str, name: str, value: str, *, user: str) -> str:
    """Return what a tag that is set later will say: a rejection is by ``user``, whoever the client named.

    Raises
    ------
    StampError
        If the tag of this guarded model was written for good when the version was made.
    """
    if model not in GUARDED_MODELS or not name.startswith(PREFIX):
        return value
    if name not in _REMARKS:
        raise StampError(f"{name} of {model} is written when the version is made, and never after")
    return user if name == REJECTED_BY_TAG else value


def check_removal(model: str, name: str) -> None:
    """Raise `StampError` for a tag that stays: nobody takes back what was said of a version of a guarded model."""
    if model in GUARDED_MODELS and name.startswith(PREFIX):
        raise StampError(f"{name} of {model} stays")
