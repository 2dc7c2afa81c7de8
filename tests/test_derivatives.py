"""Gradients, scores and information matrices against complex steps through the density of whole clusters."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

import models
import oracle
from msem import _core
from msem.data.arrays import vech
from msem.estimation.objective import build_objective

CASES = [(shape, seed) for shape in models.SHAPES for seed in range(1, 5)]


def close(found, expected, rtol=1e-10):
    """Equal relative to the largest element: single elements may cancel to nothing."""
    assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.fixture(params=CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def case(request):
    return models.shape_case(*request.param)


@pytest.fixture(params=models.SHAPES)
def one(request):
    return models.shape_case(request.param, seed=7)


def test_gradient(case):
    found = case.objective.gradient(case.near)
    close(found, -2 * oracle.complex_step(case.loglik, case.near))


def test_observed_information_is_the_derivative_of_the_gradient(case):
    found = case.objective.observed_information(case.near)
    close(found, oracle.differences(case.objective.gradient, case.near) / 2, 1e-9)
    close(found, found.T, 1e-14)


def test_observed_information():
    case = models.random_case(4, 2, 1, 1, [1, 2, 2, 4])
    close(case.objective.observed_information(case.near), -oracle.hessian(case.loglik, case.near), 1e-9)


def test_expected_information(case):
    found = case.objective.expected_information(case.near)
    s = case.statistics
    close(found, oracle.expected_information(case.moments, case.near, s.sizes, s.counts))


def test_expected_information_with_as_many_sizes_as_clusters():
    case = models.random_case(5, 3, 1, 1, [*range(1, 21)])
    s = case.statistics
    expected = oracle.expected_information(case.moments, case.near, s.sizes, s.counts)
    close(case.objective.expected_information(case.near), expected)


def test_factor_of_the_expected_information(case):
    factor = case.objective.core.information_factor(case.near)
    close(factor.T @ factor, case.objective.expected_information(case.near), 1e-13)


def expected_objective(case):
    """Objective of data that are as `near` makes them on average."""
    s, m = case.statistics, case.moments(case.near)
    e = oracle.expected_statistics(m, s.sizes, s.counts)
    loss = _core.CompleteLikelihood(m.nboth, e.ssw, e.sizes, e.counts, e.means, e.scatter)
    return build_objective(case.table, s, loss)


def test_observed_is_expected_at_expected_statistics(one):
    """The data on average: second derivatives have their expectation and the gradient vanishes."""
    objective = expected_objective(one)
    information = objective.expected_information(one.near)
    close(objective.observed_information(one.near), information, 1e-12)
    scaled = objective.gradient(one.near) / np.sqrt(np.diag(information).clip(1e-30))
    assert_allclose(scaled, 0, atol=1e-9)


def test_observed_information_in_a_basis_is_exact_where_the_gradient_is_zero(one):
    objective, npar = expected_objective(one), len(one.near)
    basis = np.random.default_rng(1).normal(size=(npar, npar + 2))
    found = objective.core.observed_information_in(one.near, basis)
    close(found, basis.T @ objective.observed_information(one.near) @ basis, 1e-11)
    close(objective.core.observed_information_in(one.near, basis[:, :1]), found[:1, :1], 1e-12)


def test_observed_information_in_a_basis_without_intercepts_is_exact_everywhere(one):
    basis = np.random.default_rng(1).normal(size=(len(one.near), 3))
    basis[[r.free - 1 for r in one.table.rows if r.op == "~1"]] = 0
    found = one.objective.core.observed_information_in(one.near, basis)
    close(found, basis.T @ one.objective.observed_information(one.near) @ basis, 1e-12)


def test_observed_information_in_a_basis_lets_intercepts_keep_the_means_straight():
    """Along a direction in which the means stand still, it is that of the other parameters at fixed means."""
    case = models.two_level(models.factor_rows(0.5), [1, 2, 3])
    free = [r.op == "~1" for r in case.table.rows if r.free]
    intercepts, others = np.flatnonzero(free), np.flatnonzero(~np.array(free))

    def means(theta):
        m = case.moments(theta)
        return np.concatenate([m.mu_w[:3] + m.mu_b[:3], m.mu_w[3:], m.mu_b[3:]])

    def settled(values):
        theta = case.near.astype(values.dtype)
        theta[others] = values
        columns = [means(theta + unit) - means(theta) for unit in np.eye(len(theta))[intercepts]]
        theta[intercepts] += np.linalg.solve(np.array(columns).T, means(case.near) - means(theta))
        return theta

    basis = oracle.complex_step(settled, case.near[others])
    found = case.objective.core.observed_information_in(case.near, basis)
    close(found, -oracle.hessian(lambda v: case.loglik(settled(v)), case.near[others]), 1e-8)
    assert not np.allclose(found, basis.T @ case.objective.observed_information(case.near) @ basis, rtol=1e-3)


def test_scores(one):
    c = one.clusters
    found = c.scores(one.objective.core, one.near)
    close(found, oracle.cluster_scores(one.moments, one.near, *one.sample))
    close(-2 * found.sum(axis=0), one.objective.gradient(one.near), 1e-12)


def test_scores_of_more_clusters_than_a_block():
    """Clusters are handled in blocks of 256."""
    case = models.random_case(2, 2, 1, 1, [2, 3] * 300)
    c = case.clusters
    found = c.scores(case.objective.core, case.near)
    close(-2 * found.sum(axis=0), case.objective.gradient(case.near))
    last = slice(500, 600)
    part = replace(c, sizes=c.sizes[last], means=c.means[last], within=c.within[last]).scores(
        case.objective.core, case.near
    )
    assert_allclose(part, found[last], rtol=1e-13)


def test_jacobian(one):
    m = one.moments
    levels = [("mu_w", "sigma_w"), ("mu_b", "sigma_b")] if one.unit else [("mu_b", "sigma_b")]
    for block, (mean, cov) in enumerate(levels):

        def packed(theta, mean=mean, cov=cov):
            at = m(theta)._asdict()
            lower = np.tril_indices(len(at[mean]))
            return np.concatenate([at[mean], at[cov].T[lower[1], lower[0]][np.lexsort(lower)]])

        close(one.objective.core.jacobian(one.near, block), oracle.complex_step(packed, one.near))


def test_derivatives_where_the_between_matrix_is_indefinite():
    """An improper between solution is still a point of the likelihood."""
    rows = [(y, "~~", y, 1, 1.0, "") for y in ("y1", "y2", "y3")] + [("y1", "~~", "y2", 1, 0.3, "")]
    rows += [
        ("y1", "~~", "y1", 2, -0.08, ""),
        ("y2", "~~", "y2", 2, 0.5, ""),
        ("y3", "~~", "y3", 2, 0.02, ""),
    ]
    rows += [("y1", "~~", "y2", 2, 0.1, ""), ("y3", "~", "w1", 2, 0.2, ""), ("w1", "~~", "w1", 2, 0.9, "")]
    case = models.two_level([*rows, ("y2", "~~", "y3", 2, -0.1, "")], [2, 3, 3, 6, 6, 1])
    proper = models.two_level([(*r[:4], abs(r[4]), r[5]) for r in rows], case.sizes)
    object.__setattr__(case, "sample", proper.sample)
    assert np.linalg.eigvalsh(case.moments(case.theta).sigma_b)[0] < -0.05
    s = case.statistics
    close(case.objective.gradient(case.theta), -2 * oracle.complex_step(case.loglik, case.theta))
    expected = oracle.expected_information(case.moments, case.theta, s.sizes, s.counts)
    close(case.objective.expected_information(case.theta), expected)
    factor = case.objective.core.information_factor(case.theta)
    close(factor.T @ factor, expected)
    close(case.objective.observed_information(case.theta), -oracle.hessian(case.loglik, case.theta), 1e-8)


def test_groups_share_parameters():
    """Two groups in one objective: values, gradients and information add up."""
    a, b = models.shape_case("both levels", 3), models.shape_case("both levels", 3)
    object.__setattr__(b, "seed", 11)
    object.__setattr__(b, "sizes", [4] * 9)
    table, theta = a.table, a.near
    parts = [build_objective(table, c.statistics) for c in (a, b)]
    compiled = parts[0].compiled
    losses = [c.statistics.likelihood() for c in (a, b)]
    both = _core.Objective(table.npar, compiled, [(loss, [0, 1]) for loss in losses])
    assert both.value(theta) == pytest.approx(sum(p.core.value(theta) for p in parts), rel=1e-14)
    for name in ("observed_information", "expected_information"):
        close(getattr(both, name)(theta), sum(getattr(p.core, name)(theta) for p in parts), 1e-13)
    close(both.evaluate(theta)[1], sum(p.gradient(theta) for p in parts), 1e-13)
    factor = both.information_factor(theta)
    close(factor.T @ factor, both.expected_information(theta), 1e-13)
    c = b.clusters
    scores = c.scores(both, theta, 1)
    close(scores, c.scores(parts[1].core, theta), 1e-13)


@pytest.fixture
def least_squares():
    """Discrepancy sum of w (s - sigma)^2 over the unique moments of one level, and the same in NumPy."""
    case = models.shape_case("single level", 2)
    rng = np.random.default_rng(3)
    n = len(case.cluster)
    cov = np.cov(case.sample[1].T)
    weights = rng.uniform(0.5, 2, (n, n))
    weights = weights + weights.T
    mean, mean_weights = rng.normal(size=n), rng.uniform(0.5, 2, n)
    loss = _core.LeastSquares(mean, cov, mean_weights, weights)

    def value(theta):
        m = case.moments(theta)
        return mean_weights @ (mean - m.mu_b) ** 2 + vech(weights) @ vech_complex(cov - m.sigma_b) ** 2

    return (
        case,
        build_objective(case.table, case.statistics, loss),
        value,
        np.append(mean_weights, vech(weights)),
    )


def vech_complex(matrix):
    col, row = np.triu_indices(len(matrix))
    return matrix[row, col]


def test_least_squares_value_and_derivatives(least_squares):
    case, objective, value, weights = least_squares
    theta = case.near
    assert objective.core.value(theta) == pytest.approx(value(theta), rel=1e-13)
    close(objective.gradient(theta), oracle.complex_step(value, theta))
    jacobian = objective.core.jacobian(theta, 0)
    close(objective.expected_information(theta), jacobian.T @ (weights[:, None] * jacobian), 1e-13)
    factor = objective.core.information_factor(theta)
    close(factor.T @ factor, objective.expected_information(theta), 1e-13)
    close(objective.observed_information(theta), oracle.hessian(value, theta) / 2, 1e-9)


def test_least_squares_has_no_clusters(least_squares):
    case, objective, _, _ = least_squares
    c = case.clusters
    with pytest.raises(ValueError, match="two-level likelihood"):
        c.scores(objective.core, case.theta)
    with pytest.raises(ValueError, match="same size"):
        _core.LeastSquares(np.zeros(3), np.eye(4), np.ones(4), np.eye(4))
    other = _core.LeastSquares(np.zeros(3), np.eye(3), np.ones(3), np.eye(3))
    with pytest.raises(ValueError, match="variables of the statistics"):
        build_objective(case.table, case.statistics, other).value(case.theta)
