"""Delta method and Monte Carlo intervals of functions of the estimates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from msem.distributions import normal_pvalue
from msem.postestimation.delta import MonteCarlo, chained, delta_method, distribution, jacobian, monte_carlo

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
THETA = np.array([0.5, 2.0, -1.0])
VCOV = np.array([[0.04, 0.01, 0.0], [0.01, 0.09, -0.02], [0.0, -0.02, 0.16]])


def quantity(theta: Numbers) -> Numbers:
    a, b, c = np.moveaxis(theta, -1, 0)
    return np.stack([a * b, np.exp(a) / b, c * c, np.ones_like(a)], axis=-1)


def test_jacobian_is_exact() -> None:
    a, b, c = THETA
    wanted = [[b, a, 0], [np.exp(a) / b, -np.exp(a) / b**2, 0], [0, 0, 2 * c], [0, 0, 0]]
    np.testing.assert_allclose(jacobian(quantity, THETA), wanted, rtol=1e-15)


def test_delta_method() -> None:
    found = delta_method(quantity, THETA, VCOV)
    slope = jacobian(quantity, THETA)
    np.testing.assert_allclose(found.vcov, slope @ VCOV @ slope.T, rtol=1e-14)
    np.testing.assert_allclose(found.se**2, np.diag(found.vcov))
    assert found.se[3] == 0
    lower, upper = found.interval(0.5)
    np.testing.assert_allclose(upper - found.est, 0.6744897501960817 * found.se)
    np.testing.assert_allclose(found.est - lower, upper - found.est)


def test_parameters_without_standard_errors_matter_where_they_enter_only() -> None:
    vcov = VCOV.copy()
    vcov[2] = vcov[:, 2] = np.nan
    found = delta_method(quantity, THETA, vcov)
    np.testing.assert_allclose(found.se[:2], delta_method(quantity, THETA, VCOV).se[:2])
    assert np.isnan(found.se).tolist() == [False, False, True, False]
    drawn = monte_carlo(quantity, THETA, vcov, 0.95, MonteCarlo(200))
    assert np.isnan(drawn.lower).tolist() == np.isnan(drawn.se).tolist() == [False, False, True, False]
    assert drawn.se[3] == 0
    assert np.isnan(drawn.pvalue[3])


def test_undefined_quantity_has_no_standard_error() -> None:
    found = delta_method(lambda t: np.where(t.real > 0, t, np.nan), THETA, VCOV)
    assert np.isnan(found.se).tolist() == [False, False, True]


def test_logit_interval_outside_of_zero_and_one_is_nan() -> None:
    found = delta_method(lambda t: t, np.array([0.2, 1.3, -0.1]), 0.01 * np.eye(3))
    lower, upper = found.interval(0.95, "logit")
    assert np.isnan(lower).tolist() == np.isnan(upper).tolist() == [False, True, True]


def test_monte_carlo_of_a_linear_function_is_the_wald_interval() -> None:
    theirs = delta_method(lambda t: t, THETA, VCOV).interval(0.9)
    ours = monte_carlo(lambda t: t, THETA, VCOV, 0.9, MonteCarlo(200_000))
    np.testing.assert_allclose((ours.lower, ours.upper), theirs, atol=0.01)
    np.testing.assert_allclose(ours.se, np.sqrt(np.diag(VCOV)), rtol=0.01)
    np.testing.assert_allclose(ours.pvalue, normal_pvalue(THETA / np.sqrt(np.diag(VCOV))), atol=0.005)


def test_monte_carlo_follows_the_skewed_distribution_of_a_product() -> None:
    theta, vcov = np.array([1.0, 1.0]), 0.25 * np.eye(2)
    ours = monte_carlo(
        lambda t: t.prod(axis=-1, keepdims=True), theta, vcov, 0.9, MonteCarlo(200_000, seed=4)
    )
    draws = np.random.default_rng(99).normal(1, 0.5, (400_000, 2)).prod(axis=1)
    np.testing.assert_allclose(np.ravel(ours[2:]), np.quantile(draws, [0.05, 0.95]), atol=0.02)


def test_seeds() -> None:
    def ends(seed: int) -> Floats:
        return np.array(monte_carlo(quantity, THETA, VCOV, 0.95, MonteCarlo(500, seed))[2:])

    np.testing.assert_array_equal(ends(1), ends(1))
    assert np.all(ends(1)[:, :3] != ends(2)[:, :3])


def test_draws_do_not_depend_on_units() -> None:
    unit = np.array([1e-3, 50.0, 7.0])
    ours = monte_carlo(lambda t: t, THETA, VCOV, 0.95, MonteCarlo(500))
    other = monte_carlo(lambda t: t / unit, THETA * unit, VCOV * np.outer(unit, unit), 0.95, MonteCarlo(500))
    np.testing.assert_allclose(ours, other, rtol=1e-9)


def test_singular_covariance_keeps_its_constraint() -> None:
    vcov = np.array([[1.0, 1.0], [1.0, 1.0]])
    ends = monte_carlo(lambda t: t[..., :1] - t[..., 1:], np.zeros(2), vcov, 0.95, MonteCarlo(500))
    np.testing.assert_allclose(ends[2:], 0, atol=1e-7)


def test_quantity_that_is_often_undefined_has_no_interval() -> None:
    def root(theta: Numbers) -> Numbers:
        return np.sqrt(np.where(theta.real > 0, theta, np.nan))

    ends = monte_carlo(root, np.array([1.0, 5.0]), np.eye(2), 0.95, MonteCarlo(1000))
    assert np.isnan(np.array(ends)).tolist() == [[True, False]] * 4


def test_too_few_draws() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        MonteCarlo(10)
    with pytest.raises(ValueError, match="whole number"):
        MonteCarlo(1000.0)
    for seed in (-1, "a", None):
        with pytest.raises(ValueError, match="seed must be"):
            MonteCarlo(seed=seed)


def test_infinite_draws_are_undefined() -> None:
    values = np.tile(np.arange(1.0, 101.0)[:, None], 2)
    values[:4, 0] = np.inf
    values[:6, 1] = np.nan
    found = distribution(values, np.ones(2), 0.9)
    assert found.se[0] == pytest.approx(values[4:, 0].std(ddof=1))
    assert np.isnan(found.se[1])


def test_chained_functions() -> None:
    found = delta_method(quantity, THETA, VCOV)
    both = chained(found, found.est[:1] + found.est[1:2] ** 2, np.array([[1, 2 * found.est[1], 0, 0]]))

    def whole(theta: Numbers) -> Numbers:
        first = quantity(theta)
        return np.concatenate([first, first[..., :1] + first[..., 1:2] ** 2], axis=-1)

    wanted = delta_method(whole, THETA, VCOV)
    np.testing.assert_allclose(both.est, wanted.est)
    np.testing.assert_allclose(both.vcov, wanted.vcov, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(both.jacobian, wanted.jacobian, rtol=1e-12)


def test_chained_functions_of_unknown_quantities_are_unknown() -> None:
    vcov = VCOV.copy()
    vcov[2] = vcov[:, 2] = np.nan
    found = delta_method(quantity, THETA, vcov)
    both = chained(found, np.zeros(2), np.array([[1.0, 1.0, 0, 0], [0, 0, 1.0, 0]]))
    assert np.isnan(both.se).tolist() == [False, False, True, False, False, True]
