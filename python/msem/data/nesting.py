"""Nested clusters as statistics are made of them: of rows, or of what was kept of the lowest clusters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.screening import Finding
from msem.data.survey import Sampled
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]

# Variables by level, the level of each, and of the clusters of each level but the first their values, parents, weights.
Frame = tuple[list[list[int]], list[int], list[Floats], list[list[int]], list[Floats]]


class NestedSource:
    """What has clusters within clusters; how their values are found is that of each kind."""

    if TYPE_CHECKING:

        @property
        def nobs(self) -> float:
            """Units."""

        @property
        def complete(self) -> bool:
            """Whether no value is missing."""

        @property
        def sampled(self) -> Sampled | None:
            """How the highest clusters were sampled; None for a simple sample."""

        @property
        def inner_ids(self) -> Mapping[str, pd.Index[Any]]:
            """Ids of the clusters within clusters by their column, the highest first; they may repeat."""

        def clusters_of(self, level: int) -> int:
            """Clusters of a level."""

        def labels_of(self, level: int) -> pd.Index[Any]:
            """Ids of the clusters of a level, which may repeat in different clusters above."""

        def constants(self, names: Sequence[str]) -> Iterator[Finding]:
            """Variables without any value, or with one only."""

        def varying_in(self, names: Sequence[str], level: int) -> Sequence[tuple[int, Sequence[int]]]:
            """Of each variable in how many clusters of a level it differs between units, and some of these."""

        def seen_rows(self, names: Sequence[str]) -> NDArray[np.bool_]:
            """Which of the variables each row has, shape (N, p); of rows with holes."""

        def unit_moments(self, names: Sequence[str]) -> list[tuple[float, float]]:
            """Mean and standard deviation of variables over units, not weighted: a point and a scale."""

        def _nested_frame(self, variables: Variables) -> Frame: ...

        def _nested_cells(self, frame: Frame, unit: Sequence[str]) -> _core.NestedData: ...

        def _nested_reduced(
            self,
            unit: Sequence[str],
            given: int,
            covariates: Sequence[str],
            moments: Sequence[tuple[float, float]],
        ) -> tuple[_core.ReducedData, Floats]:
            """Lowest clusters reduced for slopes of covariates less their mean over their spread, and their products.

            The last variables of `unit` are fixed covariates, as many as `given` says.
            """

    def nested(self, variables: Variables) -> _core.NestedData:
        """The statistics of nested clusters; see `NestedStatistics`."""
        return self._counted(self._nested_cells(self._nested_frame(variables), variables.unit))

    def nested_with_slopes(
        self, variables: Variables, fixed: Sequence[str], slopes: Sequence[Slope]
    ) -> _core.NestedData:
        """The statistics of nested clusters for a model with random slopes; see `NestedSlopeStatistics`."""
        covariates = [
            list(dict.fromkeys(slope.covariate for slope in slopes if slope.level == level))
            for level in range(1, len(variables.levels))
        ]
        frame, first = self._nested_frame(variables), covariates[0]
        # new rows may be so few that a covariate does not vary among them
        moments = [(mean, spread or 1.0) for mean, spread in self.unit_moments(first)]
        if first:
            unit = sorted(variables.unit, key=lambda name: name in fixed)
            given = sum(name in fixed for name in unit)
            reduced, products = self._nested_reduced(unit, given, first, moments)
            place = [variables.unit.index(name) for name in unit]
            data = _core.NestedData(*frame, reduced, products, place)
        else:
            data = self._nested_cells(frame, variables.unit)
        designs, scales = [], [moments]
        for own, names, values in zip(covariates[1:], variables.measured[1:], frame[2], strict=False):
            among = values[:, [names.index(name) for name in own]]
            mean, spread = among.mean(axis=0), among.std(axis=0)
            spread = np.where(spread > 0, spread, 1.0)
            designs.append(((among - mean) / spread).T)
            scales.append(list(zip(mean, spread, strict=True)))
        designs.append(np.empty((0, 0)))
        places = []
        for slope in slopes:
            number = covariates[slope.level - 1].index(slope.covariate)
            mean, spread = scales[slope.level - 1][number]
            at = [level - 1 for level in slope.at]
            places.append((slope.level - 1, 1 + number, float(mean), float(spread), at))
        given_names = [variables.names.index(name) for name in fixed]
        return self._counted(data.with_slopes(places, designs, given_names))

    def _counted(self, data: _core.NestedData) -> _core.NestedData:
        """The same with the highest clusters as often as they count; those that do not are left out."""
        of_highest = None if self.sampled is None else self.sampled.weights
        return data if of_highest is None else data.weighted(of_highest)
