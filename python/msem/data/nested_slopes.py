"""Statistics of nested clusters for models with random slopes.

The rows of the cells of the lowest clusters are reduced to as many as there are covariates of level 1 with slopes, and
one more; covariates of clusters with slopes are those of each cluster (`_core.NestedData`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.level_slopes import WithSlopes, require_covariates
from msem.data.nested import NestedClusters, NestedStatistics, OfNestedClusters, nested_statistics
from msem.data.nesting import NestedSource
from msem.data.screening import Finding
from msem.data.slopes import require_given
from msem.data.statistics import Design, Rows
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NestedSlopeStatistics(WithSlopes, OfNestedClusters):
    """Statistics of a sample of three levels for a model with random slopes; see `WithSlopes`."""

    plain: NestedStatistics
    fixed: tuple[str, ...]
    among: tuple[Slope, ...]
    carriers: tuple[str, ...]
    data: _core.NestedData

    def with_slopes(  # type: ignore[override]
        self, slopes: Sequence[Slope], carriers: Sequence[str]
    ) -> NestedSlopeStatistics:
        """The same sample for other slopes of the same covariates."""
        designs = [own[1:] for own in self.data.design[1:]]
        data = self.data.with_slopes(self._places(slopes), designs, self._given)
        return replace(self, among=tuple(slopes), carriers=tuple(carriers), data=data)

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`.

        Raises
        ------
        DataError
            If a covariate with a slope is an outcome itself: its products with slopes are not known before it is drawn.
        """
        require_given(self.among, fixed, 'use kind="ordinary", or msem.simulate')
        return Design.of_levels(self.draws, self.data, levels, self.variables, fixed)

    def new_clusters(self, rows: Rows) -> NestedClusters:
        """Clusters of new rows of the same variables, for scores."""
        data = rows.nested_with_slopes(self.variables, self.fixed, self.among)
        return NestedClusters(data, rows.sampled, self._columns)

    def clusters(self, rows: Rows) -> NestedClusters:
        """The highest clusters, of which the statistics keep what is needed."""
        return NestedClusters(self.data, rows.sampled, self._columns)

    def completed(self, rows: Rows) -> NestedSlopeStatistics:  # type: ignore[override]
        """The same rows as if nothing were missing, for expected information; see `Statistics.completed`."""
        if self.complete:
            return self
        return replace(self, data=rows.filled().nested_with_slopes(self.variables, self.fixed, self.among))

    @property
    def _columns(self) -> tuple[int, ...]:
        return tuple(self.unit.index(slope.covariate) for slope in self.among if slope.level == 1)


def nested_slope_statistics(
    data: NestedSource,
    variables: Variables,
    fixed: Sequence[str],
    slopes: Sequence[Slope],
    carriers: Sequence[str],
    *,
    found: list[Finding] | None = None,
) -> NestedSlopeStatistics:
    """Statistics of rows in nested clusters for a model with random slopes.

    Parameters
    ----------
    data : ClusteredData or ClusterStatistics
    variables : Variables
        Those of the model, without slopes.
    fixed : sequence of str
        Fixed covariates of any level.
    slopes : sequence of Slope
    carriers : sequence of str
        See `NestedSlopeStatistics`.

    Raises
    ------
    DataError
        If the sample cannot identify the model, or a covariate is so far from its origin that no digits are left.
    """
    plain = nested_statistics(data, variables, found=found)
    require_covariates(plain, slopes)
    reduced = data.nested_with_slopes(variables, fixed, slopes)
    return NestedSlopeStatistics(plain, tuple(fixed), tuple(slopes), tuple(carriers), reduced)
