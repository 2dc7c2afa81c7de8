"""Likelihood fits to saturated moments whose sampling covariance is not the inverse of their information."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem.estimation.objective import Objective
from msem.moments.gamma import saturated_information, vech

Floats = NDArray[np.float64]


def moment_jacobian(objective: Objective) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where the moments of each level, in the order of `Objective.core.jacobian`, stand among all saturated ones.

    Returns
    -------
    within, between : ndarray of int
        Position of each mean, then of each covariance, in the order of `moments.gamma.moment_names`.
    """
    (s,) = objective.statistics
    p, nboth, q = len(s.unit), s.nboth, len(s.cluster)
    nb = nboth + q
    first_b = p * (p + 1) // 2
    first_mean = first_b + nb * (nb + 1) // 2
    means = first_mean + np.arange(p + q)
    within = np.concatenate([means[:p], np.arange(first_b)])
    between = np.concatenate([means[:nboth], means[p:], np.arange(first_b, first_mean)])
    return within, between


def saturated_jacobian(objective: Objective, theta: Floats) -> Floats:
    """Derivatives of all implied moments in the order of `moments.gamma.moment_names`, shape (moments, npar)."""
    within, between = moment_jacobian(objective)
    out = np.zeros((max(between.max(), within.max()) + 1, objective.table.npar))
    for block, positions in enumerate((within, between)):
        # the within and the between mean of a variable are identified by their sum only
        np.add.at(out, positions, objective.core.jacobian(theta, block))
    return out


def implied_vector(objective: Objective, theta: Floats) -> Floats:
    """Implied moments in the same order."""
    within, between = moment_jacobian(objective)
    moments = objective.moments(theta)
    out = np.zeros(max(between.max(), within.max()) + 1)
    for level, positions in ((1, within), (2, between)):
        part = moments[level].observed
        np.add.at(out, positions, np.concatenate([part.mean, vech(part.cov)]))
    return out


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
    a = saturated_information(implied_vector(objective, theta), statistics, "expected")
    j = saturated_jacobian(objective, theta)
    meat = a @ gamma @ a
    bread = np.linalg.inv(j.T @ a @ j)
    inner = j.T @ meat @ j
    free = np.ix_(~given, ~given)
    expectation = np.trace(np.linalg.solve(a[free], meat[free])) - np.trace(bread @ inner)
    return bread @ inner @ bread, float(expectation)
