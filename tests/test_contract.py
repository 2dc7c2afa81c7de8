"""What every likelihood offers. Each is registered here once, and the same checks run over all of them.

The oracles write out the dense density of whole clusters, or the discrepancy in NumPy: another way to the truth.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose

import missing
import models
import oracle
import oracle_missing
import ordered_cases
import slope_cases
import three_levels
from msem import _core
from msem.data.arrays import vech
from msem.estimation.objective import Objective, build_objective


class Subject(NamedTuple):
    """A likelihood in the objective of a model, with what is known of it from elsewhere."""

    objective: Objective
    theta: Any  # where neither gradient nor residuals vanish
    contributions: Callable[[Any], Any]  # theta -> terms that add up to the value, (J,)
    expected: Any  # information at theta
    clusters: Any = None  # its independent units, if it has any


def complete(shape: str) -> Subject:
    case, s = models.shape_case(shape), models.shape_case(shape).statistics
    expected = oracle.expected_information(case.moments, case.near, s.sizes, s.counts)
    return Subject(case.objective, case.near, lambda t: -2 * case.logliks(t), expected, case.clusters)


def with_holes(shape: str, holes: str) -> Subject:
    case = missing.Case(models.shape_case(shape), holes)
    expected = oracle_missing.expected_information(case.base.moments, case.near, *case.sample)
    return Subject(case.objective, case.near, lambda t: -2 * case.logliks(t), expected, case.clusters)


def least_squares() -> Subject:
    case, rng = models.shape_case("single level", 2), np.random.default_rng(3)
    n = len(case.cluster)
    cov, weights = np.cov(case.sample[1].T), rng.uniform(0.5, 2, (n, n))
    weights = weights + weights.T
    mean, mean_weights = rng.normal(size=n), rng.uniform(0.5, 2, n)
    objective = build_objective(
        case.table, case.statistics, _core.LeastSquares(mean, cov, mean_weights, weights)
    )
    col, row = np.triu_indices(n)

    def contributions(theta):
        m = case.moments(theta)
        off = np.append(mean - m.mu_b, (cov - m.sigma_b)[row, col])
        return np.append(mean_weights, weights[row, col]) * off**2

    jacobian = objective.core.jacobian(case.near, 0)
    expected = jacobian.T @ (np.append(mean_weights, vech(weights))[:, None] * jacobian)
    return Subject(objective, case.near, contributions, expected)


def scaled_least_squares(weight: str) -> Subject:
    """Statistics given covariates, of two ordered variables and a continuous one at two levels."""
    rows = [
        (*row[:5], "=") if row[0] in ("x1", "w1") and row[1] != "~" else row for row in models.factor_rows()
    ]
    case = models.two_level(rows, [4] * 9)
    rng = np.random.default_rng(4)
    # y1, y2, y3, x1, w1: covariances of both levels, slopes, means, and a mean that stands for a threshold
    pairs = [(0, 0, 1), (0, 0, 2), (0, 1, 2), (0, 2, 2)] + [(1, i, j) for i in range(3) for j in range(i + 1)]
    statistics = [(0, level, i, j) for level, i, j in pairs]
    statistics += [(3, level, i, x) for level, x in ((0, 3), (1, 4)) for i in range(3)]
    statistics += [(1, 0, 2, 0), (1, 0, 0, 0), (2, 0, 2, 1)]
    m = len(statistics)
    values = rng.normal(size=m)
    root = rng.normal(size=(m, m)) + 3 * np.eye(m)
    w = root.T @ root if weight == "full" else np.diag(rng.uniform(0.5, 2, m))
    loss = _core.LeastSquares(
        [[0, 1, 2, 3], [0, 1, 2, 4]],
        5,
        statistics,
        values,
        w if weight == "full" else w.diagonal()[:, None].copy(),
        [3, 4],
        [0, 1],
    )

    def fitted(theta):
        moments = case.moments(theta)
        levels = []
        for mu, sigma in ((moments.mu_w, moments.sigma_w), (moments.mu_b, moments.sigma_b)):
            slope = sigma[:3, 3] / sigma[3, 3]
            levels.append((sigma[:3, :3] - np.outer(slope, sigma[:3, 3]), slope, mu[:3] - slope * mu[3]))
        scale = np.append(levels[0][0].diagonal()[:2] ** -0.5, 1.0)
        mean = levels[0][2] + levels[1][2]
        out = [scale[i] * scale[j] * levels[level][0][i, j] for level, i, j in pairs]
        out += [scale[i] * levels[level][1][i] for level in (0, 1) for i in range(3)]
        return np.array([*out, mean[2], scale[0] * mean[0], scale[1] * (mean[2] - mean[1])])

    def contributions(theta):
        e = values - fitted(theta)
        return e * (w @ e)

    jacobian = oracle.complex_step(fitted, case.near)
    objective = build_objective(case.table, case.statistics, loss)
    return Subject(objective, case.near, contributions, jacobian.T @ w @ jacobian)


def random_slopes(model: str, holes: bool = False) -> Subject:
    case = slope_cases.Case(model, holes=holes)
    return Subject(case.objective, case.near, lambda t: -2 * case.logliks(t), case.expected, case.clusters)


@functools.cache
def three(model: str, holes: bool = False, weights: bool = False) -> Subject:
    case = three_levels.Case(model, holes=holes, weights=weights)
    return Subject(case.objective, case.near, lambda t: -2 * case.logliks(t), case.expected(), case.clusters)


def integral(model: str) -> Subject:
    """A likelihood of ordered variables, whose values and information are held to dense rules in `test_integrals`."""
    case = ordered_cases.case(model)
    return Subject(case.objective, case.near, lambda t: -2 * case.truth(t), None, case.clusters)


# integrals: what holds to the last digits whatever the rule
INTEGRALS: dict[str, Callable[[], Subject]] = {
    f"ordered, {name}": functools.partial(integral, name)
    for name in ("covariates", "factors, logit, holes", "beside continuous", "one level")
}
LIKELIHOODS: dict[str, Callable[[], Subject]] = {
    "complete, two levels": lambda: complete("all kinds"),
    "complete, nothing at both levels": lambda: complete("nothing at both levels"),
    "complete, one level": lambda: complete("single level"),
    "holes, two levels": lambda: with_holes("all kinds", "many"),
    "holes, whole clusters": lambda: with_holes("within-only", "whole units and clusters"),
    "holes, one level": lambda: with_holes("single level", "few"),
    "least squares": least_squares,
    "least squares, all statistics": lambda: scaled_least_squares("full"),
    "least squares, diagonal weights": lambda: scaled_least_squares("diagonal"),
    "random slopes": lambda: random_slopes("all kinds"),
    "random slopes, outcomes as covariates": lambda: random_slopes("outcomes as covariates"),
    "random slopes, equal designs": lambda: random_slopes("equal designs"),
    "random slopes, holes": lambda: random_slopes("all kinds", holes=True),
    "random slopes, outcomes as covariates and holes": lambda: random_slopes(
        "outcomes as covariates", holes=True
    ),
    "three levels": lambda: three("all kinds"),
    "three levels, equal shapes": lambda: three("equal shapes"),
    "three levels, nothing in common": lambda: three("nothing in common"),
    "three levels, slopes": lambda: three("slopes"),
    "three levels, slopes and holes": lambda: three("slopes", holes=True),
    "three levels, holes": lambda: three("all kinds", holes=True),
    "three levels, holes, nothing in common": lambda: three("nothing in common", holes=True),
    "three levels, weights": lambda: three("all kinds", weights=True),
    "three levels, weights, slopes and holes": lambda: three("slopes", holes=True, weights=True),
}


@functools.cache
def made(name: str) -> Subject:
    """One for all fixtures."""
    return (LIKELIHOODS | INTEGRALS)[name]()


@pytest.fixture(params=LIKELIHOODS, scope="module")
def subject(request):
    return made(request.param)


@pytest.fixture(params=[name for name in LIKELIHOODS if "least squares" not in name], scope="module")
def counted_clusters(request):
    return made(request.param)


@pytest.fixture(
    params=[
        *(name for name in LIKELIHOODS if "least squares" not in name and "weights" not in name),
        *INTEGRALS,
    ],
    scope="module",
)
def with_clusters(request):
    return made(request.param)


def close(found, expected, rtol=1e-10):
    assert_allclose(found, expected, rtol=0, atol=rtol * np.abs(expected).max())


def test_value_is_that_of_the_oracle(subject):
    assert_allclose(
        subject.objective.value(subject.theta), subject.contributions(subject.theta).sum(), rtol=1e-11
    )


def test_gradient_is_the_derivative_of_the_value(subject):
    found = subject.objective.gradient(subject.theta)
    close(found, oracle.complex_step(lambda t: subject.contributions(t).sum(), subject.theta), 1e-9)


def test_expected_information_and_its_factor_are_those_of_the_oracle(subject):
    found = subject.objective.expected_information(subject.theta)
    close(found, subject.expected)
    close(found, found.T, 1e-14)
    factor = subject.objective.core.information_factor(subject.theta)
    close(factor.T @ factor, subject.expected)


def test_observed_information_is_the_derivative_of_the_gradient(subject):
    found = subject.objective.observed_information(subject.theta)
    close(found, oracle.differences(subject.objective.gradient, subject.theta) / 2, 1e-7)
    close(found, found.T, 1e-13)


def test_observed_information_in_a_basis_is_that_of_the_parameters(subject):
    basis = np.random.default_rng(1).normal(size=(len(subject.theta), 3))
    basis[subject.objective.core.intercepts()] = 0
    found = subject.objective.core.observed_information_in(subject.theta, basis)
    close(found, basis.T @ subject.objective.observed_information(subject.theta) @ basis, 1e-11)


def test_contributions_are_those_of_the_oracle_and_add_up(counted_clusters):
    objective, theta, contributions, _, clusters = counted_clusters
    logliks, scores = objective.cluster_loglik(theta, clusters), objective.scores(theta, clusters)
    assert_allclose(-2 * logliks, contributions(theta), rtol=1e-9)
    close(-2 * logliks.sum(), objective.value(theta))
    close(-2 * scores, oracle.complex_step(contributions, theta), 1e-9)
    close(-2 * scores.sum(axis=0), objective.gradient(theta), 1e-9)


def reweighted(subject, weights):
    core = subject.objective.core
    likelihood = subject.clusters.of(core.likelihoods[0]).weighted(weights)
    made = build_objective(subject.objective.table, subject.objective.statistics, likelihood)
    return replace(made, covariate_llf=subject.objective.covariate_llf)


def test_weights_of_one_change_nothing(with_clusters):
    objective, theta, clusters = with_clusters.objective, with_clusters.theta, with_clusters.clusters
    same = reweighted(with_clusters, np.ones(len(clusters.sizes)))
    for name in ("value", "gradient", "expected_information", "observed_information"):
        close(getattr(same, name)(theta), getattr(objective, name)(theta))


def test_weights_count_the_contributions(with_clusters):
    objective, theta, clusters = with_clusters.objective, with_clusters.theta, with_clusters.clusters
    weights = np.random.default_rng(5).integers(0, 4, len(clusters.sizes)).astype(float)
    weighted = reweighted(with_clusters, weights)
    close(weighted.value(theta), -2 * weights @ objective.cluster_loglik(theta, clusters))
    close(weighted.gradient(theta), -2 * weights @ objective.scores(theta, clusters), 1e-9)


@pytest.mark.parametrize("name", INTEGRALS)
def test_integrals_are_sums_over_their_clusters(name):
    objective, theta, _, _, clusters = made(name)
    logliks, scores = objective.cluster_loglik(theta, clusters), objective.scores(theta, clusters)
    close(-2 * logliks.sum(), objective.value(theta))
    close(-2 * scores.sum(axis=0), objective.gradient(theta), 1e-9)
    factor = objective.core.information_factor(theta)
    close(factor.T @ factor, objective.expected_information(theta), 1e-9)


@pytest.mark.parametrize("name", [*LIKELIHOODS, *INTEGRALS])
def test_outside_the_domain_there_is_nothing(name):
    subject = made(name)
    core, theta = subject.objective.core, subject.theta.copy()
    theta[0] = np.nan
    points = [theta]
    if subject.clusters is not None:
        variances = [r.free - 1 for r in subject.objective.table.rows if r.op == "~~" and r.lhs == r.rhs]
        points.append(subject.theta.copy())
        points[-1][[k for k in variances if k >= 0]] = -10.0
    for point in points:
        value, gradient = core.evaluate(point)
        assert core.value(point) == value == np.inf
        assert np.isnan(gradient).all()
        for name in ("expected_information", "observed_information", "moment_information"):
            assert getattr(core, name)(point).size == 0
        assert core.information_factor(point).size == 0
        if subject.clusters is not None:
            assert subject.clusters.scores(core, point).size == 0
            assert subject.clusters.loglik(core, point).size == 0


def test_what_has_no_independent_units_says_so():
    with pytest.raises(ValueError, match="cluster contributions"):
        least_squares().objective.core.likelihoods[0].clusters()
