"""Statistics of data in two crossed classifications: ratings by pupils of lecturers.

No part of such a sample is independent of the rest: what counts are the numbers and sums of units in each pair of
clusters, by what is observed of them, and their total products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.complete import positions
from msem.data.hierarchy import LevelPosteriors, ManyLevels, OfUnits, Posterior
from msem.data.kinds import CountedClusters
from msem.data.rows import ClusteredData
from msem.data.screening import Finding, dependent, report, require_scale, unobserved, unvarying
from msem.data.statistics import Rows
from msem.errors import DataError, UnsupportedError
from msem.model.variables import Variables

Floats = NDArray[np.float64]


class OfCrossedClusters(ManyLevels):
    """What statistics of crossed classifications have in common, with random slopes or without."""

    words = "crossed classifications"
    draws = _core.CrossedParametricDraws
    independent = False

    if TYPE_CHECKING:
        data: _core.CrossedData

    @property
    def tree(self) -> None:
        """Clusters are not nested."""
        return None

    def likelihood(self, *, by_cluster: bool = False) -> _core.CrossedLikelihood:
        """The compiled likelihood."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.CrossedLikelihood:
        return _core.CrossedLikelihood(self.data)

    def clusters(self, rows: Rows) -> NoReturn:
        """No clusters are independent; always `UnsupportedError`."""
        refuse_clusters()


@dataclass(frozen=True, eq=False)
class CrossedStatistics(OfCrossedClusters):
    """Statistics of a sample of units in two crossed classifications, which are levels 2 and 3.

    Attributes
    ----------
    variables : Variables
    data : _core.CrossedData
        Variables are numbered in the order of `names`.
    source : str
    """

    variables: Variables
    data: _core.CrossedData
    source: str = "data"

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return self.data.complete

    @property
    def npatterns(self) -> tuple[int, ...]:
        """Patterns of observed variables of units."""
        return () if self.complete else (len(self.data.patterns),)

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        of_clusters = zip(self.counted[1:], self.variables.measured[1:], strict=True)
        return float(self._moments[0][1].trace()) + sum(n * len(own) for n, own in of_clusters)

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Pairs of variables that no unit has both of."""
        pairs = np.argwhere(np.triu(self._moments[0][1] == 0, 1))
        names = [f"{self.unit[i]} ~~ {self.unit[j]}" for i, j in pairs]
        return tuple(names)

    @property
    def counted(self) -> tuple[float, ...]:
        """Units of which anything is observed, and clusters of either classification."""
        return float(self.data.cells[3].sum()), *(float(len(one.sizes)) for one in self.data.classifications)

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the clusters of level 2, ascending."""
        return np.unique(self.data.classifications[0].sizes)

    @property
    def counts(self) -> Floats:
        """How many of the clusters of level 2 there are of each size."""
        own = self.data.classifications[0].sizes
        return np.bincount(np.unique(own, return_inverse=True)[1]).astype(np.float64)

    @cached_property
    def _moments(self) -> list[tuple[Floats, Floats, Floats]]:
        """Of the variables measured on each level: means, how many units have both of two, and covariances."""
        return [self.data.moments(level) for level in range(3)]

    @property
    def total_mean(self) -> Floats:
        """Means over the units of the level that each variable is measured on."""
        return np.concatenate([mean for mean, _, _ in self._moments])

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on each level, with the numbers of its units as divisors."""
        at = [positions(some, own) for some, own in zip(names, self.variables.measured, strict=True)]
        return tuple(cov[np.ix_(own, own)] for own, (_, _, cov) in zip(at, self._moments, strict=True))

    def new_clusters(self, rows: Rows) -> CrossedClusters:
        """The clusters of these or other rows of the same variables, for scores."""
        return CrossedClusters(*rows.crossed(self.variables))


def refuse_clusters() -> NoReturn:
    """Say that there are no independent clusters.

    Raises
    ------
    UnsupportedError
    """
    raise UnsupportedError(
        "crossed classifications have no independent clusters, which robust errors and tests, scores, influence, "
        "bootstrap and jackknife of clusters take: use the errors of the observed information, or "
        'fit.bootstrap(kind="parametric")'
    )


@dataclass(frozen=True, eq=False)
class CrossedPosterior(LevelPosteriors):
    """Crossed clusters with the moments that a model implies: what all data say about the variables of each level.

    Attributes
    ----------
    data : _core.CrossedData
    cell : ndarray of int64, shape (N,)
        Of each row, among the cells of `data`; -1 if nothing is observed.
    moments : tuple of (mean, covariance matrix)
        See `LevelPosteriors`.
    covariates : sequence of ndarray, each of shape (N,)
        Of every slope.
    """

    data: _core.CrossedData
    cell: NDArray[np.int64]
    moments: tuple[tuple[Floats, Floats], ...]
    covariates: Sequence[Floats] = ()

    @cached_property
    def _likelihood(self) -> _core.CrossedLikelihood:
        return _core.CrossedLikelihood(self.data)

    def evidence(self, level: int) -> Posterior:
        """Derivatives of the log-likelihood with respect to the means of a level, and minus the second ones."""
        scores, information = self._likelihood.evidence(self.observed, level - 1)
        n = len(scores)
        return scores.T, information.T.reshape(-1, n, n), np.arange(scores.shape[1], dtype=np.int64)

    @cached_property
    def _effects(self) -> tuple[Floats, Floats]:
        """Posterior moments of what the clusters of each cell do to a unit: parts of variables, then slopes."""
        mean, cov = self._likelihood.effects(self.observed)
        return mean.T, cov.T.reshape(-1, len(mean), len(mean))

    def unit_posterior(self, columns: Sequence[Floats], codes: NDArray[np.int64]) -> Posterior:
        """Posterior moments of the latent variables of level 1, of every unit."""
        if not self.data.slopes:
            return self._of_units(columns).posterior(*self.moments[0])
        effects, variances = self._effects
        p, r = len(columns), effects.shape[1]
        found, cov = _core.slope_unit_scores(
            p,
            0,
            *self.moments[0],
            columns,
            self.covariates,
            self.cell,
            effects.T,
            variances.reshape(-1, r * r).T,
            np.arange(len(effects), dtype=np.int64),
        )
        d = found.shape[1]
        return found, cov.T.reshape(-1, d, d), np.arange(len(found), dtype=np.int64)

    def unit_distances(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Distance of each unit from what all else predicts, and its degrees of freedom; see `OfUnits.distances`."""
        return self._of_units(columns).distances(given, ~np.isnan(np.column_stack(columns)))

    def _of_units(self, columns: Sequence[Floats]) -> OfUnits:
        """What all data say about the means of single units.

        With W the inverse of the covariance matrix of what is observed of a unit, m the posterior mean of its
        expectation and V its posterior covariance matrix: W (y - m) and W - W V W.
        """
        effects, variances = self._effects
        values, pattern, slopes = (
            np.column_stack(columns),
            np.asarray(self.data.cells[2]),
            len(self.data.slopes),
        )
        n, p = values.shape
        mean, cov = self._without_products(0)
        paths = self.moments[0][1][:p, p : p + slopes]
        # without slopes the units of a cell share what is known of them
        count = n if slopes else len(effects)
        of_unit, cell = (np.arange(n), self.cell) if slopes else (self.cell, np.arange(count))
        found, information = np.zeros((n, p)), np.zeros((count, p, p))
        for number, own in enumerate(self.data.patterns):
            seen = np.array(own)
            inverse = np.linalg.inv(cov[np.ix_(seen, seen)])
            here = np.flatnonzero((cell >= 0) & (pattern[cell] == number))
            reach = np.broadcast_to(np.eye(p, p + slopes)[seen], (len(here), len(seen), p + slopes)).copy()
            for k, covariate in enumerate(self.covariates):
                reach[:, :, p + k] = covariate[here, None] * paths[seen, k]
            weighted = inverse @ reach
            spread = weighted @ variances[cell[here]] @ weighted.transpose(0, 2, 1)
            information[np.ix_(here, seen, seen)] = inverse - spread
            rows = np.flatnonzero((self.cell >= 0) & (pattern[self.cell] == number))
            expected = mean[seen] + effects[self.cell[rows]][:, seen]
            for k, covariate in enumerate(self.covariates):
                expected += (covariate[rows] * effects[self.cell[rows], p + k])[:, None] * paths[seen, k]
            found[np.ix_(rows, seen)] = (values[np.ix_(rows, seen)] - expected) @ inverse
        return OfUnits(found, information, np.where(self.cell >= 0, of_unit, -1))

    def unit_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        CrossedStatistics.refuse("maximum likelihood scores")

    def cluster_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        CrossedStatistics.refuse("maximum likelihood scores")


@dataclass(frozen=True, eq=False)
class CrossedClusters(CountedClusters):
    """Clusters of two crossed classifications, which are not independent; for scores of latent variables only.

    Attributes
    ----------
    data : _core.CrossedData
    cell : ndarray of int64, shape (N,)
    covariates : sequence of ndarray, each of shape (N,)
        See `CrossedPosterior`.
    """

    data: _core.CrossedData
    cell: NDArray[np.int64]
    covariates: Sequence[Floats] = ()
    of_units = True
    products = None
    sampled = None

    @property
    def sizes(self) -> Floats:
        """Units in the clusters of level 3."""
        return self.data.classifications[1].sizes

    def of(self, likelihood: _core.Likelihood) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse_clusters()

    def pool(self, order: NDArray[np.intp]) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse_clusters()

    def posterior(self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]) -> CrossedPosterior:
        """The clusters with the moments that a model implies at each level, latent variables last."""
        return CrossedPosterior(self.data, self.cell, tuple(moments), self.covariates)


def crossed_statistics(
    data: ClusteredData, variables: Variables, *, found: list[Finding] | None = None
) -> CrossedStatistics:
    """Statistics of rows in two crossed classifications; values of variables of units may be missing.

    Parameters
    ----------
    data : ClusteredData
        With the clusters of level 2 as inner ones.
    variables : Variables
        Of three levels.
    found : list of Finding, optional
        Takes what would be refused, for the sample of one group of several.

    Raises
    ------
    DataError
        If a variable cannot be used at its level, or the smaller classification has too many clusters for the memory
        that it takes.
    """
    if data.sampled is not None or data.weights is not None:
        raise UnsupportedError(
            "weights, PSUs and strata have no place in crossed classifications: a weighted log-likelihood needs errors "
            "from the spread of independent units, and no part of such data is independent of the rest; leave them out"
        )
    names = [name for own in variables.measured for name in own]
    present = {name: _present(data.columns[name]) for name in names}
    report(unobserved(names, np.array([len(column) for column in present.values()], dtype=np.float64)), found)
    report(unvarying(present), found)
    statistics = CrossedStatistics(variables, data.crossed(variables)[0])
    require_room(statistics)
    report(_confounded(statistics), found)
    return statistics


def _present(column: Floats) -> Floats:
    missing = np.isnan(column)
    return column[~missing] if missing.any() else column


def require_room(statistics: OfCrossedClusters) -> None:
    """Refuse what takes a matrix that is too large."""
    rows, size, work, sparse, possible = statistics.likelihood().size
    if possible:
        return
    kind = "sparse matrix" if sparse else "matrix"
    effort = f" and {work:.0e} multiplications for each of many values" if np.isfinite(work) else ""
    raise DataError(
        f"the effects of the smaller classification are {rows:.0f}, and their clusters meet in so many clusters of the "
        f"other one that their {kind} would take about {size / 2**30:.0f} GiB{effort}, more than this version takes: "
        "use fewer clusters or variables"
    )


def _confounded(statistics: CrossedStatistics) -> Iterator[Finding]:
    """Collinear variables at the level that they are measured on."""
    for level, (own, cov) in enumerate(
        zip(
            statistics.variables.measured, statistics.covariances(*statistics.variables.measured), strict=True
        ),
        1,
    ):
        require_scale(own, cov.diagonal())
        if len(own) < statistics.counted[level - 1]:
            where = "" if level == 1 else f" among the clusters of level {level}"
            yield from dependent(cov, own, where)
