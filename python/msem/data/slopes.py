"""Statistics of two-level data for models with random slopes.

Clusters are no longer alike by size: what counts is the matrix of products of their covariates. The rows of a cluster
are reduced to as many as there are covariates with slopes, and one more (`_core.ReducedData`); with missing values
those of each cell, the rows of a cluster with the same outcomes observed. Rows are not needed again. What does not know
of slopes (covariances, checks) is asked of the statistics that a model without slopes would have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.cluster_moments import two_level
from msem.data.clusters import ClusterStatistics
from msem.data.complete import SampleStatistics, positions
from msem.data.complete_rows import sample_statistics
from msem.data.incomplete import IncompleteStatistics, incomplete_statistics
from msem.data.kinds import AtMostTwoLevels, Augmented, Continuous, CountedClusters
from msem.data.rows import ClusteredData
from msem.data.saturated import solve_in_space
from msem.data.squared_distances import squared_distances
from msem.data.statistics import Clusters, Design, Rows, Saturated
from msem.data.survey import Sampled
from msem.errors import DataError, DataWarning, UnsupportedError, warn
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]

FAR = 1e3  # standard deviations of a covariate from its origin, beyond which its intercept says little
TOO_FAR = 1e6  # beyond which too few digits are left
SMALL = 0.05  # share of a crude variance of slopes that a starting value has at least
LEAST = 0.05  # eigenvalue of a correlation matrix to start from
NEGLIGIBLE = 1e-10  # share of a variance that a regression leaves, and that is rounding


@dataclass(frozen=True, eq=False)
class SlopeStatistics(Augmented, AtMostTwoLevels, Continuous):
    """Statistics of a sample for a model with random slopes.

    Attributes
    ----------
    plain : SampleStatistics or IncompleteStatistics
        Those without slopes; of the variables in the order of the likelihood: outcomes at both levels, outcomes within
        only, fixed covariates of units.
    fixed : int
        How many of the unit variables, from the last, are fixed covariates.
    slopes : tuple of Slope
    carriers : tuple of str
        An observed variable for each slope that has it as its outcome, or measures its outcome.
    reduced : _core.ReducedData
        Rows of the clusters, reduced.
    exogenous : sequence of tuple of str
        Fixed covariates of each level, of which some stand at both: their moments are saturated ones. Empty where
        every one of them is measured on one level only.
    """

    plain: SampleStatistics | IncompleteStatistics
    fixed: int
    slopes: tuple[Slope, ...]
    carriers: tuple[str, ...]
    reduced: _core.ReducedData
    exogenous: tuple[tuple[str, ...], ...] = ()
    nodes = 0

    def with_nodes(self, nodes: int) -> Self:
        """The same: their covariates are observed, so that nothing is integrated over."""
        return self

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    # what is known without slopes

    @cached_property
    def nobs(self) -> float:
        """Units."""
        return self.reduced.nobs

    @cached_property
    def nclusters(self) -> float:
        """Clusters."""
        return self.reduced.nclusters

    @cached_property
    def sizes(self) -> Floats:
        """Distinct cluster sizes, ascending."""
        return np.unique(self.reduced.sizes)

    @cached_property
    def counts(self) -> Floats:
        """How many clusters there are of each size."""
        at = np.searchsorted(self.sizes, self.reduced.sizes)
        return np.bincount(at, self.reduced.weight).astype(np.float64)

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the cluster sizes."""
        return float(self.nclusters / (self.counts / self.sizes).sum())

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return float(self._moments[0].sum() + self.nclusters * len(self.cluster))

    @property
    def total_mean(self) -> Floats:
        """Means of all variables."""
        return np.concatenate([self._moments[1], self._moments[3]])

    @cached_property
    def _moments(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        return self.reduced.moments()

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> SampleStatistics:
        """Statistics that complete data with these moments would have; see `Statistics.expected`."""
        return self.plain.expected(levels, variables, source, rows)

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices, with divisors N and J, of variables measured on units and on clusters."""
        unit, cluster = names
        at, own = positions(unit, self.unit), positions(cluster, self.cluster)
        return self._moments[2][np.ix_(at, at)], self._moments[4][np.ix_(own, own)]

    # the likelihood

    @property
    def covariates(self) -> tuple[str, ...]:
        """Covariates with slopes, each once."""
        return tuple(dict.fromkeys(slope.covariate for slope in self.slopes))

    def likelihood(self, *, by_cluster: bool = False) -> _core.SlopeLikelihood | _core.QuadratureLikelihood:
        """The compiled likelihood; see `Statistics.likelihood`."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.SlopeLikelihood:
        return _core.SlopeLikelihood(self.reduced)

    def clusters(self, rows: Rows) -> Clusters:
        """Independent units of the rows; see `Statistics.clusters`."""
        products = rows.reduced_products(self.unit, self.covariates, self.reduced)
        return SlopeClusters(products, self.reduced, self._places, rows.sampled)

    @property
    def _places(self) -> tuple[int, ...]:
        return tuple(positions(self.covariates, self.unit))

    def new_clusters(self, rows: Rows) -> SlopeClusters:
        """Clusters of new rows; see `Statistics.new_clusters`."""
        numbers = _numbers(self.slopes, self.covariates)
        reduced = rows.reduced(self.variables, self.covariates, self.fixed, numbers)
        products = rows.reduced_products(self.unit, self.covariates, reduced)
        return SlopeClusters(products, reduced, self._places)

    def with_slopes(self, slopes: Sequence[Slope], carriers: Sequence[str]) -> SlopeStatistics:
        """The same sample for other slopes of the same covariates."""
        numbers = _numbers(slopes, self.covariates)
        out = replace(
            self, slopes=tuple(slopes), carriers=tuple(carriers), reduced=self.reduced.with_slopes(numbers)
        )
        # of the same rows, and known already if the model was started from them
        out.__dict__.update(
            {
                "_coefficients": self._coefficients,
                "_moments": self._moments,
                "_of_covariates": self._of_covariates,
            }
        )
        return out

    def completed(self, rows: Rows) -> SlopeStatistics:
        """The same rows as if nothing were missing, for expected information; see `Statistics.completed`."""
        if self.complete:
            return self
        numbers = _numbers(self.slopes, self.covariates)
        return replace(
            self, reduced=rows.filled().reduced(self.variables, self.covariates, self.fixed, numbers)
        )

    @property
    def full_clusters(self) -> int:
        """Clusters in which the covariates vary enough for all of their coefficients."""
        return int(self._coefficients["clusters"])

    @cached_property
    def _coefficients(self) -> dict[str, Any]:
        return self.reduced.coefficients()

    @cached_property
    def stand_in(self) -> Saturated:
        """Moments to start from, by regressions within the clusters; see `Statistics.stand_in`.

        The covariance matrix of the coefficients of single clusters, less that of their sampling errors. A model of
        slopes has no saturated moments.
        """
        found = self._coefficients
        within = self._start_within(found)
        mean, cov = self._start_between(found, within)
        second = (*self.unit[: self.nboth], *self.cluster, *(slope.name for slope in self.slopes))
        between = LevelArrays(second, mean, cov, self.nboth + len(self.cluster))
        return Saturated(self._conditional({1: within, 2: between}), np.nan, 0, converged=False)

    def _conditional(self, levels: dict[int, LevelArrays]) -> dict[int, LevelArrays]:
        """Moments to start from in which fixed covariates at both levels have those of a model without slopes.

        Nothing else tells how much of them varies at each level; the likelihood is conditional on the others.
        """
        if not self.exogenous:
            return levels
        known = self._of_covariates
        return {
            level: own.given(known[level], names)
            for (level, own), names in zip(levels.items(), self.exogenous, strict=True)
        }

    @cached_property
    def _of_covariates(self) -> Mapping[int, LevelArrays]:
        """Saturated moments without slopes, where fixed covariates at both levels need them."""
        return solve_in_space(self.plain, "auto").levels if self.exogenous else {}

    def _start_within(self, found: dict[str, Any]) -> LevelArrays:
        """Moments of the unit variables, and of the products with slopes, which are standardized."""
        p, n, m = len(self.unit) - self.fixed, len(self.unit), len(self.slopes)
        residual, pooled = found["residual"], found["within"]
        if not self.complete:
            residual, pooled = regular(residual), regular(pooled)
        left = residual.diagonal() > NEGLIGIBLE * pooled.diagonal()
        f = np.arange(p, n)
        cov = np.zeros((n + m, n + m))
        cov[:p, :p] = residual[:p, :p]
        alone = np.flatnonzero(~left[:p])  # covariates with slopes that are outcomes themselves
        cov[alone, :] = cov[:, alone] = 0.0
        cov[alone, alone] = pooled[alone, alone]
        if self.fixed:
            cov[np.ix_(f, f)] = self.covariances(self.unit[p:], ())[0]
            used = f[left[p:]]
            known: Floats = residual[np.ix_(used, used)]
            with_outcomes: Floats = residual[used, :p]
            solution = np.linalg.lstsq(known, with_outcomes, rcond=None)[0]
            paths = np.asarray(solution, dtype=np.float64)
            reach = cov[np.ix_(f, used)] @ paths
            cov[:p, :p] += paths.T @ (cov[np.ix_(used, used)] - known) @ paths
            cov[p:n, :p], cov[:p, p:n] = reach, reach.T
        cov[n:, n:] = np.eye(m)
        mean = np.concatenate([self.total_mean[:n], np.zeros(m)])
        mean[: self.nboth] = 0.0
        names = (*self.unit, *(f"{slope.name}*{slope.covariate}" for slope in self.slopes))
        return LevelArrays(names, mean, cov, n)

    def _start_between(self, found: dict[str, Any], within: LevelArrays) -> tuple[Floats, Floats]:
        n, q, k = len(self.unit), len(self.cluster), len(self.covariates)
        carriers = [self.unit.index(name) for name in self.carriers]
        covariate = [self.covariates.index(slope.covariate) for slope in self.slopes]
        total = self
        variance = np.array([total.covariances((name,), ())[0][0, 0] for name in self.covariates])
        crude = within.cov[carriers, carriers] / variance[covariate]
        places = [
            *((1 + k) * i for i in range(self.nboth)),
            *((1 + k) * n + i for i in range(q)),
            *((1 + k) * c + 1 + x for c, x in zip(carriers, covariate, strict=True)),
        ]
        if found["clusters"] >= len(places) + 2:
            mean, cov = found["mean"][places], found["cov"][np.ix_(places, places)]
            least = SMALL * np.concatenate(
                [within.cov[range(self.nboth), range(self.nboth)], np.zeros(q), crude]
            )
            raised = np.maximum(cov.diagonal(), least)
            np.fill_diagonal(cov, raised)
            second = slice(self.nboth, self.nboth + q)  # these are those of all clusters
            mean[second] = total.total_mean[n:]
            if q:
                cov[second, second] = total.covariances((), self.cluster)[1]
            return mean, cov
        own = [self.unit.index(name) for name in self.covariates]
        at = np.array([own[x] for x in covariate])
        slopes = found["within"][carriers, at] / found["within"][at, at]
        mean = np.concatenate([total.total_mean[: self.nboth], total.total_mean[n:], slopes])
        for slope, carrier, x in zip(slopes, carriers, covariate, strict=True):
            if carrier < self.nboth:
                mean[carrier] -= slope * total.total_mean[own[x]]
        intercepts = 0.2 * within.cov[range(self.nboth), range(self.nboth)]
        cov = np.diag(np.concatenate([intercepts, np.zeros(q), SMALL * crude]))
        if q:
            second = slice(self.nboth, self.nboth + q)
            cov[second, second] = total.covariances((), self.cluster)[1]
        return mean, cov

    # what has no meaning with slopes, or is not there yet

    @property
    def arrays(self) -> NoReturn:
        """Statistics by cluster size say nothing of slopes; always `UnsupportedError`."""
        refuse("this")

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[Any, Clusters]:
        """Statistics and clusters of variables that no slope reaches, each at one level only."""
        return self.plain.marginal(names, rows)

    def with_variables(self, variables: Variables) -> SlopeStatistics:
        """Statistics of some of the variables, in the order given but for fixed covariates, which come last."""
        given = self.unit[len(self.unit) - self.fixed :]
        fixed = [name for name in variables.unit if name in given]
        chosen = variables.with_last(fixed)
        outcomes = len(chosen.unit) - len(fixed)
        reduced = self.reduced.restrict(
            positions(chosen.unit[:outcomes], self.unit),
            len(chosen.both),
            positions(fixed, self.unit),
            positions(chosen.cluster, self.cluster),
        )
        plain = self.plain.with_variables(chosen)
        exogenous = tuple(
            tuple(name for name in own if name in left)
            for own, left in zip(self.exogenous, chosen.levels, strict=False)
        )
        return replace(self, plain=plain, fixed=len(fixed), reduced=reduced, exogenous=exogenous)

    def centred(self) -> NoReturn:
        """A two-level model has means; always `UnsupportedError`."""
        refuse("samples without means")

    def difference(self, other: SlopeStatistics) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        plain: Any = self.plain
        if self.complete != other.complete:
            return "the missing values differ"
        return str(plain.difference(other.plain))

    def redrawn(self, drawn: _core.ReducedData) -> SlopeStatistics:
        """The statistics of a replicate that the core has drawn."""
        return replace(self, reduced=drawn)

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`.

        Raises
        ------
        DataError
            If a covariate with a slope is an outcome itself: it would have to be drawn before it is reduced.
        """
        require_given(self.slopes, fixed, 'use kind="ordinary", or msem.simulate')
        return Design.of_levels(_core.SlopeParametricDraws, self.reduced, levels, self.variables, fixed)


@dataclass(frozen=True, eq=False)
class SlopeClusters(CountedClusters):
    """Statistics of single clusters for models with random slopes.

    Attributes
    ----------
    within : ndarray, shape (cells, p (p + 1) / 2)
        Products of the unit variables about the regressions within each cell, lower triangles by column.
    reduced : _core.ReducedData
        Their rows, reduced.
    places : tuple of int
        Where the covariates with slopes stand among the unit variables.
    sampled : Sampled or None
        How they were sampled.
    """

    within: Floats
    reduced: _core.ReducedData
    places: tuple[int, ...]
    sampled: Sampled | None = None
    of_units = True
    products = None

    @property
    def sizes(self) -> Floats:
        """Units in each cluster, shape (J,)."""
        return self.reduced.sizes

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their variables knows them."""
        return likelihood.clusters(self.within)

    def posterior(self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]) -> Any:
        """The clusters with model-implied moments, those of products and slopes included: a `SlopePosterior`."""
        return SlopePosterior(self.reduced, self.places, variables.shape, tuple(moments), self.within)

    def pool(self, order: NDArray[np.intp]) -> partial[_core.SlopePool]:
        """The clusters in some order, for the core to draw from."""
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        return partial(_core.SlopePool, self.reduced, self.within, place)


@dataclass(frozen=True, eq=False)
class SlopePosterior:
    """Clusters with the moments that a model implies: what the data of each say about its variables of level 2.

    Attributes
    ----------
    reduced : _core.ReducedData
    places : tuple of int
        Where the covariates with slopes stand among the unit variables.
    shape : tuple of int
        Numbers of variables measured on units, at both levels, and measured on clusters.
    moments : tuple of (mean, covariance matrix)
        Of each level as the core has them, with products and slopes, and with latent
        variables last.
    within : ndarray
        See `SlopeClusters`.
    """

    reduced: _core.ReducedData
    places: tuple[int, ...]
    shape: tuple[int, int, int]
    moments: tuple[tuple[Floats, Floats], ...]
    within: Floats

    @cached_property
    def _likelihood(self) -> _core.SlopeLikelihood:
        return _core.SlopeLikelihood(self.reduced)

    @property
    def _observed(self) -> list[tuple[Floats, Floats]]:
        """Moments without latent variables that are no slopes."""
        (p, both, q), m = self.shape, self.reduced.slopes
        sizes = (p + m, both + q + m)
        return [(mean[:n], cov[:n, :n]) for (mean, cov), n in zip(self.moments, sizes, strict=True)]

    def cluster_posterior(self) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Posterior means (J, d), covariance matrices (S, d, d), and which of these each cluster has.

        Of the variables at both levels, the slopes and the other latent variables of level 2, given all data of the
        cluster. With u~ and U from the units (`SlopeLikelihood.evidence`), and everything given the cluster variables
        z: E v = E[v | z] + Cov(v, u | z) u~, Var v = Var(v | z) - Cov(v, u | z) U Cov(u, v | z). Nothing is inverted
        that may be singular.
        """
        (_, both, q), m = self.shape, self.reduced.slopes
        scores, information, which = self._likelihood.evidence(self._observed)
        mean, whole = self.moments[-1]
        z = np.arange(both, both + q)
        own = np.r_[0:both, both + q : len(mean)]  # both levels, slopes, latent variables
        r = both + m
        cov = whole[np.ix_(own, own)]
        given = np.broadcast_to(mean[own], (scores.shape[1], len(own)))
        if q:
            paths = np.linalg.solve(whole[np.ix_(z, z)], whole[np.ix_(z, own)])
            given = mean[own] + (self.reduced.cluster_values - mean[z]) @ paths
            cov = cov - whole[np.ix_(own, z)] @ paths
        reach = cov[:, :r]
        matrices = information.T.reshape(-1, r, r)
        return given + scores.T @ reach.T, cov - reach @ matrices @ reach.T, which

    def unit_posterior(
        self, columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats, NDArray[np.int64]]:
        """Posterior means (N, d), covariance matrices (N, d, d) and their numbers, of latent variables of level 1."""
        mean, variances, which = self.cluster_posterior()
        r = self.shape[1] + self.reduced.slopes
        d = len(self.moments[0][0]) - self.shape[0] - self.reduced.slopes
        found, cov = _core.slope_unit_scores(
            self.shape[1],
            self.reduced.fixed,
            *self.moments[0],
            columns,
            [columns[self.places[k - 1]] for k in self.reduced.covariate],
            codes,
            mean[:, :r].T,
            variances[:, :r, :r].reshape(-1, r * r).T,
            which,
        )
        return found, cov.T.reshape(-1, d, d), np.arange(len(found), dtype=np.int64)

    def unit_distances(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Squared distance of the outcomes of each unit from what all else predicts, and how many they are."""
        mean, variances, which = self.cluster_posterior()
        r = self.shape[1] + self.reduced.slopes
        return _core.slope_unit_distances(
            self.shape[1],
            self.reduced.fixed,
            given,
            *self._observed[0],
            columns,
            [columns[self.places[k - 1]] for k in self.reduced.covariate],
            codes,
            mean[:, :r].T,
            variances[:, :r, :r].reshape(-1, r * r).T,
            which,
        )

    def whole_distances(
        self, given: Sequence[int], columns: Sequence[Floats], codes: NDArray[np.int64]
    ) -> tuple[Floats, Floats]:
        """Squared distance of all data of each cluster from the model given covariates, and how many values it has."""
        (p, both, q), m = self.shape, self.reduced.slopes
        outcomes = p - self.reduced.fixed
        held = [*range(outcomes, p + m)], [both + k - p for k in given if k >= p]
        count = np.zeros(len(self.reduced.sizes))
        for column in columns[:outcomes]:
            count += np.bincount(codes, ~np.isnan(column), len(count))
        count += q - len(held[1])
        clusters = self._likelihood.clusters(self.within)
        return squared_distances(self._likelihood, clusters, self._observed, held, count), count

    def unit_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("maximum likelihood scores")

    def cluster_bartlett(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("maximum likelihood scores")


def refuse(what: str) -> NoReturn:
    """Say that something is not there for models with random slopes; named in the plural.

    Raises
    ------
    UnsupportedError
    """
    be = "is" if what == "this" else "are"
    raise UnsupportedError(f"{what} {be} not available for models with random slopes in this version")


def slope_statistics(
    data: ClusteredData | ClusterStatistics,
    variables: Variables,
    fixed: Sequence[str],
    slopes: Sequence[Slope],
    carriers: Sequence[str],
    exogenous: tuple[tuple[str, ...], ...] = (),
) -> SlopeStatistics:
    """Statistics of rows, or of single clusters, for a model with random slopes.

    Parameters
    ----------
    data : ClusteredData or ClusterStatistics
    variables : Variables
        Those of the model, without slopes.
    fixed : sequence of str
        Fixed covariates among those of units.
    slopes : sequence of Slope
    carriers, exogenous
        See `SlopeStatistics`.

    Raises
    ------
    DataError
        If the sample cannot identify the model, or a covariate is so far from its origin that no digits are left.

    Warns
    -----
    DataWarning
        If a covariate is far from its origin: the variance of the intercepts is then that of a far extrapolation.
    """
    variables = variables.with_last(fixed)
    plain = plain_statistics(data, variables)
    covariates = tuple(dict.fromkeys(slope.covariate for slope in slopes))
    for name in covariates:
        variance = plain.covariances((name,), ())[0][0, 0]
        require_near(name, float(plain.total_mean[variables.unit.index(name)]), float(np.sqrt(variance)))
    numbers = _numbers(slopes, covariates)
    reduced = data.reduced(variables, covariates, len(fixed), numbers)
    return SlopeStatistics(plain, len(fixed), tuple(slopes), tuple(carriers), reduced, exogenous)


def regular(cov: Floats) -> Floats:
    """A covariance matrix of pairs of observed values, correlations made smaller until it is positive definite."""
    spread = np.sqrt(cov.diagonal())
    scale = np.where(spread > 0, spread, 1.0)
    correlations = cov / np.outer(scale, scale)
    least = float(np.linalg.eigvalsh(correlations)[0])
    if least >= LEAST:
        return cov
    share = (1 - LEAST) / (1 - least)
    out: Floats = cov * share
    np.fill_diagonal(out, cov.diagonal())
    return out


def _require_complete_clusters(data: ClusteredData, names: Sequence[str]) -> None:
    for name in names:
        missing = np.isnan(data.columns[name])
        if missing.any():
            assert data.codes is not None
            count = len(np.unique(data.codes[missing]))
            raise UnsupportedError(
                f"cluster variable {name!r} is missing in {count} clusters: with random slopes only variables of level "
                f"1 may have missing values in this version; leave these clusters out, or {name!r}"
            )


def _numbers(slopes: Sequence[Slope], covariates: Sequence[str]) -> list[int]:
    return [1 + covariates.index(slope.covariate) for slope in slopes]


def plain_statistics(
    data: ClusteredData | ClusterStatistics, variables: Variables
) -> SampleStatistics | IncompleteStatistics:
    """Statistics of the same data for a model without slopes."""
    if isinstance(data, ClusterStatistics):
        return two_level(data, variables)
    if data.complete:
        return sample_statistics(data, variables)
    _require_complete_clusters(data, variables.cluster)
    return incomplete_statistics(data, variables)


def require_given(slopes: Sequence[Slope], fixed: Sequence[Sequence[str]], remedy: str) -> None:
    """Refuse samples given the covariates of a model that has one of those with slopes as an outcome.

    Raises
    ------
    DataError
    """
    for slope in slopes:
        if slope.covariate not in fixed[slope.level - 1]:
            raise DataError(
                f"{slope.covariate!r} has a random slope and is an outcome itself: samples given the covariates cannot "
                f"be drawn from this model; {remedy}"
            )


def require_near(name: str, mean: float, spread: float) -> None:
    """Refuse a covariate that is too far from its origin, and warn of one that is far.

    Raises
    ------
    DataError
    """
    if abs(mean) > TOO_FAR * spread:
        raise DataError(
            f"covariate {name!r} has a random slope, and its mean is {abs(mean) / spread:.1e} standard deviations "
            f"from 0: the variance of the intercepts, those at {name} = 0, cannot be computed; centre it, for example "
            f"subtract {mean:.6g}"
        )
    if abs(mean) > FAR * spread:
        warn(
            f"covariate {name!r} has a random slope, and its mean is {abs(mean) / spread:.0f} standard deviations "
            f"from 0: the variances of the intercepts are those at {name} = 0, far from the data. Centre it, for "
            f"example subtract {mean:.6g}",
            DataWarning,
        )
