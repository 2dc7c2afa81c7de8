"""Rows of the variables a model needs, with the clusters they come in and what they count for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import Bools, Floats
from msem.data.nesting import Frame, NestedSource
from msem.data.numbering import InnerClusters
from msem.data.screening import Finding, require_constant_within, unobserved, unvarying
from msem.data.shapes import Tree
from msem.data.survey import Sampled, whole_sizes
from msem.errors import DataError
from msem.model.slopes import Slope
from msem.model.variables import Variables

NO_IDS: pd.Index[Any] = pd.Index([])
LARGE = 32  # rows of a cluster, on average, beside which its products take little room


@dataclass(frozen=True)
class ClusteredData(NestedSource):
    """Rows of the variables a model needs, complete unless holes were allowed.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (N,)
        The variables, in the order asked for; read-only, and views of the frame where possible.
    codes : ndarray of int64, shape (N,), or None
        Cluster of each row, numbered 0..J-1 in order of first appearance; None without clusters.
    clusters : pandas.Index, length J
        The cluster ids in order of code; empty without clusters.
    nrows : int
        Rows of the frame as given.
    dropped : mapping of str to int
        Rows of the frame in which a variable is missing, for variables with any. Where holes are allowed: rows left out
        for it, without empty ones.
    dropped_rows : int
        Rows left out because a variable is missing, not counting those without a cluster id.
    dropped_no_cluster : int
        Rows left out because the cluster id is missing.
    dropped_empty : int
        Rows left out because nothing is observed in them, where holes are allowed.
    complete : bool
        Whether no value is missing.
    left_out : mapping of str to ndarray of int64
        Positions in the frame of the rows that were left out, by the reason why.
    lost_clusters : pandas.Index
        Ids of clusters of which no row is left, where holes are allowed.
    rows : ndarray of int64, shape (N,), or None
        Position of each row in the frame as given; None when no row was left out.
    index : pandas.Index
        Labels of the rows of the frame as given, for a frame that has them; otherwise their numbers.
    dropped_zero : int
        Rows left out because their weight is zero.
    weights : ndarray, shape (N,), or None
        How often each row counts.
    sampled : Sampled or None
        How the clusters, or rows without clusters, were sampled; None for a simple sample.
    replicates : ndarray, shape (N, R), or None
        Replicate weights of the rows.
    inner : mapping of str to InnerClusters
        Clusters within the clusters, by their column, the highest first.
    by_cluster : bool
        Whether statistics of single clusters will be asked for.
    """

    columns: Mapping[str, Floats]
    codes: NDArray[np.int64] | None
    clusters: pd.Index[Any]
    nrows: int
    dropped: Mapping[str, int]
    dropped_rows: int
    dropped_no_cluster: int
    dropped_empty: int = 0
    complete: bool = True
    left_out: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    lost_clusters: pd.Index[Any] = field(default_factory=lambda: NO_IDS)
    rows: NDArray[np.int64] | None = None
    index: pd.Index[Any] = field(default_factory=lambda: pd.RangeIndex(0))
    dropped_zero: int = 0
    weights: Floats | None = None
    sampled: Sampled | None = None
    replicates: Floats | None = None
    inner: Mapping[str, InnerClusters] = field(default_factory=dict)
    by_cluster: bool = False

    def filled(self) -> ClusteredData:
        """The same rows with means in the place of missing values, where it is of no account which values they are."""
        columns = {
            name: np.where(np.isnan(column), np.nanmean(column), column)
            for name, column in self.columns.items()
        }
        return replace(self, columns=columns, complete=True)

    @property
    def nobs(self) -> int:
        """Rows in use."""
        left_out = self.dropped_rows + self.dropped_no_cluster + self.dropped_empty + self.dropped_zero
        return self.nrows - left_out

    @property
    def cluster_count(self) -> int | None:
        """Clusters that the rows come in; None if they do not."""
        return None if self.codes is None else len(self.clusters)

    def clusters_of(self, level: int) -> int:
        """Clusters of a level."""
        inner = list(self.inner.values())[::-1]
        return len(inner[level - 2].parent) if level - 2 < len(inner) else len(self.clusters)

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters in the order of their statistics; labels of rows that come in no clusters."""
        if self.codes is not None:
            return self.clusters
        return self.index if self.rows is None else self.index[self.rows]

    @property
    def keeps_products(self) -> bool:
        """Products within every cluster follow from the rows."""
        return True

    @cached_property
    def clusters_first(self) -> bool:
        """Whether the statistics of the sample are best made of those of its clusters, which are kept.

        With weights, and where they will be asked for and take little room beside the rows.
        """
        large = self.codes is not None and self.nobs >= LARGE * len(self.clusters)
        return self.sampled is not None or (self.by_cluster and large)

    def cluster_arrays(self, unit: Sequence[str], cluster: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of every cluster, in order of the cluster codes; see `ClusterArrays`."""
        names = (tuple(unit), tuple(cluster))
        if names in self._arrays:
            return self._arrays[names]
        columns = columns_of(self, unit), columns_of(self, cluster)
        sizes, means, within = _core.cluster_arrays(
            *columns, cluster_codes(self), len(self.clusters), self.weights
        )
        arrays = sizes if self.weights is None else whole_sizes(sizes), means, within
        for array in arrays:
            array.flags.writeable = False
        if self.clusters_first:
            self._arrays[names] = arrays
        return arrays

    @cached_property
    def _arrays(self) -> dict[tuple[tuple[str, ...], ...], tuple[Floats, Floats, Floats]]:
        """Statistics of clusters that were asked for, where those of the sample are made of them."""
        return {}

    def values(self, names: Sequence[str]) -> Floats:
        """Values of variables, shape (N, p)."""
        columns = columns_of(self, names)
        out = np.empty((len(columns), self.nobs))
        for row, column in zip(out, columns, strict=True):
            row[:] = column
        return out.T

    @property
    def units_of_clusters(self) -> Floats:
        """Rows of each cluster, shape (J,)."""
        return np.bincount(cluster_codes(self), minlength=len(self.clusters)).astype(np.float64)

    def cluster_products(
        self, unit: Sequence[str], cluster: Sequence[str], origin: Floats, scale: Floats
    ) -> tuple[Floats, list[Floats]] | None:
        """Sums of products by size; None where rows do not come cluster by cluster, or need not be read again."""
        if self.clusters_first:
            return None
        columns = columns_of(self, unit), columns_of(self, cluster)
        return _core.products_of_rows(*columns, cluster_codes(self), len(self.clusters), origin, scale)

    def row_values(self, names: Sequence[str]) -> list[Floats]:
        """Values of each variable, shape (N,)."""
        return columns_of(self, names)

    @property
    def cluster_of_row(self) -> NDArray[np.int64]:
        """Number of the cluster of every row; `DataError` if they come in none."""
        return cluster_codes(self)

    def cell_products(self, names: Sequence[str], data: _core.IncompleteData) -> Floats:
        """Products within the cells of data with holes, by cluster; see `IncompleteClusters`."""
        return _core.cell_products(columns_of(self, names), cluster_codes(self), data, self.weights)

    @property
    def lowest(self) -> NDArray[np.int64]:
        """The lowest cluster of every row."""
        return list(self.inner.values())[-1].codes if self.inner else cluster_codes(self)

    @property
    def tree(self) -> Tree | None:
        """Rows of each lowest cluster, and the clusters that they are in; see `Rows.tree`."""
        if self.codes is None or any(clusters.crossed for clusters in self.inner.values()):
            return None
        return self.lowest_sizes, tuple(clusters.parent for clusters in list(self.inner.values())[::-1])

    @property
    def lowest_sizes(self) -> Floats:
        """Rows of the lowest clusters, shape (J,)."""
        return np.bincount(self.lowest).astype(np.float64)

    def codes_of(self, level: int) -> NDArray[np.int64]:
        """The cluster of a level of every row."""
        inner = [clusters.codes for clusters in self.inner.values()][::-1]
        return inner[level - 2] if level - 2 < len(inner) else cluster_codes(self)

    def up_to(self, level: int) -> ClusteredData:
        """The same rows in the clusters of a level as the highest, each of which counts once; without their ids."""
        plain = self.unweighted
        below = dict(list(plain.inner.items())[len(plain.inner) + 2 - level :])
        clusters = pd.RangeIndex(self.clusters_of(level))
        return replace(plain, codes=self.codes_of(level), clusters=clusters, inner=below)

    def ids_of(self, level: int, cluster: str) -> pd.Index[Any]:
        """Ids of the clusters of a level; of inner clusters with those of the clusters that they are in."""
        inner = list(self.inner.items())[::-1]
        if level - 2 >= len(inner):
            return self.clusters
        chosen = inner[level - 2 :]
        name, own = chosen[0]
        if own.crossed:
            return own.ids.rename(name)
        parent = np.arange(len(chosen[0][1].parent))
        columns: dict[str, Any] = {}
        for name, clusters in chosen:
            columns[name] = clusters.ids[parent]
            parent = clusters.parent[parent]
        columns[cluster] = self.clusters[parent]
        names = list(columns)[::-1]
        return pd.MultiIndex.from_arrays([columns[name] for name in names], names=names)

    def _nested_cells(self, frame: Frame, unit: Sequence[str]) -> _core.NestedData:
        columns, count = columns_of(self, unit), self.clusters_of(2)
        if self.complete:
            sizes, means, within = _core.cluster_arrays(columns, [], self.lowest, count, self.weights)
            return _core.NestedData(*frame, whole_sizes(sizes), means, within)
        cells = _core.incomplete_data(columns, [], self.lowest, count, 0, self.weights)
        products = _core.cell_products(columns, self.lowest, cells, self.weights)
        return _core.NestedData(*frame, cells, products)

    def _nested_reduced(
        self,
        unit: Sequence[str],
        given: int,
        covariates: Sequence[str],
        moments: Sequence[tuple[float, float]],
    ) -> tuple[_core.ReducedData, Floats]:
        columns, count, none = columns_of(self, unit), self.clusters_of(2), np.empty(0)
        design = [
            (self.columns[name] - mean) / spread
            for name, (mean, spread) in zip(covariates, moments, strict=True)
        ]
        numbers = list(range(1, len(covariates) + 1))
        reduced = _core.ReducedData(
            columns, design, [], self.lowest, count, 0, given, numbers, self.weights, none
        )
        return reduced, reduced.products(columns, design, self.lowest, self.weights)

    def unit_moments(self, names: Sequence[str]) -> list[tuple[float, float]]:
        """Mean and standard deviation of variables over units, not weighted: a point and a scale."""
        return [(self.columns[name].mean(), self.columns[name].std()) for name in names]

    @property
    def inner_ids(self) -> Mapping[str, pd.Index[Any]]:
        """Ids of the clusters within clusters by their column, the highest first; they may repeat."""
        return {name: clusters.ids for name, clusters in self.inner.items()}

    def labels_of(self, level: int) -> pd.Index[Any]:
        """Ids of the clusters of a level, which may repeat in different clusters above."""
        inner = list(self.inner.values())[::-1]
        return inner[level - 2].ids if level - 2 < len(inner) else self.clusters

    def constants(self, names: Sequence[str]) -> Iterator[Finding]:
        """Variables without any value, or with one only."""
        columns = {name: self.columns[name] for name in names}
        if not self.complete:
            columns = {name: column[~np.isnan(column)] for name, column in columns.items()}
            yield from unobserved(names, np.array([len(column) for column in columns.values()]))
        yield from unvarying({name: column for name, column in columns.items() if len(column)})

    def varying_in(self, names: Sequence[str], level: int) -> Sequence[tuple[int, Sequence[int]]]:
        """Of each variable in how many clusters of a level it differs between units, and some of these."""
        codes, count = self.codes_of(level), self.clusters_of(level)
        return _core.cluster_values(columns_of(self, names), codes, count)[1]

    def seen_rows(self, names: Sequence[str]) -> Bools:
        """Which of the variables each row has, shape (N, p)."""
        return ~np.isnan(np.column_stack(columns_of(self, names)))

    def _nested_frame(self, variables: Variables) -> Frame:
        levels = list(self.inner.values())[::-1]
        codes = [*(clusters.codes for clusters in levels), cluster_codes(self)]
        counts = [*(len(clusters.parent) for clusters in levels), len(self.clusters)]
        measured = variables.measured
        values = [
            _core.cluster_values(columns_of(self, own), of, count)[0]
            for own, of, count in zip(measured[1:], codes, counts, strict=True)
        ]
        numbers = [k for k, own in enumerate(measured) for _ in own]
        parents = [clusters.parent.tolist() for clusters in levels]
        times = [np.empty(0) if clusters.weights is None else clusters.weights for clusters in levels]
        return variables.numbers, numbers, values, parents, times

    def crossed(
        self, variables: Variables, fixed: Sequence[str] = (), slopes: Sequence[Slope] = ()
    ) -> tuple[_core.CrossedData, NDArray[np.int64], list[Floats]]:
        """The statistics of crossed classifications; see `Rows.crossed`.

        Raises
        ------
        DataError
            If a variable of one classification varies within a cluster of it.
        """
        (lower,) = self.inner.values()
        codes, ids = [lower.codes, cluster_codes(self)], [lower.ids, self.clusters]
        values = []
        for level, own in enumerate(variables.measured[1:], 2):
            code, known = codes[level - 2], ids[level - 2]
            of_clusters, varying = _core.cluster_values(columns_of(self, own), code, len(known))
            require_constant_within(
                own,
                varying,
                known,
                given=f"the block of level {level}",
                clusters="of its clusters",
                wanted="the block of level 1",
            )
            values.append(np.asarray(of_clusters, dtype=np.float64).reshape(len(known), len(own)))
        measured = [k for k, own in enumerate(variables.measured) for _ in own]
        units = np.column_stack(columns_of(self, variables.unit))
        covariates = list(dict.fromkeys(slope.covariate for slope in slopes))
        moments = zip(covariates, self.unit_moments(covariates), strict=True)
        scales = {name: (float(mean), float(spread) or 1.0) for name, (mean, spread) in moments}
        design = [(self.columns[name] - mean) / spread for name, (mean, spread) in scales.items()]
        given = () if not slopes else (np.column_stack(design),)
        found = _core.CrossedData(variables.numbers, measured, units, codes, values, *given)
        if slopes:
            places = [
                (0, 1 + covariates.index(s.covariate), *scales[s.covariate], [level - 1 for level in s.at])
                for s in slopes
            ]
            found = found.with_slopes(places, [variables.names.index(name) for name in fixed])
        number = {tuple(own): k for k, own in enumerate(found.patterns)}
        kinds, kind = np.unique(~np.isnan(units), axis=0, return_inverse=True)
        numbers = np.array([number.get(tuple(np.flatnonzero(row).tolist()), -1) for row in kinds])
        pattern = numbers[kind.ravel()]
        inner, outer, third = (np.asarray(part, dtype=np.int64) for part in found.cells[:3])
        cells = (inner * len(self.clusters) + outer) * len(number) + third  # ascending
        own_cells = (lower.codes * len(self.clusters) + codes[1]) * len(number) + np.maximum(pattern, 0)
        cell = np.searchsorted(cells, own_cells).astype(np.int64)
        of_slopes = [self.columns[slope.covariate] for slope in slopes]
        return found, np.where(pattern < 0, -1, cell), of_slopes

    @property
    def unweighted(self) -> ClusteredData:
        """The same rows as a simple sample."""
        inner = {name: replace(clusters, weights=None) for name, clusters in self.inner.items()}
        return replace(self, weights=None, sampled=None, inner=inner)

    @property
    def overall_weights(self) -> Floats | None:
        """How often each row counts, clusters included; None if all count once."""
        level2 = None if self.sampled is None else self.sampled.weights
        own = None if level2 is None or self.codes is None else level2[self.codes]
        for weights in (self._inner_weights, self.weights):
            own = weights if own is None else own if weights is None else own * weights
        return own

    @property
    def _inner_weights(self) -> Floats | None:
        """How often each row counts by the clusters that it is in below the highest ones; None if all count once."""
        own = [one.weights[one.codes] for one in self.inner.values() if one.weights is not None]
        return np.prod(own, axis=0, dtype=np.float64) if own else None

    @property
    def weight_totals(self) -> Floats:
        """Sums of the weights of units, clusters included, and of their squares; of those of clusters, and squares."""
        level2 = None if self.sampled is None else self.sampled.weights
        of_rows, own, inner = None if self.codes is None else level2, self.weights, self._inner_weights
        if inner is not None:
            own = inner if own is None else own * inner
        units = _core.weight_totals(own, self.nobs, of_rows, self.codes)
        clusters = (1.0, 1.0) if level2 is None else _core.weight_totals(level2, len(level2), None, None)
        return np.array([*units, *clusters])

    def informative(self, unit: Sequence[str]) -> Bools | None:
        """Rows with a value of any of these variables; None if all are."""
        if self.complete or not unit:
            return None
        seen: Bools = np.logical_or.reduce([~np.isnan(self.columns[name]) for name in unit])
        return seen

    def reduced_products(
        self, unit: Sequence[str], covariates: Sequence[str], data: _core.ReducedData
    ) -> Floats:
        """Products about the regressions within every cluster; see `SlopeClusters`."""
        columns = columns_of(self, unit), columns_of(self, covariates)
        return data.products(*columns, cluster_codes(self), self.weights)

    def reduced(
        self,
        variables: Variables,
        covariates: Sequence[str],
        fixed: int,
        numbers: Sequence[int],
    ) -> _core.ReducedData:
        """The rows reduced for random slopes; see `SlopeStatistics`."""
        return _core.ReducedData(
            columns_of(self, variables.unit),
            columns_of(self, covariates),
            columns_of(self, variables.cluster),
            cluster_codes(self),
            len(self.clusters),
            len(variables.both),
            fixed,
            list(numbers),
            self.weights,
            np.empty(0) if self.sampled is None or self.sampled.weights is None else self.sampled.weights,
        )


def cluster_codes(data: ClusteredData) -> NDArray[np.int64]:
    """Cluster code of every row."""
    if data.codes is None:
        raise DataError("a two-level model needs the cluster of every row: give cluster=")
    return data.codes


def columns_of(data: ClusteredData, names: Sequence[str]) -> list[Floats]:
    """Columns in the order given."""
    return [data.columns[name] for name in names]
