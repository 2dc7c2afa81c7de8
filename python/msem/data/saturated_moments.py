"""Saturated moments of a sample as `LevelMoments`, with the covariance matrix that its clusters give them."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from msem.data.arrays import LevelMoment
from msem.data.moments import LevelMoments
from msem.data.saturated import Method, sandwich, solve_in_space
from msem.data.shapes import rounded_shapes
from msem.data.statistics import Clusters, Saturated, Statistics
from msem.errors import DataError
from msem.settings import Space


def estimate_saturated(
    statistics: Statistics, *, method: Method = "scoring", tolerance: float = 1e-12, space: Space = "natural"
) -> LevelMoments:
    """Maximum likelihood estimates of the saturated moments of several levels.

    Parameters
    ----------
    statistics : Statistics
        Of data of two levels or more.
    method : {"scoring", "em"}
        Fisher scoring, in which matrices above level 1 may become indefinite (a higher likelihood, in which every
        model of these levels is nested), or EM of two levels, which keeps the between one positive semidefinite. Where
        that does not bind, both agree.
    tolerance : float
        On the decrement g' I^-1 g: neither method stops at a small change of the likelihood.
    space : {"auto", "natural", "psd"}
        Among which between matrices: see `solve_in_space`.

    Returns
    -------
    LevelMoments
        With `converged` False if no maximum was found.

    Raises
    ------
    DataError
        If the statistics cannot identify the moments.
    """
    found = solve_in_space(statistics, space, method=method, tolerance=tolerance)
    return level_moments(found, statistics)


def level_moments(solution: Saturated, statistics: Statistics) -> LevelMoments:
    """Saturated estimates as the object a user holds, with the statistics they come from."""
    s = statistics
    sizes = None if s.source == "moments, N and J only" else rounded_shapes(s.shapes, s.counted)
    return LevelMoments(
        levels=[LevelMoment(one.frame(), one.series()) for one in solution.levels.values()],
        units=s.counted if sizes is None else None,
        cluster_sizes=sizes,
        llf=solution.llf,
        data=s,
        iterations=solution.iterations,
        converged=solution.converged,
        in_cone=solution.in_cone,
        incomplete=not s.complete,
    )


def with_robust_acov(moments: LevelMoments, clusters: Clusters) -> LevelMoments:
    """The same moments carrying the sandwich A^-1 B A^-1 for their Gamma (Huber, 1967; White, 1982).

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
    LevelMoments
        Gamma has no more rank than there are clusters less 1, or PSUs less strata: of more moments than that it is
        singular. Standard errors and mean-scaled tests need no inverse of it.

    Raises
    ------
    DataError
        If the moments are no maximum of the likelihood, or clusters are too few for any variance.
    """
    moments.require_regular()
    names, theta = moments.moment_names, moments.vector.to_numpy()
    if _independent(clusters) < 1:
        raise DataError(
            f'gamma="robust" needs two independent clusters or more, and there are {len(clusters.sizes)}'
        )
    acov = pd.DataFrame(sandwich(theta, moments.statistics, clusters), index=names, columns=names)
    return replace(moments, known_acov=acov, robust=True)


def _independent(clusters: Clusters) -> int:
    """Degrees of freedom of the spread of scores: clusters, or PSUs less strata."""
    design = None if clusters.sampled is None else clusters.sampled.design
    return len(clusters.sizes) - 1 if design is None else design.df


def of_design(moments: LevelMoments, clusters: Clusters) -> LevelMoments:
    """Saturated estimates of weighted data, or of a complex design, with the Gamma of the design.

    Without Gamma if they are no maximum of the likelihood, or all clusters are of one PSU.
    """
    marked = replace(moments, weighted=True)
    known = marked.converged and not marked.in_cone and _independent(clusters) > 0
    return with_robust_acov(marked, clusters) if known else marked
