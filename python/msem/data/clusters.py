"""The statistics of clusters as a value that is made once, merged, shared and fitted in place of data."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.clusterfile import read_values, write_values
from msem.data.columns import listed, require_known
from msem.data.complete import SampleStatistics, merge_sizes
from msem.data.complete_rows import confounded_levels, covariance_statistics
from msem.data.given import Given
from msem.data.screening import Finding, constant, report, require_constant_within, undivided
from msem.data.sums import ClusterSums, common_ids, merged_sums, same_numbers
from msem.data.survey import Sampled
from msem.data.weighting import Weighting, merged_marks, merged_weighting
from msem.entry import entries
from msem.errors import DataError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
BY_SIZE = ("sizes", "counts", "means", "scatter")
ARRAYS = (*BY_SIZE, "ssw", "origin")
NO_ROWS = "this needs raw data: statistics of clusters do not tell one row from another"


@entries
@dataclass(frozen=True, eq=False, repr=False)
class ClusterStatistics(Given):
    """Sufficient statistics of two-level data for any model of p variables; `msem.summarize` makes them.

    Take them in place of data in `msem.sem`, `msem.saturated`, `msem.segregated` and `CompiledModel`. `a + b` are the
    statistics of both.

    Attributes
    ----------
    variables : tuple of str, length p
    cluster : str
        Name of the column with the cluster ids.
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
    cluster: str
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
        if not self.origins:
            object.__setattr__(self, "origins", frozenset({self._digest}))

    def __repr__(self) -> str:
        kept = "" if self.sums is None else ", clusters kept"
        kept += "" if self.weighting is None else ", weighted"
        return (
            f"<msem.ClusterStatistics: {len(self.variables)} variables, {self.nobs:.0f} units in "
            f"{self.nclusters:.0f} clusters of {len(self.sizes)} sizes{kept}>"
        )

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
        """Clusters of a level, which are of one kind."""
        return self.cluster_count

    @property
    def known_variables(self) -> Variables:
        """Names by level: those that vary within clusters at both, the others between."""
        return Variables.of_levels([self.varying, self.variables])

    @property
    def known_options(self) -> Mapping[str, Any]:
        """The cluster column, and how the rows were sampled."""
        return {"cluster": self.cluster, **({} if self.weighting is None else self.weighting.options)}

    def scaled_with(self, others: Sequence[ClusterStatistics], nlevels: int) -> Sequence[ClusterStatistics]:
        """The groups of a sample with weights as they enter the likelihood; see `scaled_together`."""
        return scaled_together((self, *others), nlevels)

    @property
    def cluster_count(self) -> int:
        """Clusters, as a whole number."""
        return round(self.nclusters)

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters in the order of `cluster_arrays`; `DataError` if they were not kept."""
        return self._kept.ids

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
        """Rows of each cluster, shape (J,)."""
        return self.cluster_arrays((), ())[0]

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

    @property
    def lowest_sizes(self) -> Floats:
        """Clusters within clusters were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def nested(self, variables: Variables) -> _core.NestedData:
        """Clusters within clusters were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

    def nested_with_slopes(
        self, variables: Variables, fixed: Sequence[str], slopes: Sequence[Slope]
    ) -> _core.NestedData:
        """Clusters within clusters were not kept; always `DataError`."""
        raise DataError(NO_ROWS)

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
            f"cannot merge statistics by cluster column {one.cluster!r} and by {two.cluster!r}: rename the column"
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
    ids = common_ids(one.ids, two.ids, one.cluster) if one.ids is not None and two.ids is not None else None
    if one.sums is not None and two.sums is not None:
        sums, parts, place, tally = merged_sums(
            (one.sums, one.origin, one.ssw), (two.sums, two.origin, two.ssw), one.cluster
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
