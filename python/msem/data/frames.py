"""From a data frame to rows of the variables a model needs, with their clusters, and the level of each variable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import (
    Bools,
    Columns,
    Floats,
    column_names,
    float_column,
    missing_ids,
    select_columns,
)
from msem.data.nesting import Frame, NestedSource
from msem.data.numbering import InnerClusters, number_clusters, number_inner, renumbered
from msem.data.screening import Finding, require_complete_rows, unobserved, unvarying
from msem.data.survey import (
    Sampled,
    SurveyColumns,
    SurveyRows,
    checked_weights,
    of_clusters,
    survey_rows,
    whole_sizes,
)
from msem.errors import DataError
from msem.model.variables import Variables

LARGE = 32  # rows of a cluster, on average, beside which its products take little room
Numbers = tuple[NDArray[np.int64], "pd.Index[Any]"]  # code of each row, id of each code


@dataclass(frozen=True)
class Holes:
    """Where values may be missing in rows that are kept.

    Attributes
    ----------
    required : tuple of str
        Variables that must be there: fixed covariates, and covariates with random slopes.
    cluster_level : tuple of str
        Variables of the highest clusters: a row in which one is missing takes the value of another row of its cluster.
    inner_level : tuple of tuple of str
        The same of clusters within these, the lowest first.
    """

    required: tuple[str, ...] = ()
    cluster_level: tuple[str, ...] = ()
    inner_level: tuple[tuple[str, ...], ...] = ()


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
    lost_clusters: pd.Index[Any] = field(default_factory=lambda: pd.Index([]))
    rows: NDArray[np.int64] | None = None
    index: pd.Index[Any] = field(default_factory=lambda: pd.RangeIndex(0))
    dropped_zero: int = 0
    weights: Floats | None = None
    sampled: Sampled | None = None
    replicates: Floats | None = None
    inner: Mapping[str, InnerClusters] = field(default_factory=dict)
    by_cluster: bool = False

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

    def crossed(self, variables: Variables) -> tuple[_core.CrossedData, NDArray[np.int64]]:
        """The statistics of crossed classifications, and the cell of each row in them; -1 if nothing is observed.

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
            for name, (count, some) in zip(own, varying, strict=True):
                if count:
                    first = ", ".join(str(known[each]) for each in some)
                    raise DataError(
                        f"variable {name!r} is in the block of level {level} only, but varies within {count} of "
                        f"{len(known)} of its clusters (such as {first}): put it in the block of level 1 too, or use "
                        "its cluster mean"
                    )
            values.append(np.asarray(of_clusters, dtype=np.float64).reshape(len(known), len(own)))
        measured = [k for k, own in enumerate(variables.measured) for _ in own]
        units = np.column_stack(columns_of(self, variables.unit))
        found = _core.CrossedData(variables.numbers, measured, units, codes, values)
        number = {tuple(own): k for k, own in enumerate(found.patterns)}
        kinds, kind = np.unique(~np.isnan(units), axis=0, return_inverse=True)
        numbers = np.array([number.get(tuple(np.flatnonzero(row).tolist()), -1) for row in kinds])
        pattern = numbers[kind.ravel()]
        inner, outer, third = (np.asarray(part, dtype=np.int64) for part in found.cells[:3])
        cells = (inner * len(self.clusters) + outer) * len(number) + third  # ascending
        own_cells = (lower.codes * len(self.clusters) + codes[1]) * len(number) + np.maximum(pattern, 0)
        cell = np.searchsorted(cells, own_cells).astype(np.int64)
        return found, np.where(pattern < 0, -1, cell)

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
        unit: Sequence[str],
        covariates: Sequence[str],
        cluster: Sequence[str],
        nboth: int,
        fixed: int,
        numbers: Sequence[int],
    ) -> _core.ReducedData:
        """The rows reduced for random slopes; see `SlopeStatistics`."""
        return _core.ReducedData(
            columns_of(self, unit),
            columns_of(self, covariates),
            columns_of(self, cluster),
            cluster_codes(self),
            len(self.clusters),
            nboth,
            fixed,
            list(numbers),
            self.weights,
            np.empty(0) if self.sampled is None or self.sampled.weights is None else self.sampled.weights,
        )


def clustered_data(
    frame: Any,
    variables: Sequence[str],
    cluster: str | None,
    holes: Holes | None = None,
    survey: SurveyColumns | None = None,
    inner: Sequence[str] = (),
    *,
    crossed: bool = False,
    known: bool = False,
) -> ClusteredData:
    """Take the needed variables from a frame, delete incomplete rows and number the clusters.

    Parameters
    ----------
    frame : pandas, polars or pyarrow table, any frame narwhals reads, or mapping of names to arrays
        One row per unit.
    variables : sequence of str
        Names of the model's observed variables.
    cluster : str or None
        Column with the ids of the highest clusters, of any hashable type. Rows without an id are left out and counted.
    inner : sequence of str
        Columns with the ids of clusters within these, the highest first.
    crossed : bool
        Whether the inner clusters are crossed with the others instead.
    known : bool
        Whether that is known of a fit, and need not be seen in these rows, which may be few.
    holes : Holes, optional
        Keep rows with missing values: leave out only those in which nothing is observed or a required variable is
        missing (one of clusters: in all rows of the cluster). Variables of clusters are filled in from other rows of
        the cluster.
    survey : SurveyColumns, optional
        The columns that say how the rows were sampled. Rows whose weight is zero are left out and counted.

    Returns
    -------
    ClusteredData
        With weights as given; see `scaled_weights`.

    Raises
    ------
    DataError
        If a column is unknown, duplicated, not numeric or infinite, if the cluster column is also a
        variable, if cluster ids cannot be hashed, or if no complete row is left; or if weights cannot be used: see
        `survey_rows`.
    """
    return kept_rows(
        screened_columns(frame, variables, cluster, survey, inner, crossed=crossed, known=known), holes
    )


@dataclass(frozen=True, eq=False)
class ScreenedColumns:
    """Columns as numbers, with what is missing in them.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (rows,)
    missing : mapping of str to ndarray of bool, shape (rows,), or None
        None where nothing is missing.
    cluster : str or None
    ids : narwhals.Series or None
        The cluster column.
    no_cluster : ndarray of bool, shape (rows,)
        Rows without a cluster id.
    index : pandas.Index
        Labels of the rows.
    survey : SurveyRows or None
        How the rows were sampled.
    inner : mapping of str to narwhals.Series
        Columns of clusters within clusters, the highest first.
    crossed : bool
        Whether these are crossed with the others instead.
    known : bool
        Whether that need not be seen in the rows.
    """

    columns: Mapping[str, Floats]
    missing: Mapping[str, Bools | None]
    cluster: str | None
    ids: nw.Series[Any] | None
    no_cluster: Bools
    index: pd.Index[Any]
    survey: SurveyRows | None = None
    inner: Mapping[str, nw.Series[Any]] = field(default_factory=dict)
    crossed: bool = False
    known: bool = False

    @property
    def zero(self) -> Bools:
        """Rows that count for nothing."""
        return np.zeros(len(self.no_cluster), dtype=bool) if self.survey is None else self.survey.zero

    def inner_clusters(self, codes: NDArray[np.int64], keep: Bools) -> dict[str, InnerClusters]:
        """The clusters within clusters of the kept rows, given the codes of the highest ones."""
        return number_inner(
            self.inner, str(self.cluster), codes, keep, crossed=self.crossed, known=self.known
        )


def screened_columns(
    frame: Any,
    variables: Sequence[str],
    cluster: str | None,
    survey: SurveyColumns | None = None,
    inner: Sequence[str] = (),
    *,
    crossed: bool = False,
    known: bool = False,
) -> ScreenedColumns:
    """Take the needed columns from a frame; see `clustered_data`."""
    for column in (cluster, *inner):
        require_distinct_roles(variables, column)
    if survey is not None and len(survey.inner_weights) > len(inner):
        raise DataError(
            f"{survey.named} names the weights of {len(survey.inner_weights) + 1} kinds of clusters, and cluster= has "
            f"{len(inner) + (cluster is not None)}: give one for each column of cluster=, the highest first, None "
            "where clusters have no weights"
        )
    needed = [*variables, *inner] if cluster is None else [*variables, cluster, *inner]
    names = () if survey is None else survey.names
    # where nothing is needed any column tells how many rows there are
    columns = select_columns(frame, list(dict.fromkeys([*needed, *names])) or column_names(frame)[:1])
    nrows = require_rows(columns)
    values = {name: float_column(name, columns[name]) for name in variables}
    missing = {name: missing_rows(name, column) for name, column in values.items()}
    ids = None if cluster is None else columns[cluster]
    no_cluster = np.zeros(nrows, dtype=bool) if ids is None else missing_ids(ids)
    for name in inner:
        no_cluster = no_cluster | missing_ids(columns[name])
    index = frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(nrows)
    sampling = survey_rows(survey, columns, cluster, nrows) if survey is not None and names else None
    nested = {name: columns[name] for name in inner}
    return ScreenedColumns(values, missing, cluster, ids, no_cluster, index, sampling, nested, crossed, known)


def complete_rows(screened: ScreenedColumns, rows: Bools | None = None) -> ClusteredData:
    """Delete incomplete rows and number the clusters; of the marked rows only, if `rows` is given."""

    def among(mask: Bools) -> Bools:
        return mask if rows is None else mask & rows

    zero = among(screened.zero)
    no_cluster = among(screened.no_cluster & ~zero)
    missing = {name: among(mask & ~zero) for name, mask in screened.missing.items() if mask is not None}
    incomplete = any_of(list(missing.values()), len(no_cluster)) & ~no_cluster
    keep = among(~(incomplete | no_cluster | zero))
    nrows = len(keep) if rows is None else int(rows.sum())
    dropped = {name: int(mask.sum()) for name, mask in missing.items() if mask.any()}
    require_complete_rows(keep, dropped, no_cluster, screened.cluster, nrows)
    codes, clusters = (
        (None, pd.Index([]))
        if screened.ids is None
        else number_clusters(str(screened.cluster), screened.ids, keep)
    )
    inner = {} if codes is None else screened.inner_clusters(codes, keep)
    return ClusteredData(
        columns={name: kept(column, keep) for name, column in screened.columns.items()},
        codes=codes,
        clusters=clusters,
        nrows=nrows,
        dropped=dropped,
        dropped_rows=int(incomplete.sum()),
        dropped_no_cluster=int(no_cluster.sum()),
        left_out=_reasons(
            {"no cluster id": no_cluster, "a missing value": incomplete, "a weight of zero": zero}
        ),
        rows=None if keep.all() else np.flatnonzero(keep),
        index=screened.index,
        dropped_zero=int(zero.sum()),
        inner=_with_weights(screened.survey, keep, inner),
        **_sampling(screened.survey, keep, codes, clusters),
    )


def kept_rows(screened: ScreenedColumns, holes: Holes | None, rows: Bools | None = None) -> ClusteredData:
    """The rows to be used; of the marked rows only, if `rows` is given. See `clustered_data`."""
    if holes is None:
        return complete_rows(screened, rows)
    given = np.ones(len(screened.no_cluster), dtype=bool) if rows is None else rows
    here = given & ~screened.zero
    usable = here & ~screened.no_cluster
    empty = usable & _empty(screened)
    present = usable & ~empty
    counts = {name: int((mask & here).sum()) for name, mask in screened.missing.items() if mask is not None}

    def require_some(keep: Bools) -> None:
        outside = screened.no_cluster & here
        require_complete_rows(keep, counts, outside, screened.cluster, int(here.sum()), "row with values")

    require_some(present)
    numbers = None if screened.ids is None else number_clusters(str(screened.cluster), screened.ids, usable)
    if numbers is not None:
        screened = _shared(screened, holes.cluster_level, numbers, usable)
        within = screened.inner_clusters(numbers[0], usable) if holes.inner_level else {}
        for names, own in zip(holes.inner_level, reversed(within.values()), strict=True):
            screened = _shared(screened, names, (own.codes, own.ids), usable)
    without = {
        name: mask & present for name in holes.required if (mask := screened.missing.get(name)) is not None
    }
    lacking = any_of(list(without.values()), len(here))
    keep = present & ~lacking
    require_some(keep)
    codes, clusters, lost = (
        (None, pd.Index([]), pd.Index([])) if numbers is None else renumbered(*numbers, keep[usable])
    )
    inner = {} if codes is None else screened.inner_clusters(codes, keep)
    return ClusteredData(
        columns={name: kept(column, keep) for name, column in screened.columns.items()},
        codes=codes,
        clusters=clusters,
        nrows=int(given.sum()),
        dropped={name: int(mask.sum()) for name, mask in without.items() if mask.any()},
        dropped_rows=int(lacking.sum()),
        dropped_no_cluster=int((screened.no_cluster & here).sum()),
        dropped_empty=int(empty.sum()),
        complete=not any(mask is not None and (mask & keep).any() for mask in screened.missing.values()),
        left_out=_reasons(
            {
                "no cluster id": screened.no_cluster & here,
                "no observed value": empty,
                "no fixed covariate": lacking,
                "a weight of zero": given & screened.zero,
            }
        ),
        lost_clusters=lost,
        rows=None if keep.all() else np.flatnonzero(keep),
        index=screened.index,
        dropped_zero=int((given & screened.zero).sum()),
        inner=_with_weights(screened.survey, keep, inner),
        **_sampling(screened.survey, keep, codes, clusters),
    )


def _with_weights(
    survey: SurveyRows | None, keep: Bools, inner: Mapping[str, InnerClusters]
) -> Mapping[str, InnerClusters]:
    """Clusters within clusters with their weights as given."""
    if survey is None or not survey.inner_weights:
        return inner
    out = {}
    names = survey.columns.inner_weights
    for (column, clusters), name, given in zip(inner.items(), names, survey.inner_weights, strict=True):
        own = None
        if given is not None:
            values = checked_weights(str(name), given, keep)
            own = of_clusters(str(name), values, clusters.codes, clusters.ids, "the weight")
        out[column] = replace(clusters, weights=own)
    return out


def _sampling(
    survey: SurveyRows | None, keep: Bools, codes: NDArray[np.int64] | None, clusters: pd.Index[Any]
) -> dict[str, Any]:
    """How the kept rows, and the clusters or rows that are independent, were sampled."""
    if survey is None:
        return {}
    names = survey.columns
    weights = None if survey.weights is None else checked_weights(str(names.weights), survey.weights, keep)
    of_level2, psu = None, None
    if survey.cluster_weights is not None:
        name = str(names.cluster_weights)
        values = checked_weights(name, survey.cluster_weights, keep)
        of_level2 = values if codes is None else of_clusters(name, values, codes, clusters, "the weight")
    if survey.psu is not None:
        psu = survey.psu[keep]
        if (psu < 0).any():
            row = int(np.flatnonzero(keep)[(psu < 0).argmax()])
            raise DataError(
                f"the primary sampling unit ({names.psu!r}) is missing in {(psu < 0).sum()} row(s) that would be used, "
                f"first in row {row} (counted from 0)"
            )
        if codes is not None:
            psu = of_clusters(str(names.psu), psu, codes, clusters, "the primary sampling unit")
    replicates = None
    if survey.replicates is not None:
        for name, column in zip(names.replicates, survey.replicates.T, strict=True):
            checked_weights(name, column, keep)
        replicates = survey.replicates[keep]
    return {"weights": weights, "sampled": Sampled(of_level2, psu, survey.design), "replicates": replicates}


def _reasons(masks: Mapping[str, Bools]) -> dict[str, NDArray[np.int64]]:
    return {reason: np.flatnonzero(mask) for reason, mask in masks.items() if mask.any()}


def _empty(screened: ScreenedColumns) -> Bools:
    """Rows in which nothing is observed."""
    masks = list(screened.missing.values())
    out = np.full(len(screened.no_cluster), bool(masks))
    for mask in masks:
        out &= False if mask is None else mask
    return out


def _shared(
    screened: ScreenedColumns, names: Sequence[str], numbers: Numbers, usable: Bools
) -> ScreenedColumns:
    """The columns, with cluster variables that are missing in a row taken from the first one of the cluster with it."""
    codes = np.full(len(usable), -1, dtype=np.int64)
    codes[usable] = numbers[0]
    columns, missing = dict(screened.columns), dict(screened.missing)
    for name in names:
        mask = missing.get(name)
        if mask is None or not (mask & usable).any():
            continue
        seen, holes = np.flatnonzero(usable & ~mask), usable & mask
        values = np.full(len(numbers[1]), np.nan)
        values[codes[seen[::-1]]] = columns[name][seen[::-1]]
        column = columns[name].copy()
        column[holes] = values[codes[holes]]
        columns[name], missing[name] = column, missing_rows(name, column)
    return replace(screened, columns=columns, missing=missing)


def missing_rows(name: str, column: Floats) -> Bools | None:
    """Rows in which a column is missing, None if there are none; infinite values are refused."""
    if _core.all_finite(column):
        return None
    finite = np.isfinite(column)
    missing = np.isnan(column)
    infinite = ~(finite | missing)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"variable {name!r} is infinite in {infinite.sum()} row(s), first in row {row} (counted from 0): "
            "correct the value, or make it missing"
        )
    return missing


def any_of(masks: Sequence[Bools | None], nrows: int) -> Bools:
    """Rows marked in any of the masks."""
    result = np.zeros(nrows, dtype=bool)
    for mask in masks:
        if mask is not None:
            result |= mask
    return result


def kept(column: Floats, keep: Bools) -> Floats:
    """Kept rows of a column, read-only; a view if all are kept."""
    result = column[:] if keep.all() else column[keep]
    result.flags.writeable = False
    return result


def require_distinct_roles(variables: Sequence[str], cluster: str | None) -> None:
    """Refuse the cluster column as a variable of the model."""
    if cluster is not None and cluster in variables:
        raise DataError(
            f"{cluster!r} is both the cluster column and a variable of the model: an id has no mean or "
            "variance; take it out of the model, or name another column in cluster="
        )


def require_rows(columns: Columns) -> int:
    """Refuse columns of unequal length and empty data; return the number of rows."""
    lengths = {name: len(series) for name, series in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns differ in length: {lengths}")
    nrows = next(iter(lengths.values()))
    if nrows == 0:
        raise DataError("the data have no rows")
    return nrows


def cluster_codes(data: ClusteredData) -> NDArray[np.int64]:
    """Cluster code of every row."""
    if data.codes is None:
        raise DataError("a two-level model needs the cluster of every row: give cluster=")
    return data.codes


def columns_of(data: ClusteredData, names: Sequence[str]) -> list[Floats]:
    """Columns in the order given."""
    return [data.columns[name] for name in names]
