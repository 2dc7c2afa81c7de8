"""Checks that a sample can identify the moments of the variables at the levels they are used at.

One check per function, of names and arrays. Each raises `DataError`, naming the variables and the remedy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Share of a variable's variance that the others must leave unexplained; below it too few digits are left.
COLLINEAR = 1e-10
# Values that are looked at before all of them are.
PREFIX = 1024
# Within-cluster variation of a few units in the last place is rounding.
ROUNDING = 8 * np.finfo(np.float64).eps
# Variance; the largest is as far from 1.
SMALLEST = 1e-150


def require_complete_rows(
    keep: Bools,
    dropped: Mapping[str, int],
    no_cluster: Bools,
    cluster: str | None,
    nrows: int,
    what: str = "complete row",
) -> None:
    """Refuse data of which no row is left."""
    if keep.any():
        return
    raise no_row_left(dropped, int(no_cluster.sum()), cluster, nrows, what)


def no_row_left(
    dropped: Mapping[str, int], no_cluster: int, cluster: str | None, nrows: int, what: str = "complete row"
) -> DataError:
    """Error for data of which no row is left, with what is missing in how many."""
    counts = [f"{name!r} is missing in {count}" for name, count in dropped.items()]
    if no_cluster:
        counts.append(f"cluster id {cluster!r} is missing in {no_cluster}")
    return DataError(f"no {what} is left of {nrows}: {', '.join(counts)}; check how missing values are coded")


def require_varying(columns: Mapping[str, Floats]) -> None:
    """Refuse variables with the same value in every row."""
    for name, column in columns.items():
        if (column[:PREFIX] == column[0]).all() and (column == column[0]).all():
            raise DataError(f"variable {name!r} is constant (always {column[0]:g}): take it out of the model")


def require_clusters(nobs: int, nclusters: int, unit: Sequence[str]) -> None:
    """Refuse a single cluster, and clusters that all have one unit."""
    if nclusters < 2:
        raise DataError(
            "all rows belong to one cluster; a two-level model needs at least two clusters: "
            "check the cluster column, or fit a single-level model"
        )
    if unit and nobs == nclusters:
        raise DataError(
            f"each of the {nclusters} clusters has one unit, so within and between cannot be told apart: "
            "check the cluster column, or fit a single-level model"
        )


def require_enough(nobs: int, nclusters: int, p: int, between: int) -> None:
    """Refuse samples too small for unrestricted covariance matrices of p and of `between` variables."""
    if nclusters <= between:
        raise DataError(
            f"the between-level covariance matrix cannot be estimated: {nclusters} clusters for {between} "
            f"between-level variables (at least {between + 1} are needed); use fewer level-2 variables"
        )
    if nobs - nclusters < p:
        raise DataError(
            f"the within-level covariance matrix cannot be estimated: {nobs} units in {nclusters} clusters "
            f"leave {nobs - nclusters} degrees of freedom for {p} variables; use fewer level-1 variables"
        )


def require_observed(names: Sequence[str], count: Floats) -> None:
    """Refuse variables without an observed value; `count` is how many each has."""
    for name, n in zip(names, count, strict=True):
        if not n:
            raise DataError(f"variable {name!r} has no observed value: take it out of the model")


def require_observed_levels(
    names: Sequence[str], p: int, nboth: int, count: Floats, clusters: Floats
) -> None:
    """Refuse variables with too few observed values for the levels they are used at.

    The first `p` variables are measured on units, `nboth` of them at both levels; `count` values of each are observed,
    in so many `clusters`.
    """
    for k, name in enumerate(names):
        if clusters[k] < 2 and (k < nboth or k >= p):
            raise DataError(
                f"variable {name!r} is in the level-2 block, but is observed in one cluster only: take it out of the "
                "level-2 block"
            )
        if k < p and count[k] == clusters[k]:
            remedy = "take it out of the model" if k < nboth else "move it to the level-2 block"
            raise DataError(
                f"variable {name!r} is in the level-1 block, but no cluster has two observed values of it, so within "
                f"and between cannot be told apart: {remedy}"
            )


def require_constant_within(
    cluster: Sequence[str], varying: Sequence[tuple[int, Sequence[int]]], ids: pd.Index[Any]
) -> None:
    """Refuse variables at level 2 only that differ between units of a cluster."""
    for name, (count, codes) in zip(cluster, varying, strict=True):
        if count:
            first = ", ".join(str(ids[code]) for code in codes)
            raise DataError(
                f"variable {name!r} is in the level-2 block only, but varies within {count} of {len(ids)} "
                f"clusters (such as {first}): put it in the level-1 block too, or use its cluster mean"
            )


def require_scale(names: Sequence[str], variances: Floats) -> None:
    """Refuse variables in units in which the information about their variance, 1 / variance^2, is not a number.

    Raises
    ------
    DataError
        Naming the first.
    """
    for name, variance in zip(names, variances, strict=True):
        if 0 < variance < SMALLEST or variance > 1 / SMALLEST:
            what = "small" if variance < 1 else "large"
            raise DataError(
                f"variable {name!r} has a variance of {variance:.3g}, too {what} to compute with: rescale it"
            )


def require_within_variance(
    unit: Sequence[str], nboth: int, constant: Sequence[bool], ssw: Floats, nobs: int | Floats, size: Floats
) -> None:
    """Refuse level-1 variables that do not vary within clusters.

    `ssw` is the diagonal of the pooled sums of squares, `size` the typical magnitude of each variable, against which
    rounding is judged.
    """
    spread = np.sqrt(ssw / nobs)
    for k, name in enumerate(unit):
        if constant[k] or spread[k] <= ROUNDING * size[k]:
            remedy = "take it out of the level-1 block" if k < nboth else "move it to the level-2 block"
            raise DataError(
                f"variable {name!r} is in the level-1 block, but does not vary within clusters: "
                f"it is measured on clusters; {remedy}"
            )


def require_between_variance(
    both: Sequence[str], ssw: Floats, scatter: Floats, nobs: int | Floats, nclusters: int | Floats
) -> None:
    """Refuse variables at both levels whose cluster means are all the same.

    Cluster means vary at least as much as sampling makes them, the within variance over the cluster size. `ssw` and
    `scatter` are sums of squares within clusters and of cluster means.
    """
    q = len(both)
    sampling = (ssw / (nobs - nclusters) * nclusters / nobs)[:q]
    lacking = (scatter / (nclusters - 1))[:q] < COLLINEAR * sampling
    for name, flat in zip(both, lacking, strict=True):
        if flat:
            raise DataError(
                f"variable {name!r} is in the level-2 block, but its cluster means are all the same (was it "
                "centred within clusters?): take it out of the level-2 block"
            )


def require_independent(scatter: Floats, names: Sequence[str], where: str) -> None:
    """Refuse variables that are linear combinations of others; `where` says at which level."""
    found = first_dependence(scatter)
    if found is not None:
        dependent, others = found
        raise DataError(
            f"variable {names[dependent]!r} is a linear combination of "
            f"{' and '.join(repr(names[k]) for k in others)}{where}, so their covariance matrix is singular: "
            "take one of them out of the model"
        )


def first_dependence(scatter: Floats) -> tuple[int, list[int]] | None:
    """First variable that the ones before it determine, and those of them that it depends on."""
    scale = 1 / np.sqrt(np.diag(scatter))
    corr = scatter * scale * scale[:, None]
    for k in range(1, len(corr)):
        weights = np.linalg.solve(corr[:k, :k], corr[:k, k])
        if 1 - corr[k, :k] @ weights < COLLINEAR:
            return k, [int(i) for i in np.flatnonzero(np.abs(weights) > 1e-6)]
    return None
