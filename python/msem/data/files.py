"""Files of rows: text with commas, semicolons or tabs, Parquet, and those of Stata, SPSS and SAS."""

from __future__ import annotations

import csv
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msem.data.columns import require_known, require_unique
from msem.errors import DataError, ExtraError
from msem.settings import several

ROWS = 100_000  # of a text file at a time
LOOKED_AT = 200  # lines of a text file from which its form is told
PARQUET = (".parquet", ".pq")
STATISTICAL = {
    ".dta": "read_dta",
    ".sav": "read_sav",
    ".zsav": "read_sav",
    ".por": "read_por",
    ".sas7bdat": "read_sas7bdat",
    ".xpt": "read_xport",
}
UNREADABLE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
SEPARATORS = (",", ";", "\t", "|")
MISSING = (".",)  # a missing value in files of SAS, Stata and Mplus
NOWHERE = "\x1f"  # a character that no file has
CODES = [
    sign * value
    for value in (9, 99, 999, 9999, 99999, 8, 88, 888, 8888, 7, 77, 777, 7777)
    for sign in (-1, 1)
]


def read_data(path: Any, *, labels: str | Sequence[str] = (), missing: Any = ()) -> pd.DataFrame:
    """Read a file of rows, by its suffix.

    Parameters
    ----------
    path : path
        A Parquet file (.parquet, .pq), a file of Stata (.dta), SPSS (.sav, .zsav, .por) or SAS (.sas7bdat,
        .xpt), or a text file with a line of names (any other suffix, also compressed). Whether values are
        separated by commas, semicolons, tabs, bars or blanks, and whether decimals have a comma, is told from
        its first lines. A lone ``.`` is a missing value, and so are the codes that an SPSS file declares as
        missing.
    labels : str or sequence of str
        Variables whose value labels take the place of their codes, as categories in the order of the codes: for a
        column of groups. Other variables keep their codes.
    missing : number, str or sequence of them
        Codes that stand for missing values, in every column, such as -999.

    Returns
    -------
    DataFrame
        Its `attrs` have ``value_labels`` (by variable, from code to label) and ``variable_labels``, where the
        file has any.

    Raises
    ------
    DataError
        If the file cannot be read, has a name over several columns, or lacks a variable of `labels`.
    ExtraError
        If the package that reads such files is not installed.
    FileNotFoundError
    """
    path = Path(path)
    codes = [missing] if isinstance(missing, str | int | float) else list(missing)
    suffix = path.suffix.lower()
    with reading(path):
        if suffix in PARQUET:
            frame = _parquet(path)
        elif suffix in STATISTICAL:
            frame = _statistical(path, STATISTICAL[suffix])
        else:
            source, options = _text(path, codes)
            frame = pd.read_csv(source, **options)
    return _labelled(_without(frame, codes), several(labels))


def read_chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of a text file, some at a time; `DataError` if it cannot be read."""
    with reading(path):
        source, options = _text(path)
        yield from pd.read_csv(source, **options, chunksize=ROWS)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file that is damaged or of another kind.

    Raises
    ------
    DataError
    """
    try:
        yield
    except (FileNotFoundError, ExtraError):
        raise
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _text(path: Path, missing: Sequence[Any] = ()) -> tuple[Path, dict[str, Any]]:
    """A text file, and how pandas is to read it."""
    options: dict[str, Any] = {"na_values": [*MISSING, *map(str, missing)]}
    if not path.is_file():  # a pipe can be read only once
        return path, options
    lines = pd.read_csv(
        path,
        sep=NOWHERE,
        header=None,
        nrows=LOOKED_AT,
        dtype=str,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
    )[0].tolist()
    options["sep"] = _separator(lines)
    if options["sep"] != "," and _has_decimal_commas(lines[1:]):
        options["decimal"] = ","
    header = pd.read_csv(path, header=None, nrows=1, dtype=str, sep=options["sep"]).iloc[0]
    _require_named(lines, len(header), options["sep"])
    require_unique(header.dropna().tolist())
    return path, options


def _require_named(lines: Sequence[str], names: int, separator: str) -> None:
    """Refuse rows with more fields than the header has names, of which pandas takes the first for labels.

    Files of R have a name for every row and none for their column: then all rows are longer by one.
    """
    rows = [line for line in lines[1:] if line.strip()]
    if len(separator) > 1 or any('"' in line for line in lines):
        return
    counts = [line.count(separator) + 1 for line in rows]
    longer = next((k for k, count in enumerate(counts) if count > names), None)
    if longer is None or (names > 1 and set(counts) == {names + 1}):
        return
    hint = (
        "; a comma as decimal mark takes another separator, such as a semicolon" if separator == "," else ""
    )
    raise DataError(
        f"row {longer + 1} below the header has {counts[longer]} fields, and the header names {names}{hint}"
    )


def _separator(lines: Sequence[str]) -> str:
    """What separates the names of the first line, outside quotes: most often; blanks if nothing else does."""
    header = re.sub(r'"[^"]*"', "", lines[0])
    most = max(SEPARATORS, key=header.count)
    if most in header:
        return most
    widths = {len(line.split()) for line in lines[1:] if line.strip()}
    return r"\s+" if len(header.split()) > 1 and widths == {len(header.split())} else ","


def _has_decimal_commas(lines: Sequence[str]) -> bool:
    text = "\n".join(lines)
    return bool(re.search(r"\d,\d", text)) and not re.search(r"\d\.\d", text)


def _parquet(path: Path) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pd.read_parquet(path)
    except ImportError:
        raise ExtraError(f"reading {path} needs pyarrow: pip install 'msem[parquet]'") from None
    return frame


def _statistical(path: Path, reader: str) -> pd.DataFrame:
    """Codes as numbers, with their labels beside them."""
    if not path.exists():
        raise FileNotFoundError(2, "there is no such file", str(path))
    try:
        import pyreadstat
    except ImportError:
        raise ExtraError(f"reading {path} needs pyreadstat: pip install 'msem[files]'") from None
    try:
        frame, about = getattr(pyreadstat, reader)(str(path))
    except pyreadstat.ReadstatError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    rows: pd.DataFrame = frame
    require_unique(list(rows.columns))
    attributes = {"value_labels": dict(about.variable_value_labels)}
    attributes["variable_labels"] = {k: v for k, v in about.column_names_to_labels.items() if v}
    rows.attrs = {name: found for name, found in attributes.items() if found}
    return rows


def _without(frame: pd.DataFrame, codes: Sequence[Any]) -> pd.DataFrame:
    """A frame with missing values in place of codes, which may be numbers or numbers as text."""
    if not codes:
        return frame
    numbers = [float(code) for code in codes if _is_number(code)]
    texts = [str(code) for code in codes]
    out = frame.copy()
    for name in frame.columns:
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        out[name] = column.mask(column.isin(numbers if numeric else texts))
    return out


def _is_number(code: Any) -> bool:
    try:
        float(code)
    except ValueError:
        return False
    return True


def _labelled(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    require_known(names, list(frame))
    known: Mapping[str, Mapping[Any, str]] = frame.attrs.get("value_labels", {})
    for name in names:
        if name in known:
            frame[name] = _categories(frame[name], known[name])
    return frame


def _categories(column: pd.Series, labels: Mapping[Any, str]) -> pd.Series:
    """Labels in place of codes; codes without one stand for themselves, and codes that share one are told apart."""
    codes = sorted({*column.dropna().unique(), *labels}, key=lambda code: (isinstance(code, str), code))
    texts = [str(labels.get(code, f"{code:g}" if isinstance(code, float) else code)) for code in codes]
    unique = [
        text if texts.count(text) == 1 else f"{text} ({code:g})"
        for text, code in zip(texts, codes, strict=True)
    ]
    return pd.Series(
        pd.Categorical(column.map(dict(zip(codes, unique, strict=True))), categories=unique),
        index=column.index,
        name=column.name,
    )


def missing_codes(frame: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[str, float, int]]:
    """Values that look like codes for missing values: 99, -999 and the like, farther from all others than these spread.

    Parameters
    ----------
    frame : DataFrame
    names : sequence of str
        Variables to look at; those that are not numeric are passed over.

    Yields
    ------
    name, value, count
    """
    for name in names:
        column = frame[name]
        if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            continue
        values = column.dropna().to_numpy(dtype=np.float64)
        coded = np.isin(values, CODES)
        rest = values[~coded]
        if not coded.any() or not len(rest):
            continue
        spread = max(float(np.ptp(rest)), 1.0)
        for code in np.unique(values[coded]):
            gap = max(rest.min() - code, code - rest.max())
            if gap > spread:
                yield name, float(code), int((values == code).sum())
