"""Weights and designs at three levels: repeated rows, integrals by the trapezoid rule, and sandwiches by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import msem
import three_levels
from msem.errors import DataError, UnsupportedError

pytestmark = pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")  # samples are small

CLUSTER = three_levels.CLUSTER
LEVELS = """
level: 1
  fw =~ y1 + y2 + y3
  fw ~ x
level: 2
  y1 ~~ y1 + z
  y2 ~~ 0.5*y2
  y1 ~ w
level: 3
  y1 ~~ y1 + y2
  y2 ~~ y2
  y1 ~ v
"""
SLOPES = """
level: 1
  y1 ~ rv("s")*x
level: 2
  y1 ~~ y1
  y1 ~ rv("b")*w
  s ~~ s
level: 3
  y1 ~~ y1
  s ~~ s
  b ~~ 0*b
"""
SMALL = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"


def made_up(seed: int = 3, schools: int = 40, *, holes: bool = False) -> pd.DataFrame:
    data = three_levels.with_weights(three_levels.sample("all kinds", seed, schools), seed)
    rng, names = np.random.default_rng(seed), ["y1", "y2", "y3", "y4"]
    number = pd.factorize(data["school"] * 100 + data["class"])[0]
    data[names] += rng.normal(size=(schools, 4))[data["school"]] + rng.normal(size=(1000, 4))[number]
    data["half"] = data["school"] % 2
    data["town"] = data["school"] // 2
    return three_levels.with_holes(data, seed) if holes else data


def fitted(data: pd.DataFrame, model: str = LEVELS, *, weights: bool = True, **options: Any) -> msem.Fit:
    given = (three_levels.WEIGHTS if weights else {}) | {"cluster": CLUSTER} | options
    return msem.sem(model, data, **given)


@pytest.mark.parametrize("model", [LEVELS, SLOPES], ids=["levels", "slopes"])
@pytest.mark.parametrize("holes", [False, True])
def test_whole_weights_are_repeated_units_classes_and_schools(model: str, holes: bool) -> None:
    data = made_up(holes=holes)
    options = {"missing": "fiml"} if holes else {}
    one = fitted(data, model, **options)
    many = fitted(three_levels.repeated(data), model, weights=False, **options)
    np.testing.assert_allclose(one.theta, many.theta, rtol=2e-6, atol=2e-7)
    factor = many.llf / one.llf  # weights of schools add up to their number
    assert factor == pytest.approx(data.groupby("school")["w3"].first().mean(), rel=1e-9)
    a, b = (fit.objective.observed_information(many.theta) for fit in (one, many))
    np.testing.assert_allclose(factor * a, b, rtol=1e-7, atol=1e-7 * np.abs(b).max())
    if model == LEVELS:
        assert factor * one.unrestricted_llf == pytest.approx(many.unrestricted_llf, rel=1e-8)
    assert one.nobs == len(data)


def test_weights_of_one_give_robust_errors_and_change_nothing_else() -> None:
    data = made_up().assign(w1=1.0, w2=1.0, w3=1.0)
    one, plain = fitted(data, se="robust"), fitted(data, weights=False, estimator="MLR")
    np.testing.assert_allclose(one.theta, plain.theta, rtol=1e-9)
    np.testing.assert_allclose(one.vcov, plain.vcov, rtol=1e-8)
    scaled = [fit.fit_measures()["chisq_scaled"] for fit in (one, plain)]
    assert scaled[0] == pytest.approx(scaled[1], rel=1e-8)


def test_the_pseudo_likelihood_is_its_integrals_by_the_trapezoid_rule() -> None:
    data, rng = made_up(schools=8), np.random.default_rng(1)
    data["w1"], of_class, of_school = rng.uniform(0.3, 3, len(data)), *rng.uniform(0.3, 3, (2, 100))
    data["w2"] = of_class[pd.factorize(data["school"] * 100 + data["class"])[0]]
    data["w3"] = of_school[data["school"]]
    fit = fitted(data, SMALL, se="none", test="standard")
    within, between, top = (fit.params[f"y1~~y1{suffix}"] for suffix in ("", ".l2", ".l3"))
    mean = fit.params["y1~1.l3"]
    at = np.linspace(-9, 9, 601)
    step = at[1] - at[0]

    def log_normal(x: Any, variance: float) -> Any:
        return -0.5 * (np.log(2 * np.pi * variance) + x**2 / variance)

    def log_integral(values: Any, variance: float) -> Any:
        inner = values + log_normal(np.sqrt(variance) * at, variance)
        most = inner.max(axis=-1)
        return most + np.log(np.sqrt(variance) * step * np.exp(inner - most[..., None]).sum(axis=-1))

    total, schools = 0.0, data.groupby("school")["w3"].first()
    for school, rows in data.groupby("school"):
        of_school_values = np.zeros(len(at))
        for _, part in rows.groupby("class"):
            effect = np.sqrt(top) * at[:, None] + np.sqrt(between) * at  # of school, of class
            own = sum(
                w * log_normal(y - mean - effect, within) for y, w in zip(part["y1"], part["w1"], strict=True)
            )
            of_school_values += part["w2"].iloc[0] * log_integral(own, between)
        total += schools[school] / schools.mean() * float(log_integral(of_school_values, top))
    assert fit.llf == pytest.approx(total, rel=1e-9)


def test_weights_are_scaled_to_units_of_classes_and_classes_of_schools() -> None:
    data = made_up()
    size = fitted(data, weights_scale="size")
    by_class, classes = data.groupby(CLUSTER), data.groupby(CLUSTER)["w2"].first()
    of_school = classes.groupby("school").transform("size") / classes.groupby("school").transform("sum")
    by_hand = data.assign(
        w1=data["w1"] * by_class["w1"].transform("size") / by_class["w1"].transform("sum"),
        w2=(classes * of_school).loc[pd.MultiIndex.from_frame(data[CLUSTER])].to_numpy(),
    )
    np.testing.assert_allclose(fitted(by_hand).theta, size.theta, rtol=1e-8)
    effective = fitted(data, weights_scale="effective")
    shrunk = classes.groupby("school").transform("sum") / (classes**2).groupby("school").transform("sum")
    squares = (data["w1"] ** 2).groupby([data["school"], data["class"]]).transform("sum")
    by_hand = data.assign(
        w1=data["w1"] * by_class["w1"].transform("sum") / squares,
        w2=(classes * shrunk).loc[pd.MultiIndex.from_frame(data[CLUSTER])].to_numpy(),
    )
    np.testing.assert_allclose(fitted(by_hand).theta, effective.theta, rtol=1e-8)


def test_errors_are_the_sandwich_over_units_of_the_design() -> None:
    data = made_up()
    data["region"] = data["town"] % 3
    fit = fitted(data, psu="town", strata="region", se="robust")
    scores = fit.scores().to_numpy()
    schools = data.drop_duplicates("school")
    totals = pd.DataFrame(scores).groupby(schools["town"].to_numpy()).sum()
    region = schools.groupby("town")["region"].first()
    meat = np.zeros((scores.shape[1],) * 2)
    for _, part in totals.groupby(region):
        off = (part - part.mean()).to_numpy()
        meat += len(part) / (len(part) - 1) * off.T @ off
    bread = np.linalg.inv(fit.objective.observed_information(fit.theta))
    np.testing.assert_allclose(fit.vcov, bread @ meat @ bread, rtol=1e-7, atol=1e-12)
    assert "Primary sampling units [town]" in fit.summary()


def test_the_one_step_jackknife_leaves_out_what_a_school_stands_for() -> None:
    data = made_up().assign(origin=lambda d: d["school"])
    one = fitted(data, SMALL, psu="origin", se="jackknife1")
    many = fitted(three_levels.repeated(data), SMALL, weights=False, psu="origin", se="jackknife1")
    np.testing.assert_allclose(one.vcov, many.vcov, rtol=1e-6)


def test_weights_of_some_levels() -> None:
    data = made_up()
    ones = data.assign(one=1.0)
    for given, all_three in (
        ({"cluster_weights": "w3"}, ["w3", "one"]),
        ({"cluster_weights": ["w3"]}, ["w3", "one"]),
        ({"cluster_weights": [None, "w2"]}, ["one", "w2"]),
    ):
        some = msem.sem(LEVELS, data, cluster=CLUSTER, **given)
        whole = msem.sem(LEVELS, ones, cluster=CLUSTER, weights="one", cluster_weights=all_three)
        np.testing.assert_allclose(some.theta, whole.theta, rtol=1e-9)
        np.testing.assert_allclose(some.vcov, whole.vcov, rtol=1e-7)
    assert "Weights of clusters [w2]" in some.summary()
    assert some.options.surveyed


def test_replicate_weights_count_schools() -> None:
    data, rng = made_up(), np.random.default_rng(2)
    factors = np.where(rng.random((6, 40)) < 0.5, 1.5, 0.5)
    names = [f"r{k}" for k in range(6)]
    whole = data["w1"] * data["w2"] * data["w3"]
    data = data.assign(
        **{name: whole * row[data["school"]] for name, row in zip(names, factors, strict=True)}
    )
    fit = fitted(data, SMALL, replicate_weights=names, replicate_scale="brr")
    off = [fitted(data.assign(w3=data["w3"] * f[data["school"]]), SMALL).theta - fit.theta for f in factors]
    np.testing.assert_allclose(
        fit.vcov, np.mean([np.outer(d, d) for d in off], axis=0), rtol=1e-5, atol=1e-12
    )


def test_weighted_moments_have_their_gamma_and_levels_are_fitted_to_them() -> None:
    data = made_up()
    names = [["y1", "y2"], ["y1", "y2"], ["y1", "y2"]]
    free = SMALL.replace("y1 ~~ y1", "y1 ~~ y1 + y2\n y2 ~~ y2")
    moments = msem.saturated(data, cluster=CLUSTER, levels=names, **three_levels.WEIGHTS)
    fit = fitted(data, free, se="robust")
    np.testing.assert_allclose(moments[3].cov, fit.unrestricted_moments[3].cov, rtol=1e-5)
    levels = msem.segregated(free, moments)
    table = levels.estimates()
    own = fit.estimates()
    variances = [t[(t["op"] == "~~") & (t["level"] == 2)]["se"].to_numpy() for t in (table, own)]
    np.testing.assert_allclose(*variances, rtol=1e-4)


def test_scores_do_not_depend_on_weights() -> None:
    data = made_up()
    fit = fitted(data, SMALL)
    plain = fitted(data, SMALL, weights=False)
    fixed = SMALL
    for level, suffix in ((1, ""), (2, ".l2"), (3, ".l3")):
        fixed = fixed.replace(
            f"level: {level}\n y1 ~~ y1", f"level: {level}\n y1 ~~ {fit.params['y1~~y1' + suffix]:.17g}*y1"
        )
    fixed += f"\n y1 ~ {fit.params['y1~1.l3']:.17g}*1"
    same = fitted(data, fixed, weights=False)
    np.testing.assert_allclose(fit.random_effects(level=2), same.random_effects(level=2), rtol=1e-10)
    assert plain.llf != same.llf


@pytest.mark.parametrize(
    ("change", "options", "kind", "message"),
    [
        (
            {},
            {"cluster_weights": ["w3", "w2", "w1"]},
            DataError,
            "of 3 kinds of clusters, and cluster= has 2",
        ),
        ({}, {"cluster_weights": ["w3", "w1"]}, DataError, "'w1' must be the same in all rows of a cluster"),
        ({}, {"cluster_weights": "w2"}, DataError, "'w2' must be the same in all rows of a cluster"),
        ({"w2": -1.0}, {}, DataError, "'w2' of cluster_weights= is negative"),
        ({"w2": np.nan}, {}, DataError, "'w2' of cluster_weights= has no values"),
        ({"w2": 0.0}, {}, DataError, "'w2' of cluster_weights= is zero in every row"),
        ({}, {"se": "standard"}, UnsupportedError, "takes the sample for a simple one"),
        (
            {},
            {"weights": None, "cluster_weights": [None, "w2"], "se": "standard"},
            UnsupportedError,
            "simple one",
        ),
    ],
)
def test_mistakes_are_named(
    change: dict[str, float], options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        fitted(made_up().assign(**change), SMALL, **options)


def test_crossed_classifications_have_no_weights() -> None:
    data = made_up()
    with pytest.raises(UnsupportedError, match="weights, PSUs and strata"):
        msem.sem(SMALL, data, cluster="half * school", weights="w1")
