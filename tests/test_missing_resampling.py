"""Clusters with holes, drawn with replacement and left out: the same as fits to such data."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import missing
import msem
from msem.errors import DataWarning

MODEL = missing.DEMO
SINGLE = "f =~ y1 + y2 + y3 + x1"


@pytest.fixture(scope="module")
def data():
    return missing.demo_with_holes(0.15)


@pytest.fixture(scope="module")
def fit(data):
    return msem.sem(MODEL, data, cluster="cluster", missing="fiml")


def drawn(data: pd.DataFrame, weights: np.ndarray, ids: np.ndarray) -> pd.DataFrame:
    """The clusters as often as their weights say, each time under a new id."""
    parts = []
    for cluster, weight in zip(ids, weights.astype(int), strict=True):
        rows = data[data["cluster"] == cluster]
        parts += [rows.assign(cluster=f"{cluster}-{k}") for k in range(weight)]
    return pd.concat(parts, ignore_index=True)


def test_a_replicate_is_the_fit_to_the_clusters_that_were_drawn(fit, data):
    found = fit.bootstrap(3, seed=11)
    from msem.resampling.replicates import ordinary_draws

    draws = ordinary_draws(fit.estimate, fit.sample, 11)
    ids = np.sort(data["cluster"].unique())
    for replicate in range(3):
        again = msem.sem(
            MODEL, drawn(data, draws.weights(replicate, 0), ids), cluster="cluster", missing="fiml"
        )
        assert_allclose(found.array[replicate], again.params, rtol=1e-5, atol=1e-7)


def test_threads_do_not_matter(fit):
    one, two = (fit.bootstrap(12, seed=3, threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.array, two.array)


def test_standard_errors_are_near_those_of_the_information(fit):
    spread = fit.bootstrap(200, seed=5).array.std(axis=0, ddof=1)
    assert_allclose(spread, fit.bse, rtol=0.35)


def test_leaving_a_cluster_out_is_the_fit_without_it(fit, data):
    ids = data["cluster"].unique()[[0, 7]]
    exact = fit.influence(exact=True, clusters=ids)
    steps = fit.influence(clusters=ids)
    for cluster in ids:
        without = msem.sem(MODEL, data[data["cluster"] != cluster], cluster="cluster", missing="fiml")
        change = (without.params - fit.params).to_numpy()
        assert_allclose(exact.change.loc[cluster], change, atol=1e-6)
        assert_allclose(steps.change.loc[cluster] / fit.bse, change / fit.bse, atol=1e-3)
    assert (exact.measures["status"] == "ok").all()


def test_the_jackknife_uses_all_clusters(fit):
    found = fit.jackknife()
    assert len(found.array) == 200
    assert_allclose(found.array.mean(axis=0), fit.params, rtol=0.02, atol=0.01)


def test_rows_of_a_single_level(data):
    few = data.iloc[:120]
    fit = msem.cfa(SINGLE, few, missing="fiml")
    steps, exact = (fit.influence(exact=exact, clusters=[3, 50]) for exact in (False, True))
    assert_allclose(steps.change / fit.bse, exact.change / fit.bse, atol=2e-3)
    assert (steps.measures["size"] == 1).all()
    without = msem.cfa(SINGLE, few.drop(index=50), missing="fiml")
    assert_allclose(exact.change.loc[50], without.params - fit.params, atol=1e-6)


def test_rows_of_a_single_level_are_drawn_by_cluster(data):
    fit = msem.cfa(SINGLE, data, missing="fiml", cluster="cluster")
    from msem.resampling.replicates import ordinary_draws

    weights = ordinary_draws(fit.estimate, fit.sample, 2).weights(0, 0)
    again = msem.cfa(SINGLE, drawn(data, weights, np.sort(data["cluster"].unique())), missing="fiml")
    assert_allclose(fit.bootstrap(2, seed=2).array[0], again.params, rtol=1e-6, atol=1e-8)
    one = data["cluster"].iloc[0]
    left = fit.influence(exact=True, clusters=[one])
    without = msem.cfa(SINGLE, data[data["cluster"] != one], missing="fiml")
    assert_allclose(left.change.loc[one], without.params - fit.params, atol=1e-6)
    assert_allclose(fit.influence(clusters=[one]).change, left.change, atol=1e-3 * fit.bse.max())


def test_groups_are_drawn_each_by_itself(data):
    grouped = data.assign(g=np.where(data["cluster"] % 2 == 0, "a", "b"))
    fit = msem.sem(MODEL, grouped, cluster="cluster", group="g", missing="fiml")
    assert fit.bootstrap(2, seed=1).array.shape == (2, fit.npar)


def test_functions_of_a_fit_are_computed_in_each_replicate(fit):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        found = fit.bootstrap(3, seed=4, statistic=lambda replicate: replicate.icc.to_numpy())
    assert found.array.shape == (3, 3)
    assert np.isfinite(found.array).all()


def test_parametric_samples_have_the_holes_of_the_data_and_the_spread_of_the_model(fit):
    found = fit.bootstrap(300, seed=5, kind="parametric")
    error = found.array.std(axis=0, ddof=1) / np.sqrt(len(found.array))
    assert (np.abs(found.array.mean(axis=0) - fit.params) < 5 * error).all()
    assert_allclose(found.array.std(axis=0, ddof=1), fit.bse, rtol=0.2)


def test_parametric_samples_keep_covariates_and_holes(fit):
    from msem.resampling.replicates import parametric_draws

    before, after = fit.statistics.data, parametric_draws(fit.estimate, fit.sample, 3).statistics(0)[0]
    names = fit.statistics.unit
    kept = [k for k, name in enumerate(names) if name.startswith("x")]
    assert_allclose(after.cell_means[kept], before.cell_means[kept], atol=1e-12)
    assert np.abs(after.cell_means[0] - before.cell_means[0]).max() > 0.1
    np.testing.assert_array_equal(after.cell_pattern, before.cell_pattern)
    for pattern, ours, theirs in zip(before.unit_patterns, after.scatter, before.scatter, strict=True):
        at = [int(np.sum(pattern[:k])) for k in kept]
        assert_allclose(ours[np.ix_(at, at)], theirs[np.ix_(at, at)], rtol=1e-9, atol=1e-9)
