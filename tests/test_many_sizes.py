"""Very many sizes of clusters in place of which a few stand, and products of scores straight from rows."""

import numpy as np
import pandas as pd
import pytest

import msem
from msem import _core
from msem.data.complete import ARRAYS, SampleStatistics
from msem.data.complete_clusters import RowArrays
from msem.data.sample import Sample
from msem.estimation.objective import build_objective
from msem.estimation.scoreproducts import score_products
from msem.model.variables import Variables

MODEL = "level: 1\n fw =~ y1 + y2\n fw ~ x\nlevel: 2\n fb =~ y1 + y2\n fb ~ z"


def clusters(count=1200, seed=2):
    """Weights, sizes, means and products within of clusters, all of another size."""
    rng = np.random.default_rng(seed)
    sizes = np.sort(np.exp(rng.uniform(-1, 1.5, count)))
    root = rng.normal(size=(count, 3, 6))
    products = root @ root.transpose(0, 2, 1) * (0.2 * sizes[:, None, None])
    col, row = np.triu_indices(3)
    means = rng.normal(size=(count, 4)) @ (np.eye(4) + 0.3) + 7
    return rng.uniform(0.3, 3, count), sizes, means, np.ascontiguousarray(products[:, row, col])


def statistics(weights, sizes, means, within):
    known = dict(zip(ARRAYS, _core.counted_clusters(sizes, means, within, 3, weights), strict=True))
    nobs, nclusters = known["sizes"] @ known["counts"], known["counts"].sum()
    return SampleStatistics(
        Variables.of_units_and_clusters(("y1", "y2", "x"), ("z",), 2), nobs, nclusters, **known, source="data"
    )


def model_and_start(data):
    fit = msem.sem(MODEL, msem.LevelMoments(*moments(), nobs=5000, nclusters=900))
    return fit.table, build_objective(fit.table, Sample.of(data).statistics)


def moments():
    within = pd.DataFrame(np.eye(3) + 0.4, index=["y1", "y2", "x"], columns=["y1", "y2", "x"])
    between = pd.DataFrame(0.5 * np.eye(3) + 0.3, index=["y1", "y2", "z"], columns=["y1", "y2", "z"])
    return within, between, {"y1": 7.0, "y2": 7.0, "z": 7.0}


@pytest.mark.parametrize("psi", [0.4, 1e-3, -2e-3, -0.02, -0.05])
def test_few_sizes_in_place_of_many_have_the_same_likelihood(psi):
    weights, sizes, means, within = clusters()
    table, whole = model_and_start(statistics(weights, sizes, means, within))
    parts = [
        model_and_start(statistics(*(one[k : k + 80] for one in (weights, sizes, means, within))))[1]
        for k in range(0, len(sizes), 80)  # too few to be put together
    ]
    theta = np.full(table.npar, 0.7)
    for number, row in enumerate(table.rows):
        free = row.free
        if free and row.op == "~~" and row.lhs == row.rhs and row.level == 2:
            theta[free - 1] = psi * (1 + 0.1 * number)
        elif free and row.op == "~1":
            theta[free - 1] = 6.5
    for ask in ("value", "evaluate", "observed_information", "expected_information"):
        found, *others = (
            getattr(one.core, ask)(theta)[1] if ask == "evaluate" else getattr(one.core, ask)(theta)
            for one in (whole, *parts)
        )
        expected = sum(others)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-11 * np.abs(expected).max())


def test_outside_of_the_domain_of_one_cluster_there_is_no_likelihood():
    known = clusters()
    table, whole = model_and_start(statistics(*known))
    theta = np.full(table.npar, 0.7)
    for row in table.rows:
        if row.free and row.op == "~~" and row.lhs == row.rhs and row.level == 2:
            theta[row.free - 1] = -5.0
    assert not np.isfinite(whole.core.value(theta))


@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_products_from_rows_are_those_of_the_scores(order):
    rng = np.random.default_rng(5)
    count = 500
    code = np.repeat(np.arange(count), np.resize([2, 3, 5], count))
    x, z = rng.normal(size=len(code)), rng.normal(size=count)
    f = (rng.normal(size=count) + z)[code] + rng.normal(size=len(code)) + x
    noise = rng.normal(size=(2, len(code))) + rng.normal(size=(2, count))[:, code]
    data = pd.DataFrame({f"y{k + 1}": 50 + f + noise[k] for k in (0, 1)}).assign(x=x, z=z[code], school=code)
    if order == "shuffled":
        data = data.sample(frac=1, random_state=1)
    fit = msem.sem(MODEL, data, cluster="school", estimator="MLR")
    known = fit.sample.clusters[0]
    assert known.products is not None
    scores = fit.scores().to_numpy()
    found = score_products(fit.objective, fit.theta, fit.sample.clusters)
    np.testing.assert_allclose(found, scores.T @ scores, rtol=1e-8, atol=1e-8 * np.abs(found).max())


@pytest.mark.parametrize("sizes", [[1, 2, 5, 8], [9, 20, 64, 65, 130]])
@pytest.mark.parametrize("order", ["C", "F"])
def test_products_of_clusters_of_all_sizes(sizes, order):
    rng = np.random.default_rng(7)
    size = np.resize(sizes, 300)
    code = np.repeat(np.arange(300), size)
    x = np.array(rng.normal(size=(len(code), 5)) + 3, order=order)
    z = rng.normal(size=300)
    origin, scale = np.full(6, 2.5), np.array([1.5, 0.5, 2.0, 1.0, 1.2, 0.7])
    found, sums = _core.products_of_rows(list(x.T), [z[code]], code, 300, origin, scale)
    np.testing.assert_array_equal(found, sorted(sizes))
    first, second = np.triu_indices(6)
    b, a = np.triu_indices(5)
    for number, products in zip(found, sums, strict=True):
        t = []
        for j in np.flatnonzero(size == number):
            own = x[code == j]
            v = (np.append(own.mean(axis=0), z[j]) - origin) / scale
            within = (own - own.mean(axis=0)) / scale[:5]
            t.append(np.concatenate([[1], v, v[second] * v[first], (within.T @ within)[a, b]]))
        expected = np.transpose(t) @ t
        np.testing.assert_allclose(products, expected, rtol=1e-11, atol=1e-11 * np.abs(expected).max())


@pytest.mark.parametrize("variables", [1, 2, 5, 9])
def test_products_of_rows_of_one_level(variables):
    rng = np.random.default_rng(variables)
    x = rng.normal(size=(321, variables)) + 3
    weights, origin, scale = rng.uniform(0.5, 2, 321), np.full(variables, 2.5), np.full(variables, 1.5)
    v = (x - origin) / scale
    col, row = np.triu_indices(variables)
    t = np.column_stack([np.ones(321), v, v[:, row] * v[:, col]])
    for own, columns in ((None, list(x.T)), (weights, list(np.ascontiguousarray(x.T)))):
        expected = t.T @ t if own is None else (t.T * own**2) @ t
        found = _core.row_products(columns, 321, origin, scale, own)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)
        # without odd products those of one and three values are left 0
        odd = (np.arange(len(t.T)) > 0) & (np.arange(len(t.T)) <= variables)
        expected[np.ix_(odd, ~odd)] = expected[np.ix_(~odd, odd)] = expected[np.ix_(odd, odd)] = 0
        found = _core.row_products(columns, 321, origin, scale, own, even=True)
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("means", [False, True])
def test_odd_products_are_left_out_where_scores_have_no_part_in_them(means):
    rng = np.random.default_rng(3)
    values = rng.standard_exponential((800, 3)) @ (np.eye(3) + 0.5)
    data = pd.DataFrame(values, columns=["y1", "y2", "y3"])
    fit = msem.sem("f =~ y1 + y2 + y3", data, estimator="MLR", meanstructure=means)
    rows = RowArrays(list(values.T), centred=True)  # as those of a model without means are
    assert rows.products.even
    theta = fit.theta * np.where(fit.theta < 0.5, 1.1, 0.9)
    scores = fit.objective.scores(theta, rows)
    found = score_products(fit.objective, theta, [rows])
    np.testing.assert_allclose(found, scores.T @ scores, rtol=1e-9, atol=1e-9 * np.abs(found).max())
    if not means:
        assert fit.sample.clusters[0].products.even
        np.testing.assert_allclose(rows.about, fit.sample.clusters[0].about, rtol=1e-13)
