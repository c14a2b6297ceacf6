import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from features.vector import CategoryColumn
from models.encoding import Encoder

VALUES = ("a", "b", "unseen")
ORDERS = {"colour": ("a", "b"), "shape": ("b",)}
row = st.lists(st.sampled_from([*VALUES, None]), min_size=2, max_size=2)


@given(st.lists(row, min_size=1, max_size=20))
def test_a_log_is_encoded_as_its_rows_are(rows: list[list[str | None]]) -> None:
    numbers = np.arange(len(rows))[:, None] / 3.0  # of no shorter type
    columns = [
        CategoryColumn(np.array([-1 if r[c] is None else VALUES.index(r[c]) for r in rows]), VALUES) for c in range(2)
    ]
    encoder = Encoder(ORDERS)
    for _ in range(2):  # found, and as it was kept
        np.testing.assert_array_equal(encoder.rows(numbers, rows), encoder.columns(numbers, columns))


@given(
    rows=st.lists(st.integers(0, 6), max_size=9), first=st.integers(0, 9), last=st.integers(0, 9), some=st.booleans()
)
def test_rows_that_are_asked_for_are_those_of_the_whole_matrix(
    *, rows: list[int], first: int, last: int, some: bool
) -> None:
    numbers = np.arange(14.0).reshape(7, 2)
    colour = CategoryColumn(np.array([-1, 0, 1, 2, 2, 1, 0]), VALUES)
    encoder, kept = Encoder({"colour": ("a", "b")}), np.array(rows, np.int64)
    whole = encoder.columns(numbers, [colour])[kept] if some else encoder.columns(numbers, [colour])
    asked = encoder.over(numbers, [colour], kept if some else None)
    assert (len(asked), asked.n_features) == whole.shape
    backwards = np.arange(len(asked))[::-1]
    for at in (slice(first, last), slice(None, None, 2), backwards):
        np.testing.assert_array_equal(asked.take(at), whole[at])
        for place in range(3):
            np.testing.assert_array_equal(asked.column(place, at), whole[at, place])


def test_an_unknown_category_and_a_missing_one_are_both_missing() -> None:
    matrix = Encoder(ORDERS).rows(np.zeros((2, 1)), [["unseen", "b"], [None, "a"]])
    np.testing.assert_array_equal(matrix, [[0.0, np.nan, 0.0], [0.0, np.nan, np.nan]])


def test_the_inputs_are_not_mutated() -> None:
    numbers = np.ones((1, 1))
    Encoder(ORDERS).rows(numbers, [["a", "b"]])[:] = 7.0
    assert numbers[0, 0] == 1.0


def test_no_text_is_kept_that_is_not_in_the_order() -> None:
    encoder, text = Encoder(ORDERS), "unseen" * 1_000
    before = sys.getrefcount(text)
    encoder.rows(np.zeros((1, 1)), [[text, "b"]])
    assert sys.getrefcount(text) == before


def test_more_kinds_of_events_than_are_kept_are_encoded_all_the_same() -> None:
    names = tuple(map(str, range(300)))
    encoder = Encoder({"name": names})
    for name in (*names, *names):
        assert encoder.rows(np.zeros((1, 0)), [[name]]).tolist() == [[float(name)]]
