"""Checks of moments that a user types in: covariance matrices, means, sample sizes, names."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, smallest_eigenvalue
from msem.data.screening import require_scale
from msem.errors import DataError

LEVEL = re.compile(r"\.l\d+$")  # what names of moments above level 1 end in
ASYMMETRY = 1e-6  # largest difference between mirrored correlations
INVERTIBLE = (
    1e-11  # squared pivot in correlation metric: below it a covariance matrix of moments has no inverse
)
INDEFINITE = -1e-9  # eigenvalue in correlation metric that rounding does not make of 0


def matching_names(wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """Names as they are spelled among those available: a covariance may stand the other way round."""
    known = set(available)

    def found(name: str) -> str:
        if name in known or "~~" not in name:
            return name
        # A variable may end in ".l2" itself.
        end = LEVEL.search(name)
        stem, suffix = (name[: end.start()], end.group()) if end else (name, "")
        turned = (
            f"{b}~~{a}{after}" for text, after in ((stem, suffix), (name, "")) for a, b in _halves(text)
        )
        return next((other for other in turned if other in known), name)

    return [found(name) for name in wanted]


def _halves(text: str) -> list[tuple[str, str]]:
    """Every way to cut a text at ``~~``."""
    return [(text[:k], text[k + 2 :]) for k in range(1, len(text) - 2) if text.startswith("~~", k)]


def named_acov(given: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Asymptotic covariance matrix with its rows and columns in the order of the moments; it may be singular."""
    if not isinstance(given, pd.DataFrame):
        raise DataError(f"known_acov must be a pandas DataFrame, not {type(given).__name__}")
    rows = list(map(str, given.index))
    found = matching_names(names, rows)
    if sorted(rows) != sorted(found) or rows != list(map(str, given.columns)):
        absent = [name for name in names if name not in rows] or names
        raise DataError(
            f"known_acov must have rows and columns named {names[0]}, {names[1]}, ... as in `moment_names`; "
            f"check {', '.join(absent[:3])}"
        )
    matrix = given.to_numpy(dtype=np.float64)
    order = [rows.index(name) for name in found]
    matrix = matrix[np.ix_(order, order)]
    if not (np.isfinite(matrix).all() and (np.diag(matrix) > 0).all()):
        raise DataError("known_acov must be finite with positive variances")
    scale = np.sqrt(np.diag(matrix))
    with np.errstate(all="ignore"):
        correlation = matrix / np.outer(scale, scale)
    if not np.isfinite(correlation).all():
        raise DataError("known_acov has values that are too far apart to compute with: rescale the variables")
    if np.abs(correlation - correlation.T).max() > ASYMMETRY:
        raise DataError("known_acov is not symmetric")
    if np.linalg.eigvalsh(0.5 * (correlation + correlation.T))[0] < INDEFINITE:
        raise DataError("known_acov is not positive semidefinite")
    return pd.DataFrame(0.5 * matrix + 0.5 * matrix.T, index=names, columns=names)


def scaled_inverse(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of a positive definite matrix, computed in the metric of correlations."""
    scale = 1 / np.sqrt(np.diag(matrix))
    units = np.outer(scale, scale)
    inverse: NDArray[np.float64] = np.linalg.inv(matrix * units) * units
    return 0.5 * (inverse + inverse.T)


def regular_inverse(acov: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Inverse of a covariance matrix of moments; None if it is singular, as one of few clusters is."""
    inverse, pivot = _core.scaled_inverse(acov)
    return inverse if pivot > INVERTIBLE else None


def named_means(
    given: pd.Series | Mapping[str, float] | None, names: list[str], what: str, *, every: bool = False
) -> pd.Series:
    """Means of all variables in order; 0 where none are given. `every`: if one has a mean, all must."""
    if given is not None and not isinstance(given, (pd.Series, Mapping)):
        raise DataError(
            f"{what} must be a Series or mapping from variable to mean, not {type(given).__name__}"
        )
    try:
        series = pd.Series(dict(given) if given is not None else {}, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} has an element that is not a number: {error}") from error
    unknown = [name for name in series.index if name not in names]
    if unknown:
        raise DataError(
            f"{what} names {', '.join(map(str, unknown))}, which the covariance matrix does not have"
        )
    missing = [name for name in names if name not in series.index]
    if missing and every and len(series):
        raise DataError(f"{what} has no value for {', '.join(missing)}")
    odd = [str(name) for name, value in series.items() if not np.isfinite(value)]
    if odd:
        raise DataError(f"{what} must be finite; it is not for {', '.join(odd)}")
    return series.reindex(names).fillna(0.0)


def sample_sizes(
    sizes: int | Sequence[int] | Mapping[int, int] | pd.Series | None,
    nobs: float | None,
    nclusters: float | None,
) -> tuple[Mapping[int, int] | None, float, float]:
    """Number of clusters of each size (None when not known), N and J.

    N and J follow from the sizes if they are not given, and are checked against them if they are.
    """
    nobs, nclusters = (np.nan if n is None else float(n) for n in (nobs, nclusters))
    if isinstance(sizes, pd.Series):
        known = (None if np.isnan(n) else n for n in (nobs, nclusters))
        sizes = size_series(sizes, *known)
    if isinstance(sizes, (int, float, np.number)):  # of all clusters
        if np.isnan(nclusters):
            if np.isnan(nobs):
                raise DataError(f"cluster_sizes={sizes} is the size of all clusters: nclusters is needed too")
            nclusters = nobs / float(sizes)
        if float(nclusters) != round(nclusters):
            raise DataError(f"cluster_sizes={sizes} does not divide nobs={nobs:g} into whole clusters")
        sizes = {int(sizes) if sizes == round(sizes) else sizes: round(nclusters)}
    table = None if sizes is None else size_table(sizes)
    if table is not None:
        total, clusters = sum(n * j for n, j in table.items()), sum(table.values())
        nobs = total if np.isnan(nobs) else nobs
        nclusters = clusters if np.isnan(nclusters) else nclusters
        if clusters != nclusters or total != nobs:
            raise DataError(
                f"cluster_sizes describe {clusters} clusters with {total} units, "
                f"but nclusters is {nclusters:g} and nobs is {nobs:g}"
            )
    if not (np.isfinite(nobs) and np.isfinite(nclusters)):
        raise DataError(
            "nobs (units) and nclusters are needed, or cluster_sizes: they set the precision of the moments"
        )
    if nclusters < 2:
        raise DataError(f"nclusters is {nclusters:g}: at least two clusters are needed")
    if nobs < nclusters:
        raise DataError(f"nobs ({nobs:g} units) is smaller than nclusters ({nclusters:g})")
    if nobs == nclusters:
        raise DataError("nobs equals nclusters: with one unit per cluster the levels cannot be told apart")
    return table, nobs, nclusters


def size_series(sizes: pd.Series, nobs: float | None, nclusters: float | None) -> Mapping[int, int]:
    """A Series as the size of every cluster, or as the number of clusters (values) of each size (index).

    ``data["cluster"].value_counts()`` is one and ``sizes.value_counts()`` is the other, and both have the name
    "count". Where the numbers can be read both ways, N and J decide, and without them nothing does.
    """
    every: list[int] = sizes.tolist()
    readings: list[Sequence[int] | Mapping[int, int]] = [every]
    if sizes.index.is_unique:
        readings.append(dict(zip(sizes.index.tolist(), every, strict=True)))
    tables: list[Mapping[int, int]] = []
    for reading in readings:
        with contextlib.suppress(DataError):
            tables.append(size_table(reading))
    totals = [(sum(n * j for n, j in table.items()), sum(table.values())) for table in tables]
    agree = [(nobs in (n, None)) and (nclusters in (j, None)) for n, j in totals]
    found = [table for table, fits in zip(tables, agree, strict=True) if fits] or tables[:1]
    if len(found) > 1:
        raise DataError(
            "cluster_sizes is a Series that can be read in two ways: give it as a dict, .to_dict(), if its index "
            "holds the sizes and its values how many clusters have each, or as a list, .to_list(), if its values are "
            "the sizes of the clusters"
        )
    return found[0] if found else size_table(every)


def size_table(sizes: Sequence[int] | Mapping[int, int]) -> Mapping[int, int]:
    """Number of clusters of each size, ascending, from a table or from the size of every cluster."""
    keys: object = list(sizes)
    values = list(sizes.values()) if isinstance(sizes, Mapping) else None
    try:
        numbers = np.array(keys, dtype=np.float64)
        counts = np.ones(len(numbers)) if values is None else np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"cluster_sizes has an element that is not a number: {error}") from error
    every = np.concatenate([numbers.ravel(), counts])
    if numbers.ndim != 1 or not len(numbers) or not np.all(np.isfinite(every) & (np.rint(every) == every)):
        raise DataError("cluster_sizes must be whole numbers: the size of every cluster, or size: count")
    if numbers.min() < 1 or counts.min() < 0:
        raise DataError("cluster_sizes must be positive sizes, or a mapping from size to number of clusters")
    out: dict[int, int] = {}
    for n, j in sorted(zip(numbers.tolist(), counts.tolist(), strict=True)):
        if j:
            out[int(n)] = out.get(int(n), 0) + int(j)
    return out


def require_possible(within: LevelArrays, between: LevelArrays, largest: float) -> None:
    """Refuse matrices that no cluster means could have: between plus within over the largest size is a covariance."""
    both = [name for name in within.names if name in between.at]
    own, at = [within.at[name] for name in both], [between.at[name] for name in both]
    means = between.cov.copy()
    means[np.ix_(at, at)] += within.cov[np.ix_(own, own)] / largest
    if smallest_eigenvalue(means) < -1e-8:
        raise DataError(
            f"the between covariance matrix plus the within one over the cluster size ({largest:g}) is not positive "
            "definite, which cluster means would have: check the matrices, nobs, nclusters and cluster_sizes"
        )


SYMMETRY = 1e-6  # largest difference between mirrored elements, in units of the standard deviations


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
    require_scale(list(named.columns), variances)
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
