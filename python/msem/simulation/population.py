"""A population: a model all of whose parameters have values, and the moments that it implies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, smallest_eigenvalue
from msem.errors import ModelError, UnsupportedError
from msem.estimation.constraints import compile_constraints
from msem.estimation.matrices import block_map, block_matrices, row_values
from msem.model.levels import level_place
from msem.model.partable import Parameter, ParameterTable, require_two_levels
from msem.model.variables import Variables

Floats = NDArray[np.float64]

EIGENVALUE = -1e-8  # of a correlation-scaled matrix: below it the matrix is not positive semidefinite
MOST = 8  # parameters named


@dataclass(frozen=True, eq=False)
class Population:
    """A model with a value for every row of its table.

    Attributes
    ----------
    table : ParameterTable
    values : ndarray, shape (rows,)
    """

    table: ParameterTable
    values: Floats

    @property
    def variables(self) -> Variables:
        """Observed variables by their roles."""
        return self.table.variables

    def moments(self, group: int = 1) -> dict[int, LevelArrays]:
        """Implied moments of the observed variables of one group by level; level 1 only for one level.

        Those of level 1 are without what random slopes add; at level 2 these come last.

        Raises
        ------
        ModelError
            If they are those of no distribution; naming what is not.
        """
        return {
            level: self._level(level, group, observed)
            for level, observed in enumerate(self.variables.levels, 1)
        }

    def slopes(self, group: int = 1) -> list[tuple[int, Floats]]:
        """Each random slope of a group: its covariate among the unit variables, and effects of their product on these.

        In the order of the table, with the effects of a product on covariates of later slopes left to be drawn.

        Raises
        ------
        UnsupportedError
            If a slope changes the covariate of one that comes before it, or a covariate is latent or stands at both
            levels.
        """
        found = self.table.slopes(group)
        if not found:
            return []
        latent = next((slope for slope in found if slope.covariate in self.table.latent(1, group)), None)
        if latent is not None:
            raise UnsupportedError(
                f"{latent.covariate!r} has the random slope {latent.name!r} and is latent: samples are not drawn from "
                "such populations in this version"
            )
        both = next((slope for slope in found if slope.covariate in self.table.both), None)
        if both is not None:
            raise UnsupportedError(
                f"{both.covariate!r} has the random slope {both.name!r} and stands at both levels: samples are not "
                "drawn from such a model in this version"
            )
        unit = self.variables.unit
        block = block_map(self.table, 1, group, unit)
        paths, _ = block_matrices(block, self.values)
        total = np.linalg.inv(np.eye(len(paths)) - paths)[: len(unit)]
        at = {name: i for i, name in enumerate(block.names)}
        out = [
            (unit.index(slope.covariate), total[:, [at[name] for name in slope.outcomes]].sum(axis=1))
            for slope in found
        ]
        for k, (_, effects) in enumerate(out):
            before = next((found[j].name for j, (x, _) in enumerate(out[:k]) if effects[x] != 0), None)
            if before is not None:
                raise UnsupportedError(
                    f"the random slope {found[k].name!r} changes the covariate of {before!r}: write it before that one "
                    "in the model, so that samples can be drawn in this order"
                )
        return out

    def _level(self, level: int, group: int, observed: Sequence[str]) -> LevelArrays:
        block = block_map(self.table, level, group, observed)
        paths, residual = block_matrices(block, self.values)
        if level > 1:
            observed = (*observed, *block.slopes)
        where = describe_place(self.table, level, group)
        negative = [
            f"{name} ({value:g})"
            for name, value in zip(block.names, residual.diagonal(), strict=True)
            if value < 0
        ]
        if negative:
            raise ModelError(
                f"the population is no distribution: negative variance{where} of {', '.join(negative)}"
            )
        odd = _not_definite(residual, block.names)
        if odd:
            raise ModelError(
                f"the population is no distribution: the (residual) covariances{where} of {odd} are larger than their "
                "variances allow"
            )
        directed = np.eye(len(paths)) - paths
        if abs(np.linalg.det(directed)) < 1e-12:
            raise ModelError(f"the population is no distribution: its paths{where} have no reduced form")
        total = np.linalg.inv(directed)[: len(observed)]
        intercepts = np.zeros(len(paths))
        chosen = block.slot == 2
        intercepts[block.row[chosen]] = self.values[block.rows[chosen]]
        return LevelArrays(tuple(observed), total @ intercepts, total @ residual @ total.T, len(observed))

    def truth(self) -> dict[tuple[str, str, str, int, int], float]:
        """Value of every row by lhs, op, rhs, level and group."""
        pairs = zip(self.table.rows, self.values.tolist(), strict=True)
        return {(r.lhs, r.op, r.rhs, r.level, r.group): value for r, value in pairs}

    def changed(self, values: Mapping[str, float]) -> Population:
        """The same population with other values of some parameters, by label or by name such as ``fb ~ w1``.

        Raises
        ------
        ModelError
            If a parameter is unknown.
        """
        out = self.values.copy()
        for name, value in values.items():
            out[_named_rows(self.table, name)] = value
        return replace(self, values=out)


def population_of(table: ParameterTable) -> Population:
    """The population that a model text with values says.

    Fixed parameters have their values, others those of ``start()``. What the text does not mention is 0 (intercepts,
    covariances), and covariates have variance 1; all else needs a value.

    Raises
    ------
    ModelError
        If a parameter has no value, or the values do not meet constraints of the model.
    """
    require_two_levels(table, "samples drawn from a model")
    shared = _starts(table)
    modelled = _modelled(table)
    values = np.array([_value(row, shared, modelled) for row in table.rows])
    missing = [n for n, value in zip(table.by_name.shown, values, strict=True) if np.isnan(value)]
    if missing:
        listed = ", ".join(missing[:MOST]) + (
            f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
        )
        raise ModelError(
            f"the population has no value for {listed}: write each with its value, as in 'f ~ 0.3*x' and "
            "'f ~~ 0.5*f', or with start(0.3)*x"
        )
    population = Population(table, values)
    _require_constraints(population)
    return population


def fitted_population(table: ParameterTable, theta: Floats) -> Population:
    """The population that estimates are, in a table with the moments of fixed covariates."""
    if not table.crossed:
        require_two_levels(table, "samples drawn from a fit")
    return Population(table, row_values(table, theta))


def _starts(table: ParameterTable) -> dict[int, float]:
    """Values of the free parameters that the user gives a start."""
    return {row.free: row.start for row in table.rows if row.free and row.start is not None}


def _modelled(table: ParameterTable) -> set[tuple[str, int, int]]:
    """Variables, by level and group, that are latent or outcomes: their variances are parameters to be given."""
    out = set()
    for row in table.rows:
        if row.op in ("=~", "~"):
            out.add((row.lhs, row.level, row.group))
        if row.op == "=~":
            out.add((row.rhs, row.level, row.group))
    return out


def _value(row: Parameter, shared: Mapping[int, float], modelled: set[tuple[str, int, int]]) -> float:
    if not row.free and row.value == row.value:
        return row.value
    if row.free in shared:
        return shared[row.free]
    if row.user and not row.exo:
        return np.nan
    if row.op == "~~" and row.lhs == row.rhs:
        return np.nan if (row.lhs, row.level, row.group) in modelled else 1.0
    return 0.0 if row.op in ("~~", "~1") else np.nan


def _require_constraints(population: Population) -> None:
    table, values = population.table, population.values
    if not table.constraints:
        return
    theta = np.zeros(table.npar)
    for row, value in zip(table.rows, values, strict=True):
        if row.free:
            theta[row.free - 1] = value
    constraints = compile_constraints(table)
    broken = constraints.violated(theta) if constraints is not None else []
    if broken:
        listed = ", ".join(f"'{text}' (by {gap:.3g})" for text, gap in broken)
        raise ModelError(f"the values of the population do not meet {listed}")


def describe_place(table: ParameterTable, level: int, group: int) -> str:
    """Words for a level of a group; empty for a model of one level and one group."""
    where = level_place(level, table.nlevels)
    return where + (f" of group {table.group_labels[group - 1]!r}" if table.ngroups > 1 else "")


def _not_definite(matrix: Floats, names: Sequence[str]) -> str:
    """Names of the variables of a matrix that is not positive semidefinite; "" if it is."""
    if len(matrix) < 2 or smallest_eigenvalue(matrix) >= EIGENVALUE:
        return ""
    involved = [name for i, name in enumerate(names) if np.count_nonzero(matrix[i]) > 1]
    return ", ".join(involved)


def _named_rows(table: ParameterTable, name: str) -> list[int]:
    """Rows of a parameter: those with the label, or of the name and all that share it."""
    first = table.by_name.first(name)
    label = "" if first is None else table.rows[first].label
    rows = [i for i, row in enumerate(table.rows) if i == first or (label and row.label == label)]
    shared = {table.rows[i].free for i in rows if table.rows[i].free}
    rows = [i for i, row in enumerate(table.rows) if i in rows or row.free in shared]
    if not rows:
        user = (n for n, row in zip(table.by_name.shown, table.rows, strict=True) if row.user)
        known = ", ".join(dict.fromkeys(user))
        raise ModelError(f"the population has no parameter {name!r}; it has {known}")
    return rows
