"""Equality and inequality constraints of a model: compiled, sorted into linear and nonlinear, checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.errors import ModelError
from msem.language.expressions import Binary, Expression
from msem.language.syntax import Constraint
from msem.model.functions import (
    CONSTANT,
    LINEAR,
    Functions,
    compile_functions,
    defined_functions,
    table_locator,
)
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]

RANK = 1e-10  # of rows of unit length: below it a row depends on others
HOLDS = 1e-9  # relative violation of a linear constraint that is rounding


@dataclass(frozen=True, eq=False)
class Constraints:
    """Constraints of a model on theta.

    Attributes
    ----------
    equalities : Functions
        Zero where they hold.
    inequalities : Functions
        Zero or positive where they hold.
    """

    equalities: Functions
    inequalities: Functions

    def __len__(self) -> int:
        return len(self.equalities) + len(self.inequalities)

    @cached_property
    def core(self) -> _core.Constraints:
        """The compiled constraints."""
        linear = [i for i, degree in enumerate(self.equalities.degrees) if degree == LINEAR]
        return _core.Constraints(self.equalities.core, self.inequalities.core, linear)

    @cached_property
    def linear_equalities(self) -> tuple[Floats, Floats]:
        """A and b of the linear equalities A theta = b."""
        origin = np.zeros(self.equalities.core.npar)
        chosen = [i for i, degree in enumerate(self.equalities.degrees) if degree == LINEAR]
        return self.equalities.jacobian(origin)[chosen], -self.equalities.values(origin)[chosen]

    def violated(self, theta: Floats) -> list[tuple[str, float]]:
        """Constraints that do not hold at theta, and by how much."""
        equal = np.abs(self.equalities.values(theta))
        unequal = np.maximum(0, -self.inequalities.values(theta))
        texts = (*self.equalities.texts, *self.inequalities.texts)
        return [
            (t, float(v)) for t, v in zip(texts, np.append(equal, unequal), strict=True) if not v <= HOLDS
        ]

    def undefined(self, theta: Floats) -> list[str]:
        """Constraints without a value, such as the root of a negative number, where the linear ones hold."""
        return [text for text, gap in self.violated(self.core.project(theta)) if np.isnan(gap)]


def compile_constraints(table: ParameterTable) -> Constraints | None:
    """Compile the constraints of a model; None if it has none.

    Definitions (``:=``) are checked on the way.

    Parameters
    ----------
    table : ParameterTable
        With the moments of fixed covariates filled in.

    Returns
    -------
    Constraints or None

    Raises
    ------
    ModelError
        When a name is unknown, or when linear constraints, bounds and fixed values contradict each other; with the
        constraint and its place.
    """
    if table.defined:
        defined_functions(table)
    if not table.constraints:
        return None
    found = Constraints(_functions(table, "=="), _functions(table, "<>"))
    _check_linear(table, found)
    return found if len(found) else None


def _functions(table: ParameterTable, ops: str) -> Functions:
    """Functions of the constraints with these operators, less those among constants, which must hold."""
    locate = table_locator(table)
    kept = []
    for constraint in (c for c in table.constraints if c.op in ops):
        node = _difference(constraint)
        alone = compile_functions(table, [(constraint.text, node, None)])
        origin = np.zeros(table.npar)
        numbers = np.append(alone.values(origin), alone.jacobian(origin))
        if alone.degrees[0] == LINEAR and not np.isfinite(numbers).all():
            message = f"'{constraint.text}' has no value: it divides by zero, or has a root or log of less than zero"
            raise ModelError(locate(constraint.at, message))
        if alone.degrees[0] == CONSTANT:
            value = float(alone.values(origin)[0])
            if not (abs(value) <= HOLDS if constraint.op == "==" else value >= -HOLDS):
                message = f"'{constraint.text}' does not hold, and it is about fixed values only"
                raise ModelError(locate(constraint.at, message))
        else:
            kept.append((constraint.text, node, None))
    return compile_functions(table, kept)


def _difference(constraint: Constraint) -> Expression:
    """What is zero, or not negative, where the constraint holds."""
    sides = (constraint.lhs, constraint.rhs) if constraint.op != "<" else (constraint.rhs, constraint.lhs)
    return Binary("-", *sides, constraint.at)


def _check_linear(table: ParameterTable, found: Constraints) -> None:
    """Refuse linear constraints and bounds that leave no point."""
    locate = table_locator(table)
    at = {c.text: c.at for c in table.constraints}
    rows, values = found.linear_equalities
    texts = [t for t, d in zip(found.equalities.texts, found.equalities.degrees, strict=True) if d == LINEAR]
    for k in range(1, len(rows) + 1):
        nearest = np.linalg.lstsq(rows[:k], values[:k], rcond=RANK)[0]
        gap = np.abs(rows[:k] @ nearest - values[:k])
        if np.any(gap > HOLDS * (1 + np.abs(values[:k]))):
            message = f"'{texts[k - 1]}' contradicts the equality constraints before it"
            raise ModelError(locate(at[texts[k - 1]], message))
    sides, offsets, names = _linear_inequalities(table, found)
    feasible = _core.solve_quadratic(np.eye(table.npar), np.zeros(table.npar), rows, values, sides, offsets)[
        1
    ]
    if not feasible:
        raise ModelError(f"these constraints cannot hold together: {', '.join(map(repr, [*texts, *names]))}")


def _linear_inequalities(table: ParameterTable, found: Constraints) -> tuple[Floats, Floats, list[str]]:
    """A, b and texts of everything linear of the form A theta >= b, bounds included."""
    origin = np.zeros(table.npar)
    chosen = [i for i, degree in enumerate(found.inequalities.degrees) if degree == LINEAR]
    rows = [*found.inequalities.jacobian(origin)[chosen]]
    offsets = [*-found.inequalities.values(origin)[chosen]]
    names = [found.inequalities.texts[i] for i in chosen]
    shown = zip(table.rows, table.by_name.shown, strict=True)
    for row, name in {row.free: (row, name) for row, name in shown if row.free}.values():
        unit = np.zeros(table.npar)
        unit[row.free - 1] = 1
        for sign, bound, op in ((1, row.lower, ">"), (-1, row.upper, "<")):
            if np.isfinite(bound):
                rows.append(sign * unit)
                offsets.append(sign * bound)
                names.append(f"{name} {op} {bound:g}")
    return np.reshape(rows, (-1, table.npar)), np.array(offsets, dtype=float), names


def elimination_basis(rows: Floats, scale: Floats | None = None) -> Floats:
    """Basis of the null space of a matrix: some variables in terms of the others, which are the coordinates.

    By Gaussian elimination with complete pivoting: variables that no row concerns keep a column of their own, and
    simple equalities hold to the last digit.

    Parameters
    ----------
    rows : ndarray, shape (k, n)
        May be linearly dependent.
    scale : ndarray, shape (n,), optional
        Sizes of the variables, for the choice of pivots.

    Returns
    -------
    ndarray, shape (n, n - rank)
    """
    size = np.ones(rows.shape[1]) if scale is None else scale
    return _core.elimination_basis(rows, size)
