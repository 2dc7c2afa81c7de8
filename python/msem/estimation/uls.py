"""Unweighted least squares for single-level models, with standard errors and a test that hold for normal data."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import vech, vech_index
from msem.data.sample import Sample
from msem.estimation.discrepancy import (
    LevelDiscrepancy,
    least_squares_loss,
    least_squares_weight,
    normal_gamma,
    residual_statistic,
)
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.sampling import Sampling, sampling_covariance
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]


def fit_uls(
    table: ParameterTable, sample: Sample, *, max_iterations: int, tolerance: float
) -> tuple[Estimate, LevelDiscrepancy, Sampling]:
    """Minimise the sum of squared residuals of means and covariances, in the units of the variables.

    Parameters
    ----------
    table : ParameterTable
        Of a single-level model.
    sample : Sample
    max_iterations : int
    tolerance : float

    Returns
    -------
    Estimate
    LevelDiscrepancy
        For tests.
    Sampling
        Sandwich covariance with the normal-theory covariance of the sample moments (Browne, 1984).
    """
    observed, means = sample.levels[0][1], table.meanstructure
    unit = np.ones(len(observed.names))
    loss = least_squares_loss(observed.cov, observed.mean if means else None, unit)
    found = estimate(table, sample, loss=loss, max_iterations=max_iterations, tolerance=tolerance)
    implied = found.objective.moments(found.theta)[1].observed
    jacobian = found.objective.core.jacobian(found.theta, 0)
    residual = vech(observed.cov - implied.cov)
    if means:
        residual = np.concatenate([observed.mean - implied.mean, residual])
    else:
        jacobian = jacobian[len(unit) :]
    nobs = sample.nobs
    gamma = normal_gamma(observed.cov, means, random_moments(table, observed.names, means)) / nobs
    weight = least_squares_weight(unit, means)
    checked = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    kept = np.flatnonzero(np.isfinite(checked.vcov.diagonal()))
    solution = LevelDiscrepancy(
        residual,
        jacobian[:, kept],
        weight,
        gamma,
        nobs,
        nobs * float(residual @ weight @ residual),
        residual_statistic(residual, jacobian[:, kept], gamma),
    )
    vcov = np.full_like(checked.vcov, np.nan)
    if len(kept):
        vcov[np.ix_(kept, kept)] = solution.covariance()
    return found, solution, Sampling(vcov, checked.unidentified, checked.positive_definite)


def random_moments(table: ParameterTable, names: tuple[str, ...], means: bool) -> NDArray[np.bool_]:
    """Which moments are not those of fixed covariates: means if modelled, lower triangle by column."""
    exo = np.isin(names, table.exogenous(1))
    row, col = vech_index(len(names))
    random = ~(exo[row] & exo[col])
    return np.concatenate([~exo, random]) if means else random
