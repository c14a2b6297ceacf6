"""Labelled texts: a table of examples for a classifier, read whole or refused by row, column and value."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from features.config import Classifier
from features.records import Scalar

TEXT, LABEL = "text", "label"
LEAST_PER_CLASS = 4  # three to learn from, which cross-validation divides, and one to be judged on
_SHOWN_CHARACTERS = 60


class LabelsError(ValueError):
    """Labels that nothing should be learned from: names the file, the row, the column and the value."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """n texts with their labels (None: out of scope) and attributes, in the order of their file."""

    texts: Sequence[str]
    labels: Sequence[str | None]
    attributes: Sequence[dict[str, Scalar]]

    def take(self, rows: Sequence[int]) -> "Labelled":
        """Return these rows."""
        return Labelled(
            texts=[self.texts[row] for row in rows],
            labels=[self.labels[row] for row in rows],
            attributes=[self.attributes[row] for row in rows],
        )

    def split(self, holdout_share: float) -> tuple["Labelled", "Labelled"]:
        """Return the earlier and the later part: of each label the last ``holdout_share`` of its rows, one at the least.

        Whole blocks, since neighbours are alike (paraphrases by one writer, events of one hour): a shuffled part would
        promise what a new writer does not keep.
        """
        sizes, seen = Counter(self.labels), Counter[str | None]()
        early: list[int] = []
        late: list[int] = []
        for row, label in enumerate(self.labels):
            n_kept = min(sizes[label] - 1, round(sizes[label] * (1.0 - holdout_share)))
            (early if seen[label] < n_kept else late).append(row)
            seen[label] += 1
        return self.take(early), self.take(late)


def read(path: Path, configured: Classifier) -> Labelled:
    """Return the examples in ``path``.

    Raises
    ------
    LabelsError
        If the file cannot be read, a column is missing, a text or label is none, a text has two labels, or a class has
        fewer than `LEAST_PER_CLASS` rows.
    """
    table = _table(path)
    if missing := [name for name in (TEXT, LABEL, *configured.attributes) if name not in table.column_names]:
        raise LabelsError(f"{path.name}: column {missing[0]!r} is missing, found {', '.join(table.column_names)}")
    texts, labels = (_texts(path.name, name, table[name].to_pylist()) for name in (TEXT, LABEL))
    _refuse_contradictions(path.name, texts, labels)
    columns = {name: table[name].to_pylist() for name in configured.attributes}
    _refuse_structures(path.name, columns)
    known = [None if label == configured.out_of_scope else label for label in labels]
    _refuse_rare(path.name, known)
    attributes = [{name: values[row] for name, values in columns.items()} for row in range(len(texts))]
    return Labelled(texts=texts, labels=known, attributes=attributes)


def _table(path: Path) -> pa.Table:
    try:
        if path.suffix == ".csv":
            # Codes of digits are names: a label or text never becomes a number, and an empty one never a null.
            kept = pyarrow.csv.ConvertOptions(column_types={TEXT: pa.string(), LABEL: pa.string()})
            parse = pyarrow.csv.ParseOptions(newlines_in_values=True)
            return pyarrow.csv.read_csv(path, convert_options=kept, parse_options=parse)
        if path.suffix in (".jsonl", ".ndjson"):
            return pyarrow.json.read_json(path)
        if path.suffix == ".parquet":
            return pyarrow.parquet.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LabelsError(f"{path.name}: cannot be read: {error}") from None
    raise LabelsError(f"{path.name}: the suffix must be one of .csv, .jsonl, .ndjson, .parquet")


def _texts(file: str, column: str, values: Sequence[object]) -> list[str]:
    texts = []
    for row, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise LabelsError(f"{file}: row {row}: {column} must be text, got {_shown(value)}")
        texts.append(value)
    return texts


def _refuse_contradictions(file: str, texts: Sequence[str], labels: Sequence[str]) -> None:
    said: dict[str, str] = {}
    for row, (text, label) in enumerate(zip(texts, labels, strict=True)):
        if (other := said.setdefault(text, label)) != label:
            raise LabelsError(f"{file}: row {row}: {_shown(text)} is labelled {label!r}, and {other!r} before")


def _refuse_structures(file: str, columns: dict[str, list[Any]]) -> None:
    for name, values in columns.items():
        for row, value in enumerate(values):
            if not isinstance(value, str | float | int | bool | None):
                raise LabelsError(f"{file}: row {row}: {name} must be text or a number, got {_shown(value)}")


def _refuse_rare(file: str, labels: Sequence[str | None]) -> None:
    counts = Counter(labels)
    n_classes = len(counts.keys() - {None})
    if n_classes < 2:  # noqa: PLR2004 - there must be something to tell apart
        raise LabelsError(f"{file}: {len(labels)} rows hold {n_classes} class(es), two are the least")
    label, n_rows = min(counts.items(), key=lambda item: item[1])
    if n_rows < LEAST_PER_CLASS:
        raise LabelsError(f"{file}: label {label!r} has {n_rows} row(s), {LEAST_PER_CLASS} are the least")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
