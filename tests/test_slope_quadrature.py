"""Random slopes of covariates at both levels: integrals by adaptive quadrature."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import msem
import oracle
import oracle_slopes
import reference
import slope_cases
from msem.data.quadrature import integrated
from msem.data.reading import group_rows, read_sample
from msem.errors import ModelError, UnsupportedError
from msem.estimation.estimate import starts
from msem.estimation.matrices import fill_exogenous
from msem.estimation.objective import build_objective
from msem.estimation.problems import quadrature_problems
from msem.language.syntax import parse
from msem.model.partable import parameter_table
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


class Case:
    def __init__(self, text, nodes=0, nclusters=12):
        self.data = slope_cases.sample(2, nclusters)
        settings = Settings.read({"cluster": "id"})
        table = parameter_table(parse(text))
        sample = read_sample(self.data, table, settings, group_rows(self.data, None))
        self.table = fill_exogenous(table, sample.levels)
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


def test_value_is_that_of_the_trapezoid_rule_over_dense_densities():
    case = simple()
    truth = oracle_slopes.integrated(case.table.rows, case.near, case.data, *case.roles)
    assert_allclose(case.objective.cluster_loglik(case.near, case.clusters), truth, rtol=1e-8)
    assert case.objective.value(case.near) == pytest.approx(-2 * truth.sum(), rel=1e-9)


@pytest.mark.parametrize("make", [simple, chain])
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
    other = integrated(
        case.statistics,
        case.sample.groups[0].rows,
        [slope.covariate for slope in case.statistics.slopes],
        nodes=5,
    )
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
    (problem,) = quadrature_problems(build_objective(fit.table, s.with_nodes(2)), fit.theta)
    assert "with 5 nodes in place of 2" in problem.cause
    assert problem.remedy.endswith("nodes=5")
    for name in ("predict", "factor_scores", "bootstrap"):
        with pytest.raises(UnsupportedError, match="both levels"):
            getattr(fit, name)()
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
    for ask in (fit.predict, fit.factor_scores, lambda: fit.bootstrap(2), lambda: msem.simulate(fit)):
        with pytest.raises(UnsupportedError, match="latent"):
            ask()


def test_what_cannot_be_integrated_is_refused():
    data = slope_cases.sample(3, 60)
    with pytest.raises(
        UnsupportedError,
        match="missing values with random slopes of covariates that are latent or at both levels",
    ):
        msem.sem(MODEL, slope_cases.with_holes(data), cluster="id", missing="fiml")
    with pytest.raises(UnsupportedError, match="expected information is no closed form"):
        msem.sem(MODEL, data, cluster="id", information="expected")
    several = 'level: 1\n y1 ~ rv("a")*x1 + rv("b")*x2\n y2 ~ rv("c")*x1 + rv("d")*x2\nlevel: 2\n x1 ~~ x1\n'
    with pytest.raises(UnsupportedError, match="4 slopes are too many"):
        parameter_table(parse(several))
    wrong = 'level: 1\n y2 ~ rv("t")*y1\n y1 ~ rv("s")*x1\nlevel: 2\n y1 ~~ y1\n'
    with pytest.raises(ModelError, match=r"'s' changes the covariate of 't'.*write it first"):
        parameter_table(parse(wrong))


def test_samples_of_such_models_are_refused_by_name():
    text = """
    level: 1
      y ~ rv("s")*x
      y ~~ 1*y
      x ~~ 1*x
    level: 2
      y ~ 0.3*x
      y ~~ 1*y
      x ~~ 1*x
      s ~~ 1*s
    """
    with pytest.raises(UnsupportedError, match="'x' has the random slope 's' and stands at both levels"):
        msem.simulate(text, nclusters=20, cluster_sizes=5, seed=1)
