"""Fit of one level of models with random slopes, the other saturated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import slope_cases
from msem.errors import UnsupportedError
from msem.estimation.slope_moments import Coordinates
from msem.model.slope_levels import coefficients

WITHIN = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ rv("s")*x1 + x2
"""
BETWEEN = """
  fb =~ y1 + y2 + y3
  fb + s ~ w
  fb ~~ s
"""


def sample(nclusters=150, size=10, seed=4, groups=1):
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(nclusters), rng.integers(size - 2, size + 3, nclusters))
    frame = pd.DataFrame(rng.normal(size=(len(code), 3)), columns=["y1", "y2", "y3"])
    frame[["x1", "x2"]] = rng.normal(size=(len(code), 2))
    frame["w"] = rng.normal(size=nclusters)[code]
    factor = rng.normal(size=len(code)) + 0.4 * frame["x2"]
    factor += (0.5 + 0.5 * rng.normal(size=nclusters))[code] * frame["x1"]
    between = 0.3 * frame["w"] + rng.normal(size=nclusters)[code]
    for k, loading in enumerate((1, 0.8, 0.7), 1):
        frame[f"y{k}"] += loading * (factor + between) + 0.4 * rng.normal(size=nclusters)[code]
        frame[f"y{k}"] += 0.2 * rng.normal(size=nclusters)[code] * frame["x1"]
    frame["id"], frame["g"] = code, code % groups
    return frame


@pytest.fixture(scope="module")
def fit():
    return msem.sem(f"{WITHIN}level: 2{BETWEEN}", sample(), cluster="id")


def test_the_within_level_is_held_beside_free_covariances_of_intercepts_and_slopes(fit):
    free = "y1 ~~ y2 + y3 + s\n y2 ~~ y3 + s\n y3 ~~ s\n y1 + y2 + y3 + s ~ w"
    other = msem.sem(f"{WITHIN}level: 2\n {free}", sample(), cluster="id")
    found = fit.fit_measures(level=1)
    assert found["logl"] == pytest.approx(other.llf, abs=1e-6)
    assert found["df"] == other.df == 17
    assert found["chisq"] == pytest.approx(other.chisq, abs=1e-5)
    assert found["ntotal"] == fit.nobs
    assert found["srmr"] == pytest.approx(other.fit_measures()["srmr_within"], rel=1e-4)
    assert np.isnan(found["cfi"])


def test_the_between_level_is_held_beside_slopes_of_every_outcome(fit):
    text = f"""
    level: 1
      y1 ~ rv("a")*x1 + x2
      y2 ~ rv("b")*x1 + x2
      y3 ~ rv("c")*x1 + x2
      y1 ~~ y2 + y3
      y2 ~~ y3
    level: 2{BETWEEN}
      s =~ 1*a + b + c
      a ~~ 0*a
      b ~~ 0*b
      c ~~ 0*c
      a + b + c ~ 0*1
      s ~ 1
    """
    other = msem.sem(text, sample(), cluster="id")
    found = fit.fit_measures(level="between")
    assert found["logl"] == pytest.approx(other.llf, abs=1e-6)
    assert found["df"] == other.df == 17
    assert found["chisq"] == pytest.approx(other.chisq, abs=1e-5)
    assert found["srmr"] == pytest.approx(other.fit_measures()["srmr_between"], rel=1e-4)
    # clusters are the units
    assert found["rmsea"] == pytest.approx(np.sqrt(max(found["chisq"] - 17, 0) / 17 / 150), rel=1e-9)


def test_chi_squares_are_no_greater_than_that_of_the_whole_model(fit):
    for level in (1, 2):
        found = fit.level_fit(level)
        assert found.model.optimum.converged
        assert fit.llf - 1e-6 < found.model.llf < fit.unrestricted_llf + 1e-6
    assert "Level-specific Fit Measures" in fit.summary(fit_measures=True)


def test_robust_and_grouped_fits_have_levels():
    text = f"{WITHIN}level: 2{BETWEEN}"
    robust = msem.sem(text, sample(), cluster="id", estimator="MLR").fit_measures(level=2)
    assert robust["chisq_scaled"] == pytest.approx(robust["chisq"] / robust["chisq_scaling_factor"])
    assert 0.7 < robust["chisq_scaling_factor"] < 1.4
    data = sample(300, groups=2)
    whole = msem.sem(text, data, cluster="id", group="g")
    for level in (1, 2):
        alone = [
            msem.sem(text, data[data["g"] == g], cluster="id").fit_measures(["chisq", "df"], level=level)
            for g in (0, 1)
        ]
        assert_allclose(whole.fit_measures(["chisq", "df"], level=level), sum(alone), rtol=1e-5)


CHAIN = """
level: 1
  y1 ~ rv("a")*x2 + rv("b")*x1 + x3
  y3 ~ x2
  f =~ y1 + y2
  x2 ~ rv("c")*x1 + x3
level: 2
  y1 ~~ a
  y3 ~~ y3
  b ~ w
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*slope_cases.MODELS, "chain"])
def test_paths_say_which_coefficients_depend_on_which_slopes(name):
    text = {**slope_cases.MODELS, "chain": CHAIN}[name]
    fit = msem.sem(text, slope_cases.sample(3, 60), cluster="id", max_iterations=2, se="none")
    blocks = fit.objective.blocks
    coordinates = Coordinates.of(fit.table, 1, fit.statistics.variables.levels)

    def values(theta):
        return coordinates.coefficients(fit.table.slopes(), blocks, fit.objective.observed_moments(theta))

    here, there = values(fit.theta), values(fit.theta * 1.01 + 0.003)
    for one in coefficients(fit.table, 1):
        (loads, fixed), (later, moved) = here[one.name], there[one.name]
        assert {slope for slope, load in loads.items() if abs(load) > 1e-10} == set(one.loads)
        for slope, free in one.loads.items():
            assert (abs(later[slope] - loads[slope]) > 1e-8) == free
        assert (abs(fixed) > 1e-10) == (one.mean is not None)
        assert (abs(moved - fixed) > 1e-8) == bool(one.mean)


def test_what_has_no_level_of_its_own_is_refused_by_name():
    rng = np.random.default_rng(1)
    data = sample(40)
    data["x"] = data["x1"] + rng.normal(size=40)[data["id"]]
    text = 'level: 1\n y1 ~ rv("s")*x\nlevel: 2\n y1 ~ x\n y1 ~~ s'
    fit = msem.sem(text, data, cluster="id", fixed_x=False)
    with pytest.raises(UnsupportedError, match="stands at both levels"):
        fit.fit_measures(level=1)
    tied = f"{WITHIN}level: 2{BETWEEN}".replace("x1 + x2", "x1 + a*x2").replace("~ w", "~ a*w")
    with pytest.raises(UnsupportedError, match="levels share a"):
        msem.sem(tied, sample(), cluster="id").level_fit(2)
