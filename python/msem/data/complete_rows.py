"""Sufficient statistics of complete rows: of two levels by cluster size, and of one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import ARRAYS, SampleStatistics, single_level_statistics
from msem.data.rows import ClusteredData, cluster_codes, columns_of
from msem.data.screening import (
    Finding,
    dependent,
    report,
    require_constant_within,
    require_scale,
    undivided,
    unvarying,
    unvarying_between,
    unvarying_within,
)
from msem.model.variables import Variables

Floats = NDArray[np.float64]


def sample_statistics(
    data: ClusteredData, variables: Variables, *, found: list[Finding] | None = None
) -> SampleStatistics:
    """Sufficient statistics of two-level data.

    Parameters
    ----------
    data : ClusteredData
        Complete rows with cluster codes.
    variables : Variables
        Names by level.
    found : list of Finding, optional
        Takes what would be refused, for the sample of one group of several.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If the data cannot tell the levels of these variables apart: fewer than two clusters, or clusters of one unit, a
        constant or collinear variable, or a variable at the wrong level.
    """
    unit, cluster = variables.unit, variables.cluster
    codes, J = cluster_codes(data), len(data.clusters)
    report(undivided(len(codes), J, unit), found)
    report(unvarying({name: data.columns[name] for name in [*unit, *cluster]}), found)
    if data.clusters_first:
        raw = _of_clusters(data, unit, cluster)
    else:
        columns = columns_of(data, unit), columns_of(data, cluster)
        raw = dict(_core.two_level_statistics(*columns, codes, J))
    require_constant_within(cluster, raw["varying"], data.clusters)
    statistics = SampleStatistics(
        variables=variables,
        nobs=float(raw["sizes"] @ raw["counts"]),
        nclusters=float(raw["counts"].sum()),
        **{name: raw[name] for name in ARRAYS},
        source="data",
    )
    report(confounded_levels(statistics, raw["constant"], len(codes), J), found)
    return statistics


def _of_clusters(data: ClusteredData, unit: Sequence[str], cluster: Sequence[str]) -> dict[str, Any]:
    """Statistics by cluster size from those of clusters; sizes are sums of weights (Asparouhov, 2006)."""
    sizes, means, within = data.cluster_arrays(unit, cluster)
    given = None if data.sampled is None else data.sampled.weights
    weights = np.ones(len(sizes)) if given is None else given
    known = _core.counted_clusters(sizes, means, within, len(unit), weights)
    raw: dict[str, Any] = dict(zip(ARRAYS, known, strict=True))
    codes, J = cluster_codes(data), len(data.clusters)
    raw["varying"] = _core.cluster_values(columns_of(data, cluster), codes, J)[1]
    raw["constant"] = raw["ssw"].diagonal() == 0
    return raw


def confounded_levels(
    statistics: SampleStatistics, constant: Sequence[bool], units: int, clusters: int
) -> Iterator[Finding]:
    """Variables without variance, or collinear ones, at a level they are used at.

    Those at level 1 only are independent over units, so that all of their scatter counts and not only that within
    clusters. With fewer degrees of freedom at a level than variables everything depends on everything, which tells
    nothing of the variables: `units` and `clusters` are counted without their weights.
    """
    variables, N, J = statistics.variables, int(statistics.nobs), int(statistics.nclusters)
    unit, both, p = variables.unit, variables.both, len(variables.unit)
    between = statistics.cluster_scatter
    passing = [k for k in range(p) if unit[k] not in both]
    scatter, ssw = between.diagonal(), statistics.ssw.diagonal()
    size = np.abs(statistics.total_mean[:p]) + np.sqrt(scatter[:p] / J)
    require_scale(statistics.names, [*(ssw / N).tolist(), *(scatter[p:] / J).tolist()])
    yield from unvarying_within(unit, both, constant, ssw, N, size)
    yield from unvarying_between(both, ssw, scatter, N, J)
    if p <= N - J:
        yield from dependent(statistics.ssw, unit, " within clusters", passing)
    if len(passing) < N:
        names = [unit[k] for k in passing]
        yield from dependent(statistics.covariances(names, ())[0], names, "")
    level2 = variables.numbers[-1]
    if len(level2) < J:
        names = [statistics.names[k] for k in level2]
        yield from dependent(between[level2][:, level2], names, " in the cluster means")


def simple_statistics(
    data: ClusteredData, variables: Sequence[str], *, found: list[Finding] | None = None
) -> SampleStatistics:
    """Sufficient statistics of single-level data: the rows are clusters of size one; `found` as in `sample_statistics`.

    Raises
    ------
    DataError
        If a variable is constant, or variables are collinear.
    """
    columns = columns_of(data, variables)
    nrows = len(columns[0])
    mean, scatter = _core.simple_statistics(columns, nrows, data.weights)
    report(unvarying({name: data.columns[name] for name in variables}), found)
    total = nrows if data.weights is None else float(data.weights.sum())
    return covariance_statistics(scatter, mean, nrows, variables, total, found=found)


def covariance_statistics(
    scatter: Floats,
    mean: Floats,
    nrows: int,
    variables: Sequence[str],
    total: float | None = None,
    *,
    found: list[Finding] | None = None,
) -> SampleStatistics:
    """Statistics of single-level data from their products about the mean; see `simple_statistics`.

    `total` is what the weights of the rows add up to, if they have any.
    """
    counted = nrows if total is None else total
    require_scale(variables, np.diag(scatter) / counted)
    if nrows > len(variables):
        report(dependent(scatter, variables, ""), found)
    return single_level_statistics(scatter / counted, mean, counted, variables, source="data")
