"""Structural-after-measurement of three and more levels: against whole models, parts of fewer levels, and refits."""

from __future__ import annotations

import functools
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import ModelError, UnsupportedError
from test_four_levels import CLUSTER as FOUR
from test_four_levels import DATA as OF_FOUR
from test_four_levels import FACTORS

CLUSTER = ["school", "class"]
Y = ["y1", "y2", "y3"]
THREE = "".join(f"level: {k}\n f{k} =~ y1 + y2 + y3\n" for k in (1, 2, 3))
PATHS = """
level: 1
  f1 =~ y1 + y2 + y3
  x ~ f1
level: 2
  f2 =~ y1 + y2 + y3
  x ~ f2
level: 3
  f3 =~ y1 + y2 + y3
  x ~ b*f3 + w
  f3 ~ w
"""
INNER = """
  k =~ v1 + v2 + v3
  f2 ~ k
level: 3
  k3 =~ v1 + v2 + v3
  h =~ z1 + z2 + z3
  f3 ~ k3 + h
"""


@functools.cache
def data() -> pd.DataFrame:
    """Pupils in classes in schools with factors of each level, on which an observed outcome depends."""
    rng = np.random.default_rng(3)
    rows = []

    def part(scale: float, mean: float = 0.0) -> tuple[np.ndarray, float]:
        f = mean + rng.normal()
        y = scale * np.append(
            f * np.array([1.0, 0.8, 0.9]) + 1.0 * rng.normal(size=3), 0.4 * f + rng.normal()
        )
        return y, f

    def measures(f: float) -> np.ndarray:
        return 0.6 * f + rng.normal() + 0.7 * rng.normal(size=3)

    for school in range(80):
        w = rng.normal()
        a, f3 = part(0.8, 0.5 * w)
        z, own = measures(f3), measures(f3)
        for room in range(rng.integers(2, 5)):
            b, f2 = part(0.8)
            v = own + measures(f2)
            for _ in range(rng.integers(2, 5)):
                rows.append((school, room, *(a + b + part(1.0)[0]), w, *v, *z))
    names = [*Y, "x", "w", "v1", "v2", "v3", "z1", "z2", "z3"]
    return pd.DataFrame(rows, columns=[*CLUSTER, *names])


@functools.cache
def fit(model: str = PATHS, method: str = "local", **options: object) -> msem.StepwiseFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", msem.errors.ImproperSolutionWarning)
        return msem.sam(model, data(), cluster=CLUSTER, method=method, **options)


@pytest.mark.parametrize("method", ["local", "global"])
@pytest.mark.parametrize(
    ("model", "frame", "cluster"), [(THREE, data, CLUSTER), (FACTORS, lambda: OF_FOUR, FOUR)]
)
def test_just_identified_models_have_the_estimates_and_errors_of_whole_models(model, frame, cluster, method):
    found = msem.sam(model, frame(), cluster=cluster, method=method)
    whole = msem.sem(model, frame(), cluster=cluster, estimator="MLR")
    assert_allclose(found.params, whole.params, atol=1e-4)
    assert_allclose(found.bse, whole.bse, rtol=1e-3)


def test_saturated_paths_of_observed_variables_are_those_of_the_whole_model():
    model = "".join(f"level: {k}\n y2 ~ y1\n y3 ~ y1 + y2\n" for k in (1, 2, 3))
    found = msem.sam(model, data(), cluster=CLUSTER, fixed_x=False)
    whole = msem.sem(model, data(), cluster=CLUSTER, estimator="MLR", fixed_x=False)
    names = [name for name in found.params.index if name in whole.params.index]
    assert "y3~y2.l3" in names
    assert_allclose(found.params[names], whole.params[names], atol=1e-4)
    assert_allclose(found.bse[names], whole.bse[names], rtol=1e-3)


def test_latent_moments_are_the_closed_form_at_every_level():
    found = fit()
    for level in (1, 2, 3):
        loadings = found.loadings(level, std=False).loc[Y, f"f{level}"].to_numpy()
        est = found.estimates(level=level)
        theta = np.array([est[(est["lhs"] == y) & (est["rhs"] == y)]["est"].iloc[0] for y in Y])
        weight = loadings / theta
        mapping = weight / (weight @ loadings)
        sigma = found.saturated.levels[level - 1].cov
        cov = found.latent_cov(level)
        own = mapping @ (sigma.loc[Y, Y] - np.diag(theta)) @ mapping
        assert cov.loc[f"f{level}", f"f{level}"] == pytest.approx(own, rel=1e-9)
        assert cov.loc[f"f{level}", "x"] == pytest.approx(mapping @ sigma.loc[Y, "x"], rel=1e-9)
    assert found.params["x~f2.l2"] == pytest.approx(
        found.latent_cov(2).loc["f2", "x"] / found.latent_cov(2).loc["f2", "f2"], rel=1e-7
    )


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", ["local", "global"])
def test_errors_are_those_of_refits_with_one_school_a_little_heavier(method):
    """Influence of each school by differences; their squares add up to the sampling variances."""
    step, few = 1e-4, data()[data()["school"] < 20]

    def estimates(school: int, **options: object) -> msem.StepwiseFit:
        frame = few.assign(heavier=1.0 + step * (few["school"] == school))
        options = {"cluster_weights": "heavier", "tolerance": 1e-12, **options}
        return msem.sam(PATHS, frame, cluster=CLUSTER, method=method, **options)

    found = estimates(-1)
    influence = [
        (estimates(school, se="none").params - found.params).to_numpy() / step for school in range(20)
    ]
    assert_allclose(found.bse, np.sqrt(np.square(influence).sum(axis=0)), rtol=1e-3)


def test_errors_of_intercepts_know_the_means_of_covariates():
    """Far from 0 the slope and the mean of a covariate move the intercepts much."""
    frame = data().assign(w=data()["w"] + 5)
    found, free = (msem.sam(PATHS, frame, cluster=CLUSTER, fixed_x=fixed) for fixed in (True, False))
    whole = msem.sem(PATHS, frame, cluster=CLUSTER, estimator="MLR")
    names = ["y1~1.l3", "y2~1.l3", "x~1.l3"]
    assert_allclose(found.bse[names], free.bse[names], rtol=1e-6)
    assert_allclose(found.bse[names], whole.bse[names], rtol=0.15)


def test_blocks_of_clusters_are_models_of_their_levels():
    model = (
        PATHS.replace("  x ~ b*f3 + w\n  f3 ~ w\n", "").replace("level: 3\n", "").replace("  x ~ f1\n", "")
    )
    model = model.replace("  x ~ f2\n", "").replace(
        "  f3 =~ y1 + y2 + y3\n", INNER + "  f3 =~ y1 + y2 + y3\n"
    )
    found = fit(model)
    assert found.measurement()["factors"].tolist() == ["f1, f2, f3", "k, k3", "h"]
    rooms = data().drop_duplicates(CLUSTER)
    inner = msem.sem(
        "level: 1\n k =~ v1 + v2 + v3\nlevel: 2\n k3 =~ v1 + v2 + v3",
        rooms,
        cluster="school",
        estimator="MLR",
    )
    highest = msem.cfa("h =~ z1 + z2 + z3", data().drop_duplicates("school"), estimator="MLR")
    pairs = {"k=~v2.l2": "k=~v2", "v1~~v1.l2": "v1~~v1", "k3=~v3.l3": "k3=~v3.l2", "v2~~v2.l3": "v2~~v2.l2"}
    for whole, names in (
        (inner, pairs),
        (highest, {"h=~z2.l3": "h=~z2", "z3~~z3.l3": "z3~~z3", "h~~h.l3": "h~~h"}),
    ):
        assert_allclose(found.params[list(names)], whole.params[list(names.values())], atol=1e-4)
        assert_allclose(found.bse[list(names)], whole.bse[list(names.values())], rtol=2e-3)
    normal = fit(model, se="standard")
    assert_allclose(normal.params, found.params, atol=1e-8)
    assert_allclose(normal.bse, found.bse, rtol=0.6)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize("method", ["local", "global"])
def test_matrices_and_rows_agree(method):
    model = PATHS.replace(" + w", "").replace("  f3 ~ w\n", "")
    balanced = data()[data().groupby(CLUSTER).cumcount() < 2]
    balanced = balanced[balanced["class"] < 2]
    rows = msem.sam(model, balanced, cluster=CLUSTER, method=method, se="standard")
    matrices = msem.sam(model, rows.saturated, method=method)
    assert_allclose(matrices.params, rows.params, atol=1e-4)
    assert_allclose(matrices.bse, rows.bse, rtol=1e-3)
    with pytest.raises(ModelError, match="needs rows"):
        msem.sam(model, rows.saturated, se="robust")


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
def test_missing_values_and_groups():
    frame = data().assign(half=np.where(data()["school"] % 2, "odd", "even"))
    both = msem.sam(THREE, frame, cluster=CLUSTER, group="half")
    alone = msem.sam(THREE, frame[frame["half"] == "even"], cluster=CLUSTER)
    at = both.group_labels.index("even") + 1
    name = "f2=~y2.l2" if at == 1 else f"f2=~y2.g{at}.l2"
    assert both.params[name] == pytest.approx(alone.params["f2=~y2.l2"], abs=1e-4)
    frame.loc[(frame["school"] < 5) & (frame["class"] == 1), "y3"] = np.nan
    holes = msem.sam(PATHS, frame, cluster=CLUSTER, missing="fiml")
    assert holes.params["x~f1"] == pytest.approx(fit().params["x~f1"], abs=fit().bse["x~f1"])
    assert_allclose(holes.bse, fit().bse, rtol=0.5)


def test_what_is_shown_and_refused():
    found = fit()
    text = found.summary()
    assert "Level 3 [school]:" in text
    assert "Number of clusters [class]" in text
    assert found.tests()["df"].tolist() == [0.0]
    assert list(found.latent_cov(3).index) == ["f3", "x", "w"]
    crossed = "".join(f"level: {k}\n f{k} =~ y1 + y2 + y3\n" for k in (1, "school", "class"))
    with pytest.raises(UnsupportedError, match="not available for crossed classifications"):
        msem.sam(crossed, data(), cluster="school * class")
