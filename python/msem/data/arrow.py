"""Parquet and Arrow files, data sets and streams as record batches; pyarrow is imported when one is met."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msem.data.columns import not_numeric, require_known, require_unique
from msem.data.storage import distinct_files
from msem.errors import DataError, MissingFileError

# Rows in a batch and batches read ahead: tens of megabytes, whatever the size of the files.
BATCH = 1 << 17
AHEAD = 4
SUFFIXES = {".arrow": "ipc", ".feather": "ipc", ".ipc": "ipc"}


def pyarrow() -> Any:
    """The package pyarrow.

    Raises
    ------
    ImportError
        With the remedy.
    """
    try:
        for name in ("dataset", "fs", "parquet"):
            importlib.import_module(f"pyarrow.{name}")
    except ImportError as error:
        raise ImportError(
            "Parquet and Arrow files are read with pyarrow: pip install 'msem[parquet]'"
        ) from error
    return importlib.import_module("pyarrow")


def opened_files(paths: Any) -> Any:
    """A data set of files, or of the files in directories; hive-style directory names become columns.

    Raises
    ------
    DataError
        If the first of them cannot be read.
    MissingFileError
    """
    pa = pyarrow()
    many = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    suffixes = {Path(path).suffix.lower() for path in many}
    form = SUFFIXES.get(suffixes.pop(), "parquet") if len(suffixes) == 1 else "parquet"
    named = [os.fspath(path) for path in many]
    try:
        source: Any = named[0] if len(named) == 1 else distinct_files(named)
        return pa.dataset.dataset(source, format=form, partitioning="hive")
    except FileNotFoundError as error:  # which does not always say the name
        absent = next((path for path in named if not os.path.exists(path)), named[0])
        raise MissingFileError(absent) from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"cannot read {named[0]} as a {form} file: {error}") from error


class DatasetReader:
    """A pyarrow data set: the columns that are needed of all its files.

    Parameters
    ----------
    dataset : pyarrow.dataset.Dataset
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.named = ""

    def numeric(self) -> list[str]:
        """Names of the numeric columns."""
        return numeric_fields(self.dataset.schema)

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """Batches of rows as tables.

        Raises
        ------
        DataError
            If a column is not there or not of one kind in all files, or a file is damaged.
        """
        pa = pyarrow()
        columns = list(dict.fromkeys([*variables, cluster]))
        try:
            scanner = self._with_schema(self._common_schema(columns, cluster)).scanner(
                columns=columns,
                batch_size=BATCH,
                batch_readahead=AHEAD,
                fragment_readahead=1,
                **self._without_buffer(),
            )
        except (pa.ArrowException, OSError) as error:
            raise broken_off(0, error) from error
        yield from batches(scanner.to_reader(), columns)

    def _without_buffer(self) -> dict[str, Any]:
        """For local Parquet files, which pyarrow would otherwise hold as a whole, as is of use for distant ones."""
        pa = pyarrow()
        filesystem, form = (getattr(self.dataset, name, None) for name in ("filesystem", "format"))
        if (
            not isinstance(filesystem, pa.fs.LocalFileSystem)
            or getattr(form, "default_extname", "") != "parquet"
        ):
            return {}
        return {"fragment_scan_options": pa.dataset.ParquetFragmentScanOptions(pre_buffer=False)}

    def _with_schema(self, schema: Any) -> Any:
        given = self.dataset
        if schema == given.schema or not isinstance(given, pyarrow().dataset.FileSystemDataset):
            return given
        # another schema makes the scanner convert the columns of each file
        fragments = list(given.get_fragments())
        return pyarrow().dataset.FileSystemDataset(fragments, schema, given.format, given.filesystem)

    def _common_schema(self, columns: Sequence[str], cluster: str) -> Any:
        """The schema of the data set, with types for the needed columns that hold those of every file."""
        pa = pyarrow()
        require_known(columns, self.dataset.schema.names)
        types: dict[str, dict[str, Any]] = {name: {} for name in columns}
        for number, fragment in enumerate(self.dataset.get_fragments()):
            fields = fragment.physical_schema
            path = getattr(fragment, "path", f"fragment {number}")
            for name in columns:
                at = fields.get_field_index(name)
                kind = self.dataset.schema.field(name).type if at < 0 else fields.field(at).type
                if at < 0 and not _in_path(name, path):
                    raise DataError(f"{path} has no column {name!r}, but other files have")
                if name != cluster and kind_of_type(kind) not in ("numbers", "truth values", "nothing"):
                    raise DataError(f"{path}: {not_numeric(name, str(kind))}")
                types[name].setdefault(str(kind), (kind, path))
        whole = self.dataset.schema
        for name, found in types.items():
            kinds = {kind_of_type(kind): (kind, path) for kind, path in found.values()}
            kinds.pop("nothing", None)
            if len(kinds) > 1 and name == cluster:
                (one, first), (other, second) = list(kinds.items())[:2]
                raise DataError(
                    f"the ids in cluster column {name!r} are {one} in {first[1]} and {other} in {second[1]}: an id of "
                    "another type would be another cluster; convert the column to one type"
                )
            if len(found) > 1:
                at = whole.get_field_index(name)
                whole = whole.set(at, pa.field(name, _common_type([kind for kind, _ in found.values()])))
        return whole


class StreamReader:
    """Anything that gives Arrow record batches once: a reader, a scanner, or an object with the C stream interface.

    Parameters
    ----------
    stream
    """

    def __init__(self, stream: Any) -> None:
        pa = pyarrow()
        self.named = ""
        if isinstance(stream, pa.dataset.Scanner):
            self.reader = stream.to_reader()
        elif isinstance(stream, pa.RecordBatchReader):
            self.reader = stream
        else:
            self.reader = pa.RecordBatchReader.from_stream(stream)

    def numeric(self) -> list[str]:
        """Names of the numeric columns."""
        return numeric_fields(self.reader.schema)

    def read(self, variables: Sequence[str], cluster: str) -> Iterator[Any]:
        """Batches of rows as tables.

        Raises
        ------
        DataError
            If a column is not there, or the stream breaks off.
        """
        columns = list(dict.fromkeys([*variables, cluster]))
        require_known(columns, self.reader.schema.names)
        require_unique([name for name in self.reader.schema.names if name in columns])
        yield from batches(self.reader, columns)


def batches(reader: Any, columns: Sequence[str]) -> Iterator[Any]:
    """The batches of a reader as tables of some columns."""
    pa = pyarrow()
    done = 0
    while True:
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowException, OSError) as error:
            raise broken_off(done, error) from error
        done += batch.num_rows
        yield pa.Table.from_batches([batch]).select(list(columns))


def broken_off(rows: int, error: Exception) -> DataError:
    """Error for data that cannot be read to the end."""
    return DataError(
        f"the data cannot be read to the end, they break off after {rows} rows: {error}; nothing was summarized"
    )


def numeric_fields(schema: Any) -> list[str]:
    """Names of the numeric and boolean columns of an Arrow schema."""
    return [field.name for field in schema if kind_of_type(field.type) in ("numbers", "truth values")]


def kind_of_type(kind: Any) -> str:
    """What values of an Arrow type are, in words."""
    types = pyarrow().types
    if types.is_dictionary(kind):
        return kind_of_type(kind.value_type)
    tests: Mapping[str, Sequence[str]] = {
        "numbers": ("is_integer", "is_floating", "is_decimal"),
        "text": ("is_string", "is_large_string", "is_string_view"),
        "truth values": ("is_boolean",),
        "times": ("is_temporal",),
        "nothing": ("is_null",),
    }
    for words, names in tests.items():
        if any(getattr(types, name)(kind) for name in names if hasattr(types, name)):
            return words
    return f"of type {kind}"


def _common_type(kinds: Sequence[Any]) -> Any:
    """A type that holds all values of types of one kind."""
    pa = pyarrow()
    kinds = [kind for kind in kinds if not pa.types.is_null(kind)]
    if all(kind_of_type(kind) == "text" for kind in kinds):
        return pa.large_string()
    if all(pa.types.is_integer(kind) for kind in kinds):
        return pa.int64()
    if all(kind_of_type(kind) in ("numbers", "truth values") for kind in kinds):
        return pa.float64()
    return kinds[0]


def _in_path(name: str, path: str) -> bool:
    """Whether a directory of the path is named after a column, as in ``region=north``."""
    return any(part.startswith(f"{name}=") for part in path.split("/"))
