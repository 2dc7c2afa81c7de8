"""Distances of clusters and units from a fitted model."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import msem
from msem.errors import DataError, ModelError
from rows import DEMO

BOTH = """
level: 1
    f =~ y1 + y2 + y3
    f ~ x1 + x2
    x1 ~ x3
level: 2
    g =~ y1 + y2 + y3
    g ~ x2 + w1
    w2 ~ g
"""


@pytest.fixture(scope="module")
def fit(demo):
    return msem.sem(DEMO, demo, cluster="cluster")


def stacked(found, part):
    """Names, residuals and covariance matrix of the data of one cluster: units one after the other, then z."""
    within, between = (found.implied[level].observed for level in (1, 2))
    unit = list(within.cov)
    cluster = [name for name in between.cov if name not in unit]
    n = len(part)
    names = [(i, name) for i in range(n) for name in unit] + [(n, name) for name in cluster]
    mean = within.mean.add(between.mean, fill_value=0)
    variables = [name for _, name in names]
    cov = between.cov.reindex(index=variables, columns=variables, fill_value=0.0).to_numpy(copy=True)
    for i in range(n):
        own = slice(i * len(unit), (i + 1) * len(unit))
        cov[own, own] += within.cov.to_numpy()
    values = [part[name].iloc[min(i, n - 1)] for i, name in names]
    return names, np.array(values) - mean[variables].to_numpy(), cov


def quadratic(residual, cov, given):
    part = np.ix_(given, given)
    return residual @ np.linalg.solve(cov, residual) - residual[given] @ np.linalg.solve(
        cov[part], residual[given]
    )


@pytest.mark.parametrize(
    ("text", "covariates", "df"),
    [(DEMO, {"x1", "x2", "x3", "w1", "w2"}, 3), (BOTH, {"x3", "w1"}, 5)],
    ids=["within_and_between_only", "covariate_at_both_levels"],
)
def test_distances_are_those_of_the_stacked_cluster_given_fixed_covariates(demo, text, covariates, df):
    found = msem.sem(text, demo, cluster="cluster")
    clusters, units = found.distances(2), found.distances(1)
    for name in (1, 60, 120):
        part = demo[demo["cluster"] == name]
        names, residual, cov = stacked(found, part)
        given = [k for k, (_, variable) in enumerate(names) if variable in covariates]
        assert clusters.loc[name, "distance"] == pytest.approx(quadratic(residual, cov, given), rel=1e-9)
        assert clusters.loc[name, "df"] == len(names) - len(given)
        for i in (0, len(part) - 1):
            others = [k for k, (unit, _) in enumerate(names) if unit != i]
            own = [k for k, (unit, variable) in enumerate(names) if unit == i and variable in covariates]
            exact = quadratic(residual, cov, [*others, *own])
            assert units.loc[part.index[i], "distance"] == pytest.approx(exact, rel=1e-9)
    assert (units["df"] == df).all()


def test_parts_of_a_distance_add_up(demo, fit):
    table = fit.distances()
    np.testing.assert_allclose(table["between"] + table["within"], table["distance"])
    np.testing.assert_allclose(table["between_df"] + table["within_df"], table["df"])
    assert (table["within_df"] == 3 * (table["size"] - 1)).all()
    assert (table["size"] == demo.groupby("cluster").size()).all()
    # residual variances are free, so the likelihood is at a maximum in the scale of all covariance matrices
    assert table["distance"].sum() == pytest.approx(table["df"].sum(), rel=1e-6)


def test_p_values_are_uniform_under_the_model(fit):
    clusters, units = fit.distances(), fit.distances(1)
    for values in (clusters["between_pvalue"], clusters["within_pvalue"], units["pvalue"]):
        n = len(values)
        gap = np.abs(np.sort(values) - (np.arange(n) + 0.5) / n).max()
        assert gap < 1.36 / np.sqrt(n) + 0.5 / n  # Kolmogorov-Smirnov at 5%


def test_a_cluster_and_a_unit_that_are_far_out_are_found(demo):
    odd = demo.copy()
    odd.loc[odd["cluster"] == 9, ["y1", "y2"]] += [6.0, -6.0]
    odd.loc[1000, "y3"] += 9
    found = msem.sem(DEMO, odd, cluster="cluster")
    assert found.distances()["between_pvalue"].idxmin() == 9
    assert found.distances(1)["pvalue"].idxmin() == 1000
    assert found.distances()["within_pvalue"].idxmin() == odd.loc[1000, "cluster"]


def test_a_cluster_of_one_unit_has_no_within_part(demo, fit):
    table = fit.distances(newdata=demo.groupby("cluster").head(1))
    assert (table["within"] == 0).all()
    assert table["within_pvalue"].isna().all()
    assert table["distance"].equals(table["between"])


def test_single_level_distances(demo):
    found = msem.sem(
        "f =~ y1 + y2 + y3\n f ~ x1", demo.head(100).assign(y2=lambda d: d["y2"].where(d.index != 4))
    )
    table = found.distances()
    assert list(table) == ["distance", "df", "pvalue"]
    assert list(table.index[table["distance"].isna()]) == [4]
    assert table["distance"].sum() == pytest.approx(3 * 99, rel=1e-6)
    moments = found.implied[1].observed.cov
    names = ["y1", "y2", "y3", "x1"]
    data = demo.head(100).drop(index=4)[names]
    residual = (data - data.mean()).to_numpy()
    cov = moments.loc[names, names].to_numpy()
    exact = [quadratic(one, cov, [3]) for one in residual]
    np.testing.assert_allclose(table["distance"].dropna(), exact, rtol=1e-9)


def test_groups_and_bad_requests(demo, fit):
    labelled = demo.assign(school=np.where(demo["cluster"] % 3 == 0, "north", "south"))
    found = msem.sem(DEMO, labelled, cluster="cluster", group="school")
    alone = msem.sem(DEMO, labelled[labelled["school"] == "north"], cluster="cluster")
    table = found.distances()
    north = table[table["group"] == "north"].drop(columns="group")
    pd.testing.assert_frame_equal(north, alone.distances(), rtol=1e-4)
    with pytest.raises(ModelError, match="one level"):
        msem.cfa("f =~ y1 + y2 + y3", demo).distances(2)
    with pytest.raises(DataError, match="newdata="):
        msem.sem(DEMO, fit.saturated).distances()
