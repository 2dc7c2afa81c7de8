"""Defined parameters (``:=``): values, delta-method standard errors, Monte Carlo intervals."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.table.functions import Functions

Floats = NDArray[np.float64]


class Derived(NamedTuple):
    """Functions of the estimates with their standard errors and intervals, each of shape (functions,).

    `draws` is the number of Monte Carlo draws at which a function has a value; 0 for the delta method.
    """

    est: Floats
    se: Floats
    lower: Floats
    upper: Floats
    pvalue: Floats
    draws: NDArray[np.intp]


def function_covariance(functions: Functions, theta: Floats, vcov: Floats) -> Floats:
    """Delta-method covariance matrix of functions of the estimates, J V J'.

    Parameters
    ----------
    functions : Functions
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
        nan for parameters without a standard error.

    Returns
    -------
    ndarray, shape (functions, functions)
        nan for functions of such parameters; 0 for constants.
    """
    jacobian = functions.jacobian(theta)
    unknown = np.isnan(vcov.diagonal())
    known = np.where(np.isnan(vcov), 0.0, vcov)
    out: Floats = jacobian @ known @ jacobian.T
    lost = (jacobian[:, unknown] != 0).any(axis=1) | np.isnan(jacobian).any(axis=1)
    out[lost] = out[:, lost] = np.nan
    return out


def function_errors(functions: Functions, theta: Floats, vcov: Floats) -> Floats:
    """Delta-method standard errors, shape (functions,)."""
    variance = function_covariance(functions, theta, vcov).diagonal()
    return np.sqrt(np.where(variance >= 0, variance, np.nan))


def draw_functions(functions: Functions, theta: Floats, vcov: Floats, draws: int, seed: int) -> Floats:
    """Values of functions at draws from the normal sampling distribution of the estimates.

    Parameters
    ----------
    functions : Functions
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
        May be singular; parameters where it is nan stay where they are.
    draws : int
    seed : int

    Returns
    -------
    ndarray, shape (draws, functions)
        nan at draws outside the domain of a function.
    """
    known = np.flatnonzero(~np.isnan(vcov.diagonal()))
    scale = np.sqrt(np.maximum(vcov.diagonal()[known], 0))
    unit = np.where(scale > 0, scale, 1.0)
    values, vectors = np.linalg.eigh(vcov[np.ix_(known, known)] / np.outer(unit, unit))
    root = unit[:, None] * vectors * np.sqrt(np.maximum(values, 0))
    thetas = np.tile(theta, (draws, 1))
    thetas[:, known] += np.random.default_rng(seed).standard_normal((draws, len(known))) @ root.T
    return functions.values_of_rows(thetas)


def monte_carlo(
    functions: Functions,
    theta: Floats,
    vcov: Floats,
    *,
    level: float = 0.95,
    draws: int = 20000,
    seed: int = 1,
) -> Derived:
    """Monte Carlo intervals of functions of the estimates (MacKinnon, Lockwood & Williams, 2004).

    Parameters
    ----------
    functions : Functions
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
    level : float
    draws : int
    seed : int
        The same seed gives the same intervals.

    Returns
    -------
    Derived
        `se` is the standard deviation over the draws and `pvalue` the smallest error probability at which the
        percentile interval does not hold 0.
    """
    est = functions.values(theta)
    m = len(functions)
    unknown = np.isnan(np.atleast_1d(function_errors(functions, theta, vcov)))
    sample = draw_functions(functions, theta, vcov, draws, seed)
    se, lower, upper, pvalue = np.full((4, m), np.nan)
    out = Derived(est, se, lower, upper, pvalue, np.zeros(m, dtype=np.intp))
    for k in range(m):
        valid = sample[:, k][np.isfinite(sample[:, k])]
        out.draws[k] = len(valid)
        if unknown[k] or not len(valid):
            continue
        out.se[k] = np.std(valid, ddof=1)
        out.lower[k], out.upper[k] = np.quantile(valid, [(1 - level) / 2, (1 + level) / 2])
        if out.se[k] > 0:
            tail = min(np.sum(valid <= 0), np.sum(valid >= 0))
            out.pvalue[k] = min(1.0, 2 * (tail + 1) / (len(valid) + 1))
    return out
