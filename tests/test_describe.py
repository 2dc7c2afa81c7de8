"""Descriptive statistics by level, and matrices as articles print them."""

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
import three_levels
from msem.errors import DataError, DataWarning
from test_three_level_weights import made_up


@pytest.fixture(scope="module")
def found(demo):
    return msem.describe(demo, cluster="cluster", variables=["y1", "y2", "w1"])


def test_means_and_sizes_are_those_of_the_rows(found, demo):
    table = found.variables
    assert_allclose(table.loc[["y1", "y2"], "mean"], demo[["y1", "y2"]].mean())
    assert_allclose(table.loc[["y1", "y2"], "sd"], demo[["y1", "y2"]].std())
    clusters = demo.groupby("cluster")["w1"].first()
    assert_allclose(
        table.loc["w1", ["n", "mean", "sd", "min"]].astype(float),
        [200, clusters.mean(), clusters.std(), clusters.min()],
    )
    assert (found.nobs, found.nclusters) == (2500, 200)
    sizes = demo.groupby("cluster").size()
    assert found.sizes.to_dict() == {
        "min": sizes.min(),
        "median": sizes.median(),
        "mean": sizes.mean(),
        "max": sizes.max(),
    }


@pytest.mark.parametrize("keep", [False, True])
def test_statistics_are_described_as_their_rows(found, demo, keep):
    made = msem.summarize(demo, cluster="cluster", variables=["y1", "y2", "w1", "x1"], keep_clusters=keep)
    own = msem.describe(made, variables=["y1", "y2", "w1"])
    known = own.variables.drop(columns=["min", "max"])
    pd.testing.assert_frame_equal(known, found.variables[list(known)], check_dtype=False, rtol=1e-9)
    assert own.variables[["min", "max"]].isna().all(axis=None)
    assert own.sizes.to_dict() == found.sizes.to_dict()
    pd.testing.assert_frame_equal(own.correlations, found.correlations, rtol=1e-6, atol=1e-9)
    with pytest.raises(DataError, match="statistics have their clusters: leave it out"):
        msem.describe(made, cluster="cluster")
    with pytest.raises(DataError, match="of moments icc_table"):
        msem.describe(found.moments)


def test_weighted_statistics_are_described_by_their_weights(demo):
    data = demo.assign(w=1.0 + (demo["x1"] > 0))
    given = {"cluster": "cluster", "variables": ["y1", "w1"], "weights": "w", "weights_scale": "effective"}
    made = msem.summarize(data, keep_clusters=True, **given)
    found = msem.describe(made)
    assert found.variables.loc["y1", "n"] == 2500
    effective = data.groupby("cluster")["w"].agg(lambda w: w.sum() / (w**2).sum())
    weights = data["w"] * effective.loc[data["cluster"]].to_numpy()
    assert_allclose(found.variables.loc["y1", "mean"], np.average(data["y1"], weights=weights))
    assert found.sizes["max"] == demo.groupby("cluster").size().max()
    assert (found.variables["icc_se"].dropna() > 0).all()
    with pytest.raises(DataError, match="keep_clusters=True"):
        msem.describe(msem.summarize(data, **given))


def test_statistics_of_classes_in_schools_are_described_as_their_rows():
    data = made_up(schools=60)
    names = ["y1", "w", "v"]
    rows = msem.describe(data, cluster=three_levels.CLUSTER, variables=names)
    made = msem.summarize(data, cluster=three_levels.CLUSTER, variables=names, keep_clusters=True)
    own = msem.describe(made)
    known = own.variables.drop(columns=["min", "max"])
    pd.testing.assert_frame_equal(known, rows.variables[list(known)], check_dtype=False, rtol=1e-6)
    assert str(own).splitlines()[0] == str(rows).splitlines()[0]


def test_reliability_of_cluster_means(found, demo):
    sizes = demo.groupby("cluster").size()
    k = (2500 - (sizes**2).sum() / 2500) / 199  # Donner (1986)
    icc = found.variables["icc"]
    assert_allclose(found.variables["icc2"], k * icc / (1 + (k - 1) * icc))
    assert icc["y1"] == found.moments.icc["y1"]


def test_correlations_by_level_are_those_of_standardized_covariances(demo):
    """A fit of the unrestricted model has the same correlations, with standard errors by its own delta method."""
    pairs = "y1 ~~ y2\ny1 ~~ w1\ny2 ~~ w1"
    fit = msem.sem(f"level: 1\ny1 ~~ y2\nlevel: 2\n{pairs}", demo, cluster="cluster")
    theirs = fit.standardized()
    theirs = theirs[(theirs["op"] == "~~") & (theirs["lhs"] != theirs["rhs"])]
    ours = msem.describe(demo, cluster="cluster", variables=["y1", "y2", "w1"]).correlations
    merged = ours.merge(theirs, on=["lhs", "rhs", "level"], suffixes=("", "_fit"))
    assert len(merged) == len(ours) == 4
    assert_allclose(merged["r"], merged["est_std"], atol=1e-6)
    assert_allclose(merged["se"], merged["se_fit"], rtol=1e-4)
    z = np.arctanh(merged["r"]) / (merged["se"] / (1 - merged["r"] ** 2))
    assert_allclose(merged["z"], z)


def test_correlations_as_articles_print_them(found):
    matrix = found.matrix()
    r = found.correlations.set_index(["lhs", "rhs", "level"])["r"]
    assert matrix.loc["y2", "y1"].rstrip("*") == f"{r['y1', 'y2', 1]:.2f}"
    assert matrix.loc["y1", "y2"].rstrip("*") == f"{r['y1', 'y2', 2]:.2f}"
    assert matrix.loc["w1", "y1"] == ""
    assert "200 clusters" in str(found)
    assert "<table" in found._repr_html_()


def test_missing_values_are_counted_and_used(demo):
    data = demo[["y1", "w1", "cluster"]].copy()
    data.loc[data.index[:25], "y1"] = np.nan
    table = msem.describe(data, cluster="cluster").variables
    assert table.loc["y1", "n"] == 2475
    assert table.loc["y1", "missing"] == pytest.approx(0.01)
    assert_allclose(table.loc["y1", "mean"], data["y1"].mean())


def test_describe_without_clusters_or_with_nonsense_is_refused(demo):
    with pytest.raises(DataError, match="name the column with the cluster ids"):
        msem.describe(demo)
    with pytest.raises(DataError, match="no column 'nope'"):
        msem.describe(demo, cluster="cluster", variables="nope")
    for data, names in ((demo.assign(cluster=range(len(demo))), None), (demo, ["w1", "w2"])):
        with pytest.raises(DataError, match="no variable varies within clusters"):
            msem.describe(data, cluster="cluster", variables=names)


WHOLE = np.array([[4.0, 1.0, 0.4], [1.0, 2.0, 0.3], [0.4, 0.3, 1.5]])
FORMS = {
    "lower": "4\n1 2\n.4 .3 1.5",
    "upper": "4 1 .4\n2 .3\n1.5",
    "whole": "4 1 .4\n1 2 .3\n.4 .3 1.5",
    "one line": "4, 1, 2, .4, .3, 1.5",
    "names": "a 4\nb 1; 2\nc .4 .3 1.5\n",
    "array": WHOLE,
    "lower array": np.tril(WHOLE),
    "upper array": np.triu(WHOLE).tolist(),
    "frame": pd.DataFrame(WHOLE, columns=list("abc"), index=list("abc")),
    "frame with gaps": pd.DataFrame(np.where(np.tri(3), WHOLE, np.nan), columns=list("abc")),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_matrix_is_read(form):
    found = msem.covariance(form, names=["a", "b", "c"])
    assert_allclose(found, WHOLE)
    assert list(found.columns) == list(found.index) == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["1\n.5 1\n.2 .3 1", ".5\n.2 .3", "1 .5 .2\n1 .3\n1", ".5 .2\n.3"])
def test_correlations_with_standard_deviations(text):
    found = msem.covariance(text, sd=[2.0, 3.0, 4.0])
    assert_allclose(found, [[4, 3, 1.6], [3, 9, 3.6], [1.6, 3.6, 16]])


def test_a_minus_of_typesetters_is_a_minus():
    assert msem.covariance("4\n\u2212.5 2").iloc[0, 1] == -0.5


def test_correlations_taken_for_covariances_get_a_warning():
    with pytest.warns(DataWarning, match="correlations were taken for covariances"):
        msem.covariance("1\n.5 1")
    with pytest.warns(DataWarning, match="not positive semidefinite"):
        msem.covariance("1\n.9 1\n.9 -.9 1", sd=[1, 2, 3])


@pytest.mark.parametrize(
    ("matrix", "options", "message"),
    [
        ("1\n1.5 1", {"sd": [1, 2]}, "correlation of y2 and y1 is 1.5|y1 and y2 is 1.5"),
        ("4\n1 2", {"sd": [1, 2]}, "sd= goes with correlations"),
        ("1 2\n3 4", {}, "row 1, column 2 is 2, and row 2, column 1 is 3"),
        ("1\n2 3 4", {}, "no triangle"),
        ("1\nx y 2", {}, "no triangle|numbers"),
        ("1\n.3 q", {}, "'q' is not a number"),
        ("", {}, "no numbers"),
        ("4\n1 -2", {}, "variance of y2 is negative"),
        ("4\n1 2", {"names": ["a", "a"]}, "different names"),
        ("4\n1 2", {"names": ["a", "b", "c", "d"]}, "of 4 variables"),
        ([[1.0, np.nan], [np.nan, 1.0]], {}, "is nan"),
        (object(), {}, "not object"),
        ([["a"]], {}, "not list"),
    ],
)
def test_what_is_no_matrix_is_refused(matrix, options, message):
    with pytest.raises(DataError, match=message):
        msem.covariance(matrix, **options)


def test_the_matrix_is_what_fits_take():
    cov = msem.covariance("1\n.6 1\n.5 .4 1\n.4 .3 .5 1", names=["a", "b", "c", "d"], sd=[2, 1, 3, 1])
    fit = msem.sem("f =~ a + b + c + d", sample_cov=cov, sample_nobs=300)
    assert fit.status == "ok"
