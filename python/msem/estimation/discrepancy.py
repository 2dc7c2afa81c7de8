"""Sandwich covariance and adjusted tests for moments fitted by a discrepancy function.

The moments s are estimates with asymptotic covariance matrix Gamma, not observations: the discrepancy's own
standard errors and test do not hold (Yuan & Bentler, 2007). All vectors hold the means, if they are modelled, and
the lower triangle of the covariance matrix by column; in a fit of all levels the means come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import smallest_eigenvalue, vech_index
from msem.data.checks import regular_inverse
from msem.data.sample import Group, Sample
from msem.distributions import chisq_pvalue
from msem.errors import UnsupportedError
from msem.estimation.estimate import Estimate
from msem.estimation.moment_vector import MomentErrors, MomentVector
from msem.estimation.objective import Objective
from msem.settings import AdjustedTest, Weighting

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LevelDiscrepancy:
    """A solution of min (s - sigma)' U (s - sigma), or of a discrepancy that behaves like it.

    Attributes
    ----------
    residual : ndarray, shape (m,)
        s - sigma at the solution.
    jacobian : ndarray, shape (m, k)
        Derivatives of sigma.
    weight : ndarray, shape (m, m)
        U at the solution, times the sample size of each group.
    gamma : ndarray, shape (m, m)
        Covariance matrix of s; zero for moments that are given, such as those of fixed covariates.
    statistic : float
        The discrepancy times sample size, added up over groups.
    standard : float
        Chi-square statistic that would hold had the moments been observed: `statistic` itself for the normal
        discrepancy, which least squares is not.
    exact : bool
        Whether `standard` has a chi-square distribution if the model and what Gamma rests on hold.
    means_first : bool
        Whether the means stand before the covariances.
    """

    residual: Floats
    jacobian: Floats
    weight: Floats
    gamma: Floats
    statistic: float
    standard: float
    exact: bool = True
    means_first: bool = True

    @property
    def contributions(self) -> list[float]:
        """What each group adds to the minimum."""
        return [self.statistic]

    @property
    def likelihoods(self) -> list[_core.Likelihood]:
        """The discrepancy of each group, to be minimised for another model; none for moments of one level."""
        return []

    @property
    def vectors(self) -> tuple[tuple[MomentVector, ...], MomentErrors]:
        """Statistics as moments with their sampling errors, for those of ordered variables."""
        raise UnsupportedError("the moments of one level are those of the sample")

    def in_sample(self, fit: Estimate, sample: Sample) -> LevelDiscrepancy:
        """The same for another sample that the model was fitted to."""
        raise UnsupportedError("replicates are those of fits to all levels: use msem.sem")

    @property
    def stage_options(self) -> tuple[Weighting, bool]:
        """What statistics are weighted by, and whether their covariance matrix is that of normal variables."""
        raise UnsupportedError("replicates are those of fits to all levels: use msem.sem")

    @property
    def first_stage(self) -> bool:
        """Whether the statistics are those of ordered variables."""
        return False

    def gradient_root(self, objective: Objective, theta: Floats) -> Floats:
        """Rows whose outer products are the covariance matrix of half the gradient of another model's discrepancy."""
        raise UnsupportedError("score tests are for fits to the moments of all levels")

    def unit_scores(self, fit: Estimate, sample: Sample) -> list[Floats]:
        """Contributions of the units of each group to half the gradient."""
        raise UnsupportedError("contributions of single clusters are for fits to the moments of all levels")

    def steps_without(
        self,
        fit: Estimate,
        basis: Floats,
        intercepts: Sequence[int],
        group: Group,
        number: int,
        chosen: NDArray[np.intp],
        threads: int,
    ) -> tuple[Floats, Floats]:
        """Changes of the estimates without each of some units of a group, and of the discrepancy."""
        raise UnsupportedError("influence of single clusters is for fits to the moments of all levels")

    def of(self, fit: Estimate) -> LevelDiscrepancy:
        """The same for another model of these statistics, such as the baseline model."""
        raise UnsupportedError("there is no baseline model for the moments of one level")

    @property
    def random(self) -> NDArray[np.bool_]:
        """Which moments are random, shape (m,)."""
        return np.diag(self.gamma) > 0

    @property
    def df(self) -> int:
        """Random moments less parameters."""
        return int(self.random.sum()) - int(self.jacobian.shape[1])

    def covariance(self, gamma: Floats | None = None) -> Floats:
        """H D'U Gamma U D H with H = (D'UD)^-1, for this or another covariance matrix of the moments."""
        projection = self.projection()
        out: Floats = projection @ (self.gamma if gamma is None else gamma) @ projection.T
        return out

    def projection(self) -> Floats:
        """H D'U, the derivative of the estimates with respect to the moments."""
        bread = self.jacobian.T @ self.weight
        return scaled_solve(bread @ self.jacobian, bread)

    def tests(self) -> pd.DataFrame:
        """Naive and corrected tests of the level's structure.

        Returns
        -------
        DataFrame
            Rows: standard (naive: as if the moments had been observed; Browne's residual-based statistic for
            normal observations where the discrepancy is not the normal one), mean_scaled (Satorra & Bentler, 1994),
            mean_variance_adjusted (the same, with the degrees of freedom that match two moments: Satterthwaite),
            scaled_shifted (Asparouhov & Muthen, 2010: the same two moments with the model's degrees of freedom) and
            residual (Browne, 1984). Columns statistic, df, pvalue, scaling. `standard` has no p-value where it is no
            chi-square; `residual` is nan where Gamma is singular, as that of fewer clusters than moments is: the others
            need no inverse of it.
        """
        df = self.df
        rows = {"standard": (self.standard, float(df), 1.0)}
        if df > 0:
            rows |= {name: self.adjusted(name) for name in get_args(AdjustedTest)}
            statistic = residual_statistic(self.residual, self.jacobian, self.gamma)
            rows["residual"] = (statistic, float(df), 1.0)
        frame = pd.DataFrame.from_dict(rows, orient="index", columns=["statistic", "df", "scaling"])
        p = [chisq_pvalue(x, d) for x, d in zip(frame["statistic"], frame["df"], strict=True)]
        frame.insert(2, "pvalue", [p[0] if self.exact else np.nan, *p[1:]])
        return frame

    @cached_property
    def traces(self) -> tuple[float, float]:
        """tr(U Gamma) and tr((U Gamma)^2), with the U of residuals: mean and half the variance of `statistic`."""
        ugamma = self._residual_weight() @ self.gamma
        return float(np.trace(ugamma)), float(np.sum(ugamma * ugamma.T))

    def adjusted(self, test: AdjustedTest) -> tuple[float, float, float]:
        """Statistic, degrees of freedom and what the naive statistic was divided by; needs degrees of freedom.

        Mean-scaled T df / t1; Satterthwaite T t1 / t2 on t1^2 / t2 degrees of freedom; scaled and shifted
        sqrt(df / t2) T + df - sqrt(df t1^2 / t2), with t1 and t2 the traces.
        """
        df, (mean, square) = self.df, self.traces
        if test == "mean_scaled":
            return self.statistic * df / mean, float(df), mean / df
        if test == "mean_variance_adjusted":
            return self.statistic * mean / square, mean**2 / square, square / mean
        scale = float(np.sqrt(square / df))
        return self.statistic / scale + df - mean / scale, float(df), scale

    def _residual_weight(self) -> Floats:
        """U - U D H D' U."""
        out: Floats = self.weight - self.weight @ self.jacobian @ self.projection()
        return out


def residual_statistic(residual: Floats, jacobian: Floats, gamma: Floats) -> float:
    """e'(G^-1 - G^-1 D (D'G^-1 D)^-1 D'G^-1)e over the random moments, G = Gamma (Browne, 1984).

    nan if Gamma has missing values, or is singular because there are fewer independent units than moments.
    """
    random = np.diag(gamma) > 0
    part, e, d = gamma[np.ix_(random, random)], residual[random], jacobian[random]
    if np.isnan(gamma).any() or regular_inverse(part) is None:
        return float("nan")
    scale = 1 / np.sqrt(np.diag(part))
    root = np.linalg.cholesky(part * np.outer(scale, scale))
    e, d = np.linalg.solve(root, scale * e), np.linalg.solve(root, scale[:, None] * d)
    left = e - _fitted(d, e)
    return float(left @ left)


def _fitted(design: Floats, outcome: Floats) -> Floats:
    """Least-squares fit, columns scaled to one length first."""
    scaled = design / np.linalg.norm(design, axis=0)
    out: Floats = scaled @ np.linalg.lstsq(scaled, outcome, rcond=None)[0]
    return out


def scaled_solve(matrix: Floats, rhs: Floats) -> Floats:
    """Solve with a positive definite matrix in correlation metric."""
    scale = 1 / np.sqrt(np.diag(matrix))
    inner = np.linalg.solve(matrix * np.outer(scale, scale), scale[:, None] * rhs)
    out: Floats = scale[:, None] * inner
    return out


def is_positive_definite(cov: Floats, tolerance: float = 1e-10) -> bool:
    """Whether it is, by the smallest eigenvalue of its correlations."""
    return bool(np.all(np.diag(cov) > 0)) and smallest_eigenvalue(cov) > tolerance


def normal_weight(cov: Floats, means: bool) -> Floats:
    """U of the normal discrepancy at an implied covariance matrix: half D'(S^-1 (x) S^-1)D, and S^-1 for means."""
    row, col = vech_index(len(cov))
    a: Floats = np.linalg.inv(cov).astype(np.float64)
    double = np.where(row == col, 1.0, 2.0)
    products = a[np.ix_(row, row)] * a[np.ix_(col, col)] + a[np.ix_(row, col)] * a[np.ix_(col, row)]
    weight = 0.25 * np.outer(double, double) * products
    return block_diagonal([a, weight]) if means else weight


def normal_gamma(cov: Floats, means: bool, random: NDArray[np.bool_]) -> Floats:
    """Covariance matrix, times n, of the moments of normal observations given those that are not random.

    nan if no observations have this covariance matrix because it is not positive definite.
    """
    if not is_positive_definite(cov):
        return np.full((len(random), len(random)), np.nan)
    weight = normal_weight(cov, means)
    out = np.zeros_like(weight)
    out[np.ix_(random, random)] = scaled_solve(weight[np.ix_(random, random)], np.eye(int(random.sum())))
    return out


def least_squares_weight(variance: Floats, means: bool) -> Floats:
    """U of least squares in the metric in which the variables have these variances as their unit."""
    row, col = vech_index(len(variance))
    weight = np.diag(1 / (variance[row] * variance[col]))
    return block_diagonal([np.diag(1 / variance).astype(np.float64), weight]) if means else weight


def block_diagonal(blocks: Sequence[Floats]) -> Floats:
    """Square matrices along the diagonal of one, and zeros beside them."""
    ends = np.cumsum([0, *map(len, blocks)])
    out = np.zeros((ends[-1], ends[-1]))
    for first, last, block in zip(ends, ends[1:], blocks, strict=False):
        out[first:last, first:last] = block
    return out


def least_squares_loss(
    cov: Floats, mean: Floats | None, variance: Floats, nobs: float = 1.0
) -> _core.LeastSquares:
    """Unweighted least squares in the metric of standardized variables.

    Parameters
    ----------
    cov : ndarray, shape (p, p)
        Saturated moments to be fitted; need not be positive definite.
    mean : ndarray, shape (p,), or None
        None: means are not fitted.
    variance : ndarray, shape (p,)
        Squared unit of each variable; an element s_ij counts 1 / (variance_i variance_j). All 1 for ordinary ULS.
    nobs : float
        Sample size that everything is multiplied by.

    Returns
    -------
    _core.LeastSquares
    """
    weights = nobs / np.outer(variance, variance)
    if mean is None:
        return _core.LeastSquares(np.zeros(len(cov)), cov, np.zeros(len(cov)), weights)
    return _core.LeastSquares(mean, cov, nobs / variance, weights)
