"""Ordered variables by maximum likelihood: integrals by adaptive quadrature."""

from __future__ import annotations

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_integrals
import reference
from msem.data.reading import read_sample
from msem.errors import DataError, DataWarning, ModelError, MsemError, UnsupportedError
from msem.estimation.integrals import quadrature_accuracy
from msem.estimation.objective import build_objective
from msem.fits.sem import table_of
from msem.language.syntax import parse
from msem.postestimation.candidates import candidates, extended_table
from msem.settings import Settings
from ordered_cases import FACTORS, ITEMS, MODELS, case, ordered_settings, sample

# points of the dense truth at both levels: two dimensions take fewer
POINTS = {"two factors within": (27, 27), "random slope": (25, 1), "beside continuous": (25, 27)}


@pytest.mark.parametrize("name", MODELS)
def test_value_is_that_of_dense_trapezoid_rules(name):
    own = case(name)
    truth = own.truth(own.near, POINTS.get(name, (35, 35)))
    assert_allclose(own.objective.cluster_loglik(own.near, own.clusters), truth, rtol=0, atol=1e-6)
    assert own.objective.value(own.near) == pytest.approx(-2 * truth.sum(), abs=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_derivatives_are_those_of_the_value(name):
    own = case(name)
    gradient = own.objective.gradient(own.near)
    differences = oracle.differences(lambda t: np.array([own.objective.value(t)]), own.near)[0]
    assert_allclose(gradient, differences, rtol=0, atol=2e-6 * np.abs(gradient).max())
    scores = own.objective.scores(own.near, own.clusters)
    assert_allclose(-2 * scores.sum(axis=0), gradient, rtol=0, atol=1e-9 * np.abs(gradient).max())
    found = own.objective.observed_information(own.near)
    truth = oracle.differences(own.objective.gradient, own.near) / 2
    assert_allclose(found, truth, rtol=0, atol=2e-5 * np.abs(truth).max())


@pytest.mark.parametrize("name", MODELS)
def test_weights_count_the_clusters(name):
    own = case(name)
    likelihood = own.clusters.of(own.objective.core.likelihoods[0])
    logliks = own.objective.cluster_loglik(own.near, own.clusters)
    weights = np.random.default_rng(5).integers(0, 4, len(logliks)).astype(float)
    weighted = build_objective(own.table, own.statistics, likelihood.weighted(weights))
    assert weighted.core.value(own.near) == pytest.approx(-2 * weights @ logliks, rel=1e-12)


def test_outside_the_domain_there_is_nothing():
    own = case("factors")
    theta = own.near.copy()
    names = own.table.names()
    theta[names.index("fb~~fb.l2")] = -1.0
    assert own.objective.value(theta) == np.inf
    own = case("random slope")
    theta, names = own.near.copy(), own.table.names()
    theta[names.index("y3|t1.l2")] = theta[names.index("y3|t2.l2")] + 0.1
    assert own.objective.value(theta) == np.inf


def test_threads_change_nothing():
    own = case("beside continuous")
    from msem import _core

    with _core.ThreadLimit(1):
        one = own.objective.gradient(own.near)
    with _core.ThreadLimit(3):
        assert (own.objective.gradient(own.near) == one).all()


@reference.needs_reference
@pytest.mark.parametrize("name", ["bin_contraception_probit", "bin_contraception_logit", "ord_wine_probit"])
def test_random_intercepts_are_those_of_other_programs(name):
    meta, block = reference.meta(name), reference.results(name)["quadrature"]
    ordered = meta["lavaan_args"]["ordered"]
    fit = msem.sem(
        reference.model(name),
        reference.data(name),
        cluster=meta["cluster"],
        ordered=ordered,
        estimator="ML",
        link=meta["link"],
    )
    assert fit.status == "ok"
    assert fit.llf == pytest.approx(block["logl"], abs=1e-7)
    mine = {(r.op, r.rhs): r for r in fit.estimates().itertuples() if r.se > 0}
    for row in block["parameter_table"]:
        own = mine[row["op"], row["rhs"]]
        assert own.est == pytest.approx(row["est"], abs=1e-6 * row["se"])
        assert own.se == pytest.approx(row["se"], rel=1e-5)


@functools.cache
def fitted():
    return msem.sem(FACTORS, sample(40, 5, 9), cluster="g", ordered=ITEMS, estimator="ML")


def test_a_fit_is_a_maximum_with_what_follows_from_it():
    fit = fitted()
    assert fit.status == "ok"
    accuracy = quadrature_accuracy(fit.objective, fit.theta)
    assert accuracy.finer == 31
    assert abs(accuracy.change) < 1e-5
    assert np.isnan(fit.chisq)
    assert fit.aic == pytest.approx(2 * fit.npar - 2 * fit.llf)
    text = str(fit.summary())
    assert "Adaptive quadrature" in text
    assert "ML" in text
    assert pickle.loads(pickle.dumps(fit)).llf == fit.llf
    robust = msem.sem(FACTORS, sample(40, 5, 9), cluster="g", ordered=ITEMS, estimator="MLR")
    assert robust.llf == pytest.approx(fit.llf, abs=1e-8)
    bread, scores = np.linalg.inv(fit.objective.observed_information(fit.theta)), robust.scores().to_numpy()
    assert_allclose(robust.vcov, bread @ scores.T @ scores @ bread, rtol=1e-5, atol=1e-8)


def test_likelihood_ratios_compare_nested_models():
    equal = FACTORS.replace("y1 + y2 + y3 + y4", "y1 + a*y2 + b*y3 + c*y4")
    smaller = msem.sem(equal, sample(40, 5, 9), cluster="g", ordered=ITEMS, estimator="ML")
    found = msem.compare_models(smaller, fitted())
    row = found.iloc[-1]
    assert row["df_diff"] == 3
    assert row["chisq_diff"] == pytest.approx(2 * (fitted().llf - smaller.llf), abs=1e-6)


HALVES = "f =~ u1 + u2 + u3 + u4"
US = ["u1", "u2", "u3", "u4"]


@functools.cache
def demo():
    data = msem.load_demo()
    for k, cuts in enumerate(([-0.8, 0.7], [0.0], [0.3], [-0.5]), 1):
        data[f"u{k}"] = np.digitize(data[f"y{k}"], cuts)
    return data.assign(half=np.where(data["cluster"] % 2, "a", "b"))


@functools.cache
def halves(**options):
    return msem.sem(HALVES, demo(), group="half", ordered=US, estimator="ML", **options)


@pytest.mark.parametrize("link", ["probit", "logit"])
def test_models_of_groups_contain_each_other_whatever_is_fixed_for_their_scale(link):
    free, equal = halves(link=link), halves(link=link, group_equal=("loadings", "thresholds"))
    found = msem.compare_models(free, equal)
    # three loadings and five thresholds are equal; a mean and four residual variances are free
    assert found["df_diff"].iloc[1] == 3
    assert found["chisq_diff"].iloc[1] == pytest.approx(2 * (free.llf - equal.llf), abs=1e-8)
    other = msem.sem(
        "f =~ u1 + 0.4*u2 + u3 + u4", demo(), group="half", ordered=US, estimator="ML", link=link
    )
    with pytest.raises(ModelError, match="not nested"):
        msem.compare_models(equal, other)


def test_scaled_differences_of_ordered_models_are_those_of_a_wald_test():
    small, large = (
        msem.sem(text, demo(), ordered=US, estimator="MLR") for text in ("f =~ u1 + 1*u2 + u3 + u4", HALVES)
    )
    theta = np.array([1.0 if name == "f=~u2" else small.params[name] for name in large.params.index])
    k = list(large.params.index).index("f=~u2")
    bread = np.linalg.inv(large.objective.expected_information(theta))
    (clusters,) = large.sample.clusters
    scores = large.objective.scores(theta, clusters)
    found = msem.compare_models(small, large, method="satorra_bentler_2010")["scaling"].iloc[1]
    expected = (bread @ scores.T @ scores @ bread)[k, k] / bread[k, k]
    assert found == pytest.approx(expected, rel=1e-5)


def test_next_to_the_border_there_is_information_for_a_step():
    own = case("two factors within")
    theta, names = own.near.copy(), list(own.table.names())
    at = [names.index(name) for name in ("f~~h", "f~~f", "h~~h")]
    theta[at[0]] = (1 - 1e-6) * np.sqrt(theta[at[1]] * theta[at[2]])
    assert np.linalg.eigvalsh(own.objective.expected_information(theta)).min() > 0
    theta[at[0]] *= 1 + 2e-6  # beyond it there is nothing
    assert own.objective.value(theta) == np.inf


def test_profiles_and_influence_are_those_of_refits():
    fit = fitted()
    curve = fit.profile("y2|t1.l2", points=2).frame
    held = FACTORS + f"  y2 | {float(curve['value'].iloc[0])!r}*t1\n"
    other = msem.sem(held, sample(40, 5, 9), cluster="g", ordered=ITEMS, estimator="ML")
    assert curve["deviance"].iloc[0] == pytest.approx(2 * (fit.llf - other.llf), abs=1e-5)
    data = sample(40, 5, 9)
    less = msem.sem(FACTORS, data[data["g"] != 7], cluster="g", ordered=ITEMS, estimator="ML")
    change = fit.influence().change.loc[7].to_numpy()
    moved = less.params.to_numpy() - fit.params.to_numpy()
    assert np.abs(change - moved).max() < 0.03 * np.abs(moved).max()  # one step
    exact = fit.influence(exact=True, clusters=[7], progress=False).change.loc[7].to_numpy()
    assert_allclose(exact, moved, atol=1e-6)


def test_what_one_row_does_is_the_same_for_rows_that_are_alike():
    data = demo().iloc[:150].reset_index(drop=True)
    fit = msem.sem(HALVES, data, ordered=US, estimator="ML")
    jackknife = fit.jackknife(progress=False)
    table, steps = jackknife.estimates.loc[1], fit.influence(progress=False)
    alike = data.groupby(US).ngroup()
    common = alike.value_counts().index[0]
    for values in (table, steps.change):
        assert len(values[alike.to_numpy() == common].drop_duplicates()) == 1
    assert len(table.drop_duplicates()) == alike.nunique()
    without = msem.sem(HALVES, data.drop(index=5), ordered=US, estimator="ML")
    assert_allclose(table.loc[5], without.params, atol=1e-6)
    assert_allclose(
        steps.change.loc[5], without.params - fit.params, atol=0.1 * np.abs(without.params - fit.params).max()
    )
    drawn = fit.bootstrap(2, seed=3, progress=False).estimates
    units = np.random.Generator(np.random.Philox(key=3, counter=[0, 0, 0, 1])).integers(0, 150, 150)
    again = msem.sem(HALVES, data.iloc[units].reset_index(drop=True), ordered=US, estimator="ML")
    assert_allclose(drawn.loc[1], again.params, atol=1e-6)


def test_modification_indices_are_score_tests_near_likelihood_ratios():
    equal = FACTORS.replace("fb =~ y1 + y2 + y3 + y4", "fb =~ y1 + 0.8*y2 + a*y3 + a*y4")
    data = sample(120, 5, 9)

    def fit(text):
        return msem.sem(text, data, cluster="g", ordered=ITEMS, estimator="ML")

    held = fit(equal)
    table = held.modification_indices().set_index(["lhs", "op", "rhs", "level"])
    # the scale of y* may be freed in place of the loading: the same model
    row, other = table.loc[("fb", "=~", "y2", 2)], table.loc[("y2", "~~", "y2", 1)]
    assert other["mi"] == pytest.approx(row["mi"], rel=1e-6)
    # Rao's statistic, from differences of log-likelihoods of clusters
    added = [c for c in candidates(held.table) if (c.row.lhs, c.row.rhs) == ("fb", "y2")]
    extended = extended_table(held.table, added)
    objective = build_objective(extended, held.sample.statistics)
    clusters = held.sample.clusters[0]
    at = np.append(held.theta, 0.8)
    scores = oracle.differences(lambda t: objective.cluster_loglik(t, clusters), at)
    assert row["mi"] == pytest.approx(
        scores.sum(axis=0) @ np.linalg.solve(scores.T @ scores, scores.sum(axis=0)), rel=1e-4
    )
    # no residual variances between, which are one more variable to integrate over, and no residual covariances
    assert not (
        (table.index.get_level_values("op") == "~~") & (table.index.get_level_values("level") == 2)
    ).any()
    free = fit(equal.replace("0.8*y2", "y2"))
    assert row["mi"] == pytest.approx(2 * (free.llf - held.llf), rel=0.2)
    assert row["epc"] == pytest.approx(free.params["fb =~ y2"] - 0.8, rel=0.2)
    released = held.score_test().total["statistic"].item()
    apart = fit(equal.replace("a*y3 + a*y4", "y3 + y4"))
    assert released == pytest.approx(2 * (apart.llf - held.llf), rel=0.2)


def test_what_is_not_there_for_these_fits_is_refused():
    fit = fitted()
    for ask in (
        lambda: fit.score_test(add="y1 ~~ y2", level=1),
        lambda: fit.score_test(add="y1 ~~ y1", level=2),
        fit.posterior,
        lambda: fit.predict(sample(), random_effects=True),
        fit.distances,
        fit.srmr,
        lambda: fit.factor_scores(newdata=sample()),
    ):
        with pytest.raises(UnsupportedError, match="order"):
            ask()
    for name in ("saturated", "ordered_moments"):
        with pytest.raises(AttributeError, match="maximum likelihood"):
            getattr(fit, name)


@pytest.mark.parametrize("name", ["random slope", "slope of a factor"])
def test_scores_of_models_with_random_slopes_are_posterior_means(name):
    own = case(name)
    theta = own.near
    found = own.statistics.posterior(own.objective.observed_moments(theta))
    at = own.statistics.integrated.index("s")
    value = dict(zip(own.table.names(), theta, strict=True))

    def moved(variable, level):
        """Derivatives of the log-likelihoods of clusters with respect to the mean of a variable."""
        both = []
        for h in (-1e-3, 1e-3):
            rows = []
            for row in own.table.rows:
                if row.op == "~1" and row.lhs == variable and row.level == level:
                    row = row._replace(free=0, value=h + (theta[row.free - 1] if row.free else row.value))
                rows.append(row)
            points = POINTS.get(name, (41, 41))
            both.append(
                oracle_integrals.logliks(
                    rows, theta, own.data, *own.roles, own.ordered, "g", own.logit, points
                )
            )
        return (both[1] - both[0]) / 2e-3

    w = own.data.drop_duplicates("g")["w"].to_numpy()
    reach = value["s~~s.l2"] * moved("s", 2)
    if name == "random slope":
        reach += value["y3~~s.l2"] * moved("y3", 2)
    assert_allclose(found["integrated"][at], value["s~1.l2"] + value["s~w.l2"] * w + reach, atol=1e-4)
    if name == "slope of a factor":
        units = pd.Series(found["within"][0]).groupby(own.data["g"].to_numpy(), sort=False).sum()
        assert_allclose(units, value["fw~~fw"] * moved("fw", 1), atol=1e-4)


def test_scores_of_factors_are_posterior_means():
    fit = fitted()
    between, within = fit.factor_scores(2), fit.factor_scores(1)
    data = sample(40, 5, 9)
    assert list(between.columns) == ["fb", "fb_se"]
    assert len(between) == 40
    assert list(within.index) == list(data.index)
    # of one cluster, by a product of trapezoid rules
    value = fit.params
    code = between.index[3]
    part = data[data["g"] == code][list(ITEMS)].to_numpy().astype(int)
    lb, lw = (
        np.array([1.0, *(value[f"{f} =~ {y}{end}"] for y in ITEMS[1:])])
        for f, end in (("fb", ".l2"), ("fw", ""))
    )
    cuts = [oracle_integrals.thresholds(fit.table.rows, fit.theta, y) for y in ITEMS]
    b = np.sqrt(value["fb ~~ fb.l2"]) * np.linspace(-7, 7, 141)
    e = np.sqrt(value["fw ~~ fw"]) * np.linspace(-7, 7, 141)
    log_b, log_e = -0.5 * np.linspace(-7, 7, 141) ** 2, -0.5 * np.linspace(-7, 7, 141) ** 2
    units = []
    for y in part:
        joint = log_b[:, None] * 0 + log_e
        for k in range(4):
            joint = joint + oracle_integrals.log_categories(
                cuts[k], y[k], lb[k] * b[:, None] + lw[k] * e[None, :], 1.0, False
            )
        units.append(joint)
    log_post = log_b + sum(oracle_integrals.log_sum(u, 1) for u in units)
    weight = np.exp(log_post - log_post.max())
    weight /= weight.sum()
    mean = weight @ b
    assert between["fb"].iloc[3] == pytest.approx(mean, abs=1e-6)
    assert between["fb_se"].iloc[3] == pytest.approx(np.sqrt(weight @ (b - mean) ** 2), abs=1e-6)
    own = np.exp(units[0] - units[0].max(axis=1, keepdims=True))
    inner = (own @ e) / own.sum(axis=1)
    assert within["fw"][data.index[data["g"] == code][0]] == pytest.approx(weight @ inner, abs=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "level: 1\n fw =~ y1 + y2 + y3 + y4\nlevel: 2\n fb =~ y1 + y2 + y3 + y4\n",
            "integral over 4 variables at the between level",
        ),
        (
            "level: 1\n y1 ~~ y2\n y3 ~~ y4\nlevel: 2\n y1 ~~ y2\n y3 ~~ 0*y3\n y4 ~~ 0*y4\n",
            "depend on each other beyond the latent variables",
        ),
        (
            "level: 1\n f =~ y1 + y2\n q =~ y3 + y2\n h =~ y4 + y3\n f ~~ q + h\n q ~~ h\nlevel: 2\n y1 ~~ y1\n"
            " y2 ~~ 0*y2\n y3 ~~ 0*y3\n y4 ~~ 0*y4\n",
            "integral over 3 variables at the within level",
        ),
    ],
)
def test_integrals_over_too_many_variables_are_refused(model, message):
    with pytest.raises(UnsupportedError, match=message) as caught:
        msem.sem(model, sample(), cluster="g", ordered=ITEMS, estimator="ML")
    assert "WLSMV" in str(caught.value)


@pytest.mark.parametrize("nodes", [1001, 2**31 - 1, 10**30])
def test_more_nodes_than_anything_takes_are_refused(nodes):
    with pytest.raises(MsemError, match="nodes must be 1000 at most"):
        msem.sem(FACTORS, sample(), cluster="g", ordered=ITEMS, estimator="ML", nodes=nodes)
    model = "level: 1\n f =~ y1 + y2 + y3\nlevel: 2\n y1 ~~ y2 + y3\n y2 ~~ y3"
    with pytest.raises(MsemError, match=r"nodes=64 in each of 3 dimensions \(y1, y2, y3\).*: 62 at most"):
        msem.sem(model, sample(), cluster="g", ordered=["y1", "y2", "y3"], estimator="ML", nodes=64)


def test_continuous_variables_have_to_be_observed():
    model, _, _ = MODELS["beside continuous"]
    data = sample()
    data.loc[data.index[:1], "c"] = np.nan
    settings = ordered_settings(missing="fiml")
    table = table_of(parse(model), "sem", settings, None, {"y1": 1, "y3": 2})
    with pytest.warns(DataWarning, match=r"1 rows have no value of a continuous variable.*\(c 1\)"):
        read_sample(data, table, settings)


def test_what_does_not_go_with_an_integral_is_refused():
    def fit(**options):
        return msem.sem(FACTORS, sample(), cluster="g", ordered=ITEMS, **options)

    with pytest.raises(UnsupportedError, match="delta"):
        fit(estimator="ML", parameterization="delta")
    with pytest.raises(UnsupportedError, match="maximum likelihood"):
        fit(link="logit")
    with pytest.raises(UnsupportedError, match="expected"):
        fit(estimator="ML", information="expected")
    with pytest.raises(UnsupportedError, match="saturated"):
        fit(estimator="MLR", test="yuan.bentler")
    with pytest.raises(ModelError, match="no effect"):
        msem.sem("y1 ~ x", sample(), link="logit")
    with pytest.raises(ModelError, match="covariate"):
        msem.sem(
            "level: 1\n y1 ~ y2\nlevel: 2\n y1 ~~ y1",
            sample(),
            cluster="g",
            ordered=["y1", "y2"],
            estimator="ML",
        )


def test_the_default_of_ordered_variables_is_least_squares():
    settings = Settings.read({"ordered": ITEMS})
    assert settings.for_ordered().method == "WLSMV"
    assert Settings.read({"ordered": ITEMS, "estimator": "ml"}).for_ordered().method == "ML"
    assert settings.method == "ML"  # where nothing is ordered


def test_a_category_that_is_not_there_is_refused():
    data = sample().assign(y1=pd.Categorical(sample()["y1"], [0.0, 1.0], ordered=True))
    with pytest.raises(DataError, match="empty"):
        msem.sem(
            FACTORS,
            data.assign(y1=data["y1"].cat.add_categories([2.0])),
            cluster="g",
            ordered=ITEMS,
            estimator="ML",
        )
