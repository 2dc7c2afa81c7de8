"""Squared distances of independent clusters from a model, by the likelihood alone.

Given its covariates the data of a cluster are normal, with n values, covariance matrix V and residuals r. Where V
becomes (1 + e) V its log-likelihood changes by (r' V^-1 r - n) / 2 e, so that the distance is n and twice the
derivative with respect to e. V is linear in the covariance matrices of the levels given the covariates, which
are what is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msem import _core

Floats = NDArray[np.float64]


def squared_distances(
    likelihood: _core.Likelihood,
    clusters: _core.Clusters,
    moments: Sequence[tuple[Floats, Floats]],
    given: Sequence[Sequence[int]],
    values: Floats,
) -> Floats:
    """Squared distance of all data of each cluster.

    Parameters
    ----------
    likelihood : _core.Likelihood
    clusters : _core.Clusters
        Its clusters.
    moments : sequence of (mean, covariance matrix)
        Of each level, as the likelihood takes them.
    given : sequence of sequences of int
        Variables of each level that the data are given: fixed covariates and products with slopes.
    values : ndarray, shape (J,)
        How many values each cluster has of the others.

    Returns
    -------
    ndarray, shape (J,)
    """
    blocks = [_scaled(mean, cov, held) for (mean, cov), held in zip(moments, given, strict=True)]
    core = _core.Objective(1, blocks, [(likelihood, list(range(len(blocks))))])
    scores: Floats = core.scores(np.zeros(1), clusters, 0)[:, 0]
    return values + 2 * scores


def _scaled(mean: Floats, cov: Floats, held: Sequence[int]) -> _core.Block:
    """A level with its moments, whose covariance matrix given some variables grows with the parameter.

    To the n variables latent ones u, v are added that have covariance e: with loadings 1 and D / 2 they add e D.
    """
    n = len(mean)
    free, known = np.setdiff1d(np.arange(n), held), np.asarray(held, dtype=np.intp)
    residual = np.zeros((n, n))
    reach = cov[np.ix_(free, known)]
    rest = cov[np.ix_(free, free)]
    if len(known):
        rest = rest - reach @ np.linalg.solve(cov[np.ix_(known, known)], reach.T)
    residual[np.ix_(free, free)] = 0.5 * (rest + rest.T)
    i, j = np.tril_indices(n)
    u, v = n + np.arange(n), 2 * n + np.arange(n)
    from_u = (np.arange(n), u, np.ones(n))
    to, source = np.indices((n, n)).reshape(2, -1)
    from_v = (to, 2 * n + source, 0.5 * residual.ravel())
    slots = [1] * len(i) + [0] * (n + n * n) + [1] * n + [2] * n
    rows = [*i, *from_u[0], *from_v[0], *v, *range(n)]
    columns = [*j, *from_u[1], *from_v[1], *u, *([0] * n)]
    parameters = [-1] * (len(i) + n + n * n) + [0] * n + [-1] * n
    values = [*cov[i, j], *from_u[2], *from_v[2], *([0.0] * n), *mean]
    return _core.Block(n, 3 * n, slots, rows, columns, parameters, values)
