"""Groups of a sample: from a column of any type to labels in a fixed order and the rows of each group."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import narwhals as nw
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem.data.columns import Bools, kept_ids, listed, missing_ids, select_columns
from msem.data.frames import Holes, ScreenedColumns, kept_rows, screened_columns
from msem.data.numbering import number_clusters
from msem.data.rows import ClusteredData
from msem.data.survey import SurveyColumns
from msem.errors import DataError

MOST = 1000  # groups; more are a column of ids or measurements


@dataclass(frozen=True, eq=False)
class Grouping:
    """Which row of a frame belongs to which group.

    Attributes
    ----------
    column : str
    labels : tuple of str
        Values of the column as text: categories in their order, other values sorted (numbers by size).
    codes : ndarray of int64, shape (rows,)
        Index into `labels`; -1 where the group is missing.
    """

    column: str
    labels: tuple[str, ...]
    codes: NDArray[np.int64]

    @property
    def missing(self) -> int:
        """Rows without a group."""
        return int((self.codes < 0).sum())

    def rows(self, label: str) -> Bools:
        """Rows of one group, shape (rows,)."""
        marked: Bools = self.codes == self.labels.index(label)
        return marked


def read_groups(frame: Any, column: str) -> Grouping:
    """Read the column that holds the groups.

    Parameters
    ----------
    frame : pandas, polars or pyarrow table, any frame narwhals reads, or mapping of names to arrays
        One row per unit.
    column : str
        Its name; values of any hashable type: numbers, text, booleans, dates, categories.

    Returns
    -------
    Grouping
        Its order does not depend on the order of the rows. Categories without rows are left out.

    Raises
    ------
    DataError
        If there is no such column, or it has one group only or more than a thousand, or two values that look alike
        as text.
    """
    series = select_columns(frame, [column])[column]
    present = ~missing_ids(series)
    try:
        found, unique = pd.factorize(kept_ids(series, present))
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the groups in column {column!r} cannot be told apart ({error}): use numbers or strings"
        ) from None
    values = list(unique)
    _require_groups(column, values)
    order = _order(values, _categories(series))
    rank = np.empty(len(values), dtype=np.int64)
    rank[order] = np.arange(len(values))
    codes = np.full(len(present), -1, dtype=np.int64)
    codes[present] = rank[found]
    return Grouping(column, _labels(column, [values[k] for k in order]), codes)


def _require_groups(column: str, values: Sequence[Any]) -> None:
    if not values:
        raise DataError(f"the group is missing in every row: check column {column!r}")
    if len(values) == 1:
        raise DataError(
            f"column {column!r} has one group only, {text_of(values[0])!r}: leave out group={column!r}"
        )
    if len(values) > MOST:
        raise DataError(f"column {column!r} has {len(values)} different values, too many for groups")


def _categories(series: nw.Series[Any]) -> Sequence[Any]:
    """Categories in the order their owner gave them; empty for other columns.

    The categories of polars' Categorical and of Arrow's dictionaries are in order of appearance, which is not an order
    that was given.
    """
    native = series.to_native()
    if isinstance(native, pd.Series):
        return list(native.cat.categories) if isinstance(native.dtype, pd.CategoricalDtype) else ()
    return series.dtype.categories if isinstance(series.dtype, nw.Enum) else ()


def _order(values: Sequence[Any], categories: Sequence[Any]) -> list[int]:
    """Indices of the values in the order of the groups."""
    if categories:
        place = {category: k for k, category in enumerate(categories)}
        return sorted(range(len(values)), key=lambda k: place[values[k]])
    try:
        return sorted(range(len(values)), key=lambda k: values[k])
    except TypeError:  # values of several types
        return sorted(range(len(values)), key=lambda k: (type(values[k]).__name__, text_of(values[k])))


def _labels(column: str, values: Sequence[Any]) -> tuple[str, ...]:
    labels: dict[str, Any] = {}
    for value in values:
        label = text_of(value)
        if label in labels:
            raise DataError(
                f"column {column!r} has groups {labels[label]!r} and {value!r}, which are both called {label!r}: "
                "give them different names"
            )
        labels[label] = value
    return tuple(labels)


def text_of(value: Any) -> str:
    """Label of a group: whole numbers without a decimal point, midnight as a date, other values as they print."""
    if isinstance(value, np.datetime64):
        value = pd.Timestamp(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time() and value.tzinfo is None:
        return str(value.date())
    return str(value)


def grouped_data(
    frame: Any,
    variables: Sequence[str],
    cluster: str | None,
    grouping: Grouping,
    labels: Sequence[str],
    holes: Holes | None = None,
    survey: SurveyColumns | None = None,
    inner: Sequence[str] = (),
    *,
    crossed: bool = False,
    known: bool = False,
    whole: bool = True,
) -> tuple[ClusteredData, ...]:
    """Complete rows of each group, or rows with holes.

    Parameters
    ----------
    frame, variables, cluster, holes, survey, inner, crossed, known
        As in `clustered_data`.
    grouping : Grouping
        Of the same frame.
    labels : sequence of str
        The groups, in the order wanted.
    whole : bool
        Whether a cluster has to lie within one group, as in models of several levels. Otherwise clusters with members
        in several groups are the primary sampling units of all groups.

    Returns
    -------
    tuple of ClusteredData

    Raises
    ------
    DataError
        As `clustered_data`; and if the group column is a variable of the model or the cluster column, or a cluster
        has members in several groups where it may not.
    """
    for column in (cluster, *inner):
        _require_own_role(variables, column, grouping.column)
    screened = screened_columns(frame, variables, cluster, survey, inner, crossed=crossed, known=known)
    groups = []
    for label in labels:
        try:
            groups.append(kept_rows(screened, holes, grouping.rows(label)))
        except DataError as error:
            if whole:
                _require_unmixed(screened, grouping, labels)  # which may be why
            raise DataError(f"group {label!r}: {error}") from None
    if cluster is not None and whole:
        _require_one_group_each([group.clusters for group in groups], labels, cluster, grouping.column)
    designed = any(group.sampled is not None and group.sampled.design is not None for group in groups)
    if not (whole or designed or cluster is None) and _in_several([g.clusters for g in groups], labels):
        units = replace(survey or SurveyColumns(), psu=cluster)
        return grouped_data(
            frame, variables, cluster, grouping, labels, holes, units, known=known, whole=False
        )
    for name in inner if crossed else ():
        _require_one_group_each([group.inner[name].ids for group in groups], labels, name, grouping.column)
    return tuple(groups)


def _require_unmixed(screened: ScreenedColumns, grouping: Grouping, labels: Sequence[str]) -> None:
    """Refuse groups within the highest clusters; see `_require_one_group_each`."""
    if screened.ids is None:
        return
    present = [grouping.rows(label) & ~screened.no_cluster for label in labels]
    cluster = str(screened.cluster)
    found = [number_clusters(cluster, screened.ids, own)[1] if own.any() else pd.Index([]) for own in present]
    _require_one_group_each(found, labels, cluster, grouping.column)


def _require_own_role(variables: Sequence[str], cluster: str | None, column: str) -> None:
    if column == cluster:
        raise DataError(f"{column!r} is both the group and the cluster column; a group has many clusters")
    if column in variables:
        raise DataError(
            f"{column!r} is both the group column and a variable of the model, and does not vary within a group: "
            "take it out of the model, or leave out group="
        )


def _require_one_group_each(
    ids: Sequence[pd.Index[Any]], labels: Sequence[str], cluster: str, column: str
) -> None:
    """Refuse clusters with members in several groups: the groups would not be independent."""
    torn = _in_several(ids, labels)
    if torn:
        one, other = next(iter(torn.values()))
        shown = listed([text_of(name) for name in torn], most=8)
        raise DataError(
            f"{len(torn)} cluster(s) of {cluster!r} have members in several groups of {column!r}: {shown}; the first "
            f"is in {one!r} and {other!r}. Clusters of different groups must be different: if the ids start anew in "
            "every group, make them unique; if members of one cluster differ in the group, the groups are not "
            "independent, and the group is a covariate of the within level"
        )


def _in_several(ids: Sequence[pd.Index[Any]], labels: Sequence[str]) -> dict[Any, tuple[str, str]]:
    """Clusters with members in several groups, and the first two of these."""
    seen: dict[Any, str] = {}
    torn: dict[Any, tuple[str, str]] = {}
    for own, label in zip(ids, labels, strict=True):
        for name in own:
            if seen.setdefault(name, label) != label:
                torn.setdefault(name, (seen[name], label))
    return torn
