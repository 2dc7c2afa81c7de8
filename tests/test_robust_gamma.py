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


def test_too_few_clusters_are_refused(skewed: pd.DataFrame) -> None:
    few = skewed[skewed["cluster"].isin(skewed["cluster"].unique()[:6])].groupby("cluster").head(3)
    with pytest.raises(DataError, match=r"needs more than \d+ clusters for \d+ moments"):
        msem.saturated(few, cluster="cluster", gamma="robust")
