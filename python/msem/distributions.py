"""Normal and chi-square distributions; scipy is loaded when the first of them is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from numbers import Real
from statistics import NormalDist
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem.errors import MsemError


@cache
def _special() -> ModuleType:
    import scipy.special

    module: ModuleType = scipy.special
    return module


def wald_statistic(est: ArrayLike, se: ArrayLike) -> NDArray[np.float64]:
    """Estimates over their standard errors; nan where the standard error is 0 or nan."""
    error = np.asarray(se, dtype=np.float64)
    z: NDArray[np.float64] = np.asarray(est, dtype=np.float64) / np.where(error > 0, error, np.nan)
    return z


def normal_pvalue(z: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p-value of a standard normal statistic; nan where it is nan."""
    out: NDArray[np.float64] = 2 * _special().ndtr(-np.abs(np.asarray(z, dtype=np.float64)))
    return out


def normal_halfwidth(ci_level: float) -> float:
    """Half the width of a central interval of the standard normal distribution.

    Raises
    ------
    ValueError
        If the level is not between 0 and 1.
    """
    if not (isinstance(ci_level, Real) and 0 < ci_level < 1):
        raise MsemError(
            f"ci_level is the coverage of the interval, between 0 and 1, such as 0.95, not {ci_level!r}"
        )
    return NormalDist().inv_cdf((1 + ci_level) / 2)


SCALES = ("identity", "log", "fisher", "fisher_root", "logit")


def to_scale(
    scale: str | Sequence[str] | NDArray[np.str_], est: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates on another scale, and the derivatives of the scale there; not finite where it does not have them.

    Parameters
    ----------
    scale : {"identity", "log", "fisher", "fisher_root", "logit"}, or an array of these
        log x for what is positive, such as variances; artanh x for correlations (Fisher, 1921), artanh of the root of x
        for their squares, such as explained variances (Harel, 2009); log x / (1 - x) for shares.
    est : array
        Of the shape of the scales, or with further axes before.
    """
    x = np.asarray(est, dtype=np.float64)
    kind = np.broadcast_to(np.asarray(scale), x.shape)
    if (kind == "identity").all():
        return x, np.ones_like(x)
    which = [kind == name for name in SCALES[1:]]
    with np.errstate(all="ignore"):
        root = np.sqrt(x)
        centre = np.select(which, [np.log(x), np.arctanh(x), np.arctanh(root), np.log(x / (1 - x))], x)
        slope = np.select(
            which, [1 / x, 1 / (1 - x**2), 1 / (2 * root * (1 - x)), 1 / (x * (1 - x))], np.float64(1.0)
        )
    return centre, slope


def from_scale(scale: str | Sequence[str] | NDArray[np.str_], value: ArrayLike) -> NDArray[np.float64]:
    """What stands at a value of a scale; see `to_scale`."""
    z = np.asarray(value, dtype=np.float64)
    kind = np.broadcast_to(np.asarray(scale), z.shape)
    if (kind == "identity").all():
        return z
    which = [kind == name for name in SCALES[1:]]
    with np.errstate(all="ignore"):
        # explained variance is 0 at least
        shares = np.tanh(np.maximum(z, 0.0)) ** 2
        return np.select(which, [np.exp(z), np.tanh(z), shares, 1 / (1 + np.exp(-z))], z)


def interval_on(
    scale: str | Sequence[str] | NDArray[np.str_], est: ArrayLike, half: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intervals of half this width on another scale, by the delta method, carried back.

    Parameters
    ----------
    scale : str, or one for each
        As for `to_scale`. nan where the scale does not have the estimate.
    est : array of shape (k,)
    half : array of shape (k,)
        Half widths on the scale of the estimates.

    Returns
    -------
    lower, upper : ndarray, shape (k,)
    """
    centre, slope = to_scale(scale, est)
    with np.errstate(all="ignore"):
        width = np.asarray(half, dtype=np.float64) * slope
        return from_scale(scale, centre - width), from_scale(scale, centre + width)


def coverage(ci_level: float, alpha: float | None) -> float:
    """Coverage of intervals, which `alpha` says as 1 - coverage.

    Raises
    ------
    MsemError
        If alpha is not between 0 and 1.
    """
    if alpha is None:
        return ci_level
    if not 0 < alpha < 1:
        raise MsemError(f"alpha is 1 less the coverage, between 0 and 1, such as 0.05, not {alpha!r}")
    return 1 - alpha


def chisq_pvalue(chisq: float, df: float) -> float:
    """Upper tail probability of a chi-square; nan without degrees of freedom."""
    return float(_special().chdtrc(df, chisq)) if df > 0 else math.nan


def chisq_pvalues(chisq: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Upper tail probabilities of chi-squares; nan without degrees of freedom."""
    degrees = np.asarray(df, dtype=np.float64)
    tail: NDArray[np.float64] = _special().chdtrc(np.maximum(degrees, 1.0), np.asarray(chisq))
    return np.where(degrees > 0, tail, np.nan)


def f_pvalue(statistic: float, df: float, df_denominator: float) -> float:
    """Upper tail probability of F, of chi-square over its df where the denominator has infinitely many."""
    if not np.isfinite(df_denominator):
        return chisq_pvalue(statistic * df, df)
    return float(_special().fdtrc(df, df_denominator, statistic))


def chisq_quantile(probability: float, df: float) -> float:
    """Value that a chi-square exceeds with this probability."""
    return float(_special().chdtri(df, probability))


def noncentral_chisq_cdf(chisq: float, df: float, noncentrality: float) -> float:
    """Distribution function of the noncentral chi-square."""
    return float(_special().chndtr(chisq, df, noncentrality))


def noncentrality_at(chisq: float, df: float, probability: float) -> float:
    """Noncentrality at which the distribution function at `chisq` is `probability`."""
    return float(_special().chndtrinc(chisq, df, probability))


def normal_rejection(shift: ArrayLike, alpha: float) -> NDArray[np.float64]:
    """Probability that a two-sided test of level alpha rejects when the normal statistic has this mean."""
    z = NormalDist().inv_cdf(1 - alpha / 2)
    at = np.asarray(shift, dtype=np.float64)
    out: NDArray[np.float64] = _special().ndtr(at - z) + _special().ndtr(-at - z)
    return out


def normal_cdf(z: ArrayLike) -> NDArray[np.float64]:
    """Standard normal distribution function."""
    out: NDArray[np.float64] = _special().ndtr(np.asarray(z, dtype=np.float64))
    return out


def normal_density(z: ArrayLike) -> NDArray[np.float64]:
    """Standard normal density."""
    out: NDArray[np.float64] = np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
    return out


def normal_upper_tail(z: float) -> float:
    """Probability that a standard normal variable exceeds z; nan where it is nan."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def normal_quantile(probability: ArrayLike) -> NDArray[np.float64]:
    """Inverse of the standard normal distribution function."""
    out: NDArray[np.float64] = _special().ndtri(np.asarray(probability, dtype=np.float64))
    return out


def student_pvalue(t: ArrayLike, df: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p-value of Student's t; nan where it is nan or df is not positive."""
    t, df = np.broadcast_arrays(np.asarray(t, dtype=np.float64), np.asarray(df, dtype=np.float64))
    out: NDArray[np.float64] = 2 * _special().stdtr(np.where(df > 0, df, np.nan), -np.abs(t))
    return out


def student_halfwidth(ci_level: float, df: ArrayLike) -> NDArray[np.float64]:
    """Half the width of a central interval of Student's t; nan where df is not positive."""
    normal_halfwidth(ci_level)
    df = np.asarray(df, dtype=np.float64)
    out: NDArray[np.float64] = _special().stdtrit(np.where(df > 0, df, np.nan), (1 + ci_level) / 2)
    return out


def beta_quantile(probability: float, a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Inverse of the distribution function of the beta distribution."""
    out: NDArray[np.float64] = _special().betaincinv(np.asarray(a), np.asarray(b), probability)
    return out
