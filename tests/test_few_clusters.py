"""Tests with corrections for few clusters, and intervals on the scales on which they hold."""

from __future__ import annotations

from functools import cache
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import UnsupportedError
from msem.estimation.smallsamples import LevelShape, small_sample_factor

ITEMS = [f"y{k}" for k in range(1, 7)]
FACTOR = "fw =~ " + " + ".join(ITEMS)
BETWEEN = "fb =~ " + " + ".join(ITEMS) + "\n fb ~ a*w1 + b*w2\n ab := a*b"
MODEL = f"level: 1\n {FACTOR}\nlevel: 2\n {BETWEEN}"
TESTS = ["yty", "bartlett", "swain", "hotelling"]


@cache
def few() -> pd.DataFrame:
    data = msem.load_demo()
    return data[data["cluster"] % 5 == 0]  # 40 clusters


@cache
def fit() -> msem.Fit:
    return msem.sem(MODEL, few(), cluster="cluster", test=TESTS, ci="transformed")


@pytest.mark.parametrize(
    ("test", "shape", "count", "factor"),
    [
        ("bartlett", LevelShape(8, 2, 17), 30, 1 - 29 / 174),
        ("yuan_tian_yanagihara", LevelShape(8, 2, 17), 30, (30 - 2.381 - 2.888 - 0.102) / 29),
        ("swain", LevelShape(4, 1, 8), 20, 0.8902),  # r = 3.53113: 1 - (172 - 121.93) / 456
        ("bartlett", LevelShape(8, 2, 17), 5, 0.0),
        ("swain", LevelShape(3, 1, 6), 20, 1.0),
    ],
)
def test_factors(test: str, shape: LevelShape, count: int, factor: float) -> None:
    assert_allclose(small_sample_factor(test, shape, count), factor, atol=5e-5)


def test_the_between_share_is_corrected() -> None:
    """The share is the chi-square of the between level with within covariances written out."""
    within = "\n ".join(f"{a} ~~ {b}" for a, b in combinations_with_replacement(ITEMS, 2))
    alone = msem.sem(f"level: 1\n {within}\nlevel: 2\n {BETWEEN}", few(), cluster="cluster")
    share, whole = alone.fit_measures()["chisq"], fit().fit_measures()["chisq"]
    assert 0 < share < whole
    # 8 variables, 1 factor; 6 loadings and slopes beside the marker, 2 slopes, 7 variances, 3 moments of w
    n, q = 39, 5 + 2 + 7 + 3
    factors = {
        "bartlett": 1 - (16 + 4 + 5) / (6 * n),
        "yuan_tian_yanagihara": (40 - 2.381 - 0.361 * 8 - 0.006 * q) / n,
    }
    tests = fit().tests()
    for name, factor in factors.items():
        assert_allclose(tests.loc[name, "statistic"], whole - (1 - factor) * share, rtol=1e-6)
        assert_allclose(
            tests.loc[name, "pvalue"], stats.chi2.sf(tests.loc[name, "statistic"], fit().df), rtol=1e-9
        )
    assert tests.loc["swain", "statistic"] < whole


@pytest.mark.filterwarnings("ignore:several_maxima")
def test_a_single_level_is_corrected_as_a_whole() -> None:
    single = msem.sem(FACTOR, few().head(30), test="bartlett")
    found = single.tests()["statistic"]
    assert_allclose(found["bartlett"], found["standard"] * (1 - (12 + 4 + 5) / (6 * 29)), rtol=1e-9)


def test_hotelling_of_means_is_the_textbook_test() -> None:
    """A model that fixes three means at 0 and nothing else."""
    y = few()[["y1", "y2", "y3"]].head(25) + 0.4
    n, p = y.shape
    text = "y1 ~~ y2 + y3\ny2 ~~ y3\n" + "\n".join(f"{name} ~ 0*1" for name in y)
    mean, cov = y.mean().to_numpy(), y.cov().to_numpy()
    f = (n - p) / ((n - 1) * p) * n * mean @ np.linalg.solve(cov, mean)
    # the information is taken where it is known in closed form
    found = msem.sem(text, y, test="hotelling", information="observed").tests().loc["hotelling"]
    assert_allclose(found[["statistic", "df", "df2"]].astype(float), [f, p, n - p], rtol=1e-6)
    assert_allclose(found["pvalue"], stats.f.sf(f, p, n - p), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_hotelling_needs_more_clusters_than_degrees_of_freedom() -> None:
    data = msem.load_demo()
    found = msem.sem(MODEL, data[data["cluster"] <= 20], cluster="cluster", test="hotelling").tests()
    assert found.loc["hotelling", "df2"] < 0
    assert np.isnan(found.loc["hotelling", "pvalue"])


def test_intervals_on_other_scales() -> None:
    plain = msem.sem(MODEL, few(), cluster="cluster")
    z = stats.norm.ppf(0.975)
    table, wald = fit().estimates(), plain.estimates()
    assert_allclose(table[["est", "se"]], wald[["est", "se"]], rtol=1e-9)
    variance = (table["op"] == "~~") & (table["lhs"] == table["rhs"]) & (table["se"] > 0) & (table["est"] > 0)
    chosen = table[variance]
    assert_allclose(np.log(chosen["ci_upper"]), np.log(chosen["est"]) + z * chosen["se"] / chosen["est"])
    assert_allclose(chosen["ci_lower"] * chosen["ci_upper"], chosen["est"] ** 2)
    others = ~variance & (table["op"] != ":=")
    assert_allclose(table[others]["ci_lower"], wald[others]["ci_lower"], rtol=1e-9)
    defined = fit().defined(method="monte_carlo")
    assert_allclose(table[table["op"] == ":="]["ci_upper"], defined["ci_upper"])
    limits = fit().conf_int().loc["fb~~fb.l2"]
    row = table[(table["lhs"] == "fb") & (table["rhs"] == "fb")].iloc[0]
    assert_allclose(limits, row[["ci_lower", "ci_upper"]].astype(float))
    std = fit().standardized().query("op == '=~' and level == 2").iloc[1]
    half = z * std["se"] / (1 - std["est_std"] ** 2)
    centre = float(np.arctanh(std["est_std"]))
    assert_allclose(np.arctanh(std["ci_lower"]), centre - half)
    assert_allclose(np.arctanh(std["ci_upper"]), centre + half)


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_the_summary_says_when_the_plain_test_is_not_to_be_believed() -> None:
    data = msem.load_demo()
    small = msem.sem(MODEL, data[data["cluster"] % 7 == 0], cluster="cluster")
    said = " ".join(small.summary().split())
    assert "few clusters: with 28 the chi-square of the between level rejects a true model" in said
    text = fit().summary()
    assert "Model Test User Model, Small Samples:" in text
    assert "Yuan-Tian-Yanagihara correction" in text
    assert "few clusters:" not in text
    assert "few clusters:" not in msem.sem(MODEL, data, cluster="cluster").summary()


def test_levels_that_share_parameters_have_no_share() -> None:
    tied = "level: 1\n fw =~ y1 + l*y2 + y3 + y4\nlevel: 2\n fb =~ y1 + l*y2 + y3 + y4"
    with pytest.raises(UnsupportedError, match="corrects the between share"):
        msem.sem(tied, few(), cluster="cluster", test="swain")
