"""A sample as estimation sees it: statistics and saturated moments of every group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.clusters import ClusterStatistics
from msem.data.frames import ClusteredData
from msem.data.saturated import solve_saturated
from msem.data.statistics import Clusters, Rows, Saturated, Statistics
from msem.errors import DataError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GroupSample:
    """Statistics of one group with its saturated moments.

    Attributes
    ----------
    statistics : SampleStatistics or IncompleteStatistics
    saturated : Saturated
    data : ClusteredData or None
        The rows, when there are any.
    summary : ClusterStatistics or None
        What the statistics were taken from, when that is a summary of rows.
    label : str
        Name of the group.
    """

    statistics: Statistics
    saturated: Saturated
    data: ClusteredData | None = None
    summary: ClusterStatistics | None = None
    label: str = ""

    @property
    def llf(self) -> float:
        """Saturated log-likelihood of all variables; nan if the saturated model has not converged."""
        return self.saturated.llf if self.saturated.converged else np.nan

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated moments that the data say nothing about, because of holes."""
        return self.statistics.unidentified

    @property
    def levels(self) -> Mapping[int, LevelArrays]:
        """Saturated moments by level; level 1 only for a single-level sample."""
        return self.saturated.levels

    @property
    def total_variance(self) -> dict[str, float]:
        """Variance of each observed variable summed over levels."""
        out: dict[str, float] = {}
        for moments in self.levels.values():
            for name, variance in moments.variances.items():
                out[name] = out.get(name, 0.0) + max(variance, 0.0)
        return out

    @property
    def source(self) -> Rows | None:
        """The rows that the statistics were made of, or what was kept of their clusters; None without any."""
        return self.data if self.summary is None else self.summary

    @cached_property
    def clusters(self) -> Clusters:
        """Statistics of the single clusters: of the rows if a single-level sample has no clusters.

        Raises
        ------
        DataError
            Without raw data, or a summary that has kept its clusters.
        """
        return self.statistics.clusters(self.require_source())

    def require_source(self) -> Rows:
        """The rows, or what was kept of their clusters; `DataError` without any."""
        return self.rows if self.source is None else self.source

    @property
    def in_clusters(self) -> bool:
        """Whether rows, or a summary of rows, come in clusters, of one level or two."""
        return self.nclusters is not None

    @property
    def nclusters(self) -> int | None:
        """Clusters that the rows come in; None if they do not, or for moments."""
        return None if self.source is None else self.source.cluster_count

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters in the order of `clusters`; labels of the rows of a sample without clusters.

        Raises
        ------
        DataError
            Without raw data, or a summary that has kept its clusters.
        """
        return self.require_source().identifiers

    @property
    def rows(self) -> ClusteredData:
        """The rows the statistics were made of; `DataError` without raw data."""
        if self.data is None:
            raise DataError(
                "this needs raw data: moments and statistics do not tell one cluster from another; "
                'without them there are standard errors of information="observed" and "expected" and the '
                "likelihood-ratio test"
            )
        return self.data


@dataclass(frozen=True, eq=False)
class Sample:
    """The groups of a sample.

    Attributes
    ----------
    groups : tuple of GroupSample
    """

    groups: tuple[GroupSample, ...]

    @property
    def statistics(self) -> tuple[Statistics, ...]:
        """Sufficient statistics of each group."""
        return tuple(group.statistics for group in self.groups)

    @property
    def nobs(self) -> float:
        """Units of all groups."""
        return sum(group.statistics.nobs for group in self.groups)

    @property
    def nclusters(self) -> float:
        """Clusters of all groups."""
        return sum(group.statistics.nclusters for group in self.groups)

    @property
    def llf(self) -> float:
        """Saturated log-likelihood of all variables; nan if the saturated model of a group has not converged."""
        return sum(group.llf for group in self.groups)

    @property
    def converged(self) -> bool:
        """Whether the saturated moments of all groups are maxima."""
        return all(group.saturated.converged for group in self.groups)

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated moments of any group that the data say nothing about, because of holes."""
        return tuple(dict.fromkeys(name for group in self.groups for name in group.unidentified))

    @property
    def levels(self) -> tuple[Mapping[int, LevelArrays], ...]:
        """Saturated moments of each group by level."""
        return tuple(group.levels for group in self.groups)

    @cached_property
    def clusters(self) -> tuple[Clusters, ...]:
        """Statistics of the single clusters of each group; `DataError` without raw data."""
        return tuple(group.clusters for group in self.groups)

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters of all groups, one after the other; see `GroupSample.identifiers`."""
        names = [name for group in self.groups for name in group.identifiers]
        found: pd.Index[Any] = pd.Index(names, tupleize_cols=False)
        return found


def saturated_group(
    statistics: Statistics,
    *,
    maximum: bool = True,
    data: ClusteredData | None = None,
    summary: ClusterStatistics | None = None,
    label: str = "",
) -> GroupSample:
    """Single-level or two-level statistics with their saturated moments.

    `maximum` is False for statistics implied by moments that are themselves no maximum of a saturated likelihood:
    those moments then count as not converged although they are the maximum for these statistics.
    """
    saturated = solve_saturated(statistics)
    maximum = maximum and not statistics.unidentified
    saturated = replace(saturated, converged=saturated.converged and maximum)
    return GroupSample(statistics, saturated, data, summary, label)


def saturated_sample(statistics: Statistics, *, maximum: bool = True) -> Sample:
    """A sample of one group; see `saturated_group`."""
    return Sample((saturated_group(statistics, maximum=maximum),))
