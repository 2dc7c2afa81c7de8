"""Columns of a data frame of any kind as arrays of numbers, or as ids.

pandas, polars and pyarrow tables (and whatever else narwhals reads) and mappings of arrays are accepted.
Float columns without missing values are viewed, not copied.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Column = nw.Series[Any] | pd.Series
Columns = Mapping[str, Column]
LONG = (nw.Int128, nw.UInt128)  # which NumPy does not have


def select_columns(frame: Any, needed: Sequence[str]) -> Mapping[str, nw.Series[Any]]:
    """Columns of the frame by name; a lazy frame computes these only."""
    if isinstance(frame, Mapping):
        require_known(needed, list(frame))
        return {name: series_from(name, frame[name]) for name in needed}
    if isinstance(frame, pd.DataFrame):
        require_unique_names(frame)
        require_known(needed, list(frame))
        whole = nw.from_native(frame)
        return {name: whole.get_column(name) for name in needed}
    table = read_frame(frame)
    require_known(needed, table.collect_schema().names())
    selected = table.select(*dict.fromkeys(needed))
    eager = selected.collect() if isinstance(selected, nw.LazyFrame) else selected
    return {name: eager[name] for name in needed}


def frame_columns(frame: Any, needed: Sequence[str]) -> Columns:
    """The same, those of pandas as they are: to wrap a column takes longer than to read a short one."""
    if not isinstance(frame, pd.DataFrame):
        return select_columns(frame, needed)
    require_unique_names(frame)
    require_known(needed, frame.columns.tolist())
    return {name: frame[name] for name in needed}


def native_column(column: Column) -> Any:
    """A column without what narwhals wraps it in."""
    return column if isinstance(column, pd.Series) else column.to_native()


def read_frame(frame: Any) -> nw.DataFrame[Any] | nw.LazyFrame[Any]:
    """Wrap a native frame."""
    if isinstance(frame, pd.DataFrame):
        require_unique_names(frame)
    if type(frame).__module__.startswith("pyarrow") and hasattr(frame, "column_names"):
        require_unique(frame.column_names)
    try:
        table: nw.DataFrame[Any] | nw.LazyFrame[Any] = nw.from_native(frame)
    except TypeError:
        remedy = {
            str: "; a file is read by msem.read_data(path)",
            np.ndarray: "; names are given to an array by pandas.DataFrame(array, columns=[...])",
        }.get(str if isinstance(frame, Path) else type(frame), "")
        raise DataError(
            f"cannot read data of type {type(frame).__name__!r}: give a pandas, polars or pyarrow table, "
            f"or a dict of arrays{remedy}"
        ) from None
    return table


def column_names(frame: Any) -> Sequence[Any]:
    """Names of the columns of a frame or mapping."""
    if isinstance(frame, pd.DataFrame):
        return frame.columns.tolist()
    if isinstance(frame, Mapping):
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


def float_column(name: str, column: Column) -> Floats:
    """Values as float64, nan where missing; a float64 column without nulls is not copied."""
    native = native_column(column)
    if isinstance(native, pd.Series) and isinstance(native.dtype, np.dtype) and native.dtype == np.float64:
        return native.to_numpy()
    series: nw.Series[Any] = nw.from_native(native, series_only=True)
    kind = series.dtype
    if series.null_count() == len(series):
        return np.full(len(series), np.nan)
    if kind == nw.Object:
        return objects_as_floats(name, series)
    if kind == nw.Unknown:
        return unusual_as_floats(name, series)
    if not (kind.is_numeric() or kind == nw.Boolean):
        raise not_numeric(name, str(kind).partition("(")[0].lower(), series)
    if kind != nw.Float64:
        series = series.cast(nw.Float64)
    values: Floats = np.asarray(series.to_numpy(), dtype=np.float64)
    return values


def plain_numbers(series: nw.Series[Any]) -> NDArray[Any] | None:
    """The values of a column of floats or whole numbers without nulls, as they are in memory; None for others."""
    native = series.to_native()
    if isinstance(native, pd.Series):
        kind = native.dtype
        usual = isinstance(kind, np.dtype) and kind.isnative and kind.kind in "fiub" and kind.itemsize <= 8
        return native.to_numpy() if usual and kind != np.float16 else None
    whole = series.dtype.is_integer() and series.dtype not in LONG
    if not (whole or series.dtype in (nw.Float32, nw.Float64)) or series.null_count():
        return None
    values: NDArray[Any] = series.to_numpy()
    return values if values.dtype.isnative and values.dtype.kind in "fiu" and values.itemsize <= 8 else None


def objects_as_floats(name: str, series: nw.Series[Any]) -> Floats:
    """Values of a column of Python objects, which must be numbers or missing."""
    raw = pd.Series(series.to_numpy(), dtype=object)
    present = raw[raw.notna()]
    for value in present:
        if not isinstance(value, (Real, Decimal, np.bool_)):
            raise not_numeric(name, type(value).__name__)
    values = np.full(len(raw), np.nan)
    try:
        values[raw.notna().to_numpy()] = [float(value) for value in present]
    except OverflowError:
        raise DataError(f"variable {name!r} has a whole number that is too large for a float") from None
    return values


def unusual_as_floats(name: str, series: nw.Series[Any]) -> Floats:
    """Values of a column whose type narwhals does not know: sparse, big-endian or extended precision."""
    dtype: Any = getattr(series.to_native(), "dtype", series.dtype)
    if not pd.api.types.is_numeric_dtype(dtype) or pd.api.types.is_complex_dtype(dtype):
        raise not_numeric(name, str(dtype).lower())
    return np.asarray(series.to_native(), dtype=np.float64)


def not_numeric(name: str, kind: str, series: nw.Series[Any] | None = None) -> DataError:
    """Error for a column that is not a number; of numbers written as text it names those that are none."""
    remedy = "convert it to numbers"
    if kind in {"categorical", "enum", "string", "str"}:
        remedy = "convert it to numbers, or to 0/1 indicator columns if its values are categories"
    if series is not None and kind in {"string", "str"}:
        values = pd.Series(series.to_list(), dtype=object).dropna()
        odd = values[pd.to_numeric(values, errors="coerce").isna()].value_counts()
        commas = pd.to_numeric(values.astype(str).str.replace(",", ".", regex=False), errors="coerce")
        if odd.sum() and commas.notna().all() and values.astype(str).str.fullmatch(r"[^,]*,?[^,]*").all():
            remedy = (
                f"its values are written with decimal commas, such as {odd.index[0]!r}: read the file with "
                'pandas.read_csv(..., decimal=","), or replace the commas'
            )
        elif 0 < odd.sum() < len(values) / 2:
            shown = ", ".join(f"{value!r} in {count} rows" for value, count in odd.head(3).items())
            more = ", ..." if len(odd) > 3 else ""
            remedy = (
                f"all its values are numbers but {shown}{more}; if that stands for a missing value, read the "
                "file with it as one, as by msem.read_data(..., missing=[...]) or pandas.read_csv(..., na_values=[...])"
            )
        elif not odd.sum():
            remedy = "its values are numbers written as text: convert it to numbers, as by pandas.to_numeric"
    return DataError(f"variable {name!r} is not numeric (its type is {kind}): {remedy}")


def missing_ids(ids: Column) -> Bools:
    """Rows without a cluster id: null, None, nan or not-a-time."""
    if isinstance(native := native_column(ids), pd.Series):
        whole = isinstance(native.dtype, np.dtype) and native.dtype.kind in "iub"
        return np.zeros(len(native), dtype=bool) if whole else native.isna().to_numpy(dtype=bool)
    wrapped: nw.Series[Any] = nw.from_native(native, series_only=True)
    missing = wrapped.is_null()
    if wrapped.dtype.is_float():
        missing = missing | wrapped.is_nan().fill_null(False)
    result: Bools = np.asarray(missing.to_numpy(), dtype=bool)
    return result


def kept_ids(ids: Column, keep: Bools) -> Any:
    """Cluster ids of the kept rows, as an array or, for extension types, a pandas series.

    Rows are selected first: integers with nulls among them would be converted to floats.
    """
    if isinstance(native := native_column(ids), pd.Series):
        native = native if keep.all() else native[keep]
        return _usual(native.to_numpy()) if isinstance(native.dtype, np.dtype) else native
    wrapped: nw.Series[Any] = nw.from_native(native, series_only=True)
    if not keep.all():
        wrapped = wrapped.filter(nw.new_series("keep", keep, nw.Boolean(), backend=wrapped.implementation))
    return np.array(wrapped.to_list()) if wrapped.dtype in LONG else _usual(wrapped.to_numpy())


def _usual(values: NDArray[Any]) -> NDArray[Any]:
    """Numbers in the byte order of the machine, and not of half precision, neither of which pandas can look up."""
    if values.dtype == np.float16:
        return values.astype(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def require_unique_names(frame: pd.DataFrame) -> None:
    """Refuse a frame in which a name stands for several columns."""
    if not frame.columns.is_unique:
        require_unique(list(frame.columns))


def require_unique(names: Sequence[Any]) -> None:
    """Refuse names of columns of which one stands for several.

    Raises
    ------
    DataError
        Naming them.
    """
    duplicated = [name for name, count in Counter(names).items() if count > 1]
    if duplicated:
        listed_names = ", ".join(map(repr, duplicated))
        raise DataError(f"the data have several columns named {listed_names}: rename or drop all but one")


def near_names(name: str, known: Sequence[str]) -> list[str]:
    """The name that was meant, perhaps: the same but for upper and lower case, or the closest one."""
    same = [one for one in known if one.casefold() == name.casefold()]
    return same[:1] or difflib.get_close_matches(name, known, n=1)


def require_known(needed: Sequence[str], available: Sequence[Any]) -> None:
    """Refuse names that are not columns, and suggest the closest one."""
    if needed and not len(available):
        raise DataError(f"the data have no columns, and {needed[0]!r} is needed")
    known = set(available)
    for name in needed:
        if name not in known:
            close = near_names(name, [str(column) for column in available])
            hint = f"did you mean {close[0]!r}?" if close else f"the columns are {listed(available)}"
            raise DataError(f"the data have no column {name!r}: {hint}")


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Names separated by commas, the first dozen."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown}, ... ({len(names)} in all)" if len(names) > most else shown


def kept(column: Floats, keep: Bools) -> Floats:
    """Kept rows of a column, read-only; a view if all are kept."""
    result = column[:] if keep.all() else column[keep]
    result.flags.writeable = False
    return result
