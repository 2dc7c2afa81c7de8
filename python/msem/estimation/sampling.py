"""Sampling covariance of the estimates from an information matrix, and what the information does not identify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.statistics import Clusters
from msem.estimation.constraints import elimination_basis
from msem.estimation.estimate import Estimate
from msem.estimation.objective import Objective
from msem.estimation.scoreproducts import score_products
from msem.settings import Information

Floats = NDArray[np.float64]
Bread = Information | Literal["moments"]

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
    trace : float
        tr(A^-1 B) of a sandwich: the number of free parameters if the model held for independent normal clusters. nan
        for other standard errors.
    """

    vcov: Floats
    unidentified: tuple[int, ...]
    positive_definite: bool
    trace: float = np.nan


def sampling_covariance(
    objective: Objective,
    theta: Floats,
    information: Bread = "observed",
    tangent: Floats | None = None,
    clusters: Sequence[Clusters] | None = None,
    *,
    robust: bool = False,
) -> Sampling:
    """Inverse information or sandwich at theta, over the directions T in which theta is free to move.

    T (T'AT)^-1 T' with the information A or, robust, T (T'AT)^-1 T'BT (T'AT)^-1 T' with the sum B over clusters of
    outer products of scores (Huber, 1967; White, 1982).

    Constraints enter by these directions only (Aitchison & Silvey, 1958); the curvature of nonlinear ones has no part
    in it. Parameters that equality constraints determine have no variance.

    Where the expected information is close to singular it is used in the factored form F'F, so that covariates with
    huge means do not look like parameters that are not identified; the observed information is then formed in the
    basis in which the expected one is the identity.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    information : {"observed", "expected", "first_order", "moments"}
        "first_order" is B and needs `clusters`. "moments" is the observed information about the moments at those
        implied, as if they were linear in the parameters.
    tangent : ndarray, shape (npar, m), optional
        Basis T of these directions; default: all parameters are free. See `Estimate.tangent`.
    clusters : sequence of ClusterArrays or IncompleteClusters, optional
        Of each group.
    robust : bool
        The sandwich; needs `clusters`.

    Returns
    -------
    Sampling
    """
    npar = len(theta)
    t = np.eye(npar) if tangent is None else tangent
    if not t.shape[1]:
        stuck = _stuck(objective, theta, t)
        return Sampling(_spread(np.zeros((npar, npar)), stuck), (), True, 0.0 if robust else np.nan)
    lost: tuple[int, ...] = ()
    inverse, pivot = _core.scaled_inverse(_along(objective.core.expected_information(theta), t))
    basis, careful = t, pivot <= SMALL_PIVOT
    if careful:
        basis, lost = _identified(objective.core.information_factor(theta), t)
        inverse = np.eye(basis.shape[1])
    positive = True
    if information == "first_order":
        inverse, positive = _inverse(
            score_products(objective, theta, clusters, None if _is_identity(basis) else basis)
        )
    elif information != "expected":
        inverse, positive = _inverse(_information_in(objective, theta, information, basis, careful))
    trace = np.nan
    if robust:
        products = score_products(objective, theta, clusters, None if _is_identity(basis) else basis)
        trace = float(np.sum(inverse * products))
        inverse = inverse @ products @ inverse
    return Sampling(
        _spread(_along(inverse, basis.T), _stuck(objective, theta, t), lost), lost, positive, trace
    )


def _stuck(objective: Objective, theta: Floats, tangent: Floats) -> NDArray[np.bool_]:
    """Parameters that could not move, but for those that equality constraints determine, which have no error."""
    stuck: NDArray[np.bool_] = np.all(tangent == 0, axis=1)
    if objective.constraints is not None and stuck.any():
        free = elimination_basis(objective.constraints.equalities.jacobian(theta))
        stuck &= np.any(free != 0, axis=1)
    return stuck


def _is_identity(t: Floats) -> bool:
    return t.shape[0] == t.shape[1] and np.array_equal(t, np.eye(len(t)))


def _along(matrix: Floats, t: Floats) -> Floats:
    """T' M T; a copy of M where T is the identity, as it is without constraints and bounds."""
    out: Floats = matrix.copy() if _is_identity(t) else t.T @ matrix @ t
    return out


def _spread(vcov: Floats, stuck: NDArray[np.bool_], lost: Sequence[int] = ()) -> Floats:
    """The covariance matrix with nan for parameters at bounds or not identified."""
    gone = stuck.copy()
    gone[list(lost)] = True
    vcov[gone] = vcov[:, gone] = np.nan
    return vcov


def _identified(factor: Floats, tangent: Floats) -> tuple[Floats, tuple[int, ...]]:
    """Basis of the identified directions in which the information is 1, and the parameters that are not identified."""
    basis, null = whitening_basis(factor @ tangent)
    moved = np.linalg.norm(factor, axis=0)[:, None] * (tangent @ null)
    moved[(moved == 0) & (tangent @ null != 0)] = 1.0  # no information at all
    return tangent @ basis, tuple(int(i) for i in np.flatnonzero(np.linalg.norm(moved, axis=1) > INVOLVED))


def _information_in(
    objective: Objective, theta: Floats, information: Bread, basis: Floats, careful: bool
) -> Floats:
    """Observed information over the columns of the basis."""
    if information == "moments":
        return _along(objective.core.moment_information(theta), basis)
    if careful:
        return objective.core.observed_information_in(theta, basis)
    return _along(objective.core.observed_information(theta), basis)


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


def free_directions(fit: Estimate) -> Floats:
    """Basis of the directions in which a model is free, in which its information is the identity."""
    if not fit.tangent.shape[1]:
        return fit.tangent
    factor = fit.objective.core.information_factor(fit.theta)
    out: Floats = fit.tangent @ whitening_basis(factor @ fit.tangent)[0]
    return out


def _inverse(information: Floats) -> tuple[Floats, bool]:
    """Inverse, or nan when the matrix is not positive definite."""
    inverse, pivot = _core.scaled_inverse(information)
    if pivot > SINGULAR:
        return inverse, True
    return np.full_like(information, np.nan), False
