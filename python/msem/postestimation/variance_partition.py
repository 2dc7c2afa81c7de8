"""Where the variance of an outcome comes from: covariates, random slopes and the rest, within and between clusters.

With y = within + between, for the average over covariates (Johnson, 2014; Rights & Sterba, 2019):

    within   fixed      T S_x T'             covariates of units through their total effects T, mean slopes included
             slopes     sum t_k t_l cov(s_k, s_l) cov(x_k, x_l)
             residual   what is left of the implied variance
    between  fixed      g' T_b S_w T_b' g    covariates of clusters
             residual   what is left of g' Sigma_b g

where g takes the cluster's mean of y at the means of its covariates: its between part, and what slopes do there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import ModelError, UnsupportedError
from msem.estimation.matrices import Model, Numbers
from msem.estimation.solution import Estimated, free_vcov
from msem.model.levels import BETWEEN, LEVEL_NAMES, WITHIN
from msem.postestimation.delta import Quantity, delta_method
from msem.postestimation.ram import Structure, divide, mean_weights, structures
from msem.settings import several

Floats = NDArray[np.float64]
SOURCES = (
    (WITHIN, "fixed"),
    (WITHIN, "slopes"),
    (WITHIN, "residual"),
    (BETWEEN, "fixed"),
    (BETWEEN, "residual"),
)


def variance_partition(
    fit: Estimated, outcome: str | Sequence[str] | None = None, *, ci_level: float = 0.95
) -> pd.DataFrame:
    r"""Divide the variance of outcomes by level and source: the R-squared measures of multilevel models.

    Parameters
    ----------
    outcome : str or sequence of str, optional
        Observed variables of level 1; default: all that are no covariates.
    ci_level : float
        Coverage of the intervals, which are Wald intervals of the logit.

    Returns
    -------
    DataFrame
        A row for each outcome, group and source: columns lhs, group, level ("within", "between", "total"),
        source, variance; share of the total variance with share_se, ci_lower and ci_upper; and level_share,
        that of the variance of the level. Sources are "fixed" (covariates, through mean slopes), "slopes"
        (random slopes, within), "residual", and "all" for the total. Shares are those of Rights and Sterba
        (2019): fixed within is their f1, fixed between f2, slopes v, residual between m. nan where a variance
        is negative.

    Raises
    ------
    ModelError
        If the model has one level, or an outcome is none of its observed variables of level 1.

    Notes
    -----
    Covariates of units are those of the within model only: with all their variance they stand at level 1, and what
    slopes do at their means belongs to the between level. Where covariates are centred within clusters nothing does.

    References
    ----------
    Rights & Sterba (2019). Quantifying explained variance in multilevel models. Psychological Methods, 24, 309-338.
    Johnson (2014). Extending Nakagawa & Schielzeth's R2_GLMM to random slopes models. Methods in Ecology and
    Evolution, 5, 944-946.

    Examples
    --------
    >>> import msem
    >>> fit = msem.sem("level: 1\n y1 ~ x1\nlevel: 2\n y1 ~ w1", msem.load_demo(), cluster="cluster")
    >>> fit.variance_partition()["share"].round(2).tolist()
    [0.08, 0.53, 0.02, 0.38, 1.0]
    """
    if not fit.table.multilevel:
        raise ModelError("the model has one level: its explained variances are rsquare()")
    if fit.table.nlevels > BETWEEN:
        raise UnsupportedError(
            "variance_partition() is for two levels; rsquare() has each level's explained variances"
        )
    frames = []
    for group in range(1, fit.table.ngroups + 1):
        known = [n for n in fit.table.observed(WITHIN, group) if n not in fit.table.covariates(WITHIN, group)]
        wanted = known if outcome is None else list(several(outcome))
        for name in wanted:
            if name not in known:
                raise ModelError(f"{name!r} is no observed outcome of level 1: these are {', '.join(known)}")
            frames.append(_of_outcome(fit, group, name, ci_level))
    return pd.concat(frames, ignore_index=True)


def _of_outcome(fit: Estimated, group: int, name: str, ci_level: float) -> pd.DataFrame:
    parts = delta_method(_variances(fit.model, group, name), fit.theta, free_vcov(fit)).est
    shares = delta_method(_shares(fit.model, group, name), fit.theta, free_vcov(fit))
    lower, upper = shares.interval(ci_level, "logit")
    whole = {
        level: sum(v for v, (of, _) in zip(parts, SOURCES, strict=True) if of == level) for level in (1, 2)
    }
    own = [whole[level] for level, _ in SOURCES]
    frame = pd.DataFrame(
        {
            "lhs": name,
            "group": group,
            "level": [*(LEVEL_NAMES[level] for level, _ in SOURCES), "total"],
            "source": [*(source for _, source in SOURCES), "all"],
            "variance": np.append(parts, parts.sum()),
            "share": np.append(shares.est, 1.0),
            "share_se": np.append(shares.se, 0.0),
            "ci_lower": np.append(lower, 1.0),
            "ci_upper": np.append(upper, 1.0),
            "level_share": np.append(np.where(np.array(own) > 0, parts, np.nan) / own, np.nan),
        }
    )
    return frame if fit.table.slopes(group) else frame[frame["source"] != "slopes"]


def _variances(model: Model, group: int, name: str) -> Quantity:
    """Variance of each of `SOURCES` as a function of theta."""

    def quantity(theta: Numbers) -> Numbers:
        blocks = structures(model, theta)
        within, between = blocks[WITHIN, group], blocks[BETWEEN, group]
        at = within.at[name]
        total, fixed = within.variances[..., at], _explained(model, within, WITHIN, group)[..., at, at]
        slopes = total - replace(within, slopes=None).variances[..., at]
        g = mean_weights(model, theta, blocks, BETWEEN, group, name)[..., None, :]
        turned = np.swapaxes(g, -1, -2)
        above = (g @ between.cov @ turned)[..., 0, 0]
        predicted = (g @ _explained(model, between, BETWEEN, group) @ turned)[..., 0, 0]
        return np.stack([fixed, slopes, total - fixed - slopes, predicted, above - predicted], axis=-1)

    return quantity


def _shares(model: Model, group: int, name: str) -> Quantity:
    variances = _variances(model, group, name)

    def quantity(theta: Numbers) -> Numbers:
        parts = variances(theta)
        positive = np.where(parts.real >= 0, parts, np.nan)
        return divide(positive, parts.sum(axis=-1, keepdims=True))

    return quantity


def _explained(model: Model, own: Structure, level: int, group: int) -> Numbers:
    """Covariance matrix of a block that is due to its covariates."""
    covariates = set(model.table.covariates(level, group))
    chosen = np.array([name in covariates for name in own.names])
    residual = own.residual * np.outer(chosen, chosen)
    out: Numbers = own.total @ residual @ np.swapaxes(own.total, -1, -2)
    return out
