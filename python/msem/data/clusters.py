"""The statistics of clusters as a value that is made once, merged, shared and fitted in place of data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.cluster_moments import constants_of
from msem.data.cluster_table import ClusterTable
from msem.data.clusterfile import read_values, write_values
from msem.data.given import Given
from msem.data.merging import combined, require_same_variables, scaled_together
from msem.data.nesting import Frame, NestedSource
from msem.data.numbering import require_order
from msem.data.screening import Finding
from msem.data.shapes import Tree
from msem.data.sums import ClusterSums
from msem.data.survey import Sampled
from msem.entry import entries
from msem.errors import DataError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAME = 1e-13  # relative difference of means of clusters that is rounding
SOME = 5  # clusters that are named
NO_ROWS = "this needs raw data: statistics of clusters do not tell one row from another"


@entries
@dataclass(frozen=True, eq=False, repr=False)
class ClusterStatistics(ClusterTable, Given, NestedSource):
    """Sufficient statistics of clustered data for any model of p variables; `msem.summarize` makes them.

    Take them in place of data in `msem.sem`, `msem.saturated`, `msem.segregated` and `CompiledModel`. `a + b` are the
    statistics of both.

    Attributes
    ----------
    variables : tuple of str, length p
    cluster : str or tuple of str
        Name of the column with the cluster ids; of nested clusters of all, the highest first. The clusters of which
        the following speaks are then the lowest ones.
    nobs, nclusters : float
        Units N and clusters J, not counted by their weights.
    sizes, counts : ndarray, shape (S,)
        Distinct cluster sizes, ascending, and the number of clusters of each; of weighted rows sums of weights.
    means : ndarray, shape (S, p)
        Mean of the cluster means of each size, less `origin`.
    scatter : ndarray, shape (S, p, p)
        Sums of squares and products of the cluster means of each size about their mean.
    ssw : ndarray, shape (p, p)
        Sums of squares and products about the cluster means, pooled over all clusters.
    origin : ndarray, shape (p,)
        A point within the data, from which means are counted so that no digits are lost.
    sums : ClusterSums or None
        Statistics of every single cluster, with ``keep_clusters``.
    ids : pandas.Index or None
        Cluster ids, by which clusters that occur twice are found out; not saved without `sums`.
    nrows : int
        Rows of the data as given.
    dropped : mapping of str to int
        Rows in which a variable is missing, for variables with any.
    dropped_rows, dropped_no_cluster : int
        Rows left out because a variable is missing, or the cluster id.
    origins : frozenset of str
        Digests of the summaries that were merged.
    weighting : Weighting or None
        What is known of the weights and the design of the rows; None for a simple sample.

    Raises
    ------
    DataError
        If shapes, totals or names do not fit together, or a number is not finite.
    """

    def __repr__(self) -> str:
        kept = "" if self.sums is None else ", clusters kept"
        kept += "" if self.weighting is None else ", weighted"
        clusters = f"{self.nclusters:.0f} clusters"
        if self.has_inner:
            clusters += "".join(f" in {len(labels)} clusters" for _, labels, _ in self._tree[1:])
        else:
            clusters += f" of {len(self.sizes)} sizes"
        return f"<msem.ClusterStatistics: {len(self.variables)} variables, {self.nobs:.0f} units in {clusters}{kept}>"

    @property
    def _tree(self) -> list[tuple[Ints, pd.Index[Any], Ints]]:
        """Of each level from 2 on: the cluster that each lowest one is in, the ids of these, and their parents."""
        return self.kept.tree

    @property
    def dropped_empty(self) -> int:
        """Rows in which nothing is observed are among those with a missing value."""
        return 0

    weights = None

    @property
    def dropped_zero(self) -> int:
        """Rows left out because their weight is zero."""
        return 0 if self.weighting is None else self.weighting.zero

    @cached_property
    def sampled(self) -> Sampled | None:
        """How the clusters were sampled; None for a simple sample."""
        return None if self.weighting is None else self.weighting.sampled(self.sums)

    @property
    def weight_totals(self) -> Floats:
        """Sums of the weights of units, clusters included, and of their squares; of those of clusters, and squares."""
        return np.ones(4) if self.weighting is None else self.weighting.totals

    @property
    def without_clusters(self) -> ClusterStatistics:
        """The same without what was kept of single clusters."""
        weighting = None if self.weighting is None else replace(self.weighting, psus=None)
        return replace(self, sums=None, weighting=weighting)

    def clusters_of(self, level: int) -> int:
        """Clusters of a level."""
        return len(self._tree[level - 2][1]) if self.has_inner else self.cluster_count

    @property
    def known_variables(self) -> Variables:
        """Names by level: each at the lowest at which it varies, and at all above."""
        if not self.has_inner:
            return Variables.of_levels([self.varying, self.variables])
        below: list[Sequence[str]] = [self.varying]
        for level in range(3, len(self.cluster) + 2):
            found = zip(self.variables, self.varying_in(self.variables, level), strict=True)
            below.append([name for name, (count, _) in found if count])
        return Variables.of_levels([*below, self.variables])

    @property
    def known_options(self) -> Mapping[str, Any]:
        """The cluster column, and how the rows were sampled."""
        return {"cluster": self.cluster, **({} if self.weighting is None else self.weighting.options)}

    def scaled_with(self, others: Sequence[ClusterStatistics], nlevels: int) -> Sequence[ClusterStatistics]:
        """The groups of a sample with weights as they enter the likelihood; see `scaled_together`."""
        return scaled_together((self, *others), nlevels)

    @property
    def cluster_count(self) -> int:
        """Independent clusters, the highest of nested ones."""
        return len(self._tree[-1][1]) if self.has_inner else round(self.nclusters)

    @property
    def tree(self) -> Tree | None:
        """Rows of each lowest cluster, and the clusters that they are in; see `Rows.tree`."""
        if self.sums is None:
            cells = self.counts if self.weighting is None else self.weighting.cells
            whole = all(float(x).is_integer() for x in (*self.sizes, *cells))
            return (np.repeat(self.sizes, cells.astype(np.intp)), ()) if whole else None
        sizes = self.sums.sizes if self.sums.marks is None else self.sums.marks.units
        return sizes, tuple(parent for _, _, parent in self._tree[:-1]) if self.has_inner else ()

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the independent clusters; `DataError` if they were not kept."""
        return self._tree[-1][1] if self.has_inner else self.kept.ids

    def cluster_arrays(self, unit: Sequence[str], cluster: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of every cluster, for robust standard errors and resampling.

        Raises
        ------
        DataError
            If the clusters were not kept with their products.
        """
        sums = self.kept
        own, every = self.positions(unit), self.positions([*unit, *cluster])
        means = sums.means[:, every] + self.origin[every]
        sizes, products = sums.sizes, sums.products(own, len(self.variables))
        if self.weighting is not None:
            sizes, products = self.weighting.scaled(sizes, products, sums)
        return sizes, means, products

    @property
    def units_of_clusters(self) -> Floats:
        """Rows of each independent cluster, shape (J,)."""
        sizes = self.cluster_arrays((), ())[0]
        return np.bincount(self._tree[-1][0], sizes).astype(np.float64) if self.has_inner else sizes

    def cluster_products(self, *of: object) -> None:
        """None: rows were not kept."""

    def row_values(self, names: Sequence[str]) -> list[Floats]:
        """Rows were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    @property
    def cluster_of_row(self) -> NDArray[np.int64]:
        """Rows were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def cell_products(self, names: Sequence[str], data: _core.IncompleteData) -> Floats:
        """Rows were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def reduced_products(
        self, unit: Sequence[str], covariates: Sequence[str], data: _core.ReducedData
    ) -> Floats:
        """Products about the regressions within every cluster; see `SlopeClusters`."""
        variables = Variables.of_units_and_clusters(unit, (), 0)
        return self._reduced(variables, covariates, data.fixed, [])[1]

    def crossed(
        self, variables: Variables, fixed: Sequence[str] = (), slopes: Sequence[Slope] = ()
    ) -> tuple[_core.CrossedData, NDArray[np.int64], list[Floats]]:
        """Pairs of crossed clusters were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    # -- clusters within clusters ------------------------------------------------------------------------------

    complete = True

    @property
    def lowest_sizes(self) -> Floats:
        """Units of the lowest of nested clusters, shape (J,)."""
        return self.kept.sizes

    @property
    def inner_ids(self) -> Mapping[str, pd.Index[Any]]:
        """Ids of the clusters within clusters by their column; they may repeat."""
        if not self.has_inner:
            return {}
        return {
            name: labels for name, (_, labels, _) in zip(self.cluster[1:], self._tree[-2::-1], strict=True)
        }

    def labels_of(self, level: int) -> pd.Index[Any]:
        """Ids of the clusters of a level, which may repeat in different clusters above."""
        return self._tree[level - 2][1]

    def constants(self, names: Sequence[str]) -> Iterator[Finding]:
        """Variables with one value only."""
        return constants_of(self, names)

    def varying_in(self, names: Sequence[str], level: int) -> list[tuple[int, list[int]]]:
        """Of each variable in how many clusters of a level it differs between units, and some of these."""
        sums, p = self.kept, len(self.variables)
        out = []
        for at in self.positions(names):
            differs = sums.squares(at, p) > 0
            if level > 2:
                codes, ids, _ = self._tree[level - 2]
                mean = sums.means[:, at]
                first = self._of_clusters(mean, level)
                differs |= np.abs(mean - first[codes]) > SAME * (np.abs(mean) + np.abs(self.origin[at]))
                differs = np.bincount(codes, differs, len(ids)) > 0
            found = np.flatnonzero(differs)
            out.append((len(found), found[:SOME].tolist()))
        return out

    def seen_rows(self, names: Sequence[str]) -> NoReturn:
        """Rows were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def filled(self) -> ClusterStatistics:
        """The same: nothing is missing."""
        return self

    def unit_moments(self, names: Sequence[str]) -> list[tuple[float, float]]:
        """Mean and standard deviation of variables over units: a point and a scale."""
        sizes, means, products = self.cluster_arrays(names, ())
        mean = sizes @ means / sizes.sum()
        column = np.cumsum([0, *range(len(names), 1, -1)])  # of the squares
        squares = products[:, column[: len(names)]].sum(axis=0) + sizes @ (means - mean) ** 2
        return list(zip(mean.tolist(), np.sqrt(squares / sizes.sum()).tolist(), strict=True))

    def require_order(self, *, told_apart: bool = True) -> None:
        """Refuse columns of clusters in the wrong order, or with `told_apart` such as are one within the other.

        Raises
        ------
        DataError
        """
        if not self.has_inner:
            return
        above = list(zip(self.cluster, self._tree[::-1], strict=True))
        for (upper, (_, parents, _)), (name, (_, labels, _)) in pairwise(above):
            ids = labels.nunique()
            if told_apart or ids < len(labels):
                require_order(upper, name, len(parents), len(labels), ids)

    def univariate(self) -> pd.DataFrame:
        """n, missing (of rows), mean and sd of every variable over the units that it is measured on."""
        rows = {}
        for level, names in enumerate(self.known_variables.measured, 1):
            for name in names:
                (at,) = self.positions([name])
                sizes, counts, means, squares = self._values_of(level, at)
                weights = sizes * counts
                mean = weights @ means / weights.sum()
                total = float(squares + weights @ (means - mean) ** 2)
                rows[name] = {
                    "n": round(self.nobs) if level == 1 else self.clusters_of(level),
                    "missing": self.dropped.get(name, 0) / self.nrows if self.nrows else 0.0,
                    "mean": self.origin[at] + mean,
                    "sd": np.sqrt(total / (weights.sum() - 1)),
                }
        return pd.DataFrame.from_dict(rows, orient="index").loc[list(self.variables)]

    def _values_of(self, level: int, at: int) -> tuple[Floats, Floats, Floats, float]:
        """Means of a variable with how often units of the level have them, and squares about these."""
        if not self.has_inner:
            sizes = self.sizes if level == 1 else np.ones(len(self.sizes))
            squares = (self.ssw[at, at] if level == 1 else 0.0) + (sizes * self.scatter[:, at, at]).sum()
            return sizes, self.counts, self.means[:, at], float(squares)
        values = self.kept.means[:, at]
        if level == 1:
            squares = self.kept.squares(at, len(self.variables)).sum()
            return self.kept.sizes, np.ones(len(values)), values, float(squares)
        own = self._of_clusters(values, level)
        return np.ones(len(own)), np.ones(len(own)), own, 0.0

    def _of_clusters(self, values: Floats, level: int) -> Floats:
        """Values of the clusters of a level from those of the lowest ones, the first of each."""
        codes, labels, _ = self._tree[level - 2]
        out = np.empty((len(labels), *values.shape[1:]))
        out[codes[::-1]] = values[::-1]
        return out

    def _nested_frame(self, variables: Variables) -> Frame:
        if not self.has_inner:
            raise DataError(
                f"these are statistics of clusters of one kind ({self.cluster}): for models of more levels make them "
                "of all, msem.summarize(data, cluster=[...], keep_clusters=True)"
            )
        self.require_order()
        means, values = self.kept.means + self.origin, []
        for level, own in enumerate(variables.measured[1:], 2):
            values.append(self._of_clusters(means[:, self.positions(own)], level))
        numbers = [k for k, own in enumerate(variables.measured) for _ in own]
        parents = [parent.tolist() for _, _, parent in self._tree[:-1]]
        times = [] if self.weighting is None else self.weighting.inner_weights(self.kept)
        return variables.numbers, numbers, values, parents, times

    def _nested_cells(self, frame: Frame, unit: Sequence[str]) -> _core.NestedData:
        return _core.NestedData(*frame, *self.cluster_arrays(unit, ()))

    def _nested_reduced(
        self,
        unit: Sequence[str],
        given: int,
        covariates: Sequence[str],
        moments: Sequence[tuple[float, float]],
    ) -> tuple[_core.ReducedData, Floats]:
        # the covariates stand beside the variables once more, about their mean in units of their spread
        p, k = len(unit), len(covariates)
        every = [*unit, *covariates]
        sizes, means, products = self.cluster_arrays(every, ())
        shift, scale = np.zeros(p + k), np.ones(p + k)
        shift[p:], scale[p:] = np.array(moments).T
        col, row = np.triu_indices(p + k)
        reduced, beyond = _core.reduce_clusters(
            sizes,
            (means - shift) / scale,
            products / (scale[row] * scale[col]),
            range(p, p + k),
            0,
            given + k,
            range(1, k + 1),
            np.empty(0),
        )
        outcomes = p - given
        kept = reduced.restrict(list(range(outcomes)), 0, list(range(outcomes, p)), [])
        return kept, beyond[:, (row < p) & (col < p)]

    def reduced(
        self, variables: Variables, covariates: Sequence[str], fixed: int, numbers: Sequence[int]
    ) -> _core.ReducedData:
        """The clusters reduced for random slopes: sizes, means and products are enough; see `SlopeStatistics`.

        Raises
        ------
        DataError
            If the clusters were not kept with their products.
        """
        return self._reduced(variables, covariates, fixed, numbers)[0]

    def _reduced(
        self, variables: Variables, covariates: Sequence[str], fixed: int, numbers: Sequence[int]
    ) -> tuple[_core.ReducedData, Floats]:
        unit, cluster = variables.unit, variables.cluster
        at = [unit.index(name) for name in covariates]
        own = None if self.sampled is None else self.sampled.weights
        weights = np.empty(0) if own is None else own
        return _core.reduce_clusters(
            *self.cluster_arrays(unit, cluster), at, len(variables.both), fixed, list(numbers), weights
        )

    @property
    def pooled_within_cov(self) -> pd.DataFrame:
        """Pooled within-cluster covariance matrix, with divisor N - J."""
        names = list(self.variables)
        return pd.DataFrame(self.whole.pooled_within_cov, index=names, columns=names)

    # -- merging -----------------------------------------------------------------------------------------------

    def __add__(self, other: object) -> ClusterStatistics:
        return self.merge(other) if isinstance(other, ClusterStatistics) else NotImplemented

    def __radd__(self, other: object) -> ClusterStatistics:
        return self if type(other) is int and other == 0 else NotImplemented  # sum() starts at 0

    def merge(self, other: ClusterStatistics) -> ClusterStatistics:
        """The statistics of both.

        Where both keep their clusters, one that occurs in both is one cluster. Otherwise no cluster may occur in both.

        Raises
        ------
        DataError
            If the variables or the cluster columns differ, ids are of different types, a cluster occurs in both that
            cannot be put together, or the same statistics are added twice.
        """
        require_same_variables(self, other)
        twice = self.origins & other.origins
        if twice:
            raise DataError(
                "the same statistics would be counted twice: "
                f"{len(twice)} of the summaries are part of both sides of the sum"
            )
        return combined(self, other)

    # -- sharing -----------------------------------------------------------------------------------------------

    def disclosure(self) -> pd.Series:
        """What a file of these statistics tells of single clusters and units.

        Returns
        -------
        Series
            nclusters, nobs; smallest_cell: the least number of clusters of one size (the means of a cluster that is
            the only one of its size can be read off, and those of two up to their order); cells_of_one, cells_of_two:
            how many sizes there are with so few clusters; exact_clusters: clusters whose means can be read off;
            exact_units: units whose values can (clusters of one unit among them); smallest_cluster; cluster_ids,
            cluster_means, cluster_products: whether the file has these of every cluster.
        """
        cells = self.counts if self.weighting is None else self.weighting.cells
        return disclosed(self.sizes, cells, self.sums, int(self.nobs))

    def save(self, path: Any, *, smallest_cell: int = 0) -> None:
        """Write a file for `load`: ``.json``, or ``.parquet`` for many clusters (needs pyarrow).

        Cluster ids are in it only with the statistics of the single clusters; see `disclosure`.

        Parameters
        ----------
        path : path ending in .json or .parquet
        smallest_cell : int
            Refuse to write if there are fewer clusters than this of any one size, or single clusters were kept.

        Raises
        ------
        DataError
            If more would be disclosed than allowed, ids are neither numbers nor text, or the path ends in something
            else.
        """
        found = self.disclosure()
        if smallest_cell > 0 and (self.sums is not None or found["smallest_cell"] < smallest_cell):
            raise DataError(
                f"smallest_cell={smallest_cell}: the file would tell of "
                + (
                    "every single cluster: summarize without keep_clusters"
                    if self.sums is not None
                    else f"sizes with {found['smallest_cell']} cluster(s)"
                )
            )
        write_values(path, {one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def load(cls, path: Any) -> ClusterStatistics:
        """Read a file that `save` wrote; nothing in it is executed.

        Raises
        ------
        DataError
            If it is not one, is damaged or cut short, or comes from a later version.
        """
        values = read_values(path)
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path} is not a file of cluster statistics: {error}") from error


def disclosed(sizes: Floats, counts: Floats, sums: ClusterSums | None, nobs: int) -> pd.Series:
    """See `ClusterStatistics.disclosure`; `counts` are numbers of clusters."""
    exact = counts == 1 if sums is None else np.ones(len(counts), dtype=bool)
    report = {
        "nclusters": int(counts.sum()),
        "nobs": nobs,
        "smallest_cell": int(counts.min()) if sums is None else 1,
        "cells_of_one": int((counts == 1).sum()),
        "cells_of_two": int((counts == 2).sum()),
        "exact_clusters": int(counts[exact].sum()),
        "exact_units": int(counts[exact & (sizes == 1)].sum()),
        "smallest_cluster": float(sizes.min()) if sizes.min() % 1 else int(sizes.min()),
        "cluster_ids": sums is not None,
        "cluster_means": sums is not None,
        "cluster_products": sums is not None and sums.keeps_products,
    }
    return pd.Series(report, dtype=object, name="disclosure")
