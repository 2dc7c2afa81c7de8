"""Standard errors and intervals of functions of the estimates: delta method and Monte Carlo.

A quantity is a function of theta that accepts complex numbers and stacks of vectors. Its derivatives are complex
steps (Squire & Trapp, 1998), exact to rounding; nothing is differenced.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from msem.distributions import interval_on, normal_halfwidth
from msem.model.functions import Functions
from msem.settings import require_choice, require_whole

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
Quantity = Callable[[Numbers], Numbers]  # (..., npar) -> (..., k)
Scale = Literal["identity", "logit"]
Intervals = Literal["delta", "monte_carlo"]

STEP = 1e-30  # no cancellation: any step small enough is exact
NOTHING = 1e-11  # standard error relative to the estimate below which it is rounding of one that is 0
UNDEFINED = 0.05  # share of draws in which a quantity may be undefined
CHUNK = 250  # draws evaluated at once


@dataclass(frozen=True)
class MonteCarlo:
    """How to draw.

    Attributes
    ----------
    draws : int
    seed : int
        The same seed gives the same intervals.
    """

    draws: int = 20_000
    seed: int = 1

    def __post_init__(self) -> None:
        """Refuse too few draws, and what is no seed."""
        require_whole("draws", self.draws, 100)
        require_whole("seed", self.seed, 0)

    @classmethod
    def chosen(cls, method: Intervals, draws: int, seed: int) -> MonteCarlo | None:
        """How to draw for Monte Carlo intervals; None for those of the delta method."""
        require_choice("method", method, get_args(Intervals))
        return cls(draws, seed) if method == "monte_carlo" else None


@dataclass(frozen=True, eq=False)
class Derived:
    """Values of k quantities with their sampling covariance.

    Attributes
    ----------
    est : ndarray, shape (k,)
    jacobian : ndarray, shape (k, npar)
    vcov : ndarray, shape (k, k)
        nan where a parameter that a quantity depends on has no sampling variance.
    """

    est: Floats
    jacobian: Floats
    vcov: Floats

    @property
    def se(self) -> Floats:
        """Standard errors; 0 for what depends on no estimate."""
        variance = self.vcov.diagonal()
        se: Floats = np.sqrt(np.where(variance >= 0, variance, np.nan))
        return np.where(se <= NOTHING * np.abs(self.est), 0.0, se)

    def interval(self, ci_level: float, scale: Scale = "identity") -> tuple[Floats, Floats]:
        """Wald interval, on the scale of the quantity or of its logit.

        On the logit scale it stays between 0 and 1, and is nan where the estimate does not.
        """
        return interval_on(scale, self.est, normal_halfwidth(ci_level) * self.se)


class Drawn(NamedTuple):
    """Monte Carlo distribution of k quantities, each of shape (k,).

    `se` is the standard deviation of the draws and `pvalue` the smallest error probability at which the percentile
    interval leaves out 0.
    """

    se: Floats
    pvalue: Floats
    lower: Floats
    upper: Floats


def jacobian(quantity: Quantity, theta: Floats) -> Floats:
    """Derivatives of a quantity at theta, shape (k, npar)."""
    steps = theta + STEP * 1j * np.eye(len(theta))
    derivatives: Floats = np.asarray(quantity(steps)).imag.T / STEP
    return derivatives


def delta_method(quantity: Quantity, theta: Floats, vcov: Floats) -> Derived:
    """Value and first-order sampling covariance of a quantity.

    Parameters
    ----------
    quantity : callable
        From theta, shape (..., npar), to k values, shape (..., k).
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
        nan for parameters without standard errors.

    Returns
    -------
    Derived
    """
    est = np.asarray(quantity(theta), dtype=np.float64)
    slope = jacobian(quantity, theta) if len(theta) else np.zeros((len(est), 0))
    return propagate(est, slope, theta, vcov)


def propagate(est: Floats, slope: Floats, theta: Floats, vcov: Floats) -> Derived:
    """First-order sampling covariance of values with known derivatives; see `delta_method`."""
    lost = ~np.isfinite(vcov.diagonal())
    covariance = slope @ np.where(lost | lost[:, None], 0.0, vcov) @ slope.T
    unknown = _depends(slope, est, theta, lost) | np.isnan(est)
    covariance[unknown] = covariance[:, unknown] = np.nan
    return Derived(est, slope, covariance)


def chained(found: Derived, est: Floats, slope: Floats) -> Derived:
    """Quantities with their functions behind them.

    Parameters
    ----------
    found : Derived
        Of k quantities.
    est : ndarray, shape (m,)
        Values of m functions of these quantities.
    slope : ndarray, shape (m, k)
        Their derivatives.

    Returns
    -------
    Derived
        Of all k + m.
    """
    every = np.vstack([np.eye(len(found.est)), slope])
    lost = np.isnan(found.vcov.diagonal())
    covariance = every @ np.where(lost | lost[:, None], 0.0, found.vcov) @ every.T
    unknown = np.any(every[:, lost] != 0, axis=1) | np.isnan(every).any(axis=1)
    covariance[unknown] = covariance[:, unknown] = np.nan
    through = every @ np.where(lost[:, None], 0.0, found.jacobian)
    return Derived(np.append(found.est, est), np.where(unknown[:, None], np.nan, through), covariance)


def monte_carlo(quantity: Quantity, theta: Floats, vcov: Floats, ci_level: float, how: MonteCarlo) -> Drawn:
    """Distribution of a quantity when theta is drawn from its normal sampling distribution.

    After MacKinnon, Lockwood & Williams (2004) and Preacher & Selig (2012).

    Parameters
    ----------
    quantity, theta, vcov
        As for `delta_method`.
    ci_level : float
        Coverage of the interval.
    how : MonteCarlo

    Returns
    -------
    Drawn
        nan where a quantity depends on a parameter without standard error, or is undefined in more than 5% of the
        draws; draws in which it is undefined are otherwise left out.
    """
    normal_halfwidth(ci_level)
    thetas = draw_parameters(theta, vcov, how)
    values = np.concatenate([quantity(thetas[k : k + CHUNK]) for k in range(0, how.draws, CHUNK)])
    return distribution(values, delta_method(quantity, theta, vcov).se, ci_level)


def distribution(values: Floats, se: Floats, ci_level: float) -> Drawn:
    """What draws tell of k quantities, given their delta-method standard errors; see `monte_carlo`.

    Parameters
    ----------
    values : ndarray, shape (draws, k)
        Those that are not finite are undefined.
    se : ndarray, shape (k,)
        nan and 0 stay what they are.
    ci_level : float
    """
    defined = np.isfinite(values)
    known = ~np.isnan(se) & (np.mean(~defined, axis=0) <= UNDEFINED)
    out = np.full((4, values.shape[1]), math.nan)
    for k in np.flatnonzero(known):
        valid = values[defined[:, k], k]
        out[2:, k] = np.quantile(valid, [(1 - ci_level) / 2, (1 + ci_level) / 2])
        out[0, k] = 0.0 if se[k] == 0 else np.std(valid, ddof=1)
        if out[0, k] > 0:
            tail = min(np.sum(valid <= 0), np.sum(valid >= 0))
            out[1, k] = min(1.0, 2 * (tail + 1) / (len(valid) + 1))
    return Drawn(*out)


def draw_parameters(theta: Floats, vcov: Floats, how: MonteCarlo) -> Floats:
    """Draws of theta from N(theta, vcov), shape (draws, npar); parameters without variance stay where they are."""
    lost = ~np.isfinite(vcov.diagonal())
    deviation = np.sqrt(np.where(lost | (vcov.diagonal() <= 0), 0.0, vcov.diagonal()))
    scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    kept = np.where(lost | lost[:, None], 0.0, vcov)
    value, vector = np.linalg.eigh(kept * np.outer(scale, scale))
    # The symmetric root of the correlations: draws then depend neither on units nor on the signs of eigenvectors.
    half = (vector * np.sqrt(np.maximum(value, 0.0))) @ vector.T * deviation
    standard = np.random.default_rng(how.seed).normal(size=(how.draws, len(theta)))
    return np.asarray(theta + standard @ half, dtype=np.float64)


def _depends(slope: Floats, est: Floats, theta: Floats, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which quantities depend, by more than rounding, on parameters that have no sampling variance."""
    unit = np.where(theta == 0, 1.0, np.abs(theta))
    share = np.abs(slope * unit)[:, lost]
    out: NDArray[np.bool_] = np.any((share > NOTHING * np.abs(est)[:, None]) | np.isnan(share), axis=1)
    return out


def derive(functions: Functions, theta: Floats, vcov: Floats) -> Derived:
    """Values of functions of the estimates with their delta-method covariance.

    Parameters
    ----------
    functions : Functions
    theta : ndarray, shape (npar,)
    vcov : ndarray, shape (npar, npar)
        nan for parameters without standard errors.
    """
    return propagate(functions.values(theta), functions.jacobian(theta), theta, vcov)


def draw(functions: Functions, theta: Floats, vcov: Floats, ci_level: float, how: MonteCarlo) -> Drawn:
    """Distribution of functions when theta is drawn from its normal sampling distribution.

    After MacKinnon, Lockwood & Williams (2004); see `delta.monte_carlo`.
    """
    normal_halfwidth(ci_level)
    values = functions.values_of_rows(draw_parameters(theta, vcov, how))
    return distribution(values, derive(functions, theta, vcov).se, ci_level)


def shares(quantity: Quantity, at: Floats, vcov: Floats, ci_level: float, how: MonteCarlo | None) -> Floats:
    """Estimates of shares, standard errors and intervals on the logit scale or by simulation, shape (k, 4)."""
    found = delta_method(quantity, at, vcov)
    if how is None:
        return np.column_stack([found.est, found.se, *found.interval(ci_level, "logit")])
    drawn = monte_carlo(quantity, at, vcov, ci_level, how)
    return np.column_stack([found.est, drawn.se, drawn.lower, drawn.upper])
