"""Confidence intervals from replicates of an estimate."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from msem.distributions import normal_cdf, normal_halfwidth, normal_quantile

Floats = NDArray[np.float64]
IntervalKind = Literal["percentile", "basic", "normal", "bca"]
KINDS = get_args(IntervalKind)


def quantile(values: Floats, probability: Floats) -> Floats:
    """Quantiles of each column at its own probabilities, the (R + 1) p-th order statistic, interpolated.

    The definition under which a percentile interval of R replicates has the coverage it says (Davison & Hinkley,
    1997, section 2.2). Beyond the outermost order statistics these are returned.

    Parameters
    ----------
    values : ndarray, shape (R, k)
    probability : ndarray, shape (m, k)

    Returns
    -------
    ndarray, shape (m, k)
    """
    ordered = np.sort(values, axis=0)
    last = len(values) - 1
    place = np.clip((len(values) + 1) * probability - 1, 0, last)
    low = np.floor(np.nan_to_num(place)).astype(np.intp)
    columns = np.arange(values.shape[1])
    below, above = ordered[low, columns], ordered[np.minimum(low + 1, last), columns]
    out: Floats = below + (place - low) * (above - below)
    return out


def acceleration(influence: list[Floats]) -> Floats:
    """Acceleration constants from jackknife influence values (Efron, 1987; Davison & Hinkley, 1997, section 5.3).

    Parameters
    ----------
    influence : list of ndarray, shapes (J_g, k)
        (J_g - 1) times how far the mean of the leave-one-out values of a group is above each of them.

    Returns
    -------
    ndarray, shape (k,)
        0 where nothing depends on any cluster.
    """
    cubes = sum((u**3).sum(axis=0) / len(u) ** 3 for u in influence)
    squares = sum((u**2).sum(axis=0) / len(u) ** 2 for u in influence)
    cubes, squares = np.asarray(cubes), np.asarray(squares)
    out: Floats = np.divide(cubes, 6 * squares**1.5, out=np.zeros_like(cubes), where=squares > 0)
    return out


def interval(
    kind: IntervalKind, ci_level: float, point: Floats, values: Floats, accelerations: Floats | None = None
) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Limits of confidence intervals.

    Parameters
    ----------
    kind : {"percentile", "basic", "normal", "bca"}
        ``percentile``: quantiles of the replicates; ``basic``: these reflected at the estimate; ``normal``: estimate
        less bias plus and minus normal quantiles times the standard error (Davison & Hinkley, 1997, chapter 5);
        ``bca``: quantiles corrected for bias and acceleration (Efron, 1987).
    ci_level : float
        Coverage.
    point : ndarray, shape (k,)
    values : ndarray, shape (R, k)
    accelerations : ndarray, shape (k,), optional
        For ``bca``.

    Returns
    -------
    lower, upper : ndarray, shape (k,)
    extreme : ndarray of bool, shape (k,)
        Whether a limit is the outermost replicate because there are too few.
    """
    z = normal_halfwidth(ci_level)
    none = np.zeros(len(point), dtype=bool)
    if kind == "normal":
        centre = 2 * point - values.mean(axis=0)
        half = z * values.std(axis=0, ddof=1)
        return centre - half, centre + half, none
    tail = np.tile((1 - ci_level) / 2, len(point))
    probability = np.array([tail, 1 - tail])
    if kind == "bca":
        assert accelerations is not None
        probability = corrected_probabilities(z, point, values, accelerations)
    lower, upper = quantile(values, probability)
    extreme = (
        np.isnan(probability).any(axis=0)
        | ((len(values) + 1) * probability[0] < 1)
        | ((len(values) + 1) * probability[1] > len(values))
    )
    constant = (values == values[:1]).all(axis=0)
    if kind == "basic":
        lower, upper = 2 * point - upper, 2 * point - lower
    return lower, upper, extreme & ~constant


def corrected_probabilities(z: float, point: Floats, values: Floats, a: Floats) -> Floats:
    """Probabilities at which the quantiles of the replicates are BCa limits (Efron, 1987), shape (2, k).

    Replicates equal to the estimate count half.
    """
    below = (values < point).mean(axis=0) + 0.5 * (values == point).mean(axis=0)
    bias = normal_quantile(below)
    out = []
    for side in (-z, z):
        shifted = bias + side
        out.append(normal_cdf(bias + shifted / (1 - a * shifted)))
    return np.array(out)
