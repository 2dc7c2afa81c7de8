"""Intraclass correlations with standard errors, intervals and design effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import normal_halfwidth
from msem.errors import ModelError
from msem.estimation.objective import Objective
from msem.inference.delta import Derived, Quantity, delta_method
from msem.inference.ram import Numbers, Structure, divide, structures
from msem.inference.unrestricted import Unrestricted
from msem.sample.sufficient import SampleStatistics

Floats = NDArray[np.float64]

COLUMNS = ("lhs", "group", "icc", "se", "ci_lower", "ci_upper", "design_effect", "effective_nobs")

__all__ = [
    "COLUMNS",
    "anova_size",
    "at_both_levels",
    "fisher_interval",
    "icc_frame",
    "model_icc",
    "saturated_icc",
]


def at_both_levels(objective: Objective, group: int) -> list[str]:
    """Observed variables of both levels, then latent variables that have the same name at both."""
    within, between = (
        next(b.names for b in objective.blocks if (b.level, b.group) == (level, group)) for level in (1, 2)
    )
    return [name for name in within if name in between]


def model_icc(objective: Objective, group: int) -> Quantity:
    """Model-implied intraclass correlations of `at_both_levels` as a function of theta.

    Raises
    ------
    ModelError
        If no variable is at both levels.
    """
    names = at_both_levels(objective, group)
    if not names:
        raise ModelError("no variable is at both levels, so there is no intraclass correlation")

    def quantity(theta: Numbers) -> Numbers:
        blocks = structures(objective, theta)
        within, between = (_variances(blocks[level, group], names) for level in (1, 2))
        return divide(between, within + between)

    return quantity


def saturated_icc(moments: Unrestricted, names: Sequence[str]) -> Derived:
    """Intraclass correlations of variables at both levels, from saturated moments."""

    def quantity(vector: Numbers) -> Numbers:
        (within, between) = (_variances(block, names) for block in moments.blocks(vector).values())
        return divide(between, within + between)

    return delta_method(quantity, moments.vector, moments.gamma)


def _variances(block: Structure, names: Sequence[str]) -> Numbers:
    return block.variances[..., [block.at[name] for name in names]]


def anova_size(sizes: Floats, counts: Floats) -> float:
    """Cluster size n0 = (N - sum n_j^2 / N) / (J - 1) of the one-way analysis of variance (Donner, 1986)."""
    nobs = float(sizes @ counts)
    return (nobs - float(sizes**2 @ counts) / nobs) / (float(counts.sum()) - 1)


def fisher_interval(icc: Floats, se: Floats, size: float, level: float) -> tuple[Floats, Floats]:
    """Wald interval on Fisher's scale z = ln[(1 + (n - 1) icc) / (1 - icc)] / 2 (Fisher, 1925).

    z is half the log of the ratio of the variance of a cluster mean to what it would be without clusters. The
    interval keeps to icc > -1 / (n - 1), so that it may include negative values, but is not symmetric.

    Parameters
    ----------
    icc, se : ndarray, shape (k,)
    size : float
        Cluster size n.
    level : float
        Coverage.
    """
    ahead = 1 + (size - 1) * icc
    inside = (icc < 1) & (ahead > 0)
    ahead, behind = np.where(inside, ahead, np.nan), np.where(inside, 1 - icc, np.nan)
    z = np.log(ahead / behind)
    half = normal_halfwidth(level) * se * size / (ahead * behind)
    lower, upper = (1 - size / (np.exp(end) + size - 1) for end in (z - half, z + half))
    return lower, upper


def icc_frame(
    names: Sequence[str], group: int, found: Derived, statistics: SampleStatistics, level: float
) -> pd.DataFrame:
    """Tabulate intraclass correlations of one group.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`. `design_effect` = 1 + (sum n_j^2 / N - 1) icc is the sampling variance of the mean of all
        units over that of a simple random sample (Kish, 1965); `effective_nobs` is the number of units over it.
    """
    s = statistics
    lower, upper = fisher_interval(found.est, found.se, anova_size(s.sizes, s.counts), level)
    effect = 1 + (float(s.sizes**2 @ s.counts) / s.nobs - 1) * found.est
    columns = (list(names), group, found.est, found.se, lower, upper, effect, s.nobs / effect)
    return pd.DataFrame(dict(zip(COLUMNS, columns, strict=True)))
