"""Residuals of models with random slopes: moments in coordinates of the saturated model of slopes."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import slope_cases
from msem.data.model_statistics import slope_carriers
from msem.errors import UnsupportedError
from msem.estimation.estimate import starts
from msem.estimation.objective import build_objective
from msem.estimation.slope_moments import against_slopes
from msem.model.derived import saturated_slopes, saturated_table
from msem.postestimation.residuals import moments_with_errors, slope_models

CHAINS = {
    "a mediator that is a covariate": """
        level: 1
          y1 ~ rv("a")*x2 + rv("b")*x1 + x3
          y3 ~ x2
          x2 ~ x1 + x3
        level: 2
          y1 ~~ a
          y3 ~~ y3
          b ~ w
    """,
    "slopes that follow each other": """
        level: 1
          y1 ~ rv("a")*x2
          y2 ~ 0.5*y1 + x1
          x2 ~ rv("b")*x1
        level: 2
          y1 ~~ a
          y2 ~ y1
          a ~~ b
    """,
}
THREE = """
level: 1
  f =~ y1 + y2 + y3
  f ~ rv("s")*x
level: 2
  g =~ y1 + y2 + y3
  g ~ rv("t")*w2
  y1 ~ w2
  s ~~ s
level: 3
  h =~ y1 + y2 + y3
  s ~ w3
  s ~~ h
  t ~~ t
"""
CROSSED = """
level: 1
  f =~ y1 + y2 + y3
  f ~ rv("s")*x + w3
level: class
  y1 + s ~ w2
  y1 ~~ y2
level: other
  y1 ~~ y1
  s ~~ s
"""
TWO = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ rv("s")*x1 + x2
level: 2
  fb =~ y1 + y2 + y3
  fb + s ~ w
  y1 ~~ 0*y1
  fb ~~ s
"""


REGULAR = """
level: 1
  y1 ~ rv("s")*x1 + 0.4*x2
  y2 ~ rv("t")*x1 + 0.5*y1
  y1 ~~ 1.0*y1
  y2 ~~ 1.0*y2
level: 2
  y1 ~ 0.3*w
  y1 ~~ 1.0*y1 + 0.3*s
  y2 ~~ 0.8*y2
  s ~ 0.2*w + 0.4*1
  t ~ 0.3*1
  s ~~ 0.5*s + 0.2*t
  t ~~ 0.5*t
"""


def three_levels(nschools=12, seed=3):
    rng = np.random.default_rng(seed)
    schools, classes, size = nschools, 3 * nschools, 4
    own = np.repeat(np.arange(classes), size)
    above = own // 3
    frame = pd.DataFrame(rng.normal(size=(len(own), 4)), columns=["y1", "y2", "y3", "x"])
    frame["w2"], frame["w3"] = rng.normal(size=classes)[own], rng.normal(size=schools)[above]
    slope = 0.5 + 0.4 * rng.normal(size=schools)[above] + 0.3 * rng.normal(size=classes)[own]
    for name, loading in {"y1": 1, "y2": 0.8, "y3": 1.2}.items():
        frame[name] += (
            loading * slope * frame["x"] + rng.normal(size=classes)[own] + rng.normal(size=schools)[above]
        )
    frame["school"], frame["class"] = above, own
    return frame


def two_levels(nclusters=100, size=15, seed=4):
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(nclusters), rng.integers(size - 2, size + 3, nclusters))
    frame = pd.DataFrame(rng.normal(size=(len(code), 3)), columns=["y1", "y2", "y3"])
    frame[["x1", "x2"]] = rng.normal(size=(len(code), 2))
    frame["w"] = rng.normal(size=nclusters)[code]
    factor = rng.normal(size=len(code)) + 0.4 * frame["x2"]
    factor += (0.5 + 0.5 * rng.normal(size=nclusters))[code] * frame["x1"]
    between = 0.3 * frame["w"] + rng.normal(size=nclusters)[code]
    for k, loading in enumerate((1, 0.8, 0.7), 1):
        frame[f"y{k}"] += loading * (factor + between) + 0.4 * (k > 1) * rng.normal(size=nclusters)[code]
    frame["id"] = code
    return frame


def saturated_of(fit, number=1):
    """The saturated model of slopes of a group, not estimated."""
    group = fit.sample.groups[number - 1]
    table = fit.objective.of_group(number).table
    whole = saturated_table(table)
    statistics = group.statistics.with_slopes(saturated_slopes(table, 1), slope_carriers(whole, 1))
    objective = build_objective(whole, [statistics])
    sample = replace(fit.sample, groups=(replace(group, statistics=statistics, space="natural"),))
    return SimpleNamespace(objective=objective, theta=starts(objective, sample)[0], table=whole)


def unfinished(text, data, cluster, **options):
    """A fit after two iterations: a point that is no maximum."""
    return msem.sem(text, data, cluster=cluster, max_iterations=2, se="none", **options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*slope_cases.MODELS, *CHAINS, "with holes", "three levels", "crossed"])
def test_the_saturated_model_at_what_a_model_implies_has_its_likelihood(name):
    if name == "three levels":
        fit = unfinished(THREE, three_levels(), ["school", "class"])
    elif name == "crossed":
        data = three_levels()
        data["other"] = np.random.default_rng(1).integers(0, 10, len(data))
        fit = unfinished(CROSSED, data, ["class × other"])
    else:
        data, options = slope_cases.sample(3, 60), {}
        if name == "with holes":
            data, options = slope_cases.with_holes(data), {"missing": "fiml"}
        text = {**slope_cases.MODELS, **CHAINS, "with holes": slope_cases.MODELS["all kinds"]}[name]
        fit = unfinished(text, data, "id", **options)
    saturated = saturated_of(fit)
    found = against_slopes(fit.estimate, fit.sample.groups[0], saturated, 1)
    assert saturated.objective.llf(found.implied) == pytest.approx(fit.llf, rel=1e-12)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*slope_cases.MODELS, *CHAINS])
def test_derivatives_are_those_of_differences(name):
    text = {**slope_cases.MODELS, **CHAINS}[name]
    fit = unfinished(text, slope_cases.sample(3, 60), "id")
    group, saturated = fit.sample.groups[0], saturated_of(fit)

    def implied(theta):
        moved = replace(fit.estimate, optimum=replace(fit.estimate.optimum, theta=theta))
        return against_slopes(moved, group, saturated, 1).vector.implied

    found = against_slopes(fit.estimate, group, saturated, 1).vector.jacobian
    step = 1e-5 * np.maximum(np.abs(fit.theta), 0.1)
    for k, h in enumerate(np.diag(step)):
        exact = (implied(fit.theta + h) - implied(fit.theta - h)) / (2 * step[k])
        assert_allclose(found[:, k], exact, rtol=1e-6, atol=1e-6 * np.abs(exact).max())


@functools.cache
def fitted(estimator="ML"):
    return msem.sem(TWO, two_levels(), cluster="id", estimator=estimator)


def test_observed_moments_are_those_of_the_saturated_fit():
    fit = fitted()
    saturated = fit.groups[""].slope_reference.estimate
    (model,) = slope_models(fit)
    values = dict(zip(model.vector.keys, model.vector.observed, strict=True))
    moments = saturated.objective.moments(saturated.theta)
    within, between = moments[1].observed.frame(), moments[2].frame()
    for key, value in values.items():
        if key.op == "~~":
            source = within if key.level == 1 else between
            assert value == pytest.approx(source.loc[key.lhs, key.rhs], rel=1e-10, abs=1e-12)
    means = moments[2].series()
    slopes = {key.lhs: value for key, value in values.items() if key.op == "~1" and "*" in key.lhs}
    assert slopes == pytest.approx({name: means[name] for name in ("y1*x1", "y2*x1", "y3*x1")})


def test_a_slope_of_a_factor_implies_slopes_of_its_indicators_that_are_proportional_to_loadings():
    fit = fitted()
    frame = fit.residuals()
    (model,) = slope_models(fit)
    implied = dict(zip(model.vector.keys, model.vector.implied, strict=True))
    mean = {key.lhs: value for key, value in implied.items() if key.op == "~1"}
    for name in ("y2", "y3"):
        assert mean[f"{name}*x1"] / mean["y1*x1"] == pytest.approx(fit.params[f"fw =~ {name}"])
    rows = frame.query("lhs == 'y2*x1' and rhs == 'y3*x1'")
    assert rows["level"].to_list() == [2]
    given = frame.query("lhs == 'x1' and rhs == 'x2'")
    assert (given["se"].item(), given["residual"].item()) == (0, pytest.approx(0, abs=1e-12))


def test_standard_errors_are_those_of_samples_of_the_model():
    """Standardized residuals of 200 samples: their standard deviations are right to 5%."""
    text = re.sub(r"\d\.\d\*", "", REGULAR)
    found = []
    for seed in range(200):
        data = msem.simulate(REGULAR, nclusters=80, cluster_sizes=8, seed=seed)
        found.append(msem.sem(text, data, cluster="cluster").residuals()["z"])
    values = np.array(found)
    spread = values[:, ~np.isnan(values).any(axis=0)].std(axis=0)
    assert len(spread) > 20
    assert abs(np.log(spread).mean()) < 0.05
    assert np.abs(np.log(spread)).max() < 0.25


def test_robust_standard_errors_are_those_of_leaving_out_clusters():
    data = two_levels(60)
    fit = msem.sem(TWO, data, cluster="id", estimator="MLR")
    left = [msem.sem(TWO, data[data["id"] != k], cluster="id").residuals()["residual"] for k in range(60)]
    spread = np.sqrt(59) * np.std(left, axis=0)
    frame = fit.residuals()
    own = [
        not (row.op == "~1" or row.rhs in ("x1", "x2", "w") or row.lhs == "w") for row in frame.itertuples()
    ]
    ratio = spread[own] / frame["se"][own]
    assert abs(np.log(ratio).mean()) < 0.1


def test_root_mean_squares_are_those_of_the_residuals():
    fit = fitted()
    frame = fit.residuals("cor.bollen")
    table = fit.srmr()
    measures = fit.fit_measures()
    for level, name in ((1, "within"), (2, "between")):
        own = frame.query(f"op == '~~' and level == {level}")["residual"]
        expected = np.sqrt(np.mean(own**2))
        assert measures[f"srmr_{name}"] == pytest.approx(expected)
        row = table.query(f"measure == 'srmr' and part == 'cov' and level == {level}")
        assert row["value"].item() == pytest.approx(expected)


def test_groups_have_their_own():
    data = two_levels(160)
    data["g"] = data["id"] % 2
    whole = msem.sem(TWO, data, cluster="id", group="g")
    for number, label in enumerate(whole.group_labels, 1):
        alone = msem.sem(TWO, data[data["g"] == int(label)], cluster="id").residuals()
        own = whole.residuals().query(f"group == {number}")
        for column in ("residual", "se"):
            assert_allclose(own[column], alone[column], rtol=1e-4, atol=1e-6)


def test_a_model_that_is_saturated_has_no_residuals():
    data = two_levels()
    fit = msem.sem('level: 1\n y1 ~ rv("s")*x1 + x2\nlevel: 2\n y1 + s ~ w\n y1 ~~ s', data, cluster="id")
    frame = fit.residuals()
    assert_allclose(frame["residual"], 0, atol=1e-8)
    assert_allclose(frame["se"], 0, atol=1e-8)
    vectors, errors = moments_with_errors(fit)
    assert_allclose(errors.observed, errors.implied, atol=1e-8)
    assert len(vectors) == 1


def test_where_there_is_no_saturated_model_of_slopes_the_reason_is_said():
    rng = np.random.default_rng(1)
    data = two_levels(40)
    data["x"] = data["x1"] + rng.normal(size=40)[data["id"]]
    fit = msem.sem(
        'level: 1\n y1 ~ rv("s")*x\nlevel: 2\n y1 ~ x\n y1 ~~ s', data, cluster="id", fixed_x=False
    )
    for question in (fit.residuals, fit.srmr, fit.residual_matrices):
        with pytest.raises(UnsupportedError, match=r"stands at both levels.*no saturated model"):
            question()
    assert np.isnan(fit.fit_measures()["srmr"])


def test_standardized_residuals_do_not_depend_on_units():
    data = two_levels(60)
    text = 'level: 1\n y1 ~ rv("s")*x1\n y2 ~ y1\nlevel: 2\n y1 ~ w\n s ~~ y1\n y2 ~~ y2'
    plain, other = (
        msem.sem(text, own, cluster="id").residuals()["z"]
        for own in (data, data.assign(y1=1e6 * data["y1"], x1=1e-6 * data["x1"]))
    )
    assert plain.abs().max() > 0.5
    assert_allclose(other, plain, rtol=1e-3, atol=1e-4)
