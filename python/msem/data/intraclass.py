"""Intraclass correlations as numbers: intervals on Fisher's scale, design effects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.distributions import normal_halfwidth

Floats = NDArray[np.float64]


def icc_columns(icc: Floats, se: Floats, sizes: Mapping[float, float], ci_level: float) -> pd.DataFrame:
    """Tabulate intraclass correlations.

    Parameters
    ----------
    icc, se : ndarray, shape (k,)
    sizes : mapping of float to float
        Number of clusters of each size.
    ci_level : float
        Coverage of the intervals.

    Returns
    -------
    DataFrame
        Columns icc, se, ci_lower, ci_upper, design_effect, effective_nobs. The design effect,
        1 + (sum n_j^2 / N - 1) icc, is the sampling variance of the mean of all units over that of a simple random
        sample (Kish, 1965); the effective number of units is their number over it.
    """
    size, count = np.array(list(sizes)), np.array(list(sizes.values()))
    nobs = float(size @ count)
    lower, upper = fisher_interval(icc, se, anova_size(size, count), ci_level)
    effect = 1 + (float(size**2 @ count) / nobs - 1) * icc
    columns = {"icc": icc, "se": se, "ci_lower": lower, "ci_upper": upper}
    return pd.DataFrame(columns | {"design_effect": effect, "effective_nobs": nobs / effect})


def variance_shares(levels: Mapping[int, LevelArrays]) -> pd.Series:
    """Shares of variance of the levels above the first, of variables with a part at level 1 and there."""
    total: dict[str, float] = {}
    for moments in levels.values():
        for name, variance in moments.variances.items():
            total[name] = total.get(name, 0.0) + variance
    own = levels[1].names
    shares = {
        (name, level): moments.variances[name] / total[name]
        for name in own
        for level, moments in levels.items()
        if level > 1 and name in moments.at
    }
    index = pd.MultiIndex.from_tuples(shares, names=["variable", "level"])
    return pd.Series(list(shares.values()), index=index, name="icc", dtype=float)


def share_table(levels: Mapping[int, LevelArrays], gamma: Floats, ci_level: float) -> pd.DataFrame:
    """Shares of variance of levels with errors by the delta method; see `share_columns`.

    Parameters
    ----------
    levels : mapping of int to LevelArrays
        Saturated moments.
    gamma : ndarray, shape (m, m)
        Their sampling covariance, in the order of `moment_names`.
    ci_level : float
    """
    place: dict[tuple[str, int], int] = {}
    start = 0
    for level, one in levels.items():
        n = len(one.names)
        # of a lower triangle by column
        place |= {(name, level): start + k * n - k * (k - 1) // 2 for k, name in enumerate(one.names)}
        start += n * (n + 1) // 2
    keys = [
        (name, level) for name in levels[1].names for level in levels if level > 1 and (name, level) in place
    ]
    est, errors = [], []
    for name, first in keys:
        own = [level for level in levels if (name, level) in place]
        at = [place[name, level] for level in own]
        variances = np.array([levels[level].variances[name] for level in own])
        whole = variances.sum()
        for last in (first, max(own)):
            inside = np.array([first <= level <= last for level in own], dtype=float)
            share = float(inside @ variances / whole)
            slope = (inside - share) / whole
            est.append(share)
            errors.append(float(np.sqrt(slope @ gamma[np.ix_(at, at)] @ slope)))
    return share_columns(keys, np.array(est), np.array(errors), ci_level)


def share_columns(keys: Sequence[tuple[str, int]], est: Floats, se: Floats, ci_level: float) -> pd.DataFrame:
    """Shares of variance of variables at levels: columns lhs, level, icc, se, ci_lower, ci_upper, correlation, ...

    Of each key `est` has two: the share of the level, and that of this level and those above, which is the correlation
    of two units of one of its clusters. Intervals are Wald's.
    """
    half = normal_halfwidth(ci_level) * se[::2]
    columns = {
        "lhs": [name for name, _ in keys],
        "level": [level for _, level in keys],
        "icc": est[::2],
        "se": se[::2],
        "ci_lower": est[::2] - half,
        "ci_upper": est[::2] + half,
        "correlation": est[1::2],
        "correlation_se": se[1::2],
    }
    return pd.DataFrame(columns)


def anova_size(sizes: Floats, counts: Floats) -> float:
    """Cluster size n0 = (N - sum n_j^2 / N) / (J - 1) of the one-way analysis of variance (Donner, 1986)."""
    nobs = float(sizes @ counts)
    return (nobs - float(sizes**2 @ counts) / nobs) / (float(counts.sum()) - 1)


def fisher_interval(icc: Floats, se: Floats, size: float, ci_level: float) -> tuple[Floats, Floats]:
    """Wald interval on Fisher's scale z = ln[(1 + (n - 1) icc) / (1 - icc)] / 2 (Fisher, 1925).

    z is half the log of the ratio of the variance of a cluster mean to what it would be without clusters. The
    interval keeps to icc > -1 / (n - 1), so that it may include negative values, but is not symmetric.

    Parameters
    ----------
    icc, se : ndarray, shape (k,)
    size : float
        Cluster size n.
    ci_level : float
        Coverage.
    """
    ahead = 1 + (size - 1) * icc
    inside = (icc < 1) & (ahead > 0)
    ahead, behind = np.where(inside, ahead, np.nan), np.where(inside, 1 - icc, np.nan)
    z = np.log(ahead / behind)
    half = normal_halfwidth(ci_level) * se * size / (ahead * behind)
    lower, upper = (1 - size / (np.exp(end) + size - 1) for end in (z - half, z + half))
    return lower, upper
