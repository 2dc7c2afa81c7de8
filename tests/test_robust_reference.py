"""Robust inference against lavaan: reference fits, and fits of the demonstration data stored with the tests.

lavaan 0.6-14 and 0.7-2 take the within means that covariates give off the data twice when they compute cluster scores,
and weight the scores of groups by units where they should by clusters. `as_lavaan` repeats both, so that the agreement
is to the digits of the reference; see docs/differences-from-lavaan.md.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import msem
import reference
import reference_fits as rf
import texts
from msem.data.complete_clusters import ClusterArrays
from msem.postestimation.fit_indices import FitMeasureInputs, scaled_indices
from msem.postestimation.scaling import Scaling

CASES = [
    case
    for case in reference.names()
    if reference.meta(case)["estimator"] == "MLR"
    and reference.meta(case)["missing"] == "listwise"
    and reference.meta(case)["levels"] == 2
    and not reference.meta(case)["random_slopes"]
]
UNTOUCHED = ["demo_wide_mlr", "mplus_ex9_1a", "mplus_ex9_1b", "mplus_ex9_1b_fixedx"]
SINGLE_MAXIMUM = ["demo_mlr", "demo_wide_mlr"]  # their EM ends at the maximum of the saturated likelihood
STORED = json.loads((Path(__file__).parent / "data" / "lavaan_robust.json").read_text())
TWO_LEVEL = texts.DEMO
ONE_LEVEL = """
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f1 + f2 ~ x1 + x2
"""
FITS: dict[str, tuple[str, dict[str, Any]]] = {
    "rows": (ONE_LEVEL, {"estimator": "MLR"}),
    "rows_without_means": (ONE_LEVEL, {"estimator": "MLR", "meanstructure": False}),
    "rows_full": (ONE_LEVEL, {"meanstructure": True, "se": "robust.huber.white", "test": "yuan.bentler"}),
    "rows_expected": (ONE_LEVEL, {"meanstructure": True, "estimator": "MLR", "information": "expected"}),
    "rows_first_order": (ONE_LEVEL, {"meanstructure": True, "estimator": "MLF"}),
    "clusters": (ONE_LEVEL, {"cluster": "cluster"}),
    "two_level": (TWO_LEVEL, {"cluster": "cluster", "estimator": "MLR"}),
    "two_level_full": (TWO_LEVEL, {"cluster": "cluster", "se": "robust", "test": "yuan.bentler"}),
    "two_level_expected": (TWO_LEVEL, {"cluster": "cluster", "estimator": "MLR", "information": "expected"}),
    "two_level_first_order": (TWO_LEVEL, {"cluster": "cluster", "estimator": "MLF"}),
}
ROWS = [case for case in FITS if not case.startswith("two_level")]


@functools.cache
def demo() -> pd.DataFrame:
    data = msem.load_demo()
    covariates = ["x1", "x2", "x3"]
    data[covariates] -= data[covariates].mean()
    return data


@functools.cache
def own(case: str) -> msem.Fit:
    model, options = FITS[case]
    return msem.sem(model, demo(), **options)


def lavaan_se(stored: dict[str, Any], fit: msem.Fit) -> NDArray[np.float64]:
    """Their standard errors in the order of our parameters."""
    blocks = sorted({row["block"] for row in stored["parameters"]})
    found = {
        rf.key(r["lhs"], r["op"], r["rhs"], blocks.index(r["block"]) + 1): r["se"]
        for r in stored["parameters"]
    }
    rows = sorted((r for r in fit.table.rows if r.free), key=lambda r: r.free)
    return np.array([found[rf.key(r.lhs, r.op, r.rhs, r.level)] for r in rows])


@pytest.mark.parametrize("case", FITS)
def test_standard_errors(case: str) -> None:
    tolerance = 1e-6 if case in ROWS else 2e-5  # as far as their optimiser goes
    np.testing.assert_allclose(own(case).bse, lavaan_se(STORED[case], own(case)), rtol=tolerance)


@pytest.mark.parametrize("case", [case for case in FITS if "first_order" not in case])
def test_scaling_factors(case: str) -> None:
    theirs, measures = STORED[case]["fit_measures"], own(case).fit_measures()
    assert measures["scaling_factor_h0"] == pytest.approx(theirs["scaling.factor.h0"], rel=5e-6)
    if case not in ROWS:  # their EM has not reached the maximum
        return
    assert measures["scaling_factor_h1"] == pytest.approx(theirs["scaling.factor.h1"], rel=1e-6)
    for name in ("chisq.scaling.factor", "baseline.chisq.scaling.factor", "chisq.scaled"):
        assert measures[name.replace(".", "_")] == pytest.approx(theirs[name], rel=2e-6)


@pytest.mark.parametrize("case", [case for case in ROWS if "first_order" not in case])
def test_fit_measures(case: str) -> None:
    ours = own(case).fit_measures()
    theirs = {name.replace(".", "_"): value for name, value in STORED[case]["fit_measures"].items()}
    names = [n for n in theirs if n in ours.index and not n.startswith(("gfi", "rmr", "crmr", "srmr"))]
    assert len(names) > 50
    np.testing.assert_allclose(ours[names], [theirs[n] for n in names], rtol=1e-5, atol=1e-6)


# -- reference cases ---------------------------------------------------------------------------------------------------


def as_lavaan(fit: msem.Fit) -> tuple[NDArray[np.float64], float]:
    """Standard errors and tr(A^-1 B) with lavaan's cluster scores."""
    theta, objective, sample = fit.estimate.theta, fit.objective, fit.sample
    meat = np.zeros((len(theta),) * 2)
    for number, group in enumerate(sample.groups, 1):
        s, c = group.statistics, group.clusters
        means = c.means.copy()
        means[:, : len(s.unit)] -= objective.moments(theta, number)[1].observed.mean
        scores = objective.scores(theta, ClusterArrays(c.sizes, means, c.within), number)
        meat += scores.T @ scores * (s.nobs / sample.nobs) / (s.nclusters / sample.nclusters)
    bread = np.linalg.inv(objective.observed_information(theta))
    return np.sqrt(np.diag(bread @ meat @ bread)), float(np.sum(bread * meat))


@reference.needs_reference
def test_there_are_cases() -> None:
    assert len(CASES) >= 8
    assert set(UNTOUCHED + SINGLE_MAXIMUM) <= set(CASES)


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_reference_standard_errors_with_their_scores(case: str) -> None:
    fit = rf.fit(case, estimator="MLR")
    free = np.array([r.free for r in fit.table.rows])
    se, trace = as_lavaan(fit)
    np.testing.assert_allclose(se[free[free > 0] - 1], rf.column(case, "se")[free > 0], rtol=1e-6)
    theirs = reference.expected(case)
    if theirs["scaling_factor_h0"] is not None:
        labelled = sum(row["free"] > 0 for row in theirs["parameter_table"])  # they count equal ones each
        assert trace / labelled == pytest.approx(theirs["scaling_factor_h0"], rel=1e-6)


@reference.needs_reference
@pytest.mark.parametrize("case", UNTOUCHED)
def test_reference_cases_without_within_means(case: str) -> None:
    fit = rf.fit(case, estimator="MLR")
    free = np.array([r.free for r in fit.table.rows])
    se = fit.bse.to_numpy()[free[free > 0] - 1]
    np.testing.assert_allclose(se, rf.column(case, "se")[free > 0], rtol=1e-6)
    ours, theirs = fit.fit_measures(), defined(measures(case))
    assert set(theirs) <= set(ours.index)
    np.testing.assert_allclose(ours[list(theirs)], list(theirs.values()), rtol=1e-4, atol=1e-6)


@reference.needs_reference
@pytest.mark.parametrize("case", SINGLE_MAXIMUM)
def test_reference_scaling_of_the_saturated_model(case: str) -> None:
    ours = rf.fit(case, estimator="MLR").fit_measures()
    theirs = measures(case)
    for name in ("scaling_factor_h1", "baseline_chisq_scaling_factor"):
        assert ours[name] == pytest.approx(theirs[name], rel=2e-6)


def measures(case: str) -> dict[str, float]:
    found: dict[str, Any] = reference.expected(case)["fit_measures"]
    return {n.replace(".", "_"): math.nan if x is None else float(x) for n, x in found.items()}


def defined(theirs: dict[str, float]) -> dict[str, float]:
    """Without those that lavaan leaves out of models without degrees of freedom, where they are 1 or 0."""
    if theirs["df"] > 0:
        return theirs
    return {name: value for name, value in theirs.items() if not math.isnan(value)}


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_scaled_measures_are_functions_of_the_same_numbers(case: str) -> None:
    theirs, result = measures(case), reference.expected(case)
    shown = defined(theirs)
    blocks = list(result["implied"].values())
    given = FitMeasureInputs(
        llf=theirs["logl"],
        unrestricted_llf=theirs["unrestricted_logl"],
        npar=int(theirs["npar"]),
        df=int(theirs["df"]),
        nobs=theirs["ntotal"],
        baseline_chisq=theirs["baseline_chisq"],
        baseline_df=int(theirs["baseline_df"]),
        nclusters=float(np.sum(result["nclusters"])),
        ngroups=len(result["group_labels"] or [1]),
        nvar=len(np.atleast_1d(blocks[0]["cov"]["cols"])),
    )
    factor = theirs["chisq_scaling_factor"]
    scaling = Scaling(
        theirs.get("scaling_factor_h0", math.nan), theirs.get("scaling_factor_h1", math.nan), factor
    )
    ours = scaled_indices(given, scaling, theirs["baseline_chisq_scaling_factor"])
    scaled = [n for n in theirs if n.endswith(("_scaled", "_robust")) or "scaling_factor" in n]
    assert len(scaled) >= 33
    limits = [n for n in scaled if "_ci_" in n and n in shown]  # from a root finder that stops at 1e-4
    rest = [n for n in scaled if n not in limits and n in shown]
    np.testing.assert_allclose([ours[n] for n in rest], [theirs[n] for n in rest], rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose([ours[n] for n in limits], [theirs[n] for n in limits], rtol=1e-6, atol=1e-7)
    assert [n for n in ours if n in scaled] == scaled
