"""Fit measures against lavaan on every reference case, and at the edges of their definitions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import chndtr

import reference
from msem.postestimation.fit_indices import (
    FitMeasureInputs,
    chisq_pvalue,
    incremental_measures,
    indices,
    noncentrality_interval,
    rmsea_measures,
    twolevel_fmin,
)

WITH_CHISQ = [
    case for case in reference.names() if "chisq" in reference.expected(case).get("fit_measures", {})
]
TWO_LEVEL = [case for case in WITH_CHISQ if reference.meta(case)["levels"] == 2]
# Computed from moments, not from numbers: see test_residuals.py.
FROM_MOMENTS = ("rmr", "srmr", "crmr", "gfi_lisrel", "agfi_lisrel", "pgfi")
LIMITS = ("rmsea_ci_lower", "rmsea_ci_upper", "gfi_ci_lower", "gfi_ci_upper")
# lavaan finds the limits with R's uniroot at its default tolerance, which bounds the error of its
# noncentrality; ours are exact (test_rmsea_interval_covers_its_tails).
UNIROOT = np.finfo(float).eps ** 0.25


def stored(case: str) -> dict[str, float]:
    """lavaan's fit measures of the unscaled test, named as ours."""
    return {
        name.replace(".", "_"): math.nan if value is None else float(value)
        for name, value in reference.expected(case)["fit_measures"].items()
        if not name.endswith((".scaled", ".robust")) and "scaling.factor" not in name
    }


def unit_variables(case: str) -> int:
    """Number of variables measured on units (of the first group)."""
    implied = reference.expected(case)["implied"]
    block = implied if "cov" in implied else next(iter(implied.values()))
    return len(np.atleast_1d(block["cov"]["cols"]))


def inputs(case: str) -> FitMeasureInputs:
    """The numbers that lavaan's own measures are functions of."""
    theirs, m = stored(case), reference.meta(case)
    result = reference.expected(case)
    complete = m["levels"] == 1 and m["missing"] == "listwise"
    browne = result["test"].get("browne.residual.nt.model", {}).get("stat")
    return FitMeasureInputs(
        llf=theirs["logl"],
        unrestricted_llf=theirs["unrestricted_logl"],
        npar=int(theirs["npar"]),
        df=int(theirs["df"]),
        nobs=theirs["ntotal"],
        baseline_chisq=theirs["baseline_chisq"],
        baseline_df=int(theirs["baseline_df"]),
        nclusters=None if m["levels"] == 1 else float(np.sum(result["nclusters"])),
        ngroups=len(result["group_labels"] or [1]),
        nvar=unit_variables(case),
        residual_chisq=browne if complete else None,
    )


@reference.needs_reference
@pytest.mark.parametrize("case", WITH_CHISQ)
def test_agrees_with_lavaan(case: str) -> None:
    theirs, ours = stored(case), indices(inputs(case))
    names = [name for name in theirs if not name.startswith(FROM_MOMENTS) and name not in LIMITS]
    if reference.meta(case)["levels"] == 2:
        names.remove("fmin")
    np.testing.assert_allclose([ours[n] for n in names], [theirs[n] for n in names], rtol=1e-8, atol=1e-8)


@reference.needs_reference
@pytest.mark.parametrize("case", WITH_CHISQ)
def test_limits_agree_with_lavaan_within_the_tolerance_of_its_root_finder(case: str) -> None:
    given_numbers = inputs(case)

    def noncentralities(measures: Any) -> list[float]:
        of_rmsea = [measures[n] ** 2 * given_numbers.df / given_numbers.ngroups for n in LIMITS[:2]]
        of_gfi = [given_numbers.nvar * (1 / measures[n] - 1) / 2 for n in LIMITS[2:]]
        return [given_numbers.nobs * value for value in of_rmsea + of_gfi]

    ours, theirs = noncentralities(indices(given_numbers)), noncentralities(stored(case))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=UNIROOT)


@reference.needs_reference
@pytest.mark.parametrize("case", WITH_CHISQ)
def test_order_of_names_is_that_of_lavaan(case: str) -> None:
    ours = [name for name in indices(inputs(case)) if not name.endswith("nclusters")]
    theirs = list(stored(case))
    assert ours == [n for n in theirs if not n.startswith(("rmr", "srmr", "crmr"))]


@reference.needs_reference
@pytest.mark.parametrize("case", [c for c in TWO_LEVEL if reference.meta(c)["missing"] == "listwise"])
def test_discrepancy_of_two_level_models(case: str) -> None:
    result = reference.expected(case)
    blocks = [np.atleast_1d(block["cov"]["cols"]) for block in result["implied"].values()]
    ngroups = len(result["group_labels"] or [1])
    units, clusters = set(blocks[0]), set(blocks[1])
    nvalues = result["nobs"] * len(units) + float(np.sum(result["nclusters"])) * len(clusters - units)
    assert len(blocks) == 2 * ngroups
    exogenous = float(np.sum(result["loglik_x"] or 0))
    fmin = twolevel_fmin(result["logl"], exogenous, result["nobs"], nvalues)
    assert fmin == pytest.approx(result["fit_measures"]["fmin"], rel=1e-10)


def numbers(**changes: Any) -> FitMeasureInputs:
    given_numbers: dict[str, Any] = {
        "llf": -1000.0,
        "unrestricted_llf": -990.0,
        "npar": 12,
        "df": 8,
        "nobs": 400.0,
        "baseline_chisq": 300.0,
        "baseline_df": 15,
        "nclusters": 40.0,
        "nvar": 6,
    }
    return FitMeasureInputs(**(given_numbers | changes))


def test_bic_with_clusters() -> None:
    measures = indices(numbers())
    assert measures["bic_nclusters"] == pytest.approx(2000 + 12 * math.log(40))
    assert measures["bic"] == pytest.approx(2000 + 12 * math.log(400))
    assert measures["nclusters"] == 40


def test_single_level_has_no_cluster_measures() -> None:
    measures = indices(numbers(nclusters=None))
    assert "bic_nclusters" not in measures
    assert measures["fmin"] == pytest.approx(20 / 800)


def test_rounding_below_zero_is_no_chisquare() -> None:
    measures = indices(numbers(unrestricted_llf=-1000.0 - 1e-8, df=0))
    assert measures["chisq"] == 0
    assert [measures[name] for name in ("cfi", "tli", "nfi", "rni", "gfi")] == [1.0] * 5
    assert math.isnan(measures["pvalue"])


def test_saturated_below_the_model_is_nan() -> None:
    measures = indices(numbers(unrestricted_llf=-1000.1))
    dependent = ["chisq", "pvalue", "cfi", "tli", "rmsea", "rmsea_ci_upper", "rmsea_pvalue", "gfi"]
    assert all(math.isnan(measures[name]) for name in dependent)
    assert measures["aic"] == 2024


def test_without_saturated_or_baseline_model() -> None:
    nothing = indices(numbers(unrestricted_llf=math.nan))
    assert all(math.isnan(nothing[name]) for name in ("chisq", "cfi", "rmsea", "gfi_ci_lower"))
    no_baseline = indices(numbers(baseline_chisq=math.nan, baseline_df=0))
    assert all(math.isnan(no_baseline[n]) for n in ("cfi", "tli", "rfi", "nfi", "pnfi", "ifi", "rni"))
    assert no_baseline["rmsea"] == pytest.approx(math.sqrt(12 / 8 / 400))


def test_incremental_measures_by_hand() -> None:
    measures = incremental_measures(20.0, 8.0, 300.0, 15.0)
    by_hand = {
        "cfi": 1 - 12 / 285,
        "tli": (300 / 15 - 20 / 8) / (300 / 15 - 1),
        "rfi": 1 - (20 / 8) / (300 / 15),
        "nfi": 280 / 300,
        "pnfi": 8 / 15 * 280 / 300,
        "ifi": 280 / 292,
        "rni": 1 - 12 / 285,
    }
    assert {name: measures[name] for name in by_hand} == pytest.approx(by_hand)


def test_baseline_that_fits_is_not_called_perfect() -> None:
    # lavaan prints rfi = ifi = 1 here, though the model fits worse per degree of freedom.
    measures = incremental_measures(0.942, 3.0, 0.962, 5.0)
    assert math.isnan(measures["rfi"])
    assert math.isnan(measures["ifi"])
    assert measures["cfi"] == 1.0
    assert measures["tli"] == pytest.approx(1 - (2.058 / 3) / (4.038 / 5))


def test_rounding_error_of_a_saturated_fit_is_no_misfit() -> None:
    # With a baseline model that fits, the excess of rounding is all there is to divide.
    assert incremental_measures(5e-14, 0.0, 2.76, 5.0)["cfi"] == 1.0


def test_rmsea_interval_covers_its_tails() -> None:
    low, high = noncentrality_interval(20.0, 8.0, 0.90)
    assert chndtr(20.0, 8.0, low) == pytest.approx(0.95, abs=1e-12)
    assert chndtr(20.0, 8.0, high) == pytest.approx(0.05, abs=1e-12)


def test_rmsea_of_groups_and_levels() -> None:
    one = rmsea_measures(20.0, 8.0, 400.0)
    four = rmsea_measures(20.0, 8.0, 400.0, ngroups=4)
    assert four["rmsea"] == pytest.approx(2 * one["rmsea"])
    assert four["rmsea_pvalue"] < one["rmsea_pvalue"]
    assert rmsea_measures(20.0, 8.0, 400.0, close_h0=0.0)["rmsea_pvalue"] == pytest.approx(
        chisq_pvalue(20.0, 8.0)
    )


@given(st.floats(0, 500), st.integers(0, 60), st.floats(50, 1e5))
def test_rmsea_lies_in_its_interval(chisq: float, df: int, nobs: float) -> None:
    measures = rmsea_measures(chisq, df, nobs, level=0.90)
    assert 0 <= measures["rmsea_ci_lower"] <= measures["rmsea_ci_upper"]
    assert measures["rmsea_ci_lower"] <= measures["rmsea"]
    wider = rmsea_measures(chisq, df, nobs, level=0.99)
    assert wider["rmsea_ci_lower"] <= measures["rmsea_ci_lower"]
    assert wider["rmsea_ci_upper"] >= measures["rmsea_ci_upper"]


def test_critical_n() -> None:
    measures = indices(numbers(nclusters=None))
    # At the critical sample size the chi-square would just be significant.
    chisq = 20 / 400 * (measures["cn_05"] - 1)
    assert chisq_pvalue(chisq, 8) == pytest.approx(0.05)
    assert indices(numbers(nclusters=None, unrestricted_llf=-1000.0))["cn_05"] == math.inf
