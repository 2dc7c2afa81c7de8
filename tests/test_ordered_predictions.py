"""Predictions and random effects with ordered variables: against regressions and dense posterior distributions."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import optimize, stats

import msem
from msem.errors import ModelError, UnsupportedError

CUTS = (-0.7, 0.5)
ITEMS = ["u1", "u2"]
PARTS = """
level: 1
  u1 + u2 ~ x
  u1 ~~ 0*u2
level: 2
  u1 ~~ u2
  u1 + u2 ~ w
"""
FACTOR = """
level: 1
  f =~ u1 + u2 + y
  f ~ x
level: 2
  g =~ u1 + u2 + y
  u1 ~~ 0*u1
  u2 ~~ 0*u2
  y ~~ 0*y
  g ~ w
"""


@functools.cache
def rows(clusters: int = 80, size: int = 6) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    cluster = np.repeat(np.arange(clusters), size)
    n = len(cluster)
    x, f, w = rng.normal(size=n), rng.normal(size=n), rng.normal(size=clusters)
    above = rng.multivariate_normal([0, 0], [[0.6, 0.3], [0.3, 0.5]], size=clusters)
    out = pd.DataFrame({"cluster": cluster, "x": x, "w": w[cluster], "y": 0.7 * f + rng.normal(size=n)})
    for k, name in enumerate(ITEMS):
        values = 0.4 * x + 0.8 * f + (0.3 * w + above[:, k])[cluster] + rng.normal(size=n)
        out[name] = np.digitize(values, CUTS)
    return out.assign(y=out["y"] + above[cluster, 0] + 0.3 * w[cluster] + 0.3 * x)


@functools.cache
def fitted(text: str, estimator: str | None = None) -> msem.Fit:
    return msem.sem(text, rows(), cluster="cluster", ordered=ITEMS, estimator=estimator)


def log_posterior(fit: msem.Fit, data: pd.DataFrame, parts: np.ndarray) -> np.ndarray:
    """Of the parts of both items between clusters in one cluster, up to a constant; a row for each point."""
    p = fit.params
    names = ["u1~~u1.l2", "u1~~u2.l2", "u1~~u2.l2", "u2~~u2.l2"]
    cov = p[names].to_numpy().reshape(2, 2)
    mean = p[["u1~w.l2", "u2~w.l2"]].to_numpy() * data["w"].iloc[0]
    out = stats.multivariate_normal(mean, cov).logpdf(parts)
    for k, name in enumerate(ITEMS):
        cuts = np.array([-np.inf, p[f"{name}|t1.l2"], p[f"{name}|t2.l2"], np.inf])
        for x, category in zip(data["x"], data[name], strict=True):
            centre = p[f"{name}~x"] * x + parts[..., k]
            out = out + np.log(
                stats.norm.cdf(cuts[category + 1] - centre) - stats.norm.cdf(cuts[category] - centre)
            )
    return out


def test_random_effects_are_modes_of_their_posterior_distribution() -> None:
    fit = fitted(PARTS)
    found = fit.random_effects()
    for code in (0, 7, 33):
        own = rows()[rows()["cluster"] == code]
        top = optimize.minimize(lambda b, own=own: -log_posterior(fit, own, b), np.zeros(2), tol=1e-12)
        assert_allclose(found.loc[code, ITEMS], top.x, atol=1e-5)
        step = 1e-3 * np.eye(2)

        def second(
            i: int, j: int, at: np.ndarray = top.x, own: pd.DataFrame = own, h: np.ndarray = step
        ) -> float:
            signs = [(1, 1), (1, -1), (-1, 1), (-1, -1)]
            return -sum(a * b * log_posterior(fit, own, at + a * h[i] + b * h[j]) for a, b in signs) / 4e-6

        curvature = np.array([[second(i, j) for j in range(2)] for i in range(2)])
        sd = np.sqrt(np.linalg.inv(curvature).diagonal())
        assert_allclose(found.loc[code, ["u1_se", "u2_se"]], sd, rtol=1e-4)


def test_random_effects_by_maximum_likelihood_are_means() -> None:
    fit = fitted(PARTS, "ML")
    found = fit.random_effects()
    line = np.linspace(-4.5, 4.5, 181)
    grid = np.stack(np.meshgrid(line, line, indexing="ij"), axis=-1)
    for code in (0, 33):
        log = log_posterior(fit, rows()[rows()["cluster"] == code], grid)
        weight = np.exp(log - log.max())
        weight /= weight.sum()
        mean = np.einsum("ij,ijk->k", weight, grid)
        variance = np.einsum("ij,ijk->k", weight, (grid - mean) ** 2)
        assert_allclose(found.loc[code, ITEMS], mean, atol=1e-5)
        assert_allclose(found.loc[code, ["u1_se", "u2_se"]], np.sqrt(variance), atol=1e-5)


@pytest.mark.parametrize("estimator", [None, "ML"])
def test_predictions_are_the_regressions_of_what_is_cut(estimator: str | None) -> None:
    fit, data = fitted(PARTS, estimator), rows()
    p, found = fit.params, fit.predict()
    for name in ITEMS:
        assert_allclose(found[name], p[f"{name}~x"] * data["x"] + p[f"{name}~w.l2"] * data["w"], atol=1e-9)
    with_effects, parts = fit.predict(random_effects=True), fit.random_effects(se=False)
    for name in ITEMS:
        own = p[f"{name}~x"] * data["x"] + parts[name].to_numpy()[data["cluster"]]
        assert_allclose(with_effects[name], own, atol=1e-9)
    pd.testing.assert_frame_equal(fit.fittedvalues, with_effects)
    new = pd.DataFrame({"x": [0.0, 2.0], "w": [1.0, 1.0], "cluster": ["a", "a"]})
    expected = [[p[f"{name}~w.l2"] + p[f"{name}~x"] * x for name in ITEMS] for x in (0, 2)]
    assert_allclose(fit.predict(new)[ITEMS], expected, atol=1e-9)


def test_predictions_of_indicators_and_continuous_outcomes() -> None:
    fit, data = fitted(FACTOR), rows()
    p, found = fit.params, fit.predict()
    for name, within, between in (
        ("u1", 1, 1),
        ("u2", p["f=~u2"], p["g=~u2.l2"]),
        ("y", p["f=~y"], p["g=~y.l2"]),
    ):
        own = within * p["f~x"] * data["x"] + between * p["g~w.l2"] * data["w"]
        assert_allclose(found[name], own + (p["y~1.l2"] if name == "y" else 0), atol=1e-9)
    # without residuals there the parts follow from the factor
    scores, parts = fit.factor_scores(2), fit.random_effects()
    assert_allclose(parts["u2"], p["g=~u2.l2"] * scores["g"], atol=1e-9)
    assert_allclose(parts["u2_se"], p["g=~u2.l2"] * scores["g_se"], atol=1e-9)
    assert_allclose(parts["y"], p["y~1.l2"] + p["g=~y.l2"] * scores["g"], atol=1e-9)


def test_rows_of_one_level_and_groups() -> None:
    data = rows().assign(half=np.where(rows()["cluster"] % 2 == 0, "even", "odd"))
    fit = msem.sem("f =~ u1 + u2 + y\nf ~ x", data, ordered=ITEMS, group="half", group_equal="loadings")
    p, found = fit.params, fit.predict()
    own = np.where(data["half"] == "even", p["f~x"], p["f~x.g2"]) * data["x"]
    assert_allclose(found["u2"], p["f=~u2"] * own, atol=1e-9)
    pd.testing.assert_frame_equal(found, fit.predict(random_effects=True))
    delta = msem.sem("f =~ u1 + u2 + y\nf ~ x", data, ordered=ITEMS, parameterization="delta")
    theta = msem.sem("f =~ u1 + u2 + y\nf ~ x", data, ordered=ITEMS)
    # the unit of what is cut is another: its whole variance given x is 1 in one, its residual variance in the other
    one, other = delta.predict()["u2"], theta.predict()["u2"]
    assert_allclose(one / one.std(), other / other.std(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_what_has_no_answer_is_refused() -> None:
    fit = fitted(PARTS)
    with pytest.raises(UnsupportedError, match="random effects of new data"):
        fit.predict(rows(), random_effects=True)
    with pytest.raises(UnsupportedError, match="'u1' is ordered: a category less the mean"):
        _ = fit.resid
    with pytest.raises(UnsupportedError, match="'u1' is ordered"):
        fit.random_effects(newdata=rows())
    with pytest.raises(UnsupportedError, match="'u1' is ordered"):
        fit.random_effects(cov=True)
    for one in (fit, fitted(PARTS, "ML")):
        with pytest.raises(UnsupportedError, match="'u1' is ordered, and categories have no distance"):
            one.distances()
    single = msem.sem("f =~ u1 + u2 + y", rows(), ordered=ITEMS)
    with pytest.raises(ModelError, match="at level 1"):
        single.random_effects()
    slopes = msem.sem(
        'level: 1\n u1 ~ rv("s")*x\nlevel: 2\n u1 ~~ 0*s\n s ~~ 0.1*s',
        rows(),
        cluster="cluster",
        ordered=["u1"],
        estimator="ML",
    )
    with pytest.raises(UnsupportedError, match="with random slopes"):
        slopes.predict(random_effects=True)
