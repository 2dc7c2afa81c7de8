"""Ordered variables whose categories are separated by what explains them: no finite maximum, and no "ok"."""

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import ConvergenceWarning
from msem.estimation.problems import FAR, separation_problems


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


@pytest.mark.parametrize("level", ["single", "both", "between"])
@pytest.mark.parametrize("link", ["probit", "logit"])
def test_paths_are_measured_in_residual_standard_deviations_of_all_levels(level, link):
    rng = np.random.default_rng(8)
    cluster = np.repeat(np.arange(60), 5)
    w = rng.normal(size=60)[cluster]
    y = (rng.normal(size=60)[cluster] + w + (rng.normal(size=300) if level != "between" else 0) > 0).astype(
        int
    )
    rows = pd.DataFrame({"y": y, "x": rng.normal(size=300), "w": w, "cluster": cluster})
    text = {
        "single": "y ~ w",
        "both": "level: 1\n y ~ x\nlevel: 2\n y ~ w",
        "between": "level: 1\n x ~~ x\nlevel: 2\n y ~ w",
    }[level]
    options = {} if level == "single" else {"cluster": "cluster"}
    fit = msem.sem(text, rows, ordered=["y"], estimator="ML", link=link, **options)
    name = "y~w" if level == "single" else "y~w.l2"
    residual = np.pi**2 / 3 if link == "logit" else 1.0
    residual += fit.params["y~~y.l2"] if level == "both" else 0.0
    spread = np.std(w) if level == "single" else np.std(w[::5])
    limit = FAR * np.sqrt(residual) / spread
    for factor, found in ((0.999, []), (1.001, [name])):
        theta = np.where(fit.params.index == name, factor * limit, fit.theta)
        problems = list(separation_problems(fit.objective, theta, fit.sampling))
        assert [name for one in problems if name in one.cause] == found
