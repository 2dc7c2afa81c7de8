"""The statistics of clusters as a value that is made once, merged, shared and fitted in place of data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.clusterfile import read_values, write_values
from msem.data.columns import listed, require_known
from msem.data.complete import SampleStatistics, merge_sizes
from msem.data.complete_rows import confounded_levels, covariance_statistics
from msem.data.given import Given
from msem.data.nesting import Frame, NestedSource
from msem.data.screening import Finding, constant, report, require_constant_within, undivided
from msem.data.sums import ClusterSums, common_ids, merged_sums, same_numbers
from msem.data.survey import Sampled
from msem.data.weighting import Weighting, merged_marks, merged_weighting
from msem.entry import entries
from msem.errors import DataError
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SAME = 1e-13  # relative difference of means of clusters that is rounding
SOME = 5  # clusters that are named
BY_SIZE = ("sizes", "counts", "means", "scatter")
ARRAYS = (*BY_SIZE, "ssw", "origin")
NO_ROWS = "this needs raw data: statistics of clusters do not tell one row from another"


@entries
@dataclass(frozen=True, eq=False, repr=False)
class ClusterStatistics(Given, NestedSource):
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

    variables: tuple[str, ...]
    cluster: str | tuple[str, ...]
    nobs: float
    nclusters: float
    sizes: Floats
    counts: Floats
    means: Floats
    scatter: Floats
    ssw: Floats
    origin: Floats
    sums: ClusterSums | None = None
    ids: pd.Index[Any] | None = None
    nrows: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    dropped_rows: int = 0
    dropped_no_cluster: int = 0
    origins: frozenset[str] = frozenset()
    weighting: Weighting | None = None

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        # the checks of statistics of units are those of these: every variable is taken as one
        whole = self.whole
        if self.origin.shape != (len(self.variables),) or not np.isfinite(self.origin).all():
            raise DataError(f"the origin must be {len(self.variables)} finite numbers")
        if (np.diag(whole.ssw) < 0).any() or any((np.diag(one) < 0).any() for one in whole.scatter):
            raise DataError("sums of squares cannot be negative")
        if self.sums is not None:
            self.sums.require_fit(len(self.variables), self.nclusters)
        if self.has_inner and (self.sums is None or self.sums.within is None):
            raise DataError("statistics of nested clusters have those of every cluster, with its products")
        if not self.origins:
            object.__setattr__(self, "origins", frozenset({self._digest}))

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
    def has_inner(self) -> bool:
        """Whether these are statistics of clusters within clusters."""
        return isinstance(self.cluster, tuple)

    @property
    def cluster_text(self) -> str:
        """The columns of clusters as one writes them."""
        return repr(list(self.cluster) if isinstance(self.cluster, tuple) else self.cluster)

    @cached_property
    def _tree(self) -> list[tuple[Ints, pd.Index[Any], Ints]]:
        """Of each level from 2 on: the cluster that each lowest one is in, the ids of these, and their parents."""
        ids = self._kept.ids
        out: list[tuple[Ints, pd.Index[Any], Ints]] = []
        above = np.zeros(len(ids), dtype=np.int64)
        for k in range(ids.nlevels):
            labels = ids.get_level_values(k)
            number = pd.factorize(labels)[0]
            path = above * (number.max() + 1) + number
            _, first, codes = np.unique(path, return_index=True, return_inverse=True)
            order = np.argsort(np.argsort(first))  # by first appearance
            place = np.sort(first)
            out.append((order[codes].astype(np.int64), labels[place], above[place]))
            above = out[-1][0]
        return out[::-1]

    @property
    def whole(self) -> SampleStatistics:
        """The statistics with every variable taken as one of units, and means less `origin`."""
        return SampleStatistics(
            self.variables,
            (),
            len(self.variables),
            self.nobs if self.weighting is None else float(self.sizes @ self.counts),
            self.nclusters if self.weighting is None else float(self.counts.sum()),
            self.sizes,
            self.counts,
            self.means,
            self.scatter,
            self.ssw,
            "data",
        )

    @property
    def _digest(self) -> str:
        digest = hashlib.sha256(repr((self.variables, self.nobs, self.nclusters)).encode())
        for name in ARRAYS:
            digest.update(getattr(self, name).tobytes())
        if self.sums is not None:
            digest.update(repr(list(self.sums.ids[:1000])).encode())
        return digest.hexdigest()[:16]

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

    @property
    def keeps_products(self) -> bool:
        """Whether products within every single cluster are there."""
        return self.sums is not None and self.sums.within is not None

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
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the independent clusters; `DataError` if they were not kept."""
        return self._tree[-1][1] if self.has_inner else self._kept.ids

    def cluster_arrays(self, unit: Sequence[str], cluster: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of every cluster, for robust standard errors and resampling.

        Raises
        ------
        DataError
            If the clusters were not kept with their products.
        """
        sums = self._kept
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
        return self._reduced(unit, covariates, (), data.nboth, data.fixed, [])[1]

    def crossed(self, variables: Variables) -> tuple[_core.CrossedData, NDArray[np.int64]]:
        """Pairs of crossed clusters were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    # -- clusters within clusters ------------------------------------------------------------------------------

    complete = True

    @property
    def lowest_sizes(self) -> Floats:
        """Units of the lowest of nested clusters, shape (J,)."""
        return self._kept.sizes

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
        return _unvarying(self, names)

    def varying_in(self, names: Sequence[str], level: int) -> list[tuple[int, list[int]]]:
        """Of each variable in how many clusters of a level it differs between units, and some of these."""
        sums, p = self._kept, len(self.variables)
        out = []
        for at in self.positions(names):
            differs = sums.squares(at, p) > 0
            if level > 2:
                codes, ids, _ = self._tree[level - 2]
                mean = sums.means[:, at]
                first = np.empty(len(ids))
                first[codes[::-1]] = mean[::-1]
                differs |= np.abs(mean - first[codes]) > SAME * (np.abs(mean) + np.abs(self.origin[at]))
                differs = np.bincount(codes, differs, len(ids)) > 0
            found = np.flatnonzero(differs)
            out.append((len(found), found[:SOME].tolist()))
        return out

    def seen_rows(self, names: Sequence[str]) -> NoReturn:
        """Rows were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def unit_moments(self, names: Sequence[str]) -> list[tuple[float, float]]:
        """Mean and standard deviation of variables over units: a point and a scale."""
        sizes, means, products = self.cluster_arrays(names, ())
        mean = sizes @ means / sizes.sum()
        column = np.cumsum([0, *range(len(names), 1, -1)])  # of the squares
        squares = products[:, column[: len(names)]].sum(axis=0) + sizes @ (means - mean) ** 2
        return list(zip(mean.tolist(), np.sqrt(squares / sizes.sum()).tolist(), strict=True))

    def _nested_frame(self, variables: Variables) -> Frame:
        if not self.has_inner:
            raise DataError(
                f"these are statistics of clusters of one kind ({self.cluster}): for models of more levels make them "
                "of all, msem.summarize(data, cluster=[...], keep_clusters=True)"
            )
        means, values = self._kept.means + self.origin, []
        for (codes, labels, _), own in zip(self._tree, variables.measured[1:], strict=True):
            first = np.empty(len(labels), dtype=np.intp)
            first[codes[::-1]] = np.arange(len(codes))[::-1]
            values.append(means[first][:, self.positions(own)])
        numbers = [k for k, own in enumerate(variables.measured) for _ in own]
        return variables.numbers, numbers, values, [parent.tolist() for _, _, parent in self._tree[:-1]], []

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
        self,
        unit: Sequence[str],
        covariates: Sequence[str],
        cluster: Sequence[str],
        nboth: int,
        fixed: int,
        numbers: Sequence[int],
    ) -> _core.ReducedData:
        """The clusters reduced for random slopes: sizes, means and products are enough; see `SlopeStatistics`.

        Raises
        ------
        DataError
            If the clusters were not kept with their products.
        """
        return self._reduced(unit, covariates, cluster, nboth, fixed, numbers)[0]

    def _reduced(
        self,
        unit: Sequence[str],
        covariates: Sequence[str],
        cluster: Sequence[str],
        nboth: int,
        fixed: int,
        numbers: Sequence[int],
    ) -> tuple[_core.ReducedData, Floats]:
        at = [list(unit).index(name) for name in covariates]
        own = None if self.sampled is None else self.sampled.weights
        weights = np.empty(0) if own is None else own
        return _core.reduce_clusters(
            *self.cluster_arrays(unit, cluster), at, nboth, fixed, list(numbers), weights
        )

    @property
    def _kept(self) -> ClusterSums:
        if self.sums is None or not self.keeps_products:
            raise DataError(
                "this needs the statistics of the single clusters, which were not kept: make them with "
                "msem.summarize(..., keep_clusters=True)"
            )
        return self.sums

    @property
    def varying(self) -> tuple[str, ...]:
        """Variables that vary within clusters; the others are measured on clusters."""
        return tuple(
            name for name, square in zip(self.variables, np.diag(self.ssw), strict=True) if square > 0
        )

    @property
    def total_mean(self) -> pd.Series:
        """Means over units."""
        weights = self.sizes * self.counts
        mean = self.origin + weights @ self.means / weights.sum()
        return pd.Series(mean, index=list(self.variables), name="mean")

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

    def restrict(self, variables: Sequence[str]) -> ClusterStatistics:
        """Statistics of some of the variables, of the same rows.

        Raises
        ------
        DataError
            If a variable is not among them.
        """
        at = self.positions(variables)
        return replace(
            self,
            variables=tuple(variables),
            means=self.means[:, at],
            scatter=self.scatter[:, at][:, :, at],
            ssw=self.ssw[np.ix_(at, at)],
            origin=self.origin[at],
            sums=None if self.sums is None else self.sums.restrict(at, len(self.variables)),
        )

    def positions(self, names: Sequence[str]) -> list[int]:
        """Where variables stand; `DataError` for one that is not there."""
        try:
            require_known(names, self.variables)
        except DataError as error:
            raise DataError(str(error).replace("the data have", "the statistics have")) from None
        return [self.variables.index(name) for name in names]

    def _with_factor(self, factor: float) -> ClusterStatistics:
        """The same, each cluster counted by so many times its weight."""
        if self.weighting is None or factor == self.weighting.factor:
            return self
        share = factor / self.weighting.factor
        return replace(
            self,
            counts=share * self.counts,
            scatter=share * self.scatter,
            ssw=share * self.ssw,
            weighting=replace(self.weighting, factor=factor),
        )

    @property
    def _normalised(self) -> ClusterStatistics:
        """The same, with weights of clusters that add up to their number."""
        assert self.weighting is not None
        return self._with_factor(self.nclusters / float(self.weighting.totals[2]))

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


def require_same_variables(one: ClusterStatistics, two: ClusterStatistics) -> None:
    """Refuse statistics of different variables or cluster columns."""
    if set(one.variables) != set(two.variables):
        only = [listed(sorted(set(a.variables) - set(b.variables))) for a, b in ((one, two), (two, one))]
        raise DataError(
            f"cannot merge statistics of different variables: only the first have {only[0] or 'none'}, only the second "
            f"{only[1] or 'none'}. Rows that lack a value of any variable are left out, so summarize the same variables"
        )
    if one.cluster != two.cluster:
        raise DataError(
            f"cannot merge statistics by cluster column {one.cluster_text} and by {two.cluster_text}: rename the column"
        )


def combined(one: ClusterStatistics, two: ClusterStatistics) -> ClusterStatistics:
    """Statistics of both without looking at whether they have a summary in common."""
    if not one.nclusters:
        one, two = two, one  # which has a point within the data as origin
    two = two if one.variables == two.variables else two.restrict(one.variables)
    sums: ClusterSums | None = None
    parts: dict[str, Any] | None = None
    weighting, psus = one.weighting, None
    if one.weighting is not None and two.weighting is not None:
        weighting, psus = merged_weighting(one.weighting, two.weighting)
    elif one.weighting is not None or two.weighting is not None:
        known = one.weighting or two.weighting
        assert known is not None
        known.require_like(None)
    a, b = one.ids, two.ids
    ids = None if a is None or b is None else common_ids(a, b, str(one.cluster))
    if one.sums is not None and two.sums is not None:
        sums, parts, place, tally = merged_sums(
            (one.sums, one.origin, one.ssw), (two.sums, two.origin, two.ssw), str(one.cluster)
        )
        ids = sums.ids
        if weighting is not None and tally is not None:
            marks = merged_marks(one.sums, two.sums, place, tally, weighting.columns, psus)
            sums = replace(sums, marks=marks)
            parts = weighting.table(sums)
    elif ids is not None and len(ids) < len(one.ids) + len(two.ids):  # type: ignore[arg-type]
        shared = listed(list(one.ids.intersection(two.ids)), most=5)  # type: ignore[union-attr,arg-type]
        raise DataError(
            f"clusters occur on both sides of the sum: {shared}. Parts of one cluster can be put together only if all "
            "summaries keep their clusters: msem.summarize(..., keep_clusters=True)"
        )
    if parts is None:
        shift = two.origin - one.origin
        other = replace(two, means=two.means + shift)
        if weighting is not None:
            one, other = one._with_factor(1.0), other._with_factor(1.0)
        by_size = merge_sizes(
            (one.sizes, one.counts, one.means, one.scatter),
            (other.sizes, other.counts, other.means, other.scatter),
        )
        table: dict[str, Any] = dict(zip(BY_SIZE, by_size, strict=True)) | {"ssw": one.ssw + other.ssw}
        if weighting is not None:
            table["weighting"] = _merged_cells(weighting, one, other, by_size[0])
        parts = table
    names = dict.fromkeys([*one.dropped, *two.dropped])
    cells = parts["counts"] if weighting is None else parts["weighting"].cells
    found = replace(
        one,
        **parts,
        nobs=one.nobs + two.nobs,
        nclusters=float(cells.sum()),
        sums=sums,
        ids=ids,
        nrows=one.nrows + two.nrows,
        dropped={name: one.dropped.get(name, 0) + two.dropped.get(name, 0) for name in names},
        dropped_rows=one.dropped_rows + two.dropped_rows,
        dropped_no_cluster=one.dropped_no_cluster + two.dropped_no_cluster,
        origins=one.origins | two.origins,
    )
    return found if weighting is None or sums is not None else found._normalised


def _merged_cells(
    weighting: Weighting, one: ClusterStatistics, two: ClusterStatistics, sizes: Floats
) -> Weighting:
    """The weighting of both, whose clusters are counted by weights as given."""
    cells = np.zeros(len(sizes))
    for part in (one, two):
        assert part.weighting is not None
        cells[np.searchsorted(sizes, part.sizes)] += part.weighting.cells
    return replace(weighting, cells=cells, factor=1.0, psus=None)


def scaled_together(parts: Sequence[ClusterStatistics], nlevels: int) -> tuple[ClusterStatistics, ...]:
    """The groups of a sample with weights as they enter the likelihood; see `scaled_weights`.

    Parameters
    ----------
    parts : sequence of ClusterStatistics
    nlevels : {1, 2}

    Raises
    ------
    DataError
        If some have weights and others have not, or for one level clusters have weights or were not kept.
    """
    known = [part.weighting for part in parts if part.weighting is not None]
    if not known:
        return tuple(parts)
    for part in parts:
        known[0].require_like(part.weighting)
    psus, places = known[0].psus, [np.arange(0 if known[0].psus is None else len(known[0].psus.ids))]
    for own in known[1:]:
        if psus is None or own.psus is None:
            break
        psus, place = psus.joined(own.psus, same_numbers)
        places.append(place)
    moved = [
        replace(part, weighting=replace(own, psus=psus), sums=_with_psus(part.sums, place))
        for part, own, place in zip_longest(parts, known, places)
    ]
    if nlevels > 1:
        clusters, total = sum(own.cells.sum() for own in known), sum(own.totals[2] for own in known)
        return tuple(part._with_factor(clusters / total) for part in moved)
    columns, scale = known[0].columns, known[0].scale
    if columns.cluster_weights is not None:
        raise DataError(
            f"cluster_weights={columns.cluster_weights!r} of these statistics are for two-level models: a single-level "
            "model has weights= of its rows; summarize these with weights= alone"
        )
    if columns.weights is None or (scale == "none" and all(part.sums is None for part in parts)):
        return tuple(moved)
    sums = [part._kept for part in parts]
    total = sum(float(one.sizes.sum()) for one in sums)
    if scale == "none":
        pooled = 1.0
    elif scale == "size":
        pooled = sum(part.nobs for part in parts) / total
    else:
        pooled = total / sum(float(one.marks.squares.sum()) for one in sums if one.marks is not None)
    return tuple(
        replace(part, **replace(part.weighting, pooled=pooled).table(part._kept)) if part.weighting else part
        for part in moved
    )


def _with_psus(sums: ClusterSums | None, place: Ints | None) -> ClusterSums | None:
    """The clusters with their PSUs numbered anew."""
    if sums is None or sums.marks is None or sums.marks.psu is None or place is None:
        return sums
    return replace(sums, marks=replace(sums.marks, psu=place[sums.marks.psu]))


def two_level(
    given: ClusterStatistics,
    unit: Sequence[str],
    cluster: Sequence[str],
    nboth: int,
    *,
    found: list[Finding] | None = None,
) -> SampleStatistics:
    """Sufficient statistics of the variables of a two-level model.

    Parameters
    ----------
    given : ClusterStatistics
    unit, cluster : sequence of str
        Variables measured on units (those at both levels first) and on clusters only.
    nboth : int
        Number of `unit` variables that are at both levels.

    Raises
    ------
    DataError
        As `sample_statistics` of data; or if a variable is not among those given.
    """
    N, J = int(given.nobs), int(given.nclusters)
    own, every = given.positions(unit), given.positions([*unit, *cluster])
    report(undivided(N, J, unit), found)
    report(_unvarying(given, [*unit, *cluster]), found)
    _require_constant_within(given, cluster)
    statistics = replace(
        given.whole,
        unit=tuple(unit),
        cluster=tuple(cluster),
        nboth=nboth,
        means=given.means[:, every] + given.origin[every],
        scatter=given.scatter[:, every][:, :, every],
        ssw=given.ssw[np.ix_(own, own)],
    )
    report(confounded_levels(statistics, [name not in given.varying for name in unit], N, J), found)
    return statistics


def single_level(
    given: ClusterStatistics, variables: Sequence[str], *, found: list[Finding] | None = None
) -> SampleStatistics:
    """Sufficient statistics of single-level data: the rows are clusters of size one.

    Raises
    ------
    DataError
        If a variable is constant, or variables are collinear.
    """
    at = given.positions(variables)
    report(_unvarying(given, variables), found)
    scatter = _total_scatter(given)[np.ix_(at, at)]
    mean = given.total_mean.to_numpy()[at]
    total = float(given.sizes @ given.counts)
    return covariance_statistics(scatter, mean, int(given.nobs), variables, total, found=found)


def _total_scatter(given: ClusterStatistics) -> Floats:
    """Sums of squares and products over units about their means."""
    weights = given.sizes * given.counts
    deviations = given.means - weights @ given.means / weights.sum()
    between = np.tensordot(given.sizes, given.scatter, axes=1) + (deviations.T * weights) @ deviations
    total: Floats = given.ssw + between
    return total


def _unvarying(given: ClusterStatistics, names: Sequence[str]) -> Iterator[Finding]:
    total = np.diag(_total_scatter(given))
    for name, at in zip(names, given.positions(names), strict=True):
        if total[at] == 0:
            yield constant(name, given.total_mean.iloc[at])


def _require_constant_within(given: ClusterStatistics, cluster: Sequence[str]) -> None:
    """Refuse variables at level 2 only that differ between units of a cluster."""
    sums = given.sums
    for name in cluster:
        if name not in given.varying:
            continue
        if sums is not None and sums.within is not None:
            squares = sums.squares(given.variables.index(name), len(given.variables))
            codes = np.flatnonzero(squares > 0)
            require_constant_within([name], [(len(codes), codes[:5].tolist())], sums.ids)
        raise DataError(
            f"variable {name!r} is in the level-2 block only, but varies within clusters: put it in the level-1 block "
            "too, or use its cluster mean"
        )


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
        "cluster_products": sums is not None and sums.within is not None,
    }
    return pd.Series(report, dtype=object, name="disclosure")
