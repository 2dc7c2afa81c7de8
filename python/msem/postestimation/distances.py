"""Mahalanobis distances of clusters and of units from the model, given the fixed covariates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from msem.distributions import chisq_pvalues
from msem.errors import UnsupportedError
from msem.estimation.solution import NOT_YET, Solution, without_slopes
from msem.model.levels import BETWEEN, Level
from msem.model.partable import require_two_levels
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
    """Distances of the highest clusters, or of the units (level 1).

    Parameters
    ----------
    groups : sequence of (label, GroupModel, Rows)
    level : int
    cluster : str
        Name of the index of a frame of clusters.
    """
    compute = unit_distances
    if level > 1:
        compute = cluster_distances if groups[0][1].top == BETWEEN else whole_distances
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


def whole_distances(model: GroupModel, rows: Rows) -> dict[str, NDArray[Any]]:
    """Distance of all data of each of the highest clusters of three levels."""
    names = model.statistics.variables.names
    given = [names.index(name) for own in model.fixed.values() for name in own]
    distance, df = model.data(rows).whole_distances(given, *model.units(rows))
    size = rows.clusters.sizes.astype(int)
    return {"size": size, "distance": distance, "df": df, "pvalue": chisq_pvalues(distance, df)}


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


@without_slopes(NOT_YET)
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
    variables. Of three levels there is that of all data of each of the highest clusters. The distance of a unit is from
    what the other units of its cluster, the cluster variables and its own covariates predict. Under the model with
    known parameters they have chi-square distributions.

    Parameters
    ----------
    level : {1, 2, 3, "within", "between"}, optional
        1: units; otherwise the highest clusters, the default, or the rows of a single level. Of crossed
        classifications there are those of units.
    newdata, cluster
        As in `factor_scores`.

    Returns
    -------
    DataFrame
        Of clusters: size, distance, df, pvalue, and of two levels between, between_df, between_pvalue, within,
        within_df, within_pvalue, indexed by cluster id. Of units: distance, df, pvalue with the index of the data, nan
        where a row was left out.

    Raises
    ------
    DataError, ModelError
        As `factor_scores`.

    References
    ----------
    Pinheiro, Liu & Wu (2001). JCGS, 10, 249-276. Yuan & Hayashi (2010). Psychological Methods, 15, 335-351.
    """
    number = fit.table.nlevels if level is None else fit.table.level(level)
    if fit.table.crossed and number > 1:
        require_two_levels(fit.table, "distances of clusters")
    if 1 < number < fit.table.nlevels:
        raise UnsupportedError(
            f"distances of clusters are those of the highest ones, level {fit.table.nlevels}, in this version; level=1 "
            "has those of units"
        )
    columns = cluster_columns(fit, newdata, cluster)
    return distances_frame(prediction_groups(fit, newdata, columns), number, columns.highest)
