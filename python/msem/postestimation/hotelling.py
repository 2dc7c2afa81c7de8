"""A test of a model from the covariance matrix of its residuals over clusters, as Hotelling's T squared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msem.distributions import f_pvalue
from msem.estimation.sampling import free_directions
from msem.estimation.solution import Solution, cached
from msem.postestimation.scaling import MomentSpace


@dataclass(frozen=True)
class HotellingTest:
    """F test of a model.

    Attributes
    ----------
    statistic : float
        F; nan without degrees of freedom, without as many clusters, or if the saturated model has no maximum.
    df2 : float
        Degrees of freedom of its denominator: clusters less those of the model.
    pvalue : float
    """

    statistic: float
    df2: float
    pvalue: float


@cached
def hotelling(fit: Solution) -> HotellingTest:
    """Test whether what the model leaves of the saturated moments is zero.

    With e the saturated less the implied moments, G their covariance matrix over J clusters and D a basis of the
    directions that the model cannot move in, T = e'D (D'GD)^-1 D'e asymptotically is a chi-square with df degrees of
    freedom (Browne, 1984). G is itself estimated from J clusters: F = T (J - df) / (J df) with df and J - df degrees of
    freedom accounts for that (Yuan & Bentler, 1998).

    Parameters
    ----------
    fit : Solution
        With raw data: each cluster adds its scores, for which nothing is assumed of the distribution.

    Returns
    -------
    HotellingTest
    """
    count = sum(len(clusters.sizes) for clusters in fit.sample.clusters)
    df, df2 = fit.df, float(count - fit.df)
    nothing = HotellingTest(np.nan, df2, np.nan)
    if df <= 0 or df2 <= 0 or not fit.sample.converged or not fit.converged:
        return nothing
    space = MomentSpace.of(fit.table, fit.sample)
    root = space.gamma_root(fit.sample, expected=fit.options.information == "expected")
    moments, jacobian = space.implied(fit.objective, fit.theta)
    if not np.isfinite(root).all():
        return nothing
    from scipy import linalg  # here: it would take a third of the time of `import msem`

    scale = 1 / np.sqrt((root**2).sum(axis=1))  # the metric of their standard errors
    normal = linalg.null_space((scale[:, None] * (jacobian @ free_directions(fit.estimate))).T)
    residual = normal.T @ (scale * (space.theta - moments))
    spread = normal.T @ (scale[:, None] * root)
    # with fewer independent directions than the model leaves there is no inverse
    left, size, _ = np.linalg.svd(spread, full_matrices=False)
    if len(size) < df or normal.shape[1] != df or size[-1] <= 1e-8 * size[0]:
        return nothing
    total = float(np.sum((left.T @ residual / size) ** 2))
    f = total * df2 / (count * df)
    return HotellingTest(f, df2, f_pvalue(f, df, df2))
