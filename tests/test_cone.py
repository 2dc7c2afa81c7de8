"""Maxima among positive semidefinite matrices, against optimisers that share nothing with the package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy import linalg, optimize

import msem
from msem.data.saturated import solve_saturated
from msem.errors import ConvergenceWarning, DataError, ImproperSolutionWarning, MsemError
from msem.estimation.problems import _border

pytestmark = pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")

NAMES = ["a", "b", "c", "d"]
ONE = "level: 1\nfw =~ a + b + c + d\nlevel: 2\nfb =~ a + b + c + d\n"
TWO = "level: 1\nf1 =~ a + b + c\nf2 =~ d + e + g\nlevel: 2\nh1 =~ a + b + c\nh2 =~ d + e + g\n"


def sample(seed, clusters=20, size=5, names=NAMES, between=0.1):
    """Two-level data, balanced unless sizes are given, with little variance between clusters."""
    rng = np.random.default_rng(seed)
    sizes = np.full(clusters, size) if np.isscalar(size) else np.asarray(size)
    k = np.repeat(np.arange(len(sizes)), sizes)
    p = len(names)
    y = rng.normal(size=(len(k), 1)) * 0.8 + rng.normal(size=(len(k), p))
    y += (np.sqrt(between) * rng.normal(size=(len(sizes), p)))[k]
    return pd.DataFrame(y, columns=list(names)).assign(k=k)


def scatter(data, names):
    """Products within and between the clusters of balanced data about their means, J and n."""
    means = data.groupby("k")[names].transform("mean")
    within = (data[names] - means).to_numpy()
    between = (means - data[names].mean()).to_numpy()
    clusters = data["k"].nunique()
    return within.T @ within, between.T @ between, clusters, len(data) // clusters


def deviance(within, between, ssw, ssb, clusters, size):
    """-2 log L of balanced data at their means."""
    whole = within + size * between
    degrees = clusters * (size - 1)
    return (
        clusters * size * len(ssw) * np.log(2 * np.pi)
        + degrees * np.linalg.slogdet(within)[1]
        + np.trace(linalg.solve(within, ssw))
        + clusters * np.linalg.slogdet(whole)[1]
        + np.trace(linalg.solve(whole, ssb))
    )


def closed_form(data, names=NAMES):
    """Saturated log-likelihood with a positive semidefinite between matrix.

    Mean squares that are smaller between clusters than within are pooled (Anderson, Anderson & Olkin, 1986).
    """
    ssw, ssb, clusters, size = scatter(data, names)
    ratios, vectors = linalg.eigh(ssb / clusters, ssw / (clusters * (size - 1)))
    base = linalg.inv(vectors)
    pooled = ((size - 1) + ratios) / size
    within = base.T @ np.diag(np.where(ratios > 1, 1.0, pooled)) @ base
    whole = base.T @ np.diag(np.where(ratios > 1, ratios, pooled)) @ base
    return -0.5 * deviance(within, (whole - within) / size, ssw, ssb, clusters, size)


def best_of_many(data, starts=3):
    """The log-likelihood of one factor at each level in the cone, by quasi-Newton steps from random starts."""
    args = scatter(data, NAMES)

    def value(x):
        lw, tw, lb, tb = x[:4], np.exp(x[4:8]), x[8:12], x[12:]
        return deviance(np.outer(lw, lw) + np.diag(tw), np.outer(lb, lb) + np.diag(tb), *args)

    rng = np.random.default_rng(0)
    bounds = [(None, None)] * 12 + [(0, None)] * 4
    found = []
    for _ in range(starts):
        start = np.concatenate(
            [np.full(4, 0.8), np.zeros(4), rng.normal(size=4) * 0.3, rng.uniform(0, 0.1, 4)]
        )
        found.append(
            optimize.minimize(value, start, bounds=bounds, options={"maxiter": 400, "ftol": 1e-13}).fun
        )
    return -0.5 * min(found)


@pytest.mark.parametrize("seed", [1, 2])
def test_maximum_of_a_factor_model(seed):
    data = sample(seed)
    fit = msem.sem(ONE, data, cluster="k", space="psd")
    assert fit.converged
    assert fit.status in ("ok", "boundary")
    assert fit.llf == pytest.approx(best_of_many(data), abs=2e-5)
    assert not any(p.name == "improper" for p in fit.problems)


@pytest.mark.parametrize("seed", range(6))
def test_saturated_maximum_is_the_closed_form(seed):
    data = sample(seed, clusters=12 + seed, between=0.05)
    found = solve_saturated(msem.sem(ONE, data, cluster="k", se="none").statistics, cone=True)
    assert found.converged
    assert found.llf == pytest.approx(closed_form(data), abs=1e-7)
    assert np.linalg.eigvalsh(found.between.cov).min() > -1e-12


def test_a_single_largest_cluster_has_an_answer():
    data = sample(5, size=[3] * 12 + [4] * 10 + [30])
    assert msem.sem(ONE, data, cluster="k", space="natural").status in ("no_chi_square", "not_converged")
    fit = msem.sem(ONE, data, cluster="k")
    assert fit.status == "boundary", fit.problems
    assert fit.unrestricted_llf >= fit.llf
    assert np.isfinite(fit.fit_measures()["chisq"])


@pytest.mark.parametrize("seed", range(4))
def test_scale_of_the_factor_does_not_matter(seed):
    data = sample(seed, clusters=16)
    by_marker = msem.sem(ONE, data, cluster="k", space="psd")
    by_variance = msem.sem(ONE, data, cluster="k", space="psd", std_lv=True)
    assert by_marker.llf == pytest.approx(by_variance.llf, abs=1e-6)


def test_latent_covariance_matrix_is_possible():
    found = 0
    for seed in range(6):
        data = sample(seed, clusters=18, names=["a", "b", "c", "d", "e", "g"])
        fit = msem.sem(TWO, data, cluster="k")
        assert fit.converged
        cov = fit.implied[2].cov.loc[["h1", "h2"], ["h1", "h2"]].to_numpy()
        assert np.linalg.eigvalsh(cov).min() > -1e-8
        found += fit.status == "boundary"
    assert found  # some lie on the border


def test_more_starts_find_nothing_higher():
    for seed in range(4):
        data = sample(seed, clusters=12)
        fit = msem.sem(ONE, data, cluster="k")
        more = msem.sem(ONE, data, cluster="k", starts=25)
        assert fit.converged
        assert fit.llf == pytest.approx(more.llf, abs=1e-4)


def test_many_fits_take_the_same_maxima():
    frames = [sample(seed, clusters=15) for seed in range(4)]
    many = msem.compile(ONE, cluster="k").fit_many(frames)
    single = [msem.sem(ONE, frame, cluster="k") for frame in frames]
    assert list(many.fits["status"]) == [fit.status for fit in single]
    assert many.fits["llf"].to_numpy() == pytest.approx([fit.llf for fit in single], abs=1e-6)
    assert many.fits["chisq"].to_numpy() == pytest.approx(
        [fit.fit_measures()["chisq"] for fit in single], abs=1e-5
    )


def test_a_regular_maximum_is_the_same_in_both_spaces():
    data = sample(0, clusters=80, size=10, between=1.0)
    fits = [msem.sem(ONE, data, cluster="k", space=space) for space in ("auto", "natural", "psd")]
    assert {fit.status for fit in fits} == {"ok"}
    assert np.ptp([fit.llf for fit in fits]) < 1e-9


def test_a_space_has_a_name():
    with pytest.raises(MsemError, match=r"space must be one of 'auto', 'natural', 'psd'"):
        msem.sem(ONE, sample(1), cluster="k", space="cone")
    with pytest.raises(MsemError, match="starts must be a whole number"):
        msem.sem(ONE, sample(1), cluster="k", starts=-1)


@pytest.mark.filterwarnings("default::msem.errors.MsemWarning")
def test_saturated_moments_have_a_maximum_too():
    data = sample(5, size=[3] * 12 + [4] * 10 + [30])
    with pytest.warns(ConvergenceWarning):
        assert not msem.saturated(data, cluster="k", space="natural").converged
    with pytest.warns(ImproperSolutionWarning, match="maximum on that border"):
        moments = msem.saturated(data, cluster="k")
    assert (moments.converged, moments.in_cone) == (True, True)
    assert np.linalg.eigvalsh(moments.between_cov)[0] == pytest.approx(0, abs=1e-9)
    with pytest.raises(DataError, match="on that border the moments have no Gamma"):
        moments.gamma()
    with pytest.warns(ImproperSolutionWarning, match="boundary"):
        levels = msem.segregated(ONE, moments)
    assert np.isfinite(levels.between.fit_measures()["chisq"])


def test_an_interior_maximum_is_no_border():
    data = sample(1, clusters=80, between=1.0)
    regular, inside = (msem.saturated(data, cluster="k", space=space) for space in ("natural", "psd"))
    assert not inside.in_cone
    assert inside.llf == regular.llf


@pytest.mark.parametrize(
    ("integrated", "active", "singular", "zeros"),
    [
        (False, [1, 0], (), True),
        (True, [1, 0], (), True),
        (True, [0, 0], ((0, (0, 1)),), False),
        (False, [0, 0], ((0, (0,)),), True),
    ],
)
def test_the_border_says_what_there_is(integrated, active, singular, zeros):
    block = SimpleNamespace(places=np.array([0, 1]), names=("a", "b"), level=2, group=1)
    objective = SimpleNamespace(
        table=SimpleNamespace(names=lambda: ("a~~a", "b~~b"), nlevels=2, ngroups=1),
        blocks=[block],
        statistics=[SimpleNamespace(integral=object() if integrated else None)],
    )
    border = SimpleNamespace(singular=singular)
    optimum = SimpleNamespace(active=np.array(active), border=border, value=1.0, natural=np.nan)
    (problem,) = _border(objective, optimum)
    assert ("What is 0 has no standard error" in problem.remedy) == zeros
    assert ("chi-square" in problem.remedy) != integrated
    assert problem.remedy
