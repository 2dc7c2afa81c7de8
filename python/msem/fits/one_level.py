"""Level-specific fits from saturated moments, each level by itself, with standard errors that hold."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech
from msem.data.checks import regular_inverse
from msem.data.complete import single_level_statistics
from msem.data.moments import LevelMoments
from msem.data.sample import IndefiniteGroup, Sample
from msem.data.saturated import saturated_information
from msem.data.statistics import Saturated
from msem.distributions import chisq_pvalue
from msem.errors import DataError, UnsupportedError
from msem.estimation.discrepancy import (
    LevelDiscrepancy,
    is_positive_definite,
    least_squares_loss,
    least_squares_weight,
    normal_gamma,
    normal_weight,
    residual_statistic,
    scaled_solve,
)
from msem.estimation.estimate import Estimate, estimate
from msem.estimation.moment_vector import implied_moments
from msem.estimation.objective import Objective
from msem.estimation.problems import Problem, find_problems, no_chi_square, saturated_boundary
from msem.estimation.sampling import Sampling, sampling_covariance
from msem.fits.segregated import LevelFit
from msem.model.derived import baseline_table, partially_saturated_table, saturated_npar
from msem.model.levels import level_name, level_place
from msem.model.partable import Parameter, ParameterTable
from msem.postestimation.level_fit import level_srmr
from msem.postestimation.srmr import srmr_level
from msem.settings import Estimator, ResolvedSettings, Settings

Floats = NDArray[np.float64]
Method = Literal["likelihood", "ml", "uls"]
Gamma = Literal["observed", "expected", "robust"]


def fit_level(
    table: ParameterTable, moments: LevelMoments, level: int, method: Method, gamma: Gamma
) -> LevelFit:
    """Fit one level of a model to saturated moments.

    Parameters
    ----------
    table : ParameterTable
        Of the whole model.
    moments : LevelMoments
        Of exactly the variables of the table.
    level : int
    method : {"likelihood", "ml", "uls"}
    gamma : {"observed", "expected", "robust"}
        Where Gamma comes from if the moments do not carry one; "robust" ones do.

    Returns
    -------
    LevelFit
    """
    if moments.needs_gamma:
        moments = moments.with_acov("expected" if gamma == "expected" else "observed")
    if method == "likelihood":
        found = _fit_likelihood(table, moments, level, gamma)
    else:
        found = _fit_discrepancy(table, moments, level, method, gamma)
    return replace(
        found, fit_baseline=partial(fit_level, baseline_table(table), moments, level, method, gamma)
    )


def require_separable(table: ParameterTable) -> None:
    """Refuse parameters shared by levels: no level can be fitted without the other. Also constraints."""
    written = [c.text for c in (*table.constraints, *table.defined)]
    if written:
        raise UnsupportedError(
            f"'{written[0]}': constraints and defined parameters are not available level by level; fit the levels "
            "together, msem.sem(model, moments)"
        )
    levels: dict[int, set[int]] = {}
    for r in table.rows:
        if r.free:
            levels.setdefault(r.free, set()).add(r.level)
    shared = [k for k, found in levels.items() if len(found) > 1]
    if shared:
        names = table.names()
        raise UnsupportedError(
            f"the levels share {', '.join(names[k - 1] for k in shared)}, so they cannot be fitted one by one; "
            "fit them together, msem.sem(model, moments), or drop the labels"
        )


# -- likelihood: the other levels saturated ----------------------------------------------------------------------


def _fit_likelihood(table: ParameterTable, moments: LevelMoments, level: int, gamma: Gamma) -> LevelFit:
    given = moments.given_as
    sample = Sample.of(moments.expected_statistics, given_as=given, maximum=moments.converged)
    whole = partially_saturated_table(table, level)
    found = estimate(whole, sample)
    sampling = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    # an improper matrix of another level is no finding about this one: it is saturated
    problems = find_problems(found.objective, found.optimum, sampling, level)
    if not sample.converged:
        problems = (*problems, no_chi_square())
    elif moments.in_cone:
        problems = (*problems, saturated_boundary(found.optimum))
    kept = [i for i, r in enumerate(found.table.rows) if r.level == level]
    rows = tuple(found.table.rows[i] for i in kept)
    own = sorted({r.free - 1 for r in rows if r.free})
    renumber = {k + 1: n + 1 for n, k in enumerate(own)}
    rows = tuple(r._replace(free=renumber.get(r.free, 0)) for r in rows)
    full = saturated_npar(table)
    df = full - found.nfree
    scaling, vcov = 1.0, sampling.vcov
    if gamma == "robust" or moments.needs_gamma:
        vcov, scaling = _robust_likelihood(table, moments, found, df)
    statistic = max(2 * (sample.llf - found.objective.covariate_llf - found.llf), 0.0)
    implied = found.objective.moments(found.theta)[level].observed.cov
    jacobian = found.objective.core.jacobian(found.theta, level - 1)[:, own]
    naive = _naive_covariance(
        jacobian, implied, _sample_size(moments, level), means=_is_highest(moments, level), names=len(implied)
    )
    return LevelFit(
        found,
        sample,
        replace(sampling, vcov=vcov),
        problems,
        _settings(table),
        level=level,
        method="likelihood",
        rows=rows,
        own=np.array(own, dtype=np.intp),
        vcov_naive=naive,
        tests=_likelihood_ratio(statistic, df, scaling),
        moments=moments,
        srmr=level_srmr(found, sample, level),
    )


def _settings(table: ParameterTable, estimator: Estimator = "ML") -> ResolvedSettings:
    """Settings of the fit of one level to moments."""
    settings = Settings(fixed_x=table.fixed_x, estimator=estimator, se="standard")
    return settings.resolved(nlevels=table.nlevels, meanstructure=True, expectations=True)


def _robust_likelihood(
    table: ParameterTable, moments: LevelMoments, found: Estimate, df: int
) -> tuple[Floats, float]:
    """Sandwich covariance of all estimates, and the scaling factor of the test."""
    if not moments.needs_gamma:
        require_robust(moments)
    assert moments.known_acov is not None
    names = moments.moment_names
    given = np.isin(names, sorted(_given_moments(table, moments)))
    vcov, mean = robust_likelihood(found.objective, found.theta, moments.known_acov.to_numpy(), given)
    return vcov, mean / df if df > 0 else np.nan


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


def _naive_covariance(jacobian: Floats, implied: Floats, nobs: float, *, means: bool, names: int) -> Floats:
    """Inverse single-level information, as if the moments had been observed on `nobs` units."""
    used = jacobian if means else jacobian[names:]
    k = used.shape[1]
    estimated = np.flatnonzero(np.abs(used).max(axis=0, initial=0.0) > 0)
    out = np.full((k, k), np.nan)
    if not is_positive_definite(implied) or not len(estimated):
        return out
    d = used[:, estimated]
    information = nobs * d.T @ normal_weight(implied, means) @ d
    with contextlib.suppress(np.linalg.LinAlgError):
        out[np.ix_(estimated, estimated)] = scaled_solve(information, np.eye(len(estimated)))
    return out


# -- discrepancies: the level's matrix by itself ---------------------------------------------------------------


def _fit_discrepancy(
    table: ParameterTable, moments: LevelMoments, level: int, method: Method, gamma: Gamma
) -> LevelFit:
    cov = moments.levels[level - 1].cov
    if method == "ml":
        _require_positive_definite(moments, level)
    means = _is_highest(moments, level)
    if not means:
        _require_free_means(table, method, level)
    alone = level_table(table, level, means)
    sample = _level_sample(moments, level, means, normal=method == "ml")
    unit = _standard_unit(moments, level)
    loss = least_squares_loss(cov.to_numpy(), sample.levels[0][1].mean if means else None, unit)
    found = estimate(alone, sample, loss=loss if method == "uls" else None)
    solution = _solution(found, sample, conditional_gamma(table, moments, level, gamma), method, means, unit)
    implied = found.objective.moments(found.theta)[1].observed.cov
    vcov, naive, sampling = _covariances(found, solution, implied, means)
    return LevelFit(
        found,
        sample,
        replace(sampling, vcov=vcov),
        tuple(
            _at_level(p, level, table.nlevels)
            for p in find_problems(found.objective, found.optimum, sampling)
        ),
        _settings(table, "ULS" if method == "uls" else "ML"),
        solution,
        level=level,
        method=method,
        rows=tuple(r._replace(level=level) for r in found.table.rows),
        own=np.arange(len(found.theta)),
        vcov_naive=naive,
        tests=solution.tests() if not sampling.unidentified else _no_test(),
        moments=moments,
        srmr=srmr_level(cov.to_numpy(), implied),
    )


def _covariances(
    found: Estimate, solution: LevelDiscrepancy, implied: Floats, means: bool
) -> tuple[Floats, Floats, Sampling]:
    """Sandwich and naive covariance matrices over the free parameters, and the check of identification."""
    sampling = sampling_covariance(found.objective, found.theta, "expected", found.tangent)
    k = len(found.theta)
    corrected, naive = np.full((k, k), np.nan), np.full((k, k), np.nan)
    own = np.flatnonzero(np.isfinite(np.diag(sampling.vcov)))
    if found.table.exploratory and not sampling.unidentified:
        t, gamma = found.tangent, normal_gamma(implied, means, solution.random) / solution.nobs
        corrected, naive = t @ solution.covariance() @ t.T, t @ solution.covariance(gamma) @ t.T
    elif len(own) and not sampling.unidentified:
        part = replace(solution, jacobian=solution.jacobian[:, own])
        pick = np.ix_(own, own)
        corrected[pick] = part.covariance()
        naive[pick] = part.covariance(normal_gamma(implied, means, solution.random) / solution.nobs)
    return corrected, naive, sampling


def _solution(
    found: Estimate, sample: Sample, gamma: Floats, method: Method, means: bool, unit: Floats
) -> LevelDiscrepancy:
    implied, observed = found.objective.moments(found.theta)[1].observed, sample.levels[0][1]
    cov, n = implied.cov, implied.nobserved
    jacobian = _jacobian(found)
    residual = vech(observed.cov - cov)
    if means:
        residual = np.concatenate([observed.mean - implied.mean, residual])
    else:
        jacobian = jacobian[n:]
    nobs = sample.nobs
    if method == "uls":
        weight = least_squares_weight(unit, means)
        statistic = nobs * float(residual @ weight @ residual)
        naive = normal_gamma(cov, means, np.diag(gamma) > 0) / nobs
        standard = residual_statistic(residual, jacobian, naive)
    else:
        weight = normal_weight(cov, means)
        standard = statistic = max(2 * (sample.llf - found.objective.covariate_llf - found.llf), 0.0)
    return LevelDiscrepancy(residual, jacobian, weight, gamma, nobs, statistic, standard)


def _jacobian(found: Estimate) -> Floats:
    """Derivatives of the moments of a level alone by its parameters, with rotations by the directions they leave."""
    jacobian = found.objective.core.jacobian(found.theta, 0)
    return jacobian @ found.tangent if found.table.exploratory else jacobian


def _is_highest(moments: LevelMoments, level: int) -> bool:
    """Whether a level is the highest, whose means are fitted with its covariances."""
    return level == len(moments.levels)


def _require_free_means(table: ParameterTable, method: Method, level: int) -> None:
    """Refuse restrictions on means below the highest level, which a fit of the covariance matrix would ignore."""
    rows = [r for r in table.block(level) if r.op == "~1" and not r.exo]
    own = {
        name for name in table.observed(level) if table.variables.top(name) == level
    }  # whose means belong there
    numbers = [r.free for r in rows if r.free]
    for r in rows:
        free = r.free > 0 and numbers.count(r.free) == 1 and r.lhs in own
        none = r.free == 0 and r.value == 0 and r.lhs not in own
        if not (free or none):
            raise UnsupportedError(
                f'{r.lhs} ~ 1 at {level_place(level, table.nlevels)[4:]} restricts the means, which method="{method}" '
                "does not fit at that "
                'level: use method="likelihood"'
            )


def level_table(table: ParameterTable, level: int, means: bool) -> ParameterTable:
    """One level of a model as a single-level model of its own.

    Without `means` intercepts are left out: the within means of variables at both levels are 0 by definition, and
    those of within-only variables do not belong to the covariance structure.
    """
    rows = [r for r in table.block(level) if means or r.op != "~1"]
    numbers: dict[int, int] = {}
    for r in rows:
        if r.free:
            numbers.setdefault(r.free, len(numbers) + 1)

    def alone(r: Parameter) -> Parameter:
        return r._replace(level=1, free=numbers.get(r.free, 0))

    return ParameterTable(tuple(map(alone, rows)), 1, 1, means, table.fixed_x, None, rotation=table.rotation)


def conditional_gamma(table: ParameterTable, moments: LevelMoments, level: int, gamma: Gamma) -> Floats:
    """Gamma of one level's moments given those of the fixed covariates, whose rows and columns are zero."""
    moments.require_regular()
    if gamma == "robust":
        require_robust(moments)
    names = moments.moment_names
    given = _given_moments(table, moments)
    fixed = np.array([name in given for name in names])
    full = np.zeros((len(names),) * 2)
    if moments.known_acov is not None:
        full[np.ix_(~fixed, ~fixed)] = _given_others(moments, fixed)
    else:
        matrix = moments.information("observed" if gamma == "robust" else gamma).to_numpy()
        matrix = matrix[np.ix_(~fixed, ~fixed)]
        if not is_positive_definite(matrix, 0.0):
            raise DataError(
                f"the {gamma} information about the moments is not positive definite, so they have no Gamma: they are "
                'not the maximum of the saturated likelihood; use gamma="expected" or method="likelihood"'
            )
        full[np.ix_(~fixed, ~fixed)] = scaled_solve(matrix, np.eye(len(matrix)))
    own = moments.levels[level - 1].cov.columns
    counts = [len(one.cov) * (len(one.cov) + 1) // 2 for one in moments.levels]
    first = sum(counts[: level - 1])
    index = np.arange(first, first + counts[level - 1])
    if _is_highest(moments, level):
        place = {name: k for k, name in enumerate(moments.variables.names, sum(counts))}
        index = np.array([*(place[name] for name in own), *index])
    return full[np.ix_(index, index)]


def _given_others(moments: LevelMoments, fixed: NDArray[np.bool_]) -> Floats:
    """A known Gamma of the moments that are not fixed, given those that are; it may be singular."""
    assert moments.known_acov is not None
    gamma = moments.known_acov.to_numpy()
    free: Floats = gamma[np.ix_(~fixed, ~fixed)]
    if not fixed.any():
        return free
    inverse = regular_inverse(gamma[np.ix_(fixed, fixed)])
    if inverse is None:
        raise DataError(
            f"Gamma given the {fixed.sum()} moments of the fixed covariates needs an inverse of their part of it, "
            f"which {moments.nclusters:.0f} clusters do not give: take fewer covariates, or let them vary, "
            "fixed_x=False"
        )
    across = gamma[np.ix_(~fixed, fixed)]
    out: Floats = free - across @ inverse @ across.T
    return out


def require_robust(moments: LevelMoments) -> None:
    """Refuse moments that do not carry a Gamma of their own where a robust one is wanted."""
    if moments.known_acov is None:
        raise DataError(
            'gamma="robust" needs raw data: give the data with cluster=, or moments that carry it, from '
            'msem.saturated(..., gamma="robust")'
        )


def _given_moments(table: ParameterTable, moments: LevelMoments) -> set[str]:
    """Names of the moments of fixed covariates."""
    given: set[str] = set()
    for level, own in enumerate(moments.levels, 1):
        suffix = f".l{level}" if level > 1 else ""
        exo = set(table.exogenous(level)) & set(own.cov.columns)
        given |= {f"{a}~~{b}{suffix}" for a in exo for b in exo}
        given |= {f"{a}~1{suffix}" for a in exo}
    return given


def _level_sample(moments: LevelMoments, level: int, means: bool, *, normal: bool) -> Sample:
    """The level's moments as those of a single-level sample.

    Without `normal` the matrix may be indefinite, which no sample has: then the statistics only say how large the
    sample is, and the moments are those given.
    """
    part = moments.levels[level - 1]
    cov, names = part.cov.to_numpy(), tuple(part.cov.columns)
    mean = part.mean.to_numpy() if means else np.zeros(len(cov))
    some = cov if normal else np.diag(_standard_unit(moments, level))
    nobs = _sample_size(moments, level)
    statistics = single_level_statistics(some, mean, nobs, names)
    if normal:
        return Sample.of(statistics, given_as=moments.given_as)
    saturated = Saturated({1: LevelArrays(names, mean, cov, len(names))}, np.nan, 0)
    unit = dict(zip(names, np.diag(some), strict=True))
    group = IndefiniteGroup(statistics, given_as=moments.given_as, moments=saturated, unit=unit)
    return Sample((group,))


def _sample_size(moments: LevelMoments, level: int) -> float:
    """Degrees of freedom of a level: its units, less those of the next one."""
    return moments.units[level - 1] - (0.0 if _is_highest(moments, level) else moments.units[level])


def _standard_unit(moments: LevelMoments, level: int) -> Floats:
    """Variance that standardizes each variable: the level's own, at least a twentieth of the total."""
    total: dict[str, float] = {}
    for one in moments.arrays.values():
        for name, variance in one.variances.items():
            total[name] = total.get(name, 0.0) + abs(variance)
    own = moments.arrays[level].variances
    return np.array([max(variance, 0.05 * total[name]) for name, variance in own.items()])


def _require_positive_definite(moments: LevelMoments, level: int) -> None:
    if not is_positive_definite(moments.levels[level - 1].cov.to_numpy()):
        name = level_name(level, len(moments.levels)).removesuffix(" level")
        raise DataError(
            f"the {name} covariance matrix is not positive definite, so "
            'method="ml" has no solution; use method="likelihood" (default) or method="uls"'
        )


def robust_likelihood(
    objective: Objective, theta: Floats, gamma: Floats, given: NDArray[np.bool_]
) -> tuple[Floats, float]:
    """Sandwich covariance of the estimates, and the mean of the likelihood-ratio statistic of a true model.

    The score at the estimates is J'A(m - mu) for saturated moments m with information A, so its covariance is
    J'A Gamma A J; the statistic is asymptotically a weighted sum of chi-squares with mean tr(A^-1 B) - tr(I^-1 J'BJ),
    B = A Gamma A (Satorra & Bentler, 1994; Yuan & Bentler, 2007).

    Parameters
    ----------
    objective : Objective
        Of expected statistics.
    theta : ndarray, shape (npar,)
    gamma : ndarray, shape (moments, moments)
        Sampling covariance of the saturated moments.
    given : ndarray of bool, shape (moments,)
        Moments of fixed covariates.

    Returns
    -------
    vcov : ndarray, shape (npar, npar)
    expectation : float
    """
    (statistics,) = objective.statistics
    implied, j = implied_moments(objective, theta)
    a = saturated_information(implied, statistics, "expected")
    meat = a @ gamma @ a
    bread = np.linalg.inv(j.T @ a @ j)
    inner = j.T @ meat @ j
    free = np.ix_(~given, ~given)
    expectation = np.trace(np.linalg.solve(a[free], meat[free])) - np.trace(bread @ inner)
    return bread @ inner @ bread, float(expectation)
