"""Rubin's rules and pooled tests against their printed formulas and against each other where they must agree."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import stats

import msem
from msem.errors import DataError, ModelError, MsemError, UnsupportedError
from msem.fits.pooling import pooled_ratio, pooled_statistics, pooled_wald

M = 4
FULL = "y ~ b0*1 + b1*x + b2*z\ny ~~ 1*y"
NULL = "y ~ 1 + 0*x + 0*z\ny ~~ 1*y"


@pytest.fixture(scope="module")
def imputations():
    """Complete covariates, and an outcome of which some values are drawn."""
    rng = np.random.default_rng(5)
    n = 80
    data = pd.DataFrame(rng.normal(size=(n, 2)), columns=["x", "z"])
    y = 0.3 * data["x"] + rng.normal(size=n)
    drawn = rng.random(n) < 0.3
    return [data.assign(y=np.where(drawn, 0.3 * data["x"] + rng.normal(size=n), y)) for _ in range(M)]


@pytest.fixture(scope="module")
def pooled(imputations):
    return msem.pool([msem.sem(FULL, data) for data in imputations])


@pytest.fixture(scope="module")
def smaller(imputations):
    return msem.pool([msem.sem(NULL, data) for data in imputations])


def test_rubins_rules(pooled):
    est = np.array([fit.params for fit in pooled.fits])
    w = np.mean([fit.cov_params() for fit in pooled.fits], axis=0)
    b = np.cov(est.T)
    assert_allclose(pooled.params, est.mean(axis=0))
    assert_allclose(pooled.cov_params(), w + (1 + 1 / M) * b)
    table = pooled.estimates().set_index("label").loc[["b0", "b1", "b2"]]
    riv = (1 + 1 / M) * np.diag(b) / np.diag(w)
    df = (M - 1) * (1 + 1 / riv) ** 2
    assert_allclose(table["riv"], riv)
    assert_allclose(table["df"], df)
    assert_allclose(table["se"], pooled.bse)
    assert_allclose(table["fmi"], (riv + 2 / (df + 3)) / (1 + riv))
    assert_allclose(table["pvalue"], 2 * stats.t.sf(np.abs(pooled.params / pooled.bse), df))
    assert_allclose(table["ci_upper"], pooled.params + stats.t.ppf(0.975, df) * pooled.bse)
    fixed = pooled.estimates().query("op == '~~' and lhs == 'y'").iloc[0]
    assert (fixed["est"], fixed["se"], fixed["ci_upper"]) == (1.0, 0.0, 1.0)
    assert pooled.params["y ~ x"] == pooled.params["b1"]


def test_tests_agree_where_the_likelihood_is_quadratic(pooled, smaller):
    """With known variances the log-likelihood is quadratic with the same curvature in all imputations: D1 = D3 = D4."""
    d1 = pooled.wald_test(["b1 == 0", "b2 == 0"])
    d3 = pooled.likelihood_ratio(smaller, "D3")
    d4 = pooled.likelihood_ratio(smaller)
    for other in (d3, d4):
        assert other.statistic == pytest.approx(d1.statistic, rel=1e-6)
        assert other.increase == pytest.approx(d1.increase, rel=1e-5)
    assert d3.df_denominator == pytest.approx(d1.df_denominator, rel=1e-5)
    assert d1.pvalue == pytest.approx(stats.f.sf(d1.statistic, 2, d1.df_denominator))
    assert 0 <= pooled.likelihood_ratio(smaller, "D2").pvalue <= 1


def test_one_hypothesis_is_the_squared_t(pooled):
    row = pooled.estimates().set_index("label").loc["b1"]
    found = pooled.wald_test("b1 == 0")
    assert found.statistic == pytest.approx(row["t"] ** 2)
    assert found.increase == pytest.approx(row["riv"])


def test_the_printed_formulas():
    """Numbers worked out by hand: k = 2, m = 5, W = I, B = diag(.1, .3)."""
    found = pooled_wald(np.array([1.0, 2.0]), np.eye(2), np.diag([0.1, 0.3]), 5)
    r = 1.2 * 0.4 / 2  # 0.24
    assert found.increase == pytest.approx(r)
    assert found.statistic == pytest.approx(5 / (2 * 1.24))
    assert found.df_denominator == pytest.approx(4 + 4 * (1 + (1 - 2 / 8) / 0.24) ** 2)  # t = k (m - 1) = 8
    small = pooled_wald(np.array([1.0]), np.eye(1), np.eye(1), 3)  # t = 2 is not above 4
    assert small.df_denominator == pytest.approx(2 * 2 * (1 + 3 / 4) ** 2 / 2)
    d2 = pooled_statistics([4.0, 9.0, 16.0], 2)  # roots 2, 3, 4: variance 1, r = 4/3
    assert d2.increase == pytest.approx(4 / 3)
    assert d2.statistic == pytest.approx(max((29 / 3 / 2 - 2 * 4 / 3) / (7 / 3), 0))
    assert d2.df_denominator == pytest.approx(2 ** (-1) * 2 * (1 + 3 / 4) ** 2)
    d3 = pooled_ratio(10.0, 8.0, 2, 5, "D3")  # r = 6/8 * 2 = 1.5
    assert (d3.increase, d3.statistic) == (pytest.approx(1.5), pytest.approx(8 / (2 * 2.5)))
    d4 = pooled_ratio(10.0, 8.0, 2, 5, "D4")
    assert d4.df_denominator == pytest.approx(8 * (2.5 / 1.5) ** 2)
    assert pooled_ratio(8.0, 8.5, 2, 5, "D4").increase == 0


def test_equal_imputations_are_one_fit(imputations):
    fits = [msem.sem(FULL, imputations[0]) for _ in range(3)]
    pooled = msem.pool(*fits)
    assert_allclose(pooled.bse, fits[0].bse)
    assert pooled.wald_test("b1 == 0").statistic == pytest.approx(
        fits[0].wald_test("b1 == 0")["statistic"].iloc[0]
    )
    assert_allclose(pooled.estimates()["fmi"].dropna(), 0, atol=1e-25)


TWO = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n g =~ y1 + y2 + y3"


def test_two_levels_and_the_test_of_the_model(demo, tmp_path):
    rng = np.random.default_rng(1)
    data = demo[demo["cluster"] % 3 == 0]
    sets = [data.assign(y1=data["y1"] + rng.normal(size=len(data)) * 0.2) for _ in range(3)]
    model = TWO.replace("g =~ y1 + y2", "g =~ y1 + 1*y2")
    fits = [msem.sem(model, one, cluster="cluster") for one in sets]
    pooled = msem.pool(fits)
    d4, d2 = pooled.chisq_test(), pooled.chisq_test("D2")
    assert d4.df == d2.df == fits[0].df
    mean = np.mean([fit.chisq for fit in fits]) / fits[0].df
    assert d4.statistic * (1 + d4.increase) == pytest.approx(mean, rel=0.1)
    assert d2.statistic == pytest.approx(mean, rel=0.3)
    assert pooled.stacked.nclusters == 3 * fits[0].nclusters
    assert set(pooled.estimates(level=2)["level"]) == {2}
    for k, fit in enumerate(fits):
        fit.save(tmp_path / f"{k}.json")
    saved = msem.pool([msem.SavedFit.load(tmp_path / f"{k}.json") for k in range(3)])
    pd.testing.assert_frame_equal(saved.estimates(), pooled.estimates())
    assert saved.chisq_test("D2") == d2
    with pytest.raises(UnsupportedError, match="saved fits have no likelihood"):
        saved.chisq_test()


def test_what_cannot_be_pooled_is_refused(pooled, smaller, imputations):
    fit = pooled.fits[0]
    with pytest.raises(ModelError, match="two fits or more"):
        msem.pool(fit)
    with pytest.raises(ModelError, match="another model than model_1"):
        msem.pool(fit, smaller.fits[0])
    with pytest.raises(ModelError, match="model_2 is a int"):
        msem.pool(fit, 3)
    with pytest.raises(ModelError, match="no standard errors"):
        msem.pool([msem.sem(FULL, data, se="none") for data in imputations])
    with pytest.raises(ModelError, match="larger model's"):
        smaller.likelihood_ratio(pooled)
    with pytest.raises(ModelError, match="not independent"):
        pooled.wald_test(["b1 == 0", "2*b1 == 0"])
    with pytest.raises(MsemError, match="method must be one of"):
        pooled.likelihood_ratio(smaller, "D5")
    with pytest.raises(DataError, match=r"msem\.pool\(\[msem\.sem\(model, data\) for data"):
        msem.sem(FULL, imputations)
