"""Random draws as keyed hashes: the same event under the same release draws the same number, on every shim, for ever."""

import hashlib

_MANTISSA = 53  # bits of a float64's significand: the finest uniform grid on [0, 1) a float can hold


def uniform(*key: str) -> float:
    """Return a number in [0, 1) that depends on ``key`` alone.

    The parts are hashed with their lengths, so that ``("ab", "c")`` and ``("a", "bc")`` draw apart.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in key:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return (int.from_bytes(digest.digest(), "big") >> (64 - _MANTISSA)) / (1 << _MANTISSA)
