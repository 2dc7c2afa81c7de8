"""Ordered variables by maximum likelihood with two and three dimensions whose variances between clusters are great.

Clusters whose units are all in one category have effects that are anything but normal given the data. The oracle is a
dense rule over a box of the effects themselves.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import msem


def sample(variance, units, clusters, items, seed=1):
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(clusters), units)
    cov = variance * (0.5 + 0.5 * np.eye(items))
    effects = rng.multivariate_normal(np.zeros(items), cov, clusters)
    y = effects[cluster] + rng.normal(size=(cluster.size, items))
    cuts = [0.3, -0.5, 0.0][:items]
    return pd.DataFrame({f"u{k + 1}": (y[:, k] > cuts[k]).astype(int) for k in range(items)} | {"g": cluster})


def logliks(data, cuts, cov, step):
    """Of the different clusters, as often as there are such."""
    items = len(cuts)
    sums = data.groupby("g")[[f"u{k + 1}" for k in range(items)]].sum().to_numpy()
    units = len(data) // len(sums)
    ends = [np.arange(-9 * s, 9 * s + step, step) for s in np.sqrt(np.diag(cov))]
    inverse = np.linalg.inv(cov)
    grids = np.ix_(*ends)
    square = sum(inverse[i, j] * grids[i] * grids[j] for i in range(items) for j in range(items))
    prior = -0.5 * (square + np.linalg.slogdet(cov)[1] + items * np.log(2 * np.pi)) + items * np.log(step)
    total = 0.0
    for ones, count in zip(*np.unique(sums, axis=0, return_counts=True), strict=True):
        logs = prior
        for k in range(items):
            z = cuts[k] - grids[k]  # along one axis
            logs = logs + ones[k] * stats.norm.logsf(z) + (units - ones[k]) * stats.norm.logcdf(z)
        top = logs.max()
        total += count * (top + np.log(np.exp(logs - top).sum()))
    return total


@pytest.mark.parametrize(("variance", "units"), [(4, 4), (4, 40), (30, 4), (30, 40)])
def test_two_dimensions_with_great_variances(variance, units):
    model = "level: 1\nu1 ~~ 1*u1\nu2 ~~ 1*u2\nlevel: 2\nu1 ~~ u1 + u2\nu2 ~~ u2"
    data = sample(variance, units, 30, 2)
    fit = msem.sem(model, data, ordered=["u1", "u2"], cluster="g", estimator="ML")
    assert fit.status == "ok"
    names = ["u1|t1.l2", "u2|t1.l2", "u1~~u1.l2", "u1~~u2.l2", "u2~~u2.l2"]
    at, se = fit.params[names].to_numpy(), fit.bse[names].to_numpy()

    def loglik(theta):
        return logliks(data, theta[:2], np.array([[theta[2], theta[3]], [theta[3], theta[4]]]), 0.2)

    assert fit.llf == pytest.approx(loglik(at), abs=2e-4)
    for step in np.diag(0.02 * se):
        slope = (loglik(at + step) - loglik(at - step)) / 0.04  # in standard errors
        assert abs(slope) < 1e-3


@pytest.mark.parametrize("units", [3, 15])
def test_three_dimensions_with_great_variances(units):
    model = "level: 1\nu1 ~~ 1*u1\nu2 ~~ 1*u2\nu3 ~~ 1*u3\nlevel: 2\n"
    model += "u1 ~~ 10*u1 + 5*u2 + 5*u3\nu2 ~~ 10*u2 + 5*u3\nu3 ~~ 10*u3\nu1 | 0.3*t1\nu2 | -0.5*t1"
    data = sample(10, units, 5, 3)
    fit = msem.sem(model, data, ordered=["u1", "u2", "u3"], cluster="g", estimator="ML")
    assert fit.status == "ok"
    cuts = [0.3, -0.5, fit.params["u3|t1.l2"]]
    assert fit.llf == pytest.approx(logliks(data, cuts, 5 + 5 * np.eye(3), 0.35), abs=1e-4)
