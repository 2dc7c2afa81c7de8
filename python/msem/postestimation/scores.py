"""Contributions of single clusters, or rows, to the log-likelihood of a model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, vech_index
from msem.data.complete import ClusterArrays, SampleStatistics
from msem.data.incomplete import Clusters, IncompleteStatistics, Statistics, incomplete_clusters
from msem.data.sample import GroupSample
from msem.data.saturated import core_loss, solve_saturated, unit_loss
from msem.estimation.objective import Objective

Floats = NDArray[np.float64]


def conditional_loglik(objective: Objective, theta: Floats, sample: GroupSample, group: int = 1) -> Floats:
    """Log-likelihood of each cluster given the fixed covariates, shape (J,).

    The sum over the clusters of all groups is the log-likelihood of the model.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    sample : GroupSample
        With raw data.
    group : int

    Returns
    -------
    ndarray, shape (J,)
    """
    clusters = sample.clusters
    whole = objective.cluster_loglik(theta, clusters, group)
    table, s = objective.table, objective.statistics[group - 1]
    exogenous = [set(table.exogenous(level, group)) for level in range(1, table.nlevels + 1)]
    unit = [i for i, name in enumerate(s.unit) if i >= s.nboth and name in exogenous[0]]
    cluster = [i for i, name in enumerate(s.cluster) if name in exogenous[-1]]
    if not unit and not cluster:
        return whole
    part = s.restrict([s.unit[i] for i in unit], [s.cluster[i] for i in cluster], 0)
    if isinstance(part, IncompleteStatistics):
        return whole - _normal_loglik(part, incomplete_clusters(part, sample.rows))
    assert isinstance(s, SampleStatistics)
    assert isinstance(clusters, ClusterArrays)
    return whole - _normal_loglik(part, _of_covariates(s, clusters, unit, cluster))


def _of_covariates(
    s: SampleStatistics, clusters: ClusterArrays, unit: list[int], cluster: list[int]
) -> ClusterArrays:
    """The statistics of single clusters for some variables."""
    p, by_cluster = len(s.unit), not s.unit and clusters.within.shape[1] > 0
    kept = cluster if by_cluster else unit
    row, col = vech_index(len(s.cluster) if by_cluster else p)
    products = np.isin(row, kept) & np.isin(col, kept)
    means = clusters.means[:, [*unit, *(p + i for i in cluster)]]
    return ClusterArrays(clusters.sizes, means, clusters.within[:, products])


def _normal_loglik(s: Statistics, clusters: Clusters) -> Floats:
    """Log-likelihood of each cluster for variables that are all within-only or between-only, at its maximum."""
    m = solve_saturated(s)
    loss, within, between = core_loss(s), m.within, m.between
    if not s.unit and clusters.of_units:
        loss, within, between = unit_loss(s), m.between, m.within
    core = _core.Objective(0, [_fixed_block(within), _fixed_block(between)], [(loss, 0, 1)])
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
