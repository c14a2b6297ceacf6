"""Canonical JSON and digests: one value has one encoding, so that its bytes can be hashed and held to."""

import hashlib
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]  # SHA-256 in lower-case hexadecimal

_DIGEST_LENGTH = 64
_Value = TypeVar("_Value")


class NotCanonicalError(ValueError):
    """Bytes that are not the one canonical encoding of a value of the wanted shape, or a value that has none."""


def encode(value: object) -> bytes:
    """Return the canonical JSON of ``value``: sorted keys, no space, UTF-8, shortest floats."""
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, shape: type[_Value]) -> _Value:
    """Return the value that ``data`` encodes.

    Only the canonical bytes are taken: other spacing, other key order or a key given twice would let two readers of
    one digest see two values.

    Raises
    ------
    NotCanonicalError
        Naming the path that does not fit, where there is one.
    """
    value = _parse(data, shape)
    if encode(value) != data:
        raise NotCanonicalError("the JSON is valid, but not in canonical form")
    return value


def normalise(value: _Value) -> _Value:
    """Return ``value`` as it reads back from its own encoding; what cannot be read back is refused.

    Structs do not check what they are built from: a share of ``1`` becomes ``1.0`` here, and a NaN is refused.

    Raises
    ------
    NotCanonicalError
        Naming the path that does not fit.
    """
    try:
        data = encode(value)
    except (TypeError, UnicodeEncodeError) as error:
        raise NotCanonicalError(f"cannot be written as JSON: {error}") from None
    return _parse(data, type(value))


def is_digest(text: str) -> bool:
    """Return whether ``text`` is a SHA-256 in lower-case hexadecimal."""
    return len(text) == _DIGEST_LENGTH and set(text) <= set("0123456789abcdef")


def sha256(data: bytes) -> str:
    """Return the SHA-256 of ``data`` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _parse(data: bytes, shape: type[_Value]) -> _Value:
    try:
        return msgspec.json.decode(data, type=shape)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotCanonicalError(str(error)) from None
