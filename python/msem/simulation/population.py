"""A population: a model all of whose parameters have values, and the moments that it implies."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, smallest_eigenvalue
from msem.errors import ModelError, UnsupportedError
from msem.estimation.constraints import compile_constraints
from msem.estimation.matrices import BlockMap, block_map, block_matrices, row_values
from msem.model.levels import BETWEEN, level_place
from msem.model.partable import Parameter, ParameterTable
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]

EIGENVALUE = -1e-8  # of a correlation-scaled matrix: below it the matrix is not positive semidefinite
MOST = 8  # parameters named


class Product(NamedTuple):
    """The product of a random slope and a covariate.

    Attributes
    ----------
    slope : str
    covariate : int
        Position among the variables that are drawn at the level.
    effects : ndarray
        Of the product on these variables.
    """

    slope: str
    covariate: int
    effects: Floats


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

        Without what random slopes add, which come last at the levels that they are variables of.

        Raises
        ------
        ModelError
            If they are those of no distribution; naming what is not.
        """
        return {
            level: self._level(level, group, observed)
            for level, observed in enumerate(self.variables.levels, 1)
        }

    def slopes(self, group: int = 1) -> dict[int, list[Product]]:
        """Products of random slopes and their covariates in a group, by the level that they are added at.

        In the order of the table, with the effects of a product on covariates of later slopes left to be drawn.

        Raises
        ------
        UnsupportedError
            If a slope changes the covariate of one that comes before it, or a covariate of three levels stands at
            several of them.
        """
        found = self.table.slopes(group)
        several = next((slope for slope in found if self._stands_above(slope, group)), None)
        if several is not None and self.table.nlevels > BETWEEN:
            raise UnsupportedError(
                f"{several.covariate!r} has the random slope {several.name!r} and stands at several levels: samples "
                "are not drawn from such a model in this version"
            )
        levels = dict.fromkeys(slope.level for slope in found)
        return {level: self._products([s for s in found if s.level == level], group) for level in levels}

    def _stands_above(self, slope: Slope, group: int) -> bool:
        """Whether an observed covariate of a slope has parts above the level of the slope."""
        latent = slope.covariate in self.table.latent(slope.level, group)
        return not latent and slope.level < self.variables.top(slope.covariate)

    def _products(self, found: Sequence[Slope], group: int) -> list[Product]:
        level = found[0].level
        block = block_map(self.table, level, group, self.variables.levels[level - 1])
        paths, _ = block_matrices(block, self.values)
        drawn = _drawn(block, self.table)
        total = np.linalg.inv(np.eye(len(paths)) - paths)[[block.names.index(name) for name in drawn]]
        at = {name: i for i, name in enumerate(block.names)}
        out = [
            Product(
                slope.name,
                drawn.index(slope.covariate),
                total[:, [at[name] for name in slope.outcomes]].sum(axis=1),
            )
            for slope in found
        ]
        for k, one in enumerate(out):
            before = next((other.slope for other in out[:k] if one.effects[other.covariate] != 0), None)
            if before is not None:
                raise UnsupportedError(
                    f"the random slope {one.slope!r} changes the covariate of {before!r}: write it before that one "
                    "in the model, so that samples can be drawn in this order"
                )
        return out

    def _level(self, level: int, group: int, observed: Sequence[str]) -> LevelArrays:
        block = block_map(self.table, level, group, observed)
        paths, residual = block_matrices(block, self.values)
        observed = _drawn(block, self.table)
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
        total = np.linalg.inv(directed)[[block.names.index(name) for name in observed]]
        intercepts = np.zeros(len(paths))
        chosen = block.slot == 2
        intercepts[block.row[chosen]] = self.values[block.rows[chosen]]
        return LevelArrays(tuple(observed), total @ intercepts, total @ residual @ total.T, len(observed))

    def without_logistic(self, group: int = 1) -> dict[int, LevelArrays]:
        """The moments without the logistic residuals of ordered variables, which are drawn by themselves."""
        moments, residual = self.moments(group), self.logistic
        if not residual:
            return moments
        for name in self.cuts(group):
            level = self.lowest(name)
            own = moments[level]
            cov = own.cov.copy()
            cov[own.at[name], own.at[name]] -= residual
            moments[level] = replace(own, cov=cov)
        return moments

    @property
    def logistic(self) -> float:
        """Variance of logistic residuals of the ordered variables; 0 of normal ones."""
        return self.table.ordered.residual if self.table.ordered.logistic else 0.0

    def lowest(self, name: str) -> int:
        """The lowest level of a variable."""
        return next(level for level, names in enumerate(self.variables.levels, 1) if name in names)

    def cuts(self, group: int = 1) -> dict[str, Floats]:
        """Thresholds of the ordered variables of one group, ascending.

        Raises
        ------
        ModelError
            If they do not ascend.
        """
        found = self.table.threshold_values(self.values.tolist(), group)
        out = {name: np.array(own) for name, own in found.items()}
        odd = next((name for name, own in out.items() if not (np.diff(own) > 0).all()), None)
        if odd is not None:
            listed = ", ".join(f"{value:g}" for value in out[odd])
            raise ModelError(f"the thresholds of {odd!r} do not ascend: {listed}")
        return out

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


def _drawn(block: BlockMap, table: ParameterTable) -> tuple[str, ...]:
    """What is drawn at a level: the observed variables, latent covariates of slopes, and slopes that stand there."""
    observed = block.names[: block.nobserved]
    covariates = [slope.covariate for slope in table.slopes(block.group) if slope.level == block.level]
    latent = dict.fromkeys(name for name in covariates if name not in observed)
    return (*observed, *latent, *block.slopes[block.products :])


def population_of(table: ParameterTable) -> Population:
    """The population that a model text with values says.

    Fixed parameters have their values, others those of ``start()``. What the text does not mention is 0 (intercepts,
    covariances), and covariates have variance 1; all else needs a value. Variables that only predict are covariates,
    whether or not their moments are written.

    Raises
    ------
    ModelError
        If a parameter has no value, or the values do not meet constraints of the model.
    """
    shared = _starts(table)
    modelled = _modelled(table)
    values = np.array([_value(row, shared, modelled, table.ordered.thresholds) for row in table.rows])
    missing = [n for n, value in zip(table.by_name.shown, values, strict=True) if np.isnan(value)]
    if missing:
        listed = ", ".join(missing[:MOST]) + (
            f" and {len(missing) - MOST} more" if len(missing) > MOST else ""
        )
        raise ModelError(
            f"the population has no value for {listed}: write each with its value, as in 'f ~ 0.3*x' and "
            "'f ~~ 0.5*f', or with start(0.3)*x"
        )
    population = Population(_with_covariates(table), values)
    _require_constraints(population)
    return population


def _with_covariates(table: ParameterTable) -> ParameterTable:
    """The table in which written moments of variables that only predict are those of covariates.

    A model that estimates the moments of a covariate is another model; a population has them in any case, and what is
    1 given its covariates (`BlockMap.standard`) is not to depend on whether they are written.
    """
    more = {
        (name, level, group)
        for level in range(1, table.nlevels + 1)
        for group in range(1, table.ngroups + 1)
        for name in _only_predicting(table.block(level, group), table.latent(level, group))
    }

    def marked(row: Parameter) -> Parameter:
        own = [(name, row.level, row.group) in more for name in (row.lhs, row.rhs or row.lhs)]
        return row._replace(exo=True) if row.op in ("~~", "~1") and all(own) else row

    return replace(table, rows=tuple(map(marked, table.rows)))


def _only_predicting(rows: Sequence[Parameter], latent: Sequence[str]) -> set[str]:
    """Observed variables on the right-hand sides of regressions only, and in covariances of each other."""
    found = {row.rhs for row in rows if row.op == "~"} - {*latent}
    for row in rows:
        if row.op in ("~", "|"):
            found.discard(row.lhs)
        elif row.op == "=~":
            found.discard(row.rhs)
    before = None
    while before != found:  # a covariance with anything else is one with its residual
        before = set(found)
        for row in rows:
            if row.op == "~~" and (row.lhs in found) != (row.rhs in found) and (row.free or row.value != 0):
                found -= {row.lhs, row.rhs}
    return found


def fitted_population(table: ParameterTable, theta: Floats) -> Population:
    """The population that estimates are, in a table with the moments of fixed covariates."""
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


def _value(
    row: Parameter,
    shared: Mapping[int, float],
    modelled: set[tuple[str, int, int]],
    ordered: Container[str] = (),
) -> float:
    if not row.free and row.value == row.value:
        return row.value
    if row.free in shared:
        return shared[row.free]
    if row.user and not row.exo:
        return np.nan
    if row.op == "~~" and row.lhs == row.rhs:
        if row.free == 0 and row.lhs in ordered:
            return 1.0  # what a variance of 1 leaves; the value is not used
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
