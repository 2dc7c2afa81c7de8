"""Checks of means, sample sizes and names that a user types in with level-specific moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from msem.errors import DataError


def matching_names(wanted: Sequence[str], available: Sequence[str]) -> list[str]:
    """Names as they are spelled among those available: a covariance may stand the other way round."""
    known = set(available)

    def found(name: str) -> str:
        if name in known or "~~" not in name:
            return name
        stem, suffix = (name[:-3], ".l2") if name.endswith(".l2") else (name, "")
        a, b = stem.split("~~")
        return f"{b}~~{a}{suffix}"

    return [found(name) for name in wanted]


def named_means(given: pd.Series | Mapping[str, float] | None, names: list[str], what: str) -> pd.Series:
    """Means of all variables in order; 0 where none are given."""
    series = pd.Series(dict(given) if given is not None else {}, dtype=float)
    unknown = [name for name in series.index if name not in names]
    if unknown:
        raise DataError(
            f"{what} names {', '.join(map(str, unknown))}, which the covariance matrix does not have"
        )
    missing = [name for name in names if name not in series.index]
    if missing and what == "between_mean" and len(series):
        raise DataError(f"{what} has no value for {', '.join(missing)}")
    series = series.reindex(names).fillna(0.0)
    if not np.all(np.isfinite(series)):
        raise DataError(f"{what} must be finite")
    return series


def size_table(
    sizes: Sequence[int] | Mapping[int, int] | None, nobs: float, nclusters: float
) -> Mapping[int, int] | None:
    """Number of clusters of each size, checked against N and J; None when the sizes are not known."""
    if not (np.isfinite(nobs) and np.isfinite(nclusters)):
        raise DataError("nobs (units) and nclusters are needed: they set the precision of the moments")
    if nclusters < 2:
        raise DataError(f"nclusters is {nclusters:g}: at least two clusters are needed")
    if nobs < nclusters:
        raise DataError(f"nobs ({nobs:g} units) is smaller than nclusters ({nclusters:g})")
    if nobs == nclusters:
        raise DataError("nobs equals nclusters: with one unit per cluster the levels cannot be told apart")
    if sizes is None:
        return None
    if isinstance(sizes, Mapping):
        table = {int(n): int(j) for n, j in sizes.items()}
    else:
        values, counts = np.unique(np.asarray(sizes, dtype=np.int64), return_counts=True)
        table = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if any(n < 1 or j < 0 for n, j in table.items()):
        raise DataError("cluster_sizes must be positive sizes, or a mapping from size to number of clusters")
    total, clusters = sum(n * j for n, j in table.items()), sum(table.values())
    if clusters != nclusters or total != nobs:
        raise DataError(
            f"cluster_sizes describe {clusters} clusters with {total} units, "
            f"but nclusters is {nclusters:g} and nobs is {nobs:g}"
        )
    return dict(sorted(table.items()))
