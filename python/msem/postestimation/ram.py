"""The matrices of each block and the moments they imply, as functions of theta that take complex numbers.

The compiled core evaluates the same moments in the fit. Here they serve small quantities computed after it, whose
derivatives are taken by complex steps and whose distribution is drawn: theta may be complex, and a stack of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from msem.estimation.matrices import Model, Numbers, block_matrices, row_values

Block = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Structure:
    """One level of one group in RAM form (McArdle & McDonald, 1984); leading axes are those of theta.

    Attributes
    ----------
    names : tuple of str, length n
        Observed variables, then latent ones.
    paths : ndarray, shape (..., n, n)
        Directed paths, to the row from the column: loadings and regressions.
    residual : ndarray, shape (..., n, n)
        Residual covariances.
    """

    names: tuple[str, ...]
    paths: Numbers
    residual: Numbers

    @cached_property
    def at(self) -> dict[str, int]:
        """Position of each variable."""
        return {name: i for i, name in enumerate(self.names)}

    @cached_property
    def total(self) -> Numbers:
        """(I - A)^-1, shape (..., n, n): total effects, and 1 on the diagonal where nothing feeds back."""
        inverse: Numbers = np.linalg.inv(np.eye(len(self.names)) - self.paths)
        return inverse

    @cached_property
    def cov(self) -> Numbers:
        """Implied covariance matrix of all variables, shape (..., n, n)."""
        covariance: Numbers = self.total @ self.residual @ np.swapaxes(self.total, -1, -2)
        return covariance

    @property
    def variances(self) -> Numbers:
        """Implied variances, shape (..., n)."""
        diagonal: Numbers = np.diagonal(self.cov, axis1=-2, axis2=-1)
        return diagonal

    def among(self, names: Sequence[str]) -> Numbers:
        """Implied covariance matrix of some variables; 0 for those that are not at this level."""
        here = np.array([float(name in self.at) for name in names])
        at = [self.at.get(name, 0) for name in names]
        out: Numbers = self.cov[..., at, :][..., at] * np.outer(here, here)
        return out

    def from_to(self, cause: str, effects: Sequence[str]) -> Numbers:
        """Directed paths from one variable to several, shape (..., effects)."""
        out: Numbers = self.paths[..., [self.at[name] for name in effects], self.at[cause]]
        return out


def structures(model: Model, theta: Numbers) -> dict[Block, Structure]:
    """Matrices of every (level, group) at theta.

    Parameters
    ----------
    model : Model
    theta : ndarray, shape (..., npar)
        Real or complex.
    """
    values = row_values(model.table, theta)
    return {
        (block.level, block.group): Structure(block.names, *block_matrices(block, values))
        for block in model.blocks
    }


def root(variance: Numbers) -> Numbers:
    """Square root; nan where the (real part of the) variance is not positive."""
    out: Numbers = np.sqrt(np.where(variance.real > 0, variance, np.nan))
    return out


def divide(numerator: Numbers, denominator: Numbers) -> Numbers:
    """Quotient by a variance; nan where its (real part) is not positive."""
    out: Numbers = numerator / np.where(denominator.real > 0, denominator, np.nan)
    return out
