"""Intraclass correlations with standard errors, implied by a model or from saturated moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pandas as pd

from msem.data.intraclass import icc_columns
from msem.data.statistics import Statistics
from msem.errors import ModelError, UnsupportedError
from msem.estimation.matrices import Model, Numbers
from msem.estimation.solution import NO_MOMENTS, Solution, free_vcov, without_slopes
from msem.postestimation.delta import Derived, Quantity, delta_method
from msem.postestimation.ram import Structure, divide, structures
from msem.postestimation.unrestricted import Unrestricted, saturated_moments
from msem.settings import require_choice

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
        raise ModelError("no variable is at both levels, so there is no intraclass correlation")

    def quantity(theta: Numbers) -> Numbers:
        blocks = structures(model, theta)
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


def icc_frame(
    names: Sequence[str], group: int, found: Derived, statistics: Statistics, ci_level: float
) -> pd.DataFrame:
    """Intraclass correlations of one group: columns lhs, group, and those of `icc_columns`."""
    sizes = dict(zip(statistics.sizes.tolist(), statistics.counts.tolist(), strict=True))
    frame = icc_columns(found.est, found.se, sizes, ci_level)
    frame.insert(0, "lhs", list(names))
    frame.insert(1, "group", group)
    return frame


@without_slopes(NO_MOMENTS)
def icc_table(
    fit: Solution, *, source: Literal["saturated", "model"] = "saturated", ci_level: float = 0.95
) -> pd.DataFrame:
    """Intraclass correlations with standard errors, intervals and design effects.

    Parameters
    ----------
    source : {"saturated", "model"}
        From the saturated moments, or implied by the model; the model also has those of latent variables that
        have the same name at both levels.
    ci_level : float
        Coverage of the intervals, which are Wald intervals on Fisher's scale.

    Returns
    -------
    DataFrame
        Columns lhs, group, icc, se, ci_lower, ci_upper, design_effect, effective_nobs.

    Raises
    ------
    UnsupportedError
        For a single-level model.
    ModelError
        If no variable is at both levels.
    """
    require_choice("source", source, ("saturated", "model"))
    if not fit.table.multilevel:
        raise UnsupportedError(
            "a single-level model has no intraclass correlations: give level: blocks and cluster="
        )
    frames = []
    for group, sample in enumerate(fit.sample.groups, 1):
        quantity, names = model_icc(fit.model, group), at_both_levels(fit.model, group)
        if source == "model":
            found = delta_method(quantity, fit.theta, free_vcov(fit))
        else:
            names = list(sample.statistics.variables.both)
            found = saturated_icc(saturated_moments(fit)[group], names)
        frames.append(icc_frame(names, group, found, sample.statistics, ci_level))
    return pd.concat(frames, ignore_index=True)
