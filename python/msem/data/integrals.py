"""Statistics of ordered variables for full maximum likelihood: the rows themselves, of which no sums are enough.

The likelihood integrates over what units and clusters have in common, by quadrature in the core.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NoReturn

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.first_stage import FirstStage
from msem.data.kinds import AtMostTwoLevels, Augmented, CountedClusters
from msem.data.ordered import check_counts
from msem.data.quadrature import NODES
from msem.data.rows import ClusteredData
from msem.data.statistics import Clusters, Rows, Saturated, Statistics
from msem.data.survey import Sampled
from msem.distributions import normal_quantile
from msem.errors import MsemError, UnsupportedError
from msem.model.levels import BETWEEN, WITHIN
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]

SPACING_OF_ROWS = 0.8  # the same of rows of one level, whose posterior distributions are less normal
SPACING = 1.2  # of the nodes within clusters, in the least standard deviations that a posterior may have
SHARE = 0.25  # of a variance between clusters in that within, to start from
CORRELATION = 0.3  # between clusters, to start from
WIDER = 1.2  # correlations of variables over those of their categories
SLOPE = 0.1  # variance of a random slope to start from, by that of the covariate
MOST_POINTS = 250_000  # at which a cluster is evaluated
LOGISTIC = np.pi**2 / 3  # variance of the logistic distribution


@dataclass(frozen=True)
class IntegrationPlan:
    """What the likelihood of ordered variables is an integral over.

    Attributes
    ----------
    exposed : mapping of int to tuple of str
        Latent variables by level that the likelihood knows of.
    integrated : tuple of str
        Variables of the highest level, observed ones as their parts there.
    within : int
        Latent variables of level 1 that are integrated over.
    """

    exposed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    integrated: tuple[str, ...] = ()
    within: int = 0


@dataclass(frozen=True, eq=False)
class IntegratedStatistics(Augmented, AtMostTwoLevels):
    """The rows of a sample with ordered variables, as their likelihood takes them.

    Attributes
    ----------
    plain : Statistics
        Of the same rows, with the numbers of categories.
    rows : ClusteredData
    categories : mapping of str to int
        How many each ordered variable has.
    thresholds : tuple of (str, str)
        Ordered variable and name of each threshold, in the order of the model.
    plan : IntegrationPlan
    slopes : tuple of Slope
        Of the model: those of `plain` have observed variables in the place of latent covariates.
    logistic : bool
    nodes : int
        Of the rule for what is integrated over at the highest level, in each dimension.
    labels : mapping of str to sequence
        Categories of the ordered variables, ascending.
    """

    plain: Statistics
    rows: ClusteredData
    categories: Mapping[str, int]
    thresholds: tuple[tuple[str, str], ...]
    plan: IntegrationPlan
    slopes: tuple[Slope, ...] = ()
    logistic: bool = False
    nodes: int = 0
    labels: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    # what the rows know

    @property
    def nobs(self) -> float:
        """Units of level 1."""
        return self.plain.nobs

    @property
    def nclusters(self) -> float:
        """Units of the highest level."""
        return self.plain.nclusters

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the clusters."""
        return self.plain.sizes

    @property
    def counts(self) -> Floats:
        """How many clusters there are of each size."""
        return self.plain.counts

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the cluster sizes."""
        return self.plain.harmonic_size

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return self.plain.nvalues

    @property
    def total_mean(self) -> Floats:
        """Means of all variables, those of ordered ones of the numbers of their categories."""
        return self.plain.total_mean

    @property
    def unidentified(self) -> tuple[str, ...]:
        """There are no saturated moments."""
        return ()

    @property
    def full_clusters(self) -> int:
        """There is no saturated model of slopes."""
        return 0

    @property
    def first_stage(self) -> FirstStage | None:
        """None: estimation has one stage."""
        return None

    @property
    def ordered(self) -> tuple[str, ...]:
        """Variables whose values are categories."""
        return tuple(self.categories)

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """Latent variables that are integrated over."""
        return self.plan.exposed

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of covariates; see `Statistics.covariances`."""
        return self.plain.covariances(*names)

    def centred(self) -> IntegratedStatistics:
        """The same: thresholds have no centre."""
        return self

    def again(self, plain: Statistics, rows: ClusteredData) -> IntegratedStatistics:
        """The same of other rows; `DataError` if a category does not occur among them."""
        return integrated_statistics(
            plain,
            rows,
            self.labels,
            self.thresholds,
            self.plan,
            self.slopes,
            logistic=self.logistic,
            nodes=self.nodes,
        )

    def with_nodes(self, nodes: int) -> IntegratedStatistics:
        """The same with another number of nodes; those within clusters are as much denser."""
        return replace(self, nodes=nodes)

    # the likelihood

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        names = ("plain", "rows", "categories", "thresholds", "plan", "slopes", "logistic", "nodes", "labels")
        return {name: getattr(self, name) for name in names}

    def likelihood(self, *, by_cluster: bool = False) -> _core.OrderedLikelihood | _core.OrderedRows:
        """The compiled likelihood, made once."""
        return self._likelihood

    @cached_property
    def _likelihood(self) -> _core.OrderedLikelihood | _core.OrderedRows:
        levels = self.variables.levels
        unit, cluster = self.unit, self.cluster
        known = (*unit, *cluster)
        numbers: dict[str, list[int]] = {name: [] for name in known}
        for k, (name, _) in enumerate(self.thresholds):
            numbers[name].append(k)
        if not unit:
            rows = self.rows.values(cluster)
            data = _core.OrderedData(
                rows,
                np.arange(len(rows)),
                np.zeros((len(rows), 0)),
                0,
                [self.categories.get(name, 0) for name in cluster],
                [numbers[name] for name in cluster],
                self.plan.within,
                0,
                [],
                [],
                self.logistic,
                self.nodes,
                SPACING_OF_ROWS * NODES[1] / self.nodes,
                np.empty(0),
                _given(self.rows.overall_weights),
            )
            return _core.OrderedRows(data)
        below = (*levels[0], *self.exposed.get(WITHIN, ()))
        slopes = tuple(slope.name for slope in self.slopes)
        above = self.exposed.get(len(levels), ())
        first = len(levels[-1])
        at = {name: k for k, name in enumerate((*levels[-1], *above))}
        at |= {name: first + len(above) + len(self.thresholds) + k for k, name in enumerate(slopes)}
        rows, codes, clusters = self._arrays
        dimensions = len(self.plan.integrated)
        usual = NODES.get(dimensions, NODES[1])
        data = _core.OrderedData(
            rows,
            codes,
            clusters,
            self.nboth,
            [self.categories.get(name, 0) for name in known],
            [numbers[name] for name in known],
            self.plan.within,
            len(above),
            [below.index(slope.covariate) for slope in self.slopes],
            [at[name] for name in self.plan.integrated],
            self.logistic,
            self.nodes,
            SPACING * usual / self.nodes,
            _given(self.rows.weights),
            _given(None if self.rows.sampled is None else self.rows.sampled.weights),
        )
        return _core.OrderedLikelihood(data)

    @property
    def _arrays(self) -> tuple[Floats, NDArray[np.int64], Floats]:
        """Rows, their clusters, and values of clusters."""
        codes = self.rows.cluster_of_row
        first = np.unique(codes, return_index=True)[1]
        clusters = self.rows.values(self.cluster)[first] if self.cluster else np.zeros((len(first), 0))
        return self.rows.values(self.unit), codes, clusters

    def reweighted(self, times: Floats) -> _core.Likelihood | None:
        """The likelihood with each cluster, or row that is in none, counted so many times.

        None where a category is not among those that count.
        """
        codes = self.rows.codes
        of_rows = times if codes is None else times[codes]
        counted = of_rows > 0
        for name, count in self.categories.items():
            column = self.rows.values((name,))[counted, 0]
            if len(np.unique(column[~np.isnan(column)])) < count:
                return None
        return self.likelihood().clusters().weighted(times if self.unit else of_rows)

    @property
    def unit_counts(self) -> Floats | None:
        """How often each unit of the likelihood counts, rows of one level or clusters; None: once."""
        if not self.unit:
            return self.rows.overall_weights
        return None if self.rows.sampled is None else self.rows.sampled.weights

    @property
    def integral(self) -> IntegratedStatistics:
        """The statistics themselves."""
        return self

    @property
    def integrated(self) -> tuple[str, ...]:
        """Variables of the highest level that are integrated over."""
        return self.plan.integrated

    @property
    def given(self) -> tuple[str, ...]:
        """Continuous variables that are measured on units of the highest level."""
        if not self.unit:
            return ()  # level 1 is the only one
        return tuple(name for name in self.cluster if name not in self.categories)

    @property
    def given_values(self) -> Floats:
        """Their values, a row for each of these units."""
        if not self.unit:
            return np.zeros((len(self.rows.values(self.cluster)), 0))
        return self._arrays[2][:, [self.cluster.index(name) for name in self.given]]

    def posterior(self, moments: Sequence[tuple[Floats, Floats]]) -> _core.OrderedPosterior:
        """Posterior moments of what is integrated over; see `Integral.posterior`."""
        # of the rows as they are: what is known of a unit does not depend on how many it stands for
        plain = replace(self, rows=self.rows.unweighted) if self.rows.overall_weights is not None else self
        return plain.likelihood().posterior(moments)

    def clusters(self, rows: Rows) -> IntegratedClusters:
        """The clusters."""
        sampled = self.rows.sampled
        if not self.unit:
            if self.rows.cluster_count is None:
                return IntegratedClusters(np.ones(self.rows.nobs), sampled)
            codes = self.rows.cluster_of_row
            sizes = np.bincount(codes).astype(np.float64)
            return IntegratedClusters(sizes, sampled, codes, self.rows.overall_weights)
        return IntegratedClusters(np.bincount(self.rows.cluster_of_row).astype(np.float64), sampled)

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[Any, Clusters]:
        """Statistics and clusters of covariates, each at one level only."""
        if any(name in self.categories for own in names for name in own):
            refuse("likelihoods of some of the variables")
        return self.plain.marginal(names, rows)

    @cached_property
    def stand_in(self) -> Saturated:
        """Moments to start from, by those of the numbers of categories; see `Statistics.stand_in`."""
        levels = self.variables.levels
        residual = LOGISTIC if self.logistic else 1.0
        values = self.rows.values(self.names)
        column = dict(zip(self.names, values.T, strict=True))
        within = self._correlated(self.names, values, residual)
        out = {}
        total = {name: within[k, k] for k, name in enumerate(self.names)}
        for level, own in enumerate(levels, 1):
            at = [self.names.index(name) for name in own]
            cov = within[np.ix_(at, at)]
            mean = np.array([0.0 if n in self.categories else np.nanmean(column[n]) for n in own])
            if level == WITHIN:
                mean[: self.nboth] = 0.0
            if level == BETWEEN:
                sd = np.sqrt(cov.diagonal() * np.where(np.arange(len(own)) < self.nboth, SHARE, 1.0))
                kind = np.sign(cov) * np.minimum(
                    np.abs(cov) / np.sqrt(np.outer(cov.diagonal(), cov.diagonal())), 1
                )
                kind = CORRELATION * kind
                np.fill_diagonal(kind, 1.0)
                cov = np.outer(sd, sd) * kind
            out[level] = LevelArrays(own, mean, cov, len(own))
        self._fill_covariates(out, len(levels))
        cuts = np.zeros(len(self.thresholds))
        for k, (name, cut) in enumerate(self.thresholds):
            seen = column[name][~np.isnan(column[name])]
            share = float(np.mean(seen < int(cut[1:])))
            cuts[k] = normal_quantile(share) * np.sqrt(total[name] * (1 + SHARE))
        slopes = []
        for slope in self.slopes:
            variance = np.nanvar(column[slope.covariate]) if slope.covariate in column else 1.0
            slopes.append(SLOPE * residual / max(variance, 1e-300))
        return KnownMoments(
            out, np.nan, 0, converged=False, thresholds=cuts, exposed=self.exposed, slopes=tuple(slopes)
        )

    def _correlated(self, names: Sequence[str], values: Floats, residual: float) -> Floats:
        """Covariances of variables whose ordered ones have the variance 1.5 times that of a residual."""
        centred = values - np.nanmean(values, axis=0)
        there = ~np.isnan(values)
        filled = np.where(there, centred, 0.0)
        sd = np.sqrt((filled**2).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
        scaled = filled / np.where(sd > 0, sd, 1.0)
        both = np.maximum(there.T.astype(float) @ there.astype(float), 1.0)
        correlation = scaled.T @ scaled / both
        ordered = np.array([name in self.categories for name in names])
        wider = np.where(ordered, WIDER**0.5, 1.0)
        correlation = np.clip(correlation * np.outer(wider, wider), -0.9, 0.9)
        np.fill_diagonal(correlation, 1.0)
        scale = np.where(ordered, np.sqrt(1.5 * residual), sd)
        out: Floats = correlation * np.outer(scale, scale)
        return out

    def _fill_covariates(self, levels: dict[int, LevelArrays], nlevels: int) -> None:
        """Moments of continuous variables of one level only, which covariates have to have exactly."""
        names = self.variables.measured
        own = [[n for n in some if n not in self.categories] for some in names]
        found = self.plain.covariances(*own) if nlevels > 1 else self.plain.covariances([], *own)[1:]
        for level, (some, cov) in enumerate(zip(own, found, strict=True), 1):
            known = levels[level]
            at = [known.at[name] for name in some]
            whole = known.cov.copy()
            whole[np.ix_(at, at)] = cov
            shared = self.nboth if level < nlevels else 0
            keep = known.cov[:shared, :shared]
            whole[:shared, :shared] = keep
            mean = known.mean.copy()
            total = dict(zip(self.names, self.total_mean, strict=True))
            for name, place in zip(some, at, strict=True):
                if place >= shared:
                    mean[place] = total[name]
            levels[level] = LevelArrays(known.names, mean, whole, known.nobserved)

    # what is not there

    @property
    def arrays(self) -> NoReturn:
        """No sums are enough; always `UnsupportedError`."""
        refuse("samples drawn from a fit")

    def with_slopes(self, slopes: Sequence[Slope], carriers: Sequence[str]) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("saturated models of slopes")

    def new_clusters(self, rows: Rows) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("scores of other rows")

    def with_variables(self, variables: Variables) -> IntegratedStatistics:
        """The same if these are the variables; `UnsupportedError` otherwise."""
        if variables == self.variables:
            return self
        refuse("statistics of some of the variables")
        return None

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("statistics that a model implies")

    def completed(self, rows: Rows) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("fractions of missing information")

    def redrawn(self, drawn: Any) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn from a fit")

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples drawn from a fit")


def refuse(what: str) -> NoReturn:
    """Say that something, named in the plural, is not there for ordered variables by maximum likelihood.

    Raises
    ------
    UnsupportedError
    """
    raise UnsupportedError(
        f"{what} are not available for ordered variables by maximum likelihood in this version"
    )


@dataclass(frozen=True, eq=False)
class KnownMoments(Saturated):
    """Moments to start from, in the order of a likelihood that knows of latent variables; these have none.

    Attributes
    ----------
    thresholds : ndarray
        Of the highest level.
    exposed : mapping of int to tuple of str
    slopes : tuple of float
        Variances of random slopes, last at the highest level; their products come last at level 1.
    """

    thresholds: Floats = field(default_factory=lambda: np.zeros(0))
    exposed: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    slopes: tuple[float, ...] = ()

    @property
    def moments(self) -> list[tuple[Floats, Floats]]:
        """Means and covariances by level; nan of latent variables."""
        out = []
        for level, own in self.levels.items():
            if not own.names:
                continue
            n, latent = len(own.names), len(self.exposed.get(level, ()))
            last = level == max(self.levels)
            cuts = self.thresholds if last else np.zeros(0)
            hidden = np.array(self.slopes if last else [1.0] * len(self.slopes))
            mean = np.concatenate([own.mean, np.full(latent, np.nan), cuts, np.zeros(len(hidden))])
            cov = np.diag(np.concatenate([np.ones(n), np.full(latent, np.nan), np.ones(len(cuts)), hidden]))
            cov[:n, :n] = own.cov
            out.append((mean, cov))
        return out


@dataclass(frozen=True, eq=False)
class IntegratedClusters(CountedClusters):
    """Single clusters of a likelihood of ordered variables.

    Attributes
    ----------
    sizes : ndarray, shape (J,)
    sampled : Sampled or None
    codes : ndarray of int, shape (N,), or None
        Clusters of the rows of a model of one level, whose likelihoods are those of rows.
    weights : ndarray, shape (N,), or None
        How often each of these rows counts.
    """

    sizes: Floats
    sampled: Sampled | None = None
    codes: NDArray[np.int64] | None = None
    weights: Floats | None = None
    products = None

    @property
    def of_units(self) -> bool:
        """Whether they are rows of a single level that are taken together."""
        return self.codes is not None

    def scores(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Derivatives of the log-likelihoods of the clusters; see `Clusters.scores`."""
        if self.codes is None:
            return super().scores(core, theta, group)
        return self._summed(core.scores(theta, self.of(core.likelihoods[group]), group))

    def loglik(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Log-likelihoods of the clusters, shape (J,)."""
        if self.codes is None:
            return super().loglik(core, theta, group)
        return self._summed(core.cluster_loglik(theta, self.of(core.likelihoods[group]), group))

    def score_products(
        self, core: _core.Objective, theta: ArrayLike, group: int, basis: Floats | None
    ) -> Floats:
        """Sum of outer products of the scores; see `Clusters.score_products`."""
        if self.codes is None:
            return super().score_products(core, theta, group, basis)
        scores = self.scores(core, theta, group)
        if basis is not None:
            scores = scores @ basis
        return scores.T @ scores

    def _summed(self, values: Floats) -> Floats:
        """Those of clusters from those of rows, each as often as it counts."""
        assert self.codes is not None
        out = np.zeros((len(self.sizes), *values.shape[1:]))
        times = Sampled(self.weights).weighted(values)
        np.add.at(out, self.codes, times)
        return out

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """These clusters as the compiled likelihood of their variables knows them."""
        return likelihood.clusters()

    def posterior(self, *arguments: object) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("distances and scores from the moments of the model")

    def pool(self, order: NDArray[np.intp]) -> NoReturn:
        """Always `UnsupportedError`."""
        refuse("samples of clusters")


def _given(weights: Floats | None) -> Floats:
    return np.empty(0) if weights is None else weights


def integrated_statistics(
    plain: Statistics,
    rows: ClusteredData,
    categories: Mapping[str, Sequence[Any]],
    thresholds: Sequence[tuple[str, str]],
    plan: IntegrationPlan,
    slopes: Sequence[Slope] = (),
    *,
    logistic: bool,
    nodes: int = 0,
    place: str = "",
) -> IntegratedStatistics:
    """The rows of one group for maximum likelihood with ordered variables.

    Parameters
    ----------
    plain : Statistics
        Of the same rows, with the numbers of categories.
    rows : ClusteredData
    categories : mapping of str to sequence
        Of the ordered variables.
    thresholds : sequence of (str, str)
    plan : IntegrationPlan
    slopes : sequence of Slope
    logistic : bool
    nodes : int
        0: as many as are accurate by experience.
    place : str
        Addition to messages that says which group it is.

    Raises
    ------
    DataError
        If a category is empty.
    MsemError
        If there are too many nodes.
    """
    for name, labels in categories.items():
        if name not in plain.names:
            continue
        column = rows.values((name,))[:, 0]
        check_counts(name, column[~np.isnan(column)], labels, place)
    if nodes ** len(plan.integrated) > MOST_POINTS:
        most = int(MOST_POINTS ** (1 / len(plan.integrated)) + 1e-9)
        raise MsemError(
            f"nodes={nodes} in each of {len(plan.integrated)} dimensions ({', '.join(plan.integrated)}) is more than "
            f"can be kept of every cluster: {most} at most"
        )
    return IntegratedStatistics(
        plain,
        rows,
        {name: len(labels) for name, labels in categories.items() if name in plain.names},
        tuple(thresholds),
        plan,
        tuple(slopes),
        logistic,
        nodes or NODES.get(len(plan.integrated), NODES[1]),
        {name: labels for name, labels in categories.items() if name in plain.names},
    )
