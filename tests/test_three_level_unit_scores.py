"""Scores of units of three levels with random slopes at level 1, against one dense normal density."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem

MODEL = """
level: 1
  f =~ y1 + y2 + y3
  f ~ rv("s")*x + z
  y1 ~ rv("u")*z
level: 2
  g =~ y1 + y2 + y3
  g ~ rv("t")*w
  s ~~ s + g
level: 3
  y1 ~~ y1
  y2 ~~ y2
  y3 ~~ y3
  s ~~ s + y1
  u ~~ u + y2
  t ~~ t
"""
NAMES = ["y1", "y2", "y3"]


def sample(seed=4, schools=12, classes=4, units=9):
    rng = np.random.default_rng(seed)
    klass = np.repeat(np.arange(schools * classes), rng.integers(1, 2 * units, schools * classes))
    school, n = klass // classes, len(klass)
    count = schools * classes
    w = rng.normal(size=count)
    data = pd.DataFrame({"school": school, "class": klass, "x": 3 + 2 * rng.normal(size=n), "w": w[klass]})
    data["z"] = rng.normal(size=n)
    slope = 0.5 + 0.4 * rng.normal(size=count)[klass] + 0.3 * rng.normal(size=schools)[school]
    f = slope * data["x"] + 0.3 * data["z"] + rng.normal(size=n)
    part = rng.normal(size=count)[klass] + (0.4 + 0.5 * rng.normal(size=schools))[school] * data["w"]
    for k, loading in enumerate((1, 0.8, 0.9), 1):
        noise = (
            rng.normal(size=n) + 0.4 * rng.normal(size=count)[klass] + 0.6 * rng.normal(size=schools)[school]
        )
        data[f"y{k}"] = loading * (f + part) + noise
    data["y1"] += 0.5 * rng.normal(size=schools)[school] * data["z"]
    return data


def dense(fit, data):
    """Mean and covariance matrix of y1, y2, y3 and f of all units, given the covariates."""
    at, n = fit.params, len(data)
    x, z, w = (data[name].to_numpy() for name in ("x", "z", "w"))
    loading = np.array([1, at["f=~y2"], at["f=~y3"]])
    up = np.array([1, at["g=~y2.l2"], at["g=~y3.l2"]])
    of_f = np.append(loading, 1)
    within = at["f~~f"] * np.outer(of_f, of_f)
    within[:3, :3] += np.diag([at[f"{name}~~{name}"] for name in NAMES])
    mean = np.outer(z, at["f~z"] * of_f)
    cov = np.kron(np.eye(n), within)
    middle = {  # parts of the classes given the schools: residuals of y, g, s
        "y": np.diag([at[f"{name}~~{name}.l2"] for name in NAMES]) + at["g~~g.l2"] * np.outer(up, up),
        "ys": at["s~~g.l2"] * up,
        "s": at["s~~s.l2"],
    }
    inner = np.block([[middle["y"], middle["ys"][:, None]], [middle["ys"][None], np.array([[middle["s"]]])]])
    top = fit.implied[3]
    own = [*NAMES, "s", "u", "t"]
    effects = {"s": np.outer(x, of_f), "u": np.outer(z, [1, 0, 0, 0]), "t": np.outer(w, np.append(up, 0))}
    for spread, means, slopes, column in (
        (inner, np.zeros(4), ("s",), "class"),
        (top.cov.loc[own, own].to_numpy(), top.mean[own].to_numpy(), ("s", "u", "t"), "school"),
    ):
        reach = np.zeros((n, 4, 3 + len(slopes)))
        reach[:, [0, 1, 2], [0, 1, 2]] = 1
        for k, slope in enumerate(slopes, 3):
            reach[:, :, k] = effects[slope]
        mean = mean + reach @ means
        rows = reach.reshape(-1, reach.shape[2])
        of = np.repeat(data[column].to_numpy(), 4)
        cov = cov + np.where(of[:, None] == of, rows @ spread @ rows.T, 0)
    return mean.ravel(), cov


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_scores_are_conditional_expectations(share):
    data = sample()
    rng = np.random.default_rng(1)
    for name in NAMES:
        data.loc[rng.random(len(data)) < share, name] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        missing = "fiml" if share else "listwise"
        fit = msem.sem(MODEL, data, cluster=["school", "class"], missing=missing)
    assert fit.converged
    kept = data[data[NAMES].notna().any(axis=1)].reset_index(drop=True)
    mean, cov = dense(fit, kept)
    values = np.column_stack([kept[NAMES].to_numpy(), np.full(len(kept), np.nan)]).ravel()
    seen, factor = ~np.isnan(values), np.arange(3, len(values), 4)
    weights = np.linalg.solve(cov[np.ix_(seen, seen)], cov[np.ix_(seen, factor)]).T
    scores = fit.factor_scores(1)
    scores = scores.loc[data.index[data[NAMES].notna().any(axis=1)]]
    assert_allclose(scores["f"], mean[factor] + weights @ (values - mean)[seen], rtol=1e-7, atol=1e-8)
    left = cov[factor, factor] - np.einsum("ij,ij->i", weights, cov[np.ix_(factor, seen)])
    assert_allclose(scores["f_se"], np.sqrt(left), rtol=1e-6)


def test_scores_of_new_rows_are_those_of_the_sample():
    data = sample()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(MODEL, data, cluster=["school", "class"])
        some = data[data["school"] < 3]
        again = fit.factor_scores(1, newdata=some)
    assert_allclose(again["f"], fit.factor_scores(1)["f"][: len(some)], rtol=1e-8, atol=1e-9)


SMALL = """
level: 1
  y1 ~ rv("s")*x + z
level: 2
  y1 ~ rv("t")*w
  y1 ~~ s
level: 3
  y1 ~~ y1
  s ~~ s
  t ~~ t
"""


def test_covariates_need_not_vary_among_new_rows():
    """What is known of a school by one row alone is what is known of it beside another school."""
    data = sample(schools=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(SMALL, data, cluster=["school", "class"])
    both = data[data["school"].isin([2, 7])].groupby("school").head(1)
    alone = both[:1]
    for ask in (
        lambda rows: fit.random_effects(level=3, newdata=rows),
        lambda rows: fit.factor_scores(2, newdata=rows),
        lambda rows: fit.factor_scores(3, newdata=rows),
        lambda rows: fit.predict(rows, random_effects=True),
    ):
        assert_allclose(ask(alone).to_numpy()[0], ask(both).to_numpy()[0], rtol=1e-9)


def test_a_singular_matrix_of_a_level_with_products_is_named():
    data = sample(schools=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(SMALL, data[data["school"] < 6], cluster=["school", "class"])
    (problem,) = (one for one in fit.problems if one.name == "boundary")
    assert "the covariance matrix of y1, s at level 2 is singular" in problem.cause
