"""The minimiser finds the maximum of the likelihood wherever the variables have their origin and unit."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import models
import oracle
from fits import FACTORS, LABELS, PATHS, data, fit
from msem import _core
from msem.estimation.objective import build_objective
from msem.estimation.optimize import minimize
from msem.estimation.sampling import sampling_covariance

SIZES = [2, 3, 4, 6, 8] * 12


@pytest.fixture(scope="module")
def frame():
    return data([2, 3, 4, 6, 8] * 12)


@pytest.fixture
def case():
    return models.two_level(models.factor_rows(), SIZES, seed=2)


def unbounded(n):
    return np.full(n, -np.inf), np.full(n, np.inf)


def decrement(objective, theta):
    gradient = objective.gradient(theta)
    return gradient @ np.linalg.solve(objective.expected_information(theta), gradient) / 4


@pytest.mark.parametrize("text", [FACTORS, PATHS, LABELS])
@pytest.mark.parametrize("fixed_x", [True, False])
def test_converges_to_a_gradient_of_zero(frame, text, fixed_x):
    found = fit(text, frame, fixed_x=fixed_x)
    assert found.optimum.converged
    assert len(found.optimum.diary) < 12
    assert found.optimum.value == found.objective.core.value(found.theta)
    assert_allclose(found.optimum.gradient, found.objective.gradient(found.theta), rtol=1e-12, atol=1e-12)
    assert decrement(found.objective, found.theta) < 1e-12


def test_the_optimum_is_the_one_of_the_oracle(case):
    """Gradient of the dense density zero, its Hessian positive."""
    found = minimize(case.objective, case.near)
    gradient = oracle.complex_step(case.loglik, found.theta)
    information = case.objective.observed_information(found.theta)
    assert gradient @ np.linalg.solve(information, gradient) < 1e-11
    assert np.linalg.eigvalsh(information)[0] > 0


def test_many_starts_lead_to_the_same_optimum(case):
    best = minimize(case.objective, case.theta)
    rng = np.random.default_rng(1)
    for _ in range(20):
        start = case.theta * rng.uniform(0.5, 2.0, len(case.theta))
        found = minimize(case.objective, start)
        assert found.converged
        assert_allclose(found.theta, best.theta, atol=1e-6)
        assert found.value == pytest.approx(best.value, abs=1e-8)


def test_the_value_never_rises(case):
    found = minimize(case.objective, 2.5 * case.theta)
    values = found.iterations["value"].to_numpy()
    assert found.converged
    assert (np.diff(values) <= 1e-12 * np.abs(values[:-1])).all()
    assert set(found.iterations["step"]) == {"scoring", "newton"}


def kkt(objective, found, lower, upper):
    """Free parameters have no gradient, those at a bound push against it."""
    g, theta = found["gradient"], found["theta"]
    scale = np.sqrt(np.diag(objective.expected_information(theta)))
    active = np.array(found["active"])
    assert_allclose((g / scale)[active == 0], 0, atol=1e-5)
    assert (g[active == -1] > 0).all()
    assert (g[active == 1] < 0).all()
    assert_allclose(theta[active == -1], lower[active == -1], rtol=0)
    assert_allclose(theta[active == 1], upper[active == 1], rtol=0)


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("k", range(21))
def test_bounds_become_active(case, side, k):
    """Every parameter in turn is kept half a standard error away from its optimum, on either side."""
    objective = case.objective
    best = minimize(objective, case.theta)
    se = 1 / np.sqrt(np.diag(objective.expected_information(best.theta)))
    lower, upper = unbounded(len(case.theta))
    (upper if side == 1 else lower)[k] = best.theta[k] - side * 0.5 * se[k]
    found = _core.minimize(objective.core, case.theta, lower, upper)
    assert found["stop"] == 0
    assert found["active"] == [side if i == k else 0 for i in range(len(lower))]
    assert found["value"] > best.value
    kkt(objective, found, lower, upper)


def test_bounds_that_do_not_bind_change_nothing(case):
    best = minimize(case.objective, case.near)
    found = _core.minimize(case.objective.core, case.near, best.theta - 2, best.theta + 2)
    assert_allclose(found["theta"], best.theta, atol=1e-6)
    assert not any(found["active"])


def test_several_bounds_at_once(case):
    best = minimize(case.objective, case.theta).theta
    for seed in range(5):
        rng = np.random.default_rng(seed)
        lower, upper = unbounded(len(best))
        for k in rng.choice(len(best), 6, replace=False):
            (lower if rng.random() < 0.5 else upper)[k] = best[k] + rng.normal(scale=0.05)
        found = _core.minimize(case.objective.core, best, lower, upper)
        assert found["stop"] == 0
        assert (found["theta"] >= lower).all()
        assert (found["theta"] <= upper).all()
        kkt(case.objective, found, lower, upper)


def test_everything_fixed_by_its_bounds(case):
    found = _core.minimize(case.objective.core, case.near, case.near, case.near)
    assert found["stop"] == 0
    assert_allclose(found["theta"], case.near, rtol=0)


def test_a_start_outside_the_domain_is_told(case):
    start = case.theta.copy()
    start[[r.free - 1 for r in case.table.rows if r.op == "~~"]] = -1.0
    found = minimize(case.objective, start)
    assert found.stop == "no valid start"
    assert found.value == np.inf
    assert np.isnan(found.gradient).all()
    assert not len(found.iterations)


def test_an_iteration_limit_is_told(case):
    found = minimize(case.objective, 2 * case.theta, max_iterations=2)
    assert (found.stop, len(found.iterations)) == ("iteration limit", 2)
    assert not found.converged


def test_a_start_of_the_wrong_length_is_refused(case):
    with pytest.raises(ValueError, match="one element per parameter"):
        minimize(case.objective, case.theta[1:])


def test_what_is_not_identified_is_named():
    """A loading and a variance too many within; the likelihood still has its maximum."""
    rows = models.factor_rows()
    free = [(*r[:5], "") if r[:4] == ("fw", "=~", "y1", 1) else r for r in rows]
    identified, loose = (models.two_level(r, SIZES, seed=2) for r in (rows, free))
    best = minimize(identified.objective, identified.theta)
    found = minimize(loose.objective, loose.theta)
    assert found.value == pytest.approx(best.value, abs=1e-7)
    sampling = sampling_covariance(loose.objective, found.theta)
    names = [loose.table.names()[k] for k in sampling.unidentified]
    assert names == ["fw=~y1", "fw=~y2", "fw=~y3", "fw~~fw", "fw~x1"]
    kept = np.setdiff1d(np.arange(len(found.theta)), sampling.unidentified)
    expected = sampling_covariance(identified.objective, best.theta).vcov
    same = [identified.table.names().index(loose.table.names()[k]) for k in kept]
    assert np.isnan(sampling.vcov[list(sampling.unidentified)]).all()
    assert_allclose(sampling.vcov[np.ix_(kept, kept)], expected[np.ix_(same, same)], rtol=1e-5, atol=1e-9)


def test_a_parameter_that_does_nothing_is_named(case):
    rows = [*models.factor_rows(), ("g", "=~", "y1", 1, 0.0, "="), ("g", "~~", "g", 1, 0.5, "")]
    idle = models.two_level(rows, SIZES, seed=2)
    found = minimize(idle.objective, idle.theta)
    assert found.converged
    assert found.theta[-1] == 0.5
    assert sampling_covariance(idle.objective, found.theta).unidentified == (len(found.theta) - 1,)


def test_what_is_kept_of_a_maximum_is_what_another_objective_finds_there():
    found = fit(FACTORS, data([3, 5, 8] * 20))
    own = found.objective
    kept, fresh = own.core, build_objective(own.table, own.statistics).core
    for theta in (found.theta, found.theta * 1.01):  # at the second nothing is kept
        for of in (
            "observed_information",
            "expected_information",
            "information_factor",
            "moment_information",
        ):
            assert_allclose(getattr(kept, of)(theta), getattr(fresh, of)(theta), rtol=1e-12, atol=1e-9)
        assert kept.value(theta) == pytest.approx(fresh.value(theta), rel=1e-14)
