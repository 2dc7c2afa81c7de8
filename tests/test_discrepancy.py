"""Sandwich covariance and tests of a level, against formulas written out with dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2, ortho_group

from msem.data.arrays import vech
from msem.estimation.discrepancy import (
    LevelDiscrepancy,
    is_positive_definite,
    least_squares_weight,
    normal_gamma,
    normal_weight,
    residual_statistic,
)

Floats = NDArray[np.float64]


def duplication(n: int) -> Floats:
    """D with D vech(A) = vec(A), lower triangle by column."""
    pairs = [(i, j) for j in range(n) for i in range(j, n)]
    out = np.zeros((n * n, len(pairs)))
    for k, (i, j) in enumerate(pairs):
        out[j * n + i, k] = out[i * n + j, k] = 1.0
    return out


def random_cov(rng: np.random.Generator, n: int) -> Floats:
    a = rng.normal(size=(n, 2 * n))
    return a @ a.T / n


@pytest.fixture
def solution() -> LevelDiscrepancy:
    """Three variables with means; the mean and variance of the last are given."""
    rng = np.random.default_rng(5)
    gamma = random_cov(rng, 9) / 150
    given = [2, 8]
    gamma[given] = gamma[:, given] = 0.0
    residual, jacobian = 0.1 * rng.normal(size=9), rng.normal(size=(9, 4))
    residual[given], jacobian[given] = 0.0, 0.0
    weight = 150 * normal_weight(random_cov(rng, 3), means=True)
    return LevelDiscrepancy(residual, jacobian, weight, gamma, 7.5, 9.5)


def test_normal_weight_is_half_the_kronecker_product() -> None:
    cov = random_cov(np.random.default_rng(1), 4)
    d, inverse = duplication(4), np.linalg.inv(cov)
    whole = 0.5 * d.T @ np.kron(inverse, inverse) @ d
    np.testing.assert_allclose(normal_weight(cov, means=False), whole, rtol=1e-12)
    both = normal_weight(cov, means=True)
    np.testing.assert_allclose(both[:4, :4], inverse, rtol=1e-12)
    np.testing.assert_allclose(both[4:, 4:], whole, rtol=1e-12)
    assert not both[:4, 4:].any()


def test_normal_gamma_is_the_covariance_of_normal_moments() -> None:
    cov = random_cov(np.random.default_rng(2), 3)
    plus = np.linalg.pinv(duplication(3))
    whole = 2 * plus @ np.kron(cov, cov) @ plus.T
    np.testing.assert_allclose(normal_gamma(cov, False, np.ones(6, bool)), whole, rtol=1e-10)


def test_normal_gamma_given_some_moments_is_conditional() -> None:
    cov = random_cov(np.random.default_rng(3), 3)
    plus = np.linalg.pinv(duplication(3))
    whole = 2 * plus @ np.kron(cov, cov) @ plus.T
    random = np.array([True, True, True, True, True, False])
    a, b, c = whole[:5, :5], whole[:5, 5:], whole[5:, 5:]
    found = normal_gamma(cov, False, random)
    np.testing.assert_allclose(found[:5, :5], a - b @ np.linalg.inv(c) @ b.T, rtol=1e-10)
    assert not found[5].any()


def test_an_indefinite_matrix_has_no_normal_gamma() -> None:
    cov = np.array([[1.0, 2.0], [2.0, 1.0]])
    assert np.isnan(normal_gamma(cov, True, np.ones(5, bool))).all()
    assert np.isnan(residual_statistic(np.ones(3), np.ones((3, 1)), np.full((3, 3), np.nan)))


@pytest.mark.parametrize(
    ("cov", "answer"),
    [
        ([[1e-12, 0], [0, 1e12]], True),
        ([[1.0, 1.0], [1.0, 1.0]], False),
        ([[-1.0, 0], [0, 1]], False),
        ([[0.0, 0], [0, 1]], False),
    ],
)
def test_definiteness_does_not_depend_on_units(cov: list[list[float]], answer: bool) -> None:
    assert is_positive_definite(np.array(cov)) is answer


def test_least_squares_weight_counts_each_element_once_in_its_unit() -> None:
    unit, rng = np.array([4.0, 0.25]), np.random.default_rng(4)
    mean, cov = rng.normal(size=2), random_cov(rng, 2)
    e = np.concatenate([mean, vech(cov)])
    sd = np.sqrt(unit)
    standard = cov / np.outer(sd, sd)
    expected = np.sum((mean / sd) ** 2) + np.sum(vech(standard) ** 2)
    assert e @ least_squares_weight(unit, means=True) @ e == pytest.approx(expected, rel=1e-12)


def test_covariance_is_the_sandwich(solution: LevelDiscrepancy) -> None:
    d, u, g = solution.jacobian, solution.weight, solution.gamma
    h = np.linalg.inv(d.T @ u @ d)
    np.testing.assert_allclose(solution.covariance(), h @ d.T @ u @ g @ u @ d @ h, rtol=1e-9)


def test_tests_against_written_out_formulas(solution: LevelDiscrepancy) -> None:
    d, u, g = solution.jacobian, solution.weight, solution.gamma
    left = u - u @ d @ np.linalg.inv(d.T @ u @ d) @ d.T @ u
    product = left @ g
    trace, square = np.trace(product), np.trace(product @ product)
    tests = solution.tests()
    assert solution.df == 7 - 4
    assert tests.loc["standard", ["statistic", "df", "scaling"]].tolist() == [9.5, 3.0, 1.0]
    scaled, adjusted = tests.loc["mean_scaled"], tests.loc["mean_variance_adjusted"]
    assert scaled["statistic"] == pytest.approx(7.5 / (trace / 3), rel=1e-10)
    assert scaled["scaling"] == pytest.approx(trace / 3, rel=1e-10)
    assert adjusted["df"] == pytest.approx(trace**2 / square, rel=1e-10)
    assert adjusted["statistic"] == pytest.approx(7.5 / (square / trace), rel=1e-10)
    expected = [chi2.sf(row["statistic"], row["df"]) for _, row in tests.iterrows()]
    np.testing.assert_allclose(tests["pvalue"], expected, rtol=1e-10)


def test_the_scaled_tests_have_the_moments_they_are_matched_to(solution: LevelDiscrepancy) -> None:
    """The eigenvalues of U Gamma are the weights of the chi-square mixture."""
    d, u = solution.jacobian, solution.weight
    left = u - u @ d @ np.linalg.inv(d.T @ u @ d) @ d.T @ u
    values = np.linalg.eigvals(left @ solution.gamma).real
    tests = solution.tests()
    scaling, df = tests.loc["mean_variance_adjusted", ["scaling", "df"]]
    assert scaling * df == pytest.approx(values.sum(), rel=1e-9)  # mean
    assert 2 * scaling**2 * df == pytest.approx(2 * (values**2).sum(), rel=1e-9)  # variance
    assert tests.loc["mean_scaled", "scaling"] * 3 == pytest.approx(values.sum(), rel=1e-9)


def test_residual_statistic_is_the_norm_in_the_orthogonal_complement(solution: LevelDiscrepancy) -> None:
    free = solution.random
    e, d, g = solution.residual[free], solution.jacobian[free], solution.gamma[np.ix_(free, free)]
    c = np.linalg.svd(d.T)[2][4:].T  # columns orthogonal to those of d
    expected = e @ c @ np.linalg.inv(c.T @ g @ c) @ c.T @ e
    assert solution.tests().loc["residual", "statistic"] == pytest.approx(expected, rel=1e-9)


def test_residual_statistic_does_not_depend_on_the_basis_of_the_parameters(
    solution: LevelDiscrepancy,
) -> None:
    turned = solution.jacobian @ ortho_group.rvs(4, random_state=1) * 1e5
    found = residual_statistic(solution.residual, turned, solution.gamma)
    assert found == pytest.approx(solution.tests().loc["residual", "statistic"], rel=1e-9)


def test_a_saturated_level_has_no_adjusted_test() -> None:
    eye = np.eye(3)
    tests = LevelDiscrepancy(np.zeros(3), eye, eye, eye, 0.0, 0.0).tests()
    assert tests.index.tolist() == ["standard"]
    assert tests.loc["standard", ["statistic", "df"]].tolist() == [0.0, 0.0]
    assert np.isnan(tests.loc["standard", "pvalue"])
