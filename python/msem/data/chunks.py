"""Data of any size as a sequence of pieces: frames in blocks of rows, streams and files as they come."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import narwhals as nw
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrow import DatasetReader, StreamReader, opened_files, pyarrow
from msem.data.columns import float_column, numeric_columns, plain_numbers, read_frame, select_columns
from msem.errors import DataError

BLOCK = 1 << 20  # rows


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some rows of the variables and their cluster ids.

    Attributes
    ----------
    columns : list of ndarray, shape (rows,)
        The variables, of any machine type; nan where missing.
    ids : narwhals.Series
    where : str
        Which piece this is, for messages; empty when the data are one.
    beside : mapping of str to narwhals.Series
        Other columns.
    """

    columns: list[NDArray[Any]]
    ids: nw.Series[Any]
    where: str
    beside: Mapping[str, nw.Series[Any]]


class Reader(Protocol):
    """A way to read data once, in pieces."""

    named: str  # what a piece is called in messages; empty if nothing is to be said of pieces

    def numeric(self) -> list[str]:
        """Names of the numeric columns."""

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """Frames with these columns and perhaps others."""


class FrameReader:
    """A frame that is in memory, or a mapping of arrays."""

    named = ""

    def __init__(self, frame: Any) -> None:
        self.frame = frame

    def numeric(self) -> list[str]:
        """Names of the numeric columns."""
        return numeric_columns(self.frame)

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """The frame."""
        yield self.frame


class LazyReader(FrameReader):
    """A lazy frame of polars, in batches as its engine computes them."""

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """The batches of the columns."""
        columns = list(dict.fromkeys([*variables, cluster]))
        select_columns(self.frame.head(0), columns)  # says which column is not there
        yield from self.frame.select(columns).collect_batches(chunk_size=BLOCK)


class IterableReader:
    """Frames one after the other."""

    named = "chunk"

    def __init__(self, frames: Iterable[Any]) -> None:
        self.frames = iter(frames)

    def numeric(self) -> list[str]:
        """Names of the numeric columns of the first frame."""
        first = next(self.frames, None)
        if first is None:
            return []
        self.frames = itertools.chain([first], self.frames)
        return numeric_columns(_readable(first, 1))

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """The frames."""
        for number, frame in enumerate(self.frames, 1):
            yield _readable(frame, number)


def reader_of(data: Any) -> Reader:
    """How to read data of some kind; see `msem.summarize`.

    Raises
    ------
    DataError
        If they are of no kind that is known.
    """
    if _is_path(data) or (isinstance(data, (list, tuple)) and data and all(map(_is_path, data))):
        return DatasetReader(opened_files(data))
    if type(data).__module__.startswith("pyarrow"):
        pa = pyarrow()
        if isinstance(data, pa.dataset.Dataset):
            return DatasetReader(data)
        if not isinstance(data, (pa.Table, pa.RecordBatch)):
            return StreamReader(data)
        return FrameReader(_readable(data, 1))
    if hasattr(data, "collect_batches"):
        return LazyReader(data)
    if isinstance(data, (Mapping, pd.DataFrame)):
        return FrameReader(data)
    known = nw.from_native(data, pass_through=True)
    if isinstance(known, nw.DataFrame):
        return FrameReader(data)
    if hasattr(data, "__arrow_c_stream__"):
        return StreamReader(data)
    if isinstance(known, nw.LazyFrame) or not isinstance(data, Iterable):
        read_frame(data)
        return FrameReader(data)
    return IterableReader(data)


def chunks_of(
    reader: Reader, variables: Sequence[str], cluster: str, beside: Sequence[str] = ()
) -> Iterator[Chunk]:
    """All rows, a block of them at a time, with other columns `beside`; pieces without rows are passed over.

    Raises
    ------
    DataError
        If a column is not there, is not numeric or changes to something that is not, or the data break off.
    """
    needed = list(dict.fromkeys([*variables, *beside, cluster]))
    for number, frame in enumerate(reader.read([name for name in needed if name != cluster], cluster), 1):
        where = f" in {reader.named} {number}" if reader.named else ""
        try:
            columns = select_columns(frame, needed)
            lengths = {len(series) for series in columns.values()}
            if len(lengths) > 1:
                raise DataError("the columns differ in length")
            for start, stop in blocks(frame, lengths.pop()):
                rows = {name: series[start:stop] for name, series in columns.items()}
                numbers = [number_column(name, rows[name]) for name in variables]
                yield Chunk(numbers, rows[cluster], where, {name: rows[name] for name in beside})
        except DataError as error:
            if not where or where[1:] in str(error):
                raise
            raise DataError(f"{where[1:]}: {error}") from None


def blocks(frame: Any, nrows: int) -> Iterator[tuple[int, int]]:
    """Blocks of rows that do not cross a border between the parts of a frame, which then need no copy."""
    ends = [nrows]
    if type(frame).__module__.startswith("pyarrow") and frame.num_columns:
        ends = list(itertools.accumulate(len(part) for part in frame.column(0).chunks))
    start = 0
    for end in ends:
        while start < end:
            stop = min(start + BLOCK, end)
            yield start, stop
            start = stop


def number_column(name: str, series: nw.Series[Any]) -> NDArray[Any]:
    """Values of a column as they are in memory if possible, else as float64 with nan where missing."""
    plain = plain_numbers(series)
    return float_column(name, series) if plain is None else plain


def _is_path(data: Any) -> bool:
    return isinstance(data, (str, os.PathLike))


def _readable(frame: Any, number: int) -> Any:
    """A frame; record batches as tables."""
    if type(frame).__module__.startswith("pyarrow"):
        pa = pyarrow()
        return pa.Table.from_batches([frame]) if isinstance(frame, pa.RecordBatch) else frame
    if not isinstance(frame, (Mapping, pd.DataFrame)) and not isinstance(
        nw.from_native(frame, pass_through=True), (nw.DataFrame, nw.LazyFrame)
    ):
        raise DataError(
            f"chunk {number} is of type {type(frame).__name__!r}: give pandas, polars or pyarrow tables, or dicts of "
            "arrays"
        )
    return frame
