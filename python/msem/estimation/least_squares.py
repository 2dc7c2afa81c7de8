"""Least squares on saturated moments: one second stage for statistics s with covariance matrix acov(s).

The estimates minimise F = (s - sigma)' W (s - sigma), with W the inverse of acov(s) ("WLS"; Browne, 1984), of its
diagonal ("DWLS"), of the covariance matrix of the moments of normal variables ("GLS"), or the identity times the number
of units ("ULS"). With H = (D'WD)^-1, D the derivatives of sigma, the sampling covariance matrix is H D'W acov W D H
whatever W is (Satorra & Bentler, 1994; Muthen, 1993). The moments of fixed covariates among themselves are not among
the statistics, and acov(s) is conditional on them. Where variables are at both levels, s are the saturated within and
between moments with the joint covariance matrix of both (Rosseel & Loh, 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.sample import Group, Sample
from msem.data.saturated import saturated_core, saturated_information
from msem.data.survey import independent_rows
from msem.errors import DataError
from msem.estimation.discrepancy import LevelDiscrepancy, residual_statistic
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.moment_vector import Moment, given_moments, implied_moments, moment_keys, moment_values
from msem.estimation.sampling import Sampling, free_directions, sampling_covariance
from msem.estimation.scoreproducts import cluster_correction
from msem.model.partable import ParameterTable
from msem.settings import ResolvedSettings, Weighting

Floats = NDArray[np.float64]
COVARIANCE, MEAN = 0, 1  # kinds of statistics, as the core counts them
INVERTIBLE = 1e-11  # squared pivot in correlation metric: below it acov(s) has no inverse


@dataclass(frozen=True, eq=False)
class SecondStage:
    """The statistics of one group, their covariance matrix and weight, and where they stand among all moments.

    Attributes
    ----------
    used : ndarray of int, shape (m,)
        Positions of the statistics among the moments of `moment_keys`.
    total : int
        How many moments there are if means are modelled, or covariances otherwise.
    values : ndarray, shape (m,)
    acov : ndarray, shape (m, m)
    weight : ndarray, shape (m, m) or (m, 1)
        W, or its diagonal as a column.
    likelihood : _core.LeastSquares
    """

    used: NDArray[np.intp]
    total: int
    values: Floats
    acov: Floats
    weight: Floats
    likelihood: _core.LeastSquares

    @property
    def full_weight(self) -> Floats:
        """W, shape (m, m)."""
        return np.diag(self.weight[:, 0]) if self.weight.shape[1] == 1 else self.weight


@dataclass(frozen=True, eq=False, kw_only=True)
class LeastSquaresSolution(LevelDiscrepancy):
    """A solution for all groups and levels; its vectors have zeros for moments of fixed covariates.

    Attributes
    ----------
    stages : tuple of SecondStage
        One for each group.
    normal : bool
        Whether acov(s) is that of normal variables.
    weighting : {"ULS", "DWLS", "WLS", "GLS"}
    """

    stages: tuple[SecondStage, ...]
    normal: bool
    weighting: Weighting

    def of(self, fit: Estimate) -> LeastSquaresSolution:
        """The same for another model of these statistics, such as the baseline model."""
        return solution_at(fit, self.stages, self.weighting, normal=self.normal)

    @property
    def likelihoods(self) -> list[_core.Likelihood]:
        """The discrepancy of each group, to be minimised for another model."""
        return [stage.likelihood for stage in self.stages]

    @cached_property
    def contributions(self) -> list[float]:
        """What each group adds to the minimum."""
        ends = np.cumsum([0, *(stage.total for stage in self.stages)])
        parts = (slice(a, b) for a, b in pairwise(ends))
        return [float(self.residual[p] @ self.weight[p, p] @ self.residual[p]) for p in parts]


def moment_covariance(
    group: Group, table: ParameterTable, keys: Sequence[Moment], used: NDArray[np.intp], *, robust: bool
) -> Floats:
    """Sampling covariance matrix of some saturated moments, the others given.

    A^-1 of the information about these moments or, robust, A^-1 M A^-1 with the sum M over clusters of outer products
    of scores. A is the expected information for complete data, as in lavaan, and the observed one otherwise.
    """
    s, values = group.statistics, moment_values(group.statistics, group.levels)
    information = saturated_information(values, s, "expected" if s.complete else "observed")
    inverse, pivot = _core.scaled_inverse(
        information[np.ix_(used, used)] if information.size else information
    )
    if not pivot > 0:
        raise DataError(
            "the saturated moments have no covariance matrix, since their information is not positive definite: there "
            'are too few clusters for so many variables; use estimator="ML"'
        )
    if not robust:
        return inverse
    c = group.clusters
    scores = c.scores(saturated_core(s, c), values)[:, used]
    influence = independent_rows(scores @ inverse, c.sampled)
    out: Floats = influence.T @ influence * cluster_correction(table, c)
    return out


def second_stage(
    table: ParameterTable, group: Group, number: int, weighting: Weighting, *, robust: bool
) -> SecondStage:
    """Statistics of continuous variables: the saturated moments that are not of fixed covariates alone.

    Raises
    ------
    DataError
        If there is no saturated maximum, or acov(s) has no inverse where one is needed.
    """
    s = group.statistics
    if not group.saturated.converged:
        raise DataError(
            "least squares needs saturated moments, and the saturated model has no maximum: there are too few clusters "
            'for so many variables; use estimator="ML"'
        )
    keys = moment_keys(s, number)
    if not table.meanstructure:
        keys = tuple(key for key in keys if key.op == "~~")
    used = np.flatnonzero(~given_moments(table, keys))
    values = moment_values(s, group.levels)[: len(keys)][used]
    acov = moment_covariance(group, table, keys, used, robust=robust)
    weight = weight_matrix(acov, weighting, group, number, keys, used)
    at = {name: i for i, name in enumerate(s.variables.names)}
    statistics = [
        (MEAN, 0, at[key.lhs], 0) if key.op == "~1" else (COVARIANCE, key.level - 1, at[key.lhs], at[key.rhs])
        for key in (keys[k] for k in used)
    ]
    levels = [[at[name] for name in names] for names in s.variables.levels]
    likelihood = _core.LeastSquares(levels, len(at), statistics, values, weight, [], [])
    return SecondStage(used, len(keys), values, acov, weight, likelihood)


def weight_matrix(
    acov: Floats,
    weighting: Weighting,
    group: Group,
    number: int,
    keys: Sequence[Moment],
    used: NDArray[np.intp],
) -> Floats:
    """W, or its diagonal as a column."""
    if weighting == "ULS":
        return np.full((len(acov), 1), group.statistics.nobs)
    if weighting == "DWLS":
        return 1 / acov.diagonal()[:, None]
    if weighting == "GLS":
        values = moment_values(group.statistics, group.levels)
        information = saturated_information(
            values, group.statistics, "expected" if group.statistics.complete else "observed"
        )
        return information[np.ix_(used, used)]
    inverse, pivot = _core.scaled_inverse(acov)
    if not pivot > INVERTIBLE:
        independent = group.nlevel2 if group.statistics.unit else group.nobs
        raise DataError(
            f"the covariance matrix of the {len(acov)} statistics"
            + (f" of group {number}" if number > 1 else "")
            + ' has no inverse, which estimator="WLS" weights by: it needs more independent units than statistics, '
            f'and there are {independent:.0f}; use estimator="WLSMV" or "ULSMV"'
        )
    return inverse


def fit_least_squares(
    table: ParameterTable, sample: Sample, weighting: Weighting, settings: ResolvedSettings
) -> tuple[Estimate, LeastSquaresSolution, Sampling]:
    """Minimise the weighted squares of the residuals of the saturated moments.

    Parameters
    ----------
    table : ParameterTable
    sample : Sample
    weighting : {"ULS", "DWLS", "WLS", "GLS"}
    settings : ResolvedSettings
        Robust errors and tests take acov(s) from the single clusters (rows) instead of from the normal distribution.

    Returns
    -------
    Estimate
    LeastSquaresSolution
        For tests.
    Sampling
        Sandwich covariance.
    """
    robust = settings.robust
    stages = tuple(
        second_stage(table, group, number, weighting, robust=robust)
        for number, group in enumerate(sample.groups, 1)
    )
    found = estimate(
        table,
        sample,
        loss=[stage.likelihood for stage in stages],
        max_iterations=settings.max_iterations,
        tolerance=settings.tolerance,
        random_starts=settings.starts,
    )
    solution = solution_at(found, stages, weighting, normal=not robust)
    checked = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    basis = free_directions(found)
    vcov = basis @ solution.covariance() @ basis.T
    return (
        found,
        solution,
        Sampling(
            np.where(np.isnan(checked.vcov), np.nan, vcov), checked.unidentified, checked.positive_definite
        ),
    )


def solution_at(
    fit: Estimate, stages: Sequence[SecondStage], weighting: Weighting, *, normal: bool
) -> LeastSquaresSolution:
    """Residuals of a model that has been fitted, with what its tests are made of."""
    size = sum(stage.total for stage in stages)
    residual, gamma, weight = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
    jacobian = np.zeros((size, fit.table.npar))
    first = 0
    for number, stage in enumerate(stages, 1):
        implied, derivatives = implied_moments(fit.objective, fit.theta, number)
        at = first + stage.used
        residual[at] = stage.values - implied[stage.used]
        jacobian[at] = derivatives[stage.used]
        gamma[np.ix_(at, at)] = stage.acov
        weight[np.ix_(at, at)] = stage.full_weight
        first += stage.total
    jacobian = jacobian @ free_directions(fit)
    value = float(residual @ weight @ residual)
    exact = weighting in ("WLS", "GLS") or (weighting == "ULS" and normal)
    standard = residual_statistic(residual, jacobian, gamma) if weighting == "ULS" and normal else value
    return LeastSquaresSolution(
        residual,
        jacobian,
        weight,
        gamma,
        1.0,
        value,
        standard,
        exact,
        False,
        stages=tuple(stages),
        normal=normal,
        weighting=weighting,
    )
