"""Fit measures from a scaled chi-square: those named _scaled and _robust in lavaan.

With c and c0 the scaling factors of the model and of the baseline model, _scaled measures put T / c and T0 / c0 in the
place of the chi-squares. They estimate something else than without scaling, as c does not tend to 1; _robust measures
use T - c df and T0 - c0 df0, which estimate the same noncentralities (Li & Bentler, 2006; Brosseau-Liard, Savalei &
Li, 2012; Brosseau-Liard & Savalei, 2014).
"""

from __future__ import annotations

import math

import pandas as pd

from msem.distributions import chisq_pvalue, noncentral_chisq_cdf
from msem.postestimation.fitmeasures import (
    FitMeasureInputs,
    fit_measures,
    incremental_measures,
    measure_series,
    noncentrality_interval,
)
from msem.postestimation.scaling import Scaling

NAN = math.nan

INCREMENTAL = ("cfi", "tli")
RMSEA = ("rmsea", "rmsea_ci_lower", "rmsea_ci_upper", "rmsea_pvalue", "rmsea_notclose_pvalue")
FURTHER = ("nnfi", "rfi", "nfi", "pnfi", "ifi", "rni")


def scaled_fit_measures(inputs: FitMeasureInputs, scaling: Scaling, baseline_factor: float) -> pd.Series:
    """All fit measures with those of the scaled test.

    Parameters
    ----------
    inputs : FitMeasureInputs
    scaling : Scaling
        Of the model.
    baseline_factor : float
        Scaling factor of the baseline model; nan if there is none.

    Returns
    -------
    Series
        The measures of `fitmeasures.fit_measures`, each group of them followed by its scaled and robust variants.
    """
    plain = fit_measures(inputs)
    scaled = _scaled_tests(inputs, scaling, baseline_factor)
    incremental = incremental_measures(
        scaled["chisq_scaled"], inputs.df, scaled["baseline_chisq_scaled"], inputs.baseline_df
    )
    robust = robust_incremental(inputs, scaling.factor, baseline_factor)
    after: dict[str, dict[str, float]] = {
        "pvalue": {k: v for k, v in scaled.items() if not k.startswith("baseline")},
        "baseline_pvalue": {k: v for k, v in scaled.items() if k.startswith("baseline")},
        "tli": {f"{k}_scaled": incremental[k] for k in INCREMENTAL}
        | {k: robust[k] for k in list(robust)[:2]},
        "rni": {f"{k}_scaled": incremental[k] for k in FURTHER} | {k: robust[k] for k in list(robust)[2:]},
        "bic2": {"scaling_factor_h1": scaling.h1, "scaling_factor_h0": scaling.h0},
        "rmsea_notclose_h0": _rmsea(inputs, plain, scaling.factor),
        "gfi_ci_level": {} if inputs.nclusters is None else _gfi(inputs, plain, scaling.factor),
    }
    values: dict[str, float] = {}
    for name, value in plain.items():
        values |= {str(name): float(value)} | after.get(str(name), {})
    return measure_series(values)


def _scaled_tests(inputs: FitMeasureInputs, scaling: Scaling, baseline_factor: float) -> dict[str, float]:
    chisq, df, df0 = inputs.chisq, inputs.df, inputs.baseline_df
    value = chisq / scaling.factor if df > 0 else chisq
    value0 = inputs.baseline_chisq / baseline_factor if df0 > 0 else inputs.baseline_chisq
    return {
        "chisq_scaled": value,
        "df_scaled": df,
        "pvalue_scaled": chisq_pvalue(value, df),
        "chisq_scaling_factor": scaling.factor,
        "baseline_chisq_scaled": value0,
        "baseline_df_scaled": df0,
        "baseline_pvalue_scaled": chisq_pvalue(value0, df0),
        "baseline_chisq_scaling_factor": baseline_factor,
    }


def robust_incremental(inputs: FitMeasureInputs, factor: float, factor0: float) -> dict[str, float]:
    """CFI, TLI, NNFI and RNI of T - c df and T0 - c0 df0."""
    df, df0 = inputs.df, inputs.baseline_df
    excess, excess0 = inputs.chisq - factor * df, inputs.baseline_chisq - factor0 * df0
    names = ("cfi_robust", "tli_robust", "nnfi_robust", "rni_robust")
    if math.isnan(excess + excess0):
        return dict.fromkeys(names, NAN)
    largest = max(excess, excess0, 0.0)
    cfi = 1 - max(excess, 0.0) / largest if largest > 0 else 1.0
    tli = 1 - excess * df0 / (excess0 * df) if excess0 * df != 0 else 1.0
    rni = 1 - excess / excess0 if excess0 != 0 else NAN
    return dict(zip(names, (cfi, tli, tli, rni), strict=True))


def _rmsea(inputs: FitMeasureInputs, plain: pd.Series, factor: float) -> dict[str, float]:
    """RMSEA of the scaled test and the robust one.

    Intervals as in lavaan: of the scaled RMSEA from T as a chi-square with c df degrees of freedom, of the robust one
    c times that from T / c with df.
    """
    chisq, df = inputs.chisq, float(inputs.df)
    if df <= 0:
        scaled = dict.fromkeys(RMSEA, NAN)
        robust = {name: NAN if "pvalue" in name else 0.0 * chisq for name in RMSEA}
    elif math.isnan(factor * chisq):
        scaled = robust = dict.fromkeys(RMSEA, NAN)
    else:
        scaled = _rmsea_of(chisq, factor * df, 1 / (factor * df), inputs, plain)
        robust = _rmsea_of(chisq / factor, df, factor / df, inputs, plain)
    return {f"{k}_scaled": v for k, v in scaled.items()} | {f"{k}_robust": v for k, v in robust.items()}


def _rmsea_of(
    chisq: float, df: float, unit: float, inputs: FitMeasureInputs, plain: pd.Series
) -> dict[str, float]:
    """RMSEA as the root of `unit` times the noncentrality of `chisq`, with interval and tests."""
    scale = inputs.ngroups * unit / inputs.nobs
    close, notclose = (
        noncentral_chisq_cdf(chisq, df, plain[h0] ** 2 / scale)
        for h0 in ("rmsea_close_h0", "rmsea_notclose_h0")
    )
    limits = noncentrality_interval(chisq, df, plain["rmsea_ci_level"])
    points = [math.sqrt(scale * x) for x in (max(chisq - df, 0.0), *limits)]
    return dict(zip(RMSEA, (*points, 1 - close, notclose), strict=True))


def _gfi(inputs: FitMeasureInputs, plain: pd.Series, factor: float) -> dict[str, float]:
    """GFI of the robust noncentrality, for two-level models."""
    names = ("gfi_robust", "gfi_ci_lower_robust", "gfi_ci_upper_robust")
    chisq, df = inputs.chisq, inputs.df
    if df <= 0 or math.isnan(factor * chisq):
        return dict.fromkeys(names, NAN)
    lower, upper = noncentrality_interval(chisq / factor, df, plain["gfi_ci_level"])
    values = (max(chisq - factor * df, 0.0), factor * upper, factor * lower)
    return {
        name: inputs.nvar / (inputs.nvar + 2 * x / inputs.nobs) for name, x in zip(names, values, strict=True)
    }
