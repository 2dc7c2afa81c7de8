"""The group column: labels of any type, their order, missing ones, clusters in two groups."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from msem.data.grouping import grouped_data, read_groups, text_of
from msem.errors import DataError

VALUES = [3, 1, 2, 1, 3, 3]
NAN = float("nan")


def groups_of(values: Any) -> tuple[tuple[str, ...], list[int]]:
    """Labels and codes of a column."""
    found = read_groups({"g": values}, "g")
    return found.labels, found.codes.tolist()


COLUMNS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "integers": (VALUES, ("1", "2", "3")),
    "two digits": ([10 * v for v in VALUES], ("10", "20", "30")),
    "floats": ([v + 0.0 for v in VALUES], ("1", "2", "3")),
    "fractions": ([v / 2 for v in VALUES], ("0.5", "1", "1.5")),
    "negative": ([-v for v in [1, 3, 2, 3, 1, 1]], ("-3", "-2", "-1")),
    "text": ([{1: "a", 2: "b", 3: "c"}[v] for v in VALUES], ("a", "b", "c")),
    "dates": ([dt.date(2020, 1, v) for v in VALUES], ("2020-01-01", "2020-01-02", "2020-01-03")),
    "datetimes": (
        pd.to_datetime([f"2020-01-0{v}" for v in VALUES]).to_series(),
        tuple(f"2020-01-0{v}" for v in (1, 2, 3)),
    ),
    "numpy datetimes": (
        np.array([f"2020-01-0{v}T12:00" for v in VALUES], dtype="datetime64[ns]"),
        tuple(f"2020-01-0{v} 12:00:00" for v in (1, 2, 3)),
    ),
    "categories": (pd.Categorical(VALUES).rename_categories({1: "x", 2: "m", 3: "a"}), ("x", "m", "a")),
    "unused categories": (pd.Categorical(VALUES, [0, 1, 2, 5, 3]), ("1", "2", "3")),
    "decimals": ([Decimal(v) / 2 for v in VALUES], ("0.5", "1", "1.5")),
    "nullable": (pd.array(VALUES, dtype="Int64"), ("1", "2", "3")),
    "arrow": (pd.array(VALUES, dtype="int64[pyarrow]"), ("1", "2", "3")),
    "polars": (pl.Series(VALUES), ("1", "2", "3")),
    "polars text": (pl.Series([{1: "a", 2: "b", 3: "c"}[v] for v in VALUES]), ("a", "b", "c")),
    "polars categories": (
        pl.Series([{1: "a", 2: "b", 3: "c"}[v] for v in VALUES], dtype=pl.Categorical),
        ("a", "b", "c"),
    ),
    "polars enum": (
        pl.Series([{1: "x", 2: "m", 3: "a"}[v] for v in VALUES], dtype=pl.Enum(["x", "m", "a"])),
        ("x", "m", "a"),
    ),
    "polars dates": (
        pl.Series([dt.date(2020, 1, v) for v in VALUES]),
        tuple(f"2020-01-0{v}" for v in (1, 2, 3)),
    ),
}


@pytest.mark.parametrize(("values", "labels"), COLUMNS.values(), ids=COLUMNS)
def test_values_of_any_type(values: Any, labels: tuple[str, ...]) -> None:
    if isinstance(values, pd.Categorical):
        values = pd.Series(values)
    assert groups_of(values) == (labels, [2, 0, 1, 0, 2, 2])


def test_truth_values() -> None:
    assert groups_of([True, False, True]) == (("False", "True"), [1, 0, 1])


def test_values_of_several_types() -> None:
    assert groups_of(np.array(["b", 1, "a", 2], dtype=object)) == (("1", "2", "a", "b"), [3, 0, 2, 1])


@pytest.mark.parametrize(
    "values",
    [
        [2.0, NAN, 1.0],
        ["b", None, "a"],
        pd.array([2, None, 1], dtype="Int64"),
        pd.Series(pd.Categorical(["b", None, "a"])),
        pd.Series(pd.to_datetime(["2021-01-01", None, "2020-01-01"])),
        pl.Series([2, None, 1]),
        pa.chunked_array([[2, None, 1]]),
    ],
    ids=str,
)
def test_missing_groups(values: Any) -> None:
    found = read_groups({"g": values}, "g")
    assert found.codes.tolist() == [1, -1, 0]
    assert found.missing == 1
    assert found.rows(found.labels[1]).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "convert", [lambda f: f, pl.from_pandas, pa.Table.from_pandas], ids=["pandas", "polars", "arrow"]
)
def test_frames(convert: Any) -> None:
    frame = convert(pd.DataFrame({"g": VALUES, "y": 1.0}))
    assert read_groups(frame, "g").labels == ("1", "2", "3")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 1, 1], "column 'g' has one group only, '1': leave out group='g'"),
        ([None, None], "the group is missing in every row"),
        (np.arange(2000), "2000 different values, too many for groups"),
        (np.array(["1", 1, 2], dtype=object), "groups .* which are both called '1'"),
        ([[1], [2]], "cannot be told apart"),
    ],
)
def test_columns_that_are_no_groups(values: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_groups({"g": values}, "g")


def test_unknown_column() -> None:
    with pytest.raises(DataError, match="no column 'grp': did you mean 'group'"):
        read_groups({"group": [1, 2]}, "grp")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        (1.0, "1"),
        (1e20, "100000000000000000000"),
        (np.float32(0.5), "0.5"),
        (np.int8(3), "3"),
        (np.bool_(True), "True"),
        (dt.datetime(2020, 1, 2), "2020-01-02"),
        (dt.datetime(2020, 1, 2, 3), "2020-01-02 03:00:00"),
        (pd.Timestamp("2020-01-02"), "2020-01-02"),
        ("Grant-White", "Grant-White"),
        ((1, "a"), "(1, 'a')"),
    ],
)
def test_labels(value: Any, text: str) -> None:
    assert text_of(value) == text


FRAME = pd.DataFrame(
    {
        "y": [1.0, 2.0, NAN, 4.0, 5.0, 6.0, 7.0],
        "school": ["s", "s", "t", "u", "u", None, "v"],
        "g": ["b", "b", "b", "a", "a", "a", None],
    }
)


def test_rows_of_each_group() -> None:
    grouping = read_groups(FRAME, "g")
    b, a = grouped_data(FRAME, ["y"], "school", grouping, ("b", "a"))
    assert b.columns["y"].tolist() == [1.0, 2.0]
    assert a.columns["y"].tolist() == [4.0, 5.0]
    assert (list(b.clusters), list(a.clusters)) == (["s"], ["u"])
    assert (b.nrows, b.dropped_rows, b.dropped_no_cluster, b.nobs) == (3, 1, 0, 2)
    assert (a.nrows, a.dropped_rows, a.dropped_no_cluster, a.nobs) == (3, 0, 1, 2)
    assert (dict(b.dropped), dict(a.dropped)) == ({"y": 1}, {})
    assert not b.columns["y"].flags.writeable


def test_clusters_in_two_groups_are_named() -> None:
    frame = FRAME.assign(school=["s", "s", "t", "s", "u", "t", "v"], y=1.0)
    with pytest.raises(
        DataError, match=r"2 cluster\(s\) of 'school'.*'g': '[st]', '[st]'; the first is in 'a' and 'b'"
    ):
        grouped_data(frame, ["y"], "school", read_groups(frame, "g"), ("a", "b"))


@pytest.mark.parametrize(
    ("variables", "cluster", "message"),
    [
        (["y", "g"], None, "both the group column and a variable of the model"),
        (["y"], "g", "both the group and the cluster column"),
    ],
)
def test_the_group_column_has_no_other_role(variables: list[str], cluster: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        grouped_data(FRAME, variables, cluster, read_groups(FRAME, "g"), ("a", "b"))


def test_a_group_without_complete_rows_is_named() -> None:
    frame = FRAME.assign(y=[NAN] * 3 + [4.0, 5.0, 6.0, 7.0])
    with pytest.raises(DataError, match="group 'b': no complete row is left of 3: 'y' is missing in 3"):
        grouped_data(frame, ["y"], None, read_groups(frame, "g"), ("a", "b"))
