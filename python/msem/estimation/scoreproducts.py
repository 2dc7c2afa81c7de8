"""Sums over clusters of outer products of scores.

Where there are many clusters of each size, they come from the sums of products of the clusters' statistics
(`sample.products`) instead of the scores of all clusters: as L' (sum t t') L, with the coefficients L of the score in t
read off the scores of a few made-up clusters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msem.data.complete_clusters import ClusterArrays
from msem.data.products import ClusterProducts
from msem.data.statistics import Clusters
from msem.data.survey import Design, Replication, shared_design
from msem.errors import MsemError
from msem.estimation.objective import Objective
from msem.model.partable import ParameterTable

Floats = NDArray[np.float64]


def score_products(
    objective: Objective, theta: Floats, clusters: Sequence[Clusters] | None, basis: Floats | None = None
) -> Floats:
    """Sum over the clusters of all groups of outer products of scores.

    For a single-level sample whose rows are taken together by cluster it is multiplied by J / (J - 1), as in lavaan.
    With primary sampling units or strata it is the covariance matrix of the total score over these; see `Design`.

    Parameters
    ----------
    objective : Objective
    theta : ndarray, shape (npar,)
    clusters : sequence of ClusterArrays or IncompleteClusters
        Of each group.
    basis : ndarray, shape (npar, k), optional
        Directions of the derivatives; default: the parameters.

    Returns
    -------
    ndarray, shape (k, k)
    """
    if clusters is None:
        raise MsemError("outer products of scores need the statistics of the single clusters")
    design = shared_design([c.sampled for c in clusters])
    if design is not None:
        root = _design_root(objective, theta, clusters, design, basis)
        return root.T @ root
    width = objective.table.npar if basis is None else basis.shape[1]
    out = np.zeros((width, width))
    for group, c in enumerate(clusters, 1):
        known = c.products
        part = None if known is None else _from_products(objective, theta, known, group, basis)
        if part is None:
            part = objective.score_products(theta, c, group, basis)
        out += part * cluster_correction(objective.table, c)
    return out


def corrected_scores(objective: Objective, theta: Floats, clusters: Sequence[Clusters]) -> Floats:
    """Scores of the clusters of all groups, shape (J, npar), whose outer products add up to `score_products`."""
    design = shared_design([c.sampled for c in clusters])
    if design is not None:
        return _design_root(objective, theta, clusters, design, None)
    parts = [
        np.sqrt(cluster_correction(objective.table, c)) * objective.scores(theta, c, group)
        for group, c in enumerate(clusters, 1)
    ]
    return np.concatenate(parts)


def _design_root(
    objective: Objective,
    theta: Floats,
    clusters: Sequence[Clusters],
    design: Design | Replication,
    basis: Floats | None,
) -> Floats:
    """Rows whose outer products add up to the covariance matrix of the total score."""
    totals: Floats | float = 0.0
    for group, c in enumerate(clusters, 1):
        assert c.sampled is not None
        assert c.sampled.psu is not None
        totals = totals + design.totals(_along(objective.scores(theta, c, group), basis), c.sampled.psu)
    assert isinstance(totals, np.ndarray)
    return design.root(totals)


def _along(scores: Floats, basis: Floats | None) -> Floats:
    return scores if basis is None else scores @ basis


def _from_products(
    objective: Objective, theta: Floats, known: ClusterProducts, group: int, basis: Floats | None
) -> Floats | None:
    """The sum from those of products; None where scores need products that were left out."""
    found = _along(objective.scores(theta, ClusterArrays(*known.probes), group), basis)
    linear = known.readings @ found.reshape(len(known.sizes), len(known.readings), -1)
    if known.even and linear[:, 1 : 1 + len(known.origin)].any():
        return None
    total = np.zeros((found.shape[1],) * 2)
    for each, products in zip(linear, known.sums, strict=True):
        total += each.T @ products @ each
    return total


def cluster_correction(table: ParameterTable, clusters: Clusters) -> float:
    """Factor J / (J - 1) of outer products of scores for rows of a single level that are taken together by cluster."""
    if table.multilevel or not clusters.of_units:
        return 1.0
    total = len(clusters.sizes)
    return total / (total - 1)
