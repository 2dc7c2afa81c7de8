"""What estimation asks of the statistics of a group, whatever kind of data they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.first_stage import FirstStage
from msem.data.products import ClusterProducts
from msem.data.shapes import Tree
from msem.data.survey import Sampled
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Pool = (
    tuple[Floats, Floats, Floats]
    | partial[_core.IncompletePool]
    | partial[_core.SlopePool]
    | partial[_core.IntegratedPool]
    | partial[_core.NestedPool]
)


@dataclass(frozen=True, eq=False)
class Saturated:
    """Maximum likelihood estimates of the saturated moments as arrays.

    Attributes
    ----------
    levels : mapping of int to LevelArrays
        By level; level 1 only for a single-level sample.
    llf : float
        Log-likelihood of all variables.
    iterations : int
    converged : bool
        Whether the moments are a maximum. With fewer clusters of the largest size than variables there may be none
        but that among positive semidefinite matrices.
    in_cone : bool
        Whether they are a maximum among these.
    """

    levels: Mapping[int, LevelArrays]
    llf: float
    iterations: int
    converged: bool = True
    in_cone: bool = False

    @property
    def within(self) -> LevelArrays:
        """Moments of level 1 of two; nothing for a single level, which counts as the between level."""
        return self.levels[1] if len(self.levels) > 1 else LevelArrays((), np.empty(0), np.empty((0, 0)), 0)

    @property
    def between(self) -> LevelArrays:
        """Moments of the highest level."""
        return self.levels[max(self.levels)]

    @property
    def moments(self) -> list[tuple[Floats, Floats]]:
        """Means and covariances of each level, level 1 first; of two of those that have variables."""
        levels = self.levels.values()
        return [(m.mean, m.cov) for m in levels if m.names or len(levels) > 2]


class Rows(Protocol):
    """The rows that statistics are made of, or what was kept of each of their clusters."""

    @property
    def nobs(self) -> float:
        """Rows in use, not counted by their weights."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Rows in which a variable is missing, for variables with any."""

    @property
    def dropped_rows(self) -> int:
        """Rows left out because a variable is missing."""

    @property
    def dropped_empty(self) -> int:
        """Rows left out because nothing is observed in them."""

    @property
    def dropped_no_cluster(self) -> int:
        """Rows left out because the cluster id is missing."""

    @property
    def dropped_zero(self) -> int:
        """Rows left out because their weight is zero."""

    @property
    def cluster_count(self) -> int | None:
        """Clusters that the rows come in; None if they do not."""

    def clusters_of(self, level: int) -> int:
        """Clusters of a level."""

    @property
    def identifiers(self) -> pd.Index[Any]:
        """Ids of the clusters in the order of their statistics; labels of rows that come in no clusters."""

    @property
    def keeps_products(self) -> bool:
        """Whether the products within every single cluster are known."""

    @property
    def tree(self) -> Tree | None:
        """Clusters one by one, with their rows as they are counted and not weighted; None where they are not known."""

    def cluster_arrays(self, unit: Sequence[str], cluster: Sequence[str]) -> tuple[Floats, Floats, Floats]:
        """Sizes, means and products within of every cluster; see `ClusterArrays`."""

    @property
    def units_of_clusters(self) -> Floats:
        """Rows of each cluster, shape (J,)."""

    def cluster_products(
        self, unit: Sequence[str], cluster: Sequence[str], origin: Floats, scale: Floats
    ) -> tuple[Floats, list[Floats]] | None:
        """Sums of products of the statistics of clusters, by size; see `ClusterProducts`. None: not from these rows."""

    def row_values(self, names: Sequence[str]) -> list[Floats]:
        """Values of each variable, shape (N,)."""

    @property
    def cluster_of_row(self) -> NDArray[np.int64]:
        """Number of the cluster of every row."""

    def cell_products(self, names: Sequence[str], data: _core.IncompleteData) -> Floats:
        """Products within the cells of data with holes, by cluster; see `IncompleteClusters`."""

    def filled(self) -> Rows:
        """The same with any values in the place of missing ones."""

    @property
    def weights(self) -> Floats | None:
        """How often each row counts; None if all count once."""

    @property
    def sampled(self) -> Sampled | None:
        """How the clusters, or rows without clusters, were sampled; None for a simple sample."""

    @property
    def weight_totals(self) -> Floats:
        """Sums of the weights of units, clusters included, and of their squares; of those of clusters, and squares."""

    def reduced_products(
        self, unit: Sequence[str], covariates: Sequence[str], data: _core.ReducedData
    ) -> Floats:
        """Products of the unit variables about their regressions within every cluster; see `SlopeClusters`."""

    @property
    def lowest_sizes(self) -> Floats:
        """Rows of the lowest of nested clusters, shape (J,)."""

    def nested(self, variables: Variables) -> _core.NestedData:
        """The statistics of nested clusters; see `NestedStatistics`."""

    def nested_with_slopes(
        self, variables: Variables, fixed: Sequence[str], slopes: Sequence[Slope]
    ) -> _core.NestedData:
        """The statistics of nested clusters for a model with random slopes; see `NestedSlopeStatistics`."""

    def crossed(
        self, variables: Variables, fixed: Sequence[str] = (), slopes: Sequence[Slope] = ()
    ) -> tuple[_core.CrossedData, NDArray[np.int64], list[Floats]]:
        """The statistics of crossed classifications, see `CrossedStatistics`, the cell of each row, and covariates.

        The cell is -1 where nothing is observed; of each slope the values of its covariate. `fixed` are fixed
        covariates of any level.
        """

    def reduced(
        self,
        variables: Variables,
        covariates: Sequence[str],
        fixed: int,
        numbers: Sequence[int],
    ) -> _core.ReducedData:
        """The rows reduced for random slopes; see `SlopeStatistics`."""


class Clusters(Protocol):
    """Independent units of a group: its clusters, or the rows of a single level that come in none."""

    @property
    def sizes(self) -> Floats:
        """Units with anything observed in each cluster, shape (J,); 1 for rows."""

    @property
    def of_units(self) -> bool:
        """Whether there are products within clusters: never for the rows of a single-level sample by themselves."""

    @property
    def sampled(self) -> Sampled | None:
        """How they were sampled; None for a simple sample."""

    @property
    def products(self) -> ClusterProducts | None:
        """Sums of products by size, from which sums of products of scores are computed; None where it does not pay."""

    def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
        """The clusters as the core knows them: of the compiled likelihood of their sample."""

    def scores(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Derivatives of the log-likelihoods of the clusters, shape (J, npar), for an objective of these variables.

        Each as often as the cluster counts, so that they add up to that of the sample.
        """

    def loglik(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Log-likelihoods of the clusters, shape (J,), each as often as the cluster counts."""

    def score_products(
        self, core: _core.Objective, theta: ArrayLike, group: int, basis: Floats | None
    ) -> Floats:
        """Sum of outer products of the scores, along the columns of a basis, shape (npar, k)."""

    def saturated_influence(self, moments: Floats, nobs: float) -> Floats | None:
        """What each cluster of a single level adds to the moments beyond its share, shape (J, m).

        None where moments are not means of products, because of holes: then it follows from the scores.
        """

    def saturated_trace(
        self,
        likelihood: _core.Likelihood,
        levels: Sequence[LevelArrays],
        fixed: Sequence[bool],
        *,
        means: bool,
        expected: bool,
    ) -> float | None:
        """tr(A^-1 B) of the saturated model, A its information and B the outer products of the clusters' scores.

        `fixed` says which variables are covariates with fixed moments. None where whole matrices A and B are as cheap.
        """

    def posterior(self, variables: Variables, moments: Sequence[tuple[Floats, Floats]]) -> Any:
        """The clusters with model-implied moments, for scores of latent variables and distances.

        `moments` are means and covariance matrix of each level, level 1 first, latent variables last.
        """

    def pool(self, order: NDArray[np.intp]) -> Pool:
        """The clusters in some order, for the core to draw from; what is returned can be pickled."""


@dataclass(frozen=True, eq=False)
class Design:
    """A group as the core draws samples of it: `draws` is the class that does, `group` what it is made of."""

    draws: Callable[[Sequence[Any], int], _core.Draws]
    group: Any

    @classmethod
    def of_levels(
        cls,
        draws: Callable[[Sequence[Any], int], _core.Draws],
        data: Any,
        levels: Sequence[LevelArrays],
        variables: Variables,
        fixed: Sequence[Sequence[str]],
    ) -> Design:
        """Data of the core with moments of each level, given fixed covariates of each."""
        places = [
            [own.index(name) for name in names if name in own]
            for names, own in zip(fixed, variables.levels, strict=True)
        ]
        return cls(draws, (data, [(one.mean, one.cov) for one in levels], places))


class Integral(Protocol):
    """What is asked about a likelihood of ordered variables, which is an integral."""

    @property
    def plain(self) -> Statistics:
        """Statistics of the same rows with the numbers of categories, without an integral."""

    def again(self, plain: Statistics, rows: Any) -> Statistics:
        """The same of other rows."""

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """Latent variables by level that are integrated over."""

    @property
    def integrated(self) -> tuple[str, ...]:
        """Variables of the highest level that are integrated over."""

    @property
    def given(self) -> tuple[str, ...]:
        """Continuous variables that are measured on units of the highest level."""

    @property
    def given_values(self) -> Floats:
        """Their values, a row for each of these units."""

    def reweighted(self, times: Floats) -> _core.Likelihood | None:
        """The likelihood with each unit counted so many times; None where a category is not among those that count."""

    @property
    def unit_counts(self) -> Floats | None:
        """How often each unit of the likelihood counts, rows of one level or clusters; None: once."""

    def posterior(self, moments: Sequence[tuple[Floats, Floats]]) -> _core.OrderedPosterior:
        """Posterior moments of what is integrated over, at moments that a model implies."""


class Statistics(Protocol):
    """Statistics of one group, all that a likelihood needs of its rows; immutable."""

    @property
    def source(self) -> str:
        """Where they come from: "data", "moments", ..."""

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""

    @property
    def independent(self) -> bool:
        """Whether the highest clusters, or rows without clusters, are independent of each other."""

    @property
    def variables(self) -> Variables:
        """Names by level."""

    @property
    def unit(self) -> tuple[str, ...]:
        """`Variables.unit`."""

    @property
    def cluster(self) -> tuple[str, ...]:
        """`Variables.cluster`."""

    @property
    def names(self) -> tuple[str, ...]:
        """`Variables.names`."""

    @property
    def nobs(self) -> float:
        """Units of level 1."""

    @property
    def nclusters(self) -> float:
        """Units of the highest level."""

    @property
    def counted(self) -> tuple[float, ...]:
        """Units of each level that has variables of its own; see `covariances`."""

    @property
    def sizes(self) -> Floats:
        """Distinct sizes of the lowest clusters, ascending."""

    @property
    def counts(self) -> Floats:
        """How many clusters there are of each size."""

    @property
    def tree(self) -> Tree | None:
        """Clusters one by one; None where they are not known."""

    @property
    def shapes(self) -> Mapping[Any, float]:
        """How many of the highest clusters there are of each shape; see the module `shapes`."""

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the cluster sizes."""

    @property
    def nvalues(self) -> float:
        """Number of observed values."""

    @property
    def total_mean(self) -> Floats:
        """Means over units of what is measured on units, over clusters of the other variables."""

    @property
    def arrays(self) -> tuple[Floats, Floats, Floats, Floats, Floats]:
        """Sizes, counts, means, scatter and ssw by cluster size; `DataError` for data with holes."""

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated covariances that the data say nothing about, by name."""

    @property
    def npatterns(self) -> tuple[int, ...]:
        """Patterns of observed variables of each level, level 1 first; empty where no value can be missing."""

    @property
    def stand_in(self) -> Saturated | None:
        """Moments to start from where there are no saturated ones, those of covariates being right; None otherwise."""

    @property
    def slopes(self) -> tuple[Slope, ...]:
        """Random slopes of the model that the statistics were made for."""

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """Latent variables by level that the likelihood knows of, because it integrates over them."""

    @property
    def ordered(self) -> tuple[str, ...]:
        """Variables whose values are categories."""

    @property
    def labels(self) -> Mapping[str, Sequence[Any]]:
        """Their categories, ascending."""

    @property
    def integral(self) -> Integral | None:
        """What the likelihood of ordered variables is an integral over; None for other likelihoods."""

    @property
    def nodes(self) -> int:
        """Nodes for each variable of clusters that the likelihood integrates over; 0 where it does not."""

    def with_nodes(self, nodes: int) -> Self:
        """The same with another number of nodes; nothing else where nothing is integrated over."""

    @property
    def first_stage(self) -> FirstStage | None:
        """Thresholds, correlations and what else is estimated of ordered variables; None without any."""

    @property
    def full_clusters(self) -> int:
        """Clusters in which all covariates with random slopes have coefficients of their own."""

    def with_slopes(self, slopes: Sequence[Slope], carriers: Sequence[str]) -> Self:
        """The same sample for other random slopes of the same covariates."""

    def completed(self, rows: Rows) -> Self:
        """The same rows with values in the place of missing ones, of which expected information does not depend.

        For models with random slopes, which have no saturated moments.

        Raises
        ------
        UnsupportedError
            If the likelihood has no expected information.
        """

    def likelihood(self, *, by_cluster: bool = False) -> _core.Likelihood:
        """The compiled likelihood, made once.

        `by_cluster`: of a single level with its variables as those of units of clusters that do not differ, for
        `clusters` of rows.
        """

    def clusters(self, rows: Rows) -> Clusters:
        """Independent units of the rows that the statistics were made of.

        Rows of a single level that come in clusters are taken together by cluster, without a model for their
        dependence.

        Raises
        ------
        DataError
            If the clusters were not kept.
        """

    def new_clusters(self, rows: Rows) -> Clusters | None:
        """Clusters of new rows, for scores; None where they are made of their variables alone."""

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[Self, Clusters]:
        """Statistics and clusters of variables measured on units, on clusters, and so on, each at that level only."""

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> Statistics:
        """Statistics that complete data with these moments by level would have, of some of the variables.

        In clusters like those of the sample: of its units with anything observed, or of all of its `rows`.
        """

    def with_variables(self, variables: Variables) -> Self:
        """Statistics of some of the variables, at these levels and in this order.

        Raises
        ------
        DataError
            If a variable is not among those of its kind.
        """

    def centred(self) -> Self:
        """The statistics about their means, for models without mean structure."""

    def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
        """Covariance matrices of variables measured on units, on clusters, and so on; numbers of these are divisors."""

    def difference(self, other: Self) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""

    def redrawn(self, drawn: Any) -> Self:
        """The statistics of a replicate that the core has drawn."""

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it from model-implied moments by level, given fixed covariates of each.

        `centred`: with means of 0, for models without means, which not all kinds of data have.

        Raises
        ------
        DataError
            If the sample is not one of whole clusters, or the covariates' data are not known.
        """
