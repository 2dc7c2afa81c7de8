"""Gamma that holds whatever the distribution of the variables is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.errors import DataError
from msem.moments.checks import scaled_inverse
from msem.moments.gamma import saturated_objective
from msem.moments.levelmoments import LevelMoments
from msem.sample.sufficient import ClusterArrays

Floats = NDArray[np.float64]


def robust_acov(moments: LevelMoments, clusters: ClusterArrays) -> pd.DataFrame:
    """Sandwich A^-1 B A^-1 of the saturated moments (Huber, 1967; White, 1982).

    A is the observed information and B the sum over clusters of outer products of their scores: the clusters need be
    independent, not normal.

    Parameters
    ----------
    moments : LevelMoments
        Saturated estimates from data.
    clusters : ClusterArrays
        Of the same variables.

    Returns
    -------
    DataFrame
        Named as in `LevelMoments.moment_names`.

    Raises
    ------
    DataError
        If the moments are no maximum of the likelihood, or there are not more clusters than moments at the between
        level to estimate B from.
    """
    moments.require_converged()
    names, theta = moments.moment_names, moments.vector.to_numpy()
    nbetween = len(moments.between_cov)
    needed = nbetween * (nbetween + 1) // 2
    if len(clusters.sizes) <= needed:
        raise DataError(
            f'gamma="robust" needs more than {needed} clusters for {nbetween} variables at the between level, and '
            f"there are {len(clusters.sizes)}"
        )
    scores = saturated_objective(moments.statistics).scores(
        theta, clusters.sizes, clusters.means, clusters.within
    )
    bread: Floats = scaled_inverse(moments.information("observed").to_numpy())
    return pd.DataFrame(bread @ (scores.T @ scores) @ bread, index=names, columns=names)
