"""Feature expressions: arithmetic over an event and its candidates, compiled once, evaluated for all candidates at once.

The language is a small part of Python's own syntax, read by its parser and never evaluated by it: numbers, the names
``event.x``, ``candidate.x``, ``state.x``, ``destination.x``, ``time.x`` and ``content.x``, ``+ - * /``, comparisons,
and ``min max mean count rank`` (over the candidates of the event) and ``abs log1p sqrt where missing`` (row by row).
"""

import ast
import operator
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scope = Callable[[str, str], Floats]  # (space, name) -> one value per candidate
Compiled = Callable[[Scope], Floats]

SPACES = ("event", "candidate", "state", "destination", "time", "content")

_OPERATORS: Mapping[type, Callable[[Floats, Floats], Floats]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.divide,
}
_COMPARISONS: Mapping[type, Callable[[Floats, Floats], Floats]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}


def _over_candidates(reduce: Callable[[Floats], float]) -> Callable[[Floats], Floats]:
    return lambda column: np.full_like(column, reduce(column))


def _mean(column: Floats) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if known.size else float("nan")


def _rank(column: Floats) -> Floats:
    """0 for the smallest; equal values share the smaller rank, and what is missing stays missing."""
    smaller: Floats = (column[:, None] > column[None, :]).sum(axis=1).astype(np.float64)
    return np.where(np.isnan(column), np.nan, smaller)


def _where(condition: Floats, then: Floats, otherwise: Floats) -> Floats:
    return np.where(condition > 0, then, otherwise)


class _Function(NamedTuple):
    n_arguments: int
    apply: Callable[..., Floats]


_FUNCTIONS: Mapping[str, _Function] = {
    "min": _Function(1, _over_candidates(np.fmin.reduce)),
    "max": _Function(1, _over_candidates(np.fmax.reduce)),
    "mean": _Function(1, _over_candidates(_mean)),
    "count": _Function(1, _over_candidates(lambda column: float((~np.isnan(column)).sum()))),
    "rank": _Function(1, _rank),
    "abs": _Function(1, np.abs),
    "log1p": _Function(1, np.log1p),
    "sqrt": _Function(1, np.sqrt),
    "missing": _Function(1, lambda column: np.isnan(column).astype(np.float64)),
    "where": _Function(3, _where),
}


def compile_expression(text: str) -> Compiled:
    """Return the function that evaluates ``text`` for all candidates of one event, shape [n_candidates].

    Whatever is not a finite number in the end (a missing part, a division by zero) is NaN: missing.

    Raises
    ------
    ValueError
        Naming what in ``text`` the language does not have.
    """
    try:
        tree = ast.parse(text, mode="eval")
    except SyntaxError as error:
        raise ValueError(f"cannot read expression {text!r}: {error.msg}") from None
    evaluate = _compile(tree.body, text)

    def finite(scope: Scope) -> Floats:
        with np.errstate(all="ignore"):
            column = np.asarray(evaluate(scope), dtype=np.float64)
        return np.where(np.isfinite(column), column, np.nan)

    return finite


def names_in(text: str) -> set[tuple[str, str]]:
    """Return every (space, name) that a valid expression reads."""
    nodes = ast.walk(ast.parse(text, mode="eval"))
    return {(n.value.id, n.attr) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name)}


def _compile(node: ast.expr, text: str) -> Compiled:
    match node:
        case ast.Constant(value=bool() | int() | float() as number):
            constant = float(number)
            return lambda scope: np.full_like(scope("candidate", ""), constant)
        case ast.Attribute(value=ast.Name(id=space), attr=name) if space in SPACES:
            return lambda scope: scope(space, name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _compile(operand, text)
            return lambda scope: -inner(scope)
        case ast.BinOp(op=op) if type(op) in _OPERATORS:
            return _binary(_OPERATORS[type(op)], _compile(node.left, text), _compile(node.right, text))
        case ast.Compare(ops=[op]) if type(op) in _COMPARISONS:
            return _binary(_COMPARISONS[type(op)], _compile(node.left, text), _compile(node.comparators[0], text))
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _FUNCTIONS:
            return _call(name, node, text)
    raise ValueError(f"{ast.unparse(node)!r} in {text!r} is not part of the expression language")


def _binary(apply: Callable[[Floats, Floats], Floats], left: Compiled, right: Compiled) -> Compiled:
    return lambda scope: apply(left(scope), right(scope))


def _call(name: str, node: ast.Call, text: str) -> Compiled:
    function = _FUNCTIONS[name]
    if len(node.args) != function.n_arguments:
        raise ValueError(f"{name} in {text!r} takes {function.n_arguments} argument(s), got {len(node.args)}")
    arguments = [_compile(argument, text) for argument in node.args]
    return lambda scope: function.apply(*(argument(scope) for argument in arguments))
