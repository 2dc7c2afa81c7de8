"""What a user names: parameters, and functions of them in the language of definitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.errors import ArgumentError, ModelError, MsemError
from msem.estimation.objective import Objective
from msem.language.expressions import Expression, Name, Number, Unary
from msem.language.syntax import Constraint, read_hypothesis
from msem.model.functions import CONSTANT, Functions, Locate, compile_functions
from msem.model.partable import ParameterTable, find_parameter, parameter_places
from msem.model.references import is_formula
from msem.settings import several

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Named:
    """A parameter or a function of parameters.

    Attributes
    ----------
    name : str
        As tables show it: the name of the parameter, or the text of the function.
    position : int
        In theta, from 0; -1 for a function.
    level, group : int
        Where the parameter is; 0 for a function, and for what several levels, or groups, share.
    function : Expression or None
        What the function is; its text is not read again.
    """

    name: str
    position: int
    level: int
    group: int
    function: Expression | None = None


def read_named(table: ParameterTable, text: str) -> Named:
    """Read the name of a parameter, a formula such as ``fb =~ y2``, a definition or an expression of labels.

    A text that is the name of a parameter or a definition as tables show it is that, whatever else it could mean.

    Raises
    ------
    ModelSyntaxError
        If a text is neither a name nor an expression.
    ModelError
        If it names an unknown parameter, one that is not estimated, or may mean several.
    """
    one = next((d for d in _definitions(table) if d.name == text.strip()), None)
    if one is None:
        rows = table.by_name.find(text)
        if any(table.rows[i].free for i in rows) or is_formula(text):
            position = find_parameter(table, text)
            return Named(table.names()[position], position, *parameter_places(table)[position])
        one = Named(text.strip(), -1, 0, 0, read_hypothesis(text).function)
    if compile_named(table, [one]).degrees[0] == CONSTANT:
        raise ModelError(f"'{text}' does not depend on any estimated parameter")
    return one


def compile_named(table: ParameterTable, named: Sequence[Named]) -> Functions:
    """Functions of the parameters, those among several named things that are."""

    def locate_in(text: str) -> Locate:
        return lambda _, message: f"in '{text}': {message}"

    return compile_functions(
        table, [(one.name, one.function, locate_in(one.name)) for one in named if one.function is not None]
    )


def _definitions(table: ParameterTable) -> list[Named]:
    return [Named(d.lhs.name, -1, 0, 0, d.lhs) for d in table.defined if isinstance(d.lhs, Name)]


def every_parameter(table: ParameterTable) -> list[Named]:
    """All parameters, in order of theta, and all definitions (``:=``)."""
    places = parameter_places(table)
    return [Named(name, k, *places[k]) for k, name in enumerate(table.names())] + _definitions(table)


@dataclass(frozen=True, eq=False)
class Evaluator:
    """Values of named things at many estimates."""

    table: ParameterTable
    named: tuple[Named, ...]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the compiled part."""
        return Evaluator, (self.table, self.named)

    @cached_property
    def functions(self) -> Functions:
        """Those that are functions, compiled."""
        return compile_named(self.table, self.named)

    def __call__(self, thetas: Floats) -> Floats:
        """Values, shape (R, k), at estimates of shape (R, npar)."""
        positions = np.array([one.position for one in self.named], dtype=np.intp)
        out = thetas[:, positions]
        if (positions < 0).any():
            out[:, positions < 0] = self.functions.values_of_rows(thetas)
        return out


def holding(objective: Objective, named: Named, value: float) -> Objective:
    """The same objective under the further constraint that a function has a value.

    Raises
    ------
    ModelError
        If it cannot have that value because of other constraints, bounds or fixed parameters.
    """
    function = named.function
    assert function is not None
    number = Number(abs(value), function.at)
    target = Unary(number, function.at) if value < 0 else number
    held = Constraint(function, "==", target, function.at, f"{named.name} == {value:g}")
    table = replace(objective.table, constraints=(*objective.table.constraints, held), syntax=None)
    out = replace(objective, table=table)
    _ = out.constraints  # compiled here, where contradictions are found
    return out


def require_names(names: str | Sequence[str]) -> list[str]:
    """A list of texts from one text or several, at least one."""
    given = list(several(names))
    for name in given:
        if not isinstance(name, str):
            raise ArgumentError(f"names are texts, not {type(name).__name__}")
    if not given:
        raise MsemError("no parameter is named: leave the argument out for all of them")
    return given
