"""From a data frame to complete rows of the variables a model needs, with the cluster of each row.

pandas, polars and pyarrow tables (and whatever else narwhals reads) and mappings of arrays are accepted.
Float columns without missing values are viewed, not copied.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from numbers import Real
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError
from msem.sample.screening import require_complete_rows

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Columns = Mapping[str, "nw.Series[Any]"]


@dataclass(frozen=True)
class ClusteredData:
    """Complete rows of the variables a model needs.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (N,)
        The variables, in the order asked for; read-only, and views of the frame where possible.
    codes : ndarray of int64, shape (N,), or None
        Cluster of each row, numbered 0..J-1 in order of first appearance; None without clusters.
    clusters : pandas.Index, length J
        The cluster ids in order of code; empty without clusters.
    nrows : int
        Rows of the frame as given.
    dropped : mapping of str to int
        Rows of the frame in which a variable is missing, for variables with any.
    dropped_rows : int
        Rows left out because a variable is missing, not counting those without a cluster id.
    dropped_no_cluster : int
        Rows left out because the cluster id is missing.
    rows : ndarray of int64, shape (N,), or None
        Position of each row in the frame as given; None when no row was left out.
    index : pandas.Index
        Labels of the rows of the frame as given, for a frame that has them; otherwise their numbers.
    """

    columns: Mapping[str, Floats]
    codes: NDArray[np.int64] | None
    clusters: pd.Index[Any]
    nrows: int
    dropped: Mapping[str, int]
    dropped_rows: int
    dropped_no_cluster: int
    rows: NDArray[np.int64] | None = None
    index: pd.Index[Any] = field(default_factory=lambda: pd.RangeIndex(0))

    @property
    def nobs(self) -> int:
        """Rows in use."""
        return self.nrows - self.dropped_rows - self.dropped_no_cluster


def clustered_data(frame: Any, variables: Sequence[str], cluster: str | None) -> ClusteredData:
    """Take the needed variables from a frame, delete incomplete rows and number the clusters.

    Parameters
    ----------
    frame : pandas, polars or pyarrow table, any frame narwhals reads, or mapping of names to arrays
        One row per unit.
    variables : sequence of str
        Names of the model's observed variables.
    cluster : str or None
        Column with the cluster ids, of any hashable type. Rows without an id are left out and counted.

    Returns
    -------
    ClusteredData

    Raises
    ------
    DataError
        If a column is unknown, duplicated, not numeric or infinite, if the cluster column is also a
        variable, if cluster ids cannot be hashed, or if no complete row is left.
    """
    return complete_rows(screened_columns(frame, variables, cluster))


@dataclass(frozen=True, eq=False)
class ScreenedColumns:
    """Columns as numbers, with what is missing in them.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (rows,)
    missing : mapping of str to ndarray of bool, shape (rows,), or None
        None where nothing is missing.
    cluster : str or None
    ids : narwhals.Series or None
        The cluster column.
    no_cluster : ndarray of bool, shape (rows,)
        Rows without a cluster id.
    index : pandas.Index
        Labels of the rows.
    """

    columns: Mapping[str, Floats]
    missing: Mapping[str, Bools | None]
    cluster: str | None
    ids: nw.Series[Any] | None
    no_cluster: Bools
    index: pd.Index[Any]


def screened_columns(frame: Any, variables: Sequence[str], cluster: str | None) -> ScreenedColumns:
    """Take the needed columns from a frame; see `clustered_data`."""
    require_distinct_roles(variables, cluster)
    needed = [*variables] if cluster is None else [*variables, cluster]
    columns = select_columns(frame, needed)
    nrows = require_rows(columns)
    values = {name: float_column(name, columns[name]) for name in variables}
    missing = {name: missing_rows(name, column) for name, column in values.items()}
    ids = None if cluster is None else columns[cluster]
    no_cluster = np.zeros(nrows, dtype=bool) if ids is None else missing_ids(ids)
    index = frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(nrows)
    return ScreenedColumns(values, missing, cluster, ids, no_cluster, index)


def complete_rows(screened: ScreenedColumns, rows: Bools | None = None) -> ClusteredData:
    """Delete incomplete rows and number the clusters; of the marked rows only, if `rows` is given."""
    nrows = len(screened.no_cluster)
    among = np.ones(nrows, dtype=bool) if rows is None else rows
    missing, no_cluster = screened.missing, screened.no_cluster & among
    incomplete = any_of(list(missing.values()), nrows) & among & ~no_cluster
    keep = among & ~(incomplete | no_cluster)
    dropped = {name: int((mask & among).sum()) for name, mask in missing.items() if mask is not None}
    dropped = {name: count for name, count in dropped.items() if count}
    require_complete_rows(keep, dropped, no_cluster, screened.cluster, int(among.sum()))
    codes, clusters = (
        (None, pd.Index([]))
        if screened.ids is None
        else number_clusters(str(screened.cluster), screened.ids, keep)
    )
    return ClusteredData(
        columns={name: kept(column, keep) for name, column in screened.columns.items()},
        codes=codes,
        clusters=clusters,
        nrows=int(among.sum()),
        dropped=dropped,
        dropped_rows=int(incomplete.sum()),
        dropped_no_cluster=int(no_cluster.sum()),
        rows=None if keep.all() else np.flatnonzero(keep),
        index=screened.index,
    )


def select_columns(frame: Any, needed: Sequence[str]) -> Columns:
    """Columns of the frame by name; a lazy frame computes these only."""
    if isinstance(frame, Mapping):
        require_known(needed, list(frame))
        return {name: series_from(name, frame[name]) for name in needed}
    if isinstance(frame, pd.DataFrame):
        require_unique_names(frame)
        require_known(needed, list(frame))
        return {name: nw.from_native(frame[name], series_only=True) for name in needed}
    table = read_frame(frame)
    require_known(needed, table.collect_schema().names())
    selected = table.select(*dict.fromkeys(needed))
    eager = selected.collect() if isinstance(selected, nw.LazyFrame) else selected
    return {name: eager[name] for name in needed}


def read_frame(frame: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    """Wrap a native frame."""
    if isinstance(frame, pd.DataFrame):
        require_unique_names(frame)
    try:
        table: nw.DataFrame[Any] | nw.LazyFrame[Any] = nw.from_native(frame)
    except TypeError:
        raise DataError(
            f"cannot read data of type {type(frame).__name__!r}: give a pandas, polars or pyarrow table, "
            "or a dict of arrays"
        ) from None
    return table


def column_names(frame: Any) -> Sequence[Any]:
    """Names of the columns of a frame or mapping."""
    if isinstance(frame, pd.DataFrame | Mapping):
        return list(frame)
    return read_frame(frame).collect_schema().names()


def numeric_columns(frame: Any) -> list[str]:
    """Names of the numeric and boolean columns of a frame, or all of a mapping of arrays."""
    if isinstance(frame, Mapping):
        return [str(name) for name in frame]
    schema = read_frame(frame).collect_schema()
    return [name for name, kind in schema.items() if kind.is_numeric() or kind == nw.Boolean]


def series_from(name: str, values: Any) -> nw.Series[Any]:
    """Wrap one array or series of a mapping."""
    native = nw.from_native(values, series_only=True, pass_through=True)
    if isinstance(native, nw.Series):
        return native
    if np.ndim(values) != 1 and not isinstance(values, list):
        raise DataError(f"column {name!r} has {np.ndim(values)} dimensions: give one value per row")
    return nw.from_native(pd.Series(values, copy=False), series_only=True)


def float_column(name: str, series: nw.Series[Any]) -> Floats:
    """Values as float64, nan where missing; a float64 column without nulls is not copied."""
    native = series.to_native()
    if isinstance(native, pd.Series) and native.dtype == np.float64 and isinstance(native.dtype, np.dtype):
        return native.to_numpy()
    kind = series.dtype
    if series.null_count() == len(series):
        return np.full(len(series), np.nan)
    if kind == nw.Object:
        return objects_as_floats(name, series)
    if kind == nw.Unknown:
        return unusual_as_floats(name, series)
    if not (kind.is_numeric() or kind == nw.Boolean):
        raise not_numeric(name, str(kind).partition("(")[0].lower())
    if kind != nw.Float64:
        series = series.cast(nw.Float64)
    values: Floats = np.asarray(series.to_numpy(), dtype=np.float64)
    return values


def objects_as_floats(name: str, series: nw.Series[Any]) -> Floats:
    """Values of a column of Python objects, which must be numbers or missing."""
    raw = pd.Series(series.to_numpy(), dtype=object)
    present = raw[raw.notna()]
    for value in present:
        if not isinstance(value, (Real, Decimal, np.bool_)):
            raise not_numeric(name, type(value).__name__)
    values = np.full(len(raw), np.nan)
    values[raw.notna().to_numpy()] = [float(value) for value in present]
    return values


def unusual_as_floats(name: str, series: nw.Series[Any]) -> Floats:
    """Values of a column whose type narwhals does not know: sparse, big-endian or extended precision."""
    dtype: Any = getattr(series.to_native(), "dtype", series.dtype)
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        raise not_numeric(name, str(dtype).lower())
    return np.asarray(series.to_native(), dtype=np.float64)


def not_numeric(name: str, kind: str) -> DataError:
    """Error for a column that is not a number."""
    remedy = "convert it to numbers"
    if kind in {"categorical", "enum", "string", "str"}:
        remedy = "convert it to numbers, or to 0/1 indicator columns if its values are categories"
    return DataError(f"variable {name!r} is not numeric (its type is {kind}): {remedy}")


def missing_rows(name: str, column: Floats) -> Bools | None:
    """Rows in which a column is missing, None if there are none; infinite values are refused."""
    finite = np.isfinite(column)
    if finite.all():
        return None
    missing = np.isnan(column)
    infinite = ~(finite | missing)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"variable {name!r} is infinite in {infinite.sum()} row(s), first in row {row} (counted from 0): "
            "correct the value, or make it missing"
        )
    return missing


def any_of(masks: Sequence[Bools | None], nrows: int) -> Bools:
    """Rows marked in any of the masks."""
    result = np.zeros(nrows, dtype=bool)
    for mask in masks:
        if mask is not None:
            result |= mask
    return result


def missing_ids(ids: nw.Series[Any]) -> Bools:
    """Rows without a cluster id: null, None, nan or not-a-time."""
    native = ids.to_native()
    if isinstance(native, pd.Series):
        return native.isna().to_numpy(dtype=bool)
    missing = ids.is_null()
    if ids.dtype.is_float():
        missing = missing | ids.is_nan().fill_null(False)
    result: Bools = np.asarray(missing.to_numpy(), dtype=bool)
    return result


def kept_ids(ids: nw.Series[Any], keep: Bools) -> Any:
    """Cluster ids of the kept rows, as an array or, for extension types, a pandas series.

    Rows are selected first: integers with nulls among them would be converted to floats.
    """
    if not keep.all():
        native = ids.to_native()
        if isinstance(native, pd.Series):
            ids = nw.from_native(native[keep], series_only=True)
        else:
            ids = ids.filter(nw.new_series("keep", keep, nw.Boolean(), backend=ids.implementation))
    native = ids.to_native()
    if isinstance(native, pd.Series) and not isinstance(native.dtype, np.dtype):
        return native
    return ids.to_numpy()


def number_clusters(
    cluster: str, ids: nw.Series[Any], keep: Bools
) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Codes 0..J-1 of the kept rows in order of first appearance, and the ids in that order."""
    values = kept_ids(ids, keep)
    ordered = isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype.kind in "iufM"
    if ordered and (values[1:] >= values[:-1]).all():
        return number_runs(values)
    try:
        codes, unique = pd.factorize(values)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the ids in cluster column {cluster!r} cannot be told apart ({error}): use numbers or strings"
        ) from None
    return codes.astype(np.int64, copy=False), pd.Index(unique, tupleize_cols=False)


def number_runs(ids: NDArray[Any]) -> tuple[NDArray[np.int64], pd.Index[Any]]:
    """Codes of sorted ids: a new cluster wherever the id changes."""
    starts = np.r_[True, ids[1:] != ids[:-1]]
    return np.cumsum(starts, dtype=np.int64) - 1, pd.Index(ids[starts])


def kept(column: Floats, keep: Bools) -> Floats:
    """Kept rows of a column, read-only; a view if all are kept."""
    result = column[:] if keep.all() else column[keep]
    result.flags.writeable = False
    return result


def require_distinct_roles(variables: Sequence[str], cluster: str | None) -> None:
    """Refuse the cluster column as a variable of the model."""
    if cluster is not None and cluster in variables:
        raise DataError(
            f"{cluster!r} is both the cluster column and a variable of the model: an id has no mean or "
            "variance; take it out of the model, or name another column in cluster="
        )


def require_unique_names(frame: pd.DataFrame) -> None:
    """Refuse a frame in which a name stands for several columns."""
    duplicated = frame.columns[frame.columns.duplicated()].unique()
    if len(duplicated):
        names = ", ".join(repr(name) for name in duplicated)
        raise DataError(f"the data have several columns named {names}: rename or drop all but one")


def require_known(needed: Sequence[str], available: Sequence[Any]) -> None:
    """Refuse names that are not columns, and suggest the closest one."""
    known = set(available)
    for name in needed:
        if name not in known:
            close = difflib.get_close_matches(name, [str(column) for column in available], n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the columns are {listed(available)}"
            raise DataError(f"the data have no column {name!r}: {hint}")


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Names separated by commas, the first dozen."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown


def require_rows(columns: Columns) -> int:
    """Refuse columns of unequal length and empty data; return the number of rows."""
    lengths = {name: len(series) for name, series in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns differ in length: {lengths}")
    nrows = next(iter(lengths.values()))
    if nrows == 0:
        raise DataError("the data have no rows")
    return nrows
