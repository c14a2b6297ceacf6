"""Names for decisions: UUIDs of version 7 whose random part is a keyed hash, so that one event always draws the same part."""

import hashlib
from datetime import UTC, datetime, timedelta
from uuid import UUID

_EPOCH, _MILLISECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_RANDOM_BITS = 62  # of the UUID's last field, RFC 9562, section 5.7
_RANDOM_MASK = (1 << _RANDOM_BITS) - 1
_VERSION = 0x7 << 12
_VARIANT = 0b10 << 62


def fingerprint(*key: str) -> int:
    """Return 62 bits that depend on ``key`` alone; the parts are hashed with their lengths."""
    digest = hashlib.blake2b(digest_size=8, person=b"turnout-decision")
    for part in key:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "big") & _RANDOM_MASK


def decision_id(at: datetime, mark: int) -> str:
    """Return the UUIDv7 of the millisecond of ``at`` (aware) that ends in the 62 bits ``mark``."""
    milliseconds = (at - _EPOCH) // _MILLISECOND & ((1 << 48) - 1)
    # Version 7 has 12 more random bits; the highest of the mark serve, since an event needs no two ids per instant.
    head = f"{milliseconds << 16 | _VERSION | mark >> 50:016x}"
    return f"{head[:8]}-{head[8:12]}-{head[12:]}-{_tail(mark)}"


def tells(identity: str, mark: int) -> bool:
    """Tell whether a decision id ends in the bits ``mark``, so that `mark_of` gives them back."""
    return identity[14:15] == "7" and identity[19:] == _tail(mark)


def mark_of(identity: str) -> int | None:
    """Return the mark of a decision id that `decision_id` may have made, None for one that it cannot have."""
    try:
        value = UUID(identity).int
    except ValueError:
        return None
    return value & _RANDOM_MASK if value >> 76 & 0xF == 0x7 else None  # noqa: PLR2004 - the version


def _tail(mark: int) -> str:
    tail = f"{_VARIANT | mark:016x}"
    return f"{tail[:4]}-{tail[4:]}"
