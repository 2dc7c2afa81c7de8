"""What single clusters, or rows, add to the statistics that least squares is fitted to, and these without them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.ordered import first_stage_influence
from msem.data.sample import Group
from msem.data.saturated import saturated_core, saturated_information
from msem.errors import DataError
from msem.estimation.moment_vector import moment_values
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]
Positions = NDArray[np.intp]

HELD = 0.01  # standard errors that the sum of what units add is from zero where a bound holds an estimate


def moment_bread(group: Group, used: Positions) -> Floats:
    """Inverse of the information about some of the saturated moments, the others given.

    The expected information for complete data, as in lavaan, and the observed one with holes or weights.

    Raises
    ------
    DataError
        If the information is not positive definite.
    """
    s, values = group.statistics, moment_values(group.statistics, group.levels)
    plain = s.complete and group.sampled is None
    information = saturated_information(values, s, "expected" if plain else "observed")
    inverse, pivot = _core.scaled_inverse(
        information[np.ix_(used, used)] if information.size else information
    )
    if not pivot > 0:
        raise DataError(
            "the saturated moments have no covariance matrix, since their information is not positive definite: there "
            'are too few clusters for so many variables; use estimator="ML"'
        )
    return inverse


def unit_influence(table: ParameterTable, group: Group, number: int, used: Positions) -> Floats:
    """What each cluster, or each row that comes in none, adds to the statistics of a group.

    That is A^-1 g_j with the scores g_j of the saturated model, or of the first stage of ordered variables, as often as
    the unit counts: the influence function of the statistics over the number of units.

    Parameters
    ----------
    table : ParameterTable
    group : Group
    number : int
    used : ndarray of int, shape (m,)
        Which saturated moments are statistics.

    Returns
    -------
    ndarray, shape (J, m)
        In the order of `Group.identifiers`; the columns sum to zero.

    Raises
    ------
    DataError
        Without rows.
    """
    s = group.statistics
    if s.first_stage is not None:
        levels = range(1, table.nlevels + 1)
        return first_stage_influence(s, group.rows, [table.exogenous(level, number) for level in levels])
    return moment_scores(group, used) @ moment_bread(group, used)


def moment_scores(group: Group, used: Positions) -> Floats:
    """Derivatives of the saturated log-likelihood of each unit with respect to some moments, shape (J, m)."""
    c, values = group.clusters, moment_values(group.statistics, group.levels)
    scores: Floats = c.scores(saturated_core(group.statistics, c), values)[:, used]
    return scores


def unit_sizes(group: Group) -> Floats:
    """Rows of each cluster; 1 for rows that come in none. With missing values, those with an observed one."""
    if group.statistics.first_stage is None:
        return group.clusters.sizes
    return group.rows.units_of_clusters if group.in_clusters else np.ones(len(group.identifiers))


def statistics_without(
    group: Group, values: Floats, influence: Floats, used: Positions, chosen: Positions, threads: int
) -> tuple[Floats, Floats]:
    """Statistics of a group without each of some units, shape (chosen, m), and all of its saturated moments likewise.

    Saturated moments by a few steps of the likelihood of the other units, with those held that are no statistics. The
    estimates of a first stage, which has no such moments, by one step, with A less the average unit's part of it.

    Parameters
    ----------
    group : Group
    values : ndarray, shape (m,)
        Statistics of the whole group.
    influence : ndarray, shape (J, m)
        See `unit_influence`.
    used, chosen : ndarray of int
    threads : int
    """
    if group.statistics.first_stage is not None:
        count = len(influence)
        # correlations at their bound, whose scores do not add up to zero, stay there
        held = np.abs(influence.sum(axis=0)) > HELD * np.sqrt((influence**2).sum(axis=0))
        steps = np.where(held, 0.0, count / (count - 1) * influence[chosen])
        return values - steps, np.empty((0, 0))
    moments = moment_values(group.statistics, group.levels)
    core = saturated_core(group.statistics, group.clusters)
    change, _ = _core.leave_one_out_steps(
        core,
        moments,
        np.eye(len(moments))[:, used],
        [],
        group.clusters.of(core.likelihoods[0]),
        chosen,
        threads=threads,
    )
    return values + change[:, used], moments + change
