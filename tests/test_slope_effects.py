"""Effects through random slopes, and solutions standardized by variances that are averages over clusters."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import slope_cases
from msem.errors import UnsupportedError

MEDIATION = """
level: 1
  m ~ rv("a")*x
  y ~ rv("b")*m + rv("c")*x
level: 2
  y ~~ y
  a ~~ b
  a ~ w
"""
MODEL = """
level: 1
  y1 ~ rv("s")*x1 + x3
level: 2
  y1 ~ w
  s ~ w
  y1 ~~ s
"""


@functools.cache
def mediation():
    rng = np.random.default_rng(6)
    code = np.repeat(np.arange(150), 8)
    w, n = rng.normal(size=150), len(code)
    a, b = 0.5 + 0.2 * w + rng.normal(0, 0.4, 150), np.zeros(150)
    b = 0.4 + 0.6 * (a - 0.5) + rng.normal(0, 0.3, 150)
    x = rng.normal(size=n) + 1
    m = a[code] * x + rng.normal(size=n)
    y = b[code] * m + (0.2 + rng.normal(0, 0.3, 150))[code] * x + rng.normal(size=n)
    y += rng.normal(0, 0.6, 150)[code]
    frame = pd.DataFrame({"id": code, "x": x, "m": m, "y": y, "w": w[code]})
    return msem.sem(MEDIATION, frame, cluster="id")


@functools.cache
def simple():
    return msem.sem(MODEL, slope_cases.sample(3, 60), cluster="id")


def values(fit, theta=None):
    found = fit.objective.row_values(fit.theta if theta is None else theta)
    return {(r.lhs, r.op, r.rhs, r.level): v for r, v in zip(fit.table.rows, found, strict=True)}


def errors(fit, quantity):
    jacobian = oracle.differences(quantity, fit.theta)
    return np.sqrt(np.diag(jacobian @ fit.vcov @ jacobian.T))


def test_an_indirect_effect_has_the_covariance_of_its_slopes():
    fit = mediation()
    assert fit.converged

    def expected(theta):
        v = values(fit, theta)
        mean_w = fit.implied[2].mean["w"]
        a = v["a", "~1", "", 2] + v["a", "~", "w", 2] * mean_w
        indirect = a * v["b", "~1", "", 2] + v["a", "~~", "b", 2]
        return np.array([indirect, indirect + v["c", "~1", "", 2]])

    table = fit.effects("y", "x").set_index("effect")
    assert_allclose(table.loc[["indirect", "total"], "est"], expected(fit.theta), rtol=1e-9)
    assert_allclose(table.loc[["indirect", "total"], "se"], errors(fit, expected), rtol=1e-5)
    assert table.loc["total_indirect", "est"] == pytest.approx(table.loc["indirect", "est"])
    assert table.loc["indirect", "through"] == "m"
    with pytest.raises(UnsupportedError, match="'a' changes the covariate of 'b'"):
        fit.standardized()


def test_standardized_slopes_and_explained_variance_are_averages_over_clusters():
    fit = simple()
    s = fit.statistics
    x, w = s.covariances(("x1", "x3"), ("w",))

    def parts(theta):
        v = values(fit, theta)
        mean = v["s", "~1", "", 2] + v["s", "~", "w", 2] * s.total_mean[-1]
        paths = np.array([mean, v["y1", "~", "x3", 1]])
        slope = v["s", "~~", "s", 2] + v["s", "~", "w", 2] ** 2 * w[0, 0]
        total = v["y1", "~~", "y1", 1] + paths @ x @ paths + slope * x[0, 0]
        return np.array([*(paths * np.sqrt(x.diagonal() / total)), 1 - v["y1", "~~", "y1", 1] / total])

    table = fit.standardized().set_index(["lhs", "op", "rhs", "level"])
    rows = table.loc[[("y1", "~", "x1", 1), ("y1", "~", "x3", 1)]]
    assert_allclose(rows["est_std"], parts(fit.theta)[:2], rtol=1e-9)
    assert_allclose(rows["se"], errors(fit, parts)[:2], rtol=1e-5)
    shares = fit.rsquare().set_index(["lhs", "level"])["r2"]
    assert shares["y1", 1] == pytest.approx(parts(fit.theta)[2])
    v = values(fit)
    explained = v["s", "~", "w", 2] ** 2 * w[0, 0]
    assert shares["s", 2] == pytest.approx(explained / (explained + v["s", "~~", "s", 2]))
    column = fit.estimates(standardized=True).set_index(["lhs", "op", "rhs", "level"])["std_all"]
    assert column["y1", "~", "x1", 1] == pytest.approx(parts(fit.theta)[0])
    assert "Std.all" in fit.summary(standardized=True)


def test_variances_of_many_units_are_those_that_standardize():
    """Of data drawn from the fit, pooled within clusters, with covariates that vary within clusters only."""
    fit = simple()
    large = msem.simulate(fit, nclusters=3000, cluster_sizes=40, seed=1)
    means = large.groupby("id")["y1"].transform("mean")
    within = ((large["y1"] - means) ** 2).sum() / (len(large) - 3000)
    table = fit.standardized().set_index(["lhs", "op", "rhs", "level"])
    v = values(fit)
    total = v["y1", "~~", "y1", 1] / table.loc[("y1", "~~", "y1", 1), "est_std"]
    assert within == pytest.approx(total, rel=0.03)


def test_the_mean_slope_is_an_effect():
    fit = simple()
    v = values(fit)
    mean = v["s", "~1", "", 2] + v["s", "~", "w", 2] * fit.statistics.total_mean[-1]
    row = fit.effects("y1", "x1").set_index("effect").loc["direct"]
    assert row["est"] == pytest.approx(mean)


@pytest.mark.parametrize("make", [simple, mediation])
def test_fits_are_saved_with_their_slopes(make, tmp_path):
    fit = make()
    fit.save(tmp_path / "fit.json")
    again = msem.SavedFit.load(tmp_path / "fit.json")
    assert_allclose(again.params, fit.params, rtol=1e-12)
    assert [row.slope for row in again.table.rows] == [row.slope for row in fit.table.rows]
    assert again.summary().splitlines()[10:30] == fit.summary().splitlines()[10:30]
    found = again.estimates(standardized=True)["std_all"]
    assert found.isna().all() == (make is mediation)
