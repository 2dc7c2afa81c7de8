"""Crossed classifications against one dense density."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose

import oracle
from crossed_cases import Case

CASES = {
    "first eliminated": {},
    "second eliminated": {"swap": True},
    "effects without variance": {"zero": True},
    "one cluster of many": {"clusters": (12, 1), "units": 25},
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    return Case(**request.param)


def test_log_likelihood_is_that_of_the_dense_density(case):
    assert_allclose(-0.5 * case.objective.value(case.theta), case.loglik(case.theta), rtol=1e-11)


def test_gradient_is_its_derivative(case):
    _, gradient = case.objective.evaluate(case.theta)
    assert_allclose(-0.5 * gradient, oracle.complex_step(case.loglik, case.theta), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("swap", [False, True])
def test_observed_information_is_the_second_derivative(swap):
    case = Case(swap=swap, units=14, clusters=(5, 3))
    steps = 1e-5 * np.eye(len(case.theta))
    slope = lambda t: oracle.complex_step(case.loglik, t)  # noqa: E731
    second = np.array([(slope(case.theta + s) - slope(case.theta - s)) / 2e-5 for s in steps])
    assert_allclose(case.objective.observed_information(case.theta), -second, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("swap", [False, True])
def test_steps_are_made_with_the_average_information(swap):
    """Of the cluster variables it is the expected one: their covariances are left out here."""
    case = Case(swap=swap, units=20)
    plain = [
        k
        for k, (level, i, j) in enumerate(case.covs)
        if level == 0 or max(case.levels[level][i], case.levels[level][j]) < 3
    ]
    plain += [len(case.covs) + k for k in range(3)]
    found = case.objective.expected_information(case.theta)[np.ix_(plain, plain)]
    assert_allclose(found, case.average_information()[np.ix_(plain, plain)], rtol=1e-8, atol=1e-9)


def test_saved_data_are_the_same():
    case = Case()
    again = pickle.loads(pickle.dumps(case.data))
    assert np.array_equal(again.products, case.data.products)
    assert np.array_equal(again.pairs, case.data.pairs)
