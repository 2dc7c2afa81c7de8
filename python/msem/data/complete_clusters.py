"""Single clusters of complete data, or rows of a single level, with what their scores are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, vech_index
from msem.data.kinds import CountedClusters
from msem.data.products import ClusterProducts, cluster_products, products_of_rows, row_products
from msem.data.statistics import Rows
from msem.data.survey import Sampled
from msem.model.variables import Variables

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ClusterArrays(CountedClusters):
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
    sampled : Sampled or None
        How they were sampled.
    """

    sizes: Floats
    means: Floats
    within: Floats
    sampled: Sampled | None = None

    @property
    def of_units(self) -> bool:
        """Whether there are products within clusters: never for the rows of a single-level sample by themselves."""
        return bool(self.within.shape[1] > 0)

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their variables knows them."""
        return likelihood.clusters(self.sizes, self.means, self.within)

    def saturated_influence(self, moments: Floats, nobs: float) -> Floats:
        """What each cluster of a single level adds to the moments beyond its share, shape (J, m)."""
        row, col = vech_index(self.means.shape[1])
        size, off = self.sizes[:, None], self.means - moments[len(row) :]
        products = size * off[:, row] * off[:, col]
        if self.of_units:
            products = products + self.within
        shares = np.column_stack([products - size * moments[: len(row)], size * off])
        return self.as_counted(np.asarray(shares / nobs, dtype=np.float64))

    def saturated_trace(
        self,
        likelihood: _core.Likelihood,
        levels: Sequence[LevelArrays],
        fixed: Sequence[bool],
        *,
        means: bool,
        expected: bool,
    ) -> float | None:
        """Trace of the saturated model; see `Clusters.saturated_trace`."""
        if (
            self.sampled is not None and self.sampled.design is not None
        ):  # of which a unit may be several clusters
            return None
        own = None if self.sampled is None else self.sampled.weights
        moments = [(one.mean, one.cov) for one in levels if one.names]
        known = self.products
        if known is not None and known.even and means:  # of whose scores there are no products
            return None
        if known is not None:
            made_up = likelihood.clusters(*known.probes)
            return _core.saturated_trace(
                made_up, moments, fixed, means, expected, readings=known.readings, sums=known.sums
            )
        counted = np.empty(0) if own is None else own
        return _core.saturated_trace(self.of(likelihood), moments, fixed, means, expected, counted)

    def posterior(self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]) -> _core.GroupData:
        """The clusters with model-implied moments, for scores of latent variables and distances."""
        return _core.GroupData(variables.shape, moments, self.sizes, self.means, self.within)

    def pool(self, order: NDArray[np.intp]) -> tuple[Floats, Floats, Floats]:
        """The clusters in some order, for the core to draw from."""
        return self.sizes[order], self.means[order], self.within[order]

    @cached_property
    def products(self) -> ClusterProducts | None:
        """Sums of products by size, from which sums of products of scores are computed; None where it does not pay."""
        if self.sampled is None:
            return cluster_products(self.sizes, self.means, self.within)
        if self.sampled.design is not None:  # whose units may be several clusters
            return None
        return cluster_products(self.sizes, self.means, self.within, self.sampled.weights)


class ClustersOfRows(ClusterArrays):
    """The clusters of rows without weights, whose arrays are made when they are asked for.

    Parameters
    ----------
    rows : Rows
    names : tuple of sequence of str
        Variables of units, and of clusters.
    scale : tuple of ndarray, shape (p + q,)
        Means and standard deviations of the cluster vectors, for products of little rounding.
    known_sizes : ndarray, shape (S,)
        Their distinct sizes.
    """

    rows: Rows
    names: tuple[Sequence[str], Sequence[str]]
    scale: tuple[Floats, Floats]
    known_sizes: Floats

    def __init__(
        self,
        rows: Rows,
        names: tuple[Sequence[str], Sequence[str]],
        scale: tuple[Floats, Floats],
        known_sizes: Floats,
    ) -> None:
        for name, value in (
            ("rows", rows),
            ("names", names),
            ("scale", scale),
            ("known_sizes", known_sizes),
            ("sampled", rows.sampled),
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def _arrays(self) -> tuple[Floats, Floats, Floats]:
        return self.rows.cluster_arrays(*self.names)

    @cached_property
    def sizes(self) -> Floats:
        """Units in each."""
        return self.rows.units_of_clusters

    @cached_property
    def means(self) -> Floats:
        """Cluster vectors."""
        return self._arrays[1]

    @cached_property
    def within(self) -> Floats:
        """Products about the cluster means."""
        return self._arrays[2]

    @property
    def of_units(self) -> bool:
        """Always: they are of two levels."""
        return True

    @cached_property
    def products(self) -> ClusterProducts | None:
        """Sums of products; from the rows at once where they come cluster by cluster."""
        found = products_of_rows(self.rows, *self.names, *self.scale, self.known_sizes)
        return super().products if found is None else found


class RowArrays(ClusterArrays):
    """The rows of a single level as clusters of one; their values are put together when they are asked for.

    Parameters
    ----------
    columns : sequence of ndarray, shape (N,)
    sampled : Sampled, optional
    weights : ndarray, shape (N,), optional
        For means that values are about.
    centred : bool
        Whether values are about their means.
    about : ndarray, shape (q,), optional
        These means, where they are known.
    """

    columns: tuple[Floats, ...]
    about: Floats
    centred: bool

    def __init__(
        self,
        columns: Sequence[Floats],
        sampled: Sampled | None = None,
        weights: Floats | None = None,
        *,
        centred: bool = False,
        about: Floats | None = None,
    ) -> None:
        if about is None or not centred:
            about = np.array([np.average(one, weights=weights) if centred else 0.0 for one in columns])
        for name, value in (
            ("columns", tuple(columns)),
            ("about", about),
            ("centred", centred),
            ("sampled", sampled),
        ):
            object.__setattr__(self, name, value)

    @cached_property
    def sizes(self) -> Floats:
        """One unit each."""
        return np.ones(len(self.columns[0]))

    @cached_property
    def means(self) -> Floats:
        """Their values."""
        out = np.empty((len(self.columns), len(self.columns[0])))
        for row, column, origin in zip(out, self.columns, self.about, strict=True):
            np.subtract(column, origin, out=row)
        return out.T

    @cached_property
    def within(self) -> Floats:
        """Nothing."""
        return np.empty((len(self.columns[0]), 0))

    @property
    def of_units(self) -> bool:
        """Never."""
        return False

    @cached_property
    def products(self) -> ClusterProducts | None:
        """Sums of products; see `ClusterArrays`."""
        if self.sampled is not None and self.sampled.design is not None:
            return None
        weights = None if self.sampled is None else self.sampled.weights
        return row_products(self.columns, self.about, weights, even=self.centred)
