"""Functions of parameters: from expressions of labels to compiled programs with exact derivatives."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.errors import ModelError
from msem.language.characters import in_backticks
from msem.language.expressions import (
    ARITHMETIC,
    CONSTANTS,
    FUNCTIONS,
    MAX_DEPTH,
    TOO_DEEP,
    Binary,
    Call,
    Expression,
    Name,
    Number,
    Position,
    Unary,
    chain_of,
    format_expression,
    walk,
)
from msem.language.syntax import read_hypothesis
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]
Over = Literal["theta", "rows"]
Locate = Callable[[Position, str], str]

CONSTANT, LINEAR, NONLINEAR = 0, 1, 2
NAMES_SHOWN = 30


@dataclass(frozen=True, eq=False)
class Functions:
    """Functions of the parameters, evaluated in compiled code.

    Attributes
    ----------
    texts : tuple of str
        As written.
    degrees : tuple of int
        Of each function: 0 constant, 1 linear, 2 anything else.
    core : _core.Expressions
    """

    texts: tuple[str, ...]
    degrees: tuple[int, ...]
    core: _core.Expressions

    def __len__(self) -> int:
        return len(self.texts)

    def values(self, theta: ArrayLike) -> Floats:
        """Values at theta, shape (functions,); nan outside the domain, as for the log of a negative number."""
        return self.core.values(theta)

    def values_of_rows(self, thetas: ArrayLike) -> Floats:
        """Values at each row of a matrix of parameters, shape (rows, functions)."""
        return self.core.values_of_rows(thetas)

    def jacobian(self, theta: ArrayLike) -> Floats:
        """Derivatives, shape (functions, npar); exact, not differenced."""
        return self.core.jacobian(theta)


def compile_expressions(table: ParameterTable, texts: Sequence[str]) -> Functions:
    """Read functions of the parameters of a model.

    Parameters
    ----------
    table : ParameterTable
    texts : sequence of str
        Each an expression such as ``a*b``, or an equation such as ``a == b``, which stands for the difference of its
        sides. Names are labels, defined parameters (``:=``), or parameters as tables name them, in backticks:
        ```fw=~y2` - `fb=~y2.l2```.

    Returns
    -------
    Functions
        Of theta, shape (npar,). Fixed parameters are constants.

    Raises
    ------
    ModelSyntaxError
        When a text cannot be read.
    ModelError
        When it names an unknown parameter.
    """
    read = [read_hypothesis(text) for text in texts]

    def locate_in(text: str, ahead: int) -> Locate:
        return lambda at, message: f"in '{text}', column {at.column - ahead}: {message}"

    return compile_functions(table, [(h.text, h.function, locate_in(h.text, h.ahead)) for h in read])


def compile_functions(
    table: ParameterTable,
    functions: Sequence[tuple[str, Expression, Locate | None]],
    over: Over = "theta",
) -> Functions:
    """Compile expressions with their texts; see `compile_expressions`.

    Parameters
    ----------
    table : ParameterTable
    functions : sequence of (text, expression, locate)
        `locate` puts the place before a message; None: by the model text.
    over : {"theta", "rows"}
        What the functions take: theta, or the values of all rows of the table, where a label stands for its first
        row. The latter evaluates definitions at other than the estimates, such as standardized ones.

    Raises
    ------
    ModelError
        When a name is unknown, or definitions go round in a circle; with line and column.
    """
    length = len(table.rows) if over == "rows" else table.npar
    if not functions:  # as in most models, whose rows need no names then
        return Functions((), (), _core.Expressions(length, [], 0))
    compiler = _Compiler(table, over)
    compiled = [compiler.compile(node, locate or table_locator(table)) for _, node, locate in functions]
    first = len(compiler.programs)
    programs = [*compiler.programs, *(piece.steps for piece in compiled)]
    return Functions(
        tuple(text for text, *_ in functions),
        tuple(piece.degree for piece in compiled),
        _core.Expressions(length, programs, first),
    )


def defined_functions(table: ParameterTable, over: Over = "theta") -> Functions:
    """The defined parameters (``:=``) of a model, in order of the text."""
    return compile_functions(table, [(format_expression(d.rhs), d.rhs, None) for d in table.defined], over)


def defined_rows(table: ParameterTable) -> tuple[Parameter, ...]:
    """Rows that defined parameters have in tables: of no level and no group."""
    return tuple(
        Parameter(d.lhs.name, ":=", format_expression(d.rhs), 0, 0, label=d.lhs.name, user=True, at=d.at)
        for d in table.defined
        if isinstance(d.lhs, Name)
    )


def table_locator(table: ParameterTable) -> Locate:
    """How messages say a place in the model text of a table."""
    return table.syntax.locate if table.syntax is not None else lambda _, message: message


class _Piece(NamedTuple):
    """A compiled part of an expression; `value` if it is constant."""

    steps: list[tuple[str, int, float]]
    degree: int
    value: float = math.nan


def _constant(value: float) -> _Piece:
    return _Piece([("constant", 0, value)], CONSTANT, value)


class _Compiler:
    """Expressions to programs; defined parameters that are used become programs of their own, once."""

    def __init__(self, table: ParameterTable, over: Over) -> None:
        self.over = over
        self.rows = table.rows
        self.names = table.by_name
        self.definitions = {d.lhs.name: d.rhs for d in table.defined if isinstance(d.lhs, Name)}
        self.locate_definition = table_locator(table)
        self.programs: list[list[tuple[str, int, float]]] = []
        self.done: dict[str, _Piece] = {}

    def compile(self, node: Expression, locate: Locate) -> _Piece:
        """Compile an expression after the definitions that it needs, innermost first."""
        waiting = [self.needed(node, locate)]
        names: list[str] = []  # of the definitions that are open, each needed by the one before
        while waiting:
            name = next(waiting[-1], None)
            if name is None:
                waiting.pop()
                if names:
                    self.define(names.pop())
            elif name.name in names:
                circle = " -> ".join([*names[names.index(name.name) :], name.name])
                raise ModelError(
                    self.locate_definition(name.at, f"'{name.name}' is defined by itself: {circle}")
                )
            elif name.name not in self.done:
                names.append(name.name)
                waiting.append(self.needed(self.definitions[name.name], self.locate_definition))
        return self.piece(node, locate)

    def needed(self, node: Expression, locate: Locate) -> Iterator[Name]:
        """Names of definitions in an expression."""
        for part, depth in walk(node):
            if depth > MAX_DEPTH:
                raise ModelError(locate(part.at, TOO_DEEP))
            if isinstance(part, Name) and part.name in self.definitions:
                yield part

    def define(self, name: str) -> None:
        """Compile a definition whose own definitions are done: to a program of its own, unless it is constant."""
        piece = self.piece(self.definitions[name], self.locate_definition)
        if piece.degree != CONSTANT:
            self.programs.append(piece.steps)
            piece = _Piece([("result", len(self.programs) - 1, 0.0)], piece.degree)
        self.done[name] = piece

    def piece(self, node: Expression, locate: Locate) -> _Piece:
        if isinstance(node, Number):
            return _constant(node.value)
        if isinstance(node, Name):
            return self.named(node, locate)
        if isinstance(node, Unary):
            of = self.piece(node.operand, locate)
            return _fold(node, locate, lambda x: -x, of) or _Piece([*of.steps, ("negate", 0, 0.0)], of.degree)
        if isinstance(node, Call):
            return self.called(node, locate)
        if isinstance(node, Binary):
            first, chain = chain_of(node)
            left = self.piece(first, locate)
            for part in chain:
                right = self.piece(part.right, locate)
                folded = _fold(part, locate, ARITHMETIC[part.op], left, right)
                left = folded or _binary(part.op, left, right)
            return left
        raise ModelError(locate(node.at, f"'{format_expression(node)}' is no function of parameters"))

    def called(self, node: Call, locate: Locate) -> _Piece:
        if node.function not in FUNCTIONS or len(node.arguments) != 1:
            message = (
                f"'{format_expression(node)}': functions of one argument are {', '.join(sorted(FUNCTIONS))}"
            )
            raise ModelError(locate(node.at, message))
        of = self.piece(node.arguments[0], locate)
        folded = _fold(node, locate, FUNCTIONS[node.function], of)
        return folded or _Piece([*of.steps, (node.function, 0, 0.0)], NONLINEAR)

    def named(self, node: Name, locate: Locate) -> _Piece:
        if node.name in self.definitions:
            done = self.done[node.name]
            return done._replace(steps=[*done.steps])
        try:
            index = self.names.first(node.name)
        except ModelError as error:
            raise ModelError(locate(node.at, str(error))) from None
        if index is not None:
            return self.parameter(self.rows[index], index)
        if node.name in CONSTANTS and math.isfinite(CONSTANTS[node.name]):
            return _constant(CONSTANTS[node.name])
        raise ModelError(locate(node.at, self.unknown(node.name)))

    def parameter(self, row: Parameter, index: int) -> _Piece:
        if self.over == "rows":
            return _Piece([("parameter", index, 0.0)], LINEAR)
        return _Piece([("parameter", row.free - 1, 0.0)], LINEAR) if row.free else _constant(row.value)

    def unknown(self, name: str) -> str:
        known = [*dict.fromkeys(row.label for row in self.rows if row.label), *self.definitions]
        listed = ", ".join(known[:NAMES_SHOWN]) or "none"
        more = f" and {len(known) - NAMES_SHOWN} more" if len(known) > NAMES_SHOWN else ""
        if "~" in name:
            near = difflib.get_close_matches(name, self.names.own, n=3)
            meant = f"; did you mean {' or '.join(map(in_backticks, near))}?" if near else ""
            return f"the model has no parameter '{name}'; between-level names end in '.l2', as in `fb=~y2.l2`{meant}"
        return f"no parameter is labelled '{name}'; labels of this model: {listed}{more}"


def _fold(node: Expression, locate: Locate, function: Callable[..., float], *of: _Piece) -> _Piece | None:
    """The value of a function of constants; None if some are not."""
    if any(piece.degree != CONSTANT for piece in of):
        return None
    try:
        value = function(*(piece.value for piece in of))
    except (ArithmeticError, ValueError):
        value = math.inf
    if isinstance(value, complex) or math.isinf(value):
        raise ModelError(locate(node.at, f"'{format_expression(node)}' is not a real number"))
    return _constant(value)


def _binary(op: str, left: _Piece, right: _Piece) -> _Piece:
    if op == "^" and right.degree == CONSTANT:
        degree = left.degree if right.value == 1 else LINEAR if right.value == 0 else NONLINEAR
        return _Piece([*left.steps, ("^constant", 0, right.value)], degree)
    degree = max(left.degree, right.degree)
    if op == "^" or (op == "*" and left.degree and right.degree) or (op == "/" and right.degree):
        degree = NONLINEAR
    # The steps of the left side are extended in place: a long sum is compiled in time proportional to its length.
    left.steps.extend(right.steps)
    left.steps.append((op, 0, 0.0))
    return _Piece(left.steps, degree)
