"""Likelihood fits to saturated moments whose sampling covariance is not the inverse of their information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.data.saturated import saturated_information
from msem.estimation.objective import Objective
from msem.postestimation.moments import implied_moments

Floats = NDArray[np.float64]


def robust_likelihood(
    objective: Objective, theta: Floats, gamma: Floats, given: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """Sandwich covariance of the estimates, and the mean of the likelihood-ratio statistic of a true model.

    The score at the estimates is J'A(m - mu) for saturated moments m with information A, so its covariance is
    J'A Gamma A J; the statistic is asymptotically a weighted sum of chi-squares with mean tr(A^-1 B) - tr(I^-1 J'BJ),
    B = A Gamma A (Satorra & Bentler, 1994; Yuan & Bentler, 2007).

    Parameters
    ----------
    objective : Objective
        Of expected statistics.
    theta : ndarray, shape (npar,)
    gamma : ndarray, shape (moments, moments)
        Sampling covariance of the saturated moments.
    given : ndarray of bool, shape (moments,)
        Moments of fixed covariates.

    Returns
    -------
    vcov : ndarray, shape (npar, npar)
    expectation : float
    """
    (statistics,) = objective.statistics
    implied, j = implied_moments(objective, theta)
    a = saturated_information(implied, statistics, "expected")
    meat = a @ gamma @ a
    bread = np.linalg.inv(j.T @ a @ j)
    inner = j.T @ meat @ j
    free = np.ix_(~given, ~given)
    expectation = np.trace(np.linalg.solve(a[free], meat[free])) - np.trace(bread @ inner)
    return bread @ inner @ bread, float(expectation)
