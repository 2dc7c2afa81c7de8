"""Data frames of estimates and printed matrices, from plain arrays and names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.distributions import (
    interval_on,
    normal_halfwidth,
    normal_pvalue,
    student_halfwidth,
    student_pvalue,
    wald_statistic,
)

if TYPE_CHECKING:
    from msem.model.partable import Parameter

Array = NDArray[np.float64]
KEY = ("level", "lhs", "op", "rhs")


def row_columns(rows: Sequence[Parameter], names: Sequence[str]) -> dict[str, list[Any]]:
    """Some attributes of rows of the parameter table, as columns."""
    return {name: [getattr(row, name) for row in rows] for name in names}


def estimates_columns(
    rows: Sequence[Parameter],
    est: Array,
    se: Array,
    *,
    ci_level: float = 0.95,
    df: Array | None = None,
    scales: Sequence[str] | None = None,
    extra: Mapping[str, Array] | None = None,
) -> dict[str, Any]:
    """Tabulate estimates with Wald tests and confidence intervals.

    Parameters
    ----------
    rows : sequence of Parameter
        Rows of the parameter table.
    est, se : array of shape (rows,)
        Value and standard error of every row. The standard error is 0 for rows that are not estimated and
        nan for estimates whose standard error could not be computed.
    ci_level : float
        Level of the confidence intervals.
    df : array of shape (rows,), optional
        Degrees of freedom of t references; default: standard normal ones.
    scales : sequence of str, optional
        On which scale each interval is symmetric, see `interval_on`; default: on that of the estimate.
    extra : mapping of str to array of shape (rows,), optional
        Further columns, such as `se_naive`, `std_lv` or `std_all`.

    Returns
    -------
    dict of str to list or array
        lhs, op, rhs, level, group, label, est, se, z, pvalue, ci_lower, ci_upper and the extra ones. z and pvalue
        are nan where the standard error is 0 or nan; an interval of a row that is not estimated is the value itself.
        With `df` there are t and df in the place of z.
    """
    est, se = np.asarray(est, dtype=float), np.asarray(se, dtype=float)
    z = wald_statistic(est, se)
    names = row_columns(rows, ("lhs", "op", "rhs", "level", "group", "label"))
    tests: dict[str, Any] = {"z": z, "pvalue": normal_pvalue(z)}
    half = normal_halfwidth(ci_level) * se
    if df is not None:
        given = np.where(se == 0, np.nan, df)
        whole = (given[se != 0] % 1 == 0).all()  # sample sizes that are not whole are those of moments
        numbers_df = pd.array(given).astype("Int64") if whole else given
        tests = {"t": z, "df": numbers_df, "pvalue": student_pvalue(z, df)}
        half = np.where(se == 0, 0.0, student_halfwidth(ci_level, df) * se)
    lower, upper = interval_on(
        "identity" if scales is None else np.where(se == 0, "identity", scales), est, half
    )
    numbers = {"est": est, "se": se, **tests, "ci_lower": lower, "ci_upper": upper}
    return names | numbers | dict(extra or {})


def estimates_frame(rows: Sequence[Parameter], est: Array, se: Array, **options: Any) -> pd.DataFrame:
    """The columns of `estimates_columns`, which has the options, as a data frame."""
    return pd.DataFrame(estimates_columns(rows, est, se, **options))


def slopes_named(rows: Sequence[Parameter], columns: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of estimates in which a path that is a random slope has no value, and the name of the slope as label.

    Parameters
    ----------
    rows : sequence of Parameter
        As many as the columns have, or fewer.
    columns : mapping of str to list or array
        As of `estimates_columns`.
    """
    slopes = {k: row.slope for k, row in enumerate(rows) if row.slope}
    if not slopes:
        return dict(columns)
    out = dict(columns)
    for name in ("est", "se", "ci_lower", "ci_upper"):
        out[name] = np.array(out[name], dtype=float)
        out[name][list(slopes)] = np.nan
    out["label"] = [slopes.get(k, label) for k, label in enumerate(out["label"])]
    return out


def hidden_rows(rows: Sequence[Parameter], est: Array, auxiliary: Collection[str] = ()) -> NDArray[np.bool_]:
    """Find the rows that a printed summary leaves out, as lavaan does.

    These are the moments of fixed covariates and of auxiliary variables, and intercepts that are 0 because nobody asked
    for them.
    """
    return np.array(
        [
            row.exo
            or row.lhs in auxiliary
            or (row.op == "~1" and row.free == 0 and not row.user and value == 0)
            for row, value in zip(rows, est, strict=True)
        ],
        dtype=bool,
    )


def comparison_frame(
    estimates: Mapping[str, pd.DataFrame],
    columns: Sequence[str] = ("est", "se"),
    ops: Collection[str] | None = None,
) -> pd.DataFrame:
    """Put the estimates of several fits side by side.

    Parameters
    ----------
    estimates : mapping of str to pandas.DataFrame
        Frames as made by `estimates_frame`, by the name of the fit.
    columns : sequence of str
        What to show of each fit.
    ops : collection of str, optional
        Keep only rows with these operators, such as ``{"=~", "~"}``.

    Returns
    -------
    pandas.DataFrame
        Indexed by level, lhs, op and rhs (and group, when there is more than one), in order of first
        appearance; the columns are pairs (fit, column). nan where a fit does not have the row.
    """
    several = any((frame["group"] != 1).any() for frame in estimates.values())
    key = [*KEY[:1], "group", *KEY[1:]] if several else list(KEY)
    chosen = {
        name: (frame if ops is None else frame[frame["op"].isin(list(ops))]).set_index(key)[list(columns)]
        for name, frame in estimates.items()
    }
    index = pd.MultiIndex.from_tuples(
        dict.fromkeys(row for frame in chosen.values() for row in frame.index), names=key
    )
    aligned = {name: frame.reindex(index) for name, frame in chosen.items()}
    return pd.concat(aligned, axis=1, names=["fit", "column"])


def format_matrix(matrix: pd.DataFrame, digits: int = 3) -> str:
    """Print the lower triangle of a symmetric matrix, columns of one width, room for a sign everywhere.

    Parameters
    ----------
    matrix : pandas.DataFrame
        Symmetric, with the names of the variables as index and columns.
    digits : int
        Decimals.
    """
    names = [str(name) for name in matrix.columns]
    cells = [
        [f"{value:.{digits}f}" for value in row[: k + 1]]
        for k, row in enumerate(matrix.to_numpy(dtype=float))
    ]
    widest = max((len(cell.lstrip("-")) + 1 for row in cells for cell in row), default=0)
    width = max([widest, *map(len, names)]) + 1
    first = max(map(len, names), default=0)
    lines = [" " * first + "".join(f"{name:>{width}}" for name in names)]
    for name, row in zip(names, cells, strict=True):
        lines.append(f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell in row))
    return "\n".join(lines)
