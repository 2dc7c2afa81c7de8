"""Estimates follow the units and the origin of the variables exactly, up to means of 1e8."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import oracle
from fits import FACTORS, LABELS, PATHS, data, fit, vcov
from msem.data import clustered_data
from msem.estimation import estimate, saturated_sample
from msem.partable import parameter_table
from msem.statistics import simple_statistics
from msem.syntax import parse

VARIABLES = ["y1", "y2", "y3", "x1", "x2", "w1"]
TEXTS = pytest.mark.parametrize("text", [FACTORS, PATHS], ids=["factors", "paths"])
FIXED_X = pytest.mark.parametrize("fixed_x", [True, False])
SHIFT = 1e8


@pytest.fixture(scope="module")
def frame():
    return data([2, 3, 4, 6, 8] * 12)


def intercepts(found):
    """Which parameters are intercepts."""
    chosen = [r.free - 1 for r in found.table.rows if r.free and r.op == "~1"]
    return np.isin(np.arange(found.table.npar), chosen)


def unit_of_rows(found, units):
    """Unit of each parameter, given those of the variables; a factor has the unit of its first indicator."""
    units = dict.fromkeys(VARIABLES, 1.0) | units
    units |= {"fw": units["y1"], "fb": units["y1"], "": 1.0}
    out = np.empty(found.table.npar)
    for r in found.table.rows:
        lhs, rhs = units[r.lhs], units[r.rhs]
        if r.free:
            out[r.free - 1] = {"=~": rhs / lhs, "~": lhs / rhs, "~~": lhs * rhs, "~1": lhs}[r.op]
    return out


@TEXTS
@FIXED_X
@pytest.mark.parametrize("factor", [1e3, 1e-3])
@pytest.mark.parametrize("name", VARIABLES)
def test_another_unit_of_a_variable(frame, text, fixed_x, factor, name):
    scaled = frame.assign(**{name: factor * frame[name]})
    a, b = fit(text, frame, fixed_x), fit(text, scaled, fixed_x)
    units = unit_of_rows(a, {name: factor})
    assert b.optimum.converged
    assert_allclose(b.theta / units, a.theta, rtol=1e-7, atol=1e-9)
    count = {"y": len(frame), "x": 0 if fixed_x else len(frame), "w": 0 if fixed_x else 60}[name[0]]
    assert b.llf == pytest.approx(a.llf - count * np.log(factor), abs=1e-7)
    assert abs(len(b.optimum.diary) - len(a.optimum.diary)) <= 1
    se_a, se_b = np.sqrt(np.diag(vcov(a, frame))), np.sqrt(np.diag(vcov(b, scaled)))
    assert_allclose(se_b / units, se_a, rtol=1e-7)


def test_other_units_of_all_variables(frame):
    units = dict(zip(VARIABLES, [1e4, 1e-2, 3.0, 1e-5, 70.0, 1e3], strict=True))
    a = fit(FACTORS, frame)
    b = fit(FACTORS, frame.assign(**{v: u * frame[v] for v, u in units.items()}))
    assert_allclose(b.theta / unit_of_rows(a, units), a.theta, rtol=1e-7, atol=1e-9)
    assert abs(len(b.optimum.diary) - len(a.optimum.diary)) <= 1


def total_means(found, theta):
    """Means of all variables, those of both levels added up."""
    s = found.objective.statistics
    m = oracle.table_moments(found.table.rows, theta, s.unit, s.cluster, s.nboth)
    return np.concatenate([m.mu_b[: s.nboth] + m.mu_w[: s.nboth], m.mu_w[s.nboth :], m.mu_b[s.nboth :]])


def moved_intercepts(a, b, theta, shift):
    """Theta of the shifted data: all but the intercepts as before, and every mean `shift` higher."""
    chosen = np.flatnonzero(intercepts(a))
    names = [*a.objective.statistics.names]
    rows = [names.index(n) for n in {r.lhs: 0 for r in a.table.rows if r.free and r.op == "~1"}]
    target = (total_means(a, theta) + shift)[rows]
    out = theta.copy()
    out[chosen] = 0
    columns = [total_means(b, out + e)[rows] - total_means(b, out)[rows] for e in np.eye(len(out))[chosen]]
    out[chosen] = np.linalg.solve(np.array(columns).T, target - total_means(b, out)[rows])
    return out


@TEXTS
@FIXED_X
@pytest.mark.parametrize("information", ["observed", "expected", "first_order"])
def test_means_of_1e8(frame, text, fixed_x, information):
    """Intercepts move by the delta method, nothing else moves."""
    shifted = frame.assign(**{v: frame[v] + SHIFT for v in VARIABLES})
    a, b = fit(text, frame, fixed_x), fit(text, shifted, fixed_x)
    assert b.optimum.converged
    assert len(b.optimum.diary) < 20
    assert b.llf == pytest.approx(a.llf, abs=1e-5)
    expected = moved_intercepts(a, b, a.theta, SHIFT)
    jacobian = oracle.complex_step(lambda t: moved_intercepts(a, b, t, SHIFT), a.theta)
    covariance = jacobian @ vcov(a, frame, information) @ jacobian.T
    se = np.sqrt(np.diag(covariance))
    assert_allclose((b.theta - expected) / se, 0, atol=1e-5)
    kept = ~intercepts(a)
    assert_allclose(b.theta[kept], a.theta[kept], rtol=1e-5)
    assert_allclose(np.sqrt(np.diag(vcov(b, shifted, information))), se, rtol=1e-5)


@pytest.mark.parametrize("shift", [1e2, 1e3, 1e4, 1e6])
@TEXTS
def test_large_means_cost_few_iterations(frame, text, shift):
    """A year or a price as covariate; Newton steps need the same coordinates as scoring steps."""
    a = fit(text, frame)
    b = fit(text, frame.assign(**{v: frame[v] + shift for v in VARIABLES}))
    kept = ~intercepts(a)
    assert len(b.optimum.diary) <= (len(a.optimum.diary) + 1 if shift < 1e5 else 16)
    assert_allclose(b.theta[kept], a.theta[kept], rtol=1e-5, atol=1e-9)


def test_shared_slopes_with_large_means(frame):
    shifted = frame.assign(**{v: frame[v] + SHIFT for v in VARIABLES})
    a, b = fit(LABELS, frame), fit(LABELS, shifted)
    kept = ~intercepts(a)
    assert b.optimum.converged
    assert_allclose(b.theta[kept], a.theta[kept], rtol=1e-5)
    assert_allclose(np.diag(vcov(b, shifted))[kept], np.diag(vcov(a, frame))[kept], rtol=1e-5)


def test_many_units_with_means_of_1e8_stop():
    """Rounding of the means, 1e-8 each, keeps the decrement above its tolerance; the iterations end all the same."""
    frame = data([40, 50, 60] * 200)
    shifted = frame.assign(**{v: frame[v] + SHIFT for v in VARIABLES})
    a, b = fit(FACTORS, frame), fit(FACTORS, shifted)
    kept = ~intercepts(a)
    assert b.optimum.converged
    assert len(b.optimum.diary) < 20
    assert_allclose(b.theta[kept], a.theta[kept], rtol=1e-5)


def test_a_regression_on_a_covariate_of_mean_1e8(frame):
    """One level: least squares about the means."""
    moved = frame.assign(x1=frame["x1"] + SHIFT, x2=frame["x2"] - SHIFT, y1=frame["y1"] + SHIFT)
    table = parameter_table(parse("y1 ~ x1 + x2\ny1 ~ 1"))
    columns = clustered_data(moved, table.observed(1), None)
    found = estimate(table, saturated_sample(simple_statistics(columns, table.observed(1))))
    centred = frame - frame.mean()
    slopes = np.linalg.lstsq(centred[["x1", "x2"]], centred["y1"], rcond=None)[0]
    assert_allclose(found.theta[:2], slopes, rtol=1e-6)
    residual = centred["y1"] - centred[["x1", "x2"]] @ slopes
    variance = found.theta[table.names().index("y1~~y1")]
    assert variance == pytest.approx((residual**2).mean(), rel=1e-6)


def test_data_that_are_shifted_and_scaled_at_once(frame):
    units = dict(zip(VARIABLES, [1e4, 1e-2, 3.0, 1e-5, 70.0, 1e3], strict=True))
    a = fit(FACTORS, frame)
    b = fit(FACTORS, frame.assign(**{v: u * (frame[v] + 1e7) for v, u in units.items()}))
    kept = ~intercepts(a)
    scale = unit_of_rows(a, units)
    assert_allclose((b.theta / scale)[kept], a.theta[kept], rtol=1e-5)
