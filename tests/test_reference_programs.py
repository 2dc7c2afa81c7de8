"""The reference cases against other programs than lavaan: dense densities, closed forms, lme4, OpenMx, Mplus."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import reference
import reference_fits as cases
from reference_fits import CASES, fit

pytestmark = reference.needs_reference

# Settings of the optimisers of these programs: how near their estimates are to the maximum, in standard errors.
OPENMX_NEAR = 2e-3


def results(case: str) -> dict[str, Any]:
    """Results of all programs."""
    text = (reference.REFERENCE / case / "expected.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def having(program: str) -> list[str]:
    """Cases that a program was run on."""
    return [case for case in CASES if program in results(case)]


def estimate(case: str, lhs: str, op: str, rhs: str, level: int, group: int = 1) -> tuple[float, float]:
    """Our estimate of one parameter and its standard error."""
    at = cases.keys(case).index(cases.key(lhs, op, rhs, level, group))
    values, errors = fit(case).row_values, fit(case).row_errors
    return float(values[at]), float(errors[at])


@pytest.mark.parametrize("case", having("brute_force"))
def test_dense_normal_density_of_whole_clusters(case: str) -> None:
    theirs = results(case)["brute_force"][reference.PROGRAM]
    assert fit(case).objective.llf(cases.theta(case)) == pytest.approx(theirs["logl"], abs=1e-6)
    if theirs["h1_direct_logl"] is not None:
        assert fit(case).unrestricted_llf == pytest.approx(theirs["h1_direct_logl"], abs=1e-6)


@pytest.mark.parametrize("case", having("closed_form"))
def test_closed_form_of_balanced_data(case: str) -> None:
    theirs, h1 = results(case)["closed_form"], fit(case).saturated
    for ours, name in ((h1.within.cov, "sigma_within"), (h1.between.cov, "sigma_between")):
        expected = cases.matrix(theirs[name])
        np.testing.assert_allclose(ours.loc[expected.index, expected.columns], expected, atol=1e-9)
    np.testing.assert_allclose(
        h1.between.mean[list(theirs["mean"])], list(theirs["mean"].values()), atol=1e-9
    )
    assert fit(case).llf == pytest.approx(theirs["logl"], abs=1e-8)
    assert fit(case).icc.to_dict() == pytest.approx(theirs["icc"], abs=1e-9)


@pytest.mark.parametrize("case", having("lme4"))
def test_mixed_models(case: str) -> None:
    theirs = results(case)["lme4"]
    outcome = theirs["formula"].split(" ~ ")[0]
    assert fit(case).llf == pytest.approx(theirs["logl"], abs=1e-6)
    intercept, _ = estimate(case, outcome, "~1", "", 2)
    assert intercept == pytest.approx(theirs["fixef"].pop("(Intercept)"), abs=1e-5)
    table = fit(case).estimates().query("op == '~'")
    ours = dict(zip(table["rhs"], table["est"], strict=True))
    assert ours == pytest.approx(theirs["fixef"], rel=1e-5, abs=1e-6)
    between, residual = (part["vcov"] for part in theirs["varcorr"])
    assert estimate(case, outcome, "~~", outcome, 2)[0] == pytest.approx(between, rel=1e-4)
    assert estimate(case, outcome, "~~", outcome, 1)[0] == pytest.approx(residual, rel=1e-5)


@pytest.mark.parametrize("case", having("lme4"))
def test_standard_errors_of_mixed_models(case: str) -> None:
    # Theirs are those of generalised least squares: the variances count as known, the covariates as fixed.
    theirs = results(case)["lme4"]["se_fixef_expected_information"]
    rows = [r for r in fit(case).table.rows if r.free and r.op in {"~", "~1"}]
    names = {r.rhs or "(Intercept)": r.free - 1 for r in rows}
    information = fit(case).objective.observed_information(fit(case).estimate.theta)
    square = np.ix_(list(names.values()), list(names.values()))
    ours = np.sqrt(np.diag(np.linalg.inv(information[square])))
    assert dict(zip(names, ours, strict=True)) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("case", having("openmx"))
def test_openmx(case: str) -> None:
    theirs = results(case)["openmx"]
    assert fit(case).llf == pytest.approx(theirs["logl"], abs=2e-3)
    assert fit(case).llf > theirs["logl"] - 1e-6
    for row in theirs["estimates"]:
        group, level = divmod(row["block"] - 1, fit(case).table.nlevels)
        ours, error = estimate(case, row["lhs"], row["op"], row["rhs"], level + 1, group + 1)
        assert abs(ours - row["est"]) <= OPENMX_NEAR * error
        assert row["se"] is None or error == pytest.approx(row["se"], rel=2e-2)


# Mplus has the likelihood given the covariates for example 9.1b, whose estimates are those of the other variant.
MPLUS = [case for case in having("mplus") if case != "mplus_ex9_1b"]
MPLUS_NEAR = 0.03  # its EM stops this many standard errors from the maximum at worst


@pytest.mark.parametrize("case", MPLUS)
def test_mplus(case: str) -> None:
    theirs, ours = results(case)["mplus"], fit(case)
    assert ours.npar == theirs["npar"]
    assert ours.llf == pytest.approx(theirs["logl_h0"], abs=1e-3)
    assert ours.aic == pytest.approx(theirs["aic"], abs=2e-3)
    assert ours.bic == pytest.approx(theirs["bic"], abs=2e-3)
    assert (ours.nobs, ours.nclusters) == (theirs["n"], theirs["n_clusters"])


@pytest.mark.parametrize("case", having("mplus"))
def test_mplus_estimates(case: str) -> None:
    printed = [row for row in results(case)["mplus"]["parameters"] if row["level"] and not row["fixed"]]
    assert len(printed) >= 5
    for row in printed:
        level = {"within": 1, "between": 2}[row["level"]]
        value, error = estimate(case, row["lhs"], row["op"], row["rhs"], level)
        assert value == pytest.approx(row["est"], abs=0.5001e-3 + MPLUS_NEAR * error)
