"""Samples of a model of three and more levels, drawn with the clusters, holes and covariates of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
from msem import _core
from msem.errors import DataError, UnsupportedError
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


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_what_cannot_be_drawn_says_so() -> None:
    data = sample(schools=20)
    slopes = msem.sem(
        "level: 1\n y1 ~ rv('s')*x\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1\n s ~~ 0*s".replace("'", '"'),
        data,
        cluster=CLUSTER,
    )
    with pytest.raises(UnsupportedError, match=r"samples drawn from a fit.*random slopes"):
        slopes.bootstrap(5, seed=1, kind="parametric")
    negative = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ -0.1*y1\nlevel: 3\n y1 ~~ y1"
    fit: Any = msem.sem(negative, data, cluster=CLUSTER)
    with pytest.raises(DataError, match="cannot be drawn"):
        fit.bootstrap(5, seed=1, kind="parametric")
