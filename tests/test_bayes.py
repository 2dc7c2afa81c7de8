"""Posterior distributions: priors, densities and their derivatives, importance sampling against a grid."""

from __future__ import annotations

import functools
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import msem
from msem.errors import ExtraError, ModelError, UnsupportedError
from msem.resampling.importance import Density, pareto_shape, smoothed, systematic
from msem.resampling.priors import priors_of, read_prior

ONE = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3"
SATURATED = """
level: 1
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
level: 2
  y1 ~~ y1 + y2 + y3
  y2 ~~ y2 + y3
  y3 ~~ y3
"""
INTERCEPT = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1"


@functools.cache
def fit(model, clusters=200, **options):
    data = msem.load_demo()
    return msem.sem(model, data[data["cluster"] <= clusters], cluster="cluster", **options)


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("normal(1, 2)", stats.norm(1, 2)),
        ("student_t(3, 1, 2)", stats.t(3, 1, 2)),
        ("uniform(-1, 2)", stats.uniform(-1, 3)),
        ("inverse_gamma(2, 3)", stats.invgamma(2, scale=3)),
    ],
)
def test_densities_of_parameters(text, distribution):
    x = np.array([-2.0, -0.5, 0.3, 1.0, 2.5])
    prior = read_prior(text, "a", variance=True)
    assert prior.log_density(x) == pytest.approx(distribution.logpdf(x))
    assert str(prior) == text


@pytest.mark.parametrize(
    ("text", "distribution"),
    [("half_t(4, 2)", stats.t(4, scale=2)), ("half_normal(3)", stats.norm(scale=3))],
)
def test_densities_of_standard_deviations(text, distribution):
    """The density of a variance v is that of its root over 2 sqrt(v); that of a half distribution is doubled."""
    prior, v = read_prior(text, "a", variance=True), np.array([0.01, 0.5, 3.0])
    assert prior.log_density(v) == pytest.approx(np.log(distribution.pdf(np.sqrt(v)) / np.sqrt(v)))
    assert prior.log_density(np.array([-1.0])) == -np.inf


@pytest.mark.parametrize(
    ("priors", "message"),
    [
        ({"fb=~y2.l2": "normal(0)"}, r"normal\(\) takes 2 numbers"),
        ({"fb=~y2.l2": "gamma(1, 2)"}, "is one of normal"),
        ({"fb=~y2.l2": 3}, "is one of normal"),
        ({"fb=~y2.l2": "normal(0, -1)"}, "are positive"),
        ({"fb=~y2.l2": "uniform(1, 0)"}, "the lower first"),
        ({"fb=~y2.l2": "half_t(4, 1)"}, "is no variance"),
        ({"nothing": "normal(0, 1)"}, "has no parameter 'nothing'"),
        (["normal(0, 1)"], "priors is a dict"),
    ],
)
def test_priors_are_read(priors, message):
    with pytest.raises(ValueError, match=message):
        fit(ONE).posterior(priors)


def test_covariances_have_a_joint_prior():
    with pytest.raises(ModelError, match="joint with its variances"):
        fit(SATURATED).posterior({"y1~~y2": "normal(0, 1)"})
    priors = priors_of(fit(SATURATED), None)
    assert priors.table()["y1~~y2"] == "LKJ(2)"
    # |R| of both levels, and 1 / (sd sd) of every covariance
    single = sum(p.log_density(fit(SATURATED).theta[k]) for k, p in enumerate(priors.single) if p is not None)
    joint = priors.log_density(fit(SATURATED).theta[None])[0] - single
    wanted = 0.0
    for level in (1, 2):
        cov = fit(SATURATED).objective.moments(fit(SATURATED).theta)[level].observed.cov
        deviation = np.sqrt(cov.diagonal())
        wanted += np.linalg.slogdet(cov / np.outer(deviation, deviation))[1]
        wanted -= 2 * np.log(deviation).sum()  # each of three variables in two covariances
    assert joint == pytest.approx(wanted)


@pytest.mark.parametrize("model", [ONE, SATURATED])
def test_derivatives_of_the_density(model):
    density = Density(fit(model), priors_of(fit(model), None))
    u = density.unconstrained(fit(model).theta)
    u = u + 0.01 * np.random.default_rng(1).normal(size=len(u))
    sizes = np.full(len(u), 0.05)
    gradient, curvature = density.step(u, sizes)
    step = 1e-4
    units = step * np.eye(len(u))
    slopes = (density(u + units) - density(u - units)) / (2 * step)
    assert gradient == pytest.approx(slopes, rel=1e-4, abs=1e-2)
    columns = [(density.step(u + x, sizes)[0] - density.step(u - x, sizes)[0]) / (2 * step) for x in units]
    assert curvature == pytest.approx(-np.array(columns), abs=1e-3 * np.abs(curvature).max())
    assert density.theta(density.unconstrained(fit(model).theta)) == pytest.approx(fit(model).theta)


def test_importance_sampling_is_the_integral():
    """Means and standard deviations of three parameters over a grid, in a sample of twelve clusters."""
    found = fit(INTERCEPT, 12)
    density = Density(found, priors_of(found, None))
    centre, covariance = density.mode()
    density.folded[:] = False  # positive roots only
    reach = np.sqrt(covariance.diagonal())
    ends = ((7, 31), (25, 121), (9, 31))  # the between deviation has a long tail
    axes = [
        c + r * np.linspace(-min(end, 9), end, points)
        for c, r, (end, points) in zip(centre, reach, ends, strict=True)
    ]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    values = density(grid)
    weights = np.exp(values - values.max())
    weights /= weights.sum()
    theta = density.theta(grid)
    mean = weights @ theta
    sd = np.sqrt(weights @ (theta - mean) ** 2)
    drawn = found.posterior(draws=5000, seed=3)
    summary = drawn.summary()
    error = sd / np.sqrt(drawn.ess)
    assert np.abs(summary["mean"].to_numpy() - mean).max() < 5 * error.max()
    assert summary["sd"].to_numpy() == pytest.approx(sd, rel=0.1)


def test_the_demo():
    found = fit(ONE).posterior(seed=1)
    summary = found.summary()
    assert found.array.shape == (4, 1000, 15)
    assert found.ess > 500
    assert found.pareto_k < 0.7
    assert (summary["mean"] - fit(ONE).params).abs().max() < 0.1
    assert (summary["sd"] / fit(ONE).bse).between(0.7, 1.3).all()
    assert found.to_frame().shape == (4000, 15)
    again = fit(ONE).posterior(seed=1)
    assert (again.array == found.array).all()
    narrow = fit(ONE).posterior({"fb=~y2.l2": "normal(1, 0.01)"}, seed=1)
    assert narrow.summary().loc["fb=~y2.l2", "mean"] == pytest.approx(1, abs=0.05)
    assert narrow.priors["fb=~y2.l2"] == "normal(1, 0.01)"
    assert "4 x 1000 draws of 15 parameters" in repr(found)


def test_improper_estimates_have_a_posterior():
    with pytest.warns(msem.errors.ImproperSolutionWarning):
        found = fit(SATURATED, 40)
    few = found.posterior(seed=2, draws=2000)
    draws = few.to_frame()
    for name in ("y1~~y1.l2", "y2~~y2.l2", "y3~~y3.l2"):
        assert (draws[name] > 0).all()


def test_inequalities_and_bounds_cut():
    text = "level: 1\n fw =~ y1 + y2 + a*y3\nlevel: 2\n fb =~ y1 + y2 + b*y3\n a > b"
    found = fit(text)
    draws = found.posterior(seed=1).to_frame()
    assert (draws["a"] > draws["b"]).all()


def test_tails_of_weights():
    rng = np.random.default_rng(1)
    for k in (-0.2, 0.1, 0.5, 0.9):
        values = np.sort(stats.genpareto(k, scale=2).rvs(4000, random_state=rng))
        shape, scale = pareto_shape(values)
        assert shape == pytest.approx(k, abs=0.08)
        assert scale == pytest.approx(2, rel=0.1)
    weights, k = smoothed(np.log(stats.pareto(1.0).rvs(4000, random_state=rng)))
    assert k > 0.7
    assert weights.max() <= 0
    assert smoothed(np.full(1000, -np.inf))[1] == np.inf
    chosen = systematic(rng, np.array([0.5, 0.25, 0.25]), 8)
    assert np.bincount(chosen).tolist() == [4, 2, 2]


def test_what_cannot_be_trusted_is_refused(monkeypatch):
    monkeypatch.setattr("msem.resampling.importance.FEWEST", 1e9)
    with pytest.raises(ModelError, match="importance sampling cannot be trusted here"):
        fit(ONE).posterior(seed=1)


def test_other_packages(monkeypatch):
    found = fit(ONE).posterior(seed=1, draws=10)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ExtraError, match=r"msem\[bayes\]"):
        found.to_arviz()
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(ExtraError, match=r"msem\[bayes\]"):
        fit(ONE).posterior(method="nuts")
    monkeypatch.setitem(
        sys.modules, "arviz", SimpleNamespace(__version__="1.0", from_dict=lambda groups: groups)
    )
    assert found.to_arviz()["posterior"]["fb=~y2.l2"].shape == (4, 10)
    older = SimpleNamespace(__version__="0.22.0", from_dict=lambda posterior: posterior)
    monkeypatch.setitem(sys.modules, "arviz", older)
    assert found.to_arviz()["fb=~y2.l2"].shape == (4, 10)


def test_what_has_no_posterior():
    data = msem.load_demo()
    variables = [f"y{k}" for k in range(1, 7)]
    with pytest.raises(UnsupportedError, match="in the place of a penalty"):
        fit(ONE, penalty="between").posterior()
    with pytest.raises(UnsupportedError, match="exploratory blocks"):
        msem.efa(data[variables], 2)[2].posterior()
    with pytest.raises(UnsupportedError, match='least squares has none: use estimator="ML"'):
        fit(ONE, estimator="ULS").posterior()
    with pytest.raises(UnsupportedError, match="equality constraints"):
        fit("level: 1\n fw =~ y1 + a*y2 + b*y3\nlevel: 2\n fb =~ y1 + y2 + y3\n a == b").posterior()
    with pytest.raises(ValueError, match="method must be one of"):
        fit(ONE).posterior(method="gibbs")


def test_chains_are_not_worth_more_than_their_draws():
    from msem.resampling.importance import _effective

    draws = np.random.default_rng(1).normal(size=(4, 500))
    repelled = np.empty_like(draws)
    repelled[:, ::2], repelled[:, 1::2] = draws[:, ::2], -0.9 * draws[:, ::2]
    assert _effective(repelled) == draws.size
    assert draws.size / 2 < _effective(draws) <= draws.size
