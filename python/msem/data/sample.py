"""A sample as estimation sees it: groups of statistics, with the rows they were made of if there are any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.clusters import ClusterStatistics
from msem.data.rows import ClusteredData
from msem.data.saturated import solve_in_space
from msem.data.screening import Finding
from msem.data.statistics import Clusters, Rows, Saturated, Statistics
from msem.data.survey import Design, Replication, Sampled, shared_design
from msem.errors import DataError, UnsupportedError
from msem.model.levels import level_name
from msem.settings import Space

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """The statistics of one group, and where they come from.

    Attributes
    ----------
    statistics : Statistics
    label : str
        "" for a sample of one group.
    data : ClusteredData or None
        The rows, when there are any.
    summary : ClusterStatistics or None
        What the statistics were taken from, when that is a summary of rows.
    given_as : str
        What the sample was given as, in words.
    maximum : bool
        False for statistics implied by moments that are themselves no maximum of a saturated likelihood: those moments
        then count as not converged although they are the maximum for these statistics.
    findings : tuple of Finding
        What the group by itself could not be used for.
    space : {"auto", "natural", "psd"}
        Where saturated moments are looked for; "auto" is "natural" where that has a maximum.
    """

    statistics: Statistics
    label: str = ""
    data: ClusteredData | None = None
    summary: ClusterStatistics | None = None
    given_as: str = "raw data"
    maximum: bool = True
    findings: tuple[Finding, ...] = ()
    space: Space = "auto"

    @cached_property
    def saturated(self) -> Saturated:
        """Saturated moments, estimated when they are asked for first."""
        s = self.statistics
        maximum = self.maximum and not s.unidentified
        found = solve_in_space(s, self.space if maximum or self.space == "psd" else "natural")
        return replace(found, converged=found.converged and maximum)

    def moved(self, space: Space) -> Group:
        """The same group for saturated moments of another space; those in the cone are known of "auto" already."""
        out = replace(self, space=space)
        known = vars(self).get("saturated")
        if known is not None and known.in_cone and space == "psd":
            vars(out)["saturated"] = known
        return out

    @property
    def llf(self) -> float:
        """Saturated log-likelihood of all variables; nan if the saturated model has not converged."""
        return self.saturated.llf if self.saturated.converged else np.nan

    @property
    def levels(self) -> Mapping[int, LevelArrays]:
        """Saturated moments by level; level 1 only for a single-level sample."""
        return self.saturated.levels

    @property
    def place(self) -> str:
        """Where in a sample of several groups this is, as an addition to a text."""
        return f" in group {self.label!r}" if self.label else ""

    @property
    def shortage(self) -> str:
        """How few rows or clusters there are for how many variables, where too few for a maximum; or nothing."""
        s = self.statistics
        levels, several = s.variables.levels, bool(s.unit)
        counts = s.counted[-len(levels) :]
        for level in range(len(levels), int(several), -1):
            count, names = counts[level - 1], levels[level - 1]
            if count <= len(names):
                where = level_name(level, len(levels)).replace(" ", "-") + " " if several else ""
                return f"{count:.0f} {'clusters' if several else 'rows'} for {len(names)} {where}variables"
        both, free = s.variables.both, counts[0] - max(counts[1:], default=0)
        if both and free < len(both):
            return f"{free:.0f} degrees of freedom within clusters for {len(both)} variables"
        return ""

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

    def require_source(self) -> Rows:
        """The rows, or what was kept of their clusters; `DataError` without any."""
        return self.rows if self.source is None else self.source

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

    @cached_property
    def clusters(self) -> Clusters:
        """Statistics of the single clusters: of the rows if a single-level sample has no clusters.

        Raises
        ------
        DataError
            Without raw data, or a summary that has kept its clusters.
        """
        return self.statistics.clusters(self.require_source())

    @property
    def sampled(self) -> Sampled | None:
        """How the clusters, or rows without clusters, were sampled; None for a simple sample."""
        return None if self.source is None else self.source.sampled

    @property
    def nobs(self) -> float:
        """Units, not counted by their weights."""
        if self.source is None or self.sampled is None:
            return self.statistics.nobs
        return float(self.source.nobs)

    @property
    def nlevel2(self) -> float:
        """Units of the highest level, not counted by their weights."""
        if self.source is None or self.sampled is None:
            return self.statistics.nclusters
        return float(self.source.cluster_count or self.source.nobs)

    def middle_units(self, level: int) -> float:
        """Clusters of a level below the highest, not counted by their weights."""
        if self.source is None or self.sampled is None:
            return self.statistics.counted[level - 1]
        return float(self.source.clusters_of(level))

    @property
    def weight_totals(self) -> Floats:
        """Sums of weights of units, of their squares, of weights of clusters and of theirs; see `Rows`."""
        return self.require_source().weight_totals

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


@dataclass(frozen=True, eq=False, kw_only=True)
class IndefiniteGroup(Group):
    """Moments that need not be those of any sample; starting values take their unit from elsewhere."""

    moments: Saturated
    unit: Mapping[str, float]

    @cached_property
    def saturated(self) -> Saturated:
        """The moments that are given."""
        return self.moments

    @property
    def total_variance(self) -> dict[str, float]:
        """Positive even where the variance of this level is not."""
        return dict(self.unit)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a sample comes from, and what of it was left out.

    Attributes
    ----------
    given_as : str
        What the sample was given as: raw data, moments with cluster sizes, moments with N and J only.
    dropped_rows, dropped_no_cluster, dropped_no_group : int
        Rows left out because a variable, the cluster id, or the group was missing.
    dropped_empty : int
        Rows left out because nothing was observed in them, where rows with missing values are kept.
    dropped : mapping of str to int
        Rows in which each variable was missing.
    dropped_zero : int
        Rows left out because their weight is zero.
    nrows : int
        Rows as given; 0 where that is not known.
    """

    given_as: str = "raw data"
    dropped_rows: int = 0
    dropped_empty: int = 0
    dropped_no_cluster: int = 0
    dropped_no_group: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_zero: int = 0
    nrows: int = 0


@dataclass(frozen=True, eq=False)
class Sample:
    """The groups of a sample.

    Attributes
    ----------
    groups : tuple of Group
    without_group : int
        Rows left out because their group is missing.
    """

    groups: tuple[Group, ...]
    without_group: int = 0

    @classmethod
    def of(
        cls,
        *statistics: Statistics,
        labels: Sequence[str] = (),
        given_as: str = "raw data",
        maximum: bool = True,
    ) -> Sample:
        """A sample of statistics without rows, labelled if there are several groups; see `Group`."""
        pairs = zip(statistics, labels or [""] * len(statistics), strict=True)
        return cls(tuple(Group(s, name, given_as=given_as, maximum=maximum) for s, name in pairs))

    @cached_property
    def origin(self) -> Origin:
        """Where the data of all groups come from, and what was left out of them."""
        rows = [group.source for group in self.groups if group.source is not None]
        missing = Counter[str]()
        for data in rows:
            missing.update(data.dropped)
        return Origin(
            given_as=self.groups[0].given_as,
            dropped_rows=sum(data.dropped_rows for data in rows),
            dropped_empty=sum(data.dropped_empty for data in rows),
            dropped_no_cluster=sum(data.dropped_no_cluster for data in rows),
            dropped_no_group=self.without_group,
            dropped=dict(missing),
            dropped_zero=sum(data.dropped_zero for data in rows),
            nrows=sum(g.data.nrows for g in self.groups if g.data is not None) + self.without_group,
        )

    @cached_property
    def statistics(self) -> tuple[Statistics, ...]:
        """Sufficient statistics of each group."""
        return tuple(group.statistics for group in self.groups)

    @property
    def nobs(self) -> float:
        """Units of all groups."""
        return sum(group.nobs for group in self.groups)

    @property
    def nclusters(self) -> float:
        """Clusters of all groups."""
        return sum(group.nlevel2 for group in self.groups)

    def units_of(self, level: int) -> float:
        """Units of a level in all groups, not counted by their weights."""
        nlevels = len(self.statistics[0].variables.levels)
        if level == 1:
            return self.nobs
        if level == nlevels:
            return self.nclusters
        return sum(group.middle_units(level) for group in self.groups)

    @property
    def design(self) -> Design | Replication | None:
        """PSUs and strata, or replicate weights; None where the clusters, or rows without clusters, are independent."""
        return None if self.simple else shared_design([group.sampled for group in self.groups])

    @property
    def simple(self) -> bool:
        """Whether there are neither weights nor PSUs nor strata."""
        return all(group.sampled is None for group in self.groups)

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return all(s.complete for s in self.statistics)

    @cached_property
    def llf(self) -> float:
        """Saturated log-likelihood of all variables; nan if the saturated model of a group has not converged."""
        return sum(group.llf for group in self.groups)

    @cached_property
    def converged(self) -> bool:
        """Whether the saturated moments of all groups are maxima."""
        return all(group.saturated.converged for group in self.groups)

    @property
    def shortage(self) -> str:
        """Which group has too few rows or clusters for its saturated model to have a maximum; or nothing."""
        return next((f"{group.shortage}{group.place}" for group in self.groups if group.shortage), "")

    @property
    def space(self) -> Space:
        """Where saturated moments and models are looked for."""
        return self.groups[0].space

    @cached_property
    def in_cone(self) -> bool:
        """Whether all groups have saturated moments, and one has them among positive semidefinite matrices only."""
        return self.converged and any(group.saturated.in_cone for group in self.groups)

    def in_space(self, space: Space) -> Sample:
        """The same sample for models of another space: of all groups alike.

        Parameters
        ----------
        space : {"auto", "natural", "psd"}
        """
        here = self if space == self.space else self._moved(space)
        return here._moved("psd") if space == "auto" and here.in_cone else here

    def _moved(self, space: Space) -> Sample:
        return replace(self, groups=tuple(group.moved(space) for group in self.groups))

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated moments of any group that the data say nothing about, because of holes."""
        return tuple(dict.fromkeys(name for s in self.statistics for name in s.unidentified))

    @cached_property
    def levels(self) -> tuple[Mapping[int, LevelArrays], ...]:
        """Saturated moments of each group by level."""
        return tuple(group.levels for group in self.groups)

    @cached_property
    def clusters(self) -> tuple[Clusters, ...]:
        """Statistics of the single clusters of each group; `DataError` without raw data."""
        return tuple(group.clusters for group in self.groups)

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters of all groups, one after the other; see `Group.identifiers`."""
        names = [name for group in self.groups for name in group.identifiers]
        found: pd.Index[Any] = pd.Index(names, tupleize_cols=False)
        return found


def independent_units(sample: Sample) -> int:
    """Clusters, or rows without clusters, that variances come from; degrees of freedom and one with a design."""
    design = sample.design
    return sum(len(own.sizes) for own in sample.clusters) if design is None else design.df + 1


def require_simple(sample: Sample, what: str, remedy: str) -> None:
    """Refuse what takes a sample for a simple one, named in the plural, where it has weights, PSUs or strata.

    Raises
    ------
    UnsupportedError
    """
    if not sample.simple:
        raise UnsupportedError(
            f"{what} take the sample for a simple one, and this one has weights, primary sampling units or strata: "
            f"{remedy}"
        )
