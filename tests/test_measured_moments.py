"""Moments of what is measured on the levels of nested and crossed data, against the rows themselves."""

import numpy as np
import pytest

import crossed_cases
import three_levels


def moments(values, weights):
    """Means of all that is observed, weighted numbers of pairs, and covariances over these about the means."""
    seen = ~np.isnan(values)
    mean = np.array(
        [np.average(x[own], weights=weights[own]) for x, own in zip(values.T, seen.T, strict=True)]
    )
    off = np.where(seen, values - mean, 0)
    pairs = (seen * weights[:, None]).T @ seen
    return mean, pairs, (off * weights[:, None]).T @ off / np.maximum(pairs, 1)


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("holes", [False, True])
def test_nested(holes, weights):
    case = three_levels.Case("all kinds", seed=3, holes=holes, weights=weights)
    s = case.statistics
    rows = three_levels.repeated(case.data) if weights else case.data
    units = rows[~rows[list(s.variables.measured[0])].isna().all(axis=1)]
    firsts = [
        units,
        rows.groupby(["school", "class"], sort=False).max(),
        rows.groupby("school", sort=False).max(),
    ]
    of_schools = case.statistics.data.weight.sum() / len(firsts[2])  # weights are scaled to a mean of 1
    for level, (frame, names) in enumerate(zip(firsts, s.variables.measured, strict=True)):
        mean, pairs, cov = moments(frame[list(names)].to_numpy(float), np.full(len(frame), of_schools))
        found = s.data.moments(level)
        np.testing.assert_allclose(found[0], mean, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(found[1], pairs, rtol=1e-12)
        np.testing.assert_allclose(found[2] * np.maximum(pairs, 1), cov * np.maximum(pairs, 1), atol=1e-10)


def test_products_and_pairs_of_clusters():
    case = three_levels.Case("all kinds", seed=3, holes=True)
    s = case.statistics
    names = list(s.variables.measured[0])
    by_class = case.data.groupby(["school", "class"], sort=False)
    off = (case.data[names] - by_class[names].transform("mean")).fillna(0).to_numpy()
    np.testing.assert_allclose(s.data.products_within_clusters, off.T @ off, atol=1e-10)
    pattern = case.data[names].notna().apply(tuple, axis=1).rename("pattern")
    by_cell = case.data.assign(pattern=pattern).groupby(["school", "class", "pattern"], sort=False)
    off = (case.data[names] - by_cell[names].transform("mean")).fillna(0).to_numpy()
    np.testing.assert_allclose(s.data.products_within_cells, off.T @ off, atol=1e-10)
    for level, cluster in ((1, ["school", "class"]), (2, ["school"])):
        known = [name for own in s.variables.measured[: level + 1] for name in own]
        seen = case.data.groupby(cluster)[known].count().to_numpy() > 0
        np.testing.assert_array_equal(s.data.clusters_with_pairs(level), seen.T.astype(int) @ seen)


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_crossed(missing):
    case = crossed_cases.Case(seed=2, missing=missing)
    for level, values in enumerate((case.values, *case.own)):
        found = case.data.moments(level)
        expected = moments(np.asarray(values), np.ones(len(values)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-12)


def test_rows_of_slopes():
    """Where covariates have slopes a cell is rows of a triangle, and its moments are those of the units."""
    case = three_levels.Case("slopes", seed=2)
    s = case.statistics
    names = list(s.plain.variables.measured[0])
    mean, pairs, cov = moments(case.data[names].to_numpy(float), np.ones(len(case.data)))
    found = s.data.moments(0)
    np.testing.assert_allclose(found[0], mean, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(found[1], pairs, rtol=1e-12)
    np.testing.assert_allclose(found[2], cov, rtol=1e-10, atol=1e-12)
