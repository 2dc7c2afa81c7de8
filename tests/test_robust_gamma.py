"""Gamma by the sandwich over clusters, and segregated fits that use it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import models
import msem
import oracle
import texts
from msem.data.arrays import vech_index
from msem.errors import DataError
from msem.estimation.moment_vector import given_moments, moment_keys
from msem.fits.one_level import conditional_gamma

MODEL = texts.COVARIATE
SIZES = [3, 4, 5, 6] * 12
METHODS = ("likelihood", "ml", "uls")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return models.two_level(models.factor_rows(0.5), SIZES, 3).frame


@pytest.fixture(scope="module")
def skewed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same clusters, each variable far from normal."""
    rng = np.random.default_rng(8)
    cluster = frame["cluster"]
    codes = pd.factorize(cluster)[0]
    factors = rng.chisquare(1, (len(SIZES), 4))[codes]
    units = rng.chisquare(1, (len(frame), 4))
    y = factors[:, [0]] + factors[:, 1:] + units[:, [0]] + units[:, 1:]
    return pd.DataFrame(y, columns=["y1", "y2", "y3"]).assign(cluster=cluster.to_numpy())


def test_the_sandwich_is_made_of_dense_cluster_scores(skewed: pd.DataFrame) -> None:
    h1 = msem.saturated(skewed, cluster="cluster", gamma="robust")
    row, col = vech_index(3)

    def moments(theta):
        cov_w, cov_b = np.zeros((2, 3, 3), theta.dtype)
        cov_w[row, col] = cov_w[col, row] = theta[:6]
        cov_b[row, col] = cov_b[col, row] = theta[6:12]
        return oracle.Moments(np.zeros(3), cov_w, theta[12:], cov_b, 3)

    codes = pd.factorize(skewed["cluster"])[0]
    y, z = skewed[["y1", "y2", "y3"]].to_numpy(), np.empty((len(SIZES), 0))
    scores = oracle.cluster_scores(moments, h1.vector.to_numpy(), y, z, codes)
    plain = msem.saturated(skewed, cluster="cluster")
    bread = np.linalg.inv(plain.information("observed").to_numpy())
    assert h1.known_acov is not None
    assert_allclose(h1.known_acov, bread @ scores.T @ scores @ bread, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_gamma_of_the_information_gives_its_errors(frame: pd.DataFrame, method: str) -> None:
    """At moments that the model implies the sandwich of the inverse information is that inverse."""
    implied = msem.sem(MODEL, frame, cluster="cluster", fixed_x=False).implied
    moments = msem.LevelMoments(
        implied.within.cov,
        implied.between.cov,
        implied.between.mean,
        within_mean=implied.within.mean,
        cluster_sizes=SIZES,
    )
    usual = msem.segregated(MODEL, moments, method=method, gamma="expected")
    carried = msem.segregated(MODEL, moments.with_acov("expected"), method=method, gamma="robust")
    assert_allclose(carried.bse, usual.bse, rtol=1e-6)
    tests = carried.levels[1].tests
    assert_allclose(tests["scaling"].iloc[-1], usual.levels[1].tests["scaling"].iloc[-1], rtol=1e-6)


def test_robust_errors_of_the_levels_are_those_of_the_whole(skewed: pd.DataFrame) -> None:
    """Of a saturated model, which every route fits exactly."""
    model = "level: 1\n y1 ~~ y2 + y3\n y2 ~~ y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"
    h1 = msem.saturated(skewed, cluster="cluster", gamma="robust")
    assert h1.known_acov is not None
    expected = np.sqrt(np.diag(h1.known_acov))
    fit = msem.segregated(model, skewed, cluster="cluster", gamma="robust", method="uls")
    for name, se in zip(h1.moment_names, expected, strict=True):
        assert fit.bse[name] == pytest.approx(se, rel=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_every_route_uses_what_the_moments_carry(skewed: pd.DataFrame, method: str, tmp_path) -> None:
    """Whether gamma= is given again or not, from memory and from a file, of some of the variables, or known."""
    model = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"
    direct = msem.segregated(model, skewed, cluster="cluster", method=method, gamma="robust")
    h1 = msem.saturated(skewed, cluster="cluster", gamma="robust")
    h1.save(tmp_path / "h1.json")
    known = msem.LevelMoments(
        *(h1.within.cov, h1.between.cov, h1.between.mean), cluster_sizes=h1.cluster_sizes, known_acov=h1.acov
    )
    for moments in (h1, msem.LevelMoments.load(tmp_path / "h1.json"), known):
        assert_allclose(msem.segregated(model, moments, method=method).bse, direct.bse, rtol=1e-6)
    fewer = h1.restrict(["y1", "y2"], ["y1", "y2"])
    small = "level: 1\n y1 ~~ y2\nlevel: 2\n y1 ~~ y2"
    bse = msem.segregated(small, fewer, method=method).bse
    assert_allclose(bse["y1~~y2"], np.sqrt(h1.acov.loc["y1~~y2", "y1~~y2"]), rtol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_moments_carry_it(skewed: pd.DataFrame, method: str, tmp_path) -> None:
    model = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"
    direct = msem.segregated(model, skewed, cluster="cluster", method=method, gamma="robust")
    msem.saturated(skewed, cluster="cluster", gamma="robust").save(tmp_path / "h1.json")
    later = msem.segregated(
        model, msem.LevelMoments.load(tmp_path / "h1.json"), method=method, gamma="robust"
    )
    assert_allclose(later.bse, direct.bse, rtol=1e-7)
    usual = msem.segregated(model, skewed, cluster="cluster", method=method)
    assert (direct.bse / usual.bse).max() > 1.2


def test_expected_gamma_is_carried(skewed: pd.DataFrame) -> None:
    h1 = msem.saturated(skewed, cluster="cluster", gamma="expected")
    assert h1.known_acov is not None
    plain = msem.saturated(skewed, cluster="cluster")
    assert plain.known_acov is None
    assert_allclose(h1.known_acov, plain.gamma("expected"))


@pytest.mark.parametrize("method", METHODS)
def test_without_raw_data_it_is_refused(skewed: pd.DataFrame, method: str) -> None:
    h1 = msem.saturated(skewed, cluster="cluster")
    model = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n f =~ y1 + y2 + y3"
    with pytest.raises(DataError, match="needs raw data"):
        msem.segregated(model, h1, method=method, gamma="robust")
    with pytest.raises(DataError, match="needs raw data"):
        msem.saturated(h1.statistics, gamma="robust")


EQUAL = "level: 1\n f =~ 1*y1 + 1*y2 + 1*y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"


def few_of(data: pd.DataFrame, count: int) -> pd.DataFrame:
    return data[data["cluster"].isin(data["cluster"].unique()[:count])]


@pytest.mark.parametrize("count", [14, 40])
def test_errors_and_scaled_tests_need_no_inverse_of_gamma(skewed: pd.DataFrame, count: int) -> None:
    """Of 15 moments and 14 clusters, or more: a linear model within, whose dense least squares are a regression."""
    few = few_of(skewed, count)
    fit = msem.segregated(EQUAL, few, cluster="cluster", gamma="robust", method="uls").within
    h1 = fit.moments
    row, col = vech_index(3)
    variance = np.diag(h1.within_cov)
    d = np.column_stack([np.ones(6), *(((row == k) & (col == k)).astype(float) for k in range(3))])
    u = np.diag(1 / (variance[row] * variance[col]))
    s, gamma = h1.vector.to_numpy()[:6], h1.acov.to_numpy()[:6, :6]
    h = np.linalg.inv(d.T @ u @ d)
    theta = h @ d.T @ u @ s
    order = ["f~~f", "y1~~y1", "y2~~y2", "y3~~y3"]
    assert_allclose(fit.params[order], theta, rtol=1e-6)
    assert_allclose(fit.cov_params().loc[order, order], h @ d.T @ u @ gamma @ u @ d @ h, rtol=1e-6)
    e, left = s - d @ theta, u - u @ d @ h @ d.T @ u
    scaled = float(e @ u @ e) * 2 / np.trace(left @ gamma)
    assert fit.tests.loc["mean_scaled", "statistic"] == pytest.approx(scaled, rel=1e-6)
    assert np.isfinite(fit.tests.loc["residual", "statistic"])  # six moments alone have an inverse


def test_covariates_are_given_whatever_the_rank_of_gamma(frame: pd.DataFrame) -> None:
    """What covariates leave of a singular Gamma is what regressions on their influence leave, cluster by cluster."""
    few = few_of(frame, 20)
    h1 = msem.saturated(few, cluster="cluster", gamma="robust")
    names = h1.moment_names
    assert np.linalg.matrix_rank(h1.acov.to_numpy(), hermitian=True) < len(names)
    values, basis = np.linalg.eigh(h1.acov.to_numpy())
    influence = (basis * np.sqrt(np.maximum(values, 0))).T
    table = msem.compile(MODEL).table
    given = given_moments(table, moment_keys(h1.variables, 1))
    free, fixed = influence[:, ~given], influence[:, given]
    rest = free - fixed @ np.linalg.lstsq(fixed, free, rcond=None)[0]
    expected = np.zeros((len(names),) * 2)
    expected[np.ix_(~given, ~given)] = rest.T @ rest
    assert given.any()
    assert_allclose(conditional_gamma(h1, given, "robust"), expected, atol=1e-9 * expected.max())


def test_what_needs_an_inverse_says_that_there_is_none(skewed: pd.DataFrame, tmp_path) -> None:
    within = "level: 1\n y1 ~~ y1\n y2 ~~ y2\n y3 ~~ y3\n"
    few = few_of(skewed, 6)
    few = few.assign(y1=few["y1"] + 3 * (few["cluster"] % 3))
    h1 = msem.saturated(few, cluster="cluster", levels=[["y1", "y2", "y3"], ["y1"]], gamma="robust")
    h1.save(tmp_path / "h1.json")
    for moments in (h1, msem.LevelMoments.load(tmp_path / "h1.json")):
        with pytest.raises(DataError, match=r"Gamma of the 10 moments is singular .* as that of 6 clusters"):
            moments.information()
        assert np.isfinite(moments.icc_table()["se"]).all()
        fit = msem.segregated(
            within + "level: 2\n y1 ~~ y1", moments, method="uls"
        )  # 6 moments within, of rank 5
        tests = fit.within.tests["statistic"]
        assert np.isnan(tests["residual"])
        assert np.isfinite(tests.drop("residual")).all()
        assert "none: Gamma has no inverse" in fit.summary()
        assert np.isfinite(fit.within.bse).all()
    x = few["y1"].to_numpy()
    few = few.assign(**{f"x{k}": np.cos(k * x) for k in (1, 2, 3)})  # nine moments of theirs
    text = within + " y1 ~ x1 + x2 + x3\nlevel: 2\n y1 ~~ y1"
    with pytest.raises(DataError, match=r"Gamma given the 9 moments of the fixed covariates.*fixed_x=False"):
        msem.segregated(text, few, cluster="cluster", gamma="robust", method="uls")
    free = msem.segregated(text, few, cluster="cluster", gamma="robust", method="uls", fixed_x=False)
    assert np.isfinite(free.within.bse).all()
