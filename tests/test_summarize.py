"""Statistics of clusters from data of every kind, in pieces or whole, are those of the rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import msem
from msem.data import chunks
from msem.errors import DataError, DataWarning

Make = Callable[[pd.DataFrame, Path], Any]
NAMES = ["y1", "y2", "w"]


def sample(seed: int = 1, mean: float = 0.0, sizes: tuple[int, ...] = (1, 2, 2, 5, 5, 5, 9)) -> pd.DataFrame:
    """Two variables of units and one of clusters."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(len(sizes)) * 7 - 3, sizes)
    clusters = rng.standard_normal((len(sizes), 3))[np.repeat(np.arange(len(sizes)), sizes)]
    values = mean + clusters + rng.standard_normal((len(g), 3)) * [1.0, 2.0, 0.0]
    return pd.DataFrame(values, columns=NAMES).assign(g=g)


def by_definition(frame: pd.DataFrame, names: list[str]) -> dict[str, Any]:
    """Statistics by size from their definitions."""
    complete = frame.dropna()
    centre = complete[names].mean()
    deviations = complete[names] - complete.groupby("g")[names].transform("mean")
    means = complete.groupby("g")[names].mean() - centre
    sizes = complete.groupby("g").size()
    distinct = np.unique(sizes)
    groups = [means[(sizes == size).to_numpy()].to_numpy() for size in distinct]
    return {
        "sizes": distinct,
        "counts": [len(group) for group in groups],
        "means": np.array([group.mean(axis=0) for group in groups]) + centre.to_numpy(),
        "scatter": [(group - group.mean(axis=0)).T @ (group - group.mean(axis=0)) for group in groups],
        "ssw": (deviations.T @ deviations).to_numpy(),
    }


def assert_statistics(
    found: msem.ClusterStatistics, expected: dict[str, Any], tolerance: float = 1e-12
) -> None:
    scale = np.sqrt(np.diag(expected["ssw"])).max() + 1.0
    for name, array in expected.items():
        value = found.means + found.origin if name == "means" else getattr(found, name)
        assert_allclose(value, array, rtol=tolerance, atol=tolerance * scale**2, err_msg=name)


def assert_same(one: msem.ClusterStatistics, two: msem.ClusterStatistics, tolerance: float = 1e-12) -> None:
    names = ("sizes", "counts", "scatter", "ssw")
    expected = {name: getattr(two, name) for name in names} | {"means": two.means + two.origin}
    assert_statistics(one, expected, tolerance)


def pieces(frame: pd.DataFrame, rows: int = 4) -> Iterator[pd.DataFrame]:
    for start in range(0, len(frame), rows):
        yield frame.iloc[start : start + rows]


def directory(frame: pd.DataFrame, folder: Path) -> Path:
    for number, piece in enumerate(pieces(frame, 7)):
        pq.write_table(pa.Table.from_pandas(piece, preserve_index=False), folder / f"part{number}.parquet")
    return folder


def files(frame: pd.DataFrame, folder: Path) -> list[str]:
    return sorted(str(path) for path in directory(frame, folder).iterdir())


def one_file(frame: pd.DataFrame, folder: Path) -> Path:
    pq.write_table(pa.Table.from_pandas(frame), folder / "one.parquet", row_group_size=5)
    return folder / "one.parquet"


def arrow_file(frame: pd.DataFrame, folder: Path) -> Path:
    table = pa.Table.from_pandas(frame)
    with pa.ipc.new_file(folder / "one.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=6)
    return folder / "one.arrow"


def batches(frame: pd.DataFrame, folder: Path) -> pa.RecordBatchReader:
    return pa.Table.from_pandas(frame).to_reader(max_chunksize=5)


class CStream:
    """Any object with the Arrow C stream interface."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.reader = batches(frame, Path())

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.reader.__arrow_c_stream__(requested_schema)


KINDS: dict[str, Make] = {
    "pandas": lambda frame, folder: frame,
    "pandas by column": lambda frame, folder: pd.DataFrame({name: frame[name].copy() for name in frame}),
    "nullable": lambda frame, folder: frame.convert_dtypes(),
    "arrow-backed": lambda frame, folder: frame.convert_dtypes(dtype_backend="pyarrow"),
    "polars": lambda frame, folder: pl.from_pandas(frame),
    "lazy": lambda frame, folder: pl.from_pandas(frame).lazy(),
    "lazy file": lambda frame, folder: pl.scan_parquet(one_file(frame, folder)),
    "arrow": lambda frame, folder: pa.Table.from_pandas(frame),
    "arrow in parts": lambda frame, folder: pa.concat_tables(map(pa.Table.from_pandas, pieces(frame))),
    "one batch": lambda frame, folder: pa.RecordBatch.from_pandas(frame),
    "batches": batches,
    "stream": lambda frame, folder: CStream(frame),
    "arrays": lambda frame, folder: {name: frame[name].to_numpy() for name in frame},
    "generator": lambda frame, folder: pieces(frame),
    "list": lambda frame, folder: list(pieces(frame)),
    "tables": lambda frame, folder: map(pa.Table.from_pandas, pieces(frame)),
    "polars pieces": lambda frame, folder: map(pl.from_pandas, pieces(frame)),
    "empty pieces": lambda frame, folder: [frame[:0], frame[:9], frame[:0].astype(object), frame[9:]],
    "file": one_file,
    "file name": lambda frame, folder: str(one_file(frame, folder)),
    "arrow file": arrow_file,
    "directory": directory,
    "files": files,
    "dataset": lambda frame, folder: ds.dataset(directory(frame, folder)),
    "scanner": lambda frame, folder: ds.dataset(directory(frame, folder)).scanner(batch_size=3),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["sorted", "shuffled"])
def test_data_of_all_kinds_give_the_statistics_of_their_rows(kind: str, order: str, tmp_path: Path) -> None:
    frame = sample()
    shuffled = frame if order == "sorted" else frame.sample(frac=1, random_state=5, ignore_index=True)
    found = msem.summarize(KINDS[kind](shuffled, tmp_path), cluster="g", keep_clusters=True)
    assert found.variables == (*NAMES,)
    assert_statistics(found, by_definition(frame, NAMES))
    assert (found.nobs, found.nclusters, found.nrows) == (29, 7, 29)
    assert found.varying == (
        "y1",
        "y2",
    )  # the cluster variable does not vary within clusters, to the last bit
    assert found.sums is not None
    assert sorted(found.sums.ids) == sorted(frame["g"].unique())
    assert_allclose(found.sums.sizes, frame.groupby("g").size().loc[found.sums.ids])
    means = frame.groupby("g")[NAMES].mean().loc[found.sums.ids]
    assert_allclose(found.sums.means + found.origin, means, atol=1e-12)


@pytest.mark.parametrize(
    "kind", ["pandas", "polars", "arrow", "batches", "generator", "directory", "nullable"]
)
def test_incomplete_rows_are_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    frame = sample()
    frame.loc[[3, 10, 11], "y1"] = np.nan
    frame.loc[[10, 20], "y2"] = np.nan
    frame["g"] = frame["g"].astype("Int64") if kind == "nullable" else frame["g"].astype(float)
    frame.loc[[0, 10], "g"] = pd.NA if kind == "nullable" else np.nan
    with pytest.warns(DataWarning, match=r"2 rows have no cluster id \('g'\)"):
        found = msem.summarize(KINDS[kind](frame, tmp_path), cluster="g")
    assert_statistics(found, by_definition(frame, NAMES))
    assert found.dropped == {"y1": 3, "y2": 2}
    assert (found.dropped_rows, found.dropped_no_cluster, found.nrows, found.nobs) == (3, 2, 29, 24)


def test_only_rows_without_a_value_of_the_variables_named_are_left_out() -> None:
    frame = sample()
    frame.loc[3, "y2"] = np.nan
    found = msem.summarize(frame, cluster="g", variables=["w", "y1"])
    assert found.variables == ("w", "y1")
    assert_statistics(found, by_definition(frame[["w", "y1", "g"]], ["w", "y1"]))


@pytest.mark.parametrize("kind", ["int8", "uint16", "int32", "int64", "uint64", "float32", "bool"])
def test_columns_of_every_machine_type_are_read_as_they_are(kind: str) -> None:
    frame = sample()
    y = np.round(frame["y1"] * 3) > 0 if kind == "bool" else np.abs(np.round(frame["y1"] * 3))
    narrow = frame.assign(y1=y.to_numpy().astype(kind))
    wide = narrow.assign(y1=narrow["y1"].astype(float))
    expected = by_definition(wide, NAMES)
    for data in (narrow, pl.from_pandas(narrow), pa.Table.from_pandas(narrow), narrow.iloc[::-1]):
        assert_statistics(msem.summarize(data, cluster="g"), expected)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_neither_order_nor_pieces_nor_threads_nor_ids_matter(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=2, max_size=8))
    mean = data.draw(st.sampled_from([0.0, 1e3, 1e8]))
    frame = sample(data.draw(st.integers(0, 99)), mean, tuple(sizes))
    order = np.random.default_rng(data.draw(st.integers(0, 99))).permutation(len(frame))
    other = frame.iloc[order]
    names = {7 * k - 3: label for k, label in enumerate(data.draw(st.permutations("abcdefgh")))}
    other = other.assign(g=other["g"].map(names)) if data.draw(st.booleans()) else other
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frame)), max_size=4)))
    parts = [other.iloc[a:b] for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
    one = msem.summarize(frame, cluster="g", threads=1)
    for two in (
        msem.summarize(parts, cluster="g", threads=3),
        sum(
            msem.summarize(part, cluster="g", keep_clusters="means")
            for part in parts
            if len(part)
        ),
    ):  # fmt: skip
        assert isinstance(two, msem.ClusterStatistics)
        assert_same(two, one, 1e-12 if mean < 1e8 else 1e-7)
        assert two.varying == one.varying


def test_large_means_lose_no_digits() -> None:
    small = msem.summarize(sample(), cluster="g")
    # a shift that is exact in binary, so that the values are the same up to it
    rounded = sample().assign(**{name: np.round(sample()[name] * 2**20) / 2**20 for name in NAMES})
    large = rounded.assign(**{name: rounded[name] + 2.0**27 for name in NAMES})
    one, two = (msem.summarize(list(pieces(frame)), cluster="g") for frame in (rounded, large))
    for name in ("scatter", "ssw"):
        assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-13, atol=1e-12)
    assert_allclose(two.means + (two.origin - 2.0**27), one.means + one.origin, atol=1e-13)
    assert two.varying == small.varying


def test_a_frame_is_read_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = msem.summarize(sample(), cluster="g")
    monkeypatch.setattr(chunks, "BLOCK", 4)
    for data in (sample(), pl.from_pandas(sample()), pa.Table.from_pandas(sample())):
        assert_same(msem.summarize(data, cluster="g"), whole)


def test_values_of_arrays_are_not_copied() -> None:
    frame = sample()
    for data in (frame, pa.Table.from_pandas(frame), pl.from_pandas(frame)):
        (chunk,) = chunks.chunks_of(chunks.reader_of(data), ["y1"], "g")
        source = frame["y1"].to_numpy() if data is frame else chunks.reader_of(data)
        if data is frame:
            assert np.shares_memory(chunk.columns[0], source)
        assert not chunk.columns[0].flags.owndata


def test_ids_that_jump_are_numbered_by_hashing() -> None:
    frame = sample()
    wild = frame.assign(g=(frame["g"].to_numpy() * 2**57).astype(np.int64)).sample(frac=1, random_state=1)
    assert_same(msem.summarize(wild, cluster="g"), msem.summarize(frame, cluster="g"))


@pytest.mark.parametrize(
    "convert",
    [
        str,
        float,
        lambda k: bytes([k + 9]),
        lambda k: (k, "a"),
        lambda k: pd.Timestamp(2020, 1, 9) + pd.Timedelta(k, "D"),
    ],
    ids=["text", "float", "bytes", "tuple", "time"],
)
def test_ids_of_every_kind(convert: Callable[[int], Any]) -> None:
    frame = sample()
    renamed = frame.assign(g=[convert(int(k)) for k in frame["g"]]).sample(frac=1, random_state=3)
    found = msem.summarize(pieces(renamed, 5), cluster="g", keep_clusters=True)
    assert_same(found, msem.summarize(frame, cluster="g"))
    assert found.sums is not None
    assert set(found.sums.ids) == set(renamed["g"])


def test_whole_numbers_as_floats_are_the_same_ids() -> None:
    frame = sample()
    mixed = [frame.iloc[:13], frame.iloc[13:].astype({"g": float})]
    assert_same(msem.summarize(mixed, cluster="g"), msem.summarize(frame, cluster="g"))


def test_directories_named_after_a_column_hold_it(tmp_path: Path) -> None:
    frame = sample()
    table = pa.Table.from_pandas(frame)
    ds.write_dataset(table, tmp_path, partitioning=["g"], partitioning_flavor="hive", format="parquet")
    assert_same(msem.summarize(tmp_path, cluster="g", variables=NAMES), msem.summarize(frame, cluster="g"))


def test_files_of_narrow_and_wide_numbers_go_together(tmp_path: Path) -> None:
    frame = sample().assign(y1=np.arange(29) % 5)
    for number, part in enumerate(
        [frame.iloc[:9].astype({"g": "int32"}), frame.iloc[9:].astype({"y1": float}) + 0]
    ):
        pq.write_table(pa.Table.from_pandas(part, preserve_index=False), tmp_path / f"{number}.parquet")
    assert_same(msem.summarize(tmp_path, cluster="g"), msem.summarize(frame, cluster="g"))


BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "no rows": (lambda: sample().iloc[:0], "no rows"),
    "no chunks": (lambda: iter([]), "no numeric column"),
    "nothing complete": (lambda: sample().assign(y1=np.nan), "no complete row is left of 29: 'y1' is missing in 29"),
    "text": (lambda: sample().assign(y1="a"), "'y1' is not numeric"),
    "text later": (lambda: [sample(), sample().assign(y1="a")], "chunk 2: variable 'y1' is not numeric"),
    "column later": (lambda: [sample(), sample().drop(columns="y2")], "chunk 2: the data have no column 'y2'"),
    "infinite": (lambda: sample().replace({"y1": {sample()["y1"][4]: np.inf}}), "infinite in 1 row.*row 4"),
    "infinite later": (
        lambda: [sample().iloc[:9], sample().iloc[9:].assign(y2=-np.inf)], "infinite in 20 row.*chunk 2.*row 9"
    ),
    "ids of another type": (
        lambda: [sample(), sample().astype({"g": str})], "'g' are text in chunk 2, those before are numbers"
    ),
    "ids of another type first": (
        lambda: [sample().astype({"g": str}), sample()], "'g' are numbers in chunk 2, those before are text"
    ),
    "one and the same": (
        lambda: sample().assign(g=[1, "1"] * 14 + [2]), "ids 1 and '1', which differ only by type"
    ),
    "no frame": (lambda: [sample(), 3], "chunk 2 is of type 'int'"),
    "number": (lambda: 3, "cannot read data of type 'int'"),
    "unequal": (lambda: {name: np.ones(4 + (name == "y1")) for name in [*NAMES, "g"]}, "differ in length"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data_are_refused_by_name(case: str) -> None:
    make, message = BAD[case]
    names = None if case == "no chunks" else NAMES
    with pytest.raises(DataError, match=message):
        msem.summarize(make(), cluster="g", variables=names)


def test_ids_that_differ_only_by_type_are_refused_in_fits_too() -> None:
    frame = sample().assign(g=[1, "1"] * 14 + [2])
    with pytest.raises(DataError, match="differ only by type"):
        msem.saturated(frame, cluster="g")


def test_options_that_make_no_sense_are_refused() -> None:
    with pytest.raises(DataError, match="both the cluster column and a variable"):
        msem.summarize(sample(), cluster="g", variables=["y1", "g"])
    with pytest.raises(ValueError, match="keep_clusters"):
        msem.summarize(sample(), cluster="g", keep_clusters="all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="client= is for a Dask data frame"):
        msem.summarize(sample(), cluster="g", client=object())


def test_streams_that_break_off_give_nothing(tmp_path: Path) -> None:
    def generator() -> Iterator[pd.DataFrame]:
        yield sample()
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        msem.summarize(generator(), cluster="g")
    table = pa.Table.from_pandas(pd.concat([sample()] * 200))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=500)
    whole = sink.getvalue().to_pybytes()
    with pytest.raises(DataError, match=r"break off after \d+ rows"):
        msem.summarize(pa.ipc.open_stream(whole[: len(whole) // 2]), cluster="g")
    one_file(pd.concat([sample()] * 200), tmp_path)
    damaged = bytearray((tmp_path / "one.parquet").read_bytes())
    (tmp_path / "short.parquet").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(DataError, match=r"short\.parquet"):
        msem.summarize(tmp_path / "short.parquet", cluster="g")
    with pytest.raises(FileNotFoundError):
        msem.summarize(tmp_path / "absent.parquet", cluster="g")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("g", "text", "are numbers in .*a.parquet and text in .*b.parquet"),
        ("y1", "text", r"b\.parquet: variable 'y1' is not numeric \(its type is"),
        ("y1", None, r"b\.parquet has no column 'y1'"),
    ],
)
def test_columns_that_change_between_files_are_refused(
    column: str, value: str | None, message: str, tmp_path: Path
) -> None:
    frame = sample()
    other = frame.drop(columns=column) if value is None else frame.astype({column: str})
    for name, part in (("a", frame), ("b", other)):
        pq.write_table(pa.Table.from_pandas(part), tmp_path / f"{name}.parquet")
    with pytest.raises(DataError, match=message):
        msem.summarize(tmp_path, cluster="g", variables=NAMES)
