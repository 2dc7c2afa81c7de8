"""Least squares on saturated moments against what NumPy makes of the same rows, and lavaan's figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import reference
from msem.data.arrays import vech
from msem.errors import DataError, UnsupportedError
from test_moments_of_levels import simulated

DEMO = msem.load_demo()
Y = ["y1", "y2", "y3", "y4"]
MODEL = "f =~ y1 + y2 + y3 + y4"
TWO = """
level: 1
  fw =~ y1 + y2 + y3 + y4
level: 2
  fb =~ y1 + y2 + y3 + y4
"""
SKEW = np.exp(DEMO[Y] / 3).assign(half=np.where(DEMO["x1"] > 0, "up", "down"), cluster=DEMO["cluster"])


def moments_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lower triangle of the covariance matrix, then means, and their distribution-free covariance matrix."""
    n = len(rows)
    deviations = rows - rows.mean(axis=0)
    products = np.array([vech(np.outer(d, d)) for d in deviations])
    s = np.append(products.mean(axis=0), rows.mean(axis=0))
    influence = np.hstack([products, rows]) - s
    return s, influence.T @ influence / n**2


def implied(theta: np.ndarray) -> np.ndarray:
    """Of one factor with marker: loadings, residual variances, factor variance, means."""
    loading = np.concatenate([[1.0], theta[:3]])
    sigma = theta[7] * np.outer(loading, loading) + np.diag(theta[3:7])
    col, row = np.triu_indices(4)
    return np.append(sigma[row, col], theta[8:])


def ordered_theta(fit: msem.Fit) -> np.ndarray:
    names = [f"f=~{y}" for y in Y[1:]] + [f"{y}~~{y}" for y in Y] + ["f~~f"] + [f"{y}~1" for y in Y]
    return fit.params[names].to_numpy()


@pytest.mark.parametrize("estimator", ["WLS", "WLSMV", "ULSMV"])
def test_one_level_against_numpy(estimator: str) -> None:
    fit = msem.cfa(MODEL, SKEW, estimator=estimator, meanstructure=True)
    s, acov = moments_of(SKEW[Y].to_numpy())
    n = len(SKEW)
    weight = {"WLS": np.linalg.inv(acov), "WLSMV": np.diag(1 / np.diag(acov)), "ULSMV": n * np.eye(len(s))}[
        estimator
    ]
    theta = ordered_theta(fit)
    d = oracle.complex_step(implied, theta)
    e = s - implied(theta)
    assert_allclose(d.T @ weight @ e, 0, atol=1e-5)
    h = np.linalg.inv(d.T @ weight @ d)
    vcov = h @ d.T @ weight @ acov @ weight @ d @ h
    names = [f"f=~{y}" for y in Y[1:]] + [f"{y}~~{y}" for y in Y] + ["f~~f"] + [f"{y}~1" for y in Y]
    assert_allclose(fit.bse[names], np.sqrt(np.diag(vcov)), rtol=1e-6)
    # the weights of the chi-squares that the statistic is a sum of
    u = weight - weight @ d @ h @ d.T @ weight
    weights = np.linalg.eigvals(u @ acov).real
    weights = np.sort(weights)[-fit.df :]
    statistic = e @ weight @ e
    tests = fit.tests()
    assert_allclose(tests.loc["standard", "statistic"], statistic, rtol=1e-8)
    assert_allclose(tests.loc["mean_scaled", "statistic"], statistic / weights.mean(), rtol=1e-6)
    satterthwaite = tests.loc["mean_variance_adjusted"]
    assert_allclose(satterthwaite["df"], weights.sum() ** 2 / (weights**2).sum(), rtol=1e-6)
    # the shifted statistic has the mean and the variance of a chi-square
    a = 1 / tests.loc["scaled_shifted", "scaling"]
    b = tests.loc["scaled_shifted", "statistic"] - a * statistic
    assert_allclose(a * weights.sum() + b, fit.df, rtol=1e-6)
    assert_allclose(2 * a**2 * (weights**2).sum(), 2 * fit.df, rtol=1e-6)
    assert np.isnan(tests.loc["standard", "pvalue"]) == (estimator != "WLS")


EQUAL = """
level: 1
  y1 ~~ e*y1
  y2 ~~ e*y2
  y1 ~~ y2
level: 2
  y1 ~~ c*y1
  y2 ~~ c*y2
  y1 ~~ d*y2
level: 3
  y1 ~~ c*y1
  y2 ~~ y2
  y1 ~~ 0*y2
  y1 ~ 1
  y2 ~ 1
"""
PLACES = [[0, 2], [1], [3, 5, 6], [4], [8], [9], [10]]  # moments of each parameter


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("estimator", ["ULS", "ULSMV", "WLSMV", "WLS", "GLS"])
def test_three_levels_are_a_regression_of_their_moments(estimator: str, holes: bool) -> None:
    """Variances that are equal within and between levels: sums of moments, whose weights and errors are dense ones."""
    data = simulated((2, 4), (4, 8), 80)[["school", "class", "y1", "y2"]]
    if holes:
        data.loc[np.random.default_rng(2).random(len(data)) < 0.2, "y1"] = np.nan
    given: dict[str, Any] = {"cluster": ["school", "class"], "missing": "fiml" if holes else "listwise"}
    levels = [["y1", "y2"]] * 3
    h1 = msem.saturated(data, levels=levels, **given)
    bread = h1.information("observed" if holes else "expected").to_numpy()
    acov, observed = np.linalg.inv(bread), h1.information("observed").to_numpy()
    if estimator not in ("ULS", "GLS"):  # distribution-free
        sandwich = msem.saturated(data, levels=levels, gamma="robust", **given).acov.to_numpy()
        acov = acov @ observed @ sandwich @ observed @ acov
    weight = {
        "WLS": lambda: np.linalg.inv(acov),
        "WLSMV": lambda: np.diag(1 / np.diag(acov)),
        "GLS": lambda: bread,
    }.get(estimator, lambda: len(data) * np.eye(len(acov)))()
    d = np.zeros((len(acov), len(PLACES)))
    for k, own in enumerate(PLACES):
        d[own, k] = 1
    s = h1.vector.to_numpy()
    h = np.linalg.inv(d.T @ weight @ d)
    theta = h @ d.T @ weight @ s
    vcov = h @ d.T @ weight @ acov @ weight @ d @ h
    fit = msem.sem(EQUAL, data, estimator=estimator, **given)
    names = ["e", "y1~~y2", "c", "d", "y2~~y2.l3", "y1~1.l3", "y2~1.l3"]
    assert_allclose(fit.params[names], theta, rtol=1e-6, atol=1e-9)
    assert_allclose(fit.bse[names], np.sqrt(np.diag(vcov)), rtol=1e-5)
    e = s - d @ theta
    left = weight - weight @ d @ h @ d.T @ weight
    tests = fit.tests()
    if estimator != "ULS":
        assert_allclose(tests.loc["standard", "statistic"], e @ weight @ e, rtol=1e-6)
    if estimator.endswith("MV"):
        assert_allclose(tests.loc["mean_scaled", "scaling"], np.trace(left @ acov) / 4, rtol=1e-5)
    assert fit.df == 4


def test_generalised_least_squares_are_those_of_normal_variables() -> None:
    fit = msem.cfa(MODEL, DEMO, estimator="GLS")
    s = np.cov(DEMO[Y].T, bias=True)
    sigma = fit.implied[1].observed.cov.loc[Y, Y].to_numpy()
    off = np.linalg.solve(s, s - sigma)
    assert_allclose(fit.chisq, len(DEMO) / 2 * np.trace(off @ off), rtol=1e-8)
    assert_allclose(fit.bse, msem.cfa(MODEL, DEMO).bse, rtol=0.01)


@reference.needs_reference
@pytest.mark.parametrize(
    ("estimator", "row", "chisq", "adjusted"),
    [
        ("WLSMV", "standard", 0.48842, 1.44205),
        ("ULSMV", "scaled_shifted", 2.17860, 2.17860),
        ("WLS", "standard", 1.27356, 1.27356),
    ],
)
def test_two_levels_have_lavaan_s_statistics(estimator: str, row: str, chisq: float, adjusted: float) -> None:
    fit = msem.sem(TWO, reference.data("demo_twolevel"), cluster="cluster", estimator=estimator)
    tests, n = fit.tests(), 2500
    # lavaan multiplies the statistic by (N - 1) / N before it is adjusted
    assert_allclose(tests.loc[row, "statistic"] * (n - 1) / n, chisq, rtol=2e-4)
    assert_allclose(tests.loc["scaled_shifted", "statistic"], adjusted, rtol=1e-3)


@pytest.mark.parametrize("estimator", ["WLSMV", "WLS", "ULSMV", "GLS", "ULS"])
def test_two_levels_are_consistent(estimator: str) -> None:
    """All agree with maximum likelihood within a fraction of its errors, and have errors about as large."""
    fit, ml = (msem.sem(TWO, DEMO, cluster="cluster", estimator=e) for e in (estimator, "MLR"))
    assert fit.status == "ok"
    assert np.abs((fit.params - ml.params) / ml.bse).max() < 1
    assert_allclose(fit.bse, ml.bse, rtol=0.3)
    assert fit.df == ml.df
    assert fit.fit_measures("cfi").item() > 0.99


def test_a_saturated_model_has_the_moments_and_their_errors() -> None:
    saturated = """
    level: 1
      y1 ~~ y1 + y2
      y2 ~~ y2
    level: 2
      y1 ~~ y1 + y2
      y2 ~~ y2
    """
    fit = msem.sem(saturated, DEMO, cluster="cluster", estimator="WLSMV")
    ml = msem.sem(saturated, DEMO, cluster="cluster", estimator="MLR", information="expected")
    assert fit.df == 0
    assert fit.chisq == pytest.approx(0, abs=1e-9)
    assert_allclose(fit.params, ml.params, atol=1e-6)
    assert_allclose(fit.bse, ml.bse, rtol=1e-5)


def test_groups_constraints_and_equality_are_those_of_one_objective() -> None:
    both = msem.cfa(MODEL, SKEW, group="half", estimator="WLSMV")
    alone = [
        msem.cfa(MODEL, SKEW[SKEW["half"] == h], estimator="WLSMV", meanstructure=True)
        for h in ("down", "up")
    ]
    assert_allclose(both.params, np.concatenate([fit.params for fit in alone]), atol=1e-6)
    assert_allclose(both.bse, np.concatenate([fit.bse for fit in alone]), rtol=1e-6)
    assert both.chisq == pytest.approx(sum(fit.chisq for fit in alone))
    assert [group.chisq for group in both.groups.values()] == pytest.approx([fit.chisq for fit in alone])
    equal = msem.cfa(MODEL, SKEW, group="half", estimator="WLSMV", group_equal=["loadings"])
    assert equal.df == both.df + 3
    labelled = "f =~ y1 + c(a1, a2)*y2 + c(b1, b2)*y3 + c(c1, c2)*y4\na1 == a2\nb1 == b2\nc1 == c2"
    stated = msem.cfa(labelled, SKEW, group="half", estimator="WLSMV")
    for test in ("standard", "scaled_shifted"):
        ours, theirs = stated.tests().loc[test], equal.tests().loc[test]
        assert_allclose(ours.dropna(), theirs.dropna(), rtol=1e-6)
    assert stated.bse["a1"] == pytest.approx(equal.bse["f=~y2"], rel=1e-6)


def test_fixed_covariates_are_given() -> None:
    """Of a regression they leave least squares itself, with the robust errors of White (1980) for WLS."""
    data = DEMO[["y1", "x1", "x2"]]
    fit = msem.sem("y1 ~ x1 + x2", data, estimator="ULS", se="robust", meanstructure=True)
    x = np.column_stack([data[["x1", "x2"]], np.ones(len(data))])
    beta = np.linalg.solve(x.T @ x, x.T @ data["y1"].to_numpy())
    e = data["y1"].to_numpy() - x @ beta
    bread = np.linalg.inv(x.T @ x)
    white = bread @ (x.T * e**2) @ x @ bread
    assert_allclose(fit.params.iloc[:2], beta[:2], rtol=1e-6)
    assert_allclose(fit.bse.iloc[:2], np.sqrt(np.diag(white))[:2], rtol=1e-2)


def test_missing_values_are_those_of_the_saturated_model() -> None:
    data = DEMO[[*Y, "cluster"]].copy()
    data.loc[np.random.default_rng(1).random(len(data)) < 0.2, "y2"] = np.nan
    fit = msem.sem(TWO, data, cluster="cluster", estimator="WLSMV", missing="fiml")
    ml = msem.sem(TWO, data, cluster="cluster", estimator="MLR", missing="fiml")
    assert fit.options.information == "observed"
    assert np.abs((fit.params - ml.params) / ml.bse).max() < 1
    assert_allclose(fit.bse, ml.bse, rtol=0.3)


def test_tables_of_the_fit() -> None:
    fit = msem.sem(TWO, DEMO, cluster="cluster", estimator="WLSMV")
    text = fit.summary(fit_measures=True)
    assert "WLSMV" in text
    assert "Scaled and shifted (mean and variance)" in text
    assert "nan" not in text
    measures = fit.fit_measures()
    assert measures["chisq_scaled"] == pytest.approx(fit.tests().loc["scaled_shifted", "statistic"])
    assert np.isnan(measures[["pvalue", "bic", "logl"]].astype(float)).all()
    assert fit.residuals()["se"].notna().all()
    assert fit.estimates(standardized=True)["std_all"].notna().all()
    assert np.isnan(fit.llf)


BAD = {
    "information": (
        {"estimator": "WLSMV", "information": "observed"},
        ValueError,
        "information= has no part",
    ),
    "jackknife": ({"estimator": "WLSMV", "se": "jackknife1"}, ValueError, "is for maximum likelihood"),
    "test of ML": ({"estimator": "WLSMV", "test": "yuan.bentler"}, ValueError, "take 'mean_scaled' or"),
    "test of least squares": ({"test": "scaled.shifted"}, ValueError, "take 'yuan_bentler_mplus'"),
    "too few": (
        {"estimator": "WLS", "data": DEMO[DEMO["cluster"] <= 20]},
        DataError,
        "more independent units than statistics, and there are 20",
    ),
    "no rows": (
        {
            "estimator": "WLSMV",
            "data": msem.saturated(DEMO[[*Y, "cluster"]], cluster="cluster"),
            "cluster": None,
        },
        DataError,
        "raw data",
    ),
}


@pytest.mark.parametrize(("options", "kind", "message"), BAD.values(), ids=BAD)
def test_bad_input(options: dict[str, object], kind: type[Exception], message: str) -> None:
    given: dict[str, object] = {"data": DEMO, "cluster": "cluster", **options}
    with pytest.raises(kind, match=message):
        msem.sem(TWO, given.pop("data"), **given)  # type: ignore[arg-type]


def test_what_least_squares_has_not() -> None:
    slopes = 'level: 1\n y1 ~ rv("s")*x1\nlevel: 2\n y1 ~~ s'
    with pytest.raises(UnsupportedError, match="random slope 's': least squares"):
        msem.sem(slopes, DEMO, cluster="cluster", estimator="ULS")


@pytest.mark.parametrize(
    ("estimator", "cut"),
    [("ULSMV", False), ("DWLS", False), ("WLS", False), ("GLS", False), ("WLSMV", True), ("WLS", True)],
)
def test_levels_have_a_fit_of_their_own(estimator: str, cut: bool) -> None:
    data = DEMO.assign(**{name: np.digitize(DEMO[name], [-1, 1]) for name in Y}) if cut else DEMO
    fit = msem.sem(TWO, data, cluster="cluster", estimator=estimator, ordered=Y if cut else None)
    whole, assigned = fit.discrepancy, 0.0
    assert whole is not None
    for level in (1, 2):
        found = fit.level_fit(level)
        one = whole.of(found.model)
        # what is left free of the other level takes its statistics out of the weight
        own = np.array([key.level == level for stage in whole.stages for key in stage.keys])
        part = np.linalg.inv(np.linalg.inv(one.weight)[np.ix_(own, own)])
        residual, jacobian = one.residual[own], one.jacobian[own]
        assert_allclose(residual @ part @ residual, one.statistic, rtol=1e-6, atol=1e-9)
        step = np.linalg.lstsq(jacobian.T @ part @ jacobian, jacobian.T @ part @ residual)[0]
        assert_allclose(step, 0, atol=1e-5)
        measures = fit.fit_measures(level=level)
        assert measures["df"] == 2
        assert measures["baseline_df"] == 6
        assert_allclose(measures["chisq"], one.standard)
        if estimator != "GLS":
            adjusted = fit.options.adjusted_test
            expected = one.standard if adjusted is None else one.adjusted(adjusted)[0]
            assert_allclose(measures.get("chisq_scaled", measures["chisq"]), expected)
        assert measures["srmr"] < 0.05
        assigned += one.statistic
    if estimator in (
        "ULSMV",
        "DWLS",
        "WLSMV",
    ):  # which do not let one level's residuals depend on the other's
        assert_allclose(assigned, whole.statistic, rtol=1e-6)
    assert "Level-specific Fit Measures" in fit.summary(fit_measures=True)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("estimator", ["ULSMV", "WLSMV", "GLS"])
def test_replicates_are_fits_to_their_rows(estimator: str) -> None:
    data = DEMO[DEMO["cluster"] <= 60]
    fit = msem.sem(TWO, data, cluster="cluster", estimator=estimator)
    found = fit.jackknife(statistic=["fb=~y2.l2", "fw=~y3"], progress=False)
    for cluster in (3, 41):
        one = msem.sem(TWO, data[data["cluster"] != cluster], cluster="cluster", estimator=estimator)
        assert_allclose(found.estimates.loc[(1, cluster)], one.params[["fb=~y2.l2", "fw=~y3"]], atol=1e-6)
    other = data.sample(frac=1, random_state=1).assign(cluster=lambda d: d["cluster"] * 10)
    drawn = [
        each.bootstrap(20, seed=4, progress=False).estimates
        for each in (fit, msem.sem(TWO, other, cluster="cluster", estimator=estimator))
    ]
    assert_allclose(*drawn, atol=1e-7)


def test_bootstraps_of_least_squares_have_its_errors_and_chi_square() -> None:
    fit = msem.sem(TWO, DEMO, cluster="cluster", estimator="GLS")
    drawn = fit.bootstrap(200, seed=5, kind="parametric", progress=False)
    assert_allclose(drawn.bse / fit.bse, 1, atol=0.2)
    assert drawn.chisq.mean() == pytest.approx(fit.df, abs=4 * np.sqrt(2 * fit.df / 200))
    robust = msem.sem(TWO, DEMO, cluster="cluster", estimator="WLSMV", se="bootstrap", bootstrap=200, seed=6)
    assert_allclose(robust.bse / msem.sem(TWO, DEMO, cluster="cluster", estimator="WLSMV").bse, 1, atol=0.25)
    cut = DEMO.assign(**{name: np.digitize(DEMO[name], [0]) for name in Y})
    for one in (robust, msem.sem(TWO, cut, cluster="cluster", ordered=Y)):
        chisq = one.bootstrap(4, seed=7, statistic=lambda fit: fit.chisq, progress=False)
        assert_allclose(chisq.array[:, 0], chisq.chisq, rtol=1e-8)
        assert np.ptp(chisq.array) > 0.1
    moments = msem.sem(TWO, msem.saturated(DEMO[[*Y, "cluster"]], cluster="cluster"), estimator="GLS")
    with pytest.raises(DataError, match="fits by least squares need the rows"):
        moments.bootstrap(10, seed=1)


def test_moments_alone_have_the_errors_of_normal_variables() -> None:
    moments = msem.saturated(DEMO[[*Y, "cluster"]], cluster="cluster")
    fit = msem.sem(TWO, moments, estimator="GLS")
    assert_allclose(fit.params, msem.sem(TWO, DEMO, cluster="cluster", estimator="GLS").params, atol=1e-6)
    assert pd.notna(fit.tests().loc["standard", "pvalue"])


def test_differences_of_weighted_squares_do_not_depend_on_units() -> None:
    """Nor where both models are wrong, so that the tangents of one are not among those of the other."""
    data = msem.load_demo()
    model = "level: 1; f =~ y1 + y2 + {0}y3 + {0}y4; level: 2; g =~ y1 + y2 + y3 + y4"
    plain, other = (
        msem.compare_models(
            *(
                msem.sem(model.format(label), own, cluster="cluster", estimator="WLSMV")
                for label in ("", "a*")
            )
        )["chisq_diff"]
        for own in (data, data.assign(y1=1e3 * data["y1"]))
    )
    assert_allclose(other, plain, rtol=1e-6)
