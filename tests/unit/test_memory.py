import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.memory import DecisionMemory


@given(marks=st.lists(st.integers(0, 50), max_size=300), capacity=st.integers(2, 40))
def test_the_latest_half_is_always_known_and_the_capacity_is_never_passed(marks: list[int], capacity: int) -> None:
    memory = DecisionMemory(capacity)
    for place, mark in enumerate(marks):
        memory.remember(mark, place)
        assert len(memory) <= capacity
    latest = {mark: place for place, mark in enumerate(marks)}
    recent = list(dict.fromkeys(reversed(marks)))[: capacity // 2]
    assert all(memory.place(mark) == latest[mark] for mark in recent)


def test_what_is_asked_for_is_kept() -> None:
    memory = DecisionMemory(20)
    memory.remember(1, 100)
    for mark in range(2, 200):
        memory.remember(mark, mark)
        assert memory.place(1) == 100


def test_what_was_never_told_is_not_known() -> None:
    assert DecisionMemory(2).place(7) is None


def test_a_capacity_below_two_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2, got 1"):
        DecisionMemory(1)
