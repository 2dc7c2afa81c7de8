"""The oracle for data with holes, held to the one for complete data, to identities and to the reference cases."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import oracle
import oracle_missing
import reference
from test_oracle import (
    BETWEEN,
    MOMENTS,
    SIZES,
    THETA,
    WITHIN,
    factor_moments,
    factor_rows,
    lavaan_problem,
    observed,
    row,
    scipy_logliks,
)


def draw(seed=1):
    """y1, y2 at both levels, x within only, w between only."""
    rng = np.random.default_rng(seed)
    return oracle.simulate(rng, WITHIN, BETWEEN, SIZES, 2, MOMENTS.mu_w, MOMENTS.mu_b)


@pytest.fixture
def complete():
    return draw()


@pytest.fixture
def sample():
    """Holes everywhere, a cluster without anything, one without units, and one with them only."""
    y, z, cluster = draw()
    y, z = oracle_missing.punch(np.random.default_rng(2), y, z, cluster, 0.25, cluster_share=0.2, units=0.1)
    y[(cluster == 3) | (cluster == 5)], z[3], z[5], z[6] = np.nan, np.nan, 1.0, np.nan
    return y, z, cluster


@pytest.fixture
def factor_sample():
    """Data of the factor model with holes."""
    m = factor_moments(THETA)
    sizes = np.repeat([1, 2, 3], [3, 4, 2])
    y, z, cluster = oracle.simulate(np.random.default_rng(4), m.sigma_w, m.sigma_b, sizes, 3, m.mu_w, m.mu_b)
    return *oracle_missing.punch(np.random.default_rng(5), y, z, cluster, 0.2, units=0.1), cluster


def test_complete_data(complete):
    ours = oracle_missing.cluster_logliks(MOMENTS, *complete)
    assert_allclose(ours, oracle.cluster_logliks(MOMENTS, *complete), rtol=1e-12)
    covariates = oracle_missing.loglik(MOMENTS, *complete, unit_x=[2], cluster_x=[0])
    assert covariates == pytest.approx(oracle.loglik(MOMENTS, *complete, [2], [0]), rel=1e-12)


def test_derivatives_for_complete_data():
    m = factor_moments(THETA)
    sizes, counts = [2, 3, 7], [4, 3, 2]
    each = np.repeat(sizes, counts)
    data = oracle.simulate(np.random.default_rng(4), m.sigma_w, m.sigma_b, each, 3, m.mu_w, m.mu_b)
    scores = oracle_missing.cluster_scores(factor_moments, THETA, *data)
    assert_allclose(scores, oracle.cluster_scores(factor_moments, THETA, *data), rtol=1e-10, atol=1e-12)
    expected = oracle_missing.expected_information(factor_moments, THETA, *data)
    dense = oracle.expected_information(factor_moments, THETA, sizes, counts)
    assert_allclose(expected, dense, rtol=1e-12, atol=1e-12)


def test_cluster_logliks_are_marginal_densities(complete, sample):
    y, z, cluster = sample
    ours = oracle_missing.cluster_logliks(MOMENTS, *sample)
    assert ours[3] == 0
    for j in range(len(z)):
        units = np.flatnonzero(cluster == j)
        x = np.concatenate([y[units].ravel(), z[j]])
        mean, cov = oracle.stacked(MOMENTS, len(units))
        seen = ~np.isnan(x)
        if seen.any():
            dense = multivariate_normal(mean[seen], cov[np.ix_(seen, seen)]).logpdf(x[seen])
            assert ours[j] == pytest.approx(dense, rel=1e-12)
    whole = ~np.isnan(y).any(axis=1) & ~np.isnan(z[cluster]).any(axis=1)
    untouched = [j for j in range(len(z)) if whole[cluster == j].all()]
    assert untouched
    assert_allclose(ours[untouched], np.array(list(scipy_logliks(*complete)))[untouched], rtol=1e-12)


def test_order_of_rows_does_not_matter(sample):
    y, z, cluster = sample
    order = np.random.default_rng(3).permutation(len(y))
    shuffled = oracle_missing.cluster_logliks(MOMENTS, y[order], z, cluster[order])
    assert_allclose(shuffled, oracle_missing.cluster_logliks(MOMENTS, *sample), rtol=1e-12)
    ours = oracle_missing.posterior(MOMENTS, y[order], z, cluster[order])
    theirs = oracle_missing.posterior(MOMENTS, *sample)
    assert_allclose(ours.within, theirs.within[order], rtol=1e-10, atol=1e-12)
    assert_allclose(ours.between_cov, theirs.between_cov, rtol=1e-10, atol=1e-12)


def test_empty_units_and_clusters_can_be_left_out(sample):
    ours = oracle_missing.cluster_logliks(MOMENTS, *sample)
    without = oracle_missing.without_empty(*sample)
    assert len(without[1]) == len(sample[1]) - 1
    assert_allclose(oracle_missing.cluster_logliks(MOMENTS, *without), np.delete(ours, 3), rtol=1e-12)


def test_covariates_with_holes_have_their_marginal_density(sample):
    y, z, _ = sample
    x, w = y[:, 2][~np.isnan(y[:, 2])], z[:, 0][~np.isnan(z[:, 0])]
    marginal = multivariate_normal(0.3, WITHIN[2, 2]).logpdf(x).sum()
    marginal += multivariate_normal(2.0, BETWEEN[2, 2]).logpdf(w).sum()
    given = oracle_missing.loglik(MOMENTS, *sample, unit_x=[2], cluster_x=[0])
    joint = oracle_missing.cluster_logliks(MOMENTS, *sample).sum()
    assert given == pytest.approx(joint - marginal, rel=1e-13)


def test_indefinite_between_covariance_is_a_point_of_the_likelihood(sample):
    indefinite = MOMENTS._replace(sigma_b=BETWEEN - np.diag([0.6, 0.0, 0.0]))
    assert np.linalg.eigvalsh(indefinite.sigma_b)[0] < 0
    assert np.isfinite(oracle_missing.loglik(indefinite, *sample))
    with pytest.raises(np.linalg.LinAlgError):
        oracle_missing.loglik(MOMENTS._replace(sigma_w=WITHIN - 2 * np.eye(3)), *sample)


def test_scores_and_observed_information_are_derivatives(factor_sample):
    def total(t):
        return oracle_missing.loglik(factor_moments(t), *factor_sample)

    scores = oracle_missing.cluster_scores(factor_moments, THETA, *factor_sample)
    assert_allclose(scores.sum(axis=0), oracle.differences(total, THETA), rtol=1e-8, atol=1e-8)
    found = oracle_missing.observed_information(factor_moments, THETA, *factor_sample)
    at = 1e-3 * np.eye(len(THETA))
    twice = [
        [
            total(THETA + a + b) - total(THETA + a - b) - total(THETA - a + b) + total(THETA - a - b)
            for a in at
        ]
        for b in at
    ]
    assert_allclose(found, -np.array(twice) / 4e-6, rtol=1e-3, atol=1e-3)


def test_expected_information_is_the_mean_of_the_observed_one(factor_sample):
    """The expected log-likelihood at t, data from THETA, has it as minus its Hessian at THETA."""
    found = oracle_missing.patterns(*factor_sample)
    centre = factor_moments(THETA)

    def expected_loglik(t):
        m, total = factor_moments(t), 0.0
        for pattern in found:
            (mean0, cov0), (mean, cov) = (oracle_missing.seen_moments(x, pattern) for x in (centre, m))
            r = mean0 - mean
            inside = np.trace(np.linalg.solve(cov, cov0)) + r @ np.linalg.solve(cov, r)
            total = total - 0.5 * len(pattern.clusters) * (oracle.logdet(cov) + inside)
        return total

    ours = oracle_missing.expected_information(factor_moments, THETA, *factor_sample)
    assert_allclose(ours, -oracle.hessian(expected_loglik, THETA), rtol=1e-8, atol=1e-8)


def free_moments(nboth, p, d):
    """Moments from a vector, its length, and the vector of given moments."""
    lower_w, lower_b = np.tril_indices(p), np.tril_indices(d)
    cuts = np.cumsum([len(lower_w[0]), len(lower_b[0]), p - nboth])

    def moments(t):
        w, b, mu_w, mu_b = np.split(t, cuts)
        sigma_w, sigma_b = np.zeros((p, p), t.dtype), np.zeros((d, d), t.dtype)
        sigma_w[lower_w] = sigma_w.T[lower_w] = w
        sigma_b[lower_b] = sigma_b.T[lower_b] = b
        return oracle.Moments(np.concatenate([np.zeros(nboth), mu_w]), sigma_w, mu_b, sigma_b, nboth)

    def vector(m):
        return np.concatenate([m.sigma_w[lower_w], m.sigma_b[lower_b], m.mu_w[nboth:], m.mu_b])

    return moments, vector


def test_posterior_gives_the_scores(sample):
    """The gradient of the log-likelihood is the posterior mean of that of the complete data (Fisher)."""
    moments, vector = free_moments(2, 3, 3)
    scores = oracle_missing.cluster_scores(moments, vector(MOMENTS), *sample)
    found, (_, z, cluster) = oracle_missing.posterior(MOMENTS, *sample), sample
    lower, weight = np.tril_indices(3), np.where(np.eye(3, dtype=bool), 1, 2)[np.tril_indices(3)]

    def normal_score(r, cov_r, cov):
        inverse = np.linalg.inv(cov)
        middle = np.einsum("ri,rj->rij", r, r) + cov_r - cov
        return r @ inverse, 0.5 * (inverse @ middle @ inverse)[:, *lower] * weight

    mean_b, cov_b = normal_score(found.between - MOMENTS.mu_b, found.between_cov, BETWEEN)
    mean_w, cov_w = normal_score(found.within - MOMENTS.mu_w, found.within_cov, WITHIN)
    of_cluster = np.arange(len(z))[:, None] == cluster
    dense = np.hstack([of_cluster @ cov_w, cov_b, of_cluster @ mean_w[:, 2:], mean_b])
    assert_allclose(scores, dense, rtol=1e-9, atol=1e-9)


def test_posterior_of_what_is_observed_is_what_is_observed(sample):
    y, z, cluster = sample
    found = oracle_missing.posterior(MOMENTS, *sample)
    fitted = found.within + np.hstack([found.between[cluster, :2], np.zeros((len(y), 1))])
    assert_allclose(fitted[~np.isnan(y)], y[~np.isnan(y)], rtol=1e-9, atol=1e-9)
    seen = ~np.isnan(z[:, 0])
    assert_allclose(found.between[seen, 2], z[seen, 0], rtol=1e-9)
    assert_allclose(found.between_cov[seen, 2], 0, atol=1e-12)
    assert_allclose(found.between[3], MOMENTS.mu_b)
    assert_allclose(found.between_cov[3], BETWEEN)


def test_factors_are_variables_that_nobody_observes(factor_sample):
    y, z, cluster = factor_sample
    rows = factor_rows()
    found = oracle_missing.factor_posterior(
        rows, THETA, ("a", "b", "c", "x"), (), 3, ["f"], [], y, z, cluster
    )
    # the regression of the factor on the within parts, whose posterior is that without the factor
    m = oracle_missing.latent_moments(rows, THETA, ("a", "b", "c", "x"), (), 3, ["f"])
    slope = np.linalg.solve(m.sigma_w[:4, :4], m.sigma_w[:4, 4])
    parts = oracle_missing.posterior(factor_moments(THETA), y, z, cluster)
    assert_allclose(found.within[:, 0], m.mu_w[4] + (parts.within - m.mu_w[:4]) @ slope, rtol=1e-9)
    left = m.sigma_w[4, 4] - slope @ m.sigma_w[:4, 4]
    assert_allclose(found.within_cov[:, 0, 0], left + parts.within_cov @ slope @ slope, rtol=1e-9)
    assert found.between.shape == (9, 0)


def test_factors_of_one_level():
    rows = [row("f", "=~", v, 1, value=1.0) for v in "ab"] + [row("f", "~~", "f", 1, value=2.0)]
    rows += [row(v, "~~", v, 1, value=1.0) for v in "ab"]
    z = np.array([[1.0, np.nan], [1.0, 3.0], [np.nan, np.nan]])
    found = oracle_missing.factor_posterior(
        rows, np.zeros(0), (), ("a", "b"), 0, [], ["f"], np.zeros((3, 0)), z, np.arange(3)
    )
    assert_allclose(found.between[:, 0], [2 / 3, 8 / 5, 0], atol=1e-14)
    assert_allclose(found.between_cov[:, 0, 0], [2 / 3, 2 / 5, 2])


def em_data(sizes, holes=True):
    """Clusters that differ a lot, so that EM is quick."""
    rng = np.random.default_rng(6)
    y, z, cluster = oracle.simulate(rng, WITHIN, 3 * BETWEEN + np.eye(3), sizes, 2)
    if holes:
        y, z = oracle_missing.punch(rng, y, z, cluster, 0.15, cluster_share=0.15, units=0.05, clusters=0.1)
    return y, z, cluster


def test_em_for_complete_data():
    data = em_data(np.repeat([1, 3, 5], 12), holes=False)
    ours, theirs = oracle_missing.em(*data, 2, tolerance=1e-11), oracle.em(oracle.statistics(*data), 2)
    for mine, yours in zip(ours[:4], theirs[:4], strict=True):
        assert_allclose(mine, yours, rtol=1e-8, atol=1e-8)


def test_em_stops_at_a_stationary_point():
    data = em_data(np.repeat([1, 2, 4], 12))
    assert np.isnan(data[0]).all(axis=1).any()
    m = oracle_missing.em(*data, 2, tolerance=1e-11)
    moments, vector = free_moments(2, 3, 3)
    gradient = oracle_missing.cluster_scores(moments, vector(m), *data).sum(axis=0)
    information = oracle_missing.expected_information(moments, vector(m), *data)
    assert gradient @ np.linalg.solve(information, gradient) < 1e-15
    again = oracle_missing.em(*data, 2, start=m, tolerance=1e-10, iterations=1)
    assert_allclose(again.sigma_b, m.sigma_b, atol=1e-10)


def test_em_says_when_it_has_not_converged(sample):
    with pytest.raises(RuntimeError, match="not converged"):
        oracle_missing.em(*sample, 2, iterations=3)


def test_punched_holes():
    sizes = np.repeat([5, 15], 400)
    y, z, cluster = oracle.simulate(np.random.default_rng(7), WITHIN, BETWEEN, sizes, 2)
    rng = np.random.default_rng(8)
    holes = np.isnan(oracle_missing.punch(rng, y, z, cluster, 0.2, columns=[0, 2], cluster_share=0.3)[0])
    assert_allclose(holes.mean(axis=0), [0.2, 0, 0.2], atol=0.02)
    by, w = oracle_missing.punch(rng, y, z, cluster, 0.2, columns=[0, 2], by=y[:, 1], cluster_share=0.3)
    assert np.isnan(w).mean() == pytest.approx(0.3, abs=0.06)
    hole = np.isnan(by)
    assert_allclose(hole.mean(axis=0), [0.2, 0, 0.2], atol=0.02)
    assert y[hole[:, 0], 1].mean() > y[~hole[:, 0], 1].mean() + 0.5
    empty, nothing = oracle_missing.punch(rng, y, z, cluster, 0, units=0.1, clusters=0.05)
    gone = np.isnan(nothing[:, 0])
    assert gone.mean() == pytest.approx(0.05, abs=0.03)
    assert np.isnan(empty[gone[cluster]]).all()
    assert np.isnan(empty[~gone[cluster]]).all(axis=1).mean() == pytest.approx(0.1, abs=0.02)
    assert np.isnan(empty).any(axis=1).mean() == np.isnan(empty).all(axis=1).mean()
    assert not np.isnan(y).any()


CASES = [c for c in reference.names() if reference.meta(c)["missing"] == "ml"]
TWO_LEVEL = [c for c in CASES if reference.meta(c)["levels"] == 2]
SINGLE = [c for c in CASES if reference.meta(c)["levels"] == 1]


def single_problem(case):
    """Moments at the reference's estimates, the rows, and the columns of fixed covariates."""
    data, table = reference.data(case), pd.DataFrame(reference.expected(case)["parameter_table"])
    names = observed(table, data)
    rows = [row(r.lhs, r.op, r.rhs, 1, value=r.est) for r in table.itertuples()]
    m = oracle_missing.latent_moments(rows, np.zeros(0), (), names, 0)
    fixed = set(table.lhs[table.exo == 1])
    x = data.dropna(subset=list(fixed))[names].to_numpy(float)
    return m, (np.zeros((len(x), 0)), x, np.arange(len(x))), [[], [names.index(v) for v in sorted(fixed)]]


@reference.needs_reference
@pytest.mark.parametrize("case", CASES)
def test_log_likelihood_of_reference(case):
    m, data, covariates = (lavaan_problem if case in TWO_LEVEL else single_problem)(case)
    ours = oracle_missing.loglik(m, *data, *covariates)
    assert ours == pytest.approx(reference.expected(case)["logl"], rel=1e-9)
    brute = reference.expected(case, "brute_force")[reference.PROGRAM]["logl"]
    assert ours == pytest.approx(brute, rel=1e-12)


@reference.needs_reference
@pytest.mark.parametrize("case", TWO_LEVEL)
def test_saturated_maximum_of_reference(case):
    """Its log-likelihood, and that EM stays there."""
    _, data, covariates = lavaan_problem(case)
    h1, levels = reference.expected(case)["h1_direct"], ([], [])
    for level, stored in zip(levels, h1["moments"], strict=True):
        names = stored["cov"]["rows"]
        level[:] = names, [stored["mean"][v] for v in names], np.array(stored["cov"]["data"])
    both = [v for v in levels[0][0] if v in levels[1][0]]
    assert both == levels[0][0][: len(both)] == levels[1][0][: len(both)]
    m = oracle.Moments(
        *(np.array(part) for part in levels[0][1:]), *(np.array(part) for part in levels[1][1:]), len(both)
    )
    assert oracle_missing.loglik(m, *data, *covariates) == pytest.approx(h1["logl"], rel=1e-11)
    again = oracle_missing.em_step(m, oracle_missing.patterns(*oracle_missing.without_empty(*data)))
    for after, before in zip(again[:4], m[:4], strict=True):
        assert_allclose(after, before, rtol=1e-8, atol=1e-8)


@reference.needs_reference
@pytest.mark.parametrize("case", ["demo_missing", "demo_missing_fixedx", "demo_missing_y"])
def test_factor_scores_of_reference(case):
    _, (y, z, cluster), _ = lavaan_problem(case)
    table = pd.DataFrame(reference.expected(case)["parameter_table"])
    rows = [row(r.lhs, r.op, r.rhs, r.level, value=r.est) for r in table.itertuples()]
    unit, between = ("y1", "y2", "y3", "x1", "x2", "x3"), ("w1", "w2")
    found = oracle_missing.factor_posterior(
        rows, np.zeros(0), unit, between, 3, ["fw"], ["fb"], y, z, cluster
    )
    stored = reference.expected(case, "brute_scores")
    assert_allclose(found.within[:20, 0], np.ravel(stored["level1_first20"]["data"]), rtol=1e-9, atol=1e-10)
    assert_allclose(found.between[:20, 0], np.ravel(stored["level2_first20"]["data"]), rtol=1e-9, atol=1e-10)
