"""Fit of one level of a two-level model, the other level saturated (Ryu & West, 2009).

The chi-square of the partially saturated model is due to the level that is specified; its baseline model has
independence at that level and saturates the other one too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd

from msem import _core
from msem.data.sample import Sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate, require_unpenalized
from msem.estimation.least_squares import ordered_srmr
from msem.estimation.partial import Key, estimate_partially
from msem.estimation.smallsamples import LevelShape, small_sample_factor
from msem.estimation.solution import GroupResults, Solution, cached, without_ordered
from msem.model.derived import (
    crosses_levels,
    level_baseline_table,
    partially_saturated_table,
    saturated_npar,
)
from msem.postestimation.fit_indices import (
    FitMeasureInputs,
    discrepancy_measures,
    incremental_measures,
    indices,
    of_pseudo_likelihood,
    rmsea_measures,
    scaled_indices,
    twolevel_fmin,
)
from msem.postestimation.noncentrality import Noncentrality, noncentralities
from msem.postestimation.scaling import Scaling, scaling_of
from msem.postestimation.slope_level_fit import SlopeLevel, slope_level, slope_level_measures
from msem.postestimation.srmr import pooled, srmr_level
from msem.settings import AdjustedTest, CorrectedTest


@dataclass(frozen=True, eq=False)
class LevelSpecific:
    """One level as specified, and as independence, the other level saturated.

    Attributes
    ----------
    level : int
    model, baseline : Estimate
        Both partially saturated.
    saturated_npar : int
        Parameters of the model in which both levels are saturated.
    """

    level: int
    model: Estimate
    baseline: Estimate
    saturated_npar: int


def fit_level_specific(
    fit: Estimate, sample: Sample, level: int, loss: Sequence[_core.Likelihood] | None = None
) -> LevelSpecific:
    """Fit the two partially saturated models of one level.

    Parameters
    ----------
    fit : Estimate
        The whole model, whose estimates the level starts from.
    sample : Sample
    level : {1, 2}
    loss : sequence of _core.Likelihood, optional
        Another discrepancy than the normal likelihood, for each group.

    Returns
    -------
    LevelSpecific
    """
    rows = zip(fit.table.rows, fit.objective.row_values(fit.theta).tolist(), strict=True)
    values: dict[Key, float] = {row[:5]: value for row, value in rows if row.level == level}
    model = estimate_partially(partially_saturated_table(fit.table, level), sample, level, values, loss)
    baseline = estimate_partially(level_baseline_table(fit.table, level), sample, level, {}, loss)
    return LevelSpecific(level, model, baseline, saturated_npar(fit.table))


def level_measures(
    found: LevelSpecific,
    sample: Sample,
    scaling: Callable[[Estimate], Scaling] | None = None,
    complete: tuple[Noncentrality, Noncentrality] | None = None,
) -> dict[str, float]:
    """Fit measures of one level.

    Parameters
    ----------
    found : LevelSpecific
    sample : Sample
    scaling : callable, optional
        Scaling factors of a model of the variables of `found`; None for the likelihood-ratio test alone.
    complete : pair of Noncentrality, optional
        Of the two models for complete data, when values are missing.

    Returns
    -------
    dict
        Named as those of the whole model (`fit_indices`); `srmr` is
        that of the level. Sample size of RMSEA and GFI: clusters at the between level, units at the within level, as
        in Ryu and West (2009) and lavaan 0.7; of BIC: units. All but the information criteria are nan if a model has
        not converged.
    """
    inputs = _inputs(found, sample)
    if complete is not None:
        inputs = replace(inputs, complete=complete)
    if scaling is None:
        measures = indices(inputs)
    else:
        null = scaling(found.baseline).factor if found.baseline.optimum.converged else np.nan
        measures = scaled_indices(inputs, scaling(found.model), null)
    return measures if sample.simple else of_pseudo_likelihood(measures)


def least_squares_of_level(
    found: LevelSpecific, sample: Sample, solution: LevelDiscrepancy, test: AdjustedTest | None
) -> dict[str, float]:
    """Fit measures of one level of a fit by least squares.

    Parameters
    ----------
    found : LevelSpecific
    sample : Sample
    solution : LevelDiscrepancy
        Of the whole model, whose statistics and weights these are.
    test : str or None
        The adjusted test that measures named ``_scaled`` come from.
    """
    level = found.level
    model, against = (
        solution.of(one) if one.optimum.converged else None for one in (found.model, found.baseline)
    )
    if model is None:
        return dict.fromkeys(level_measures(found, sample), np.nan)
    units = sample.units_of(level)
    if solution.first_stage:
        srmr, _ = ordered_srmr(model.vectors[0], [s.nobs for s in sample.statistics])[level]
    else:
        srmr = level_srmr(found.model, sample, level)
    inputs = FitMeasureInputs(
        llf=np.nan,
        unrestricted_llf=np.nan,
        npar=found.model.nfree,
        df=model.df,
        nobs=units,
        units=sample.nobs,
        baseline_chisq=np.nan if against is None else against.standard,
        baseline_df=found.saturated_npar - found.baseline.table.npar,
        nclusters=units if level > 1 else sample.nclusters,
        ngroups=len(sample.groups),
        fmin=0.5 * model.statistic / sample.nobs,
        statistic=model.standard,
        residuals={"srmr": srmr},
    )
    return discrepancy_measures(inputs, model, against, test)


def _inputs(found: LevelSpecific, sample: Sample) -> FitMeasureInputs:
    model, baseline = found.model, found.baseline
    full = found.saturated_npar
    unrestricted = sample.llf - model.objective.covariate_llf
    if not model.optimum.converged:
        unrestricted = np.nan
    chisq = max(2 * (unrestricted - baseline.llf), 0.0) if baseline.optimum.converged else np.nan
    return FitMeasureInputs(
        llf=model.llf,
        unrestricted_llf=unrestricted,
        npar=model.nfree,
        df=full - model.nfree,
        nobs=sample.units_of(found.level),
        units=sample.nobs,
        baseline_chisq=chisq,
        baseline_df=full - baseline.table.npar,
        nclusters=sample.units_of(found.level) if found.level > 1 else sample.nclusters,
        ngroups=len(sample.groups),
        nvar=float(len(sample.levels[0][found.level].names)),
        fmin=twolevel_fmin(
            model.llf, model.objective.covariate_llf, sample.nobs, sum(s.nvalues for s in sample.statistics)
        ),
        residuals={"srmr": level_srmr(model, sample, found.level)},
    )


def level_srmr(model: Estimate, sample: Sample, level: int) -> float:
    """SRMR of one level, averaged over groups with their units as weights."""
    auxiliary = model.table.auxiliary
    each = []
    for number, group in enumerate(sample.groups, 1):
        implied = model.objective.moments_of(level, model.theta, number)
        observed, implied = (m.without(auxiliary) for m in (group.levels[level], implied))
        each.append(srmr_level(observed.cov, implied.cov))
    return pooled(each, [s.nobs for s in sample.statistics])


def measures_of_tests(
    tests: pd.DataFrame, baseline: pd.DataFrame | None, size: float, ngroups: int, srmr: float
) -> dict[str, float]:
    """Fit measures of one level from its tests and those of independence at the level.

    Parameters
    ----------
    tests, baseline : DataFrame
        Rows are tests, columns statistic, df, pvalue; the mean-scaled test is taken if there is one, else the first.
        Without `baseline` the measures that need one are nan.
    size : float
        Sample size of RMSEA, of all groups.
    ngroups : int
    srmr : float

    Returns
    -------
    dict
    """
    chisq, df, pvalue = _scaled(tests)
    chisq0, df0, pvalue0 = _scaled(baseline) if baseline is not None else (np.nan,) * 3
    return {
        "chisq": chisq,
        "df": df,
        "pvalue": pvalue,
        "baseline_chisq": chisq0,
        "baseline_df": df0,
        "baseline_pvalue": pvalue0,
        **incremental_measures(chisq, df, chisq0, df0),
        **rmsea_measures(chisq, df, size, ngroups),
        "srmr": srmr,
    }


def _scaled(tests: pd.DataFrame) -> tuple[float, float, float]:
    row = tests.index.get_loc("mean_scaled") if "mean_scaled" in tests.index else 0
    values = tests[["statistic", "df", "pvalue"]].to_numpy(dtype=float)[row]
    return float(values[0]), float(values[1]), float(values[2])


@without_ordered
def level_fit(fit: Solution, level: int | str) -> LevelSpecific | SlopeLevel:
    """Estimates of one level with the other saturated, and of its baseline model (Ryu & West, 2009).

    Parameters
    ----------
    level : {1, 2, 3, "within", "between"} or str
        By number or by name, that of a block of the text or of a column of clusters.

    Returns
    -------
    LevelSpecific or SlopeLevel
        `model` and `baseline`, both with parameter table, theta and log-likelihood; with random slopes there is no
        agreed baseline model.

    Raises
    ------
    ValueError
        If there is no such level.
    UnsupportedError
        If parameters or constraints tie the levels together.
    """
    if not fit.table.multilevel:
        raise ModelError("fit measures of a level need a two-level model; this one has one level")
    number = fit.table.level(level)
    if tied(fit):
        raise UnsupportedError(tied(fit))
    return slope_level(fit, number) if fit.has_slopes else specific_fit(fit, number)


def measures_of_level(fit: Solution, level: int | str) -> dict[str, float]:
    """Fit measures of one level, the others saturated."""
    require_unpenalized(fit.estimate, "fit measures of one level")
    number = level_fit(fit, level).level
    return slope_level_measures(fit, number) if fit.has_slopes else specific_measures(fit, number)


@cached
def tied(fit: Solution) -> str:
    """Why the fit of a level is not defined; empty if it is."""
    shared = crosses_levels(fit.table)
    if not shared:
        return ""
    return (
        f"the levels share {', '.join(shared)}: no level can be saturated without giving that up, so its part "
        "of the fit is not defined; look at fit_measures() of the whole model, or free the levels"
    )


@cached
def specific_fit(fit: Solution, level: int) -> LevelSpecific:
    """One level with the others saturated, and its baseline."""
    loss = None if fit.discrepancy is None else fit.discrepancy.likelihoods
    return fit_level_specific(fit.estimate, fit.sample, level, loss)


def corrected_chisq(fit: Solution, test: CorrectedTest) -> float:
    """Chi-square with the share of its last level multiplied by a factor below 1 for small samples.

    The share of the between level is the chi-square of the model with the within level saturated; its sample are the
    clusters. A single level is the share of rows. What is left over, of the within level, has enough units.

    Parameters
    ----------
    fit : Solution
        Whose levels share no parameters.
    test : {"bartlett", "swain", "yuan_tian_yanagihara"}

    Returns
    -------
    float
        nan if the saturated model, or that of the between level alone, has no maximum.
    """
    if not fit.sample.converged:
        return np.nan
    last = fit.table.nlevels
    model = specific_fit(fit, last).model if fit.table.multilevel else fit.estimate
    if not model.optimum.converged:
        return np.nan
    whole = 2 * (fit.unrestricted_llf - fit.llf)
    for number, group in enumerate(fit.sample.groups, 1):
        alone = GroupResults(number, fit.sample.groups, model)
        shape = LevelShape.of(model.table, last, number)
        whole -= (1 - small_sample_factor(test, shape, group.statistics.nclusters)) * alone.chisq
    return max(whole, 0.0)


@cached
def specific_measures(fit: Solution, level: int) -> dict[str, float]:
    """Fit measures of one level."""
    found = specific_fit(fit, level)
    if fit.discrepancy is not None:
        return least_squares_of_level(found, fit.sample, fit.discrepancy, fit.options.adjusted_test)
    complete = None if fit.sample.complete else noncentralities(fit, found.model, found.baseline)
    return level_measures(found, fit.sample, level_scaling(fit), complete)


def level_scaling(fit: Solution) -> Callable[[Estimate], Scaling] | None:
    """Scaling factors of models of one level, as a function; None if no scaled test was asked for."""
    test = fit.options.scaled_test
    return None if test is None else partial(scaling_of, fit, test)
