"""Labelled texts are read whole or refused by file, row, column and value."""

import json
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features import labels
from features.config import Classifier
from features.labels import Labelled, LabelsError

CONFIGURED = Classifier(labels="l", out_of_scope="oos", attributes=("region",))
ROWS = [
    {"text": f"{verb} {number}", "label": label, "region": region}
    for label, verb, region in (("1", "pay", "eu"), ("2", "book", None), ("oos", "sing", "us"))
    for number in range(4)
]


def write(folder: Path, suffix: str, rows: Sequence[dict[str, object]]) -> Path:
    path = folder / f"labels{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    elif suffix == ".csv":
        lines = [",".join(rows[0]), *(",".join("" if v is None else str(v) for v in row.values()) for row in rows)]
        path.write_text("\n".join(lines))
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_every_form_gives_the_same_examples(tmp_path: Path, suffix: str) -> None:
    read = labels.read(write(tmp_path, suffix, ROWS), CONFIGURED)
    assert read.texts == [row["text"] for row in ROWS]
    assert read.labels == ["1"] * 4 + ["2"] * 4 + [None] * 4
    assert [facts["region"] or None for facts in read.attributes] == [row["region"] for row in ROWS]


def changed(row: int, **values: object) -> list[dict[str, object]]:
    return [*ROWS[:row], {**ROWS[row], **values}, *ROWS[row + 1 :]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "a", "region": "eu"}], r"labels\.jsonl: column 'label' is missing, found text, region"),
        ([{"text": "a", "label": "b"}], r"labels\.jsonl: column 'region' is missing"),
        (changed(2, text=None), "row 2: text must be text, got None"),
        (changed(2, text="  "), "row 2: text must be text, got '  '"),
        (changed(5, label=None), "row 5: label must be text, got None"),
        ([{"text": 7, "label": "a", "region": "eu"}], "row 0: text must be text, got 7"),
        (changed(6, text="pay 0"), "row 6: 'pay 0' is labelled '2', and '1' before"),
        (changed(0, region=["eu"])[:1], r"row 0: region must be text or a number, got \['eu'\]"),
        (ROWS[:4] + ROWS[8:], r"8 rows hold 1 class\(es\), two are the least"),
        (ROWS[1:], r"label '1' has 3 row\(s\), 4 are the least"),
        (ROWS[:-1], r"label None has 3 row\(s\)"),
    ],
)
def test_what_cannot_be_learned_from_is_refused_by_name(
    tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    with pytest.raises(LabelsError, match=message):
        labels.read(write(tmp_path, ".jsonl", rows), CONFIGURED)


@pytest.mark.parametrize(
    ("name", "data"), [("a.csv", b""), ("a.parquet", b"PAR1"), ("a.jsonl", b"{"), ("absent.csv", None), ("a.txt", b"a")]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(LabelsError, match=f"^{name}: "):
        labels.read(tmp_path / name, CONFIGURED)


# Four of a label at the least, as `labels.read` promises; drawn as such, since a filter would throw most lists away.
LABELS = st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.lists(st.sampled_from(names), max_size=48).flatmap(
        lambda more: st.permutations([*names, *names, *names, *names, *more])
    )
)


@given(LABELS, st.floats(0.01, 0.99))
def test_of_each_label_the_last_rows_are_held_out(drawn: list[str | None], share: float) -> None:
    rows = Labelled(texts=[str(row) for row in range(len(drawn))], labels=drawn, attributes=[{} for _ in drawn])
    early, late = rows.split(share)
    assert sorted([*early.texts, *late.texts], key=int) == rows.texts
    for label in set(drawn):
        first, last = (
            [int(text) for text, of in zip(part.texts, part.labels, strict=True) if of == label]
            for part in (early, late)
        )
        assert last
        assert not first or max(first) < min(last)
