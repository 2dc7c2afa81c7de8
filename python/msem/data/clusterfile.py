"""Files of cluster statistics: JSON, or Parquet for many clusters.

Both hold a header of names and numbers, and one row for each cluster size or, if clusters are kept, for each cluster.
The format is described in docs/large-data.md; a change of it gets another version number.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrow import pyarrow
from msem.data.storage import (
    DIGEST,
    Fields,
    Format,
    damaged,
    digest,
    existing,
    has_digest,
    json_text,
    parsed,
    replacing,
    write_json,
)
from msem.data.sums import ClusterMarks, ClusterSums, by_size, index_kind
from msem.data.survey import Psus, Scale, SinglePsu, SurveyColumns
from msem.data.weighting import OPTIONS, Weighting
from msem.errors import DataError
from msem.model.levels import DEEPEST

Floats = NDArray[np.float64]
FORMAT = Format("msem cluster statistics", 1, "a file of cluster statistics")
WEIGHTED = Format(FORMAT.name, 2, FORMAT.kind)  # of rows with weights or a design; others stay as they were
NESTED = Format(FORMAT.name, 3, FORMAT.kind)  # of clusters within clusters
NESTED_WEIGHTED = Format(FORMAT.name, 4, FORMAT.kind)
NO_DIGEST = "0" * 64
MAGIC = b"PAR1"
BLOCK = 1 << 20
PLAIN = ("cluster", "nobs", "nclusters", "nrows", "dropped_rows", "dropped_no_cluster")
HEADER = (*PLAIN, "variables", "dropped", "origins", "origin", "ssw", "rows")
BY_SIZE = ("sizes", "counts", "means", "scatter")
BY_CLUSTER = ("ids", "sizes", "means")
UPPER = ("upper", *(f"upper{k}" for k in range(2, DEEPEST - 1)))  # ids of the clusters above, highest first
MARKS = ("units", "squares", "weights", "psu")
INNER = tuple(
    f"inner{k}" for k in range(1, DEEPEST - 1)
)  # weights of clusters below the highest, these first
COLUMNS = {*BY_SIZE, *BY_CLUSTER, *UPPER, "within", "cells", *MARKS, *INNER}


def write_values(path: Any, values: Mapping[str, Any]) -> None:
    """Write the fields of `ClusterStatistics`; a file that is there already is replaced at once or not at all."""
    suffix = Path(path).suffix.lower()
    if suffix not in (".json", ".parquet"):
        raise DataError(f"{path}: cluster statistics are saved as .json or .parquet")
    header, rows = _to_parts(values)
    kind = _kind(nested=isinstance(values["cluster"], tuple), weighted=values["weighting"] is not None)
    if suffix == ".json":
        content = header | {name: array.tolist() for name, array in rows.items()}
        write_json(path, kind.header | {DIGEST: digest(content), "content": content})
    else:
        with replacing(path) as file:
            _write_parquet(file, kind, header, rows)


def _kind(*, nested: bool, weighted: bool) -> Format:
    if nested:
        return NESTED_WEIGHTED if weighted else NESTED
    return WEIGHTED if weighted else FORMAT


def read_values(path: Any) -> dict[str, Any]:
    """The fields of `ClusterStatistics` from a file.

    Raises
    ------
    DataError
        If the file is not one of these, is damaged or cut short, or comes from a later version.
    """
    with open(existing(path), "rb") as file:
        parquet = file.read(4) == MAGIC
    header, rows = _read_parquet(path) if parquet else _read_json(path)
    try:
        return _from_parts(header, rows)
    except (ValueError, TypeError) as error:
        raise FORMAT.contradiction(path, error) from error


def is_statistics(path: Path) -> bool:
    """Whether a file is one of these, as far as its name or its end tells."""
    if path.suffix.lower() == ".json":
        return True
    return path.suffix.lower() == ".parquet" and path.is_file() and _digest_place(path) is not None


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
    weighting: Weighting | None = values["weighting"]
    if weighting is not None:
        header["weighting"] = _plain_weighting(weighting)
    if sums is None:
        rows = {name: values[name] for name in ("sizes", "counts", "means")}
        if weighting is not None:
            rows["cells"] = weighting.cells
        return header, rows | {"scatter": _lower(values["scatter"])}
    rows = {"sizes": sums.sizes, "means": sums.means}
    if isinstance(sums.ids, pd.MultiIndex):
        header["cluster"] = list(values["cluster"])
        for k, place in enumerate((*UPPER[: sums.ids.nlevels - 1], "ids")):
            rows[place] = _plain_ids(sums.ids.get_level_values(k), values["cluster"][k])
    else:
        rows["ids"] = _plain_ids(sums.ids, values["cluster"])
    if sums.marks is not None:
        known = {name: getattr(sums.marks, name) for name in MARKS}
        known |= dict(zip(INNER, sums.marks.inner, strict=False))
        rows |= {name: array for name, array in known.items() if array is not None}
    return header, rows if sums.within is None else rows | {"within": sums.within}


def _plain_weighting(weighting: Weighting) -> dict[str, Any]:
    """What a file says of weights and design, but for what is known of single clusters."""
    psus = weighting.psus
    out = {name: getattr(weighting.columns, name) for name in OPTIONS} | {"weights_scale": weighting.scale}
    out |= {"zero": weighting.zero, "totals": weighting.totals.tolist()}
    if weighting.columns.inner_weights:
        out["inner_weights"] = list(weighting.columns.inner_weights)
    if psus is None:
        return out
    columns = weighting.columns
    return out | {
        "psus": _plain_ids(psus.ids, str(columns.psu or psus.cluster)).tolist(),
        "stratum": psus.stratum.tolist(),
        "strata_ids": _plain_ids(psus.strata, str(columns.strata)).tolist(),
        "left_of": None if psus.fpc is None else [None if np.isnan(x) else x for x in psus.fpc.tolist()],
    }


def _weighting(given: Any, cluster: str) -> Weighting:
    """The weighting of a file.

    Raises
    ------
    ValueError
        If it is none.
    """
    known = Fields(
        given,
        (*OPTIONS, "weights_scale", "zero", "totals"),
        ("psus", "stratum", "strata_ids", "left_of", "inner_weights"),
    )
    names = {name: None if given[name] is None else known.text(name) for name in OPTIONS}
    if names["single_psu"] not in get_args(SinglePsu) or known.text("weights_scale") not in get_args(Scale):
        raise ValueError("weights are scaled, or single PSUs treated, in a way that is not known")
    inner = given.get("inner_weights") or []
    if not isinstance(inner, list) or not all(one is None or isinstance(one, str) for one in inner):
        raise ValueError("the columns of weights of clusters are not known")
    columns = SurveyColumns(**names, inner_weights=tuple(inner))  # type: ignore[arg-type]
    psus = None
    if given.get("psus") is not None:
        ids, strata = (pd.Index(_ids(given[name]), tupleize_cols=False) for name in ("psus", "strata_ids"))
        stratum = _numbers_below(known.numbers("stratum", len(ids)), len(strata))
        fpc = None if given["left_of"] is None else known.numbers("left_of", len(strata), gaps=True)
        if not (ids.is_unique and strata.is_unique) or (fpc is None) != (columns.fpc is None):
            raise ValueError("its primary sampling units and strata do not fit together")
        psus = Psus(columns, cluster, ids, stratum, strata, fpc)
    totals = known.numbers("totals", 4)
    if not (totals > 0).all():
        raise ValueError("sums of weights must be positive")
    return Weighting(columns, given["weights_scale"], np.empty(0), totals, known.whole("zero"), psus=psus)


def _numbers_below(values: Floats, count: int) -> NDArray[np.int64]:
    """Numbers from 0 that are below a count."""
    if ((values != np.rint(values)) | (values < 0) | (values >= count)).any():
        raise ValueError("a number of a unit or stratum is beyond them")
    return values.astype(np.int64)


def _from_parts(header: Any, rows: Mapping[str, Any]) -> dict[str, Any]:
    given = Fields(header, HEADER, ("weighting",))
    names = given.texts("variables")
    p = len(names)
    if not p or len(set(names)) < p:
        raise ValueError("there are no variables, or one twice")
    dropped = Fields(header["dropped"], (), header["dropped"])
    nobs, nclusters = given.number("nobs"), given.number("nclusters")
    values: dict[str, Any] = {
        "cluster": _columns(given, header["cluster"]),
        "nobs": nobs,
        "nclusters": nclusters,
        "variables": tuple(names),
        "dropped": {name: dropped.whole(name) for name in header["dropped"]},
        "origins": frozenset(given.texts("origins")),
        "origin": given.numbers("origin", p),
        "ssw": _symmetric(given.numbers("ssw", p * (p + 1) // 2), p),
    } | {name: given.whole(name) for name in ("nrows", "dropped_rows", "dropped_no_cluster")}
    weighting = _weighting_of(header, values["cluster"])
    if given.text("rows") == "sizes":
        table = Fields(rows, BY_SIZE, () if weighting is None else ("cells",))
        sizes = table.numbers("sizes", None)
        if weighting is not None:
            cells = table.numbers("cells", len(sizes))
            if not (cells >= 1).all() or cells.sum() != nclusters:
                raise ValueError("the numbers of clusters of each size do not add up")
            values["weighting"] = replace(
                weighting, cells=cells, factor=nclusters / float(weighting.totals[2])
            )
        return values | {
            "sizes": sizes,
            "counts": table.numbers("counts", len(sizes)),
            "means": table.numbers("means", len(sizes), p),
            "scatter": _symmetric(table.numbers("scatter", len(sizes), p * (p + 1) // 2), p),
        }
    sums = _sums(rows, values["cluster"], p, weighting)
    sums.require_fit(p, nclusters)
    values |= {"sums": sums, "ids": sums.ids}
    if weighting is not None:
        return values | weighting.table(sums)
    return values | by_size(sums, values["origin"], values["ssw"])


def _weighting_of(header: Mapping[str, Any], cluster: str | tuple[str, ...]) -> Weighting | None:
    """The weighting of a file; None of a simple sample."""
    if "weighting" not in header:
        return None
    kinds = cluster if isinstance(cluster, tuple) else (cluster,)
    weighting = _weighting(header["weighting"], kinds[0])
    if len(weighting.columns.inner_weights) not in (0, len(kinds) - 1):
        raise ValueError("there are weights of more kinds of clusters than there are")
    return weighting


def _sums(
    rows: Mapping[str, Any], cluster: str | tuple[str, ...], p: int, weighting: Weighting | None
) -> ClusterSums:
    """The single clusters of a file, of p variables."""
    further = () if weighting is None else (*MARKS, *INNER)
    table = Fields(rows, (*BY_CLUSTER, *_above(cluster)), ("within", *further))
    sizes = table.numbers("sizes", None)
    J = len(sizes)
    means = table.numbers("means", J, p)
    within = table.numbers("within", J, p * (p + 1) // 2) if "within" in rows else None
    sums = ClusterSums(_paths(rows, cluster, J), sizes, means, within)
    if weighting is None:
        return sums
    columns = weighting.columns
    of_inner = zip(columns.inner_weights, INNER, strict=False)
    marks = ClusterMarks(
        table.numbers("units", J),
        table.numbers("squares", J),
        table.numbers("weights", J) if "weights" in rows else None,
        None if weighting.psus is None else _numbers_below(table.numbers("psu", J), len(weighting.psus.ids)),
        tuple(None if name is None else table.numbers(place, J) for name, place in of_inner),
    )
    if (marks.weights is None) != (columns.cluster_weights is None) or within is None:
        raise ValueError("the weights of single clusters do not fit together")
    return replace(sums, marks=marks)


def _columns(given: Fields, cluster: Any) -> str | tuple[str, ...]:
    """The column of the clusters, or several."""
    return tuple(given.texts("cluster")) if isinstance(cluster, list) else given.text("cluster")


def _above(cluster: str | tuple[str, ...]) -> tuple[str, ...]:
    """Where the ids of the clusters above the lowest ones stand, the highest first."""
    return UPPER[: len(cluster) - 1] if isinstance(cluster, tuple) else ()


def _paths(rows: Mapping[str, Any], cluster: str | tuple[str, ...], count: int) -> pd.Index[Any]:
    """Ids of so many clusters, with those that they are in if they are in any."""
    ids: pd.Index[Any] = pd.Index(_ids(rows["ids"]), tupleize_cols=False)
    if not isinstance(cluster, tuple):
        return ids
    paths = [*(pd.Index(_ids(rows[name]), tupleize_cols=False) for name in _above(cluster)), ids]
    fit = 1 < len(cluster) == len(paths) and {len(own) for own in paths} == {count}
    if not fit or "within" not in rows:
        raise ValueError("the clusters and those that they are in do not fit together")
    return pd.MultiIndex.from_arrays(paths, names=cluster)


def _ids(given: Any) -> Any:
    """Ids of clusters: an array of a column, or a list of texts, numbers or truth values."""
    kinds = set(map(type, given)) if isinstance(given, list) else set()
    if not isinstance(given, np.ndarray) and not (kinds <= {int, float} or kinds in ({str}, {bool})):
        raise ValueError("'ids' are neither all numbers nor all texts")
    return given


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


def _symmetric(lower: Floats, p: int) -> Floats:
    """Symmetric matrices from lower triangles."""
    rows, columns = np.tril_indices(p)
    matrix = np.empty((*lower.shape[:-1], p, p))
    matrix[..., rows, columns] = lower
    matrix[..., columns, rows] = lower
    return matrix


def _require_known(path: Any, whole: Mapping[str, Any]) -> None:
    """Refuse a file of another format or version."""
    content = whole.get("content")
    known = content if isinstance(content, dict) else {}
    _kind(nested=isinstance(known.get("cluster"), list), weighted="weighting" in known).require(path, whole)


# -- JSON ------------------------------------------------------------------------------------------------------


def _read_json(path: Any) -> tuple[Any, dict[str, Any]]:
    whole = FORMAT.read(path)
    _require_known(path, whole)
    content = whole.get("content")
    if not isinstance(content, dict) or len(whole) > 4 or not has_digest(content, whole.get(DIGEST)):
        raise damaged(path)
    rows = {name: content.pop(name) for name in COLUMNS if name in content}
    return content, rows


# -- Parquet ---------------------------------------------------------------------------------------------------


def _write_parquet(path: Path, kind: Format, header: Mapping[str, Any], rows: Mapping[str, Any]) -> None:
    """Written with a digest of zeros in the footer, which is then replaced by that of the file as it stands."""
    pa = pyarrow()
    columns = {name: _column(array) for name, array in rows.items()}
    text = json_text(kind.header | {DIGEST: NO_DIGEST, "content": header})
    table = pa.table(columns)
    # Arrow's own copy of the schema would hold the header a second time
    with pa.parquet.ParquetWriter(path, table.schema, store_schema=False) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({FORMAT.name: text})
    at = _digest_place(path)
    if at is None:
        raise DataError(f"pyarrow {pa.__version__} did not write the header to the footer of the file")
    with path.open("r+b") as file:
        file.seek(at)
        file.write(_file_digest(path, at))


def _read_parquet(path: Any) -> tuple[Any, dict[str, Any]]:
    at = _digest_place(path)
    if at is None:
        raise DataError(f"{path} is not {FORMAT.kind}, or is cut short")
    with open(path, "rb") as file:
        file.seek(at)
        if file.read(64) != _file_digest(path, at):
            raise damaged(path)
    pa = pyarrow()
    try:
        table = pa.parquet.read_table(path)
        whole = parsed((table.schema.metadata or {}).get(FORMAT.name.encode(), b""))
        columns = {name: _array(table.column(name)) for name in table.column_names}
    except (ValueError, pa.ArrowException) as error:
        raise FORMAT.contradiction(path, error) from error
    _require_known(path, whole)
    return whole.get("content"), columns


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
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for start in range(0, os.path.getsize(path), BLOCK):
            block = bytearray(file.read(BLOCK))
            first, last = max(at, start), min(at + 64, start + len(block))
            if first < last:
                block[first - start : last - start] = b"0" * (last - first)
            found.update(block)
    return found.hexdigest().encode()
