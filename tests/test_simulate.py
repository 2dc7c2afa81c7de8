"""Samples drawn from a population: moments and distribution against theory, and what is no population."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import msem
from msem.data.arrays import square_root
from msem.errors import DataError, ModelError, MsemWarning
from msem.fits.simulate import read_population
from msem.simulation.designs import by_group, read_clusters
from msem.simulation.shapes import fleishman
from populations import DEMO, DEMO_POPULATION, REGRESSION

SMALL = """
level: 1
  y1 ~ 0.5*x
  y1 ~~ 1*y1
  y2 ~~ 0.8*y2 + 0.3*y1
level: 2
  y1 ~~ 0.5*y1
  y2 ~~ 0.4*y2 + 0.2*y1
  z ~~ 1*z + 0.3*y1
  y1 ~ 2*1
"""
WITHIN = np.array([[1.25, 0.3, 0.5], [0.3, 0.8, 0.0], [0.5, 0.0, 1.0]])  # y1, y2, x
BETWEEN = np.array([[0.5, 0.2, 0.3], [0.2, 0.4, 0.0], [0.3, 0.0, 1.0]])  # y1, y2, z
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / np.sqrt(2 * np.pi)


def moments_of(coefficients):
    """Mean, variance, skewness and excess kurtosis of a polynomial of a normal variable, by exact quadrature."""
    x = np.polynomial.polynomial.polyval(NODES, coefficients)
    mean = WEIGHTS @ x
    centred = x - mean
    variance = WEIGHTS @ centred**2
    return mean, variance, WEIGHTS @ centred**3 / variance**1.5, WEIGHTS @ centred**4 / variance**2 - 3


def test_a_text_says_the_moments() -> None:
    moments = read_population(SMALL).moments()
    assert read_population(SMALL).variables.measured == (("y1", "y2", "x"), ("z",))
    assert_allclose(moments[1].cov, WITHIN, atol=1e-12)
    assert_allclose(moments[2].cov, BETWEEN, atol=1e-12)
    assert_allclose(moments[2].mean, [2, 0, 0])


@pytest.mark.parametrize("distribution", ["normal", msem.MultivariateT(12)], ids=["normal", "t"])
def test_statistics_have_the_expectations_of_theory(distribution: object) -> None:
    sizes, count = {2: 10, 5: 20}, 3000
    drawn = msem.simulate(
        SMALL, cluster_sizes=sizes, seed=3, replications=count, as_="statistics", distribution=distribution
    )
    several = [drawn[k] for k in range(count)]
    ssw = np.array([s.ssw for s in several])
    assert_within_errors(ssw, (120 - 30) * WITHIN)
    for k, (n, j) in enumerate(sizes.items()):
        cov = np.zeros((4, 4))
        cov[:3, :3] = WITHIN / n
        level2 = np.ix_([0, 1, 3], [0, 1, 3])
        cov[level2] += BETWEEN
        assert_within_errors(np.array([s.scatter[k] for s in several]), (j - 1) * cov)
        means = np.array([s.means[k] for s in several])
        assert_within_errors(means, [2, 0, 0, 0])
        if distribution == "normal":
            # means of normal vectors: covariance matrix cov / j, and independent of the scatter
            assert_within_errors(j * np.einsum("ri,rj->rij", means - [2, 0, 0, 0], means - [2, 0, 0, 0]), cov)
    if distribution == "normal":
        # elements of a Wishart matrix on f degrees of freedom: variance f (s_ij^2 + s_ii s_jj)
        spread = 90 * (WITHIN**2 + np.outer(WITHIN.diagonal(), WITHIN.diagonal()))
        assert_within_errors((ssw - 90 * WITHIN) ** 2, spread)


def assert_within_errors(values: np.ndarray, expected: object, limit: float = 5.0) -> None:
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) + 1e-12
    assert np.abs((values.mean(axis=0) - np.asarray(expected)) / error).max() < limit


@pytest.mark.parametrize(
    "distribution",
    [
        "normal",
        msem.MultivariateT(9),
        msem.NonNormal(1.0, 2.5),
        {"between": msem.NonNormal({"y1": -1.0}, {"y1": 2.0})},
    ],
    ids=["normal", "t", "skewed", "one variable"],
)
def test_rows_have_the_moments_of_the_population(distribution: object) -> None:
    frame = msem.simulate(SMALL, nclusters=20000, cluster_sizes=3, seed=8, distribution=distribution)
    assert list(frame.columns) == ["cluster", "y1", "y2", "x", "z"]
    by_cluster = frame.groupby("cluster")
    within = (frame[["y1", "y2", "x"]] - by_cluster[["y1", "y2", "x"]].transform("mean")).to_numpy()
    products = np.einsum("ri,rj->rij", within, within).reshape(20000, 3, 3, 3).sum(axis=1)
    assert_within_errors(products, 2 * WITHIN)
    means = by_cluster[["y1", "y2", "z"]].mean().to_numpy() - [2, 0, 0]
    expected = BETWEEN.copy()
    expected[:2, :2] += WITHIN[:2, :2] / 3
    assert_within_errors(np.einsum("ri,rj->rij", means, means), expected)
    assert (by_cluster["z"].max() == by_cluster["z"].min()).all()


def test_rows_have_the_skewness_and_kurtosis_asked_for() -> None:
    text = "level: 1\n y ~~ 1e-12*y\nlevel: 2\n y ~~ 2*y\n z ~~ 1*z + 0.5*y"
    shape = msem.NonNormal({"y": 1.5, "z": -0.5}, {"y": 4.0, "z": 1.0})
    frame = msem.simulate(text, nclusters=200_000, cluster_sizes=1, seed=5, distribution={"between": shape})
    for name, skewness, kurtosis, error in (("y", 1.5, 4.0, 0.6), ("z", -0.5, 1.0, 0.1)):
        x = frame[name] / frame[name].std()
        assert (x**3).mean() == pytest.approx(skewness, abs=0.06)
        assert (x**4).mean() - 3 == pytest.approx(kurtosis, abs=error)
    assert frame[["y", "z"]].cov().to_numpy() == pytest.approx(np.array([[2, 0.5], [0.5, 1]]), abs=0.03)


def test_heavy_tails_are_those_of_the_t_distribution() -> None:
    frame = msem.simulate(
        SMALL, nclusters=100_000, cluster_sizes=1, seed=2, distribution={2: msem.MultivariateT(9)}
    )
    z = frame["z"]
    assert z.var() == pytest.approx(1, abs=0.02)
    assert (z**4).mean() / z.var() ** 2 - 3 == pytest.approx(6 / (9 - 4), abs=0.25)


@settings(max_examples=200, deadline=None)
@given(st.floats(-2.5, 2.5), st.floats(0.05, 3))
def test_polynomials_have_the_moments_asked_for(skewness: float, more: float) -> None:
    kurtosis = -1.13168 + 1.58837 * skewness**2 + 0.4 + more
    found = moments_of(fleishman(skewness, kurtosis))
    assert_allclose(found, [0, 1, skewness, kurtosis], atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.5, 3))
def test_kurtosis_too_small_for_the_skewness_is_refused(skewness: float) -> None:
    with pytest.raises(DataError, match="kurtosis must be above"):
        fleishman(skewness, -1.6 + 1.5 * skewness**2)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 6))
def test_square_roots(seed: int, n: int, rank: int) -> None:
    a = np.random.default_rng(seed).normal(size=(n, rank)) * 10.0 ** np.arange(n)[:, None]
    root = square_root(a @ a.T)
    scale = np.sqrt(np.outer(*(np.diag(a @ a.T),) * 2))
    assert_allclose(root @ root.T / scale, a @ a.T / scale, atol=1e-12)


def test_samples_depend_on_seed_and_number_only() -> None:
    for kind in ("data", "statistics"):
        given = {"nclusters": 12, "cluster_sizes": [3, 4], "as_": kind}
        several = msem.simulate(SMALL, seed=9, replications=5, **given)
        one = msem.simulate(SMALL, seed=9, **given)
        other = msem.simulate(SMALL, seed=10, **given)
        equal = (lambda a, b: a.equals(b)) if kind == "data" else (lambda a, b: a == b)
        assert equal(several[0], one)
        assert equal(several[3], several[2:][1])
        assert equal(several[-1], several[4])
        assert not equal(one, other)
        assert not equal(several[0], several[1])
        assert len(several) == 5
        assert "seed 9" in repr(several)


def test_estimates_in_simulated_samples_are_those_of_the_population() -> None:
    drawn = msem.simulate(
        DEMO_POPULATION, nclusters=4000, cluster_sizes=[5, 10, 20], seed=1, as_="statistics"
    )
    fit = msem.sem(DEMO, drawn)
    truth = read_population(DEMO_POPULATION).truth()
    table = fit.estimates()
    table = table[table["se"] > 0]
    expected = [
        truth[key] for key in table[["lhs", "op", "rhs", "level", "group"]].itertuples(index=False, name=None)
    ]
    assert (np.abs(table["est"] - expected) / table["se"]).max() < 4


def test_a_fit_is_a_population() -> None:
    data = msem.load_demo()
    fit = msem.sem(DEMO, data, cluster="cluster")
    drawn = msem.simulate(fit, seed=1, as_="statistics")
    assert drawn.counts.tolist() == fit.statistics.counts.tolist()
    moments = read_population(fit).moments()
    assert_allclose(moments[1].cov, fit.implied.within.cov, atol=1e-10)
    assert_allclose(moments[2].cov, fit.implied.between.cov, atol=1e-10)
    frame = msem.simulate(fit, seed=1, nclusters=7, cluster_sizes=3, cluster="school")
    assert frame["school"].tolist() == np.repeat(np.arange(1, 8), 3).tolist()


def test_groups_are_drawn_by_themselves() -> None:
    text = "group: a\n y ~~ 1*y\n y ~ 1*1\ngroup: b\n y ~~ 4*y\n y ~ -1*1"
    frame = msem.simulate(text, nobs={"a": 3000, "b": 1000}, seed=4, group="country")
    assert frame["country"].value_counts().to_dict() == {"a": 3000, "b": 1000}
    assert frame.groupby("country")["y"].var().to_numpy() == pytest.approx([1, 4], rel=0.15)
    statistics = msem.simulate(text, nobs=50, seed=4, as_="statistics")
    assert {label: s.nobs for label, s in statistics.items()} == {"a": 50, "b": 50}
    assert (
        msem.sem(
            text.replace("1*", "").replace("4*", "").replace("-1", "1").replace("~ -", "~ "), statistics
        ).nobs
        == 100
    )


def test_one_level() -> None:
    frame = msem.simulate(REGRESSION, nobs=50_000, seed=1)
    assert list(frame.columns) == ["y", "x"]
    assert frame.cov().to_numpy() == pytest.approx(np.array([[1.09, 0.3], [0.3, 1]]), abs=0.03)
    assert frame["y"].mean() == pytest.approx(2, abs=0.03)


def test_a_residual_variance_of_zero_can_be_drawn_as_data() -> None:
    text = "f =~ 1*y1 + 2*y2\nf ~~ 1*f\ny1 ~~ 0*y1\ny2 ~~ 1*y2"
    frame = msem.simulate(text.replace("y2 ~~ 1", "y2 ~~ 0"), nobs=10, seed=1)
    assert_allclose(frame["y2"], 2 * frame["y1"])
    with pytest.raises(ModelError, match=r'no density.*as_="data"'):
        msem.simulate(text.replace("y2 ~~ 1", "y2 ~~ 0"), nobs=10, seed=1, as_="statistics")


NO_POPULATION = [
    ("f =~ 1*y1 + y2\nf ~~ 1*f\ny1 ~~ 1*y1\ny2 ~~ 1*y2", "no value for f=~y2"),
    ("y ~ x\ny ~~ 1*y", "no value for y~x"),
    ("y ~ 0.5*x", "no value for y~~y"),
    ("y ~ 0.5*x\ny ~~ -1*y", r"negative variance of y \(-1\)"),
    ("y ~~ 1*y\nx ~~ 1*x\ny ~~ 1.5*x", "covariances of y, x"),
    ("y1 ~ 1*y2\ny2 ~ 1*y1\ny1 ~~ 1*y1\ny2 ~~ 1*y2", "no reduced form"),
    ("y ~ a*x + start(1)*x + b*z + start(2)*z\ny ~~ 1*y\na == b", "do not meet 'a == b' .by 1"),
    ("level: 1\n y ~~ 1*y\nlevel: 2\n y ~~ -0.1*y", "at the between level of y"),
]


@pytest.mark.parametrize(("text", "message"), NO_POPULATION)
def test_what_is_no_population_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        msem.simulate(text, nobs=10)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "cluster_sizes"),
        ({"cluster_sizes": 5}, "nclusters"),
        ({"nclusters": 2, "cluster_sizes": [1, 2, 3]}, "3 sizes for 2 clusters"),
        ({"nclusters": 3, "cluster_sizes": {5: 4}}, "nclusters is 3 and cluster_sizes has 4"),
        ({"nclusters": 3, "cluster_sizes": "many"}, "not 'many'"),
        ({"nclusters": 3, "cluster_sizes": 0}, "at least 1"),
        ({"nclusters": 0, "cluster_sizes": 3}, "at least 1"),
        ({"nclusters": 3, "cluster_sizes": 3, "nobs": 4}, "no nobs"),
        ({"nclusters": {"a": 1}, "cluster_sizes": 3}, "whole number"),
        ({"nclusters": 20, "cluster_sizes": 3, "as_": "frames"}, "as_ must be one of"),
        ({"nclusters": 20, "cluster_sizes": 3, "distribution": "uniform"}, "MultivariateT"),
        (
            {"nclusters": 20, "cluster_sizes": 3, "distribution": {"top": "normal"}},
            "level must be 1 or 'within'",
        ),
        ({"nclusters": 20, "cluster_sizes": 3, "distribution": msem.NonNormal(3, 1)}, "asked for y1"),
        (
            {"nclusters": 20, "cluster_sizes": 3, "distribution": msem.NonNormal({"q": 1}, 2)},
            "no variable 'q'",
        ),
        ({"nclusters": 20, "cluster_sizes": 3, "cluster": "y1"}, "'y1' is a variable of the model"),
        ({"nclusters": 20, "cluster_sizes": 3, "seed": -1}, "seed"),
        ({"nclusters": 20, "cluster_sizes": 3, "replications": 0}, "replications"),
    ],
)
def test_designs_that_cannot_be_are_named(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        msem.simulate(SMALL, **given)


@pytest.mark.parametrize("df", [2, 1, True, np.inf, np.nan])
def test_heavy_tails_need_a_covariance_matrix(df: float) -> None:
    with pytest.raises(ValueError, match="df must be more than 2"):
        msem.MultivariateT(df)


def test_cluster_sizes_in_every_form() -> None:
    assert read_clusters(5, [2, 3]).sizes == (2, 3, 2, 3, 2)
    assert read_clusters(None, [4, 1]).sizes == (4, 1)
    assert read_clusters(None, {3: 2, 1: 1}).sizes == (1, 3, 3)
    assert read_clusters(2, np.int64(3)).sizes == (3, 3)
    assert by_group({5: 2}, ["a", "b"]) == [{5: 2}, {5: 2}]
    assert by_group({"b": 1, "a": 2}, ["a", "b"]) == [2, 1]
    with pytest.raises(DataError, match="the groups are a, b"):
        by_group({"a": 1}, ["a", "b"])


@pytest.mark.parametrize("kind", [np.array, pd.Series], ids=["ndarray", "Series"])
def test_cluster_sizes_may_be_an_array(kind: type) -> None:
    given = kind([3, 5, 2])
    assert read_clusters(None, given) == read_clusters(None, [3, 5, 2])
    assert read_clusters(6, given) == read_clusters(6, [3, 5, 2])


def test_columns_of_a_sample_are_named_as_in_the_data_of_the_fit() -> None:
    data = msem.load_demo().rename(columns={"cluster": "school"})
    data["region"] = np.where(data["school"] % 2, "north", "south")
    model = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"
    fit = msem.sem(model, data, cluster="school", group="region")
    drawn = msem.simulate(fit, seed=3)
    assert {"school", "region"} < set(drawn.columns)
    assert msem.sem(model, drawn, cluster="school", group="region").converged
    assert {"cluster", "block"} < set(msem.simulate(fit, seed=3, cluster="cluster", group="block").columns)


def test_a_fit_without_a_maximum_is_no_population() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        fit = msem.sem(DEMO, msem.load_demo(), cluster="cluster", max_iterations=1)
    with pytest.raises(ModelError, match="has not converged"):
        msem.simulate(fit)
    with pytest.raises(TypeError, match="not DataFrame"):
        msem.simulate(pd.DataFrame())
