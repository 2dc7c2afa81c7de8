"""Statistics of complete data in nested clusters: units in classes in schools.

The highest clusters are the independent ones. What counts of the units are their means and products within the lowest
clusters; clusters with the same numbers of the same kinds of clusters in them share what is computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import positions
from msem.data.frames import ClusteredData, columns_of
from msem.data.hierarchy import ManyLevels
from msem.data.screening import (
    Finding,
    constant,
    dependent,
    report,
    require_scale,
    undivided,
    unvarying,
    unvarying_within,
)
from msem.data.statistics import CountedClusters, Rows
from msem.errors import DataError, DataWarning, warn
from msem.model.variables import Variables

Floats = NDArray[np.float64]

FEW = 0.5  # share of ids that occur in several higher clusters, below which they may be mistakes


@dataclass(frozen=True, eq=False)
class NestedStatistics(ManyLevels):
    """Statistics of a sample of three levels.

    Attributes
    ----------
    variables : Variables
    data : _core.NestedData
        Variables are numbered in the order of `names`.
    source : str
    """

    variables: Variables
    data: _core.NestedData
    source: str = "data"

    @property
    def counted(self) -> tuple[float, ...]:
        """Units of each level."""
        upper = [float(weights.sum()) for weights in self._weights]
        return float(self._weights[0] @ self.data.sizes), *upper

    @cached_property
    def _weights(self) -> list[Floats]:
        """How often the clusters of each level count, the lowest first."""
        out = [self.data.weight]
        for parent in reversed(self.data.parent):
            out.append(out[-1][parent])
        return out[::-1]

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the lowest clusters, ascending."""
        return np.unique(self.data.sizes)

    @property
    def counts(self) -> Floats:
        """How many of the lowest clusters there are of each size."""
        place = np.unique(self.data.sizes, return_inverse=True)[1]
        return np.bincount(place, self._weights[0]).astype(np.float64)

    def _values(self, level: int) -> tuple[Floats, Floats]:
        """Values measured on a level about the origin, by cluster, and how often each counts; of units, means."""
        weights = self._weights[max(level - 1, 0)]
        return self.data.values[level].T, weights * self.data.sizes if level == 0 else weights

    @property
    def total_mean(self) -> Floats:
        """Means over the units of the level that each variable is measured on."""
        pairs = map(self._values, range(len(self.variables.levels)))
        parts = [np.average(values, axis=0, weights=weights) for values, weights in pairs]
        means: Floats = np.concatenate(parts) + self.data.origin
        return means

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on each level, with the numbers of its units as divisors."""
        out = []
        for level, (some, own) in enumerate(zip(names, self.variables.measured, strict=True)):
            at = positions(some, own)
            values, weights = self._values(level)
            off = values[:, at] - np.average(values[:, at], axis=0, weights=weights)
            products = (off.T * weights) @ off
            if level == 0:
                products = products + self.within_products[np.ix_(at, at)]
            out.append(products / self.counted[level])
        return tuple(out)

    @cached_property
    def within_products(self) -> Floats:
        """Products about the means of the lowest clusters, summed over these."""
        p = len(self.unit)
        col, row = np.triu_indices(p)
        out = np.empty((p, p))
        out[row, col] = out[col, row] = self.data.weight @ self.data.products
        return out

    # the likelihood

    def likelihood(self, *, by_cluster: bool = False) -> _core.NestedLikelihood:
        """The compiled likelihood."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.NestedLikelihood:
        return _core.NestedLikelihood(self.data)

    def clusters(self, rows: Rows) -> NestedClusters:
        """The highest clusters, of which the statistics keep what is needed."""
        return NestedClusters(self.data)

    def new_clusters(self, rows: Rows) -> NestedClusters:
        """Clusters of new rows of the same variables, for scores."""
        return NestedClusters(rows.nested(self.variables))


@dataclass(frozen=True, eq=False)
class NestedClusters(CountedClusters):
    """The highest clusters of a sample of three levels.

    Attributes
    ----------
    data : _core.NestedData
    """

    data: _core.NestedData
    of_units = True
    products = None
    sampled = None

    @cached_property
    def sizes(self) -> Floats:
        """Units in each of the highest clusters, shape (K,)."""
        out = self.data.sizes
        for parent in self.data.parent:
            out = np.bincount(parent, out).astype(np.float64)
        return out

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their sample knows them."""
        return likelihood.clusters()

    def posterior(self, shape: tuple[int, int, int], moments: tuple[Floats, ...]) -> NestedPosterior:
        """The clusters with the moments that a model implies at each level, latent variables last."""
        return NestedPosterior(self.data, tuple(zip(moments[::2], moments[1::2], strict=True)))

    def pool(self, order: NDArray[np.intp]) -> partial[_core.NestedPool]:
        """The clusters in some order, for the core to draw from."""
        return partial(_core.NestedPool, self.data, np.argsort(order).tolist())


Posterior = tuple[Floats, Floats, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class NestedPosterior:
    """Clusters with the moments that a model implies: what all data say about the variables of each level.

    Attributes
    ----------
    data : _core.NestedData
    moments : tuple of (mean, covariance matrix)
        Of each level, level 1 first, latent variables last.
    """

    data: _core.NestedData
    moments: tuple[tuple[Floats, Floats], ...]

    @cached_property
    def _likelihood(self) -> _core.NestedLikelihood:
        return _core.NestedLikelihood(self.data)

    def _evidence(self, level: int) -> Posterior:
        """Derivatives of the log-likelihood with respect to the means of a level, and minus the second ones."""
        sizes = [len(own) for own in self.data.levels]
        observed = [(mean[:n], cov[:n, :n]) for (mean, cov), n in zip(self.moments, sizes, strict=True)]
        scores, information, which = self._likelihood.evidence(observed, level - 1)
        n = sizes[level - 1]
        return scores.T, information.T.reshape(-1, n, n), which

    def level_posterior(self, level: int) -> Posterior:
        """Posterior means (J, d), covariance matrices (S, d, d), and which of these each cluster of a level has.

        Of the parts at this level of variables that are measured below, then of the latent variables: with
        derivatives s and H of the log-likelihood, E v = mean + Cov(v, y) s, Var v = cov - Cov(v, y) H Cov(y, v).
        """
        scores, information, which = self._evidence(level)
        mean, cov = self.moments[level - 1]
        n, below = (
            scores.shape[1],
            sum(self.data.measured[v] < level - 1 for v in self.data.levels[level - 1]),
        )
        own = np.r_[0:below, n : len(mean)]
        reach = cov[own, :n]
        return mean[own] + scores @ reach.T, cov[np.ix_(own, own)] - reach @ information @ reach.T, which

    def cluster_posterior(self) -> Posterior:
        """The same of the highest clusters."""
        return self.level_posterior(len(self.moments))

    def unit_posterior(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> Posterior:
        """Posterior means of the latent variables of level 1 of every unit, in the lowest clusters `codes`."""
        scores, information, which = self._evidence(1)
        mean, cov = self.moments[0]
        p = len(columns)
        centre = self.data.values[0].T + self.data.origin[:p]
        reach = cov[p:, :p]
        paths = np.linalg.solve(cov[:p, :p], reach.T)
        means = mean[p:] + (scores @ reach.T - centre @ paths)[codes] + np.column_stack(columns) @ paths
        return means, cov[p:, p:] - reach @ information @ reach.T, which[codes]

    def unit_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        NestedStatistics.refuse("maximum likelihood scores")

    def cluster_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        NestedStatistics.refuse("maximum likelihood scores")


def nested_statistics(
    data: ClusteredData, variables: Variables, *, found: list[Finding] | None = None
) -> NestedStatistics:
    """Statistics of complete rows in nested clusters.

    Parameters
    ----------
    data : ClusteredData
        With its inner clusters.
    variables : Variables
        Of as many levels as there are kinds of clusters, and one more.
    found : list of Finding, optional
        Takes what would be refused, for the sample of one group of several.

    Raises
    ------
    DataError
        If the data cannot tell the levels of the variables apart.

    Warns
    -----
    DataWarning
        If few ids of lower clusters occur in several higher ones, as mistakes would.
    """
    if not data.complete:
        NestedStatistics.refuse("data with missing values")
    if data.sampled is not None or data.weights is not None:
        NestedStatistics.refuse("weights, PSUs and strata")
    names = [name for own in variables.measured for name in own]
    report(unvarying({name: data.columns[name] for name in names}), found)
    inner = list(data.inner.values())[-1]
    report(undivided(len(inner.codes), len(inner.parent), variables.unit), found)
    _warn_of_repeated(data)
    # clusters by level, the lowest first, and those above them
    levels = list(data.inner.values())[::-1]
    codes = [*(clusters.codes for clusters in levels), data.codes]
    ids = [*(clusters.ids for clusters in levels), data.clusters]
    for level, own in enumerate(variables.measured[1:], 2):
        _require_constant(own, data, codes[level - 2], ids[level - 2], level, variables)
    nested = data.nested(variables)
    statistics = NestedStatistics(variables, nested)
    report(_confounded(statistics), found)
    report(_of_higher_level(variables, data, codes, ids), found)
    return statistics


def _warn_of_repeated(data: ClusteredData) -> None:
    upper = "the highest clusters"
    for name, clusters in data.inner.items():
        ids = clusters.ids.nunique()
        if 0 < clusters.repeated < FEW * ids:
            warn(
                f"{clusters.repeated} of the {ids} ids in {name!r} occur in several of {upper} and were taken for "
                f"different clusters: {len(clusters.parent)} in all",
                DataWarning,
            )
        upper = repr(name)


def _require_constant(
    names: Sequence[str],
    data: ClusteredData,
    codes: Any,
    ids: Any,
    level: int,
    variables: Variables,
) -> None:
    """Refuse variables of clusters that differ between units of a cluster."""
    varying = _core.cluster_values(columns_of(data, names), codes, len(ids))[1]
    for name, (count, some) in zip(names, varying, strict=True):
        if count:
            first = ", ".join(str(ids[code]) for code in some)
            raise DataError(
                f"variable {name!r} is in the blocks from level {level} upwards only, but varies within {count} of "
                f"{len(ids)} clusters of level {level} (such as {first}): put it in the block of the level that it is "
                "measured on too, or use its cluster mean"
            )


def _of_higher_level(
    variables: Variables, data: ClusteredData, codes: Sequence[Any], ids: Sequence[Any]
) -> Iterator[Finding]:
    """Variables of clusters that do not vary within the clusters one level above."""
    for level, own in enumerate(variables.measured[1:-1], 2):
        above = codes[level - 1], len(ids[level - 1])
        varying = _core.cluster_values(columns_of(data, own), *above)[1]
        for name, (count, _) in zip(own, varying, strict=True):
            if not count:
                yield Finding(
                    "within",
                    (name,),
                    f"variable {name!r} is in the level-{level} block, but does not vary within clusters of level "
                    f"{level + 1}: it is measured on those; move it to the level-{level + 1} block",
                )


def _confounded(statistics: NestedStatistics) -> Iterator[Finding]:
    """Variables without variance, or collinear ones, at the level that they are measured on."""
    data, unit = statistics.data, statistics.unit
    N, J = map(int, statistics.counted[:2])
    ssw = statistics.within_products
    p = len(unit)
    size = np.abs(statistics.total_mean[:p]) + np.sqrt(data.values[0].var(axis=1))
    require_scale(unit, ssw.diagonal() / N)
    yield from unvarying_within(unit, statistics.nboth, ssw.diagonal() == 0, ssw.diagonal(), N, size)
    if p <= N - J:
        yield from dependent(ssw, unit, " within clusters", range(statistics.nboth, p))
    covariances = statistics.covariances(*statistics.variables.measured)
    for level, own in enumerate(statistics.variables.measured[1:], 2):
        cov = covariances[level - 1]
        require_scale(own, cov.diagonal())
        for name, variance in zip(own, cov.diagonal(), strict=True):
            if variance == 0:
                yield constant(name, 0.0)
        if len(own) < statistics.counted[level - 1]:
            yield from dependent(cov, own, f" among the clusters of level {level}")
