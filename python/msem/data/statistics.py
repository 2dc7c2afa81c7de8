"""Sufficient statistics from data, or from level-specific moments: all that the likelihood needs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.frames import ClusteredData
from msem.data.screening import (
    require_between_variance,
    require_clusters,
    require_constant_within,
    require_enough,
    require_independent,
    require_varying,
    require_within_variance,
)
from msem.data.sufficient import ClusterArrays, SampleStatistics, require_shape
from msem.errors import DataError

Floats = NDArray[np.float64]

__all__ = [
    "ClusterArrays",
    "SampleStatistics",
    "cluster_arrays",
    "expected_statistics",
    "sample_statistics",
    "simple_statistics",
]


def sample_statistics(
    data: ClusteredData, unit: Sequence[str], cluster: Sequence[str], nboth: int
) -> SampleStatistics:
    """Sufficient statistics of two-level data.

    Parameters
    ----------
    data : ClusteredData
        Complete rows with cluster codes.
    unit, cluster : sequence of str
        Variables measured on units (those at both levels first) and on clusters only.
    nboth : int
        Number of `unit` variables that are at both levels.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If the data cannot identify the two-level moments of these variables: fewer than two clusters, too few
        clusters or units, a constant or collinear variable, or a variable at the wrong level.
    """
    codes, J = cluster_codes(data), len(data.clusters)
    require_clusters(len(codes), J, unit)
    require_varying({name: data.columns[name] for name in [*unit, *cluster]})
    require_enough(len(codes), J, len(unit), nboth + len(cluster))
    raw = _core.two_level_statistics(columns_of(data, unit), columns_of(data, cluster), codes, J)
    require_constant_within(cluster, raw["varying"], data.clusters)
    statistics = SampleStatistics(
        unit=tuple(unit),
        cluster=tuple(cluster),
        nboth=nboth,
        nobs=float(len(codes)),
        nclusters=float(J),
        sizes=raw["sizes"],
        counts=raw["counts"],
        means=raw["means"],
        scatter=raw["scatter"],
        ssw=raw["ssw"],
        source="data",
    )
    require_identified_levels(statistics, raw["constant"])
    return statistics


def require_identified_levels(statistics: SampleStatistics, constant: Sequence[bool]) -> None:
    """Refuse variables without variance, or collinear ones, at a level they are used at."""
    unit, nboth, N, J = statistics.unit, statistics.nboth, int(statistics.nobs), int(statistics.nclusters)
    between = statistics.cluster_scatter
    p = len(unit)
    size = np.abs(statistics.total_mean[:p]) + np.sqrt(np.diag(between)[:p] / J)
    ssw = np.diag(statistics.ssw)
    require_within_variance(unit, nboth, constant, ssw, N, size)
    require_between_variance(unit[:nboth], ssw, np.diag(between), N, J)
    require_independent(statistics.ssw, unit, " within clusters")
    level2 = [*range(nboth), *range(p, len(between))]
    require_independent(
        between[np.ix_(level2, level2)], [statistics.names[k] for k in level2], " in the cluster means"
    )


def cluster_arrays(data: ClusteredData, unit: Sequence[str], cluster: Sequence[str]) -> ClusterArrays:
    """Statistics of every single cluster, in order of the cluster codes."""
    arrays = _core.cluster_arrays(
        columns_of(data, unit), columns_of(data, cluster), cluster_codes(data), len(data.clusters)
    )
    for array in arrays:
        array.flags.writeable = False
    return ClusterArrays(*arrays)


def simple_statistics(data: ClusteredData, variables: Sequence[str]) -> SampleStatistics:
    """Sufficient statistics of single-level data: the rows are clusters of size one.

    Raises
    ------
    DataError
        If a variable is constant, variables are collinear, or there are too few rows.
    """
    columns = columns_of(data, variables)
    nrows = len(columns[0])
    mean, scatter = _core.simple_statistics(columns, nrows)
    require_varying({name: data.columns[name] for name in variables})
    return covariance_statistics(scatter, mean, nrows, variables)


def covariance_statistics(
    scatter: Floats, mean: Floats, nrows: int, variables: Sequence[str]
) -> SampleStatistics:
    """Statistics of single-level data from their products about the mean; see `simple_statistics`."""
    if nrows <= len(variables):
        raise DataError(
            f"{nrows} complete rows cannot identify the covariance matrix of {len(variables)} variables: "
            f"at least {len(variables) + 1} are needed"
        )
    require_independent(scatter, variables, "")
    return expected_statistics(
        np.empty((0, 0)), scatter / nrows, mean, [1.0], [nrows], (), variables, 0, source="data"
    )


def expected_statistics(
    within_cov: ArrayLike,
    between_cov: ArrayLike,
    mean: ArrayLike,
    sizes: ArrayLike,
    counts: ArrayLike,
    unit: Sequence[str],
    cluster: Sequence[str],
    nboth: int,
    source: str = "moments",
) -> SampleStatistics:
    """Sufficient statistics that level-specific moments imply.

    With them the complete-data likelihood gives the Kullback-Leibler projection on the model: exact for balanced
    data without within-only variables, asymptotically efficient otherwise. Without the sizes of the clusters give
    one size, N / J.

    Parameters
    ----------
    within_cov : array_like, shape (p, p)
        Within-level covariance matrix of the unit variables.
    between_cov : array_like, shape (nboth + q, nboth + q)
        Between-level covariance matrix of the variables at both levels and the cluster variables.
    mean : array_like, shape (p + q,)
        Means of the unit and the cluster variables.
    sizes, counts : array_like, shape (S,)
        Cluster sizes, ascending, and the number of clusters of each.
    unit, cluster, nboth, source
        As in `SampleStatistics`.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If shapes do not agree.
    """
    within, between = np.asarray(within_cov, dtype=np.float64), np.asarray(between_cov, dtype=np.float64)
    n, J = np.asarray(sizes, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    p, m = len(unit), len(unit) + len(cluster)
    level2 = [*range(nboth), *range(p, m)]
    require_shape("within_cov", within, (p, p))
    require_shape("between_cov", between, (len(level2), len(level2)))
    cov = np.zeros((len(n), m, m))
    cov[:, :p, :p] = within / n[:, None, None]
    cov[np.ix_(range(len(n)), level2, level2)] += between
    return SampleStatistics(
        unit=tuple(unit),
        cluster=tuple(cluster),
        nboth=nboth,
        nobs=float(n @ J),
        nclusters=float(J.sum()),
        sizes=n,
        counts=J,
        means=np.tile(np.asarray(mean, dtype=np.float64), (len(n), 1)),
        scatter=J[:, None, None] * cov,
        ssw=(n @ J - J.sum()) * within,
        source=source,
    )


def cluster_codes(data: ClusteredData) -> NDArray[np.int64]:
    """Cluster code of every row."""
    if data.codes is None:
        raise DataError("a two-level model needs the cluster of every row: give cluster=")
    return data.codes


def columns_of(data: ClusteredData, names: Sequence[str]) -> list[Floats]:
    """Columns in the order given."""
    return [data.columns[name] for name in names]
