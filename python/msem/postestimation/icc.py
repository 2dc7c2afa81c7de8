"""Intraclass correlations with standard errors, implied by a model or from saturated moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd

from msem.data.arrays import LevelArrays
from msem.data.first_stage import FirstStage, Statistic
from msem.data.intraclass import icc_columns, share_columns, share_table
from msem.data.statistics import Statistics
from msem.errors import ModelError, UnsupportedError
from msem.estimation.matrices import Model, Numbers
from msem.estimation.solution import NO_MOMENTS, NOT_YET, Estimated, Solution, free_vcov
from msem.postestimation.delta import Derived, Quantity, delta_method
from msem.postestimation.ram import Structure, divide, mean_weights, structures
from msem.postestimation.unrestricted import Unrestricted, saturated_moments
from msem.settings import require_choice

Sizes = Mapping[float, float]
NOWHERE = "no variable is at several levels, so there is no intraclass correlation"

__all__ = ["at_both_levels", "icc_frame", "model_icc", "saturated_icc"]


def at_both_levels(model: Model, group: int) -> list[str]:
    """Observed variables of both levels, then latent variables that have the same name at both."""
    within, between = (
        next(b.names for b in model.blocks if (b.level, b.group) == (level, group)) for level in (1, 2)
    )
    return [name for name in within if name in between]


def model_icc(model: Model, group: int) -> Quantity:
    """Model-implied intraclass correlations of `at_both_levels` as a function of theta.

    Raises
    ------
    ModelError
        If no variable is at both levels.
    """
    names = at_both_levels(model, group)
    if not names:
        raise ModelError(NOWHERE)

    def quantity(theta: Numbers) -> Numbers:
        return _shares(model, theta, group, [(name, 2) for name in names])[..., ::2]

    return quantity


def saturated_icc(moments: Unrestricted, names: Sequence[str]) -> Derived:
    """Intraclass correlations of variables at both levels, from saturated moments."""

    def quantity(vector: Numbers) -> Numbers:
        (within, between) = (_variances(block, names) for block in moments.blocks(vector).values())
        return divide(between, within + between)

    return delta_method(quantity, moments.vector, moments.gamma)


def first_stage_icc(first: FirstStage, moments: Mapping[int, LevelArrays], names: Sequence[str]) -> Derived:
    """Intraclass correlations of variables, among them those that ordered ones are cut from.

    Variances are what covariates leave, 1 within clusters for ordered variables, and what they explain; the moments of
    the covariates, `moments` by level, are given.
    """
    at = {key: k for k, key in enumerate(first.keys)}

    def variances(v: Numbers, level: int) -> Numbers:
        given = [name for name in first.covariates if name in moments[level].names]
        own = [moments[level].at[name] for name in given]
        spread = moments[level].cov[np.ix_(own, own)]
        out = []
        for name in names:
            k = at.get(Statistic(name, "~~", name, level))
            slopes = v[..., [at[Statistic(name, "~", x, level)] for x in given]]
            explained = np.einsum("...i,ij,...j->...", slopes, spread, slopes)
            out.append(explained + (1.0 if k is None else v[..., k]))
        return np.stack(out, axis=-1)

    def quantity(v: Numbers) -> Numbers:
        within, between = variances(v, 1), variances(v, 2)
        return divide(between, within + between)

    return delta_method(quantity, first.values, first.acov)


def _variances(block: Structure, names: Sequence[str]) -> Numbers:
    return block.variances[..., [block.at[name] for name in names]]


def icc_frame(
    names: Sequence[str], group: int, found: Derived, sizes: Sizes, ci_level: float
) -> pd.DataFrame:
    """Intraclass correlations of one group: columns lhs, group, and those of `icc_columns`."""
    frame = icc_columns(found.est, found.se, sizes, ci_level)
    frame.insert(0, "lhs", list(names))
    frame.insert(1, "group", group)
    return frame


def sizes_of(statistics: Statistics) -> Sizes:
    """Number of clusters of each size."""
    return dict(zip(statistics.sizes.tolist(), statistics.counts.tolist(), strict=True))


def model_icc_table(fit: Estimated, sizes: Sequence[Sizes], ci_level: float) -> pd.DataFrame:
    """Intraclass correlations that a model implies; see `icc_table`.

    Parameters
    ----------
    fit : Estimated
    sizes : sequence of mapping of float to float
        Number of clusters of each size, of each group; of two levels.
    ci_level : float
    """
    frames = []
    for group in range(1, fit.table.ngroups + 1):
        if fit.table.nlevels > 2:
            keys = several_levels(fit.model, group)
            if not keys:
                raise ModelError(NOWHERE)
            found = delta_method(partial(_of_model, fit.model, group, keys), fit.theta, free_vcov(fit))
            frame = share_columns(keys, found.est, found.se, ci_level)
            frame.insert(1, "group", group)
        else:
            quantity, names = model_icc(fit.model, group), at_both_levels(fit.model, group)
            found = delta_method(quantity, fit.theta, free_vcov(fit))
            frame = icc_frame(names, group, found, sizes[group - 1], ci_level)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def icc_table(
    fit: Solution, *, source: Literal["saturated", "model"] | None = None, ci_level: float = 0.95
) -> pd.DataFrame:
    """Intraclass correlations with standard errors, intervals and design effects.

    Parameters
    ----------
    source : {"saturated", "model"}, optional
        From the saturated moments, the default, or implied by the model; the model also has those of latent variables
        that have the same name at both levels. With random slopes there are those of the model only.
    ci_level : float
        Coverage of the intervals, which are Wald intervals on Fisher's scale.

    Returns
    -------
    DataFrame
        Columns lhs, group, icc, se, ci_lower, ci_upper, design_effect, effective_nobs. With three levels: lhs, group,
        level, icc, se, ci_lower, ci_upper (Wald), correlation, correlation_se. `icc` is then the share of variance of
        the level, ICC(2) or ICC(3), and `correlation` that of two units of one cluster of the level: the share of this
        level and of those above (Hox, Moerbeek & van de Schoot, 2018, have both definitions).

    Raises
    ------
    UnsupportedError
        For a single-level model, and for saturated moments of a model with random slopes.
    ModelError
        If no variable is at both levels.

    Notes
    -----
    With random slopes shares of variance depend on the covariates (Goldstein, Browne & Rasbash, 2002). These are those
    of the variance over all units, covariates averaged over (Johnson, 2014; Rights & Sterba, 2019): slopes times
    deviations of covariates from their means belong to the level of the covariates, and what slopes do at these means
    to the level that they vary at. See `variance_partition`.

    References
    ----------
    Goldstein, Browne & Rasbash (2002). Partitioning variation in multilevel models. Understanding Statistics, 1,
    223-231. Rights & Sterba (2019). Psychological Methods, 24, 309-338.
    """
    if source is None:
        source = "model" if fit.has_slopes else "saturated"
    require_choice("source", source, ("saturated", "model"))
    if fit.has_slopes and source == "saturated":
        raise UnsupportedError(
            f'there are no saturated moments with random slopes, because {NO_MOMENTS}: source="model" has the '
            "shares of variance that the model implies, averages over the covariates"
        )
    if fit.integrates:
        raise UnsupportedError(
            f"icc_table() of a model with ordered variables by maximum likelihood: {NOT_YET}"
        )
    if not fit.table.multilevel:
        raise UnsupportedError(
            "a single-level model has no intraclass correlations: give level: blocks and cluster="
        )
    if source == "model":
        return model_icc_table(fit, [sizes_of(sample.statistics) for sample in fit.sample.groups], ci_level)
    if fit.table.nlevels > 2:
        return _shares_table(fit, ci_level)
    frames = []
    for group, sample in enumerate(fit.sample.groups, 1):
        if not at_both_levels(fit.model, group):
            raise ModelError(NOWHERE)
        names = list(sample.statistics.variables.both)
        first = sample.statistics.first_stage
        found = (
            first_stage_icc(first, sample.levels, names)
            if first is not None
            else saturated_icc(saturated_moments(fit)[group], names)
        )
        frames.append(icc_frame(names, group, found, sizes_of(sample.statistics), ci_level))
    return pd.concat(frames, ignore_index=True)


def several_levels(model: Model, group: int) -> list[tuple[str, int]]:
    """Variables of level 1 with a higher level that has a part of them, for each such level."""
    blocks = {b.level: b.names for b in model.blocks if b.group == group}
    return [(name, level) for name in blocks[1] for level in blocks if level > 1 and name in blocks[level]]


def _shares(model: Model, theta: Numbers, group: int, keys: Sequence[tuple[str, int]]) -> Numbers:
    """Shares of variance of variables at levels, and those of these levels and all above: two for each key.

    With random slopes these are averages over covariates; see `mean_weights`.
    """
    blocks = structures(model, theta)
    own = {level: block for (level, of), block in blocks.items() if of == group}

    def of_level(name: str, level: int) -> Numbers:
        weights = mean_weights(model, theta, blocks, level, group, name)
        found: Numbers = np.einsum("...i,...ij,...j->...", weights, own[level].cov, weights)
        return found

    def variance(name: str, lowest: int, highest: int) -> Numbers:
        total: Numbers = np.sum([of_level(name, at) for at in own if lowest <= at <= highest], axis=0)
        return total

    top = max(own)
    out = [
        divide(variance(name, level, last), variance(name, 1, top))
        for name, level in keys
        for last in (level, top)
    ]
    return np.stack(out, axis=-1)


def _shares_table(fit: Solution, ci_level: float) -> pd.DataFrame:
    frames = []
    for group, sample in enumerate(fit.sample.groups, 1):
        frame = share_table(sample.levels, saturated_moments(fit)[group].gamma, ci_level)
        if frame.empty:
            raise ModelError(NOWHERE)
        frame.insert(1, "group", group)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _of_model(model: Model, group: int, keys: Sequence[tuple[str, int]], theta: Numbers) -> Numbers:
    return _shares(model, theta, group, keys)
