"""Tests of nested models of levels fitted by themselves: measurement invariance at one level."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import msem
from msem.distributions import chisq_pvalue
from msem.errors import DataError, ModelError, MsemError, MsemWarning
from simulate import two_level
from test_level_inference import BETWEEN, INTERCEPTS, LOADINGS, UNIT, W_MEAN, WITHIN, implied
from test_segregated_groups import METHODS, MODEL, SATURATED, fit, published

Floats = NDArray[np.float64]
EQUAL = ["loadings"]
OUTCOMES = ["y1", "y2", "y3"]


@pytest.mark.parametrize("equal", [["loadings"], ["loadings", "intercepts"]])
def test_likelihood_ratios_are_those_of_the_joint_fits_with_the_other_level_saturated(
    equal: list[str],
) -> None:
    model = MODEL.replace(" fw ~ x1\n", "")
    variables = msem.compile(model).table.variables.levels
    moments = {name: one.restrict(*variables) for name, one in published().items()}
    text = "level: 1\n" + SATURATED[1].replace("y1 + y2 + y3 ~ x1\n", "") + model[model.index("level: 2") :]
    joint = msem.compare_models(*(msem.sem(text, moments, group_equal=own) for own in ([], equal)))
    own = msem.compare_models(*(msem.segregated(model, moments, group_equal=one) for one in ([], equal)))
    assert own.index.names == ["level", "model"]
    ours, theirs = own.loc[("between", "model_2")], joint.loc["model_2"]
    for name in ("chisq", "df", "chisq_diff", "df_diff", "pvalue", "scaling"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-6, abs=1e-6)
    assert own.loc[("between", "model_1"), "npar"] == 20


def loadings_apart(names: list[str], level: int) -> Floats:
    """Rows that are 0 where the loadings of both groups are equal."""
    f, end = ("fw", "") if level == 1 else ("fb", ".l2")
    rows = np.zeros((2, len(names)))
    for k, y in enumerate(("y2", "y3")):
        rows[k, names.index(f"{f}=~{y}{end}")] = 1
        rows[k, names.index(f"{f}=~{y}.g2{end}")] = -1
    return rows


def exact() -> dict[str, msem.LevelMoments]:
    """Moments that the model with equal loadings reproduces."""
    joint = msem.sem(MODEL, published(), group_equal=EQUAL)
    return {
        name: msem.LevelMoments(
            *(group.implied.within.cov, group.implied.between.cov, group.implied.between.mean),
            within_mean=group.implied.within.mean[["x1"]],
            cluster_sizes=group.saturated.cluster_sizes,
        )
        for name, group in joint.groups.items()
    }


# where the smaller model does not hold exactly its directions are those of the restriction asymptotically only
MOMENTS = {"exact": (exact, 1e-6), "estimates": (published, 0.05)}


@pytest.mark.parametrize("given", MOMENTS)
@pytest.mark.parametrize("level", [1, 2])
@pytest.mark.parametrize("method", ["ml", "uls"])
def test_differences_of_discrepancies_are_scaled_and_shifted_by_the_weights_of_the_restriction(
    method: str, level: int, given: str
) -> None:
    """The weights by the matrix of the restriction: eigenvalues of (AHA')^-1 AHMHA'."""
    moments, tolerance = MOMENTS[given][0](), MOMENTS[given][1]
    models = [msem.segregated(MODEL, moments, method=method, group_equal=equal) for equal in ([], EQUAL)]
    large, small = (one.levels[level - 1].discrepancy for one in models)
    assert large is not None
    assert small is not None
    d, u, gamma = large.jacobian, large.weight, large.gamma
    h, a = np.linalg.inv(d.T @ u @ d), loadings_apart(models[0].levels[level - 1].names, level)
    middle = a @ h @ d.T @ u @ gamma @ u @ d @ h @ a.T
    weights = np.linalg.eigvals(np.linalg.solve(a @ h @ a.T, middle)).real
    scale = np.sqrt((weights**2).sum() / 2)
    statistic = (small.statistic - large.statistic) / scale + 2 - weights.sum() / scale
    found = msem.compare_models(*models).loc[({1: "within", 2: "between"}[level], "model_2")]
    assert found["chisq_diff"] == pytest.approx(statistic, rel=tolerance, abs=1e-6)
    assert found["scaling"] == pytest.approx(scale, rel=tolerance)
    assert found["pvalue"] == pytest.approx(chisq_pvalue(found["chisq_diff"], 2), rel=1e-9)
    assert found["method"] == "satorra_2000"
    only = msem.compare_models(*(one.levels[level - 1] for one in models)).loc["model_2"]
    pd.testing.assert_series_equal(only, found, check_names=False)


@pytest.mark.parametrize("given", MOMENTS)
@pytest.mark.parametrize("shifted", [False, True])
def test_likelihood_ratios_of_moments_with_a_gamma_of_their_own_are_scaled(shifted: bool, given: str) -> None:
    """Gamma of the first group is four times what its sample size says."""
    moments, tolerance = MOMENTS[given][0](), MOMENTS[given][1]
    first = next(iter(moments))
    one = moments[first]
    moments[first] = msem.LevelMoments(
        *(one.within.cov, one.between.cov, one.between.mean),
        within_mean=one.within.mean[["x1"]],
        cluster_sizes=one.cluster_sizes,
        known_acov=4 * one.gamma("expected"),
        weighted=True,
    )
    models = [msem.segregated(MODEL, moments, group_equal=equal) for equal in ([], EQUAL)]
    for level, word in enumerate(("within", "between")):
        large, small = (one.levels[level] for one in models)
        found = msem.compare_models(*models, scaled_shifted=shifted).loc[(word, "model_2")]
        information = large.objective.expected_information(large.estimate.theta)
        every = list(large.estimate.table.names())
        a, h = loadings_apart(every, level + 1), np.linalg.inv(information)
        assert large.sampling is not None
        middle = a @ large.sampling.vcov @ a.T
        weights = np.linalg.eigvals(np.linalg.solve(a @ h @ a.T, middle)).real
        ratio = small.tests["statistic"].iloc[0] - large.tests["statistic"].iloc[0]
        scale = np.sqrt((weights**2).sum() / 2) if shifted else weights.mean()
        shift = 2 - weights.sum() / scale if shifted else 0.0
        assert found["scaling"] > 1.5
        assert found["scaling"] == pytest.approx(scale, rel=tolerance)
        assert found["chisq_diff"] == pytest.approx(max(ratio, 0) / scale + shift, rel=tolerance, abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_models_that_differ_at_one_level_are_tested_there(method: str) -> None:
    text = MODEL.replace("fb =~ y1 + y2 + y3", "fb =~ y1 + c(a, a)*y2 + y3")
    found = msem.compare_models(free=fit(method=method), equal=fit(text, method=method))
    assert found["df_diff"].dropna().tolist() == [0, 1]
    assert np.isnan(found.loc[("within", "equal"), "pvalue"])
    assert 0 < found.loc[("between", "equal"), "pvalue"] < 1
    wald = fit(method=method).between.wald_test("`fb=~y2.l2` == `fb=~y2.g2.l2`")
    assert found.loc[("between", "equal"), "chisq_diff"] == pytest.approx(wald["statistic"].item(), abs=0.05)


def test_order_of_variables_does_not_matter() -> None:
    other = MODEL.replace("fb =~ y1 + y2 + y3", "fb ~~ fb\n fb =~ 1*y1 + y3 + y2").replace(
        "fb ~ w1", "fb ~ w1 "
    )
    for method in METHODS:
        large, small = fit(method=method), fit(method=method, group_equal=EQUAL)
        turned = fit(other, method=method, group_equal=EQUAL)
        one, two = (msem.compare_models(large, each) for each in (small, turned))
        np.testing.assert_allclose(
            one["chisq_diff"].astype(float), two["chisq_diff"].astype(float), rtol=1e-5
        )


def _unlike(model: str) -> Any:
    return lambda: msem.compare_models(fit(), fit(model))


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "methods": (
        lambda: msem.compare_models(fit(method="ml"), fit(method="uls", group_equal=EQUAL)),
        ModelError,
        "by different methods",
    ),
    "levels": (lambda: msem.compare_models(*fit().levels), ModelError, "fits of different levels"),
    "kinds": (
        lambda: msem.compare_models(fit(), msem.sem(MODEL, published())),
        ModelError,
        "model_1 is a SegregatedFit and model_2 is a Fit: give fits of the same kind",
    ),
    "data": (
        lambda: msem.compare_models(
            fit(), fit(data=fit_data().assign(y1=lambda t: t["y1"] * 1.01), group_equal=EQUAL)
        ),
        DataError,
        "different data",
    ),
    "method=": (
        lambda: msem.compare_models(fit(), fit(group_equal=EQUAL), method="satorra_bentler_2001"),
        MsemError,
        "leave it out",
    ),
    "variables": (_unlike(MODEL + " fb ~ w2\n"), DataError, "variable 'w2'"),
}


def fit_data() -> pd.DataFrame:
    demo = msem.load_demo()
    return demo.assign(half=np.where(demo["cluster"] // 2 % 2 == 1, "south", "north"))


@pytest.mark.parametrize(("call", "kind", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()


@pytest.mark.parametrize("method", METHODS)
def test_models_that_are_not_nested_are_refused(method: str) -> None:
    one = MODEL + " y1 ~~ y2\n"
    other = MODEL.replace("=~ y1 + y2 + y3\n fb", "=~ y1 + c(a, a)*y2 + c(b, b)*y3\n fb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        fits = fit(other, method=method), fit(one, method=method, group_equal=["residuals", "lv_variances"])
        with pytest.raises(ModelError, match=r"not nested in|same degrees of freedom"):
            msem.compare_models(*fits)


# -- simulation ------------------------------------------------------------------------------------------------

REPLICATIONS = 80


def drawn(rng: np.random.Generator) -> msem.LevelMoments:
    """Moments of a group of 100 clusters."""
    mean = [*(INTERCEPTS + LOADINGS * BETWEEN[2] * W_MEAN), 0.0, W_MEAN]
    sizes = rng.integers(5, 12, 100).tolist()
    data = two_level(rng, sizes, implied(WITHIN), implied(BETWEEN), mean, UNIT, ["w"], nboth=3)
    return msem.saturated(data, cluster="cluster", within=OUTCOMES, between=[*OUTCOMES, "w"])


def test_the_test_of_equal_loadings_between_clusters_keeps_its_level_and_the_naive_one_does_not() -> None:
    text = "level: 1\n fw =~ y1 + y2 + y3\nlevel: 2\n fb =~ y1 + y2 + y3\n fb ~ w\n"
    rng = np.random.default_rng(31)
    rejected: dict[str, list[bool]] = {"likelihood": [], "ml": [], "naive": []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MsemWarning)
        while len(rejected["ml"]) < REPLICATIONS:
            given = {"a": drawn(rng), "b": drawn(rng)}
            if min(one.between_eigenvalues[0] for one in given.values()) < 1e-6:
                continue  # nearly none
            for method in ("likelihood", "ml"):
                fits = [msem.segregated(text, given, method=method, group_equal=own) for own in ([], EQUAL)]
                found = msem.compare_models(*(one.between for one in fits))
                rejected[method].append(bool(found.loc["model_2", "pvalue"] < 0.05))
            naive = [one.between.tests.loc["standard", "statistic"] for one in fits]
            rejected["naive"].append(chisq_pvalue(naive[1] - naive[0], 2) < 0.05)
    assert np.mean(rejected["likelihood"]) < 0.11
    assert np.mean(rejected["ml"]) < 0.12
    assert np.mean(rejected["naive"]) > 0.25


def test_a_table_of_such_fits_has_measures_of_each_level() -> None:
    fits = {"free": fit(method="ml"), "equal": fit(method="ml", group_equal=EQUAL)}
    shown = msem.table(fits)
    row = fits["equal"].estimates().query("lhs == 'fb' and rhs == 'y2' and group == 2").iloc[0]
    cell = shown.frame.loc[("Between, south: Loadings", "fb =~ y2"), ("equal", "Estimate")]
    assert cell == f"{row['est']:.3f}*** ({row['se']:.3f})"
    chisq = fits["equal"].within.fit_measures()["chisq"]
    assert shown.frame.loc[("Within: Fit", "Chi-square"), ("equal", "Estimate")] == f"{chisq:.3f}"
    assert "Estimator ml of each level, its chi-square mean-scaled." in shown.notes[0]
    only = msem.table(fits["free"], fit_measures=["cfi"]).frame
    assert ("Between: Fit", "CFI") in only.index


def test_active_bounds_are_said() -> None:
    text = MODEL.replace("fb =~ y1 + y2 + y3", "fb =~ y1 + c(a, b)*y2 + y3")
    own = fit(text)
    a, b = own.params[["a", "b"]]
    with pytest.warns(msem.errors.ImproperSolutionWarning, match="inequality constraints are active"):
        held = fit(text, constraints=f"a {'<' if a > b else '>'} b", group_equal=["lv_variances"])
    with pytest.warns(
        msem.errors.ImproperSolutionWarning, match=r"model_2: .*active.*The test against model_1"
    ):
        msem.compare_models(own, held)


@pytest.mark.parametrize("method", METHODS)
def test_statistic_does_not_depend_on_units(method: Any) -> None:
    data = msem.load_demo()
    data["g"] = np.where(data["cluster"] % 3 == 0, "b", "a")
    model = "level: 1; fw =~ y1 + y2 + y3; level: 2; fb =~ y1 + y2 + y3"
    plain, other = (
        msem.compare_models(
            *(
                msem.segregated(model, own, cluster="cluster", group="g", group_equal=equal, method=method)
                for equal in ([], EQUAL)
            )
        )
        for own in (data, data.assign(y1=1e-6 * data["y1"], y2=1e6 * data["y2"]))
    )
    for name in ("chisq_diff", "scaling"):
        np.testing.assert_allclose(other[name], plain[name], rtol=1e-4)
