"""Open Inference Protocol v2: what the current router says of a matrix, or what is wrong with it and where."""

import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from features import config
from models.router import Scores
from serving import inference
from serving.inference import InferenceRequest
from serving.plan import Plan
from serving.problems import Problem
from serving.view import Model

PLAN = Plan.of(
    config.parse("""
[streams.orders]
types = ["shop.order"]
destinations = ["a", "b"]
static = { default = ["a"] }
objective = { success = 1.0 }
[streams.orders.features]
numbers = { weight = "event.weight", depth = "state.queue_depth" }
categories = { destination = "destination.name" }

[destinations]
a = {}
b = {}
""")
).streams["orders"]


class Adding:
    """Adds up what it is given; a missing value is a hundred, the destination b a thousand."""

    feature_set = PLAN.features.version

    def score(self, numbers: NDArray[np.float64], categories: Sequence[Sequence[str | None]]) -> Scores:
        value = np.where(np.isnan(numbers), 100.0, numbers).sum(axis=1)
        value += [1_000.0 * (row[0] == "b") for row in categories]
        return Scores(value, {"success_probability": np.full(len(value), math.nan)})


MODEL = Model("c0ffee", Adding())


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


NUMBERS = tensor("numbers", "FP64", [2, 2], [1, 2.5, None, 4])
CATEGORIES = tensor("categories", "BYTES", [2, 1], ["a", "b"])


def infer(*inputs: dict[str, Any], **fields: Any) -> dict[str, Any]:
    request = msgspec.convert({"inputs": list(inputs), **fields}, InferenceRequest)
    return dict(msgspec.json.decode(msgspec.json.encode(inference.infer(request, PLAN, MODEL))))


def test_a_matrix_is_scored_flat_or_nested_and_null_is_missing() -> None:
    told = infer(NUMBERS, CATEGORIES, id="q1")
    assert (told["model_name"], told["model_version"], told["id"]) == ("orders", "c0ffee", "q1")
    value, heads = told["outputs"]
    assert (value["name"], value["shape"], value["data"]) == ("value", [2], [3.5, 1104.0])
    assert heads["data"] == [None, None], "what is no number cannot stand in JSON"
    nested = tensor("numbers", "FP64", [2, 2], [[1, 2.5], [None, 4]])
    assert infer(CATEGORIES, nested)["outputs"] == told["outputs"]


def test_only_the_outputs_that_are_asked_for_are_told() -> None:
    told = infer(NUMBERS, CATEGORIES, outputs=[{"name": "success_probability"}])
    assert [output["name"] for output in told["outputs"]] == ["success_probability"]


@pytest.mark.parametrize(
    ("inputs", "where"),
    [
        ([], "$.inputs"),
        ([NUMBERS], "$.inputs"),
        ([NUMBERS, NUMBERS, CATEGORIES], "$.inputs"),
        ([NUMBERS, CATEGORIES, tensor("more", "FP64", [1], [1])], "$.inputs"),
        ([NUMBERS, CATEGORIES | {"datatype": "FP32"}], "$.inputs[1].datatype"),
        ([NUMBERS | {"shape": [2, 3]}, CATEGORIES], "$.inputs[0].shape"),
        ([NUMBERS | {"shape": [0, 2]}, CATEGORIES], "$.inputs[0].shape"),
        ([NUMBERS | {"shape": [4]}, CATEGORIES], "$.inputs[0].shape"),
        ([NUMBERS | {"shape": [4_097, 2]}, CATEGORIES], "$.inputs[0].shape"),
        ([NUMBERS | {"data": [1, 2, 3]}, CATEGORIES], "$.inputs[0].data"),
        ([NUMBERS | {"data": [1, 2, 3, "4"]}, CATEGORIES], "$.inputs[0].data[3]"),
        ([NUMBERS | {"data": [1, 2, 3, True]}, CATEGORIES], "$.inputs[0].data[3]"),
        ([NUMBERS | {"data": [1, 2, 3, 10**400]}, CATEGORIES], "$.inputs[0].data[3]"),
        ([NUMBERS, CATEGORIES | {"data": ["a", 1]}], "$.inputs[1].data[1]"),
        ([NUMBERS, CATEGORIES | {"shape": [1, 1], "data": ["a"]}], "$.inputs"),
    ],
)
def test_s04_what_is_not_as_the_metadata_say_is_refused_by_its_place(inputs: list[dict[str, Any]], where: str) -> None:
    with pytest.raises(Problem) as refused:
        infer(*inputs)
    assert (refused.value.status, refused.value.path) == (422, where)


def test_the_metadata_name_the_columns_in_the_order_they_are_read() -> None:
    told = inference.metadata(PLAN, MODEL)
    assert told.versions == ("c0ffee",)
    assert [(of.name, of.columns) for of in told.inputs] == [
        ("numbers", ("weight", "depth")),
        ("categories", ("destination",)),
    ]
