"""Statistics of two-level data for random slopes of covariates whose within parts are not observed.

These are covariates at both levels, and latent ones.

Given its slopes a cluster is normal, so that the likelihood is an integral over the slopes, by adaptive quadrature in
the core. It needs sizes, means and products of single clusters, or of the units of a cluster with the same variables
observed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.clusters import ClusterStatistics
from msem.data.complete import positions
from msem.data.incomplete import IncompleteStatistics
from msem.data.kinds import CountedClusters
from msem.data.rows import ClusteredData
from msem.data.slopes import SMALL, SlopeStatistics, plain_statistics, refuse, regular, require_near
from msem.data.statistics import Design, Rows, Saturated
from msem.data.survey import Sampled
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]

NODES = {1: 15, 2: 9, 3: 7}  # in each dimension, by the number of slopes
HALF = 0.5  # eigenvalue of a correlation matrix between clusters to start from


@dataclass(frozen=True, eq=False)
class QuadratureStatistics(SlopeStatistics):
    """Statistics of a sample for a model with random slopes of covariates that are not observed within.

    `slopes` have the first indicators of covariates that are latent, and `reduced` sizes, means and products of the
    clusters, or of the units of a cluster with the same variables observed.

    Attributes
    ----------
    actual : tuple of str
        Covariate of each slope.
    latent : tuple of str
        Those that are latent.
    """

    reduced: _core.SlopeClusterData  # type: ignore[assignment]
    actual: tuple[str, ...] = ()
    latent: tuple[str, ...] = ()

    @property
    def nodes(self) -> int:  # type: ignore[override]
        """Of the rule, in each dimension."""
        return self.reduced.nodes

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """The latent covariates of level 1."""
        return {1: self.latent} if self.latent else {}

    def likelihood(self, *, by_cluster: bool = False) -> _core.QuadratureLikelihood:
        """The compiled likelihood; see `Statistics.likelihood`."""
        return self._integrated

    @cached_property
    def _integrated(self) -> _core.QuadratureLikelihood:
        return _core.QuadratureLikelihood(self.reduced)

    def with_nodes(self, nodes: int) -> QuadratureStatistics:
        """The same with another number of nodes."""
        return replace(self, reduced=self.reduced.with_nodes(nodes))

    def clusters(self, rows: Rows) -> QuadratureClusters:
        """Independent units of the rows; see `Statistics.clusters`."""
        return QuadratureClusters(self.reduced, rows.sampled)

    def new_clusters(self, rows: Rows) -> QuadratureClusters:  # type: ignore[override]
        """Clusters of new rows; see `Statistics.new_clusters`."""
        return QuadratureClusters(_cells(rows, self))

    def with_slopes(self, slopes: Sequence[Slope], carriers: Sequence[str]) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("saturated models of slopes of covariates that are latent or at both levels")

    def completed(self, rows: Rows) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse(
            "fractions of missing information with random slopes of covariates that are latent or at both levels, "
            "which need expected information,"
        )

    @property
    def full_clusters(self) -> int:
        """No clusters have coefficients of a covariate that is not observed."""
        return 0

    @cached_property
    def stand_in(self) -> Saturated:
        """Moments to start from, by regressions within clusters; see `Statistics.stand_in`."""
        n, b, m = len(self.unit), self.nboth, len(self.slopes)
        pooled, means_of_clusters, size = self.reduced.crude()
        if not self.complete:
            pooled = regular(pooled)
        x = sorted({self.unit.index(name) for name in self.actual if name not in self.latent})
        y = [k for k in range(n) if k not in x]
        paths = np.linalg.lstsq(pooled[np.ix_(x, x)], pooled[np.ix_(x, y)], rcond=None)[0]
        within = np.zeros((n + m, n + m))
        within[np.ix_(x, x)] = pooled[np.ix_(x, x)]
        within[np.ix_(y, y)] = pooled[np.ix_(y, y)] - paths.T @ pooled[np.ix_(x, y)]
        within[n:, n:] = np.eye(m)
        given = np.arange(n - self.fixed, n)
        within[np.ix_(given, given)] = self.covariances(self.unit[n - self.fixed :], ())[0]
        mean = np.concatenate([self.total_mean[:n], np.zeros(m)])
        mean[:b] = 0.0
        names = (*self.unit, *(f"{slope.name}*{slope.covariate}" for slope in self.slopes))
        both = [*range(b), *range(n, len(self.names))]
        between = np.array(means_of_clusters[np.ix_(both, both)])
        between[:b, :b] -= pooled[:b, :b] / size
        least = np.concatenate([SMALL * pooled.diagonal()[:b], np.zeros(len(both) - b)])
        np.fill_diagonal(between, np.maximum(between.diagonal(), least))
        between = HALF * between + (1 - HALF) * np.diag(between.diagonal())
        if self.cluster:
            between[b:, b:] = self.covariances((), self.cluster)[1]
        carriers = positions(self.carriers, self.unit)
        at = positions([slope.covariate for slope in self.slopes], self.unit)
        slopes = pooled[carriers, at] / pooled[at, at]
        variances = SMALL * within[carriers, carriers] / pooled[at, at]
        means = np.concatenate([self.total_mean[both], slopes])
        whole = np.zeros((len(both) + m,) * 2)
        whole[: len(both), : len(both)] = between
        whole[len(both) :, len(both) :] = np.diag(variances)
        for k, (c, v) in enumerate(zip(carriers, at, strict=True)):
            if c < b:
                means[c] -= slopes[k] * self.total_mean[v] * (v >= b)
        second = (*self.unit[:b], *self.cluster, *(slope.name for slope in self.slopes))
        return SlopeMoments(
            self._conditional(
                {1: LevelArrays(names, mean, within, n), 2: LevelArrays(second, means, whole, len(both))}
            ),
            np.nan,
            0,
            converged=False,
            latent=len(self.latent),
        )

    def with_variables(self, variables: Variables) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("statistics of some of the variables")

    def redrawn(self, drawn: Any) -> QuadratureStatistics:
        """The statistics of a replicate that the core has drawn."""
        return replace(self, reduced=drawn)

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`."""
        return Design.of_levels(_core.IntegratedParametricDraws, self.reduced, levels, self.variables, fixed)


@dataclass(frozen=True, eq=False)
class SlopeMoments(Saturated):
    """Moments to start from; latent covariates, which the likelihood knows of, have none.

    Attributes
    ----------
    latent : int
        How many there are.
    """

    latent: int = 0

    @property
    def moments(self) -> list[tuple[Floats, Floats]]:
        """Means and covariances by level, nan of latent covariates."""
        (mean, cov), between = super().moments
        n = self.levels[1].nobserved
        own = np.r_[:n, n + self.latent : len(mean) + self.latent]
        means = np.full(len(mean) + self.latent, np.nan)
        whole = np.zeros((len(means),) * 2)
        whole[range(n, n + self.latent), range(n, n + self.latent)] = np.nan
        means[own], whole[np.ix_(own, own)] = mean, cov
        return [(means, whole), between]


def integrated_statistics(
    data: ClusteredData | ClusterStatistics,
    variables: Variables,
    fixed: Sequence[str],
    slopes: Sequence[Slope],
    carriers: Sequence[str],
    exogenous: tuple[tuple[str, ...], ...],
    covariates: Sequence[str],
    latent: Sequence[str] = (),
) -> QuadratureStatistics:
    """Statistics of rows, or of single clusters, for slopes that are integrated over.

    Parameters
    ----------
    data : ClusteredData or ClusterStatistics
    variables : Variables
        Those of the model, without slopes.
    fixed : sequence of str
        Fixed covariates among those of units.
    slopes, carriers, exogenous
        See `QuadratureStatistics`.
    covariates, latent : sequence of str
        Covariate of each slope, and which of them are latent.

    Raises
    ------
    DataError, UnsupportedError
        As `slope_statistics`.
    """
    variables = variables.with_last(fixed)
    unit, lowest = variables.unit, variables.alone[0]
    plain = plain_statistics(data, variables)
    for name in dict.fromkeys(covariates):
        if name in lowest:
            variance = plain.covariances((name,), ())[0][0, 0]
            require_near(name, float(plain.total_mean[unit.index(name)]), float(np.sqrt(variance)))
    at = positions(covariates, (*unit, *latent))
    sampled = data.sampled
    weights = np.empty(0) if sampled is None or sampled.weights is None else sampled.weights
    settings: tuple[Any, ...] = plain.nboth, len(fixed), at, NODES[len(slopes)], len(latent), weights
    if isinstance(plain, IncompleteStatistics):
        reduced = _core.SlopeClusterData(plain.data, data.cell_products(unit, plain.data), *settings)
    else:
        reduced = _core.SlopeClusterData(*data.cluster_arrays(unit, variables.cluster), *settings)
    return QuadratureStatistics(
        plain,
        len(fixed),
        tuple(slopes),
        tuple(carriers),
        reduced,
        exogenous,
        tuple(covariates),
        tuple(latent),
    )


def _cells(rows: Rows, known: QuadratureStatistics) -> _core.SlopeClusterData:
    """Other rows as the likelihood of a sample takes them."""
    at = positions(known.actual, (*known.unit, *known.latent))
    settings: tuple[Any, ...] = known.nboth, known.fixed, at, known.nodes, len(known.latent), np.empty(0)
    columns = rows.row_values(known.unit)
    if not any(np.isnan(column).any() for column in columns):
        return _core.SlopeClusterData(*rows.cluster_arrays(known.unit, known.cluster), *settings)
    cells = _core.incomplete_data(
        columns, rows.row_values(known.cluster), rows.cluster_of_row, len(rows.identifiers), known.nboth
    )
    return _core.SlopeClusterData(cells, rows.cell_products(known.unit, cells), *settings)


@dataclass(frozen=True, eq=False)
class QuadratureClusters(CountedClusters):
    """Single clusters of a likelihood that is integrated over slopes.

    Attributes
    ----------
    data : _core.SlopeClusterData
    sampled : Sampled or None
        How they were sampled.
    """

    data: _core.SlopeClusterData
    sampled: Sampled | None = None
    of_units = True
    products = None

    @property
    def sizes(self) -> Floats:
        """Units in each cluster, shape (J,)."""
        return self.data.sizes

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their variables knows them."""
        return likelihood.clusters()

    def posterior(
        self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]
    ) -> IntegratedPosterior:
        """The clusters with model-implied moments, those of products and slopes included."""
        return IntegratedPosterior(_core.IntegratedSlopes(self.data, moments), len(self.data.sizes))

    def pool(self, order: NDArray[np.intp]) -> partial[_core.IntegratedPool]:
        """The clusters in some order, for the core to draw from."""
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        return partial(_core.IntegratedPool, self.data, place)


@dataclass(frozen=True, eq=False)
class IntegratedPosterior:
    """Clusters with the moments that a model implies: posterior moments by the quadrature of the likelihood.

    They are those of a mixture of normal distributions, one for each node, and not of a normal one.

    Attributes
    ----------
    core : _core.IntegratedSlopes
    count : int
        Clusters.
    """

    core: _core.IntegratedSlopes
    count: int

    def cluster_posterior(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Posterior means (J, d), covariance matrices (J, d, d) and their numbers; see `SlopePosterior`."""
        mean, cov = self.core.clusters()
        return mean.T, cov.T.reshape(-1, len(mean), len(mean)), np.arange(self.count, dtype=np.int64)

    def unit_posterior(
        self, columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Those of the latent variables of level 1 of every unit: covariates of slopes first."""
        mean, cov = self.core.units(columns, codes, self.count)
        d = mean.shape[1]
        return mean, cov.T.reshape(-1, d, d), np.arange(len(mean), dtype=np.int64)

    def draw(self, columns: Sequence[Floats], codes: NDArray[np.int64], seed: int) -> tuple[Floats, Floats]:
        """One draw of what is unknown of clusters (J, d) and units (N, d), in the order of the posterior means."""
        clusters, units = self.core.draw(columns, codes, self.count, seed)
        return clusters.T, units

    def unit_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("maximum likelihood scores")

    def cluster_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("maximum likelihood scores")
