"""Samples with random slopes: redrawn clusters, clusters left out, draws from a fit and from a population."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from numpy.testing import assert_allclose

import msem
import slope_cases
from msem.errors import DataError, UnsupportedError
from msem.estimation.objective import build_objective
from msem.resampling.replicates import ReplicateSource, ordinary_draws, parametric_draws, parametric_origin

MODEL = """
level: 1
  y1 ~ rv("s")*x1 + x3
level: 2
  y1 ~ w
  s ~ w
  y1 ~~ s
"""
POPULATION = """
level: 1
  y ~ rv("s")*x + 0.5*v
  z ~ 0.7*y + rv("t")*v
  y ~~ 1*y
  z ~~ 0.5*z
level: 2
  y ~ 0.3*w
  s ~ 0.2*w + 0.4*1
  y ~~ 0.5*y + 0.1*s
  s ~~ 0.3*s
  t ~~ 0.2*t
  t ~ 0.1*1
"""
FITTED = """
level: 1
  y ~ rv("s")*x + v
  z ~ y + rv("t")*v
level: 2
  y ~ w
  s ~ w
  y ~~ y + s
"""


@functools.cache
def sample():
    return slope_cases.sample(3, 60)


@functools.cache
def fitted(holes=False):
    data = slope_cases.with_holes(sample()) if holes else sample()
    return msem.sem(MODEL, data, cluster="id", missing="fiml" if holes else "listwise")


@pytest.mark.parametrize("holes", [False, True])
def test_redrawn_clusters_count_as_often_as_they_are_drawn(holes):
    fit = fitted(holes)
    draws = ordinary_draws(fit.estimate, fit.sample, 5)
    weights = draws.weights(3, 0)
    order = np.argsort(fit.sample.groups[0].identifiers)
    again = fit.statistics.redrawn(draws.statistics(3)[0])
    own = np.empty(len(weights))
    own[order] = weights
    logliks = fit.objective.cluster_loglik(fit.theta, fit.sample.groups[0].clusters)
    core = build_objective(fit.table, again).core
    assert core.value(fit.theta) == pytest.approx(-2 * own @ logliks, rel=1e-10)
    assert (again.nclusters, again.nobs) == (60, own @ fit.statistics.reduced.sizes)
    assert again.counts.sum() == pytest.approx(60)


def test_bootstrap_of_clusters():
    one = fitted().bootstrap(60, seed=1, threads=1, progress=False)
    two = fitted().bootstrap(60, seed=1, threads=2, progress=False)
    assert_allclose(one.array, two.array, rtol=1e-12)
    assert len(one.array) > 55
    assert_allclose(one.bse, fitted().standard_errors, rtol=1.0)
    found = fitted().bootstrap(4, statistic=lambda fit: fit.llf, seed=1, threads=1, progress=False)
    assert np.isfinite(found.array).all()


def test_without_a_cluster_it_is_the_fit_of_the_others():
    found = fitted().jackknife(threads=1, progress=False)
    for cluster in (4, 17):
        other = msem.sem(MODEL, sample()[sample()["id"] != cluster], cluster="id")
        assert_allclose(found.estimates.loc[(1, cluster)], other.params, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("holes", [False, True])
def test_draws_from_a_fit_have_its_moments(holes):
    """Whole clusters: means and covariances of reduced rows, and of what is left of them."""
    fit = fitted(holes)
    draws = parametric_draws(fit.estimate, fit.sample, 7)
    count, s = 4000, fit.statistics
    before, x3 = s.reduced.__getstate__(), s.unit.index("x3")
    origin = before[5]
    data = [draws.statistics(k)[0].__getstate__() for k in range(count)]
    j = 1
    begin, end = s.reduced.first[j], s.reduced.first[j + 1]
    values = np.array([d[8][0, begin:end] for d in data])
    # reduced rows are units with these covariates
    design = s.reduced.design[:, begin:end]
    seen = np.array([0 in before[13][r] for r in before[18][begin:end]])
    f = before[8][x3, begin:end] + design[0] * origin[x3]
    names = [(r.lhs, r.op, r.rhs, r.level) for r in fit.table.rows]
    value = dict(zip(names, fit.row_values, strict=True))
    w = s.reduced.cluster_values[j, 0]
    z = np.stack([design[0], design[1]])
    cov_u = np.array(
        [
            [value["y1", "~~", "y1", 2], value["y1", "~~", "s", 2]],
            [value["y1", "~~", "s", 2], value["s", "~~", "s", 2]],
        ]
    )
    mean_u = np.array(
        [
            value["y1", "~1", "", 2] + value["y1", "~", "w", 2] * w,
            value["s", "~1", "", 2] + value["s", "~", "w", 2] * w,
        ]
    )
    mean = mean_u @ z + value["y1", "~", "x3", 1] * f - design[0] * origin[0]
    cov = z.T @ cov_u @ z + value["y1", "~~", "y1", 1] * np.eye(end - begin)
    assert_allclose(values.mean(axis=0)[seen], mean[seen], atol=5 * np.sqrt(cov.diagonal().max() / count))
    error = 5 * cov.diagonal().max() * np.sqrt(2 / count)
    found = np.cov(values.T).reshape(end - begin, -1)
    assert_allclose(found[np.ix_(seen, seen)], cov[np.ix_(seen, seen)], atol=error)
    # beyond the rows: a regression on the covariate with independent residuals
    rest = np.array([d[12][0] for d in data])
    known, beta, psi = before[12][0][x3, x3], value["y1", "~", "x3", 1], value["y1", "~~", "y1", 1]
    df = (before[17] - np.diff(before[16]))[before[15] == 0].sum()  # units less rows
    assert_allclose(rest[:, x3, x3], known)
    assert rest[:, 0, x3].mean() == pytest.approx(beta * known, abs=5 * np.sqrt(psi * known / count))
    expected = psi * df + beta**2 * known
    assert rest[:, 0, 0].mean() == pytest.approx(expected, abs=5 * rest[:, 0, 0].std() / np.sqrt(count))


def test_bootstrap_of_a_model():
    found = fitted().bootstrap(40, kind="parametric", seed=2, progress=False)
    assert len(found.array) > 36
    assert_allclose(found.bse, fitted().standard_errors, rtol=0.8)
    source = ReplicateSource(
        fitted().estimate, fitted().sample, parametric_origin(fitted().estimate, fitted().sample, 2)
    )
    estimate, _ = source.fitted(int(found.numbers[0]), found.array[0], 0.0)
    assert np.abs(estimate.objective.gradient(found.array[0]) * fitted().standard_errors).max() < 1e-3


def test_covariates_that_are_outcomes_are_not_drawn_again():
    fit = msem.sem('level: 1\n y1 ~ rv("s")*x2\n x2 ~ x3\nlevel: 2\n y1 ~~ y1', sample(), cluster="id")
    with pytest.raises(DataError, match="'x2' has a random slope and is an outcome itself"):
        fit.bootstrap(10, kind="parametric", progress=False)


def test_simulated_data_have_the_slopes_of_the_population():
    data = msem.simulate(POPULATION, nclusters=2000, cluster_sizes=[4, 7], seed=3)
    fit = msem.sem(FITTED, data, cluster="cluster")
    truth = {
        ("y", "~", "v", 1): 0.5,
        ("z", "~", "y", 1): 0.7,
        ("s", "~~", "s", 2): 0.3,
        ("t", "~~", "t", 2): 0.2,
        ("s", "~1", "", 2): 0.4,
        ("t", "~1", "", 2): 0.1,
        ("s", "~", "w", 2): 0.2,
        ("y", "~~", "s", 2): 0.1,
        ("y", "~~", "y", 2): 0.5,
        ("z", "~~", "z", 1): 0.5,
    }
    for row, est, se in zip(fit.table.rows, fit.row_values, fit.row_errors, strict=True):
        value = truth.pop((row.lhs, row.op, row.rhs, row.level), None)
        assert value is None or abs(est - value) < 4 * se
    assert not truth
    again = msem.simulate(fit, seed=4)
    assert len(again) == len(data)
    with pytest.raises(UnsupportedError, match='draw as_="data"'):
        msem.simulate(POPULATION, nclusters=20, cluster_sizes=5, as_="statistics")


SMALL = """
level: 1
  y ~ rv("s")*x
  y ~~ 1*y
level: 2
  y ~ 0.3*w
  s ~ 0.4*1
  y ~~ 0.5*y
  s ~~ 0.3*s
"""


def test_many_fits_and_power_of_slopes():
    design, text = {"nclusters": 60, "cluster_sizes": 8}, 'level: 1\n y ~ rv("s")*x\nlevel: 2\n y ~ w'
    one, two = msem.simulate(SMALL, **design, seed=3, replications=2)
    many = msem.compile(text, cluster="cluster").fit_many([one, two], progress=False)
    assert_allclose(many.params.iloc[1], msem.sem(text, two, cluster="cluster").params, rtol=1e-8)
    found = msem.power(text, SMALL, design, replications=5, seed=1, progress=False).parameters
    truth = found.set_index(["lhs", "op", "rhs", "level"])["population"]
    assert (truth["y", "~", "w", 2], truth["s", "~1", "", 2]) == (0.3, 0.4)
    with pytest.raises(UnsupportedError, match="has to be that of the population, and does not have y~w"):
        msem.power(text.replace("y ~ w", "y ~~ y"), SMALL, design, replications=2, progress=False)


def test_statistics_of_single_clusters_are_enough():
    """Of streams, of parts of clusters put together, and of groups."""
    data = sample().drop(columns=["time"])
    parts = [
        msem.summarize(part, cluster="id", keep_clusters=True) for part in (data.iloc[::2], data.iloc[1::2])
    ]
    for estimator in ("ML", "MLR"):
        rows = msem.sem(MODEL, data, cluster="id", estimator=estimator)
        fit = msem.sem(MODEL, parts[0] + parts[1], estimator=estimator)
        assert fit.llf == pytest.approx(rows.llf, abs=1e-9)
        assert_allclose(fit.params, rows.params, rtol=1e-7)
        assert_allclose(fit.standard_errors, rows.standard_errors, rtol=1e-7)
        assert fit.chisq == pytest.approx(rows.chisq, abs=1e-7)
    whole = parts[0] + parts[1]
    assert len(msem.sem(MODEL, whole).bootstrap(20, seed=1, progress=False).array) > 15
    half = {
        label: msem.summarize(part, cluster="id", keep_clusters=True)
        for label, part in data.groupby(np.where(data["id"] < 30, "a", "b"))
    }
    grouped = msem.sem(
        MODEL, data.assign(half=np.where(data["id"] < 30, "a", "b")), cluster="id", group="half"
    )
    assert msem.sem(MODEL, half).llf == pytest.approx(grouped.llf, abs=1e-8)
    with pytest.raises(UnsupportedError, match="keep_clusters=True"):
        msem.sem(MODEL, msem.summarize(data, cluster="id"))
    with pytest.raises(DataError, match="newdata"):
        msem.sem(MODEL, whole).factor_scores(2)


def normal_loglik(values):
    """Log-densities of rows at the maximum of a normal distribution."""
    values = values.to_numpy(float).reshape(len(values), -1)
    off = values - values.mean(axis=0)
    cov = off.T @ off / len(off)
    quadratic = np.einsum("ij,ij->i", off @ np.linalg.inv(cov), off)
    return -0.5 * (quadratic + np.log(np.linalg.det(2 * np.pi * cov)))


@pytest.mark.parametrize("holes", [False, True])
def test_log_likelihoods_of_clusters_are_given_the_covariates(holes):
    fit = fitted(holes)
    found = fit.cluster_loglik()
    assert found.sum() == pytest.approx(fit.llf, abs=1e-9)
    whole = fit.objective.cluster_loglik(fit.theta, fit.sample.groups[0].clusters)
    units = sample().assign(own=normal_loglik(sample()[["x1", "x3"]])).groupby("id")["own"].sum()
    clusters = sample().groupby("id")["w"].first()
    given = units + normal_loglik(clusters)
    assert_allclose(found, whole - given.loc[found.index].to_numpy(), rtol=1e-10, atol=1e-10)
