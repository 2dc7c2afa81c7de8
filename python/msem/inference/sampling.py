"""Sampling covariance of the estimates from an information matrix, and what the information does not identify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.estimation.constraints import elimination_basis
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
        nan for parameters that are not identified, that could not move, or when the information is not positive
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
    tangent: Floats | None = None,
    clusters: Sequence[ClusterArrays] | None = None,
) -> Sampling:
    """Inverse information at theta: T (T'IT)^-1 T' over the directions T in which theta is free to move.

    Constraints enter by these directions only (Aitchison & Silvey, 1958); the curvature of nonlinear ones has no part
    in it. Parameters that equality constraints determine have no variance.

    Where the expected information is close to singular it is used in the factored form F'F, so that covariates with
    huge means do not look like parameters that are not identified; the observed information is then formed in the
    basis in which the expected one is the identity.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    information : {"observed", "expected", "first_order"}
        "first_order" is the sum over clusters of outer products of scores and needs `clusters`.
    tangent : ndarray, shape (npar, m), optional
        Basis T of these directions; default: all parameters are free. See `Estimate.tangent`.
    clusters : sequence of ClusterArrays, optional
        Of each group.

    Returns
    -------
    Sampling
    """
    npar = len(theta)
    t = np.eye(npar) if tangent is None else tangent
    if not t.shape[1]:
        return Sampling(_spread(np.zeros((npar, npar)), _stuck(objective, theta, t)), (), True)
    inverse, pivot = _core.scaled_inverse(t.T @ objective.core.expected_information(theta) @ t)
    if pivot > SMALL_PIVOT:
        positive = True
        if information == "observed":
            inverse, positive = _inverse(t.T @ objective.core.observed_information(theta) @ t)
        elif information == "first_order":
            inverse, positive = _inverse(_outer_product(objective, theta, clusters, t))
        return Sampling(_spread(t @ inverse @ t.T, _stuck(objective, theta, t)), (), positive)
    return _careful_covariance(objective, theta, information, t, clusters)


def _stuck(objective: Objective, theta: Floats, tangent: Floats) -> NDArray[np.bool_]:
    """Parameters that could not move, but for those that equality constraints determine, which have no error."""
    stuck: NDArray[np.bool_] = np.all(tangent == 0, axis=1)
    if objective.constraints is not None and stuck.any():
        free = elimination_basis(objective.constraints.equalities.jacobian(theta))
        stuck &= np.any(free != 0, axis=1)
    return stuck


def _spread(vcov: Floats, stuck: NDArray[np.bool_], lost: Sequence[int] = ()) -> Floats:
    """The covariance matrix with nan for parameters at bounds or not identified."""
    gone = stuck.copy()
    gone[list(lost)] = True
    vcov[gone] = vcov[:, gone] = np.nan
    return vcov


def _careful_covariance(
    objective: Objective,
    theta: Floats,
    information: Information,
    tangent: Floats,
    clusters: Sequence[ClusterArrays] | None,
) -> Sampling:
    """The same when the information is singular, or only looks so."""
    factor = objective.core.information_factor(theta)
    basis, null = whitening_basis(factor @ tangent)
    full = tangent @ basis
    moved = np.linalg.norm(factor, axis=0)[:, None] * (tangent @ null)
    moved[(moved == 0) & (tangent @ null != 0)] = 1.0  # no information at all
    lost = tuple(int(i) for i in np.flatnonzero(np.linalg.norm(moved, axis=1) > INVOLVED))
    if information == "observed":
        inverse, positive = _inverse(objective.core.observed_information_in(theta, full))
    elif information == "first_order":
        inverse, positive = _inverse(_outer_product(objective, theta, clusters, full))
    else:
        inverse, positive = np.eye(basis.shape[1]), True
    stuck = _stuck(objective, theta, tangent)
    return Sampling(_spread(full @ inverse @ full.T, stuck, lost), lost, positive)


def whitening_basis(factor: Floats) -> tuple[Floats, Floats]:
    """Columns T with (F T)'(F T) = I, spanning what F identifies, and directions that span the rest.

    Parameters
    ----------
    factor : ndarray, shape (rows, k)

    Returns
    -------
    basis : ndarray, shape (k, rank)
    null : ndarray, shape (k, k - rank)
    """
    norm = np.sqrt(np.einsum("ij,ij->j", factor, factor))
    scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
    triangle = np.linalg.qr(factor * scale, mode="r")
    _, singular, right = np.linalg.svd(triangle)
    singular = np.append(singular, np.zeros(len(right) - len(singular)))
    # A covariate with mean 1e8 gives a singular value of 1e-8, which the QR factorisation still resolves.
    kept = singular > RANK_TOLERANCE * singular[0]
    null = np.where(norm > 0, scale, 1.0)[:, None] * right[~kept].T
    basis = scale[:, None] * (right[kept].T / singular[kept])
    return basis, null


def _outer_product(
    objective: Objective, theta: Floats, clusters: Sequence[ClusterArrays] | None, basis: Floats
) -> Floats:
    """Sum over clusters of outer products of scores along the columns of the basis."""
    if clusters is None:
        raise ValueError("first-order information needs the statistics of the single clusters")
    outer = np.zeros((basis.shape[1],) * 2)
    for group, c in enumerate(clusters):
        scores = objective.core.scores(theta, c.sizes, c.means, c.within, group) @ basis
        outer += scores.T @ scores
    return outer


def _inverse(information: Floats) -> tuple[Floats, bool]:
    """Inverse, or nan when the matrix is not positive definite."""
    inverse, pivot = _core.scaled_inverse(information)
    if pivot > SINGULAR:
        return inverse, True
    return np.full_like(information, np.nan), False
