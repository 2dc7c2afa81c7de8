"""Saturated moments by scoring, by EM and by the oracle's EM; their information and its inverse."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal

import models
import oracle
from msem import _core
from msem.data.arrays import vech
from msem.data.complete import SampleStatistics
from msem.data.saturated import moment_names, saturated_objective, solve_saturated
from msem.data.saturated_moments import estimate_saturated, level_moments
from msem.errors import DataError

SIZES = [1] * 6 + [2] * 10 + [3] * 9 + [5] * 8 + [7] * 4
SHAPES = {
    "both levels": (3, 0, 0, SIZES),
    "one variable": (1, 0, 0, SIZES),
    "within-only": (2, 2, 0, SIZES),
    "between-only": (2, 0, 2, SIZES),
    "all kinds": (3, 2, 2, SIZES),
    "all kinds, many sizes": (3, 1, 1, [*range(1, 31)]),
    "balanced": (3, 1, 1, [4] * 25),
}


@pytest.fixture(params=SHAPES)
def statistics(request):
    return models.random_case(2, *SHAPES[request.param]).statistics


def weak_case(seed):
    """Little between variance, so that the estimated between matrix is indefinite."""
    rows = [(v, "~~", v, 1, 1.0, "") for v in ("y1", "y2", "y3", "x1")] + [("y1", "~", "x1", 1, 0.4, "")]
    rows += [(v, "~~", v, 2, 0.04, "") for v in ("y1", "y2", "y3")]
    rows += [("w1", "~~", "w1", 2, 1.0, ""), ("y2", "~", "w1", 2, 0.2, "")]
    return models.two_level(rows, [1, 2, 3, 4, 5, 6] * 5, seed)


def as_oracle(found, nboth):
    return oracle.Moments(found.within.mean, found.within.cov, found.between.mean, found.between.cov, nboth)


def saturated_moments(statistics):
    """The map from the vector of all moments to the oracle's moments."""
    s = statistics
    p, nb, q = len(s.unit), s.nboth + len(s.cluster), len(s.cluster)
    ends = np.cumsum([p * (p + 1) // 2, nb * (nb + 1) // 2, s.nboth, p - s.nboth, q])

    def symmetric(values, n):
        out = np.zeros((n, n), values.dtype)
        col, row = np.triu_indices(n)
        out[row, col] = out[col, row] = values
        return out

    def moments(vector):
        within, between, both, x, z = np.split(np.asarray(vector), ends[:-1])
        mu_w = np.concatenate([np.zeros(s.nboth, x.dtype), x])
        return oracle.Moments(
            mu_w, symmetric(within, p), np.concatenate([both, z]), symmetric(between, nb), s.nboth
        )

    return moments


def stationary(found, statistics):
    """Decrement g' I^-1 g of the saturated likelihood at the estimates."""
    theta = level_moments(found, statistics).vector.to_numpy()
    objective = saturated_objective(statistics)
    gradient = objective.evaluate(theta)[1]
    return gradient @ np.linalg.solve(objective.expected_information(theta), gradient) / 4


def compare(a, b, atol):
    assert_allclose(a.within.cov, b.within.cov, atol=atol)
    assert_allclose(a.between.cov, b.between.cov, atol=atol)
    assert_allclose(a.within.mean, b.within.mean, atol=atol)
    assert_allclose(a.between.mean, b.between.mean, atol=atol)


def test_scoring_and_em_agree(statistics):
    scoring, em = solve_saturated(statistics), solve_saturated(statistics, method="em")
    compare(scoring, em, 1e-6)
    assert scoring.llf == pytest.approx(em.llf, abs=1e-9)
    assert scoring.iterations <= 40


def test_both_levels_against_an_independent_em(statistics):
    found, m = solve_saturated(statistics), oracle.em(statistics, statistics.nboth, tolerance=1e-10)
    assert_allclose(found.within.cov, m.sigma_w, atol=1e-6)
    assert_allclose(found.between.cov, m.sigma_b, atol=1e-6)
    assert_allclose(found.within.mean, m.mu_w, atol=1e-6)
    assert_allclose(found.between.mean, m.mu_b, atol=1e-6)


def test_gradient_is_zero_and_the_likelihood_that_of_the_moments(statistics):
    found = solve_saturated(statistics)
    assert stationary(found, statistics) < 1e-11
    expected = oracle.loglik_from_statistics(as_oracle(found, statistics.nboth), statistics)
    assert found.llf == pytest.approx(expected, rel=1e-12)


def test_covariates_have_their_sample_moments(statistics):
    s, found = statistics, solve_saturated(statistics)
    weights = s.counts * s.sizes
    x = slice(s.nboth, len(s.unit))
    mean = weights @ s.means / s.nobs
    deviation = s.means - mean
    cov = np.einsum("s,sij->ij", s.sizes, s.scatter) + (deviation.T * weights) @ deviation
    assert_allclose(found.within.mean[x], mean[x], atol=1e-12)
    assert_allclose(found.within.cov[x, x], (cov[x, x] + s.ssw[x, x]) / s.nobs, rtol=1e-11)
    z = slice(len(s.unit), None)
    assert_allclose(found.between.mean[s.nboth :], s.total_mean[z], atol=1e-12)
    assert_allclose(
        found.between.cov[s.nboth :, s.nboth :], s.cluster_scatter[z, z] / s.nclusters, rtol=1e-11
    )
    assert not found.within.mean[: s.nboth].any()


@pytest.mark.parametrize("seed", range(6))
def test_an_indefinite_between_matrix_has_the_higher_likelihood(seed):
    s = weak_case(seed).statistics
    found, em = solve_saturated(s), _core.fit_saturated(s.likelihood(), True, 3000)
    assert np.linalg.eigvalsh(found.between.cov)[0] < 0
    assert stationary(found, s) < 1e-11
    assert np.linalg.eigvalsh(em["levels"][1][1])[0] > 0
    assert not em["converged"]
    assert em["iterations"] == 3000
    assert found.llf > em["loglik"]
    expected = oracle.loglik_from_statistics(as_oracle(found, s.nboth), s)
    assert found.llf == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_balanced_data_have_a_closed_form(share):
    """Also where the between matrix is indefinite."""
    between = share * np.array([[1.0, 0.5, 0.3], [0.5, 0.8, 0.2], [0.3, 0.2, 0.6]])
    y, z, codes = oracle.simulate(np.random.default_rng(3), np.eye(3), between, [4] * 40)
    s = models.sample_statistics((y, z, codes), ("a", "b", "c"), (), 3)
    found = solve_saturated(s)
    within = s.ssw / 120
    assert_allclose(found.within.cov, within, rtol=1e-10, atol=1e-12)
    assert_allclose(found.between.cov, s.scatter[0] / 40 - within / 4, atol=1e-12)
    assert_allclose(found.between.mean, y.mean(axis=0), rtol=1e-12)
    assert (np.linalg.eigvalsh(found.between.cov)[0] < 0) == (share < 1)


def test_nothing_at_both_levels_needs_no_iterations():
    case = models.shape_case("nothing at both levels")
    found = solve_saturated(case.statistics)
    y, z, _ = case.sample
    assert found.iterations == 0
    assert_allclose(found.within.cov, np.cov(y.T, bias=True), rtol=1e-12)
    assert_allclose(found.between.cov, np.cov(z.T, bias=True), rtol=1e-12)
    expected = multivariate_normal(y.mean(0), np.cov(y.T, bias=True)).logpdf(y).sum()
    expected += multivariate_normal(z.mean(0), np.cov(z.T, bias=True)).logpdf(z).sum()
    assert found.llf == pytest.approx(expected, rel=1e-12)


def test_a_single_level():
    case = models.shape_case("single level")
    found, z = solve_saturated(case.statistics), case.sample[1]
    assert_allclose(found.between.cov, np.cov(z.T, bias=True), rtol=1e-12)
    assert found.llf == pytest.approx(
        multivariate_normal(z.mean(0), found.between.cov).logpdf(z).sum(), rel=1e-12
    )


@pytest.mark.parametrize("weak", [False, True])
def test_expected_statistics_give_the_moments_back(weak):
    case = weak_case(1) if weak else models.random_case(2, *SHAPES["all kinds"])
    moments = estimate_saturated(case.statistics)
    assert (moments.between_eigenvalues[0] < 0) == weak
    again = estimate_saturated(moments.expected_statistics)
    assert_allclose(again.vector, moments.vector, rtol=1e-7, atol=1e-8)
    assert list(again.vector.index) == list(moments.vector.index)


@pytest.mark.parametrize("shape", ["all kinds", "one variable"])
def test_information_of_the_moments(shape):
    s = models.random_case(2, *SHAPES[shape]).statistics
    moments = estimate_saturated(s)
    theta = moments.vector.to_numpy()
    expected = oracle.expected_information(saturated_moments(s), theta, s.sizes, s.counts)
    scale = np.abs(expected).max()
    assert_allclose(moments.information("expected"), expected, atol=1e-10 * scale)
    gradient = saturated_objective(s).evaluate
    observed = oracle.differences(lambda t: gradient(t)[1], theta) / 2
    assert_allclose(moments.information("observed"), observed, atol=1e-7 * scale)
    assert list(moments.information().index) == moment_names(s.variables) == moments.moment_names
    for kind in ("observed", "expected"):
        product = moments.gamma(kind).to_numpy() @ moments.information(kind).to_numpy()
        assert_allclose(product, np.eye(len(theta)), atol=1e-8)


def test_moments_without_data_have_their_expected_information():
    moments = estimate_saturated(models.random_case(2, *SHAPES["all kinds"]).statistics)
    alone = estimate_saturated(moments.expected_statistics)
    assert_allclose(alone.information("observed"), alone.information("expected"), rtol=1e-6, atol=1e-5)
    assert_allclose(alone.information("expected"), moments.information("expected"), rtol=1e-6, atol=1e-6)


def test_gamma_of_the_variance_components():
    """Balanced one-way layout, variances of maximum likelihood estimates (Searle, Casella & McCulloch 1992)."""
    case = models.random_case(2, 1, 0, 0, [5] * 40)
    moments = estimate_saturated(case.statistics)
    w, b = moments.within_cov.iloc[0, 0], moments.between_cov.iloc[0, 0]
    total = w + 5 * b
    gamma = moments.gamma("expected").to_numpy()
    assert gamma[0, 0] == pytest.approx(2 * w**2 / 160, rel=1e-10)
    assert gamma[1, 1] == pytest.approx((2 * total**2 / 40 + 2 * w**2 / 160) / 25, rel=1e-10)
    assert gamma[0, 1] == pytest.approx(-2 * w**2 / 160 / 5, rel=1e-10)
    assert gamma[2, 2] == pytest.approx(total / 200, rel=1e-10)


def test_units_and_origin_of_the_variables():
    case = models.random_case(2, *SHAPES["all kinds"])
    y, z, codes = case.sample
    plain = solve_saturated(case.statistics)
    unit, cluster = np.array([1e3, 1e-3, 1.0, 10.0, 1e4]), np.array([1e-2, 50.0])
    moved = models.sample_statistics(
        ((y + 1e7) * unit, (z - 1e7) * cluster, codes), case.unit, case.cluster, 3
    )
    found = solve_saturated(moved)
    between = np.concatenate([unit[:3], cluster])
    assert_allclose(found.within.cov / np.outer(unit, unit), plain.within.cov, atol=1e-6)
    assert_allclose(found.between.cov / np.outer(between, between), plain.between.cov, atol=1e-6)
    shift = len(y) * np.log(unit).sum() + len(z) * np.log(cluster).sum()
    assert found.llf + shift == pytest.approx(plain.llf, abs=1e-4)
    assert found.iterations == plain.iterations


def changed(statistics, **arrays):
    given = {name: getattr(statistics, name) for name in SampleStatistics.__dataclass_fields__}
    return SampleStatistics(**given | arrays)


def test_what_cannot_be_estimated_is_told():
    s = models.random_case(2, *SHAPES["within-only"]).statistics
    nothing = solve_saturated(changed(s, ssw=np.zeros_like(s.ssw)))
    assert not nothing.converged
    assert np.isnan(nothing.llf)
    means, scatter = s.means.copy(), s.scatter.copy()
    means[:, 3], scatter[:, 3], scatter[:, :, 3] = 1.0, 0.0, 0.0
    ssw = s.ssw.copy()
    ssw[3], ssw[:, 3] = 0.0, 0.0
    assert not solve_saturated(changed(s, means=means, scatter=scatter, ssw=ssw)).converged
    with pytest.raises(DataError, match="not positive semidefinite"):
        solve_saturated(changed(s, scatter=-s.scatter))
    with pytest.raises(ValueError, match="'scoring' or 'em', not 'newton'"):
        estimate_saturated(s, method="newton")


def test_estimates_that_have_not_converged_say_so():
    s = models.random_case(2, *SHAPES["both levels"]).statistics
    found = solve_saturated(s, tolerance=0.0)
    assert (found.converged, found.iterations) == (False, 200)
    assert not level_moments(found, s).converged
    assert estimate_saturated(s).converged


def test_vech_stacks_the_lower_triangle_by_column():
    assert_allclose(vech(np.array([[1.0, 2, 3], [2, 4, 5], [3, 5, 6]])), [1, 2, 3, 4, 5, 6])
