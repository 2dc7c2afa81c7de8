"""Fit measures: functions of log-likelihoods, degrees of freedom and counts, without a fit object.

Names are lavaan's with underscores in place of dots. Residual measures (SRMR and others) are functions of
moments; they are computed in `srmr` and passed through.

From a scaled chi-square come those named _scaled and _robust. With c and c0 the scaling factors of the model and of the
baseline model, _scaled measures put T / c and T0 / c0 in the place of the chi-squares. They estimate something else
than without scaling, as c does not tend to 1; _robust measures use T - c df and T0 - c0 df0, which estimate the same
noncentralities (Li & Bentler, 2006; Brosseau-Liard, Savalei & Li, 2012; Brosseau-Liard & Savalei, 2014).

With missing values the likelihood ratio estimates another noncentrality than that of complete data. _robust measures
then use discrepancies of complete data less their bias (Zhang & Savalei, 2023; see `noncentrality`), with and without a
scaled test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import pandas as pd

from msem.distributions import chisq_pvalue, chisq_quantile, noncentral_chisq_cdf, noncentrality_at
from msem.estimation.discrepancy import LevelDiscrepancy
from msem.postestimation.noncentrality import Noncentrality
from msem.postestimation.scaling import Scaling
from msem.settings import AdjustedTest

NAN = math.nan
BEYOND = 1e-4  # -2 log L below that of the saturated model by no more than this is estimation error, as in fit/engine
ROUNDING = 1e-9  # relative, of log-likelihoods
NEGLIGIBLE = 1e-6  # a noncentrality below this is rounding error of a saturated fit
INCREMENTAL = ("cfi", "tli")
# What takes the likelihood ratio for a chi-square as it is, and the log-likelihood for that of independent units.
FOR_SIMPLE_SAMPLES = (
    "pvalue",
    "baseline_pvalue",
    "rmsea_ci_lower",
    "rmsea_ci_upper",
    "rmsea_pvalue",
    "rmsea_notclose_pvalue",
    "gfi_ci_lower",
    "gfi_ci_upper",
    "bic",
    "bic2",
    "bic_nclusters",
)
RMSEA = ("rmsea", "rmsea_ci_lower", "rmsea_ci_upper", "rmsea_pvalue", "rmsea_notclose_pvalue")
FURTHER = ("nnfi", "rfi", "nfi", "pnfi", "ifi", "rni")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitMeasureInputs:
    """Numbers that the fit measures are functions of.

    Parameters
    ----------
    llf, unrestricted_llf : float
        Log-likelihood at the estimates and of the saturated model; nan where there is no saturated model,
        which makes every measure that needs it nan.
    npar, df : int
        Free parameters and degrees of freedom.
    nobs : float
        Number of units.
    baseline_chisq : float
        Chi-square of the baseline (independence) model; nan when it was not fitted.
    baseline_df : int
        Its degrees of freedom.
    nclusters : float, optional
        Number of clusters; None for a single-level model.
    ngroups : int
        Number of groups; RMSEA is multiplied by its square root (Steiger, 1998).
    nvar : float
        Number of observed variables measured on units, covariates included (within level of a two-level
        model; mean over groups); needed by `gfi`.
    fmin : float, optional
        Minimum of the discrepancy function. Default: chi-square / (2 nobs) for a single-level model, nan for
        a two-level one (see `twolevel_fmin`).
    residual_chisq : float, optional
        Residual-based statistic (`residuals.browne_residual_chisq`) that `gfi` uses instead of the
        likelihood-ratio chi-square, as lavaan does for single-level models with complete data.
    nmoments : int, optional
        Number of sample moments (means included when they are modelled), for `agfi_lisrel` and `pgfi`.
    gfi_lisrel : float, optional
        Value of `residuals.lisrel_gfi`.
    residuals : mapping of str to float
        Residual measures in the order wanted: `residuals.level_residuals` (two levels) or
        `residuals.residual_measures` (one).
    statistic : float, optional
        The chi-square itself, where it is not twice a difference of log-likelihoods.
    units : float, optional
        Number of units for the information criteria, where `nobs` is that of a higher level.
    """

    llf: float
    unrestricted_llf: float
    npar: int
    df: int
    nobs: float
    baseline_chisq: float = NAN
    baseline_df: int = 0
    nclusters: float | None = None
    ngroups: int = 1
    nvar: float = NAN
    fmin: float | None = None
    residual_chisq: float | None = None
    nmoments: int | None = None
    gfi_lisrel: float | None = None
    residuals: Mapping[str, float] = field(default_factory=dict)
    statistic: float | None = None
    units: float | None = None
    complete: tuple[Noncentrality, Noncentrality] | None = None

    @property
    def chisq(self) -> float:
        """Likelihood-ratio chi-square; see `likelihood_ratio_chisq`."""
        if self.statistic is not None:
            return self.statistic
        return likelihood_ratio_chisq(self.llf, self.unrestricted_llf, self.df)


def likelihood_ratio_chisq(llf: float, unrestricted_llf: float, df: int) -> float:
    """Chi-square of a model against the saturated one.

    0 where the saturated log-likelihood is below that of the model by no more than estimation allows, or
    rounding explains. Farther below it is not a maximum, and no test can be based on it: nan, as with negative degrees
    of freedom.
    """
    if df < 0:
        return NAN
    value = 2 * (unrestricted_llf - llf)
    if value < 0:
        return 0.0 if value >= -max(BEYOND, ROUNDING * (1 + abs(llf))) else NAN
    return value


def indices(
    inputs: FitMeasureInputs, *, ci_level: float = 0.90, close_h0: float = 0.05, notclose_h0: float = 0.08
) -> dict[str, float]:
    """Compute all fit measures.

    Parameters
    ----------
    inputs : FitMeasureInputs
        The numbers.
    ci_level : float
        Level of the confidence intervals of RMSEA and GFI.
    close_h0, notclose_h0 : float
        RMSEA under the null hypotheses of close fit (RMSEA <= `close_h0`) and of not-close fit
        (RMSEA >= `notclose_h0`).

    Returns
    -------
    dict
        Floats named as in lavaan, dots replaced by underscores; `nclusters` and `bic_nclusters` are added
        for two-level models. Undefined measures are nan: p-values without degrees of freedom, `nfi`, `ifi`
        and `rni` when their denominator is zero, and `ifi` and `rfi` when the baseline model fits better
        than its degrees of freedom (or, per degree of freedom, than the model), where lavaan prints 1. With missing
        values those of complete data follow, named ``_robust``.
    """
    plain = _unscaled(inputs, ci_level, close_h0, notclose_h0)
    return plain if inputs.complete is None else _merged(plain, _robust(inputs, plain, *inputs.complete))


def _unscaled(
    inputs: FitMeasureInputs, ci_level: float = 0.90, close_h0: float = 0.05, notclose_h0: float = 0.08
) -> dict[str, float]:
    chisq, df = inputs.chisq, inputs.df
    chisq0, df0 = inputs.baseline_chisq, inputs.baseline_df
    limits = noncentrality_interval(chisq, df, ci_level)
    values = {
        "npar": inputs.npar,
        "fmin": _fmin(inputs),
        "chisq": chisq,
        "df": df,
        "pvalue": chisq_pvalue(chisq, df),
        "baseline_chisq": chisq0,
        "baseline_df": df0,
        "baseline_pvalue": chisq_pvalue(chisq0, df0),
        **incremental_measures(chisq, df, chisq0, df0),
        **information_criteria(inputs),
        **rmsea_measures(chisq, df, inputs.nobs, inputs.ngroups, ci_level, close_h0, notclose_h0, limits),
        **inputs.residuals,
        **_population_gfi(inputs, ci_level, limits),
    }
    if inputs.nclusters is None:
        values |= _single_level(inputs)
    return {name: float(value) for name, value in values.items()}


def _merged(plain: Mapping[str, float], after: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Measures with further ones after some of them."""
    values: dict[str, float] = {}
    for name, value in plain.items():
        values[name] = value
        if name in after:
            values |= {more: float(one) for more, one in after[name].items()}
    return values


def measure_series(values: Mapping[str, float]) -> pd.Series:
    """Fit measures by name, as users are given them."""
    return pd.Series(np.array([*values.values()], dtype=float), _index(tuple(values)), name="fit_measures")


@lru_cache(maxsize=32)
def _index(names: tuple[str, ...]) -> pd.Index[str]:
    """The names as an index: to make one takes longer than all the measures."""
    return pd.Index(names)


def twolevel_fmin(llf: float, exogenous_llf: float, nobs: float, nvalues: float) -> float:
    """Discrepancy of a two-level model on lavaan's scale.

    Parameters
    ----------
    llf, exogenous_llf : float
        Log-likelihood given the fixed covariates, and that of the covariates (0 when none is fixed).
    nobs : float
        Number of units.
    nvalues : float
        Number of data values: units times unit variables plus clusters times cluster variables.
    """
    return -(2 * (llf + exogenous_llf) + nvalues * math.log(2 * math.pi)) / (2 * nobs)


def _fmin(inputs: FitMeasureInputs) -> float:
    if inputs.fmin is not None:
        return inputs.fmin
    return inputs.chisq / (2 * inputs.nobs) if inputs.nclusters is None else NAN


def incremental_measures(chisq: float, df: float, chisq0: float, df0: float) -> dict[str, float]:
    """Compare the model (`chisq`, `df`) with the baseline model (`chisq0`, `df0`).

    CFI and RNI: Bentler (1990), McDonald and Marsh (1990); TLI = NNFI: Tucker and Lewis (1973);
    NFI: Bentler and Bonett (1980); RFI: Bollen (1986); IFI: Bollen (1989); PNFI: James, Mulaik and Brett
    (1982). See `indices` for undefined values.
    """
    excess, excess0 = chisq - df, chisq0 - df0
    largest = max(excess, excess0, 0.0)
    worse = chisq0 * df < chisq * df0
    tli = 1 - excess * df0 / (excess0 * df) if excess0 * df != 0 else 1.0
    nfi = _ratio(chisq0 - chisq, chisq0) if df > 0 else _ratio(chisq0, chisq0)
    values = {
        "cfi": 1 - max(excess, 0.0) / largest if largest > NEGLIGIBLE else 1.0,
        "tli": tli,
        "nnfi": tli,
        "rfi": 1.0 if df == 0 else NAN if worse else _ratio(chisq0 * df - chisq * df0, chisq0 * df),
        "nfi": nfi,
        "pnfi": _ratio(df, df0) * nfi,
        "ifi": _ratio(chisq0 - chisq, chisq0 - df) if chisq0 > df else NAN,
        "rni": 1 - _ratio(excess, excess0),
    }
    return values if math.isfinite(chisq + chisq0) else dict.fromkeys(values, NAN)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator != 0 else NAN


def information_criteria(inputs: FitMeasureInputs) -> dict[str, float]:
    """AIC (Akaike, 1974), BIC (Schwarz, 1978), BIC at (N + 2) / 24 (Sclove, 1987), BIC at clusters."""
    deviance, npar = -2 * inputs.llf, inputs.npar
    nobs = inputs.nobs if inputs.units is None else inputs.units
    values = {
        "logl": inputs.llf,
        "unrestricted_logl": inputs.unrestricted_llf,
        "aic": deviance + 2 * npar,
        "bic": deviance + npar * math.log(nobs),
        "ntotal": nobs,
        "bic2": deviance + npar * math.log((nobs + 2) / 24),
    }
    if inputs.nclusters is not None:
        values |= {
            "nclusters": inputs.nclusters,
            "bic_nclusters": deviance + npar * math.log(inputs.nclusters),
        }
    return values


def noncentrality_interval(chisq: float, df: float, level: float) -> tuple[float, float]:
    """Confidence interval of the noncentrality parameter (Steiger, 1990; Browne & Cudeck, 1992).

    Each limit puts `chisq` at a tail probability of (1 - level) / 2; 0 where no noncentrality does.
    Without degrees of freedom both limits are 0.
    """
    tail = (1 - level) / 2
    if math.isnan(chisq):
        return NAN, NAN
    return _noncentrality(chisq, df, 1 - tail), _noncentrality(chisq, df, tail)


def _noncentrality(chisq: float, df: float, probability: float) -> float:
    """Noncentrality at which the distribution function at `chisq` equals `probability`."""
    if df <= 0 or noncentral_chisq_cdf(chisq, df, 0.0) <= probability:
        return 0.0
    return noncentrality_at(chisq, df, probability)


def rmsea_measures(
    chisq: float,
    df: float,
    nobs: float,
    ngroups: int = 1,
    level: float = 0.90,
    close_h0: float = 0.05,
    notclose_h0: float = 0.08,
    limits: tuple[float, float] | None = None,
) -> dict[str, float]:
    """RMSEA, its interval and its tests; `limits` are those of the noncentrality, where they are known.

    RMSEA: Steiger and Lind (1980), Steiger (1990); interval and test of close fit: Browne and Cudeck (1992);
    test of not-close fit: MacCallum, Browne and Sugawara (1996). `nobs` is the number of units at both
    levels of a simultaneous two-level fit; level-specific fits of the between level should pass the number
    of clusters (Ryu & West, 2009).
    """
    lower, upper = noncentrality_interval(chisq, df, level) if limits is None else limits

    def rmsea(noncentrality: float) -> float:
        return math.sqrt(ngroups * noncentrality / (df * nobs)) if df > 0 else 0.0 * noncentrality

    def below(h0: float) -> float:
        return noncentral_chisq_cdf(chisq, df, nobs * df * h0**2 / ngroups) if df > 0 else NAN

    return {
        "rmsea": rmsea(_excess(chisq, df)),
        "rmsea_ci_lower": rmsea(lower),
        "rmsea_ci_upper": rmsea(upper),
        "rmsea_ci_level": level,
        "rmsea_pvalue": 1 - below(close_h0),
        "rmsea_close_h0": close_h0,
        "rmsea_notclose_pvalue": below(notclose_h0),
        "rmsea_notclose_h0": notclose_h0,
    }


def _excess(chisq: float, df: float) -> float:
    """Estimated noncentrality, not below zero (nan stays nan)."""
    return NAN if math.isnan(chisq) else max(chisq - df, 0.0)


def _population_gfi(inputs: FitMeasureInputs, level: float, limits: tuple[float, float]) -> dict[str, float]:
    """GFI as a function of the noncentrality, p / (p + 2 F0) (Steiger, 1990; Maiti & Mukherjee, 1990)."""
    chisq, (lower, upper) = inputs.chisq, limits
    if inputs.residual_chisq is not None:
        chisq = inputs.residual_chisq
        lower, upper = noncentrality_interval(chisq, inputs.df, level)

    def gfi(noncentrality: float) -> float:
        return inputs.nvar / (inputs.nvar + 2 * noncentrality / inputs.nobs)

    return {
        "gfi": gfi(_excess(chisq, inputs.df)),
        "gfi_ci_lower": gfi(upper),
        "gfi_ci_upper": gfi(lower),
        "gfi_ci_level": level,
    }


def _single_level(inputs: FitMeasureInputs) -> dict[str, float]:
    """Critical N (Hoelter, 1983), LISREL's GFI family (Jöreskog & Sörbom, 1986), MFI and ECVI.

    PGFI: Mulaik et al. (1989); MFI: McDonald (1989); ECVI: Browne and Cudeck (1992).
    """
    chisq, df, nobs = inputs.chisq, inputs.df, inputs.nobs
    gfi = NAN if inputs.gfi_lisrel is None else inputs.gfi_lisrel
    nmoments = NAN if inputs.nmoments is None else float(inputs.nmoments)
    return {
        "cn_05": _critical_n(chisq, df, nobs, 0.05),
        "cn_01": _critical_n(chisq, df, nobs, 0.01),
        "gfi_lisrel": gfi,
        "agfi_lisrel": 1 - nmoments / df * (1 - gfi) if df > 0 else gfi,
        "pgfi": df / nmoments * gfi,
        "mfi": math.exp(-(chisq - df) / (2 * nobs)),
        "ecvi": (chisq + 2 * inputs.npar) / nobs,
    }


def _critical_n(chisq: float, df: float, nobs: float, alpha: float) -> float:
    if df <= 0 or math.isnan(chisq):
        return NAN
    return chisq_quantile(alpha, df) * nobs / chisq + 1 if chisq > 0 else math.inf


def scaled_indices(inputs: FitMeasureInputs, scaling: Scaling, baseline_factor: float) -> dict[str, float]:
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
    dict
        The measures of `indices`, each group of them followed by its scaled and robust variants.
    """
    plain = _unscaled(inputs)
    scaled = _scaled_tests(inputs, scaling, baseline_factor)
    incremental = incremental_measures(
        scaled["chisq_scaled"], inputs.df, scaled["baseline_chisq_scaled"], inputs.baseline_df
    )
    robust = _robust(inputs, plain, *(inputs.complete or _of_scaled(inputs, scaling.factor, baseline_factor)))
    after = {
        "pvalue": {k: v for k, v in scaled.items() if not k.startswith("baseline")},
        "baseline_pvalue": {k: v for k, v in scaled.items() if k.startswith("baseline")},
        "tli": {f"{k}_scaled": incremental[k] for k in INCREMENTAL} | robust["tli"],
        "rni": {f"{k}_scaled": incremental[k] for k in FURTHER} | robust["rni"],
        "bic2": {"scaling_factor_h1": scaling.h1, "scaling_factor_h0": scaling.h0},
        "rmsea_notclose_h0": _scaled_rmsea(inputs, plain, scaling.factor) | robust["rmsea_notclose_h0"],
        "gfi_ci_level": robust["gfi_ci_level"],
    }
    return _merged(plain, after)


@dataclass(frozen=True, slots=True)
class AdjustedStatistic:
    """A statistic of least squares that has been adjusted to be close to a chi-square.

    Attributes
    ----------
    chisq, df : float
    scaling : float
        What the statistic was divided by.
    """

    chisq: float
    df: float
    scaling: float


def adjusted_indices(
    inputs: FitMeasureInputs, model: AdjustedStatistic, baseline: AdjustedStatistic
) -> dict[str, float]:
    """All fit measures of least squares with those of the adjusted test, from adjusted statistics as chi-squares.

    Parameters
    ----------
    inputs : FitMeasureInputs
    model, baseline : AdjustedStatistic

    Returns
    -------
    dict
        The measures of `indices`, each group of them followed by its variants named ``_scaled``.
    """
    plain = _unscaled(inputs)
    incremental = incremental_measures(model.chisq, model.df, baseline.chisq, baseline.df)
    rmsea = rmsea_measures(model.chisq, model.df, inputs.nobs, inputs.ngroups)
    after = {
        "pvalue": {
            "chisq_scaled": model.chisq,
            "df_scaled": model.df,
            "pvalue_scaled": chisq_pvalue(model.chisq, model.df),
            "chisq_scaling_factor": model.scaling,
        },
        "baseline_pvalue": {
            "baseline_chisq_scaled": baseline.chisq,
            "baseline_df_scaled": baseline.df,
            "baseline_pvalue_scaled": chisq_pvalue(baseline.chisq, baseline.df),
            "baseline_chisq_scaling_factor": baseline.scaling,
        },
        "tli": {f"{k}_scaled": incremental[k] for k in INCREMENTAL},
        "rni": {f"{k}_scaled": incremental[k] for k in FURTHER},
        "rmsea_notclose_h0": {f"{k}_scaled": rmsea[k] for k in RMSEA},
    }
    return _merged(plain, after)


def _of_scaled(
    inputs: FitMeasureInputs, factor: float, factor0: float
) -> tuple[Noncentrality, Noncentrality]:
    """Noncentralities T - c df and T0 - c0 df0."""
    df, df0 = inputs.df, inputs.baseline_df
    return (
        Noncentrality(inputs.chisq, factor * df if df else 0.0),
        Noncentrality(inputs.baseline_chisq, factor0 * df0 if df0 else 0.0),
    )


def _robust(
    inputs: FitMeasureInputs, plain: Mapping[str, float], model: Noncentrality, baseline: Noncentrality
) -> dict[str, dict[str, float]]:
    """Robust measures, by the measure that they follow."""
    incremental = robust_incremental(inputs.df, inputs.baseline_df, model.excess, baseline.excess)
    names = list(incremental)
    return {
        "tli": {k: incremental[k] for k in names[:2]},
        "rni": {k: incremental[k] for k in names[2:]},
        "rmsea_notclose_h0": _robust_rmsea(inputs, plain, model),
        "gfi_ci_level": {} if inputs.nclusters is None else _gfi(inputs, plain, model),
    }


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


def robust_incremental(df: int, df0: int, excess: float, excess0: float) -> dict[str, float]:
    """CFI, TLI, NNFI and RNI of estimated noncentralities of the model and the baseline model."""
    names = ("cfi_robust", "tli_robust", "nnfi_robust", "rni_robust")
    if math.isnan(excess + excess0):
        return dict.fromkeys(names, NAN)
    largest = max(excess, excess0, 0.0)
    cfi = 1 - max(excess, 0.0) / largest if largest > NEGLIGIBLE else 1.0
    tli = 1 - excess * df0 / (excess0 * df) if excess0 * df != 0 else 1.0
    rni = 1 - _ratio(excess, excess0)
    return dict(zip(names, (cfi, tli, tli, rni), strict=True))


def _scaled_rmsea(inputs: FitMeasureInputs, plain: Mapping[str, float], factor: float) -> dict[str, float]:
    """RMSEA of the scaled test; its interval, as in lavaan, from T as a chi-square with c df degrees of freedom."""
    df = factor * inputs.df if inputs.df > 0 else 0.0
    values = _rmsea_of(inputs, plain, inputs.chisq, df, 1 / df if df else 0.0)
    return {f"{k}_scaled": v for k, v in values.items()}


def _robust_rmsea(
    inputs: FitMeasureInputs, plain: Mapping[str, float], model: Noncentrality
) -> dict[str, float]:
    """RMSEA of a noncentrality; its interval, as in lavaan, c times that of T / c with df degrees of freedom."""
    df, factor = float(inputs.df), _factor(inputs, model)
    values = _rmsea_of(inputs, plain, model.chisq / factor, df, factor / df if df > 0 else 0.0)
    return {f"{k}_robust": v for k, v in values.items()}


def _factor(inputs: FitMeasureInputs, model: Noncentrality) -> float:
    """Bias of a noncentrality for each degree of freedom; 1 without any."""
    factor = model.bias / inputs.df if inputs.df > 0 else 1.0
    return factor if factor > 0 else NAN


def _rmsea_of(
    inputs: FitMeasureInputs, plain: Mapping[str, float], chisq: float, df: float, unit: float
) -> dict[str, float]:
    """RMSEA as the root of `unit` times the noncentrality of `chisq`, with interval and tests."""
    if math.isnan(chisq + df):
        return dict.fromkeys(RMSEA, NAN)
    if not df > 0:
        return {name: NAN if "pvalue" in name else 0.0 for name in RMSEA}
    scale = inputs.ngroups * unit / inputs.nobs
    close, notclose = (
        noncentral_chisq_cdf(chisq, df, plain[h0] ** 2 / scale)
        for h0 in ("rmsea_close_h0", "rmsea_notclose_h0")
    )
    limits = noncentrality_interval(chisq, df, plain["rmsea_ci_level"])
    points = [math.sqrt(scale * x) for x in (max(chisq - df, 0.0), *limits)]
    return dict(zip(RMSEA, (*points, 1 - close, notclose), strict=True))


def _gfi(inputs: FitMeasureInputs, plain: Mapping[str, float], model: Noncentrality) -> dict[str, float]:
    """GFI of the robust noncentrality, for two-level models."""
    factor = _factor(inputs, model)
    lower, upper = noncentrality_interval(model.chisq / factor, inputs.df, plain["gfi_ci_level"])
    excess = model.excess if math.isnan(model.excess) else max(model.excess, 0.0)
    values = {"gfi_robust": excess if inputs.df > 0 else 0.0 * excess}
    values |= {"gfi_ci_lower_robust": factor * upper, "gfi_ci_upper_robust": factor * lower}
    return {name: inputs.nvar / (inputs.nvar + 2 * x / inputs.nobs) for name, x in values.items()}


def discrepancy_measures(
    inputs: FitMeasureInputs,
    model: LevelDiscrepancy,
    baseline: LevelDiscrepancy | None,
    test: AdjustedTest | None,
) -> dict[str, float]:
    """Fit measures of least squares; those that take the minimum for a chi-square are nan where it is none.

    Parameters
    ----------
    inputs : FitMeasureInputs
    model, baseline : LevelDiscrepancy
        None for a baseline model that has no minimum.
    test : str or None
        Whose statistics the measures named ``_scaled`` come from; None for none of these.

    Returns
    -------
    dict
    """
    found = (
        indices(inputs)
        if test is None
        else adjusted_indices(inputs, _adjusted(model, test), _adjusted(baseline, test))
    )
    return found if model.exact else of_pseudo_likelihood(found)


def _adjusted(solution: LevelDiscrepancy | None, test: AdjustedTest) -> AdjustedStatistic:
    if solution is None:
        return AdjustedStatistic(NAN, NAN, NAN)
    if solution.df <= 0:
        return AdjustedStatistic(solution.statistic, float(solution.df), NAN)
    return AdjustedStatistic(*solution.adjusted(test))


def of_pseudo_likelihood(measures: Mapping[str, float], aic: float = NAN) -> dict[str, float]:
    """Measures of a sample with weights or a complex design: without what takes it for a simple one."""
    known = {"aic": aic} | dict.fromkeys(FOR_SIMPLE_SAMPLES, NAN)
    return {name: known.get(name, value) for name, value in measures.items()} | {"aic": aic}
