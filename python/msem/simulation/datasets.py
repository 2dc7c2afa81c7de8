"""Samples that are drawn when they are asked for, as data frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.model.variables import Variables
from msem.simulation.designs import Clusters

Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class DrawnData(Sequence[pd.DataFrame]):
    """Data of samples number 0, 1, ... of a simulation; immutable. A sample is drawn when it is asked for.

    Attributes
    ----------
    variables : Variables
    labels : tuple of str
        Of the groups; empty for one group.
    clusters : tuple of Clusters
        Of each group.
    draws : _core.RowDraws
    numbers : range
        Numbers of the samples in the streams of the seed.
    seed : int
    cluster, group : str
        Names of the columns with clusters, numbered through all groups, and groups.
    """

    variables: Variables
    labels: tuple[str, ...]
    clusters: tuple[Clusters, ...]
    draws: _core.RowDraws
    numbers: range
    seed: int
    cluster: str = "cluster"
    group: str = "group"

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> pd.DataFrame: ...
    @overload
    def __getitem__(self, index: slice) -> DrawnData: ...
    def __getitem__(self, index: int | slice) -> pd.DataFrame | DrawnData:
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        number, first = self.numbers[index], 0
        parts = []
        for k, clusters in enumerate(self.clusters):
            part = self._group(number, k, first)
            parts.append(part.assign(**{self.group: self.labels[k]}) if self.labels else part)
            first += clusters.nclusters
        return pd.concat(parts, ignore_index=True)

    def _group(self, number: int, group: int, first: int) -> pd.DataFrame:
        """Rows of one group; its clusters are numbered from first + 1."""
        unit, cluster, _ = self.variables.roles
        drawn, of_clusters = self.draws.rows(number, group)
        if not unit:
            return pd.DataFrame(of_clusters, columns=list(cluster))
        codes = np.repeat(np.arange(len(of_clusters)), self.clusters[group].sizes)
        frame = pd.DataFrame(np.hstack([drawn, of_clusters[codes]]), columns=[*unit, *cluster])
        frame.insert(0, self.cluster, codes + first + 1)
        return frame

    def __repr__(self) -> str:
        return f"<msem.DrawnData: {len(self)} samples of {', '.join(self.variables.names)}, seed {self.seed}>"


@dataclass(frozen=True, eq=False)
class DrawnCrossed(Sequence[pd.DataFrame]):
    """Data of samples of two crossed classifications, with the pairs of clusters of a sample; immutable.

    Attributes
    ----------
    variables : Variables
    labels : tuple of str
        Of the groups; empty for one group.
    identifiers : tuple of DataFrame
        Clusters of the rows of each group, by their ids, a column for each classification, that of level 2 first.
    codes : tuple of (ndarray of int, ndarray of int)
        The same by number.
    draws : _core.CrossedRowDraws
    numbers : range
        Numbers of the samples in the streams of the seed.
    seed : int
    group : str
        Name of the column with groups.
    """

    variables: Variables
    labels: tuple[str, ...]
    identifiers: tuple[pd.DataFrame, ...]
    codes: tuple[tuple[Codes, Codes], ...]
    draws: _core.CrossedRowDraws
    numbers: range
    seed: int
    group: str = "group"

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> pd.DataFrame: ...
    @overload
    def __getitem__(self, index: slice) -> DrawnCrossed: ...
    def __getitem__(self, index: int | slice) -> pd.DataFrame | DrawnCrossed:
        if isinstance(index, slice):
            return replace(self, numbers=self.numbers[index])
        parts = []
        for k, known in enumerate(self.identifiers):
            units, *of_clusters = self.draws.rows(self.numbers[index], k)
            columns = {name: units[:, i] for i, name in enumerate(self.variables.unit)}
            for own, values, codes in zip(
                self.variables.measured[1:], of_clusters, self.codes[k], strict=True
            ):
                columns |= {name: values[codes, i] for i, name in enumerate(own)}
            part = pd.concat([known.reset_index(drop=True), pd.DataFrame(columns)], axis=1)
            parts.append(part.assign(**{self.group: self.labels[k]}) if self.labels else part)
        return pd.concat(parts, ignore_index=True)

    def __repr__(self) -> str:
        return (
            f"<msem.DrawnCrossed: {len(self)} samples of {', '.join(self.variables.names)}, seed {self.seed}>"
        )
