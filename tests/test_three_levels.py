"""Models of three levels: against lme4, OpenMx and dense densities, closed forms, and what may be given wrong."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal

import msem
import oracle
import reference
import three_levels
from msem.data.arrays import vech
from msem.data.saturated import saturated_objective
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError
from msem.estimation.objective import build_objective
from msem.postestimation.missing_information import missing_information

CASES = ["l3_pastes", "l3_egsingle_ri", "l3_chem97", "l3_hcfa", "l3_nurses", "l3_mplus_ex9_20"]
# errors from second differences of lme4's deviance that are further from those of its gradient than all others
ROUGH = {("l3_mplus_ex9_20", *names) for names in (("s1", "s1"), ("y", "s2"), ("s1", "s2"))}
CLUSTER = three_levels.CLUSTER


@functools.cache
def reference_fit(case: str) -> msem.Fit:
    columns = reference.meta(case)["cluster"][::-1]
    return msem.sem(reference.model(case), reference.data(case), cluster=columns)


@functools.cache
def made_up(name: str = "all kinds", *, holes: bool = False, **options: Any) -> msem.Fit:
    data = three_levels.sample(name, 2, 60)
    if holes:
        data, options = three_levels.with_holes(data, 2), options | {"missing": "fiml"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return msem.sem(three_levels.MODELS[name], data, cluster=CLUSTER, **options)


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
        if (case, row["lhs"], row["rhs"]) not in ROUGH or row["level"] < 3:
            assert mine["se"] == pytest.approx(row["se"], rel=1e-3)


@reference.needs_reference
def test_errors_of_slopes_are_those_of_differences_of_the_gradient() -> None:
    fit = reference_fit("l3_mplus_ex9_20")
    information = oracle.differences(fit.objective.gradient, fit.theta) / 2
    assert_allclose(np.sqrt(np.linalg.inv(information).diagonal()), fit.bse, rtol=1e-6)


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


QUESTIONS: list[Callable[..., Any]] = [
    lambda fit, **given: fit.factor_scores(2, **given).rename_axis(index=CLUSTER),
    lambda fit, **given: fit.random_effects(level=3, **given).rename_axis(index="school"),
    lambda fit, **given: fit.plausible_values(1, seed=1, **given)[0],
    lambda fit, **given: fit.distances(1, **given),
    lambda fit, newdata, **given: fit.predict(newdata, random_effects=True, **given),
    lambda fit, newdata, **given: fit.predict(newdata, **given),
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_clusters_of_new_data_are_named_as_in_the_fit(question: Callable[..., Any]) -> None:
    data, fit = three_levels.sample("all kinds", 2, 60), made_up()
    renamed = data.rename(columns={"school": "s", "class": "c"})
    known = question(fit, newdata=data)
    assert_frame_equal(question(fit, newdata=renamed, cluster=["s", "c"]), known)
    assert_frame_equal(question(fit, newdata=data, cluster=CLUSTER), known)
    for cluster, message in {
        "s": r"""cluster='s' names one: name both, .* cluster=\["school", "class"\]""",
        ("s", "c", "d"): "names 3 columns, and the model has three levels",
        "s * c": "the clusters of the model are nested: name them in a list",
    }.items():
        with pytest.raises(DataError, match=message):
            question(fit, newdata=renamed, cluster=cluster)
    with pytest.raises(DataError, match="the other way round in the fit"):
        question(fit, newdata=data, cluster=["class", "school"])


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
        ({"cluster": ["school", "class", "id"]}, ModelError, "3 columns, .*three levels: add 'level: 4'"),
        (
            {"cluster": ["room", "school"]},
            DataError,
            "every 'room' lies within one 'school'.*'school', 'room'",
        ),
        ({"cluster": ["school", "twin"]}, DataError, "every 'school' has one 'twin'.*cannot be told apart"),
        ({"model": SMALL.replace("level: 3", "level: 2")}, ModelError, "second time"),
        (
            {"model": SMALL.replace("level: 2", "level: 4")},
            ModelError,
            "level: 4, and the model has no 'level: 2'",
        ),
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
            ModelError,
            "rv\\('s'\\) varies between clusters of no level.*s ~~ s",
        ),
        (
            {"model": SMALL + ' y1 ~ rv("s")*v\n'},
            ModelError,
            "rv\\('s'\\) stands at level 3.*lower level",
        ),
        (
            {
                "model": SMALL.replace("level: 2\n", 'y1 ~ rv("s")*x\nlevel: 2\n y1 ~ rv("s")*w\n')
                + " s ~~ s\n"
            },
            ModelError,
            "'s' is the name of a random slope of level 1",
        ),
        (
            {"model": SMALL.replace("level: 2\n", 'y1 ~ rv("s")*y2\nlevel: 2\n y2 ~~ y2\n') + " s ~~ s\n"},
            UnsupportedError,
            "'y2' has a random slope and parts at several levels",
        ),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    data = three_levels.sample()
    data = data.assign(
        y9=np.arange(len(data)) % 3,
        room=data["school"] * 100 + data["class"],
        twin=data["school"] + 50,
        id=range(len(data)),
        size=2.0,
    )
    arguments = {"model": SMALL, "cluster": CLUSTER} | change
    with pytest.raises(error, match=message):
        msem.sem(arguments.pop("model"), data, **arguments)


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
        (lambda data: msem.efa(data, 1, cluster="school * class"), "crossed"),
        (lambda data: msem.invariance(FACTORS, data, levels=True, cluster=CLUSTER), "comparisons of levels"),
    ],
)
def test_questions_of_two_levels_are_refused(ask: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        ask(three_levels.sample())


def test_values_missing_at_every_level_have_a_saturated_model_and_all_that_follows() -> None:
    fit = made_up("nothing in common", holes=True)
    s = fit.sample.statistics[0]
    saturated = fit.sample.groups[0].saturated
    core = saturated_objective(s)
    theta = np.concatenate(
        [
            *(vech(m.cov) for m in saturated.levels.values()),
            s.variables.summed([m.mean for m in saturated.levels.values()]),
        ]
    )
    information = core.observed_information(theta)
    gradient = core.evaluate(theta)[1]
    assert saturated.converged
    assert gradient @ np.linalg.solve(information, gradient) < 1e-9
    assert np.linalg.eigvalsh(information)[0] > 0
    assert -0.5 * core.value(theta) == pytest.approx(saturated.llf, rel=1e-12)
    assert fit.chisq > 0
    measures = fit.fit_measures()
    assert np.isfinite(measures[["chisq", "cfi", "rmsea", "srmr", "cfi_robust", "rmsea_robust"]]).all()
    assert "missing patterns -- level 2" in fit.summary()
    fractions = fit.fmi()
    assert ((fractions > -0.1) & (fractions < 1)).all()
    assert fractions.max() > 0.2
    robust = made_up("nothing in common", holes=True, estimator="MLR")
    scores = fit.objective.scores(fit.theta, fit.sample.clusters[0])
    assert_allclose(robust.cov_params(), fit.vcov @ scores.T @ scores @ fit.vcov, rtol=1e-6, atol=1e-10)


def test_without_holes_full_information_is_that_of_complete_data() -> None:
    one, two = made_up(), made_up(missing="fiml")
    assert two.llf == pytest.approx(one.llf, rel=1e-12)
    assert two.chisq == pytest.approx(one.chisq, rel=1e-8)


def test_values_of_classes_come_from_any_of_their_units() -> None:
    data, model = three_levels.sample("all kinds", 2, 60), three_levels.MODELS["all kinds"]
    holed = data.assign(z=data["z"].mask(data.duplicated(["school", "class"])))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(model, holed, cluster=CLUSTER, missing="fiml")
    assert fit.llf == pytest.approx(made_up().llf, rel=1e-12)


def test_expected_statistics_have_the_expected_likelihood() -> None:
    case = three_levels.Case("all kinds", 3, 8)
    levels = case.objective.likelihood_moments(case.near)
    expected = case.statistics.expected(levels, case.statistics.variables, "made up")
    assert expected.counted == pytest.approx(case.statistics.counted)
    objective = replace(build_objective(case.table, expected), covariate_llf=0.0)
    assert_allclose(objective.gradient(case.near), 0, atol=1e-7)
    other = case.near + 0.05 * np.cos(np.arange(len(case.near)))
    value = 0.0
    for (y, mean, cov), (_, mu, sigma) in zip(case.dense(case.near), case.dense(other), strict=True):
        inverse, off = np.linalg.inv(sigma), mean - mu
        value += len(y) * np.log(2 * np.pi) + np.linalg.slogdet(sigma)[1]
        value += np.trace(inverse @ cov) + off @ inverse @ off
    assert objective.value(other) == pytest.approx(value, rel=1e-10)


@pytest.mark.parametrize(
    ("model", "holes", "level", "latent"),
    [
        ("all kinds", True, 1, ["fw"]),
        ("all kinds", True, 2, ["fc"]),
        ("all kinds", True, 3, ["fs"]),
        ("slopes", False, 2, ["s"]),
        ("slopes", True, 2, ["s"]),
        ("slopes", True, 3, ["s", "r", "b", "c"]),
    ],
)
def test_scores_with_holes_and_slopes_are_dense_posterior_means(
    model: str, holes: bool, level: int, latent: list[str]
) -> None:
    case = three_levels.Case(model, holes=holes)
    rows = case.sample.groups[0].rows
    moments = case.objective.compiled_moments(case.near)
    posterior = case.clusters.posterior(case.statistics.variables, moments)
    index = [part.index for part in case.schools]
    if level == 1:
        columns = [rows.columns[name] for name in case.statistics.unit]
        means, spread, which = posterior.unit_posterior(columns, rows.lowest)
        at = np.concatenate(index)
    else:
        means, spread, which = posterior.level_posterior(level)
        at = np.array([k for own in index for k in dict.fromkeys(rows.codes_of(level)[own])])
    k = len(latent)
    found = np.hstack([means[:, -k:], np.sqrt(spread[which][:, range(-k, 0), range(-k, 0)])])[at]
    assert_allclose(found, case.posterior(case.near, level, latent), rtol=1e-7, atol=1e-9)


@reference.needs_reference
def test_resampling_with_slopes() -> None:
    fit, data = reference_fit("l3_nurses"), reference.data("l3_nurses")
    columns = reference.meta("l3_nurses")["cluster"][::-1]
    found = fit.jackknife()
    for k in (0, 5):
        top = fit.sample.groups[0].identifiers[k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again = msem.sem(reference.model("l3_nurses"), data[data[columns[0]] != top], cluster=columns)
        assert_allclose(found.array[list(found.cluster).index(top)], again.theta, rtol=1e-5, atol=1e-7)


@reference.needs_reference
def test_chi_square_with_slopes_is_that_of_what_the_model_leaves_out() -> None:
    own, restricted = reference_fit("l3_mplus_ex9_20"), reference_fit("l3_nurses")
    assert own.df == 0
    assert own.chisq == pytest.approx(0, abs=1e-6)
    columns = reference.meta("l3_nurses")["cluster"][::-1]
    model = reference.model("l3_nurses").replace("stress ~~ 0*s", "stress ~~ s")
    free = msem.sem(model, reference.data("l3_nurses"), cluster=columns)
    assert restricted.df == 1
    assert restricted.chisq == pytest.approx(2 * (free.llf - restricted.llf), abs=1e-7)
    assert "Saturated model of slopes" in restricted.summary()


@reference.needs_reference
def test_standardized_slopes_are_those_of_units_of_any_cluster() -> None:
    fit, data = reference_fit("l3_mplus_ex9_20"), reference.data("l3_mplus_ex9_20")
    columns = reference.meta("l3_mplus_ex9_20")["cluster"][::-1]
    est = fit.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    w, z = data.groupby(columns)["w"].first(), data.groupby(columns[0])["z"].first()
    cross = est["s12", "~1", "", 3] + est["s12", "~", "z", 3] * z.mean()
    mean = est["s1", "~1", "", 3] + est["s1", "~", "z", 3] * z.mean() + cross * w.mean()
    of_cross = est["s12", "~~", "s12", 3] + est["s12", "~", "z", 3] ** 2 * z.var(ddof=0)
    variance = est["s1", "~~", "s1", 2] + (cross**2 + of_cross) * w.var(ddof=0)
    variance += est["s1", "~~", "s1", 3] + est["s1", "~", "z", 3] ** 2 * z.var(ddof=0)
    x = data["x"].var(ddof=0)
    expected = mean * np.sqrt(x / (est["y", "~~", "y", 1] + (mean**2 + variance) * x))
    table = fit.standardized().set_index(["lhs", "op", "rhs", "level"])
    assert table.loc[("y", "~", "x", 1), "est_std"] == pytest.approx(expected, rel=1e-8)
    effects = fit.effects().set_index(["predictor", "outcome", "effect"])
    assert effects.loc[("x", "y", "total"), "est"] == pytest.approx(mean, rel=1e-8)


def test_missing_information_with_slopes_is_that_of_dense_expected_information() -> None:
    """Complete rows are those that the holes were made in."""
    holes, whole = three_levels.Case("slopes", holes=True), three_levels.Case("slopes")
    whole.near = holes.near
    own, complete = (np.linalg.inv(case.expected()).diagonal() for case in (holes, whole))
    at: Any = SimpleNamespace(table=holes.table, theta=holes.near, objective=holes.objective, tangent=None)
    found = missing_information(at, holes.sample, "observed")
    assert_allclose(found, 1 - complete / own, rtol=1e-6)
    assert found.max() > 0.2


@reference.needs_reference
def test_what_slopes_do_not_have_says_so() -> None:
    fit = reference_fit("l3_nurses")
    for question in (lambda: fit.fit_measures(level=1), lambda: fit.distances(2)):
        with pytest.raises(UnsupportedError, match="random slopes"):
            question()
