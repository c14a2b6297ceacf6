"""Arrays as text: a JSON file of names, each with its dtype, its shape and its bytes in base64; numpy alone.

A release holds text alone, and so that nothing in it can run when it is read, its arrays are text as well.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from models.card import ContractMismatchError

Floats32 = NDArray[np.float32]
_LITTLE: Mapping[str, np.dtype[np.floating]] = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}


class _Array(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An array in C order, little-endian; JSON has its bytes in base64."""

    dtype: Literal["float16", "float32"]
    shape: tuple[int, ...]
    data: bytes


def write(path: Path, arrays: Mapping[str, NDArray[np.floating]]) -> None:
    """Write float16 or float32 ``arrays`` by name, the same bytes for the same arrays."""
    held = {
        name: _Array(
            dtype=array.dtype.name,  # type: ignore[arg-type]  # what is no float16 or float32 cannot be read back
            shape=array.shape,
            data=np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<")).tobytes(),
        )
        for name, array in arrays.items()
    }
    path.write_bytes(msgspec.json.encode(held))


def read(path: Path, *names: str) -> tuple[Floats32, ...]:
    """Return the arrays ``names`` as float32.

    Raises
    ------
    ContractMismatchError
        If the file cannot be read, holds other names, or an array is not as long as its shape says or not finite.
    """
    try:
        held = msgspec.json.decode(path.read_bytes(), type=dict[str, _Array])
    except (OSError, msgspec.MsgspecError) as error:
        raise ContractMismatchError(f"{path.name} cannot be read: {error}") from None
    if set(held) != set(names):
        raise ContractMismatchError(
            f"{path.name} must hold {', '.join(names)}, it holds {', '.join(held) or 'nothing'}"
        )
    return tuple(_array(f"{path.name}: {name}", held[name]) for name in names)


def expect(path: Path, name: str, array: Floats32, shape: tuple[int, ...]) -> None:
    """Raise ContractMismatchError unless the array ``name`` of the file ``path`` has the ``shape`` that others make it."""
    if array.shape != shape:
        raise ContractMismatchError(
            f"{path.name}: {name} has the shape {array.shape}, card and vocabulary make it {shape}"
        )


def _array(what: str, held: _Array) -> Floats32:
    dtype = _LITTLE[held.dtype]
    if not held.shape or min(held.shape) < 0 or math.prod(held.shape) * dtype.itemsize != len(held.data):
        raise ContractMismatchError(f"{what}: {len(held.data)} bytes are not {held.dtype}{list(held.shape)}")
    array: Floats32 = np.frombuffer(held.data, dtype).reshape(held.shape).astype(np.float32)
    if not np.isfinite(array).all():
        raise ContractMismatchError(f"{what} must be finite")
    return array
