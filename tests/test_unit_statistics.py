"""Contributions of clusters, and rows, to fits by least squares: what they add up to, and refits without each."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError, UnsupportedError
from test_moments_of_levels import simulated

DEMO = msem.load_demo()
Y = ["y1", "y2", "y3", "y4"]
ONE = "f =~ y1 + y2 + y3 + y4\n f ~ x1"
TWO = """
level: 1
  fw =~ y1 + y2 + y3 + y4
  fw ~ x1
level: 2
  fb =~ y1 + y2 + y3 + y4
  fb ~ w1
"""
PLAIN = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3\n y1 ~~ 0.3*y1"
SKEW = np.exp(DEMO[[*Y, "x1", "w1"]] / 3).assign(cluster=DEMO["cluster"])
SKEW["half"] = np.where(DEMO["cluster"] % 2 == 0, "even", "odd")
HOLES = SKEW.mask(np.random.default_rng(3).uniform(size=SKEW.shape) < 0.05).assign(cluster=DEMO["cluster"])
HOLES["w1"] = SKEW["w1"]
DESIGN = DEMO.assign(
    psu=DEMO["cluster"],
    stratum=DEMO["cluster"] % 40 // 8,
    w=np.random.default_rng(4).uniform(0.5, 2, len(DEMO)),
    v=1 + DEMO["cluster"] % 3,
)


def categories(clusters: int, size: int, seed: int) -> pd.DataFrame:
    """Three ordered variables of units in clusters, and a covariate."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(clusters), size)
    x, factor, above = (
        rng.normal(size=(2, clusters * size)),
        rng.normal(size=clusters),
        rng.normal(size=(3, clusters)),
    )
    out = {"cluster": group, "x": x[0], "half": np.where(group % 2 == 0, "even", "odd")}
    for k, loading in enumerate([1.0, 0.8, 1.2]):
        own = loading * (x[1] + 0.3 * x[0] + 0.7 * factor[group])
        values = own + 0.6 * above[k][group] + rng.normal(size=len(group))
        out[f"u{k + 1}"] = np.digitize(values, [-0.8, 0.6])
    return pd.DataFrame(out)


ITEMS = ["u1", "u2", "u3"]
ORDERED = categories(150, 8, 1)
CATEGORIES_ONE = "f =~ u1 + u2 + u3\n f ~ x"
CATEGORIES = "level: 1\n f =~ u1 + u2 + u3\n f ~ x\nlevel: 2\n g =~ u1 + u2 + u3"
CASES: dict[str, tuple[str, pd.DataFrame, dict[str, Any]]] = {
    "rows": (ONE, SKEW.iloc[:300], {"estimator": "WLSMV", "meanstructure": True}),
    "rows, no means": (ONE, SKEW.iloc[:300], {"estimator": "ULSMV", "meanstructure": False}),
    "rows in clusters": (ONE, SKEW, {"estimator": "WLS", "cluster": "cluster", "meanstructure": True}),
    "two levels": (TWO, SKEW, {"estimator": "WLSMV", "cluster": "cluster"}),
    "two levels, WLS": (TWO, SKEW, {"estimator": "WLS", "cluster": "cluster"}),
    "holes": (TWO, HOLES, {"estimator": "WLSMV", "cluster": "cluster", "missing": "fiml"}),
    "groups": (
        TWO,
        SKEW,
        {"estimator": "ULSMV", "cluster": "cluster", "group": "half", "group_equal": "loadings"},
    ),
    "weights of rows": (
        ONE,
        DESIGN,
        {"estimator": "WLSMV", "weights": "w", "psu": "psu", "strata": "stratum"},
    ),
    "weights": (
        TWO,
        DESIGN,
        {
            "estimator": "WLSMV",
            "cluster": "cluster",
            "weights": "w",
            "cluster_weights": "v",
            "psu": "psu",
            "strata": "stratum",
        },
    ),
    "ordered rows": (CATEGORIES_ONE, ORDERED.iloc[:400], {"ordered": ITEMS}),
    "ordered rows in clusters": (CATEGORIES_ONE, ORDERED, {"ordered": ITEMS, "cluster": "cluster"}),
    "ordered": (CATEGORIES, ORDERED, {"ordered": ITEMS, "cluster": "cluster"}),
    "ordered, groups": (CATEGORIES, ORDERED, {"ordered": ITEMS, "cluster": "cluster", "group": "half"}),
    "ordered, weights": (
        CATEGORIES,
        ORDERED.assign(v=1 + ORDERED["cluster"] % 3, psu=ORDERED["cluster"] // 2),
        {"ordered": ITEMS, "cluster": "cluster", "cluster_weights": "v", "psu": "psu"},
    ),
    "ordered rows, weights": (
        CATEGORIES_ONE,
        ORDERED.assign(w=np.random.default_rng(6).uniform(0.5, 2, len(ORDERED)), psu=ORDERED["cluster"]),
        {"ordered": ITEMS, "weights": "w", "psu": "psu"},
    ),
    "three levels": (
        "level: 1\n a =~ y1 + y2 + y3\nlevel: 2\n b =~ y1 + y2 + y3\nlevel: 3\n y1 ~~ y2",
        simulated(3, 4, 40),
        {"estimator": "WLSMV", "cluster": ["school", "class"]},
    ),
}


@functools.cache
def fitted(name: str) -> msem.Fit:
    text, data, options = CASES[name]
    return msem.sem(text, data, **options)


def inner_part(name: str, scores: pd.DataFrame) -> np.ndarray:
    """The covariance matrix of the total score, over primary sampling units in their strata if there are any."""
    text, data, options = CASES[name]
    values = scores.to_numpy()
    if "psu" not in options:
        together = "cluster" in options and "level:" not in text
        return values.T @ values * (len(values) / (len(values) - 1) if together else 1.0)
    units = data.drop_duplicates(scores.index.name).set_index(scores.index.name, drop=False).loc[scores.index]
    strata = np.zeros(len(units)) if "strata" not in options else units[options["strata"]].to_numpy()
    out = np.zeros((values.shape[1],) * 2)
    for stratum in np.unique(strata):
        own = strata == stratum
        totals = pd.DataFrame(values[own]).groupby(units[options["psu"]].to_numpy()[own]).sum()
        centred = (totals - totals.mean()).to_numpy()
        out += len(totals) / (len(totals) - 1) * centred.T @ centred
    return out


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
@pytest.mark.parametrize("name", CASES)
def test_scores_add_up_to_zero_and_their_products_to_the_inner_part_of_the_sandwich(name: str) -> None:
    fit = fitted(name)
    scores, tangent = fit.scores(), fit.estimate.tangent
    along = scores.to_numpy() @ tangent
    assert_allclose(along.sum(axis=0), 0, atol=1e-5 * np.abs(along).sum(axis=0).max())
    bread = (
        tangent
        @ np.linalg.inv(tangent.T @ fit.objective.expected_information(fit.theta) @ tangent)
        @ tangent.T
    )
    sandwich = bread @ inner_part(name, scores) @ bread
    assert_allclose(fit.vcov, sandwich, rtol=1e-5, atol=1e-6 * np.abs(fit.vcov).max())


def test_scores_are_derivatives_of_the_squares_of_statistics() -> None:
    """Of one level without means: the statistics are averages, and the unit's part of them is known."""
    fit = fitted("rows, no means")
    rows = CASES["rows, no means"][1][[*Y, "x1"]].to_numpy()
    deviations = rows - rows.mean(axis=0)
    names = [*Y, "x1"]
    weight = len(rows)
    step = 1e-5
    derivative = []
    for k in range(fit.npar):
        moved = [fit.theta + sign * step * (np.arange(fit.npar) == k) for sign in (1, -1)]
        up, down = (fit.objective.implied(theta)[1].cov for theta in moved)
        derivative.append((up - down) / (2 * step))
    sigma = fit.sample.levels[0][1]
    found = np.zeros((len(rows), fit.npar))
    s = pd.DataFrame(sigma.cov, sigma.names, sigma.names)
    for a, first in enumerate(names):
        for second in names[a:]:
            if first == second == "x1":
                continue
            i, j = names.index(first), names.index(second)
            part = deviations[:, i] * deviations[:, j] - s.loc[first, second]
            # given the variance of x1: what the regression on its own part leaves
            beta = s.loc[first, "x1"] * s.loc[second, "x1"] / s.loc["x1", "x1"] ** 2
            if second == "x1":
                beta = s.loc[first, "x1"] / s.loc["x1", "x1"]
            part = part - beta * (deviations[:, 4] ** 2 - s.loc["x1", "x1"])
            slopes = np.array([d.loc[first, second] for d in derivative])
            found += part[:, None] / len(rows) * weight * slopes
    assert_allclose(fit.scores().to_numpy(), found, rtol=1e-5, atol=1e-5 * np.abs(found).max())


# steps against refits: the greatest error over the greatest change
STEPS: dict[str, tuple[str, pd.DataFrame, dict[str, Any], float]] = {
    "ULS": (PLAIN, SKEW, {"cluster": "cluster", "estimator": "ULSMV"}, 1e-3),
    "GLS": (PLAIN, SKEW, {"cluster": "cluster", "estimator": "GLS"}, 1e-3),
    "DWLS": (PLAIN, SKEW, {"cluster": "cluster", "estimator": "WLSMV"}, 0.1),
    "WLS": (PLAIN, SKEW, {"cluster": "cluster", "estimator": "WLS"}, 0.25),
    "normal": (PLAIN, DEMO, {"cluster": "cluster", "estimator": "ULS"}, 1e-3),
    "holes": (
        PLAIN,
        HOLES.drop(columns="half"),
        {"cluster": "cluster", "estimator": "ULSMV", "missing": "fiml"},
        1e-3,
    ),
    "covariates": (TWO, SKEW, {"cluster": "cluster", "estimator": "WLSMV"}, 0.15),
    "groups": (
        PLAIN,
        SKEW,
        {"cluster": "cluster", "estimator": "ULSMV", "group": "half", "group_equal": "loadings"},
        1e-3,
    ),
    "rows": (ONE, SKEW.iloc[:150], {"estimator": "GLS"}, 0.1),
    "rows in clusters": (
        "f =~ y1 + y2 + y3 + y4",
        SKEW,
        {"estimator": "ULSMV", "cluster": "cluster", "meanstructure": True},
        1e-3,
    ),
    "three levels": (
        *CASES["three levels"][:2],
        {"estimator": "ULSMV", "cluster": ["school", "class"]},
        1e-2,
    ),
    "ordered": (CATEGORIES, ORDERED, {"ordered": ITEMS, "cluster": "cluster"}, 0.5),
    "ordered rows": (CATEGORIES_ONE, ORDERED.iloc[:300], {"ordered": ITEMS}, 0.3),
}


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
@pytest.mark.parametrize("name", STEPS)
def test_steps_are_close_to_refits(name: str) -> None:
    text, data, options, tolerance = STEPS[name]
    fit = msem.sem(text, data, **options)
    steps = fit.influence()
    some = list(steps.top(6).index[::2]) + list(steps.measures.index[:12])
    some = list(dict.fromkeys(some))
    exact = fit.influence(exact=True, clusters=some, progress=False)
    assert (steps.measures["status"] == "ok").all()
    assert (exact.measures["status"] == "ok").all()
    error = np.abs(steps.standardized.loc[some] - exact.standardized).to_numpy().max()
    assert error < tolerance * np.abs(exact.standardized).to_numpy().max()


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
@pytest.mark.parametrize("name", ["two levels", "ordered", "rows in clusters", "three levels"])
def test_exact_influence_is_that_of_fits_to_the_other_clusters(name: str) -> None:
    text, data, options = CASES[name]
    fit, data = fitted(name), data.rename(columns={"school": "cluster"})
    if name == "three levels":
        options = {**options, "cluster": ["cluster", "class"]}
    found = fit.influence(exact=True, clusters=[7, 20], progress=False)
    for one in (7, 20):
        other = msem.sem(text, data[data["cluster"] != one], **options)
        assert_allclose(found.change.loc[one], other.params - fit.params, atol=1e-5)
        moved = fit.objective.value(other.theta) - fit.chisq
        assert found.measures.loc[one, "displacement"] == pytest.approx(moved, rel=1e-3, abs=1e-8)
    assert list(found.measures["size"]) == [int((data["cluster"] == one).sum()) for one in (7, 20)]


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
def test_measures_are_what_they_are_called() -> None:
    fit = msem.sem(PLAIN, SKEW, cluster="cluster", estimator="WLSMV")
    found = fit.influence(clusters=[3, 4, 5])
    change = found.change.to_numpy()
    core = fit.objective.core
    straight = [2 * d - (core.settle(fit.theta, d, core.intercepts()) - fit.theta) for d in change]
    assert_allclose(found.measures["cook"], [d @ np.linalg.solve(fit.vcov, d) for d in straight], rtol=1e-7)
    moved = [fit.objective.value(fit.theta + d) - fit.chisq for d in change]
    assert_allclose(found.measures["displacement"], moved, rtol=1e-6)
    assert_allclose(found.standardized, found.change / fit.bse)


def test_the_sum_of_squares_of_the_changes_is_the_robust_covariance_matrix() -> None:
    """What units add to the estimates is the infinitesimal jackknife, whatever the weights are."""
    fit = msem.sem("f =~ y1 + y2 + y3", SKEW, estimator="ULSMV", meanstructure=True)
    change = fit.influence().change.to_numpy()
    assert_allclose(np.sqrt((change**2).sum(axis=0)), fit.bse, rtol=0.02)


def test_what_has_no_units_is_refused() -> None:
    moments = msem.sem(PLAIN, DEMO, cluster="cluster", estimator="ULS").saturated
    given = msem.sem(PLAIN, moments, estimator="ULS")
    for ask in (given.scores, given.influence):
        with pytest.raises(DataError, match="raw data"):
            ask()
    ordered = fitted("ordered rows")
    saved = msem.sem(CATEGORIES_ONE, ordered.ordered_moments)
    for ask in (saved.scores, saved.influence):
        with pytest.raises(DataError, match="raw data"):
            ask()
    with pytest.raises(UnsupportedError, match="take the sample for a simple one"):
        fitted("weights of rows").influence()
    with pytest.raises(UnsupportedError, match="maximum likelihood"):
        ordered.cluster_loglik()
