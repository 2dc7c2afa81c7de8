"""Structural-after-measurement: moments of latent variables, the structural part, and standard errors of both steps.

Var(eta) = M (S - Theta) M', with the saturated covariance matrix S of a level and M Lambda = I (Rosseel & Loh, 2022,
Psychological Methods). Estimates are functions of the blocks' parameters and of the saturated moments, each of which
has influence functions; so has what is computed of them, by the chain rule, whatever the mapping, the discrepancy, and
whether the model holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech, vech_index
from msem.data.complete import single_level_statistics
from msem.data.sample import Group, IndefiniteGroup, Sample
from msem.data.statistics import Saturated
from msem.errors import ModelError
from msem.estimation.discrepancy import (
    is_positive_definite,
    least_squares_loss,
    least_squares_weight,
    normal_weight,
)
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.evidence import inverse_within
from msem.estimation.measurement import (
    FittedBlock,
    LevelMeasurement,
    level_measurement,
    mapping,
    measures,
    structural_names,
    weighs,
)
from msem.estimation.moment_vector import moment_keys
from msem.model.partable import Parameter, ParameterTable

Floats = NDArray[np.float64]
STEP = 1e-30  # of complex differentiation: exact to rounding


@dataclass(frozen=True, eq=False)
class LatentLevel:
    """Moments of the structural variables of one level of one group.

    Attributes
    ----------
    level, group : int
    names : tuple of str
        Latent ones first.
    cov : ndarray, shape (k, k)
    by_blocks : list of (int, ndarray)
        Number of a block, and the derivatives of the lower triangle of `cov` by its parameters.
    by_moments : ndarray, shape (k (k + 1) / 2, moments)
        Its derivatives by the saturated moments of the group, in the order of `moment_keys`.
    unweighted : tuple of str
        Factors whose indicators could not be weighted by their residual variances.
    nobs : float
    """

    level: int
    group: int
    names: tuple[str, ...]
    cov: Floats
    by_blocks: list[tuple[int, Floats]]
    by_moments: Floats
    unweighted: tuple[str, ...]
    nobs: float


def latent_level(
    table: ParameterTable, blocks: Sequence[FittedBlock], sample: Sample, level: int, group: int
) -> LatentLevel:
    """Moments of the structural variables of a level, from the whole saturated matrix."""
    own = sample.groups[group - 1]
    moments, names = own.levels[level], structural_names(table, level, group)
    observed = moments.names[: moments.nobserved]
    at, to = {n: i for i, n in enumerate(observed)}, {n: i for i, n in enumerate(names)}
    sigma = moments.cov[: len(observed), : len(observed)]
    whole = np.zeros((len(names), len(observed)))
    theta = np.zeros_like(sigma)
    parts: list[tuple[int, LevelMeasurement, bool]] = []
    unweighted: list[str] = []
    for name in names:
        if name in at:
            whole[to[name], at[name]] = 1.0
    for number, block in enumerate(blocks):
        part = level_measurement(block.block, level, group)
        if not part.factors:
            continue
        loadings, residuals = part.matrices(block.values)
        y, f = [at[n] for n in part.indicators], [to[n] for n in part.factors]
        weighted = weighs(np.asarray(residuals, dtype=float), sigma[np.ix_(y, y)])
        if not weighted:
            unweighted += part.factors
        whole[np.ix_(f, y)] = np.asarray(mapping(loadings, residuals, weighted=weighted), dtype=float)
        theta[np.ix_(y, y)] = np.asarray(residuals, dtype=float)
        parts.append((number, part, weighted))
    row, col = vech_index(len(names))
    by_blocks = []
    for number, part, weighted in parts:
        y, f = [at[n] for n in part.indicators], [to[n] for n in part.factors]
        values, t = blocks[number].values, blocks[number].block.table
        free = np.array([r.free for r in t.rows])
        steps = np.zeros((t.npar, len(values)), dtype=np.complex128)
        steps[free[free > 0] - 1, np.flatnonzero(free > 0)] = 1j * STEP
        loadings, residuals = part.matrices(values + steps)
        m = np.broadcast_to(whole, (t.npar, *whole.shape)).astype(np.complex128)
        e = np.broadcast_to(theta, (t.npar, *theta.shape)).astype(np.complex128)
        m[np.ix_(range(t.npar), f, y)] = mapping(loadings, residuals, weighted=weighted)
        e[np.ix_(range(t.npar), y, y)] = residuals
        moved = m @ (sigma - e) @ np.swapaxes(m, -1, -2)
        by_blocks.append((number, moved.imag[:, row, col].T / STEP))
    keys = moment_keys(own.statistics.variables, group)
    by_moments = np.zeros((len(row), len(keys)))
    for k, key in enumerate(keys):
        if key.op == "~~" and key.level == level:
            i, j = at[key.lhs], at[key.rhs]
            left, right = whole[:, i], whole[:, j]
            change = np.outer(left, right) + (np.outer(right, left) if i != j else 0.0)
            by_moments[:, k] = change[row, col]
    cov = whole @ (sigma - theta) @ whole.T
    s = own.statistics
    units = (*s.counted, 0.0)  # less the means of clusters that are units of the next level
    nobs = units[level - 1] - units[level] if table.multilevel else s.nobs
    return LatentLevel(level, group, names, cov, by_blocks, by_moments, tuple(unweighted), float(nobs))


def structural_table(
    table: ParameterTable, levels: Sequence[LatentLevel]
) -> tuple[ParameterTable, NDArray[np.intp]]:
    """The structural part as a single-level model with a group for each level of each group, without means.

    Moments of fixed covariates are parameters: their estimates are the saturated moments.

    Returns
    -------
    ParameterTable
    ndarray of int
        For each of its parameters the position in theta of the whole model, or -1.
    """
    numbers: dict[int, int] = {}
    own: list[int] = []
    rows: list[Parameter] = []
    for number, one in enumerate(levels, 1):
        for row in table.block(one.level, one.group):
            if row.op == "~1" or measures(table, row):
                continue
            free = 0
            if row.exo:
                own.append(-1)
                free = len(own)
            elif row.free:
                if row.free not in numbers:
                    own.append(row.free - 1)
                    numbers[row.free] = len(own)
                free = numbers[row.free]
            rows.append(row._replace(level=1, group=number, free=free, exo=False))
    labels = tuple(str(k) for k in range(1, len(levels) + 1)) if len(levels) > 1 else ()
    part = replace(
        table,
        rows=tuple(rows),
        nlevels=1,
        ngroups=len(levels),
        meanstructure=False,
        fixed_x=False,
        group_labels=labels,
        defined=(),
        auxiliary=(),
    )
    return part, np.array(own, dtype=np.intp)


@dataclass(frozen=True, eq=False)
class Structure:
    """The structural part at its estimates.

    Attributes
    ----------
    estimate : Estimate
    own : ndarray of int
        For each of its parameters the position in theta of the whole model, or -1.
    levels : tuple of LatentLevel
    weights : list of ndarray
        Of the lower triangle of each level's covariance matrix, times its sample size.
    normal : bool
        Whether the discrepancy is that of the normal likelihood; else it is least squares.
    """

    estimate: Estimate
    own: NDArray[np.intp]
    levels: tuple[LatentLevel, ...]
    weights: list[Floats]
    normal: bool

    @cached_property
    def jacobians(self) -> list[Floats]:
        """Derivatives of the lower triangle of each level's implied covariance matrix by the parameters."""
        found, out = self.estimate, []
        for number, one in enumerate(self.levels):
            out.append(
                found.objective.core.jacobian(found.theta, number)[len(one.names) :][self._order(number)]
            )
        return out

    def _order(self, number: int) -> NDArray[np.intp]:
        """Where the elements of the lower triangle of `LatentLevel.cov` are in that of the compiled model."""
        one, block = self.levels[number], self.estimate.objective.blocks[number]
        places = np.zeros((len(one.names),) * 2, dtype=np.intp)
        row, col = vech_index(len(one.names))
        places[row, col] = places[col, row] = np.arange(len(row))
        at = [block.names[: block.nobserved].index(name) for name in one.names]
        return places[np.ix_(at, at)][row, col]

    @property
    def residuals(self) -> list[Floats]:
        """Moments less implied ones, the lower triangle of each level."""
        out = []
        for number, one in enumerate(self.levels, 1):
            implied = self.estimate.objective.moments(self.estimate.theta, number)[1].observed
            at = [implied.at[name] for name in one.names]
            out.append(vech(one.cov - implied.cov[np.ix_(at, at)]))
        return out

    @cached_property
    def by_moments(self) -> list[Floats]:
        """Derivatives of the estimates by the lower triangle of each level's covariance matrix."""
        found = self.estimate
        solved = inverse_within(found.tangent, found.objective.core.observed_information(found.theta))
        return [solved @ j.T @ w for j, w in zip(self.jacobians, self.weights, strict=True)]


def fit_structure(
    table: ParameterTable, levels: Sequence[LatentLevel], *, max_iterations: int, tolerance: float
) -> Structure:
    """Fit the structural part to the moments of the latent variables.

    By the normal likelihood, or by least squares where a matrix is not positive definite.

    Raises
    ------
    ModelError
        If that does not converge.
    """
    part, own = structural_table(table, levels)
    normal = all(is_positive_definite(one.cov) for one in levels)
    groups: list[Group] = []
    losses = []
    units = []
    for number, one in enumerate(levels, 1):
        names = part.observed(1, number)
        at = [one.names.index(name) for name in names]
        cov, mean = one.cov[np.ix_(at, at)], np.zeros(len(names))
        unit = np.maximum(np.abs(cov.diagonal()), 1e-8 * max(np.abs(cov.diagonal()).max(), 1e-8))
        units.append(unit[np.argsort(at)])
        some = cov if normal else np.diag(unit)
        statistics = single_level_statistics(some, mean, one.nobs, names)
        label = str(number) if len(levels) > 1 else ""
        if normal:
            groups.append(Group(statistics, label))
            continue
        moments = Saturated({1: LevelArrays(names, mean, cov, len(names))}, np.nan, 0)
        variances = dict(zip(names, unit.tolist(), strict=True))
        groups.append(IndefiniteGroup(statistics, label, moments=moments, unit=variances))
        losses.append(least_squares_loss(cov, None, unit))
    found = estimate(
        part,
        Sample(tuple(groups)),
        loss=None if normal else losses,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    if not found.optimum.converged:
        raise ModelError(
            f"the structural part has not converged ({found.optimum.stop}): simplify it, or use msem.sem for the whole "
            "model"
        )
    out = Structure(found, own, tuple(levels), [], normal)
    weights = []
    for number, one in enumerate(levels, 1):
        implied = found.objective.moments(found.theta, number)[1].observed
        at = [implied.at[name] for name in one.names]
        if normal:
            weights.append(one.nobs * normal_weight(implied.cov[np.ix_(at, at)], means=False))
        else:
            weights.append(least_squares_weight(units[number - 1], means=False))
    return replace(out, weights=weights)
