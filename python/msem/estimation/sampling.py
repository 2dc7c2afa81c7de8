"""Sampling covariance of the estimates from an information matrix, and what the information does not identify."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.statistics import Clusters
from msem.estimation.estimate import Estimate
from msem.estimation.objective import Objective
from msem.estimation.optimize import Border
from msem.estimation.scoreproducts import score_products
from msem.settings import Information

Floats = NDArray[np.float64]
Bread = Information | Literal["moments"]

ERRORS: tuple[Bread, ...] = ("expected", "observed")  # of the core, from 1 on
SINGULAR = 1e-10  # squared pivot in correlation metric: below it a matrix is not positive definite


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
    border: Border | None = None,
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
    border : Border, optional
        Where theta is a maximum on the border of the cone; then T is its tangent.

    Returns
    -------
    Sampling
    """
    npar = len(theta)
    t = np.eye(npar) if tangent is None else tangent
    constraints = None if objective.constraints is None else objective.constraints.core
    if border is not None and t.shape[1]:
        return _on_border(objective, theta, information, border, clusters, robust=robust)
    if information in ERRORS and not robust:
        errors = ERRORS.index(information) + 1
        vcov, lost, positive = _core.sampling_covariance(objective.core, theta, t, errors, constraints)
        return Sampling(vcov, tuple(lost), positive)
    kind = ERRORS.index(information) + 1 if information in ERRORS else 1
    basis, inverse, lost, immovable, positive = _core.inverse_information(
        objective.core, theta, t, kind, constraints
    )
    gone = [*immovable, *lost]
    if not t.shape[1]:
        return Sampling(_spread(np.zeros((npar, npar)), gone), (), True, 0.0 if robust else np.nan)
    directions = None if _is_identity(basis) else basis
    if information == "first_order":
        inverse, positive = _inverse(score_products(objective, theta, clusters, directions))
    elif information == "moments":
        inverse, positive = _inverse(_along(objective.core.moment_information(theta), basis))
    trace = np.nan
    if robust:
        products = score_products(objective, theta, clusters, directions)
        trace = float(np.sum(inverse * products))
        inverse = inverse @ products @ inverse
    vcov = inverse.copy() if directions is None else _along(inverse, basis.T)
    return Sampling(_spread(vcov, gone), tuple(lost), positive, trace)


def _on_border(
    objective: Objective,
    theta: Floats,
    information: Bread,
    border: Border,
    clusters: Sequence[Clusters] | None,
    *,
    robust: bool,
) -> Sampling:
    t = border.tangent
    if information == "moments":
        inverse, positive = _inverse(_along(objective.core.moment_information(theta), t))
    elif information == "first_order":
        inverse, positive = _inverse(score_products(objective, theta, clusters, t))
    else:
        inverse, positive = _inverse(border.observed if information == "observed" else border.expected)
    trace = np.nan
    if robust:
        products = score_products(objective, theta, clusters, t)
        trace = float(np.sum(inverse * products))
        inverse = inverse @ products @ inverse
    gone = np.flatnonzero(~np.any(t != 0, axis=1))
    return Sampling(_spread(t @ inverse @ t.T, gone.tolist()), (), positive, trace)


def _is_identity(t: Floats) -> bool:
    n = len(t)
    return t.shape[1] == n == np.count_nonzero(t) and bool((t.diagonal() == 1).all())


def _along(matrix: Floats, t: Floats) -> Floats:
    """T' M T; a copy of M where T is the identity, as it is without constraints and bounds."""
    out: Floats = matrix.copy() if _is_identity(t) else t.T @ matrix @ t
    return out


def _spread(vcov: Floats, gone: Sequence[int]) -> Floats:
    """The covariance matrix with nan for parameters at bounds or not identified."""
    vcov[gone] = vcov[:, gone] = np.nan
    return vcov


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
    return _core.whitening_basis(factor)


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
