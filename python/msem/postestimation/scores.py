"""Contributions of single clusters, or rows, to the log-likelihood of a model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.arrays import LevelArrays, vech_index
from msem.data.sample import Group
from msem.data.saturated import saturated_parts, solve_saturated
from msem.data.statistics import Clusters, Statistics
from msem.estimation.estimate import require_likelihood
from msem.estimation.objective import Objective
from msem.estimation.solution import Solution
from msem.model.partable import fixed_covariates

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
    names = fixed_covariates(objective.table, sample.statistics.variables, group)
    if not any(names):
        return whole
    return whole - _normal_loglik(*sample.statistics.marginal(names, sample.require_source()))


def _normal_loglik(s: Statistics, clusters: Clusters) -> Floats:
    """Log-likelihood of each cluster for variables that are all within-only or between-only, at its maximum."""
    likelihood, levels = saturated_parts(s, solve_saturated(s), clusters)
    blocks = [_fixed_block(moments) for moments in levels]
    core = _core.Objective(0, blocks, [(likelihood, list(range(len(blocks))))])
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


def scores(fit: Solution) -> pd.DataFrame:
    """Derivatives of the log-likelihood of every cluster with respect to `params`, at the estimates.

    With weights each as often as the cluster counts. For least squares what every cluster adds to D'W(s - sigma), the
    derivative of minus half the squares: D'W A^-1 g_j with the derivatives D of the statistics s, their scores g_j and
    information A (Muthen & Satorra, 1995). Outer products of scores add up to the inner part of robust standard errors,
    but for J / (J - 1) where rows of one level are taken together by cluster.

    Returns
    -------
    DataFrame, shape (J, npar)
        Indexed by cluster id, or by the label of the row for a single-level model without clusters; with several
        groups by group and cluster. Columns sum to zero where nothing holds a parameter back; for least squares, a
        correlation of the first stage.

    Raises
    ------
    DataError
        Without raw data.

    References
    ----------
    Muthen & Satorra (1995). Sociological Methodology, 25, 267-316.
    """
    if fit.discrepancy is not None:
        parts = fit.discrepancy.unit_scores(fit.estimate, fit.sample)
    else:
        parts = [
            fit.objective.scores(fit.estimate.theta, group.clusters, number)
            for number, group in enumerate(fit.sample.groups, 1)
        ]
    return pd.DataFrame(np.vstack(parts), index=cluster_index(fit), columns=list(fit.table.names()))


def cluster_loglik(fit: Solution) -> pd.Series:
    """Log-likelihood of every cluster given the fixed covariates; the sum is `llf`.

    Returns
    -------
    Series, length J
        Indexed as `scores`.

    Raises
    ------
    DataError
        Without raw data.
    UnsupportedError
        For least squares.
    """
    require_likelihood(fit.estimate, "contributions to the log-likelihood")
    parts = [
        conditional_loglik(fit.objective, fit.estimate.theta, group, number)
        for number, group in enumerate(fit.sample.groups, 1)
    ]
    return pd.Series(np.concatenate(parts), index=cluster_index(fit), name="llf")


def cluster_index(fit: Solution) -> pd.Index[Any]:
    """Ids of the independent units of a fit, with their groups if there are several."""
    groups, name = fit.sample.groups, fit.options.cluster or None
    if len(groups) == 1:
        return groups[0].identifiers.rename(name)
    labels = np.repeat([group.label for group in groups], [len(group.identifiers) for group in groups])
    return pd.MultiIndex.from_arrays([labels, fit.sample.identifiers], names=["group", name])
