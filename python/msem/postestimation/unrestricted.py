"""Saturated moments of a group as one vector with its sampling covariance, for quantities that need no model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import vech, vech_index
from msem.data.checks import scaled_inverse
from msem.data.sample import Group
from msem.data.saturated import sandwich, saturated_information
from msem.estimation.matrices import Numbers
from msem.estimation.solution import Solution, cached
from msem.postestimation.ram import Block, Structure
from msem.settings import DESIGN_BASED

Floats = NDArray[np.float64]

__all__ = ["Unrestricted", "unrestricted"]


@dataclass(frozen=True, eq=False)
class Unrestricted:
    """Saturated moments of one group, in the order of `moment_names`.

    Attributes
    ----------
    vector : ndarray, shape (m,)
        nan if the saturated model has not converged: quantities are then nan too.
    gamma : ndarray, shape (m, m)
        Sampling covariance of the vector.
    variables : tuple of (level, group, names, position)
        Of the covariance matrices: their variables, and where the lower triangle by column starts.
    """

    vector: Floats
    gamma: Floats
    variables: tuple[tuple[int, int, tuple[str, ...], int], ...]

    def blocks(self, vector: Numbers) -> dict[Block, Structure]:
        """Covariance matrices at a vector of shape (..., m), as structures without paths."""
        return {(level, group): _unpack(vector, names, at) for level, group, names, at in self.variables}


def _unpack(vector: Numbers, names: tuple[str, ...], start: int) -> Structure:
    n = len(names)
    row, col = vech_index(n)
    cov = np.empty((*vector.shape[:-1], n, n), vector.dtype)
    cov[..., row, col] = cov[..., col, row] = vector[..., start : start + len(row)]
    return Structure(names, np.zeros_like(cov), cov)


def unrestricted(sample: Group, group: int = 1, *, robust: bool = False) -> Unrestricted:
    """Saturated moments of a group with their sampling covariance.

    Parameters
    ----------
    sample : Group
    group : int
    robust : bool
        The sandwich over clusters for the sampling covariance, rather than the inverse of the observed information.

    Raises
    ------
    DataError
        If a robust one is wanted and there are no raw data.
    """
    s, moments = sample.statistics, sample.levels
    covariances, variables, start = [], [], 0
    for level, one in moments.items():
        covariances.append(vech(one.cov))
        variables.append((level, group, one.names, start))
        start += len(covariances[-1])
    vector = np.concatenate([*covariances, s.variables.summed([one.mean for one in moments.values()])])
    if not sample.saturated.converged:
        vector = np.full_like(vector, np.nan)
        gamma = np.full((len(vector),) * 2, np.nan)
    elif robust:
        gamma = sandwich(vector, s, sample.clusters)
    else:
        gamma = scaled_inverse(saturated_information(vector, s, "observed"))
    return Unrestricted(vector, gamma, tuple(variables))


@cached
def saturated_moments(fit: Solution) -> dict[int, Unrestricted]:
    """Saturated moments with their sampling covariance, by group."""
    robust = fit.options.se in DESIGN_BASED
    return {k: unrestricted(group, k, robust=robust) for k, group in enumerate(fit.sample.groups, 1)}
