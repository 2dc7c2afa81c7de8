"""Terms of a formula: ``start(0.8)*a*y2`` is the variable ``y2`` with two modifiers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn, get_args

from msem.errors import ModelSyntaxError
from msem.language.characters import quote
from msem.language.expressions import (
    Binary,
    Call,
    Expression,
    Name,
    Number,
    Position,
    Text,
    check_depth,
    evaluate,
    format_expression,
    format_number,
    is_constant,
    start_of,
)

ModifierKind = Literal["fixed", "free", "label", "start", "equal", "lower", "upper", "rv", "efa"]
_KINDS: Final = frozenset(get_args(ModifierKind))
_NUMERIC: Final = frozenset({"fixed", "start", "lower", "upper"})
_BOUNDS: Final = frozenset({"lower", "upper"})


@dataclass(frozen=True, slots=True)
class Modifier:
    """What is said about one parameter.

    `values` has one entry, or one per group when written ``c(...)``: numbers for ``fixed``, ``start``,
    ``lower`` and ``upper``, texts otherwise. ``NA`` inside ``c()`` is None, and so is the entry of ``free``.
    """

    kind: ModifierKind
    values: tuple[float | str | None, ...]
    at: Position = field(compare=False)


@dataclass(frozen=True, slots=True)
class Term:
    """A variable and its modifiers; `variable` is "" for the intercept ``1`` and for ``=~ 0``, no indicator."""

    variable: str
    modifiers: tuple[Modifier, ...]
    at: Position


def fail(message: str, at: Position) -> NoReturn:
    """Raise a `ModelSyntaxError` at a place of the text."""
    raise ModelSyntaxError(message, at.line, at.column)


def split_sum(node: Expression, op: str) -> list[Expression]:
    """Terms of one side of a formula, left to right."""
    terms = []
    while isinstance(node, Binary) and node.op in "+-":
        if node.op == "-":
            hint = "; a name that has a '-' stands in quotes"
            fail(f"terms on a side of '{op}' are joined by '+', not '-'{hint}", node.at)
        terms.append(node.right)
        node = node.left
    terms.append(node)
    return terms[::-1]


def read_term(node: Expression, op: str) -> Term:
    """Read one term of the right-hand side of a formula with the given operator.

    Raises
    ------
    ModelSyntaxError
        When the term does not end in a variable, or a modifier cannot be read.
    """
    if isinstance(node, Name):  # by far the most frequent term
        return Term(_variable(node), (), node.at)
    check_depth(node)
    last, pieces = _split_product(node)
    if isinstance(last, Name | Text):
        return Term(_variable(last), read_modifiers(pieces), start_of(node))
    if isinstance(last, Number) and op == "~":
        if last.value == 1:
            return Term("", read_modifiers(pieces), start_of(node))
        if last.value == 0 and not pieces:  # as in R: no intercept
            return Term("", (Modifier("fixed", (0.0,), last.at),), last.at)
        fail(
            f"an intercept is written '1', fixed at {format_number(last.value)}: "
            f"'{format_number(last.value)}*1'",
            last.at,
        )
    if isinstance(last, Number):
        if op == "=~" and last.value == 0 and not pieces:
            return Term("", (), last.at)
        hint = "; 'f =~ 0' declares a latent variable without indicators" if op == "=~" else ""
        fail(f"a variable is expected on the right of '{op}', not a number{hint}", last.at)
    fail(f"'{format_expression(last)}' stands where a variable is expected", start_of(last))


def _variable(node: Name | Text) -> str:
    if isinstance(node, Text):
        if not node.value.strip():
            fail("a variable name is empty", node.at)
        return node.value
    if node.name == "NA":
        fail("NA frees a parameter and needs a variable after it, as in 'NA*y1'", node.at)
    return node.name


def _split_product(node: Expression) -> tuple[Expression, list[tuple[Expression, str]]]:
    """Last factor of a product, and the factors before it, each with the sign that follows it."""
    factors: list[tuple[Expression, str]] = []
    following = ""
    while isinstance(node, Binary) and node.op in "*?":
        factors.append((node.right, following))
        following = node.op
        node = node.left
    factors.append((node, following))
    return factors[0][0], factors[:0:-1]


def read_modifiers(pieces: Iterable[tuple[Expression, str]]) -> tuple[Modifier, ...]:
    """Read modifiers; neighbouring numbers multiply, as in ``2*3*y``. ``efa()`` goes first."""
    modifiers: list[Modifier] = []
    constant = False
    for node, sign in pieces:
        was_constant, constant = constant, is_constant(node) and sign == "*"
        modifier = _start(node) if sign == "?" else _modifier(node)
        if constant and was_constant:
            before = modifiers.pop()
            product = _finite(float(before.values[0] or 0) * evaluate(node), before.at)
            modifier = Modifier("fixed", (product,), before.at)
        modifiers.append(modifier)
    return tuple(sorted(modifiers, key=lambda m: m.kind != "efa"))


def _start(node: Expression) -> Modifier:
    if not is_constant(node):
        fail("a number is expected before '?', as in '0.8?x' (a starting value)", start_of(node))
    return Modifier("start", (_finite(evaluate(node), start_of(node)),), start_of(node))


def _finite(value: float, at: Position) -> float:
    if not math.isfinite(value):
        fail("the value is not a finite number", at)
    return value


def _modifier(node: Expression) -> Modifier:
    if isinstance(node, Name):
        return Modifier("free", (None,), node.at) if node.name == "NA" else _labels("label", (node,), node.at)
    if isinstance(node, Text):
        return _labels("label", (node,), node.at)
    if is_constant(node):
        at = start_of(node)
        return Modifier("fixed", (_finite(evaluate(node), at),), at)
    if isinstance(node, Call) and node.function == "c":
        return _vector(node)
    if isinstance(node, Call) and node.function in _KINDS - {"fixed", "free"}:
        return _called(node)
    if isinstance(node, Call):
        fail(
            f"unknown modifier '{node.function}()'; there are start(), equal(), label(), lower(), upper(), "
            "rv(), efa() and c()",
            node.at,
        )
    fail(f"'{format_expression(node)}' is neither a number nor a label", start_of(node))


def _called(node: Call) -> Modifier:
    kind: ModifierKind = node.function  # type: ignore[assignment]
    arguments = node.arguments
    if len(arguments) == 1 and isinstance(arguments[0], Call) and arguments[0].function == "c":
        arguments = arguments[0].arguments
    if not arguments:
        fail(f"{kind}() needs a value, as in {kind}({'0' if kind in _NUMERIC else quote('a')})", node.at)
    if kind in _NUMERIC:
        return _numbers(kind, arguments, node.at)
    return _labels(kind, arguments, node.at, empty=kind in ("label", "equal"))


def _vector(node: Call) -> Modifier:
    """``c(...)``: numbers and NA, or labels and NA; NA alone frees."""
    given = [a for a in node.arguments if not _is_na(a)]
    if not node.arguments:
        fail("c() needs one value for each group", node.at)
    if not given:
        return Modifier("free", (None,) * len(node.arguments), node.at)
    if isinstance(given[0], Name | Text):
        return _labels("label", node.arguments, node.at, empty=len(node.arguments) > 1)
    return _numbers("fixed", node.arguments, node.at)


def _is_na(node: Expression) -> bool:
    return isinstance(node, Name) and node.name == "NA"


def _numbers(kind: ModifierKind, arguments: tuple[Expression, ...], at: Position) -> Modifier:
    values: list[float | None] = []
    for node in arguments:
        if _is_na(node):
            values.append(None)
            continue
        bare_infinity = isinstance(node, Name) and node.name == "Inf"
        if not (is_constant(node) or bare_infinity):
            fail(f"'{format_expression(node)}' is not a number", start_of(node))
        value = evaluate(node)
        values.append(value if kind in _BOUNDS else _finite(value, start_of(node)))
    return Modifier(kind, tuple(values), at)


def _labels(
    kind: ModifierKind, arguments: tuple[Expression, ...], at: Position, *, empty: bool = False
) -> Modifier:
    """Texts; ``NA``, and where that is allowed ``""``, say nothing of the group in whose place they stand."""
    values: list[str | None] = []
    for node in arguments:
        if _is_na(node) or (empty and isinstance(node, Text) and not node.value):
            values.append(None)
        elif isinstance(node, Name):
            values.append(node.name.strip())
        elif isinstance(node, Text) and node.value.strip():
            values.append(node.value.strip())
        else:
            fail(
                f"{format_expression(node)} is not a {'label' if kind == 'label' else 'name'}", start_of(node)
            )
    return Modifier(kind, tuple(values), at)
