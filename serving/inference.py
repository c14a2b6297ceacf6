"""Open Inference Protocol v2: the current router of a stream scores a matrix of features; nothing is decided, nothing logged.

The model's name is the stream's. Inputs are ``numbers`` (FP64, one row per candidate) and, where the stream has
categories, ``categories`` (BYTES); columns stand in the order that the model's metadata gives, and null is a missing value.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from serving.plan import StreamPlan
from serving.problems import Problem
from serving.view import Model

Floats = NDArray[np.float64]

MAX_ROWS = 4_096
NUMBERS = "numbers"
CATEGORIES = "categories"


class Tensor(Struct, kw_only=True, omit_defaults=True):
    """A tensor: ``data`` flat in row-major order, or nested as ``shape`` says."""

    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any]
    parameters: dict[str, Any] = {}


class TensorMetadata(Struct, kw_only=True, omit_defaults=True):
    """What an input or output looks like; -1 stands for any number of rows. ``columns`` are its columns' names."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    columns: tuple[str, ...] = ()


class RequestedOutput(Struct, kw_only=True):
    """An output that the caller wants."""

    name: str


class InferenceRequest(Struct, kw_only=True):
    """What is to be scored; without ``outputs`` everything is told."""

    inputs: list[Tensor]
    id: str = ""
    outputs: list[RequestedOutput] | None = None
    parameters: dict[str, Any] = {}


class InferenceResponse(Struct, kw_only=True, omit_defaults=True):
    """The router's ``value`` per row, in units of the reward, and what each of its heads said."""

    model_name: str
    model_version: str
    outputs: list[Tensor]
    id: str = ""


class ServerMetadata(Struct, kw_only=True):
    """The server as the protocol describes it."""

    name: str
    version: str
    extensions: tuple[str, ...] = ()


class ModelMetadata(Struct, kw_only=True):
    """The current router of a stream as the protocol describes it; its version is its digest."""

    name: str
    versions: tuple[str, ...]
    platform: Literal["turnout_lightgbm"]
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


def metadata(plan: StreamPlan, model: Model) -> ModelMetadata:
    """Return how the router of a stream is to be asked."""
    numbers, categories = plan.features.number_names, plan.features.category_names
    inputs = [TensorMetadata(name=NUMBERS, datatype="FP64", shape=(-1, len(numbers)), columns=numbers)]
    if categories:
        shape = (-1, len(categories))
        inputs.append(TensorMetadata(name=CATEGORIES, datatype="BYTES", shape=shape, columns=categories))
    outputs = (TensorMetadata(name="value", datatype="FP64", shape=(-1,)),)
    return ModelMetadata(
        name=plan.name, versions=(model.digest,), platform="turnout_lightgbm", inputs=tuple(inputs), outputs=outputs
    )


def infer(request: InferenceRequest, plan: StreamPlan, model: Model) -> InferenceResponse:
    """Return the scores of a request.

    Raises
    ------
    Problem
        422 naming the input that is not as the metadata say.
    """
    tensors = {tensor.name: tensor for tensor in request.inputs}
    if len(tensors) != len(request.inputs):
        raise Problem(422, "two inputs have one name", "$.inputs")
    if unknown := tensors.keys() - {NUMBERS, CATEGORIES}:
        raise Problem(422, f"inputs are {NUMBERS!r} and {CATEGORIES!r}, got {min(unknown)!r}", "$.inputs")
    rows = _rows(request, tensors, NUMBERS, "FP64", len(plan.features.number_names))
    labels = _rows(request, tensors, CATEGORIES, "BYTES", len(plan.features.category_names))
    n_rows = max(len(rows), len(labels))
    rows, labels = rows or [[]] * n_rows, labels or [[]] * n_rows
    if len(rows) != len(labels):
        raise Problem(422, f"inputs must have equally many rows, got {len(rows)} and {len(labels)}", "$.inputs")
    matrix = np.array([[math.nan if cell is None else cell for cell in row] for row in rows], dtype=np.float64)
    scores = model.router.score(matrix.reshape(n_rows, -1), labels)
    told = {"value": scores.value, **scores.heads}
    wanted = [output.name for output in request.outputs] if request.outputs else list(told)
    if absent := [name for name in wanted if name not in told]:
        raise Problem(422, f"outputs are {', '.join(told)}, got {absent[0]!r}", "$.outputs")
    outputs = [_output(name, told[name]) for name in dict.fromkeys(wanted)]
    return InferenceResponse(model_name=plan.name, model_version=model.digest, outputs=outputs, id=request.id)


def _output(name: str, values: Floats) -> Tensor:
    data = [value if math.isfinite(value) else None for value in values.tolist()]
    return Tensor(name=name, shape=(len(values),), datatype="FP64", data=data)


def _rows(
    request: InferenceRequest, tensors: dict[str, Tensor], name: str, datatype: str, n_columns: int
) -> list[list[Any]]:
    """Return the rows of an input, checked; none where the stream has no such columns."""
    tensor = tensors.get(name)
    if tensor is None:
        if n_columns:
            raise Problem(422, f"the input {name!r} is missing", "$.inputs")
        return []
    place = f"$.inputs[{request.inputs.index(tensor)}]"
    if tensor.datatype != datatype:
        raise Problem(422, f"datatype must be {datatype!r}, got {tensor.datatype!r}", f"{place}.datatype")
    if len(tensor.shape) != 2 or not 1 <= tensor.shape[0] <= MAX_ROWS or tensor.shape[1] != n_columns:  # noqa: PLR2004 - a matrix
        rule = f"shape must be [1 to {MAX_ROWS}, {n_columns}], got {list(tensor.shape)}"
        raise Problem(422, rule, f"{place}.shape")
    cells = _flatten(tensor.data)
    n_rows = tensor.shape[0]
    if len(cells) != n_rows * n_columns:
        raise Problem(422, f"data must hold {n_rows * n_columns} values, got {len(cells)}", f"{place}.data")
    _check_cells(cells, datatype, f"{place}.data")
    return [cells[at : at + n_columns] for at in range(0, len(cells), n_columns)] if n_columns else []


def _flatten(data: Sequence[Any]) -> list[Any]:
    return [cell for item in data for cell in (item if isinstance(item, list) else (item,))]


def _check_cells(cells: Sequence[Any], datatype: str, place: str) -> None:
    for number, cell in enumerate(cells):
        if cell is None:
            continue
        wrong = (
            not isinstance(cell, str)
            if datatype == "BYTES"
            else isinstance(cell, bool) or not isinstance(cell, int | float)
        )
        if wrong:
            raise Problem(422, f"expected {datatype}, got {type(cell).__name__}", f"{place}[{number}]")
        if isinstance(cell, int) and abs(cell) > 2**1023:
            raise Problem(422, "the value is beyond a 64-bit float", f"{place}[{number}]")


REQUESTS = msgspec.json.Decoder(InferenceRequest)
