"""The saturated moments of a sample as one vector, next to those that a model implies and their derivatives.

Order within a group: that of `moments.gamma`. Of the means of variables at both levels only the sum over levels is
identified; it is one moment, which belongs to the between level.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays, vech, vech_index
from msem.data.incomplete import Statistics
from msem.estimation.objective import Objective
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


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


def moment_keys(statistics: Statistics, group: int) -> tuple[Moment, ...]:
    """The moments of a group in order; a single-level sample has level 1 only."""
    s = statistics
    last = 2 if s.unit else 1
    keys: list[Moment] = []
    for level, names in ((1, s.unit), (last, (*s.unit[: s.nboth], *s.cluster))):
        pairs = zip(*vech_index(len(names)), strict=True)
        keys += [Moment(names[j], "~~", names[i], level, group) for i, j in pairs]
    keys += [Moment(name, "~1", "", last if k < s.nboth else 1, group) for k, name in enumerate(s.unit)]
    return (*keys, *(Moment(name, "~1", "", last, group) for name in s.cluster))


def moment_values(statistics: Statistics, levels: Mapping[int, LevelArrays]) -> Floats:
    """Moments of observed variables by level as one vector, in the order of `moment_keys`."""
    covariances = [vech(levels[level].cov) for level in sorted(levels)]
    return np.concatenate([*covariances, _means(statistics, [levels[k].mean for k in sorted(levels)])])


def moment_jacobian(statistics: Statistics, jacobians: Mapping[int, Floats]) -> Floats:
    """Derivatives of a level's means and covariances, means first, in the order of `moment_keys`."""
    s = statistics
    sizes = {1: len(s.cluster)} if not s.unit else {1: len(s.unit), 2: s.nboth + len(s.cluster)}
    covariances = [jacobians[level][n:] for level, n in sizes.items()]
    means = _means(s, [jacobians[level][:n] for level, n in sizes.items()])
    return np.concatenate([*covariances, means])


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


def _means(statistics: Statistics, parts: list[Floats]) -> Floats:
    """Means of unit, then cluster variables; those of variables at both levels are summed over levels."""
    if not statistics.unit:
        return parts[0]
    n = statistics.nboth
    within, between = parts
    return np.concatenate([within[:n] + between[:n], within[n:], between[n:]])


def given_moments(table: ParameterTable, keys: tuple[Moment, ...]) -> Flags:
    """Which moments are those of fixed covariates among themselves."""
    levels = {(key.level, key.group) for key in keys}
    exogenous = {place: set(table.exogenous(*place)) for place in levels}

    def given(key: Moment) -> bool:
        fixed = exogenous[key.level, key.group]
        return key.lhs in fixed and (key.op == "~1" or key.rhs in fixed)

    return np.array([given(key) for key in keys], dtype=bool)
