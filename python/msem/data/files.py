"""Files of rows: text with commas, semicolons or tabs, Parquet, and those of Stata, SPSS and SAS."""

from __future__ import annotations

import codecs
import csv
import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from msem.data.columns import require_known, require_unique
from msem.data.storage import existing
from msem.entry import entry
from msem.errors import ArgumentError, DataError, DataWarning, ExtraError, MsemError, warn
from msem.settings import several

Source = Path | BytesIO

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
OTHERS = {  # files of rows that are read by other means
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods"), "pandas.read_excel"),
    ".json": "pandas.read_json",
    ".feather": "pandas.read_feather",
    ".h5": "pandas.read_hdf",
    **dict.fromkeys((".rds", ".rda", ".rdata"), "the package pyreadr, or write.csv() of R"),
    ".mat": "scipy.io.loadmat",
}
UNREADABLE = (OSError, ValueError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
SEPARATORS = (",", ";", "\t", "|")
EXACT = 2.0**53  # above it not every whole number is a double
MISSING = (".",)  # a missing value in files of SAS, Stata and Mplus
WORDS = (  # what pandas takes for one
    *(
        "NA",
        "N/A",
        "n/a",
        "<NA>",
        "#N/A",
        "#NA",
        "#N/A N/A",
        "None",
        "null",
        "NULL",
        "nan",
        "NaN",
        "-nan",
        "-NaN",
    ),
    *("1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
)
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
DECLARED = re.compile(r"sep=([,;\t|])", re.IGNORECASE)
NOWHERE = "\x1f"  # a character that no file has


@entry
def read_data(
    path: Any,
    *,
    labels: str | Sequence[str] = (),
    missing: Any = (),
    verbatim: str | Sequence[str] = (),
    names: Sequence[str] | None = None,
    encoding: str | None = None,
) -> pd.DataFrame:
    """Read a file of rows, by its suffix.

    Parameters
    ----------
    path : path
        A Parquet file (.parquet, .pq), a file of Stata (.dta), SPSS (.sav, .zsav, .por) or SAS (.sas7bdat,
        .xpt), or a text file with a line of names (any other suffix, also compressed). Whether values are
        separated by commas, semicolons, tabs, bars or blanks, and whether decimals have a comma, is told from
        the file. A lone ``.`` is a missing value, and so are the codes that an SPSS file declares as missing.
    labels : str or sequence of str
        Variables whose value labels take the place of their codes, as categories in the order of the codes: for a
        column of groups. Other variables keep their codes.
    missing : number, str or sequence of them
        Codes that stand for missing values, in every column, such as -999.
    verbatim : str or sequence of str
        Columns of a text file in which words such as ``NA`` and ``None`` are what they say, a country or a treatment;
        only empty fields, a lone ``.`` and what `missing` names are missing there. In all other columns these words
        are missing values.
    names : sequence of str, optional
        Names of the columns of a text file without a line of names.
    encoding : str, optional
        Of a text file; default: UTF-8, or UTF-16 where the file says so.

    Returns
    -------
    DataFrame
        Its `attrs` have ``value_labels`` (by variable, from code to label) and ``variable_labels``, where the
        file has any.

    Raises
    ------
    DataError
        If the file cannot be read, is one of Excel, JSON or R, has a name over several columns or a first line of
        numbers in the place of names, or lacks a variable of `labels` or `verbatim`.
    MissingFileError
        If there is no such file.
    ExtraError
        If the package that reads such files is not installed.

    Warns
    -----
    DataWarning
        If ``NA`` or a word like it stands in a column of text, where it may be a label; if a column has both decimal
        commas and decimal points, so that it stays text.

    Examples
    --------
    >>> msem.read_data("countries.csv", verbatim="country")  # doctest: +SKIP
    """
    path = Path(existing(path))
    if isinstance(missing, Mapping):
        raise ArgumentError("missing= names codes that are missing in every column: give them as a list")
    codes = [missing] if isinstance(missing, str | int | float) else list(missing)
    suffix = path.suffix.lower()
    _require_kind(path)
    of_text = suffix not in PARQUET and suffix not in STATISTICAL
    words = several(verbatim)
    for given, option in ((words, "verbatim"), (names, "names"), (encoding, "encoding")):
        if given and not of_text:
            raise DataError(f"{option}= is for text files, and {path} is none: leave it out")
    with reading(path):
        if suffix in PARQUET:
            frame = _parquet(path)
        elif suffix in STATISTICAL:
            frame = _statistical(path, STATISTICAL[suffix])
        else:
            # a pipe can be read only once
            source = path if path.is_file() else BytesIO(path.read_bytes())
            form = _form(source, codes, words, names, encoding)
            frame = _numbers(pd.read_csv(_again(source), **form.options), form)
            frame = _with_whole_numbers(frame, source, form)
            _warn_of_words(source, form, _with_holes(frame))
    return _labelled(_without(frame, codes), several(labels))


def read_chunks(path: Path) -> Iterator[pd.DataFrame]:
    """The rows of a text file, some at a time; `DataError` if it cannot be read."""
    _require_kind(path)
    with reading(existing(path)):
        if not path.is_file():
            yield from pd.read_csv(path, na_values=list(MISSING), chunksize=ROWS)
            return
        form = _form(path)
        holes: set[str] = set()
        with pd.read_csv(path, **form.options, chunksize=ROWS) as chunks:
            for chunk in chunks:
                large = _beyond_doubles(chunk)
                if large:
                    raise DataError(
                        f"column {large[0]!r} has missing values and whole numbers above 2^53, not told apart "
                        "as decimals: read the file by msem.read_data, or write them as text"
                    )
                frame = _numbers(chunk, form)
                holes.update(_with_holes(frame))
                yield frame
        _warn_of_words(path, form, sorted(holes))


def _require_kind(path: Path) -> None:
    """Refuse a file that is none of text, by its suffix."""
    other = OTHERS.get(path.suffix.lower())
    if other:
        raise DataError(f"{path} is no text file: read it by {other}, and give the data frame")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Name a file that is damaged or of another kind.

    Raises
    ------
    DataError
    """
    try:
        yield
    except MsemError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in {error.encoding.upper()} (its byte 0x{error.object[error.start]:02x} is none): say "
            'what it is in, as encoding="cp1252" for Windows in western languages, "latin-1" or "cp1250"'
        ) from error
    except LookupError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except UNREADABLE as error:
        raise DataError(f"{path} cannot be read: {str(error).strip()}") from error


@dataclass(frozen=True)
class TextForm:
    """How pandas is to read a text file.

    Attributes
    ----------
    options : dict
        Of `pandas.read_csv`.
    separator : str
    words : tuple of str
        Columns in which ``NA`` is no missing value.
    """

    options: dict[str, Any]
    separator: str
    words: tuple[str, ...]


def _again(source: Source) -> Source:
    """A source at its beginning."""
    if isinstance(source, BytesIO):
        source.seek(0)
    return source


def _form(
    source: Source,
    missing: Sequence[Any] = (),
    words: Sequence[str] = (),
    names: Sequence[str] | None = None,
    encoding: str | None = None,
) -> TextForm:
    """The form of a text file, told from its first lines."""
    encoding = encoding or _encoding(source)
    lines = _first_lines(source, encoding)
    declared = DECLARED.fullmatch(lines[0])  # as Excel writes it above the names
    if declared:
        del lines[0]
    separator = declared[1] if declared else _separator(lines)
    options: dict[str, Any] = {
        "sep": separator,
        "skiprows": int(bool(declared)),
        "encoding": encoding,
        "low_memory": False,
        "skipinitialspace": True,
    }
    if separator == r"\s+":
        del options["low_memory"]
    rows = lines if names is not None else lines[1:]
    if separator != "," and _has_decimal_commas(rows):
        options["decimal"] = ","
    first = pd.read_csv(
        _again(source),
        header=None,
        nrows=1,
        skiprows=int(bool(declared)),
        dtype=str,
        sep=separator,
        encoding=encoding,
        keep_default_na=False,
        skipinitialspace=True,
    ).iloc[0]
    header = [name for name in first if name]
    if names is not None:
        header = list(names)
        if len(header) != len(first):
            raise DataError(f"names= has {len(header)} names, and the file has {len(first)} columns")
        options |= {"header": None, "names": header}
    elif header and all(_is_value(name, missing) for name in header):
        shown = ", ".join(header[:3]) + (", ..." if len(header) > 3 else "")
        raise DataError(
            f"the first line of the file is numbers ({shown}) and no names of columns: write one above it, or "
            "name them, names=[...]"
        )
    else:
        _require_named(lines, len(first), separator)
        if any(name != name.strip() for name in header):
            header = [name.strip() or f"Unnamed: {k}" for k, name in enumerate(first)]  # as pandas calls them
            options |= {"header": 0, "names": header}
    require_unique(header)
    require_known(words, header)
    known = [*MISSING, *map(str, missing)]
    options["na_values"] = known
    if words:
        options["keep_default_na"] = False
        options["na_values"] = {name: ["", *known, *(() if name in words else WORDS)] for name in header}
    return TextForm(options, separator, tuple(words))


def _first_lines(source: Source, encoding: str) -> list[str]:
    """Lines of a text file as they are, some of them."""
    lines: list[str] = pd.read_csv(
        _again(source),
        sep=NOWHERE,
        header=None,
        nrows=LOOKED_AT,
        dtype=str,
        quoting=csv.QUOTE_NONE,
        keep_default_na=False,
        encoding=encoding,
    )[0].tolist()
    return lines


def _encoding(source: Source) -> str:
    """UTF-16 where a file begins with its mark, or else UTF-8."""
    if isinstance(source, BytesIO):
        start = source.getvalue()[:2]
    else:
        with source.open("rb") as file:
            start = file.read(2)
    return "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8"


def _is_value(text: str, missing: Sequence[Any]) -> bool:
    """Whether a field is a number or stands for a missing one."""
    text = text.strip()
    return bool(NUMBER.fullmatch(text.replace(",", "."))) or text in (*MISSING, *map(str, missing))


def _with_holes(frame: pd.DataFrame) -> list[str]:
    """Columns of text with missing values."""
    return [str(name) for name in frame if _is_text(frame[name].dtype) and frame[name].isna().any()]


def _is_text(kind: Any) -> bool:
    return bool(pd.api.types.is_object_dtype(kind) or pd.api.types.is_string_dtype(kind))


def _warn_of_words(source: Source, form: TextForm, columns: Sequence[str]) -> None:
    """Warn of words that were taken for missing values in columns of text, where they may be labels."""
    asked = [name for name in columns if name not in form.words]
    if not asked:
        return
    options = {k: v for k, v in form.options.items() if k != "low_memory"}
    options |= {"usecols": asked, "dtype": str, "keep_default_na": False, "na_values": [], "chunksize": ROWS}
    found: dict[tuple[str, str], int] = {}
    with pd.read_csv(_again(source), **options) as chunks:
        for chunk in chunks:
            for name in asked:
                for word, count in chunk[name][chunk[name].isin(WORDS)].value_counts().items():
                    found[name, word] = found.get((name, word), 0) + int(count)
    if found:
        shown = "; ".join(f"{word!r} in {count} rows of {name!r}" for (name, word), count in found.items())
        columns = list(dict.fromkeys(name for name, _ in found))
        warn(
            f"words in columns of text were taken for missing values: {shown}. If they are labels, say "
            f"verbatim={columns if len(columns) > 1 else columns[0]!r}",
            DataWarning,
        )


def _beyond_doubles(frame: pd.DataFrame) -> list[Any]:
    """Columns of decimals that are so large that whole numbers are not told apart."""
    decimals = [name for name in frame if frame[name].dtype == np.float64]
    return [name for name in decimals if (np.abs(frame[name].to_numpy()) >= EXACT).any()]


def _with_whole_numbers(frame: pd.DataFrame, source: Any, form: TextForm) -> pd.DataFrame:
    """A frame whose long ids are whole numbers, though an empty field made decimals of the column."""
    for name in _beyond_doubles(frame):
        options = {key: value for key, value in form.options.items() if key != "dtype"}
        texts = pd.read_csv(_again(source), **options, usecols=[name], dtype=str)[name].str.strip()
        present = texts.notna()
        if texts[present].str.fullmatch(r"[+-]?\d{1,18}").all():
            whole = pd.array([pd.NA] * len(frame), dtype="Int64")
            whole[present.to_numpy()] = [int(text) for text in texts[present]]
            frame[name] = whole
        elif texts[present].str.fullmatch(r"[+-]?\d+").all():
            frame[name] = texts
    return frame


def _numbers(frame: pd.DataFrame, form: TextForm) -> pd.DataFrame:
    """A frame with numbers where a column of text has nothing else, decimals with a comma or with a point."""
    for name in [name for name in frame if _is_text(frame[name].dtype)]:
        present = frame[name].dropna()
        if not len(present) or name in form.words or not _is_value(str(present.iloc[0]), ()):
            continue
        texts = present.astype(str).str.strip()
        commas = texts.str.contains(",", regex=False)
        if not texts.str.replace(",", ".", regex=False).str.fullmatch(NUMBER.pattern).all():
            continue
        points = texts.str.contains(".", regex=False)
        if commas.any() and points.any():
            rows = np.flatnonzero(frame[name].notna())
            one, other = (
                f"{texts[at].iloc[0]} in row {rows[at.to_numpy().argmax()] + 1}" for at in (commas, points)
            )
            warn(
                f"column {name!r} has decimals with a comma ({one} below the names) and with a point ({other}), so "
                "that it is left as text: write them alike",
                DataWarning,
            )
        elif form.separator != "," or not commas.any():  # in quotes between commas they may be for thousands
            values = np.full(len(frame), np.nan)
            values[frame[name].notna()] = pd.to_numeric(texts.str.replace(",", ".", regex=False))
            frame[name] = values
    return frame


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
    hint = ""
    if lines[0].startswith("#"):
        hint = ": its first line begins with '#'; take such lines out of the file"
    elif separator == ",":
        hint = "; a comma as decimal mark takes another separator, such as a semicolon"
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
