"""Quadratic programmes against brute force over all active sets."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msem import _core


def brute_force(hessian, gradient, equal, equal_values, unequal, unequal_values):
    """The best of the solutions over all active sets that are feasible; None if there is none."""
    n = len(gradient)
    best, point = np.inf, None
    for size in range(min(n, len(unequal)) + 1):
        for active in itertools.combinations(range(len(unequal)), size):
            rows = np.vstack([equal, unequal[list(active)]])
            values = np.append(equal_values, unequal_values[list(active)])
            k = len(rows)
            system = np.block([[hessian, rows.T], [rows, np.zeros((k, k))]])
            solved = np.linalg.lstsq(system, np.append(-gradient, values), rcond=1e-12)[0]
            d = solved[:n]
            stationary = np.allclose(system @ solved, np.append(-gradient, values), atol=1e-8)
            if stationary and np.all(unequal @ d >= unequal_values - 1e-8):
                value = 0.5 * d @ hessian @ d + gradient @ d
                if value < best:
                    best, point = value, d
    return point


def random_programme(seed, n, k, m):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n + 2))
    unequal = rng.normal(size=(m, n))
    if m > 2:
        unequal[-1] = 2 * unequal[0]  # the same direction once more
    inside = rng.normal(size=n)
    equal = rng.normal(size=(k, n))
    offsets = unequal @ inside - np.abs(rng.normal(size=m)) * rng.integers(0, 2, size=m)
    return root @ root.T, rng.normal(size=n) * 3, equal, equal @ inside, unequal, offsets


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 2), st.integers(0, 6))
def test_solutions_are_those_of_brute_force(seed, n, k, m):
    programme = random_programme(seed, n, min(k, n - 1), m)
    hessian, gradient, equal, equal_values, unequal, offsets = programme
    solved, feasible, d, free, bound = _core.solve_quadratic(*programme)
    expected = brute_force(*programme)
    assert solved
    assert feasible
    np.testing.assert_allclose(d, expected, atol=1e-6)
    np.testing.assert_allclose(equal @ d, equal_values, atol=1e-9)
    np.testing.assert_allclose(gradient + hessian @ d, equal.T @ free + unequal.T @ bound, atol=1e-6)
    assert np.all(bound >= 0)
    np.testing.assert_allclose(bound * (unequal @ d - offsets), 0, atol=1e-6)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 5))
def test_solutions_do_not_depend_on_units(seed, n, m):
    hessian, gradient, equal, equal_values, unequal, offsets = random_programme(seed, n, 1, m)
    units = 10.0 ** np.random.default_rng(seed).integers(-5, 6, size=n)
    one = _core.solve_quadratic(hessian, gradient, equal, equal_values, unequal, offsets)[2]
    other = _core.solve_quadratic(
        hessian * np.outer(units, units),
        gradient * units,
        equal * units,
        equal_values,
        unequal * units,
        offsets,
    )[2]
    np.testing.assert_allclose(other * units, one, rtol=1e-6, atol=1e-8)


def rows(*values):
    return np.array(values, dtype=float).reshape(-1, 2)


NONE = rows()


def test_dependent_equalities_are_met():
    equal = rows((1, 1), (2, 2), (0, 0))
    d = _core.solve_quadratic(np.eye(2), np.zeros(2), equal, np.array([1.0, 2, 0]), NONE, np.empty(0))
    assert d[:2] == (True, True)
    np.testing.assert_allclose(d[2], [0.5, 0.5], rtol=1e-14)


def test_curvature_is_needed_only_where_equalities_leave_room():
    flat = np.diag([1.0, 0.0])
    equal = rows((1, 1))
    solved, _, d, *_ = _core.solve_quadratic(flat, np.array([-2.0, 0]), equal, np.ones(1), NONE, np.empty(0))
    assert solved
    np.testing.assert_allclose(d, [2, -1], rtol=1e-12)
    assert not _core.solve_quadratic(flat, np.ones(2), NONE, np.empty(0), NONE, np.empty(0))[0]


@pytest.mark.parametrize(
    ("unequal", "offsets"),
    [
        (rows((1, 0), (-1, 0)), [1, 0]),
        (rows((1, 1), (-1, 0), (0, -1)), [3, -1, -1]),
        (rows((0, 0)), [1]),
    ],
)
def test_contradictions_are_found(unequal, offsets):
    offsets = np.array(offsets, dtype=float)
    solved, feasible, d, *_ = _core.solve_quadratic(
        np.eye(2), np.zeros(2), NONE, np.empty(0), unequal, offsets
    )
    assert solved
    assert not feasible
    assert np.max(offsets - unequal @ d) <= np.max(offsets)


def test_a_solution_at_a_vertex_with_more_constraints_than_variables():
    unequal = rows((1, 0), (0, 1), (1, 1), (1, 2))
    found = _core.solve_quadratic(np.eye(2), np.ones(2), NONE, np.empty(0), unequal, np.zeros(4))
    np.testing.assert_allclose(found[2], [0, 0], atol=1e-12)


def test_parts_that_do_not_fit_together_are_refused():
    for hessian, equal, values in (
        (np.eye(3), NONE, np.empty(0)),
        (np.eye(2), rows((1, 0)), np.empty(0)),
        (np.eye(2), np.empty((0, 3)), np.empty(0)),
    ):
        with pytest.raises(ValueError, match="inconsistent shapes"):
            _core.solve_quadratic(hessian, np.zeros(2), equal, values, NONE, np.empty(0))
