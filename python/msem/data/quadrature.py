"""Statistics of two-level data for random slopes of covariates whose within parts are not observed.

These are covariates at both levels, and latent ones.

Given its slopes a cluster is normal, so that the likelihood is an integral over the slopes, by adaptive quadrature in
the core. It needs sizes, means and products of single clusters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.complete import SampleStatistics, positions
from msem.data.slopes import SMALL, SlopeStatistics, refuse
from msem.data.statistics import CountedClusters, Rows, Saturated
from msem.errors import UnsupportedError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Arrays = tuple[Floats, Floats, Floats]

NODES = {1: 15, 2: 9, 3: 7}  # in each dimension, by the number of slopes
HALF = 0.5  # eigenvalue of a correlation matrix between clusters to start from


@dataclass(frozen=True, eq=False)
class QuadratureStatistics(SlopeStatistics):
    """Statistics of a sample for a model with random slopes of covariates that are not observed within.

    `slopes` have the first indicators of covariates that are latent.

    Attributes
    ----------
    actual : tuple of str
        Covariate of each slope.
    latent : tuple of str
        Those that are latent.
    arrays_by_cluster : tuple of ndarray
        Sizes, means and products of the clusters, as `Rows.cluster_arrays` has them.
    nodes : int
        Of the rule, in each dimension.
    """

    plain: SampleStatistics
    arrays_by_cluster: Arrays
    actual: tuple[str, ...]
    nodes: int
    latent: tuple[str, ...] = ()

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """The latent covariates of level 1."""
        return {1: self.latent} if self.latent else {}

    def likelihood(self, *, by_cluster: bool = False) -> _core.QuadratureLikelihood:
        """The compiled likelihood; see `Statistics.likelihood`."""
        return self._integrated

    @cached_property
    def _integrated(self) -> _core.QuadratureLikelihood:
        at = positions(self.actual, (*self.unit, *self.latent))
        data = _core.SlopeClusterData(*self.arrays_by_cluster, self.nboth, at, self.nodes, len(self.latent))
        return _core.QuadratureLikelihood(data)

    def with_nodes(self, nodes: int) -> QuadratureStatistics:
        """The same with another number of nodes."""
        return replace(self, nodes=nodes)

    def clusters(self, rows: Rows) -> QuadratureClusters:
        """Independent units of the rows; see `Statistics.clusters`."""
        return QuadratureClusters(self.arrays_by_cluster[0])

    def new_clusters(self, rows: Rows) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("scores with random slopes of covariates that are latent or at both levels")

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
        plain = self.plain
        n, b, m = len(self.unit), self.nboth, len(self.slopes)
        pooled = plain.pooled_within_cov
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
        between = plain.cluster_scatter[np.ix_(both, both)] / self.nclusters
        between[:b, :b] -= pooled[:b, :b] / self.harmonic_size
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
            {1: LevelArrays(names, mean, within, n), 2: LevelArrays(second, means, whole, len(both))},
            np.nan,
            0,
            converged=False,
            latent=len(self.latent),
        )

    def with_variables(self, variables: Variables) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("statistics of some of the variables")

    def redrawn(self, drawn: Any) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn with random slopes of covariates that are latent or at both levels")

    def design(
        self, within: LevelArrays, between: LevelArrays, unit: Sequence[str], cluster: Sequence[str]
    ) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn with random slopes of covariates that are latent or at both levels")


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


def integrated(
    plain: SlopeStatistics,
    rows: Rows,
    covariates: Sequence[str],
    latent: Sequence[str] = (),
    nodes: int = 0,
) -> QuadratureStatistics:
    """The same statistics for slopes that are integrated over.

    Parameters
    ----------
    plain : SlopeStatistics
        As if the covariates, or first indicators of latent ones, were known within clusters.
    rows : Rows
    covariates, latent : sequence of str
        Covariate of each slope, and which of them are latent.
    nodes : int
        In each dimension; 0: as many as are accurate by experience.

    Raises
    ------
    UnsupportedError
        If values are missing, or the sample has weights, PSUs or strata.
    """
    if not plain.complete:
        refuse("missing values with random slopes of covariates that are latent or at both levels")
    if rows.sampled is not None:
        raise UnsupportedError(
            "weights, PSUs and strata are not available with random slopes of covariates that are latent or at both "
            "levels, which are integrated over: use observed covariates, centred within clusters, or leave them out"
        )
    known = {field.name: getattr(plain, field.name) for field in fields(SlopeStatistics)}
    arrays = rows.cluster_arrays(plain.unit, plain.cluster)
    return QuadratureStatistics(
        **known,
        arrays_by_cluster=arrays,
        nodes=nodes or NODES[len(plain.slopes)],
        actual=tuple(covariates),
        latent=tuple(latent),
    )


@dataclass(frozen=True, eq=False)
class QuadratureClusters(CountedClusters):
    """Single clusters of a likelihood that is integrated over slopes.

    Attributes
    ----------
    sizes : ndarray, shape (J,)
    """

    sizes: Floats
    of_units = True
    products = None
    sampled = None

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their variables knows them."""
        return likelihood.clusters()

    def posterior(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("scores with random slopes of covariates that are latent or at both levels")

    def pool(self, order: NDArray[np.intp]) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples of clusters with random slopes of covariates that are latent or at both levels")
