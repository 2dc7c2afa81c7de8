"""Checks of covariance matrices that a user types in."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError

SYMMETRY = 1e-6  # largest difference between mirrored elements, in units of the standard deviations


def smallest_eigenvalue(matrix: NDArray[np.float64]) -> float:
    """Smallest eigenvalue in the metric of correlations; a variance that is not positive keeps its own."""
    variance = np.diag(matrix)
    sd = np.sqrt(np.where(variance > 0, variance, 1.0))
    return float(np.linalg.eigvalsh(matrix / np.outer(sd, sd))[0])


def require_covariance(cov: pd.DataFrame, what: str, *, positive_definite: bool) -> pd.DataFrame:
    """Check a covariance matrix and return it as float64, exactly symmetric.

    Parameters
    ----------
    cov : DataFrame
        With variable names on both axes, in any order on either. One of each pair of mirrored elements may be
        missing (nan), as when only a triangle is typed in.
    what : str
        Name of the argument, for messages.
    positive_definite : bool
        Whether it must be positive definite.

    Returns
    -------
    DataFrame

    Raises
    ------
    DataError
        If it is not a covariance matrix.
    """
    if not isinstance(cov, pd.DataFrame):
        raise DataError(
            f"{what} must be a pandas DataFrame with the variable names as index and columns, not {type(cov).__name__}"
        )
    named = _named(cov, what)
    values = _mirrored(named, what)
    variances = np.diag(values)
    bad = [name for name, v in zip(named.columns, variances, strict=True) if positive_definite and v <= 0]
    if bad:
        raise DataError(f"{what} has a variance that is not positive: {', '.join(bad)}")
    scale = np.sqrt(np.where(variances > 0, variances, 1.0))
    gap = np.abs(values - values.T) / np.outer(scale, scale)
    if gap.max(initial=0.0) > SYMMETRY:
        i, j = divmod(int(gap.argmax()), len(gap))
        a, b = named.columns[i], named.columns[j]
        raise DataError(
            f"{what} is not symmetric: ({a}, {b}) is {values[i, j]:g} but ({b}, {a}) is {values[j, i]:g}; "
            "to give one triangle only, leave the other missing (nan)"
        )
    values = 0.5 * values + 0.5 * values.T
    if positive_definite:
        smallest = smallest_eigenvalue(values)
        if smallest <= 1e-12:
            raise DataError(
                f"{what} is not positive definite (smallest eigenvalue of its correlations {smallest:.3g}): "
                "check for typing errors, or variables that are sums of others"
            )
    return pd.DataFrame(values, index=named.columns, columns=named.columns)


def _named(cov: pd.DataFrame, what: str) -> pd.DataFrame:
    if cov.shape[0] != cov.shape[1] or not len(cov):
        raise DataError(f"{what} must be square, not {cov.shape[0]} by {cov.shape[1]}")
    columns, index = [str(c) for c in cov.columns], [str(i) for i in cov.index]
    if len(set(columns)) < len(columns):
        twice = next(c for c in columns if columns.count(c) > 1)
        raise DataError(f"{what} names {twice!r} twice")
    if sorted(columns) != sorted(index):
        if index == [str(i) for i in range(len(index))]:
            raise DataError(
                f"{what} has no variable names on its rows: give index=[{', '.join(map(repr, columns))}]"
            )
        odd = next((name for name in index if name not in columns), None)
        if odd is None:
            twice = next(name for name in index if index.count(name) > 1)
            raise DataError(f"{what} names {twice!r} twice on its rows")
        raise DataError(f"{what} has different names on rows and columns: no column is named {odd!r}")
    named = cov.set_axis(columns, axis=1).set_axis(index, axis=0)
    return named.loc[columns]


def _mirrored(cov: pd.DataFrame, what: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    try:
        values = cov.to_numpy(dtype=np.float64, na_value=np.nan).copy()
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} has an element that is not a number: {error}") from error
    values = np.where(np.isnan(values), values.T, values)
    if not np.isfinite(values).all():
        i, j = np.argwhere(~np.isfinite(values))[0]
        raise DataError(f"{what} has no finite value at ({cov.columns[i]}, {cov.columns[j]})")
    return values
