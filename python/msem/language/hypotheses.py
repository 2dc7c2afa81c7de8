"""Expressions of parameters that stand alone, outside a model text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msem.errors import ModelSyntaxError
from msem.language.characters import outside_quotes
from msem.language.expressions import Binary, Expression, Text, check_depth, walk
from msem.language.grammar import Formula, read_lines
from msem.language.syntax import ModelSyntax, parse


class Hypothesis(NamedTuple):
    """A function of parameters, the text it was read from, and how many columns its places are ahead of it."""

    text: str
    function: Expression
    ahead: int


def read_hypothesis(text: str) -> Hypothesis:
    """Read ``a - b``, or ``a == b`` as the difference of its sides.

    Raises
    ------
    ModelSyntaxError
        When the text is no such expression; the message names the column.
    """
    if not isinstance(text, str):
        raise ModelSyntaxError(f"an expression of parameters is a text, not {type(text).__name__}")
    lead = "" if "==" in outside_quotes(text) else "0 == "
    try:
        lines = read_lines(lead + text)
        formula = lines[0] if len(lines) == 1 else None
        if not isinstance(formula, Formula) or formula.op != "==":
            raise ModelSyntaxError(
                "one expression such as 'a - b', or one equation such as 'a == b', is expected", 1, 1
            )
        _check(formula.lhs)
        _check(formula.rhs)
    except ModelSyntaxError as error:
        message = str(error).split(": ", 1)[1] if error.line else str(error)
        raise ModelSyntaxError(message, error.line, max(error.column - len(lead), 1), text) from None
    function = Binary("-", formula.lhs, formula.rhs, formula.at) if not lead else formula.rhs
    return Hypothesis(text, function, len(lead))


def _check(node: Expression) -> None:
    check_depth(node)
    for part, _ in walk(node):
        if isinstance(part, Text):
            message = "labels are written without quotes, and parameters in backticks, as in `fw=~y2`"
            raise ModelSyntaxError(message, part.at.line, part.at.column)


def with_constraints(model: str, constraints: str | Sequence[str] | None) -> ModelSyntax:
    """Read a model text together with constraints that are given beside it.

    Parameters
    ----------
    model : str
    constraints : str or sequence of str, optional
        Definitions (``:=``), equalities and inequalities, separated by line ends or semicolons.

    Raises
    ------
    ModelSyntaxError
        When a text cannot be read, or the constraints hold a formula of the model.
    """
    if not constraints:
        return parse(model)
    if isinstance(constraints, list | tuple) and all(isinstance(one, str) for one in constraints):
        constraints = "\n".join(constraints)
    if not isinstance(constraints, str):
        raise ModelSyntaxError(
            f"constraints= takes a text, or texts such as ['a == b', 'a > 0'], not {constraints!r}"
        )
    constraints = constraints.removeprefix("\ufeff")
    alone = parse(constraints)
    if alone.statements or alone.blocks:
        at = alone.statements[0].at if alone.statements else alone.blocks[0].at
        raise ModelSyntaxError(
            "constraints= takes ':=', '==', '<' and '>' only; formulas belong to the model",
            at.line,
            at.column,
            constraints.split("\n")[at.line - 1],
        )
    return parse(f"{model}\n{constraints}")
