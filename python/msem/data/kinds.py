"""What statistics of several kinds, and their clusters, do alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.first_stage import FirstStage
from msem.data.shapes import Tree
from msem.data.statistics import Clusters, Integral, Rows, Saturated
from msem.data.survey import Sampled
from msem.errors import UnsupportedError
from msem.model.slopes import Slope
from msem.model.variables import Variables

Floats = NDArray[np.float64]


class CountedClusters:
    """What clusters of every kind do alike: each counts as often as it was sampled for."""

    if TYPE_CHECKING:

        @property
        def sampled(self) -> Sampled | None:
            """How they were sampled."""

        def of(self, likelihood: _core.Likelihood) -> _core.Clusters:
            """The clusters as the core knows them."""

    def scores(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Derivatives of the log-likelihoods of the clusters; see `Clusters.scores`."""
        return self.as_counted(core.scores(theta, self.of(core.likelihoods[group]), group))

    def loglik(self, core: _core.Objective, theta: ArrayLike, group: int = 0) -> Floats:
        """Log-likelihoods of the clusters, shape (J,), each as often as the cluster counts."""
        return self.as_counted(core.cluster_loglik(theta, self.of(core.likelihoods[group]), group))

    def score_products(
        self, core: _core.Objective, theta: ArrayLike, group: int, basis: Floats | None
    ) -> Floats:
        """Sum of outer products of the scores; see `Clusters.score_products`."""
        weights = None if self.sampled is None else self.sampled.weights
        return core.score_products(
            theta,
            self.of(core.likelihoods[group]),
            group,
            np.empty(0) if weights is None else weights**2,
            np.empty((0, 0)) if basis is None else basis,
        )

    def as_counted(self, values: Floats) -> Floats:
        """Values or rows of clusters, each as often as it counts."""
        return values if self.sampled is None else self.sampled.weighted(values)

    def saturated_influence(self, moments: Floats, nobs: float) -> Floats | None:
        """None: where moments are not means of products it follows from the scores."""
        return None

    def saturated_trace(
        self,
        likelihood: _core.Likelihood,
        levels: Sequence[LevelArrays],
        fixed: Sequence[bool],
        *,
        means: bool,
        expected: bool,
    ) -> float | None:
        """None: it takes whole matrices, unless a kind of data has something cheaper."""
        return None


class Named:
    """What statistics of every kind say of their variables."""

    if TYPE_CHECKING:

        @property
        def variables(self) -> Variables:
            """Names by level."""

    @property
    def unit(self) -> tuple[str, ...]:
        """Variables measured on units."""
        return self.variables.unit

    @property
    def cluster(self) -> tuple[str, ...]:
        """Variables measured on clusters of any level, the lower ones first."""
        return self.variables.cluster

    @property
    def names(self) -> tuple[str, ...]:
        """Every variable once, by the level that it is measured on: the order of all mean vectors."""
        return self.variables.names


class AtMostTwoLevels(Named):
    """What statistics of one level or two say alike."""

    independent = True

    if TYPE_CHECKING:

        @property
        def nobs(self) -> float:
            """Units of level 1."""

        @property
        def nclusters(self) -> float:
            """Units of the highest level."""

        @property
        def sizes(self) -> Floats:
            """Distinct sizes of the clusters."""

        @property
        def counts(self) -> Floats:
            """How many clusters there are of each size."""

    @property
    def tree(self) -> Tree | None:
        """Clusters in the order of their sizes; None where sizes or counts are not whole numbers."""
        if any(not float(x).is_integer() for x in (*self.sizes, *self.counts)):
            return None
        return np.repeat(self.sizes, self.counts.astype(np.intp)), ()

    @property
    def shapes(self) -> Mapping[Any, float]:
        """How many clusters there are of each size."""
        return dict(zip(self.sizes.tolist(), self.counts.tolist(), strict=True))

    @property
    def counted(self) -> tuple[float, ...]:
        """Units and clusters; of a single level its rows as clusters."""
        return self.nobs, self.nclusters

    @property
    def nboth(self) -> int:
        """How many of the variables measured on units, the first ones, are at both levels."""
        return len(self.variables.both)


class Continuous:
    """What statistics say that have no ordered variables."""

    @property
    def exposed(self) -> Mapping[int, tuple[str, ...]]:
        """None: the likelihood knows of no latent variables but slopes."""
        return {}

    @property
    def ordered(self) -> tuple[str, ...]:
        """None: all variables are continuous."""
        return ()

    @property
    def labels(self) -> Mapping[str, Sequence[Any]]:
        """None: there are no categories."""
        return {}

    @property
    def integral(self) -> Integral | None:
        """None: the likelihood is not that of ordered variables."""
        return None

    @property
    def first_stage(self) -> FirstStage | None:
        """None: no variable is ordered."""
        return None


class Augmented:
    """What statistics that know more of the same rows, `plain`, say as these do."""

    if TYPE_CHECKING:

        @property
        def plain(self) -> Any:
            """Statistics of the same variables."""

    @property
    def source(self) -> str:
        """Where they come from."""
        return str(self.plain.source)

    @property
    def complete(self) -> bool:
        """Whether no value is missing."""
        return bool(self.plain.complete)

    @property
    def variables(self) -> Variables:
        """Names by level, without slopes."""
        known: Variables = self.plain.variables
        return known

    @property
    def npatterns(self) -> tuple[int, ...]:
        """Patterns of observed variables of each level, level 1 first; empty where no value is missing."""
        known: tuple[int, ...] = self.plain.npatterns
        return known

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Saturated covariances that the data say nothing about, by name."""
        known: tuple[str, ...] = self.plain.unidentified
        return known

    def difference(self, other: Any) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        return str(self.plain.difference(other.plain))


class WithoutSlopes(Continuous):
    """What statistics say that know of no random slopes."""

    nodes = 0

    @property
    def slopes(self) -> tuple[Slope, ...]:
        """None."""
        return ()

    def with_nodes(self, nodes: int) -> Self:
        """The same: nothing is integrated over."""
        return self

    @property
    def stand_in(self) -> Saturated | None:
        """None: saturated moments can be estimated."""
        return None

    @property
    def full_clusters(self) -> int:
        """No covariate has a random slope."""
        return 0

    def with_slopes(self, slopes: Sequence[Slope], carriers: Sequence[str]) -> NoReturn:
        """The products of covariates within clusters are not known; always `UnsupportedError`."""
        raise UnsupportedError("random slopes need rows of raw data")

    def completed(self, rows: Rows) -> NoReturn:
        """Complete data are those with the saturated moments; always `UnsupportedError`."""
        raise UnsupportedError("complete rows without random slopes are those with the saturated moments")

    def new_clusters(self, rows: Rows) -> Clusters | None:
        """None: clusters of new rows are made of their variables alone."""
        return None
