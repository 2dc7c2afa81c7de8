"""Equality constraints of a model, and the model without them: what score tests release."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msem.errors import ModelError
from msem.table.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Equality:
    """A constraint that two parameters are equal.

    Attributes
    ----------
    first, second : Parameter
        Rows that share a parameter.
    index : int
        Position of `second` in the table.
    """

    first: Parameter
    second: Parameter
    index: int

    @property
    def label(self) -> str:
        """Label that the rows share, or ""."""
        return self.first.label

    @property
    def spellings(self) -> tuple[str, str]:
        """The text without blanks, either way round."""
        one, two = own_name(self.first).replace(" ", ""), own_name(self.second).replace(" ", "")
        return f"{one}=={two}", f"{two}=={one}"

    @property
    def text(self) -> str:
        """The constraint as text, parameters under their own names."""
        return f"{own_name(self.first)} == {own_name(self.second)}"


def own_name(row: Parameter) -> str:
    """Name of a row without its label: ``fb=~y2.l2``."""
    return replace(row, label="").name


def equalities(table: ParameterTable) -> tuple[Equality, ...]:
    """One constraint for each row that shares its parameter with an earlier one."""
    first: dict[int, Parameter] = {}
    found = []
    for i, row in enumerate(table.rows):
        if row.free and first.setdefault(row.free, row) is not row:
            found.append(Equality(first[row.free], row, i))
    return tuple(found)


def released_table(table: ParameterTable, released: Collection[Equality]) -> ParameterTable:
    """The model in which the second parameter of each constraint is one of its own.

    They follow the parameters of the model, in the order given.
    """
    rows = list(table.rows)
    for k, equality in enumerate(released, start=table.npar + 1):
        rows[equality.index] = replace(rows[equality.index], free=k)
    return replace(table, rows=tuple(rows))


def choose(
    constraints: Sequence[Equality], asked: Sequence[int | str] | int | str | None
) -> tuple[Equality, ...]:
    """Constraints that a user asks for by number, label or text; all if nothing is asked.

    Raises
    ------
    ModelError
        When there is no such constraint, or none at all.
    """
    if not constraints:
        raise ModelError(
            "the model has no equality constraints to release: name a parameter to add, as in add='y1 ~~ y2'"
        )
    if asked is None:
        return tuple(constraints)
    wanted = [asked] if isinstance(asked, (int, str)) else list(asked)
    found = [e for one in wanted for e in _named(constraints, one)]
    return tuple(e for e in constraints if e in found)


def _named(constraints: Sequence[Equality], asked: int | str) -> list[Equality]:
    if isinstance(asked, int):
        if 1 <= asked <= len(constraints):
            return [constraints[asked - 1]]
        raise ModelError(
            f"there is no equality constraint {asked}: they are numbered from 1 to {len(constraints)}"
        )
    text = "".join(asked.split())
    found = [e for e in constraints if asked == e.label or text in e.spellings]
    if not found:
        known = "; ".join(f"{k} {e.text}" for k, e in enumerate(constraints, 1))
        raise ModelError(f"there is no equality constraint {asked!r}; the model has {known}")
    return found
