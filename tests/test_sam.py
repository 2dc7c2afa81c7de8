"""Structural-after-measurement: against lavaan, a closed form, and refits to moments and samples that differ."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import pytest

import msem
import reference
from msem.errors import ModelError, UnsupportedError

VARIABLES = [f"y{k}" for k in range(1, 7)]
TWO = """
level: 1
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f2 ~ f1
level: 2
  g1 =~ y1 + y2 + y3
  g2 =~ y4 + y5 + y6
  g2 ~ g1
"""
COVARIATES = """
level: 1
  f1 =~ y1 + y2 + y3
  f2 =~ y4 + y5 + y6
  f1 ~ x1
  f2 ~ b*f1 + x1 + x2
  x3 ~ f2
level: 2
  g =~ y1 + y2 + y3 + y4
  y5 ~~ y6
  g ~ w1
  w2 ~ g
  ab := b^2
"""
# restrictions in the measurement part (equal loadings over levels) and in the structural part
RESTRICTED = """
level: 1
  f1 =~ y1 + a*y2 + y3 + l*y4
  f2 =~ y4 + y5 + y6
  f2 ~~ f1
level: 2
  g1 =~ y1 + a*y2 + y3
  g2 =~ y4 + y5 + y6
  y5 ~~ y6
  g1 ~~ 0*g2
"""


@functools.cache
def demo():
    return msem.load_demo()


@functools.cache
def fit(model, method="local", **options):
    return msem.sam(model, demo(), cluster="cluster", method=method, **options)


@reference.needs_reference
@pytest.mark.parametrize("method", ["local", "global"])
def test_lavaan(method):
    case = "sam2l_demo"
    theirs = reference.expected(case)
    rows = theirs["parameter_table" if method == "local" else "global_parameter_table"]
    wanted = {(r["lhs"], r["op"], r["rhs"], r["level"]): (r["est"], r["se"]) for r in rows}
    found = msem.sam(reference.model(case), reference.data(case), cluster="cluster", method=method)
    table = found.estimates()
    for row in table.itertuples():
        est, se = wanted[row.lhs, row.op, row.rhs, row.level]
        if row.op == "~1":  # lavaan's are of the blocks by themselves, ours of all variables
            assert row.est == pytest.approx(est, abs=0.05 * max(row.se, 1e-9))
        else:
            assert row.est == pytest.approx(est, abs=1e-4)
        if row.op == "~":  # lavaan's are of normal variables
            assert row.se == pytest.approx(se, rel=0.03)
    blocks = theirs["sam_step1"]["sam.mm.table"]
    assert found.measurement()["df"].tolist() == [one["Df"] for one in blocks]


def test_local_is_the_closed_form():
    """Rosseel and Loh's formulas by hand: two correlated factors of three indicators."""
    found = fit(TWO)
    for level, factors in ((1, ("f1", "f2")), (2, ("g1", "g2"))):
        sigma = (found.saturated.within if level == 1 else found.saturated.between).cov.loc[
            VARIABLES, VARIABLES
        ]
        loadings = found.loadings(level, std=False).loc[VARIABLES, list(factors)].to_numpy()
        est = found.estimates(level=level)
        residual = est[(est["op"] == "~~") & (est["lhs"] == est["rhs"])].set_index("lhs")["est"]
        theta = np.diag(residual[VARIABLES])
        inverse = np.linalg.inv(theta)
        mapping = np.linalg.solve(loadings.T @ inverse @ loadings, loadings.T @ inverse)
        cov = mapping @ (sigma.to_numpy() - theta) @ mapping.T
        assert found.latent_cov(level).loc[list(factors), list(factors)].to_numpy() == pytest.approx(
            cov, abs=1e-10
        )
        slope = est[est["op"] == "~"]["est"].iloc[0]
        assert slope == pytest.approx(cov[0, 1] / cov[0, 0], abs=1e-8)


@pytest.mark.parametrize("method", ["local", "global"])
def test_errors_are_close_to_the_jackknife(method):
    found, data = fit(COVARIATES, method), demo()
    names = ["b", "f1~x1", "f2~x2", "x3~f2", "g~w1.l2", "w2~g.l2", "f1=~y2", "y1~1.l2"]
    ids = data["cluster"].unique()
    values = []
    for first in range(0, len(ids), 8):
        left = data[~data["cluster"].isin(ids[first : first + 8])]
        again = msem.sam(COVARIATES, left, cluster="cluster", method=method, se="none")
        values.append(again.params[names].to_numpy(dtype=float))
    spread = np.array(values) - np.mean(values, axis=0)
    count = len(values)
    jackknife = np.sqrt((count - 1) / count * np.sum(spread**2, axis=0))
    ours = found.bse[names].to_numpy(dtype=float)
    # twenty-five groups of clusters leave the jackknife with a standard error of a seventh
    assert ours == pytest.approx(jackknife, rel=0.42)
    assert np.mean(ours / jackknife) == pytest.approx(1, abs=0.12)


@pytest.mark.parametrize(("model", "method"), [(RESTRICTED, "local"), (TWO, "global")])
def test_errors_from_matrices_are_the_derivatives_of_refits(model, method):
    """D Gamma D' with D by differences of whole analyses of moments that differ a little."""
    moments = fit(TWO).saturated.restrict(VARIABLES, VARIABLES)
    balanced = msem.LevelMoments(
        moments.within.cov, moments.between.cov, moments.between.mean, nobs=2400, nclusters=200
    )
    found = msem.sam(model, balanced, method=method)
    gamma = balanced.gamma("expected")

    def again(name, step):
        within, between = balanced.within.cov.copy(), balanced.between.cov.copy()
        mean = balanced.between.mean.copy()
        left, _, right = name.removesuffix(".l2").partition("~~")
        if right:
            matrix = between if name.endswith(".l2") else within
            matrix.loc[left, right] += step
            if left != right:
                matrix.loc[right, left] += step
        else:
            mean[left.partition("~1")[0]] += step
        moved = msem.LevelMoments(within, between, mean, nobs=2400, nclusters=200)
        return msem.sam(model, moved, method=method, se="none").params.to_numpy(dtype=float)

    start = again("y1~1", 0.0)
    d = np.array([(again(name, 3e-6) - start) / 3e-6 for name in gamma.index]).T
    by_differences = d @ gamma.to_numpy() @ d.T
    scale = np.sqrt(np.outer(by_differences.diagonal(), by_differences.diagonal()))
    assert found.cov_params().to_numpy() / scale == pytest.approx(by_differences / scale, abs=2e-4)


def test_matrices_and_rows_agree():
    rows = fit(TWO, se="standard")
    matrices = msem.sam(TWO, rows.saturated)
    free = ["f2~f1", "g2~g1.l2", "f1=~y2", "f2~~f2"]
    assert matrices.params[free].to_numpy(dtype=float) == pytest.approx(
        rows.params[free].to_numpy(dtype=float), abs=2e-3
    )
    assert matrices.bse[free].to_numpy(dtype=float) == pytest.approx(
        rows.bse[free].to_numpy(dtype=float), rel=0.02
    )
    with pytest.raises(ModelError, match="needs rows"):
        msem.sam(TWO, rows.saturated, se="robust")


@pytest.mark.parametrize("method", ["local", "global"])
def test_covariates_and_observed_outcomes(method):
    found = fit(COVARIATES, method)
    whole = msem.sem(COVARIATES, demo(), cluster="cluster")
    names = ["b", "f1~x1", "f2~x1", "f2~x2", "x3~f2", "g~w1.l2", "w2~g.l2"]
    ours, theirs = found.params[names].to_numpy(float), whole.params[names].to_numpy(float)
    assert np.abs(ours - theirs).max() < 1.5 * whole.bse[names].max()
    assert found.bse[names].to_numpy(float) == pytest.approx(whole.bse[names].to_numpy(float), rel=0.35)
    implied = found.implied
    for mean, observed in ((implied.between.mean, found.saturated.between.mean),):
        both = [name for name in observed.index if name.startswith("y")]
        if method == "local":
            total = mean[both] + implied.within.mean.reindex(both).fillna(0)
            target = observed[both] + found.saturated.within.mean.reindex(both).fillna(0)
            assert total.to_numpy() == pytest.approx(target.to_numpy(), abs=1e-8)
    assert found.defined()["se"].iloc[0] == pytest.approx(2 * found.params["b"] * found.bse["b"], rel=1e-8)


def test_tests_of_both_parts():
    found = fit(RESTRICTED)
    blocks = found.measurement()
    assert blocks["factors"].tolist() == ["f1, f2, g1, g2"]
    alone = msem.sem(RESTRICTED.replace("g1 ~~ 0*g2", "g1 ~~ g2"), demo(), cluster="cluster")
    assert blocks["chisq"].iloc[0] == pytest.approx(alone.chisq, abs=1e-4)
    assert blocks["df"].iloc[0] == alone.df
    tests = found.tests()
    assert tests["df"].iloc[-1] == 1
    free = fit(RESTRICTED.replace("g1 ~~ 0*g2", "g1 ~~ g2"))
    z = free.params["g1~~g2.l2"] / free.bse["g1~~g2.l2"]
    assert tests.loc["residual", "statistic"] == pytest.approx(z**2, rel=0.02)


def test_one_level():
    model = "f1 =~ y1 + y2 + y3\nf2 =~ y4 + y5 + y6\nf2 ~ f1 + x1\nf1 ~ x1"
    found = msem.sam(model, demo())
    whole = msem.sem(model, demo(), estimator="MLR")
    assert found.params["f2~f1"] == pytest.approx(whole.params["f2~f1"], abs=whole.bse["f2~f1"])
    assert found.bse["f2~f1"] == pytest.approx(whole.bse["f2~f1"], rel=0.1)
    by_cluster = msem.sam(model, demo(), cluster="cluster")
    assert by_cluster.bse["f2~x1"] > 0
    assert by_cluster.params["f2~f1"] == pytest.approx(found.params["f2~f1"], abs=1e-10)
    names = [*VARIABLES, "x1"]
    matrix = msem.sam(model, sample_cov=demo()[names].cov(), sample_nobs=len(demo()))
    assert matrix.params["f2~f1"] == pytest.approx(found.params["f2~f1"], abs=1e-8)
    assert matrix.bse["f2~f1"] == pytest.approx(found.bse["f2~f1"], rel=0.1)


def test_factors_of_one_level_only():
    """Indicators within clusters only, and between clusters only, have blocks of their own."""
    data = demo().copy()
    rng = np.random.default_rng(5)
    latent = rng.normal(size=200)
    for k in (1, 2, 3):
        data[f"z{k}"] = (latent + rng.normal(size=200))[data["cluster"].to_numpy() - 1]
    deviations = data[VARIABLES[:3]] - data.groupby("cluster")[VARIABLES[:3]].transform("mean")
    trait = 0.3 * deviations.sum(axis=1) + rng.normal(size=len(data))
    for k in (1, 2, 3):
        data[f"x{k}"] = trait + rng.normal(size=len(data))
    model = """
    level: 1
      f =~ y1 + y2 + y3
      h =~ x1 + x2 + x3
      f ~ h
    level: 2
      k =~ z1 + z2 + z3
      y1 + y2 + y3 ~ k
    """
    found = msem.sam(model, data, cluster="cluster")
    assert found.measurement()["factors"].tolist() == ["f", "h", "k"]
    assert np.isfinite(found.standard_errors).all()
    whole = msem.sem(model, data, cluster="cluster")
    names = ["f~h", "y1~k.l2", "k=~z2.l2"]
    assert found.params[names].to_numpy(float) == pytest.approx(
        whole.params[names].to_numpy(float), abs=float(whole.bse[names].max())
    )
    assert found.bse[names].to_numpy(float) == pytest.approx(whole.bse[names].to_numpy(float), rel=0.3)


def test_groups_missing_values_and_weights():
    data = demo().copy()
    data["half"] = np.where(data["cluster"] % 2 == 0, "even", "odd")
    both = msem.sam(TWO, data, cluster="cluster", group="half")
    alone = msem.sam(TWO, data[data["half"] == "even"], cluster="cluster")
    label = both.group_labels.index("even") + 1
    suffix = "" if label == 1 else f".g{label}"
    for name in ("f2~f1", "g2~g1"):
        ours = f"{name}{suffix}" if name == "f2~f1" else f"{name}{suffix}.l2"
        theirs = name if name == "f2~f1" else f"{name}.l2"
        assert both.params[ours] == pytest.approx(alone.params[theirs], abs=1e-5)
        assert both.bse[ours] == pytest.approx(alone.bse[theirs], rel=1e-3)
    equal = msem.sam(TWO, data, cluster="cluster", group="half", group_equal="loadings")
    assert equal.npar == both.npar - 8
    assert np.isfinite(equal.standard_errors).all()
    rng = np.random.default_rng(3)
    data[VARIABLES] = data[VARIABLES].mask(rng.random((len(data), 6)) < 0.05)
    holes = msem.sam(TWO, data, cluster="cluster", missing="fiml")
    assert holes.params["f2~f1"] == pytest.approx(fit(TWO).params["f2~f1"], abs=0.05)
    assert holes.bse["f2~f1"] > 0.9 * fit(TWO).bse["f2~f1"]
    data = demo().copy()
    data["w"] = 1.0
    weighted = msem.sam(TWO, data, cluster="cluster", cluster_weights="w")
    assert weighted.bse["f2~f1"] == pytest.approx(fit(TWO).bse["f2~f1"], rel=1e-6)


def test_small_residuals_are_not_weights():
    data = demo()
    few = data[data["cluster"] <= 30]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = msem.sam(TWO, few, cluster="cluster")
    assert any("mapped without weights" in str(one.message) for one in said)
    assert any("residual variances close to or below 0" in p.cause for p in found.problems)
    level = found.latent_cov(2)
    loadings = found.loadings(2, std=False).loc[VARIABLES].to_numpy()
    unweighted = next(one.unweighted for one in found.steps.structure.levels if one.level == 2)
    assert unweighted
    mapping = np.linalg.solve(loadings.T @ loadings, loadings.T)
    sigma = found.saturated.between.cov.loc[VARIABLES, VARIABLES].to_numpy()
    est = found.estimates(level=2)
    theta = np.diag(est[(est["op"] == "~~") & (est["lhs"] == est["rhs"])].set_index("lhs")["est"][VARIABLES])
    k = list(level.index).index(unweighted[0])
    assert level.iloc[k, k] == pytest.approx((mapping @ (sigma - theta) @ mapping.T)[k, k], abs=1e-10)


def test_indefinite_latent_matrices_take_least_squares():
    moments = fit(TWO).saturated.restrict(VARIABLES, VARIABLES)
    between, loadings = moments.between.cov.copy(), fit(TWO).loadings(2, std=False)
    cross = 1.05 * np.sqrt(np.prod(fit(TWO).latent_cov(2).to_numpy().diagonal()))
    block = cross * np.outer(loadings.loc[VARIABLES[:3], "g1"], loadings.loc[VARIABLES[3:], "g2"])
    between.loc[VARIABLES[:3], VARIABLES[3:]] = block
    between.loc[VARIABLES[3:], VARIABLES[:3]] = block.T
    odd = msem.LevelMoments(moments.within.cov, between, moments.between.mean, nobs=800, nclusters=200)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = msem.sam(TWO, odd)
    assert any("fitted by least squares" in str(one.message) for one in said)
    cov = found.latent_cov(2)
    assert np.linalg.eigvalsh(cov).min() < 0
    assert found.params["g2~g1.l2"] == pytest.approx(cov.loc["g1", "g2"] / cov.loc["g1", "g1"], abs=1e-6)
    # one equation, one unknown: its derivative by hand, and what the errors are made of
    structure = found.steps.structure
    assert not structure.normal
    at = structure.own.tolist().index(found.table.names().index("g2~g1.l2"))
    lower = structure.by_moments[1][at]
    assert lower == pytest.approx(
        [-cov.loc["g1", "g2"] / cov.loc["g1", "g1"] ** 2, 1 / cov.loc["g1", "g1"], 0.0], abs=1e-6
    )
    assert np.isfinite(found.bse["g2~g1.l2"])


def test_what_can_be_asked(tmp_path):
    found = fit(COVARIATES)
    text = found.summary(standardized=True, rsquare=True, ci=True)
    assert "Structural after measurement" in text
    assert "Influence functions" in text
    assert "Model Test, Measurement Blocks" in text
    assert "<table" in found.to_html()
    assert found.standardized()["se"].notna().any()
    assert len(found.effects())
    assert len(found.reliability())
    assert len(found.wald_test("b == 0"))
    assert np.isnan(found.llf)
    assert repr(found) == "<msem.StepwiseFit: local, 1 measurement block, status 'ok'>"
    assert found.diagram() is not None
    assert isinstance(found.rsquare(), pd.DataFrame)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("h =~ f1 + f2\nf1 =~ y1 + y2\nf2 =~ y3 + y4", UnsupportedError, "factors of factors"),
        (
            "f =~ y1 + y2 + y3\ny1 ~ x1\nf ~ x1",
            ModelError,
            "'y1 ~ x1' ties an indicator to the structural part",
        ),
        ("f =~ y1 + y2 + y3\ny1 ~~ x1\nx1 ~~ x1", ModelError, "ties an indicator"),
        ("f =~ NA*y1 + y2 + y3\nf ~~ 1*f", ModelError, "'f' has no loading that is fixed"),
        ("f =~ y1 + y2 + y3\nf ~ NA*1\ny1 ~ 0*1", UnsupportedError, "means of latent variables"),
        ("f =~ y1 + a*y2 + y3\nf ~ a*x1", ModelError, "share the parameter 'a'"),
        ("f =~ y1 + a*y2 + b*y3\na == b", UnsupportedError, "labels of the structural part only"),
        ("f =~ y1 + y2 + y3\ny1 ~ 0*1", ModelError, "this model restricts them"),
    ],
)
def test_what_cannot_be_taken_apart_is_named(text, error, message):
    with pytest.raises(error, match=message):
        msem.sam(text, demo())


def test_constraints_of_the_structural_part():
    model = "f1 =~ y1 + y2 + y3\nf2 =~ y4 + y5 + y6\nf2 ~ a*f1 + b*x1\nf1 ~ x1\na == b"
    found = msem.sam(model, demo())
    assert found.params["a"] == pytest.approx(found.params["b"], abs=1e-9)
    assert found.bse["a"] == pytest.approx(found.bse["b"], rel=1e-8)
    assert found.tests()["df"].iloc[-1] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"std_lv": True}, "std_lv=True gives latent variables their scale"),
        ({"estimator": "WLS"}, "by maximum likelihood"),
        ({"test": "mlr"}, "test= has no effect"),
        ({"information": "expected"}, "information= has no effect"),
        ({"se": "bootstrap"}, 'se="bootstrap" is not available'),
        ({"method": "both"}, "method must be one of"),
        ({"nothing": 1}, "sam\\(\\) has no option 'nothing'"),
    ],
)
def test_options_without_a_meaning_are_refused(options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        msem.sam(TWO, demo(), cluster="cluster", **options)


@pytest.mark.parametrize("method", ["local", "global"])
@pytest.mark.parametrize("se", ["robust", "standard"])
@pytest.mark.parametrize("columns", [("y1",), ("y2",), ("y1", "y2", "y3"), ("y4", "y5", "y6"), ("x1",)])
def test_errors_do_not_depend_on_units(method, se, columns):
    """Variances of 1e-12 among others of 1."""
    text = "f1 =~ y1 + y2 + y3\nf2 =~ y4 + y5 + y6\nf2 ~ f1 + x1"
    data = msem.load_demo()
    found = [
        msem.sam(
            text, data.assign(**{name: data[name] * unit for name in columns}), method=method, se=se
        ).estimates()
        for unit in (1.0, 1e-6)
    ]
    np.testing.assert_allclose(found[1]["z"], found[0]["z"], rtol=1e-4)


def test_what_two_step_fits_do_not_have_is_said():
    fit = msem.sam("f =~ y1 + y2 + y3\nf ~ x1", msem.load_demo())
    with pytest.raises(AttributeError, match=r"has no 'fit_measures', which fits of msem\.sem have"):
        fit.fit_measures()
    with pytest.raises(UnsupportedError, match=r"ordered= is not available in msem\.sam"):
        msem.sam("f =~ y1 + y2 + y3\nf ~ x1", msem.load_demo(), ordered=["y1"])
