"""The numbers that fit measures are functions of, gathered from an estimate and its sample."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech_index
from msem.data.sample import Sample
from msem.distributions import chisq_pvalue
from msem.errors import ModelError
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.estimation.estimate import Estimate
from msem.estimation.least_squares import ordered_srmr
from msem.estimation.solution import Solution, cached
from msem.model.derived import saturated_npar
from msem.model.levels import Level
from msem.postestimation.fit_indices import (
    FitMeasureInputs,
    discrepancy_measures,
    indices,
    likelihood_ratio_chisq,
    measure_series,
    of_pseudo_likelihood,
    scaled_indices,
    twolevel_fmin,
)
from msem.postestimation.hotelling import hotelling
from msem.postestimation.level_fit import corrected_chisq, measures_of_level
from msem.postestimation.noncentrality import noncentralities
from msem.postestimation.residuals import slope_models
from msem.postestimation.scaling import model_scaling, scaling_of
from msem.postestimation.srmr import (
    GroupMoments,
    browne_residual_chisq,
    level_residuals,
    lisrel_gfi,
    residual_measures,
    srmr_level,
    srmr_of,
)
from msem.settings import CORRECTED, SCALED, ScaledTest, several

Floats = NDArray[np.float64]

ROUNDING = 1e-13  # relative, of log-likelihoods


def measure_inputs(fit: Estimate, sample: Sample, baseline: Estimate) -> FitMeasureInputs:
    """Everything `indices` needs to know about a fit.

    Parameters
    ----------
    fit, baseline : Estimate
        The model and its independence model.
    sample : Sample

    Returns
    -------
    FitMeasureInputs
    """
    full = saturated_npar(fit.table)
    unrestricted = sample.llf - fit.objective.covariate_llf
    if fit.table.penalty:  # there is no maximum of the likelihood
        unrestricted = np.nan
    common = FitMeasureInputs(
        llf=np.nan if fit.table.penalty else fit.llf,
        unrestricted_llf=unrestricted,
        npar=fit.nfree,
        df=full - fit.nfree,
        nobs=sample.nobs,
        ngroups=len(sample.groups),
        baseline_chisq=_baseline_chisq(baseline, unrestricted),
        baseline_df=full - baseline.table.npar,
    )
    return _twolevel(common, fit, sample) if fit.table.multilevel else _single(common, fit, sample)


def _baseline_chisq(baseline: Estimate, unrestricted: float) -> float:
    """Its chi-square; 0, and not what rounding leaves, where the baseline model is the saturated one."""
    if not baseline.optimum.converged or np.isnan(unrestricted):
        return np.nan
    value = 2 * (unrestricted - baseline.llf)
    return value if value > ROUNDING * (1 + abs(unrestricted)) else 0.0


def _twolevel(common: FitMeasureInputs, fit: Estimate, sample: Sample) -> FitMeasureInputs:
    nvalues = sum(s.nvalues for s in sample.statistics)
    return replace(
        common,
        nclusters=sample.nclusters,
        nvar=float(len(sample.statistics[0].unit)),
        residuals=twolevel_residuals(fit, sample),
        fmin=twolevel_fmin(fit.llf, fit.objective.covariate_llf, sample.nobs, nvalues),
    )


def _single(common: FitMeasureInputs, fit: Estimate, sample: Sample) -> FitMeasureInputs:
    moments = group_moments(fit, sample)
    complete = sample.complete and not fit.table.auxiliary
    return replace(
        common,
        nvar=float(len(sample.statistics[0].cluster)),
        nmoments=sum(group.nmoments for group in moments),
        residuals=residual_measures(moments),
        # it takes the saturated moments for those of complete data
        residual_chisq=browne_residual_chisq(moments, residual_jacobian(fit)) if complete else None,
        gfi_lisrel=lisrel_gfi(moments),
    )


def least_squares_measures(fit: Solution, solution: LevelDiscrepancy) -> dict[str, float]:
    """Fit measures of a least-squares fit; those of a likelihood are nan.

    So are those that take the naive statistic for a chi-square where it is none.
    """
    model, sample, base = fit.estimate, fit.sample, fit.baseline
    against = solution.of(base) if base.optimum.converged else None
    inputs = FitMeasureInputs(
        llf=np.nan,
        unrestricted_llf=np.nan,
        npar=model.nfree,
        df=solution.df,
        nobs=sample.nobs,
        ngroups=len(sample.groups),
        baseline_chisq=np.nan if against is None else against.standard,
        baseline_df=saturated_npar(model.table) - base.table.npar,
        fmin=0.5 * solution.statistic / sample.nobs,
        statistic=solution.standard,
    )
    if model.table.multilevel:
        inputs = replace(
            inputs,
            nclusters=sample.nclusters,
            residuals=_ordered_residuals(solution, sample)
            if solution.first_stage
            else twolevel_residuals(model, sample),
        )
    else:
        residuals = residual_measures(group_moments(model, sample))
        if solution.first_stage:
            ((srmr, crmr),) = ordered_srmr(solution.vectors[0], [s.nobs for s in sample.statistics]).values()
            residuals = dict.fromkeys(residuals, np.nan) | {"srmr": srmr, "crmr_nomean": crmr}
        inputs = replace(inputs, residuals=residuals)
    return discrepancy_measures(inputs, solution, against, fit.options.adjusted_test)


def _ordered_residuals(solution: LevelDiscrepancy, sample: Sample) -> dict[str, float]:
    """SRMR of every level, of what the first stage has estimated."""
    sizes = [s.nobs for s in sample.statistics]
    found = ordered_srmr(solution.vectors[0], sizes)
    return level_residuals([[found[level][0]] for level in sorted(found)], [sum(sizes)])


def twolevel_residuals(fit: Estimate, sample: Sample) -> dict[str, float]:
    """SRMR of every level."""
    srmr: dict[int, list[float]] = {level: [] for level in range(1, fit.table.nlevels + 1)}
    for number, group in enumerate(sample.groups, 1):
        implied = fit.objective.moments(fit.theta, number)
        for level, moments in group.levels.items():
            srmr[level].append(_srmr(moments, implied[level], fit.table.auxiliary))
    return level_residuals(list(srmr.values()), [s.nobs for s in sample.statistics])


def _srmr(observed: LevelArrays, implied: LevelArrays, auxiliary: Collection[str]) -> float:
    """SRMR of the variables of the model."""
    return srmr_level(observed.without(auxiliary).cov, implied.without(auxiliary).cov)


def group_moments(fit: Estimate, sample: Sample) -> list[GroupMoments]:
    """Sample and implied moments of a single-level fit, one for each group."""
    means = fit.table.meanstructure
    out = []
    for number, group in enumerate(sample.groups, 1):
        implied, observed = fit.objective.moments(fit.theta, number)[1].observed, group.levels[1]
        implied, observed = (m.without(fit.table.auxiliary) for m in (implied, observed))
        exo = set(fit.table.exogenous(1, number))
        out.append(
            GroupMoments(
                sample_cov=observed.cov,
                implied_cov=implied.cov,
                nobs=group.statistics.nobs,
                sample_mean=observed.mean if means else None,
                implied_mean=implied.mean if means else None,
                exogenous=np.array([name in exo for name in observed.names]),
            )
        )
    return out


def residual_jacobian(fit: Estimate) -> Floats:
    """Derivatives of the moments of a single-level fit: means if modelled, then the lower triangle by row.

    Along the directions that equality constraints leave.
    """
    parts = []
    for i, block in enumerate(fit.objective.blocks):
        n = block.nobserved
        row, col = vech_index(n)
        by_row = n + np.lexsort((col, row))
        means = np.arange(n) if fit.table.meanstructure else np.arange(0)
        parts.append(fit.objective.core.jacobian(fit.theta, i)[np.concatenate([means, by_row])])
    return np.vstack(parts) @ fit.equality_tangent


def chisq(fit: Solution) -> float:
    """Chi-square against the saturated model, not scaled."""
    if fit.discrepancy is not None:
        return fit.discrepancy.standard
    return likelihood_ratio_chisq(fit.llf, fit.unrestricted_llf, fit.df)


def tests(fit: Solution) -> pd.DataFrame:
    """Tests of the model against the saturated one.

    Returns
    -------
    DataFrame
        Rows: standard, the likelihood ratio, and the tests asked for; those of least squares otherwise. Columns
        statistic, df, pvalue, scaling (what the likelihood-ratio statistic was divided by). "hotelling" is F on df
        and, in the further column df2, clusters less df degrees of freedom. With weights or a complex design the
        likelihood ratio itself has no p-value.
    """
    if fit.discrepancy is not None:
        return fit.discrepancy.tests()
    rows: dict[str, list[float]] = {}
    for test in fit.options.test:
        if test == "hotelling":
            f = hotelling(fit)
            rows[test] = [f.statistic, float(fit.df), f.pvalue, np.nan, f.df2]
            continue
        statistic, factor = chisq(fit), 1.0
        if fit.df > 0 and test in CORRECTED:
            statistic = corrected_chisq(fit, test)
            factor = chisq(fit) / statistic
        elif test == "yuan_bentler" or test == "yuan_bentler_mplus":
            factor = model_scaling(fit, test).factor
            statistic = statistic / factor if fit.df > 0 else statistic
        valid = test in SCALED or fit.sample.simple
        rows[test] = [
            statistic,
            float(fit.df),
            chisq_pvalue(statistic, fit.df) if valid else np.nan,
            factor,
            np.nan,
        ]
    columns = ["statistic", "df", "pvalue", "scaling", "df2"]
    found = pd.DataFrame.from_dict(rows, orient="index", columns=columns, dtype=float)
    return found if "hotelling" in rows else found.drop(columns="df2")


def _baseline_factor(fit: Solution, test: ScaledTest) -> float:
    base = fit.baseline
    return scaling_of(fit, test, base).factor if base.optimum.converged else np.nan


def slope_measures(fit: Solution) -> dict[str, float]:
    """Fit measures of a model without saturated moments: with random slopes, or ordered variables and a likelihood.

    Chi-square and RMSEA against the saturated model of slopes, if there is one.

    Clusters are the units of the noncentrality. There is no agreed baseline model: CFI, TLI and GFI are nan. SRMR is
    that of the moments of the saturated model of slopes.
    """
    inputs = FitMeasureInputs(
        llf=fit.llf,
        unrestricted_llf=fit.unrestricted_llf,
        npar=fit.estimate.nfree,
        df=fit.df,
        nobs=fit.sample.nobs,
        ngroups=len(fit.sample.groups),
        nclusters=fit.sample.nclusters,
        residuals=slope_residuals(fit),
    )
    of_clusters, test = replace(inputs, nobs=fit.sample.nclusters), fit.options.scaled_test
    if test is None:
        values, by_cluster = indices(inputs), indices(of_clusters)
    else:
        scaling = model_scaling(fit, test)
        values = scaled_indices(inputs, scaling, np.nan)
        by_cluster = scaled_indices(of_clusters, scaling, np.nan)
    values |= {name: value for name, value in by_cluster.items() if name.startswith("rmsea")}
    without = ["baseline_df", *(name for name in values if name.startswith("gfi"))]
    return values | dict.fromkeys(without, np.nan)


def slope_residuals(fit: Solution) -> dict[str, float]:
    """SRMR of every level of a model with random slopes; nan without a saturated model of slopes."""
    levels = range(1, fit.table.nlevels + 1)
    sizes = [s.nobs for s in fit.sample.statistics]
    if np.isnan(fit.unrestricted_llf):
        return level_residuals([[np.nan] * len(sizes) for _ in levels], sizes)
    vectors = [model.vector for model in slope_models(fit)]
    return level_residuals([[srmr_of(vector, level) for vector in vectors] for level in levels], sizes)


@cached
def measures(fit: Solution) -> dict[str, float]:
    """Fit measures of the whole model."""
    if fit.discrepancy is not None:
        return least_squares_measures(fit, fit.discrepancy)
    if fit.has_slopes or fit.integrates:
        return slope_measures(fit)
    inputs = measure_inputs(fit.estimate, fit.sample, fit.baseline)
    if not fit.sample.complete:
        inputs = replace(inputs, complete=noncentralities(fit, fit.estimate, fit.baseline))
    test = fit.options.scaled_test
    if test is None:
        plain = indices(inputs)
        return plain if fit.sample.simple else of_pseudo_likelihood(plain)
    found = scaled_indices(inputs, model_scaling(fit, test), _baseline_factor(fit, test))
    if not fit.sample.simple:
        found = of_pseudo_likelihood(found, fit.aic)
    return found


def fit_measures(
    fit: Solution, names: str | Sequence[str] | None = None, *, level: Level | None = None
) -> pd.Series:
    """Fit measures under lavaan's names, dots replaced by underscores.

    Parameters
    ----------
    names : str or sequence of str, optional
        Some of the measures, such as ``["chisq", "df", "cfi", "rmsea"]``, also with dots as in lavaan. Default: all.
    level : {None, 1, 2, "within", "between"}
        None: of the whole model. Otherwise of one level, the other saturated (Ryu & West, 2009), held against
        independence at that level; `srmr` is that of the level. RMSEA has the number of clusters as sample size at
        the between level, the number of units at the within level.

    Returns
    -------
    Series

    Raises
    ------
    ModelError
        If there is no such measure.
    UnsupportedError
        If parameters or constraints tie the levels together: the fit of one of them is then not defined.
    """
    found = measure_series(measures(fit) if level is None else measures_of_level(fit, level))
    return found if names is None else chosen_measures(found, names)


def chosen_measures(found: pd.Series, names: str | Sequence[str]) -> pd.Series:
    """Some fit measures, under lavaan's names or ours.

    Raises
    ------
    ModelError
        If there is no such measure.
    """
    wanted = [name.lower().replace(".", "_") for name in several(names)]
    for name in wanted:
        if name not in found.index:
            near = difflib.get_close_matches(name, list(found.index), n=3) or list(found.index)
            raise ModelError(f"there is no fit measure {name!r}; there are {', '.join(near)}")
    return found[wanted]
