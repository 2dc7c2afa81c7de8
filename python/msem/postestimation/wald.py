"""Wald tests of functions of the parameters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

DEPENDENT = 1e-10  # eigenvalue of the correlation matrix of functions below which one follows from others
CONTRADICTION = 1e-4  # standard errors by which the value of a function may differ from what follows

__all__ = ["Wald", "wald"]


class Wald(NamedTuple):
    """Test that several functions of the parameters are zero.

    Attributes
    ----------
    statistic : float
        nan if none of the functions can vary.
    df : int
        Number of functions that do not follow from the others.
    consistent : bool
        False if they contradict each other.
    """

    statistic: float
    df: int
    consistent: bool


def wald(values: Floats, cov: Floats) -> Wald:
    """Statistic r' C^-1 r over the directions in which r can vary (Wald, 1943).

    Parameters
    ----------
    values : ndarray, shape (k,)
        The functions r at the estimates.
    cov : ndarray, shape (k, k)
        Their sampling covariance C.

    Returns
    -------
    Wald
    """
    se = np.sqrt(cov.diagonal())
    kept = se > 0
    if not kept.any():
        return Wald(np.nan, 0, not values.any())
    consistent = not values[~kept].any()
    scaled = values[kept] / se[kept]
    roots, vectors = np.linalg.eigh(cov[np.ix_(kept, kept)] / np.outer(se[kept], se[kept]))
    along, varies = vectors.T @ scaled, roots > DEPENDENT
    consistent = consistent and bool(np.all(np.abs(along[~varies]) <= CONTRADICTION))
    return Wald(float(np.sum(along[varies] ** 2 / roots[varies])), int(varies.sum()), consistent)
