"""Both levels together from published matrices, and within-only outcomes and covariates at both levels."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem.data.complete import SampleStatistics
from msem.errors import UnsupportedError
from test_seed import BETWEEN, BETWEEN_COV, STATISTICS, WITHIN, WITHIN_COV, covariance

MODEL = f"level: 1\n{WITHIN}\nlevel: 2\n{BETWEEN}"
KEY = ["level", "lhs", "op", "rhs"]


@pytest.fixture(scope="module")
def statistics() -> SampleStatistics:
    return SampleStatistics.from_dict(json.loads(STATISTICS.read_text(encoding="utf-8")))


def printed(statistics: SampleStatistics, **options: Any) -> msem.LevelMoments:
    mean = dict(zip(statistics.names, statistics.total_mean.round(3), strict=True))
    return msem.LevelMoments(
        covariance(WITHIN_COV),
        covariance(BETWEEN_COV),
        {name: mean[name] for name in ("y1", "y2", "y3", "w1", "w2")},
        **options,
    )


def loading(fit: msem.Fit) -> tuple[float, float]:
    est = fit.estimates().set_index(KEY).loc[(2, "fb", "=~", "y2")]
    return est["est"], est["se"]


def test_printed_matrices_with_the_cluster_sizes(statistics: SampleStatistics) -> None:
    sizes = dict(zip(statistics.sizes, statistics.counts, strict=True))
    fit = msem.sem(MODEL, printed(statistics, cluster_sizes=sizes))
    est, se = loading(fit)
    assert est == pytest.approx(0.7155, abs=0.5e-4)
    assert se == pytest.approx(0.0526, abs=0.5e-4)
    assert fit.chisq == pytest.approx(8.01, abs=0.5e-2)
    assert (fit.nobs, fit.nclusters, fit.df) == (2500, 200, 10)
    assert "moments with cluster sizes" in fit.summary()


def test_printed_matrices_with_n_and_j_only(statistics: SampleStatistics) -> None:
    fit = msem.sem(MODEL, printed(statistics, nobs=2500, nclusters=200))
    est, se = loading(fit)
    assert est == pytest.approx(0.7156, abs=0.5e-4)
    assert se == pytest.approx(0.0510, abs=0.5e-4)
    assert "N and J only" in fit.summary()


def test_labels_may_cross_levels_in_the_joint_fit(statistics: SampleStatistics) -> None:
    given = printed(statistics, nobs=2500, nclusters=200)
    shared = "level: 1\nfw =~ y1 + a*y2 + b*y3\nlevel: 2\nfb =~ y1 + a*y2 + b*y3"
    fit = msem.sem(shared, given.restrict(["y1", "y2", "y3"], ["y1", "y2", "y3"]))
    est = fit.estimates().set_index(KEY)["est"]
    assert est[1, "fw", "=~", "y2"] == est[2, "fb", "=~", "y2"] == fit.params["a"]
    assert fit.df == 2


# -- kinds of variables --------------------------------------------------------------------------------------------

MIXED = """
level: 1
  y1 ~ b1*x + b2*m
  m ~ a*x
level: 2
  y1 ~ x + w
"""
UNIT, CLUSTER = ["y1", "x", "m"], ["y1", "x", "w"]


@pytest.fixture(scope="module")
def mixed() -> msem.LevelMoments:
    """x at both levels, m a within-only outcome, w between only; no path is left out."""
    within = np.array([[2.0, 0.7, 0.6], [0.7, 1.0, 0.4], [0.6, 0.4, 1.2]])
    between = np.array([[1.0, 0.3, 0.2], [0.3, 0.6, 0.1], [0.2, 0.1, 1.1]])
    return msem.LevelMoments(
        pd.DataFrame(within, index=UNIT, columns=UNIT),
        pd.DataFrame(between, index=CLUSTER, columns=CLUSTER),
        {"y1": 1.0, "x": 0.5, "w": -0.5},
        within_mean={"m": 2.0},
        cluster_sizes={4: 40, 8: 40, 12: 20},
    )


@pytest.mark.parametrize("fixed_x", [True, False])
@pytest.mark.parametrize("method", ["likelihood", "ml", "uls"])
def test_saturated_models_of_all_kinds_of_variables_agree(
    mixed: msem.LevelMoments, method: str, fixed_x: bool
) -> None:
    """With as many parameters as moments every route is the joint fit: estimates and standard errors."""
    joint = msem.sem(MIXED, mixed, fixed_x=fixed_x).estimates().set_index(KEY)
    fit = msem.segregated(MIXED, mixed, method=method, fixed_x=fixed_x)
    ours = fit.estimates().set_index(KEY)
    joint = joint.loc[ours.index]
    structure = [key for key in ours.index if key[2] != "~1"]
    np.testing.assert_allclose(ours.loc[structure, "est"], joint.loc[structure, "est"], rtol=1e-6)
    np.testing.assert_allclose(ours.loc[structure, "se"], joint.loc[structure, "se"], rtol=1e-5)
    # the joint intercept of y1 leaves the within effect of m at its mean out; see the next test
    own = [key for key in ours.index if key[2] == "~1" and key[1] != "y1"]
    np.testing.assert_allclose(ours.loc[own, "est"], joint.loc[own, "est"], atol=1e-8)
    assert (fit.tests()["df"] == 0).all()


def test_the_between_intercept_of_a_segregated_fit_is_at_the_within_means(mixed: msem.LevelMoments) -> None:
    joint = msem.sem(MIXED, mixed).estimates().set_index(KEY)["est"]
    own = msem.segregated(MIXED, mixed, method="ml").estimates().set_index(KEY)["est"]
    key = (2, "y1", "~1", "")
    within = joint[1, "y1", "~", "m"] * 2.0
    assert own[key] == pytest.approx(joint[key] + within, rel=1e-6)


@pytest.mark.parametrize("method", ["ml", "uls"])
def test_restricted_within_means_need_the_likelihood(mixed: msem.LevelMoments, method: str) -> None:
    text = MIXED.replace("level: 2", "  m ~ 0*1\nlevel: 2")
    with pytest.raises(UnsupportedError, match=r'm ~ 1 at the within level.*method="likelihood"'):
        msem.segregated(text, mixed, method=method)
    fit = msem.segregated(text, mixed)
    assert fit.within.tests.loc["likelihood_ratio", "df"] == 1
    assert fit.within.tests.loc["likelihood_ratio", "statistic"] > 10


@pytest.mark.parametrize("method", ["ml", "uls"])
def test_within_means_that_are_not_restricted_may_be_written(mixed: msem.LevelMoments, method: str) -> None:
    text = MIXED.replace("level: 2", "  m ~ 1\nlevel: 2")
    one, two = (msem.segregated(model, mixed, method=method) for model in (MIXED, text))
    np.testing.assert_allclose(one.params, two.params, rtol=1e-9)
