"""The sufficient statistics of a sample as a value.

A two-level sample is described by its distinct cluster sizes n_s, the number J_s of clusters of each size,
the mean and the sums of squares and products of their cluster vectors (unit means, cluster variables), and
the pooled within-cluster sums of squares and products. The description is additive over clusters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.checks import require_covariance, require_possible
from msem.data.complete_clusters import ClusterArrays, ClustersOfRows, RowArrays
from msem.data.given import Given
from msem.data.kinds import AtMostTwoLevels, WithoutSlopes
from msem.data.statistics import Design, Rows, Statistics
from msem.errors import DataError
from msem.model.variables import Variables

Floats = NDArray[np.float64]
BySize = tuple[Floats, Floats, Floats, Floats]  # sizes, counts, means, scatter of the clusters of each size

FORMAT = "msem sample statistics 1"
ARRAYS = ("sizes", "counts", "means", "scatter", "ssw")
SAME = 1e-8  # relative difference of moments that counts as none


@dataclass(frozen=True, eq=False)
class SampleStatistics(AtMostTwoLevels, WithoutSlopes, Given):
    """Sufficient statistics of a sample, for p unit variables, q cluster variables, S distinct cluster sizes.

    A single-level sample has no unit variables: every row is a cluster of size one.

    Attributes
    ----------
    variables : Variables
        Names by level: p measured on units, those at both levels first, and q measured on clusters.
    nobs, nclusters : float
        Units N and clusters J.
    sizes, counts : ndarray, shape (S,)
        Distinct cluster sizes, ascending, and the number of clusters of each.
    means : ndarray, shape (S, p + q)
        Mean of the cluster vectors (unit means, cluster variables) by size.
    scatter : ndarray, shape (S, p + q, p + q)
        Their sums of squares and products about that mean.
    ssw : ndarray, shape (p, p)
        Sums of squares and products about the cluster means, pooled over all clusters.
    source : str
        Where the statistics come from: "data", "moments", ...

    Raises
    ------
    DataError
        If shapes, totals or names do not fit together, or a number is not finite.
    """

    variables: Variables
    nobs: float
    nclusters: float
    sizes: Floats
    counts: Floats
    means: Floats
    scatter: Floats
    ssw: Floats
    source: str
    complete = True

    def __post_init__(self) -> None:
        for name in ARRAYS:
            array = np.array(getattr(self, name), dtype=np.float64)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        require_consistent_shapes(self)
        require_consistent_totals(self)

    def __eq__(self, other: object) -> bool:
        if type(other) is not SampleStatistics:
            return NotImplemented
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self)[1:])
        return self.variables == other.variables and all(np.array_equal(a, b) for a, b in pairs)

    @property
    def known_variables(self) -> Variables:
        """Names by level."""
        return self.variables

    @property
    def kind(self) -> Hashable:
        """Names by level and the source."""
        return self.variables, self.source

    @property
    def nvalues(self) -> float:
        """Number of data values: units times unit variables plus clusters times cluster variables."""
        return self.nobs * len(self.unit) + self.nclusters * len(self.cluster)

    @property
    def total_mean(self) -> Floats:
        """Means over units of the unit variables, over clusters of the cluster variables; shape (p + q,)."""
        p = len(self.unit)
        over_units = self.sizes * self.counts @ self.means[:, :p] / self.nobs
        return np.concatenate([over_units, self.counts @ self.means[:, p:] / self.nclusters])

    @property
    def pooled_within_cov(self) -> Floats:
        """Pooled within-cluster covariance matrix of the unit variables, ssw / (N - J); shape (p, p)."""
        return self.ssw / (self.nobs - self.nclusters)

    @property
    def cluster_scatter(self) -> Floats:
        """Sums of squares and products of all cluster vectors about their unweighted mean; (p + q, p + q)."""
        deviations = self.means - self.counts @ self.means / self.nclusters
        scatter: Floats = self.scatter.sum(axis=0) + deviations.T * self.counts @ deviations
        return scatter

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the cluster sizes."""
        return float(self.counts.sum() / (self.counts / self.sizes).sum())

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Sizes, counts, means, scatter and ssw."""
        return self.sizes, self.counts, self.means, self.scatter, self.ssw

    @property
    def unidentified(self) -> tuple[str, ...]:
        """No saturated moment: every value is there."""
        return ()

    @property
    def npatterns(self) -> tuple[int, ...]:
        """No patterns: every value is there."""
        return ()

    def likelihood(self, *, by_cluster: bool = False) -> _core.CompleteLikelihood:
        """The compiled likelihood; see `Statistics.likelihood`."""
        return self._likelihood_of_units if by_cluster else self._likelihood

    @cached_property
    def _likelihood(self) -> _core.CompleteLikelihood:
        return _core.CompleteLikelihood(
            self.nboth, self.ssw, self.sizes, self.counts, self.means, self.scatter
        )

    @cached_property
    def _likelihood_of_units(self) -> _core.CompleteLikelihood:
        q = len(self.cluster)
        return _core.CompleteLikelihood(
            0, self.scatter[0], self.counts, np.ones(1), self.means, np.zeros((1, q, q))
        )

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def clusters(self, rows: Rows) -> ClusterArrays:
        """Independent units of the rows; see `Statistics.clusters`."""
        if self.unit:
            if rows.sampled is None and rows.keeps_products:
                spread = np.sqrt(np.diag(self.cluster_scatter) / self.nclusters)
                scale = self.counts @ self.means / self.nclusters, spread
                return ClustersOfRows(rows, (self.unit, self.cluster), scale, self.sizes)
            return ClusterArrays(*rows.cluster_arrays(self.unit, self.cluster), rows.sampled)
        centred = not self.means.any()  # as samples of models without mean structure are
        if rows.cluster_count is not None:
            sizes, means, within = rows.cluster_arrays(self.cluster, ())
            about = sizes @ means / sizes.sum() if centred else 0.0
            return ClusterArrays(sizes, means - about, within, rows.sampled)
        about = vars(self).get("_centre") if rows.weights is None else None
        return RowArrays(
            rows.row_values(self.cluster), rows.sampled, rows.weights, centred=centred, about=about
        )

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[SampleStatistics, ClusterArrays]:
        """Statistics and clusters of some of the variables, each at one level only."""
        unit, cluster = names
        part = self.with_variables(Variables.of_units_and_clusters(unit, cluster, 0))
        if not self.unit:
            return part, part.clusters(rows)
        return part, ClusterArrays(*rows.cluster_arrays(*names), rows.sampled)

    def centred(self) -> SampleStatistics:
        """The statistics about their means, for models without mean structure."""
        if not self.means.any():
            return self
        out = replace(self, means=np.zeros_like(self.means))
        vars(out)["_centre"] = self.total_mean  # which need not be read off the rows again
        return out

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> SampleStatistics:
        """Statistics that complete data with these moments would have; see `Statistics.expected`."""
        return level_statistics(levels, variables, *sizes_of(self, rows), source)

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices, with divisors N and J, of variables measured on units and on clusters."""
        unit, cluster = names
        return _core.total_cov(*self.arrays, positions(unit, self.unit), positions(cluster, self.cluster))

    def difference(self, other: SampleStatistics) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        unit = np.sqrt(np.diag(self.cluster_scatter) + np.pad(np.diag(self.ssw), (0, len(self.cluster))))
        gap = np.abs(self.total_mean - other.total_mean)
        for k, name in enumerate(self.names):
            spread = float(unit[k]) / np.sqrt(self.nobs)
            if gap[k] > SAME * (spread + abs(float(other.total_mean[k]))):
                return f"the means of '{name}' differ"
        gap = np.abs(self.cluster_scatter - other.cluster_scatter) / np.outer(unit, unit)
        p = len(self.unit)
        gap[:p, :p] += np.abs(self.ssw - other.ssw) / np.outer(unit[:p], unit[:p])
        if gap.max() <= SAME:
            return ""
        own = gap.diagonal()
        if own.max() > SAME:
            return f"the variances of '{self.names[own.argmax()]}' differ"
        i, j = np.unravel_index(gap.argmax(), gap.shape)
        return f"the covariances of '{self.names[i]}' and '{self.names[j]}' differ"

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`."""
        if any(not float(n).is_integer() for n in (*self.sizes, *self.counts)):
            raise DataError(
                "samples can only be drawn for whole clusters: give LevelMoments their cluster_sizes, or raw data"
            )
        names = [name for own in fixed for name in own]
        if names and self.source != "data":
            raise DataError(
                "samples given the covariates need the covariates' raw data: fit the model to them, or with "
                "fixed_x=False"
            )
        arrays = {name: getattr(self, name) for name in ARRAYS}
        moments = [(one.mean, one.cov) for one in levels]
        more = {"moments": moments, "covariate": positions(names, self.names), "centred": centred}
        return Design(_core.ParametricDraws, arrays | more)

    def redrawn(self, drawn: _core.DrawnStatistics) -> SampleStatistics:
        """The statistics of a replicate that the core has drawn."""
        sizes, counts = drawn["sizes"], drawn["counts"]
        return replace(self, nobs=float(sizes @ counts), nclusters=float(counts.sum()), **drawn)

    def with_variables(self, variables: Variables) -> SampleStatistics:
        """Statistics of some of the variables; see `Statistics.with_variables`."""
        if variables == self.variables:
            return self
        rows = positions(variables.unit, self.unit)
        every = rows + [len(self.unit) + k for k in positions(variables.cluster, self.cluster)]
        return SampleStatistics(
            variables=variables,
            nobs=self.nobs,
            nclusters=self.nclusters,
            sizes=self.sizes,
            counts=self.counts,
            means=self.means[:, every],
            scatter=self.scatter[:, every][:, :, every],
            ssw=self.ssw[np.ix_(rows, rows)],
            source=self.source,
        )

    def merge(self, other: SampleStatistics) -> SampleStatistics:
        """Statistics of two samples of different clusters together (Chan, Golub & LeVeque, 1983).

        Raises
        ------
        DataError
            If the variables or their roles differ.
        """
        if self.variables != other.variables:
            raise DataError(
                f"cannot merge statistics of {self.names} and {other.names}: use the same variables"
            )
        sizes, counts, means, scatter = merge_sizes(
            (self.sizes, self.counts, self.means, self.scatter),
            (other.sizes, other.counts, other.means, other.scatter),
        )
        return SampleStatistics(
            variables=self.variables,
            nobs=self.nobs + other.nobs,
            nclusters=self.nclusters + other.nclusters,
            sizes=sizes,
            counts=counts,
            means=means,
            scatter=scatter,
            ssw=self.ssw + other.ssw,
            source=self.source if self.source == other.source else f"{self.source}, {other.source}",
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, which JSON keeps at full precision."""
        names = {"unit": list(self.unit), "cluster": list(self.cluster), "nboth": self.nboth}
        values = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        plain = {name: value.tolist() if name in ARRAYS else value for name, value in values.items()}
        return {"format": FORMAT, **names, **plain}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SampleStatistics:
        """Statistics from the output of `to_dict`.

        Raises
        ------
        DataError
            If the format is another one, a key is missing, or the contents are inconsistent.
        """
        if values.get("format") != FORMAT:
            raise DataError(f"not sample statistics: 'format' is {values.get('format')!r}, not {FORMAT!r}")
        needed = [field.name for field in fields(cls)[1:]]
        absent = [name for name in ("unit", "cluster", "nboth", *needed) if name not in values]
        if absent:
            raise DataError(f"sample statistics lack {', '.join(map(repr, absent))}")
        unit, cluster, both = values["unit"], values["cluster"], values["nboth"]
        if not 0 <= both <= len(unit):
            raise DataError(f"variables {(*unit, *cluster)} with {both} at both levels are inconsistent")
        given = {name: values[name] for name in needed}
        if not unit:
            given["ssw"] = np.empty((0, 0))  # nested lists lose the shape
        return cls(Variables.of_units_and_clusters(unit, cluster, both), **given)


def positions(names: Sequence[str], available: Sequence[str]) -> list[int]:
    """Where each name stands among the available ones."""
    for name in names:
        if name not in available:
            raise DataError(
                f"the statistics have no variable {name!r} of this kind, only {', '.join(available)}"
            )
    return [available.index(name) for name in names]


def merge_sizes(one: BySize, two: BySize) -> BySize:
    """Sizes, counts, means and scatter of two sets of clusters together (Chan, Golub & LeVeque, 1983)."""
    sizes = np.union1d(one[0], two[0])
    (n, mean, scatter), (m, other, more) = (_placed(part, sizes) for part in (one, two))
    counts = n + m
    difference = other - mean
    products = difference[:, :, None] * difference[:, None, :] * (n * m / counts)[:, None, None]
    return sizes, counts, mean + difference * (m / counts)[:, None], scatter + more + products


def _placed(part: BySize, sizes: Floats) -> tuple[Floats, Floats, Floats]:
    """Counts, means and scatter for more sizes, 0 where there are no clusters."""
    at, width = np.searchsorted(sizes, part[0]), part[2].shape[1]
    counts, means = np.zeros(len(sizes)), np.zeros((len(sizes), width))
    scatter = np.zeros((len(sizes), width, width))
    counts[at], means[at], scatter[at] = part[1:]
    return counts, means, scatter


def require_shape(name: str, array: Floats, shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape."""
    if array.shape != shape:
        raise DataError(f"{name} has shape {array.shape}, but the variables need {shape}")


def require_consistent_shapes(statistics: SampleStatistics) -> None:
    """Refuse arrays that do not fit the variables."""
    S, p, m = len(statistics.sizes), len(statistics.unit), len(statistics.names)
    shapes = {"sizes": (S,), "counts": (S,), "means": (S, m), "scatter": (S, m, m), "ssw": (p, p)}
    for name, shape in shapes.items():
        require_shape(name, getattr(statistics, name), shape)
    if len(set(statistics.names)) < m:
        raise DataError(f"variables {statistics.names} are inconsistent: each has one name")


def _not_finite(name: str, finite: NDArray[np.bool_], statistics: SampleStatistics) -> str:
    """Which numbers are not finite, with the variables that they are of if they are of any."""
    if name in ("sizes", "counts"):
        return f"{name} has values that are not finite: check the cluster sizes"
    own = statistics.unit if name == "ssw" else statistics.names
    matrix = name != "means"
    alone = finite.diagonal(axis1=-2, axis2=-1) if matrix else finite  # squares overflow first
    lost = ~alone.reshape(-1, len(own)).all(axis=0)
    if matrix and not lost.any():
        lost = ~finite.reshape(-1, len(own)).all(axis=0)
    listed = ", ".join(repr(own[k]) for k in np.flatnonzero(lost))
    return (
        f"{name} has values that are not finite, of {listed}: squares of its values are too large for a number, or the "
        "moments that were given have such values; divide the variable by its standard deviation, or check the moments"
    )


def require_consistent_totals(statistics: SampleStatistics) -> None:
    """Refuse numbers that are not finite, and sizes that do not add up to the totals."""
    for name in ARRAYS:
        finite = np.isfinite(getattr(statistics, name))
        if not finite.all():
            raise DataError(_not_finite(name, finite, statistics))
    sizes, counts = statistics.sizes, statistics.counts
    if not ((sizes > 0).all() and (np.diff(sizes) > 0).all() and (counts > 0).all()):
        raise DataError("cluster sizes must be positive, distinct and ascending, with positive counts")
    totals = (float(sizes @ counts), statistics.nobs), (float(counts.sum()), statistics.nclusters)
    if not all(math.isclose(*pair, rel_tol=1e-12, abs_tol=1e-8) for pair in totals):
        raise DataError("nobs and nclusters do not agree with the cluster sizes and their counts")


def expected_statistics(
    within_cov: ArrayLike,
    between_cov: ArrayLike,
    mean: ArrayLike,
    sizes: ArrayLike,
    counts: ArrayLike,
    variables: Variables,
    source: str = "moments",
) -> SampleStatistics:
    """Sufficient statistics that level-specific moments imply.

    With them the complete-data likelihood gives the Kullback-Leibler projection on the model: exact for balanced
    data without within-only variables, asymptotically efficient otherwise. Without the sizes of the clusters give
    one size, N / J.

    Parameters
    ----------
    within_cov : array_like, shape (p, p)
        Within-level covariance matrix of the unit variables.
    between_cov : array_like, shape (b + q, b + q)
        Between-level covariance matrix of the b variables at both levels and the cluster variables.
    mean : array_like, shape (p + q,)
        Means of the unit and the cluster variables.
    sizes, counts : array_like, shape (S,)
        Cluster sizes, ascending, and the number of clusters of each.
    variables, source
        As in `SampleStatistics`.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If shapes do not agree.
    """
    within, between = np.asarray(within_cov, dtype=np.float64), np.asarray(between_cov, dtype=np.float64)
    n, J = np.asarray(sizes, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    p, m, level2 = len(variables.unit), len(variables.names), variables.numbers[-1]
    require_shape("within_cov", within, (p, p))
    require_shape("between_cov", between, (len(level2), len(level2)))
    cov = np.zeros((len(n), m, m))
    cov[:, :p, :p] = within / n[:, None, None]
    cov[np.ix_(range(len(n)), level2, level2)] += between
    return SampleStatistics(
        variables=variables,
        nobs=float(n @ J),
        nclusters=float(J.sum()),
        sizes=n,
        counts=J,
        means=np.tile(np.asarray(mean, dtype=np.float64), (len(n), 1)),
        scatter=J[:, None, None] * cov,
        ssw=(n @ J - J.sum()) * within,
        source=source,
    )


def single_level_statistics(
    cov: Floats, mean: Floats, nobs: float, names: Sequence[str], source: str = "moments"
) -> SampleStatistics:
    """Statistics of a single-level sample with these moments, divisor `nobs`."""
    variables = Variables.of_one_level(names)
    return expected_statistics(np.empty((0, 0)), cov, mean, [1.0], [nobs], variables, source)


def moment_statistics(
    cov: pd.DataFrame,
    mean: pd.Series | Mapping[str, float] | None,
    nobs: float | None,
    *,
    rescale: bool,
) -> SampleStatistics:
    """Statistics of a single-level sample given by its moments.

    Parameters
    ----------
    cov : DataFrame
    mean : Series, mapping or None
    nobs : float
        Sample size.
    rescale : bool
        Multiply the matrix by (n - 1) / n: right for the usual unbiased estimate, wrong for one that is maximum
        likelihood already.

    Returns
    -------
    SampleStatistics

    Raises
    ------
    DataError
        If the moments are not those of a sample.
    """
    if not isinstance(nobs, Real) or not np.isfinite(nobs) or nobs <= 1:
        raise DataError(f"sample_nobs must be the number of observations behind sample_cov, not {nobs!r}")
    # that of as few observations as variables is singular
    matrix = require_covariance(cov, "sample_cov", positive_definite=nobs > np.shape(cov)[0])
    names = tuple(matrix.columns)
    factor = (nobs - 1) / nobs if rescale else 1.0
    means = np.zeros(len(names)) if mean is None else named_mean(mean, names)
    return single_level_statistics(factor * matrix.to_numpy(), means, nobs, names, source="moments")


def level_statistics(
    moments: Mapping[int, LevelArrays], variables: Variables, sizes: ArrayLike, counts: ArrayLike, source: str
) -> SampleStatistics:
    """Sufficient statistics that moments of the observed variables by level imply; see `expected_statistics`.

    The means of a variable at both levels are added up.
    """
    between = moments[max(moments)]
    within = moments[1].cov if variables.unit else np.empty((0, 0))
    mean = variables.summed([moments[level].mean for level in sorted(moments)])
    return expected_statistics(within, between.cov, mean, sizes, counts, variables, source)


def implied_two_levels(
    levels: Mapping[int, LevelArrays], variables: Variables, shapes: Mapping[Any, float], source: str
) -> SampleStatistics:
    """The same of two levels, for moments that a user gives; `DataError` if no clusters of these sizes have them."""
    require_possible(levels[1], levels[2], max(shapes))
    return level_statistics(levels, variables, list(shapes), list(shapes.values()), source)


def sizes_of(statistics: Statistics, rows: Rows | None) -> tuple[Floats, Floats]:
    """Distinct cluster sizes of a sample of one level or two, and their counts; in rows, holes or not, of all rows."""
    if rows is None:
        return statistics.sizes, statistics.counts
    if not statistics.unit:
        return np.ones(1), np.array([float(len(rows.row_values(statistics.cluster[:1])[0]))])
    sizes, counts = np.unique(np.bincount(rows.cluster_of_row), return_counts=True)
    return sizes.astype(np.float64), counts.astype(np.float64)


def named_mean(mean: pd.Series | Mapping[str, float], names: tuple[str, ...]) -> Floats:
    """Means in the order of the variables."""
    if not isinstance(mean, (pd.Series, Mapping)):
        raise DataError("sample_mean must be a Series or mapping from variable to mean")
    given = {str(k): float(v) for k, v in mean.items()}
    missing = [name for name in names if name not in given]
    if missing:
        raise DataError(f"sample_mean has no value for {', '.join(missing)}")
    values = np.array([given[name] for name in names])
    if not np.isfinite(values).all():
        raise DataError("sample_mean must be finite")
    return values
