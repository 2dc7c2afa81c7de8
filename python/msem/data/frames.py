"""From a data frame to the rows that are used: columns as numbers, what is missing in them, and who is left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from msem import _core
from msem.data.columns import (
    Bools,
    Column,
    Columns,
    Floats,
    column_names,
    float_column,
    frame_columns,
    kept,
    missing_ids,
)
from msem.data.numbering import InnerClusters, number_clusters, number_inner, renumbered
from msem.data.rows import NO_IDS, ClusteredData
from msem.data.screening import require_complete_rows
from msem.data.survey import Sampled, SurveyColumns, SurveyRows, checked_weights, of_clusters, survey_rows
from msem.errors import DataError

Numbers = tuple[NDArray[np.int64], "pd.Index[Any]"]  # code of each row, id of each code


@dataclass(frozen=True)
class Holes:
    """Where values may be missing in rows that are kept.

    Attributes
    ----------
    required : tuple of str
        Variables that must be there: fixed covariates, and covariates with random slopes.
    cluster_level : tuple of str
        Variables of the highest clusters: a row in which one is missing takes the value of another row of its cluster.
    inner_level : tuple of tuple of str
        The same of clusters within these, the lowest first.
    """

    required: tuple[str, ...] = ()
    cluster_level: tuple[str, ...] = ()
    inner_level: tuple[tuple[str, ...], ...] = ()


def clustered_data(
    frame: Any,
    variables: Sequence[str],
    cluster: str | None,
    holes: Holes | None = None,
    survey: SurveyColumns | None = None,
    inner: Sequence[str] = (),
    *,
    crossed: bool = False,
    known: bool = False,
) -> ClusteredData:
    """Take the needed variables from a frame, delete incomplete rows and number the clusters.

    Parameters
    ----------
    frame : pandas, polars or pyarrow table, any frame narwhals reads, or mapping of names to arrays
        One row per unit.
    variables : sequence of str
        Names of the model's observed variables.
    cluster : str or None
        Column with the ids of the highest clusters, of any hashable type. Rows without an id are left out and counted.
    inner : sequence of str
        Columns with the ids of clusters within these, the highest first.
    crossed : bool
        Whether the inner clusters are crossed with the others instead.
    known : bool
        Whether that is known of a fit, and need not be seen in these rows, which may be few.
    holes : Holes, optional
        Keep rows with missing values: leave out only those in which nothing is observed or a required variable is
        missing (one of clusters: in all rows of the cluster). Variables of clusters are filled in from other rows of
        the cluster.
    survey : SurveyColumns, optional
        The columns that say how the rows were sampled. Rows whose weight is zero are left out and counted.

    Returns
    -------
    ClusteredData
        With weights as given; see `scaled_weights`.

    Raises
    ------
    DataError
        If a column is unknown, duplicated, not numeric or infinite, if the cluster column is also a
        variable, if cluster ids cannot be hashed, or if no complete row is left; or if weights cannot be used: see
        `survey_rows`.
    """
    return kept_rows(
        screened_columns(frame, variables, cluster, survey, inner, crossed=crossed, known=known), holes
    )


@dataclass(frozen=True, eq=False)
class ScreenedColumns:
    """Columns as numbers, with what is missing in them.

    Attributes
    ----------
    columns : mapping of str to ndarray, shape (rows,)
    missing : mapping of str to ndarray of bool, shape (rows,), or None
        None where nothing is missing.
    cluster : str or None
    ids : Column or None
        The cluster column.
    no_cluster : ndarray of bool, shape (rows,)
        Rows without a cluster id.
    index : pandas.Index
        Labels of the rows.
    survey : SurveyRows or None
        How the rows were sampled.
    inner : mapping of str to Column
        Columns of clusters within clusters, the highest first.
    crossed : bool
        Whether these are crossed with the others instead.
    known : bool
        Whether that need not be seen in the rows.
    """

    columns: Mapping[str, Floats]
    missing: Mapping[str, Bools | None]
    cluster: str | None
    ids: Column | None
    no_cluster: Bools
    index: pd.Index[Any]
    survey: SurveyRows | None = None
    inner: Columns = field(default_factory=dict)
    crossed: bool = False
    known: bool = False

    @property
    def zero(self) -> Bools:
        """Rows that count for nothing."""
        return np.zeros(len(self.no_cluster), dtype=bool) if self.survey is None else self.survey.zero

    def inner_clusters(self, codes: NDArray[np.int64], keep: Bools) -> dict[str, InnerClusters]:
        """The clusters within clusters of the kept rows, given the codes of the highest ones."""
        return number_inner(
            self.inner, str(self.cluster), codes, keep, crossed=self.crossed, known=self.known
        )


def screened_columns(
    frame: Any,
    variables: Sequence[str],
    cluster: str | None,
    survey: SurveyColumns | None = None,
    inner: Sequence[str] = (),
    *,
    crossed: bool = False,
    known: bool = False,
) -> ScreenedColumns:
    """Take the needed columns from a frame; see `clustered_data`."""
    for column in (cluster, *inner):
        require_distinct_roles(variables, column)
    if survey is not None:
        survey.require_kinds(len(inner) + (cluster is not None))
    needed = [*variables, *inner] if cluster is None else [*variables, cluster, *inner]
    names = () if survey is None else survey.names
    # where nothing is needed any column tells how many rows there are
    columns = frame_columns(frame, list(dict.fromkeys([*needed, *names])) or column_names(frame)[:1])
    nrows = require_rows(columns)
    values = {name: float_column(name, columns[name]) for name in variables}
    missing = {name: missing_rows(name, column) for name, column in values.items()}
    ids = None if cluster is None else columns[cluster]
    no_cluster = np.zeros(nrows, dtype=bool) if ids is None else missing_ids(ids)
    for name in inner:
        no_cluster = no_cluster | missing_ids(columns[name])
    index = frame.index if isinstance(frame, pd.DataFrame) else pd.RangeIndex(nrows)
    sampling = survey_rows(survey, columns, cluster, nrows) if survey is not None and names else None
    nested = {name: columns[name] for name in inner}
    return ScreenedColumns(values, missing, cluster, ids, no_cluster, index, sampling, nested, crossed, known)


def complete_rows(screened: ScreenedColumns, rows: Bools | None = None) -> ClusteredData:
    """Delete incomplete rows and number the clusters; of the marked rows only, if `rows` is given."""

    def among(mask: Bools) -> Bools:
        return mask if rows is None else mask & rows

    zero = among(screened.zero)
    no_cluster = among(screened.no_cluster & ~zero)
    missing = {name: among(mask & ~zero) for name, mask in screened.missing.items() if mask is not None}
    incomplete = any_of(list(missing.values()), len(no_cluster)) & ~no_cluster
    keep = among(~(incomplete | no_cluster | zero))
    nrows = len(keep) if rows is None else int(rows.sum())
    dropped = {name: int(mask.sum()) for name, mask in missing.items() if mask.any()}
    require_complete_rows(keep, dropped, no_cluster, screened.cluster, nrows)
    codes, clusters = (
        (None, NO_IDS) if screened.ids is None else number_clusters(str(screened.cluster), screened.ids, keep)
    )
    inner = {} if codes is None else screened.inner_clusters(codes, keep)
    return ClusteredData(
        columns={name: kept(column, keep) for name, column in screened.columns.items()},
        codes=codes,
        clusters=clusters,
        nrows=nrows,
        dropped=dropped,
        dropped_rows=int(incomplete.sum()),
        dropped_no_cluster=int(no_cluster.sum()),
        left_out=_reasons(
            {"no cluster id": no_cluster, "a missing value": incomplete, "a weight of zero": zero}
        ),
        rows=None if keep.all() else np.flatnonzero(keep),
        index=screened.index,
        dropped_zero=int(zero.sum()),
        inner=_with_weights(screened.survey, keep, inner),
        **_sampling(screened.survey, keep, codes, clusters),
    )


def kept_rows(screened: ScreenedColumns, holes: Holes | None, rows: Bools | None = None) -> ClusteredData:
    """The rows to be used; of the marked rows only, if `rows` is given. See `clustered_data`."""
    if holes is None:
        return complete_rows(screened, rows)
    given = np.ones(len(screened.no_cluster), dtype=bool) if rows is None else rows
    here = given & ~screened.zero
    usable = here & ~screened.no_cluster
    empty = usable & _empty(screened)
    present = usable & ~empty
    counts = {name: int((mask & here).sum()) for name, mask in screened.missing.items() if mask is not None}

    def require_some(keep: Bools) -> None:
        outside = screened.no_cluster & here
        require_complete_rows(keep, counts, outside, screened.cluster, int(here.sum()), "row with values")

    require_some(present)
    numbers = None if screened.ids is None else number_clusters(str(screened.cluster), screened.ids, usable)
    if numbers is not None:
        screened = _shared(screened, holes.cluster_level, numbers, usable)
        within = screened.inner_clusters(numbers[0], usable) if holes.inner_level else {}
        for names, own in zip(holes.inner_level, reversed(within.values()), strict=True):
            screened = _shared(screened, names, (own.codes, own.ids), usable)
    without = {
        name: mask & present for name in holes.required if (mask := screened.missing.get(name)) is not None
    }
    lacking = any_of(list(without.values()), len(here))
    keep = present & ~lacking
    require_some(keep)
    codes, clusters, lost = (None, NO_IDS, NO_IDS) if numbers is None else renumbered(*numbers, keep[usable])
    inner = {} if codes is None else screened.inner_clusters(codes, keep)
    return ClusteredData(
        columns={name: kept(column, keep) for name, column in screened.columns.items()},
        codes=codes,
        clusters=clusters,
        nrows=int(given.sum()),
        dropped={name: int(mask.sum()) for name, mask in without.items() if mask.any()},
        dropped_rows=int(lacking.sum()),
        dropped_no_cluster=int((screened.no_cluster & here).sum()),
        dropped_empty=int(empty.sum()),
        complete=not any(mask is not None and (mask & keep).any() for mask in screened.missing.values()),
        left_out=_reasons(
            {
                "no cluster id": screened.no_cluster & here,
                "no observed value": empty,
                "no fixed covariate": lacking,
                "a weight of zero": given & screened.zero,
            }
        ),
        lost_clusters=lost,
        rows=None if keep.all() else np.flatnonzero(keep),
        index=screened.index,
        dropped_zero=int((given & screened.zero).sum()),
        inner=_with_weights(screened.survey, keep, inner),
        **_sampling(screened.survey, keep, codes, clusters),
    )


def _with_weights(
    survey: SurveyRows | None, keep: Bools, inner: Mapping[str, InnerClusters]
) -> Mapping[str, InnerClusters]:
    """Clusters within clusters with their weights as given."""
    if survey is None or not survey.inner_weights:
        return inner
    out = {}
    names = survey.columns.inner_weights
    for (column, clusters), name, given in zip(inner.items(), names, survey.inner_weights, strict=True):
        own = None
        if given is not None:
            values = checked_weights(str(name), given, keep)
            own = of_clusters(str(name), values, clusters.codes, clusters.ids, "the weight")
        out[column] = replace(clusters, weights=own)
    return out


def _sampling(
    survey: SurveyRows | None, keep: Bools, codes: NDArray[np.int64] | None, clusters: pd.Index[Any]
) -> dict[str, Any]:
    """How the kept rows, and the clusters or rows that are independent, were sampled."""
    if survey is None:
        return {}
    names = survey.columns
    weights = None if survey.weights is None else checked_weights(str(names.weights), survey.weights, keep)
    of_level2, psu = None, None
    if survey.cluster_weights is not None:
        name = str(names.cluster_weights)
        values = checked_weights(name, survey.cluster_weights, keep)
        of_level2 = values if codes is None else of_clusters(name, values, codes, clusters, "the weight")
    if survey.psu is not None:
        psu = survey.psu[keep]
        if (psu < 0).any():
            row = int(np.flatnonzero(keep)[(psu < 0).argmax()])
            raise DataError(
                f"the primary sampling unit ({names.psu!r}) is missing in {(psu < 0).sum()} row(s) that would be used, "
                f"first in row {row} (counted from 0)"
            )
        if codes is not None:
            psu = of_clusters(str(names.psu), psu, codes, clusters, "the primary sampling unit")
    replicates = None
    if survey.replicates is not None:
        for name, column in zip(names.replicates, survey.replicates.T, strict=True):
            checked_weights(name, column, keep)
        replicates = survey.replicates[keep]
    return {"weights": weights, "sampled": Sampled(of_level2, psu, survey.design), "replicates": replicates}


def _reasons(masks: Mapping[str, Bools]) -> dict[str, NDArray[np.int64]]:
    return {reason: np.flatnonzero(mask) for reason, mask in masks.items() if mask.any()}


def _empty(screened: ScreenedColumns) -> Bools:
    """Rows in which nothing is observed."""
    masks = list(screened.missing.values())
    out = np.full(len(screened.no_cluster), bool(masks))
    for mask in masks:
        out &= False if mask is None else mask
    return out


def _shared(
    screened: ScreenedColumns, names: Sequence[str], numbers: Numbers, usable: Bools
) -> ScreenedColumns:
    """The columns, with cluster variables that are missing in a row taken from the first one of the cluster with it."""
    codes = np.full(len(usable), -1, dtype=np.int64)
    codes[usable] = numbers[0]
    columns, missing = dict(screened.columns), dict(screened.missing)
    for name in names:
        mask = missing.get(name)
        if mask is None or not (mask & usable).any():
            continue
        seen, holes = np.flatnonzero(usable & ~mask), usable & mask
        values = np.full(len(numbers[1]), np.nan)
        values[codes[seen[::-1]]] = columns[name][seen[::-1]]
        column = columns[name].copy()
        column[holes] = values[codes[holes]]
        columns[name], missing[name] = column, missing_rows(name, column)
    return replace(screened, columns=columns, missing=missing)


def missing_rows(name: str, column: Floats) -> Bools | None:
    """Rows in which a column is missing, None if there are none; infinite values are refused."""
    if _core.all_finite(column):
        return None
    finite = np.isfinite(column)
    missing = np.isnan(column)
    infinite = ~(finite | missing)
    if infinite.any():
        row = int(infinite.argmax())
        raise DataError(
            f"variable {name!r} is infinite in {infinite.sum()} row(s), first in row {row} (counted from 0): "
            "correct the value, or make it missing"
        )
    return missing


def any_of(masks: Sequence[Bools | None], nrows: int) -> Bools:
    """Rows marked in any of the masks."""
    result = np.zeros(nrows, dtype=bool)
    for mask in masks:
        if mask is not None:
            result |= mask
    return result


def require_distinct_roles(variables: Sequence[str], cluster: str | None) -> None:
    """Refuse the cluster column as a variable of the model."""
    if cluster is not None and cluster in variables:
        raise DataError(
            f"{cluster!r} is both the cluster column and a variable of the model: an id has no mean or "
            "variance; take it out of the model, or name another column in cluster="
        )


def require_rows(columns: Columns) -> int:
    """Refuse columns of unequal length and empty data; return the number of rows."""
    lengths = {name: len(series) for name, series in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns differ in length: {lengths}")
    nrows = next(iter(lengths.values()))
    if nrows == 0:
        raise DataError("the data have no rows")
    return nrows
