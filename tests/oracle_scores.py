"""Scores and distances of one cluster with holes from one dense normal distribution of everything in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of all variables of both levels, observed first: p at the unit level, nboth of them at both, then q."""

    p: int
    nboth: int
    q: int
    mean_w: Floats
    cov_w: Floats
    mean_b: Floats
    cov_b: Floats

    @property
    def levels(self) -> list[tuple[Floats, Floats]]:
        """Means and covariances of each level that has variables."""
        return [(self.mean_w, self.cov_w), (self.mean_b, self.cov_b)][0 if self.p else 1 :]


class Cluster:
    """One cluster: (w_1, ..., w_n, b) is normal, and what is observed are rows of a design times it.

    Parameters
    ----------
    moments : Moments
    y : ndarray, shape (n, p)
    z : ndarray, shape (q,)
        nan is a hole.
    """

    def __init__(self, moments: Moments, y: Floats, z: Floats) -> None:
        m, n = moments, len(y)
        self.m, self.n = m, n
        within, between = len(m.mean_w), len(m.mean_b)
        self.base = n * within
        full = np.zeros((n * m.p + m.q, self.base + between))
        for i in range(n):
            for k in range(m.p):
                full[i * m.p + k, i * within + k] = 1
                if k < m.nboth:
                    full[i * m.p + k, self.base + k] = 1
        for k in range(m.q):
            full[n * m.p + k, self.base + m.nboth + k] = 1
        data = np.concatenate([y.ravel(), z])
        seen = np.isfinite(data)
        unit = np.concatenate([np.repeat(np.arange(n), m.p), np.full(m.q, n)])
        variable = np.concatenate([np.tile(np.arange(m.p), n), np.arange(m.q)])
        self.design, self.unit, self.variable = full[seen], unit[seen], variable[seen]
        self.centre = np.concatenate([np.tile(m.mean_w, n), m.mean_b])
        self.residual = data[seen] - self.design @ self.centre
        self.prior = np.zeros((self.base + between,) * 2)
        self.prior[: self.base, : self.base] = np.kron(np.eye(n), m.cov_w)
        self.prior[self.base :, self.base :] = m.cov_b
        self.cov = self.design @ self.prior @ self.design.T

    def posterior(self, at: Ints) -> tuple[Floats, Floats]:
        """Mean and covariance of some elements of (w_1, ..., w_n, b) given the data."""
        if not len(self.residual):
            return self.centre[at], self.prior[np.ix_(at, at)]
        gain = np.linalg.solve(self.cov, self.design @ self.prior).T
        mean = self.centre + gain @ self.residual
        return mean[at], (self.prior - gain @ self.design @ self.prior)[np.ix_(at, at)]

    def of_unit(self, i: int) -> Ints:
        """Where the latent variables of a unit are."""
        within = len(self.m.mean_w)
        return np.arange(i * within + self.m.p, (i + 1) * within)

    def of_cluster(self) -> Ints:
        """Where the between parts of the variables at both levels and the latent variables of the cluster are."""
        between = np.arange(len(self.m.mean_b))
        return self.base + between[(between < self.m.nboth) | (between >= self.m.nboth + self.m.q)]

    def cluster_bartlett(self, loadings: Floats, residual: Floats) -> tuple[Floats, Floats]:
        """Generalised least squares of the latent variables of the cluster."""
        observed = self.m.nboth + self.m.q
        prior = self.prior.copy()
        prior[self.base :, self.base :] = 0
        own = slice(self.base, self.base + observed)
        prior[own, own] = residual
        return gls(self.design[:, own] @ loadings, self.design @ prior @ self.design.T, self.residual)

    def unit_bartlett(self, i: int, loadings: Floats, residual: Floats) -> tuple[Floats, Floats]:
        """Generalised least squares of the latent variables of a unit, the rest of its cluster random."""
        first = i * len(self.m.mean_w)
        own = slice(first, first + self.m.p)
        prior = self.prior.copy()
        prior[own, own] = residual
        return gls(self.design[:, own] @ loadings, self.design @ prior @ self.design.T, self.residual)

    def distance(self, of: NDArray[np.bool_], given: NDArray[np.bool_]) -> float:
        """Mahalanobis distance of some of the data given others: joint less marginal."""
        return self._quadratic(of | given) - self._quadratic(given)

    def _quadratic(self, some: NDArray[np.bool_]) -> float:
        x = self.residual[some]
        return float(x @ np.linalg.solve(self.cov[np.ix_(some, some)], x)) if len(x) else 0.0

    def within_distance(self, covariates: list[int]) -> tuple[float, int]:
        """What units deviate from the estimated means of their cluster, given the covariates."""
        units = self.unit < self.n
        x = units & np.isin(self.variable, covariates)
        y = units & ~x
        cov = (
            self.design[:, : self.base] @ self.prior[: self.base, : self.base] @ self.design[:, : self.base].T
        )
        slopes = np.linalg.solve(cov[np.ix_(x, x)], cov[np.ix_(x, y)]).T
        rest = self.residual[y] - slopes @ self.residual[x]
        noise = cov[np.ix_(y, y)] - slopes @ cov[np.ix_(x, y)]
        free = np.unique(self.variable[y])
        means = (self.variable[y][:, None] == free).astype(float)
        off = rest - means @ gls(means, noise, rest)[0]
        return float(off @ np.linalg.solve(noise, off)), len(rest) - len(free)


def gls(design: Floats, cov: Floats, residual: Floats) -> tuple[Floats, Floats]:
    """Estimates and their covariance matrix; nan for columns of zeros, and for all if they are not determined."""
    n = design.shape[1]
    some = design.any(axis=0)
    mean, inverse = np.full(n, np.nan), np.full((n, n), np.nan)
    weighted = np.linalg.solve(cov, design[:, some]).T
    information = weighted @ design[:, some]
    if some.any() and np.linalg.matrix_rank(design[:, some]) == some.sum():
        inverse[np.ix_(some, some)] = np.linalg.inv(information)
        mean[some] = np.linalg.solve(information, weighted @ residual)
    return mean, inverse
