"""The oracle itself, held to scipy, closed forms and the log-likelihoods of the reference cases."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import oracle
import reference

WITHIN = np.array([[2.0, 0.8, 0.5], [0.8, 1.7, 0.4], [0.5, 0.4, 1.0]])
BETWEEN = np.array([[1.0, 0.6, 0.2], [0.6, 0.8, -0.1], [0.2, -0.1, 0.9]])
SIZES = [1, 2, 2, 3, 5, 5, 5, 8]
# y1, y2 at both levels, x within only, w between only
MOMENTS = oracle.Moments(np.array([0, 0, 0.3]), WITHIN, np.array([0.5, -1.0, 2.0]), BETWEEN, 2)


@pytest.fixture
def sample():
    rng = np.random.default_rng(1)
    return oracle.simulate(rng, WITHIN, BETWEEN, SIZES, 2, MOMENTS.mu_w, MOMENTS.mu_b)


def row(lhs, op, rhs, level, free=0, value=np.nan, group=1):
    return SimpleNamespace(lhs=lhs, op=op, rhs=rhs, level=level, group=group, free=free, value=value)


def scipy_logliks(y, z, cluster):
    """Whole-cluster densities from a covariance written out element by element."""
    for j in range(len(z)):
        units = np.flatnonzero(cluster == j)
        entries = [(i, v) for i in units for v in ("y1", "y2", "x")] + [(None, "w")]
        within, between = ["y1", "y2", "x"], ["y1", "y2", "w"]
        cov = np.zeros((len(entries), len(entries)))
        for a, (i, v) in enumerate(entries):
            for b, (k, u) in enumerate(entries):
                if i is not None and i == k:
                    cov[a, b] += WITHIN[within.index(v), within.index(u)]
                if v in between and u in between:
                    cov[a, b] += BETWEEN[between.index(v), between.index(u)]
        means = {"y1": 0.5, "y2": -1.0, "x": 0.3, "w": 2.0}
        x = np.concatenate([y[units].ravel(), z[j]])
        yield multivariate_normal([means[v] for _, v in entries], cov).logpdf(x)


def test_cluster_logliks_are_scipy_densities(sample):
    y, z, cluster = sample
    assert_allclose(oracle.cluster_logliks(MOMENTS, y, z, cluster), list(scipy_logliks(*sample)), rtol=1e-12)
    order = np.random.default_rng(2).permutation(len(y))
    shuffled = oracle.cluster_logliks(MOMENTS, y[order], z, cluster[order])
    assert_allclose(shuffled, oracle.cluster_logliks(MOMENTS, *sample), rtol=1e-12)


def test_covariates_leave_the_conditional_density(sample):
    y, z, cluster = sample
    given = oracle.loglik(MOMENTS, y, z, cluster, unit_x=[2], cluster_x=[0])
    x = multivariate_normal(0.3, WITHIN[2, 2]).logpdf(y[:, 2]).sum()
    w = multivariate_normal(2.0, BETWEEN[2, 2]).logpdf(z[:, 0]).sum()
    assert given == pytest.approx(oracle.cluster_logliks(MOMENTS, *sample).sum() - x - w, rel=1e-13)


def test_not_positive_definite_is_refused(sample):
    with pytest.raises(np.linalg.LinAlgError):
        oracle.loglik(MOMENTS._replace(sigma_w=WITHIN - 2 * np.eye(3)), *sample)


def test_indefinite_between_covariance_is_a_point_of_the_likelihood(sample):
    indefinite = MOMENTS._replace(sigma_b=BETWEEN - np.diag([0.6, 0.0, 0.0]))
    assert np.linalg.eigvalsh(indefinite.sigma_b)[0] < 0
    from_statistics = oracle.loglik_from_statistics(indefinite, oracle.statistics(*sample))
    assert oracle.loglik(indefinite, *sample) == pytest.approx(from_statistics, rel=1e-12)


def test_statistics_suffice(sample):
    s = oracle.statistics(*sample)
    assert (s.nobs, s.nclusters) == (31, 8)
    assert_allclose(s.sizes, [1, 2, 3, 5, 8])
    assert_allclose(s.counts, [1, 2, 1, 3, 1])
    assert oracle.loglik_from_statistics(MOMENTS, s) == pytest.approx(
        oracle.loglik(MOMENTS, *sample), rel=1e-12
    )


def test_single_level_data_are_clusters_without_units():
    z = np.random.default_rng(3).normal(size=(20, 3))
    nothing, each = np.zeros((20, 0)), np.arange(20)
    m = oracle.Moments(np.zeros(0), np.zeros((0, 0)), MOMENTS.mu_b, BETWEEN, 0)
    expected = multivariate_normal(MOMENTS.mu_b, BETWEEN).logpdf(z).sum()
    assert oracle.loglik(m, nothing, z, each) == pytest.approx(expected, rel=1e-12)
    s = oracle.statistics(nothing, z, each)
    assert oracle.loglik_from_statistics(m, s) == pytest.approx(expected, rel=1e-12)


def factor_rows():
    """A path from x to a factor of three indicators within; two correlated variables between."""
    within = [row("f", "=~", "a", 1, value=1.0), row("f", "=~", "b", 1, 1), row("f", "=~", "c", 1, 2)]
    within += [row("f", "~", "x", 1, 3), row("x", "~~", "x", 1, value=0.9), row("x", "~1", "", 1, value=0.4)]
    within += [row(v, "~~", v, 1, 4 + i) for i, v in enumerate("abc")] + [row("f", "~~", "f", 1, 7)]
    between = [row("a", "~~", "a", 2, 8), row("b", "~~", "b", 2, 9), row("a", "~~", "b", 2, 10)]
    return [*within, *between, row("c", "~~", "c", 2, value=0.2), row("a", "~1", "", 2, 11)]


THETA = np.array([0.8, 1.2, 0.5, 0.6, 0.7, 0.8, 1.1, 0.5, 0.4, -0.1, 3.0])


def factor_moments(theta):
    return oracle.table_moments(factor_rows(), theta, ("a", "b", "c", "x"), (), 3)


def test_implied_moments_of_a_factor_model():
    m = factor_moments(THETA)
    loading, slope = np.array([1.0, 0.8, 1.2]), 0.5
    common = slope**2 * 0.9 + 1.1
    assert_allclose(
        m.sigma_w[:3, :3], common * np.outer(loading, loading) + np.diag([0.6, 0.7, 0.8]), rtol=1e-14
    )
    assert_allclose(m.sigma_w[3], [*(loading * slope * 0.9), 0.9], rtol=1e-14)
    assert_allclose(m.mu_w, [*(loading * slope * 0.4), 0.4], rtol=1e-14)
    assert_allclose(m.sigma_b, [[0.5, -0.1, 0], [-0.1, 0.4, 0], [0, 0, 0.2]], rtol=1e-14)
    assert_allclose(m.mu_b, [3.0, 0, 0])


def test_a_row_without_value_is_refused():
    rows = [*factor_rows(), row("x", "~~", "a", 1)]
    with pytest.raises(ValueError, match=r"no value for x ~~ a at level 1"):
        oracle.table_moments(rows, THETA, ("a", "b", "c", "x"), (), 3)


def test_derivative_tools_on_a_known_function():
    def function(t):
        return np.stack([np.exp(t[0]) * t[1] ** 3, np.log(t[1]) / t[0], t[0] + 0 * t[1]])

    t0, t1 = theta = np.array([0.3, 5.0])
    exact = [[np.exp(t0) * t1**3, 3 * np.exp(t0) * t1**2], [-np.log(t1) / t0**2, 1 / (t0 * t1)], [1, 0]]
    assert_allclose(oracle.complex_step(function, theta), exact, rtol=1e-14)
    assert_allclose(oracle.differences(function, theta), exact, rtol=1e-10, atol=1e-12)
    second = [[np.exp(t0) * t1**3, 3 * np.exp(t0) * t1**2], [3 * np.exp(t0) * t1**2, 6 * np.exp(t0) * t1]]
    assert_allclose(oracle.hessian(lambda t: function(t)[0], theta), second, rtol=1e-10)


@pytest.fixture
def factor_sample():
    m = factor_moments(THETA)
    sizes = np.repeat([2, 3, 7], [20, 15, 10])
    return oracle.simulate(np.random.default_rng(4), m.sigma_w, m.sigma_b, sizes, 3, m.mu_w, m.mu_b)


def test_two_likelihoods_and_two_derivatives_agree(factor_sample):
    s = oracle.statistics(*factor_sample)
    scores = oracle.cluster_scores(factor_moments, THETA, *factor_sample)
    assert scores.shape == (45, len(THETA))
    gradient = oracle.complex_step(lambda t: oracle.loglik_from_statistics(factor_moments(t), s), THETA)
    assert_allclose(scores.sum(axis=0), gradient, rtol=1e-10, atol=1e-10)
    real = oracle.differences(lambda t: oracle.loglik_from_statistics(factor_moments(t), s), THETA)
    assert_allclose(real, gradient, rtol=1e-9, atol=1e-9)


def test_expected_information_is_the_hessian_at_expected_statistics():
    sizes, counts = [2, 3, 7], [20, 15, 10]
    s = oracle.expected_statistics(factor_moments(THETA), sizes, counts)
    observed = -oracle.hessian(lambda t: oracle.loglik_from_statistics(factor_moments(t), s), THETA)
    expected = oracle.expected_information(factor_moments, THETA, sizes, counts)
    assert_allclose(expected, observed, rtol=1e-9, atol=1e-8)


def test_expected_information_of_the_random_intercept_model():
    """Balanced data have it in closed form (Searle, Casella & McCulloch 1992, section 3.7)."""

    def moments(t):
        return oracle.Moments(np.zeros(1), t[:1, None], t[2:], t[1:2, None], 1)

    w, b, clusters, n = 1.5, 0.4, 12, 6
    total = w + n * b
    ww = clusters * ((n - 1) / w**2 + 1 / total**2) / 2
    wb, bb = clusters * n / total**2 / 2, clusters * n**2 / total**2 / 2
    exact = [[ww, wb, 0], [wb, bb, 0], [0, 0, clusters * n / total]]
    assert_allclose(
        oracle.expected_information(moments, [w, b, 2.0], [n], [clusters]), exact, rtol=1e-12, atol=1e-13
    )


def test_em_finds_the_closed_form_of_balanced_data():
    y, z, cluster = oracle.simulate(np.random.default_rng(5), WITHIN, BETWEEN + np.eye(3), [4] * 50)
    s = oracle.statistics(y, z, cluster)
    m = oracle.em(s, 3)
    assert_allclose(m.sigma_w, s.ssw / 150, rtol=1e-9)
    assert_allclose(m.sigma_b, s.scatter[0] / 50 - s.ssw / 150 / 4, rtol=1e-9)
    assert_allclose(m.mu_b, y.mean(axis=0), rtol=1e-10)


def test_em_stops_at_a_stationary_point_of_unbalanced_data():
    """Gradient zero in every free moment; the within means of both-level variables are not free."""
    sizes = np.repeat([1, 2, 4, 9], [30, 20, 20, 10])
    sample = oracle.simulate(np.random.default_rng(6), WITHIN, BETWEEN + np.eye(3), sizes, 2)
    s = oracle.statistics(*sample)
    m = oracle.em(s, 2)
    lower = np.tril_indices(3)

    def moments(t):
        cov = np.zeros((2, 3, 3), t.dtype)
        cov[:, lower[0], lower[1]] = cov[:, lower[1], lower[0]] = t[:12].reshape(2, 6)
        return oracle.Moments(np.concatenate([np.zeros(2), t[12:13]]), cov[0], t[13:], cov[1], 2)

    theta = np.concatenate([m.sigma_w[lower], m.sigma_b[lower], m.mu_w[2:], m.mu_b])
    gradient = oracle.complex_step(lambda t: oracle.loglik_from_statistics(moments(t), s), theta)
    scale = 1 / np.sqrt(np.diag(oracle.expected_information(moments, theta, s.sizes, s.counts)))
    assert_allclose(gradient * scale, 0, atol=1e-9)


def test_em_says_when_it_has_not_converged(sample):
    with pytest.raises(RuntimeError, match="not converged"):
        oracle.em(oracle.statistics(*sample), 2, iterations=3)


def test_simulated_data_have_the_moments_asked_for():
    sizes = np.repeat([2, 6], 4000)
    y, z, cluster = oracle.simulate(
        np.random.default_rng(7), WITHIN, BETWEEN, sizes, 2, MOMENTS.mu_w, MOMENTS.mu_b
    )
    assert y.shape == (32000, 3)
    assert z.shape == (8000, 1)
    m = oracle.em(oracle.statistics(y, z, cluster), 2, tolerance=1e-8)
    assert_allclose(m.sigma_w, WITHIN, atol=5 * 2 * np.sqrt(2 / 24000))
    assert_allclose(m.sigma_b, BETWEEN, atol=5 * 2 * np.sqrt(2 / 8000))
    assert_allclose(np.concatenate([m.mu_w[2:], m.mu_b]), [0.3, 0.5, -1.0, 2.0], atol=5 * 1.5 / np.sqrt(8000))


def test_frame_repeats_between_variables_over_units(sample):
    data = oracle.frame(*sample, ("y1", "y2", "x"), ("w",), name="school")
    assert list(data) == ["y1", "y2", "x", "w", "school"]
    assert data.groupby("school")["w"].nunique().max() == 1
    assert_allclose(data["w"], sample[1][sample[2], 0])


def observed(rows, data):
    """Variables of one level that are columns of the data, in order of appearance."""
    return [v for v in dict.fromkeys([*rows.lhs, *rows.rhs]) if v in data.columns]


def lavaan_problem(case):
    """Moments at the reference's estimates, the data (y, z, codes), and the columns of fixed covariates."""
    data, table = reference.data(case), pd.DataFrame(reference.expected(case)["parameter_table"])
    levels = [table[table.level == level] for level in (1, 2)]
    within, between = (observed(rows, data) for rows in levels)
    both, between_only = [v for v in within if v in between], [v for v in between if v not in within]
    unit = both + [v for v in within if v not in both]
    rows = [row(r.lhs, r.op, r.rhs, r.level, value=r.est) for r in table.itertuples()]
    m = oracle.table_moments(rows, np.zeros(0), unit, between_only, len(both))
    fixed = [set(rows.lhs[rows.exo == 1]) - set(both) for rows in levels]
    # with holes kept, rows are left out only where a covariate of which the likelihood is conditional is missing
    every = reference.meta(case)["missing"] == "listwise"
    data = data.dropna(subset=[v for v in unit + between_only if every or v in set.union(*fixed)])
    codes, _ = pd.factorize(data[reference.meta(case)["cluster"]])
    z = data[between_only].groupby(codes).first().to_numpy()
    covariates = [[v in f for v in names] for f, names in zip(fixed, (unit, between_only), strict=True)]
    return m, (data[unit].to_numpy(), z, codes), [np.flatnonzero(np.array(c, bool)) for c in covariates]


CASES = [c for c in reference.names() if reference.plain(c) and reference.meta(c)["levels"] == 2]


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_log_likelihood_of_reference(case):
    m, (y, z, codes), (unit_x, cluster_x) = lavaan_problem(case)
    expected = pytest.approx(reference.expected(case)["logl"], rel=1e-9)
    assert oracle.loglik(m, y, z, codes, unit_x, cluster_x) == expected
    x = oracle.covariate_loglik(m, y, z, unit_x, cluster_x)
    assert oracle.loglik_from_statistics(m, oracle.statistics(y, z, codes)) - x == expected
