"""What a user may give as a sample, turned into statistics of a model's variables."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from msem.data.clusters import ClusterStatistics, single_level, two_level
from msem.data.columns import column_names, listed
from msem.data.complete import (
    SampleStatistics,
    moment_statistics,
    sample_statistics,
    simple_statistics,
)
from msem.data.frames import ClusteredData, Holes, clustered_data
from msem.data.grouping import Grouping, grouped_data, read_groups, text_of
from msem.data.incomplete import incomplete_statistics, simple_incomplete
from msem.data.moments import LevelMoments
from msem.data.sample import GroupSample, saturated_group
from msem.data.statistics import Statistics
from msem.errors import DataError, DataWarning, ModelError
from msem.model.partable import ParameterTable

GIVEN_AS = {
    "data": "raw data",
    "moments": "moments with cluster sizes",
    "moments, N and J only": "moments with N and J only",
    "clusters": "statistics of clusters",
}


Moments = LevelMoments, SampleStatistics, ClusterStatistics
Means = pd.Series | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Source:
    """A sample as the user gave it.

    Attributes
    ----------
    data : data frame, LevelMoments, SampleStatistics, ClusterStatistics, mapping of label to one of these, or None
    cluster : str or None
    cov, mean, nobs, rescale
        Moments of a single-level sample, or mappings of label to those of each group.
    grouping : Grouping or None
        The groups of the rows of data.
    incomplete : bool
        Keep rows with holes, for full-information maximum likelihood.
    """

    data: Any = None
    cluster: str | None = None
    cov: Any = None
    mean: Any = None
    nobs: Any = None
    rescale: bool = True
    grouping: Grouping | None = None
    incomplete: bool = False

    @cached_property
    def groups(self) -> Mapping[str, Source]:
        """The moments of each group by its label, where they are given so; empty otherwise.

        Raises
        ------
        DataError
            If they are not given for the same groups.
        """
        if isinstance(self.data, Mapping) and any(isinstance(one, Moments) for one in self.data.values()):
            given: dict[str, Any] = {"data": self.data}
        elif isinstance(self.cov, Mapping):
            given = {"sample_cov": self.cov, "sample_nobs": self.nobs, "sample_mean": self.mean}
        else:
            return {}
        labels = _labels(given)
        fields = {"data": "data", "sample_cov": "cov", "sample_nobs": "nobs", "sample_mean": "mean"}
        return {
            text_of(label): replace(
                self, **{fields[name]: one[label] for name, one in given.items() if one is not None}
            )
            for label in labels
        }

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Labels of the groups; None for a sample of one group."""
        if self.grouping is not None:
            return self.grouping.labels
        return tuple(self.groups) or None


@dataclass(frozen=True, eq=False)
class Prepared:
    """Statistics of the variables of a model, and the rows they were made of if there were any."""

    statistics: Statistics
    data: ClusteredData | None = None
    given_as: str = "raw data"
    maximum: bool = True  # False if implied by saturated moments that have not converged
    label: str = ""
    summary: ClusterStatistics | None = None

    def sample(self) -> GroupSample:
        """The statistics with their saturated moments."""
        return saturated_group(
            self.statistics, maximum=self.maximum, data=self.data, summary=self.summary, label=self.label
        )

    @property
    def known(self) -> ClusteredData | ClusterStatistics | None:
        """Where the numbers of rows that were left out stand."""
        return self.data if self.summary is None else self.summary


def require_rows_for_holes(source: Source) -> None:
    """Refuse full information from moments, which have no holes.

    Raises
    ------
    DataError
    """
    moments = source.cov is not None or bool(source.groups) or isinstance(source.data, Moments)
    if source.incomplete and moments:
        raise DataError('missing="fiml" is for raw data: moments have no missing values; leave it out')


def _labels(given: Mapping[str, Any]) -> list[Any]:
    """Labels that all mappings have; None stands for what is not given."""
    (first, whole), *others = given.items()
    for name, part in others:
        if part is not None and (not isinstance(part, Mapping) or set(part) != set(whole)):
            raise DataError(
                f"{first} is given for the groups {listed(list(whole))}: give {name} for the same groups, as a dict"
            )
    if len(whole) == 1:
        raise DataError(f"{first} is given for one group only, {listed(list(whole))}: give it without a dict")
    for label, one in whole.items():
        if not isinstance(one, (*Moments, pd.DataFrame)):
            raise DataError(f"{first} of group {label!r} is a {type(one).__name__}; all groups need moments")
    return list(whole)


def prepare(table: ParameterTable, source: Source) -> tuple[Prepared, ...]:
    """Statistics of the variables of a model, for each group.

    Raises
    ------
    ModelError
        If model and sample do not have the same number of levels, or a latent variable is a column of the data.
    DataError
        If the sample cannot be used; see `clustered_data`, `grouped_data`, `sample_statistics` and `LevelMoments`.
    """
    if source.groups:
        return tuple(_of_group(table, source.groups[label], label) for label in table.group_labels)
    _require_used(table, source)
    if source.data is not None and not isinstance(source.data, Moments):
        require_rows_of_data(source.data)
        _require_latent_names(table, source.data)
    prepared = _two_level(table, source) if table.nlevels == 2 else _single_level(table, source)
    for count, what in left_out(source, prepared):
        warnings.warn(f"{count} rows have no {what} and were left out", DataWarning, stacklevel=4)
    return prepared


def _of_group(table: ParameterTable, source: Source, label: str) -> Prepared:
    try:
        (prepared,) = prepare(table, source)
    except DataError as error:
        raise DataError(f"group {label!r}: {error}") from None
    return replace(prepared, label=label)


def left_out(source: Source, prepared: Sequence[Prepared]) -> Iterator[tuple[int, str]]:
    """How many rows have no group, no cluster id or, with holes, nothing or not what they must have."""
    if source.grouping is not None and source.grouping.missing:
        yield source.grouping.missing, f"group ({source.grouping.column})"
    rows = [one.data for one in prepared if one.data is not None]
    dropped = sum(data.dropped_no_cluster for data in rows)
    if dropped:
        yield dropped, f"cluster id ({source.cluster})"
    if source.incomplete:
        empty, lacking = (
            sum(getattr(data, name) for data in rows) for name in ("dropped_empty", "dropped_rows")
        )
        if empty:
            yield empty, "observed value"
        if lacking:
            counts = Counter[str]()
            for data in rows:
                counts.update(data.dropped)
            listed_counts = ", ".join(f"{name} {count}" for name, count in counts.items())
            yield lacking, f"value of a fixed covariate ({listed_counts})"


def group_rows(data: Any, column: str | None) -> Grouping | None:
    """The groups of data; None if no column is named.

    Raises
    ------
    DataError
        If the data have no rows, or see `read_groups`.
    """
    if column is None:
        return None
    if data is None or isinstance(data, Moments):
        raise DataError(
            f"group={column!r} names a column of raw data; give moments of several groups as a dict: "
            '{"one": moments, "other": moments}'
        )
    if isinstance(data, Mapping) and any(isinstance(one, Moments) for one in data.values()):
        raise DataError(
            f"group={column!r} names a column of raw data; moments by group have labels: leave it out"
        )
    return read_groups(data, column)


def _raw(table: ParameterTable, source: Source, cluster: str | None) -> tuple[Prepared, ...]:
    """Statistics of the rows of each group."""
    variables = [*table.both, *table.within_only, *table.between_only] or list(table.observed(1))
    holes = allowed_holes(table) if source.incomplete else None
    if source.grouping is None:
        data = clustered_data(source.data, variables, cluster, holes)
        return (Prepared(_statistics(table, data), data),)
    rows = grouped_data(source.data, variables, cluster, source.grouping, table.group_labels, holes)
    groups = []
    for label, data in zip(table.group_labels, rows, strict=True):
        try:
            groups.append(Prepared(_statistics(table, data), data, label=label))
        except DataError as error:
            raise DataError(f"group {label!r}: {error}") from None
    return tuple(groups)


def _statistics(table: ParameterTable, data: ClusteredData) -> Statistics:
    if table.nlevels == 1:
        if data.codes is not None and len(data.clusters) < 2:
            raise DataError("all rows are in one cluster: cluster-robust standard errors need more than one")
        make_simple = simple_statistics if data.complete else simple_incomplete
        return make_simple(data, table.observed(1))
    make = sample_statistics if data.complete else incomplete_statistics
    return make(data, (*table.both, *table.within_only), table.between_only, len(table.both))


def _require_used(table: ParameterTable, source: Source) -> None:
    """Refuse arguments that would have no effect."""
    moments = isinstance(source.data, Moments)
    if moments and source.cluster is not None:
        raise DataError(
            f"cluster={source.cluster!r} is for raw data; moments have their clusters: leave it out"
        )
    given = {
        "sample_mean": source.mean is not None,
        "sample_nobs": source.nobs is not None,
        "sample_cov_rescale": not source.rescale,
    }
    unused = [name for name, is_given in given.items() if is_given and source.cov is None]
    if unused and (table.nlevels == 2 or source.data is not None):
        what = "moments" if moments else "data"
        raise DataError(f"{unused[0]} belongs to sample_cov and has no effect on {what}: leave it out")


def require_rows_of_data(data: Any) -> None:
    """Refuse a covariance matrix in the place of data.

    Raises
    ------
    DataError
        If the rows of a data frame are named as its columns are.
    """
    if isinstance(data, pd.DataFrame) and not isinstance(data.index, pd.RangeIndex):
        rows, columns = list(data.index), list(data.columns)
        if rows and len(rows) == len(columns) and set(rows) == set(columns):
            raise DataError(
                "the rows of the data are named as the columns are, so this is a covariance matrix: give it as "
                "sample_cov= with sample_nobs=, or two matrices of a two-level model as msem.LevelMoments"
            )


def _require_latent_names(table: ParameterTable, data: Any) -> None:
    """Refuse latent variables with the name of a column: one of the two is meant, and which is not known."""
    columns = set(column_names(data))
    for row in table.rows:
        if row.op == "=~" and row.lhs in columns:
            message = (
                f"'{row.lhs}' is a latent variable of the model and a column of the data; give the latent variable "
                "another name, or leave the column out of the data"
            )
            if table.syntax is not None and row.at is not None:
                message = table.syntax.locate(row.at, message)
            raise ModelError(message)


def _two_level(table: ParameterTable, source: Source) -> tuple[Prepared, ...]:
    unit, cluster, nboth = (*table.both, *table.within_only), table.between_only, len(table.both)
    if source.cov is not None:
        raise ModelError(
            "sample_cov is for single-level models; give the matrices of a two-level model as "
            "msem.LevelMoments(within_cov=..., between_cov=..., nobs=..., nclusters=...)"
        )
    given = source.data
    if given is None:
        raise DataError("no data: give a data frame with cluster=, or msem.LevelMoments")
    if isinstance(given, LevelMoments):
        given.require(unit, (*table.both, *cluster))
        if given.incomplete:
            raise DataError(
                "these moments were estimated from data with holes, and a joint fit would take them for moments of "
                'complete data, with errors that are too small: fit the data with missing="fiml", or each level by '
                "itself with msem.segregated(model, moments), whose errors hold"
            )
        part = given.expected_statistics.restrict(unit, cluster, nboth)
        return (Prepared(part, given_as=given.given_as, maximum=given.converged),)
    if isinstance(given, ClusterStatistics):
        return (
            Prepared(two_level(given, unit, cluster, nboth), given_as=GIVEN_AS["clusters"], summary=given),
        )
    if isinstance(given, SampleStatistics):
        if not given.unit:
            raise ModelError("the model has two levels but these are statistics of a single-level sample")
        given_as = GIVEN_AS.get(given.source, given.source)
        return (Prepared(given.restrict(unit, cluster, nboth), given_as=given_as),)
    if source.cluster is None:
        raise ModelError('the model has two levels: name the column with the cluster ids, cluster="..."')
    return _raw(table, source, source.cluster)


def _single_level(table: ParameterTable, source: Source) -> tuple[Prepared, ...]:
    names = table.observed(1)
    if isinstance(source.data, LevelMoments):
        raise ModelError(
            "the model has one level but LevelMoments have two: add 'level: 1' and 'level: 2' blocks, or give one "
            "level's matrix as sample_cov="
        )
    if source.data is not None and not (source.cov is None and source.mean is None and source.nobs is None):
        raise DataError("give either data or sample_cov, sample_mean and sample_nobs, not both")
    if source.cov is not None:
        if source.cluster is not None:
            raise DataError(
                f"cluster={source.cluster!r} names a column of raw data: leave it out with sample_cov"
            )
        if table.meanstructure and source.mean is None:
            raise DataError(
                "the model has a mean structure: give sample_mean=, or drop the intercepts from the model (several "
                "groups have means unless meanstructure=False)"
            )
        whole = moment_statistics(source.cov, source.mean, source.nobs, rescale=source.rescale)
        absent = [name for name in names if name not in whole.cluster]
        if absent:
            raise DataError(f"sample_cov has no variable {absent[0]!r}; it has {', '.join(whole.cluster)}")
        one = Prepared(whole.restrict((), names, 0), given_as="sample covariance matrix")
    elif isinstance(source.data, SampleStatistics):
        given_as = GIVEN_AS.get(source.data.source, "statistics")
        one = Prepared(source.data.restrict((), names, 0), given_as=given_as)
    elif isinstance(source.data, ClusterStatistics):
        statistics = single_level(source.data, names)
        one = Prepared(statistics, given_as=GIVEN_AS["clusters"], summary=source.data)
    elif source.data is None:
        raise DataError("no data: give a data frame, or sample_cov= with sample_nobs=")
    else:
        return _with_means(table, _raw(table, source, source.cluster))
    return _with_means(table, (one,))


def _with_means(table: ParameterTable, prepared: tuple[Prepared, ...]) -> tuple[Prepared, ...]:
    """The statistics, without their means if the model has none."""
    if table.meanstructure:
        return prepared
    return tuple(replace(one, statistics=one.statistics.centred()) for one in prepared)


def allowed_holes(table: ParameterTable) -> Holes:
    """Where rows may have holes: anywhere but in fixed covariates, which the likelihood is conditional on."""
    levels, groups = range(1, table.nlevels + 1), range(1, table.ngroups + 1)
    fixed = dict.fromkeys(
        name for level in levels for group in groups for name in table.exogenous(level, group)
    )
    return Holes(required=tuple(fixed), cluster_level=table.between_only)
