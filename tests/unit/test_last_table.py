from hypothesis import given
from hypothesis import strategies as st

from serving.last_table import MAX_ROUTES, N_REMEMBERED, LastTable

STATIC = ("a", "b", "c")


def test_nothing_is_known_before_anything_was_answered() -> None:
    table = LastTable()
    assert not table.usable
    assert table.order("orders", STATIC) == ()


@given(st.lists(st.sampled_from(STATIC), min_size=1, max_size=3 * N_REMEMBERED))
def test_the_most_frequent_of_the_last_answers_comes_first(firsts: list[str]) -> None:
    table = LastTable(now_seconds=lambda: 0.0)
    for name in firsts:
        table.learn("orders", STATIC, name)
    recent = firsts[-N_REMEMBERED:]
    assert list(table.order("orders", STATIC)) == sorted(set(recent), key=lambda name: (-recent.count(name), name))


def test_one_route_tells_nothing_of_another_and_what_is_old_tells_nothing_at_all() -> None:
    now = 0.0
    table = LastTable(max_age_seconds=60.0, now_seconds=lambda: now)
    table.learn("orders", STATIC, "c")
    assert table.order("orders", ("b", "a")) == table.order("jobs", STATIC) == ()
    now = 60.0
    assert table.order("orders", STATIC) == ("c",)
    now = 60.1
    assert (table.usable, table.order("orders", STATIC)) == (False, ())


def test_routes_are_bounded_and_the_one_not_heard_of_for_longest_goes() -> None:
    table = LastTable()
    for number in range(MAX_ROUTES):
        table.learn(f"s{number}", STATIC, "b")
    table.learn("s0", STATIC, "b")
    table.learn("one more", STATIC, "b")
    assert table.order("s0", STATIC) == ("b",)
    assert table.order("s1", STATIC) == ()
