"""Sufficient statistics of samples with holes: what full-information maximum likelihood needs of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.errors import DataError
from msem.sample.frames import ClusteredData
from msem.sample.screening import require_clusters, require_constant_within
from msem.sample.statistics import cluster_codes, columns_of
from msem.sample.sufficient import SampleStatistics, positions

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IncompleteStatistics:
    """Statistics of a sample with holes, for p unit variables and q cluster variables; see `SampleStatistics`.

    Attributes
    ----------
    unit, cluster, nboth
        Variables, as in `SampleStatistics`. A single-level sample has no unit variables: every row is a cluster.
    data : _core.IncompleteData
        Patterns of observed variables, and the cells of units of a cluster that share one.
    by_cluster : _core.IncompleteData or None
        The rows of a single-level sample by cluster, where it has clusters.
    source : str
        "data".
    """

    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    nboth: int
    data: _core.IncompleteData
    by_cluster: _core.IncompleteData | None = None
    source: str = "data"
    complete = False

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def names(self) -> tuple[str, ...]:
        """Unit variables, then cluster variables."""
        return self.unit + self.cluster

    @property
    def nobs(self) -> float:
        """Units with anything observed; rows of a single-level sample."""
        return self.data.nobs if self.unit else float(self.data.weight.sum())

    @property
    def nclusters(self) -> float:
        """Clusters; rows of a single-level sample."""
        return float(self.data.weight.sum())

    @cached_property
    def _sizes(self) -> tuple[Floats, Floats]:
        if not self.unit:
            return np.ones(1), np.array([self.nclusters])
        size, weight = self.data.sizes, self.data.weight
        used = (size > 0) & (weight > 0)
        distinct, at = np.unique(size[used], return_inverse=True)
        return distinct, np.bincount(at, weight[used]).astype(np.float64)

    @property
    def sizes(self) -> Floats:
        """Distinct cluster sizes, in units with anything observed, ascending; clusters without any are left aside."""
        return self._sizes[0]

    @property
    def counts(self) -> Floats:
        """How many clusters there are of each size."""
        return self._sizes[1]

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the cluster sizes."""
        return float(self.counts.sum() / (self.counts / self.sizes).sum())

    @cached_property
    def observed(self) -> tuple[Floats, Floats, Floats]:
        """Number of observed values, their means and variances, of all variables; each of shape (p + q,)."""
        return self.data.observed_moments()

    @cached_property
    def coverage(self) -> tuple[Floats, Floats]:
        """Units that have two unit variables, shape (p, p); clusters that have two variables, (p + q, p + q)."""
        return self.data.coverage()

    @cached_property
    def loss(self) -> _core.MissingLoss:
        """The compiled likelihood."""
        return _core.MissingLoss(self.data)

    @cached_property
    def unit_loss(self) -> _core.MissingLoss:
        """The same of a single level with its rows by cluster, as units without cluster differences."""
        return _core.MissingLoss(self.data if self.by_cluster is None else self.by_cluster)

    @cached_property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated covariances of variables that are never observed together, by name; ``.l2``: between."""
        units, clusters = self.coverage
        p, n = len(self.unit), self.nboth
        names = [
            f"{self.unit[i]}~~{self.unit[j]}" for j in range(p) for i in range(j + 1, p) if not units[i, j]
        ]
        level2 = [*range(n), *range(p, len(self.names))]
        suffix = ".l2" if p else ""
        pairs = [(j, i) for k, j in enumerate(level2) for i in level2[k + 1 :] if not clusters[i, j]]
        return tuple(names + [f"{self.names[i]}~~{self.names[j]}{suffix}" for j, i in pairs])

    def restrict(self, unit: Sequence[str], cluster: Sequence[str], nboth: int) -> IncompleteStatistics:
        """Statistics of some of the variables, in the order given.

        Raises
        ------
        DataError
            If a variable is not among those of its kind.
        """
        rows, columns = positions(unit, self.unit), positions(cluster, self.cluster)
        grouped = None if self.by_cluster is None else self.by_cluster.restrict(columns, [], 0)
        data = self.data.restrict(rows, columns, nboth)
        return replace(
            self, unit=tuple(unit), cluster=tuple(cluster), nboth=nboth, data=data, by_cluster=grouped
        )


Statistics = SampleStatistics | IncompleteStatistics


def incomplete_statistics(
    data: ClusteredData, unit: Sequence[str], cluster: Sequence[str], nboth: int
) -> IncompleteStatistics:
    """Statistics of two-level data with holes; parameters as in `sample_statistics`.

    Raises
    ------
    DataError
        If the data cannot identify the variances of these variables: a variable without observed values or without
        variance, at a level where it has none, fewer than two clusters.
    """
    codes, J = cluster_codes(data), len(data.clusters)
    require_clusters(len(codes), J, unit)
    _, varying = _core.cluster_values(columns_of(data, cluster), codes, J)
    require_constant_within(cluster, varying, data.clusters)
    core = _core.incomplete_data(columns_of(data, unit), columns_of(data, cluster), codes, J, nboth)
    out = IncompleteStatistics(tuple(unit), tuple(cluster), nboth, core)
    require_observed(out)
    return out


def simple_incomplete(data: ClusteredData, variables: Sequence[str]) -> IncompleteStatistics:
    """Statistics of single-level data with holes: the rows are clusters of size one."""
    columns = columns_of(data, variables)
    rows = np.arange(len(columns[0]), dtype=np.int64)
    core = _core.incomplete_data([], columns, rows, len(rows), 0)
    grouped = None
    if data.codes is not None:
        grouped = _core.incomplete_data(columns, [], data.codes, len(data.clusters), 0)
    out = IncompleteStatistics((), tuple(variables), 0, core, grouped)
    require_observed(out)
    return out


def require_observed(statistics: IncompleteStatistics) -> None:
    """Refuse variables without observed values, and those whose observed values are all the same."""
    count, mean, variance = statistics.observed
    for name, n, centre, spread in zip(statistics.names, count, mean, variance, strict=True):
        if not n:
            raise DataError(f"variable {name!r} has no observed value: take it out of the model")
        if not spread > 0:
            raise DataError(f"variable {name!r} is constant (always {centre:g}): take it out of the model")
