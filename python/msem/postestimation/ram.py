"""The matrices of each block and the moments they imply, as functions of theta that take complex numbers.

The compiled core evaluates the same moments in the fit. Here they serve small quantities computed after it, whose
derivatives are taken by complex steps and whose distribution is drawn: theta may be complex, and a stack of vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from msem.errors import UnsupportedError
from msem.estimation.matrices import INTERCEPT, BlockMap, Model, Numbers, block_matrices, row_values
from msem.model.slopes import Slope

Block = tuple[int, int]


class RandomSlopes(NamedTuple):
    """Random slopes of one group.

    Attributes
    ----------
    among : tuple of Slope
    mean, cov : ndarray, shapes (..., k) and (..., k, k)
        Of all clusters.
    """

    among: tuple[Slope, ...]
    mean: Numbers
    cov: Numbers

    def expected(self, chosen: Sequence[int]) -> Numbers:
        """Mean of the product of some of them, which are normal (Isserlis, 1918)."""
        if not chosen:
            return np.ones(self.mean.shape[:-1])
        first, rest = chosen[0], list(chosen[1:])
        out: Numbers = self.mean[..., first] * self.expected(rest)
        for k, other in enumerate(rest):
            out = out + self.cov[..., first, other] * self.expected(rest[:k] + rest[k + 1 :])
        return out


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
    slopes : RandomSlopes or None
        Paths of level 1 that differ between clusters: `paths` has their means.
    """

    names: tuple[str, ...]
    paths: Numbers
    residual: Numbers
    slopes: RandomSlopes | None = None

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
        """Implied covariance matrix of all variables, shape (..., n, n).

        With random slopes it is that of a unit of any cluster: the deviation of a slope times that of its covariate is
        one more residual of the outcome, with covariances C_kl Cov(x_k, x_l), C those of the slopes. What a slope times
        the mean of its covariate adds belongs to level 2.
        """

        def implied(residual: Numbers) -> Numbers:
            covariance: Numbers = self.total @ residual @ np.swapaxes(self.total, -1, -2)
            return covariance

        own = self.slopes
        if own is None:
            return implied(self.residual)
        self._require_no_chain()
        causes = [self.at[slope.covariate] for slope in own.among]
        joint = own.cov * implied(self.residual)[..., causes, :][..., causes]
        lead = np.zeros((len(self.names), len(causes)))
        for k, slope in enumerate(own.among):
            lead[[self.at[name] for name in slope.outcomes], k] = 1
        return implied(self.residual + lead @ joint @ lead.T)

    def _require_no_chain(self) -> None:
        assert self.slopes is not None
        reach = np.abs(self.total).reshape(-1, *self.total.shape[-2:]).max(axis=0)
        for slope in self.slopes.among:
            for other in self.slopes.among:
                if any(reach[self.at[other.covariate], self.at[name]] > 0 for name in slope.outcomes):
                    raise UnsupportedError(
                        f"the random slope {slope.name!r} changes the covariate of {other.name!r}: variances of "
                        "products of two random slopes, and what is standardized by them, are not available in this "
                        "version"
                    )

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
    out: dict[Block, Structure] = {}
    for block in reversed(model.blocks):
        paths, residual = block_matrices(block, values)
        slopes = None
        if block.products:
            slopes = _slopes(model, block, values, out)
            for k, slope in enumerate(slopes.among):
                at = {name: i for i, name in enumerate(block.names)}
                paths[..., [at[name] for name in slope.outcomes], at[slope.covariate]] = slopes.mean[..., [k]]
        if block.standard:
            residual = _standard(block, paths, residual, block.scales(values))
        out[block.level, block.group] = Structure(block.names, paths, residual, slopes)
    return dict(reversed(out.items()))


def _standard(block: BlockMap, paths: Numbers, residual: Numbers, scales: Numbers) -> Numbers:
    """Residual variances of ordered variables as what the rest of the model leaves of their fixed variances.

    These are 1 given the covariates, or 1 over the square of a scaling factor. One ordered variable is done after
    another where some lead to others.
    """
    at, x = list(block.standard), list(block.given)
    out = np.array(residual)
    out[..., at, at] = 0.0
    for _ in range(len(at) if np.any(paths[..., :, at] != 0) else 1):
        cov = Structure(block.names, paths, out).cov
        whole = scales**-2
        if x:
            reach = cov[..., at, :][..., x]
            within = np.linalg.solve(cov[..., x, :][..., x], np.swapaxes(reach, -1, -2))
            whole = whole + np.einsum("...ij,...ji->...i", reach, within)
        out[..., at, at] += whole - cov[..., at, at]
    return out


def _slopes(
    model: Model, block: BlockMap, values: Numbers, blocks: Mapping[Block, Structure]
) -> RandomSlopes:
    """Random slopes of the paths of a block, given the levels above: sums of what they are at each of these."""
    among = tuple(slope for slope in model.table.slopes(block.group) if slope.level == block.level)
    shape, kind = values.shape[:-1], values.dtype
    mean, cov = np.zeros((*shape, len(among)), kind), np.zeros((*shape, len(among), len(among)), kind)
    for upper in model.blocks:
        standing = [k for k, slope in enumerate(among) if upper.level in slope.at]
        if upper.group != block.group or not standing:
            continue
        above = blocks[upper.level, upper.group]
        at = [above.at[among[k].name] for k in standing]
        mean[..., standing] += implied_mean(upper, above, values)[..., at]
        pairs = np.ix_(standing, standing)
        cov[..., pairs[0], pairs[1]] += above.cov[..., at, :][..., at]
    return RandomSlopes(among, mean, cov)


def path_values(model: Model, theta: Numbers) -> Numbers:
    """Value of every row of the table, shape (..., rows): of a path with a random slope the mean of that."""
    values = row_values(model.table, theta)
    blocks = structures(model, theta)
    for k, row in enumerate(model.table.rows):
        own = blocks[row.level, row.group]
        if row.slope:
            values[..., k] = own.paths[..., own.at[row.lhs], own.at[row.rhs]]
        elif row.op == "~~" and row.lhs == row.rhs:
            values[..., k] = own.residual[..., own.at[row.lhs], own.at[row.lhs]]
    return values


def implied_mean(block: BlockMap, structure: Structure, values: Numbers) -> Numbers:
    """Means of the variables of a block, shape (..., n), from the values of all rows of the table."""
    intercepts = np.zeros((*values.shape[:-1], len(block.names)), values.dtype)
    own = block.slot == INTERCEPT
    intercepts[..., block.row[own]] = values[..., block.rows[own]]
    out: Numbers = np.einsum("...ij,...j->...i", structure.total, intercepts)
    return out


def mean_weights(
    model: Model, theta: Numbers, blocks: Mapping[Block, Structure], level: int, group: int, name: str
) -> Numbers:
    """Weights of the variables of a level in the mean of a variable over a cluster, at the means of covariates.

    1 for the variable's own part, and for a random slope of a lower level that stands here its effect on the variable
    times the mean of its covariate. Shape (..., n).
    """
    values, own = row_values(model.table, theta), blocks[level, group]
    out = np.zeros((*values.shape[:-1], len(own.names)), values.dtype)
    if name in own.at:
        out[..., own.at[name]] = 1
    for block in model.blocks:
        lower = blocks[block.level, block.group]
        if block.group != group or block.level >= level or lower.slopes is None or name not in lower.at:
            continue
        means = implied_mean(block, lower, values)
        for slope in lower.slopes.among:
            if level not in slope.at:
                continue
            reach = lower.total[..., lower.at[name], [lower.at[o] for o in slope.outcomes]].sum(axis=-1)
            out[..., own.at[slope.name]] += reach * means[..., lower.at[slope.covariate]]
    return out


def root(variance: Numbers) -> Numbers:
    """Square root; nan where the (real part of the) variance is not positive."""
    out: Numbers = np.sqrt(np.where(variance.real > 0, variance, np.nan))
    return out


def divide(numerator: Numbers, denominator: Numbers) -> Numbers:
    """Quotient by a variance; nan where its (real part) is not positive."""
    out: Numbers = numerator / np.where(denominator.real > 0, denominator, np.nan)
    return out
