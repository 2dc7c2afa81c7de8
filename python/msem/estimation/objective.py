"""The objective: -2 log L of a model as a public function of its parameters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from msem import _core
from msem.data.arrays import LevelArrays
from msem.data.statistics import Clusters, Statistics
from msem.estimation.constraints import Constraints, compile_constraints
from msem.estimation.matrices import BlockMap, block_maps, implied_moments, row_values
from msem.estimation.penalty import penalty_terms
from msem.estimation.plan import make_plan
from msem.model.partable import ParameterTable, fixed_covariates

Floats = NDArray[np.float64]

__all__ = [
    "ImpliedLevels",
    "ImpliedMoments",
    "Objective",
    "build_objective",
    "covariate_loglik",
]


@dataclass(frozen=True)
class ImpliedMoments:
    """Model-implied moments of all variables of one level, latent variables included.

    Attributes
    ----------
    mean : Series
    cov : DataFrame
    nobserved : int
        How many of them, from the first, are observed.
    """

    mean: pd.Series
    cov: pd.DataFrame
    nobserved: int

    @property
    def observed(self) -> ImpliedMoments:
        """The same of the observed variables only."""
        n = self.nobserved
        return replace(self, mean=self.mean.iloc[:n], cov=self.cov.iloc[:n, :n])


class ImpliedLevels(dict[int, ImpliedMoments]):
    """Model-implied moments by level, 1 = within, 2 = between; a single-level model has level 1 only."""

    @property
    def within(self) -> ImpliedMoments:
        """Of the observed variables at the within level, to be held against the saturated ones."""
        return self[1].observed

    @property
    def between(self) -> ImpliedMoments:
        """Of the observed variables at the between level, to be held against the saturated ones."""
        return self[2].observed


@dataclass(frozen=True, eq=False)
class Objective:
    """-2 log L of a model at any value of its parameters.

    Attributes
    ----------
    table : ParameterTable
        With the moments of fixed covariates filled in.
    statistics : tuple of SampleStatistics or IncompleteStatistics
        One for each group.
    blocks : tuple of BlockMap
        One for each level of each group: group by group, within first.
    covariate_llf : float
        Log-likelihood of the fixed covariates, which is taken out of all values: the likelihood is that of
        the other variables given the within-only and between-only covariates.
    core : _core.Objective
        The compiled objective, covariates included.
    loss : tuple of _core.Likelihood
        Another discrepancy than the normal likelihood for each group; empty without.
    """

    table: ParameterTable
    statistics: tuple[Statistics, ...]
    blocks: tuple[BlockMap, ...]
    covariate_llf: float
    core: _core.Objective
    loss: tuple[_core.Likelihood, ...] = ()

    @cached_property
    def constraints(self) -> Constraints | None:
        """Equality and inequality constraints on theta; None without."""
        return compile_constraints(self.table) if self.table.constraints or self.table.defined else None

    @cached_property
    def plan(self) -> _core.Plan:
        """What fitting the model takes beside the sample."""
        variables = [s.variables for s in self.statistics]
        return make_plan(self.table, variables, self.constraints, known=self.blocks)

    @property
    def compiled(self) -> list[_core.Block]:
        """The blocks as the core has them."""
        return [block.compiled.block for block in self.blocks]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as table and statistics, from which the compiled part is made again."""
        return build_objective, (self.table, self.statistics, self.loss or None)

    def value(self, theta: ArrayLike) -> float:
        """-2 log L at theta, shape (npar,), with the penalty if there is one.

        Infinite where the implied moments are not a distribution.
        """
        return self.core.value(theta) + 2 * self.covariate_llf

    def llf(self, theta: ArrayLike) -> float:
        """Log-likelihood at theta, without the penalty if there is one."""
        return -0.5 * (self.value(theta) - self.penalty(theta))

    def penalty(self, theta: ArrayLike) -> float:
        """What a penalty adds to -2 log L at theta; 0 without any."""
        return self.core.penalty(theta) if self.table.penalty else 0.0

    def gradient(self, theta: ArrayLike) -> Floats:
        """Derivatives of `value`, shape (npar,)."""
        return self.core.evaluate(theta)[1]

    def expected_information(self, theta: ArrayLike) -> Floats:
        """Fisher information, shape (npar, npar)."""
        return self.core.expected_information(theta)

    def observed_information(self, theta: ArrayLike) -> Floats:
        """Negative second derivatives of the log-likelihood, shape (npar, npar)."""
        return self.core.observed_information(theta)

    def moments(self, theta: ArrayLike, group: int = 1) -> dict[int, LevelArrays]:
        """Model-implied moments of one group by level, of all variables, as arrays."""
        return {
            block.level: implied_moments(block, *self.core.implied(theta, i))
            for i, block in enumerate(self.blocks)
            if block.group == group
        }

    def moments_of(self, level: int, theta: ArrayLike, group: int = 1) -> LevelArrays:
        """Model-implied moments of one level of one group, of all variables."""
        i = self.place(level, group)
        return implied_moments(self.blocks[i], *self.core.implied(theta, i))

    def place(self, level: int, group: int = 1) -> int:
        """Where the block of one level of one group stands."""
        return next(i for i, block in enumerate(self.blocks) if (block.level, block.group) == (level, group))

    def compiled_moments(self, theta: ArrayLike, group: int = 1) -> tuple[tuple[Floats, Floats], ...]:
        """Means and covariances of each level of a group as the core has them, products with slopes included."""
        return tuple(
            self.core.implied(theta, i) for i, block in enumerate(self.blocks) if block.group == group
        )

    def likelihood_moments(self, theta: ArrayLike, group: int = 1) -> dict[int, LevelArrays]:
        """Implied moments of what the likelihood of a group has at each level: observed variables, products and slopes.

        Without random slopes these are the observed variables.
        """
        out = {}
        for i, block in enumerate(self.blocks):
            if block.group == group:
                n = block.first_hidden + len(block.slopes)
                mean, cov = self.core.implied(theta, i)
                names = (*block.names[: block.nobserved], *block.exposed, *block.slopes)
                out[block.level] = LevelArrays(names, mean[:n], cov[:n, :n], block.nobserved)
        return out

    def observed_moments(self, theta: ArrayLike, group: int = 1) -> list[tuple[Floats, Floats]]:
        """Means and covariances of each level of a group as likelihoods take them: without hidden latent variables."""
        own = [block for block in self.blocks if block.group == group]
        sizes = [block.first_hidden + len(block.slopes) + len(block.thresholds) for block in own]
        return [
            (mean[:n], cov[:n, :n])
            for (mean, cov), n in zip(self.compiled_moments(theta, group), sizes, strict=True)
        ]

    def implied(self, theta: ArrayLike, group: int = 1) -> ImpliedLevels:
        """Model-implied moments of one group by level, 1 = within, 2 = between."""
        return ImpliedLevels(
            (level, ImpliedMoments(m.series(), m.frame(), m.nobserved))
            for level, m in self.moments(theta, group).items()
        )

    def of_group(self, group: int) -> Objective:
        """The same for one group alone; parameters after the last that it has are left off the end of theta."""
        rows = tuple(row._replace(group=1) for row in self.table.rows if row.group == group)
        own = self.loss[group - 1] if self.loss else None
        penalty = self.table.penalty[group - 1 : group]
        table = replace(self.table, rows=rows, ngroups=1, penalty=penalty)
        return build_objective(table, self.statistics[group - 1], own)

    def variances(self, theta: ArrayLike) -> dict[tuple[int, int], dict[str, float]]:
        """Implied variances of all variables by (level, group)."""
        return {
            (level, group): m.variances
            for group in range(1, self.table.ngroups + 1)
            for level, m in self.moments(theta, group).items()
        }

    def row_values(self, theta: ArrayLike) -> Floats:
        """Value of every row of the parameter table."""
        return row_values(self.table, np.asarray(theta, dtype=np.float64))

    def scores(self, theta: ArrayLike, clusters: Clusters, group: int = 1) -> Floats:
        """Derivatives of the log-likelihoods of single clusters of one group, shape (J, npar)."""
        return clusters.scores(self.core_for(clusters), theta, group - 1)

    def score_products(
        self, theta: ArrayLike, clusters: Clusters, group: int, basis: Floats | None = None
    ) -> Floats:
        """Sum of outer products of the scores of single clusters of one group; see `Clusters.score_products`."""
        return clusters.score_products(self.core_for(clusters), theta, group - 1, basis)

    def cluster_loglik(self, theta: ArrayLike, clusters: Clusters, group: int = 1) -> Floats:
        """Log-likelihoods of single clusters of one group, fixed covariates included, shape (J,)."""
        return clusters.loglik(self.core_for(clusters), theta, group - 1)

    def with_losses(self, losses: Sequence[_core.Likelihood]) -> _core.Objective:
        """The compiled model with other discrepancies of the groups."""
        groups = [
            (loss, [place for place, block in enumerate(self.blocks) if block.group == number])
            for number, loss in enumerate(losses, 1)
        ]
        return _core.Objective(self.table.npar, self.compiled, groups)

    def core_for(self, clusters: Clusters) -> _core.Objective:
        """The compiled objective whose likelihoods know these clusters."""
        single = not self.table.multilevel and not self.statistics[0].unit
        return self._unit_core if clusters.of_units and single else self.core

    @cached_property
    def _unit_core(self) -> _core.Objective:
        """A single-level model with its variables as unit variables, for clusters of rows of a single-level sample."""
        nothing = _core.Block(0, 0, [], [], [], [], [])
        groups = [
            (s.likelihood(by_cluster=True), [i, len(self.blocks)]) for i, s in enumerate(self.statistics)
        ]
        return _core.Objective(self.table.npar, [*self.compiled, nothing], groups)


def build_objective(
    table: ParameterTable,
    statistics: Statistics | Sequence[Statistics],
    loss: _core.Likelihood | Sequence[_core.Likelihood] | None = None,
) -> Objective:
    """Compile a model for a sample.

    Parameters
    ----------
    table : ParameterTable
        With the moments of fixed covariates filled in.
    statistics : SampleStatistics or IncompleteStatistics, or a sequence with those of each group
        Of the variables of the table.
    loss : _core.Likelihood or a sequence of them, optional
        Another discrepancy than the normal likelihood, for each group.

    Returns
    -------
    Objective
    """
    groups = tuple(statistics) if isinstance(statistics, Sequence) else (statistics,)
    losses = () if loss is None else tuple(loss) if isinstance(loss, Sequence) else (loss,)
    blocks = block_maps(table, [s.variables for s in groups], [s.exposed for s in groups])
    core = _core.Objective(
        table.npar,
        [block.compiled.block for block in blocks],
        [
            (own, [place for place, block in enumerate(blocks) if block.group == group])
            for group, own in enumerate(losses or [s.likelihood() for s in groups], 1)
        ],
        penalty_terms(table, blocks) if table.penalty else [],
    )
    covariates = 0.0 if losses else sum(covariate_loglik(table, s, g) for g, s in enumerate(groups, 1))
    return Objective(table, groups, blocks, covariates, core, losses)


def covariate_loglik(table: ParameterTable, statistics: Statistics, group: int = 1) -> float:
    """Normal log-likelihood of the fixed within-only and between-only covariates at the sample moments of a group.

    Within-only covariates are independent over units, between-only ones over clusters. A covariate at both
    levels stays in the likelihood, as in lavaan and Mplus.
    """
    s = statistics
    names = fixed_covariates(table, s.variables, group)
    if not any(names):
        return 0.0
    # the models that are compared with one have the same covariates
    kept: dict[tuple[tuple[str, ...], ...], float] = vars(s).setdefault("_covariate_loglik", {})
    of = tuple(map(tuple, names))
    if of not in kept:
        covs = zip(s.covariances(*names), s.counted, strict=True)
        kept[of] = sum(_normal_loglik(cov, n) for cov, n in covs if len(cov))
    return kept[of]


def _normal_loglik(cov: Floats, n: float) -> float:
    return -0.5 * n * (len(cov) * (math.log(2 * math.pi) + 1) + float(np.linalg.slogdet(cov)[1]))
