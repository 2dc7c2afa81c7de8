"""The likelihood is the normal density of whole clusters, inside its domain and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import models
import oracle
from msem import _core
from msem.data.arrays import vech
from msem.data.saturated import saturated_objective

EXACT = {"rtol": 1e-10}


@pytest.fixture(params=models.SHAPES)
def case(request):
    return models.shape_case(request.param)


def saturated_vector(m):
    """Moments in the order of `moment_names`; means of both levels enter as their sum."""
    n = m.nboth
    means = [m.mu_b[:n] + m.mu_w[:n], m.mu_w[n:], m.mu_b[n:]]
    return np.concatenate([vech(m.sigma_w), vech(m.sigma_b), *means])


def test_value_is_the_density_of_whole_clusters(case):
    assert_allclose(case.objective.value(case.near), -2 * case.loglik(case.near), **EXACT)
    assert_allclose(case.objective.llf(case.theta), case.loglik(case.theta), **EXACT)


def test_evaluate_repeats_value(case):
    assert case.objective.core.evaluate(case.near)[0] == case.objective.core.value(case.near)


def test_each_cluster_has_its_own_density(case):
    c = case.clusters
    found = c.loglik(case.objective.core, case.near)
    assert_allclose(found, case.logliks(case.near), **EXACT)


def test_implied_moments_are_those_of_the_matrices(case):
    expected = case.moments(case.near)
    found = case.objective.implied(case.near)
    between = found[max(found)].observed
    assert_allclose(between.mean, expected.mu_b, rtol=1e-13, atol=1e-15)
    assert_allclose(between.cov, expected.sigma_b, rtol=1e-13, atol=1e-15)
    if case.unit:
        assert_allclose(found[1].observed.mean, expected.mu_w, rtol=1e-13, atol=1e-15)
        assert_allclose(found[1].observed.cov, expected.sigma_w, rtol=1e-13, atol=1e-15)
        assert list(found[1].cov.columns[: len(case.unit)]) == list(case.unit)


def indefinite_moments(case, share):
    """Moments whose between covariance matrix goes down to `share` of the lower limit of the domain."""
    m = case.moments(case.theta)
    _, between, within = oracle.spread(m)
    largest = between + within / case.statistics.sizes.max()  # of the cluster means of the largest clusters
    limit = 1 / np.linalg.inv(largest)[0, 0]  # what can be taken from the first variance
    lowered = m.sigma_b.copy()
    lowered[0, 0] -= share * limit
    return m._replace(sigma_b=lowered)


@pytest.mark.parametrize("shape", ["both levels", "within-only", "between-only", "all kinds"])
def test_an_indefinite_between_matrix_is_in_the_domain_up_to_its_edge(shape):
    case = models.shape_case(shape)
    objective = saturated_objective(case.statistics)
    inside = indefinite_moments(case, 0.999)
    assert np.linalg.eigvalsh(inside.sigma_b)[0] < 0
    expected = -2 * oracle.cluster_logliks(inside, *case.sample).sum()
    # the covariance matrices are near singular there
    assert_allclose(objective.value(saturated_vector(inside)), expected, rtol=1e-9)
    assert objective.value(saturated_vector(indefinite_moments(case, 1.001))) == np.inf


@pytest.mark.parametrize("level", [1, 2])
def test_outside_the_domain_the_value_is_infinite_and_nothing_is_a_number(level):
    case = models.shape_case("all kinds")
    theta = case.theta.copy()
    name = "x1" if level == 1 else "w1"
    row = next(r for r in case.table.rows if (r.lhs, r.op, r.rhs) == (name, "~~", name))
    theta[row.free - 1] = -0.1
    core, c = case.objective.core, case.clusters
    value, gradient = core.evaluate(theta)
    assert value == np.inf
    assert case.objective.value(theta) == np.inf
    assert np.isnan(gradient).all()
    assert core.expected_information(theta).size == 0
    assert core.observed_information(theta).size == 0
    assert core.information_factor(theta).size == 0
    assert c.scores(core, theta).size == 0
    assert c.loglik(core, theta).size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_outside_the_domain(case, bad):
    for k in range(len(case.theta)):
        theta = case.theta.copy()
        theta[k] = bad
        assert case.objective.value(theta) == np.inf


def test_paths_that_never_settle_are_outside_the_domain():
    """I - A is exactly singular for reciprocal paths of product 1."""
    rows = [("y1", "~", "y2", 1, 0.5, ""), ("y2", "~", "y1", 1, 0.5, "")]
    rows += [(v, "~~", v, level, 1.0, "") for level in (1, 2) for v in ("y1", "y2")]
    case = models.two_level(rows, models.FEW)
    theta = case.theta.copy()
    theta[:2] = 2.0, 0.5
    assert case.objective.value(theta) == np.inf
    with pytest.raises(ValueError, match="singular"):
        case.objective.core.implied(theta, 0)


def test_without_between_variance_units_are_independent():
    """Sigma_b = 0: one single-level sample of all units."""
    case = models.shape_case("both levels")
    m = case.moments(case.theta)
    nothing = m._replace(sigma_b=np.zeros_like(m.sigma_b))
    found = saturated_objective(case.statistics).value(saturated_vector(nothing))
    expected = -2 * multivariate_normal(m.mu_b + m.mu_w, m.sigma_w).logpdf(case.sample[0]).sum()
    assert_allclose(found, expected, **EXACT)


def test_one_cluster_size_has_the_closed_form():
    """Balanced data: a normal sample of cluster means and an independent Wishart within matrix (Muthen 1990)."""
    case = models.random_case(3, 3, 0, 0, [4] * 12)
    m, s = case.moments(case.near), case.statistics
    cov = m.sigma_w + 4 * m.sigma_b
    r = s.means[0] - m.mu_b - m.mu_w
    between = 12 * np.linalg.slogdet(cov)[1] + 4 * np.trace(
        np.linalg.solve(cov, s.scatter[0] + 12 * np.outer(r, r))
    )
    within = 36 * np.linalg.slogdet(m.sigma_w)[1] + np.trace(np.linalg.solve(m.sigma_w, s.ssw))
    found = saturated_objective(s).value(saturated_vector(m))
    assert_allclose(found, between + within + 48 * 3 * np.log(2 * np.pi), **EXACT)


def test_clusters_of_one_unit_leave_the_sum_of_both_levels():
    rows = [(v, "~~", v, level, 0.7, "") for level in (1, 2) for v in ("y1", "y2")]
    case = models.two_level([*rows, ("y1", "~1", "", 2, 0.4, "")], [1] * 20)
    expected = multivariate_normal([0.4, 0.0], 1.4 * np.eye(2)).logpdf(case.sample[0]).sum()
    assert_allclose(case.objective.llf(case.theta), expected, **EXACT)


def test_sizes_need_not_be_whole_numbers():
    """Only N / J may be known of published moments."""
    case = models.shape_case("all kinds")
    m = case.moments(case.theta)
    s = oracle.expected_statistics(m, [3.4, 7.75], [10, 4])
    loss = _core.CompleteLikelihood(m.nboth, s.ssw, s.sizes, s.counts, s.means, s.scatter)
    found = models.build_objective(case.table, case.statistics, loss).value(case.near)
    assert_allclose(found, -2 * oracle.loglik_from_statistics(case.moments(case.near), s), **EXACT)


def test_far_from_the_data_the_value_stays_exact():
    case = models.shape_case("all kinds")
    theta = case.theta.copy()
    means = [r.free - 1 for r in case.table.rows if r.op == "~1"]
    theta[means] += 1e4
    assert_allclose(case.objective.value(theta), -2 * case.loglik(theta), **EXACT)


def wrong_shapes(case):
    core, c, s = case.objective.core, case.clusters, case.statistics
    block = _core.Block(1, 1, [1], [0], [0], [0], [0.0])
    loss = s.likelihood()
    yield "wrong length", lambda: core.value(case.theta[1:])
    yield "wrong length", lambda: core.jacobian(case.theta[1:], 0)
    yield "wrong length", lambda: core.implied(case.theta[1:], 0)
    yield "a row for each parameter", lambda: core.observed_information_in(case.theta, np.eye(2))
    yield "inconsistent shapes", lambda: replace(c, means=c.means[:, 1:]).scores(core, case.theta)
    yield "inconsistent shapes", lambda: replace(c, within=c.within[1:]).loglik(core, case.theta)
    yield (
        "inconsistent shapes",
        lambda: _core.CompleteLikelihood(9, s.ssw, s.sizes, s.counts, s.means, s.scatter),
    )
    yield (
        "scatter must have",
        lambda: _core.CompleteLikelihood(1, s.ssw, s.sizes, s.counts, s.means, s.scatter[1:]),
    )
    yield "semidefinite", lambda: _core.CompleteLikelihood(1, s.ssw, s.sizes, s.counts, s.means, -s.scatter)
    yield "variables of the statistics", lambda: _core.Objective(1, [block], [(loss, [0])]).value([1.0])
    yield "beyond npar", lambda: _core.Objective(0, [block], [(loss, [0])])
    yield "block for each level", lambda: _core.Objective(1, [block], [(loss, [1])])
    yield "out of range", lambda: _core.Block(1, 1, [1], [1], [0], [0], [0.0])
    yield "observes", lambda: _core.Block(2, 1, [1], [0], [0], [0], [0.0])
    yield "slot must be", lambda: _core.Block(1, 1, [3], [0], [0], [0], [0.0])
    yield "equal lengths", lambda: _core.Block(1, 1, [1], [0], [0], [0], [])


@pytest.mark.parametrize("k", range(16))
def test_the_core_refuses_what_does_not_fit(k):
    message, call = list(wrong_shapes(models.shape_case("all kinds, balanced")))[k]
    with pytest.raises(ValueError, match=message):
        call()
