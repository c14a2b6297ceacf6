"""One generation of the ledger: what every stream and every other model is released as, and who said so, when and why.

On disk it is ``{"entry":{...},"sha256":"..."}`` in canonical JSON: the checksum of the inner bytes lets a follower, who
reads the newest file alone, tell a damaged one; the hash of the whole file is what the next generation names.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from features.records import Identifier, Mode, Probability
from models.releases import canonical
from models.releases.bundle import ModelName
from models.releases.canonical import Digest, NotCanonicalError

Action = Literal[
    "genesis", "canary", "promote", "rollback", "withdraw", "mode", "release", "revoke", "restore",
    "pause", "resume", "reject", "readmit",  # these release nothing: each is about its subject
]  # fmt: skip
Generation = Annotated[int, Meta(ge=1, le=99_999_999)]  # eight digits in a file's name
Instant = Annotated[datetime, Meta(tz=True)]
Predecessor = Annotated[str, Meta(pattern=r"\A([0-9a-f]{64})?\Z")]
Subject = Annotated[str, Meta(min_length=1, max_length=1_024)]
Prose = Annotated[str, Meta(min_length=1, max_length=4_096)]


class StreamRelease(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one stream is released as: its mode, and the digests of its routers; no champion means the static routes."""

    mode: Mode = "off"
    champion: Digest | None = None
    canary: Digest | None = None
    canary_share: Probability = 0.0
    shadow: Digest | None = None

    def digests(self) -> tuple[str, ...]:
        """Return the digests that are released here."""
        return tuple(digest for digest in (self.champion, self.canary, self.shadow) if digest is not None)


class Gap(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a restored ledger continues above: the highest generation a shim served, its hash, and its entry if the shim kept it."""

    generation: Generation
    hash: Digest
    entry: "Entry | None" = None


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One generation, complete in itself: a reader needs no other.

    ``previous`` is the hash of the generation before, "" for the first. ``models`` are the digests of everything but
    routers (forecaster, classifier, ...), ``revoked`` all digests revoked so far. ``evidence`` is free: digests, the
    registry's version, the approver. ``at`` is testimony: the order is that of the generations. ``subject`` is the stream
    that is paused or resumed, or the digest that is rejected or readmitted; of the other actions there is none.
    """

    generation: Generation
    previous: Predecessor
    at: Instant
    action: Action
    streams: dict[Identifier, StreamRelease]
    models: dict[ModelName, Digest] = {}
    revoked: tuple[Digest, ...] = ()
    actor: Identifier
    reason: Prose
    evidence: dict[str, str] = {}
    gap: Gap | None = None
    subject: Subject | UnsetType = UNSET  # left out where it is unset: what was written before it keeps its bytes
    schema: Annotated[int, Meta(ge=1, le=1)] = 1

    @property
    def said_by(self) -> str:
        """Who made it and why, in words."""
        return f"{self.actor}: {self.reason}"


class Recorded(Struct, frozen=True):
    """An entry as it stands in the ledger, and the SHA-256 of its file: a follower's ETag."""

    entry: Entry
    hash: str


class _File(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    entry: Raw
    sha256: Digest


def encode(entry: Entry) -> bytes:
    """Return the bytes of an entry's file."""
    body = canonical.encode(entry)
    return canonical.encode(_File(entry=Raw(body), sha256=canonical.sha256(body)))


def decode(data: bytes) -> Recorded:
    """Return the entry that a file's bytes hold, with their hash.

    Raises
    ------
    NotCanonicalError
        If they are not what `encode` wrote.
    """
    file = canonical.decode(data, _File)
    body = bytes(file.entry)
    if canonical.sha256(body) != file.sha256:
        raise NotCanonicalError(f"the entry's SHA-256 is {canonical.sha256(body)}, its file says {file.sha256}")
    return Recorded(canonical.decode(body, Entry), canonical.sha256(data))
