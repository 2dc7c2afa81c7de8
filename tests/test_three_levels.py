"""Models of three levels: against lme4, OpenMx and dense densities, closed forms, and what may be given wrong."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import reference
import three_levels
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError

CASES = ["l3_pastes", "l3_egsingle_ri", "l3_chem97", "l3_hcfa"]
CLUSTER = three_levels.CLUSTER


@functools.cache
def reference_fit(case: str) -> msem.Fit:
    columns = reference.meta(case)["cluster"][::-1]
    return msem.sem(reference.model(case), reference.data(case), cluster=columns)


@functools.cache
def made_up(name: str = "all kinds", **options: Any) -> msem.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return msem.sem(
            three_levels.MODELS[name], three_levels.sample(name, 2, 60), cluster=CLUSTER, **options
        )


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_estimates_are_those_of_other_programs(case: str) -> None:
    known, fit = reference.results(case), reference_fit(case)
    theirs = known.get("lme4") or known["dense"]
    assert fit.status == "ok"
    assert fit.llf == pytest.approx(theirs["logl"], abs=1e-6)
    ours = fit.estimates().set_index(["lhs", "op", "rhs", "level"])
    rows = [row for row in theirs["parameter_table"] if row["free"]]
    assert len(rows) >= 4
    for row in rows:
        mine = ours.loc[row["lhs"], row["op"], row["rhs"] or "", row["level"]]
        assert abs(mine["est"] - row["est"]) < 1e-4 * row["se"]
        assert mine["se"] == pytest.approx(row["se"], rel=1e-3)


@reference.needs_reference
def test_likelihood_of_the_factor_model_of_xxm() -> None:
    assert -2 * reference_fit("l3_hcfa").llf == pytest.approx(7107.827854110, abs=1e-8)


def test_saturated_moments_of_balanced_data_are_those_of_the_analysis_of_variance() -> None:
    name = "equal shapes"
    data, fit = three_levels.sample(name, 2, 60), made_up(name)
    y = data[["y1", "y2"]]
    classes = y.groupby([data["school"], data["class"]]).transform("mean")
    schools = y.groupby(data["school"]).transform("mean")
    squares = [
        (one - two).T @ (one - two) for one, two in ((y, classes), (classes, schools), (schools, y.mean()))
    ]
    N, J, K = len(y), 180, 60
    within, middle, top = squares[0] / (N - J), squares[1] / (J - K), squares[2] / K
    expected = [within, (middle - within) / 3, (top - middle) / 9]
    for level, cov in enumerate(expected, 1):
        assert_allclose(fit.unrestricted_moments[level].cov, cov, rtol=1e-6, atol=1e-8)
        assert_allclose(fit.implied[level].cov.loc[["y1", "y2"], ["y1", "y2"]], cov, rtol=1e-6, atol=1e-8)
    assert fit.df == 0
    assert fit.chisq == pytest.approx(0, abs=1e-8)


def test_variance_shares() -> None:
    fit = made_up("equal shapes")
    table, moments = fit.icc_table(), fit.unrestricted_moments
    variances = np.array([moments[level].cov.loc["y2", "y2"] for level in (1, 2, 3)])
    own = table[table["lhs"] == "y2"]
    assert_allclose(own["icc"], variances[1:] / variances.sum(), rtol=1e-12)
    assert_allclose(own["correlation"], [variances[1:].sum(), variances[2]] / variances.sum(), rtol=1e-12)
    assert_allclose(fit.icc["y2"], own["icc"], rtol=1e-12)
    assert_allclose(fit.icc_table(source="model")["icc"], table["icc"], rtol=1e-5)
    assert (table["se"] > 0).all()


def test_fit_of_each_level_and_measures_of_the_whole() -> None:
    fit = made_up()
    measures = fit.fit_measures()
    assert measures["srmr"] == pytest.approx(sum(measures[f"srmr_l{k}"] for k in (1, 2, 3)))
    parts = [fit.fit_measures(level=level) for level in (1, 2, 3)]
    assert sum(part["df"] for part in parts) == fit.df
    assert [part["srmr"] > 0 for part in parts]
    assert "Level 3 [school]" in fit.summary()
    assert "Number of clusters [class]" in fit.summary()


def test_robust_errors_come_from_the_scores_of_schools() -> None:
    plain, robust = made_up(), made_up(estimator="MLR")
    clusters = plain.sample.clusters[0]
    scores = plain.objective.scores(plain.theta, clusters)
    vcov = plain.cov_params().to_numpy()
    assert_allclose(robust.cov_params(), vcov @ scores.T @ scores @ vcov, rtol=1e-6, atol=1e-10)
    assert robust.fit_measures()["chisq_scaling_factor"] > 0
    assert_allclose(plain.scores().to_numpy(), scores)


@pytest.mark.parametrize(("level", "latent"), [(1, "fw"), (2, "fc"), (3, "fs")])
def test_factor_scores_are_dense_posterior_means(level: int, latent: str) -> None:
    case, fit = three_levels.Case("all kinds", 2, 60), made_up()
    found = fit.factor_scores(level)
    case.schools = case.schools[:10]
    expected = case.posterior(fit.theta, level, [latent])
    if level == 1:
        found = found.loc[np.concatenate([part.index for part in case.schools])]
    if level == 2:
        keys = [(part["school"].iloc[0], c) for part in case.schools for c in dict.fromkeys(part["class"])]
        found = found.loc[keys]
    assert_allclose(found.to_numpy()[: len(expected)], expected, rtol=1e-6, atol=1e-7)
    if level > 1:
        parts = fit.random_effects(level=level)
        assert [name for name in parts if not name.endswith("_se")] == {
            2: ["y1", "y2"],
            3: ["y1", "y2", "y3", "z"],
        }[level]
    new = fit.factor_scores(level, newdata=case.data)
    assert_allclose(new.to_numpy(), fit.factor_scores(level).to_numpy(), rtol=1e-9, atol=1e-12)


def test_ids_of_classes_may_repeat_in_other_schools() -> None:
    data, model = three_levels.sample("nothing in common", 2, 40), three_levels.MODELS["nothing in common"]
    unique = data.assign(**{"class": data["class"] + 100 * data["school"]})
    one, two = (msem.sem(model, d, cluster=CLUSTER) for d in (data, unique))
    assert one.llf == pytest.approx(two.llf, rel=1e-12)
    torn = unique.assign(**{"class": unique["class"].replace({100: 0})})
    with pytest.warns(
        DataWarning, match="1 of the .* ids in 'class' occur in several of the highest clusters"
    ):
        msem.sem(model, torn, cluster=CLUSTER)


SMALL = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1\n"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"cluster": "school"}, ModelError, 'three levels.*two columns.*cluster=\\["school", "class"\\]'),
        ({"cluster": None}, ModelError, "three levels.*cluster= names none"),
        ({"cluster": ["school", "class", "id"]}, ModelError, "3 columns.*leave out a column"),
        (
            {"cluster": ["room", "school"]},
            DataError,
            "every 'room' lies within one 'school'.*'school', 'room'",
        ),
        ({"cluster": ["school", "twin"]}, DataError, "every 'school' has one 'twin'.*cannot be told apart"),
        ({"model": SMALL.replace("level: 3", "level: 2")}, ModelError, "second time"),
        ({"model": SMALL.replace("level: 2", "level: 4")}, UnsupportedError, "level 4"),
        (
            {"model": SMALL.replace("level: 3", "level: between")},
            ModelError,
            "of three levels two are between",
        ),
        (
            {"model": "level: school\ny1~~y1\nlevel: class\ny1~~y1\nlevel: unit\ny1~~y1"},
            ModelError,
            "'school' is the column of the clusters of level 3, and this is level 1",
        ),
        ({"model": SMALL[: SMALL.index("level: 3")]}, ModelError, "names 2 columns.*two levels.*'level: 3'"),
        (
            {"model": SMALL.replace("y1 ~~ y1\nlevel: 3", "y1 ~ x\nlevel: 3")},
            DataError,
            "'x'.*level 2.*varies",
        ),
        ({"model": SMALL.replace("y1 ~~ y1\nlevel: 3", "y1 ~ v\nlevel: 3")}, DataError, "'v'.*level 3"),
        ({"model": SMALL.replace("y1 ~~ y1\nlevel: 2", "y1 ~ w\nlevel: 2")}, DataError, "'w'.*level-1 block"),
        (
            {"model": SMALL.replace("y1 ~~", 'y1 ~ rv("s")*x\n y1 ~~', 1)},
            UnsupportedError,
            "random slopes.*three",
        ),
        ({"missing": "fiml"}, UnsupportedError, "missing values.*three levels"),
        ({"weights": "size"}, UnsupportedError, "weights.*three levels"),
        ({"estimator": "ULS"}, UnsupportedError, "ULS.*three levels"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    data = three_levels.sample()
    data = data.assign(
        room=data["school"] * 100 + data["class"], twin=data["school"] + 50, id=range(len(data)), size=2.0
    )
    arguments = {"model": SMALL, "cluster": CLUSTER} | change
    with pytest.raises(error, match=message):
        msem.sem(arguments.pop("model"), data, **arguments)


def test_what_is_not_there_yet_says_so() -> None:
    fit, data = made_up("equal shapes"), three_levels.sample()
    for ask in (
        lambda: fit.fmi(),
        lambda: fit.predict(),
        lambda: fit.distances(),
        lambda: fit.plausible_values(2, seed=1),
        lambda: msem.simulate(fit),
        lambda: msem.saturated(data[["y1", *CLUSTER]], cluster=CLUSTER),
        lambda: msem.describe(data[["y1", *CLUSTER]], cluster=CLUSTER),
    ):
        with pytest.raises(UnsupportedError, match="three levels"):
            ask()
    with pytest.raises(AttributeError, match="unrestricted_moments"):
        _ = fit.saturated


def test_a_copy_of_a_fit_is_the_same() -> None:
    fit = made_up("equal shapes")
    again = fit.update(model=three_levels.MODELS["equal shapes"])
    assert again.llf == fit.llf
    assert isinstance(fit.estimates(), pd.DataFrame)


def test_bootstrap_and_jackknife_refit_to_schools() -> None:
    name, data = "equal shapes", three_levels.sample("equal shapes", 2, 60)
    fit = made_up(name)
    found = fit.jackknife()
    for k in (0, 7):
        school = fit.sample.groups[0].identifiers[k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = msem.sem(three_levels.MODELS[name], data[data["school"] != school], cluster=CLUSTER)
        assert_allclose(found.array[list(found.cluster).index(school)], again.theta, rtol=1e-5, atol=1e-7)
    one, two = (fit.bootstrap(60, seed=4, threads=threads) for threads in (1, 2))
    assert_allclose(one.array, two.array)
    assert len(one.array) >= 58
    assert_allclose(one.bse, fit.bse, rtol=0.6)
    errors = msem.sem(three_levels.MODELS[name], data, cluster=CLUSTER, se="bootstrap", bootstrap=60, seed=4)
    assert_allclose(errors.bse, one.bse, rtol=1e-6)


def test_influence_of_schools() -> None:
    frame = made_up("equal shapes").influence().to_frame()
    assert frame.index.name == "school"
    assert len(frame) == 60


def test_log_likelihoods_of_schools_given_fixed_covariates_add_up() -> None:
    fit = made_up()
    assert fit.cluster_loglik().sum() == pytest.approx(fit.llf, rel=1e-10)


def test_groups_within_the_highest_clusters_are_named_as_what_they_are():
    rng = np.random.default_rng(4)
    classes = np.repeat(np.arange(40), 5)
    data = pd.DataFrame(
        {"y": rng.normal(size=200), "class": classes, "school": classes // 2, "track": classes % 2}
    )
    text = "level: 1\ny ~~ y\nlevel: 2\ny ~~ y\nlevel: 3\ny ~~ y"
    with pytest.raises(DataError, match="of 'school' have members in several groups of 'track'"):
        msem.sem(text, data, cluster=["school", "class"], group="track")


FACTORS = "\n".join(f"level: {level}\n f{level} =~ y1 + y2 + y3" for level in (1, 2, 3))


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda data: msem.efa(data, {1: 1, 2: 1, 3: 1}, cluster=CLUSTER), r"efa\("),
        (lambda data: msem.efa(data, 1, cluster="school * class"), "crossed"),
        (lambda data: msem.invariance(FACTORS, data, levels=True, cluster=CLUSTER), "comparisons of levels"),
    ],
)
def test_questions_of_two_levels_are_refused(ask: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        ask(three_levels.sample())
