"""Statistics of data in nested clusters: units in classes in schools.

The highest clusters are the independent ones. What counts of the units are their means and products within the cells of
the lowest clusters, the units that have the same variables observed; clusters with the same holes and the same numbers
of the same kinds of clusters in them share what is computed.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.complete import positions
from msem.data.hierarchy import LevelPosteriors, ManyLevels, OfUnits, Posterior
from msem.data.kinds import CountedClusters
from msem.data.nesting import NestedSource
from msem.data.screening import (
    Finding,
    constant,
    dependent,
    report,
    require_constant_within,
    require_scale,
    seldom_observed,
    undivided,
    unvarying_within,
)
from msem.data.shapes import Tree, one_by_one
from msem.data.squared_distances import squared_distances
from msem.data.statistics import Rows
from msem.data.survey import Sampled
from msem.errors import DataError, DataWarning, warn
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEWEST = 2  # clusters that must have two variables for their covariance between clusters
FEW = 0.5  # share of ids that occur in several higher clusters, below which they may be mistakes


class OfNestedClusters(ManyLevels):
    """What statistics of nested clusters have in common, with random slopes or without."""

    draws = _core.NestedParametricDraws

    if TYPE_CHECKING:
        data: _core.NestedData

    def likelihood(self, *, by_cluster: bool = False) -> _core.NestedLikelihood:
        """The compiled likelihood."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.NestedLikelihood:
        return _core.NestedLikelihood(self.data)

    @property
    def tree(self) -> Tree | None:
        """The clusters in which anything is observed; see `Statistics.tree`. None where they count by weights."""
        if any((self.data.weights(level) != 1).any() for level in range(1, len(self.data.levels))):
            return None
        sizes, parents, kept = self.data.sizes, [], self.data.sizes > 0
        for parent in self.data.parent:
            above, place = np.unique(parent[kept], return_inverse=True)
            parents.append(place.astype(np.int64))
            kept = np.isin(np.arange(parent.max() + 1), above)
        return sizes[self.data.sizes > 0], tuple(parents)

    def clusters(self, rows: Rows) -> NestedClusters:
        """The highest clusters, of which the statistics keep what is needed."""
        return NestedClusters(self.data, rows.sampled)


@dataclass(frozen=True, eq=False)
class NestedStatistics(OfNestedClusters):
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

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return self.data.complete

    @property
    def npatterns(self) -> tuple[int, ...]:
        """Patterns of observed variables of each level, level 1 first; empty where no value is missing."""
        return () if self.complete else tuple(map(len, self.data.patterns))

    @cached_property
    def _weights(self) -> list[Floats]:
        """How often the clusters of each level count, the lowest first."""
        return [self.data.weights(level) for level in range(1, len(self.variables.levels))]

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the lowest clusters, in units with anything observed, ascending."""
        return np.unique(self.data.sizes[self.data.sizes > 0])

    @property
    def counts(self) -> Floats:
        """How many of the lowest clusters there are of each size."""
        filled = self.data.sizes > 0
        place = np.unique(self.data.sizes[filled], return_inverse=True)[1]
        return np.bincount(place, self._weights[0][filled]).astype(np.float64)

    @cached_property
    def _moments(self) -> list[tuple[Floats, Floats, Floats]]:
        """Of the variables measured on each level: means, how many units have both of two, and covariances."""
        return [self.data.moments(level) for level in range(len(self.variables.levels))]

    @cached_property
    def observed(self) -> tuple[Floats, Floats]:
        """Number of observed values and their means, over the units of the level that each is measured on."""
        means, pairs, _ = zip(*self._moments, strict=True)
        return np.concatenate([one.diagonal() for one in pairs]), np.concatenate(means)

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return float(self.observed[0].sum())

    @property
    def total_mean(self) -> Floats:
        """Means over the units of the level that each variable is measured on."""
        return self.observed[1]

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on each level, with the numbers of its units as divisors.

        Of values that are both observed; `fit_measures` and the like ask for variables without holes only.
        """
        at = [positions(some, own) for some, own in zip(names, self.variables.measured, strict=True)]
        return tuple(cov[np.ix_(own, own)] for own, (_, _, cov) in zip(at, self._moments, strict=True))

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated covariances that the data say nothing about, by name."""
        if self.complete:
            return ()
        upper = range(1, len(self.variables.levels))
        coverage = [self._moments[0][1], *map(self.data.clusters_with_pairs, upper)]
        known = [name for own in self.variables.measured for name in own]
        out = []
        for level, (names, count) in enumerate(zip(self.variables.levels, coverage, strict=True), 1):
            suffix, fewest = (f".l{level}", FEWEST) if level > 1 else ("", 1)
            at = [known.index(name) for name in names]
            pairs = itertools.combinations(at, 2)
            out += [f"{known[i]}~~{known[j]}{suffix}" for i, j in pairs if count[i, j] < fewest]
        return tuple(out)

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> NestedStatistics:
        """Statistics that complete data with these moments would have; see `Statistics.expected`."""
        part = self.with_variables(variables)
        moments = [(levels[k].mean, levels[k].cov) for k in sorted(levels)]
        data = part.data.expected(moments, self.data.sizes if rows is None else rows.lowest_sizes)
        return NestedStatistics(variables, data, source)

    @property
    def shapes(self) -> Mapping[Any, float]:
        """How many of the highest clusters there are of each shape; see `shapes`."""
        own: list[Any] = self.data.sizes.tolist()
        for parent in self.data.parent:
            above: list[list[Any]] = [[] for _ in range(parent.max(initial=-1) + 1)]
            for shape, of in zip(own, parent.tolist(), strict=True):
                above[of].append(shape)
            own = [tuple(sorted(parts)) for parts in above]
        out: Counter[Any] = Counter()
        for shape, weight in zip(own, self.data.weight.tolist(), strict=True):
            out[shape] += weight
        return {shape: out[shape] for shape in sorted(out)}

    # the likelihood

    def new_clusters(self, rows: Rows) -> NestedClusters:
        """Clusters of new rows of the same variables, for scores."""
        return NestedClusters(rows.nested(self.variables), rows.sampled)


def implied_nested(
    levels: Mapping[int, LevelArrays], variables: Variables, shapes: Mapping[Any, float], source: str
) -> NestedStatistics:
    """Statistics that complete data of nested clusters with these moments would have; see `implied_statistics`."""
    sizes, parents = one_by_one(dict.fromkeys(shapes, 1))
    measured = variables.measured
    p = len(measured[0])
    clusters = [len(sizes), *(parent[-1] + 1 for parent in parents)]
    values = [np.zeros((n, len(own))) for n, own in zip(clusters, measured[1:], strict=True)]
    numbers = [k for k, own in enumerate(measured) for _ in own]
    none = np.zeros((len(sizes), p)), np.zeros((len(sizes), p * (p + 1) // 2))
    above = [parent.tolist() for parent in parents]
    data = _core.NestedData(variables.numbers, numbers, values, above, [], sizes, *none)
    counted = NestedStatistics(variables, data.weighted(np.array(list(shapes.values()))))
    try:
        return counted.expected(levels, variables, source)
    except ValueError as error:
        raise DataError(
            "no values of clusters can have these moments: the covariance matrix of level 2, plus that of level 1 over "
            "the size of a cluster, is not positive definite, or that of a higher level plus what the lower ones add "
            "to the means of its clusters is not: check the matrices, their order (level 1 first), units and "
            "cluster_sizes"
        ) from error


@dataclass(frozen=True, eq=False)
class NestedClusters(CountedClusters):
    """The highest clusters of a sample of three levels.

    Attributes
    ----------
    data : _core.NestedData
    sampled : Sampled or None
    places : tuple of int
        See `NestedPosterior`.
    """

    data: _core.NestedData
    sampled: Sampled | None = None
    places: tuple[int, ...] = ()
    of_units = True
    products = None

    @cached_property
    def sizes(self) -> Floats:
        """Units with anything observed in each of the highest clusters, shape (K,)."""
        out = self.data.sizes
        for parent in self.data.parent:
            out = np.bincount(parent, out).astype(np.float64)
        return out

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their sample knows them."""
        return likelihood.clusters()

    def posterior(self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]) -> NestedPosterior:
        """The clusters with the moments that a model implies at each level, latent variables last."""
        return NestedPosterior(self.data, tuple(moments), self.places)

    def pool(self, order: NDArray[np.intp]) -> partial[_core.NestedPool]:
        """The clusters in some order, for the core to draw from."""
        return partial(_core.NestedPool, self.data, np.argsort(order).tolist())


@dataclass(frozen=True, eq=False)
class NestedPosterior(LevelPosteriors):
    """Clusters with the moments that a model implies: what all data say about the variables of each level.

    Attributes
    ----------
    data : _core.NestedData
    moments : tuple of (mean, covariance matrix)
        See `LevelPosteriors`.
    places : tuple of int
        Where the covariates of the slopes of level 1 stand among the variables of units.
    """

    data: _core.NestedData
    moments: tuple[tuple[Floats, Floats], ...]
    places: tuple[int, ...] = ()

    @cached_property
    def _likelihood(self) -> _core.NestedLikelihood:
        return _core.NestedLikelihood(self.data)

    def evidence(self, level: int) -> Posterior:
        """Derivatives of the log-likelihood with respect to the means of a level, and minus the second ones."""
        scores, information, which = self._likelihood.evidence(self.observed, level - 1)
        n = len(scores)
        return scores.T, information.T.reshape(-1, n, n), which

    def unit_posterior(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> Posterior:
        """Posterior means of the latent variables of level 1 of every unit, in the lowest clusters `codes`."""
        if any(self._slopes(0)[0]):
            return self._with_slopes(columns, codes)
        return self._of_units(columns, codes).posterior(*self.moments[0])

    def _with_slopes(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> Posterior:
        """The same with random slopes at level 1, of which each unit has its own covariates."""
        found, spread = _core.slope_unit_scores(*self._effects(columns, self.moments[0], codes))
        d = found.shape[1]
        return found, spread.T.reshape(-1, d, d), np.arange(len(found), dtype=np.int64)

    def _effects(
        self, columns: Sequence[Floats], moments: tuple[Floats, Floats], codes: NDArray[np.int64]
    ) -> tuple[Any, ...]:
        """What the core is told of units with random slopes, with moments of level 1."""
        effects, variances, which = self._likelihood.effects(self.observed)
        p = len(columns)
        mean, cov = moments[0].copy(), moments[1]
        for numbers, (own, _) in zip(self.data.levels[1:], self.moments[1:], strict=True):
            for number, value in zip(numbers, own, strict=False):
                if number < p:
                    mean[number] += value
        covariates = [columns[k] for k in self.places]
        return p, 0, mean, cov, columns, covariates, codes, effects, variances, which

    def unit_distances(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Distance of each unit from what all else predicts, and its degrees of freedom; see `OfUnits.distances`."""
        if any(self._slopes(0)[0]):
            both, fixed, *rest = self._effects(columns, self.observed[0], codes)
            return _core.slope_unit_distances(both, fixed, given, *rest)
        return self._of_units(columns, codes).distances(given, ~np.isnan(np.column_stack(columns)))

    def whole_distances(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Squared distance of all data of each of the highest clusters from the model, and its degrees of freedom.

        With s = V^-1 r, what all data say about the means, it is s'r; less that of the covariates `given`, which are
        numbers of variables at one level only. With random slopes see `squared_distances`.
        """
        data = self.data
        if data.slopes:
            return self._with_products(given, columns, codes)
        mean = np.zeros(len(data.measured))
        for numbers, (own, _) in zip(data.levels, self.moments, strict=True):
            mean[numbers] += own[: len(numbers)]
        units = self._of_units(columns, codes)
        parts: tuple[Floats, Floats] = (np.zeros(0), np.zeros(0))
        for level, numbers in enumerate(data.levels):
            measured = [v for v in numbers if data.measured[v] == level]
            at = [numbers.index(v) for v in measured]
            if level == 0:
                off, scores = np.column_stack(columns) - mean[measured], units.scores
            else:
                off = data.values[level].T + data.origin[measured] - mean[measured]
                off = np.where(self._observed(level), off, np.nan)
                scores = self.evidence(level + 1)[0][:, at]
            fixed = [k for k, v in enumerate(measured) if v in given]
            known = off[:, fixed]
            cov = self.moments[level][1][np.ix_([at[k] for k in fixed], [at[k] for k in fixed])]
            own_distance = np.nansum(scores * off, axis=1) - (known * np.linalg.solve(cov, known.T).T).sum(
                axis=1
            )
            own_df = (~np.isnan(off)).sum(axis=1) - float(len(fixed))
            if level:
                parent = codes if level == 1 else data.parent[level - 2]
                below = [np.bincount(parent, one, len(off)) for one in parts]
                own_distance, own_df = own_distance + below[0], own_df + below[1]
            parts = own_distance, own_df
        return parts

    def _with_products(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Distances of the highest clusters with random slopes."""
        data, held = self.data, []
        count = np.zeros(0)
        for level, numbers in enumerate(data.levels):
            measured = [v for v in numbers if data.measured[v] == level]
            fixed = [v for v in measured if v in given]
            products = sum(self._slopes(level)[0])
            held.append([*(numbers.index(v) for v in fixed), *range(len(numbers), len(numbers) + products)])
            seen = ~np.isnan(np.column_stack(columns)) if level == 0 else self._observed(level)
            own = (
                seen[:, [measured.index(v) for v in measured if v not in fixed]]
                .sum(axis=1)
                .astype(np.float64)
            )
            if level:
                parent = codes if level == 1 else data.parent[level - 2]
                own += np.bincount(parent, count, len(own))
            count = own
        clusters = self._likelihood.clusters()
        return squared_distances(self._likelihood, clusters, self.observed, held, count), count

    def _observed(self, level: int) -> Bools:
        """Which of the variables measured on a level (from 0) each cluster has."""
        patterns = self.data.patterns[level]
        count = sum(v == level for v in self.data.measured)
        out = np.zeros((len(patterns), count), dtype=bool)
        for row, own in zip(out, patterns, strict=True):
            row[own] = True
        return out[self.data.pattern[level]]

    def _of_units(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> OfUnits:
        scores, information, which = self.evidence(1)
        p, data, cov = len(columns), self.data, self.moments[0][1]
        values = np.column_stack(columns) - data.origin[:p]
        cell = self._cells(values, codes)
        found, own = np.zeros(values.shape), cell >= 0
        found[own] = scores[cell[own]]
        for number, pattern in enumerate(data.patterns[0]):
            rows = np.flatnonzero(own)[data.pattern[0][cell[own]] == number]
            if len(rows) and pattern:
                off = values[np.ix_(rows, pattern)] - data.values[0].T[np.ix_(cell[rows], pattern)]
                found[np.ix_(rows, pattern)] += np.linalg.solve(cov[np.ix_(pattern, pattern)], off.T).T
        return OfUnits(found, information, np.where(own, which[cell], -1))

    def _cells(self, values: Floats, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """The cell of each unit, -1 where nothing is observed."""
        data = self.data
        found = {tuple(pattern): number for number, pattern in enumerate(data.patterns[0])}
        distinct, of = np.unique(~np.isnan(values), axis=0, return_inverse=True)
        number = np.array([found.get(tuple(np.flatnonzero(row)), -1) for row in distinct])[of.ravel()]
        keys = data.cluster_of_cell * len(found) + data.pattern[0]
        order = np.argsort(keys)
        at = np.searchsorted(keys, codes * len(found) + number, sorter=order)
        return np.where(number >= 0, order[np.minimum(at, len(order) - 1)], -1)

    def unit_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        NestedStatistics.refuse("maximum likelihood scores")

    def cluster_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        NestedStatistics.refuse("maximum likelihood scores")


def nested_statistics(
    data: NestedSource, variables: Variables, *, found: list[Finding] | None = None
) -> NestedStatistics:
    """Statistics of nested clusters.

    Parameters
    ----------
    data : ClusteredData or ClusterStatistics
        With clusters within clusters.
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
    names = [name for own in variables.measured for name in own]
    report(data.constants(names), found)
    report(undivided(round(data.nobs), data.clusters_of(2), variables.unit), found)
    _warn_of_repeated(data)
    for level, own in enumerate(variables.measured[1:], 2):
        _require_constant(own, data, level)
    statistics = NestedStatistics(variables, data.nested(variables))
    report(_confounded(statistics), found)
    report(_dependent(statistics, data), found)
    report(_of_higher_level(variables, data), found)
    return statistics


def _warn_of_repeated(data: NestedSource) -> None:
    upper = "the highest clusters"
    for name, ids in data.inner_ids.items():
        repeated, count = ids[ids.duplicated()].nunique(), ids.nunique()
        if 0 < repeated < FEW * count:
            warn(
                f"{repeated} of the {count} ids in {name!r} occur in several of {upper} and were taken for "
                f"different clusters: {len(ids)} in all",
                DataWarning,
            )
        upper = repr(name)


def _require_constant(names: Sequence[str], data: NestedSource, level: int) -> None:
    """Refuse variables of clusters that differ between units of a cluster."""
    require_constant_within(
        names,
        data.varying_in(names, level),
        data.labels_of(level),
        given=f"the blocks from level {level} upwards",
        clusters=f"clusters of level {level}",
        wanted="the block of the level that it is measured on",
    )


def _of_higher_level(variables: Variables, data: NestedSource) -> Iterator[Finding]:
    """Variables of clusters that do not vary within the clusters one level above."""
    for level, own in enumerate(variables.measured[1:-1], 2):
        for name, (count, _) in zip(own, data.varying_in(own, level + 1), strict=True):
            if not count:
                yield Finding(
                    "within",
                    (name,),
                    f"variable {name!r} is in the level-{level} block, but does not vary within clusters of level "
                    f"{level + 1}: it is measured on those; move it to the level-{level + 1} block",
                )


def _confounded(statistics: NestedStatistics) -> Iterator[Finding]:
    """Variables without variance, or with too few values, at the level that they are measured on."""
    unit, p = statistics.unit, len(statistics.unit)
    count, mean = statistics.observed
    ssw = statistics.data.products_within_clusters.diagonal()
    if not statistics.complete:
        clusters = np.concatenate([statistics.data.clusters_with_pairs(1).diagonal()[:p], count[p:]])
        lacking = list(seldom_observed(statistics.variables, count, clusters))
        yield from lacking
        if lacking:
            return
    size = np.abs(mean[:p]) + np.sqrt(statistics.data.values[0].var(axis=1))
    require_scale(unit, ssw / count[:p])
    yield from unvarying_within(unit, statistics.variables.both, ssw == 0, ssw, count[:p], size)
    covariances = statistics.covariances(*statistics.variables.measured)
    for own, cov in zip(statistics.variables.measured[1:], covariances[1:], strict=True):
        require_scale(own, cov.diagonal())
        for name, variance in zip(own, cov.diagonal(), strict=True):
            if variance == 0:
                yield constant(name, 0.0)


def _dependent(statistics: NestedStatistics, source: NestedSource) -> Iterator[Finding]:
    """Collinear variables at the level that they are measured on; with holes, in the pattern of most units."""
    data, unit, p = statistics.data, statistics.unit, len(statistics.unit)
    lowest = [k for k in range(p) if unit[k] not in statistics.variables.both]
    if statistics.complete:
        if p <= source.nobs - source.clusters_of(2):
            yield from dependent(data.products_within_cells, unit, " within clusters", lowest)
    else:
        often = int(np.bincount(data.pattern[0], data.weights(0)).argmax())
        own, cells = data.patterns[0][often], data.pattern[0] == often
        col, row = np.triu_indices(p)
        products = np.zeros((p, p))
        parts = data.product_pattern == often
        products[row, col] = products[col, row] = data.products[parts].sum(axis=0)
        seen_rows = source.seen_rows(unit)
        if len(own) < (seen_rows == np.isin(np.arange(p), own)).all(axis=1).sum() - cells.sum():
            passing = [k for k, variable in enumerate(own) if variable in lowest]
            seen_names = [unit[k] for k in own]
            yield from dependent(products[np.ix_(own, own)], seen_names, " within clusters", passing)
    for level, names in enumerate(statistics.variables.measured[1:], 2):
        complete = [len(own) == len(names) for own in data.patterns[level - 1]]
        whole = data.values[level - 1].T[np.array(complete)[data.pattern[level - 1]]]
        if len(names) < len(whole):
            off = whole - whole.mean(axis=0)
            yield from dependent(off.T @ off, names, f" among the clusters of level {level}")
