"""Contributions of single clusters, or rows, to the log-likelihood of a model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, vech_index
from msem.data.sample import Group
from msem.data.saturated import saturated_parts, solve_saturated
from msem.data.statistics import Clusters, Statistics
from msem.estimation.objective import Objective, fixed_covariates

Floats = NDArray[np.float64]


def conditional_loglik(objective: Objective, theta: Floats, sample: Group, group: int = 1) -> Floats:
    """Log-likelihood of each cluster given the fixed covariates, shape (J,).

    The sum over the clusters of all groups is the log-likelihood of the model.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    sample : Group
        With raw data.
    group : int

    Returns
    -------
    ndarray, shape (J,)
    """
    clusters = sample.clusters
    whole = objective.cluster_loglik(theta, clusters, group)
    unit, cluster = fixed_covariates(objective.table, sample.statistics, group)
    if not unit and not cluster:
        return whole
    return whole - _normal_loglik(*sample.statistics.marginal(unit, cluster, sample.require_source()))


def _normal_loglik(s: Statistics, clusters: Clusters) -> Floats:
    """Log-likelihood of each cluster for variables that are all within-only or between-only, at its maximum."""
    likelihood, (within, between) = saturated_parts(s, solve_saturated(s), clusters)
    core = _core.Objective(0, [_fixed_block(within), _fixed_block(between)], [(likelihood, 0, 1)])
    return clusters.loglik(core, np.empty(0))


def _fixed_block(moments: LevelArrays) -> _core.Block:
    n = len(moments.names)
    row, col = vech_index(n)
    return _core.Block(
        n,
        n,
        [1] * len(row) + [2] * n,
        [*row, *range(n)],
        [*col, *([0] * n)],
        [-1] * (len(row) + n),
        [*moments.cov[row, col], *moments.mean],
    )
