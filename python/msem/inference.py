"""Sampling covariance of the estimates from an information matrix, and what the information does not identify."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from msem.objective import Objective
from msem.sample import ClusterArrays

Floats = NDArray[np.float64]
Information = Literal["observed", "expected", "first_order"]

RANK_TOLERANCE = 1e-11  # relative singular value of the scaled information factor
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

    The expected information is used in the factored form F'F, so that covariates with huge means do not make it
    look singular; the observed information is formed in the basis in which the expected one is the identity.

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
    basis, null = whitening_basis(objective.core.information_factor(theta)[:, free])
    lost = tuple(int(free[i]) for i in np.flatnonzero(null > INVOLVED))
    full = np.zeros((npar, basis.shape[1]))
    full[free] = basis
    positive = True
    if information == "expected":
        inverse = np.eye(basis.shape[1])
    else:
        whitened = _whitened_information(objective, theta, information, full, clusters)
        inverse, positive = _inverse(whitened)
    known = full @ inverse @ full.T
    kept = np.setdiff1d(free, lost)
    vcov[np.ix_(kept, kept)] = known[np.ix_(kept, kept)]
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


def _whitened_information(
    objective: Objective,
    theta: Floats,
    information: Information,
    basis: Floats,
    clusters: ClusterArrays | None,
) -> Floats:
    if information == "observed":
        return objective.core.observed_information_in(theta, basis)
    if clusters is None:
        raise ValueError("first-order information needs the statistics of the single clusters")
    scores = objective.core.scores(theta, clusters.sizes, clusters.means, clusters.within)
    whitened = scores @ basis
    outer: Floats = whitened.T @ whitened
    return outer


def _inverse(information: Floats) -> tuple[Floats, bool]:
    """Inverse by eigenvalues; nan when it is not positive definite."""
    values, vectors = np.linalg.eigh(0.5 * (information + information.T))
    if not np.all(np.isfinite(values)) or values[0] <= 1e-10 * values[-1]:
        return np.full_like(information, np.nan), False
    return (vectors / values) @ vectors.T, True
