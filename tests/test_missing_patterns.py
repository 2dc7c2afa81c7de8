"""Which variables are observed together, as users ask before a fit."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose

import msem
from msem.errors import DataError

NAN = np.nan


def holes() -> pd.DataFrame:
    """The demonstration data with holes in units, in clusters, and without anything in some."""
    frame = msem.load_demo()[["y1", "y2", "x1", "w1", "w2", "cluster"]]
    rng = np.random.default_rng(4)
    for name in ("y1", "y2", "w1"):
        frame.loc[rng.random(len(frame)) < 0.2, name] = NAN
    frame.loc[frame["cluster"].isin([4, 9]), "w2"] = NAN
    frame.loc[frame["cluster"] == 7, ["y1", "y2", "x1", "w1", "w2"]] = NAN
    frame.loc[[11, 12], ["y1", "y2", "x1", "w1", "w2"]] = NAN
    frame.loc[100:102, ["y1", "y2", "x1"]] = NAN
    frame.index = [f"row {k}" for k in range(len(frame))]
    return frame


@pytest.fixture(scope="module")
def found() -> msem.MissingPatterns:
    return msem.missing_patterns(holes(), cluster="cluster")


def test_patterns_count_every_unit(found: msem.MissingPatterns) -> None:
    table = found.patterns
    unit = ["y1", "y2", "x1"]
    counts = holes()[unit].notna().value_counts()
    assert list(table.columns) == [*unit, "count", "share"]
    assert len(table) == len(counts)
    for row in table.itertuples(index=False):
        assert counts[row[:3]] == row.count
    assert table["count"].sum() == 2500
    assert_allclose(table["share"], table["count"] / 2500)
    observed = table[unit].sum(axis=1)
    assert observed.is_monotonic_decreasing
    assert observed.iloc[-1] == 0


def test_patterns_of_clusters(found: msem.MissingPatterns) -> None:
    table = found.cluster_patterns
    assert table.drop(columns="share").to_dict("list") == {
        "w1": [True, True, False],
        "w2": [True, False, False],
        "count": [197, 2, 1],
    }
    assert_allclose(table["share"], [0.985, 0.01, 0.005])


def test_coverage_of_each_level(found: msem.MissingPatterns) -> None:
    frame = holes()
    seen = frame[["y1", "y2", "x1"]].notna().astype(float)
    expected = {1: seen.T @ seen / 2500}
    have = frame.groupby("cluster")[["y1", "y2", "x1", "w1", "w2"]].count().gt(0).astype(float)
    expected[2] = have.T @ have / 200
    assert list(found.coverage) == [1, 2]
    for level, table in found.coverage.items():
        pd.testing.assert_frame_equal(table, expected[level])


def test_variables_by_level(found: msem.MissingPatterns) -> None:
    table = found.variables.set_index(["level", "variable"])
    assert list(table.index) == [
        (1, "y1"),
        (1, "y2"),
        (1, "x1"),
        *((2, n) for n in ("y1", "y2", "x1", "w1", "w2")),
    ]
    assert table.loc[(1, "y1"), "n"] == holes()["y1"].count()
    assert_allclose(table.loc[(1, "y1"), "missing"], holes()["y1"].isna().mean())
    assert table.loc[(2, "w2"), "n"] == 197
    assert table["n"].dtype == np.int64


def test_what_is_empty(found: msem.MissingPatterns) -> None:
    frame = holes()
    seen = frame.drop(columns="cluster").notna().any(axis=1)
    assert list(found.empty_rows) == list(frame.index[~seen])
    assert list(found.empty_clusters) == [7]
    assert (found.nrows, found.nclusters, found.no_cluster) == (2500, 200, 0)


def test_tables_are_made_anew(found: msem.MissingPatterns) -> None:
    table = found.patterns
    table["count"] = 0
    assert found.patterns["count"].sum() == 2500
    with pytest.raises(AttributeError):
        found.nrows = 3  # type: ignore[misc]


def test_rows_without_a_cluster_are_left_aside() -> None:
    frame = holes()
    frame["cluster"] = frame["cluster"].astype(float)
    frame.iloc[:5, frame.columns.get_loc("cluster")] = NAN
    found = msem.missing_patterns(frame, cluster="cluster")
    assert (found.nrows, found.no_cluster, found.nclusters) == (2495, 5, 199)
    assert "Rows without a cluster id, left aside: 5" in str(found)


def test_levels_as_named() -> None:
    frame = holes()
    one = msem.missing_patterns(frame, cluster="cluster", within=["y1", "x1"], between=["y1", "w1"])
    assert (one.unit, one.between_only, one.nboth) == (("y1", "x1"), ("w1",), 1)
    assert list(one.coverage[2]) == ["y1", "w1"]
    both = msem.missing_patterns(frame, cluster="cluster", within=["y1", "y2"])
    assert (both.unit, both.between_only, both.nboth) == (("y1", "y2"), (), 2)
    assert both.cluster_patterns.empty
    inferred = msem.missing_patterns(frame, cluster="cluster", between=["w1", "y1"])
    assert (inferred.unit, inferred.between_only) == (("y1",), ("w1",))


def test_only_variables_of_clusters() -> None:
    found = msem.missing_patterns(holes(), cluster="cluster", within=[], between=["w1", "w2"])
    assert found.patterns.empty
    assert found.cluster_patterns["count"].tolist() == [197, 2, 1]
    assert "w2" in str(found)


def test_one_level() -> None:
    frame = holes().drop(columns="cluster")
    found = msem.missing_patterns(frame)
    assert found.patterns["count"].sum() == 2500
    assert list(found.coverage) == [1]
    assert found.cluster_patterns.empty
    assert (found.nclusters, found.cluster, len(found.empty_clusters)) == (0, None, 0)
    assert list(found.variables["level"]) == [1] * 5
    assert list(msem.missing_patterns(frame, within=["y1", "w1"]).patterns)[:2] == ["y1", "w1"]


def test_complete_data_have_one_pattern() -> None:
    found = msem.missing_patterns(msem.load_demo(), cluster="cluster")
    assert (len(found.patterns), len(found.cluster_patterns)) == (1, 1)
    assert found.patterns["share"].tolist() == [1.0]
    assert not found.variables["missing"].any()
    assert found.between_only == ("w1", "w2")


def test_print(found: msem.MissingPatterns) -> None:
    text = str(found)
    assert repr(found) == text
    assert "Missing data patterns of 2500 rows in 200 clusters [cluster]" in text
    assert "Rows in which nothing is observed: " in text
    assert "Clusters in which nothing is observed: 1" in text
    assert " x  .    197" not in text
    assert "w1 w2  count  share" in text
    html = found._repr_html_()
    assert "<table" in html
    assert "200 clusters [cluster]" in html


def test_names_are_escaped_and_long_lists_are_cut() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((400, 6))
    values[rng.random(values.shape) < 0.4] = NAN
    frame = pd.DataFrame(values, columns=["<b>", *"abcde"])
    found = msem.missing_patterns(frame)
    assert "&lt;b&gt;" in found._repr_html_()
    assert "<b>a" not in found._repr_html_()
    assert f"the first 20 of {len(found.patterns)}" in str(found)


WRONG = {
    "between alone": ({"between": ["w1"]}, "between= names variables of clusters"),
    "unknown": ({"within": ["y9"]}, "no column 'y9'"),
    "wrong level": (
        {"cluster": "cluster", "within": ["y2"], "between": ["y1"]},
        "'y1' is in the level-2 block only, but varies within",
    ),
    "nothing": ({"within": []}, "no numeric columns"),
}


@pytest.mark.parametrize(("arguments", "text"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(arguments: dict[str, object], text: str) -> None:
    with pytest.raises(DataError, match=text):
        msem.missing_patterns(holes(), **arguments)  # type: ignore[arg-type]


def test_a_name_of_a_result_column_and_empty_data() -> None:
    frame = holes().rename(columns={"y1": "count"})
    with pytest.raises(DataError, match="'count' has the name of a column of the result"):
        msem.missing_patterns(frame, cluster="cluster")
    with pytest.raises(DataError, match="no row with values is left"):
        msem.missing_patterns(pd.DataFrame({"a": [NAN, NAN]}))
    with pytest.raises(DataError, match="cannot read data"):
        msem.missing_patterns(3)
