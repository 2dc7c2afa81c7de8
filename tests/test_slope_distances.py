"""Distances of units and clusters from models with random slopes, against dense densities."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import oracle_slopes
import slope_cases
import three_levels
from crossed_cases import SlopeCase
from msem.data.crossed import CrossedPosterior
from msem.errors import ImproperSolutionWarning, UnsupportedError


def whole(y, mean, cov, given):
    """Squared distance given some of the values."""
    off, part = y - mean, np.ix_(given, given)
    return off @ np.linalg.solve(cov, off) - off[given] @ np.linalg.solve(cov[part], off[given])


def of_unit(y, mean, cov, asked):
    """Squared distance of some of the values given all others."""
    rest = np.setdiff1d(np.arange(len(y)), asked)
    paths = np.linalg.solve(cov[np.ix_(rest, rest)], cov[np.ix_(rest, asked)]).T
    off = (y - mean)[asked] - paths @ (y - mean)[rest]
    return off @ np.linalg.solve(cov[np.ix_(asked, asked)] - paths @ cov[np.ix_(rest, asked)], off)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("name", slope_cases.MODELS)
def test_two_levels(name, holes):
    case = slope_cases.Case(name, holes=holes)
    unit, both, between, id_ = case.roles
    rows, s = case.sample.groups[0].rows, case.statistics
    posterior = case.clusters.posterior(s.variables, case.objective.compiled_moments(case.near))
    fixed = {*case.fixed, *case.table.exogenous(2)}
    given = [k for k, variable in enumerate(s.names) if variable in fixed]
    columns = [rows.columns[variable] for variable in unit]
    distance, df = posterior.whole_distances(given, columns, rows.codes)
    own, own_df = posterior.unit_distances([k for k in given if k < len(unit)], columns, rows.codes)
    model = oracle_slopes.levels(case.table.rows, case.near, unit, both, between)
    parts = oracle_slopes.parts_of(case.table.rows, case.data, unit, between, id_)
    codes = pd.factorize(case.data[id_])[0]
    checked = 0
    for j, (x, y) in enumerate(parts):
        mean, cov, *_ = oracle_slopes.cluster(model, unit, both, between, x)
        seen = np.flatnonzero(~np.isnan(y))
        names = np.array([*(unit * (len(y) // len(unit)))[: len(y) - len(between)], *between])[seen]
        y, mean, cov = y[seen], mean[seen], cov[np.ix_(seen, seen)]
        held = [k for k, variable in enumerate(names) if variable in fixed]
        assert distance[j] == pytest.approx(whole(y, mean, cov, held), rel=1e-9)
        assert df[j] == len(y) - len(held)
        for i, row in enumerate(np.flatnonzero(codes == j)):
            asked = [k for k, at in enumerate(seen) if at // len(unit) == i and names[k] not in fixed]
            asked = [k for k in asked if seen[k] < len(unit) * (codes == j).sum()]
            assert own_df[row] == len(asked)
            if asked:
                assert own[row] == pytest.approx(of_unit(y, mean, cov, asked), rel=1e-8)
                checked += 1
    assert checked > 20


@pytest.mark.parametrize("holes", [False, True])
def test_three_levels(holes):
    case = three_levels.Case("slopes", holes=holes)
    rows, s = case.sample.groups[0].rows, case.statistics
    posterior = case.clusters.posterior(s.variables, case.objective.compiled_moments(case.near))
    fixed = {name for level in (1, 2, 3) for name in case.table.exogenous(level)}
    given = [k for k, variable in enumerate(s.names) if variable in fixed]
    columns = [rows.columns[variable] for variable in s.unit]
    distance, df = posterior.whole_distances(given, columns, rows.lowest)
    own, own_df = posterior.unit_distances(given, columns, rows.lowest)
    for j, ((part, values), (y, mean, cov)) in enumerate(
        zip(case.stacked(), case.dense(case.near), strict=True)
    ):
        held = [k for k, v in enumerate(values) if v[1] in fixed]
        assert distance[j] == pytest.approx(whole(y, mean, cov, held), rel=1e-8)
        assert df[j] == len(y) - len(held)
        index = case.schools[j].index
        for i in range(0, len(part), 3):
            asked = [k for k, v in enumerate(values) if v[2] == i and v[1] not in fixed]
            assert own_df[index[i]] == len(asked)
            if asked:
                assert own[index[i]] == pytest.approx(of_unit(y, mean, cov, asked), rel=1e-8)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_units_of_crossed_classifications(missing):
    case = SlopeCase(missing=missing)
    means, covs = case.moments(case.theta)
    first, second = (np.array(part) for part in case.data.cells[:2])
    patterns = [tuple(own) for own in case.data.patterns]
    seen = ~np.isnan(case.values)
    number = np.array(case.data.cells[2])
    cell = np.full(case.count[0], -1)
    for i in range(case.count[0]):
        if seen[i].any():
            own = patterns.index(tuple(np.flatnonzero(seen[i])))
            (cell[i],) = np.flatnonzero(
                (first == case.of[1][i]) & (second == case.of[2][i]) & (number == own)
            )[:1]
    posterior = CrossedPosterior(case.data, cell, tuple(zip(means, covs, strict=True)), list(case.x.T))
    columns = [*np.transpose(case.values)]
    found, df = posterior.unit_distances([], columns, np.zeros(case.count[0], dtype=np.int64))
    y, centre, cov = case.dense(case.theta)
    of = [i for i in range(case.count[0]) for v in range(3) if seen[i, v]]
    for i in range(case.count[0]):
        asked = [k for k, unit in enumerate(of) if unit == i]
        assert df[i] == len(asked)
        if asked:
            assert found[i] == pytest.approx(of_unit(y, centre, cov, asked), rel=1e-7)


def test_distances_of_fits():
    """Under the model they have chi-square distributions; new data have their own."""
    data = slope_cases.sample(3, 60)
    text = """
    level: 1
      fw =~ y1 + y2 + y3
      fw ~ rv("s")*x1 + x3
    level: 2
      y1 ~~ y2 + y3
      y2 ~~ y3
      s ~~ y1
      y1 ~ w
    """
    with pytest.warns(ImproperSolutionWarning):
        fit = msem.sem(text, data, cluster="id")
    frame = fit.distances()
    assert list(frame.columns) == ["size", "distance", "df", "pvalue"]
    assert frame["distance"].sum() == pytest.approx(frame["df"].sum(), rel=1e-6)
    some = data[data["id"].isin([4, 7])]
    assert_allclose(fit.distances(newdata=some), frame.loc[some["id"].unique()], rtol=1e-9)
    units = fit.distances(1)
    assert_allclose(fit.distances(1, newdata=some)["distance"], units.loc[some.index, "distance"], rtol=1e-9)


def test_what_is_no_normal_distribution_has_none():
    rng = np.random.default_rng(1)
    code = np.repeat(np.arange(40), 6)
    x = rng.normal(size=40)[code] + rng.normal(size=240)
    y = (0.5 + 0.4 * rng.normal(size=40))[code] * x + rng.normal(size=240)
    text = 'level: 1\n y ~ rv("s")*x\nlevel: 2\n y ~ x\n y ~~ s'
    fit = msem.sem(text, {"g": code, "x": x, "y": y}, cluster="g", fixed_x=False)
    with pytest.raises(UnsupportedError, match="mixture of normal"):
        fit.distances()
