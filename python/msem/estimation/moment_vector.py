"""The saturated moments of a sample as one vector, next to those that a model implies and their derivatives.

Order within a group: that of `moments.gamma`. Of the means of variables at both levels only the sum over levels is
identified; it is one moment, which belongs to the between level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech, vech_index
from msem.data.sample import Group, Sample
from msem.data.saturated import saturated_core, saturated_information
from msem.data.statistics import Statistics
from msem.estimation.estimate import Estimate
from msem.estimation.objective import Objective, build_objective
from msem.estimation.sampling import free_directions
from msem.estimation.scoreproducts import cluster_correction
from msem.model.partable import ParameterTable
from msem.model.variables import Variables

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Kind = Literal["observed", "expected"]
SINGULAR = 1e-10  # eigenvalue of an information matrix in correlation metric that counts as zero


class Moment(NamedTuple):
    """One mean (op "~1") or covariance (op "~~") of one level of one group."""

    lhs: str
    op: str
    rhs: str
    level: int
    group: int


@dataclass(frozen=True, eq=False)
class MomentVector:
    """The m moments of one group.

    Attributes
    ----------
    keys : tuple of Moment
    observed, implied : ndarray, shape (m,)
        Saturated and model-implied values.
    jacobian : ndarray, shape (m, npar)
        Derivatives of the implied values.
    given : ndarray of bool, shape (m,)
        Moments of fixed covariates among themselves: the model has them from the sample.
    """

    keys: tuple[Moment, ...]
    observed: Floats
    implied: Floats
    jacobian: Floats
    given: Flags


def moment_keys(variables: Variables, group: int) -> tuple[Moment, ...]:
    """The moments of a group in order; a single-level sample has level 1 only."""
    keys: list[Moment] = []
    for level, names in enumerate(variables.levels, 1):
        pairs = zip(*vech_index(len(names)), strict=True)
        keys += [Moment(names[j], "~~", names[i], level, group) for i, j in pairs]
    means = (Moment(name, "~1", "", variables.top(name), group) for name in variables.names)
    return (*keys, *means)


def moment_values(statistics: Statistics, levels: Mapping[int, LevelArrays]) -> Floats:
    """Moments of observed variables by level as one vector, in the order of `moment_keys`."""
    covariances = [vech(levels[level].cov) for level in sorted(levels)]
    means = statistics.variables.summed([levels[k].mean for k in sorted(levels)])
    return np.concatenate([*covariances, means])


def moment_jacobian(statistics: Statistics, jacobians: Mapping[int, Floats]) -> Floats:
    """Derivatives of a level's means and covariances, means first, in the order of `moment_keys`."""
    parts = [(jacobians[level], len(names)) for level, names in enumerate(statistics.variables.levels, 1)]
    means = statistics.variables.summed([jacobian[:n] for jacobian, n in parts])
    return np.concatenate([*(jacobian[n:] for jacobian, n in parts), means])


def implied_moments(objective: Objective, theta: Floats, group: int = 1) -> tuple[Floats, Floats]:
    """Moments of observed variables that a model implies for a group, in the order of `moment_keys`.

    Returns
    -------
    values : ndarray, shape (m,)
    jacobian : ndarray, shape (m, npar)
        Their derivatives.
    """
    statistics = objective.statistics[group - 1]
    levels = {level: m.observed for level, m in objective.moments(theta, group).items()}
    jacobians = {
        block.level: objective.core.jacobian(theta, i)
        for i, block in enumerate(objective.blocks)
        if block.group == group
    }
    return moment_values(statistics, levels), moment_jacobian(statistics, jacobians)


def given_moments(table: ParameterTable, keys: tuple[Moment, ...]) -> Flags:
    """Which moments are those of fixed covariates among themselves."""
    levels = {(key.level, key.group) for key in keys}
    exogenous = {place: set(table.exogenous(*place)) for place in levels}

    def given(key: Moment) -> bool:
        fixed = exogenous[key.level, key.group]
        return key.lhs in fixed and (key.op == "~1" or key.rhs in fixed)

    return np.array([given(key) for key in keys], dtype=bool)


@dataclass(frozen=True, eq=False)
class MomentErrors:
    """First-order sampling errors of the moments of all groups as linear functions of k independent unit variables.

    Attributes
    ----------
    observed, implied : ndarray, shape (m, k)
        Of the saturated and of the implied moments: each times its transpose is a sampling covariance matrix. nan
        where there is none.
    """

    observed: Floats
    implied: Floats


def moment_vectors(fit: Estimate, sample: Sample) -> tuple[MomentVector, ...]:
    """Saturated and implied moments of every group; means only if they are modelled."""
    return tuple(_moment_vector(fit, group, g) for g, group in enumerate(sample.groups, start=1))


def _moment_vector(fit: Estimate, sample: Group, group: int) -> MomentVector:
    keys = moment_keys(sample.statistics.variables, group)
    implied, jacobian = implied_moments(fit.objective, fit.theta, group)
    used = [k for k, key in enumerate(keys) if fit.table.meanstructure or key.op == "~~"]
    keys = tuple(keys[k] for k in used)
    return MomentVector(
        keys,
        moment_values(sample.statistics, sample.levels)[used],
        implied[used],
        jacobian[used],
        given_moments(fit.table, keys),
    )


def moment_errors(
    fit: Estimate,
    sample: Sample,
    vectors: Sequence[MomentVector],
    information: Kind = "observed",
    *,
    robust: bool = False,
) -> MomentErrors:
    """First-order sampling errors of the moments of a maximum likelihood fit.

    Parameters
    ----------
    fit : Estimate
    sample : Sample
    vectors : sequence of MomentVector
        Of every group.
    information : {"observed", "expected"}
        Whose inverse turns scores into estimates.
    robust : bool
        Take the variance of the scores from the single clusters, rather than from the normal distribution. Fixed
        covariates vary over clusters then as other variables do.

    Returns
    -------
    MomentErrors
        nan where an information matrix is not positive definite, or the saturated moments are no maximum.

    Raises
    ------
    DataError
        If `robust` and there are no raw data.
    """
    if robust and any(vector.given.any() for vector in vectors):
        fit = with_random_covariates(fit)
        vectors = moment_vectors(fit, sample)
    scores = _cluster_scores if robust else _normal_scores
    pairs = list(zip(sample.groups, vectors, strict=True))
    basis = free_directions(fit)
    roots = [scores(fit, group, vector, g, basis) for g, (group, vector) in enumerate(pairs)]
    columns = np.cumsum([0, *(own.shape[1] for own, _ in roots)])
    observed = np.zeros((sum(len(v.keys) for v in vectors), columns[-1]))
    first = 0
    for g, (group, vector) in enumerate(pairs):
        free = first + np.flatnonzero(~vector.given)
        own = inverse(_information(group, vector, vector.observed, information))
        if not group.saturated.converged:
            own = np.full_like(own, np.nan)
        observed[free, columns[g] : columns[g + 1]] = own @ roots[g][0]
        first += len(vector.keys)
    parameters = inverse_in(fit, basis, information) @ np.hstack([parts for _, parts in roots])
    jacobian = np.vstack([vector.jacobian for vector in vectors])
    return MomentErrors(observed, jacobian @ basis @ parameters)


def with_random_covariates(fit: Estimate) -> Estimate:
    """The estimates as those of the model in which the moments of fixed covariates are parameters."""
    table, theta = random_covariates(fit.table, fit.theta)
    objective = build_objective(table, fit.objective.statistics)
    further = len(theta) - len(fit.theta)
    active = np.concatenate([fit.optimum.active, np.zeros(further, dtype=np.intp)])
    return Estimate(objective, replace(fit.optimum, theta=theta, active=active))


def random_covariates(table: ParameterTable, theta: Floats) -> tuple[ParameterTable, Floats]:
    """A model whose moments of fixed covariates are parameters, the last ones in order of the rows; and its theta."""
    values = list(theta)
    rows = []
    for row in table.rows:
        if row.exo and not row.free:
            values.append(row.value)
            row = row._replace(free=len(values), exo=False)
        rows.append(row)
    return replace(table, rows=tuple(rows), fixed_x=False), np.array(values)


def _normal_scores(
    fit: Estimate, sample: Group, vector: MomentVector, group: int, directions: Floats
) -> tuple[Floats, Floats]:
    """Roots of the covariance of the scores of saturated moments and along directions of theta, for normal data."""
    at_sample = _information(sample, vector, vector.observed, "expected")
    at_model = _information(sample, vector, vector.implied, "expected")
    root, inverse_root = normal_roots(at_sample)
    return root, (vector.jacobian[~vector.given] @ directions).T @ at_model @ inverse_root


def normal_roots(information: Floats) -> tuple[Floats, Floats]:
    """A matrix whose product with its transpose is an information matrix, and the transpose of its inverse."""
    values, basis, scale = spectrum(information)
    values = np.where(values > SINGULAR, values, np.nan)
    return basis * np.sqrt(values) / scale[:, None], scale[:, None] * basis / np.sqrt(values)


def _cluster_scores(
    fit: Estimate, sample: Group, vector: MomentVector, group: int, directions: Floats
) -> tuple[Floats, Floats]:
    """Scores from the contributions of the single clusters (of the rows, for a single-level sample without them)."""
    c, full, used = sample.clusters, *_embedded(sample, vector, vector.observed)
    root = np.sqrt(cluster_correction(fit.table, c))
    own = root * c.scores(saturated_core(sample.statistics, c), full)[:, used]
    parameters = root * fit.objective.scores(fit.theta, c, group + 1) @ directions
    triangle = np.asarray(np.linalg.qr(np.hstack([own, parameters]), mode="r"), dtype=np.float64).T
    return triangle[: len(used)], triangle[len(used) :]


def _information(sample: Group, vector: MomentVector, values: Floats, kind: Kind) -> Floats:
    """Information about the moments that are not given, at some values of theirs."""
    full, used = _embedded(sample, vector, values)
    matrix = saturated_information(full, sample.statistics, kind)
    return matrix[np.ix_(used, used)] if matrix.size else np.full((len(used), len(used)), np.nan)


def _embedded(sample: Group, vector: MomentVector, values: Floats) -> tuple[Floats, NDArray[np.intp]]:
    """Values among all moments of the statistics, and where those are that are not given."""
    s = sample.statistics
    at = {key: k for k, key in enumerate(moment_keys(s.variables, vector.keys[0].group))}
    full = moment_values(s, sample.levels)
    index = np.array([at[key] for key in vector.keys], dtype=np.intp)
    full[index] = values
    return full, index[~vector.given]


def inverse_in(fit: Estimate, directions: Floats, information: Kind) -> Floats:
    """Inverse information along directions in which the expected one is the identity.

    Covariates with means that are large for their standard deviations do no harm there.
    """
    if information == "expected" or not directions.shape[1]:
        return np.eye(directions.shape[1])
    return inverse(fit.objective.core.observed_information_in(fit.theta, directions))


def inverse(matrix: Floats) -> Floats:
    """Inverse in the space that a positive semidefinite matrix informs about; nan if it is indefinite."""
    if not matrix.size:
        return matrix
    values, basis, scale = spectrum(matrix)
    if not values[0] > -SINGULAR:
        return np.full_like(matrix, np.nan)
    kept = values > SINGULAR
    root = scale[:, None] * basis[:, kept] / np.sqrt(values[kept])
    out: Floats = root @ root.T
    return out


def spectrum(matrix: Floats) -> tuple[Floats, Floats, Floats]:
    """Eigenvalues and eigenvectors in correlation metric, and the scale that leads to it; nan if there is none."""
    diagonal = np.diag(matrix)
    if not (np.isfinite(matrix).all() and (diagonal >= 0).all()):
        n = len(matrix)
        return np.full(n, np.nan), np.full((n, n), np.nan), np.ones(n)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    values, basis = np.linalg.eigh(matrix * np.outer(scale, scale))
    return values, basis, scale
