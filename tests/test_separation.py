"""Ordered variables whose categories are separated by what explains them: no finite maximum, and no "ok"."""

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ConvergenceWarning


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(1)
    x, noise = rng.normal(size=300), rng.normal(size=300)
    flag = (rng.random(300) < 0.1).astype(float)
    return pd.DataFrame(
        {
            "x": x,
            "flag": flag,
            "apart": (x > 0.2).astype(int),
            "partly": np.where(flag == 1, 1, x + noise > 0).astype(int),
            "almost": (x + 0.15 * noise > 0.2).astype(int),
        }
    )


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_separated_categories_have_no_finite_estimates(rows, link):
    with pytest.warns(ConvergenceWarning, match="'apart' rises as far as apart~x"):
        fit = msem.sem("apart ~ x", rows, ordered=["apart"], estimator="ML", link=link)
    assert fit.status == "not_converged"


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_a_covariate_that_separates_some_units_is_named(rows, link):
    with pytest.warns(ConvergenceWarning, match="'partly' rises as far as partly~flag are"):
        fit = msem.sem("partly ~ x + flag", rows, ordered=["partly"], estimator="ML", link=link)
    assert fit.status == "not_converged"


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_steep_regressions_are_ordinary(rows, link):
    fit = msem.sem("almost ~ x", rows, ordered=["almost"], estimator="ML", link=link)
    assert fit.status == "ok"
    assert fit.params["almost ~ x"] > 4


def test_what_differs_between_clusters_is_in_units_of_that_level():
    rng = np.random.default_rng(3)
    cluster = np.repeat(np.arange(40), 20)
    x, w, part = rng.normal(size=800), rng.normal(size=40)[cluster], 20 * rng.normal(size=40)[cluster]
    y = (part + 0.6 * x + 6 * w + rng.logistic(size=800) > 0).astype(int)
    rows = pd.DataFrame({"y": y, "x": x, "w": w, "cluster": cluster})
    text = "level: 1\n y ~ x\nlevel: 2\n y ~ w\n y ~~ 4000*y"
    fit = msem.sem(text, rows, cluster="cluster", ordered=["y"], estimator="ML", link="logit")
    assert fit.status == "ok"
    assert fit.bse["y|t1.l2"] > 10  # residual standard deviations of units
