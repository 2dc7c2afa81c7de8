"""Covariance matrices as articles print them: triangles, correlations with standard deviations."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.entry import entry
from msem.errors import DataError, DataWarning, warn

Floats = NDArray[np.float64]
NUMBER = re.compile(r"[-+\u2212\u2013]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?\Z")
ROUNDING = 1e-6


@entry
def covariance(
    matrix: Any, *, names: Sequence[str] | None = None, sd: Sequence[float] | None = None
) -> pd.DataFrame:
    r"""A covariance matrix from what an article prints, for `LevelMoments` and ``sample_cov=``.

    Parameters
    ----------
    matrix : str or array
        The rows of a lower triangle, of an upper one, or of the whole matrix, one to a line, numbers separated by
        blanks, commas or semicolons; or the numbers of a lower triangle row by row, on any number of lines. A triangle
        of correlations may do without its diagonal, if `names` or `sd` say how many variables there are. Rows of a text
        may begin with a name. Or an array or a data frame.
    names : sequence of str, optional
        Default: those of a data frame, or at the beginning of rows.
    sd : sequence of float, optional
        Standard deviations, by which correlations are multiplied.

    Returns
    -------
    DataFrame
        Symmetric, named by rows and columns.

    Raises
    ------
    DataError
        If the numbers are no symmetric matrix, the names do not fit, a variance is negative, a correlation exceeds 1,
        or `sd` is given with covariances.

    Warns
    -----
    DataWarning
        If the matrix has ones on its diagonal and no `sd` is given: correlations are not covariances, and standard
        errors and chi-squares of most models would be wrong (Cudeck, 1989). Or if it is not positive semidefinite.

    References
    ----------
    Cudeck (1989). Analysis of correlation matrices using covariance structure models. Psychological Bulletin, 105,
    317-327.

    Examples
    --------
    >>> import msem
    >>> msem.covariance(".5\n .2 .3", names=["y1", "y2", "y3"], sd=[2, 1, 1])
         y1   y2   y3
    y1  4.0  1.0  0.4
    y2  1.0  1.0  0.3
    y3  0.4  0.3  1.0
    """
    rows, found = _read(matrix)
    sizes = [len(given) for given in (names, sd) if given is not None]
    square = _square(rows, sizes[0] if sizes else None)
    called = list(names) if names is not None else found or [f"y{k}" for k in range(1, len(square) + 1)]
    if len(called) != len(square) or len(set(called)) < len(called):
        raise DataError(
            f"the matrix has {len(square)} rows: give as many different names, not {len(called)}: {', '.join(called)}"
        )
    correlations = bool(np.allclose(np.diag(square), 1.0, atol=ROUNDING))
    if correlations and (np.abs(square) > 1 + ROUNDING).any():
        i, j = np.argwhere(np.abs(square) > 1 + ROUNDING)[0]
        raise DataError(
            f"the correlation of {called[i]} and {called[j]} is {square[i, j]:g}, which exceeds 1"
        )
    if sd is not None:
        square = _scaled(square, np.asarray(sd, dtype=np.float64), correlations)
    elif correlations:
        warn(
            "the matrix has ones on its diagonal: correlations were taken for covariances. Give the standard "
            "deviations, sd=[...], or standard errors and tests of most models are wrong",
            DataWarning,
        )
    _check(square, called)
    return pd.DataFrame(square, index=called, columns=called)


def _read(matrix: Any) -> tuple[list[list[float]], list[str]]:
    """Rows of numbers, and the names that a frame or the beginnings of rows have."""
    if isinstance(matrix, pd.DataFrame):
        return matrix.to_numpy(dtype=np.float64).tolist(), [str(name) for name in matrix.columns]
    if not isinstance(matrix, str):
        try:
            array = np.asarray(matrix, dtype=np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"a covariance matrix is a text, a frame or an array of numbers, not {type(matrix).__name__}"
            ) from None
        if array.ndim not in (1, 2):
            raise DataError(f"a covariance matrix has two dimensions, not {array.ndim}")
        return array.tolist() if array.ndim == 2 else [array.tolist()], []
    rows, names = [], []
    for number, line in enumerate(matrix.splitlines(), 1):
        words = re.split(r"[\s,;]+", line.strip().strip(",;"))
        if words == [""]:
            continue
        first = next((k for k, word in enumerate(words) if NUMBER.match(word)), len(words))
        if first:
            names.append(" ".join(words[:first]))
        odd = [word for word in words[first:] if not NUMBER.match(word)]
        if odd:
            raise DataError(f"line {number} of the matrix: {odd[0]!r} is not a number")
        rows.append([float(re.sub("[\\u2212\\u2013]", "-", word)) for word in words[first:]])
    if not any(rows):
        raise DataError("the matrix has no numbers")
    return rows, names


def _square(rows: list[list[float]], wanted: int | None) -> Floats:
    """The whole matrix from its rows."""
    lengths = [len(row) for row in rows]
    p = len(rows)
    if lengths == [p] * p:
        square = np.array(rows)
        if np.isnan(square).any():
            square = np.where(np.isnan(square), square.T, square)
        upper = not np.tril(square, -1).any()
        lower = not np.triu(square, 1).any()
        if p > 1 and (upper != lower):
            square = square + np.triu(square, 1).T + np.tril(square, -1).T
        if not np.allclose(square, square.T, rtol=1e-6, atol=ROUNDING):
            i, j = np.argwhere(~np.isclose(square, square.T, rtol=1e-6, atol=ROUNDING))[0]
            raise DataError(
                f"the matrix is not symmetric: row {i + 1}, column {j + 1} is {square[i, j]:g}, and row {j + 1}, "
                f"column {i + 1} is {square[j, i]:g}"
            )
        return np.asarray((square + square.T) / 2)
    if 0 in lengths and lengths[1:] == list(range(1, p)):  # a first row with a name only
        rows, lengths, p = rows[1:], lengths[1:], p - 1
    if lengths == list(range(p, 0, -1)) and p > 1:
        rows = [[rows[j][i - j] for j in range(i + 1)] for i in range(p)]
    flat = [value for row in rows for value in row]
    for size, offset in ((_root(len(flat)), 0), (_root(len(flat)) + 1, -1)):
        if size * (size + 1 + 2 * offset) // 2 == len(flat) and wanted in (None, size):
            square = np.eye(size)
            square[np.tril_indices(size, offset)] = flat
            return np.asarray(np.tril(square) + np.tril(square, -1).T)
    of = "" if wanted is None else f" of {wanted} variables"
    raise DataError(
        f"{len(flat)} numbers in rows of {', '.join(map(str, lengths))} are no triangle of a matrix{of}: a lower "
        "triangle has rows of 1, 2, 3, ... numbers"
    )


def _root(count: int) -> int:
    """Size of a triangle of so many numbers with its diagonal."""
    return int((np.sqrt(8 * count + 1) - 1) / 2 + 1e-9)


def _scaled(square: Floats, sd: Floats, correlations: bool) -> Floats:
    if not correlations:
        raise DataError(
            "sd= goes with correlations, and the diagonal of the matrix is not one: leave one of them out"
        )
    if sd.shape != (len(square),) or not (np.isfinite(sd).all() and (sd > 0).all()):
        raise DataError(f"sd= must be {len(square)} positive numbers, one for each row of the matrix")
    return np.asarray(square * np.outer(sd, sd))


def _check(square: Floats, names: Sequence[str]) -> None:
    if not np.isfinite(square).all():
        raise DataError("the matrix has a number that is missing or not finite")
    negative = [name for name, value in zip(names, np.diag(square), strict=True) if value < 0]
    if negative:
        raise DataError(f"the variance of {negative[0]} is negative")
    scale = np.sqrt(np.where(np.diag(square) > 0, np.diag(square), 1.0))
    least = np.linalg.eigvalsh(square / np.outer(scale, scale))[0]
    if least < -1e-8:
        warn(
            f"the matrix is not positive semidefinite (smallest eigenvalue of the correlations {least:.3g}): "
            "compare it with the article",
            DataWarning,
        )
