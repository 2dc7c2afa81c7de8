"""Single clusters of a sample with holes, from which the score of each cluster is computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.frames import ClusteredData
from msem.data.incomplete import IncompleteStatistics
from msem.data.statistics import cluster_codes, columns_of
from msem.data.sufficient import ClusterArrays

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class IncompleteClusters:
    """The clusters of a sample with holes; see `ClusterArrays` for complete ones.

    Attributes
    ----------
    data : _core.IncompleteData
        Cells of units with the same variables observed.
    within : ndarray, shape (p (p + 1) / 2, cells)
        Products about the means of each cell, the lower triangle column by column; zero where nothing is observed.
    """

    data: _core.IncompleteData
    within: Floats

    @property
    def sizes(self) -> Floats:
        """Units with anything observed in each cluster, shape (J,); 1 for the rows of a single level."""
        return self.data.sizes if self.of_units else np.ones(self.data.nclusters)

    @property
    def of_units(self) -> bool:
        """Whether there are units within clusters; see `ClusterArrays.of_units`."""
        return self.data.p > 0

    @property
    def products(self) -> None:
        """Sums of products by size do not give scores here: cells differ between clusters of a size."""
        return

    def scores(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Derivatives of the log-likelihoods of the clusters, shape (J, npar), for an objective of these data."""
        return core.own_scores(theta, self.within, group)

    def loglik(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Log-likelihoods of the clusters, shape (J,)."""
        return core.own_cluster_loglik(theta, self.within, group)


Clusters = ClusterArrays | IncompleteClusters


def incomplete_clusters(statistics: IncompleteStatistics, data: ClusteredData) -> IncompleteClusters:
    """The clusters of the rows that the statistics were made of.

    The rows of a single-level sample are clusters themselves, or are taken together by cluster where there are any.
    """
    s = statistics
    if s.unit:
        codes = cluster_codes(data)
        return IncompleteClusters(s.data, _core.cell_products(columns_of(data, s.unit), codes, s.data))
    if s.by_cluster is None:
        return IncompleteClusters(s.data, np.empty((0, 0)))
    codes = cluster_codes(data)
    return IncompleteClusters(
        s.by_cluster, _core.cell_products(columns_of(data, s.cluster), codes, s.by_cluster)
    )
