"""Standard errors of the standardized solution and of explained variance."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import models
import msem
import oracle
import reference
import reference_fits
from msem.model.functions import defined_functions
from msem.postestimation.constraints import definition_rows
from msem.postestimation.delta import Quantity, jacobian
from msem.postestimation.standardized import (
    KINDS,
    Definitions,
    Kind,
    explained_quantity,
    standardized_frame,
    standardized_quantity,
)

Floats = NDArray[np.float64]
# MLR of lavaan is wrong with within covariates that are not centred; their sampling covariance then comes from them
UNTOUCHED = ("demo_wide_mlr", "mplus_ex9_1a", "mplus_ex9_1b", "mplus_ex9_1b_fixedx")
MODEL = """
level: 1
    fw =~ y1 + y2 + y3
    fw ~ x1
    y2 ~ x2
    y1 ~~ y3
level: 2
    fb =~ y1 + y2 + y3
    fb ~ w1
"""


@functools.cache
def fit(**options: Any) -> msem.Fit:
    return msem.sem(MODEL, msem.load_demo(), cluster="cluster", **options)


def their_vcov(case: str) -> Floats:
    """The other program's sampling covariance in the order of our theta."""
    rows = reference_fits.table_rows(case)
    free = reference_fits.in_order(case, rows, [row["free"] for row in rows])
    stored = np.atleast_2d(np.array(reference.expected(case)["vcov"]["data"], dtype=float))
    table = reference_fits.fit(case).table
    place = np.zeros(table.npar, dtype=int)
    for row, number in zip(table.rows, free, strict=True):
        if row.free:
            place[row.free - 1] = int(number) - 1
    return stored[np.ix_(place, place)]


@reference.needs_reference
@pytest.mark.parametrize("case", reference_fits.CASES)
def test_standard_errors_agree_with_lavaan(case: str) -> None:
    fitted, rows = reference_fits.fit(case), reference_fits.table_rows(case)
    stored = reference.expected(case)["standardized"]
    theirs = [row for row in stored if row["op"] in reference_fits.OPERATORS]
    definitions = [row for row in stored if row["op"] == ":="]
    assert [(a["lhs"], a["op"], a["rhs"]) for a in theirs] == [(a["lhs"], a["op"], a["rhs"]) for a in rows]
    functions = defined_functions(fitted.table, "rows") if definitions else None
    found = standardized_frame(
        fitted.objective,
        fitted.estimate.theta,
        their_vcov(case),
        "std_all",
        defined=Definitions(definition_rows(fitted), functions),
    )
    est, se = (
        np.append(
            reference_fits.in_order(case, rows, [row[name] for row in theirs]),
            [row[name] for row in definitions],
        )
        for name in ("est.std", "se")
    )
    np.testing.assert_allclose(found["est_std"], est, rtol=1e-4, atol=1e-7)
    rounded = (se == 0) & (found["se"] < 2e-5)  # lavaan prints 0 for standard errors that are that small
    np.testing.assert_allclose(found["se"][~rounded], se[~rounded], rtol=1e-4, atol=1e-7)
    assert (found["se"][rounded] == 0).all() or case == "mplus_ex9_12_min"
    if reference.meta(case)["estimator"] == "ML" or case in UNTOUCHED:
        options = {"estimator": "MLR"} if case in UNTOUCHED else {}
        table = reference_fits.fit(case, **options).standardized()
        np.testing.assert_allclose(table["se"], found["se"], rtol=1e-4, atol=1e-8)
        np.testing.assert_allclose(table["est_std"], found["est_std"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("total", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["all kinds", "between-only", "single level"])
def test_derivatives(shape: str, kind: Kind, total: bool) -> None:
    case = models.shape_case(shape)
    check_derivatives(standardized_quantity(case.objective, kind, total=total), case.near)


@pytest.mark.parametrize("shape", ["all kinds", "single level"])
def test_derivatives_of_explained_variance(shape: str) -> None:
    case = models.shape_case(shape)
    check_derivatives(explained_quantity(case.objective), case.near)


def check_derivatives(quantity: Quantity, theta: Floats) -> None:
    wanted = oracle.differences(quantity, theta)
    np.testing.assert_allclose(jacobian(quantity, theta), wanted, rtol=1e-6, atol=1e-7)


def test_std_lv_errors_are_those_of_a_fit_with_latent_variances_of_one() -> None:
    text = MODEL.replace("fw ~ x1", "").replace("fb ~ w1", "").replace("y1 ~~ y3", "")
    frame = msem.load_demo()
    marker = msem.sem(text, frame, cluster="cluster").standardized("std_lv")
    unit = msem.sem(text, frame, cluster="cluster", std_lv=True).estimates()
    loadings = marker["op"] == "=~"
    assert loadings.sum() == 6
    np.testing.assert_allclose(marker.loc[loadings, "est_std"], unit.loc[loadings, "est"], rtol=1e-6)
    np.testing.assert_allclose(marker.loc[loadings, "se"], unit.loc[loadings, "se"], rtol=1e-5)


def test_columns_and_point_values() -> None:
    table, plain = fit().standardized("std_nox", ci_level=0.9), fit().estimates(standardized=True)
    assert list(table.columns) == [
        *("lhs", "op", "rhs", "level", "group", "label"),
        *("est_std", "se", "z", "pvalue", "ci_lower", "ci_upper"),
    ]
    np.testing.assert_allclose(table["est_std"], plain["std_nox"], rtol=1e-10)
    estimated = table["se"] > 0
    half = (table["ci_upper"] - table["ci_lower"])[estimated] / 2
    np.testing.assert_allclose(half / table["se"][estimated], 1.6448536, rtol=1e-6)
    np.testing.assert_allclose(table["z"][estimated], (table["est_std"] / table["se"])[estimated])


@pytest.mark.parametrize("total", [False, True])
def test_units_do_not_matter(total: bool) -> None:
    frame = msem.load_demo()
    other = msem.sem(
        MODEL,
        frame.assign(y1=7 * frame["y1"] - 3, x1=frame["x1"] / 50, w1=9 * frame["w1"]),
        cluster="cluster",
    )
    ours, theirs = fit().standardized(total=total), other.standardized(total=total)
    means = ours["op"] == "~1"
    np.testing.assert_allclose(
        ours.loc[~means, "est_std"], theirs.loc[~means, "est_std"], rtol=1e-5, atol=1e-9
    )
    np.testing.assert_allclose(ours.loc[~means, "se"], theirs.loc[~means, "se"], rtol=1e-4, atol=1e-9)


def test_total_shares_of_an_unrestricted_variable_add_up_over_levels() -> None:
    text = "level: 1\n  y1 ~~ y2\nlevel: 2\n  y1 ~~ y2"
    fitted = msem.sem(text, msem.load_demo(), cluster="cluster")
    table = fitted.standardized(total=True).set_index(["lhs", "op", "rhs", "level"])
    for name in ("y1", "y2"):
        shares = [table.loc[(name, "~~", name, level), "est_std"] for level in (1, 2)]
        assert sum(shares) == pytest.approx(1)
        icc = fitted.icc_table(source="model").set_index("lhs").loc[name]
        assert shares[1] == pytest.approx(icc["icc"])
        assert table.loc[(name, "~~", name, 2), "se"] == pytest.approx(icc["se"])
    # both covariances over the same total standard deviations sum to the total correlation
    total = [table.loc[("y1", "~~", "y2", level), "est_std"] for level in (1, 2)]
    implied = fitted.implied[1].cov + fitted.implied[2].cov
    wanted = implied.loc["y1", "y2"] / np.sqrt(implied.loc["y1", "y1"] * implied.loc["y2", "y2"])
    assert sum(total) == pytest.approx(wanted)


def test_factor_of_one_name_at_both_levels_has_a_total_variance() -> None:
    text = "level: 1\n  f =~ y1 + a*y2 + b*y3\nlevel: 2\n  f =~ y1 + a*y2 + b*y3"
    fitted = msem.sem(text, msem.load_demo(), cluster="cluster")
    table = fitted.standardized(total=True).set_index(["lhs", "op", "rhs", "level"])
    assert table.loc[("f", "~~", "f", 1), "est_std"] + table.loc[
        ("f", "~~", "f", 2), "est_std"
    ] == pytest.approx(1)
    loadings = table.xs("=~", level="op")
    np.testing.assert_allclose(
        loadings.xs(1, level="level")["est_std"], loadings.xs(2, level="level")["est_std"]
    )
    apart = fitted.standardized().set_index(["lhs", "op", "rhs", "level"])
    assert apart.loc[("f", "~~", "f", 2), "est_std"] == pytest.approx(1)
    assert apart.loc[("f", "~~", "f", 2), "se"] == 0


def test_explained_variance() -> None:
    table, full = fit().rsquare(), fit().standardized().set_index(["lhs", "op", "rhs", "level"])
    assert list(table.columns) == ["lhs", "level", "group", "r2", "se", "ci_lower", "ci_upper"]
    for row in table.itertuples():
        residual = full.loc[(row.lhs, "~~", row.lhs, row.level)]
        assert row.r2 == pytest.approx(1 - residual["est_std"])
        assert row.se == pytest.approx(residual["se"])
        assert 0 < row.ci_lower < row.r2 < row.ci_upper < 1


def test_wald_interval_of_the_logit() -> None:
    row = fit().rsquare(ci_level=0.95).iloc[0]
    logit, slope = np.log(row.r2 / (1 - row.r2)), row.se / (row.r2 * (1 - row.r2))
    ends = 1 / (1 + np.exp(-(logit + np.array([-1, 1]) * 1.959963985 * slope)))
    np.testing.assert_allclose([row.ci_lower, row.ci_upper], ends, rtol=1e-8)


def test_without_standard_errors() -> None:
    table = fit(se="none").standardized()
    np.testing.assert_allclose(table["est_std"], fit().standardized()["est_std"])
    assert table.loc[table["op"] == "=~", "se"].isna().all()


def test_improper_solution_has_no_standardized_value_and_no_warning() -> None:
    frame = improper_frame()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.ImproperSolutionWarning)
        fitted = msem.sem("f =~ a + b + c", frame)
    assert fitted.params["a~~a"] < 0
    r2 = fitted.rsquare().set_index("lhs")
    assert r2.loc["a", ["r2", "se", "ci_lower"]].isna().all()
    assert r2.loc["b", ["r2", "se", "ci_lower"]].notna().all()


def improper_frame() -> pd.DataFrame:
    """Sample covariances of one factor with a negative residual variance of a."""
    cov = np.array([[1.0, 0.7, 0.8], [0.7, 1.0, 0.4], [0.8, 0.4, 1.0]])
    z = np.random.default_rng(3).normal(size=(200, 3))
    z = np.linalg.solve(np.linalg.cholesky(np.cov(z.T)), (z - z.mean(axis=0)).T).T
    return pd.DataFrame(z @ np.linalg.cholesky(cov).T, columns=["a", "b", "c"])


def test_parameters_at_bounds_count_as_fixed() -> None:
    text = "level: 1\n  y1 ~ x1\nlevel: 2\n  y1 ~ w1\n  y1 ~~ v*y1\n  v > 3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.MsemWarning)
        bound = msem.sem(text, msem.load_demo(), cluster="cluster")
        fixed = msem.sem(text.replace("v > 3", "").replace("v*", "3*"), msem.load_demo(), cluster="cluster")
    assert bound.status == "boundary"
    np.testing.assert_allclose(bound.standardized()["se"], fixed.standardized()["se"], rtol=1e-4, atol=1e-9)


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="kind must be one of 'std_all'"):
        fit().standardized("all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="between 0 and 1"):
        fit().standardized(ci_level=95)


def test_segregated_fit_has_the_standardized_solution_of_a_fit_with_the_other_level_saturated() -> None:
    frame = msem.load_demo().groupby("cluster").head(5)  # balanced: both likelihoods are then the same
    within, between = "level: 1\n  fw =~ y1 + y2 + y3 + y4", "\nlevel: 2\n  fb =~ y1 + y2 + y3 + y4"
    apart = msem.segregated(within + between, frame, cluster="cluster")
    pairs = "y1 ~~ y2 + y3 + y4\n  y2 ~~ y3 + y4\n  y3 ~~ y4"
    for own, text in (
        (apart.within, within + "\nlevel: 2\n  " + pairs),
        (apart.between, "level: 1\n  " + pairs + between),
    ):
        table = msem.sem(text, frame, cluster="cluster", information="expected").standardized()
        wanted = table[table["level"] == own.level].reset_index(drop=True)
        ours = own.standardized()
        np.testing.assert_allclose(ours["est_std"], wanted["est_std"], rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(ours["se"], wanted["se"], rtol=1e-4, atol=1e-8)
    both = apart.standardized("std_lv")
    assert both["level"].tolist() == [row.level for row in apart.table.rows]
    r2 = apart.rsquare().set_index(["lhs", "level"])["r2"]
    assert r2["y1", 2] == pytest.approx(
        apart.between.standardized().query("lhs == 'fb' and rhs == 'y1'")["est_std"].iloc[0] ** 2
    )
    with pytest.raises(ValueError, match="kind must be one of"):
        apart.standardized("all")  # type: ignore[arg-type]
