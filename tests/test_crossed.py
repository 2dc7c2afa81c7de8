"""Crossed classifications against one dense density."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import reference
from crossed_cases import Case
from msem.errors import DataError, DataWarning, ModelError, MsemError, UnsupportedError

CASES = {
    "first eliminated": {},
    "second eliminated": {"swap": True},
    "effects without variance": {"zero": True},
    "one cluster of many": {"clusters": (12, 1), "units": 25},
    "missing values": {"missing": 0.4},
    "missing values, second eliminated": {"missing": 0.4, "swap": True},
    "sparse": {"sparse": True, "clusters": (16, 12), "units": 30},
    "sparse, missing values": {
        "sparse": True,
        "clusters": (16, 12),
        "units": 30,
        "missing": 0.3,
        "swap": True,
    },
    "sparse, effects without variance": {"sparse": True, "clusters": (14, 9), "units": 25, "zero": True},
    "missing values, effects without variance": {"missing": 0.3, "zero": True, "seed": 4},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    return Case(**request.param)


def test_log_likelihood_is_that_of_the_dense_density(case):
    assert_allclose(-0.5 * case.objective.value(case.theta), case.loglik(case.theta), rtol=1e-11)


def test_gradient_is_its_derivative(case):
    _, gradient = case.objective.evaluate(case.theta)
    assert_allclose(-0.5 * gradient, oracle.complex_step(case.loglik, case.theta), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("swap", [False, True])
def test_observed_information_is_the_second_derivative(swap, missing):
    case = Case(swap=swap, units=14, clusters=(5, 3), missing=missing)
    steps = 1e-5 * np.eye(len(case.theta))
    slope = lambda t: oracle.complex_step(case.loglik, t)  # noqa: E731
    second = np.array([(slope(case.theta + s) - slope(case.theta - s)) / 2e-5 for s in steps])
    assert_allclose(case.objective.observed_information(case.theta), -second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.3])
@pytest.mark.parametrize("swap", [False, True])
def test_steps_are_made_with_the_average_information(swap, missing):
    """Of the cluster variables it is the expected one: their covariances are left out here."""
    case = Case(swap=swap, units=20, missing=missing)
    plain = [
        k
        for k, (level, i, j) in enumerate(case.covs)
        if level == 0 or max(case.levels[level][i], case.levels[level][j]) < 3
    ]
    plain += [len(case.covs) + k for k in range(3)]
    found = case.objective.expected_information(case.theta)[np.ix_(plain, plain)]
    assert_allclose(found, case.average_information()[np.ix_(plain, plain)], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    "options", [{}, {"swap": True}, {"missing": 0.4}, {"zero": True}, {"sparse": True}], ids=str
)
def test_evidence_is_that_of_the_dense_density(options):
    """The posterior moments of the effects that follow from it."""
    case = Case(**options)
    means, covs = case.moments(case.theta)
    target = np.array([0.7, -0.4, 0.0])
    for level in (1, 2):
        scores, information = case.likelihood.evidence(list(zip(means, covs, strict=True)), level)
        for cluster in range(scores.shape[1]):
            mean, variance = case.posterior(level, cluster, target)
            reach = target @ covs[level]
            assert target @ means[level] + reach @ scores[:, cluster] == pytest.approx(mean, rel=1e-9)
            gain = reach @ information[:, cluster].reshape(3, 3) @ reach
            assert reach @ target - gain == pytest.approx(variance, rel=1e-7, abs=1e-9)


def test_saved_data_are_the_same():
    case = Case()
    again = pickle.loads(pickle.dumps(case.data))
    for one, other in zip(again.moments(0), case.data.moments(0), strict=True):
        assert np.array_equal(one, other)
    for one, other in zip(again.cells, case.data.cells, strict=True):
        assert np.array_equal(one, other)


MODEL = """
level: 1
  f1 =~ y1 + y2 + y3
  f1 ~ x
level: pupil
  f2 =~ y1 + y2 + y3
  f2 ~ v
level: lecturer
  f3 =~ y1 + y2 + y3
  f3 ~ w
"""


def ratings(seed=1, count=900, pupils=70, lecturers=50, spread=0.8):
    rng = np.random.default_rng(seed)
    pupil, lecturer = rng.integers(0, pupils, count), rng.integers(0, lecturers, count)
    own = [rng.normal(size=n) for n in (count, pupils, lecturers)]
    data = {
        "x": rng.normal(size=count),
        "v": rng.normal(size=pupils)[pupil],
        "w": rng.normal(size=lecturers)[lecturer],
    }
    for k, loading in enumerate((1, 0.8, 0.9), 1):
        parts = own[0] + 0.3 * data["x"], own[1][pupil] + 0.4 * data["v"], own[2][lecturer] + 0.3 * data["w"]
        noise = [rng.normal(size=n) for n in (count, pupils, lecturers)]
        data[f"y{k}"] = (
            loading * (parts[0] + spread * (parts[1] + parts[2]))
            + 0.6 * noise[0]
            + 1.2 * spread * (noise[1][pupil] + noise[2][lecturer])
        )
    return pd.DataFrame(data).assign(pupil=pupil, lecturer=lecturer)


@pytest.fixture(scope="module")
def fit():
    return msem.sem(MODEL, ratings(), cluster="pupil * lecturer")


@reference.needs_reference
@pytest.mark.parametrize("name", ["cc_penicillin", "cc_insteval"])
def test_reference(name):
    columns, theirs = reference.meta(name)["cluster"], reference.results(name)["lme4"]
    ours = msem.sem(reference.model(name), reference.data(name), cluster=" * ".join(columns))
    assert ours.status == "ok"
    assert ours.llf == pytest.approx(theirs["logl"], abs=1e-6)
    table = ours.estimates().set_index(["lhs", "op", "rhs"])
    rows = [row for row in theirs["parameter_table"] if row["free"]]
    assert len(rows) >= 4
    for row in rows:
        found = table.loc[[(row["lhs"], row["op"], row["rhs"] or "")]]
        # the mean belongs to the highest level here
        mine = found[found["se"] > 0] if row["op"] == "~1" else found[found["level"] == row["level"]]
        # lme4 stops where the slope is 9e-4 of a standard error in the second case, this fit where it is 3e-11
        assert abs(mine["est"].item() - row["est"]) < 2e-4 * row["se"]
        assert mine["se"].item() == pytest.approx(row["se"], rel=1e-3)


def test_a_model_is_tested_against_three_covariance_matrices(fit):
    assert (fit.status, fit.df) == ("ok", 6)
    assert 0 < fit.chisq < 25
    assert fit.unrestricted_llf - fit.llf == pytest.approx(fit.chisq / 2)
    assert len(fit.residuals()) > 0


def test_order_of_rows_and_kind_of_labels_do_not_matter(fit):
    data = ratings().sample(frac=1, random_state=2)
    data["lecturer"] = "L" + data["lecturer"].astype(str)
    again = msem.sem(MODEL, data, cluster="pupil×lecturer")
    assert again.llf == pytest.approx(fit.llf, rel=1e-11)
    assert_allclose(again.params, fit.params, rtol=1e-5, atol=1e-6)


def test_order_of_classifications_does_not_matter(fit):
    first, second, third = MODEL.split("level: ")[1:]
    other = "level: " + "level: ".join([first, third, second])
    again = msem.sem(other, ratings(), cluster="lecturer * pupil")
    assert again.llf == pytest.approx(fit.llf, rel=1e-11)
    assert again.params["f2~v.l3"] == pytest.approx(fit.params["f2~v.l2"], abs=1e-6)


def test_a_classification_without_effects_ends_on_the_border():
    data = ratings(3)
    rng = np.random.default_rng(0)
    data["y1"] = rng.normal(size=len(data)) + data.groupby("pupil")["y2"].transform("mean")
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    data["lecturer"] = rng.permutation(data["lecturer"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            msem.sem(text, data.assign(y1=data["y1"] + k * 1e-3 * data["x"]), cluster="pupil * lecturer")
            for k in range(3)
        ]
    for one in found:
        assert one.status in ("ok", "boundary"), one.problems
        assert one.params["y1~~y1.l3"] >= 0


def test_observed_information_where_a_covariance_matrix_is_singular():
    """A factor without residuals: loadings change its matrix along those of its rank."""
    model = """
    level: 1
      y1 ~~ y1 + y2 + y3
      y2 ~~ y2 + y3
      y3 ~~ y3
    level: pupil
      m =~ y1 + y2 + y3
      y1 ~~ 0*y1
      y2 ~~ 0*y2
      y3 ~~ 0*y3
    level: lecturer
      y1 ~~ y1
      y2 ~~ y2
      y3 ~~ y3
    """
    fit = msem.sem(model, ratings(count=300, pupils=30, lecturers=20), cluster="pupil * lecturer")
    core, theta = fit.objective.core, fit.estimate.theta
    found = core.observed_information(theta)
    for k, step in enumerate(1e-4 * fit.standard_errors):
        move = step * np.eye(len(theta))[k]
        column = (core.evaluate(theta + move)[1] - core.evaluate(theta - move)[1]) / (4 * step)
        assert_allclose(found[k], column, atol=2e-5 * np.abs(np.diag(found)).max())
    assert np.isfinite(fit.standard_errors).all()


def test_nested_classifications_are_said_to_be_so():
    data = ratings()
    data["lecturer"] = data["pupil"] % 7
    data["y1"] += 0.7 * data["lecturer"]
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    with pytest.warns(DataWarning, match="every 'pupil' lies within one 'lecturer'"):
        crossed = msem.sem(text, data, cluster="pupil * lecturer")
    nested = msem.sem(text, data, cluster=["lecturer", "pupil"])
    assert crossed.llf == pytest.approx(nested.llf, rel=1e-12)
    with pytest.warns(DataWarning, match=r"every 'pupil' lies.*need cluster=\['lecturer', 'pupil'\]"):
        other = msem.sem(text, data, cluster="lecturer * pupil")
    assert other.llf == pytest.approx(nested.llf, rel=1e-9)
    assert other.params["y1~~y1.l2"] == pytest.approx(nested.params["y1~~y1.l3"], rel=1e-4)
    data["lecturer"] = 3 * data["pupil"]
    with pytest.raises(DataError, match="these levels cannot be told apart"):
        msem.sem(text, data, cluster="lecturer * pupil")


def test_levels_have_the_names_of_their_columns(fit):
    for level, name in ((2, "pupil"), (3, "lecturer")):
        pd.testing.assert_frame_equal(fit.estimates(level=name), fit.estimates(level=level))
        pd.testing.assert_series_equal(fit.fit_measures(level=name), fit.fit_measures(level=level))
        assert fit.fit_measures(level=name)["nclusters"] == {2: 70, 3: 50}[level]
    assert len(fit.residuals(level="pupil")) == len(fit.residuals(level=2)) > 0
    with pytest.raises(
        MsemError, match="levels 1 to 3 of the model, also called 'pupil', 'lecturer', not 'skool'"
    ):
        fit.estimates(level="skool")
    assert "Clusters: pupil" in msem.table(fit).to_markdown()


def test_a_name_that_is_no_column_is_an_error():
    for name, hint in (
        ("pupl", "did you mean 'level: pupil'"),
        ("desk", "columns of clusters are 'pupil', 'lecturer'"),
    ):
        with pytest.raises(ModelError, match=hint):
            msem.sem(MODEL.replace("level: pupil", f"level: {name}"), ratings(), cluster="pupil * lecturer")


def test_messages_show_what_was_written():
    data = ratings()
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1"
    with pytest.raises(
        ModelError, match=r"cluster='pupil \* lecturer' names 2 columns, and the model has two levels"
    ):
        msem.sem(text, data, cluster="pupil * lecturer")
    data["pupil"] = data["pupil"].astype(float)
    data.loc[3, "pupil"] = np.nan
    with pytest.warns(DataWarning, match=r"1 rows have no cluster id \('pupil \* lecturer'\)"):
        msem.sem(MODEL, data, cluster="pupil * lecturer")


def test_what_a_fit_does_not_have_is_refused_by_name(fit):
    with pytest.raises(UnsupportedError, match="not available for crossed classifications"):
        fit.distances()


def test_weights_are_refused_with_the_reason():
    with pytest.raises(UnsupportedError, match="no part of such data is independent of the rest"):
        msem.sem(MODEL, ratings().assign(k=1.5), cluster="pupil * lecturer", weights="k")


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"cluster": "pupil * lecturer * x"}, MsemError, "two columns"),
        ({"cluster": "pupil *"}, MsemError, "two columns"),
        ({"cluster": "pupil * pupil"}, MsemError, "two columns"),
        ({"cluster": ["pupil * lecturer", "x"]}, MsemError, "one text"),
        (
            {"cluster": "pupil * lector"},
            ModelError,
            r"of cluster='pupil \* lector': did you mean 'level: lector'",
        ),
        ({"estimator": "MLR"}, UnsupportedError, "no independent clusters"),
        ({"information": "expected"}, UnsupportedError, "crossed classifications"),
        ({"test": "hotelling"}, UnsupportedError, "no independent clusters"),
    ],
)
def test_what_is_not_there_is_refused_by_name(options, kind, message):
    with pytest.raises(kind, match=message):
        msem.sem(MODEL, ratings(), **({"cluster": "pupil * lecturer"} | options))


def test_variables_of_clusters_do_not_vary_within_them():
    data = ratings().assign(w=lambda d: d["x"])
    with pytest.raises(DataError, match="'w' is in the block of level 3 only, but varies within"):
        msem.sem(MODEL, data, cluster="pupil * lecturer")


def test_clusters_of_either_classification_belong_to_one_group():
    data = ratings()
    text = "level: 1\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~~ y1"
    for column in ("lecturer", "pupil"):
        halves = data.assign(half=np.where(data[column] < 20, "a", "b"))
        with pytest.raises(DataError, match="have members in several groups of 'half'"):
            msem.sem(text, halves, cluster="pupil * lecturer", group="half")


def holes(data, share=0.25, seed=3):
    rng = np.random.default_rng(seed)
    out = data.copy()
    for name in ("y1", "y2", "y3"):
        out.loc[rng.random(len(out)) < share, name] = np.nan
    return out


def test_every_observed_value_has_its_part():
    """Against one dense density of what is observed, at the estimates."""
    data = holes(ratings(count=250, pupils=25, lecturers=15))
    text = "level: 1\n f1 =~ y1 + y2 + y3\nlevel: 2\n f2 =~ y1 + y2 + y3\nlevel: 3\n f3 =~ y1 + y2 + y3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(text, data, cluster="pupil * lecturer", missing="fiml")
    assert fit.converged
    values = data[["y1", "y2", "y3"]].to_numpy()
    at, which = np.nonzero(~np.isnan(values))
    of = [np.arange(len(data)), data["pupil"].to_numpy(), data["lecturer"].to_numpy()]
    cov = 0.0
    for level, unit in enumerate(of, 1):
        sigma = fit.implied[level].cov.loc[["y1", "y2", "y3"], ["y1", "y2", "y3"]].to_numpy()
        cov = cov + np.where(unit[at][:, None] == unit[at], sigma[np.ix_(which, which)], 0)
    mean = sum(fit.implied[level].mean[["y1", "y2", "y3"]].to_numpy() for level in (1, 2, 3))[which]
    assert fit.llf == pytest.approx(oracle.normal_logpdf(values[at, which][None], mean, cov)[0], rel=1e-10)
    assert fit.nobs == (~np.isnan(values)).any(axis=1).sum()
    assert "patterns" in fit.summary()


def test_complete_data_are_a_special_case(fit):
    again = msem.sem(MODEL, ratings(), cluster="pupil * lecturer", missing="fiml")
    assert again.llf == pytest.approx(fit.llf, rel=1e-12)
    assert_allclose(again.params, fit.params, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("which", ["complete", "incomplete"])
def test_scores_are_those_of_the_dense_density(which):
    """Posterior means and standard deviations of the factors of all levels, by one conditional normal."""
    data = ratings(count=250, pupils=30, lecturers=20)
    data = holes(data) if which == "incomplete" else data
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(MODEL, data, cluster="pupil * lecturer", missing="fiml", space="psd")
    values = data[["y1", "y2", "y3"]].to_numpy()
    at, which_variable = np.nonzero(~np.isnan(values))
    of = [np.arange(len(data)), data["pupil"].to_numpy(), data["lecturer"].to_numpy()]
    latent, covariate, column = ("f1", "f2", "f3"), ("x", "v", "w"), ("y1", "y2", "y3")
    cov, mean, given = 0.0, 0.0, []
    for level, unit in enumerate(of, 1):
        moments = fit.implied[level]
        known = data[covariate[level - 1]].to_numpy()
        cross = moments.cov[covariate[level - 1]]
        paths = cross / cross[covariate[level - 1]]
        rest = moments.cov - np.outer(paths, cross)
        expected = moments.mean.to_numpy() + np.outer(known - moments.mean[covariate[level - 1]], paths)
        frame = pd.DataFrame(expected, columns=moments.mean.index)
        given.append((rest, frame))
        sigma = rest.loc[list(column), list(column)].to_numpy()
        cov = cov + np.where(unit[at][:, None] == unit[at], sigma[np.ix_(which_variable, which_variable)], 0)
        mean = mean + frame[list(column)].to_numpy()[at, which_variable]
    solved = np.linalg.solve(cov, values[at, which_variable] - mean)
    for level, unit in enumerate(of, 1):
        rest, frame = given[level - 1]
        found = fit.factor_scores(level)
        for cluster in (0, 5, 17):
            reach = rest.loc[latent[level - 1], list(column)].to_numpy()[which_variable] * (
                unit[at] == cluster
            )
            row = np.flatnonzero(unit == cluster)[0]
            own = found.iloc[cluster] if level == 1 else found.loc[cluster]
            assert own[latent[level - 1]] == pytest.approx(
                frame[latent[level - 1]][row] + reach @ solved, abs=1e-8
            )
            variance = rest.loc[latent[level - 1], latent[level - 1]] - reach @ np.linalg.solve(cov, reach)
            assert own[f"{latent[level - 1]}_se"] == pytest.approx(np.sqrt(variance), rel=1e-6)


def test_scores_of_new_data(fit):
    data = ratings()
    whole = fit.factor_scores()
    assert list(whole) == ["f1", "f1_se", "f2", "f2_se", "f3", "f3_se"]
    again = fit.factor_scores(newdata=data.sample(frac=1, random_state=1)).sort_index()
    assert_allclose(again, whole, rtol=1e-8, atol=1e-10)
    assert fit.random_effects(level="pupil").index.name == "pupil"
    renamed = data.rename(columns={"pupil": "p", "lecturer": "r"})
    assert_allclose(fit.factor_scores(newdata=renamed, cluster="p * r"), whole, rtol=1e-8, atol=1e-10)
    assert_allclose(fit.factor_scores(newdata=data, cluster="lecturer * pupil"), whole, rtol=1e-8, atol=1e-10)
    for cluster in (["r", "p"], "p"):
        with pytest.raises(DataError, match=r"crossed: name both in one text|names one"):
            fit.factor_scores(newdata=renamed, cluster=cluster)
    with pytest.raises(UnsupportedError, match="maximum likelihood scores are not available for crossed"):
        fit.factor_scores(2, method="ML")


@reference.needs_reference
def test_effects_are_those_of_lme4():
    """ranef(lmer(diameter ~ 1 + (1 | plate) + (1 | sample), Penicillin, REML = FALSE), condVar = TRUE)."""
    columns = reference.meta("cc_penicillin")["cluster"]
    fit = msem.sem(
        reference.model("cc_penicillin"), reference.data("cc_penicillin"), cluster=" * ".join(columns)
    )
    plate, sample = fit.random_effects(level="plate"), fit.random_effects(level="sample")
    assert_allclose(plate["diameter"][:3], [0.804403763567, 0.804403763567, 0.181639559515], atol=1e-6)
    assert_allclose(plate["diameter_se"][:3], 0.270764864557, atol=1e-6)
    found = sample["diameter"] - fit.estimates(level=3).set_index("op")["est"]["~1"]
    assert_allclose(found[:3], [2.18565977679, -1.00983015004, 1.93666056172], atol=1e-5)
    assert_allclose(sample["diameter_se"][:3], 0.201285679599, atol=1e-6)


def movers(pupils=6_000, schools=1_500, moving=0.15):
    """Few pupils of neighbouring schools change theirs, so that hardly any schools share pupils."""
    rng = np.random.default_rng(5)
    pupil = np.repeat(np.arange(pupils), 2)
    school = np.repeat(np.concatenate([np.arange(schools), rng.integers(0, schools, pupils - schools)]), 2)
    move = rng.random(2 * pupils) < moving
    school[move] = (school[move] + rng.integers(1, 3, move.sum())) % schools
    y = rng.normal(size=2 * pupils) + rng.normal(size=pupils)[pupil] + 0.8 * rng.normal(size=schools)[school]
    return pd.DataFrame({"y": y, "pupil": pupil, "school": school})


SPARSE = "level: 1\n y ~~ y\nlevel: 2\n y ~~ y\nlevel: 3\n y ~~ y"


def test_sparse_crossing_is_taken_for_sparse():
    fit = msem.sem(SPARSE, movers(), cluster="pupil * school")
    rows, _, _, sparse, _ = fit.sample.statistics[0].likelihood().size
    assert (rows, sparse) == (1500, True)
    assert fit.status == "ok"
    assert_allclose(fit.params[["y~~y", "y~~y.l2", "y~~y.l3"]], [1, 1, 0.64], rtol=0.1)


def test_matrices_that_are_too_large_are_refused_with_their_size():
    rng = np.random.default_rng(1)
    pupil = np.repeat(np.arange(45_000), 3)
    data = pd.DataFrame(rng.normal(size=(len(pupil), 2)), columns=["y", "x"]).assign(pupil=pupil)
    data["school"] = rng.integers(0, 15_000, len(data))
    text = SPARSE.replace(" y ~~ y", " y ~~ y + x\n x ~~ x")
    with pytest.raises(DataError, match=r"their clusters meet .* about \d+ GiB"):
        msem.sem(text, data, cluster="pupil * school")


def test_parametric_bootstrap():
    data = ratings(count=600, pupils=40, lecturers=20)
    text = "level: 1\n y1 ~ x\n y1 ~~ y1\nlevel: 2\n y1 ~~ y1\nlevel: 3\n y1 ~ w\n y1 ~~ y1"
    fit = msem.sem(text, data, cluster="pupil * lecturer")
    found = fit.bootstrap(120, kind="parametric", seed=1, progress=False)
    again = fit.bootstrap(120, kind="parametric", seed=1, progress=False, threads=1)
    drawn = found.estimates
    assert_allclose(drawn, again.estimates)
    assert (drawn.std() / fit.bse).between(0.75, 1.3).all()
    assert_allclose((drawn.mean() - fit.params) / fit.bse, 0, atol=0.4)
    with pytest.raises(UnsupportedError, match="no independent clusters"):
        fit.bootstrap(10, progress=False)
    gaps = msem.sem(text, holes(data), cluster="pupil * lecturer", missing="fiml")
    drawn = gaps.bootstrap(60, kind="parametric", seed=1, progress=False).estimates
    assert (drawn.std() / gaps.bse).between(0.6, 1.4).all()


def test_samples_from_a_fit_have_its_pairs(fit):
    drawn = msem.simulate(fit, seed=4)
    data = ratings()
    assert list(drawn[["pupil", "lecturer"]].value_counts().sort_index()) == list(
        data[["pupil", "lecturer"]].value_counts().sort_index()
    )
    for name, of in (("v", "pupil"), ("w", "lecturer")):
        assert (drawn.groupby(of)[name].std().fillna(0) < 1e-12).all()
    many = msem.simulate(fit, seed=4, replications=60)
    pd.testing.assert_frame_equal(many[0], drawn)
    names = ["x", "v", "w", "y1", "y2", "y3"]
    found = np.mean([np.cov(one[names].T, ddof=0) for one in many], axis=0)
    expected = sum(
        fit.implied[k].cov.reindex(index=names, columns=names).fillna(0).to_numpy() for k in (1, 2, 3)
    )
    scale = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
    assert_allclose(found / scale, expected / scale, atol=0.15)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert msem.sem(MODEL, drawn, cluster="pupil * lecturer", space="psd").converged
    with pytest.raises(UnsupportedError, match="are data"):
        msem.simulate(fit, as_="statistics")
    with pytest.raises(DataError, match="pairs of clusters of the fit"):
        msem.simulate(fit, nclusters=4)


def test_power_is_that_of_the_samples_it_draws():
    population = "level: 1\n y ~~ y\n y ~ 0.3*x\nlevel: 2\n y ~~ 0.5*y\nlevel: 3\n y ~~ 0.4*y\n y ~ 0.4*w"
    population = population.replace("y ~~ y\n", "y ~~ 1*y\n", 1)
    model = "level: 1\n y ~ x\nlevel: 2\n y ~~ y\nlevel: 3\n y ~ w"
    design = {"nclusters": [(24, 15)], "nobs": 200, "y ~ w": [0.4, 1.2]}
    options = {"replications": 6, "seed": 4, "progress": False}
    found = msem.power(model, population, design, cluster="pupil * school", **options)
    for cell, expected in zip(found.cells, (0.4, 1.2), strict=True):
        samples = cell.samples(0, 6)
        fits = found.fits(cell.number)
        for k in (0, 5):
            single = msem.sem(model, samples[k], cluster="pupil * school")
            assert_allclose(fits.params.iloc[k], single.params, rtol=1e-9)
            assert_allclose(fits.bse.iloc[k], single.bse, rtol=1e-7)
        rows = found.parameters[found.parameters["y ~ w"] == expected]
        assert rows.loc[(rows["op"] == "~") & (rows["rhs"] == "w"), "population"].item() == expected
    assert found.designs["nobs"].tolist() == [200, 200]
    compiled = msem.compile(model, cluster="pupil * school")
    again = msem.power(compiled, population, design, **options)
    pd.testing.assert_frame_equal(again.parameters, found.parameters)
    drawn = msem.simulate(population, nclusters=(24, 15), nobs=200, seed=1, cluster="pupil * school")
    fit = msem.sem(model, drawn, cluster="pupil * school")
    from_fit = msem.power(model, fit, {"y ~ w": [0.5]}, cluster="pupil * school", **options)
    assert from_fit.cells[0].samples(0, 1)[0][["pupil", "school"]].equals(drawn[["pupil", "school"]])
    with pytest.raises(ModelError, match="other classifications"):
        msem.power(model, fit, {"y ~ w": [0.5]}, cluster="a * b", **options)
