"""Every complete-data reference case, end to end, against lavaan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import reference
import reference_fits as cases
from msem.postestimation.fit_indices import indices
from msem.postestimation.srmr import level_residuals, srmr_level
from oracle import differences
from reference_fits import CASES, GROUPED, SINGLE, TWO_LEVEL, fit
from test_fitmeasures import inputs, stored

pytestmark = reference.needs_reference

# How far lavaan's default settings stop below the maximum while they report convergence.
UNCONVERGED_PEER = {"sleepstudy_ri": 12.236, "demo_partsat_within": 0.261}
# lavaan's saturated between matrix is kept positive semidefinite; here the maximum is outside.
INDEFINITE_BETWEEN = ["mplus_ex9_12_min", "mplus_ex9_6"]
ROBUST = [case for case in CASES if reference.meta(case)["estimator"] == "MLR"]


def two_level_h1(case: str) -> list[dict[str, Any]]:
    """Within and between saturated moments at their maximum."""
    found: list[dict[str, Any]] = reference.expected(case)["h1_direct"]["moments"]
    return found


def free_rows(case: str) -> np.ndarray:
    """Which rows are estimated and off their bounds."""
    active = fit(case).estimate.optimum.active
    return np.array([bool(r.free) and active[r.free - 1] == 0 for r in fit(case).table.rows])


@pytest.mark.parametrize("case", CASES)
def test_log_likelihood_at_their_estimates(case: str) -> None:
    theirs = reference.expected(case)["logl"]
    assert -0.5 * fit(case).objective.value(cases.theta(case)) == pytest.approx(theirs, rel=1e-9, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradient_vanishes_at_their_estimates(case: str) -> None:
    objective, theta = fit(case).objective, cases.theta(case)
    free = fit(case).estimate.tangent
    gradient = free.T @ objective.gradient(theta)
    information = free.T @ objective.expected_information(theta) @ free
    assert gradient @ np.linalg.solve(information, gradient) < 1e-12


@pytest.mark.parametrize("case", CASES)
def test_log_likelihood_is_at_least_theirs(case: str) -> None:
    result = reference.expected(case)
    assert fit(case).llf - result["logl"] == pytest.approx(0.0, abs=1e-6)
    unconverged = UNCONVERGED_PEER.get(case, 0.0)
    assert fit(case).llf - result["default_settings"]["logl"] == pytest.approx(unconverged, abs=1e-3)


def test_another_maximum_is_reached_from_another_start() -> None:
    """Its factor is that of y4 to y6 alone, which leaves the marker y1 without a loading to be fixed at 1."""
    case = "demo_partsat_within"
    within, between = reference.model(case).split("level: 2")
    between = between.replace("=~ y1", "=~ NA*y1 + start(0)*y1").replace("+ y4", "+ 1*y4")
    text = f"{within}level: 2{between}"
    other = msem.sem(text, reference.data(case), cluster="cluster")
    assert other.status == "ok"
    assert other.llf - fit(case).llf == pytest.approx(65.860, abs=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_estimates(case: str) -> None:
    ours, errors = fit(case).row_values, fit(case).row_errors
    difference = np.abs(ours - cases.column(case, "est"))
    free = free_rows(case)
    assert (difference[free] <= 1e-6 * (np.abs(ours) + errors)[free]).all()
    # Moments of a fixed covariate at both levels come from lavaan's EM.
    np.testing.assert_allclose(difference[~free], 0, atol=1e-7)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ROBUST])
def test_standard_errors(case: str) -> None:
    free = free_rows(case)
    ours = fit(case).row_errors
    np.testing.assert_allclose(ours[free], cases.column(case, "se")[free], rtol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case in TWO_LEVEL])
def test_standard_errors_by_differencing_their_objective(case: str) -> None:
    # Second differences of function values: their own error is up to 3e-4, see test_standard_errors_of_robust_fits.
    numeric = cases.column(case, "se_numeric_hessian")
    known = free_rows(case) & np.isfinite(numeric)
    np.testing.assert_allclose(fit(case).row_errors[known], numeric[known], rtol=5e-4)


@pytest.mark.parametrize("case", ROBUST)
def test_standard_errors_of_robust_fits(case: str) -> None:
    # lavaan stores the sandwich only, which has the same estimates but not the standard errors of ML.
    theta = fit(case).estimate.theta
    hessian = differences(fit(case).objective.gradient, theta, step=0.002) / 2
    expected = np.sqrt(np.diag(np.linalg.inv((hessian + hessian.T) / 2)))
    np.testing.assert_allclose(fit(case).bse, expected, rtol=1e-8)


@pytest.mark.parametrize("kind", ["observed", "expected"])
@pytest.mark.parametrize("case", ["demo_twolevel", "hs_cfa_mean"])
def test_kinds_of_information(case: str, kind: str) -> None:
    free = free_rows(case)
    ours = fit(case, information=kind).row_errors
    np.testing.assert_allclose(ours[free], cases.information_se(case, kind)[free], rtol=1e-6)


@pytest.mark.parametrize("case", ["demo_twolevel", "hs_cfa_mean"])
def test_first_order_information(case: str) -> None:
    result = fit(case, information="first_order")
    ours, theirs = result.row_errors, cases.information_se(case, "first.order")
    # lavaan's scores of between intercepts are not the derivatives of the cluster log-likelihoods (which ours
    # are, test_derivatives.py); they differ in the fourth digit.
    kept = free_rows(case) & np.array([r.op != "~1" or case == "hs_cfa_mean" for r in result.table.rows])
    np.testing.assert_allclose(ours[kept], theirs[kept], rtol=1e-6)


@pytest.mark.parametrize("case", [case for case in CASES if case not in ROBUST])
def test_sampling_covariance(case: str) -> None:
    theirs = reference.expected(case)["vcov"]
    free = [r.free for r in fit(case).table.rows]
    numbers = cases.column(case, "free")
    first = [int(numbers[free.index(k)]) - 1 for k in range(1, len(fit(case).params) + 1)]
    expected = np.atleast_2d(theirs["data"])[np.ix_(first, first)]
    free = np.flatnonzero(fit(case).estimate.optimum.active == 0)
    square = np.ix_(free, free)
    sd = np.sqrt(np.diag(expected)[free])
    difference = (fit(case).cov_params().to_numpy()[square] - expected[square]) / np.outer(sd, sd)
    np.testing.assert_allclose(difference, 0, atol=1e-6)


def expected_measures(case: str) -> dict[str, float]:
    """lavaan's fit measures, those that depend on its saturated model moved to the maximum of that model."""
    theirs = stored(case)
    if case not in INDEFINITE_BETWEEN:
        return theirs
    result, given = reference.expected(case), inputs(case)
    gain = result["h1_direct"]["logl"] - given.unrestricted_llf
    assert gain > 0.1
    implied = list(result["implied"].values())
    srmr = [
        srmr_level(cases.matrix(h1["cov"]).to_numpy(), cases.matrix(h0["cov"]).to_numpy())
        for h1, h0 in zip(two_level_h1(case), implied, strict=True)
    ]
    moved = replace(
        given,
        unrestricted_llf=given.unrestricted_llf + gain,
        baseline_chisq=given.baseline_chisq + 2 * gain,
        fmin=theirs["fmin"],
        residuals=level_residuals([[srmr[0]], [srmr[1]]], [given.nobs]),
    )
    return {name: value for name, value in indices(moved).items() if name in theirs}


@pytest.mark.parametrize("case", CASES)
def test_fit_measures(case: str) -> None:
    theirs = expected_measures(case)
    ours = fit(case).fit_measures()
    assert set(ours.index) - set(theirs) <= {"nclusters", "bic_nclusters"}
    np.testing.assert_allclose(ours[list(theirs)], list(theirs.values()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", TWO_LEVEL)
def test_saturated_model(case: str) -> None:
    h1 = reference.expected(case)["h1_direct"]
    assert fit(case).unrestricted_llf == pytest.approx(h1["logl"], abs=1e-6)
    chisq = max(2 * (h1["logl"] - reference.expected(case)["logl"]), 0)
    assert fit(case).chisq == pytest.approx(chisq, rel=1e-6, abs=1e-6)
    saturated = [group.saturated for group in fit(case).groups.values()]
    ours = [moments for group in saturated for moments in (group.within, group.between)]
    for mine, theirs in zip(ours, h1["moments"], strict=True):
        compare_moments(mine.cov, mine.mean, theirs)


def compare_moments(cov: pd.DataFrame, mean: pd.Series, theirs: dict[str, Any]) -> None:
    """Hold moments to stored ones: covariances relative to the standard deviations."""
    expected = cases.matrix(theirs["cov"])
    names = list(expected)
    assert set(names) == set(cov.columns)
    sd = np.sqrt(np.abs(np.diag(expected)))
    difference = (cov.loc[names, names] - expected) / np.outer(sd, sd)
    np.testing.assert_allclose(difference, 0, atol=1e-6)
    if "mean" in theirs and isinstance(theirs["mean"], dict):
        means = pd.Series(theirs["mean"], dtype=float)
        np.testing.assert_allclose((mean[names] - means[names]) / sd, 0, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_implied_moments(case: str) -> None:
    implied = [level for group in fit(case).groups.values() for level in group.implied.values()]
    for ours, theirs in zip(implied, cases.blocks(case, "implied"), strict=True):
        compare_moments(ours.observed.cov, ours.observed.mean, theirs)


@pytest.mark.parametrize("case", SINGLE)
def test_sample_moments(case: str) -> None:
    samples = [levels[1] for levels in fit(case).sample.levels]
    for sample, theirs in zip(samples, cases.blocks(case, "sampstat"), strict=True):
        compare_moments(sample.frame(), sample.series(), theirs)


@pytest.mark.parametrize("case", [case for case in TWO_LEVEL if case not in INDEFINITE_BETWEEN])
def test_intraclass_correlations(case: str) -> None:
    stored = reference.expected(case)["icc"]
    every = stored.values() if case in GROUPED else [stored]
    for group, icc in zip(fit(case).groups.values(), every, strict=True):
        theirs = {name: value for name, value in icc.items() if value}
        assert set(theirs) == set(group.icc.index)
        np.testing.assert_allclose(group.icc[list(theirs)], list(theirs.values()), atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_standardized_estimates(case: str) -> None:
    theirs = [row for row in reference.expected(case)["standardized"] if row["op"] in cases.OPERATORS]
    rows = cases.table_rows(case)
    assert [(r["lhs"], r["op"], r["rhs"]) for r in theirs] == [(r["lhs"], r["op"], r["rhs"]) for r in rows]
    expected = cases.in_order(case, rows, [row["est.std"] for row in theirs])
    ours = fit(case).estimates(standardized=True)
    defined = ours["op"] == ":="
    np.testing.assert_allclose(ours.loc[~defined, "std_all"], expected, atol=1e-6)
    definitions = [row["est.std"] for row in reference.expected(case)["standardized"] if row["op"] == ":="]
    np.testing.assert_allclose(ours.loc[defined, "std_all"], definitions, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_explained_variances(case: str) -> None:
    order = [(g, level) for g in range(1, len(fit(case).groups) + 1) for level in fit(case).sample.levels[0]]
    expected = {
        (*block, name): r2
        for block, theirs in zip(order, cases.blocks(case, "rsquare") or [{}] * len(order), strict=True)
        for name, r2 in (theirs or {}).items()
    }
    found = fit(case).rsquare()
    names = zip(found["group"], found["level"], found["lhs"], strict=True)
    ours = dict(zip(names, found["r2"], strict=True))
    assert {k: v for k, v in ours.items() if np.isfinite(v)} == pytest.approx(
        {k: v for k, v in expected.items() if v is not None}, abs=1e-6
    )


@pytest.mark.parametrize("case", CASES)
def test_counts(case: str) -> None:
    result, m = reference.expected(case), reference.meta(case)
    # lavaan counts parameters that share a label once for each row.
    shared = sum(row["op"] == "==" and row["lhs"].startswith(".p") for row in result["parameter_table"])
    assert len(fit(case).params) == result["npar"] - shared
    written = sum(row["op"] == "==" and row["user"] == 1 for row in result["parameter_table"])
    assert fit(case).npar == len(fit(case).params) - written
    assert fit(case).df == result["df"]
    assert fit(case).nobs == result["nobs"]
    assert fit(case).nclusters == (np.sum(result["nclusters"]) if m["levels"] == 2 else None)


@pytest.mark.parametrize("case", GROUPED)
def test_groups(case: str) -> None:
    theirs, groups = reference.expected(case), fit(case).groups
    assert list(groups) == theirs["group_labels"] == list(fit(case).group_labels)
    assert [g.llf for g in groups.values()] == pytest.approx(theirs["logl_per_group"], abs=1e-6)
    assert sum(g.llf for g in groups.values()) == pytest.approx(fit(case).llf, rel=1e-12)
    chisq = theirs["test"]["standard"]["stat.group"]
    assert [g.chisq for g in groups.values()] == pytest.approx(chisq, rel=1e-6)
    assert [g.nclusters for g in groups.values()] == (theirs["nclusters"] or [None, None])


@pytest.mark.parametrize("case", CASES)
def test_status(case: str) -> None:
    known = {"balanced_cfa": "improper", "demo_bound_between": "boundary"}
    assert fit(case).converged
    assert fit(case).status == known.get(case, "ok")
    assert isinstance(fit(case), msem.Fit)
