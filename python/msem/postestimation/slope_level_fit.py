"""Fit of one level of a model of two levels with random slopes, against the saturated model of slopes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from msem.data.model_statistics import slope_carriers
from msem.data.sample import Sample
from msem.errors import UnsupportedError
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.slope_moments import Coordinates, against_slopes, require_reference
from msem.estimation.solution import Solution, cached
from msem.model.derived import saturated_npar, saturated_slopes
from msem.model.levels import BETWEEN, WITHIN
from msem.model.slope_levels import kept_between, kept_within
from msem.postestimation.fit_indices import FitMeasureInputs, indices, scaled_indices
from msem.postestimation.scaling import model_trace, mplus_scaling, traced
from msem.postestimation.srmr import pooled, srmr_of


@dataclass(frozen=True, eq=False)
class SlopeLevel:
    """One level as specified, the other saturated.

    Attributes
    ----------
    level : int
    model : Estimate
    sample : Sample
        Its slopes are those of the model, or one for each outcome.
    saturated_npar : int
        Parameters of the saturated model of slopes.
    """

    level: int
    model: Estimate
    sample: Sample
    saturated_npar: int


def has_slope_levels(fit: Solution) -> bool:
    """Whether the levels of a model with random slopes have a fit of their own."""
    return fit.table.nlevels == BETWEEN and not np.isnan(fit.unrestricted_llf)


@cached
def slope_level(fit: Solution, level: int) -> SlopeLevel:
    """Estimates of one level of a model with random slopes, the other saturated.

    Raises
    ------
    UnsupportedError
        If there is no saturated model of slopes, or there are more than two levels.
    """
    if fit.table.nlevels > BETWEEN:
        raise UnsupportedError(
            "the fit of one level of a model with random slopes and three or more levels is not available in this "
            "version"
        )
    for group in fit.groups.values():
        require_reference(group.slope_reference, "levels")
    sample = fit.sample
    if level == WITHIN:
        table = kept_within(fit.table)
    else:
        table = kept_between(
            fit.table, [_coefficients(fit, number) for number in range(1, fit.table.ngroups + 1)]
        )
        groups = [
            replace(
                group,
                statistics=group.statistics.with_slopes(
                    saturated_slopes(fit.table, number), slope_carriers(table, number)
                ),
                space="natural",
            )
            for number, group in enumerate(sample.groups, 1)
        ]
        sample = replace(sample, groups=tuple(groups))
    return SlopeLevel(level, estimate(table, sample), sample, saturated_npar(fit.table))


def _coefficients(fit: Solution, number: int) -> dict[str, tuple[dict[str, float], float]]:
    objective = fit.objective
    blocks = [block for block in objective.blocks if block.group == number]
    levels = fit.sample.groups[number - 1].statistics.variables.levels
    coordinates = Coordinates.of(fit.table, number, levels)
    return coordinates.coefficients(
        fit.table.slopes(number), blocks, objective.observed_moments(fit.theta, number)
    )


def slope_level_measures(fit: Solution, level: int) -> dict[str, float]:
    """Fit measures of one level of a model with random slopes; there is no agreed baseline model."""
    found = slope_level(fit, level)
    model, sample = found.model, found.sample
    unrestricted, srmr = np.nan, np.nan
    if model.optimum.converged:
        unrestricted = fit.unrestricted_llf
        srmr = _srmr(fit, found)
    units = sample.units_of(level)
    inputs = FitMeasureInputs(
        llf=model.llf,
        unrestricted_llf=unrestricted,
        npar=model.nfree,
        df=found.saturated_npar - model.nfree,
        nobs=units,
        units=sample.nobs,
        nclusters=units if level > WITHIN else sample.nclusters,
        ngroups=len(sample.groups),
        residuals={"srmr": srmr},
    )
    test, information = fit.options.scaled_test, fit.options.information
    if test is None:
        values = indices(inputs)
    else:
        trace = model_trace(model, sample, information, test)
        values = scaled_indices(inputs, mplus_scaling(trace, model.nfree, *traced(fit)), np.nan)
    without = ["baseline_df", *(name for name in values if name.startswith("gfi"))]
    return values | dict.fromkeys(without, np.nan)


def _srmr(fit: Solution, found: SlopeLevel) -> float:
    each = []
    for group in fit.groups.values():
        reference = require_reference(group.slope_reference, "levels")
        at = group.number
        vector = against_slopes(found.model, found.sample.groups[at - 1], reference, at).vector
        each.append(srmr_of(vector, found.level))
    return pooled(each, [s.nobs for s in found.sample.statistics])
