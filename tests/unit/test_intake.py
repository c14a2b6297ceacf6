"""No object that says one thing twice passes for one that does not, in whichever form the check was built."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import intake

try:
    from serving import _keys
except ImportError:
    FORMS: list[Callable[[bytes], bool]] = [intake.may_repeat_a_key]
else:
    FORMS = [intake.may_repeat_a_key, _keys.may_repeat]

TEXT = st.sampled_from(["a", "b", "c", "ab", "", "}", "{", "[", ":", "æ"] * 4 + ['a":"', "\\", "\x00"])  # few escapes
SCALAR = st.none() | st.booleans() | st.integers(-9, 9) | TEXT
PAIRS = st.recursive(  # an object is a list of pairs, so that it may say one thing twice
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(TEXT, inner), max_size=4).map(tuple),
    max_leaves=12,
)


def written(value: Any, space: str) -> str:
    if isinstance(value, tuple):
        pairs = (f"{json.dumps(key, ensure_ascii=False)}{space}:{written(of, space)}" for key, of in value)
        return "{" + f",{space}".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(each, space) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def repeats(value: Any) -> bool:
    if isinstance(value, tuple):
        keys = [key for key, _ in value]
        return len(keys) != len(set(keys)) or any(repeats(of) for _, of in value)
    return isinstance(value, list) and any(map(repeats, value))


@pytest.mark.parametrize("may_repeat", FORMS)
@settings(deadline=None)
@given(value=PAIRS, space=st.sampled_from(["", " ", "\n\t"]))
def test_what_stands_twice_is_suspected_and_what_holds_an_escape_and_nothing_else(
    may_repeat: Callable[[bytes], bool], value: Any, space: str
) -> None:
    text = written(value, space)
    suspected = may_repeat(text.encode())
    assert suspected == (repeats(value) or "\\" in text)


@pytest.mark.parametrize("may_repeat", FORMS)
def test_one_name_in_several_objects_is_no_repetition(may_repeat: Callable[[bytes], bool]) -> None:
    assert not may_repeat(b'{"a": {"a": [{"b": 1}, {"b": 2}], "b": "a"}, "b": {"a": "b"}}')


@pytest.mark.parametrize("may_repeat", FORMS[1:])
@pytest.mark.parametrize(
    "body", [b'{"a":' * 65 + b"1" + b"}" * 65, json.dumps({str(n): n for n in range(300)}).encode()]
)
def test_what_is_too_large_to_follow_is_left_to_the_exact_check(
    may_repeat: Callable[[bytes], bool], body: bytes
) -> None:
    assert may_repeat(body)
