import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models import engine
from models.engine import Engine, NumpyMasks
from models.leaf_masks import LeafMasks, TableError
from models.router import Boosters, Router
from models.trees import Forest, Link, Split, Tree, UnsupportedModelError, parse

Floats = NDArray[np.float64]
NAN, INF = np.nan, np.inf


def number(threshold: float, *, leaves: tuple[int, int, int] = (0, 1, 2), **fields: Any) -> Split:
    return Split(feature=0, leaves=leaves, threshold=threshold, **fields)


def stump(split: Split) -> Forest:
    """A tree that says 1 on the left and 2 on the right."""
    return Forest(n_features=2, trees=(Tree(values=(1.0, 2.0), splits=(split,)),))


def forms(tables: LeafMasks) -> list[Any]:
    return [NumpyMasks(tables), *([engine.compile_tables(tables)] if engine.is_compiled() else [])]


def score(forest: Forest, *cells: float) -> list[float]:
    """Score rows of these first cells, in every form that is to be had."""
    rows = np.zeros((len(cells), forest.n_features))
    rows[:, 0] = cells
    said = []
    for form in forms(LeafMasks.build(forest)):
        said.append(np.empty(len(rows)))
        form.score(rows, said[-1], False)
    assert all(np.array_equal(each, said[0]) for each in said)
    return [float(value) for value in said[0]]


def test_a_number_goes_left_up_to_its_threshold() -> None:
    above = float(np.nextafter(0.5, 1.0))
    assert score(stump(number(0.5)), 0.5, above, -INF, INF, 0.0, -3.0) == [1.0, 2.0, 1.0, 2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("missing", "default_left", "at_nan", "at_zero"),
    [
        ("none", True, 2.0, 2.0),  # read as 0, which is above -1
        ("nan", True, 1.0, 2.0),
        ("nan", False, 2.0, 2.0),
        ("zero", True, 1.0, 1.0),
        ("zero", False, 2.0, 2.0),
    ],
)
def test_what_is_missing_goes_where_the_split_sends_it(
    missing: str,
    default_left: bool,  # noqa: FBT001 - a parameter of the table above
    at_nan: float,
    at_zero: float,
) -> None:
    split = number(-1.0, missing=missing, default_left=default_left)
    assert score(stump(split), NAN, 0.0, -0.0, 1e-36, -1e-35) == [at_nan, *[at_zero] * 4]
    assert score(stump(split), -2.0, 2.0, 1.1e-35) == [1.0, 2.0, 2.0]


def test_a_category_is_truncated_and_what_no_split_knows_goes_right() -> None:
    split = Split(feature=0, leaves=(0, 1, 2), categories=frozenset({0, 2, 40}))
    assert score(stump(split), 0, 2, 40, 2.9, -0.9, 1e-36) == [1.0] * 6
    assert score(stump(split), 1, 3, 41, -1, -2, NAN, INF, -INF, 3e9, 2**40, -3e9) == [2.0] * 11


def test_leaves_are_added_in_the_order_of_the_trees() -> None:
    trees = tuple(Tree(values=(value,)) for value in (1e16, 1.0, 1.0, -1e16))
    assert score(Forest(n_features=1, trees=trees), 0.0) == [0.0]
    assert score(Forest(n_features=1, trees=trees[::-1]), 0.0) == [0.0]
    assert score(Forest(n_features=1, trees=(trees[0], trees[3], trees[1])), 0.0) == [1.0]


def test_a_sum_begins_with_zero() -> None:
    (said,) = score(Forest(n_features=1, trees=(Tree(values=(-0.0,)),)), 0.0)
    assert np.copysign(1.0, said) == 1.0


def test_the_deepest_tree_of_64_leaves_finds_each_of_them() -> None:
    splits = tuple(number(float(leaf), leaves=(leaf, leaf + 1, 64)) for leaf in range(63))
    forest = Forest(n_features=1, trees=(Tree(values=tuple(map(float, range(64))), splits=splits),))
    assert score(forest, *(leaf - 0.5 for leaf in range(64))) == list(range(64))


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (Link(), -3.0),
        (Link(divisor=2.0), -1.5),
        (Link(name="sigmoid", parameter=2.0), 1.0 / (1.0 + np.exp(6.0))),
        (Link(name="exponential"), np.exp(-3.0)),
        (Link(name="square"), -9.0),
        (Link(name="softplus"), np.log1p(np.exp(-3.0))),
    ],
)
def test_the_link_is_applied(link: Link, expected: float) -> None:
    forest = Forest(n_features=1, trees=(Tree(values=(-3.0,)),), link=link)
    assert score(forest, 0.0) == pytest.approx([expected], rel=1e-15)


def test_an_exponential_beyond_all_floats_is_infinite() -> None:
    forest = Forest(n_features=1, trees=(Tree(values=(1e4,)),), link=Link(name="exponential"))
    assert score(forest, 0.0) == [INF]


@pytest.mark.parametrize(
    ("forest", "words"),
    [
        (Forest(n_features=1, trees=(Tree(values=(0.0,) * 65),)), "1 to 64 leaves, got 65"),
        (Forest(n_features=1, trees=()), "1 to 64 leaves, got 0"),
        (
            Forest(
                n_features=1,
                trees=tuple(stump(number(1.0)).trees)
                + tuple(stump(Split(feature=0, leaves=(0, 1, 2), categories=frozenset({1}))).trees),
            ),
            "feature 0 is split on as a number and as a category",
        ),
        (stump(Split(feature=0, leaves=(0, 1, 2), categories=frozenset({10**9}))), "category 1000000000, which is too"),
        (
            Forest(n_features=1, trees=tuple(stump(number(float(n))).trees[0] for n in range(4_200))),
            "at most 67108864 bytes, got",
        ),
    ],
)
def test_what_the_tables_cannot_hold_is_refused_by_name(forest: Forest, words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        LeafMasks.build(forest)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda text: text.replace("num_class=1", "num_class=3"), "num_class must be 1, got 3"),
        (lambda text: text.replace("iteration=1", "iteration=2"), "num_tree_per_iteration must be 1, got 2"),
        (lambda text: text.replace("is_linear=0", "is_linear=1"), "linear leaves"),
        (lambda text: text.replace("=regression", "=lottery"), "objective 'lottery' is not known"),
        (lambda text: text.replace("=regression", "=regression cubic"), "option 'cubic', which is not known"),
    ],
)
def test_a_text_that_only_lightgbm_can_score_is_refused_by_name(edit: Callable[[str], str], words: str) -> None:
    with pytest.raises(UnsupportedModelError, match=words):
        parse(edit(TEXT))


TEXT = """tree
version=v4
num_class=1
num_tree_per_iteration=1
max_feature_idx=1
objective=regression
feature_names=a b

Tree=0
num_leaves=3
num_cat=1
split_feature=0 1
threshold=0 1.5
decision_type=1 10
left_child=-1 -2
right_child=1 -3
leaf_value=0.25 0.5 0.75
cat_boundaries=0 2
cat_threshold=2 1
is_linear=0
shrinkage=1


end of trees
"""


def test_a_text_is_read_split_by_split() -> None:
    (tree,) = parse(TEXT).trees
    assert tree.values == (0.25, 0.5, 0.75)
    assert sorted(tree.splits, key=lambda split: split.feature) == [
        Split(feature=0, leaves=(0, 1, 3), categories=frozenset({1, 32})),
        Split(feature=1, leaves=(1, 2, 3), threshold=1.5, missing="nan", default_left=True),
    ]


@pytest.fixture
def tables() -> LeafMasks:
    return LeafMasks.build(parse(TEXT))


def test_a_file_gives_the_same_tables_and_the_same_bytes(tables: LeafMasks, tmp_path: Path) -> None:
    tables.write(tmp_path / "a.masks")
    read = LeafMasks.read(tmp_path / "a.masks")
    for field in dataclasses.fields(LeafMasks):
        ours, theirs = getattr(tables, field.name), getattr(read, field.name)
        assert np.array_equal(ours, theirs, equal_nan=True) if isinstance(ours, np.ndarray) else ours == theirs
    read.write(tmp_path / "b.masks")
    assert (tmp_path / "a.masks").read_bytes() == (tmp_path / "b.masks").read_bytes()


@pytest.mark.parametrize("cut", [0, 10, 100, -1, -64])
def test_a_file_that_is_cut_is_refused(tables: LeafMasks, tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.masks"
    tables.write(path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TableError, match=r"a\.masks"):
        LeafMasks.read(path)


def test_a_file_that_is_too_long_is_refused(tables: LeafMasks, tmp_path: Path) -> None:
    path = tmp_path / "a.masks"
    tables.write(path)
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(TableError, match=r"expected \d+ bytes, found"):
        LeafMasks.read(path)


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        (0, 0, 2),  # a feature that is not there
        (0, 0, -1),
        (0, 1, 2),  # a kind that is none
        (0, 2, 1),  # categories, or thresholds, that are not there
        (1, 2, -1),
        (0, 3, 34),
        (1, 3, 0),
        (1, 3, 2),
        (0, 4, 10**6),  # rows that are not there
        (1, 4, -1),
        (1, 4, 2**62),
    ],
)
def test_a_column_that_leads_outside_of_the_tables_is_refused(
    tables: LeafMasks, row: int, field: int, value: int
) -> None:
    columns = tables.columns.copy()
    columns[row, field] = value
    edited = dataclasses.replace(tables, columns=columns)
    with pytest.raises(TableError, match=f"column {row} leads outside of the tables"):
        edited.check()
    if engine.is_compiled():
        with pytest.raises(ValueError, match=f"column {row} leads outside of the tables"):
            engine.compile_tables(edited)


@pytest.mark.parametrize(
    ("name", "edit", "words"),
    [
        ("lookup", lambda array: array + 100, "column 0 leads outside"),
        ("lookup", lambda array: array - 1, "column 0 leads outside"),
        ("thresholds", lambda array: array * np.nan, "column 1 leads outside"),
        ("values", lambda array: array * np.nan, "a first leaf in every tree"),
        ("values", lambda array: array[:-1], "features and trees by 16"),
        ("masks", lambda array: array[:-1], "column 1 leads outside"),
    ],
)
def test_arrays_that_lead_astray_are_refused(
    tables: LeafMasks, name: str, edit: Callable[[Floats], Floats], words: str
) -> None:
    edited = dataclasses.replace(tables, **{name: edit(getattr(tables, name))})
    with pytest.raises(TableError, match=words):
        edited.check()


@pytest.mark.skipif(not engine.is_compiled(), reason="no compiler at the installation")
def test_the_c_form_refuses_arrays_of_other_sizes_itself(tables: LeafMasks) -> None:
    for edited, words in (
        ({"values": tables.values[:-1]}, "16|size|unusable"),
        ({"masks": tables.masks.ravel()[:-1]}, "not of the size"),
        ({"values": np.zeros(3)}, "unusable"),
    ):
        with pytest.raises(ValueError, match=words):
            engine.compile_tables(dataclasses.replace(tables, **edited))
    scorer: Any = engine.compile_tables(tables)
    with pytest.raises(ValueError, match="rows of 2 features take"):
        scorer.score(np.zeros((3, 3)), np.empty(3), True)
    with pytest.raises(TypeError, match="made once"):
        scorer.__init__(2, 16, 32, 0, 1.0, 1.0, *[tables.values] * 5)


def test_masks_that_leave_no_leaf_give_no_number_and_read_nothing_else(tables: LeafMasks) -> None:
    empty = dataclasses.replace(tables, masks=np.zeros_like(tables.masks))
    for form in forms(empty):
        said = np.zeros(1)
        form.score(np.zeros((1, 2)), said, True)
        assert np.isnan(said[0])


def test_another_shape_is_refused_with_both_shapes_named(tables: LeafMasks, tmp_path: Path) -> None:
    tables.write(tmp_path / "model.masks")
    loaded = Engine.load(tmp_path / "model.txt")
    with pytest.raises(ValueError, match=r"shape \(n, 2\), got \(3, 1\)"):
        loaded.predict(np.zeros((3, 1)))


def test_without_the_c_form_numpy_scores(tables: LeafMasks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.write(tmp_path / "model.masks")
    monkeypatch.setattr(engine, "_masks", None)
    loaded = Engine.load(tmp_path / "model.txt")
    assert loaded.form == "numpy"
    assert loaded.predict([[1.0, 0.0], [5.0, 2.0], [5.0, 1.0]]).tolist() == [0.25, 0.75, 0.5]
    with pytest.raises(RuntimeError, match="was not built"):
        engine.compile_tables(tables)


def test_a_router_tells_the_slowest_form_that_it_scores_with() -> None:
    class Named:
        def __init__(self, form: str) -> None:
            self.form = form

    def told(pooled: str, own: str) -> str:
        router = Router.__new__(Router)
        router.boosters = {"cost_usd": Boosters(pooled=[Named(pooled)], own={0: [Named(own)]})}  # type: ignore[list-item]
        return router.engine

    assert (told("c", "c"), told("c", "numpy"), told("booster", "c")) == ("c", "numpy", "booster")


def test_a_column_that_begins_to_differ_between_rows_voids_what_was_remembered() -> None:
    of_second = Split(feature=1, leaves=(0, 1, 2), threshold=-1.0)
    trees = (*stump(number(0.5)).trees, Tree(values=(10.0, 20.0), splits=(of_second,)))
    tables, random = LeafMasks.build(Forest(n_features=2, trees=trees)), np.random.default_rng(0)
    for _ in range(60):  # the stale would be taken for the new only where their hashes meet
        rows = np.stack((random.normal(size=32), np.full(32, -2.0)), axis=1)
        for form in forms(tables):
            for second in (np.full(32, -2.0), np.where(np.arange(32) < 31, 0.0, -2.0)):
                rows[:, 1] = second
                said = np.empty(32)
                form.score(rows, said, True)
                expected = np.where(rows[:, 0] <= 0.5, 1.0, 2.0) + np.where(second <= -1.0, 10.0, 20.0)
                assert np.array_equal(said, expected)
