"""Fit of one level of a two-level model, the other level saturated (Ryu & West, 2009).

The chi-square of the partially saturated model is due to the level that is specified; its baseline model has
independence at that level and saturates the other one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import ModelError
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.samples import Sample
from msem.inference.fitmeasures import FitMeasureInputs, fit_measures, twolevel_fmin
from msem.inference.residuals import srmr_level
from msem.moments.arrays import LevelArrays
from msem.table.partable import Parameter, ParameterTable
from msem.table.special_tables import level_baseline_table, partially_saturated_table, saturated_table

Floats = NDArray[np.float64]

TOLERANCE = 1e-8  # on the decrement: the chi-square is the better by another step


@dataclass(frozen=True, eq=False)
class LevelSpecific:
    """One level as specified, and as independence, the other level saturated.

    Attributes
    ----------
    level : int
    model, baseline : Estimate
        Both partially saturated.
    """

    level: int
    model: Estimate
    baseline: Estimate


def fit_level_specific(fit: Estimate, sample: Sample, level: int) -> LevelSpecific:
    """Fit the two partially saturated models of one level.

    Parameters
    ----------
    fit : Estimate
        The whole model, whose estimates the level starts from.
    sample : Sample
    level : {1, 2}

    Returns
    -------
    LevelSpecific
    """
    values = {
        (r.lhs, r.op, r.rhs, r.level, r.group): v for r, v in zip(fit.table.rows, _rows(fit), strict=True)
    }
    model = _started(partially_saturated_table(fit.table, level), sample, values, level)
    baseline = _started(level_baseline_table(fit.table, level), sample, {}, level)
    return LevelSpecific(level, model, baseline)


def _rows(fit: Estimate) -> list[float]:
    return [float(value) for value in fit.objective.row_values(fit.theta)]


def _started(
    table: ParameterTable,
    sample: Sample,
    values: Mapping[tuple[str, str, str, int, int], float],
    level: int,
) -> Estimate:
    """Fit a partially saturated model from the estimates of the whole model and the saturated moments.

    Where that is no valid start, or leads nowhere, from the usual starts.
    """

    def start(row: Parameter) -> Parameter:
        key = (row.lhs, row.op, row.rhs, row.level, row.group)
        if row.free and row.level == level and key in values:
            return replace(row, start=values[key])
        if not row.free or row.op == "~1":
            return row  # means of the saturated level make up for those of the other
        return replace(row, start=_moment(sample.levels[row.group - 1][row.level], row))

    first: Estimate | None = None
    try:
        first = estimate(replace(table, rows=tuple(map(start, table.rows))), sample, tolerance=TOLERANCE)
    except ModelError:
        first = None
    if first is not None and first.optimum.converged:
        return first
    second = estimate(table, sample, tolerance=TOLERANCE)
    return first if first is not None and not second.optimum.converged and first.llf > second.llf else second


def _moment(moments: LevelArrays, row: Parameter) -> float:
    return float(moments.cov[moments.at[row.lhs], moments.at[row.rhs]])


def level_measures(found: LevelSpecific, sample: Sample) -> pd.Series:
    """Fit measures of one level.

    Parameters
    ----------
    found : LevelSpecific
    sample : Sample

    Returns
    -------
    Series
        Named as those of the whole model (`fitmeasures.fit_measures`); `srmr` is that of the level. Sample size of
        RMSEA and GFI: clusters at the between level, units at the within level, as in Ryu and West (2009) and lavaan
        0.7; of BIC: units. All but the information criteria are nan if a model has not converged.
    """
    model, level = found.model, found.level
    size = sample.nclusters if level == 2 else sample.nobs
    measures = fit_measures(replace(_inputs(found, sample), nobs=size))
    units = fit_measures(_inputs(found, sample))
    for name in ("bic", "bic2", "ntotal"):
        measures[name] = units[name]
    s = sample.statistics
    nvalues = sum(one.nobs * len(one.unit) + one.nclusters * len(one.cluster) for one in s)
    measures["fmin"] = twolevel_fmin(model.llf, model.objective.covariate_llf, sample.nobs, nvalues)
    return measures


def _inputs(found: LevelSpecific, sample: Sample) -> FitMeasureInputs:
    model, baseline = found.model, found.baseline
    full = saturated_table(model.table).npar
    unrestricted = sample.llf - model.objective.covariate_llf
    if not model.optimum.converged:
        unrestricted = np.nan
    chisq = max(2 * (unrestricted - baseline.llf), 0.0) if baseline.optimum.converged else np.nan
    return FitMeasureInputs(
        llf=model.llf,
        unrestricted_llf=unrestricted,
        npar=model.nfree,
        df=full - model.nfree,
        nobs=sample.nobs,
        baseline_chisq=chisq,
        baseline_df=full - baseline.table.npar,
        nclusters=sample.nclusters,
        ngroups=len(sample.groups),
        nvar=float(len(sample.levels[0][found.level].names)),
        residuals={"srmr": level_srmr(model, sample, found.level)},
    )


def level_srmr(model: Estimate, sample: Sample, level: int) -> float:
    """SRMR of one level, averaged over groups with their units as weights."""
    each = [
        srmr_level(group.levels[level].cov, model.objective.moments(model.theta, number)[level].observed.cov)
        for number, group in enumerate(sample.groups, 1)
    ]
    return float(np.average(each, weights=[s.nobs for s in sample.statistics]))
