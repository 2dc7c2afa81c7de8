"""Random slopes of covariates at both levels: integrals by adaptive quadrature."""

from __future__ import annotations

import functools
import itertools
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_slopes
import reference
import slope_cases
from msem import _core
from msem.data.quadrature import integrated_statistics
from msem.data.reading import group_rows, read_sample
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.estimate import starts
from msem.estimation.integrals import quadrature_accuracy
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.estimation.problems import quadrature_problems
from msem.language.syntax import parse
from msem.model.partable import parameter_table
from msem.postestimation.posterior import cluster_scores, core_order, group_model, posterior
from msem.postestimation.rows import Rows
from msem.resampling.replicates import ReplicateSource, _design, leave_one_out
from msem.settings import Settings

MODEL = """
level: 1
  y1 ~ rv("s")*x1 + x3
  y2 ~ y1
level: 2
  y1 ~ x1 + w
  s ~ w
  y1 ~~ s
  z ~ s
"""
CHAIN = """
level: 1
  y1 ~ rv("s")*x1
  y2 ~ rv("t")*y1 + x3
level: 2
  y1 ~~ y1 + s
  y2 ~~ t
  x1 ~~ x1
  s ~~ t
"""


LATENT = """
level: 1
  fw =~ y1 + y2 + y3
  g =~ y2 + y3
  x1 ~ rv("s")*fw + x3
  g ~~ 0.3*g
level: 2
  fb =~ y1 + y2
  x1 ~~ s + x1
  s ~ w
"""


def with_holes(frame):
    """Those of `slope_cases`, in the covariate at both levels too."""
    out = slope_cases.with_holes(frame)
    out.loc[np.random.default_rng(6).random(len(out)) < 0.3, "x1"] = np.nan
    return out


class Case:
    def __init__(self, text, nodes=0, nclusters=12, holes=False):
        self.data = slope_cases.sample(2, nclusters)
        if holes:
            self.data = with_holes(self.data)
        settings = Settings.read({"cluster": "id", "missing": "fiml" if holes else "listwise"})
        table = parameter_table(parse(text))
        sample = read_sample(self.data, table, settings, group_rows(self.data, None))
        self.table = fill_exogenous(table, sample.levels)
        self.sample = sample
        (s,) = sample.statistics
        self.statistics = s.with_nodes(nodes) if nodes else s
        self.objective = replace(build_objective(self.table, self.statistics), covariate_llf=0.0)
        rng = np.random.default_rng(3)
        start = starts(self.objective, sample)[0]
        self.near = start + 0.05 * rng.normal(size=len(start)) * np.maximum(np.abs(start), 0.1)
        self.clusters = s.clusters(sample.groups[0].rows)
        self.roles = list(s.unit), list(s.unit[: s.nboth]), list(s.cluster), "id"


@functools.cache
def simple():
    return Case(MODEL, 21, 6)


@functools.cache
def chain():
    return Case(CHAIN, 7, 8)


@functools.cache
def holes():
    return Case(MODEL.replace("level: 2", "x1 ~~ x1\nlevel: 2\n x1 ~~ x1"), 21, 6, True)


@pytest.mark.parametrize("make", [simple, holes])
def test_value_is_that_of_the_trapezoid_rule_over_dense_densities(make):
    case = make()
    truth = oracle_slopes.integrated(case.table.rows, case.near, case.data, *case.roles)
    assert_allclose(case.objective.cluster_loglik(case.near, case.clusters), truth, rtol=1e-8)
    assert case.objective.value(case.near) == pytest.approx(-2 * truth.sum(), rel=1e-9)


@pytest.mark.parametrize("make", [simple, chain, holes])
def test_derivatives_are_those_of_the_value(make):
    case = make()
    gradient = case.objective.gradient(case.near)
    differences = oracle.differences(lambda t: np.array([case.objective.value(t)]), case.near)[0]
    assert_allclose(gradient, differences, rtol=0, atol=2e-6 * np.abs(gradient).max())
    scores = case.objective.scores(case.near, case.clusters)
    assert_allclose(-2 * scores.sum(axis=0), gradient, rtol=0, atol=1e-9 * np.abs(gradient).max())
    found = case.objective.observed_information(case.near)
    truth = oracle.differences(case.objective.gradient, case.near) / 2
    assert_allclose(found, truth, rtol=0, atol=1e-5 * np.abs(truth).max())


def test_slopes_of_observed_covariates_need_no_nodes():
    """The integrand is normal then, and any rule exact."""
    case = slope_cases.Case("all kinds")
    s = case.statistics
    other = integrated_statistics(
        case.sample.groups[0].rows,
        case.table.variables,
        s.unit[len(s.unit) - s.fixed :],
        s.slopes,
        s.carriers,
        s.exogenous,
        [slope.covariate for slope in s.slopes],
    ).with_nodes(5)
    objective = replace(build_objective(case.table, other), covariate_llf=0.0)
    assert objective.value(case.near) == pytest.approx(case.objective.value(case.near), rel=1e-9)
    close = {"rtol": 0, "atol": 1e-7 * np.abs(case.objective.gradient(case.near)).max()}
    assert_allclose(objective.gradient(case.near), case.objective.gradient(case.near), **close)
    one, two = (o.observed_information(case.near) for o in (objective, case.objective))
    assert_allclose(one, two, rtol=0, atol=1e-6 * np.abs(two).max())
    clusters = other.clusters(case.sample.groups[0].rows)
    assert_allclose(
        objective.scores(case.near, clusters), case.objective.scores(case.near, case.clusters), **close
    )


@reference.needs_reference
def test_a_covariate_split_into_its_parts_is_that_of_block_quadrature():
    case = "rs_split_sim"
    fit = msem.sem(reference.model(case), reference.data(case), cluster="cluster", fixed_x=False)
    block = reference.results(case)["quadrature"]
    assert fit.llf == pytest.approx(block["logl"], abs=1e-6)
    theirs = {
        (r["level"], r["op"], *sorted((r["lhs"], r["rhs"]))): (r["est"], r["se"])
        for r in block["parameter_table"]
    }
    for row, est, se in zip(fit.table.rows, fit.row_values, fit.row_errors, strict=True):
        if row.free:
            value, error = theirs.pop((row.level, row.op, *sorted((row.lhs, row.rhs))))
            assert abs(est - value) < 1e-4 * error
            assert se == pytest.approx(error, rel=1e-3)
    assert not theirs
    assert np.isnan(fit.chisq)
    text = " ".join(fit.summary().split())
    assert "stands at both levels" in text
    assert "Log-likelihood with 31: change" in text
    (s,) = fit.sample.statistics
    coarse = build_objective(fit.table, s.with_nodes(2))
    (problem,) = quadrature_problems(quadrature_accuracy(coarse, fit.theta))
    assert "with 5 nodes in place of 2" in problem.cause
    assert problem.remedy.endswith("nodes=5")
    robust = msem.sem(
        reference.model(case), reference.data(case), cluster="cluster", fixed_x=False, estimator="MLR"
    )
    inverse = np.linalg.inv(robust.objective.observed_information(robust.theta))
    scores = robust.scores().to_numpy()
    assert_allclose(robust.vcov, inverse @ scores.T @ scores @ inverse, rtol=1e-6)


@reference.needs_reference
def test_slopes_of_latent_covariates_are_those_of_block_quadrature():
    case = "rs_latentx_sim"
    fit = msem.sem(reference.model(case), reference.data(case), cluster="cluster")
    block = reference.results(case)["quadrature"]
    assert fit.status == "ok"
    assert fit.llf == pytest.approx(block["logl"], abs=1e-6)
    theirs = {
        (r["level"], r["op"], r["lhs"], r["rhs"]): (r["est"], r["se"]) for r in block["parameter_table"]
    }
    compared = 0
    for row, est, se in zip(fit.table.rows, fit.row_values, fit.row_errors, strict=True):
        if row.free:
            value, error = theirs[row.level, row.op, row.lhs, row.rhs]
            assert abs(est - value) < 1e-4 * error
            assert se == pytest.approx(error, rel=1e-3)
            compared += 1
    assert compared == block["npar"]
    index = fit.modification_indices(op="~~").iloc[0]  # of the drop in chi-square a first-order approximation
    more = reference.model(case).replace("level: 2", f"level: 2\n  {index.lhs} ~~ {index.rhs}")
    drop = 2 * (msem.sem(more, reference.data(case), cluster="cluster").llf - fit.llf)
    assert index.level == 2
    assert abs(index.mi - drop) < 0.2 * drop


def test_what_cannot_be_integrated_is_refused():
    data = slope_cases.sample(3, 60)
    data.loc[data["id"] == 3, "z"] = np.nan
    with pytest.raises(UnsupportedError, match="cluster variable 'z' is missing in 1 clusters"):
        msem.sem(MODEL, data, cluster="id", missing="fiml")
    data = slope_cases.sample(3, 60)
    with pytest.raises(UnsupportedError, match="expected information is no closed form"):
        msem.sem(MODEL, data, cluster="id", information="expected")
    several = 'level: 1\n y1 ~ rv("a")*x1 + rv("b")*x2\n y2 ~ rv("c")*x1 + rv("d")*x2\nlevel: 2\n x1 ~~ x1\n'
    with pytest.raises(UnsupportedError, match="4 slopes are too many"):
        parameter_table(parse(several))
    wrong = 'level: 1\n y2 ~ rv("t")*y1\n y1 ~ rv("s")*x1\nlevel: 2\n y1 ~~ y1\n'
    with pytest.raises(ModelError, match=r"'s' changes the covariate of 't'.*write it first"):
        parameter_table(parse(wrong))


@pytest.mark.parametrize(
    ("covariate", "marker"),
    [("x ~~ 2*x", "x"), ("f =~ 1*x + 0.8*a\n f ~~ 2*f\n x ~~ 0.4*x\n a ~~ 0.4*a", "f")],
)
def test_simulated_data_have_products_of_slopes_and_within_parts(covariate, marker):
    """Pooled products within clusters: (E s)^2 + Var s times the variance of the covariate, and E s times it."""
    text = f"""
    level: 1
      y ~ rv("s")*{marker}
      y ~~ 1*y
      {covariate}
    level: 2
      y ~ 0.3*x
      y ~~ 1*y
      x ~~ 1*x
      s ~ 0.7*1
      s ~~ 0.5*s
    """
    data = msem.simulate(text, nclusters=4000, cluster_sizes=5, seed=1)
    within = data[["x", "y"]] - data.groupby("cluster")[["x", "y"]].transform("mean")
    cov = (within.T @ within / (4 * 4000)).to_numpy()
    error = 0.4 if marker == "f" else 0.0
    assert_allclose(cov, [[2 + error, 1.4], [1.4, 1 + (0.5 + 0.49) * 2]], atol=0.15)


@pytest.mark.parametrize("holes", [False, True])
def test_scores_are_means_of_the_posterior_by_the_trapezoid_rule(holes):
    """Two latent variables of level 1, of which one has the slope."""
    case = Case(LATENT, 25, 5, holes)
    latent, second = ("g", "fw"), (*case.roles[1], "fb")
    truth = oracle_slopes.integrated_posterior(
        case.table.rows, case.near, case.data, *case.roles, latent, second, points=61
    )
    model, rows = group_model(case.objective, case.near), case.sample.groups[0]
    rows = Rows(rows.rows, case.clusters)
    second_level = cluster_scores(model, rows).columns()
    first_level = posterior(model, rows, 1).columns()
    codes = case.data.groupby("id", sort=False).ngroup().to_numpy()
    for j, (mean, sd) in enumerate(truth):
        for k, name in enumerate(("s", *second)):
            assert second_level[name][j] == pytest.approx(mean[k], abs=1e-6)
            assert second_level[f"{name}_se"][j] == pytest.approx(sd[k], abs=1e-6)
        units = mean[1 + len(second) :].reshape(-1, 2), sd[1 + len(second) :].reshape(-1, 2)
        for k, name in enumerate(latent):
            assert_allclose(first_level[name][codes == j], units[0][:, k], atol=1e-6)
            assert_allclose(first_level[f"{name}_se"][codes == j], units[1][:, k], atol=1e-6)


@pytest.mark.parametrize("holes", [False, True])
def test_draws_have_the_posterior_by_the_trapezoid_rule(holes):
    """Means and covariances of the slope, other variables of level 2 and all units of each cluster."""
    case = Case(LATENT, 25, 5, holes)
    latent, second = ("g", "fw"), (*case.roles[1], "fb")
    theta = case.near.copy()  # of a distribution, which these need not be
    theta[
        [r.free - 1 for r in case.table.rows if r.level == 1 and r.op == "~~" and r.free and r.lhs == r.rhs]
    ] += 0.4
    truth = oracle_slopes.integrated_moments(
        case.table.rows, theta, case.data, *case.roles, latent, second, points=61
    )
    model, rows = group_model(case.objective, theta), case.sample.groups[0]
    rows = Rows(rows.rows, case.clusters)
    source, units = model.data(rows), model.units(rows)
    names = [*model.parts(2), *model.latent(2)]
    order = [names.index(name) for name in ("s", *second)]
    below = [core_order(model, 1).index(name) for name in latent]
    codes = case.data.groupby("id", sort=False).ngroup().to_numpy()
    count = 6000
    drawn = [source.draw(*units, seed) for seed in range(count)]
    for j, (mean, cov) in enumerate(truth):
        found = np.array([np.append(one[j, order], two[codes == j][:, below].ravel()) for one, two in drawn])
        sd = np.sqrt(cov.diagonal())
        assert np.abs((found.mean(axis=0) - mean) / sd).max() < 4.5 / np.sqrt(count)
        # the error of a product of standardized variables is about sqrt(2), more where tails are heavy
        assert np.abs((np.cov(found.T) - cov) / np.outer(sd, sd)).max() < 8 / np.sqrt(count)


def test_plausible_values_are_draws_of_latent_variables():
    fit = fitted(split())
    one, other = fit.plausible_values(2, seed=1)
    assert list(one.columns) == ["s"]
    assert not np.allclose(one, other)
    pd.testing.assert_frame_equal(one, fit.plausible_values(1, seed=1)[0])
    with _core.ThreadLimit(1):
        pd.testing.assert_frame_equal(one, fit.plausible_values(1, seed=1)[0])
    draws = np.array([x["s"] for x in fit.plausible_values(400, seed=2, level=2)])
    scores = fit.factor_scores(2)
    assert np.abs((draws.mean(axis=0) - scores["s"]) / scores["s_se"]).max() < 4.5 / np.sqrt(400)
    assert_allclose(draws.std(axis=0), scores["s_se"], rtol=0.25)
    drawn = fit.plausible_values(2, seed=3, draw_parameters=True, newdata=split()[:30])
    assert drawn[0].shape == (30, 1)


SMALL = "level: 1\n y ~ rv('s')*x\nlevel: 2\n y ~ x + w\n y ~~ s"


@functools.cache
def split(nclusters=40, size=6):
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(nclusters), size)
    b, w, slope = rng.normal(size=(3, nclusters))
    x = b[g] + rng.normal(size=len(g))
    y = 0.8 * b[g] + (0.5 + 0.6 * slope[g]) * (x - b[g]) + 0.7 * rng.normal(size=nclusters)[g]
    return pd.DataFrame({"id": g, "x": x, "y": y + rng.normal(size=len(g)), "w": w[g]})


def fitted(data, **options):
    return msem.sem(SMALL, data, cluster="id", nodes=11, fixed_x=False, **options)


def test_scores_of_new_rows_are_those_of_the_fit():
    data = split()
    fit, part = fitted(data), data[data["id"] == 4]
    assert_allclose(fit.factor_scores(2, newdata=part).to_numpy()[0], fit.factor_scores(2).loc[4], rtol=1e-9)
    holes = part.assign(x=np.where(np.arange(len(part)) == 0, np.nan, part["x"]))
    found = fit.random_effects(newdata=holes).to_numpy()
    assert np.isfinite(found).all()
    assert np.abs(found / fit.random_effects().loc[[4]].to_numpy() - 1).max() > 1e-3


def test_weights_count_clusters_and_units():
    """Whole weights are repetitions: of clusters, and of units within clusters."""
    data = split()
    twice = data[data["id"] < 9].assign(id=lambda d: d["id"] + 100)
    doubled = fitted(pd.concat([data, twice]))
    counted = fitted(data.assign(k=1 + (data["id"] < 9)), cluster_weights="k")
    assert_allclose(counted.theta, doubled.theta, rtol=1e-5, atol=1e-6)
    often = 1 + (np.arange(len(data)) % 3 == 0)
    repeated = fitted(data.loc[data.index.repeat(often)])
    weighted = fitted(data.assign(k=often), weights="k", weights_scale="none")
    assert_allclose(weighted.theta, repeated.theta, rtol=1e-5, atol=1e-6)
    assert weighted.options.se in ("robust", "jackknife1")


def test_replicates_are_samples_of_their_own():
    """Without a cluster it is the fit of the others."""
    data = split()
    fit = fitted(data)
    jackknife = leave_one_out(fit.estimate, fit.sample)
    found = ReplicateSource(fit.estimate, fit.sample, jackknife).refitter.run(3, 4, 1).theta[0]
    assert_allclose(found, fitted(data[data["id"] != 3]).theta, rtol=1e-4, atol=1e-5)
    kept = pickle.loads(pickle.dumps(fit.sample.statistics[0]))
    assert kept.nobs == len(data)
    assert kept.nodes == 11
    assert len(fit.bootstrap(3, seed=1, progress=False).array) == 3
    assert len(fit.bootstrap(3, kind="parametric", seed=1, progress=False).array) == 3


@pytest.mark.parametrize("holes", [False, True])
def test_samples_of_a_fit_have_its_moments(holes):
    """Averages over many clusters of one design: of means, and of products within clusters."""
    case = Case(CHAIN, 3, 30, holes)
    draws = _core.IntegratedParametricDraws(
        [
            _design(
                SimpleNamespace(objective=case.objective, theta=case.near, table=case.table),
                case.sample.groups[0],
                1,
            ).group
        ],
        1,
    )
    drawn = []
    for number in range(100):
        (one,) = draws.statistics(number)
        drawn.append(one.moments()[2])
    again = draws.statistics(3)[0]
    assert_allclose(again.moments()[2], drawn[3])
    names = list(case.statistics.unit)
    implied = case.objective.implied(case.near)
    average, spread = np.mean(drawn, axis=0), np.std(drawn, axis=0) / np.sqrt(100)
    for name in ("x1",):
        k = names.index(name)
        truth = implied[1].cov.loc[name, name] + implied[2].cov.loc[name, name] * (1 - 1 / 30)
        assert abs(average[k, k] - truth) < 5 * spread[k, k]
    # y1 = b + s (x1 - b_x) + e
    k, slope = names.index("y1"), implied[2]
    within = implied[1].cov.loc["x1", "x1"]
    mean = slope.mean["s"]
    residual = case.objective.row_values(case.near)[
        next(
            i for i, r in enumerate(case.table.rows) if (r.lhs, r.op, r.rhs, r.level) == ("y1", "~~", "y1", 1)
        )
    ]
    truth = residual + (mean**2 + slope.cov.loc["s", "s"]) * within + slope.cov.loc["y1", "y1"] * (1 - 1 / 30)
    assert abs(average[k, k] - truth) < 5 * spread[k, k] + 0.02 * truth


def weak_slopes(clusters: int, seed: int, variance: float) -> pd.DataFrame:
    """Three indicators of a factor and an outcome whose slope on it varies between clusters, little or not at all."""
    rng = np.random.default_rng(seed)
    c = np.repeat(np.arange(clusters), 8)
    f, g = rng.normal(size=len(c)), 0.7 * rng.normal(size=clusters)
    s = 0.5 + np.sqrt(variance) * rng.normal(size=clusters)
    data = {
        f"y{k}": f + g[c] + 0.3 * rng.normal(size=clusters)[c] + 0.7 * rng.normal(size=len(c))
        for k in (1, 2, 3)
    }
    x = s[c] * f + 0.5 * rng.normal(size=clusters)[c] + 0.7 * rng.normal(size=len(c))
    return pd.DataFrame(data).assign(x=x, c=c)


def test_a_slope_without_variance_is_a_path() -> None:
    """The likelihood goes on to a variance of 0, where it is that of the model without the slope."""
    data = weak_slopes(40, 4, 0.2)
    between = "level: 2\n y1 ~~ y1\n y2 ~~ y2\n y3 ~~ y3\n x ~~ x\n"
    within = "level: 1\n f =~ y1 + y2 + y3\n x ~ {}*f\n"
    none = " s ~~ s + 0*y1 + 0*y2 + 0*y3 + 0*x\n"
    random = msem.sem(within.format('rv("s")') + between + none, data, cluster="c")
    fixed = msem.sem(within.format("b") + between, data, cluster="c")
    names = {"s~1.l2": "b"}
    theta = np.array([fixed.params.get(names.get(name, name), 0.0) for name in random.params.index])
    place = list(random.params.index).index("s~~s.l2")
    assert random.llf > fixed.llf + 1
    for variance in (1e-12, 1e-20, 1e-40, 0.0):
        theta[place] = variance
        assert -0.5 * random.objective.value(theta) == pytest.approx(fixed.llf, abs=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.ImproperSolutionWarning")
@pytest.mark.parametrize(("clusters", "seed"), [(60, 2), (25, 0)])
def test_where_natural_steps_get_along_slowly_the_maximum_is_the_same(clusters: int, seed: int) -> None:
    data = weak_slopes(clusters, seed, 0.0 if clusters == 60 else 0.3)
    text = 'level: 1\n f =~ y1 + y2 + y3\n x ~ rv("s")*f\nlevel: 2\n g =~ y1 + y2 + y3\n x ~~ x\n s ~~ s\n'
    found, other = (
        msem.sem(text, data, cluster="c", starts=k) for k in (0, 1)
    )  # the second goes the long way
    assert found.status == other.status
    assert found.llf == pytest.approx(other.llf, abs=1e-6)


@pytest.mark.filterwarnings("ignore::msem.errors.MsemWarning")
@pytest.mark.parametrize(
    ("above", "seed"), [("s ~~ s", 2), ("s ~~ s", 3), ("s ~ w", 3), ("s ~ w", 4), ("s ~ w", 6)]
)
def test_a_slope_that_does_not_vary_ends_at_the_border(above: str, seed: int) -> None:
    """Where the variance is estimated as 0 the maximum is that of the model in which the slope has none."""
    rng = np.random.default_rng(seed)
    size = rng.integers(8, 14, 100)
    c = np.repeat(np.arange(100), size)
    w, f, b = rng.normal(size=100), rng.normal(size=len(c)), rng.normal(size=100)
    data = pd.DataFrame({f"y{k}": f + 0.6 * rng.normal(size=len(c)) for k in (1, 2, 3)})
    data = data.assign(x=0.5 * f + 0.7 * b[c] + rng.normal(size=len(c)), w=w[c], c=c)
    text = 'level: 1\n f =~ y1 + y2 + y3\n x ~ rv("s")*f\nlevel: 2\n x ~~ x\n ' + above
    fit = msem.sem(text, data, cluster="c")
    none = msem.sem(
        text + "\n s ~~ 0*s" if above == "s ~ w" else text.replace(above, "s ~~ 0*s"), data, cluster="c"
    )
    assert fit.status in ("ok", "boundary")
    assert fit.llf > none.llf - 1e-6
    if fit.status == "boundary":
        assert fit.params["s~~s.l2"] == 0
        assert fit.llf == pytest.approx(none.llf, abs=1e-6)
        assert np.isnan(fit.bse["s~~s.l2"])
        problem = next(problem for problem in fit.problems if problem.name == "boundary")
        assert "s~~s.l2 is 0" in problem.cause
        assert "mixture of chi-squares" in problem.remedy
        others = [name for name in fit.params.index if name != "s~~s.l2"]
        assert_allclose(fit.params[others], none.params[others], rtol=0, atol=2e-4 * none.bse[others].max())
        assert_allclose(fit.bse[others], none.bse[others], rtol=5e-3)


def test_models_with_integrated_slopes_are_compared() -> None:
    data = weak_slopes(60, 2, 0.3).assign(w=lambda d: np.random.default_rng(1).normal(size=60)[d["c"]])
    text = "level: 1\n f =~ y1 + y2 + y3\n x ~ {}f\nlevel: 2\n x ~~ x\n x ~ w\n"
    slope, path = 'rv("s")*', ""
    fits = [
        msem.sem(text.format(slope) + " s ~ w", data, cluster="c"),
        msem.sem(text.format(slope) + " s ~~ s\n s ~ 0*w", data, cluster="c"),
        msem.sem(text.format(path), data, cluster="c"),
    ]
    table = msem.compare_models(*fits)
    assert list(table["df_diff"])[1:] == [one.npar - two.npar for one, two in itertools.pairwise(fits)]
    expected = [2 * (one.llf - two.llf) for one, two in itertools.pairwise(fits)]
    assert_allclose(table["chisq_diff"].astype(float).iloc[1:], expected, rtol=1e-8)
    other = msem.sem(text.format(path), data.iloc[8:], cluster="c")
    with pytest.raises(DataError, match="fitted to different data"):
        msem.compare_models(fits[0], other)


PLAIN_PATHS = {
    "on the covariate at both levels": ("y ~ {}x + z", "y ~ w + x", "s ~~ 0*s\n y ~~ 0*s"),
    "on another covariate": ("y ~ x + {}z", "y ~ w + x", "s ~~ 0*s\n y ~~ 0*s"),
    "on a latent one": (
        "f =~ z2 + z3 + z4\n y ~ x + {}f",
        "y ~ w + x\n z2 ~~ 0*z2\n z3 ~~ 0*z3\n z4 ~~ 0*z4",
        "s ~~ 0*s\n y ~~ 0*s",
    ),
    "on a covariate that is explained between": ("y ~ {}x + z", "y ~ x\n x ~ w", "s ~~ 0*s\n y ~~ 0*s"),
}


@pytest.mark.parametrize("missing", ["listwise", "fiml"])
@pytest.mark.parametrize("case", PLAIN_PATHS)
def test_a_slope_without_variance_is_a_path_also_given_covariates_at_both_levels(
    case: str, missing: str
) -> None:
    """Their moments are the saturated ones of the sample, which correlate with those of other covariates."""
    rng = np.random.default_rng(7)
    g = np.repeat(np.arange(90), rng.integers(2, 9, 90))
    w, units = rng.normal(size=90), rng.normal(size=len(g))
    x = (0.5 * w + rng.normal(0, 0.4, 90))[g] + units
    z = 0.9 * units + rng.normal(0, 0.5, len(g))
    y = 0.3 * w[g] + 0.8 * x + 0.3 * z + rng.normal(0, 0.5, 90)[g] + rng.normal(size=len(g))
    data = pd.DataFrame({"g": g, "w": w[g], "x": x, "z": z, "y": y})
    data = data.assign(**{f"z{k}": z + rng.normal(size=len(g)) for k in (2, 3, 4)})
    if missing == "fiml":
        data.loc[rng.random(len(g)) < 0.1, "y"] = np.nan
    within, between, none = PLAIN_PATHS[case]
    plain, same = (
        msem.sem(f"level: 1\n {within.format(slope)}\nlevel: 2\n {above}", data, cluster="g", missing=missing)
        for slope, above in (("", between), ('rv("s")*', f"{between}\n {none}"))
    )
    assert same.llf == pytest.approx(plain.llf, abs=1e-6)
    shared = [name for name in same.params.index if name in plain.params.index]
    assert {"y~w.l2", "y~x.l2"} & set(shared) or case.endswith("between")
    assert_allclose(same.params[shared], plain.params[shared], rtol=1e-4, atol=1e-5)
    assert_allclose(same.bse[shared], plain.bse[shared], rtol=1e-3)
    fixed = [row for row in plain.table.rows if row.exo]
    known = plain.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    found = same.estimates().set_index(["lhs", "op", "rhs", "level"])["est"]
    for row in fixed:
        key = (row.lhs, row.op, row.rhs, row.level)
        assert found[key] == pytest.approx(known[key], abs=1e-7)
