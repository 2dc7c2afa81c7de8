"""Moments of one level: as plain arrays, which the computation passes around, and as a user reads them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROUNDING = 1e-13  # of the greatest eigenvalue: below it another is zero


@dataclass(frozen=True, eq=False)
class LevelArrays:
    """Means and covariance matrix of the variables of one level.

    Attributes
    ----------
    names : tuple of str, length n
    mean : ndarray, shape (n,)
    cov : ndarray, shape (n, n)
    nobserved : int
        How many of the variables, from the first, are observed; the others are latent.
    """

    names: tuple[str, ...]
    mean: Floats
    cov: Floats
    nobserved: int

    @cached_property
    def at(self) -> dict[str, int]:
        """Position of each variable."""
        return {name: i for i, name in enumerate(self.names)}

    @property
    def observed(self) -> LevelArrays:
        """The observed variables only."""
        n = self.nobserved
        return LevelArrays(self.names[:n], self.mean[:n], self.cov[:n, :n], n)

    def without(self, names: Collection[str]) -> LevelArrays:
        """The observed variables other than these."""
        if not names:
            return self.observed
        own = [k for k, name in enumerate(self.names[: self.nobserved]) if name not in names]
        kept = tuple(self.names[k] for k in own)
        return LevelArrays(kept, self.mean[own], self.cov[np.ix_(own, own)], len(own))

    def given(self, known: LevelArrays, names: Sequence[str]) -> LevelArrays:
        """Moments in which some of the variables have those of `known`; the others keep their regressions on them."""
        if not names:
            return self
        x, own = [self.at[name] for name in names], [known.at[name] for name in names]
        y = [k for k in range(len(self.names)) if k not in x]
        mean, cov = self.mean.copy(), self.cov.copy()
        before, after = self.cov[np.ix_(x, x)], known.cov[np.ix_(own, own)]
        paths = np.linalg.lstsq(before, self.cov[np.ix_(x, y)], rcond=None)[0]
        mean[x], cov[np.ix_(x, x)] = known.mean[own], after
        cov[np.ix_(x, y)] = after @ paths
        cov[np.ix_(y, x)] = cov[np.ix_(x, y)].T
        cov[np.ix_(y, y)] += paths.T @ (after - before) @ paths
        return LevelArrays(self.names, mean, cov, self.nobserved)

    @property
    def variances(self) -> dict[str, float]:
        """Variance of each variable."""
        return dict(zip(self.names, self.cov.diagonal().tolist(), strict=True))

    def series(self) -> pd.Series:
        """Means with names."""
        return pd.Series(self.mean, index=list(self.names))

    def frame(self) -> pd.DataFrame:
        """Covariance matrix with names."""
        names = list(self.names)
        return pd.DataFrame(self.cov, index=names, columns=names)


@dataclass(frozen=True, eq=False)
class LevelMoment:
    """Covariance matrix and means of one level.

    Attributes
    ----------
    cov : DataFrame
    mean : Series
        At the within level 0 for variables that are at both levels.
    """

    cov: pd.DataFrame
    mean: pd.Series


def frozen(frame: pd.DataFrame) -> pd.DataFrame:
    """Copy of a frame of floats whose elements cannot be assigned."""
    values = frame.to_numpy(dtype=np.float64, copy=True)
    values.flags.writeable = False
    return pd.DataFrame(values, index=frame.index, columns=frame.columns, copy=False)


def frozen_series(series: pd.Series) -> pd.Series:
    """Copy of a series of floats whose elements cannot be assigned."""
    values = series.to_numpy(dtype=np.float64, copy=True)
    values.flags.writeable = False
    return pd.Series(values, index=series.index, copy=False)


def column_lengths(columns: Floats) -> Floats:
    """Euclidean lengths of columns, 1 for columns of zeros."""
    length = np.linalg.norm(columns, axis=0)
    return np.where(length > 0, length, 1.0)


def projected(columns: Floats, onto: Floats, rcond: float | None = None) -> Floats:
    """Coefficients of the least-squares projection, dependence of columns judged whatever their lengths."""
    length = column_lengths(onto)
    found = np.linalg.lstsq(onto / length, columns, rcond=rcond)[0]
    out: Floats = (found.T / length).T
    return out


def vech_index(n: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of the lower triangle of an n x n matrix, column by column."""
    col, row = np.triu_indices(n)
    return row, col


def vech(matrix: Floats) -> Floats:
    """Lower triangle of a symmetric matrix, column by column."""
    return np.asarray(matrix[vech_index(len(matrix))], dtype=np.float64)


def unvech(values: Floats, n: int) -> Floats:
    """Symmetric matrix from its lower triangle by column."""
    out = np.empty((n, n))
    row, col = vech_index(n)
    out[row, col] = values
    out[col, row] = values
    return out


def smallest_eigenvalue(matrix: NDArray[np.float64]) -> float:
    """Smallest eigenvalue in the metric of correlations; a variance that is not positive keeps its own."""
    variance = np.diag(matrix)
    sd = np.sqrt(np.where(variance > 0, variance, 1.0))
    return float(np.linalg.eigvalsh(matrix / np.outer(sd, sd))[0])


def square_root(cov: Floats) -> Floats:
    """F with F F' = cov, which may be singular: the symmetric root in the metric of correlations.

    It is the one root that does not depend on signs of eigenvectors, or on which of them span the space of an
    eigenvalue, which differ between machines; so a seed draws the same sample on each.
    """
    scale = np.sqrt(np.maximum(cov.diagonal(), 0.0))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    values, vectors = np.linalg.eigh(cov * np.outer(inverse, inverse)) if len(cov) else (scale, cov)
    largest = values[-1] if len(values) else 0.0
    roots = np.sqrt(np.where(values > ROUNDING * largest, values, 0.0))
    out: Floats = scale[:, None] * (vectors * roots @ vectors.T)
    return out
