"""The ``MLmodel`` file from which MLflow's pages read a bundle's signature and input example."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Kind = Literal["number", "category"]

FILE = "MLmodel"
EXAMPLE_FILE = "input_example.json"

_MLFLOW_TYPES: Mapping[Kind, str] = {"number": "double", "category": "string"}


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a model reads and what it answers, column by column, with one row as an example (None is missing)."""

    inputs: Mapping[str, Kind]
    outputs: Mapping[str, Kind]
    example: Mapping[str, float | str | None] | None = None

    def __post_init__(self) -> None:
        """Refuse an example of other columns."""
        if self.example is not None and set(self.example) != set(self.inputs):
            strangers = sorted(set(self.example) ^ set(self.inputs))
            raise ValueError(f"the example must have exactly the input columns, differing in {strangers}")


def write(folder: Path, *, run_id: str, bundle: str, interface: Interface | None) -> None:
    """Write ``MLmodel``, and the example beside it, into ``folder`` for a bundle in its subfolder ``bundle``.

    The flavor is Turnout's own: there is nothing in it that MLflow could load, and so nothing that it would unpickle.
    """
    model: dict[str, Any] = {"artifact_path": ".", "run_id": run_id, "flavors": {"turnout": {"bundle": bundle}}}
    if interface is not None:
        model["signature"] = {
            "inputs": _schema(interface.inputs),
            "outputs": _schema(interface.outputs),
            "params": None,
        }
    if interface is not None and interface.example is not None:
        columns = list(interface.inputs)
        example = {"columns": columns, "data": [[interface.example[column] for column in columns]]}
        _write_json(folder / EXAMPLE_FILE, example)
        model["saved_input_example_info"] = {
            "artifact_path": EXAMPLE_FILE,
            "type": "dataframe",
            "pandas_orient": "split",
        }
    _write_json(folder / FILE, model)  # MLflow reads YAML, and JSON is YAML


def _schema(columns: Mapping[str, Kind]) -> str:
    """Return MLflow's schema: JSON in a string; any column may be missing."""
    return json.dumps(
        [{"type": _MLFLOW_TYPES[kind], "name": name, "required": False} for name, kind in columns.items()]
    )


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, allow_nan=False), encoding="utf-8")
