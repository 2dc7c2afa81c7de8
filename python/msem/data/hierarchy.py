"""What statistics of more than two levels have in common: nested clusters, and crossed classifications."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn, Self

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.complete import positions
from msem.data.kinds import Named, WithoutSlopes
from msem.data.shapes import Tree
from msem.data.statistics import Clusters, Design, Rows, Statistics
from msem.errors import UnsupportedError
from msem.model.variables import Variables

Floats = NDArray[np.float64]

SAME = 1e-8  # relative difference of moments that counts as none

# Means (J, d) of what is unknown of the clusters of a level, covariance matrices (S, d, d), and which each cluster has.
Posterior = tuple[Floats, Floats, NDArray[np.int64]]


def level_posterior(
    moments: tuple[Floats, Floats],
    below: int,
    evidence: tuple[Floats, Floats, NDArray[np.int64]],
    observed: int | None = None,
) -> Posterior:
    """Posterior moments of the variables of a level that are not measured on it.

    Of the parts at this level of the `below` first ones, which are measured below, then of the latent variables: with
    derivatives s and H of the log-likelihood, E v = mean + Cov(v, y) s, Var v = cov - Cov(v, y) H Cov(y, v).

    Parameters
    ----------
    moments : (mean, covariance matrix)
        That the model implies, latent variables last.
    below : int
    evidence : (scores, information, which)
        Derivatives of the log-likelihood with respect to the means of the observed variables (J, n), minus the second
        ones (S, n, n), and which of these each cluster has.
    observed : int, optional
        Where the latent variables begin, if it is not at n.
    """
    mean, cov = moments
    scores, information, which = evidence
    n = scores.shape[1]
    own = np.r_[0:below, n if observed is None else observed : len(mean)]
    reach = cov[own, :n]
    return mean[own] + scores @ reach.T, cov[np.ix_(own, own)] - reach @ information @ reach.T, which


class LevelPosteriors:
    """What all data say about the variables of each level, of nested clusters and of crossed ones.

    Attributes
    ----------
    data : _core.NestedData or _core.CrossedData
    moments : tuple of (mean, covariance matrix)
        Of each level, level 1 first, latent variables last; products of random slopes with covariates, then these,
        before other latent variables.
    """

    if TYPE_CHECKING:

        @property
        def data(self) -> _core.NestedData | _core.CrossedData:
            """The data of the core."""

        @property
        def moments(self) -> tuple[tuple[Floats, Floats], ...]:
            """Of each level."""

        def evidence(self, level: int) -> Posterior:
            """Derivatives of the log-likelihood with respect to the means of a level, and minus the second ones."""

    def _slopes(self, level: int) -> tuple[list[bool], list[bool]]:
        """Of each random slope, whether its product with the covariate stands at a level (from 0), and it itself."""
        slopes = self.data.slopes
        return [one[0] == level for one in slopes], [level in one[4] for one in slopes]

    @property
    def observed(self) -> list[tuple[Floats, Floats]]:
        """Moments without latent variables that are no slopes."""
        out = []
        for number, (mean, cov) in enumerate(self.moments):
            n = len(self.data.levels[number]) + sum(map(sum, self._slopes(number)))
            out.append((mean[:n], cov[:n, :n]))
        return out

    def _without_products(self, level: int) -> tuple[Floats, Floats]:
        """Moments of a level (from 0) without products of slopes and what comes from them."""
        mean, cov = self.moments[level]
        products = sum(self._slopes(level)[0])
        n = len(self.data.levels[level])
        reach = cov[:, n : n + products]
        keep = np.r_[0:n, n + products : len(mean)]
        return mean[keep], (cov - reach @ reach.T)[np.ix_(keep, keep)]

    def level_posterior(self, level: int) -> Posterior:
        """Posterior means (J, d), covariance matrices (S, d, d), and which of these each cluster of a level has.

        See `hierarchy.level_posterior`; random slopes are the first latent variables.
        """
        below = sum(self.data.measured[v] < level - 1 for v in self.data.levels[level - 1])
        observed = len(self.data.levels[level - 1])
        return level_posterior(self._without_products(level - 1), below, self.evidence(level), observed)

    def cluster_posterior(self) -> Posterior:
        """The same of the clusters of the highest level."""
        return self.level_posterior(len(self.moments))


class OfUnits(NamedTuple):
    """What all data say about the means of single units.

    Attributes
    ----------
    scores : ndarray, shape (N, p)
        Derivatives of the log-likelihood with respect to the means of a unit; 0 where not observed.
    information : ndarray, shape (S, p, p)
        Minus the second ones.
    which : ndarray of int, shape (N,)
        The matrix of each unit; -1 where nothing is observed.
    """

    scores: Floats
    information: Floats
    which: NDArray[np.int64]

    def posterior(self, mean: Floats, cov: Floats) -> Posterior:
        """Of the latent variables, which follow the p observed ones among the moments."""
        p = self.scores.shape[1]
        reach = cov[p:, :p]
        spread = cov[p:, p:] - reach @ self.information @ reach.T
        means: Floats = mean[p:] + self.scores @ reach.T
        if (self.which >= 0).all():
            return means, spread, self.which
        spread = np.concatenate([spread, cov[None, p:, p:]])
        return means, spread, np.where(self.which >= 0, self.which, len(spread) - 1)

    def distances(self, given: Sequence[int], seen: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Squared distance of what is observed of each unit from its expectation given all else, and how much it is.

        With the inverse V^-1 of the covariance matrix of all data, of a unit s'(V^-1)_ii^-1 s with s = (V^-1 r)_i. Of
        the p variables some may be `given`.
        """
        asked = seen.copy()
        asked[:, list(given)] = False
        distance, df = np.zeros(len(seen)), asked.sum(axis=1).astype(np.float64)
        patterns, of = np.unique(asked, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            rows, at = np.flatnonzero((of.ravel() == number) & (self.which >= 0)), np.flatnonzero(pattern)
            if len(rows) and len(at):
                matrices = self.information[:, at[:, None], at][self.which[rows]]
                s = self.scores[np.ix_(rows, at)]
                distance[rows] = (s * np.linalg.solve(matrices, s[:, :, None])[:, :, 0]).sum(axis=1)
        return distance, df


class ManyLevels(Named, WithoutSlopes):
    """Statistics of complete data of more than two levels, numbered from that of the units.

    Their `data` are those of the core, in which variables are numbered in the order of `names`.
    """

    words: ClassVar[str] = "models of three levels"
    draws: ClassVar[Any]  # the class of the core that draws samples of such data
    independent = True

    if TYPE_CHECKING:
        data: Any

        @property
        def source(self) -> str:
            """Where the statistics come from."""

        @property
        def counted(self) -> tuple[float, ...]:
            """Units of each level."""

        @property
        def sizes(self) -> Floats:
            """Distinct sizes of the clusters of level 2."""

        @property
        def counts(self) -> Floats:
            """How many of these there are of each size."""

        @property
        def total_mean(self) -> Floats:
            """Means over the units of the level that each variable is measured on."""

        @property
        def tree(self) -> Tree | None:
            """Clusters one by one."""

        def covariances(self, *names: Sequence[str]) -> tuple[Floats, ...]:
            """Covariance matrices of variables measured on each level."""

        def clusters(self, rows: Rows) -> Clusters:
            """Independent units."""

    @property
    def complete(self) -> bool:
        """Nothing is missing."""
        return True

    @property
    def nobs(self) -> float:
        """Units of level 1."""
        return self.counted[0]

    @property
    def nclusters(self) -> float:
        """Units of the highest level."""
        return self.counted[-1]

    @property
    def harmonic_size(self) -> float:
        """Harmonic mean of the sizes of the clusters of level 2."""
        return float(self.counts.sum() / (self.counts / self.sizes).sum())

    @property
    def nvalues(self) -> float:
        """Number of observed values."""
        return sum(n * len(own) for n, own in zip(self.counted, self.variables.measured, strict=True))

    @property
    def unidentified(self) -> tuple[str, ...]:
        """Nothing is missing."""
        return ()

    @property
    def npatterns(self) -> tuple[int, ...]:
        """No patterns: every value is there."""
        return ()

    def __getstate__(self) -> dict[str, Any]:
        # what is compiled is made again
        return {name: getattr(self, name) for name in ("variables", "data", "source")}

    def with_variables(self, variables: Variables) -> Self:
        """Statistics of some of the variables, at these levels and in this order.

        Raises
        ------
        DataError
            If a variable is measured on another level.
        """
        if variables == self.variables:
            return self
        at: list[int] = []
        first = 0
        for own, known in zip(variables.measured, self.variables.measured, strict=True):
            at += [first + k for k in positions(own, known)]
            first += len(known)
        return self.redrawn(self.data.restrict(at, variables.numbers), variables)

    def redrawn(self, drawn: Any, variables: Variables | None = None) -> Self:
        """Other data of the same variables, as those of a replicate."""
        changed: Self = replace(self, data=drawn, variables=variables or self.variables)  # type: ignore[type-var]
        return changed

    def difference(self, other: Self) -> str:
        """What differs from other statistics of the same variables, in words; empty if nothing does."""
        mine, theirs = (s.covariances(*self.variables.measured) for s in (self, other))
        spread = np.concatenate([np.sqrt(cov.diagonal()) for cov in mine])
        gap = np.abs(self.total_mean - other.total_mean)
        for name, one, sd in zip(self.names, gap, spread, strict=True):
            if one > SAME * sd:
                return f"the means of '{name}' differ"
        for names, one, two in zip(self.variables.measured, mine, theirs, strict=True):
            sd = np.sqrt(one.diagonal())
            apart = np.abs(one - two) / np.outer(sd, sd)
            if apart.size and apart.max() > SAME:
                i, j = np.unravel_index(apart.argmax(), apart.shape)
                return f"the covariances of '{names[i]}' and '{names[j]}' differ"
        return "the clusters differ" if self.counted != other.counted else ""

    def marginal(self, names: Sequence[Sequence[str]], rows: Rows) -> tuple[Self, Clusters]:
        """Statistics and clusters of some of the variables, each at one level only."""
        part = self.with_variables(Variables(tuple(map(tuple, names))))
        return part, part.clusters(rows)

    # what is not there

    @property
    def shapes(self) -> Mapping[Any, float]:
        """Always `UnsupportedError`, where clusters do not lie within each other."""
        self.refuse("moments by level")

    def expected(
        self, levels: Mapping[int, LevelArrays], variables: Variables, source: str, rows: Rows | None = None
    ) -> Statistics:
        """Always `UnsupportedError`, where there are none."""
        self.refuse("fractions of missing information and other statistics that moments imply")

    @classmethod
    def refuse(cls, what: str) -> NoReturn:
        """Say that something, named in the plural, is not there for such data.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(f"{what} are not available for {cls.words} in this version")

    @property
    def arrays(self) -> NoReturn:
        """Statistics by cluster size know two levels; always `UnsupportedError`."""
        self.refuse("samples drawn from a fit")

    def centred(self) -> NoReturn:
        """Such a model has means; always `UnsupportedError`."""
        self.refuse("samples without means")

    def design(
        self, levels: Sequence[LevelArrays], fixed: Sequence[Sequence[str]], *, centred: bool
    ) -> Design:
        """A group as the core draws samples of it; see `Statistics.design`."""
        return Design.of_levels(self.draws, self.data, levels, self.variables, fixed)
