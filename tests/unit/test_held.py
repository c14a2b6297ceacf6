"""What waits to be written, in Python and in C: the same lines at the same places, whatever is done to them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import held
from serving.held import Held, HeldLines

steps = st.one_of(
    st.tuples(st.just("append"), st.binary(min_size=1, max_size=30)),
    st.tuples(st.just("cut"), st.integers(0, 6)),
    st.tuples(st.just("settle"), st.integers(0, 1 << 50), st.integers(-5, 1 << 40)),
)


def show(lines: Held) -> tuple[Any, ...]:
    items = lines.items()
    read = [lines.read(place) for place, _ in items]
    return len(lines), lines.n_bytes(), lines.room(), lines.first(), items, read, lines.joined()


@given(done=st.lists(steps, max_size=30), asked=st.lists(st.integers(0, 200), max_size=5))
def test_both_forms_hold_the_same(done: list[tuple[Any, ...]], asked: list[int]) -> None:
    forms = (HeldLines(), held.none_yet())
    for what, *arguments in done:
        told = [getattr(lines, what)(*arguments) for lines in forms]
        assert told[0] == told[1]
        assert show(forms[0]) == show(forms[1])
        places = [forms[0].first() + offset for offset in asked]
        assert [forms[0].read(place) for place in places] == [forms[1].read(place) for place in places]


@pytest.mark.parametrize("make", [HeldLines, held.none_yet])
def test_lines_keep_their_places_until_they_are_cut(make: Any) -> None:
    lines = make()
    lines.settle(700, 100)
    assert [lines.append(line) for line in (b"one\n", b"three\n")] == [700, 704]
    lines.settle(5, 50)
    assert (lines.first(), lines.room(), lines.read(704), lines.read(701)) == (700, 50, b"three\n", None)
    lines.cut(1)
    assert lines.append(b"two\n") == 704
    assert lines.joined() == b"one\ntwo\n"
    lines.cut(0)
    lines.settle(5, 50)
    assert lines.append(b"four\n") == 5
