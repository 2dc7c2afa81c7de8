"""Samples of a model of three and more levels, drawn with the clusters, holes and covariates of the data."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest

import msem
import three_levels
from msem import _core
from msem.errors import DataError
from msem.estimation.estimate import Estimate
from msem.estimation.objective import build_objective
from msem.resampling.replicates import parametric_draws

CLUSTER = ["school", "class"]
MODEL = """
level: 1
  y1 ~ x
  y1 ~~ y2
level: 2
  y1 ~ w
  y1 ~~ y2 + z
level: 3
  y1 ~ v
  y1 ~~ y2
"""


def sample(seed: int = 4, schools: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    school = np.repeat(np.arange(schools), rng.integers(2, 5, schools))
    pupil = np.repeat(np.arange(len(school)), rng.integers(2, 6, len(school)))
    x, w, v = rng.normal(size=len(pupil)) + 50, rng.normal(size=len(school)), rng.normal(size=schools)
    shared = (
        rng.normal(size=(schools, 1)),
        rng.normal(size=(len(school), 1)),
        rng.normal(size=(len(pupil), 1)),
    )
    parts = [part + rng.normal(size=(len(part), 2)) for part in shared]
    y = parts[2] + parts[1][pupil] + parts[0][school[pupil]] + [3, 0]
    y[:, 0] += 0.3 * x + 0.2 * w[pupil] + 0.4 * v[school[pupil]]
    frame = pd.DataFrame(y, columns=["y1", "y2"]).assign(x=x, w=w[pupil], v=v[school[pupil]])
    frame["z"] = (shared[1][:, 0] + rng.normal(size=len(school)))[pupil]
    return frame.assign(school=school[pupil], **{"class": pupil})


def with_holes(frame: pd.DataFrame, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    out = frame.copy()
    out[["y1", "y2"]] = out[["y1", "y2"]].mask(rng.random((len(out), 2)) < 0.2)
    return out.assign(z=out["z"].mask(out["class"] % 5 == 0))


@pytest.fixture(scope="module", params=["complete", "holes"])
def fit(request: pytest.FixtureRequest) -> msem.Fit:
    if request.param == "complete":
        return msem.sem(MODEL, sample(), cluster=CLUSTER)
    return msem.sem(MODEL, with_holes(sample()), cluster=CLUSTER, missing="fiml")


def nested(draws: _core.Draws, replicate: int) -> _core.NestedData:
    (found,) = draws.statistics(replicate)
    assert isinstance(found, _core.NestedData)
    return found


def values(data: _core.NestedData, level: int) -> Any:
    """Values measured on a level, by variable and cluster; of units the means of cells."""
    return data.values[level]  # noqa: PD011  (not those of a frame)


def drawn_from(fit: msem.Fit, replicate: int) -> _core.NestedData:
    return nested(parametric_draws(fit.estimate, fit.sample, 3), replicate)


def test_replicates_are_samples_of_the_model(fit: msem.Fit) -> None:
    found = fit.bootstrap(100, seed=2, kind="parametric", progress=False)
    ok = np.isfinite(found.estimates.to_numpy()).all(axis=1)
    assert ok.sum() > 95
    names = list(found.estimates.columns)
    estimates = found.estimates.to_numpy()[ok]
    truth, se = fit.theta, np.sqrt(np.diag(fit.vcov))
    assert estimates.shape[1] == len(names) == len(truth)
    spread = estimates.std(axis=0, ddof=1)
    assert (
        np.abs((estimates.mean(axis=0) - truth) / spread).max() < 0.45
    )  # 4 / sqrt(100), and small-sample bias
    assert (spread / se).min() > 0.7
    assert (spread / se).max() < 1.35
    chisq = found.chisq[np.isfinite(found.chisq)]
    df = fit.df
    assert abs(chisq.mean() - df) < 4 * np.sqrt(2 * df / len(chisq)) + 0.1 * df


def test_clusters_holes_and_covariates_are_kept(fit: msem.Fit) -> None:
    before = fit.sample.statistics[0].data
    drawn = drawn_from(fit, 0)
    names = fit.sample.statistics[0].variables.names
    for name in ("x", "w", "v"):
        number = names.index(name)
        level = before.measured[number]
        row = number - before.measured.index(level)
        np.testing.assert_allclose(values(drawn, level)[row], values(before, level)[row], atol=1e-12)
    for one, other in zip(drawn.pattern, before.pattern, strict=True):
        assert (one == other).all()
    assert not np.allclose(values(drawn, 0)[0], values(before, 0)[0])
    again = drawn_from(fit, 0)
    np.testing.assert_array_equal(again.products, drawn.products)
    other = drawn_from(fit, 1)
    assert not np.allclose(other.products, drawn.products)


def test_products_within_classes_are_those_of_the_model_given_covariates() -> None:
    fit = msem.sem(MODEL, sample(), cluster=CLUSTER)
    statistics = fit.sample.statistics[0]
    draws = parametric_draws(fit.estimate, fit.sample, 5)
    names, data = statistics.unit, statistics.data
    p = len(names)
    col, row = np.triu_indices(p)
    mean = np.zeros((p, p))
    mean[row, col] = mean[col, row] = np.mean(
        [nested(draws, k).products.sum(axis=0) for k in range(300)], axis=0
    )
    within = fit.estimate.objective.likelihood_moments(fit.theta, 1)[1]
    order = [within.names.index(name) for name in names]
    cov = within.cov[np.ix_(order, order)]
    x = names.index("x")
    slopes = cov[:, x] / cov[x, x]
    df = (data.multiple[0] - 1).sum()
    expected = df * (cov - cov[x, x] * np.outer(slopes, slopes)) + mean[x, x] * np.outer(slopes, slopes)
    np.testing.assert_allclose(mean, expected, rtol=0.02, atol=0.01 * df)


# variances and means of slopes that are a distribution, and not close to a border
OF_SLOPES = {
    ("s", "~~", "s", 2): 0.4,
    ("s", "~~", "s", 3): 0.1,
    ("r", "~~", "r", 3): 0.2,
    ("b", "~~", "b", 3): 0.3,
    ("y1", "~~", "r", 3): 0.1,
    ("r", "~~", "b", 3): 0.05,
    ("y1", "~~", "b", 3): 0.1,
    ("s", "~1", "", 3): 0.5,
    ("r", "~1", "", 3): 0.6,
    ("b", "~1", "", 3): -0.4,
    ("c", "~1", "", 3): 0.3,
    ("s", "~", "z", 2): 0.2,
    ("s", "~", "v", 3): 0.3,
}


@pytest.mark.parametrize("holes", [False, True])
def test_samples_with_slopes_have_the_scores_of_their_distribution(holes: bool) -> None:
    """At the parameters that samples are drawn with scores have mean 0, and the expected information as covariances."""
    case = three_levels.Case("slopes", nschools=40, holes=holes)
    theta = case.near.copy()
    place = {(row.lhs, row.op, row.rhs, row.level): row.free - 1 for row in case.table.rows if row.free}
    for name, value in OF_SLOPES.items():
        theta[place[name]] = value
    estimate = Estimate(case.objective, cast(Any, SimpleNamespace(theta=theta)))
    draws, count = parametric_draws(estimate, case.sample, 7), 500
    drawn = [case.statistics.redrawn(draws.statistics(k)[0]) for k in range(count)]
    scores = np.array([build_objective(case.table, [one]).gradient(theta) / -2 for one in drawn])
    root = np.linalg.cholesky(case.objective.expected_information(theta))
    standard = np.linalg.solve(root, scores.T).T
    n = len(theta)
    assert abs(count * (standard.mean(axis=0) ** 2).sum() - n) < 4 * np.sqrt(2 * n)
    assert abs(np.cov(standard.T).trace() - n) < 4 * np.sqrt(3 * n / count)
    edge = 1 + np.sqrt(n / count)  # of the eigenvalues of covariance matrices of independent variables
    assert np.linalg.eigvalsh(np.cov(standard.T))[-1] < 1.1 * edge**2


SLOPES = """
level: 1
  y1 ~ rv("s")*x
  y1 ~~ y2
level: 2
  y1 ~~ y1 + y2 + s
level: 3
  y1 ~~ y1 + y2
  s ~ v
  s ~~ s
"""


def pairs(schools: int = 60) -> pd.DataFrame:
    """Classes of two pupils: as many as rows that they are reduced to."""
    rng = np.random.default_rng(8)
    school = np.repeat(np.arange(schools), 4)
    pupil = np.repeat(np.arange(len(school)), 2)
    x, v = rng.normal(size=len(pupil)) + 50, rng.normal(size=schools)
    y = rng.normal(size=(len(pupil), 2)) + rng.normal(size=(len(school), 2))[pupil]
    y += rng.normal(size=(schools, 2))[school[pupil]]
    slope = 0.3 * v + 0.8 * rng.normal(size=schools)
    y[:, 0] += (slope[school] + 0.7 * rng.normal(size=len(school)))[pupil] * (x - 50)
    frame = pd.DataFrame(y, columns=["y1", "y2"]).assign(x=x - 50, v=v[school[pupil]])
    return frame.assign(school=school[pupil], **{"class": pupil})


def test_a_replicate_with_slopes_is_the_fit_of_its_rows() -> None:
    data = pairs()
    fit = msem.sem(SLOPES, data, cluster=CLUSTER)
    found = fit.bootstrap(12, seed=3, kind="parametric", progress=False, threads=1)
    again = fit.bootstrap(12, seed=3, kind="parametric", progress=False, threads=2)
    np.testing.assert_array_equal(found.array, again.array)
    names = fit.sample.statistics[0].names
    for replicate in (2, 7):
        drawn = drawn_from(fit, replicate)
        rows = data.copy()
        covariate = np.column_stack(
            [np.ones(len(data)), (data["x"] - data["x"].mean()) / data["x"].std(ddof=0)]
        )
        for at in range(0, len(data), 2):  # a class: X = Q R
            reduced = drawn.design[0][:, at : at + 2].T
            rotation = covariate[at : at + 2] @ np.linalg.inv(reduced)
            np.testing.assert_allclose(rotation.T @ rotation, np.eye(2), atol=1e-10)
            for name in ("y1", "y2"):
                k = names.index(name)
                own = values(drawn, 0)[k, at : at + 2]
                rows.loc[rows.index[at : at + 2], name] = rotation @ own + drawn.origin[k]
        own = msem.sem(SLOPES, rows, cluster=CLUSTER)
        np.testing.assert_allclose(found.estimates.loc[replicate], own.params, rtol=1e-5, atol=1e-6)


def test_bootstrap_of_slopes_has_the_spread_of_the_errors() -> None:
    fit = msem.sem(SLOPES, pairs(120), cluster=CLUSTER)
    found = fit.bootstrap(100, seed=2, kind="parametric", progress=False)
    estimates = found.estimates.dropna()
    assert len(estimates) > 95
    off = (estimates.mean() - fit.params) / (estimates.std() / np.sqrt(len(estimates)))
    assert np.abs(off).max() < 5
    ratio = (estimates.std() / fit.standard_errors).to_numpy()
    assert ratio.min() > 0.75
    assert ratio.max() < 1.3


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_what_cannot_be_drawn_says_so() -> None:
    data = sample(schools=20)
    text = "level: 1\n y1 ~ rv('s')*y2\n y2 ~ x\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1\n s ~~ 0*s"
    slopes = msem.sem(text.replace("'", '"'), data, cluster=CLUSTER)
    with pytest.raises(DataError, match=r"'y2' has a random slope and is an outcome itself.*msem\.simulate"):
        slopes.bootstrap(5, seed=1, kind="parametric")
    negative = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ -0.1*y1\nlevel: 3\n y1 ~~ y1"
    fit: Any = msem.sem(negative, data, cluster=CLUSTER)
    with pytest.raises(DataError, match="cannot be drawn"):
        fit.bootstrap(5, seed=1, kind="parametric")
