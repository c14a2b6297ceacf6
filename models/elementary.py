"""Logarithm, exponential (also less one) and hyperbolic tangent, to the same bits for one number as for a million, in Python as in C.

numpy's own differ from the C library's in the last bit, and the fast path (serving/native) uses that. Where C was not built
there is no fast path, and numpy's serve.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

try:
    from models import _masks
except ImportError:  # no compiler at the installation
    _masks = None  # type: ignore[assignment]  # looked at before its use

Floats = NDArray[np.float64]


def log(values: Floats) -> Floats:
    """Return the natural logarithm, float64 of the same shape."""
    return _each("log", values)


def exp(values: Floats) -> Floats:
    """Return the exponential, float64 of the same shape."""
    return _each("exp", values)


def expm1(values: Floats) -> Floats:
    """Return the exponential less one, float64 of the same shape."""
    return _each("expm1", values)


def tanh(values: Floats) -> Floats:
    """Return the hyperbolic tangent, float64 of the same shape."""
    return _each("tanh", values)


def _each(name: Literal["log", "exp", "expm1", "tanh"], values: Floats) -> Floats:
    return np.asarray(getattr(np, name)(values)) if _masks is None else _compiled(name, values)


def _compiled(name: str, values: Floats) -> Floats:
    result = np.array(values, dtype=np.float64, order="C")
    _masks.apply(name, result)
    return result
