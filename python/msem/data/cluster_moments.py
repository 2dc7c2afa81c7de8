"""From the statistics of clusters to those of a sample by cluster size, or of one level, with what these require."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from msem.data.cluster_table import ClusterTable
from msem.data.complete import SampleStatistics
from msem.data.complete_rows import confounded_levels, covariance_statistics
from msem.data.screening import Finding, constant, report, require_constant_within, undivided
from msem.errors import DataError
from msem.model.variables import Variables


def two_level(
    given: ClusterTable, variables: Variables, *, found: list[Finding] | None = None
) -> SampleStatistics:
    """Sufficient statistics of the variables of a two-level model; see `sample_statistics`, which makes them of rows.

    Raises
    ------
    DataError
        As there; or if a variable is not among those given.
    """
    unit, cluster = variables.unit, variables.cluster
    N, J = int(given.nobs), int(given.nclusters)
    own, every = given.positions(unit), given.positions([*unit, *cluster])
    report(undivided(N, J, unit), found)
    report(constants_of(given, [*unit, *cluster]), found)
    _require_constant_within(given, cluster)
    statistics = replace(
        given.whole,
        variables=variables,
        means=given.means[:, every] + given.origin[every],
        scatter=given.scatter[:, every][:, :, every],
        ssw=given.ssw[np.ix_(own, own)],
    )
    report(confounded_levels(statistics, [name not in given.varying for name in unit], N, J), found)
    return statistics


def single_level(
    given: ClusterTable, variables: Sequence[str], *, found: list[Finding] | None = None
) -> SampleStatistics:
    """Sufficient statistics of single-level data: the rows are clusters of size one.

    Raises
    ------
    DataError
        If a variable is constant, or variables are collinear.
    """
    at = given.positions(variables)
    report(constants_of(given, variables), found)
    scatter = given.total_scatter[np.ix_(at, at)]
    mean = given.total_mean.to_numpy()[at]
    total = float(given.sizes @ given.counts)
    return covariance_statistics(scatter, mean, int(given.nobs), variables, total, found=found)


def constants_of(given: ClusterTable, names: Sequence[str]) -> Iterator[Finding]:
    """Variables with one value only."""
    total = np.diag(given.total_scatter)
    for name, at in zip(names, given.positions(names), strict=True):
        if total[at] == 0:
            yield constant(name, given.total_mean.iloc[at])


def _require_constant_within(given: ClusterTable, cluster: Sequence[str]) -> None:
    """Refuse variables at level 2 only that differ between units of a cluster."""
    sums = given.sums
    for name in cluster:
        if name not in given.varying:
            continue
        if sums is not None and sums.keeps_products:
            squares = sums.squares(given.variables.index(name), len(given.variables))
            codes = np.flatnonzero(squares > 0)
            require_constant_within([name], [(len(codes), codes[:5].tolist())], sums.ids)
        raise DataError(
            f"variable {name!r} is in the level-2 block only, but varies within clusters: put it in the level-1 block "
            "too, or use its cluster mean"
        )
