"""Sufficient statistics of samples with holes: what full-information maximum likelihood needs of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.complete import SAME, SampleStatistics, level_statistics, positions, sizes_of
from msem.data.complete_clusters import ClusterArrays, RowArrays
from msem.data.kinds import AtMostTwoLevels, CountedClusters, WithoutSlopes
from msem.data.rows import ClusteredData, cluster_codes, columns_of
from msem.data.screening import (
    COLLINEAR,
    Finding,
    dependent,
    first_dependence,
    report,
    require_constant_within,
    require_scale,
    seldom_observed,
    undivided,
    unobserved,
    unvarying,
    unvarying_between,
    unvarying_within,
)
from msem.data.statistics import Clusters, Design, Rows
from msem.data.survey import Sampled
from msem.errors import DataError
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

# Clusters that must have two variables for their covariance between clusters.
FEWEST = 2
# Standard deviation relative to the mean below which values are compared one by one: rounding may be all there is.
SUSPECT = 1e-6
# Patterns, those with most units, in which variables are held to be collinear or not.
MOST_PATTERNS = 8
FEW_CLUSTERS = 4096  # of them that are looked at first


@dataclass(frozen=True, eq=False)
class IncompleteStatistics(AtMostTwoLevels, WithoutSlopes):
    """Statistics of a sample with holes, for p unit variables and q cluster variables; see `SampleStatistics`.

    Attributes
    ----------
    variables : Variables
        As in `SampleStatistics`. A single-level sample has no unit variables: every row is a cluster.
    data : _core.IncompleteData
        Patterns of observed variables, and the cells of units of a cluster that share one.
    by_cluster : _core.IncompleteData or None
        The rows of a single-level sample by cluster, where it has clusters.
    source : str
        "data".
    """

    variables: Variables
    data: _core.IncompleteData
    by_cluster: _core.IncompleteData | None = None
    source: str = "data"
    complete = False

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @property
    def nobs(self) -> float:
        """Units with anything observed; rows of a single-level sample."""
        return self.data.nobs if self.unit else self.nclusters

    @cached_property
    def nclusters(self) -> float:
        """Clusters in which anything is observed; rows of a single-level sample."""
        d = self.data
        own = np.logical_or.reduce(
            d.cluster_patterns, axis=1
        )  # by pattern, whether the cluster has a variable
        observed = own[d.cluster_pattern] | (d.sizes > 0)
        return float(d.weight @ observed)

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

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return float(self.observed[0].sum())

    @property
    def total_mean(self) -> Floats:
        """Means of the observed values, over units of the unit variables, over clusters of the cluster variables."""
        return self.observed[1]

    @cached_property
    def _coverage(self) -> tuple[Floats, Floats]:
        return self.data.coverage()

    @property
    def coverage_within(self) -> Floats:
        """Units that have both of two unit variables, shape (p, p)."""
        return self._coverage[0]

    @property
    def coverage_between(self) -> Floats:
        """Clusters that have both of two variables, each in some unit or of its own, shape (p + q, p + q)."""
        return self._coverage[1]

    def likelihood(self, *, by_cluster: bool = False) -> _core.IncompleteLikelihood:
        """The compiled likelihood; see `Statistics.likelihood`."""
        return self._likelihood_of_units if by_cluster else self._likelihood

    @cached_property
    def _likelihood(self) -> _core.IncompleteLikelihood:
        return _core.IncompleteLikelihood(self.data)

    @cached_property
    def _likelihood_of_units(self) -> _core.IncompleteLikelihood:
        return _core.IncompleteLikelihood(self.data if self.by_cluster is None else self.by_cluster)

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Always `DataError`: clusters of one size differ by their holes."""
        raise DataError("statistics of data with missing values are not those of clusters by size")

    @property
    def npatterns(self) -> tuple[int, ...]:
        """Patterns of observed variables of each level, level 1 first."""
        own = len(self.data.cluster_patterns)
        return (len(self.data.unit_patterns), own) if self.unit else (own,)

    def clusters(self, rows: Rows) -> IncompleteClusters:
        """Independent units of the rows; see `Statistics.clusters`."""
        if self.unit:
            products = rows.cell_products(self.unit, self.data)
            return IncompleteClusters(self.data, products, sampled=rows.sampled)
        if self.by_cluster is None:
            return IncompleteClusters(self.data, np.empty((0, 0)), sampled=rows.sampled)
        products = rows.cell_products(self.cluster, self.by_cluster)
        return IncompleteClusters(self.by_cluster, products, (self.data, rows.cluster_of_row), rows.sampled)

    def marginal(
        self, names: Sequence[Sequence[str]], rows: Rows
    ) -> tuple[IncompleteStatistics, IncompleteClusters]:
        """Statistics and clusters of some of the variables, each at one level only."""
        unit, cluster = names
        part = self.with_variables(Variables.of_units_and_clusters(unit, cluster, 0))
        return part, part.clusters(rows)

    def centred(self) -> IncompleteStatistics:
        """The statistics as they are: a likelihood of rows with holes needs means."""
        return self

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> SampleStatistics:
        """Statistics that complete data with these moments would have; see `Statistics.expected`."""
        return level_statistics(levels, variables, *sizes_of(self, rows), source)

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables without holes, measured on units and on clusters."""
        unit, cluster = names
        rows, columns = positions(unit, self.unit), positions(cluster, self.cluster)
        return self.data.restrict(rows, columns, 0).total_cov()

    def difference(self, other: IncompleteStatistics) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        sd = np.sqrt(self.observed[2])
        for what, mine, theirs, unit in zip(
            ("numbers of observed values", "means", "variances"),
            self.observed,
            other.observed,
            (np.ones_like(sd), sd, sd**2),
            strict=True,
        ):
            gap = np.abs(mine - theirs) / unit
            if gap.max() > SAME:
                return f"the {what} of '{self.names[int(gap.argmax())]}' differ"
        return ""

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`."""
        return Design.of_levels(_core.IncompleteParametricDraws, self.data, levels, self.variables, fixed)

    def redrawn(self, drawn: _core.IncompleteData) -> IncompleteStatistics:
        """The statistics of a replicate that the core has drawn."""
        return replace(self, data=drawn, by_cluster=None)

    @cached_property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated covariances that the data say nothing about, by name; ``.l2``: between.

        Those of unit variables that no unit has both of, and of variables that fewer than two clusters have both of.
        """
        p, suffix = len(self.unit), ".l2" if self.unit else ""
        return (
            *self._too_few(range(p), self.coverage_within, 1, ""),
            *self._too_few(self.variables.numbers[-1], self.coverage_between, FEWEST, suffix),
        )

    def _too_few(self, among: Sequence[int], coverage: Floats, fewest: int, suffix: str) -> list[str]:
        """Names of covariances of variables that fewer than `fewest` units or clusters have both of."""
        pairs = itertools.combinations(among, 2)
        return [f"{self.names[i]}~~{self.names[j]}{suffix}" for i, j in pairs if coverage[i, j] < fewest]

    def with_variables(self, variables: Variables) -> IncompleteStatistics:
        """Statistics of some of the variables; see `Statistics.with_variables`."""
        rows, columns = positions(variables.unit, self.unit), positions(variables.cluster, self.cluster)
        grouped = None if self.by_cluster is None else self.by_cluster.restrict(columns, [], 0)
        data = self.data.restrict(rows, columns, len(variables.both))
        return replace(self, variables=variables, data=data, by_cluster=grouped)


def incomplete_statistics(
    data: ClusteredData, variables: Variables, *, found: list[Finding] | None = None
) -> IncompleteStatistics:
    """Statistics of two-level data with holes; parameters as in `sample_statistics`.

    Variables that are never observed together are no error: see `IncompleteStatistics.unidentified`.

    Raises
    ------
    DataError
        If the data cannot tell the levels of these variables apart: fewer than two clusters, or clusters of one unit, a
        variable without observed values at a level, constant, collinear or at the wrong level.
    """
    unit, cluster = variables.unit, variables.cluster
    codes, J = cluster_codes(data), len(data.clusters)
    _, varying = _core.cluster_values(columns_of(data, cluster), codes, J)
    counts = None if data.sampled is None else data.sampled.weights
    columns = columns_of(data, unit), columns_of(data, cluster)
    core = _core.incomplete_data(*columns, codes, J, len(variables.both), data.weights, counts)
    out = IncompleteStatistics(variables, core)
    filled = int((core.sizes > 0).sum())
    report(unobserved(out.names, out.observed[0]), found)
    seen = data.informative(unit)
    nobs = data.nobs if seen is None else int(seen.sum())
    report(undivided(nobs, filled, unit), found)
    report(_unvarying(out, data), found)
    require_constant_within(cluster, varying, data.clusters)
    report(_confounded_levels(out, data), found)
    report(_dependent_units(out), found)
    report(_dependent_clusters(out), found)
    return out


def simple_incomplete(
    data: ClusteredData, variables: Sequence[str], *, found: list[Finding] | None = None
) -> IncompleteStatistics:
    """Statistics of single-level data with holes: the rows are clusters of size one.

    Raises
    ------
    DataError
        If a variable has no observed values or is constant, or variables are collinear.
    """
    columns = columns_of(data, variables)
    rows = np.arange(len(columns[0]), dtype=np.int64)
    core = _core.incomplete_data([], columns, rows, len(rows), 0, None, data.weights)
    grouped = None
    if data.codes is not None:
        grouped = _core.incomplete_data(columns, [], data.codes, len(data.clusters), 0, data.weights)
    out = IncompleteStatistics(Variables.of_one_level(variables), core, grouped)
    report(unobserved(variables, out.observed[0]), found)
    report(_unvarying(out, data), found)
    report(_dependent_clusters(out), found)
    return out


def _unvarying(statistics: IncompleteStatistics, data: ClusteredData) -> Iterator[Finding]:
    """Variables whose observed values are all the same; refuses units that cannot be computed with."""
    _, mean, variance = statistics.observed
    require_scale(statistics.names, variance)
    suspect = np.flatnonzero(np.sqrt(variance) <= SUSPECT * np.abs(mean))
    return unvarying({statistics.names[k]: _values(data, statistics.names[k]) for k in suspect})


def _values(data: ClusteredData, name: str) -> Floats:
    """Observed values of a variable."""
    column = data.columns[name]
    return column[~np.isnan(column)]


def _confounded_levels(statistics: IncompleteStatistics, data: ClusteredData) -> Iterator[Finding]:
    """Variables with too few values, or without variance, at a level they are used at."""
    unit, both, p = statistics.unit, statistics.variables.both, len(statistics.unit)
    count, mean, _ = statistics.observed
    clusters, within, between = statistics.data.level_variation()
    own = np.concatenate([clusters, count[p:]])
    lacking = list(seldom_observed(statistics.variables, count, own))
    yield from lacking
    some = [k for k in range(p) if count[k] and not any(unit[k] in one.names for one in lacking)]
    with np.errstate(divide="ignore", invalid="ignore"):  # of variables that are not looked at
        size = np.abs(mean[:p]) + np.sqrt(between / clusters)
        suspect = np.sqrt(within / count[:p]) <= SUSPECT * size
    constant = [bool(suspect[k]) and _constant_within(data, unit[k]) for k in some]
    names = [unit[k] for k in some]
    yield from unvarying_within(names, both, constant, within[some], count[some], size[some])
    at = [k for k in some if unit[k] in both]
    names = [unit[k] for k in at]
    yield from unvarying_between(names, within[at], between[at], count[at], clusters[at])


def _constant_within(data: ClusteredData, name: str) -> bool:
    """Whether the observed values of a variable are the same throughout every cluster."""
    _, ((count, _),) = _core.cluster_values(columns_of(data, [name]), cluster_codes(data), len(data.clusters))
    return not count


def _dependent_units(statistics: IncompleteStatistics) -> Iterator[Finding]:
    """Unit variables that depend on each other within clusters; those at level 1 only, over all units."""
    unit, p, variance = statistics.unit, len(statistics.unit), statistics.observed[2]
    d = statistics.data
    patterns, scatter = d.unit_patterns, d.scatter
    passing = [k for k in range(p) if unit[k] not in statistics.variables.both]
    seen = [np.flatnonzero(row) for row in patterns]
    df = d.pattern_rows - np.bincount(d.cell_pattern, minlength=len(patterns))
    for r in _largest(df):
        found = _dependent(scatter[r], df[r], variance[seen[r]], np.flatnonzero(np.isin(seen[r], passing)))
        if len(found):
            joint = seen[r][found]
            pooled = _within_products(statistics, joint)
            yield from dependent(pooled, [unit[k] for k in joint], " within clusters")
    for r in _largest(d.pattern_rows):
        joint = np.intersect1d(seen[r], passing)
        if len(joint) and d.pattern_rows[r] > len(joint):
            found = _dependent(_total_products(statistics, joint, [r]), d.pattern_rows[r], variance[joint])
            if len(found):
                joint = joint[found]
                total = _total_products(statistics, joint, _having(patterns, joint))
                yield from dependent(total, [unit[k] for k in joint], "")


def _having(patterns: NDArray[np.bool_], joint: Ints) -> Ints:
    """Patterns in which all these variables are observed."""
    return np.flatnonzero(np.logical_and.reduce(patterns[:, joint], axis=1))


def _within_products(
    statistics: IncompleteStatistics, joint: Ints, among: Sequence[int] | Ints | None = None
) -> Floats:
    """Products of unit variables about the means of cells, summed over the patterns that have all of them."""
    d = statistics.data
    every = _having(d.unit_patterns, joint) if among is None else among
    at = [np.searchsorted(np.flatnonzero(d.unit_patterns[k]), joint) for k in every]
    pooled: Floats = np.sum([d.scatter[k][np.ix_(i, i)] for k, i in zip(every, at, strict=True)], axis=0)
    return pooled


def _total_products(statistics: IncompleteStatistics, joint: Ints, among: Sequence[int] | Ints) -> Floats:
    """Products of unit variables about their means over all units of some patterns that have all of them."""
    d = statistics.data
    cells = np.flatnonzero(np.isin(d.cell_pattern, among))
    means, rows = d.cell_means[np.ix_(joint, cells)], d.cell_rows[cells]
    centred = means - (means @ rows / rows.sum())[:, None]
    total: Floats = _within_products(statistics, joint, among) + (centred * rows) @ centred.T
    return total


def _dependent_clusters(statistics: IncompleteStatistics) -> Iterator[Finding]:
    """Cluster variables that depend on each other; some clusters from all parts of a pattern raise the suspicion."""
    d, p = statistics.data, len(statistics.unit)
    variance, where = statistics.observed[2][p:], " in the cluster means" if p else ""
    patterns, own, values = d.cluster_patterns, d.cluster_pattern, d.cluster_values

    def scatter(names: Ints, clusters: Ints) -> Floats:
        chosen = values[:, clusters][names]
        centred = chosen - chosen.mean(axis=1, keepdims=True)
        products: Floats = centred @ centred.T
        return products

    for t in _largest(np.bincount(own, minlength=len(patterns))):
        seen, clusters = np.flatnonzero(patterns[t]), np.flatnonzero(own == t)
        clusters = clusters[:: max(1, len(clusters) // FEW_CLUSTERS)]
        found = _dependent(scatter(seen, clusters), len(clusters) - 1, variance[seen])
        if len(found):
            joint = seen[found]
            every = np.flatnonzero(np.logical_and.reduce(patterns[:, joint], axis=1)[own])
            yield from dependent(scatter(joint, every), [statistics.cluster[k] for k in joint], where)


def _largest(count: Floats | Ints) -> Ints:
    """The few patterns that occur most often."""
    return np.argsort(-count, kind="stable")[:MOST_PATTERNS]


def _dependent(scatter: Floats, df: float, variance: Floats, passing: Ints | tuple[()] = ()) -> Ints:
    """Positions of a variable and of those that determine it in one pattern, none if there is no such variable.

    Such a relation need not hold in other patterns, and among variables that are all `passing` it does not count.
    Variables that do not vary in this one say nothing.
    """
    none = np.empty(0, dtype=np.intp)
    if df <= len(scatter):
        return none
    varies = np.flatnonzero(np.diag(scatter) > COLLINEAR * df * variance)
    found = first_dependence(scatter[np.ix_(varies, varies)], np.flatnonzero(np.isin(varies, passing)))
    return none if found is None else varies[[*found[1], found[0]]]


@dataclass(frozen=True, eq=False)
class IncompleteClusters(CountedClusters):
    """The clusters of a sample with holes; see `ClusterArrays` for complete ones.

    Attributes
    ----------
    data : _core.IncompleteData
        Cells of units with the same variables observed.
    within : ndarray, shape (p (p + 1) / 2, cells)
        Products about the means of each cell, the lower triangle column by column; zero where nothing is observed.
    rows : tuple of _core.IncompleteData and ndarray, or None
        Rows of a single level that are taken together by cluster, and the cluster of each.
    sampled : Sampled or None
        How the clusters were sampled.
    """

    data: _core.IncompleteData
    within: Floats
    rows: tuple[_core.IncompleteData, NDArray[np.int64]] | None = None
    sampled: Sampled | None = None

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

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """The clusters as the core knows them: of the compiled likelihood of their sample."""
        return likelihood.clusters(self.within)

    def posterior(
        self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]
    ) -> _core.IncompleteGroup:
        """The clusters with model-implied moments, for scores of latent variables and distances."""
        return _core.IncompleteGroup(moments, self.data, self.within)

    def pool(self, order: NDArray[np.intp]) -> partial[_core.IncompletePool]:
        """The clusters in some order, for the core to draw from; rows of a single level are drawn by cluster."""
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        if self.rows is None:
            return partial(_core.IncompletePool, self.data, self.within, place)
        data, codes = self.rows
        return partial(_core.IncompletePool, data, np.empty((0, 0)), place[codes])


def clusters_of_rows(data: ClusteredData, variables: Variables) -> Clusters:
    """Clusters of any rows with these variables, with holes or without; the rows themselves for a single level.

    Raises
    ------
    DataError
        If a variable of clusters varies within one.
    """
    unit, cluster = variables.unit, variables.cluster
    if not unit and data.complete:
        return RowArrays(columns_of(data, cluster))
    columns = columns_of(data, cluster)
    if not unit:
        codes = np.arange(len(columns[0]), dtype=np.int64)
        return IncompleteClusters(_core.incomplete_data([], columns, codes, len(codes), 0), np.empty((0, 0)))
    codes, count = cluster_codes(data), len(data.clusters)
    require_constant_within(cluster, _core.cluster_values(columns, codes, count)[1], data.clusters)
    if data.complete:
        return ClusterArrays(*data.cluster_arrays(unit, cluster))
    core = _core.incomplete_data(columns_of(data, unit), columns, codes, count, len(variables.both))
    return IncompleteClusters(core, data.cell_products(unit, core))
