"""The statistics of a model's variables, from statistics of clusters of more variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.clusterstatistics import ClusterStatistics
from msem.data.clustersums import ClusterSums
from msem.data.screening import require_clusters, require_constant_within, require_enough
from msem.data.statistics import covariance_statistics, require_identified_levels
from msem.data.sufficient import ClusterArrays, SampleStatistics
from msem.errors import DataError

Floats = NDArray[np.float64]


def two_level(
    given: ClusterStatistics, unit: Sequence[str], cluster: Sequence[str], nboth: int
) -> SampleStatistics:
    """Sufficient statistics of the variables of a two-level model.

    Parameters
    ----------
    given : ClusterStatistics
    unit, cluster : sequence of str
        Variables measured on units (those at both levels first) and on clusters only.
    nboth : int
        Number of `unit` variables that are at both levels.

    Raises
    ------
    DataError
        As `sample_statistics` of data; or if a variable is not among those given.
    """
    N, J = int(given.nobs), int(given.nclusters)
    own, every = given.positions(unit), given.positions([*unit, *cluster])
    require_clusters(N, J, unit)
    _require_varying(given, [*unit, *cluster])
    require_enough(N, J, len(unit), nboth + len(cluster))
    _require_constant_within(given, cluster)
    statistics = replace(
        given.whole,
        unit=tuple(unit),
        cluster=tuple(cluster),
        nboth=nboth,
        means=given.means[:, every] + given.origin[every],
        scatter=given.scatter[:, every][:, :, every],
        ssw=given.ssw[np.ix_(own, own)],
    )
    require_identified_levels(statistics, [name not in given.varying for name in unit])
    return statistics


def single_level(given: ClusterStatistics, variables: Sequence[str]) -> SampleStatistics:
    """Sufficient statistics of single-level data: the rows are clusters of size one.

    Raises
    ------
    DataError
        If a variable is constant, variables are collinear, or there are too few rows.
    """
    at = given.positions(variables)
    _require_varying(given, variables)
    scatter = _total_scatter(given)[np.ix_(at, at)]
    return covariance_statistics(scatter, given.total_mean.to_numpy()[at], int(given.nobs), variables)


def single_clusters(given: ClusterStatistics, unit: Sequence[str], cluster: Sequence[str]) -> ClusterArrays:
    """Statistics of every single cluster, for robust standard errors and resampling.

    Raises
    ------
    DataError
        If the clusters were not kept with their products.
    """
    sums = _kept(given)
    own, every = given.positions(unit), given.positions([*unit, *cluster])
    means = sums.means[:, every] + given.origin[every]
    return ClusterArrays(sums.sizes, means, sums.products(own, len(given.variables)))


def cluster_ids(given: ClusterStatistics) -> pd.Index[Any]:
    """Ids of the clusters in the order of `single_clusters`; `DataError` if they were not kept."""
    return _kept(given).ids


def _kept(given: ClusterStatistics) -> ClusterSums:
    if given.sums is None or not given.keeps_products:
        raise DataError(
            "this needs the statistics of the single clusters, which were not kept: make them with "
            "msem.summarize(..., keep_clusters=True)"
        )
    return given.sums


def _total_scatter(given: ClusterStatistics) -> Floats:
    """Sums of squares and products over units about their means."""
    weights = given.sizes * given.counts
    deviations = given.means - weights @ given.means / given.nobs
    between = np.tensordot(given.sizes, given.scatter, axes=1) + (deviations.T * weights) @ deviations
    total: Floats = given.ssw + between
    return total


def _require_varying(given: ClusterStatistics, names: Sequence[str]) -> None:
    total = np.diag(_total_scatter(given))
    for name, at in zip(names, given.positions(names), strict=True):
        if total[at] == 0:
            value = given.total_mean.iloc[at]
            raise DataError(f"variable {name!r} is constant (always {value:g}): take it out of the model")


def _require_constant_within(given: ClusterStatistics, cluster: Sequence[str]) -> None:
    """Refuse variables at level 2 only that differ between units of a cluster."""
    sums = given.sums
    for name in cluster:
        if name not in given.varying:
            continue
        if sums is not None and sums.within is not None:
            squares = sums.squares(given.variables.index(name), len(given.variables))
            codes = np.flatnonzero(squares > 0)
            require_constant_within([name], [(len(codes), codes[:5].tolist())], sums.ids)
        raise DataError(
            f"variable {name!r} is in the level-2 block only, but varies within clusters: put it in the level-1 block "
            "too, or use its cluster mean"
        )
