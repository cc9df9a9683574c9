"""Constraints over a trial's metrics, such as `latency_ms < 5 * batch`: read by an allow-list, never evaluated as code.

A constraint is one comparison of two terms. Terms are numbers, names (in quotes where they are no identifiers),
`+ - * / **`, a sign and parentheses. As in Optuna, its value is 0 or less where it holds.
"""

from __future__ import annotations

import ast
import math
import operator
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aimlhpo.errors import listing
from aimlhpo.objective.base import BadValue, MissingMetric

LONGEST = 200  # characters of one constraint: it is a key in the storage, too
LEGAL = (
    "two terms with <=, <, >= or > between them; terms are numbers, metrics and parameters by name, + - * / **, "
    "parentheses"
)

_ARITHMETIC: dict[type[ast.operator], Callable[[float, float], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_SIGNS: dict[type[ast.unaryop], Callable[[float], float]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
_WORDS: dict[type[ast.AST], str] = {
    ast.Call: "a call",
    ast.Attribute: "a dot (a name with a dot stands in quotes)",
    ast.Subscript: "square brackets",
    ast.BoolOp: "`and` or `or`: write two constraints for `and`",
    ast.List: "a list",
    ast.Tuple: "a comma",
    ast.Dict: "a mapping",
    ast.Lambda: "a function",
    ast.IfExp: "a condition",
    ast.NamedExpr: "an assignment",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.MatMult: "@",
    ast.Not: "`not`",
}


class ConstraintError(ValueError):
    """A text that is no constraint; `found` says what is wrong with it, `legal` what would be right."""

    def __init__(self, found: str, legal: str = LEGAL) -> None:
        self.found, self.legal = found, legal
        super().__init__(found)


@dataclass(frozen=True)
class Constraint:
    """A checked constraint; `text` is its name in the storage, `names` what it reads."""

    text: str
    names: tuple[str, ...]
    _tree: ast.Compare

    def value(self, values: Mapping[str, Any]) -> float:
        """How far the constraint is from holding: 0 or less where it does.

        Raises MissingMetric for a name that `values` does not have, BadValue for what cannot be computed.
        """
        try:
            left, right = (_term(node, values) for node in (self._tree.left, self._tree.comparators[0]))
        except KeyError as error:
            name, known = error.args[0], listing(sorted(values)) or "nothing"
            raise MissingMetric(
                f"missing metric: {name}; the constraint {self.text!r} needs it; there are: {known}"[:300],
                f"the constraint {self.text!r} needs the metric {name!r}; the trial has: {known}",
            ) from None
        except (ArithmeticError, ValueError) as error:
            reason = "a number becomes too large" if isinstance(error, OverflowError) else str(error)
            raise BadValue(
                f"bad value: constraint {self.text!r}: {reason}", f"the constraint {self.text!r} has no value: {reason}"
            ) from None
        comparison = self._tree.ops[0]
        distance = left - right if isinstance(comparison, ast.LtE | ast.Lt) else right - left
        if distance == 0 and isinstance(comparison, ast.Lt | ast.Gt):
            return sys.float_info.epsilon  # equal is not enough
        return distance


def parse_constraint(text: str) -> Constraint:
    """A constraint from its text. Raises ConstraintError."""
    text = " ".join(text.split())
    if len(text) > LONGEST:
        raise ConstraintError(f"has {len(text)} characters", f"at most {LONGEST}")
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = error.msg if isinstance(error, SyntaxError) else "nested too deeply"
        found = f"{text!r} cannot be read: {reason}"
        raise ConstraintError(found, f"{LEGAL}; names such as 'val/acc' in quotes") from None
    if isinstance(tree, ast.BoolOp):
        raise _illegal(tree)
    if not isinstance(tree, ast.Compare):
        raise ConstraintError("is no comparison")
    if len(tree.ops) > 1:
        raise ConstraintError("holds more than one comparison", "one comparison; a list of constraints for several")
    if isinstance(tree.ops[0], ast.Eq | ast.NotEq):
        legal = "<=, <, >= or >; for equal values, one constraint with <= and one with >="
        raise ConstraintError("compares for equality, which numbers hardly ever meet", legal)
    if not isinstance(tree.ops[0], ast.LtE | ast.Lt | ast.GtE | ast.Gt):
        raise ConstraintError("holds `in` or `is`")
    names = tuple(dict.fromkeys(name for side in (tree.left, tree.comparators[0]) for name in _names(side)))
    if not names:
        raise ConstraintError(f"{text!r} names no metric", "a comparison with at least one metric in it")
    return Constraint(text, names, tree)


def constraint_values(constraints: Sequence[Constraint], values: Mapping[str, Any]) -> dict[str, float]:
    """The value of each constraint by its text, in an order that samplers may rely on.

    Raises MissingMetric or BadValue.
    """
    return {one.text: one.value(values) for one in sorted(constraints, key=lambda one: one.text)}


def _names(node: ast.expr) -> Iterator[str]:
    """The names in a term. Raises ConstraintError for what no term may hold."""
    match node:
        case ast.Name():
            yield node.id
        case ast.Constant(value=str(name)):
            yield name
        case ast.Constant(value=bool() | None) | ast.Constant(value=complex() | bytes()):
            raise ConstraintError(f"holds {node.value!r}, which is not a number")
        case ast.Constant(value=int() | float() as number):
            if not number <= sys.float_info.max:
                raise ConstraintError("holds a number that is too large", "numbers up to 1.8e308")
        case ast.BinOp() if type(node.op) in _ARITHMETIC:
            yield from _names(node.left)
            yield from _names(node.right)
        case ast.UnaryOp() if type(node.op) in _SIGNS:
            yield from _names(node.operand)
        case _:
            raise _illegal(node)


def _illegal(node: ast.expr) -> ConstraintError:
    kind: type[Any] = type(getattr(node, "op", node))
    word = _WORDS.get(type(node)) or _WORDS.get(kind) or "what is no number, name or arithmetic"
    return ConstraintError(f"holds {word}")


def _term(node: ast.expr, values: Mapping[str, Any]) -> float:
    """The value of a term. Raises KeyError for a name without a value, ArithmeticError or ValueError for a bad one."""
    match node:
        case ast.Name(id=name) | ast.Constant(value=str(name)):
            value = values[name]
            if not isinstance(value, int | float):
                raise ValueError(f"{name} is {value!r}, not a number")
            return _finite(float(value), f"{name} is {value}")
        case ast.BinOp():
            left, right = _term(node.left, values), _term(node.right, values)
            return _finite(_ARITHMETIC[type(node.op)](left, right))
        case ast.UnaryOp():
            return _SIGNS[type(node.op)](_term(node.operand, values))
        case ast.Constant(value=number):
            return float(number)  # type: ignore[arg-type]  # the parser lets nothing else pass
    raise AssertionError(ast.dump(node))


def _finite(value: Any, otherwise: str = "the result is not a finite real number") -> float:
    if isinstance(value, complex) or not math.isfinite(value):
        raise ValueError(otherwise)
    return float(value)


def parse_constraints(texts: Sequence[str]) -> tuple[Constraint, ...]:
    """The constraints of a checked configuration."""
    return tuple(parse_constraint(text) for text in texts)


def holds(values: Mapping[str, float]) -> bool:
    """Whether every constraint holds, given their values; also where there are none."""
    return all(value <= 0 for value in values.values())
