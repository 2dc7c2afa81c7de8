"""Arithmetic expressions of the model text: a small immutable tree, folded without `eval`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from msem.errors import ModelSyntaxError
from msem.language.characters import in_backticks, is_plain, quote

# Deeper nesting would exhaust the recursion of those who walk trees; no formula needs it.
MAX_DEPTH: Final = 100
TOO_DEEP: Final = f"the expression is nested more than {MAX_DEPTH} levels deep; split it into several"


@dataclass(frozen=True, slots=True)
class Position:
    """Place in the model text; line and column count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Number:
    """A number as written, never negative."""

    value: float
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A label, a variable, or an interaction of variables (`x1:x2`)."""

    name: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A quoted string."""

    value: str
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """Minus sign before an operand."""

    operand: Expression
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Binary:
    """Two operands joined by one of ``+ - * / ^ ?``; `at` is the place of the operator.

    A sum of n terms is n - 1 of these, each the left operand of the next. Comparison, text and pickling go along that
    chain without recursion, so that it may be as long as it likes.
    """

    op: str
    left: Expression
    right: Expression
    at: Position

    def __eq__(self, other: object) -> bool:
        return self._terms() == other._terms() if isinstance(other, Binary) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._terms())

    def __repr__(self) -> str:
        return f"<Binary {format_expression(self)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        first, chain = chain_of(self)
        return _joined, (first, [(node.op, node.right, node.at) for node in chain])

    def _terms(self) -> tuple[object, ...]:
        first, chain = chain_of(self)
        return first, *((node.op, node.right) for node in chain)


@dataclass(frozen=True, slots=True)
class Call:
    """A function or modifier applied to arguments."""

    function: str
    arguments: tuple[Expression, ...]
    at: Position = field(compare=False)


Expression = Number | Name | Text | Unary | Binary | Call

FUNCTIONS: Final[dict[str, Callable[[float], float]]] = {
    "abs": abs,
    "acos": math.acos,
    "asin": math.asin,
    "atan": math.atan,
    "atanh": math.atanh,
    "cos": math.cos,
    "cosh": math.cosh,
    "exp": math.exp,
    "log": math.log,
    "log10": math.log10,
    "log2": math.log2,
    "sin": math.sin,
    "sinh": math.sinh,
    "sqrt": math.sqrt,
    "tan": math.tan,
    "tanh": math.tanh,
}
CONSTANTS: Final = {"pi": math.pi, "Inf": math.inf}


def chain_of(node: Expression) -> tuple[Expression, list[Binary]]:
    """First operand of ``a + b - c``, and the operations that follow it, in order of the text."""
    chain = []
    while isinstance(node, Binary):
        chain.append(node)
        node = node.left
    return node, chain[::-1]


def _joined(first: Expression, chain: Iterable[tuple[str, Expression, Position]]) -> Expression:
    """Undo `chain_of`."""
    for op, right, at in chain:
        first = Binary(op, first, right, at)
    return first


def children(node: Expression) -> tuple[Expression, ...]:
    """Operands or arguments of a node, left to right."""
    if isinstance(node, Binary):
        return node.left, node.right
    if isinstance(node, Unary):
        return (node.operand,)
    return node.arguments if isinstance(node, Call) else ()


def walk(node: Expression) -> Iterator[tuple[Expression, int]]:
    """Every node with its depth (the root has 1), in order of the text; no recursion.

    An operation that is the left operand of another one is as deep as that: ``a + b + c`` has no nesting.
    """
    stack = [(node, 1)]
    while stack:
        here, depth = stack.pop()
        yield here, depth
        if isinstance(here, Binary):
            stack += [(here.right, depth + 1), (here.left, depth + (not isinstance(here.left, Binary)))]
        else:
            stack.extend((child, depth + 1) for child in reversed(children(here)))


def names_in(node: Expression) -> tuple[Name, ...]:
    """Names that an expression refers to, in order of the text, repetitions included."""
    return tuple(part for part, _ in walk(node) if isinstance(part, Name))


def start_of(node: Expression) -> Position:
    """Place where the text of an expression begins."""
    return chain_of(node)[0].at


def is_constant(node: Expression) -> bool:
    """Whether the expression is arithmetic of numbers alone; a bare name is a label, not a constant."""
    if isinstance(node, Name | Text):
        return False
    return all(
        not isinstance(part, Text)
        and not (isinstance(part, Name) and part.name not in CONSTANTS)
        and not (isinstance(part, Call) and part.function not in FUNCTIONS)
        and not (isinstance(part, Binary) and part.op == "?")
        for part, _ in walk(node)
    )


def check_depth(node: Expression) -> None:
    """Refuse an expression that is nested too deeply to be walked by recursion.

    Raises
    ------
    ModelSyntaxError
        When some part lies deeper than `MAX_DEPTH`.
    """
    for part, depth in walk(node):
        if depth > MAX_DEPTH:
            raise ModelSyntaxError(TOO_DEEP, part.at.line, part.at.column)


def evaluate(node: Expression) -> float:
    """Value of a constant expression in double precision.

    Raises
    ------
    ModelSyntaxError
        When a name or an unknown function occurs, or the result is not a real number.
    """
    check_depth(node)
    try:
        value = _value(node)
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, ModelSyntaxError):
            raise
        value = math.nan
    if isinstance(value, complex) or math.isnan(value):
        at = start_of(node)
        raise ModelSyntaxError(f"'{format_expression(node)}' is not a real number", at.line, at.column)
    return value


def _value(node: Expression) -> float:
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Unary):
        return -_value(node.operand)
    if isinstance(node, Binary):
        first, chain = chain_of(node)
        value = _value(first)
        for part in chain:
            if part.op not in ARITHMETIC:
                break
            value = ARITHMETIC[part.op](value, _value(part.right))
        else:
            return value
    if isinstance(node, Name) and node.name in CONSTANTS:
        return CONSTANTS[node.name]
    if isinstance(node, Call) and node.function in FUNCTIONS and len(node.arguments) == 1:
        return FUNCTIONS[node.function](_value(node.arguments[0]))
    raise ModelSyntaxError(f"'{format_expression(node)}' is not a number", node.at.line, node.at.column)


ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "^": lambda a, b: a**b,
}
_BINDING: Final = {"+": 1, "-": 1, "*": 2, "/": 2, "?": 2, "^": 4}


def format_expression(node: Expression) -> str:
    """Text of an expression, with no more parentheses than its meaning needs."""
    return _format(node)[0]


def _format(node: Expression) -> tuple[str, int]:
    """Text and how tightly its outermost operator binds (5: an atom)."""
    if isinstance(node, Binary):
        first, chain = chain_of(node)
        opening, parts = 0, []
        text, binds = _format(first)
        for part in chain:
            binding = _BINDING[part.op]
            # The power takes a factor on its right and only an atom on its left; the others associate left.
            left_needs, right_needs = (5, 3) if part.op == "^" else (binding, binding + 1)
            joint = part.op if part.op in "^?" else f" {part.op} "
            if binds < left_needs:
                opening += 1
                parts.append(")")
            parts.append(f"{joint}{_wrap(part.right, right_needs)}")
            binds = binding
        return f"{'(' * opening}{text}{''.join(parts)}", binds
    if isinstance(node, Unary):
        return f"-{_wrap(node.operand, 3)}", 3
    if isinstance(node, Call):
        return f"{node.function}({', '.join(format_expression(a) for a in node.arguments)})", 5
    if isinstance(node, Number):
        return format_number(node.value), 5
    return (format_name(node.name) if isinstance(node, Name) else quote(node.value)), 5


def format_name(name: str) -> str:
    """A name as an expression has it: any that is not a plain word in backticks, such as ``fw=~y2``."""
    return name if is_plain(name) or name == "NA" else in_backticks(name)


def _wrap(node: Expression, needs: int) -> str:
    text, binding = _format(node)
    return text if binding >= needs else f"({text})"


def format_number(value: float) -> str:
    """Shortest text that is read back as the same number."""
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
