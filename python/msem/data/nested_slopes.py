"""Statistics of nested clusters for models with random slopes.

The rows of the cells of the lowest clusters are reduced to as many as there are covariates of level 1 with slopes, and
one more; covariates of clusters with slopes are those of each cluster (`_core.NestedData`). What does not know of
slopes is asked of the statistics that a model without slopes would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.kinds import Augmented
from msem.data.nested import NestedClusters, NestedStatistics, OfNestedClusters, nested_statistics
from msem.data.nesting import NestedSource
from msem.data.saturated import solve_saturated
from msem.data.screening import Finding
from msem.data.slopes import SMALL, refuse, require_near
from msem.data.statistics import Rows, Saturated
from msem.errors import DataError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NestedSlopeStatistics(Augmented, OfNestedClusters):
    """Statistics of a sample of three levels for a model with random slopes.

    Attributes
    ----------
    plain : NestedStatistics
        Those without slopes.
    fixed : tuple of str
        Fixed covariates of any level, which no slope reaches.
    among : tuple of Slope
        The random slopes, those of level 1 first.
    carriers : tuple of str
        An observed variable for each slope that has it as its outcome, or measures its outcome.
    data : _core.NestedData
    """

    plain: NestedStatistics
    fixed: tuple[str, ...]
    among: tuple[Slope, ...]
    carriers: tuple[str, ...]
    data: _core.NestedData

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    # what is known without slopes

    @property
    def slopes(self) -> tuple[Slope, ...]:
        """Random slopes."""
        return self.among

    @property
    def counted(self) -> tuple[float, ...]:
        """Units of each level."""
        return self.plain.redrawn(self.data).counted

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the lowest clusters, ascending."""
        return self.plain.redrawn(self.data).sizes

    @property
    def counts(self) -> Floats:
        """How many of the lowest clusters there are of each size."""
        return self.plain.redrawn(self.data).counts

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return self.plain.nvalues

    @property
    def total_mean(self) -> Floats:
        """Means over the units of the level that each variable is measured on."""
        return self.plain.total_mean

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on each level."""
        return self.plain.covariances(*names)

    def with_variables(self, variables: Variables) -> NestedSlopeStatistics:
        """The same; of other variables always `UnsupportedError`."""
        if variables != self.variables:
            refuse("statistics of some of the variables")
        return self

    def redrawn(self, drawn: Any, variables: Variables | None = None) -> NestedSlopeStatistics:
        """Other data of the same variables, as those of a replicate."""
        return replace(self, data=drawn)

    def with_slopes(  # type: ignore[override]
        self, slopes: Sequence[Slope], carriers: Sequence[str]
    ) -> NestedSlopeStatistics:
        """The same sample for other slopes of the same covariates."""
        known = {slope.covariate: place for slope, place in zip(self.among, self.data.slopes, strict=True)}
        places = [(*known[slope.covariate][:4], [level - 1 for level in slope.at]) for slope in slopes]
        designs = [own[1:] for own in self.data.design[1:]]
        given = [self.variables.names.index(name) for name in self.fixed]
        return replace(
            self,
            among=tuple(slopes),
            carriers=tuple(carriers),
            data=self.data.with_slopes(places, designs, given),
        )

    def completed(self, rows: Rows) -> NestedSlopeStatistics:  # type: ignore[override]
        """The same where nothing is missing; otherwise `UnsupportedError`."""
        if not self.complete:
            refuse("fractions of missing information of three levels")
        return self

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("fits of one level")

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn from a fit of more than two levels")

    # the likelihood

    def new_clusters(self, rows: Rows) -> NestedClusters:
        """Clusters of new rows of the same variables, for scores."""
        return NestedClusters(rows.nested_with_slopes(self.variables, self.fixed, self.among), rows.sampled)

    @cached_property
    def stand_in(self) -> Saturated:
        """Moments to start from: the saturated ones without slopes, and small variances of these."""
        found = solve_saturated(self.plain)
        known = dict(zip(self.plain.names, self.plain.total_mean, strict=True))
        moments = self.plain.covariances(*self.variables.measured)
        variance = {
            name: float(cov[k, k])
            for own, cov in zip(self.variables.measured, moments, strict=True)
            for k, name in enumerate(own)
        }
        exact = self.plain.covariances(*self._covariates)
        levels = {}
        for level, own in found.levels.items():
            among = [slope for slope in self.among if level in (slope.level, *slope.at)]
            products = [slope for slope in among if slope.level == level]
            n, m = len(own.names), len(among)
            cov, mean = np.zeros((n + m, n + m)), np.zeros(n + m)
            cov[:n, :n], mean[:n] = own.cov, own.mean
            at = [own.names.index(name) for name in self._covariates[level - 1]]
            cov[np.ix_(at, at)] = exact[level - 1]
            mean[at] = [known[name] for name in self._covariates[level - 1]]
            for k, slope in enumerate([*products, *(slope for slope in among if slope.level != level)], n):
                carrier = self.carriers[self.among.index(slope)]
                crude = SMALL * variance[carrier] / variance[slope.covariate]
                cov[k, k] = 1.0 if slope.level == level else crude
            names = [f"{slope.name}*{slope.covariate}" for slope in products]
            names += [slope.name for slope in among if slope.level != level]
            levels[level] = LevelArrays((*own.names, *names), mean, cov, n)
        return Saturated(levels, np.nan, 0, converged=False)

    @property
    def _covariates(self) -> list[list[str]]:
        """Fixed covariates of each level."""
        return [[name for name in own if name in self.fixed] for own in self.variables.measured]

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> NestedStatistics:
        """Those of a model without slopes; see `Statistics.expected`."""
        return self.plain.expected(levels, variables, source, rows)


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
    for slope in slopes:
        if slope.covariate not in variables.measured[slope.level - 1]:
            raise DataError(
                f"covariate {slope.covariate!r} of the random slope {slope.name!r} is not measured on level "
                f"{slope.level}"
            )
        names: list[list[str]] = [[] for _ in variables.levels]
        names[slope.level - 1] = [slope.covariate]
        variance = plain.covariances(*names)[slope.level - 1][0, 0]
        mean = plain.total_mean[variables.names.index(slope.covariate)]
        require_near(slope.covariate, float(mean), float(np.sqrt(variance)))
    reduced = data.nested_with_slopes(variables, fixed, slopes)
    return NestedSlopeStatistics(plain, tuple(fixed), tuple(slopes), tuple(carriers), reduced)
