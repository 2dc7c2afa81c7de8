"""Profile likelihoods against formulas and against fits with the parameter fixed."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import ConvergenceWarning, ImproperSolutionWarning, ModelError, UnsupportedError
from msem.model.partable import find_parameter
from msem.resampling.named import read_named
from msem.resampling.profile import profile_curves

MODEL = """
level: 1
  fw =~ y1 + {within}y2 + y3
  fw ~ x1
level: 2
  fb =~ y1 + {between}y2 + y3
  fb ~ {slope}w1
  y1 ~~ {variance}y1
"""
FREE = dict.fromkeys(("within", "between", "slope", "variance"), "")


@cache
def fitted(**text: str) -> msem.Fit:
    return msem.sem(MODEL.format(**FREE | text), msem.load_demo(), cluster="cluster")


@pytest.mark.parametrize(
    ("name", "key"),
    [("fw =~ y2", "within"), ("fb =~ y2", "between"), ("fb ~ w1", "slope"), ("y1~~y1.l2", "variance")],
)
@pytest.mark.parametrize("level", [0.95, 0.6])
def test_at_a_limit_the_likelihood_has_fallen_by_half_the_quantile(name: str, key: str, level: float) -> None:
    fit = fitted()
    limits = fit.profile(name, ci_level=level).conf_int().iloc[0]
    for limit in (limits["ci_lower"], limits["ci_upper"]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImproperSolutionWarning)  # of the lower limit of a variance
            held = fitted(**{key: f"{limit:.17g}*"})
        assert 2 * (fit.llf - held.llf) == pytest.approx(stats.chi2.ppf(level, 1), abs=1e-5)
    assert limits[["lower_end", "upper_end"]].tolist() == ["", ""]


def test_curve_is_twice_the_loss_of_likelihood() -> None:
    fit = fitted()
    curve = fit.profile("fb =~ y2", points=5).frame
    assert list(curve.columns) == ["name", "value", "deviance", "root"]
    for _, row in curve.iterrows():
        held = fitted(between=f"{row['value']:.17g}*")
        assert row["deviance"] == pytest.approx(2 * (fit.llf - held.llf), abs=1e-6)
        assert row["root"] ** 2 == pytest.approx(row["deviance"])
    assert curve["root"].is_monotonic_increasing


def test_mean_and_variance_of_one_variable_are_those_of_the_formulas() -> None:
    y = np.random.default_rng(2).normal(3, 2, size=17)
    fit = msem.sem("y ~ 1", pd.DataFrame({"y": y}))
    found = fit.profile().conf_int()
    n, q, v = len(y), stats.chi2.ppf(0.95, 1), y.var()
    half = math.sqrt(v * (math.exp(q / n) - 1))
    assert_allclose(found.loc["y~1", ["ci_lower", "ci_upper"]].to_list(), [y.mean() - half, y.mean() + half])
    for limit in found.loc["y~~y", ["ci_lower", "ci_upper"]]:
        assert n * (math.log(limit / v) + v / limit - 1) == pytest.approx(q, rel=1e-6)


def test_limits_follow_the_units_of_the_variables() -> None:
    data = msem.load_demo()
    text = MODEL.format(**FREE)
    other = msem.sem(text, data.assign(y2=1000 * data["y2"] + 500), cluster="cluster")
    for name, factor in (("fb =~ y2", 1e3), ("y2~~y2.l2", 1e6), ("fb ~ w1", 1.0)):
        one, two = (f.profile(name).conf_int().iloc[0, :2].to_numpy(dtype=float) for f in (fitted(), other))
        assert_allclose(two, factor * one, rtol=1e-5)


def test_all_parameters_by_default_with_level_and_group() -> None:
    fit = fitted()
    frame = fit.profile(points=2).to_frame()
    assert frame["name"].tolist() == list(fit.params.index)
    assert (frame["level"] == [2 if name.endswith(".l2") else 1 for name in frame["name"]]).all()
    assert (frame["group"] == 1).all()
    assert ((frame["ci_lower"] < frame["est"]) & (frame["est"] < frame["ci_upper"])).all()
    # normal data, 200 clusters: not far from Wald intervals
    assert_allclose(frame["ci_upper"] - frame["ci_lower"], np.diff(fit.conf_int())[:, 0], rtol=0.06)


def test_a_bound_ends_an_interval() -> None:
    limits = fitted(variance="lower(0)*").profile("y1~~y1.l2").conf_int().iloc[0]
    assert (limits["ci_lower"], limits["lower_end"], limits["upper_end"]) == (0.0, "bound", "")
    free = fitted().profile("y1~~y1.l2").conf_int().iloc[0]
    assert free["ci_lower"] < 0
    assert limits["ci_upper"] == pytest.approx(free["ci_upper"], rel=1e-6)


def test_an_estimate_on_its_bound_has_an_interval_to_one_side() -> None:
    with pytest.warns(ImproperSolutionWarning, match="bounds"):
        fit = fitted(variance="lower(0.2)*")
    limits = fit.profile("y1~~y1.l2").conf_int().iloc[0]
    assert (limits["ci_lower"], limits["lower_end"]) == (0.2, "bound")
    held = fitted(variance=f"{limits['ci_upper']:.17g}*")
    assert 2 * (fit.llf - held.llf) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_a_flat_likelihood_has_an_infinite_limit() -> None:
    # the marker may have nothing to do with the factor: then the other loadings, in its unit, have no end
    rng = np.random.default_rng(4)
    data = pd.DataFrame(rng.normal(size=(80, 4)), columns=["a", "b", "c", "d"])
    data[["b", "c", "d"]] += rng.normal(size=(80, 1))
    data["a"] += 0.15 * data["b"]
    fit = msem.sem("f =~ a + b + c + d", data)
    limits = fit.profile("f =~ b").conf_int().iloc[0]
    assert (limits["ci_upper"], limits["upper_end"]) == (math.inf, "flat")


MEDIATION = """
level: 1
  y2 ~ a1*y1
  y3 ~ b1*y2 + y1
level: 2
  y2 ~ a*y1
  y3 ~ b*y2 + y1
indirect := a*b
{constraint}
"""


@cache
def mediated(constraint: str = "") -> msem.Fit:
    return msem.sem(MEDIATION.format(constraint=constraint), msem.load_demo(), cluster="cluster")


@pytest.mark.parametrize("name", ["indirect", "a*b", "a - a1", "`y2~~y2.l2` / `y3~~y3.l2`"])
def test_functions_of_parameters_are_profiled(name: str) -> None:
    fit = mediated()
    text = name.replace("`", "")
    frame = fit.profile(name, points=3).to_frame().iloc[0]
    assert (frame["name"], frame["level"], frame["group"]) == (name, 0, 0)
    if "~" in text:
        return
    for limit in (frame["ci_lower"], frame["ci_upper"]):
        held = mediated(f"{name} == {limit:.17g}")
        assert 2 * (fit.llf - held.llf) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_definitions_are_profiled_and_bootstrapped_by_default() -> None:
    fit = mediated()
    assert fit.profile(points=2).to_frame()["name"].tolist() == [*fit.params.index, "indirect"]
    boot = fit.bootstrap(30, seed=1)
    values = boot.estimates
    assert_allclose(values["indirect"], values["a"] * values["b"])
    assert boot.point[-1] == pytest.approx(fit.params["a"] * fit.params["b"])


def test_functions_of_parameters_are_resampled() -> None:
    fit = mediated()
    whole = fit.bootstrap(50, seed=1).estimates
    boot = fit.bootstrap(50, seed=1, statistic=["exp(a)", "b1", "`y2~~y2.l2`*2"])
    assert boot.names == ("exp(a)", "b1", "`y2~~y2.l2`*2")
    expected = np.column_stack([np.exp(whole["a"]), whole["b1"], 2 * whole["y2~~y2.l2"]])
    assert_allclose(boot.array, expected)
    assert boot.to_frame()["level"].tolist() == [0, 1, 0]
    jack = fit.jackknife(statistic="a*b")
    pair = fit.jackknife(statistic=["a", "b"]).array
    assert_allclose(jack.array[:, 0], pair.prod(axis=1))


def test_profiles_keep_to_constraints() -> None:
    fit = mediated("a == a1")
    limits = fit.profile("b").conf_int().iloc[0]
    for limit in limits[["ci_lower", "ci_upper"]]:
        held = mediated(f"a == a1; b == {limit:.17g}")
        assert 2 * (fit.llf - held.llf) == pytest.approx(stats.chi2.ppf(0.95, 1), abs=1e-5)


def test_names_that_mean_nothing_are_refused() -> None:
    fit = mediated()
    for name, message in (("a*c", "no parameter is labelled 'c'"), ("2 + 3", "does not depend")):
        with pytest.raises(ModelError, match=message):
            fit.profile(name)
        with pytest.raises(ModelError, match=message):
            fit.bootstrap(3, statistic=name)
    with pytest.raises(TypeError, match="names are texts"):
        fit.profile([3])


def test_a_higher_likelihood_elsewhere_is_told() -> None:
    found = fitted().estimate
    worse = replace(found, optimum=replace(found.optimum, value=found.optimum.value + 1))
    with pytest.warns(ConvergenceWarning, match=r"higher by 0\.[45]"):
        profile_curves(worse, [read_named(found.table, "fb =~ y2")], 0.95, 3)


def test_names_are_looked_up() -> None:
    table = msem.sem(
        "level: 1\n y1 ~ a*x1\n y2 ~~ y1\nlevel: 2\n y1 ~ a*w1\n y2 ~~ y1",
        msem.load_demo(),
        cluster="cluster",
    ).table
    names = table.names()
    assert names[find_parameter(table, "a")] == "a"
    assert names[find_parameter(table, "y1 ~ w1")] == "a"
    assert names[find_parameter(table, "y2~~y1.l2")] == "y2~~y1.l2"
    assert names[find_parameter(table, "y1 ~~ y2", level=2)] == "y2~~y1.l2"
    assert names[find_parameter(table, "y2~~y1")] == "y2~~y1"
    assert names[find_parameter(table, "y1 ~ 1")] == "y1~1.l2"
    with pytest.raises(ModelError, match=r"may be any of y2~~y1, y2~~y1\.l2"):
        find_parameter(table, "y2 ~~ y1")
    with pytest.raises(ModelError, match="no parameter 'y3 ~~ y1'"):
        find_parameter(table, "y3 ~~ y1")


def test_fixed_parameters_have_no_profile() -> None:
    with pytest.raises(ModelError, match="fixed at 1"):
        fitted().profile("fb =~ y1")


def quarters(data: pd.DataFrame) -> pd.DataFrame:
    """The outcomes in four categories."""
    cuts = {
        name: np.digitize(data[name], data[name].quantile([0.2, 0.5, 0.8])) for name in ("y1", "y2", "y3")
    }
    return data.assign(**cuts)


ITEMS = ["y1", "y2", "y3"]
SQUARES = {
    "WLSMV": {"estimator": "WLSMV", "cluster": "cluster"},
    "ULS": {"estimator": "ULS", "cluster": "cluster"},
    "WLS": {"estimator": "WLS", "cluster": "cluster"},
    "ordered": {"ordered": ITEMS, "cluster": "cluster"},
}


@cache
def squares(kind: str, **text: str) -> msem.Fit:
    data = msem.load_demo()
    return msem.sem(
        MODEL.format(**FREE | text), quarters(data) if kind == "ordered" else data, **SQUARES[kind]
    )


def scaled_loss(fit: msem.Fit, held: msem.Fit, gradient: np.ndarray) -> float:
    """What a value that is held adds to the squares, in units of the estimate's variance."""
    naive = gradient @ np.linalg.solve(fit.objective.expected_information(fit.theta), gradient)
    loss = held.estimate.optimum.value - fit.estimate.optimum.value
    return float(loss * naive / (gradient @ fit.vcov @ gradient))


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("kind", SQUARES)
@pytest.mark.parametrize(("name", "key"), [("fb =~ y2", "between"), ("fb ~ w1", "slope")])
def test_at_a_limit_of_least_squares_the_scaled_difference_is_the_quantile(
    kind: str, name: str, key: str
) -> None:
    fit = squares(kind)
    limits = fit.profile(name, ci_level=0.9).conf_int()
    gradient = (fit.params.index == limits.index[0]).astype(float)
    quantile = stats.chi2.ppf(0.9, 1)
    for limit in limits.iloc[0][["ci_lower", "ci_upper"]]:
        held = squares(kind, **{key: f"{limit:.17g}*"})
        assert scaled_loss(fit, held, gradient) == pytest.approx(quantile, rel=1e-4)
        # that has the weight of the restriction at the end of the interval, not at the estimate
        if kind != "ULS":
            assert msem.compare_models(fit, held).iloc[1]["chisq_diff"] == pytest.approx(quantile, rel=0.2)
    assert limits.iloc[0][["lower_end", "upper_end"]].tolist() == ["", ""]


@pytest.mark.parametrize("cluster", [None, "cluster"])
def test_profiles_of_averages_are_wald_intervals(cluster: str | None) -> None:
    """Means without a restriction are the statistics themselves, and the squares a parabola of each."""
    data = msem.load_demo()
    fit = msem.sem("y1 ~~ y2\ny1 ~ 1\ny2 ~ 1", data, estimator="WLSMV", cluster=cluster)
    curves = fit.profile(["y1 ~ 1", "y1 ~~ y2"], points=5)
    found = curves.conf_int()[["ci_lower", "ci_upper"]].astype(float)
    assert_allclose(found, fit.conf_int().loc[found.index], rtol=1e-6)
    line = curves.frame
    slopes = (line["value"] - line["name"].map(fit.params)) / line["name"].map(fit.bse)
    assert_allclose(line["root"], slopes, atol=1e-6)
    assert str(curves).startswith("Profile of the squares, level 0.95")


def test_functions_and_bounds_under_least_squares() -> None:
    fit = msem.sem(MEDIATION.format(constraint=""), msem.load_demo(), cluster="cluster", estimator="ULSMV")
    limits = fit.profile("a*b", points=3).conf_int().iloc[0]
    a, b = fit.params["a"], fit.params["b"]
    gradient = b * (fit.params.index == "a") + a * (fit.params.index == "b")
    for limit in limits[["ci_lower", "ci_upper"]]:
        text = MEDIATION.format(constraint=f"a*b == {limit:.17g}")
        held = msem.sem(text, msem.load_demo(), cluster="cluster", estimator="ULSMV")
        assert scaled_loss(fit, held, gradient) == pytest.approx(stats.chi2.ppf(0.95, 1), rel=1e-3)
    with pytest.warns(ImproperSolutionWarning, match="bounds"):
        bound = squares("WLSMV", variance="lower(0.2)*")
    limits = bound.profile("y1~~y1.l2").conf_int().iloc[0]
    assert (limits["ci_lower"], limits["lower_end"], limits["upper_end"]) == (0.2, "bound", "")
    assert limits["ci_upper"] > 0.2


def test_lower_squares_elsewhere_are_told() -> None:
    fit = squares("ULS")
    worse = replace(fit.estimate, optimum=replace(fit.estimate.optimum, value=fit.estimate.optimum.value + 1))
    with pytest.warns(ConvergenceWarning, match="squares lower by"):
        profile_curves(worse, [read_named(fit.table, "fb =~ y2")], 0.95, 3, fit.discrepancy)


def test_what_cannot_be_profiled_is_refused() -> None:
    data = msem.load_demo()
    weighted = data.assign(w=1.0 + data["cluster"] % 2)
    with pytest.raises(UnsupportedError, match="take the sample for a simple one"):
        msem.sem("f =~ y1 + y2 + y3", weighted, estimator="ULSMV", weights="w").profile()
    with pytest.raises(UnsupportedError, match="too short"):
        msem.sem("f =~ y1 + y2 + y3", data, cluster="cluster").profile()
    with pytest.warns(ConvergenceWarning):
        fit = msem.sem(MODEL.format(**FREE), data, cluster="cluster", max_iterations=1)
    with pytest.raises(ModelError, match="not converged"):
        fit.profile()
    with pytest.raises(ValueError, match="points"):
        fitted().profile(points=1)
    with pytest.raises(ValueError, match="between 0 and 1"):
        fitted().profile(ci_level=95)
