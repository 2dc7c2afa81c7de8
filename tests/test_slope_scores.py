"""Scores of units, predictions and residuals with random slopes, against dense conditional normal densities."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle_slopes
import slope_cases
from msem.errors import UnsupportedError
from msem.postestimation.factor_scores import fitted_model

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


def test_covariates_that_are_outcomes_are_predicted_themselves():
    """y1 = b + s x2 with x2 = a x3 + e: given x3 and the cluster, b + s a x3."""
    text = 'level: 1\n y1 ~ rv("s")*x2\n x2 ~ x3\nlevel: 2\n y1 ~~ y1'
    data = slope_cases.sample(3, 60)
    fit = msem.sem(text, data, cluster="id")
    x2 = fit.params["x2~1"] + fit.params["x2~x3"] * data["x3"]
    own, slope = fit.random_effects()["y1"], fit.factor_scores(2)["s"]
    assert_allclose(fit.fittedvalues["x2"], x2, rtol=1e-9)
    assert_allclose(
        fit.fittedvalues["y1"], own[data["id"]].to_numpy() + slope[data["id"]].to_numpy() * x2, rtol=1e-8
    )
    assert_allclose(fit.predict()["y1"], fit.params["y1~1.l2"] + fit.params["s~1.l2"] * x2, rtol=1e-8)
    both = 'level: 1\n v ~ rv("s")*u1\n u1 ~ rv("t")*z\nlevel: 2\n v ~~ v\n t ~~ 0.1*t'
    with pytest.raises(
        UnsupportedError, match="'u1' has the random slope 's' and depends on the random slope 't'"
    ):
        msem.sem(both, integrated_sample(), cluster="id").predict()


def integrated_sample(clusters=40):
    """Clusters of two to five units: a covariate with parts within and between, and a latent one."""
    rng = np.random.default_rng(4)
    c = np.repeat(np.arange(clusters), rng.integers(2, 6, clusters))
    n = len(c)
    b, w = rng.normal(size=(clusters, 3)) * [0.7, 0.4, 0.6], rng.normal(size=n)
    slope = 0.5 + b[:, 1] + 0.3 * b[:, 0]
    z = rng.normal(size=n)
    f = 0.7 * z + 0.7 * rng.normal(size=n)
    columns = {"x": w + b[c, 0], "z": z, **{f"u{k}": f + 0.5 * rng.normal(size=n) for k in (1, 2, 3)}}
    y = 1 + b[c, 2] + 0.3 * b[c, 0] + slope[c] * w + 0.6 * rng.normal(size=n)
    v = 1 + b[c, 2] + slope[c] * f + 0.6 * rng.normal(size=n)
    return pd.DataFrame({**columns, "y": y, "v": v, "id": c})


def dense_given_slopes(fit, x, y):
    """E (b_y + s (x - b_x)) of the units of a cluster by the trapezoid rule over s; y may be None, not observed."""
    model = fitted_model(fit, 0)
    within, top = model.levels[1], model.levels[2]
    residual, spread = within.cov[0, 0], within.cov[1, 1]
    mean, cov = top.mean, top.cov  # of y, x, s
    n, sd = len(x), np.sqrt(cov[2, 2])
    grid = mean[2] + sd * np.linspace(-9, 9, 721)
    logs, values = [], []
    ones, eye = np.ones((n, n)), np.eye(n)
    for s in grid:
        paths = cov[:2, 2] / cov[2, 2]
        m, v = mean[:2] + paths * (s - mean[2]), cov[:2, :2] - np.outer(paths, cov[:2, 2])
        yy = v[0, 0] * ones + (residual + s**2 * spread) * eye
        yx = v[0, 1] * ones + s * spread * eye
        xx = v[1, 1] * ones + spread * eye
        whole = np.block([[yy, yx], [yx.T, xx]])
        data = np.concatenate([np.full(n, np.nan) if y is None else y, x])
        seen = ~np.isnan(data)
        off = data[seen] - np.repeat(m, n)[seen]
        part = whole[np.ix_(seen, seen)]
        reach = np.kron(v, np.ones(n))[:, seen]
        effects = m + reach @ np.linalg.solve(part, off)
        logs.append(
            -0.5 * (off @ np.linalg.solve(part, off) + np.linalg.slogdet(part)[1] + ((s - mean[2]) / sd) ** 2)
        )
        values.append(effects[0] + s * (x - effects[1]))
    weights = np.exp(np.array(logs) - max(logs))
    return weights @ np.array(values) / weights.sum()


@pytest.mark.parametrize("model", [" s ~ x", " s ~ 1\n y ~~ s"])
def test_predictions_of_slopes_that_are_integrated_over(model):
    """Of a covariate with a part between clusters, where slope and part are correlated given the data."""
    data = integrated_sample()
    text = 'level: 1\n y ~ rv("s")*x\nlevel: 2\n y ~ x\n' + model
    fit = msem.sem(text, data, cluster="id", nodes=25)
    fitted, expected = fit.fittedvalues, fit.predict()
    assert list(fitted) == ["y"]
    for cluster in range(6):
        rows = data["id"] == cluster
        x, y = data.loc[rows, ["x", "y"]].to_numpy().T
        assert_allclose(fitted.loc[rows, "y"], dense_given_slopes(fit, x, y), rtol=1e-5, atol=1e-6)
        assert_allclose(expected.loc[rows, "y"], dense_given_slopes(fit, x, None), rtol=1e-9)
    assert_allclose(fit.resid["y"], data["y"] - fitted["y"])
    new = data[data["id"] == 3]
    assert_allclose(fit.predict(new)["y"], expected.loc[new.index, "y"], rtol=1e-12)
    assert_allclose(fit.predict(new, random_effects=True)["y"], fitted.loc[new.index, "y"], rtol=1e-9)


def test_predictions_with_slopes_of_latent_covariates():
    """Given z and the cluster v is b + s E(f | z)."""
    data = integrated_sample()
    text = 'level: 1\n f =~ u1 + u2 + u3\n f ~ z\n v ~ rv("s")*f\nlevel: 2\n v ~~ s'
    fit = msem.sem(text, data, cluster="id")
    own, slope = (
        frame.loc[data["id"]].to_numpy() for frame in (fit.random_effects()["v"], fit.factor_scores(2)["s"])
    )
    f = fit.params["f~z"] * data["z"].to_numpy()
    assert_allclose(fit.fittedvalues["v"], own + slope * f, rtol=1e-8)
    assert_allclose(fit.predict()["v"], fit.params["v~1.l2"] + fit.params["s~1.l2"] * f, rtol=1e-8)
    assert_allclose(fit.fittedvalues["u2"], fit.params["u2~1"] + fit.params["f=~u2"] * f, rtol=1e-8)
