"""Sampling covariance of the estimates from an information matrix, and what the information does not identify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.estimation.objective import Objective
from msem.sample.sufficient import ClusterArrays

Floats = NDArray[np.float64]
Information = Literal["observed", "expected", "first_order"]

RANK_TOLERANCE = 1e-11  # relative singular value of the scaled information factor
# Squared pivots of an information matrix in correlation metric:
SMALL_PIVOT = 1e-8  # below it the factored form of the expected information is used
SINGULAR = 1e-10  # below it a matrix is not positive definite
INVOLVED = 0.05  # share in a null direction from which a parameter is named


@dataclass(frozen=True, eq=False)
class Sampling:
    """Sampling covariance of the estimates.

    Attributes
    ----------
    vcov : ndarray, shape (npar, npar)
        nan for parameters that are not identified, at a bound, or when the information is not positive
        definite.
    unidentified : tuple of int
        Parameters that the information cannot tell apart.
    positive_definite : bool
        Whether the information is, over the parameters that are free.
    """

    vcov: Floats
    unidentified: tuple[int, ...]
    positive_definite: bool


def sampling_covariance(
    objective: Objective,
    theta: Floats,
    information: Information = "observed",
    active: NDArray[np.intp] | None = None,
    clusters: ClusterArrays | None = None,
) -> Sampling:
    """Inverse information at theta.

    Where the expected information is close to singular it is used in the factored form F'F, so that covariates with
    huge means do not look like parameters that are not identified; the observed information is then formed in the
    basis in which the expected one is the identity.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    information : {"observed", "expected", "first_order"}
        "first_order" is the sum over clusters of outer products of scores and needs `clusters`.
    active : ndarray of int, optional
        Parameters at a bound, which are held there.
    clusters : ClusterArrays, optional

    Returns
    -------
    Sampling
    """
    npar = len(theta)
    free = np.arange(npar) if active is None else np.flatnonzero(np.asarray(active) == 0)
    vcov = np.full((npar, npar), np.nan)
    if not len(free):
        return Sampling(vcov, (), True)
    pick = np.ix_(free, free)
    expected = objective.core.expected_information(theta)[pick]
    inverse, pivot = _core.scaled_inverse(expected)
    if pivot > SMALL_PIVOT:
        positive = True
        if information == "observed":
            inverse, positive = _inverse(objective.core.observed_information(theta)[pick])
        elif information == "first_order":
            inverse, positive = _inverse(_outer_product(objective, theta, clusters, np.eye(npar)[:, free]))
        vcov[pick] = inverse
        return Sampling(vcov, (), positive)
    return _careful_covariance(objective, theta, information, free, clusters)


def _careful_covariance(
    objective: Objective,
    theta: Floats,
    information: Information,
    free: NDArray[np.intp],
    clusters: ClusterArrays | None,
) -> Sampling:
    """The same when the information is singular, or only looks so."""
    npar = len(theta)
    vcov = np.full((npar, npar), np.nan)
    basis, null = whitening_basis(objective.core.information_factor(theta)[:, free])
    lost = tuple(int(free[i]) for i in np.flatnonzero(null > INVOLVED))
    full = np.zeros((npar, basis.shape[1]))
    full[free] = basis
    if information == "observed":
        inverse, positive = _inverse(objective.core.observed_information_in(theta, full))
    elif information == "first_order":
        inverse, positive = _inverse(_outer_product(objective, theta, clusters, full))
    else:
        inverse, positive = np.eye(basis.shape[1]), True
    kept = np.setdiff1d(free, lost)
    vcov[np.ix_(kept, kept)] = (full @ inverse @ full.T)[np.ix_(kept, kept)]
    return Sampling(vcov, lost, positive)


def whitening_basis(factor: Floats) -> tuple[Floats, Floats]:
    """Columns T with (F T)'(F T) = I, spanning what F identifies, and each parameter's share in the rest.

    Parameters
    ----------
    factor : ndarray, shape (rows, k)

    Returns
    -------
    basis : ndarray, shape (k, rank)
    null : ndarray, shape (k,)
        0 for a parameter that is identified.
    """
    norm = np.sqrt(np.einsum("ij,ij->j", factor, factor))
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    triangle = np.linalg.qr(factor * scale, mode="r")
    _, singular, right = np.linalg.svd(triangle)
    singular = np.append(singular, np.zeros(len(right) - len(singular)))
    # A covariate with mean 1e8 gives a singular value of 1e-8, which the QR factorisation still resolves.
    kept = singular > RANK_TOLERANCE * singular[0]
    null = np.sqrt(np.einsum("ij,ij->j", right[~kept], right[~kept]))
    null[norm == 0] = 1.0
    basis = scale[:, None] * (right[kept].T / singular[kept])
    return basis, null


def _outer_product(
    objective: Objective, theta: Floats, clusters: ClusterArrays | None, basis: Floats
) -> Floats:
    """Sum over clusters of outer products of scores along the columns of the basis."""
    if clusters is None:
        raise ValueError("first-order information needs the statistics of the single clusters")
    scores = objective.core.scores(theta, clusters.sizes, clusters.means, clusters.within) @ basis
    outer: Floats = scores.T @ scores
    return outer


def _inverse(information: Floats) -> tuple[Floats, bool]:
    """Inverse, or nan when the matrix is not positive definite."""
    inverse, pivot = _core.scaled_inverse(information)
    if pivot > SINGULAR:
        return inverse, True
    return np.full_like(information, np.nan), False
