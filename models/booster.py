"""LightGBM's C library bound by ctypes: scoring without the Python package, whose import takes 2 s and 190 MB."""

import ctypes
import importlib.util
import sys
from collections.abc import Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_FILE_NAMES: Final = {"win32": "lib_lightgbm.dll", "darwin": "lib_lightgbm.dylib"}
# From LightGBM's c_api.h.
_FLOAT64: Final = 1
_ROW_MAJOR: Final = 1
_NORMAL: Final = 0
_RAW_SCORE: Final = 1
_CONTRIBUTIONS: Final = 3
_ALL_TREES: Final = -1
# More threads cost a server 20 to 29 ms at the 99th percentile when the machine is busy.
_PARAMETERS: Final = b"num_threads=1"

_SIGNATURES: Final = {
    "LGBM_BoosterLoadModelFromString": [c_char_p, POINTER(c_int), POINTER(c_void_p)],
    "LGBM_BoosterFree": [c_void_p],
    "LGBM_BoosterGetNumClasses": [c_void_p, POINTER(c_int)],
    "LGBM_BoosterGetNumFeature": [c_void_p, POINTER(c_int)],
    "LGBM_BoosterNumberOfTotalModel": [c_void_p, POINTER(c_int)],
    "LGBM_BoosterGetFeatureNames": [
        *(c_void_p, c_int, POINTER(c_int), c_size_t, POINTER(c_size_t), POINTER(c_char_p)),
    ],
    "LGBM_BoosterPredictForMat": [
        *(c_void_p, c_void_p, c_int, c_int32, c_int32, c_int, c_int, c_int, c_int),
        *(c_char_p, POINTER(c_int64), POINTER(c_double)),
    ],
}


class LightGBMError(RuntimeError):
    """What LightGBM's library says went wrong, in its own words."""


class Booster:
    """A trained LightGBM model of one output, for prediction only.

    Predictions use one thread, release the interpreter's lock, and may run in several threads at once. A closed
    booster stays in memory until the predictions under way have returned.

    **A truncated or mutated text kills the process** (a segmentation fault or an abort, which nothing can catch): check
    its digest, and load it in a child process first. A text edited to the same length loads, and predicts otherwise.
    """

    feature_names: tuple[str, ...]
    n_features: int
    n_trees: int

    def __init__(self, handle: "_Handle") -> None:
        self._handle: _Handle | None = handle
        self.n_features = handle.count("LGBM_BoosterGetNumFeature")
        self.n_trees = handle.count("LGBM_BoosterNumberOfTotalModel")
        self.feature_names = _feature_names(handle, self.n_features)

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Return the model that ``text``, LightGBM's native format, describes.

        A ``pandas_categorical`` line is not read: categories are given to ``predict`` as the codes used in training.

        Raises
        ------
        LightGBMError
            If the library refuses the text, is not to be found, or the model has more than one output per row.
        """
        n_iterations, pointer = c_int(), c_void_p()
        _call("LGBM_BoosterLoadModelFromString", text.encode(), byref(n_iterations), byref(pointer))
        handle = _Handle(pointer)
        if (n_outputs := handle.count("LGBM_BoosterGetNumClasses")) != 1:
            raise LightGBMError(f"a model must have one output per row, got {n_outputs}")
        return cls(handle)

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the model that the file at ``path`` holds; as ``from_text``, or OSError if it cannot be read."""
        return cls.from_text(Path(path).read_text(encoding="utf-8"))

    def predict(self, matrix: ArrayLike, *, raw_score: bool = False) -> Floats:
        """Return one prediction per row of ``matrix``, float64[n], bit for bit those of ``lightgbm.Booster``.

        Parameters
        ----------
        matrix
            float64[n, n_features] in the order of ``feature_names``, NaN where missing; copied unless it is a
            C-contiguous float64 array already.
        raw_score
            Leave out the objective's link: log-odds instead of probabilities, say.

        Raises
        ------
        ValueError
            If the matrix has another shape, or the booster is closed.
        """
        return self._predict(matrix, _RAW_SCORE if raw_score else _NORMAL, 1).ravel()

    def contributions(self, matrix: ArrayLike) -> Floats:
        """Return what each feature adds to the raw score of each row, float64[n, n_features + 1].

        The last column is the expected raw score; a row sums to its raw score. These are exact Shapley values of the
        trees (Lundberg, Erion and Lee, Consistent individualized feature attribution for tree ensembles, 2018).
        ``matrix`` and the errors are those of ``predict``.
        """
        return self._predict(matrix, _CONTRIBUTIONS, self.n_features + 1)

    def close(self) -> None:
        """Give the model's memory back as soon as no prediction is under way; closing twice is closing once."""
        self._handle = None

    def _predict(self, matrix: ArrayLike, kind: int, n_columns: int) -> Floats:
        handle = self._handle  # a reference of our own: close() in another thread must not free what we read
        if handle is None:
            raise ValueError("the booster is closed")
        rows = np.asarray(matrix, dtype=np.float64, order="C")
        if rows.ndim != 2 or rows.shape[1] != self.n_features:  # noqa: PLR2004 - a matrix
            raise ValueError(f"matrix must have shape (n, {self.n_features}), got {rows.shape}")
        predicted = np.empty((rows.shape[0], n_columns))
        if predicted.size:  # the library refuses no rows
            handle.predict(rows, kind, predicted)
        return predicted


class _Handle:
    """The library's own booster, freed with its last reference."""

    def __init__(self, pointer: c_void_p) -> None:
        self.pointer = pointer
        self._free = _library().LGBM_BoosterFree  # module names may be gone when the interpreter ends

    def __del__(self) -> None:
        self._free(self.pointer)

    def count(self, function: str) -> int:
        """Return the count that ``function`` tells of this booster."""
        found = c_int()
        _call(function, self.pointer, byref(found))
        return found.value

    def predict(self, rows: Floats, kind: int, predicted: Floats) -> None:
        """Fill ``predicted`` from ``rows``; both are C-contiguous."""
        n_rows, n_features = rows.shape
        shape = (_FLOAT64, n_rows, n_features, _ROW_MAJOR)
        n_written = c_int64()
        out = predicted.ctypes.data_as(POINTER(c_double))
        trees = (kind, 0, _ALL_TREES)
        _call(
            "LGBM_BoosterPredictForMat",
            *(self.pointer, rows.ctypes.data, *shape, *trees, _PARAMETERS, byref(n_written), out),
        )
        if n_written.value != predicted.size:
            raise LightGBMError(f"expected {predicted.size} predictions, got {n_written.value}")


def library_path() -> Path:
    """Return where the installed LightGBM keeps its C library, without importing the package.

    Raises
    ------
    LightGBMError
        If LightGBM is not installed, or holds no library for this platform.
    """
    spec = importlib.util.find_spec("lightgbm")
    folders: Sequence[str] = (spec.submodule_search_locations if spec else None) or ()
    name = _FILE_NAMES.get(sys.platform, "lib_lightgbm.so")
    for path in (Path(folder) / "lib" / name for folder in folders):
        if path.is_file():
            return path
    raise LightGBMError(f"LightGBM must be installed with its library, found no lightgbm/lib/{name}")


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise LightGBMError(f"{path.name} cannot be loaded (does the system have libgomp1?): {error}") from error
    for name, arguments in _SIGNATURES.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_int
    library.LGBM_GetLastError.restype = c_char_p
    return library


def _call(name: str, *arguments: object) -> None:
    library = _library()
    if getattr(library, name)(*arguments):
        message: bytes | None = library.LGBM_GetLastError()
        raise LightGBMError((message or b"no message").decode(errors="replace"))


def _feature_names(handle: _Handle, n_features: int) -> tuple[str, ...]:
    n_names, n_bytes = c_int(), c_size_t()
    _call("LGBM_BoosterGetFeatureNames", handle.pointer, 0, byref(n_names), 0, byref(n_bytes), None)  # sizes only
    buffers = [ctypes.create_string_buffer(n_bytes.value) for _ in range(n_features)]
    names = (c_char_p * n_features)(*(ctypes.cast(buffer, c_char_p) for buffer in buffers))
    _call(
        "LGBM_BoosterGetFeatureNames",
        *(handle.pointer, n_features, byref(n_names), n_bytes.value, byref(n_bytes), names),
    )
    return tuple(buffer.value.decode() for buffer in buffers)
