"""Equality constraints of a model, and the model without them: what score tests release."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msem.errors import ModelError
from msem.estimation.constraints import elimination_basis
from msem.estimation.estimate import Estimate
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]

DEPENDENT = 1e-10  # relative singular value of constraints that follow from others
MISSED = 1e-6  # relative change of other constraints that counts as none


@dataclass(frozen=True, slots=True)
class Equality:
    """A constraint that two parameters are equal.

    Attributes
    ----------
    first, second : Parameter
        Rows that share a parameter.
    names : tuple of str
        Their names without labels, such as ``fb=~y2.l2``.
    index : int
        Position of `second` in the table.
    """

    first: Parameter
    second: Parameter
    names: tuple[str, str]
    index: int

    @property
    def label(self) -> str:
        """Label that the rows share, or ""."""
        return self.first.label

    @property
    def spellings(self) -> tuple[str, str]:
        """The text without blanks, either way round."""
        one, two = ("".join(name.split()) for name in self.names)
        return f"{one}=={two}", f"{two}=={one}"

    @property
    def text(self) -> str:
        """The constraint as text, parameters under their own names."""
        return " == ".join(self.names)


@dataclass(frozen=True, slots=True)
class Imposed:
    """An equality constraint (``==``) of the model text.

    Attributes
    ----------
    text : str
        As written.
    number : int
        Position among the equalities of the model.
    """

    text: str
    number: int

    @property
    def label(self) -> str:
        """None: it stands for itself."""
        return ""

    @property
    def spellings(self) -> tuple[str, ...]:
        """The text without blanks."""
        return ("".join(self.text.split()),)


Restriction = Equality | Imposed


def equalities(table: ParameterTable) -> tuple[Equality, ...]:
    """One constraint for each row that shares its parameter with an earlier one."""
    first: dict[int, int] = {}
    found = []
    own = table.by_name.own
    for i, row in enumerate(table.rows):
        k = first.setdefault(row.free, i)
        if row.free and k != i:
            found.append(Equality(table.rows[k], row, (own[k], own[i]), i))
    return tuple(found)


def restrictions(fit: Estimate) -> tuple[Restriction, ...]:
    """Everything that makes parameters equal: shared labels, then constraints of the text."""
    c = fit.objective.constraints
    imposed = () if c is None else tuple(Imposed(text, k) for k, text in enumerate(c.equalities.texts))
    return *equalities(fit.table), *imposed


def imposed_direction(fit: Estimate, number: int) -> Floats:
    """Direction of theta that changes one equality constraint by 1 and keeps all others and active inequalities.

    Zero if the constraint follows from the others. Shape (npar,).
    """
    scale = np.where(fit.optimum.active == 0, fit.sizes, 0.0)
    rows = fit.held_rows * scale
    norm = np.linalg.norm(rows, axis=1)
    norm[norm == 0] = 1.0
    wanted = np.zeros(len(rows))
    wanted[number] = 1.0 / norm[number]
    step = np.linalg.lstsq(rows / norm[:, None], wanted, rcond=DEPENDENT)[0]
    missed = np.linalg.norm(rows / norm[:, None] @ step - wanted) > MISSED * wanted[number]
    return np.zeros_like(step) if missed else scale * step


def imposed_directions(fit: Estimate, numbers: Collection[int]) -> Floats:
    """Directions of theta that all constraints but these equalities leave, shape (npar, m)."""
    moving = np.flatnonzero(fit.optimum.active == 0)
    rows = fit.held_rows
    kept = np.setdiff1d(np.arange(len(rows)), list(numbers))
    return np.eye(len(fit.theta))[:, moving] @ elimination_basis(
        rows[np.ix_(kept, moving)], fit.sizes[moving]
    )


def released_table(table: ParameterTable, released: Collection[Equality]) -> ParameterTable:
    """The model in which the second parameter of each constraint is one of its own.

    They follow the parameters of the model, in the order given.
    """
    rows = list(table.rows)
    for k, equality in enumerate(released, start=table.npar + 1):
        rows[equality.index] = rows[equality.index]._replace(free=k)
    return replace(table, rows=tuple(rows))


def choose(
    constraints: Sequence[Restriction], asked: Sequence[int | str] | int | str | None
) -> tuple[Restriction, ...]:
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


def _named(constraints: Sequence[Restriction], asked: int | str) -> list[Restriction]:
    if isinstance(asked, int):
        if 1 <= asked <= len(constraints):
            return [constraints[asked - 1]]
        raise ModelError(
            f"there is no equality constraint {asked}: they are numbered from 1 to {len(constraints)}"
        )
    text = "".join(asked.split())
    found = [e for e in constraints if asked and asked in (e.label, e.text)]
    found = found or [e for e in constraints if text in e.spellings]
    if not found:
        known = "; ".join(f"{k} {e.text}" for k, e in enumerate(constraints, 1))
        raise ModelError(f"there is no equality constraint {asked!r}; the model has {known}")
    return found
