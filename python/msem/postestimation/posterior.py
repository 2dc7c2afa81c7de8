"""Scores of the variables of one group: posterior means and maximum likelihood scores with their covariances."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.rows import columns_of
from msem.data.statistics import Statistics
from msem.errors import ModelError, UnsupportedError
from msem.estimation.matrices import BlockMap, block_matrices
from msem.estimation.objective import Objective
from msem.model.partable import fixed_covariates
from msem.model.slopes import Slope
from msem.postestimation.rows import Rows

Floats = NDArray[np.float64]
ROUNDING = 1e-13
NONE = LevelArrays((), np.empty(0), np.empty((0, 0)), 0)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Observed variables of a level when its latent variables are fixed: mean + loadings (eta - E eta) + e.

    Attributes
    ----------
    loadings : ndarray, shape (observed, latent)
    residual : ndarray, shape (observed, observed)
        Covariance matrix of e.
    """

    loadings: Floats
    residual: Floats


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of some variables for clusters or for units.

    Attributes
    ----------
    names : tuple of str, length d
    mean : ndarray, shape (rows, d)
    cov : ndarray, shape (S, d, d)
        Posterior or sampling covariance matrices: of each cluster size or, for data with holes, of each set of
        observed values.
    which : ndarray of int, shape (rows,)
        The covariance matrix of each row.
    """

    names: tuple[str, ...]
    mean: Floats
    cov: Floats
    which: NDArray[np.intp]

    def columns(self, *, se: bool = True, cov: bool = False) -> dict[str, Floats]:
        """Scores by name, standard deviations as ``<name>_se`` and covariances as ``<name>_<name>_cov``."""
        out = dict(zip(self.names, self.mean.T, strict=True))
        if se:
            variance = np.einsum("sii->si", self.cov)
            # scores that are exact have a variance of 0, up to rounding
            rounding = ROUNDING * np.fmax.reduce(self.mean**2, axis=0, initial=0.0)
            sd = np.sqrt(np.where(variance >= -rounding, np.maximum(variance, 0.0), np.nan))[self.which]
            out |= {f"{name}_se": sd[:, k] for k, name in enumerate(self.names)}
        if cov:
            pairs = combinations(range(len(self.names)), 2)
            out |= {f"{self.names[a]}_{self.names[b]}_cov": self.cov[self.which, a, b] for a, b in pairs}
        return out

    def part(self, first: int, last: int | None) -> Scores:
        """The variables from `first` up to `last`, or to the end."""
        pick = slice(first, last)
        return Scores(self.names[pick], self.mean[:, pick], self.cov[:, pick, pick], self.which)


@dataclass(frozen=True, eq=False)
class GroupModel:
    """The model of one group at given parameters.

    Attributes
    ----------
    statistics : Statistics
        For the variables and their order.
    levels : dict from level to LevelArrays
        Model-implied moments of all variables; level 1 only for a single level.
    measurement : dict from level to Measurement
    fixed : dict from level to tuple of str
        Fixed covariates: within-only ones at level 1, cluster variables at level 2.
    compiled : tuple of (mean, covariance matrix)
        The levels as the core has them, where these have more variables.
    slopes : tuple of Slope
        Random slopes.
    """

    statistics: Statistics
    levels: dict[int, LevelArrays]
    measurement: dict[int, Measurement]
    fixed: dict[int, tuple[str, ...]]
    compiled: tuple[tuple[Floats, Floats], ...] = ()
    slopes: tuple[Slope, ...] = ()

    @cached_property
    def top(self) -> int:
        """Level at which clusters, or the rows of a single level, are the units."""
        return max(self.levels)

    def latent(self, level: int) -> tuple[str, ...]:
        """Latent variables of a level."""
        m = self.levels[level]
        return m.names[m.nobserved :]

    def products(self, level: int) -> list[tuple[Slope, Floats]]:
        """Random slopes whose products with covariates stand at a level, and what these do to its variables."""
        slopes = [slope for slope in self.slopes if slope.level == level]
        if not slopes:
            return []
        # the core has products, of unit variance, between the observed variables, with latent covariates of slopes
        # behind them, and the others
        names, observed = self.levels[level].names, self.levels[level].nobserved
        first = dict.fromkeys(slope.covariate for slope in slopes if slope.covariate in names[observed:])
        n, k = observed + len(first), len(slopes)
        reach = np.delete(self.compiled[level - 1][1], n + np.arange(k), axis=0)[:, n : n + k]
        core = [*names[:observed], *first, *(name for name in names[observed:] if name not in first)]
        return list(zip(slopes, reach[[core.index(name) for name in names]].T, strict=True))

    def parts(self, level: int) -> tuple[str, ...]:
        """Observed variables of a level that are measured below it."""
        variables = self.statistics.variables
        if len(variables.levels) < 2:
            return ()
        return tuple(
            name for name in variables.levels[level - 1] if name not in variables.measured[level - 1]
        )

    @property
    def both(self) -> tuple[str, ...]:
        """Variables at both levels."""
        return self.statistics.variables.both

    def data(self, rows: Rows) -> Any:
        """Moments and clusters in the core: two classes that compute the same."""
        moments = self.compiled or [(m.mean, m.cov) for m in self.levels.values()]
        return rows.clusters.posterior(self.statistics.variables, moments)

    def units(self, rows: Rows) -> tuple[list[Floats], NDArray[np.int64]]:
        """Columns of the unit-level variables and the cluster of each row."""
        return columns_of(rows.data, self.statistics.unit), rows.data.lowest


def group_model(
    objective: Objective, theta: Floats, group: int = 1, means: Floats | None = None
) -> GroupModel:
    """The model of one group, counted from 1, at theta.

    `means` are those of the observed variables, for a single-level model without means.
    """
    s, table = objective.statistics[group - 1], objective.table
    values = objective.row_values(theta)
    blocks = [block for block in objective.blocks if block.group == group]
    fixed = {block.level: tuple(table.exogenous(block.level, group)) for block in blocks}
    if s.unit:
        fixed = dict(enumerate(map(tuple, fixed_covariates(table, s.variables, group)), 1))
    levels = objective.moments(theta, group)
    if means is not None:
        levels = {1: with_means(levels[1], block_matrices(blocks[0], values)[0], means)}
    measured = {block.level: measurement(block, values) for block in blocks}
    compiled = objective.compiled_moments(theta, group) if table.slopes(group) else ()
    return GroupModel(s, levels, measured, fixed, compiled, tuple(table.slopes(group)))


def with_means(level: LevelArrays, paths: Floats, means: Floats) -> LevelArrays:
    """Moments with the means of the observed variables, and those that latent variables then have.

    A model with means would have free intercepts of the observed variables, which reproduce their means, and no
    intercept of a latent variable.
    """
    k = level.nobserved
    latent = np.linalg.solve(np.eye(len(paths) - k) - paths[k:, k:], paths[k:, :k] @ means)
    return replace(level, mean=np.concatenate([means, latent]))


def measurement(block: BlockMap, values: Floats) -> Measurement:
    """Equations of the observed variables of a block, with its latent variables as fixed quantities."""
    k = block.nobserved
    matrices: tuple[Floats, Floats] = block_matrices(block, values)
    paths, residual = matrices
    inverse = np.linalg.inv(np.eye(k) - paths[:k, :k])
    return Measurement(inverse @ paths[:k, k:], inverse @ residual[:k, :k] @ inverse.T)


def posterior(model: GroupModel, rows: Rows, level: int) -> Scores:
    """Posterior means and covariances of the latent variables of a level, given all data of the cluster."""
    data = model.data(rows)
    if level == 1 < model.top:
        mean, cov, which = data.unit_posterior(*model.units(rows))
        core = core_order(model, level)
        order = [core.index(name) for name in model.latent(level)]
        return Scores(model.latent(level), mean[:, order], cov[:, order][:, :, order], which)
    return cluster_scores(model, rows, level).part(len(model.parts(level)), None)


def core_order(model: GroupModel, level: int) -> list[str]:
    """Latent variables of a level as the core has them: those that the likelihood knows of first."""
    exposed = model.statistics.exposed.get(level, ())
    return sorted(model.latent(level), key=lambda name: name not in exposed)


def random_effects(model: GroupModel, rows: Rows, level: int) -> Scores:
    """Posterior means and covariances of the parts at a level of the variables that are measured below it."""
    return cluster_scores(model, rows, level).part(0, len(model.parts(level)))


def cluster_scores(model: GroupModel, rows: Rows, level: int | None = None) -> Scores:
    """Posterior means and covariances of all that is unknown of a cluster of a level, by default the highest.

    Parts of variables that are measured below, then latent variables.
    """
    at, data = model.top if level is None else level, model.data(rows)
    found = data.cluster_posterior() if at == model.top else data.level_posterior(at)
    return Scores((*model.parts(at), *model.latent(at)), *found)


def bartlett(model: GroupModel, rows: Rows, level: int) -> Scores:
    """Maximum likelihood scores of the latent variables of a level, as fixed quantities of a cluster or unit.

    They are nan where holes leave a variable undetermined that complete data would determine.

    Raises
    ------
    ModelError
        If the observed variables do not determine them.
    """
    m = model.measurement[level]
    names = model.latent(level)
    idle = [name for name, column in zip(names, m.loadings.T, strict=True) if not column.any()]
    if idle:
        raise _undetermined(level, idle, "no observed variable depends on it directly")
    data = model.data(rows)
    try:
        if level < model.top:
            return Scores(names, *data.unit_bartlett(m.loadings, m.residual, *model.units(rows)))
        return Scores(names, *data.cluster_bartlett(m.loadings, m.residual))
    except UnsupportedError:
        raise
    except ValueError as error:
        raise _undetermined(level, names, str(error)) from None


def _undetermined(level: int, names: Sequence[str], why: str) -> ModelError:
    listed = " and ".join(repr(name) for name in names)
    return ModelError(
        f"maximum likelihood scores of {listed} at level {level} are not defined: {why}; "
        'use method="EBM", the posterior mean'
    )
