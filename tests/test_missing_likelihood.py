"""With holes the likelihood, and all derived from it, is that of the normal density of what is observed in clusters."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import missing
import models
import oracle
import oracle_missing
from msem import _core
from msem.data.saturated import solve_saturated
from msem.estimation.objective import build_objective

EXACT = {"rtol": 1e-10}
SHAPES = [shape for shape in models.SHAPES if shape != "one variable"]


@pytest.fixture(params=[(shape, holes) for shape in SHAPES for holes in missing.HOLES], ids="-".join)
def case(request):
    shape, holes = request.param
    return missing.Case(models.shape_case(shape), holes)


def test_value_is_the_density_of_what_is_observed(case):
    assert_allclose(case.objective.value(case.near), -2 * case.logliks(case.near).sum(), **EXACT)


def test_each_cluster_has_its_own_density_and_score(case):
    m, objective = case.base.moments, case.objective
    assert_allclose(objective.cluster_loglik(case.near, case.clusters), case.logliks(case.near), **EXACT)
    scores = objective.scores(case.near, case.clusters)
    expected = oracle_missing.cluster_scores(m, case.near, *case.sample)
    assert_allclose(scores, expected, atol=1e-10 * np.abs(expected).max())
    assert_allclose(
        -2 * scores.sum(axis=0), objective.gradient(case.near), atol=1e-9 * np.abs(expected).max()
    )


def test_gradient_is_that_of_the_density(case):
    expected = -2 * oracle_missing.cluster_scores(case.base.moments, case.near, *case.sample).sum(axis=0)
    assert_allclose(case.objective.gradient(case.near), expected, atol=1e-10 * np.abs(expected).max())


def test_expected_information_is_that_of_the_density(case):
    expected = oracle_missing.expected_information(case.base.moments, case.near, *case.sample)
    found = case.objective.expected_information(case.near)
    assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
    factor = case.objective.core.information_factor(case.near)
    assert_allclose(factor.T @ factor, expected, atol=1e-10 * np.abs(expected).max())


def test_observed_information_is_the_derivative_of_the_gradient(case):
    expected = oracle.differences(case.objective.gradient, case.near) / 2
    found = case.objective.observed_information(case.near)
    assert_allclose(found, expected, atol=1e-7 * np.abs(expected).max())


def test_without_holes_all_is_as_for_complete_data():
    for shape in SHAPES:
        case = missing.Case(models.shape_case(shape), "none")
        whole = case.base.objective
        for name in ("value", "gradient", "expected_information", "observed_information"):
            ours, theirs = (getattr(one, name)(case.near) for one in (case.objective, whole))
            assert_allclose(ours, theirs, atol=1e-10 * np.abs(theirs).max(), err_msg=f"{shape}: {name}")


@pytest.mark.parametrize("shape", ["both levels, many sizes", "all kinds", "single level"])
@pytest.mark.parametrize("holes", ["few", "whole units and clusters"])
def test_em_and_scoring_agree_with_the_dense_em(shape, holes):
    case = missing.Case(enlarged(shape), holes)
    scoring, em = (solve_saturated(case.statistics, method=method) for method in ("scoring", "em"))
    assert scoring.converged
    assert em.converged
    dense = oracle_missing.em(*case.sample, case.statistics.nboth)
    assert_allclose(scoring.llf, oracle_missing.cluster_logliks(dense, *case.sample).sum(), rtol=1e-10)
    for one in (scoring, em):
        assert_allclose(one.llf, scoring.llf, rtol=1e-10)
        assert_allclose(one.between.cov, dense.sigma_b, atol=1e-5)
        assert_allclose(one.between.mean, dense.mu_b, atol=1e-5)
        assert_allclose(one.within.cov, dense.sigma_w, atol=1e-5)
        assert_allclose(one.within.mean, dense.mu_w, atol=1e-5)


def enlarged(shape):
    """The shape with clusters enough for a positive definite between matrix."""
    both, within, between, sizes = models.SHAPES[shape]
    return models.random_case(3, both, within, between, list(sizes) * 6)


def test_order_of_rows_and_clusters_does_not_matter():
    case = missing.Case(models.shape_case("all kinds"), "many")
    y, z, codes = case.sample
    rng = np.random.default_rng(4)
    rows, names = rng.permutation(len(y)), rng.permutation(len(z))
    z2 = np.empty_like(z)
    z2[names] = z
    other = missing.incomplete((y[rows], z2, names[codes][rows]), case.base.unit, case.base.cluster, 3)
    objective = build_objective(case.base.table, other)
    assert_allclose(objective.value(case.near), case.objective.value(case.near), rtol=1e-13)
    scale = np.abs(case.objective.gradient(case.near)).max()
    assert_allclose(objective.gradient(case.near), case.objective.gradient(case.near), atol=1e-12 * scale)
    ours, theirs = (one.observed_information(case.near) for one in (objective, case.objective))
    assert_allclose(ours, theirs, atol=1e-11 * np.abs(theirs).max())


def test_huge_means_cost_no_digits():
    case = missing.Case(models.shape_case("all kinds"), "many")
    y, z, codes = case.sample
    far = missing.incomplete((y + 2.0**27, z + 2.0**27, codes), case.base.unit, case.base.cluster, 3)
    m = case.base.moments(case.near)
    within, between = m.mu_w + np.where(np.arange(len(m.mu_w)) < 3, 0, 2.0**27), m.mu_b + 2.0**27
    near = case.statistics.likelihood(), m.mu_w, m.mu_b
    values = [
        fixed_objective(loss, mu_w, m.sigma_w, mu_b, m.sigma_b).value(np.empty(0))
        for loss, mu_w, mu_b in (near, (far.likelihood(), within, between))
    ]
    assert_allclose(values[1], values[0], rtol=1e-9)


def fixed_objective(loss, mu_w, sigma_w, mu_b, sigma_b):
    """Objective without parameters at given moments."""

    def block(mean, cov):
        n = len(mean)
        row, col = np.tril_indices(n)
        values = [*cov[row, col], *mean]
        return _core.Block(
            n,
            n,
            [1] * len(row) + [2] * n,
            [*row, *range(n)],
            [*col, *[0] * n],
            [-1] * len(values),
            values,
        )

    return _core.Objective(0, [block(mu_w, sigma_w), block(mu_b, sigma_b)], [(loss, [0, 1])])


def test_an_indefinite_between_matrix_is_in_the_domain_and_a_negative_within_variance_is_not():
    case = missing.Case(models.shape_case("both levels"), "few")
    m = case.base.moments(case.near)
    lowered = m.sigma_b.copy()
    lowered[0, 0] -= 1.02 / np.linalg.inv(m.sigma_b)[0, 0]
    assert np.linalg.eigvalsh(lowered)[0] < 0
    loss = case.statistics.likelihood()
    value = fixed_objective(loss, m.mu_w, m.sigma_w, m.mu_b, lowered).value(np.empty(0))
    dense = oracle_missing.cluster_logliks(m._replace(sigma_b=lowered), *case.sample).sum()
    assert_allclose(value, -2 * dense, rtol=1e-10)
    broken = m.sigma_w - 2 * np.eye(len(m.sigma_w)) * np.diag(m.sigma_w).max()
    assert np.isinf(fixed_objective(loss, m.mu_w, broken, m.mu_b, m.sigma_b).value(np.empty(0)))


def test_weights_of_clusters_repeat_them():
    case = missing.Case(models.shape_case("all kinds"), "many")
    y, z, codes = case.sample
    weights = np.random.default_rng(2).integers(0, 4, len(z)).astype(float)
    weighted = case.statistics.data.weighted(case.clusters.within, weights)
    rows = [np.flatnonzero(codes == j) for j in np.repeat(np.arange(len(z)), weights.astype(int))]
    again = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    z_again = z[np.repeat(np.arange(len(z)), weights.astype(int))]
    direct = missing.incomplete((y[again[0]], z_again, again[1]), case.base.unit, case.base.cluster, 3)
    m = case.base.moments(case.near)
    values = [
        fixed_objective(_core.IncompleteLikelihood(data), m.mu_w, m.sigma_w, m.mu_b, m.sigma_b).value(
            np.empty(0)
        )
        for data in (weighted, direct.data)
    ]
    assert_allclose(values[0], values[1], rtol=1e-12)
