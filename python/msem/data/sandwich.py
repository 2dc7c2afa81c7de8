"""Gamma that holds whatever the distribution of the variables is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.checks import scaled_inverse
from msem.data.moments import LevelMoments
from msem.data.saturated import saturated_core, saturated_information
from msem.data.statistics import Clusters, Statistics
from msem.errors import DataError

Floats = NDArray[np.float64]


def robust_acov(moments: LevelMoments, clusters: Clusters) -> pd.DataFrame:
    """Sandwich A^-1 B A^-1 of the saturated moments (Huber, 1967; White, 1982).

    A is the observed information and B the sum over clusters of outer products of their scores: the clusters need be
    independent, not normal.

    Parameters
    ----------
    moments : LevelMoments
        Saturated estimates from data.
    clusters : ClusterArrays or IncompleteClusters
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
    return pd.DataFrame(sandwich(theta, moments.statistics, clusters), index=names, columns=names)


def sandwich(moments: Floats, statistics: Statistics, clusters: Clusters) -> Floats:
    """The same as arrays, also for the moments of a single-level sample.

    Parameters
    ----------
    moments : ndarray, shape (m,)
        Saturated estimates in the order of `moment_names`.
    statistics : SampleStatistics or IncompleteStatistics
    clusters : ClusterArrays or IncompleteClusters
        Of the same variables. Those of a single-level sample are of single rows, or of clusters of rows with the
        products of all variables in `within`.

    Returns
    -------
    ndarray, shape (m, m)
    """
    influence = clusters.saturated_influence(moments, statistics.nobs) if not statistics.unit else None
    if influence is None:
        scores = clusters.scores(saturated_core(statistics, clusters), moments)
        influence = scores @ scaled_inverse(saturated_information(moments, statistics, "observed"))
    covariance: Floats = influence.T @ influence
    return covariance
