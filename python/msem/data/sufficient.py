"""The sufficient statistics of a sample as a value.

A two-level sample is described by its distinct cluster sizes n_s, the number J_s of clusters of each size,
the mean and the sums of squares and products of their cluster vectors (unit means, cluster variables), and
the pooled within-cluster sums of squares and products. The description is additive over clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.products import ClusterProducts, cluster_products
from msem.errors import DataError

Floats = NDArray[np.float64]
BySize = tuple[Floats, Floats, Floats, Floats]  # sizes, counts, means, scatter of the clusters of each size

FORMAT = "msem sample statistics 1"
ARRAYS = ("sizes", "counts", "means", "scatter", "ssw")


@dataclass(frozen=True, eq=False)
class SampleStatistics:
    """Sufficient statistics of a sample, for p unit variables, q cluster variables, S distinct cluster sizes.

    A single-level sample has no unit variables: every row is a cluster of size one.

    Attributes
    ----------
    unit : tuple of str, length p
        Variables measured on units: those at both levels first, then the within-only ones.
    cluster : tuple of str, length q
        Variables measured on clusters (between-only).
    nboth : int
        Number of `unit` variables that are at both levels.
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

    unit: tuple[str, ...]
    cluster: tuple[str, ...]
    nboth: int
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
        if not isinstance(other, SampleStatistics):
            return NotImplemented
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))

    @property
    def names(self) -> tuple[str, ...]:
        """Unit variables, then cluster variables: the order of all mean vectors."""
        return self.unit + self.cluster

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

    def restrict(self, unit: Sequence[str], cluster: Sequence[str], nboth: int) -> SampleStatistics:
        """Statistics of some of the variables, in the order given.

        Raises
        ------
        DataError
            If a variable is not among those of its kind.
        """
        if (tuple(unit), tuple(cluster), nboth) == (self.unit, self.cluster, self.nboth):
            return self
        rows = positions(unit, self.unit)
        every = rows + [len(self.unit) + k for k in positions(cluster, self.cluster)]
        return SampleStatistics(
            unit=tuple(unit),
            cluster=tuple(cluster),
            nboth=nboth,
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
        if (self.unit, self.cluster, self.nboth) != (other.unit, other.cluster, other.nboth):
            raise DataError(
                f"cannot merge statistics of {self.names} and {other.names}: use the same variables"
            )
        sizes, counts, means, scatter = merge_sizes(
            (self.sizes, self.counts, self.means, self.scatter),
            (other.sizes, other.counts, other.means, other.scatter),
        )
        return SampleStatistics(
            unit=self.unit,
            cluster=self.cluster,
            nboth=self.nboth,
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
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if name in ARRAYS else value for name, value in values.items()}
        return {"format": FORMAT, **plain, "unit": list(self.unit), "cluster": list(self.cluster)}

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
        absent = [field.name for field in fields(cls) if field.name not in values]
        if absent:
            raise DataError(f"sample statistics lack {', '.join(map(repr, absent))}")
        given = {field.name: values[field.name] for field in fields(cls)}
        if not given["unit"]:
            given["ssw"] = np.empty((0, 0))  # nested lists lose the shape
        return cls(**given | {"unit": tuple(given["unit"]), "cluster": tuple(given["cluster"])})


@dataclass(frozen=True, eq=False)
class ClusterArrays:
    """Statistics of single clusters, from which the score of each cluster is computed.

    Attributes
    ----------
    sizes : ndarray, shape (J,)
        Units in each cluster.
    means : ndarray, shape (J, p + q)
        Cluster vectors: means of the unit variables, values of the cluster variables.
    within : ndarray, shape (J, p (p + 1) / 2)
        Sums of squares and products about the cluster mean, the lower triangle column by column:
        (0, 0), (1, 0), ..., (p-1, 0), (1, 1), (2, 1), ...
    """

    sizes: Floats
    means: Floats
    within: Floats

    @property
    def of_units(self) -> bool:
        """Whether there are products within clusters: never for the rows of a single-level sample by themselves."""
        return bool(self.within.shape[1] > 0)

    def scores(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Derivatives of the log-likelihoods of the clusters, shape (J, npar), for an objective of these variables."""
        return core.scores(theta, self.sizes, self.means, self.within, group)

    def loglik(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Log-likelihoods of the clusters, shape (J,)."""
        return core.cluster_loglik(theta, self.sizes, self.means, self.within, group)

    @cached_property
    def products(self) -> ClusterProducts | None:
        """Sums of products by size, from which sums of products of scores are computed; None where it does not pay."""
        return cluster_products(self.sizes, self.means, self.within)


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
    if len(set(statistics.names)) < m or not 0 <= statistics.nboth <= p:
        raise DataError(
            f"variables {statistics.names} with {statistics.nboth} at both levels are inconsistent"
        )


def require_consistent_totals(statistics: SampleStatistics) -> None:
    """Refuse numbers that are not finite, and sizes that do not add up to the totals."""
    for name in ARRAYS:
        if not np.isfinite(getattr(statistics, name)).all():
            raise DataError(
                f"{name} has values that are not finite: rescale the variables or check the moments"
            )
    sizes, counts = statistics.sizes, statistics.counts
    if not ((sizes > 0).all() and (np.diff(sizes) > 0).all() and (counts > 0).all()):
        raise DataError("cluster sizes must be positive, distinct and ascending, with positive counts")
    if not np.allclose([sizes @ counts, counts.sum()], [statistics.nobs, statistics.nclusters], rtol=1e-12):
        raise DataError("nobs and nclusters do not agree with the cluster sizes and their counts")
