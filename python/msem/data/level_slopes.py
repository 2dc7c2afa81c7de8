"""What statistics of more than two levels say of a model with random slopes.

What does not know of slopes is asked of the statistics that a model without slopes would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.crossed import CrossedStatistics
from msem.data.kinds import Augmented
from msem.data.nested import NestedStatistics
from msem.data.saturated import solve_saturated
from msem.data.slopes import SMALL, refuse, require_near
from msem.data.statistics import Clusters, Rows, Saturated, Statistics
from msem.errors import DataError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]


class WithSlopes(Augmented):
    """Statistics of nested clusters or crossed classifications for a model with random slopes.

    Attributes
    ----------
    plain : NestedStatistics or CrossedStatistics
        Those without slopes.
    fixed : tuple of str
        Fixed covariates of any level, which no slope reaches.
    among : tuple of Slope
        The random slopes, those of level 1 first.
    carriers : tuple of str
        An observed variable for each slope that has it as its outcome, or measures its outcome.
    data : _core.NestedData or _core.CrossedData
    """

    if TYPE_CHECKING:
        plain: CrossedStatistics | NestedStatistics
        fixed: tuple[str, ...]
        among: tuple[Slope, ...]
        carriers: tuple[str, ...]
        data: Any
        __dataclass_fields__: dict[str, Any]

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

    def with_variables(self, variables: Variables) -> Self:
        """The same; of other variables always `UnsupportedError`."""
        if variables != self.variables:
            refuse("statistics of some of the variables")
        return self

    def redrawn(self, drawn: Any, variables: Variables | None = None) -> Self:
        """Other data of the same variables, as those of a replicate."""
        changed: Self = replace(self, data=drawn)  # type: ignore[type-var]
        return changed

    def _places(self, slopes: Sequence[Slope]) -> list[_core._RandomSlope]:
        """Other slopes of the same covariates, for the core."""
        known = {slope.covariate: place for slope, place in zip(self.among, self.data.slopes, strict=True)}
        return [(*known[slope.covariate][:4], [level - 1 for level in slope.at]) for slope in slopes]

    @property
    def _given(self) -> list[int]:
        """Numbers of the fixed covariates."""
        return [self.variables.names.index(name) for name in self.fixed]

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[Any, Clusters]:
        """Statistics and clusters of variables that no slope reaches, each at one level only."""
        return self.plain.marginal(names, rows)

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
    ) -> Statistics:
        """Those of a model without slopes; see `Statistics.expected`."""
        return self.plain.expected(levels, variables, source, rows)


def require_covariates(plain: CrossedStatistics | NestedStatistics, slopes: Sequence[Slope]) -> None:
    """Refuse covariates that are not measured on the level of the path, or so far from their origin that none is left.

    Raises
    ------
    DataError
    """
    variables = plain.variables
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
