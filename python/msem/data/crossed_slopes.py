"""Statistics of two crossed classifications for models with random slopes.

Of each pair of clusters there are the sums and products of the covariates with slopes, and those of their products with
the variables (`_core.CrossedData`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.crossed import (
    CrossedClusters,
    CrossedStatistics,
    OfCrossedClusters,
    crossed_statistics,
    require_room,
)
from msem.data.level_slopes import WithSlopes, require_covariates
from msem.data.rows import ClusteredData
from msem.data.screening import Finding
from msem.data.slopes import require_given
from msem.data.statistics import Design, Rows
from msem.errors import UnsupportedError
from msem.model.slopes import Slope
from msem.model.variables import Variables


@dataclass(frozen=True, eq=False)
class CrossedSlopeStatistics(WithSlopes, OfCrossedClusters):
    """Statistics of a sample in two crossed classifications for a model with random slopes; see `WithSlopes`."""

    plain: CrossedStatistics
    fixed: tuple[str, ...]
    among: tuple[Slope, ...]
    carriers: tuple[str, ...]
    data: _core.CrossedData

    def with_slopes(  # type: ignore[override]
        self, slopes: Sequence[Slope], carriers: Sequence[str]
    ) -> CrossedSlopeStatistics:
        """The same sample for other slopes of the same covariates."""
        data = self.data.with_slopes(self._places(slopes), self._given)
        found = replace(self, among=tuple(slopes), carriers=tuple(carriers), data=data)
        require_room(found)
        return found

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`.

        Raises
        ------
        DataError
            If a covariate with a slope is an outcome itself: its products with slopes are not known before it is drawn.
        """
        require_given(self.among, fixed, "use msem.simulate")
        return Design.of_levels(self.draws, self.data, levels, self.variables, fixed)

    def completed(self, rows: Rows) -> CrossedSlopeStatistics:  # type: ignore[override]
        """The same where nothing is missing; otherwise `UnsupportedError`."""
        if not self.complete:
            raise UnsupportedError(
                "fractions of missing information of crossed classifications with random slopes are not available: "
                "they compare expected informations, for which the covariance matrix of all data would be inverted"
            )
        return self

    def new_clusters(self, rows: Rows) -> CrossedClusters:
        """The clusters of these or other rows of the same variables, for scores."""
        return CrossedClusters(*rows.crossed(self.variables, self.fixed, self.among))


def crossed_slope_statistics(
    data: ClusteredData,
    variables: Variables,
    fixed: Sequence[str],
    slopes: Sequence[Slope],
    carriers: Sequence[str],
    *,
    found: list[Finding] | None = None,
) -> CrossedSlopeStatistics:
    """Statistics of rows in two crossed classifications for a model with random slopes.

    Parameters
    ----------
    data : ClusteredData
    variables : Variables
        Those of the model, without slopes.
    fixed : sequence of str
        Fixed covariates of any level.
    slopes : sequence of Slope
    carriers : sequence of str
        See `WithSlopes`.

    Raises
    ------
    DataError
        If a variable cannot be used at its level, a covariate is so far from its origin that no digits are left, or the
        smaller classification has too many clusters for the memory that it takes.
    """
    plain = crossed_statistics(data, variables, found=found)
    require_covariates(plain, slopes)
    own = data.crossed(variables, fixed, slopes)[0]
    statistics = CrossedSlopeStatistics(plain, tuple(fixed), tuple(slopes), tuple(carriers), own)
    require_room(statistics)
    return statistics
