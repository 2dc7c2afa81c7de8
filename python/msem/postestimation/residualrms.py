"""Root mean squares of residuals, SRMR and its kin: unbiased estimates, confidence intervals and tests of fit.

Let e be t residuals with sampling covariance matrix X. Then e'e has expectation eps'eps + tr X and variance
2 tr X^2 + 4 eps'X eps, eps being the residuals in the population; from these and a second-order expansion of the square
root come all numbers of this module (Maydeu-Olivares, 2017; Maydeu-Olivares, Shi & Rosseel, 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth, normal_upper_tail

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RootMeanSquare:
    """Root mean square of t residuals.

    Attributes
    ----------
    value, se : float
        The sample value, and its standard error under exact fit.
    exact_z, exact_pvalue : float
        Test of exact fit, one-sided: the sample value less its expectation under exact fit, over `se`.
    unbiased, unbiased_se : float
        Estimate of the population value, corrected for the sampling error of the residuals and for the bias of a root,
        and its standard error.
    ci_lower, ci_upper : float
        Confidence interval of the population value.
    close_h0, close_z, close_pvalue : float
        Test of close fit, one-sided: population value at most `close_h0`.
    nresiduals : int
        t.
    """

    value: float
    se: float
    exact_z: float
    exact_pvalue: float
    unbiased: float
    unbiased_se: float
    ci_lower: float
    ci_upper: float
    close_h0: float
    close_z: float
    close_pvalue: float
    nresiduals: int


def root_mean_square(
    residuals: Floats, root: Floats, *, level: float = 0.90, close_h0: float = 0.05
) -> RootMeanSquare:
    """Estimate the population root mean square of residuals.

    Parameters
    ----------
    residuals : ndarray, shape (t,)
        Those that are zero by construction count in t.
    root : ndarray, shape (t, k)
        Times its transpose the sampling covariance matrix of the residuals.
    level : float
        Of the confidence interval, which is normal and cut off at 0.
    close_h0 : float

    Returns
    -------
    RootMeanSquare
        All nan without residuals, or if one is nan. Without sampling variance, when the model is saturated, tests and
        standard errors are nan.
    """
    t = residuals.size
    square = float(residuals @ residuals) if t else math.nan
    gram = root.T @ root
    trace, trace2 = float(np.trace(gram)), float(np.sum(gram * gram))
    along = float(np.sum((residuals @ root) ** 2))
    value = math.sqrt(square / t) if t else math.nan
    se, exact_z = _exact(value, trace, trace2, t)
    unbiased, unbiased_se = _unbiased(square, trace, trace2, along, t)
    half = normal_halfwidth(level) * unbiased_se
    close_z = (unbiased - close_h0) / unbiased_se if unbiased_se > 0 else math.nan
    return RootMeanSquare(
        value=value,
        se=se,
        exact_z=exact_z,
        exact_pvalue=normal_upper_tail(exact_z),
        unbiased=unbiased,
        unbiased_se=unbiased_se,
        ci_lower=max(unbiased - half, 0.0) if half == half else math.nan,
        ci_upper=unbiased + half,
        close_h0=close_h0,
        close_z=close_z,
        close_pvalue=normal_upper_tail(close_z),
        nresiduals=t,
    )


def _exact(value: float, trace: float, trace2: float, t: int) -> tuple[float, float]:
    """Standard error under exact fit, and the statistic of its test."""
    if not trace > 0:
        return math.nan, math.nan
    expected = math.sqrt(trace / t) * (1 - trace2 / (4 * trace**2))
    se = math.sqrt(trace2 / (2 * t * trace))
    return se, (value - expected) / se


def _unbiased(square: float, trace: float, trace2: float, along: float, t: int) -> tuple[float, float]:
    """Estimate of the population value and its standard error.

    Residuals that are smaller than their sampling error estimate the value as 0. The standard error is then the one at
    exact fit: the expansion about residuals that happen to be small diverges.
    """
    if not (trace > 0 and math.isfinite(square)):
        return math.nan, math.nan
    excess = max(square - trace, 0.0)
    if not excess:
        square, along = trace, trace2
    shrinkage = 1 - (trace2 + 2 * along) / (4 * square**2)
    return math.sqrt(excess / t) / shrinkage, math.sqrt((trace2 + 2 * along) / (2 * t * square)) / shrinkage
