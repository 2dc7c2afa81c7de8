"""Files of cluster statistics: JSON, or Parquet for many clusters.

Both hold a header of names and numbers, and one row for each cluster size or, if clusters are kept, for each
cluster. Nothing in them is executed. A SHA-256 digest tells a damaged file from a whole one before any of it is used.
The format is described in docs/large-data.md; a change of it gets another version number.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrow import pyarrow
from msem.data.sums import ClusterSums, by_size, index_kind
from msem.errors import DataError

Floats = NDArray[np.float64]
FORMAT, VERSION = "msem cluster statistics", 1
NO_DIGEST = "0" * 64
MAGIC = b"PAR1"
BLOCK = 1 << 20
PLAIN = ("cluster", "nobs", "nclusters", "nrows", "dropped_rows", "dropped_no_cluster")
ROWS = ("sizes", "counts", "means", "scatter", "within")


def write_values(path: Any, values: Mapping[str, Any]) -> None:
    """Write the fields of `ClusterStatistics`; a file that is there already is replaced at once or not at all."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".parquet"):
        raise DataError(f"{path}: cluster statistics are saved as .json or .parquet")
    header, rows = _to_parts(values)
    with _replacing(Path(path)) as file:
        if suffix == ".json":
            content = header | {name: _lists(array) for name, array in rows.items()}
            whole = {"format": FORMAT, "version": VERSION, "sha256": _digest(content), "content": content}
            file.write_text(json.dumps(whole, allow_nan=False), encoding="utf-8")
        else:
            _write_parquet(file, header, rows)


def read_values(path: Any) -> dict[str, Any]:
    """The fields of `ClusterStatistics` from a file.

    Raises
    ------
    DataError
        If the file is not one of these, is damaged or cut short, or comes from a later version.
    """
    with open(path, "rb") as file:
        parquet = file.read(4) == MAGIC
    header, rows = _read_parquet(path) if parquet else _read_json(path)
    try:
        return _from_parts(header, rows)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is not a file of cluster statistics: {error!r}") from error


def is_statistics(path: Path) -> bool:
    """Whether a file is one of these, as far as its name or its end tells."""
    if path.suffix.lower() == ".json":
        return True
    return path.suffix.lower() == ".parquet" and path.is_file() and _digest_place(path) is not None


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


# -- the two parts of a file -----------------------------------------------------------------------------------


def _to_parts(values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header, and arrays with one row for each size or cluster."""
    sums: ClusterSums | None = values["sums"]
    header = {name: values[name] for name in PLAIN} | {
        "variables": list(values["variables"]),
        "dropped": dict(values["dropped"]),
        "origins": sorted(values["origins"]),
        "origin": values["origin"].tolist(),
        "ssw": _lower(values["ssw"]).tolist(),
        "rows": "sizes" if sums is None else "clusters",
    }
    if sums is None:
        rows = {name: values[name] for name in ("sizes", "counts", "means")}
        return header, rows | {"scatter": _lower(values["scatter"])}
    rows = {"ids": _plain_ids(sums.ids, values["cluster"]), "sizes": sums.sizes, "means": sums.means}
    return header, rows if sums.within is None else rows | {"within": sums.within}


def _from_parts(header: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    p = len(header["variables"])
    arrays: dict[str, Floats] = {
        name: np.asarray(rows[name], dtype=np.float64) for name in ROWS if name in rows
    }
    values: dict[str, Any] = {name: header[name] for name in PLAIN} | {
        "variables": tuple(header["variables"]),
        "dropped": dict(header["dropped"]),
        "origins": frozenset(header["origins"]),
        "origin": np.array(header["origin"], dtype=np.float64),
        "ssw": _whole(np.array(header["ssw"], dtype=np.float64), p),
    }
    if header["rows"] == "sizes":
        named = {name: arrays[name] for name in ("sizes", "counts", "means")}
        return values | named | {"scatter": _whole(arrays["scatter"], p)}
    ids = pd.Index(rows["ids"], tupleize_cols=False)
    sums = ClusterSums(ids, arrays["sizes"], arrays["means"], arrays.get("within"))
    sums.require_fit(p, values["nclusters"])
    return values | {"sums": sums, "ids": ids, **by_size(sums, values["origin"], values["ssw"])}


def _plain_ids(ids: pd.Index[Any], cluster: str) -> Any:
    if index_kind(ids) not in ("numbers", "text", "truth values"):
        raise DataError(
            f"the ids in cluster column {cluster!r} are {index_kind(ids)}, which a file cannot hold: convert them to "
            "text before they are summarized"
        )
    return ids


def _lower(matrix: Floats) -> Floats:
    """Lower triangle of the last two dimensions, row by row."""
    lower: Floats = matrix[..., *np.tril_indices(matrix.shape[-1])]
    return lower


def _whole(lower: Floats, p: int) -> Floats:
    """Symmetric matrices from lower triangles."""
    rows, columns = np.tril_indices(p)
    matrix = np.empty((*lower.shape[:-1], p, p))
    matrix[..., rows, columns] = lower
    matrix[..., columns, rows] = lower
    return matrix


# -- JSON ------------------------------------------------------------------------------------------------------


def _lists(array: Any) -> Any:
    return array.tolist()


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_json(path: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        whole = json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a file of cluster statistics, or is cut short: {error}") from error
    if not isinstance(whole, dict) or whole.get("format") != FORMAT:
        raise DataError(f"{path} is not a file of cluster statistics")
    _require_version(path, whole.get("version"))
    content = whole.get("content")
    if not isinstance(content, dict) or _digest(content) != whole.get("sha256"):
        raise _damaged(path)
    arrays = {name: content.pop(name) for name in ("ids", *ROWS) if name in content}
    return content, arrays


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number")


def _require_version(path: Any, version: Any) -> None:
    if version != VERSION:
        raise DataError(
            f"{path} is of version {version!r} of the format and this msem reads version {VERSION}: update msem"
        )


def _damaged(path: Any) -> DataError:
    return DataError(
        f"{path} is damaged or cut short: its digest is another one; get the file again from whoever made it"
    )


# -- Parquet ---------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, header: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Written with a digest of zeros in the footer, which is then replaced by that of the file as it stands."""
    pa = pyarrow()
    columns = {name: _column(array) for name, array in rows.items()}
    text = json.dumps(
        {"format": FORMAT, "version": VERSION, "sha256": NO_DIGEST, "content": header}, allow_nan=False
    )
    table = pa.table(columns)
    # Arrow's own copy of the schema would hold the header a second time
    with pa.parquet.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FORMAT: text})
    at = _digest_place(path)
    if at is None:
        raise DataError(f"pyarrow {pa.__version__} did not write the header to the footer of the file")
    digest = _file_digest(path, at)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(digest)


def _read_parquet(path: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    at = _digest_place(path)
    if at is None:
        raise DataError(f"{path} is not a file of cluster statistics, or is cut short")
    with open(path, "rb") as file:
        file.seek(at)
        if file.read(64) != _file_digest(path, at):
            raise _damaged(path)
    table = pyarrow().parquet.read_table(path)
    whole = json.loads(table.schema.metadata[FORMAT.encode()])
    _require_version(path, whole.get("version"))
    return whole["content"], {name: _array(table.column(name)) for name in table.column_names}


def _column(array: Any) -> Any:
    """An array as a column; rows of a matrix as lists of one length."""
    pa = pyarrow()
    if isinstance(array, pd.Index):
        return pa.array(array.tolist())
    if array.ndim == 1:
        return pa.array(array)
    flat = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _array(column: Any) -> Any:
    pa = pyarrow()
    if pa.types.is_fixed_size_list(column.type) or pa.types.is_list(column.type):
        return column.combine_chunks().flatten().to_numpy().reshape(len(column), -1)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return column.to_numpy()
    return column.to_pylist()


def _digest_place(path: Any) -> int | None:
    """Where in a Parquet file the digest stands; None if it is not one of ours."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size < 12:
            return None
        file.seek(size - 8)
        length, magic = int.from_bytes(file.read(4), "little"), file.read(4)
        start = size - 8 - length
        if magic != MAGIC or start < 4:
            return None
        file.seek(start)
        footer = file.read(length)
    found = list(re.finditer(rb'"sha256": "([0-9a-f]{64})"', footer))
    return start + found[0].start(1) if len(found) == 1 else None


def _file_digest(path: Any, at: int) -> bytes:
    """Digest of a file with zeros in the place of the digest."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for start in range(0, os.path.getsize(path), BLOCK):
            block = bytearray(file.read(BLOCK))
            first, last = max(at, start), min(at + 64, start + len(block))
            if first < last:
                block[first - start : last - start] = b"0" * (last - first)
            digest.update(block)
    return digest.hexdigest().encode()
