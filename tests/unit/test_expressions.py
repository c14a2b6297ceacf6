"""The language computes what Python would, knows nothing else, and calls missing whatever is no finite number."""

import contextlib
import math
import operator
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.expressions import SPACES, Floats, compile_expression, names_in

NAN = math.nan
COMPARISONS = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
VALUES = st.none() | st.floats(-1e6, 1e6)
COLUMNS = st.integers(1, 5).flatmap(lambda n: st.tuples(*[st.lists(VALUES, min_size=n, max_size=n)] * 2))


def _evaluate(text: str, columns: Mapping[str, list[float | None]]) -> list[float]:
    n_candidates = len(next(iter(columns.values())))

    def scope(space: str, name: str) -> Floats:
        return np.array(columns[f"{space}.{name}"] if name else [0.0] * n_candidates, dtype=np.float64)

    return list(compile_expression(text)(scope).tolist())


def _finite(value: float) -> float:
    return value if math.isfinite(value) else NAN


@settings(deadline=None)
@given(COLUMNS, st.sampled_from(["+", "-", "*", "/"]))
def test_arithmetic_is_pythons_own_row_by_row(columns: tuple[list[float | None], ...], symbol: str) -> None:
    left, right = columns
    got = _evaluate(f"event.a {symbol} candidate.b", {"event.a": left, "candidate.b": right})
    for value, a, b in zip(got, left, right, strict=True):
        if a is None or b is None or (symbol == "/" and b == 0):
            assert math.isnan(value)
        else:
            expected = {"+": a + b, "-": a - b, "*": a * b, "/": a / b if b else NAN}[symbol]
            assert value == _finite(expected) or math.isnan(value) == math.isnan(_finite(expected))


@settings(deadline=None)
@given(COLUMNS, st.sampled_from(sorted(COMPARISONS)))
def test_comparisons_are_pythons_own_and_of_missing_ones_as_for_nan(
    columns: tuple[list[float | None], ...], symbol: str
) -> None:
    left, right = columns
    got = _evaluate(f"event.a {symbol} candidate.b", {"event.a": left, "candidate.b": right})
    pairs = zip(left, right, strict=True)
    assert got == [float(COMPARISONS[symbol](NAN if a is None else a, NAN if b is None else b)) for a, b in pairs]


@settings(deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=6))
def test_functions_over_the_candidates_pass_over_what_is_missing(values: list[float | None]) -> None:
    known = [value for value in values if value is not None]
    columns = {"candidate.a": values}
    for text, expected in {
        "min(candidate.a)": min(known, default=NAN),
        "max(candidate.a)": max(known, default=NAN),
        "mean(candidate.a)": float(np.mean(known)) if known else NAN,
        "count(candidate.a)": float(len(known)),
    }.items():
        assert _evaluate(text, columns) == pytest.approx([expected] * len(values), nan_ok=True), text
    ranks = [NAN if value is None else float(sum(other < value for other in known)) for value in values]
    assert _evaluate("rank(candidate.a)", columns) == pytest.approx(ranks, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", [3.0, 3.0, 3.0]),
        ("-event.a", [-4.0, 0.0, NAN]),
        ("True", [1.0, 1.0, 1.0]),
        ("2 + 3 * event.a", [14.0, 2.0, NAN]),
        ("(2 + 3) * event.a", [20.0, 0.0, NAN]),
        ("abs(-event.a)", [4.0, 0.0, NAN]),
        ("sqrt(event.a)", [2.0, 0.0, NAN]),
        ("sqrt(0 - event.a)", [NAN, 0.0, NAN]),
        ("log1p(event.a)", [math.log(5.0), 0.0, NAN]),
        ("missing(event.a)", [0.0, 0.0, 1.0]),
        ("1 / event.a", [0.25, NAN, NAN]),
        ("1e308 * 10", [NAN, NAN, NAN]),
        ("where(event.a > 1, 10, 20)", [10.0, 20.0, 20.0]),
        ("where(missing(event.a), 7, event.a)", [4.0, 0.0, 7.0]),
        ("event.a - min(event.a)", [4.0, 0.0, NAN]),
    ],
)
def test_expressions_by_example(text: str, expected: list[float]) -> None:
    assert _evaluate(text, {"event.a": [4.0, 0.0, None]}) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "cannot read expression"),
        ("1 +", "cannot read expression"),
        ("amount", "'amount'"),
        ("secrets.key", "'secrets.key'"),
        ("event.a.b", "'event.a.b'"),
        ("event['a']", "not part of the expression language"),
        ("'text'", "not part of the expression language"),
        ("None", "not part of the expression language"),
        ("event.a ** 2", "not part of the expression language"),
        ("event.a if 1 else 2", "not part of the expression language"),
        ("1 < event.a < 2", "not part of the expression language"),
        ("event.a and event.b", "not part of the expression language"),
        ("lambda: 1", "not part of the expression language"),
        ("__import__('os')", "not part of the expression language"),
        ("open(event.a)", "not part of the expression language"),
        ("min(event.a, key=abs)", "not part of the expression language"),
        ("event.min(1)", "not part of the expression language"),
        ("(x := 1)", "not part of the expression language"),
        ("min(event.a, event.b)", "takes 1 argument"),
        ("where(1, 2)", "takes 3 argument"),
    ],
)
def test_everything_else_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        compile_expression(text)


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from("event.a()+-*/<>=!,min 0123'\"[]{}:@"), max_size=25))
def test_any_text_compiles_or_is_refused(text: str) -> None:
    with contextlib.suppress(ValueError):
        compile_expression(text)


def test_names_are_found_wherever_they_are_read() -> None:
    read = names_in("where(state.x > 1, min(candidate.y), time.hour) + destination.z / event.a - content.b")
    spaces = {("state", "x"), ("candidate", "y"), ("time", "hour"), ("destination", "z"), ("event", "a")}
    assert read == {*spaces, ("content", "b")}
    assert {space for space, _ in read} == set(SPACES)
