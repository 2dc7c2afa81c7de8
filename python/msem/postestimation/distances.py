"""Mahalanobis distances of clusters and of units from the model, given the fixed covariates."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.arrays import LevelArrays
from msem.data.nested import NestedClusters
from msem.distributions import chisq_pvalues
from msem.errors import UnsupportedError
from msem.estimation.solution import NOT_YET, Solution
from msem.model.levels import BETWEEN, Level
from msem.model.partable import require_two_levels
from msem.model.variables import Variables
from msem.postestimation.factor_scores import (
    Group,
    GroupColumns,
    cluster_frame,
    prediction_groups,
    unit_frame,
)
from msem.postestimation.posterior import GroupModel
from msem.postestimation.rows import Rows, cluster_columns


def distances_frame(groups: Sequence[Group], level: int, cluster: str) -> pd.DataFrame:
    """Distances of the clusters of a level, or of the units (level 1).

    Parameters
    ----------
    groups : sequence of (label, GroupModel, Rows)
    level : int
    cluster : str
        Name of the index of a frame of clusters.
    """
    compute: Callable[[GroupModel, Rows], dict[str, NDArray[Any]]] = unit_distances
    if level > 1:
        split = groups[0][1].top == BETWEEN and not groups[0][1].slopes
        compute = cluster_distances if split else partial(whole_distances, level=level)
    parts = [GroupColumns(rows.data, compute(model, rows), label) for label, model, rows in groups]
    return cluster_frame(parts, cluster, level) if level > 1 else unit_frame(parts)


def cluster_distances(model: GroupModel, rows: Rows) -> dict[str, NDArray[Any]]:
    """Distance of the whole data of each cluster and its two independent parts.

    Of n units with p unit-level variables and q cluster variables, less the covariates: (n - 1) p degrees of freedom
    within, p + q between. With holes p and q are the variables that the cluster has observed, the means that the
    between part rests on are estimated by generalised least squares, and all degrees of freedom add up to the number
    of observed values.
    """
    between, within, df_between, df_within = model.data(rows).cluster_distances(*_covariates(model))
    parts = {
        "": (between + within, df_between + df_within),
        "between": (between, df_between),
        "within": (within, df_within),
    }
    out: dict[str, NDArray[Any]] = {"size": rows.clusters.sizes.astype(int)}
    for name, (distance, df) in parts.items():
        before = f"{name}_" if name else ""
        out |= {name or "distance": distance, f"{before}df": df}
        out[f"{before}pvalue"] = chisq_pvalues(distance, df)
    return out


def whole_distances(model: GroupModel, rows: Rows, level: int) -> dict[str, NDArray[Any]]:
    """Distance of all data of each cluster, of three and more levels whatever the others above it have."""
    fixed = {name for own in model.fixed.values() for name in own}
    if level < model.top:
        model, rows = _up_to(level, model, rows, fixed)
    names = model.statistics.variables.names
    given = [k for k, name in enumerate(names) if name in fixed]
    distance, df = model.data(rows).whole_distances(given, *model.units(rows))
    size = rows.clusters.sizes.astype(int)
    return {"size": size, "distance": distance, "df": df, "pvalue": chisq_pvalues(distance, df)}


def _up_to(level: int, model: GroupModel, rows: Rows, fixed: Collection[str]) -> tuple[GroupModel, Rows]:
    """Model and rows of the clusters of a level as if these were the highest: what is above them is in their moments.

    Fixed covariates measured above are variables of theirs: distances are given these.
    """
    variables = model.statistics.variables
    measured = variables.measured
    known = {name for own in measured[:level] for name in own} | set(fixed)
    above = tuple(
        dict.fromkeys(name for own in variables.levels[level - 1 :] for name in own if name in known)
    )
    mean, cov = np.zeros(len(above)), np.zeros((len(above), len(above)))
    for number in range(level, model.top + 1):
        m = model.levels[number]
        at = [(k, m.names.index(name)) for k, name in enumerate(above) if name in m.names[: m.nobserved]]
        to, source = (np.array(part, dtype=np.intp) for part in zip(*at, strict=True))
        mean[to] += m.mean[source]
        cov[np.ix_(to, to)] += m.cov[np.ix_(source, source)]
    whole = LevelArrays(above, mean, cov, len(above))
    lower = {k: m for k, m in model.levels.items() if k < level}
    part = Variables((*variables.levels[: level - 1], above))
    statistics: Any = replace(model.statistics, variables=part)  # type: ignore[type-var]
    own = rows.data.up_to(level)
    return (
        replace(model, statistics=statistics, levels={**lower, level: whole}),
        Rows(own, NestedClusters(own.nested(part))),
    )


def unit_distances(model: GroupModel, rows: Rows) -> dict[str, NDArray[Any]]:
    """Distance of each unit from what the rest of its cluster predicts; of each row for a single level."""
    unit, cluster = _covariates(model)
    if model.top == 1:
        distance, _, df, _ = model.data(rows).cluster_distances([], cluster)
    else:
        distance, df = model.data(rows).unit_distances(unit, *model.units(rows))
    return {"distance": distance, "df": df, "pvalue": chisq_pvalues(distance, df)}


def _covariates(model: GroupModel) -> tuple[list[int], list[int]]:
    """Positions of the fixed covariates among the unit-level and among the cluster variables."""
    s = model.statistics
    unit = [k for k, name in enumerate(s.unit) if name in model.fixed[1]]
    return unit, [k for k, name in enumerate(s.cluster) if name in model.fixed[model.top]]


def _require_distances(fit: Solution, level: int) -> None:
    """Refuse what distances of models with random slopes do not exist, or not yet.

    Raises
    ------
    UnsupportedError
    """
    if any(s.nodes for s in fit.sample.statistics):
        raise UnsupportedError(
            "distances() of a model whose slopes are integrated over: the data of a cluster are a mixture of normal "
            "distributions, in which no squared distance is chi-square; look at fit.cluster_loglik() and "
            "fit.influence()"
        )
    if 1 < level < fit.table.nlevels and not fit.table.crossed:
        raise UnsupportedError(
            f"distances() of level {level} of a model with random slopes: {NOT_YET}; there are those of units and of "
            "the highest clusters"
        )


def distances(
    fit: Solution,
    level: Level | None = None,
    *,
    newdata: Any = None,
    cluster: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Mahalanobis distances from the model, with chi-square p-values.

    The distance of a cluster is that of all its data, given the fixed covariates. It is the sum of two independent
    parts: within, the deviations of the units from their mean, and between, the mean of the units and the cluster
    variables. Of three levels there is that of all data of each cluster of level 2 or 3, whatever the other clusters
    around it have, given the fixed covariates above it too. With random slopes there is that of all data of each of the
    highest clusters, given the covariates of slopes as well. The distance of a unit is from
    what the other units of its cluster, the cluster variables and its own covariates predict. Under the model with
    known parameters they have chi-square distributions.

    Parameters
    ----------
    level : {1, 2, 3, "within", "between"}, optional
        1: units; otherwise clusters, by default the highest, or the rows of a single level. Of crossed classifications
        there are those of units.
    newdata, cluster
        As in `factor_scores`.

    Returns
    -------
    DataFrame
        Of clusters: size, distance, df, pvalue, and of two levels without random slopes between, between_df,
        between_pvalue, within, within_df, within_pvalue, indexed by cluster id, of clusters within others after those
        of these.
        Of units: distance, df, pvalue with the index of the data, nan where a row was left out.

    Raises
    ------
    DataError, ModelError
        As `factor_scores`.
    UnsupportedError
        With ordered variables, slopes that are integrated over, and of clusters in the middle with random slopes.

    References
    ----------
    Pinheiro, Liu & Wu (2001). JCGS, 10, 249-276. Yuan & Hayashi (2010). Psychological Methods, 15, 335-351.
    """
    ordered = fit.sample.statistics[0].ordered
    if ordered:
        raise UnsupportedError(
            f"{ordered[0]!r} is ordered, and categories have no distance from a model whose distribution is known: "
            "influence() says how much the estimates depend on single clusters or rows"
        )
    number = fit.table.nlevels if level is None else fit.table.level(level)
    if fit.has_slopes:
        _require_distances(fit, number)
    if fit.table.crossed and number > 1:
        require_two_levels(fit.table, "distances of clusters")
    columns = cluster_columns(fit, newdata, cluster)
    return distances_frame(prediction_groups(fit, newdata, columns), number, columns.highest)
