"""Random slopes in crossed classifications against one dense density, and lme4."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
from crossed_cases import SlopeCase
from msem import _core
from msem.errors import DataError, DataWarning, ModelError, UnsupportedError

CASES = {
    "first eliminated": {},
    "second eliminated": {"swap": True},
    "effects without variance": {"zero": True},
    "effects without variance, second eliminated": {"zero": True, "swap": True},
    "missing values": {"missing": 0.4},
    "missing values, second eliminated": {"missing": 0.4, "swap": True},
    "one cluster of many": {"clusters": (12, 1), "units": 25},
    "sparse": {"sparse": True, "clusters": (16, 12), "units": 30},
    "sparse, effects without variance": {"sparse": True, "clusters": (14, 9), "units": 25, "zero": True},
    "a covariate that hardly varies": {"flat": True},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    return SlopeCase(**request.param)


def test_log_likelihood_is_that_of_the_dense_density(case):
    assert_allclose(-0.5 * case.objective.value(case.theta), case.loglik(case.theta), rtol=1e-10)


def test_gradient_is_its_derivative(case):
    _, gradient = case.objective.evaluate(case.theta)
    exact = oracle.complex_step(case.loglik, case.theta)
    assert_allclose(-0.5 * gradient, exact, rtol=1e-8, atol=1e-10 * np.abs(exact).max())


@pytest.mark.parametrize(
    "options", [{}, {"swap": True}, {"missing": 0.3}, {"missing": 0.3, "swap": True}], ids=str
)
def test_observed_information_is_the_second_derivative(options):
    case = SlopeCase(units=14, clusters=(5, 3), **options)
    steps = 1e-5 * np.eye(len(case.theta))
    slope = lambda t: oracle.complex_step(case.loglik, t)  # noqa: E731
    second = np.array([(slope(case.theta + s) - slope(case.theta - s)) / 2e-5 for s in steps])
    found = case.objective.observed_information(case.theta)
    assert_allclose(found, -second, atol=1e-7 * np.abs(second).max())


@pytest.mark.parametrize("options", [{}, {"swap": True}, {"missing": 0.3}], ids=str)
def test_steps_are_made_with_the_average_information(options):
    """But for what variables of clusters have to do with others, of which the expected information is taken."""
    case = SlopeCase(**options)
    theta = case.theta.copy()
    for k, (level, i, j) in enumerate(case.covs):
        if level and 2 in (i, j) and i != j:
            theta[k] = 0
    case.theta = theta
    plain = [k for k, (level, i, j) in enumerate(case.covs) if not level or 2 not in (i, j)]
    plain += [len(case.covs) + k for k, (level, i) in enumerate(case.means) if not level or i != 2]
    found = case.objective.expected_information(theta)[np.ix_(plain, plain)]
    exact = case.average_information()[np.ix_(plain, plain)]
    assert_allclose(found, exact, rtol=1e-8, atol=1e-10 * np.abs(exact).max())


@pytest.mark.parametrize(
    "options", [{}, {"swap": True}, {"missing": 0.4}, {"sparse": True}, {"zero": True}], ids=str
)
def test_evidence_is_that_of_the_dense_density(options):
    """The posterior moments of the parts and slopes that follow from it."""
    case = SlopeCase(**options)
    means, covs = case.moments(case.theta)
    for level in (1, 2):
        n = len(means[level])
        target = np.array([0.7, -0.4, 0.0, 0.9, 0.3])[:n]
        scores, information = case.likelihood.evidence(list(zip(means, covs, strict=True)), level)
        for cluster in range(scores.shape[1]):
            mean, variance = case.posterior([[(level, cluster, target)]])
            reach = target @ covs[level]
            assert target @ means[level] + reach @ scores[:, cluster] == pytest.approx(
                mean[0], rel=1e-8, abs=1e-9
            )
            gain = reach @ information[:, cluster].reshape(n, n) @ reach
            assert reach @ target - gain == pytest.approx(variance[0, 0], rel=1e-6, abs=1e-9)


def test_what_is_known_of_the_effects_on_a_unit_is_that_of_the_dense_density():
    case = SlopeCase(missing=0.2)
    means, covs = case.moments(case.theta)
    found, spread = case.likelihood.effects(list(zip(means, covs, strict=True)))
    first, second = (np.array(part) for part in case.data.cells[:2])
    for cell in range(0, len(first), 5):
        targets = []
        for name in ("y0", "y1", None, "s0", "s1"):  # the third variable has no parts
            targets.append(
                [
                    (level, cluster, np.eye(len(case.names[level]))[case.names[level].index(name)])
                    for level, cluster in ((1, first[cell]), (2, second[cell]))
                    if name in case.names[level]
                ]
            )
        mean, cov = case.posterior(targets)
        assert_allclose(found[:, cell], mean, rtol=1e-8, atol=1e-9)
        assert_allclose(spread[:, cell].reshape(5, 5), cov, rtol=1e-6, atol=1e-8)


def test_saved_data_are_the_same():
    case = SlopeCase()
    again = pickle.loads(pickle.dumps(case.data))
    assert again.slopes == case.data.slopes
    moments = list(zip(*case.moments(case.theta), strict=True))
    for one, other in zip(
        _core.CrossedLikelihood(again).effects(moments), case.likelihood.effects(moments), strict=True
    ):
        assert np.array_equal(one, other)


def rated(count=1500, pupils=60, lecturers=40, seed=5):
    """Ratings whose slopes of x differ between pupils and those of z between lecturers."""
    rng = np.random.default_rng(seed)
    pupil, lecturer = rng.integers(0, pupils, count), rng.integers(0, lecturers, count)
    x, z = rng.normal(size=count), 2 + 0.5 * rng.normal(size=count)
    v = rng.normal(size=pupils)
    a = rng.normal(size=(pupils, 2)) @ np.array([[0.8, 0.2], [0, 0.4]])
    b = rng.normal(size=(lecturers, 2)) @ np.array([[0.6, -0.1], [0, 0.5]])
    y = 1 + a[pupil, 0] + b[lecturer, 0] + (0.5 + 0.3 * v[pupil] + a[pupil, 1]) * x
    y += (-0.3 + b[lecturer, 1]) * z + rng.normal(size=count)
    return pd.DataFrame({"y": y, "x": x, "z": z, "v": v[pupil], "pupil": pupil, "lecturer": lecturer})


MODEL = """
level: 1
  y ~ rv("s")*x + rv("t")*z
level: pupil
  y ~~ y + s
  y ~ v
  s ~ v
level: lecturer
  y ~~ y + t
"""
CROSSED = "pupil * lecturer"

# lme4 1.1-31, bobyqa with rhoend 1e-9, on `rated()`:
#   lmer(y ~ x*v + z + (1 + x | pupil) + (1 + z | lecturer), d, REML = FALSE); ranef(m, condVar = TRUE)
LME4 = {
    "llf": -2367.9201360986,
    "coefficients": {
        "y~1.l3": (0.8894895843074, 0.1867034210929),
        "s~1.l2": (0.4671603722977, 0.0729490996888),
        "y~v.l2": (0.0650390482969, 0.1014364796946),
        "t~1.l3": (-0.2770379729940, 0.0809587854896),
        "s~v.l2": (0.3123342693814, 0.0659092368389),
    },
    "variances": {
        "y~~y.l2": 0.651417391690,
        "s~~s.l2": 0.245661351655,
        "y~~s.l2": 0.178112548347,
        "y~~y.l3": 0.375919009576,
        "t~~t.l3": 0.137876375388,
        "y~~t.l3": 0.109399206019,
        "y~~y": 1.032113250493,
    },
    # of pupils 0, 1, 2 and lecturers 0, 1, 2: effects on the intercept and the slope
    "pupil": [
        [-0.460805091765, 0.0568603601119],
        [0.523532649766, 0.4799532613626],
        [-0.314896008321, 0.7090901116829],
    ],
    "lecturer": [
        [-0.685818139054, -0.411076874488],
        [-1.047517473191, -0.635407800715],
        [0.760326883770, 0.409387843596],
    ],
    "variance of pupil 0": [0.03825113340930, 0.02707783244897],
    "variance of lecturer 0": [0.1058499816434, 0.0230174292885],
    "predict": [3.212805219663, 0.902684615133, 1.553242579239],
}


@pytest.fixture(scope="module")
def fit():
    return msem.sem(MODEL, rated(), cluster=CROSSED)


def test_estimates_are_those_of_lme4(fit):
    assert fit.status == "ok"
    assert fit.llf == pytest.approx(LME4["llf"], abs=1e-6)
    for name, (value, error) in LME4["coefficients"].items():
        assert fit.params[name] == pytest.approx(value, abs=1e-4 * error)
        # lme4 takes the variances for known
        assert fit.bse[name] == pytest.approx(error, rel=2e-3)
    for name, value in LME4["variances"].items():
        assert fit.params[name] == pytest.approx(value, abs=1e-4 * fit.bse[name])


def test_errors_are_those_of_the_dense_density():
    data = rated(500, 40, 30, 1)
    fit = msem.sem(MODEL, data, cluster=CROSSED)
    assert fit.status == "ok"
    names = list(fit.params.index)

    def loglik(theta):
        at = dict(zip(names, theta, strict=True))
        x, z, v = (data[name].to_numpy() for name in ("x", "z", "v"))
        one = np.ones(len(data))
        mean = at["y~1.l3"] + at["y~v.l2"] * v + (at["s~1.l2"] + at["s~v.l2"] * v) * x + at["t~1.l3"] * z
        cov = at["y~~y"] * np.eye(len(data))
        for column, covariate, slope, level in (("pupil", x, "s", 2), ("lecturer", z, "t", 3)):
            same = data[column].to_numpy()[:, None] == data[column].to_numpy()
            between = (
                np.outer(one, one) * at[f"y~~y.l{level}"]
                + np.outer(covariate, covariate) * at[f"{slope}~~{slope}.l{level}"]
            )
            between = between + (covariate[:, None] + covariate) * at[f"y~~{slope}.l{level}"]
            cov = cov + np.where(same, between, 0)
        return oracle.normal_logpdf(data["y"].to_numpy()[None], mean, cov)[0]

    theta = fit.params.to_numpy()
    gradient = oracle.complex_step(loglik, theta)
    assert np.abs(gradient * fit.bse.to_numpy()).max() < 1e-4
    steps = 1e-5 * np.eye(len(theta))
    slope = lambda t: oracle.complex_step(loglik, t)  # noqa: E731
    second = np.array([(slope(theta + s) - slope(theta - s)) / 2e-5 for s in steps])
    assert_allclose(fit.bse, np.sqrt(np.diag(np.linalg.inv(-second))), rtol=1e-5)


def test_scores_are_those_of_lme4(fit):
    data = rated()
    for column, slope, level in (("pupil", "s", 2), ("lecturer", "t", 3)):
        v = data.groupby(column)["v"].first().sort_index() if level == 2 else 0.0
        parts, scores = fit.random_effects(level=level).sort_index(), fit.factor_scores(level).sort_index()
        at = fit.params
        expected = at["y~v.l2"] * v if level == 2 else at["y~1.l3"]
        of_slope = at["s~1.l2"] + at["s~v.l2"] * v if level == 2 else at["t~1.l3"]
        found = np.column_stack([parts["y"] - expected, scores[slope] - of_slope])
        assert_allclose(found[:3], LME4[column], atol=1e-4)
        assert_allclose(
            [parts["y_se"].iloc[0] ** 2, scores[f"{slope}_se"].iloc[0] ** 2],
            LME4[f"variance of {column} 0"],
            rtol=1e-3,
        )
    assert_allclose(fit.fittedvalues["y"][:3], LME4["predict"], atol=1e-4)
    assert_allclose(fit.resid["y"], data["y"] - fit.fittedvalues["y"])


LATENT = """
level: 1
  f =~ y1 + y2 + y3
  f ~ rv("s")*x
  y1 ~ rv("u")*x
level: pupil
  g =~ y1 + y2 + y3
  s ~~ s + g
level: lecturer
  y1 ~~ y1
  y2 ~~ y2
  y3 ~~ y3
  s ~~ s
  u ~~ u + y1
"""


def measured(count=240, pupils=20, lecturers=15, seed=3):
    rng = np.random.default_rng(seed)
    data = rated(count, pupils, lecturers, seed)
    pupil, lecturer = data["pupil"].to_numpy(), data["lecturer"].to_numpy()
    f = (
        rng.normal(size=count)
        + (0.5 + 0.6 * rng.normal(size=pupils)[pupil] + 0.4 * rng.normal(size=lecturers)[lecturer])
        * data["x"]
    )
    g = rng.normal(size=pupils)
    for k, loading in enumerate((1, 0.8, 0.9), 1):
        data[f"y{k}"] = (
            loading * (f + g[pupil])
            + 0.7 * rng.normal(size=count)
            + 0.5 * rng.normal(size=pupils)[pupil]
            + 0.7 * rng.normal(size=lecturers)[lecturer]
        )
    data["y1"] += 0.6 * rng.normal(size=lecturers)[lecturer] * data["x"]
    return data


def dense(fit, data, names=("y1", "y2", "y3")):
    """All values, their mean and covariance matrix, and those of the factor of every unit with them."""
    x, n = data["x"].to_numpy(), len(data)
    at = fit.params
    loading = np.array([1, at["f=~y2"], at["f=~y3"]])
    # what the factor does, what the slopes do: of values y1, y2, y3 and the factor
    reach = {"s": np.append(loading, 1), "u": np.array([1.0, 0, 0, 0])}
    within = np.zeros((4, 4))
    factor = at["f~~f"]
    within[:3, :3] = factor * np.outer(loading, loading) + np.diag([at[f"{name}~~{name}"] for name in names])
    within[:3, 3] = within[3, :3] = factor * loading
    within[3, 3] = factor
    cov = np.kron(np.eye(n), within)
    mean = np.zeros((n, 4))
    for level, column, slopes in ((2, "pupil", ("s",)), (3, "lecturer", ("s", "u"))):
        implied = fit.implied[level]
        own = [*names, *slopes]
        spread, means = implied.cov.loc[own, own].to_numpy(), implied.mean[own].to_numpy()
        z = np.zeros((n, 4, len(own)))
        z[:, [0, 1, 2], [0, 1, 2]] = 1
        for k, slope in enumerate(slopes, 3):
            z[:, :, k] = x[:, None] * reach[slope]
        mean += z @ means
        z = z.reshape(-1, len(own))
        of = np.repeat(data[column].to_numpy(), 4)
        cov += np.where(of[:, None] == of, z @ spread @ z.T, 0)
    return mean.ravel(), cov


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_latent_outcomes_and_slopes_of_both_classifications(share):
    """The log-likelihood, and the factor scores of units, from one dense normal density."""
    data = measured()
    rng = np.random.default_rng(1)
    for name in ("y1", "y2", "y3"):
        data.loc[rng.random(len(data)) < share, name] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(LATENT, data, cluster=CROSSED, missing="fiml" if share else "listwise")
    assert fit.converged
    mean, cov = dense(fit, data)
    values = np.column_stack([data[["y1", "y2", "y3"]].to_numpy(), np.full(len(data), np.nan)]).ravel()
    seen = ~np.isnan(values)
    whole = oracle.normal_logpdf(values[seen][None], mean[seen], cov[np.ix_(seen, seen)])[0]
    assert fit.llf == pytest.approx(whole, rel=1e-10)
    factor = np.arange(3, len(values), 4)
    weights = np.linalg.solve(cov[np.ix_(seen, seen)], cov[np.ix_(seen, factor)]).T
    scores = fit.factor_scores(1)
    assert_allclose(scores["f"], mean[factor] + weights @ (values - mean)[seen], rtol=1e-7, atol=1e-8)
    left = cov[factor, factor] - np.einsum("ij,ij->i", weights, cov[np.ix_(factor, seen)])
    assert_allclose(scores["f_se"], np.sqrt(left), rtol=1e-7)


def test_a_model_of_latent_outcomes_has_derivatives():
    data = measured()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(LATENT, data, cluster=CROSSED)
    core, theta = fit.objective.core, fit.estimate.theta + 0.01
    _, gradient = core.evaluate(theta)
    for k in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[k]
        slope = (core.value(theta + step) - core.value(theta - step)) / 2e-5
        assert gradient[k] == pytest.approx(slope, rel=1e-5, abs=1e-4)


def test_a_chi_square_that_is_not_there_says_why():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(LATENT, measured(), cluster=CROSSED)
    assert np.isnan(fit.chisq)
    assert "at a singular covariance matrix" in " ".join(str(fit.summary()).split())


def test_order_and_labels_do_not_matter(fit):
    data = rated().sample(frac=1, random_state=2)
    data["lecturer"] = "L" + data["lecturer"].astype(str)
    again = msem.sem(MODEL, data, cluster=CROSSED)
    assert again.llf == pytest.approx(fit.llf, rel=1e-11)
    assert_allclose(again.params, fit.params, rtol=1e-4, atol=1e-5)
    first, second, third = MODEL.split("level: ")[1:]
    swapped = msem.sem(
        "level: " + "level: ".join([first, third, second]), rated(), cluster="lecturer * pupil"
    )
    assert swapped.llf == pytest.approx(fit.llf, rel=1e-11)
    assert swapped.bse["s~v.l3"] == pytest.approx(fit.bse["s~v.l2"], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_units_of_covariates_do_not_matter(fit, scale):
    other = msem.sem(MODEL, rated().assign(x=lambda d: d["x"] * scale), cluster=CROSSED)
    assert (other.status, other.llf) == (fit.status, pytest.approx(fit.llf, rel=1e-9))
    assert other.params["s~~s.l2"] * scale**2 == pytest.approx(fit.params["s~~s.l2"], rel=1e-4)
    assert other.bse["s~v.l2"] * scale == pytest.approx(fit.bse["s~v.l2"], rel=1e-4)


def test_threads_do_not_matter(fit):
    with _core.ThreadLimit(1):
        again = msem.sem(MODEL, rated(), cluster=CROSSED)
    assert_allclose(again.params, fit.params, rtol=0, atol=0)


def test_a_slope_without_variance_ends_on_the_border():
    data = rated()
    rng = np.random.default_rng(8)
    for _ in range(8):
        data["z"] = rng.normal(size=len(data))
        fixed = msem.sem(
            MODEL.replace('rv("t")*z', "z").replace("y ~~ y + t", "y ~~ y"), data, cluster=CROSSED
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit = msem.sem(MODEL, data, cluster=CROSSED)
        assert fit.converged
        assert fit.llf >= fixed.llf - 1e-6
        implied = fit.implied[3].cov.loc[["y", "t"], ["y", "t"]].to_numpy()
        assert np.linalg.eigvalsh(implied)[0] > -1e-8
        if fit.status == "boundary":
            return
    raise AssertionError("no sample has its maximum on the border")


def test_a_covariate_that_is_constant_within_the_clusters_of_one_classification(fit):
    """A slope of it over the other one is that of any covariate of units."""
    text = 'level: 1\n y ~ rv("s")*v\nlevel: pupil\n y ~~ y\nlevel: lecturer\n y ~~ y + s'
    found = msem.sem(text, rated(), cluster=CROSSED)
    assert found.converged
    with pytest.raises(ModelError, match="in crossed classifications slopes belong to paths of level 1"):
        msem.sem(
            'level: 1\n y ~~ y\nlevel: pupil\n y ~ rv("s")*v\nlevel: lecturer\n y ~~ y + s',
            rated(),
            cluster=CROSSED,
        )


def test_rows_without_a_covariate_are_left_out(fit):
    data = rated()
    data.loc[:9, "x"] = np.nan
    with pytest.warns(DataWarning, match="10"):
        some = msem.sem(MODEL, data, cluster=CROSSED, missing="fiml")
    assert some.nobs == 1490
    assert some.llf == pytest.approx(msem.sem(MODEL, data[10:], cluster=CROSSED).llf, rel=1e-11)


FIXED = MODEL.replace('rv("t")*z', "z").replace("y ~~ y + t", "y ~~ y")


def test_a_slope_is_compared_with_a_path_that_is_none(fit):
    fixed = msem.sem(FIXED, rated(), cluster=CROSSED)
    table = msem.compare_models(fit, fixed)
    assert table["df_diff"].iloc[1] == 2
    assert table["chisq_diff"].iloc[1] == pytest.approx(2 * (fit.llf - fixed.llf), rel=1e-8)
    without = msem.sem(
        FIXED.replace('rv("s")*x', "x").replace(" + s", "").replace("s ~ v", ""), rated(), cluster=CROSSED
    )
    table = msem.compare_models(fit, fixed, without)
    assert list(table["df_diff"])[1:] == [2, 3]


def test_groups_are_samples_of_their_own(fit):
    other = rated(seed=9).assign(pupil=lambda d: d["pupil"] + 100, lecturer=lambda d: d["lecturer"] + 100)
    both = pd.concat([rated().assign(school="a"), other.assign(school="b")], ignore_index=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = msem.sem(MODEL, both, cluster=CROSSED, group="school")
        alone = msem.sem(MODEL, other, cluster=CROSSED)
    assert together.llf == pytest.approx(fit.llf + alone.llf, rel=1e-10)


def test_a_slope_that_no_level_names_is_an_error():
    with pytest.raises(ModelError, match="varies between clusters of no level"):
        msem.sem(MODEL.replace("y ~~ y + t", "y ~~ y"), rated(), cluster=CROSSED)


def test_a_covariate_far_from_its_origin_is_an_error():
    with pytest.raises(DataError, match="centre it"):
        msem.sem(MODEL, rated().assign(x=lambda d: d["x"] + 1e7), cluster=CROSSED)


def test_parametric_bootstrap_and_simulation(fit):
    """Samples have the covariates and the pairs of the data; over them estimates vary as their errors say."""
    data = rated(600, 40, 30)
    small = msem.sem(MODEL, data, cluster=CROSSED)
    replicates = small.bootstrap(100, kind="parametric", seed=1, progress=False)
    spread = replicates.estimates.std()
    for name in ("s~v.l2", "y~~y", "t~1.l3", "y~1.l3"):
        assert spread[name] == pytest.approx(small.bse[name], rel=0.3)
    drawn = msem.simulate(small, seed=2)
    assert list(drawn["pupil"]) == list(data["pupil"])
    again = msem.sem(MODEL, drawn, cluster=CROSSED)
    assert abs(again.params["s~v.l2"] - small.params["s~v.l2"]) < 5 * small.bse["s~v.l2"]


def test_a_covariate_that_is_an_outcome_has_a_slope():
    text = MODEL.replace("level: pupil", "  x ~ z\nlevel: pupil")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = msem.sem(text, rated(), cluster=CROSSED)
    assert fit.params["x~z"] == pytest.approx(np.polyfit(rated()["z"], rated()["x"], 1)[0], abs=1e-6)
    assert fit.params["s~v.l2"] == pytest.approx(LME4["coefficients"]["s~v.l2"][0], abs=1e-5)
    with pytest.raises(DataError, match=r"'x' has a random slope and is an outcome itself.*msem\.simulate$"):
        fit.bootstrap(2, kind="parametric")


def test_what_there_is_not_is_refused_by_name(fit):
    with pytest.raises(UnsupportedError, match="not available for crossed classifications"):
        fit.distances()
    with pytest.raises(UnsupportedError, match="no independent clusters"):
        fit.influence()
