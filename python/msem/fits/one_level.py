"""Level-specific fits from saturated moments, each level by itself, with standard errors that hold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech
from msem.data.checks import regular_inverse
from msem.data.complete import single_level_statistics
from msem.data.grouped_moments import GroupedMoments
from msem.data.moments import LevelMoments
from msem.data.sample import Group, IndefiniteGroup, Sample
from msem.data.saturated import saturated_information
from msem.data.statistics import Saturated
from msem.distributions import chisq_pvalue
from msem.errors import DataError, UnsupportedError
from msem.estimation.discrepancy import (
    LevelDiscrepancy,
    block_diagonal,
    is_positive_definite,
    least_squares_loss,
    least_squares_weight,
    normal_gamma,
    normal_weight,
    residual_statistic,
    scaled_solve,
)
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.moment_vector import given_moments, implied_moments, moment_keys
from msem.estimation.problems import (
    Problem,
    find_problems,
    no_chi_square,
    require_feasible,
    saturated_boundary,
)
from msem.estimation.sampling import Sampling, free_directions, sampling_covariance
from msem.fits.segregated import LevelFit
from msem.model.derived import (
    baseline_table,
    constraints_of,
    crosses_levels,
    level_table,
    levels_of,
    partially_saturated_table,
    renumbered,
    rows_named,
    saturated_npar,
)
from msem.model.levels import level_name, level_place
from msem.model.partable import ParameterTable
from msem.postestimation.level_fit import level_srmr
from msem.postestimation.srmr import pooled, srmr_level
from msem.settings import Estimator, ResolvedSettings, Settings

Floats = NDArray[np.float64]
Method = Literal["likelihood", "ml", "uls"]
Gamma = Literal["observed", "expected", "robust"]


def fit_level(
    table: ParameterTable, moments: GroupedMoments, level: int, method: Method, gamma: Gamma
) -> LevelFit:
    """Fit one level of a model to saturated moments.

    Parameters
    ----------
    table : ParameterTable
        Of the whole model.
    moments : GroupedMoments
        Of exactly the variables of the table, for each of its groups.
    level : int
    method : {"likelihood", "ml", "uls"}
    gamma : {"observed", "expected", "robust"}
        Where Gamma comes from if the moments do not carry one; "robust" ones do.

    Returns
    -------
    LevelFit
    """
    moments = moments.carrying("expected" if gamma == "expected" else "observed")
    if method == "likelihood":
        found = _fit_likelihood(table, moments, level, gamma)
    else:
        found = _fit_discrepancy(table, moments, level, method, gamma)
    return replace(
        found, fit_baseline=partial(fit_level, baseline_table(table), moments, level, method, gamma)
    )


def require_separable(table: ParameterTable) -> None:
    """Refuse parameters and constraints that tie levels together: no level can be fitted without the other."""
    shared = crosses_levels(table)
    if shared:
        raise UnsupportedError(
            f"the levels share {', '.join(shared)}, so they cannot be fitted one by one; "
            "fit them together, msem.sem(model, moments), or drop the labels"
        )
    across = [c.text for c in table.defined if len(levels_of(table, c)) > 1]
    if across:
        raise UnsupportedError(
            f"'{across[0]}' is made of parameters of several levels, whose sampling covariances single levels do "
            "not give; fit the levels together, msem.sem(model, moments)"
        )


# -- likelihood: the other levels saturated ----------------------------------------------------------------------


def _fit_likelihood(table: ParameterTable, moments: GroupedMoments, level: int, gamma: Gamma) -> LevelFit:
    groups = [
        Group(one.expected_statistics, label, given_as=one.given_as, maximum=one.converged)
        for label, one in moments
    ]
    sample = Sample(tuple(groups))
    found = estimate(partially_saturated_table(table, level), sample)
    require_feasible(found.objective, found.optimum)
    sampling = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    # an improper matrix of another level is no finding about this one: it is saturated
    problems = find_problems(found.objective, found.optimum, sampling, level)
    if not sample.converged:
        problems = (*problems, no_chi_square())
    elif any(one.in_cone for one in moments.groups):
        problems = (*problems, saturated_boundary(found.optimum))
    rows = [row for row in found.table.rows if row.level == level]
    own = np.array(sorted({row.free - 1 for row in rows if row.free}), dtype=np.intp)
    df = saturated_npar(table) - found.nfree
    scaling = 1.0
    naive = _naive_covariance(found, moments, level, own, sampling)
    if gamma == "robust" or moments.needs_gamma:
        vcov, mean = robust_likelihood(found, moments, robust=gamma == "robust")
        sampling = replace(sampling, vcov=np.where(np.isnan(sampling.vcov), np.nan, vcov))
        scaling = mean / df if df > 0 else np.nan
    statistic = max(2 * (sample.llf - found.objective.covariate_llf - found.llf), 0.0)
    return LevelFit(
        found,
        sample,
        sampling,
        problems,
        _settings(table),
        level=level,
        method="likelihood",
        gamma=gamma,
        part=replace(found.table, rows=renumbered(rows)),
        own=own,
        vcov_naive=naive,
        tests=_likelihood_ratio(statistic, df, scaling),
        grouped=moments,
        srmr=level_srmr(found, sample, level),
    )


def _settings(table: ParameterTable, estimator: Estimator = "ML") -> ResolvedSettings:
    """Settings of the fit of one level to moments."""
    settings = Settings(fixed_x=table.fixed_x, estimator=estimator, se="standard")
    return settings.resolved(nlevels=table.nlevels, meanstructure=True, expectations=True)


def _likelihood_ratio(statistic: float, df: int, scaling: float = 1.0) -> pd.DataFrame:
    rows = {"likelihood_ratio": [statistic, float(df), chisq_pvalue(statistic, df), 1.0]}
    if df > 0 and scaling != 1.0:
        scaled = statistic / scaling
        rows["mean_scaled"] = [scaled, float(df), chisq_pvalue(scaled, df), scaling]
    columns = ["statistic", "df", "pvalue", "scaling"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns)


def _no_test() -> pd.DataFrame:
    """Of a model whose degrees of freedom are not known because it is not identified."""
    return _likelihood_ratio(np.nan, 0).assign(df=np.nan).set_axis(["standard"])


def _at_level(problem: Problem, level: int, nlevels: int) -> Problem:
    """A problem of a model of one level, saying at which level it is."""
    return replace(problem, cause=f"{level_name(level, nlevels)}: {problem.cause}")


def _naive_covariance(
    found: Estimate, moments: GroupedMoments, level: int, own: NDArray[np.intp], sampling: Sampling
) -> Floats:
    """Inverse single-level information, as if the moments had been observed on as many units."""
    means, tangent = moments.is_highest(level), found.tangent[own]
    nothing = np.full((len(own), len(own)), np.nan)
    information = np.zeros((tangent.shape[1],) * 2)
    for number, one in enumerate(moments.groups, 1):
        implied = found.objective.moments_of(level, found.theta, number).observed.cov
        if not is_positive_definite(implied):
            return nothing
        jacobian = found.objective.core.jacobian(found.theta, found.objective.place(level, number))[:, own]
        d = (jacobian if means else jacobian[len(implied) :]) @ tangent
        information += moments.size_of(one, level) * d.T @ normal_weight(implied, means) @ d
    known = np.diag(information) > 0
    try:
        inverse = scaled_solve(information[np.ix_(known, known)], np.eye(int(known.sum())))
    except np.linalg.LinAlgError:
        return nothing
    out: Floats = tangent[:, known] @ inverse @ tangent[:, known].T
    lost = np.any(tangent[:, ~known] != 0, axis=1) | np.isnan(np.diag(sampling.vcov)[own])
    out[lost] = out[:, lost] = np.nan
    return out


def robust_likelihood(found: Estimate, moments: GroupedMoments, *, robust: bool) -> tuple[Floats, float]:
    """Sandwich covariance of the estimates, and the mean of the likelihood-ratio statistic of a true model.

    The statistic is asymptotically a weighted sum of chi-squares with mean tr(A^-1 B) - tr(I^-1 J'BJ), with A the
    information about the moments, B = A Gamma A and J their derivatives (Satorra & Bentler, 1994; Yuan & Bentler,
    2007).

    Parameters
    ----------
    found, moments, robust
        See `score_parts`.

    Returns
    -------
    vcov : ndarray, shape (npar, npar)
    expectation : float
    """
    basis = free_directions(found)
    parts = score_parts(found, moments, basis, robust=robust)
    bread = np.linalg.inv(parts.information)
    inner = bread @ parts.meat
    return basis @ inner @ bread @ basis.T, parts.saturated - float(np.trace(inner))


class ScoreParts(NamedTuple):
    """What the scores of a model of expected statistics vary by.

    Attributes
    ----------
    information : ndarray, shape (k, k)
        J'AJ along some directions.
    meat : ndarray, shape (k, k)
        J'A Gamma A J, the covariance matrix of the scores.
    saturated : float
        tr(A^-1 A Gamma A) over the moments that are not given.
    """

    information: Floats
    meat: Floats
    saturated: float


def score_parts(found: Estimate, moments: GroupedMoments, basis: Floats, *, robust: bool) -> ScoreParts:
    """Information, and covariance matrix of the scores J'A(m - mu) of saturated moments m with information A.

    Parameters
    ----------
    found : Estimate
        Of expected statistics.
    moments : GroupedMoments
        Whose Gamma is A^-1 in groups that do not need their own.
    basis : ndarray, shape (npar, k)
        Directions of the derivatives J.
    robust : bool
        Whether all groups have to have their own Gamma.
    """
    jacobians, breads, blocks, given = [], [], [], []
    for number, one in enumerate(moments.groups, 1):
        if robust:
            require_robust(one)
        implied, jacobian = implied_moments(found.objective, found.theta, number)
        statistics = found.objective.statistics[number - 1]
        a = saturated_information(implied, statistics, "expected")
        jacobians.append(jacobian @ basis)
        breads.append(a)
        acov = one.known_acov if one.needs_gamma or robust else None
        blocks.append(a if acov is None else a @ acov.to_numpy() @ a)
        given.append(given_moments(found.table, moment_keys(statistics.variables, number)))
    j, a, free = np.vstack(jacobians), block_diagonal(breads), ~np.concatenate(given)
    meat = block_diagonal(blocks)
    if moments.influence:
        root = np.hstack(moments.influence) @ a
        meat = root.T @ root
    at = np.ix_(free, free)
    return ScoreParts(j.T @ a @ j, j.T @ meat @ j, float(np.trace(np.linalg.solve(a[at], meat[at]))))


# -- discrepancies: the level's matrix by itself ---------------------------------------------------------------


def _fit_discrepancy(
    table: ParameterTable, moments: GroupedMoments, level: int, method: Method, gamma: Gamma
) -> LevelFit:
    if method == "ml":
        _require_positive_definite(moments, level)
    means = moments.is_highest(level)
    if not means:
        _require_free_means(table, method, level)
    normal = method == "ml"
    sample = Sample(
        tuple(_level_group(moments, number, level, normal=normal) for number in range(len(moments.groups)))
    )
    units = [standard_unit(one, level) for one in moments.groups]
    losses = [
        least_squares_loss(own[1].cov, own[1].mean if means else None, unit, s.nobs)
        for own, unit, s in zip(sample.levels, units, sample.statistics, strict=True)
    ]
    found = estimate(level_table(table, level, means=means), sample, loss=None if normal else losses)
    require_feasible(found.objective, found.optimum)
    sampling = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    solution, jacobian, normal_acov = _solution(
        found, sample, level_gamma(table, moments, level, gamma), units, means=means, normal=normal
    )
    basis = free_directions(found)
    free = replace(solution, jacobian=jacobian @ basis)
    vcov, naive = (
        np.where(np.isnan(sampling.vcov), np.nan, basis @ free.covariance(acov) @ basis.T)
        for acov in (solution.gamma, normal_acov)
    )
    return LevelFit(
        found,
        sample,
        replace(sampling, vcov=vcov),
        tuple(
            _at_level(p, level, table.nlevels)
            for p in find_problems(found.objective, found.optimum, sampling)
        ),
        _settings(table, "ML" if normal else "ULS"),
        solution,
        level=level,
        method=method,
        gamma=gamma,
        part=replace(
            found.table,
            rows=tuple(row._replace(level=level) for row in found.table.rows),
            nlevels=table.nlevels,
            meanstructure=table.meanstructure,
            clusters=table.clusters,
        ),
        own=np.arange(len(found.theta)),
        vcov_naive=naive,
        tests=solution.tests() if not sampling.unidentified else _no_test(),
        grouped=moments,
        srmr=_srmr(found, sample, moments),
    )


def _srmr(found: Estimate, sample: Sample, moments: GroupedMoments) -> float:
    """SRMR of a level by itself, averaged over groups with their units as weights."""
    each = [
        srmr_level(levels[1].cov, found.objective.moments_of(1, found.theta, number).observed.cov)
        for number, levels in enumerate(sample.levels, 1)
    ]
    return pooled(each, [one.nobs for one in moments.groups])


def _solution(
    found: Estimate, sample: Sample, gamma: Floats, units: Sequence[Floats], *, means: bool, normal: bool
) -> tuple[LevelDiscrepancy, Floats, Floats]:
    """The discrepancy at its minimum.

    Returns
    -------
    LevelDiscrepancy
    jacobian : ndarray, shape (m, npar)
        Derivatives of the moments by all parameters.
    acov : ndarray, shape (m, m)
        Covariance matrix of the moments if they had been observed on normal units.
    """
    residuals, jacobians, weights, acovs = [], [], [], []
    first, random = 0, np.diag(gamma) > 0
    for number, (levels, s) in enumerate(zip(sample.levels, sample.statistics, strict=True)):
        observed, implied = levels[1], found.objective.moments_of(1, found.theta, number + 1).observed
        jacobian = found.objective.core.jacobian(found.theta, number)
        residual = vech(observed.cov - implied.cov)
        if means:
            residual = np.concatenate([observed.mean - implied.mean, residual])
        else:
            jacobian = jacobian[len(observed.names) :]
        own = random[first : first + len(residual)]
        first += len(residual)
        weight = normal_weight(implied.cov, means) if normal else least_squares_weight(units[number], means)
        residuals.append(residual)
        jacobians.append(jacobian)
        weights.append(s.nobs * weight)
        acovs.append(normal_gamma(implied.cov, means, own) / s.nobs)
    residual, jacobian = np.concatenate(residuals), np.vstack(jacobians)
    weight, acov = block_diagonal(weights), block_diagonal(acovs)
    tested = jacobian @ found.equality_tangent
    if normal:
        statistic = standard = max(2 * (sample.llf - found.objective.covariate_llf - found.llf), 0.0)
    else:
        statistic = float(residual @ weight @ residual)
        standard = residual_statistic(residual, tested, acov)
    return LevelDiscrepancy(residual, tested, weight, gamma, statistic, standard), jacobian, acov


def _require_free_means(table: ParameterTable, method: Method, level: int) -> None:
    """Refuse restrictions on means below the highest level, which a fit of the covariance matrix would ignore."""
    remedy = f'which method="{method}" does not fit at that level: use method="likelihood"'
    place = level_place(level, table.nlevels)[4:]
    rows = [r for r in table.rows if r.level == level and r.op == "~1" and not r.exo]
    own = {
        name for name in table.observed(level) if table.variables.top(name) == level
    }  # whose means belong there
    numbers = [r.free for r in rows if r.free]
    for r in rows:
        free = r.free > 0 and numbers.count(r.free) == 1 and r.lhs in own
        none = r.free == 0 and r.value == 0 and r.lhs not in own
        if not (free or none):
            raise UnsupportedError(f"{r.lhs} ~ 1 at {place} restricts the means, {remedy}")
    for constraint in chain(*constraints_of(table, level)):
        if any(r.op == "~1" for r in rows_named(table, constraint)):
            raise UnsupportedError(f"'{constraint.text}' is about means at {place}, {remedy}")


def level_gamma(table: ParameterTable, moments: GroupedMoments, level: int, gamma: Gamma) -> Floats:
    """Gamma of one level's moments in all groups, given those of the fixed covariates: rows and columns of zeros.

    Group by group, the means first where they are fitted.
    """
    fixed = [
        given_moments(table, moment_keys(one.variables, number))
        for number, one in enumerate(moments.groups, 1)
    ]
    if moments.influence:
        root = np.hstack(moments.influence)
        whole = _conditional(root.T @ root, np.concatenate(fixed), moments.nclusters)
    else:
        pairs = zip(moments.groups, fixed, strict=True)
        whole = block_diagonal([conditional_gamma(one, given, gamma) for one, given in pairs])
    index, first = [], 0
    for one, given in zip(moments.groups, fixed, strict=True):
        index.append(first + _places(one, level, means=moments.is_highest(level)))
        first += len(given)
    at = np.concatenate(index)
    return whole[np.ix_(at, at)]


def _places(moments: LevelMoments, level: int, *, means: bool) -> NDArray[np.intp]:
    """Where the moments of one level stand among all of a group, its means first."""
    counts = [len(one.cov) * (len(one.cov) + 1) // 2 for one in moments.levels]
    first = sum(counts[: level - 1])
    index = np.arange(first, first + counts[level - 1])
    if not means:
        return index
    place = {name: k for k, name in enumerate(moments.variables.names, sum(counts))}
    return np.array([*(place[name] for name in moments.levels[level - 1].cov.columns), *index], dtype=np.intp)


def conditional_gamma(moments: LevelMoments, fixed: NDArray[np.bool_], gamma: Gamma) -> Floats:
    """Gamma of the moments of a group given those that are fixed, whose rows and columns are zero."""
    moments.require_regular()
    if gamma == "robust":
        require_robust(moments)
    if moments.known_acov is not None:
        return _conditional(moments.known_acov.to_numpy(), fixed, moments.nclusters)
    matrix = moments.information("observed" if gamma == "robust" else gamma).to_numpy()
    matrix = matrix[np.ix_(~fixed, ~fixed)]
    if not is_positive_definite(matrix, 0.0):
        raise DataError(
            f"the {gamma} information about the moments is not positive definite, so they have no Gamma: they are "
            'not the maximum of the saturated likelihood; use gamma="expected" or method="likelihood"'
        )
    out = np.zeros((len(fixed),) * 2)
    out[np.ix_(~fixed, ~fixed)] = scaled_solve(matrix, np.eye(len(matrix)))
    return out


def _conditional(gamma: Floats, fixed: NDArray[np.bool_], nclusters: float) -> Floats:
    """A known Gamma given the moments that are fixed; it may be singular."""
    out = np.zeros_like(gamma)
    across = gamma[np.ix_(~fixed, fixed)]
    inverse = regular_inverse(gamma[np.ix_(fixed, fixed)]) if fixed.any() else np.zeros((0, 0))
    if inverse is None:
        raise DataError(
            f"Gamma given the {fixed.sum()} moments of the fixed covariates needs an inverse of their part of it, "
            f"which {nclusters:.0f} clusters do not give: take fewer covariates, or let them vary, "
            "fixed_x=False"
        )
    out[np.ix_(~fixed, ~fixed)] = gamma[np.ix_(~fixed, ~fixed)] - across @ inverse @ across.T
    return out


def require_robust(moments: LevelMoments) -> None:
    """Refuse moments that do not carry a Gamma of their own where a robust one is wanted."""
    if moments.known_acov is None:
        raise DataError(
            'gamma="robust" needs raw data: give the data with cluster=, or moments that carry it, from '
            'msem.saturated(..., gamma="robust")'
        )


def _level_group(moments: GroupedMoments, number: int, level: int, *, normal: bool) -> Group:
    """The level's moments of a group as those of a single-level sample.

    Without `normal` the matrix may be indefinite, which no sample has: then the statistics only say how large the
    sample is, and the moments are those given.
    """
    label, one = moments.labels[number], moments.groups[number]
    part = one.levels[level - 1]
    cov, names = part.cov.to_numpy(), tuple(part.cov.columns)
    mean = part.mean.to_numpy() if moments.is_highest(level) else np.zeros(len(cov))
    unit = standard_unit(one, level)
    some = cov if normal else np.diag(unit)
    statistics = single_level_statistics(some, mean, moments.size_of(one, level), names)
    if normal:
        return Group(statistics, label, given_as=one.given_as)
    return IndefiniteGroup(
        statistics,
        label,
        given_as=one.given_as,
        moments=Saturated({1: LevelArrays(names, mean, cov, len(names))}, np.nan, 0),
        unit=dict(zip(names, unit.tolist(), strict=True)),
    )


def standard_unit(moments: LevelMoments, level: int) -> Floats:
    """Variance that standardizes each variable: the level's own, at least a twentieth of the total."""
    total: dict[str, float] = {}
    for one in moments.arrays.values():
        for name, variance in one.variances.items():
            total[name] = total.get(name, 0.0) + abs(variance)
    own = moments.arrays[level].variances
    return np.array([max(variance, 0.05 * total[name]) for name, variance in own.items()])


def _require_positive_definite(moments: GroupedMoments, level: int) -> None:
    name = level_name(level, moments.nlevels).removesuffix(" level")
    for label, one in moments:
        if not is_positive_definite(one.levels[level - 1].cov.to_numpy()):
            place = f" of group {label!r}" if label else ""
            raise DataError(
                f"the {name} covariance matrix{place} is not positive definite, so "
                'method="ml" has no solution; use method="likelihood" (default) or method="uls"'
            )
