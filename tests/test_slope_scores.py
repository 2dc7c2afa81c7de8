"""Scores of units, predictions and residuals with random slopes, against dense conditional normal densities."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import msem
import oracle_slopes
import slope_cases
from msem.errors import UnsupportedError

FACTOR = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ rv("s")*x1 + x3
  y2 ~ rv("t")*x2
level: 2
  y1 ~ w
  y1 ~~ y1
  y2 ~~ y2
  s ~ w
"""


@functools.cache
def fitted(holes=False):
    rng = np.random.default_rng(4)
    data = slope_cases.sample(3, 80)
    cluster = data["id"].to_numpy()
    factor = 0.5 * rng.normal(size=len(data)) + rng.normal(0, 0.6, 80)[cluster] * data["x1"]
    for name in ("y1", "y2", "y3"):
        data[name] = factor + rng.normal(0, 0.7, len(data)) + 2
    data["y1"] += rng.normal(0, 0.5, 80)[cluster]
    data["y2"] += rng.normal(0, 0.5, 80)[cluster] + rng.normal(0, 0.5, 80)[cluster] * data["x2"]
    if holes:
        data = slope_cases.with_holes(data)
    return msem.sem(FACTOR, data, cluster="id", missing="fiml" if holes else "listwise"), data


def truth(fit, data, wanted, given=None):
    s = fit.statistics
    roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster), "id"
    return oracle_slopes.conditional(fit.table.rows, fit.theta, data, *roles, wanted, given)


@pytest.mark.parametrize("holes", [False, True])
def test_scores_of_units_are_those_of_the_dense_density(holes):
    fit, data = fitted(holes)
    assert fit.converged
    mean, var = truth(fit, data, ["fw"])
    scores = fit.factor_scores(1)
    assert_allclose(scores["fw"], mean[:, 0], rtol=1e-8, atol=1e-10)
    assert_allclose(scores["fw_se"] ** 2, var[:, 0], rtol=1e-8)
    some = data[data["id"].isin([4, 7, 60])]
    assert_allclose(fit.factor_scores(1, newdata=some)["fw"], scores.loc[some.index, "fw"], rtol=1e-9)
    assert list(fit.factor_scores()) == ["fw", "fw_se", "s", "t", "s_se", "t_se"]


def test_predictions_given_covariates_are_those_of_the_dense_density():
    fit, data = fitted()
    outcomes = ["y1", "y2", "y3"]
    mean, _ = truth(fit, data, outcomes, ["x1", "x2", "x3", "w"])
    assert_allclose(fit.predict()[outcomes], mean, rtol=1e-8)
    new = data[["x1", "x2", "x3", "w", "id"]].head(7)
    assert_allclose(fit.predict(new)[outcomes], mean[:7], rtol=1e-8)


@pytest.mark.parametrize("holes", [False, True])
def test_fitted_values_take_the_slopes_of_the_cluster(holes):
    fit, data = fitted(holes)
    effects, slopes = fit.random_effects(), fit.factor_scores(2)
    value = {(r.lhs, r.op, r.rhs, r.level): v for r, v in zip(fit.table.rows, fit.row_values, strict=True)}
    own = {name: data["id"].map(slopes[name]) for name in ("s", "t")}
    factor = own["s"] * data["x1"] + value["fw", "~", "x3", 1] * data["x3"]
    y2 = value["fw", "=~", "y2", 1] * factor + own["t"] * data["x2"] + data["id"].map(effects["y2"])
    y3 = value["fw", "=~", "y3", 1] * factor + value["y3", "~1", "", 1]
    assert_allclose(fit.fittedvalues["y2"], y2, rtol=1e-9)
    assert_allclose(fit.fittedvalues["y3"], y3, rtol=1e-9)
    assert_allclose(fit.resid["y2"], data["y2"] - y2, rtol=1e-7, atol=1e-9)


def test_plausible_values_of_units_surround_their_scores():
    fit, _ = fitted()
    scores = fit.factor_scores(1)
    drawn = np.array([frame["fw"] for frame in fit.plausible_values(60, seed=1)])
    z = (drawn.mean(axis=0) - scores["fw"]) / scores["fw_se"] * np.sqrt(60)
    assert np.abs(z).max() < 5
    assert (drawn.std(axis=0, ddof=1) / scores["fw_se"]).mean() == pytest.approx(1, abs=0.03)


def test_covariates_that_are_outcomes_are_not_predicted():
    text = 'level: 1\n y1 ~ rv("s")*x2\n x2 ~ x3\nlevel: 2\n y1 ~~ y1'
    fit = msem.sem(text, slope_cases.sample(3, 60), cluster="id")
    with pytest.raises(UnsupportedError, match="'x2' has the random slope 's' and is an outcome itself"):
        fit.predict()
