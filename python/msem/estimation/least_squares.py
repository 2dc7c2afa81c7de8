"""Least squares on saturated moments: one second stage for statistics s with covariance matrix acov(s).

The estimates minimise F = (s - sigma)' W (s - sigma), with W the inverse of acov(s) ("WLS"; Browne, 1984), of its
diagonal ("DWLS"), of the covariance matrix of the moments of normal variables ("GLS"), or the identity times the number
of units ("ULS"). With H = (D'WD)^-1, D the derivatives of sigma, the sampling covariance matrix is H D'W acov W D H
whatever W is (Satorra & Bentler, 1994; Muthen, 1993). The moments of fixed covariates among themselves are not among
the statistics, and acov(s) is conditional on them. Where variables are at both levels, s are the saturated within and
between moments with the joint covariance matrix of both (Rosseel & Loh, 2022).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.checks import regular_inverse
from msem.data.first_stage import FirstStage, Statistic
from msem.data.sample import Group, Sample
from msem.data.saturated import saturated_core, saturated_information
from msem.data.survey import independent_rows
from msem.errors import DataError, UnsupportedError
from msem.estimation.discrepancy import LevelDiscrepancy, residual_statistic
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.matrices import block_matrices
from msem.estimation.moment_vector import (
    Moment,
    MomentErrors,
    MomentVector,
    given_moments,
    moment_keys,
    moment_values,
    spectrum,
)
from msem.estimation.objective import Objective
from msem.estimation.problems import Problem
from msem.estimation.sampling import Sampling, free_directions, sampling_covariance
from msem.estimation.scoreproducts import cluster_correction
from msem.estimation.unit_statistics import (
    moment_bread,
    moment_scores,
    statistics_without,
    unit_influence,
    unit_sizes,
)
from msem.model.partable import ParameterTable
from msem.model.variables import Variables
from msem.settings import ResolvedSettings, Weighting

Floats = NDArray[np.float64]
COVARIANCE, MEAN, THRESHOLD, SLOPE = range(4)  # kinds of statistics, as the core counts them


@dataclass(frozen=True, eq=False)
class SecondStage:
    """The statistics of one group, their covariance matrix and weight, and where they stand among all moments.

    Attributes
    ----------
    keys : tuple of Moment, length total
    used : ndarray of int, shape (m,)
        Positions of the statistics among the moments of `moment_keys`.
    values : ndarray, shape (m,)
    acov : ndarray, shape (m, m)
    weight : ndarray, shape (m, m) or (m, 1)
        W, or its diagonal as a column.
    influence : ndarray, shape (P, m), or None
        With primary sampling units or strata: what each of those of all groups adds; the outer products are `acov`.
    likelihood, plain : _core.LeastSquares
        The discrepancy, and the same with weights of 1, whose factor is the derivatives of the statistics.
    at_bound : tuple of (str, str)
        Pairs of ordered variables whose correlation is at its bound.
    scale_levels : mapping of str to int
        The level at which the variance of each ordered variable is 1.
    """

    keys: tuple[Moment, ...]
    used: NDArray[np.intp]
    values: Floats
    acov: Floats
    weight: Floats
    influence: Floats | None
    likelihood: _core.LeastSquares
    plain: _core.LeastSquares
    at_bound: tuple[tuple[str, str], ...] = ()
    scale_levels: Mapping[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many moments there are, given ones included."""
        return len(self.keys)

    @property
    def full_weight(self) -> Floats:
        """W, shape (m, m)."""
        return np.diag(self.weight[:, 0]) if self.weight.shape[1] == 1 else self.weight


@dataclass(frozen=True, eq=False, kw_only=True)
class LeastSquaresSolution(LevelDiscrepancy):
    """A solution for all groups and levels; its vectors have zeros for moments of fixed covariates.

    Attributes
    ----------
    stages : tuple of SecondStage
        One for each group.
    normal : bool
        Whether acov(s) is that of normal variables.
    weighting : {"ULS", "DWLS", "WLS", "GLS"}
    """

    stages: tuple[SecondStage, ...]
    normal: bool
    weighting: Weighting

    def of(self, fit: Estimate) -> LeastSquaresSolution:
        """The same for another model of these statistics, such as the baseline model."""
        return solution_at(fit, self.stages, self.weighting, normal=self.normal)

    def in_sample(self, fit: Estimate, sample: Sample) -> LeastSquaresSolution:
        """The same for another sample that the model was fitted to."""
        stages = second_stages(fit.table, sample.groups, self.weighting, robust=not self.normal)
        return solution_at(fit, stages, self.weighting, normal=self.normal)

    def gradient_root(self, objective: Objective, theta: Floats) -> Floats:
        """R'WD with RR' = acov(s): its outer products are the covariance matrix of D'W(s - sigma)."""
        ends = np.cumsum([0, *(stage.total for stage in self.stages)])
        used = np.concatenate([first + s.used for first, s in zip(ends, self.stages, strict=False)])
        plain = objective.with_losses([stage.plain for stage in self.stages])
        values, vectors = np.linalg.eigh(self.gamma[np.ix_(used, used)])
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        out: Floats = root.T @ self.weight[np.ix_(used, used)] @ plain.information_factor(theta)
        return out

    def unit_scores(self, fit: Estimate, sample: Sample) -> list[Floats]:
        """D'W A^-1 g_j of the units of each group: their parts of D'W(s - sigma), minus half the gradient."""
        plain = fit.objective.with_losses([stage.plain for stage in self.stages])
        derivatives = plain.information_factor(fit.theta)
        out, first = [], 0
        for number, (group, stage) in enumerate(zip(sample.groups, self.stages, strict=True), 1):
            own = derivatives[first : first + len(stage.used)]
            first += len(own)
            out.append(unit_influence(fit.table, group, number, stage.used) @ stage.full_weight @ own)
        return out

    def steps_without(
        self,
        fit: Estimate,
        basis: Floats,
        intercepts: Sequence[int],
        group: Group,
        number: int,
        chosen: NDArray[np.intp],
        threads: int,
    ) -> tuple[Floats, Floats]:
        """Changes of the estimates without each of some units of a group, and what the whole sample's squares grow by.

        The statistics are those of `statistics_without`, for which the squares are minimised in a few steps. Weights
        that come from acov(s) lose the unit's part of it.
        """
        stage = self.stages[number - 1]
        influence = unit_influence(fit.table, group, number, stage.used)
        count = len(influence)
        values, moments = statistics_without(group, stage.values, influence, stage.used, chosen, threads)
        shares, factor = np.empty((0, 0)), np.full(len(chosen), 1 - 1 / count)
        saturated = None
        if self.weighting == "ULS":
            factor = 1 - unit_sizes(group)[chosen] / group.statistics.nobs
        elif self.weighting == "GLS":
            core, c = saturated_core(group.statistics, group.clusters), group.clusters
            observed = not group.statistics.complete
            clusters = c.of(core.likelihoods[0])
            saturated = (core, clusters, stage.used.tolist(), moments, chosen, observed)
        elif not self.normal:
            together = group.in_clusters and not fit.table.multilevel
            shares = np.sqrt(count / (count - 1) if together else 1.0) * influence[chosen]
            factor = factor**2
        return _core.leave_one_out_statistics(
            fit.objective.core,
            fit.theta,
            basis,
            intercepts,
            stage.likelihood,
            values,
            shares,
            factor,
            number - 1,
            saturated,
            threads=threads,
        )

    @property
    def first_stage(self) -> bool:
        """Whether the statistics are those of ordered variables."""
        return any(key.op == "|" for stage in self.stages for key in stage.keys)

    @property
    def vectors(self) -> tuple[tuple[MomentVector, ...], MomentErrors]:
        """Statistics as moments with their sampling errors; see `statistic_vectors`."""
        return statistic_vectors(self)

    @property
    def stage_options(self) -> tuple[Weighting, bool]:
        """What the statistics are weighted by, and whether acov(s) is that of normal variables."""
        return self.weighting, self.normal

    @property
    def likelihoods(self) -> list[_core.Likelihood]:
        """The discrepancy of each group, to be minimised for another model."""
        return [stage.likelihood for stage in self.stages]

    @cached_property
    def contributions(self) -> list[float]:
        """What each group adds to the minimum."""
        ends = np.cumsum([0, *(stage.total for stage in self.stages)])
        parts = (slice(a, b) for a, b in pairwise(ends))
        return [float(self.residual[p] @ self.weight[p, p] @ self.residual[p]) for p in parts]


def moment_covariance(
    group: Group, table: ParameterTable, used: NDArray[np.intp], *, robust: bool
) -> tuple[Floats, Floats | None]:
    """Sampling covariance matrix of some saturated moments, the others given, and `SecondStage.influence`.

    A^-1 of the information about these moments or, robust, A^-1 M A^-1 with the sum M over clusters of outer products
    of scores; see `moment_bread`.
    """
    inverse = moment_bread(group, used)
    if not robust:
        return inverse, None
    c = group.clusters
    influence = independent_rows(moment_scores(group, used) @ inverse, c.sampled)
    if c.sampled is not None and c.sampled.design is not None:
        return influence.T @ influence, influence
    return influence.T @ influence * cluster_correction(table, c), None


def second_stage(
    table: ParameterTable,
    group: Group,
    number: int,
    weighting: Weighting,
    *,
    robust: bool,
    known: Floats | None = None,
) -> SecondStage:
    """Statistics of continuous variables: the saturated moments that are not of fixed covariates alone.

    `known` is a weight matrix that does not come from these data.

    Raises
    ------
    DataError
        If there is no saturated maximum, or acov(s) has no inverse where one is needed.
    """
    s = group.statistics
    if s.first_stage is not None:
        return ordered_stage(table, group, number, weighting, s.first_stage, known)
    if not group.saturated.converged:
        raise DataError(
            "least squares needs saturated moments, and the saturated model has no maximum: there are too few clusters "
            'for so many variables; use estimator="ML"'
        )
    keys = moment_keys(s.variables, number)
    if not table.meanstructure:
        keys = tuple(key for key in keys if key.op == "~~")
    used = np.flatnonzero(~given_moments(table, keys))
    values = moment_values(s, group.levels)[: len(keys)][used]
    acov, influence = moment_covariance(group, table, used, robust=robust)
    weight = weight_matrix(acov, weighting, group, number, keys, used) if known is None else known
    at = {name: i for i, name in enumerate(s.variables.names)}
    statistics = [
        (MEAN, 0, at[key.lhs], 0) if key.op == "~1" else (COVARIANCE, key.level - 1, at[key.lhs], at[key.rhs])
        for key in (keys[k] for k in used)
    ]
    levels = [[at[name] for name in names] for names in s.variables.levels]

    def discrepancy(weight: Floats) -> _core.LeastSquares:
        return _core.LeastSquares(levels, len(at), statistics, values, weight, [], [])

    return SecondStage(
        keys,
        used,
        values,
        acov,
        weight,
        influence,
        discrepancy(weight),
        discrepancy(np.ones((len(used), 1))),
    )


def second_stages(
    table: ParameterTable, groups: Sequence[Group], weighting: Weighting, *, robust: bool
) -> tuple[SecondStage, ...]:
    """Statistics of every group; see `second_stage`."""
    return tuple(
        second_stage(table, group, number, weighting, robust=robust) for number, group in enumerate(groups, 1)
    )


def ordered_stage(
    table: ParameterTable,
    group: Group,
    number: int,
    weighting: Weighting,
    first: FirstStage,
    known: Floats | None = None,
) -> SecondStage:
    """Statistics of ordered variables and those beside them: the estimates of the first stage."""
    if weighting == "GLS":
        raise UnsupportedError('estimator="GLS" is for continuous variables: use "WLSMV" for ordered ones')
    keys = tuple(Moment(*key, number) for key in first.keys)
    used = np.arange(len(keys))
    weight = weight_matrix(first.acov, weighting, group, number, keys, used) if known is None else known
    scaled = first.ordered if table.ordered.parameterization == "theta" else ()

    def discrepancy(weight: Floats) -> _core.LeastSquares:
        return first_stage_discrepancy(
            table,
            group.statistics.variables,
            number,
            first.keys,
            first.values,
            weight,
            first.covariates,
            scaled,
        )

    return SecondStage(
        keys,
        used,
        first.values,
        first.acov,
        weight,
        first.influence,
        discrepancy(weight),
        discrepancy(np.ones((len(keys), 1))),
        first.at_bound,
        {name: table.scale_level(name) for name in first.ordered},
    )


def first_stage_discrepancy(
    table: ParameterTable,
    variables: Variables,
    number: int,
    keys: Sequence[Statistic],
    values: Floats,
    weight: Floats,
    covariates: Sequence[str],
    scaled: Collection[str],
) -> _core.LeastSquares:
    """Squares of the differences between statistics of the first stage and those that a model implies.

    Parameters
    ----------
    table : ParameterTable
    variables : Variables
    number : int
        Of the group.
    keys : sequence of Statistic
    values : ndarray, shape (m,)
    weight : ndarray, shape (m, m) or (m, 1)
    covariates : sequence of str
        Those that everything is conditional on.
    scaled : collection of str
        Ordered variables that are divided by their standard deviation at their lowest level.
    """
    at: dict[str | tuple[str, str], int] = {name: i for i, name in enumerate(variables.names)}
    cuts = [table.thresholds(level, number) for level in range(1, table.nlevels + 1)]
    at |= {cut: len(at) + k for k, cut in enumerate(cut for own in cuts for cut in own)}
    kinds = {"|": THRESHOLD, "~1": MEAN, "~": SLOPE, "~~": COVARIANCE}
    statistics = [
        (
            kinds[key.op],
            key.level - 1,
            at[(key.lhs, key.rhs) if key.op == "|" else key.lhs],
            at[key.lhs] if key.op == "|" else at[key.rhs] if key.rhs else 0,
        )
        for key in keys
    ]
    levels = [
        [*(at[name] for name in own), *(at[cut] for cut in named)]
        for own, named in zip(variables.levels, cuts, strict=True)
    ]
    given = [at[name] for name in covariates]
    return _core.LeastSquares(
        levels, len(at), statistics, values, weight, given, [at[name] for name in scaled]
    )


def weight_matrix(
    acov: Floats,
    weighting: Weighting,
    group: Group,
    number: int,
    keys: Sequence[Moment],
    used: NDArray[np.intp],
) -> Floats:
    """W, or its diagonal as a column."""
    if weighting == "ULS":
        return np.full((len(acov), 1), group.statistics.nobs)
    if weighting == "DWLS":
        return 1 / acov.diagonal()[:, None]
    if weighting == "GLS":
        values = moment_values(group.statistics, group.levels)
        information = saturated_information(
            values, group.statistics, "expected" if group.statistics.complete else "observed"
        )
        return information[np.ix_(used, used)]
    inverse = regular_inverse(acov)
    if inverse is None:
        independent = group.nlevel2 if group.statistics.unit else group.nobs
        raise DataError(
            f"the covariance matrix of the {len(acov)} statistics"
            + (f" of group {number}" if number > 1 else "")
            + ' has no inverse, which estimator="WLS" weights by: it needs more independent units than statistics, '
            f'and there are {independent:.0f}; use estimator="WLSMV" or "ULSMV"'
        )
    return inverse


def fit_least_squares(
    table: ParameterTable, sample: Sample, weighting: Weighting, settings: ResolvedSettings
) -> tuple[Estimate, LeastSquaresSolution, Sampling]:
    """Minimise the weighted squares of the residuals of the saturated moments.

    Parameters
    ----------
    table : ParameterTable
    sample : Sample
    weighting : {"ULS", "DWLS", "WLS", "GLS"}
    settings : ResolvedSettings
        Robust errors and tests take acov(s) from the single clusters (rows) instead of from the normal distribution.

    Returns
    -------
    Estimate
    LeastSquaresSolution
        For tests.
    Sampling
        Sandwich covariance.
    """
    robust = settings.robust
    stages = second_stages(table, sample.groups, weighting, robust=robust)
    found = estimate(
        table,
        sample,
        loss=[stage.likelihood for stage in stages],
        max_iterations=settings.max_iterations,
        tolerance=settings.tolerance,
        random_starts=settings.starts,
    )
    solution = solution_at(found, stages, weighting, normal=not robust)
    checked = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    basis = free_directions(found)
    vcov = basis @ solution.covariance() @ basis.T
    return (
        with_residual_variances(found),
        solution,
        Sampling(
            np.where(np.isnan(checked.vcov), np.nan, vcov), checked.unidentified, checked.positive_definite
        ),
    )


def solution_at(
    fit: Estimate, stages: Sequence[SecondStage], weighting: Weighting, *, normal: bool
) -> LeastSquaresSolution:
    """Residuals of a model that has been fitted, with what its tests are made of."""
    size = sum(stage.total for stage in stages)
    residual, gamma, weight = np.zeros(size), np.zeros((size, size)), np.zeros((size, size))
    jacobian = np.zeros((size, fit.table.npar))
    derivatives = fit.objective.with_losses([stage.plain for stage in stages]).information_factor(fit.theta)
    first = row = 0
    used: list[NDArray[np.intp]] = []
    for number, stage in enumerate(stages, 1):
        at = first + stage.used
        fitted = stage.likelihood.fitted(fit.objective.observed_moments(fit.theta, number))
        residual[at] = stage.values - fitted
        jacobian[at] = derivatives[row : row + len(at)]
        row += len(at)
        gamma[np.ix_(at, at)] = stage.acov
        weight[np.ix_(at, at)] = stage.full_weight
        used.append(at)
        first += stage.total
    influences = [stage.influence for stage in stages if stage.influence is not None]
    joint = len(influences) > 1
    if joint:  # units or strata may have members in several groups
        every = np.hstack(influences)
        gamma[np.ix_(np.concatenate(used), np.concatenate(used))] = every.T @ every
    jacobian = jacobian @ free_directions(fit)
    value = float(residual @ weight @ residual)
    exact = (weighting == "WLS" and not joint) or (weighting in ("ULS", "GLS") and normal)
    standard = residual_statistic(residual, jacobian, gamma) if weighting == "ULS" and normal else value
    return LeastSquaresSolution(
        residual,
        jacobian,
        weight,
        gamma,
        value,
        standard,
        exact,
        False,
        stages=tuple(stages),
        normal=normal,
        weighting=weighting,
    )


def with_residual_variances(fit: Estimate) -> Estimate:
    """The estimates with the residual variances that variances of 1 leave ordered variables in the table."""
    objective, rows = fit.objective, list(fit.table.rows)
    values = objective.row_values(fit.theta)
    for block in objective.blocks:
        residual = block_matrices(block, values)[1]
        own = {block.names[i]: float(residual[i, i]) for i in block.standard}
        for k in block.rows if own else ():
            row = rows[k]
            if row.op == "~~" and row.lhs == row.rhs and row.lhs in own:
                rows[k] = row._replace(value=own[row.lhs])
    return replace(fit, objective=replace(objective, table=replace(fit.table, rows=tuple(rows))))


def ordered_problems(fit: Estimate, solution: LeastSquaresSolution) -> tuple[Problem, ...]:
    """What is wrong about ordered variables: negative residual variances, and correlations at their bound."""
    table, problems = fit.table, []
    negative = [
        row.lhs
        for row in table.rows
        if row.op == "~~" and row.lhs == row.rhs and row.lhs in table.ordered.thresholds and row.value < 0
    ]
    if negative:
        problems.append(
            Problem(
                "improper",
                f"more than the variance of 1 is explained of {', '.join(dict.fromkeys(negative))}",
                "Sampling error or a wrong model can cause this; fix a loading, or simplify the model",
            )
        )
    pairs = [f"{a} and {b}" for stage in solution.stages for a, b in stage.at_bound]
    if pairs:
        problems.append(
            Problem(
                "boundary",
                f"the correlation of {', of '.join(pairs)} is at its bound of .999 in the first stage",
                "That between clusters is there if their variances between them are small: leave one of them out at "
                "level 2. Otherwise an empty cell of their table is the usual cause: merge categories"
                if table.multilevel
                else "An empty cell of their table is the usual cause: merge categories, or leave one of them out",
            )
        )
    return tuple(problems)


def statistic_vectors(solution: LeastSquaresSolution) -> tuple[tuple[MomentVector, ...], MomentErrors]:
    """Statistics of the first stage as moments with their sampling errors; variances of ordered variables are 1."""
    values, basis = np.linalg.eigh(solution.gamma)
    root = basis * np.sqrt(np.maximum(values, 0.0))
    ours = solution.jacobian @ (solution.projection() @ root)
    vectors, places, first = [], [], 0
    for stage in solution.stages:
        at = np.arange(first, first + stage.total)
        first += stage.total
        ordered = {key.lhs: stage.scale_levels[key.lhs] for key in stage.keys if key.op == "|"}
        like = stage.keys[0]
        keys = (
            *stage.keys,
            *(Moment(name, "~~", name, level, like.group) for name, level in ordered.items()),
        )
        ones = np.ones(len(ordered))
        vectors.append(
            MomentVector(
                keys,
                np.append(stage.values, ones),
                np.append(stage.values - solution.residual[at], ones),
                np.vstack([solution.jacobian[at], np.zeros((len(ordered), solution.jacobian.shape[1]))]),
                np.zeros(len(keys), dtype=bool),
            )
        )
        places += [*at, *([-1] * len(ordered))]
    padded = [np.vstack([part, np.zeros(root.shape[1])])[places] for part in (root, ours)]
    return tuple(vectors), MomentErrors(*padded)


def ordered_srmr(vectors: Sequence[MomentVector], nobs: Sequence[float]) -> dict[int, tuple[float, float]]:
    """SRMR of the correlations of ordered variables and those beside them, given the covariates, by level.

    The diagonal counts, as in lavaan; thresholds and means do not. Groups are averaged by their sizes. The second of
    each two is without the diagonal.
    """
    found: dict[int, list[tuple[float, float]]] = {}
    for vector in vectors:
        for level in sorted({key.level for key in vector.keys if key.op == "~~"}):
            pairs = [(k, key) for k, key in enumerate(vector.keys) if key.op == "~~" and key.level == level]
            scale = {key.lhs: vector.observed[k] for k, key in pairs if key.lhs == key.rhs}
            off = np.array(
                [
                    (vector.observed[k] - vector.implied[k]) / np.sqrt(scale[key.lhs] * scale[key.rhs])
                    for k, key in pairs
                ]
            )
            strictly = np.array([key.lhs != key.rhs for _, key in pairs])
            without = float(np.sqrt(np.mean(off[strictly] ** 2))) if strictly.any() else 0.0
            found.setdefault(level, []).append((float(np.sqrt(np.mean(off**2))), without))
    return {
        level: (
            float(np.average([one for one, _ in own], weights=nobs)),
            float(np.average([other for _, other in own], weights=nobs)),
        )
        for level, own in found.items()
    }


def least_squares_errors(vectors: Sequence[MomentVector], solution: LevelDiscrepancy) -> MomentErrors:
    """Sampling errors for a fit by least squares, from the covariance matrix of the moments it used."""
    keys = [key for vector in vectors for key in vector.keys]
    nmeans = sum(key.op == "~1" for key in keys) if solution.means_first else 0
    order = np.r_[nmeans : len(keys), :nmeans]
    values, basis, scale = spectrum(solution.gamma)
    root = (basis * np.sqrt(np.maximum(values, 0.0)) / scale[:, None])[order]
    projection = solution.projection()[:, order]
    return MomentErrors(root, solution.jacobian[order] @ (projection @ root))
