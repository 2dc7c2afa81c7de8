"""Influence functions of estimates that are made in steps: of saturated moments, of blocks, of what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.data.sample import Group, Sample
from msem.data.saturated import saturated_core, saturated_information
from msem.data.statistics import Clusters, Statistics
from msem.data.survey import independent_rows
from msem.errors import DataError, ModelError
from msem.estimation.measurement import FittedBlock
from msem.estimation.moment_vector import (
    Moment,
    implied_moments,
    moment_keys,
    moment_values,
    random_covariates,
)
from msem.estimation.objective import Objective, build_objective
from msem.estimation.scoreproducts import cluster_correction
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Evidence:
    """Rows whose outer products give the sampling covariance of the saturated moments of one group.

    Of single clusters (rows), or, where there are none, a root of the covariance matrix that normal variables give.

    Attributes
    ----------
    group : Group
    number : int
    rows : ndarray, shape (r, moments)
        Influence of each on the saturated moments, or the root.
    clusters : Clusters or None
    """

    group: Group
    number: int
    rows: Floats
    clusters: Clusters | None

    def scores(
        self, objective: Objective, theta: Floats, statistics: Statistics, *, of_clusters: bool
    ) -> Floats:
        """Rows of derivatives of the log-likelihood of some of the variables, shape (r, npar)."""
        if self.clusters is not None:
            own, rows = self.group.statistics, self.group.require_source()
            if statistics.variables == own.variables:
                clusters = self.clusters
            elif of_clusters:
                clusters = own.marginal(((), statistics.cluster), rows)[1]
            else:
                clusters = statistics.clusters(rows)
            return objective.scores(theta, clusters, self.number)
        keys = {key: k for k, key in enumerate(moment_keys(self.group.statistics.variables, self.number))}
        level = 2 if of_clusters else 0
        own_keys = [
            key._replace(level=level or key.level) for key in moment_keys(statistics.variables, self.number)
        ]
        places = [
            keys[key] if key in keys else keys[key._replace(lhs=key.rhs, rhs=key.lhs)] for key in own_keys
        ]
        # the gradient is linear in the moments that are given
        implied, jacobian = implied_moments(objective, theta, self.number)
        information = saturated_information(implied, statistics, "expected")
        out: Floats = self.rows[:, places] @ information @ jacobian
        return out


def evidence_of(group: Group, number: int, table: ParameterTable, *, robust: bool) -> Evidence:
    """What the sampling covariance of a group comes from: its clusters, or the normal distribution.

    Raises
    ------
    DataError
        If the saturated moments have no covariance matrix.
    """
    s = group.statistics
    if not group.saturated.converged:
        raise DataError(
            "structural-after-measurement needs saturated moments, and the saturated model has no maximum: there are "
            "too few clusters for so many variables; use msem.sem"
        )
    values = moment_values(s, group.levels)
    information = saturated_information(values, s, "observed" if robust or not s.complete else "expected")
    # of what does not depend on units, so that no direction of a variable in large units counts as rounding
    scale = np.sqrt(information.diagonal())
    scale = 1 / np.where(scale > 0, scale, 1.0)
    plain = np.linalg.pinv(information * np.outer(scale, scale), hermitian=True)
    if not robust:
        roots, vectors = np.linalg.eigh(plain)
        return Evidence(group, number, (vectors * np.sqrt(np.maximum(roots, 0.0))).T * scale, None)
    inverse = plain * np.outer(scale, scale)
    c = group.clusters
    rows = c.scores(saturated_core(s, c), values) @ inverse
    return Evidence(group, number, rows * np.sqrt(cluster_correction(table, c)), c)


def stacked(parts: Sequence[tuple[int, Floats]], evidence: Sequence[Evidence], width: int) -> Floats:
    """Rows of several groups one after the other, those of groups that are not given being zero."""
    given = dict(parts)
    return np.vstack([given.get(one.number, np.zeros((len(one.rows), width))) for one in evidence])


def block_influence(block: FittedBlock, evidence: Sequence[Evidence]) -> Floats:
    """Influence on the parameters of a block, shape (rows of all groups, npar)."""
    found = block.estimate
    scores = [
        (
            one.number,
            one.scores(
                found.objective,
                found.theta,
                block.sample.groups[one.number - 1].statistics,
                of_clusters=block.block.of_clusters,
            ),
        )
        for one in evidence
    ]
    bread = inverse_within(found.tangent, found.objective.core.observed_information(found.theta))
    out: Floats = stacked(scores, evidence, len(found.theta)) @ bread
    return out


def inverse_within(tangent: Floats, information: Floats) -> Floats:
    """Inverse in the directions of `tangent`, computed in units in which all of them are informed about alike."""
    found = tangent.T @ information @ tangent
    size = np.sqrt(np.abs(found.diagonal()))
    directions = tangent / np.where(size > 0, size, 1.0)
    out: Floats = directions @ np.linalg.solve(directions.T @ information @ directions, directions.T)
    return out


def mean_parameters(table: ParameterTable) -> NDArray[np.intp]:
    """Positions in theta of the intercepts."""
    found = {row.free - 1 for row in table.rows if row.op == "~1" and row.free}
    return np.array(sorted(found), dtype=np.intp)


class MeanPart(NamedTuple):
    """Means of one group that are not given.

    Attributes
    ----------
    number : int
        Of the group.
    own : ndarray of int
        Their positions among the moments.
    jacobian : ndarray, shape (len(own), npar)
        Their derivatives by all parameters.
    given : ndarray of int
        Positions of the means of fixed covariates.
    by_given : ndarray, shape (len(own), len(given))
        Derivatives by these.
    """

    number: int
    own: NDArray[np.intp]
    jacobian: Floats
    given: NDArray[np.intp]
    by_given: Floats


def fitted_means(
    objective: Objective, theta: Floats, sample: Sample
) -> tuple[Floats, NDArray[np.intp], list[MeanPart], Floats]:
    """Theta with the intercepts at which the implied means are the saturated ones.

    Returns
    -------
    theta : ndarray, shape (npar,)
    intercepts : ndarray of int
    parts : list of MeanPart
        At this theta.
    inverse : ndarray
        Of the derivatives of these means by the intercepts.

    Raises
    ------
    ModelError
        If the model restricts the means.
    """
    table, free = objective.table, mean_parameters(objective.table)
    places, slopes_of, gaps = [], [], []
    for number, group in enumerate(sample.groups, 1):
        keys = moment_keys(group.statistics.variables, number)
        exogenous = {
            (name, level) for level in range(1, table.nlevels + 1) for name in table.exogenous(level, number)
        }
        own = np.array(
            [k for k, key in enumerate(keys) if key.op == "~1" and (key.lhs, key.level) not in exogenous],
            dtype=np.intp,
        )
        implied, jacobian = implied_moments(objective, theta, number)
        gaps.append((moment_values(group.statistics, group.levels) - implied)[own])
        places.append(own)
        slopes_of.append(jacobian[np.ix_(own, free)])
    slopes = np.vstack(slopes_of)
    rows, columns = (np.abs(slopes).max(axis=axis, initial=1e-300) for axis in (1, 0))
    plain = slopes / np.sqrt(np.outer(rows, columns)) if slopes.size else slopes
    if slopes.shape[0] != slopes.shape[1] or np.linalg.matrix_rank(plain) < len(slopes):
        raise ModelError(
            "structural-after-measurement takes means as they are, and this model restricts them: leave out fixed or "
            "equal intercepts, or use msem.sem"
        )
    inverse: Floats = np.linalg.inv(slopes).astype(np.float64)
    out = theta.copy()
    out[free] += inverse @ np.concatenate(gaps)
    # what the other parameters do to the means depends on the means: these are derivatives at the fitted ones
    table, values = random_covariates(table, out)
    wider, parts = build_objective(table, sample.statistics), []
    for number, (group, own) in enumerate(zip(sample.groups, places, strict=True), 1):
        at = {key: k for k, key in enumerate(moment_keys(group.statistics.variables, number))}
        given = {
            at[key]: row.free - 1
            for row in table.rows
            if row.op == "~1"
            and row.free > len(theta)
            and (key := Moment(row.lhs, "~1", "", row.level, number)) in at
            and row.group == number
        }
        jacobian = implied_moments(wider, values, number)[1][own]
        positions, columns = (np.array(list(part), dtype=np.intp) for part in (given, given.values()))
        parts.append(MeanPart(number, own, jacobian[:, : len(theta)], positions, jacobian[:, columns]))
    return out, free, parts, inverse


def sampling_rows(rows: Floats, evidence: Sequence[Evidence]) -> Floats:
    """Rows whose outer products are the sampling covariance matrix: by primary sampling units where there are any."""
    out, first = [], 0
    for one in evidence:
        own = rows[first : first + len(one.rows)]
        first += len(one.rows)
        out.append(own if one.clusters is None else independent_rows(own, one.clusters.sampled))
    return np.vstack(out)
