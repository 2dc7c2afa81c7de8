"""Factor scores and random effects of all groups of a fit as data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.model_statistics import allowed_holes
from msem.data.rows import ClusteredData
from msem.errors import ModelError, UnsupportedError
from msem.estimation.solution import NOT_YET, Solution
from msem.model.levels import WITHIN, Level
from msem.postestimation.integrated_scores import integrated_scores, mean_parts
from msem.postestimation.ordered_scores import mode_parts, posterior_means, posterior_modes
from msem.postestimation.posterior import GroupModel, Scores, bartlett, group_model, posterior
from msem.postestimation.posterior import random_effects as between_parts
from msem.postestimation.rows import (
    ClusterColumns,
    Rows,
    cluster_columns,
    clusters_of,
    new_rows,
    require_values,
    sample_means,
    training_rows,
)
from msem.settings import require_choice

Floats = NDArray[np.float64]

Method = Literal["EBM", "EAP", "regression", "ML", "Bartlett"]
METHODS = ("EBM", "EAP", "regression", "ML", "Bartlett")
POSTERIOR = ("EBM", "EAP", "regression")
NONE_WITHIN = (
    "random effects are those of clusters, of variables that are at both levels: there are none at level 1"
)
NO_EFFECTS = "no variable of the model is at both levels, so there are no random effects"
Group = tuple[str, GroupModel, Rows]  # label, model, rows
Columns = Mapping[str, NDArray[Any]]


def scores_frame(
    groups: Sequence[Group], level: int | None, method: Method, *, se: bool, cov: bool, cluster: str
) -> pd.DataFrame:
    """Scores of the latent variables of one level, or of both with a row for each unit.

    Parameters
    ----------
    groups : sequence of (label, GroupModel, Rows)
    level : {1, 2} or None
    method : {"EBM", "EAP", "regression", "ML", "Bartlett"}
    se, cov : bool
        Add standard deviations and covariances.
    cluster : str
        Name of the index of a frame of clusters.

    Raises
    ------
    ModelError
        If there is no latent variable at the level, or the scores are not defined.
    """
    levels = latent_levels(groups, level)
    columns = [
        [_scores(model, rows, one, method).columns(se=se, cov=cov) for one in levels]
        for _, model, rows in groups
    ]
    return latent_frame(groups, columns, level, cluster)


def latent_levels(groups: Sequence[Group], level: int | None) -> tuple[int, ...]:
    """The levels with latent variables among those asked for.

    Raises
    ------
    ModelError
        If there is none.
    """
    levels = tuple(groups[0][1].levels) if level is None else (level,)
    levels = tuple(one for one in levels if any(model.latent(one) for _, model, _ in groups))
    if not levels:
        raise _no_latent(level, groups[0][1])
    return levels


def latent_frame(
    groups: Sequence[Group], columns: Sequence[Sequence[Columns]], level: int | None, cluster: str
) -> pd.DataFrame:
    """Columns of latent variables, for each group those of each of `latent_levels`, as one frame."""
    levels = latent_levels(groups, level)
    parts = [
        GroupColumns(rows.data, _combined(of, levels, rows, level), label)
        for (label, _, rows), of in zip(groups, columns, strict=True)
    ]
    return unit_frame(parts) if level in (None, 1) else cluster_frame(parts, cluster, level)


def _combined(of: Sequence[Columns], levels: Sequence[int], rows: Rows, level: int | None) -> Columns:
    """Columns of one level as they are; for a row for each unit those of clusters are repeated."""
    if level is not None or levels == (1,):
        return of[0]
    out: Columns = of[0] if levels[0] == 1 else {}
    for own, columns in zip(levels, of, strict=True):
        if own > 1:
            out = merged(out, columns, rows, own)
    return out


def _scores(model: GroupModel, rows: Rows, level: int, method: Method) -> Scores:
    compute = posterior if method in POSTERIOR else bartlett
    return compute(model, rows, level)


def random_effects_frame(
    groups: Sequence[Group], level: int, *, se: bool, cov: bool, cluster: str
) -> pd.DataFrame:
    """Parts at a level of the variables that are measured below it, one row for each cluster.

    Raises
    ------
    ModelError
        If no variable is at both levels.
    """
    if not any(model.parts(level) for _, model, _ in groups):
        raise ModelError(NONE_WITHIN if level == WITHIN else NO_EFFECTS)
    parts = [
        GroupColumns(rows.data, between_parts(model, rows, level).columns(se=se, cov=cov), label)
        for label, model, rows in groups
    ]
    return cluster_frame(parts, cluster, level)


def _no_latent(level: int | None, model: GroupModel) -> ModelError:
    if level is None:
        return ModelError("the model has no latent variable: there are no factor scores")
    more = "; for the between parts of observed variables use random_effects()" if model.both else ""
    return ModelError(f"the model has no latent variable at level {level}{more}")


@dataclass(frozen=True, eq=False)
class GroupColumns:
    """Columns of one group.

    Attributes
    ----------
    data : ClusteredData
    columns : mapping of str to ndarray
        One value for each cluster or for each unit.
    label : str
        Of the group; "" when there is one group only.
    """

    data: ClusteredData
    columns: Columns
    label: str = ""


def cluster_frame(parts: Sequence[GroupColumns], cluster: str, level: int = 2) -> pd.DataFrame:
    """One row for each cluster, indexed by cluster id, in order of first appearance.

    Clusters of level 2 of three are indexed by the id of the cluster they are in and their own, crossed ones by theirs.

    If the model has several groups the first column is `group`, the label of the cluster's group.
    """
    frames = []
    for part in parts:
        frame = pd.DataFrame(dict(part.columns), index=part.data.ids_of(level, cluster))
        if part.label:
            frame.insert(0, "group", part.label)
        frames.append(frame)
    out = pd.concat(frames)
    known = out.index.nlevels > 1 or out.index.name is not None
    return out if known else out.rename_axis(index=cluster or None)


def unit_frame(parts: Sequence[GroupColumns]) -> pd.DataFrame:
    """One row for each row of the data as given, with its index; nan in rows that were left out."""
    index = parts[0].data.index
    names = list(dict.fromkeys(name for part in parts for name in part.columns))
    out = {name: np.full(len(index), np.nan) for name in names}
    for part in parts:
        at: Any = slice(None) if part.data.rows is None else part.data.rows
        for name, values in part.columns.items():
            out[name][at] = values
    return pd.DataFrame(out, index=index)


def merged(within: Columns, between: Columns, rows: Rows, level: int = 2) -> dict[str, Floats]:
    """Columns of units and those of their clusters; the latter end in ``.l2`` where both have the name.

    With three levels in ``.l2`` or ``.l3``.

    Raises
    ------
    ModelError
        If two of them would have the same name.
    """
    codes = rows.data.codes_of(level)
    out = dict(within)
    for name, values in between.items():
        column = f"{name}.l{level}" if name in within else name
        if column in out or (column != name and column in between):
            raise ModelError(
                f"two columns of the result would be called {column!r}: rename that variable of the model"
            )
        out[column] = values[codes]
    return out


def factor_scores(
    fit: Solution,
    level: Level | None = None,
    *,
    method: Method | None = None,
    se: bool = True,
    cov: bool = False,
    newdata: Any = None,
    cluster: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Scores of the latent variables, for the data of the fit or for new data.

    Empirical Bayes scores are the means of the exact posterior distribution of the latent variables given all
    data of the cluster, at the estimated parameters: between-level scores depend on the units of a cluster and
    its cluster variables, within-level scores on the unit and, through the between parts, on the rest of its
    cluster. Their standard deviations depend on the size of the cluster. Maximum likelihood (Bartlett) scores
    treat the latent variables of one cluster, or of one unit, as fixed quantities and everything else as random.
    Under ``missing="fiml"`` all of this is given what is observed, in new data too.

    Given ordered variables the posterior distribution is not normal. Its mode ("EBM", as in lavaan) is found by
    Newton's method, with the standard deviation that the curvature there says; its mean ("EAP") and standard deviation
    by the adaptive quadrature of the full likelihood, for up to 3 dimensions between clusters and 2 within. Both are of
    the data of the fit.

    Parameters
    ----------
    level : {1, 2, 3, "within", "between"}, optional
        Level of the latent variables; default: all, with one row for each unit.
    method : {"EBM", "EAP", "regression", "ML", "Bartlett"}, optional
        Posterior means (three names for one thing, but with ordered variables, where "EBM" are modes) or maximum
        likelihood scores (two names). Default: posterior means; of ordered variables by least squares modes.
    se : bool
        Add ``<name>_se``: posterior standard deviations or, for maximum likelihood scores, standard errors.
        They take the parameters as known.
    cov : bool
        Add ``<name>_<name>_cov``: posterior or sampling covariances of pairs of scores.
    newdata : data frame, optional
        Rows with the variables of the model, the cluster and the group column; any clusters of any size.
    cluster : str or sequence of str, optional
        Columns of clusters of the new data, named as in `sem`; default: those of the fit.

    Returns
    -------
    DataFrame
        At level 2 or 3 one row for each cluster, indexed by cluster id (level 2 of three: by both ids). Otherwise one
        row for each row of the data,
        with their index: nan where a row was left out for a missing value, or where the observed values do not
        determine a maximum likelihood score. A between-level name that is also one of the within level ends in
        ``.l2``. With several groups the frame of clusters has a column `group`.

    Raises
    ------
    ModelError
        If there is no latent variable, or `method` is maximum likelihood and the observed variables do not
        determine one.
    UnsupportedError
        For ordered variables: with `newdata`, `cov` or maximum likelihood scores, and where the posterior means are
        integrals over too many variables, or residuals are correlated.
    DataError
        If the model was fitted to moments and there are no new data, or the new data lack a variable, the
        cluster or the group column, or have groups that the model has not.
    """
    if method is not None:
        require_choice("method", method, METHODS)
    number = None if level is None else fit.table.level(level)
    if fit.sample.statistics[0].ordered and newdata is None and not cov and method not in ("ML", "Bartlett"):
        if method == "EBM" or (method is None and not fit.integrates):
            return posterior_modes(fit, number, se=se)
        return (integrated_scores if fit.integrates else posterior_means)(fit, number, se=se)
    columns = cluster_columns(fit, newdata, cluster)
    groups = prediction_groups(fit, newdata, columns)
    return scores_frame(groups, number, method or "EBM", se=se, cov=cov, cluster=columns.highest)


def random_effects(
    fit: Solution,
    *,
    level: Level | None = None,
    se: bool = True,
    cov: bool = False,
    newdata: Any = None,
    cluster: str | Sequence[str] | None = None,
) -> pd.DataFrame:
    """Between parts of the variables at both levels: posterior means given all data of the cluster.

    Of models with ordered variables the parts of what is cut into categories, of those by least squares the modes of
    the posterior distribution; see `factor_scores`.

    Parameters
    ----------
    level : {2, 3}, optional
        Of three levels, which one; default: the highest.
    se : bool
        Add ``<name>_se``, posterior standard deviations.
    cov : bool
        Add ``<name>_<name>_cov``, posterior covariances.
    newdata, cluster
        As in `factor_scores`.

    Returns
    -------
    DataFrame
        One row for each cluster, indexed by cluster id. The between parts include the mean of the variable.

    Raises
    ------
    ModelError
        If no variable is at both levels.
    DataError
        As `factor_scores`.
    """
    columns = cluster_columns(fit, newdata, cluster)
    number = fit.table.nlevels if level is None else fit.table.level(level)
    if fit.sample.statistics[0].ordered and newdata is None and not cov:
        if number == WITHIN:
            raise ModelError(NONE_WITHIN)
        return _ordered_effects(fit, columns.highest, se=se)
    groups = prediction_groups(fit, newdata, columns)
    return random_effects_frame(groups, number, se=se, cov=cov, cluster=columns.highest)


def ordered_parts(fit: Solution, *, se: bool) -> Sequence[Columns]:
    """Parts at level 2 of the variables of units of a model with ordered variables, by group.

    Posterior means of a fit by maximum likelihood, modes of one by least squares.

    Raises
    ------
    UnsupportedError
        With random slopes.
    """
    if fit.has_slopes:
        raise UnsupportedError(f"random effects of ordered variables with random slopes: {NOT_YET}")
    return mean_parts(fit, se=se) if fit.integrates else mode_parts(fit, se=se)


def _ordered_effects(fit: Solution, cluster: str, *, se: bool) -> pd.DataFrame:
    groups = fit.sample.groups
    if not any(group.statistics.variables.both for group in groups):
        raise ModelError(NO_EFFECTS)
    parts = [
        GroupColumns(group.rows, columns, group.label)
        for group, columns in zip(groups, ordered_parts(fit, se=se), strict=True)
    ]
    return cluster_frame(parts, cluster, fit.table.nlevels)


def prediction_groups(fit: Solution, newdata: Any, clusters: ClusterColumns) -> list[Group]:
    """Label, model and rows of each group."""
    for group in fit.sample.groups:
        require_values(group.statistics)
    rows = prediction_rows(fit, newdata, clusters)
    labels = [group.label for group in fit.sample.groups]
    return [(labels[number], fitted_model(fit, number), part) for number, part in rows.items()]


def prediction_rows(fit: Solution, newdata: Any, clusters: ClusterColumns) -> dict[int, Rows]:
    """Rows by the number of their group: those of the fit, or of new data."""
    groups = fit.sample.groups
    if newdata is None:
        return {number: training_rows(group) for number, group in enumerate(groups)}
    holes = None if fit.options.missing == "listwise" else allowed_holes(fit.table)
    found = new_rows(fit, newdata, groups[0].statistics.names, clusters, holes)
    return {n: Rows(rows, clusters_of(groups[n].statistics, rows)) for n, rows in found.items()}


def fitted_model(
    fit: Solution, number: int, theta: Floats | None = None, *, responses: bool = False
) -> GroupModel:
    """The model of one group, counted from 0, at the estimates or at other parameters.

    `responses`: of what ordered variables are cut from; otherwise they are refused.
    """
    if not responses:
        require_values(fit.sample.groups[number].statistics)
    no_means = not fit.table.multilevel and not fit.table.meanstructure
    means = sample_means(fit.sample.groups[number]) if no_means else None
    return group_model(fit.objective, fit.estimate.theta if theta is None else theta, number + 1, means)
