"""Data frames of every kind become the same complete columns and cluster codes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from msem.data.demo import load_demo
from msem.data.frames import clustered_data
from msem.errors import DataError

GROUPS = ["b", "a", "b", "c", "a"]
CODES = [0, 1, 0, 2, 1]
FRAME = pd.DataFrame(
    {
        "y": [0.5, 1.5, 2.5, 3.5, 4.5],
        "count": [1, 2, 3, 4, 5],
        "flag": [True, False] * 2 + [True],
        "g": GROUPS,
    }
)


@pytest.mark.parametrize(
    "convert",
    [
        lambda frame: frame,
        lambda frame: frame.convert_dtypes(),
        lambda frame: frame.convert_dtypes(dtype_backend="pyarrow"),
        lambda frame: frame.set_index(pd.Index([9, 9, 3, 1, 0])),
        pl.from_pandas,
        lambda frame: pl.from_pandas(frame).lazy(),
        pa.Table.from_pandas,
        lambda frame: frame.to_dict("list"),
        lambda frame: {name: frame[name].to_numpy() for name in frame},
        lambda frame: {name: pl.from_pandas(frame[name]) for name in frame},
    ],
    ids=[
        "pandas",
        "nullable",
        "arrow-backed",
        "index",
        "polars",
        "lazy",
        "pyarrow",
        "lists",
        "arrays",
        "series",
    ],
)
def test_all_kinds_of_frames_give_the_same_data(convert: Any) -> None:
    data = clustered_data(convert(FRAME), ["y", "count", "flag"], "g")
    assert list(data.columns) == ["y", "count", "flag"]
    np.testing.assert_array_equal(data.columns["y"], FRAME["y"])
    np.testing.assert_array_equal(data.columns["count"], [1.0, 2.0, 3.0, 4.0, 5.0])
    np.testing.assert_array_equal(data.columns["flag"], [1.0, 0.0, 1.0, 0.0, 1.0])
    assert all(column.dtype == np.float64 for column in data.columns.values())
    assert data.codes is not None
    assert data.codes.tolist() == CODES
    assert list(data.clusters) == ["b", "a", "c"]
    assert (data.nrows, data.nobs, data.dropped_rows, data.dropped_no_cluster) == (5, 5, 0, 0)
    assert data.dropped == {}


IDS: dict[str, list[Any]] = {
    "int": [30, -1, 30, 2**60 + 1, -1],
    "float": [0.5, 0.25, 0.5, 1e300, 0.25],
    "bytes": [b"x", b"y", b"x", b"z", b"y"],
    "tuple": [(1, "a"), (1, "b"), (1, "a"), (2, "a"), (1, "b")],
    "mixed": ["8", 7, "8", (7,), 7],
    "date": [dt.date(2020, 1, k) for k in (5, 4, 5, 6, 4)],
    "time": [dt.datetime(2020, 1, k) for k in (5, 4, 5, 6, 4)],
    "decimal": [Decimal(k) for k in (5, 4, 5, 6, 4)],
    "frozenset": [frozenset(k) for k in ("ab", "c", "ba", "d", "c")],
}


@pytest.mark.parametrize("kind", IDS)
def test_cluster_ids_of_any_hashable_type(kind: str) -> None:
    data = clustered_data(FRAME.assign(id=pd.Series(IDS[kind])), ["y"], "id")
    assert data.codes is not None
    assert data.codes.tolist() == CODES
    assert len(data.clusters) == 3


@pytest.mark.parametrize("kind", ["int", "float", "bytes", "date", "time", "decimal"])
@pytest.mark.parametrize("to_frame", [pl.DataFrame, pa.table])
def test_cluster_ids_of_other_libraries(kind: str, to_frame: Any) -> None:
    data = clustered_data(to_frame({"y": FRAME["y"].tolist(), "id": IDS[kind]}), ["y"], "id")
    assert data.codes is not None
    assert data.codes.tolist() == CODES


@pytest.mark.parametrize(
    "ids",
    [
        pd.Series(pd.Categorical(GROUPS, categories=["unused", "c", "b", "a"])),
        pl.Series(GROUPS).cast(pl.Categorical),
        pl.Series(GROUPS).cast(pl.Enum(["a", "b", "c", "unused"])),
        pa.chunked_array([pa.array(GROUPS).dictionary_encode()]),
        pd.Series(
            pd.to_datetime(["2020-03-05", "2020-03-04", "2020-03-05", "2020-03-06", "2020-03-04"], utc=True)
        ),
    ],
    ids=["pandas categorical", "polars categorical", "enum", "dictionary", "time zone"],
)
def test_categorical_and_zoned_ids(ids: Any) -> None:
    data = clustered_data({"y": FRAME["y"], "g": ids}, ["y"], "g")
    assert data.codes is not None
    assert data.codes.tolist() == CODES
    assert len(data.clusters) == 3


def test_sorted_and_unsorted_integer_ids_are_numbered_by_appearance() -> None:
    ascending = clustered_data({"y": [1.0, 2, 3, 4], "g": [-5, -5, 0, 9]}, ["y"], "g")
    descending = clustered_data({"y": [1.0, 2, 3, 4], "g": [9, 9, 0, -5]}, ["y"], "g")
    assert ascending.codes is not None
    assert descending.codes is not None
    assert ascending.codes.tolist() == descending.codes.tolist() == [0, 0, 1, 2]
    assert ascending.clusters.tolist() == [-5, 0, 9]
    assert descending.clusters.tolist() == [9, 0, -5]


@pytest.mark.parametrize(
    "ids",
    [
        pd.Series(["a", None, "b", "b"]),
        pd.Series([1.0, np.nan, 2.0, 2.0]),
        pd.Series([1, None, 2, 2], dtype="Int64"),
        pd.Series([pd.Timestamp(1), pd.NaT, pd.Timestamp(2), pd.Timestamp(2)]),
        pd.Series(["a", np.nan, 2, 2], dtype=object),
        pd.Series(pd.Categorical(["a", None, "b", "b"])),
        pl.Series([2**60, None, 2**60 + 1, 2**60 + 1]),
        pl.Series([1.0, float("nan"), 2.0, 2.0]),
        pa.chunked_array([["a", None, "b", "b"]]),
    ],
)
def test_rows_without_cluster_id_are_dropped_and_counted(ids: Any) -> None:
    data = clustered_data({"y": [1.0, 2.0, 3.0, 4.0], "g": ids}, ["y"], "g")
    assert data.codes is not None
    assert data.codes.tolist() == [0, 1, 1]
    assert data.columns["y"].tolist() == [1.0, 3.0, 4.0]
    assert (data.dropped_no_cluster, data.dropped_rows, data.nobs) == (1, 0, 3)


def test_listwise_deletion_is_counted_by_variable_and_in_total() -> None:
    frame = pd.DataFrame(
        {
            "a": [1.0, None, 3.0, None, 5.0, None],
            "b": pd.Series([None, 2, 3, None, 5, 6], dtype="Int64"),
            "c": [1.0, 2, 3, 4, 5, 6],
            "unused": [None] * 6,
            "g": ["k", "k", "k", "gone", "m", None],
        }
    )
    data = clustered_data(frame, ["a", "b", "c"], "g")
    assert data.dropped == {"a": 3, "b": 2}
    assert (data.nrows, data.dropped_rows, data.dropped_no_cluster, data.nobs) == (6, 3, 1, 2)
    assert data.columns["c"].tolist() == [3.0, 5.0]
    assert data.clusters.tolist() == ["k", "m"]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([1.0, np.nan, 0.0]),
        pd.Series([1, None, 0], dtype=object),
        pd.Series([True, None, False], dtype="boolean"),
        pd.Series([Decimal(1), None, Decimal(0)], dtype=object),
        pl.Series([True, None, False]),
        pl.Series([1, None, 0], dtype=pl.Int8),
        pl.Series([1, float("nan"), 0], dtype=pl.Float32),
        pl.Series(["1", None, "0"]).cast(pl.Decimal(10, 2)),
        pa.chunked_array([[1, None], [0]]),
        pd.Series(np.array([1, np.nan, 0], dtype=np.longdouble)),
        pd.Series(np.array([1, np.nan, 0], dtype=">f8")),
        pd.Series(pd.arrays.SparseArray([1.0, np.nan, 0.0])),
    ],
)
def test_numbers_of_every_type_and_their_missing_values(values: Any) -> None:
    data = clustered_data({"y": values}, ["y"], None)
    assert data.columns["y"].tolist() == [1.0, 0.0]
    assert data.dropped == {"y": 1}
    assert data.codes is None
    assert len(data.clusters) == 0


def test_complete_float_columns_are_read_only_views() -> None:
    frame = pd.DataFrame(np.arange(12.0).reshape(4, 3), columns=["a", "b", "c"])
    data = clustered_data(frame, ["b", "c"], None)
    assert np.shares_memory(data.columns["b"], frame["b"].to_numpy())
    with pytest.raises(ValueError, match="read-only"):
        data.columns["c"][0] = 1.0
    frame.loc[0, "a"] = -1.0  # the frame itself stays writable


def test_a_lazy_frame_computes_only_what_is_needed() -> None:
    lazy = pl.LazyFrame({"y": [1.0, 2.0], "g": [1, 2]}).with_columns(
        bad=pl.col("y").map_elements(lambda _: 1 / 0, return_dtype=pl.Float64)
    )
    assert clustered_data(lazy, ["y"], "g").nobs == 2


def message(frame: Any, variables: list[str], cluster: str | None = None) -> str:
    with pytest.raises(DataError) as error:
        clustered_data(frame, variables, cluster)
    return str(error.value)


def test_unknown_variable_suggests_the_closest_name() -> None:
    text = message({"math1": [1.0], "math2": [1.0]}, ["math1", "mth2"])
    assert "no column 'mth2'" in text
    assert "did you mean 'math2'?" in text
    assert "the columns are 'math1'" in message({"math1": [1.0]}, ["zzz"])


def test_unknown_cluster_column() -> None:
    assert "no column 'School': did you mean 'school'?" in message(
        {"y": [1.0], "school": [1]}, ["y"], "School"
    )


def test_cluster_column_as_variable() -> None:
    assert "'g' is both the cluster column and a variable" in message({"y": [1.0], "g": [1]}, ["y", "g"], "g")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (pd.Series(["1", "2"]), "string"),
        (pd.Series(["1", 2], dtype=object), "str"),
        (pd.Series(pd.Categorical([1, 2])), "categorical"),
        (pd.Series(pd.to_datetime(["2020-01-01", "2020-01-02"])), "datetime"),
        (pd.Series([1j, 2.0]), "complex128"),
        (pl.Series(["a", "b"]).cast(pl.Categorical), "categorical"),
        (pl.Series([dt.date(2020, 1, 1)] * 2), "date"),
        (pl.Series([[1], [2]]), "list"),
        (pa.chunked_array([["a", "b"]]), "string"),
    ],
)
def test_non_numeric_variables_are_named_with_their_type(values: Any, kind: str) -> None:
    text = message({"ok": [1.0, 2.0], "odd": values}, ["ok", "odd"])
    assert f"variable 'odd' is not numeric (its type is {kind})" in text
    assert "convert it to numbers" in text


def test_infinite_values_are_located() -> None:
    text = message({"y": [1.0, np.nan, -np.inf, np.inf]}, ["y"])
    assert "variable 'y' is infinite in 2 row(s), first in row 2" in text


def test_no_rows() -> None:
    assert message(pd.DataFrame({"y": pd.Series(dtype=float)}), ["y"]) == "the data have no rows"
    text = message({"a": [1.0, None], "b": [None, None], "g": [None, 2]}, ["a", "b"], "g")
    assert "no complete row is left of 2: 'a' is missing in 1, 'b' is missing in 2" in text
    assert "cluster id 'g' is missing in 1" in text


def test_duplicated_columns() -> None:
    frame = pd.DataFrame([[1.0, 2.0, 3.0]], columns=["y", "x", "y"])
    assert "several columns named 'y'" in message(frame, ["x"])


def test_columns_of_unequal_length_or_more_dimensions() -> None:
    assert "differ in length: {'a': 2, 'b': 1}" in message({"a": [1.0, 2.0], "b": [1.0]}, ["a", "b"])
    assert "column 'a' has 2 dimensions" in message({"a": np.ones((2, 2))}, ["a"])


@pytest.mark.parametrize("ids", [[[1], [2]], pl.Series([{"a": 1, "b": 1}, {"a": 1, "b": 2}])])
def test_cluster_ids_that_cannot_be_hashed(ids: Any) -> None:
    text = message({"y": [1.0, 2.0], "g": ids}, ["y"], "g")
    assert "cluster column 'g' cannot be told apart" in text
    assert "use numbers or strings" in text


@pytest.mark.parametrize("thing", [1, "data.csv", np.ones((2, 2)), None])
def test_things_that_are_not_tables(thing: Any) -> None:
    assert f"cannot read data of type {type(thing).__name__!r}" in message(thing, ["y"])


def test_demo_data() -> None:
    demo = load_demo()
    assert list(demo) == ["y1", "y2", "y3", "y4", "y5", "y6", "x1", "x2", "x3", "w1", "w2", "cluster"]
    assert demo.groupby("cluster").size().value_counts().to_dict() == {5: 50, 10: 50, 15: 50, 20: 50}
    assert len(demo[["cluster", "w1", "w2"]].drop_duplicates()) == 200
    assert np.abs(demo.drop(columns="cluster")).max(axis=None) < 10


def test_stored_lavaan_results_are_those_of_the_demo_data() -> None:
    here = Path(__file__).parent
    packed = (here.parent / "python" / "msem" / "data" / "demo.csv.gz").read_bytes()
    stored = json.loads((here / "data" / "lavaan_demo.json").read_text(encoding="utf-8"))
    assert hashlib.md5(packed).hexdigest() == stored["data_md5"]
