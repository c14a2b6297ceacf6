from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import memory as memories
from serving.memory import DecisionMemory, Memory

FORMS = [DecisionMemory, memories.of_capacity]  # in Python, and in C where it was built
every_form = pytest.mark.parametrize("form", FORMS)


@given(marks=st.lists(st.integers(0, 50), max_size=300), capacity=st.integers(2, 40))
@every_form
def test_the_latest_half_is_always_known_and_the_capacity_is_never_passed(
    form: Callable[[int], Memory], marks: list[int], capacity: int
) -> None:
    memory = form(capacity)
    for place, mark in enumerate(marks):
        memory.remember(mark, place)
        assert len(memory) <= capacity
    latest = {mark: place for place, mark in enumerate(marks)}
    recent = list(dict.fromkeys(reversed(marks)))[: capacity // 2]
    assert all(memory.place(mark) == latest[mark] for mark in recent)


@every_form
def test_what_is_asked_for_is_kept(form: Callable[[int], Memory]) -> None:
    memory = form(20)
    memory.remember(1, 100)
    for mark in range(2, 200):
        memory.remember(mark, mark)
        assert memory.place(1) == 100


@every_form
def test_what_was_never_told_is_not_known(form: Callable[[int], Memory]) -> None:
    assert form(2).place(7) is None


@every_form
def test_a_capacity_below_two_is_refused(form: Callable[[int], Memory]) -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        form(1)


@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.integers(0, 2**62 - 1) | st.integers(0, 30), st.integers(0, 2**60)), max_size=200
    ),
    capacity=st.integers(2, 40),
)
def test_both_forms_remember_the_same(steps: list[tuple[bool, int, int]], capacity: int) -> None:
    one, other = (form(capacity) for form in FORMS)
    for asks, mark, place in steps:
        if asks:
            assert one.place(mark) == other.place(mark)
        else:
            one.remember(mark, place)
            other.remember(mark, place)
        assert len(one) == len(other)
