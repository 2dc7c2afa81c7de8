"""The rows for which scores and distances are computed: those a model was fitted to, or new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.columns import kept_ids, missing_ids, select_columns
from msem.data.crossed import CrossedClusters
from msem.data.frames import Holes, clustered_data
from msem.data.grouping import Grouping, grouped_data, text_of
from msem.data.incomplete import clusters_of_rows
from msem.data.nested import NestedClusters
from msem.data.reading import require_columns_of_levels
from msem.data.rows import ClusteredData, columns_of
from msem.data.sample import Group
from msem.data.statistics import Clusters, Statistics
from msem.errors import DataError, ModelError, UnsupportedError
from msem.estimation.solution import Solution
from msem.model.levels import BETWEEN
from msem.model.variables import Variables
from msem.settings import Settings

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of one group, with the statistics of their clusters.

    Attributes
    ----------
    data : ClusteredData
    clusters : ClusterArrays or IncompleteClusters
        Of the rows themselves for a single level.
    """

    data: ClusteredData
    clusters: Clusters


def require_values(statistics: Statistics) -> None:
    """Refuse what is made from values of variables where some are categories.

    Raises
    ------
    UnsupportedError
    """
    if statistics.ordered:
        raise UnsupportedError(
            f"{statistics.ordered[0]!r} is ordered: scores of new data, covariances of scores and maximum likelihood "
            "scores of models with ordered variables are not available in this version"
        )


def training_rows(group: Group) -> Rows:
    """The rows of a group that the model was fitted to.

    Raises
    ------
    DataError
        If it was fitted to moments or statistics.
    """
    if group.data is None:
        raise DataError(
            "the model was fitted to moments or statistics, which do not tell one row from another: give rows as "
            "newdata="
        )
    if not group.statistics.independent:
        return Rows(group.data, clusters_of(group.statistics, group.data))
    if group.statistics.unit and group.sampled is None:
        return Rows(group.data, group.clusters)
    # what is known of a unit or cluster does not depend on how often it counts
    rows = group.data.unweighted
    return Rows(rows, clusters_of(group.statistics, rows))


class ClusterColumns(NamedTuple):
    """Columns of clusters in rows that a fit is asked about.

    Attributes
    ----------
    highest : str
        "" if there is none.
    inner : tuple of str
        Those within these, the highest first, or crossed with them.
    """

    highest: str = ""
    inner: tuple[str, ...] = ()


def cluster_columns(fit: Solution, newdata: Any, cluster: Any) -> ClusterColumns:
    """Columns of clusters of new data: as a user names them, or those of the fit; of the fit's own rows always these.

    Raises
    ------
    DataError
        If they are more or fewer than levels above the first, or nested where those of the fit are crossed.
    """
    known = fit.options.cluster_columns
    if newdata is None or not fit.table.multilevel:
        return ClusterColumns(fit.options.highest or "", fit.options.inner)
    given = Settings.read({"cluster": cluster or known or None})
    try:
        require_columns_of_levels(fit.table, given)
    except ModelError as error:  # it is the new data that do not fit
        raise DataError(str(error)) from None
    columns = given.cluster_columns
    if cluster and given.crossed != fit.table.crossed:
        own = 'crossed: name both in one text, cluster="pupil * school"'
        nested = 'nested: name them in a list, the highest first, cluster=["school", "class"]'
        raise DataError(f"the clusters of the model are {own if fit.table.crossed else nested}")
    if set(columns) == set(known) and columns != known:
        if not given.crossed:
            raise DataError(
                f"cluster={list(columns)} is the other way round in the fit: cluster={list(known)}"
            )
        columns = known  # one crossed with another is the other crossed with it
    return ClusterColumns(columns[0], columns[1:])


def new_rows(
    fit: Solution,
    frame: Any,
    names: Sequence[str],
    clusters: ClusterColumns | None,
    holes: Holes | None = None,
) -> dict[int, ClusteredData]:
    """Variables of a frame of new data, by the number of their group from 0; any clusters of any size.

    Parameters
    ----------
    fit : Solution
        Of the model, for the labels of its groups.
    frame : data frame or mapping of arrays
    names : sequence of str
    clusters : ClusterColumns or None
        Not used for a single level; None for rows whose clusters do not matter.
    holes : Holes, optional
        Keep rows with missing values; otherwise only complete ones.

    Raises
    ------
    DataError
        If a variable, a cluster or the group column is absent, a group is unknown, a cluster variable varies within a
        cluster, or a cluster is in several groups.
    """
    groups, crossed = fit.sample.groups, fit.table.crossed
    column, inner = clusters if clusters is not None and fit.table.multilevel else (None, ())
    if len(groups) == 1:
        return {0: clustered_data(frame, names, column, holes, None, inner, crossed=crossed, known=True)}
    grouping = known_groups(frame, fit.options.group, [one.label for one in groups])
    used = [number for number in range(len(groups)) if (grouping.codes == number).any()]
    labels = [grouping.labels[number] for number in used]
    rows = grouped_data(
        frame, names, column, grouping, labels, holes, None, inner, crossed=crossed, known=True
    )
    return dict(zip(used, rows, strict=True))


def clusters_of(statistics: Statistics, rows: ClusteredData) -> Clusters:
    """Clusters of any rows with the variables of some statistics."""
    return statistics.new_clusters(rows) or clusters_of_rows(rows, statistics.variables)


def some_clusters(rows: ClusteredData, variables: Variables) -> Clusters:
    """Clusters of any rows with some variables, without random slopes."""
    if len(variables.levels) <= BETWEEN:
        return clusters_of_rows(rows, variables)
    if any(clusters.crossed for clusters in rows.inner.values()):
        return CrossedClusters(*rows.crossed(variables))
    return NestedClusters(rows.nested(variables))


def known_groups(frame: Any, column: str, labels: Sequence[str]) -> Grouping:
    """Group of each row of new data, some of the groups of a model.

    Raises
    ------
    DataError
        If there is no such column, or it has another group.
    """
    series = select_columns(frame, [column])[column]
    present = ~missing_ids(series)
    found, unique = pd.factorize(kept_ids(series, present))
    texts = [text_of(value) for value in unique]
    unknown = [text for text in texts if text not in labels]
    if unknown:
        raise DataError(
            f"group {unknown[0]!r} of column {column!r} is none of those of the model: {', '.join(map(repr, labels))}"
        )
    codes = np.full(len(present), -1, dtype=np.int64)
    codes[present] = np.array([labels.index(text) for text in texts], dtype=np.int64)[found]
    return Grouping(column, tuple(labels), codes)


def sample_means(group: Group) -> Floats:
    """Means of the variables of a single level, for a model that has none itself.

    Raises
    ------
    DataError
        If the model was fitted to a covariance matrix.
    """
    if group.data is None:
        raise DataError(
            "the model has no means and was fitted to a covariance matrix, so that scores have no origin: fit it with "
            "sample_mean= and meanstructure=True"
        )
    columns = columns_of(group.data, group.statistics.cluster)
    return np.array([np.average(column, weights=group.data.weights) for column in columns])
