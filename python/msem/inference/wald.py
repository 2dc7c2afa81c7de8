"""Wald tests of hypotheses about the parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEPENDENT = 1e-8  # relative singular value below which one hypothesis follows from others
CONTRADICTION = 1e-4  # part of a value, in standard errors, that a dependent hypothesis may differ by

__all__ = ["Wald", "wald"]


class Wald(NamedTuple):
    """Test that several functions of the parameters are zero.

    Attributes
    ----------
    statistic : float
    df : int
        Number of hypotheses that do not follow from the others.
    consistent : bool
        False if hypotheses contradict each other.
    """

    statistic: float
    df: int
    consistent: bool


def wald(values: Floats, jacobian: Floats, vcov: Floats) -> Wald:
    """Statistic r' (R V R')^-1 r over the directions in which r can vary (Wald, 1943).

    Parameters
    ----------
    values : ndarray, shape (k,)
        r, the functions at the estimates.
    jacobian : ndarray, shape (k, npar)
        R, their derivatives.
    vcov : ndarray, shape (npar, npar)
        Sampling covariance V of the estimates.

    Returns
    -------
    Wald
        With nan as statistic if the covariance of the functions is not positive semidefinite.
    """
    cov = jacobian @ vcov @ jacobian.T
    se = np.sqrt(cov.diagonal())
    if not (se > 0).any():
        return Wald(np.nan, 0, not values.any())
    unit = np.where(se > 0, se, 1.0)
    root, vectors = np.linalg.eigh(cov / np.outer(unit, unit))
    if not np.isfinite(root).all() or root[0] < -DEPENDENT:
        return Wald(np.nan, 0, True)
    kept = root > DEPENDENT
    along = vectors.T @ (values / unit)
    consistent = bool(np.all(np.abs(along[~kept]) <= CONTRADICTION))
    return Wald(float(np.sum(along[kept] ** 2 / root[kept])), int(kept.sum()), consistent)
